//! Hashing what a change touched: every leaf and inner node once, children before parents.
//!
//! A few nodes are hashed one by one as they come. Many are hashed level by level, leaves first,
//! then inner nodes from the deepest bit index up: nodes that split at one bit share a BLAKE3 key
//! and none is above another, so the lanes of the processor hash up to sixteen of them at once.

use blake3::IncrementCounter;
use blake3::platform::Platform;

use super::slots::{Kind, Line, NodeId};
use super::trie::Trie;
use crate::hash::{HASH_LEN, HashAlgorithm, TreeHash};

/// From so many nodes on, levels are worth sorting for.
const LEVELS_FROM: usize = 64;
/// From so many nodes on, hashing is not put off any longer: they are still in the cache.
const ENOUGH: usize = 4_096;
/// Most lanes that a processor has.
const LANES: usize = 16;
/// One level for every bit index, and one for leaves.
const LEVELS: usize = 257;
const LEAF_LEVEL: u16 = 256;

/// Where a hash goes: a side of an inner node, or nowhere in the trie (it is handed back).
#[derive(Clone, Copy)]
pub(super) enum Target {
    Child(u32, bool),
    Top,
}

#[derive(Clone, Copy)]
struct Job {
    node: NodeId,
    level: u16,
    target: Target,
}

/// Nodes whose hash is due, children before parents, and at most one for the top.
#[derive(Default)]
pub(super) struct Jobs {
    due: Vec<Job>,
    inner_hashes: usize,
}

impl Jobs {
    pub(super) fn push(&mut self, trie: &Trie, node: NodeId, target: Target) {
        let level = level(trie, node);
        self.inner_hashes += usize::from(level < LEAF_LEVEL);
        self.due.push(Job { node, level, target });
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
        let mut top = None;
        let platform = Platform::detect();
        if self.due.len() < LEVELS_FROM || trie.algorithm != HashAlgorithm::Blake3 {
            for job in self.due.drain(..) {
                let hash = hash_one(trie, platform, &job);
                deliver(trie, job.target, hash, &mut top);
            }
            return top;
        }
        for level in self.by_level().chunk_by(|one, other| one.level == other.level) {
            let key = level_key(level[0].level);
            for jobs in level.chunks(LANES) {
                let mut hashes = [[0; HASH_LEN]; LANES];
                let line = |lane: usize| preimage(trie, jobs[lane.min(jobs.len() - 1)].node);
                let lines: [&Line; LANES] = std::array::from_fn(line);
                hash_lanes(platform, key, &lines[..jobs.len()], &mut hashes);
                for (job, hash) in jobs.iter().zip(hashes) {
                    deliver(trie, job.target, TreeHash(hash), &mut top);
                }
            }
        }
        self.due.clear();
        top
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

fn level(trie: &Trie, node: NodeId) -> u16 {
    match node.kind() {
        Kind::Inner(index) => u16::from(trie.inners.split(index).bit),
        Kind::Leaf(_) | Kind::Sealed(_) => LEAF_LEVEL,
    }
}

fn level_key(level: u16) -> &'static [u8; HASH_LEN] {
    u8::try_from(level)
        .map_or_else(|_| HashAlgorithm::blake3_leaf_key(), HashAlgorithm::blake3_inner_key)
}

fn preimage(trie: &Trie, node: NodeId) -> &Line {
    match node.kind() {
        Kind::Leaf(index) => &trie.leaves.slot(index).line,
        Kind::Inner(index) => trie.inners.line(index),
        Kind::Sealed(_) => unreachable!("the hash of a sealed page is never due"),
    }
}

/// Hashes of preimages, each of which is the only block of a keyed BLAKE3 hash.
fn hash_lanes(
    platform: Platform,
    key: &[u8; HASH_LEN],
    lines: &[&Line],
    hashes: &mut [[u8; HASH_LEN]],
) {
    const KEYED_HASH: u8 = 1 << 4;
    const CHUNK_START: u8 = 1;
    const CHUNK_END_AND_ROOT: u8 = (1 << 1) | (1 << 3);
    let word = |at: usize| u32::from_le_bytes([key[at], key[at + 1], key[at + 2], key[at + 3]]);
    let key: [u32; 8] = std::array::from_fn(|index| word(index * 4));
    platform.hash_many(
        lines,
        &key,
        0,
        IncrementCounter::No,
        KEYED_HASH,
        CHUNK_START,
        CHUNK_END_AND_ROOT,
        hashes.as_flattened_mut(),
    );
}

fn hash_one(trie: &Trie, platform: Platform, job: &Job) -> TreeHash {
    if trie.algorithm != HashAlgorithm::Blake3 {
        return hash_plainly(trie, job.node);
    }
    let mut hash = [[0; HASH_LEN]];
    hash_lanes(platform, level_key(job.level), &[preimage(trie, job.node)], &mut hash);
    TreeHash(hash[0])
}

fn hash_plainly(trie: &Trie, node: NodeId) -> TreeHash {
    match node.kind() {
        Kind::Inner(index) => {
            let [left, right] = [false, true].map(|side| trie.inners.child(index, side).hash);
            trie.algorithm.inner(trie.inners.split(index).bit, &left, &right)
        }
        Kind::Leaf(index) => {
            let leaf = trie.leaves.slot(index);
            trie.algorithm.leaf(&leaf.key(), &leaf.record())
        }
        Kind::Sealed(_) => unreachable!("the hash of a sealed page is never due"),
    }
}

fn deliver(trie: &mut Trie, target: Target, hash: TreeHash, top: &mut Option<TreeHash>) {
    match target {
        Target::Child(inner, right) => trie.inners.set_child_hash(inner, right, &hash),
        Target::Top => *top = Some(hash),
    }
}
