//! The Merkle log: an append-only list under one root (RFC 9162, section 2.1).
//!
//! The change log and the certificate log are such. What is appended never changes an older
//! root's meaning: an inclusion proof shows that an item is in a log, a consistency proof that a
//! log is the beginning of a longer one. With SHA-256 existing verifiers of certificate
//! transparency read all of it.
//!
//! The log is held as its **peaks**: the roots of its perfect subtrees, one for each bit set in
//! its size (a Merkle mountain range). So appending takes no older item, only size and peaks.
//!
//! ```
//! use selfsame::hash::HashAlgorithm;
//! use selfsame::merkle::{InclusionProof, MerkleLog};
//!
//! let algorithm = HashAlgorithm::Sha256;
//! let mut log = MerkleLog::new(algorithm);
//! let leaves: Vec<_> = ["a", "b", "c"].iter().map(|item| log.append(item.as_bytes())).collect();
//!
//! let resumed = MerkleLog::resume(algorithm, log.size(), log.peaks().to_vec())?;
//! assert_eq!(resumed.root(), log.root());
//!
//! let proof = InclusionProof::of_leaves(algorithm, &leaves, 1).expect("the log has three items");
//! proof.verify(algorithm, log.size(), &log.root(), &algorithm.log_leaf(b"b"))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod head;
pub mod item;
pub mod proof;
pub mod range;
pub mod segment;
pub mod statement;

pub use head::{
    LogHeadError, LogHeadFields, LogId, LogIdentity, LogKind, SignedLogHead, first_item,
};
pub use item::{ChangeItem, CommitEnd};
pub use proof::{ConsistencyProof, InclusionProof, LogProofError};
pub use range::RangeProof;
pub use segment::LogSegment;
pub use statement::{Contradiction, ContradictionError, HeadStatement};

use crate::hash::{HashAlgorithm, LogHash};

/// Most items of a log: more than can ever be appended one by one.
pub const MAX_LOG_ITEMS: u64 = 1 << 62;

/// Size and peaks that make no log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// Not one peak for each bit set in the size.
    #[error("log: {size} items have {expected} peaks, not {found}: the store is damaged")]
    Peaks {
        /// Items claimed.
        size: u64,
        /// Peaks that so many items have.
        expected: usize,
        /// Peaks given.
        found: usize,
    },
    /// More items than a log holds.
    #[error("log: {0} items are more than a log holds: the store is damaged")]
    TooMany(u64),
}

/// A perfect subtree of a log: the items `index << level` up to below `(index + 1) << level`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Perfect {
    level: u8,
    index: u64,
}

impl Perfect {
    /// Its height: it has 2^level items.
    #[must_use]
    pub const fn level(self) -> u8 {
        self.level
    }

    /// Its position among the subtrees of its height.
    #[must_use]
    pub const fn index(self) -> u64 {
        self.index
    }

    /// Index of its first item.
    #[must_use]
    pub const fn first(self) -> u64 {
        self.index << self.level
    }

    /// Number of its items.
    #[must_use]
    pub const fn count(self) -> u64 {
        1 << self.level
    }

    /// The two subtrees that it consists of; none if it is a single item.
    pub(super) const fn halves(self) -> Option<(Self, Self)> {
        let Some(level) = self.level.checked_sub(1) else { return None };
        let index = self.index << 1;
        Some((Self { level, index }, Self { level, index: index + 1 }))
    }

    /// Its hash, from the leaf hashes of its items. As many reads and hashes as it has items:
    /// whoever proves often from a long log keeps the greater ones.
    ///
    /// # Errors
    /// What `leaf` fails with.
    pub fn hash<E>(
        self,
        algorithm: HashAlgorithm,
        mut leaf: impl FnMut(u64) -> Result<LogHash, E>,
    ) -> Result<LogHash, E> {
        let mut log = MerkleLog::new(algorithm);
        for index in self.first()..self.first() + self.count() {
            log.append_leaf(leaf(index)?);
        }
        Ok(log.root())
    }
}

/// A Merkle log, as far as appending and its root need it: O(log n) memory.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct MerkleLog {
    algorithm: HashAlgorithm,
    size: u64,
    // the greatest first: one for each bit set in `size`
    peaks: Vec<LogHash>,
}

impl MerkleLog {
    /// An empty log.
    #[must_use]
    pub const fn new(algorithm: HashAlgorithm) -> Self {
        Self { algorithm, size: 0, peaks: Vec::new() }
    }

    /// A log that was stored as its size and peaks.
    ///
    /// # Errors
    /// Not as many peaks as so many items have.
    pub fn resume(
        algorithm: HashAlgorithm,
        size: u64,
        peaks: Vec<LogHash>,
    ) -> Result<Self, LogError> {
        let expected = size.count_ones() as usize;
        if size > MAX_LOG_ITEMS {
            return Err(LogError::TooMany(size));
        }
        if peaks.len() != expected {
            return Err(LogError::Peaks { size, expected, found: peaks.len() });
        }
        Ok(Self { algorithm, size, peaks })
    }

    /// Appends an item; gives its leaf hash. One hash on average.
    pub fn append(&mut self, item: &[u8]) -> LogHash {
        let leaf = self.algorithm.log_leaf(item);
        self.append_leaf(leaf);
        leaf
    }

    /// Appends an item whose leaf hash is known.
    pub fn append_leaf(&mut self, leaf: LogHash) {
        let merged = self.peaks.len() - self.size.trailing_ones() as usize;
        let hash = self
            .peaks
            .drain(merged..)
            .rev()
            .fold(leaf, |right, left| self.algorithm.log_inner(&left, &right));
        self.peaks.push(hash);
        self.size += 1;
    }

    /// Number of items.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Roots of the perfect subtrees, the greatest first: with the size, all that must be stored.
    #[must_use]
    pub fn peaks(&self) -> &[LogHash] {
        &self.peaks
    }

    /// The hash of a perfect subtree, if it is one of the peaks.
    fn peak(&self, node: Perfect) -> Option<LogHash> {
        let of_its_size = (self.size >> node.level) & 1 == 1;
        // the greater peaks stand before it, and end where it begins
        let before = self.size.checked_shr(u32::from(node.level) + 1).unwrap_or(0);
        let stands = of_its_size && before.checked_mul(2) == Some(node.index);
        stands.then(|| self.peaks.get(before.count_ones() as usize).copied()).flatten()
    }

    /// The log's hash algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// Root of all items. O(log n) hashes.
    #[must_use]
    pub fn root(&self) -> LogHash {
        let root = self
            .peaks
            .iter()
            .rev()
            .copied()
            .reduce(|right, left| self.algorithm.log_inner(&left, &right));
        root.unwrap_or_else(|| self.algorithm.log_empty())
    }
}
