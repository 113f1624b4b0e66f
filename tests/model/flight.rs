//! A session of the model: two real cores, and between them a network that keeps the order of
//! each lane, until the connection is lost with all that is on its way.

use std::collections::VecDeque;

use selfsame::clock::Stamp;
use selfsame::merkle::NodeKey;
use selfsame::replica::{ApplyOutcome, JoinRecord, JoinRequest, KeyUpdate, ViewError};
use selfsame::session::{Lane, Outcome, Session, Setup, Strategy, SyncConfig};

use super::kept::Kept;
use super::node::{NOW_MS, View};

pub const LANES: [Lane; 2] = [Lane::Control, Lane::Bulk];

/// A frame on its way.
pub type Frame = Kept<Vec<u8>>;

/// One end of a session that runs.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct End {
    pub session: Session,
    pub view: Kept<View>,
    /// A batch of which not everything is applied yet.
    pub updates: Vec<(KeyUpdate, Option<ApplyOutcome>)>,
    pub join: Option<JoinRequest>,
}

/// What an end is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Side {
    /// Not greeted yet.
    Waiting,
    Runs(Kept<End>),
    Ended(Kept<Outcome>),
    /// The process died, or nobody was ever greeted.
    Gone,
}

/// What happens to an end.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    Hears(usize, Frame),
    Applied(usize, ApplyOutcome),
    Joined(Result<(), String>),
    StoreFailed(String),
    Lost,
}

/// What came of it: the end as it is then, and what it says.
#[derive(Clone, Debug)]
pub struct Moved {
    pub side: Side,
    pub remember: Option<JoinRecord>,
    pub says: Vec<(usize, Frame)>,
}

/// A session.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Flight {
    pub from: usize,
    /// Makes its secret another one than those of other sessions.
    pub number: u8,
    pub sides: [Side; 2],
    /// Whether the process of an end died after the end was over.
    pub dead: [bool; 2],
    /// What each node was when its end began.
    pub views: [Option<Kept<View>>; 2],
    /// What each end is to hear, by lane.
    pub inbox: [[VecDeque<Frame>; 2]; 2],
}

impl Flight {
    pub fn is_over(&self) -> bool {
        self.sides.iter().all(|side| matches!(side, Side::Ended(_) | Side::Gone))
    }

    /// Whether the connection is gone at the other end: it heard so, or its process died.
    pub fn is_cut(&self, at: usize) -> bool {
        match &self.sides[1 - at] {
            Side::Gone => true,
            Side::Ended(_) if self.dead[1 - at] => true,
            Side::Ended(outcome) => matches!(**outcome, Outcome::Interrupted),
            _ => false,
        }
    }

    pub fn node(&self, at: usize) -> usize {
        if at == 0 { self.from } else { 1 - self.from }
    }

    pub fn say(&mut self, at: usize, says: &[(usize, Frame)]) {
        if matches!(self.sides[1 - at], Side::Waiting | Side::Runs(_)) {
            for (lane, frame) in says {
                self.inbox[1 - at][*lane].push_back(frame.clone());
            }
        }
    }

    /// What this end will not hear any more goes with it.
    pub fn settle(&mut self, at: usize) {
        if matches!(self.sides[at], Side::Ended(_) | Side::Gone) {
            self.inbox[at].iter_mut().for_each(VecDeque::clear);
        }
    }
}

/// What both ends know besides their snapshots.
pub struct Ends {
    pub keys: [NodeKey; 2],
}

impl Ends {
    fn setup(&self, me: usize, number: u8, strategy: Strategy) -> Setup {
        Setup {
            me: self.keys[me].node_id(),
            peer: self.keys[1 - me].node_id(),
            config: SyncConfig { strategy, ..SyncConfig::default() },
            limits: selfsame::limits::Limits::default(),
            secret: [number; 32],
            clock: Stamp::new(NOW_MS, 0),
        }
    }

    pub fn initiate(&self, me: usize, number: u8, strategy: Strategy, view: &Kept<View>) -> Moved {
        let session = Session::initiate(self.setup(me, number, strategy), &*view.snapshot);
        Self::go_on(End::new(session, view))
    }

    /// The first frame arrives. None if it is no hello: whoever sent it stopped before it began.
    pub fn respond(&self, me: usize, number: u8, frame: &[u8], view: &Kept<View>) -> Option<Moved> {
        let hello = Session::read_hello(frame).ok()?;
        let setup = self.setup(me, number, hello.strategy);
        Some(Self::go_on(End::new(Session::respond(&hello, setup, &*view.snapshot), view)))
    }

    pub fn happens(&self, me: usize, end: &End, event: &Event) -> Moved {
        let mut end = end.clone();
        match event {
            Event::Hears(lane, frame) => {
                end.session.handle(LANES[*lane], frame, &*end.view.snapshot, NOW_MS);
            }
            Event::Applied(which, outcome) => {
                end.updates[*which].1 = Some(outcome.clone());
                if end.updates.iter().all(|(_, outcome)| outcome.is_some()) {
                    let outcomes: Vec<_> = end.updates.drain(..).filter_map(|(_, o)| o).collect();
                    end.session.applied(&outcomes, &*end.view.snapshot);
                }
            }
            Event::Joined(joined) => {
                end.join = None;
                let joined = joined.clone().map_err(ViewError::Store);
                end.session.joined(joined, &|message| self.keys[me].sign(message).to_bytes());
            }
            Event::StoreFailed(what) => end.session.store_failed(what),
            Event::Lost => end.session.disconnected(),
        }
        Self::go_on(end)
    }

    /// The core is asked for all that it has by now. What it says depends on nothing but its
    /// snapshot and what it heard, so it makes no difference when it is asked.
    fn go_on(mut end: End) -> Moved {
        let mut says = Vec::new();
        for (lane, name) in LANES.into_iter().enumerate() {
            while let Some(frame) = end.session.poll_transmit(name, &*end.view.snapshot) {
                says.push((lane, Kept::new(frame)));
            }
        }
        if end.updates.is_empty()
            && let Some(updates) = end.session.poll_apply(true)
        {
            end.updates = updates.into_iter().map(|update| (update, None)).collect();
        }
        if end.updates.is_empty() && end.join.is_none() {
            end.join = end.session.poll_join();
        }
        let remember = end.session.poll_remember();
        let side = match end.session.outcome() {
            Some(outcome) => Side::Ended(Kept::new(outcome.clone())),
            None => Side::Runs(Kept::new(end)),
        };
        Moved { side, remember, says }
    }
}

impl End {
    fn new(session: Session, view: &Kept<View>) -> Self {
        Self { session, view: view.clone(), updates: Vec::new(), join: None }
    }

    /// Whether something waits to be applied or joined.
    pub const fn has_work(&self) -> bool {
        !self.updates.is_empty() || self.join.is_some()
    }
}
