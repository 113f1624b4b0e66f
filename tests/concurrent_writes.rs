//! Sessions over real QUIC while eight writers at each of both ends write and delete without a
//! pause, on stores on disk. Clients name what they have read, so which versions must live in the
//! end is known exactly: those written, less those that somebody named.
#![cfg(feature = "node")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use selfsame::dots::Dot;
use selfsame::net::{Endpoint, Identity, Link, NetLimits, PeerAddress};
use selfsame::node::access::Access;
use selfsame::node::client::ClientError;
use selfsame::node::manager::SessionManager;
use selfsame::node::server::{self, Event};
use selfsame::node::{Node, Unwatched};
use selfsame::replica::{Collection, CollectionView, Replica, ReplicaOptions};
use selfsame::session::{AbortCode, Failure, Outcome, SyncConfig};
use selfsame::store::{EmbeddedOptions, EmbeddedStore};
use selfsame::types::{CollectionName, CollectionSpec, Key, Policy};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// No test takes longer.
const LIMIT: Duration = Duration::from_secs(120);
const WRITERS: u64 = 8;
/// Keys that all writers of both ends share, and keys of one writer alone.
const SHARED: u64 = 64;
const OWN: u64 = 40;
/// Sessions that must end while everybody writes, unless `SELFSAME_SESSIONS` says how many.
const SESSIONS: usize = 8;

/// Held by the test that runs: sixteen writers are enough for a small machine.
static TURN: Mutex<()> = Mutex::const_new(());

fn sessions() -> usize {
    let asked = std::env::var("SELFSAME_SESSIONS").ok();
    asked.map_or(SESSIONS, |text| text.parse().expect("SELFSAME_SESSIONS: a number"))
}

type Disk = Collection<EmbeddedStore>;

struct Peer {
    node: Arc<Node<EmbeddedStore>>,
    endpoint: Endpoint,
    collection: Arc<Disk>,
    /// Outcomes of the sessions that it answered.
    answered: mpsc::UnboundedReceiver<Outcome>,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Peer {
    fn new(policy: &Policy) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(folder.path(), EmbeddedOptions::default()).unwrap();
        let random = Box::new(|| rand::rng().random());
        let replica = Replica::open(store, ReplicaOptions::default(), random).unwrap();
        let collection = replica
            .create_collection(CollectionSpec {
                name: CollectionName::new("players").unwrap(),
                algorithm: Default::default(),
                policy: policy.clone(),
            })
            .unwrap();
        let node = Arc::new(Node {
            replica: Arc::new(replica),
            identity: Arc::new(Identity::generate().unwrap()),
            config: SyncConfig::default(),
            patience: Duration::from_secs(20),
            access: Access::default(),
            sessions: SessionManager::default(),
        });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let admission = Arc::new(node.access.clone());
        let identity = Arc::clone(&node.identity);
        let endpoint = Endpoint::bind(identity, address, admission, NetLimits::default()).unwrap();
        let (stop, stopped) = watch::channel(false);
        let (tell, answered) = mpsc::unbounded_channel();
        let listener = Arc::new(move |event| {
            if let Event::Session { report, .. } = event {
                let _ = tell.send(report.outcome);
            }
        });
        let serving = server::serve(Arc::clone(&node), endpoint.clone(), stopped, listener);
        let server = tokio::spawn(serving);
        Self { node, endpoint, collection, answered, stop, server, _folder: folder }
    }

    async fn link(&self, other: &Self) -> Link {
        let address = PeerAddress::new(other.node.id(), other.endpoint.local_address());
        self.node.connect(&self.endpoint, &address, LIMIT).await.unwrap()
    }

    /// The sessions of one synchronisation, as this end saw them; none if one that the other opened
    /// was running.
    async fn synchronise(&self, link: &Link) -> Vec<Outcome> {
        let (_stop, stopped) = watch::channel(false);
        let config = SyncConfig::default();
        let done = self.node.synchronise(link, &self.collection, &config, stopped, &Unwatched);
        match timeout(LIMIT, done).await.expect("a session that ends") {
            Ok(done) => done.reports.into_iter().map(|report| report.outcome).collect(),
            Err(ClientError::NoPlace(AbortCode::Duplicate)) => Vec::new(),
            Err(error) => panic!("{error}"),
        }
    }

    async fn close(self) {
        self.stop.send(true).unwrap();
        self.server.await.unwrap();
    }
}

fn friends(policy: &Policy) -> [Peer; 2] {
    let (a, b) = (Peer::new(policy), Peer::new(policy));
    a.node.access.allow(b.node.id());
    b.node.access.allow(a.node.id());
    [a, b]
}

/// What all writers did, as they were answered.
#[derive(Default)]
struct Ledger {
    written: BTreeMap<Dot, (Key, Vec<u8>)>,
    /// Dots that somebody had read and put something in their place, or deleted.
    replaced: BTreeSet<Dot>,
}

impl Ledger {
    fn living(&self) -> BTreeMap<Dot, (Key, Vec<u8>)> {
        let living = self.written.iter().filter(|(dot, _)| !self.replaced.contains(dot));
        living.map(|(dot, written)| (*dot, written.clone())).collect()
    }
}

/// All that a collection holds, by dot.
fn held(collection: &Disk) -> BTreeMap<Dot, (Key, Vec<u8>)> {
    let view = collection.snapshot().unwrap();
    let mut held = BTreeMap::new();
    for entry in view.entries_after(None, usize::MAX, |_| true).unwrap() {
        let key_hash = collection.key_hash(&entry.key);
        for sibling in entry.record.siblings() {
            let value = view.value(&key_hash, &sibling.value_hash).unwrap().unwrap();
            held.insert(sibling.dot, (entry.key.clone(), value.to_vec()));
        }
    }
    held
}

/// Eight writers at one end, until they are told to stop.
struct Writers {
    threads: Vec<std::thread::JoinHandle<Ledger>>,
    /// Writes of each that were answered.
    counts: Arc<[AtomicU64; WRITERS as usize]>,
}

impl Writers {
    fn start(end: u64, collection: &Arc<Disk>, stop: &Arc<AtomicBool>) -> Self {
        let counts: Arc<[AtomicU64; WRITERS as usize]> = Arc::default();
        let threads = (0..WRITERS)
            .map(|writer| {
                let (collection, stop) = (Arc::clone(collection), Arc::clone(stop));
                let counts = Arc::clone(&counts);
                std::thread::spawn(move || {
                    let mut rng = SmallRng::seed_from_u64(end * WRITERS + writer);
                    let mut ledger = Ledger::default();
                    while !stop.load(Ordering::Relaxed) {
                        write_once(&collection, &mut ledger, &mut rng, end * WRITERS + writer);
                        counts[writer as usize].fetch_add(1, Ordering::Relaxed);
                    }
                    ledger
                })
            })
            .collect();
        Self { threads, counts }
    }

    fn counts(&self) -> Vec<u64> {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    fn join(self, ledger: &mut Ledger) {
        for thread in self.threads {
            let of_one = thread.join().unwrap();
            ledger.written.extend(of_one.written);
            ledger.replaced.extend(of_one.replaced);
        }
    }
}

/// Reads a key, then writes or deletes over what was read.
fn write_once(collection: &Disk, ledger: &mut Ledger, rng: &mut SmallRng, writer: u64) {
    let name = if rng.random_ratio(1, 3) {
        format!("shared:{}", rng.random_range(0..SHARED))
    } else {
        format!("own:{writer}:{}", rng.random_range(0..OWN))
    };
    let key = Key::new(name.into_bytes()).unwrap();
    let now = Node::<EmbeddedStore>::now_ms();
    let entry = collection.get(&key).unwrap();
    let read: Vec<Dot> =
        entry.iter().flat_map(|entry| entry.record.siblings()).map(|s| s.dot).collect();
    if rng.random_ratio(1, 5) {
        collection.delete_dots(&key, &read, now).unwrap();
    } else {
        // some small enough to ride along, some that travel by themselves, some compared by parts
        let len = [20, 300, 5_000][rng.random_range(0..3)];
        let mut value = vec![0; len];
        rng.fill(&mut value[..16]);
        let sibling = collection.put_over(&key, value.clone(), &read, now).unwrap();
        ledger.written.insert(sibling.dot, (key, value));
    }
    ledger.replaced.extend(read);
}

/// Neither end says that all is the same while the other says that it failed; and writes beside a
/// session are no reason for one to fail.
fn check(here: &Outcome, there: &Outcome) {
    for outcome in [here, there] {
        assert!(
            matches!(outcome, Outcome::Complete { .. } | Outcome::Partial),
            "a session beside writers ended as {outcome:?}"
        );
    }
    match (here, there) {
        (Outcome::Complete { certificate: one }, Outcome::Complete { certificate: other }) => {
            assert_eq!(one, other, "both hold the same certificate");
        }
        _ => assert_eq!(std::mem::discriminant(here), std::mem::discriminant(there)),
    }
}

/// Both hold just the versions that must live, and are the same.
fn check_all([a, b]: &[Peer; 2], ledger: &Ledger) {
    let living = ledger.living();
    for peer in [a, b] {
        let held = held(&peer.collection);
        let lost: Vec<_> = living.keys().filter(|dot| !held.contains_key(dot)).collect();
        let back: Vec<_> = held.keys().filter(|dot| !living.contains_key(dot)).collect();
        assert!(lost.is_empty() && back.is_empty(), "lost: {lost:?}; came back: {back:?}");
        assert_eq!(held, living);
        let report = peer.collection.check().unwrap();
        assert!(report.is_sound(), "{report:?}");
    }
    assert_eq!(a.collection.state_hash().unwrap(), b.collection.state_hash().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_end_and_lose_nothing_while_eight_writers_at_each_end_go_on() {
    let _turn = TURN.lock().await;
    let mut peers = friends(&Policy::Siblings);
    let links = [peers[0].link(&peers[1]).await, peers[1].link(&peers[0]).await];
    let stop = Arc::new(AtomicBool::new(false));
    let writers = [0, 1].map(|end| Writers::start(end as u64, &peers[end].collection, &stop));
    let mut idle_before: [Vec<u64>; 2] = [Vec::new(), Vec::new()];
    for number in 0..sessions() {
        let (from, to) = (number % 2, 1 - number % 2);
        let outcomes = peers[from].synchronise(&links[from]).await;
        for outcome in outcomes {
            let other = timeout(LIMIT, peers[to].answered.recv()).await.unwrap().unwrap();
            check(&outcome, &other);
        }
        for (end, before) in idle_before.iter_mut().enumerate() {
            *before = wait_for_all(&writers[end], before).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut ledger = Ledger::default();
    for writers in writers {
        writers.join(&mut ledger);
    }
    assert!(ledger.replaced.len() > 100 && ledger.written.len() > 100, "they wrote");
    for outcome in peers[0].synchronise(&links[0]).await {
        let other = timeout(LIMIT, peers[1].answered.recv()).await.unwrap().unwrap();
        check(&outcome, &other);
    }
    check_all(&peers, &ledger);
    for peer in peers {
        peer.close().await;
    }
}

/// Waits until each of them has written since the counts were `before`: a writer that waits for
/// ever is the one that a session starves.
async fn wait_for_all(writers: &Writers, before: &[u64]) -> Vec<u64> {
    let moved = async {
        loop {
            let counts = writers.counts();
            let idle = |at: usize| before.get(at).is_some_and(|before| counts[at] <= *before);
            if !(0..counts.len()).any(idle) {
                return counts;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(LIMIT, moved).await.expect("writers that are never answered")
}

/// Both ends open sessions at once, as daemons do after a burst: one of two that cross is turned
/// away as a duplicate, and the other goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_opened_from_both_ends_at_once_go_on_beside_writers() {
    let _turn = TURN.lock().await;
    let peers = friends(&Policy::Lww);
    let links = [peers[0].link(&peers[1]).await, peers[1].link(&peers[0]).await];
    let stop = Arc::new(AtomicBool::new(false));
    let writers = [0, 1].map(|end| Writers::start(end as u64, &peers[end].collection, &stop));
    let outcomes = std::sync::Mutex::new(Vec::new());
    let run = async |from: usize| {
        let peer = &peers[from];
        let mut completed = 0;
        for _ in 0..sessions() * 16 {
            for outcome in peer.synchronise(&links[from]).await {
                completed += usize::from(matches!(outcome, Outcome::Complete { .. }));
                outcomes.lock().unwrap().push(outcome);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
            if completed >= sessions() / 2 {
                break;
            }
        }
        assert!(completed > 0, "end {from} never had its turn");
    };
    tokio::join!(run(0), run(1));
    for outcome in outcomes.into_inner().unwrap() {
        let expected = matches!(
            outcome,
            Outcome::Complete { .. }
                | Outcome::Partial
                | Outcome::Failed(Failure::Peer(AbortCode::Duplicate | AbortCode::Busy { .. }))
        );
        assert!(expected, "{outcome:?}");
    }
    stop.store(true, Ordering::Relaxed);
    let mut ledger = Ledger::default();
    for writers in writers {
        writers.join(&mut ledger);
    }
    let last = peers[0].synchronise(&links[0]).await;
    assert!(matches!(last.last(), Some(Outcome::Complete { .. })), "{last:?}");
    check_all(&peers, &ledger);
    for peer in peers {
        peer.close().await;
    }
}
