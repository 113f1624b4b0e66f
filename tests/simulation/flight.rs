//! Sessions in flight: two real cores, and between them queues that a history delivers from, one
//! frame at a time, or never.

use std::collections::VecDeque;
use std::sync::Arc;

use selfsame::clock::Stamp;
use selfsame::replica::{ApplyOutcome, CollectionView, JoinRequest, KeyUpdate, ViewError};
use selfsame::session::message::{FreeMessage, Message};
use selfsame::session::{
    AbortCode, Failure, HeardNow, Lane, Outcome, Phase, Session, Setup, SyncConfig, wire,
};

use super::mutant::{self, Mutant};
use super::node::name;
use super::oracle::{Holds, Model, ensure};
use super::trace::fold;
use super::world::{World, note};

const LANES: [Lane; 2] = [Lane::Control, Lane::Bulk];

/// So often nothing happened that nothing will: any of ten things would have.
const IDLE: usize = 300;

/// A batch of which not everything is applied yet.
struct Batch {
    updates: Vec<KeyUpdate>,
    outcomes: Vec<Option<ApplyOutcome>>,
}

/// One end of a session.
pub struct End {
    session: Session,
    view: Box<dyn CollectionView>,
    /// What the node was when the session began.
    model: Arc<Model>,
    inbox: [VecDeque<Vec<u8>>; 2],
    batch: Option<Batch>,
    join: Option<JoinRequest>,
    /// Applied although it was said to be applied before, by a mutant.
    postponed: Vec<KeyUpdate>,
}

/// A session, at whatever moment.
pub struct Flight {
    pub id: u64,
    pub nodes: [usize; 2],
    config: SyncConfig,
    hello: Option<Vec<u8>>,
    secret: [u8; 32],
    ends: [Option<End>; 2],
    models: [Option<Arc<Model>>; 2],
    outcomes: [Option<Outcome>; 2],
    /// Whether the connection is gone: nothing is delivered any more.
    cut: bool,
    /// Whether anything was refused by either.
    refusals: bool,
    /// Keys that vanished by what each end applied.
    vanished: [u64; 2],
}

impl Flight {
    pub fn is_over(&self) -> bool {
        let over = |at: usize| match &self.ends[at] {
            None => at == 0 || self.hello.is_none(),
            Some(end) => self.outcomes[at].is_some() && (self.cut || end.session.is_flushed()),
        };
        over(0) && over(1)
    }

    /// Whether one end found nothing to do after the hello. The other may have stopped before it
    /// heard of that, and cannot know.
    fn found_equal(&self) -> bool {
        let stopped = Outcome::Failed(Failure::Ours(AbortCode::Cancelled));
        let same = |end: &Option<End>| {
            let phase = end.as_ref().map(|end| end.session.phase());
            phase == Some(Phase::Hello) || end.is_none()
        };
        let stopped_at = |at: usize| self.outcomes[at].as_ref() == Some(&stopped);
        (stopped_at(0) && same(&self.ends[1])) || (stopped_at(1) && same(&self.ends[0]))
    }

    fn lose_frames(&mut self) {
        self.hello = None;
        for end in self.ends.iter_mut().flatten() {
            end.inbox.iter_mut().for_each(VecDeque::clear);
        }
    }
}

impl World {
    fn setup(&self, [me, peer]: [usize; 2], config: SyncConfig, secret: [u8; 32]) -> Setup {
        Setup {
            me: self.nodes[me].id(),
            peer: self.nodes[peer].id(),
            config,
            limits: self.nodes[me].limits.clone(),
            secret,
            clock: Stamp::new(self.now_at(me), 0),
        }
    }

    /// A snapshot for a session, or what a mutant makes of it.
    fn view(&mut self, at: usize) -> Option<Box<dyn CollectionView>> {
        let things = self.nodes[at].usable()?;
        let snapshot = things.snapshot().ok()?;
        Some(match self.mutant {
            Some(Mutant::LiveContext) => {
                let live = selfsame::dots::Causality::clone(snapshot.causality());
                let older = match self.nodes[at].stale.take().filter(|_| self.dice.percent(50)) {
                    Some(older) => older,
                    None => snapshot,
                };
                Box::new(mutant::Altered::new(older, live))
            }
            Some(Mutant::HideExceptions) => mutant::without_exceptions(snapshot),
            _ => Box::new(snapshot),
        })
    }

    /// A session begins; whoever is asked hears of it when the first frame arrives.
    pub fn begin_session(&mut self, from: usize, to: usize, config: SyncConfig) -> Holds {
        let Some(view) = self.view(from) else { return Ok(()) };
        let secret = self.dice.bytes32();
        let setup = self.setup([from, to], config.clone(), secret);
        let session = Session::initiate(setup, &*view);
        let model = Arc::new(self.nodes[from].model().clone());
        let end = End {
            session,
            view,
            model: Arc::clone(&model),
            inbox: Default::default(),
            batch: None,
            join: None,
            postponed: Vec::new(),
        };
        let id = self.flights_begun;
        self.flights_begun += 1;
        note!(
            self,
            "session {id}: {} to {}, {:?}, {:?}",
            name(from),
            name(to),
            config.mode,
            config.strategy
        );
        self.flights.push(Flight {
            id,
            nodes: [from, to],
            config,
            secret,
            hello: None,
            ends: [Some(end), None],
            models: [Some(model), None],
            outcomes: [None, None],
            cut: false,
            refusals: false,
            vanished: [0, 0],
        });
        Ok(())
    }

    fn respond(&mut self, which: usize, frame: &[u8]) -> Holds {
        let [from, to] = self.flights[which].nodes;
        let Some(view) = self.view(to) else {
            // nobody there: the connection ends
            self.flights[which].cut = true;
            return Ok(());
        };
        let Ok(hello) = Session::read_hello(frame) else {
            // stopped before it began: the first frame says why
            self.flights[which].cut = true;
            return Ok(());
        };
        let config = self.flights[which].config.clone();
        let setup = self.setup([to, from], config, self.flights[which].secret);
        let session = Session::respond(&hello, setup, &*view);
        let model = Arc::new(self.nodes[to].model().clone());
        let flight = &mut self.flights[which];
        flight.models[1] = Some(Arc::clone(&model));
        flight.ends[1] = Some(End {
            session,
            view,
            model,
            inbox: Default::default(),
            batch: None,
            join: None,
            postponed: Vec::new(),
        });
        note!(self, "session {}: {} is greeted", self.flights[which].id, name(to));
        self.note_outcome(which, 1)
    }

    /// One thing at one end of a session; whether there was anything to do.
    pub fn pump(&mut self, which: usize, at: usize, action: usize) -> Result<bool, String> {
        let moved = match action {
            0 => self.transmit(which, at, 0)?,
            1 => self.transmit(which, at, 1)?,
            2 => self.receive(which, at, 0)?,
            3 => self.receive(which, at, 1)?,
            _ => self.work(which, at)?,
        };
        if moved {
            self.note_outcome(which, at)?;
        }
        Ok(moved)
    }

    fn transmit(&mut self, which: usize, at: usize, lane: usize) -> Result<bool, String> {
        let flight = &mut self.flights[which];
        let Some(end) = &mut flight.ends[at] else { return Ok(false) };
        if flight.cut && flight.outcomes[at].is_some() {
            return Ok(false);
        }
        let Some(frame) = end.session.poll_transmit(LANES[lane], &*end.view) else {
            return Ok(false);
        };
        let what = said(lane, &frame, &mut flight.refusals);
        let (id, from, cut) = (flight.id, flight.nodes[at], flight.cut);
        let hash = fold(0, &frame) as u16;
        if !cut {
            match &mut flight.ends[1 - at] {
                Some(other) => other.inbox[lane].push_back(frame),
                None if at == 0 && flight.hello.is_none() => flight.hello = Some(frame),
                None => {}
            }
        }
        let lost = if cut { ", into the void" } else { "" };
        note!(self, "session {id}: {} says {what} #{hash:04x}{lost}", name(from));
        Ok(true)
    }

    fn receive(&mut self, which: usize, at: usize, lane: usize) -> Result<bool, String> {
        let now = self.now_at(self.flights[which].nodes[at]);
        let flight = &mut self.flights[which];
        if at == 1 && lane == 0 && flight.ends[1].is_none() {
            let Some(hello) = flight.hello.take() else { return Ok(false) };
            self.respond(which, &hello)?;
            return Ok(true);
        }
        let Some(end) = &mut flight.ends[at] else { return Ok(false) };
        let Some(frame) = end.inbox[lane].pop_front() else { return Ok(false) };
        end.session.handle(LANES[lane], &frame, &*end.view, now);
        let (id, to, hash) = (flight.id, flight.nodes[at], fold(0, &frame) as u16);
        note!(self, "session {id}: {} hears #{hash:04x}", name(to));
        Ok(true)
    }

    /// Applies, joins or remembers, a step of it.
    fn work(&mut self, which: usize, at: usize) -> Result<bool, String> {
        let whole = self.dice.percent(60);
        let flush = self.dice.percent(70);
        if self.see_to_marks(which, at)? {
            return Ok(true);
        }
        let flight = &mut self.flights[which];
        let Some(end) = &mut flight.ends[at] else { return Ok(false) };
        if end.batch.is_none()
            && let Some(updates) = end.session.poll_apply(flush)
        {
            if self.mutant == Some(Mutant::JoinEarly) {
                end.session.applied(&vec![ApplyOutcome::default(); updates.len()], &*end.view);
                end.postponed.extend(updates);
                return Ok(true);
            }
            let outcomes = vec![None; updates.len()];
            end.batch = Some(Batch { updates, outcomes });
        }
        if end.batch.is_some() {
            return self.apply_some(which, at, whole);
        }
        if end.join.is_none() {
            end.join = end.session.poll_join();
            if end.join.is_some() && !whole {
                return Ok(true); // something may come in between
            }
        }
        if end.join.is_some() {
            return self.join_end(which, at);
        }
        if let Some(updates) = Some(std::mem::take(&mut end.postponed)).filter(|u| !u.is_empty()) {
            let (node, epoch) = (flight.nodes[at], end.view.epoch());
            let _ = self.apply(node, &updates, epoch, None)?;
            return Ok(true);
        }
        if let Some(record) = end.session.poll_remember() {
            let (node, peer) = (flight.nodes[at], flight.nodes[1 - at]);
            let peer = self.nodes[peer].id();
            if let Some(things) = self.nodes[node].usable() {
                let _ = things.remember_join(&peer, &record);
            }
            self.nodes[node].remember();
            return Ok(true);
        }
        Ok(false)
    }

    /// What was heard and found of writers; nobody honest is ever accused.
    fn see_to_marks(&mut self, which: usize, at: usize) -> Result<bool, String> {
        let flight = &mut self.flights[which];
        let (node, peer) = (flight.nodes[at], flight.nodes[1 - at]);
        let Some(end) = &mut flight.ends[at] else { return Ok(false) };
        let found = end.session.poll_clones();
        let heard = end.session.poll_heard();
        ensure(found.is_empty() || self.mutant.is_some(), || {
            format!("session {}: {} accuses: {found:?}", flight.id, name(node))
        })?;
        let (peer, now) = (self.nodes[peer].id(), self.now_at(node));
        let Some(things) = self.nodes[node].usable() else { return Ok(false) };
        for &found in &found {
            let _ = things.note_clone(&peer, found, now);
        }
        if let Some(HeardNow { mark, since }) = &heard {
            let _ = things.hear_mark(&peer, *mark, since.as_ref());
            self.nodes[node].remember();
        }
        Ok(heard.is_some() || !found.is_empty())
    }

    /// One update of a batch, or all that are left, in one commit.
    fn apply_some(&mut self, which: usize, at: usize, whole: bool) -> Result<bool, String> {
        let peer = self.flights[which].models[1 - at].clone();
        let flight = &mut self.flights[which];
        let (id, node) = (flight.id, flight.nodes[at]);
        let Some(end) = &mut flight.ends[at] else { return Ok(false) };
        let Some(batch) = &end.batch else { return Ok(false) };
        let left = batch.outcomes.iter().enumerate().filter(|(_, outcome)| outcome.is_none());
        let mut chosen: Vec<usize> = left.map(|(at, _)| at).collect();
        if !whole {
            chosen = vec![*self.dice.pick(&chosen)];
        }
        let updates: Vec<KeyUpdate> = chosen.iter().map(|&at| batch.updates[at].clone()).collect();
        let epoch = end.view.epoch();
        let mine = Arc::clone(&end.model);
        self.count_vanishing(which, at, &updates, &mine)?;
        let applied = self.apply(node, &updates, epoch, peer.as_deref())?;
        note!(self, "session {id}: {} applies {}", name(node), summary(&updates, &applied));
        if applied.is_ok() && self.dice.percent(10) {
            note!(self, "and once more");
            let _ = self.apply(node, &updates, epoch, peer.as_deref())?;
        }
        let flight = &mut self.flights[which];
        let Some(end) = &mut flight.ends[at] else { return Ok(true) };
        match applied {
            Ok(outcomes) => {
                flight.refusals |= outcomes.iter().any(|outcome| !outcome.refused.is_empty());
                let Some(batch) = &mut end.batch else { return Ok(true) };
                for (at, outcome) in chosen.into_iter().zip(outcomes) {
                    batch.outcomes[at] = Some(outcome);
                }
                if batch.outcomes.iter().all(Option::is_some) {
                    let outcomes: Vec<_> = batch.outcomes.drain(..).flatten().collect();
                    end.batch = None;
                    end.session.applied(&outcomes, &*end.view);
                }
            }
            Err(error) => {
                end.batch = None;
                end.session.store_failed(&error);
            }
        }
        Ok(true)
    }

    /// The brake lets no more keys vanish than it may.
    fn count_vanishing(
        &mut self,
        which: usize,
        at: usize,
        updates: &[KeyUpdate],
        mine: &Model,
    ) -> Holds {
        let flight = &mut self.flights[which];
        for update in updates.iter().filter(|update| update.add.is_empty()) {
            let held = mine.dots(super::world::number_of(&update.key_hash)?);
            let vanishes = !held.is_empty() && held.iter().all(|dot| update.remove.contains(dot));
            flight.vanished[at] += u64::from(vanishes);
        }
        let limits = &self.nodes[flight.nodes[at]].limits;
        let many = flight.vanished[at] > limits.max_removals
            && flight.vanished[at] * 100 > mine.entries.len() as u64 * limits.max_removals_percent;
        ensure(!many || flight.config.allow_removals, || {
            format!("session {} removed {} keys unasked", flight.id, flight.vanished[at])
        })
    }

    fn join_end(&mut self, which: usize, at: usize) -> Result<bool, String> {
        let flight = &mut self.flights[which];
        let (id, node, refusals) = (flight.id, flight.nodes[at], flight.refusals);
        let peer = flight.models[1 - at].clone().ok_or("a join before the peer was greeted")?;
        let Some(end) = &mut flight.ends[at] else { return Ok(false) };
        let Some(request) = end.join.take() else { return Ok(false) };
        let mine = Arc::clone(&end.model);
        let joined = self.join(node, &request, [&mine, &peer], refusals)?;
        let past = request.refused.count();
        note!(self, "session {id}: {} joins, {past} dots left alone: {joined:?}", name(node));
        let signing = &self.nodes[node].signing;
        let flight = &mut self.flights[which];
        if let Some(end) = &mut flight.ends[at] {
            let joined = joined.map_err(ViewError::Store);
            end.session.joined(joined, &|message| signing.sign(message).to_bytes());
        }
        Ok(true)
    }

    /// The connection breaks: what was on its way is gone.
    pub fn cut(&mut self, which: usize) {
        let flight = &mut self.flights[which];
        if !flight.cut {
            flight.cut = true;
            flight.lose_frames();
            note!(self, "session {}: the connection breaks", self.flights[which].id);
        }
    }

    /// One end hears that the connection is gone, or stops waiting.
    pub fn disconnect(&mut self, which: usize, at: usize) -> Holds {
        self.join_partial(which, at)?;
        let flight = &mut self.flights[which];
        if at == 1 && flight.ends[1].is_none() {
            flight.hello = None;
        }
        let Some(end) = &mut flight.ends[at] else { return Ok(()) };
        end.session.disconnected();
        end.inbox.iter_mut().for_each(VecDeque::clear);
        (end.batch, end.join) = (None, None);
        self.note_outcome(which, at)
    }

    /// A mutant joins after a session that was cut short.
    fn join_partial(&mut self, which: usize, at: usize) -> Holds {
        let flight = &self.flights[which];
        let (Some(Mutant::JoinPartial), None) = (self.mutant, &flight.outcomes[at]) else {
            return Ok(());
        };
        let [Some(end), Some(other)] = [&flight.ends[at], &flight.ends[1 - at]] else {
            return Ok(());
        };
        let (epoch, peer) = (end.view.epoch(), other.view.causality().clone());
        let request = JoinRequest { epoch, peer, refused: Default::default() };
        let node = flight.nodes[at];
        let now = self.now_at(node);
        if let Some(things) = self.nodes[node].usable() {
            let _ = things.join(&request, now);
        }
        self.check(node)
    }

    /// Somebody stops the session at one end.
    pub fn stop_session(&mut self, which: usize, at: usize) -> Holds {
        let flight = &mut self.flights[which];
        let (id, node) = (flight.id, flight.nodes[at]);
        let Some(end) = &mut flight.ends[at] else { return Ok(()) };
        end.session.abort(AbortCode::Cancelled);
        note!(self, "session {id}: {} stops it", name(node));
        self.note_outcome(which, at)
    }

    /// The process of a node is gone: its ends with it. What it sent before may still arrive.
    pub fn end_flights_of(&mut self, node: usize) {
        for flight in &mut self.flights {
            for at in 0..2 {
                if flight.nodes[at] == node {
                    flight.ends[at] = None;
                    if at == 1 {
                        flight.hello = None;
                    }
                }
            }
        }
    }

    /// Takes note of how an end ended: the two never contradict each other.
    fn note_outcome(&mut self, which: usize, at: usize) -> Holds {
        let flight = &mut self.flights[which];
        let Some(end) = &flight.ends[at] else { return Ok(()) };
        if flight.outcomes[at].is_some() {
            return Ok(());
        }
        let Some(outcome) = end.session.outcome().cloned() else { return Ok(()) };
        let (id, node) = (flight.id, flight.nodes[at]);
        *self.outcomes.entry(word(&outcome)).or_default() += 1;
        note!(self, "session {id}: {} ends with {}", name(node), shown(&outcome));
        self.check_outcome(which, &outcome)?;
        let flight = &mut self.flights[which];
        flight.outcomes[at] = Some(outcome);
        if let [Some(one), Some(other)] = &flight.outcomes {
            let together = agree(one, other)
                .or_else(|what| if flight.found_equal() { Ok(()) } else { Err(what) });
            together.map_err(|what| format!("session {id} {what}"))?;
        }
        Ok(())
    }

    fn check_outcome(&self, which: usize, outcome: &Outcome) -> Holds {
        let flight = &self.flights[which];
        let [Some(one), Some(other)] = &flight.models else { return Ok(()) };
        is_true(outcome, [one, other]).map_err(|what| format!("session {} {what}", flight.id))
    }

    /// The modes in which both ends run to their end, with everything delivered.
    pub fn run_session(
        &mut self,
        from: usize,
        to: usize,
        config: SyncConfig,
    ) -> Result<[Option<Outcome>; 2], String> {
        self.begin_session(from, to, config)?;
        let which = self.flights.len() - 1;
        let mut idle = 0;
        while idle < IDLE {
            let (at, action) = (self.dice.below(2), self.dice.below(6));
            let moved = self.pump(which, at, action)?;
            idle = if moved { 0 } else { idle + 1 };
        }
        let flight = self.flights.remove(which);
        Ok(flight.outcomes)
    }
}

/// The end of a session says only what is so of the two that met, as they were when it began.
pub fn is_true(outcome: &Outcome, [one, other]: [&Model; 2]) -> Holds {
    match outcome {
        Outcome::Complete { certificate: Some(certificate) } => {
            let root = one.merged(other).root()?;
            ensure(*certificate.message().root() == root, || {
                "is certified with a root that is not the merged one".into()
            })
        }
        Outcome::Complete { certificate: None } => {
            ensure(one == other, || "found equal what is not".into())
        }
        Outcome::Compared { differences, truncated: false } => {
            let keys = one.entries.keys().chain(other.entries.keys());
            let differ = keys.filter(|key| one.entries.get(key) != other.entries.get(key));
            let mut differ: Vec<_> = differ.map(|&key| super::oracle::key(key)).collect();
            differ.sort_unstable();
            differ.dedup();
            let found: Vec<_> = differences.iter().map(|one| one.key.clone()).collect();
            ensure(found == differ, || format!("found {found:?} to differ, not {differ:?}"))
        }
        _ => Ok(()),
    }
}

/// What the two ends say does not contradict.
pub fn agree(one: &Outcome, other: &Outcome) -> Holds {
    ensure(go_together(one, other) && go_together(other, one), || {
        format!("ended with {} and {}", shown(one), shown(other))
    })
}

/// Whether one end may say this while the other says that.
fn go_together(one: &Outcome, other: &Outcome) -> bool {
    match one {
        Outcome::Complete { .. } => {
            matches!(other, Outcome::Complete { .. } | Outcome::Interrupted)
        }
        Outcome::Incomplete { .. } => {
            matches!(other, Outcome::Incomplete { .. } | Outcome::Interrupted)
        }
        Outcome::Pulled { .. } => matches!(other, Outcome::Pushed { .. } | Outcome::Interrupted),
        Outcome::Pushed { .. } => matches!(other, Outcome::Pulled { .. } | Outcome::Interrupted),
        _ => true,
    }
}

pub fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Complete { certificate: Some(_) } => "complete",
        Outcome::Complete { certificate: None } => "equal",
        Outcome::Incomplete { .. } => "incomplete",
        Outcome::Pulled { .. } => "pulled",
        Outcome::Pushed { .. } => "pushed",
        Outcome::Compared { .. } => "compared",
        Outcome::Partial => "partial",
        Outcome::Interrupted => "interrupted",
        Outcome::Failed(_) => "failed",
        _ => "another",
    }
}

fn shown(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Failed(failure) => format!("failed: {failure}"),
        Outcome::Incomplete { refused } => format!("incomplete: {refused:?}"),
        other => word(other).to_owned(),
    }
}

/// What a frame says, and whether it refuses anything.
fn said(lane: usize, frame: &[u8], refusals: &mut bool) -> String {
    if lane == 1 {
        return format!("values, {} bytes", frame.len());
    }
    match wire::decode_all::<Message>(frame) {
        Ok(messages) => {
            let refuses = |message| matches!(message, &Message::Free(FreeMessage::Refused(_)));
            *refusals |= messages.iter().any(refuses);
            messages.iter().map(named).collect::<Vec<_>>().join(", ")
        }
        Err(error) => error.to_string(),
    }
}

fn named(message: &Message) -> String {
    let mut text = format!("{message:?}");
    let end = text.find(['(', '{', ' ']).unwrap_or(text.len());
    let inner = match message {
        Message::Turn(turn) => format!("{turn:?}"),
        Message::Free(free) => format!("{free:?}"),
        _ => String::new(),
    };
    let inner_end = inner.find(['(', '{', ' ']).unwrap_or(inner.len());
    text.truncate(end);
    format!("{text} {}", &inner[..inner_end])
}

fn summary(updates: &[KeyUpdate], applied: &Result<Vec<ApplyOutcome>, String>) -> String {
    let (mut add, mut remove) = (0, 0);
    for update in updates {
        add += update.add.len();
        remove += update.remove.len();
    }
    let said = match applied {
        Ok(outcomes) => {
            let refused: usize = outcomes.iter().map(|outcome| outcome.refused.len()).sum();
            let missing: usize = outcomes.iter().map(|o| o.missing_values.len()).sum();
            format!("{refused} refused, {missing} without value")
        }
        Err(error) => error.clone(),
    };
    format!("{} keys, +{add} -{remove}: {said}", updates.len())
}
