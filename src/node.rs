//! A node: a replica with an identity, which serves and starts sessions.
//!
//! [`Node`] is the common part; [`access`] says who may do what at it, from the book of its
//! [`peers`]; [`server`] answers peers, [`client`] turns to them, [`query`]
//! holds what is asked outside sessions. Where a node lives: [`home`]; its settings: [`config`].
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use selfsame::net::{Endpoint, Identity, NetLimits, PeerAddress};
//! use selfsame::node::access::Access;
//! use selfsame::node::manager::SessionManager;
//! use selfsame::node::{Node, Unwatched, server};
//! use selfsame::replica::{Replica, ReplicaOptions};
//! use selfsame::session::{Outcome, SyncConfig};
//! use selfsame::store::MemoryStore;
//! use selfsame::types::{CollectionName, CollectionSpec, Key, Policy};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let node = || -> Result<_, Box<dyn std::error::Error>> {
//!     let random = Box::new(rand::random);
//!     let replica = Replica::open(MemoryStore::default(), ReplicaOptions::default(), random)?;
//!     let collection = replica.create_collection(CollectionSpec {
//!         name: CollectionName::new("players")?,
//!         algorithm: Default::default(),
//!         policy: Policy::Lww,
//!     })?;
//!     let node = Node {
//!         replica: Arc::new(replica),
//!         identity: Arc::new(Identity::generate()?),
//!         config: SyncConfig::default(),
//!         patience: Duration::from_secs(10),
//!         access: Access::default(),
//!         sessions: SessionManager::default(),
//!     };
//!     Ok((Arc::new(node), collection))
//! };
//! let ((home, at_home), (away, on_the_way)) = (node()?, node()?);
//! at_home.put(&Key::new("ada")?, b"level 3".to_vec(), Node::<MemoryStore>::now_ms())?;
//!
//! home.access.allow(away.id());
//! away.access.allow(home.id());
//! let bind = |node: &Node<MemoryStore>| {
//!     let (any_port, admits) = ("127.0.0.1:0".parse(), Arc::new(node.access.clone()));
//!     let any_port = any_port.expect("an address");
//!     Endpoint::bind(node.identity.clone(), any_port, admits, NetLimits::default())
//! };
//! let (to_home, from_away) = (bind(&home)?, bind(&away)?);
//! let address = PeerAddress::new(home.id(), to_home.local_address());
//! let (stop, stopped) = tokio::sync::watch::channel(false);
//! let serving = tokio::spawn(server::serve(home, to_home, stopped.clone(), Arc::new(|_| {})));
//!
//! let link = away.connect(&from_away, &address, Duration::from_secs(10)).await?;
//! let config = SyncConfig::default();
//! let done = away.synchronise(&link, &on_the_way, &config, stopped, &Unwatched).await?;
//! assert!(matches!(done.last().outcome, Outcome::Complete { .. }));
//! assert_eq!(on_the_way.root()?, at_home.root()?);
//! stop.send(true)?;
//! serving.await?;
//! # Ok(())
//! # }
//! ```

pub mod access;
pub mod choice;
pub mod client;
pub mod clocks;
pub mod config;
pub mod counts;
pub mod daemon;
pub mod doctor;
pub mod facts;
pub(crate) mod figures;
pub mod forest;
pub mod home;
pub mod links;
pub mod manager;
pub mod pairing;
pub mod peers;
pub mod query;
pub mod schedule;
pub mod scrub;
pub mod server;
pub mod status;
pub mod tally;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use self::access::Access;
use self::counts::TrustCounts;
use self::forest::offers::Offers;
use self::manager::{SessionKey, SessionManager};
use crate::clock::{ClockAhead, Stamp};
use crate::net::{Identity, PROTOCOL_VERSION};
use crate::replica::Replica;
use crate::session::message::{Greeting, WireSpec};
use crate::session::{Session, Setup, SyncConfig};
use crate::store::Store;
use crate::types::{CollectionName, NodeId};

/// What a node needs to speak with others.
pub struct Node<S: Store> {
    /// Its collections.
    pub replica: Arc<Replica<S>>,
    /// Its key.
    pub identity: Arc<Identity>,
    /// How its sessions behave, unless one is told otherwise.
    pub config: SyncConfig,
    /// Longest time that a peer may take over a greeting, a hello or the next frame.
    pub patience: Duration,
    /// Who may do what here.
    pub access: Access,
    /// Its sessions with all peers.
    pub sessions: SessionManager,
}

impl<S: Store> Clone for Node<S> {
    /// A handle to the same replica, identity and access.
    fn clone(&self) -> Self {
        Self {
            replica: Arc::clone(&self.replica),
            identity: Arc::clone(&self.identity),
            config: self.config.clone(),
            patience: self.patience,
            access: self.access.clone(),
            sessions: self.sessions.clone(),
        }
    }
}

impl<S: Store> Node<S> {
    /// Wall clock in milliseconds since 1970.
    #[must_use]
    pub fn now_ms() -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// This node's id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.identity.node_id()
    }

    /// The node's hybrid clock as it reads now.
    #[must_use]
    pub fn clock(&self) -> Stamp {
        self.replica.clock().max(Stamp::new(Self::now_ms(), 0))
    }

    /// What this node has counted of brakes, clones and clocks since the start.
    #[must_use]
    pub fn counts(&self) -> TrustCounts {
        TrustCounts { drift_puts_refused: self.replica.puts_refused(), ..self.sessions.trust() }
    }

    /// Takes note of what a peer's clock reads.
    pub fn hear_clock(&self, peer: NodeId, clock: Stamp) {
        self.sessions.clocks().hear(peer, clock.millis(), Instant::now());
        self.judge_clock();
    }

    /// Whether most peers find this node's clock ahead: then local puts are refused until they do
    /// no more. To be asked now and then, since the clock may be set right at any time.
    pub fn judge_clock(&self) -> Option<ClockAhead> {
        let drift = self.replica.limits().max_clock_drift_ms;
        let ahead = self.sessions.clocks().verdict(Self::now_ms(), Instant::now(), drift);
        let before = self.replica.set_clock_ahead(ahead.clone());
        match (&before, &ahead) {
            (None, Some(ahead)) => tracing::error!(
                ahead_ms = ahead.ahead_ms,
                peers = ahead.peers.len(),
                heard = ahead.heard,
                "this node's clock is ahead of most peers': local puts are refused until it is set"
            ),
            (Some(_), None) => tracing::info!("the clocks agree again: local puts are taken"),
            _ => {}
        }
        ahead
    }

    /// This node for a command in which its operator names a peer: see
    /// [`Access::vouching_for`].
    #[must_use]
    pub fn vouching_for(&self, peer: NodeId) -> Self {
        Self { access: self.access.vouching_for(peer), ..self.clone() }
    }

    /// What this node says of itself to a peer on a new connection: of its collections, those
    /// that the peer may read. Says whether this end answers what is opened towards it.
    #[must_use]
    pub fn greeting_for(&self, peer: &NodeId, serves: bool) -> Greeting {
        let offered = self.offered(peer);
        let offered: Vec<_> = offered.iter().map(|one| WireSpec::from(one.spec())).collect();
        // more than a frame holds is told with the first questions
        let (_, collections) = Offers::news(None, &offered);
        Greeting {
            version_min: PROTOCOL_VERSION,
            version_max: PROTOCOL_VERSION,
            max_value_bytes: self.replica.limits().max_value_bytes,
            clock: Stamp::new(Self::now_ms(), 0),
            serves,
            collections,
        }
    }

    /// The place of a session among the others.
    fn session_key(&self, peer: NodeId, collection: &CollectionName) -> SessionKey {
        SessionKey { me: self.id(), peer, collection: collection.clone() }
    }

    /// What a session is given besides its snapshot.
    fn setup(&self, peer: NodeId, secret: [u8; 32], config: SyncConfig) -> Setup {
        Setup {
            me: self.id(),
            peer,
            config,
            limits: self.replica.limits().clone(),
            secret,
            clock: self.clock(),
        }
    }
}

/// Follows a session while it runs.
pub trait Watch: Send + Sync {
    /// Called after each step.
    fn progress(&self, session: &Session);
}

/// Follows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn progress(&self, _session: &Session) {}
}
