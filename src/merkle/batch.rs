//! Hashing what a change touched: every leaf and inner node once, children before parents.
//!
//! A few nodes are hashed one by one as they come. Many are hashed level by level, leaves first,
//! then inner nodes from the deepest bit index up: nodes that split at one bit share a BLAKE3 key
//! and none is above another, so the lanes of the processor hash up to sixteen of them at once.

use super::slots::{Kind, NodeId};
use super::trie::Trie;
use crate::hash::{Block, HASH_LEN, HashAlgorithm, LANES, TreeHash};

/// From so many leaves on, levels are worth sorting for.
const LEVELS_FROM: usize = 6;
/// From so many nodes on, hashing is not put off any longer: they are still in the cache.
const ENOUGH: usize = 4_096;
/// One level for every bit index, and one for leaves.
const LEVELS: usize = 257;
const LEAF_LEVEL: u16 = 256;

/// Where a hash goes: a side of an inner node, or nowhere (it is handed back).
#[derive(Clone, Copy, Default)]
pub(super) enum Target {
    Child(u32, bool),
    #[default]
    Top,
}

/// Where preimages are and hashes go.
pub(super) trait Lines {
    fn leaf(&self, at: u32) -> &Block;
    fn inner(&self, at: u32) -> &Block;
    fn deliver(&mut self, target: Target, hash: &TreeHash);

    /// A byte from where a hash is to go.
    fn peek(&self, target: Target) -> u8;
}

/// Hashes leaves (`bit` is none) or inner nodes that split at one bit.
pub(super) fn hash_level(
    algorithm: HashAlgorithm,
    bit: Option<u8>,
    mut nodes: impl Iterator<Item = (u32, Target)>,
    lines: &mut impl Lines,
) {
    let key = HashAlgorithm::blake3_block_key(bit);
    let mut hashes = [[0; HASH_LEN]; LANES];
    let mut targets = [Target::Top; LANES];
    loop {
        let (mut count, mut peeked) = (0, 0);
        let mut blocks = [&[0; 2 * HASH_LEN]; LANES];
        for (at, target) in nodes.by_ref().take(LANES) {
            blocks[count] = if bit.is_none() { lines.leaf(at) } else { lines.inner(at) };
            targets[count] = target;
            count += 1;
            // the memory is asked at once for all that is written below, one after the other
            peeked ^= lines.peek(target);
        }
        std::hint::black_box(peeked);
        if count == 0 {
            return;
        }
        match algorithm {
            HashAlgorithm::Blake3 => key.hash_many(&blocks[..count], &mut hashes),
            HashAlgorithm::Sha256 => {
                for (hash, block) in hashes.iter_mut().zip(&blocks[..count]) {
                    *hash = algorithm.of_block(bit, block).0;
                }
            }
        }
        for (target, hash) in targets[..count].iter().zip(&hashes) {
            lines.deliver(*target, &TreeHash(*hash));
        }
    }
}

/// Nodes of many leaves whose hash is due, by level.
pub(super) struct Levels {
    leaves: Vec<(u32, Target)>,
    /// By the bit at which they split.
    inners: Vec<Vec<(u32, Target)>>,
}

impl Levels {
    pub(super) fn new() -> Self {
        Self { leaves: Vec::new(), inners: vec![Vec::new(); 256] }
    }

    pub(super) fn push_leaf(&mut self, at: u32, target: Target) {
        self.leaves.push((at, target));
    }

    pub(super) fn push_inner(&mut self, bit: u8, at: u32, target: Target) {
        self.inners[usize::from(bit)].push((at, target));
    }

    /// Hashes all, and forgets them; how many inner nodes they were.
    pub(super) fn run(&mut self, algorithm: HashAlgorithm, lines: &mut impl Lines) -> usize {
        hash_level(algorithm, None, self.leaves.drain(..), lines);
        let mut inner_hashes = 0;
        for (bit, nodes) in (0..=u8::MAX).zip(&mut self.inners).rev() {
            if !nodes.is_empty() {
                inner_hashes += nodes.len();
                hash_level(algorithm, Some(bit), nodes.drain(..), lines);
            }
        }
        inner_hashes
    }
}

/// The lines of a trie; keeps the hash for the top.
pub(super) struct TrieLines<'a> {
    pub(super) trie: &'a mut Trie,
    pub(super) top: Option<TreeHash>,
}

impl Lines for TrieLines<'_> {
    fn leaf(&self, at: u32) -> &Block {
        &self.trie.leaves.line(at).0
    }

    fn inner(&self, at: u32) -> &Block {
        &self.trie.inners.line(at).0
    }

    fn deliver(&mut self, target: Target, hash: &TreeHash) {
        match target {
            Target::Child(inner, right) => self.trie.inners.set_child_hash(inner, right, hash),
            Target::Top => self.top = Some(*hash),
        }
    }

    fn peek(&self, target: Target) -> u8 {
        match target {
            Target::Child(inner, _) => self.inner(inner)[0],
            Target::Top => 0,
        }
    }
}

#[derive(Clone, Copy)]
struct Job {
    at: u32,
    level: u16,
    target: Target,
}

impl Job {
    fn bit(&self) -> Option<u8> {
        u8::try_from(self.level).ok()
    }
}

/// Nodes whose hash is due, children before parents, and at most one for the top.
#[derive(Default)]
pub(super) struct Jobs {
    due: Vec<Job>,
    due_leaves: usize,
    inner_hashes: usize,
}

impl Jobs {
    pub(super) fn push(&mut self, trie: &Trie, node: NodeId, target: Target) {
        let (at, level) = match node.kind() {
            Kind::Inner(at) => (at, u16::from(trie.inners.split(at).bit)),
            Kind::Leaf(at) => (at, LEAF_LEVEL),
            Kind::Sealed(_) => unreachable!("the hash of a sealed page is never due"),
        };
        self.inner_hashes += usize::from(level < LEAF_LEVEL);
        self.due_leaves += usize::from(level == LEAF_LEVEL);
        self.due.push(Job { at, level, target });
    }

    /// Inner nodes that were ever among the jobs.
    pub(super) const fn inner_hashes(&self) -> usize {
        self.inner_hashes
    }

    /// Whether it is time to run the jobs, although more are to come.
    pub(super) const fn are_enough(&self) -> bool {
        self.due.len() >= ENOUGH
    }

    /// Hashes what is due; the hash of the node for the top, if it is among that.
    pub(super) fn run(&mut self, trie: &mut Trie) -> Option<TreeHash> {
        let algorithm = trie.algorithm;
        let mut lines = TrieLines { trie, top: None };
        if std::mem::take(&mut self.due_leaves) < LEVELS_FROM {
            for job in self.due.drain(..) {
                let block =
                    if job.bit().is_none() { lines.leaf(job.at) } else { lines.inner(job.at) };
                let hash = algorithm.of_block(job.bit(), block);
                lines.deliver(job.target, &hash);
            }
            return lines.top;
        }
        for level in self.by_level().chunk_by(|one, other| one.level == other.level) {
            let nodes = level.iter().map(|job| (job.at, job.target));
            hash_level(algorithm, level[0].bit(), nodes, &mut lines);
        }
        self.due.clear();
        lines.top
    }

    // sorted by counting, deepest level first
    fn by_level(&self) -> Vec<Job> {
        let mut next = [0; LEVELS];
        for job in &self.due {
            next[usize::from(job.level)] += 1;
        }
        let mut end = 0;
        for count in next.iter_mut().rev() {
            end += std::mem::replace(count, end);
        }
        let mut sorted = self.due.clone();
        for job in &self.due {
            let place = &mut next[usize::from(job.level)];
            sorted[*place] = *job;
            *place += 1;
        }
        sorted
    }
}
