//! The exact subset match of a predicate against a payload's JSON text.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::canonical::Number;
use super::facet::number_of;

/// A payload predicate, ready to be matched.
#[derive(Debug, Clone)]
pub(super) enum Predicate {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Array(Vec<Predicate>),
    Object(Vec<(String, Predicate)>),
}

impl Predicate {
    pub(super) fn compile(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(value) => Self::Number(number_of(value)),
            Value::String(value) => Self::String(value.clone()),
            Value::Array(elements) => Self::Array(elements.iter().map(Self::compile).collect()),
            Value::Object(members) => Self::Object(
                members
                    .iter()
                    .map(|(key, value)| (key.clone(), Self::compile(value)))
                    .collect(),
            ),
        }
    }

    /// Tells whether the payload contains this predicate. Text that is no JSON matches nothing.
    ///
    /// An object is read no further than to the member that decides.
    pub(super) fn matches(&self, text: &str) -> bool {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let decided = Cell::new(None);
        let matcher = Matcher {
            predicate: self,
            decided: Some(&decided),
        };
        let result = matcher.deserialize(&mut deserializer);
        decided.get().or(result.ok()).unwrap_or(false)
    }
}

/// Whether the parser hands over numbers as such.
pub(super) fn numbers_are_numbers() -> bool {
    let one = Predicate::Number(Number::Natural(1));
    one.matches("1") && one.matches("1.0")
}

/// Consumes one value of the input and tells whether the predicate matches it.
struct Matcher<'p> {
    predicate: &'p Predicate,
    /// Where the answer may be left, with an error, before the whole value is consumed.
    decided: Option<&'p Cell<Option<bool>>>,
}

impl<'p> Matcher<'p> {
    fn whole(predicate: &'p Predicate) -> Self {
        Self {
            predicate,
            decided: None,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Matcher<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Matcher<'_> {
    type Value = bool;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(matches!(self.predicate, Predicate::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<bool, E> {
        Ok(matches!(self.predicate, Predicate::Bool(expected) if *expected == value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<bool, E> {
        Ok(
            matches!(self.predicate, Predicate::Number(expected) if *expected == Number::Natural(value)),
        )
    }

    fn visit_i64<E>(self, value: i64) -> Result<bool, E> {
        Ok(
            matches!(self.predicate, Predicate::Number(expected) if *expected == Number::from_i64(value)),
        )
    }

    fn visit_f64<E>(self, value: f64) -> Result<bool, E> {
        Ok(
            matches!(self.predicate, Predicate::Number(expected) if *expected == Number::from_f64(value)),
        )
    }

    fn visit_str<E>(self, value: &str) -> Result<bool, E> {
        Ok(matches!(self.predicate, Predicate::String(expected) if expected == value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<bool, A::Error> {
        let Predicate::Array(expected) = self.predicate else {
            while sequence.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(false);
        };
        let mut missing: Vec<&Predicate> = expected.iter().collect();
        // One element may satisfy several expected ones, so each is matched on its own text.
        while let Some(element) = sequence.next_element::<&RawValue>()? {
            missing.retain(|predicate| !predicate.matches(element.get()));
        }
        Ok(missing.is_empty())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let Predicate::Object(expected) = self.predicate else {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(false);
        };
        // JSON text of ours has no member twice, so counting the matches is enough.
        let mut matched = 0;
        let mut differs = false;
        while let Some(index) = map.next_key_seed(Lookup(expected))? {
            match index {
                Some(index) if map.next_value_seed(Matcher::whole(&expected[index].1))? => {
                    matched += 1;
                }
                Some(_) => differs = true,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
            if let Some(decided) = self.decided
                && (differs || matched == expected.len())
            {
                decided.set(Some(!differs));
                return Err(A::Error::custom("decided"));
            }
        }
        Ok(matched == expected.len())
    }
}

/// Finds which expected member a key names.
struct Lookup<'p>(&'p [(String, Predicate)]);

impl<'de> DeserializeSeed<'de> for Lookup<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Lookup<'_> {
    type Value = Option<usize>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a member name")
    }

    fn visit_str<E>(self, key: &str) -> Result<Option<usize>, E> {
        Ok(self.0.iter().position(|(expected, _)| expected == key))
    }
}
