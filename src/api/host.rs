//! What the control API works on: a node that this process has open.
//!
//! ```
//! use selfsame::api::Host;
//! use selfsame::node::home::Home;
//!
//! let folder = tempfile::tempdir()?;
//! let id = Home::init(folder.path())?;
//! let home = Home::open(folder.path())?;
//! let host = Host::new(&home);
//! assert_eq!(host.info().id, id.to_string());
//! drop(host);
//! home.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::error::ApiError;
use super::types::{CollectionInfo, CollectionList, DamagedRow, NodeInfo, PolicyName, ScrubState};
use crate::net::{AllowList, Endpoint, Identity, Link, NetError};
use crate::node::Node;
use crate::node::config::Config;
use crate::node::daemon::{ConfigFiles, Daemon};
use crate::node::home::Home;
use crate::node::manager::SessionManager;
use crate::replica::Collection;
use crate::store::EmbeddedStore;
use crate::types::{CollectionName, NodeId};

/// Requests whose large bodies are in memory at once; more wait their turn.
const LARGE_BODIES: usize = 4;

/// What requests may take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiLimits {
    /// Connections served at once; more are told that the node is busy. Each may hold the parts
    /// of an answer that wait to be sent, up to two values.
    pub max_connections: usize,
    /// How long a request may take to say what it asks, and a connection to ask the next one.
    pub head_deadline: Duration,
    /// Longest pause between two parts of a body.
    pub body_pause: Duration,
    /// How long running requests have to end once the server is to stop.
    pub farewell: Duration,
}

impl Default for ApiLimits {
    fn default() -> Self {
        let pause = Duration::from_secs(10);
        Self {
            max_connections: 64,
            head_deadline: pause,
            body_pause: pause,
            farewell: Duration::from_secs(5),
        }
    }
}

/// A node that this process has open, as the control API sees it.
pub struct Host {
    node: Arc<Node<EmbeddedStore>>,
    folder: PathBuf,
    config: Config,
    limits: ApiLimits,
    stays: bool,
    daemon: Option<Supervised>,
    closing: watch::Sender<bool>,
    running: Mutex<HashMap<u64, watch::Sender<bool>>>,
    runs: AtomicU64,
    pub(super) large: Semaphore,
}

impl Host {
    /// The node of a data folder. Like all handles on it, it must be gone before the folder is
    /// free for others.
    #[must_use]
    pub fn new(home: &Home) -> Self {
        Self {
            node: Arc::new(home.node()),
            folder: home.folder.clone(),
            config: home.config.clone(),
            limits: ApiLimits::default(),
            stays: false,
            daemon: None,
            closing: watch::Sender::new(false),
            running: Mutex::default(),
            runs: AtomicU64::new(1),
            large: Semaphore::new(LARGE_BODIES),
        }
    }

    /// With other limits.
    #[must_use]
    pub fn with_limits(self, limits: ApiLimits) -> Self {
        Self { limits, ..self }
    }

    /// Of a process that stays, and so can tell of its sessions.
    #[must_use]
    pub fn staying(self) -> Self {
        Self { stays: true, ..self }
    }

    /// Of a daemon, with the files of its settings.
    #[must_use]
    pub fn of_daemon(self, daemon: Daemon<EmbeddedStore>, files: ConfigFiles) -> Self {
        Self { daemon: Some(Supervised { daemon, files }), ..self.staying() }
    }

    /// What requests may take.
    #[must_use]
    pub const fn limits(&self) -> &ApiLimits {
        &self.limits
    }

    /// The node, with the settings that hold now.
    #[must_use]
    pub fn node(&self) -> Arc<Node<EmbeddedStore>> {
        self.daemon.as_ref().map_or_else(|| Arc::clone(&self.node), |of| of.daemon.node())
    }

    /// Its data folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The settings with which it was opened.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// How long finding and greeting a peer may take, by the settings that hold now.
    pub(super) fn dial_deadline(&self) -> Duration {
        let of_daemon = self.daemon.as_ref().map(|of| of.daemon.settings().dial);
        of_daemon.unwrap_or_else(|| self.config.dial_deadline())
    }

    /// The connection that the daemon keeps with a peer, if it is one and has one.
    pub(super) fn kept(&self, peer: &NodeId) -> Option<Arc<Link>> {
        self.daemon.as_ref().and_then(|of| of.daemon.link(peer))
    }

    /// What answers here.
    #[must_use]
    pub fn info(&self) -> NodeInfo {
        let limits = self.node.replica.limits();
        NodeInfo {
            id: self.node.id().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            process: std::process::id(),
            clock: self.node.clock().to_string(),
            max_value_bytes: limits.max_value_bytes,
            max_session_entries: limits.max_session_entries as u64,
        }
    }

    /// All collections.
    ///
    /// # Errors
    /// The store failed.
    pub fn collections(&self) -> Result<CollectionList, ApiError> {
        let replica = &self.node.replica;
        let collections = replica.collections();
        let collections: Result<_, _> = collections.iter().map(|one| described(one)).collect();
        let damaged_rows = replica.damaged_rows().into_iter().map(|row| DamagedRow {
            collection: row.name.map(|name| name.to_string()),
            damage: row.what,
        });
        Ok(CollectionList { collections: collections?, damaged_rows: damaged_rows.collect() })
    }

    pub(super) fn collection(
        &self,
        name: &CollectionName,
    ) -> Result<Arc<Collection<EmbeddedStore>>, ApiError> {
        Ok(self.node.replica.collection(name)?)
    }

    /// Counts a synchronisation or comparison as running until the value is gone.
    pub(super) fn begin(self: &Arc<Self>) -> Running {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let (stop, stopped) = watch::channel(*self.closing.borrow());
        self.running().insert(number, stop);
        Running { host: Arc::clone(self), number, stopped }
    }

    /// Ends what runs until somebody goes away: sessions that were asked for, and watching.
    pub(super) fn close(&self) {
        self.closing.send_replace(true);
        for stop in self.running().values() {
            let _ = stop.send(true);
        }
    }

    /// Becomes true when the process is about to end.
    pub(super) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// The daemon, if this process is one.
    pub(super) fn daemon(&self) -> Result<&Supervised, ApiError> {
        self.daemon.as_ref().ok_or(ApiError::NoDaemon)
    }

    /// The sessions of the node, if it is there for others too.
    pub(super) fn sessions(&self) -> Result<&SessionManager, ApiError> {
        if self.stays { Ok(&self.node.sessions) } else { Err(ApiError::NoDaemon) }
    }

    /// Asks a synchronisation or comparison to end.
    pub(super) fn stop(&self, number: u64) -> Result<(), ApiError> {
        let running = self.running();
        let stop = running.get(&number).ok_or(ApiError::NoRun(number))?;
        // one that has just ended has nobody to tell
        let _ = stop.send(true);
        Ok(())
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<u64, watch::Sender<bool>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A daemon, and the files of its settings.
pub(super) struct Supervised {
    pub(super) daemon: Daemon<EmbeddedStore>,
    pub(super) files: ConfigFiles,
}

/// A socket to call from, that nobody may call.
pub(crate) fn caller(identity: &Arc<Identity>, config: &Config) -> Result<Endpoint, NetError> {
    let bind = |address: SocketAddr| {
        let nobody = Arc::new(AllowList::default());
        Endpoint::bind(Arc::clone(identity), address, nobody, config.net())
    };
    bind((Ipv6Addr::UNSPECIFIED, 0).into()).or_else(|_| bind((Ipv4Addr::UNSPECIFIED, 0).into()))
}

/// A synchronisation or comparison that was asked for here, while it goes on.
pub(super) struct Running {
    host: Arc<Host>,
    pub(super) number: u64,
    pub(super) stopped: watch::Receiver<bool>,
}

impl Running {
    pub(super) fn stop(&self) {
        let _ = self.host.stop(self.number);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.host.running().remove(&self.number);
    }
}

/// A collection as it is listed.
pub(super) fn described(
    collection: &Collection<EmbeddedStore>,
) -> Result<CollectionInfo, ApiError> {
    let spec = collection.spec();
    let mut info = CollectionInfo {
        collection: spec.name.to_string(),
        hash_algorithm: spec.algorithm.to_string(),
        policy: PolicyName::from(&spec.policy),
        damage: collection.damage(),
        resolver_fault: collection.resolver_fault(),
        entries: None,
        siblings: None,
        bytes: None,
        root: None,
        scrub: None,
    };
    if info.damage.is_none() {
        let totals = collection.totals()?;
        info.entries = Some(totals.entries);
        info.siblings = Some(totals.siblings);
        info.bytes = Some(totals.bytes);
        info.root = Some(collection.root()?.to_string());
        // a store that takes no writes any more has a root all the same
        let report = collection.scrub_report().ok();
        info.scrub = report.map(|report| ScrubState::new(&report, totals.entries, totals.bytes));
    }
    Ok(info)
}
