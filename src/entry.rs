//! Siblings and records: what a collection holds under a key, and its canonical bytes.
//!
//! ```
//! use selfsame::clock::Stamp;
//! use selfsame::dots::Dot;
//! use selfsame::entry::{Record, Sibling};
//! use selfsame::hash::HashAlgorithm;
//!
//! let sibling = Sibling {
//!     dot: Dot::new(9, 1).expect("not zero"),
//!     stamp: Stamp::new(1_000, 0),
//!     size: 5,
//!     value_hash: HashAlgorithm::Blake3.value_hash(b"hello"),
//! };
//! let record = Record::new(vec![sibling])?;
//! assert_eq!(Record::parse(&record.to_bytes())?, record);
//! # Ok::<(), selfsame::entry::RecordError>(())
//! ```

use crate::clock::Stamp;
use crate::codec::{CodecError, Reader, Writing};
use crate::dots::Dot;
use crate::hash::{HashAlgorithm, RecordDigest, ValueHash};

/// Bytes of one sibling in a record.
pub const SIBLING_BYTES: usize = 64;
const RECORD_VERSION: u8 = 1;

/// One version of a value: its dot, its stamp, its size and hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "session", derive(serde::Serialize, serde::Deserialize))]
pub struct Sibling {
    /// The put that wrote it.
    pub dot: Dot,
    /// When, by the writer's hybrid clock; chooses among siblings, never removes.
    pub stamp: Stamp,
    /// Bytes of the value.
    pub size: u64,
    /// Plain hash of the value.
    pub value_hash: ValueHash,
}

impl Sibling {
    /// The 64 bytes in a record.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; SIBLING_BYTES] {
        let mut bytes = [0; SIBLING_BYTES];
        bytes[..8].copy_from_slice(&self.dot.writer().get().to_le_bytes());
        bytes[8..16].copy_from_slice(&self.dot.counter().to_le_bytes());
        bytes[16..24].copy_from_slice(&self.stamp.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.size.to_le_bytes());
        bytes[32..].copy_from_slice(&self.value_hash.0);
        bytes
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        let (writer, counter) = (reader.u64()?, reader.u64()?);
        Ok(Self {
            dot: Dot::new(writer, counter).ok_or(RecordError::ZeroDot)?,
            stamp: Stamp(reader.u64()?),
            size: reader.u64()?,
            value_hash: ValueHash(reader.array()?),
        })
    }
}

/// Bytes or siblings that make no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Cut short or left over.
    #[error("record: {0}")]
    Codec(#[from] CodecError),
    /// Not version 1.
    #[error("record: version {0} is unknown")]
    Version(u8),
    /// No siblings: then there is no entry.
    #[error("record: no siblings")]
    Empty,
    /// More than a record can count.
    #[error("record: {0} siblings are more than a record can hold")]
    TooMany(usize),
    /// Writer or counter of zero.
    #[error("record: a writer or counter is zero")]
    ZeroDot,
    /// Not strictly ascending by dot.
    #[error("record: siblings are not strictly ascending by dot")]
    Order,
}

/// The siblings of an entry: at least one, strictly ascending by dot.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Record(Vec<Sibling>);

impl Record {
    /// Sorts the siblings.
    ///
    /// # Errors
    /// None, more than 65,535, or two with one dot.
    pub fn new(mut siblings: Vec<Sibling>) -> Result<Self, RecordError> {
        siblings.sort_unstable_by_key(|sibling| sibling.dot);
        Self::checked(siblings)
    }

    fn checked(siblings: Vec<Sibling>) -> Result<Self, RecordError> {
        if siblings.is_empty() {
            return Err(RecordError::Empty);
        }
        if siblings.len() > usize::from(u16::MAX) {
            return Err(RecordError::TooMany(siblings.len()));
        }
        if siblings.windows(2).any(|pair| pair[0].dot >= pair[1].dot) {
            return Err(RecordError::Order);
        }
        Ok(Self(siblings))
    }

    /// Reads canonical bytes strictly: what is accepted encodes to the same bytes.
    ///
    /// # Errors
    /// Anything else. Size is not held against value hash: whoever has the value does that.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            RECORD_VERSION => {}
            version => return Err(RecordError::Version(version)),
        }
        let count = reader.u16()?;
        if reader.remaining() < usize::from(count) * SIBLING_BYTES {
            return Err(CodecError::Truncated.into());
        }
        let siblings =
            (0..count).map(|_| Sibling::read(&mut reader)).collect::<Result<Vec<_>, _>>()?;
        reader.finish()?;
        Self::checked(siblings)
    }

    /// Canonical bytes: the only hashed form of an entry.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(3 + self.0.len() * SIBLING_BYTES);
        bytes.put_u8(RECORD_VERSION);
        bytes.put_u16(self.0.len() as u16);
        for sibling in &self.0 {
            bytes.put_bytes(&sibling.to_bytes());
        }
        bytes
    }

    /// Record digest.
    #[must_use]
    pub fn digest(&self, algorithm: HashAlgorithm) -> RecordDigest {
        algorithm.record_digest(&self.to_bytes())
    }

    /// The siblings, ascending by dot.
    #[must_use]
    pub fn siblings(&self) -> &[Sibling] {
        &self.0
    }

    /// The sibling with this dot. O(log siblings).
    #[must_use]
    pub fn sibling(&self, dot: Dot) -> Option<&Sibling> {
        let at = self.0.binary_search_by_key(&dot, |sibling| sibling.dot).ok()?;
        self.0.get(at)
    }

    /// Whether the dot is among the siblings.
    #[must_use]
    pub fn holds(&self, dot: Dot) -> bool {
        self.sibling(dot).is_some()
    }

    /// What policy `lww` reads: the sibling with the greatest (stamp, dot).
    #[must_use]
    pub fn latest(&self) -> &Sibling {
        self.0.iter().max_by_key(|sibling| (sibling.stamp, sibling.dot)).expect("never empty")
    }

    /// What policy `siblings` reads: one sibling of each value, the latest first. Siblings with
    /// equal values read as one version.
    #[must_use]
    pub fn versions(&self) -> Vec<&Sibling> {
        let mut versions: Vec<&Sibling> = self.0.iter().collect();
        versions.sort_unstable_by_key(|sibling| std::cmp::Reverse((sibling.stamp, sibling.dot)));
        let mut hashes = std::collections::BTreeSet::new();
        versions.retain(|sibling| hashes.insert(sibling.value_hash));
        versions
    }

    /// Whether concurrent siblings with different values are held.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.0.iter().any(|sibling| sibling.value_hash != self.0[0].value_hash)
    }

    /// What the tree keeps beside the record digest.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals {
            entries: 1,
            siblings: self.0.len() as u64,
            bytes: self.0.iter().fold(0, |sum: u64, sibling| sum.saturating_add(sibling.size)),
            latest: self.0.iter().map(|sibling| sibling.stamp).max().unwrap_or_default(),
        }
    }
}

/// Totals over entries: of one record, a subtree or a collection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "session", derive(serde::Serialize, serde::Deserialize))]
pub struct Totals {
    /// Number of entries.
    pub entries: u64,
    /// Number of siblings, at least that of entries; the surplus are concurrent siblings.
    pub siblings: u64,
    /// Sizes of all siblings' values, uncompressed.
    pub bytes: u64,
    /// Greatest stamp of all siblings, 0 for none.
    pub latest: Stamp,
}

impl Totals {
    /// Totals of both; saturating (overflow of the sum of bytes is refused where writes enter).
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            entries: self.entries.saturating_add(other.entries),
            siblings: self.siblings.saturating_add(other.siblings),
            bytes: self.bytes.saturating_add(other.bytes),
            latest: self.latest.max(other.latest),
        }
    }

    /// Whether the figures can belong together: siblings >= entries, nothing without entries.
    #[must_use]
    pub fn are_consistent(&self) -> bool {
        self.siblings >= self.entries && (self.entries > 0 || *self == Self::default())
    }
}
