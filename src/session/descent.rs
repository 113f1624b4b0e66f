//! Descent with whole hashes, the last resort: subtree by subtree, 4 bits a step, until the
//! differing leaves are named.
//!
//! Both sides answer for the same prefixes, and every answer must fold to the hash that its sender
//! stated one level up, the topmost to its stated tree hash. So a side that lies is caught at the
//! subtree where it lied.

use std::collections::BTreeMap;

use super::machine::{Flow, Session};
use super::memory::map_bytes;
use super::message::{Bytes, LeafList, NodeHashes, TreeTag, TurnMessage, WirePrefix};
use super::outcome::{AbortCode, Failure, LimitName};
use super::overlay::OverlayTree;
use super::phase::Phase;
use super::plan::{self, Method};
use super::turn::{TurnItem, protocol};
use crate::entry::Totals;
use crate::hash::{HASH_LEN, HashAlgorithm, KeyHash, RecordDigest, TreeHash};
use crate::merkle::{Leaf, Prefix, Tree};
use crate::mutants::{Mutant, breaks};
use crate::replica::CollectionView;

/// Bits of one step.
pub(super) const STEP: u8 = 4;
pub(super) const CHILDREN: usize = 1 << STEP;
/// Subtrees of at most so many leaves are listed.
const LISTED: u64 = 4;
/// What an item of a turn takes in memory besides its bytes, about.
const ITEM_BYTES: usize = 200;

/// A descent under way, on trees as both sides had them when it began.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Descent {
    tree: OverlayTree,
    started_here: bool,
    /// What the peer stated of its tree, until it has answered for that.
    stated: Option<TreeTag>,
    /// What the peer stated of subtrees that are to be looked into.
    claims: BTreeMap<Prefix, TreeHash>,
}

impl Descent {
    /// What it holds in memory besides the answers that wait, about, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        map_bytes::<Prefix, TreeHash>(self.claims.len()) + self.tree.copy_bytes()
    }

    fn children(
        &self,
        prefix: &Prefix,
        view: &dyn CollectionView,
    ) -> Result<Vec<TreeHash>, Failure> {
        Ok(self.tree.children(prefix, view)?)
    }

    fn totals(&self, prefix: &Prefix, view: &dyn CollectionView) -> Result<Totals, Failure> {
        Ok(self.tree.totals_under(prefix, view)?)
    }

    fn leaves(
        &self,
        prefix: &Prefix,
        most: usize,
        view: &dyn CollectionView,
    ) -> Result<Vec<Leaf>, Failure> {
        Ok(self.tree.leaves_under(prefix, most, view)?)
    }

    fn node(&self, prefix: &Prefix, view: &dyn CollectionView) -> Result<NodeHashes, Failure> {
        let empty = self.tree.tree().algorithm().empty();
        let (mut present, mut hashes) = (0u16, Vec::new());
        for (at, hash) in self.children(prefix, view)?.into_iter().enumerate() {
            if hash != empty {
                present |= 0x8000 >> at;
                hashes.extend_from_slice(&hash.0);
            }
        }
        Ok(NodeHashes { prefix: wire_prefix(prefix), present, hashes: Bytes(hashes) })
    }

    fn list(&self, prefix: &Prefix, view: &dyn CollectionView) -> Result<LeafList, Failure> {
        let shared = usize::from(prefix.len()) / 8;
        let mut leaves = Vec::new();
        for leaf in self.leaves(prefix, usize::MAX, view)? {
            leaves.extend_from_slice(&leaf.key.0[shared..]);
            leaves.extend_from_slice(&leaf.record.0);
        }
        Ok(LeafList { prefix: wire_prefix(prefix), leaves: Bytes(leaves) })
    }
}

impl Session {
    /// Begins a descent from the top.
    pub(super) fn start_descent(&mut self, view: &dyn CollectionView) -> Result<(), Failure> {
        self.methods.push((Method::Full, self.progress));
        let entries = self.ours.envelope.totals().entries;
        let steering = plan::descent_cost(1, entries);
        let predicted = plan::Cost { bytes: 4 * steering.bytes, ..steering };
        let reason = "steering found nothing more: descent with whole hashes".to_owned();
        self.note_plan(Phase::MerkleComparison, reason, predicted);
        let descent = self.new_descent(true);
        let top = descent.node(&Prefix::ALL, view)?;
        self.descent = Some(descent);
        self.items.push_back(TurnItem::Message(Box::new(TurnMessage::Descend(top))));
        Ok(())
    }

    fn new_descent(&self, started_here: bool) -> Descent {
        let (tree, stated) = (self.knowledge.frozen(), self.theirs.tree);
        Descent { tree, started_here, stated, claims: BTreeMap::new() }
    }

    /// The peer begins a descent.
    pub(super) fn peer_descends(
        &mut self,
        top: &NodeHashes,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        self.charge(CHILDREN as u64)?;
        self.exchange = None;
        self.methods.push((Method::Full, self.progress));
        self.descent = Some(self.new_descent(false));
        self.peer_node(top, view)
    }

    /// The peer's children of a prefix.
    pub(super) fn peer_node(
        &mut self,
        node: &NodeHashes,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        let prefix = read_prefix(&node.prefix)?;
        if !prefix.len().is_multiple_of(u16::from(STEP)) || prefix.len() >= 256 {
            return Err(protocol());
        }
        let Some(mut descent) = self.descent.take() else {
            return Err(protocol());
        };
        self.charge(CHILDREN as u64)?;
        let theirs = read_children(node, descent.tree.tree().algorithm().empty())?;
        self.check_node(&mut descent, &prefix, &theirs)?;
        if !descent.started_here {
            let answer = descent.node(&prefix, view)?;
            self.queue_nodes(answer);
            self.descent = Some(descent);
            return Ok(());
        }
        let mine = descent.children(&prefix, view)?;
        for (at, (mine, theirs)) in mine.iter().zip(&theirs).enumerate() {
            let child = child_of(&prefix, at).ok_or_else(protocol)?;
            if mine != theirs {
                self.look_into(&descent, &child, view)?;
            }
        }
        self.descent = Some(descent);
        Ok(())
    }

    /// Children must fold to what their sender stated of the prefix.
    fn check_node(
        &self,
        descent: &mut Descent,
        prefix: &Prefix,
        children: &[TreeHash],
    ) -> Result<(), Failure> {
        let algorithm = descent.tree.tree().algorithm();
        let folded = fold(algorithm, prefix.len(), children);
        let as_stated = if prefix.is_empty() {
            descent.stated.take().ok_or_else(protocol)? == self.tag_of(&folded)
        } else {
            descent.claims.remove(prefix).ok_or_else(protocol)? == folded
        };
        if !as_stated {
            return Err(self.not_as_stated(*prefix));
        }
        for (at, &hash) in children.iter().enumerate() {
            let child = child_of(prefix, at).ok_or_else(protocol)?;
            descent.claims.insert(child, hash);
        }
        if descent.claims.len() > 4 * self.setup.limits.max_session_entries.max(CHILDREN) {
            return Err(LimitName::OpenSubtrees.into());
        }
        Ok(())
    }

    /// Whose fault it is that an answer does not hash to what was stated before it. A refusal may
    /// have changed the tree between the two: then nobody lied.
    fn not_as_stated(&self, prefix: Prefix) -> Failure {
        if self.verification.has_refusals() {
            Failure::Ours(AbortCode::RootMismatch)
        } else {
            Failure::Lie { prefix }
        }
    }

    /// A child at which the two differ: asked about by what is held here.
    fn look_into(
        &mut self,
        descent: &Descent,
        child: &Prefix,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        if self.knowledge.len() >= self.setup.limits.max_session_entries {
            self.partial = true;
            return Ok(());
        }
        let entries = descent.totals(child, view)?.entries;
        let deep = child.len() >= self.setup.config.max_merkle_depth.min(256);
        let listed = entries <= LISTED
            || (deep && entries <= self.setup.limits.max_listed_leaves as u64)
            || child.len() >= 256;
        self.charge(if listed { entries } else { CHILDREN as u64 })?;
        if listed {
            let list = descent.list(child, view)?;
            self.queue_list(list);
        } else {
            let node = descent.node(child, view)?;
            self.queue_nodes(node);
        }
        Ok(())
    }

    /// The peer's leaves below a prefix.
    pub(super) fn peer_leaves(
        &mut self,
        list: &LeafList,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        let prefix = read_prefix(&list.prefix)?;
        let Some(mut descent) = self.descent.take() else {
            return Err(protocol());
        };
        let theirs = read_leaves(list, &prefix)?;
        let claimed = descent.claims.remove(&prefix).ok_or_else(protocol)?;
        if hash_of_list(descent.tree.tree().algorithm(), &theirs) != claimed {
            return Err(self.not_as_stated(prefix));
        }
        if !descent.started_here {
            let entries = descent.totals(&prefix, view)?.entries;
            if entries > self.setup.limits.max_listed_leaves as u64 {
                return Err(LimitName::ListedLeaves.into());
            }
            let answer = descent.list(&prefix, view)?;
            self.queue_list(answer);
        }
        let room = self.setup.limits.max_session_entries.saturating_mul(2);
        let mine: BTreeMap<KeyHash, RecordDigest> = descent
            .leaves(&prefix, room, view)?
            .into_iter()
            .map(|leaf| (leaf.key, leaf.record))
            .collect();
        self.descent = Some(descent);
        self.charge((mine.len() + theirs.len()) as u64)?;
        self.partial |= mine.len() == room;
        let listed: BTreeMap<_, _> = theirs.into_iter().collect();
        for (key, record) in &mine {
            if !listed.contains_key(key) && breaks(Mutant::RemoveByLeaf) {
                self.remove_unasked(*key, view)?;
            } else if listed.get(key) != Some(record) {
                self.differs(*key);
            }
        }
        for key in listed.keys().filter(|key| !mine.contains_key(*key)) {
            self.differs(*key);
        }
        Ok(())
    }

    fn queue_nodes(&mut self, node: NodeHashes) {
        let bytes = node.hashes.0.len() + ITEM_BYTES;
        self.queue(TurnItem::Nodes(node), bytes);
    }

    fn queue_list(&mut self, list: LeafList) {
        let bytes = list.leaves.0.len() + ITEM_BYTES;
        self.queue(TurnItem::Leaves(list), bytes);
    }

    /// A key was found to differ: this side says what its snapshot holds of it, or asks.
    pub(super) fn differs(&mut self, key: KeyHash) {
        if self.flow != Flow::Take && self.knowledge.get(&key).is_some_and(|known| known.told) {
            return;
        }
        self.tell(key, Phase::MerkleComparison);
    }
}

fn wire_prefix(prefix: &Prefix) -> WirePrefix {
    WirePrefix { bits: prefix.len(), bytes: Bytes(prefix.as_bytes().to_vec()) }
}

fn read_prefix(wire: &WirePrefix) -> Result<Prefix, Failure> {
    Prefix::new(&wire.bytes.0, wire.bits).map_err(|_| protocol())
}

pub(super) fn child_of(prefix: &Prefix, at: usize) -> Option<Prefix> {
    (0..STEP).try_fold(*prefix, |prefix, bit| prefix.child(at & (1 << (STEP - 1 - bit)) != 0))
}

fn read_children(node: &NodeHashes, empty: TreeHash) -> Result<Vec<TreeHash>, Failure> {
    let (hashes, rest) = node.hashes.0.as_chunks::<HASH_LEN>();
    if !rest.is_empty() || hashes.len() != node.present.count_ones() as usize {
        return Err(protocol());
    }
    let mut hashes = hashes.iter().map(|hash| TreeHash(*hash));
    let present = |at: usize| node.present & (0x8000u16 >> at) != 0;
    let child = |at| if present(at) { hashes.next() } else { None };
    Ok((0..CHILDREN).map(child).map(|hash| hash.unwrap_or(empty)).collect())
}

fn read_leaves(list: &LeafList, prefix: &Prefix) -> Result<Vec<(KeyHash, RecordDigest)>, Failure> {
    let shared = usize::from(prefix.len()) / 8;
    let tail = HASH_LEN - shared;
    if !list.leaves.0.len().is_multiple_of(tail + HASH_LEN) {
        return Err(protocol());
    }
    let mut leaves: Vec<(KeyHash, RecordDigest)> = Vec::new();
    for item in list.leaves.0.chunks_exact(tail + HASH_LEN) {
        let mut key = prefix.first_key();
        key.0[shared..].copy_from_slice(&item[..tail]);
        if !prefix.contains(&key) || leaves.last().is_some_and(|(last, _)| *last >= key) {
            return Err(protocol());
        }
        let record = item[tail..].try_into().map_err(|_| protocol())?;
        leaves.push((key, RecordDigest(record)));
    }
    Ok(leaves)
}

fn hash_of_list(algorithm: HashAlgorithm, leaves: &[(KeyHash, RecordDigest)]) -> TreeHash {
    let totals = Totals { entries: 1, siblings: 1, ..Totals::default() };
    let leaf = |&(key, record)| Leaf { key, record, totals };
    Tree::build(algorithm, leaves.iter().map(leaf)).tree_hash()
}

/// Hash of a prefix of `depth` bits from the hashes of its children: an empty side passes the
/// other through.
fn fold(algorithm: HashAlgorithm, depth: u16, children: &[TreeHash]) -> TreeHash {
    let empty = algorithm.empty();
    let mut level = children.to_vec();
    let mut bit = depth + u16::from(STEP);
    while level.len() > 1 {
        bit -= 1;
        level = level
            .chunks_exact(2)
            .map(|pair| match (pair[0] == empty, pair[1] == empty) {
                (true, _) => pair[1],
                (_, true) => pair[0],
                _ => algorithm.inner(bit as u8, &pair[0], &pair[1]),
            })
            .collect();
    }
    level.first().copied().unwrap_or(empty)
}
