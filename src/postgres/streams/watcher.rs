//! What has to be done now and then while streams run; nothing while none does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_postgres::AsyncMessage;
use tokio_postgres::types::Type;

use super::{PostgresStreams, head};
use crate::postgres::connect::{ConnectionEvent, Failure, Session};

/// How often cursors are stored.
const STORE_EVERY: Duration = Duration::from_millis(50);
/// How often a store with streams gives a sign of life.
const TOUCH_EVERY: Duration = Duration::from_secs(1);
/// How long to wait after the server could not be asked.
pub(super) const RETRY_EVERY: Duration = Duration::from_millis(500);
/// How long to wait before another try to listen.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

/// Whether there is something to watch for.
#[derive(Debug, Clone, Default)]
pub(super) struct Watched(Arc<State>);

#[derive(Debug, Default)]
struct State {
    streams: AtomicUsize,
    ended: AtomicBool,
    changed: Notify,
    /// Another store has told of a commit.
    hint: Notify,
}

impl Watched {
    pub(super) fn stream_opened(&self) {
        if self.0.streams.fetch_add(1, Ordering::SeqCst) == 0 {
            self.0.changed.notify_waiters();
        }
    }

    pub(super) fn stream_closed(&self) {
        self.0.streams.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn end(&self) {
        self.0.ended.store(true, Ordering::SeqCst);
        self.0.changed.notify_waiters();
        // The poll waits for a hint only.
        self.0.hint.notify_one();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.0.ended.load(Ordering::SeqCst)
    }

    pub(super) async fn until_end(&self) {
        loop {
            let changed = self.0.changed.notified();
            if self.has_ended() {
                return;
            }
            changed.await;
        }
    }

    fn is_idle(&self) -> bool {
        self.0.streams.load(Ordering::SeqCst) == 0
    }

    /// Waits this long, or until the end.
    pub(super) async fn pause(&self, time: Duration) {
        let ended = self.0.changed.notified();
        if !self.has_ended() {
            let _ = timeout(time, ended).await;
        }
    }

    /// Waits until there are streams; `false`: there will be none.
    async fn until_busy(&self, also: impl Fn() -> bool) -> bool {
        loop {
            let changed = self.0.changed.notified();
            if self.has_ended() {
                return false;
            }
            if !self.is_idle() || also() {
                return true;
            }
            changed.await;
        }
    }

    /// Something is to be done although there are no streams.
    pub(super) fn wake(&self) {
        self.0.changed.notify_waiters();
    }
}

impl PostgresStreams {
    pub(super) fn watch(&self) {
        let runtime = &self.backend.runtime;
        let with = |this: std::sync::Weak<Self>| this.upgrade();
        if let Some(this) = with(self.this.clone()) {
            runtime.spawn(this.poll());
        }
        if let Some(this) = with(self.this.clone()) {
            runtime.spawn(this.keep());
        }
        if let Some(this) = with(self.this.clone()) {
            runtime.spawn(this.listen());
        }
    }

    /// Looks for commits of others.
    async fn poll(self: Arc<Self>) {
        while self.watched.until_busy(|| false).await {
            match head(&self.backend).await {
                Ok(head) => {
                    if let Some(delivery) = self.delivery() {
                        delivery.observe(head).fire();
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the store could not be watched for other writers");
                    self.watched.pause(RETRY_EVERY).await;
                }
            }
            let _ = timeout(self.poll_interval, self.watched.0.hint.notified()).await;
        }
    }

    /// Stores cursors and gives signs of life.
    async fn keep(self: Arc<Self>) {
        let mut touched = None;
        let unreleased = || self.leases.held.has_unreleased();
        while self.watched.until_busy(unreleased).await {
            if self.leases.held.has_moved()
                && let Err(error) = self.leases.store_moved().await
            {
                tracing::warn!(%error, "the cursors of durable streams could not be stored");
            }
            let now = std::time::Instant::now();
            if touched.is_none_or(|at| now - at >= TOUCH_EVERY) {
                touched = Some(now);
                if let Some(delivery) = self.delivery() {
                    delivery.touch_idle();
                }
                if !self.watched.is_idle()
                    && let Err(error) = self.leases.touch().await
                {
                    tracing::warn!(%error, "the leases of durable streams could not be renewed");
                }
            }
            self.watched.pause(STORE_EVERY).await;
        }
    }

    /// Hears at once of commits of others, where a connection of its own is possible.
    async fn listen(self: Arc<Self>) {
        while self.watched.until_busy(|| false).await {
            match self.start_listening().await {
                Ok(Some((_session, ended))) => {
                    // Until the connection or the store ends. Streams that come and go keep it.
                    loop {
                        let changed = self.watched.0.changed.notified();
                        if self.watched.has_ended() {
                            break;
                        }
                        tokio::select! {
                            () = ended.notified() => break,
                            () = changed => {}
                        }
                    }
                }
                // A pooler is in between: there are only polls.
                Ok(None) => return,
                Err(failure) => {
                    tracing::debug!(%failure, "commits of others are found by polls only");
                }
            }
            self.watched.pause(LISTEN_AGAIN).await;
        }
    }

    /// `None`: what is connected to is no session of its own.
    async fn start_listening(&self) -> Result<Option<(Session, Arc<Notify>)>, Failure> {
        let watched = self.watched.clone();
        let ended = Arc::new(Notify::new());
        let told = ended.clone();
        let on_event = move |event| match event {
            ConnectionEvent::Message(message) => {
                if matches!(*message, AsyncMessage::Notification(_)) {
                    watched.0.hint.notify_one();
                }
            }
            ConnectionEvent::Ended(_) => told.notify_one(),
        };
        let backend = &self.backend;
        let Some(session) = backend.connections.connect_directly(on_event).await? else {
            return Ok(None);
        };
        let schema = format!("{}.events", backend.statements.schema);
        let failure = |error: tokio_postgres::Error| session.failure(&error);
        let rows = session
            .query_typed("SELECT $1::regclass::oid::text", &[(&schema, Type::TEXT)])
            .await
            .map_err(failure)?;
        if let Some(row) = rows.first() {
            let listen = format!("LISTEN factstr_{}", row.get::<_, &str>(0));
            session.batch_execute(&listen).await.map_err(failure)?;
        }
        // What was committed before it listened.
        self.watched.0.hint.notify_one();
        Ok(Some((session, ended)))
    }
}

/// Tells other stores of commits, as often as the server keeps up with it.
pub(in crate::postgres) async fn notify(
    backend: Arc<crate::postgres::backend::Backend>,
    committed: Arc<Notify>,
    mut ended: tokio::sync::watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            () = committed.notified() => {}
            _ = ended.wait_for(|ended| *ended) => return,
        }
        if let Err(error) = backend.ask(&backend.statements.notify, &[]).await {
            tracing::debug!(%error, "other stores find the commit by their polls");
            sleep(RETRY_EVERY).await;
        }
    }
}
