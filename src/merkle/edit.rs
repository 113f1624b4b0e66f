//! Changing the trie: one walk for all changes of a batch, then one hash for every node touched.
//!
//! Changes are sorted and looked up first. That tells at which bit each parts from the leaves
//! that are there (its *fork*), whether it changes anything, and whether a sealed page is in the
//! way, before anything is written. The walk then splits the changes as the trie splits its
//! keys; a node joins what came back from both sides, and where one side is empty it vanishes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::batch::{Jobs, Target};
use super::shape::{Prefix, Sealed};
use super::slots::{Kind, LeafSlot, MAX_SLOTS, NodeId, Sums, TreeNode};
use super::tree::{Applied, Change, Leaf};
use super::trie::{Place, Trie};
use crate::hash::{KeyHash, TreeHash};

const KEY_BITS: u16 = 256;

/// Prefixes at which the row of a page may have changed, and whether there was one before.
pub(super) type Touched = BTreeMap<Prefix, bool>;

/// What can be set into an empty place of the trie.
pub(super) trait Planted {
    fn key(&self) -> &KeyHash;
    // none when it turns out that nothing is to stand there
    fn leaf(&self) -> Option<&Leaf>;
}

impl Planted for Leaf {
    fn key(&self) -> &KeyHash {
        &self.key
    }

    fn leaf(&self) -> Option<&Leaf> {
        Some(self)
    }
}

/// A change that does change something.
#[derive(Clone, Copy)]
struct Edit<'a> {
    change: &'a Change,
    // first bit in which the key differs from the nearest leaf, 256 when it is there
    fork: u16,
}

impl Planted for Edit<'_> {
    fn key(&self) -> &KeyHash {
        self.change.key()
    }

    fn leaf(&self) -> Option<&Leaf> {
        match self.change {
            Change::Put(leaf) => Some(leaf),
            Change::Remove(_) => None,
        }
    }
}

impl<'a> Edit<'a> {
    // none if it changes nothing
    fn at(trie: &Trie, place: Place, change: &'a Change) -> Option<Self> {
        let fork = match (place, change) {
            (Place::Empty | Place::Apart(_), Change::Remove(_)) => return None,
            (Place::Empty, Change::Put(_)) => 0,
            (Place::Apart(bit), Change::Put(_)) => u16::from(bit),
            (Place::Here(index), Change::Put(leaf)) if trie.leaves.slot(index).equals(leaf) => {
                return None;
            }
            (Place::Here(_), _) => KEY_BITS,
        };
        Some(Self { change, fork })
    }

    fn sorted(trie: &Trie, changes: &'a [Change]) -> Result<Vec<Self>, Sealed> {
        let mut changes: Vec<&Change> = changes.iter().collect();
        changes.sort_by_key(|change| change.key());
        changes.dedup_by(|later, earlier| {
            let same = later.key() == earlier.key();
            if same {
                *earlier = *later;
            }
            same
        });
        let mut edits = Vec::with_capacity(changes.len());
        for change in changes {
            edits.extend(Self::at(trie, trie.find(change.key())?, change));
        }
        Ok(edits)
    }
}

/// Fills an empty trie. Of several leaves with one key the last wins.
pub(super) fn build(trie: &mut Trie, touched: &mut Touched, mut leaves: Vec<Leaf>) {
    if !leaves.is_sorted_by(|earlier, later| earlier.key < later.key) {
        leaves.sort_by_key(|leaf| leaf.key);
        leaves.dedup_by(|later, earlier| {
            let same = later.key == earlier.key;
            if same {
                *earlier = *later;
            }
            same
        });
    }
    let mut editor = Editor::new(trie, touched);
    let part = editor.grow(&leaves);
    editor.finish(part);
}

/// Applies all changes or, if a page is in the way, none. Of several for one key the last wins.
pub(super) fn apply(
    trie: &mut Arc<Trie>,
    touched: &mut Touched,
    changes: &[Change],
) -> Result<Applied, Sealed> {
    let edits = Edit::sorted(trie, changes)?;
    Ok(write(trie, touched, &edits))
}

/// Applies one change and hands back the leaf that was there.
pub(super) fn apply_one(
    trie: &mut Arc<Trie>,
    touched: &mut Touched,
    change: &Change,
) -> Result<Option<Leaf>, Sealed> {
    let place = trie.find(change.key())?;
    let old = match place {
        Place::Here(index) => Some(trie.leaves.slot(index).leaf()),
        Place::Empty | Place::Apart(_) => None,
    };
    if let Some(edit) = Edit::at(trie, place, change) {
        write(trie, touched, &[edit]);
    }
    Ok(old)
}

fn write(trie: &mut Arc<Trie>, touched: &mut Touched, edits: &[Edit<'_>]) -> Applied {
    if edits.is_empty() {
        return Applied::default();
    }
    let mut editor = Editor::new(Arc::make_mut(trie), touched);
    let part = match editor.trie.top {
        Some(top) => editor.edit(top, 0, false, edits),
        None => editor.grow(edits),
    };
    Applied { leaves: edits.len(), inner_hashes: editor.finish(part) }
}

/// A subtree between two places.
pub(super) struct Part {
    pub(super) id: NodeId,
    // none when it is due
    hash: Option<TreeHash>,
    // none when nothing changed in it: then they are worth a look only if they are needed
    sums: Option<Sums>,
    origin: Origin,
}

/// Where a subtree comes from, for the rows of pages.
#[derive(Clone, Copy)]
enum Origin {
    /// It has no row: it is new, or the row was given up when the walk came by.
    New,
    /// Nothing changed in it since it stood at `at`, within a page or not.
    Untouched { at: u16, in_page: bool },
}

impl Part {
    /// A page that was not changed and stood at `at`.
    pub(super) const fn sealed(id: NodeId, hash: TreeHash, sums: Sums, at: u16) -> Self {
        let origin = Origin::Untouched { at, in_page: false };
        Self { id, hash: Some(hash), sums: Some(sums), origin }
    }

    const fn new(id: NodeId, sums: Sums) -> Self {
        Self { id, hash: None, sums: Some(sums), origin: Origin::New }
    }
}

/// One change of the trie under way.
pub(super) struct Editor<'a> {
    pub(super) trie: &'a mut Trie,
    touched: &'a mut Touched,
    jobs: Jobs,
}

impl<'a> Editor<'a> {
    pub(super) fn new(trie: &'a mut Trie, touched: &'a mut Touched) -> Self {
        Self { trie, touched, jobs: Jobs::default() }
    }

    /// Sets the part at the top and hashes what is due; the number of inner nodes hashed.
    pub(super) fn finish(mut self, part: Option<Part>) -> usize {
        let Some(part) = part else {
            self.trie.top = None;
            return 0;
        };
        self.place(&part, 0, false);
        let (count, hash) = self.hash(&part);
        self.trie.top = Some(TreeNode { id: part.id, hash });
        count
    }

    /// Hashes what is due under a part and the part itself, which is to stand nowhere yet.
    pub(super) fn hash(&mut self, part: &Part) -> (usize, TreeHash) {
        if part.hash.is_none() {
            self.jobs.push(self.trie, part.id, Target::Top);
        }
        let due = self.jobs.run(self.trie);
        (self.jobs.inner_hashes(), part.hash.or(due).expect("the hash is known or due"))
    }

    /// The subtree of these items, ascending by key and no key twice.
    pub(super) fn grow<T: Planted>(&mut self, items: &[T]) -> Option<Part> {
        let (first, last) = (items.first()?, items.last()?);
        let Some(bit) = first.key().first_difference(last.key()) else {
            let slot = LeafSlot::new(first.leaf()?);
            assert!(self.trie.leaves.used() < MAX_SLOTS, "a tree holds at most 2^30 leaves");
            let index = self.trie.leaves.insert(slot);
            return Some(Part::new(NodeId::leaf(index), slot.sums()));
        };
        let (zeros, ones) = split(items, bit);
        let (left, right) = (self.grow(zeros), self.grow(ones));
        self.join(bit, left, right)
    }

    /// The subtree `node`, which stands at `at` (within a page or not), with these changes.
    fn edit(&mut self, node: TreeNode, at: u16, in_page: bool, edits: &[Edit<'_>]) -> Option<Part> {
        let Some(nearest) = edits.iter().min_by_key(|edit| edit.fork) else {
            let origin = Origin::Untouched { at, in_page };
            return Some(Part { id: node.id, hash: Some(node.hash), sums: None, origin });
        };
        let split_bit = match node.id.kind() {
            Kind::Leaf(_) => KEY_BITS,
            Kind::Inner(index) => u16::from(self.trie.inners.split(index).bit),
            Kind::Sealed(index) => self.trie.sealed.slot(index).prefix.len(),
        };
        if nearest.fork < split_bit {
            // something new stands beside the whole of this node
            let bit = nearest.fork as u8;
            let (zeros, ones) = split(edits, bit);
            let (left, right) = if nearest.key().bit(bit) {
                (self.edit(node, at, in_page, zeros), self.grow(ones))
            } else {
                (self.grow(zeros), self.edit(node, at, in_page, ones))
            };
            return self.join(bit, left, right);
        }
        let page = !in_page && self.trie.fits_page(node.id);
        if page {
            self.vanish(Prefix::of(nearest.key(), at));
        }
        match node.id.kind() {
            Kind::Leaf(index) => self.edit_leaf(index, nearest),
            Kind::Inner(index) => self.edit_inner(index, in_page || page, edits),
            Kind::Sealed(_) => unreachable!("looking changes up stops at sealed pages"),
        }
    }

    fn edit_inner(&mut self, index: u32, in_page: bool, edits: &[Edit<'_>]) -> Option<Part> {
        let inners = &self.trie.inners;
        let (bit, before) = (inners.split(index).bit, inners.sums(index));
        let [left, right] = [false, true].map(|side| inners.child(index, side));
        let (zeros, ones) = split(edits, bit);
        // where only one side changes, the totals need not look at the other
        let one_sided = match (zeros.is_empty(), ones.is_empty()) {
            (true, false) => Some((before, self.trie.sums(right.id))),
            (false, true) => Some((before, self.trie.sums(left.id))),
            _ => None,
        };
        let at = u16::from(bit) + 1;
        let left = self.edit(left, at, in_page, zeros);
        let right = self.edit(right, at, in_page, ones);
        let (left, right) = match (left, right) {
            (Some(left), Some(right)) => (left, right),
            (left, right) => {
                self.trie.inners.remove(index);
                return left.or(right);
            }
        };
        let changed = if ones.is_empty() { left.sums } else { right.sums };
        let sums = one_sided
            .zip(changed)
            .and_then(|((node, old), new)| node.with_child(&old, &new))
            .unwrap_or_else(|| self.sums_above(&left, &right));
        Some(self.link(bit, left, right, &sums, Some(index)))
    }

    fn edit_leaf(&mut self, index: u32, edit: &Edit<'_>) -> Option<Part> {
        if let Some(leaf) = edit.leaf() {
            let slot = LeafSlot::new(leaf);
            *self.trie.leaves.slot_mut(index) = slot;
            Some(Part::new(NodeId::leaf(index), slot.sums()))
        } else {
            self.trie.leaves.remove(index);
            None
        }
    }

    /// The node over both sides; the only side that there is otherwise.
    pub(super) fn join(
        &mut self,
        bit: u8,
        left: Option<Part>,
        right: Option<Part>,
    ) -> Option<Part> {
        match (left, right) {
            (Some(left), Some(right)) => {
                let sums = self.sums_above(&left, &right);
                Some(self.link(bit, left, right, &sums, None))
            }
            (left, right) => left.or(right),
        }
    }

    fn sums_above(&self, left: &Part, right: &Part) -> Sums {
        let sums = |part: &Part| part.sums.unwrap_or_else(|| self.trie.sums(part.id));
        Sums::above(&sums(left), &sums(right))
    }

    // in the slot, if one is given
    fn link(&mut self, bit: u8, left: Part, right: Part, sums: &Sums, slot: Option<u32>) -> Part {
        let children = [left.id, right.id];
        let index = match slot {
            Some(index) => {
                self.trie.inners.update(index, bit, children, sums);
                index
            }
            None => self.trie.inners.insert(bit, children, sums),
        };
        let in_page = sums.totals.entries <= u64::from(self.trie.page_leaves);
        for (part, side) in [(left, false), (right, true)] {
            self.place(&part, u16::from(bit) + 1, in_page);
            match &part.hash {
                Some(hash) => self.trie.inners.set_child_hash(index, side, hash),
                None => self.jobs.push(self.trie, part.id, Target::Child(index, side)),
            }
        }
        if self.jobs.are_enough() {
            self.jobs.run(self.trie);
        }
        Part::new(NodeId::inner(index), *sums)
    }

    /// The part now stands at `at`, within a page or not: rows of pages follow. What is sealed
    /// keeps its name: under a shorter one a snapshot, or a store that has not taken the change,
    /// still has the leaves that are gone here.
    fn place(&mut self, part: &Part, at: u16, in_page: bool) {
        let had_row = match part.origin {
            Origin::Untouched { at: old, in_page: was } if (old, was) == (at, in_page) => return,
            Origin::Untouched { at: old, in_page: false } => Some(old),
            Origin::Untouched { .. } | Origin::New => None,
        };
        if self.trie.fits_page(part.id) && !(in_page && had_row.is_none()) {
            let key = self.trie.sample(part.id);
            if let Some(old) = had_row {
                self.vanish(Prefix::of(&key, old));
            }
            if !in_page {
                self.touched.entry(Prefix::of(&key, at)).or_insert(false);
            }
        }
    }

    fn vanish(&mut self, row: Prefix) {
        self.touched.entry(row).or_insert(true);
    }
}

/// Items whose bit is 0 and items whose bit is 1; all have the bits before it in common.
fn split<T: Planted>(items: &[T], bit: u8) -> (&[T], &[T]) {
    items.split_at(items.partition_point(|item| !item.key().bit(bit)))
}
