//! Streams through the Rust API, on every store.

#![allow(clippy::unwrap_used, clippy::print_stdout, unreachable_pub)]

mod stores;

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use factstr::{
    DurableStream, DurableStreamOptions, EventFilter, EventQuery, EventRecord, EventStore,
    EventStoreError, HandleStream, IfActive, MemoryStore, NewEvent, RetryPolicy, StreamEndReason,
    StreamHandlerError, StreamOptions,
};
use serde_json::{Value, json};
use stores::{Place, on_every_store, until};
use tokio::sync::Notify;

fn event(number: u64) -> NewEvent {
    NewEvent::new(
        format!("type-{}", number % 3),
        json!({ "n": number, "even": number.is_multiple_of(2) }),
    )
}

fn batch(numbers: std::ops::RangeInclusive<u64>) -> Vec<NewEvent> {
    numbers.map(event).collect()
}

fn even() -> EventQuery {
    EventQuery::all()
        .with_filters([EventFilter::default().with_payload_predicates([json!({ "even": true })])])
}

fn named(name: &str) -> DurableStream {
    DurableStream::new(name)
}

/// What a handler was called with: the sequence numbers of each call.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Vec<u64>>>>);

impl Seen {
    fn push(&self, records: &[EventRecord]) {
        let numbers = records.iter().map(|record| record.sequence_number);
        self.0.lock().unwrap().push(numbers.collect());
    }

    fn handler(&self) -> HandleStream {
        let seen = self.clone();
        HandleStream::new(move |batch| {
            seen.push(&batch);
            async { Ok(()) }
        })
    }

    fn calls(&self) -> Vec<Vec<u64>> {
        self.0.lock().unwrap().clone()
    }

    fn numbers(&self) -> Vec<u64> {
        self.calls().concat()
    }

    async fn reaches(&self, calls: usize) {
        until(|| self.0.lock().unwrap().len() >= calls).await;
    }
}

fn failing(message: &'static str) -> HandleStream {
    HandleStream::new(move |_| async move { Err(StreamHandlerError::new(message)) })
}

#[test]
fn a_handler_is_an_async_closure() {
    on_every_store(|store| async move {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let handle = HandleStream::new(move |batch| {
            let counted = counted.clone();
            async move {
                counted.fetch_add(batch.len(), Ordering::SeqCst);
                Ok(())
            }
        });
        let stream = store.stream_all(handle).await.unwrap();
        store.append(batch(1..=3)).await.unwrap();
        until(|| count.load(Ordering::SeqCst) == 3).await;
        stream.unsubscribe().await;
    });
}

#[test]
fn live_streams_deliver_what_comes_after_them() {
    on_every_store(|store| async move {
        store.append(batch(1..=2)).await.unwrap();
        let (all, some) = (Seen::default(), Seen::default());
        let everything = store.stream_all(all.handler()).await.unwrap();
        let filtered = store.stream_to(&even(), some.handler()).await.unwrap();
        assert_eq!(everything.position(), 0);
        store.append(batch(3..=6)).await.unwrap();
        store.append(batch(7..=7)).await.unwrap();
        let refused = store.append_if(batch(8..=8), &even(), None).await;
        assert_eq!(refused.unwrap_err().code(), "ConditionalAppendConflict");
        store.append(batch(8..=9)).await.unwrap();
        all.reaches(3).await;
        some.reaches(2).await;
        assert_eq!(all.calls(), [vec![3, 4, 5, 6], vec![7], vec![8, 9]]);
        assert_eq!(some.calls(), [vec![4, 6], vec![8]]);
        until(|| everything.position() == 9 && filtered.position() == 9).await;
        everything.unsubscribe().await;
        everything.unsubscribe().await;
        assert_eq!(
            everything.closed().await.reason,
            StreamEndReason::Unsubscribed
        );
        store.append(batch(10..=10)).await.unwrap();
        some.reaches(3).await;
        assert_eq!(all.calls().len(), 3);
        assert!(
            store.list_durable_streams().await.unwrap().is_empty(),
            "a live stream leaves nothing"
        );
    });
}

#[test]
fn records_come_as_they_were_appended() {
    on_every_store(|store| async move {
        let live: Arc<Mutex<Vec<EventRecord>>> = Arc::default();
        let kept = live.clone();
        let handle = HandleStream::new(move |batch| {
            kept.lock().unwrap().extend(batch);
            async { Ok(()) }
        });
        store.stream_all(handle).await.unwrap();
        let payload = json!({ "z": [1.5, "ä\u{1F600}\"\\"], "a": null });
        let events = vec![NewEvent::new("é", payload), NewEvent::new("b", json!(1))];
        store.append(events).await.unwrap();
        until(|| live.lock().unwrap().len() == 2).await;
        let read = store.query(&EventQuery::all()).await.unwrap().event_records;
        assert_eq!(*live.lock().unwrap(), read);
        let replayed: Arc<Mutex<Vec<EventRecord>>> = Arc::default();
        let kept = replayed.clone();
        let handle = HandleStream::new(move |batch| {
            kept.lock().unwrap().extend(batch);
            async { Ok(()) }
        });
        store
            .stream_all_durable(&named("again"), handle)
            .await
            .unwrap();
        assert_eq!(*replayed.lock().unwrap(), read);
    });
}

#[test]
fn durable_streams_are_listed_with_the_head() {
    on_every_store(|store| async move {
        store
            .stream_all_durable(&named("all"), Seen::default().handler())
            .await
            .unwrap();
        let listed = store.list_durable_streams().await.unwrap();
        assert_eq!((listed.len(), listed[0].position), (1, 0));
        assert_eq!(listed[0].head_sequence_number, None);
        let writer = tokio::spawn({
            let store = store.clone();
            async move {
                for number in 1..=500 {
                    store.append(batch(number..=number)).await.unwrap();
                }
            }
        });
        // However busy the store is, no stream is ahead of it.
        while !writer.is_finished() {
            let listed = store.list_durable_streams().await.unwrap();
            assert!(listed[0].head_sequence_number.unwrap_or(0) >= listed[0].position);
        }
        let listed = store.list_durable_streams().await.unwrap();
        assert_eq!(listed[0].head_sequence_number, Some(500));
    });
}

#[test]
fn durable_streams_replay_and_go_on() {
    on_every_store(|store| async move {
        store.append(batch(1..=3)).await.unwrap();
        store.append(batch(4..=4)).await.unwrap();
        store.append(batch(5..=5)).await.unwrap();
        let seen = Seen::default();
        let stream = store
            .stream_to_durable(&named("evens"), &even(), seen.handler())
            .await
            .unwrap();
        assert_eq!(seen.calls(), [vec![2], vec![4]]);
        assert_eq!(stream.position(), 5);
        store.append(batch(6..=8)).await.unwrap();
        seen.reaches(3).await;
        stream.unsubscribe().await;
        assert_eq!(seen.calls()[2], [6, 8]);
        store.append(batch(9..=10)).await.unwrap();
        let listed = store.list_durable_streams().await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].name, "evens");
        assert_eq!(listed[0].query, even());
        assert_eq!(listed[0].position, 8);
        assert_eq!(listed[0].head_sequence_number, Some(10));
        assert!(!listed[0].active);
        let again = Seen::default();
        let stream = store
            .stream_to_durable(&named("evens"), &even(), again.handler())
            .await
            .unwrap();
        assert_eq!(again.calls(), [vec![10]]);
        assert!(store.list_durable_streams().await.unwrap()[0].active);
        stream.unsubscribe().await;
    });
}

#[test]
fn one_durable_name_runs_once_with_one_query() {
    on_every_store(|store| async move {
        let seen = Seen::default();
        let name = named("one");
        let with_cursor = even().with_min_sequence_number(7);
        let stream = store
            .stream_to_durable(&name, &with_cursor, seen.handler())
            .await
            .unwrap();
        let query = even();
        let second = store.stream_to_durable(&name, &query, seen.handler());
        let active = EventStoreError::DurableStreamActive("one".to_owned());
        assert_eq!(second.await.unwrap_err(), active);
        assert_eq!(
            store.reset_durable_stream(&name, 0).await,
            Err(active.clone())
        );
        assert_eq!(store.delete_durable_stream(&name).await, Err(active));
        stream.unsubscribe().await;
        let other = EventQuery::for_event_types(["other"]);
        let mismatch = EventStoreError::DurableStreamQueryMismatch("one".to_owned());
        for query in [EventQuery::all(), other.clone()] {
            let refused = store.stream_to_durable(&name, &query, seen.handler());
            assert_eq!(refused.await.unwrap_err(), mismatch);
        }
        store.delete_durable_stream(&name).await.unwrap();
        let missing = EventStoreError::DurableStreamNotFound("one".to_owned());
        assert_eq!(
            store.delete_durable_stream(&name).await,
            Err(missing.clone())
        );
        assert_eq!(store.reset_durable_stream(&name, 0).await, Err(missing));
        let stream = store
            .stream_to_durable(&name, &other, seen.handler())
            .await
            .unwrap();
        stream.unsubscribe().await;
        for bad in ["", &"x".repeat(256), "a\0b"] {
            let refused = store.stream_all_durable(&named(bad), seen.handler()).await;
            assert_eq!(refused.unwrap_err().code(), "InvalidOptions");
        }
    });
}

#[test]
fn a_reset_stream_replays_whole_batches() {
    on_every_store(|store| async move {
        store.append(batch(1..=3)).await.unwrap();
        store.append(batch(4..=4)).await.unwrap();
        store.append(batch(5..=6)).await.unwrap();
        let name = named("again");
        let replay = async |after: Option<u64>| {
            if let Some(after) = after {
                store.reset_durable_stream(&name, after).await.unwrap();
            }
            let seen = Seen::default();
            let stream = store
                .stream_all_durable(&name, seen.handler())
                .await
                .unwrap();
            stream.unsubscribe().await;
            seen.calls()
        };
        let all = vec![vec![1, 2, 3], vec![4], vec![5, 6]];
        assert_eq!(replay(None).await, all);
        assert!(replay(None).await.is_empty());
        assert_eq!(replay(Some(0)).await, all);
        assert_eq!(replay(Some(2)).await, all);
        assert_eq!(replay(Some(3)).await, all[1..]);
        assert_eq!(replay(Some(5)).await, all[2..]);
        assert!(replay(Some(6)).await.is_empty());
        let beyond = store.reset_durable_stream(&name, 7).await;
        assert_eq!(beyond.unwrap_err().code(), "InvalidOptions");
    });
}

#[test]
fn a_durable_failure_stops_the_stream_where_it_was() {
    on_every_store(|store| async move {
        for number in 1..=4 {
            store.append(batch(number..=number)).await.unwrap();
        }
        let seen = Seen::default();
        let kept = seen.clone();
        let fails_at_three = HandleStream::new(move |batch| {
            let at = batch[0].sequence_number;
            if at != 3 {
                kept.push(&batch);
            }
            async move {
                if at == 3 {
                    return Err(StreamHandlerError::new("not this one"));
                }
                Ok(())
            }
        });
        let name = named("fails");
        let error = store
            .stream_all_durable(&name, fails_at_three)
            .await
            .unwrap_err();
        let source = StreamHandlerError::new("not this one");
        let expected = EventStoreError::StreamHandlerFailed {
            stream: "fails".to_owned(),
            source,
        };
        assert_eq!(error, expected);
        assert_eq!(seen.numbers(), [1, 2]);
        let listed = &store.list_durable_streams().await.unwrap()[0];
        assert_eq!((listed.position, listed.active), (2, false));
        // The name is free at once; a failure after the replay shows in `closed`.
        let stream = store
            .stream_all_durable(&name, seen.handler())
            .await
            .unwrap();
        assert_eq!(seen.numbers(), [1, 2, 3, 4]);
        stream.unsubscribe().await;
        let stream = store
            .stream_all_durable(&name, failing("later"))
            .await
            .unwrap();
        store.append(batch(5..=5)).await.unwrap();
        let end = stream.closed().await;
        assert_eq!(end.reason, StreamEndReason::HandlerFailed);
        assert_eq!(end.error.unwrap().code(), "StreamHandlerFailed");
        assert_eq!(stream.position(), 4);
    });
}

#[test]
fn a_failing_batch_is_tried_again_as_asked() {
    on_every_store(|store| async move {
        store.append(batch(1..=2)).await.unwrap();
        let tries = Arc::new(AtomicUsize::new(0));
        let reported = Arc::new(AtomicUsize::new(0));
        let handler = |good_from: usize| {
            let tries = tries.clone();
            HandleStream::new(move |batch| {
                assert_eq!(batch.len(), 2);
                let number = tries.fetch_add(1, Ordering::SeqCst) + 1;
                async move {
                    assert!(number >= good_from, "try {number}");
                    Ok(())
                }
            })
        };
        let options = || {
            let reported = reported.clone();
            let stream = StreamOptions::default().with_on_error(move |error| {
                assert!(error.message().contains("panicked: try"), "{error}");
                reported.fetch_add(1, Ordering::SeqCst);
            });
            DurableStreamOptions::default()
                .with_stream(stream)
                .with_retry(RetryPolicy {
                    attempts: NonZeroU32::new(3),
                    initial_delay: Duration::from_millis(1),
                    max_delay: Duration::from_millis(2),
                })
        };
        let name = named("tries");
        let gave_up = store
            .stream_all_durable_with(&name, handler(4), options())
            .await;
        assert_eq!(gave_up.unwrap_err().code(), "StreamHandlerFailed");
        assert_eq!(tries.swap(0, Ordering::SeqCst), 3);
        let stream = store
            .stream_all_durable_with(&name, handler(3), options())
            .await
            .unwrap();
        assert_eq!(tries.load(Ordering::SeqCst), 3);
        assert_eq!(reported.load(Ordering::SeqCst), 5);
        assert_eq!(stream.position(), 2);
    });
}

#[test]
fn a_live_failure_is_reported_and_nothing_else() {
    on_every_store(|store| async move {
        let errors: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = errors.clone();
        let options = StreamOptions::default().with_on_error(move |error| {
            kept.lock().unwrap().push(error.to_string());
            panic!("in on_error, too");
        });
        let bad = HandleStream::new(|batch| {
            assert!(batch[0].sequence_number != 1, "at once");
            async move {
                if batch[0].sequence_number == 2 {
                    return Err(StreamHandlerError::new("as told"));
                }
                Ok(())
            }
        });
        let stream = store.stream_all_with(bad, options).await.unwrap();
        let seen = Seen::default();
        store.stream_all(seen.handler()).await.unwrap();
        for number in 1..=3 {
            store.append(batch(number..=number)).await.unwrap();
        }
        seen.reaches(3).await;
        until(|| stream.position() == 3).await;
        assert_eq!(
            *errors.lock().unwrap(),
            ["the handler panicked: at once", "as told"]
        );
    });
}

#[test]
fn a_handler_may_use_the_store_and_end_its_stream() {
    on_every_store(|store| async move {
        let stream = Arc::new(Mutex::new(None::<factstr::EventStream>));
        let (inner, own) = (store.clone(), stream.clone());
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let handle = HandleStream::new(move |batch| {
            let (store, own, counted) = (inner.clone(), own.clone(), counted.clone());
            async move {
                counted.fetch_add(1, Ordering::SeqCst);
                let at = batch[0].sequence_number;
                let head = store.head_sequence_number().await?;
                if at < 3 {
                    store
                        .append_if(vec![event(at + 1)], &EventQuery::all(), head)
                        .await?;
                } else {
                    let own = own.lock().unwrap().clone().unwrap();
                    own.unsubscribe().await;
                }
                Ok(())
            }
        });
        *stream.lock().unwrap() = Some(store.stream_all(handle).await.unwrap());
        store.append(batch(1..=1)).await.unwrap();
        let own = stream.lock().unwrap().clone().unwrap();
        assert_eq!(own.closed().await.reason, StreamEndReason::Unsubscribed);
        store.append(batch(4..=4)).await.unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), 3);
        // Closing from inside does not wait for the handler itself.
        let closed = Arc::new(AtomicBool::new(false));
        let (inner, told) = (store.clone(), closed.clone());
        let handle = HandleStream::new(move |_| {
            let (store, told) = (inner.clone(), told.clone());
            async move {
                store.close().await?;
                told.store(true, Ordering::SeqCst);
                Ok(())
            }
        });
        let stream = store
            .stream_all_durable(&named("closes"), handle)
            .await
            .err();
        until(|| closed.load(Ordering::SeqCst)).await;
        assert_eq!(stream, Some(EventStoreError::StoreClosed));
    });
}

#[test]
fn close_waits_for_handlers_and_ends_streams() {
    on_every_store(|store| async move {
        let (started, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let done = Arc::new(AtomicBool::new(false));
        let (tell, wait, set) = (started.clone(), finish.clone(), done.clone());
        let slow = HandleStream::new(move |_| {
            let (tell, wait, set) = (tell.clone(), wait.clone(), set.clone());
            async move {
                tell.notify_one();
                wait.notified().await;
                set.store(true, Ordering::SeqCst);
                Ok(())
            }
        });
        let busy = store.stream_all(slow).await.unwrap();
        let seen = Seen::default();
        let idle = store
            .stream_all_durable(&named("idle"), seen.handler())
            .await
            .unwrap();
        store.append(batch(1..=1)).await.unwrap();
        started.notified().await;
        let closing = tokio::spawn({
            let store = store.clone();
            async move { store.close().await }
        });
        assert_eq!(idle.closed().await.reason, StreamEndReason::StoreClosed);
        assert!(!closing.is_finished());
        finish.notify_one();
        closing.await.unwrap().unwrap();
        assert!(done.load(Ordering::SeqCst));
        assert_eq!(busy.closed().await.reason, StreamEndReason::StoreClosed);
        let refused = store.stream_all(seen.handler()).await;
        assert_eq!(refused.unwrap_err(), EventStoreError::StoreClosed);
    });
}

#[test]
fn who_waits_takes_over_without_gap_or_repeat() {
    on_every_store(|store| async move {
        let name = named("relay");
        let seen = Seen::default();
        let first = store
            .stream_all_durable(&name, seen.handler())
            .await
            .unwrap();
        let waits = DurableStreamOptions::default().with_if_active(IfActive::Wait);
        let waiting = tokio::spawn({
            let (store, name, seen, waits) =
                (store.clone(), name.clone(), seen.clone(), waits.clone());
            async move {
                store
                    .stream_all_durable_with(&name, seen.handler(), waits)
                    .await
            }
        });
        let given_up =
            store.stream_all_durable_with(&name, HandleStream::new(|_| async { Ok(()) }), waits);
        let gave_up = tokio::time::timeout(Duration::from_millis(20), given_up).await;
        assert!(gave_up.is_err(), "it waits, and can be dropped");
        for number in 1..=20 {
            store.append(batch(number..=number)).await.unwrap();
        }
        seen.reaches(1).await;
        first.unsubscribe().await;
        let second = waiting.await.unwrap().unwrap();
        store.append(batch(21..=21)).await.unwrap();
        seen.reaches(21).await;
        second.unsubscribe().await;
        assert_eq!(seen.numbers(), (1..=21).collect::<Vec<u64>>());
    });
}

#[test]
fn several_batches_come_together_but_are_never_split() {
    on_every_store(|store| async move {
        for (first, last) in [(1, 1), (2, 2), (3, 5), (6, 6), (7, 12), (13, 13)] {
            store.append(batch(first..=last)).await.unwrap();
        }
        let seen = Seen::default();
        let most = NonZeroUsize::new(5).unwrap();
        let progress: Arc<Mutex<Vec<u64>>> = Arc::default();
        let told = progress.clone();
        let stream = StreamOptions::default()
            .with_max_events_per_call(most)
            .with_on_progress(move |progress| told.lock().unwrap().push(progress.position));
        let options = DurableStreamOptions::default().with_stream(stream);
        store
            .stream_all_durable_with(&named("together"), seen.handler(), options)
            .await
            .unwrap();
        let lengths: Vec<usize> = seen.calls().iter().map(Vec::len).collect();
        assert_eq!(lengths, [5, 1, 6, 1]);
        assert_eq!(seen.numbers(), (1..=13).collect::<Vec<u64>>());
        assert_eq!(*progress.lock().unwrap(), [13]);
    });
}

/// Far more than the ring of newest batches holds, and a batch larger than every budget.
#[test]
fn a_slow_stream_reads_back_what_it_has_missed() {
    on_every_store(|store| async move {
        let gate = Arc::new(Notify::new());
        let seen = Seen::default();
        let (wait, kept) = (gate.clone(), seen.clone());
        let slow = HandleStream::new(move |batch| {
            let (wait, kept) = (wait.clone(), kept.clone());
            async move {
                if batch[0].sequence_number == 1 {
                    wait.notified().await;
                }
                kept.push(&batch);
                Ok(())
            }
        });
        let stream = store.stream_all(slow).await.unwrap();
        let filtered = Seen::default();
        let rare = EventQuery::all().with_filters([
            EventFilter::default().with_payload_predicates([json!({ "n": 1_500 })])
        ]);
        store.stream_to(&rare, filtered.handler()).await.unwrap();
        store.append(batch(1..=1)).await.unwrap();
        let large = json!({ "text": "x".repeat(1 << 20) });
        let large = (0..10).map(|_| NewEvent::new("large", large.clone()));
        store.append(large.collect()).await.unwrap();
        let mut calls = vec![vec![1], (2..=11).collect::<Vec<u64>>()];
        for number in 12..=2_500 {
            store.append(batch(number..=number)).await.unwrap();
            calls.push(vec![number]);
        }
        gate.notify_one();
        seen.reaches(calls.len()).await;
        assert_eq!(seen.calls(), calls);
        filtered.reaches(1).await;
        assert_eq!(filtered.numbers(), [1_500]);
        stream.unsubscribe().await;
    });
}

#[test]
fn registration_and_appends_race_without_gap() {
    on_every_store(|store| async move {
        let writers: Vec<_> = (0..4)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move {
                    for number in 0..300 {
                        store
                            .append(batch(number..=number + number % 3))
                            .await
                            .unwrap();
                    }
                })
            })
            .collect();
        let mut streams = Vec::new();
        for number in 0..20 {
            let before = store.head_sequence_number().await.unwrap().unwrap_or(0);
            let seen = Seen::default();
            let stream = if number % 2 == 0 {
                store.stream_all(seen.handler()).await.unwrap()
            } else {
                let name = named(&format!("racer-{number}"));
                store
                    .stream_all_durable(&name, seen.handler())
                    .await
                    .unwrap()
            };
            let after = store.head_sequence_number().await.unwrap().unwrap_or(0);
            streams.push((number, before, after, seen, stream));
        }
        for writer in writers {
            writer.await.unwrap();
        }
        let head = store.head_sequence_number().await.unwrap().unwrap();
        for (number, before, after, seen, stream) in streams {
            until(|| stream.position() == head || (head == before && number % 2 == 0)).await;
            let numbers = seen.numbers();
            let Some(&first) = numbers.first() else {
                continue;
            };
            assert_eq!(numbers, (first..=head).collect::<Vec<u64>>());
            if number % 2 == 0 {
                assert!(
                    before < first && first <= after + 1,
                    "{before} {first} {after}"
                );
            } else {
                assert_eq!(first, 1);
            }
        }
    });
}

#[test]
fn payloads_of_all_kinds_are_matched_alike() {
    let values = [
        json!(1),
        json!(1.0),
        json!("1"),
        json!([1, 2]),
        json!({ "a": [] }),
        json!({ "a": {} }),
        json!(null),
        json!({}),
        json!([]),
    ];
    on_every_store(|store| {
        let values = values.clone();
        async move {
            let query = |value: &Value| {
                EventQuery::all().with_filters([
                    EventFilter::default().with_payload_predicates([value.clone()]),
                    EventFilter::for_event_types(["never"]),
                ])
            };
            let mut live = Vec::new();
            for value in &values {
                let seen = Seen::default();
                store
                    .stream_to(&query(value), seen.handler())
                    .await
                    .unwrap();
                live.push(seen);
            }
            let events = values.iter().map(|value| NewEvent::new("v", value.clone()));
            store.append(events.collect()).await.unwrap();
            for (value, seen) in values.iter().zip(live) {
                let found = store.query(&query(value)).await.unwrap().event_records;
                let found: Vec<u64> = found.iter().map(|record| record.sequence_number).collect();
                seen.reaches(1).await;
                assert_eq!(seen.numbers(), found, "{value}");
            }
        }
    });
}

/// Dropped at any point, a registration leaves nothing behind.
#[test]
fn a_registration_that_is_dropped_frees_the_name() {
    on_every_store(|store| async move {
        for number in 1..=50 {
            store.append(batch(number..=number)).await.unwrap();
        }
        let name = named("dropped");
        let calls = Arc::new(AtomicUsize::new(0));
        for polls in 0..60 {
            let counted = calls.clone();
            let handle = HandleStream::new(move |_| {
                counted.fetch_add(1, Ordering::SeqCst);
                async {
                    tokio::task::yield_now().await;
                    Ok(())
                }
            });
            let waits = DurableStreamOptions::default().with_if_active(IfActive::Wait);
            let mut registering = Box::pin(store.stream_all_durable_with(&name, handle, waits));
            for _ in 0..polls {
                let poll = std::future::poll_fn(|context| {
                    std::task::Poll::Ready(registering.as_mut().poll(context))
                });
                if let std::task::Poll::Ready(registered) = poll.await {
                    // It was faster than the drop.
                    registered.unwrap().unsubscribe().await;
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        let waits = DurableStreamOptions::default().with_if_active(IfActive::Wait);
        let seen = Seen::default();
        let stream = store
            .stream_all_durable_with(&name, seen.handler(), waits)
            .await
            .unwrap();
        assert_eq!(stream.position(), 50);
        let numbers = seen.numbers();
        let first = numbers.first().map_or(51, |&first| first);
        assert_eq!(numbers, (first..=50).collect::<Vec<u64>>());
        stream.unsubscribe().await;
        let listed = store.list_durable_streams().await.unwrap();
        assert!(!listed[0].active);
    });
}

/// As any executor may do.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::park();
    }
}

#[test]
fn streams_need_no_runtime_of_the_caller() {
    let store = MemoryStore::new();
    let seen = Seen::default();
    block_on(async {
        let options = DurableStreamOptions::default().with_retry(RetryPolicy {
            attempts: None,
            initial_delay: Duration::from_millis(1),
            max_delay: Duration::from_millis(1),
        });
        let tries = Arc::new(AtomicUsize::new(0));
        let kept = seen.clone();
        let handle = HandleStream::new(move |batch| {
            let fails = tries.fetch_add(1, Ordering::SeqCst) < 5;
            if !fails {
                kept.push(&batch);
            }
            async move {
                tokio::time::sleep(Duration::from_micros(1)).await;
                if fails {
                    return Err(StreamHandlerError::new("not yet"));
                }
                Ok(())
            }
        });
        store.append(batch(1..=2)).await.unwrap();
        let stream = store
            .stream_all_durable_with(&named("alone"), handle, options)
            .await
            .unwrap();
        assert_eq!(seen.calls(), [[1, 2]]);
        stream.unsubscribe().await;
        store.close().await.unwrap();
    });
}

#[test]
fn a_runtime_that_ends_ends_its_streams() {
    on_every_store(|store| async move {
        let name = named("orphan");
        let stream = std::thread::spawn({
            let (store, name) = (store.clone(), name.clone());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .build()
                    .unwrap();
                let handle = HandleStream::new(|_| std::future::pending());
                let stream = runtime
                    .block_on(store.stream_all_durable(&name, handle))
                    .unwrap();
                runtime.block_on(store.append(batch(1..=1))).unwrap();
                stream
            }
        })
        .join()
        .unwrap();
        assert_eq!(stream.closed().await.reason, StreamEndReason::BackendFailed);
        let seen = Seen::default();
        store
            .stream_all_durable(&name, seen.handler())
            .await
            .unwrap();
        assert_eq!(seen.numbers(), [1]);
    });
}

#[test]
fn a_store_that_is_dropped_ends_its_streams() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for place in ["sqlite", "postgres"].map(Place::new) {
        runtime.block_on(async {
            let store = place.open().await;
            let seen = Seen::default();
            let stuck = HandleStream::new(|_| std::future::pending());
            let live = store.stream_all(stuck).await.unwrap();
            let durable = store
                .stream_all_durable(&named("one"), seen.handler())
                .await
                .unwrap();
            store.append(batch(1..=1)).await.unwrap();
            seen.reaches(1).await;
            until(|| durable.position() == 1).await;
            drop(store);
            for stream in [live, durable] {
                assert_eq!(stream.closed().await.reason, StreamEndReason::StoreClosed);
            }
            let store = place.open().await;
            store
                .stream_all_durable(&named("one"), seen.handler())
                .await
                .unwrap();
            assert_eq!(seen.numbers(), [1]);
        });
    }
}
