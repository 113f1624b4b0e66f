//! Backups: a collection at one moment, or what became of it since an earlier backup, as a stream
//! of bytes that says what it is and proves that it is whole.
//!
//! A full backup holds everything that a restored node needs: entries, values, context and
//! exceptions of one moment (rule D10). A part holds the keys that changed since an earlier
//! backup, its base, as they are now, and the context of now. A full backup and the parts that
//! follow it are a [`Chain`], which is read as the collection at the moment of the last one.
//!
//! Whoever reads a chain to its end has seen every block checked against the hash of all before
//! it, every value against its record, and the root, the context hash and the links recomputed. No
//! more than a block and a value of each backup of the chain is in memory, and the contexts.
//!
//! ```
//! use selfsame::backup::{BackupHead, BackupLimits, BackupReader, BackupWriter, Chain, Event};
//! use selfsame::dots::{Causality, Dot, DotSet};
//! use selfsame::clock::Stamp;
//! use selfsame::entry::{Record, Sibling};
//! use selfsame::hash::HashAlgorithm;
//! use selfsame::merkle::{Envelope, Leaf, StreamedTree};
//! use selfsame::types::{CollectionName, CollectionSpec, Key, NodeId, Policy};
//!
//! let (algorithm, key, value) = (HashAlgorithm::Blake3, Key::new("ada")?, b"level 3");
//! let dot = Dot::new(7, 1).expect("not zero");
//! let value_hash = algorithm.value_hash(value);
//! let sibling = Sibling { dot, stamp: Stamp(5), size: 7, value_hash };
//! let record = Record::new(vec![sibling])?;
//! let causality = Causality::new([(dot.writer(), 1)], DotSet::default(), &DotSet::default());
//! let (digest, totals) = (record.digest(algorithm), record.totals());
//! let mut tree = StreamedTree::new(algorithm);
//! assert!(tree.push(&Leaf { key: algorithm.key_hash(&key), record: digest, totals }));
//! let name = CollectionName::new("players")?;
//! let spec = CollectionSpec { name, algorithm, policy: Policy::Lww };
//! let envelope = Envelope::new(spec, tree.tree_hash(), totals)?;
//! let context = causality.hash(algorithm)?;
//! let head = BackupHead::full(NodeId([1; 32]), 1_000, envelope, context);
//!
//! let mut writer = BackupWriter::begin(Vec::new(), &head, &causality)?;
//! writer.held(&key, &record)?;
//! writer.value(Some(value))?;
//! let (bytes, written) = writer.finish()?;
//!
//! let reader = BackupReader::open(&bytes[..], BackupLimits::default())?;
//! let mut chain = Chain::of(vec![reader])?;
//! assert!(matches!(chain.next_event()?, Some(Event::Held { .. })));
//! assert!(matches!(chain.next_event()?, Some(Event::Value { .. })));
//! assert!(chain.next_event()?.is_none()); // the end: all of it holds
//! assert_eq!(written.counts.held, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod blocks;
mod chain;
mod head;
mod read;
mod write;

use std::io;

pub use blocks::{BLOCK_BYTES, MAX_BLOCK_BYTES};
pub use chain::{Chain, MAX_BACKUPS};
pub use head::{BackupHead, Base, LogPlace, MAX_HEAD_BYTES};
pub use read::{BackupReader, Event, read_summary};
pub use write::BackupWriter;

use crate::codec::{CodecError, Reader, Writing};
use crate::dots::{ContextError, Dot};
use crate::hash::{KeyHash, StateHash, ValueHash};
use crate::types::CollectionName;

/// What every backup begins with; the version of its format is the next byte.
pub const MAGIC: [u8; 15] = *b"selfsame backup";
/// The version that is written, and the only one that is read.
pub const FORMAT_VERSION: u8 = 1;

/// What a reader takes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BackupLimits {
    /// Largest value, in bytes: one is in memory at a time.
    pub max_value_bytes: u64,
    /// Longest context, in bytes: 16 for each writer and exception, and twice that in memory.
    pub max_context_bytes: u32,
}

impl Default for BackupLimits {
    fn default() -> Self {
        Self { max_value_bytes: 1 << 30, max_context_bytes: 256 << 20 }
    }
}

/// What a backup holds, in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct BackupCounts {
    /// Keys with their entries.
    pub held: u64,
    /// Keys of the base under which nothing is held any more, or that it never had.
    pub gone: u64,
    /// Values.
    pub values: u64,
    /// Values whose bytes were lost where the backup was made.
    pub missing: u64,
    /// Bytes of values.
    pub value_bytes: u64,
}

impl BackupCounts {
    const BYTES: usize = 5 * 8;

    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::BYTES);
        for number in [self.held, self.gone, self.values, self.missing, self.value_bytes] {
            bytes.put_u64(number);
        }
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        let counts = Self {
            held: reader.u64()?,
            gone: reader.u64()?,
            values: reader.u64()?,
            missing: reader.u64()?,
            value_bytes: reader.u64()?,
        };
        reader.finish()?;
        Ok(counts)
    }
}

/// A backup that is whole.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BackupSummary {
    /// What it holds.
    pub counts: BackupCounts,
    /// BLAKE3 of all its bytes but the last 32, which are this.
    pub hash: [u8; 32],
}

/// Bytes that are no backup, or backups that do not go together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// They could not be read or written.
    #[error("the backup could not be read or written: {0}")]
    Io(#[from] io::Error),
    /// Something else.
    #[error("this is no backup: it does not begin as one")]
    NotABackup,
    /// Another version of the format.
    #[error(
        "the backup is of format {0}, and this is selfsame {version}, which reads format 1: \
        use a version that knows it",
        version = env!("CARGO_PKG_VERSION")
    )]
    Version(u8),
    /// It ends before its end.
    #[error("the backup is cut short after {0} bytes: take another copy of it, or an older backup")]
    Cut(u64),
    /// Bytes that are not those that were written.
    #[error(
        "the backup is damaged between bytes {from} and {to}: take another copy of it, or an older \
        backup"
    )]
    Damaged {
        /// Where the block begins that does not hold.
        from: u64,
        /// Where it ends, as far as it was read.
        to: u64,
    },
    /// More bytes behind its end.
    #[error("something stands behind the end of the backup at byte {0}: it is not as it was made")]
    Trailing(u64),
    /// What was written does not have this form.
    #[error("the backup does not say what a backup can say ({0}): whoever wrote it is broken")]
    Malformed(&'static str),
    /// A value that is not that of its record.
    #[error("value {hash} of the key with hash {key} is not in the backup as its entry names it")]
    Value {
        /// Hash of the key.
        key: KeyHash,
        /// Hash of the value.
        hash: ValueHash,
    },
    /// A dot that was held and cannot have been.
    #[error("dot {0} is held in the backup and dead by its context, or should be covered by it")]
    Dot(Dot),
    /// A dot that two keys hold.
    #[error("{0} dots are held more than once in the backup")]
    SameDots(u64),
    /// The entries are not those of the root.
    #[error("the entries in the backup do not have the root that it states: do not use it")]
    Root,
    /// The context is not that of its hash.
    #[error("the context in the backup does not have the hash that it states: do not use it")]
    Context,
    /// A context that cannot be written down.
    #[error(transparent)]
    ContextForm(#[from] ContextError),
    /// A value beyond the limit.
    #[error(
        "a value of {size} bytes is more than the {limit} that are allowed here: raise \
        max_value_bytes"
    )]
    ValueSize {
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// A context beyond the limit.
    #[error("a context of {size} bytes is more than the {limit} that a backup may have")]
    ContextSize {
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// No backup, or too many.
    #[error("{found} backups are no chain: give 1 to {limit}", limit = MAX_BACKUPS)]
    Backups {
        /// How many.
        found: usize,
    },
    /// The first one is a part.
    #[error(
        "the chain begins with a part, which says only what changed since an earlier backup: put \
        the full backup and all parts between before it"
    )]
    NoFull,
    /// A later one is full.
    #[error("backup {number} of the chain is a full one: a chain has one, which is its first")]
    SecondFull {
        /// Its place, from 1.
        number: usize,
    },
    /// They are of different collections, or of one with other settings.
    #[error(
        "backup {number} of the chain is of collection {found}, and those before of {expected}"
    )]
    OtherCollection {
        /// Its place, from 1.
        number: usize,
        /// Its collection, with settings.
        found: String,
        /// That of the first.
        expected: String,
    },
    /// A part whose base is not what the one before it leaves.
    #[error(
        "backup {number} of the chain goes on from state {base}, and the one before it leaves \
        {left}: one between them is missing, or it belongs to another chain"
    )]
    Hole {
        /// Its place, from 1.
        number: usize,
        /// The state it goes on from.
        base: StateHash,
        /// The state that is there.
        left: StateHash,
    },
    /// The collection's own log does not say what changed since the base.
    #[error(
        "collection {collection}: what changed since that backup is not known any more ({why}): \
        make a full one"
    )]
    NotSince {
        /// The collection.
        collection: CollectionName,
        /// Why.
        why: SinceError,
    },
}

impl BackupError {
    /// Whether it is the backup that does not hold, rather than the reading of it.
    #[must_use]
    pub const fn is_unsound(&self) -> bool {
        matches!(
            self,
            Self::Cut(_)
                | Self::Damaged { .. }
                | Self::Trailing(_)
                | Self::Malformed(_)
                | Self::Value { .. }
                | Self::Dot(_)
                | Self::SameDots(_)
                | Self::Root
                | Self::Context
        )
    }
}

/// Why a change log does not say what changed since a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SinceError {
    /// Another collection, or one with other settings.
    #[error("it is of another collection, or of one with other settings")]
    Collection,
    /// The collection was recovered or restored since.
    #[error("the collection was recovered or restored since")]
    Epoch,
    /// The log that the backup names is not in this store, or not up to there.
    #[error("its place in the change log is not one of this store")]
    Log,
    /// The log begins later.
    #[error(
        "the change log begins at {floor}, and the backup was made at {position}: \
        removal_log_entries says how far it reaches back"
    )]
    Pruned {
        /// First position that is left.
        floor: u64,
        /// The position of the backup.
        position: u64,
    },
    /// A row of the log is missing or damaged.
    #[error("position {0} of the change log is missing or damaged")]
    Hole(u64),
}

/// The values of a record in the order in which a backup has them: each once, by the first sibling
/// that names it. None if siblings disagree on the size of one.
fn values_of(record: &crate::entry::Record) -> Option<Vec<(ValueHash, u64)>> {
    let mut values: Vec<(ValueHash, u64)> = Vec::new();
    let mut sizes = std::collections::BTreeMap::new();
    for sibling in record.siblings() {
        match sizes.insert(sibling.value_hash, sibling.size) {
            None => values.push((sibling.value_hash, sibling.size)),
            Some(size) if size == sibling.size => {}
            Some(_) => return None,
        }
    }
    Some(values)
}
