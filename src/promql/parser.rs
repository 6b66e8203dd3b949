//! A query, read to a tree whose types fit.

use super::functions::{Aggregation, Function, Operator, OverTime};
use super::lexer::{Token, cut, tokens};
use super::regex::Regex;
use super::{Error, Labels, NAME};

/// Most bytes of a query.
const QUERY_BYTES_MAX: usize = 64 << 10;
/// Most selectors, operators and calls of a query: it bounds what evaluates the tree, which goes as deep.
const NODES_MAX: usize = 200;
/// Most regular expressions of a query: each may take a megabyte.
const REGEXES_MAX: usize = 10;
/// Most brackets within each other.
const DEPTH_MAX: usize = 50;

/// A query.
#[derive(Debug, Clone)]
pub enum Expr {
    /// A number.
    Number(f64),
    /// The series of a selector.
    Selector(Selector),
    /// A span of the series of a selector, in milliseconds: the whole of an instant query.
    Span(Selector, i64),
    /// A function of such a span.
    Over(OverTime, Selector, i64),
    /// The negative.
    Negative(Box<Expr>),
    /// A function of series, and its numbers.
    Call(Function, Vec<Expr>),
    /// One series, or a few, of many.
    Aggregate {
        /// What is computed.
        aggregation: Aggregation,
        /// How many series `topk` and `bottomk` give.
        parameter: Option<Box<Expr>>,
        /// The labels of the groups, or those that they are not by.
        labels: Vec<String>,
        /// Whether the labels are those that groups are not by.
        is_without: bool,
        /// Of what.
        of: Box<Expr>,
    },
    /// An operator between two.
    Binary {
        /// Which one.
        operator: Operator,
        /// Whether a comparison gives 0 and 1, and filters nothing.
        is_bool: bool,
        /// The left side.
        left: Box<Expr>,
        /// The right side.
        right: Box<Expr>,
    },
}

impl Expr {
    /// Whether it is one number at each time, and no series.
    #[must_use]
    pub fn is_scalar(&self) -> bool {
        match self {
            Self::Number(_) => true,
            Self::Negative(of) => of.is_scalar(),
            Self::Binary { left, right, .. } => left.is_scalar() && right.is_scalar(),
            _ => false,
        }
    }
}

/// Which series.
#[derive(Debug, Clone)]
pub struct Selector {
    /// All of them match.
    pub matchers: Vec<Matcher>,
    /// Milliseconds that it looks back from the time of the query.
    pub offset_ms: i64,
}

/// What the value of a label must be.
#[derive(Debug, Clone)]
pub struct Matcher {
    /// The label; a series that lacks it has it empty.
    pub label: String,
    value: Pattern,
    /// Whether the value must be another.
    is_negated: bool,
}

#[derive(Debug, Clone)]
enum Pattern {
    Text(String),
    Regex(Regex),
}

impl Matcher {
    /// Whether a value matches.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        let is_like = match &self.value {
            Pattern::Text(text) => text == value,
            Pattern::Regex(regex) => regex.is_match(value),
        };
        is_like != self.is_negated
    }
}

impl Selector {
    /// Whether labels match.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matchers.iter().all(|matcher| matcher.matches(labels.get(&matcher.label)))
    }

    /// Whether what matchers say of one label lets `value` pass.
    #[must_use]
    pub fn allows(&self, label: &str, value: &str) -> bool {
        self.matchers.iter().filter(|matcher| matcher.label == label).all(|matcher| matcher.matches(value))
    }
}

/// Reads a query.
///
/// # Errors
/// Where it is malformed, with the place, or uses what is not known here.
pub fn parse(query: &str) -> Result<Expr, Error> {
    if query.len() > QUERY_BYTES_MAX {
        return Err(Error::BadData(format!("invalid parameter \"query\": longer than {QUERY_BYTES_MAX} bytes")));
    }
    let mut parser = Parser { query, tokens: tokens(query)?, at: 0, nodes: 0, regexes: 0, depth: 0 };
    let expr = parser.expr(0)?;
    match parser.peek() {
        Token::End => Ok(expr),
        _ => Err(parser.unexpected("after the query")),
    }
}

/// Reads a selector of series, as `match[]` has it.
///
/// # Errors
/// Where it is none.
pub fn parse_selector(query: &str) -> Result<Selector, Error> {
    match parse(query)? {
        Expr::Selector(selector) if selector.offset_ms == 0 => Ok(selector),
        _ => Err(Error::BadData(format!("invalid parameter \"match[]\": {:?} is no series selector", cut(query)))),
    }
}

struct Parser<'a> {
    query: &'a str,
    tokens: Vec<(Token, usize)>,
    at: usize,
    nodes: usize,
    regexes: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(token, _)| token)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn takes(&mut self, sign: &str) -> bool {
        let is_next = matches!(self.peek(), Token::Sign(next) if *next == sign);
        self.at += usize::from(is_next);
        is_next
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let is_next = matches!(self.peek(), Token::Word(next) if next.eq_ignore_ascii_case(word));
        self.at += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, sign: &str, place: &str) -> Result<(), Error> {
        if self.takes(sign) { Ok(()) } else { Err(self.unexpected(&format!("{place}, expected {sign:?}"))) }
    }

    fn bad(&self, why: &str) -> Error {
        Error::bad_query(self.query, self.tokens.get(self.at).map_or(self.query.len(), |(_, at)| *at), why)
    }

    fn unexpected(&self, place: &str) -> Error {
        self.bad(&format!("unexpected {} {place}", self.peek().shown()))
    }

    fn count_node(&mut self) -> Result<(), Error> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(self.bad(&format!("more than {NODES_MAX} selectors, operators and calls, the limit")));
        }
        Ok(())
    }

    /// An expression whose operators bind at least as strongly as `least`.
    fn expr(&mut self, least: u8) -> Result<Expr, Error> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.bad(&format!("more than {DEPTH_MAX} expressions within each other, the limit")));
        }
        let mut left = self.unary()?;
        loop {
            if let Token::Word(word) = self.peek()
                && ["and", "or", "unless", "atan2"].iter().any(|known| word.eq_ignore_ascii_case(known))
            {
                return Err(Error::unknown(&format!("the operator {:?}", word.to_ascii_lowercase())));
            }
            let Token::Sign(sign) = self.peek() else { break };
            let Some(operator) = Operator::of(sign).filter(|operator| operator.strength() >= least) else { break };
            self.at += 1;
            self.count_node()?;
            let is_bool = self.takes_word("bool");
            if is_bool && !operator.is_comparison() {
                return Err(self.bad("bool modifier can only be used on comparison operators"));
            }
            if let Token::Word(word) = self.peek()
                && ["on", "ignoring", "group_left", "group_right"].iter().any(|known| word.eq_ignore_ascii_case(known))
            {
                return Err(Error::unknown(&format!("{:?}", word.to_ascii_lowercase())));
            }
            // Powers are taken from the right, others from the left.
            let right = self.expr(operator.strength() + u8::from(operator != Operator::Power))?;
            if operator.is_comparison() && !is_bool && left.is_scalar() && right.is_scalar() {
                return Err(self.bad("comparisons between scalars must use BOOL modifier"));
            }
            self.forbid_span(&left)?;
            self.forbid_span(&right)?;
            left = Expr::Binary { operator, is_bool, left: Box::new(left), right: Box::new(right) };
        }
        self.depth -= 1;
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, Error> {
        let is_negative = self.takes("-");
        if !is_negative && !self.takes("+") {
            let primary = self.primary()?;
            return self.modified(primary);
        }
        self.count_node()?;
        // A power binds more strongly than a sign.
        let of = self.expr(Operator::Power.strength())?;
        self.forbid_span(&of)?;
        Ok(if is_negative { Expr::Negative(Box::new(of)) } else { of })
    }

    fn primary(&mut self) -> Result<Expr, Error> {
        self.count_node()?;
        match self.peek().clone() {
            Token::Number(number) => {
                self.at += 1;
                Ok(Expr::Number(number))
            }
            Token::Sign("(") => {
                self.at += 1;
                let inner = self.expr(0)?;
                self.expect(")", "in parentheses")?;
                Ok(inner)
            }
            Token::Sign("{") => self.selector(None),
            Token::Word(word) => {
                self.at += 1;
                let word_lower = word.to_ascii_lowercase();
                let is_grouped = matches!(self.peek(), Token::Word(next) if is_grouping(next));
                match self.peek() {
                    _ if word_lower == "inf" => Ok(Expr::Number(f64::INFINITY)),
                    _ if word_lower == "nan" => Ok(Expr::Number(f64::NAN)),
                    Token::Sign("(") => self.call(&word_lower),
                    _ if is_grouped => self.aggregate(&word_lower),
                    _ => self.selector(Some(word)),
                }
            }
            Token::Text(_) => Err(Error::unknown("a string as an expression")),
            _ => Err(self.unexpected("in an expression")),
        }
    }

    /// The span in brackets, and the offset, behind a selector.
    fn modified(&mut self, expr: Expr) -> Result<Expr, Error> {
        let Expr::Selector(mut selector) = expr else {
            return match self.peek() {
                Token::Sign("[") => Err(Error::unknown("a subquery")),
                Token::Sign("@") => Err(Error::unknown("the modifier \"@\"")),
                Token::Word(word) if word.eq_ignore_ascii_case("offset") => {
                    Err(self.bad("offset modifier must be preceded by a selector"))
                }
                _ => Ok(expr),
            };
        };
        let mut span_ms = None;
        if self.takes("[") {
            span_ms = Some(self.span("in a range selector")?);
            if self.takes(":") {
                return Err(Error::unknown("a subquery"));
            }
            self.expect("]", "in a range selector")?;
        }
        if self.takes_word("offset") {
            let is_negative = self.takes("-");
            let offset_ms = self.span("in offset")?;
            selector.offset_ms = if is_negative { -offset_ms } else { offset_ms };
        }
        if matches!(self.peek(), Token::Sign("@")) {
            return Err(Error::unknown("the modifier \"@\""));
        }
        Ok(match span_ms {
            Some(span_ms) => Expr::Span(selector, span_ms),
            None => Expr::Selector(selector),
        })
    }

    fn span(&mut self, place: &str) -> Result<i64, Error> {
        match *self.peek() {
            Token::Span(ms) => {
                self.at += 1;
                Ok(ms)
            }
            _ => Err(self.unexpected(&format!("{place}, expected a duration such as 5m"))),
        }
    }

    fn selector(&mut self, name: Option<String>) -> Result<Expr, Error> {
        let named = |name| Matcher { label: NAME.to_owned(), value: Pattern::Text(name), is_negated: false };
        let mut matchers: Vec<Matcher> = name.map(named).into_iter().collect();
        if self.takes("{") {
            while !self.takes("}") {
                matchers.push(self.matcher()?);
                if !self.takes(",") {
                    self.expect("}", "in label matching")?;
                    break;
                }
            }
        }
        if !matchers.iter().any(|matcher| !matcher.matches("")) {
            return Err(self.bad("vector selector must contain at least one non-empty matcher"));
        }
        Ok(Expr::Selector(Selector { matchers, offset_ms: 0 }))
    }

    fn matcher(&mut self) -> Result<Matcher, Error> {
        let Token::Word(label) = self.peek().clone() else {
            return Err(self.unexpected("in label matching, expected a label"));
        };
        self.at += 1;
        let (is_negated, is_regex) = match self.peek() {
            Token::Sign("=") => (false, false),
            Token::Sign("!=") => (true, false),
            Token::Sign("=~") => (false, true),
            Token::Sign("!~") => (true, true),
            _ => return Err(self.unexpected("in label matching, expected one of = != =~ !~")),
        };
        self.at += 1;
        let Token::Text(value) = self.peek().clone() else {
            return Err(self.unexpected("in label matching, expected a string"));
        };
        let value = match is_regex {
            true => {
                self.regexes += 1;
                if self.regexes > REGEXES_MAX {
                    return Err(self.bad(&format!("more than {REGEXES_MAX} regular expressions, the limit")));
                }
                let regex = Regex::parse(&value);
                Pattern::Regex(regex.map_err(|why| self.bad(&format!("regular expression of {label}: {why}")))?)
            }
            false => Pattern::Text(value),
        };
        self.at += 1;
        Ok(Matcher { label, value, is_negated })
    }

    fn arguments(&mut self) -> Result<Vec<Expr>, Error> {
        self.expect("(", "in a call")?;
        let mut arguments = Vec::new();
        while !self.takes(")") {
            arguments.push(self.expr(0)?);
            if !self.takes(",") {
                self.expect(")", "in a call")?;
                break;
            }
        }
        Ok(arguments)
    }

    fn call(&mut self, name: &str) -> Result<Expr, Error> {
        if Aggregation::of(name).is_some() {
            return self.aggregate(name);
        }
        if let Some(function) = OverTime::of(name) {
            let mut arguments = self.arguments()?;
            return match (arguments.pop(), arguments.len()) {
                (Some(Expr::Span(selector, ms)), 0) => Ok(Expr::Over(function, selector, ms)),
                _ => Err(self.bad(&format!("expected one range vector such as cpu[5m] in call to {name}"))),
            };
        }
        let Some(function) = Function::of(name) else {
            return Err(Error::unknown(&format!("the function {:?}", cut(name))));
        };
        let arguments = self.arguments()?;
        let counts = function.arguments();
        if !counts.contains(&arguments.len()) {
            let (least, most) = (counts.start(), counts.end());
            return Err(self.bad(&format!("expected {least} to {most} arguments in call to {name}")));
        }
        let fits = arguments.iter().enumerate().all(|(place, argument)| argument.is_scalar() == (place > 0));
        if !fits {
            return Err(self.bad(&format!("expected an instant vector, and then scalars, in call to {name}")));
        }
        self.forbid_span(&arguments[0])?;
        Ok(Expr::Call(function, arguments))
    }

    fn aggregate(&mut self, name: &str) -> Result<Expr, Error> {
        let Some(aggregation) = Aggregation::of(name) else {
            return Err(Error::unknown(&format!("the aggregation {:?}", cut(name))));
        };
        let mut grouping = self.grouping()?;
        let mut arguments = self.arguments()?;
        if grouping.is_none() {
            grouping = self.grouping()?;
        }
        let (labels, is_without) = grouping.unwrap_or_default();
        let count = 1 + usize::from(aggregation.has_parameter());
        let Some(of) = arguments.pop().filter(|_| arguments.len() + 1 == count) else {
            return Err(self.bad(&format!("wrong number of arguments for aggregate expression {name}")));
        };
        self.forbid_span(&of)?;
        let parameter = arguments.pop().map(Box::new);
        if of.is_scalar() || parameter.as_ref().is_some_and(|parameter| !parameter.is_scalar()) {
            return Err(self.bad(&format!("expected an instant vector in aggregation {name}")));
        }
        Ok(Expr::Aggregate { aggregation, parameter, labels, is_without, of: Box::new(of) })
    }

    /// The labels behind `by` or `without`, and whether it is `without`.
    fn grouping(&mut self) -> Result<Option<(Vec<String>, bool)>, Error> {
        let Token::Word(word) = self.peek() else { return Ok(None) };
        if !is_grouping(word) {
            return Ok(None);
        }
        let is_without = word.eq_ignore_ascii_case("without");
        self.at += 1;
        self.expect("(", "in grouping")?;
        let mut labels = Vec::new();
        while !self.takes(")") {
            match self.next() {
                Token::Word(label) => labels.push(label),
                _ => {
                    self.at -= 1;
                    return Err(self.unexpected("in grouping, expected a label"));
                }
            }
            if !self.takes(",") {
                self.expect(")", "in grouping")?;
                break;
            }
        }
        Ok(Some((labels, is_without)))
    }

    fn forbid_span(&self, expr: &Expr) -> Result<(), Error> {
        match expr {
            Expr::Span(..) => Err(self.bad("a range vector stands only in a function such as avg_over_time")),
            _ => Ok(()),
        }
    }
}

fn is_grouping(word: &str) -> bool {
    word.eq_ignore_ascii_case("by") || word.eq_ignore_ascii_case("without")
}
