//! What to connect to.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{SslNegotiation, TargetSessionAttrs};

use super::parameters::{Parameters, SslMode};
use super::tls::TlsSettings;
use super::{conninfo, uri};
use crate::contract::EventStoreError;
use crate::postgres::PostgresStoreOptions;

const DEFAULT_PORT: u16 = 5432;
/// After how long without traffic a connection is probed, so that a lost server is noticed in time.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_COUNT: u32 = 3;

/// The servers, the database and the user that a URL names, and how to connect to them.
///
/// [`PostgresStoreOptions`] tells what a URL may say.
#[derive(Clone)]
pub(crate) struct ConnectionTarget {
    /// All but the server, which each attempt adds.
    pub(super) config: Config,
    pub(super) servers: Vec<Server>,
    pub(super) ssl_mode: SslMode,
    pub(super) tls: TlsSettings,
    /// How long one server may take. Absent: its share of `in_all`.
    pub(super) per_server: Option<Duration>,
    pub(super) in_all: Duration,
    pub(super) random_order: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    /// A name, an address, or the folder of a Unix socket.
    pub(super) host: String,
    /// Where the host is, if the URL says so.
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
}

impl Server {
    pub(super) fn is_socket(&self) -> bool {
        self.address.is_none() && self.host.starts_with('/')
    }
}

impl fmt::Display for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(formatter, "[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{}:{}", self.host, self.port)
        }
    }
}

impl ConnectionTarget {
    /// Understands a URL. Reads no file and asks no server. No error repeats any of the URL but the
    /// names of its parameters.
    pub(crate) fn parse(
        url: &str,
        options: &PostgresStoreOptions,
    ) -> Result<Self, EventStoreError> {
        options.check()?;
        let invalid = |error| EventStoreError::InvalidOptions(format!("url: {error}"));
        let pairs = read(url).map_err(invalid)?;
        let parameters = Parameters::read(pairs).map_err(invalid)?;
        Self::new(parameters, options).map_err(invalid)
    }

    fn new(mut parameters: Parameters, options: &PostgresStoreOptions) -> Result<Self, String> {
        let servers = servers(&parameters)?;
        let (ssl_mode, mut tls) = TlsSettings::new(&parameters, &options.tls)?;
        if ssl_mode == SslMode::Disable || servers.iter().all(Server::is_socket) {
            tls = tls.without_certificates();
        }
        let per_server = parameters.connect_timeout;
        let mut config = Config::new();
        config.keepalives(parameters.keepalives != Some(false));
        config.keepalives_idle(parameters.keepalives_idle.unwrap_or(KEEPALIVE_IDLE));
        config.keepalives_interval(parameters.keepalives_interval.unwrap_or(KEEPALIVE_INTERVAL));
        config.keepalives_retries(parameters.keepalives_count.unwrap_or(KEEPALIVE_COUNT));
        if let Some(timeout) = parameters.tcp_user_timeout {
            config.tcp_user_timeout(timeout);
        }
        if let Some(user) = parameters.user.take() {
            config.user(user);
        }
        if let Some(password) = parameters.password.take() {
            config.password(password);
        }
        if let Some(database) = parameters.dbname.take() {
            config.dbname(database);
        }
        if let Some(options) = parameters.options.take() {
            config.options(options);
        }
        let application_name = options.application_name.clone();
        config.application_name(
            application_name
                .or(parameters.application_name)
                .or(parameters.fallback_application_name)
                .unwrap_or_else(|| "factstr".to_owned()),
        );
        if let Some(binding) = parameters.channel_binding {
            config.channel_binding(binding);
        }
        if parameters.ssl_direct == Some(true) {
            config.ssl_negotiation(SslNegotiation::Direct);
        }
        if parameters.must_write.unwrap_or(servers.len() > 1) {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        Ok(Self {
            config,
            ssl_mode,
            tls,
            per_server,
            in_all: per_server.map_or(options.connect_timeout, |each| {
                each.saturating_mul(servers.len() as u32)
            }),
            servers,
            random_order: parameters.random_order == Some(true),
        })
    }

    /// The same servers and user, and another database.
    pub(crate) fn with_database(&self, name: &str) -> Self {
        let mut target = self.clone();
        target.config.dbname(name);
        target
    }

    /// The same, and a setting that the session starts with.
    pub(crate) fn with_setting(&self, name: &str, value: &str) -> Self {
        let mut target = self.clone();
        let before = self.config.get_options().unwrap_or_default();
        target.config.options(format!("{before} -c {name}={value}"));
        target
    }

    /// The database, if the URL names one. The server's default is the user's name.
    pub(crate) fn database(&self) -> Option<&str> {
        self.config.get_dbname()
    }

    /// How long a new connection may take in all.
    pub(crate) fn connect_timeout(&self) -> Duration {
        self.in_all
    }

    /// `host:port/database as user`, for messages.
    pub(crate) fn describe(&self) -> String {
        let servers: Vec<_> = self.servers.iter().map(Server::to_string).collect();
        self.describe_at(&servers.join(","))
    }

    pub(super) fn describe_at(&self, server: &str) -> String {
        let mut text = server.to_owned();
        if let Some(database) = self.config.get_dbname() {
            text = format!("{text}/{database}");
        }
        if let Some(user) = self.config.get_user() {
            text = format!("{text} as {user}");
        }
        text
    }
}

impl fmt::Debug for ConnectionTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("ConnectionTarget")
            .field(&self.describe())
            .finish()
    }
}

fn read(url: &str) -> Result<Vec<(String, String)>, String> {
    let url = url.trim();
    let scheme = url
        .split_once("://")
        .filter(|(scheme, _)| scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    match scheme {
        Some(("postgres" | "postgresql", rest)) => uri::parse(rest),
        Some(_) => Err("it must start with postgres:// or postgresql://".to_owned()),
        None if url.is_empty() => Err("it is empty".to_owned()),
        None => conninfo::parse(url),
    }
}

/// Brings the lists of hosts, addresses and ports together.
fn servers(parameters: &Parameters) -> Result<Vec<Server>, String> {
    let (hosts, addresses) = (&parameters.hosts, &parameters.addresses);
    let ports = &parameters.ports;
    let count = hosts.len().max(addresses.len()).max(1);
    if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
        return Err(format!(
            "hostaddr: there are {} for {} hosts",
            addresses.len(),
            hosts.len()
        ));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(format!("port: there are {} for {count} hosts", ports.len()));
    }
    let server = |index: usize| {
        let host = hosts.get(index).filter(|host| !host.is_empty());
        let address = addresses.get(index).copied().flatten();
        let host = match (host, address) {
            (Some(host), _) => host.clone(),
            (None, Some(address)) => address.to_string(),
            (None, None) => "localhost".to_owned(),
        };
        let port = ports.get(index).or_else(|| ports.first());
        let server = Server {
            host,
            address,
            port: port.copied().flatten().unwrap_or(DEFAULT_PORT),
        };
        if server.host.contains('@') {
            return Err(
                "host: it can't contain an '@'; in a user or password, write it as %40".to_owned(),
            );
        }
        if server.is_socket() && !cfg!(unix) {
            return Err("host: there are no Unix sockets on this system".to_owned());
        }
        Ok(server)
    };
    (0..count).map(server).collect()
}
