//! Changing the trie: one walk for all changes of a batch, then one hash for every node touched.
//!
//! Changes are sorted and looked up first. That tells at which bit each parts from the leaves
//! that are there (its *fork*), whether it changes anything, and whether a sealed page is in the
//! way, before anything is written. The walk then splits the changes as the trie splits its
//! keys; a node joins what came back from both sides, and where one side is empty it vanishes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::batch::{Jobs, Target};
use super::build;
use super::replace;
use super::shape::{Prefix, Sealed};
use super::slots::{Delta, Extent, Kind, MAX_SLOTS, NodeId, SMALL, Split, TreeNode, totals_of};
use super::tree::{Applied, Change, Leaf};
use super::trie::{Place, Trie, Way};
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
            (Place::Here(index), Change::Put(leaf)) if says(trie, index, leaf) => return None,
            (Place::Here(_), _) => KEY_BITS,
        };
        Some(Self { change, fork })
    }

    /// Whether a leaf gives way to another of its key.
    fn replaces(&self) -> bool {
        self.fork == KEY_BITS && self.leaf().is_some()
    }
}

/// Changes in the order of their keys; of several for one key the last.
fn ascending(changes: &[Change]) -> Vec<&Change> {
    if changes.is_sorted_by(|earlier, later| earlier.key() < later.key()) {
        return changes.iter().collect();
    }
    // by the first bytes, which tell nearly all keys apart, and for one key in the given order
    let start = |change: &Change| u64::from_be_bytes(change.key().0.as_chunks().0[0]);
    let numbered = changes.iter().enumerate();
    let mut order: Vec<(u64, usize)> = numbered.map(|(at, change)| (start(change), at)).collect();
    order.sort_unstable();
    let mut sorted: Vec<&Change> = order.iter().map(|(_, at)| &changes[*at]).collect();
    for alike in sorted.chunk_by_mut(|one, other| start(one) == start(other)) {
        alike.sort_by_key(|change| change.key());
    }
    sorted.dedup_by(|later, earlier| {
        let same = later.key() == earlier.key();
        if same {
            *earlier = *later;
        }
        same
    });
    sorted
}

/// Whether a leaf says just this.
fn says(trie: &Trie, index: u32, leaf: &Leaf) -> bool {
    trie.leaves.record(index) == leaf.record && trie.leaves.totals(index) == totals_of(leaf)
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
    fill(trie, touched, &leaves);
}

/// Fills an empty trie with leaves that strictly ascend by key.
fn fill(trie: &mut Trie, touched: &mut Touched, leaves: &[Leaf]) {
    for page in build::build(trie, leaves) {
        touched.entry(page).or_insert(false);
    }
}

/// Applies all changes or, if a page is in the way, none. Of several for one key the last wins.
pub(super) fn apply(
    trie: &mut Arc<Trie>,
    touched: &mut Touched,
    changes: &[Change],
) -> Result<Applied, Sealed> {
    if let [change] = changes {
        return Ok(apply_one(trie, touched, change)?.1);
    }
    let changes = ascending(changes);
    let keys: Vec<&KeyHash> = changes.iter().map(|change| change.key()).collect();
    let ways = trie.find_many(&keys)?;
    let changes = changes.into_iter().zip(ways.iter());
    let edits: Vec<Option<Edit<'_>>> =
        changes.map(|(change, (place, _))| Edit::at(trie, place, change)).collect();
    let leaves = edits.iter().flatten().count();
    if leaves == 0 {
        return Ok(Applied::default());
    }
    let trie = Arc::make_mut(trie);
    let inner_hashes = if trie.top.is_none() {
        let leaves: Vec<Leaf> = edits.iter().flatten().filter_map(Planted::leaf).copied().collect();
        fill(trie, touched, &leaves);
        leaves.len() - 1
    } else if edits.iter().flatten().all(Edit::replaces) {
        let leaves = edits.iter().map(|edit| edit.as_ref().and_then(Planted::leaf));
        replace::replace_many(trie, touched, &keys, leaves, &ways)
    } else {
        let edits: Vec<Edit<'_>> = edits.into_iter().flatten().collect();
        write(trie, touched, &edits)
    };
    Ok(Applied { leaves, inner_hashes })
}

/// Applies one change; the leaf that was there.
pub(super) fn apply_one(
    trie: &mut Arc<Trie>,
    touched: &mut Touched,
    change: &Change,
) -> Result<(Option<Leaf>, Applied), Sealed> {
    let mut way = Way::new();
    let place = trie.find_way(change.key(), &mut way)?;
    let old = match place {
        Place::Here(index) => Some(trie.leaves.leaf(index)),
        Place::Empty | Place::Apart(_) => None,
    };
    let Some(edit) = Edit::at(trie, place, change) else { return Ok((old, Applied::default())) };
    let trie = Arc::make_mut(trie);
    let inner_hashes = match (place, edit.leaf()) {
        (Place::Here(index), Some(leaf)) => {
            replace::replace_one(trie, touched, &way, index, leaf);
            way.len()
        }
        _ => write(trie, touched, &[edit]),
    };
    Ok((old, Applied { leaves: 1, inner_hashes }))
}

fn write(trie: &mut Trie, touched: &mut Touched, edits: &[Edit<'_>]) -> usize {
    let mut editor = Editor::new(trie, touched);
    let part = match editor.trie.top_node() {
        Some(top) => editor.edit(top, 0, false, edits).part,
        None => editor.grow(edits),
    };
    editor.finish(part)
}

/// A subtree between two places.
pub(super) struct Part {
    pub(super) id: NodeId,
    // none when it is due
    hash: Option<TreeHash>,
    origin: Origin,
}

/// What became of a subtree, if it is still there, and of its totals.
struct Edited {
    part: Option<Part>,
    delta: Delta,
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
    pub(super) const fn sealed(id: NodeId, hash: TreeHash, at: u16) -> Self {
        Self { id, hash: Some(hash), origin: Origin::Untouched { at, in_page: false } }
    }

    const fn new(id: NodeId) -> Self {
        Self { id, hash: None, origin: Origin::New }
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
            self.trie.top_hash = self.trie.algorithm.empty();
            return 0;
        };
        self.place(&part, 0, false);
        let (count, hash) = self.hash(&part);
        self.trie.top = Some(part.id);
        self.trie.top_hash = hash;
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
            let leaf = first.leaf()?;
            assert!(self.trie.leaves.used() < MAX_SLOTS, "a tree holds at most 2^30 leaves");
            return Some(Part::new(NodeId::leaf(self.trie.leaves.insert(leaf))));
        };
        let (zeros, ones) = split(items, bit);
        let (left, right) = (self.grow(zeros), self.grow(ones));
        self.join(bit, left, right)
    }

    /// The subtree `node`, which stands at `at` (within a page or not), with these changes.
    fn edit(&mut self, node: TreeNode, at: u16, in_page: bool, edits: &[Edit<'_>]) -> Edited {
        let Some(nearest) = edits.iter().min_by_key(|edit| edit.fork) else {
            let (hash, origin) = (self.trie.hash(node), Origin::Untouched { at, in_page });
            let part = Some(Part { id: node.id, hash: Some(hash), origin });
            return Edited { part, delta: Delta::default() };
        };
        let split_bit = match node.id.kind() {
            Kind::Leaf(_) => KEY_BITS,
            Kind::Inner(index) => u16::from(self.trie.inners.split(index).bit),
            Kind::Sealed(index) => self.trie.sealed.slot(index).prefix.len(),
        };
        if nearest.fork < split_bit {
            return self.fork(node, at, in_page, edits, nearest);
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

    /// Something new stands beside the whole of a node.
    fn fork(
        &mut self,
        node: TreeNode,
        at: u16,
        in_page: bool,
        edits: &[Edit<'_>],
        nearest: &Edit<'_>,
    ) -> Edited {
        let bit = nearest.fork as u8;
        let (zeros, ones) = split(edits, bit);
        let (planted, rest) = if nearest.key().bit(bit) { (ones, zeros) } else { (zeros, ones) };
        let old = self.edit(node, at, in_page, rest);
        let new = self.grow(planted);
        let delta = planted.iter().filter_map(Planted::leaf).fold(old.delta, |delta, leaf| {
            delta.and(&Delta::between(None, Some(&totals_of(leaf))))
        });
        let (left, right) = if nearest.key().bit(bit) { (old.part, new) } else { (new, old.part) };
        Edited { part: self.join(bit, left, right), delta }
    }

    fn edit_inner(&mut self, index: u32, in_page: bool, edits: &[Edit<'_>]) -> Edited {
        let inners = &self.trie.inners;
        let before = *inners.split(index);
        let [left, right] = [false, true].map(|side| inners.child(index, side));
        let (zeros, ones) = split(edits, before.bit);
        // where only one side changes, depth and totals need not look at the other
        let one_sided = match (zeros.is_empty(), ones.is_empty()) {
            (true, false) => Some((true, self.trie.depth(right.id))),
            (false, true) => Some((false, self.trie.depth(left.id))),
            _ => None,
        };
        let at = u16::from(before.bit) + 1;
        let left = self.edit(left, at, in_page, zeros);
        let right = self.edit(right, at, in_page, ones);
        let delta = left.delta.and(&right.delta);
        let (left, right) = match (left.part, right.part) {
            (Some(left), Some(right)) => (left, right),
            (left, right) => {
                self.trie.inners.remove(index);
                return Edited { part: left.or(right), delta };
            }
        };
        let depth = one_sided
            .and_then(|(side, old)| {
                let new = self.trie.depth(if side { right.id } else { left.id });
                depth_with_child(before.depth, old, new)
            })
            .unwrap_or_else(|| self.depth_above(&left, &right));
        let extent = self.extent_after(index, &before, &delta, [&left, &right]);
        let ids = [left.id, right.id];
        let index = self.trie.inners.update(index, ids, depth, extent);
        let part = Some(self.link(index, before.bit, extent.entries(), left, right));
        Edited { part, delta }
    }

    fn edit_leaf(&mut self, index: u32, edit: &Edit<'_>) -> Edited {
        let old = self.trie.leaves.totals(index);
        if let Some(leaf) = edit.leaf() {
            let new = totals_of(leaf);
            self.trie.leaves.replace(index, &leaf.record, &new);
            let part = Some(Part::new(NodeId::leaf(index)));
            Edited { part, delta: Delta::between(Some(&old), Some(&new)) }
        } else {
            self.trie.leaves.remove(index);
            Edited { part: None, delta: Delta::between(Some(&old), None) }
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
                let (depth, extent) =
                    (self.depth_above(&left, &right), self.extent([&left, &right]));
                let index = self.trie.inners.insert(bit, [left.id, right.id], depth, extent);
                Some(self.link(index, bit, extent.entries(), left, right))
            }
            (left, right) => left.or(right),
        }
    }

    fn depth_above(&self, left: &Part, right: &Part) -> u16 {
        self.trie.depth(left.id).max(self.trie.depth(right.id)) + 1
    }

    fn extent(&self, [left, right]: [&Part; 2]) -> Extent {
        let entries = self.trie.entries(left.id) + self.trie.entries(right.id);
        match u32::try_from(entries) {
            Ok(entries) if entries <= SMALL => Extent::Small(entries),
            _ => Extent::of(&self.trie.totals(left.id).plus(self.trie.totals(right.id))),
        }
    }

    fn extent_after(
        &self,
        index: u32,
        before: &Split,
        delta: &Delta,
        children: [&Part; 2],
    ) -> Extent {
        match (before.small_entries(), self.trie.inners.amounts(index)) {
            (Some(entries), _) => {
                let entries = i64::from(entries) + delta.entries();
                match u32::try_from(entries) {
                    Ok(entries) if entries <= SMALL => Extent::Small(entries),
                    _ => self.extent(children),
                }
            }
            (None, Some(amounts)) => match amounts.with(delta).map(Extent::Large) {
                Some(extent) if extent.entries() > SMALL => extent,
                _ => self.extent(children),
            },
            (None, None) => self.extent(children),
        }
    }

    // both sides get their place in the node, which has all but their hashes
    fn link(&mut self, index: u32, bit: u8, entries: u32, left: Part, right: Part) -> Part {
        let in_page = entries <= self.trie.page_leaves;
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
        Part::new(NodeId::inner(index))
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

/// Depth of an inner node one child of which is another now; none when that cannot be told
/// without the other child.
const fn depth_with_child(depth: u16, old: u16, new: u16) -> Option<u16> {
    if new + 1 >= depth {
        Some(new + 1)
    } else if old + 1 < depth {
        Some(depth)
    } else {
        None
    }
}

/// Items whose bit is 0 and items whose bit is 1; all have the bits before it in common.
fn split<T: Planted>(items: &[T], bit: u8) -> (&[T], &[T]) {
    items.split_at(items.partition_point(|item| !item.key().bit(bit)))
}
