//! The two formats of `/metrics`, and how a client chooses.
//!
//! OpenMetrics 1.0 (<https://prometheus.io/docs/specs/om/open_metrics_spec/>) is the text format with counters under names
//! without `_total`, units, and an end that shows that nothing is missing.

use std::collections::HashSet;

/// The media type of OpenMetrics.
const OPENMETRICS: &str = "application/openmetrics-text";
/// The units that the end of a name can say.
const UNITS: [&str; 5] = ["seconds", "bytes", "percent", "celsius", "ratio"];

/// A format of `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus's text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The format that a client would rather have, by its `Accept` (RFC 9110, 12.5.1): OpenMetrics, where it names that
    /// with no less weight than others.
    #[must_use]
    pub fn of(accept: Option<&str>) -> Self {
        let (mut openmetrics, mut text) = (0.0, 0.0);
        for item in accept.unwrap_or_default().split(',') {
            let mut parameters = item.split(';').map(str::trim);
            let kind = parameters.next().unwrap_or_default().to_ascii_lowercase();
            let weight =
                parameters.find_map(|parameter| parameter.strip_prefix("q=")?.parse::<f32>().ok()).unwrap_or(1.0);
            let known = match kind.as_str() {
                OPENMETRICS => &mut openmetrics,
                "text/plain" | "text/*" => &mut text,
                _ => continue,
            };
            *known = weight.max(*known);
        }
        if openmetrics > 0.0 && openmetrics >= text { Self::OpenMetrics } else { Self::Text }
    }

    /// Its `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What is written as text, in this format.
    #[must_use]
    pub fn of_text(self, text: String) -> String {
        match self {
            Self::Text => text,
            Self::OpenMetrics => of_lines(&text),
        }
    }
}

fn of_lines(text: &str) -> String {
    // Only counters lose their ending: a host's own label may be a gauge of such a name.
    let counter = |line: &'_ str| Some(line.strip_prefix("# TYPE ")?.strip_suffix(" counter")?.to_owned());
    let counters: HashSet<String> = text.lines().filter_map(counter).collect();
    let mut result = String::with_capacity(text.len() + text.len() / 8);
    for line in text.lines() {
        let mut words = line.strip_prefix("# ").unwrap_or_default().splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some(word @ ("HELP" | "TYPE")), Some(name), Some(rest)) => {
                let family = name.strip_suffix("_total").filter(|_| counters.contains(name)).unwrap_or(name);
                result.extend(["# ", word, " ", family, " ", rest, "\n"]);
                let unit = family.rsplit('_').next().filter(|unit| word == "TYPE" && UNITS.contains(unit));
                unit.into_iter().for_each(|unit| result.extend(["# UNIT ", family, " ", unit, "\n"]));
            }
            _ => {
                result.push_str(line);
                result.push('\n');
            }
        }
    }
    result + "# EOF\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_chooses_the_format() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for accept in
            [prometheus, "application/openmetrics-text", "text/plain;q=0.3, Application/OpenMetrics-Text; q=0.5"]
        {
            assert_eq!(Format::of(Some(accept)), Format::OpenMetrics, "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/plain",
            "text/plain, application/openmetrics-text;q=0.9",
            "application/openmetrics-text;q=0",
        ] {
            assert_eq!(Format::of(Some(accept)), Format::Text, "{accept}");
        }
        assert_eq!(Format::of(None), Format::Text);
    }

    #[test]
    fn counters_lose_their_ending_and_units_are_named() {
        let text = "# HELP a_total Some.\n# TYPE a_total counter\na_total 1\n# HELP b_seconds Time.\n# TYPE b_seconds gauge\n\
                    b_seconds{x=\"# TYPE\"} 2\n# HELP c_total Of a host.\n# TYPE c_total gauge\nc_total 3\n";
        let expected = "# HELP a Some.\n# TYPE a counter\na_total 1\n# HELP b_seconds Time.\n# TYPE b_seconds gauge\n\
                        # UNIT b_seconds seconds\nb_seconds{x=\"# TYPE\"} 2\n# HELP c_total Of a host.\n\
                        # TYPE c_total gauge\nc_total 3\n# EOF\n";
        assert_eq!(Format::OpenMetrics.of_text(text.to_owned()), expected);
        assert_eq!(Format::Text.of_text(text.to_owned()), text);
    }
}
