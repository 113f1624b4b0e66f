//! Turns: what one side says about differences before it is the other's turn.

use std::collections::VecDeque;
use std::sync::Arc;

use super::config::Strategy;
use super::knowledge::{Overlay, Theirs};
use super::machine::{Flow, Role, Session, Turn};
use super::message::{LeafList, Message, NodeHashes, TreeSaid, TurnEnd, TurnMessage, WireDots};
use super::outcome::{AbortCode, Failure, LimitName};
use super::phase::{Phase, searched};
use super::plan;
use super::steer::Steering;
use crate::delta::{Encoded, Encoding};
use crate::dots::{Causality, Dot, DotRun, DotSet};
use crate::entry::Record;
use crate::hash::KeyHash;
use crate::replica::CollectionView;
use crate::types::Key;

/// Aim for the size of a message that gathers several items.
pub(super) const GATHERED_BYTES: usize = 128 << 10;
/// Bytes that a run of dots takes in a message, at most.
pub(super) const RUN_BYTES: usize = 27;
/// Runs of dots in one message.
pub(super) const RUNS_PER_MESSAGE: usize = 16_384;
/// Without a list of what the peer holds above its context, at most so many dots are announced
/// that it may well hold; beyond, comparison is cheaper.
const UNCERTAIN_ANNOUNCEMENTS: usize = 1_024;
/// Logged removals told to a peer of which no joined session is remembered.
const REMOVALS_AT_FIRST_CONTACT: usize = 4_096;
/// Logged removals read for a session.
const REMOVALS_PER_SESSION: usize = 262_144;
/// Dots read from the dot index at a time.
pub(super) const DOTS_AT_ONCE: usize = 4_096;
/// Bytes that a sibling takes in memory: in its record, and where its dot stands.
const LEARNED_SIBLING_BYTES: usize = 128;
/// Bytes that one session learns of keys, for each key that it may learn of.
const BYTES_PER_KEY: usize = 512;

/// Something to say in this side's turn.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum TurnItem {
    /// What the snapshot holds of this key.
    Tell(KeyHash, Phase),
    /// The other side's state of this key is wanted.
    Ask(KeyHash, Phase),
    /// A message as it is.
    Message(Box<TurnMessage>),
    /// Children of a prefix.
    Nodes(NodeHashes),
    /// Leaves below a prefix.
    Leaves(LeafList),
}

impl Session {
    /// Tells the peer the state of a key, once.
    pub(super) fn tell(&mut self, key: KeyHash, found_by: Phase) {
        let room = self.knowledge.len() < self.setup.limits.max_session_entries
            && !self.is_crowded()
            || self.knowledge.get(&key).is_some();
        if !room {
            self.partial = true;
        } else if self.knowledge.mark_told(key, found_by) {
            self.items.push_back(match self.flow {
                Flow::Take => TurnItem::Ask(key, found_by),
                _ => TurnItem::Tell(key, found_by),
            });
        }
    }

    /// Names dots as seen dead here: together with all others, at the end of this side's turn.
    pub(super) fn name_removed(&mut self, dots: &DotSet) {
        self.effort.named_removed = self.effort.named_removed.saturating_add(dots.count());
        for run in dots.runs() {
            if !self.has_room_to_say(RUN_BYTES) {
                return;
            }
            self.removed.insert_run(run);
        }
    }

    /// Whether anything waits to be said in this side's turn.
    fn has_to_say(&self) -> bool {
        let steers = self.steering.as_ref().is_some_and(Steering::has_answers);
        steers || !self.items.is_empty() || !self.removed.is_empty()
    }

    /// The next dots that are named as seen dead.
    fn gather_removed(&mut self) -> Option<TurnMessage> {
        let mut part = DotSet::default();
        for run in self.removed.runs().take(RUNS_PER_MESSAGE) {
            part.insert_run(run);
        }
        for run in part.runs() {
            self.removed.remove_through(run.writer, run.last);
        }
        (!part.is_empty()).then(|| TurnMessage::Removed(WireDots::from(&part)))
    }

    /// Queues what answers the peer. It decides how much that is: over the limit the rest is left
    /// to another session, and this one does not join.
    pub(super) fn queue(&mut self, item: TurnItem, bytes: usize) {
        if self.has_room_to_say(bytes) {
            self.items.push_back(item);
        }
    }

    /// Makes room for so many bytes more in this side's next turn.
    pub(super) fn has_room_to_say(&mut self, bytes: usize) -> bool {
        let total = self.effort.queued_bytes.saturating_add(bytes);
        let room = total <= self.setup.limits.max_pending_bytes && !self.is_crowded();
        if room {
            self.effort.queued_bytes = total;
        }
        self.partial |= !room;
        room
    }

    /// Announces what the peer has never seen, and logged removals (rule D6).
    pub(super) fn announce(&mut self, view: &dyn CollectionView) -> Result<(), Failure> {
        let peer = Arc::clone(self.peer_seen()?);
        let mut unseen = Vec::new();
        let mut uncertain = 0;
        for writer in view.writers()? {
            let mut after = peer.causality.counter(writer);
            loop {
                let dots = view.dots_after(writer, after, DOTS_AT_ONCE)?;
                let Some(&(last, _)) = dots.last() else { break };
                after = last.counter();
                let news = dots.iter().filter(|(dot, _)| !peer.has(*dot));
                unseen.extend(news.map(|&(_, key)| key));
                if peer.above.is_none() {
                    uncertain = unseen.len();
                }
                if dots.len() < DOTS_AT_ONCE || unseen.len() > self.setup.limits.max_session_entries
                {
                    break;
                }
            }
        }
        if uncertain > UNCERTAIN_ANNOUNCEMENTS {
            unseen.clear();
        }
        let entries = unseen.len() as u64;
        for key in unseen {
            self.tell(key, Phase::Announce);
        }
        let removals = self.announce_removals(view)?;
        let peer = if self.theirs.since.is_some() { "peer is behind: it" } else { "peer" };
        self.note_plan(
            Phase::Announce,
            format!(
                "the {peer} has not seen {entries} entries and may hold {removals} removed dots"
            ),
            plan::announcement_cost(entries, removals, self.told_value_bytes()),
        );
        Ok(())
    }

    fn announce_removals(&mut self, view: &dyn CollectionView) -> Result<u64, Failure> {
        let peer = Arc::clone(self.peer_seen()?);
        let since = match self.theirs.since {
            Some(position) => Some(position),
            None => view.join_record(&self.setup.peer)?.map(|record| record.log_position),
        };
        let (position, limit) = match since {
            Some(position) => (position, REMOVALS_PER_SESSION),
            None => (0, REMOVALS_AT_FIRST_CONTACT),
        };
        let log = view.removals_after(position, limit)?;
        let mut named = DotSet::default();
        for run in log.dots.runs() {
            // what the peer has not seen it cannot hold
            known_of_run(run, &peer.causality, peer.above.as_ref(), &mut named);
        }
        self.name_removed(&named);
        Ok(named.count())
    }

    /// Takes in a part of the peer's turn.
    pub(super) fn turn_message(
        &mut self,
        message: TurnMessage,
        view: &dyn CollectionView,
        now_ms: u64,
    ) -> Result<(), Failure> {
        self.agreed = false;
        self.settle_before(&message, view)?;
        match message {
            TurnMessage::Opening(opening) => self.peer_opening(opening, view),
            TurnMessage::Following(following) => self.peer_follows(&following, view),
            TurnMessage::States { found_by, writers, held, absent, ask } => {
                for state in held {
                    self.peer_holds(state, &writers, found_by, view, now_ms)?;
                }
                for key in absent {
                    self.peer_lacks(key, found_by, view)?;
                }
                for key in ask {
                    self.tell(key, found_by);
                }
                Ok(())
            }
            TurnMessage::Removed(dots) => {
                let dots = dots.to_set().ok_or_else(protocol)?;
                self.peer_removed(&dots, view)
            }
            TurnMessage::Candidates { dots, keys } => {
                let dots = dots.to_set().ok_or_else(protocol)?;
                self.candidates(&dots, &keys.0, view)
            }
            TurnMessage::Filter { filter, items, second } => {
                self.peer_filter(filter, items, second, view)
            }
            TurnMessage::Estimate(estimate) => self.peer_estimates(estimate, view),
            TurnMessage::Sketch(sketch) => self.peer_sketch(sketch, view),
            TurnMessage::Refill(refill) => self.peer_refill(&refill, view),
            TurnMessage::Refilled(bytes) => self.peer_refilled(&bytes.0, view),
            TurnMessage::Symbols { kept, symbols } => self.peer_symbols(kept, &symbols, view),
            TurnMessage::MoreSymbols(count) => self.peer_wants_symbols(count, view),
            TurnMessage::Names(names) => self.peer_names(&names, view),
            TurnMessage::Steer { attempt, top } => self.peer_steers(attempt, &top, view),
            TurnMessage::Level(level) => self.peer_level(&level, view),
            TurnMessage::Unmatched(unmatched) => self.peer_unmatched(&unmatched, view),
            TurnMessage::Descend(top) => self.peer_descends(&top, view),
            TurnMessage::Nodes(nodes) => {
                nodes.iter().try_for_each(|node| self.peer_node(node, view))
            }
            TurnMessage::Leaves(lists) => {
                lists.iter().try_for_each(|list| self.peer_leaves(list, view))
            }
        }
    }

    /// The peer's turn is over: what is there to say?
    pub(super) fn turn_over(
        &mut self,
        end: &TurnEnd,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        self.stats.turns += 1;
        if self.stats.turns > u64::from(self.setup.limits.max_session_turns) {
            return Err(LimitName::SessionTurns.into());
        }
        self.turn = Turn::Mine;
        let tree = match end.tree {
            TreeSaid::Unchanged => self.theirs.tree.ok_or_else(protocol)?,
            TreeSaid::Same => self.said,
            TreeSaid::Now(tree) => tree,
        };
        self.theirs.tree = Some(tree);
        self.partial |= end.partial;
        self.explain();
        if self.role == Role::Responder && !self.opened {
            self.opened = true;
            if self.strategy == Strategy::Auto && self.flow != Flow::Take {
                self.announce(view)?;
            }
        }
        if self.has_to_say() {
            return Ok(());
        }
        self.settle_overlay(view)?;
        let equal = self.tag_of(&self.knowledge.tree_hash()) == tree;
        if self.partial || equal {
            self.agreed = true;
            if end.settled {
                // the other side knows already: nothing needs to be said
                self.turn = Turn::Over;
            }
            return Ok(());
        }
        self.start_detection(view)
    }

    /// The next frame of this side's turn, or its end.
    pub(super) fn next_turn_message(
        &mut self,
        view: &dyn CollectionView,
    ) -> Result<Option<Message>, Failure> {
        if self.turn != Turn::Mine {
            return Ok(None);
        }
        if let Some(message) = self.gather(view)? {
            return Ok(Some(Message::Turn(message)));
        }
        (self.effort.queued_bytes, self.effort.sketch_bytes) = (0, 0);
        self.stats.turns += 1;
        self.turn = if self.agreed { Turn::Over } else { Turn::Theirs };
        self.settle_overlay(view)?;
        let tree = self.tag_of(&self.knowledge.tree_hash());
        let said = if self.theirs.tree == Some(tree) {
            TreeSaid::Same
        } else if self.said == tree {
            TreeSaid::Unchanged
        } else {
            TreeSaid::Now(tree)
        };
        self.said = tree;
        Ok(Some(Message::TurnEnd(TurnEnd {
            tree: said,
            settled: self.agreed,
            partial: self.partial,
        })))
    }

    fn gather(&mut self, view: &dyn CollectionView) -> Result<Option<TurnMessage>, Failure> {
        if let Some(message) = self.steering.as_mut().and_then(Steering::next_message) {
            return Ok(Some(message));
        }
        match self.items.front() {
            None => Ok(self.gather_removed()),
            Some(TurnItem::Message(_)) => match self.items.pop_front() {
                Some(TurnItem::Message(message)) => Ok(Some(*message)),
                _ => Ok(None),
            },
            Some(TurnItem::Nodes(_)) => Ok(Some(TurnMessage::Nodes(take_while(
                &mut self.items,
                |item| match item {
                    TurnItem::Nodes(node) => Some((node.hashes.0.len() + 40, node)),
                    _ => None,
                },
                |item| matches!(item, TurnItem::Nodes(_)),
            )))),
            Some(TurnItem::Leaves(_)) => Ok(Some(TurnMessage::Leaves(take_while(
                &mut self.items,
                |item| match item {
                    TurnItem::Leaves(list) => Some((list.leaves.0.len() + 40, list)),
                    _ => None,
                },
                |item| matches!(item, TurnItem::Leaves(_)),
            )))),
            Some(&(TurnItem::Tell(_, found_by) | TurnItem::Ask(_, found_by))) => {
                self.gather_states(found_by, view).map(Some)
            }
        }
    }

    pub(super) fn room_for(&mut self, key: &KeyHash) -> bool {
        let limits = &self.setup.limits;
        let room = self.incoming.accepted_bytes() <= limits.max_session_bytes.saturating_mul(2)
            && self.knowledge.len() < 2 * limits.max_session_entries
            && !self.is_crowded()
            || self.knowledge.get(key).is_some();
        self.partial |= !room;
        room
    }

    pub(super) fn room_for_bytes(&mut self, key: &Key, record: &Record) -> bool {
        let bytes = key.as_bytes().len() + LEARNED_SIBLING_BYTES * record.siblings().len();
        let total = self.effort.learned_bytes.saturating_add(bytes);
        let most = self.setup.limits.max_session_entries.saturating_mul(BYTES_PER_KEY);
        let room = total <= most && !self.is_crowded();
        if room {
            self.effort.learned_bytes = total;
        }
        self.partial |= !room;
        room
    }

    pub(super) fn count_found(&mut self, key: &KeyHash, found_by: Phase) {
        if self.knowledge.get(key).is_none() {
            self.stats.phase(found_by).keys_found += 1;
        }
    }

    /// After the peer's state of a key became known: overlay, transfer, answer.
    pub(super) fn learned(
        &mut self,
        key: KeyHash,
        found_by: Phase,
        view: &dyn CollectionView,
        now_ms: u64,
    ) -> Result<(), Failure> {
        self.progress += 1;
        self.judge(key, view, now_ms)?;
        self.knowledge.refresh(&key);
        self.update(key, view)?;
        self.answer(key, found_by, view)
    }

    /// Tells the peer what it cannot know from its own state and what it told.
    fn answer(
        &mut self,
        key: KeyHash,
        found_by: Phase,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        let Some(known) = self.knowledge.get(&key) else { return Ok(()) };
        if known.told {
            return Ok(());
        }
        match self.flow {
            Flow::Take | Flow::Give => Ok(()),
            Flow::Both if known.excluded => {
                // the peer leaves the key out too, and must not take what it was never told of
                // for seen and dead
                self.tell(key, found_by);
                Ok(())
            }
            Flow::Compare => {
                self.tell(key, found_by);
                Ok(())
            }
            Flow::Both => {
                let theirs = known.theirs.record().cloned();
                let mine = view.entry(&key)?;
                let mine = mine.as_ref().map(|entry| &entry.record);
                let peer = self.peer_seen()?;
                let merged = self.knowledge.merged(&key, mine, view.causality(), peer);
                if merged == theirs {
                    return Ok(());
                }
                let adds = merged.iter().flat_map(Record::siblings).any(|sibling| {
                    let there = theirs.as_ref().and_then(|theirs| theirs.sibling(sibling.dot));
                    there != Some(sibling)
                });
                if adds {
                    self.tell(key, found_by);
                    return Ok(());
                }
                let dead: DotSet = theirs
                    .iter()
                    .flat_map(Record::siblings)
                    .map(|sibling| sibling.dot)
                    .filter(|&dot| merged.as_ref().is_none_or(|merged| !merged.holds(dot)))
                    .filter(|&dot| self.knowledge.twins().winning_key(dot).is_none())
                    .collect();
                self.name_removed(&dead);
                Ok(())
            }
        }
    }

    /// The peer names dots as seen dead: those held here go, each claim checked.
    pub(super) fn peer_removed(
        &mut self,
        dots: &DotSet,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        if self.flow == Flow::Give {
            return Err(protocol());
        }
        let found_by = searched(self.search);
        let peer = Arc::clone(self.peer_seen()?);
        for run in dots.runs() {
            let dot = Dot::of(run.writer, run.first).filter(|_| run.first == run.last);
            if dot.is_some_and(|dot| self.incoming.is_issued(dot) && peer.causality.knows(dot)) {
                // it made way for what the peer told of its key
                self.charge(1)?;
                continue;
            }
            let mut held = HeldIn::new(run);
            while let Some((dot, key)) = held.next(view)? {
                self.charge(1)?;
                if !peer.causality.knows(dot) {
                    return Err(protocol());
                }
                if !self.room_for(&key) {
                    return Ok(());
                }
                self.count_found(&key, found_by);
                let known = self.knowledge.entry(key, found_by);
                if !known.gone.contains(&dot) {
                    known.gone.push(dot);
                    self.progress += 1;
                    self.knowledge.refresh(&key);
                    self.update(key, view)?;
                    if self.flow == Flow::Compare {
                        // the answer says what the peer holds instead
                        self.tell(key, found_by);
                    }
                }
            }
        }
        Ok(())
    }

    /// In a one-way session the taker's overlay begins without what the giver has never seen.
    pub(super) fn forget_unseen(&mut self, view: &dyn CollectionView) -> Result<(), Failure> {
        let peer = Arc::clone(self.peer_seen()?);
        for writer in view.writers()? {
            let mut after = peer.causality.counter(writer);
            loop {
                let dots = view.dots_after(writer, after, DOTS_AT_ONCE)?;
                let Some(&(last, _)) = dots.last() else { break };
                after = last.counter();
                for (_, key) in dots.iter().filter(|(dot, _)| !peer.has(*dot)) {
                    self.knowledge.refresh(key);
                }
                if dots.len() < DOTS_AT_ONCE {
                    break;
                }
            }
        }
        Ok(())
    }

    /// All dots of the overlay that this side can tell, with their keys.
    pub(super) fn overlay_dots(
        &self,
        view: &dyn CollectionView,
        mut each: impl FnMut(Dot, KeyHash),
    ) -> Result<(), Failure> {
        for writer in view.writers()? {
            let mut after = 0;
            loop {
                let dots = view.dots_after(writer, after, DOTS_AT_ONCE)?;
                let Some(&(last, _)) = dots.last() else { break };
                after = last.counter();
                for &(dot, key) in &dots {
                    if self.overlay_holds(dot, &key)? {
                        each(dot, key);
                    }
                }
                if dots.len() < DOTS_AT_ONCE {
                    break;
                }
            }
        }
        for (&dot, &key) in self.knowledge.learned() {
            let new = match self.overlay {
                Overlay::Own => false,
                Overlay::Merged => !view.causality().knows(dot),
                Overlay::Peer => true,
            };
            if new && view.key_of(dot)?.is_none() {
                each(dot, key);
            }
        }
        Ok(())
    }

    fn overlay_holds(&self, dot: Dot, key: &KeyHash) -> Result<bool, Failure> {
        let peer = self.peer_seen()?;
        let Some(known) = self.knowledge.get(key) else {
            return Ok(self.overlay != Overlay::Peer || peer.has(dot));
        };
        Ok(match (self.overlay, &known.theirs) {
            (Overlay::Own, _) => true,
            (Overlay::Merged, Theirs::Unknown) => !known.gone.contains(&dot),
            (Overlay::Merged, theirs) => {
                theirs.record().is_some_and(|record| record.holds(dot))
                    || !peer.causality.knows(dot)
            }
            (Overlay::Peer, Theirs::Unknown) => peer.has(dot) && !known.gone.contains(&dot),
            (Overlay::Peer, theirs) => theirs.record().is_some_and(|record| record.holds(dot)),
        })
    }
}

/// A value that rides along as it stands.
pub(super) const fn raw(bytes: Vec<u8>) -> Encoded {
    Encoded { encoding: Encoding::Raw, bytes }
}

pub(super) const fn protocol() -> Failure {
    Failure::Ours(AbortCode::Protocol)
}

/// The dots of a run that are held, read a part at a time.
struct HeldIn {
    part: std::vec::IntoIter<(Dot, KeyHash)>,
    /// Of the run what is not read yet.
    left: Option<DotRun>,
}

impl HeldIn {
    fn new(run: DotRun) -> Self {
        Self { part: Vec::new().into_iter(), left: Some(run) }
    }

    fn next(&mut self, view: &dyn CollectionView) -> Result<Option<(Dot, KeyHash)>, Failure> {
        loop {
            if let Some(held) = self.part.next() {
                return Ok(Some(held));
            }
            let Some(run) = self.left.take() else { return Ok(None) };
            let part = view.dots_within(run, DOTS_AT_ONCE)?;
            let last = part.last().filter(|_| part.len() == DOTS_AT_ONCE);
            self.left = last.and_then(|(dot, _)| run.after(dot.counter()));
            self.part = part.into_iter();
        }
    }
}

/// The dots of a run that the context covers or that are among those above it.
fn known_of_run(run: DotRun, seen: &Causality, above: Option<&DotSet>, known: &mut DotSet) {
    let covered = seen.counter(run.writer).min(run.last);
    if let Some(covered) = DotRun::new(run.writer, run.first, covered) {
        known.insert_run(covered);
    }
    let Some(above) = above else { return };
    let mut from = Some(run.first);
    while let Some(first) = from.and_then(|from| above.next_from(run.writer, from)) {
        let around = Dot::of(run.writer, first).and_then(|dot| above.run_around(dot));
        let Some(last) = around.map(|around| around.last.min(run.last)) else { break };
        let Some(both) = DotRun::new(run.writer, first, last) else { break };
        known.insert_run(both);
        from = last.checked_add(1).filter(|&next| next <= run.last);
    }
}

/// Items of one kind from the front, up to about a message.
fn take_while<T>(
    items: &mut VecDeque<TurnItem>,
    pick: impl Fn(TurnItem) -> Option<(usize, T)>,
    is_such: impl Fn(&TurnItem) -> bool,
) -> Vec<T> {
    let (mut taken, mut bytes) = (Vec::new(), 0);
    while bytes < GATHERED_BYTES && items.front().is_some_and(&is_such) {
        if let Some((size, picked)) = items.pop_front().and_then(&pick) {
            bytes += size;
            taken.push(picked);
        }
    }
    taken
}
