//! The exact subset match of a predicate against a payload's JSON text.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
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
    Array(Elements),
    /// Sorted by their names.
    Object(Vec<(String, Predicate)>),
}

/// What an array must have among its elements, in any order. Each list is sorted and has nothing twice, so
/// that long ones are not gone through for each element.
#[derive(Debug, Clone, Default)]
pub(super) struct Elements {
    strings: Vec<String>,
    /// As `Number::to_bytes`.
    numbers: Vec<[u8; 9]>,
    /// `null`, `false`, `true`.
    words: [bool; 3],
    containers: Vec<Predicate>,
}

impl Elements {
    fn compile(values: &[Value]) -> Self {
        let mut elements = Self::default();
        for value in values {
            match Predicate::compile(value) {
                Predicate::Null => elements.words[0] = true,
                Predicate::Bool(value) => elements.words[1 + usize::from(value)] = true,
                Predicate::Number(number) => elements.numbers.push(number.to_bytes()),
                Predicate::String(string) => elements.strings.push(string),
                container => elements.containers.push(container),
            }
        }
        elements.strings.sort_unstable();
        elements.strings.dedup();
        elements.numbers.sort_unstable();
        elements.numbers.dedup();
        elements
    }

    fn scalars(&self) -> usize {
        let words = self.words.iter().filter(|&&wanted| wanted).count();
        self.strings.len() + self.numbers.len() + words
    }

    /// The place of a scalar among all that are wanted: strings, numbers, words.
    fn place(&self, scalar: &Scalar<'_>) -> Option<usize> {
        let word = |word: usize| {
            self.words[word].then_some(self.strings.len() + self.numbers.len() + word)
        };
        match scalar {
            Scalar::Null => word(0),
            Scalar::Bool(value) => word(1 + usize::from(*value)),
            Scalar::Number(number) => {
                let found = self.numbers.binary_search(&number.to_bytes()).ok()?;
                Some(self.strings.len() + found)
            }
            Scalar::String(string) => self
                .strings
                .binary_search_by(|wanted| wanted.as_str().cmp(string))
                .ok(),
        }
    }
}

impl Predicate {
    pub(super) fn compile(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(value) => Self::Number(number_of(value)),
            Value::String(value) => Self::String(value.clone()),
            Value::Array(elements) => Self::Array(Elements::compile(elements)),
            Value::Object(members) => {
                let compiled = members.iter();
                let mut compiled: Vec<_> = compiled
                    .map(|(key, value)| (key.clone(), Self::compile(value)))
                    .collect();
                compiled.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
                Self::Object(compiled)
            }
        }
    }

    /// How often a text may have to be gone through, at most.
    #[cfg(feature = "postgres")]
    pub(super) fn effort(&self) -> usize {
        match self {
            Self::Array(elements) => {
                let containers = elements.containers.iter().map(Self::effort);
                1 + containers.sum::<usize>()
            }
            Self::Object(members) => {
                let efforts = members.iter().map(|(_, predicate)| predicate.effort());
                efforts.max().unwrap_or(1)
            }
            _ => 1,
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
        let mut found = vec![false; expected.strings.len() + expected.numbers.len() + 3];
        let mut missing = expected.scalars();
        let mut containers: Vec<&Predicate> = expected.containers.iter().collect();
        while let Some(element) = sequence.next_element::<&RawValue>()? {
            let text = element.get();
            if text.starts_with(['{', '[']) {
                // One element may satisfy several expected ones, so each is matched on its own text.
                containers.retain(|predicate| !predicate.matches(text));
            } else if missing > 0
                && let Ok(scalar) = serde_json::from_str(text)
                && let Some(place) = expected.place(&scalar)
                && !std::mem::replace(&mut found[place], true)
            {
                missing -= 1;
            }
        }
        Ok(missing == 0 && containers.is_empty())
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
        Ok(self
            .0
            .binary_search_by(|(expected, _)| expected.as_str().cmp(key))
            .ok())
    }
}

/// A JSON value that is no container.
enum Scalar<'t> {
    Null,
    Bool(bool),
    Number(Number),
    String(Cow<'t, str>),
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a JSON value that is no container")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(Number::Natural(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(Number::from_i64(value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(Number::from_f64(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Scalar::String(value.to_owned().into()))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::String(value.into()))
    }
}
