//! Leaves that give way to others of the same key: no node comes or goes, so hashes and totals on
//! the way up are all that changes.

use super::batch::{Levels, Target, TrieLines};
use super::edit::Touched;
use super::shape::Prefix;
use super::slots::{Delta, Extent, NodeId, totals_of};
use super::tree::Leaf;
use super::trie::{Place, Step, Trie, Way, Ways};
use crate::hash::KeyHash;

/// Puts another leaf in the place of the one at the end of a way, whose key it has. Every node
/// of the way is hashed, unless the record is the same.
pub(super) fn replace_one(
    trie: &mut Trie,
    touched: &mut Touched,
    way: &Way,
    index: u32,
    leaf: &Leaf,
) {
    let (old, new) = (trie.leaves.totals(index), totals_of(leaf));
    let same_record = trie.leaves.record(index) == leaf.record;
    trie.leaves.replace(index, &leaf.record, &new);
    if let Some(at) = page_at(trie, way) {
        touched.entry(Prefix::of(&leaf.key, at)).or_insert(true);
    }
    let delta = Delta::between(Some(&old), Some(&new));
    if !delta.is_nothing() {
        for (node, _) in way.upwards() {
            trie.change_totals(node, &delta);
        }
    }
    if same_record {
        return;
    }
    let mut hash = trie.algorithm.of_block(None, &trie.leaves.line(index).0);
    for (node, right) in way.upwards() {
        let bit = trie.inners.split(node).bit;
        let line = trie.inners.line_mut(node);
        line.set_half(right, &hash.0);
        hash = trie.algorithm.of_block(Some(bit), &line.0);
    }
    trie.top_hash = hash;
}

/// Where the page around a leaf stands.
fn page_at(trie: &Trie, way: &Way) -> Option<u16> {
    if trie.page_leaves == 0 {
        return None;
    }
    let outside = way.upwards().find(|(node, _)| !trie.fits_page(NodeId::inner(*node)));
    Some(outside.map_or(0, |(node, _)| u16::from(trie.inners.split(node).bit) + 1))
}

/// Puts other leaves in the place of those that have their keys; where there is none, the present
/// one stays. The number of inner nodes hashed.
pub(super) fn replace_many<'a>(
    trie: &mut Trie,
    touched: &mut Touched,
    keys: &[&KeyHash],
    leaves: impl Iterator<Item = Option<&'a Leaf>>,
    ways: &Ways,
) -> usize {
    let algorithm = trie.algorithm;
    let mut walk = Walk { trie, touched, open: Vec::new(), due: Levels::new() };
    let mut last: Option<&KeyHash> = None;
    for ((key, leaf), (place, steps)) in keys.iter().zip(leaves).zip(ways.iter()) {
        if let Some(last) = last.replace(key) {
            walk.close(last.first_difference(key));
        }
        walk.enter(key, steps);
        if let (Place::Here(slot), Some(leaf)) = (place, leaf) {
            walk.replace(slot, leaf);
        }
    }
    walk.close(None);
    let Walk { trie, mut due, .. } = walk;
    let mut lines = TrieLines { trie, top: None };
    let inner_hashes = due.run(algorithm, &mut lines);
    if let Some(hash) = lines.top {
        trie.top_hash = hash;
    }
    inner_hashes
}

/// Passes over the leaves in their order.
struct Walk<'a> {
    trie: &'a mut Trie,
    touched: &'a mut Touched,
    /// The way to the last leaf.
    open: Vec<Passed>,
    due: Levels,
}

struct Passed {
    index: u32,
    bit: u8,
    target: Target,
    is_small: bool,
    fits_page: bool,
    is_due: bool,
    delta: Delta,
}

impl Walk<'_> {
    /// Where the next node on the way to a key belongs.
    fn target(&self, key: &KeyHash) -> Target {
        self.open.last().map_or(Target::Top, |above| Target::Child(above.index, key.bit(above.bit)))
    }

    fn enter(&mut self, key: &KeyHash, steps: &[Step]) {
        for step in steps {
            let Step { index, bit, small_entries } = *step;
            let page_leaves = self.trie.page_leaves;
            let fits_page = page_leaves > 0
                && (self.open.last().is_some_and(|above| above.fits_page)
                    || match small_entries {
                        Some(entries) => u32::from(entries) <= page_leaves,
                        None => self.trie.inners.entries(index) <= page_leaves,
                    });
            let (target, is_small) = (self.target(key), small_entries.is_some());
            let (is_due, delta) = (false, Delta::default());
            self.open.push(Passed { index, bit, target, is_small, fits_page, is_due, delta });
        }
    }

    fn replace(&mut self, slot: u32, leaf: &Leaf) {
        self.due.push_leaf(slot, self.target(&leaf.key));
        for passed in self.open.iter_mut().rev().take_while(|passed| !passed.is_due) {
            passed.is_due = true;
            self.due.push_inner(passed.bit, passed.index, passed.target);
        }
        if self.trie.page_leaves > 0 {
            let outside = self.open.iter().rfind(|passed| !passed.fits_page);
            let at = outside.map_or(0, |passed| u16::from(passed.bit) + 1);
            self.touched.entry(Prefix::of(&leaf.key, at)).or_insert(true);
        }
        let (old, new) = (self.trie.leaves.totals(slot), totals_of(leaf));
        self.trie.leaves.replace(slot, &leaf.record, &new);
        if let Some(passed) = self.open.last_mut() {
            passed.delta = passed.delta.and(&Delta::between(Some(&old), Some(&new)));
        }
    }

    /// Leaves the nodes that split below a bit, or all: what is below them is done.
    fn close(&mut self, below: Option<u8>) {
        while let Some(passed) = self.open.pop_if(|passed| below.is_none_or(|bit| passed.bit > bit))
        {
            if !passed.delta.is_nothing() {
                if !passed.is_small {
                    self.trie.change_totals(passed.index, &passed.delta);
                }
                if let Some(above) = self.open.last_mut() {
                    above.delta = above.delta.and(&passed.delta);
                }
            }
        }
    }
}

impl Trie {
    /// Totals of a node below which leaves gave way to others; its children have theirs.
    fn change_totals(&mut self, index: u32, delta: &Delta) {
        let Some(amounts) = self.inners.amounts(index) else { return };
        let changed = amounts.with(delta).or_else(|| {
            let split = self.inners.split(index);
            match Extent::of(&self.totals(split.left).plus(self.totals(split.right))) {
                Extent::Large(amounts) => Some(amounts),
                Extent::Small(_) => None,
            }
        });
        if let Some(amounts) = changed {
            self.inners.set_amounts(index, &amounts);
        }
    }
}
