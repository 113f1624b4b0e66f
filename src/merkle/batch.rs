//! Hashing what a change touched: every leaf and inner node once, children before parents.

use super::slots::{Kind, NodeId, half};
use super::trie::Trie;
use crate::hash::TreeHash;

/// Where a hash goes: a side of an inner node, or nowhere in the trie (it is handed back).
#[derive(Clone, Copy)]
pub(super) enum Target {
    Child(u32, bool),
    Top,
}

/// Nodes whose hash is due, children before parents, and at most one for the top.
#[derive(Default)]
pub(super) struct Jobs {
    due: Vec<(NodeId, Target)>,
    inner_hashes: usize,
}

impl Jobs {
    pub(super) fn push(&mut self, node: NodeId, target: Target) {
        if matches!(node.kind(), Kind::Inner(_)) {
            self.inner_hashes += 1;
        }
        self.due.push((node, target));
    }

    /// Inner nodes among the jobs.
    pub(super) const fn inner_hashes(&self) -> usize {
        self.inner_hashes
    }

    /// Hashes all; the hash of the node for the top, if there is one.
    pub(super) fn run(self, trie: &mut Trie) -> Option<TreeHash> {
        let mut top = None;
        for (node, target) in self.due {
            let hash = hash_node(trie, node);
            match target {
                Target::Child(inner, right) => {
                    trie.inners.slot_mut(inner).set_child_hash(right, &hash);
                }
                Target::Top => top = Some(hash),
            }
        }
        top
    }
}

fn hash_node(trie: &Trie, node: NodeId) -> TreeHash {
    match node.kind() {
        Kind::Leaf(index) => {
            let leaf = trie.leaves.slot(index);
            trie.algorithm.leaf(&leaf.key(), &leaf.record())
        }
        Kind::Inner(index) => {
            let inner = trie.inners.slot(index);
            let (left, right) = (half(&inner.line, false), half(&inner.line, true));
            trie.algorithm.inner(inner.bit, &TreeHash(left), &TreeHash(right))
        }
        Kind::Sealed(_) => unreachable!("the hash of a sealed page is never due"),
    }
}
