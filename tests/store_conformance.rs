//! What every store must do, run against every implementation.
#![cfg(feature = "session")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use proptest::prelude::*;
use selfsame::store::{Batch, Durability, MemoryStore, Read, Span, Store, Table};

type Model = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

fn rows(read: &impl Read, table: Table, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    read.scan(Span::of(table, prefix), usize::MAX)
        .unwrap()
        .into_iter()
        .map(|row| (row.key.to_vec(), row.value.to_vec()))
        .collect()
}

fn expected(model: &Model, table: Table, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    model
        .iter()
        .filter(|((of, key), _)| *of == table && key.starts_with(prefix))
        .map(|((_, key), value)| (key.clone(), value.clone()))
        .collect()
}

fn assert_equals(read: &impl Read, model: &Model) {
    for table in Table::ALL {
        assert_eq!(rows(read, table, b""), expected(model, table, b""), "{table:?}");
    }
    for ((table, key), value) in model {
        assert_eq!(read.get(*table, key).unwrap().as_deref(), Some(&value[..]));
        assert_eq!(read.size_of(*table, key).unwrap(), Some(value.len() as u64));
    }
}

fn a_batch_is_atomic_over_tables(store: &impl Store) {
    let mut batch = Batch::default();
    for table in Table::ALL {
        batch.put(table, b"key", &[table.id()]);
    }
    let before = store.snapshot().unwrap();
    store.commit(batch, Durability::Never).unwrap();
    for table in Table::ALL {
        assert_eq!(before.get(table, b"key").unwrap(), None);
        assert_eq!(store.get(table, b"key").unwrap().as_deref(), Some(&[table.id()][..]));
    }
    let mut batch = Batch::default();
    batch.put(Table::Meta, b"key", b"once");
    batch.put(Table::Meta, b"key", b"twice"); // the last word counts
    batch.put(Table::Log, b"key", b"never");
    batch.remove(Table::Log, b"key");
    batch.remove(Table::Pages, b"absent");
    store.commit(batch, Durability::Never).unwrap();
    assert_eq!(store.get(Table::Meta, b"key").unwrap().as_deref(), Some(&b"twice"[..]));
    assert_eq!(store.get(Table::Log, b"key").unwrap(), None);
}

fn scans_are_ordered_and_bounded(store: &impl Store) {
    let keys: [&[u8]; 9] =
        [b"a", b"b", b"b\0", b"b\0\0", b"b\x7f", b"b\xff", b"b\xff\xff", b"c", b"\xff\xff"];
    let mut batch = Batch::default();
    for (value, key) in keys.iter().enumerate().rev() {
        batch.put(Table::Dots, key, &[value as u8]);
    }
    batch.put(Table::Context, b"b", b"another table");
    store.commit(batch, Durability::Never).unwrap();
    let scan = |prefix: &[u8], start, limit| -> Vec<usize> {
        let rows = store.scan(Span::of(Table::Dots, prefix).start_at(start), limit).unwrap();
        for row in &rows {
            assert_eq!(*row.key, *keys[usize::from(row.value[0])]);
        }
        rows.iter().map(|row| usize::from(row.value[0])).collect()
    };
    assert_eq!(scan(b"", Bound::Unbounded, 99), (0..9).collect::<Vec<_>>());
    assert_eq!(scan(b"b", Bound::Unbounded, 99), (1..7).collect::<Vec<_>>());
    assert_eq!(scan(b"b", Bound::Unbounded, 2), [1, 2]);
    assert_eq!(scan(b"b", Bound::Included(b"b\0"), 2), [2, 3]);
    assert_eq!(scan(b"b", Bound::Excluded(b"b\0"), 99), [3, 4, 5, 6]);
    assert_eq!(scan(b"b", Bound::Excluded(b"a"), 1), [1]); // a start before the prefix
    assert_eq!(scan(b"b", Bound::Included(b"c"), 9), [0usize; 0]); // one behind it
    assert_eq!(scan(b"\xff", Bound::Unbounded, 9), [8]);
    assert_eq!(scan(b"b", Bound::Unbounded, 0), [0usize; 0]);
    scans_end_where_they_are_to(store, &keys);
    scans_end_where_they_are_to(&store.snapshot().unwrap(), &keys);
}

/// The first rows of the scan without an end, whatever prefix, start, end and limit.
fn scans_end_where_they_are_to(read: &impl Read, keys: &[&[u8]]) {
    let bounds = [&b""[..], b"b\0a", b"d"];
    let ends = || keys.iter().chain(&bounds).copied();
    for (prefix, last) in ends().flat_map(|prefix| ends().map(move |last| (prefix, last))) {
        let starts = ends().flat_map(|key| [Bound::Included(key), Bound::Excluded(key)]);
        for start in starts.chain([Bound::Unbounded]) {
            for limit in [0, 1, 3, usize::MAX] {
                let found = read
                    .scan(Span::of(Table::Dots, prefix).start_at(start).through(last), limit)
                    .unwrap();
                let mut expected =
                    read.scan(Span::of(Table::Dots, prefix).start_at(start), limit).unwrap();
                expected.retain(|row| &*row.key <= last);
                let case = (prefix, start, last, limit);
                assert_eq!(found, expected, "{case:?}");
            }
        }
    }
}

fn snapshots_stay_as_they_were(store: &impl Store) {
    let mut batch = Batch::default();
    batch.put(Table::Values, b"kept", b"1");
    batch.put(Table::Values, b"removed", b"1");
    store.commit(batch, Durability::Never).unwrap();
    let snapshot = store.snapshot().unwrap();
    let copy = snapshot.clone();
    for round in 0..200u32 {
        let mut batch = Batch::default();
        batch.put(Table::Values, b"kept", &round.to_le_bytes());
        batch.put(Table::Values, &round.to_be_bytes(), b"new");
        batch.remove(Table::Values, b"removed");
        store.commit(batch, Durability::Never).unwrap();
    }
    drop(snapshot);
    let old = [(b"kept".to_vec(), b"1".to_vec()), (b"removed".to_vec(), b"1".to_vec())];
    assert_eq!(rows(&copy, Table::Values, b""), old);
    assert_eq!(rows(&store.snapshot().unwrap(), Table::Values, b"").len(), 201);
}

fn writers_in_parallel_lose_nothing(store: &impl Store, durability: Durability) {
    std::thread::scope(|scope| {
        for writer in 0..8u8 {
            scope.spawn(move || {
                for round in 0..25u8 {
                    let announced = store.announce();
                    let mut batch = Batch::default();
                    batch.put(Table::Entries, &[writer, round], b"x");
                    batch.put(Table::Dots, &[writer, round], b"y");
                    let number = store.apply(batch).unwrap();
                    drop(announced);
                    store.settle(number, durability).unwrap();
                }
            });
        }
    });
    assert_eq!(rows(store, Table::Entries, b"").len(), 200);
    assert_eq!(rows(store, Table::Dots, b"\x07").len(), 25);
}

fn large_rows_come_back(store: &impl Store) {
    let large: Arc<[u8]> = (0..5_000_000u32).map(|i| (i >> 3) as u8).collect();
    let mut batch = Batch::default();
    batch.put_shared(Table::Values, b"large", Arc::clone(&large));
    batch.put(Table::Values, b"none", b"");
    store.commit(batch, Durability::Always).unwrap();
    assert_eq!(store.get(Table::Values, b"large").unwrap(), Some(large));
    assert_eq!(store.get(Table::Values, b"none").unwrap().as_deref(), Some(&b""[..]));
}

fn conforms<S: Store>(mut open: impl FnMut() -> S) {
    a_batch_is_atomic_over_tables(&open());
    scans_are_ordered_and_bounded(&open());
    snapshots_stay_as_they_were(&open());
    for durability in [Durability::Always, Durability::Periodic, Durability::Never] {
        writers_in_parallel_lose_nothing(&open(), durability);
    }
    large_rows_come_back(&open());
}

#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<(Table, Vec<u8>, Option<Vec<u8>>)>),
    Snapshot,
    Drop(usize),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let table = prop::sample::select(&[Table::Meta, Table::Entries, Table::Values][..]);
    let key = prop::collection::vec(prop::sample::select(&[0u8, 1, 255][..]), 1..4);
    let value = prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..6));
    let commit = prop::collection::vec((table, key, value), 1..6).prop_map(Step::Commit);
    let step = prop_oneof![
        6 => commit,
        2 => Just(Step::Snapshot),
        1 => (0..4usize).prop_map(Step::Drop),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..30)
}

/// Runs the steps against a map; `reopen` is none where nothing outlives the process.
fn behaves<S: Store>(steps: Vec<Step>, mut store: S, reopen: Option<&dyn Fn(S) -> S>) {
    let mut model = Model::new();
    let mut snapshots: Vec<(S::Snapshot, Model)> = Vec::new();
    for step in steps {
        match step {
            Step::Commit(changes) => {
                let mut batch = Batch::default();
                for (table, key, value) in changes {
                    match value {
                        Some(value) => {
                            batch.put(table, &key, &value);
                            model.insert((table, key), value);
                        }
                        None => {
                            batch.remove(table, &key);
                            model.remove(&(table, key));
                        }
                    }
                }
                store.commit(batch, Durability::Never).unwrap();
            }
            Step::Snapshot => snapshots.push((store.snapshot().unwrap(), model.clone())),
            Step::Drop(at) => {
                if at < snapshots.len() {
                    snapshots.swap_remove(at);
                }
            }
            Step::Reopen => {
                if let Some(reopen) = reopen {
                    snapshots.clear();
                    store = reopen(store);
                }
            }
        }
        for table in [Table::Meta, Table::Entries, Table::Values] {
            for prefix in [&b""[..], b"\0", b"\xff"] {
                assert_eq!(rows(&store, table, prefix), expected(&model, table, prefix));
            }
        }
        for (snapshot, model) in &snapshots {
            assert_equals(snapshot, model);
        }
    }
    assert_equals(&store, &model);
}

#[test]
fn memory_store_conforms() {
    conforms(MemoryStore::default);
}

proptest! {
    #[test]
    fn memory_store_behaves_as_a_map(steps in steps()) {
        behaves(steps, MemoryStore::default(), None);
    }
}

#[cfg(feature = "node")]
mod embedded {
    use std::fs;
    use std::path::{Path, PathBuf};

    use selfsame::store::{EmbeddedOptions, EmbeddedStore, StoreError};

    use super::*;

    fn open(folder: &Path) -> EmbeddedStore {
        EmbeddedStore::open(folder, EmbeddedOptions::default()).unwrap()
    }

    fn refusal(folder: &Path) -> StoreError {
        match EmbeddedStore::open(folder, EmbeddedOptions::default()) {
            Ok(_) => panic!("the store was opened"),
            Err(error) => error,
        }
    }

    fn one_row(folder: &Path) {
        let store = open(folder);
        let mut batch = Batch::default();
        batch.put(Table::Meta, b"key", b"value");
        store.commit(batch, Durability::Always).unwrap();
        store.close().unwrap();
    }

    #[test]
    fn embedded_store_conforms() {
        let folder = tempfile::tempdir().unwrap();
        let mut number = 0;
        conforms(|| {
            number += 1;
            open(&folder.path().join(number.to_string()))
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        #[test]
        fn embedded_store_behaves_as_a_map(steps in steps()) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().to_path_buf();
            let reopen = |store: EmbeddedStore| {
                store.close().unwrap();
                open(&path)
            };
            behaves(steps, open(&path), Some(&reopen));
        }
    }

    #[test]
    fn more_than_a_memtable_outlives_closing_and_dropping() {
        let folder = tempfile::tempdir().unwrap();
        let mut model = Model::new();
        for round in 0..3u8 {
            let store = open(folder.path());
            for number in 0..30u8 {
                let value = vec![round ^ number; 300_000];
                let mut batch = Batch::default();
                batch.put(Table::Values, &[number], &value);
                store.commit(batch, Durability::Never).unwrap();
                model.insert((Table::Values, vec![number]), value);
            }
            if round % 2 == 0 {
                store.close().unwrap();
            }
        }
        assert_equals(&open(folder.path()), &model);
    }

    #[test]
    fn a_second_opening_is_told_who_holds_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let snapshot = store.snapshot().unwrap();
        let held = refusal(folder.path());
        assert!(matches!(&held, StoreError::Held { folder: named } if named == folder.path()));
        assert!(held.to_string().contains(&folder.path().display().to_string()));
        store.close().unwrap();
        drop(snapshot);
        open(folder.path());
    }

    #[test]
    fn another_format_is_refused_by_name_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        one_row(folder.path());
        fs::write(folder.path().join("FORMAT"), "selfsame store 99\n").unwrap();
        let error = refusal(folder.path());
        assert!(error.to_string().contains("format 99"), "{error}");
        fs::write(folder.path().join("FORMAT"), "selfsame store 1\n").unwrap();
        assert!(open(folder.path()).get(Table::Meta, b"key").unwrap().is_some());
    }

    #[test]
    fn a_first_opening_that_was_cut_short_is_done_again() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("LOCK"), "").unwrap();
        std::fs::write(folder.path().join("FORMAT"), "").unwrap();
        one_row(folder.path());
        drop(open(folder.path()));
        // but not where there is something to lose
        std::fs::write(folder.path().join("FORMAT"), "").unwrap();
        let _ = refusal(folder.path());
    }

    #[test]
    fn a_folder_of_other_things_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.tex"), "all of it").unwrap();
        assert!(matches!(refusal(folder.path()), StoreError::NotAStore { .. }));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
        }
        found.sort();
        found
    }

    #[test]
    fn whatever_file_is_damaged_opening_does_not_panic_and_names_the_folder() {
        let count = {
            let folder = tempfile::tempdir().unwrap();
            one_row(folder.path());
            files(&folder.path().join("db")).len()
        };
        for number in 0..count {
            let folder = tempfile::tempdir().unwrap();
            one_row(folder.path());
            fs::write(&files(&folder.path().join("db"))[number], b"rot").unwrap();
            match EmbeddedStore::open(folder.path(), EmbeddedOptions::default()) {
                Ok(store) => drop(store.get(Table::Meta, b"key")),
                Err(error) => {
                    let folder = folder.path().display().to_string();
                    assert!(error.to_string().contains(&folder), "{error}");
                }
            }
        }
    }
}
