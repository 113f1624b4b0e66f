//! Leaves that give way to others of the same key: no node comes or goes, so hashes and totals on
//! the way up are all that changes.

use super::batch::{Address, Levels, Target, TrieLines};
use super::bunch::{self, Side};
use super::bunches::{BunchId, Spot};
use super::edit::Touched;
use super::shape::Prefix;
use super::slots::{Amounts, Delta, NodeId, totals_of};
use super::tree::Leaf;
use super::trie::{FOUND_TOGETHER, Place, Step, Trie, Way, Ways};
use crate::hash::{KeyHash, TreeHash};

/// Puts another leaf in the place of the one at the end of a way, whose key it has. Every node
/// above it is hashed, unless the record is the same; how many they were.
pub(super) fn replace_one(
    trie: &mut Trie,
    touched: &mut Touched,
    way: &Way,
    spot: Spot,
    leaf: &Leaf,
) -> usize {
    let (old, new) = (trie.bunches.totals(spot), totals_of(leaf));
    let bunch = trie.bunches.bunch(spot.bunch);
    let (_, within) = way.within.expect("the leaf of the way stands in a bunch");
    let same_record = bunch.record(within.leaf) == leaf.record;
    let above = way.len() + within.len();
    trie.bunches.replace(spot, &leaf.record, &new);
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
        return above;
    }
    let layout = spot.bunch.layout();
    let lines = trie.bunches.lines_mut(spot.bunch);
    let own = trie.algorithm.of_block(None, &lines[layout.leaf(within.leaf)].0);
    let mut hash = bunch::rehash(lines, layout, &within, own, trie.algorithm);
    for (node, right) in way.upwards() {
        let bit = trie.inners.split(node).bit;
        let line = trie.inners.line_mut(node);
        line.set_half(right, &hash.0);
        hash = trie.algorithm.of_block(Some(bit), &line.0);
    }
    trie.top_hash = hash;
    above
}

/// Where the page around a leaf stands.
pub(super) fn page_at(trie: &Trie, way: &Way) -> Option<u16> {
    if trie.page_leaves == 0 {
        return None;
    }
    let outside = way.upwards().find(|(node, _)| !trie.fits_page(NodeId::inner(*node)));
    Some(outside.map_or(0, |(node, _)| u16::from(trie.inners.split(node).bit) + 1))
}

/// Leaves that are hashed together with what is above them in their bunches: all of it fits into a
/// core's own cache.
const HASHED_TOGETHER: usize = 1_024;

/// Passes over leaves in their order and puts others in their place.
pub(super) struct Replacer {
    last: Option<KeyHash>,
    /// The way to the last leaf, above its bunch.
    open: Vec<Passed>,
    /// The bunch of the last leaf, and a bit for each of its nodes that is due.
    bunch: Option<(BunchId, u32)>,
    /// What is due within bunches, and how many leaves are among it.
    lower: Levels<Address>,
    lower_leaves: usize,
    /// What is due above them.
    upper: Levels<Address>,
    top: Option<TreeHash>,
    inner_hashes: usize,
}

struct Passed {
    index: u32,
    bit: u8,
    target: Target<Address>,
    fits_page: bool,
    is_due: bool,
    delta: Delta,
}

impl Replacer {
    pub(super) fn new() -> Self {
        Self {
            last: None,
            open: Vec::new(),
            bunch: None,
            lower: Levels::new(),
            lower_leaves: 0,
            upper: Levels::new(),
            top: None,
            inner_hashes: 0,
        }
    }

    /// The key that was passed last.
    pub(super) const fn last_key(&self) -> Option<KeyHash> {
        self.last
    }

    /// Puts other leaves in the place of those that have their keys; where there is none, the
    /// present one stays.
    pub(super) fn replace_all<'l>(
        &mut self,
        trie: &mut Trie,
        touched: &mut Touched,
        keys: &[&KeyHash],
        leaves: impl Iterator<Item = Option<&'l Leaf>>,
        ways: &Ways,
    ) {
        let all = keys.iter().zip(leaves).zip(ways.iter());
        for (at, ((key, leaf), (place, steps))) in all.enumerate() {
            if at.is_multiple_of(FOUND_TOGETHER) {
                let these = at..keys.len().min(at + FOUND_TOGETHER);
                ask(trie, &keys[these.clone()], ways.places(these));
            }
            if let Some(last) = self.last.replace(**key) {
                self.close(trie, last.first_difference(key));
            }
            self.enter(trie, key, steps);
            if let (Place::Here(spot), Some(leaf)) = (place, leaf) {
                self.replace(trie, touched, spot, leaf);
            }
        }
    }

    /// Where the next node on the way to a key belongs.
    fn target(&self, key: &KeyHash) -> Target<Address> {
        let child = |above: &Passed| Target::Child(Address::inner(above.index), key.bit(above.bit));
        self.open.last().map_or(Target::Top, child)
    }

    fn enter(&mut self, trie: &Trie, key: &KeyHash, steps: &[Step]) {
        for step in steps {
            let Step { index, bit } = *step;
            let fits_page = self.open.last().is_some_and(|above| above.fits_page)
                || trie.fits_page(NodeId::inner(index));
            let target = self.target(key);
            let (is_due, delta) = (false, Delta::default());
            self.open.push(Passed { index, bit, target, fits_page, is_due, delta });
        }
    }

    fn replace(&mut self, trie: &mut Trie, touched: &mut Touched, spot: Spot, leaf: &Leaf) {
        self.hash_later(trie, spot, &leaf.key);
        if trie.page_leaves > 0 {
            let outside = self.open.iter().rfind(|passed| !passed.fits_page);
            let at = outside.map_or(0, |passed| u16::from(passed.bit) + 1);
            touched.entry(Prefix::of(&leaf.key, at)).or_insert(true);
        }
        let (old, new) = (trie.bunches.totals(spot), totals_of(leaf));
        trie.bunches.replace(spot, &leaf.record, &new);
        let delta = Delta::between(Some(&old), Some(&new));
        if let Some(passed) = self.open.last_mut()
            && !delta.is_nothing()
        {
            passed.delta = passed.delta.and(&delta);
        }
    }

    /// A leaf is due, and what is above it, as far as it is not already.
    fn hash_later(&mut self, trie: &mut Trie, spot: Spot, key: &KeyHash) {
        let Spot { bunch: id, at } = spot;
        if self.bunch.is_none_or(|(last, _)| last != id) {
            if self.lower_leaves >= HASHED_TOGETHER {
                self.hash_bunches(trie);
            }
            self.bunch = Some((id, 0));
        }
        self.lower_leaves += 1;
        let Some((_, due)) = &mut self.bunch else { return };
        let (layout, bunch) = (id.layout(), trie.bunches.bunch(id));
        let (mut line, mut bit) = (layout.leaf(usize::from(at)), None);
        for Side { of, right } in bunch.descend(key).upwards() {
            let above = layout.inner(usize::from(of));
            let target = Target::Child(Address::within(id, above), right);
            self.lower.push(bit, Address::within(id, line), target);
            if *due & 1 << of != 0 {
                return;
            }
            *due |= 1 << of;
            (line, bit) = (above, Some(bunch.bit(usize::from(of))));
        }
        self.lower.push(bit, Address::within(id, line), self.target(key));
        for passed in self.open.iter_mut().rev().take_while(|passed| !passed.is_due) {
            passed.is_due = true;
            self.upper.push(Some(passed.bit), Address::inner(passed.index), passed.target);
        }
    }

    fn hash_bunches(&mut self, trie: &mut Trie) {
        self.lower_leaves = 0;
        let algorithm = trie.algorithm;
        let mut lines = TrieLines { trie, are_near: true, top: None };
        self.inner_hashes += self.lower.run(algorithm, &mut lines);
        self.top = lines.top.or(self.top);
    }

    /// Leaves the nodes that split below a bit, or all: what is below them is done.
    fn close(&mut self, trie: &mut Trie, below: Option<u8>) {
        while let Some(passed) = self.open.pop_if(|passed| below.is_none_or(|bit| passed.bit > bit))
        {
            if !passed.delta.is_nothing() {
                trie.change_totals(passed.index, &passed.delta);
                if let Some(above) = self.open.last_mut() {
                    above.delta = above.delta.and(&passed.delta);
                }
            }
        }
    }

    /// Hashes what is due; how many inner nodes were hashed in all.
    pub(super) fn finish(mut self, trie: &mut Trie) -> usize {
        self.close(trie, None);
        self.hash_bunches(trie);
        let algorithm = trie.algorithm;
        let mut lines = TrieLines { trie, are_near: false, top: self.top };
        self.inner_hashes += self.upper.run(algorithm, &mut lines);
        if let Some(hash) = lines.top {
            trie.top_hash = hash;
        }
        self.inner_hashes
    }
}

/// Has the memory fetch what these keys need in their bunches, for all of them at once.
fn ask(trie: &Trie, keys: &[&KeyHash], places: impl Iterator<Item = Place>) {
    for (key, place) in keys.iter().zip(places) {
        if let Place::Here(spot) = place {
            trie.ask_way(key, spot.bunch);
        }
    }
}

impl Trie {
    /// Totals of a node below which leaves gave way to others; its children have theirs.
    pub(super) fn change_totals(&mut self, index: u32, delta: &Delta) {
        let amounts = self.inners.amounts(index).with(delta).unwrap_or_else(|| {
            let split = self.inners.split(index);
            Amounts::of(&self.totals(split.left).plus(self.totals(split.right)))
        });
        self.inners.set_amounts(index, &amounts);
    }
}
