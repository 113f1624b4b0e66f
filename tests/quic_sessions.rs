//! Nodes with stores on disk, sessions over real QUIC on loopback.
#![cfg(feature = "node")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use selfsame::hash::HashAlgorithm;
use selfsame::net::{Endpoint, Identity, NetLimits, PeerAddress};
use selfsame::node::access::Access;
use selfsame::node::client::{ClientError, Synchronised};
use selfsame::node::manager::SessionManager;
use selfsame::node::{Node, Unwatched, server};
use selfsame::replica::{Collection, Random, Replica, ReplicaOptions};
use selfsame::session::{AbortCode, Failure, Outcome, SyncConfig};
use selfsame::store::{
    Batch, Durability, EmbeddedOptions, EmbeddedStore, Read, Span, Store, Table,
};
use selfsame::types::{CollectionName, CollectionSpec, Key, Policy};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(60);

struct Peer {
    node: Arc<Node<EmbeddedStore>>,
    endpoint: Endpoint,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Peer {
    fn new() -> Self {
        let random = Box::new(|| rand::rng().random());
        Self::of(tempfile::tempdir().unwrap(), Identity::generate().unwrap(), random)
    }

    fn of(folder: tempfile::TempDir, identity: Identity, random: Random) -> Self {
        let store = EmbeddedStore::open(folder.path(), EmbeddedOptions::default()).unwrap();
        let replica = Replica::open(store, ReplicaOptions::default(), random).unwrap();
        let node = Arc::new(Node {
            replica: Arc::new(replica),
            identity: Arc::new(identity),
            config: SyncConfig::default(),
            patience: Duration::from_secs(10),
            access: Access::default(),
            sessions: SessionManager::default(),
        });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let limits = NetLimits { idle_timeout: Duration::from_secs(3), ..NetLimits::default() };
        let identity = Arc::clone(&node.identity);
        let admission = Arc::new(node.access.clone());
        let endpoint = Endpoint::bind(identity, address, admission, limits).unwrap();
        let (stop, stopped) = watch::channel(false);
        let serving = server::serve(Arc::clone(&node), endpoint.clone(), stopped, Arc::new(|_| {}));
        let server = tokio::spawn(serving);
        Self { node, endpoint, stop, server, _folder: folder }
    }

    fn address(&self) -> PeerAddress {
        PeerAddress::new(self.node.id(), self.endpoint.local_address())
    }

    fn collection(&self, name: &str, policy: Policy) -> Arc<Collection<EmbeddedStore>> {
        let spec = CollectionSpec {
            name: CollectionName::new(name).unwrap(),
            algorithm: HashAlgorithm::Blake3,
            policy,
        };
        self.node.replica.create_collection(spec).unwrap()
    }

    async fn sync(&self, other: &Self, name: &str) -> Result<Synchronised, ClientError> {
        let link = self.node.connect(&self.endpoint, &other.address(), LIMIT).await?;
        let collection = self.node.replica.collection(&CollectionName::new(name).unwrap())?;
        let (_stop, stopped) = watch::channel(false);
        let config = SyncConfig::default();
        timeout(LIMIT, self.node.synchronise(&link, &collection, &config, stopped, &Unwatched))
            .await
            .unwrap()
    }
}

fn friends() -> (Peer, Peer) {
    let (a, b) = (Peer::new(), Peer::new());
    a.node.access.allow(b.node.id());
    b.node.access.allow(a.node.id());
    (a, b)
}

fn key(name: impl ToString) -> Key {
    Key::new(name.to_string().into_bytes()).unwrap()
}

fn now() -> u64 {
    Node::<EmbeddedStore>::now_ms()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_become_equal_and_both_hold_the_certificate() {
    let (a, b) = friends();
    let (of_a, of_b) = (a.collection("c", Policy::Lww), b.collection("c", Policy::Lww));
    for at in 0..500 {
        of_a.put(&key(at), vec![at as u8; 2_000], now()).unwrap();
        of_b.put(&key(at + 250), vec![at as u8; 300], now()).unwrap();
    }
    of_a.put(&key("large"), vec![7; 3_000_000], now()).unwrap();
    let mut noise = vec![0u8; 2_500_000];
    rand::rng().fill(&mut noise[..]);
    of_b.put(&key("noise"), noise, now()).unwrap();
    let done = a.sync(&b, "c").await.unwrap();
    let Outcome::Complete { certificate: Some(certificate) } = &done.last().outcome else {
        panic!("{:?}", done.last().outcome);
    };
    assert_eq!(of_a.state_hash().unwrap(), of_b.state_hash().unwrap());
    assert_eq!(*certificate.message().root(), of_a.root().unwrap());
    let again = b.sync(&a, "c").await.unwrap();
    assert!(matches!(again.last().outcome, Outcome::Complete { certificate: None }));
    let name = CollectionName::new("c").unwrap();
    let link = a.node.connect(&a.endpoint, &b.address(), LIMIT).await.unwrap();
    let digest = a.node.remote_digest(&link, &name).await.unwrap();
    assert_eq!(digest.envelope().root(), of_a.root().unwrap());
    drop(link);
    for peer in [a, b] {
        peer.stop.send(true).unwrap();
        timeout(LIMIT, peer.server).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_have_a_type_at_both_ends() {
    let (a, b) = friends();
    a.collection("only here", Policy::Lww);
    a.collection("c", Policy::Lww);
    b.collection("c", Policy::Siblings);
    let unknown = a.sync(&b, "only here").await.unwrap();
    let expected = Outcome::Failed(Failure::Peer(AbortCode::UnknownCollection));
    assert_eq!(unknown.last().outcome, expected);
    let other = a.sync(&b, "c").await.unwrap();
    assert_eq!(other.last().outcome, Outcome::Failed(Failure::Peer(AbortCode::PolicyMismatch)));
    b.node.access.revoke(&a.node.id());
    let refused = a.sync(&b, "c").await.unwrap_err();
    assert!(refused.to_string().contains("refused this node"), "{refused}");
    let stranger = Peer::new();
    stranger.collection("c", Policy::Lww);
    let wrong = PeerAddress::new(stranger.node.id(), b.endpoint.local_address());
    let link = a.node.connect(&a.endpoint, &wrong, LIMIT).await;
    assert!(link.is_err(), "another node answers under that address");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_dies_ends_the_session_and_loses_nothing() {
    let (a, b) = friends();
    let (of_a, of_b) = (a.collection("c", Policy::Lww), b.collection("c", Policy::Lww));
    for at in 0..400 {
        let mut value = vec![0u8; 60_000];
        rand::rng().fill(&mut value[..]);
        of_a.put(&key(at), value, now()).unwrap();
    }
    of_b.put(&key("of b"), vec![1; 10], now()).unwrap();
    let link = a.node.connect(&a.endpoint, &b.address(), LIMIT).await.unwrap();
    let (_stop, stopped) = watch::channel(false);
    let config = SyncConfig::default();
    let cut = {
        let connection = link.connection().clone();
        async move {
            tokio::time::sleep(Duration::from_millis(60)).await;
            connection.close(selfsame::net::CloseCode::Internal, "cut by the test");
        }
    };
    let session = a.node.synchronise(&link, &of_a, &config, stopped, &Unwatched);
    let (report, ()) = tokio::join!(timeout(LIMIT, session), cut);
    // either it was cut, or it was quicker than the cut
    if let Ok(report) = report.unwrap() {
        let outcome = &report.last().outcome;
        assert!(matches!(outcome, Outcome::Interrupted | Outcome::Complete { .. }), "{outcome:?}");
    }
    drop(link);
    let done = b.sync(&a, "c").await.unwrap();
    assert!(matches!(done.last().outcome, Outcome::Complete { .. }), "{:?}", done.last().outcome);
    assert_eq!(of_a.root().unwrap(), of_b.root().unwrap());
    assert_eq!(of_b.totals().unwrap().entries, 401);
}

/// Damages the bytes of the values held, or takes them away, behind the collection's back.
fn rot(peer: &Peer, sizes: &[usize], damaged: Option<&[u8]>) {
    let store = peer.node.replica.store();
    let mut batch = Batch::default();
    for row in store.scan(Span::of(Table::Values, &[]), usize::MAX).unwrap() {
        if sizes.contains(&row.value.len()) {
            match damaged {
                Some(bytes) => batch.put(Table::Values, &row.key, bytes),
                None => batch.remove(Table::Values, &row.key),
            }
        }
    }
    assert_eq!(batch.len(), sizes.len());
    store.commit(batch, Durability::Always).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_rotted_are_fetched_again_by_their_hash_even_if_nothing_differs() {
    let (a, b) = friends();
    let (of_a, of_b) = (a.collection("c", Policy::Lww), b.collection("c", Policy::Lww));
    for at in 1..=100_usize {
        of_a.put(&key(at), vec![at as u8; 1_000 + at], now()).unwrap();
    }
    of_a.put(&key("large"), vec![7; 3_000_000], now()).unwrap();
    a.sync(&b, "c").await.unwrap();
    let before = of_a.state_hash().unwrap();

    rot(&a, &[3_000_000, 1_001, 1_002], Some(b"rot"));
    rot(&a, &[1_003, 1_004], None);
    rot(&b, &[1_002], None);
    // what nobody has read yet is not known to be lost
    for at in ["large", "1", "2", "3"] {
        let reading = of_a.read(&key(at)).unwrap().unwrap();
        assert!(reading.versions[0].value.is_none());
    }
    assert_eq!(of_a.lost_values(10).unwrap().len(), 4);
    let done = a.sync(&b, "c").await.unwrap();
    assert_eq!(done.last().outcome, Outcome::Complete { certificate: None });
    assert_eq!(done.repaired, 3, "the peer has lost one of them too");
    assert_eq!(of_a.state_hash().unwrap(), before, "no causality in that");
    for (at, size) in [("large", 3_000_000), ("1", 1_001), ("3", 1_003)] {
        let reading = of_a.read(&key(at)).unwrap().unwrap();
        assert_eq!(reading.versions[0].value.as_ref().unwrap().len(), size);
    }
    assert_eq!(of_a.lost_values(10).unwrap().len(), 1);
    // being asked, the peer found its own loss; neither can help the other
    assert_eq!(b.sync(&a, "c").await.unwrap().repaired, 0);
    assert_eq!(of_b.lost_values(10).unwrap().len(), 1);
    // the key is written again: nothing is missed any more
    of_b.put(&key(2), b"new".to_vec(), now()).unwrap();
    a.sync(&b, "c").await.unwrap();
    assert_eq!(of_a.lost_values(10).unwrap(), []);
    // a check finds what no read came upon
    assert_eq!(of_a.check().unwrap().missing_values.len(), 1);
    assert_eq!(a.sync(&b, "c").await.unwrap().repaired, 1);
    assert!(of_a.check().unwrap().is_sound());
}

/// A copy of a folder, with all that is in it.
fn copied(from: &std::path::Path) -> tempfile::TempDir {
    fn copy(from: &std::path::Path, to: &std::path::Path) {
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                std::fs::create_dir(&to).unwrap();
                copy(&entry.path(), &to);
            } else {
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    copy(from, folder.path());
    folder
}

/// The generator of a machine that was copied with all of its memory: both copies draw the same.
fn copied_random() -> Random {
    let mut last = 1_000;
    Box::new(move || {
        last += 1;
        last
    })
}

/// All values that can be read: held, or copied aside.
fn readable(collection: &Collection<EmbeddedStore>) -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    for entry in collection.list(b"", None, usize::MAX).unwrap() {
        let reading = collection.read(&entry.key).unwrap().unwrap();
        values.extend(reading.versions.into_iter().filter_map(|one| Some(one.value?.to_vec())));
    }
    for kept in collection.clones().unwrap() {
        let aside = collection.aside(kept.number.unwrap(), None, usize::MAX).unwrap();
        values.extend(aside.into_iter().filter_map(|entry| entry.value));
    }
    values
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_copies_of_a_folder_that_both_write_are_found_and_nothing_is_lost() {
    let identity = || Identity::from_secret(&[7; 32]);
    let original = Peer::of(tempfile::tempdir().unwrap(), identity(), copied_random());
    let shared = original.collection("c", Policy::Lww);
    shared.put(&key("shared"), b"shared".to_vec(), now()).unwrap();
    original.stop.send(true).unwrap();
    let Peer { node, server, _folder: folder, .. } = original;
    server.await.unwrap();
    node.replica.close().unwrap();
    drop((node, shared));
    let copies = [copied(folder.path()), copied(folder.path())];
    let [one, other] = copies.map(|folder| Peer::of(folder, identity(), copied_random()));
    let peer = Peer::new();
    peer.node.access.allow(one.node.id());
    for copy in [&one, &other] {
        copy.node.access.allow(peer.node.id());
    }
    let [of_one, of_other, of_peer] =
        [&one, &other, &peer].map(|at| at.collection("c", Policy::Lww));
    for value in ["one 1", "one 2", "one 3"] {
        of_one.put(&key(value), value.as_bytes().to_vec(), now()).unwrap();
    }
    of_one.delete(&key("one 1"), now()).unwrap();
    let done = one.sync(&peer, "c").await.unwrap();
    assert!(matches!(done.last().outcome, Outcome::Complete { .. }), "{:?}", done.last().outcome);
    let put = of_other.put(&key("other 1"), b"other 1".to_vec(), now()).unwrap();
    let writer = of_one.present_writer().unwrap().unwrap().writer;
    assert_eq!(put.dot.writer(), writer, "both write with one");

    let found = other.sync(&peer, "c").await.unwrap();
    assert_eq!(found.last().outcome, Outcome::Failed(Failure::Ours(AbortCode::Clone)));
    assert_eq!((of_other.totals().unwrap().entries, of_peer.totals().unwrap().entries), (2, 3));
    assert_eq!(other.node.counts().clones_found, 1);
    timeout(LIMIT, async {
        while peer.node.counts().clones_found == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(of_peer.clones().unwrap()[0].peer, other.node.id());
    assert!(!of_peer.clones().unwrap()[0].found.ours);

    // one copy ends; the other goes on, and what the rules remove can be read aside
    one.stop.send(true).unwrap();
    of_other.put(&key("other 2"), b"other 2".to_vec(), now()).unwrap();
    assert_ne!(of_other.present_writer().unwrap().unwrap().writer, writer);
    let healed = other.sync(&peer, "c").await.unwrap();
    assert!(matches!(healed.last().outcome, Outcome::Complete { .. }), "{:?}", healed.last());
    assert_eq!(of_other.root().unwrap(), of_peer.root().unwrap());
    let values = [readable(&of_other), readable(&of_one)].concat();
    for value in ["shared", "one 2", "one 3", "other 1", "other 2"] {
        assert!(values.iter().any(|one| one == value.as_bytes()), "{value}");
    }
    assert!(readable(&of_other).iter().any(|one| one == b"other 1"), "at the copy itself");
}
