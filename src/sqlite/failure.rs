//! SQLite's errors in the contract's words.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Instant;

use rusqlite::ErrorCode;

use crate::contract::EventStoreError;

pub(super) type Result<T> = std::result::Result<T, EventStoreError>;

/// Lets `?` turn SQLite's errors into ours.
impl From<rusqlite::Error> for EventStoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Self::BackendFailure(BUSY.to_owned())
            }
            Some(ErrorCode::NotADatabase) => {
                Self::StoreFormatUnsupported("the file is no SQLite database".to_owned())
            }
            Some(ErrorCode::DatabaseCorrupt) => {
                Self::BackendFailure(format!("the database file is corrupt: {error}"))
            }
            Some(ErrorCode::CannotOpen) => Self::BackendFailure(format!(
                "the file, or one that SQLite keeps beside it, can't be opened or created: {error}"
            )),
            Some(ErrorCode::ReadOnly) => Self::BackendFailure(format!(
                "the file is write-protected, or the folder, in which SQLite needs files: {error}"
            )),
            Some(ErrorCode::DiskFull) => Self::BackendFailure("the disk is full".to_owned()),
            _ => Self::BackendFailure(format!("SQLite failed: {error}")),
        }
    }
}

impl EventStoreError {
    /// Says which file it was about, unless it does already.
    pub(super) fn at(self, path: &Path) -> Self {
        let path = path.display().to_string();
        let located = |message: String| {
            if message.contains(&path) {
                message
            } else {
                format!("{path}: {message}")
            }
        };
        match self {
            Self::BackendFailure(message) => Self::BackendFailure(located(message)),
            Self::OutcomeUnknown(message) => Self::OutcomeUnknown(located(message)),
            Self::StoreFormatUnsupported(message) => Self::StoreFormatUnsupported(located(message)),
            other => other,
        }
    }
}

const BUSY: &str = "the database was locked by another connection for longer than the busy timeout";

pub(super) fn is_busy(error: &EventStoreError) -> bool {
    matches!(error, EventStoreError::BackendFailure(message) if message == BUSY)
}

/// Turns a panic, which would be a bug, into a failure of the one operation that met it.
///
/// What it leaves behind is whole: the log is changed by transactions only, and what threads share
/// only grows.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        let text = text.unwrap_or("it panicked");
        Err(EventStoreError::BackendFailure(format!(
            "a bug in factstr, please report it: {text}"
        )))
    })
}

/// Ends a read that has a deadline and is past it; nobody but the one who set it sees this error.
pub(super) fn refuse_late(deadline: Option<Instant>) -> Result<()> {
    match deadline {
        Some(deadline) if Instant::now() > deadline => Err(too_late()),
        _ => Ok(()),
    }
}

pub(super) fn too_late() -> EventStoreError {
    EventStoreError::BackendFailure("the read took longer than it may".to_owned())
}

/// Events that were committed are gone.
pub(super) fn shortened_log(head: u64, known: u64) -> EventStoreError {
    EventStoreError::BackendFailure(format!(
        "the log ends with event {head}, but there have been {known}: the file is damaged"
    ))
}

/// The index is no part of the log; damage in it is reported, never guessed around.
pub(super) fn damaged_index(what: &str) -> EventStoreError {
    EventStoreError::BackendFailure(format!("the facet index is damaged: {what}"))
}
