//! A node that keeps itself the same as its peers: server, schedule and sessions together.
//!
//! A [`Daemon`] accepts who may connect, dials the peers of its book that have an address, keeps
//! the connections, and reconciles every collection that both share: each interval, and soon
//! after writes. What it does can be asked ([`Daemon::status`]) and watched
//! ([`Daemon::events`]).
//!
//! ```
//! use selfsame::net::Endpoint;
//! use selfsame::node::Node;
//! use selfsame::node::daemon::{Daemon, DaemonSettings};
//! use selfsame::store::Store;
//!
//! /// Serves until somebody presses Ctrl-C.
//! async fn run<S: Store>(node: Node<S>, endpoint: Endpoint) {
//!     let daemon = Daemon::start(node, endpoint, DaemonSettings::default());
//!     let _ = tokio::signal::ctrl_c().await;
//!     println!("{} sessions ran", daemon.status().sessions.complete);
//!     daemon.stop().await;
//! }
//! ```

mod files;
mod report;
mod run;
mod scrub;
mod warm;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, mpsc, watch};

pub use self::files::{ConfigFiles, Reloaded};
use self::run::{Input, listener, run};
use super::Node;
use super::config::Config;
use super::links::Links;
use super::manager::{SessionLimits, SessionManager};
use super::peers::PeerBook;
use super::schedule::{Schedule, ScheduleSettings};
use super::scrub::ScrubSettings;
use super::server::Current;
use super::status::{SessionEnd, SessionEvent, Status};
use crate::net::{Endpoint, Link};
use crate::session::SyncConfig;
use crate::store::Store;
use crate::types::{CollectionName, NodeId};

/// How a daemon behaves; all of it can be changed while it runs.
#[derive(Clone, PartialEq, Debug)]
pub struct DaemonSettings {
    /// When it turns to which peer.
    pub schedule: ScheduleSettings,
    /// What its sessions may take.
    pub sessions: SessionLimits,
    /// How they behave.
    pub sync: SyncConfig,
    /// Longest wait for a peer's next answer.
    pub patience: Duration,
    /// How long finding and greeting a peer may take.
    pub dial: Duration,
    /// How often a connection that it dialled is kept alive.
    pub keep_alive: Duration,
    /// How long running sessions have to end when it is to stop.
    pub shutdown: Duration,
    /// How often all that is stored is read again.
    pub scrub: ScrubSettings,
}

impl Default for DaemonSettings {
    fn default() -> Self {
        Self::from(&Config::default())
    }
}

impl From<&Config> for DaemonSettings {
    fn from(config: &Config) -> Self {
        Self {
            schedule: config.schedule(),
            sessions: config.sessions(),
            sync: config.sync(),
            patience: config.patience(),
            dial: config.dial_deadline(),
            keep_alive: config.net().idle_timeout / 3,
            shutdown: config.shutdown(),
            scrub: config.scrub(),
        }
    }
}

/// A running node. Clones are handles to the same one; it runs until it is told to stop.
pub struct Daemon<S: Store>(Arc<Shared<S>>);

impl<S: Store> Clone for Daemon<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// What the parts of a daemon share.
struct Shared<S: Store> {
    current: Current<S>,
    endpoint: Endpoint,
    sessions: SessionManager,
    links: Links,
    plan: Mutex<Schedule>,
    settings: Mutex<DaemonSettings>,
    /// Pairs whose peer lets this node only read, by what it said last.
    read_only: Mutex<BTreeMap<(NodeId, CollectionName), Instant>>,
    inputs: mpsc::UnboundedSender<Input>,
    stop: watch::Sender<bool>,
    ended: watch::Sender<bool>,
    in_time: AtomicBool,
    started: Instant,
    started_ms: u64,
    /// When the loop last turned, in milliseconds since the start.
    beat_ms: AtomicU64,
}

impl<S: Store> Shared<S> {
    fn plan(&self) -> MutexGuard<'_, Schedule> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settings(&self) -> DaemonSettings {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Milliseconds since the start, by a clock that nobody sets.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn tell(&self, input: Input) {
        // nobody hears it once the daemon has stopped
        let _ = self.inputs.send(input);
    }

    /// Brings the plan in line with the peer book.
    fn take_book(&self, book: &PeerBook) {
        let me = self.endpoint.node_id();
        let peers: Vec<(NodeId, bool)> = book
            .peers
            .iter()
            .filter(|peer| peer.id != me)
            .map(|peer| (peer.id, !peer.addresses.is_empty()))
            .collect();
        self.read_only.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let mut plan = self.plan();
        plan.set_peers(self.now(), &peers);
        plan.compare_soon(self.now());
    }
}

impl<S: Store> Daemon<S> {
    /// Begins to serve and to reconcile, on a multi-threaded tokio runtime.
    #[must_use]
    pub fn start(node: Node<S>, endpoint: Endpoint, settings: DaemonSettings) -> Self {
        let node = Node { config: settings.sync.clone(), patience: settings.patience, ..node };
        let sessions = node.sessions.clone();
        sessions.set_limits(settings.sessions.clone());
        let (inputs, received) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            links: Links::new(node.id()),
            plan: Mutex::new(Schedule::new(settings.schedule.clone(), rand::random())),
            settings: Mutex::new(settings),
            read_only: Mutex::default(),
            started_ms: Node::<S>::now_ms(),
            current: Current::from(Arc::new(node)),
            endpoint,
            sessions,
            inputs,
            stop: watch::Sender::new(false),
            ended: watch::Sender::new(false),
            in_time: AtomicBool::new(true),
            started: Instant::now(),
            beat_ms: AtomicU64::new(0),
        });
        let book = shared.current.node().access.book();
        shared.take_book(&book);
        tokio::spawn(run(Arc::clone(&shared), received, listener(&shared)));
        Self(shared)
    }

    /// The node as it is now.
    #[must_use]
    pub fn node(&self) -> Arc<Node<S>> {
        self.0.current.node()
    }

    /// Its socket.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// The settings that it goes by.
    #[must_use]
    pub fn settings(&self) -> DaemonSettings {
        self.0.settings()
    }

    /// The connection that it keeps with a peer, whoever dialled: sessions may be opened on it.
    #[must_use]
    pub fn link(&self, peer: &NodeId) -> Option<Arc<Link>> {
        self.0.links.preferred(peer).map(|kept| kept.link)
    }

    /// What it knows of itself, its peers and its collections.
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.report()
    }

    /// The last sessions that have ended, the latest last.
    #[must_use]
    pub fn recent(&self) -> Vec<SessionEnd> {
        self.0.sessions.recent()
    }

    /// What happens to sessions from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<SessionEvent> {
        self.0.sessions.events()
    }

    /// Goes by other settings from now on: sessions that run go on by the old ones.
    pub fn set_settings(&self, settings: DaemonSettings) {
        let shared = &self.0;
        let node = shared.current.node();
        shared.current.replace(Node {
            config: settings.sync.clone(),
            patience: settings.patience,
            ..Node::clone(&node)
        });
        shared.sessions.set_limits(settings.sessions.clone());
        shared.plan().set_settings(shared.now(), settings.schedule.clone());
        *shared.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
        shared.tell(Input::Look);
    }

    /// Goes by another config and peer book, as far as it can while it runs: what it cannot
    /// change, such as where it listens, is left to the caller
    /// ([`Config::needs_restart`] says what that is).
    ///
    /// Peers that are no longer known are disconnected, sessions without a grant end.
    pub fn reload(
        &self,
        config: &Config,
        book: PeerBook,
        allowed: impl IntoIterator<Item = NodeId>,
    ) {
        let access = &self.0.current.node().access;
        access.set_allowed(config.allow.iter().copied().chain(allowed));
        self.0.take_book(&book);
        access.set_book(book);
        self.set_settings(DaemonSettings::from(config));
    }

    /// Reconciles with all connected peers as soon as may be.
    pub fn compare_soon(&self) {
        self.0.plan().compare_soon(self.0.now());
        self.0.tell(Input::Look);
    }

    /// Whether its loop has turned within so long: if not, it hangs.
    #[must_use]
    pub fn is_turning(&self, within: Duration) -> bool {
        let silent = self.0.now().saturating_sub(self.0.beat_ms.load(Ordering::Acquire));
        u128::from(silent) <= within.as_millis()
    }

    /// Ends running sessions (what they applied stays), says goodbye to the peers and waits until
    /// all is done, at most as long as [`DaemonSettings::shutdown`] says and a second. Whether
    /// every session ended in that time.
    pub async fn stop(&self) -> bool {
        self.0.stop.send_replace(true);
        self.ended().await;
        self.0.in_time.load(Ordering::Acquire)
    }

    /// Waits until it has stopped.
    pub async fn ended(&self) {
        // the sender lives as long as `self` does
        let _ = self.0.ended.subscribe().wait_for(|ended| *ended).await;
    }
}
