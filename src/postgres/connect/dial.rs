//! Tries the servers in turn until one lets the user in.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::net::lookup_host;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_postgres::config::SslMode as Encryption;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Connection, Socket};

use super::cancel::Address;
use super::failure::{Failure, FailureKind, is_handshake};
use super::parameters::SslMode;
use super::target::{ConnectionTarget, Server};
use super::tls::Connector;

pub(super) type Encrypted = <Connector as MakeTlsConnect<Socket>>::Stream;

/// A new connection, and what it goes to.
pub(super) struct Dialled {
    pub(super) client: Client,
    pub(super) connection: Connection<Socket, Encrypted>,
    pub(super) address: Address,
    /// `host:port/database as user`
    pub(super) place: String,
}

/// Connects within the target's time. Needs tokio's context.
///
/// As in libpq, a server that refuses the user ends the search; one that can't be reached, or
/// refuses writes, does not.
pub(super) async fn dial(target: &ConnectionTarget) -> Result<Dialled, Failure> {
    let settings = target.tls.clone();
    let connector = spawn_blocking(move || settings.connector());
    let Ok(connector) = connector.await else {
        let message = "the certificates can't be read: the runtime is shutting down";
        return Err(Failure::new(FailureKind::Unavailable, message.to_owned()));
    };
    let connector = connector?;
    let mut servers = target.servers.clone();
    if target.random_order {
        shuffle(&mut servers);
    }
    let deadline = Instant::now() + target.in_all;
    let mut failures = Vec::new();
    for (index, server) in servers.iter().enumerate() {
        let share = share(deadline, servers.len() - index);
        let limit = target.per_server.map_or(share, |each| each.min(share));
        let attempt = Attempt {
            target,
            server,
            connector: &connector,
            deadline: Instant::now() + limit,
        };
        match attempt.run().await {
            Ok(dialled) => return Ok(dialled),
            Err(failure) => {
                let ends = failure.kind() == FailureKind::Rejected;
                failures.push(failure);
                if ends {
                    break;
                }
            }
        }
    }
    Err(together(failures))
}

/// What is left until a deadline, divided.
fn share(deadline: Instant, among: usize) -> Duration {
    deadline.saturating_duration_since(Instant::now()) / among.max(1) as u32
}

fn shuffle<T>(items: &mut [T]) {
    for last in (1..items.len()).rev() {
        let random = RandomState::new().hash_one(last) as usize;
        items.swap(last, random % (last + 1));
    }
}

/// One server's answers, at each of its addresses.
struct Attempt<'a> {
    target: &'a ConnectionTarget,
    server: &'a Server,
    connector: &'a Connector,
    deadline: Instant,
}

impl Attempt<'_> {
    async fn run(&self) -> Result<Dialled, Failure> {
        if self.server.is_socket() {
            // As in libpq, `sslmode` says nothing about them.
            return self
                .connect(None, &[Encryption::Disable], self.deadline)
                .await;
        }
        let mut addresses = self.addresses().await?;
        if self.target.random_order {
            shuffle(&mut addresses);
        }
        let mut failures: Vec<Failure> = Vec::new();
        for (index, address) in addresses.iter().enumerate() {
            let deadline = Instant::now() + share(self.deadline, addresses.len() - index);
            match self.connect(Some(*address), self.ways(), deadline).await {
                Ok(dialled) => return Ok(dialled),
                Err(failure) => {
                    let ends = failure.kind() == FailureKind::Rejected;
                    failures.push(failure);
                    if ends {
                        break;
                    }
                }
            }
        }
        Err(together(failures))
    }

    async fn addresses(&self) -> Result<Vec<IpAddr>, Failure> {
        let server = self.server;
        if let Some(address) = server.address.or_else(|| server.host.parse().ok()) {
            return Ok(vec![address]);
        }
        let lookup = lookup_host((server.host.as_str(), server.port));
        let why = match self.in_time(self.deadline, lookup).await? {
            Ok(found) => {
                let mut addresses: Vec<_> = found.map(|address| address.ip()).collect();
                addresses.dedup();
                if !addresses.is_empty() {
                    return Ok(addresses);
                }
                "it has no address".to_owned()
            }
            Err(error) => error.to_string(),
        };
        Err(self.failure(&format!("the host is unknown: {why}")))
    }

    /// How to encrypt, and how else if that fails.
    fn ways(&self) -> &'static [Encryption] {
        match self.target.ssl_mode {
            SslMode::Disable => &[Encryption::Disable],
            SslMode::Allow => &[Encryption::Disable, Encryption::Require],
            SslMode::Prefer => &[Encryption::Prefer, Encryption::Disable],
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[Encryption::Require],
        }
    }

    async fn connect(
        &self,
        address: Option<IpAddr>,
        ways: &[Encryption],
        deadline: Instant,
    ) -> Result<Dialled, Failure> {
        let mut first = None;
        for way in ways {
            let config = self.config(address, *way, deadline);
            let connecting = config.connect(self.connector.clone());
            let error = match self.in_time(deadline, connecting).await? {
                Ok((client, connection)) => {
                    return Ok(Dialled {
                        client,
                        connection,
                        address: self.address(address),
                        place: self.place(),
                    });
                }
                Err(error) => error,
            };
            let has_password = config.get_password().is_some();
            let failure = Failure::of_connecting(&error, &self.place(), has_password);
            // The server's rules may let the user in the other way. A wrong password is not sent
            // again, and least of all unencrypted.
            let other_way = is_handshake(&error)
                || failure.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
            // The way that was asked for tells more.
            let failure = first.take().unwrap_or(failure);
            if !other_way {
                return Err(failure);
            }
            first = Some(failure);
        }
        Err(first.unwrap_or_else(|| self.failure("there is no way to encrypt")))
    }

    fn config(&self, address: Option<IpAddr>, way: Encryption, deadline: Instant) -> Config {
        let mut config = self.target.config.clone();
        config.host(&self.server.host);
        if let Some(address) = address {
            config.hostaddr(address);
        }
        config.port(self.server.port);
        config.ssl_mode(way);
        config.connect_timeout(share(deadline, 1).max(Duration::from_millis(1)));
        config
    }

    /// Runs until a deadline. Connecting is more than a socket: a server that accepts it may still
    /// say nothing.
    async fn in_time<T>(
        &self,
        deadline: Instant,
        future: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        timeout(share(deadline, 1), future)
            .await
            .map_err(|_| self.failure("it does not answer in time"))
    }

    fn address(&self, address: Option<IpAddr>) -> Address {
        let Server { host, port, .. } = self.server;
        match address {
            Some(address) => Address::Tcp((address, *port).into(), host.clone()),
            None => Address::Socket(Path::new(host).join(format!(".s.PGSQL.{port}"))),
        }
    }

    fn failure(&self, why: &str) -> Failure {
        let message = format!("can't connect to {}: {why}", self.place());
        Failure::new(FailureKind::Unavailable, message)
    }

    fn place(&self) -> String {
        self.target.describe_at(&self.server.to_string())
    }
}

/// The failures of all servers as one. It may pass if one of them may.
fn together(mut failures: Vec<Failure>) -> Failure {
    let Some(last) = failures.pop() else {
        let message = "there is no server to connect to".to_owned();
        return Failure::new(FailureKind::Rejected, message);
    };
    let mut messages: Vec<_> = failures.iter().map(Failure::to_string).collect();
    messages.dedup();
    if messages.is_empty() || messages == [last.to_string()] {
        return last;
    }
    messages.push(last.to_string());
    last.with_message(messages.join("; "))
}
