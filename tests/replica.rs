//! A collection against a model with explicit sets: every rule of puts, deletes, applies, joins,
//! reopening and recovery, checked after every step.
#![cfg(feature = "session")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use selfsame::clock::Stamp;
use selfsame::dots::{Causality, Dot, DotSet};
use selfsame::entry::Sibling;
use selfsame::hash::{HashAlgorithm, ValueHash};
use selfsame::limits::Limits;
use selfsame::replica::{
    Collection, CollectionView, Entry, IncomingSibling, JoinRecord, JoinRequest, KeyUpdate,
    RefusalReason, Replica, ReplicaError, ReplicaOptions, Snapshot,
};
use selfsame::store::{Batch, Durability, MemoryStore, Read, Span, Store, Table};
use selfsame::types::{Key, NodeId};
use support::{Model, Side, all_entries, key, key_hash, options, random, spec, sync};

const NOW: u64 = 1_000_000;

type Shared = Arc<MemoryStore>;

fn open(store: &Shared, page_leaves: u16, seed: u64) -> Arc<Collection<Shared>> {
    open_with(store, options(page_leaves), seed)
}

fn open_with(store: &Shared, options: ReplicaOptions, seed: u64) -> Arc<Collection<Shared>> {
    let replica = Replica::open(Arc::clone(store), options, random(seed)).unwrap();
    replica.create_collection(spec(HashAlgorithm::Blake3)).unwrap()
}

fn fresh() -> (Shared, Arc<Collection<Shared>>) {
    let store = Shared::default();
    let collection = open(&store, 4, 1);
    (store, collection)
}

fn sibling(writer: u64, counter: u64, value: &[u8]) -> Sibling {
    Sibling {
        dot: Dot::new(writer, counter).unwrap(),
        stamp: Stamp::new(NOW, 0),
        size: value.len() as u64,
        value_hash: HashAlgorithm::Blake3.value_hash(value),
    }
}

fn incoming(writer: u64, counter: u64, value: &[u8]) -> IncomingSibling {
    IncomingSibling { sibling: sibling(writer, counter, value), value: Some(value.into()) }
}

fn update(number: u8, add: Vec<IncomingSibling>, remove: &[(u64, u64)]) -> KeyUpdate {
    let remove = remove.iter().map(|&(w, c)| Dot::new(w, c).unwrap()).collect();
    KeyUpdate { key: Some(key(number)), key_hash: key_hash(&key(number)), add, remove }
}

fn dots(pairs: &[(u64, u64)]) -> DotSet {
    pairs.iter().map(|&(w, c)| Dot::new(w, c).unwrap()).collect()
}

/// What is said of a key: siblings and removals, as (writer, counter).
#[derive(Debug, Clone)]
struct Said {
    number: u8,
    add: Vec<(u64, u64)>,
    remove: Vec<(u64, u64)>,
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    PutOver(u8, u8, Vec<u8>),
    Delete(u8),
    DeleteDots(u8, Vec<u8>),
    Import(Vec<(u8, u8)>),
    /// A session begins: it reads everything, and what is applied afterwards comes of it.
    Look,
    /// What foreign writers wrote.
    Apply(Vec<Said>),
    Join(Vec<(u64, u64)>, Vec<(u64, u64)>),
    Reopen,
}

fn foreign() -> impl Strategy<Value = (u64, u64)> {
    (1..4u64, 1..7u64)
}

fn step() -> impl Strategy<Value = Step> {
    let number = 0..8u8;
    let some = || prop::collection::vec(foreign(), 0..4);
    let said = (number.clone(), some(), some()).prop_map(|(number, add, remove)| Said {
        number,
        add,
        remove,
    });
    prop_oneof![
        4 => (number.clone(), any::<u8>()).prop_map(|(k, v)| Step::Put(k, v)),
        2 => (number.clone(), any::<u8>(), prop::collection::vec(0..3u8, 0..3))
            .prop_map(|(k, v, d)| Step::PutOver(k, v, d)),
        2 => number.clone().prop_map(Step::Delete),
        1 => (number.clone(), prop::collection::vec(0..3u8, 0..3))
            .prop_map(|(k, d)| Step::DeleteDots(k, d)),
        1 => prop::collection::vec((number, 0..3u8), 0..5).prop_map(Step::Import),
        2 => Just(Step::Look),
        5 => prop::collection::vec(said, 1..3).prop_map(Step::Apply),
        1 => (some(), some()).prop_map(|(c, e)| Step::Join(c, e)),
        1 => Just(Step::Reopen),
    ]
}

/// The dots of a key at these places, and one that is held nowhere.
fn read_dots(model: &Model, number: u8, places: &[u8]) -> Vec<Dot> {
    let held: Vec<Dot> =
        model.entries.get(&key(number)).map(|s| s.keys().copied().collect()).unwrap_or_default();
    let picked = places.iter().filter_map(|&at| held.get(usize::from(at)).copied());
    picked.chain(Dot::new(u64::MAX, 1)).collect()
}

/// Under which key a foreign dot stands: honest writers use a dot once.
fn home(writer: u64, counter: u64) -> u8 {
    ((writer * 5 + counter * 3) % 8) as u8
}

fn run(steps: Vec<Step>, page_leaves: u16) {
    let store = Shared::default();
    let mut collection = open(&store, page_leaves, 1);
    let mut model = Model::default();
    let mut look: Option<Look> = None;
    for (at, step) in steps.into_iter().enumerate() {
        let now = NOW + at as u64;
        match step {
            Step::Put(number, value) => {
                let put = collection.put(&key(number), [value], now).unwrap();
                model.remove_key(&key(number));
                model.add(&key(number), put);
            }
            Step::PutOver(number, value, places) => {
                let read = read_dots(&model, number, &places);
                let put = collection.put_over(&key(number), [value], &read, now).unwrap();
                read.into_iter().for_each(|dot| model.remove(dot));
                model.add(&key(number), put);
            }
            Step::Delete(number) => {
                let held = model.entries.get(&key(number)).map_or(0, |s| s.len());
                assert_eq!(collection.delete(&key(number), now).unwrap(), held as u64);
                model.remove_key(&key(number));
            }
            Step::DeleteDots(number, places) => {
                let read = read_dots(&model, number, &places);
                collection.delete_dots(&key(number), &read, now).unwrap();
                read.into_iter().for_each(|dot| model.remove(dot));
            }
            Step::Import(entries) => import(&collection, &mut model, entries, now),
            Step::Look => look = Some(Look::at(&collection)),
            Step::Apply(updates) => apply((&collection, look.as_ref()), &mut model, updates, now),
            Step::Join(context, exceptions) => {
                join(&collection, &mut model, &context, &exceptions, now);
            }
            Step::Reopen => {
                drop((look.take(), collection));
                collection = open(&store, page_leaves, at as u64 + 2);
                assert_eq!(collection.present_writer().unwrap(), None); // rule D1
            }
        }
        model.assert_is(&collection);
        look.iter().for_each(Look::assert_is_as_it_was);
    }
    drop((look, collection));
    model.assert_is(&open(&store, page_leaves, 0));
}

/// A snapshot of which everything was read.
struct Look {
    view: Snapshot<Shared>,
    entries: Vec<Option<Entry>>,
}

impl Look {
    fn at(collection: &Collection<Shared>) -> Self {
        let view = collection.snapshot().unwrap();
        let entries = Self::read(&view);
        Self { view, entries }
    }

    fn read(view: &Snapshot<Shared>) -> Vec<Option<Entry>> {
        (0..8).map(|number| view.entry(&key_hash(&key(number))).unwrap()).collect()
    }

    fn assert_is_as_it_was(&self) {
        assert_eq!(Self::read(&self.view), self.entries);
    }
}

fn import(c: &Collection<Shared>, model: &mut Model, entries: Vec<(u8, u8)>, now: u64) {
    let hash = |value: u8| HashAlgorithm::Blake3.value_hash(&[value]);
    let given = entries.iter().map(|&(k, v)| (key(k), Arc::from([v].as_slice())));
    let imported = c.import(given, now).unwrap();
    // the value of each key as it goes by; none: siblings that differ, or nothing
    let mut values: BTreeMap<u8, Option<ValueHash>> = BTreeMap::new();
    let mut written = BTreeSet::new();
    let mut count = 0;
    for (number, value) in entries {
        let held = values.entry(number).or_insert_with(|| {
            let held = model.entries.get(&key(number))?;
            let mut hashes: Vec<ValueHash> = held.values().map(|s| s.value_hash).collect();
            hashes.dedup();
            if hashes.len() == 1 { hashes.pop() } else { None }
        });
        if *held != Some(hash(value)) {
            *held = Some(hash(value));
            written.insert(number);
            count += 1;
        }
    }
    assert_eq!(imported.written, count);
    for number in written {
        let held = c.get(&key(number)).unwrap().unwrap().record.siblings().to_vec();
        assert_eq!(held.len(), 1);
        assert_eq!(Some(held[0].value_hash), values[&number]);
        model.remove_key(&key(number));
        model.add(&key(number), held[0]);
    }
    if let Some(present) = c.present_writer().unwrap() {
        // puts that a later one of the same import replaced
        let writer = present.writer.get();
        model.seen.extend((1..=present.counter).filter_map(|n| Dot::new(writer, n)));
    }
}

fn apply(
    (c, look): (&Collection<Shared>, Option<&Look>),
    model: &mut Model,
    said: Vec<Said>,
    now: u64,
) {
    let updates: Vec<KeyUpdate> = said
        .into_iter()
        .map(|Said { number, add, remove }| {
            let at_home = |&&(w, n): &&(u64, u64)| home(w, n) == number;
            let add = add.iter().filter(at_home).map(|&(w, n)| incoming(w, n, &[w as u8, n as u8]));
            let remove: Vec<_> = remove.iter().filter(at_home).copied().collect();
            update(number, add.collect(), &remove)
        })
        .collect();
    let outcomes = match look {
        Some(look) => c.apply_of(NodeId([7; 32]), &look.view, updates.clone(), now),
        None => c.apply(updates.clone(), c.snapshot().unwrap().epoch(), now),
    };
    for (update, outcome) in updates.into_iter().zip(outcomes.unwrap()) {
        assert!(outcome.refused.is_empty() && outcome.missing_values.is_empty());
        let new: Vec<Sibling> = update
            .add
            .iter()
            .map(|item| item.sibling)
            .filter(|sibling| !model.seen.contains(&sibling.dot))
            .collect();
        let held = model.held();
        let gone: BTreeSet<Dot> =
            update.remove.into_iter().filter(|dot| held.contains_key(dot)).collect();
        assert_eq!(outcome.removed, gone.len() as u64);
        gone.into_iter().for_each(|dot| model.remove(dot));
        let distinct: BTreeSet<Dot> = new.iter().map(|sibling| sibling.dot).collect();
        assert_eq!(outcome.added, distinct.len() as u64);
        new.into_iter().for_each(|sibling| model.add(update.key.as_ref().unwrap(), sibling));
    }
}

/// Joins what some peer has seen that holds nothing but what is held here.
fn join(
    c: &Collection<Shared>,
    model: &mut Model,
    context: &[(u64, u64)],
    exceptions: &[(u64, u64)],
    now: u64,
) {
    let pairs = context.iter().map(|&(w, n)| (selfsame::dots::Writer::new(w).unwrap(), n));
    let peer = Causality::new(pairs, dots(exceptions), &DotSet::default());
    let seen: Vec<Dot> = (1..4)
        .flat_map(|w| (1..20).filter_map(move |n| Dot::new(w, n)))
        .filter(|&dot| peer.knows(dot))
        .collect();
    let epoch = c.snapshot().unwrap().epoch();
    for dot in peer.exceptions().iter() {
        model.remove(dot); // what it holds it would not list as dead
    }
    model.seen.extend(seen);
    c.join(&JoinRequest { epoch, peer, refused: DotSet::default() }, now).unwrap();
}

proptest! {
    #[test]
    fn a_collection_is_what_the_rules_say(
        steps in prop::collection::vec(step(), 1..40),
        page_leaves in prop::sample::select(&[1u16, 2, 4, 64][..]),
    ) {
        run(steps, page_leaves);
    }
}

#[test]
fn every_opening_draws_a_fresh_writer_at_its_first_put() {
    let (store, collection) = fresh();
    let first = collection.put(&key(1), *b"a", NOW).unwrap();
    let second = collection.put(&key(2), *b"b", NOW).unwrap();
    assert_eq!((first.dot.counter(), second.dot.counter()), (1, 2));
    drop(collection);
    // the same seed would draw the same writer again: what the store has seen is never reused
    let collection = open(&store, 4, 1);
    let third = collection.put(&key(3), *b"c", NOW).unwrap();
    assert_ne!(third.dot.writer(), first.dot.writer());
    assert_eq!(third.dot.counter(), 1);
}

#[test]
fn a_writer_that_somebody_else_uses_is_let_go() {
    let (_, collection) = fresh();
    let mine = collection.put(&key(1), *b"a", NOW).unwrap().dot;
    let theirs = incoming(mine.writer().get(), mine.counter() + 1, b"clone");
    collection.apply(vec![update(2, vec![theirs], &[])], 0, NOW).unwrap();
    let next = collection.put(&key(3), *b"c", NOW).unwrap().dot;
    assert_ne!(next.writer(), mine.writer());
}

#[test]
fn importing_the_same_again_writes_nothing() {
    let (store, collection) = fresh();
    let folder = || (0..20).map(|n| (key(n), Arc::from([n].as_slice())));
    assert_eq!(collection.import(folder(), NOW).unwrap().written, 20);
    let (root, position) = {
        let snapshot = collection.snapshot().unwrap();
        (collection.root().unwrap(), snapshot.log_position())
    };
    let again = collection.import(folder(), NOW + 1).unwrap();
    assert_eq!((again.written, again.unchanged), (0, 20));
    assert_eq!(collection.root().unwrap(), root);
    assert_eq!(collection.snapshot().unwrap().log_position(), position);
    drop((store, collection));
}

#[test]
fn a_refused_item_keeps_what_it_would_have_replaced() {
    let (_, collection) = fresh();
    let late = |mut item: IncomingSibling| {
        item.sibling.stamp = Stamp::new(NOW + 60_001, 0);
        item
    };
    collection.apply(vec![update(1, vec![incoming(7, 1, b"old")], &[])], 0, NOW).unwrap();
    let outcome = collection
        .apply(vec![update(1, vec![late(incoming(7, 2, b"new"))], &[(7, 1)])], 0, NOW)
        .unwrap()
        .remove(0);
    assert_eq!(outcome.refused[0].reason, RefusalReason::Drift);
    assert_eq!((outcome.added, outcome.removed), (0, 0));
    let held = collection.get(&key(1)).unwrap().unwrap();
    assert!(held.record.holds(Dot::new(7, 1).unwrap()));
    // the join stops below the refused dot, and neither loses the old nor claims the new
    let writer = Dot::new(7, 1).unwrap().writer();
    let peer = Causality::new([(writer, 3)], DotSet::default(), &DotSet::default());
    let request = JoinRequest { epoch: 0, peer, refused: dots(&[(7, 2)]) };
    collection.join(&request, NOW).unwrap();
    let snapshot = collection.snapshot().unwrap();
    assert_eq!(snapshot.causality().counter(writer), 1);
    assert!(snapshot.causality().knows(Dot::new(7, 3).unwrap()));
    let outcome =
        collection.apply(vec![update(1, vec![incoming(7, 2, b"new")], &[(7, 1)])], 0, NOW).unwrap();
    assert_eq!((outcome[0].added, outcome[0].removed), (1, 1));
    assert!(collection.check().unwrap().is_sound());
}

#[test]
fn siblings_beyond_the_limit_are_refused_and_a_put_makes_room() {
    let store = Shared::default();
    let limits = Limits { max_siblings: 2, ..Limits::default() };
    let collection = open_with(&store, ReplicaOptions { limits, ..options(4) }, 1);
    let items = vec![incoming(1, 1, b"a"), incoming(2, 1, b"b")];
    collection.apply(vec![update(1, items, &[])], 0, NOW).unwrap();
    let third = || vec![update(1, vec![incoming(3, 1, b"c")], &[])];
    let outcome = collection.apply(third(), 0, NOW).unwrap().remove(0);
    assert_eq!(outcome.refused[0].reason, RefusalReason::Siblings);
    assert!(matches!(
        collection.put_over(&key(1), *b"d", &[], NOW),
        Err(ReplicaError::Siblings { found: 3, limit: 2 })
    ));
    collection.put(&key(1), *b"d", NOW).unwrap();
    assert_eq!(collection.apply(third(), 0, NOW).unwrap()[0].added, 1);
    assert_eq!(collection.read(&key(1)).unwrap().unwrap().versions.len(), 2);
}

#[test]
fn of_two_siblings_with_one_dot_the_greater_stays_whatever_the_order() {
    let one = || update(1, vec![incoming(9, 1, b"one")], &[]);
    let two = || update(2, vec![incoming(9, 1, b"two")], &[]);
    let three = || update(1, vec![incoming(9, 1, b"three")], &[]);
    let mut roots = BTreeSet::new();
    for order in [[one(), two(), three()], [three(), two(), one()], [two(), one(), three()]] {
        let (_, collection) = fresh();
        for update in order {
            collection.apply(vec![update], 0, NOW).unwrap();
            assert!(collection.check().unwrap().is_sound());
        }
        assert_eq!(collection.totals().unwrap().siblings, 1);
        assert!(!collection.evidence(10).unwrap().is_empty());
        roots.insert(collection.root().unwrap());
    }
    assert_eq!(roots.len(), 1);
}

#[test]
fn a_value_said_to_be_held_and_missing_is_asked_for() {
    let (_, collection) = fresh();
    let item = IncomingSibling { value: None, ..incoming(5, 1, b"v") };
    let outcome = collection
        .apply(vec![update(1, vec![item.clone(), incoming(5, 2, b"w")], &[])], 0, NOW)
        .unwrap()
        .remove(0);
    assert_eq!(outcome.missing_values, [Dot::new(5, 1).unwrap()]);
    assert_eq!(collection.get(&key(1)).unwrap(), None); // nothing of the key was applied
    // a second sibling of the same value needs it only once
    let twin = IncomingSibling { value: None, ..incoming(6, 1, b"v") };
    let outcome = collection
        .apply(vec![update(1, vec![incoming(5, 1, b"v"), twin], &[])], 0, NOW)
        .unwrap()
        .remove(0);
    assert_eq!(outcome.added, 2);
    let reading = collection.read(&key(1)).unwrap().unwrap();
    assert!(!reading.conflict && reading.versions.len() == 1);
}

#[test]
fn history_is_kept_and_bounded() {
    let store = Shared::default();
    let limits = Limits { history_age_ms: 1_000, history_percent: 10, ..Limits::default() };
    let collection = open_with(&store, ReplicaOptions { limits, ..options(4) }, 1);
    for round in 0..5u8 {
        collection.put(&key(1), [round; 100], NOW + u64::from(round)).unwrap();
    }
    let history = collection.history(&key(1), 10).unwrap();
    let ages: Vec<u64> = history.iter().map(|(at, _)| *at - NOW).collect();
    assert_eq!(ages, [4, 3, 2, 1]);
    let hash = key_hash(&key(1));
    let old = HashAlgorithm::Blake3.value_hash(&[2; 100]);
    assert!(collection.value(&hash, &old).unwrap().is_some());
    let hashes = collection.snapshot().unwrap().value_hashes(&hash, 3).unwrap();
    assert_eq!(hashes[0], HashAlgorithm::Blake3.value_hash(&[4; 100]));
    assert_eq!(hashes[1], HashAlgorithm::Blake3.value_hash(&[3; 100]));
    for round in 0..20u64 {
        collection.put(&key(2), [9; 10], NOW + 5_000 + round).unwrap(); // always the same value
    }
    assert!(collection.history(&key(1), 10).unwrap().is_empty());
    assert!(collection.value(&hash, &old).unwrap().is_none());
    // 3 MiB of live bytes and of replaced ones: a mebibyte of history stays
    for round in 0..30u64 {
        let mut value = vec![round as u8; 100_000];
        value[0] = 1;
        collection.put(&key((round % 10) as u8 + 10), value, NOW + 6_000 + round).unwrap();
    }
    let rows = store.scan(Span::of(Table::History, &[]), 100).unwrap();
    assert!((5..=10).contains(&rows.len()), "{}", rows.len());
    let values = store.scan(Span::of(Table::Values, &[]), 100).unwrap();
    assert_eq!(values.len(), rows.len() + 12);
    assert!(collection.check().unwrap().is_sound());
}

#[test]
fn the_removal_log_reaches_back_as_far_as_it_says() {
    let store = Shared::default();
    let limits = Limits { removal_log_entries: 50, ..Limits::default() };
    let collection = open_with(&store, ReplicaOptions { limits, ..options(4) }, 1);
    collection.put(&key(0), *b"x", NOW).unwrap();
    let start = collection.snapshot().unwrap().log_position();
    let mut removed = DotSet::default();
    for round in 0..20u8 {
        let put = collection.put(&key(1), [round], NOW).unwrap();
        collection.delete(&key(1), NOW).unwrap();
        removed.insert(put.dot);
    }
    let log = collection.snapshot().unwrap().removals_after(start, 100).unwrap();
    assert_eq!((log.complete, log.dots), (true, removed.clone()));
    let short = collection.snapshot().unwrap().removals_after(start, 5).unwrap();
    assert!(!short.complete && short.dots.count() == 5);
    for round in 0..200u8 {
        collection.put(&key(1), [round], NOW).unwrap();
    }
    let snapshot = collection.snapshot().unwrap();
    assert!(!snapshot.removals_after(start, 1_000).unwrap().complete);
    assert!(snapshot.removals_after(snapshot.log_position(), 9).unwrap().complete);
    let rows = store.scan(Span::of(Table::Log, &[]), 999).unwrap();
    assert!(rows.len() <= 52, "{}", rows.len());
}

#[test]
fn each_opening_starts_a_log_that_begins_with_the_head_of_the_last() {
    let (store, collection) = fresh();
    assert_eq!(collection.log_head().unwrap(), None);
    for number in 0..9 {
        collection.put(&key(number), *b"x", NOW).unwrap();
    }
    let (size, first) = collection.log_head().unwrap().unwrap();
    assert_eq!(size, 10);
    drop(collection);
    let collection = open(&store, 4, 2);
    collection.put(&key(1), *b"y", NOW).unwrap();
    let (size, second) = collection.log_head().unwrap().unwrap();
    assert_eq!(size, 2);
    assert_ne!(first, second);
    let rows = store.scan(Span::of(Table::Log, &[]), 99).unwrap();
    let openings: Vec<_> = rows.iter().filter(|row| row.value[0] == 0).collect();
    assert_eq!(openings.len(), 2);
    let (row, _check) = openings[1].value.split_last_chunk::<8>().unwrap();
    assert!(row.ends_with(&first.0));
}

#[test]
fn what_is_remembered_of_a_join_comes_back_until_a_recovery() {
    let (store, collection) = fresh();
    collection.put(&key(1), *b"a", NOW).unwrap();
    let peer = NodeId([7; 32]);
    let merged = (*collection.causality().unwrap()).clone();
    let envelope = collection.snapshot().unwrap().envelope().clone();
    let (tree, totals) = (envelope.tree_hash(), envelope.totals());
    let record = JoinRecord { log_position: 2, merged, tree, totals };
    collection.remember_join(&peer, &record).unwrap();
    assert_eq!(collection.join_record(&peer).unwrap(), Some(record.clone()));
    drop(collection);
    let collection = open(&store, 4, 2);
    assert_eq!(collection.join_record(&peer).unwrap(), Some(record));
    collection.recover().unwrap();
    assert_eq!(collection.join_record(&peer).unwrap(), None);
}

/// Writes over a row of a closed store.
fn tamper(store: &Shared, table: Table, change: impl Fn(&mut [u8])) {
    let rows = store.scan(Span::of(table, &[]), 99).unwrap();
    let row = rows.last().unwrap();
    let mut value = row.value.to_vec();
    change(&mut value);
    let mut batch = Batch::default();
    batch.put(table, &row.key, &value);
    store.commit(batch, Durability::Always).unwrap();
}

fn flip(value: &mut [u8]) {
    let middle = value.len() / 2;
    value[middle] ^= 1;
}

#[test]
fn damage_is_named_at_opening_and_recovered_with_what_survives() {
    for table in [Table::Heads, Table::Context] {
        let (store, collection) = fresh();
        for number in 0..20 {
            collection.put(&key(number), [number], NOW).unwrap();
        }
        let root = collection.root().unwrap();
        drop(collection);
        if table == Table::Heads {
            let mut batch = Batch::default();
            batch.put(table, &[0, 0, 0, 1, 0], b"rot");
            store.commit(batch, Durability::Always).unwrap();
        } else {
            tamper(&store, table, flip);
        }
        let collection = open(&store, 4, 2);
        assert!(collection.damage().is_some(), "{table:?}");
        assert!(matches!(collection.get(&key(1)), Err(ReplicaError::Damaged { .. })));
        let recovered = collection.recover().unwrap();
        assert_eq!((recovered.entries, recovered.lost), (20, 0));
        assert!(collection.check().unwrap().is_sound());
        assert_eq!(collection.root().unwrap(), root);
        collection.put(&key(1), *b"again", NOW).unwrap();
        drop(collection);
        assert_eq!(open(&store, 4, 3).damage(), None);
    }
}

#[test]
fn a_rotten_record_is_never_served_and_goes_in_a_recovery() {
    let (store, collection) = fresh();
    for number in 0..20 {
        collection.put(&key(number), [number], NOW).unwrap();
    }
    drop(collection);
    tamper(&store, Table::Entries, |value| *value.last_mut().unwrap() ^= 1);
    tamper(&store, Table::Values, flip);
    let collection = open(&store, 4, 2);
    assert_eq!(collection.damage(), None); // opening reads no entries
    let report = collection.check().unwrap();
    assert!(!report.is_sound());
    let snapshot = collection.snapshot().unwrap();
    assert!(snapshot.entries_after(None, 99, |_| true).is_err());
    let before = collection.snapshot().unwrap().epoch();
    let recovered = collection.recover().unwrap();
    assert_eq!((recovered.entries, recovered.lost, recovered.epoch), (19, 1, before + 1));
    let report = collection.check().unwrap();
    assert!(report.problems.is_empty(), "{report:?}");
    assert!(matches!(collection.apply(Vec::new(), before, NOW), Err(ReplicaError::OtherEpoch(_))));
    let peer = Causality::default();
    let join = JoinRequest { epoch: before, peer, refused: DotSet::default() };
    assert!(matches!(collection.join(&join, NOW), Err(ReplicaError::OtherEpoch(_))));
}

#[test]
fn a_lost_value_is_installed_again_by_its_hash() {
    let (store, collection) = fresh();
    collection.put(&key(1), *b"precious", NOW).unwrap();
    tamper(&store, Table::Values, flip);
    let reading = collection.read(&key(1)).unwrap().unwrap();
    assert_eq!(reading.versions[0].value, None);
    assert!(!collection.install_value(&key_hash(&key(1)), b"other").unwrap());
    assert!(collection.install_value(&key_hash(&key(1)), b"precious").unwrap());
    assert!(collection.check().unwrap().is_sound());
}

#[test]
fn a_recovered_replica_resyncs_without_losing_or_bringing_back() {
    let (_, a) = fresh();
    let (store, b) = {
        let store = Shared::default();
        let collection = open(&store, 4, 77);
        (store, collection)
    };
    for number in 0..10 {
        a.put(&key(number), [number], NOW).unwrap();
    }
    sync(&a, &b, NOW);
    b.delete(&key(3), NOW).unwrap();
    b.put(&key(4), *b"b", NOW).unwrap();
    sync(&a, &b, NOW);
    drop(b);
    tamper(&store, Table::Context, flip);
    let b = open(&store, 4, 78);
    b.recover().unwrap();
    a.delete(&key(5), NOW).unwrap();
    b.put(&key(6), *b"late", NOW).unwrap();
    sync(&a, &b, NOW);
    sync(&a, &b, NOW);
    assert_eq!(a.root().unwrap(), b.root().unwrap());
    assert_eq!(a.state_hash().unwrap(), b.state_hash().unwrap());
    assert_eq!(b.get(&key(3)).unwrap(), None);
    assert_eq!(a.get(&key(5)).unwrap(), None);
    assert_eq!(all_entries(&a.snapshot().unwrap()).len(), 8);
    assert_eq!(Side::of(&a).held, Side::of(&b).held);
}

#[test]
fn a_listing_of_more_pages_than_are_kept_is_whole() {
    let store = Shared::default();
    let number = |number: u16| Key::new(number.to_be_bytes()).unwrap();
    let entries = (0..5_000).map(|n| (number(n), Arc::from(&n.to_be_bytes()[..])));
    open(&store, 2, 1).import(entries, NOW).unwrap();
    let collection = open(&store, 2, 2);
    let listed = collection.list(b"", None, usize::MAX).unwrap();
    let listed: BTreeSet<Key> = listed.into_iter().map(|entry| entry.key).collect();
    assert_eq!(listed, (0..5_000).map(number).collect());
    let few = collection.list(&[1], None, 3).unwrap();
    assert_eq!(few.len(), 3);
    let after = collection.key_hash(&few[2].key);
    assert_eq!(collection.list(&[1], Some(&after), 1_000).unwrap().len(), 253);
}

#[test]
fn a_collection_is_created_once_and_never_changes_its_ways() {
    let store = Shared::default();
    let replica = Replica::open(Arc::clone(&store), options(4), random(1)).unwrap();
    replica.create_collection(spec(HashAlgorithm::Blake3)).unwrap();
    assert!(replica.create_collection(spec(HashAlgorithm::Blake3)).is_ok());
    assert!(matches!(
        replica.create_collection(spec(HashAlgorithm::Sha256)),
        Err(ReplicaError::OtherSpec { .. })
    ));
    let mut other = spec(HashAlgorithm::Sha256);
    other.name = selfsame::types::CollectionName::new("others").unwrap();
    replica.create_collection(other.clone()).unwrap().put(&key(1), *b"x", NOW).unwrap();
    drop(replica);
    let replica = Replica::open(store, options(64), random(2)).unwrap();
    assert_eq!(replica.collections().len(), 2);
    let others = replica.collection(&other.name).unwrap();
    assert_eq!(*others.spec(), other);
    assert_eq!(others.totals().unwrap().entries, 1);
    assert!(replica.collections().iter().all(|collection| collection.check().unwrap().is_sound()));
}

#[test]
fn the_clock_never_runs_behind_what_was_seen() {
    let (store, collection) = fresh();
    let mut ahead = incoming(5, 1, b"v");
    ahead.sibling.stamp = Stamp::new(NOW + 50_000, 3);
    collection.apply(vec![update(1, vec![ahead.clone()], &[])], 0, NOW).unwrap();
    let put = collection.put(&key(2), *b"a", NOW).unwrap();
    assert!(put.stamp > ahead.sibling.stamp);
    drop(collection);
    let put_later = open(&store, 4, 2).put(&key(3), *b"b", NOW).unwrap();
    assert!(put_later.stamp > put.stamp);
}
