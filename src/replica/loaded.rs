//! Pages of live trees that are in memory: so many for the whole node, whatever it holds.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::merkle::{PagedTree, Prefix};

/// The pages of one tree that came into memory, the oldest first.
///
/// Those that grew into others or fell apart since stay listed until it is their turn.
pub(super) struct LoadedPages {
    order: VecDeque<Prefix>,
    listed: BTreeSet<Prefix>,
    /// Pages listed for all trees of the node.
    all: Arc<AtomicUsize>,
}

impl LoadedPages {
    pub(super) const fn new(all: Arc<AtomicUsize>) -> Self {
        Self { order: VecDeque::new(), listed: BTreeSet::new(), all }
    }

    /// Lists what came into memory, and drops the oldest of this tree while the node has more
    /// than `most`. The tree must be as the store has it.
    pub(super) fn bound(&mut self, tree: &mut PagedTree, most: usize) {
        for prefix in tree.take_loaded() {
            if self.listed.insert(prefix) {
                self.order.push_back(prefix);
                self.all.fetch_add(1, Ordering::Relaxed);
            }
        }
        while self.all.load(Ordering::Relaxed) > most {
            let Some(prefix) = self.order.pop_front() else { return };
            self.listed.remove(&prefix);
            self.all.fetch_sub(1, Ordering::Relaxed);
            tree.seal(&prefix);
        }
    }
}

impl Drop for LoadedPages {
    fn drop(&mut self) {
        self.all.fetch_sub(self.order.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::entry::Totals;
    use crate::hash::{HashAlgorithm, KeyHash, RecordDigest};
    use crate::merkle::Leaf;

    fn leaf(number: u64) -> Leaf {
        let hash = *blake3::hash(&number.to_le_bytes()).as_bytes();
        let totals = Totals { entries: 1, siblings: 1, bytes: 1, latest: crate::clock::Stamp(1) };
        Leaf { key: KeyHash(hash), record: RecordDigest(hash), totals }
    }

    #[test]
    fn a_node_keeps_so_many_pages_in_memory_and_its_trees_stay_the_same() {
        let all = Arc::<AtomicUsize>::default();
        let mut trees = [0, 1].map(|_| PagedTree::new(HashAlgorithm::Blake3, 4));
        let mut loaded = [0, 1].map(|_| LoadedPages::new(Arc::clone(&all)));
        let (mut whole, mut leaves) = (PagedTree::new(HashAlgorithm::Blake3, 4), Vec::new());
        for number in 0..500 {
            let leaf = leaf(number);
            leaves.push(leaf);
            whole.put(leaf).unwrap();
            for (tree, loaded) in trees.iter_mut().zip(&mut loaded) {
                while let Err(sealed) = tree.put(leaf) {
                    let inside = leaves.iter().filter(|leaf| sealed.0.contains(&leaf.key));
                    let stored = inside.filter(|stored| stored.key != leaf.key).copied();
                    tree.unseal(&sealed.0, stored.collect()).unwrap();
                }
                tree.take_page_changes();
                loaded.bound(tree, 16);
                assert!(all.load(Ordering::Relaxed) <= 16);
                assert_eq!(tree.tree_hash(), whole.tree_hash());
            }
        }
        for tree in &trees {
            assert!(tree.rows().count() - tree.sealed_pages() <= 16);
        }
        let [first, _] = loaded;
        let before = all.load(Ordering::Relaxed);
        drop(first);
        assert!(all.load(Ordering::Relaxed) <= before, "a tree that is gone counts no pages");
    }
}
