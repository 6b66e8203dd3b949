//! The series of one host by their labels, laid out so that recording a sample touches few places in memory.
//!
//! The samples of a host carry the same labels in the same order, again and again. So its series are a row in the order
//! in which they were made, each beside its label, and a sample is compared with a run of that row. Where that fails,
//! each label is looked up: first behind the one before it, then in the whole row or, past [`SEARCHED_MAX`] series, in an
//! index.

use std::borrow::Cow;
#[cfg(feature = "disk")]
use std::ops::Range;

use foldhash::{HashMap, HashMapExt};
use smol_str::SmolStr;

use crate::summary::Series;

/// Longest row that is searched without an index: a search of it takes as long as one lookup in an index.
const SEARCHED_MAX: usize = 12;

/// Most series that [`SeriesTable::prefetch`] reads: few hosts have more.
const PREFETCHED_MAX: usize = 8;

/// The series of one host.
#[derive(Debug, Default)]
pub(super) struct SeriesTable {
    row: Vec<(SmolStr, Series)>,
    /// The place of each label, if there are more than [`SEARCHED_MAX`].
    index: Option<Box<HashMap<SmolStr, u32>>>,
}

impl SeriesTable {
    pub(super) fn len(&self) -> usize {
        self.row.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.row.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(SmolStr, Series)> {
        self.row.iter()
    }

    #[cfg(feature = "disk")]
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Series)> {
        self.row.iter_mut().map(|(label, series)| (label.as_str(), series))
    }

    /// The series of a range of places, as far as there are that many.
    #[cfg(feature = "disk")]
    pub(super) fn range_mut(&mut self, places: Range<usize>) -> impl Iterator<Item = (&str, &mut Series)> {
        let end = places.end.min(self.row.len());
        self.row[places.start.min(end)..end].iter_mut().map(|(label, series)| (label.as_str(), series))
    }

    pub(super) fn get(&self, label: &str) -> Option<&Series> {
        self.place(label, 0).map(|place| &self.row[place].1)
    }

    /// The place of a label in the row. The place `hint` is tried first.
    pub(super) fn place(&self, label: &str, hint: usize) -> Option<usize> {
        if self.row.get(hint).is_some_and(|(known, _)| known == label) {
            return Some(hint);
        }
        match &self.index {
            Some(index) => index.get(label).map(|place| *place as usize),
            None => self.row.iter().position(|(known, _)| known == label),
        }
    }

    /// Brings the row into the processor's cache. What it returns means nothing; it keeps the reads from being removed.
    pub(super) fn prefetch(&self) -> usize {
        self.row.iter().take(PREFETCHED_MAX).map(|(label, series)| label.len() + series.running_samples()).sum()
    }

    /// The place in the row where the labels of a sample stand side by side, in their order, if there is one.
    pub(super) fn run(&self, values: &[(Cow<'_, str>, f64)]) -> Option<usize> {
        let (first, _) = values.first()?;
        let is_at = |first: usize| {
            let row = self.row.get(first..first + values.len());
            row.is_some_and(|row| row.iter().zip(values).all(|((known, _), (label, _))| known == &**label))
        };
        if is_at(0) {
            return Some(0);
        }
        self.place(first, 0).filter(|first| is_at(*first))
    }

    /// The series of the row from a place on.
    pub(super) fn series_from(&mut self, place: usize) -> impl Iterator<Item = &mut Series> {
        self.row[place..].iter_mut().map(|(_, series)| series)
    }

    /// The series of a label, which is made if it does not exist, and its place. The place `hint` is tried first.
    pub(super) fn get_or_make(&mut self, label: &str, hint: usize) -> (usize, &mut Series) {
        let place = self.place(label, hint).unwrap_or_else(|| self.push(label.into()));
        (place, &mut self.row[place].1)
    }

    fn push(&mut self, label: SmolStr) -> usize {
        let place = self.row.len();
        // Room grows by a quarter only: most hosts have few labels, and never get one more.
        if place == self.row.capacity() {
            self.row.reserve_exact(1.max(place / 4));
        }
        match &mut self.index {
            Some(index) => drop(index.insert(label.clone(), place as u32)),
            None if place >= SEARCHED_MAX => {
                let mut index = self.make_index();
                index.insert(label.clone(), place as u32);
                self.index = Some(Box::new(index));
            }
            None => {}
        }
        self.row.push((label, Series::default()));
        place
    }

    /// Removes the series for which `keep` is false.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&mut Series) -> bool) {
        let before = self.row.len();
        self.row.retain_mut(|(_, series)| keep(series));
        if self.row.len() == before {
            return;
        }
        if self.row.len() < self.row.capacity() / 2 {
            self.row.shrink_to_fit();
        }
        self.index = (self.row.len() > SEARCHED_MAX).then(|| Box::new(self.make_index()));
    }

    fn make_index(&self) -> HashMap<SmolStr, u32> {
        let mut index = HashMap::with_capacity(self.row.len() + 1);
        index.extend(self.row.iter().zip(0..).map(|((label, _), place)| (label.clone(), place)));
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_found_wherever_it_stands() {
        let mut table = SeriesTable::default();
        let names: Vec<String> = (0..100).map(|n| format!("a label that is longer than others {n}")).collect();
        for (place, name) in names.iter().enumerate() {
            assert_eq!(table.place(name, place), None);
            assert_eq!(table.get_or_make(name, place).0, place);
        }
        for hint in [0, 7, 99, 1000] {
            assert!(names.iter().enumerate().all(|(place, name)| table.place(name, hint) == Some(place)));
        }
        let mut place = 0;
        table.retain(|_| {
            place += 1;
            place % 3 == 0
        });
        let kept: Vec<&String> = names.iter().skip(2).step_by(3).collect();
        assert_eq!(table.iter().map(|(label, _)| label.as_str()).collect::<Vec<_>>(), kept);
        assert!(kept.iter().enumerate().all(|(place, name)| table.place(name, 0) == Some(place)));
        assert_eq!(table.place(&names[0], 0), None);
        table.retain(|_| false);
        assert!(table.is_empty() && table.get(&names[2]).is_none());
    }
}
