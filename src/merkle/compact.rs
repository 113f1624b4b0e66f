//! Giving memory back: slots that fell vacant are used again, but a tree that lost most of its
//! leaves would keep the memory of all that it ever had. What is left of it moves then.

use super::slots::{Kind, NodeId, Split};
use super::trie::Trie;

/// Slots that are or were in use may take so many times the bytes of those in use.
const MOST_TIMES: usize = 4;
/// So much besides: what is less is not worth a move.
const MOST_BYTES: usize = 64 << 10;

impl Trie {
    /// Moves all that is in use to memory of its own, if far more is vacant: O(1) on average, since
    /// three times as much went before. While a clone has the same memory nothing could be given
    /// back, so it stays.
    pub(super) fn give_back(&mut self) {
        let used = self.bunches.used_bytes() + self.inners.used_bytes() + self.sealed.used_bytes();
        let filled =
            self.bunches.filled_bytes() + self.inners.filled_bytes() + self.sealed.filled_bytes();
        if filled > MOST_TIMES * used + MOST_BYTES && !self.bunches.are_shared() {
            *self = self.compact();
        }
    }

    fn compact(&self) -> Self {
        let mut compact = Self::new(self.algorithm, self.page_leaves);
        compact.top = self.top.map(|top| compact.copy(self, top));
        compact.top_hash = self.top_hash;
        compact
    }

    /// Puts a subtree of another trie here, the least keys first.
    fn copy(&mut self, from: &Self, id: NodeId) -> NodeId {
        match id.kind() {
            Kind::Bunch(id) => NodeId::bunch(self.bunches.copy(&from.bunches, id)),
            Kind::Sealed(index) => NodeId::sealed(self.sealed.insert(*from.sealed.slot(index))),
            Kind::Inner(index) => {
                let split = *from.inners.split(index);
                let [left, right] = [split.left, split.right].map(|side| self.copy(from, side));
                let amounts = *from.inners.amounts(index);
                let copy = self.inners.insert(Split { left, right, ..split }, amounts);
                *self.inners.line_mut(copy) = *from.inners.line(index);
                NodeId::inner(copy)
            }
        }
    }
}
