//! The events of benchmarks/events.mjs and the decision of benchmarks/loops.mjs, byte for byte.

use factstr::{EventFilter, EventQuery, NewEvent};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Event `n` of a store in which each of `items` has its share.
pub(crate) fn event(n: u64, items: u64) -> NewEvent {
    of_item(n, &item_name(n % items))
}

/// Event `n` of a part of a growing store, which has items of its own with ten events each.
pub(crate) fn growing(from: u64, to: u64, n: u64) -> NewEvent {
    let items = (to - from) / 10;
    of_item(n, &item_name(from / 10 + (n - from) % items))
}

/// Event `n` of an item of its own.
pub(crate) fn unrelated(n: u64) -> NewEvent {
    of_item(n, &format!("made-{n}"))
}

/// What follows from `known` facts of a context.
pub(crate) fn decision(known: usize, n: u64) -> NewEvent {
    let mut next = unrelated(n);
    next.payload["amount"] = json!(known);
    next
}

pub(crate) fn item_name(number: u64) -> String {
    format!("item-{number}")
}

pub(crate) fn context_of(item: &str) -> EventQuery {
    let filter = EventFilter::default().with_payload_predicates([json!({ "item_id": item })]);
    EventQuery::all().with_filters([filter])
}

fn of_item(n: u64, item: &str) -> NewEvent {
    let payload = json!({
        "item_id": item,
        "order_id": format!("order-{n}"),
        "batch_id": n / 100,
        "decade": n % 10,
        "person": { "id": format!("person-{}", n % 997), "city": "Utrecht", "verified": n.is_multiple_of(2) },
        "labels": ["field", format!("shelf-{}", n % 31)],
        "amount": quarters(n % 1000),
    });
    NewEvent::new(format!("equipment-{:02}", n * 7 % 20), payload)
}

/// A quarter of `count`, whole when it is: JavaScript writes 0 and not 0.0.
fn quarters(count: u64) -> Value {
    if count.is_multiple_of(4) {
        json!(count / 4)
    } else {
        json!(count as f64 / 4.0)
    }
}

/// Of `count` events of each kind from number `first` on, as JSON with one event a line.
pub(crate) fn hashes(first: u64, count: u64, items: u64) -> Value {
    json!({
        "event": hash(first, count, |n| event(n, items)),
        "growing": hash(first, count, |n| growing(first, first + count, n)),
        "unrelated": hash(first, count, unrelated),
        "decision": hash(first, count, |n| decision((n % 13) as usize, n)),
    })
}

fn hash(first: u64, count: u64, made: impl Fn(u64) -> NewEvent) -> String {
    let mut hash = Sha256::new();
    for n in first..first + count {
        let NewEvent {
            event_type,
            payload,
        } = made(n);
        let line = json!({ "event_type": event_type, "payload": payload });
        hash.update(format!("{line}\n"));
    }
    format!("{:x}", hash.finalize())
}
