//! Changing the trie: one walk for all changes of a batch, then one hash for every node touched.
//!
//! Changes are sorted and looked up first. That tells at which bit each parts from the leaves
//! that are there (its *fork*), whether it changes anything, and whether a sealed page is in the
//! way, before anything is written. The walk then splits the changes as the trie splits its
//! keys; a node joins what came back from both sides, and where one side is empty it vanishes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::batch::{Address, Levels, Target, TrieLines};
use super::build::Builder;
use super::bunch::{Bunch, Due, Family, Kept, MOST};
use super::bunches::{BunchId, Spot};
use super::replace::{self, Replacer};
use super::shape::{Prefix, Sealed};
use super::single;
use super::slots::{Amounts, Delta, Kind, Line, NodeId, Split, TreeNode, totals_of};
use super::tree::{Applied, Change, Leaf};
use super::trie::{Place, Trie, Way};
use crate::hash::{KeyHash, TreeHash};

const KEY_BITS: u16 = 256;
/// Changes of a batch that are looked up and applied together: the bunches of so many stay in a
/// core's own cache between the two.
const GROUP: usize = 1_024;
/// From so many nodes on, hashing is not put off any longer: they are still in the cache.
const ENOUGH: usize = 1_024;

/// Prefixes at which the row of a page may have changed, and whether there was one before.
pub(super) type Touched = BTreeMap<Prefix, bool>;

/// A change that does change something.
#[derive(Clone, Copy)]
struct Edit<'a> {
    change: &'a Change,
    // first bit in which the key differs from the nearest leaf, 256 when it is there
    fork: u16,
}

impl<'a> Edit<'a> {
    const fn key(&self) -> &'a KeyHash {
        self.change.key()
    }

    /// What is to stand there.
    const fn leaf(&self) -> Option<&'a Leaf> {
        self.change.leaf()
    }

    // none if it changes nothing
    fn at(trie: &Trie, place: Place, change: &'a Change) -> Option<Self> {
        let fork = match (place, change) {
            (Place::Empty | Place::Apart(_), Change::Remove(_)) => return None,
            (Place::Empty, Change::Put(_)) => 0,
            (Place::Apart(bit), Change::Put(_)) => u16::from(bit),
            (Place::Here(spot), Change::Put(leaf)) if says(trie, spot, leaf) => return None,
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
fn says(trie: &Trie, spot: Spot, leaf: &Leaf) -> bool {
    let same_record = trie.bunches.bunch(spot.bunch).record(usize::from(spot.at)) == leaf.record;
    same_record && trie.bunches.totals(spot) == totals_of(leaf)
}

/// The trie of these leaves, in any order. Of several with one key the last wins.
pub(super) fn build(
    empty: Trie,
    touched: &mut Touched,
    leaves: impl IntoIterator<Item = Leaf>,
) -> Trie {
    let (algorithm, page_leaves) = (empty.algorithm, empty.page_leaves);
    let mut leaves = leaves.into_iter();
    let mut builder = Builder::new(empty);
    let Some(early) = leaves.find(|leaf| !builder.push(leaf)) else {
        return finish(builder, touched);
    };
    let (before, _) = builder.finish();
    let mut sorted: Vec<Leaf> = before.leaves_under(&Prefix::ALL).flatten().collect();
    drop(before);
    sorted.push(early);
    sorted.extend(leaves);
    sorted.sort_by_key(|leaf| leaf.key);
    sorted.dedup_by(|later, earlier| {
        let same = later.key == earlier.key;
        if same {
            *earlier = *later;
        }
        same
    });
    fill(Trie::new(algorithm, page_leaves), touched, sorted)
}

/// The trie of leaves that strictly ascend by key.
fn fill(empty: Trie, touched: &mut Touched, leaves: impl IntoIterator<Item = Leaf>) -> Trie {
    let mut builder = Builder::new(empty);
    for leaf in leaves {
        assert!(builder.push(&leaf), "leaves ascend here");
    }
    finish(builder, touched)
}

fn finish(builder: Builder, touched: &mut Touched) -> Trie {
    let (trie, pages) = builder.finish();
    for page in pages {
        touched.entry(page).or_insert(false);
    }
    trie
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
    trie.check_loaded(changes.iter().map(|change| change.key()))?;
    if trie.top.is_none() {
        let empty = Trie::new(trie.algorithm, trie.page_leaves);
        let puts = changes.iter().filter_map(|change| change.leaf());
        let planted = fill(empty, touched, puts.copied());
        let leaves = planted.top_sums().totals.entries as usize;
        *trie = Arc::new(planted);
        return Ok(Applied { leaves, inner_hashes: leaves.saturating_sub(1) });
    }
    let mut applied = Applied::default();
    let mut replacer = Replacer::new();
    for group in changes.chunks(GROUP) {
        // side by side: what stood anywhere is far from the processor
        let group: Vec<Change> = group.iter().map(|change| **change).collect();
        let mut edits: Vec<Option<Edit<'_>>> = Vec::with_capacity(group.len());
        let judge = |place| edits.push(Edit::at(trie, place, &group[edits.len()]));
        let keys: Vec<&KeyHash> = group.iter().map(Change::key).collect();
        let ways = trie.find_many(replacer.last_key(), &keys, judge)?;
        let count = edits.iter().flatten().count();
        if count == 0 {
            continue;
        }
        applied.leaves += count;
        let trie = Arc::make_mut(trie);
        if edits.iter().flatten().all(Edit::replaces) {
            let leaves = edits.iter().map(|edit| edit.as_ref().and_then(Edit::leaf));
            replacer.replace_all(trie, touched, &keys, leaves, &ways);
        } else {
            applied.inner_hashes += std::mem::replace(&mut replacer, Replacer::new()).finish(trie);
            let edits: Vec<Edit<'_>> = edits.into_iter().flatten().collect();
            applied.inner_hashes += write(trie, touched, &edits);
        }
    }
    if applied.leaves > 0 {
        let trie = Arc::make_mut(trie);
        applied.inner_hashes += replacer.finish(trie);
        trie.give_back();
    }
    Ok(applied)
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
        Place::Here(spot) => Some(trie.bunches.leaf(spot)),
        Place::Empty | Place::Apart(_) => None,
    };
    let Some(edit) = Edit::at(trie, place, change) else { return Ok((old, Applied::default())) };
    let trie = Arc::make_mut(trie);
    let inner_hashes = match (place, edit.leaf()) {
        (Place::Here(spot), Some(leaf)) => replace::replace_one(trie, touched, &way, spot, leaf),
        _ => {
            trie.ask_amounts(&way);
            let hashed = match (place, edit.leaf(), &old) {
                (Place::Apart(bit), Some(leaf), _) => {
                    single::insert(trie, touched, &way, bit, leaf)
                }
                (Place::Here(_), None, Some(old)) => single::remove(trie, touched, &way, old),
                _ => None,
            };
            hashed.unwrap_or_else(|| write(trie, touched, &[edit]))
        }
    };
    if edit.leaf().is_none() {
        trie.give_back();
    }
    Ok((old, Applied { leaves: 1, inner_hashes }))
}

fn write(trie: &mut Trie, touched: &mut Touched, edits: &[Edit<'_>]) -> usize {
    let mut editor = Editor::new(trie, touched);
    let part = match editor.trie.top_node() {
        Some(top) => editor.edit(top, 0, false, edits).part,
        None => editor.plant(edits),
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
    due: Levels<Address>,
    inner_hashes: usize,
    scratch: Scratch,
}

/// What is needed again for every bunch that changes.
#[derive(Default)]
struct Scratch {
    /// The bunch as it was.
    lines: Vec<Line>,
    /// Its leaves as they are to be, and where they stood.
    leaves: Vec<Leaf>,
    places: Vec<Option<u8>>,
}

impl<'a> Editor<'a> {
    pub(super) fn new(trie: &'a mut Trie, touched: &'a mut Touched) -> Self {
        let scratch = Scratch::default();
        Self { trie, touched, due: Levels::new(), inner_hashes: 0, scratch }
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
            let (bit, at) = self.trie.line_of(part.id);
            self.due.push(bit, at, Target::Top);
        }
        let due = self.hash_due();
        (self.inner_hashes, part.hash.or(due).expect("the hash is known or due"))
    }

    /// Hashes what is due; the hash of the node for the top, if it is among that.
    fn hash_due(&mut self) -> Option<TreeHash> {
        let algorithm = self.trie.algorithm;
        let mut lines = TrieLines { trie: self.trie, are_near: false, top: None };
        self.inner_hashes += self.due.run(algorithm, &mut lines);
        lines.top
    }

    /// The subtree of leaves that strictly ascend by key.
    pub(super) fn grow(&mut self, leaves: &[Leaf]) -> Option<Part> {
        self.assemble(leaves, None)
    }

    /// The subtree of what these edits put.
    fn plant(&mut self, edits: &[Edit<'_>]) -> Option<Part> {
        let leaves: Vec<Leaf> = edits.iter().filter_map(Edit::leaf).copied().collect();
        self.grow(&leaves)
    }

    fn assemble(&mut self, leaves: &[Leaf], kept: Option<Kept<'_>>) -> Option<Part> {
        if leaves.len() > self.trie.bunch_leaves() {
            let bit = leaves[0].key.first_difference(&leaves[leaves.len() - 1].key)?;
            let middle = leaves.partition_point(|leaf| !leaf.key.bit(bit));
            let (zeros, ones) = leaves.split_at(middle);
            let kept = kept.map(|kept| kept.split_at(middle));
            let left = self.assemble(zeros, kept.map(|(zeros, _)| zeros));
            let right = self.assemble(ones, kept.map(|(_, ones)| ones));
            return self.join(bit, left, right);
        }
        let id = (!leaves.is_empty()).then(|| self.trie.bunches.reserve(leaves.len()))?;
        let due = &mut self.due;
        let hash = self.trie.bunches.lay(id, leaves, kept, |Due { line, bit, above, right }| {
            let [line, above] = [line, above].map(|line| Address::within(id, line));
            due.push(bit, line, Target::Child(above, right));
        });
        Some(Part { id: NodeId::bunch(id), hash, origin: Origin::New })
    }

    /// The subtree `node`, which stands at `at` (within a page or not), with these changes.
    fn edit(&mut self, node: TreeNode, at: u16, in_page: bool, edits: &[Edit<'_>]) -> Edited {
        let Some(nearest) = edits.iter().min_by_key(|edit| edit.fork) else {
            let (hash, origin) = (self.trie.hash(node), Origin::Untouched { at, in_page });
            let part = Some(Part { id: node.id, hash: Some(hash), origin });
            return Edited { part, delta: Delta::default() };
        };
        let split_bit = match node.id.kind() {
            Kind::Bunch(id) => {
                return self.edit_bunch(id, self.trie.hash(node), at, in_page, edits);
            }
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
            Kind::Inner(index) => self.edit_inner(index, in_page || page, edits),
            _ => unreachable!("looking changes up stops at sealed pages"),
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
        let new = self.plant(planted);
        let delta = planted.iter().filter_map(Edit::leaf).fold(old.delta, |delta, leaf| {
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
        let amounts = self.trie.inners.amounts(index).with(&delta);
        let may_fit = amounts.is_none_or(|amounts| amounts.entries() as usize <= MOST);
        if may_fit && self.fit_in_a_bunch(&left, &right) {
            self.trie.inners.remove(index);
            let part = Some(self.fuse(before.bit, left, right));
            return Edited { part, delta };
        }
        let depth = one_sided
            .and_then(|(side, old)| {
                let new = self.trie.depth(if side { right.id } else { left.id });
                depth_with_child(before.depth, old, new)
            })
            .unwrap_or_else(|| self.depth_above(&left, &right));
        let amounts = amounts.unwrap_or_else(|| self.amounts(&left, &right));
        let split = Split { left: left.id, right: right.id, depth, bit: before.bit };
        self.trie.inners.update(index, split, amounts);
        let part = Some(self.link(index, before.bit, amounts.entries(), left, right));
        Edited { part, delta }
    }

    /// The leaves of a bunch change: those that stay keep their hashes.
    fn edit_bunch(
        &mut self,
        id: BunchId,
        hash: TreeHash,
        at: u16,
        in_page: bool,
        edits: &[Edit<'_>],
    ) -> Edited {
        if self.trie.page_leaves > 0 && !in_page {
            self.vanish(Prefix::of(edits[0].key(), at));
        }
        let bunches = &mut self.trie.bunches;
        let Scratch { mut lines, mut leaves, mut places } = std::mem::take(&mut self.scratch);
        lines.clear();
        lines.extend_from_slice(bunches.lines(id));
        let from = Bunch::new(&lines, id.layout());
        let most = from.len() + edits.len();
        leaves.clear();
        leaves.reserve(most);
        places.clear();
        places.reserve(most);
        let mut delta = Delta::default();
        let mut edits = edits.iter().peekable();
        for at in 0..from.len() {
            let old = bunches.leaf(Spot { bunch: id, at: at as u8 });
            while let Some(edit) = edits.next_if(|edit| *edit.key() < old.key) {
                delta = delta.and(&Delta::between(None, edit.leaf().map(totals_of).as_ref()));
                leaves.extend(edit.leaf());
                places.resize(leaves.len(), None);
            }
            if let Some(edit) = edits.next_if(|edit| *edit.key() == old.key) {
                let new = edit.leaf().map(totals_of);
                delta = delta.and(&Delta::between(Some(&old.totals), new.as_ref()));
                leaves.extend(edit.leaf());
                places.resize(leaves.len(), None);
            } else {
                leaves.push(old);
                places.push(Some(at as u8));
            }
        }
        for leaf in edits.filter_map(Edit::leaf) {
            delta = delta.and(&Delta::between(None, Some(&totals_of(leaf))));
            leaves.push(*leaf);
            places.push(None);
        }
        bunches.remove(id);
        let family = Family::of(from);
        let part = self.assemble(&leaves, Some(Kept::new(from, hash, &places, &family)));
        self.scratch = Scratch { lines, leaves, places };
        Edited { part, delta }
    }

    fn fit_in_a_bunch(&self, left: &Part, right: &Part) -> bool {
        let are_bunches = [left, right].iter().all(|part| matches!(part.id.kind(), Kind::Bunch(_)));
        let entries = || self.trie.entries(left.id) + self.trie.entries(right.id);
        are_bunches && entries() <= self.trie.bunch_leaves() as u64
    }

    /// One bunch of two, under a node that splits at a bit.
    fn fuse(&mut self, bit: u8, left: Part, right: Part) -> Part {
        let sides = [left, right];
        for part in &sides {
            self.place(part, u16::from(bit) + 1, true);
        }
        let hashes = sides.each_ref().map(|part| self.hash(part).1);
        let ids = sides.map(|part| match part.id.kind() {
            Kind::Bunch(id) => id,
            _ => unreachable!("only bunches become one"),
        });
        Part::new(NodeId::bunch(self.trie.bunches.fuse(bit, ids, &hashes)))
    }

    /// The node over both sides; the only side that there is otherwise.
    pub(super) fn join(
        &mut self,
        bit: u8,
        left: Option<Part>,
        right: Option<Part>,
    ) -> Option<Part> {
        match (left, right) {
            (Some(left), Some(right)) if self.fit_in_a_bunch(&left, &right) => {
                Some(self.fuse(bit, left, right))
            }
            (Some(left), Some(right)) => {
                let depth = self.depth_above(&left, &right);
                let amounts = self.amounts(&left, &right);
                let split = Split { left: left.id, right: right.id, depth, bit };
                let index = self.trie.inners.insert(split, amounts);
                Some(self.link(index, bit, amounts.entries(), left, right))
            }
            (left, right) => left.or(right),
        }
    }

    fn depth_above(&self, left: &Part, right: &Part) -> u16 {
        self.trie.depth(left.id).max(self.trie.depth(right.id)) + 1
    }

    fn amounts(&self, left: &Part, right: &Part) -> Amounts {
        Amounts::of(&self.trie.totals(left.id).plus(self.trie.totals(right.id)))
    }

    // both sides get their place in the node, which has all but their hashes
    fn link(&mut self, index: u32, bit: u8, entries: u32, left: Part, right: Part) -> Part {
        let in_page = entries <= self.trie.page_leaves;
        for (part, side) in [(left, false), (right, true)] {
            self.place(&part, u16::from(bit) + 1, in_page);
            match &part.hash {
                Some(hash) => self.trie.inners.set_child_hash(index, side, hash),
                None => {
                    let (line_bit, at) = self.trie.line_of(part.id);
                    self.due.push(line_bit, at, Target::Child(Address::inner(index), side));
                }
            }
        }
        if self.due.len() >= ENOUGH {
            self.hash_due();
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
pub(super) const fn depth_with_child(depth: u16, old: u16, new: u16) -> Option<u16> {
    if new + 1 >= depth {
        Some(new + 1)
    } else if old + 1 < depth {
        Some(depth)
    } else {
        None
    }
}

/// Edits whose bit is 0 and edits whose bit is 1; all have the bits before it in common.
fn split<'e, 'c>(edits: &'e [Edit<'c>], bit: u8) -> (&'e [Edit<'c>], &'e [Edit<'c>]) {
    edits.split_at(edits.partition_point(|edit| !edit.key().bit(bit)))
}
