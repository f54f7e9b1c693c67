//! What the stream engine needs of a PostgreSQL store: leases on the server's clock, cursors, and the
//! commits of others, for which a poll is the truth and a notification a hint.

mod batches;
mod leases;
mod watcher;

pub(super) use self::watcher::notify;

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use tokio_postgres::types::Type;

use self::leases::PostgresLeases;
use self::watcher::Watched;
use super::backend::{Backend, Result, no_row};
use crate::contract::{DurableStreamInfo, EventStoreError};
use crate::delivery::{
    BatchPage, BatchRequest, Delivery, LeaseRequest, Left, LogSource, Reply, Taken,
};
use crate::payload::{canonical_filters, filters_to_query};

pub(super) struct PostgresStreams {
    backend: Arc<Backend>,
    leases: Arc<PostgresLeases>,
    delivery: OnceLock<Weak<Delivery>>,
    watched: Watched,
    poll_interval: Duration,
    this: Weak<Self>,
}

impl PostgresStreams {
    /// `upkeep`: for leases, see [`PostgresLeases`].
    pub(super) fn new(
        backend: Arc<Backend>,
        upkeep: &Arc<Backend>,
        poll_interval: Duration,
    ) -> (Arc<Self>, Arc<Delivery>) {
        let watched = Watched::default();
        let streams = Arc::new_cyclic(|this| Self {
            leases: PostgresLeases::new(upkeep.clone(), watched.clone()),
            backend,
            delivery: OnceLock::new(),
            watched,
            poll_interval,
            this: this.clone(),
        });
        let delivery = Delivery::new(streams.clone());
        let _ = streams.delivery.set(Arc::downgrade(&delivery));
        streams.watch();
        (streams, delivery)
    }

    /// Nothing is watched any more, and the server forgets the store, if it knows of it.
    pub(super) async fn end(&self, has_appended: bool) {
        self.watched.end();
        if self.leases.last_touch().await {
            // After it, as a connection does one thing after the other.
            self.leases.backend.forget_store().await;
        } else if has_appended {
            self.backend.forget_store().await;
        }
    }

    fn delivery(&self) -> Option<Arc<Delivery>> {
        self.delivery.get()?.upgrade()
    }

    /// Answers in any case: a task that is dropped has a reply that is dropped, which tells it.
    fn answer<T: Send + 'static>(
        &self,
        reply: Reply<T>,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) {
        self.backend.runtime.spawn(async move { reply(work.await) });
    }

    fn change(&self, name: &str, after: Option<u64>, reply: Reply<()>) {
        let (backend, leases) = (self.backend.clone(), self.leases.clone());
        let name = name.to_owned();
        self.answer(reply, async move {
            let _turn = leases.alone_with(&name).await;
            let mine = leases.held.holds(&name);
            let position = after.map(|after| after.min(i64::MAX as u64) as i64);
            let (rows, maybe_done) = backend
                .ask_again(
                    &backend.statements.change_stream,
                    &[
                        (&name, Type::TEXT),
                        (&position, Type::INT8),
                        (&backend.store, Type::INT8),
                        (&mine, Type::BOOL),
                    ],
                )
                .await?;
            let row = rows.first().ok_or_else(no_row)?;
            match row.get::<_, &str>(0) {
                "done" => Ok(()),
                // It was there to be deleted.
                "missing" if after.is_none() && maybe_done => Ok(()),
                "missing" => Err(EventStoreError::DurableStreamNotFound(name)),
                "active" => Err(EventStoreError::DurableStreamActive(name)),
                _ => Err(EventStoreError::InvalidOptions(format!(
                    "after: {} is beyond the newest sequence number, {}",
                    after.unwrap_or_default(),
                    row.get::<_, i64>(1)
                ))),
            }
        });
    }
}

/// Takes a lease; what there is to be compared is compared here, as filters may be written in many ways.
async fn take_lease(
    backend: Arc<Backend>,
    leases: Arc<PostgresLeases>,
    request: LeaseRequest,
) -> Result<Taken> {
    let LeaseRequest { name, query, lost } = request;
    let filters = query.text();
    let mut expected = filters.to_owned();
    let _turn = leases.alone_with(&name).await;
    leases.release_late(&name).await?;
    leases.touched.store(true, Ordering::SeqCst);
    loop {
        let mine = leases.held.holds(&name);
        let asked = backend
            .ask_one(
                &backend.statements.take_lease,
                &[
                    (&&*name, Type::TEXT),
                    (&filters, Type::TEXT),
                    (&expected, Type::TEXT),
                    (&backend.store, Type::INT8),
                    (&mine, Type::BOOL),
                ],
            )
            .await;
        // Who takes a lease gives a sign of life with it.
        leases.doubt();
        let row = asked?;
        match row.get::<_, &str>(0) {
            "taken" => {
                let (fencing, position) = (row.get(2), row.get::<_, i64>(3) as u64);
                let taken = Left { fencing, position };
                return Ok(Taken {
                    lease: leases.held.keep(name, taken, lost, leases.this.clone()),
                    position,
                    head: row.get::<_, i64>(4) as u64,
                });
            }
            "active" => {
                return Err(EventStoreError::DurableStreamActive(
                    name.as_ref().to_owned(),
                ));
            }
            _ => {
                let stored: String = row.get(1);
                if canonical_filters(&stored) != query.canonical_text() {
                    let name = name.as_ref().to_owned();
                    return Err(EventStoreError::DurableStreamQueryMismatch(name));
                }
                expected = stored;
            }
        }
    }
}

impl LogSource for PostgresStreams {
    fn head(&self, reply: Reply<u64>) {
        let backend = self.backend.clone();
        self.answer(reply, async move { head(&backend).await });
    }

    fn read_batches(&self, request: BatchRequest, reply: Reply<BatchPage>) {
        let backend = self.backend.clone();
        let watched = self.watched.clone();
        self.answer(reply, async move {
            loop {
                // Streams outlive a server that is restarted, however long that takes.
                match batches::read(&backend, &request).await {
                    Err(EventStoreError::BackendFailure(error)) if !watched.has_ended() => {
                        tracing::warn!(error, "streams wait for the server");
                        watched.pause(watcher::RETRY_EVERY).await;
                    }
                    outcome => return outcome,
                }
            }
        });
    }

    fn stream_opened(&self) {
        self.watched.stream_opened();
    }

    fn stream_closed(&self) {
        self.watched.stream_closed();
    }

    fn take_lease(&self, request: LeaseRequest, reply: Reply<Taken>) {
        self.answer(
            reply,
            take_lease(self.backend.clone(), self.leases.clone(), request),
        );
    }

    fn list(&self, reply: Reply<Vec<DurableStreamInfo>>) {
        let (backend, leases) = (self.backend.clone(), self.leases.clone());
        self.answer(reply, async move {
            let rows = backend.ask(&backend.statements.list_streams, &[]).await?;
            let mut listed: Vec<DurableStreamInfo> = rows
                .iter()
                .map(|row| {
                    let name: String = row.get(0);
                    let owner: Option<i64> = row.get(3);
                    let active = if owner == Some(backend.store) {
                        leases.held.holds(&name)
                    } else {
                        row.get::<_, Option<bool>>(4).unwrap_or(false)
                    };
                    DurableStreamInfo {
                        name,
                        query: filters_to_query(row.get(1)),
                        position: row.get::<_, i64>(2) as u64,
                        head_sequence_number: row.get::<_, Option<i64>>(5).map(|head| head as u64),
                        active,
                    }
                })
                .collect();
            listed.sort_by(|one, other| one.name.cmp(&other.name));
            Ok(listed)
        });
    }

    fn reset(&self, name: &str, after: u64, reply: Reply<()>) {
        self.change(name, Some(after), reply);
    }

    fn delete(&self, name: &str, reply: Reply<()>) {
        self.change(name, None, reply);
    }
}

/// The newest sequence number, 0 when empty.
pub(super) async fn head(backend: &Backend) -> Result<u64> {
    let row = backend.ask_one(&backend.statements.head, &[]).await?;
    Ok(row.get::<_, i64>(0) as u64)
}
