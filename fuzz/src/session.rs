//! Sessions under attack: between two real ends, or with one of them played by the attacker.
//!
//! Whatever happens, nothing panics, work stays bounded, stores stay sound, and no end says that
//! the session is complete unless both hold the certified root.

use std::collections::VecDeque;

use selfsame::hash::HashAlgorithm;
use selfsame::limits::Limits;
use selfsame::replica::{CollectionView, Snapshot, ViewError};
use selfsame::session::{Lane, Outcome, Session, SyncConfig};
use selfsame::store::MemoryStore;
use selfsame::types::NodeId;

use crate::common::{Node, key, run};
use crate::forge::{Forge, SECRET};
use crate::script::{Cast, Script, Settings, Step, Write};

/// Honest moves after the script, more than any session of this size needs.
const MAX_MOVES: usize = 20_000;
/// Most bytes that an end may send, whatever it is sent: the collections hold 200 kB at most.
const MAX_SENT: usize = 8 << 20;
const LANES: [Lane; 2] = [Lane::Control, Lane::Bulk];

/// The input is a [`Script`].
pub fn check(input: &[u8]) {
    if let Ok(script) = Script::read(input) {
        let mut stage = Stage::new(&script);
        script.steps.iter().for_each(|step| stage.step(step));
        stage.play_out();
        stage.judge();
    }
}

/// One end: its node, and its session if it is real and has begun.
pub(crate) struct End {
    pub(crate) node: Node,
    pub(crate) view: Snapshot<MemoryStore>,
    peer: NodeId,
    real: bool,
    session: Option<Session>,
    inbox: [VecDeque<Vec<u8>>; 2],
    sent: usize,
}

/// Two ends and what is on its way between them.
pub(crate) struct Stage {
    pub(crate) ends: [End; 2],
    config: SyncConfig,
    /// Whether both ends are real and the attacker has done nothing yet.
    honest: bool,
    /// Frames delivered, with the end that got them: a seed is made of them.
    delivered: Vec<(usize, Lane, Vec<u8>)>,
}

fn limits(settings: Settings) -> Limits {
    if !settings.tight {
        return Limits { max_filter_bytes: 64 << 10, ..Limits::default() };
    }
    Limits {
        max_value_bytes: 2_000,
        max_siblings: 2,
        max_writers: 4,
        max_exceptions: 4,
        max_session_entries: 6,
        max_pending_bytes: 3_000,
        max_listed_leaves: 4,
        max_filter_bytes: 16,
        max_patch_operations: 16,
        max_session_turns: 12,
        max_removals: 2,
        ..Limits::default()
    }
}

impl Stage {
    fn new(script: &Script) -> Self {
        let settings = script.settings;
        let algorithm = if settings.sha256 { HashAlgorithm::Sha256 } else { HashAlgorithm::Blake3 };
        let mut nodes = [1, 2].map(|seed| Node::with(seed, algorithm, limits(settings)));
        script.writes.iter().for_each(|write| put(&mut nodes, write));
        let config = SyncConfig {
            mode: settings.mode,
            strategy: settings.strategy,
            max_batch_size: usize::from(settings.batch),
            max_merkle_depth: u16::from(settings.depth),
            bloom_filter_items: 8,
            bloom_filter_fpr: 0.2,
            ..SyncConfig::default()
        };
        let real = [settings.cast != Cast::Responder, settings.cast != Cast::Initiator];
        let [a, b] = nodes;
        let ids = [a.id(), b.id()];
        let ends = [End::new(a, ids[1], real[0]), End::new(b, ids[0], real[1])];
        let honest = settings.cast == Cast::Both;
        let mut stage = Self { ends, config, honest, delivered: Vec::new() };
        if real[0] {
            let setup = stage.setup(0);
            stage.ends[0].session = Some(Session::initiate(setup, &stage.ends[0].view));
        }
        stage
    }

    fn setup(&self, at: usize) -> selfsame::session::Setup {
        let End { node, peer, .. } = &self.ends[at];
        node.setup(*peer, self.config.clone(), SECRET)
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Run(moves) => (0..*moves).for_each(|_| {
                self.advance();
            }),
            Step::Drop(to, lane) => {
                self.honest = false;
                self.ends[*to].inbox[*lane as usize].pop_front();
            }
            Step::Repeat(to, lane) => {
                self.honest = false;
                if let Some(frame) = self.ends[*to].inbox[*lane as usize].front().cloned() {
                    self.deliver(*to, *lane, frame);
                }
            }
            Step::Flip(to, lane, at, with) => {
                self.honest = false;
                if let Some(frame) = self.ends[*to].inbox[*lane as usize].front_mut() {
                    let length = frame.len().max(1);
                    if let Some(byte) = frame.get_mut(usize::from(*at) % length) {
                        *byte ^= with;
                    }
                }
            }
            Step::Inject(to, lane, frame) => {
                self.honest = false;
                self.deliver(*to, *lane, frame.clone());
            }
            Step::Forge(to, kind, made_of) => {
                self.honest = false;
                let forged = Forge::new(self, *to, *made_of).frame(*kind);
                if let Some((lane, frame)) = forged {
                    self.deliver(*to, lane, frame);
                }
            }
        }
    }

    /// Every real end sends, takes in and applies what it can; says whether anything moved.
    fn advance(&mut self) -> bool {
        let mut moved = false;
        for at in 0..2 {
            for lane in LANES {
                moved |= self.transmit(at, lane);
            }
            moved |= self.ends[at].work();
            for lane in LANES {
                if let Some(frame) = self.ends[at].inbox[lane as usize].pop_front() {
                    self.deliver(at, lane, frame);
                    moved = true;
                }
            }
        }
        moved
    }

    fn transmit(&mut self, at: usize, lane: Lane) -> bool {
        let end = &mut self.ends[at];
        let Some(session) = &mut end.session else { return false };
        let Some(frame) = session.poll_transmit(lane, &end.view) else { return false };
        end.sent += frame.len();
        assert!(end.sent < MAX_SENT, "end {at} sends without end: {session:?}");
        self.ends[1 - at].inbox[lane as usize].push_back(frame);
        true
    }

    fn deliver(&mut self, to: usize, lane: Lane, frame: Vec<u8>) {
        if !self.ends[to].real {
            self.delivered.push((to, lane, frame));
            return;
        }
        let setup = self.setup(to);
        let end = &mut self.ends[to];
        match &mut end.session {
            Some(session) => session.handle(lane, &frame, &end.view, end.node.now_ms),
            None => {
                if let (Lane::Control, Ok(hello)) = (lane, Session::read_hello(&frame)) {
                    end.session = Some(Session::respond(&hello, setup, &end.view));
                }
            }
        }
        self.delivered.push((to, lane, frame));
    }

    fn play_out(&mut self) {
        let ended = (0..MAX_MOVES).any(|_| !self.advance());
        assert!(ended, "the session does not end");
        for end in &mut self.ends {
            if let Some(session) = end.session.as_mut().filter(|_| !self.honest) {
                session.disconnected();
            }
        }
    }

    fn outcome(&self, at: usize) -> Option<&Outcome> {
        self.ends[at].session.as_ref().and_then(Session::outcome)
    }

    fn judge(&self) {
        for (at, end) in self.ends.iter().enumerate() {
            assert!(end.session.is_none() || self.outcome(at).is_some(), "end {at} is stuck");
            let report = end.node.collection.check().expect("a readable store");
            assert!(report.is_sound(), "{report:?}");
            let Some(Outcome::Complete { certificate: Some(certificate) }) = self.outcome(at)
            else {
                continue;
            };
            for other in self.ends.iter().filter(|other| other.real) {
                assert_eq!(other.node.root(), *certificate.message().root());
            }
        }
        if self.honest {
            let complete = |at| matches!(self.outcome(at), Some(Outcome::Complete { .. }));
            assert_eq!(complete(0), complete(1), "{:?} {:?}", self.outcome(0), self.outcome(1));
            if complete(0) {
                assert_eq!(self.ends[0].node.root(), self.ends[1].node.root());
            }
        }
    }
}

impl End {
    fn new(node: Node, peer: NodeId, real: bool) -> Self {
        let view = node.collection.snapshot().expect("a sound store");
        Self { node, view, peer, real, session: None, inbox: Default::default(), sent: 0 }
    }

    pub(crate) const fn has_begun(&self) -> bool {
        self.session.is_some()
    }

    /// Applies, joins, remembers: what a driver does between frames.
    fn work(&mut self) -> bool {
        let Some(session) = &mut self.session else { return false };
        let collection = &self.node.collection;
        for found in session.poll_clones() {
            collection.note_clone(&self.peer, found, self.node.now_ms).expect("a writable store");
        }
        if let Some(heard) = session.poll_heard() {
            collection
                .hear_mark(&self.peer, heard.mark, heard.since.as_ref())
                .expect("a writable store");
        }
        if let Some(updates) = session.poll_apply(true) {
            match collection.apply(updates, self.view.epoch(), self.node.now_ms) {
                Ok(outcomes) => session.applied(&outcomes, &self.view),
                Err(error) => session.store_failed(&error.to_string()),
            }
            return true;
        }
        if let Some(request) = session.poll_join() {
            let joined = collection.join(&request, self.node.now_ms);
            let joined = joined.map(|_| ()).map_err(|error| ViewError::Store(error.to_string()));
            let key = &self.node.key;
            session.joined(joined, &|message| key.sign(message).to_bytes());
            return true;
        }
        if let Some(record) = session.poll_remember() {
            collection.remember_join(&self.peer, &record).expect("a writable store");
            return true;
        }
        false
    }
}

fn put(nodes: &mut [Node; 2], write: &Write) {
    let node = &mut nodes[usize::from(write.second)];
    node.now_ms += 1;
    let name = key(write.key);
    if write.delete {
        node.collection.delete(&name, node.now_ms).expect("a writable store");
    } else {
        let size = usize::from(write.size) * 24;
        let value: Vec<u8> = (0..size).map(|at| (at / 5) as u8 ^ write.key).collect();
        // refused where limits are tight
        let _ = node.collection.put(&name, value, node.now_ms);
    }
    if write.sync {
        let [a, b] = nodes;
        run(a, b, &SyncConfig::default(), 7);
    }
}

/// Kinds of sessions: flow and flags of their [`Settings`].
const FLOWS: [(u8, u8); 9] =
    [(0, 0), (0, 1), (0, 2), (5, 0), (6, 0), (7, 0), (16, 0), (24, 0), (24, 2)];
/// Writes before them.
const WRITES: [[u8; 3]; 8] =
    [[0, 1, 2], [1, 2, 3], [56, 3, 60], [0, 3, 61], [1, 3, 62], [6, 1, 0], [1, 5, 40], [0, 6, 12]];

fn head(cast: u8, (flow, flags): (u8, u8)) -> Vec<u8> {
    let mut head = vec![cast, flow, flags, 3, 4, WRITES.len() as u8];
    head.extend(WRITES.concat());
    head
}

/// The frames of a session that is left alone, with the end that got them.
fn recorded(flow: (u8, u8)) -> Vec<(usize, Lane, Vec<u8>)> {
    let script = Script::read(&head(0, flow)).expect("whole");
    let mut stage = Stage::new(&script);
    stage.play_out();
    stage.judge();
    stage.delivered
}

/// The frames of sessions of every kind.
pub(crate) fn frames() -> Vec<(Lane, Vec<u8>)> {
    let all = FLOWS.into_iter().flat_map(recorded);
    all.map(|(_, lane, frame)| (lane, frame)).collect()
}

/// Inputs: sessions of every kind left alone; the frames that one end of such a session got, for
/// the attacker to play the other; forged messages of every kind.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for flow in FLOWS {
        seeds.push(head(0, flow));
        for (cast, real) in [(2, 0), (3, 1)] {
            let mut seed = head(cast, flow);
            for (to, lane, frame) in recorded(flow).into_iter().filter(|(to, ..)| *to == real) {
                Step::Inject(to, lane, frame).write(&mut seed);
                Step::Run(4).write(&mut seed);
            }
            seeds.push(seed);
        }
    }
    for kind in 0..crate::forge::KINDS {
        for (cast, to) in [(2, 0), (3, 1)] {
            let mut seed = vec![cast, 0, 0, 3, 4, 2, 0, 1, 2, 1, 2, 3];
            for (kind, made_of) in [(0, [3; 12]), (1, [3; 12]), (kind, [kind; 12])] {
                Step::Forge(to, kind, made_of).write(&mut seed);
                Step::Run(2).write(&mut seed);
            }
            seeds.push(seed);
        }
    }
    seeds
}
