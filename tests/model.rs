//! Random histories on every store, against the oracle.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::option_option,
    unreachable_pub
)]

mod oracle;
mod stores;

use std::num::NonZeroUsize;

use factstr::{EventFilter, EventQuery, EventStore, EventStoreError, NewEvent, ReadOptions};
use oracle::Oracle;
use proptest::prelude::*;
use serde_json::{Value, json};
use stores::{Place, on_every_store};

/// Few values, so that equal ones are frequent; all kinds, so that none is mistaken for another.
fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(null)),
        Just(json!(true)),
        Just(json!(0)),
        Just(json!(-0.0)),
        Just(json!(1)),
        Just(json!(1.0)),
        Just(json!(1.5)),
        Just(json!(9_007_199_254_740_993_u64)),
        Just(json!(9_007_199_254_740_992.0)),
        Just(json!(u64::MAX)),
        Just(json!(18_446_744_073_709_551_616.0)),
        Just(json!(i64::MIN)),
        Just(json!("")),
        Just(json!("a")),
        Just(json!("1")),
        Just(json!("ä\"\\\n")),
    ]
}

fn json_value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map("[ab\"]", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn event_type() -> impl Strategy<Value = String> {
    "[abc]"
}

fn event() -> impl Strategy<Value = NewEvent> {
    (event_type(), json_value()).prop_map(|(name, payload)| NewEvent::new(name, payload))
}

fn filter() -> impl Strategy<Value = EventFilter> {
    (
        prop::option::of(prop::collection::vec(event_type(), 0..3)),
        prop::option::of(prop::collection::vec(json_value(), 0..3)),
    )
        .prop_map(|(event_types, payload_predicates)| EventFilter {
            event_types,
            payload_predicates,
        })
}

fn query() -> impl Strategy<Value = EventQuery> {
    (
        prop::option::of(prop::collection::vec(filter(), 0..3)),
        prop::option::of(0_u64..40),
    )
        .prop_map(|(filters, min_sequence_number)| EventQuery {
            filters,
            min_sequence_number,
        })
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<NewEvent>),
    /// The expected version: true, or this.
    AppendIf(Vec<NewEvent>, EventQuery, Option<Option<u64>>),
    Query(EventQuery, Option<usize>),
    Read(EventQuery, bool, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let events = || prop::collection::vec(event(), 1..6);
    prop_oneof![
        3 => events().prop_map(Step::Append),
        3 => (events(), query(), prop::option::of(prop::option::of(0_u64..40)))
            .prop_map(|(events, query, version)| Step::AppendIf(events, query, version)),
        4 => (query(), prop::option::of(1_usize..5)).prop_map(|(query, limit)| Step::Query(query, limit)),
        2 => (query(), any::<bool>(), 1_usize..5)
            .prop_map(|(query, backwards, size)| Step::Read(query, backwards, size)),
    ]
}

async fn take(store: &dyn EventStore, oracle: &mut Oracle, step: Step) {
    match step {
        Step::Append(events) => {
            let before = oracle.events.len() as u64;
            let result = store.append(events.clone()).await.unwrap();
            oracle.events.extend(
                events
                    .into_iter()
                    .map(|event| (event.event_type, event.payload)),
            );
            assert_eq!(result.first_sequence_number, before + 1);
            assert_eq!(result.last_sequence_number, oracle.events.len() as u64);
        }
        Step::AppendIf(events, query, version) => {
            let actual = oracle.matching(&query).last().copied();
            let expected = version.unwrap_or(actual);
            let result = store.append_if(events.clone(), &query, expected).await;
            if expected == actual {
                assert_eq!(result.unwrap().committed_count, events.len() as u64);
                oracle.events.extend(
                    events
                        .into_iter()
                        .map(|event| (event.event_type, event.payload)),
                );
            } else {
                let conflict = EventStoreError::ConditionalAppendConflict { expected, actual };
                assert_eq!(result, Err(conflict));
            }
        }
        Step::Query(query, limit) => {
            let context = oracle.matching(&query);
            let after = query.min_sequence_number.unwrap_or(0);
            let rows: Vec<u64> = context
                .iter()
                .copied()
                .filter(|&number| number > after)
                .take(limit.unwrap_or(usize::MAX))
                .collect();
            let limit = limit.and_then(NonZeroUsize::new);
            let result = store.query_with_limit(&query, limit).await.unwrap();
            let found: Vec<u64> = result
                .event_records
                .iter()
                .map(|record| record.sequence_number)
                .collect();
            assert_eq!(found, rows, "{query:?}");
            assert_eq!(result.last_returned_sequence_number, rows.last().copied());
            assert_eq!(result.current_context_version, context.last().copied());
            for record in result.event_records {
                let (event_type, payload) = &oracle.events[record.sequence_number as usize - 1];
                assert_eq!((&record.event_type, &record.payload), (event_type, payload));
            }
        }
        Step::Read(query, backwards, size) => {
            let after = query.min_sequence_number.unwrap_or(0);
            let mut rows = oracle.matching(&query);
            rows.retain(|&number| number > after);
            if backwards {
                rows.reverse();
            }
            let page_size = NonZeroUsize::new(size).unwrap();
            let mut next = Some(ReadOptions {
                backwards,
                page_size,
                ..Default::default()
            });
            let mut found = Vec::new();
            while let Some(options) = next {
                // The cursor stands in the query on the first page, in the options afterwards.
                let page_query = EventQuery {
                    min_sequence_number: query
                        .min_sequence_number
                        .filter(|_| options.after.is_none()),
                    ..query.clone()
                };
                let page = store.read(&page_query, options).await.unwrap();
                found.extend(
                    page.event_records
                        .iter()
                        .map(|record| record.sequence_number),
                );
                next = page.next;
            }
            assert_eq!(found, rows, "{query:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_store_agrees_with_the_oracle(steps in prop::collection::vec(step(), 1..40)) {
        on_every_store(|store| {
            let steps = steps.clone();
            async move {
                let mut oracle = Oracle::default();
                for step in steps {
                    take(&*store, &mut oracle, step).await;
                }
            }
        });
    }
}

/// A small generator of its own, so that a long history needs no shrinking.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        // Knuth's MMIX constants.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Enough events for runs of several tiers, bitmaps in them, and a tail, in several sittings.
#[test]
fn runs_and_tail_agree_with_the_oracle() {
    several_sittings_agree_with_the_oracle(&Place::new("sqlite"));
}

/// Enough events for facets that all need to be looked up in each other.
#[test]
fn ordered_postings_agree_with_the_oracle() {
    several_sittings_agree_with_the_oracle(&Place::new("postgres"));
}

fn several_sittings_agree_with_the_oracle(place: &Place) {
    const EVENTS: u64 = 90_000;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut random = Random(42);
    let mut oracle = Oracle::default();
    let mut written = 0;
    for sitting in 1..=3_u64 {
        let store = runtime.block_on(place.open());
        while written < EVENTS * sitting / 3 {
            let size = 1 + random.below(400);
            let batch: Vec<NewEvent> = (0..size)
                .map(|_| {
                    written += 1;
                    let payload = json!({
                        "id": written,
                        "context": random.below(EVENTS / 10),
                        "half": random.below(2) == 0,
                        "tags": [random.below(5), random.below(300)],
                        "rare": if random.below(20_000) == 0 { json!("yes") } else { json!(null) },
                    });
                    NewEvent::new(format!("type-{}", random.below(20)), payload)
                })
                .collect();
            oracle.events.extend(
                batch
                    .iter()
                    .map(|event| (event.event_type.clone(), event.payload.clone())),
            );
            runtime.block_on(store.append(batch)).unwrap();
        }
        let predicates: Vec<Vec<Value>> = (0..12)
            .map(|_| {
                vec![
                    json!({ "context": random.below(EVENTS / 10) }),
                    json!({ "half": true, "tags": [random.below(5), random.below(300)] }),
                    json!({ "rare": "yes" }),
                    json!({ "tags": [4], "half": false, "rare": null }),
                    json!({ "nowhere": 1 }),
                    json!({}),
                ]
            })
            .collect();
        for (round, predicates) in predicates.into_iter().enumerate() {
            for predicate in predicates {
                let filter = EventFilter {
                    event_types: (round % 3 == 0).then(|| vec!["type-3".into(), "type-4".into()]),
                    payload_predicates: Some(vec![predicate]),
                };
                let query = EventQuery {
                    filters: Some(vec![filter]),
                    min_sequence_number: (round % 2 == 0).then(|| random.below(written)),
                };
                let limit = (round % 4 == 1).then_some(5);
                runtime.block_on(take(
                    &*store,
                    &mut oracle,
                    Step::Query(query.clone(), limit),
                ));
                let version = (round % 5 == 0).then(|| Some(random.below(written)));
                let event = NewEvent::new("type-0", json!({ "id": 0 }));
                let before = oracle.events.len();
                let conditional = Step::AppendIf(vec![event], query, version);
                runtime.block_on(take(&*store, &mut oracle, conditional));
                written += (oracle.events.len() - before) as u64;
            }
        }
        let common = EventQuery::for_event_types(["type-7", "type-8"]);
        for backwards in [false, true] {
            let read = Step::Read(common.clone(), backwards, 1_000);
            runtime.block_on(take(&*store, &mut oracle, read));
        }
        runtime.block_on(store.close()).unwrap();
    }
}
