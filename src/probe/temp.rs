//! `temp`: temperature of the hottest sensor in °C, and `temp:CHIP/SENSOR` of each, by `/sys/class/hwmon`, or by
//! `/sys/class/thermal` where that has none. `temp:CHIP` selects the sensors of one chip.
//!
//! Sensors are read once a minute by a thread of their own, and their values hold until the next time: a sensor may
//! take seconds to answer. `drivetemp` is read only where it is selected, since it may keep a disk from sleeping.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::background::BackgroundCall;
use super::{About, Label, Probe, Target, Tick, one_decimal};
use crate::sample::check_label;

pub(super) const ABOUT: About = About {
    name: "temp",
    target: Target::Optional("CHIP"),
    labels: &[Label { name: "temp", unit: "°C", what: "hottest sensor; temp:CHIP/SENSOR is each" }],
    source: "/sys/class/hwmon",
    is_default: true,
    new: |setup| {
        let (sysfs, chips) = (setup.options.sysfs(), setup.targets);
        let call = BackgroundCall::start("sensors", move || read_sensors(&sysfs, &chips))?;
        Ok(Box::new(Temp { call, asked_at: None, answered_at: Duration::ZERO, sensors: None }))
    },
};

/// How often sensors are read.
const READ_EVERY: Duration = Duration::from_secs(60);
/// How long values hold, and nothing is reported, while the sensors do not answer.
const HELD_FOR: Duration = Duration::from_secs(120);
/// Most sensors that have a label: those with the first names.
const SENSORS_MAX: usize = 32;
/// The chip that is read only where it is selected.
const ONLY_SELECTED: &str = "drivetemp";

/// A sensor by its label behind the colon, and its temperature in °C.
type Sensor = (String, f64);

struct Temp {
    call: BackgroundCall<Vec<Sensor>>,
    asked_at: Option<Duration>,
    answered_at: Duration,
    sensors: Option<Vec<Sensor>>,
}

impl Probe for Temp {
    fn read(&mut self, tick: &mut Tick<'_>) {
        if self.asked_at.is_none() {
            self.answered_at = tick.at;
        }
        if self.asked_at.is_none_or(|at| tick.at.saturating_sub(at) >= READ_EVERY) {
            self.call.ask();
            self.asked_at = Some(tick.at);
        }
        if let Some(sensors) = self.call.poll() {
            (self.sensors, self.answered_at) = (Some(sensors), tick.at);
        }
        if tick.at.saturating_sub(self.answered_at) >= HELD_FOR {
            self.sensors = None;
            tick.report(None, "the sensors do not answer");
        }
        let Some(sensors) = &self.sensors else { return };
        let hottest = sensors.iter().map(|(_, celsius)| *celsius).reduce(f64::max);
        if hottest.is_none() {
            tick.leave_out("there are no sensors");
        }
        tick.give("temp", None, hottest);
        for (sensor, celsius) in sensors.iter().take(SENSORS_MAX) {
            tick.give("temp", Some(sensor), Some(*celsius));
        }
    }

    fn is_pending(&self) -> bool {
        self.sensors.is_none()
    }
}

/// Reads the sensors of the selected chips, sorted by name. `None` selects all chips but the one of [`ONLY_SELECTED`].
fn read_sensors(sysfs: &Path, chips: &[Option<String>]) -> Vec<Sensor> {
    let is_selected = |chip: &str| {
        chips.iter().any(|selected| selected.as_deref().map_or(chip != ONLY_SELECTED, |selected| selected == chip))
    };
    let directories = |class: &str| {
        let entries = fs::read_dir(sysfs.join(class)).into_iter().flatten().flatten();
        let mut directories: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        // In the order of their numbers.
        directories.sort_unstable_by(|a, b| a.as_os_str().len().cmp(&b.as_os_str().len()).then_with(|| a.cmp(b)));
        directories
    };
    let mut sensors = Vec::new();
    for directory in directories("class/hwmon") {
        if let Some(chip) = read(&directory.join("name")).filter(|chip| is_selected(chip)) {
            read_chip(&directory, &chip, &mut sensors);
        }
    }
    if sensors.is_empty() {
        for directory in directories("class/thermal") {
            if let Some(zone) = read(&directory.join("type")).filter(|zone| is_selected(zone)) {
                sensors.extend(read_celsius(&directory.join("temp")).map(|celsius| (zone, celsius)));
            }
        }
    }
    sensors.retain(|(label, _)| check_label(&format!("temp:{label}#99")).is_ok());
    sensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    // Two disks of one kind have sensors of the same names: the second one's is `nvme/Composite#2`.
    let mut same = 1;
    for n in 1..sensors.len() {
        let is_same = sensors[n].0 == sensors[n - same].0;
        same = if is_same { same + 1 } else { 1 };
        if is_same {
            sensors[n].0 += &format!("#{same}");
        }
    }
    sensors
}

/// Reads the temperatures of a chip, each with its label or else its number.
fn read_chip(directory: &Path, chip: &str, sensors: &mut Vec<Sensor>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(sensor) = name.strip_suffix("_input").filter(|sensor| sensor.starts_with("temp")) else { continue };
        let file = |suffix: &str| directory.join(format!("{sensor}_{suffix}"));
        if read(&file("fault")).is_some_and(|fault| fault != "0") {
            continue;
        }
        let Some(celsius) = read_celsius(&entry.path()) else { continue };
        sensors.push((format!("{chip}/{}", read(&file("label")).unwrap_or_else(|| sensor.to_owned())), celsius));
    }
}

/// Reads thousandths of a degree. A sensor that is not there gives 0, or more or less than there can be.
fn read_celsius(path: &Path) -> Option<f64> {
    let celsius = read(path)?.parse::<f64>().ok()? / 1000.0;
    (celsius != 0.0 && (-60.0..150.0).contains(&celsius)).then(|| one_decimal(celsius))
}

/// The text of an attribute, if it has any.
fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sysfs(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = root.path().join("class").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    fn labels(root: &tempfile::TempDir, chips: &[Option<&str>]) -> Vec<Sensor> {
        read_sensors(root.path(), &chips.iter().map(|chip| chip.map(str::to_owned)).collect::<Vec<_>>())
    }

    const LAPTOP: &[(&str, &str)] = &[
        ("hwmon/hwmon0/name", "coretemp\n"),
        ("hwmon/hwmon0/temp1_input", "61000\n"),
        ("hwmon/hwmon0/temp1_label", "Package id 0\n"),
        ("hwmon/hwmon0/temp2_input", "58500\n"),
        ("hwmon/hwmon0/fan1_input", "3000\n"),
        ("hwmon/hwmon1/name", "nvme\n"),
        ("hwmon/hwmon1/temp1_input", "40850\n"),
        ("hwmon/hwmon1/temp1_label", "Composite\n"),
        ("hwmon/hwmon2/name", "nvme\n"),
        ("hwmon/hwmon2/temp1_input", "44850\n"),
        ("hwmon/hwmon2/temp1_label", "Composite\n"),
        ("hwmon/hwmon3/name", "drivetemp\n"),
        ("hwmon/hwmon3/temp1_input", "70000\n"),
        ("thermal/thermal_zone0/type", "acpitz\n"),
        ("thermal/thermal_zone0/temp", "99000\n"),
    ];

    #[test]
    fn sensors_of_one_name_are_numbered() {
        let root = sysfs(LAPTOP);
        let expected = [
            ("coretemp/Package id 0", 61.0),
            ("coretemp/temp2", 58.5),
            ("nvme/Composite", 40.9),
            ("nvme/Composite#2", 44.9),
        ];
        assert_eq!(labels(&root, &[None]), expected.map(|(label, celsius)| (label.to_owned(), celsius)));
    }

    #[test]
    fn a_disk_is_read_only_where_it_is_selected() {
        let root = sysfs(LAPTOP);
        assert_eq!(labels(&root, &[Some("drivetemp")]), [("drivetemp/temp1".to_owned(), 70.0)]);
        assert_eq!(labels(&root, &[None, Some("drivetemp")]).len(), 5);
    }

    #[test]
    fn thermal_zones_stand_in_where_there_are_no_chips() {
        let root = sysfs(&[("thermal/thermal_zone0/type", "cpu-thermal\n"), ("thermal/thermal_zone0/temp", "48312\n")]);
        assert_eq!(labels(&root, &[None]), [("cpu-thermal".to_owned(), 48.3)]);
        assert_eq!(labels(&sysfs(&[]), &[None]), []);
    }

    #[test]
    fn what_is_no_temperature_is_left_out() {
        for (value, celsius) in
            [("0", None), ("150000", None), ("-128000", None), ("hot", None), ("", None), ("-5500", Some(-5.5))]
        {
            let root = sysfs(&[("hwmon/hwmon0/name", "k10temp\n"), ("hwmon/hwmon0/temp1_input", value)]);
            assert_eq!(labels(&root, &[None]).first().map(|(_, celsius)| *celsius), celsius, "{value}");
        }
        let fault =
            [("hwmon/hwmon0/name", "a"), ("hwmon/hwmon0/temp1_input", "20000"), ("hwmon/hwmon0/temp1_fault", "1")];
        assert_eq!(labels(&sysfs(&fault), &[None]), []);
    }

    #[test]
    fn values_hold_between_readings_and_are_left_out_when_sensors_hang() {
        let (root, (release, held)) = (tempfile::tempdir().unwrap(), std::sync::mpsc::channel::<()>());
        let options = super::super::Options { probes: "temp".parse().unwrap(), ..Default::default() };
        let mut calls = 0;
        let call = BackgroundCall::start("test", move || {
            calls += 1;
            // The second reading hangs until the test releases it.
            let _ = (calls == 2).then(|| held.recv());
            vec![("chip/a".to_owned(), f64::from(calls))]
        });
        let temp = Temp { call: call.unwrap(), asked_at: None, answered_at: Duration::ZERO, sensors: None };
        let mut probes =
            super::super::Probes::new(&super::super::Options { procfs: root.path().into(), ..options }).unwrap();
        probes.probes = vec![("temp", Box::new(temp))];
        let mut read = |sec| probes.read(Duration::from_secs(sec));
        let is = |value| vec![("temp".into(), value), ("temp:chip/a".into(), value)];
        // The thread answers some time after it was asked.
        while read(1).values != is(1.0) {
            std::thread::yield_now();
        }
        assert_eq!(read(60).values, is(1.0));
        assert_eq!(read(61).values, is(1.0), "asked again, and held");
        assert_eq!(read(120).values, is(1.0));
        let hung = read(121);
        assert_eq!((hung.values.len(), &*hung.problems[0]), (0, "probe temp: the sensors do not answer"));
        drop(release);
        while read(122).values != is(2.0) {
            std::thread::yield_now();
        }
    }
}
