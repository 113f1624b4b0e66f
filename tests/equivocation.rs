//! Nodes that sign two histories of one log are found out; honest ones are never accused.
#![cfg(feature = "node")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::RngExt;
use selfsame::hash::HashAlgorithm;
use selfsame::limits::Limits;
use selfsame::merkle::log::{Contradiction, HeadStatement, LogHeadFields, LogKind};
use selfsame::merkle::{ConsistencyProof, NodeKey};
use selfsame::net::{Endpoint, Identity, NetLimits, PeerAddress};
use selfsame::node::access::Access;
use selfsame::node::client::{ClientError, Synchronised};
use selfsame::node::manager::SessionManager;
use selfsame::node::{Node, Unwatched, server};
use selfsame::replica::{Collection, Replica, ReplicaOptions, SeenLog, Witnessed};
use selfsame::session::{AbortCode, Failure, Fault, Outcome, SyncConfig};
use selfsame::store::{Batch, Durability, MemoryStore, Read, Span, Store, Table};
use selfsame::types::{CollectionName, CollectionSpec, Key, NodeId, Policy};
use tokio::sync::watch;
use tokio::time::timeout;

type Memory = Arc<MemoryStore>;
type Mem = Collection<Memory>;

const LIMIT: Duration = Duration::from_secs(30);

fn spec() -> CollectionSpec {
    CollectionSpec {
        name: CollectionName::new("c").unwrap(),
        algorithm: HashAlgorithm::Blake3,
        policy: Policy::Lww,
    }
}

/// Heads are told in each session, and proofs asked for after it.
fn limits() -> Limits {
    Limits { heads_told_every_ms: 0, ..Limits::default() }
}

fn open_with(
    store: Memory,
    limits: Limits,
    draw: impl FnMut() -> u64 + Send + 'static,
) -> (Replica<Memory>, Arc<Mem>) {
    let options = ReplicaOptions { limits, ..ReplicaOptions::default() };
    let replica = Replica::open(store, options, Box::new(draw)).unwrap();
    let collection = replica.create_collection(spec()).unwrap();
    (replica, collection)
}

fn open(store: Memory) -> (Replica<Memory>, Arc<Mem>) {
    open_with(store, limits(), || rand::rng().random())
}

/// What a backup of a store has, or what a crash leaves.
fn copy(store: &Memory) -> Memory {
    let copy = Memory::default();
    let mut batch = Batch::default();
    for table in Table::ALL {
        for row in store.scan(Span::of(table, &[]), usize::MAX).unwrap() {
            batch.put(table, &row.key, &row.value);
        }
    }
    copy.commit(batch, Durability::Always).unwrap();
    copy
}

fn key(name: impl ToString) -> Key {
    Key::new(name.to_string()).unwrap()
}

fn put(collection: &Mem, name: impl ToString) {
    collection.put(&key(name), b"value".to_vec(), now()).unwrap();
}

fn now() -> u64 {
    Node::<Memory>::now_ms()
}

fn owner() -> NodeKey {
    NodeKey::from_seed(&[7; 32])
}

fn signed(fields: &LogHeadFields, by: &NodeKey) -> HeadStatement {
    let sign = |message: &[u8]| by.sign(message).to_bytes();
    HeadStatement::sign(fields.clone(), by.node_id(), &sign).unwrap()
}

/// What the owner of a collection tells a peer of it now.
fn told(collection: &Mem, peer: &NodeId) -> Vec<HeadStatement> {
    let heads = collection.heads_to_tell(peer, now()).unwrap();
    heads.iter().map(|fields| signed(fields, &owner())).collect()
}

/// Hears heads, and asks for the proofs that are due, as nodes do.
fn hear(witness: &Mem, heads: &[HeadStatement], asked: &Mem) -> Vec<Witnessed> {
    let mut found: Vec<_> =
        heads.iter().map(|head| witness.witness(head, now()).unwrap()).collect();
    for seen in witness.logs_to_prove(&owner().node_id(), now()).unwrap() {
        let proof = prove(asked, &seen);
        found.push(witness.witness_proof(&seen, proof, now()).unwrap());
    }
    found
}

fn prove(asked: &Mem, seen: &SeenLog) -> Option<ConsistencyProof> {
    let (first, second) = (seen.proved.fields(), seen.last.fields());
    let log = second.log();
    let (from, to) = ((first.size(), first.root()), (second.size(), second.root()));
    asked.prove_growth(log.kind, log.id, from, to).unwrap()
}

fn witness() -> (Memory, Arc<Mem>) {
    let store = Memory::default();
    let (_, collection) = open(Arc::clone(&store));
    (store, collection)
}

#[track_caller]
fn nobody_is_accused(witness: &Mem, found: &[Witnessed]) {
    assert!(found.iter().all(|found| *found == Witnessed::Consistent), "{found:?}");
    assert!(witness.contradictions(None).unwrap().is_empty());
    assert!(witness.distrusted().unwrap().is_empty());
}

#[test]
fn growth_is_proved_and_nobody_is_accused_of_it() {
    let (_, log) = open(Memory::default());
    let (_, witness) = witness();
    let me = NodeId([9; 32]);
    for round in 1..40_u64 {
        (0..round % 5 + 1).for_each(|at| put(&log, format!("{round} {at}")));
        let heads = told(&log, &me);
        assert_eq!(heads.len(), 1, "there is no certificate yet");
        nobody_is_accused(&witness, &hear(&witness, &heads, &log));
        let seen = &witness.seen_logs(None).unwrap()[0];
        assert_eq!((&seen.proved, &seen.last, seen.unproved), (&heads[0], &heads[0], false));
        // heard again, or an older one late: nothing new
        nobody_is_accused(&witness, &hear(&witness, &heads, &log));
    }
}

#[test]
fn a_crash_that_loses_what_was_not_synced_accuses_nobody() {
    let (store, me) = (Memory::default(), NodeId([9; 32]));
    let (_, before) = open(Arc::clone(&store));
    put(&before, "kept");
    let (_, witness) = witness();
    nobody_is_accused(&witness, &hear(&witness, &told(&before, &me), &before));
    // all that was told was synced first: a crash leaves at least that
    let left = copy(&store);
    put(&before, "lost");
    let (_, after) = open(left);
    put(&after, "other");
    put(&after, "and another");
    nobody_is_accused(&witness, &hear(&witness, &told(&after, &me), &after));
    assert_eq!(witness.seen_logs(None).unwrap().len(), 2, "another opening, another log");
}

#[test]
fn backups_and_clones_that_are_opened_accuse_nobody() {
    let (store, me) = (Memory::default(), NodeId([9; 32]));
    let (_, original) = open(Arc::clone(&store));
    put(&original, "first");
    let (_, witness) = witness();
    nobody_is_accused(&witness, &hear(&witness, &told(&original, &me), &original));
    let backup = copy(&store);
    (0..5).for_each(|at| put(&original, at));
    nobody_is_accused(&witness, &hear(&witness, &told(&original, &me), &original));
    // the old copy twice, each opened on its own, and the original goes on
    for turn in 0..2 {
        let (_, restored) = open(copy(&backup));
        (0..5).for_each(|at| put(&restored, format!("{turn} {at}")));
        nobody_is_accused(&witness, &hear(&witness, &told(&restored, &me), &restored));
        put(&restored, "more");
        put(&original, format!("more {turn}"));
        nobody_is_accused(&witness, &hear(&witness, &told(&restored, &me), &restored));
        nobody_is_accused(&witness, &hear(&witness, &told(&original, &me), &original));
    }
    // what only another copy could prove is not proved, and that is all
    put(&original, "unheard");
    let heads = told(&original, &me);
    nobody_is_accused(&witness, &hear(&witness, &heads, &open(backup).1));
    let seen = witness.seen_logs(None).unwrap();
    assert_eq!(seen.iter().filter(|seen| seen.unproved).count(), 1);
}

#[test]
fn a_log_whose_rows_were_dropped_proves_what_it_can_and_is_not_accused() {
    let pruned = Limits {
        removal_log_entries: 8,
        history_age_ms: 0,
        history_percent: 0,
        certificate_log_entries: 16,
        ..limits()
    };
    let (_, log) = open_with(Memory::default(), pruned, || rand::rng().random());
    let (_, witness) = witness();
    let me = NodeId([9; 32]);
    put(&log, "first");
    nobody_is_accused(&witness, &hear(&witness, &told(&log, &me), &log));
    // a few rows since it was told: the peaks of then and these rows prove it
    (0..4).for_each(|at| put(&log, at));
    nobody_is_accused(&witness, &hear(&witness, &told(&log, &me), &log));
    let seen = &witness.seen_logs(None).unwrap()[0];
    assert!(!seen.unproved && seen.proved == seen.last);
    // too many: they are gone
    for at in 0..2_000 {
        log.put(&key(at % 3), vec![at as u8; 10], now() + at).unwrap();
    }
    nobody_is_accused(&witness, &hear(&witness, &told(&log, &me), &log));
    let seen = &witness.seen_logs(None).unwrap()[0];
    assert!(seen.unproved && seen.proved != seen.last);
}

/// Two heads of one size of one log.
fn two_faced(size: usize) -> [HeadStatement; 2] {
    ["this", "that"].map(|said| {
        let mut log = selfsame::merkle::MerkleLog::new(HashAlgorithm::Blake3);
        for at in 0..size {
            log.append(format!("{said} {at}").as_bytes());
        }
        let identity = selfsame::merkle::LogIdentity {
            algorithm: HashAlgorithm::Blake3,
            kind: LogKind::Certificates,
            id: selfsame::merkle::LogId(5),
            name: spec().name,
        };
        signed(&identity.at(&log), &owner())
    })
}

#[test]
fn two_heads_of_one_size_are_kept_as_proof_over_a_restart() {
    let (store, witness) = witness();
    let [one, other] = two_faced(3);
    assert_eq!(witness.witness(&one, 1).unwrap(), Witnessed::Consistent);
    let found = witness.witness(&other, 2).unwrap();
    assert!(
        matches!(&found, Witnessed::Contradicts(it, Some(1)) if it.proves_itself()),
        "{found:?}"
    );
    // said again: the same proof, kept once
    witness.witness(&other, 3).unwrap();
    let (_, witness) = open(store);
    let kept = witness.contradictions(Some(&owner().node_id())).unwrap();
    assert_eq!((kept.len(), kept[0].number, kept[0].found_ms), (1, 1, 2));
    let bytes = kept[0].contradiction.to_bytes();
    assert_eq!(Contradiction::parse(&bytes).unwrap(), kept[0].contradiction);
    for length in 0..bytes.len() {
        Contradiction::parse(&bytes[..length]).expect_err("cut short");
    }
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        Contradiction::parse(&flipped).expect_err("a bit was flipped");
    }
    assert_eq!(witness.distrusted_since(&owner().node_id()).unwrap(), Some(2));
    // until the operator says otherwise
    assert!(witness.trust_again(&owner().node_id()).unwrap());
    assert!(!witness.trust_again(&owner().node_id()).unwrap());
    assert_eq!(witness.distrusted_since(&owner().node_id()).unwrap(), None);
    assert_eq!(witness.contradictions(None).unwrap().len(), 1, "evidence stays");
    // evidence is never written over, and does not grow without end
    for size in 4..40 {
        for head in two_faced(size) {
            witness.witness(&head, 9).unwrap();
        }
        witness.trust_again(&owner().node_id()).unwrap();
    }
    let kept = witness.contradictions(None).unwrap();
    assert_eq!(kept.len(), 8);
    assert_eq!(kept[0].contradiction.to_bytes(), bytes);
}

#[test]
fn a_proof_that_does_not_hold_is_evidence_and_no_proof_is_none() {
    let (_, witness) = witness();
    let ([earlier, _], [_, later]) = (two_faced(3), two_faced(5));
    witness.witness(&earlier, 1).unwrap();
    assert_eq!(witness.witness(&later, 2).unwrap(), Witnessed::Consistent, "not seen yet");
    let seen = witness.logs_to_prove(&owner().node_id(), 3).unwrap().pop().unwrap();
    assert_eq!(witness.witness_proof(&seen, None, 4).unwrap(), Witnessed::Consistent);
    assert!(witness.seen_logs(None).unwrap()[0].unproved);
    let leaves: Vec<_> =
        (0..5).map(|at| HashAlgorithm::Blake3.log_leaf(format!("that {at}").as_bytes())).collect();
    let proof = ConsistencyProof::of_leaves(HashAlgorithm::Blake3, &leaves, 3).unwrap();
    let found = witness.witness_proof(&seen, Some(proof), 5).unwrap();
    assert!(
        matches!(&found, Witnessed::Contradicts(it, Some(1)) if !it.proves_itself()),
        "{found:?}"
    );
    let kept = &witness.contradictions(None).unwrap()[0].contradiction;
    assert_eq!(Contradiction::parse(&kept.to_bytes()).unwrap(), *kept);
    assert_eq!(witness.distrusted().unwrap(), [(owner().node_id(), 5)]);
}

#[test]
fn logs_of_many_openings_are_not_remembered_without_end() {
    let (_, witness) = witness();
    for at in 0..30 {
        let (_, log) = open(Memory::default());
        put(&log, "k");
        let heads = log.heads_to_tell(&NodeId([9; 32]), at).unwrap();
        witness.witness(&signed(&heads[0], &owner()), at).unwrap();
    }
    let seen = witness.seen_logs(None).unwrap();
    assert_eq!(seen.len(), 8);
    assert!(seen.iter().all(|seen| seen.seen_ms >= 22), "the oldest made way");
}

/// A node on the network.
struct Peer {
    node: Arc<Node<Memory>>,
    collection: Arc<Mem>,
    endpoint: Endpoint,
    stop: watch::Sender<bool>,
    store: Memory,
}

impl Peer {
    fn new(identity: &Arc<Identity>, draw: impl FnMut() -> u64 + Send + 'static) -> Self {
        Self::on(Memory::default(), identity, draw)
    }

    fn on(
        store: Memory,
        identity: &Arc<Identity>,
        draw: impl FnMut() -> u64 + Send + 'static,
    ) -> Self {
        let (replica, collection) = open_with(Arc::clone(&store), limits(), draw);
        let node = Arc::new(Node {
            replica: Arc::new(replica),
            identity: Arc::clone(identity),
            config: SyncConfig::default(),
            patience: Duration::from_secs(10),
            access: Access::default(),
            sessions: SessionManager::default(),
        });
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let admits = Arc::new(node.access.clone());
        let endpoint =
            Endpoint::bind(Arc::clone(identity), any, admits, NetLimits::default()).unwrap();
        let (stop, stopped) = watch::channel(false);
        let nobody = Arc::new(|_| {});
        tokio::spawn(server::serve(Arc::clone(&node), endpoint.clone(), stopped, nobody));
        Self { node, collection, endpoint, stop, store }
    }

    async fn sync(&self, other: &Self) -> Result<Synchronised, ClientError> {
        let (_stop, stopped) = watch::channel(false);
        let address = PeerAddress::new(other.node.id(), other.endpoint.local_address());
        let link = self.node.connect(&self.endpoint, &address, LIMIT).await?;
        let config = SyncConfig::default();
        let done = self.node.synchronise(&link, &self.collection, &config, stopped, &Unwatched);
        timeout(LIMIT, done).await.unwrap()
    }

    #[track_caller]
    fn signed_with(&self, done: &Synchronised) {
        let outcome = &done.last().outcome;
        assert!(matches!(outcome, Outcome::Complete { certificate: Some(_) }), "{outcome:?}");
        assert!(matches!(done.last().kept, Some(Ok(_))), "{:?}", done.last().kept);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

fn identity() -> Arc<Identity> {
    Arc::new(Identity::generate().unwrap())
}

/// Draws as a machine does that was copied while it ran: all draws the same but the first.
fn resumed() -> impl FnMut() -> u64 + Send {
    let drawn = AtomicU64::new(0);
    move || match drawn.fetch_add(1, Ordering::Relaxed) {
        0 => rand::rng().random_range(1..u64::MAX),
        number => 1_000 + number,
    }
}

fn friends(all: &[&Peer]) {
    for one in all {
        for other in all {
            one.node.access.allow(other.node.id());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_nodes_prove_their_logs_to_each_other_session_after_session() {
    let random = || rand::rng().random();
    let (a, b) = (Peer::new(&identity(), random), Peer::new(&identity(), random));
    friends(&[&a, &b]);
    for round in 0..4 {
        put(&a.collection, format!("a {round}"));
        put(&b.collection, format!("b {round}"));
        let done = a.sync(&b).await.unwrap();
        a.signed_with(&done);
        assert!(done.last().contradictions.is_empty());
    }
    for (one, other) in [(&a, &b), (&b, &a)] {
        let seen = one.collection.seen_logs(Some(&other.node.id())).unwrap();
        assert_eq!(seen.len(), 2, "change log and certificate log");
        assert!(seen.iter().all(|seen| !seen.unproved));
        assert_eq!(one.collection.certificates(None, None, 10).unwrap().len(), 4);
        assert!(one.collection.distrusted().unwrap().is_empty());
    }
    // the opener asks; the other end cannot ask one that only dials
    let proved = a.collection.seen_logs(Some(&b.node.id())).unwrap();
    assert!(proved.iter().all(|seen| seen.proved == seen.last), "{proved:?}");
    assert!(proved.iter().any(|seen| seen.last.fields().size() > 5), "{proved:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_signs_two_histories_is_found_out_and_kept_away_until_it_is_accepted() {
    let two_faced = identity();
    let (one, other) = (Peer::new(&two_faced, resumed()), Peer::new(&two_faced, resumed()));
    let victim = Peer::new(&identity(), || rand::rng().random());
    friends(&[&one, &other, &victim]);
    // each says three items of its change log, which has one id in both
    put(&one.collection, "said to one");
    put(&one.collection, "and this");
    victim.signed_with(&victim.sync(&one).await.unwrap());
    put(&other.collection, "said to another");
    put(&victim.collection, "k");
    victim.collection.delete(&key("said to one"), now()).unwrap();
    victim.collection.delete(&key("and this"), now()).unwrap();
    let before = other.collection.log_head().unwrap().unwrap().0;
    assert_eq!(before, 2);
    let done = victim.sync(&other).await.unwrap();
    let outcome = &done.last().outcome;
    let contradicted = Failure::Ours(AbortCode::Contradiction);
    assert_eq!(*outcome, Outcome::Failed(contradicted.clone()));
    assert_eq!(contradicted.fault(), Fault::Theirs);
    assert_eq!(done.last().contradictions.len(), 1);
    let liar = two_faced.node_id();
    let kept = victim.collection.contradictions(Some(&liar)).unwrap();
    assert!(kept[0].contradiction.proves_itself());

    // whoever dials, and over a restart
    let refused = victim.sync(&one).await.unwrap_err();
    assert!(matches!(refused, ClientError::Contradicted { .. }), "{refused}");
    let turned_away = one.sync(&victim).await.unwrap();
    let said = Outcome::Failed(Failure::Peer(AbortCode::Contradiction));
    assert_eq!(turned_away.last().outcome, said);
    let again = Peer::on(Arc::clone(&victim.store), &identity(), || rand::rng().random());
    friends(&[&one, &other, &again]);
    assert!(matches!(again.sync(&one).await, Err(ClientError::Contradicted { .. })));

    // one copy was ended, and the operator knows
    assert!(again.collection.trust_again(&liar).unwrap());
    put(&again.collection, "after");
    // the one that is left hears that there were two, and draws another writer when it has heard
    let copied = Outcome::Failed(Failure::Ours(AbortCode::Copied));
    let mut done = again.sync(&one).await.unwrap();
    assert_eq!(done.last().outcome, copied);
    for _ in 0..200 {
        if done.last().outcome != copied {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        done = again.sync(&one).await.unwrap();
    }
    again.signed_with(&done);
    assert_eq!(again.collection.contradictions(None).unwrap().len(), 1);
}
