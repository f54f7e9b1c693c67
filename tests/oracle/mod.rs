//! The contract at its simplest: a list of events and a recursive matcher.

use factstr::{EventFilter, EventQuery};
use serde_json::{Number, Value};

/// Compares numbers by exact value, the slow way.
fn same_number(left: &Number, right: &Number) -> bool {
    let integer = |number: &Number| {
        number
            .as_i64()
            .map(i128::from)
            .or_else(|| number.as_u64().map(i128::from))
            .or_else(|| {
                let float = number.as_f64()?;
                (float.fract() == 0.0 && float.abs() < 1e30).then_some(float as i128)
            })
    };
    match (integer(left), integer(right)) {
        (Some(left), Some(right)) => left == right,
        (None, None) => left.as_f64() == right.as_f64(),
        _ => false,
    }
}

pub fn contains(payload: &Value, predicate: &Value) -> bool {
    match (payload, predicate) {
        (Value::Object(payload), Value::Object(predicate)) => {
            predicate.iter().all(|(key, value)| {
                payload
                    .get(key)
                    .is_some_and(|member| contains(member, value))
            })
        }
        (Value::Array(payload), Value::Array(predicate)) => predicate
            .iter()
            .all(|value| payload.iter().any(|element| contains(element, value))),
        (Value::Number(left), Value::Number(right)) => same_number(left, right),
        (left, right) => left == right,
    }
}

fn filter_matches(filter: &EventFilter, event_type: &str, payload: &Value) -> bool {
    filter
        .event_types
        .as_ref()
        .is_none_or(|types| types.iter().any(|name| name == event_type))
        && filter.payload_predicates.as_ref().is_none_or(|predicates| {
            predicates
                .iter()
                .any(|predicate| contains(payload, predicate))
        })
}

pub fn matches(query: &EventQuery, event_type: &str, payload: &Value) -> bool {
    match query.filters.as_deref() {
        None | Some([]) => true,
        Some(filters) => filters
            .iter()
            .any(|filter| filter_matches(filter, event_type, payload)),
    }
}

/// The naive store.
#[derive(Debug, Default)]
pub struct Oracle {
    pub events: Vec<(String, Value)>,
}

impl Oracle {
    pub fn matching(&self, query: &EventQuery) -> Vec<u64> {
        (1..)
            .zip(&self.events)
            .filter(|(_, (event_type, payload))| matches(query, event_type, payload))
            .map(|(sequence_number, _)| sequence_number)
            .collect()
    }
}
