//! Which entries of two collections differ, in little more bytes than it takes to say so.
//!
//! Entries are sorted into buckets by the first bits of their key hashes, and each bucket has a
//! PinSketch (Dodis, Ostrovsky, Reyzin and Smith 2004) over short ids: from two sketches of the same
//! buckets a [`Decoder`] names what only one side holds. Decoding costs the square of what a
//! bucket holds, so many small ones are read faster than one large one; how large each is sent is
//! planned from an estimate. The few that held more are sent on, by [`Portion`]s that begin where
//! the first one ended: no syndrome travels twice.
//!
//! The id of an entry is the same however many buckets there are. So buckets add up to larger
//! ones, and sketches kept for small ones serve for all.
//!
//! They steer only: ids are short, so two entries may share one by chance (n d / 2^43 from 16
//! buckets on, for n entries of which d differ) or by whoever grinds keys, and then one of them is
//! not named, which a comparison of roots finds out.
//!
//! ```
//! use selfsame::hash::{HashAlgorithm, KeyHash, RecordDigest};
//! use selfsame::sketch::{BucketSketch, Decoder, Layout, Precision, WireSketch};
//!
//! let item = |number: u32| {
//!     let hash = HashAlgorithm::Blake3.value_hash(&number.to_le_bytes()).0;
//!     (KeyHash(hash), RecordDigest(hash))
//! };
//! let layout = Layout::plan(3, Precision::Full, 1_000).expect("few differ");
//! let theirs = BucketSketch::of_items(layout.all(), (3..1_000).map(item));
//! let sent: WireSketch = theirs.to_wire();
//! assert!(sent.bits.len() < 24);
//!
//! let theirs = BucketSketch::from_wire(sent)?;
//! let ours = BucketSketch::of_items(theirs.portion().clone(), (0..999).map(item));
//! let decoder = Decoder::new(ours, &theirs)?;
//! assert!(decoder.is_done());
//! let differing = decoder.finish().ids;
//! assert_eq!(differing.len(), 4);
//! for number in [0, 1, 2, 999] {
//!     let (key, record) = item(number);
//!     assert!(differing.iter().any(|id| id.matches(&key, &record)));
//! }
//! # Ok::<(), selfsame::sketch::SketchError>(())
//! ```

mod decoder;
mod layout;
mod names;

use serde::{Deserialize, Serialize};

use super::ids::{BucketId, bucket_of};
use super::pinsketch;
use crate::codec::bits::{BitReader, BitWriter};
use crate::hash::{KeyHash, RecordDigest};

pub use decoder::{Attributed, Decoded, Decoder};
pub use layout::{Layout, MAX_BUCKETS_LOG2, MAX_CAPACITY, Portion, Precision, WireRefill};
pub use names::{Names, WireNames};

/// Ids that are added to a bucket at once while entries are read.
const AT_ONCE: usize = 64;

/// A sketch, a plan of one or names in bytes that are none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SketchError {
    /// More buckets or syndromes than there ever are, or none.
    #[error(
        "a sketch of 2^{buckets_log2} buckets with {capacity} syndromes is refused: 2^12 and 1 to \
         64 are allowed"
    )]
    Layout {
        /// Power of two of the number of buckets.
        buckets_log2: u8,
        /// Syndromes of each.
        capacity: u8,
    },
    /// Not so many syndromes, or bits behind the last one.
    #[error("{found} bytes are no sketch of {expected} bytes: the session goes on without it")]
    Length {
        /// How many there are.
        found: usize,
        /// How many were asked for.
        expected: usize,
    },
    /// It asks for what follows no such sketch.
    #[error("more of a sketch was asked for than follows it: the session goes on without it")]
    Refill,
    /// Sketches of different portions cannot be added.
    #[error("two sketches do not cover the same buckets and syndromes: ask again for both")]
    Mismatch,
    /// Bytes that name nothing in just this form.
    #[error("a list of names is refused ({0}): the session goes on without it")]
    Names(&'static str),
}

/// Syndromes of some buckets of a collection: the same for the same entries, in whatever order
/// they came.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct BucketSketch {
    portion: Portion,
    /// Those of the first bucket of the portion, then those of the next.
    syndromes: Vec<u64>,
}

/// What travels of the first sketch.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct WireSketch {
    /// Its buckets and syndromes.
    pub layout: Layout,
    /// The syndromes, bit by bit.
    #[serde(with = "crate::delta::bytes")]
    pub bits: Vec<u8>,
}

impl BucketSketch {
    /// The sketch of entries, each given once; those of other buckets are passed over. O(syndromes
    /// of a bucket) for each entry; fastest in the order of their keys.
    #[must_use]
    pub fn of_items(
        portion: Portion,
        items: impl IntoIterator<Item = (KeyHash, RecordDigest)>,
    ) -> Self {
        let mut sketch = Self::from_syndromes(portion.clone(), vec![0; portion.syndromes()]);
        let mut ids = Vec::with_capacity(AT_ONCE);
        let mut slot = 0;
        for (key, record) in items {
            let Some(next) = portion.slot(bucket_of(portion.log2(), &key)) else { continue };
            if next != slot || ids.len() == AT_ONCE {
                sketch.toggle(slot, &ids);
                ids.clear();
                slot = next;
            }
            ids.push(BucketId::of(portion.width(), &key, &record).get());
        }
        sketch.toggle(slot, &ids);
        sketch
    }

    fn toggle(&mut self, slot: usize, ids: &[u64]) {
        let (width, first, depth) =
            (self.portion.width(), self.portion.first(), self.portion.depth());
        if !ids.is_empty() {
            let syndromes = &mut self.syndromes[slot * depth..(slot + 1) * depth];
            pinsketch::toggle(width, syndromes, first as u32, ids);
        }
    }

    pub(super) const fn from_syndromes(portion: Portion, syndromes: Vec<u64>) -> Self {
        Self { portion, syndromes }
    }

    /// Which syndromes of which buckets they are.
    #[must_use]
    pub const fn portion(&self) -> &Portion {
        &self.portion
    }

    /// The syndromes of a bucket, by its place in the portion.
    fn bucket(&self, slot: usize) -> &[u64] {
        let depth = self.portion.depth();
        &self.syndromes[slot * depth..(slot + 1) * depth]
    }

    /// The syndromes, most significant bit first, without gaps; zero bits fill the last byte.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let width = self.portion.width().bits() as u8;
        let mut bits = BitWriter::default();
        self.syndromes.iter().for_each(|syndrome| bits.put(*syndrome, width));
        bits.finish()
    }

    /// Reads what was asked for. Any syndromes are those of some entries.
    ///
    /// # Errors
    /// The length is another, or bits after the last syndrome are not zero.
    pub fn from_bytes(portion: Portion, bytes: &[u8]) -> Result<Self, SketchError> {
        let (found, expected) = (bytes.len(), portion.bytes());
        let refused = SketchError::Length { found, expected };
        if found != expected {
            return Err(refused);
        }
        let width = portion.width().bits() as u8;
        let mut bits = BitReader::new(bytes);
        let syndromes: Result<Vec<u64>, _> =
            (0..portion.syndromes()).map(|_| bits.read(width)).collect();
        let (Ok(syndromes), Ok(())) = (syndromes, bits.finish()) else { return Err(refused) };
        Ok(Self { portion, syndromes })
    }

    /// What is sent of a first sketch, with its layout.
    #[must_use]
    pub fn to_wire(&self) -> WireSketch {
        WireSketch { layout: self.portion.layout(), bits: self.to_bytes() }
    }

    /// Reads a first sketch. Whether its layout is one that was asked for is the caller's to say:
    /// reading it costs what [`Layout::work`] says, twice at most.
    ///
    /// # Errors
    /// The length is not that of its layout, or bits after the last syndrome are not zero.
    pub fn from_wire(wire: WireSketch) -> Result<Self, SketchError> {
        Self::from_bytes(wire.layout.all(), &wire.bits)
    }
}

#[cfg(test)]
#[path = "buckets/tests.rs"]
mod tests;
