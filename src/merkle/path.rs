//! The path of a proof: the bit indices at which the nodes from the top to a leaf split.

use std::fmt;

use bitvec::prelude::{BitSlice, Msb0};
use bitvec::view::BitView;

use crate::hash::{HASH_LEN, HashAlgorithm, KeyHash, TreeHash};

/// Bit indices on the way from the top of a tree to a leaf, as a bitmap of 256 bits.
///
/// Directions are not in it: they come from the key that is asked for, since every inner node
/// binds its bit index.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Path([u8; HASH_LEN]);

impl Path {
    /// From a bitmap of at most 32 bytes; none when it is longer.
    pub(super) fn from_bitmap(bitmap: &[u8]) -> Option<Self> {
        let mut bytes = [0; HASH_LEN];
        bytes.get_mut(..bitmap.len())?.copy_from_slice(bitmap);
        Some(Self(bytes))
    }

    /// The bitmap without zero bytes at its end.
    pub(super) fn bitmap(&self) -> &[u8] {
        let len = self.0.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        &self.0[..len]
    }

    pub(super) fn insert(&mut self, bit: u8) {
        self.0[usize::from(bit / 8)] |= 0x80 >> (bit % 8);
    }

    /// Number of nodes on the path, 0 to 256.
    pub(super) fn len(&self) -> usize {
        self.bits().count_ones()
    }

    /// The deepest bit index.
    pub(super) fn last(&self) -> Option<u8> {
        self.deepest_first().next()
    }

    /// The indices that are less than `bits`.
    pub(super) fn above(mut self, bits: u16) -> Self {
        self.0.view_bits_mut::<Msb0>()[usize::from(bits.min(256))..].fill(false);
        self
    }

    /// Whether two keys go the same way at every node of the path.
    pub(super) fn is_shared_by(&self, a: &KeyHash, b: &KeyHash) -> bool {
        self.0.iter().zip(&a.0).zip(&b.0).all(|((path, a), b)| path & (a ^ b) == 0)
    }

    /// Hashes upwards from the hash at the end of the path, in the directions of `key`;
    /// `siblings` deepest first, one for each index.
    pub(super) fn fold(
        &self,
        algorithm: HashAlgorithm,
        key: &KeyHash,
        end: TreeHash,
        siblings: &[TreeHash],
    ) -> TreeHash {
        self.deepest_first().zip(siblings).fold(end, |hash, (bit, sibling)| {
            if key.bit(bit) {
                algorithm.inner(bit, sibling, &hash)
            } else {
                algorithm.inner(bit, &hash, sibling)
            }
        })
    }

    // by hand: walking ones backwards underflows in bitvec 1.1 once none is left
    fn deepest_first(&self) -> impl Iterator<Item = u8> {
        let bytes = self.bitmap().iter().enumerate().rev().filter(|(_, byte)| **byte != 0);
        bytes.flat_map(|(at, byte)| {
            let bits = (0..8).rev().filter(move |bit| byte & (0x80 >> bit) != 0);
            bits.map(move |bit| (at * 8) as u8 + bit)
        })
    }

    fn bits(&self) -> &BitSlice<u8, Msb0> {
        self.0.view_bits()
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.bits().iter_ones()).finish()
    }
}
