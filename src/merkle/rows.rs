//! Rows of pages: what a store keeps of a page beside its entries.

use std::sync::Arc;

use super::edit::{Editor, Part, Touched};
use super::shape::Prefix;
use super::slots::{Kind, MAX_SLOTS, NodeId, SealedSlot, Sums, TreeNode};
use super::trie::{Standing, Trie};
use crate::entry::Totals;
use crate::hash::{HashAlgorithm, KeyHash, TreeHash};

/// What is kept of a page while its leaves are not in memory.
///
/// A page is a subtree of at most `page_leaves` leaves that is not part of another such subtree.
/// Its prefix ends with the bit at which its parent splits; a tree that fits into one page has
/// [`Prefix::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PageRow {
    /// Under which the page's leaves stand, and no others.
    pub prefix: Prefix,
    /// Tree hash of its leaves.
    pub hash: TreeHash,
    /// Their totals.
    pub totals: Totals,
    /// Depth of the subtree.
    pub depth: u16,
}

/// Rows to delete and to write since they were last asked for: together with those that are
/// stored they are all rows of the tree.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct PageChanges {
    /// Prefixes whose rows are to be deleted, ascending.
    pub removed: Vec<Prefix>,
    /// Rows to write, ascending by prefix: new ones and such as replace the stored one.
    pub written: Vec<PageRow>,
}

/// Rows that belong to no tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowsError {
    /// Pages of a size that is not allowed.
    #[error("a page holds 1 to 4096 leaves, not {0}: correct the page size")]
    PageLeaves(usize),
    /// Not strictly ascending by prefix.
    #[error("the row of page {0} is out of order or there twice: rebuild the rows from entries")]
    Order(Prefix),
    /// A page within a page.
    #[error("page {inner} lies within page {outer}: rebuild the rows from entries")]
    Overlap {
        /// The page around it.
        outer: Prefix,
        /// The page within.
        inner: Prefix,
    },
    /// Figures that no page of this size can have.
    #[error("the row of page {0} has impossible figures: rebuild the rows from entries")]
    Figures(Prefix),
    /// The page does not end where its neighbours say: a row is missing, or the page size is
    /// not the one with which the rows were written.
    #[error(
        "page {0} does not fit to its neighbours: use the page size with which the rows were \
         written, or rebuild them from entries"
    )]
    Misplaced(Prefix),
    /// More leaves than a tree holds.
    #[error("the rows count more than 2^30 leaves: split the collection")]
    TooMany,
}

/// Leaves that are not those of a sealed page. The tree is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PageMismatch {
    /// No page of this prefix is sealed.
    #[error("no page {0} is sealed: use the prefix that was asked for")]
    NotSealed(Prefix),
    /// A leaf of another page, or two leaves of one key.
    #[error("the leaves loaded for page {0} are not all its own: the store is damaged there")]
    Leaves(Prefix),
    /// The leaves do not add up to the row.
    #[error("the leaves loaded for page {0} have other totals than its row: rebuild it")]
    Totals(Prefix),
    /// The leaves do not hash to the row.
    #[error("the leaves loaded for page {0} do not hash to its row: rebuild it")]
    Hash(Prefix),
}

impl Trie {
    /// A trie all of whose pages are sealed.
    pub(super) fn from_rows(
        algorithm: HashAlgorithm,
        page_leaves: u32,
        rows: &[PageRow],
    ) -> Result<Self, RowsError> {
        let mut entries = 0_u64;
        for row in rows {
            check_figures(row, page_leaves)?;
            entries = entries.saturating_add(row.totals.entries);
        }
        if entries > u64::from(MAX_SLOTS) {
            return Err(RowsError::TooMany);
        }
        for pair in rows.windows(2) {
            if pair[0].prefix >= pair[1].prefix {
                return Err(RowsError::Order(pair[1].prefix));
            }
            if pair[0].prefix.is_prefix_of(&pair[1].prefix) {
                return Err(RowsError::Overlap { outer: pair[0].prefix, inner: pair[1].prefix });
            }
        }
        let mut trie = Self::new(algorithm, page_leaves);
        let mut touched = Touched::new();
        let mut editor = Editor::new(&mut trie, &mut touched);
        let part = editor.seal_rows(rows, 0)?;
        editor.finish(part);
        // pages that should have been one
        match touched.keys().next() {
            Some(prefix) => Err(RowsError::Misplaced(*prefix)),
            None => Ok(trie),
        }
    }

    /// The row of the page with just this prefix.
    pub(super) fn row(&self, prefix: &Prefix) -> Option<PageRow> {
        let standing = self.under(prefix).ok()??;
        let page = standing.at == prefix.len()
            && standing.node.leaves.is_all()
            && self.fits_page(standing.node.id)
            && (standing.node.parent)
                .is_none_or(|(parent, _)| !self.fits_page(NodeId::inner(parent)));
        page.then(|| self.row_of(standing.node, *prefix))
    }

    /// Sets another node, of the same hash, into a place.
    pub(super) fn replace(&mut self, standing: &Standing, id: NodeId) {
        match standing.node.parent {
            None => self.top = Some(id),
            Some((parent, right)) => self.inners.set_child(parent, right, id),
        }
    }

    /// Gives the slots of a subtree back.
    pub(super) fn free(&mut self, id: NodeId) {
        let mut waiting = vec![id];
        while let Some(id) = waiting.pop() {
            match id.kind() {
                Kind::Bunch(id) => self.bunches.remove(id),
                Kind::Sealed(index) => self.sealed.remove(index),
                Kind::Inner(index) => {
                    let inner = self.inners.split(index);
                    waiting.extend([inner.left, inner.right]);
                    self.inners.remove(index);
                }
            }
        }
    }

    fn row_of(&self, node: TreeNode, prefix: Prefix) -> PageRow {
        let Sums { totals, depth } = self.sums(node);
        PageRow { prefix, hash: self.hash(node), totals, depth }
    }
}

fn check_figures(row: &PageRow, page_leaves: u32) -> Result<(), RowsError> {
    let PageRow { prefix, totals, depth, .. } = row;
    let entries = totals.entries;
    let possible = (1..=u64::from(page_leaves)).contains(&entries)
        && totals.are_consistent()
        && u64::from(*depth) < entries
        && depth + prefix.len() <= 256
        && 1_u64.checked_shl(u32::from(*depth)).is_none_or(|most| entries <= most);
    if possible { Ok(()) } else { Err(RowsError::Figures(*prefix)) }
}

impl Editor<'_> {
    fn seal_rows(&mut self, rows: &[PageRow], at: u16) -> Result<Option<Part>, RowsError> {
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(None) };
        let Some(bit) = first.prefix.first_key().first_difference(&last.prefix.first_key()) else {
            let PageRow { prefix, hash, totals, depth } = *first;
            if prefix.len() != at {
                return Err(RowsError::Misplaced(prefix));
            }
            let sums = Sums { totals, depth };
            let id = NodeId::sealed(self.trie.sealed.insert(SealedSlot { prefix, sums }));
            return Ok(Some(Part::sealed(id, hash, at)));
        };
        let middle = rows.partition_point(|row| !row.prefix.first_key().bit(bit));
        let (zeros, ones) = rows.split_at(middle);
        let left = self.seal_rows(zeros, u16::from(bit) + 1)?;
        let right = self.seal_rows(ones, u16::from(bit) + 1)?;
        Ok(self.join(bit, left, right))
    }
}

/// The pages of a trie, ascending by prefix.
#[derive(Clone)]
pub struct Rows<'a> {
    trie: &'a Trie,
    waiting: Vec<(TreeNode, u16)>,
    from: Option<KeyHash>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(trie: &'a Arc<Trie>) -> Self {
        Self { trie, waiting: trie.top_node().iter().map(|top| (*top, 0)).collect(), from: None }
    }

    pub(super) fn from(trie: &'a Arc<Trie>, key: KeyHash) -> Self {
        Self { from: Some(key), ..Self::new(trie) }
    }

    /// Whether all below a node stands before the first key that is wanted.
    fn is_before(&mut self, node: TreeNode, at: u16) -> bool {
        let Some(from) = self.from else { return false };
        let (here, wanted) = (Prefix::of(&self.trie.sample(node.id), at), Prefix::of(&from, at));
        if here > wanted {
            // all that waits stands behind this
            self.from = None;
        }
        here < wanted
    }
}

impl Iterator for Rows<'_> {
    type Item = PageRow;

    fn next(&mut self) -> Option<PageRow> {
        loop {
            let (node, at) = self.waiting.pop()?;
            if self.is_before(node, at) {
                continue;
            }
            if self.trie.fits_page(node.id) {
                let prefix = Prefix::of(&self.trie.sample(node.id), at);
                return Some(self.trie.row_of(node, prefix));
            }
            if let Kind::Inner(index) = node.id.kind() {
                let at = u16::from(self.trie.inners.split(index).bit) + 1;
                let child = |side| (self.trie.inners.child(index, side), at);
                self.waiting.extend([true, false].map(child));
            }
        }
    }
}
