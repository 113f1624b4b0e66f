//! Short ids of subtrees and leaves, for steering.
//!
//! Multilinear hashing (Carter and Wegman, 1979; Lemire and Kaser, 2014) with a key of the session
//! and of the descent: two different hashes have the same id of w bits with a chance of 2^-w,
//! whoever chose them, since whoever could choose does not know the key. It costs a few
//! multiplications. A pair that does meet by chance hides a difference for one descent.

use crate::hash::{HASH_LEN, TreeHash};
use crate::merkle::Leaf;

/// Words of 64 bits of what is hashed, at most: a key hash and a record digest.
const WORDS: usize = 2 * HASH_LEN / 8;
/// Bits of an id beyond those that the number of ids takes.
const MARGIN_BITS: u8 = 24;
/// Bits of an id at most.
pub(super) const MOST_BITS: u8 = 56;

/// Bits of ids when so many of them travel together.
pub(super) const fn width(ids: usize) -> u8 {
    let log = usize::BITS - ids.saturating_sub(1).leading_zeros();
    let width = MARGIN_BITS + log as u8;
    if width > MOST_BITS { MOST_BITS } else { width }
}

/// The key of the ids of one descent.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct ShortIds {
    factors: [u128; WORDS],
    offset: u128,
}

impl ShortIds {
    /// From a key of the session, for one of its descents.
    pub(super) fn new(key: &[u8; 32], attempt: u8) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(key);
        hasher.update(&[attempt]);
        let mut stream = hasher.finalize_xof();
        let mut next = || {
            let mut bytes = [0; 16];
            stream.fill(&mut bytes);
            u128::from_le_bytes(bytes)
        };
        let offset = next();
        Self { factors: std::array::from_fn(|_| next()), offset }
    }

    fn id<'a>(&self, hashes: impl IntoIterator<Item = &'a [u8; HASH_LEN]>) -> u64 {
        let words = hashes.into_iter().flat_map(|hash| hash.as_chunks::<8>().0);
        let sum = words.zip(&self.factors).fold(self.offset, |sum, (word, factor)| {
            sum.wrapping_add(factor.wrapping_mul(u128::from(u64::from_le_bytes(*word))))
        });
        (sum >> 64) as u64
    }

    /// The id of a subtree, in its highest bits.
    pub(super) fn subtree(&self, hash: &TreeHash) -> u64 {
        self.id([&hash.0])
    }

    /// The id of a leaf.
    pub(super) fn leaf(&self, leaf: &Leaf) -> u64 {
        self.id([&leaf.key.0, &leaf.record.0])
    }
}

/// The `width` highest bits of an id.
pub(super) const fn cut(id: u64, width: u8) -> u64 {
    if width == 0 { 0 } else { id >> (64 - width) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_by_key_and_descent_and_meet_by_chance_alone() {
        let hash = |at: u32| TreeHash(blake3::hash(&at.to_le_bytes()).into());
        let ids = ShortIds::new(&[1; 32], 0);
        assert_ne!(ids, ShortIds::new(&[1; 32], 1));
        assert_ne!(ids, ShortIds::new(&[2; 32], 0));
        // 20,000 pairs of 16 bits: 0.3 meet, in the mean
        let pairs = (0..20_000).map(|at| (hash(2 * at), hash(2 * at + 1)));
        let meet = pairs.filter(|(a, b)| cut(ids.subtree(a), 16) == cut(ids.subtree(b), 16));
        assert!(meet.count() < 5);
        // hashes that differ in one bit
        let mut near = hash(7);
        near.0[31] ^= 1;
        assert_ne!(cut(ids.subtree(&near), 32), cut(ids.subtree(&hash(7)), 32));
    }

    #[test]
    fn ids_have_24_bits_more_than_their_number_takes() {
        assert_eq!([1, 2, 15, 16, 1_000].map(width), [24, 25, 28, 28, 34]);
        assert_eq!(width(usize::MAX), MOST_BITS);
    }
}
