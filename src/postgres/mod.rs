//! A store in a PostgreSQL database.

mod connect;
mod options;

pub use options::{PostgresStoreOptions, TlsOptions};
