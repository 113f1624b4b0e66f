//! Replicas that meet in naive sessions: they converge to what a replica that never forgets would
//! have, nothing comes back, whatever happens in between.
#![cfg(feature = "session")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use proptest::prelude::*;
use selfsame::dots::{Dot, DotSet};
use selfsame::hash::HashAlgorithm;
use selfsame::replica::{Collection, CollectionView, KeyUpdate, Replica, ReplicaError};
use selfsame::store::{Batch, Durability, MemoryStore, Read, Store, Table};
use support::{Model, Side, key, options, random, spec, sync};

const NOW: u64 = 5_000_000;
const REPLICAS: usize = 3;

type Shared = Arc<MemoryStore>;

struct Peer {
    store: Shared,
    collection: Arc<Collection<Shared>>,
    model: Model,
    backup: Option<(Shared, Model)>,
    // openings so far: what was begun before the last one is gone
    openings: u64,
}

/// A session in flight: both snapshots, with what the models were at that moment.
struct Session {
    peers: [usize; 2],
    openings: [u64; 2],
    sides: [Side; 2],
    models: [Model; 2],
    applied: [bool; 2],
    joined: [bool; 2],
}

#[derive(Debug, Clone)]
enum Step {
    Put(usize, u8, u8),
    PutOverNothing(usize, u8, u8),
    Delete(usize, u8),
    Begin(usize, usize),
    /// Applies at one side what the other says, in an order of its own; twice now and then.
    Apply(usize, bool, bool),
    Join(usize, bool),
    /// A sibling travels on its own, with those it replaced (rule D9).
    Push(usize, usize, u8),
    Restart(usize),
    Backup(usize),
    Restore(usize),
    Recover(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let peer = || 0..REPLICAS;
    let number = || 0..5u8;
    prop_oneof![
        6 => (peer(), number(), any::<u8>()).prop_map(|(p, k, v)| Step::Put(p, k, v)),
        1 => (peer(), number(), any::<u8>()).prop_map(|(p, k, v)| Step::PutOverNothing(p, k, v)),
        4 => (peer(), number()).prop_map(|(p, k)| Step::Delete(p, k)),
        5 => (peer(), peer()).prop_map(|(p, q)| Step::Begin(p, q)),
        8 => (0..3usize, any::<bool>(), any::<bool>()).prop_map(|(s, a, t)| Step::Apply(s, a, t)),
        8 => (0..3usize, any::<bool>()).prop_map(|(s, a)| Step::Join(s, a)),
        2 => (peer(), peer(), number()).prop_map(|(p, q, k)| Step::Push(p, q, k)),
        1 => peer().prop_map(Step::Restart),
        1 => peer().prop_map(Step::Backup),
        1 => peer().prop_map(Step::Restore),
    ]
}

fn open(store: &Shared, seed: u64) -> Arc<Collection<Shared>> {
    let replica = Replica::open(Arc::clone(store), options(2), random(seed)).unwrap();
    replica.create_collection(spec(HashAlgorithm::Blake3)).unwrap()
}

fn copy(store: &Shared) -> Shared {
    let copy = MemoryStore::default();
    let mut batch = Batch::default();
    for table in Table::ALL {
        for row in store.scan(table, &[], Bound::Unbounded, usize::MAX).unwrap() {
            batch.put_shared(table, &row.key, row.value);
        }
    }
    copy.commit(batch, Durability::Always).unwrap();
    Arc::new(copy)
}

struct World {
    peers: Vec<Peer>,
    sessions: Vec<Session>,
    seeds: u64,
    now: u64,
}

impl World {
    fn new() -> Self {
        let peer = |seed| {
            let store = Shared::default();
            let collection = open(&store, seed);
            Peer { store, collection, model: Model::default(), backup: None, openings: 0 }
        };
        let peers = (0..REPLICAS as u64).map(|number| peer(number * 1_000 + 1)).collect();
        Self { peers, sessions: Vec::new(), seeds: 10_000, now: NOW }
    }

    fn reopen(&mut self, at: usize) {
        self.seeds += 1;
        let peer = &mut self.peers[at];
        peer.collection = open(&peer.store, self.seeds);
        peer.openings += 1;
    }

    fn step(&mut self, step: Step) {
        self.now += 1;
        let now = self.now;
        match step {
            Step::Put(at, number, value) => {
                let peer = &mut self.peers[at];
                let put = peer.collection.put(&key(number), [value], now).unwrap();
                peer.model.remove_key(&key(number));
                peer.model.add(&key(number), put);
            }
            Step::PutOverNothing(at, number, value) => {
                let peer = &mut self.peers[at];
                let put = peer.collection.put_over(&key(number), [value], &[], now).unwrap();
                peer.model.add(&key(number), put);
            }
            Step::Delete(at, number) => {
                let peer = &mut self.peers[at];
                peer.collection.delete(&key(number), now).unwrap();
                peer.model.remove_key(&key(number));
            }
            Step::Begin(p, q) if p != q => self.begin(p, q),
            Step::Begin(..) => {}
            Step::Apply(at, side, twice) => self.apply(at, usize::from(side), twice),
            Step::Join(at, side) => self.join(at, usize::from(side)),
            Step::Push(from, to, number) => self.push(from, to, number),
            Step::Restart(at) => self.reopen(at),
            Step::Backup(at) => {
                let peer = &mut self.peers[at];
                peer.backup = Some((copy(&peer.store), peer.model.clone()));
            }
            Step::Restore(at) => {
                if let Some((store, model)) = self.peers[at].backup.clone() {
                    self.peers[at].store = copy(&store);
                    self.peers[at].model = model;
                    self.reopen(at);
                }
            }
            Step::Recover(at) => {
                let peer = &mut self.peers[at];
                peer.collection.recover().unwrap();
                let held: BTreeSet<Dot> = peer.model.held().into_keys().collect();
                peer.model.seen = held;
            }
        }
        for peer in &self.peers {
            peer.model.assert_is(&peer.collection);
        }
    }

    fn begin(&mut self, p: usize, q: usize) {
        let side = |at: usize| Side::of(&self.peers[at].collection);
        self.sessions.push(Session {
            peers: [p, q],
            openings: [self.peers[p].openings, self.peers[q].openings],
            sides: [side(p), side(q)],
            models: [self.peers[p].model.clone(), self.peers[q].model.clone()],
            applied: [false; 2],
            joined: [false; 2],
        });
        if self.sessions.len() > 3 {
            self.sessions.remove(0); // aborted
        }
    }

    fn apply(&mut self, at: usize, side: usize, twice: bool) {
        let Some(session) = self.sessions.get_mut(at) else { return };
        let peer = &mut self.peers[session.peers[side]];
        if peer.openings != session.openings[side] {
            return;
        }
        let (mine, theirs) = (&session.sides[side], &session.sides[1 - side]);
        let mut updates = theirs.updates_for(mine, HashAlgorithm::Blake3);
        if self.now.is_multiple_of(2) {
            updates.reverse();
        }
        for update in updates.iter().cycle().take(updates.len() * (1 + usize::from(twice))) {
            let batch = vec![update.clone()];
            match peer.collection.apply(batch, mine.epoch, self.now) {
                Ok(outcomes) => assert!(outcomes[0].refused.is_empty()),
                Err(ReplicaError::OtherEpoch(_)) => return,
                Err(error) => panic!("{error}"),
            }
            model_apply(&mut peer.model, update);
        }
        session.applied[side] = true;
    }

    fn join(&mut self, at: usize, side: usize) {
        let Some(session) = self.sessions.get_mut(at) else { return };
        let peer = &mut self.peers[session.peers[side]];
        let possible = session.applied[side]
            && !session.joined[side]
            && peer.openings == session.openings[side];
        if !possible {
            return;
        }
        let (mine, theirs) = (&session.sides[side], &session.sides[1 - side]);
        assert_eq!(mine.merged(theirs), theirs.merged(mine));
        let request = theirs.join_request(mine.epoch, DotSet::default());
        match peer.collection.join(&request, self.now) {
            Ok(_) => {}
            Err(ReplicaError::OtherEpoch(_)) => return,
            Err(error) => panic!("{error}"),
        }
        session.joined[side] = true;
        // the model: exceptions of the other side held here go, and all it had seen is seen
        let theirs = &session.models[1 - side];
        for dot in theirs.canonical().1 {
            peer.model.remove(dot);
        }
        // what the peer had seen dead and this side held when they met was named, and is gone
        for dot in theirs.seen.iter().filter(|dot| !theirs.held().contains_key(dot)) {
            let met = session.models[side].held().contains_key(dot);
            assert!(!met || !peer.model.held().contains_key(dot), "{dot} outlived the session");
        }
        peer.model.seen.extend(theirs.seen.iter().copied());
    }

    fn push(&mut self, from: usize, to: usize, number: u8) {
        if from == to {
            return;
        }
        let side = Side::of(&self.peers[from].collection);
        let Some((dot, (key, sibling))) =
            side.held.iter().find(|(_, (held, _))| *held == key(number))
        else {
            return;
        };
        let value = Some(Arc::clone(&side.values[dot]));
        let add = vec![selfsame::replica::IncomingSibling { sibling: *sibling, value }];
        let target = &mut self.peers[to];
        let older = target.model.entries.get(key).map(|s| s.keys().copied().collect());
        let older: Vec<Dot> = older.unwrap_or_default();
        // those that the sender had seen and does not hold any more
        let remove: Vec<Dot> = older
            .into_iter()
            .filter(|dot| side.seen(*dot) && !side.held.contains_key(dot))
            .collect();
        let key_hash = HashAlgorithm::Blake3.key_hash(key);
        let update = KeyUpdate { key: Some(key.clone()), key_hash, add, remove };
        let epoch = target.collection.snapshot().unwrap().epoch();
        target.collection.apply(vec![update.clone()], epoch, self.now).unwrap();
        model_apply(&mut target.model, &update);
    }

    /// Everybody meets everybody until nothing is left to say.
    fn settle(&mut self) {
        let before: Vec<Model> = self.peers.iter().map(|peer| peer.model.clone()).collect();
        for _ in 0..2 {
            for p in 0..REPLICAS {
                for q in p + 1..REPLICAS {
                    sync(&self.peers[p].collection, &self.peers[q].collection, self.now);
                }
            }
        }
        // a replica that never forgets: a dot is there if all who ever saw it still hold it
        let seen: BTreeSet<Dot> = before.iter().flat_map(|model| model.seen.clone()).collect();
        let mut expected = BTreeMap::new();
        for dot in seen {
            let witnesses: Vec<&Model> =
                before.iter().filter(|model| model.seen.contains(&dot)).collect();
            if witnesses.iter().all(|model| model.held().contains_key(&dot)) {
                expected.insert(dot, witnesses[0].held()[&dot].clone());
            }
        }
        let states: BTreeSet<_> =
            self.peers.iter().map(|peer| peer.collection.state_hash().unwrap()).collect();
        assert_eq!(states.len(), 1, "the replicas did not converge");
        for peer in &self.peers {
            assert_eq!(Side::of(&peer.collection).held, expected);
            assert!(peer.collection.check().unwrap().is_sound());
        }
    }
}

fn model_apply(model: &mut Model, update: &KeyUpdate) {
    for dot in &update.remove {
        model.remove(*dot);
    }
    for item in &update.add {
        if !model.seen.contains(&item.sibling.dot) {
            model.add(update.key.as_ref().unwrap(), item.sibling);
        }
    }
}

fn run(steps: Vec<Step>) {
    let mut world = World::new();
    for step in steps {
        world.step(step);
    }
    world.settle();
}

proptest! {
    #[test]
    fn replicas_converge_and_nothing_comes_back(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        run(steps);
    }
}

#[test]
fn a_deletion_reaches_a_peer_that_was_away_through_a_third_one() {
    let mut world = World::new();
    world.step(Step::Put(0, 1, 1));
    let pairs = |world: &World, p: usize, q: usize| {
        sync(&world.peers[p].collection, &world.peers[q].collection, world.now);
    };
    pairs(&world, 0, 1);
    pairs(&world, 1, 2);
    world.peers[0].collection.delete(&key(1), world.now).unwrap();
    pairs(&world, 0, 1);
    pairs(&world, 2, 1); // the deletion meets the copy at a node that never had both
    assert!(world.peers.iter().all(|p| p.collection.get(&key(1)).unwrap().is_none()));
    pairs(&world, 2, 0);
    assert!(world.peers.iter().all(|p| p.collection.get(&key(1)).unwrap().is_none()));
}

#[test]
fn a_session_in_flight_cannot_join_after_a_recovery() {
    let mut world = World::new();
    world.step(Step::Put(0, 1, 1));
    world.step(Step::Put(1, 2, 2));
    world.step(Step::Begin(0, 1));
    world.step(Step::Apply(0, false, false));
    world.step(Step::Recover(0));
    let session = &world.sessions[0];
    let request = session.sides[1].join_request(session.sides[0].epoch, DotSet::default());
    assert!(matches!(
        world.peers[0].collection.join(&request, NOW),
        Err(ReplicaError::OtherEpoch(_))
    ));
}
