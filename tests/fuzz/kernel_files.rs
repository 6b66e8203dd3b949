//! Any bytes as the files of `/proc` and `/sys`: no probe panics, and what it gives is a label and a number.
//!
//! The files are divided by lines of `%%`, in the order of [`FILES`]; those of the next tick follow. An empty one is not
//! there.

use std::fs;
use std::time::Duration;

use lizm::probe::{Options, Probes};
use lizm::sample::{check_label, check_value};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

const FILES: [&str; 28] = [
    "proc/stat",
    "proc/meminfo",
    "proc/loadavg",
    "proc/diskstats",
    "proc/net/dev",
    "proc/uptime",
    "proc/pressure/cpu",
    "proc/pressure/io",
    "proc/1/mountinfo",
    "proc/1/stat",
    "proc/1/cmdline",
    "proc/77/stat",
    "proc/77/cmdline",
    "proc/77/net/dev",
    "proc/spl/kstat/zfs/arcstats",
    "sys/class/hwmon/hwmon0/name",
    "sys/class/hwmon/hwmon0/temp1_input",
    "sys/class/hwmon/hwmon0/temp1_label",
    "sys/class/thermal/thermal_zone0/type",
    "sys/class/thermal/thermal_zone0/temp",
    "sys/class/drm/card0/device/gpu_busy_percent",
    "sys/class/drm/card0/device/mem_info_vram_used",
    "sys/class/drm/card0/device/mem_info_vram_total",
    "sys/fs/cgroup/cgroup.controllers",
    "sys/fs/cgroup/docker/ID/cpu.stat",
    "sys/fs/cgroup/docker/ID/memory.current",
    "sys/fs/cgroup/docker/ID/memory.stat",
    "sys/fs/cgroup/docker/ID/cgroup.procs",
];

const PROBES: &str = "cpu,mem,swap,load,io,io:sda,net,net:eth0,uptime,cpu-parts,pressure,temp,cores,readonly,containers,\
                      procs:*a*,top,gpu,zfs";

pub(crate) fn run(input: &[u8]) {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("proc")).unwrap();
    let text = String::from_utf8_lossy(input);
    let texts: Vec<&str> = text.split("%%\n").collect();
    let options = Options { probes: PROBES.parse().unwrap(), procfs: root.path().join("proc"), ..Options::default() };
    let mut probes = Probes::new(&options).unwrap();
    for (tick, texts) in texts.chunks(FILES.len()).take(3).enumerate() {
        for (name, text) in FILES.iter().zip(texts) {
            let path = root.path().join(name.replace("ID", ID));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            if text.is_empty() {
                let _ = fs::remove_file(path);
            } else {
                fs::write(path, text).unwrap();
            }
        }
        let reading = probes.read(Duration::from_secs(60 * tick as u64));
        for (n, (label, value)) in reading.values.iter().enumerate() {
            check_label(label).and_then(|()| check_value(label, *value)).unwrap();
            assert!(!reading.values[..n].iter().any(|(known, _)| known == label), "{label} twice");
            assert!(*value >= 0.0 || label.starts_with("temp") || label.starts_with("gpu-temp"), "{label} {value}");
        }
    }
}
