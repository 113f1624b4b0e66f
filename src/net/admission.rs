//! Whom a node lets in.
//!
//! ```
//! use selfsame::net::{Admission, AllowList, Identity};
//!
//! let peer = Identity::from_secret(&[1; 32]).node_id();
//! let list = AllowList::default();
//! assert!(!list.admits(&peer));
//! list.allow(peer);
//! assert!(list.admits(&peer));
//! ```

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use crate::types::NodeId;

/// Decides who may connect; asked in each handshake, after the caller has proved its id.
///
/// Whoever is refused later, while connected, stays connected until the connection is closed:
/// use [`CloseCode::NotAdmitted`](super::CloseCode::NotAdmitted).
pub trait Admission: Send + Sync + 'static {
    /// Whether this node may connect. Quick and without waiting: a handshake stands by.
    fn admits(&self, id: &NodeId) -> bool;

    /// Whether nodes that are not admitted may connect just now to pair with this one, over
    /// [`PAIR_ALPN`](super::PAIR_ALPN) and for nothing else.
    fn pairs(&self) -> bool {
        false
    }
}

impl<F: Fn(&NodeId) -> bool + Send + Sync + 'static> Admission for F {
    fn admits(&self, id: &NodeId) -> bool {
        self(id)
    }
}

/// A set of admitted node ids that may change while it is in use.
///
/// Clones share one set.
#[derive(Clone, Debug, Default)]
pub struct AllowList(Arc<RwLock<BTreeSet<NodeId>>>);

impl AllowList {
    /// Admits a node from now on; says whether it was not admitted before.
    pub fn allow(&self, id: NodeId) -> bool {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(id)
    }

    /// Admits a node no longer; says whether it was admitted before.
    pub fn revoke(&self, id: &NodeId) -> bool {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(id)
    }

    /// Replaces the whole set, as a config that is read again does.
    pub fn replace(&self, ids: impl IntoIterator<Item = NodeId>) {
        let ids = ids.into_iter().collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = ids;
    }
}

impl Admission for AllowList {
    fn admits(&self, id: &NodeId) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(id)
    }
}

impl FromIterator<NodeId> for AllowList {
    fn from_iter<I: IntoIterator<Item = NodeId>>(ids: I) -> Self {
        Self(Arc::new(RwLock::new(ids.into_iter().collect())))
    }
}
