//! How a peer is reached that somebody turns to here: on the connection that the daemon keeps
//! with it, or on one that is dialled for this once.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::Host;
use super::error::ApiError;
use super::host::{Running, caller};
use crate::net::{CloseCode, Link, PeerAddress};
use crate::node::Node;
use crate::node::choice::PeerChoice;
use crate::node::client::ClientError;
use crate::store::EmbeddedStore;
use crate::types::{CollectionName, NodeId};

/// A peer whose machine is gone must not be waited for where another address may answer.
const LONGEST_QUESTION: Duration = Duration::from_secs(2);

/// A peer, and as which node to turn to it.
pub(super) struct Peer {
    pub(super) id: NodeId,
    node: Node<EmbeddedStore>,
    /// The connection that a daemon keeps with it: there is one to peers that dial, too.
    kept: Option<Arc<Link>>,
    addresses: Vec<PeerAddress>,
}

impl Peer {
    /// The peer that is meant.
    ///
    /// # Errors
    /// No such peer is known, or neither an address nor a connection of it.
    pub(super) fn find(host: &Host, text: &str) -> Result<Self, ApiError> {
        let (node, choice) = (host.node(), text.parse()?);
        let kept = match &choice {
            // whoever names an address means that one
            PeerChoice::At(_) => None,
            PeerChoice::Known(text) => {
                let book = node.access.book();
                host.kept(&book.find(text).map_err(ClientError::from)?.id)
            }
        };
        match (node.turn_to(&choice), kept) {
            (Ok((node, addresses)), kept) => {
                let id = addresses.first().map(PeerAddress::id);
                let id = id.ok_or_else(|| ClientError::NoAddress(text.to_owned()))?;
                Ok(Self { id, node, kept, addresses })
            }
            (Err(ClientError::NoAddress(_)), Some(kept)) => {
                let node = Node::clone(&node);
                Ok(Self { id: kept.peer(), node, kept: Some(kept), addresses: Vec::new() })
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    pub(super) const fn node(&self) -> &Node<EmbeddedStore> {
        &self.node
    }

    /// Does the work on a greeted connection with the peer, about this collection. One that was
    /// dialled for it ends with it.
    pub(super) async fn with<R>(
        &self,
        host: &Host,
        running: &Running,
        about: &CollectionName,
        work: impl AsyncFnOnce(&Node<EmbeddedStore>, &Link) -> Result<R, ApiError>,
    ) -> Result<R, ApiError> {
        let deadline = host.dial_deadline();
        let mut stopped = running.stopped.clone();
        if let Some(link) = &self.kept {
            let within = if self.addresses.is_empty() { deadline } else { LONGEST_QUESTION };
            let answers = tokio::select! {
                answers = self.answers(link, about, within.min(deadline)) => answers,
                _ = stopped.wait_for(|stop| *stop) => return Err(ApiError::Stopped),
            };
            match answers {
                Ok(()) => return work(&self.node, link).await,
                Err(error) if self.addresses.is_empty() => return Err(error.into()),
                // it went away, and the daemon does not know that yet
                Err(_) => {}
            }
        }
        let endpoint = caller(&self.node.identity, host.config())?;
        let connected = tokio::select! {
            linked = self.node.connect_first(&endpoint, &self.addresses, deadline) => linked,
            _ = stopped.wait_for(|stop| *stop) => return Err(ApiError::Stopped),
        };
        // of one that could not be made nobody need be told
        let done = work(&self.node, &connected?).await;
        endpoint.close(CloseCode::Done, "").await;
        done
    }

    /// Whether the peer is still there: it is asked what costs it little.
    async fn answers(
        &self,
        link: &Link,
        about: &CollectionName,
        within: Duration,
    ) -> Result<(), ClientError> {
        match timeout(within, self.node.remote_digest(link, about)).await {
            Err(_) => Err(ClientError::Silent(within)),
            Ok(Err(
                error @ (ClientError::Net(_)
                | ClientError::Link(_)
                | ClientError::Frame(_)
                | ClientError::Silent(_)
                | ClientError::NoAnswer),
            )) => Err(error),
            // whatever it says of the collection, it is there
            Ok(_) => Ok(()),
        }
    }
}
