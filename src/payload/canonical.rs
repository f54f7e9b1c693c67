//! Numbers by exact value: `1`, `1.0` and `1e0` are one number, and so are `0` and `-0.0`. Filters by
//! what they select.

use std::fmt::Write;

use serde_json::Value;

use super::facet::number_of;
use super::value::parse_value;

/// A JSON number in its one representation: an integer wherever it is one that 64 bits hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    /// Not negative.
    Natural(u64),
    /// Below zero.
    Negative(i64),
    /// A fraction, or an integer beyond 64 bits.
    Float(f64),
}

impl Number {
    /// 2^64 and -2^63, which floats hold exactly.
    const NATURAL_END: f64 = 18_446_744_073_709_551_616.0;
    const NEGATIVE_START: f64 = -9_223_372_036_854_775_808.0;

    pub(super) fn from_i64(number: i64) -> Self {
        u64::try_from(number).map_or(Self::Negative(number), Self::Natural)
    }

    pub(super) fn from_f64(number: f64) -> Self {
        if number.fract() != 0.0 {
            return Self::Float(number);
        }
        if (0.0..Self::NATURAL_END).contains(&number) {
            return Self::Natural(number as u64);
        }
        if (Self::NEGATIVE_START..0.0).contains(&number) {
            return Self::Negative(number as i64);
        }
        Self::Float(number)
    }

    /// The number as 9 bytes: a tag and 64 bits. Equal numbers have equal bytes.
    pub(super) fn to_bytes(self) -> [u8; 9] {
        let (tag, bits) = match self {
            Self::Natural(number) => (0, number),
            Self::Negative(number) => (1, number as u64),
            Self::Float(number) => (2, number.to_bits()),
        };
        let mut bytes = [tag; 9];
        bytes[1..].copy_from_slice(&bits.to_le_bytes());
        bytes
    }
}

/// Filters as text, without what changes nothing: the order of members and of alternatives, repeated
/// alternatives, the form of numbers, `null` instead of an absent member or of no filters, a filter that
/// every event matches instead of none.
pub(crate) fn canonical_filters(text: &str) -> String {
    let filters = parse_value(text).unwrap_or(Value::Null);
    let mut text = String::new();
    match filters {
        Value::Array(filters) if !filters.is_empty() && !filters.iter().any(is_everything) => {
            write_alternatives(&mut text, &filters, |text, filter| {
                for key in ["event_types", "payload_predicates"] {
                    match filter.get(key) {
                        Some(Value::Array(alternatives)) => {
                            write_alternatives(text, alternatives, write_value);
                        }
                        _ => text.push('*'),
                    }
                }
            });
        }
        _ => text.push('*'),
    }
    text
}

/// Whether a filter constrains nothing.
fn is_everything(filter: &Value) -> bool {
    ["event_types", "payload_predicates"]
        .iter()
        .all(|&key| !matches!(filter.get(key), Some(Value::Array(_))))
}

fn write_alternatives(text: &mut String, values: &[Value], write: fn(&mut String, &Value)) {
    let mut texts: Vec<String> = values
        .iter()
        .map(|value| {
            let mut text = String::new();
            write(&mut text, value);
            text
        })
        .collect();
    texts.sort_unstable();
    texts.dedup();
    text.push('[');
    for alternative in texts {
        text.push_str(&alternative);
        text.push(',');
    }
    text.push(']');
}

fn write_value(text: &mut String, value: &Value) {
    match value {
        Value::Number(number) => {
            let _ = write!(text, "{:?}", number_of(number));
        }
        // An array's elements are alternatives' opposite, but their order and repetition don't count.
        Value::Array(elements) => write_alternatives(text, elements, write_value),
        Value::Object(members) => {
            let mut members: Vec<(&String, &Value)> = members.iter().collect();
            members.sort_unstable_by_key(|&(key, _)| key);
            text.push('{');
            for (key, value) in members {
                let _ = write!(text, "{key:?}:");
                write_value(text, value);
                text.push(',');
            }
            text.push('}');
        }
        scalar => {
            let _ = write!(text, "{scalar}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Number, canonical_filters};

    #[test]
    fn integral_floats_are_integers() {
        assert_eq!(Number::from_f64(1.0), Number::Natural(1));
        assert_eq!(Number::from_f64(-0.0), Number::Natural(0));
        assert_eq!(Number::from_f64(-3.0), Number::from_i64(-3));
        assert_eq!(
            Number::from_f64(9_223_372_036_854_775_808.0),
            Number::Natural(1 << 63)
        );
        assert_eq!(
            Number::from_f64(-9_223_372_036_854_775_808.0),
            Number::from_i64(i64::MIN)
        );
        assert_eq!(Number::from_f64(1e300), Number::Float(1e300));
        assert_eq!(Number::from_f64(0.5), Number::Float(0.5));
    }

    #[test]
    fn neighbours_beyond_float_precision_differ() {
        assert_ne!(
            Number::from_i64((1 << 53) + 1),
            Number::from_f64((1_u64 << 53) as f64)
        );
    }

    #[test]
    fn filters_are_equal_by_what_they_select() {
        let same = [
            r#"[{"event_types":["a","b"],"payload_predicates":[{"x":1,"y":[1,2]},null]}]"#,
            r#"[{"payload_predicates":[null,{"y":[2,1.0,1],"x":1e0}],"event_types":["b","a","a"]}]"#,
        ];
        assert_eq!(canonical_filters(same[0]), canonical_filters(same[1]));
        let everything = [
            "[]",
            "[{}]",
            r#"[{"event_types":null}]"#,
            r#"[{"event_types":["a"]},{"payload_predicates":null}]"#,
        ];
        for filters in everything {
            assert_eq!(canonical_filters(filters), canonical_filters("null"));
        }
        let different = [
            "null",
            r#"[{"event_types":[]}]"#,
            r#"[{"payload_predicates":[]}]"#,
            r#"[{"event_types":["*"]}]"#,
            r#"[{"event_types":["a","b"]}]"#,
            r#"[{"event_types":["a\",\"b"]}]"#,
            r#"[{"payload_predicates":[1]}]"#,
            r#"[{"payload_predicates":["1"]}]"#,
            r#"[{"payload_predicates":[{"a":1}]}]"#,
            r#"[{"payload_predicates":[{"a":1.5}]}]"#,
        ];
        let texts: Vec<String> = different.into_iter().map(canonical_filters).collect();
        for (index, text) in texts.iter().enumerate() {
            assert!(!texts[..index].contains(text), "{text}");
        }
    }
}
