//! The trie under both trees: its slots and everything that only reads them.

use super::arena::Arena;
use super::shape::{Prefix, Sealed, View};
use super::slots::{Inners, Kind, LeafSlot, NodeId, SealedSlot, Sums, TreeNode};
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
    pub(super) leaves: Arena<LeafSlot>,
    pub(super) inners: Inners,
    pub(super) sealed: Arena<SealedSlot>,
    pub(super) top: Option<TreeNode>,
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

/// A node where it stands: `at` is the number of bits down to and with its parent's split.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Standing {
    pub(super) node: TreeNode,
    pub(super) at: u16,
    /// The parent and on which side of it.
    pub(super) parent: Option<(u32, bool)>,
}

impl Trie {
    pub(super) const fn new(algorithm: HashAlgorithm, page_leaves: u32) -> Self {
        Self {
            algorithm,
            page_leaves,
            leaves: Arena::new(),
            inners: Inners::new(),
            sealed: Arena::new(),
            top: None,
        }
    }

    pub(super) fn sums(&self, id: NodeId) -> Sums {
        match id.kind() {
            Kind::Leaf(index) => self.leaves.slot(index).sums(),
            Kind::Inner(index) => self.inners.sums(index),
            Kind::Sealed(index) => self.sealed.slot(index).sums,
        }
    }

    /// Whether a node has few enough leaves to be a page or a part of one.
    pub(super) fn fits_page(&self, id: NodeId) -> bool {
        self.page_leaves > 0 && self.entries(id) <= u64::from(self.page_leaves)
    }

    fn entries(&self, id: NodeId) -> u64 {
        match id.kind() {
            Kind::Leaf(_) => 1,
            Kind::Inner(index) => u64::from(self.inners.split(index).entries),
            Kind::Sealed(index) => self.sealed.slot(index).sums.totals.entries,
        }
    }

    pub(super) fn top_sums(&self) -> Sums {
        self.top.map_or_else(Sums::default, |top| self.sums(top.id))
    }

    /// A key that has every bit which all leaves under the node are known to share.
    pub(super) fn sample(&self, mut id: NodeId) -> KeyHash {
        loop {
            match id.kind() {
                Kind::Leaf(index) => return self.leaves.slot(index).key(),
                Kind::Inner(index) => id = self.inners.split(index).left,
                Kind::Sealed(index) => return self.sealed.slot(index).prefix.first_key(),
            }
        }
    }

    pub(super) fn find(&self, key: &KeyHash) -> Result<Place, Sealed> {
        let Some(top) = self.top else { return Ok(Place::Empty) };
        let mut id = top.id;
        loop {
            match id.kind() {
                Kind::Inner(index) => {
                    let inner = self.inners.split(index);
                    id = if key.bit(inner.bit) { inner.right } else { inner.left };
                }
                Kind::Leaf(index) => {
                    let nearest = self.leaves.slot(index).key();
                    return Ok(key
                        .first_difference(&nearest)
                        .map_or(Place::Here(index), Place::Apart));
                }
                Kind::Sealed(index) => {
                    let prefix = self.sealed.slot(index).prefix;
                    return match key.first_difference(&prefix.first_key()) {
                        Some(bit) if u16::from(bit) < prefix.len() => Ok(Place::Apart(bit)),
                        _ => Err(Sealed(prefix)),
                    };
                }
            }
        }
    }

    /// The node under which all leaves with this prefix stand, and only they; none if there are
    /// no such leaves.
    pub(super) fn under(&self, prefix: &Prefix) -> Result<Option<Standing>, Sealed> {
        let (key, len) = (prefix.first_key(), prefix.len());
        let Some(node) = self.top else { return Ok(None) };
        let mut standing = Standing { node, at: 0, parent: None };
        while let Kind::Inner(index) = standing.node.id.kind() {
            let bit = self.inners.split(index).bit;
            if u16::from(bit) >= len {
                break;
            }
            let right = key.bit(bit);
            standing = Standing {
                node: self.inners.child(index, right),
                at: u16::from(bit) + 1,
                parent: Some((index, right)),
            };
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
        self.fan(prefix, bits, |number, node| hashes[number] = node.hash)?;
        Ok(hashes)
    }

    pub(super) fn hash_under(&self, prefix: &Prefix) -> Result<TreeHash, Sealed> {
        let standing = self.under(prefix)?;
        Ok(standing.map_or_else(|| self.algorithm.empty(), |standing| standing.node.hash))
    }

    pub(super) fn sums_under(&self, prefix: &Prefix) -> Result<Sums, Sealed> {
        let standing = self.under(prefix)?;
        Ok(standing.map_or_else(Sums::default, |standing| self.sums(standing.node.id)))
    }

    pub(super) fn bucket_hashes(&self) -> Result<[TreeHash; 256], Sealed> {
        let mut hashes = [self.algorithm.empty(); 256];
        self.fan(&Prefix::ALL, 8, |bucket, node| hashes[bucket] = node.hash)?;
        Ok(hashes)
    }

    pub(super) fn bucket_totals(&self) -> Result<[Totals; 256], Sealed> {
        let mut totals = [Totals::default(); 256];
        self.fan(&Prefix::ALL, 8, |bucket, node| totals[bucket] = self.sums(node.id).totals)?;
        Ok(totals)
    }

    /// What decides whether two tries are the same: not how they came about, nor what is sealed.
    pub(super) fn content(&self) -> (HashAlgorithm, Option<TreeHash>, Totals) {
        (self.algorithm, self.top.map(|top| top.hash), self.top_sums().totals)
    }

    pub(super) fn view(&self, node: TreeNode) -> Result<View<TreeNode>, Sealed> {
        match node.id.kind() {
            Kind::Leaf(index) => {
                let leaf = self.leaves.slot(index);
                Ok(View::Leaf { key: leaf.key(), record: leaf.record() })
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
                Kind::Leaf(index) => return Some(Ok(self.trie.leaves.slot(index).leaf())),
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
