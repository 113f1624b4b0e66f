//! Nodes with stores in memory, a folder for their books, and a server.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use selfsame::hash::HashAlgorithm;
use selfsame::net::{Endpoint, Identity, Link, NetLimits, PeerAddress};
use selfsame::node::access::Access;
use selfsame::node::client::ClientError;
use selfsame::node::peers::{Grants, PeerBook, PeerEntry, PeerFiles};
use selfsame::node::server::{self, Event};
use selfsame::node::{Node, Watch};
use selfsame::replica::{Collection, Replica, ReplicaOptions};
use selfsame::session::{Mode, Outcome, SyncConfig};
use selfsame::store::MemoryStore;
use selfsame::types::{CollectionName, CollectionSpec, Key, NodeId, Policy};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// No test waits longer for anything.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) type Store = MemoryStore;

pub(crate) struct Peer {
    pub(crate) node: Arc<Node<Store>>,
    pub(crate) endpoint: Endpoint,
    pub(crate) files: PeerFiles,
    pub(crate) events: Arc<Mutex<Vec<Event>>>,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Peer {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let random = Box::new(rand::random);
        let replica =
            Replica::open(MemoryStore::default(), ReplicaOptions::default(), random).unwrap();
        let node = Arc::new(Node {
            replica: Arc::new(replica),
            identity: Arc::new(Identity::generate().unwrap()),
            config: SyncConfig { max_batch_size: 10, ..SyncConfig::default() },
            patience: Duration::from_secs(10),
            access: Access::open(folder.path(), []).unwrap(),
            sessions: Default::default(),
        });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let limits = NetLimits { idle_timeout: Duration::from_secs(5), ..NetLimits::default() };
        let admission = Arc::new(node.access.clone());
        let endpoint =
            Endpoint::bind(Arc::clone(&node.identity), address, admission, limits).unwrap();
        let (stop, stopped) = watch::channel(false);
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&events);
        let listener = Arc::new(move |event| heard.lock().unwrap().push(event));
        let server =
            tokio::spawn(server::serve(Arc::clone(&node), endpoint.clone(), stopped, listener));
        let files = PeerFiles::new(folder.path());
        Self { node, endpoint, files, events, stop, server, _folder: folder }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.node.id()
    }

    pub(crate) fn address(&self) -> PeerAddress {
        PeerAddress::new(self.id(), self.endpoint.local_address())
    }

    /// Lets a peer do so much, and knows no other.
    pub(crate) fn grants(&self, peer: &Self, rules: &str) {
        self.node.access.set_book(book(peer.id(), rules));
    }

    pub(crate) fn collection(&self, name: &str) -> Arc<Collection<Store>> {
        let name = CollectionName::new(name).unwrap();
        self.node.replica.collection(&name).unwrap_or_else(|_| {
            let spec =
                CollectionSpec { name, algorithm: HashAlgorithm::Blake3, policy: Policy::Lww };
            self.node.replica.create_collection(spec).unwrap()
        })
    }

    pub(crate) fn fill(&self, name: &str, prefix: &str, count: usize) {
        let collection = self.collection(name);
        for at in 0..count {
            let key = Key::new(format!("{prefix} {at}")).unwrap();
            collection.put(&key, vec![at as u8; 500], Node::<Store>::now_ms()).unwrap();
        }
    }

    /// Values that do not compress.
    pub(crate) fn fill_with_noise(&self, name: &str, count: usize, bytes: usize) {
        for at in 0..count {
            let mut value = vec![0; bytes];
            rand::RngExt::fill(&mut rand::rng(), &mut value[..]);
            let key = Key::new(format!("noise {at}")).unwrap();
            self.collection(name).put(&key, value, Node::<Store>::now_ms()).unwrap();
        }
    }

    pub(crate) fn entries(&self, name: &str) -> u64 {
        self.collection(name).totals().unwrap().entries
    }

    pub(crate) async fn connect(&self, other: &Self) -> Result<Link, ClientError> {
        self.node.connect(&self.endpoint, &other.address(), LIMIT).await
    }

    pub(crate) async fn sync(
        &self,
        link: &Link,
        name: &str,
        mode: Mode,
        watch: &dyn Watch,
    ) -> Result<Outcome, ClientError> {
        let collection = self.collection(name);
        let config = SyncConfig { mode, ..self.node.config.clone() };
        let (_stop, stopped) = watch::channel(false);
        let done = self.node.synchronise(link, &collection, &config, stopped, watch);
        Ok(timeout(LIMIT, done).await.unwrap()?.last().outcome.clone())
    }

    pub(crate) async fn stop(self) {
        self.stop.send(true).unwrap();
        timeout(LIMIT, self.server).await.unwrap().unwrap();
    }
}

pub(crate) fn book(id: NodeId, rules: &str) -> PeerBook {
    let grants: Grants = rules.split_whitespace().map(|rule| rule.parse().unwrap()).collect();
    PeerBook { peers: vec![PeerEntry { id, name: None, addresses: Vec::new(), grants }] }
}

/// Waits until a condition holds.
pub(crate) async fn until(holds: impl Fn() -> bool) {
    timeout(LIMIT, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}
