//! The three kinds of slots of which a tree consists, and the ids that name them.
//!
//! A node's hash stands in the line of its parent: the two hashes of an inner node's children
//! are then its preimage in place, as key hash and record digest are that of a leaf.

use super::arena::{Arena, Slot};
use super::shape::Prefix;
use super::tree::Leaf;
use crate::clock::Stamp;
use crate::entry::Totals;
use crate::hash::{HASH_LEN, KeyHash, RecordDigest, TreeHash};

/// Most slots of a kind that an id can name.
pub(super) const MAX_SLOTS: u32 = 1 << 30;

/// A slot and its kind, which is in the two highest bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct NodeId(u32);

/// What a node id names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Leaf(u32),
    Inner(u32),
    Sealed(u32),
}

impl NodeId {
    pub(super) const fn leaf(index: u32) -> Self {
        Self(index)
    }

    pub(super) const fn inner(index: u32) -> Self {
        Self(index | MAX_SLOTS)
    }

    pub(super) const fn sealed(index: u32) -> Self {
        Self(index | (2 * MAX_SLOTS))
    }

    pub(super) const fn kind(self) -> Kind {
        let index = self.0 & (MAX_SLOTS - 1);
        match self.0 / MAX_SLOTS {
            0 => Kind::Leaf(index),
            1 => Kind::Inner(index),
            _ => Kind::Sealed(index),
        }
    }
}

/// A node of a tree with its hash, as [`Shape`](super::Shape) walks it. It belongs to the state
/// of the tree that gave it out: after a change it may name another node, or none (which
/// panics).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TreeNode {
    pub(super) id: NodeId,
    pub(super) hash: TreeHash,
}

/// What is kept of a subtree beside its hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Sums {
    pub(super) totals: Totals,
    pub(super) depth: u16,
}

impl Sums {
    /// Those of an inner node one child of which is another now; none when they cannot be told
    /// without the other child.
    pub(super) fn with_child(&self, old: &Self, new: &Self) -> Option<Self> {
        let latest = match (old.totals.latest, new.totals.latest) {
            (_, new) if new >= self.totals.latest => new,
            (old, _) if old < self.totals.latest => self.totals.latest,
            _ => return None,
        };
        let depth = match (old.depth + 1, new.depth + 1) {
            (_, new) if new >= self.depth => new,
            (old, _) if old < self.depth => self.depth,
            _ => return None,
        };
        let changed = |all: u64, old: u64, new: u64| {
            // a sum that was cut off does not tell what the other child has
            let other = (all < u64::MAX).then(|| all.checked_sub(old))??;
            Some(other.saturating_add(new))
        };
        let (all, old, new) = (&self.totals, &old.totals, &new.totals);
        let totals = Totals {
            entries: changed(all.entries, old.entries, new.entries)?,
            siblings: changed(all.siblings, old.siblings, new.siblings)?,
            bytes: changed(all.bytes, old.bytes, new.bytes)?,
            latest,
        };
        Some(Self { totals, depth })
    }

    /// Those of an inner node over both of its children.
    pub(super) fn above(left: &Self, right: &Self) -> Self {
        Self {
            totals: left.totals.plus(right.totals),
            depth: left.depth.max(right.depth).saturating_add(1),
        }
    }
}

/// Two hashes one after the other: the preimage of a leaf or an inner node.
pub(super) type Line = [u8; 2 * HASH_LEN];

pub(super) fn line(first: &[u8; HASH_LEN], second: &[u8; HASH_LEN]) -> Line {
    let mut line = [0; 2 * HASH_LEN];
    line[..HASH_LEN].copy_from_slice(first);
    line[HASH_LEN..].copy_from_slice(second);
    line
}

pub(super) fn half(line: &Line, second: bool) -> [u8; HASH_LEN] {
    let mut half = [0; HASH_LEN];
    let start = if second { HASH_LEN } else { 0 };
    half.copy_from_slice(&line[start..start + HASH_LEN]);
    half
}

/// A leaf: 88 bytes.
#[derive(Clone, Copy)]
pub(super) struct LeafSlot {
    // key hash, record digest
    pub(super) line: Line,
    siblings: u64,
    bytes: u64,
    latest: Stamp,
}

impl LeafSlot {
    pub(super) fn new(leaf: &Leaf) -> Self {
        Self {
            line: line(&leaf.key.0, &leaf.record.0),
            siblings: leaf.totals.siblings.max(1),
            bytes: leaf.totals.bytes,
            latest: leaf.totals.latest,
        }
    }

    pub(super) fn key(&self) -> KeyHash {
        KeyHash(half(&self.line, false))
    }

    pub(super) fn record(&self) -> RecordDigest {
        RecordDigest(half(&self.line, true))
    }

    pub(super) fn leaf(&self) -> Leaf {
        Leaf { key: self.key(), record: self.record(), totals: self.sums().totals }
    }

    pub(super) fn sums(&self) -> Sums {
        let Self { siblings, bytes, latest, .. } = *self;
        Sums { totals: Totals { entries: 1, siblings, bytes, latest }, depth: 0 }
    }

    /// Whether the leaf says just this.
    pub(super) fn equals(&self, leaf: &Leaf) -> bool {
        let other = Self::new(leaf);
        self.line == other.line && self.sums() == other.sums()
    }
}

impl Slot for LeafSlot {
    fn vacant(next: u32) -> Self {
        Self { line: [0; 64], siblings: u64::from(next), bytes: 0, latest: Stamp(0) }
    }

    fn next_vacant(&self) -> u32 {
        self.siblings as u32
    }
}

/// What a walk reads of an inner node: 16 bytes, four to a cache line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) left: NodeId,
    pub(super) right: NodeId,
    pub(super) entries: u32,
    pub(super) depth: u16,
    pub(super) bit: u8,
}

impl Slot for Split {
    fn vacant(next: u32) -> Self {
        let none = NodeId::leaf(0);
        Self { left: none, right: none, entries: next, depth: 0, bit: 0 }
    }

    fn next_vacant(&self) -> u32 {
        self.entries
    }
}

/// The rest of an inner node: 88 bytes.
#[derive(Clone, Copy)]
struct Body {
    // hashes of the left and of the right child
    line: Line,
    amounts: Amounts,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Amounts {
    siblings: u64,
    bytes: u64,
    latest: Stamp,
}

impl Slot for Body {
    fn vacant(next: u32) -> Self {
        let amounts = Amounts { siblings: u64::from(next), bytes: 0, latest: Stamp(0) };
        Self { line: [0; 2 * HASH_LEN], amounts }
    }

    fn next_vacant(&self) -> u32 {
        self.amounts.siblings as u32
    }
}

/// Inner nodes in two arenas that give out the same indices: a walk down then passes over splits
/// only, many of which share a cache line.
#[derive(Clone)]
pub(super) struct Inners {
    splits: Arena<Split>,
    bodies: Arena<Body>,
}

impl Inners {
    pub(super) const fn new() -> Self {
        Self { splits: Arena::new(), bodies: Arena::new() }
    }

    pub(super) fn bytes(&self) -> usize {
        self.splits.bytes() + self.bodies.bytes()
    }

    pub(super) fn split(&self, index: u32) -> &Split {
        self.splits.slot(index)
    }

    pub(super) fn line(&self, index: u32) -> &Line {
        &self.bodies.slot(index).line
    }

    pub(super) fn child(&self, index: u32, right: bool) -> TreeNode {
        let split = self.splits.slot(index);
        let id = if right { split.right } else { split.left };
        TreeNode { id, hash: TreeHash(half(self.line(index), right)) }
    }

    pub(super) fn sums(&self, index: u32) -> Sums {
        let Split { entries, depth, .. } = *self.splits.slot(index);
        let Amounts { siblings, bytes, latest } = self.bodies.slot(index).amounts;
        Sums { totals: Totals { entries: u64::from(entries), siblings, bytes, latest }, depth }
    }

    /// A new node, whose children's hashes are still to be set.
    pub(super) fn insert(&mut self, bit: u8, children: [NodeId; 2], sums: &Sums) -> u32 {
        let (split, amounts) = parts(bit, children, sums);
        self.bodies.insert(Body { line: [0; 2 * HASH_LEN], amounts });
        self.splits.insert(split)
    }

    /// Writes what is not as it should be: chunks that stay as they are stay shared.
    pub(super) fn update(&mut self, index: u32, bit: u8, children: [NodeId; 2], sums: &Sums) {
        let (split, amounts) = parts(bit, children, sums);
        if *self.splits.slot(index) != split {
            *self.splits.slot_mut(index) = split;
        }
        if self.bodies.slot(index).amounts != amounts {
            self.bodies.slot_mut(index).amounts = amounts;
        }
    }

    pub(super) fn set_child(&mut self, index: u32, right: bool, id: NodeId) {
        let split = self.splits.slot_mut(index);
        *(if right { &mut split.right } else { &mut split.left }) = id;
    }

    pub(super) fn set_child_hash(&mut self, index: u32, right: bool, hash: &TreeHash) {
        let start = if right { HASH_LEN } else { 0 };
        if self.line(index)[start..start + HASH_LEN] != hash.0 {
            let line = &mut self.bodies.slot_mut(index).line;
            line[start..start + HASH_LEN].copy_from_slice(&hash.0);
        }
    }

    pub(super) fn remove(&mut self, index: u32) {
        self.splits.remove(index);
        self.bodies.remove(index);
    }
}

fn parts(bit: u8, [left, right]: [NodeId; 2], sums: &Sums) -> (Split, Amounts) {
    let Sums { totals, depth } = *sums;
    let entries = u32::try_from(totals.entries).unwrap_or(u32::MAX);
    let Totals { siblings, bytes, latest, .. } = totals;
    (Split { left, right, entries, depth, bit }, Amounts { siblings, bytes, latest })
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
