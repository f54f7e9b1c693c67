use std::fmt;
use std::time::Duration;

use crate::contract::EventStoreError;

/// The longest name of PostgreSQL, in bytes.
const LONGEST_NAME: usize = 63;

/// How a PostgreSQL store connects, and where it keeps its tables.
///
/// # The URL
///
/// A store's URL is what libpq takes: `postgres://` or `postgresql://`, or `name=value` pairs. Several
/// hosts are tried in turn, and each parameter means what libpq's manual says, but:
///
/// - Only the URL counts: no `PG*` environment variable, no password file, no service file and
///   nothing in `~/.postgresql`.
/// - Without a host it is `localhost`.
/// - Of several hosts, those that refuse writes are passed over, unless `target_session_attrs=any`.
///   `read-only` and `standby` are refused, as a store has to write.
/// - `sslmode=verify-full` without `sslrootcert` trusts whom the operating system trusts.
/// - With `sslmode=prefer`, a login that fails over TLS is tried without it only if the handshake fails or
///   the server's rules refuse the encryption, and not if the password is wrong.
/// - Its `connect_timeout` (for each host) comes before the option.
/// - Parameters that can't be honoured safely (such as `sslcrl`, `require_auth` and `requirepeer`) and
///   unknown ones are refused by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresStoreOptions {
    /// The schema of the store's tables, which is always quoted. Default `public`.
    ///
    /// 1 to 63 bytes, without U+0000 and `$factstr$`, not starting with `pg_`.
    pub schema: String,
    /// How many connections the pool may hold, at least 1. Default 8.
    ///
    /// The store keeps a few more outside the pool: one that writes, and, while streams run, one for their
    /// leases and cursors and one that listens.
    pub max_connections: usize,
    /// How long a new connection may take in all, how long to wait for one of the pool, and how long an
    /// operation goes on trying while there is none. Default 10 seconds.
    pub connect_timeout: Duration,
    /// How long a statement may run. Default 30 seconds; zero means without a limit.
    pub statement_timeout: Duration,
    /// The name that the server shows for the connections. Default: the URL's, else `factstr`.
    pub application_name: Option<String>,
    /// How often to look for what other processes appended. Default 100 ms.
    pub poll_interval: Duration,
    /// Certificates and keys, if the URL does not name their files.
    pub tls: TlsOptions,
}

impl Default for PostgresStoreOptions {
    fn default() -> Self {
        Self {
            schema: "public".to_owned(),
            max_connections: 8,
            connect_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(30),
            application_name: None,
            poll_interval: Duration::from_millis(100),
            tls: TlsOptions::default(),
        }
    }
}

impl PostgresStoreOptions {
    /// Refuses what no server could make sense of.
    pub(crate) fn check(&self) -> Result<(), EventStoreError> {
        check_schema(&self.schema)?;
        if self.max_connections == 0 {
            return Err(invalid("max_connections", "at least 1 is needed"));
        }
        if self.connect_timeout.is_zero() {
            return Err(invalid("connect_timeout", "it must be longer than zero"));
        }
        if self.poll_interval.is_zero() {
            return Err(invalid("poll_interval", "it must be longer than zero"));
        }
        // The server counts milliseconds in 31 bits.
        if self.statement_timeout.as_millis() > i32::MAX as u128 {
            return Err(invalid("statement_timeout", "at most 2147483647 ms"));
        }
        if self.application_name.as_deref().is_some_and(has_nul) {
            return Err(invalid("application_name", "it must not contain U+0000"));
        }
        self.tls.check()
    }
}

fn check_schema(schema: &str) -> Result<(), EventStoreError> {
    let wrong = if schema.is_empty() {
        "it must not be empty"
    } else if schema.len() > LONGEST_NAME {
        "at most 63 bytes of UTF-8"
    } else if has_nul(schema) {
        "it must not contain U+0000"
    } else if schema.contains("$factstr$") {
        "'$factstr$' quotes the store's functions"
    } else if schema.starts_with("pg_") {
        "names that start with 'pg_' belong to PostgreSQL"
    } else {
        return Ok(());
    };
    Err(invalid("schema", wrong))
}

fn has_nul(text: &str) -> bool {
    text.contains('\0')
}

fn invalid(option: &str, wrong: &str) -> EventStoreError {
    EventStoreError::InvalidOptions(format!("options.{option}: {wrong}"))
}

/// Certificates and keys in PEM. They replace the URL's `sslrootcert`, `sslcert` and `sslkey`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct TlsOptions {
    /// The certificates to trust. If the URL has no `sslmode`, they make it `verify-full`.
    pub ca: Option<Vec<u8>>,
    /// The client's certificate, followed by those between it and the server's root.
    pub cert: Option<Vec<u8>>,
    /// The client certificate's private key, not encrypted.
    pub key: Option<Vec<u8>>,
    /// The name that the server's certificate must carry. Default: the URL's host.
    pub server_name: Option<String>,
}

impl TlsOptions {
    fn check(&self) -> Result<(), EventStoreError> {
        match (&self.cert, &self.key) {
            (Some(_), None) => Err(invalid("tls.key", "a client certificate needs its key")),
            (None, Some(_)) => Err(invalid("tls.cert", "a key needs its certificate")),
            _ => Ok(()),
        }
    }
}

/// Tells what is there, and never what is in it.
impl fmt::Debug for TlsOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |given: &Option<Vec<u8>>| given.as_ref().map(|_| "..");
        formatter
            .debug_struct("TlsOptions")
            .field("ca", &told(&self.ca))
            .field("cert", &told(&self.cert))
            .field("key", &told(&self.key))
            .field("server_name", &self.server_name)
            .finish()
    }
}
