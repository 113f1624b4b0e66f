//! Sketches that a collection keeps are those of its entries, whatever became of these.
#![cfg(feature = "session")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::Arc;

use proptest::prelude::*;
use selfsame::backup::{BackupLimits, BackupReader, Chain};
use selfsame::hash::HashAlgorithm;
use selfsame::limits::Limits;
use selfsame::replica::{
    Collection, CollectionView, Replica, ReplicaOptions, RestoreOptions, Snapshot, Warming,
};
use selfsame::sketch::{Depth, Shape, Sketches};
use selfsame::store::MemoryStore;
use selfsame::types::{CollectionName, NodeId};
use support::{all_entries, key, random, spec, sync};

type Shared = Arc<MemoryStore>;

const NOW: u64 = 1_000_000;

fn open(store: &Shared, seed: u64, limits: Limits) -> (Replica<Shared>, Arc<Collection<Shared>>) {
    let options = ReplicaOptions { page_leaves: 2, limits, ..ReplicaOptions::default() };
    let replica = Replica::open(Arc::clone(store), options, random(seed)).unwrap();
    let collection = replica.create_collection(spec(HashAlgorithm::Blake3)).unwrap();
    (replica, collection)
}

/// Keeps sketches of the smallest collection too.
fn of_small() -> Limits {
    Limits { sketches_from_entries: 1, max_loaded_pages: 4, kept_symbols: 100, ..Limits::default() }
}

fn warm(collection: &Collection<Shared>) {
    while collection.warm_sketches().unwrap() == Warming::Goes {}
}

/// Made from the entries, by no code that keeps them.
fn made(snapshot: &Snapshot<Shared>, shape: impl Into<Shape>) -> Sketches {
    let mut sketches = Sketches::new(shape.into());
    for entry in all_entries(snapshot) {
        let algorithm = snapshot.spec().algorithm;
        sketches.add(&algorithm.key_hash(&entry.key), &entry.record.digest(algorithm));
    }
    sketches
}

fn assert_kept(collection: &Collection<Shared>) {
    let snapshot = collection.snapshot().unwrap();
    if let Some(kept) = snapshot.sketches() {
        assert_eq!(*kept, made(&snapshot, kept.shape()));
    }
    let report = collection.check().unwrap();
    assert!(report.is_sound(), "{report:?}");
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8),
    Delete(u8),
    PutElsewhere(u8),
    DeleteElsewhere(u8),
    Session,
    Warm(u16),
    Reopen,
    Recover,
    BackUp,
    Restore,
    Freeze,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..30u8).prop_map(Step::Put),
        4 => (0..30u8).prop_map(Step::Delete),
        4 => (0..30u8).prop_map(Step::PutElsewhere),
        2 => (0..30u8).prop_map(Step::DeleteElsewhere),
        2 => Just(Step::Session),
        6 => (1..300u16).prop_map(Step::Warm),
        1 => Just(Step::Reopen),
        1 => Just(Step::Recover),
        1 => Just(Step::BackUp),
        1 => Just(Step::Restore),
        2 => Just(Step::Freeze),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn they_are_kept_through_whatever_happens(steps in prop::collection::vec(step(), 1..60)) {
        let store = Shared::default();
        let (mut replica, mut collection) = open(&store, 1, of_small());
        let (_elsewhere, other) = open(&Shared::default(), 2, of_small());
        let (mut backup, mut frozen) = (None, Vec::new());
        for (at, step) in steps.into_iter().enumerate() {
            let now = NOW + at as u64;
            match step {
                Step::Put(number) => drop(collection.put(&key(number), [number], now).unwrap()),
                Step::Delete(number) => drop(collection.delete(&key(number), now).unwrap()),
                Step::PutElsewhere(number) => drop(other.put(&key(number), [7], now).unwrap()),
                Step::DeleteElsewhere(number) => drop(other.delete(&key(number), now).unwrap()),
                Step::Session => sync(&collection, &other, now),
                Step::Warm(slices) => {
                    for _ in 0..slices {
                        collection.warm_sketches().unwrap();
                    }
                }
                Step::Reopen => {
                    drop((replica, collection));
                    (replica, collection) = open(&store, 100 + at as u64, of_small());
                    prop_assert!(!collection.has_sketches());
                }
                Step::Recover => drop(collection.recover().unwrap()),
                Step::BackUp => {
                    let snapshot = collection.snapshot().unwrap();
                    let (head, keys) =
                        snapshot.backup_head(NodeId([9; 32]), now, None).unwrap();
                    let written = snapshot.back_up(&head, keys.as_deref(), Vec::new()).unwrap();
                    backup = Some(written.0);
                }
                Step::Restore => {
                    let Some(backup) = &backup else { continue };
                    let reader = BackupReader::open(&backup[..], BackupLimits::default()).unwrap();
                    let replacing =
                        RestoreOptions { replace: true, now_ms: now, ..RestoreOptions::default() };
                    replica.restore(&mut Chain::of(vec![reader]).unwrap(), &replacing).unwrap();
                    collection = replica.collection(collection.name()).unwrap();
                }
                Step::Freeze => frozen.push(collection.snapshot().unwrap()),
            }
        }
        assert_kept(&collection);
        warm(&collection);
        prop_assert_eq!(collection.has_sketches(), collection.totals().unwrap().entries > 0);
        assert_kept(&collection);
        for snapshot in frozen {
            if let Some(kept) = snapshot.sketches() {
                prop_assert_eq!(kept, &made(&snapshot, Shape::new(Depth::Coarse, 100)));
            }
        }
    }
}

#[test]
fn they_are_made_while_others_write() {
    let store = Shared::default();
    let (_replica, collection) = open(&store, 1, of_small());
    for number in 0..200 {
        collection.put(&key(number), [1], NOW).unwrap();
    }
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..10_u8 {
                for number in 0..=u8::MAX {
                    collection.put(&key(number), [round], NOW).unwrap();
                    if number % 3 == round % 3 {
                        collection.delete(&key(number), NOW).unwrap();
                    }
                }
            }
        });
        let warmers: Vec<_> = (0..2).map(|_| scope.spawn(|| warm(&collection))).collect();
        writer.join().unwrap();
        warmers.into_iter().for_each(|warmer| warmer.join().unwrap());
    });
    assert!(collection.has_sketches());
    assert_kept(&collection);
}

#[test]
fn small_collections_and_those_beyond_the_memory_keep_none() {
    let kept = |limits: Limits| {
        let (_replica, collection) = open(&Shared::default(), 1, limits);
        for number in 0..100 {
            collection.put(&key(number), [1], NOW).unwrap();
        }
        warm(&collection);
        (collection.has_sketches(), collection.sketch_bytes())
    };
    assert_eq!(kept(Limits::default()), (false, 0));
    assert_eq!(kept(Limits { max_sketch_bytes: 0, ..of_small() }), (false, 0));
    let bytes = Shape::new(Depth::Coarse, 100).bytes();
    assert_eq!(kept(Limits { max_sketch_bytes: bytes - 1, ..of_small() }), (false, 0));
    assert_eq!(kept(Limits { max_sketch_bytes: bytes, ..of_small() }), (true, bytes));
}

#[test]
fn the_memory_is_for_all_collections_and_comes_back() {
    let bytes = Shape::new(Depth::Coarse, 100).bytes();
    let limits = Limits { max_sketch_bytes: bytes, sketches_from_entries: 10, ..of_small() };
    let (replica, first) = open(&Shared::default(), 1, limits);
    let mut spec = spec(HashAlgorithm::Blake3);
    spec.name = CollectionName::new("others").unwrap();
    let second = replica.create_collection(spec).unwrap();
    for number in 0..20 {
        first.put(&key(number), [1], NOW).unwrap();
        second.put(&key(number), [1], NOW).unwrap();
    }
    warm(&first);
    warm(&second);
    assert!(first.has_sketches() && !second.has_sketches());
    for number in 0..14 {
        first.delete(&key(number), NOW).unwrap();
    }
    warm(&first);
    assert!(first.has_sketches(), "they stay until half of them are gone");
    first.delete(&key(14), NOW).unwrap();
    first.delete(&key(15), NOW).unwrap();
    warm(&first);
    warm(&second);
    assert!(!first.has_sketches() && second.has_sketches());
    assert_kept(&first);
    assert_kept(&second);
}
