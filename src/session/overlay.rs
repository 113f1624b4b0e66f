//! A tree that a session changes and asks, with few pages in memory whatever it is about.
//!
//! What was changed is kept beside the tree, as a list, and put over the snapshot's leaves of each
//! page that is read. A change loads its pages into the tree, which copies what stands around them
//! and is shared with the snapshot, and seals them again; a question reads a page and leaves the
//! tree alone. So what a session holds of a tree grows by what it changes, not by the pages in
//! which that stands.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::descent::{CHILDREN, STEP, child_of};
use super::machine::Session;
use super::message::TurnMessage;
use super::outcome::Failure;
use crate::entry::Totals;
use crate::hash::{KeyHash, TreeHash};
use crate::merkle::{Change, Leaf, PagedTree, Prefix, Sealed, Tree};
use crate::replica::{CollectionView, ViewError};

/// Of the memory of a session, this part is for pages that stay loaded from one change to the
/// next. As many changes are made at once: each needs a page in memory, and some its neighbour.
const LOADED_SHARE: usize = 32;
/// Pages that stay loaded, whatever memory there is.
const PAGES: (usize, usize) = (4, 256);
/// A tree that has more than this part of a session's memory in leaves is left to whoever shares
/// it, once changes there would copy as much: each copies what stands around its leaf.
const SHARED_SHARE: usize = 16;
/// A tree without leaves counts for no more than this part of a session's memory.
const APART_SHARE: usize = 4;
const COPIED_BYTES: usize = 48 << 10;
/// A leaf in memory, and a page that is not, each with the inner node above it.
const LEAF_BYTES: usize = 160;
const SEALED_BYTES: usize = 200;

/// A tree with changes. Copies share all that they have in common.
///
/// Two are equal if their leaves are.
#[derive(Clone, Debug)]
pub(super) struct OverlayTree {
    tree: PagedTree,
    /// The changes, the older ones first; each part ascends by key.
    edits: Vec<Arc<Vec<Change>>>,
    edited: usize,
    /// Pages that were loaded here, or written.
    pages: Vec<Prefix>,
    /// Whether nothing of the tree is shared with the snapshot.
    is_own: bool,
    /// Pages that stay loaded.
    most_pages: usize,
    /// As much of what is not shared is counted: the tree of a large collection is large without
    /// leaves too, and no session would have room for anything else.
    most_apart: usize,
    /// Bytes in memory from which on a tree with changes is one of its own.
    most_shared: usize,
}

impl OverlayTree {
    /// The tree of a snapshot as it is, for a session that may hold so many bytes in all.
    pub(super) fn of(view: &dyn CollectionView, memory_bytes: u64) -> Self {
        let tree = view.tree();
        let pages = memory_bytes as usize / LOADED_SHARE / (LEAF_BYTES * tree.page_leaves());
        Self {
            tree,
            edits: Vec::new(),
            edited: 0,
            pages: Vec::new(),
            is_own: false,
            most_pages: pages.clamp(PAGES.0, PAGES.1),
            most_apart: memory_bytes as usize / APART_SHARE,
            most_shared: memory_bytes as usize / SHARED_SHARE,
        }
    }

    pub(super) const fn tree(&self) -> &PagedTree {
        &self.tree
    }

    /// Memory that it takes besides what it shares with the snapshot, about, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        let loaded = self.pages.len() * self.tree.page_leaves() * LEAF_BYTES;
        self.apart_bytes().min(self.most_apart) + loaded + self.edited * size_of::<Change>()
    }

    /// What it shares with the snapshot no longer: each change copies what stands around it.
    fn apart_bytes(&self) -> usize {
        let all = self.tree.loaded_bytes() + self.tree.sealed_pages() * SEALED_BYTES;
        if self.is_own { all } else { all.min(self.edited * COPIED_BYTES) }
    }

    /// Of a copy, what it takes besides what it shares with the tree of which it is one.
    pub(super) fn copy_bytes(&self) -> usize {
        self.pages.len() * self.tree.page_leaves() * LEAF_BYTES
    }

    /// The leaf of a key.
    pub(super) fn get(
        &self,
        key: &KeyHash,
        view: &dyn CollectionView,
    ) -> Result<Option<Leaf>, ViewError> {
        let page = match self.tree.get(key) {
            Ok(leaf) => return Ok(leaf),
            Err(Sealed(page)) => self.page(&page, view)?,
        };
        Ok(page.binary_search_by_key(key, |leaf| leaf.key).ok().map(|at| page[at]))
    }

    /// The first leaves under a prefix, ascending by key, at most so many.
    pub(super) fn leaves_under(
        &self,
        prefix: &Prefix,
        most: usize,
        view: &dyn CollectionView,
    ) -> Result<Vec<Leaf>, ViewError> {
        let mut leaves = Vec::new();
        for leaf in self.tree.leaves_under(prefix) {
            if leaves.len() >= most {
                break;
            }
            match leaf {
                Ok(leaf) => leaves.push(leaf),
                Err(Sealed(page)) => {
                    let page = self.page(&page, view)?;
                    leaves.extend(page.into_iter().filter(|leaf| prefix.contains(&leaf.key)));
                }
            }
        }
        leaves.truncate(most);
        Ok(leaves)
    }

    /// The leaves that seem to stand under a prefix, ascending by key: in a page that is sealed,
    /// what the rows of its entries say, so that no more of it is read than is asked for.
    pub(super) fn leaves_near(
        &self,
        prefix: &Prefix,
        view: &dyn CollectionView,
    ) -> Result<Vec<Leaf>, ViewError> {
        let mut leaves = Vec::new();
        for leaf in self.tree.leaves_under(prefix) {
            match leaf {
                Ok(leaf) => leaves.push(leaf),
                Err(Sealed(page)) => {
                    let part = if page.len() > prefix.len() { &page } else { prefix };
                    let read = view.unchecked_leaves(part)?;
                    leaves.extend(self.with_changes(part, read));
                }
            }
        }
        Ok(leaves)
    }

    /// Sums over the leaves under a prefix.
    pub(super) fn totals_under(
        &self,
        prefix: &Prefix,
        view: &dyn CollectionView,
    ) -> Result<Totals, ViewError> {
        match self.tree.totals_under(prefix) {
            Ok(totals) => Ok(totals),
            Err(Sealed(page)) => Ok(self.page_tree(&page, view)?.totals_under(prefix)),
        }
    }

    /// The hashes one step of a descent below a prefix.
    pub(super) fn children(
        &self,
        prefix: &Prefix,
        view: &dyn CollectionView,
    ) -> Result<Vec<TreeHash>, ViewError> {
        if let Ok(hashes) = self.tree.hashes_under(prefix, STEP) {
            return Ok(hashes);
        }
        let mut last: Option<(Prefix, Tree)> = None;
        let mut hash_of = |child: Prefix| {
            let page = match self.tree.hash_under(&child) {
                Ok(hash) => return Ok(hash),
                Err(Sealed(page)) => page,
            };
            let tree = match last.take().filter(|(of, _)| *of == page) {
                Some((_, tree)) => tree,
                None => self.page_tree(&page, view)?,
            };
            let hash = tree.hash_under(&child);
            last = Some((page, tree));
            Ok(hash)
        };
        (0..CHILDREN).filter_map(|at| child_of(prefix, at)).map(&mut hash_of).collect()
    }

    /// The leaves of a sealed page as a tree of its own, which has the same hashes below it.
    fn page_tree(&self, page: &Prefix, view: &dyn CollectionView) -> Result<Tree, ViewError> {
        Ok(Tree::build(self.tree.algorithm(), self.page(page, view)?))
    }

    /// The leaves of a sealed page: the snapshot's, with all changes.
    fn page(&self, prefix: &Prefix, view: &dyn CollectionView) -> Result<Vec<Leaf>, ViewError> {
        Ok(self.with_changes(prefix, view.page(prefix)?))
    }

    /// The snapshot's leaves under a prefix with all changes.
    fn with_changes(&self, prefix: &Prefix, mut leaves: Vec<Leaf>) -> Vec<Leaf> {
        self.edits.iter().for_each(|changes| put_over(&mut leaves, prefix, changes));
        leaves
    }

    /// Changes leaves, each of another key and ascending; `changed` is told what became of each:
    /// the leaf that was there, and the change.
    pub(super) fn change(
        &mut self,
        changes: Vec<Change>,
        view: &dyn CollectionView,
        mut changed: impl FnMut(Option<&Leaf>, &Change),
    ) -> Result<(), ViewError> {
        self.edited += changes.len();
        if self.edited * COPIED_BYTES > self.most_shared {
            self.leave();
        }
        let mut done = 0;
        for part in changes.chunks(self.most_pages) {
            let before = &changes[..done];
            for prefix in self.tree.sealed_for(part.iter().map(Change::key)) {
                self.load(&prefix, before, view)?;
            }
            for change in part {
                let leaf = self.loaded(before, view, |tree| tree.get(change.key()))?;
                changed(leaf.as_ref(), change);
            }
            self.loaded(before, view, |tree| tree.apply(part).map(drop))?;
            done += part.len();
            self.seal();
        }
        self.edits.push(Arc::new(changes));
        Ok(())
    }

    /// Shares no page in memory with anybody any more, if they are many.
    fn leave(&mut self) {
        if self.tree.loaded_bytes() > self.most_shared {
            self.tree = self.tree.sealed();
            self.is_own = true;
            self.pages.clear();
        }
    }

    fn loaded<T>(
        &mut self,
        changes: &[Change],
        view: &dyn CollectionView,
        mut operation: impl FnMut(&mut PagedTree) -> Result<T, Sealed>,
    ) -> Result<T, ViewError> {
        loop {
            match operation(&mut self.tree) {
                Ok(result) => return Ok(result),
                Err(Sealed(prefix)) => self.load(&prefix, changes, view)?,
            }
        }
    }

    /// Loads a page, with the latest changes.
    fn load(
        &mut self,
        prefix: &Prefix,
        latest: &[Change],
        view: &dyn CollectionView,
    ) -> Result<(), ViewError> {
        let mut leaves = self.page(prefix, view)?;
        put_over(&mut leaves, prefix, latest);
        self.tree.unseal(prefix, leaves).map_err(|error| ViewError::Damaged {
            collection: view.spec().name.to_string(),
            what: error.to_string(),
        })
    }

    /// Seals the pages that came into memory here, if they are too many.
    fn seal(&mut self) {
        // pages that were written are among those loaded from then on
        drop(self.tree.take_page_changes());
        self.pages.extend(self.tree.take_loaded());
        if self.pages.len() > self.most_pages {
            for page in std::mem::take(&mut self.pages) {
                self.tree.seal(&page);
            }
        }
    }
}

/// Puts those of the changes that stand under the prefix over the leaves there.
fn put_over(leaves: &mut Vec<Leaf>, prefix: &Prefix, changes: &[Change]) {
    let first = prefix.first_key();
    let from = changes.partition_point(|change| *change.key() < first);
    for change in changes[from..].iter().take_while(|change| prefix.contains(change.key())) {
        let at = leaves.binary_search_by_key(change.key(), |leaf: &Leaf| leaf.key);
        match (change, at) {
            (Change::Put(leaf), Ok(at)) => leaves[at] = *leaf,
            (Change::Put(leaf), Err(at)) => leaves.insert(at, *leaf),
            (Change::Remove(_), Ok(at)) => drop(leaves.remove(at)),
            (Change::Remove(_), Err(_)) => {}
        }
    }
}

impl PartialEq for OverlayTree {
    fn eq(&self, other: &Self) -> bool {
        self.tree == other.tree
    }
}

impl Eq for OverlayTree {}

impl Hash for OverlayTree {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.tree.hash(state);
    }
}

impl Session {
    /// Brings the overlay up to date with all that is known.
    pub(super) fn settle_overlay(&mut self, view: &dyn CollectionView) -> Result<(), Failure> {
        if let Some(peer) = &self.theirs.seen {
            self.knowledge.settle(view, peer)?;
        }
        Ok(())
    }

    /// The same, before what is about the trees as both sides have them.
    pub(super) fn settle_before(
        &mut self,
        message: &TurnMessage,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        match message {
            TurnMessage::Opening(_)
            | TurnMessage::Following(_)
            | TurnMessage::States { .. }
            | TurnMessage::Removed(_)
            | TurnMessage::Candidates { .. } => Ok(()),
            _ => self.settle_overlay(view),
        }
    }
}
