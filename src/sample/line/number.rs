//! The values of line protocol: numbers, with a fast path for short decimals, and booleans.

/// Longest decimal of the fast path: a point and 15 digits. Every whole number of 15 digits is exact as an `f64`.
const SHORT_BYTES_MAX: usize = 16;

/// The powers of ten up to 15 digits, each exact as an `f64`.
const POWERS_OF_TEN: [f64; SHORT_BYTES_MAX] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// Parses a number or a boolean as the reference defines them. [`short`] is the fast path.
pub(super) fn parse(text: &str) -> Option<f64> {
    let (start, last) = (text.strip_prefix('-').unwrap_or(text).bytes().next()?, text.bytes().last()?);
    if !start.is_ascii_digit() && start != b'.' {
        return match text {
            "t" | "T" | "true" | "True" | "TRUE" => Some(1.0),
            "f" | "F" | "false" | "False" | "FALSE" => Some(0.0),
            _ => None,
        };
    }
    #[expect(clippy::cast_precision_loss, reason = "an average is an f64")]
    match last {
        b'i' => text[..text.len() - 1].parse::<i64>().ok().map(|value| value as f64),
        b'u' => text[..text.len() - 1].parse::<u64>().ok().map(|value| value as f64),
        _ => text.parse().ok(),
    }
}

/// Parses a decimal of up to 15 digits without an exponent at the start of `text`, and returns it with its length; `None`
/// for every other number.
///
/// Digits and power of ten are both exact, and their quotient is rounded once, so the result is that of `str::parse`. This
/// is the fast path of Clinger's "How to Read Floating Point Numbers Accurately".
pub(super) fn short(text: &[u8]) -> Option<(f64, usize)> {
    let is_negative = text.first() == Some(&b'-');
    let unsigned = if is_negative { &text[1..] } else { text };
    let (mut digits, mut length, mut point) = (0_u64, 0, None);
    while let Some(byte) = unsigned.get(length) {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 && length < SHORT_BYTES_MAX {
            digits = digits * 10 + u64::from(digit);
        } else if *byte == b'.' && point.is_none() {
            point = Some(length);
        } else {
            // A longer number stops here, among its digits. The caller sees that more follows.
            break;
        }
        length += 1;
    }
    let count = length - usize::from(point.is_some());
    // Sixteen digits without a point may not be exact as an f64.
    if count == 0 || count == SHORT_BYTES_MAX {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "fifteen digits are below 2^53")]
    let value = digits as f64 / POWERS_OF_TEN[point.map_or(0, |point| count - point)];
    Some((if is_negative { -value } else { value }, length + usize::from(is_negative)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The result of the fast path for a whole text.
    fn parse_short(text: &str) -> Option<f64> {
        short(text.as_bytes()).filter(|(_, length)| *length == text.len()).map(|(value, _)| value)
    }

    fn assert_equals_std(text: &str) {
        let short = parse_short(text).map(f64::to_bits);
        assert!(short.is_none() || short == text.parse().ok().map(f64::to_bits), "{text}: {short:?}");
    }

    #[test]
    fn the_limits_of_the_fast_path() {
        for text in ["0", "-0", "-0.0", "1.", ".5", "-.5", "999999999999999", ".999999999999999", "0.1", "4.98"] {
            assert!(parse_short(text).is_some(), "{text}");
            assert_equals_std(text);
        }
        for text in ["", "-", ".", "-.", "1.2.3", "+1", "--1", "1e3", "1i", "9007199254740993", "0.9999999999999999"] {
            assert_eq!(parse_short(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_fast_path_parses_as_std_does(text in "-?[0-9]{0,16}\\.?[0-9]{0,16}") {
            assert_equals_std(&text);
        }

        #[test]
        fn short_decimals_take_the_fast_path(whole in "[0-9]{1,7}", fraction in "[0-9]{0,8}") {
            let text = format!("{whole}.{fraction}");
            prop_assert!(parse_short(&text).is_some());
            assert_equals_std(&text);
        }
    }
}
