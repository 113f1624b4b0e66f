//! A store that refuses a batch: the change did not happen, and nothing shows that it was tried.
#![cfg(feature = "session")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use selfsame::dots::DotSet;
use selfsame::hash::HashAlgorithm;
use selfsame::replica::{Collection, CollectionView, JoinRequest, Replica, ReplicaError};
use selfsame::store::{
    Batch, Capabilities, CommitNumber, Durability, MemorySnapshot, MemoryStore, Read, Row, Span,
    Store, StoreError, Table,
};
use support::{Model, Side, key, options, random, spec, sync};

const NOW: u64 = 1_000_000;

#[derive(Default)]
struct Failing {
    store: MemoryStore,
    full: AtomicBool,
    /// Syncs fail, and nothing is synced any more.
    sync_fails: AtomicBool,
    /// The last batch that is synced.
    synced: AtomicU64,
}

impl Read for Failing {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Arc<[u8]>>, StoreError> {
        self.store.get(table, key)
    }

    fn scan(&self, span: Span<'_>, limit: usize) -> Result<Vec<Row>, StoreError> {
        self.store.scan(span, limit)
    }
}

impl Store for Failing {
    type Snapshot = MemorySnapshot;

    fn snapshot(&self) -> Result<MemorySnapshot, StoreError> {
        self.store.snapshot()
    }

    fn apply(&self, batch: Batch) -> Result<CommitNumber, StoreError> {
        if self.full.load(Ordering::Relaxed) {
            return Err(StoreError::Full);
        }
        self.store.apply(batch)
    }

    fn settle(&self, number: CommitNumber, durability: Durability) -> Result<(), StoreError> {
        if number.0 <= self.synced.load(Ordering::Relaxed) || durability != Durability::Always {
            return Ok(());
        }
        if self.sync_fails.load(Ordering::Relaxed) {
            return Err(StoreError::Io("the sync failed".into()));
        }
        self.store.settle(number, durability)?;
        self.synced.fetch_max(number.0, Ordering::Relaxed);
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }
}

fn open(store: &Arc<Failing>, seed: u64) -> Arc<Collection<Arc<Failing>>> {
    let replica = Replica::open(Arc::clone(store), options(2), random(seed)).unwrap();
    replica.create_collection(spec(HashAlgorithm::Blake3)).unwrap()
}

fn is_full<T>(result: Result<T, ReplicaError>) -> bool {
    matches!(result, Err(ReplicaError::Store(StoreError::Full)))
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Import(u8),
    Full(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..12u8, any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        2 => (0..12u8).prop_map(Step::Delete),
        1 => any::<u8>().prop_map(Step::Import),
        2 => any::<bool>().prop_map(Step::Full),
    ]
}

proptest! {
    #[test]
    fn a_refused_change_leaves_no_trace(steps in prop::collection::vec(step(), 1..40)) {
        let store = Arc::new(Failing::default());
        let collection = open(&store, 1);
        let mut model = Model::default();
        for step in steps {
            let full = store.full.load(Ordering::Relaxed);
            match step {
                Step::Put(number, value) => match collection.put(&key(number), [value], NOW) {
                    Ok(put) => {
                        model.remove_key(&key(number));
                        model.add(&key(number), put);
                    }
                    error => assert!(full && is_full(error)),
                },
                Step::Delete(number) => match collection.delete(&key(number), NOW) {
                    Ok(_) => model.remove_key(&key(number)),
                    error => assert!(full && is_full(error)),
                },
                Step::Import(value) => {
                    let entries = (20..26).map(|number| (key(number), Arc::from([value].as_slice())));
                    match collection.import(entries, NOW) {
                        Ok(_) => {
                            for number in 20..26 {
                                let entry = collection.get(&key(number)).unwrap().unwrap();
                                model.remove_key(&key(number));
                                model.add(&key(number), entry.record.siblings()[0]);
                            }
                        }
                        error => assert!(full && is_full(error)),
                    }
                }
                Step::Full(now) => store.full.store(now, Ordering::Relaxed),
            }
            model.assert_is(&collection);
        }
        store.full.store(false, Ordering::Relaxed);
        drop(collection);
        model.assert_is(&open(&store, 2));
    }
}

/// It would sign that both are the same, on top of what a loss of power takes back.
#[test]
fn nothing_is_joined_on_top_of_a_recovery_that_was_not_synced() {
    let store = Arc::new(Failing::default());
    let collection = open(&store, 1);
    collection.put(&key(1), [1], NOW).unwrap();
    store.sync_fails.store(true, Ordering::Relaxed);
    assert!(collection.recover().is_err(), "the sync failed");
    let (epoch, causality) = {
        let view = collection.snapshot().unwrap();
        (view.epoch(), view.causality().clone())
    };
    // nothing that this one has not seen: a join that writes no row
    let request = JoinRequest { epoch, peer: causality, refused: DotSet::default() };
    assert!(collection.join(&request, NOW).is_err(), "what is there is not durable");
    store.sync_fails.store(false, Ordering::Relaxed);
    assert_eq!(collection.join(&request, NOW).unwrap(), 0);
}

/// Pages beside the one that changes are not in memory, and must not be needed to undo it.
#[test]
fn a_delete_that_a_full_disk_refuses_does_not_damage_the_collection() {
    for gone in 0..6 {
        let store = Arc::new(Failing::default());
        let open = |seed| {
            let replica = Replica::open(Arc::clone(&store), options(1), random(seed)).unwrap();
            replica.create_collection(spec(HashAlgorithm::Blake3)).unwrap()
        };
        let (collection, mut model) = (open(1), Model::default());
        for number in 0..6 {
            model.add(&key(number), collection.put(&key(number), [number], NOW).unwrap());
        }
        drop(collection);
        let collection = open(2);
        store.full.store(true, Ordering::Relaxed);
        assert!(is_full(collection.delete(&key(gone), NOW)));
        store.full.store(false, Ordering::Relaxed);
        model.assert_is(&collection);
        collection.delete(&key(gone), NOW).unwrap();
        model.remove_key(&key(gone));
        model.assert_is(&collection);
    }
}

#[test]
fn a_join_that_the_store_refuses_did_not_happen() {
    let (left, right) = (Arc::new(Failing::default()), Arc::new(Failing::default()));
    let (a, b) = (open(&left, 1), open(&right, 2));
    a.put(&key(1), *b"one", NOW).unwrap();
    sync(&a, &b, NOW);
    b.delete(&key(1), NOW).unwrap();
    b.put(&key(2), *b"two", NOW).unwrap();
    let (mine, theirs) = (Side::of(&a), Side::of(&b));
    let before = a.state_hash().unwrap();
    left.full.store(true, Ordering::Relaxed);
    let updates = theirs.updates_for(&mine, HashAlgorithm::Blake3);
    assert!(is_full(a.apply(updates, mine.epoch, NOW)));
    let peer = theirs.causality.clone();
    let request = JoinRequest { epoch: mine.epoch, peer, refused: DotSet::default() };
    assert!(is_full(a.join(&request, NOW)));
    assert_eq!(a.state_hash().unwrap(), before);
    assert_eq!(*a.snapshot().unwrap().causality(), mine.causality);
    left.full.store(false, Ordering::Relaxed);
    sync(&a, &b, NOW);
    assert_eq!(a.state_hash().unwrap(), b.state_hash().unwrap());
    assert!(a.check().unwrap().is_sound());
}

#[test]
fn a_refused_change_that_made_pages_grow_together_leaves_the_tree_as_it_was() {
    let store = Arc::new(Failing::default());
    let collection = open(&store, 1);
    for number in [1, 8, 2] {
        collection.put(&key(number), *b"value", NOW).unwrap();
    }
    drop(collection);
    // no page is in memory; two of them become one without the key
    let collection = open(&store, 2);
    let before = collection.root().unwrap();
    store.full.store(true, Ordering::Relaxed);
    for number in [1, 8, 2] {
        assert!(is_full(collection.delete(&key(number), NOW)));
        assert_eq!(collection.root().unwrap(), before);
        assert!(collection.check().unwrap().is_sound());
    }
    store.full.store(false, Ordering::Relaxed);
    assert_eq!(collection.delete(&key(8), NOW).unwrap(), 1);
    assert!(collection.check().unwrap().is_sound());
}

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It is refused, and all later ones.
    Fails,
    /// Its first rows are written, then it is refused, and all later ones.
    Torn,
    /// It and all later ones are answered for as synced, and gone after a crash.
    Lied,
}

/// A store of which one write, and all behind it, go wrong.
struct Faulty {
    store: MemoryStore,
    /// What is there after a crash, where that is less.
    durable: Mutex<Option<MemoryStore>>,
    fault: Fault,
    /// Writes that go well before.
    left: AtomicU64,
}

fn copied(store: &impl Read) -> MemoryStore {
    let copy = MemoryStore::default();
    for table in Table::ALL {
        let mut batch = Batch::default();
        for row in store.scan(Span::of(table, &[]), usize::MAX).unwrap() {
            batch.put(table, &row.key, &row.value);
        }
        copy.commit(batch, Durability::Always).unwrap();
    }
    copy
}

impl Faulty {
    fn after_a_crash(&self) -> MemoryStore {
        self.durable.lock().unwrap().take().unwrap_or_else(|| copied(&self.store))
    }
}

impl Read for Faulty {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Arc<[u8]>>, StoreError> {
        self.store.get(table, key)
    }

    fn scan(&self, span: Span<'_>, limit: usize) -> Result<Vec<Row>, StoreError> {
        self.store.scan(span, limit)
    }
}

impl Store for Faulty {
    type Snapshot = MemorySnapshot;

    fn snapshot(&self) -> Result<MemorySnapshot, StoreError> {
        self.store.snapshot()
    }

    fn apply(&self, batch: Batch) -> Result<CommitNumber, StoreError> {
        let well =
            self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        if well.is_ok() {
            return self.store.apply(batch);
        }
        let mut durable = self.durable.lock().unwrap();
        let first = durable.is_none();
        match self.fault {
            Fault::Fails => Err(StoreError::Io("it broke".into())),
            Fault::Torn => {
                if first {
                    let mut torn = Batch::default();
                    for (table, key, value) in batch.iter().take(batch.len().div_ceil(2)) {
                        match value {
                            Some(value) => torn.put(table, key, value),
                            None => torn.remove(table, key),
                        }
                    }
                    self.store.apply(torn)?;
                    *durable = Some(copied(&self.store));
                }
                Err(StoreError::Io("it broke".into()))
            }
            Fault::Lied => {
                if first {
                    *durable = Some(copied(&self.store));
                }
                self.store.apply(batch)
            }
        }
    }

    fn settle(&self, number: CommitNumber, durability: Durability) -> Result<(), StoreError> {
        self.store.settle(number, durability)
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }
}

fn open_any<S: Store>(store: S, seed: u64) -> Result<Arc<Collection<S>>, ReplicaError> {
    Replica::open(store, options(2), random(seed))?.create_collection(spec(HashAlgorithm::Blake3))
}

type Shared = Arc<MemoryStore>;

/// Scrubs, takes back what rotted from a peer that has it, scrubs again.
fn repair<S: Store, T: Store>(
    collection: &Collection<S>,
    peer: &Collection<T>,
) -> Result<(), ReplicaError> {
    for _ in 0..2 {
        while !collection.scrub(700, NOW)?.ended {}
        let rotten = collection.rotten_entries(100)?;
        let given = rotten.iter().filter_map(|key| peer.entry(key).unwrap());
        let given: Vec<_> = given.map(|entry| (entry.key, entry.record)).collect();
        collection.install_entries(&given)?;
        for lost in collection.lost_values(100)? {
            let value = peer.value(&lost.key, &lost.hash).unwrap().unwrap();
            collection.install_value(&lost.key, &value)?;
        }
    }
    Ok(())
}

#[test]
fn a_repair_whose_writes_fail_are_torn_or_lost_is_simply_done_again() {
    // two equal replicas, one of which rots
    let (of_sound, of_peer) = (Shared::default(), Shared::default());
    let sound = open_any(Arc::clone(&of_sound), 1).unwrap();
    let peer = open_any(Arc::clone(&of_peer), 2).unwrap();
    for number in 0..30 {
        if number % 2 == 0 { &sound } else { &peer }.put(&key(number), [number], NOW).unwrap();
    }
    sync(&sound, &peer, NOW);
    sound.delete(&key(7), NOW + 1).unwrap();
    peer.put(&key(8), *b"again", NOW + 1).unwrap();
    sync(&sound, &peer, NOW + 2);
    let state = sound.state_hash().unwrap();
    assert_eq!(state, peer.state_hash().unwrap());
    let rotten = copied(&of_sound);
    let mut went_wrong = 0;
    for fault in [Fault::Fails, Fault::Torn, Fault::Lied] {
        for writes in 0..14 {
            let store = copied(&rotten);
            let mut batch = Batch::default();
            for (table, at) in
                [(Table::Entries, 3), (Table::Entries, 9), (Table::Dots, 2), (Table::Values, 5)]
            {
                let rows = store.scan(Span::of(table, &[]), usize::MAX).unwrap();
                let mut value = rows[at].value.to_vec();
                value[0] ^= 4;
                batch.put(table, &rows[at].key, &value);
            }
            store.commit(batch, Durability::Always).unwrap();
            let left = AtomicU64::new(writes);
            let store = Arc::new(Faulty { store, durable: Mutex::default(), fault, left });
            let acknowledged = match open_any(Arc::clone(&store), 3) {
                Ok(collection) => {
                    let repaired = repair(&collection, &peer);
                    went_wrong += u32::from(repaired.is_err());
                    // where a sync was lied about, nothing acknowledged later need be there
                    let put = collection.put(&key(100), *b"new", NOW + 3);
                    put.is_ok() && fault != Fault::Lied
                }
                Err(_) => false,
            };
            let collection = open_any(store.after_a_crash(), 4).unwrap();
            assert_eq!(collection.damage(), None, "{fault:?} {writes}");
            repair(&collection, &peer).unwrap();
            assert!(collection.check().unwrap().is_sound(), "{fault:?} {writes}");
            let new = collection.get(&key(100)).unwrap().is_some();
            assert!(new || !acknowledged, "{fault:?} {writes}: an acknowledged write is lost");
            if !new {
                assert_eq!(collection.state_hash().unwrap(), state, "{fault:?} {writes}");
            }
            assert!(collection.get(&key(7)).unwrap().is_none());
            let beside = open_any(copied(&of_peer), 5).unwrap();
            sync(&collection, &beside, NOW + 4);
            assert_eq!(collection.state_hash().unwrap(), beside.state_hash().unwrap());
        }
    }
    assert!(went_wrong > 8, "{went_wrong}");
}
