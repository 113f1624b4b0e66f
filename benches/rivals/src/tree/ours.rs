//! selfsame's trees.

use std::fmt::Display;

use selfsame::entry::Totals;
use selfsame::hash::{HashAlgorithm, KeyHash, RecordDigest, TreeHash};
use selfsame::merkle::{Change, Claim, DEFAULT_PAGE_LEAVES, Leaf, PagedTree, Proof, Tree};

use super::{Contender, Pair};
use crate::error::RivalsError;

const WHO: &str = "selfsame";

/// `Tree` with BLAKE3.
pub(super) struct Whole(Tree);

/// `Tree` with SHA-256.
pub(super) struct WholeSha(Tree);

/// `PagedTree` with BLAKE3, all pages in memory.
pub(super) struct Paged(PagedTree);

fn leaf(pair: &Pair) -> Leaf {
    Leaf {
        key: KeyHash(pair.key),
        record: RecordDigest(pair.value),
        totals: Totals { entries: 1, siblings: 1, ..Totals::default() },
    }
}

fn changes(pairs: &[Pair]) -> Vec<Change> {
    pairs.iter().map(leaf).map(Change::Put).collect()
}

fn wrong(error: impl Display) -> RivalsError {
    RivalsError::wrong(WHO, error)
}

fn holds(
    algorithm: HashAlgorithm,
    root: &[u8],
    proof: &Proof,
    key: &[u8; 32],
    value: Option<&[u8; 32]>,
) -> bool {
    let Ok(root) = root.try_into() else { return false };
    let key = KeyHash(*key);
    let claim = match value {
        Some(value) => Claim::present(key, RecordDigest(*value)),
        None => Claim::absent(key),
    };
    proof.verify(algorithm, &TreeHash(root), &claim).is_ok()
}

macro_rules! whole {
    ($name:ident, $algorithm:expr) => {
        impl Contender for $name {
            const WHO: &'static str = WHO;
            type Proof = Proof;

            fn build(pairs: &[Pair]) -> Result<Self, RivalsError> {
                Ok(Self(Tree::build($algorithm, pairs.iter().map(leaf))))
            }

            fn root(&mut self) -> Vec<u8> {
                self.0.tree_hash().0.to_vec()
            }

            fn change(&mut self, pairs: &[Pair]) -> Result<(), RivalsError> {
                match pairs {
                    [pair] => drop(self.0.put(leaf(pair))),
                    pairs => drop(self.0.apply(changes(pairs))),
                }
                Ok(())
            }

            fn prove(&self, key: &[u8; 32]) -> Option<Proof> {
                Proof::prove(&self.0, &KeyHash(*key)).ok()
            }

            fn verify(
                &self,
                root: &[u8],
                proof: &Proof,
                key: &[u8; 32],
                value: Option<&[u8; 32]>,
            ) -> bool {
                holds($algorithm, root, proof, key, value)
            }

            fn serialised(proof: &Proof) -> Vec<u8> {
                proof.to_bytes()
            }
        }
    };
}

whole!(Whole, HashAlgorithm::Blake3);
whole!(WholeSha, HashAlgorithm::Sha256);

impl Contender for Paged {
    const WHO: &'static str = WHO;
    type Proof = Proof;

    fn build(pairs: &[Pair]) -> Result<Self, RivalsError> {
        let leaves = pairs.iter().map(leaf);
        let tree = PagedTree::build(HashAlgorithm::Blake3, DEFAULT_PAGE_LEAVES, leaves);
        let mut tree = tree.map_err(wrong)?;
        // a store would take them here
        drop(tree.take_page_changes());
        Ok(Self(tree))
    }

    fn root(&mut self) -> Vec<u8> {
        self.0.tree_hash().0.to_vec()
    }

    fn change(&mut self, pairs: &[Pair]) -> Result<(), RivalsError> {
        match pairs {
            [pair] => drop(self.0.put(leaf(pair)).map_err(wrong)?),
            pairs => drop(self.0.apply(changes(pairs)).map_err(wrong)?),
        }
        drop(self.0.take_page_changes());
        Ok(())
    }

    fn prove(&self, key: &[u8; 32]) -> Option<Proof> {
        Proof::prove(&self.0, &KeyHash(*key)).ok()
    }

    fn verify(&self, root: &[u8], proof: &Proof, key: &[u8; 32], value: Option<&[u8; 32]>) -> bool {
        holds(HashAlgorithm::Blake3, root, proof, key, value)
    }

    fn serialised(proof: &Proof) -> Vec<u8> {
        proof.to_bytes()
    }
}
