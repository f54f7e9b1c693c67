//! Writing: one task, one connection, one transaction and one round trip for all that is waiting.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Row};

use super::backend::{Backend, Pauses};
use super::connect::{ConnectionEvent, Failure, FailureKind, Session};
use super::group::Group;
use super::reading::Micros;
use crate::appending::{AppendRequest, answer_all};
use crate::contract::{AppendResult, EventStoreError};
use crate::delivery::{CommittedBatch, Delivery};
use crate::runtime::beside_connections;

/// One group takes at most this many requests and about this many bytes.
const GROUP_REQUESTS: usize = 512;
const GROUP_BYTES: usize = 8 * 1024 * 1024;
/// The largest batch: the server takes messages below 1 GiB, and texts grow by their frames in one.
const LARGEST_BATCH: usize = 768 * 1024 * 1024;
/// How often a group is tried whose connection is lost each time.
const ATTEMPTS: usize = 5;
/// After so many groups, or so long, it is looked again whether other stores listen.
const LOOK_EVERY_GROUPS: i64 = 16;
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The isolation level of the database's default is not the one that appends need.
const WRONG_ISOLATION: &str = "FS001";

pub(super) struct Writer {
    backend: Arc<Backend>,
    delivery: Arc<Delivery>,
    appends: mpsc::UnboundedReceiver<Vec<AppendRequest>>,
    /// Taken from the queue, and not committed yet.
    waiting: VecDeque<AppendRequest>,
    connection: Option<Connection>,
    /// Of the last group.
    number: i64,
    /// Groups are put in a transaction of their own isolation level.
    wrapped: bool,
    /// Other stores listen for what is committed.
    listened: bool,
    /// With which group that was looked for, and when that was sent.
    looked: Option<(i64, Instant)>,
    /// Told when they should hear of it.
    committed: Arc<Notify>,
}

struct Connection {
    session: Session,
    /// A commit of this connection did not wait for the standby that it should have waited for.
    not_replicated: Arc<AtomicBool>,
}

/// What a group is appended with.
struct Arguments<'g> {
    number: i64,
    look: bool,
    group: &'g Group<'g>,
}

/// What became of a group.
struct Outcome {
    /// The newest sequence number before it.
    head: i64,
    occurred_at: i64,
    /// `None`: all were appended.
    verdicts: Option<Vec<i64>>,
}

/// Why a group was not committed.
enum Refusal {
    /// No request can be blamed, or the only one.
    All(EventStoreError),
    /// Some request may be to blame.
    Some(EventStoreError),
}

impl Writer {
    pub(super) fn new(
        backend: Arc<Backend>,
        delivery: Arc<Delivery>,
        appends: mpsc::UnboundedReceiver<Vec<AppendRequest>>,
        committed: Arc<Notify>,
    ) -> Self {
        Self {
            backend,
            delivery,
            appends,
            waiting: VecDeque::new(),
            connection: None,
            number: 0,
            wrapped: false,
            listened: false,
            looked: None,
            committed,
        }
    }

    /// Serves until all senders are gone. Tells whether the server may know groups of it.
    pub(super) async fn run(mut self) -> bool {
        while let Some(requests) = self.appends.recv().await {
            self.waiting.extend(requests);
            while !self.waiting.is_empty() {
                let group = self.next_group();
                self.commit(group).await;
            }
        }
        self.number > 0
    }

    fn next_group(&mut self) -> Vec<AppendRequest> {
        let mut bytes = 0;
        let mut group = Vec::new();
        while group.len() < GROUP_REQUESTS && bytes < GROUP_BYTES {
            if self.waiting.is_empty() {
                while let Ok(requests) = self.appends.try_recv() {
                    self.waiting.extend(requests);
                }
            }
            let Some(mut request) = self.waiting.pop_front() else {
                break;
            };
            bytes += request.batch.weight();
            request.share = None;
            group.push(request);
        }
        group
    }

    async fn commit(&mut self, mut group: Vec<AppendRequest>) {
        match self.try_commit(&mut group).await {
            Ok(outcome) => self.answer(group, &outcome),
            Err(Refusal::Some(_)) if group.len() > 1 => {
                // One of them can't be written: it must not take the others with it.
                for request in group {
                    let mut alone = vec![request];
                    match self.try_commit(&mut alone).await {
                        Ok(outcome) => self.answer(alone, &outcome),
                        Err(Refusal::All(error) | Refusal::Some(error)) => {
                            answer_all(alone, &error);
                        }
                    }
                }
            }
            Err(Refusal::All(error) | Refusal::Some(error)) => answer_all(group, &error),
        }
    }

    /// `group`: exclusive, because replies can't be shared with another thread.
    async fn try_commit(&mut self, group: &mut Vec<AppendRequest>) -> Result<Outcome, Refusal> {
        if let [request] = group.as_slice()
            && request.batch.weight() > LARGEST_BATCH
        {
            return Err(Refusal::All(EventStoreError::InvalidEvent(format!(
                "events: a batch of more than {LARGEST_BATCH} bytes is too large for PostgreSQL"
            ))));
        }
        let backend = self.backend.clone();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let connecting = backend.retry(|| connect(&backend));
            let connection = match self.connection.take() {
                Some(connection) if !connection.session.is_closed() => connection,
                _ => {
                    if self.number > 0 {
                        // Another server may have lost what the one before had.
                        backend.versions.clear();
                    }
                    connecting.await.map_err(all)?
                }
            };
            self.number += 1;
            connection.not_replicated.store(false, Ordering::SeqCst);
            let encode = || Group::of(group, &backend.versions);
            let encoded = beside_connections(effort(group), encode);
            let sent = Instant::now();
            let arguments = Arguments {
                number: self.number,
                look: self.is_to_look(sent),
                group: &encoded,
            };
            let appended = append(&backend, &connection, &arguments, self.wrapped).await;
            drop(encoded);
            let failure = match appended {
                Ok(row) => {
                    let outcome = Outcome::of(&row).map_err(Refusal::All);
                    let replicated = !connection.not_replicated.load(Ordering::SeqCst);
                    self.connection = Some(connection);
                    return match outcome {
                        Ok(outcome) if replicated => {
                            // In most groups it is not looked for.
                            if let Some(listened) = row.get(3) {
                                self.listened = listened;
                                self.looked = Some((self.number, sent));
                            }
                            if self.listened {
                                self.committed.notify_one();
                            }
                            Ok(outcome)
                        }
                        Ok(_) => Err(Refusal::All(not_replicated())),
                        Err(error) => Err(error),
                    };
                }
                Err(failure) => failure,
            };
            if failure.leaves_outcome_open() {
                drop(connection);
                match self.settle(&failure).await? {
                    Some(outcome) => return Ok(outcome),
                    None if attempts < ATTEMPTS => continue,
                    None => return Err(all(failure)),
                }
            }
            let code = failure.code().map(|code| code.code().to_owned());
            match (failure.kind(), code.as_deref()) {
                (_, Some(WRONG_ISOLATION)) if !self.wrapped => {
                    self.wrapped = true;
                    self.connection = Some(connection);
                }
                // It is no primary any more: another one may be.
                (FailureKind::ReadOnly | FailureKind::Unavailable, _) if attempts < ATTEMPTS => {}
                (FailureKind::Server, code) => {
                    self.connection = Some(connection);
                    // Not the server's state, but what was sent may be the cause.
                    let sent = code.is_none_or(|code| ["22", "23", "54"].contains(&&code[..2]));
                    return Err(if sent {
                        Refusal::Some(failure.into())
                    } else {
                        all(failure)
                    });
                }
                _ => return Err(all(failure)),
            }
        }
    }

    fn is_to_look(&self, now: Instant) -> bool {
        self.looked.is_none_or(|(number, at)| {
            self.number - number >= LOOK_EVERY_GROUPS || now - at >= LOOK_EVERY
        })
    }

    /// Finds out what became of the last group. `None`: it was not committed, and never will be.
    ///
    /// On the writer's next connection: those of the pool may all be in use.
    async fn settle(&mut self, failure: &Failure) -> Result<Option<Outcome>, Refusal> {
        let backend = self.backend.clone();
        let mut pauses = Pauses::new(backend.patience);
        loop {
            let error = match self.ask_what_became().await {
                Ok(settled) => return settled.map_err(Refusal::All),
                Err(error) => error,
            };
            if !pauses.wait().await {
                return Err(Refusal::All(EventStoreError::OutcomeUnknown(format!(
                    "{failure}; and the store could not find out whether the batch was committed: \
                     {error}"
                ))));
            }
        }
    }

    async fn ask_what_became(
        &mut self,
    ) -> Result<Result<Option<Outcome>, EventStoreError>, Failure> {
        let backend = self.backend.clone();
        let connection = connect(&backend).await?;
        let session = &connection.session;
        let arguments: [(&(dyn ToSql + Sync), Type); 2] =
            [(&backend.store, Type::INT8), (&self.number, Type::INT8)];
        let asking = session.query_typed(&backend.statements.settle, &arguments);
        let rows = backend.connections.with_timeout(session, asking).await?;
        let replicated = !connection.not_replicated.load(Ordering::SeqCst);
        self.connection = Some(connection);
        let Some(row) = rows.first() else {
            return Ok(Ok(None));
        };
        if row.get::<_, Option<i64>>(0).is_none() {
            return Ok(Ok(None));
        }
        Ok(if replicated {
            Outcome::of(row).map(Some)
        } else {
            Err(not_replicated())
        })
    }

    /// Publishes what was committed, then tells the callers: a stream that they register afterwards
    /// does not deliver it.
    fn answer(&self, group: impl IntoIterator<Item = AppendRequest>, outcome: &Outcome) {
        let mut batches = Vec::new();
        let mut replies = Vec::new();
        let mut next = outcome.head as u64 + 1;
        for (index, request) in group.into_iter().enumerate() {
            let refused = outcome
                .verdicts
                .as_ref()
                .and_then(|verdicts| verdicts.get(index))
                .filter(|&&verdict| verdict < 0);
            let verdict = if let Some(refused) = refused {
                let condition = request.condition.as_ref();
                Err(EventStoreError::ConditionalAppendConflict {
                    expected: condition.and_then(|condition| condition.expected),
                    actual: Some((-1 - refused) as u64).filter(|&actual| actual > 0),
                })
            } else {
                let count = request.batch.len() as u64;
                let first = next;
                next += count;
                batches.push(CommittedBatch {
                    first,
                    occurred_at: outcome.occurred_at,
                    batch: request.batch,
                });
                Ok(AppendResult {
                    first_sequence_number: first,
                    last_sequence_number: first + count - 1,
                    committed_count: count,
                })
            };
            replies.push((request.reply, verdict));
        }
        let wakes = self.delivery.publish(batches);
        for (reply, verdict) in replies {
            reply(verdict);
        }
        wakes.fire();
    }
}

/// How many bytes are gone through at most, where each condition is matched with all events.
fn effort(group: &[AppendRequest]) -> usize {
    let bytes: usize = group.iter().map(|request| request.batch.weight()).sum();
    let conditions = group
        .iter()
        .filter_map(|request| request.condition.as_ref());
    let efforts = conditions.map(|condition| condition.query.effort());
    bytes.saturating_mul(efforts.sum::<usize>().max(1))
}

fn all(failure: Failure) -> Refusal {
    Refusal::All(failure.into())
}

fn not_replicated() -> EventStoreError {
    EventStoreError::OutcomeUnknown(
        "the batch is committed on the primary, but the wait for its synchronous standby was ended"
            .to_owned(),
    )
}

impl Outcome {
    /// An answer of `factstr_append` or `factstr_settle`.
    fn of(row: &Row) -> Result<Self, EventStoreError> {
        let read = || -> Result<Self, tokio_postgres::Error> {
            Ok(Self {
                head: row.try_get(0)?,
                occurred_at: row.try_get::<_, Micros>(1)?.0,
                verdicts: row.try_get(2)?,
            })
        };
        read().map_err(|error| {
            EventStoreError::OutcomeUnknown(format!("the answer can't be understood: {error}"))
        })
    }
}

async fn connect(backend: &Backend) -> Result<Connection, Failure> {
    let not_replicated = Arc::new(AtomicBool::new(false));
    let told = not_replicated.clone();
    let on_event = move |event| {
        // The notice comes before the answer; its text is in the server's language.
        if let ConnectionEvent::Message(message) = event
            && let AsyncMessage::Notice(notice) = *message
            && notice.routine() == Some("SyncRepWaitForLSN")
        {
            told.store(true, Ordering::SeqCst);
        }
    };
    let (session, _) = backend.connections.connect_dedicated(on_event).await?;
    Ok(Connection {
        session,
        not_replicated,
    })
}

async fn append(
    backend: &Backend,
    connection: &Connection,
    Arguments {
        number,
        look,
        group,
    }: &Arguments<'_>,
    wrapped: bool,
) -> Result<Row, Failure> {
    let session = &connection.session;
    let mut arguments: Vec<_> = vec![
        (&backend.store as &(dyn ToSql + Sync), Type::INT8),
        (number, Type::INT8),
        (look, Type::BOOL),
    ];
    arguments.extend(group.arguments());
    let running = async {
        if wrapped {
            session
                .batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE")
                .await?;
        }
        let appended = backend
            .run(session, &backend.statements.append, &arguments)
            .await;
        if wrapped {
            let end = if appended.is_ok() {
                "COMMIT"
            } else {
                "ROLLBACK"
            };
            session.batch_execute(end).await?;
        }
        appended
    };
    let rows = backend.connections.with_timeout(session, running).await?;
    rows.into_iter().next().ok_or_else(|| {
        EventStoreError::OutcomeUnknown("the server did not answer an append".to_owned()).into()
    })
}
