//! Daemons on loopback: they become the same by themselves, and nobody holds up the others.
#![cfg(feature = "node")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;
use selfsame::clock::Stamp;
use selfsame::hash::HashAlgorithm;
use selfsame::merkle::forest_root;
use selfsame::net::{
    CloseCode, Endpoint, FrameWriter, Identity, Link, NetLimits, PeerAddress, StreamKind,
};
use selfsame::node::access::Access;
use selfsame::node::config::Config;
use selfsame::node::daemon::{Daemon, DaemonSettings};
use selfsame::node::manager::{SessionKey, SessionLimits, SessionManager};
use selfsame::node::peers::{Grant, Grants, PeerBook, PeerEntry};
use selfsame::node::query::{Answer, WireForest};
use selfsame::node::status::{PairStatus, SessionEvent};
use selfsame::node::{Node, Unwatched, server};
use selfsame::replica::{Collection, Replica, ReplicaOptions};
use selfsame::session::message::Bytes;
use selfsame::session::{AbortCode, Mode, Outcome, SyncConfig};
use selfsame::store::{Batch, Durability, MemoryStore, Read, Span, Store, Table};
use selfsame::types::{CollectionName, CollectionSpec, Key, NodeId, Policy};
use tokio::sync::{Barrier, watch};
use tokio::time::{sleep, timeout};

/// No test takes longer.
const LIMIT: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(500);
/// For a machine with other things to do.
const SLACK: Duration = Duration::from_secs(8);

type Mem = Collection<MemoryStore>;

struct Peer {
    node: Node<MemoryStore>,
    endpoint: Endpoint,
    daemon: Option<Daemon<MemoryStore>>,
}

fn settings() -> DaemonSettings {
    let mut settings = DaemonSettings::default();
    settings.schedule.interval_ms = INTERVAL.as_millis() as u64;
    settings.schedule.quiet_ms = 60;
    settings.schedule.burst_ms = 200;
    settings.schedule.first_retry_ms = 100;
    settings.schedule.last_retry_ms = 400;
    settings.patience = Duration::from_secs(3);
    settings.dial = Duration::from_secs(2);
    settings.shutdown = Duration::from_secs(5);
    settings
}

impl Peer {
    fn new() -> Self {
        let random = Box::new(|| rand::rng().random());
        let replica = Replica::open(MemoryStore::default(), ReplicaOptions::default(), random);
        let node = Node {
            replica: Arc::new(replica.unwrap()),
            identity: Arc::new(Identity::generate().unwrap()),
            config: SyncConfig::default(),
            patience: Duration::from_secs(3),
            access: Access::default(),
            sessions: SessionManager::default(),
        };
        let endpoint = bind(&node, (Ipv4Addr::LOCALHOST, 0).into());
        Self { node, endpoint, daemon: None }
    }

    fn id(&self) -> NodeId {
        self.node.id()
    }

    fn address(&self) -> PeerAddress {
        PeerAddress::new(self.id(), self.endpoint.local_address())
    }

    fn collection(&self, name: &str) -> Arc<Mem> {
        let spec = CollectionSpec {
            name: CollectionName::new(name).unwrap(),
            algorithm: HashAlgorithm::Blake3,
            policy: Policy::Lww,
        };
        self.node.replica.create_collection(spec).unwrap()
    }

    /// This peer in the book of another.
    fn entry(&self, grant: Grant, dialled: bool) -> PeerEntry {
        let addresses = dialled.then(|| self.endpoint.local_address().into());
        PeerEntry {
            id: self.id(),
            name: None,
            addresses: addresses.into_iter().collect(),
            grants: Grants::all(grant),
        }
    }

    fn knows(&self, peers: Vec<PeerEntry>) {
        self.node.access.set_book(PeerBook { peers });
    }

    fn start(&mut self) -> Daemon<MemoryStore> {
        self.start_with(settings())
    }

    fn start_with(&mut self, settings: DaemonSettings) -> Daemon<MemoryStore> {
        let daemon = Daemon::start(self.node.clone(), self.endpoint.clone(), settings);
        self.daemon = Some(daemon.clone());
        daemon
    }

    async fn stop(self) {
        if let Some(daemon) = &self.daemon {
            assert!(timeout(LIMIT, daemon.stop()).await.unwrap(), "it stops in time");
        }
    }
}

fn bind(node: &Node<MemoryStore>, address: SocketAddr) -> Endpoint {
    let limits = NetLimits { idle_timeout: Duration::from_secs(2), ..NetLimits::default() };
    let admission = Arc::new(node.access.clone());
    Endpoint::bind(Arc::clone(&node.identity), address, admission, limits).unwrap()
}

fn key(name: impl ToString) -> Key {
    Key::new(name.to_string().into_bytes()).unwrap()
}

fn now() -> u64 {
    Node::<MemoryStore>::now_ms()
}

fn put(collection: &Mem, name: impl ToString, value: impl ToString) {
    collection.put(&key(name), value.to_string().into_bytes(), now()).unwrap();
}

/// Waits until it is so; the time it took.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < LIMIT, "never: {what}");
        sleep(Duration::from_millis(10)).await;
    }
    started.elapsed()
}

fn same(collections: &[&Mem]) -> bool {
    let first = collections[0].state_hash().unwrap();
    collections.iter().all(|one| one.state_hash().unwrap() == first)
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    rand::rng().fill(&mut noise[..]);
    noise
}

/// Two peers that know each other; the first dials.
fn pair() -> (Peer, Peer) {
    let (a, b) = (Peer::new(), Peer::new());
    a.knows(vec![b.entry(Grant::Write, true)]);
    b.knows(vec![a.entry(Grant::Write, false)]);
    (a, b)
}

fn of_pair(daemon: &Daemon<MemoryStore>, peer: &NodeId, collection: &str) -> Option<PairStatus> {
    let pairs = daemon.status().pairs;
    pairs.into_iter().find(|pair| pair.peer == peer.to_string() && pair.collection == collection)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_under_writes_are_equal_soon_after_the_writes_stop() {
    let (mut a, mut b) = pair();
    let (of_a, of_b) = (a.collection("c"), b.collection("c"));
    let (at_a, at_b) = (a.start(), b.start());
    for round in 0..40 {
        for (side, collection) in [("a", &of_a), ("b", &of_b)] {
            put(collection, format!("{side}{round}"), round);
            put(collection, format!("both{}", round % 7), format!("{side}{round}"));
            if round % 3 == 0 {
                collection.delete(&key(format!("{side}{}", round / 2)), now()).unwrap();
            }
        }
        sleep(Duration::from_millis(15)).await;
    }
    let took = until("equal", || same(&[&of_a, &of_b])).await;
    assert!(took < INTERVAL * 2 + SLACK, "{took:?}");
    let known = |daemon: &Daemon<MemoryStore>, peer: &Peer| {
        of_pair(daemon, &peer.id(), "c").is_some_and(|pair| pair.equal_since_ms.is_some())
    };
    until("both know it", || known(&at_a, &b) && known(&at_b, &a)).await;
    let since = of_pair(&at_a, &b.id(), "c").unwrap().equal_since_ms;
    sleep(INTERVAL * 2).await;
    assert_eq!(of_pair(&at_a, &b.id(), "c").unwrap().equal_since_ms, since, "kept while it is so");
    let status = at_b.status();
    let peer = status.peers.iter().find(|peer| peer.id == a.id().to_string()).unwrap();
    assert!(peer.connected_since_ms.is_some() && !peer.clock_is_off && peer.last_error.is_none());
    assert_eq!(status.collections[0].root, of_a.root().unwrap().to_string());
    put(&of_a, "one more", 1);
    assert_eq!(of_pair(&at_a, &b.id(), "c").unwrap().equal_since_ms, None, "at once");
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_away_takes_part_as_it_is_and_deletions_stay() {
    let (mut a, mut b, mut c) = (Peer::new(), Peer::new(), Peer::new());
    // a line: a and c know only b
    a.knows(vec![b.entry(Grant::Write, true)]);
    b.knows(vec![a.entry(Grant::Write, false), c.entry(Grant::Write, false)]);
    c.knows(vec![b.entry(Grant::Write, true)]);
    let all = [a.collection("c"), b.collection("c"), c.collection("c")];
    let [of_a, of_b, of_c] = all.each_ref().map(|one| &**one);
    a.start();
    b.start();
    let at_c = c.start();
    for at in 0..50 {
        put(of_a, at, "first");
    }
    until("all have it", || same(&[of_a, of_b, of_c]) && of_c.totals().unwrap().entries == 50)
        .await;
    assert!(at_c.stop().await);
    for at in 0..20 {
        of_a.delete(&key(at), now()).unwrap();
    }
    put(of_c, "while away", 1);
    put(of_c, 30, "changed while away");
    until("the others have it", || same(&[of_a, of_b])).await;
    c.endpoint = bind(&c.node, (Ipv4Addr::LOCALHOST, 0).into());
    c.start();
    until("all are the same", || same(&[of_a, of_b, of_c])).await;
    assert_eq!(of_c.totals().unwrap().entries, 31);
    assert!(of_a.get(&key(3)).unwrap().is_none() && of_c.get(&key(3)).unwrap().is_none());
    let kept = of_a.read(&key(30)).unwrap().unwrap();
    assert_eq!(kept.versions[0].value.as_deref(), Some(&b"changed while away"[..]));
    for peer in [a, b, c] {
        peer.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_a_peer_within_a_session_disturbs_nobody() {
    let (mut a, mut b, mut c) = (Peer::new(), Peer::new(), Peer::new());
    a.knows(vec![b.entry(Grant::Write, true), c.entry(Grant::Write, true)]);
    b.knows(vec![a.entry(Grant::Write, false)]);
    c.knows(vec![a.entry(Grant::Write, false)]);
    let (of_a, of_b, of_c) = (a.collection("c"), b.collection("c"), c.collection("c"));
    for at in 0..150 {
        of_b.put(&key(format!("b{at}")), noise(200_000), now()).unwrap();
    }
    let at_a = a.start();
    b.start();
    until("a session with b runs", || {
        at_a.status().running.iter().any(|one| one.bytes_received > 100_000)
            || of_a.totals().unwrap().entries > 0
    })
    .await;
    b.endpoint.close(CloseCode::Internal, "killed by the test").await;
    c.start();
    put(&of_c, "of c", 1);
    until("a and c are the same", || same(&[&of_a, &of_c])).await;
    put(&of_a, "later", 2);
    let took = until("still", || same(&[&of_a, &of_c])).await;
    assert!(took < INTERVAL * 4 + SLACK, "{took:?}");
    until("the error is told", || {
        let status = at_a.status();
        let of_b = status.peers.iter().find(|peer| peer.id == b.id().to_string()).unwrap();
        of_b.connected_since_ms.is_none() && of_b.last_error.is_some()
    })
    .await;
    a.stop().await;
    c.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_sessions_opened_at_once_one_runs() {
    let (a, b) = pair();
    let (stop, stopped) = watch::channel(false);
    for peer in [&a, &b] {
        let (node, endpoint) = (Arc::new(peer.node.clone()), peer.endpoint.clone());
        tokio::spawn(server::serve(node, endpoint, stopped.clone(), Arc::new(|_| {})));
    }
    let mut outcomes = Vec::new();
    for round in 0..12 {
        let name = format!("c{round}");
        let ends = [(&a, &b), (&b, &a)].map(|(own, other)| {
            let collection = own.collection(&name);
            for at in 0..200 {
                put(&collection, format!("{}{at}", own.id()), at);
            }
            (own.node.clone(), own.endpoint.clone(), collection, other.address())
        });
        let barrier = Arc::new(Barrier::new(2));
        let both = ends.map(|(node, endpoint, collection, address)| {
            let barrier = Arc::clone(&barrier);
            tokio::spawn(async move {
                let link = node.connect(&endpoint, &address, LIMIT).await.unwrap();
                barrier.wait().await;
                let (_stop, stopped) = watch::channel(false);
                let config = SyncConfig::default();
                let done =
                    node.synchronise_now(&link, &collection, &config, stopped, &Unwatched).await;
                done.map(|done| done.last().outcome.clone())
            })
        });
        let [one, other] = both;
        for done in [one.await.unwrap(), other.await.unwrap()] {
            outcomes.push(match done {
                Ok(Outcome::Complete { .. }) => "complete",
                Ok(Outcome::Failed(failure)) => {
                    let code = "another session of the two nodes over the collection runs";
                    assert!(failure.to_string().contains(code), "{failure}");
                    "duplicate"
                }
                Ok(other) => panic!("{other:?}"),
                Err(error) => {
                    assert!(error.to_string().contains("another session"), "{error}");
                    "duplicate"
                }
            });
        }
        until("equal", || same(&[&a.collection(&name), &b.collection(&name)])).await;
    }
    assert!(outcomes.contains(&"complete"), "{outcomes:?}");
    for round in outcomes.chunks(2) {
        assert_ne!(round, ["duplicate", "duplicate"], "one goes on");
    }
    stop.send(true).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_peer_is_waited_for_as_it_asks() {
    let (a, mut b) = pair();
    let (of_a, of_b) = (a.collection("c"), b.collection("c"));
    put(&of_a, "k", 1);
    let mut limited = settings();
    limited.sessions = SessionLimits { max_concurrent: 1, ..SessionLimits::default() };
    let at_b = b.start_with(limited);
    let other = CollectionName::new("other").unwrap();
    let taken = SessionKey { me: b.id(), peer: NodeId([9; 32]), collection: other };
    let place = b.node.sessions.admit(taken, true).unwrap();
    let link = a.node.connect(&a.endpoint, &b.address(), LIMIT).await.unwrap();
    let (_stop, stopped) = watch::channel(false);
    let config = SyncConfig::default();
    let now_or_never =
        a.node.synchronise_now(&link, &of_a, &config, stopped.clone(), &Unwatched).await.unwrap();
    let code = now_or_never.last().turned_away().expect("busy");
    assert!(matches!(code, AbortCode::Busy { retry_after_ms: 200.. }), "{code}");
    let free = async {
        sleep(Duration::from_millis(300)).await;
        drop(place);
    };
    let started = Instant::now();
    let waiting = a.node.synchronise(&link, &of_a, &config, stopped, &Unwatched);
    let (done, ()) = tokio::join!(waiting, free);
    assert!(matches!(done.unwrap().last().outcome, Outcome::Complete { .. }));
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert!(same(&[&of_a, &of_b]));
    assert!(at_b.status().sessions.turned_away >= 2);
    b.stop().await;
}

/// A hello as a peer would say it.
fn hello(of: &Mem) -> Vec<u8> {
    use selfsame::limits::Limits;
    use selfsame::session::{Lane, Session, Setup};
    let view = of.snapshot().unwrap();
    let setup = Setup {
        me: NodeId([1; 32]),
        peer: NodeId([2; 32]),
        config: SyncConfig { mode: Mode::Both, ..SyncConfig::default() },
        limits: Limits::default(),
        secret: rand::rng().random(),
        clock: Stamp::new(now(), 0),
    };
    Session::initiate(setup, &view).poll_transmit(Lane::Control, &view).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_and_flooding_peers_are_cut_and_counted_while_others_are_served() {
    let (mut a, mut b) = (Peer::new(), Peer::new());
    let hostile = Peer::new();
    a.knows(vec![b.entry(Grant::Write, true), hostile.entry(Grant::Write, false)]);
    b.knows(vec![a.entry(Grant::Write, false)]);
    hostile.knows(vec![a.entry(Grant::Write, true)]);
    let (of_a, of_b) = (a.collection("c"), b.collection("c"));
    let mut impatient = settings();
    impatient.patience = Duration::from_millis(800);
    impatient.sessions = SessionLimits { max_concurrent: 8, ..SessionLimits::default() };
    let at_a = a.start_with(impatient);
    b.start();
    let link = hostile.node.connect(&hostile.endpoint, &a.address(), LIMIT).await.unwrap();
    let mut streams = Vec::new();
    for at in 0..40 {
        let (send, receive) = link.open(StreamKind::Session).await.unwrap();
        let mut writer = FrameWriter::new(send, 1 << 20);
        // some say hello and then nothing more, some not even that
        if at < 30 {
            let other = hostile.collection(&format!("c{}", at % 10));
            put(&other, "x", at);
            a.collection(&format!("c{}", at % 10));
            writer.write_frame(&hello(&other)).await.unwrap();
        }
        streams.push((writer, receive));
    }
    for round in 0..5 {
        put(&of_b, round, "served");
        let took = until("equal", || same(&[&of_a, &of_b])).await;
        assert!(took < INTERVAL * 3 + SLACK, "{took:?}");
    }
    until("the flood is counted and gone", || {
        let status = at_a.status();
        status.sessions.turned_away >= 10
            && status.sessions.too_slow >= 4
            && status.running.iter().all(|one| one.peer != hostile.id().to_string())
    })
    .await;
    let cut = at_a.recent().into_iter().find(|end| end.peer == hostile.id().to_string());
    assert_eq!(
        cut.unwrap().cause.as_deref(),
        Some("the session was ended: no progress for too long")
    );
    drop(streams);
    a.stop().await;
    b.stop().await;
}

/// What a peer does against the rules is its fault, and told; what a node that is cut off did not
/// do is nobody's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_breaks_the_protocol_is_blamed_and_one_that_vanishes_is_not() {
    let mut a = Peer::new();
    let (hostile, unlucky) = (Peer::new(), Peer::new());
    a.knows(vec![hostile.entry(Grant::Write, false), unlucky.entry(Grant::Write, false)]);
    put(&a.collection("c"), "k", 1);
    let at_a = a.start();
    for (peer, and_then) in [(&hostile, true), (&unlucky, false)] {
        peer.knows(vec![a.entry(Grant::Write, true)]);
        let link = peer.node.connect(&peer.endpoint, &a.address(), LIMIT).await.unwrap();
        let (send, _receive) = link.open(StreamKind::Session).await.unwrap();
        let mut writer = FrameWriter::new(send, 1 << 20);
        let other = peer.collection("c");
        put(&other, "k", 2);
        writer.write_frame(&hello(&other)).await.unwrap();
        let id = peer.id().to_string();
        until("it runs", || at_a.status().running.iter().any(|one| one.peer == id)).await;
        if and_then {
            writer.write_frame(&[255; 40]).await.unwrap();
        } else {
            link.connection().close(CloseCode::ShuttingDown, "gone");
        }
        until("the session has ended", || at_a.recent().iter().any(|end| end.peer == id)).await;
        let end = at_a.recent().into_iter().find(|end| end.peer == id).unwrap();
        assert_eq!(end.blame.as_deref(), and_then.then_some("peer"), "{end:?}");
        let status = at_a.status().peers.into_iter().find(|one| one.id == id).unwrap();
        assert_eq!(status.faults, u64::from(and_then));
    }
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_an_hour_off_is_said_in_the_status() {
    let (mut a, b) = (Peer::new(), Peer::new());
    a.knows(vec![b.entry(Grant::Write, false)]);
    b.knows(vec![a.entry(Grant::Write, true)]);
    let at_a = a.start();
    for hours in [1_i64, -1, 0] {
        let ahead = hours * 3_600_000;
        let mut greeting = b.node.greeting_for(&a.id(), true);
        let wrong = greeting.clock.millis().checked_add_signed(ahead).unwrap();
        greeting.clock = Stamp::new(wrong, 0);
        let connection = b.endpoint.dial(&a.address(), LIMIT).await.unwrap();
        let link = Link::greet(connection, &greeting, LIMIT).await.unwrap();
        let known = || {
            let peers = at_a.status().peers;
            peers.into_iter().find(|peer| peer.id == b.id().to_string())
        };
        until("the clock is known", || {
            let about = |found: i64| (found - ahead).abs() < 60_000;
            known().is_some_and(|peer| {
                peer.clock_ahead_ms.is_some_and(about) && peer.clock_is_off == (hours != 0)
            })
        })
        .await;
        drop(link);
        until("it is gone", || known().is_some_and(|peer| peer.connected_since_ms.is_none())).await;
    }
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_come_and_go_while_it_runs() {
    let (mut a, mut b) = (Peer::new(), Peer::new());
    b.knows(vec![a.entry(Grant::Write, false)]);
    let (of_a, of_b) = (a.collection("c"), b.collection("c"));
    put(&of_a, "k", 1);
    let (at_a, _at_b) = (a.start(), b.start());
    sleep(INTERVAL).await;
    assert!(!same(&[&of_a, &of_b]));
    let text = "[sync]\ninterval_s = 1\nmax_concurrent_sessions = 5\n";
    let config = Config::parse(text, "config.toml".as_ref()).unwrap();
    let book = PeerBook { peers: vec![b.entry(Grant::Write, true)] };
    at_a.reload(&config, book, []);
    until("equal", || same(&[&of_a, &of_b])).await;
    assert_eq!(a.node.sessions.limits().max_concurrent, 5);
    at_a.reload(&config, PeerBook::default(), []);
    until("disconnected", || at_a.status().peers.is_empty()).await;
    put(&of_a, "k", 2);
    sleep(INTERVAL * 2).await;
    assert!(!same(&[&of_a, &of_b]));
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_dial_each_other_keep_one_connection() {
    let (mut a, mut b) = (Peer::new(), Peer::new());
    a.knows(vec![b.entry(Grant::Write, true)]);
    b.knows(vec![a.entry(Grant::Write, true)]);
    let (of_a, of_b) = (a.collection("c"), b.collection("c"));
    put(&of_a, "k", 1);
    a.start();
    b.start();
    until("equal", || same(&[&of_a, &of_b])).await;
    let open = |peer: &Peer| peer.endpoint.open_connections();
    until("one is left", || open(&a) == 1 && open(&b) == 1).await;
    put(&of_b, "k", 2);
    let took = until("equal", || same(&[&of_a, &of_b])).await;
    assert!(took < INTERVAL * 2 + SLACK, "{took:?}");
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_stops_promptly_with_a_session_in_flight() {
    let (mut a, b) = pair();
    let collection = a.collection("c");
    put(&collection, "k", 1);
    let at_a = a.start();
    let mut events = at_a.events();
    // b greets, says that something differs, and answers no session
    let connection = timeout(LIMIT, b.endpoint.accept()).await.unwrap().unwrap();
    b.collection("c");
    let link = Link::greet(connection, &b.node.greeting_for(&a.id(), true), LIMIT).await.unwrap();
    let asked = async {
        let (send, mut receive) = link.accept().await.unwrap();
        assert_eq!(Link::kind_of(&mut receive).await.unwrap(), StreamKind::Query);
        let name = collection.name();
        let state = b.collection("c").state_hash().unwrap();
        let answer = Answer::Forest(WireForest {
            root: forest_root([(name, state.0)]).unwrap(),
            collections: 1,
            offers: None,
            top: Bytes(state.0.to_vec()),
        });
        let frame = selfsame::session::wire::encode(&answer).unwrap();
        let mut writer = FrameWriter::new(send, 1 << 20);
        writer.write_frame(&frame).await.unwrap();
        let _ = writer.finish().await.unwrap().delivered().await;
    };
    timeout(LIMIT, asked).await.unwrap();
    let _unanswered = timeout(LIMIT, link.accept()).await.unwrap().unwrap();
    let started = timeout(LIMIT, events.recv()).await.unwrap().unwrap();
    assert!(matches!(started, SessionEvent::Started(_)), "{started:?}");
    assert_eq!(at_a.status().running.len(), 1);
    let stopping = Instant::now();
    a.stop().await;
    assert!(stopping.elapsed() < Duration::from_secs(3), "{:?}", stopping.elapsed());
    loop {
        if let SessionEvent::Ended(end) = timeout(LIMIT, events.recv()).await.unwrap().unwrap() {
            assert_eq!(end.outcome, "stopped");
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_collections_cost_a_question_a_round_and_no_session() {
    let (mut a, mut b) = pair();
    for at in 0..50 {
        let name = format!("c{at}");
        // the same writes at both would differ in their dots: empty ones are the same
        a.collection(&name);
        b.collection(&name);
    }
    let (at_a, at_b) = (a.start(), b.start());
    let answered = |daemon: &Daemon<MemoryStore>| {
        daemon.status().peers.first().and_then(|peer| peer.last_answer_ms)
    };
    until("asked", || answered(&at_a).is_some() && answered(&at_b).is_some()).await;
    let before = at_a.status();
    assert_eq!(before.pairs.len(), 50);
    assert!(before.pairs.iter().all(|pair| pair.equal_since_ms.is_some()));
    sleep(INTERVAL * 4).await;
    let after = at_a.status();
    assert!(answered(&at_a) > before.peers[0].last_answer_ms);
    assert_eq!(after.sessions, before.sessions);
    assert_eq!((after.sessions.opened_here, after.sessions.opened_by_peers), (0, 0));
    // a new one is found, and what is unequal in it alone gets a session
    put(&a.collection("new"), "k", 1);
    b.collection("new");
    until("equal", || same(&[&a.collection("new"), &b.collection("new")])).await;
    let sessions = at_a.recent();
    assert!(sessions.iter().all(|end| end.collection == "new"), "{sessions:?}");
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_may_only_read_is_given_and_gives_nothing() {
    let (mut a, mut b) = (Peer::new(), Peer::new());
    a.knows(vec![b.entry(Grant::Read, true)]);
    b.knows(vec![a.entry(Grant::Write, false)]);
    let (of_a, of_b) = (a.collection("c"), b.collection("c"));
    put(&of_a, "of a", 1);
    put(&of_b, "of b", 1);
    let (at_a, at_b) = (a.start(), b.start());
    until("b has it", || of_b.get(&key("of a")).unwrap().is_some()).await;
    put(&of_b, "more", 1);
    put(&of_a, "later", 1);
    until("b has that, too", || of_b.get(&key("later")).unwrap().is_some()).await;
    sleep(INTERVAL * 3).await;
    assert_eq!(of_a.totals().unwrap().entries, 2, "nothing was taken from it");
    let settled = at_a.status().sessions.opened_here + at_b.status().sessions.opened_here;
    sleep(INTERVAL * 4).await;
    let later = at_a.status().sessions.opened_here + at_b.status().sessions.opened_here;
    assert_eq!(later, settled, "what the grants keep apart is left alone");
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_rotted_comes_again_although_nothing_differs() {
    let (mut a, mut b) = pair();
    let (of_a, of_b) = (a.collection("c"), b.collection("c"));
    for at in 0..10 {
        put(&of_a, at, format!("value {at}"));
    }
    a.start();
    b.start();
    until("both are the same", || same(&[&of_a, &of_b])).await;
    let store = b.node.replica.store();
    let mut batch = Batch::default();
    for row in store.scan_keys(Span::of(Table::Values, &[]), usize::MAX).unwrap() {
        batch.put(Table::Values, &row, b"rot");
    }
    store.commit(batch, Durability::Always).unwrap();
    let value = |at: u8| of_b.read(&key(at)).unwrap().unwrap().versions[0].value.clone();
    assert_eq!(value(3), None);
    until("the value is fetched again", || value(3).as_deref() == Some(b"value 3")).await;
    a.stop().await;
    b.stop().await;
}

/// All rows of a table, with one of them changed.
fn rot_one(peer: &Peer, table: Table, at: usize, rot: impl Fn(&mut Vec<u8>)) {
    let store = peer.node.replica.store();
    let rows = store.scan(Span::of(table, &[]), usize::MAX).unwrap();
    let mut value = rows[at].value.to_vec();
    rot(&mut value);
    let mut batch = Batch::default();
    batch.put(table, &rows[at].key, &value);
    store.commit(batch, Durability::Always).unwrap();
}

/// A daemon that scrubs all the time.
fn scrubbing() -> DaemonSettings {
    let mut settings = settings();
    settings.scrub.interval_ms = 50;
    settings.scrub.time_percent = 100;
    settings
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_finds_rot_by_itself_and_takes_it_back_from_a_peer() {
    let (mut a, mut b) = pair();
    let (of_a, of_b) = (a.collection("c"), b.collection("c"));
    for at in 0..200 {
        put(if at % 2 == 0 { &of_a } else { &of_b }, at, format!("value {at}"));
    }
    a.start();
    let at_b = b.start_with(scrubbing());
    until("both are the same", || same(&[&of_a, &of_b])).await;
    for at in 0..10 {
        of_a.delete(&key(at), now()).unwrap();
    }
    until("both are the same again", || same(&[&of_a, &of_b])).await;
    let state = of_b.state_hash().unwrap();
    let flip = |value: &mut Vec<u8>| {
        let middle = value.len() / 2;
        value[middle] ^= 4;
    };
    let tables =
        [Table::Entries, Table::Values, Table::Dots, Table::Pages, Table::Context, Table::Log];
    for table in tables {
        let found = |of: &Mem| {
            let report = of.scrub_report().unwrap();
            report.last.map_or(0, |last| last.number)
        };
        let before = found(&of_b);
        rot_one(&b, table, 0, flip);
        until("two scrubs went over it", || found(&of_b) >= before + 2).await;
        until("it is sound again", || of_b.check().unwrap().is_sound()).await;
        assert_eq!(of_b.state_hash().unwrap(), state, "{table:?}: nothing was seen or forgotten");
    }
    for at in 0..10 {
        assert!(of_b.get(&key(at)).unwrap().is_none(), "no deletion comes back");
    }
    put(&of_b, "and on", 1);
    until("sessions go on", || same(&[&of_a, &of_b])).await;
    assert!(at_b.status().peers[0].last_error.is_none());
    assert!(of_a.check().unwrap().is_sound());
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_nobody_has_any_more_is_given_up_and_the_rest_goes_on() {
    let (mut a, mut b) = pair();
    let (of_a, of_b) = (a.collection("c"), b.collection("c"));
    for at in 0..40 {
        put(&of_a, at, "first");
    }
    a.start();
    let at_b = b.start();
    until("both are the same", || same(&[&of_a, &of_b])).await;
    assert!(at_b.stop().await);
    // each goes on alone: what b has of this key is nowhere else
    put(&of_b, "only here", 1);
    put(&of_b, "here too", 1);
    of_a.delete(&key(3), now()).unwrap();
    put(&of_a, 5, "changed at a");
    let rotten = of_b.key_hash(&key("only here"));
    let store = b.node.replica.store();
    let rows = store.scan(Span::of(Table::Entries, &[]), usize::MAX).unwrap();
    let at = rows.iter().position(|row| row.key.ends_with(&rotten.0)).unwrap();
    rot_one(&b, Table::Entries, at, |value| value[4] ^= 1);
    let epoch = |of: &Mem| {
        use selfsame::replica::CollectionView as _;
        of.snapshot().unwrap().epoch()
    };
    let before = epoch(&of_b);
    b.endpoint = bind(&b.node, (Ipv4Addr::LOCALHOST, 0).into());
    a.knows(vec![b.entry(Grant::Write, true)]);
    b.knows(vec![a.entry(Grant::Write, true)]);
    b.start_with(scrubbing());
    until("both are the same at last", || same(&[&of_a, &of_b])).await;
    for collection in [&of_a, &of_b] {
        assert!(collection.check().unwrap().is_sound());
        assert!(collection.get(&key("here too")).unwrap().is_some(), "no write is lost beside it");
        assert!(collection.get(&key(3)).unwrap().is_none(), "no deletion comes back");
        assert!(collection.get(&key("only here")).unwrap().is_none());
        let read = collection.read(&key(5)).unwrap().unwrap();
        assert_eq!(read.versions[0].value.as_deref(), Some(&b"changed at a"[..]));
    }
    assert!(epoch(&of_b) > before, "it was recovered (rule D10)");
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_comes_upon_an_entry_that_rotted_takes_it_back_first() {
    let (a, b) = pair();
    let (of_a, of_b) = (a.collection("c"), b.collection("c"));
    for at in 0..60 {
        put(&of_a, at, "first");
    }
    let (stop, stopped) = watch::channel(false);
    let (node, endpoint) = (Arc::new(b.node.clone()), b.endpoint.clone());
    tokio::spawn(server::serve(node, endpoint, stopped.clone(), Arc::new(|_| {})));
    let link = a.node.connect(&a.endpoint, &b.address(), LIMIT).await.unwrap();
    let config = SyncConfig::default();
    let sync = || a.node.synchronise(&link, &of_a, &config, stopped.clone(), &Unwatched);
    sync().await.unwrap();
    assert!(same(&[&of_a, &of_b]));
    // nobody has read it since: the session does
    put(&of_b, 7, "changed at b");
    let row = of_a.key_hash(&key(7));
    let store = a.node.replica.store();
    let rows = store.scan(Span::of(Table::Entries, &[]), usize::MAX).unwrap();
    let near = rows.iter().position(|row_| row_.key.ends_with(&row.0)).unwrap();
    let at = if near > 0 { near - 1 } else { 1 };
    rot_one(&a, Table::Entries, at, |value| value[5] ^= 1);
    while of_a.scrub(u64::MAX, now()).unwrap().found.is_empty() {}
    assert_eq!(of_a.rotten_entries(9).unwrap().len(), 1);
    let done = sync().await.unwrap();
    assert!(matches!(done.last().outcome, Outcome::Complete { .. }), "{:?}", done.last().outcome);
    assert_eq!((done.repaired, done.recovered), (1, false));
    assert!(same(&[&of_a, &of_b]));
    assert!(of_a.check().unwrap().is_sound());
    stop.send(true).unwrap();
}
