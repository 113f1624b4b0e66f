//! The model: two nodes, the sessions between them, and all that can happen next.

use selfsame::merkle::NodeKey;
use selfsame::replica::{JoinRecord, KeyUpdate};
use selfsame::session::{Outcome, Strategy};
use stateright::{Model, Property};

use super::flight::{End, Ends, Event, Flight, Frame, Moved, Side};
use super::kept::{Kept, Memo};
use super::node::{Answer, Node, View, Work};
use super::rules::{self, Held, Rule, of};
use crate::harness::flight::{agree, is_true};
use crate::harness::mutant::Mutant;
use crate::harness::oracle::{Holds, Kill, Truth, ensure};

/// Nonces of the sessions in which a state shows that its nodes can become the same.
const IN_PEACE: u8 = u8::MAX;

/// How often each thing may happen yet.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Bounds {
    pub keys: u8,
    pub puts: u8,
    pub deletes: u8,
    pub sessions: u8,
    /// Sessions at once.
    pub flights: u8,
    pub cuts: u8,
    pub crashes: u8,
    /// From a backup of any moment before.
    pub restores: u8,
    pub recoveries: u8,
    pub strategies: &'static [Strategy],
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    pub nodes: [Kept<Node>; 2],
    pub flights: Vec<Kept<Flight>>,
    /// What each node was before, while it may be restored: a backup could be of any such moment.
    pub past: [Vec<Kept<Node>>; 2],
    pub left: Bounds,
    pub truth: Kept<Truth>,
    /// Whether a node was restored.
    pub restored: bool,
    /// What does not hold: nothing happens any more.
    pub broken: Option<(Rule, String)>,
}

/// What may happen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    Put {
        at: usize,
        key: u8,
    },
    Delete {
        at: usize,
        key: u8,
    },
    Open {
        from: usize,
        strategy: Strategy,
    },
    /// The first frame of a lane arrives.
    Deliver {
        flight: usize,
        to: usize,
        lane: usize,
    },
    /// One update of a batch is applied.
    Apply {
        flight: usize,
        at: usize,
        which: usize,
    },
    Join {
        flight: usize,
        at: usize,
    },
    /// An end hears that the connection is gone; what was to arrive there is lost.
    Lose {
        flight: usize,
        at: usize,
    },
    /// The process dies, and so many of the batches that were not synced survive it.
    Crash {
        at: usize,
        kept: usize,
    },
    Restore {
        at: usize,
        which: usize,
    },
    Recover {
        at: usize,
    },
}

/// What a node is after it did something, and what came of it.
type Worked = Result<(Kept<Node>, Answer), String>;

/// The model, with what was worked out already.
pub struct System {
    bounds: Bounds,
    mutant: Option<Mutant>,
    ends: Ends,
    works: Memo<(Kept<Node>, Work), Worked>,
    views: Memo<Kept<Node>, Result<Kept<View>, String>>,
    begins: Memo<(usize, u8, Strategy, Kept<View>), Moved>,
    greets: Memo<(usize, u8, Frame, Kept<View>), Option<Moved>>,
    moves: Memo<(usize, Kept<End>, Event), Moved>,
    births: Memo<Kept<Node>, Result<Kept<Node>, String>>,
    peace: Memo<[Kept<Node>; 2], Result<(), String>>,
}

impl System {
    pub fn new(bounds: Bounds, mutant: Option<Mutant>) -> Self {
        let keys = [0, 1].map(|at| NodeKey::from_seed(&[at + 1; 32]));
        Self {
            bounds,
            mutant,
            ends: Ends { keys },
            works: Memo::default(),
            views: Memo::default(),
            begins: Memo::default(),
            greets: Memo::default(),
            moves: Memo::default(),
            births: Memo::default(),
            peace: Memo::default(),
        }
    }

    /// How many different questions the engine was asked: changes of a node, snapshots, steps of
    /// an end, sessions in peace.
    pub fn asked(&self) -> [usize; 4] {
        [self.works.len(), self.views.len(), self.moves.len(), self.peace.len()]
    }

    fn choose_mutant(&self) {
        #[cfg(feature = "dangerous-mutants")]
        selfsame::mutants::choose(match self.mutant {
            Some(Mutant::Inside(rule)) => Some(rule),
            _ => None,
        });
    }

    fn work(&self, state: &mut State, at: usize, work: Work) -> Held<Answer> {
        let question = (state.nodes[at].clone(), work);
        let (node, answer) = of(
            Rule::Oracle,
            self.works.ask(question, |(node, work)| {
                let (node, answer) = node.work(work, self.mutant)?;
                Ok((Kept::new(node), answer))
            }),
        )?;
        let before = std::mem::replace(&mut state.nodes[at], node);
        if state.left.restores > 0 && !before.model.seen.is_empty() {
            state.past[at].push(before);
        }
        Ok(answer)
    }

    fn view(&self, node: &Kept<Node>) -> Held<Kept<View>> {
        let view = self.views.ask(node.clone(), |node| Ok(Kept::new(node.view(self.mutant)?)));
        of(Rule::Oracle, view)
    }

    fn happens(&self, state: &mut State, flight: usize, at: usize, event: Event) -> Held<()> {
        let Side::Runs(end) = &state.flights[flight].sides[at] else { return Ok(()) };
        let me = state.flights[flight].node(at);
        let moved = self.makes_of(me, end, event);
        self.moved(state, flight, at, moved)
    }

    /// Takes in what an end made of something.
    fn moved(&self, state: &mut State, flight: usize, at: usize, moved: Moved) -> Held<()> {
        let Moved { side, remember, says } = moved;
        let mut now = (*state.flights[flight]).clone();
        let node = now.node(at);
        if let Side::Ended(outcome) = &side {
            self.ended(&now, at, outcome)?;
        }
        now.sides[at] = side;
        now.say(at, &says);
        now.settle(at);
        state.flights[flight] = Kept::new(now);
        if let Some(record) = remember {
            self.remember(state, node, record)?;
        }
        Ok(())
    }

    fn remember(&self, state: &mut State, at: usize, record: JoinRecord) -> Held<()> {
        let peer = self.ends.keys[1 - at].node_id();
        self.work(state, at, Work::Remember { peer, record }).map(drop)
    }

    /// An end says only what is so, and does not contradict the other.
    fn ended(&self, flight: &Flight, at: usize, outcome: &Outcome) -> Held<()> {
        let held = (|| -> Holds {
            if let [Some(one), Some(other)] = &flight.views {
                is_true(outcome, [&one.model, &other.model])?;
            }
            match &flight.sides[1 - at] {
                Side::Ended(other) => agree(outcome, other),
                _ => Ok(()),
            }
        })();
        of(Rule::Outcomes, held)
    }

    fn put(&self, state: &mut State, at: usize, key: u8) -> Held<()> {
        state.left.puts -= 1;
        let tag = (at as u8) << 4 | state.left.puts;
        let superseded = state.nodes[at].model.dots(key);
        let Answer::Put(sibling) = self.work(state, at, Work::Put { key, tag })? else {
            return Ok(());
        };
        let mut truth = (*state.truth).clone();
        let before = truth.written.insert(sibling.dot, (key, sibling, vec![tag]));
        of(
            Rule::OneDot,
            ensure(before.is_none(), || format!("{} stands for two puts", sibling.dot)),
        )?;
        superseded.iter().for_each(|&dot| truth.kill(dot, Kill::Put(sibling.dot)));
        state.truth = Kept::new(truth);
        Ok(())
    }

    fn delete(&self, state: &mut State, at: usize, key: u8) -> Held<()> {
        state.left.deletes -= 1;
        let mut truth = (*state.truth).clone();
        state.nodes[at].model.dots(key).iter().for_each(|&dot| truth.kill(dot, Kill::Delete));
        state.truth = Kept::new(truth);
        self.work(state, at, Work::Delete { key }).map(drop)
    }

    fn begin(&self, state: &mut State, from: usize, number: u8, strategy: Strategy) -> Held<()> {
        let view = self.view(&state.nodes[from])?;
        let question = (from, number, strategy, view.clone());
        let moved = self.begins.ask(question, |(from, number, strategy, view)| {
            self.ends.initiate(*from, *number, *strategy, view)
        });
        let views = [Some(view), None];
        let sides = [Side::Gone, Side::Waiting];
        let (dead, inbox) = Default::default();
        let flight = Flight { from, number, sides, dead, views, inbox };
        state.flights.push(Kept::new(flight));
        self.moved(state, state.flights.len() - 1, 0, moved)
    }

    fn deliver(&self, state: &mut State, flight: usize, to: usize, lane: usize) -> Held<()> {
        let mut now = (*state.flights[flight]).clone();
        let Some(frame) = now.inbox[to][lane].pop_front() else { return Ok(()) };
        if !matches!(now.sides[to], Side::Waiting) {
            state.flights[flight] = Kept::new(now);
            return self.happens(state, flight, to, Event::Hears(lane, frame));
        }
        let me = now.node(to);
        let view = self.view(&state.nodes[me])?;
        let question = (me, now.number, frame, view.clone());
        let moved = self.greets.ask(question, |(me, number, frame, view)| {
            self.ends.respond(*me, *number, frame, view)
        });
        now.views[to] = Some(view);
        if moved.is_none() {
            now.sides[to] = Side::Gone;
            now.settle(to);
        }
        state.flights[flight] = Kept::new(now);
        moved.map_or(Ok(()), |moved| self.moved(state, flight, to, moved))
    }

    fn apply(&self, state: &mut State, flight: usize, at: usize, which: usize) -> Held<()> {
        let now = state.flights[flight].clone();
        let Side::Runs(end) = &now.sides[at] else { return Ok(()) };
        let (node, epoch) = (now.node(at), end.view.snapshot.epoch());
        let update: KeyUpdate = end.updates[which].0.clone();
        if let Some(peer) = &now.views[1 - at] {
            of(Rule::Claims, state.truth.claims(std::slice::from_ref(&update), &peer.model))?;
        }
        let before = state.nodes[node].clone();
        let answer = self.work(state, node, Work::Apply { update, epoch })?;
        let models = state.nodes.iter().map(|node| &node.model);
        let after = &state.nodes[node].model;
        of(Rule::Vanished, state.truth.vanished(&before.model, after, models))?;
        match answer {
            Answer::Applied(outcome) => {
                self.happens(state, flight, at, Event::Applied(which, outcome))
            }
            Answer::Stale(what) => self.happens(state, flight, at, Event::StoreFailed(what)),
            _ => Ok(()),
        }
    }

    fn join(&self, state: &mut State, flight: usize, at: usize) -> Held<()> {
        let now = state.flights[flight].clone();
        let Side::Runs(end) = &now.sides[at] else { return Ok(()) };
        let Some(request) = end.join.clone() else { return Ok(()) };
        let [Some(mine), Some(peer)] = [&now.views[at], &now.views[1 - at]] else {
            let what = "joins before the peer was greeted".into();
            return Err((Rule::Joined, what));
        };
        let node = now.node(at);
        let before = state.nodes[node].clone();
        let live = self.view(&before)?.snapshot.epoch();
        let stale = live != request.epoch;
        let models = [&mine.model, &peer.model];
        let after = state.truth.joined(&before.model, &request, models, false, stale);
        let after = of(Rule::Joined, after)?;
        let answer = self.work(state, node, Work::Join { request, after })?;
        let models = state.nodes.iter().map(|node| &node.model);
        let after = &state.nodes[node].model;
        of(Rule::Vanished, state.truth.vanished(&before.model, after, models))?;
        let joined = match answer {
            Answer::Stale(what) => Err(what),
            _ => Ok(()),
        };
        self.happens(state, flight, at, Event::Joined(joined))
    }

    fn lose(&self, state: &mut State, flight: usize, at: usize) -> Held<()> {
        let mut now = (*state.flights[flight]).clone();
        if !now.is_cut(at) {
            state.left.cuts -= 1;
        }
        if let (Some(Mutant::JoinPartial), Side::Runs(_), Some(peer)) =
            (self.mutant, &now.sides[at], &now.views[1 - at])
        {
            let node = now.node(at);
            let joined = state.nodes[node].join_all(&*peer.snapshot);
            state.nodes[node] = Kept::new(of(Rule::Oracle, joined)?);
        }
        if matches!(now.sides[at], Side::Waiting) {
            now.sides[at] = Side::Gone;
            now.settle(at);
            state.flights[flight] = Kept::new(now);
            return Ok(());
        }
        self.happens(state, flight, at, Event::Lost)
    }

    /// The process of a node is another one now: its ends are gone. What it said may still arrive.
    fn reborn(&self, state: &mut State, at: usize, node: Node) -> Held<()> {
        let born = self.births.ask(Kept::new(node), |node| Ok(Kept::new(node.opened()?)));
        state.nodes[at] = of(Rule::Oracle, born)?;
        for flight in &mut state.flights {
            let mut now = (**flight).clone();
            let side = usize::from(now.from != at);
            now.dead[side] = true;
            if !matches!(now.sides[side], Side::Ended(_)) {
                now.sides[side] = Side::Gone;
                now.settle(side);
            }
            *flight = Kept::new(now);
        }
        Ok(())
    }

    fn step(&self, state: &mut State, action: Action) -> Held<()> {
        match action {
            Action::Put { at, key } => self.put(state, at, key)?,
            Action::Delete { at, key } => self.delete(state, at, key)?,
            Action::Open { from, strategy } => {
                state.left.sessions -= 1;
                self.begin(state, from, state.left.sessions, strategy)?;
            }
            Action::Deliver { flight, to, lane } => self.deliver(state, flight, to, lane)?,
            Action::Apply { flight, at, which } => self.apply(state, flight, at, which)?,
            Action::Join { flight, at } => self.join(state, flight, at)?,
            Action::Lose { flight, at } => self.lose(state, flight, at)?,
            Action::Crash { at, kept } => {
                state.left.crashes -= 1;
                let node = state.nodes[at].crashed(kept);
                self.reborn(state, at, node)?;
            }
            Action::Restore { at, which } => {
                state.left.restores -= 1;
                state.restored = true;
                let backup = state.past[at].remove(which);
                let node = state.nodes[at].restored(&backup, self.mutant);
                self.reborn(state, at, node)?;
                if state.left.restores == 0 {
                    state.past = Default::default();
                }
            }
            Action::Recover { at } => {
                state.left.recoveries -= 1;
                self.work(state, at, Work::Recover)?;
            }
        }
        state.flights.retain(|flight| !flight.is_over());
        self.nothing_undeleted_is_dead(state)
    }

    /// What a node has seen and does not hold was deleted or replaced by somebody.
    fn nothing_undeleted_is_dead(&self, state: &State) -> Held<()> {
        for node in &state.nodes {
            let dead = node.model.seen.iter().filter(|dot| !node.model.holds(**dot));
            let undeleted = dead.copied().find(|dot| !state.truth.kills.contains_key(dot));
            if let Some(dot) = undeleted {
                return Err((Rule::Deleted, format!("{dot} is gone and nobody deleted it")));
            }
        }
        Ok(())
    }

    fn flight_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (flight, now) in state.flights.iter().enumerate() {
            for at in 0..2 {
                for lane in 0..2 {
                    if !now.inbox[at][lane].is_empty() {
                        actions.push(Action::Deliver { flight, to: at, lane });
                    }
                }
                if let Side::Runs(end) = &now.sides[at] {
                    let left = end.updates.iter().enumerate().filter(|(_, (_, o))| o.is_none());
                    actions.extend(left.map(|(which, _)| Action::Apply { flight, at, which }));
                    if end.join.is_some() {
                        actions.push(Action::Join { flight, at });
                    }
                }
                let here = matches!(now.sides[at], Side::Runs(_) | Side::Waiting);
                if here && (state.left.cuts > 0 || now.is_cut(at)) {
                    actions.push(Action::Lose { flight, at });
                }
            }
        }
    }

    /// Whether all that can happen in the sessions is that a core hears a frame, which touches no
    /// store. What the nodes do besides is then left for later: done before or after, it comes to
    /// the same. A process that dies before its core hears is, for whoever lives, one that dies
    /// after, and whose words are lost; so an end may lose its connection here as well.
    fn only_hears(&self, state: &State) -> bool {
        let mut hears = false;
        for flight in &state.flights {
            for (at, side) in flight.sides.iter().enumerate() {
                let first =
                    || (0..2).filter_map(|lane| Some((lane, flight.inbox[at][lane].front()?)));
                let end = match side {
                    Side::Waiting if first().next().is_some() => return false,
                    Side::Runs(end) if end.has_work() => return false,
                    Side::Runs(end) => end,
                    _ => continue,
                };
                for (lane, frame) in first() {
                    hears = true;
                    let event = Event::Hears(lane, frame.clone());
                    if self.makes_of(flight.node(at), end, event).remember.is_some() {
                        return false;
                    }
                }
            }
        }
        hears
    }

    fn makes_of(&self, me: usize, end: &Kept<End>, event: Event) -> Moved {
        let question = (me, end.clone(), event);
        self.moves.ask(question, |(me, end, event)| self.ends.happens(*me, end, event))
    }

    /// From here one session that nothing disturbs is complete, and both nodes hold what one of
    /// them held and the other had not seen dead.
    pub fn settles(&self, state: &State) -> Holds {
        self.choose_mutant();
        self.peace.ask(state.nodes.clone(), |nodes| {
            let [one, other] = [&nodes[0].model, &nodes[1].model];
            let merged = one.merged(other);
            let mut state = State {
                left: Bounds { cuts: 0, restores: 0, ..state.left.clone() },
                flights: Vec::new(),
                ..state.clone()
            };
            let lived = (|| {
                self.begin(&mut state, 0, IN_PEACE, Strategy::Auto)?;
                let mut actions = Vec::new();
                loop {
                    self.flight_actions(&state, &mut actions);
                    let Some(&action) = actions.first() else { break };
                    if matches!(action, Action::Lose { .. }) {
                        break;
                    }
                    self.step(&mut state, action)?;
                    actions.clear();
                }
                Ok(())
            })();
            lived.map_err(|(rule, what)| format!("{rule:?}: {what}"))?;
            ensure(state.flights.is_empty(), || format!("it goes on for ever: {state:?}"))?;
            for node in &state.nodes {
                ensure(node.model == merged, || {
                    format!("ended with {:?}, not {merged:?}", node.model)
                })?;
            }
            Ok(())
        })
    }
}

impl Model for System {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let nodes = [0, 1].map(|at| Kept::new(Node::new(at).expect("a new node")));
        vec![State {
            nodes,
            flights: Vec::new(),
            past: Default::default(),
            left: self.bounds.clone(),
            truth: Kept::new(Truth::default()),
            restored: false,
            broken: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken.is_some() {
            return;
        }
        self.flight_actions(state, actions);
        if self.only_hears(state) {
            return;
        }
        let left = &state.left;
        let opens = left.sessions > 0 && state.flights.len() < usize::from(left.flights);
        for at in 0..2 {
            let node = &state.nodes[at];
            for key in 0..left.keys {
                if left.puts > 0 {
                    actions.push(Action::Put { at, key });
                }
                if left.deletes > 0 && node.model.entries.contains_key(&key) {
                    actions.push(Action::Delete { at, key });
                }
            }
            if opens {
                let opened = left.strategies.iter();
                actions.extend(opened.map(|&strategy| Action::Open { from: at, strategy }));
            }
            if left.crashes > 0 {
                let kept = 0..=node.disk.unsynced();
                actions.extend(kept.map(|kept| Action::Crash { at, kept }));
            }
            let past = 0..state.past[at].len();
            actions.extend(past.map(|which| Action::Restore { at, which }));
            if left.recoveries > 0 && !node.model.seen.is_empty() {
                actions.push(Action::Recover { at });
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        self.choose_mutant();
        let mut next = last.clone();
        if let Err(broken) = self.step(&mut next, action) {
            next.broken = Some(broken);
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = rules::always();
        properties.extend(rules::sometimes());
        properties
    }
}
