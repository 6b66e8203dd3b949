//! Regular expressions of matchers: the part of RE2's syntax that Grafana writes and people type, always against the whole
//! text. No expression takes longer than its length times that of the text: all places that may match go on together.

use std::iter::Peekable;
use std::str::Chars;

/// Most steps of an expression, each a character or a choice: a list of some hundred hosts fits.
const STEPS_MAX: usize = 20_000;
/// Most groups within each other.
const DEPTH_MAX: usize = 32;
/// The greatest number of a repetition, as RE2 has it.
const REPEAT_MAX: usize = 1000;

/// A regular expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Regex {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    /// Takes one character.
    Take(Class),
    /// Goes on at both places.
    Split(usize, usize),
    Jump(usize),
    /// Goes on at the start of the text alone.
    Start,
    /// Goes on at its end alone.
    End,
    Match,
}

/// A set of characters.
#[derive(Debug, Clone, PartialEq)]
struct Class {
    ranges: Vec<(char, char)>,
    is_negated: bool,
}

impl Class {
    fn of(ranges: &[(char, char)]) -> Self {
        Self { ranges: ranges.to_vec(), is_negated: false }
    }

    fn has(&self, character: char) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&character)) != self.is_negated
    }

    /// The same without regard to the case of ASCII letters.
    fn without_case(mut self) -> Self {
        for (first, last) in self.ranges.clone() {
            for (low, high, other) in [('a', 'z', 'A'), ('A', 'Z', 'a')] {
                let (low_of, high_of) = (first.max(low), last.min(high));
                if low_of <= high_of {
                    let other = |c: char| char::from_u32(other as u32 + (c as u32 - low as u32)).unwrap_or(c);
                    self.ranges.push((other(low_of), other(high_of)));
                }
            }
        }
        self
    }
}

/// The syntax of an expression.
enum Node {
    Class(Class),
    Start,
    End,
    All(Vec<Node>),
    Any(Vec<Node>),
    Repeat { node: Box<Node>, least: usize, most: Option<usize> },
}

impl Regex {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong with it, or not known here.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { rest: text.chars().peekable(), depth: 0, ignores_case: false };
        let node = parser.alternatives()?;
        if parser.rest.next().is_some() {
            return Err("a ')' without its '('".to_owned());
        }
        let mut steps = Vec::new();
        compile(&node, &mut steps)?;
        steps.push(Step::Match);
        Ok(Self { steps })
    }

    /// Whether all of `text` matches.
    pub(super) fn is_match(&self, text: &str) -> bool {
        let (mut now, mut next) = (Threads::new(self.steps.len()), Threads::new(self.steps.len()));
        now.add(&self.steps, 0, true, text.is_empty());
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            let is_end = characters.as_str().is_empty();
            next.clear();
            for at in &now.takers {
                if matches!(&self.steps[*at], Step::Take(class) if class.has(character)) {
                    next.add(&self.steps, at + 1, false, is_end);
                }
            }
            std::mem::swap(&mut now, &mut next);
            if now.takers.is_empty() && !now.is_matched {
                return false;
            }
        }
        now.is_matched
    }
}

/// The places of an expression that go on with the next character.
struct Threads {
    takers: Vec<usize>,
    is_matched: bool,
    /// The round in which each step was reached last.
    seen: Vec<usize>,
    round: usize,
    stack: Vec<usize>,
}

impl Threads {
    fn new(steps: usize) -> Self {
        Self { takers: Vec::new(), is_matched: false, seen: vec![0; steps], round: 1, stack: Vec::new() }
    }

    fn clear(&mut self) {
        self.takers.clear();
        self.is_matched = false;
        self.round += 1;
    }

    /// Follows all steps from `at` that take nothing.
    fn add(&mut self, steps: &[Step], at: usize, is_start: bool, is_end: bool) {
        self.stack.push(at);
        while let Some(at) = self.stack.pop() {
            if std::mem::replace(&mut self.seen[at], self.round) == self.round {
                continue;
            }
            match &steps[at] {
                Step::Take(_) => self.takers.push(at),
                Step::Split(one, other) => self.stack.extend([*one, *other]),
                Step::Jump(to) => self.stack.push(*to),
                Step::Start if is_start => self.stack.push(at + 1),
                Step::End if is_end => self.stack.push(at + 1),
                Step::Start | Step::End => {}
                Step::Match => self.is_matched = true,
            }
        }
    }
}

fn compile(node: &Node, steps: &mut Vec<Step>) -> Result<(), String> {
    if steps.len() >= STEPS_MAX {
        return Err(format!("more than {STEPS_MAX} characters and choices, the limit"));
    }
    match node {
        Node::Class(class) => steps.push(Step::Take(class.clone())),
        Node::Start => steps.push(Step::Start),
        Node::End => steps.push(Step::End),
        Node::All(nodes) => nodes.iter().try_for_each(|node| compile(node, steps))?,
        Node::Any(nodes) => {
            let (mut jumps, last) = (Vec::new(), nodes.len() - 1);
            for (place, node) in nodes.iter().enumerate() {
                let split = steps.len();
                if place < last {
                    steps.push(Step::Split(split + 1, 0));
                }
                compile(node, steps)?;
                if place < last {
                    jumps.push(steps.len());
                    steps.push(Step::Jump(0));
                    steps[split] = Step::Split(split + 1, steps.len());
                }
            }
            let end = steps.len();
            jumps.into_iter().for_each(|jump| steps[jump] = Step::Jump(end));
        }
        Node::Repeat { node, least, most } => {
            for _ in 0..*least {
                let before = steps.len();
                compile(node, steps)?;
                if steps.len() == before {
                    return Ok(());
                }
            }
            let Some(most) = most else {
                let split = steps.len();
                steps.push(Step::Split(split + 1, 0));
                compile(node, steps)?;
                steps.push(Step::Jump(split));
                steps[split] = Step::Split(split + 1, steps.len());
                return Ok(());
            };
            let mut splits = Vec::new();
            for _ in *least..*most {
                splits.push(steps.len());
                steps.push(Step::Split(0, 0));
                compile(node, steps)?;
            }
            let end = steps.len();
            splits.into_iter().for_each(|split| steps[split] = Step::Split(split + 1, end));
        }
    }
    Ok(())
}

struct Parser<'a> {
    rest: Peekable<Chars<'a>>,
    depth: usize,
    ignores_case: bool,
}

impl Parser<'_> {
    fn takes(&mut self, character: char) -> bool {
        self.rest.next_if_eq(&character).is_some()
    }

    fn alternatives(&mut self) -> Result<Node, String> {
        let mut nodes = vec![self.sequence()?];
        while self.takes('|') {
            nodes.push(self.sequence()?);
        }
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::Any(nodes) })
    }

    fn sequence(&mut self) -> Result<Node, String> {
        let mut nodes = Vec::new();
        while let Some(character) = self.rest.next_if(|next| !matches!(next, '|' | ')')) {
            let Some(node) = self.atom(character)? else { continue };
            nodes.push(self.repeated(node)?);
        }
        Ok(Node::All(nodes))
    }

    /// One character, class or group; `None` for flags.
    fn atom(&mut self, character: char) -> Result<Option<Node>, String> {
        let node = match character {
            '(' => return self.group(),
            '[' => Node::Class(self.class()?),
            '.' => Node::Class(Class { ranges: vec![('\n', '\n')], is_negated: true }),
            '^' => Node::Start,
            '$' => Node::End,
            '\\' => self.escape()?,
            '*' | '+' | '?' => return Err(format!("nothing stands before a '{character}'")),
            literal => Node::Class(Class::of(&[(literal, literal)])),
        };
        Ok(Some(match node {
            Node::Class(class) if self.ignores_case => Node::Class(class.without_case()),
            node => node,
        }))
    }

    fn group(&mut self) -> Result<Option<Node>, String> {
        if self.takes('?') {
            let mut flags = String::new();
            while let Some(flag) = self.rest.next_if(|next| !matches!(next, ')' | ':')) {
                flags.push(flag);
            }
            match (flags.as_str(), self.rest.peek()) {
                ("i", Some(')')) => {
                    self.ignores_case = true;
                    self.rest.next();
                    return Ok(None);
                }
                ("" | "s", Some(')')) => {
                    self.rest.next();
                    return Ok(None);
                }
                ("", Some(':')) => self.rest.next(),
                _ => return Err(format!("(?{} is not known here", flags.chars().take(20).collect::<String>())),
            };
        }
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("more than {DEPTH_MAX} groups within each other, the limit"));
        }
        let (ignored_case, node) = (self.ignores_case, self.alternatives()?);
        (self.depth, self.ignores_case) = (self.depth - 1, ignored_case);
        if !self.takes(')') {
            return Err("a '(' without its ')'".to_owned());
        }
        Ok(Some(node))
    }

    fn repeated(&mut self, node: Node) -> Result<Node, String> {
        let (least, most) = match self.rest.peek() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            Some('{') => {
                let text: String = self.rest.clone().skip(1).take_while(|c| *c != '}').take(10).collect();
                let is_closed = self.rest.clone().nth(1 + text.chars().count()) == Some('}');
                // As RE2 has it, a brace that is no repetition stands for itself.
                let Some(counts) = counts(&text).filter(|_| is_closed) else { return Ok(node) };
                self.rest.nth(text.len());
                counts
            }
            _ => return Ok(node),
        };
        self.rest.next();
        // Whether as much or as little as possible is taken does not matter to the whole text.
        self.takes('?');
        if least > REPEAT_MAX || most.is_some_and(|most| most > REPEAT_MAX || most < least) {
            return Err(format!("a repetition that is not up to {REPEAT_MAX}"));
        }
        if matches!(self.rest.peek(), Some('*' | '+' | '?')) {
            return Err("a repetition of a repetition".to_owned());
        }
        Ok(Node::Repeat { node: Box::new(node), least, most })
    }

    fn escape(&mut self) -> Result<Node, String> {
        let escaped = self.rest.next().ok_or("a '\\' at the end")?;
        let class = match perl_class(escaped) {
            Some(class) => class,
            None if escaped == 'A' => return Ok(Node::Start),
            None if escaped == 'z' => return Ok(Node::End),
            None => {
                let literal = literal(escaped)?;
                Class::of(&[(literal, literal)])
            }
        };
        Ok(Node::Class(class))
    }

    fn class(&mut self) -> Result<Class, String> {
        const OPEN: &str = "a '[' without its ']'";
        let mut class = Class { ranges: Vec::new(), is_negated: self.takes('^') };
        loop {
            let first = match self.rest.next().ok_or(OPEN)? {
                ']' if !class.ranges.is_empty() => return Ok(class),
                '[' if self.rest.peek() == Some(&':') => return Err("[[:…:]] is not known here".to_owned()),
                '\\' => {
                    let escaped = self.rest.next().ok_or(OPEN)?;
                    if let Some(perl) = perl_class(escaped) {
                        if perl.is_negated {
                            return Err(format!("\\{escaped} within [] is not known here"));
                        }
                        class.ranges.extend(perl.ranges);
                        continue;
                    }
                    literal(escaped)?
                }
                other => other,
            };
            let is_range = self.rest.peek() == Some(&'-') && self.rest.clone().nth(1).is_some_and(|next| next != ']');
            if !is_range {
                class.ranges.push((first, first));
                continue;
            }
            self.rest.next();
            let last = match self.rest.next().ok_or(OPEN)? {
                '\\' => literal(self.rest.next().ok_or(OPEN)?)?,
                other => other,
            };
            if last < first {
                return Err(format!("the range {first}-{last}"));
            }
            class.ranges.push((first, last));
        }
    }
}

/// The numbers of a repetition, without its braces.
fn counts(text: &str) -> Option<(usize, Option<usize>)> {
    let (least, most) = text.split_once(',').map_or((text, Some(text)), |(least, most)| (least, Some(most)));
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let most = most.filter(|most| !most.is_empty());
    Some((
        number(least)?,
        match most {
            Some(most) => Some(number(most)?),
            None => None,
        },
    ))
}

/// The classes of one letter.
fn perl_class(letter: char) -> Option<Class> {
    let ranges: &[(char, char)] = match letter.to_ascii_lowercase() {
        'd' => &[('0', '9')],
        'w' => &[('0', '9'), ('A', 'Z'), ('a', 'z'), ('_', '_')],
        's' => &[('\t', '\n'), ('\x0c', '\r'), (' ', ' ')],
        _ => return None,
    };
    Some(Class { ranges: ranges.to_vec(), is_negated: letter.is_ascii_uppercase() })
}

/// The character behind a backslash.
fn literal(escaped: char) -> Result<char, String> {
    match escaped {
        'n' => Ok('\n'),
        't' => Ok('\t'),
        'r' => Ok('\r'),
        punctuation if !punctuation.is_alphanumeric() => Ok(punctuation),
        other => Err(format!("\\{other} is not known here")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_expression_matches_whole_texts() {
        for (expression, yes, no) in [
            ("", &[""][..], &["a"][..]),
            ("a", &["a"], &["", "aa", "ba"]),
            (".*", &["", "ä", "abc"], &["a\nb"]),
            (".+", &["a"], &[""]),
            ("web-.*|db", &["web-", "web-1", "db"], &["db1", "xweb-1"]),
            ("web-[0-9]+", &["web-1", "web-123"], &["web-", "web-a"]),
            ("web-\\d{1,2}", &["web-1", "web-12"], &["web-", "web-123"]),
            ("a{2}", &["aa"], &["a", "aaa"]),
            ("a{2,}b?", &["aa", "aaab"], &["a", "abb"]),
            ("a{,2}", &["a{,2}"], &["aa"]),
            ("(?:a|b)*c", &["c", "abac"], &["ab"]),
            ("(a|)b", &["ab", "b"], &["a"]),
            ("^web$", &["web"], &["web1"]),
            ("a^b", &[], &["ab"]),
            ("(?i)WEB[a-c]", &["webA", "Webc"], &["webd"]),
            ("10\\.0\\.0\\.1", &["10.0.0.1"], &["10a0.0.1"]),
            ("[^/]+", &["a-b"], &["a/b"]),
            ("[]a-]+", &["]", "a-"], &["b"]),
            ("[\\w.]+?", &["a.b_1"], &["a b"]),
            ("\\S\\s\\S", &["a b"], &["aab"]),
            ("größe.", &["größe1"], &["grosse1"]),
            ("(a*)*", &["", "aaa"], &["b"]),
            ("a||b", &["a", "", "b"], &["c"]),
        ] {
            let regex = Regex::parse(expression).unwrap();
            assert!(yes.iter().all(|text| regex.is_match(text)), "{expression}: {yes:?}");
            assert!(!no.iter().any(|text| regex.is_match(text)), "{expression}: {no:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (expression, why) in [
            ("(a", "a '(' without its ')'"),
            ("a)", "a ')' without its '('"),
            ("[a", "a '[' without its ']'"),
            ("*a", "nothing stands before a '*'"),
            ("a**", "a repetition of a repetition"),
            ("[b-a]", "the range b-a"),
            ("a{1001}", "a repetition that is not up to 1000"),
            ("a{3,2}", "a repetition that is not up to 1000"),
            ("(a{1000}){1000}", "more than 20000 characters and choices, the limit"),
            ("(?P<n>a)", "(?P<n>a is not known here"),
            ("\\ba", "\\b is not known here"),
            ("\\pL", "\\p is not known here"),
            ("a\\", "a '\\' at the end"),
            (&"(".repeat(40), "more than 32 groups within each other, the limit"),
        ] {
            assert_eq!(Regex::parse(expression), Err(why.to_owned()), "{expression}");
        }
    }

    #[test]
    fn nested_repetitions_end() {
        let regex = Regex::parse("((((a*)*)*)*)*b").unwrap();
        assert!(!regex.is_match(&"a".repeat(10_000)));
        let empty = Regex::parse("((((){1000}){1000}){1000}){1000}").unwrap();
        assert!(empty.is_match("") && !empty.is_match("a"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(expression in "[ab|*+?(){},\\[\\]\\\\^$.0-9-]{0,20}|\\PC{0,20}", text in "[ab]{0,8}") {
            if let Ok(regex) = Regex::parse(&expression) {
                regex.is_match(&text);
            }
        }

        #[test]
        fn an_escaped_text_matches_itself(text in "[ -~ä]{0,20}", other in "[ -~ä]{0,20}") {
            let escaped: String = text.chars().map(|c| if c.is_alphanumeric() { c.to_string() } else { format!("\\{c}") }).collect();
            let regex = Regex::parse(&escaped).unwrap();
            prop_assert!(regex.is_match(&text));
            prop_assert_eq!(regex.is_match(&other), text == other);
        }
    }
}
