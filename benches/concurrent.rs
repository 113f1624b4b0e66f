//! Sessions while eight writers at each of two ends write without a pause, on stores on disk, over
//! real QUIC on loopback: what sessions cost the writers, and what writers cost the sessions.
//!
//! Three phases, each on fresh nodes with so many entries that both hold: writers alone, sessions
//! alone (each after 1,000 puts), and both at once, sessions one after the other. Prints puts a
//! second of both ends together, how long a put and a session take (median, 99 of 100, longest; of
//! sessions also the medians of the earlier and of the later half: do they grow?), and CPU time.
//!
//! `cargo bench --bench concurrent -- 100000 10` (entries, seconds a phase), and a phase by name
//! after that for it alone.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use selfsame::net::{Endpoint, Identity, Link, NetLimits, PeerAddress};
use selfsame::node::access::Access;
use selfsame::node::manager::SessionManager;
use selfsame::node::{Node, Unwatched, server};
use selfsame::replica::{Collection, Replica, ReplicaOptions};
use selfsame::session::{Outcome, SyncConfig};
use selfsame::store::{Durability, EmbeddedOptions, EmbeddedStore};
use selfsame::types::{CollectionName, CollectionSpec, Key, Policy};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const WRITERS: u64 = 8;
const VALUE_BYTES: usize = 740;
const PATIENCE: Duration = Duration::from_secs(30);

struct Peer {
    node: Arc<Node<EmbeddedStore>>,
    endpoint: Endpoint,
    collection: Arc<Collection<EmbeddedStore>>,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

fn now() -> u64 {
    Node::<EmbeddedStore>::now_ms()
}

impl Peer {
    fn new(durability: Durability) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(folder.path(), EmbeddedOptions::default()).unwrap();
        let options = ReplicaOptions { durability, ..ReplicaOptions::default() };
        let replica = Replica::open(store, options, Box::new(rand::random::<u64>)).unwrap();
        let name = CollectionName::new("bench").unwrap();
        let spec = CollectionSpec { name, algorithm: Default::default(), policy: Policy::Lww };
        let collection = replica.create_collection(spec).unwrap();
        let node = Arc::new(Node {
            replica: Arc::new(replica),
            identity: Arc::new(Identity::generate().unwrap()),
            config: SyncConfig::default(),
            patience: PATIENCE,
            access: Access::default(),
            sessions: SessionManager::default(),
        });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let admission = Arc::new(node.access.clone());
        let identity = Arc::clone(&node.identity);
        let endpoint = Endpoint::bind(identity, address, admission, NetLimits::default()).unwrap();
        let (stop, stopped) = watch::channel(false);
        let listener = Arc::new(|_| {});
        let serving = server::serve(Arc::clone(&node), endpoint.clone(), stopped, listener);
        let server = tokio::spawn(serving);
        Self { node, endpoint, collection, stop, server, _folder: folder }
    }

    async fn session(&self, link: &Link) {
        let (_stop, stopped) = watch::channel(false);
        let config = SyncConfig::default();
        let done = self.node.synchronise(link, &self.collection, &config, stopped, &Unwatched);
        let done = done.await.unwrap();
        assert!(matches!(done.last().outcome, Outcome::Complete { .. }), "{:?}", done.last());
    }
}

/// Two that know each other, and hold the same entries.
async fn pair(entries: u64, durability: Durability) -> ([Peer; 2], Link) {
    let peers = [Peer::new(durability), Peer::new(durability)];
    peers[0].node.access.allow(peers[1].node.id());
    peers[1].node.access.allow(peers[0].node.id());
    for from in (0..entries).step_by(4_096) {
        let batch = (from..entries.min(from + 4_096)).map(|number| (key(number), value(number)));
        peers[0].collection.import(batch, now()).unwrap();
    }
    let address = PeerAddress::new(peers[1].node.id(), peers[1].endpoint.local_address());
    let link = peers[0].node.connect(&peers[0].endpoint, &address, PATIENCE).await.unwrap();
    peers[0].session(&link).await;
    (peers, link)
}

fn key(number: u64) -> Key {
    Key::new(format!("player:{number:012}")).unwrap()
}

fn value(number: u64) -> Arc<[u8]> {
    let mut value = vec![0; VALUE_BYTES];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut value);
    value.into()
}

/// Writes to random keys of the collection until told to stop: how long each put took.
fn write(collection: &Collection<EmbeddedStore>, entries: u64, stop: &AtomicBool) -> Vec<Duration> {
    let mut took = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let number = rand::random::<u64>();
        let (key, value) = (key(number % entries), value(number));
        let begun = Instant::now();
        collection.put(&key, value, now()).unwrap();
        took.push(begun.elapsed());
    }
    took
}

/// CPU time of all threads so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks =
        after.split_whitespace().skip(11).take(2).filter_map(|word| word.parse::<u64>().ok());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

/// Median, 99 of 100, longest.
fn spread(mut took: Vec<Duration>) -> String {
    if took.is_empty() {
        return "none".to_owned();
    }
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    format!("{:.2?} / {:.2?} / {:.2?}", at(0.5), at(0.99), at(1.0))
}

fn median(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took.get(took.len() / 2).copied().unwrap_or_default()
}

struct Phase {
    name: &'static str,
    writers: bool,
    sessions: bool,
}

async fn measure(phase: &Phase, entries: u64, span: Duration, durability: Durability) {
    let (peers, link) = pair(entries, durability).await;
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = peers
        .iter()
        .filter(|_| phase.writers)
        .flat_map(|peer| std::iter::repeat_n(&peer.collection, WRITERS as usize))
        .map(|collection| {
            let (collection, stop) = (Arc::clone(collection), Arc::clone(&stop));
            std::thread::spawn(move || write(&collection, entries, &stop))
        })
        .collect();
    let (begun, cpu_begun) = (Instant::now(), cpu());
    let mut sessions = Vec::new();
    while begun.elapsed() < span {
        if !phase.sessions {
            tokio::time::sleep(span).await;
            continue;
        }
        if !phase.writers {
            let puts = (0..1_000).map(|_| rand::random::<u64>());
            let puts = puts.map(|number| (key(number % entries), value(number)));
            peers[0].collection.import(puts, now()).unwrap();
        }
        let opened = Instant::now();
        peers[0].session(&link).await;
        sessions.push(opened.elapsed());
    }
    let (elapsed, used) = (begun.elapsed(), cpu() - cpu_begun);
    stop.store(true, Ordering::Relaxed);
    let puts: Vec<Vec<Duration>> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    let fewest = puts.iter().map(Vec::len).min().unwrap_or(0);
    let most = puts.iter().map(Vec::len).max().unwrap_or(0);
    let puts: Vec<Duration> = puts.into_iter().flatten().collect();
    let rate = |count: usize| count as f64 / elapsed.as_secs_f64();
    println!(
        "{:9} {:8.0} puts/s, each {}, a writer made {fewest} to {most}",
        phase.name,
        rate(puts.len()),
        spread(puts)
    );
    let (earlier, later) = sessions.split_at(sessions.len() / 2);
    let halves = [earlier, later].map(|half| median(half.to_vec()));
    println!(
        "{:9} {:8.2} sessions/s, each {}, earlier and later half {halves:.2?}, {used:.1?} CPU in \
         {elapsed:.1?}",
        "",
        rate(sessions.len()),
        spread(sessions)
    );
    let begun = Instant::now();
    peers[0].session(&link).await;
    let equal =
        peers[0].collection.state_hash().unwrap() == peers[1].collection.state_hash().unwrap();
    assert!(equal, "the session after the last write makes both the same");
    println!("{:9} the session after the last write: {:.2?}", "", begun.elapsed());
    for peer in peers {
        peer.stop.send(true).unwrap();
        peer.server.await.unwrap();
    }
}

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
    let (entries, seconds) = (number(0).unwrap_or(100_000), number(1).unwrap_or(10));
    let phases = [
        Phase { name: "writers", writers: true, sessions: false },
        Phase { name: "sessions", writers: false, sessions: true },
        Phase { name: "both", writers: true, sessions: true },
    ];
    let picked = words.get(2);
    for durability in [Durability::Always, Durability::Periodic] {
        println!("{entries} entries of {VALUE_BYTES} bytes, durability {durability:?}");
        for phase in phases.iter().filter(|p| picked.is_none_or(|name| p.name == name)) {
            measure(phase, entries.max(1), Duration::from_secs(seconds), durability).await;
        }
    }
}
