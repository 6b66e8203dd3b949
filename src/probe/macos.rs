//! `cpu`, `mem` and `load` of macOS: `sysctl` for the size of memory, `vm_stat` for its use, and a running `iostat` for the processors, because
//! `sysctl` of macOS has no counters of processor time. The parsers are plain functions, tested on every system
//! against output in the form that Apple's manual pages show; the commands themselves have not been run on a Mac.

use super::Memory;
use super::cpu::CpuTimes;

/// Reads `vm_stat`: available is free and inactive, as psutil has it, and so lizmon had it.
fn parse_available_bytes(vm_stat: &str) -> Option<u64> {
    let page_bytes: u64 = vm_stat.split_once("page size of ")?.1.split(' ').next()?.parse().ok()?;
    let pages = |name: &str| -> Option<u64> {
        let line = vm_stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().trim_end_matches('.').parse().ok()
    };
    pages("Pages free")?.checked_add(pages("Pages inactive")?)?.checked_mul(page_bytes)
}

/// Reads a line of `iostat -n 0 -w 1`: percentages of user, system and idle time, then load averages.
fn parse_cpu_percent(line: &str) -> Option<[u64; 3]> {
    let mut numbers = line.split_whitespace().map_while(|word| word.parse::<f64>().ok());
    let percent = [numbers.next()?, numbers.next()?, numbers.next()?];
    let sum: f64 = percent.iter().sum();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to lie between 0 and 100")]
    (percent.iter().all(|part| (0.0..=100.0).contains(part)) && sum > 0.0).then(|| percent.map(|part| part as u64))
}

/// Reads `sysctl -n vm.loadavg`, such as `{ 1.52 1.60 1.71 }`.
fn parse_load1(loads: &str) -> Option<f64> {
    let load1: f64 = loads.trim().strip_prefix('{')?.split_whitespace().next()?.parse().ok()?;
    load1.is_finite().then_some(load1)
}

fn memory(memsize: &str, vm_stat: &str) -> Result<Memory, String> {
    let total_bytes = memsize.trim().parse().map_err(|_| "cannot parse sysctl hw.memsize".to_owned())?;
    let available_bytes = parse_available_bytes(vm_stat).ok_or("cannot parse vm_stat")?;
    Ok(Memory { total_bytes, available_bytes: available_bytes.min(total_bytes) })
}

/// Adds the percentages of one second to the counters.
fn add_percent(times: &mut CpuTimes, [user, system, idle]: [u64; 3]) {
    times.busy[0] += user;
    times.busy[2] += system;
    times.idle += idle;
}

#[cfg(target_os = "macos")]
pub(super) use running::{cpu, load, mem};

#[cfg(target_os = "macos")]
mod running {
    use std::io::{self, BufRead, BufReader};
    use std::process::{Command, Stdio};
    use std::sync::{Arc, Mutex, PoisonError};
    use std::thread;

    use super::super::cpu::CpuTimes;
    use super::super::{Probe, Setup, Tick};

    pub(in super::super) fn cpu(_setup: Setup<'_>) -> io::Result<Box<dyn Probe>> {
        let times = Arc::new(Mutex::new(Ok(CpuTimes::default())));
        let shared = times.clone();
        thread::Builder::new().name("iostat".into()).spawn(move || {
            let ended =
                follow_iostat(&shared).err().map_or("iostat ended".to_owned(), |error| format!("iostat: {error}"));
            *shared.lock().unwrap_or_else(PoisonError::into_inner) = Err(ended);
        })?;
        Ok(Box::new(Cpu { times, before: None }))
    }

    pub(in super::super) fn mem(_setup: Setup<'_>) -> io::Result<Box<dyn Probe>> {
        Ok(Box::new(Mem))
    }

    pub(in super::super) fn load(_setup: Setup<'_>) -> io::Result<Box<dyn Probe>> {
        Ok(Box::new(Load))
    }

    struct Cpu {
        times: Arc<Mutex<Result<CpuTimes, String>>>,
        before: Option<CpuTimes>,
    }

    impl Probe for Cpu {
        fn read(&mut self, tick: &mut Tick<'_>) {
            let times = self.times.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let times = tick.ok(times);
            let before = std::mem::replace(&mut self.before, times);
            let spent = before.zip(times).and_then(|(before, times)| times.since(&before));
            tick.give("cpu", None, spent.and_then(|spent| spent.busy_percent()));
        }
    }

    struct Mem;

    impl Probe for Mem {
        fn read(&mut self, tick: &mut Tick<'_>) {
            let memory = output("sysctl", &["-n", "hw.memsize"])
                .and_then(|memsize| super::memory(&memsize, &output("vm_stat", &[])?));
            let memory = tick.ok(memory);
            tick.give("mem", None, memory.and_then(|memory| memory.used_percent()));
        }
    }

    struct Load;

    impl Probe for Load {
        fn read(&mut self, tick: &mut Tick<'_>) {
            let load1 = output("sysctl", &["-n", "vm.loadavg"])
                .and_then(|loads| super::parse_load1(&loads).ok_or("cannot parse sysctl vm.loadavg".to_owned()));
            let load1 = tick.ok(load1);
            tick.give("load1", None, load1);
        }
    }

    /// Adds up what `iostat` prints each second, until it ends.
    fn follow_iostat(times: &Mutex<Result<CpuTimes, String>>) -> io::Result<()> {
        let child =
            Command::new("iostat").args(["-n", "0", "-w", "1"]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let Some(stdout) = child.stdout else { return Ok(()) };
        let mut is_first = true;
        for line in BufReader::new(stdout).lines() {
            let Some(percent) = super::parse_cpu_percent(&line?) else { continue };
            // The first figures are averages since the system started.
            if !std::mem::take(&mut is_first) {
                if let Ok(times) = &mut *times.lock().unwrap_or_else(PoisonError::into_inner) {
                    super::add_percent(times, percent);
                }
            }
        }
        Ok(())
    }

    fn output(command: &str, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(command).args(arguments).output().map_err(|error| format!("{command}: {error}"))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VM_STAT: &str = "Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                               10000.
Pages active:                            200000.
Pages inactive:                          190000.
Pages speculative:                         5000.
Pages throttled:                              0.
Pages wired down:                        100000.
Pages purgeable:                           2000.
\"Translation faults\":                1234567890.
";

    #[test]
    fn vm_stat_and_sysctl_give_memory() {
        let memory = memory("8589934592\n", VM_STAT).unwrap();
        assert_eq!(memory, Memory { total_bytes: 8_589_934_592, available_bytes: 200_000 * 16_384 });
        assert!(super::memory("lots", VM_STAT).unwrap_err().contains("hw.memsize"));
        assert!(super::memory("8589934592", "Pages free: 1.").unwrap_err().contains("vm_stat"));
    }

    #[test]
    fn sysctl_gives_the_load() {
        assert_eq!(parse_load1("{ 1.52 1.60 1.71 }\n"), Some(1.52));
        assert_eq!((parse_load1("1.52"), parse_load1("{ }"), parse_load1("{ nan }")), (None, None, None));
    }

    #[test]
    fn iostat_gives_cpu() {
        let output = "      cpu    load average\n us sy id   1m   5m   15m\n  4  3 93  1.52 1.60 1.71\n 52 11 37  1.48 1.59 1.70\n";
        let mut times = CpuTimes::default();
        output.lines().filter_map(parse_cpu_percent).for_each(|percent| add_percent(&mut times, percent));
        assert_eq!(times, CpuTimes { busy: [56, 0, 14, 0, 0, 0], idle: 130, iowait: 0 });
        assert_eq!(parse_cpu_percent("400 0 0"), None);
        assert_eq!(parse_cpu_percent("  0  0  0"), None);
    }
}
