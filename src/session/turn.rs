//! Turns: what one side says about differences before it is the other's turn.

use super::config::Strategy;
use super::knowledge::{Overlay, Theirs};
use super::machine::{Flow, Role, Session, Turn};
use super::message::{
    Bytes, KeyState, LeafList, Message, NodeHashes, TurnEnd, TurnMessage, WireDots,
};
use super::outcome::{AbortCode, Failure};
use super::phase::Phase;
use super::plan;
use crate::delta::{Encoded, Encoding};
use crate::dots::{Dot, DotRun, DotSet};
use crate::entry::Record;
use crate::hash::KeyHash;
use crate::replica::CollectionView;
use crate::types::Key;

/// Values up to this size ride along with the state of their key.
const INLINE_BYTES: u64 = 256;
/// Aim for the size of a message that gathers several items.
const GATHERED_BYTES: usize = 128 << 10;
/// Bytes of a prefix in a message, at most.
const WIRE_PREFIX_BYTES: usize = 36;
/// Runs of dots in one message.
const RUNS_PER_MESSAGE: usize = 16_384;
/// Without a list of what the peer holds above its context, at most so many dots are announced
/// that it may well hold; beyond, comparison is cheaper.
const UNCERTAIN_ANNOUNCEMENTS: usize = 1_024;
/// Logged removals told to a peer of which no joined session is remembered.
const REMOVALS_AT_FIRST_CONTACT: usize = 4_096;
/// Logged removals read for a session.
const REMOVALS_PER_SESSION: usize = 262_144;
/// Dots read from the dot index at a time.
const DOTS_AT_ONCE: usize = 4_096;

/// Something to say in this side's turn.
#[derive(Clone, Debug)]
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
        if self.flow == Flow::Take {
            if self.knowledge.mark_told(key, found_by) {
                self.items.push_back(TurnItem::Ask(key, found_by));
            }
        } else if self.knowledge.len() < self.setup.limits.max_session_entries
            || self.knowledge.get(&key).is_some()
        {
            if self.knowledge.mark_told(key, found_by) {
                self.items.push_back(TurnItem::Tell(key, found_by));
            }
        } else {
            self.partial = true;
        }
    }

    /// Names dots as seen dead here.
    pub(super) fn name_removed(&mut self, dots: &DotSet) {
        for part in split_runs(dots) {
            let removed = TurnMessage::Removed(WireDots::from(&part));
            self.items.push_back(TurnItem::Message(Box::new(removed)));
        }
    }

    /// Asks which of these dots the peer has seen dead.
    pub(super) fn ask_removed(&mut self, dots: &DotSet) {
        for part in split_runs(dots) {
            let dots = WireDots::from(&part);
            self.items.push_back(TurnItem::Message(Box::new(TurnMessage::Candidates(dots))));
        }
    }

    /// Announces what the peer has never seen, and logged removals (rule D6).
    pub(super) fn announce(&mut self, view: &dyn CollectionView) -> Result<(), Failure> {
        let peer = self.peer_seen()?.clone();
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
        self.note_plan(
            Phase::Announce,
            format!("the peer has not seen {entries} entries and may hold {removals} removed dots"),
            plan::announcement_bytes(entries, removals),
        );
        Ok(())
    }

    fn announce_removals(&mut self, view: &dyn CollectionView) -> Result<u64, Failure> {
        let peer = self.peer_seen()?.clone();
        let known = view.join_record(&self.setup.peer)?;
        let (position, limit) = match &known {
            Some(record) => (record.log_position, REMOVALS_PER_SESSION),
            None => (0, REMOVALS_AT_FIRST_CONTACT),
        };
        let log = view.removals_after(position, limit)?;
        let mut named = DotSet::default();
        for run in log.dots.runs() {
            // what the peer has not seen it cannot hold
            named_of_run(run, &peer, &mut named);
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
        match message {
            TurnMessage::Opening(opening) => self.peer_opening(opening, view),
            TurnMessage::States { found_by, held, absent, ask } => {
                for state in held {
                    self.peer_holds(state, found_by, view, now_ms)?;
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
            TurnMessage::Candidates(dots) => {
                let dots = dots.to_set().ok_or_else(protocol)?;
                self.candidates(&dots, view)
            }
            TurnMessage::Filter { filter, items, second } => {
                self.peer_filter(filter, items, second, view)
            }
            TurnMessage::Descend { estimator, full, top } => {
                self.peer_descends(estimator.as_ref(), full, &top, view)
            }
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
            return Err(Failure::Ours(AbortCode::Limit));
        }
        self.turn = Turn::Mine;
        self.theirs.tree = Some(end.tree);
        self.partial |= end.partial;
        if self.role == Role::Responder && !self.opened {
            self.opened = true;
            if self.strategy == Strategy::Auto && self.flow != Flow::Take {
                self.announce(view)?;
            }
        }
        if !self.items.is_empty() {
            return Ok(());
        }
        let equal = self.knowledge.tree_hash() == end.tree;
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
        self.stats.turns += 1;
        self.turn = if self.agreed { Turn::Over } else { Turn::Theirs };
        Ok(Some(Message::TurnEnd(TurnEnd {
            tree: self.knowledge.tree_hash(),
            settled: self.agreed,
            partial: self.partial,
        })))
    }

    fn gather(&mut self, view: &dyn CollectionView) -> Result<Option<TurnMessage>, Failure> {
        match self.items.front() {
            None => Ok(None),
            Some(TurnItem::Message(_)) => match self.items.pop_front() {
                Some(TurnItem::Message(message)) => Ok(Some(*message)),
                _ => Ok(None),
            },
            Some(TurnItem::Nodes(_)) => {
                let (mut nodes, mut bytes) = (Vec::new(), 0);
                while let Some(TurnItem::Nodes(node)) = self.items.pop_front_if(|item| {
                    bytes < GATHERED_BYTES && matches!(item, TurnItem::Nodes(_))
                }) {
                    bytes += node.hashes.0.len() + WIRE_PREFIX_BYTES;
                    nodes.push(node);
                }
                Ok(Some(TurnMessage::Nodes(nodes)))
            }
            Some(TurnItem::Leaves(_)) => {
                let (mut lists, mut bytes) = (Vec::new(), 0);
                while let Some(TurnItem::Leaves(list)) = self.items.pop_front_if(|item| {
                    bytes < GATHERED_BYTES && matches!(item, TurnItem::Leaves(_))
                }) {
                    bytes += list.leaves.0.len() + WIRE_PREFIX_BYTES;
                    lists.push(list);
                }
                Ok(Some(TurnMessage::Leaves(lists)))
            }
            Some(&(TurnItem::Tell(_, found_by) | TurnItem::Ask(_, found_by))) => {
                self.gather_states(found_by, view).map(Some)
            }
        }
    }

    fn gather_states(
        &mut self,
        phase: Phase,
        view: &dyn CollectionView,
    ) -> Result<TurnMessage, Failure> {
        let (mut held, mut absent, mut ask) = (Vec::new(), Vec::new(), Vec::new());
        let mut bytes = 0;
        while held.len() + absent.len() + ask.len() < self.setup.config.max_batch_size.max(1)
            && bytes < GATHERED_BYTES
        {
            match self.items.front() {
                Some(&TurnItem::Tell(key, found_by)) if found_by == phase => {
                    match self.state_of(&key, view)? {
                        Some(state) => {
                            bytes += state.key.0.len() + 64 * state.siblings.len();
                            bytes += state.values.iter().map(|(_, v)| v.0.len()).sum::<usize>();
                            held.push(state);
                        }
                        None => absent.push(key),
                    }
                }
                Some(&TurnItem::Ask(key, found_by)) if found_by == phase => ask.push(key),
                _ => break,
            }
            self.items.pop_front();
            if self.told_bytes > self.setup.limits.max_session_bytes {
                // enough for one session: the rest is told by the next
                self.partial = true;
                self.items.retain(|item| !matches!(item, TurnItem::Tell(..) | TurnItem::Ask(..)));
            }
        }
        Ok(TurnMessage::States { found_by: phase, held, absent, ask })
    }

    fn state_of(
        &mut self,
        key: &KeyHash,
        view: &dyn CollectionView,
    ) -> Result<Option<KeyState>, Failure> {
        let Some(entry) = view.entry(key)? else { return Ok(None) };
        let peer = self.peer_seen()?;
        let news = entry.record.siblings().iter().filter(|sibling| !peer.has(sibling.dot));
        let told: u64 = news.fold(0, |sum, sibling| sum.saturating_add(sibling.size));
        let mut values = Vec::new();
        if self.flow != Flow::Compare {
            let small = entry
                .record
                .siblings()
                .iter()
                .enumerate()
                .filter(|(_, sibling)| sibling.size <= INLINE_BYTES && !peer.has(sibling.dot));
            for (at, sibling) in small {
                if let Some(value) = view.value(key, &sibling.value_hash)? {
                    values.push((at as u16, Bytes(value.to_vec())));
                }
            }
        }
        for (_, value) in &values {
            self.stats.sent.count(&raw(value.0.clone()), value.0.len() as u64);
        }
        if self.flow != Flow::Compare {
            self.told_bytes = self.told_bytes.saturating_add(told);
        }
        let siblings = entry.record.siblings().to_vec();
        Ok(Some(KeyState { key: Bytes(entry.key.as_bytes().to_vec()), siblings, values }))
    }

    fn peer_holds(
        &mut self,
        state: KeyState,
        found_by: Phase,
        view: &dyn CollectionView,
        now_ms: u64,
    ) -> Result<(), Failure> {
        if self.flow == Flow::Give {
            return Err(protocol());
        }
        let key = Key::new(state.key.0).map_err(|_| protocol())?;
        let record = Record::new(state.siblings.clone()).map_err(|_| protocol())?;
        if record.siblings() != state.siblings {
            return Err(protocol());
        }
        let key_hash = self.ours.spec.algorithm.key_hash(&key);
        if !self.room_for(&key_hash) {
            return Ok(());
        }
        self.count_found(&key_hash, found_by);
        self.knowledge.learn_dots(key_hash, &record);
        let known = self.knowledge.entry(key_hash, found_by);
        if known.theirs != Theirs::Unknown {
            return Err(protocol());
        }
        known.key = Some(key);
        known.theirs = Theirs::Holds(record);
        for (at, value) in state.values {
            let sibling = state.siblings.get(usize::from(at)).ok_or_else(protocol)?;
            self.inline_value(sibling, value.0)?;
        }
        self.learned(key_hash, found_by, view, now_ms)?;
        self.incoming.forget_inline();
        Ok(())
    }

    fn peer_lacks(
        &mut self,
        key: KeyHash,
        found_by: Phase,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        if self.flow == Flow::Give {
            return Err(protocol());
        }
        if !self.room_for(&key) {
            return Ok(());
        }
        self.count_found(&key, found_by);
        let known = self.knowledge.entry(key, found_by);
        if known.theirs != Theirs::Unknown {
            return Err(protocol());
        }
        known.theirs = Theirs::Nothing;
        self.learned(key, found_by, view, 0)
    }

    fn room_for(&mut self, key: &KeyHash) -> bool {
        let limits = &self.setup.limits;
        let room = self.incoming.accepted_bytes() <= limits.max_session_bytes.saturating_mul(2)
            && self.knowledge.len() < 2 * limits.max_session_entries
            || self.knowledge.get(key).is_some();
        self.partial |= !room;
        room
    }

    fn count_found(&mut self, key: &KeyHash, found_by: Phase) {
        if self.knowledge.get(key).is_none() {
            self.stats.phase(found_by).keys_found += 1;
        }
    }

    /// After the peer's state of a key became known: overlay, transfer, answer.
    fn learned(
        &mut self,
        key: KeyHash,
        found_by: Phase,
        view: &dyn CollectionView,
        now_ms: u64,
    ) -> Result<(), Failure> {
        self.progress += 1;
        self.judge(key, view, now_ms)?;
        let peer = self.peer_seen()?.clone();
        self.knowledge.refresh(&key, view, &peer)?;
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
        if known.told || known.excluded {
            return Ok(());
        }
        match self.flow {
            Flow::Take | Flow::Give => Ok(()),
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
                let adds = merged
                    .iter()
                    .flat_map(Record::siblings)
                    .any(|sibling| theirs.as_ref().is_none_or(|theirs| !theirs.holds(sibling.dot)));
                if adds {
                    self.tell(key, found_by);
                    return Ok(());
                }
                let dead: DotSet = theirs
                    .iter()
                    .flat_map(Record::siblings)
                    .map(|sibling| sibling.dot)
                    .filter(|&dot| merged.as_ref().is_none_or(|merged| !merged.holds(dot)))
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
        let found_by = match self.phase {
            Phase::BloomExchange | Phase::MerkleComparison => self.phase,
            _ => Phase::Announce,
        };
        let peer = self.peer_seen()?.clone();
        for run in dots.runs() {
            for (dot, key) in held_in(run, view)? {
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
                    self.knowledge.refresh(&key, view, &peer)?;
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

    fn candidates(&mut self, dots: &DotSet, view: &dyn CollectionView) -> Result<(), Failure> {
        if self.flow == Flow::Take {
            return Err(protocol());
        }
        if dots.count() > 16 * self.setup.limits.max_session_entries as u64 {
            return Err(Failure::Ours(AbortCode::Limit));
        }
        let mut dead = DotSet::default();
        for dot in dots.iter() {
            if view.causality().knows(dot) && view.key_of(dot)?.is_none() {
                dead.insert(dot);
            }
        }
        self.name_removed(&dead);
        Ok(())
    }

    /// In a one-way session the taker's overlay begins without what the giver has never seen.
    pub(super) fn forget_unseen(&mut self, view: &dyn CollectionView) -> Result<(), Failure> {
        let peer = self.peer_seen()?.clone();
        for writer in view.writers()? {
            let mut after = peer.causality.counter(writer);
            loop {
                let dots = view.dots_after(writer, after, DOTS_AT_ONCE)?;
                let Some(&(last, _)) = dots.last() else { break };
                after = last.counter();
                for (_, key) in dots.iter().filter(|(dot, _)| !peer.has(*dot)) {
                    self.knowledge.refresh(key, view, &peer)?;
                }
                if dots.len() < DOTS_AT_ONCE {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The dots held above the own context, unless they are too many runs.
    pub(super) fn dots_above(view: &dyn CollectionView) -> Result<Option<DotSet>, Failure> {
        let mut above = DotSet::default();
        for writer in view.writers()? {
            let mut after = view.causality().counter(writer);
            loop {
                let dots = view.dots_after(writer, after, DOTS_AT_ONCE)?;
                let Some(&(last, _)) = dots.last() else { break };
                after = last.counter();
                for (dot, _) in &dots {
                    above.insert(*dot);
                }
                if above.run_count() > MAX_RUNS_ABOVE {
                    return Ok(None);
                }
                if dots.len() < DOTS_AT_ONCE {
                    break;
                }
            }
        }
        Ok(Some(above))
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

/// Most runs of dots above the context that are listed in an opening.
pub(super) const MAX_RUNS_ABOVE: usize = 32_768;

/// A value that rides along as it stands.
pub(super) const fn raw(bytes: Vec<u8>) -> Encoded {
    Encoded { encoding: Encoding::Raw, bytes }
}

pub(super) const fn protocol() -> Failure {
    Failure::Ours(AbortCode::Protocol)
}

/// The dots of a run that are held.
fn held_in(run: DotRun, view: &dyn CollectionView) -> Result<Vec<(Dot, KeyHash)>, Failure> {
    let mut held = Vec::new();
    let mut after = run.first - 1;
    loop {
        let dots = view.dots_after(run.writer, after, DOTS_AT_ONCE)?;
        let Some(&(last, _)) = dots.last() else { break };
        after = last.counter();
        held.extend(dots.iter().filter(|(dot, _)| dot.counter() <= run.last));
        if dots.len() < DOTS_AT_ONCE || last.counter() >= run.last {
            break;
        }
    }
    Ok(held)
}

fn named_of_run(run: DotRun, peer: &super::knowledge::PeerSeen, named: &mut DotSet) {
    let covered = peer.causality.counter(run.writer).min(run.last);
    if let Some(known) = DotRun::new(run.writer, run.first, covered) {
        named.insert_run(known);
    }
    if let Some(above) = &peer.above {
        for held in above.runs_of(run.writer) {
            let (first, last) = (held.first.max(run.first), held.last.min(run.last));
            if let Some(both) = DotRun::new(run.writer, first, last) {
                named.insert_run(both);
            }
        }
    }
}

fn split_runs(dots: &DotSet) -> Vec<DotSet> {
    let runs: Vec<_> = dots.runs().collect();
    runs.chunks(RUNS_PER_MESSAGE)
        .map(|chunk| {
            let mut part = DotSet::default();
            chunk.iter().for_each(|&run| part.insert_run(run));
            part
        })
        .collect()
}
