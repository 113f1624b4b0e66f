//! Stores: ordered tables with atomic batches, consistent snapshots and a choice of durability.
//!
//! A store knows nothing of entries, trees or contexts: it keeps rows in [`Table`]s. What a
//! change of a collection writes goes into one [`Batch`], of which a reader and a crash see all
//! or nothing (rule D10: entries, tree and context are committed together).
//!
//! Writing has two steps, so that many writers can share one sync: [`Store::apply`] makes a batch
//! visible and orders it, [`Store::settle`] waits until it is as durable as asked.
//! [`Store::commit`] is both.
//!
//! ```
//! use selfsame::store::{Batch, Durability, MemoryStore, Read, Store, Table};
//!
//! let store = MemoryStore::default();
//! let before = store.snapshot()?;
//! let mut batch = Batch::default();
//! batch.put(Table::Meta, b"name", b"value");
//! store.commit(batch, Durability::Never)?;
//! assert_eq!(store.get(Table::Meta, b"name")?.as_deref(), Some(&b"value"[..]));
//! assert_eq!(before.get(Table::Meta, b"name")?, None); // a snapshot stays as it was
//! # Ok::<(), selfsame::store::StoreError>(())
//! ```

mod batch;
#[cfg(feature = "node")]
mod committer;
#[cfg(feature = "node")]
pub mod embedded;
mod memory;
mod table;

use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use batch::{Batch, RowName};
#[cfg(feature = "node")]
pub use embedded::{EmbeddedOptions, EmbeddedSnapshot, EmbeddedStore};
pub use memory::{MemorySnapshot, MemoryStore};
pub use table::Table;

/// A store could not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the store open.
    #[error(
        "the store in {} is in use by another process: stop that one, or choose another folder",
        folder.display()
    )]
    Held {
        /// Folder of the store.
        folder: PathBuf,
    },
    /// A later version wrote the store.
    #[error(
        "the store in {} is of format {found}, written by selfsame {written_by}; this is selfsame \
         {version}, which knows formats up to {known}: update selfsame; nothing was changed",
        folder.display(),
        version = env!("CARGO_PKG_VERSION")
    )]
    Newer {
        /// Folder of the store.
        folder: PathBuf,
        /// Its format.
        found: u32,
        /// The version that wrote it, as it says itself.
        written_by: String,
        /// The latest format that this version knows.
        known: u32,
    },
    /// The folder holds a store of another format.
    #[error(
        "{} holds a store of format {found:?}, and this version reads {expected:?}: open it with \
         the version that wrote it, or point this one at an empty folder and let it sync; nothing \
         was changed",
        folder.display()
    )]
    Format {
        /// Folder of the store.
        folder: PathBuf,
        /// What its marker says.
        found: String,
        /// What this version writes.
        expected: &'static str,
    },
    /// The folder holds other things than a store.
    #[error(
        "{} is not empty and holds no store: choose an empty folder",
        folder.display()
    )]
    NotAStore {
        /// The folder.
        folder: PathBuf,
    },
    /// What is on disk cannot be read as a store.
    #[error(
        "the store in {} is damaged ({what}): restore a backup, or move the folder away and start \
         with an empty one, which peers will fill",
        folder.display()
    )]
    Damaged {
        /// Folder of the store.
        folder: PathBuf,
        /// What could not be read.
        what: String,
    },
    /// The file system of the store takes no writes.
    #[error(
        "the store in {} is on a read-only file system, and opening a store writes, even if only \
         to read from it: mount the file system for writing, or open a copy of the folder \
         elsewhere; nothing was changed",
        folder.display()
    )]
    ReadOnly {
        /// Folder of the store.
        folder: PathBuf,
    },
    /// This user may not use the store.
    #[error(
        "this user may not read and write the store in {}, and opening a store writes, even if \
         only to read from it: run as the user that it belongs to, or give that user and nobody \
         else the right to write it and all that is in it; nothing was changed",
        folder.display()
    )]
    Forbidden {
        /// Folder of the store.
        folder: PathBuf,
    },
    /// The disk is full.
    #[error(
        "the disk is full: this write may be lost, what was acknowledged is kept; make room, some \
         tens of MiB at least, and open the store again"
    )]
    Full,
    /// The disk failed.
    #[error("the disk failed ({0}): what was acknowledged is kept; check the disk")]
    Io(String),
    /// An earlier write failed, so that nothing more is taken.
    #[error("the store takes no writes since an earlier one failed ({0}): open it again")]
    Refusing(String),
    /// More than a store can hold in one row.
    #[error("a row of {0} bytes is more than a store can hold")]
    TooLarge(usize),
}

/// How much of what was acknowledged a crash may take back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Durability {
    /// Synced to disk before the answer: neither the death of the process nor a loss of power
    /// takes back what was acknowledged. All writers that wait share one sync.
    #[default]
    Always,
    /// Synced every few milliseconds ([`Capabilities::sync_interval_ms`]): the death of the
    /// process takes back nothing, a loss of power or a crash of the system at most what was
    /// acknowledged within that time. What remains is always a prefix of what was written.
    Periodic,
    /// Synced when the system likes: the death of the process takes back nothing, a loss of power
    /// or a crash of the system perhaps everything since the last sync, which may be minutes.
    /// What remains is always a prefix of what was written.
    Never,
}

/// What an implementation can do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Capabilities {
    /// Whether anything outlives the process.
    pub persistent: bool,
    /// Time between two syncs under [`Durability::Periodic`], in milliseconds.
    pub sync_interval_ms: u64,
}

/// Position of a batch in the order in which batches became visible.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct CommitNumber(pub u64);

/// A row as a scan returns it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Row {
    /// The whole key.
    pub key: Box<[u8]>,
    /// The value.
    pub value: Arc<[u8]>,
}

/// Reading of rows: of a store as it is, or of a snapshot.
pub trait Read: Send + Sync {
    /// The row's value.
    ///
    /// # Errors
    /// The store failed.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Arc<[u8]>>, StoreError>;

    /// Size of the row's value in bytes, without reading it where the store can.
    ///
    /// # Errors
    /// The store failed.
    fn size_of(&self, table: Table, key: &[u8]) -> Result<Option<u64>, StoreError> {
        Ok(self.get(table, key)?.map(|value| value.len() as u64))
    }

    /// The rows of a span, ascending by key as unsigned bytes, at most `limit`. Nothing behind the
    /// span is looked at: rows that are gone may still cost time.
    ///
    /// # Errors
    /// The store failed.
    fn scan(&self, span: Span<'_>, limit: usize) -> Result<Vec<Row>, StoreError>;

    /// The keys that [`scan`](Self::scan) would find, without the values where the store can.
    ///
    /// # Errors
    /// The store failed.
    fn scan_keys(&self, span: Span<'_>, limit: usize) -> Result<Vec<Box<[u8]>>, StoreError> {
        let rows = self.scan(span, limit)?;
        Ok(rows.into_iter().map(|row| row.key).collect())
    }
}

/// Which rows of a table a scan is for: those whose keys begin with a prefix, from a start on, up to
/// a last one.
///
/// ```
/// use std::ops::Bound;
///
/// use selfsame::store::{Batch, Durability, MemoryStore, Read, Span, Store, Table};
///
/// let store = MemoryStore::default();
/// let mut batch = Batch::default();
/// for key in [b"a1", b"a2", b"a3", b"b1"] {
///     batch.put(Table::Meta, key, b"");
/// }
/// store.commit(batch, Durability::Never)?;
/// let span = Span::of(Table::Meta, b"a").start_at(Bound::Excluded(b"a1"));
/// assert_eq!(store.scan(span, 9)?.len(), 2);
/// assert_eq!(store.scan(span.through(b"a2"), 9)?.len(), 1);
/// # Ok::<(), selfsame::store::StoreError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span<'a> {
    /// The table.
    pub table: Table,
    /// What all keys begin with.
    pub prefix: &'a [u8],
    /// Where it starts: a whole key.
    pub start: Bound<&'a [u8]>,
    /// The last key that may be found; none: all with the prefix.
    pub last: Option<&'a [u8]>,
}

impl<'a> Span<'a> {
    /// All rows with this prefix.
    #[must_use]
    pub const fn of(table: Table, prefix: &'a [u8]) -> Self {
        Self { table, prefix, start: Bound::Unbounded, last: None }
    }

    /// Of them those from a key on.
    #[must_use]
    pub const fn start_at(self, start: Bound<&'a [u8]>) -> Self {
        Self { start, ..self }
    }

    /// Of them those up to a key, which is found too.
    #[must_use]
    pub const fn through(self, last: &'a [u8]) -> Self {
        Self { last: Some(last), ..self }
    }

    /// Whether it ends before a key at or behind its first one.
    #[must_use]
    pub fn ends_before(&self, key: &[u8]) -> bool {
        !key.starts_with(self.prefix) || self.last.is_some_and(|last| key > last)
    }

    /// Where the first key may be, which has the prefix.
    #[must_use]
    pub fn first(&self) -> Bound<&'a [u8]> {
        match self.start {
            Bound::Included(key) | Bound::Excluded(key) if key >= self.prefix => self.start,
            _ => Bound::Included(self.prefix),
        }
    }
}

/// A writer that is on its way to [`Store::apply`]: a sync that is about to start may wait for it
/// a moment, so that both share it. Dropped when the batch is applied or given up.
#[derive(Debug, Default)]
pub struct Announced(Option<Arc<AtomicUsize>>);

impl Announced {
    /// Counts one writer more until this is dropped.
    #[must_use]
    pub fn counted(by: &Arc<AtomicUsize>) -> Self {
        by.fetch_add(1, Ordering::Relaxed);
        Self(Some(Arc::clone(by)))
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        if let Some(count) = &self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// An ordered key-value store with named tables. As a [`Read`] it shows what was applied last.
pub trait Store: Read + 'static {
    /// Its snapshots.
    type Snapshot: Read + Clone + 'static;

    /// All tables at one moment between two batches; stays as it is whatever is written later.
    /// Takes no copy of the rows.
    ///
    /// # Errors
    /// The store failed.
    fn snapshot(&self) -> Result<Self::Snapshot, StoreError>;

    /// Announces a writer; see [`Announced`].
    fn announce(&self) -> Announced {
        Announced::default()
    }

    /// Makes a batch visible, all of it or nothing. It is durable only after
    /// [`settle`](Self::settle), and never before a batch with a lower number.
    ///
    /// # Errors
    /// Nothing of the batch was applied. After a failure of the disk no further batch is taken.
    fn apply(&self, batch: Batch) -> Result<CommitNumber, StoreError>;

    /// Waits until the batch, and so each with a lower number, is as durable as asked.
    ///
    /// # Errors
    /// The disk failed: the batch is visible, but a crash may take it back.
    fn settle(&self, number: CommitNumber, durability: Durability) -> Result<(), StoreError>;

    /// Applies and settles.
    ///
    /// # Errors
    /// Those of [`apply`](Self::apply) and [`settle`](Self::settle).
    fn commit(&self, batch: Batch, durability: Durability) -> Result<CommitNumber, StoreError> {
        let number = self.apply(batch)?;
        self.settle(number, durability)?;
        Ok(number)
    }

    /// What this implementation can do.
    fn capabilities(&self) -> Capabilities;

    /// Why no batch is taken any more, if that is so.
    fn failure(&self) -> Option<StoreError> {
        None
    }

    /// Takes what [`leave_token`](Self::leave_token) was given last, before this opening: at most
    /// once, and gone for good before it is returned, whatever becomes of this process. No copy,
    /// backup or snapshot of the store may have it, and nothing of an earlier run of the system.
    /// A store that cannot promise this has none.
    fn take_token(&self) -> Option<Vec<u8>> {
        None
    }

    /// Leaves a few bytes for the next opening of this very store. A token that cannot be kept is
    /// dropped.
    fn leave_token(&self, _token: &[u8]) {}
}

impl<S: Read + ?Sized> Read for Arc<S> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Arc<[u8]>>, StoreError> {
        (**self).get(table, key)
    }

    fn size_of(&self, table: Table, key: &[u8]) -> Result<Option<u64>, StoreError> {
        (**self).size_of(table, key)
    }

    fn scan(&self, span: Span<'_>, limit: usize) -> Result<Vec<Row>, StoreError> {
        (**self).scan(span, limit)
    }

    fn scan_keys(&self, span: Span<'_>, limit: usize) -> Result<Vec<Box<[u8]>>, StoreError> {
        (**self).scan_keys(span, limit)
    }
}

impl<S: Store> Store for Arc<S> {
    type Snapshot = S::Snapshot;

    fn snapshot(&self) -> Result<Self::Snapshot, StoreError> {
        (**self).snapshot()
    }

    fn announce(&self) -> Announced {
        (**self).announce()
    }

    fn apply(&self, batch: Batch) -> Result<CommitNumber, StoreError> {
        (**self).apply(batch)
    }

    fn settle(&self, number: CommitNumber, durability: Durability) -> Result<(), StoreError> {
        (**self).settle(number, durability)
    }

    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }

    fn failure(&self) -> Option<StoreError> {
        (**self).failure()
    }

    fn take_token(&self) -> Option<Vec<u8>> {
        (**self).take_token()
    }

    fn leave_token(&self, token: &[u8]) {
        (**self).leave_token(token);
    }
}
