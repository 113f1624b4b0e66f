//! The connections that a node keeps with its peers, whoever dialled.
//!
//! One is enough for both directions. Where two nodes dialled each other at once there are two
//! for a while: both ends open on the one that the lesser node id dialled, and the dialler of
//! the other closes it once it has been idle. One that comes much later takes the place of the
//! one before: a node that was started anew dials because it has lost it.
//!
//! ```
//! use selfsame::node::links::Links;
//! use selfsame::types::NodeId;
//!
//! let links = Links::new(NodeId([1; 32]));
//! assert!(links.preferred(&NodeId([2; 32])).is_none());
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::net::{CloseCode, Link};
use crate::types::NodeId;

/// How long a second connection may still be in use by what the peer began on it.
const SPARED: Duration = Duration::from_secs(2);
/// Connections that begin within this time were dialled at once.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A connection that is kept.
#[derive(Clone, Debug)]
pub struct KeptLink {
    /// The connection.
    pub link: Arc<Link>,
    /// How far the peer's clock was ahead when it connected, in milliseconds.
    pub clock_ahead_ms: i64,
    /// Since when there is one.
    pub since: Instant,
    /// Since when another one is preferred.
    idle_since: Option<Instant>,
}

/// The connections that are kept, by peer.
#[derive(Debug)]
pub struct Links {
    me: NodeId,
    kept: Mutex<BTreeMap<NodeId, Vec<KeptLink>>>,
}

impl Links {
    /// None yet.
    #[must_use]
    pub const fn new(me: NodeId) -> Self {
        Self { me, kept: Mutex::new(BTreeMap::new()) }
    }

    /// Keeps a connection from now on.
    pub fn add(&self, link: Arc<Link>, clock_ahead_ms: i64) {
        let (peer, since) = (link.peer(), Instant::now());
        let kept = KeptLink { link, clock_ahead_ms, since, idle_since: None };
        self.lock().entry(peer).or_default().push(kept);
    }

    /// Keeps it no longer; says whether none is left with this peer.
    pub fn remove(&self, link: &Arc<Link>) -> bool {
        let mut kept = self.lock();
        let peer = link.peer();
        let Some(links) = kept.get_mut(&peer) else { return false };
        let before = links.len();
        links.retain(|one| !Arc::ptr_eq(&one.link, link));
        let last = links.is_empty() && before > 0;
        if links.is_empty() {
            kept.remove(&peer);
        }
        last
    }

    /// The connection on which sessions are opened: one that has not ended.
    #[must_use]
    pub fn preferred(&self, peer: &NodeId) -> Option<KeptLink> {
        let kept = self.lock();
        let links = kept.get(peer)?;
        let alive = links.iter().filter(|one| one.link.connection().close_reason().is_none());
        let newest = alive.clone().map(|one| one.since).max()?;
        let of_now = alive.filter(|one| newest.duration_since(one.since) < AT_ONCE);
        of_now.max_by_key(|one| (self.is_of_lesser(one), one.since)).cloned()
    }

    /// All, the preferred of each peer only.
    #[must_use]
    pub fn all(&self) -> Vec<KeptLink> {
        let peers: Vec<NodeId> = self.lock().keys().copied().collect();
        peers.iter().filter_map(|peer| self.preferred(peer)).collect()
    }

    /// Closes the connections that this end dialled and that nobody needs: where another one is
    /// preferred, and nothing runs with the peer.
    pub fn tidy(&self, is_busy: impl Fn(&NodeId) -> bool) {
        let mut spare = Vec::new();
        for kept in self.all() {
            let peer = kept.link.peer();
            let mut links = self.lock();
            let Some(links) = links.get_mut(&peer) else { continue };
            for one in links.iter_mut() {
                let dialled = one.link.connection().is_dialled();
                if Arc::ptr_eq(&one.link, &kept.link) || !dialled || is_busy(&peer) {
                    one.idle_since = None;
                } else if one.idle_since.get_or_insert_with(Instant::now).elapsed() > SPARED {
                    spare.push(Arc::clone(&one.link));
                }
            }
        }
        for link in spare {
            link.connection().close(CloseCode::Duplicate, "");
        }
    }

    fn is_of_lesser(&self, kept: &KeptLink) -> bool {
        let peer = kept.link.peer();
        kept.link.connection().is_dialled() == (self.me < peer)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Vec<KeptLink>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
