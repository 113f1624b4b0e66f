//! Proofs of all entries under a prefix: that those listed are there, and that there is no other.
//!
//! The bytes are those of a proof v1. A proof of a single key is one with a prefix of 256 bits.
//!
//! ```
//! use selfsame::hash::{HashAlgorithm, KeyHash, RecordDigest};
//! use selfsame::merkle::{Prefix, SubtreeProof};
//!
//! // a tree of one leaf, and a prefix under which it does not stand
//! let (key, record) = (KeyHash([0xff; 32]), RecordDigest([2; 32]));
//! let algorithm = HashAlgorithm::Blake3;
//! let tree_hash = algorithm.leaf(&key, &record);
//! let prefix = Prefix::new(&[0x00], 8)?;
//! let proof = SubtreeProof::parse(&[&[1, 0, 0, 0], &key.0[..], &record.0[..]].concat())?;
//! proof.verify(algorithm, &tree_hash, &prefix, &[])?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use super::proof::{Descent, End, Proof, ProofError};
use super::{Prefix, Sealed, Shape, View};
use crate::hash::{HashAlgorithm, KeyHash, RecordDigest, TreeHash};

/// A subtree proof that is none, or not of what is claimed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubtreeError {
    /// No proof, or one that does not hold.
    #[error("subtree {0}")]
    Proof(#[from] ProofError),
    /// The entries are not strictly ascending.
    #[error("subtree proof: the entries are not strictly ascending by key hash")]
    EntriesOrder,
    /// An entry that does not stand under the prefix.
    #[error("subtree proof: entry {0} does not stand under the prefix")]
    OutsidePrefix(KeyHash),
    /// The path goes on below the prefix, where other entries could stand.
    #[error("subtree proof: the path goes on below the prefix, at bit {0}")]
    PathBelowPrefix(u8),
}

/// A proof of all entries under a prefix: well-formed, which says nothing yet of what it proves.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SubtreeProof(Proof);

impl SubtreeProof {
    /// Proves what stands under a prefix; the entries themselves are not in it.
    ///
    /// # Errors
    /// A page on the way is not in memory.
    pub fn prove<S: Shape>(shape: &S, prefix: &Prefix) -> Result<Self, Sealed> {
        let Some(top) = shape.top() else { return Ok(Self(Proof::of_empty_tree())) };
        let wanted = prefix.first_key();
        let mut descent = Descent::new(shape, top);
        while let View::Inner { bit, left, right } = shape.view(descent.node)?
            && u16::from(bit) < prefix.len()
        {
            descent.step(bit, wanted.bit(bit), left, right);
        }
        // all leaves from here on agree in the prefix's bits: the least one speaks for them
        let (least, _) = least_leaf(shape, descent.node)?;
        if prefix.contains(&least) {
            return Ok(Self(descent.finish(End::Claimed)));
        }
        let (key, record) = loop {
            match shape.view(descent.node)? {
                View::Leaf { key, record } => break (key, record),
                View::Inner { bit, left, right } => descent.step(bit, false, left, right),
            }
        };
        Ok(Self(descent.finish(End::Other { key, record })))
    }

    /// Checks that the entries, strictly ascending by key hash, are all that stand under the
    /// prefix in the tree with this hash.
    ///
    /// # Errors
    /// That is not proved; the error says why.
    pub fn verify(
        &self,
        algorithm: HashAlgorithm,
        tree_hash: &TreeHash,
        prefix: &Prefix,
        entries: &[(KeyHash, RecordDigest)],
    ) -> Result<(), SubtreeError> {
        let (directions, end) = match (&self.0.end, entries.is_empty()) {
            (End::Claimed, false) => {
                check_entries(prefix, entries)?;
                match self.0.path.last() {
                    Some(bit) if u16::from(bit) >= prefix.len() => {
                        return Err(SubtreeError::PathBelowPrefix(bit));
                    }
                    _ => (prefix.first_key(), tree_of(algorithm, entries)),
                }
            }
            (End::Other { key, record }, true) => {
                if prefix.contains(key) {
                    return Err(ProofError::SameKey.into());
                }
                let within = self.0.path.above(prefix.len());
                if !within.is_shared_by(key, &prefix.first_key()) {
                    return Err(ProofError::OffPath.into());
                }
                (*key, algorithm.leaf(key, record))
            }
            (End::EmptyTree, true) => (prefix.first_key(), algorithm.empty()),
            _ => return Err(ProofError::WrongKind.into()),
        };
        Ok(self.0.check_fold(algorithm, tree_hash, &directions, end)?)
    }

    /// Reads the bytes strictly: what is accepted encodes to the same bytes.
    ///
    /// # Errors
    /// Bytes that are no proof v1, whatever it should prove.
    pub fn parse(bytes: &[u8]) -> Result<Self, SubtreeError> {
        Ok(Self(Proof::parse(bytes)?))
    }

    /// The bytes of the proof.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes()
    }

    /// Whether it can show entries or that there are none, and how.
    #[must_use]
    pub const fn kind(&self) -> super::ProofKind {
        self.0.kind()
    }
}

pub(super) fn check_entries(
    prefix: &Prefix,
    entries: &[(KeyHash, RecordDigest)],
) -> Result<(), SubtreeError> {
    if entries.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
        return Err(SubtreeError::EntriesOrder);
    }
    match entries.iter().find(|(key, _)| !prefix.contains(key)) {
        Some((key, _)) => Err(SubtreeError::OutsidePrefix(*key)),
        None => Ok(()),
    }
}

fn least_leaf<S: Shape>(shape: &S, from: S::Node) -> Result<(KeyHash, RecordDigest), Sealed> {
    let mut node = from;
    loop {
        match shape.view(node)? {
            View::Leaf { key, record } => return Ok((key, record)),
            View::Inner { left, .. } => node = left,
        }
    }
}

/// Tree hash of leaves that are strictly ascending by key hash. Each is hashed once, in O(256)
/// memory.
fn tree_of(algorithm: HashAlgorithm, leaves: &[(KeyHash, RecordDigest)]) -> TreeHash {
    // subtrees that wait for their right side, with the bit at which they split from it
    let mut waiting: Vec<(u8, TreeHash)> = Vec::new();
    let mut done = algorithm.empty();
    for (at, (key, record)) in leaves.iter().enumerate() {
        let split = leaves.get(at + 1).and_then(|(next, _)| key.first_difference(next));
        done = algorithm.leaf(key, record);
        while let Some(&(bit, left)) = waiting.last()
            && split.is_none_or(|split| bit > split)
        {
            done = algorithm.inner(bit, &left, &done);
            waiting.pop();
        }
        if let Some(split) = split {
            waiting.push((split, done));
        }
    }
    done
}
