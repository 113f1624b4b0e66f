//! Building a trie from leaves that ascend: one pass, in which every slot is written once.
//!
//! Between each leaf and the next stands one inner node, which splits at the first bit in which
//! the two keys differ. A node's subtree is whole as soon as a later one splits at a lesser bit:
//! so a stack of those that are not yet whole, the deepest on top, gives every node its children
//! (the Cartesian tree of the bits).
//!
//! The nodes of a block of leaves are put together and hashed while they are in the cache, and
//! then written where they stay, each when it is whole: small subtrees stand together. Those
//! that are still open then, one a level at most, go on to the next block.

use super::batch::{Levels, Lines, Target};
use super::shape::Prefix;
use super::slots::{
    Extent, Inners, Kind, LeafSlots, Line, MAX_SLOTS, NodeId, SMALL, Split, totals_of,
};
use super::tree::Leaf;
use super::trie::Trie;
use crate::entry::Totals;
use crate::hash::{Block, HashAlgorithm, TreeHash};

/// Leaves of a block: with the inner nodes between them they fit into a core's own cache.
const BLOCK_LEAVES: usize = 2_048;

/// Fills an empty trie with leaves that strictly ascend by key; the prefixes of its pages.
pub(super) fn build(trie: &mut Trie, leaves: &[Leaf]) -> Vec<Prefix> {
    assert!(leaves.len() <= MAX_SLOTS as usize, "a tree holds at most 2^30 leaves");
    let mut builder = Builder::new(trie.algorithm, trie.page_leaves, leaves);
    for start in (0..leaves.len()).step_by(BLOCK_LEAVES) {
        builder.block(start, leaves.len().min(start + BLOCK_LEAVES));
    }
    let Some(top) = builder.top else { return Vec::new() };
    trie.top = Some(top.id);
    trie.top_hash = builder.top_hash(&top);
    if top.totals.entries <= u64::from(trie.page_leaves) {
        builder.pages.push(Prefix::ALL);
    }
    (trie.leaves, trie.inners) = (builder.slots, builder.inners);
    builder.pages
}

/// A node all of whose leaves are known to it.
#[derive(Clone, Copy)]
struct Whole {
    id: NodeId,
    /// Where it stands in the block; a leaf, in the tree.
    at: u32,
    // that of an inner node
    bit: u8,
    depth: u16,
    totals: Totals,
}

/// A node that waits for its right side.
struct Open {
    at: u32,
    bit: u8,
    left: Whole,
    /// The last leaf of its left side.
    leaf: u32,
}

struct Builder<'a> {
    algorithm: HashAlgorithm,
    page_leaves: u64,
    leaves: &'a [Leaf],
    slots: LeafSlots,
    inners: Inners,
    /// Bits ascend.
    open: Vec<Open>,
    block: BlockOfNodes,
    due: Levels,
    pages: Vec<Prefix>,
    top: Option<Whole>,
}

/// The inner nodes of a block: first those that were open before.
struct BlockOfNodes {
    lines: Vec<Line>,
    /// Whole ones in the order in which they are to stand, small and large ones.
    whole: [Vec<(Split, u32)>; 2],
}

impl<'a> Builder<'a> {
    fn new(algorithm: HashAlgorithm, page_leaves: u32, leaves: &'a [Leaf]) -> Self {
        let block = BlockOfNodes { lines: Vec::new(), whole: [Vec::new(), Vec::new()] };
        Self {
            algorithm,
            page_leaves: u64::from(page_leaves),
            leaves,
            slots: LeafSlots::new(),
            inners: Inners::new(),
            open: Vec::new(),
            block,
            due: Levels::new(),
            pages: Vec::new(),
            top: None,
        }
    }

    fn block(&mut self, start: usize, end: usize) {
        self.slots.append(&self.leaves[start..end]);
        let before = self.open.len();
        self.block.begin(&mut self.open, end - start);
        for at in start..end {
            self.leaf(at, (before + at - start) as u32);
        }
        let mut lines = BlockLines { leaves: &self.slots, inners: &mut self.block.lines };
        self.due.run(self.algorithm, &mut lines);
        let BlockOfNodes { whole, lines, .. } = &self.block;
        for (large, nodes) in [false, true].into_iter().zip(whole) {
            let line = |at: usize| lines[nodes[at].1 as usize];
            self.inners.append(large, nodes.len(), |at| nodes[at].0, line);
        }
    }

    /// The next leaf, and at a place in the block the node between it and the one after it.
    fn leaf(&mut self, index: usize, at: u32) {
        let leaf = &self.leaves[index];
        let next = self.leaves.get(index + 1);
        let bit = next.and_then(|next| leaf.key.first_difference(&next.key));
        let index = index as u32;
        let totals = totals_of(leaf);
        let id = NodeId::leaf(index);
        let mut whole = Whole { id, at: index, bit: 0, depth: 0, totals };
        while let Some(open) = self.open.pop_if(|open| bit.is_none_or(|bit| open.bit > bit)) {
            self.attach(&whole, Target::Child(open.at, true));
            whole = self.close(&open, &whole);
        }
        match bit {
            Some(bit) => {
                self.attach(&whole, Target::Child(at, false));
                self.open.push(Open { at, bit, left: whole, leaf: index });
            }
            None => self.top = Some(whole),
        }
    }

    fn close(&mut self, open: &Open, right: &Whole) -> Whole {
        let Open { at, bit, left, leaf } = open;
        let totals = left.totals.plus(right.totals);
        let depth = left.depth.max(right.depth) + 1;
        let extent = match u32::try_from(totals.entries) {
            Ok(entries) if entries <= SMALL => Extent::Small(entries),
            _ => Extent::of(&totals),
        };
        let large = matches!(extent, Extent::Large(_));
        let split = self.inners.new_split(*bit, [left.id, right.id], depth, extent);
        let bank = &mut self.block.whole[usize::from(large)];
        let id = NodeId::inner(self.inners.next(large) + bank.len() as u32);
        bank.push((split, *at));
        if self.page_leaves > 0 && totals.entries > self.page_leaves {
            for (side, leaf) in [(left, *leaf), (right, leaf + 1)] {
                if side.totals.entries <= self.page_leaves {
                    let key = &self.leaves[leaf as usize].key;
                    self.pages.push(Prefix::of(key, u16::from(*bit) + 1));
                }
            }
        }
        Whole { id, at: *at, bit: *bit, depth, totals }
    }

    /// The hash of a node is to go there.
    fn attach(&mut self, node: &Whole, target: Target) {
        match node.id.kind() {
            Kind::Inner(_) => self.due.push_inner(node.bit, node.at, target),
            Kind::Leaf(_) => self.due.push_leaf(node.at, target),
            Kind::Sealed(_) => unreachable!("all leaves are given"),
        }
    }

    fn top_hash(&self, top: &Whole) -> TreeHash {
        match top.id.kind() {
            Kind::Inner(_) => {
                let line = &self.block.lines[top.at as usize];
                self.algorithm.of_block(Some(top.bit), &line.0)
            }
            _ => self.algorithm.of_block(None, &self.slots.line(0).0),
        }
    }
}

impl BlockOfNodes {
    fn begin(&mut self, open: &mut [Open], leaves: usize) {
        let lines: Vec<Line> = open.iter().map(|open| self.lines[open.at as usize]).collect();
        self.lines.clear();
        self.lines.extend(lines);
        for (at, open) in (0..).zip(open) {
            open.at = at;
        }
        self.lines.resize(self.lines.len() + leaves, Line::EMPTY);
        self.whole.iter_mut().for_each(Vec::clear);
    }
}

struct BlockLines<'a> {
    leaves: &'a LeafSlots,
    inners: &'a mut [Line],
}

impl Lines for BlockLines<'_> {
    fn leaf(&self, at: u32) -> &Block {
        &self.leaves.line(at).0
    }

    fn inner(&self, at: u32) -> &Block {
        &self.inners[at as usize].0
    }

    fn deliver(&mut self, target: Target, hash: &TreeHash) {
        if let Target::Child(at, right) = target {
            self.inners[at as usize].set_half(right, &hash.0);
        }
    }
    fn peek(&self, _: Target) -> u8 {
        0
    }
}
