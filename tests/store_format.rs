//! A store of an older format is migrated where it stands, however often that is cut short; one of
//! a newer or an unknown format is refused, and nothing of it is touched.
#![cfg(feature = "node")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use selfsame::hash::HashAlgorithm;
use selfsame::replica::{Collection, Replica};
use selfsame::store::{
    Batch, Durability, EmbeddedOptions, EmbeddedStore, Read, Span, Store, StoreError, Table,
};
use support::{key, options, random, spec};

const NOW: u64 = 1_000_000;
/// Bytes of the checksum that format 2 added.
const CHECK: usize = 8;

fn open(folder: &Path) -> EmbeddedStore {
    EmbeddedStore::open(folder, EmbeddedOptions::default()).unwrap()
}

fn collection(store: &EmbeddedStore, seed: u64) -> Arc<Collection<EmbeddedStore>> {
    let replica = Replica::open(store.clone(), options(4), random(seed)).unwrap();
    replica.create_collection(spec(HashAlgorithm::Blake3)).unwrap()
}

/// Takes the checksums of the rows away again, of as many as are to be of the older format.
fn write_as_format_1(store: &EmbeddedStore, every: usize) {
    for table in [Table::Entries, Table::Log] {
        let mut batch = Batch::default();
        let rows = store.scan(Span::of(table, &[]), usize::MAX).unwrap();
        for row in rows.iter().step_by(every) {
            batch.put(table, &row.key, &row.value[..row.value.len() - CHECK]);
        }
        store.commit(batch, Durability::Always).unwrap();
    }
}

/// All files below a folder, and what they hold.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut waiting = vec![folder.to_path_buf()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(next).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                all.insert(path.display().to_string(), fs::read(&path).unwrap());
            }
        }
    }
    all
}

#[test]
fn a_store_of_format_1_is_migrated_where_it_stands_however_far_an_attempt_came() {
    // no row was migrated yet, some were, all were
    for (every, marker) in [
        (1, "selfsame store 1\n"),
        (1, "selfsame store 1 on its way to 2\nwritten by selfsame 0.1.0\n"),
        (3, "selfsame store 1 on its way to 2\nwritten by selfsame 0.1.0\n"),
        (usize::MAX, "selfsame store 1 on its way to 2\n"),
        (usize::MAX, "selfsame store 2\n"),
        (usize::MAX, "selfsame store 2 on its way to 3\nwritten by selfsame 0.1.0\n"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let before = collection(&store, 1);
        for number in 0..50 {
            before.put(&key(number), [number], NOW).unwrap();
        }
        before.delete(&key(3), NOW + 1).unwrap();
        let state = before.state_hash().unwrap();
        drop(before);
        if marker.starts_with("selfsame store 1") {
            write_as_format_1(&store, every);
        }
        store.close().unwrap();
        fs::write(folder.path().join("FORMAT"), marker).unwrap();

        let store = open(folder.path());
        let after = collection(&store, 2);
        assert_eq!(after.state_hash().unwrap(), state, "{marker}");
        assert!(after.check().unwrap().is_sound(), "{:?}", after.check().unwrap());
        after.put(&key(7), *b"goes on", NOW + 2).unwrap();
        let marker = fs::read_to_string(folder.path().join("FORMAT")).unwrap();
        assert!(marker.starts_with("selfsame store 3\nwritten by selfsame "), "{marker}");
        assert!(!folder.path().join("FORMAT.new").exists());
    }
}

#[test]
fn a_row_that_rotted_before_the_migration_is_still_found_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let before = collection(&store, 1);
    for number in 0..20 {
        before.put(&key(number), [number], NOW).unwrap();
    }
    drop(before);
    write_as_format_1(&store, 1);
    let rows = store.scan(Span::of(Table::Entries, &[]), usize::MAX).unwrap();
    let mut batch = Batch::default();
    // one that parses all the same, and one that does not
    let stamp = rows[4].value.len() - 60;
    for (at, byte) in [(4, stamp), (9, 0)] {
        let mut value = rows[at].value.to_vec();
        value[byte] ^= 0x40;
        batch.put(Table::Entries, &rows[at].key, &value);
    }
    store.commit(batch, Durability::Always).unwrap();
    store.close().unwrap();
    fs::write(folder.path().join("FORMAT"), "selfsame store 1\n").unwrap();
    let after = collection(&open(folder.path()), 2);
    let report = after.check().unwrap();
    let named: Vec<_> = report.rotten_entries.iter().map(|key| key.0.to_vec()).collect();
    for at in [4, 9] {
        assert!(named.contains(&rows[at].key[4..].to_vec()), "{report:?}");
    }
}

#[test]
fn a_newer_or_unknown_format_is_refused_and_nothing_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    collection(&store, 1).put(&key(1), *b"value", NOW).unwrap();
    store.close().unwrap();
    for (marker, newer) in [
        ("selfsame store 4\nwritten by selfsame 9.8.7\n", true),
        ("selfsame store 3 on its way to 4\nwritten by selfsame 9.8.7\n", true),
        ("selfsame store 4294967296\n", false),
        ("selfsame stores 1\n", false),
        ("\u{0}\u{1}\u{2}", false),
    ] {
        fs::write(folder.path().join("FORMAT"), marker).unwrap();
        let before = contents(folder.path());
        let refused = EmbeddedStore::open(folder.path(), EmbeddedOptions::default());
        let error = refused.err().unwrap_or_else(|| panic!("{marker:?} was opened"));
        match &error {
            StoreError::Newer { found: 4, known: 3, .. } if newer => {
                assert!(error.to_string().contains("9.8.7"), "{error}");
                assert!(error.to_string().contains("update selfsame"), "{error}");
            }
            StoreError::Format { .. } if !newer => {}
            _ => panic!("{marker:?}: {error}"),
        }
        assert_eq!(contents(folder.path()), before, "{marker:?}");
    }
    // a folder that has nothing but such a marker stays as it is, too
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("FORMAT"), "selfsame store 7\n").unwrap();
    assert!(EmbeddedStore::open(folder.path(), EmbeddedOptions::default()).is_err());
    assert_eq!(contents(folder.path()).len(), 1);
}
