//! Payloads come back as they went in, and the server tells a match as the contract does.

#![allow(clippy::unwrap_used, clippy::print_stdout, unreachable_pub)]

#[allow(dead_code)]
mod oracle;
#[allow(dead_code)]
mod stores;

use factstr::{
    EventFilter, EventQuery, EventStore, EventStoreError, MemoryStore, NewEvent, PostgresStore,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value, json};
use stores::postgres::Schema;
use tokio_postgres::Client;

fn having(predicate: Value) -> EventQuery {
    EventQuery::all().with_filters([EventFilter::default().with_payload_predicates([predicate])])
}

/// Numbers at the borders of what text, 64 bits, floats and `numeric` hold.
fn corners() -> Vec<Value> {
    let mut floats = vec![
        0.0,
        1.0,
        0.1,
        0.2 + 0.1,
        1.0 / 3.0,
        1.5,
        1e15,
        1e16,
        1e17,
        1e21,
        1e22,
        1e23,
        1e300,
        1e-7,
        1e-300,
        5e-324,
        f64::MIN_POSITIVE,
        f64::MIN_POSITIVE - 5e-324,
        f64::MAX,
        f64::EPSILON,
        9.223_372_036_854_77e18,
        123_456_789_012_345_680.0,
        2.0_f64.powi(53),
        2.0_f64.powi(53) + 2.0,
        2.0_f64.powi(60),
        2.0_f64.powi(63),
        2.0_f64.powi(63) - 1024.0,
        2.0_f64.powi(63) + 2048.0,
        2.0_f64.powi(64),
        2.0_f64.powi(64) - 2048.0,
        2.0_f64.powi(64) + 4096.0,
        2.0_f64.powi(200),
    ];
    floats.extend(floats.clone().iter().map(|float| -float));
    let mut numbers: Vec<Value> = floats.iter().map(|&float| json!(float)).collect();
    // The same as integers, and what is next to them.
    for float in floats {
        for near in [-1, 0, 1_i128] {
            let integer = (float as i128).saturating_add(near);
            if let Ok(natural) = u64::try_from(integer) {
                numbers.push(json!(natural));
            } else if let Ok(negative) = i64::try_from(integer) {
                numbers.push(json!(negative));
            }
        }
        // What the shortest digits of the float are as an integer.
        if let Ok(digits) = format!("{float:e}").parse::<f64>()
            && let Ok(integer) = shown(digits).parse::<u64>()
        {
            numbers.push(json!(integer));
        }
    }
    numbers.push(json!(u64::MAX));
    numbers.push(json!(i64::MIN));
    numbers
}

/// As JavaScript shows it: the shortest digits, then zeros.
fn shown(float: f64) -> String {
    let text = format!("{float:e}");
    let (digits, exponent) = text.split_once('e').unwrap();
    let exponent: i32 = exponent.parse().unwrap();
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if exponent < fraction.len() as i32 || exponent > 25 {
        return float.to_string();
    }
    let zeros = exponent as usize - fraction.len();
    format!("{whole}{fraction}{}", "0".repeat(zeros))
}

fn strings() -> Vec<Value> {
    [
        "",
        " ",
        "a",
        "A",
        "1",
        "null",
        "ä",
        "a\u{308}",
        "\u{FEFF}",
        "\u{FEFF}a",
        "\u{1}\u{1f}\u{7f}",
        "\"\\/\u{8}\u{c}\n\r\t",
        "\u{2028}\u{2029}",
        "\u{FFFD}\u{FFFF}\u{10FFFF}",
        "\u{D7FF}\u{E000}",
        "\u{1F600}",
        "$$ $1 '; --",
        "\\u0041",
        "%s {}",
        "\u{200B}",
        "ﬀ",
        "İ",
        "ß",
    ]
    .iter()
    .map(|text| json!(text))
    .collect()
}

fn containers() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(false),
        json!([]),
        json!({}),
        json!([[]]),
        json!([{}]),
        json!([[], {}]),
        json!([[[]]]),
        json!({ "": {} }),
        json!({ "": [] }),
        json!([null]),
        json!([1, [2, [3]]]),
        json!({ "z": 1, "a": 2, "aa": 3, "b": 4, "": 5, "10": 6, "9": 7 }),
        json!({ "__proto__": 1, "constructor": { "prototype": [] }, "\u{FEFF}": "\u{FEFF}" }),
    ]
}

#[tokio::test]
async fn payloads_come_back_as_they_went_in() {
    let schema = Schema::new();
    let store = schema.open().await;
    let mut payloads = corners();
    payloads.extend(strings());
    payloads.extend(containers());
    let together = Value::Array(payloads.clone());
    payloads.push(together);
    let keys: Map<String, Value> = strings()
        .iter()
        .map(|key| (key.as_str().unwrap().to_owned(), key.clone()))
        .collect();
    payloads.push(Value::Object(keys));
    payloads.push((0..100).fold(json!(1), |inner, _| json!([inner])));
    payloads.push(
        (0..100)
            .fold(
                json!("\u{FEFF}"),
                |inner, level| json!({ "z": level, "a": inner }),
            )
            .get("a")
            .unwrap()
            .clone(),
    );
    let events: Vec<NewEvent> = payloads
        .iter()
        .map(|payload| NewEvent::new("p\u{FEFF}", payload.clone()))
        .collect();
    store.append(events).await.unwrap();
    let again = schema.open().await;
    let found = again.query(&EventQuery::all()).await.unwrap().event_records;
    assert_eq!(found.len(), payloads.len());
    for (record, payload) in found.iter().zip(&payloads) {
        assert_eq!(record.payload, *payload);
        // Key order and the sign of zero, too.
        assert_eq!(record.payload.to_string(), payload.to_string());
        assert_eq!(record.event_type, "p\u{FEFF}");
    }
    // Each is found by itself, alike by the one who reads and by the server.
    for payload in &payloads {
        let query = having(payload.clone());
        let numbers = store.query(&query).await.unwrap();
        assert!(
            numbers
                .event_records
                .iter()
                .any(|record| record.payload == *payload),
            "{payload}"
        );
        let refused = again
            .append_if(vec![NewEvent::new("never", json!(0))], &query, Some(9_999))
            .await;
        assert_eq!(
            refused,
            Err(EventStoreError::ConditionalAppendConflict {
                expected: Some(9_999),
                actual: numbers.current_context_version
            }),
            "{payload}"
        );
    }
    // psql can show all of them.
    let client = schema.client().await;
    let shown = "SELECT count(payload), count(DISTINCT payload::text) FROM facts";
    let row = client.query_one(shown, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), payloads.len() as i64);
    store.close().await.unwrap();
    again.close().await.unwrap();
}

#[tokio::test]
async fn the_largest_payloads_are_stored_and_matched() {
    const MOST: usize = 16 * 1024 * 1024;
    let schema = Schema::new();
    let store = schema.open().await;
    let text = json!("ä".repeat((MOST - 2) / 2));
    let mut words: Vec<Value> = vec![json!("needle")];
    words.extend(std::iter::repeat_n(json!([]), (MOST - 12) / 3));
    let empties = Value::Array(words);
    let key = json!({ "k".repeat(MOST - 6): 1 });
    let large = [
        (text.clone(), text),
        (empties, json!(["needle", []])),
        (key.clone(), key),
    ];
    for (payload, predicate) in large {
        assert!(payload.to_string().len() <= MOST);
        let event = NewEvent::new("large", payload.clone());
        let stored = store.append(vec![event]).await.unwrap();
        let query = having(predicate);
        let found = store.query(&query).await;
        match found {
            Ok(found) => {
                assert_eq!(found.event_records.len(), 1);
                assert!(found.event_records[0].payload == payload);
            }
            // A predicate has the limit of a payload, less what surrounds it.
            Err(error) => assert_eq!(error.code(), "InvalidQuery", "{error}"),
        }
        let query = EventQuery::all().with_filters([EventFilter::for_event_types(["large"])
            .with_payload_predicates([
                json!(["needle", [], "absent"]),
                json!(["needle"]),
                json!({}),
            ])]);
        let never = vec![NewEvent::new("never", json!(0))];
        let refused = store
            .append_if(never, &query, Some(9_999))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), "ConditionalAppendConflict", "{refused}");
        assert!(stored.first_sequence_number <= 3);
    }
    store.close().await.unwrap();
}

/// As many different facts as one payload can hold.
#[tokio::test]
async fn a_payload_of_a_million_facts_is_stored_and_found() {
    let schema = Schema::new();
    let store = schema.open().await;
    let numbers: Vec<u64> = (0..1_800_000).collect();
    let event = NewEvent::new("many", json!(numbers));
    store.append(vec![event]).await.unwrap();
    let found = store.query(&having(json!([1_799_999, 3]))).await.unwrap();
    assert_eq!(found.current_context_version, Some(1));
    let none = having(json!([1_800_000]));
    let next = NewEvent::new("next", json!(1));
    let appended = store.append_if(vec![next], &none, None).await.unwrap();
    assert_eq!(appended.first_sequence_number, 2);
    store.close().await.unwrap();
}

fn leaf() -> impl Strategy<Value = Value> {
    let any_float =
        any::<f64>().prop_filter_map("finite", |float| float.is_finite().then(|| json!(float)));
    let integral = any::<u64>().prop_flat_map(|number| {
        let float = number as f64;
        let exact = json!(float as u64);
        let digits: Value = serde_json::from_str(&shown(float)).unwrap();
        prop::sample::select(vec![json!(number), json!(float), exact, digits])
    });
    prop_oneof![
        6 => prop::sample::select(vec![
            json!(null), json!(true), json!(false), json!(0), json!(-0.0), json!(1), json!(1.0), json!("1"),
            json!(0.1), json!(""), json!("a"), json!("\u{FEFF}"), json!("ä"), json!("a\u{308}"),
        ]),
        2 => prop::sample::select(corners()),
        1 => prop::sample::select(strings()),
        1 => any_float,
        1 => integral,
        1 => any::<i64>().prop_map(|number| json!(number)),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec(("[ab\u{FEFF}]{0,1}", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Parts of a payload, so that matches and near misses are frequent.
fn part_of(payload: &Value, choose: &mut impl FnMut(usize) -> usize) -> Value {
    match payload {
        _ if choose(12) == 0 => json!(choose(2)),
        Value::Array(elements) => {
            let mut kept: Vec<Value> = Vec::new();
            for element in elements {
                if choose(2) == 0 {
                    kept.insert(choose(kept.len() + 1), part_of(element, choose));
                }
            }
            if choose(8) == 0 {
                json!([kept])
            } else {
                Value::Array(kept)
            }
        }
        Value::Object(members) => {
            let mut kept = Map::new();
            for (key, value) in members {
                if choose(2) == 0 {
                    kept.insert(key.clone(), part_of(value, choose));
                }
            }
            Value::Object(kept)
        }
        Value::Number(number) => match choose(3) {
            0 => json!(number.as_f64()),
            1 => number
                .as_f64()
                .and_then(|float| serde_json::from_str(&shown(float)).ok())
                .unwrap_or_else(|| payload.clone()),
            _ => payload.clone(),
        },
        scalar if choose(10) == 0 => json!([scalar]),
        scalar => scalar.clone(),
    }
}

/// Keeps what the store asks of the server, instead of an answer.
const KEEP: &str = "
    CREATE TABLE asked (context jsonb);
    CREATE OR REPLACE FUNCTION factstr_newest(context jsonb, after bigint, through bigint)
    RETURNS bigint LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$ BEGIN
      INSERT INTO asked VALUES (context);
      RETURN 0;
    END $$";

/// Which events after `first` the server takes for matches, in whatever form the store tells it the query.
async fn asked(client: &Client, store: &PostgresStore, query: &EventQuery, first: u64) -> Vec<u64> {
    let never = vec![NewEvent::new("never", json!(0))];
    let refused = store.append_if(never, query, Some(u64::MAX)).await;
    assert_eq!(refused.unwrap_err().code(), "ConditionalAppendConflict");
    let sql = "WITH a AS (DELETE FROM asked RETURNING context)
               SELECT e.sequence_number - $1 FROM a, events e WHERE e.sequence_number > $1
               AND factstr_matches(a.context -> 'filters', e.event_type, e.payload_json::jsonb) ORDER BY 1";
    let rows = client.query(sql, &[&(first as i64)]).await.unwrap();
    rows.iter().map(|row| row.get::<_, i64>(0) as u64).collect()
}

/// Every predicate against every payload: what the server's function says, what the crate says, and what the
/// contract says in its plainest words.
#[tokio::test]
async fn the_server_matches_as_the_contract_does() {
    const ROUNDS: usize = 5;
    const EVENTS: usize = 150;
    let schema = Schema::new();
    let mut runner = TestRunner::default();
    let mut matches = 0;
    let store = schema.open().await;
    let client = schema.client().await;
    client.batch_execute(KEEP).await.unwrap();
    for _ in 0..ROUNDS {
        let strategy = prop::collection::vec(("[ab]", value()), EVENTS);
        let events = strategy.new_tree(&mut runner).unwrap().current();
        let first = store.head_sequence_number().await.unwrap().unwrap_or(0);
        let new_events: Vec<NewEvent> = events
            .iter()
            .map(|(name, payload)| NewEvent::new(name.as_str(), payload.clone()))
            .collect();
        let memory = MemoryStore::new();
        memory.append(new_events.clone()).await.unwrap();
        store.append(new_events).await.unwrap();
        let mut choose = |below: usize| (runner.rng().next_u32() as usize) % below;
        let filters: Vec<EventFilter> = events
            .iter()
            .map(|(_, payload)| {
                let mut predicates = vec![part_of(payload, &mut choose)];
                if choose(6) == 0 {
                    predicates.push(part_of(&events[choose(EVENTS)].1, &mut choose));
                }
                let types = [
                    None,
                    None,
                    Some(vec!["a"]),
                    Some(vec!["a", "b"]),
                    Some(vec![]),
                ];
                EventFilter {
                    event_types: types[choose(types.len())]
                        .as_ref()
                        .map(|types| types.iter().map(ToString::to_string).collect()),
                    payload_predicates: (choose(30) > 0).then_some(predicates),
                }
            })
            .collect();
        for filter in filters {
            let query = EventQuery::all().with_filters([filter]);
            let after = query.clone().with_min_sequence_number(first);
            let told = memory.query(&query).await.unwrap();
            let told: Vec<u64> = told
                .event_records
                .iter()
                .map(|record| record.sequence_number)
                .collect();
            let plainly: Vec<u64> = (1..)
                .zip(&events)
                .filter(|(_, (name, payload))| oracle::matches(&query, name, payload))
                .map(|(number, _)| number)
                .collect();
            assert_eq!(told, plainly, "{query:?}");
            let found = store.query(&after).await.unwrap();
            let found: Vec<u64> = found
                .event_records
                .iter()
                .map(|record| record.sequence_number - first)
                .collect();
            assert_eq!(found, plainly, "{query:?}");
            let by_server = asked(&client, &store, &query, first).await;
            for number in 1..=EVENTS as u64 {
                let (name, payload) = &events[number as usize - 1];
                assert_eq!(
                    by_server.contains(&number),
                    plainly.contains(&number),
                    "{query:?} and {name} {payload}"
                );
            }
            matches += plainly.len();
        }
    }
    assert!(matches > ROUNDS * EVENTS, "{matches} matches");
    store.close().await.unwrap();
}
