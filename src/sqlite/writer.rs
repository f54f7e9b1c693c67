//! Writing: one thread, one connection, one commit for all that is waiting.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, select};
use rusqlite::{Connection, params};

use super::database::refuse_moved;
use super::failure::{Result, guarded, shortened_log};
use super::indexer;
use super::readers::{Shared, catch_up};
use super::snapshot::LogSnapshot;
use super::streams::{release_rest, store_moved};
use super::tail::TailSegment;
use super::write_connection::{WriteConnection, execute};
use crate::appending::{AppendRequest, Condition, answer_all};
use crate::contract::{AppendResult, EventStoreError};
use crate::delivery::{CommittedBatch, Delivery, HeldLeases};
use crate::payload::PreparedBatch;
use crate::selection::{self, ContextVersions, KnownVersion, now_in_micros};

/// One commit takes at most this many requests and about this many bytes.
const GROUP_REQUESTS: usize = 1_024;
const GROUP_BYTES: usize = 8 * 1024 * 1024;
/// Appends wait while this many segments of the tail have not become runs: about 130,000 events.
const MOST_BACKLOG: usize = 16;

/// How long the writer looks for more before it sleeps; waking it takes the caller some 25 µs. A caller
/// that reads a context and decides is back within this time.
const ALERT: Duration = Duration::from_micros(200);

/// Work on the index that has to be done by the writer's connection.
pub(super) type Maintenance = Box<dyn FnOnce(&Connection) + Send>;

pub(super) struct Writer {
    shared: Arc<Shared>,
    connection: Arc<WriteConnection>,
    versions: Arc<ContextVersions>,
    delivery: Arc<Delivery>,
    leases: Arc<HeldLeases>,
    appends: Receiver<Vec<AppendRequest>>,
    /// Taken from the queue, and not committed yet.
    waiting: VecDeque<AppendRequest>,
    maintenance: Receiver<Maintenance>,
    /// Wakes the indexer; dropping it ends the indexer.
    wake_indexer: Option<Sender<()>>,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        connection: Arc<WriteConnection>,
        versions: Arc<ContextVersions>,
        streams: (Arc<Delivery>, Arc<HeldLeases>),
        appends: Receiver<Vec<AppendRequest>>,
        maintenance: Receiver<Maintenance>,
        wake_indexer: Sender<()>,
    ) -> Self {
        let (delivery, leases) = streams;
        Self {
            shared,
            connection,
            versions,
            delivery,
            leases,
            appends,
            waiting: VecDeque::new(),
            maintenance,
            wake_indexer: Some(wake_indexer),
        }
    }

    /// Serves until all senders of appends are gone, then puts the index in order.
    pub(super) fn run(mut self) {
        self.shared.database.enter_thread();
        let (appends, maintenance) = (self.appends.clone(), self.maintenance.clone());
        // Merges that the last process left undone.
        self.wake_indexer();
        loop {
            if self.shared.tail.backlog() > MOST_BACKLOG {
                // Appends are faster than the indexer; a timeout in case it has failed for now.
                self.wake_indexer();
                if let Ok(work) = maintenance.recv_timeout(Duration::from_millis(100)) {
                    self.maintain(work);
                    continue;
                }
            }
            if !self.waiting.is_empty() {
                self.commit_waiting();
                continue;
            }
            match next_task(&appends, &maintenance) {
                Task::Append(requests) => {
                    self.waiting.extend(requests);
                    self.commit_waiting();
                }
                Task::Maintain(work) => self.maintain(work),
                Task::End => break,
            }
        }
        self.wake_indexer = None;
        for work in &maintenance {
            self.maintain(work);
        }
        let released = guarded(|| release_rest(&self.leases, &self.connection.lock()));
        if let Err(error) = released {
            tracing::warn!(%error, "the leases of durable streams will have to expire");
        }
        let rest = guarded(|| indexer::index_rest(&self.shared, &self.connection.lock()));
        if let Err(error) = rest {
            // The next one to open the file does it.
            tracing::warn!(%error, "the newest events could not be indexed");
        }
    }

    /// The indexer, which waits for it, learns of a failure by itself.
    fn maintain(&self, work: Maintenance) {
        let _ = guarded(|| {
            work(&self.connection.lock());
            Ok(())
        });
    }

    /// Commits what is waiting, or as much of it as one group takes.
    fn commit_waiting(&mut self) {
        let mut bytes = 0;
        let mut group = VecDeque::new();
        while group.len() < GROUP_REQUESTS && bytes < GROUP_BYTES {
            if self.waiting.is_empty() {
                self.waiting.extend(self.appends.try_iter().flatten());
            }
            let Some(request) = self.waiting.pop_front() else {
                break;
            };
            bytes += request.batch.weight();
            group.push_back(request);
        }
        for request in &mut group {
            request.share = None;
        }
        // The connection is free again before anyone learns the outcome and reads.
        match self.commit(group.make_contiguous()) {
            Ok(committed) => self.answer(group, committed),
            Err(CommitError::NothingTried(error) | CommitError::Commit(error)) => {
                answer_all(group, &error);
            }
            Err(CommitError::Request(error)) if group.len() == 1 => answer_all(group, &error),
            Err(CommitError::Request(_)) => {
                // One of them can't be written: it must not take the others with it.
                for request in group {
                    self.commit_alone(request);
                }
            }
        }
        if self.shared.tail.backlog() > 0 {
            self.wake_indexer();
        }
    }

    fn commit_alone(&mut self, request: AppendRequest) {
        match self.commit(std::slice::from_ref(&request)) {
            Ok(committed) => self.answer([request], committed),
            Err(
                CommitError::NothingTried(error)
                | CommitError::Commit(error)
                | CommitError::Request(error),
            ) => (request.reply)(Err(error)),
        }
    }

    /// Publishes what was committed, then tells the callers: a stream that they register afterwards
    /// does not deliver it.
    fn answer(&self, group: impl IntoIterator<Item = AppendRequest>, committed: Committed) {
        let Committed {
            verdicts,
            occurred_at,
        } = committed;
        let mut batches = Vec::new();
        let mut replies = Vec::with_capacity(verdicts.len());
        for (request, verdict) in group.into_iter().zip(verdicts) {
            if let Ok(result) = &verdict {
                batches.push(CommittedBatch {
                    first: result.first_sequence_number,
                    occurred_at,
                    batch: request.batch,
                });
            }
            replies.push((request.reply, verdict));
        }
        let wakes = self.delivery.publish(batches);
        for (reply, verdict) in replies {
            reply(verdict);
        }
        wakes.fire();
    }

    fn wake_indexer(&self) {
        if let Some(wake) = &self.wake_indexer {
            // A full channel means that it is awake.
            let _ = wake.try_send(());
        }
    }

    /// Gives each request its verdict in order, the later ones seeing the earlier ones, and commits.
    fn commit(&self, group: &[AppendRequest]) -> std::result::Result<Committed, CommitError> {
        let connection = self.connection.lock();
        refuse_moved(&connection)
            .and_then(|()| execute(&connection, "BEGIN IMMEDIATE"))
            .map_err(CommitError::NothingTried)?;
        let decided = guarded(|| Ok(self.decide(&connection, group)));
        let decided = decided.unwrap_or_else(|bug| Err(CommitError::Request(bug)));
        let decided = decided.and_then(|decided| {
            let appends = decided.verdicts.iter().any(Result::is_ok);
            let cursors = appends.then(|| store_moved(&self.leases, &connection));
            let committed = execute(&connection, "COMMIT").map_err(CommitError::Commit);
            if let Some(cursors) = cursors {
                cursors.end(committed.is_ok());
            }
            committed.map(|()| decided)
        });
        if decided.is_err() && !connection.is_autocommit() {
            let _ = execute(&connection, "ROLLBACK");
        }
        let decided = decided.map_err(|error| match error {
            CommitError::Commit(error) => CommitError::Commit(settle(&connection, error)),
            other => other,
        });
        if let Ok(committed) = &decided {
            for (request, verdict) in group.iter().zip(&committed.verdicts) {
                if let Ok(result) = verdict {
                    let facets = request.batch.events().map(|event| event.facets);
                    self.shared
                        .tail
                        .extend(result.first_sequence_number, facets);
                }
            }
        }
        decided
    }

    fn decide(
        &self,
        connection: &Connection,
        group: &[AppendRequest],
    ) -> std::result::Result<Committed, CommitError> {
        let occurred_at = now_in_micros();
        let conditional = group.iter().any(|request| request.condition.is_some());
        let mut snapshot = self
            .snapshot(connection)
            .map_err(CommitError::NothingTried)?;
        // What this group has appended so far; only conditions look at it.
        let appended = Arc::new(TailSegment::new(snapshot.head));
        if conditional {
            snapshot.tail.push(appended.clone());
        }
        // What this group has found out. It is true in this transaction only, so nobody else may know it.
        let mut found = HashMap::new();
        let mut verdicts = Vec::with_capacity(group.len());
        for request in group {
            if let Some(Condition { query, expected }) = &request.condition {
                let known = found.get(query.text()).copied();
                let known = known.or_else(|| self.versions.known(query));
                let checked = selection::check_context(&mut snapshot, query, *expected, known);
                let version = match &checked {
                    Ok(()) => *expected,
                    Err(EventStoreError::ConditionalAppendConflict { actual, .. }) => *actual,
                    Err(error) => return Err(CommitError::Request(error.clone())),
                };
                let head = snapshot.head;
                found.insert(query.text(), KnownVersion { version, head });
                if let Err(conflict) = checked {
                    verdicts.push(Err(conflict));
                    continue;
                }
            }
            let result = insert(connection, snapshot.head + 1, &request.batch, occurred_at)
                .map_err(CommitError::Request)?;
            snapshot.head = result.last_sequence_number;
            if conditional {
                request
                    .batch
                    .events()
                    .for_each(|event| appended.push(event.facets));
            }
            verdicts.push(Ok(result));
        }
        Ok(Committed {
            verdicts,
            occurred_at,
        })
    }

    /// The log inside the running transaction, with the tail up to its head.
    fn snapshot<'c>(&'c self, connection: &'c Connection) -> Result<LogSnapshot<'c>> {
        loop {
            let (runs, head) = self.shared.catalog.load(connection)?;
            let tail = self.shared.tail.view();
            let snapshot =
                LogSnapshot::new(connection, &self.shared.caches, head, runs, tail, None);
            let covered = snapshot.covered_through();
            if covered == head {
                return Ok(snapshot);
            }
            if covered > head {
                // Nothing but a commit makes the tail grow, and none is under way.
                return Err(shortened_log(head, covered));
            }
            // Another process has appended since.
            catch_up(&self.shared, &snapshot)?;
        }
    }
}

/// Finds out what became of a group whose commit has failed.
///
/// Its frames may stand in the write-ahead log all the same, and the next one to recover the log would
/// take them for committed. Another commit puts its own frames in their place; only if that works is it
/// certain that nothing was committed.
fn settle(connection: &Connection, error: EventStoreError) -> EventStoreError {
    let overwrite = || {
        execute(connection, "BEGIN IMMEDIATE")?;
        // A row that stays the same would not be written.
        execute(
            connection,
            "UPDATE index_state SET generation = generation + 1",
        )?;
        execute(connection, "COMMIT")
    };
    if overwrite().is_ok() {
        return error;
    }
    if !connection.is_autocommit() {
        let _ = execute(connection, "ROLLBACK");
    }
    EventStoreError::OutcomeUnknown(format!(
        "the commit failed, and a crash now may still make it count: {error}"
    ))
}

enum Task {
    Append(Vec<AppendRequest>),
    Maintain(Maintenance),
    End,
}

/// Waits for something to do: awake at first, because a caller that appends in a loop is back soon.
fn next_task(appends: &Receiver<Vec<AppendRequest>>, maintenance: &Receiver<Maintenance>) -> Task {
    let since = Instant::now();
    while since.elapsed() < ALERT {
        match appends.try_recv() {
            Ok(requests) => return Task::Append(requests),
            Err(TryRecvError::Disconnected) => return Task::End,
            Err(TryRecvError::Empty) => {}
        }
        if let Ok(work) = maintenance.try_recv() {
            return Task::Maintain(work);
        }
        thread::yield_now();
    }
    loop {
        select! {
            recv(appends) -> requests => return requests.map_or(Task::End, Task::Append),
            recv(maintenance) -> work => if let Ok(work) = work {
                return Task::Maintain(work);
            },
        }
    }
}

/// What became of a group.
struct Committed {
    /// In the order of the requests.
    verdicts: Vec<Result<AppendResult>>,
    occurred_at: i64,
}

enum CommitError {
    /// No request can be blamed.
    NothingTried(EventStoreError),
    /// Some request could not be decided or written.
    Request(EventStoreError),
    Commit(EventStoreError),
}

fn insert(
    connection: &Connection,
    first: u64,
    batch: &PreparedBatch,
    occurred_at: i64,
) -> Result<AppendResult> {
    let last = first + batch.len() as u64 - 1;
    let mut statement = connection.prepare_cached(include_str!("sql/insert_event.sql"))?;
    for (sequence_number, event) in (first..).zip(batch.events()) {
        statement.execute(params![
            sequence_number,
            occurred_at,
            event.event_type,
            event.payload
        ])?;
    }
    if last > first {
        let sql = "INSERT INTO append_batches (first_sequence_number, last_sequence_number)
                   VALUES (?1, ?2)";
        connection.prepare_cached(sql)?.execute([first, last])?;
    }
    Ok(AppendResult {
        first_sequence_number: first,
        last_sequence_number: last,
        committed_count: batch.len() as u64,
    })
}
