//! The value of a query at each of its times.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::functions::{Aggregation, Function, Operator};
use super::reader::{Line, Reader};
use super::{Budget, Error, Expr, Labels, Selection};

pub use super::reader::{Matrix, Steps};

/// The value of a query at one time.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A number.
    Scalar(f64),
    /// A value of each series.
    Vector(Vec<(Labels, f64)>),
    /// The intervals of each series.
    Matrix(Matrix),
}

/// A part of a query at all of its times.
enum Value {
    Scalar(Vec<f64>),
    Vector(Vec<Line>),
}

/// The value of a query at one time, in milliseconds since the Unix epoch.
///
/// # Errors
/// When it cannot be evaluated here, takes too long, or the store cannot be read.
pub fn instant(expr: &Expr, time_ms: i64, selection: Selection<'_>, budget: &Budget) -> Result<Answer, Error> {
    let mut reader = Reader::new(selection, budget);
    if let Expr::Span(selector, span_ms) = expr {
        return Ok(Answer::Matrix(sorted(reader.intervals(selector, *span_ms, time_ms)?)));
    }
    match evaluate(expr, Steps::at(time_ms), &mut reader)? {
        Value::Scalar(values) => Ok(Answer::Scalar(values.first().copied().unwrap_or(f64::NAN))),
        Value::Vector(lines) => {
            let value = |line: Line| Some((line.labels, line.values.into_iter().next().flatten()?));
            let vector: Vec<_> = lines.into_iter().filter_map(value).collect();
            // The order of these says which is the first.
            let is_ordered = matches!(expr, Expr::Aggregate { aggregation, .. } if aggregation.has_parameter());
            Ok(Answer::Vector(if is_ordered { vector } else { sorted(vector) }))
        }
    }
}

/// The values of a query at each of its times.
///
/// # Errors
/// As [`instant`]; when it is a range vector.
pub fn range(expr: &Expr, steps: Steps, selection: Selection<'_>, budget: &Budget) -> Result<Matrix, Error> {
    if matches!(expr, Expr::Span(..)) {
        let why = "invalid parameter \"query\": invalid expression type \"range vector\" for range query";
        return Err(Error::BadData(why.to_owned()));
    }
    let lines = match evaluate(expr, steps, &mut Reader::new(selection, budget))? {
        Value::Scalar(values) => {
            vec![Line { labels: Labels::default(), values: values.into_iter().map(Some).collect() }]
        }
        Value::Vector(lines) => lines,
    };
    let points = |line: Line| {
        let points = steps.times().zip(line.values).filter_map(|(time_ms, value)| Some((time_ms, value?)));
        (line.labels, points.collect::<Vec<_>>())
    };
    Ok(sorted(lines.into_iter().map(points).filter(|(_, points)| !points.is_empty()).collect()))
}

fn sorted<T>(mut series: Vec<(Labels, T)>) -> Vec<(Labels, T)> {
    series.sort_by(|(one, _), (other, _)| one.cmp(other));
    series
}

fn evaluate(expr: &Expr, steps: Steps, reader: &mut Reader<'_>) -> Result<Value, Error> {
    reader.budget().check()?;
    let count = usize::try_from(steps.count).unwrap_or(0);
    match expr {
        Expr::Number(number) => Ok(Value::Scalar(vec![*number; count])),
        Expr::Selector(selector) => reader.lines(selector, steps).map(Value::Vector),
        Expr::Span(..) => Err(Error::unknown("a range vector that stands alone within a query")),
        Expr::Over(function, selector, span_ms) => {
            let lines = reader.lines_over(*function, selector, *span_ms, steps)?;
            match function {
                super::functions::OverTime::Last => Ok(Value::Vector(lines)),
                _ => nameless(lines).map(Value::Vector),
            }
        }
        Expr::Negative(of) => match evaluate(of, steps, reader)? {
            Value::Scalar(values) => Ok(Value::Scalar(values.into_iter().map(|value| -value).collect())),
            Value::Vector(mut lines) => {
                each_value(&mut lines, |_, value| Some(-value));
                nameless(lines).map(Value::Vector)
            }
        },
        Expr::Call(function, arguments) => call(*function, arguments, steps, reader).map(Value::Vector),
        Expr::Aggregate { aggregation, parameter, labels, is_without, of } => {
            let numbers = parameter.as_ref().map(|of| scalar(of, steps, reader)).transpose()?;
            let lines = vector(of, steps, reader)?;
            let group = |line: &Line| line.labels.grouped(labels, *is_without);
            Ok(Value::Vector(match numbers {
                Some(numbers) => ranked(*aggregation, &numbers, lines, group),
                None => aggregate(*aggregation, lines, count, group),
            }))
        }
        Expr::Binary { operator, is_bool, left, right } => {
            let (left, right) = (evaluate(left, steps, reader)?, evaluate(right, steps, reader)?);
            reader.budget().check()?;
            binary(*operator, *is_bool, left, right)
        }
    }
}

/// The values of an expression that the parser knows to be a number.
fn scalar(expr: &Expr, steps: Steps, reader: &mut Reader<'_>) -> Result<Vec<f64>, Error> {
    match evaluate(expr, steps, reader)? {
        Value::Scalar(values) => Ok(values),
        Value::Vector(_) => Err(Error::unknown("a vector in the place of a scalar")),
    }
}

/// The series of an expression that the parser knows to be none.
fn vector(expr: &Expr, steps: Steps, reader: &mut Reader<'_>) -> Result<Vec<Line>, Error> {
    match evaluate(expr, steps, reader)? {
        Value::Vector(lines) => Ok(lines),
        Value::Scalar(_) => Err(Error::unknown("a scalar in the place of a vector")),
    }
}

/// Puts another value in the place of each, or none. `of` is told at which time it is.
fn each_value(lines: &mut [Line], of: impl Fn(usize, f64) -> Option<f64>) {
    for line in lines {
        for (step, value) in line.values.iter_mut().enumerate() {
            *value = value.and_then(|value| of(step, value));
        }
    }
}

/// The same series without the names of their metrics: what was computed is another thing.
fn nameless(lines: Vec<Line>) -> Result<Vec<Line>, Error> {
    let rename = |line: Line| Line { labels: line.labels.without_name(), ..line };
    let lines: Vec<Line> = lines.into_iter().map(rename).collect();
    let mut seen = HashSet::new();
    match lines.iter().all(|line| seen.insert(&line.labels)) {
        true => Ok(lines),
        false => Err(Error::Execution("vector cannot contain metrics with the same labelset".to_owned())),
    }
}

fn call(function: Function, arguments: &[Expr], steps: Steps, reader: &mut Reader<'_>) -> Result<Vec<Line>, Error> {
    let Some((of, numbers)) = arguments.split_first() else { return Ok(Vec::new()) };
    let mut lines = vector(of, steps, reader)?;
    let numbers = numbers.first().map(|of| scalar(of, steps, reader)).transpose()?;
    each_value(&mut lines, |step, value| {
        let number = numbers.as_ref().and_then(|numbers| numbers.get(step).copied());
        Some(function.apply(value, number))
    });
    nameless(lines)
}

fn groups(lines: Vec<Line>, group: impl Fn(&Line) -> Labels) -> BTreeMap<Labels, Vec<Line>> {
    let mut groups: BTreeMap<Labels, Vec<Line>> = BTreeMap::new();
    for line in lines {
        groups.entry(group(&line)).or_default().push(line);
    }
    groups
}

fn aggregate(aggregation: Aggregation, lines: Vec<Line>, count: usize, group: impl Fn(&Line) -> Labels) -> Vec<Line> {
    let of_group = |(labels, lines): (Labels, Vec<Line>)| {
        let at = |step: usize| aggregation.of_values(lines.iter().filter_map(|line| line.values.get(step).copied()?));
        Line { labels, values: (0..count).map(at).collect() }
    };
    groups(lines, group).into_iter().map(of_group).collect()
}

/// The first series of each group at each time; at the last time they are in order.
fn ranked(aggregation: Aggregation, numbers: &[f64], lines: Vec<Line>, group: impl Fn(&Line) -> Labels) -> Vec<Line> {
    let mut first = Vec::new();
    for mut lines in groups(lines, group).into_values() {
        let mut ranks: Vec<usize> = (0..lines.len()).collect();
        for (step, number) in numbers.iter().enumerate() {
            let value = |place: &usize| lines[*place].values[step];
            // What is no number comes last.
            let key = |place: &usize| match value(place) {
                Some(value) if !value.is_nan() && aggregation == Aggregation::Top => -value,
                Some(value) if !value.is_nan() => value,
                _ => f64::INFINITY,
            };
            ranks.sort_by(|one, other| key(one).total_cmp(&key(other)));
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast saturates")]
            let wanted = number.trunc() as usize;
            let out: Vec<usize> = ranks.iter().filter(|place| value(place).is_some()).skip(wanted).copied().collect();
            out.into_iter().for_each(|place| lines[place].values[step] = None);
        }
        let mut ordered: Vec<(usize, Line)> = lines.into_iter().enumerate().collect();
        ordered.sort_by_key(|(place, _)| ranks.iter().position(|rank| rank == place));
        first.extend(ordered.into_iter().map(|(_, line)| line));
    }
    first.retain(|line| line.values.iter().any(Option::is_some));
    first
}

fn binary(operator: Operator, is_bool: bool, left: Value, right: Value) -> Result<Value, Error> {
    let is_filter = operator.is_comparison() && !is_bool;
    let keep_or_drop = |lines: Vec<Line>| match is_filter {
        true => Ok(Value::Vector(lines)),
        false => nameless(lines).map(Value::Vector),
    };
    // A filter keeps the value of `kept`.
    let result = |left: f64, right: f64, kept: f64| match operator.of_two(left, right) {
        0.0 if is_filter => None,
        _ if is_filter => Some(kept),
        result => Some(result),
    };
    match (left, right) {
        (Value::Scalar(left), Value::Scalar(right)) => {
            Ok(Value::Scalar(left.iter().zip(&right).map(|(left, right)| operator.of_two(*left, *right)).collect()))
        }
        (Value::Vector(mut lines), Value::Scalar(right)) => {
            each_value(&mut lines, |step, left| result(left, right[step], left));
            keep_or_drop(lines)
        }
        (Value::Scalar(left), Value::Vector(mut lines)) => {
            each_value(&mut lines, |step, right| result(left[step], right, right));
            keep_or_drop(lines)
        }
        (Value::Vector(mut left), Value::Vector(right)) => {
            let mut others = HashMap::new();
            for line in &right {
                if others.insert(line.labels.clone().without_name(), line).is_some() {
                    return Err(many("right"));
                }
            }
            let mut seen = HashSet::new();
            for line in &mut left {
                let labels = line.labels.clone().without_name();
                let other = others.get(&labels);
                if other.is_some() && !seen.insert(labels) {
                    return Err(many("left"));
                }
                for (step, value) in line.values.iter_mut().enumerate() {
                    let two = value.zip(other.and_then(|other| other.values[step]));
                    *value = two.and_then(|(left, right)| result(left, right, left));
                }
            }
            left.retain(|line| line.values.iter().any(Option::is_some));
            keep_or_drop(left)
        }
    }
}

fn many(side: &str) -> Error {
    Error::Execution(format!(
        "query: several series of the {side} side have the same labels but for the name; only one to one is known here"
    ))
}
