//! Opening a file: paths, connections, and what has to be true before anything is written to it.

use std::cell::Cell;
use std::ffi::c_int;
use std::fmt::Write;
use std::fs;
use std::io::ErrorKind;
#[cfg(unix)]
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf, absolute, is_separator};
use std::sync::{Arc, OnceLock};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use rusqlite::{Connection, MAIN_DB, OpenFlags, ffi};

use super::failure::Result;
use super::format::{self, Format};
use super::options::{Durability, SqliteStoreOptions};
use crate::contract::EventStoreError;

/// Where a store's file is and how its connections are made.
#[derive(Debug, Clone)]
pub(super) struct Database {
    pub(super) path: Arc<Path>,
    /// Which file the path led to when the store was opened.
    identity: OnceLock<Identity>,
    /// Set if it can only be read as long as nobody writes to it.
    immutable: OnceLock<Resting>,
    pub(super) options: SqliteStoreOptions,
}

// Page cache per connection, in KiB.
const WRITER_CACHE: i64 = 65_536;
const READER_CACHE: i64 = 32_768;
/// One page of the smallest size. SQLite takes some shorter files for empty ones, and writes over them.
const SMALLEST_DATABASE: u64 = 512;
/// Prepared statements kept per connection.
const STATEMENTS: usize = 64;

impl Database {
    /// Checks the path. Touches nothing.
    pub(super) fn new(path: &Path, options: SqliteStoreOptions) -> Result<Self> {
        let path = checked_path(path)?.into();
        Ok(Self {
            path,
            identity: OnceLock::new(),
            immutable: OnceLock::new(),
            options,
        })
    }

    /// Creates what is missing, brings the format up to date, and returns the writer's connection
    /// (`None` when read-only).
    pub(super) fn open(&self) -> Result<Option<Connection>> {
        let options = &self.options;
        let size = fs::metadata(&self.path).map_or(0, |file| file.len());
        if (1..SMALLEST_DATABASE).contains(&size) {
            return Err(EventStoreError::StoreFormatUnsupported(
                "the file is no SQLite database".to_owned(),
            ));
        }
        let exists = size > 0;
        if options.read_only {
            if !exists {
                return Err(invalid(format!(
                    "path: {} does not exist, and a read-only store is not created",
                    self.path.display()
                )));
            }
            self.look()?.refuse_migration()?;
            self.try_to_read()?;
            return Ok(None);
        }
        if exists {
            self.look()?;
        } else if let Some(parent) = self.path.parent() {
            fs::create_dir_all(parent).map_err(|error| {
                EventStoreError::BackendFailure(format!(
                    "the folder {} can't be created: {error}",
                    parent.display()
                ))
            })?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let mut connection = self.connect(flags, WRITER_CACHE)?;
        self.refuse_other_file()?;
        retry_while_busy(options.busy_timeout, || {
            let mode: String =
                connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
            if mode.eq_ignore_ascii_case("wal") {
                return Ok(());
            }
            let path = self.path.display();
            Err(EventStoreError::BackendFailure(format!(
                "{path} can't be put into WAL mode"
            )))
        })?;
        connection.pragma_update(None, "synchronous", self.synchronous())?;
        format::bring_up_to_date(&mut connection)?;
        Ok(Some(connection))
    }

    /// The name of the durability in SQLite's words.
    pub(super) fn synchronous(&self) -> &'static str {
        match self.options.durability {
            Durability::Full => "FULL",
            Durability::Normal => "NORMAL",
        }
    }

    pub(super) fn connect_for_reading(&self) -> Result<Connection> {
        let access = if self.options.read_only {
            OpenFlags::SQLITE_OPEN_READ_ONLY
        } else {
            OpenFlags::SQLITE_OPEN_READ_WRITE
        };
        self.refuse_other_file()?;
        let connection = match self.immutable.get() {
            Some(_) => self.connect_immutable()?,
            None => self.connect(access, READER_CACHE)?,
        };
        connection.pragma_update(None, "query_only", true)?;
        // The first look opens the log file too, which is found by its path.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        // Now the connection has the file of the path, and the path leads to the store's file.
        refuse_moved(&connection)?;
        self.refuse_other_file()?;
        Ok(connection)
    }

    /// Refuses to go on if the path leads to another file than the one that the store was opened with.
    fn refuse_other_file(&self) -> Result<()> {
        let found = identity_of(&self.path).map_err(|_| replaced())?;
        if *self.identity.get_or_init(|| found) != found {
            return Err(replaced());
        }
        Ok(())
    }

    /// Takes the file as if nobody could write to it: without locks and without files beside it.
    fn connect_immutable(&self) -> Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        self.connect_to(Path::new(&immutable_uri(&self.path)), flags, READER_CACHE)
    }

    fn connect(&self, flags: OpenFlags, cache: i64) -> Result<Connection> {
        self.connect_to(&self.path, flags, cache)
    }

    fn connect_to(&self, path: &Path, flags: OpenFlags, cache: i64) -> Result<Connection> {
        // One connection is used by one thread at a time, so SQLite needs no lock of its own.
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        // What follows reads, and SQLite puts files beside a store that it reads.
        if flags.contains(OpenFlags::SQLITE_OPEN_READ_WRITE) && connection.is_readonly(MAIN_DB)? {
            return Err(EventStoreError::BackendFailure(
                "the file is write-protected (with readOnly it can be read)".to_owned(),
            ));
        }
        BUSY_TIMEOUT.set(self.options.busy_timeout);
        connection.busy_handler(Some(wait_for_lock))?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        connection.pragma_update(None, "cache_size", -cache)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.pragma_update(None, "trusted_schema", false)?;
        Ok(connection)
    }

    /// Prepares the current thread for the use of this database's connections.
    pub(super) fn enter_thread(&self) {
        BUSY_TIMEOUT.set(self.options.busy_timeout);
    }

    /// Tells the format of a file that exists, without leaving anything behind.
    ///
    /// Nothing but SQLite may open it: closing any descriptor of it would take away the locks that
    /// other stores in this process hold on it.
    fn look(&self) -> Result<Format> {
        let before = self.resting();
        if before.is_some() {
            let looked = self
                .connect_immutable()
                .and_then(|looking| format::check(&looking));
            // Otherwise someone has begun to write, and what was seen may be half of it.
            if self.resting() == before {
                return looked;
            }
        }
        // What a process that died has left half done must be undone before anyone can read. SQLite
        // does so, as the next user of the file would, if it may write.
        let access = if self.options.read_only || !self.beside_is_used("-journal") {
            OpenFlags::SQLITE_OPEN_READ_ONLY
        } else {
            OpenFlags::SQLITE_OPEN_READ_WRITE
        };
        let looking = self.connect(access, READER_CACHE)?;
        retry_while_busy(self.options.busy_timeout, || format::check(&looking))
    }

    /// Makes sure that a read-only store can be read.
    ///
    /// SQLite wants files beside a store, even to read it. Where it can't create them, a store that
    /// nobody writes to can be read all the same.
    fn try_to_read(&self) -> Result<()> {
        let Err(error) = self.connect_for_reading() else {
            return Ok(());
        };
        match self.resting() {
            Some(resting) if !super::failure::is_busy(&error) => {
                self.immutable.get_or_init(|| resting);
                self.connect_for_reading().map(drop).map_err(|_| error)
            }
            _ => Err(error),
        }
    }

    /// What was read is worthless if somebody wrote to a store that is read as if nobody could.
    pub(super) fn refuse_changes(&self) -> Result<()> {
        match self.immutable.get() {
            Some(resting) if self.resting() != Some(*resting) => {
                Err(EventStoreError::BackendFailure(
                    "another process writes to the store, which could be read only while nobody \
                     did, because its folder is write-protected: open it again"
                        .to_owned(),
                ))
            }
            _ => Ok(()),
        }
    }

    /// `None` if somebody may be writing, or was when it died.
    fn resting(&self) -> Option<Resting> {
        if self.beside_is_used("-wal") || self.beside_is_used("-journal") {
            return None;
        }
        let file = fs::metadata(&self.path).ok()?;
        Some((file.len(), file.modified().ok()?))
    }

    /// Whether one of the files that SQLite keeps beside the store has any content.
    fn beside_is_used(&self, suffix: &str) -> bool {
        fs::metadata(beside(&self.path, suffix)).is_ok_and(|file| file.len() > 0)
    }
}

/// A file's size and time while nobody writes to it.
type Resting = (u64, SystemTime);

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The path as SQLite takes it with options.
fn immutable_uri(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    if cfg!(windows) {
        uri.push('/');
    }
    for &byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'\\' if cfg!(windows) => uri.push('/'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b':' | b'.' | b'_' | b'-' => {
                uri.push(byte.into());
            }
            _ => drop(write!(uri, "%{byte:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    uri
}

fn invalid(message: String) -> EventStoreError {
    EventStoreError::InvalidOptions(message)
}

/// Tells a file from another one of the same name.
type Identity = (u64, u64);

#[cfg(unix)]
fn identity_of(path: &Path) -> std::io::Result<Identity> {
    fs::metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Elsewhere a file that is open can be neither deleted nor replaced.
#[cfg(not(unix))]
fn identity_of(path: &Path) -> std::io::Result<Identity> {
    fs::metadata(path).map(|_| (0, 0))
}

const REPLACED: &str = "the file was deleted or replaced while the store was open";

fn replaced() -> EventStoreError {
    EventStoreError::BackendFailure(REPLACED.to_owned())
}

/// Whether it is the error of [`refuse_moved`], which stays.
pub(super) fn is_replaced(error: &EventStoreError) -> bool {
    matches!(error, EventStoreError::BackendFailure(message) if message.ends_with(REPLACED))
}

/// Refuses a connection whose file is no longer where it was: nobody would find what is written to
/// it. Costs a `stat`: half a microsecond.
pub(super) fn refuse_moved(connection: &Connection) -> Result<()> {
    let mut has_moved: c_int = 0;
    // SAFETY: the handle belongs to an open connection of this thread, and the operation writes one
    // integer. Where it is not known it writes nothing.
    unsafe {
        ffi::sqlite3_file_control(
            connection.handle(),
            c"main".as_ptr(),
            ffi::SQLITE_FCNTL_HAS_MOVED,
            (&raw mut has_moved).cast(),
        );
    }
    if has_moved == 0 {
        Ok(())
    } else {
        Err(replaced())
    }
}

/// Refuses what SQLite would take for something else than a file.
fn checked_path(path: &Path) -> Result<PathBuf> {
    let text = path.as_os_str();
    if text.is_empty() {
        return Err(invalid("path: is empty".to_owned()));
    }
    if text.as_encoded_bytes().contains(&0) {
        return Err(invalid("path: contains a NUL character".to_owned()));
    }
    if text == ":memory:" {
        let hint = "path: a SQLite store is a file; use the memory store instead of :memory:";
        return Err(invalid(hint.to_owned()));
    }
    if text
        .as_encoded_bytes()
        .last()
        .is_some_and(|&end| is_separator(end.into()))
    {
        return Err(invalid("path: ends as a folder's does".to_owned()));
    }
    // An absolute path is never taken for a URI.
    let path = absolute(path).map_err(|error| invalid(format!("path: {error}")))?;
    let refused = |what: &str| Err(invalid(format!("path: {} {what}", path.display())));
    if path.file_name().is_none() {
        return refused("names no file");
    }
    if cfg!(unix) && path.as_os_str().len() > LONGEST_PATH {
        return refused("is too long");
    }
    // SQLite's longest name for a file beside it.
    match fs::symlink_metadata(beside(&path, "-journal")) {
        Err(error) if error.kind() == ErrorKind::InvalidFilename => return refused("is too long"),
        _ => {}
    }
    match fs::metadata(&path) {
        Ok(file) if file.is_dir() => return refused("is a folder"),
        Ok(file) if !file.is_file() => return refused("is no regular file"),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let path = path.display();
            let message = format!("{path} can't be opened: {error}");
            return Err(EventStoreError::BackendFailure(message));
        }
        // A link that leads to itself; one to what does not exist is as good as the file's own name.
        Err(error) if error.kind() != ErrorKind::NotFound && path.is_symlink() => {
            return refused(&format!("can't be followed: {error}"));
        }
        Ok(_) | Err(_) => {}
    }
    // The nearest folder that is there, or what stands in its place: a file, or a broken link.
    let above = path.ancestors().skip(1);
    let mut above = above.filter(|above| fs::symlink_metadata(above).is_ok());
    if let Some(blocked) = above.next().filter(|above| !above.is_dir()) {
        return Err(invalid(format!("path: {} is no folder", blocked.display())));
    }
    Ok(path)
}

/// The longest name that SQLite takes, less what it appends to it.
const LONGEST_PATH: usize = 512 - 8;

thread_local! {
    static BUSY_TIMEOUT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static BUSY_SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Has SQLite wait for no lock on this thread for as long as `work` takes.
pub(super) fn without_waiting<T>(work: impl FnOnce() -> T) -> T {
    struct Usual(Duration);
    impl Drop for Usual {
        fn drop(&mut self) {
            BUSY_TIMEOUT.set(self.0);
        }
    }
    let _usual = Usual(BUSY_TIMEOUT.replace(Duration::ZERO));
    work()
}

/// SQLite's own handler sleeps up to 100 ms; a commit takes less than one.
fn wait_for_lock(calls: i32) -> bool {
    let now = Instant::now();
    if calls == 0 {
        BUSY_SINCE.set(Some(now));
    }
    let since = BUSY_SINCE.get().unwrap_or(now);
    if now - since >= BUSY_TIMEOUT.get() {
        return false;
    }
    sleep(Duration::from_micros(
        200 * (u64::from(calls.unsigned_abs()) + 1).min(25),
    ));
    true
}

/// For the few statements to which SQLite answers "busy" without asking the handler.
fn retry_while_busy<T>(timeout: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let since = Instant::now();
    loop {
        match attempt() {
            Err(error) if super::failure::is_busy(&error) && since.elapsed() < timeout => {
                sleep(Duration::from_millis(2));
            }
            result => return result,
        }
    }
}
