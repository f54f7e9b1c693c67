//! A store in a PostgreSQL database.

// The store that uses it is on its way.
#[allow(dead_code, unused_imports)]
mod connect;
#[allow(dead_code)]
mod options;

pub use options::{PostgresStoreOptions, TlsOptions};
