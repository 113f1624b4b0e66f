//! Sessions with peers that go silent, trickle, close or read no more: each ends soon, says why,
//! and leaves nothing behind. Real QUIC on loopback.
#![cfg(feature = "node")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use selfsame::clock::Stamp;
use selfsame::hash::HashAlgorithm;
use selfsame::net::{
    CloseCode, Endpoint, FrameReader, FrameWriter, Identity, Link, NetLimits, PeerAddress,
    RecvStream, SendStream, StreamCode, StreamKind,
};
use selfsame::node::access::Access;
use selfsame::node::{Node, Unwatched, Watch, server};
use selfsame::replica::{Collection, Replica, ReplicaOptions, Snapshot};
use selfsame::session::message::{Message, TurnMessage};
use selfsame::session::wire::{self, MAX_FRAME_BYTES};
use selfsame::session::{AbortCode, Failure, Lane, Outcome, Session, Setup, SyncConfig};
use selfsame::store::MemoryStore;
use selfsame::types::{CollectionName, CollectionSpec, Key, Policy};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::{sleep, timeout};

/// Ends a test that hangs.
const LIMIT: Duration = Duration::from_secs(20);
/// What a session may take to notice something that happens on its connection.
const SOON: Duration = Duration::from_secs(5);
/// Longer than any test: who waits this long did not notice.
const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(300);

type Mem = Collection<MemoryStore>;

struct Peer {
    node: Arc<Node<MemoryStore>>,
    collection: Arc<Mem>,
    endpoint: Endpoint,
}

impl Peer {
    fn new(patience: Duration, limits: NetLimits) -> Self {
        let random = Box::new(rand::random);
        let replica =
            Replica::open(MemoryStore::default(), ReplicaOptions::default(), random).unwrap();
        let spec = CollectionSpec {
            name: CollectionName::new("c").unwrap(),
            algorithm: HashAlgorithm::Blake3,
            policy: Policy::Lww,
        };
        let collection = replica.create_collection(spec).unwrap();
        let node = Arc::new(Node {
            replica: Arc::new(replica),
            identity: Arc::new(Identity::generate().unwrap()),
            config: SyncConfig::default(),
            patience,
            access: Access::default(),
            sessions: Default::default(),
        });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let identity = Arc::clone(&node.identity);
        let admission = Arc::new(node.access.clone());
        let endpoint = Endpoint::bind(identity, address, admission, limits).unwrap();
        Self { node, collection, endpoint }
    }

    fn address(&self) -> PeerAddress {
        PeerAddress::new(self.node.id(), self.endpoint.local_address())
    }

    /// So many values of a million bytes.
    fn fill(&self, values: usize) {
        for at in 0..values {
            let mut value = vec![0u8; 1_000_000];
            rand::RngExt::fill(&mut rand::rng(), &mut value[..]);
            let key = Key::new(at.to_string().into_bytes()).unwrap();
            self.collection.put(&key, value, Node::<MemoryStore>::now_ms()).unwrap();
        }
    }
}

/// Counts how often a session does anything at all.
#[derive(Default)]
struct Steps {
    count: AtomicUsize,
    /// How long the first takes.
    work: Duration,
}

impl Steps {
    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

impl Watch for Steps {
    fn progress(&self, _session: &Session) {
        if self.count.fetch_add(1, Ordering::Relaxed) == 0 {
            block_in_place(|| std::thread::sleep(self.work));
        }
    }
}

/// A node with 4 MB to give, and a peer in the hands of the test: both ends of a connection.
struct Stage {
    honest: Peer,
    other: Peer,
    ours: Link,
    theirs: Link,
    steps: Steps,
    /// Tasks that run before the session.
    tasks: usize,
}

impl Stage {
    async fn set(patience: Duration, limits: NetLimits) -> Self {
        let (honest, other) = (Peer::new(patience, NetLimits::default()), Peer::new(LONG, limits));
        honest.fill(4);
        other.node.access.allow(honest.node.id());
        honest.node.access.allow(other.node.id());
        let address = other.address();
        let dialled = honest.node.connect(&honest.endpoint, &address, LIMIT);
        let accepted = async {
            let connection = other.endpoint.accept().await.unwrap();
            Link::greet(connection, &other.node.greeting_for(&honest.node.id(), false), LIMIT)
                .await
                .unwrap()
        };
        let (ours, theirs) = tokio::join!(dialled, accepted);
        let ours = ours.unwrap();
        let tasks = alive();
        Self { honest, other, ours, theirs, steps: Steps::default(), tasks }
    }

    /// The session of the honest node; how it ends.
    async fn session(&self, stop: watch::Receiver<bool>) -> Outcome {
        let (node, collection) = (&self.honest.node, &self.honest.collection);
        let config = SyncConfig::default();
        let done = node.synchronise(&self.ours, collection, &config, stop, &self.steps).await;
        done.unwrap().last().outcome.clone()
    }

    /// The session beside what the peer does.
    async fn with(&self, peer: impl Future<Output = ()>) -> Outcome {
        let (_stop, stopped) = watch::channel(false);
        let both = async {
            let peer = async {
                peer.await;
                // a peer that holds on to its connection
                std::future::pending::<()>().await;
            };
            tokio::select! {
                outcome = self.session(stopped) => outcome,
                () = peer => unreachable!(),
            }
        };
        timeout(LIMIT, both).await.expect("the session does not end")
    }

    /// Whatever the session began has ended, although the connection is still there.
    async fn assert_nothing_runs_on(&self) {
        assert!(self.ours.connection().close_reason().is_none());
        let ended = async {
            while alive() > self.tasks {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let ended = timeout(SOON, ended).await;
        assert!(ended.is_ok(), "{} tasks, {} before the session", alive(), self.tasks);
    }

    /// The control stream of the session, as the peer gets it, and its first frame.
    async fn accept(&self) -> (SendStream, FrameReader<RecvStream>, Vec<u8>) {
        let (send, mut receive) = self.theirs.accept().await.unwrap();
        assert_eq!(Link::kind_of(&mut receive).await.unwrap(), StreamKind::Session);
        let mut reader = FrameReader::new(receive, MAX_FRAME_BYTES);
        let hello = reader.next_frame().await.unwrap().unwrap();
        (send, reader, hello)
    }

    /// A peer that takes its turns like an honest one.
    async fn puppet(&self) -> Puppet<'_> {
        let (send, reader, hello) = self.accept().await;
        let setup = Setup {
            me: self.other.node.id(),
            peer: self.honest.node.id(),
            config: SyncConfig::default(),
            limits: self.other.node.replica.limits().clone(),
            secret: self.theirs.session_secret(&send).unwrap(),
            clock: Stamp::new(Node::<MemoryStore>::now_ms(), 0),
        };
        let view = self.other.collection.snapshot().unwrap();
        let hello = Session::read_hello(&hello).unwrap();
        let session = Session::respond(&hello, setup, &view);
        let writer = FrameWriter::new(send, MAX_FRAME_BYTES);
        Puppet { link: &self.theirs, view, session, writer, reader }
    }
}

fn alive() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

struct Puppet<'a> {
    link: &'a Link,
    view: Snapshot<MemoryStore>,
    session: Session,
    writer: FrameWriter<SendStream>,
    reader: FrameReader<RecvStream>,
}

impl Puppet<'_> {
    async fn say_all(&mut self) {
        while let Some(frame) = self.session.poll_transmit(Lane::Control, &self.view) {
            self.writer.write_frame(&frame).await.unwrap();
        }
    }

    async fn up_to_its_turn(&mut self) {
        loop {
            let frame = self.reader.next_frame().await.unwrap().unwrap();
            let messages: Vec<Message> = wire::decode_all(&frame).unwrap_or_default();
            if messages.iter().any(|message| matches!(message, Message::TurnEnd(_))) {
                return;
            }
        }
    }

    /// Takes part until the values begin to come: the other end is about to be stuck with the
    /// rest of them, since nobody reads the stream.
    async fn up_to_values(&mut self) -> RecvStream {
        self.say_all().await;
        let mut values = None;
        loop {
            // the id is known once the other end's opening has come, before it is asked for values
            if let (None, Some(id)) = (&values, self.session.id()) {
                values = Some(self.link.expect_bulk(&id));
            }
            let begun = async {
                match &mut values {
                    Some(values) => values.await.unwrap(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                stream = begun => return stream,
                frame = self.reader.next_frame() => {
                    let frame = frame.unwrap().unwrap();
                    let now_ms = Node::<MemoryStore>::now_ms();
                    self.session.handle(Lane::Control, &frame, &self.view, now_ms);
                    if self.session.outcome().is_some() {
                        // the other end has had enough
                        return std::future::pending().await;
                    }
                    self.say_all().await;
                }
            }
        }
    }
}

/// Room for a fraction of a value.
fn narrow() -> NetLimits {
    NetLimits { stream_window_bytes: 64 << 10, ..NetLimits::default() }
}

const DEADLINE: Outcome = Outcome::Failed(Failure::Ours(AbortCode::Deadline));
const TOO_SLOW: Outcome = Outcome::Failed(Failure::Ours(AbortCode::TooSlow));

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_says_nothing_is_given_up() {
    let stage = Stage::set(SHORT, NetLimits::default()).await;
    assert_eq!(stage.with(async { drop(stage.accept().await.2) }).await, Outcome::Interrupted);
    let silent = async {
        let _held = stage.accept().await;
        std::future::pending::<()>().await;
    };
    assert_eq!(stage.with(silent).await, DEADLINE);
    stage.assert_nothing_runs_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_trickles_the_bytes_of_one_frame_is_given_up() {
    let stage = Stage::set(SHORT, NetLimits::default()).await;
    let trickling = async {
        let (mut send, _reader, _) = stage.accept().await;
        send.write_all(&100_000u32.to_le_bytes()).await.unwrap();
        while send.write_all(&[0]).await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert_eq!(stage.with(trickling).await, DEADLINE);
    stage.assert_nothing_runs_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_goes_on_with_frames_that_say_nothing_is_given_up_as_too_slow() {
    let stage = Stage::set(SHORT, NetLimits::default()).await;
    let nothing = wire::encode(&Message::Turn(TurnMessage::Nodes(Vec::new()))).unwrap();
    let babbling = async {
        let mut puppet = stage.puppet().await;
        puppet.say_all().await;
        puppet.up_to_its_turn().await;
        while puppet.writer.write_frame(&nothing).await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    assert_eq!(stage.with(babbling).await, TOO_SLOW);
    stage.assert_nothing_runs_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_at_work_is_waited_for_but_not_for_ever() {
    let stage = Stage::set(SHORT, NetLimits::default()).await;
    let working = async |times: u32| {
        let mut puppet = stage.puppet().await;
        puppet.say_all().await;
        puppet.up_to_its_turn().await;
        for _ in 0..times {
            if puppet.writer.write_frame(&[]).await.is_err() {
                break;
            }
            sleep(SHORT / 3).await;
        }
    };
    // longer than a silence may last; then it goes
    assert_eq!(stage.with(working(12)).await, Outcome::Interrupted);
    assert_eq!(stage.with(working(u32::MAX)).await, TOO_SLOW);
    stage.assert_nothing_runs_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_nothing_but_say_that_it_is_at_work_is_given_up_at_once() {
    let stage = Stage::set(LONG, NetLimits::default()).await;
    let flooding = async {
        let mut puppet = stage.puppet().await;
        puppet.say_all().await;
        puppet.up_to_its_turn().await;
        // 1,024 empty frames at a time: each by itself would keep whoever sends them busy
        while puppet.writer.stream_mut().write_all(&[0; 4 << 10]).await.is_ok() {}
    };
    assert_eq!(stage.with(flooding).await, TOO_SLOW);
    stage.assert_nothing_runs_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_works_long_says_so_and_who_waits_does_not() {
    let mut stage = Stage::set(SHORT, NetLimits::default()).await;
    stage.steps.work = 3 * SHORT;
    let listening = async {
        let mut puppet = stage.puppet().await;
        while !puppet.reader.next_frame().await.unwrap().unwrap().is_empty() {}
        puppet.say_all().await;
        puppet.up_to_its_turn().await;
        while let Ok(Some(frame)) = puppet.reader.next_frame().await {
            assert!(!frame.is_empty(), "a side that waits says that it works");
        }
        std::future::pending::<()>().await;
    };
    assert_eq!(stage.with(listening).await, DEADLINE);
    stage.assert_nothing_runs_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_reads_no_more_is_given_up_and_nothing_turns_meanwhile() {
    let stage = Stage::set(2 * SHORT, narrow()).await;
    let stuck = async {
        let mut puppet = stage.puppet().await;
        let _values = puppet.up_to_values().await;
        sleep(SHORT).await;
        let before = stage.steps.count();
        sleep(SHORT / 2).await;
        let steps = stage.steps.count() - before;
        assert!(steps < 5, "{steps} steps while nothing could be done");
        std::future::pending::<()>().await;
    };
    assert_eq!(stage.with(stuck).await, DEADLINE);
    stage.assert_nothing_runs_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_allows_no_stream_for_values_is_given_up() {
    let limits = NetLimits { max_unidirectional_streams: 0, ..NetLimits::default() };
    let stage = Stage::set(SHORT, limits).await;
    let miserly = async {
        let mut puppet = stage.puppet().await;
        puppet.up_to_values().await;
    };
    assert_eq!(stage.with(miserly).await, DEADLINE);
    stage.assert_nothing_runs_on().await;
}

/// What a peer does to a session that is stuck in writing values.
#[derive(Clone, Copy, Debug)]
enum Blow {
    CloseConnection,
    StopValues,
    EndControl,
    ResetControl,
}

async fn strike(blow: Blow) {
    let stage = Stage::set(LONG, narrow()).await;
    let striking = async {
        let mut puppet = stage.puppet().await;
        let mut values = puppet.up_to_values().await;
        sleep(SHORT).await;
        match blow {
            Blow::CloseConnection => stage.theirs.connection().close(CloseCode::Done, "bye"),
            Blow::StopValues => values.stop(StreamCode::Unneeded),
            Blow::EndControl => puppet.writer.stream_mut().finish().unwrap(),
            Blow::ResetControl => puppet.writer.stream_mut().reset(StreamCode::Internal),
        }
        sleep(LONG).await;
        drop((puppet, values));
    };
    let outcome = timeout(SOON + 2 * SHORT, stage.with(striking)).await;
    assert_eq!(outcome.expect("nobody noticed"), Outcome::Interrupted, "{blow:?}");
    let steps = stage.steps.count();
    assert!(steps < 500, "{steps} steps: {blow:?}");
    if !matches!(blow, Blow::CloseConnection) {
        stage.assert_nothing_runs_on().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_closed_while_this_side_is_stuck_in_writing_ends_the_session() {
    strike(Blow::CloseConnection).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_values_that_the_peer_stops_ends_the_session() {
    strike(Blow::StopValues).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_stream_that_ends_or_breaks_ends_the_session() {
    strike(Blow::EndControl).await;
    strike(Blow::ResetControl).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_dropped_while_it_is_stuck_leaves_no_task_and_its_link_goes_on() {
    let stage = Stage::set(LONG, narrow()).await;
    let (_stop, stopped) = watch::channel(false);
    {
        let mut session = Box::pin(stage.session(stopped));
        let stuck = async {
            let mut puppet = stage.puppet().await;
            let values = puppet.up_to_values().await;
            sleep(SHORT).await;
            (puppet, values)
        };
        let _held = tokio::select! {
            outcome = &mut session => panic!("{outcome:?}"),
            held = stuck => held,
        };
        drop(session);
        stage.assert_nothing_runs_on().await;
    }
    // the connection is as good as before
    let again = stage.with(async { drop(stage.accept().await) });
    assert_eq!(timeout(LIMIT, again).await.unwrap(), Outcome::Interrupted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_left_who_could_stop_it_is_no_reason_to_stop_or_to_spin() {
    let (a, b) = (Peer::new(LIMIT, NetLimits::default()), Peer::new(LIMIT, NetLimits::default()));
    a.fill(3);
    b.node.access.allow(a.node.id());
    a.node.access.allow(b.node.id());
    let (stop, stopped) = watch::channel(false);
    let serving = server::serve(Arc::clone(&b.node), b.endpoint.clone(), stopped, Arc::new(|_| {}));
    let serving = tokio::spawn(serving);
    let link = a.node.connect(&a.endpoint, &b.address(), LIMIT).await.unwrap();
    let (gone, nobody) = watch::channel(false);
    drop(gone);
    let (config, steps) = (SyncConfig::default(), Steps::default());
    let done = a.node.synchronise(&link, &a.collection, &config, nobody, &steps);
    let done = timeout(LIMIT, done).await.unwrap().unwrap();
    assert!(matches!(done.last().outcome, Outcome::Complete { .. }), "{done:?}");
    let steps = steps.count();
    assert!(steps < 500, "{steps} steps");
    // and one that is to stop already does not begin
    let stopped_before = watch::channel(true).1;
    a.fill(1);
    let done = a.node.synchronise(&link, &a.collection, &config, stopped_before, &Unwatched);
    let done = timeout(LIMIT, done).await.unwrap().unwrap();
    assert_eq!(done.last().outcome, Outcome::Failed(Failure::Ours(AbortCode::Cancelled)));
    stop.send(true).unwrap();
    timeout(LIMIT, serving).await.unwrap().unwrap();
}
