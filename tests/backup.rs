//! Backups and restores of a replica: what comes back is the very moment that was backed up, and
//! nothing else is ever taken for one.
#![cfg(feature = "session")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use selfsame::backup::{
    BackupError, BackupHead, BackupLimits, BackupReader, BackupSummary, BackupWriter, Chain, Event,
    SinceError, read_summary,
};
use selfsame::clock::Stamp;
use selfsame::dots::{Causality, Dot, DotSet};
use selfsame::entry::{Record, Sibling};
use selfsame::hash::HashAlgorithm;
use selfsame::limits::Limits;
use selfsame::merkle::{Envelope, Leaf, StreamedTree};
use selfsame::replica::{
    Collection, CollectionView, IncomingSibling, KeyUpdate, NotBackedUp, NotRestored, Replica,
    ReplicaError, ReplicaOptions, RestoreOptions, Restored,
};
use selfsame::store::{
    Batch, Capabilities, CommitNumber, Durability, MemorySnapshot, MemoryStore, Read, Row, Span,
    Store, StoreError, Table,
};
use selfsame::types::{CollectionName, CollectionSpec, Key, NodeId, Policy};
use support::{Model, all_entries, key, key_hash, options, random, spec, sync};

const NOW: u64 = 1_000_000;
const NODE: NodeId = NodeId([9; 32]);

type Shared = Arc<MemoryStore>;

fn open<S: Store>(store: S, seed: u64) -> Replica<S> {
    Replica::open(store, options(2), random(seed)).unwrap()
}

fn things<S: Store>(replica: &Replica<S>) -> Arc<Collection<S>> {
    replica.create_collection(spec(HashAlgorithm::Blake3)).unwrap()
}

fn fresh(seed: u64) -> (Replica<Shared>, Arc<Collection<Shared>>) {
    let replica = open(Shared::default(), seed);
    let collection = things(&replica);
    (replica, collection)
}

fn try_back_up<S: Store>(
    collection: &Collection<S>,
    base: Option<&BackupHead>,
) -> Result<(Vec<u8>, BackupSummary), NotBackedUp> {
    let snapshot = collection.snapshot().unwrap();
    let (head, keys) = snapshot.backup_head(NODE, NOW, base)?;
    snapshot.back_up(&head, keys.as_deref(), Vec::new())
}

fn back_up<S: Store>(collection: &Collection<S>, base: Option<&[u8]>) -> Vec<u8> {
    let base = base.map(head_of);
    try_back_up(collection, base.as_ref()).unwrap().0
}

fn reader(bytes: &[u8]) -> Result<BackupReader<&[u8]>, BackupError> {
    BackupReader::open(bytes, BackupLimits::default())
}

fn head_of(bytes: &[u8]) -> BackupHead {
    reader(bytes).unwrap().head().clone()
}

fn chain<'a>(backups: &[&'a [u8]]) -> Result<Chain<&'a [u8]>, BackupError> {
    Chain::of(backups.iter().map(|bytes| reader(bytes)).collect::<Result<_, _>>()?)
}

fn verify(backups: &[&[u8]]) -> Result<(), BackupError> {
    chain(backups)?.verify(|_| ())
}

fn replacing() -> RestoreOptions {
    RestoreOptions { replace: true, now_ms: NOW, ..RestoreOptions::default() }
}

fn restore<S: Store>(
    replica: &Replica<S>,
    backups: &[&[u8]],
    options: &RestoreOptions,
) -> Result<Restored, NotRestored> {
    replica.restore(&mut chain(backups)?, options)
}

/// What can be told of a collection from outside.
fn told<S: Store>(collection: &Collection<S>) -> (String, String, Vec<Vec<u8>>) {
    let snapshot = collection.snapshot().unwrap();
    let values = all_entries(&snapshot).into_iter().flat_map(|entry| {
        let hash = collection.key_hash(&entry.key);
        let siblings = entry.record.siblings().to_vec();
        let values = siblings.into_iter().map(move |sibling| (hash, sibling.value_hash));
        values.collect::<Vec<_>>()
    });
    let values = values.map(|(key, hash)| collection.value(&key, &hash).unwrap().unwrap().to_vec());
    let values = values.collect();
    let state = collection.state_hash().unwrap().to_string();
    (collection.root().unwrap().to_string(), state, values)
}

fn sibling(writer: u64, counter: u64, value: &[u8]) -> Sibling {
    let value_hash = HashAlgorithm::Blake3.value_hash(value);
    let dot = Dot::new(writer, counter).unwrap();
    Sibling { dot, stamp: Stamp::new(NOW, 0), size: value.len() as u64, value_hash }
}

/// Of foreign writers: with gaps, so that exceptions come to be.
fn apply<S: Store>(collection: &Collection<S>, number: u8, writer: u64, counter: u64) {
    let value = format!("{writer}/{counter}").into_bytes();
    let sibling = sibling(writer, counter, &value);
    let add = vec![IncomingSibling { sibling, value: Some(value.into()) }];
    let (key_hash, key) = (key_hash(&key(number)), Some(key(number)));
    let update = KeyUpdate { key, key_hash, add, remove: Vec::new() };
    let epoch = collection.snapshot().unwrap().epoch();
    collection.apply(vec![update], epoch, NOW).unwrap();
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Apply(u8, u64, u64),
    Reopen,
    BackUp,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..24u8, any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        3 => (0..24u8).prop_map(Step::Delete),
        3 => (0..24u8, 1..4u64, 1..9u64).prop_map(|(key, w, c)| Step::Apply(key, w, c)),
        1 => Just(Step::Reopen),
        3 => Just(Step::BackUp),
    ]
}

proptest! {
    #[test]
    fn a_chain_is_each_of_its_moments(steps in prop::collection::vec(step(), 1..60)) {
        let store = Shared::default();
        let mut replica = open(Arc::clone(&store), 1);
        let mut chained: Vec<(Vec<u8>, _)> = Vec::new();
        let mut opening = 1;
        for step in steps.into_iter().chain([Step::BackUp]) {
            let collection = things(&replica);
            match step {
                Step::Put(number, value) => drop(collection.put(&key(number), [value], NOW).unwrap()),
                Step::Delete(number) => drop(collection.delete(&key(number), NOW).unwrap()),
                Step::Apply(number, writer, counter) => apply(&collection, number, writer, counter),
                Step::Reopen => {
                    opening += 1;
                    replica.close().unwrap();
                    replica = open(Arc::clone(&store), opening);
                }
                Step::BackUp => {
                    let base = chained.last().map(|(bytes, _)| &bytes[..]);
                    chained.push((back_up(&collection, base), told(&collection)));
                    let full = back_up(&collection, None);
                    let (fresh, _) = fresh(77);
                    restore(&fresh, &[&full], &replacing()).unwrap();
                    prop_assert_eq!(&told(&things(&fresh)), &chained.last().unwrap().1);
                }
            }
        }
        for length in 1..=chained.len() {
            let backups: Vec<&[u8]> = chained[..length].iter().map(|(bytes, _)| &bytes[..]).collect();
            let replica = open(Shared::default(), 99);
            let restored = restore(&replica, &backups, &RestoreOptions::default()).unwrap();
            let collection = things(&replica);
            let told = told(&collection);
            prop_assert_eq!(&told, &chained[length - 1].1);
            prop_assert_eq!(restored.root.to_string(), told.0);
            let report = collection.check().unwrap();
            prop_assert!(report.is_sound(), "{report:?}");
            // merged into one it is the same
            let (merged, _) = chain(&backups).unwrap().merge(Vec::new(), |_| ()).unwrap();
            verify(&[&merged]).unwrap();
            prop_assert_eq!(head_of(&merged).state().to_string(), told.1);
        }
    }

    #[test]
    fn no_bytes_make_it_fall(bytes in any::<Vec<u8>>(), at in 0usize..400) {
        let (_, collection) = fresh(1);
        collection.put(&key(1), *b"value", NOW).unwrap();
        let backup = back_up(&collection, None);
        let at = at.min(backup.len());
        let spliced = [&backup[..at], &bytes].concat();
        prop_assert!(spliced == backup || verify(&[&spliced]).is_err());
        prop_assert!(verify(&[&bytes]).is_err());
    }
}

/// A collection with all that can be in one: siblings, equal values, exceptions, an empty value.
fn rich() -> (Replica<Shared>, Arc<Collection<Shared>>) {
    let (replica, collection) = fresh(1);
    for number in 0..20 {
        collection.put(&key(number), vec![number % 3; usize::from(number)], NOW).unwrap();
    }
    apply(&collection, 3, 7, 2);
    apply(&collection, 4, 7, 5);
    collection.delete(&key(4), NOW).unwrap();
    collection.delete(&key(5), NOW).unwrap();
    (replica, collection)
}

#[test]
fn a_backup_with_any_byte_changed_or_cut_is_refused_and_nothing_is_lost() {
    let (replica, collection) = rich();
    let full = back_up(&collection, None);
    collection.put(&key(40), *b"new", NOW).unwrap();
    collection.delete(&key(7), NOW).unwrap();
    let part = back_up(&collection, Some(&full));
    verify(&[&full, &part]).unwrap();
    let before = told(&collection);
    for (whole, number) in [(&full, 0), (&part, 1)] {
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            let mut backups = [&full[..], &part[..]];
            backups[number] = &flipped;
            assert!(verify(&backups).is_err(), "flipped at {at}");
            backups[number] = &whole[..at];
            assert!(verify(&backups).is_err(), "cut at {at}");
            if at % 31 == 0 {
                restore(&replica, &backups, &replacing()).unwrap_err();
            }
        }
        let longer = [&whole[..], &[0]].concat();
        let mut backups = [&full[..], &part[..]];
        backups[number] = &longer;
        assert!(matches!(verify(&backups), Err(BackupError::Trailing(_))));
    }
    assert_eq!(told(&things(&replica)), before);
    assert!(matches!(verify(&[&full[..full.len() - 1], &part]), Err(BackupError::Cut(_))));
    assert!(matches!(verify(&[b"selfsame"]), Err(BackupError::Cut(8))));
    assert!(matches!(verify(&[b"something else"]), Err(BackupError::NotABackup)));
    let mut newer = full.clone();
    newer[15] = 2;
    assert!(matches!(verify(&[&newer]), Err(BackupError::Version(2))));
    let summary = read_summary(std::io::Cursor::new(&full)).unwrap();
    assert_eq!(summary.counts.held, 18);
    assert!(read_summary(std::io::Cursor::new(&full[..full.len() - 1])).is_err());
}

#[test]
fn backups_that_do_not_go_together_are_refused_by_name() {
    let (_, collection) = rich();
    let full = back_up(&collection, None);
    collection.put(&key(1), *b"one", NOW).unwrap();
    let first = back_up(&collection, Some(&full));
    collection.put(&key(1), *b"two", NOW).unwrap();
    let second = back_up(&collection, Some(&first));
    verify(&[&full, &first, &second]).unwrap();
    assert!(matches!(verify(&[]), Err(BackupError::Backups { found: 0 })));
    assert!(matches!(verify(&[&first]), Err(BackupError::NoFull)));
    assert!(matches!(verify(&[&full, &second]), Err(BackupError::Hole { number: 2, .. })));
    assert!(matches!(verify(&[&full, &second, &first]), Err(BackupError::Hole { .. })));
    assert!(matches!(verify(&[&full, &full]), Err(BackupError::SecondFull { number: 2 })));
    let other = open(Shared::default(), 3);
    let name = CollectionName::new("others").unwrap();
    let spec = CollectionSpec { name, ..spec(HashAlgorithm::Blake3) };
    let other = back_up(&other.create_collection(spec).unwrap(), None);
    let error = verify(&[&other, &first]).unwrap_err();
    assert!(matches!(error, BackupError::OtherCollection { number: 2, .. }), "{error}");
    let many = vec![&full[..]; 257];
    assert!(matches!(verify(&many), Err(BackupError::Backups { found: 257 })));
}

#[test]
fn a_part_is_made_only_where_the_log_reaches_back() {
    let store = Shared::default();
    let limits = Limits { removal_log_entries: 10, history_age_ms: 0, ..Limits::default() };
    let options = ReplicaOptions { limits, ..ReplicaOptions::default() };
    let replica = Replica::open(Arc::clone(&store), options, random(1)).unwrap();
    let collection = things(&replica);
    let why = |collection: &Collection<Shared>, base: &[u8]| match try_back_up(
        collection,
        Some(&head_of(base)),
    ) {
        Err(NotBackedUp::Backup(BackupError::NotSince { why, .. })) => why,
        other => panic!("{other:?}"),
    };
    let empty = back_up(&collection, None);
    collection.put(&key(1), *b"one", NOW).unwrap();
    let one = back_up(&collection, Some(&empty));
    verify(&[&empty, &one]).unwrap();
    for number in 0..40 {
        collection.put(&key(number), *b"more", NOW).unwrap();
    }
    assert!(matches!(why(&collection, &one), SinceError::Pruned { .. }));
    let full = back_up(&collection, None);
    collection.put(&key(1), *b"one", NOW).unwrap();
    collection.put(&key(2), *b"two", NOW).unwrap();
    back_up(&collection, Some(&full));
    // a row of it is gone, then one of before
    let mut position = 0_u32.to_be_bytes().to_vec();
    position[3] = 1;
    let at = head_of(&full).log.position;
    for (gone, expected) in [(at + 1, Some(SinceError::Hole(at + 1))), (at, None)] {
        let key = [&position[..], &gone.to_be_bytes()].concat();
        let row = store.get(Table::Log, &key).unwrap().unwrap();
        let mut batch = Batch::default();
        batch.remove(Table::Log, &key);
        store.apply(batch).unwrap();
        match expected {
            Some(expected) => assert_eq!(why(&collection, &full), expected),
            None => drop(back_up(&collection, Some(&full))),
        }
        let mut batch = Batch::default();
        batch.put(Table::Log, &key, &row);
        store.apply(batch).unwrap();
    }
    collection.recover().unwrap();
    assert_eq!(why(&collection, &full), SinceError::Epoch);
    let (_, other) = fresh(5);
    assert_eq!(why(&other, &full), SinceError::Log);
    let recovered = back_up(&collection, None);
    restore(&replica, &[&recovered], &replacing()).unwrap();
    let collection = things(&replica);
    assert_eq!(why(&collection, &recovered), SinceError::Epoch);
    let restored = back_up(&collection, None);
    collection.put(&key(1), *b"after", NOW).unwrap();
    let part = back_up(&collection, Some(&restored));
    verify(&[&restored, &part]).unwrap();
}

/// A store that was set back goes on with another log: a part must not be made for a backup of the
/// future that never was.
#[test]
fn a_store_that_was_set_back_makes_no_part_for_what_it_forgot() {
    let store = Shared::default();
    let replica = open(Arc::clone(&store), 1);
    let collection = things(&replica);
    collection.put(&key(1), *b"kept", NOW).unwrap();
    let copy = Shared::default();
    let mut batch = Batch::default();
    for table in Table::ALL {
        for row in store.scan(Span::of(table, &[]), usize::MAX).unwrap() {
            batch.put(table, &row.key, &row.value);
        }
    }
    copy.apply(batch).unwrap();
    let kept = back_up(&collection, None);
    collection.put(&key(2), *b"forgotten", NOW).unwrap();
    let future = back_up(&collection, None);
    let set_back = things(&open(Arc::clone(&copy), 2));
    for number in 10..20 {
        let future = head_of(&future);
        assert!(try_back_up(&set_back, Some(&future)).is_err(), "{number}");
        set_back.put(&key(number), *b"other", NOW).unwrap();
    }
    // what both have in common is a base for both
    let part = back_up(&set_back, Some(&kept));
    verify(&[&kept, &part]).unwrap();
}

#[test]
fn while_four_write_a_backup_is_a_state_that_was() {
    let (_, collection) = fresh(1);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..4_u8 {
            let (collection, stop) = (&collection, &stop);
            scope.spawn(move || {
                for number in 1_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    // first one, then the other
                    for part in [0, 1] {
                        let key = key(2 * writer + part);
                        collection.put(&key, number.to_be_bytes().to_vec(), NOW).unwrap();
                    }
                    if number % 7 == 0 {
                        collection.delete(&key(2 * writer + 1), NOW).unwrap();
                    }
                }
            });
        }
        let mut chained = vec![back_up(&collection, None)];
        for _ in 0..30 {
            let part = back_up(&collection, chained.last().map(|bytes| &bytes[..]));
            chained.push(part);
            let backups: Vec<&[u8]> = chained.iter().map(|bytes| &bytes[..]).collect();
            let (other, _) = fresh(2);
            restore(&other, &backups, &replacing()).unwrap();
            let restored = things(&other);
            let read = |number: u8| {
                let reading = restored.read(&key(number)).unwrap()?;
                let value = reading.versions[0].value.as_deref()?;
                Some(u64::from_be_bytes(value.try_into().unwrap()))
            };
            for writer in 0..4_u8 {
                let (first, second) = (read(2 * writer), read(2 * writer + 1));
                match (first, second) {
                    (Some(first), Some(second)) => {
                        assert!(first == second || first == second + 1, "{first}, {second}");
                    }
                    (Some(first), None) => assert!(first % 7 <= 1, "{first}"),
                    (None, second) => assert_eq!(second, None),
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_collection_that_holds_or_has_seen_anything_is_replaced_only_when_asked() {
    let (replica, collection) = rich();
    let full = back_up(&collection, None);
    let plain = RestoreOptions::default();
    let error = restore(&replica, &[&full], &plain).unwrap_err();
    assert!(matches!(error, NotRestored::Exists { entries: 18, .. }), "{error}");
    // one that is empty and was never used is no obstacle, one that has seen deletes is
    let (other, empty) = fresh(2);
    restore(&other, &[&full], &plain).unwrap();
    assert_eq!(told(&things(&other)), told(&collection));
    let gone = empty.put(&key(1), *b"late", NOW).unwrap_err();
    assert!(matches!(gone, ReplicaError::Replaced(_)), "{gone}");
    let (deleted, all) = fresh(3);
    all.put(&key(1), *b"one", NOW).unwrap();
    all.delete(&key(1), NOW).unwrap();
    assert!(matches!(restore(&deleted, &[&full], &plain), Err(NotRestored::Exists { .. })));
    // beside what is there, under another name
    let name = CollectionName::new("as it was").unwrap();
    let beside = RestoreOptions { name: Some(name.clone()), ..RestoreOptions::default() };
    let restored = restore(&replica, &[&full], &beside).unwrap();
    assert_eq!((&restored.name, restored.entries, restored.replaced), (&name, 18, false));
    let copy = replica.collection(&name).unwrap();
    assert!(copy.check().unwrap().is_sound());
    assert_eq!(told(&copy).2, told(&collection).2);
    // other settings are never replaced
    let policy = Policy::Lww;
    let spec = CollectionSpec { policy, ..spec(HashAlgorithm::Blake3) };
    let lww = open(Shared::default(), 4);
    lww.create_collection(spec).unwrap();
    let error = restore(&lww, &[&full], &replacing()).unwrap_err();
    assert!(matches!(error, NotRestored::Replica(ReplicaError::OtherSpec { .. })), "{error}");
    // a value that this node would not take
    let limits = BackupLimits { max_value_bytes: 10, ..BackupLimits::default() };
    let mut small = Chain::of(vec![BackupReader::open(&full[..], limits).unwrap()]).unwrap();
    let error = replica.restore(&mut small, &replacing()).unwrap_err();
    let NotRestored::Backup(BackupError::ValueSize { limit: 10, .. }) = error else {
        panic!("{error}")
    };
}

#[test]
fn a_policy_that_is_not_known_here_is_not_restored() {
    let spec = CollectionSpec {
        policy: Policy::Custom { resolver: CollectionName::new("nobodys").unwrap(), version: 3 },
        ..spec(HashAlgorithm::Blake3)
    };
    let tree = StreamedTree::new(HashAlgorithm::Blake3);
    let envelope = Envelope::new(spec, tree.tree_hash(), tree.totals()).unwrap();
    let causality = Causality::default();
    let context = causality.hash(HashAlgorithm::Blake3).unwrap();
    let head = BackupHead::full(NODE, NOW, envelope, context);
    let writer = BackupWriter::begin(Vec::new(), &head, &causality).unwrap();
    let (bytes, _) = writer.finish().unwrap();
    let (replica, _) = fresh(1);
    let error = restore(&replica, &[&bytes], &replacing()).unwrap_err();
    assert!(error.to_string().contains("nobodys"), "{error}");
}

/// Bytes that hash as they should and say what no replica says.
#[test]
fn what_no_replica_can_hold_is_refused() {
    let forged =
        |siblings: &[(u8, u64, u64)], context: &[(u64, u64)], exceptions: &[(u64, u64)]| {
            let algorithm = HashAlgorithm::Blake3;
            let dot = |(writer, counter): (u64, u64)| Dot::new(writer, counter).unwrap();
            let pairs = context.iter().map(|&pair| (dot(pair).writer(), pair.1)).collect();
            let exceptions: DotSet = exceptions.iter().map(|&pair| dot(pair)).collect();
            let causality = Causality::from_parts(pairs, exceptions).unwrap();
            let mut keys: Vec<_> = siblings
                .iter()
                .map(|&(number, writer, counter)| {
                    let record = Record::new(vec![sibling(writer, counter, b"v")]).unwrap();
                    (key_hash(&key(number)), key(number), record)
                })
                .collect();
            keys.sort_by_key(|(hash, ..)| *hash);
            let mut tree = StreamedTree::new(algorithm);
            for (key, _, record) in &keys {
                let (record, totals) = (record.digest(algorithm), record.totals());
                assert!(tree.push(&Leaf { key: *key, record, totals }));
            }
            let envelope = Envelope::new(spec(algorithm), tree.tree_hash(), tree.totals()).unwrap();
            let head = BackupHead::full(NODE, NOW, envelope, causality.hash(algorithm).unwrap());
            let mut writer = BackupWriter::begin(Vec::new(), &head, &causality).unwrap();
            for (_, key, record) in &keys {
                writer.held(key, record).unwrap();
                writer.value(Some(b"v")).unwrap();
            }
            writer.finish().unwrap().0
        };
    let restored = |bytes: &[u8]| {
        let (replica, collection) = rich();
        let before = told(&collection);
        let restored = restore(&replica, &[bytes], &replacing());
        if restored.is_err() {
            assert_eq!(told(&things(&replica)), before);
        }
        restored
    };
    restored(&forged(&[(1, 5, 1), (2, 5, 3)], &[(5, 1)], &[(5, 5)])).unwrap();
    for (siblings, context, exceptions) in [
        // held and dead; held right above the context; one dot under two keys
        (&[(1_u8, 5_u64, 1_u64), (2, 5, 5)][..], &[(5_u64, 1_u64)][..], &[(5_u64, 5_u64)][..]),
        (&[(1, 5, 1), (2, 5, 2)], &[(5, 1)], &[]),
        (&[(1, 5, 1), (2, 5, 1)], &[(5, 1)], &[]),
    ] {
        let error = restored(&forged(siblings, context, exceptions)).unwrap_err();
        let NotRestored::Backup(error) = error else { panic!("{error}") };
        assert!(matches!(error, BackupError::Dot(_) | BackupError::SameDots(1)), "{error}");
    }
}

#[test]
fn a_value_that_was_lost_is_missing_in_the_backup_and_wanted_after_the_restore() {
    let store = Shared::default();
    let collection = things(&open(Arc::clone(&store), 1));
    collection.put(&key(1), *b"one", NOW).unwrap();
    collection.put(&key(2), *b"two", NOW).unwrap();
    let row = store.scan(Span::of(Table::Values, &[]), 1).unwrap().remove(0);
    let mut batch = Batch::default();
    batch.put(Table::Values, &row.key, b"rot");
    store.apply(batch).unwrap();
    let (bytes, summary) = try_back_up(&collection, None).unwrap();
    assert_eq!((summary.counts.values, summary.counts.missing), (1, 1));
    let replica = open(Shared::default(), 2);
    let restored = restore(&replica, &[&bytes], &RestoreOptions::default()).unwrap();
    assert_eq!(restored.missing, 1);
    let things = things(&replica);
    assert_eq!(things.lost_values(10).unwrap().len(), 1);
    assert_eq!(things.root().unwrap(), collection.root().unwrap());
    // an entry that rotted has no place in any root
    let row = store.scan(Span::of(Table::Entries, &[]), 1).unwrap().remove(0);
    let mut batch = Batch::default();
    batch.put(Table::Entries, &row.key, b"rot");
    store.apply(batch).unwrap();
    assert!(matches!(try_back_up(&collection, None), Err(NotBackedUp::View(_))));
}

#[test]
fn restored_to_an_older_moment_it_loses_nothing_that_others_have_and_resurrects_nothing() {
    let (a, left) = fresh(1);
    let (_, right) = fresh(2);
    let (mut model, mut put) = (Model::default(), Vec::new());
    for number in 0..20 {
        put.push(left.put(&key(number), [number], NOW).unwrap());
    }
    sync(&left, &right, NOW);
    let full = back_up(&left, None);
    for number in 0..5 {
        left.delete(&key(number), NOW).unwrap();
    }
    for number in 5..10 {
        right.delete(&key(number), NOW).unwrap();
    }
    put.push(left.put(&key(10), *b"known to both", NOW).unwrap());
    sync(&left, &right, NOW);
    let writer = left.present_writer().unwrap().unwrap().writer;
    put.push(left.put(&key(50), *b"known to nobody else", NOW).unwrap());
    left.delete(&key(11), NOW).unwrap();
    restore(&a, &[&full], &replacing()).unwrap();
    let left = things(&a);
    assert_eq!(left.present_writer().unwrap(), None);
    let fresh = left.put(&key(60), *b"after", NOW).unwrap();
    assert_ne!(fresh.dot.writer(), writer, "a writer is never used again");
    sync(&left, &right, NOW);
    sync(&left, &right, NOW);
    for (number, sibling) in (0..20).zip(&put) {
        model.seen.insert(sibling.dot);
        if number >= 11 {
            model.add(&key(number), *sibling);
        }
    }
    model.add(&key(10), put[20]);
    model.add(&key(60), fresh);
    model.assert_is(&left);
    model.assert_is(&right);
    assert_eq!(left.state_hash().unwrap(), right.state_hash().unwrap());
}

#[test]
fn certificates_evidence_and_logs_of_what_is_replaced_go_on() {
    use selfsame::merkle::NodeKey;
    use selfsame::merkle::certificate::CertificateMessage;
    let (replica, collection) = rich();
    let keys = [NodeKey::from_seed(&[1; 32]), NodeKey::from_seed(&[2; 32])];
    let peer = keys[1].node_id();
    let full = back_up(&collection, None);
    let head = collection.log_head().unwrap();
    let snapshot = collection.snapshot().unwrap();
    let certificate = {
        let message = CertificateMessage::new(
            collection.name().clone(),
            snapshot.envelope().root(),
            snapshot.context_hash().unwrap(),
            keys.each_ref().map(NodeKey::node_id),
            selfsame::hash::SessionId([3; 32]),
            Stamp::new(NOW, 0),
        )
        .unwrap();
        let signed = keys.each_ref().map(|key| (key.node_id(), message.sign(key)));
        message.certify(signed).unwrap()
    };
    let number = collection.keep_certificate(&peer, &certificate, None, NOW).unwrap();
    restore(&replica, &[&full], &replacing()).unwrap();
    let restored = things(&replica);
    assert_eq!(restored.certificate(number).unwrap().unwrap().certificate, certificate);
    assert!(restored.last_certificate(&peer).unwrap().is_some());
    assert!(restored.certificate_inclusion(number).unwrap().is_some());
    assert!(matches!(
        collection.keep_certificate(&peer, &certificate, None, NOW),
        Err(ReplicaError::Replaced(_))
    ));
    assert_eq!(restored.log_head().unwrap(), None, "the next change begins a log");
    restored.put(&key(1), *b"after", NOW).unwrap();
    let (size, next) = restored.log_head().unwrap().unwrap();
    assert_eq!(size, 2);
    assert_ne!(Some((size, next)), head);
    assert!(restored.check().unwrap().is_sound());
}

/// A store in which the process ends after so many batches.
#[derive(Default)]
struct Dying {
    store: MemoryStore,
    left: AtomicU64,
    lost: Mutex<Vec<u64>>,
}

impl Read for Dying {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Arc<[u8]>>, StoreError> {
        self.store.get(table, key)
    }

    fn scan(&self, span: Span<'_>, limit: usize) -> Result<Vec<Row>, StoreError> {
        self.store.scan(span, limit)
    }
}

impl Store for Dying {
    type Snapshot = MemorySnapshot;

    fn snapshot(&self) -> Result<MemorySnapshot, StoreError> {
        self.store.snapshot()
    }

    fn apply(&self, batch: Batch) -> Result<CommitNumber, StoreError> {
        if self.left.load(Ordering::Relaxed) == 0 {
            self.lost.lock().unwrap().push(batch.len() as u64);
            return Err(StoreError::Io("the process is gone".into()));
        }
        self.left.fetch_sub(1, Ordering::Relaxed);
        self.store.apply(batch)
    }

    fn settle(&self, number: CommitNumber, durability: Durability) -> Result<(), StoreError> {
        self.store.settle(number, durability)
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }
}

fn rows_in_use(store: &impl Read) -> usize {
    let rows = |table| store.scan_keys(Span::of(table, &[]), usize::MAX).unwrap().len();
    Table::ALL.into_iter().map(rows).sum()
}

#[test]
fn a_crash_at_any_batch_of_a_restore_leaves_the_old_state_or_the_new_one() {
    let (_, origin) = rich();
    let full = back_up(&origin, None);
    let after = told(&origin);
    let (mut old, mut new) = (0, 0);
    for batches in 0.. {
        let store = Arc::new(Dying::default());
        store.left.store(u64::MAX, Ordering::Relaxed);
        let replica = open(Arc::clone(&store), 1);
        let collection = things(&replica);
        for number in 30..50 {
            collection.put(&key(number), *b"before", NOW).unwrap();
        }
        let before = told(&collection);
        store.left.store(batches, Ordering::Relaxed);
        let restored = restore(&replica, &[&full], &replacing());
        let whole = store.lost.lock().unwrap().is_empty();
        store.left.store(u64::MAX, Ordering::Relaxed);
        drop((replica, collection));
        let replica = open(Arc::clone(&store), 2);
        let found = told(&things(&replica));
        match (restored.is_ok(), found == before, found == after) {
            (false, true, false) => old += 1,
            // what it could not remove after all was in place
            (true, false, true) => new += 1,
            _ => panic!("{batches}: {restored:?}"),
        }
        assert!(things(&replica).check().unwrap().is_sound());
        assert!(!replica.sweep(usize::MAX).unwrap());
        // nothing is left of the other: as many rows as one collection has
        let entries = store.scan_keys(Span::of(Table::Entries, &[]), usize::MAX).unwrap();
        let expected = things(&replica).totals().unwrap().entries;
        assert_eq!(entries.len() as u64, expected, "{batches}");
        let ids: std::collections::BTreeSet<_> = Table::ALL
            .into_iter()
            .filter(|table| !matches!(table, Table::Meta | Table::Collections))
            .flat_map(|table| store.scan_keys(Span::of(table, &[]), usize::MAX).unwrap())
            .map(|key| key[..4].to_vec())
            .collect();
        assert_eq!(ids.len(), 1, "{batches}: rows of several numbers");
        assert!(rows_in_use(&store) > 0);
        things(&replica).put(&key(1), *b"goes on", NOW).unwrap();
        if whole {
            break;
        }
    }
    assert!(old >= 3 && new >= 2, "{old}, {new}");
}

#[test]
fn a_damaged_collection_and_a_damaged_row_of_the_list_are_restored() {
    for damaged in [Table::Heads, Table::Collections] {
        let store = Shared::default();
        let replica = open(Arc::clone(&store), 1);
        let collection = things(&replica);
        for number in 0..20 {
            collection.put(&key(number), [number], NOW).unwrap();
        }
        let (full, before) = (back_up(&collection, None), told(&collection));
        let mut batch = Batch::default();
        for row in store.scan(Span::of(damaged, &[]), usize::MAX).unwrap() {
            batch.put(damaged, &row.key, b"rot");
        }
        store.apply(batch).unwrap();
        drop((replica, collection));
        let replica = open(Arc::clone(&store), 2);
        restore(&replica, &[&full], &RestoreOptions::default()).unwrap_err();
        let restored = restore(&replica, &[&full], &replacing()).unwrap();
        assert!(restored.replaced);
        assert_eq!(told(&things(&replica)), before);
        drop(replica);
        let replica = open(Arc::clone(&store), 3);
        assert!(replica.damaged_rows().is_empty());
        assert_eq!(told(&things(&replica)), before);
        let entries = store.scan_keys(Span::of(Table::Entries, &[]), usize::MAX).unwrap();
        assert_eq!(entries.len(), 20, "{damaged:?}");
    }
}

#[test]
fn events_come_key_by_key_with_their_values() {
    let (_, collection) = rich();
    let full = back_up(&collection, None);
    let mut chain = chain(&[&full]).unwrap();
    let (mut last, mut waiting) = (None, 0);
    while let Some(event) = chain.next_event().unwrap() {
        match event {
            Event::Held { key_hash, record, .. } => {
                assert!(last < Some(key_hash));
                assert_eq!(waiting, 0);
                (last, waiting) = (Some(key_hash), record.versions().len());
            }
            Event::Value { hash, value } => {
                assert_eq!(HashAlgorithm::Blake3.value_hash(&value.unwrap()), hash);
                waiting -= 1;
            }
            Event::Gone(key) => panic!("{key} is gone in a full backup"),
        }
    }
    assert!(chain.is_verified());
    assert_eq!(chain.summaries().len(), 1);
}

#[test]
fn keys_of_any_length_and_values_beyond_a_block_come_back() {
    let (_, collection) = fresh(1);
    let long = Key::new(vec![b'x'; 1_024]).unwrap();
    let noise: Vec<u8> = (0..900_000_u32).map(|at| (at.wrapping_mul(at) >> 7) as u8).collect();
    collection.put(&long, noise.clone(), NOW).unwrap();
    collection.put(&key(1), vec![0; 3_000_000], NOW).unwrap();
    let full = back_up(&collection, None);
    assert!(full.len() < 1_200_000, "zeroes take no room: {}", full.len());
    let replica = open(Shared::default(), 2);
    restore(&replica, &[&full], &RestoreOptions::default()).unwrap();
    assert_eq!(told(&things(&replica)), told(&collection));
}

/// By hand, as docs/protocol.md has it.
#[test]
fn a_backup_has_the_bytes_that_are_specified() {
    let algorithm = HashAlgorithm::Blake3;
    let (number, sibling) = (key(1), sibling(5, 1, b"v"));
    let record = Record::new(vec![sibling]).unwrap();
    let causality =
        Causality::new([(sibling.dot.writer(), 1)], DotSet::default(), &DotSet::default());
    let mut tree = StreamedTree::new(algorithm);
    let (digest, totals) = (record.digest(algorithm), record.totals());
    assert!(tree.push(&Leaf { key: key_hash(&number), record: digest, totals }));
    let envelope = Envelope::new(spec(algorithm), tree.tree_hash(), totals).unwrap();
    let context = causality.hash(algorithm).unwrap();
    let head = BackupHead::full(NODE, NOW, envelope.clone(), context);
    let mut writer = BackupWriter::uncompressed(Vec::new(), &head, &causality).unwrap();
    writer.held(&number, &record).unwrap();
    writer.value(Some(b"v")).unwrap();
    let (written, summary) = writer.finish().unwrap();

    let mut bytes = b"selfsame backup\x01".to_vec();
    let block = |bytes: &mut Vec<u8>, kind: u8, plain: &[u8]| {
        let length = (plain.len() as u32).to_le_bytes();
        bytes.extend([&[kind, 0][..], &length, &length, plain].concat());
        let check = *blake3_of(bytes).as_bytes();
        bytes.extend(check);
    };
    let numbers = |numbers: &[u64]| -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    };
    let envelope = envelope.to_bytes();
    let length = (envelope.len() as u16).to_le_bytes();
    let head = [&[1][..], &NODE.0, &numbers(&[NOW, 0, 0, 0, 0]), &length, &envelope, &context.0];
    block(&mut bytes, 1, &head.concat());
    let context = [&1_u32.to_le_bytes()[..], &numbers(&[5, 1]), &0_u32.to_le_bytes()].concat();
    let record = record.to_bytes();
    let body = [
        &[1][..],
        &(context.len() as u32).to_le_bytes(),
        &context,
        &[2],
        &2_u16.to_le_bytes(),
        b"k\x01",
        &(record.len() as u32).to_le_bytes(),
        &record,
        b"\x01v",
        &[0],
    ];
    block(&mut bytes, 2, &body.concat());
    block(&mut bytes, 3, &numbers(&[1, 0, 1, 0, 1]));
    assert_eq!(written, bytes);
    assert_eq!(summary.hash, bytes[bytes.len() - 32..]);
    verify(&[&bytes]).unwrap();
}

/// BLAKE3 through a value hash, which is plain.
fn blake3_of(bytes: &[u8]) -> selfsame::hash::ValueHash {
    HashAlgorithm::Blake3.value_hash(bytes)
}
