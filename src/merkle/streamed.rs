//! The tree hash of leaves that come one by one: for whoever reads a collection that is larger
//! than memory.
//!
//! ```
//! use selfsame::entry::Totals;
//! use selfsame::hash::{HashAlgorithm, KeyHash, RecordDigest};
//! use selfsame::merkle::{Leaf, StreamedTree, Tree};
//!
//! let leaf = |byte| Leaf {
//!     key: KeyHash([byte; 32]),
//!     record: RecordDigest([byte; 32]),
//!     totals: Totals { entries: 1, siblings: 1, ..Totals::default() },
//! };
//! let mut streamed = StreamedTree::new(HashAlgorithm::Blake3);
//! let mut whole = Tree::new(HashAlgorithm::Blake3);
//! for byte in [3, 4, 200] {
//!     assert!(streamed.push(&leaf(byte)));
//!     whole.put(leaf(byte));
//! }
//! assert_eq!(streamed.tree_hash(), whole.tree_hash());
//! ```

use super::tree::Leaf;
use crate::entry::Totals;
use crate::hash::{HashAlgorithm, KeyHash, TreeHash};

/// Hashes a tree while its leaves pass by in the order of their keys. Holds no leaf but the last:
/// at most 256 hashes of what stands left of it.
#[derive(Clone, Debug)]
pub struct StreamedTree {
    algorithm: HashAlgorithm,
    /// Subtrees that are whole, each with the bit at which its right side goes on; ascending.
    left: Vec<(u8, TreeHash)>,
    /// Key of the last leaf, and the hash of what is whole with it.
    last: Option<(KeyHash, TreeHash)>,
    totals: Totals,
}

impl StreamedTree {
    /// The tree of no leaves.
    #[must_use]
    pub fn new(algorithm: HashAlgorithm) -> Self {
        Self { algorithm, left: Vec::new(), last: None, totals: Totals::default() }
    }

    /// The next leaf; false, and nothing is changed, unless its key is greater than the last.
    /// O(1) hashes on average, at most 256.
    #[must_use]
    pub fn push(&mut self, leaf: &Leaf) -> bool {
        let hash = self.algorithm.leaf(&leaf.key, &leaf.record);
        if let Some((last, whole)) = self.last {
            let Some(bit) = last.first_difference(&leaf.key).filter(|_| last < leaf.key) else {
                return false;
            };
            let whole = self.fold(whole, Some(bit));
            self.left.push((bit, whole));
        }
        self.last = Some((leaf.key, hash));
        self.totals = self.totals.plus(leaf.totals);
        true
    }

    /// Joins what is whole below a bit.
    fn fold(&mut self, mut whole: TreeHash, below: Option<u8>) -> TreeHash {
        while let Some((bit, left)) =
            self.left.pop_if(|(bit, _)| below.is_none_or(|below| *bit > below))
        {
            whole = self.algorithm.inner(bit, &left, &whole);
        }
        whole
    }

    /// Tree hash of all leaves that came.
    #[must_use]
    pub fn tree_hash(&self) -> TreeHash {
        match self.last {
            Some((_, whole)) => self.clone().fold(whole, None),
            None => self.algorithm.empty(),
        }
    }

    /// Totals of all leaves that came.
    #[must_use]
    pub const fn totals(&self) -> Totals {
        self.totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::RecordDigest;
    use crate::merkle::Tree;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn streamed_or_whole_it_is_one_tree(
            keys in prop::collection::btree_set(prop::collection::vec(0_u8..4, 3), 0..40),
        ) {
            for algorithm in [HashAlgorithm::Blake3, HashAlgorithm::Sha256] {
                let (mut streamed, mut whole) = (StreamedTree::new(algorithm), Tree::new(algorithm));
                for key in &keys {
                    let mut hash = [0; 32];
                    hash[..3].copy_from_slice(key);
                    let totals = Totals { entries: 1, siblings: 1, ..Totals::default() };
                    let (key, record) = (KeyHash(hash), RecordDigest(hash));
                    let leaf = Leaf { key, record, totals };
                    prop_assert!(streamed.push(&leaf));
                    prop_assert!(!streamed.push(&leaf), "twice");
                    whole.put(leaf);
                }
                prop_assert_eq!(streamed.tree_hash(), whole.tree_hash());
                prop_assert_eq!(streamed.totals().entries, keys.len() as u64);
            }
        }
    }
}
