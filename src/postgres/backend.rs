//! What the parts of one store share: its connections and its statements.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

use super::connect::{Connections, Failure, PooledClient, Session};
use super::statements::{NO_CHOICE, Statements};
use crate::contract::EventStoreError;
use crate::delivery::draw_owner;
use crate::runtime::CONNECTIONS;
use crate::selection::ContextVersions;

pub(super) type Result<T> = std::result::Result<T, EventStoreError>;

/// The arguments of a statement. Their types are told, so that it needs no preparation.
pub(super) type Arguments<'a> = [(&'a (dyn ToSql + Sync), Type)];

/// Waits between tries to connect grow up to this.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Backend {
    pub(super) connections: Connections,
    pub(super) statements: Statements,
    pub(super) runtime: Handle,
    pub(super) versions: ContextVersions,
    /// The text that a row of the last full page of all events took.
    pub(super) row_bytes: AtomicUsize,
    /// Connections keep what is prepared on them: there is no pooler in between.
    pub(super) own_sessions: AtomicBool,
    /// Tells this store from all others.
    pub(super) store: i64,
    /// How long an operation goes on trying while there is no connection.
    pub(super) patience: Duration,
}

impl Backend {
    pub(super) fn new(
        connections: Connections,
        schema: &str,
        patience: Duration,
    ) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            connections,
            statements: Statements::new(schema),
            runtime: CONNECTIONS.handle()?,
            versions: ContextVersions::default(),
            row_bytes: AtomicUsize::new(0),
            own_sessions: AtomicBool::new(false),
            store: draw_owner(),
            patience,
        }))
    }

    /// The same store by other connections.
    pub(super) fn by(&self, connections: Connections) -> Arc<Self> {
        Arc::new(Self {
            connections,
            statements: Statements::new(&self.statements.name),
            runtime: self.runtime.clone(),
            versions: ContextVersions::default(),
            row_bytes: AtomicUsize::new(0),
            own_sessions: AtomicBool::new(self.has_own_sessions()),
            store: self.store,
            patience: self.patience,
        })
    }

    /// Runs a statement that may be repeated, if a connection is lost.
    pub(super) async fn ask(&self, statement: &str, arguments: &Arguments<'_>) -> Result<Vec<Row>> {
        let (rows, _) = self.ask_again(statement, arguments).await?;
        Ok(rows)
    }

    /// The same; also tells whether it may have been done before, by a try whose answer was lost.
    pub(super) async fn ask_again(
        &self,
        statement: &str,
        arguments: &Arguments<'_>,
    ) -> Result<(Vec<Row>, bool)> {
        let maybe_done = AtomicBool::new(false);
        let rows = self.retry(|| async {
            let client = self.connections.get().await?;
            let answer = self.ask_on(&client, statement, arguments).await;
            if answer.as_ref().is_err_and(Failure::leaves_outcome_open) {
                maybe_done.store(true, Ordering::Relaxed);
            }
            answer
        });
        let rows = rows.await?;
        Ok((rows, maybe_done.into_inner()))
    }

    /// Runs a statement that may be repeated and has one row.
    pub(super) async fn ask_one(&self, statement: &str, arguments: &Arguments<'_>) -> Result<Row> {
        let rows = self.ask(statement, arguments).await?;
        rows.into_iter().next().ok_or_else(no_row)
    }

    async fn ask_on(
        &self,
        client: &PooledClient,
        statement: &str,
        arguments: &Arguments<'_>,
    ) -> std::result::Result<Vec<Row>, Failure> {
        let running = async {
            if self.has_own_sessions() && !client.is_set_up() {
                client.batch_execute(NO_CHOICE).await?;
                client.set_up();
            }
            self.run(client, statement, arguments).await
        };
        self.connections.with_timeout(client, running).await
    }

    pub(super) fn has_own_sessions(&self) -> bool {
        self.own_sessions.load(Ordering::Relaxed)
    }

    /// Has the server forget this store. Once only: who closes should not wait for a server that is away, and
    /// others clear up what stays.
    pub(super) async fn forget_store(&self) {
        let arguments: [(&(dyn ToSql + Sync), Type); 1] = [(&self.store, Type::INT8)];
        let forgetting = async {
            let client = self.connections.get().await?;
            let statement = &self.statements.forget_store;
            self.ask_on(&client, statement, &arguments).await
        };
        match timeout(self.patience, forgetting).await {
            Ok(Ok(_)) => {}
            Ok(Err(failure)) => tracing::debug!(%failure, "the server still knows the store"),
            Err(_) => tracing::debug!("the server still knows the store: it does not answer"),
        }
    }

    /// Runs a statement on a connection: a prepared one where the session is our own.
    pub(super) async fn run(
        &self,
        session: &Session,
        statement: &str,
        arguments: &Arguments<'_>,
    ) -> std::result::Result<Vec<Row>, tokio_postgres::Error> {
        if !self.has_own_sessions() {
            return session.query_typed(statement, arguments).await;
        }
        let prepared = session.prepare_cached(statement).await?;
        let values: Vec<_> = arguments.iter().map(|(value, _)| *value).collect();
        let answer = session.query(&prepared, &values).await;
        if let Err(error) = &answer
            && error.code() == Some(&SqlState::FEATURE_NOT_SUPPORTED)
        {
            // The functions were replaced by those of another release: what was prepared is of no use.
            session.statement_cache.clear();
        }
        answer
    }

    /// Tries again while another connection may do better.
    pub(super) async fn retry<T, F>(
        &self,
        mut attempt: impl FnMut() -> F,
    ) -> std::result::Result<T, Failure>
    where
        F: Future<Output = std::result::Result<T, Failure>>,
    {
        let mut pauses = Pauses::new(self.patience);
        loop {
            match attempt().await {
                Err(failure)
                    if (failure.may_pass() || is_conflict(&failure)) && pauses.wait().await =>
                {
                    tracing::debug!(%failure, "trying again");
                }
                outcome => return outcome,
            }
        }
    }
}

/// Where transactions are serializable by default, one of two that meet has to be repeated.
fn is_conflict(failure: &Failure) -> bool {
    failure.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE)
}

/// Growing waits, until it has taken too long.
pub(super) struct Pauses {
    since: Instant,
    patience: Duration,
    next: Duration,
}

impl Pauses {
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            since: Instant::now(),
            patience,
            next: Duration::from_millis(10),
        }
    }

    /// `false`: it has taken too long.
    pub(super) async fn wait(&mut self) -> bool {
        let left = self.patience.saturating_sub(self.since.elapsed());
        if left.is_zero() {
            return false;
        }
        tokio::time::sleep(self.next.min(left)).await;
        self.next = (self.next * 2).min(LONGEST_PAUSE);
        true
    }
}

pub(super) fn no_row() -> EventStoreError {
    EventStoreError::BackendFailure("a statement that has one row returned none".to_owned())
}
