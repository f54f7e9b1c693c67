use std::time::Duration;

/// How a [`SqliteStore`](crate::SqliteStore) opens its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqliteStoreOptions {
    /// What a committed append survives. Default [`Durability::Full`].
    pub durability: Durability,
    /// How long to wait for another process's lock. Default 5 seconds.
    pub busy_timeout: Duration,
    /// Opens an existing store for reading only. Default `false`.
    pub read_only: bool,
}

/// What a committed append survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The crash of the process and of the machine (`synchronous=FULL`).
    #[default]
    Full,
    /// The crash of the process. A power loss may take the newest commits, but never corrupts the
    /// file (`synchronous=NORMAL`).
    Normal,
}

impl Default for SqliteStoreOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Full,
            busy_timeout: Duration::from_secs(5),
            read_only: false,
        }
    }
}
