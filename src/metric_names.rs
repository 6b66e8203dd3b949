//! How a label of a host becomes a metric: one table for `/metrics`, for Prometheus's API and, with the units, for the page.
//!
//! `cpu` is `lizm_cpu{host}`. A part behind a colon has a name of its own, so that a sum does not count twice: `cpu:0` is
//! `lizm_cpu_core{host,core}`. Tags are labels: `disk.used,path=/var` is `lizm_disk_used{host,path}`. Beside the average
//! stand `_min`, `_max` and `_samples`. What cannot be a name becomes `_`; series of a host that would then be one are told
//! apart by the label `label`.

use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;
use smol_str::{SmolStr, format_smolstr};

use crate::summary::Bucket;
use crate::units::{Unit, is_like, unit_of};

/// Stems of labels, with `*` at one end, and the name of what stands behind their colon. The first that matches counts.
const PARTS: [(&str, &str); 11] = [
    ("cpu*", "core"),
    ("*-read", "device"),
    ("*-write", "device"),
    ("disk*", "path"),
    ("inodes", "path"),
    ("net-*", "interface"),
    ("temp*", "sensor"),
    ("gpu*", "card"),
    ("top-*", "command"),
    ("procs*", "pattern"),
    ("container*", "container"),
];
/// The name of other parts.
const OTHER_PART: &str = "part";

/// The receiver's own metrics. A label that would have one of these names is followed by [`NOT_OWN`].
const OWN: [&str; 36] = [
    "lizm_alert_evaluation_timestamp_seconds",
    "lizm_alert_rules",
    "lizm_archive_behind_seconds",
    "lizm_archive_failures_total",
    "lizm_archive_intervals_total",
    "lizm_archive_refused_total",
    "lizm_archive_skipped_total",
    "lizm_build_info",
    "lizm_clock_jump_seconds",
    "lizm_host_clock_skew_seconds",
    "lizm_host_conflict",
    "lizm_host_info",
    "lizm_host_up",
    "lizm_host_value",
    "lizm_hosts",
    "lizm_hosts_omitted",
    "lizm_http_request_duration_seconds",
    "lizm_http_requests_forbidden_total",
    "lizm_http_responses_total",
    "lizm_https_connections_rejected_total",
    "lizm_https_handshakes_failed_total",
    "lizm_line_strings_total",
    "lizm_notification_queue",
    "lizm_notifications_failed_total",
    "lizm_notifications_total",
    "lizm_panics_total",
    "lizm_requests_duplicate_total",
    "lizm_samples_refused_total",
    "lizm_series",
    "lizm_series_max",
    "lizm_store_info",
    "lizm_store_up",
    "lizm_udp_datagrams_dropped_total",
    "lizm_values_expired_total",
    "lizm_values_refused_total",
    "lizm_values_stored_total",
];
const NOT_OWN: &str = "_reported";

/// What a metric has of each interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stat {
    /// The mean of the samples.
    Mean,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// How many there are.
    Samples,
}

impl Stat {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Mean, Self::Min, Self::Max, Self::Samples];

    /// What follows the name of the metric.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Mean => "",
            Self::Min => "_min",
            Self::Max => "_max",
            Self::Samples => "_samples",
        }
    }

    /// The value of an interval, which has samples.
    #[must_use]
    pub fn of(self, bucket: Bucket) -> f64 {
        match self {
            Self::Mean => bucket.mean(),
            Self::Min => bucket.min,
            Self::Max => bucket.max,
            Self::Samples => f64::from(bucket.count),
        }
    }

    /// In words, for the help of a metric.
    fn words(self) -> &'static str {
        match self {
            Self::Mean => "average of an interval",
            Self::Min => "least sample of an interval",
            Self::Max => "greatest sample of an interval",
            Self::Samples => "number of samples in an interval",
        }
    }
}

/// Name and labels of a metric, but for the host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Metric {
    /// The name of its average.
    pub name: SmolStr,
    /// Names and values of its other labels, sorted by name.
    pub labels: Vec<(SmolStr, SmolStr)>,
}

impl Metric {
    /// The name of one of its stats.
    #[must_use]
    pub fn name_of(&self, stat: Stat) -> SmolStr {
        format_smolstr!("{}{}", self.name, stat.suffix())
    }
}

/// What `# HELP` and the metadata say of a metric.
#[must_use]
pub fn help(name: &str, stat: Stat, unit: Unit) -> String {
    let of = name.strip_prefix("lizm_").unwrap_or(name);
    let unit = if stat == Stat::Samples { "" } else { unit.word() };
    let unit = if unit.is_empty() { String::new() } else { format!(" in {}", unit.replace('_', " ")) };
    format!("What hosts report as {of}{unit}: {}.", stat.words())
}

/// The metrics of labels. It remembers those that it was asked for, since most hosts have the same.
#[derive(Debug, Default)]
pub struct MetricNames {
    by_label: HashMap<SmolStr, usize>,
    metrics: IndexMap<Metric, Unit>,
}

impl MetricNames {
    /// The place of the metric of a label, for [`MetricNames::metric`]. Labels of one metric have one place.
    pub fn place(&mut self, label: &str) -> usize {
        if let Some(place) = self.by_label.get(label) {
            return *place;
        }
        let entry = self.metrics.entry(metric_of(label));
        let place = entry.index();
        entry.or_insert_with(|| unit_of(label));
        self.by_label.insert(label.into(), place);
        place
    }

    /// The metric at a place, with its unit.
    #[must_use]
    pub fn metric(&self, place: usize) -> Option<(&Metric, Unit)> {
        self.metrics.get_index(place).map(|(metric, unit)| (metric, *unit))
    }

    /// The labels of one host that share a metric with another one: the label `label` tells them apart.
    pub fn shared<'a>(&mut self, labels: impl IntoIterator<Item = &'a str>) -> HashSet<&'a str> {
        let (mut first, mut shared) = (HashMap::new(), HashSet::new());
        for label in labels {
            if let Some(other) = first.insert(self.place(label), label) {
                shared.extend([label, other]);
            }
        }
        shared
    }
}

/// The metric of a label, if it is the host's only one with that metric.
#[must_use]
pub fn metric_of(label: &str) -> Metric {
    let stem_end = label.find([':', ',']).unwrap_or(label.len());
    let (stem, rest) = label.split_at(stem_end);
    let tags = rest.strip_prefix(',').and_then(tags);
    let (name, mut labels) = match (rest.strip_prefix(':'), tags) {
        (Some(part), _) => {
            let part_name =
                PARTS.iter().find(|(pattern, _)| is_like(pattern, stem)).map_or(OTHER_PART, |(_, name)| name);
            (format!("lizm_{}_{part_name}", as_name(stem)), vec![(SmolStr::new_static(part_name), part.into())])
        }
        (None, Some(tags)) => (format!("lizm_{}", as_name(stem)), tags),
        (None, None) => (format!("lizm_{}", as_name(label)), Vec::new()),
    };
    let is_own = Stat::ALL.iter().any(|stat| is_own(&format!("{name}{}", stat.suffix())));
    let name = if is_own { format_smolstr!("{name}{NOT_OWN}") } else { SmolStr::from(name) };
    // The average of one is not to be taken for the least of another.
    if Stat::ALL[1..].iter().any(|stat| name.ends_with(stat.suffix())) {
        labels.push(("label".into(), label.into()));
    }
    labels.sort();
    labels.dedup_by(|later, earlier| later.0 == earlier.0);
    Metric { name, labels }
}

/// The tags behind the first comma of a label. What has no equals sign belongs to the value before it. `None` where there is
/// none before.
fn tags(text: &str) -> Option<Vec<(SmolStr, SmolStr)>> {
    let mut tags: Vec<(SmolStr, String)> = Vec::new();
    for item in text.split(',') {
        match (item.split_once('='), tags.last_mut()) {
            (Some((name, value)), _) if !name.is_empty() => tags.push((as_label_name(name), value.to_owned())),
            (_, Some((_, value))) => {
                value.push(',');
                value.push_str(item);
            }
            (_, None) => return None,
        }
    }
    Some(tags.into_iter().map(|(name, value)| (name, value.into())).collect())
}

/// A text with `_` in the place of what a name cannot have.
fn as_name(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// The same for the name of a label, which begins with a letter and is none of those that have a meaning here.
fn as_label_name(text: &str) -> SmolStr {
    let name = as_name(text);
    let is_free = name.starts_with(|c: char| c.is_ascii_alphabetic()) && !matches!(&*name, "host" | "label");
    if is_free { name.into() } else { format_smolstr!("tag_{name}") }
}

/// Whether a name is one of the receiver's own metrics. OpenMetrics has a counter without its `_total` too.
pub(crate) fn is_own(name: &str) -> bool {
    OWN.iter().any(|own| *own == name || own.strip_suffix("_total") == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(label: &str) -> String {
        let metric = metric_of(label);
        let labels: Vec<String> = metric.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{}{{{}}}", metric.name, labels.join(";"))
    }

    #[test]
    fn a_label_becomes_a_metric() {
        for (label, metric) in [
            ("cpu", "lizm_cpu{}"),
            ("cpu:0", "lizm_cpu_core{core=0}"),
            ("cpu-user", "lizm_cpu_user{}"),
            ("disk:/var", "lizm_disk_path{path=/var}"),
            ("disk-free:/var", "lizm_disk_free_path{path=/var}"),
            ("inodes:/", "lizm_inodes_path{path=/}"),
            ("disk-read:sda", "lizm_disk_read_device{device=sda}"),
            ("net-in:eth0", "lizm_net_in_interface{interface=eth0}"),
            ("net-out", "lizm_net_out{}"),
            ("temp:coretemp/Package id 0", "lizm_temp_sensor{sensor=coretemp/Package id 0}"),
            ("gpu-temp:1", "lizm_gpu_temp_card{card=1}"),
            ("top-cpu:cc1", "lizm_top_cpu_command{command=cc1}"),
            ("procs-mem:*nginx*", "lizm_procs_mem_pattern{pattern=*nginx*}"),
            ("container-net-in:web", "lizm_container_net_in_container{container=web}"),
            ("smart:/dev/sda", "lizm_smart_part{part=/dev/sda}"),
            ("disk.used,path=/var", "lizm_disk_used{path=/var}"),
            ("my disk.used %,path=C:\\=x, y", "lizm_my_disk_used__{path=C:\\=x, y}"),
            ("net.in,zone=b,dev=a", "lizm_net_in{dev=a;zone=b}"),
            ("x,host=a,label=b,1=c,__name__=d", "lizm_x{tag_1=c;tag___name__=d;tag_host=a;tag_label=b}"),
            ("a,b", "lizm_a_b{}"),
            ("größe", "lizm_gr__e{}"),
            ("", "lizm_{}"),
            // No metric of the receiver's own, nor a stat of another label.
            ("host_up", "lizm_host_up_reported{}"),
            ("series", "lizm_series_reported{}"),
            ("panics", "lizm_panics_reported{}"),
            ("panics_total", "lizm_panics_total_reported{}"),
            ("queue_max", "lizm_queue_max{label=queue_max}"),
        ] {
            assert_eq!(written(label), metric, "{label}");
        }
    }

    #[test]
    fn labels_of_one_metric_are_told_apart() {
        let mut names = MetricNames::default();
        let shared = names.shared(["cpu", "net-in", "net.in", "net_in", "net-in:eth0"]);
        assert_eq!(shared, ["net-in", "net.in", "net_in"].into());
        assert_eq!(names.place("net-in"), names.place("net_in"));
        let (metric, unit) = names.metric(1).unwrap();
        assert_eq!((metric.name.as_str(), unit), ("lizm_net_in", Unit::BytesPerSec));
        assert_eq!(
            help(&metric.name, Stat::Max, unit),
            "What hosts report as net_in in bytes per second: greatest sample of an interval."
        );
    }

    proptest! {
        #[test]
        fn every_label_becomes_a_name(label in "\\PC{0,40}|[a-z:,=_.]{0,12}") {
            let metric = metric_of(&label);
            let is_word = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            prop_assert!(is_word(&metric.name) && metric.name.starts_with("lizm_"), "{metric:?}");
            for (name, _) in &metric.labels {
                prop_assert!(is_word(name) && name.starts_with(|c: char| c.is_ascii_alphabetic()) && name != "host");
            }
            prop_assert!(metric.labels.windows(2).all(|two| two[0].0 < two[1].0), "{metric:?}");
        }
    }
}
