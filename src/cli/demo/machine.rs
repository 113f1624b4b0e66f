//! A node of the demo: a data folder of its own, a store on disk, a QUIC port.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::timeout;

use super::DemoError;
use crate::hash::HashAlgorithm;
use crate::net::{Endpoint, NetLimits, PeerAddress, SessionReport};
use crate::node::config::Config;
use crate::node::home::Home;
use crate::node::{Node, server};
use crate::replica::Collection;
use crate::store::EmbeddedStore;
use crate::types::{CollectionName, CollectionSpec, Key, NodeId, Policy};

/// Longest wait for a server to stop or to report.
const PATIENCE: Duration = Duration::from_secs(30);
/// The collection of the demo.
pub(super) const COLLECTION: &str = "states";

/// A node that can be stopped and started.
pub(super) struct Machine {
    pub(super) name: &'static str,
    pub(super) folder: PathBuf,
    pub(super) id: NodeId,
    peers: Vec<NodeId>,
    running: Option<Running>,
}

struct Running {
    home: Home,
    node: Arc<Node<EmbeddedStore>>,
    endpoint: Endpoint,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
    served: mpsc::UnboundedReceiver<SessionReport>,
}

impl Machine {
    /// Makes a node with an identity and an empty store.
    pub(super) fn init(name: &'static str, within: &Path) -> Result<Self, DemoError> {
        let folder = within.join(name);
        let id = Home::init(&folder)?;
        Ok(Self { name, folder, id, peers: Vec::new(), running: None })
    }

    /// Lets these nodes in, now and when somebody plays with the folder later.
    pub(super) fn admit(&mut self, peers: Vec<NodeId>) -> Result<(), DemoError> {
        let ids: Vec<String> = peers.iter().map(|id| format!("\"{id}\"")).collect();
        let text =
            Config::DEFAULT_TEXT.replace("allow = []", &format!("allow = [{}]", ids.join(", ")));
        let path = self.folder.join("config.toml");
        fs::write(&path, text).map_err(|source| DemoError::File { path, source })?;
        self.peers = peers;
        Ok(())
    }

    /// Where the store is.
    pub(super) fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    /// Opens the store and a port, and serves.
    pub(super) fn start(&mut self) -> Result<(), DemoError> {
        let home = block_in_place(|| Home::open(&self.folder))?;
        if home.replica.collections().is_empty() {
            home.replica.create_collection(CollectionSpec {
                name: CollectionName::new(COLLECTION)?,
                algorithm: HashAlgorithm::Blake3,
                policy: Policy::Lww,
            })?;
        }
        let node = Arc::new(home.node());
        node.access.set_allowed(self.peers.iter().copied());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let identity = Arc::clone(&home.identity);
        let endpoint =
            Endpoint::bind(identity, address, Arc::new(node.access.clone()), NetLimits::default())?;
        let (stop, stopped) = watch::channel(false);
        let (tell, served) = mpsc::unbounded_channel();
        let listener = move |event| {
            if let server::Event::Session { report, .. } = event {
                // nobody listens any more: the node is being stopped
                let _ = tell.send(*report);
            }
        };
        let serving =
            server::serve(Arc::clone(&node), endpoint.clone(), stopped, Arc::new(listener));
        let server = tokio::spawn(serving);
        self.running = Some(Running { home, node, endpoint, stop, server, served });
        Ok(())
    }

    /// Closes port and store.
    pub(super) async fn stop(&mut self) -> Result<(), DemoError> {
        let Some(running) = self.running.take() else { return Ok(()) };
        let Running { home, node, endpoint, stop, server, served } = running;
        // the server is gone already if nobody hears it
        let _ = stop.send(true);
        let _ = timeout(PATIENCE, server).await;
        drop((node, endpoint, served));
        block_in_place(|| home.close())?;
        Ok(())
    }

    fn running(&self) -> Result<&Running, DemoError> {
        self.running.as_ref().ok_or(DemoError::Stopped(self.name))
    }

    pub(super) fn node(&self) -> Result<&Arc<Node<EmbeddedStore>>, DemoError> {
        Ok(&self.running()?.node)
    }

    pub(super) fn endpoint(&self) -> Result<&Endpoint, DemoError> {
        Ok(&self.running()?.endpoint)
    }

    pub(super) fn address(&self) -> Result<PeerAddress, DemoError> {
        Ok(PeerAddress::new(self.id, self.running()?.endpoint.local_address()))
    }

    /// How the next session that this node served went, as it saw it.
    pub(super) async fn served(&mut self) -> Result<SessionReport, DemoError> {
        let name = self.name;
        let running = self.running.as_mut().ok_or(DemoError::Stopped(name))?;
        let report = timeout(PATIENCE, running.served.recv()).await.ok().flatten();
        report.ok_or(DemoError::NoReport(name))
    }

    pub(super) fn collection(&self) -> Result<Arc<Collection<EmbeddedStore>>, DemoError> {
        Ok(self.running()?.home.replica.collection(&CollectionName::new(COLLECTION)?)?)
    }

    /// Writes entries in one commit.
    pub(super) fn put(&self, entries: Vec<super::data::Entry>) -> Result<(), DemoError> {
        let collection = self.collection()?;
        block_in_place(|| collection.import(entries, Node::<EmbeddedStore>::now_ms()))?;
        Ok(())
    }

    /// What is read under these keys, changed.
    pub(super) fn edit(
        &self,
        keys: &[Key],
        mut edit: impl FnMut(&[u8]) -> Arc<[u8]>,
    ) -> Result<(), DemoError> {
        let collection = self.collection()?;
        let mut entries = Vec::with_capacity(keys.len());
        for key in keys {
            let reading = block_in_place(|| collection.read(key))?;
            let value = reading.and_then(|reading| reading.versions.into_iter().next()?.value);
            entries.push((key.clone(), edit(value.as_deref().unwrap_or_default())));
        }
        self.put(entries)
    }

    /// Deletes keys.
    pub(super) fn delete(&self, keys: &[Key]) -> Result<(), DemoError> {
        let collection = self.collection()?;
        block_in_place(|| collection.delete_all(keys, Node::<EmbeddedStore>::now_ms()))?;
        Ok(())
    }
}
