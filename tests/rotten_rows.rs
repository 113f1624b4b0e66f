//! Rows that rotted or are nonsense: an aid that is lost costs nothing, damage is named, and
//! nothing panics.
#![cfg(feature = "session")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::ops::Bound;
use std::sync::Arc;

use selfsame::dots::{Causality, Dot, DotSet};
use selfsame::hash::HashAlgorithm;
use selfsame::replica::{Collection, CollectionView, JoinRecord, JoinRequest, Replica};
use selfsame::store::{Batch, Durability, MemoryStore, Read, Store, Table};
use selfsame::types::{Key, NodeId};
use support::{key, options, random, spec};

const NOW: u64 = 1_000_000;

type Shared = Arc<MemoryStore>;

fn open(store: &Shared, seed: u64) -> Arc<Collection<Shared>> {
    let replica = Replica::open(Arc::clone(store), options(4), random(seed)).unwrap();
    replica.create_collection(spec(HashAlgorithm::Blake3)).unwrap()
}

fn filled() -> (Shared, Arc<Collection<Shared>>) {
    let store = Shared::default();
    let collection = open(&store, 1);
    for number in 0..20 {
        collection.put(&key(number), [number], NOW).unwrap();
        collection.put(&key(number), [number, 1], NOW + 1).unwrap();
    }
    collection.delete(&key(3), NOW + 2).unwrap();
    (store, collection)
}

fn keys(store: &Shared, table: Table) -> Vec<Box<[u8]>> {
    store.scan_keys(table, &[], Bound::Unbounded, usize::MAX).unwrap()
}

fn overwrite(store: &Shared, table: Table, value: &[u8]) {
    let mut batch = Batch::default();
    for key in keys(store, table) {
        batch.put(table, &key, value);
    }
    store.commit(batch, Durability::Always).unwrap();
}

#[test]
fn rotten_aids_stop_neither_puts_nor_sessions() {
    let (store, collection) = filled();
    let peer = NodeId([7; 32]);
    let merged = Causality::clone(&collection.causality().unwrap());
    collection.remember_join(&peer, &JoinRecord { log_position: 1, merged }).unwrap();
    assert!(collection.join_record(&peer).unwrap().is_some());
    let view = collection.snapshot().unwrap();
    assert!(view.removals_after(0, 1_000).unwrap().complete);
    for nonsense in [&b""[..], b"x", &[2; 60], &[255; 300]] {
        for table in [Table::Log, Table::History, Table::Joins] {
            overwrite(&store, table, nonsense);
        }
        let view = collection.snapshot().unwrap();
        assert!(!view.removals_after(0, 1_000).unwrap().complete);
        assert_eq!(collection.join_record(&peer).unwrap(), None);
        assert_eq!(collection.history(&key(1), 10).unwrap(), []);
        for number in 0..20 {
            collection.put(&key(number), [number, 2], NOW + (1 << 40)).unwrap();
        }
        assert!(collection.check().unwrap().is_sound());
    }
}

/// Whatever one row of whatever table says, opening, checking, putting, listing and recovering
/// end without a panic, and what a recovery leaves is sound.
#[test]
fn no_row_of_any_table_can_make_a_replica_panic() {
    let long = [255; 400];
    for table in Table::ALL.into_iter().filter(|table| *table != Table::Collections) {
        for nonsense in [&[][..], &[0], &[255; 8], &[1; 40], &[255; 64], &long] {
            let (store, collection) = filled();
            drop(collection);
            let id = &keys(&store, Table::Heads)[0][..4];
            let known = keys(&store, table).into_iter().next().unwrap_or_default();
            for key in [&known[..], &[id, nonsense].concat()] {
                let mut batch = Batch::default();
                batch.put(table, key, nonsense);
                store.commit(batch, Durability::Always).unwrap();
                let collection = open(&store, 2);
                let _ = collection.check();
                let _ = collection.put(&support::key(1), *b"again", NOW);
                let _ = collection.delete(&support::key(2), NOW);
                let _ = collection.list(b"", None, 100);
                let _ = collection.history(&support::key(1), 100);
                let _ = collection.evidence(100);
                if let Ok(view) = collection.snapshot() {
                    let _ = view.removals_after(0, 100);
                    let _ = view.writers();
                }
            }
            let collection = open(&store, 3);
            if collection.recover().is_ok() {
                collection.put(&support::key(1), *b"after", NOW).unwrap();
                let report = collection.check().unwrap();
                assert!(report.problems.is_empty(), "{table:?} {nonsense:?}: {report:?}");
            }
        }
    }
}

#[test]
fn a_log_row_at_the_end_of_all_numbers_survives_no_recovery() {
    let (store, collection) = filled();
    let id = &keys(&store, Table::Heads)[0][..4];
    let mut batch = Batch::default();
    batch.put(Table::Log, &[id, &u64::MAX.to_be_bytes()].concat(), b"rot");
    store.commit(batch, Durability::Always).unwrap();
    collection.recover().unwrap();
    collection.put(&key(1), *b"after", NOW).unwrap();
    let view = collection.snapshot().unwrap();
    assert!(view.log_position() < 1_000);
    assert!(collection.check().unwrap().is_sound());
}

/// A store that counts the rows that scans return.
mod counting {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use selfsame::store::{Capabilities, CommitNumber, MemorySnapshot, Row, StoreError};

    use super::*;

    #[derive(Default)]
    pub(super) struct Counting {
        store: MemoryStore,
        pub(super) rows: AtomicUsize,
    }

    impl Read for Counting {
        fn get(&self, table: Table, key: &[u8]) -> Result<Option<Arc<[u8]>>, StoreError> {
            self.store.get(table, key)
        }

        fn scan(
            &self,
            table: Table,
            prefix: &[u8],
            start: Bound<&[u8]>,
            limit: usize,
        ) -> Result<Vec<Row>, StoreError> {
            let rows = self.store.scan(table, prefix, start, limit)?;
            self.rows.fetch_add(rows.len(), Ordering::Relaxed);
            Ok(rows)
        }
    }

    impl Store for Counting {
        type Snapshot = MemorySnapshot;

        fn snapshot(&self) -> Result<MemorySnapshot, StoreError> {
            self.store.snapshot()
        }

        fn apply(&self, batch: Batch) -> Result<CommitNumber, StoreError> {
            self.store.apply(batch)
        }

        fn settle(&self, number: CommitNumber, wanted: Durability) -> Result<(), StoreError> {
            self.store.settle(number, wanted)
        }

        fn capabilities(&self) -> Capabilities {
            self.store.capabilities()
        }
    }
}

#[test]
fn a_join_reads_what_the_peers_exceptions_can_hold_not_what_stands_behind_them() {
    const HELD: u64 = 3_000;
    let store = Arc::new(counting::Counting::default());
    let replica = Replica::open(Arc::clone(&store), options(64), random(1)).unwrap();
    let collection = replica.create_collection(spec(HashAlgorithm::Blake3)).unwrap();
    let entries = (0..HELD).map(|number| {
        (Key::new(number.to_be_bytes()).unwrap(), Arc::from(&number.to_be_bytes()[..]))
    });
    collection.import(entries, NOW).unwrap();
    let writer = collection.present_writer().unwrap().unwrap().writer;
    // every other counter: as many runs as dots, each with thousands of held dots behind it
    let exceptions: DotSet =
        (1..=HELD / 2).filter_map(|half| Dot::of(writer, 2 * half + 1)).collect();
    let peer = Causality::new([], exceptions.clone(), &DotSet::default());
    let epoch = collection.snapshot().unwrap().epoch();
    let before = store.rows.load(std::sync::atomic::Ordering::Relaxed);
    let request = JoinRequest { epoch, peer, refused: DotSet::default() };
    let removed = collection.join(&request, NOW).unwrap();
    assert_eq!(removed, HELD / 2 - 1);
    let read = store.rows.load(std::sync::atomic::Ordering::Relaxed) - before;
    assert!(read < 20 * HELD as usize, "{read} rows read");
    assert!(collection.check().unwrap().is_sound());
}

#[test]
fn a_lost_value_is_remembered_by_the_next_opening() {
    let (store, collection) = filled();
    let lost = keys(&store, Table::Values);
    let mut batch = Batch::default();
    lost.iter().for_each(|row| batch.remove(Table::Values, row));
    store.commit(batch, Durability::Always).unwrap();
    assert!(collection.read(&key(5)).unwrap().unwrap().versions[0].value.is_none());
    drop(collection);
    let collection = open(&store, 2);
    let [value] = collection.lost_values(10).unwrap()[..] else { panic!("one was read") };
    assert_eq!((value.key, value.size), (collection.key_hash(&key(5)), 2));
    assert!(!collection.install_value(&value.key, &[5, 2]).unwrap(), "not that value");
    assert!(collection.install_value(&value.key, &[5, 1]).unwrap());
    assert_eq!(collection.lost_values(10).unwrap(), []);
    assert!(keys(&store, Table::Lost).is_empty());
}
