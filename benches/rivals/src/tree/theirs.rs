//! The trees of others, each through its own API.

use std::fmt::Display;

use jmt::mock::MockTreeStore;
use jmt::proof::SparseMerkleProof;
use jmt::{KeyHash, RootHash, Sha256Jmt};
use merkle_search_tree::MerkleSearchTree;
use rs_merkle::algorithms::Sha256;
use rs_merkle::{Hasher as _, MerkleProof, MerkleTree};

use super::{Contender, Pair};
use crate::error::RivalsError;

/// rs_merkle: a tree over positions. It appends; a leaf that stands is changed by building anew.
/// It proves what stands at a position, never that something is nowhere.
pub(super) struct RsMerkle {
    tree: MerkleTree<Sha256>,
    /// Where a key stands: whoever uses the tree keeps that.
    keys: Vec<[u8; 32]>,
}

/// The proof and the position that it is of.
pub(super) struct Positioned {
    proof: MerkleProof<Sha256>,
    at: usize,
}

fn leaf(key: &[u8; 32], value: &[u8; 32]) -> [u8; 32] {
    let mut both = [0; 64];
    both[..32].copy_from_slice(key);
    both[32..].copy_from_slice(value);
    Sha256::hash(&both)
}

impl Contender for RsMerkle {
    const WHO: &'static str = "rs_merkle";
    const CHANGES: bool = false;
    type Proof = Positioned;

    fn build(pairs: &[Pair]) -> Result<Self, RivalsError> {
        let leaves: Vec<_> = pairs.iter().map(|pair| leaf(&pair.key, &pair.value)).collect();
        let tree = MerkleTree::from_leaves(&leaves);
        Ok(Self { tree, keys: pairs.iter().map(|pair| pair.key).collect() })
    }

    fn root(&mut self) -> Vec<u8> {
        self.tree.root().map(Vec::from).unwrap_or_default()
    }

    fn change(&mut self, _: &[Pair]) -> Result<(), RivalsError> {
        Err(RivalsError::wrong(Self::WHO, "it cannot change a leaf"))
    }

    fn prove(&self, key: &[u8; 32]) -> Option<Positioned> {
        let at = self.keys.binary_search(key).ok()?;
        Some(Positioned { proof: self.tree.proof(&[at]), at })
    }

    fn verify(
        &self,
        root: &[u8],
        proof: &Positioned,
        key: &[u8; 32],
        value: Option<&[u8; 32]>,
    ) -> bool {
        let (Ok(root), Some(value)) = (root.try_into(), value) else { return false };
        proof.proof.verify(root, &[proof.at], &[leaf(key, value)], self.keys.len())
    }

    fn serialised(proof: &Positioned) -> Vec<u8> {
        proof.proof.to_bytes()
    }
}

/// merkle-search-tree: made for comparing replicas. It has no proofs.
pub(super) struct Mst(MerkleSearchTree<[u8; 32], [u8; 32]>);

impl Contender for Mst {
    const WHO: &'static str = "merkle-search-tree";
    type Proof = ();

    fn build(pairs: &[Pair]) -> Result<Self, RivalsError> {
        let mut tree = Self(MerkleSearchTree::default());
        tree.change(pairs)?;
        tree.root();
        Ok(tree)
    }

    fn root(&mut self) -> Vec<u8> {
        let root: &[u8] = self.0.root_hash().as_ref();
        root.to_vec()
    }

    fn change(&mut self, pairs: &[Pair]) -> Result<(), RivalsError> {
        for pair in pairs {
            self.0.upsert(pair.key, &pair.value);
        }
        Ok(())
    }

    fn prove(&self, _: &[u8; 32]) -> Option<()> {
        None
    }

    fn verify(&self, _: &[u8], _: &(), _: &[u8; 32], _: Option<&[u8; 32]>) -> bool {
        false
    }

    fn serialised(_: &()) -> Vec<u8> {
        Vec::new()
    }
}

/// jmt: a versioned tree; every change is a new version in its store in memory.
pub(super) struct Jmt {
    store: MockTreeStore,
    version: u64,
    root: RootHash,
}

fn wrong(error: impl Display) -> RivalsError {
    RivalsError::wrong(Jmt::WHO, error)
}

impl Contender for Jmt {
    const WHO: &'static str = "jmt";
    type Proof = SparseMerkleProof<sha2::Sha256>;

    fn build(pairs: &[Pair]) -> Result<Self, RivalsError> {
        let store = MockTreeStore::default();
        let mut tree = Self { store, version: 0, root: RootHash([0; 32]) };
        tree.write(pairs)?;
        Ok(tree)
    }

    fn root(&mut self) -> Vec<u8> {
        self.root.0.to_vec()
    }

    fn change(&mut self, pairs: &[Pair]) -> Result<(), RivalsError> {
        self.version += 1;
        self.write(pairs)
    }

    fn prove(&self, key: &[u8; 32]) -> Option<Self::Proof> {
        let tree = Sha256Jmt::new(&self.store);
        tree.get_with_proof(KeyHash(*key), self.version).ok().map(|(_, proof)| proof)
    }

    fn verify(
        &self,
        root: &[u8],
        proof: &Self::Proof,
        key: &[u8; 32],
        value: Option<&[u8; 32]>,
    ) -> bool {
        let Ok(root) = root.try_into() else { return false };
        proof.verify(RootHash(root), KeyHash(*key), value).is_ok()
    }

    fn serialised(proof: &Self::Proof) -> Vec<u8> {
        borsh::to_vec(proof).unwrap_or_default()
    }
}

impl Jmt {
    fn write(&mut self, pairs: &[Pair]) -> Result<(), RivalsError> {
        let tree = Sha256Jmt::new(&self.store);
        let values = pairs.iter().map(|pair| (KeyHash(pair.key), Some(pair.value.to_vec())));
        let (root, batch) = tree.put_value_set(values, self.version).map_err(wrong)?;
        self.root = root;
        self.store.write_tree_update_batch(batch).map_err(wrong)
    }
}
