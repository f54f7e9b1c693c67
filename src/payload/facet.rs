//! Facets: what an index can know of an event without its payload.
//!
//! Every scalar of a payload is a facet, a 64-bit hash of its path (array levels wildcarded) and its
//! canonical value; every container below the root is one too, and the event type. An event that a
//! predicate matches has all of the predicate's facets, so they are necessary conditions. They are
//! not sufficient (array levels are wildcarded, hashes may collide), so a candidate is rechecked.

use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::canonical::Number;

/// A hash of a path and a value.
pub(crate) type Facet = u64;

/// For tables by facet.
pub(crate) type FacetHash = BuildHasherDefault<FacetHasher>;

/// A facet is a hash already.
#[derive(Debug, Default, Clone)]
pub(crate) struct FacetHasher(u64);

impl Hasher for FacetHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only facets are hashed");
    }

    fn write_u64(&mut self, facet: u64) {
        self.0 = facet;
    }
}

const ROOT: u64 = 0x9e37_79b9_7f4a_7c15;
const TYPE_SEED: u64 = 0xd1b5_4a32_d192_ed03;

// Tags keep a member apart from a value, and values of different kinds apart.
const MEMBER: u64 = 1;
const ELEMENT: u64 = 2;
const NULL: u64 = 3;
const FALSE: u64 = 4;
const TRUE: u64 = 5;
const NUMBER: u64 = 6;
const STRING: u64 = 7;
const OBJECT: u64 = 8;
const ARRAY: u64 = 9;

/// A position in a JSON value, array indexes left out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path {
    hash: u64,
    depth: u32,
}

impl Path {
    pub(super) const ROOT: Self = Self {
        hash: ROOT,
        depth: 0,
    };

    fn tagged(self, tag: u64) -> u64 {
        // One round of a 64-bit finaliser (splitmix64's) keeps tags from cancelling out.
        let mixed = (self.hash ^ tag).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn member(self, key: &str) -> Self {
        Self {
            hash: xxh3_64_with_seed(key.as_bytes(), self.tagged(MEMBER)),
            depth: self.depth + 1,
        }
    }

    pub(super) fn element(self) -> Self {
        Self {
            hash: self.tagged(ELEMENT),
            depth: self.depth + 1,
        }
    }

    fn null(self) -> Facet {
        self.tagged(NULL)
    }

    fn boolean(self, value: bool) -> Facet {
        self.tagged(if value { TRUE } else { FALSE })
    }

    fn number(self, value: Number) -> Facet {
        xxh3_64_with_seed(&value.to_bytes(), self.tagged(NUMBER))
    }

    fn string(self, value: &str) -> Facet {
        xxh3_64_with_seed(value.as_bytes(), self.tagged(STRING))
    }

    fn object(self) -> Option<Facet> {
        // Nearly every payload is an object: a facet that all events have selects nothing.
        (self.depth > 0).then(|| self.tagged(OBJECT))
    }

    fn array(self) -> Facet {
        self.tagged(ARRAY)
    }
}

/// Hashes an event type. It shares no path with payload facets.
pub(crate) fn event_type_facet(event_type: &str) -> Facet {
    xxh3_64_with_seed(event_type.as_bytes(), TYPE_SEED)
}

/// Appends the facets of a payload's JSON text to `facets`, in no order and with repetitions.
///
/// Stops at text that is no JSON and at nesting beyond `deepest` levels.
pub(super) fn collect_facets(
    text: &str,
    deepest: u32,
    facets: &mut Vec<Facet>,
) -> serde_json::Result<()> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Collector {
        path: Path::ROOT,
        deepest,
        facets,
    }
    .deserialize(&mut deserializer)?;
    deserializer.end()
}

/// Replaces `facets` by the sorted distinct facets of a stored event.
///
/// A payload that an earlier format took may be deeper than today's limit, and is indexed all the same.
pub(crate) fn stored_facets(event_type: &str, payload: &str, facets: &mut Vec<Facet>) {
    facets.clear();
    facets.push(event_type_facet(event_type));
    if let Err(error) = collect_facets(payload, u32::MAX, facets) {
        tracing::warn!(%error, "a stored payload can't be read to its end and is indexed in part");
    }
    facets.sort_unstable();
    facets.dedup();
}

/// Appends the facets that every payload matching `predicate` has.
pub(super) fn required_facets(predicate: &Value, path: Path, facets: &mut Vec<Facet>) {
    match predicate {
        Value::Null => facets.push(path.null()),
        Value::Bool(value) => facets.push(path.boolean(*value)),
        Value::Number(value) => facets.push(path.number(number_of(value))),
        Value::String(value) => facets.push(path.string(value)),
        // A container with required parts below it needs no facet of its own.
        Value::Array(elements) if elements.is_empty() => facets.push(path.array()),
        Value::Array(elements) => {
            for element in elements {
                required_facets(element, path.element(), facets);
            }
        }
        Value::Object(members) if members.is_empty() => facets.extend(path.object()),
        Value::Object(members) => {
            for (key, value) in members {
                required_facets(value, path.member(key), facets);
            }
        }
    }
}

pub(super) fn number_of(number: &serde_json::Number) -> Number {
    number.as_u64().map_or_else(
        || {
            number.as_i64().map_or_else(
                || Number::from_f64(number.as_f64().unwrap_or(f64::NAN)),
                Number::from_i64,
            )
        },
        Number::Natural,
    )
}

struct Collector<'f> {
    path: Path,
    deepest: u32,
    facets: &'f mut Vec<Facet>,
}

impl<'de> DeserializeSeed<'de> for Collector<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Collector<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.facets.push(self.path.null());
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.facets.push(self.path.boolean(value));
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.facets.push(self.path.number(Number::Natural(value)));
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.facets.push(self.path.number(Number::from_i64(value)));
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.facets.push(self.path.number(Number::from_f64(value)));
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.facets.push(self.path.string(value));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        self.refuse_depth()?;
        self.facets.push(self.path.array());
        let (path, deepest) = (self.path.element(), self.deepest);
        let facets = self.facets;
        while sequence
            .next_element_seed(Collector {
                path,
                deepest,
                facets: &mut *facets,
            })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.refuse_depth()?;
        self.facets.extend(self.path.object());
        while let Some(path) = map.next_key_seed(Member(self.path))? {
            let deepest = self.deepest;
            map.next_value_seed(Collector {
                path,
                deepest,
                facets: &mut *self.facets,
            })?;
        }
        Ok(())
    }
}

impl Collector<'_> {
    /// The container here adds one level.
    fn refuse_depth<E: Error>(&self) -> Result<(), E> {
        if self.path.depth < self.deepest {
            Ok(())
        } else {
            Err(E::custom("nested too deeply"))
        }
    }
}

struct Member(Path);

impl<'de> DeserializeSeed<'de> for Member {
    type Value = Path;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Path, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Member {
    type Value = Path;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a member name")
    }

    fn visit_str<E>(self, key: &str) -> Result<Path, E> {
        Ok(self.0.member(key))
    }
}
