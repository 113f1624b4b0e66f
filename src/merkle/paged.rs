//! The tree of a store: pages that were not needed yet are not in memory.
//!
//! ```
//! use selfsame::entry::Totals;
//! use selfsame::hash::{HashAlgorithm, KeyHash, RecordDigest};
//! use selfsame::merkle::{Leaf, PagedTree, Sealed};
//!
//! let leaves: Vec<Leaf> = (0..100)
//!     .map(|byte| Leaf {
//!         key: KeyHash([byte; 32]),
//!         record: RecordDigest([byte; 32]),
//!         totals: Totals { entries: 1, siblings: 1, ..Totals::default() },
//!     })
//!     .collect();
//! let written = PagedTree::build(HashAlgorithm::Blake3, 16, leaves.clone())?;
//!
//! // a store keeps the rows, and the leaves where it finds them by prefix
//! let mut tree = PagedTree::from_rows(HashAlgorithm::Blake3, 16, written.rows())?;
//! assert_eq!(tree.tree_hash(), written.tree_hash());
//! let key = leaves[3].key;
//! let Err(Sealed(page)) = tree.get(&key) else { panic!("nothing is in memory yet") };
//! tree.unseal(&page, leaves.iter().filter(|leaf| page.contains(&leaf.key)).copied().collect())?;
//! assert_eq!(tree.get(&key)?, Some(leaves[3]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::edit::{self, Editor, Touched};
use super::rows::{PageChanges, PageMismatch, PageRow, Rows, RowsError};
use super::shape::{Prefix, Sealed, Shape, Trail, View};
use super::slots::{Kind, NodeId, SealedSlot, Sums, TreeNode};
use super::tree::{Applied, Change, Leaf};
use super::trie::{Place, Standing, Trie, Walk};
use crate::entry::Totals;
use crate::hash::{HashAlgorithm, KeyHash, TreeHash};

/// Most leaves of a page when nothing else is said.
pub const DEFAULT_PAGE_LEAVES: usize = 64;
/// The largest page size allowed.
pub const MAX_PAGE_LEAVES: usize = 4_096;

/// A [`Tree`](super::Tree) subtrees of which may be sealed: of those only hash and totals are in
/// memory.
///
/// What needs a sealed page is answered with [`Sealed`], which names it, and has changed
/// nothing: load the leaves under that prefix, [`unseal`](Self::unseal) it, and do the same
/// again. Where removals let a page reach further, or several grow into one, what is sealed keeps
/// its name, under which a snapshot has the same leaves: so find leaves by prefix, not by row. The page size does not show in any hash.
///
/// Which rows of pages changed is kept until [`take_page_changes`](Self::take_page_changes); a
/// clone starts without. Memory and the cost of clones are those of [`Tree`](super::Tree); a
/// sealed page costs about 80 bytes, and its share of inner nodes.
pub struct PagedTree {
    trie: Arc<Trie>,
    touched: Touched,
    /// Pages that came into memory.
    loaded: Vec<Prefix>,
}

fn page_size(page_leaves: usize) -> Result<u32, RowsError> {
    match u32::try_from(page_leaves) {
        Ok(size) if (1..=MAX_PAGE_LEAVES).contains(&page_leaves) => Ok(size),
        _ => Err(RowsError::PageLeaves(page_leaves)),
    }
}

impl PagedTree {
    /// The tree of no leaves. A page size out of range (1 to 4,096) is taken as the nearest in
    /// it.
    #[must_use]
    pub fn new(algorithm: HashAlgorithm, page_leaves: usize) -> Self {
        let page_leaves = page_leaves.clamp(1, MAX_PAGE_LEAVES) as u32;
        Self::from_trie(Trie::new(algorithm, page_leaves))
    }

    /// The tree of these leaves, in any order; of several with one key the last counts. All its
    /// rows are among the page changes.
    ///
    /// # Errors
    /// The page size is not of 1 to 4,096.
    pub fn build(
        algorithm: HashAlgorithm,
        page_leaves: usize,
        leaves: impl IntoIterator<Item = Leaf>,
    ) -> Result<Self, RowsError> {
        let empty = Trie::new(algorithm, page_size(page_leaves)?);
        let mut touched = Touched::new();
        let trie = edit::build(empty, &mut touched, leaves);
        Ok(Self { trie: Arc::new(trie), touched, loaded: Vec::new() })
    }

    /// The tree of these rows, ascending by prefix; all pages are sealed. O(rows).
    ///
    /// # Errors
    /// The rows are not all rows of one tree with this page size. Whether they are those of the
    /// tree that is meant, its hash tells.
    pub fn from_rows(
        algorithm: HashAlgorithm,
        page_leaves: usize,
        rows: impl IntoIterator<Item = PageRow>,
    ) -> Result<Self, RowsError> {
        let rows: Vec<PageRow> = rows.into_iter().collect();
        Ok(Self::from_trie(Trie::from_rows(algorithm, page_size(page_leaves)?, &rows)?))
    }

    pub(super) fn trie(&self) -> &Trie {
        &self.trie
    }

    fn from_trie(trie: Trie) -> Self {
        Self { trie: Arc::new(trie), touched: Touched::new(), loaded: Vec::new() }
    }

    /// Takes the leaves of a sealed page, in any order, into memory. Nothing that can be asked
    /// of the tree changes.
    ///
    /// # Errors
    /// The page is not sealed, or these are not its leaves; the tree is as it was.
    pub fn unseal(&mut self, prefix: &Prefix, mut leaves: Vec<Leaf>) -> Result<(), PageMismatch> {
        let (standing, index) = self.sealed_at(prefix).ok_or(PageMismatch::NotSealed(*prefix))?;
        leaves.sort_unstable_by_key(|leaf| leaf.key);
        if leaves.windows(2).any(|pair| pair[0].key == pair[1].key)
            || leaves.iter().any(|leaf| !prefix.contains(&leaf.key))
        {
            return Err(PageMismatch::Leaves(*prefix));
        }
        let expected = self.trie.sealed.slot(index).sums;
        if leaves.len() as u64 != expected.totals.entries {
            return Err(PageMismatch::Totals(*prefix));
        }
        let trie = Arc::make_mut(&mut self.trie);
        let mut editor = Editor::new(trie, &mut self.touched);
        let part = editor.grow(&leaves).ok_or(PageMismatch::Leaves(*prefix))?;
        let (_, hash) = editor.hash(&part);
        let wrong = if hash != trie.hash(standing.node) {
            Some(PageMismatch::Hash(*prefix))
        } else if trie.sums(TreeNode::whole(part.id, None)) != expected {
            Some(PageMismatch::Totals(*prefix))
        } else {
            None
        };
        if let Some(wrong) = wrong {
            trie.free(part.id);
            return Err(wrong);
        }
        trie.sealed.remove(index);
        trie.replace(&standing, part.id);
        self.loaded.push(*prefix);
        Ok(())
    }

    /// Drops a page from memory; whether there was one with just this prefix in memory. Its
    /// leaves must have been stored, together with its row.
    pub fn seal(&mut self, prefix: &Prefix) -> bool {
        if self.sealed_at(prefix).is_some() || self.trie.row(prefix).is_none() {
            return false;
        }
        let Ok(Some(standing)) = self.trie.under(prefix) else { return false };
        if matches!(standing.node.id.kind(), Kind::Sealed(_)) {
            return false; // under the name that it had before its neighbour went
        }
        let trie = Arc::make_mut(&mut self.trie);
        let sums = trie.sums(standing.node);
        trie.free(standing.node.id);
        let sealed = trie.sealed.insert(SealedSlot { prefix: *prefix, sums });
        trie.replace(&standing, NodeId::sealed(sealed));
        trie.give_back();
        true
    }

    /// The pages that came into memory since the last call: loaded, or written anew. Some may have
    /// grown into others since. Whoever bounds memory [seals](Self::seal) them again one day; a
    /// clone starts without.
    pub fn take_loaded(&mut self) -> Vec<Prefix> {
        std::mem::take(&mut self.loaded)
    }

    fn sealed_at(&self, prefix: &Prefix) -> Option<(Standing, u32)> {
        let standing = self.trie.under(prefix).ok()??;
        match standing.node.id.kind() {
            Kind::Sealed(index) if self.trie.sealed.slot(index).prefix == *prefix => {
                Some((standing, index))
            }
            _ => None,
        }
    }

    /// How many pages are sealed.
    #[must_use]
    pub fn sealed_pages(&self) -> usize {
        self.trie.sealed.used() as usize
    }

    /// The sealed pages that stand between the tree and these keys, ascending: what a batch
    /// needs, at once.
    #[must_use]
    pub fn sealed_for<'k>(&self, keys: impl IntoIterator<Item = &'k KeyHash>) -> Vec<Prefix> {
        let mut pages: Vec<Prefix> =
            keys.into_iter().filter_map(|key| Some(self.trie.find(key).err()?.0)).collect();
        pages.sort_unstable();
        pages.dedup();
        pages
    }

    /// The page under whose prefix the key falls, if there is one.
    #[must_use]
    pub fn page_of(&self, key: &KeyHash) -> Option<Prefix> {
        let mut standing = Standing { node: self.trie.top_node()?, at: 0 };
        while !self.trie.fits_page(standing.node.id) {
            let Kind::Inner(index) = standing.node.id.kind() else { break };
            let bit = self.trie.inners.split(index).bit;
            let node = self.trie.inners.child(index, key.bit(bit));
            standing = Standing { node, at: u16::from(bit) + 1 };
        }
        let page = Prefix::of(&self.trie.sample(standing.node.id), standing.at);
        page.contains(key).then_some(page)
    }

    /// The rows of all pages, ascending by prefix.
    #[must_use]
    pub fn rows(&self) -> Rows<'_> {
        Rows::new(&self.trie)
    }

    /// The rows of pages that do not stand wholly before a key, ascending by prefix.
    #[must_use]
    pub fn rows_from(&self, key: &KeyHash) -> Rows<'_> {
        Rows::from(&self.trie, *key)
    }

    /// The row of the page with just this prefix, if there is one.
    #[must_use]
    pub fn row(&self, prefix: &Prefix) -> Option<PageRow> {
        self.trie.row(prefix)
    }

    /// What became of the rows since the last call: to be stored in the same commit as what
    /// changed the tree.
    pub fn take_page_changes(&mut self) -> PageChanges {
        let mut changes = PageChanges::default();
        for (prefix, stored) in std::mem::take(&mut self.touched) {
            match self.trie.row(&prefix) {
                Some(row) => {
                    self.loaded.push(prefix);
                    changes.written.push(row);
                }
                None if stored => changes.removed.push(prefix),
                None => {}
            }
        }
        changes
    }

    /// Sets a leaf; the one that was there.
    ///
    /// # Errors
    /// A page is sealed.
    pub fn put(&mut self, leaf: Leaf) -> Result<Option<Leaf>, Sealed> {
        Ok(edit::apply_one(&mut self.trie, &mut self.touched, &Change::Put(leaf))?.0)
    }

    /// Removes a leaf and hands it back.
    ///
    /// # Errors
    /// A page is sealed.
    pub fn remove(&mut self, key: &KeyHash) -> Result<Option<Leaf>, Sealed> {
        Ok(edit::apply_one(&mut self.trie, &mut self.touched, &Change::Remove(*key))?.0)
    }

    /// Applies changes in any order; of several for one key the last counts.
    ///
    /// # Errors
    /// A page is sealed: nothing was applied. [`sealed_for`](Self::sealed_for) names all that
    /// the batch needs.
    pub fn apply(&mut self, changes: impl AsRef<[Change]>) -> Result<Applied, Sealed> {
        edit::apply(&mut self.trie, &mut self.touched, changes.as_ref())
    }

    /// This moment of the tree, which later changes leave alone. O(1).
    #[must_use]
    pub fn snapshot(&self) -> Self {
        self.clone()
    }

    /// The same tree with all pages sealed, in memory of its own: whoever changes much of a
    /// snapshot neither copies pages that are in memory nor keeps them there. O(pages).
    #[must_use]
    pub fn sealed(&self) -> Self {
        let rows = Self::from_rows(self.algorithm(), self.page_leaves(), self.rows());
        // the rows of a tree are those of a tree
        rows.unwrap_or_else(|_| self.clone())
    }

    /// The leaf with this key.
    ///
    /// # Errors
    /// A page is sealed.
    pub fn get(&self, key: &KeyHash) -> Result<Option<Leaf>, Sealed> {
        Ok(match self.trie.find(key)? {
            Place::Here(spot) => Some(self.trie.bunches.leaf(spot)),
            Place::Empty | Place::Apart(_) => None,
        })
    }

    /// Number of leaves, sealed ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.trie.top_sums().totals.entries as usize
    }

    /// Whether there are no leaves.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.trie.top.is_none()
    }

    /// The tree's hash algorithm.
    #[must_use]
    pub fn algorithm(&self) -> HashAlgorithm {
        self.trie.algorithm
    }

    /// Most leaves of a page.
    #[must_use]
    pub fn page_leaves(&self) -> usize {
        self.trie.page_leaves as usize
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
    ///
    /// # Errors
    /// A page around the prefix is sealed.
    pub fn hash_under(&self, prefix: &Prefix) -> Result<TreeHash, Sealed> {
        self.trie.hash_under(prefix)
    }

    /// Totals of the leaves under a prefix.
    ///
    /// # Errors
    /// A page around the prefix is sealed.
    pub fn totals_under(&self, prefix: &Prefix) -> Result<Totals, Sealed> {
        Ok(self.sums_under(prefix)?.totals)
    }

    /// Depth of the subtree under a prefix.
    ///
    /// # Errors
    /// A page around the prefix is sealed.
    pub fn depth_under(&self, prefix: &Prefix) -> Result<u16, Sealed> {
        Ok(self.sums_under(prefix)?.depth)
    }

    fn sums_under(&self, prefix: &Prefix) -> Result<Sums, Sealed> {
        self.trie.sums_under(prefix)
    }

    /// Hashes under all continuations of a prefix by `bits` bits, in order. At most 16 bits, and
    /// not beyond 256 in all: what is more is left out.
    ///
    /// # Errors
    /// A page around one of them is sealed.
    pub fn hashes_under(&self, prefix: &Prefix, bits: u8) -> Result<Vec<TreeHash>, Sealed> {
        self.trie.hashes_under(prefix, bits)
    }

    /// The 256 bucket hashes.
    ///
    /// # Errors
    /// A page around one of them is sealed.
    pub fn bucket_hashes(&self) -> Result<[TreeHash; 256], Sealed> {
        self.trie.bucket_hashes()
    }

    /// Totals of the 256 buckets.
    ///
    /// # Errors
    /// A page around one of them is sealed.
    pub fn bucket_totals(&self) -> Result<[Totals; 256], Sealed> {
        self.trie.bucket_totals()
    }

    /// All leaves, ascending by key; a sealed page is one error in the place of its leaves.
    #[must_use]
    pub fn leaves(&self) -> PagedLeaves<'_> {
        self.leaves_under(&Prefix::ALL)
    }

    /// The leaves under a prefix, ascending by key; a sealed page is one error in the place of
    /// its leaves. `collect` into a `Result` stops at the first.
    #[must_use]
    pub fn leaves_under(&self, prefix: &Prefix) -> PagedLeaves<'_> {
        PagedLeaves(self.trie.leaves_under(prefix))
    }

    /// Bytes of memory that the nodes take, those shared with snapshots included.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.trie.bytes()
    }

    /// Those of them that the leaves in memory take, with the nodes next to them. O(1).
    #[must_use]
    pub fn loaded_bytes(&self) -> usize {
        self.trie.bunches.used_bytes()
    }
}

/// Leaves of a [`PagedTree`], ascending by key.
#[derive(Clone)]
pub struct PagedLeaves<'a>(Walk<'a>);

impl Iterator for PagedLeaves<'_> {
    type Item = Result<Leaf, Sealed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

/// Shares everything, but starts without page changes.
impl Clone for PagedTree {
    fn clone(&self) -> Self {
        Self { trie: Arc::clone(&self.trie), touched: Touched::new(), loaded: Vec::new() }
    }
}

impl Shape for PagedTree {
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

/// Same algorithm, same leaves; whether pages are sealed makes no difference.
impl PartialEq for PagedTree {
    fn eq(&self, other: &Self) -> bool {
        self.trie.content() == other.trie.content()
    }
}

impl Eq for PagedTree {}

impl Hash for PagedTree {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.trie.content().hash(state);
    }
}

impl fmt::Debug for PagedTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PagedTree")
            .field("algorithm", &self.trie.algorithm)
            .field("leaves", &self.len())
            .field("tree_hash", &self.tree_hash())
            .field("sealed_pages", &self.sealed_pages())
            .finish()
    }
}
