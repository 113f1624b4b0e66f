//! Entries with more than one sibling, found by the totals of the subtrees above them.

use std::ops::Range;

use super::bunches::{BunchId, Spot};
use super::paged::PagedTree;
use super::shape::Sealed;
use super::slots::{Kind, NodeId};
use super::tree::Leaf;
use super::trie::Trie;
use crate::hash::KeyHash;

impl PagedTree {
    /// The leaves with more than one sibling, ascending by key, that come after a key; a sealed
    /// page which has such leaves is one error in their place, and some of its leaves may come
    /// before that key.
    ///
    /// Only subtrees with more siblings than entries are entered: O(1) where there are none, else
    /// O(depth) for each leaf or page.
    #[must_use]
    pub fn crowded_after(&self, after: Option<&KeyHash>) -> Crowded<'_> {
        let trie = self.trie();
        let bounded = after.is_some();
        let waiting = trie.top.iter().map(|top| (*top, bounded)).collect();
        Crowded { trie, after: after.copied(), waiting, bunch: None }
    }
}

/// Leaves of a [`PagedTree`] with more than one sibling.
#[derive(Clone)]
pub struct Crowded<'a> {
    trie: &'a Trie,
    after: Option<KeyHash>,
    /// Nodes that wait, and whether some of their keys may not come after the bound.
    waiting: Vec<(NodeId, bool)>,
    /// What is left of a bunch.
    bunch: Option<(BunchId, Range<usize>)>,
}

impl Crowded<'_> {
    /// Whether the key comes after the bound.
    fn comes(&self, key: &KeyHash) -> bool {
        self.after.is_none_or(|after| *key > after)
    }

    fn next_of_bunch(&mut self) -> Option<Leaf> {
        let (id, mut left) = self.bunch.take()?;
        let leaves =
            left.by_ref().map(|at| self.trie.bunches.leaf(Spot { bunch: id, at: at as u8 }));
        let found =
            leaves.into_iter().find(|leaf| leaf.totals.siblings > 1 && self.comes(&leaf.key));
        self.bunch = found.map(|_| (id, left));
        found
    }

    fn enter(&mut self, index: u32, bounded: bool) {
        let inner = self.trie.inners.split(index);
        let Some(after) = self.after.filter(|_| bounded) else {
            return self.waiting.extend([(inner.right, false), (inner.left, false)]);
        };
        let sample = self.trie.sample(inner.left);
        match after.first_difference(&sample) {
            // the bound stands beside all of these keys
            Some(bit) if bit < inner.bit => {
                if sample > after {
                    self.waiting.extend([(inner.right, false), (inner.left, false)]);
                }
            }
            _ if after.bit(inner.bit) => self.waiting.push((inner.right, true)),
            _ => self.waiting.extend([(inner.right, false), (inner.left, true)]),
        }
    }
}

impl Iterator for Crowded<'_> {
    type Item = Result<Leaf, Sealed>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(leaf) = self.next_of_bunch() {
                return Some(Ok(leaf));
            }
            let (id, bounded) = self.waiting.pop()?;
            let totals = self.trie.totals(id);
            if totals.siblings <= totals.entries {
                continue;
            }
            match id.kind() {
                Kind::Bunch(id) => self.bunch = Some((id, 0..self.trie.bunches.bunch(id).len())),
                Kind::Sealed(index) => {
                    let prefix = self.trie.sealed.slot(index).prefix;
                    let around = self.after.is_some_and(|after| prefix.contains(&after));
                    if around || self.comes(&prefix.first_key()) {
                        return Some(Err(Sealed(prefix)));
                    }
                }
                Kind::Inner(index) => self.enter(index, bounded),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::clock::Stamp;
    use crate::entry::Totals;
    use crate::hash::{HashAlgorithm, RecordDigest};

    fn leaf(number: u64) -> Leaf {
        let hash = *blake3::hash(&number.to_le_bytes()).as_bytes();
        let siblings = if number.is_multiple_of(7) { 2 } else { 1 };
        let totals = Totals { entries: 1, siblings, bytes: 1, latest: Stamp(1) };
        Leaf { key: KeyHash(hash), record: RecordDigest(hash), totals }
    }

    /// What is found after a bound, with pages loaded where they are asked for.
    fn found(tree: &PagedTree, leaves: &[Leaf], after: Option<&KeyHash>) -> Vec<KeyHash> {
        let mut keys = Vec::new();
        for one in tree.crowded_after(after) {
            match one {
                Ok(leaf) => keys.push(leaf.key),
                Err(Sealed(prefix)) => keys.extend(
                    leaves
                        .iter()
                        .filter(|leaf| prefix.contains(&leaf.key) && leaf.totals.siblings > 1)
                        .map(|leaf| leaf.key)
                        .filter(|key| after.is_none_or(|after| key > after)),
                ),
            }
        }
        keys
    }

    #[test]
    fn all_and_only_the_crowded_ones_after_any_key_are_found() {
        let mut leaves: Vec<Leaf> = (0..500).map(leaf).collect();
        let built = PagedTree::build(HashAlgorithm::Blake3, 8, leaves.clone()).unwrap();
        let sealed = PagedTree::from_rows(HashAlgorithm::Blake3, 8, built.rows()).unwrap();
        leaves.sort_unstable_by_key(|leaf| leaf.key);
        let crowded: Vec<KeyHash> =
            leaves.iter().filter(|leaf| leaf.totals.siblings > 1).map(|leaf| leaf.key).collect();
        for tree in [&built, &sealed] {
            assert_eq!(found(tree, &leaves, None), crowded);
            for bound in leaves.iter().map(|leaf| leaf.key).chain([
                KeyHash([0; 32]),
                KeyHash([0x80; 32]),
                KeyHash([255; 32]),
            ]) {
                let rest: Vec<_> = crowded.iter().copied().filter(|key| *key > bound).collect();
                assert_eq!(found(tree, &leaves, Some(&bound)), rest);
            }
        }
    }

    #[test]
    fn where_there_are_none_nothing_is_entered() {
        let leaves: Vec<Leaf> = (0..500).filter(|at| at % 7 != 0).map(leaf).collect();
        let built = PagedTree::build(HashAlgorithm::Blake3, 8, leaves).unwrap();
        let sealed = PagedTree::from_rows(HashAlgorithm::Blake3, 8, built.rows()).unwrap();
        assert_eq!(sealed.crowded_after(None).count(), 0);
    }
}
