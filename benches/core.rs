//! Times and sizes of the core, without a network. `cargo bench --bench core` prints a line a figure: its name, and what
//! each of its rounds gave.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hint::black_box;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lizm::alerts::evaluator::Evaluator;
use lizm::alerts::rules::{Retention, parse};
use lizm::api::{Api, RequestHead};
use lizm::auth::{self, Authorizer, Identity, LastToken, ReadAccess};
use lizm::ingest::Ingest;
use lizm::sample::{IdempotencyKey, Sample};
use lizm::stats::Stats;
use lizm::store::{KeepOptions, Location, Store};

/// The clock of all rounds; nothing here depends on the real one.
const NOW: u64 = 1_465_001_814;
const ROUNDS: usize = 5;
const SERIES_MAX: usize = 10_000_000;

const JOBS: [(&str, fn()); 13] = [
    ("record", record_one_value),
    ("get", get_ten_labels),
    ("token", verify_a_token),
    ("series", memory_of_series),
    ("hosts-1000-2", || drop(memory_of_hosts(1000, 2))),
    ("hosts-1000-10", || drop(memory_of_hosts(1000, 10))),
    ("hosts-10000-2", || drop(memory_of_hosts(10_000, 2))),
    ("hosts-10000-10", || drop(memory_of_hosts(10_000, 10))),
    ("hosts-100000-10", || drop(memory_of_hosts(100_000, 10))),
    ("sweep", sweep_hosts),
    ("restore", restore_hosts),
    ("churn", disk_use_under_churn),
    ("alerts", evaluate_rules),
];

/// Runs each job in a process of its own, so that none finds memory that another has left behind.
fn main() {
    let wanted = std::env::args().find_map(|argument| JOBS.iter().find(|(name, _)| *name == argument));
    if let Some((_, job)) = wanted {
        return job();
    }
    for (name, _) in JOBS {
        let status = std::env::current_exe().and_then(|program| Command::new(program).arg(name).status());
        assert!(status.is_ok_and(|status| status.success()), "the job {name} failed");
    }
}

fn sample<'a>(host: &'a str, epoch: u64, labels: &[&'a str]) -> Sample<'a> {
    Sample { host: Cow::Borrowed(host), epoch, values: labels.iter().map(|l| (Cow::Borrowed(*l), 35.1)).collect() }
}

fn stored(store: &Store, sample: &Sample<'_>, key: Option<IdempotencyKey<'_>>) -> usize {
    store.record(sample.view(), key, NOW).map_or(0, |recorded| recorded.stored)
}

/// Records `labels` for `host` so that both windows are full: every minute of the last hour, every hour of the day.
fn fill(store: &Store, host: &str, labels: &[&str]) {
    let hours = (0..25).rev().map(|hour| NOW - 3600 * hour);
    let minutes = (0..61).rev().map(|minute| NOW - 60 * minute);
    for (seq, epoch) in (0..).zip(hours.chain(minutes)) {
        let key = IdempotencyKey::new("0123456789abcdef", seq);
        assert_eq!(stored(store, &sample(host, epoch, labels), Some(key)), labels.len());
    }
}

fn report(name: &str, values: impl IntoIterator<Item = f64>) {
    let values: Vec<String> = values.into_iter().map(|value| format!("{value:.4}")).collect();
    println!("{name} {}", values.join(" "));
}

/// Nanoseconds to record one value into an existing series, one after the other over 1,000 hosts.
fn record_one_value() {
    let store = Store::new(SERIES_MAX);
    let hosts = names("host", 1000);
    hosts.iter().for_each(|host| fill(&store, host, &["cpu"]));
    let samples: Vec<Sample<'_>> = hosts.iter().map(|host| sample(host, NOW, &["cpu"])).collect();
    let passes = 2000;
    let rounds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        for sample in samples.iter().cycle().take(passes * samples.len()) {
            black_box(stored(&store, black_box(sample), None));
        }
        start.elapsed().as_nanos() as f64 / (passes * samples.len()) as f64
    });
    report("record_ns", rounds);
}

/// Milliseconds for the answer to `GET /api/perf/HOST` with 10 labels and full windows.
fn get_ten_labels() {
    let store = Arc::new(Store::new(SERIES_MAX));
    let labels = ["cpu", "mem", "swap", "load1", "disk", "read", "write", "in", "out", "procs"];
    fill(&store, "host", &labels);
    let api =
        Api::new(Arc::new(Ingest::new(store, Authorizer::allow_all(), Arc::new(Stats::default()))), ReadAccess::Anyone);
    let head = RequestHead { method: "GET", target: "/api/perf/host", ..RequestHead::default() };
    let passes = 500;
    let rounds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        for _ in 0..passes {
            let reply = api.route(black_box(&head), NOW).map(|route| api.reply(&route, b"", NOW));
            assert!(black_box(reply).is_ok_and(|reply| reply.body.len() > 50_000));
        }
        start.elapsed().as_secs_f64() * 1000.0 / f64::from(passes)
    });
    report("get_ms", rounds);
}

/// Microseconds to verify a token of one host, and to authorize it for that host.
fn verify_a_token() {
    let file = std::env::temp_dir().join(format!("lizm-bench-{}.key", std::process::id()));
    let options = auth::Options {
        token_key: Some(file.clone()),
        token_valid: Duration::from_secs(300),
        ..auth::Options::default()
    };
    let authorizer = Authorizer::from_options(&options).unwrap_or_else(|error| panic!("{error}"));
    let fingerprint = Some(format!("sha256:{}", "0123456789abcdef".repeat(4)));
    let identity = Identity { hosts: vec!["jarvis.example.org".to_owned()], fingerprint, ..Identity::default() };
    let issued = authorizer.tokens().and_then(|tokens| tokens.issue(identity, NOW).ok());
    let token = issued.as_ref().map(|issued| issued.token());
    let passes = 200_000;
    let rounds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        for _ in 0..passes {
            let checked = authorizer
                .authenticate(black_box(token), &LastToken::default(), NOW)
                .and_then(|principal| principal.authorize("jarvis.example.org", NOW));
            assert!(black_box(checked).is_ok());
        }
        start.elapsed().as_secs_f64() * 1e6 / f64::from(passes)
    });
    report("token_us", rounds);
    drop(std::fs::remove_file(&file));
}

/// Milliseconds of the processor to evaluate 20 rules over 10,000 hosts of 10 labels whose minute has closed, where nothing
/// is wrong; and where nothing has changed since.
fn evaluate_rules() {
    let (hosts, labels) = (names("host", 10_000), names("label", 10));
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let store = Store::new(SERIES_MAX);
    let tests = ["> 90", "> 90 for 10m", "< 1 until > 5", "> 80 for 5m on host*"];
    let rules = (0..16).map(|n| format!("rule{n}: {} {}\n", labels[n % labels.len()], tests[n % tests.len()]));
    let more = "peak: max(label-1, 5m) > 99\ngone: host down\nabsent: no label-1 for 10m\nsoon: forecast(label-2, 30m, 1h) > 99\n";
    let text = rules.chain([more.to_owned()]).collect::<String>();
    let rules = parse(&[("bench", &text)], Retention::default(), |_| None).unwrap_or_else(|why| panic!("{why:?}"));
    let rules = Arc::new(rules);
    let reach: HashMap<&str, _> = labels.iter().map(|label| (*label, rules.reach(label))).collect();
    let mut evaluator = Evaluator::new(rules, Vec::new(), NOW);
    let (mut closed, mut unchanged) = (Vec::new(), Vec::new());
    let start = NOW - NOW % 60;
    for step in 0..6 * 40 {
        let now = start + 10 * step;
        let put = |host: &String| store.record(sample(host, now, &labels).view(), None, now).map_or(0, |r| r.stored);
        assert!(hosts.iter().all(|host| put(host) == labels.len()));
        let pulses = store.pulses(now).unwrap_or_default();
        let before = processor_ms();
        let outcome = evaluator.evaluate(now, &pulses, |pulse, may_fire| {
            let intervals =
                |label: &smol_str::SmolStr| Some(reach.get(label.as_str())?.as_ref()?[usize::from(may_fire)]);
            store.tails(pulse, intervals, now).ok()
        });
        let took = processor_ms() - before;
        assert!(outcome.transitions.is_empty());
        // The minutes of the first half fill what the rules look back at.
        if step >= 6 * 35 {
            if step % 6 == 1 { closed.push(took) } else { unchanged.push(took) }
        }
    }
    report("alerts_closed_ms", closed);
    report("alerts_unchanged_ms", unchanged);
}

/// Milliseconds of the processor that this thread has taken.
fn processor_ms() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or_default() / 1e6
}

/// Resident bytes a series, young and full, for 1,000 hosts of 100 labels.
fn memory_of_series() {
    let (hosts, labels) = (names("host", 1000), names("label", 100));
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let before = resident_bytes();
    let store = Store::new(SERIES_MAX);
    hosts.iter().for_each(|host| assert_eq!(stored(&store, &sample(host, NOW - 86_000, &labels), None), 100));
    report("series_young_bytes", [(resident_bytes() - before) / 100_000.0]);
    hosts.iter().for_each(|host| fill(&store, host, &labels));
    report("series_full_bytes", [(resident_bytes() - before) / 100_000.0]);
}

/// Resident megabytes of so many hosts of so many labels, with full windows; and the store that holds them.
fn memory_of_hosts(host_count: usize, label_count: usize) -> Store {
    let (hosts, labels) = (names("host", host_count), names("label", label_count));
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let before = resident_bytes();
    let store = Store::new(SERIES_MAX);
    hosts.iter().for_each(|host| fill(&store, host, &labels));
    report(&format!("hosts_{host_count}_{label_count}_mb"), [(resident_bytes() - before) / 1e6]);
    store
}

/// Milliseconds to sweep 100,000 hosts of two labels with full windows, after what they take of memory.
fn sweep_hosts() {
    let store = memory_of_hosts(100_000, 2);
    let start = Instant::now();
    store.sweep(NOW);
    report("sweep_100k_hosts_ms", [start.elapsed().as_secs_f64() * 1000.0]);
}

fn on_disk(path: &Path, now: u64) -> Store {
    let location = Location::Directory { path: path.to_owned(), fsync_always: false };
    let keep = KeepOptions { asked: Some(lizm::summary::Keep::default()), ..KeepOptions::default() };
    Store::open_to_keep(&location, SERIES_MAX, &keep, now).unwrap_or_else(|error| panic!("{error}"))
}

/// Seconds to restore 100,000 hosts of two labels with full windows, and the most memory meanwhile, as a ratio to that
/// of the store that wrote them.
fn restore_hosts() {
    let directory = std::env::temp_dir().join(format!("lizm-bench-{}", std::process::id()));
    if let Some(path) = std::env::args().skip_while(|argument| argument != "--path").nth(1) {
        // The second half, in a process of its own.
        let start = Instant::now();
        let store = on_disk(Path::new(&path), NOW);
        assert_eq!(store.series_count(), 200_000);
        report("restore_100k_sec", [start.elapsed().as_secs_f64()]);
        println!("peak {}", peak_bytes());
        return;
    }
    let store = on_disk(&directory, NOW);
    names("host", 100_000).iter().for_each(|host| fill(&store, host, &["cpu", "mem"]));
    assert!(store.checkpoint().is_ok() && store.sync_now().is_ok());
    let running = resident_bytes();
    drop(store);
    let program = std::env::current_exe().map(Command::new);
    let output = program.and_then(|mut program| program.arg("restore").arg("--path").arg(&directory).output());
    let output =
        output.map_or_else(|error| panic!("{error}"), |output| String::from_utf8_lossy(&output.stdout).into_owned());
    let peak: f64 = output.lines().find_map(|line| line.strip_prefix("peak ")?.parse().ok()).unwrap_or(f64::NAN);
    output.lines().filter(|line| line.starts_with("restore")).for_each(|line| println!("{line}"));
    report("restore_memory_ratio", [peak / running]);
    drop(std::fs::remove_dir_all(&directory));
}

/// Megabytes on disk after an hour of 1,000 hosts of two labels that report each second, with a checkpoint each half
/// minute and the windows moving on; and what of it is beyond three times the live data, 29 bytes a bucket.
fn disk_use_under_churn() {
    let directory = std::env::temp_dir().join(format!("lizm-bench-{}", std::process::id()));
    let store = on_disk(&directory, NOW);
    let hosts = names("host", 1000);
    for second in 0..3600 {
        let now = NOW + second;
        for host in &hosts {
            let key = IdempotencyKey::new("0123456789abcdef", second);
            assert!(
                store.record(sample(host, now, &["cpu", "mem"]).view(), Some(key), now).is_ok_and(|r| r.stored == 2)
            );
        }
        if second % 30 == 29 {
            assert!(store.checkpoint().is_ok());
            store.sweep(now);
        }
    }
    assert!(store.expire_disk(NOW + 3600).is_ok() && store.checkpoint().is_ok() && store.sync_now().is_ok());
    let used = disk_bytes(&directory);
    let live = 2000.0 * (61.0 + 2.0) * 29.0 + 2000.0 * 8.0 * 40.0;
    report("churn_disk_mb", [used / 1e6]);
    report("churn_disk_excess_mb", [(used - 3.0 * live) / 1e6]);
    drop(store);
    drop(std::fs::remove_dir_all(&directory));
}

/// Blocks that the files of a directory take.
fn disk_bytes(path: &Path) -> f64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
            Ok(metadata) => metadata.blocks() as f64 * 512.0,
            Err(_) => 0.0,
        })
        .sum()
}

/// Highest resident memory of this process so far.
fn peak_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).map_or(f64::NAN, |kb| kb * 1024.0)
}

fn names(what: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{what}-{n}")).collect()
}

/// Resident memory of this process, from `/proc/self/statm`.
fn resident_bytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(f64::NAN);
    pages * 4096.0
}
