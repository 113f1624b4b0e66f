//! Hashing what a change touched: every leaf and inner node once, children before parents.
//!
//! That goes level by level, leaves first, then inner nodes from the deepest bit index up: nodes
//! that split at one bit share a BLAKE3 key and none is above another, so the lanes of the
//! processor hash up to sixteen of them at once.

use super::bunch::{Span, Top};
use super::bunches::BunchId;
use super::slots::{Kind, Line, NodeId};
use super::trie::Trie;
use crate::hash::{Block, HASH_LEN, HashAlgorithm, LANES, TreeHash};

/// Where a hash goes: a side of an inner node, whose line is there, or nowhere (it is handed
/// back).
#[derive(Clone, Copy)]
pub(super) enum Target<A> {
    Child(A, bool),
    Top,
}

/// Where preimages are and hashes go.
pub(super) trait Lines {
    /// What names a line.
    type At: Copy;

    fn line(&self, at: Self::At) -> &Block;
    fn deliver(&mut self, target: Target<Self::At>, hash: &TreeHash);

    /// A byte from where a preimage is and one from where its hash is to go, if they may be far
    /// from the processor.
    fn peek(&self, at: Self::At, target: Target<Self::At>) -> u8;
}

/// Hashes leaves (`bit` is none) or inner nodes that split at one bit.
fn hash_level<L: Lines>(
    algorithm: HashAlgorithm,
    bit: Option<u8>,
    nodes: &[(L::At, Target<L::At>)],
    lines: &mut L,
) {
    let key = HashAlgorithm::blake3_block_key(bit);
    let mut hashes = [[0; HASH_LEN]; LANES];
    for many in nodes.chunks(4 * LANES) {
        // the memory is asked at once for all that is read and written below
        let peeked = many.iter().map(|(at, target)| lines.peek(*at, *target));
        std::hint::black_box(peeked.fold(0, |all, byte| all ^ byte));
        for some in many.chunks(LANES) {
            let mut blocks = [&[0; 2 * HASH_LEN]; LANES];
            for (block, (at, _)) in blocks.iter_mut().zip(some) {
                *block = lines.line(*at);
            }
            let blocks = &blocks[..some.len()];
            match algorithm {
                HashAlgorithm::Blake3 => key.hash_many(blocks, &mut hashes),
                HashAlgorithm::Sha256 => {
                    for (hash, block) in hashes.iter_mut().zip(blocks) {
                        *hash = algorithm.of_block(bit, block).0;
                    }
                }
            }
            for ((_, target), hash) in some.iter().zip(&hashes) {
                lines.deliver(*target, &TreeHash(*hash));
            }
        }
    }
}

/// Nodes whose hash is due, by level.
pub(super) struct Levels<A> {
    leaves: Vec<(A, Target<A>)>,
    /// By the bit at which they split, up to the greatest that there was.
    inners: Vec<Vec<(A, Target<A>)>>,
    due: usize,
}

impl<A: Copy> Levels<A> {
    pub(super) fn new() -> Self {
        Self { leaves: Vec::new(), inners: Vec::new(), due: 0 }
    }

    /// How many are due.
    pub(super) const fn len(&self) -> usize {
        self.due
    }

    /// A leaf (`bit` is none) or an inner node.
    pub(super) fn push(&mut self, bit: Option<u8>, at: A, target: Target<A>) {
        self.due += 1;
        match bit {
            Some(bit) => {
                let level = usize::from(bit);
                if level >= self.inners.len() {
                    self.inners.resize_with(level + 1, Vec::new);
                }
                self.inners[level].push((at, target));
            }
            None => self.leaves.push((at, target)),
        }
    }

    /// Hashes all, and forgets them; how many inner nodes they were.
    pub(super) fn run<L: Lines<At = A>>(
        &mut self,
        algorithm: HashAlgorithm,
        lines: &mut L,
    ) -> usize {
        hash_level(algorithm, None, &self.leaves, lines);
        self.leaves.clear();
        self.due = 0;
        let mut inner_hashes = 0;
        for (bit, nodes) in (0..=u8::MAX).zip(&mut self.inners).rev() {
            if !nodes.is_empty() {
                inner_hashes += nodes.len();
                hash_level(algorithm, Some(bit), nodes, lines);
                nodes.clear();
            }
        }
        inner_hashes
    }
}

/// A line of a trie: that of an inner node, or one of a bunch.
#[derive(Clone, Copy)]
pub(super) struct Address {
    id: NodeId,
    line: u8,
}

impl Address {
    pub(super) const fn inner(index: u32) -> Self {
        Self { id: NodeId::inner(index), line: 0 }
    }

    // a bunch has 72 lines at most
    pub(super) const fn within(id: BunchId, line: usize) -> Self {
        Self { id: NodeId::bunch(id), line: line as u8 }
    }
}

impl Trie {
    /// The line of a node, and the bit at which it splits; none of a leaf.
    pub(super) fn line_of(&self, id: NodeId) -> (Option<u8>, Address) {
        match id.kind() {
            Kind::Bunch(id) => {
                let (bunch, layout) = (self.bunches.bunch(id), id.layout());
                match bunch.top(Span::ALL) {
                    Top::Leaf(at) => (None, Address::within(id, layout.leaf(at))),
                    Top::Inner { node, .. } => {
                        (Some(bunch.bit(node)), Address::within(id, layout.inner(node)))
                    }
                }
            }
            Kind::Inner(index) => (Some(self.inners.split(index).bit), Address::inner(index)),
            Kind::Sealed(_) => unreachable!("the hash of a sealed page is never due"),
        }
    }

    fn line(&self, at: Address) -> &Line {
        match at.id.kind() {
            Kind::Bunch(id) => &self.bunches.lines(id)[usize::from(at.line)],
            Kind::Inner(index) => self.inners.line(index),
            Kind::Sealed(_) => unreachable!("sealed pages have no lines"),
        }
    }

    fn line_mut(&mut self, at: Address) -> &mut Line {
        match at.id.kind() {
            Kind::Bunch(id) => &mut self.bunches.lines_mut(id)[usize::from(at.line)],
            Kind::Inner(index) => self.inners.line_mut(index),
            Kind::Sealed(_) => unreachable!("sealed pages have no lines"),
        }
    }
}

/// The lines of a trie; keeps the hash for the top.
pub(super) struct TrieLines<'a> {
    pub(super) trie: &'a mut Trie,
    /// Whether they were used a moment ago.
    pub(super) are_near: bool,
    pub(super) top: Option<TreeHash>,
}

impl Lines for TrieLines<'_> {
    type At = Address;

    fn line(&self, at: Address) -> &Block {
        &self.trie.line(at).0
    }

    fn deliver(&mut self, target: Target<Address>, hash: &TreeHash) {
        match target {
            Target::Child(above, right) => self.trie.line_mut(above).set_half(right, &hash.0),
            Target::Top => self.top = Some(*hash),
        }
    }

    fn peek(&self, at: Address, target: Target<Address>) -> u8 {
        match target {
            _ if self.are_near => 0,
            Target::Child(above, _) => self.line(at)[0] ^ self.line(above)[0],
            Target::Top => self.line(at)[0],
        }
    }
}
