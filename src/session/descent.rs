//! Merkle descent: subtree by subtree, 4 bits a step, until the differing leaves are named.
//!
//! Steering sends 8 bytes of each hash, and the two sides take turns a level each. The last
//! resort sends whole hashes: both sides answer for the same prefixes, and every answer must fold
//! to the hash that its sender stated one level up, the topmost to its stated tree hash. So a
//! side that lies is caught at the subtree where it lied.

use std::collections::BTreeMap;

use super::knowledge::resident;
use super::machine::{Flow, Session};
use super::message::{Bytes, LeafList, NodeHashes, TurnMessage, WirePrefix};
use super::outcome::{AbortCode, Failure, LimitName};
use super::phase::Phase;
use super::plan::{self, Method};
use super::turn::{TurnItem, protocol};
use crate::entry::Totals;
use crate::hash::{HASH_LEN, HashAlgorithm, KeyHash, RecordDigest, TreeHash};
use crate::merkle::{Leaf, PagedTree, Prefix, Tree};
use crate::mutants::{Mutant, breaks};
use crate::replica::CollectionView;
use crate::sketch::estimator::Estimator;

/// Bits of one step.
const STEP: u8 = 4;
const CHILDREN: usize = 1 << STEP;
/// Bytes of a hash when steering.
const SHORT: usize = 8;
/// Subtrees of at most so many leaves are listed.
const LISTED: u64 = 4;
/// What an item of a turn takes in memory besides its bytes, about.
const ITEM_BYTES: usize = 200;

/// A descent under way, on trees as both sides had them when it began.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Descent {
    tree: PagedTree,
    full: bool,
    started_here: bool,
    /// What the peer stated of subtrees that are to be looked into (full only).
    claims: BTreeMap<Prefix, TreeHash>,
}

impl Descent {
    const fn width(&self) -> usize {
        if self.full { HASH_LEN } else { SHORT }
    }

    fn children(
        &mut self,
        prefix: &Prefix,
        view: &dyn CollectionView,
    ) -> Result<Vec<TreeHash>, Failure> {
        Ok(resident(&mut self.tree, view, |tree| tree.hashes_under(prefix, STEP))?)
    }

    fn totals(&mut self, prefix: &Prefix, view: &dyn CollectionView) -> Result<Totals, Failure> {
        Ok(resident(&mut self.tree, view, |tree| tree.totals_under(prefix))?)
    }

    fn leaves(
        &mut self,
        prefix: &Prefix,
        most: usize,
        view: &dyn CollectionView,
    ) -> Result<Vec<Leaf>, Failure> {
        Ok(resident(&mut self.tree, view, |tree| tree.leaves_under(prefix).take(most).collect())?)
    }

    fn node(&mut self, prefix: &Prefix, view: &dyn CollectionView) -> Result<NodeHashes, Failure> {
        let empty = self.tree.algorithm().empty();
        let width = self.width();
        let (mut present, mut hashes) = (0u16, Vec::new());
        for (at, hash) in self.children(prefix, view)?.into_iter().enumerate() {
            if hash != empty {
                present |= 0x8000 >> at;
                hashes.extend_from_slice(&hash.0[..width]);
            }
        }
        Ok(NodeHashes { prefix: wire_prefix(prefix), present, hashes: Bytes(hashes) })
    }

    fn list(&mut self, prefix: &Prefix, view: &dyn CollectionView) -> Result<LeafList, Failure> {
        let shared = usize::from(prefix.len()) / 8;
        let width = self.width();
        let mut leaves = Vec::new();
        for leaf in self.leaves(prefix, usize::MAX, view)? {
            leaves.extend_from_slice(&leaf.key.0[shared..]);
            leaves.extend_from_slice(&leaf.record.0[..width]);
        }
        Ok(LeafList { prefix: wire_prefix(prefix), leaves: Bytes(leaves) })
    }
}

impl Session {
    /// Begins a descent from the top.
    pub(super) fn start_descent(
        &mut self,
        full: bool,
        may_filter: bool,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        self.methods.push((if full { Method::Full } else { Method::Steer }, self.progress));
        let reason = match (full, may_filter) {
            (true, _) => "steering found nothing more: descent with whole hashes",
            (_, true) => {
                "the trees still differ: descent, unless the peer's estimate is for filters"
            }
            _ => "the trees still differ: descent",
        };
        let entries = self.ours.envelope.totals().entries;
        let predicted = plan::descent_bytes(1, entries);
        self.note_plan(Phase::MerkleComparison, reason.to_owned(), predicted);
        let estimator = if may_filter { Some(self.estimator(view)?) } else { None };
        let mut descent = self.new_descent(full, true);
        let top = descent.node(&Prefix::ALL, view)?;
        self.descent = Some(descent);
        let message = TurnMessage::Descend { estimator, full, top };
        self.items.push_back(TurnItem::Message(Box::new(message)));
        Ok(())
    }

    fn new_descent(&self, full: bool, started_here: bool) -> Descent {
        let mut claims = BTreeMap::new();
        if let (true, Some(tree)) = (full, self.theirs.tree) {
            claims.insert(Prefix::ALL, tree);
        }
        Descent { tree: self.knowledge.frozen(), full, started_here, claims }
    }

    fn estimator(&self, view: &dyn CollectionView) -> Result<Estimator, Failure> {
        let mut estimator = Estimator::default();
        for bucket in 0..=u8::MAX {
            // a copy of its own, so that only one bucket at a time is in memory
            let mut tree = self.knowledge.frozen();
            let prefix = Prefix::of(&KeyHash([bucket; HASH_LEN]), 8);
            let leaves: Vec<Leaf> =
                resident(&mut tree, view, |tree| tree.leaves_under(&prefix).collect())?;
            for leaf in leaves {
                estimator.add(&leaf.record);
            }
        }
        Ok(estimator)
    }

    /// The peer begins a descent: answered with a filter when that is worth more.
    pub(super) fn peer_descends(
        &mut self,
        estimator: Option<&Estimator>,
        full: bool,
        top: &NodeHashes,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        if let Some(theirs) = estimator {
            if !self.methods.is_empty() {
                return Err(protocol());
            }
            self.charge(self.ours.envelope.totals().entries)?;
            let estimate = self.estimator(view)?.difference(theirs);
            let entries = self.ours.envelope.totals().entries.max(1);
            let fpr = self.filter_rate(entries, estimate);
            let (method, step) = plan::decide(estimate, entries, fpr);
            self.stats.plan.push(step);
            if method == Method::Bloom {
                return self.send_first_filter(estimate, view);
            }
        }
        self.methods.push((if full { Method::Full } else { Method::Steer }, self.progress));
        self.descent = Some(self.new_descent(full, false));
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
        let theirs = read_children(node, descent.width())?;
        if descent.full {
            self.check_node(&mut descent, &prefix, &theirs)?;
            if !descent.started_here {
                let answer = descent.node(&prefix, view)?;
                self.queue_nodes(answer);
                self.descent = Some(descent);
                return Ok(());
            }
        }
        let mine = descent.children(&prefix, view)?;
        for (at, (mine, theirs)) in mine.iter().zip(&theirs).enumerate() {
            let child = child_of(&prefix, at).ok_or_else(protocol)?;
            self.compare_child(&mut descent, &child, mine, theirs.as_deref(), view)?;
        }
        self.descent = Some(descent);
        Ok(())
    }

    /// In full, children must fold to what their sender stated of the prefix.
    fn check_node(
        &self,
        descent: &mut Descent,
        prefix: &Prefix,
        theirs: &[Option<Vec<u8>>],
    ) -> Result<(), Failure> {
        let algorithm = descent.tree.algorithm();
        let children = theirs.iter().map(|hash| match hash {
            Some(hash) => <[u8; HASH_LEN]>::try_from(hash.as_slice()).map(TreeHash),
            None => Ok(algorithm.empty()),
        });
        let children: Vec<TreeHash> = children.collect::<Result<_, _>>().map_err(|_| protocol())?;
        let claimed = descent.claims.remove(prefix).ok_or_else(protocol)?;
        if fold(algorithm, prefix.len(), &children) != claimed {
            return Err(self.not_as_stated(*prefix));
        }
        for (at, hash) in children.into_iter().enumerate() {
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

    fn compare_child(
        &mut self,
        descent: &mut Descent,
        child: &Prefix,
        mine: &TreeHash,
        theirs: Option<&[u8]>,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        let empty = *mine == descent.tree.algorithm().empty();
        let equal = theirs.map_or(empty, |theirs| !empty && mine.0.starts_with(theirs));
        if equal {
            return Ok(());
        }
        if self.knowledge.len() >= self.setup.limits.max_session_entries {
            self.partial = true;
            return Ok(());
        }
        if theirs.is_none() && !descent.full {
            // the peer has nothing there: it hears of every leaf
            let room = self.setup.limits.max_session_entries.saturating_sub(self.knowledge.len());
            let leaves = descent.leaves(child, room + 1, view)?;
            self.charge(leaves.len() as u64)?;
            for leaf in leaves {
                self.differs(leaf.key);
            }
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
        let theirs = read_leaves(list, &prefix, descent.width())?;
        if descent.full {
            let claimed = descent.claims.remove(&prefix).ok_or_else(protocol)?;
            if hash_of_list(descent.tree.algorithm(), &theirs) != Some(claimed) {
                return Err(self.not_as_stated(prefix));
            }
            if !descent.started_here {
                if descent.totals(&prefix, view)?.entries
                    > self.setup.limits.max_listed_leaves as u64
                {
                    return Err(LimitName::ListedLeaves.into());
                }
                let answer = descent.list(&prefix, view)?;
                self.queue_list(answer);
            }
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
            } else if listed.get(key).is_none_or(|theirs| !record.0.starts_with(theirs)) {
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
    fn differs(&mut self, key: KeyHash) {
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

fn child_of(prefix: &Prefix, at: usize) -> Option<Prefix> {
    (0..STEP).try_fold(*prefix, |prefix, bit| prefix.child(at & (1 << (STEP - 1 - bit)) != 0))
}

fn read_children(node: &NodeHashes, width: usize) -> Result<Vec<Option<Vec<u8>>>, Failure> {
    let count = node.present.count_ones() as usize;
    if node.hashes.0.len() != count * width {
        return Err(protocol());
    }
    let mut hashes = node.hashes.0.chunks_exact(width);
    Ok((0..CHILDREN)
        .map(|at| {
            let present = node.present & (0x8000 >> at) != 0;
            if present { hashes.next().map(<[u8]>::to_vec) } else { None }
        })
        .collect())
}

fn read_leaves(
    list: &LeafList,
    prefix: &Prefix,
    width: usize,
) -> Result<Vec<(KeyHash, Vec<u8>)>, Failure> {
    let shared = usize::from(prefix.len()) / 8;
    let tail = HASH_LEN - shared;
    if !list.leaves.0.len().is_multiple_of(tail + width) {
        return Err(protocol());
    }
    let mut leaves: Vec<(KeyHash, Vec<u8>)> = Vec::new();
    for item in list.leaves.0.chunks_exact(tail + width) {
        let mut key = prefix.first_key();
        key.0[shared..].copy_from_slice(&item[..tail]);
        if !prefix.contains(&key) || leaves.last().is_some_and(|(last, _)| *last >= key) {
            return Err(protocol());
        }
        leaves.push((key, item[tail..].to_vec()));
    }
    Ok(leaves)
}

fn hash_of_list(algorithm: HashAlgorithm, leaves: &[(KeyHash, Vec<u8>)]) -> Option<TreeHash> {
    let leaves: Option<Vec<Leaf>> = leaves
        .iter()
        .map(|(key, record)| {
            let record = RecordDigest(record.as_slice().try_into().ok()?);
            let totals = Totals { entries: 1, siblings: 1, ..Totals::default() };
            Some(Leaf { key: *key, record, totals })
        })
        .collect();
    Some(Tree::build(algorithm, leaves?).tree_hash())
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
