//! The tree in memory.
//!
//! ```
//! use selfsame::entry::Totals;
//! use selfsame::hash::{HashAlgorithm, KeyHash, RecordDigest};
//! use selfsame::merkle::{Leaf, Tree};
//!
//! let leaf = |byte| Leaf {
//!     key: KeyHash([byte; 32]),
//!     record: RecordDigest([byte; 32]),
//!     totals: Totals { entries: 1, siblings: 1, ..Totals::default() },
//! };
//! let mut tree = Tree::new(HashAlgorithm::Blake3);
//! tree.put(leaf(7));
//! let before = tree.snapshot();
//! tree.put(leaf(9));
//! tree.remove(&leaf(9).key);
//! assert_eq!(tree.tree_hash(), before.tree_hash());
//! ```

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::edit::{self, Touched};
use super::shape::{Prefix, Sealed, Shape, Trail, View};
use super::slots::TreeNode;
use super::trie::{Place, Trie, Walk};
use crate::entry::Totals;
use crate::hash::{HashAlgorithm, KeyHash, RecordDigest, TreeHash};

/// What the tree holds of an entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Leaf {
    /// Hash of the key: where the leaf stands.
    pub key: KeyHash,
    /// Digest of the entry's record.
    pub record: RecordDigest,
    /// Totals of the record: one entry, at least one sibling. The tree takes other numbers of
    /// entries as 1, and no siblings as 1.
    pub totals: Totals,
}

/// A change of one leaf.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Change {
    /// The key has this leaf.
    Put(Leaf),
    /// The key has none.
    Remove(KeyHash),
}

impl Change {
    /// The key that it is about.
    #[must_use]
    pub const fn key(&self) -> &KeyHash {
        match self {
            Self::Put(leaf) => &leaf.key,
            Self::Remove(key) => key,
        }
    }

    /// The leaf that the key is to have.
    pub(super) const fn leaf(&self) -> Option<&Leaf> {
        match self {
            Self::Put(leaf) => Some(leaf),
            Self::Remove(_) => None,
        }
    }
}

/// What a batch came to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Applied {
    /// Leaves that were added, replaced by another, or removed.
    pub leaves: usize,
    /// Inner nodes that were hashed: each one on the way to those leaves once.
    pub inner_hashes: usize,
}

/// A Merkle tree that is wholly in memory: a path-compressed binary trie over key hashes.
///
/// Same leaves, same [`tree_hash`](Self::tree_hash), whatever the order of changes. Every change
/// hashes the nodes on its path only, a batch each node once. Totals and depth are kept for
/// every subtree.
///
/// Subtrees of at most 32 leaves stand in one place each, with their inner nodes (a *bunch*), so
/// that a walk needs three or four lines of memory below the 45,000 nodes which a million leaves
/// have above. A leaf costs about 153 bytes: 80 its own, 64 an inner node, the rest what says how
/// they are arranged and room for another leaf. Where leaves came one by one it is 170 to 190, since
/// bunches outgrow their slots and some of those are vacant. Totals of bunches are added up when
/// they are asked for.
///
/// [`Clone`] and [`snapshot`](Self::snapshot) are O(1); every change afterwards copies those chunks
/// on its path that are still shared: one of at most 16 KiB for a bunch, with the list of 128 such
/// chunks, and at most 24 KiB for every level above. With a million leaves the first change takes
/// 10 µs.
///
/// Memory of leaves that went is used again. Where three quarters of all is vacant, and no snapshot
/// has it too, what is left moves to memory of its own: a removal is O(depth) on average, but one
/// of very many moves all leaves that are left.
///
/// At most 2^30 leaves, which would be 165 GB; one more panics.
#[derive(Clone)]
pub struct Tree {
    trie: Arc<Trie>,
}

// a tree without pages has nothing that is sealed
const IN_MEMORY: &str = "all of this tree is in memory";

impl Tree {
    /// The tree of no leaves.
    #[must_use]
    pub fn new(algorithm: HashAlgorithm) -> Self {
        Self { trie: Arc::new(Trie::new(algorithm, 0)) }
    }

    /// The tree of these leaves, in any order; of several with one key the last counts. O(n),
    /// and a sort if they do not ascend. While they ascend none is kept but in the tree.
    #[must_use]
    pub fn build(algorithm: HashAlgorithm, leaves: impl IntoIterator<Item = Leaf>) -> Self {
        let trie = edit::build(Trie::new(algorithm, 0), &mut Touched::new(), leaves);
        Self { trie: Arc::new(trie) }
    }

    /// Sets a leaf; the one that was there. O(depth).
    pub fn put(&mut self, leaf: Leaf) -> Option<Leaf> {
        self.apply_one(&Change::Put(leaf))
    }

    /// Removes a leaf and hands it back. O(depth) on average.
    pub fn remove(&mut self, key: &KeyHash) -> Option<Leaf> {
        self.apply_one(&Change::Remove(*key))
    }

    fn apply_one(&mut self, change: &Change) -> Option<Leaf> {
        edit::apply_one(&mut self.trie, &mut Touched::new(), change).expect(IN_MEMORY).0
    }

    /// Applies changes in any order; of several for one key the last counts. Much cheaper than
    /// one by one: nodes on several paths are hashed once.
    pub fn apply(&mut self, changes: impl AsRef<[Change]>) -> Applied {
        edit::apply(&mut self.trie, &mut Touched::new(), changes.as_ref()).expect(IN_MEMORY)
    }

    /// This moment of the tree, which later changes leave alone. O(1).
    #[must_use]
    pub fn snapshot(&self) -> Self {
        self.clone()
    }

    /// The leaf with this key. O(depth).
    #[must_use]
    pub fn get(&self, key: &KeyHash) -> Option<Leaf> {
        match self.trie.find(key).expect(IN_MEMORY) {
            Place::Here(spot) => Some(self.trie.bunches.leaf(spot)),
            Place::Empty | Place::Apart(_) => None,
        }
    }

    /// Number of leaves.
    #[must_use]
    pub fn len(&self) -> usize {
        self.totals().entries as usize
    }

    /// Whether there are no leaves.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tree's hash algorithm.
    #[must_use]
    pub fn algorithm(&self) -> HashAlgorithm {
        self.trie.algorithm
    }

    /// Tree hash of all leaves.
    #[must_use]
    pub fn tree_hash(&self) -> TreeHash {
        Shape::tree_hash(self)
    }

    /// Totals of all leaves.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.trie.top_sums().totals
    }

    /// Most inner nodes between the top and a leaf, the top among them: 0 to 256.
    #[must_use]
    pub fn depth(&self) -> u16 {
        self.trie.top_sums().depth
    }

    /// Tree hash of the leaves under a prefix.
    #[must_use]
    pub fn hash_under(&self, prefix: &Prefix) -> TreeHash {
        self.trie.hash_under(prefix).expect(IN_MEMORY)
    }

    /// Totals of the leaves under a prefix.
    #[must_use]
    pub fn totals_under(&self, prefix: &Prefix) -> Totals {
        self.trie.sums_under(prefix).expect(IN_MEMORY).totals
    }

    /// Depth of the subtree under a prefix.
    #[must_use]
    pub fn depth_under(&self, prefix: &Prefix) -> u16 {
        self.trie.sums_under(prefix).expect(IN_MEMORY).depth
    }

    /// Hashes under all continuations of a prefix by `bits` bits, in order. At most 16 bits, and
    /// not beyond 256 in all: what is more is left out.
    #[must_use]
    pub fn hashes_under(&self, prefix: &Prefix, bits: u8) -> Vec<TreeHash> {
        self.trie.hashes_under(prefix, bits).expect(IN_MEMORY)
    }

    /// The 256 bucket hashes.
    #[must_use]
    pub fn bucket_hashes(&self) -> [TreeHash; 256] {
        self.trie.bucket_hashes().expect(IN_MEMORY)
    }

    /// Totals of the 256 buckets.
    #[must_use]
    pub fn bucket_totals(&self) -> [Totals; 256] {
        self.trie.bucket_totals().expect(IN_MEMORY)
    }

    /// All leaves, ascending by key.
    #[must_use]
    pub fn leaves(&self) -> Leaves<'_> {
        self.leaves_under(&Prefix::ALL)
    }

    /// The leaves under a prefix, ascending by key.
    #[must_use]
    pub fn leaves_under(&self, prefix: &Prefix) -> Leaves<'_> {
        Leaves(self.trie.leaves_under(prefix))
    }

    /// Bytes of memory that the nodes take, those shared with snapshots included.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.trie.bytes()
    }
}

/// Leaves of a [`Tree`], ascending by key.
#[derive(Clone)]
pub struct Leaves<'a>(Walk<'a>);

impl Iterator for Leaves<'_> {
    type Item = Leaf;

    fn next(&mut self) -> Option<Leaf> {
        self.0.next().map(|leaf| leaf.expect(IN_MEMORY))
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self::new(HashAlgorithm::default())
    }
}

impl Shape for Tree {
    type Node = TreeNode;

    fn algorithm(&self) -> HashAlgorithm {
        self.trie.algorithm
    }

    fn top(&self) -> Option<TreeNode> {
        self.trie.top_node()
    }

    fn hash(&self, node: TreeNode) -> TreeHash {
        self.trie.hash(node)
    }

    fn view(&self, node: TreeNode) -> Result<View<TreeNode>, Sealed> {
        self.trie.view(node)
    }

    fn trail(&self, key: &KeyHash) -> Result<Option<Trail>, Sealed> {
        self.trie.trail(key)
    }
}

/// Same algorithm, same leaves.
impl PartialEq for Tree {
    fn eq(&self, other: &Self) -> bool {
        self.trie.content() == other.trie.content()
    }
}

impl Eq for Tree {}

impl Hash for Tree {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.trie.content().hash(state);
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree")
            .field("algorithm", &self.trie.algorithm)
            .field("leaves", &self.len())
            .field("tree_hash", &self.tree_hash())
            .finish()
    }
}
