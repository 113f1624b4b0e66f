//! Rows that rotted or are nonsense: an aid that is lost costs nothing, damage is named, and
//! nothing panics.
#![cfg(feature = "session")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::Arc;

use selfsame::dots::{Causality, Dot, DotSet};
use selfsame::hash::{HashAlgorithm, KeyHash};
use selfsame::merkle::Prefix;
use selfsame::replica::{
    Collection, CollectionView, JoinRecord, JoinRequest, Replica, ReplicaError,
};
use selfsame::store::{Batch, Durability, MemoryStore, Read, Span, Store, Table};
use selfsame::types::{CollectionName, CollectionSpec, Key, NodeId, Policy};
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
    store.scan_keys(Span::of(table, &[]), usize::MAX).unwrap()
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
    let envelope = collection.snapshot().unwrap().envelope().clone();
    let (tree, totals) = (envelope.tree_hash(), envelope.totals());
    let record = JoinRecord { log_position: 1, merged, tree, totals };
    collection.remember_join(&peer, &record).unwrap();
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
        // what was written since is sound; of the rest only the log is looked at
        let report = collection.check().unwrap();
        assert!(report.problems.iter().all(|what| what.contains("change log")), "{report:?}");
        assert!(report.missing_values.is_empty());
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

/// A row that still parses says something else: a version that nobody wrote would spread to peers.
#[test]
fn an_entry_of_which_one_bit_rotted_is_lost_and_not_taken_for_another() {
    let (store, collection) = filled();
    drop(collection);
    let row = &keys(&store, Table::Entries)[7];
    let whole = store.get(Table::Entries, row).unwrap().unwrap();
    for bit in 0..whole.len() * 8 {
        let mut rotten = whole.to_vec();
        rotten[bit / 8] ^= 1 << (bit % 8);
        write_row(&store, Table::Entries, row, Some(&rotten));
        let collection = open(&store, 2 + bit as u64);
        let recovered = collection.recover().unwrap();
        assert_eq!((recovered.entries, recovered.lost), (18, 1), "bit {bit}");
        assert!(collection.check().unwrap().is_sound());
        // for the next bit: everything as it was
        write_row(&store, Table::Entries, row, Some(&whole));
        assert_eq!(collection.recover().unwrap().entries, 19);
    }
}

/// What a sketch names is looked for by rows. One that rotted is not found so, and what is told is
/// read with its page, which names it.
#[test]
fn leaves_that_are_held_against_nothing_are_those_of_the_rows_that_are_sound() {
    let (store, collection) = filled();
    drop(collection);
    let rows = keys(&store, Table::Entries);
    let row = store.get(Table::Entries, &rows[7]).unwrap().unwrap();
    let mut rotten = row.to_vec();
    rotten[9] ^= 1;
    let mut batch = Batch::default();
    batch.put(Table::Entries, &rows[7], &rotten);
    store.commit(batch, Durability::Always).unwrap();
    let snapshot = open(&store, 2).snapshot().unwrap();
    let found = snapshot.unchecked_leaves(&Prefix::ALL).unwrap();
    assert_eq!(found.len(), rows.len() - 1);
    for (at, row) in rows.iter().enumerate() {
        let key = KeyHash(row[row.len() - 32..].try_into().unwrap());
        let leaf = found.iter().find(|leaf| leaf.key == key);
        assert_eq!(leaf.is_some(), at != 7);
        match (leaf, snapshot.page(&Prefix::of(&key, 256))) {
            (Some(leaf), Ok(page)) => assert_eq!(page, [*leaf]),
            (_, page) => {
                assert!(page.is_err(), "its page is that of the one that rotted: {page:?}")
            }
        }
    }
    assert!(snapshot.page(&Prefix::ALL).is_err());
}

fn named(name: &str, algorithm: HashAlgorithm, policy: Policy) -> CollectionSpec {
    CollectionSpec { name: CollectionName::new(name).unwrap(), algorithm, policy }
}

/// Three collections of other settings each, with ten entries.
fn three() -> (Shared, Vec<CollectionSpec>) {
    let store = Shared::default();
    let replica = Replica::open(Arc::clone(&store), options(4), random(1)).unwrap();
    let specs = vec![
        named("first", HashAlgorithm::Blake3, Policy::Lww),
        named("second", HashAlgorithm::Sha256, Policy::Siblings),
        named("third", HashAlgorithm::Blake3, Policy::Siblings),
    ];
    for spec in &specs {
        let collection = replica.create_collection(spec.clone()).unwrap();
        for number in 0..10 {
            collection.put(&key(number), spec.name.as_bytes(), NOW).unwrap();
        }
    }
    (store, specs)
}

fn reopened(store: &Shared) -> Replica<Shared> {
    Replica::open(Arc::clone(store), options(4), random(2)).unwrap()
}

fn write_row(store: &Shared, table: Table, key: &[u8], value: Option<&[u8]>) {
    let mut batch = Batch::default();
    match value {
        Some(value) => batch.put(table, key, value),
        None => batch.remove(table, key),
    }
    store.commit(batch, Durability::Always).unwrap();
}

#[test]
fn a_damaged_row_in_the_list_of_collections_stops_only_its_own_and_is_written_again() {
    let (_, specs) = three();
    for lost in &specs {
        for nonsense in [&b""[..], b"x", &[1; 14], &[255; 300]] {
            let (store, _) = three();
            let row = store.get(Table::Collections, lost.name.as_bytes()).unwrap().unwrap();
            let before = reopened(&store).collection(&lost.name).unwrap().root().unwrap();
            write_row(&store, Table::Collections, lost.name.as_bytes(), Some(nonsense));
            let replica = reopened(&store);
            for other in specs.iter().filter(|other| other.name != lost.name) {
                let collection = replica.collection(&other.name).unwrap();
                collection.put(&key(1), *b"goes on", NOW + 1).unwrap();
                assert!(collection.check().unwrap().is_sound());
            }
            let rows = replica.damaged_rows();
            assert_eq!((rows.len(), rows[0].name.as_ref()), (1, Some(&lost.name)));
            for refused in [replica.collection(&lost.name), replica.create_collection(lost.clone())]
            {
                let Err(error) = refused else { panic!("it can be used") };
                assert!(matches!(error, ReplicaError::Damaged { .. }), "{error}");
                assert!(error.to_string().contains(lost.name.as_str()), "{error}");
            }
            // a new one does not get the number of the one that cannot be read
            let new = named("new", HashAlgorithm::Blake3, Policy::Lww);
            let new = replica.create_collection(new).unwrap();
            assert_eq!(new.totals().unwrap().entries, 0);
            new.put(&key(1), *b"new", NOW).unwrap();

            let collection = replica.recover_row(&lost.name).unwrap();
            assert_eq!((collection.spec(), collection.root().unwrap()), (lost, before));
            assert!(collection.check().unwrap().is_sound());
            assert!(replica.damaged_rows().is_empty());
            let again = store.get(Table::Collections, lost.name.as_bytes()).unwrap().unwrap();
            assert_eq!(again, row);
            let replica = reopened(&store);
            assert!(replica.damaged_rows().is_empty());
            assert!(replica.collection(&lost.name).unwrap().check().unwrap().is_sound());
        }
    }
}

#[test]
fn a_collection_whose_name_is_damaged_is_found_by_whoever_names_it() {
    let (store, specs) = three();
    let lost = &specs[1];
    let row = store.get(Table::Collections, lost.name.as_bytes()).unwrap().unwrap();
    for value in [&row[..], b"and the rest too"] {
        write_row(&store, Table::Collections, lost.name.as_bytes(), None);
        write_row(&store, Table::Collections, b"\xff\xfe", Some(value));
        let replica = reopened(&store);
        assert_eq!(replica.collections().len(), 2);
        assert_eq!(replica.damaged_rows()[0].name, None);
        for name in [lost.name.clone(), CollectionName::new("another").unwrap()] {
            let Err(error) = replica.collection(&name) else { panic!("it can be used") };
            assert!(matches!(error, ReplicaError::PerhapsDamaged(_)), "{error}");
        }
        let Err(error) = replica.recover_row(&CollectionName::new("another").unwrap()) else {
            panic!("another name has another root")
        };
        assert!(matches!(error, ReplicaError::LostRow(_)), "{error}");
        let collection = replica.recover_row(&lost.name).unwrap();
        assert!(collection.check().unwrap().is_sound());
        assert_eq!((collection.spec(), collection.totals().unwrap().entries), (lost, 10));
        assert!(reopened(&store).damaged_rows().is_empty());
    }
}

#[test]
fn a_row_of_which_nothing_is_left_is_named_and_the_others_go_on() {
    let (store, specs) = three();
    write_row(&store, Table::Collections, b"first", Some(b"rot"));
    overwrite(&store, Table::Pages, b"rot");
    let replica = reopened(&store);
    let Err(error) = replica.recover_row(&specs[0].name) else { panic!("from what?") };
    assert!(matches!(error, ReplicaError::LostRow(_)), "{error}");
    replica.collection(&specs[1].name).unwrap().recover().unwrap();
    assert_eq!(replica.damaged_rows().len(), 1);
    // two rows with one number
    let (store, specs) = three();
    let row = store.get(Table::Collections, b"first").unwrap().unwrap();
    write_row(&store, Table::Collections, b"second", Some(&row));
    let replica = reopened(&store);
    assert!(replica.collection(&specs[0].name).unwrap().check().unwrap().is_sound());
    assert_eq!(replica.damaged_rows()[0].name.as_ref(), Some(&specs[1].name));
    assert_eq!(replica.recover_row(&specs[1].name).unwrap().spec(), &specs[1]);
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

/// A store that counts the rows that scans return, of it and of its snapshots.
mod counting {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use selfsame::store::{Capabilities, CommitNumber, MemorySnapshot, Row, StoreError};

    use super::*;

    #[derive(Clone, Default)]
    pub(super) struct Counting<R = MemoryStore> {
        rows: R,
        read: Arc<AtomicUsize>,
    }

    impl<R> Counting<R> {
        /// Rows read since this was asked last.
        pub(super) fn read(&self) -> usize {
            self.read.swap(0, Ordering::Relaxed)
        }
    }

    impl<R: Read> Read for Counting<R> {
        fn get(&self, table: Table, key: &[u8]) -> Result<Option<Arc<[u8]>>, StoreError> {
            self.rows.get(table, key)
        }

        fn scan(&self, span: Span<'_>, limit: usize) -> Result<Vec<Row>, StoreError> {
            let rows = self.rows.scan(span, limit)?;
            self.read.fetch_add(rows.len(), Ordering::Relaxed);
            Ok(rows)
        }
    }

    impl Store for Counting {
        type Snapshot = Counting<MemorySnapshot>;

        fn snapshot(&self) -> Result<Self::Snapshot, StoreError> {
            Ok(Counting { rows: self.rows.snapshot()?, read: Arc::clone(&self.read) })
        }

        fn apply(&self, batch: Batch) -> Result<CommitNumber, StoreError> {
            self.rows.apply(batch)
        }

        fn settle(&self, number: CommitNumber, wanted: Durability) -> Result<(), StoreError> {
            self.rows.settle(number, wanted)
        }

        fn capabilities(&self) -> Capabilities {
            self.rows.capabilities()
        }
    }
}

#[test]
fn removals_are_read_from_the_latest_on_and_no_more_rows_than_were_asked_for() {
    let store = Arc::new(counting::Counting::default());
    let replica = Replica::open(Arc::clone(&store), options(64), random(1)).unwrap();
    let collection = replica.create_collection(spec(HashAlgorithm::Blake3)).unwrap();
    let entries = |numbers: std::ops::Range<u64>| {
        let put = |number: u64| (Key::new(number.to_be_bytes()).unwrap(), Arc::from(&b"x"[..]));
        numbers.map(put).collect::<Vec<_>>()
    };
    collection.import(entries(0..4_000), NOW).unwrap();
    let dots = |number: u64| -> Vec<Dot> {
        let entry = collection.get(&Key::new(number.to_be_bytes()).unwrap()).unwrap().unwrap();
        entry.record.siblings().iter().map(|sibling| sibling.dot).collect()
    };
    let late: DotSet = (0..10).flat_map(dots).collect();
    for number in 0..10_u64 {
        collection.delete(&Key::new(number.to_be_bytes()).unwrap(), NOW + 1).unwrap();
    }
    let view = collection.snapshot().unwrap();
    store.read();
    let log = view.removals_after(0, 100).unwrap();
    assert_eq!((log.dots, log.complete), (late.clone(), false));
    let read = store.read();
    assert!(read <= 400, "{read} rows read for 100 dots, of a log of 4,000");
    let few = view.removals_after(0, 3).unwrap();
    assert_eq!((few.dots.count(), few.complete), (3, false));
    assert!(few.dots.iter().all(|dot| late.contains(dot)));
    // behind them nothing was removed: the whole log says so
    let all = view.removals_after(0, 2_000).unwrap();
    assert_eq!((all.dots, all.complete), (late, true));
    let none = view.removals_after(view.log_position(), 100).unwrap();
    assert_eq!((none.dots.count(), none.complete), (0, true));
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
    store.read();
    let request = JoinRequest { epoch, peer, refused: DotSet::default() };
    let removed = collection.join(&request, NOW).unwrap();
    assert_eq!(removed, HELD / 2 - 1);
    let read = store.read();
    assert!(read < 6 * HELD as usize, "{read} rows read");
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
