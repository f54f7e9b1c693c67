//! The connections of a store: a pool for reads, and others on their own.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{
    Manager, Metrics, Object, Pool, PoolError, QueueMode, RecycleError, RecycleResult, TimeoutType,
};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_postgres::AsyncMessage;

use super::dial::dial;
use super::failure::{Failure, FailureKind};
use super::session::{ConnectionEvent, Session};
use super::target::ConnectionTarget;
use crate::contract::EventStoreError;
use crate::postgres::PostgresStoreOptions;
use crate::runtime::CONNECTIONS;

/// After how long in the pool a connection has to prove that the server still answers.
const IDLE: Duration = Duration::from_secs(30);
/// How long that may take.
const PROOF: Duration = Duration::from_secs(5);

/// A connection of the pool, which goes back when it is dropped.
pub(crate) type PooledClient = Object<Dialler>;

/// All connections to one target. They live in the crate's own runtime, so that their users need none.
#[derive(Clone)]
pub(crate) struct Connections {
    pool: Pool<Dialler>,
    target: Arc<ConnectionTarget>,
    runtime: Handle,
    wait: Duration,
    statement_timeout: Duration,
}

impl Connections {
    /// Prepares a pool, and connects to nothing yet.
    pub(crate) fn new(
        target: ConnectionTarget,
        options: &PostgresStoreOptions,
    ) -> Result<Self, EventStoreError> {
        let runtime = CONNECTIONS.handle()?;
        let target = Arc::new(target);
        let dialler = Dialler {
            target: target.clone(),
            runtime: runtime.clone(),
        };
        let pool = Pool::builder(dialler)
            .max_size(options.max_connections)
            .wait_timeout(Some(options.connect_timeout))
            .recycle_timeout(Some(PROOF))
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| EventStoreError::BackendFailure(error.to_string()))?;
        Ok(Self {
            pool,
            target,
            runtime,
            wait: options.connect_timeout,
            statement_timeout: options.statement_timeout,
        })
    }

    /// A connection of the pool. Waits for at most `connect_timeout` until one is free, and as long
    /// again if it has to be made.
    pub(crate) async fn get(&self) -> Result<PooledClient, Failure> {
        let got = in_context(&self.runtime, self.pool.get()).await;
        got.map_err(|error| match error {
            PoolError::Backend(failure) => failure,
            PoolError::Closed => Failure::closed(),
            PoolError::Timeout(TimeoutType::Wait) => Failure::new(
                FailureKind::Unavailable,
                format!(
                    "no connection to {} became free within {:?}: all {} of the pool are in use",
                    self.target.describe(),
                    self.wait,
                    self.pool.status().max_size
                ),
            ),
            error => Failure::new(FailureKind::Unavailable, error.to_string()),
        })
    }

    /// A connection outside the pool. Its task ends when the session is dropped, or by itself;
    /// `on_event` is called in that task, and must not block it.
    pub(crate) async fn connect_dedicated(
        &self,
        on_event: impl FnMut(ConnectionEvent) + Send + 'static,
    ) -> Result<(Session, JoinHandle<()>), Failure> {
        if self.pool.is_closed() {
            return Err(Failure::closed());
        }
        let dialled = in_context(&self.runtime, Box::pin(dial(&self.target))).await?;
        Ok(Session::start(
            dialled,
            &self.target,
            &self.runtime,
            on_event,
        ))
    }

    /// A connection outside the pool with a session of its own, in which state can be kept. `None`: there
    /// is a pooler in between that has not passed on what only a session knows.
    pub(crate) async fn connect_directly(
        &self,
        on_event: impl FnMut(ConnectionEvent) + Send + 'static,
    ) -> Result<Option<Session>, Failure> {
        if self.pool.is_closed() {
            return Err(Failure::closed());
        }
        // A pooler refuses a parameter that it does not know, or drops it.
        let target = Arc::new(self.target.with_setting("factstr.session", "own"));
        let dialled = match in_context(&self.runtime, Box::pin(dial(&target))).await {
            Err(failure) if failure.kind() == FailureKind::Rejected => {
                tracing::debug!(%failure, "there is no session of its own");
                return Ok(None);
            }
            dialled => dialled?,
        };
        let (session, _) = Session::start(dialled, &target, &self.runtime, on_event);
        let sql = "SELECT coalesce(current_setting('factstr.session', true), '')";
        let asking = async {
            let rows = session.query_typed(sql, &[]).await;
            rows.map_err(|error| session.failure(&error))
        };
        let rows = self.promptly(&session, asking).await?;
        let is_own = rows
            .first()
            .is_some_and(|row| row.get::<_, &str>(0) == "own");
        Ok(is_own.then_some(session))
    }

    /// Asks of a new session what takes no time: it belongs to the connecting, and to its time.
    pub(crate) async fn promptly<T>(
        &self,
        session: &Session,
        asking: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let asking = {
            let _context = self.runtime.enter();
            tokio::time::timeout(self.wait, asking)
        };
        asking.await.unwrap_or_else(|_| {
            let message = format!("{} does not answer in time", session.place());
            Err(Failure::new(FailureKind::Unavailable, message))
        })
    }

    /// Runs statements of a session within the options' `statement_timeout`.
    pub(crate) async fn with_timeout<T>(
        &self,
        session: &Session,
        statements: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Failure> {
        let canceller = session.canceller();
        canceller
            .with_timeout(self.statement_timeout, statements)
            .await
    }

    /// Ends the pool: connections that are in use end when they come back. Idempotent.
    pub(crate) fn close(&self) {
        self.pool.close();
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Connections")
            .field("target", &self.target)
            .field("status", &self.pool.status())
            .finish_non_exhaustive()
    }
}

/// Makes the connections of the pool, and decides which ones are still good.
#[derive(Debug)]
pub(crate) struct Dialler {
    target: Arc<ConnectionTarget>,
    runtime: Handle,
}

impl Manager for Dialler {
    type Type = Session;
    type Error = Failure;

    async fn create(&self) -> Result<Session, Failure> {
        let dialled = Box::pin(dial(&self.target)).await?;
        let (session, _) = Session::start(dialled, &self.target, &self.runtime, log);
        Ok(session)
    }

    async fn recycle(&self, session: &mut Session, metrics: &Metrics) -> RecycleResult<Failure> {
        if session.is_closed() {
            return Err(RecycleError::message("the connection has ended"));
        }
        if metrics.last_used() > IDLE {
            let proof = session.simple_query("").await;
            proof.map_err(|error| session.failure(&error))?;
        }
        Ok(())
    }
}

fn log(event: ConnectionEvent) {
    match event {
        ConnectionEvent::Message(message) => {
            if let AsyncMessage::Notice(notice) = *message {
                tracing::debug!(message = notice.message(), "the server told something");
            }
        }
        ConnectionEvent::Ended(Some(failure)) => tracing::debug!(%failure, "a connection ended"),
        ConnectionEvent::Ended(None) => {}
    }
}

/// Polls in a runtime's context, whoever polls.
async fn in_context<T>(runtime: &Handle, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    poll_fn(|context| {
        let _entered = runtime.enter();
        future.as_mut().poll(context)
    })
    .await
}
