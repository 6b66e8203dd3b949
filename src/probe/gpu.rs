//! `gpu`: how busy graphics cards are, their memory and their temperature. `gpu` is the first card, `gpu:1` the second.
//!
//! The driver amdgpu has files below `/sys/class/drm` (`Documentation/gpu/amdgpu` of the kernel). For NVIDIA's cards one
//! `nvidia-smi -l` is kept running, since each start of it takes a second of a processor.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::background::BackgroundCall;
use super::{About, Label, Probe, Target, Tick, one_decimal, percent};

pub(super) const ABOUT: About = About {
    name: "gpu",
    target: Target::None,
    labels: &[
        Label { name: "gpu", unit: "%", what: "how busy the graphics card is; gpu:1 is the second" },
        Label { name: "gpu-mem", unit: "%", what: "its memory that is used" },
        Label { name: "gpu-temp", unit: "°C", what: "its temperature" },
    ],
    source: "amdgpu, nvidia-smi",
    is_default: false,
    new: |setup| {
        let sysfs = setup.options.sysfs();
        let nvidia = Arc::new(Nvidia::default());
        let (call, kept) = (BackgroundCall::start("gpu", move || read_amd(&sysfs))?, nvidia.clone());
        // Where there is no driver there is no program, and nothing is started.
        let has_driver = setup.options.procfs.join("driver/nvidia").exists();
        if has_driver {
            thread::Builder::new().name("nvidia-smi".to_owned()).spawn(move || kept.keep("nvidia-smi"))?;
        }
        Ok(Box::new(Gpu { call, nvidia, has_driver }))
    },
};

/// Seconds between two lines of `nvidia-smi`, and how long a line holds.
const NVIDIA_EVERY_SEC: &str = "5";
const HELD_FOR: Duration = Duration::from_secs(30);
/// Pause before `nvidia-smi` is started again when it has ended.
const NVIDIA_PAUSE: Duration = Duration::from_secs(60);
/// Most bytes of a line of `nvidia-smi`.
const LINE_BYTES_MAX: u64 = 256;
/// Most cards.
const CARDS_MAX: usize = 16;

/// What a card gives, as far as it does.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Card {
    busy: Option<f64>,
    mem: Option<f64>,
    celsius: Option<f64>,
}

struct Gpu {
    call: BackgroundCall<Vec<Card>>,
    nvidia: Arc<Nvidia>,
    has_driver: bool,
}

impl Probe for Gpu {
    fn ask(&mut self, _at: Duration) {
        self.call.ask();
    }

    fn read(&mut self, tick: &mut Tick<'_>) {
        let Some(mut cards) = self.call.answer(tick.until) else {
            if self.call.hangs() {
                tick.report(None, "the driver does not answer");
            }
            return;
        };
        cards.extend(self.nvidia.cards());
        if let Some(why) = &self.nvidia.lock().problem {
            tick.report(None, why);
        }
        if cards.is_empty() && !self.has_driver {
            tick.leave_out("there is no card of amdgpu or NVIDIA");
        }
        for (n, card) in cards.iter().take(CARDS_MAX).enumerate() {
            let number = (n > 0).then(|| n.to_string());
            let values = [("gpu", card.busy), ("gpu-mem", card.mem), ("gpu-temp", card.celsius)];
            values.into_iter().for_each(|(label, value)| tick.give(label, number.as_deref(), value));
        }
    }

    fn is_pending(&self) -> bool {
        let is_silent = |state: &NvidiaState| state.cards.is_empty() && state.problem.is_none();
        self.has_driver && is_silent(&self.nvidia.lock())
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        let mut state = self.nvidia.lock();
        state.is_stopped = true;
        let _ = state.child.as_mut().map(Child::kill);
    }
}

/// Reads the cards of amdgpu, in the order of their numbers.
fn read_amd(sysfs: &Path) -> Vec<Card> {
    let entries = fs::read_dir(sysfs.join("class/drm")).into_iter().flatten().flatten();
    let number = |path: &Path| path.file_name()?.to_str()?.strip_prefix("card")?.parse::<u32>().ok();
    let mut paths: Vec<(u32, PathBuf)> =
        entries.filter_map(|entry| Some((number(&entry.path())?, entry.path().join("device")))).collect();
    paths.sort_unstable();
    paths.into_iter().map(|(_, device)| read_card(&device)).filter(|card| *card != Card::default()).collect()
}

fn read_card(device: &Path) -> Card {
    let number = |name: &str| fs::read_to_string(device.join(name)).ok()?.trim().parse::<u64>().ok();
    let mem = number("mem_info_vram_used").zip(number("mem_info_vram_total"));
    let chips = fs::read_dir(device.join("hwmon")).into_iter().flatten().flatten();
    let celsius = chips.filter_map(|chip| fs::read_to_string(chip.path().join("temp1_input")).ok()).next();
    Card {
        busy: number("gpu_busy_percent").and_then(|busy| percent(busy.min(100), 100)),
        mem: mem.and_then(|(used, total)| percent(used, total)),
        celsius: celsius.and_then(|text| Some(one_decimal(text.trim().parse::<f64>().ok()? / 1000.0))),
    }
    .if_amd(device)
}

impl Card {
    /// The card, if its device has a figure of how busy it is: other drivers' sensors are those of `temp`.
    fn if_amd(self, device: &Path) -> Self {
        if device.join("gpu_busy_percent").exists() { self } else { Self::default() }
    }
}

/// The `nvidia-smi` that runs, and what it has printed.
#[derive(Default)]
struct Nvidia(Mutex<NvidiaState>);

#[derive(Default)]
struct NvidiaState {
    child: Option<Child>,
    is_stopped: bool,
    /// Each card by its number, and when its line came.
    cards: Vec<(Card, Instant)>,
    /// Why there is no line, since the last one.
    problem: Option<String>,
}

impl Nvidia {
    fn lock(&self) -> std::sync::MutexGuard<'_, NvidiaState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cards whose lines still hold.
    fn cards(&self) -> Vec<Card> {
        let held = |(card, at): &(Card, Instant)| (at.elapsed() < HELD_FOR).then_some(*card);
        self.lock().cards.iter().filter_map(held).collect()
    }

    /// Keeps the program running until the probe is dropped.
    fn keep(&self, program: &str) {
        while !self.lock().is_stopped {
            self.run(program);
            thread::sleep(NVIDIA_PAUSE);
        }
    }

    /// Runs the program once, and notes that it gives no more lines.
    fn run(&self, program: &str) {
        let problem = match self.take_lines(program) {
            Ok(()) => format!("{program} ended"),
            Err(error) => format!("cannot run {program}: {error}"),
        };
        self.lock().problem = Some(problem);
    }

    /// Starts the program, and takes its lines until it ends.
    fn take_lines(&self, program: &str) -> io::Result<()> {
        let query = "--query-gpu=index,utilization.gpu,memory.used,memory.total,temperature.gpu";
        let mut command = Command::new(program);
        command.args([query, "--format=csv,noheader,nounits", "-l", NVIDIA_EVERY_SEC]).env("LC_ALL", "C");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdout = child.stdout.take();
        {
            let mut state = self.lock();
            if state.is_stopped {
                let _ = child.kill();
            }
            state.child = Some(child);
        }
        let mut lines = BufReader::new(stdout.ok_or(io::ErrorKind::BrokenPipe)?);
        let mut line = Vec::new();
        loop {
            line.clear();
            if (&mut lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            if let Some((index, card)) = parse_nvidia(&String::from_utf8_lossy(&line)) {
                let mut state = self.lock();
                state.problem = None;
                let missing = (index + 1).saturating_sub(state.cards.len());
                state.cards.extend(std::iter::repeat_n((Card::default(), Instant::now()), missing));
                state.cards[index] = (card, Instant::now());
            }
        }
        let child = self.lock().child.take();
        child.map_or(Ok(()), |mut child| child.wait().map(drop))
    }
}

/// Parses `index, busy, used MiB, all MiB, °C`. What a card does not know is `[N/A]`.
fn parse_nvidia(line: &str) -> Option<(usize, Card)> {
    let columns: Vec<Option<u64>> = line.split(',').map(|column| column.trim().parse().ok()).collect();
    let [Some(index), busy, used, total, celsius] = columns[..] else { return None };
    let index = usize::try_from(index).ok().filter(|index| *index < CARDS_MAX)?;
    #[expect(clippy::cast_precision_loss, reason = "degrees")]
    let celsius = celsius.map(|celsius| celsius as f64);
    let mem = used.zip(total).and_then(|(used, total)| percent(used, total));
    Some((index, Card { busy: busy.and_then(|busy| percent(busy.min(100), 100)), mem, celsius }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::testing::is;
    use super::*;

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (name, content) in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    #[test]
    fn cards_of_amdgpu_have_files() {
        let root = tempfile::tempdir().unwrap();
        let device = |n: u32, name: &str| format!("class/drm/card{n}/device/{name}");
        let files = [
            (device(0, "hwmon/hwmon9/temp1_input"), "50000\n"),
            (device(1, "gpu_busy_percent"), "37\n"),
            (device(1, "mem_info_vram_used"), "2147483648\n"),
            (device(1, "mem_info_vram_total"), "8589934592\n"),
            (device(1, "hwmon/hwmon4/temp1_input"), "54500\n"),
            (device(10, "gpu_busy_percent"), "0\n"),
            ("class/drm/card1-DP-1/status".to_owned(), "connected\n"),
        ];
        write(root.path(), &files.each_ref().map(|(name, content)| (&**name, *content)));
        let first = Card { busy: Some(37.0), mem: Some(25.0), celsius: Some(54.5) };
        assert_eq!(read_amd(root.path()), [first, Card { busy: Some(0.0), ..Card::default() }]);
        let options = super::super::Options {
            probes: "gpu".parse().unwrap(),
            procfs: root.path().join("proc"),
            ..Default::default()
        };
        fs::rename(root.path().join("class"), root.path().join("moved")).unwrap();
        fs::create_dir(root.path().join("sys")).unwrap();
        fs::rename(root.path().join("moved"), root.path().join("sys/class")).unwrap();
        let mut probes = super::super::Probes::new(&options).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut sec = 0;
        let values = loop {
            sec += 1;
            let reading = probes.read(Duration::from_secs(sec));
            if !reading.values.is_empty() || Instant::now() > deadline {
                break reading.values;
            }
        };
        let values: Vec<(String, f64)> = values.into_iter().map(|(label, value)| (label.into_owned(), value)).collect();
        assert_eq!(values, [is("gpu", 37.0), is("gpu-mem", 25.0), is("gpu-temp", 54.5), is("gpu:1", 0.0)]);
    }

    #[test]
    fn lines_of_nvidia_smi_are_cards() {
        let card = Card { busy: Some(12.0), mem: Some(50.0), celsius: Some(61.0) };
        assert_eq!(parse_nvidia("0, 12, 4096, 8192, 61\n"), Some((0, card)));
        let little = Card { celsius: Some(40.0), ..Card::default() };
        assert_eq!(parse_nvidia("1, [N/A], [N/A], 8192, 40\n"), Some((1, little)));
        for wrong in ["", "No devices were found\n", "0, 1, 2\n", "99, 1, 2, 3, 4\n", "-1, 1, 2, 3, 4\n"] {
            assert_eq!(parse_nvidia(wrong), None, "{wrong:?}");
        }
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("nvidia-smi");
        fs::write(&program, "#!/bin/sh\necho '1, 1, 1, 2, 3'\necho '0, 12, 4096, 8192, 61'\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let nvidia = Nvidia::default();
        nvidia.run(program.to_str().unwrap());
        assert_eq!((nvidia.cards()[0], nvidia.cards().len()), (card, 2));
        assert!(nvidia.lock().problem.as_ref().is_some_and(|why| why.ends_with("/nvidia-smi ended")));
        nvidia.run("/nonexistent/nvidia-smi");
        assert!(
            nvidia.lock().problem.as_ref().is_some_and(|why| why.starts_with("cannot run /nonexistent/nvidia-smi: "))
        );
    }
}
