//! The units of labels, one table for the terminal, the page and the metrics. `src/dashboard/units.js` has the same; a
//! test holds both together.

/// What the values of a label are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Percent, between 0 and 100.
    Percent,
    /// Bytes a second.
    BytesPerSec,
    /// Bytes.
    Bytes,
    /// Degrees Celsius.
    Celsius,
    /// Seconds of something short.
    Seconds,
    /// Seconds that are read as days and hours.
    Time,
    /// A number without a unit.
    None,
}

impl Unit {
    /// The symbol behind a number; nothing for [`Unit::Time`] and [`Unit::None`].
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Percent => "%",
            Self::BytesPerSec => "B/s",
            Self::Bytes => "B",
            Self::Celsius => "°C",
            Self::Seconds => "s",
            Self::Time | Self::None => "",
        }
    }

    /// Its name as Prometheus writes units; nothing for [`Unit::None`].
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Percent => "percent",
            Self::BytesPerSec => "bytes_per_second",
            Self::Bytes => "bytes",
            Self::Celsius => "celsius",
            Self::Seconds | Self::Time => "seconds",
            Self::None => "",
        }
    }
}

/// Patterns of the stem of a label, with `*` at one end, and units. The first that matches counts. The endings with an
/// underscore are those of Prometheus.
const UNITS: [(&str, Unit); 23] = [
    ("*-read", Unit::BytesPerSec),
    ("*-write", Unit::BytesPerSec),
    ("net-*", Unit::BytesPerSec),
    ("*-free", Unit::Bytes),
    ("cpu*", Unit::Percent),
    ("mem", Unit::Percent),
    ("swap", Unit::Percent),
    ("disk", Unit::Percent),
    ("inodes", Unit::Percent),
    ("pressure*", Unit::Percent),
    ("temp*", Unit::Celsius),
    ("gpu-temp", Unit::Celsius),
    ("gpu*", Unit::Percent),
    ("*-cpu", Unit::Percent),
    ("*-mem", Unit::Bytes),
    ("*-net-in", Unit::BytesPerSec),
    ("*-net-out", Unit::BytesPerSec),
    ("zfs-arc", Unit::Bytes),
    ("uptime", Unit::Time),
    ("*_seconds", Unit::Seconds),
    ("*_bytes", Unit::Bytes),
    ("*_percent", Unit::Percent),
    ("*_total", Unit::None),
];

/// The unit of a label, by its stem: the part before a colon or a comma.
#[must_use]
pub fn unit_of(label: &str) -> Unit {
    let stem = label.split([':', ',']).next().unwrap_or_default();
    UNITS.iter().find(|(pattern, _)| is_like(pattern, stem)).map_or(Unit::None, |(_, unit)| *unit)
}

/// Whether a stem is like a pattern, which has `*` at one end or nowhere.
pub(crate) fn is_like(pattern: &str, stem: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(end), _) => stem.ends_with(end),
        (_, Some(start)) => stem.starts_with(start),
        _ => stem == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_has_the_unit_of_its_stem() {
        for (label, unit) in [
            ("cpu", Unit::Percent),
            ("cpu-user", Unit::Percent),
            ("disk:/var", Unit::Percent),
            ("disk-read", Unit::BytesPerSec),
            ("disk-write:sda", Unit::BytesPerSec),
            ("net-in:eth0", Unit::BytesPerSec),
            ("disk-free:/", Unit::Bytes),
            ("temp:coretemp/Core 0", Unit::Celsius),
            ("gpu-temp:1", Unit::Celsius),
            ("gpu-mem:1", Unit::Percent),
            ("top-cpu:cc1", Unit::Percent),
            ("procs-mem:*nginx*", Unit::Bytes),
            ("container-net-in:web", Unit::BytesPerSec),
            ("pressure-mem", Unit::Percent),
            ("uptime", Unit::Time),
            ("request_seconds,path=/", Unit::Seconds),
            ("load1", Unit::None),
            ("memory", Unit::None),
            ("disk.used,path=/var", Unit::None),
        ] {
            assert_eq!(unit_of(label), unit, "{label}");
        }
    }

    #[test]
    fn the_page_has_the_same_table() {
        let page = include_str!("dashboard/units.js");
        let table = page.split("const UNITS = [").nth(1).and_then(|rest| rest.split("];").next()).unwrap();
        let rows: Vec<&str> = table.split('[').skip(1).map(|row| row.split(']').next().unwrap()).collect();
        let symbol = |unit: Unit| if unit == Unit::Time { "time" } else { unit.symbol() };
        let expected: Vec<String> =
            UNITS.iter().map(|(pattern, unit)| format!("\"{pattern}\", \"{}\"", symbol(*unit))).collect();
        assert_eq!(rows, expected);
    }
}
