//! Proofs that a key is in a tree with a record digest, or is not in it.
//!
//! Every inner node binds the bit index at which it splits, so a path leads to the one leaf where
//! a key could stand: the leaf found there is the key's own (kind 0), another one (kind 1), or the
//! tree is empty (kind 2). About 32 bytes for each of log2 n levels, and 37 bytes more.
//!
//! ```
//! use selfsame::hash::{HashAlgorithm, KeyHash, RecordDigest};
//! use selfsame::merkle::{Claim, Proof};
//!
//! // a tree of one leaf: its tree hash is the leaf hash
//! let (key, record) = (KeyHash([1; 32]), RecordDigest([2; 32]));
//! let tree_hash = HashAlgorithm::Blake3.leaf(&key, &record);
//! let proof = Proof::parse(&[0, 0, 0, 0])?;
//! proof.verify(HashAlgorithm::Blake3, &tree_hash, &Claim::present(key, record))?;
//! assert!(proof.verify(HashAlgorithm::Blake3, &tree_hash, &Claim::absent(key)).is_err());
//! # Ok::<(), selfsame::merkle::ProofError>(())
//! ```

use super::digest::same;
use super::path::Path;
use super::{Sealed, Shape, Trail};
use crate::codec::{CodecError, Reader, Writing};
use crate::hash::{HASH_LEN, HashAlgorithm, KeyHash, RecordDigest, TreeHash};

/// Longest proof in bytes: 256 hashes with their bitmap, or 255 of them and another leaf.
pub const MAX_PROOF_BYTES: usize = 4 + HASH_LEN + 2 * HASH_LEN + 255 * HASH_LEN;

/// A proof that is none, or not of what is claimed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// Cut short or left over.
    #[error("proof: {0}")]
    Codec(#[from] CodecError),
    /// Not of kind 0, 1 or 2.
    #[error("proof: kind {0} is unknown")]
    UnknownKind(u8),
    /// A bitmap of more than 32 bytes.
    #[error("proof: a bitmap of {0} bytes is longer than a key hash")]
    BitmapTooLong(u8),
    /// The last byte of the bitmap is zero.
    #[error("proof: the bitmap ends in a zero byte")]
    BitmapNotMinimal,
    /// The bitmap does not have as many bits as there are hashes.
    #[error("proof: {bits} bits on the path, but {hashes} hashes")]
    PathLength {
        /// Bits set in the bitmap.
        bits: usize,
        /// Hashes announced.
        hashes: u16,
    },
    /// A path in an empty tree.
    #[error("proof: a path in an empty tree")]
    EmptyTreeWithPath,
    /// A path on which no leaf but the key's own could stand.
    #[error("proof: no other leaf can stand below a path of all 256 bits")]
    OtherLeafTooDeep,
    /// The proof is of presence and absence was claimed, or the other way round.
    #[error("proof: it is of another kind than the claim")]
    WrongKind,
    /// The other leaf is the key's own.
    #[error("proof: the leaf that should show the key absent is the key's own")]
    SameKey,
    /// The other leaf does not stand where the key would.
    #[error("proof: the leaf that should show the key absent does not stand where the key would")]
    OffPath,
    /// It hashes to another tree.
    #[error("proof: it does not lead to this tree hash: the claim or its source is wrong")]
    TreeHashMismatch,
}

/// What is claimed of a key: its record digest, or that it is absent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Claim {
    /// The key's hash.
    pub key: KeyHash,
    /// Digest of its record; none claims that the key is absent.
    pub record: Option<RecordDigest>,
}

impl Claim {
    /// The key is there, with this record.
    #[must_use]
    pub const fn present(key: KeyHash, record: RecordDigest) -> Self {
        Self { key, record: Some(record) }
    }

    /// The key is not there.
    #[must_use]
    pub const fn absent(key: KeyHash) -> Self {
        Self { key, record: None }
    }
}

/// What stands at the end of a proof's path.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum End {
    /// What is claimed: the key's leaf, or the entries of a subtree.
    Claimed,
    /// Another leaf.
    Other { key: KeyHash, record: RecordDigest },
    /// Nothing at all.
    EmptyTree,
}

/// What a proof can show.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ProofKind {
    /// The key's leaf is there. Kind 0.
    Present,
    /// Another leaf stands where the key's would. Kind 1.
    OtherLeaf,
    /// The tree is empty. Kind 2.
    EmptyTree,
}

/// A proof v1 of one key: well-formed, which says nothing yet of what it proves.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Proof {
    pub(super) end: End,
    pub(super) path: Path,
    // deepest first, as many as the path has bits
    pub(super) siblings: Vec<TreeHash>,
}

impl Proof {
    /// Proves what the tree says of a key. O(log n) reads, no hashing.
    ///
    /// # Errors
    /// A page on the way is not in memory.
    pub fn prove<S: Shape>(shape: &S, key: &KeyHash) -> Result<Self, Sealed> {
        let Some(trail) = shape.trail(key)? else { return Ok(Self::of_empty_tree()) };
        let Trail { key: found, record, path, siblings } = trail;
        let end = if found == *key { End::Claimed } else { End::Other { key: found, record } };
        Ok(Self { end, path, siblings })
    }

    /// Whether it can show presence or absence, and how.
    #[must_use]
    pub const fn kind(&self) -> ProofKind {
        match self.end {
            End::Claimed => ProofKind::Present,
            End::Other { .. } => ProofKind::OtherLeaf,
            End::EmptyTree => ProofKind::EmptyTree,
        }
    }

    /// Checks that the claim is true in the tree with this hash. One hash for each level.
    ///
    /// # Errors
    /// The claim is not proved; the error says why.
    pub fn verify(
        &self,
        algorithm: HashAlgorithm,
        tree_hash: &TreeHash,
        claim: &Claim,
    ) -> Result<(), ProofError> {
        let end = match (&self.end, &claim.record) {
            (End::Claimed, Some(record)) => algorithm.leaf(&claim.key, record),
            (End::Other { key, record }, None) => {
                if *key == claim.key {
                    return Err(ProofError::SameKey);
                }
                if !self.path.is_shared_by(key, &claim.key) {
                    return Err(ProofError::OffPath);
                }
                algorithm.leaf(key, record)
            }
            (End::EmptyTree, None) => algorithm.empty(),
            _ => return Err(ProofError::WrongKind),
        };
        self.check_fold(algorithm, tree_hash, &claim.key, end)
    }

    /// Reads the bytes strictly: what is accepted encodes to the same bytes.
    ///
    /// # Errors
    /// Bytes that are no proof v1, whatever it should prove.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProofError> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u8()?;
        if kind > 2 {
            return Err(ProofError::UnknownKind(kind));
        }
        let hashes = reader.u16()?;
        let bitmap_len = reader.u8()?;
        if usize::from(bitmap_len) > HASH_LEN {
            return Err(ProofError::BitmapTooLong(bitmap_len));
        }
        let bitmap = reader.bytes(usize::from(bitmap_len))?;
        if bitmap.last() == Some(&0) {
            return Err(ProofError::BitmapNotMinimal);
        }
        let path = Path::from_bitmap(bitmap).ok_or(ProofError::BitmapTooLong(bitmap_len))?;
        if path.len() != usize::from(hashes) {
            return Err(ProofError::PathLength { bits: path.len(), hashes });
        }
        let end = match kind {
            0 => End::Claimed,
            1 if hashes > 255 => return Err(ProofError::OtherLeafTooDeep),
            1 => {
                End::Other { key: KeyHash(reader.array()?), record: RecordDigest(reader.array()?) }
            }
            _ if hashes > 0 => return Err(ProofError::EmptyTreeWithPath),
            _ => End::EmptyTree,
        };
        let siblings = (0..hashes)
            .map(|_| Ok(TreeHash(reader.array()?)))
            .collect::<Result<_, CodecError>>()?;
        reader.finish()?;
        Ok(Self { end, path, siblings })
    }

    /// The bytes of the proof, at most [`MAX_PROOF_BYTES`].
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let bitmap = self.path.bitmap();
        let mut bytes = Vec::with_capacity(4 + bitmap.len() + (self.siblings.len() + 2) * HASH_LEN);
        bytes.put_u8(match self.end {
            End::Claimed => 0,
            End::Other { .. } => 1,
            End::EmptyTree => 2,
        });
        bytes.put_u16(self.siblings.len() as u16);
        bytes.put_u8(bitmap.len() as u8);
        bytes.put_bytes(bitmap);
        if let End::Other { key, record } = &self.end {
            bytes.put_bytes(&key.0);
            bytes.put_bytes(&record.0);
        }
        for sibling in &self.siblings {
            bytes.put_bytes(&sibling.0);
        }
        bytes
    }

    pub(super) fn of_empty_tree() -> Self {
        Self { end: End::EmptyTree, path: Path::default(), siblings: Vec::new() }
    }

    pub(super) fn check_fold(
        &self,
        algorithm: HashAlgorithm,
        tree_hash: &TreeHash,
        directions: &KeyHash,
        end: TreeHash,
    ) -> Result<(), ProofError> {
        let folded = self.path.fold(algorithm, directions, end, &self.siblings);
        if same(&folded.0, &tree_hash.0) { Ok(()) } else { Err(ProofError::TreeHashMismatch) }
    }
}

/// The way down a tree, and what was passed by.
pub(super) struct Descent<'a, S: Shape> {
    shape: &'a S,
    pub(super) node: S::Node,
    path: Path,
    passed: Vec<S::Node>,
}

impl<'a, S: Shape> Descent<'a, S> {
    pub(super) fn new(shape: &'a S, top: S::Node) -> Self {
        Self { shape, node: top, path: Path::default(), passed: Vec::with_capacity(32) }
    }

    pub(super) fn step(&mut self, bit: u8, goes_right: bool, left: S::Node, right: S::Node) {
        let (next, passed) = if goes_right { (right, left) } else { (left, right) };
        self.path.insert(bit);
        self.passed.push(passed);
        self.node = next;
    }

    // hashes are read last, when it is known which: so the memory can be asked for all at once
    pub(super) fn finish(self, end: End) -> Proof {
        let siblings = self.passed.iter().rev().map(|passed| self.shape.hash(*passed)).collect();
        Proof { end, path: self.path, siblings }
    }
}
