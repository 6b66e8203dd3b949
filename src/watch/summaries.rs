//! The summaries of a label in a receiver's answers.

use serde::Deserialize;

/// The intervals of a label, as `/api/perf` and `/api/hosts` list them.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Summary {
    pub(super) end: u64,
    pub(super) timeslice_size_sec: u64,
    pub(super) averages: Vec<Average>,
}

/// One interval that has samples.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Average {
    start_sec: u64,
    pub(super) num_samples: u32,
    /// The mean, of which older receivers have `avg` alone, which is rounded.
    mean: Option<f64>,
    avg: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Average {
    pub(super) fn mean(&self) -> f64 {
        self.mean.unwrap_or(self.avg)
    }
}

/// The means of a summary, each at the index of its interval; an interval without samples is a gap.
pub(super) fn slots(summary: &Summary, count: usize) -> Vec<Option<f64>> {
    let mut slots = vec![None; count];
    let interval_sec = summary.timeslice_size_sec.max(1);
    // The running interval is the last. A sample on a boundary belongs to the interval that it ends.
    let running = summary.end.saturating_sub(1) / interval_sec;
    for average in &summary.averages {
        let age = running.checked_sub(average.start_sec / interval_sec).and_then(|age| usize::try_from(age).ok());
        if let Some(slot) = age.and_then(|age| count.checked_sub(age + 1)).and_then(|index| slots.get_mut(index)) {
            *slot = Some(average.mean());
        }
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_outside_the_window_have_no_place() {
        let average = |start_sec| Average { start_sec, num_samples: 1, mean: None, avg: 1.0, min: 1.0, max: 1.0 };
        let summary =
            Summary { end: 7200, timeslice_size_sec: 60, averages: vec![average(0), average(7140), average(999_999)] };
        let slots = slots(&summary, 60);
        assert_eq!((slots.iter().flatten().count(), slots[59]), (1, Some(1.0)));
    }
}
