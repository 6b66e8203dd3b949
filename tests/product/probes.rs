//! The probes over trees of several systems, against other people's tools on this machine, and from the command line.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lizm::probe::{Options, Probe, Probes, Scope};
use nix::sys::signal::Signal;

use crate::harness::{Process, Served, await_some, lizm, replace};

const TREES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/procfs");

/// Copies a tree; `{}` in its files stands for where it is.
fn copy(from: &Path, to: &Path, root: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&to).unwrap();
            copy(&entry.path(), &to, root);
        } else {
            let content = fs::read_to_string(entry.path()).unwrap();
            fs::write(to, content.replace("{}", root.to_str().unwrap())).unwrap();
        }
    }
}

/// What the probes make of a tree, as its file `expected` has it.
fn measure(tree: &str, probes: &str, scope: Scope) -> (String, String) {
    let (from, root) = (Path::new(TREES).join(tree), tempfile::tempdir().unwrap());
    let root = root.path();
    copy(&from, root, root);
    let options = Options { probes: probes.parse().unwrap(), scope, procfs: root.to_owned(), ..Options::default() };
    let mut probe = Probe::new(&options).unwrap();
    let before = probe.read(Duration::from_secs(100));
    copy(&from.join("later"), root, root);
    let after = probe.read(Duration::from_secs(102));
    let values = probe.values(&before, &after).into_iter().map(|(label, value)| format!("{label} {value}\n"));
    let problems = after.problems.iter().map(|problem| format!("problem {problem}\n"));
    (values.chain(problems).collect(), fs::read_to_string(root.join("expected")).unwrap())
}

#[test]
fn trees_of_several_systems_give_what_they_hold() {
    let probes = "cpu,mem,swap,load,io,net,processes,uptime,cpu-parts";
    for (tree, scope) in [
        ("linux-2.6.32", Scope::Host),
        ("linux-3.10", Scope::Host),
        ("linux-6.18", Scope::Host),
        ("container-cgroup-v1", Scope::Cgroup),
        ("container-cgroup-v2", Scope::Cgroup),
        ("sandbox", Scope::Host),
    ] {
        let (measured, expected) = measure(tree, probes, scope);
        assert_eq!(measured, expected, "{tree}");
    }
}

#[test]
fn devices_are_measured_by_name_whatever_they_are() {
    let (measured, _) = measure("linux-3.10", "io:dm-0,io:sdc,net:bond0,net:gone", Scope::Host);
    let expected = "disk-read:dm-0 51200\ndisk-write:dm-0 10240\nnet-in:bond0 550\nnet-out:bond0 1000\n\
                    problem there is no network interface \"gone\"\n";
    assert_eq!(measured, expected, "sdc has just come: it has no rate yet");
}

/// What a command prints, in words.
fn words(program: &str, arguments: &[&str]) -> Vec<String> {
    let output = Command::new(program).args(arguments).env("LC_ALL", "C").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().split_whitespace().map(str::to_owned).collect()
}

/// Reads this machine, as the monitor does, and gives a label's value.
fn value(values: &lizm::sample::Values<'_>, label: &str) -> f64 {
    values.iter().find(|(known, _)| known == label).unwrap_or_else(|| panic!("{label} in {values:?}")).1
}

#[test]
#[ignore = "needs procps"]
fn this_machine_is_measured_as_free_and_df_have_it() {
    let options = Options { probes: "default,disk:/tmp".parse().unwrap(), ..Options::default() };
    let mut probe = Probe::new(&options).unwrap();
    let before = probe.read(Duration::from_secs(1));
    // Others use the machine meanwhile: what was read lies between two looks at what it is compared with.
    let used = || {
        let free = words("free", &["-b"]);
        let number = |word: usize| free[word].parse::<f64>().unwrap();
        assert_eq!((&*free[5], &*free[6]), ("available", "Mem:"));
        (number(7) - number(12)) / number(7) * 100.0
    };
    let full = |path: &str| {
        let df = words("df", &["--output=pcent", path]);
        df[1].trim_end_matches('%').parse::<f64>().unwrap()
    };
    await_some("agreement with free and df", || {
        let after = probe.read(Duration::from_secs(2));
        let values = probe.values(&before, &after);
        let (mem, disk, tmp) = (value(&values, "mem"), value(&values, "disk"), value(&values, "disk:/tmp"));
        let agrees = (mem - used()).abs() < 1.0 && disk.ceil() == full("/") && tmp.ceil() == full("/tmp");
        let uptime = words("cat", &["/proc/uptime"])[0].parse::<f64>().unwrap();
        let is_now = (0.0..2.0).contains(&(uptime - value(&values, "uptime")));
        (agrees && is_now && value(&values, "processes") >= 2.0).then_some(())
    });
}

#[test]
#[ignore = "needs sysstat"]
fn disks_are_measured_as_iostat_has_them_while_something_writes() {
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let script = format!(
        "for n in 1 2 3 4; do dd if=/dev/zero of={} bs=1M count=32 conv=fsync status=none; sleep 0.4; done",
        file.path().display()
    );
    let mut probe = Probe::new(&Options { probes: "io".parse().unwrap(), ..Options::default() }).unwrap();
    // iostat's first report is the sum since the start, in kB, of all but loop and ram; of partitions none.
    let sum = |probe_at: &str| {
        let report = Command::new("iostat").args(["-d", "-k"]).env("LC_ALL", "C").output().unwrap();
        let report = String::from_utf8(report.stdout).unwrap();
        let is_disk = |line: &&str| !["loop", "ram", "dm-", "md", "sr", "zram"].iter().any(|no| line.starts_with(no));
        let rows = report.lines().skip_while(|line| !line.starts_with("Device")).skip(1).filter(is_disk);
        let written = rows.filter_map(|line| line.split_whitespace().nth(6)?.parse::<f64>().ok()).sum::<f64>() * 1024.0;
        assert!(written > 0.0, "{probe_at}: {report}");
        written
    };
    let low = sum("before");
    let before = probe.read(Duration::from_secs(1));
    let high = sum("before");
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    let end_low = sum("after");
    let after = probe.read(Duration::from_secs(2));
    let end_high = sum("after");
    let written = value(&probe.values(&before, &after), "disk-write");
    println!("written: {written} bytes, by iostat {} to {}", end_low - high, end_high - low);
    // iostat rounds to kB.
    assert!(written + 2048.0 >= end_low - high && written - 2048.0 <= end_high - low, "{written}");
    assert!(written >= f64::from(100 << 20));
}

#[test]
fn the_network_is_measured_as_proc_has_it_and_loopback_on_request() {
    let mut probe = Probe::new(&Options { probes: "net:lo".parse().unwrap(), ..Options::default() }).unwrap();
    let received = || {
        let text = fs::read_to_string("/proc/net/dev").unwrap();
        let line = text.lines().find_map(|line| line.trim().strip_prefix("lo:")).unwrap().to_owned();
        line.split_whitespace().next().unwrap().parse::<f64>().unwrap()
    };
    let low = received();
    let before = probe.read(Duration::from_secs(1));
    let high = received();
    let receiver = Served::start(&[]);
    let body = format!("{{\"a\": \"{}1\"}}", " ".repeat(500_000));
    (0..10).for_each(|_| assert_eq!(receiver.post("/api/perf/h/1", &body).0, 200));
    let end_low = received();
    let after = probe.read(Duration::from_secs(2));
    let end_high = received();
    let rate = value(&probe.values(&before, &after), "net-in:lo");
    assert!(rate >= end_low - high && rate <= end_high - low, "{rate}");
    assert!(rate >= 5_000_000.0, "ten bodies of half a megabyte went by");
}

#[test]
fn the_monitor_publishes_what_it_is_told_to() {
    let (root, texts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    copy(&Path::new(TREES).join("linux-3.10"), root.path(), root.path());
    replace(&texts.path().join("room.txt"), "# of the sensor\ntemperature 21.5\ncpu 1\n");
    let receiver = Served::start(&[]);
    let arguments = ["monitor", "--host", "h", "--probes", "mem,load,disk:/", "--textfile"];
    let mut command = lizm(&arguments);
    command.args([texts.path().to_str().unwrap(), "--procfs", root.path().to_str().unwrap(), "--rootfs", "/"]);
    command.args(["--publish", &receiver.url("")]);
    let monitor = Process::start(command);
    let line = monitor.line();
    let said = "ERROR: Reading this host failed, details: textfile \"room.txt\": line 3: label \"cpu\": ";
    assert!(line.starts_with(said), "{line}");
    for _ in 0..2 {
        assert!(monitor.line().starts_with("INFO: Publish was successful"), "a bad line is told once");
    }
    let (_, hosts) = receiver.get("/api/hosts");
    assert_eq!(hosts["hosts"][0]["labels"], serde_json::json!(["disk:/", "load1", "mem", "temperature"]));
    let temperature = receiver.averages("h").remove("summary:by-hour:temperature").unwrap();
    assert_eq!(temperature[0]["avg"], 21.5);
    replace(&texts.path().join("room.txt"), "temperature warm\n");
    let line = monitor.line_with("ERROR");
    assert!(line.contains("line 1: label \"temperature\": \"warm\" is not a number"), "{line}");
    assert!(monitor.stop(Signal::SIGTERM).0.success());
}

#[test]
fn the_cgroup_of_this_process_can_be_measured_where_it_has_one() {
    let options = |scope| Options { probes: "cpu,mem".parse().unwrap(), scope, ..Options::default() };
    let mut probe = Probe::new(&options(Scope::Cgroup)).unwrap();
    let before = probe.read(Duration::from_secs(1));
    let after = probe.read(Duration::from_secs(2));
    let values = probe.values(&before, &after);
    // Under the root of version 2 there are no figures, and it is said which file lacks.
    assert_eq!(values.len() + after.problems.len(), 2, "{values:?} {:?}", after.problems);
    assert!(values.iter().all(|(_, value)| (0.0..=1000.0).contains(value)), "{values:?}");
    assert!(Probes::default() == "default".parse().unwrap());
}
