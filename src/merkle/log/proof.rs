//! Inclusion and consistency proofs of a Merkle log (RFC 9162, sections 2.1.3 and 2.1.4).
//!
//! Sizes and roots to compare with come from the log heads that the verifier holds, never from
//! the proof. Provers ask for the hashes of perfect subtrees, which a store may keep or compute.
//!
//! ```
//! use selfsame::hash::HashAlgorithm;
//! use selfsame::merkle::{ConsistencyProof, MerkleLog};
//!
//! let algorithm = HashAlgorithm::Blake3;
//! let mut log = MerkleLog::new(algorithm);
//! let mut leaves = vec![log.append(b"first")];
//! let (first, first_root) = (log.size(), log.root());
//! leaves.push(log.append(b"second"));
//!
//! let proof = ConsistencyProof::of_leaves(algorithm, &leaves, first).expect("a shorter log");
//! proof.verify(algorithm, (first, &first_root), (log.size(), &log.root()))?;
//! # Ok::<(), selfsame::merkle::LogProofError>(())
//! ```

use std::convert::Infallible;

use super::Perfect;
use crate::codec::{CodecError, Reader, Writing};
use crate::hash::{HASH_LEN, HashAlgorithm, LogHash};
use crate::merkle::digest::same;

const KIND_INCLUSION: u8 = 1;
const KIND_CONSISTENCY: u8 = 2;

/// A log proof that is none, or does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogProofError {
    /// Cut short or left over.
    #[error("log proof: {0}")]
    Codec(#[from] CodecError),
    /// Not the kind that was asked for.
    #[error("log proof: kind {0} is not the one asked for")]
    UnknownKind(u8),
    /// It is about another size than the verifier's head.
    #[error("log proof: it is about {found} items, the log head about {expected}")]
    Size {
        /// Size in the proof.
        found: u64,
        /// Size in the head.
        expected: u64,
    },
    /// The item would stand behind the end of the log.
    #[error("log proof: item {index} is beyond the {size} items of the log")]
    IndexBeyondLog {
        /// Index of the item.
        index: u64,
        /// Size of the log.
        size: u64,
    },
    /// It is about another number of items than there are.
    #[error("log proof: it is about {found} items in a row, not about these {expected}")]
    Count {
        /// Number in the proof.
        found: u64,
        /// Number of the items.
        expected: u64,
    },
    /// The second log is shorter than the first.
    #[error("log proof: the log shrank from {first} to {second} items: do not trust its node")]
    LogShrank {
        /// Size of the first.
        first: u64,
        /// Size of the second.
        second: u64,
    },
    /// Fewer hashes than the path has.
    #[error("log proof: hashes are missing")]
    MissingHashes,
    /// More hashes than the path has.
    #[error("log proof: hashes are left over")]
    TrailingHashes,
    /// It leads to another root.
    #[error("log proof: it does not lead to the log head's root: the item or a head is wrong")]
    RootMismatch,
}

/// Proof that an item stands at an index of a log: well-formed, which says nothing yet of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct InclusionProof {
    index: u64,
    size: u64,
    // deepest first
    hashes: Vec<LogHash>,
}

impl InclusionProof {
    /// Proves that an item is in the log of the first `size` items; none when it is not. `node`
    /// gives hashes of perfect subtrees, at most 128 of them.
    ///
    /// # Errors
    /// What `node` fails with.
    pub fn prove<E>(
        algorithm: HashAlgorithm,
        size: u64,
        index: u64,
        node: impl FnMut(Perfect) -> Result<LogHash, E>,
    ) -> Result<Option<Self>, E> {
        if index >= size {
            return Ok(None);
        }
        let mut prover = Prover { algorithm, node, hashes: Vec::new() };
        prover.inclusion(index, 0, size)?;
        Ok(Some(Self { index, size, hashes: prover.hashes }))
    }

    /// Proves it from the leaf hashes of all items.
    #[must_use]
    pub fn of_leaves(algorithm: HashAlgorithm, leaves: &[LogHash], index: u64) -> Option<Self> {
        let Ok(proof) =
            Self::prove(algorithm, leaves.len() as u64, index, node_of(algorithm, leaves));
        proof
    }

    /// The index at which it shows an item.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// The size of the log that it is about.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The hashes, deepest first.
    #[must_use]
    pub fn hashes(&self) -> &[LogHash] {
        &self.hashes
    }

    /// Checks that the item with this leaf hash stands at [`index`](Self::index) of the log with
    /// this size and root, which come from a log head.
    ///
    /// # Errors
    /// It is not proved; the error says why.
    pub fn verify(
        &self,
        algorithm: HashAlgorithm,
        size: u64,
        root: &LogHash,
        leaf: &LogHash,
    ) -> Result<(), LogProofError> {
        if self.size != size {
            return Err(LogProofError::Size { found: self.size, expected: size });
        }
        if self.index >= size {
            return Err(LogProofError::IndexBeyondLog { index: self.index, size });
        }
        let (mut at, mut last) = (self.index, size - 1);
        let mut hash = *leaf;
        for passed in &self.hashes {
            if last == 0 {
                return Err(LogProofError::TrailingHashes);
            }
            if at & 1 == 1 || at == last {
                hash = algorithm.log_inner(passed, &hash);
                skip_left_edge(&mut at, &mut last);
            } else {
                hash = algorithm.log_inner(&hash, passed);
            }
            (at, last) = (at >> 1, last >> 1);
        }
        if last != 0 {
            return Err(LogProofError::MissingHashes);
        }
        check_root(&hash, root)
    }

    /// Reads the bytes strictly: what is accepted encodes to the same bytes.
    ///
    /// # Errors
    /// Bytes that are no inclusion proof, whatever it should prove.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogProofError> {
        let (index, size, hashes) = parse_parts(KIND_INCLUSION, bytes)?;
        Ok(Self { index, size, hashes })
    }

    /// The bytes of the proof.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        parts_to_bytes(KIND_INCLUSION, self.index, self.size, &self.hashes)
    }
}

/// Proof that one log is the beginning of another: well-formed, which says nothing yet of them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ConsistencyProof {
    first: u64,
    second: u64,
    // in the order of RFC 9162
    hashes: Vec<LogHash>,
}

impl ConsistencyProof {
    /// Proves that the log of the first `first` items is the beginning of that of `second`; none
    /// when `first` is greater. `node` gives hashes of perfect subtrees, at most 128 of them.
    ///
    /// # Errors
    /// What `node` fails with.
    pub fn prove<E>(
        algorithm: HashAlgorithm,
        first: u64,
        second: u64,
        node: impl FnMut(Perfect) -> Result<LogHash, E>,
    ) -> Result<Option<Self>, E> {
        if first > second {
            return Ok(None);
        }
        let mut prover = Prover { algorithm, node, hashes: Vec::new() };
        if first > 0 {
            prover.consistency(first, 0, second, true)?;
        }
        Ok(Some(Self { first, second, hashes: prover.hashes }))
    }

    /// Proves it from the leaf hashes of all items of the longer log.
    #[must_use]
    pub fn of_leaves(algorithm: HashAlgorithm, leaves: &[LogHash], first: u64) -> Option<Self> {
        let Ok(proof) =
            Self::prove(algorithm, first, leaves.len() as u64, node_of(algorithm, leaves));
        proof
    }

    /// Size of the shorter log.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// Size of the longer log.
    #[must_use]
    pub const fn second(&self) -> u64 {
        self.second
    }

    /// The hashes, in the order of RFC 9162.
    #[must_use]
    pub fn hashes(&self) -> &[LogHash] {
        &self.hashes
    }

    /// Checks that the log of the first size and root is the beginning of that of the second;
    /// both come from log heads of one log.
    ///
    /// # Errors
    /// It is not proved; the error says why.
    pub fn verify(
        &self,
        algorithm: HashAlgorithm,
        (first, first_root): (u64, &LogHash),
        (second, second_root): (u64, &LogHash),
    ) -> Result<(), LogProofError> {
        for (found, expected) in [(self.first, first), (self.second, second)] {
            if found != expected {
                return Err(LogProofError::Size { found, expected });
            }
        }
        if first > second {
            return Err(LogProofError::LogShrank { first, second });
        }
        if first == 0 || first == second {
            if !self.hashes.is_empty() {
                return Err(LogProofError::TrailingHashes);
            }
            let expected = if first == 0 { &algorithm.log_empty() } else { second_root };
            check_root(first_root, expected)?;
            return if second == 0 { check_root(second_root, expected) } else { Ok(()) };
        }
        let (mut at, mut last) = (first - 1, second - 1);
        let complete = at.trailing_ones();
        (at, last) = (at >> complete, last >> complete);
        // a first log that is one perfect subtree is its own first hash
        let mut hashes = self.hashes.iter();
        let start = if first.is_power_of_two() { Some(first_root) } else { hashes.next() };
        let start = start.ok_or(LogProofError::MissingHashes)?;
        let (mut old, mut new) = (*start, *start);
        for passed in hashes {
            if last == 0 {
                return Err(LogProofError::TrailingHashes);
            }
            if at & 1 == 1 || at == last {
                old = algorithm.log_inner(passed, &old);
                new = algorithm.log_inner(passed, &new);
                skip_left_edge(&mut at, &mut last);
            } else {
                new = algorithm.log_inner(&new, passed);
            }
            (at, last) = (at >> 1, last >> 1);
        }
        if last != 0 {
            return Err(LogProofError::MissingHashes);
        }
        check_root(&old, first_root)?;
        check_root(&new, second_root)
    }

    /// Reads the bytes strictly: what is accepted encodes to the same bytes.
    ///
    /// # Errors
    /// Bytes that are no consistency proof, whatever it should prove.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogProofError> {
        let (first, second, hashes) = parse_parts(KIND_CONSISTENCY, bytes)?;
        Ok(Self { first, second, hashes })
    }

    /// The bytes of the proof.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        parts_to_bytes(KIND_CONSISTENCY, self.first, self.second, &self.hashes)
    }
}

/// Moves up over levels at which the node is the last one and has no sibling.
const fn skip_left_edge(at: &mut u64, last: &mut u64) {
    while *at & 1 == 0 && *at != 0 {
        (*at, *last) = (*at >> 1, *last >> 1);
    }
}

pub(super) fn check_root(found: &LogHash, expected: &LogHash) -> Result<(), LogProofError> {
    if same(&found.0, &expected.0) { Ok(()) } else { Err(LogProofError::RootMismatch) }
}

fn parse_parts(kind: u8, bytes: &[u8]) -> Result<(u64, u64, Vec<LogHash>), LogProofError> {
    let mut reader = Reader::new(bytes);
    match reader.u8()? {
        found if found == kind => {}
        found => return Err(LogProofError::UnknownKind(found)),
    }
    let (first, second) = (reader.u64()?, reader.u64()?);
    let hashes = (0..reader.u8()?)
        .map(|_| Ok(LogHash(reader.array()?)))
        .collect::<Result<_, CodecError>>()?;
    reader.finish()?;
    Ok((first, second, hashes))
}

fn parts_to_bytes(kind: u8, first: u64, second: u64, hashes: &[LogHash]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(18 + hashes.len() * HASH_LEN);
    bytes.put_u8(kind);
    bytes.put_u64(first);
    bytes.put_u64(second);
    bytes.put_u8(hashes.len() as u8);
    for hash in hashes {
        bytes.put_bytes(&hash.0);
    }
    bytes
}

fn node_of(
    algorithm: HashAlgorithm,
    leaves: &[LogHash],
) -> impl FnMut(Perfect) -> Result<LogHash, Infallible> {
    // provers ask for subtrees within the size only
    move |perfect| perfect.hash(algorithm, |index| Ok(leaves[index as usize]))
}

pub(super) struct Prover<F> {
    pub(super) algorithm: HashAlgorithm,
    pub(super) node: F,
    pub(super) hashes: Vec<LogHash>,
}

impl<E, F: FnMut(Perfect) -> Result<LogHash, E>> Prover<F> {
    /// PATH of RFC 9162: `index` counts from `first`.
    fn inclusion(&mut self, index: u64, first: u64, count: u64) -> Result<(), E> {
        if count == 1 {
            return Ok(());
        }
        let left = left_of(count);
        let passed = if index < left {
            self.inclusion(index, first, left)?;
            self.range(first + left, count - left)?
        } else {
            self.inclusion(index - left, first + left, count - left)?;
            self.range(first, left)?
        };
        self.hashes.push(passed);
        Ok(())
    }

    /// SUBPROOF of RFC 9162: `old` counts from `first`; `is_whole` while the verifier knows the
    /// hash of the old part.
    fn consistency(&mut self, old: u64, first: u64, count: u64, is_whole: bool) -> Result<(), E> {
        if old == count {
            if !is_whole {
                let hash = self.range(first, count)?;
                self.hashes.push(hash);
            }
            return Ok(());
        }
        let left = left_of(count);
        let passed = if old <= left {
            self.consistency(old, first, left, is_whole)?;
            self.range(first + left, count - left)?
        } else {
            self.consistency(old - left, first + left, count - left, false)?;
            self.range(first, left)?
        };
        self.hashes.push(passed);
        Ok(())
    }

    /// Hash over items, which begin at a multiple of the least power of two not below `count`.
    pub(super) fn range(&mut self, first: u64, count: u64) -> Result<LogHash, E> {
        if count.is_power_of_two() {
            let level = count.trailing_zeros() as u8;
            return (self.node)(Perfect { level, index: first >> level });
        }
        let left = left_of(count);
        let (left, right) = (self.range(first, left)?, self.range(first + left, count - left)?);
        Ok(self.algorithm.log_inner(&left, &right))
    }
}

/// The greatest power of two less than `count`, which is at least 2.
pub(super) const fn left_of(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}
