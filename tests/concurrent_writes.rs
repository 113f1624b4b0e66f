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

/// Nothing is waited for longer.
const LIMIT: Duration = Duration::from_secs(240);
const WRITERS: u64 = 8;
/// Keys that all writers of both ends share, and keys of one writer alone.
const SHARED: u64 = 64;
const OWN: u64 = 40;
/// Sessions that must end while everybody writes, unless `SELFSAME_SESSIONS` says how many.
const SESSIONS: usize = 30;

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
    answered: Mutex<mpsc::UnboundedReceiver<Outcome>>,
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
        let answered = Mutex::new(answered);
        Self { node, endpoint, collection, answered, stop, server, _folder: folder }
    }

    async fn close(self) {
        self.stop.send(true).unwrap();
        self.server.await.unwrap();
    }
}

/// The way of one end to the other.
struct Way<'a> {
    from: &'a Peer,
    to: &'a Peer,
    link: Option<Link>,
}

impl<'a> Way<'a> {
    const fn new(from: &'a Peer, to: &'a Peer) -> Self {
        Self { from, to, link: None }
    }

    /// A link that is open: one over which nothing went for long is dialled again, as daemons do.
    async fn link(&mut self) -> &Link {
        let open = self.link.take().filter(|link| link.connection().close_reason().is_none());
        let link = match open {
            Some(link) => link,
            None => {
                let address = PeerAddress::new(self.to.node.id(), self.to.endpoint.local_address());
                self.from.node.connect(&self.from.endpoint, &address, LIMIT).await.unwrap()
            }
        };
        self.link.insert(link)
    }

    /// The sessions of one synchronisation, as this end saw them; none if one that the other opened
    /// was running.
    async fn synchronise(&mut self) -> Vec<Outcome> {
        let from = self.from;
        let (_stop, stopped) = watch::channel(false);
        let config = SyncConfig::default();
        let link = self.link().await;
        let done = from.node.synchronise(link, &from.collection, &config, stopped, &Unwatched);
        match timeout(LIMIT, done).await.expect("a session that ends") {
            Ok(done) => done.reports.into_iter().map(|report| report.outcome).collect(),
            Err(ClientError::NoPlace(AbortCode::Duplicate)) => Vec::new(),
            Err(error) => panic!("{error}"),
        }
    }

    /// Synchronises where nobody else does, and compares what both ends say of it.
    async fn compare(&mut self) {
        for outcome in self.synchronise().await {
            let other = timeout(LIMIT, self.to.answered.lock().await.recv()).await;
            check(&outcome, &other.unwrap().unwrap());
        }
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
    let peers = friends(&Policy::Siblings);
    let [a, b] = &peers;
    let mut ways = [Way::new(a, b), Way::new(b, a)];
    let stop = Arc::new(AtomicBool::new(false));
    let writers = [0, 1].map(|end| Writers::start(end as u64, &peers[end].collection, &stop));
    let mut idle_before: [Vec<u64>; 2] = [Vec::new(), Vec::new()];
    for number in 0..sessions() {
        ways[number % 2].compare().await;
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
    ways[0].compare().await;
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
    let peers = friends(&Policy::Lww);
    let [a, b] = &peers;
    let stop = Arc::new(AtomicBool::new(false));
    let writers = [0, 1].map(|end| Writers::start(end as u64, &peers[end].collection, &stop));
    let run = async |mut way: Way| {
        let (mut outcomes, mut completed) = (Vec::new(), 0);
        while completed < sessions() / 2 {
            for outcome in way.synchronise().await {
                completed += usize::from(matches!(outcome, Outcome::Complete { .. }));
                outcomes.push(outcome);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        outcomes
    };
    let both = async { tokio::join!(run(Way::new(a, b)), run(Way::new(b, a))) };
    let (ours, theirs) = timeout(LIMIT, both).await.expect("each end has its turn");
    for outcome in ours.into_iter().chain(theirs) {
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
    let last = Way::new(a, b).synchronise().await;
    assert!(matches!(last.last(), Some(Outcome::Complete { .. })), "{last:?}");
    check_all(&peers, &ledger);
    for peer in peers {
        peer.close().await;
    }
}
