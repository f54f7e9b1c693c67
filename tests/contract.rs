//! The contract through the Rust API, on every store.

#![allow(clippy::unwrap_used, clippy::print_stdout, unreachable_pub)]

mod stores;

use std::num::NonZeroUsize;

use factstr::{EventFilter, EventQuery, EventStoreError, NewEvent, ReadOptions};
use serde_json::{Value, json};
use stores::on_every_store;

fn event(event_type: &str, payload: Value) -> NewEvent {
    NewEvent {
        event_type: event_type.to_string(),
        payload,
    }
}

fn having(predicate: Value) -> EventQuery {
    EventQuery {
        filters: Some(vec![EventFilter {
            event_types: None,
            payload_predicates: Some(vec![predicate]),
        }]),
        min_sequence_number: None,
    }
}

#[test]
fn public_types_are_plain() {
    let _ = NewEvent {
        event_type: "item-reserved".to_string(),
        payload: serde_json::json!({ "reservation_id": "res-1" }),
    };
    let _ = EventQuery {
        filters: Some(vec![EventFilter {
            event_types: Some(vec!["item-reserved".to_string()]),
            payload_predicates: Some(vec![serde_json::json!({ "item_id": "camera-1" })]),
        }]),
        min_sequence_number: None,
    };
    let _ = factstr::DurableStream {
        name: "read-model".to_string(),
    };
}

#[test]
fn appends_are_consecutive_and_come_back_as_they_were() {
    on_every_store(|store| async move {
        let payload = json!({ "z": 1, "a": [1.5, -0.0, "ä\u{1F600}", null, {}], "1": true });
        let first = store
            .append(vec![event("a", payload.clone()), event("b", json!(7))])
            .await;
        let first = first.unwrap();
        assert_eq!(
            (first.first_sequence_number, first.last_sequence_number),
            (1, 2)
        );
        assert_eq!(first.committed_count, 2);
        assert_eq!(
            store
                .append(vec![event("a", json!(null))])
                .await
                .unwrap()
                .last_sequence_number,
            3
        );
        let all = store.query(&EventQuery::all()).await.unwrap();
        assert_eq!(all.last_returned_sequence_number, Some(3));
        assert_eq!(all.current_context_version, Some(3));
        let [one, two, three] = all.event_records.as_slice() else {
            panic!("three events")
        };
        assert_eq!((one.sequence_number, one.event_type.as_str()), (1, "a"));
        assert_eq!(
            serde_json::to_string(&one.payload).unwrap(),
            serde_json::to_string(&payload).unwrap()
        );
        assert_eq!(one.occurred_at, two.occurred_at);
        assert_eq!(one.occurred_at.offset(), time::UtcOffset::UTC);
        assert_eq!(
            (two.payload.clone(), three.payload.clone()),
            (json!(7), Value::Null)
        );
        assert_eq!(store.head_sequence_number().await.unwrap(), Some(3));
    });
}

#[test]
fn an_empty_store_has_no_versions() {
    on_every_store(|store| async move {
        assert_eq!(
            store.query(&EventQuery::all()).await.unwrap(),
            factstr::QueryResult::default()
        );
        assert_eq!(store.head_sequence_number().await.unwrap(), None);
    });
}

#[test]
fn cursor_and_limit_leave_the_context_version_alone() {
    on_every_store(|store| async move {
        for number in 1..=9 {
            store
                .append(vec![event("n", json!({ "odd": number % 2 == 1 }))])
                .await
                .unwrap();
        }
        let odd = having(json!({ "odd": true }));
        let after = odd.clone().with_min_sequence_number(3);
        let two = NonZeroUsize::new(2);
        let result = store.query_with_limit(&after, two).await.unwrap();
        let numbers: Vec<u64> = result
            .event_records
            .iter()
            .map(|record| record.sequence_number)
            .collect();
        assert_eq!(numbers, [5, 7]);
        assert_eq!(result.last_returned_sequence_number, Some(7));
        assert_eq!(result.current_context_version, Some(9));
        let beyond = store
            .query(&odd.with_min_sequence_number(u64::MAX))
            .await
            .unwrap();
        assert!(beyond.event_records.is_empty());
        assert_eq!(beyond.last_returned_sequence_number, None);
        assert_eq!(beyond.current_context_version, Some(9));
    });
}

#[test]
fn a_condition_holds_exactly_for_the_newest_match() {
    on_every_store(|store| async move {
        let camera = having(json!({ "item": "camera" }));
        let reserve = || vec![event("reserved", json!({ "item": "camera" }))];
        let other = || vec![event("reserved", json!({ "item": "tripod" }))];
        assert_eq!(
            store
                .append_if(reserve(), &camera, None)
                .await
                .unwrap()
                .first_sequence_number,
            1
        );
        store.append(other()).await.unwrap();
        for wrong in [None, Some(0), Some(2), Some(3), Some(u64::MAX)] {
            let conflict = store
                .append_if(reserve(), &camera, wrong)
                .await
                .unwrap_err();
            let expected = EventStoreError::ConditionalAppendConflict {
                expected: wrong,
                actual: Some(1),
            };
            assert_eq!(conflict, expected);
        }
        assert_eq!(store.head_sequence_number().await.unwrap(), Some(2));
        let with_cursor = camera.clone().with_min_sequence_number(2);
        let appended = store
            .append_if(reserve(), &with_cursor, Some(1))
            .await
            .unwrap();
        assert_eq!(appended.first_sequence_number, 3);
        let late = store
            .append_if(reserve(), &camera, Some(1))
            .await
            .unwrap_err();
        assert_eq!(late.code(), "ConditionalAppendConflict");
        let everything = EventQuery::all();
        assert!(store.append_if(other(), &everything, Some(3)).await.is_ok());
        assert!(
            store
                .append_if(other(), &everything, Some(3))
                .await
                .is_err()
        );
    });
}

#[test]
fn reads_page_in_both_directions() {
    on_every_store(|store| async move {
        let batch = |from: u64| {
            (from..from + 50)
                .map(|n| event("n", json!({ "n": n })))
                .collect()
        };
        store.append(batch(1)).await.unwrap();
        for backwards in [false, true] {
            let page_size = NonZeroUsize::new(7).unwrap();
            let mut next = Some(ReadOptions {
                after: Some(5),
                before: Some(45),
                backwards,
                page_size,
            });
            let mut seen = Vec::new();
            while let Some(options) = next {
                let page = store.read(&EventQuery::all(), options).await.unwrap();
                assert!(page.event_records.len() <= 7);
                seen.extend(
                    page.event_records
                        .iter()
                        .map(|record| record.sequence_number),
                );
                next = page.next;
            }
            if backwards {
                seen.reverse();
            }
            assert_eq!(seen, (6..45).collect::<Vec<u64>>());
        }
        // What is appended meanwhile belongs to the next read.
        let first = ReadOptions {
            page_size: NonZeroUsize::new(30).unwrap(),
            ..Default::default()
        };
        let page = store.read(&EventQuery::all(), first).await.unwrap();
        store.append(batch(51)).await.unwrap();
        let page = store
            .read(&EventQuery::all(), page.next.unwrap())
            .await
            .unwrap();
        assert_eq!(page.event_records.len(), 20);
        assert_eq!(page.next, None);
        let both = EventQuery::all().with_min_sequence_number(1);
        let twice = ReadOptions {
            after: Some(1),
            ..Default::default()
        };
        assert_eq!(
            store.read(&both, twice).await.unwrap_err().code(),
            "InvalidOptions"
        );
    });
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!([inner]))
}

#[test]
fn bad_input_is_refused_with_its_place() {
    on_every_store(|store| async move {
        let good = || event("good", json!({}));
        let cases = [
            (vec![], "EmptyAppend", ""),
            (
                vec![good(), event("", json!(1))],
                "InvalidEvent",
                "events[1].event_type: ",
            ),
            (
                vec![event(&"x".repeat(513), json!(1))],
                "InvalidEvent",
                "events[0].event_type: ",
            ),
            (
                vec![event("a\0", json!(1))],
                "InvalidEvent",
                "events[0].event_type: ",
            ),
            (
                vec![good(), good(), event("a", json!({ "note": ["", "\0"] }))],
                "InvalidEvent",
                "events[2].payload.note[1]: ",
            ),
            (
                vec![event("a", json!({ "k\0": 1 }))],
                "InvalidEvent",
                "events[0].payload",
            ),
            (
                vec![event("a", nested(101))],
                "InvalidEvent",
                "events[0].payload[0][0]",
            ),
            (
                vec![event("a", json!("x".repeat(1 << 24)))],
                "InvalidEvent",
                "events[0].payload: ",
            ),
        ];
        for (events, code, place) in cases {
            let error = store.append(events.clone()).await.unwrap_err();
            assert_eq!(error.code(), code, "{error}");
            assert!(error.to_string().starts_with(place), "{error}");
            let error = store
                .append_if(events, &EventQuery::all(), None)
                .await
                .unwrap_err();
            assert_eq!(error.code(), code, "{error}");
        }
        let error = store
            .query(&having(json!({ "a": "\0" })))
            .await
            .unwrap_err();
        assert_eq!(error.code(), "InvalidQuery");
        assert!(
            error
                .to_string()
                .starts_with("query.filters[0].payload_predicates[0].a: "),
            "{error}"
        );
        let error = store.query(&having(nested(101))).await.unwrap_err();
        assert_eq!(error.code(), "InvalidQuery");
        assert_eq!(store.head_sequence_number().await.unwrap(), None);
        let limits = vec![
            event(&"x".repeat(512), json!(1)),
            event("deep", nested(100)),
            event("large", json!("x".repeat((1 << 24) - 2))),
        ];
        assert_eq!(store.append(limits).await.unwrap().committed_count, 3);
        assert!(
            store
                .query(&having(nested(100)))
                .await
                .unwrap()
                .event_records
                .len()
                == 1
        );
    });
}

#[test]
fn a_closed_store_takes_nothing() {
    on_every_store(|store| async move {
        store.append(vec![event("a", json!(1))]).await.unwrap();
        store.close().await.unwrap();
        store.close().await.unwrap();
        let all = EventQuery::all();
        assert_eq!(
            store.append(vec![event("a", json!(1))]).await,
            Err(EventStoreError::StoreClosed)
        );
        assert_eq!(store.query(&all).await, Err(EventStoreError::StoreClosed));
        assert_eq!(
            store.head_sequence_number().await,
            Err(EventStoreError::StoreClosed)
        );
        let read = store.read(&all, ReadOptions::default()).await;
        assert_eq!(read, Err(EventStoreError::StoreClosed));
    });
}

/// `serde_json` gives some member names a meaning of its own; here they are names like any other.
#[test]
fn no_member_name_is_magic() {
    let names = [
        "$serde_json::private::RawValue",
        "$serde_json::private::Number",
    ];
    on_every_store(|store| async move {
        store.append(vec![event("a", json!({}))]).await.unwrap();
        let payloads: Vec<Value> = names
            .iter()
            .flat_map(|&name| ["[1,2]", "{{{", "{}", "1"].map(|text| json!({ name: text })))
            .collect();
        let events = payloads.iter().map(|payload| event("b", payload.clone()));
        store.append(events.collect()).await.unwrap();
        let all = store.query(&EventQuery::for_event_types(["b"])).await;
        let found: Vec<Value> = all
            .unwrap()
            .event_records
            .into_iter()
            .map(|record| record.payload)
            .collect();
        assert_eq!(found, payloads);
        for (payload, number) in payloads.into_iter().zip(2..) {
            let context = store.query(&having(payload)).await.unwrap();
            assert_eq!(context.event_records.len(), 1);
            assert_eq!(context.current_context_version, Some(number));
        }
    });
}

/// Events as small as they can be, all of them after some of them: sizes are the least there are.
#[test]
fn the_shortest_payloads_are_read_with_and_without_a_limit() {
    on_every_store(|store| async move {
        let events = (0..10).map(|_| event("a", json!(1)));
        store.append(events.collect()).await.unwrap();
        for limit in [Some(1), Some(3), None] {
            let limit = limit.and_then(NonZeroUsize::new);
            let result = store.query_with_limit(&EventQuery::all(), limit).await;
            let rows = result.unwrap().event_records.len();
            assert_eq!(rows, limit.map_or(10, NonZeroUsize::get));
        }
    });
}
