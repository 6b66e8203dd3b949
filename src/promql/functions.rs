//! What is computed: operators, functions and aggregations, on numbers.

use std::ops::RangeInclusive;

use crate::summary::Bucket;

/// An operator between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`, with the sign of the left side
    Remainder,
    /// `^`
    Power,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
}

impl Operator {
    pub(super) fn of(sign: &str) -> Option<Self> {
        Some(match sign {
            "+" => Self::Add,
            "-" => Self::Subtract,
            "*" => Self::Multiply,
            "/" => Self::Divide,
            "%" => Self::Remainder,
            "^" => Self::Power,
            "==" => Self::Equal,
            "!=" => Self::NotEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            _ => return None,
        })
    }

    /// How strongly it binds.
    pub(super) fn strength(self) -> u8 {
        match self {
            Self::Power => 4,
            Self::Multiply | Self::Divide | Self::Remainder => 3,
            Self::Add | Self::Subtract => 2,
            _ => 1,
        }
    }

    pub(super) fn is_comparison(self) -> bool {
        self.strength() == 1
    }

    /// The result of arithmetic; of a comparison 1 or 0.
    pub(super) fn of_two(self, left: f64, right: f64) -> f64 {
        let truth = |is_true: bool| f64::from(u8::from(is_true));
        match self {
            Self::Add => left + right,
            Self::Subtract => left - right,
            Self::Multiply => left * right,
            Self::Divide => left / right,
            Self::Remainder => left % right,
            Self::Power => left.powf(right),
            #[expect(clippy::float_cmp, reason = "this is what == says")]
            Self::Equal => truth(left == right),
            #[expect(clippy::float_cmp, reason = "this is what != says")]
            Self::NotEqual => truth(left != right),
            Self::Greater => truth(left > right),
            Self::GreaterOrEqual => truth(left >= right),
            Self::Less => truth(left < right),
            Self::LessOrEqual => truth(left <= right),
        }
    }
}

/// A function of each series, with numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// `abs(v)`
    Abs,
    /// `ceil(v)`
    Ceil,
    /// `floor(v)`
    Floor,
    /// `round(v, to)`, halves up
    Round,
    /// `clamp_min(v, least)`
    ClampMin,
    /// `clamp_max(v, most)`
    ClampMax,
}

impl Function {
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "abs" => Self::Abs,
            "ceil" => Self::Ceil,
            "floor" => Self::Floor,
            "round" => Self::Round,
            "clamp_min" => Self::ClampMin,
            "clamp_max" => Self::ClampMax,
            _ => return None,
        })
    }

    /// How many arguments it takes.
    pub(super) fn arguments(self) -> RangeInclusive<usize> {
        match self {
            Self::Abs | Self::Ceil | Self::Floor => 1..=1,
            Self::Round => 1..=2,
            Self::ClampMin | Self::ClampMax => 2..=2,
        }
    }

    pub(super) fn apply(self, value: f64, number: Option<f64>) -> f64 {
        let is_nan = value.is_nan() || number.is_some_and(f64::is_nan);
        match (self, number) {
            (Self::Abs, _) => value.abs(),
            (Self::Ceil, _) => value.ceil(),
            (Self::Floor, _) => value.floor(),
            (Self::Round, to) => {
                // As Prometheus has it, so that a tenth is one tenth and not a sum of ten-thousandths.
                let inverse = 1.0 / to.unwrap_or(1.0);
                (value * inverse + 0.5).floor() / inverse
            }
            (Self::ClampMin | Self::ClampMax, _) if is_nan => f64::NAN,
            (Self::ClampMin, number) => value.max(number.unwrap_or(value)),
            (Self::ClampMax, number) => value.min(number.unwrap_or(value)),
        }
    }
}

/// A function of what a span of a series holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverTime {
    /// The mean of all samples.
    Avg,
    /// The least sample.
    Min,
    /// The greatest sample.
    Max,
    /// The sum of all samples.
    Sum,
    /// How many samples there are.
    Count,
    /// The newest interval.
    Last,
}

impl OverTime {
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "avg_over_time" => Self::Avg,
            "min_over_time" => Self::Min,
            "max_over_time" => Self::Max,
            "sum_over_time" => Self::Sum,
            "count_over_time" => Self::Count,
            "last_over_time" => Self::Last,
            _ => return None,
        })
    }

    /// The value of merged samples.
    pub(super) fn of_bucket(self, bucket: Bucket) -> f64 {
        match self {
            Self::Avg | Self::Last => bucket.mean(),
            Self::Min => bucket.min,
            Self::Max => bucket.max,
            Self::Sum => bucket.sum,
            Self::Count => f64::from(bucket.count),
        }
    }
}

/// One series, or a few, of many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregation {
    /// `sum`
    Sum,
    /// `avg`
    Avg,
    /// `min`
    Min,
    /// `max`
    Max,
    /// `count`
    Count,
    /// `topk(k, v)`
    Top,
    /// `bottomk(k, v)`
    Bottom,
}

impl Aggregation {
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "sum" => Self::Sum,
            "avg" => Self::Avg,
            "min" => Self::Min,
            "max" => Self::Max,
            "count" => Self::Count,
            "topk" => Self::Top,
            "bottomk" => Self::Bottom,
            _ => return None,
        })
    }

    pub(super) fn has_parameter(self) -> bool {
        matches!(self, Self::Top | Self::Bottom)
    }

    /// The value of a group; `None` where it has none.
    pub(super) fn of_values(self, values: impl Iterator<Item = f64>) -> Option<f64> {
        let (mut count, mut result) = (0.0, 0.0);
        for value in values {
            let is_first = count == 0.0;
            count += 1.0;
            result = match self {
                Self::Min if is_first || value < result || result.is_nan() => value,
                Self::Max if is_first || value > result || result.is_nan() => value,
                Self::Min | Self::Max => result,
                Self::Count => count,
                _ => result + value,
            };
        }
        (count > 0.0).then_some(if self == Self::Avg { result / count } else { result })
    }
}
