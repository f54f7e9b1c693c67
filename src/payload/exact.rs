//! Numbers that say digit by digit what they are, for those who compare decimals.

use std::borrow::Cow;

use super::canonical::Number;

/// Decimals of as many digits are what their nearest float prints as.
const FAITHFUL_DIGITS: usize = 15;

/// The text with every number as its exact value.
///
/// The shortest digits of a float are not the float's value: 2^60 prints as 1.152921504606847e18. A float
/// stays a float: it becomes 1152921504606846976.0. A text that has no such number stays as it is.
pub(crate) fn with_exact_numbers(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut exact = String::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of_string(bytes, at + 1),
            b'-' | b'0'..=b'9' => {
                let start = at;
                at += bytes[start..]
                    .iter()
                    .take_while(|byte| is_in_number(**byte))
                    .count();
                if let Some(number) = exact_number(&text[start..at]) {
                    exact.push_str(&text[copied..start]);
                    exact.push_str(&number);
                    copied = at;
                }
            }
            _ => at += 1,
        }
    }
    if copied == 0 {
        return text.into();
    }
    exact.push_str(&text[copied..]);
    exact.into()
}

/// The place after the closing quote.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = bytes.get(at) {
        at += match byte {
            b'"' => return at + 1,
            b'\\' => 2,
            _ => 1,
        };
    }
    at
}

fn is_in_number(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

/// Another text for a number, if this one is not its exact value.
fn exact_number(text: &str) -> Option<String> {
    let is_plain = !text.contains(['e', 'E']);
    if is_plain && text.len() <= FAITHFUL_DIGITS {
        return None;
    }
    if text.parse::<u64>().is_ok() || text.parse::<i64>().is_ok() {
        return None;
    }
    let float: f64 = text.parse().ok()?;
    let (exact, number) = match Number::from_f64(float) {
        Number::Natural(0) => ("0".to_owned(), format!("{float:?}")),
        Number::Natural(natural) => (natural.to_string(), format!("{natural}.0")),
        Number::Negative(negative) => (negative.to_string(), format!("{negative}.0")),
        Number::Float(float) => (format!("{float:e}"), format!("{float:e}")),
    };
    (decimal(text) != decimal(&exact) || !is_within_numeric(text)).then_some(number)
}

/// Whether PostgreSQL's decimals have room for a number as it is written: for its digits, zeros at their ends included,
/// and for its exponent. Floats have fewer than 400 on either side.
fn is_within_numeric(text: &str) -> bool {
    const MOST: usize = 400;
    let exponent = text
        .split_once(['e', 'E'])
        .map_or("0", |(_, exponent)| exponent);
    let exponent = exponent.parse::<i64>().map(i64::unsigned_abs);
    text.len() <= MOST && exponent.is_ok_and(|exponent| exponent <= MOST as u64)
}

/// Digits without zeros at their ends, and the power of ten of the last one; `None` for zero.
fn decimal(text: &str) -> Option<(bool, String, i64)> {
    let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_negative = whole.starts_with('-');
    let digits = format!("{}{fraction}", whole.trim_start_matches('-'));
    let significant = digits.trim_end_matches('0');
    let zeros = digits.len() - significant.len();
    let significant = significant.trim_start_matches('0');
    if significant.is_empty() {
        return None;
    }
    let exponent = exponent.parse().unwrap_or(i64::MAX / 2);
    let last = exponent + zeros as i64 - fraction.len() as i64;
    Some((is_negative, significant.to_owned(), last))
}

#[cfg(test)]
mod tests {
    use super::with_exact_numbers;

    #[test]
    fn most_texts_stay_as_they_are() {
        for text in [
            "null",
            r#"{"a":[1,-2.5,1e0,1e300,1E+21,5e-324,0.1,-0.0,0e0],"b":"1.152921504606847e18\\\"2e63"}"#,
            "[18446744073709551615,-9223372036854775808,9007199254740993]",
            "[18446744073709552000,1.8446744073709552e19,9223372036854776000]",
            "[0.30000000000000004,3.3333333333333335e-5,1.7976931348623157e308]",
            "[9007199254740994.0,1e17,1.0000000000000000000]",
            "\"1.152921504606847e18",
        ] {
            assert_eq!(with_exact_numbers(text), text);
        }
    }

    #[test]
    fn numbers_fit_into_decimals() {
        let zeros = "0".repeat(20_000);
        for (text, number) in [
            ("0e-20000".to_owned(), "0.0"),
            ("-0e99999999999999999999".to_owned(), "-0.0"),
            (format!("1.{zeros}"), "1.0"),
            (format!("-1.5{zeros}"), "-1.5e0"),
            (format!("0.{zeros}"), "0.0"),
        ] {
            let payload = format!(r#"{{"n":[1,{text}]}}"#);
            let exact = format!(r#"{{"n":[1,{number}]}}"#);
            assert_eq!(with_exact_numbers(&payload), exact, "{text:.30}");
        }
    }

    #[test]
    fn floats_are_told_exactly() {
        for (text, exact) in [
            ("1.152921504606847e18", "1152921504606846976.0"),
            ("[1,-1.152921504606847e18]", "[1,-1152921504606846976.0]"),
            (
                r#"{"9.2e18":9.223372036854776e18}"#,
                r#"{"9.2e18":9223372036854775808.0}"#,
            ),
            ("-9223372036854776000", "-9223372036854775808.0"),
            ("18446744073709551616", "1.8446744073709552e19"),
            ("0.10000000000000001", "1e-1"),
            ("[1e-400,-1e-400]", "[0.0,-0.0]"),
            ("1.00000000000000000001", "1.0"),
        ] {
            assert_eq!(with_exact_numbers(text), exact);
            let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
            assert_eq!(read(text), read(exact));
        }
    }
}
