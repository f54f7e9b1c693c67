//! From a URL to connections: what it means, how servers are tried, TLS, the pool, what can fail.

mod cancel;
mod certificate;
mod conninfo;
mod dial;
mod failure;
mod parameters;
mod pool;
mod session;
mod target;
mod tls;
mod uri;
mod verifier;

#[cfg(test)]
mod tests;

pub(crate) use failure::{Failure, FailureKind};
pub(crate) use pool::{Connections, PooledClient};
pub(crate) use session::{ConnectionEvent, Session};
pub(crate) use target::ConnectionTarget;
