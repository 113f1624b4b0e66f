//! What a session has learned of keys, and the tree that follows from it.
//!
//! The overlay tree is the snapshot's tree, changed for every key of which something was learned:
//! with both directions it becomes the tree of the merged snapshots; one-way, at the taker, that
//! of the giver's snapshot; at the giver it stays its own. Two overlays with one hash mean that
//! nothing is left to find.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use super::merge;
use super::phase::Phase;
use super::twins::Twins;
use crate::dots::{Causality, Dot, DotSet};
use crate::entry::{Record, Sibling};
use crate::hash::{KeyHash, TreeHash};
use crate::merkle::{Leaf, PagedTree, Sealed};
use crate::replica::{CollectionView, ViewError};
use crate::sketch::Sketches;
use crate::sketch::kept::GROUPS;
use crate::types::Key;

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

/// Runs an operation on a tree, unsealing from the snapshot the pages that it needs.
pub(super) fn resident<T>(
    tree: &mut PagedTree,
    view: &dyn CollectionView,
    mut operation: impl FnMut(&mut PagedTree) -> Result<T, Sealed>,
) -> Result<T, ViewError> {
    loop {
        match operation(tree) {
            Ok(result) => return Ok(result),
            Err(Sealed(prefix)) => {
                let leaves = view.page(&prefix)?;
                tree.unseal(&prefix, leaves).map_err(|error| ViewError::Damaged {
                    collection: view.spec().name.to_string(),
                    what: error.to_string(),
                })?;
            }
        }
    }
}

/// All that a session has learned.
#[derive(Clone, Debug)]
pub(super) struct Knowledge {
    kind: Overlay,
    tree: PagedTree,
    /// Those of the tree's leaves, if they are kept of the snapshot.
    sketches: Option<Sketches>,
    keys: BTreeMap<KeyHash, KeyKnowledge>,
    /// Where dots stand that the peer told of.
    learned: BTreeMap<Dot, KeyHash>,
    /// Pages of the snapshot that were sealed at first.
    sealed: usize,
    twins: Twins,
}

// by hand for the tree alone: trees with the same leaves are equal, but the pages of this one that
// are in memory count against the memory of the session
impl Knowledge {
    fn terms(&self) -> impl Eq + Hash + '_ {
        // sketches follow from the tree
        let Self { kind, tree, sketches: _, keys, learned, sealed, twins } = self;
        (kind, (tree, tree.sealed_pages()), keys, learned, sealed, twins)
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
    pub(super) fn new(kind: Overlay, view: &dyn CollectionView) -> Self {
        let tree = view.tree().clone();
        let sealed = tree.sealed_pages();
        let (keys, learned) = (BTreeMap::new(), BTreeMap::new());
        let sketches = view.sketches().cloned();
        Self { kind, tree, sketches, keys, learned, sealed, twins: Twins::default() }
    }

    /// Keys and dots of which something is known.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.keys.len(), self.learned.len())
    }

    /// Pages that were unsealed here.
    pub(super) fn unsealed_pages(&self) -> usize {
        self.sealed.saturating_sub(self.tree.sealed_pages())
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
    pub(super) fn frozen(&self) -> PagedTree {
        self.tree.clone()
    }

    /// Bytes of the overlay's sketches, and those of as many groups of them as keys are known.
    pub(super) fn kept_sketches(&self) -> Option<(usize, usize)> {
        let bytes = self.sketches.as_ref()?.memory_bytes();
        Some((bytes, self.keys.len().saturating_mul(bytes.div_ceil(GROUPS))))
    }

    /// A copy of the overlay's sketches as they are.
    pub(super) fn sketches(&self) -> Option<Sketches> {
        self.sketches.clone()
    }

    pub(super) fn tree_hash(&self) -> TreeHash {
        self.tree.tree_hash()
    }

    pub(super) const fn tree(&self) -> &PagedTree {
        &self.tree
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

    /// Brings the overlay up to date for a key.
    pub(super) fn refresh(
        &mut self,
        key: &KeyHash,
        view: &dyn CollectionView,
        their_seen: &PeerSeen,
    ) -> Result<(), ViewError> {
        let mine = view.entry(key)?;
        let mine = mine.as_ref().map(|entry| &entry.record);
        let record = self.overlaid(key, mine, view.causality(), their_seen);
        let algorithm = view.spec().algorithm;
        let now = record.map(|record| Leaf {
            key: *key,
            record: record.digest(algorithm),
            totals: record.totals(),
        });
        let before = resident(&mut self.tree, view, |tree| match now {
            Some(leaf) => tree.put(leaf),
            None => tree.remove(key),
        })?;
        if let Some(sketches) = &mut self.sketches {
            before.iter().for_each(|leaf| sketches.remove(key, &leaf.record));
            now.iter().for_each(|leaf| sketches.add(key, &leaf.record));
        }
        Ok(())
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
