//! The three kinds of slots of which a tree consists, and the ids that name them.
//!
//! A node's hash stands in the line of its parent: the two hashes of an inner node's children
//! are then its preimage in place, as key hash and record digest are that of a leaf.

use super::arena::{Arena, Slot};
use super::shape::Prefix;
use super::tree::Leaf;
use crate::clock::Stamp;
use crate::entry::Totals;
use crate::hash::{Block, HASH_LEN, KeyHash, RecordDigest, TreeHash};

/// Most slots of a kind that an id can name.
pub(super) const MAX_SLOTS: u32 = 1 << 30;

/// A slot and its kind, which is in the two highest bits (inner nodes have two of the four).
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
        Self(index & (MAX_SLOTS - 1) | MAX_SLOTS | (index & UPPER) << 1)
    }

    pub(super) const fn sealed(index: u32) -> Self {
        Self(index | (2 * MAX_SLOTS))
    }

    #[inline]
    pub(super) const fn kind(self) -> Kind {
        let index = self.0 & (MAX_SLOTS - 1);
        match self.0 / MAX_SLOTS {
            0 => Kind::Leaf(index),
            1 => Kind::Inner(index),
            2 => Kind::Sealed(index),
            _ => Kind::Inner(index | UPPER),
        }
    }
}

/// The bit in the index of an inner node that says in which bank it stands.
const UPPER: u32 = MAX_SLOTS;

/// A node of a tree, as [`Shape`](super::Shape) walks it. It belongs to the state of the tree that
/// gave it out: after a change it may name another node, or none (which panics).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TreeNode {
    pub(super) id: NodeId,
    /// The inner node in whose line the hash stands, and on which side; none at the top.
    pub(super) parent: Option<(u32, bool)>,
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

    pub(super) const fn entries(&self) -> i64 {
        self.entries
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
        line.set_half(false, first);
        line.set_half(true, second);
        line
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

/// Totals of a leaf in 16 bytes: siblings in the upper 16 bits, bytes in the lower 48. What does
/// not fit stands apart, and its index in the lower bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Note {
    packed: u64,
    latest: Stamp,
}

impl Note {
    const BYTES_BITS: u32 = 48;
    const IS_WIDE: u64 = 0xffff << Self::BYTES_BITS;

    fn pack(totals: &Totals) -> Option<Self> {
        let Totals { siblings, bytes, latest, .. } = *totals;
        let fits = siblings < Self::IS_WIDE >> Self::BYTES_BITS && bytes >> Self::BYTES_BITS == 0;
        fits.then_some(Self { packed: siblings << Self::BYTES_BITS | bytes, latest })
    }

    const fn wide(self) -> Option<u32> {
        if self.packed & Self::IS_WIDE == Self::IS_WIDE { Some(self.packed as u32) } else { None }
    }
}

impl Slot for Note {
    fn vacant(next: u32) -> Self {
        Self { packed: u64::from(next), latest: Stamp(0) }
    }

    fn next_vacant(&self) -> u32 {
        self.packed as u32
    }
}

/// Totals of a leaf that do not fit into its note.
#[derive(Clone, Copy)]
struct Wide {
    siblings: u64,
    bytes: u64,
}

impl Slot for Wide {
    fn vacant(next: u32) -> Self {
        Self { siblings: u64::from(next), bytes: 0 }
    }

    fn next_vacant(&self) -> u32 {
        self.siblings as u32
    }
}

/// Leaves: 64 bytes of key hash and record digest, and 16 of totals.
#[derive(Clone)]
pub(super) struct LeafSlots {
    lines: Arena<Line>,
    notes: Arena<Note>,
    wide: Arena<Wide>,
}

/// The totals that the tree takes for a leaf's.
pub(super) fn totals_of(leaf: &Leaf) -> Totals {
    Totals { entries: 1, siblings: leaf.totals.siblings.max(1), ..leaf.totals }
}

impl LeafSlots {
    pub(super) const fn new() -> Self {
        Self { lines: Arena::new(), notes: Arena::new(), wide: Arena::new() }
    }

    /// Leaves that there are.
    pub(super) const fn used(&self) -> u32 {
        self.lines.used()
    }

    pub(super) fn bytes(&self) -> usize {
        self.lines.bytes() + self.notes.bytes() + self.wide.bytes()
    }

    #[inline]
    pub(super) fn line(&self, index: u32) -> &Line {
        self.lines.slot(index)
    }

    #[inline]
    pub(super) fn key(&self, index: u32) -> KeyHash {
        KeyHash(*self.line(index).half(false))
    }

    pub(super) fn record(&self, index: u32) -> RecordDigest {
        RecordDigest(*self.line(index).half(true))
    }

    pub(super) fn leaf(&self, index: u32) -> Leaf {
        Leaf { key: self.key(index), record: self.record(index), totals: self.totals(index) }
    }

    pub(super) fn totals(&self, index: u32) -> Totals {
        let note = self.notes.slot(index);
        let (siblings, bytes) = match note.wide() {
            Some(wide) => {
                let Wide { siblings, bytes } = *self.wide.slot(wide);
                (siblings, bytes)
            }
            None => {
                let bytes = note.packed & ((1 << Note::BYTES_BITS) - 1);
                (note.packed >> Note::BYTES_BITS, bytes)
            }
        };
        Totals { entries: 1, siblings, bytes, latest: note.latest }
    }

    pub(super) fn insert(&mut self, leaf: &Leaf) -> u32 {
        let note = self.note(&totals_of(leaf));
        self.notes.insert(note);
        self.lines.insert(Line::new(&leaf.key.0, &leaf.record.0))
    }

    /// Appends leaves to slots that were never used, in the order given.
    pub(super) fn append(&mut self, leaves: &[Leaf]) {
        let line = |at: usize| Line::new(&leaves[at].key.0, &leaves[at].record.0);
        self.lines.append(leaves.len(), line);
        let Self { notes, wide, .. } = self;
        notes.append(leaves.len(), |at| note(wide, &totals_of(&leaves[at])));
    }

    /// Gives the slot of a leaf another record and other totals.
    pub(super) fn replace(&mut self, index: u32, record: &RecordDigest, totals: &Totals) {
        if *self.line(index).half(true) != record.0 {
            self.lines.slot_mut(index).set_half(true, &record.0);
        }
        let old = *self.notes.slot(index);
        if old.wide().is_none() && Note::pack(totals) == Some(old) {
            return;
        }
        if let Some(wide) = old.wide() {
            self.wide.remove(wide);
        }
        *self.notes.slot_mut(index) = self.note(totals);
    }

    pub(super) fn remove(&mut self, index: u32) {
        if let Some(wide) = self.notes.slot(index).wide() {
            self.wide.remove(wide);
        }
        self.lines.remove(index);
        self.notes.remove(index);
    }

    fn note(&mut self, totals: &Totals) -> Note {
        note(&mut self.wide, totals)
    }
}

fn note(wide: &mut Arena<Wide>, totals: &Totals) -> Note {
    Note::pack(totals).unwrap_or_else(|| {
        let Totals { siblings, bytes, latest, .. } = *totals;
        let index = wide.insert(Wide { siblings, bytes });
        Note { packed: Note::IS_WIDE | u64::from(index), latest }
    })
}

/// What a walk reads of an inner node: 16 bytes, four to a cache line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) left: NodeId,
    pub(super) right: NodeId,
    // entries, or where the amounts of a large node are
    count: u32,
    pub(super) depth: u16,
    pub(super) bit: u8,
    is_large: bool,
}

impl Split {
    pub(super) const fn child(&self, right: bool) -> NodeId {
        if right { self.right } else { self.left }
    }

    /// Number of leaves below a node of few.
    pub(super) const fn small_entries(&self) -> Option<u32> {
        if self.is_large { None } else { Some(self.count) }
    }
}

impl Slot for Split {
    fn vacant(next: u32) -> Self {
        let none = NodeId::leaf(0);
        Self { left: none, right: none, count: next, depth: 0, bit: 0, is_large: false }
    }

    fn next_vacant(&self) -> u32 {
        self.count
    }
}

/// Most leaves below a node whose totals are not kept: adding them up again takes no longer than
/// looking at a page. Of a million nodes 45,000 have more.
pub(super) const SMALL: u32 = 32;

/// Totals of an inner node: 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Amounts {
    siblings: u64,
    bytes: u64,
    latest: Stamp,
    entries: u32,
}

impl Amounts {
    fn new(totals: &Totals) -> Self {
        let Totals { entries, siblings, bytes, latest } = *totals;
        Self { siblings, bytes, latest, entries: u32::try_from(entries).unwrap_or(u32::MAX) }
    }

    fn totals(&self) -> Totals {
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

/// What is kept of the leaves below an inner node.
#[derive(Clone, Copy)]
pub(super) enum Extent {
    /// How many they are, at most [`SMALL`].
    Small(u32),
    Large(Amounts),
}

impl Extent {
    pub(super) fn of(totals: &Totals) -> Self {
        Self::Large(Amounts::new(totals))
    }

    pub(super) const fn entries(&self) -> u32 {
        match self {
            Self::Small(entries) => *entries,
            Self::Large(amounts) => amounts.entries,
        }
    }
}

/// Inner nodes: 80 bytes each, and 32 for the amounts of large ones.
///
/// Large ones stand in a bank of their own: every walk passes fifteen of them in a tree of a
/// million leaves, and together they fit into the caches of the processor. Below them walks go
/// their own ways, each in slots that are next to each other.
#[derive(Clone)]
pub(super) struct Inners {
    lower: Bank,
    upper: Bank,
    amounts: Arena<Amounts>,
}

/// Nodes in two arenas that give out the same indices: a walk down then passes over splits only,
/// many of which share a cache line.
#[derive(Clone)]
struct Bank {
    splits: Arena<Split>,
    // hashes of the left and of the right child
    lines: Arena<Line>,
}

impl Bank {
    const fn new() -> Self {
        Self { splits: Arena::new(), lines: Arena::new() }
    }
}

impl Inners {
    pub(super) const fn new() -> Self {
        Self { lower: Bank::new(), upper: Bank::new(), amounts: Arena::new() }
    }

    pub(super) fn bytes(&self) -> usize {
        let banks = [&self.lower, &self.upper].map(|bank| bank.splits.bytes() + bank.lines.bytes());
        banks.iter().sum::<usize>() + self.amounts.bytes()
    }

    #[inline]
    fn bank(&self, index: u32) -> (&Bank, u32) {
        let bank = if index & UPPER == 0 { &self.lower } else { &self.upper };
        (bank, index & (UPPER - 1))
    }

    #[inline]
    fn bank_mut(&mut self, index: u32) -> (&mut Bank, u32) {
        let bank = if index & UPPER == 0 { &mut self.lower } else { &mut self.upper };
        (bank, index & (UPPER - 1))
    }

    #[inline]
    pub(super) fn split(&self, index: u32) -> &Split {
        let (bank, slot) = self.bank(index);
        bank.splits.slot(slot)
    }

    #[inline]
    fn split_mut(&mut self, index: u32) -> &mut Split {
        let (bank, slot) = self.bank_mut(index);
        bank.splits.slot_mut(slot)
    }

    #[inline]
    pub(super) fn line(&self, index: u32) -> &Line {
        let (bank, slot) = self.bank(index);
        bank.lines.slot(slot)
    }

    #[inline]
    pub(super) fn line_mut(&mut self, index: u32) -> &mut Line {
        let (bank, slot) = self.bank_mut(index);
        bank.lines.slot_mut(slot)
    }

    pub(super) fn child(&self, index: u32, right: bool) -> TreeNode {
        TreeNode { id: self.split(index).child(right), parent: Some((index, right)) }
    }

    pub(super) fn child_hash(&self, index: u32, right: bool) -> TreeHash {
        TreeHash(*self.line(index).half(right))
    }

    pub(super) fn entries(&self, index: u32) -> u32 {
        let split = self.split(index);
        if split.is_large { self.amounts.slot(split.count).entries } else { split.count }
    }

    /// Totals, where they are kept.
    pub(super) fn totals(&self, index: u32) -> Option<Totals> {
        self.amounts(index).map(Amounts::totals)
    }

    pub(super) fn amounts(&self, index: u32) -> Option<&Amounts> {
        let split = self.split(index);
        split.is_large.then(|| self.amounts.slot(split.count))
    }

    /// A new node, whose children's hashes are still to be set.
    pub(super) fn insert(&mut self, bit: u8, ids: [NodeId; 2], depth: u16, extent: Extent) -> u32 {
        let split = self.new_split(bit, ids, depth, extent);
        let upper = if split.is_large { UPPER } else { 0 };
        let (bank, _) = self.bank_mut(upper);
        bank.lines.insert(Line::EMPTY);
        bank.splits.insert(split) | upper
    }

    pub(super) fn new_split(
        &mut self,
        bit: u8,
        [left, right]: [NodeId; 2],
        depth: u16,
        extent: Extent,
    ) -> Split {
        let (count, is_large) = match extent {
            Extent::Small(entries) => (entries, false),
            Extent::Large(amounts) => (self.amounts.insert(amounts), true),
        };
        Split { left, right, count, depth, bit, is_large }
    }

    /// The index of the next node to be appended to the bank of large ones, or to the other.
    pub(super) const fn next(&self, large: bool) -> u32 {
        match large {
            true => self.upper.splits.filled() | UPPER,
            false => self.lower.splits.filled(),
        }
    }

    /// Appends nodes to slots of a bank that were never used.
    pub(super) fn append(
        &mut self,
        large: bool,
        count: usize,
        split: impl Fn(usize) -> Split,
        line: impl Fn(usize) -> Line,
    ) {
        let bank = if large { &mut self.upper } else { &mut self.lower };
        bank.splits.append(count, split);
        bank.lines.append(count, line);
    }

    /// Sets what a node consists of but for its bit and hashes; its index from now on, which is
    /// another when it became large or small. Writes only what is not as it should be: chunks
    /// that stay as they are stay shared.
    pub(super) fn update(
        &mut self,
        index: u32,
        ids: [NodeId; 2],
        depth: u16,
        extent: Extent,
    ) -> u32 {
        let old = *self.split(index);
        let [left, right] = ids;
        let mut split = Split { left, right, depth, ..old };
        match (extent, old.is_large) {
            (Extent::Small(entries), false) => split.count = entries,
            (Extent::Large(amounts), true) => self.set_amounts(index, &amounts),
            _ => {
                let line = *self.line(index);
                self.remove(index);
                let index = self.insert(old.bit, ids, depth, extent);
                *self.line_mut(index) = line;
                return index;
            }
        }
        if old != split {
            *self.split_mut(index) = split;
        }
        index
    }

    /// Sets the amounts of a node that has them.
    pub(super) fn set_amounts(&mut self, index: u32, amounts: &Amounts) {
        let at = self.split(index).count;
        if self.amounts.slot(at) != amounts {
            *self.amounts.slot_mut(at) = *amounts;
        }
    }

    pub(super) fn set_child(&mut self, index: u32, right: bool, id: NodeId) {
        let split = self.split_mut(index);
        *(if right { &mut split.right } else { &mut split.left }) = id;
    }

    pub(super) fn set_child_hash(&mut self, index: u32, right: bool, hash: &TreeHash) {
        if *self.line(index).half(right) != hash.0 {
            self.line_mut(index).set_half(right, &hash.0);
        }
    }

    pub(super) fn remove(&mut self, index: u32) {
        let split = *self.split(index);
        if split.is_large {
            self.amounts.remove(split.count);
        }
        let (bank, slot) = self.bank_mut(index);
        bank.splits.remove(slot);
        bank.lines.remove(slot);
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
