//! Lists of patterns for names: of series, of hosts, of alerts.

use std::fmt;

use crate::sample::Tags;

/// A list of patterns, of which a name must match one that is not negated, and none that is. A list of negated ones alone
/// matches all others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Globs {
    globs: Vec<Glob>,
}

/// One pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Glob {
    is_negated: bool,
    /// Behind `tag:`, of a list of hosts: it is held against their tags, `KEY=VALUE` each.
    is_tag: bool,
    pattern: Vec<Piece>,
}

/// A piece of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// This character.
    Character(char),
    /// `?`: any one character.
    One,
    /// `*`: any characters, or none.
    Any,
}

impl Globs {
    /// Adds a pattern.
    pub(super) fn push(&mut self, is_negated: bool, is_tag: bool, pattern: Vec<Piece>) {
        self.globs.push(Glob { is_negated, is_tag, pattern });
    }

    /// Whether nothing was written: all names match.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.globs.is_empty()
    }

    /// Whether a name matches.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.matches_host(name, &Tags::default())
    }

    /// Whether a host matches, by its name or by its tags.
    #[must_use]
    pub fn matches_host(&self, host: &str, tags: &Tags) -> bool {
        let matches = |glob: &Glob| match glob.is_tag {
            true => tags.as_str().split(',').any(|tag| is_like(&glob.pattern, tag)),
            false => is_like(&glob.pattern, host),
        };
        let of = |is_negated| self.globs.iter().filter(move |glob| glob.is_negated == is_negated);
        !of(true).any(matches) && (of(false).next().is_none() || of(false).any(matches))
    }

    /// Whether it is a list of names without wildcards.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        !self.is_empty() && self.literals().count() == self.globs.len()
    }

    /// The names that the list holds without a wildcard: what is expected even if it was never seen.
    pub fn literals(&self) -> impl Iterator<Item = String> {
        let name = |piece: &Piece| match piece {
            Piece::Character(character) => Some(*character),
            _ => None,
        };
        let wanted = self.globs.iter().filter(|glob| !glob.is_negated && !glob.is_tag);
        wanted.filter_map(move |glob| glob.pattern.iter().map(name).collect())
    }
}

/// As a list would be written, for messages.
impl fmt::Display for Globs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, glob) in self.globs.iter().enumerate() {
            let (comma, not) = (if place > 0 { "," } else { "" }, if glob.is_negated { "!" } else { "" });
            write!(f, "{comma}{not}{}", if glob.is_tag { "tag:" } else { "" })?;
            for piece in &glob.pattern {
                let character = match piece {
                    Piece::Character(character) => *character,
                    Piece::One => '?',
                    Piece::Any => '*',
                };
                write!(f, "{character}")?;
            }
        }
        Ok(())
    }
}

/// Whether a pattern matches all of a name. It tries a name at most once for each of its characters and pieces: a star
/// goes on where it last matched.
fn is_like(pattern: &[Piece], name: &str) -> bool {
    let (mut at, mut rest, mut star) = (0, name.chars(), None);
    loop {
        match pattern.get(at) {
            Some(Piece::Any) => {
                star = Some((at, rest.clone()));
                at += 1;
                continue;
            }
            None if rest.as_str().is_empty() => return true,
            Some(piece) => {
                let next = rest.clone().next();
                if next.is_some_and(|next| matches!(piece, Piece::One) || *piece == Piece::Character(next)) {
                    rest.next();
                    at += 1;
                    continue;
                }
            }
            None => {}
        }
        // What followed the star does not match here: the star takes one character more.
        let Some((place, tried)) = &mut star else { return false };
        if tried.next().is_none() {
            return false;
        }
        (at, rest) = (*place + 1, tried.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globs(text: &str) -> Globs {
        let mut globs = Globs::default();
        for glob in text.split(',') {
            let (is_negated, glob) = glob.strip_prefix('!').map_or((false, glob), |glob| (true, glob));
            let (is_tag, glob) = glob.strip_prefix("tag:").map_or((false, glob), |glob| (true, glob));
            let piece = |character| match character {
                '*' => Piece::Any,
                '?' => Piece::One,
                _ => Piece::Character(character),
            };
            globs.push(is_negated, is_tag, glob.chars().map(piece).collect());
        }
        globs
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, matches) in [
            ("cpu", "cpu", true),
            ("cpu", "cpu0", false),
            ("cpu?", "cpu0", true),
            ("cpu?", "cpu", false),
            ("disk:*", "disk:/var", true),
            ("disk:*", "disk", false),
            ("*", "", true),
            ("*a*b", "xaxbxb", true),
            ("*a*b", "xaxbx", false),
            ("a*?", "a", false),
            ("ä?ü", "äöü", true),
            ("web-*,!web-test", "web-1", true),
            ("web-*,!web-test", "web-test", false),
            ("!web-test", "db", true),
            ("!web-test", "web-test", false),
        ] {
            assert_eq!(globs(pattern).matches(name), matches, "{pattern} {name}");
        }
        assert!(Globs::default().matches("anything"));
    }

    #[test]
    fn tags_are_of_hosts() {
        let tags = Tags::parse("role=db,rack=7").unwrap();
        assert!(globs("tag:role=db").matches_host("x", &tags) && globs("tag:role=*").matches_host("x", &tags));
        assert!(
            !globs("tag:role=web").matches_host("x", &tags)
                && !globs("tag:role=db").matches_host("role=db", &Tags::default())
        );
        assert!(!globs("x,!tag:rack=7").matches_host("x", &tags));
    }

    #[test]
    fn a_hostile_pattern_costs_little() {
        assert!(!globs(&"*a".repeat(60)).matches(&format!("{}b", "a".repeat(250))));
    }

    #[test]
    fn literals_have_no_wildcard() {
        assert_eq!(globs("a,b*,!c,tag:d=e,f").literals().collect::<Vec<_>>(), ["a", "f"]);
    }
}
