//! The loop of a daemon: asks its plan what to do, does it, and tells the plan what came of it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{interval, timeout};

use super::Shared;
use crate::net::{CloseCode, DialOptions, Link, SessionReport};
use crate::node::client::ClientError;
use crate::node::forest::Compared;
use crate::node::peers::{Grant, PeerBook};
use crate::node::schedule::{Action, Ended, SessionNote};
use crate::node::server::{Event, Listener, Server, accept_all};
use crate::node::status::named;
use crate::node::{Node, Unwatched};
use crate::session::{AbortCode, Failure, Mode, Outcome, SyncConfig};
use crate::store::Store;
use crate::types::{CollectionName, NodeId};

/// Time between two looks at what has changed here.
const TICK: Duration = Duration::from_millis(200);
/// For how long a peer that lets this node only read is believed to go on so.
const READ_ONLY_FOR: Duration = Duration::from_secs(600);

/// What happened, for the loop.
pub(super) enum Input {
    /// A connection is kept.
    Connected(NodeId),
    /// None is left.
    Disconnected(NodeId),
    /// A peer was dialled.
    Dialled(NodeId, Result<Box<Link>, String>),
    /// A peer was asked.
    Compared(NodeId, Result<Compared, String>),
    /// A peer asked, and all was the same.
    Same(NodeId, Compared),
    /// A session ended.
    Ended(Box<SessionNote>),
    /// The peer book has changed.
    Book(Arc<PeerBook>),
    /// Look what is to be done.
    Look,
}

/// Hears what the server has to tell. It holds no daemon, which would never end then.
pub(super) fn listener<S: Store>(shared: &Arc<Shared<S>>) -> Listener {
    let shared: Weak<Shared<S>> = Arc::downgrade(shared);
    Arc::new(move |event| {
        if let Some(shared) = shared.upgrade() {
            shared.hear(event);
        }
    })
}

/// Runs until the daemon is to stop, and then until all is ended.
pub(super) async fn run<S: Store>(
    shared: Arc<Shared<S>>,
    mut inputs: mpsc::UnboundedReceiver<Input>,
    listener: Listener,
) {
    let mut stop = shared.stop.subscribe();
    let mut tasks = JoinSet::new();
    {
        let (shared, listener) = (Arc::clone(&shared), Arc::clone(&listener));
        let (stop, farewell) = (stop.clone(), shared.settings().shutdown);
        tasks.spawn(async move {
            let current = shared.current.clone();
            accept_all(current, &shared.endpoint, stop, listener, farewell).await;
        });
    }
    tasks.spawn(Arc::clone(&shared).scrub_forever(stop.clone()));
    tasks.spawn(Arc::clone(&shared).warm_forever(stop.clone()));
    let (mut seen, mut losses) = (BTreeMap::new(), BTreeMap::new());
    block_in_place(|| shared.look_for_changes(&mut seen, true));
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let input = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            input = inputs.recv() => input,
            _ = ticks.tick() => {
                block_in_place(|| shared.look_for_changes(&mut seen, false));
                for name in shared.look_for_losses(&mut losses) {
                    tasks.spawn(Arc::clone(&shared).mend_everywhere(name));
                }
                shared.current.node().judge_clock();
                shared.tidy();
                None
            }
            Some(_) = tasks.join_next() => None,
        };
        let mut next = input;
        while let Some(input) = next {
            shared.take(input, &listener, &mut tasks);
            next = inputs.try_recv().ok();
        }
        let now = shared.now();
        let actions = shared.plan().poll(now);
        for action in actions {
            tasks.spawn(Arc::clone(&shared).perform(action));
        }
        shared.beat_ms.store(now, Ordering::Release);
    }
    let farewell = shared.settings().shutdown;
    let ended = timeout(farewell, async { while tasks.join_next().await.is_some() {} }).await;
    shared.in_time.store(ended.is_ok(), Ordering::Release);
    tasks.abort_all();
    shared.endpoint.close(CloseCode::ShuttingDown, "the node is shutting down").await;
    shared.ended.send_replace(true);
}

impl<S: Store> Shared<S> {
    fn hear(&self, event: Event) {
        match event {
            Event::Connected { peer, link, clock_ahead_ms } => {
                let serves = link.peer_greeting().serves;
                let address = link.connection().remote_address();
                tracing::info!(%peer, %address, serves, "connected");
                let drift = self.current.node().replica.limits().max_clock_drift_ms;
                if clock_ahead_ms.unsigned_abs() > drift {
                    tracing::warn!(
                        %peer, clock_ahead_ms,
                        "the peer's clock is further away than max_clock_drift_ms: set both clocks"
                    );
                }
                // a command that only dials answers nothing that is opened towards it
                if serves {
                    self.links.add(link, clock_ahead_ms);
                    self.tell(Input::Connected(peer));
                }
            }
            Event::Disconnected { peer, link } => {
                let reason = link.connection().close_reason().map(|error| error.to_string());
                tracing::info!(%peer, reason, "disconnected");
                if self.links.remove(&link) {
                    self.tell(Input::Disconnected(peer));
                }
            }
            Event::NotGreeted { peer, error } => tracing::warn!(%peer, %error, "not greeted"),
            Event::Session { peer, collection, report } => {
                self.tell(Input::Ended(Box::new(noted(peer, collection, &report, false))));
            }
            Event::Same { peer, collections } => {
                let compared = Compared { equal: collections, unequal: Vec::new() };
                self.tell(Input::Same(peer, compared));
            }
            Event::Refused { peer, code } => tracing::info!(%peer, reason = %code, "turned away"),
            Event::Paired { peer, .. } => {
                tracing::info!(peer = %peer.id, "paired: the node is in the peer book now");
                self.tell(Input::Book(self.current.node().access.book()));
            }
            Event::NotPaired { peer, address, error } => {
                tracing::warn!(%peer, %address, %error, "not paired");
            }
            Event::PeerBook { error: None } => {
                tracing::info!("the peer book has changed");
                self.tell(Input::Book(self.current.node().access.book()));
            }
            Event::PeerBook { error: Some(error) } => {
                tracing::error!(%error, "the peer book cannot be used; the one before holds on");
            }
        }
    }

    fn take(self: &Arc<Self>, input: Input, listener: &Listener, tasks: &mut JoinSet<()>) {
        let now = self.now();
        let mut plan = self.plan();
        match input {
            Input::Connected(peer) => plan.connected(now, peer),
            Input::Disconnected(peer) => plan.disconnected(now, peer),
            Input::Dialled(peer, Ok(link)) => {
                plan.dialled(now, peer, None);
                let current = self.current.clone();
                let (listener, stop) = (Arc::clone(listener), self.stop.subscribe());
                tasks.spawn(Server { current, listener, stop }.link(Arc::from(link)));
            }
            Input::Dialled(peer, Err(error)) => {
                // once is enough for whoever looks only now and then
                if plan.is_failing(&peer) {
                    tracing::debug!(%peer, error, "still not reached");
                } else {
                    tracing::warn!(%peer, error, "not reached: it is tried again and again");
                }
                plan.dialled(now, peer, Some(error));
            }
            Input::Compared(peer, Ok(compared)) => plan.compared(now, peer, &compared),
            Input::Compared(peer, Err(error)) => {
                tracing::debug!(%peer, error, "no answer");
                plan.compare_failed(now, peer, error);
            }
            Input::Same(peer, compared) => plan.found_same(now, peer, &compared.equal),
            Input::Ended(note) => plan.ended(now, *note),
            Input::Book(book) => {
                drop(plan);
                self.take_book(&book);
            }
            Input::Look => {}
        }
    }

    /// Tells the plan which collections have changed since the last look, or are new.
    fn look_for_changes(&self, seen: &mut BTreeMap<CollectionName, u64>, first: bool) {
        let (now, mut others) = (self.now(), false);
        for collection in self.current.node().replica.collections() {
            let (name, changes) = (collection.name(), collection.changes());
            match seen.get_mut(name) {
                Some(last) if *last == changes => {}
                Some(last) => {
                    *last = changes;
                    // a damaged one has no state, and no sessions
                    if let Ok(state) = collection.state_hash() {
                        self.plan().changed(now, name, state);
                    }
                }
                None => {
                    others = true;
                    seen.insert(name.clone(), changes);
                }
            }
        }
        if others && !first {
            self.plan().compare_soon(now);
        }
    }

    fn tidy(&self) {
        let running = self.sessions.running();
        self.links.tidy(|peer| {
            let peer = peer.to_string();
            running.iter().any(|session| session.peer == peer)
        });
    }

    async fn perform(self: Arc<Self>, action: Action) {
        let mut stop = self.stop.subscribe();
        let stopped = stop.wait_for(|stop| *stop);
        match action {
            Action::Dial(peer) => {
                let dialled = tokio::select! {
                    dialled = self.dial(peer) => dialled.map(Box::new),
                    _ = stopped => Err("the node stops".to_owned()),
                };
                self.tell(Input::Dialled(peer, dialled));
            }
            Action::Compare(peer) => {
                let compared = tokio::select! {
                    compared = self.compare(peer) => compared,
                    _ = stopped => Err("the node stops".to_owned()),
                };
                self.tell(Input::Compared(peer, compared));
            }
            // a session hears of the stop itself, and tells the peer
            Action::Session(peer, collection) => {
                let note = self.reconcile(peer, collection).await;
                self.tell(Input::Ended(Box::new(note)));
            }
        }
    }

    async fn dial(&self, peer: NodeId) -> Result<Link, String> {
        let node = self.current.node();
        let book = node.access.book();
        let entry = book.entry(&peer).ok_or("it is no longer in the peer book")?;
        let addresses: Vec<_> = entry.dialled().collect();
        let settings = self.settings();
        let options = DialOptions { keep_alive: Some(settings.keep_alive), ..settings.dial.into() };
        let dialled = node.connect_first_as(&self.endpoint, &addresses, options, true).await;
        dialled.map_err(|error| error.to_string())
    }

    async fn compare(&self, peer: NodeId) -> Result<Compared, String> {
        let kept = self.links.preferred(&peer).ok_or("it is not connected")?;
        let compared = self.current.node().compare_forest(&kept.link).await;
        if let Err(ClientError::Silent(_)) = &compared {
            // one that answers nothing is dialled anew
            kept.link.connection().close(CloseCode::TooSlow, "");
        }
        let compared = compared.map_err(|error| error.to_string())?;
        for (name, _) in &compared.equal {
            self.mend(&kept.link, name).await;
        }
        Ok(compared)
    }

    /// Runs sessions with a peer until the collection is the same, as far as the grants of both
    /// ends let it be.
    async fn reconcile(&self, peer: NodeId, name: CollectionName) -> SessionNote {
        let node = self.current.node();
        let done = self.synchronise(&node, peer, &name).await;
        match done {
            Ok(report) => noted(peer, name, &report, true),
            Err(Refusal { ended, cause }) => {
                let outcome = match ended {
                    Ended::NotNeeded => "duplicate",
                    Ended::Busy(_) => "busy",
                    _ => "failed",
                };
                let outcome = outcome.to_owned();
                SessionNote {
                    peer,
                    collection: name,
                    asked_for: true,
                    ended,
                    braked: None,
                    outcome,
                    cause: Some(cause),
                }
            }
        }
    }

    async fn synchronise(
        &self,
        node: &Node<S>,
        peer: NodeId,
        name: &CollectionName,
    ) -> Result<SessionReport, Refusal> {
        let kept = self.links.preferred(&peer).ok_or_else(|| Refusal::failed("not connected"))?;
        let collection =
            node.replica.collection(name).map_err(|error| Refusal::failed(&error.to_string()))?;
        let pair = (peer, name.clone());
        let mut mode = match node.access.grant(&peer, name) {
            Grant::Write if self.may_only_read(&pair) => Mode::Pull,
            Grant::Write => Mode::Both,
            Grant::Read => Mode::Push,
            Grant::None => return Err(Refusal::failed("the peer may not use the collection")),
        };
        if mode != Mode::Push {
            // a session recovers what its own peer cannot give back: so the others come first
            self.ask_others(&collection, &peer).await;
        }
        loop {
            let config = SyncConfig { mode, ..node.config.clone() };
            let (stop, link) = (self.stop.subscribe(), &kept.link);
            let done = node.synchronise_now(link, &collection, &config, stop, &Unwatched).await;
            let report = done.map_err(Refusal::from)?.last().clone();
            let reads = Outcome::Failed(Failure::Peer(AbortCode::ReadOnly));
            if report.outcome != reads {
                return Ok(report);
            }
            let mut read_only = self.read_only.lock().unwrap_or_else(PoisonError::into_inner);
            read_only.insert(pair.clone(), Instant::now());
            if mode != Mode::Both {
                return Ok(report);
            }
            mode = Mode::Pull;
        }
    }

    pub(super) fn is_read_only(&self, pair: &(NodeId, CollectionName)) -> bool {
        let read_only = self.read_only.lock().unwrap_or_else(PoisonError::into_inner);
        read_only.get(pair).is_some_and(|since| since.elapsed() < READ_ONLY_FOR)
    }

    fn may_only_read(&self, pair: &(NodeId, CollectionName)) -> bool {
        let mut read_only = self.read_only.lock().unwrap_or_else(PoisonError::into_inner);
        let known = read_only.get(pair).is_some_and(|since| since.elapsed() < READ_ONLY_FOR);
        if !known {
            read_only.remove(pair);
        }
        known
    }
}

/// Why a session did not begin.
struct Refusal {
    ended: Ended,
    cause: String,
}

impl Refusal {
    fn failed(cause: &str) -> Self {
        Self { ended: Ended::Failed, cause: cause.to_owned() }
    }
}

impl From<ClientError> for Refusal {
    fn from(error: ClientError) -> Self {
        let ended = match &error {
            ClientError::NoPlace(AbortCode::Duplicate) => Ended::NotNeeded,
            ClientError::NoPlace(AbortCode::Busy { retry_after_ms }) => {
                Ended::Busy(u64::from(*retry_after_ms))
            }
            _ => Ended::Failed,
        };
        Self { ended, cause: error.to_string() }
    }
}

fn noted(
    peer: NodeId,
    collection: CollectionName,
    report: &SessionReport,
    asked_for: bool,
) -> SessionNote {
    let changed = report.stats.here.changed() + report.stats.there.changed();
    let ended = match &report.outcome {
        Outcome::Complete { .. } => Ended::Equal(report.state),
        Outcome::Incomplete { .. } | Outcome::Pulled { .. } | Outcome::Pushed { .. } => {
            Ended::AsFarAsMay { changed }
        }
        Outcome::Compared { .. } => Ended::NotNeeded,
        Outcome::Partial => Ended::Partial,
        Outcome::Failed(failure) => match failure {
            Failure::Peer(AbortCode::Duplicate) => Ended::NotNeeded,
            Failure::Peer(AbortCode::Busy { retry_after_ms })
            | Failure::Ours(AbortCode::Busy { retry_after_ms }) => {
                Ended::Busy(u64::from(*retry_after_ms))
            }
            _ => Ended::Failed,
        },
        Outcome::Interrupted => Ended::Failed,
    };
    let (outcome, cause) = named(&report.outcome);
    let outcome = outcome.to_owned();
    let braked = match &report.outcome {
        Outcome::Failed(
            Failure::Ours(AbortCode::Brake(keys)) | Failure::Peer(AbortCode::Brake(keys)),
        ) => Some(*keys),
        _ => None,
    };
    SessionNote { peer, collection, asked_for, ended, braked, outcome, cause }
}
