//! Sketch exchange: the planner chooses by how many leaves differ, and a sketch names those that do.
//!
//! Whoever knows both estimators chooses, and begins: with a filter, a descent, coded symbols, or a
//! bucketed `PinSketch`, which the other side holds against its own. So it learns what only one of
//! both holds: it tells its own leaves, and names those of the other.
//!
//! Both work on their overlays as they were when the exchange began. Sketches steer: what they miss,
//! by chance or by malice, leaves two trees that differ, and a descent follows.

use std::hash::{Hash, Hasher};

use super::estimating::FOLDED_UP_TO;
use super::knowledge::Theirs;
use super::machine::{Flow, Session};
use super::message::{Bytes, TurnMessage};
use super::outcome::Failure;
use super::overlay::OverlayTree;
use super::phase::Phase;
use super::plan::{self, Method, Question, Way};
use super::symbols::{Coding, Peeling};
use super::turn::{TurnItem, protocol};
use crate::hash::{HASH_LEN, KeyHash};
use crate::merkle::{Leaf, Prefix};
use crate::replica::CollectionView;
use crate::sketch::buckets::{BucketSketch, Decoded, Decoder, Layout, MAX_CAPACITY, Portion};
use crate::sketch::{
    DifferingId, Estimator, IdWidth, Names, Precision, Sketches, WireNames, WireRefill, WireSketch,
};

/// Products in a field that count as one step.
const PRODUCTS_PER_STEP: u64 = 256;
/// What looking for one leaf counts as, in steps: most of it is reading a page.
const LOOK_STEPS: u64 = 4;
/// What an exchange takes in memory besides sketches and symbols, about, in bytes.
const EXCHANGE_BYTES: usize = 4 << 10;

/// A sketch exchange under way, on the tree as this side had it when it began.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Exchange {
    pub(super) tree: Frozen,
    pub(super) step: Step,
    /// What the step takes in memory, in bytes.
    pub(super) bytes: usize,
}

/// The leaves of the overlay as they were, and their sketches if they are kept.
#[derive(Clone, Debug)]
pub(super) struct Frozen {
    pub(super) tree: OverlayTree,
    pub(super) sketches: Option<Sketches>,
}

// by hand, since sketches follow from the tree
impl PartialEq for Frozen {
    fn eq(&self, other: &Self) -> bool {
        self.tree == other.tree
    }
}

impl Eq for Frozen {}

impl Hash for Frozen {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.tree.hash(state);
    }
}

/// How far it has come.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Step {
    /// This side has sent its estimator, folded or wrapped.
    Estimated { own: Estimator, folded: bool },
    /// It has sent a sketch of this layout, and perhaps a refill.
    Sent { layout: Layout, refilled: bool },
    /// It reads the peer's sketch, and waits for a refill.
    Reading(Box<Decoder>),
    /// It sends coded symbols.
    Coding(Box<Coding>),
    /// It reads those of the peer.
    Peeling(Box<Peeling>),
    /// These differ, and are told, or asked for, after so many more turns of the peer, unless it
    /// has told its own state of them by then.
    Named { keys: Vec<KeyHash>, turns: u8 },
}

impl Exchange {
    pub(super) const fn new(tree: Frozen, step: Step) -> Self {
        Self { tree, step, bytes: 0 }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        EXCHANGE_BYTES + self.bytes + self.tree.tree.copy_bytes()
    }
}

/// Some of the leaves of a tree, a 256th of them in memory at a time; what fails ends them.
pub(super) fn leaves_of<'a>(
    tree: &'a OverlayTree,
    view: &'a dyn CollectionView,
    wanted: [bool; 256],
    failure: &'a mut Option<Failure>,
) -> impl Iterator<Item = Leaf> + 'a {
    let parts = (0..=u8::MAX).filter(move |part| wanted[usize::from(*part)]);
    let read = move |part| {
        let prefix = Prefix::of(&KeyHash([part; HASH_LEN]), 8);
        let leaves = tree.leaves_under(&prefix, usize::MAX, view);
        leaves.map_err(|error| *failure = Some(error.into())).ok()
    };
    parts.map_while(read).flatten()
}

fn parts_of(prefixes: &[Prefix]) -> [bool; 256] {
    let mut wanted = [false; 256];
    for prefix in prefixes {
        let first = usize::from(prefix.first_key().0[0]);
        let parts = 1 << 8_u16.saturating_sub(prefix.len());
        wanted[first..first + parts].fill(true);
    }
    wanted
}

impl Frozen {
    pub(super) fn entries(&self) -> u64 {
        self.tree.tree().totals().entries
    }

    /// How many coded symbols of it are kept.
    pub(super) fn kept_symbols(&self) -> usize {
        self.sketches.as_ref().map_or(0, |sketches| sketches.symbols().len())
    }
}

impl Session {
    pub(super) fn say(&mut self, message: TurnMessage, bytes: usize) {
        self.effort.sketch_bytes += bytes;
        self.items.push_back(TurnItem::Message(Box::new(message)));
    }

    pub(super) fn frozen(&self) -> Frozen {
        Frozen { tree: self.knowledge.frozen(), sketches: self.knowledge.sketches() }
    }

    /// Syndromes of a portion: as they are kept, or by a look at the leaves of its buckets.
    fn syndromes(
        &mut self,
        leaves: &Frozen,
        view: &dyn CollectionView,
        portion: Portion,
    ) -> Result<BucketSketch, Failure> {
        if let Some(kept) = leaves.sketches.as_ref().and_then(|kept| kept.read(&portion)) {
            return Ok(kept);
        }
        self.charge(leaves.entries())?;
        let wanted = parts_of(&portion.prefixes());
        let mut failure = None;
        let items = leaves_of(&leaves.tree, view, wanted, &mut failure);
        let sketch = BucketSketch::of_items(portion, items.map(|leaf| (leaf.key, leaf.record)));
        failure.map_or(Ok(sketch), Err)
    }

    /// The larger of both snapshots.
    pub(super) fn most_entries(&self) -> u64 {
        self.ours.envelope.totals().entries.max(self.theirs.entries)
    }

    /// This side knows how many differ, and begins to find them.
    pub(super) fn choose(
        &mut self,
        tree: Frozen,
        estimate: Option<u64>,
        precision: Precision,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        let entries = tree.entries();
        // more than all leaves of both cannot differ
        let all = entries.saturating_add(self.most_entries());
        let limits = &self.setup.limits;
        let choice = plan::decide(&Question {
            strategy: self.strategy,
            profile: self.setup.config.profile,
            entries,
            most_entries: self.most_entries(),
            kept: tree.sketches.is_some(),
            estimate: estimate.map(|estimate| estimate.min(all)),
            precision,
            filter_rate: self.filter_rate(entries.max(1), estimate.unwrap_or(entries)),
            most_differences: limits.max_session_entries as u64,
            most_symbols: self.most_symbols(&tree),
            kept_symbols: tree.kept_symbols(),
        });
        self.stats.plan.push(choice.step);
        match choice.way {
            Way::Filter => self.send_first_filter(estimate.unwrap_or(entries), view),
            // begins with this side's turn
            Way::Steer => Ok(()),
            Way::Symbols(count) => self.send_first_symbols(tree, count, view),
            Way::Sketch(layout) => {
                self.methods.push((Method::Sketch, self.progress));
                let sketch = self.syndromes(&tree, view, layout.all())?.to_wire();
                let bytes = sketch.bits.len();
                self.say(TurnMessage::Sketch(sketch), bytes);
                let step = Step::Sent { layout, refilled: false };
                self.exchange = Some(Exchange::new(tree, step));
                Ok(())
            }
        }
    }

    /// The peer's sketch: held against the own one.
    pub(super) fn peer_sketch(
        &mut self,
        wire: WireSketch,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        let tree = self.chosen_by_peer()?;
        let layout = wire.layout;
        if layout.width() != IdWidth::of_entries(self.most_entries()) {
            return Err(protocol());
        }
        self.methods.push((Method::Sketch, self.progress));
        let theirs = BucketSketch::from_wire(wire).map_err(|_| protocol())?;
        let reason = format!(
            "the peer chose a sketch of {} x {} syndromes",
            layout.buckets(),
            layout.capacity()
        );
        // of what the layout has room for
        let room = (layout.buckets() * layout.capacity()) as u64;
        let kept = tree.sketches.is_some();
        let predicted = plan::sketch_cost(layout, room, self.most_entries(), kept);
        self.note_plan(Phase::SketchExchange, reason, predicted.and(plan::told_cost(room)));
        if layout.work() > self.most_work() {
            // so much as that no session holds: a descent follows, which stops where it must
            return Ok(());
        }
        let ours = self.syndromes(&tree, view, layout.all())?;
        let decoder = Decoder::new(ours, &theirs).map_err(|_| protocol())?;
        self.charge(decoder.work() / PRODUCTS_PER_STEP)?;
        self.read_on(tree, decoder, view)
    }

    /// Products that reading a sketch may take: as many as the largest that is planned, or a single
    /// bucket of any size.
    fn most_work(&self) -> u64 {
        let most = self.setup.limits.max_session_entries as u64;
        let most = most.saturating_mul(plan::SKETCHED_TIMES);
        let entries = self.most_entries();
        let work = |most, precision| Layout::plan(most, precision, entries).map_or(0, Layout::work);
        let most = work(most.min(Layout::MOST_DIFFERENCES), Precision::Full);
        most.max(work(FOLDED_UP_TO, Precision::Folded))
    }

    /// Asks for what is missing of the peer's sketch, or ends with what is known.
    fn read_on(
        &mut self,
        tree: Frozen,
        decoder: Decoder,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        if let Some(portion) = decoder.refill() {
            let layout = decoder.layout();
            self.say(TurnMessage::Refill(portion.to_wire()), 0);
            let mut exchange = Exchange::new(tree, Step::Reading(Box::new(decoder)));
            exchange.bytes = 4 * size_of::<u64>() * layout.buckets() * layout.capacity();
            self.exchange = Some(exchange);
            return Ok(());
        }
        self.found(tree, &decoder.finish(), view)
    }

    /// The peer asks for more of the sketch that this side sent.
    pub(super) fn peer_refill(
        &mut self,
        wire: &WireRefill,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        let Some(Exchange { step: Step::Sent { layout, refilled }, .. }) = &mut self.exchange
        else {
            return Err(protocol());
        };
        let portion = layout.refill(wire).map_err(|_| protocol())?;
        if std::mem::replace(refilled, true) {
            return Err(protocol());
        }
        let tree = self.exchange.as_ref().map(|exchange| exchange.tree.clone());
        let tree = tree.ok_or_else(protocol)?;
        let bytes = self.syndromes(&tree, view, portion)?.to_bytes();
        let length = bytes.len();
        self.say(TurnMessage::Refilled(Bytes(bytes)), length);
        Ok(())
    }

    /// The peer answers what was asked for of its sketch.
    pub(super) fn peer_refilled(
        &mut self,
        bytes: &[u8],
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        let Some(Exchange { tree, step: Step::Reading(mut decoder), .. }) = self.exchange.take()
        else {
            return Err(protocol());
        };
        let portion = decoder.refill().ok_or_else(protocol)?;
        let theirs = BucketSketch::from_bytes(portion.clone(), bytes).map_err(|_| protocol())?;
        let ours = self.syndromes(&tree, view, portion)?;
        let before = decoder.work();
        decoder.extend(ours, &theirs).map_err(|_| protocol())?;
        self.charge((decoder.work() - before) / PRODUCTS_PER_STEP)?;
        self.read_on(tree, *decoder, view)
    }

    /// The own leaves that seem to stand under a prefix: whatever is told of them is read anew, and
    /// held against the tree.
    fn leaves_near<'a>(
        &'a mut self,
        tree: &'a OverlayTree,
        view: &'a dyn CollectionView,
    ) -> impl FnMut(&Prefix) -> Result<Vec<Leaf>, Failure> + 'a {
        move |prefix| {
            let leaves = tree.leaves_near(prefix, view)?;
            self.charge(LOOK_STEPS + leaves.len() as u64)?;
            Ok(leaves)
        }
    }

    /// What only one side holds: the own leaves are told, those of the peer named. A taker asks
    /// for its own, unless what it names may tell of them.
    pub(super) fn found(
        &mut self,
        tree: Frozen,
        decoded: &Decoded,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        let found = decoded.attribute(self.leaves_near(&tree.tree, view))?;
        let mut ours: Vec<KeyHash> = found.ours.iter().map(|leaf| leaf.key).collect();
        let mut later = Vec::new();
        if self.flow == Flow::Take {
            let (named, alone) = split_named(&ours, &found.theirs);
            (later, ours) = (named, alone);
        }
        let most = self.setup.limits.max_session_entries;
        self.partial |= spread(&mut ours, most.saturating_sub(self.knowledge.len()));
        for key in ours {
            self.tell(key, Phase::SketchExchange);
        }
        if !found.theirs.is_empty() {
            let names = Names::new(decoded.layout, self.most_entries(), &found.theirs).to_wire();
            if self.has_room_to_say(names.gaps.len()) {
                self.items.push_back(TurnItem::Message(Box::new(TurnMessage::Names(names))));
            }
        }
        self.exchange = (!later.is_empty()).then(|| named(tree, later, 1));
        Ok(())
    }

    /// The peer names leaves of this side that it does not hold.
    pub(super) fn peer_names(
        &mut self,
        wire: &WireNames,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        // nothing tells of more than was sent
        let (tree, layout, most) = match self.exchange.take() {
            Some(Exchange { tree, step: Step::Sent { layout, refilled }, .. }) => {
                let each = if refilled { MAX_CAPACITY } else { layout.capacity() };
                (tree, layout, layout.buckets() * each)
            }
            Some(Exchange { tree, step: Step::Coding(coding), .. }) => {
                (tree, Layout::SHORT, coding.sent())
            }
            _ => return Err(protocol()),
        };
        if wire.count as usize > most {
            return Err(protocol());
        }
        let names = Names::from_wire(wire, layout, self.most_entries()).map_err(|_| protocol())?;
        let leaves = names.resolve(self.leaves_near(&tree.tree, view))?;
        let mut keys: Vec<KeyHash> = leaves.iter().map(|leaf| leaf.key).collect();
        keys.dedup();
        self.stats.names_unknown += names.len().saturating_sub(keys.len()) as u64;
        self.partial |= spread(&mut keys, self.setup.limits.max_session_entries);
        self.exchange = Some(named(tree, keys, 0));
        Ok(())
    }

    /// At the end of the peer's turn: what differs, and of which it has told nothing.
    pub(super) fn explain_names(&mut self) {
        match &mut self.exchange {
            Some(Exchange { step: Step::Named { turns, .. }, .. }) if *turns > 0 => *turns -= 1,
            Some(Exchange { step: Step::Named { .. }, .. }) => {
                let Some(Exchange { step: Step::Named { keys, .. }, .. }) = self.exchange.take()
                else {
                    return;
                };
                for key in keys {
                    let told = self.knowledge.get(&key).map(|known| &known.theirs);
                    if told.is_none_or(|theirs| *theirs == Theirs::Unknown) {
                        self.tell(key, Phase::SketchExchange);
                    }
                }
            }
            _ => {}
        }
    }
}

fn named(tree: Frozen, keys: Vec<KeyHash>, turns: u8) -> Exchange {
    let bytes = keys.len() * HASH_LEN;
    Exchange { tree, step: Step::Named { keys, turns }, bytes }
}

/// Leaves as many of ascending keys as there is room for, the same at both ends and of all parts of
/// the tree, so that a sketch of what is left finds it evenly spread again; says whether any went.
fn spread(keys: &mut Vec<KeyHash>, room: usize) -> bool {
    let goes = keys.len() > room;
    if goes {
        keys.sort_unstable_by_key(|key| key.0.last_chunk::<8>().copied());
        keys.truncate(room);
        keys.sort_unstable();
    }
    goes
}

/// Of ascending keys those that one of the peer's ids may be of, and the others.
fn split_named(keys: &[KeyHash], theirs: &[DifferingId]) -> (Vec<KeyHash>, Vec<KeyHash>) {
    let mut is_named = vec![false; keys.len()];
    for prefix in theirs.iter().flat_map(DifferingId::prefixes) {
        let first = keys.partition_point(|key| *key < prefix.first_key());
        let under = keys[first..].iter().take_while(|key| prefix.contains(key)).count();
        is_named[first..first + under].fill(true);
    }
    let split = |named| {
        let those = keys.iter().zip(&is_named).filter(move |(_, is)| **is == named);
        those.map(|(key, _)| *key).collect()
    };
    (split(true), split(false))
}
