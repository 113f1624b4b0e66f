//! What a session has learned of keys, and the tree that follows from it.
//!
//! The overlay tree is the snapshot's tree, changed for every key of which something was learned:
//! with both directions it becomes the tree of the merged snapshots; one-way, at the taker, that
//! of the giver's snapshot; at the giver it stays its own. Two overlays with one hash mean that
//! nothing is left to find.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use super::merge;
use super::overlay::OverlayTree;
use super::phase::Phase;
use super::twins::Twins;
use crate::dots::{Causality, Dot, DotSet};
use crate::entry::{Record, Sibling};
use crate::hash::{KeyHash, TreeHash};
use crate::merkle::{Change, Leaf, PagedTree};
use crate::replica::{CollectionView, ViewError};
use crate::sketch::Sketches;
use crate::sketch::kept::GROUPS;
use crate::types::Key;

/// A coded symbol in memory.
const SYMBOL_BYTES: usize = 16;

/// What the peer's snapshot has seen, as it stated.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct PeerSeen {
    /// Its context and exceptions.
    pub(super) causality: Causality,
    /// The dots it holds above its context; none when it did not list them.
    pub(super) above: Option<DotSet>,
}

impl PeerSeen {
    /// Whether the peer has surely seen the dot.
    pub(super) fn has(&self, dot: Dot) -> bool {
        self.causality.knows(dot) || self.above.as_ref().is_some_and(|above| above.contains(dot))
    }
}

/// Which tree the overlay stands for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Overlay {
    /// The merged snapshots.
    Merged,
    /// The peer's snapshot, as the taker of a one-way session knows it.
    Peer,
    /// The own snapshot, as the giver of a one-way session.
    Own,
}

/// What the peer's snapshot holds of a key.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) enum Theirs {
    /// Not said.
    #[default]
    Unknown,
    /// Nothing.
    Nothing,
    /// This.
    Holds(Record),
}

impl Theirs {
    pub(super) const fn record(&self) -> Option<&Record> {
        match self {
            Self::Holds(record) => Some(record),
            _ => None,
        }
    }
}

/// What is known of one key.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct KeyKnowledge {
    /// The key itself, once told.
    pub(super) key: Option<Key>,
    /// The peer's siblings.
    pub(super) theirs: Theirs,
    /// Dots held here that the peer named as removed.
    pub(super) gone: Vec<Dot>,
    /// Whether this side's state was told, or is about to be.
    pub(super) told: bool,
    /// Whether it is on its way: then the peer hears of it before anything that follows.
    pub(super) said: bool,
    /// Whether the peer's state was asked for, because nothing is held here.
    pub(super) asked: bool,
    /// Whether an item of the key was refused: then the key is left out by both.
    pub(super) excluded: bool,
    /// Phase that found the difference.
    pub(super) found_by: Phase,
}

impl KeyKnowledge {
    pub(super) const fn new(found_by: Phase) -> Self {
        Self {
            key: None,
            theirs: Theirs::Unknown,
            gone: Vec::new(),
            told: false,
            said: false,
            asked: false,
            excluded: false,
            found_by,
        }
    }
}

impl KeyKnowledge {
    /// Whether anything was learned that can change what is held here.
    pub(super) fn changes_something(&self) -> bool {
        self.theirs != Theirs::Unknown || !self.gone.is_empty()
    }
}

/// All that a session has learned.
#[derive(Clone, Debug)]
pub(super) struct Knowledge {
    kind: Overlay,
    tree: OverlayTree,
    /// Those of the tree's leaves, if they are kept of the snapshot.
    sketches: Option<Sketches>,
    /// Keys of which something was learned that the tree does not show yet.
    stale: BTreeSet<KeyHash>,
    keys: BTreeMap<KeyHash, KeyKnowledge>,
    /// Where dots stand that the peer told of.
    learned: BTreeMap<Dot, KeyHash>,
    twins: Twins,
}

// by hand, since sketches follow from the tree, and pages of it in memory count against the memory
// of the session
impl Knowledge {
    fn terms(&self) -> impl Eq + Hash + '_ {
        let Self { kind, tree, sketches: _, stale, keys, learned, twins } = self;
        (kind, (tree, tree.memory_bytes()), stale, keys, learned, twins)
    }
}

impl PartialEq for Knowledge {
    fn eq(&self, other: &Self) -> bool {
        self.terms() == other.terms()
    }
}

impl Eq for Knowledge {}

impl Hash for Knowledge {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.terms().hash(state);
    }
}

impl Knowledge {
    pub(super) fn new(kind: Overlay, view: &dyn CollectionView, memory_bytes: u64) -> Self {
        Self {
            kind,
            tree: OverlayTree::of(view, memory_bytes),
            sketches: view.sketches().cloned(),
            stale: BTreeSet::new(),
            keys: BTreeMap::new(),
            learned: BTreeMap::new(),
            twins: Twins::default(),
        }
    }

    /// Keys and dots of which something is known, and keys that the tree does not show yet.
    pub(super) fn sizes(&self) -> [usize; 3] {
        [self.keys.len(), self.learned.len(), self.stale.len()]
    }

    /// Bytes of the overlay's tree that are its own.
    pub(super) fn tree_bytes(&self) -> usize {
        self.tree.memory_bytes()
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn get(&self, key: &KeyHash) -> Option<&KeyKnowledge> {
        self.keys.get(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&KeyHash, &KeyKnowledge)> {
        self.keys.iter()
    }

    /// What is known of the key; begun now if nothing was.
    pub(super) fn entry(&mut self, key: KeyHash, found_by: Phase) -> &mut KeyKnowledge {
        self.keys.entry(key).or_insert_with(|| KeyKnowledge::new(found_by))
    }

    /// Marks the key as told; says whether it was not yet.
    pub(super) fn mark_told(&mut self, key: KeyHash, found_by: Phase) -> bool {
        !std::mem::replace(&mut self.entry(key, found_by).told, true)
    }

    /// Turns what was to be told of a key of which nothing is held into a question; says whether
    /// it was not asked yet.
    pub(super) fn ask_instead(&mut self, key: KeyHash, found_by: Phase) -> bool {
        let known = self.entry(key, found_by);
        known.told = false;
        !std::mem::replace(&mut known.asked, true)
    }

    /// Dots that stand for two puts.
    pub(super) const fn twins(&self) -> &Twins {
        &self.twins
    }

    /// Takes note of a dot that stands for two puts.
    pub(super) fn note_twin(&mut self, here: (KeyHash, Sibling), there: (KeyHash, Sibling)) {
        self.twins.note(here, there);
    }

    /// Siblings of the peer's record that are to be added here.
    pub(super) fn news(
        &self,
        key: &KeyHash,
        mine: Option<&Record>,
        my_seen: &Causality,
    ) -> Vec<Sibling> {
        let theirs = self.keys.get(key).and_then(|known| known.theirs.record());
        let mut news = merge::news(mine, my_seen, theirs);
        let has = |record: Option<&Record>, sibling: &Sibling| {
            record.is_some_and(|record| record.sibling(sibling.dot) == Some(sibling))
        };
        let winners = self.twins.winners(key);
        news.extend(winners.filter(|winner| has(theirs, winner) && !has(mine, winner)));
        news
    }

    /// Takes note of where the peer's dots stand.
    pub(super) fn learn_dots(&mut self, key: KeyHash, record: &Record) {
        self.learned.extend(record.siblings().iter().map(|sibling| (sibling.dot, key)));
    }

    pub(super) fn learned(&self) -> impl Iterator<Item = (&Dot, &KeyHash)> {
        self.learned.iter()
    }

    /// Key under which a dot stands that the peer told of.
    pub(super) fn learned_key(&self, dot: Dot) -> Option<KeyHash> {
        self.learned.get(&dot).copied()
    }

    /// A copy of the overlay as it is, for a descent.
    pub(super) fn frozen(&self) -> OverlayTree {
        debug_assert!(self.stale.is_empty(), "a tree that shows all that is known");
        self.tree.clone()
    }

    /// Bytes of the overlay's sketches, and those of as many groups of them as keys are known, with
    /// the symbols, which each key changes.
    pub(super) fn kept_sketches(&self) -> Option<(usize, usize)> {
        let sketches = self.sketches.as_ref()?;
        let bytes = sketches.memory_bytes();
        let symbols =
            if self.keys.is_empty() { 0 } else { SYMBOL_BYTES * sketches.symbols().len() };
        let groups = self.keys.len().saturating_mul(bytes.div_ceil(GROUPS));
        Some((bytes, groups.saturating_add(symbols)))
    }

    /// A copy of the overlay's sketches as they are.
    pub(super) fn sketches(&self) -> Option<Sketches> {
        self.sketches.clone()
    }

    pub(super) fn tree_hash(&self) -> TreeHash {
        debug_assert!(self.stale.is_empty(), "a tree that shows all that is known");
        self.tree().tree_hash()
    }

    pub(super) const fn tree(&self) -> &PagedTree {
        self.tree.tree()
    }

    /// The merged siblings of a key, by all that is known.
    pub(super) fn merged(
        &self,
        key: &KeyHash,
        mine: Option<&Record>,
        my_seen: &Causality,
        their_seen: &PeerSeen,
    ) -> Option<Record> {
        let mine = self.twins.settle(key, mine);
        let mine = mine.as_deref();
        match self.keys.get(key) {
            None => mine.cloned(),
            Some(known) => {
                let whole = match &known.theirs {
                    Theirs::Unknown => mine.cloned(),
                    theirs => {
                        let theirs = self.twins.settle(key, theirs.record());
                        merge::merged(mine, my_seen, theirs.as_deref(), &their_seen.causality)
                    }
                };
                without(whole, &known.gone)
            }
        }
    }

    /// What the overlay holds of a key, by all that is known.
    pub(super) fn overlaid(
        &self,
        key: &KeyHash,
        mine: Option<&Record>,
        my_seen: &Causality,
        their_seen: &PeerSeen,
    ) -> Option<Record> {
        let Some(known) = self.keys.get(key) else {
            return match self.kind {
                Overlay::Peer => only_seen_by(mine, their_seen),
                // a put of it may have made way for one of another key
                Overlay::Merged => self.merged(key, mine, my_seen, their_seen),
                Overlay::Own => mine.cloned(),
            };
        };
        match (self.kind, &known.theirs) {
            _ if known.excluded => None,
            (Overlay::Merged, _) => self.merged(key, mine, my_seen, their_seen),
            (Overlay::Own, _) => mine.cloned(),
            (Overlay::Peer, Theirs::Unknown) => {
                without(only_seen_by(mine, their_seen), &known.gone)
            }
            (Overlay::Peer, theirs) => theirs.record().cloned(),
        }
    }

    /// Takes note that the overlay is no longer up to date for a key.
    pub(super) fn refresh(&mut self, key: &KeyHash) {
        let shows =
            self.kind != Overlay::Own || self.keys.get(key).is_some_and(|known| known.excluded);
        if shows {
            self.stale.insert(*key);
        }
    }

    /// Brings the overlay up to date: all keys at once, in their order, so that each page is
    /// loaded once.
    pub(super) fn settle(
        &mut self,
        view: &dyn CollectionView,
        their_seen: &PeerSeen,
    ) -> Result<(), ViewError> {
        if self.stale.is_empty() {
            return Ok(());
        }
        let stale = std::mem::take(&mut self.stale);
        let algorithm = view.spec().algorithm;
        let mut changes = Vec::with_capacity(stale.len());
        for key in stale {
            let mine = view.entry(&key)?;
            let mine = mine.as_ref().map(|entry| &entry.record);
            let record = self.overlaid(&key, mine, view.causality(), their_seen);
            changes.push(record.map_or(Change::Remove(key), |record| {
                Change::Put(Leaf { key, record: record.digest(algorithm), totals: record.totals() })
            }));
        }
        let sketches = &mut self.sketches;
        self.tree.change(changes, view, |before, now| {
            let Some(sketches) = sketches else { return };
            before.iter().for_each(|leaf| sketches.remove(&leaf.key, &leaf.record));
            if let Change::Put(leaf) = now {
                sketches.add(&leaf.key, &leaf.record);
            }
        })
    }
}

/// The siblings that the peer has seen: what it may still hold of a key that it never told.
fn only_seen_by(mine: Option<&Record>, their_seen: &PeerSeen) -> Option<Record> {
    let siblings = mine?.siblings().iter().filter(|sibling| their_seen.has(sibling.dot));
    Record::new(siblings.copied().collect()).ok()
}

fn without(record: Option<Record>, gone: &[Dot]) -> Option<Record> {
    let record = record?;
    if gone.is_empty() {
        return Some(record);
    }
    let left = record.siblings().iter().filter(|sibling| !gone.contains(&sibling.dot));
    Record::new(left.copied().collect()).ok()
}
