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

/// A copy of a tree, with `proc` and `sys` as a machine has them.
fn machine(tree: &str) -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let procfs = root.path().join("proc");
    fs::create_dir(&procfs).unwrap();
    copy(&Path::new(TREES).join(tree), &procfs, &procfs);
    if procfs.join("sysfs").exists() {
        fs::rename(procfs.join("sysfs"), root.path().join("sys")).unwrap();
    }
    (root, procfs)
}

/// What the probes measure in a tree, as text, and its file `expected`.
fn measure(tree: &str, probes: &str, scope: Scope) -> (String, String) {
    let from = Path::new(TREES).join(tree);
    let (_root, procfs) = machine(tree);
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
fn sensors_processors_and_mounts_of_several_machines_give_the_expected_values() {
    for tree in ["desktop", "raspberry-pi", "server"] {
        let (_root, procfs) = machine(tree);
        let probes = "temp,cores,readonly".parse().unwrap();
        let mut probes = Probes::new(&Options { probes, procfs: procfs.clone(), ..Options::default() }).unwrap();
        // The sensors are read by a thread of their own.
        await_some("the sensors", || {
            probes.read(Duration::from_secs(100)).values.iter().any(|(label, _)| label == "temp").then_some(())
        });
        copy(&Path::new(TREES).join(tree).join("later"), &procfs, &procfs);
        let Reading { values, problems, .. } = probes.read(Duration::from_secs(110));
        assert_eq!(problems, [""; 0], "{tree}");
        let values: String = values.into_iter().map(|(label, value)| format!("{label} {value}\n")).collect();
        assert_eq!(values, fs::read_to_string(procfs.join("expected")).unwrap(), "{tree}");
    }
}

/// The files of a machine at one moment of its day: what was plugged in since the start has counters from then on.
struct Moment {
    /// Seconds since the last start, and since the hour began.
    sec: u64,
    since_hour: u64,
    hour: u64,
}

impl Moment {
    /// Whether what comes and goes by the hour is there.
    fn is_plugged(&self) -> bool {
        self.hour % 2 == 1
    }

    /// The id of the container of this hour.
    fn container(&self) -> String {
        format!("{:012x}{}", self.hour, "0".repeat(52))
    }

    fn write(&self, root: &Path) {
        let Self { sec, since_hour, .. } = *self;
        let mut stat = format!("cpu  {} 0 0 {}\ncpu0 {} 0 0 {}\n", 2 * sec, 198 * sec, sec, 99 * sec);
        let mut disks = format!("8 0 sda {sec} 0 {} 0 0 0 {} 0 0 0 0\n", 8 * sec, 8 * sec);
        let mut net = format!("a\nb\n  eth0: {} 0 0 0 0 0 0 0 {} 0\n", 100 * sec, 200 * sec);
        if self.is_plugged() {
            stat += &format!("cpu1 {since_hour} 0 0 {}\n", 99 * since_hour);
            disks += &format!("8 16 sdb 1 0 {since_hour} 0 0 0 {since_hour} 0 0 0 0\n");
            net += &format!("  eth1: {since_hour} 0 0 0 0 0 0 0 {since_hour} 0\n");
        }
        let mounted = if self.is_plugged() {
            format!("30 1 8:17 / {} rw - ext4 /dev/sdb1 rw\n", root.display())
        } else {
            String::new()
        };
        replace(&root.join("proc/self/mountinfo"), &mounted);
        let sensor = if self.is_plugged() { "sys/class/hwmon/hwmon0" } else { "sys/class/hwmon/hwmon1" };
        if !root.join(sensor).exists() {
            let _ = fs::remove_dir_all(root.join("sys/class"));
            fs::create_dir_all(root.join(sensor)).unwrap();
            fs::write(root.join(sensor).join("name"), &sensor[16..]).unwrap();
            fs::write(root.join(sensor).join("temp1_input"), "40000\n").unwrap();
        }
        replace(&root.join("proc/stat"), &stat);
        replace(&root.join("proc/diskstats"), &disks);
        replace(&root.join("proc/net/dev"), &net);
        let pressure = format!("some avg10=0.00 avg60=0.00 avg300=0.00 total={}\n", 1000 * sec);
        replace(&root.join("proc/pressure/cpu"), &pressure);
        let cgroup = root.join("sys/fs/cgroup/docker").join(self.container());
        if !cgroup.exists() {
            let _ = fs::remove_dir_all(root.join("sys/fs/cgroup/docker"));
            fs::create_dir_all(&cgroup).unwrap();
            fs::write(cgroup.join("memory.current"), "4096\n").unwrap();
        }
        replace(&cgroup.join("cpu.stat"), &format!("usage_usec {}\n", 10_000 * since_hour));
        // A process of this hour, and one that is always there.
        for (pid, name, ticks) in [(1, "init", sec), (1000 + self.hour, "job", since_hour)] {
            let directory = root.join(format!("proc/{pid}"));
            fs::create_dir_all(&directory).unwrap();
            let line = format!("{pid} ({name}) S 0 1 1 0 -1 0 1 2 3 4 {ticks} 0 0 0 20 0 1 0 {pid} 9999 25 1");
            replace(&directory.join("stat"), &line);
            replace(&directory.join("cmdline"), name);
        }
        let _ = fs::remove_dir_all(root.join(format!("proc/{}", 1000_u64.wrapping_add(self.hour.wrapping_sub(1)))));
    }
}

#[test]
fn a_day_of_hotplug_leaves_no_series_behind_and_no_rate_below_zero() {
    let root = tempfile::tempdir().unwrap();
    for directory in ["proc/net", "proc/pressure", "proc/self", "sys/fs/cgroup"] {
        fs::create_dir_all(root.path().join(directory)).unwrap();
    }
    fs::write(root.path().join("sys/fs/cgroup/cgroup.controllers"), "cpu memory\n").unwrap();
    let list = "cpu,disk,io,io:sdb,net,net:eth1,cores,pressure,containers,procs:job,top,temp";
    let disk = format!("disk-free:{}", root.path().display());
    let options = Options { probes: list.parse().unwrap(), procfs: root.path().join("proc"), ..Options::default() };
    Moment { sec: 0, since_hour: 0, hour: 0 }.write(root.path());
    let mut probes = Probes::new(&options).unwrap();
    let mut at = 0;
    let mut tick = |moment: &Moment| {
        moment.write(root.path());
        at += 60;
        let reading = probes.read(Duration::from_secs(at));
        for (label, value) in &reading.values {
            assert!((0.0..1e15).contains(value), "{label} {value} in hour {}", moment.hour);
        }
        assert!(reading.values.len() < 40, "{reading:?}");
        reading
    };
    let mut sec = 0;
    for hour in 0..24 {
        // The machine starts again at noon: all counters go back.
        sec = if hour == 12 { 60 } else { sec };
        let mut since_hour = 0;
        let mut next = || {
            (sec, since_hour) = (sec + 60, since_hour + 60);
            let moment = Moment { sec, since_hour, hour };
            (tick(&moment), moment)
        };
        (0..60).for_each(|_| drop(next()));
        // Some are read by threads, which answer a tick later on a busy machine.
        await_some("what is there, and nothing else", || {
            let (reading, moment) = next();
            let has = |label: &str| reading.values.iter().any(|(known, _)| known == label);
            let containers: Vec<&str> =
                reading.values.iter().filter_map(|(label, _)| label.strip_prefix("container-cpu:")).collect();
            let is_right = has("cpu:1") == moment.is_plugged()
                && has("disk-read:sdb") == moment.is_plugged()
                && has("net-in:eth1") == moment.is_plugged()
                && has(&disk) == moment.is_plugged()
                && has("temp:hwmon0/temp1") == moment.is_plugged()
                && has("temp:hwmon1/temp1") != moment.is_plugged()
                && has("cpu:0")
                && has("top-mem:job")
                && containers == [&moment.container()[..12]];
            is_right.then_some(())
        });
    }
}

#[test]
#[ignore = "needs procps"]
fn the_busiest_commands_are_those_that_ps_has() {
    let mut child = Command::new("sh").args(["-c", "exec sleep 100"]).spawn().unwrap();
    let probes = "procs:sleep,top".parse().unwrap();
    let mut probes = Probes::new(&Options { probes, ..Options::default() }).unwrap();
    let mut sec = 0;
    await_some("as many processes as ps has, and as much memory", || {
        sec += 1;
        let reading = probes.read(Duration::from_secs(sec));
        let ps = || words("ps", &["-C", "sleep", "-o", "rss="]);
        let ps: Vec<f64> = ps().iter().map(|kilobytes| kilobytes.parse::<f64>().unwrap() * 1024.0).collect();
        let get = |label: &str| reading.values.iter().find(|(known, _)| known == label).map(|(_, value)| *value);
        let has_top = reading.values.iter().filter(|(label, _)| label.starts_with("top-mem:")).count() >= 5;
        let mem = get("procs-mem:sleep")? - ps.iter().sum::<f64>();
        (get("procs:sleep") == Some(ps.len() as f64) && mem.abs() < 1e6 && has_top).then_some(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
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
fn pressure_is_measured_as_the_kernel_counts_it() {
    let mut probes = Probes::new(&Options { probes: "pressure".parse().unwrap(), ..Options::default() }).unwrap();
    // The kernel's own sum, in microseconds, of a line that some systems do not have.
    let waited = || {
        let text = fs::read_to_string("/proc/pressure/cpu").ok()?;
        text.lines().next()?.rsplit_once("total=")?.1.parse::<f64>().ok()
    };
    let began = std::time::Instant::now();
    let Some(low) = waited() else {
        let reading = probes.read(Duration::from_secs(1));
        assert!(reading.values.is_empty() && reading.left_out[0].starts_with("probe pressure is left out: "));
        return;
    };
    let first = began.elapsed();
    let _ = probes.read(first);
    let high = waited().unwrap();
    // Two threads more than there are processors, so that some wait.
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let (end_low, percent, end_high, elapsed) = std::thread::scope(|scope| {
        for _ in 0..2 + std::thread::available_parallelism().unwrap().get() {
            scope.spawn(|| {
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let busy = await_some("pressure", || waited().filter(|now| now - high > 100_000.0));
        let at = began.elapsed();
        let reading = probes.read(at);
        let after = waited().unwrap();
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        (busy, value(&reading, "pressure-cpu"), after, (at - first).as_secs_f64())
    });
    // At most a tenth of a percent is rounded away, and no more than all of the time is waited.
    let bounds = [end_low - high, end_high - low].map(|usec| (usec / elapsed / 1e4).min(100.0));
    assert!(percent >= bounds[0] - 0.1 && percent <= bounds[1] + 0.1, "{percent} of {bounds:?}");
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
    let slow = ["monitor", "--once", "--probes", "exec:slow=/bin/sleep 60", "--exec-timeout", "1s"];
    let said = String::from_utf8(lizm(&slow).output().unwrap().stderr).unwrap();
    assert!(said.contains("exec:slow: it did not end within 1 s"), "{said}");
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
fn a_sensor_that_hangs_holds_up_nothing() {
    let (root, procfs) = machine("server");
    let fifo = root.path().join("sys/class/hwmon/hwmon0/temp1_input");
    fs::remove_file(&fifo).unwrap();
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let probes = "cores,temp".parse().unwrap();
    let mut probes = Probes::new(&Options { probes, procfs: procfs.clone(), ..Options::default() }).unwrap();
    let _ = probes.read(Duration::ZERO);
    for sec in 1..=200 {
        // Each second one processor has been busy for one of a hundred ticks more.
        replace(&procfs.join("stat"), &format!("cpu  {sec} 0 0 {0}\ncpu0 {sec} 0 0 {0}\n", 99 * sec));
        let Reading { values, problems, .. } = probes.read(Duration::from_secs(sec));
        assert_eq!(values.len(), usize::from(sec > 1), "{values:?}");
        assert_eq!(problems.is_empty(), sec < 120, "{problems:?} in second {sec}");
    }
    // Who asks once is told.
    let once = ["monitor", "--once", "--probes", "cores,temp", "--exec-timeout", "1s", "--procfs"];
    let once = lizm(&once).arg(&procfs).output().unwrap();
    assert!(once.status.success(), "{once:?}");
    assert_eq!(String::from_utf8(once.stderr).unwrap(), "lizm: probe temp: not all of it has answered\n");
    // The sensor answers.
    let answer = std::thread::spawn(move || fs::write(fifo, "61250\n").unwrap());
    let reading =
        await_some("the sensors", || Some(probes.read(Duration::from_secs(201))).filter(|r| r.values.len() > 1));
    assert_eq!(value(&reading, "temp"), 61.3);
    answer.join().unwrap();
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
