//! The trie under both trees: its slots and everything that only reads them.

use std::ops::Range;

use super::arena::Arena;
use super::bunch::{Descent, MOST, Side, Span, Top};
use super::bunches::{BunchId, Bunches, Spot};
use super::path::Path;
use super::shape::{Prefix, Sealed, Trail, View};
use super::slots::{Inners, Kind, NodeId, SealedSlot, Split, Sums, TreeNode};
use super::tree::Leaf;
use crate::entry::Totals;
use crate::hash::{HashAlgorithm, KeyHash, TreeHash};

/// Keys that are looked up together: so many lines of memory can be under way at once.
pub(super) const FOUND_TOGETHER: usize = 32;
/// Most bits by which subtrees are listed at once: 65,536 of them.
pub(super) const MAX_FAN_BITS: u8 = 16;

/// Nodes in arenas. Sealed subtrees occur only when `page_leaves` is not 0.
#[derive(Clone)]
pub(super) struct Trie {
    pub(super) algorithm: HashAlgorithm,
    // 0 when there are no pages
    pub(super) page_leaves: u32,
    pub(super) bunches: Bunches,
    pub(super) inners: Inners,
    pub(super) sealed: Arena<SealedSlot>,
    pub(super) top: Option<NodeId>,
    // that of no leaves when there is no top
    pub(super) top_hash: TreeHash,
}

/// Where a key would be found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// In no leaf at all: the trie is empty.
    Empty,
    /// It parts from every leaf, from the nearest at this bit.
    Apart(u8),
    /// In this leaf.
    Here(Spot),
}

/// The inner nodes between the top and a bunch, and on which side each was left.
pub(super) struct Way {
    // the side is in the highest bit
    nodes: [u32; 256],
    len: usize,
    /// What goes on within a bunch.
    pub(super) within: Option<(BunchId, Descent)>,
}

impl Way {
    const RIGHT: u32 = 1 << 31;

    pub(super) const fn new() -> Self {
        Self { nodes: [0; 256], len: 0, within: None }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    // no way has more than 256 nodes: they split at different bits
    fn push(&mut self, index: u32, right: bool) {
        self.nodes[self.len] = if right { index | Self::RIGHT } else { index };
        self.len += 1;
    }

    /// From the bunch to the top.
    pub(super) fn upwards(&self) -> impl Iterator<Item = (u32, bool)> {
        let nodes = self.nodes[..self.len].iter().rev();
        nodes.map(|node| (node & !Self::RIGHT, node & Self::RIGHT != 0))
    }
}

/// The ways to many keys, one after the other: of each what it does not share with the one
/// before.
#[derive(Default)]
pub(super) struct Ways {
    steps: Vec<Step>,
    /// What was found, and the end of its steps.
    ends: Vec<(Place, usize)>,
}

/// An inner node on a way.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) index: u32,
    pub(super) bit: u8,
}

impl Step {
    fn new(index: u32, split: &Split) -> Self {
        Self { index, bit: split.bit }
    }
}

impl Ways {
    /// What was found of some of the keys.
    pub(super) fn places(&self, keys: Range<usize>) -> impl Iterator<Item = Place> {
        self.ends[keys].iter().map(|(place, _)| *place)
    }

    /// What was found of each key, and its own steps, downwards.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Place, &[Step])> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        self.ends.iter().zip(starts).map(|(&(place, end), start)| (place, &self.steps[start..end]))
    }
}

/// A node where it stands: `at` is the number of bits down to and with its parent's split.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Standing {
    pub(super) node: TreeNode,
    pub(super) at: u16,
}

impl Trie {
    pub(super) fn new(algorithm: HashAlgorithm, page_leaves: u32) -> Self {
        Self {
            algorithm,
            page_leaves,
            bunches: Bunches::new(),
            inners: Inners::new(),
            sealed: Arena::new(),
            top: None,
            top_hash: algorithm.empty(),
        }
    }

    pub(super) fn top_node(&self) -> Option<TreeNode> {
        self.top.map(|id| TreeNode::whole(id, None))
    }

    /// Most leaves of a bunch: no more than a page has, so that pages consist of bunches.
    pub(super) fn bunch_leaves(&self) -> usize {
        match self.page_leaves {
            0 => MOST,
            leaves => MOST.min(leaves as usize),
        }
    }

    pub(super) fn hash(&self, node: TreeNode) -> TreeHash {
        if let Kind::Bunch(id) = node.id.kind()
            && let Some(hash) = self.bunches.bunch(id).hash(node.leaves)
        {
            return hash;
        }
        match node.parent {
            Some((parent, right)) => self.inners.child_hash(parent, right),
            None => self.top_hash,
        }
    }

    /// O(1), but for what is within a bunch: O(its leaves).
    pub(super) fn sums(&self, node: TreeNode) -> Sums {
        Sums { totals: self.totals_at(node), depth: self.depth_at(node) }
    }

    pub(super) fn totals_at(&self, node: TreeNode) -> Totals {
        match node.id.kind() {
            Kind::Bunch(id) => self.bunches.sum(id, node.leaves),
            Kind::Inner(index) => self.inners.amounts(index).totals(),
            Kind::Sealed(index) => self.sealed.slot(index).sums.totals,
        }
    }

    pub(super) fn totals(&self, id: NodeId) -> Totals {
        self.totals_at(TreeNode::whole(id, None))
    }

    fn depth_at(&self, node: TreeNode) -> u16 {
        match node.id.kind() {
            Kind::Bunch(id) => self.bunches.bunch(id).depth(node.leaves),
            Kind::Inner(index) => self.inners.split(index).depth,
            Kind::Sealed(index) => self.sealed.slot(index).sums.depth,
        }
    }

    pub(super) fn depth(&self, id: NodeId) -> u16 {
        self.depth_at(TreeNode::whole(id, None))
    }

    /// Whether a node has few enough leaves to be a page or a part of one.
    pub(super) fn fits_page(&self, id: NodeId) -> bool {
        let is_bunch = matches!(id.kind(), Kind::Bunch(_));
        self.page_leaves > 0 && (is_bunch || self.entries(id) <= u64::from(self.page_leaves))
    }

    pub(super) fn entries(&self, id: NodeId) -> u64 {
        match id.kind() {
            Kind::Bunch(id) => self.bunches.bunch(id).len() as u64,
            Kind::Inner(index) => u64::from(self.inners.amounts(index).entries()),
            Kind::Sealed(index) => self.sealed.slot(index).sums.totals.entries,
        }
    }

    pub(super) fn top_sums(&self) -> Sums {
        self.top_node().map_or_else(Sums::default, |top| self.sums(top))
    }

    /// A key that has every bit which all leaves under the node are known to share.
    pub(super) fn sample(&self, mut id: NodeId) -> KeyHash {
        loop {
            match id.kind() {
                Kind::Bunch(id) => return self.bunches.bunch(id).key(0),
                Kind::Inner(index) => id = self.inners.split(index).left,
                Kind::Sealed(index) => return self.sealed.slot(index).prefix.first_key(),
            }
        }
    }

    pub(super) fn find(&self, key: &KeyHash) -> Result<Place, Sealed> {
        self.end(key).map_or(Ok(Place::Empty), |end| self.place_of(key, end, None))
    }

    /// Whether all pages in which these keys may stand are in memory.
    pub(super) fn check_loaded<'k>(
        &self,
        keys: impl Iterator<Item = &'k KeyHash>,
    ) -> Result<(), Sealed> {
        if self.sealed.used() > 0 {
            for key in keys {
                let end = self.end(key);
                if let Some(Kind::Sealed(_)) = end.map(NodeId::kind) {
                    self.find(key)?;
                }
            }
        }
        Ok(())
    }

    /// What the inner nodes lead a key to.
    fn end(&self, key: &KeyHash) -> Option<NodeId> {
        let mut end = self.top?;
        while let Kind::Inner(index) = end.kind() {
            let split = self.inners.split(index);
            end = split.child(key.bit(split.bit));
        }
        Some(end)
    }

    /// As [`find`](Self::find), with the way to the leaf nearest to the key.
    pub(super) fn find_way(&self, key: &KeyHash, way: &mut Way) -> Result<Place, Sealed> {
        let mut next = self.top;
        while let Some(Kind::Inner(index)) = next.map(NodeId::kind) {
            let split = self.inners.split(index);
            let right = key.bit(split.bit);
            way.push(index, right);
            next = Some(split.child(right));
        }
        let Some(end) = next else { return Ok(Place::Empty) };
        // what the way up needs is asked of the memory at once, instead of line by line
        self.ask_first(end);
        let lines = way.upwards().map(|(index, _)| self.inners.line(index).0[0]);
        std::hint::black_box(lines.fold(0, |all, byte| all ^ byte));
        if let Kind::Bunch(id) = end.kind() {
            way.within = Some((id, self.ask_way(key, id)));
        }
        self.place_of(key, end, way.within.as_ref().map(|(_, within)| within.leaf))
    }

    /// The way to the leaf nearest to a key, and the hashes beside it.
    pub(super) fn trail(&self, key: &KeyHash) -> Result<Option<Trail>, Sealed> {
        let mut way = Way::new();
        let found = self.find_way(key, &mut way)?;
        let Some((id, within)) = way.within.as_ref() else {
            // the leaf nearest to a key that parts from a sealed page is in that page
            return match self.end(key).map(NodeId::kind) {
                Some(Kind::Sealed(index)) => Err(Sealed(self.sealed.slot(index).prefix)),
                _ => Ok(None),
            };
        };
        let bunch = self.bunches.bunch(*id);
        let mut path = Path::default();
        let mut siblings = Vec::with_capacity(way.len() + within.len());
        for Side { of, right } in within.upwards() {
            path.insert(bunch.bit(usize::from(of)));
            siblings.push(bunch.hash_at(Side { of, right: !right }));
        }
        for (index, right) in way.upwards() {
            path.insert(self.inners.split(index).bit);
            siblings.push(self.inners.child_hash(index, !right));
        }
        let record = bunch.record(within.leaf);
        let key = if let Place::Here(_) = found { *key } else { bunch.key(within.leaf) };
        Ok(Some(Trail { key, record, path, siblings }))
    }

    /// Has the memory fetch the totals of the nodes of a way.
    pub(super) fn ask_amounts(&self, way: &Way) {
        let entries = way.upwards().map(|(index, _)| self.inners.amounts(index).entries());
        std::hint::black_box(entries.fold(0, |all, entries| all ^ entries));
    }

    /// Has the memory fetch the first line of a bunch.
    fn ask_first(&self, end: NodeId) {
        if let Kind::Bunch(id) = end.kind() {
            std::hint::black_box(self.bunches.lines(id)[0].0[0]);
        }
    }

    /// Has the memory fetch the leaf of a bunch nearest to a key; which one that is.
    fn ask_leaf(&self, key: &KeyHash, end: NodeId) -> Option<usize> {
        let Kind::Bunch(id) = end.kind() else { return None };
        let bunch = self.bunches.bunch(id);
        let nearest = bunch.nearest(key);
        std::hint::black_box(bunch.leaf_line(nearest).0[0]);
        Some(nearest)
    }

    /// Has the memory fetch what a change of a leaf in a bunch needs; the way there.
    pub(super) fn ask_way(&self, key: &KeyHash, id: BunchId) -> Descent {
        self.bunches.ask(id);
        let bunch = self.bunches.bunch(id);
        let within = bunch.descend(key);
        let own = bunch.leaf_line(within.leaf).0[0] ^ bunch.note(within.leaf).packed as u8;
        let lines = within.upwards().map(|side| bunch.inner_line(usize::from(side.of)).0[0]);
        std::hint::black_box(lines.fold(own, |all, byte| all ^ byte));
        within
    }

    /// Where a key is, if this is the end of its way; the nearest leaf of a bunch may be known.
    fn place_of(
        &self,
        key: &KeyHash,
        end: NodeId,
        nearest: Option<usize>,
    ) -> Result<Place, Sealed> {
        match end.kind() {
            Kind::Bunch(id) => {
                let bunch = self.bunches.bunch(id);
                let at = nearest.unwrap_or_else(|| bunch.nearest(key));
                let spot = Spot { bunch: id, at: at as u8 };
                let difference = key.first_difference(&bunch.key(at));
                Ok(difference.map_or(Place::Here(spot), Place::Apart))
            }
            Kind::Sealed(index) => {
                let prefix = self.sealed.slot(index).prefix;
                match key.first_difference(&prefix.first_key()) {
                    Some(bit) if u16::from(bit) < prefix.len() => Ok(Place::Apart(bit)),
                    _ => Err(Sealed(prefix)),
                }
            }
            Kind::Inner(_) => unreachable!("no way ends in an inner node"),
        }
    }

    /// Where many keys are, which strictly ascend. Their ways are gone together, a step of each
    /// in turn, so that the memory is asked for many nodes at once. `found` is told each place
    /// while it is in the cache. Of the first way there is what it does not share with that of
    /// the key that was looked up last.
    pub(super) fn find_many(
        &self,
        mut last: Option<KeyHash>,
        keys: &[&KeyHash],
        mut found: impl FnMut(Place),
    ) -> Result<Ways, Sealed> {
        let mut ways = Ways::default();
        let Some(top) = self.top else {
            keys.iter().for_each(|_| found(Place::Empty));
            ways.ends.resize(keys.len(), (Place::Empty, 0));
            return Ok(ways);
        };
        ways.ends.reserve(keys.len());
        let mut steps = vec![Vec::new(); FOUND_TOGETHER];
        for keys in keys.chunks(FOUND_TOGETHER) {
            // a node that splits below the bit where a key parts from the one before is new
            let mut news = [0; FOUND_TOGETHER];
            for (new, key) in news.iter_mut().zip(keys) {
                let parts = last.replace(**key).and_then(|last| last.first_difference(key));
                *new = parts.map_or(0, |bit| u16::from(bit) + 1);
            }
            let apart = keys[0].first_difference(keys[keys.len() - 1]).map_or(256, u16::from);
            let mut start = top;
            while let Some(step) = self.step(start).filter(|step| u16::from(step.bit) < apart) {
                if u16::from(step.bit) >= news[0] {
                    steps[0].push(step);
                }
                start = self.inners.split(step.index).child(keys[0].bit(step.bit));
            }
            let mut ids = [start; FOUND_TOGETHER];
            let mut under_way = true;
            while under_way {
                under_way = false;
                let cursors = ids.iter_mut().zip(keys).zip(&news).zip(&mut steps);
                for (((id, key), new), steps) in cursors {
                    if let Kind::Inner(index) = id.kind() {
                        let split = self.inners.split(index);
                        *id = split.child(key.bit(split.bit));
                        if u16::from(split.bit) >= *new {
                            steps.push(Step::new(index, split));
                        }
                        under_way = true;
                    }
                }
            }
            ids[..keys.len()].iter().for_each(|end| self.ask_first(*end));
            let mut nearest = [None; FOUND_TOGETHER];
            for ((nearest, end), key) in nearest.iter_mut().zip(&ids).zip(keys) {
                *nearest = self.ask_leaf(key, *end);
            }
            for (((id, key), steps), nearest) in ids.iter().zip(keys).zip(&mut steps).zip(nearest) {
                let place = self.place_of(key, *id, nearest)?;
                found(place);
                ways.steps.append(steps);
                ways.ends.push((place, ways.steps.len()));
            }
        }
        Ok(ways)
    }

    fn step(&self, id: NodeId) -> Option<Step> {
        match id.kind() {
            Kind::Inner(index) => Some(Step::new(index, self.inners.split(index))),
            _ => None,
        }
    }

    /// The node under which all leaves with this prefix stand, and only they; none if there are
    /// no such leaves.
    pub(super) fn under(&self, prefix: &Prefix) -> Result<Option<Standing>, Sealed> {
        let (key, len) = (prefix.first_key(), prefix.len());
        let Some(node) = self.top_node() else { return Ok(None) };
        let mut standing = Standing { node, at: 0 };
        while let Kind::Inner(index) = standing.node.id.kind() {
            let bit = self.inners.split(index).bit;
            if u16::from(bit) >= len {
                break;
            }
            let node = self.inners.child(index, key.bit(bit));
            standing = Standing { node, at: u16::from(bit) + 1 };
        }
        if let Kind::Bunch(id) = standing.node.id.kind() {
            let bunch = self.bunches.bunch(id);
            return Ok(bunch.under(&key, len).map(|leaves| Standing {
                node: TreeNode { leaves, ..standing.node },
                at: bunch.bit_above(leaves).map_or(standing.at, |bit| u16::from(bit) + 1),
            }));
        }
        if let Kind::Sealed(index) = standing.node.id.kind() {
            let page = self.sealed.slot(index).prefix;
            if page.len() < len && page.is_prefix_of(prefix) {
                return Err(Sealed(page));
            }
            return Ok(prefix.is_prefix_of(&page).then_some(standing));
        }
        Ok(prefix.contains(&self.sample(standing.node.id)).then_some(standing))
    }

    /// Calls `each` with the number and the node of every non-empty subtree by which the `bits`
    /// bits behind the prefix can be continued. At most [`MAX_FAN_BITS`] bits.
    pub(super) fn fan(
        &self,
        prefix: &Prefix,
        bits: u8,
        mut each: impl FnMut(usize, TreeNode),
    ) -> Result<(), Sealed> {
        let Some(standing) = self.under(prefix)? else { return Ok(()) };
        let (start, end) = (prefix.len(), prefix.len() + u16::from(bits));
        let mut waiting = vec![standing.node];
        while let Some(node) = waiting.pop() {
            match node.id.kind() {
                Kind::Inner(index) if u16::from(self.inners.split(index).bit) < end => {
                    waiting.extend([true, false].map(|side| self.inners.child(index, side)));
                    continue;
                }
                Kind::Bunch(id) => {
                    let bunch = self.bunches.bunch(id);
                    if let Top::Inner { node: top, sides: [left, right] } = bunch.top(node.leaves)
                        && u16::from(bunch.bit(top)) < end
                    {
                        waiting.extend([right, left].map(|leaves| TreeNode { leaves, ..node }));
                        continue;
                    }
                }
                Kind::Sealed(index) if self.sealed.slot(index).prefix.len() < end => {
                    return Err(Sealed(self.sealed.slot(index).prefix));
                }
                _ => {}
            }
            let key = match node.id.kind() {
                Kind::Bunch(id) => {
                    let bunch = self.bunches.bunch(id);
                    bunch.key(bunch.leaves(node.leaves).start)
                }
                _ => self.sample(node.id),
            };
            let number =
                (start..end).fold(0, |number, bit| number << 1 | usize::from(key.bit(bit as u8)));
            each(number, node);
        }
        Ok(())
    }

    /// How many bits behind the prefix a fan of that many may have.
    pub(super) fn fan_bits(prefix: &Prefix, bits: u8) -> u8 {
        let left = u8::try_from(256 - prefix.len()).unwrap_or(u8::MAX);
        bits.min(MAX_FAN_BITS).min(left)
    }

    pub(super) fn hashes_under(&self, prefix: &Prefix, bits: u8) -> Result<Vec<TreeHash>, Sealed> {
        let bits = Self::fan_bits(prefix, bits);
        let mut hashes = vec![self.algorithm.empty(); 1 << bits];
        self.fan(prefix, bits, |number, node| hashes[number] = self.hash(node))?;
        Ok(hashes)
    }

    pub(super) fn hash_under(&self, prefix: &Prefix) -> Result<TreeHash, Sealed> {
        let standing = self.under(prefix)?;
        Ok(standing.map_or_else(|| self.algorithm.empty(), |standing| self.hash(standing.node)))
    }

    pub(super) fn sums_under(&self, prefix: &Prefix) -> Result<Sums, Sealed> {
        let standing = self.under(prefix)?;
        Ok(standing.map_or_else(Sums::default, |standing| self.sums(standing.node)))
    }

    pub(super) fn bucket_hashes(&self) -> Result<[TreeHash; 256], Sealed> {
        let mut hashes = [self.algorithm.empty(); 256];
        self.fan(&Prefix::ALL, 8, |bucket, node| hashes[bucket] = self.hash(node))?;
        Ok(hashes)
    }

    pub(super) fn bucket_totals(&self) -> Result<[Totals; 256], Sealed> {
        let mut totals = [Totals::default(); 256];
        self.fan(&Prefix::ALL, 8, |bucket, node| totals[bucket] = self.totals_at(node))?;
        Ok(totals)
    }

    /// What decides whether two tries are the same: not how they came about, nor what is sealed.
    pub(super) fn content(&self) -> (HashAlgorithm, Option<TreeHash>, Totals) {
        (self.algorithm, self.top.map(|_| self.top_hash), self.top_sums().totals)
    }

    pub(super) fn view(&self, node: TreeNode) -> Result<View<TreeNode>, Sealed> {
        match node.id.kind() {
            Kind::Bunch(id) => {
                let bunch = self.bunches.bunch(id);
                Ok(match bunch.top(node.leaves) {
                    Top::Leaf(at) => View::Leaf { key: bunch.key(at), record: bunch.record(at) },
                    Top::Inner { node: top, sides } => {
                        let [left, right] = sides.map(|leaves| TreeNode { leaves, ..node });
                        View::Inner { bit: bunch.bit(top), left, right }
                    }
                })
            }
            Kind::Inner(index) => {
                let bit = self.inners.split(index).bit;
                let [left, right] = [false, true].map(|side| self.inners.child(index, side));
                Ok(View::Inner { bit, left, right })
            }
            Kind::Sealed(index) => Err(Sealed(self.sealed.slot(index).prefix)),
        }
    }

    pub(super) fn leaves_under(&self, prefix: &Prefix) -> Walk<'_> {
        let mut walk = Walk { trie: self, sealed: None, waiting: Vec::new(), bunch: None };
        match self.under(prefix) {
            Ok(Some(Standing { node, .. })) => match node.id.kind() {
                Kind::Bunch(id) => walk.enter(id, node.leaves),
                _ => walk.waiting.push(node.id),
            },
            Ok(None) => {}
            Err(sealed) => walk.sealed = Some(sealed),
        }
        walk
    }

    /// Bytes of all slots, used and vacant.
    pub(super) fn bytes(&self) -> usize {
        self.bunches.bytes() + self.inners.bytes() + self.sealed.bytes()
    }
}

/// Leaves in ascending order; a sealed subtree is one item in their place.
#[derive(Clone)]
pub(super) struct Walk<'a> {
    trie: &'a Trie,
    sealed: Option<Sealed>,
    // never more than one node a level
    waiting: Vec<NodeId>,
    /// What is left of a bunch.
    bunch: Option<(BunchId, Range<usize>)>,
}

impl Walk<'_> {
    fn enter(&mut self, id: BunchId, leaves: Span) {
        self.bunch = Some((id, self.trie.bunches.bunch(id).leaves(leaves)));
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Leaf, Sealed>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(sealed) = self.sealed.take() {
            return Some(Err(sealed));
        }
        loop {
            if let Some((id, left)) = &mut self.bunch {
                if let Some(at) = left.next() {
                    let spot = Spot { bunch: *id, at: at as u8 };
                    return Some(Ok(self.trie.bunches.leaf(spot)));
                }
                self.bunch = None;
            }
            match self.waiting.pop()?.kind() {
                Kind::Bunch(id) => self.enter(id, Span::ALL),
                Kind::Sealed(index) => {
                    return Some(Err(Sealed(self.trie.sealed.slot(index).prefix)));
                }
                Kind::Inner(index) => {
                    let inner = self.trie.inners.split(index);
                    self.waiting.extend([inner.right, inner.left]);
                }
            }
        }
    }
}
