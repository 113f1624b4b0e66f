//! The slots of which the upper part of a tree consists, and the ids that name subtrees.
//!
//! A node's hash stands in the line of its parent: the two hashes of an inner node's children
//! are then its preimage in place, as key hash and record digest are that of a leaf.

use super::arena::{Arena, Slot};
use super::bunch::Span;
use super::bunches::BunchId;
use super::shape::Prefix;
use super::tree::Leaf;
use crate::clock::Stamp;
use crate::entry::Totals;
use crate::hash::{Block, HASH_LEN, TreeHash};

/// Most leaves of a tree, and most slots of a kind that an id can name.
pub(super) const MAX_SLOTS: u32 = 1 << 30;

/// A subtree: an inner node of its own, a bunch of leaves, or a page that is not in memory.
///
/// Inner nodes and sealed pages have their kind in the two highest bits, bunches in one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct NodeId(u32);

/// What a node id names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Bunch(BunchId),
    Inner(u32),
    Sealed(u32),
}

impl NodeId {
    pub(super) const fn bunch(id: BunchId) -> Self {
        Self(id.0)
    }

    pub(super) const fn inner(index: u32) -> Self {
        Self(index | (2 * MAX_SLOTS))
    }

    pub(super) const fn sealed(index: u32) -> Self {
        Self(index | (3 * MAX_SLOTS))
    }

    #[inline]
    pub(super) const fn kind(self) -> Kind {
        let index = self.0 & (MAX_SLOTS - 1);
        match self.0 / MAX_SLOTS {
            2 => Kind::Inner(index),
            3 => Kind::Sealed(index),
            _ => Kind::Bunch(BunchId(self.0)),
        }
    }
}

/// A node of a tree, as [`Shape`](super::Shape) walks it. It belongs to the state of the tree that
/// gave it out: after a change it may name another node, or none (which panics).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TreeNode {
    pub(super) id: NodeId,
    /// The inner node in whose line the hash of `id` stands, and on which side; none at the top.
    pub(super) parent: Option<(u32, bool)>,
    /// The leaves of a bunch below the node; all of them at the bunch itself.
    pub(super) leaves: Span,
}

impl TreeNode {
    pub(super) const fn whole(id: NodeId, parent: Option<(u32, bool)>) -> Self {
        Self { id, parent, leaves: Span::ALL }
    }
}

/// What is kept of a subtree beside its hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Sums {
    pub(super) totals: Totals,
    pub(super) depth: u16,
}

/// What changes do to the totals of every subtree around them.
#[derive(Clone, Copy, Default)]
pub(super) struct Delta {
    entries: i64,
    // sums of many numbers of 64 bits
    siblings: i128,
    bytes: i128,
    /// Greatest stamp of what came.
    came: Stamp,
    /// Greatest stamp of what went.
    went: Option<Stamp>,
}

impl Delta {
    /// One leaf gives way to another, or either of them to nothing.
    pub(super) fn between(old: Option<&Totals>, new: Option<&Totals>) -> Self {
        if old == new {
            return Self::default();
        }
        let signed = |of: fn(&Totals) -> u64| {
            let amount =
                |totals: Option<&Totals>| totals.map_or(0, |totals| i128::from(of(totals)));
            amount(new) - amount(old)
        };
        Self {
            entries: i64::from(new.is_some()) - i64::from(old.is_some()),
            siblings: signed(|totals| totals.siblings),
            bytes: signed(|totals| totals.bytes),
            came: new.map_or(Stamp(0), |totals| totals.latest),
            went: old.map(|totals| totals.latest),
        }
    }

    pub(super) fn and(self, other: &Self) -> Self {
        Self {
            entries: self.entries + other.entries,
            siblings: self.siblings + other.siblings,
            bytes: self.bytes + other.bytes,
            came: self.came.max(other.came),
            went: self.went.max(other.went),
        }
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.entries == 0 && self.siblings == 0 && self.bytes == 0 && self.went.is_none()
    }
}

/// Two hashes one after the other: the preimage of a leaf or an inner node. Alone in its line of
/// the cache.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Line(pub(super) Block);

impl Line {
    pub(super) const EMPTY: Self = Self([0; 2 * HASH_LEN]);

    pub(super) fn new(first: &[u8; HASH_LEN], second: &[u8; HASH_LEN]) -> Self {
        let mut line = Self::EMPTY;
        line.set(first, second);
        line
    }

    #[inline]
    pub(super) fn set(&mut self, first: &[u8; HASH_LEN], second: &[u8; HASH_LEN]) {
        self.set_half(false, first);
        self.set_half(true, second);
    }

    #[inline]
    pub(super) fn half(&self, second: bool) -> &[u8; HASH_LEN] {
        let (halves, _) = self.0.as_chunks::<HASH_LEN>();
        &halves[usize::from(second)]
    }

    #[inline]
    pub(super) fn set_half(&mut self, second: bool, half: &[u8; HASH_LEN]) {
        let (halves, _) = self.0.as_chunks_mut::<HASH_LEN>();
        halves[usize::from(second)] = *half;
    }
}

impl Slot for Line {
    fn vacant(next: u32) -> Self {
        let mut line = Self::EMPTY;
        line.0[..4].copy_from_slice(&next.to_le_bytes());
        line
    }

    fn next_vacant(&self) -> u32 {
        u32::from_le_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }
}

/// The totals that the tree takes for a leaf's.
pub(super) fn totals_of(leaf: &Leaf) -> Totals {
    Totals { entries: 1, siblings: leaf.totals.siblings.max(1), ..leaf.totals }
}

/// What a walk reads of an inner node: 12 bytes, five to a cache line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) left: NodeId,
    pub(super) right: NodeId,
    pub(super) depth: u16,
    pub(super) bit: u8,
}

impl Split {
    #[inline]
    pub(super) const fn child(&self, right: bool) -> NodeId {
        if right { self.right } else { self.left }
    }
}

impl Slot for Split {
    fn vacant(next: u32) -> Self {
        let link = NodeId(next);
        Self { left: link, right: link, depth: 0, bit: 0 }
    }

    fn next_vacant(&self) -> u32 {
        self.left.0
    }
}

/// Totals of an inner node: 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Amounts {
    siblings: u64,
    bytes: u64,
    latest: Stamp,
    entries: u32,
}

impl Amounts {
    pub(super) fn of(totals: &Totals) -> Self {
        let Totals { entries, siblings, bytes, latest } = *totals;
        let entries = u32::try_from(entries).unwrap_or(u32::MAX);
        assert!(entries <= MAX_SLOTS, "a tree holds at most 2^30 leaves");
        Self { siblings, bytes, latest, entries }
    }

    pub(super) const fn entries(&self) -> u32 {
        self.entries
    }

    pub(super) fn totals(&self) -> Totals {
        let Self { siblings, bytes, latest, entries } = *self;
        Totals { entries: u64::from(entries), siblings, bytes, latest }
    }

    /// After a change; none when that cannot be told without the children.
    pub(super) fn with(&self, delta: &Delta) -> Option<Self> {
        let latest = match delta.went {
            _ if delta.came >= self.latest => delta.came,
            Some(went) if went >= self.latest => return None,
            _ => self.latest,
        };
        // a sum that was cut off does not tell what it is the sum of
        let changed = |all: u64, by: i128| {
            let sum = (all < u64::MAX).then(|| i128::from(all) + by)?;
            Some(u64::try_from(sum.max(0)).unwrap_or(u64::MAX))
        };
        Some(Self {
            siblings: changed(self.siblings, delta.siblings)?,
            bytes: changed(self.bytes, delta.bytes)?,
            latest,
            entries: u32::try_from(i64::from(self.entries) + delta.entries).ok()?,
        })
    }
}

impl Slot for Amounts {
    fn vacant(next: u32) -> Self {
        Self { siblings: u64::from(next), bytes: 0, latest: Stamp(0), entries: 0 }
    }

    fn next_vacant(&self) -> u32 {
        self.siblings as u32
    }
}

/// Inner nodes above the bunches: there are 45,000 of them among a million leaves, and all walks
/// pass them. In three arenas that give out the same indices: a walk down passes over splits only,
/// which fit into a core's own cache.
#[derive(Clone)]
pub(super) struct Inners {
    splits: Arena<Split>,
    // hashes of the left and of the right child
    lines: Arena<Line>,
    amounts: Arena<Amounts>,
}

impl Inners {
    pub(super) const fn new() -> Self {
        Self { splits: Arena::new(), lines: Arena::new(), amounts: Arena::new() }
    }

    pub(super) fn bytes(&self) -> usize {
        self.splits.bytes() + self.lines.bytes() + self.amounts.bytes()
    }

    /// Bytes of the slots in use.
    pub(super) const fn used_bytes(&self) -> usize {
        self.splits.used_bytes() + self.lines.used_bytes() + self.amounts.used_bytes()
    }

    /// Bytes of the slots that are or were in use.
    pub(super) const fn filled_bytes(&self) -> usize {
        self.splits.filled_bytes() + self.lines.filled_bytes() + self.amounts.filled_bytes()
    }

    #[inline]
    pub(super) fn split(&self, index: u32) -> &Split {
        self.splits.slot(index)
    }

    #[inline]
    pub(super) fn line(&self, index: u32) -> &Line {
        self.lines.slot(index)
    }

    #[inline]
    pub(super) fn line_mut(&mut self, index: u32) -> &mut Line {
        self.lines.slot_mut(index)
    }

    pub(super) fn child(&self, index: u32, right: bool) -> TreeNode {
        TreeNode::whole(self.split(index).child(right), Some((index, right)))
    }

    pub(super) fn child_hash(&self, index: u32, right: bool) -> TreeHash {
        TreeHash(*self.line(index).half(right))
    }

    #[inline]
    pub(super) fn amounts(&self, index: u32) -> &Amounts {
        self.amounts.slot(index)
    }

    /// A new node, whose children's hashes are still to be set.
    pub(super) fn insert(&mut self, split: Split, amounts: Amounts) -> u32 {
        self.lines.insert(Line::EMPTY);
        self.amounts.insert(amounts);
        self.splits.insert(split)
    }

    /// The index of the next node to be appended.
    pub(super) const fn next(&self) -> u32 {
        self.splits.filled()
    }

    /// Appends nodes to slots that were never used.
    pub(super) fn append(&mut self, nodes: &[(Split, Amounts)], lines: impl Fn(usize) -> Line) {
        self.splits.append(nodes.len(), |at| nodes[at].0);
        self.amounts.append(nodes.len(), |at| nodes[at].1);
        self.lines.append(nodes.len(), lines);
    }

    /// Sets what a node consists of but for its hashes. Writes only what is not as it should be:
    /// chunks that stay as they are stay shared.
    pub(super) fn update(&mut self, index: u32, split: Split, amounts: Amounts) {
        self.set_amounts(index, &amounts);
        if *self.split(index) != split {
            *self.splits.slot_mut(index) = split;
        }
    }

    pub(super) fn set_amounts(&mut self, index: u32, amounts: &Amounts) {
        if self.amounts.slot(index) != amounts {
            *self.amounts.slot_mut(index) = *amounts;
        }
    }

    pub(super) fn set_child(&mut self, index: u32, right: bool, id: NodeId) {
        let split = self.splits.slot_mut(index);
        *(if right { &mut split.right } else { &mut split.left }) = id;
    }

    pub(super) fn set_depth(&mut self, index: u32, depth: u16) {
        if self.split(index).depth != depth {
            self.splits.slot_mut(index).depth = depth;
        }
    }

    pub(super) fn set_child_hash(&mut self, index: u32, right: bool, hash: &TreeHash) {
        if *self.line(index).half(right) != hash.0 {
            self.line_mut(index).set_half(right, &hash.0);
        }
    }

    pub(super) fn remove(&mut self, index: u32) {
        self.splits.remove(index);
        self.lines.remove(index);
        self.amounts.remove(index);
    }
}

/// A subtree that is not in memory.
#[derive(Clone, Copy)]
pub(super) struct SealedSlot {
    pub(super) prefix: Prefix,
    pub(super) sums: Sums,
}

impl Slot for SealedSlot {
    fn vacant(next: u32) -> Self {
        let totals = Totals { entries: u64::from(next), ..Totals::default() };
        Self { prefix: Prefix::ALL, sums: Sums { totals, depth: 0 } }
    }

    fn next_vacant(&self) -> u32 {
        self.sums.totals.entries as u32
    }
}
