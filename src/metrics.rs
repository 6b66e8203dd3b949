//! `/metrics`: what this process counts about itself and the running minute of the hosts, in Prometheus's text format
//! 0.0.4 (<https://prometheus.io/docs/instrumenting/exposition_formats/>), under names by its naming rules, or as
//! OpenMetrics 1.0 for who asks for that.

mod openmetrics;

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use smol_str::SmolStr;

use crate::ingest::Ingest;
use crate::metric_names::{MetricNames, Stat, help};
use crate::stats::{BOUNDS_SEC, Counter, PANICS, ROUTES, STATUSES, Stats};
use crate::store::{HostState, Store};
use crate::summary::Bucket;
pub use openmetrics::Format;

/// Default of [`Options::hosts_max`]: what one scrape of Prometheus takes with ease.
pub const HOSTS_MAX: usize = 1000;
/// Hosts that the store is asked for at a time.
const STEP_HOSTS: usize = 100;
/// Bytes of an answer past which nothing of a host is written: one host may have a great many labels.
const BYTES_MAX: usize = 32 << 20;

/// What is written.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Most hosts whose values are written.
    pub hosts_max: usize,
    /// The kind of the store: memory, directory or redis.
    pub store_kind: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        Self { hosts_max: HOSTS_MAX, store_kind: "memory" }
    }
}

/// Writes all metrics as of `now`, in seconds since the Unix epoch. No lock is held while it writes: it has copies.
#[must_use]
pub fn write(ingest: &Ingest, options: Options, now: u64) -> String {
    let (stats, store) = (ingest.stats(), ingest.store());
    let mut text = Text(String::with_capacity(16 << 10));
    text.family("lizm_build_info", "gauge", "Version of this lizm; the value means nothing.");
    text.sample("lizm_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    write_samples(&mut text, stats);
    write_requests(&mut text, stats);
    text.gauge(
        "lizm_series",
        "Series held, a label of a host each; a host that has none left counts as one.",
        store.series_count(),
    );
    text.gauge("lizm_series_max", "Most series that may be held.", store.limits().series_max);
    text.family("lizm_store_info", "gauge", "Kind of the store; the value means nothing.");
    text.sample("lizm_store_info", &[("kind", options.store_kind)], 1);
    let is_up = u8::from(store.unavailable().is_none());
    text.gauge("lizm_store_up", "Whether the store takes samples.", is_up);
    let jump_sec = ingest.clock().wall_ahead_sec();
    text.gauge("lizm_clock_jump_seconds", "Seconds that the wall clock is ahead of the receiver's clock.", jump_sec);
    text.counter("lizm_panics_total", "Panics of this process, each of which cost one request at most.", &PANICS);
    #[cfg(target_os = "linux")]
    write_process(&mut text);
    write_hosts(&mut text, store, options.hosts_max, now);
    text.0
}

fn write_samples(text: &mut Text, stats: &Stats) {
    text.counter("lizm_values_stored_total", "Values that were stored.", &stats.stored);
    text.counter("lizm_values_expired_total", "Values that were too old for every summary.", &stats.expired);
    text.counter(
        "lizm_values_refused_total",
        "Values of new series over --max-series or --max-labels-per-host.",
        &stats.refused,
    );
    text.counter("lizm_requests_duplicate_total", "Retries of requests that were counted before.", &stats.duplicates);
    let name = "lizm_samples_refused_total";
    text.family(name, "counter", "Samples and lines of which nothing was stored, by reason.");
    for (reason, counter) in [
        ("malformed", &stats.refused_malformed),
        ("ahead", &stats.refused_ahead),
        ("untrusted", &stats.untrusted),
        ("store_unavailable", &stats.refused_unavailable),
        ("max_series", &stats.refused_series_cap),
    ] {
        text.sample(name, &[("reason", reason)], counter.get());
    }
    text.counter("lizm_line_strings_total", "String fields of lines, which are skipped.", &stats.strings);
    let name = "lizm_udp_datagrams_dropped_total";
    text.family(name, "counter", "Datagrams that were lost, by reason.");
    text.sample(name, &[("reason", "too_long")], stats.datagrams_truncated.get());
    text.sample(name, &[("reason", "buffer_full")], stats.datagrams_dropped.get());
}

fn write_requests(text: &mut Text, stats: &Stats) {
    let name = "lizm_http_requests_forbidden_total";
    text.family(name, "counter", "Requests that were refused for who sends them, by reason.");
    for (reason, counter) in [
        ("wrong_password", &stats.passwords_wrong),
        ("too_many_guesses", &stats.passwords_limited),
        ("cross_site", &stats.browsers_cross_site),
        ("host", &stats.browsers_other_host),
    ] {
        text.sample(name, &[("reason", reason)], counter.get());
    }
    let help = "HTTPS connections whose handshake failed.";
    text.counter("lizm_https_handshakes_failed_total", help, &stats.handshakes_failed);
    let help = "Connections that were rejected for a limit.";
    text.counter("lizm_https_connections_rejected_total", help, &stats.connections_rejected);
    let name = "lizm_http_responses_total";
    text.family(name, "counter", "Answers, by status.");
    for (status, counter) in STATUSES.iter().zip(&stats.answers).filter(|(_, counter)| counter.get() > 0) {
        let code = if *status == 0 { "other".to_owned() } else { status.to_string() };
        text.sample(name, &[("code", &code)], counter.get());
    }
    let name = "lizm_http_request_duration_seconds";
    text.family(name, "histogram", "Time to find the answer, without the time of the client, by route.");
    for (route, histogram) in ROUTES.iter().zip(&stats.durations) {
        let counts = histogram.cumulative();
        let count = counts[BOUNDS_SEC.len()];
        if count == 0 {
            continue;
        }
        let bounds = BOUNDS_SEC.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(counts) {
            text.sample(&format!("{name}_bucket"), &[("route", route), ("le", &bound)], count);
        }
        text.sample(&format!("{name}_sum"), &[("route", route)], histogram.sum().as_secs_f64());
        text.sample(&format!("{name}_count"), &[("route", route)], count);
    }
}

/// Writes the metrics that every process has, under the names of Prometheus's clients. What cannot be read is left out.
#[cfg(target_os = "linux")]
fn write_process(text: &mut Text) {
    use nix::sys::resource::{Resource, getrlimit};
    use procfs::process::Process;

    let Ok(process) = Process::myself() else { return };
    if let Ok(stat) = process.stat() {
        #[expect(clippy::cast_precision_loss, reason = "ticks of a process and of the time since the start")]
        let seconds = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
        let name = "process_cpu_seconds_total";
        text.family(name, "counter", "Processor time of user and system in seconds.");
        text.sample(name, &[], seconds(stat.utime.saturating_add(stat.stime)));
        let resident_bytes = stat.rss.saturating_mul(procfs::page_size());
        text.gauge("process_resident_memory_bytes", "Resident memory in bytes.", resident_bytes);
        text.gauge("process_virtual_memory_bytes", "Virtual memory in bytes.", stat.vsize);
        text.gauge("process_threads", "Threads.", stat.num_threads);
        if let Ok(boot_sec) = procfs::boot_time_secs() {
            let help = "Start of the process in seconds since the Unix epoch.";
            #[expect(clippy::cast_precision_loss, reason = "a time that fits for millions of years")]
            text.gauge("process_start_time_seconds", help, boot_sec as f64 + seconds(stat.starttime));
        }
    }
    if let Ok(count) = process.fd_count() {
        text.gauge("process_open_fds", "Open descriptors.", count);
    }
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        text.gauge("process_max_fds", "Most descriptors that may be open.", soft);
    }
}

/// Writes the state and the running minute of the hosts. Nothing of them is written while a shared store cannot be read.
fn write_hosts(text: &mut Text, store: &Store, hosts_max: usize, now: u64) {
    let Ok(names) = store.hosts(now) else { return };
    let listed = &names[..names.len().min(hosts_max)];
    text.gauge("lizm_hosts", "Hosts that are known.", names.len());
    let name = "lizm_host_up";
    text.family(
        name,
        "gauge",
        "1 while the host reports, under its own name or in conflict; 0 when it is late or down.",
    );
    let statuses = store.statuses(listed, &[], now).unwrap_or_default();
    let known = || listed.iter().zip(&statuses).filter_map(|(host, status)| Some((host, status.as_ref()?)));
    for (host, status) in known() {
        if text.0.len() <= BYTES_MAX {
            let is_up = matches!(status.state(now), HostState::Up | HostState::Conflict);
            text.sample(name, &[("host", host)], u8::from(is_up));
        }
    }
    let name = "lizm_host_conflict";
    text.family(name, "gauge", "1 while two sources publish under the name of the host.");
    for (host, status) in known() {
        if text.0.len() <= BYTES_MAX {
            text.sample(name, &[("host", host)], u8::from(status.state(now) == HostState::Conflict));
        }
    }
    let name = "lizm_host_clock_skew_seconds";
    text.family(name, "gauge", "How far the clock of the host is ahead of the receiver's, where it is known.");
    for (host, status) in known() {
        if let Some(skew_sec) = status.clock_skew_sec.filter(|_| text.0.len() <= BYTES_MAX) {
            text.sample(name, &[("host", host)], skew_sec);
        }
    }
    let name = "lizm_host_info";
    text.family(name, "gauge", "Tags of the host, where it has any; the value means nothing.");
    for (host, status) in known() {
        if !status.tags.is_empty() && text.0.len() <= BYTES_MAX {
            let labels: Vec<_> = [("host", &**host)].into_iter().chain(status.tags.iter()).collect();
            text.sample(name, &labels, 1);
        }
    }
    let name = "lizm_host_value";
    text.family(name, "gauge", "What the host has reported in the running minute.");
    let (mut written, mut values) = (0, HostValues::default());
    for (step, statuses) in listed.chunks(STEP_HOSTS).zip(statuses.chunks(STEP_HOSTS)) {
        if text.0.len() + values.bytes > BYTES_MAX {
            break;
        }
        let Ok(running) = store.running(step, now) else { break };
        for ((host, status), buckets) in step.iter().zip(statuses).zip(running) {
            let labels = status.iter().flat_map(|status| &status.labels).map(String::as_str);
            let shared = values.names.shared(labels);
            let is_whole = buckets.iter().all(|(label, bucket)| {
                let fits = text.0.len() + values.bytes <= BYTES_MAX;
                if fits {
                    for (stat, value) in [("avg", bucket.mean()), ("min", bucket.min), ("max", bucket.max)] {
                        text.sample(name, &[("host", host), ("label", label), ("stat", stat)], value);
                    }
                    values.add(host, label, shared.contains(label.as_str()), *bucket);
                }
                fits
            });
            written += usize::from(is_whole);
        }
    }
    text.gauge("lizm_hosts_omitted", "Hosts whose values are left out for a limit.", names.len() - written);
    values.write(text);
}

/// The running minute of the hosts under the names of its metrics. The samples of a metric stand together, so they are
/// gathered first.
#[derive(Default)]
struct HostValues {
    names: MetricNames,
    /// The samples of each stat, by the places of the metrics among the names.
    samples: Vec<[Text; 4]>,
    /// Their bytes together.
    bytes: usize,
}

impl HostValues {
    fn add(&mut self, host: &str, label: &str, is_shared: bool, bucket: Bucket) {
        let place = self.names.place(label);
        let Some((metric, _)) = self.names.metric(place) else { return };
        let told_apart = (is_shared && metric.labels.iter().all(|(name, _)| name != "label")).then_some(label);
        let labels: Vec<(&str, &str)> = [("host", host)]
            .into_iter()
            .chain(metric.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())))
            .chain(told_apart.map(|label| ("label", label)))
            .collect();
        if self.samples.len() <= place {
            self.samples.resize_with(place + 1, Default::default);
        }
        for (stat, text) in Stat::ALL.into_iter().zip(&mut self.samples[place]) {
            let before = text.0.len();
            text.sample(&metric.name_of(stat), &labels, stat.of(bucket));
            self.bytes += text.0.len() - before;
        }
    }

    fn write(&self, text: &mut Text) {
        let mut families: BTreeMap<SmolStr, Vec<(usize, usize)>> = BTreeMap::new();
        for place in 0..self.samples.len() {
            let Some((metric, _)) = self.names.metric(place) else { continue };
            for (at, stat) in Stat::ALL.into_iter().enumerate() {
                families.entry(metric.name_of(stat)).or_default().push((place, at));
            }
        }
        for (name, parts) in families {
            let first = parts.first().and_then(|(place, at)| Some((self.names.metric(*place)?, Stat::ALL[*at])));
            let Some(((metric, unit), stat)) = first else { continue };
            text.family(&name, "gauge", &help(&metric.name, stat, unit));
            parts.iter().for_each(|(place, at)| text.0.push_str(&self.samples[*place][*at].0));
        }
    }
}

/// The text. The samples of a family stand together, as the format demands.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.add(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn counter(&mut self, name: &str, help: &str, counter: &Counter) {
        self.family(name, "counter", help);
        self.sample(name, &[], counter.get());
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (place, (label, value)) in labels.iter().enumerate() {
            self.add(format_args!("{}{label}=\"", if place == 0 { '{' } else { ',' }));
            self.escape(value);
            self.0.push('"');
        }
        let end = if labels.is_empty() { "" } else { "}" };
        self.add(format_args!("{end} {value}\n"));
    }

    /// Adds the value of a label, with backslashes, quotes and newlines escaped.
    fn escape(&mut self, value: &str) {
        for character in value.chars() {
            match character {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                other => self.0.push(other),
            }
        }
    }

    fn add(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.0.write_fmt(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Authorizer, Principal};
    use crate::sample::Sample;
    use std::sync::Arc;

    const NOW: u64 = 1_465_001_814;

    fn written(ingest: &Ingest, hosts_max: usize) -> String {
        write(ingest, Options { hosts_max, ..Options::default() }, NOW)
    }

    fn ingest_of(hosts: &[&str], label: &'static str) -> Ingest {
        let ingest = Ingest::new(Arc::new(Store::new(100)), Authorizer::allow_all(), Arc::default());
        for (host, value) in hosts.iter().zip([1.0, 3.5, 1e300]) {
            for (epoch, value) in [(NOW - 60, 100.0), (NOW - 1, value), (NOW, value + 1.0)] {
                let sample = Sample { host: (*host).into(), epoch, values: vec![(label.into(), value)] };
                assert_eq!(ingest.submit(&Principal::Anyone, &sample, None, NOW).unwrap().stored, 1);
            }
        }
        ingest
    }

    #[test]
    fn the_running_minute_of_a_host_is_written() {
        let text = written(&ingest_of(&["jarvis"], "cpu"), 10);
        for line in [
            "lizm_hosts 1",
            "lizm_hosts_omitted 0",
            "lizm_values_stored_total 3",
            "lizm_series 1",
            "lizm_store_info{kind=\"memory\"} 1",
            "lizm_host_up{host=\"jarvis\"} 1",
            "lizm_host_value{host=\"jarvis\",label=\"cpu\",stat=\"avg\"} 1.5",
            "lizm_host_value{host=\"jarvis\",label=\"cpu\",stat=\"min\"} 1",
            "lizm_host_value{host=\"jarvis\",label=\"cpu\",stat=\"max\"} 2",
            "# HELP lizm_cpu_min What hosts report as cpu in percent: least sample of an interval.",
            "# TYPE lizm_cpu_min gauge",
            "lizm_cpu{host=\"jarvis\"} 1.5",
            "lizm_cpu_min{host=\"jarvis\"} 1",
            "lizm_cpu_max{host=\"jarvis\"} 2",
            "lizm_cpu_samples{host=\"jarvis\"} 2",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} in {text}");
        }
        assert!(!text.contains("lizm_http_responses_total{"), "statuses without an answer are left out");
    }

    #[test]
    fn names_are_escaped_and_hosts_have_an_end() {
        let ingest = ingest_of(&["b\\\"", "a", "c"], "{x=\"1\"}");
        let text = written(&ingest, 2);
        assert!(text.contains("{host=\"b\\\\\\\"\",label=\"{x=\\\"1\\\"}\",stat=\"min\"} 1\n"), "{text}");
        assert!(!text.contains("host=\"c\"") && text.contains("\nlizm_hosts_omitted 1\n"), "{text}");
        let none = written(&ingest, 0);
        assert!(!none.contains("{host=") && none.contains("\nlizm_hosts_omitted 3\n"), "{none}");
    }

    #[test]
    fn every_line_is_of_the_family_before_it() {
        let ingest = ingest_of(&["a"], "cpu");
        let own = written(&ingest_of(&["a"], "cpu"), 0);
        for family in own.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()) {
            let is_own = crate::metric_names::is_own(family) || !family.starts_with("lizm_");
            assert!(is_own, "{family} is to be in the list of metric_names.rs");
        }
        let others = ["cpu:0", "cpu:1", "disk-free", "disk.free", "host_up", "series", "queue_max", "ä,x=1"];
        let values = others.map(|label| (label.into(), 1.0)).to_vec();
        let sample = Sample { host: "b".into(), epoch: NOW, values };
        ingest.submit(&Principal::Anyone, &sample, None, NOW).unwrap();
        let text = written(&ingest, 2);
        assert!(text.contains("\nlizm_disk_free{host=\"b\",label=\"disk.free\"} 1\n"), "{text}");
        let (mut family, mut families) = ("", Vec::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                family = rest.split(' ').next().unwrap();
                assert!(!families.contains(&family), "{family} is written once");
                families.push(family);
            } else if !line.starts_with("# TYPE ") {
                let name = line.split(['{', ' ']).next().unwrap();
                assert!(name.starts_with(family) && !family.is_empty(), "{line} in {family}");
                assert!(line.rsplit_once(' ').unwrap().1.parse::<f64>().is_ok(), "{line}");
            }
        }
        assert!(families.contains(&"lizm_samples_refused_total"));
    }
}
