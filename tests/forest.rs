//! Many collections compared over one connection: only what differs costs anything.
#![cfg(feature = "node")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use selfsame::hash::{ForestRoot, HashAlgorithm, StateHash};
use selfsame::merkle::forest_root;
use selfsame::net::{Endpoint, FrameReader, FrameWriter, Identity, Link, NetLimits, PeerAddress};
use selfsame::net::{RecvStream, SendStream, StreamKind};
use selfsame::node::access::Access;
use selfsame::node::client::ClientError;
use selfsame::node::forest::offers::{MOST_OFFERED, Offers};
use selfsame::node::forest::ranges::{ForestFault, Ranges};
use selfsame::node::forest::{Compared, WireState};
use selfsame::node::manager::SessionManager;
use selfsame::node::peers::{Grant, GrantRule, Grants, PeerBook, PeerEntry};
use selfsame::node::query::{Answer, Query, WireForest};
use selfsame::node::{Node, server};
use selfsame::replica::{Collection, Replica, ReplicaOptions};
use selfsame::session::SyncConfig;
use selfsame::session::message::{Bytes, WireSpec};
use selfsame::session::wire::{self, MAX_FRAME_BYTES};
use selfsame::store::MemoryStore;
use selfsame::types::{CollectionName, CollectionSpec, Key, Policy};
use tokio::sync::watch;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(60);

type Mem = Collection<MemoryStore>;

struct Peer {
    node: Arc<Node<MemoryStore>>,
    endpoint: Endpoint,
    stop: watch::Sender<bool>,
}

impl Peer {
    fn new() -> Self {
        let random = Box::new(|| rand::rng().random());
        let replica = Replica::open(MemoryStore::default(), ReplicaOptions::default(), random);
        let node = Arc::new(Node {
            replica: Arc::new(replica.unwrap()),
            identity: Arc::new(Identity::generate().unwrap()),
            config: SyncConfig::default(),
            patience: Duration::from_secs(10),
            access: Access::default(),
            sessions: SessionManager::default(),
        });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let identity = Arc::clone(&node.identity);
        let admission = Arc::new(node.access.clone());
        let endpoint = Endpoint::bind(identity, address, admission, NetLimits::default()).unwrap();
        Self { node, endpoint, stop: watch::channel(false).0 }
    }

    fn serve(&self) {
        let (node, endpoint) = (Arc::clone(&self.node), self.endpoint.clone());
        tokio::spawn(server::serve(node, endpoint, self.stop.subscribe(), Arc::new(|_| {})));
    }

    fn spec(name: impl ToString) -> CollectionSpec {
        CollectionSpec {
            name: CollectionName::new(name.to_string()).unwrap(),
            algorithm: HashAlgorithm::Blake3,
            policy: Policy::Lww,
        }
    }

    fn collection(&self, name: impl ToString) -> Arc<Mem> {
        let spec = Self::spec(name.to_string());
        let there = self.node.replica.collection(&spec.name);
        there.unwrap_or_else(|_| self.node.replica.create_collection(spec).unwrap())
    }

    /// What differs from every other put.
    fn put(&self, name: impl ToString) {
        let (key, now) = (Key::new(b"k".to_vec()).unwrap(), Node::<MemoryStore>::now_ms());
        self.collection(name).put(&key, b"v".to_vec(), now).unwrap();
    }

    /// Lets a peer see all but some collections.
    fn admits(&self, other: &Self, hidden: &BTreeSet<String>) {
        let mut grants = Grants::all(Grant::Write);
        for name in hidden {
            grants.set(GrantRule {
                collection: Some(CollectionName::new(name.clone()).unwrap()),
                grant: Grant::None,
            });
        }
        let id = other.node.id();
        let entry = PeerEntry { id, name: None, addresses: Vec::new(), grants };
        self.node.access.set_book(PeerBook { peers: vec![entry] });
    }

    async fn dial(&self, other: &Self) -> Link {
        let address = PeerAddress::new(other.node.id(), other.endpoint.local_address());
        self.node.connect(&self.endpoint, &address, LIMIT).await.unwrap()
    }

    async fn compare(&self, link: &Link) -> Compared {
        timeout(LIMIT, self.node.compare_forest(link)).await.unwrap().unwrap()
    }

    fn states(&self) -> BTreeMap<String, StateHash> {
        let all = self.node.replica.collections();
        all.iter().map(|one| (one.name().to_string(), one.state_hash().unwrap())).collect()
    }
}

fn pair() -> (Peer, Peer) {
    let (a, b) = (Peer::new(), Peer::new());
    a.admits(&b, &BTreeSet::new());
    b.admits(&a, &BTreeSet::new());
    (a, b)
}

fn unequal(compared: &Compared) -> Vec<String> {
    compared.unequal.iter().map(|one| one.name.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_unequal_of_many_costs_little() {
    const COLLECTIONS: usize = 1_024;
    let (a, b) = pair();
    for number in 0..COLLECTIONS {
        // the same writes at both would differ in their dots: empty ones are the same
        a.collection(format!("c{number:04}"));
        b.collection(format!("c{number:04}"));
    }
    b.serve();
    let link = a.dial(&b).await;
    let compared = a.compare(&link).await;
    assert_eq!((compared.equal.len(), compared.unequal.len()), (COLLECTIONS, 0));
    b.put("c0345");
    let before = link.connection().traffic();
    let compared = a.compare(&link).await;
    let after = link.connection().traffic();
    assert_eq!(unequal(&compared), ["c0345"]);
    assert_eq!(compared.equal.len(), COLLECTIONS - 1);
    let one = &compared.unequal[0];
    assert_eq!(one.ours, a.collection("c0345").state_hash().unwrap());
    assert_eq!(one.theirs, b.collection("c0345").state_hash().unwrap());
    let bytes = |traffic: selfsame::net::Traffic| traffic.bytes_sent + traffic.bytes_received;
    // a list of them has 44 kB: here two levels of 128 bytes, one state, and packets around them
    let took = bytes(after) - bytes(before);
    assert!(took < 3_000, "{took} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_comparison_says_what_a_look_at_both_says() {
    for seed in 0..6 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (a, b) = pair();
        let pool = [3, 20, 100, 400][seed as usize % 4];
        b.serve();
        let link = a.dial(&b).await;
        let mut hidden = [BTreeSet::new(), BTreeSet::new()];
        for _ in 0..6 {
            for _ in 0..rng.random_range(0..pool) {
                let name = rng.random_range(0..pool).to_string();
                let one = if rng.random() { &a } else { &b };
                match rng.random_range(0..10) {
                    0 => one.put(&name),
                    1 => drop(hidden[rng.random_range(0..2)].insert(name)),
                    2 => hidden.iter_mut().for_each(|hidden| hidden.retain(|one| *one != name)),
                    3 => drop(one.collection(&name)),
                    _ => drop((a.collection(&name), b.collection(&name))),
                }
            }
            a.admits(&b, &hidden[0]);
            b.admits(&a, &hidden[1]);
            let compared = a.compare(&link).await;
            let (at_a, at_b) = (a.states(), b.states());
            let shared = |name: &&String| {
                at_b.contains_key(*name) && hidden.iter().all(|hidden| !hidden.contains(*name))
            };
            let (equal, differ): (Vec<_>, Vec<_>) =
                at_a.keys().filter(shared).cloned().partition(|name| at_a[name] == at_b[name]);
            let told: Vec<_> = compared.equal.iter().map(|(name, _)| name.to_string()).collect();
            assert_eq!((told, unequal(&compared)), (equal, differ), "seed {seed}");
            assert!(compared.equal.iter().all(|(name, state)| at_a[name.as_str()] == *state));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collections_that_come_and_go_while_comparing_never_look_equal() {
    let (a, b) = pair();
    for number in 0..200 {
        a.collection(number);
        b.collection(number);
        if number % 20 == 7 {
            // never equal from here on, whatever else happens
            a.put(number);
            b.put(number);
        }
    }
    b.serve();
    let link = a.dial(&b).await;
    let restless = async {
        for number in 0..150 {
            let hidden = BTreeSet::from([(number % 200).to_string(), "13".to_owned()]);
            let none = BTreeSet::new();
            a.admits(&b, if number % 3 == 0 { &hidden } else { &none });
            b.admits(&a, if number % 5 == 0 { &hidden } else { &none });
            b.put(number % 7);
            a.collection(format!("new {number}"));
            if number % 2 == 0 {
                b.collection(format!("new {number}"));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let comparing = async {
        for _ in 0..60 {
            let compared = a.compare(&link).await;
            for (name, _) in &compared.equal {
                let never = name.as_str().parse::<u32>().is_ok_and(|number| number % 20 == 7);
                assert!(!never, "{name}");
            }
        }
    };
    tokio::join!(restless, comparing);
    a.admits(&b, &BTreeSet::new());
    b.admits(&a, &BTreeSet::new());
    let compared = a.compare(&link).await;
    let (at_a, at_b) = (a.states(), b.states());
    let all = at_a.iter().filter(|(name, _)| at_b.contains_key(*name));
    let differ = all.filter(|(name, state)| at_b[*name] != **state).map(|(name, _)| name.clone());
    assert_eq!(unequal(&compared), differ.collect::<Vec<_>>(), "and at rest it says what is so");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_that_know_different_things_of_each_other_find_together_again() {
    let (a, b) = pair();
    for number in 0..100 {
        a.collection(number);
        b.collection(number);
    }
    b.put(42);
    b.serve();
    let link = a.dial(&b).await;
    // a has forgotten half of what b offers, and told b less than it thinks
    let half = link.peer_offers().iter().take(50).cloned().collect();
    link.peer_offers_now(half);
    let compared = a.compare(&link).await;
    assert_eq!((compared.equal.len(), unequal(&compared)), (99, vec!["42".to_owned()]));
    assert!(link.told_offers().is_none(), "all is to be told anew");
    b.put(43);
    let compared = a.compare(&link).await;
    assert_eq!(unequal(&compared), ["42", "43"]);
    assert_eq!(link.told_offers().unwrap().len(), 100);
}

/// The next question of a peer, as a node would answer it that lies.
async fn asked(link: &Link) -> (FrameWriter<SendStream>, FrameReader<RecvStream>, Query) {
    let (send, mut receive) = timeout(LIMIT, link.accept()).await.unwrap().unwrap();
    assert_eq!(Link::kind_of(&mut receive).await.unwrap(), StreamKind::Query);
    let mut reader = FrameReader::new(receive, MAX_FRAME_BYTES);
    let frame = timeout(LIMIT, reader.next_frame()).await.unwrap().unwrap().unwrap();
    (FrameWriter::new(send, MAX_FRAME_BYTES), reader, wire::decode(&frame).unwrap())
}

async fn say(writer: &mut FrameWriter<SendStream>, answer: &Answer) {
    writer.write_frame(&wire::encode(answer).unwrap()).await.unwrap();
}

/// A link from a node to one that answers by hand.
async fn to_a_liar(a: &Peer, liar: &Peer) -> (Link, Link) {
    let greeted = async {
        let connection = timeout(LIMIT, liar.endpoint.accept()).await.unwrap().unwrap();
        let greeting = liar.node.greeting_for(&a.node.id(), true);
        Link::greet(connection, &greeting, LIMIT).await.unwrap()
    };
    tokio::join!(a.dial(liar), greeted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_none_are_refused_by_name() {
    let (a, b) = pair();
    for number in 0..40 {
        a.collection(number);
        b.collection(number);
    }
    let (link, theirs) = to_a_liar(&a, &b).await;
    let forest = |top: usize, offers: Option<Offers>| {
        let root = ForestRoot([7; 32]);
        Answer::Forest(WireForest { root, collections: 40, offers, top: Bytes(vec![9; top]) })
    };
    let length = |got, wanted| ForestFault::Length { got, wanted };
    let name =
        |number: u32| WireSpec { name: number.to_string(), ..WireSpec::from(&Peer::spec("c")) };
    link.peer_offers_now((0..MOST_OFFERED as u32).map(name).collect());
    let more = Offers { now: vec![name(u32::MAX)], ..Offers::default() };
    let too_many = ForestFault::Offers { limit: MOST_OFFERED };
    for (answers, fault) in [
        (vec![forest(127, None)], length(127, 128)),
        (vec![forest(0, None)], length(0, 128)),
        // 40 in 16 parts: each of two or three
        (vec![forest(128, None), Answer::Ranges(Bytes(vec![0; 4_000]))], length(4_000, 1_280)),
        (vec![forest(128, Some(more))], too_many),
    ] {
        let lied = async {
            let (mut writer, mut reader, _) = asked(&theirs).await;
            for answer in answers {
                say(&mut writer, &answer).await;
                let _ = timeout(LIMIT, reader.next_frame()).await;
            }
        };
        let (compared, ()) = tokio::join!(timeout(LIMIT, a.node.compare_forest(&link)), lied);
        match compared.unwrap() {
            Err(ClientError::Forest(found)) => assert_eq!(found, fault),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_that_is_not_that_of_what_was_told_makes_nothing_equal() {
    let (a, b) = pair();
    a.collection("c");
    b.put("c");
    let (link, theirs) = to_a_liar(&a, &b).await;
    let (ours, other) =
        (a.collection("c").state_hash().unwrap(), b.collection("c").state_hash().unwrap());
    let lied = async {
        // it tells our own state, and says that its root is another
        let (mut writer, _reader, query) = asked(&theirs).await;
        let name = CollectionName::new("c").unwrap();
        let root = forest_root([(&name, ours.0)]).unwrap();
        assert_eq!(query, Query::Forest { root, offers: None });
        let root = forest_root([(&name, other.0)]).unwrap();
        let top = Bytes(ours.0.to_vec());
        say(&mut writer, &Answer::Forest(WireForest { root, collections: 1, offers: None, top }))
            .await;
        let (mut writer, _reader, query) = asked(&theirs).await;
        assert_eq!(query, Query::States);
        let spec = WireSpec::from(&Peer::spec("c"));
        let states = vec![WireState { spec, state: other }];
        say(&mut writer, &Answer::States { states, more: false }).await;
        let _ = writer.finish().await.unwrap().delivered().await;
    };
    let (compared, ()) = tokio::join!(timeout(LIMIT, a.node.compare_forest(&link)), lied);
    assert_eq!(unequal(&compared.unwrap().unwrap()), ["c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_that_no_comparison_has_end_the_stream() {
    let (a, b) = pair();
    for number in 0..40 {
        a.collection(number);
        b.collection(number);
    }
    b.serve();
    let link = a.dial(&b).await;
    let forest = Query::Forest { root: ForestRoot([1; 32]), offers: None };
    let ranges = |level, numbers| Query::Ranges(Ranges { level, numbers });
    let digest = Query::Digest { collection: "1".to_owned() };
    let again: Vec<Query> = (0..9).map(|_| ranges(0, vec![0])).collect();
    let scripts = [
        (vec![ranges(0, vec![0])], 0),
        (vec![forest.clone(), ranges(1, vec![2, 1])], 1),
        (vec![forest.clone(), ranges(1, vec![0, 15]), ranges(2, vec![0])], 2),
        (vec![forest.clone(), digest], 1),
        (vec![forest.clone(), forest.clone()], 1),
        (std::iter::once(forest).chain(again).collect(), 8),
    ];
    for (script, answered) in scripts {
        let (send, receive) = link.open(StreamKind::Query).await.unwrap();
        let mut writer = FrameWriter::new(send, MAX_FRAME_BYTES);
        let mut reader = FrameReader::new(receive, MAX_FRAME_BYTES);
        let mut answers = 0;
        for query in &script {
            // the far end may have given up already
            let _ = writer.write_frame(&wire::encode(query).unwrap()).await;
            let Ok(Ok(Some(_))) = timeout(LIMIT, reader.next_frame()).await else { break };
            answers += 1;
        }
        assert_eq!(answers, answered, "{script:?}");
    }
}
