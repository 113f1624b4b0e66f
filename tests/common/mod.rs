//! Nodes in memory, and sessions between two of them in an order that a seed decides.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use selfsame::clock::Stamp;
use selfsame::dots::Dot;
use selfsame::hash::{HashAlgorithm, Root};
use selfsame::limits::Limits;
use selfsame::merkle::NodeKey;
use selfsame::replica::{Collection, CollectionView, Replica, ReplicaOptions, Snapshot, ViewError};
use selfsame::session::{Lane, Outcome, Session, Setup, SyncConfig, SyncStats};
use selfsame::store::{Batch, Durability, MemoryStore, Read as _, Span, Store as _, Table};
use selfsame::types::{CollectionName, CollectionSpec, Key, NodeId, Policy};

pub type Mem = Collection<MemoryStore>;

/// A node with one collection, and a wall clock of its own.
pub struct Node {
    pub key: NodeKey,
    pub replica: Replica<MemoryStore>,
    pub collection: Arc<Mem>,
    pub limits: Limits,
    pub now_ms: u64,
}

impl Node {
    pub fn new(seed: u64) -> Self {
        Self::with(seed, HashAlgorithm::Blake3, Limits::default())
    }

    pub fn with(seed: u64, algorithm: HashAlgorithm, limits: Limits) -> Self {
        let mut secret = [0; 32];
        secret[..8].copy_from_slice(&(seed + 1).to_le_bytes());
        let mut rng = SmallRng::seed_from_u64(seed);
        let random = Box::new(move || rng.random());
        let options = ReplicaOptions { limits: limits.clone(), ..ReplicaOptions::default() };
        let replica = Replica::open(MemoryStore::default(), options, random).unwrap();
        let spec = CollectionSpec {
            name: CollectionName::new("players").unwrap(),
            algorithm,
            policy: Policy::Lww,
        };
        let collection = replica.create_collection(spec).unwrap();
        Self { key: NodeKey::from_seed(&secret), replica, collection, limits, now_ms: 1_000_000 }
    }

    pub fn id(&self) -> NodeId {
        self.key.node_id()
    }

    pub fn root(&self) -> Root {
        self.collection.root().unwrap()
    }

    pub fn dots(&self, key: &Key) -> Vec<Dot> {
        let entry = self.collection.get(key).unwrap();
        entry.iter().flat_map(|e| e.record.siblings()).map(|sibling| sibling.dot).collect()
    }

    /// All dots held.
    pub fn held(&self) -> BTreeSet<Dot> {
        let view = self.collection.snapshot().unwrap();
        let mut held = BTreeSet::new();
        for writer in view.writers().unwrap() {
            held.extend(
                view.dots_after(writer, 0, usize::MAX).unwrap().iter().map(|(dot, _)| *dot),
            );
        }
        held
    }

    /// Key, values: what a reader of policy `siblings` sees.
    pub fn visible(&self) -> BTreeMap<Key, BTreeSet<Vec<u8>>> {
        let view = self.collection.snapshot().unwrap();
        let entries = view.entries_after(None, usize::MAX, |_| true).unwrap();
        entries
            .into_iter()
            .map(|entry| {
                let kh = self.collection.key_hash(&entry.key);
                let siblings = entry.record.siblings().iter();
                let values = siblings
                    .map(|s| view.value(&kh, &s.value_hash).unwrap().expect("its value").to_vec());
                (entry.key, values.collect())
            })
            .collect()
    }

    pub fn setup(&self, peer: NodeId, config: SyncConfig, secret: [u8; 32]) -> Setup {
        Setup {
            me: self.id(),
            peer,
            config,
            limits: self.limits.clone(),
            secret,
            clock: Stamp::new(self.now_ms, 0),
        }
    }
}

/// The same rows, opened anew: no page is in memory.
pub fn reopened(node: Node, seed: u64) -> Node {
    let store = MemoryStore::default();
    for table in Table::ALL {
        let mut batch = Batch::default();
        for row in node.replica.store().scan(Span::of(table, &[]), usize::MAX).unwrap() {
            batch.put(table, &row.key, &row.value);
        }
        store.commit(batch, Durability::Always).unwrap();
    }
    let mut rng = SmallRng::seed_from_u64(seed);
    let random = Box::new(move || rng.random());
    let options = ReplicaOptions { page_leaves: 4, ..ReplicaOptions::default() };
    let replica = Replica::open(store, options, random).unwrap();
    let collection = replica.collection(node.collection.name()).unwrap();
    Node { replica, collection, ..node }
}

pub fn key(name: impl ToString) -> Key {
    Key::new(name.to_string().into_bytes()).unwrap()
}

/// A replica that never forgets: which dots live, whatever happens to sessions.
#[derive(Default)]
pub struct Oracle {
    pub written: BTreeMap<Dot, (Key, Vec<u8>)>,
    pub dead: BTreeSet<Dot>,
}

impl Oracle {
    pub fn put(&mut self, node: &mut Node, key: &Key, value: &[u8]) {
        node.now_ms += 1;
        self.dead.extend(node.dots(key));
        let sibling = node.collection.put(key, value.to_vec(), node.now_ms).unwrap();
        self.written.insert(sibling.dot, (key.clone(), value.to_vec()));
    }

    pub fn delete(&mut self, node: &mut Node, key: &Key) {
        node.now_ms += 1;
        self.dead.extend(node.dots(key));
        node.collection.delete(key, node.now_ms).unwrap();
    }

    /// The context of one node is lost (rule D10). Deletions that only it had seen are lost with
    /// it, where another node still holds what was deleted: nothing else is.
    pub fn recover(&mut self, lost: usize, nodes: &[Node]) {
        nodes[lost].collection.recover().unwrap();
        let views: Vec<_> = nodes.iter().map(|node| node.collection.snapshot().unwrap()).collect();
        self.dead.retain(|&dot| {
            let holds = |view: &Snapshot<MemoryStore>| view.key_of(dot).unwrap().is_some();
            let held = views.iter().any(holds);
            let known = views.iter().any(|view| view.causality().knows(dot) && !holds(view));
            known || !held
        });
    }

    /// The dots that live once everybody knows everything.
    pub fn living(&self) -> BTreeSet<Dot> {
        self.written.keys().filter(|dot| !self.dead.contains(dot)).copied().collect()
    }

    /// What a node may hold at any time: nothing that was never written.
    pub fn check(&self, node: &Node) {
        assert!(node.held().iter().all(|dot| self.written.contains_key(dot)));
    }

    pub fn check_converged(&self, nodes: &[&Node]) {
        let living = self.living();
        for node in nodes {
            assert_eq!(node.held(), living, "what lives, and nothing that was deleted");
            assert_eq!(node.root(), nodes[0].root());
            let mut visible: BTreeMap<Key, BTreeSet<Vec<u8>>> = BTreeMap::new();
            for dot in &living {
                let (key, value) = &self.written[dot];
                visible.entry(key.clone()).or_default().insert(value.clone());
            }
            assert_eq!(node.visible(), visible);
            let report = node.collection.check().unwrap();
            assert!(report.is_sound(), "{report:?}");
        }
    }
}

struct End {
    peer: NodeId,
    session: Option<Session>,
    view: Snapshot<MemoryStore>,
    inbox: [VecDeque<Vec<u8>>; 2],
    frames: usize,
}

/// How a session between two nodes went.
#[derive(Debug)]
pub struct Run {
    pub outcomes: [Outcome; 2],
    pub stats: [SyncStats; 2],
    /// Frames delivered in all.
    pub frames: usize,
    /// Most bytes that an end held in memory at once, by its own account.
    pub memory_bytes: u64,
}

/// What happens around a session.
pub struct Around<'a> {
    /// The connection dies after so many frames were sent.
    pub cut_after: Option<usize>,
    /// Called before every step with its number.
    pub before_step: &'a mut dyn FnMut(usize, &mut [&mut Node; 2]),
    /// Changes frames on their way: end that sent it, lane, frame.
    pub tamper: &'a mut dyn FnMut(usize, Lane, &mut Vec<u8>),
}

pub fn run(a: &mut Node, b: &mut Node, config: &SyncConfig, seed: u64) -> Run {
    let around = Around { cut_after: None, before_step: &mut |_, _| {}, tamper: &mut |_, _, _| {} };
    run_around(a, b, config, seed, around)
}

const LANES: [Lane; 2] = [Lane::Control, Lane::Bulk];

/// A session from `a` to `b`: which end does what next is drawn from the seed.
pub fn run_around(
    a: &mut Node,
    b: &mut Node,
    config: &SyncConfig,
    seed: u64,
    around: Around<'_>,
) -> Run {
    let mut rng = SmallRng::seed_from_u64(seed);
    let (id_a, id_b) = (a.id(), b.id());
    let mut nodes = [a, b];
    let view = nodes[0].collection.snapshot().unwrap();
    let secret = rng.random();
    let session = Session::initiate(nodes[0].setup(id_b, config.clone(), secret), &view);
    let mut ends = [
        End { peer: id_b, session: Some(session), view, inbox: Default::default(), frames: 0 },
        End {
            peer: id_a,
            session: None,
            view: nodes[1].collection.snapshot().unwrap(),
            inbox: Default::default(),
            frames: 0,
        },
    ];
    let mut frames = 0;
    let mut memory_bytes = 0;
    let mut idle = 0;
    for step in 0.. {
        assert!(step < 2_000_000, "the session does not end");
        (around.before_step)(step, &mut nodes);
        let at = rng.random_range(0..2);
        let action = rng.random_range(0..3);
        let lane = rng.random_range(0..2);
        let moved = match action {
            0 => {
                let sent = transmit(&mut ends, at, lane, around.tamper);
                frames += usize::from(sent);
                sent
            }
            1 => {
                let mut responder = None;
                if at == 1 && ends[1].session.is_none() && lane == 0 {
                    // the snapshot is of the moment of the hello
                    if let Some(frame) = ends[1].inbox[0].pop_front() {
                        let hello = Session::read_hello(&frame).unwrap();
                        ends[1].view = nodes[1].collection.snapshot().unwrap();
                        let setup = nodes[1].setup(id_a, config.clone(), secret);
                        responder = Some(Session::respond(&hello, setup, &ends[1].view));
                    }
                }
                if responder.is_some() {
                    ends[1].session = responder;
                    true
                } else {
                    receive(&mut ends[at], lane, nodes[at].now_ms)
                }
            }
            _ => work(&mut ends[at], nodes[at], lane == 0),
        };
        let held = ends[at].session.as_ref().map_or(0, Session::memory_bytes);
        memory_bytes = memory_bytes.max(held);
        idle = if moved { 0 } else { idle + 1 };
        let cut = around.cut_after.is_some_and(|after| frames >= after);
        if cut || idle > 200 {
            break;
        }
    }
    let outcomes = [0, 1].map(|at| {
        let Some(session) = &mut ends[at].session else { return Outcome::Interrupted };
        if around.cut_after.is_some() {
            session.disconnected();
        }
        session.outcome().cloned().unwrap_or_else(|| panic!("end {at} is stuck: {session:#?}"))
    });
    let stats = [0, 1].map(|at| {
        ends[at].session.as_ref().map(|session| session.stats().clone()).unwrap_or_default()
    });
    Run { outcomes, stats, frames, memory_bytes }
}

fn transmit(
    ends: &mut [End; 2],
    at: usize,
    lane: usize,
    tamper: &mut dyn FnMut(usize, Lane, &mut Vec<u8>),
) -> bool {
    let end = &mut ends[at];
    let Some(session) = &mut end.session else { return false };
    let Some(mut frame) = session.poll_transmit(LANES[lane], &end.view) else { return false };
    end.frames += 1;
    tamper(at, LANES[lane], &mut frame);
    ends[1 - at].inbox[lane].push_back(frame);
    true
}

fn receive(end: &mut End, lane: usize, now_ms: u64) -> bool {
    let Some(session) = &mut end.session else { return false };
    let Some(frame) = end.inbox[lane].pop_front() else { return false };
    session.handle(LANES[lane], &frame, &end.view, now_ms);
    true
}

fn work(end: &mut End, node: &mut Node, flush: bool) -> bool {
    let Some(session) = &mut end.session else { return false };
    for found in session.poll_clones() {
        node.collection.note_clone(&end.peer, found, node.now_ms).unwrap();
    }
    if let Some(heard) = session.poll_heard() {
        node.collection.hear_mark(&end.peer, heard.mark, heard.since.as_ref()).unwrap();
    }
    if let Some(updates) = session.poll_apply(flush) {
        match node.collection.apply(updates, end.view.epoch(), node.now_ms) {
            Ok(outcomes) => session.applied(&outcomes, &end.view),
            Err(error) => session.store_failed(&error.to_string()),
        }
        return true;
    }
    if let Some(request) = session.poll_join() {
        let joined = node.collection.join(&request, node.now_ms);
        let joined = joined.map(|_| ()).map_err(|error| ViewError::Store(error.to_string()));
        let key = &node.key;
        session.joined(joined, &|message| key.sign(message).to_bytes());
        return true;
    }
    if let Some(record) = session.poll_remember() {
        node.collection.remember_join(&end.peer, &record).unwrap();
        return true;
    }
    false
}
