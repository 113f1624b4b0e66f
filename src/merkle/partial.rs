//! A part of a tree: some of its leaves, and the hashes of all else.

use std::collections::BTreeMap;

use super::{Sealed, Shape, View};
use crate::hash::{HashAlgorithm, KeyHash, RecordDigest, TreeHash};
use crate::merkle::Prefix;

/// A part of a tree, which has the hash of the whole: the nodes that some keys reach, and of the
/// other sides the hashes alone.
///
/// What becomes of the tree when these keys are put or removed follows from the part: so from a
/// [multiproof](super::MultiProof) of some keys anyone computes the hash of the tree in which they
/// are changed. O(keys x depth) memory.
#[derive(Clone, Debug)]
pub struct Partial {
    algorithm: HashAlgorithm,
    nodes: Vec<Piece>,
    top: Option<u32>,
}

/// A node of a part, with its hash.
#[derive(Clone, Copy, Debug)]
pub(super) enum Piece {
    /// Only its hash is known. It stands under this prefix.
    Unknown {
        hash: TreeHash,
        prefix: Prefix,
    },
    Leaf {
        hash: TreeHash,
        key: KeyHash,
        record: RecordDigest,
    },
    Inner {
        hash: TreeHash,
        bit: u8,
        left: u32,
        right: u32,
    },
}

impl Piece {
    const fn hash(&self) -> TreeHash {
        match self {
            Self::Unknown { hash, .. } | Self::Leaf { hash, .. } | Self::Inner { hash, .. } => {
                *hash
            }
        }
    }
}

/// The way to where a key stands or would.
struct Way {
    /// The inner nodes on it, with their bits.
    path: Vec<(u32, u8)>,
    /// The leaf that stands there, and its key.
    end: u32,
    found: KeyHash,
}

/// Two parts that are not of one tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the two parts are not of one tree")]
pub struct OtherTree;

impl Partial {
    /// The empty tree.
    #[must_use]
    pub const fn empty(algorithm: HashAlgorithm) -> Self {
        Self { algorithm, nodes: Vec::new(), top: None }
    }

    /// Adds a node whose children were added before it; the last one added is the top.
    pub(super) fn push(&mut self, piece: Piece) -> u32 {
        let at = self.nodes.len() as u32;
        self.nodes.push(piece);
        self.top = Some(at);
        at
    }

    pub(super) fn leaf(&mut self, key: KeyHash, record: RecordDigest) -> u32 {
        let hash = self.algorithm.leaf(&key, &record);
        self.push(Piece::Leaf { hash, key, record })
    }

    pub(super) fn inner(&mut self, bit: u8, left: u32, right: u32) -> u32 {
        let piece = self.inner_of(bit, left, right);
        self.push(piece)
    }

    fn inner_of(&self, bit: u8, left: u32, right: u32) -> Piece {
        let [of_left, of_right] = [left, right].map(|node| self.at(node).hash());
        Piece::Inner { hash: self.algorithm.inner(bit, &of_left, &of_right), bit, left, right }
    }

    // indices come from `push` alone, and nodes are never taken away
    fn at(&self, node: u32) -> &Piece {
        &self.nodes[node as usize]
    }

    /// Changes what is held under keys: to a record, or to nothing. O(depth) hashes for each.
    ///
    /// # Errors
    /// Where a key stands or would is not in this part; some of them may then be changed.
    pub fn apply(
        &mut self,
        changes: &BTreeMap<KeyHash, Option<RecordDigest>>,
    ) -> Result<(), Sealed> {
        for (key, record) in changes {
            if let Some(record) = record {
                self.put(key, record)?;
            }
        }
        // a leaf that goes takes the places of its neighbours along: all are looked up before
        let mut held = Vec::new();
        if let Some(top) = self.top {
            for (key, _) in changes.iter().filter(|(_, record)| record.is_none()) {
                let found = self.way(top, key)?.found;
                held.extend((found == *key).then_some(*key));
            }
        }
        held.iter().try_for_each(|key| self.remove(key))
    }

    fn put(&mut self, key: &KeyHash, record: &RecordDigest) -> Result<(), Sealed> {
        let Some(top) = self.top else {
            self.leaf(*key, *record);
            return Ok(());
        };
        let Way { mut path, end, found } = self.way(top, key)?;
        let leaf = self.leaf(*key, *record);
        let mut node = leaf;
        if let Some(split) = key.first_difference(&found) {
            // nodes that split above where the two differ stay above
            let above = path.partition_point(|(_, bit)| *bit < split);
            let below = path.get(above).map_or(end, |(node, _)| *node);
            path.truncate(above);
            let [left, right] = if key.bit(split) { [below, leaf] } else { [leaf, below] };
            node = self.inner(split, left, right);
        }
        self.top = Some(self.rebuild(key, &path, node));
        Ok(())
    }

    /// Removes a leaf that is there.
    fn remove(&mut self, key: &KeyHash) -> Result<(), Sealed> {
        let Some(top) = self.top else { return Ok(()) };
        let mut path = self.way(top, key)?.path;
        self.top = path.pop().map(|(parent, bit)| {
            let other = match (self.at(parent), key.bit(bit)) {
                (Piece::Inner { left, .. }, true) => *left,
                (Piece::Inner { right, .. }, false) => *right,
                _ => parent,
            };
            self.rebuild(key, &path, other)
        });
        Ok(())
    }

    fn way(&self, top: u32, key: &KeyHash) -> Result<Way, Sealed> {
        let (mut path, mut node) = (Vec::new(), top);
        loop {
            match self.at(node) {
                Piece::Unknown { prefix, .. } => return Err(Sealed(*prefix)),
                Piece::Leaf { key: found, .. } => {
                    return Ok(Way { path, end: node, found: *found });
                }
                Piece::Inner { bit, left, right, .. } => {
                    path.push((node, *bit));
                    node = if key.bit(*bit) { *right } else { *left };
                }
            }
        }
    }

    /// Puts a node in place of what stands at the end of a path; gives the top.
    fn rebuild(&mut self, key: &KeyHash, path: &[(u32, u8)], end: u32) -> u32 {
        path.iter().rev().fold(end, |below, &(node, _)| {
            if let Piece::Inner { bit, left, right, .. } = *self.at(node) {
                let (left, right) = if key.bit(bit) { (left, below) } else { (below, right) };
                self.nodes[node as usize] = self.inner_of(bit, left, right);
            }
            node
        })
    }

    /// Of the keys whose place is not in this part: keys of the tree's *unchanged* form whose
    /// places, once they are in it, put these there.
    #[must_use]
    pub fn missing(&self, keys: &[KeyHash]) -> Vec<KeyHash> {
        let Some(top) = self.top else { return Vec::new() };
        let missing = keys.iter().filter_map(|key| {
            let Sealed(prefix) = self.way(top, key).err()?;
            let mut wanted = prefix.first_key();
            for bit in prefix.len()..256 {
                let (byte, mask) = (usize::from(bit / 8), 0x80 >> (bit % 8));
                wanted.0[byte] |= key.0[byte] & mask;
            }
            Some(wanted)
        });
        missing.collect()
    }

    /// Adds what another part of the same tree knows.
    ///
    /// # Errors
    /// It is a part of another tree; this one may then be left with some of it.
    pub fn join(&mut self, other: &Self) -> Result<(), OtherTree> {
        if self.tree_hash() != other.tree_hash() {
            return Err(OtherTree);
        }
        match (self.top, other.top) {
            (Some(ours), Some(theirs)) => self.join_at(ours, other, theirs),
            _ => Ok(()),
        }
    }

    fn join_at(&mut self, ours: u32, other: &Self, theirs: u32) -> Result<(), OtherTree> {
        match (*self.at(ours), *other.at(theirs)) {
            (one, another) if one.hash() != another.hash() => Err(OtherTree),
            (
                Piece::Inner { left, right, .. },
                Piece::Inner { left: their_left, right: their_right, .. },
            ) => {
                self.join_at(left, other, their_left)?;
                self.join_at(right, other, their_right)
            }
            (Piece::Unknown { .. }, _) => {
                let top = self.top;
                let taken = self.take(other, theirs);
                self.nodes[ours as usize] = *self.at(taken);
                self.top = top;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Copies a node of another part with all below it.
    fn take(&mut self, other: &Self, node: u32) -> u32 {
        let piece = match *other.at(node) {
            Piece::Inner { hash, bit, left, right } => {
                let (left, right) = (self.take(other, left), self.take(other, right));
                Piece::Inner { hash, bit, left, right }
            }
            piece => piece,
        };
        self.push(piece)
    }
}

impl Shape for Partial {
    type Node = u32;

    fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    fn top(&self) -> Option<u32> {
        self.top
    }

    fn hash(&self, node: u32) -> TreeHash {
        self.at(node).hash()
    }

    fn view(&self, node: u32) -> Result<View<u32>, Sealed> {
        match *self.at(node) {
            Piece::Unknown { prefix, .. } => Err(Sealed(prefix)),
            Piece::Leaf { key, record, .. } => Ok(View::Leaf { key, record }),
            Piece::Inner { bit, left, right, .. } => Ok(View::Inner { bit, left, right }),
        }
    }
}
