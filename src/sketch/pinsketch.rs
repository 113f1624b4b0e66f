//! The symmetric difference of two sets, from as many field elements as it has members.
//!
//! PinSketch (Dodis, Ostrovsky, Reyzin and Smith 2004, section 6; the variant over odd power sums
//! as in BIP 330): a sketch of capacity c holds the sums of the first c odd powers of its ids in
//! GF(2^44), 5.5 bytes each. Sketches of two sets, added, are the sketch of what only one of them
//! holds, and name it exactly if it has c members at most. What the sets share costs nothing.
//!
//! Like every sketch they steer only: ids are short, and whoever grinds keys can make two of them
//! equal, which a comparison of roots finds out.
//!
//! ```
//! use selfsame::sketch::{PinSketch, ShortId};
//!
//! let ids = |numbers: std::ops::Range<u64>| numbers.filter_map(ShortId::new).collect::<Vec<_>>();
//! let (mut ours, mut theirs) = (PinSketch::new(4), PinSketch::new(4));
//! ours.toggle_all(&ids(1..1_000));
//! theirs.toggle_all(&ids(3..1_001));
//! ours.merge(&theirs);
//! let differing: Vec<u64> = ours.decode()?.into_iter().map(ShortId::get).collect();
//! assert_eq!(differing, [1, 2, 1_000]);
//! assert_eq!(ours.to_bytes().len(), 22);
//! # Ok::<(), selfsame::sketch::PinSketchError>(())
//! ```
//!
//! Adding an id costs c products in the field. Decoding d of them costs O(c²) and O(44 d²), whatever
//! the bytes are: what a peer can make this node spend follows from the capacity, and that from
//! what this node asked for.

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod clmul;
mod field;
mod kernel;

use bitvec::field::BitField;
use bitvec::prelude::{BitSlice, Msb0};

/// Bits of an id, and of a syndrome.
pub const ID_BITS: u32 = field::BITS;
/// Up to this capacity the last syndrome is only a check: a polynomial of a low degree often
/// has all its roots in the field by chance, one of degree d in one of d! cases.
const CHECKED_CAPACITY: usize = 12;

/// A sketch that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PinSketchError {
    /// More members than its capacity, or bytes that are the sketch of nothing.
    #[error("the sketch names no {0} ids or fewer: ask for a larger one, or compare trees")]
    Overfull(usize),
    /// The bytes are not so many syndromes of 44 bits.
    #[error("{bytes} bytes are no sketch of capacity {capacity}: the session goes on without it")]
    Length {
        /// How many there are.
        bytes: usize,
        /// The capacity that was asked for.
        capacity: usize,
    },
}

/// A member of a sketched set: 44 bits that are not all 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShortId(u64);

impl ShortId {
    /// An id of these bits; none if they are 0 or more than 44.
    #[must_use]
    pub const fn new(bits: u64) -> Option<Self> {
        if bits == 0 || bits > field::MASK { None } else { Some(Self(bits)) }
    }

    /// The id of the lowest 44 bits; 1 if they are 0.
    #[must_use]
    pub const fn truncated(bits: u64) -> Self {
        let bits = bits & field::MASK;
        Self(if bits == 0 { 1 } else { bits })
    }

    /// Its bits.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// A sketch of a set of ids: the same for the same set, in whatever order it came to be.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PinSketch(Box<[u64]>);

impl PinSketch {
    /// The sketch of no ids, of so many syndromes: eight bytes of memory each.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self(vec![0; capacity].into_boxed_slice())
    }

    /// Number of syndromes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.len()
    }

    /// How many ids [`PinSketch::decode`] names at most: as many as there are syndromes, one less
    /// where the last one is a check.
    #[must_use]
    pub fn most(&self) -> usize {
        self.capacity() - usize::from((1..=CHECKED_CAPACITY).contains(&self.capacity()))
    }

    /// Adds an id, or takes it away if it is there.
    pub fn toggle(&mut self, id: ShortId) {
        self.toggle_all(&[id]);
    }

    /// Adds ids, each of which is taken away if it is there. Several at once cost less each.
    pub fn toggle_all(&mut self, ids: &[ShortId]) {
        let ids: Vec<u64> = ids.iter().map(|id| id.0).collect();
        toggle(&mut self.0, &ids);
    }

    /// Makes it the sketch of what only one of the two sets holds, of the lesser capacity of both.
    pub fn merge(&mut self, other: &Self) {
        self.truncate(other.capacity());
        for (ours, theirs) in self.0.iter_mut().zip(&other.0) {
            *ours ^= theirs;
        }
    }

    /// Leaves only so many syndromes, if there are more: the sketch of that capacity.
    pub fn truncate(&mut self, capacity: usize) {
        if capacity < self.capacity() {
            self.0 = self.0[..capacity].into();
        }
    }

    /// Whether the set is empty, as far as the sketch knows: a set of more members than its
    /// capacity may look so, too.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|syndrome| *syndrome == 0)
    }

    /// The ids, ascending.
    ///
    /// # Errors
    /// There are more than [`PinSketch::most`]. That more than those look like few happens in one
    /// of `capacity!` cases without a check, in one of 2^44 with one.
    pub fn decode(&self) -> Result<Vec<ShortId>, PinSketchError> {
        let most = self.most();
        let ids = decode(&self.0, most).ok_or(PinSketchError::Overfull(most))?;
        Ok(ids.into_iter().map(ShortId).collect())
    }

    /// The syndromes, 44 bits each, most significant first, without gaps; zero bits fill the last
    /// byte.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; Self::bytes_for(self.capacity())];
        let bits = BitSlice::<u8, Msb0>::from_slice_mut(&mut bytes);
        for (place, syndrome) in bits.chunks_mut(ID_BITS as usize).zip(&self.0) {
            place.store_be(*syndrome);
        }
        bytes
    }

    /// How many bytes a sketch of this capacity has.
    #[must_use]
    pub const fn bytes_for(capacity: usize) -> usize {
        (capacity * ID_BITS as usize).div_ceil(8)
    }

    /// Reads a sketch of the capacity that was asked for. Any syndromes are those of some set.
    ///
    /// # Errors
    /// The length is another, or bits after the last syndrome are not zero.
    pub fn from_bytes(bytes: &[u8], capacity: usize) -> Result<Self, PinSketchError> {
        let wrong = PinSketchError::Length { bytes: bytes.len(), capacity };
        let needed = capacity.checked_mul(ID_BITS as usize).ok_or(wrong)?;
        if bytes.len() != needed.div_ceil(8) {
            return Err(wrong);
        }
        let (bits, rest) = BitSlice::<u8, Msb0>::from_slice(bytes).split_at(needed);
        if rest.any() {
            return Err(wrong);
        }
        Ok(Self(bits.chunks_exact(ID_BITS as usize).map(|bits| bits.load_be()).collect()))
    }
}

fn toggle(syndromes: &mut [u64], ids: &[u64]) {
    #[cfg(target_arch = "x86_64")]
    if clmul::toggle(syndromes, ids) {
        return;
    }
    kernel::toggle::<field::Portable>(syndromes, ids);
}

fn decode(syndromes: &[u64], most: usize) -> Option<Vec<u64>> {
    #[cfg(target_arch = "x86_64")]
    if let Some(decoded) = clmul::decode(syndromes, most) {
        return decoded;
    }
    kernel::decode::<field::Portable>(syndromes, most)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    fn sketch(capacity: usize, ids: impl IntoIterator<Item = u64>) -> PinSketch {
        let mut sketch = PinSketch::new(capacity);
        let ids: Vec<ShortId> = ids.into_iter().filter_map(ShortId::new).collect();
        sketch.toggle_all(&ids);
        sketch
    }

    fn numbers(ids: Vec<ShortId>) -> Vec<u64> {
        ids.into_iter().map(ShortId::get).collect()
    }

    fn set(most: usize) -> impl proptest::strategy::Strategy<Value = BTreeSet<u64>> {
        // many small ones too: neighbours, powers, edges
        let id = prop_oneof![1..=field::MASK, 1..200u64, (0..44u32).prop_map(|bit| 1 << bit)];
        prop::collection::btree_set(id, 0..=most)
    }

    proptest! {
        #[test]
        fn what_only_one_of_two_sets_holds_is_named(
            ours in set(60), theirs in set(60), shared in set(60), capacity in 1usize..80,
        ) {
            let mut merged = sketch(capacity, ours.union(&shared).copied());
            merged.merge(&sketch(capacity + 3, theirs.union(&shared).copied()));
            let ours: BTreeSet<u64> = ours.union(&shared).copied().collect();
            let theirs: BTreeSet<u64> = theirs.union(&shared).copied().collect();
            let differing: Vec<u64> = ours.symmetric_difference(&theirs).copied().collect();
            let found = merged.decode().map(numbers);
            if differing.len() <= merged.most() {
                prop_assert_eq!(found, Ok(differing));
            } else if capacity <= CHECKED_CAPACITY {
                prop_assert_eq!(found, Err(PinSketchError::Overfull(merged.most())));
            }
        }

        #[test]
        fn any_syndromes_are_named_exactly_or_not_at_all(
            syndromes in prop::collection::vec(0..=field::MASK, 1..40), few in any::<bool>(),
        ) {
            let mut given = PinSketch(syndromes.into());
            if few {
                // many of a structure that random ones never have
                let last = given.0.len() - 1;
                given.0[..last].fill(0);
            }
            if let Ok(ids) = given.decode() {
                prop_assert!(ids.len() <= given.most());
                let again = sketch(given.capacity(), ids.iter().map(|id| id.0));
                prop_assert_eq!(again, given);
            }
        }

        #[test]
        fn bytes_come_back(syndromes in prop::collection::vec(0..=field::MASK, 0..40)) {
            let given = PinSketch(syndromes.into());
            let bytes = given.to_bytes();
            let capacity = given.capacity();
            prop_assert_eq!(PinSketch::from_bytes(&bytes, capacity), Ok(given));
            prop_assert!(PinSketch::from_bytes(&bytes, capacity + 2).is_err());
        }

        #[test]
        fn a_sketch_knows_no_order_and_no_grouping(ids in set(50), at in 0usize..50) {
            let (early, late): (Vec<u64>, Vec<u64>) = {
                let all: Vec<u64> = ids.iter().copied().collect();
                let at = at.min(all.len());
                (all[..at].to_vec(), all[at..].to_vec())
            };
            let mut parts = sketch(9, late.into_iter().rev());
            for id in early {
                parts.toggle(ShortId::truncated(id));
            }
            prop_assert_eq!(parts, sketch(9, ids));
        }

        #[test]
        #[cfg(target_arch = "x86_64")]
        fn the_processor_and_portable_code_agree(
            ids in set(70), noise in 0..=field::MASK, capacity in 0usize..70,
        ) {
            let ids: Vec<u64> = ids.into_iter().collect();
            let mut portable = vec![0; capacity];
            kernel::toggle::<field::Portable>(&mut portable, &ids);
            let mut here = vec![0; capacity];
            prop_assume!(clmul::toggle(&mut here, &ids));
            prop_assert_eq!(&here, &portable);
            let decoded = kernel::decode::<field::Portable>(&portable, capacity);
            prop_assert_eq!(clmul::decode(&here, capacity), Some(decoded));
            if let Some(first) = here.first_mut() {
                *first ^= noise;
                let decoded = kernel::decode::<field::Portable>(&here, capacity);
                prop_assert_eq!(clmul::decode(&here, capacity), Some(decoded));
            }
        }
    }

    #[test]
    fn sketches_of_nothing_name_nothing() {
        for capacity in [0, 1, 2, 30] {
            assert_eq!(PinSketch::new(capacity).decode(), Ok(vec![]));
        }
        assert_eq!(PinSketch::from_bytes(&[], 0), Ok(PinSketch::new(0)));
        assert!(PinSketch::from_bytes(&[0; 6], usize::MAX).is_err());
        assert!(PinSketch::from_bytes(&[0, 0, 0, 0, 0, 1], 1).is_err(), "bits that are none");
    }
}
