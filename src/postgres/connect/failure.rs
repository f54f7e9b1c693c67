//! What went wrong with a server, in a sentence, and what it means for the caller.

use std::error::Error as _;
use std::fmt;
use std::io;

use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::contract::EventStoreError;

/// What a failure means for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// There is no connection now, but there may be soon: the server is starting up or full, refuses,
    /// can't be reached, or is no primary. Nothing was asked of it.
    Unavailable,
    /// There is no connection, and trying again won't help: a wrong password, database or
    /// certificate. Nothing was asked of the server.
    Rejected,
    /// The connection ended: what was on its way may have been done or not.
    Lost,
    /// As `Lost`, by the server's shutdown or an administrator.
    Shutdown,
    /// The server refuses writes, so it is no primary (any more). Nothing was done.
    ReadOnly,
    /// The statement took too long, or somebody cancelled it. Nothing was done.
    Timeout,
    /// The server refused the statement. Nothing was done.
    Server,
    /// The store was closed.
    Closed,
}

/// A failure of a connection or a statement. Its message never carries the password.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    kind: FailureKind,
    code: Option<SqlState>,
    error: EventStoreError,
}

impl Failure {
    pub(super) fn new(kind: FailureKind, message: String) -> Self {
        Self {
            kind,
            code: None,
            error: EventStoreError::BackendFailure(message),
        }
    }

    pub(super) fn closed() -> Self {
        Self {
            kind: FailureKind::Closed,
            code: None,
            error: EventStoreError::StoreClosed,
        }
    }

    /// A failure of a statement on an open connection. `place` is what the connection is to.
    pub(crate) fn of_statement(error: &tokio_postgres::Error, place: &str) -> Self {
        let Some(server) = error.as_db_error() else {
            return if was_not_sent(error) {
                let why = chain(error);
                Self::new(
                    FailureKind::Server,
                    format!("a statement can't be sent: {why}"),
                )
            } else {
                let why = lost(error);
                Self::new(
                    FailureKind::Lost,
                    format!("the connection to {place} is lost: {why}"),
                )
            };
        };
        let kind = statement_kind(server);
        let what = match kind {
            FailureKind::Lost | FailureKind::Shutdown => "the connection was ended by",
            FailureKind::ReadOnly => "writes are refused by",
            FailureKind::Timeout => "a statement was cancelled by",
            _ => "a statement was refused by",
        };
        Self::new(kind, format!("{what} {place}: {}", told(server))).with_code(server)
    }

    /// A failure to connect.
    pub(super) fn of_connecting(
        error: &tokio_postgres::Error,
        place: &str,
        has_password: bool,
    ) -> Self {
        let at = |kind, what: &str| Self::new(kind, format!("can't connect to {place}: {what}"));
        if let Some(server) = error.as_db_error() {
            let (kind, what) = connecting_kind(server);
            let told = told(server);
            let what = what.map_or(told.clone(), |what| format!("{what}: {told}"));
            return at(kind, &what).with_code(server);
        }
        let cause = chain(error);
        if let Some(tls) = find::<rustls::Error>(error) {
            let kind = FailureKind::Rejected;
            return at(kind, &format!("TLS failed: {}", tls_sentence(tls)));
        }
        if is_handshake(error) {
            let what = error.source().map_or(cause, ToString::to_string);
            return match find::<io::Error>(error) {
                Some(_) => at(FailureKind::Unavailable, &format!("TLS failed: {what}")),
                None => at(FailureKind::Rejected, &format!("TLS failed: {what}")),
            };
        }
        if cause.starts_with("authentication error") {
            return at(FailureKind::Rejected, &cause);
        }
        if let Some(io) = find::<io::Error>(error) {
            return at(FailureKind::Unavailable, &io_sentence(io));
        }
        if error.is_closed() {
            return at(FailureKind::Unavailable, "the server closed the connection");
        }
        if !has_password && cause.contains("password missing") {
            return at(
                FailureKind::Rejected,
                "the server wants a password, and the URL has none",
            );
        }
        at(FailureKind::Rejected, &cause)
    }

    fn with_code(mut self, server: &DbError) -> Self {
        self.code = Some(server.code().clone());
        self
    }

    /// The same failure in other words.
    pub(super) fn with_message(mut self, message: String) -> Self {
        self.error = EventStoreError::BackendFailure(message);
        self
    }

    pub(crate) fn kind(&self) -> FailureKind {
        self.kind
    }

    /// The server's SQLSTATE, if it answered.
    pub(crate) fn code(&self) -> Option<&SqlState> {
        self.code.as_ref()
    }

    /// Whether it is unknown if the server did what was asked of it.
    pub(crate) fn leaves_outcome_open(&self) -> bool {
        matches!(self.kind, FailureKind::Lost | FailureKind::Shutdown)
    }

    /// Whether another connection may do better.
    pub(crate) fn may_pass(&self) -> bool {
        self.leaves_outcome_open()
            || matches!(self.kind, FailureKind::Unavailable | FailureKind::ReadOnly)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(formatter)
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for EventStoreError {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

/// The store's own failures (a certificate that can't be read) don't pass by trying again.
impl From<EventStoreError> for Failure {
    fn from(error: EventStoreError) -> Self {
        Self {
            kind: FailureKind::Rejected,
            code: None,
            error,
        }
    }
}

fn statement_kind(error: &DbError) -> FailureKind {
    let code = error.code();
    if [
        &SqlState::ADMIN_SHUTDOWN,
        &SqlState::CRASH_SHUTDOWN,
        &SqlState::CANNOT_CONNECT_NOW,
    ]
    .contains(&code)
    {
        return FailureKind::Shutdown;
    }
    // After these the connection is gone, and with it the answer.
    let is_fatal = match error.parsed_severity() {
        Some(severity) => matches!(severity, Severity::Fatal | Severity::Panic),
        None => matches!(error.severity(), "FATAL" | "PANIC"),
    };
    // Class 08 is what poolers say when they lost the server.
    if is_fatal || code.code().starts_with("08") {
        FailureKind::Lost
    } else if *code == SqlState::READ_ONLY_SQL_TRANSACTION {
        FailureKind::ReadOnly
    } else if *code == SqlState::QUERY_CANCELED {
        FailureKind::Timeout
    } else {
        FailureKind::Server
    }
}

fn connecting_kind(error: &DbError) -> (FailureKind, Option<&'static str>) {
    use FailureKind::{Rejected, Unavailable};
    let code = error.code();
    match () {
        () if *code == SqlState::INVALID_PASSWORD => (Rejected, Some("the password is wrong")),
        () if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            (Rejected, Some("the server does not let the user in"))
        }
        () if *code == SqlState::INVALID_CATALOG_NAME => {
            (Rejected, Some("there is no such database"))
        }
        () if *code == SqlState::CANNOT_CONNECT_NOW => {
            (Unavailable, Some("the server is not ready"))
        }
        () if *code == SqlState::TOO_MANY_CONNECTIONS => {
            (Unavailable, Some("the server has too many connections"))
        }
        () if is_refused_by_pooler(error) => (Rejected, None),
        // A class that passes: no resources, an administrator's doing, or a pooler without a server.
        () if ["08", "53", "57", "58"]
            .iter()
            .any(|class| code.code().starts_with(class)) =>
        {
            (Unavailable, None)
        }
        () => (Rejected, None),
    }
}

/// PgBouncer has one code for all that goes wrong at a login, whether it passes or not.
fn is_refused_by_pooler(error: &DbError) -> bool {
    let lasting = [
        "authentication failed",
        "does not exist",
        "no such database",
        "no such user",
        "unsupported startup parameter",
    ];
    *error.code() == SqlState::PROTOCOL_VIOLATION
        && lasting.iter().any(|words| error.message().contains(words))
}

/// What the server said. Its detail is left out, as it may quote a payload.
fn told(error: &DbError) -> String {
    format!("{} (SQLSTATE {})", error.message(), error.code().code())
}

/// Whether the statement failed before any of it left the process.
fn was_not_sent(error: &tokio_postgres::Error) -> bool {
    // The error's kind is private.
    let text = error.to_string();
    [
        "error serializing parameter",
        "error encoding message",
        "expected ",
    ]
    .iter()
    .any(|start| text.starts_with(start))
}

/// Why there is no answer, or none that can be understood.
fn lost(error: &tokio_postgres::Error) -> String {
    match find::<io::Error>(error) {
        Some(io) => io_sentence(io),
        None if error.is_closed() => "it was closed before the answer".to_owned(),
        None => chain(error),
    }
}

pub(super) fn is_handshake(error: &tokio_postgres::Error) -> bool {
    // The error's kind is private; the tests hold this text.
    error
        .to_string()
        .starts_with("error performing TLS handshake")
}

fn io_sentence(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nobody listens there (connection refused)".to_owned(),
        io::ErrorKind::NotFound => format!("there is no such socket ({error})"),
        io::ErrorKind::TimedOut => "it does not answer in time".to_owned(),
        io::ErrorKind::UnexpectedEof => "the server closed the connection".to_owned(),
        io::ErrorKind::PermissionDenied if error.raw_os_error().is_none() => {
            "the server refuses writes, so the store can't use it".to_owned()
        }
        _ => error.to_string(),
    }
}

fn tls_sentence(error: &rustls::Error) -> String {
    use rustls::CertificateError as Wrong;
    let rustls::Error::InvalidCertificate(wrong) = error else {
        return error.to_string();
    };
    let why = match wrong {
        Wrong::UnknownIssuer | Wrong::BadSignature => "no trusted certificate signed the server's",
        Wrong::Expired | Wrong::ExpiredContext { .. } => "the server's certificate has expired",
        Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet"
        }
        Wrong::NotValidForName | Wrong::NotValidForNameContext { .. } => {
            "the server's certificate is for another name"
        }
        _ => "the server's certificate is not accepted",
    };
    format!("{why} ({wrong})")
}

/// Looks for a cause of one type, also inside of I/O errors.
fn find<'e, E: std::error::Error + 'static>(
    error: &'e (dyn std::error::Error + 'static),
) -> Option<&'e E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

fn chain(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
