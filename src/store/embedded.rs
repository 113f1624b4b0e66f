//! The store on disk: [fjall](https://docs.rs/fjall), a log-structured merge tree.
//!
//! A folder belongs to one process at a time. Batches go to a journal and become durable in
//! groups; what follows a torn end of the journal is cut off at opening, so what remains is always
//! a prefix of what was written. After a failed write nothing more is taken until the store is
//! opened again: nobody knows what of it reached the disk.
//!
//! ```
//! use selfsame::store::{Batch, Durability, EmbeddedOptions, EmbeddedStore, Read, Store, Table};
//!
//! let folder = tempfile::tempdir()?;
//! let store = EmbeddedStore::open(folder.path(), EmbeddedOptions::default())?;
//! let mut batch = Batch::default();
//! batch.put(Table::Meta, b"name", b"value");
//! store.commit(batch, Durability::Always)?;
//! store.close()?;
//!
//! let store = EmbeddedStore::open(folder.path(), EmbeddedOptions::default())?;
//! assert_eq!(store.get(Table::Meta, b"name")?.as_deref(), Some(&b"value"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod folder;
mod format;
mod full;
mod pending;
#[cfg(unix)]
mod token;

use std::fs::File;
use std::io::ErrorKind;
use std::num::NonZeroUsize;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable as _};

use self::pending::{Pending, Rows};
use super::batch::RowName;
use super::committer::Committer;
use super::{
    Announced, Batch, Capabilities, CommitNumber, Durability, Read, Row, Span, Store, StoreError,
    Table,
};

/// The journal on disk is kept below this: it is what an opening after a crash reads.
const MAX_JOURNAL_BYTES: u64 = 64 << 20;
const MEMTABLE_BYTES: u64 = 16 << 20;
/// Bytes that wait to be written together; who adds more writes them.
const MAX_PENDING_BYTES: usize = 4 << 20;
/// From here on a group is large.
const LARGE_GROUP_BYTES: usize = 64 << 10;
/// Key lengths are 16 bits, value lengths 32 bits wide.
const MAX_KEY_BYTES: usize = u16::MAX as usize - 1;
const MAX_ROW_BYTES: usize = 1 << 31;

/// How the store is opened.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct EmbeddedOptions {
    /// Memory for blocks read from disk, in bytes.
    pub cache_bytes: u64,
    /// Time between two syncs under [`Durability::Periodic`], in milliseconds.
    pub sync_interval_ms: u64,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self { cache_bytes: 32 << 20, sync_interval_ms: 10 }
    }
}

/// A store on disk. See the [module](self).
#[derive(Clone)]
pub struct EmbeddedStore {
    inner: Arc<Inner>,
}

/// A snapshot of an [`EmbeddedStore`]; the folder stays in use as long as there is one.
#[derive(Clone)]
pub struct EmbeddedSnapshot {
    rows: fjall::Snapshot,
    /// Rows that were applied and are not in the database: none, unless a write failed.
    waiting: Arc<Rows>,
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    timer: Option<JoinHandle<()>>,
    writer: Option<JoinHandle<()>>,
    sync_interval_ms: u64,
    #[cfg(unix)]
    token: Option<token::TokenFile>,
    // held until everything else is gone
    _lock: File,
}

/// What the thread that syncs periodically shares with the store.
struct Shared {
    folder: PathBuf,
    database: Database,
    // one keyspace for all tables: only then is what a loss of power leaves a prefix of what was
    // written, for each keyspace goes to disk in its own time
    rows: Keyspace,
    pending: Pending,
    committer: Committer,
    asked: Mutex<Asked>,
    changed: Condvar,
    /// Where large groups are written; none once the store ends.
    large: Mutex<Option<Sender<Waiting>>>,
}

/// Who waits for a large group to be written.
type Waiting = SyncSender<Result<(), StoreError>>;

#[derive(Default)]
struct Asked {
    sync: bool,
    stop: bool,
}

impl EmbeddedStore {
    /// Opens the store in a folder, or creates one in a folder that is empty or not there.
    ///
    /// # Errors
    /// Another process has it open, it is of a newer or an unknown format (then nothing was
    /// touched), it is no store, it is damaged, or the disk failed. A store of an older format is
    /// migrated in place; an opening that is cut short in that goes on the next time.
    pub fn open(folder: impl AsRef<Path>, options: EmbeddedOptions) -> Result<Self, StoreError> {
        let folder = folder.as_ref();
        let (lock, marker) = folder::claim(folder)?;
        folder::complete(folder, |path| {
            let (database, _) = open_database(path, options.cache_bytes)?;
            database.persist(PersistMode::SyncAll)
        })?;
        let opened = open_database(&folder.join(folder::DATABASE), options.cache_bytes);
        let (database, rows) = opened.map_err(|error| of_opening(folder, &error))?;
        let (large, groups) = channel::<Waiting>();
        let shared = Arc::new(Shared {
            folder: folder.to_path_buf(),
            database,
            rows,
            pending: Pending::default(),
            committer: Committer::default(),
            asked: Mutex::default(),
            changed: Condvar::new(),
            large: Mutex::new(Some(large)),
        });
        let writer = std::thread::Builder::new().name("selfsame-write".into()).spawn({
            let shared = Arc::clone(&shared);
            move || {
                for waiting in groups {
                    let written = shared.write_group();
                    // who asked may be gone
                    let _ = waiting.send(written);
                }
            }
        });
        let writer = Some(writer.map_err(|error| StoreError::Io(error.to_string()))?);
        let interval = Duration::from_millis(options.sync_interval_ms);
        let timer = std::thread::Builder::new().name("selfsame-sync".into()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.sync_periodically(interval)
        });
        let timer = Some(timer.map_err(|error| StoreError::Io(error.to_string()))?);
        let sync_interval_ms = options.sync_interval_ms;
        let inner = Inner {
            shared,
            timer,
            writer,
            sync_interval_ms,
            #[cfg(unix)]
            token: token::TokenFile::of(&folder.join(folder::FORMAT_FILE)),
            _lock: lock,
        };
        let store = Self { inner: Arc::new(inner) };
        if let Some(marker) = marker {
            format::migrate(folder, marker, &store)?;
        }
        Ok(store)
    }

    /// The format of the store in a folder, and the one that this version writes; none where
    /// nobody has written a store yet. Nothing is opened, so it works beside a process that has.
    ///
    /// # Errors
    /// It is of a newer or an unknown format, or the disk failed.
    pub fn format_of(folder: impl AsRef<Path>) -> Result<Option<(u32, u32)>, StoreError> {
        let marker = format::read(folder.as_ref())?;
        Ok(marker.map(|marker| (marker.format(), format::FORMAT)))
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.inner.shared.folder
    }

    /// Bytes on disk.
    ///
    /// # Errors
    /// The disk failed.
    pub fn disk_bytes(&self) -> Result<u64, StoreError> {
        self.inner.shared.database.disk_space().map_err(|error| of_fjall(&error))
    }

    /// Syncs everything and writes what is in memory to tables, so that the next opening takes
    /// nothing from the journal (it reads it all the same). The folder is free when the last handle and the last snapshot are gone.
    ///
    /// # Errors
    /// The disk failed, now or earlier.
    pub fn close(self) -> Result<(), StoreError> {
        let shared = &self.inner.shared;
        shared.committer.refusal()?;
        shared.write_pending()?;
        let synced = shared.database.persist(PersistMode::SyncAll);
        synced.map_err(|error| shared.cause(&error))?;
        shared.rotate();
        Ok(())
    }
}

fn open_database(path: &Path, cache_bytes: u64) -> Result<(Database, Keyspace), fjall::Error> {
    let database = Database::builder(path)
        .cache_size(cache_bytes)
        .max_journaling_size(MAX_JOURNAL_BYTES)
        .worker_threads(workers())
        .open()?;
    let rows = database.keyspace("rows", || {
        KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES).with_kv_separation(None)
    })?;
    Ok((database, rows))
}

impl Shared {
    /// Writes what waits to the database: a large group in a thread of its own. What the database
    /// keeps in memory lies in the heap of the thread that gave it; were that any of the threads
    /// on which sessions run, what it lets go of again would stay scattered over all of theirs.
    fn write_pending(&self) -> Result<(), StoreError> {
        if self.pending.bytes() < LARGE_GROUP_BYTES {
            return self.write_group();
        }
        let (waiting, written) = sync_channel(1);
        let large = self.large.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match large.map(|large| large.send(waiting)) {
            Some(Ok(())) => written.recv().unwrap_or_else(|_| self.write_group()),
            _ => self.write_group(),
        }
    }

    /// Writes what waits. A failure forbids all later writes.
    fn write_group(&self) -> Result<(), StoreError> {
        let written = self.pending.flush(|rows| self.write(rows));
        written.inspect_err(|error| self.committer.fail(error))
    }

    fn write(&self, rows: &Rows) -> Result<(), StoreError> {
        let mut batch = self.database.batch();
        for (name, value) in rows {
            let key = row_key(name.table, &name.key);
            match value {
                Some(value) => batch.insert(&self.rows, key, &**value),
                None => batch.remove(&self.rows, key),
            }
        }
        batch.commit().map_err(|error| self.cause(&error))
    }

    /// Why the database failed; of a failure in the background it does not say.
    fn cause(&self, error: &fjall::Error) -> StoreError {
        if matches!(error, fjall::Error::Poisoned) && full::is_full(&self.folder) {
            return StoreError::Full;
        }
        of_fjall(error)
    }

    /// Waits for the memtable to become a table, but not forever, nor if that fails: the journal
    /// has it all.
    fn rotate(&self) {
        /// Less than this is as quickly read from the journal.
        const WORTHWHILE_BYTES: u64 = 1 << 20;
        const PATIENCE: u32 = 1_000;
        if self.database.write_buffer_size() < WORTHWHILE_BYTES {
            return;
        }
        if self.rows.rotate_memtable().is_ok() {
            for _ in 0..PATIENCE {
                let failed = self.database.persist(PersistMode::Buffer).is_err();
                if failed || self.rows.sealed_memtable_count() == 0 {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.write_pending()?;
        self.database.persist(PersistMode::SyncData).map_err(|error| self.cause(&error))
    }

    fn sync_periodically(&self, interval: Duration) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        while !asked.stop {
            if !asked.sync {
                asked = self.changed.wait(asked).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let stopped = |asked: &mut Asked| !asked.stop;
            asked = match self.changed.wait_timeout_while(asked, interval, stopped) {
                Ok((asked, _)) => asked,
                Err(poisoned) => poisoned.into_inner().0,
            };
            asked.sync = false;
            drop(asked);
            // a failure stays with the committer, which takes no batch any more
            let _ = self.committer.settle(self.committer.applied(), || self.sync());
            asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn ask(&self, ask: impl FnOnce(&mut Asked)) {
        ask(&mut self.asked.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.ask(|asked| asked.stop = true);
        if let Some(timer) = self.timer.take() {
            let _ = timer.join();
        }
        // what was applied and is not settled yet may as well be kept
        let _ = self.shared.write_pending();
        self.shared.large.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Read for EmbeddedStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Arc<[u8]>>, StoreError> {
        let shared = &self.inner.shared;
        if let Some(row) = shared.pending.read().row(&RowName { table, key: key.into() }) {
            return Ok(row.clone());
        }
        let value = shared.rows.get(row_key(table, key));
        Ok(value.map_err(|error| of_fjall(&error))?.map(|value| Arc::from(&*value)))
    }

    fn size_of(&self, table: Table, key: &[u8]) -> Result<Option<u64>, StoreError> {
        let shared = &self.inner.shared;
        if let Some(row) = shared.pending.read().row(&RowName { table, key: key.into() }) {
            return Ok(row.as_ref().map(|value| value.len() as u64));
        }
        let size = shared.rows.size_of(row_key(table, key));
        Ok(size.map_err(|error| of_fjall(&error))?.map(u64::from))
    }

    fn scan(&self, span: Span<'_>, limit: usize) -> Result<Vec<Row>, StoreError> {
        self.layers(span).scan(span, limit)
    }

    fn scan_keys(&self, span: Span<'_>, limit: usize) -> Result<Vec<Box<[u8]>>, StoreError> {
        self.layers(span).scan_keys(span, limit)
    }
}

impl EmbeddedStore {
    /// What waits of the rows of a scan, and what was written, at one moment.
    fn layers(&self, span: Span<'_>) -> EmbeddedSnapshot {
        let layers = self.inner.shared.pending.read();
        // a group that is written meanwhile is in both: what waits counts
        self.above(layers.range(span))
    }

    /// What the database holds by now, under rows that wait.
    fn above(&self, waiting: Rows) -> EmbeddedSnapshot {
        let rows = self.inner.shared.database.snapshot();
        EmbeddedSnapshot { rows, waiting: Arc::new(waiting), inner: Arc::clone(&self.inner) }
    }
}

/// Rows of both, ascending; where both have one, that which waits counts.
fn merge(
    pending: impl Iterator<Item = (RowName, Option<Arc<[u8]>>)>,
    written: impl Iterator<Item = Result<Row, StoreError>>,
    limit: usize,
) -> Result<Vec<Row>, StoreError> {
    let mut pending = pending.peekable();
    let mut written = written.peekable();
    let mut rows = Vec::new();
    while rows.len() < limit {
        let older = match written.peek() {
            Some(Ok(row)) => Some(&row.key),
            Some(Err(_)) => return written.next().transpose().map(|_| rows),
            None => None,
        };
        let newer = pending.peek().map(|(name, _)| &name.key);
        let takes_newer = match (newer, older) {
            (None, None) => break,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(newer), Some(older)) => newer <= older,
        };
        if !takes_newer {
            rows.extend(written.next().transpose()?);
            continue;
        }
        if newer == older {
            written.next().transpose()?;
        }
        if let Some((RowName { key, .. }, Some(value))) = pending.next() {
            rows.push(Row { key, value });
        }
    }
    Ok(rows)
}

impl Store for EmbeddedStore {
    type Snapshot = EmbeddedSnapshot;

    fn snapshot(&self) -> Result<EmbeddedSnapshot, StoreError> {
        let shared = &self.inner.shared;
        if shared.write_pending().is_ok() {
            return Ok(self.above(Rows::new()));
        }
        // what cannot be written, on a full disk for instance, can be read as before
        let layers = shared.pending.read();
        Ok(self.above(layers.all()))
    }

    fn announce(&self) -> Announced {
        self.inner.shared.committer.announce()
    }

    fn apply(&self, batch: Batch) -> Result<CommitNumber, StoreError> {
        let shared = &self.inner.shared;
        for (_, key, value) in batch.iter() {
            let size = value.map_or(0, |value| value.len());
            if key.len() > MAX_KEY_BYTES || size > MAX_ROW_BYTES {
                return Err(StoreError::TooLarge(key.len().max(size)));
            }
        }
        let mut waiting = 0;
        let number = shared.committer.apply(|| {
            waiting = shared.pending.add(batch);
            Ok(())
        })?;
        if waiting > MAX_PENDING_BYTES {
            // the batch is applied and shows: whoever settles it is told that it may be lost
            let _ = shared.write_pending();
        }
        Ok(number)
    }

    fn settle(&self, number: CommitNumber, durability: Durability) -> Result<(), StoreError> {
        let shared = &self.inner.shared;
        if durability == Durability::Always {
            return shared.committer.settle(number, || shared.sync());
        }
        shared.committer.failure()?;
        // the system has it then, and the death of this process takes nothing back
        shared.write_pending()?;
        if durability == Durability::Periodic {
            shared.ask(|asked| asked.sync = true);
        }
        shared.committer.failure()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { persistent: true, sync_interval_ms: self.inner.sync_interval_ms }
    }

    fn failure(&self) -> Option<StoreError> {
        self.inner.shared.committer.refusal().err()
    }

    #[cfg(unix)]
    fn take_token(&self) -> Option<Vec<u8>> {
        self.inner.token.as_ref()?.take()
    }

    #[cfg(unix)]
    fn leave_token(&self, token: &[u8]) {
        if let Some(file) = &self.inner.token {
            // a writer that cannot be left is not resumed: no harm
            let _ = file.leave(token);
        }
    }
}

impl EmbeddedSnapshot {
    fn waiting(&self, table: Table, key: &[u8]) -> Option<&Option<Arc<[u8]>>> {
        if self.waiting.is_empty() {
            return None;
        }
        self.waiting.get(&RowName { table, key: key.into() })
    }

    fn guards(&self, span: Span<'_>) -> impl Iterator<Item = fjall::Guard> + use<> {
        let Span { table, prefix, last, .. } = span;
        let from = match span.first() {
            Bound::Included(key) => Bound::Included(row_key(table, key)),
            Bound::Excluded(key) => Bound::Excluded(row_key(table, key)),
            Bound::Unbounded => Bound::Included(row_key(table, prefix)),
        };
        let mut end = after_prefix(row_key(table, prefix));
        if let Some(last) = last.filter(|last| last.starts_with(prefix)) {
            end = Bound::Included(row_key(table, last));
        }
        // a start behind the end leaves nothing, and must not make an inverted range
        let empty = match (&from, &end) {
            _ if last.is_some_and(|last| last < prefix) => true,
            (Bound::Included(from), Bound::Included(last)) => from > last,
            (
                Bound::Included(from) | Bound::Excluded(from),
                Bound::Included(end) | Bound::Excluded(end),
            ) => from >= end,
            _ => false,
        };
        let range = (!empty).then(|| self.rows.range(&self.inner.shared.rows, (from, end)));
        range.into_iter().flatten()
    }
}

impl Read for EmbeddedSnapshot {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Arc<[u8]>>, StoreError> {
        if let Some(row) = self.waiting(table, key) {
            return Ok(row.clone());
        }
        let value = self.rows.get(&self.inner.shared.rows, row_key(table, key));
        Ok(value.map_err(|error| of_fjall(&error))?.map(|value| Arc::from(&*value)))
    }

    fn size_of(&self, table: Table, key: &[u8]) -> Result<Option<u64>, StoreError> {
        if let Some(row) = self.waiting(table, key) {
            return Ok(row.as_ref().map(|value| value.len() as u64));
        }
        let size = self.rows.size_of(&self.inner.shared.rows, row_key(table, key));
        Ok(size.map_err(|error| of_fjall(&error))?.map(u64::from))
    }

    fn scan(&self, span: Span<'_>, limit: usize) -> Result<Vec<Row>, StoreError> {
        let written = self.guards(span).map(|guard| {
            let (key, value) = guard.into_inner().map_err(|error| of_fjall(&error))?;
            let key = key.get(1..).unwrap_or_default().into();
            Ok(Row { key, value: Arc::from(&*value) })
        });
        if self.waiting.is_empty() {
            return written.take(limit).collect();
        }
        merge(pending::range(&self.waiting, span), written, limit)
    }

    fn scan_keys(&self, span: Span<'_>, limit: usize) -> Result<Vec<Box<[u8]>>, StoreError> {
        let written = self.guards(span).map(|guard| {
            let key = guard.key().map_err(|error| of_fjall(&error))?;
            Ok(key.get(1..).unwrap_or_default().into())
        });
        if self.waiting.is_empty() {
            return written.take(limit).collect();
        }
        let written = written.map(|key| Ok(Row { key: key?, value: Arc::default() }));
        let rows = merge(pending::range(&self.waiting, span), written, limit)?;
        Ok(rows.into_iter().map(|row| row.key).collect())
    }
}

/// Threads that flush and compact. One of them only flushes, if there are two: with a single one
/// memtables pile up behind a compaction, which more than doubled the memory of an import.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, NonZeroUsize::get).clamp(2, 4)
}

/// Key of a row in the one keyspace: its table's number first.
fn row_key(table: Table, key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(1 + key.len());
    row.push(table.id());
    row.extend_from_slice(key);
    row
}

/// The least key that does not begin with this prefix any more.
fn after_prefix(mut prefix: Vec<u8>) -> Bound<Vec<u8>> {
    while let Some(last) = prefix.pop() {
        if last < u8::MAX {
            prefix.push(last + 1);
            return Bound::Excluded(prefix);
        }
    }
    Bound::Unbounded
}

fn of_io(error: &std::io::Error) -> StoreError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::Full,
        _ => StoreError::Io(error.to_string()),
    }
}

/// The same, when the folder is taken and opened: before anything was asked of the store.
fn of_folder(folder: &Path, error: &std::io::Error) -> StoreError {
    let folder = folder.to_path_buf();
    match error.kind() {
        ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnly { folder },
        ErrorKind::PermissionDenied => StoreError::Forbidden { folder },
        _ => of_io(error),
    }
}

fn of_fjall(error: &fjall::Error) -> StoreError {
    match io_error(error) {
        Some(error) => of_io(error),
        None => StoreError::Io(match error {
            fjall::Error::Poisoned => "an earlier write in the background failed".into(),
            other => other.to_string(),
        }),
    }
}

/// The error of the operating system behind an error.
fn io_error(error: &fjall::Error) -> Option<&std::io::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref() {
            return Some(io);
        }
        cause = error.source();
    }
    None
}

fn of_opening(folder: &Path, error: &fjall::Error) -> StoreError {
    let folder = folder.to_path_buf();
    match error {
        fjall::Error::Locked => StoreError::Held { folder },
        fjall::Error::InvalidVersion(Some(found)) => {
            StoreError::Format { folder, found: format!("{found:?}"), expected: "fjall 3" }
        }
        fjall::Error::InvalidVersion(None) => {
            StoreError::Damaged { folder, what: "its version marker cannot be read".into() }
        }
        error => match io_error(error) {
            Some(source) if is_of_the_system(source.kind()) => of_folder(&folder, source),
            // a file that is missing, ends too early or points nowhere
            _ => StoreError::Damaged { folder, what: error.to_string() },
        },
    }
}

/// Whether it says nothing of what lies in the store.
const fn is_of_the_system(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::OutOfMemory
    )
}
