//! The probes over recorded trees of several systems, beside other tools on this machine, and from the command line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lizm::probe::{Options, Probes, Reading, Scope};
use nix::sys::signal::Signal;

use crate::harness::{Process, Served, await_some, lizm, replace};

const TREES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/procfs");

/// Copies a tree. `{}` in its files stands for `root`.
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

/// What the probes measure in a tree, as text, and its file `expected`.
fn measure(tree: &str, probes: &str, scope: Scope) -> (String, String) {
    let (from, root) = (Path::new(TREES).join(tree), tempfile::tempdir().unwrap());
    let procfs = root.path().join("proc");
    fs::create_dir(&procfs).unwrap();
    copy(&from, &procfs, &procfs);
    if procfs.join("sysfs").exists() {
        fs::rename(procfs.join("sysfs"), root.path().join("sys")).unwrap();
    }
    let options = Options { probes: probes.parse().unwrap(), scope, procfs: procfs.clone(), ..Options::default() };
    let mut probes = Probes::new(&options).unwrap();
    let _ = probes.read(Duration::from_secs(100));
    copy(&from.join("later"), &procfs, &procfs);
    let Reading { values, problems, .. } = probes.read(Duration::from_secs(102));
    let values = values.into_iter().map(|(label, value)| format!("{label} {value}\n"));
    let problems = problems.iter().map(|problem| format!("problem {problem}\n"));
    (values.chain(problems).collect(), fs::read_to_string(procfs.join("expected")).unwrap())
}

#[test]
fn trees_of_several_systems_give_the_expected_values() {
    let probes = "cpu,mem,swap,load,io,net,processes,uptime,cpu-parts,pressure";
    for (tree, scope) in [
        ("linux-2.6.32", Scope::Host),
        ("linux-3.10", Scope::Host),
        ("linux-6.18", Scope::Host),
        ("hypervisor", Scope::Host),
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
                    problem probe net:gone: there is no such network interface\n";
    assert_eq!(measured, expected, "sdc has just come: it has no rate yet");
}

/// The words that a command prints.
fn words(program: &str, arguments: &[&str]) -> Vec<String> {
    let output = Command::new(program).args(arguments).env("LC_ALL", "C").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().split_whitespace().map(str::to_owned).collect()
}

/// The value of a label.
fn value(reading: &Reading, label: &str) -> f64 {
    reading.values.iter().find(|(known, _)| known == label).unwrap_or_else(|| panic!("{label} in {reading:?}")).1
}

#[test]
#[ignore = "needs procps"]
fn this_machine_is_measured_as_free_and_df_have_it() {
    let options = Options { probes: "default,disk:/tmp,inodes:/tmp".parse().unwrap(), ..Options::default() };
    let mut probes = Probes::new(&options).unwrap();
    let _ = probes.read(Duration::from_secs(1));
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
        let values = probes.read(Duration::from_secs(2));
        let (mem, disk, tmp) = (value(&values, "mem"), value(&values, "disk"), value(&values, "disk:/tmp"));
        let inodes = words("df", &["--output=ipcent", "/tmp"])[1].trim_end_matches('%').parse::<f64>().unwrap();
        let inodes = (inodes - value(&values, "inodes:/tmp")).abs() <= 1.0;
        let agrees = inodes && (mem - used()).abs() < 1.0 && disk.ceil() == full("/") && tmp.ceil() == full("/tmp");
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
    let mut probes = Probes::new(&Options { probes: "io".parse().unwrap(), ..Options::default() }).unwrap();
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
    let _ = probes.read(Duration::from_secs(1));
    let high = sum("before");
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    let end_low = sum("after");
    let after = probes.read(Duration::from_secs(2));
    let end_high = sum("after");
    let written = value(&after, "disk-write");
    println!("written: {written} bytes, by iostat {} to {}", end_low - high, end_high - low);
    // iostat rounds to kB.
    assert!(written + 2048.0 >= end_low - high && written - 2048.0 <= end_high - low, "{written}");
    assert!(written >= f64::from(100 << 20));
}

#[test]
fn the_network_is_measured_as_proc_has_it_and_loopback_on_request() {
    let mut probes = Probes::new(&Options { probes: "net:lo".parse().unwrap(), ..Options::default() }).unwrap();
    let received = || {
        let text = fs::read_to_string("/proc/net/dev").unwrap();
        let line = text.lines().find_map(|line| line.trim().strip_prefix("lo:")).unwrap().to_owned();
        line.split_whitespace().next().unwrap().parse::<f64>().unwrap()
    };
    let low = received();
    let _ = probes.read(Duration::from_secs(1));
    let high = received();
    let receiver = Served::start(&[]);
    let body = format!("{{\"a\": \"{}1\"}}", " ".repeat(500_000));
    (0..10).for_each(|_| assert_eq!(receiver.post("/api/perf/h/1", &body).0, 200));
    let end_low = received();
    let after = probes.read(Duration::from_secs(2));
    let end_high = received();
    let rate = value(&after, "net-in:lo");
    assert!(rate >= end_low - high && rate <= end_high - low, "{rate}");
    assert!(rate >= 5_000_000.0, "ten bodies of half a megabyte went by");
}

#[test]
fn the_monitor_publishes_the_probes_of_its_options() {
    let (root, texts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    copy(&Path::new(TREES).join("linux-3.10"), root.path(), root.path());
    replace(&texts.path().join("room.txt"), "# of the sensor\ntemperature 21.5\ncpu 1\n");
    let receiver = Served::start(&[]);
    let arguments = ["monitor", "--host", "h", "--probes", "mem,load,disk:/", "--textfile"];
    let mut command = lizm(&arguments);
    command.args([texts.path().to_str().unwrap(), "--procfs", root.path().to_str().unwrap(), "--rootfs", "/"]);
    command.args(["--publish", &receiver.url("")]);
    let monitor = Process::start(command);
    let line = monitor.line_with("ERROR");
    assert_eq!(line, "ERROR: probe textfile: file \"room.txt\": line 3: the label is one of a probe");
    for _ in 0..2 {
        assert!(monitor.line().starts_with("INFO: Publish was successful"), "a bad line is reported once");
    }
    await_some("all labels", || {
        let labels = receiver.get("/api/hosts").1["hosts"][0]["labels"].take();
        (labels == serde_json::json!(["disk-free:/", "disk:/", "load-per-core", "load1", "mem", "temperature"]))
            .then_some(())
    });
    let temperature = receiver.averages("h").remove("summary:by-hour:temperature").unwrap();
    assert_eq!(temperature[0]["avg"], 21.5);
    replace(&texts.path().join("room.txt"), "temperature warm\n");
    let line = monitor.line_with("ERROR");
    assert!(line.contains("\"room.txt\": line 1: the value is not a number"), "{line}");
    assert!(monitor.stop(Signal::SIGTERM).0.success());
}

#[test]
fn one_sample_is_printed_as_text_or_json() {
    let root = tempfile::tempdir().unwrap();
    copy(&Path::new(TREES).join("linux-3.10"), root.path(), root.path());
    let once = |more: &[&str]| {
        let arguments =
            ["monitor", "--once", "--probes", "mem,load,io:gone", "--procfs", root.path().to_str().unwrap()];
        let output = lizm(&arguments).args(more).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(stderr, "lizm: probe io:gone: there is no such block device\n");
        String::from_utf8(output.stdout).unwrap()
    };
    let text = once(&[]);
    let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words, [vec!["mem", "75", "%"], vec!["load1", "12.07"], vec!["load-per-core", "12.07"]]);
    let json: serde_json::Value = serde_json::from_str(&once(&["--json"])).unwrap();
    assert_eq!(json, serde_json::json!({"load-per-core": 12.07, "load1": 12.07, "mem": 75.0}));
}

#[test]
fn a_host_without_a_name_gets_that_of_the_system() {
    let receiver = Served::start(&[]);
    let monitor = Process::start(lizm(&["monitor", "--probes", "load", "--publish", &receiver.url("")]));
    let name = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let line = monitor.line();
    assert!(line.contains(&receiver.url(&format!("/api/perf/{name}/"))), "{line}");
    let container = ["monitor", "--host", "0123456789ab", "--probes", "load", "--publish", &receiver.url("")];
    let line = Process::start(lizm(&container)).line();
    assert!(line.starts_with("WARNING: ") && line.contains("a container's id"), "{line}");
}

#[test]
fn a_path_that_is_missing_is_reported_once_and_the_rest_is_measured() {
    let receiver = Served::start(&[]);
    let arguments = ["monitor", "--host", "h", "--probes", "load,disk:/gone", "--textfile", "/gone/texts", "--publish"];
    let mut command = lizm(&arguments);
    command.arg(receiver.url(""));
    let monitor = Process::start(command);
    // Each is read by a thread of its own, which may answer a tick later than the other one.
    let mut problems = [monitor.line_with("ERROR"), monitor.line_with("ERROR")];
    problems.sort();
    let expected =
        ["probe disk:/gone: there is no such path", "probe textfile: /gone/texts: there is no such directory"];
    assert_eq!(problems, expected.map(|problem| format!("ERROR: {problem}")));
    for _ in 0..2 {
        let line = monitor.line();
        assert!(line.starts_with("INFO: Publish was successful"), "{line}");
    }
    assert_eq!(receiver.get("/api/hosts").1["hosts"][0]["labels"], serde_json::json!(["load-per-core", "load1"]));
}

/// A FUSE file system without a server: each call into it hangs, until the mount is dropped.
struct Hanging {
    point: PathBuf,
    _device: fs::File,
}

impl Hanging {
    /// Mounts one over an empty directory or file.
    fn mount(point: PathBuf) -> Self {
        let device = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
        let mode = if point.is_dir() { "40000" } else { "100000" };
        // The shell opens the device again as its descriptor 9 for mount to pass on.
        let script = format!(
            "exec 9<&0; mount -i -t fuse -o fd=9,rootmode={mode},user_id=0,group_id=0,allow_other none {}",
            point.display()
        );
        let status = Command::new("sh").args(["-c", &script]).stdin(device.try_clone().unwrap()).status().unwrap();
        assert!(status.success(), "mount needs root and FUSE");
        Self { point, _device: device }
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", self.point.to_str().unwrap()]).status();
    }
}

#[test]
#[ignore = "needs root and /dev/fuse"]
fn file_systems_and_textfiles_that_hang_hold_up_nothing() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    ["disk", "texts"].iter().for_each(|name| fs::create_dir(at(name)).unwrap());
    fs::write(at("texts/a.txt"), "").unwrap();
    fs::write(at("texts/b.txt"), "queue 7\n").unwrap();
    let disk = Hanging::mount(at("disk"));
    let file = Hanging::mount(at("texts/a.txt"));
    let probes = format!("load,disk:{}", at("disk").display()).parse().unwrap();
    let options = Options { probes, textfile: Some(at("texts")), ..Options::default() };
    let mut probes = Probes::new(&options).unwrap();
    let mut sec = 0;
    let mut read = || {
        sec += 1;
        probes.read(Duration::from_secs(sec))
    };
    let _ = await_some("both to hang", || Some(read()).filter(|reading| reading.problems.len() == 2));
    let reading = await_some("the other file", || Some(read()).filter(|reading| reading.values.len() == 3));
    assert_eq!((value(&reading, "queue"), reading.problems.len()), (7.0, 2), "{reading:?}");
    assert!(reading.problems[1].ends_with("file \"a.txt\" does not answer"), "{reading:?}");
    drop((disk, file));
    let reading = await_some("both to answer", || Some(read()).filter(|reading| reading.problems.is_empty()));
    assert_eq!((reading.values.len(), value(&reading, "queue")), (5, 7.0), "{reading:?}");
}

#[test]
fn the_cgroup_of_this_process_can_be_measured_where_it_has_one() {
    let options = |scope| Options { probes: "cpu,mem".parse().unwrap(), scope, ..Options::default() };
    let mut probes = Probes::new(&options(Scope::Cgroup)).unwrap();
    let _ = probes.read(Duration::from_secs(1));
    let Reading { values, problems, .. } = probes.read(Duration::from_secs(2));
    // The root of version 2 has no figures, and the file that is missing is reported.
    assert_eq!(values.len() + problems.len(), 2, "{values:?} {problems:?}");
    assert!(values.iter().all(|(_, value)| (0.0..=1000.0).contains(value)), "{values:?}");
}
