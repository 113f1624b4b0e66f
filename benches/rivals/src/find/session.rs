//! A session of selfsame between two replicas in memory, counted and timed.

use std::collections::VecDeque;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use selfsame::clock::Stamp;
use selfsame::replica::{CollectionView as _, Snapshot, ViewError};
use selfsame::session::{Lane, Outcome, Session, Setup, SyncConfig};
use selfsame::store::MemoryStore;
use selfsame::types::NodeId;

use super::Cost;
use super::account::account;
use super::world::{Node, World, wrong};
use crate::error::RivalsError;
use crate::measure::{cpu_now, timed};

const LANES: [Lane; 2] = [Lane::Control, Lane::Bulk];
/// Sessions until two replicas are equal, at most: each moves 65,536 entries.
const MOST_SESSIONS: u64 = 64;

struct Side {
    session: Option<Session>,
    view: Option<Snapshot<MemoryStore>>,
    inbox: VecDeque<(Lane, Vec<u8>, bool)>,
    cpu: Duration,
}

impl Side {
    const fn new() -> Self {
        Self { session: None, view: None, inbox: VecDeque::new(), cpu: Duration::ZERO }
    }
}

/// Sessions from the first to the second node until they are equal.
pub(super) fn synchronise(
    world: &mut World,
    config: &SyncConfig,
    seed: u64,
) -> Result<Cost, RivalsError> {
    let mut cost = Cost::default();
    let mut rng = SmallRng::seed_from_u64(seed);
    for _ in 0..MOST_SESSIONS {
        let mut run = Run { cost: &mut cost, sides: [Side::new(), Side::new()], last_from: None };
        let outcomes = run.session(&mut world.nodes, config, &mut rng)?;
        match outcomes {
            [Outcome::Complete { .. }, Outcome::Complete { .. }] => {
                world.check_equal()?;
                return Ok(cost);
            }
            [Outcome::Partial, Outcome::Partial] => {}
            other => return Err(wrong(format!("the session ended with {other:?}"))),
        }
    }
    Err(wrong("the replicas do not become equal"))
}

struct Run<'a> {
    cost: &'a mut Cost,
    sides: [Side; 2],
    last_from: Option<usize>,
}

impl Run<'_> {
    fn session(
        &mut self,
        nodes: &mut [Node; 2],
        config: &SyncConfig,
        rng: &mut SmallRng,
    ) -> Result<[Outcome; 2], RivalsError> {
        self.cost.sessions += 1;
        let before = [self.cost.cpu[0], self.cost.cpu[1]];
        let ids = [nodes[0].id(), nodes[1].id()];
        self.begin(nodes, config, rng)?;
        loop {
            let mut moved = false;
            for (at, node) in nodes.iter().enumerate() {
                moved |= self.deliver(at, node.now_ms);
                moved |= self.transmit(at)?;
            }
            if moved {
                continue;
            }
            for (at, node) in nodes.iter().enumerate() {
                let begun = cpu_now();
                moved |= work(&mut self.sides[at], node, ids[1 - at]);
                self.sides[at].cpu += cpu_now().saturating_sub(begun);
            }
            if !moved {
                break;
            }
        }
        let mut outcomes = [Outcome::Interrupted, Outcome::Interrupted];
        for (at, side) in self.sides.iter().enumerate() {
            self.cost.cpu[at] = before[at] + side.cpu;
            let sent = side.session.as_ref().map_or(0, |session| session.stats().bytes().0);
            self.cost.counted_inside += sent;
            let outcome = side.session.as_ref().and_then(Session::outcome);
            outcomes[at] = outcome.ok_or_else(|| wrong("the session is stuck"))?.clone();
        }
        Ok(outcomes)
    }

    fn begin(
        &mut self,
        nodes: &[Node; 2],
        config: &SyncConfig,
        rng: &mut SmallRng,
    ) -> Result<(), RivalsError> {
        let [a, b] = nodes;
        let secret = rng.random();
        let setup_a = setup(a, b.id(), config, secret);
        let setup_b = setup(b, a.id(), config, secret);
        let (begun, time) = timed(|| {
            let view = a.collection.snapshot().map_err(wrong)?;
            Ok::<_, RivalsError>((Session::initiate(setup_a, &view), view))
        });
        let (session, view) = begun?;
        self.sides[0] = Side { session: Some(session), view: Some(view), cpu: time, ..Side::new() };
        self.transmit(0)?;
        let Some((_, hello, _)) = self.sides[1].inbox.pop_front() else {
            return Err(wrong("no hello"));
        };
        let (begun, time) = timed(|| {
            let hello = Session::read_hello(&hello).map_err(wrong)?;
            let view = b.collection.snapshot().map_err(wrong)?;
            Ok::<_, RivalsError>((Session::respond(&hello, setup_b, &view), view))
        });
        let (session, view) = begun?;
        let side = &mut self.sides[1];
        (side.session, side.view) = (Some(session), Some(view));
        side.cpu += time;
        Ok(())
    }

    /// Everything that this side has to say.
    fn transmit(&mut self, at: usize) -> Result<bool, RivalsError> {
        let mut moved = false;
        for lane in LANES {
            loop {
                let side = &mut self.sides[at];
                let (Some(session), Some(view)) = (&mut side.session, &side.view) else { break };
                let (frame, time) = timed(|| session.poll_transmit(lane, view));
                side.cpu += time;
                let Some(frame) = frame else { break };
                moved = true;
                self.count(at, lane, frame)?;
            }
        }
        Ok(moved)
    }

    fn count(&mut self, at: usize, lane: Lane, frame: Vec<u8>) -> Result<(), RivalsError> {
        let counted = account(lane, &frame)?;
        self.cost.bytes += counted.bytes;
        self.cost.messages += 1;
        if counted.finds {
            self.cost.find_messages += 1;
            if self.last_from != Some(at) {
                self.cost.find_turns += 1;
                self.last_from = Some(at);
            }
        }
        self.sides[1 - at].inbox.push_back((lane, frame, counted.finds));
        Ok(())
    }

    fn deliver(&mut self, at: usize, now_ms: u64) -> bool {
        let mut moved = false;
        while let Some((lane, frame, finds)) = self.sides[at].inbox.pop_front() {
            let side = &mut self.sides[at];
            let (Some(session), Some(view)) = (&mut side.session, &side.view) else { break };
            let ((), time) = timed(|| session.handle(lane, &frame, view, now_ms));
            side.cpu += time;
            moved = true;
            if finds {
                self.cost.find_cpu = [0, 1].map(|at| self.cost.cpu[at] + self.sides[at].cpu);
            }
        }
        moved
    }
}

fn setup(node: &Node, peer: NodeId, config: &SyncConfig, secret: [u8; 32]) -> Setup {
    Setup {
        me: node.id(),
        peer,
        config: config.clone(),
        limits: node.limits.clone(),
        secret,
        clock: Stamp::new(node.now_ms, 0),
    }
}

/// Applies, joins, signs, remembers: whatever the session asks for.
fn work(side: &mut Side, node: &Node, peer: NodeId) -> bool {
    let (Some(session), Some(view)) = (&mut side.session, &side.view) else { return false };
    let mut moved = false;
    if let Some(heard) = session.poll_heard() {
        moved = true;
        // an aid only: without it a clone is found later
        let _ = node.collection.hear_mark(&peer, heard.mark, heard.since.as_ref());
    }
    while let Some(updates) = session.poll_apply(true) {
        moved = true;
        match node.collection.apply(updates, view.epoch(), node.now_ms) {
            Ok(outcomes) => session.applied(&outcomes, view),
            Err(error) => session.store_failed(&error.to_string()),
        }
    }
    if let Some(request) = session.poll_join() {
        moved = true;
        let joined = node.collection.join(&request, node.now_ms);
        let joined = joined.map(drop).map_err(|error| ViewError::Store(error.to_string()));
        session.joined(joined, &|message| node.key.sign(message).to_bytes());
    }
    if let Some(record) = session.poll_remember() {
        moved = true;
        // an aid only: without it the next session costs more, nothing else
        let _ = node.collection.remember_join(&peer, &record);
    }
    moved
}
