//! Proofs from a part of a log: what its beginning hashes to, and the items after it.
//!
//! Of the items before some size only the peaks need be kept. From them and the leaf hashes after
//! them every later item can be proved to be in the log, and every later size to have grown out
//! of it: that is what a log of which old items were dropped can still prove.
//!
//! ```
//! use selfsame::hash::HashAlgorithm;
//! use selfsame::merkle::MerkleLog;
//! use selfsame::merkle::log::LogSegment;
//!
//! let mut log = MerkleLog::new(HashAlgorithm::Blake3);
//! (0..5u8).for_each(|item| drop(log.append(&[item])));
//! let begun = log.clone(); // the five items themselves are dropped
//! let leaves = (5..9u8).map(|item| log.append(&[item])).collect();
//!
//! let segment = LogSegment::new(begun, leaves);
//! let proof = segment.inclusion(7).expect("it is after the beginning");
//! let leaf = log.algorithm().log_leaf(&[7]);
//! proof.verify(log.algorithm(), log.size(), &log.root(), &leaf)?;
//! assert!(segment.inclusion(4).is_none());
//! # Ok::<(), selfsame::merkle::LogProofError>(())
//! ```

use super::{ConsistencyProof, InclusionProof, MerkleLog, Perfect, RangeProof};
use crate::hash::LogHash;

/// The items of a log were dropped that a hash would need.
struct Dropped;

/// A log as far as it is kept: its beginning as peaks, then leaf hashes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct LogSegment {
    begun: MerkleLog,
    leaves: Vec<LogHash>,
}

impl LogSegment {
    /// From the beginning of a log and the leaf hashes of the items that follow it.
    #[must_use]
    pub const fn new(begun: MerkleLog, leaves: Vec<LogHash>) -> Self {
        Self { begun, leaves }
    }

    /// Index of the first item of which more than a common hash is kept.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.begun.size()
    }

    /// Number of all items.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.begun.size() + self.leaves.len() as u64
    }

    /// The log of the first `size` items; none if those are not all kept, or fewer.
    #[must_use]
    pub fn at(&self, size: u64) -> Option<MerkleLog> {
        let more = usize::try_from(size.checked_sub(self.first())?).ok()?;
        let mut log = self.begun.clone();
        self.leaves.get(..more)?.iter().for_each(|leaf| log.append_leaf(*leaf));
        Some(log)
    }

    /// The same log when it had `size` items; none if it never had, or those are not all kept.
    #[must_use]
    pub fn when_it_had(mut self, size: u64) -> Option<Self> {
        let more = usize::try_from(size.checked_sub(self.first())?).ok()?;
        if more > self.leaves.len() {
            return None;
        }
        self.leaves.truncate(more);
        Some(self)
    }

    /// Proof that an item is in the whole log; none if it was dropped or never was. As many
    /// hashes as items are kept.
    #[must_use]
    pub fn inclusion(&self, index: u64) -> Option<InclusionProof> {
        if index < self.first() {
            return None;
        }
        let algorithm = self.begun.algorithm();
        let proof = InclusionProof::prove(algorithm, self.size(), index, |node| self.hash(node));
        proof.ok().flatten()
    }

    /// Proof that the log of the first `size` items is the beginning of the whole; none if too
    /// much was dropped, or the log is shorter. As many hashes as items are kept.
    #[must_use]
    pub fn consistency(&self, size: u64) -> Option<ConsistencyProof> {
        let algorithm = self.begun.algorithm();
        let proof = ConsistencyProof::prove(algorithm, size, self.size(), |node| self.hash(node));
        proof.ok().flatten()
    }

    /// Proof that `count` items from `first` on are in the whole log; none if some were dropped or
    /// never were. As many hashes as items are kept.
    #[must_use]
    pub fn range(&self, first: u64, count: u64) -> Option<RangeProof> {
        if first < self.first() {
            return None;
        }
        let (algorithm, size) = (self.begun.algorithm(), self.size());
        let proof = RangeProof::prove(algorithm, size, (first, count), |node| self.hash(node));
        proof.ok().flatten()
    }

    fn hash(&self, node: Perfect) -> Result<LogHash, Dropped> {
        let first = self.first();
        if node.first() >= first {
            let leaf = |index: u64| {
                let at = usize::try_from(index - first).map_err(|_| Dropped)?;
                self.leaves.get(at).copied().ok_or(Dropped)
            };
            return node.hash(self.begun.algorithm(), leaf);
        }
        if let Some(peak) = self.begun.peak(node) {
            return Ok(peak);
        }
        let (left, right) = node.halves().ok_or(Dropped)?;
        // wholly within the beginning and no peak of it: too small to be known
        if node.first() + node.count() <= first {
            return Err(Dropped);
        }
        Ok(self.begun.algorithm().log_inner(&self.hash(left)?, &self.hash(right)?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::hash::HashAlgorithm;

    /// Every size up to this, cut everywhere.
    const MOST: u64 = 40;

    #[test]
    fn what_is_kept_proves_what_the_whole_log_proves() {
        for algorithm in HashAlgorithm::ALL {
            let leaves: Vec<_> =
                (0..MOST).map(|item| algorithm.log_leaf(&item.to_le_bytes())).collect();
            let roots: Vec<_> = (0..=MOST as usize)
                .map(|size| {
                    let mut log = MerkleLog::new(algorithm);
                    leaves[..size].iter().for_each(|leaf| log.append_leaf(*leaf));
                    log.root()
                })
                .collect();
            for size in 1..=MOST {
                let whole = &leaves[..size as usize];
                for cut in 0..=size {
                    let mut begun = MerkleLog::new(algorithm);
                    whole[..cut as usize].iter().for_each(|leaf| begun.append_leaf(*leaf));
                    let segment = LogSegment::new(begun, whole[cut as usize..].to_vec());
                    assert_eq!(segment.size(), size);
                    for index in 0..=size {
                        let expected = InclusionProof::of_leaves(algorithm, whole, index);
                        let expected = expected.filter(|_| index >= cut);
                        assert_eq!(segment.inclusion(index), expected);
                    }
                    for first in cut..size {
                        for count in 1..=size - first {
                            let proof = segment.range(first, count).unwrap();
                            assert_eq!(RangeProof::parse(&proof.to_bytes()).unwrap(), proof);
                            let items = &whole[first as usize..][..count as usize];
                            proof.verify(algorithm, size, &roots[size as usize], items).unwrap();
                        }
                        assert_eq!(segment.range(first, size - first + 1), None);
                    }
                    for earlier in cut..=size + 1 {
                        let expected = ConsistencyProof::of_leaves(algorithm, whole, earlier);
                        assert_eq!(segment.consistency(earlier), expected, "{cut} {earlier}");
                        let at = segment.at(earlier).map(|log| log.size());
                        assert_eq!(at, (earlier <= size).then_some(earlier));
                    }
                    // what was dropped is not guessed
                    for earlier in 1..cut {
                        if let Some(proof) = segment.consistency(earlier) {
                            let [old, new] = [earlier, size].map(|size| &roots[size as usize]);
                            proof.verify(algorithm, (earlier, old), (size, new)).unwrap();
                        }
                    }
                }
            }
        }
    }
}
