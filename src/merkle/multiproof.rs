//! One proof of many keys: each node that several of them pass is there once.
//!
//! The nodes that at least one key reaches stand in pre-order, one shape bit each: 1 an inner
//! node, 0 a leaf. A side that no key reaches is one hash. 100 keys out of a million take 45 kB,
//! against 66 kB for single proofs.
//!
//! ```
//! use selfsame::hash::{HashAlgorithm, KeyHash, RecordDigest};
//! use selfsame::merkle::{Claim, MultiProof};
//!
//! // a tree of one leaf: one shape bit, 0, and the claims say the rest
//! let (key, record) = (KeyHash([1; 32]), RecordDigest([2; 32]));
//! let tree_hash = HashAlgorithm::Blake3.leaf(&key, &record);
//! let proof = MultiProof::parse(&[3, 1, 0, 0, 0, 0])?;
//! let claims = [Claim::absent(KeyHash([0; 32])), Claim::present(key, record)];
//! proof.verify(HashAlgorithm::Blake3, &tree_hash, &claims)?;
//! # Ok::<(), selfsame::merkle::MultiProofError>(())
//! ```

use bitvec::prelude::{BitVec, Msb0};

use super::digest::same;
use super::partial::{Partial, Piece};
use super::{Claim, Prefix, Proof, ProofError, Sealed, Shape, View};
use crate::codec::{CodecError, Reader, Writing};
use crate::hash::{HASH_LEN, HashAlgorithm, KeyHash, RecordDigest, TreeHash};

const KIND_EMPTY_TREE: u8 = 2;
const KIND_MULTIPROOF: u8 = 3;

/// A multiproof that is none, or not of what is claimed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MultiProofError {
    /// Cut short or left over.
    #[error("multiproof: {0}")]
    Codec(#[from] CodecError),
    /// No proof of an empty tree.
    #[error("multi{0}")]
    EmptyTree(#[from] ProofError),
    /// Not of kind 2 or 3.
    #[error("multiproof: kind {0} is unknown")]
    UnknownKind(u8),
    /// A padding bit is set.
    #[error("multiproof: the bits behind the shape are not zero")]
    Padding,
    /// No claims, or not strictly ascending ones.
    #[error("multiproof: claims must be at least one, strictly ascending by key hash")]
    ClaimsOrder,
    /// The shape ends before the tree does.
    #[error("multiproof: the shape has too few bits")]
    ShapeTooShort,
    /// The shape goes on after the tree has ended.
    #[error("multiproof: the shape has {0} bits too many")]
    ShapeTooLong(usize),
    /// An inner node that splits at or above its parent's bit.
    #[error("multiproof: a node splits at bit {bit}, not below its parent's bit {parent}")]
    DepthOrder {
        /// Its bit.
        bit: u8,
        /// Its parent's.
        parent: u8,
    },
    /// A claim of presence where another leaf or no tree at all is.
    #[error("multiproof: a key is claimed present where it cannot be")]
    WrongKind,
    /// The leaf that should show a key absent is the key's own.
    #[error("multiproof: the leaf that should show a key absent is the key's own")]
    SameKey,
    /// A leaf that does not belong on the path on which it stands.
    #[error("multiproof: a leaf does not belong where it stands")]
    OffPath,
    /// It hashes to another tree.
    #[error("multiproof: it does not lead to this tree hash: a claim or its source is wrong")]
    TreeHashMismatch,
}

/// No multiproof can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MultiProveError {
    /// A page is not in memory.
    #[error(transparent)]
    Sealed(#[from] Sealed),
    /// No keys.
    #[error("a multiproof needs at least one key")]
    NoKeys,
    /// More nodes than the format can count.
    #[error("{0} keys are too many for one multiproof: prove them in several")]
    TooMany(usize),
}

/// A proof of many claims: well-formed as far as that can be seen without the claims.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct MultiProof {
    // one bit for each node reached, in pre-order: 1 inner node, 0 leaf; none in an empty tree
    shape: BitVec<u8, Msb0>,
    // bit indices, hashes and leaves, in pre-order
    items: Vec<u8>,
}

impl MultiProof {
    /// Proves what the tree says of the keys, in any order, duplicates ignored. Gives the claims
    /// too, strictly ascending by key hash.
    ///
    /// # Errors
    /// A page on the way is not in memory; no keys, or too many.
    pub fn prove<S: Shape>(
        shape: &S,
        keys: impl IntoIterator<Item = KeyHash>,
    ) -> Result<(Vec<Claim>, Self), MultiProveError> {
        let mut keys: Vec<KeyHash> = keys.into_iter().collect();
        keys.sort_unstable();
        keys.dedup();
        if keys.is_empty() {
            return Err(MultiProveError::NoKeys);
        }
        let mut prover =
            Prover { tree: shape, shape: BitVec::new(), items: Vec::new(), present: Vec::new() };
        if let Some(top) = shape.top() {
            prover.node(top, &keys)?;
        }
        if u32::try_from(prover.shape.len()).is_err() {
            return Err(MultiProveError::TooMany(keys.len()));
        }
        // leaves were met in ascending order
        let claims = keys.iter().map(|key| {
            let found = prover.present.binary_search_by_key(key, |(key, _)| *key);
            Claim { key: *key, record: found.ok().map(|at| prover.present[at].1) }
        });
        let claims = claims.collect();
        Ok((claims, Self { shape: prover.shape, items: prover.items }))
    }

    /// Checks that all claims are true in the tree with this hash.
    ///
    /// # Errors
    /// They are not proved; the error says why.
    pub fn verify(
        &self,
        algorithm: HashAlgorithm,
        tree_hash: &TreeHash,
        claims: &[Claim],
    ) -> Result<(), MultiProofError> {
        let part = self.partial(algorithm, claims)?;
        match same(&part.tree_hash().0, &tree_hash.0) {
            true => Ok(()),
            false => Err(MultiProofError::TreeHashMismatch),
        }
    }

    /// The part of a tree that the proof and the claims make. It proves them if, and only if, its
    /// tree hash is the one that it should be.
    ///
    /// # Errors
    /// They make none.
    pub fn partial(
        &self,
        algorithm: HashAlgorithm,
        claims: &[Claim],
    ) -> Result<Partial, MultiProofError> {
        if claims.is_empty() || claims.windows(2).any(|pair| pair[0].key >= pair[1].key) {
            return Err(MultiProofError::ClaimsOrder);
        }
        if self.shape.is_empty() {
            return match claims.iter().any(|claim| claim.record.is_some()) {
                true => Err(MultiProofError::WrongKind),
                false => Ok(Partial::empty(algorithm)),
            };
        }
        let mut verifier = Verifier {
            part: Partial::empty(algorithm),
            shape: self.shape.iter().by_vals(),
            items: Reader::new(&self.items),
            passed: Vec::new(),
        };
        let claims: Vec<&Claim> = claims.iter().collect();
        verifier.node(&claims)?;
        match verifier.shape.len() {
            0 => verifier.items.finish()?,
            left => return Err(MultiProofError::ShapeTooLong(left)),
        }
        Ok(verifier.part)
    }

    /// Reads the bytes strictly: what is accepted encodes to the same bytes.
    ///
    /// # Errors
    /// Bytes that are no multiproof, whatever it should prove.
    pub fn parse(bytes: &[u8]) -> Result<Self, MultiProofError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            KIND_EMPTY_TREE => {
                Proof::parse(bytes)?;
                Ok(Self::default())
            }
            KIND_MULTIPROOF => {
                let bits = reader.u32()? as usize;
                let mut shape = BitVec::<u8, Msb0>::from_slice(reader.bytes(bits.div_ceil(8))?);
                if shape[bits..].any() {
                    return Err(MultiProofError::Padding);
                }
                shape.truncate(bits);
                if shape.is_empty() {
                    return Err(MultiProofError::ShapeTooShort);
                }
                let items = reader.bytes(reader.remaining())?.to_vec();
                Ok(Self { shape, items })
            }
            kind => Err(MultiProofError::UnknownKind(kind)),
        }
    }

    /// The bytes of the proof.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        if self.shape.is_empty() {
            return Proof::of_empty_tree().to_bytes();
        }
        let mut padded = self.shape.clone();
        padded.set_uninitialized(false);
        let mut bytes = Vec::with_capacity(5 + padded.as_raw_slice().len() + self.items.len());
        bytes.put_u8(KIND_MULTIPROOF);
        bytes.put_u32(self.shape.len() as u32);
        bytes.put_bytes(padded.as_raw_slice());
        bytes.put_bytes(&self.items);
        bytes
    }
}

struct Prover<'a, S> {
    tree: &'a S,
    shape: BitVec<u8, Msb0>,
    items: Vec<u8>,
    present: Vec<(KeyHash, RecordDigest)>,
}

impl<S: Shape> Prover<'_, S> {
    /// Writes a node that `keys`, at least one, reach. As deep as the tree: 256 at most.
    fn node(&mut self, node: S::Node, keys: &[KeyHash]) -> Result<(), Sealed> {
        match self.tree.view(node)? {
            View::Leaf { key, record } => {
                self.shape.push(false);
                if keys.contains(&key) {
                    self.present.push((key, record));
                } else {
                    self.items.put_bytes(&key.0);
                    self.items.put_bytes(&record.0);
                }
                Ok(())
            }
            View::Inner { bit, left, right } => {
                self.shape.push(true);
                self.items.put_u8(bit);
                let (to_right, to_left): (Vec<_>, Vec<_>) =
                    keys.iter().copied().partition(|key| key.bit(bit));
                self.side(left, &to_left)?;
                self.side(right, &to_right)
            }
        }
    }

    fn side(&mut self, node: S::Node, keys: &[KeyHash]) -> Result<(), Sealed> {
        if keys.is_empty() {
            self.items.put_bytes(&self.tree.hash(node).0);
            return Ok(());
        }
        self.node(node, keys)
    }
}

struct Verifier<'a, I> {
    part: Partial,
    shape: I,
    items: Reader<'a>,
    // bit indices on the way to the present node, with the direction taken
    passed: Vec<(u8, bool)>,
}

impl<I: ExactSizeIterator<Item = bool>> Verifier<'_, I> {
    /// A node that `claims`, at least one, reach. Bit indices ascend on the way down, so it is
    /// 256 deep at most; each node is reached by a claim, so hostile bytes cost no more than 256
    /// nodes a claim.
    fn node(&mut self, claims: &[&Claim]) -> Result<u32, MultiProofError> {
        if !self.shape.next().ok_or(MultiProofError::ShapeTooShort)? {
            return self.leaf(claims);
        }
        let bit = self.items.u8()?;
        if let Some(&(parent, _)) = self.passed.last()
            && bit <= parent
        {
            return Err(MultiProofError::DepthOrder { bit, parent });
        }
        let (to_right, to_left): (Vec<_>, Vec<_>) =
            claims.iter().copied().partition(|claim| claim.key.bit(bit));
        let left = self.side(bit, false, &to_left, &to_right)?;
        let right = self.side(bit, true, &to_right, &to_left)?;
        Ok(self.part.inner(bit, left, right))
    }

    fn side(
        &mut self,
        bit: u8,
        is_right: bool,
        claims: &[&Claim],
        opposite: &[&Claim],
    ) -> Result<u32, MultiProofError> {
        if claims.is_empty() {
            let hash = TreeHash(self.items.array()?);
            // all that is known of the way here: that of the other side, but for its last bit
            let beside = opposite.first().map_or(KeyHash([0; HASH_LEN]), |claim| claim.key);
            let parent = Prefix::of(&beside, u16::from(bit));
            let prefix = parent.child(is_right).unwrap_or(parent);
            return Ok(self.part.push(Piece::Unknown { hash, prefix }));
        }
        self.passed.push((bit, is_right));
        let node = self.node(claims);
        self.passed.pop();
        node
    }

    fn leaf(&mut self, claims: &[&Claim]) -> Result<u32, MultiProofError> {
        let mut present = claims.iter().filter_map(|claim| Some((claim.key, claim.record?)));
        match (present.next(), present.next()) {
            (Some(_), Some(_)) => Err(MultiProofError::WrongKind),
            (Some((key, record)), None) => Ok(self.part.leaf(key, record)),
            (None, _) => {
                let key = KeyHash(self.items.array()?);
                let record = RecordDigest(self.items.array()?);
                if claims.iter().any(|claim| claim.key == key) {
                    return Err(MultiProofError::SameKey);
                }
                if self.passed.iter().any(|&(bit, is_right)| key.bit(bit) != is_right) {
                    return Err(MultiProofError::OffPath);
                }
                Ok(self.part.leaf(key, record))
            }
        }
    }
}
