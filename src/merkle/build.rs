//! Building a trie from leaves that ascend, which come one by one: one pass, in which every slot is
//! written once.
//!
//! Between each leaf and the next stands one inner node, which splits at the first bit in which
//! the two keys differ. A node's subtree is whole as soon as a later one splits at a lesser bit:
//! so a stack of those that are not yet whole, the deepest on top, gives every node its children
//! (the Cartesian tree of the bits).
//!
//! Leaves wait until more than a bunch holds of them have a node in common. What is made of a
//! block of them is put together and hashed while it is in the cache, and then written where it
//! stays.

use super::batch::{Levels, Lines, Target};
use super::bunch::{self, Due};
use super::bunches::BunchId;
use super::shape::Prefix;
use super::slots::{Amounts, Line, NodeId, Split, totals_of};
use super::tree::Leaf;
use super::trie::Trie;
use crate::entry::Totals;
use crate::hash::{self, KeyHash, TreeHash};

/// Lines of a block (64 B each): with what is due they fit into a core's own cache.
const BLOCK_LINES: usize = 4_096;

/// Fills an empty trie.
pub(super) struct Builder {
    trie: Trie,
    last: Option<KeyHash>,
    /// Leaves that are in no bunch yet.
    loose: Vec<Leaf>,
    /// Bits ascend.
    open: Vec<Open>,
    /// Those among the open nodes' left sides that are not loose.
    laid: Vec<Laid>,
    block: Block,
    due: Levels<u32>,
    pages: Vec<Prefix>,
}

/// A subtree all of whose leaves came.
#[derive(Clone, Copy)]
enum Whole {
    /// The last so many of the loose leaves.
    Loose(u8),
    /// The last of those that are laid.
    Laid,
}

#[derive(Clone, Copy)]
struct Laid {
    id: NodeId,
    hash: Hash,
    depth: u16,
    totals: Totals,
    /// Of its first leaf.
    key: KeyHash,
}

#[derive(Clone, Copy)]
enum Hash {
    Known(TreeHash),
    /// Of the node in that line of the block, which splits at a bit or is a leaf.
    Due(u32, Option<u8>),
}

/// A node that waits for its right side.
struct Open {
    bit: u8,
    left: Whole,
}

/// What is not yet where it stays.
#[derive(Default)]
struct Block {
    lines: Vec<Line>,
    used: usize,
    /// Bunches, and the first of their lines.
    bunches: Vec<(BunchId, u32)>,
    /// Inner nodes, and their lines.
    inners: Vec<(Split, Amounts)>,
    inner_lines: Vec<u32>,
}

impl Builder {
    /// Over a trie of no leaves.
    pub(super) fn new(trie: Trie) -> Self {
        Self {
            trie,
            last: None,
            loose: Vec::new(),
            open: Vec::new(),
            laid: Vec::new(),
            block: Block::default(),
            due: Levels::new(),
            pages: Vec::new(),
        }
    }

    /// The next leaf; false, and nothing is changed, unless its key is greater than the last.
    pub(super) fn push(&mut self, leaf: &Leaf) -> bool {
        if let Some(last) = self.last {
            let parts = last.first_difference(&leaf.key);
            let Some(bit) = parts.filter(|bit| leaf.key.bit(*bit)) else { return false };
            let left = self.close(Some(bit));
            self.open.push(Open { bit, left });
            if self.block.used >= BLOCK_LINES {
                self.flush(None);
            }
        }
        self.last = Some(leaf.key);
        self.loose.push(*leaf);
        true
    }

    /// The trie, and the prefixes of its pages.
    pub(super) fn finish(mut self) -> (Trie, Vec<Prefix>) {
        if self.last.is_some() {
            let whole = self.close(None);
            let mut top = self.take(whole, self.loose.len());
            self.flush(Some(&mut top.hash));
            self.trie.top = Some(top.id);
            self.trie.top_hash = top.hash.known();
            if top.totals.entries <= u64::from(self.trie.page_leaves) {
                self.pages.push(Prefix::ALL);
            }
        }
        (self.trie, self.pages)
    }

    /// What is whole with the last leaf, below a bit.
    fn close(&mut self, below: Option<u8>) -> Whole {
        let most = self.trie.bunch_leaves();
        let mut whole = Whole::Loose(1);
        while let Some(open) = self.open.pop_if(|open| below.is_none_or(|bit| open.bit > bit)) {
            whole = match (open.left, whole) {
                (Whole::Loose(left), Whole::Loose(right)) if usize::from(left + right) <= most => {
                    Whole::Loose(left + right)
                }
                (left, right) => {
                    self.join(open.bit, left, right);
                    Whole::Laid
                }
            };
        }
        whole
    }

    fn join(&mut self, bit: u8, left: Whole, right: Whole) {
        let middle = self.loose.len() - right.loose();
        let start = middle - left.loose();
        // the one that was laid last is the right side, if that is one
        let (left, right) = match right {
            Whole::Laid => {
                let right = self.take(right, middle);
                (self.take(left, middle), right)
            }
            Whole::Loose(_) => {
                let left = self.take(left, middle);
                (left, self.take(right, self.loose.len()))
            }
        };
        self.loose.truncate(start);
        let above = self.block.add_lines(1);
        for (side, is_right) in [(&left, false), (&right, true)] {
            match &side.hash {
                Hash::Known(hash) => self.block.lines[above].set_half(is_right, &hash.0),
                Hash::Due(line, bit) => {
                    self.due.push(*bit, *line, Target::Child(above as u32, is_right));
                }
            }
        }
        let totals = left.totals.plus(right.totals);
        self.list_pages(bit, &totals, [&left, &right]);
        let depth = left.depth.max(right.depth) + 1;
        let split = Split { left: left.id, right: right.id, depth, bit };
        let index = self.trie.inners.next() + self.block.inners.len() as u32;
        self.block.inners.push((split, Amounts::of(&totals)));
        self.block.inner_lines.push(above as u32);
        let hash = Hash::Due(above as u32, Some(bit));
        self.laid.push(Laid { id: NodeId::inner(index), hash, depth, totals, key: left.key });
    }

    /// A subtree that is not loose; if it is, the leaves before `end` are laid.
    fn take(&mut self, whole: Whole, end: usize) -> Laid {
        let count = match whole {
            Whole::Laid => return self.laid.pop().expect("what is laid waits there"),
            Whole::Loose(count) => usize::from(count),
        };
        let leaves = &self.loose[end - count..end];
        let bunches = &mut self.trie.bunches;
        let id = bunches.reserve(count);
        let layout = id.layout();
        let start = self.block.add_lines(layout.lines());
        self.block.bunches.push((id, start as u32));
        let due = |Due { line, bit, above, right }| {
            let [line, above] = [line, above].map(|at| (start + at) as u32);
            self.due.push(bit, line, Target::Child(above, right));
        };
        let lines = &mut self.block.lines[start..];
        let laid = bunch::lay(lines, layout, leaves, None, |leaf| bunches.note(leaf), due);
        let totals = leaves.iter().map(totals_of).fold(Totals::default(), Totals::plus);
        let hash = Hash::Due((start + laid.line) as u32, laid.bit);
        Laid { id: NodeId::bunch(id), hash, depth: laid.depth, totals, key: leaves[0].key }
    }

    /// Sides of a node that are pages, if it is too large to be one.
    fn list_pages(&mut self, bit: u8, totals: &Totals, sides: [&Laid; 2]) {
        let most = u64::from(self.trie.page_leaves);
        if most > 0 && totals.entries > most {
            let pages = sides.into_iter().filter(|side| side.totals.entries <= most);
            self.pages.extend(pages.map(|side| Prefix::of(&side.key, u16::from(bit) + 1)));
        }
    }

    /// Hashes what is due, also what has no node above it yet, and puts all where it stays.
    fn flush(&mut self, top: Option<&mut Hash>) {
        let mut apart = Vec::new();
        for hash in self.laid.iter_mut().map(|laid| &mut laid.hash).chain(top) {
            if let Hash::Due(line, bit) = *hash {
                let at = self.block.add_lines(1);
                self.due.push(bit, line, Target::Child(at as u32, false));
                apart.push((hash, at));
            }
        }
        self.due.run(self.trie.algorithm, &mut self.block);
        for (hash, at) in apart {
            *hash = Hash::Known(TreeHash(*self.block.lines[at].half(false)));
        }
        self.block.put(&mut self.trie);
    }
}

impl Whole {
    fn loose(self) -> usize {
        match self {
            Self::Loose(leaves) => usize::from(leaves),
            Self::Laid => 0,
        }
    }
}

impl Hash {
    fn known(&self) -> TreeHash {
        match self {
            Self::Known(hash) => *hash,
            Self::Due(..) => unreachable!("a flush leaves nothing due"),
        }
    }
}

impl Block {
    fn add_lines(&mut self, count: usize) -> usize {
        let start = self.used;
        self.used += count;
        if self.used > self.lines.len() {
            self.lines.resize(self.used, Line::EMPTY);
        }
        start
    }

    fn put(&mut self, trie: &mut Trie) {
        for (id, start) in self.bunches.drain(..) {
            let lines = trie.bunches.lines_mut(id);
            let start = start as usize;
            lines.copy_from_slice(&self.lines[start..start + lines.len()]);
        }
        let line = |at: usize| self.lines[self.inner_lines[at] as usize];
        trie.inners.append(&self.inners, line);
        self.inners.clear();
        self.inner_lines.clear();
        self.used = 0;
    }
}

impl Lines for Block {
    type At = u32;

    fn line(&self, at: u32) -> &hash::Block {
        &self.lines[at as usize].0
    }

    fn deliver(&mut self, target: Target<u32>, hash: &TreeHash) {
        if let Target::Child(at, right) = target {
            self.lines[at as usize].set_half(right, &hash.0);
        }
    }

    fn peek(&self, _: u32, _: Target<u32>) -> u8 {
        0
    }
}
