//! The values of line protocol: numbers, with a shorter way for those that most lines bear, and booleans.

/// Longest decimal that is read the short way: a point and 15 digits, of which every whole number is an `f64`.
const SHORT_BYTES_MAX: usize = 16;

/// The powers of ten that a decimal of that length can be a fraction of. Each is an `f64` without an error.
const POWERS_OF_TEN: [f64; SHORT_BYTES_MAX] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// A number or a boolean, as the reference writes them; [`short`] reads most of them quicker.
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

/// A decimal of few digits without an exponent at the start of `text`, and its length; `None` for every other number.
///
/// Its digits and the power of ten are both exact, so that their quotient, which is rounded once, is what the library's
/// `parse` gives: the fast path of Clinger's "How to Read Floating Point Numbers Accurately".
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
            // A longer one ends here, in the midst of its digits: what follows tells it from a whole one.
            break;
        }
        length += 1;
    }
    let count = length - usize::from(point.is_some());
    // Sixteen digits and no point may be more than an f64 holds.
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

    /// What the short way makes of a whole text.
    fn parse_short(text: &str) -> Option<f64> {
        short(text.as_bytes()).filter(|(_, length)| *length == text.len()).map(|(value, _)| value)
    }

    fn assert_as_the_library(text: &str) {
        let short = parse_short(text).map(f64::to_bits);
        assert!(short.is_none() || short == text.parse().ok().map(f64::to_bits), "{text}: {short:?}");
    }

    #[test]
    fn the_ends_of_the_short_way() {
        for text in ["0", "-0", "-0.0", "1.", ".5", "-.5", "999999999999999", ".999999999999999", "0.1", "4.98"] {
            assert!(parse_short(text).is_some(), "{text}");
            assert_as_the_library(text);
        }
        for text in ["", "-", ".", "-.", "1.2.3", "+1", "--1", "1e3", "1i", "9007199254740993", "0.9999999999999999"] {
            assert_eq!(parse_short(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_decimal_read_the_short_way_is_what_the_library_reads(text in "-?[0-9]{0,16}\\.?[0-9]{0,16}") {
            assert_as_the_library(&text);
        }

        #[test]
        fn a_decimal_of_few_digits_goes_the_short_way(whole in "[0-9]{1,7}", fraction in "[0-9]{0,8}") {
            let text = format!("{whole}.{fraction}");
            prop_assert!(parse_short(&text).is_some());
            assert_as_the_library(&text);
        }
    }
}
