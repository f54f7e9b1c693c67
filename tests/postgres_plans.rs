//! What the server reads to answer: bounded by the answer, and not by what is stored. Whatever the planner
//! knows of the tables: nothing, much, or that they were empty when it planned.
//!
//! Rows and blocks are counted where the functions run, so these are no estimates; times are not looked at.

#![allow(clippy::unwrap_used, clippy::print_stdout, unreachable_pub)]

#[allow(dead_code)]
mod stores;

use std::num::NonZeroUsize;
use std::sync::Arc;

use factstr::{
    DurableStream, EventFilter, EventQuery, EventStore, EventStoreError, HandleStream, NewEvent,
    PostgresStore, PostgresStoreOptions, ReadOptions, StreamHandlerError,
};
use serde_json::{Value, json};
use stores::postgres::{Afterwards, Schema, quoted};
use tokio_postgres::Client;

const EVENTS: u64 = 1_000_000;
/// Of one append.
const BATCH: u64 = 10;
/// Events of a rare context.
const RARE: u64 = 10;
/// Every such event is in both of two huge facets.
const BOTH: u64 = 100_000;

fn event(number: u64) -> NewEvent {
    let even = number.is_multiple_of(2);
    let mut payload = json!({
        "id": number,
        // One context is spread over a tenth of the log.
        "context": number % (EVENTS / RARE / 10) + EVENTS * (number * 10 / EVENTS),
        "half": even,
        "all": true,
        // Two halves that meet now and then, and two that never do.
        "left": even || number % BOTH == 1,
        "right": !even,
        "odd": { "even": even },
    });
    if number == EVENTS / 2 {
        payload["once"] = json!("yes");
    }
    NewEvent::new(format!("type-{}", number % 4), payload)
}

fn having(predicate: Value) -> EventQuery {
    any_of([predicate])
}

fn any_of(predicates: impl IntoIterator<Item = Value>) -> EventQuery {
    EventQuery::all().with_filters([EventFilter::default().with_payload_predicates(predicates)])
}

/// A question of which the server counts what it reads.
#[derive(Clone)]
enum Ask {
    Query(EventQuery, Option<usize>),
    Backwards(EventQuery, usize),
    /// The version is what the store has just read, or what only the context itself tells.
    AppendIf(EventQuery, Version),
    /// What a durable stream reads from there on, until its handler fails at the first batch.
    Stream(EventQuery, u64),
}

#[derive(Clone, Copy)]
enum Version {
    /// Read by the same store just before.
    Known,
    /// Read by another store.
    Unknown,
    Wrong,
}

/// As a store writes them down.
fn filters_of(query: &EventQuery) -> Value {
    let filters = query.filters.iter().flatten();
    filters
        .map(|filter| {
            let mut json = json!({});
            if let Some(types) = &filter.event_types {
                json["event_types"] = json!(types);
            }
            if let Some(predicates) = &filter.payload_predicates {
                json["payload_predicates"] = json!(predicates);
            }
            json
        })
        .collect()
}

struct Question {
    name: &'static str,
    ask: Ask,
    /// The most rows of the tables that are to be fetched.
    rows: i64,
}

fn questions() -> Vec<Question> {
    let mut questions = Vec::new();
    let mut add = |name, rows, ask| questions.push(Question { name, ask, rows });
    let rare = having(json!({ "context": 77 }));
    let empty = having(json!({ "context": "nowhere" }));
    let huge = having(json!({ "half": true }));
    let every = having(json!({ "all": true }));
    let huge_type = EventQuery::for_event_types(["type-1", "type-2"]);
    let all = EventQuery::all();
    let once = having(json!({ "once": "yes" }));
    let rare_in_huge = having(json!({ "half": true, "context": 78 }));
    let few = having(json!({ "left": true, "right": true }));
    let none = having(json!({ "half": true, "odd": { "even": false } }));
    let many = any_of((0..200).map(|number| json!({ "context": number * 7 })));
    let many_huge = any_of((0..200).map(|number| json!({ "all": true, "id": number })));
    let after = |query: &EventQuery, number| query.clone().with_min_sequence_number(number);
    let middle = EVENTS / 2;

    add("rare", 60, Ask::Query(rare.clone(), None));
    add(
        "rare, after the middle, 3",
        60,
        Ask::Query(after(&rare, middle), Some(3)),
    );
    add("once", 20, Ask::Query(once.clone(), None));
    add("empty", 10, Ask::Query(empty.clone(), None));
    add(
        "empty, after the middle, 10",
        10,
        Ask::Query(after(&empty, middle), Some(10)),
    );
    for (name, query) in [
        ("huge, 10", &huge),
        ("every, 10", &every),
        ("huge by type, 10", &huge_type),
        ("all, 10", &all),
    ] {
        add(name, 100, Ask::Query(query.clone(), Some(10)));
        let name = name.to_owned().leak();
        add(name, 100, Ask::Query(after(query, middle), Some(10)));
        add(name, 100, Ask::Query(after(query, EVENTS - 1), Some(10)));
        add(name, 100, Ask::Query(after(query, u64::MAX), Some(10)));
        add("backwards", 100, Ask::Backwards(query.clone(), 10));
    }
    add("rare in huge", 200, Ask::Query(rare_in_huge.clone(), None));
    add(
        "200 alternatives, 10",
        12_000,
        Ask::Query(many.clone(), Some(10)),
    );
    add("200 alternatives", 30_000, Ask::Query(many.clone(), None));
    add(
        "200 alternatives in huge",
        30_000,
        Ask::Query(many_huge.clone(), None),
    );
    // A match is looked for among all that have the rarer facet: no more than once.
    let most = EVENTS as i64 * 5 / 4;
    add("two huge, few in both", most, Ask::Query(few.clone(), None));
    add(
        "two huge, few in both, 1",
        most,
        Ask::Query(few.clone(), Some(1)),
    );
    add(
        "two huge, none in both",
        most,
        Ask::Query(none.clone(), None),
    );

    for (name, query) in [
        ("stream of all", &all),
        ("stream of rare", &rare),
        ("stream of huge", &huge),
    ] {
        for after in [0, middle, EVENTS - 10] {
            add(name, 10_000, Ask::Stream(query.clone(), after));
        }
    }
    for (name, query, rows) in [
        ("if rare", &rare, 40),
        ("if empty", &empty, 20),
        ("if once", &once, 20),
        ("if huge", &huge, 100),
        ("if every", &every, 100),
        ("if huge by type", &huge_type, 100),
        ("if all", &all, 20),
        ("if rare in huge", &rare_in_huge, 200),
        ("if 200 alternatives", &many, 12_000),
        ("if 200 alternatives in huge", &many_huge, 12_000),
        ("if two huge, few in both", &few, most),
        ("if two huge, none in both", &none, most),
    ] {
        // What is known of a version is remembered unless the filters are long.
        let few = if rows == most { 10 } else { rows };
        add(name, few, Ask::AppendIf(query.clone(), Version::Known));
        // Both look for the whole context, which takes its time where that is all there is.
        if rows < most {
            add(name, rows, Ask::AppendIf(query.clone(), Version::Unknown));
        }
        add(name, rows, Ask::AppendIf(query.clone(), Version::Wrong));
    }
    questions
}

/// Puts functions in the place of two of the store's that note what those read.
const NOTE: &str = r"
CREATE TABLE noted (function text, seq_scans bigint, rows bigint, entries bigint, blocks bigint);
CREATE FUNCTION note_now() RETURNS bigint[] LANGUAGE sql VOLATILE AS $note$
  SELECT ARRAY[
    sum(CASE WHEN c.relkind = 'r' THEN pg_stat_get_xact_numscans(c.oid) ELSE 0 END),
    -- Rows that an index led to are counted as the index's.
    sum(pg_stat_get_xact_tuples_fetched(c.oid)
      + CASE WHEN c.relkind = 'r' THEN pg_stat_get_xact_tuples_returned(c.oid) ELSE 0 END),
    sum(CASE WHEN c.relkind = 'i' THEN pg_stat_get_xact_tuples_returned(c.oid) ELSE 0 END),
    sum(pg_stat_get_xact_blocks_fetched(c.oid))
  ]::bigint[] FROM pg_class c
  WHERE c.oid IN ('events'::regclass, 'event_postings'::regclass, 'events_pkey'::regclass,
    'event_postings_pkey'::regclass, 'append_batches'::regclass, 'append_batches_pkey'::regclass)
$note$ SET search_path FROM CURRENT;
CREATE FUNCTION note_since(function text, before bigint[]) RETURNS void LANGUAGE plpgsql AS $note$
DECLARE
  after bigint[] := note_now();
BEGIN
  INSERT INTO noted VALUES (function, after[1] - before[1], after[2] - before[2], after[3] - before[3],
    after[4] - before[4]);
END
$note$ SET search_path FROM CURRENT;
DO $do$
DECLARE
  one record;
BEGIN
  FOR one IN SELECT p.proname AS name, p.pronargs AS count, p.proretset AS rows,
      pg_get_function_arguments(p.oid) AS arguments, pg_get_function_result(p.oid) AS result,
      quote_ident(current_schema()) AS home,
      (SELECT string_agg('$' || n, ', ' ORDER BY n) FROM generate_series(1, p.pronargs) n) AS given
    FROM pg_proc p WHERE p.pronamespace = quote_ident(current_schema())::regnamespace
    AND p.proname IN ('factstr_page', 'factstr_few', 'factstr_events', 'factstr_append', 'factstr_batches',
      'factstr_batches_of')
  LOOP
    EXECUTE format('ALTER FUNCTION %I SET SCHEMA %I', one.name, current_schema() || ' real');
    EXECUTE format('CREATE FUNCTION %I(%s) %s LANGUAGE plpgsql AS %L', one.name, one.arguments,
      CASE WHEN one.rows THEN 'RETURNS ' || one.result ELSE '' END, format('
      DECLARE
        before_it bigint[] := %s.note_now();
      BEGIN
        %s %s.%I(%s);
        PERFORM %s.note_since(%L, before_it);
        %s
      END', one.home,
      CASE WHEN one.rows THEN 'RETURN QUERY SELECT * FROM'
      ELSE 'SELECT * INTO head, occurred_at, verdicts, listened FROM' END,
      quote_ident(current_schema() || ' real'), one.name, one.given, one.home, one.name,
      CASE WHEN one.rows THEN '' ELSE 'RETURN;' END));
  END LOOP;
END
$do$;
ALTER TABLE events SET (autovacuum_enabled = false);
ALTER TABLE event_postings SET (autovacuum_enabled = false);
";

struct Bench {
    schema: Schema,
    client: Client,
    failures: Vec<String>,
}

impl Bench {
    /// A store whose reads all have the same session.
    async fn open(&self) -> PostgresStore {
        let options = PostgresStoreOptions {
            max_connections: 1,
            ..self.schema.options()
        };
        PostgresStore::connect_with(&self.schema.url, options)
            .await
            .unwrap()
    }

    async fn forget_notes(&self) {
        self.client.batch_execute("TRUNCATE noted").await.unwrap();
    }

    /// Asks, and returns how many rows were found.
    async fn ask(&self, store: &PostgresStore, ask: &Ask) -> usize {
        match ask {
            Ask::Query(query, limit) => {
                self.forget_notes().await;
                let limit = limit.and_then(NonZeroUsize::new);
                let found = store.query_with_limit(query, limit).await.unwrap();
                found.event_records.len()
            }
            Ask::Backwards(query, count) => {
                self.forget_notes().await;
                let options = ReadOptions {
                    backwards: true,
                    page_size: NonZeroUsize::new(*count).unwrap(),
                    ..ReadOptions::default()
                };
                let page = store.read(query, options).await.unwrap();
                page.event_records.len()
            }
            Ask::Stream(query, after) => {
                let name = DurableStream::new("probe");
                let handle =
                    || HandleStream::new(|_| async { Err(StreamHandlerError::new("enough")) });
                drop(store.delete_durable_stream(&name).await);
                let made = "INSERT INTO durable_streams (name, filters, position, fencing)
                            VALUES ('probe', $1, $2, 0)";
                let filters = serde_json::to_string(&filters_of(query)).unwrap();
                self.client
                    .execute(made, &[&filters, &(*after as i64)])
                    .await
                    .unwrap();
                self.forget_notes().await;
                match store.stream_to_durable(&name, query, handle()).await {
                    Ok(stream) => stream.unsubscribe().await,
                    Err(error) => assert_eq!(error.code(), "StreamHandlerFailed", "{error}"),
                }
                0
            }
            Ask::AppendIf(query, version) => {
                let one = NonZeroUsize::new(1);
                let other = match version {
                    Version::Known => None,
                    Version::Unknown | Version::Wrong => Some(self.open().await),
                };
                let reader = other.as_ref().unwrap_or(store);
                let found = reader.query_with_limit(query, one).await.unwrap();
                if let Some(other) = other {
                    other.close().await.unwrap();
                }
                let expected = match version {
                    Version::Wrong => Some(4),
                    _ => found.current_context_version,
                };
                self.forget_notes().await;
                let probe = vec![NewEvent::new("probe", json!("probe"))];
                let appended = store.append_if(probe, query, expected).await;
                match (appended, version) {
                    (Ok(_), Version::Known | Version::Unknown) => 1,
                    (
                        Err(EventStoreError::ConditionalAppendConflict { actual, .. }),
                        Version::Wrong,
                    ) => {
                        assert_eq!(actual, found.current_context_version);
                        0
                    }
                    (other, _) => panic!("{other:?}"),
                }
            }
        }
    }

    async fn measure(&mut self, state: &str, store: Option<&PostgresStore>) {
        for question in questions() {
            let own = match store {
                Some(_) => None,
                None => Some(self.open().await),
            };
            let asked = store.or(own.as_ref()).unwrap();
            let found = self.ask(asked, &question.ask).await;
            let sql = "SELECT count(*), sum(seq_scans)::bigint, sum(rows)::bigint,
                         sum(entries)::bigint, sum(blocks)::bigint FROM noted";
            let row = self.client.query_one(sql, &[]).await.unwrap();
            let number = |index: usize| row.get::<_, Option<i64>>(index).unwrap_or(-1);
            let (calls, seq_scans, rows, entries, blocks) =
                (number(0), number(1), number(2), number(3), number(4));
            let detail = match &question.ask {
                Ask::Query(query, _) => query
                    .min_sequence_number
                    .map_or(String::new(), |after| format!(" after {after}")),
                Ask::AppendIf(_, Version::Known) => " known".to_owned(),
                Ask::AppendIf(_, Version::Unknown) => " unknown".to_owned(),
                Ask::AppendIf(_, Version::Wrong) => " wrong".to_owned(),
                Ask::Stream(_, after) => format!(" after {after}"),
                Ask::Backwards(..) => String::new(),
            };
            let name = format!("{state}: {}{detail}", question.name);
            println!(
                "{name}: found {found}, calls {calls}, rows {rows}, entries {entries}, blocks {blocks}"
            );
            // A row is one entry, and takes a walk from the index's root at most.
            let most_blocks = question.rows * 6 + 200;
            let most_calls = match &question.ask {
                // Events and their batches, and again when it has caught up.
                Ask::Stream(..) => 16,
                // What begins with many candidates is asked for again.
                _ => 2 + question.rows / 10_000,
            };
            if !(1..=most_calls).contains(&calls)
                || seq_scans != 0
                || rows > question.rows
                || entries > question.rows
                || blocks > most_blocks
            {
                self.failures.push(format!(
                    "{name}: {calls} calls of at most {most_calls}, {seq_scans} sequential scans, {rows} rows and {entries} \
                     entries of at most {}, {blocks} blocks of at most {most_blocks}",
                    question.rows
                ));
            }
            if let Some(own) = own {
                own.close().await.unwrap();
            }
        }
    }
}

async fn load(store: Arc<PostgresStore>) {
    let mut appends = std::collections::VecDeque::new();
    for first in (1..=EVENTS).step_by(BATCH as usize) {
        let batch: Vec<NewEvent> = (first..first + BATCH).map(event).collect();
        let store = store.clone();
        appends.push_back(tokio::spawn(async move { store.append(batch).await }));
        if appends.len() >= 1_024 {
            appends.pop_front().unwrap().await.unwrap().unwrap();
        }
    }
    for append in appends {
        append.await.unwrap().unwrap();
    }
    assert_eq!(store.head_sequence_number().await.unwrap(), Some(EVENTS));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_is_bounded_by_the_answer() {
    let schema = Schema::new();
    schema.open().await.close().await.unwrap();
    let client = schema.client().await;
    // Functions may name themselves, so theirs must not change.
    let real = quoted(&format!("{} real", schema.name));
    let create = format!("CREATE SCHEMA {real}");
    client.batch_execute(&create).await.unwrap();
    let _real = Afterwards(format!("DROP SCHEMA {real} CASCADE"));
    client.batch_execute(NOTE).await.unwrap();
    let mut bench = Bench {
        schema,
        client,
        failures: Vec::new(),
    };

    // Every statement is planned, and its plan kept, while there is nothing.
    let early = bench.open().await;
    for question in questions() {
        match &question.ask {
            Ask::AppendIf(query, _) => {
                let probe = vec![NewEvent::new("probe", json!("probe"))];
                let refused = early.append_if(probe, query, Some(1)).await;
                assert_eq!(refused.unwrap_err().code(), "ConditionalAppendConflict");
            }
            ask => drop(bench.ask(&early, ask).await),
        }
    }
    let loading = Arc::new(bench.open().await);
    load(loading.clone()).await;
    loading.close().await.unwrap();

    // What is counted is counted.
    let scan = "DO $$ DECLARE before bigint[] := note_now(); BEGIN
                  SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off;
                  SET LOCAL max_parallel_workers_per_gather = 0;
                  PERFORM count(*) FROM events WHERE payload_json <> ''; PERFORM note_since('scan', before);
                END $$";
    bench.forget_notes().await;
    bench.client.batch_execute(scan).await.unwrap();
    let noted = "SELECT count(*) FROM noted WHERE seq_scans >= 1 AND rows >= $1";
    let noted = bench.client.query_one(noted, &[&(EVENTS as i64)]).await;
    assert_eq!(noted.unwrap().get::<_, i64>(0), 1);

    bench.measure("never analysed", None).await;
    bench.measure("planned when empty", Some(&early)).await;
    let analyze = "ANALYZE events; ANALYZE event_postings";
    bench.client.batch_execute(analyze).await.unwrap();
    bench.measure("analysed", None).await;
    early.close().await.unwrap();
    let failures = bench.failures.join("\n");
    assert!(failures.is_empty(), "{failures}");
}
