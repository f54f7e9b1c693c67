//! One open connection: who drives it, who hears of it, and who cancels what takes too long on it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::ops::{Deref, DerefMut};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinHandle, spawn_blocking};
use tokio::time::Timeout;
use tokio_postgres::{AsyncMessage, CancelToken};

use super::cancel::{self, Address};
use super::dial::Dialled;
use super::failure::{Failure, FailureKind};
use super::target::ConnectionTarget;

/// How long a cancelled statement may take to answer before its connection is given up.
const LAST_WORD: Duration = Duration::from_secs(5);

/// What a connection tells on its own.
#[derive(Debug)]
pub(crate) enum ConnectionEvent {
    /// A notice or a notification.
    Message(Box<AsyncMessage>),
    /// The connection ended; without a failure if this side ended it. It is the last event.
    Ended(Option<Failure>),
}

/// An open connection, as tokio-postgres' client with a cache of prepared statements.
///
/// Dropped, it says goodbye to the server in the background.
pub(crate) struct Session {
    client: ClientWrapper,
    canceller: Arc<Canceller>,
    is_set_up: AtomicBool,
}

impl Session {
    /// Has the runtime drive a new connection.
    pub(super) fn start(
        dialled: Dialled,
        target: &Arc<ConnectionTarget>,
        runtime: &Handle,
        on_event: impl FnMut(ConnectionEvent) + Send + 'static,
    ) -> (Self, JoinHandle<()>) {
        let place: Arc<str> = dialled.place.into();
        let token = dialled.client.cancel_token();
        let driver = runtime.spawn(drive(dialled.connection, place.clone(), on_event));
        let canceller = Canceller {
            token,
            address: dialled.address,
            target: target.clone(),
            place,
            driver: driver.abort_handle(),
            ended: AtomicBool::new(false),
            runtime: runtime.clone(),
        };
        // The wrapper aborts the task that it is given when it is dropped, without a goodbye, about
        // which servers complain in their logs. The driver ends by itself.
        let nothing = runtime.spawn(std::future::ready(()));
        let session = Self {
            client: ClientWrapper::new(dialled.client, nothing),
            canceller: Arc::new(canceller),
            is_set_up: AtomicBool::new(false),
        };
        (session, driver)
    }

    /// Whether its user has set it up, see [`Self::set_up`].
    pub(crate) fn is_set_up(&self) -> bool {
        self.is_set_up.load(Ordering::Relaxed)
    }

    /// Notes that its user has changed what is to be changed once in a session.
    pub(crate) fn set_up(&self) {
        self.is_set_up.store(true, Ordering::Relaxed);
    }

    /// `host:port/database as user`, for messages.
    pub(crate) fn place(&self) -> &str {
        &self.canceller.place
    }

    /// Whether the connection has ended, from either side.
    pub(crate) fn is_closed(&self) -> bool {
        self.canceller.ended.load(Ordering::Acquire) || self.client.is_closed()
    }

    /// What cancels statements of this connection, usable while the connection is borrowed.
    pub(crate) fn canceller(&self) -> Arc<Canceller> {
        self.canceller.clone()
    }

    /// A failure of a statement on this connection.
    pub(crate) fn failure(&self, error: &tokio_postgres::Error) -> Failure {
        Failure::of_statement(error, self.place())
    }
}

impl Deref for Session {
    type Target = ClientWrapper;

    fn deref(&self) -> &ClientWrapper {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut ClientWrapper {
        &mut self.client
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("Session")
            .field(&self.place())
            .finish()
    }
}

/// Cancels statements of one connection.
pub(crate) struct Canceller {
    token: CancelToken,
    address: Address,
    target: Arc<ConnectionTarget>,
    place: Arc<str>,
    driver: AbortHandle,
    /// Set before the driver has noticed.
    ended: AtomicBool,
    runtime: Handle,
}

impl Canceller {
    /// Runs statements, and cancels them when they take longer than the limit; zero means without one.
    /// The server's own `statement_timeout` would be state of a session, which poolers don't keep.
    ///
    /// [`FailureKind::Timeout`] says that nothing was done. If the server does not even answer the
    /// cancel request in time, the failure is [`FailureKind::Lost`]. After a cancel request the
    /// connection has ended in any case: the request might be late, and hit the next statement.
    pub(crate) async fn with_timeout<T>(
        &self,
        limit: Duration,
        statements: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Failure> {
        let failed = |error| Failure::of_statement(&error, &self.place);
        let mut statements = pin!(statements);
        if limit.is_zero() {
            return statements.await.map_err(failed);
        }
        if let Ok(answer) = self.within(limit, statements.as_mut()).await {
            return answer.map_err(failed);
        }
        self.runtime.spawn(self.request());
        let answer = self.within(LAST_WORD, statements).await;
        self.end();
        if let Ok(answer) = answer {
            return answer.map_err(|error| {
                let failure = failed(error);
                if failure.kind() != FailureKind::Timeout {
                    return failure;
                }
                // The server tells only that somebody has asked for it.
                let message = format!("a statement took longer than {limit:?}: {failure}");
                failure.with_message(message)
            });
        }
        let message = format!(
            "a statement took longer than {limit:?}, and {} did not answer the request to cancel it",
            self.place
        );
        Err(Failure::new(FailureKind::Lost, message))
    }

    /// Ends the connection at once, whatever is on its way.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.driver.abort();
    }

    /// Asks the server to cancel what runs.
    fn request(&self) -> impl Future<Output = ()> + Send + use<> {
        let (token, address) = (self.token.clone(), self.address.clone());
        let (target, place) = (self.target.clone(), self.place.clone());
        async move {
            let settings = target.tls.clone();
            let connector = spawn_blocking(move || settings.connector()).await;
            let asked = match connector {
                Ok(Ok(connector)) => {
                    let request = cancel::request(token, address, connector);
                    match tokio::time::timeout(target.in_all, request).await {
                        Ok(asked) => asked,
                        Err(late) => Err(late.to_string()),
                    }
                }
                Ok(Err(error)) => Err(error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(failure) = asked {
                tracing::warn!(%failure, %place, "a statement can't be cancelled");
            }
        }
    }

    /// A timeout that any executor may poll.
    fn within<F: Future>(&self, limit: Duration, future: F) -> Timeout<F> {
        let _context = self.runtime.enter();
        tokio::time::timeout(limit, future)
    }
}

async fn drive<S, T>(
    mut connection: tokio_postgres::Connection<S, T>,
    place: Arc<str>,
    mut on_event: impl FnMut(ConnectionEvent),
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let failure = loop {
        match poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(message)) => on_event(ConnectionEvent::Message(Box::new(message))),
            Some(Err(error)) => break Some(Failure::of_statement(&error, &place)),
            None => break None,
        }
    };
    // The statements that wait hear of it before.
    drop(connection);
    on_event(ConnectionEvent::Ended(failure));
}
