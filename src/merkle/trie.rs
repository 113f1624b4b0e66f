//! The trie under both trees: its slots and everything that only reads them.

use super::arena::Arena;
use super::shape::{Prefix, Sealed, View};
use super::slots::{Inners, Kind, LeafSlots, NodeId, SealedSlot, Split, Sums, TreeNode};
use super::tree::Leaf;
use crate::entry::Totals;
use crate::hash::{HashAlgorithm, KeyHash, TreeHash};

/// Most bits by which subtrees are listed at once: 65,536 of them.
pub(super) const MAX_FAN_BITS: u8 = 16;

/// Nodes in arenas. Sealed subtrees occur only when `page_leaves` is not 0.
#[derive(Clone)]
pub(super) struct Trie {
    pub(super) algorithm: HashAlgorithm,
    // 0 when there are no pages
    pub(super) page_leaves: u32,
    pub(super) leaves: LeafSlots,
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
    Here(u32),
}

/// The inner nodes between the top and a leaf, and on which side each was left.
pub(super) struct Way {
    // the side is in the highest bit
    nodes: [u32; 256],
    len: usize,
}

impl Way {
    const RIGHT: u32 = 1 << 31;

    pub(super) const fn new() -> Self {
        Self { nodes: [0; 256], len: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    // no way has more than 256 nodes: they split at different bits
    fn push(&mut self, index: u32, right: bool) {
        self.nodes[self.len] = if right { index | Self::RIGHT } else { index };
        self.len += 1;
    }

    /// From the leaf to the top.
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
    /// Whether it is one of few leaves, and how many they are.
    pub(super) small_entries: Option<u8>,
}

impl Step {
    fn new(index: u32, split: &Split) -> Self {
        let small_entries = split.small_entries().map(|entries| entries as u8);
        Self { index, bit: split.bit, small_entries }
    }
}

impl Ways {
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
            leaves: LeafSlots::new(),
            inners: Inners::new(),
            sealed: Arena::new(),
            top: None,
            top_hash: algorithm.empty(),
        }
    }

    pub(super) fn top_node(&self) -> Option<TreeNode> {
        self.top.map(|id| TreeNode { id, parent: None })
    }

    pub(super) fn hash(&self, node: TreeNode) -> TreeHash {
        match node.parent {
            Some((parent, right)) => self.inners.child_hash(parent, right),
            None => self.top_hash,
        }
    }

    pub(super) fn sums(&self, id: NodeId) -> Sums {
        Sums { totals: self.totals(id), depth: self.depth(id) }
    }

    /// O(1), but for nodes of few leaves: O(leaves).
    pub(super) fn totals(&self, id: NodeId) -> Totals {
        match id.kind() {
            Kind::Leaf(index) => self.leaves.totals(index),
            Kind::Sealed(index) => self.sealed.slot(index).sums.totals,
            Kind::Inner(index) => self.inners.totals(index).unwrap_or_else(|| {
                let split = self.inners.split(index);
                self.totals(split.left).plus(self.totals(split.right))
            }),
        }
    }

    pub(super) fn depth(&self, id: NodeId) -> u16 {
        match id.kind() {
            Kind::Leaf(_) => 0,
            Kind::Inner(index) => self.inners.split(index).depth,
            Kind::Sealed(index) => self.sealed.slot(index).sums.depth,
        }
    }

    /// Whether a node has few enough leaves to be a page or a part of one.
    pub(super) fn fits_page(&self, id: NodeId) -> bool {
        self.page_leaves > 0 && self.entries(id) <= u64::from(self.page_leaves)
    }

    pub(super) fn entries(&self, id: NodeId) -> u64 {
        match id.kind() {
            Kind::Leaf(_) => 1,
            Kind::Inner(index) => u64::from(self.inners.entries(index)),
            Kind::Sealed(index) => self.sealed.slot(index).sums.totals.entries,
        }
    }

    pub(super) fn top_sums(&self) -> Sums {
        self.top.map_or_else(Sums::default, |top| self.sums(top))
    }

    /// A key that has every bit which all leaves under the node are known to share.
    pub(super) fn sample(&self, mut id: NodeId) -> KeyHash {
        loop {
            match id.kind() {
                Kind::Leaf(index) => return self.leaves.key(index),
                Kind::Inner(index) => id = self.inners.split(index).left,
                Kind::Sealed(index) => return self.sealed.slot(index).prefix.first_key(),
            }
        }
    }

    pub(super) fn find(&self, key: &KeyHash) -> Result<Place, Sealed> {
        let Some(mut id) = self.top else { return Ok(Place::Empty) };
        while let Kind::Inner(index) = id.kind() {
            let split = self.inners.split(index);
            id = split.child(key.bit(split.bit));
        }
        self.place(key, id)
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
        // what the way up needs is asked of the memory at once, instead of line by line
        let lines = way.upwards().map(|(index, _)| self.inners.line(index).0[0]);
        std::hint::black_box(lines.fold(0, |all, byte| all ^ byte));
        match next {
            Some(id) => self.place(key, id),
            None => Ok(Place::Empty),
        }
    }

    /// Where a key is, if this is the end of its way.
    fn place(&self, key: &KeyHash, end: NodeId) -> Result<Place, Sealed> {
        match end.kind() {
            Kind::Leaf(index) => {
                let difference = key.first_difference(&self.leaves.key(index));
                Ok(difference.map_or(Place::Here(index), Place::Apart))
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
    /// in turn, so that the memory is asked for many nodes at once.
    pub(super) fn find_many(&self, keys: &[&KeyHash]) -> Result<Ways, Sealed> {
        const TOGETHER: usize = 32;
        let mut ways = Ways::default();
        let Some(top) = self.top else {
            ways.ends.resize(keys.len(), (Place::Empty, 0));
            return Ok(ways);
        };
        let mut steps = vec![Vec::new(); TOGETHER];
        let mut last: Option<&KeyHash> = None;
        for keys in keys.chunks(TOGETHER) {
            // a node that splits below the bit where a key parts from the one before is new
            let mut news = [0; TOGETHER];
            for (new, key) in news.iter_mut().zip(keys) {
                let parts = last.replace(key).and_then(|last| last.first_difference(key));
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
            let mut ids = [start; TOGETHER];
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
            // totals are wanted soon
            let notes = ids[..keys.len()].iter().map(|id| match id.kind() {
                Kind::Leaf(index) => self.leaves.totals(index).bytes,
                _ => 0,
            });
            std::hint::black_box(notes.fold(0, |all, bytes| all ^ bytes));
            for ((id, key), steps) in ids.iter().zip(keys).zip(&mut steps) {
                let place = self.place(key, *id)?;
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
                Kind::Sealed(index) if self.sealed.slot(index).prefix.len() < end => {
                    return Err(Sealed(self.sealed.slot(index).prefix));
                }
                _ => {}
            }
            let key = self.sample(node.id);
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
        Ok(standing.map_or_else(Sums::default, |standing| self.sums(standing.node.id)))
    }

    pub(super) fn bucket_hashes(&self) -> Result<[TreeHash; 256], Sealed> {
        let mut hashes = [self.algorithm.empty(); 256];
        self.fan(&Prefix::ALL, 8, |bucket, node| hashes[bucket] = self.hash(node))?;
        Ok(hashes)
    }

    pub(super) fn bucket_totals(&self) -> Result<[Totals; 256], Sealed> {
        let mut totals = [Totals::default(); 256];
        self.fan(&Prefix::ALL, 8, |bucket, node| totals[bucket] = self.totals(node.id))?;
        Ok(totals)
    }

    /// What decides whether two tries are the same: not how they came about, nor what is sealed.
    pub(super) fn content(&self) -> (HashAlgorithm, Option<TreeHash>, Totals) {
        (self.algorithm, self.top.map(|_| self.top_hash), self.top_sums().totals)
    }

    pub(super) fn view(&self, node: TreeNode) -> Result<View<TreeNode>, Sealed> {
        match node.id.kind() {
            Kind::Leaf(index) => {
                let (key, record) = (self.leaves.key(index), self.leaves.record(index));
                Ok(View::Leaf { key, record })
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
        match self.under(prefix) {
            Ok(standing) => {
                let waiting = standing.iter().map(|standing| standing.node.id).collect();
                Walk { trie: self, sealed: None, waiting }
            }
            Err(sealed) => Walk { trie: self, sealed: Some(sealed), waiting: Vec::new() },
        }
    }

    /// Bytes of all slots, used and vacant.
    pub(super) fn bytes(&self) -> usize {
        self.leaves.bytes() + self.inners.bytes() + self.sealed.bytes()
    }
}

/// Leaves in ascending order; a sealed subtree is one item in their place.
#[derive(Clone)]
pub(super) struct Walk<'a> {
    trie: &'a Trie,
    sealed: Option<Sealed>,
    // never more than one node a level
    waiting: Vec<NodeId>,
}

impl Iterator for Walk<'_> {
    type Item = Result<Leaf, Sealed>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(sealed) = self.sealed.take() {
            return Some(Err(sealed));
        }
        loop {
            match self.waiting.pop()?.kind() {
                Kind::Leaf(index) => return Some(Ok(self.trie.leaves.leaf(index))),
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
