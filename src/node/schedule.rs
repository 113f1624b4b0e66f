//! When a node turns to which peer: a state machine that knows no clock and no network.
//!
//! It is told what happened, with the time, and says what to do next. Each peer is asked once an
//! interval whether all shared collections are the same; only those that are not get a session.
//! A burst of writes brings a session soon. What fails is tried again later and later; what was
//! never equal, or not for long, goes first.
//!
//! ```
//! use selfsame::node::schedule::{Action, Schedule, ScheduleSettings};
//! use selfsame::types::NodeId;
//!
//! let peer = NodeId([7; 32]);
//! let mut schedule = Schedule::new(ScheduleSettings::default(), 1);
//! schedule.set_peers(0, &[(peer, true)]);
//! let first = schedule.next_wake().expect("a peer is to be dialled");
//! assert_eq!(schedule.poll(first), [Action::Dial(peer)]);
//! schedule.dialled(first + 5, peer, None);
//! schedule.connected(first + 5, peer);
//! let next = schedule.next_wake().expect("it is to be asked");
//! assert_eq!(schedule.poll(next), [Action::Compare(peer)]);
//! ```

use std::collections::{BTreeMap, BTreeSet};

use super::forest::Compared;
use crate::hash::StateHash;
use crate::types::{CollectionName, NodeId};

/// Peers that are dialled at once.
const MOST_DIALS: usize = 16;
/// A peer that has just connected, or come into the book, is turned to within this time.
const SOON_MS: u64 = 200;

/// How often, how soon, how many. All times in milliseconds.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ScheduleSettings {
    /// Time between two questions to one peer; each is a fifth shorter or longer.
    pub interval_ms: u64,
    /// How long writes must rest before they bring a session...
    pub quiet_ms: u64,
    /// ...and how long they can put it off.
    pub burst_ms: u64,
    /// Wait after a first failure; each further one doubles it...
    pub first_retry_ms: u64,
    /// ...up to this.
    pub last_retry_ms: u64,
    /// Sessions opened at once.
    pub max_sessions: usize,
}

impl Default for ScheduleSettings {
    fn default() -> Self {
        Self {
            interval_ms: 60_000,
            quiet_ms: 500,
            burst_ms: 2_000,
            first_retry_ms: 1_000,
            last_retry_ms: 300_000,
            max_sessions: 16,
        }
    }
}

/// What is to be done. Each is answered by one call that says what came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Connect: [`Schedule::dialled`].
    Dial(NodeId),
    /// Ask whether all is equal: [`Schedule::compared`] or [`Schedule::compare_failed`].
    Compare(NodeId),
    /// Run a session: [`Schedule::ended`].
    Session(NodeId, CollectionName),
}

/// How a session ended, as far as it matters here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// Both hold the same: this, if nothing was written meanwhile.
    Equal(Option<StateHash>),
    /// As equal as the grants or refused items let them become; and how many keys changed.
    AsFarAsMay {
        /// Keys changed at both ends.
        changed: u64,
    },
    /// At a limit: another one goes on.
    Partial,
    /// Another session of the pair does it.
    NotNeeded,
    /// The peer, or this node, has no room: after so many milliseconds.
    Busy(u64),
    /// It failed.
    Failed,
}

/// A session that ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionNote {
    /// With whom.
    pub peer: NodeId,
    /// Over what.
    pub collection: CollectionName,
    /// Whether an [`Action`] asked for it.
    pub asked_for: bool,
    /// How it ended.
    pub ended: Ended,
    /// How many keys it would have removed, if the brake of an end stopped it.
    pub braked: Option<u64>,
    /// In a word.
    pub outcome: String,
    /// Why, if it failed.
    pub cause: Option<String>,
}

#[derive(Clone, Debug, Default)]
struct Peer {
    /// Whether it is in the book.
    known: bool,
    /// Whether it has an address.
    dials: bool,
    connected: bool,
    dialling: bool,
    comparing: bool,
    due: Option<u64>,
    failures: u32,
    answered: Option<u64>,
    error: Option<String>,
    failed: u64,
}

/// What is known of a collection at a peer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pair {
    /// Since when both hold the same, and what, if that is known exactly.
    pub equal: Option<(u64, Option<StateHash>)>,
    /// How the last session ended, and when.
    pub last: Option<(String, u64)>,
    /// When both were last known to hold the same.
    pub last_equal: Option<u64>,
    /// Why the last attempt failed.
    pub failure: Option<String>,
    /// How many attempts have failed, since it is known.
    pub failed: u64,
    /// How many keys the last session would have removed when the brake stopped it; none once
    /// another one came to an end, or both hold the same.
    pub braked: Option<u64>,
    failures: u32,
    /// When both were last known to be equal, or as equal as may be.
    good: Option<u64>,
    running: bool,
    /// What was wanted while a session ran.
    again: bool,
    /// The states that were listed last, and those with which nothing is left to do.
    listed: Option<(StateHash, StateHash)>,
    settled: Option<(StateHash, StateHash)>,
}

/// What is known of a peer, for people.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PeerNote {
    /// Whether it is connected.
    pub connected: bool,
    /// When it answered last.
    pub answered: Option<u64>,
    /// What last went wrong.
    pub error: Option<String>,
    /// When it is turned to next.
    pub due: Option<u64>,
    /// How many attempts to turn to it have failed.
    pub failed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Burst {
    first: u64,
    last: u64,
    state: StateHash,
}

type PairKey = (NodeId, CollectionName);

/// The plan of a node.
#[derive(Clone, Debug)]
pub struct Schedule {
    settings: ScheduleSettings,
    random: u64,
    peers: BTreeMap<NodeId, Peer>,
    pairs: BTreeMap<PairKey, Pair>,
    /// Sessions that are due at some time.
    wanted: BTreeMap<PairKey, u64>,
    bursts: BTreeMap<CollectionName, Burst>,
    in_flight: usize,
}

impl Schedule {
    /// A plan without peers; the seed decides the jitter.
    #[must_use]
    pub const fn new(settings: ScheduleSettings, seed: u64) -> Self {
        Self {
            settings,
            random: seed,
            peers: BTreeMap::new(),
            pairs: BTreeMap::new(),
            wanted: BTreeMap::new(),
            bursts: BTreeMap::new(),
            in_flight: 0,
        }
    }

    /// Changes how often, how soon, how many: peers that would wait longer than the new interval
    /// are turned to within it.
    pub fn set_settings(&mut self, now: u64, settings: ScheduleSettings) {
        self.settings = settings;
        let latest = now + self.settings.interval_ms;
        for peer in self.peers.values_mut().filter(|peer| peer.failures == 0) {
            peer.due = peer.due.map(|due| due.min(latest));
        }
    }

    /// The peers of the book, and whether each has an address to dial. Others are forgotten,
    /// unless they are connected.
    pub fn set_peers(&mut self, now: u64, peers: &[(NodeId, bool)]) {
        let known: BTreeMap<NodeId, bool> = peers.iter().copied().collect();
        self.peers.retain(|id, peer| known.contains_key(id) || peer.connected);
        for (&id, &dials) in &known {
            let due = now + self.below(SOON_MS);
            let peer = self.peer(id);
            if dials && !peer.dials && !peer.connected {
                (peer.due, peer.failures) = (Some(due), 0);
            }
            (peer.known, peer.dials) = (true, dials);
        }
        for (id, peer) in &mut self.peers {
            peer.known = known.contains_key(id);
            peer.dials &= peer.known;
        }
        self.forget_strangers();
    }

    /// A peer is connected, whoever dialled.
    pub fn connected(&mut self, now: u64, id: NodeId) {
        let due = now + self.below(SOON_MS);
        let peer = self.peer(id);
        if !peer.connected {
            peer.due = Some(due);
        }
        (peer.connected, peer.failures, peer.error) = (true, 0, None);
    }

    /// No connection with the peer is left.
    pub fn disconnected(&mut self, now: u64, id: NodeId) {
        let retry = self.retry(1);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.connected = false;
        peer.due = peer.dials.then_some(now + retry);
        if !peer.known {
            self.peers.remove(&id);
            self.forget_strangers();
        }
    }

    /// The peer was dialled: if that did not succeed, why.
    pub fn dialled(&mut self, now: u64, id: NodeId, failure: Option<String>) {
        let retry = self.retry(1);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.dialling = false;
        match failure {
            Some(error) => self.failed(now, id, error),
            // of the connection itself nothing is known yet, or nothing is left
            None if !peer.connected => peer.due = Some(now + retry),
            None => {}
        }
    }

    /// The peer did not answer the question.
    pub fn compare_failed(&mut self, now: u64, id: NodeId, error: String) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.comparing = false;
        }
        self.failed(now, id, error);
    }

    fn failed(&mut self, now: u64, id: NodeId, error: String) {
        let failures = self.peers.get(&id).map_or(0, |peer| peer.failures).saturating_add(1);
        let retry = self.retry(failures);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        (peer.failures, peer.error) = (failures, Some(error));
        peer.failed += 1;
        peer.due = (peer.dials || peer.connected).then_some(now + retry);
    }

    /// The peer has answered: what is not equal gets a session, unless nothing is left to do.
    pub fn compared(&mut self, now: u64, id: NodeId, compared: &Compared) {
        let due = now + self.interval();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.comparing = false;
        (peer.failures, peer.error, peer.answered) = (0, None, Some(now));
        peer.due = Some(due);
        self.hold_same(now, id, &compared.equal);
        let shared: BTreeSet<&CollectionName> =
            compared.equal.iter().map(|(name, _)| name).collect();
        let others: BTreeSet<&CollectionName> =
            compared.unequal.iter().map(|one| &one.name).collect();
        let gone: Vec<PairKey> = self
            .of_peer(id)
            .filter(|(name, pair)| {
                !pair.running && !shared.contains(name) && !others.contains(name)
            })
            .map(|(name, _)| (id, name.clone()))
            .collect();
        for key in gone {
            self.pairs.remove(&key);
            self.wanted.remove(&key);
        }
        for one in &compared.unequal {
            let key = (id, one.name.clone());
            let pair = self.pairs.entry(key.clone()).or_default();
            pair.equal = None;
            pair.listed = Some((one.ours, one.theirs));
            if pair.settled != pair.listed {
                self.want(key, now);
            }
        }
    }

    /// The peer has asked, and all was the same: it need not be asked before the next round.
    pub fn found_same(&mut self, now: u64, id: NodeId, equal: &[(CollectionName, StateHash)]) {
        let due = now + self.interval();
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.answered = Some(now);
            if peer.connected && !peer.comparing {
                peer.due = Some(due);
            }
        }
        self.hold_same(now, id, equal);
    }

    fn hold_same(&mut self, now: u64, id: NodeId, equal: &[(CollectionName, StateHash)]) {
        for (name, state) in equal {
            let key = (id, name.clone());
            let pair = self.pairs.entry(key.clone()).or_default();
            let since = pair.equal.map_or(now, |(since, _)| since);
            (pair.equal, pair.good) = (Some((since, Some(*state))), Some(now));
            (pair.failure, pair.failures) = (None, 0);
            (pair.last_equal, pair.braked) = (Some(now), None);
            self.wanted.remove(&key);
        }
    }

    /// A collection has changed: this is its state now.
    pub fn changed(&mut self, now: u64, collection: &CollectionName, state: StateHash) {
        let burst = self.bursts.entry(collection.clone());
        let burst = burst.or_insert(Burst { first: now, last: now, state });
        (burst.last, burst.state) = (now, state);
    }

    /// There are other collections, or other grants, than before: all peers are asked soon.
    pub fn compare_soon(&mut self, now: u64) {
        for peer in self.peers.values_mut().filter(|peer| peer.connected) {
            peer.due = Some(peer.due.map_or(now, |due| due.min(now)));
        }
    }

    /// A session has ended.
    pub fn ended(&mut self, now: u64, note: SessionNote) {
        let SessionNote { peer, collection, asked_for, ended, braked, outcome, cause } = note;
        let key = (peer, collection);
        if asked_for {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        if !self.peers.contains_key(&peer) {
            self.pairs.remove(&key);
            return;
        }
        let pair = self.pairs.entry(key.clone()).or_default();
        if asked_for {
            pair.running = false;
        }
        if ended != Ended::NotNeeded {
            pair.last = Some((outcome, now));
        }
        if !matches!(ended, Ended::NotNeeded | Ended::Busy(_)) {
            pair.braked = braked;
        }
        let mut again = std::mem::take(&mut pair.again).then_some(now);
        // what the peer brought need not be fetched
        let brought = matches!(ended, Ended::Equal(Some(_)) | Ended::AsFarAsMay { changed: 0 });
        match ended {
            Ended::Equal(state) => {
                let since = pair.equal.map_or(now, |(since, _)| since);
                (pair.equal, pair.good) = (Some((since, state)), Some(now));
                (pair.failure, pair.failures, pair.last_equal) = (None, 0, Some(now));
            }
            Ended::AsFarAsMay { changed } => {
                (pair.failure, pair.failures, pair.good) = (cause, 0, Some(now));
                pair.settled = pair.listed.filter(|_| changed == 0);
            }
            Ended::Partial => again = Some(now),
            Ended::NotNeeded => pair.failure = None,
            Ended::Busy(wait) => {
                pair.failure = cause;
                if asked_for {
                    again = Some(now + wait + self.below(wait / 5));
                }
            }
            Ended::Failed => {
                pair.failure = cause;
                pair.failed += 1;
                if asked_for {
                    pair.failures = pair.failures.saturating_add(1);
                    let failures = pair.failures;
                    again = Some(now + self.retry(failures));
                }
            }
        }
        match again {
            Some(at) => self.want(key, at),
            None if brought => drop(self.wanted.remove(&key)),
            None => {}
        }
    }

    /// What is to be done now.
    #[must_use]
    pub fn poll(&mut self, now: u64) -> Vec<Action> {
        self.burst(now);
        let mut actions = Vec::new();
        let mut due: Vec<(Option<u64>, NodeId)> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.is_due(now))
            .map(|(id, peer)| (peer.answered, *id))
            .collect();
        due.sort_unstable();
        let dialling = self.peers.values().filter(|peer| peer.dialling).count();
        let mut dials = MOST_DIALS.saturating_sub(dialling);
        for (_, id) in due {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            if peer.connected {
                (peer.comparing, peer.due) = (true, None);
                actions.push(Action::Compare(id));
            } else if dials > 0 {
                dials -= 1;
                (peer.dialling, peer.due) = (true, None);
                actions.push(Action::Dial(id));
            }
        }
        self.begin_sessions(now, &mut actions);
        actions
    }

    fn begin_sessions(&mut self, now: u64, actions: &mut Vec<Action>) {
        if self.in_flight >= self.settings.max_sessions {
            return;
        }
        let connected = |id: &NodeId| self.peers.get(id).is_some_and(|peer| peer.connected);
        let mut ready: Vec<(Option<u64>, PairKey)> = self
            .wanted
            .iter()
            .filter(|((id, _), at)| **at <= now && connected(id))
            .map(|(key, _)| (self.pairs.get(key).and_then(|pair| pair.good), key.clone()))
            .collect();
        // never reconciled comes first, then what was so the longest ago
        ready.sort_unstable();
        for (_, key) in ready.into_iter().take(self.settings.max_sessions - self.in_flight) {
            self.wanted.remove(&key);
            let pair = self.pairs.entry(key.clone()).or_default();
            (pair.running, pair.again) = (true, false);
            self.in_flight += 1;
            actions.push(Action::Session(key.0, key.1));
        }
    }

    /// When [`Schedule::poll`] has something to do next, if nothing happens before.
    #[must_use]
    pub fn next_wake(&self) -> Option<u64> {
        let bursts = self.bursts.values().map(|burst| self.fires(burst));
        let peers = self.peers.values().filter(|peer| peer.is_due(u64::MAX));
        let peers = peers.filter_map(|peer| peer.due);
        let room = self.in_flight < self.settings.max_sessions;
        let connected = |id: &NodeId| self.peers.get(id).is_some_and(|peer| peer.connected);
        let wanted = self.wanted.iter().filter(|((id, _), _)| room && connected(id));
        bursts.chain(peers).chain(wanted.map(|(_, at)| *at)).min()
    }

    /// Whether the last attempt to turn to a peer failed.
    #[must_use]
    pub fn is_failing(&self, id: &NodeId) -> bool {
        self.peers.get(id).is_some_and(|peer| peer.failures > 0)
    }

    /// What is known of all peers.
    pub fn peers(&self) -> impl Iterator<Item = (&NodeId, PeerNote)> {
        self.peers.iter().map(|(id, peer)| {
            let Peer { connected, answered, error, due, failed, .. } = peer.clone();
            (id, PeerNote { connected, answered, error, due, failed })
        })
    }

    /// What is known of all collections at all peers, and when each has its next session.
    pub fn pairs(&self) -> impl Iterator<Item = (&NodeId, &CollectionName, &Pair, Option<u64>)> {
        self.pairs.iter().map(|(key, pair)| {
            let next = self.wanted.get(key).copied();
            let next = next.or_else(|| self.peers.get(&key.0).and_then(|peer| peer.due));
            (&key.0, &key.1, pair, next)
        })
    }

    /// Writes that have rested, or gone on long enough, bring sessions.
    fn burst(&mut self, now: u64) {
        let fired: Vec<CollectionName> = self
            .bursts
            .iter()
            .filter(|(_, burst)| self.fires(burst) <= now)
            .map(|(name, _)| name.clone())
            .collect();
        for name in fired {
            let Some(burst) = self.bursts.remove(&name) else { continue };
            let keys: Vec<PairKey> = self
                .pairs
                .iter()
                .filter(|((_, of), pair)| {
                    // what a session has just brought is equal there already
                    *of == name && pair.equal.and_then(|(_, state)| state) != Some(burst.state)
                })
                .map(|(key, _)| key.clone())
                .collect();
            for key in keys {
                if let Some(pair) = self.pairs.get_mut(&key) {
                    pair.equal = None;
                }
                self.want(key, now);
            }
        }
    }

    fn fires(&self, burst: &Burst) -> u64 {
        (burst.last + self.settings.quiet_ms).min(burst.first + self.settings.burst_ms)
    }

    /// A session at some time; one that waits for a failure to pass is not brought forward.
    fn want(&mut self, key: PairKey, at: u64) {
        let pair = self.pairs.entry(key.clone()).or_default();
        if pair.running {
            pair.again = true;
            return;
        }
        let patient = pair.failures > 0;
        let wanted = self.wanted.entry(key).or_insert(at);
        if !patient {
            *wanted = (*wanted).min(at);
        }
    }

    fn peer(&mut self, id: NodeId) -> &mut Peer {
        self.peers.entry(id).or_default()
    }

    fn of_peer(&self, id: NodeId) -> impl Iterator<Item = (&CollectionName, &Pair)> {
        let pairs = self.pairs.iter().filter(move |(key, _)| key.0 == id);
        pairs.map(|(key, pair)| (&key.1, pair))
    }

    fn forget_strangers(&mut self) {
        let peers = &self.peers;
        self.pairs.retain(|(id, _), _| peers.contains_key(id));
        self.wanted.retain(|(id, _), _| peers.contains_key(id));
    }

    /// The interval, a fifth shorter or longer.
    fn interval(&mut self) -> u64 {
        let interval = self.settings.interval_ms;
        interval - interval / 5 + self.below(interval / 5 * 2 + 1)
    }

    /// The wait after so many failures, a fifth shorter or longer.
    fn retry(&mut self, failures: u32) -> u64 {
        let doubled = 1u64.checked_shl(failures.saturating_sub(1)).unwrap_or(u64::MAX);
        let wait = self.settings.first_retry_ms.saturating_mul(doubled);
        let wait = wait.min(self.settings.last_retry_ms);
        wait - wait / 5 + self.below(wait / 5 * 2 + 1)
    }

    /// A random number below a bound (SplitMix64; Steele, Lea and Flood 2014): jitter needs no
    /// more.
    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}

impl Peer {
    fn is_due(&self, now: u64) -> bool {
        let possible = self.connected || self.dials && !self.dialling;
        !self.comparing && possible && self.due.is_some_and(|due| due <= now)
    }
}

#[cfg(test)]
mod tests;
