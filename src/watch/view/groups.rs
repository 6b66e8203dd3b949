//! What hosts are grouped by: their names, or a tag.

use crate::watch::snapshot::HostRow;

/// What the hosts are grouped by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Grouping {
    /// Their names up to a digit, a dot or a dash.
    Name,
    /// The values of a tag.
    Tag(String),
}

impl Grouping {
    /// The next one: by name, then by each key of the tags that hosts have, then none.
    pub(super) fn next<'a>(now: Option<&Self>, rows: impl Iterator<Item = &'a HostRow>) -> Option<Self> {
        let tags = rows.flat_map(|row| row.tags.keys().cloned().map(Self::Tag));
        tags.chain([Self::Name]).filter(|other| now.is_none_or(|now| other > now)).min()
    }

    /// The group of a host; empty for one without the tag.
    pub(super) fn of<'a>(&self, row: &'a HostRow) -> &'a str {
        match self {
            Self::Tag(key) => row.tags.get(key).map_or("", String::as_str),
            Self::Name => {
                let end = row.host.find(|c: char| c.is_ascii_digit() || "._-".contains(c)).filter(|end| *end > 0);
                &row.host[..end.unwrap_or(row.host.len())]
            }
        }
    }
}

/// Whether a host has a tag, `key` or `key=value`, in lower case.
pub(super) fn has_tag(row: &HostRow, wanted: &str) -> bool {
    let (key, value) = wanted.split_once('=').map_or((wanted, None), |(key, value)| (key, Some(value)));
    row.tags.iter().any(|(k, v)| k.to_lowercase() == key && value.is_none_or(|value| v.to_lowercase() == value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_grouped_by_name_and_by_each_tag() {
        let tags = [("role", "Web"), ("zone", "b")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let row = HostRow { host: "web-1".to_owned(), tags, ..HostRow::default() };
        let plain = HostRow { host: "9".to_owned(), ..HostRow::default() };
        let mut order = vec![Grouping::next(None, [&row, &plain].into_iter())];
        while let Some(now) = order.last().cloned().flatten() {
            order.push(Grouping::next(Some(&now), [&row, &plain].into_iter()));
        }
        let [role, zone] = ["role", "zone"].map(|key| Some(Grouping::Tag(key.to_owned())));
        assert_eq!(order, [Some(Grouping::Name), role.clone(), zone, None]);
        assert_eq!((Grouping::Name.of(&row), Grouping::Name.of(&plain)), ("web", "9"));
        let role = role.unwrap();
        assert_eq!((role.of(&row), role.of(&plain)), ("Web", ""));
        assert!(
            has_tag(&row, "role") && has_tag(&row, "role=web") && !has_tag(&row, "role=db") && !has_tag(&plain, "role")
        );
    }
}
