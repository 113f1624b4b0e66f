//! Proof that items stand one after the other in a log.
//!
//! What [`InclusionProof`](super::InclusionProof) shows of one item, shown of many with at most
//! 126 hashes: those of what stands before and behind them.
//!
//! ```
//! use selfsame::hash::HashAlgorithm;
//! use selfsame::merkle::log::{LogSegment, RangeProof};
//! use selfsame::merkle::MerkleLog;
//!
//! let mut log = MerkleLog::new(HashAlgorithm::Blake3);
//! let leaves: Vec<_> = (0..9u8).map(|item| log.append(&[item])).collect();
//! let segment = LogSegment::new(MerkleLog::new(HashAlgorithm::Blake3), leaves.clone());
//! let proof = segment.range(3, 4).expect("all items are kept");
//! proof.verify(HashAlgorithm::Blake3, 9, &log.root(), &leaves[3..7])?;
//! # Ok::<(), selfsame::merkle::LogProofError>(())
//! ```

use super::proof::{LogProofError, check_root, left_of};
use super::{MAX_LOG_ITEMS, Perfect};
use crate::codec::{CodecError, Reader, Writing};
use crate::hash::{HASH_LEN, HashAlgorithm, LogHash};

const KIND_RANGE: u8 = 3;

/// Proof that items stand one after the other in a log, from an index on: well-formed, which says
/// nothing yet of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RangeProof {
    first: u64,
    count: u64,
    size: u64,
    // of what is not in the range, in the order of the log
    hashes: Vec<LogHash>,
}

impl RangeProof {
    /// Proves that `count` items, at least one, are in the log of the first `size` items from
    /// `first` on; none when they are not. `node` gives hashes of perfect subtrees.
    ///
    /// # Errors
    /// What `node` fails with.
    pub fn prove<E>(
        algorithm: HashAlgorithm,
        size: u64,
        (first, count): (u64, u64),
        node: impl FnMut(Perfect) -> Result<LogHash, E>,
    ) -> Result<Option<Self>, E> {
        let within = first.checked_add(count).is_some_and(|end| end <= size);
        if count == 0 || !within || size > MAX_LOG_ITEMS {
            return Ok(None);
        }
        let mut prover = super::proof::Prover { algorithm, node, hashes: Vec::new() };
        range(&mut prover, (first, first + count), 0, size)?;
        Ok(Some(Self { first, count, size, hashes: prover.hashes }))
    }

    /// Index of the first item.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// Number of items, at least one.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The size of the log that it is about.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Checks that the items with these leaf hashes stand from [`first`](Self::first) on in the
    /// log with this size and root, which come from a log head. One hash for each item.
    ///
    /// # Errors
    /// It is not proved; the error says why.
    pub fn verify(
        &self,
        algorithm: HashAlgorithm,
        size: u64,
        root: &LogHash,
        leaves: &[LogHash],
    ) -> Result<(), LogProofError> {
        if self.size != size {
            return Err(LogProofError::Size { found: self.size, expected: size });
        }
        if self.count != leaves.len() as u64 {
            return Err(LogProofError::Count { found: self.count, expected: leaves.len() as u64 });
        }
        let mut verifier = Verifier {
            algorithm,
            range: (self.first, self.first.saturating_add(self.count)),
            leaves: leaves.iter(),
            hashes: self.hashes.iter(),
        };
        let hash = verifier.node(0, size)?;
        if verifier.hashes.next().is_some() {
            return Err(LogProofError::TrailingHashes);
        }
        check_root(&hash, root)
    }

    /// Reads the bytes strictly: what is accepted encodes to the same bytes.
    ///
    /// # Errors
    /// Bytes that are no range proof, whatever it should prove.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogProofError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            KIND_RANGE => {}
            found => return Err(LogProofError::UnknownKind(found)),
        }
        let (first, count, size) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let within = first.checked_add(count).is_some_and(|end| end <= size);
        if count == 0 || !within || size > MAX_LOG_ITEMS {
            return Err(LogProofError::IndexBeyondLog { index: first, size });
        }
        let hashes = (0..reader.u8()?)
            .map(|_| Ok(LogHash(reader.array()?)))
            .collect::<Result<_, CodecError>>()?;
        reader.finish()?;
        Ok(Self { first, count, size, hashes })
    }

    /// The bytes of the proof.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(26 + self.hashes.len() * HASH_LEN);
        bytes.put_u8(KIND_RANGE);
        bytes.put_u64(self.first);
        bytes.put_u64(self.count);
        bytes.put_u64(self.size);
        bytes.put_u8(self.hashes.len() as u8);
        self.hashes.iter().for_each(|hash| bytes.put_bytes(&hash.0));
        bytes
    }
}

/// Whether items and a range have nothing in common.
const fn apart((from, to): (u64, u64), first: u64, count: u64) -> bool {
    first + count <= from || to <= first
}

/// The hashes of what is not in the range, in the order of the log.
fn range<E, F: FnMut(Perfect) -> Result<LogHash, E>>(
    prover: &mut super::proof::Prover<F>,
    wanted: (u64, u64),
    first: u64,
    count: u64,
) -> Result<(), E> {
    if apart(wanted, first, count) {
        let hash = prover.range(first, count)?;
        prover.hashes.push(hash);
        return Ok(());
    }
    // wholly within: the verifier has all of it
    if count == 1 || (wanted.0 <= first && first + count <= wanted.1) {
        return Ok(());
    }
    let left = left_of(count);
    range(prover, wanted, first, left)?;
    range(prover, wanted, first + left, count - left)
}

struct Verifier<'a> {
    algorithm: HashAlgorithm,
    range: (u64, u64),
    leaves: std::slice::Iter<'a, LogHash>,
    hashes: std::slice::Iter<'a, LogHash>,
}

impl Verifier<'_> {
    /// Hash over items. As deep as the log: 62 at most; as many steps as items and hashes.
    fn node(&mut self, first: u64, count: u64) -> Result<LogHash, LogProofError> {
        if apart(self.range, first, count) {
            return self.hashes.next().copied().ok_or(LogProofError::MissingHashes);
        }
        if count == 1 {
            return self.leaves.next().copied().ok_or(LogProofError::MissingHashes);
        }
        let left = left_of(count);
        let (left, right) = (self.node(first, left)?, self.node(first + left, count - left)?);
        Ok(self.algorithm.log_inner(&left, &right))
    }
}
