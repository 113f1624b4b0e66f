//! All sessions of a node, whoever opened them: how many at once, how much memory, how long.
//!
//! Every session has a [`Place`] here before it begins. There is one place for each pair of peer
//! and collection; when both ends open a session at once, the one of the lesser node id goes on.
//! A session that is too slow or holds too much is told to end by its place, and why is kept.
//!
//! ```
//! use selfsame::net::Identity;
//! use selfsame::node::manager::{SessionLimits, SessionManager, SessionKey};
//! use selfsame::session::AbortCode;
//! use selfsame::types::CollectionName;
//!
//! let limits = SessionLimits { max_concurrent: 1, ..SessionLimits::default() };
//! let manager = SessionManager::new(limits);
//! let [me, berlin, oslo] = [1, 2, 3].map(|seed| Identity::from_secret(&[seed; 32]).node_id());
//! let key = |peer| SessionKey { me, peer, collection: CollectionName::new("c").expect("a name") };
//! let place = manager.admit(key(berlin), true)?;
//! assert_eq!(manager.admit(key(berlin), true).unwrap_err(), AbortCode::Duplicate);
//! assert!(matches!(manager.admit(key(oslo), false), Err(AbortCode::Busy { .. })));
//! drop(place);
//! assert!(manager.admit(key(oslo), false).is_ok());
//! # Ok::<(), AbortCode>(())
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::broadcast;

use super::clocks::Clocks;
use super::counts::TrustCounts;
use super::status::{RunningSession, SessionCounters, SessionEnd, SessionEvent, blamed, named};
use super::tally::SessionTally;
use crate::merkle::Contradiction;
use crate::net::SessionReport;
use crate::replica::KeptClone;
use crate::session::{AbortCode, Failure, Outcome, Phase, Session};
use crate::types::{CollectionName, NodeId};

/// Sessions that have ended and are remembered.
const REMEMBERED: usize = 100;
/// Events that wait for a slow listener; it misses the older ones beyond.
const WAITING_EVENTS: usize = 256;
/// Time between two reports of the progress of one session.
const BETWEEN_REPORTS: Duration = Duration::from_millis(250);
/// What a session takes before it has said anything.
const FIRST_BYTES: u64 = 1 << 20;
/// Bounds of the time after which a peer may try again.
const SOONEST_RETRY_MS: u64 = 200;
const LATEST_RETRY_MS: u64 = 10_000;
/// Sessions of one pair that may overlap: one that ends, and the next.
const OVERLAPPING: usize = 2;

/// What the sessions of a node may take.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SessionLimits {
    /// Most sessions at once. One peer has half of the places at most, so that none is shut out.
    pub max_concurrent: usize,
    /// Most bytes that all sessions may hold in memory together.
    pub max_memory_bytes: u64,
    /// Longest time that a session may take.
    pub session: Duration,
    /// Longest time that one phase of it may take.
    pub phase: Duration,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            max_concurrent: 32,
            max_memory_bytes: 1 << 30,
            session: Duration::from_secs(1_800),
            phase: Duration::from_secs(600),
        }
    }
}

/// Between whom a session is, and over what.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionKey {
    /// This node.
    pub me: NodeId,
    /// The other one.
    pub peer: NodeId,
    /// The collection.
    pub collection: CollectionName,
}

/// The sessions of a node. Clones are handles to the same ones.
#[derive(Clone, Debug)]
pub struct SessionManager(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    events: broadcast::Sender<SessionEvent>,
    clocks: Clocks,
}

#[derive(Debug)]
struct State {
    limits: SessionLimits,
    running: BTreeMap<u64, Running>,
    memory_bytes: u64,
    recent: VecDeque<SessionEnd>,
    counters: SessionCounters,
    tally: SessionTally,
    trust: TrustCounts,
    next: u64,
    /// How long sessions take, on the whole: what a peer that is turned away waits.
    usual_ms: u64,
}

#[derive(Debug)]
struct Running {
    key: SessionKey,
    started: Instant,
    /// Whether the peer has answered a session that was opened here.
    answered: bool,
    phase: Phase,
    phase_since: Instant,
    reported: Instant,
    /// Why it is to end.
    ended: Option<(AbortCode, String)>,
    shown: RunningSession,
}

impl Default for SessionManager {
    fn default() -> Self {
        Self::new(SessionLimits::default())
    }
}

impl SessionManager {
    /// For a node whose sessions may take so much.
    #[must_use]
    pub fn new(limits: SessionLimits) -> Self {
        let state = State {
            limits,
            running: BTreeMap::new(),
            memory_bytes: 0,
            recent: VecDeque::new(),
            counters: SessionCounters::default(),
            tally: SessionTally::default(),
            trust: TrustCounts::default(),
            next: 1,
            usual_ms: 0,
        };
        let events = broadcast::Sender::new(WAITING_EVENTS);
        Self(Arc::new(Shared { state: Mutex::new(state), events, clocks: Clocks::default() }))
    }

    /// Changes what sessions may take from now on. Running ones are not turned away for it.
    pub fn set_limits(&self, limits: SessionLimits) {
        self.lock().limits = limits;
    }

    /// What sessions may take.
    #[must_use]
    pub fn limits(&self) -> SessionLimits {
        self.lock().limits.clone()
    }

    /// A place for a session.
    ///
    /// # Errors
    /// [`AbortCode::Duplicate`]: one of the same pair runs; this is no failure, since it does
    /// what was wanted. [`AbortCode::Busy`]: there is no room now.
    pub fn admit(&self, key: SessionKey, opened_here: bool) -> Result<Place, AbortCode> {
        let mut state = self.lock();
        if let Err(code) = state.check(&key, opened_here) {
            match code {
                AbortCode::Duplicate => state.counters.duplicate += 1,
                _ if !opened_here => state.counters.turned_away += 1,
                _ => {}
            }
            return Err(code);
        }
        let number = state.next;
        state.next += 1;
        let counted = match opened_here {
            true => &mut state.counters.opened_here,
            false => &mut state.counters.opened_by_peers,
        };
        *counted += 1;
        let shown = RunningSession {
            session: number,
            peer: key.peer.to_string(),
            collection: key.collection.to_string(),
            opened_here,
            started_ms: now_ms(),
            phase: Phase::Hello.name().to_owned(),
            memory_bytes: FIRST_BYTES,
            ..RunningSession::default()
        };
        let now = Instant::now();
        state.memory_bytes += FIRST_BYTES;
        state.running.insert(
            number,
            Running {
                key,
                started: now,
                answered: false,
                phase: Phase::Hello,
                phase_since: now,
                reported: now,
                ended: None,
                shown: shown.clone(),
            },
        );
        drop(state);
        // nobody may be listening
        let _ = self.0.events.send(SessionEvent::Started(shown));
        Ok(Place { manager: self.clone(), number })
    }

    /// The sessions that run now.
    #[must_use]
    pub fn running(&self) -> Vec<RunningSession> {
        self.lock().running.values().map(|running| running.shown.clone()).collect()
    }

    /// The last sessions that have ended, the latest last: a hundred at most.
    #[must_use]
    pub fn recent(&self) -> Vec<SessionEnd> {
        self.lock().recent.iter().cloned().collect()
    }

    /// Sums since the start.
    #[must_use]
    pub fn counters(&self) -> SessionCounters {
        self.lock().counters
    }

    /// What sessions did since the start, by kind.
    #[must_use]
    pub fn tally(&self) -> SessionTally {
        self.lock().tally.clone()
    }

    /// What sessions came upon since the start that a person should look at.
    #[must_use]
    pub fn trust(&self) -> TrustCounts {
        self.lock().trust
    }

    /// What the peers' clocks read.
    #[must_use]
    pub fn clocks(&self) -> &Clocks {
        &self.0.clocks
    }

    /// What happens from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<SessionEvent> {
        self.0.events.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check(&self, key: &SessionKey, opened_here: bool) -> Result<(), AbortCode> {
        let same: Vec<_> = self.running.values().filter(|running| running.key == *key).collect();
        if opened_here && !same.is_empty() || same.len() >= OVERLAPPING {
            return Err(AbortCode::Duplicate);
        }
        // what the peer has answered or opened itself it has ended too, if it opens another one
        let crossed = |running: &&Running| running.shown.opened_here && !running.answered;
        if same.iter().any(crossed) && key.me < key.peer {
            return Err(AbortCode::Duplicate);
        }
        let of_peer = self.running.values().filter(|running| running.key.peer == key.peer);
        let full = self.running.len() >= self.limits.max_concurrent
            || of_peer.count() >= self.limits.max_concurrent.div_ceil(2)
            || self.memory_bytes.saturating_add(FIRST_BYTES) > self.limits.max_memory_bytes;
        if full { Err(self.busy()) } else { Ok(()) }
    }

    fn busy(&self) -> AbortCode {
        let retry_after_ms = self.usual_ms.clamp(SOONEST_RETRY_MS, LATEST_RETRY_MS) as u32;
        AbortCode::Busy { retry_after_ms }
    }

    fn end(&mut self, number: u64, end: impl FnOnce(&Running) -> SessionEnd) -> Option<SessionEnd> {
        let running = self.running.remove(&number)?;
        self.memory_bytes = self.memory_bytes.saturating_sub(running.shown.memory_bytes);
        let end = end(&running);
        self.tally.count_end(&end);
        self.counters.bytes_sent += end.bytes_sent;
        self.counters.bytes_received += end.bytes_received;
        self.usual_ms = (self.usual_ms * 7 + end.elapsed_ms) / 8;
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(end.clone());
        Some(end)
    }

    fn count(&mut self, outcome: &Outcome, cut: Option<&AbortCode>) {
        let counters = &mut self.counters;
        match cut {
            Some(AbortCode::Deadline) => counters.too_slow += 1,
            Some(AbortCode::Busy { .. }) => counters.too_large += 1,
            _ => {}
        }
        let counter = match outcome {
            Outcome::Complete { .. } | Outcome::Incomplete { .. } => &mut counters.complete,
            Outcome::Pulled { .. } | Outcome::Pushed { .. } | Outcome::Compared { .. } => {
                &mut counters.one_way
            }
            Outcome::Partial => &mut counters.partial,
            Outcome::Interrupted => &mut counters.interrupted,
            Outcome::Failed(failure) => {
                match failure {
                    Failure::Ours(AbortCode::Deadline | AbortCode::TooSlow) if cut.is_none() => {
                        counters.too_slow += 1;
                    }
                    Failure::Ours(AbortCode::Limit(_)) => counters.too_large += 1,
                    _ => {}
                }
                match failure {
                    Failure::Peer(AbortCode::Duplicate) => &mut counters.duplicate,
                    Failure::Peer(AbortCode::Busy { .. }) => &mut counters.peer_busy,
                    _ => &mut counters.failed,
                }
            }
        };
        *counter += 1;
    }
}

/// The place of one session; free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    manager: SessionManager,
    number: u64,
}

impl Place {
    /// Takes note of how far the session is; to be called now and then.
    pub fn progress(&self, session: &Session) {
        let mut state = self.manager.lock();
        let most = state.limits.max_memory_bytes;
        let busy = state.busy();
        let before = state.memory_bytes;
        let Some(running) = state.running.get_mut(&self.number) else { return };
        running.answered |= session.id().is_some();
        if running.phase != session.phase() {
            (running.phase, running.phase_since) = (session.phase(), Instant::now());
        }
        let held = session.memory_bytes();
        let total = before.saturating_sub(running.shown.memory_bytes).saturating_add(held);
        if total > most && total > before && running.ended.is_none() {
            let cause = format!("all sessions together would hold more than {most} bytes");
            running.ended = Some((busy, cause));
        }
        let shown = &mut running.shown;
        shown.memory_bytes = held;
        (shown.bytes_sent, shown.bytes_received) = session.stats().bytes();
        shown.keys_found = session.stats().phases.values().map(|phase| phase.keys_found).sum();
        let report = running.reported.elapsed() >= BETWEEN_REPORTS;
        if report {
            shown.phase = running.phase.name().to_owned();
            running.reported = Instant::now();
        }
        let event = report.then(|| SessionEvent::Progress(running.shown.clone()));
        state.memory_bytes = total;
        drop(state);
        if let Some(event) = event {
            let _ = self.manager.0.events.send(event);
        }
    }

    /// Whether the session may go on.
    ///
    /// # Errors
    /// What the peer is to be told if not; the cause is kept for this node's own reports.
    pub fn permit(&self) -> Result<(), AbortCode> {
        let mut state = self.manager.lock();
        let (session, phase) = (state.limits.session, state.limits.phase);
        let Some(running) = state.running.get_mut(&self.number) else { return Ok(()) };
        if let Some((code, _)) = &running.ended {
            return Err(*code);
        }
        let cause = if running.started.elapsed() > session {
            format!("it took longer than {} s (session_ms)", session.as_secs_f64())
        } else if running.phase_since.elapsed() > phase {
            let seconds = phase.as_secs_f64();
            format!("its phase {} took longer than {seconds} s (phase_ms)", running.phase)
        } else {
            return Ok(());
        };
        running.ended = Some((AbortCode::Deadline, cause));
        Err(AbortCode::Deadline)
    }

    /// The session has ended.
    pub fn ended(self, report: &SessionReport) -> Option<SessionEnd> {
        let (outcome, why) = named(&report.outcome);
        let mut state = self.manager.lock();
        let cut = state.running.get(&self.number).and_then(|running| running.ended.clone());
        state.count(&report.outcome, cut.as_ref().map(|(code, _)| code));
        state.tally.count_refused(&report.outcome);
        state.trust.add(report);
        let (bytes_sent, bytes_received) = report.stats.bytes();
        let end = state.end(self.number, |running| SessionEnd {
            elapsed_ms: report.elapsed.as_millis() as u64,
            outcome: outcome.to_owned(),
            cause: cut.map(|(_, cause)| cause).or(why),
            blame: blamed(&report.outcome).map(str::to_owned),
            bytes_sent,
            bytes_received,
            changed_here: report.stats.here.changed(),
            changed_there: report.stats.there.changed(),
            memory_bytes: report.stats.memory_bytes,
            reports: report.stats.reports,
            ..ending(running)
        });
        drop(state);
        if let (Some(end), Some(Err(error))) = (&end, &report.kept) {
            tracing::error!(
                peer = end.peer,
                collection = end.collection,
                error,
                "the certificate of this session could not be kept"
            );
        }
        for contradiction in &report.contradictions {
            accuse(contradiction);
        }
        if let Some(end) = &end {
            report.clones.iter().for_each(|kept| warn_of(kept, &end.collection));
        }
        self.tell(end)
    }

    /// The session could not begin.
    pub fn failed(self, cause: &str) -> Option<SessionEnd> {
        self.not_begun(cause)
    }

    fn not_begun(&self, cause: &str) -> Option<SessionEnd> {
        let mut state = self.manager.lock();
        let end = state.end(self.number, |running| SessionEnd {
            outcome: "failed".to_owned(),
            cause: Some(cause.to_owned()),
            ..ending(running)
        });
        if end.is_some() {
            state.counters.failed += 1;
        }
        drop(state);
        self.tell(end)
    }

    fn tell(&self, end: Option<SessionEnd>) -> Option<SessionEnd> {
        if let Some(end) = &end {
            log(end);
            let _ = self.manager.0.events.send(SessionEvent::Ended(end.clone()));
        }
        end
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.not_begun("it was dropped before its end");
    }
}

/// Says that a peer has contradicted itself.
pub(super) fn accuse(contradiction: &Contradiction) {
    let [first, second] = contradiction.statements().map(|statement| statement.fields());
    tracing::error!(
        peer = %contradiction.node(),
        collection = %first.log().name,
        log = %first.log().id,
        size = first.size(),
        other_size = second.size(),
        "the peer has signed contradictory heads of one log"
    );
}

/// Says that a writer has two users.
fn warn_of(kept: &KeptClone, collection: &str) {
    let KeptClone { peer, number, aside, left_out, not_before, found, .. } = kept;
    let writer = format!("{:016x}", found.mark.writer.get());
    let sign = found.sign.word();
    if found.ours {
        tracing::error!(
            %peer, collection, writer, sign, number, aside, left_out, not_before,
            "another copy of this node writes: end one of them, and see selfsame clones"
        );
    } else {
        tracing::error!(
            %peer, collection, writer, sign, number, aside, left_out, not_before,
            "two copies of the peer write: end one of them, and see selfsame clones"
        );
    }
}

/// A line for people who read logs.
fn log(end: &SessionEnd) {
    let SessionEnd { collection, outcome, cause, blame, bytes_sent, bytes_received, .. } = end;
    tracing::info!(
        session = end.session,
        peer = %end.peer,
        collection,
        opened_here = end.opened_here,
        outcome,
        cause,
        blame,
        changed_here = end.changed_here,
        changed_there = end.changed_there,
        concurrent_updates = end.reports.concurrent_updates,
        deleted_remotely = end.reports.deleted_remotely,
        violations = end.reports.violations,
        bytes_sent,
        bytes_received,
        elapsed_ms = end.elapsed_ms,
        "session"
    );
}

fn ending(running: &Running) -> SessionEnd {
    let RunningSession { session, peer, collection, opened_here, started_ms, .. } =
        running.shown.clone();
    SessionEnd {
        session,
        peer,
        collection,
        opened_here,
        started_ms,
        elapsed_ms: running.started.elapsed().as_millis() as u64,
        ..SessionEnd::default()
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn id(byte: u8) -> NodeId {
        NodeId([byte; 32])
    }

    fn key(me: u8, peer: u8, name: &str) -> SessionKey {
        SessionKey { me: id(me), peer: id(peer), collection: CollectionName::new(name).unwrap() }
    }

    fn manager(max_concurrent: usize) -> SessionManager {
        SessionManager::new(SessionLimits { max_concurrent, ..SessionLimits::default() })
    }

    #[test]
    fn of_two_opened_at_once_the_lesser_ids_goes_on_at_both_ends() {
        let (lesser, greater) = (manager(8), manager(8));
        let _of_lesser = lesser.admit(key(1, 2, "c"), true).unwrap();
        let _of_greater = greater.admit(key(2, 1, "c"), true).unwrap();
        assert_eq!(lesser.admit(key(1, 2, "c"), false).unwrap_err(), AbortCode::Duplicate);
        let _served = greater.admit(key(2, 1, "c"), false).unwrap();
        assert_eq!(greater.admit(key(2, 1, "c"), false).unwrap_err(), AbortCode::Duplicate);
        assert_eq!(lesser.counters().duplicate, 1);
        assert!(lesser.admit(key(1, 2, "other"), false).is_ok());
    }

    #[test]
    fn one_peer_takes_no_more_than_half_of_the_places() {
        let manager = manager(4);
        let places: Vec<_> =
            ["a", "b"].map(|name| manager.admit(key(1, 2, name), false).unwrap()).into();
        let refused = manager.admit(key(1, 2, "c"), false).unwrap_err();
        assert!(matches!(refused, AbortCode::Busy { retry_after_ms: 200.. }), "{refused}");
        let _other = manager.admit(key(1, 3, "c"), false).unwrap();
        assert_eq!(manager.running().len(), 3);
        drop(places);
        assert_eq!(manager.running().len(), 1);
        assert_eq!(manager.counters().failed, 2, "what never ended failed");
        assert_eq!(manager.counters().turned_away, 1);
    }

    #[test]
    fn no_session_is_admitted_when_memory_is_short() {
        let limits = SessionLimits { max_memory_bytes: 2 * FIRST_BYTES, ..Default::default() };
        let manager = SessionManager::new(limits);
        let _places = ["a", "b"].map(|name| manager.admit(key(1, 2, name), true).unwrap());
        assert!(matches!(manager.admit(key(1, 3, "c"), true), Err(AbortCode::Busy { .. })));
    }

    #[test]
    fn a_session_that_takes_too_long_is_told_so_and_the_cause_is_kept() {
        let limits = SessionLimits { session: Duration::ZERO, ..SessionLimits::default() };
        let manager = SessionManager::new(limits);
        let mut events = manager.events();
        let place = manager.admit(key(1, 2, "c"), false).unwrap();
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(place.permit(), Err(AbortCode::Deadline));
        let report = SessionReport {
            kept: None,
            contradictions: Vec::new(),
            clones: Vec::new(),
            outcome: Outcome::Failed(Failure::Ours(AbortCode::Deadline)),
            stats: Default::default(),
            totals: Default::default(),
            state: None,
            peer_clock: None,
            reports: Vec::new(),
            elapsed: Duration::from_millis(1),
        };
        let end = place.ended(&report).unwrap();
        assert!(end.cause.as_deref().unwrap().contains("session_ms"), "{end:?}");
        assert_eq!((manager.counters().too_slow, manager.counters().failed), (1, 1));
        assert_eq!(manager.recent(), std::slice::from_ref(&end));
        assert!(matches!(events.try_recv(), Ok(SessionEvent::Started(_))));
        assert_eq!(events.try_recv().unwrap(), SessionEvent::Ended(end));
    }

    #[test]
    fn a_hundred_ends_are_remembered() {
        let manager = manager(1);
        for _ in 0..130 {
            drop(manager.admit(key(1, 2, "c"), true).unwrap());
        }
        let recent = manager.recent();
        assert_eq!((recent.len(), recent[0].session), (100, 31));
    }
}
