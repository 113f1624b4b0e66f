//! Rot on disk: whatever row it hits, nothing that lives is named as removed, a scrub finds it,
//! and it is mended from what is verified or from a peer, without touching what was seen.
#![cfg(feature = "session")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;

use common::{Node, Oracle, key, reopened, run};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use selfsame::dots::Dot;
use selfsame::entry::Record;
use selfsame::hash::KeyHash;
use selfsame::replica::{Replica, ReplicaError, ReplicaOptions, Rot, RotKind, ScrubProgress};
use selfsame::session::{Outcome, Strategy, SyncConfig};
use selfsame::store::{Batch, Durability, MemoryStore, Read, Row, Span, Store, Table};
use selfsame::types::Key;

const KEYS: u32 = 24;
const ALL: u64 = u64::MAX;

fn rows(node: &Node, table: Table) -> Vec<Row> {
    node.replica.store().scan(Span::of(table, &[]), usize::MAX).unwrap()
}

fn write(node: &Node, table: Table, key: &[u8], value: Option<&[u8]>) {
    let mut batch = Batch::default();
    match value {
        Some(value) => batch.put(table, key, value),
        None => batch.remove(table, key),
    }
    node.replica.store().commit(batch, Durability::Always).unwrap();
}

/// A way for one row to rot.
#[derive(Clone, Copy, Debug)]
enum Rots {
    Gone,
    Flipped(usize),
    /// As it is, under a key that is one bit off.
    Moved,
    Emptied,
}

const WAYS: [Rots; 5] =
    [Rots::Gone, Rots::Flipped(3), Rots::Flipped(40), Rots::Moved, Rots::Emptied];

fn rot(node: &Node, table: Table, row: &Row, how: Rots) {
    match how {
        Rots::Gone => write(node, table, &row.key, None),
        Rots::Emptied => write(node, table, &row.key, Some(&[])),
        Rots::Flipped(at) => {
            let mut value = row.value.to_vec();
            let at = at % value.len().max(1);
            if let Some(byte) = value.get_mut(at) {
                *byte ^= 0x10;
            }
            write(node, table, &row.key, Some(&value));
        }
        Rots::Moved => {
            let mut key = row.key.to_vec();
            *key.last_mut().unwrap() ^= 1;
            write(node, table, &row.key, None);
            if node.replica.store().get(table, &key).unwrap().is_none() {
                write(node, table, &key, Some(&row.value));
            }
        }
    }
}

/// Two nodes that were equal and have gone on since, the first opened anew with small pages.
fn apart(seed: u64) -> (Node, Node, Oracle) {
    let (a, mut b, mut oracle) = (Node::new(2 * seed), Node::new(2 * seed + 1), Oracle::default());
    // pages of four leaves
    let mut rng = SmallRng::seed_from_u64(seed + 77);
    let random = Box::new(move || rng.random());
    let options = ReplicaOptions { page_leaves: 4, ..ReplicaOptions::default() };
    let replica = Replica::open(MemoryStore::default(), options, random).unwrap();
    let collection = replica.create_collection(a.collection.spec().clone()).unwrap();
    let mut a = Node { replica, collection, ..a };
    for at in 0..KEYS {
        let node = if at % 2 == 0 { &mut a } else { &mut b };
        oracle.put(node, &key(at), format!("first {at}").as_bytes());
    }
    meet(&mut a, &mut b, seed);
    // two versions of a key: that one of them goes makes no key vanish
    for at in 0..KEYS / 3 {
        for node in [&mut a, &mut b] {
            node.now_ms += 1;
            let value = format!("beside {at} {}", node.id()).into_bytes();
            let put = node.collection.put_over(&key(at), value.clone(), &[], node.now_ms).unwrap();
            oracle.written.insert(put.dot, (key(at), value));
        }
    }
    meet(&mut a, &mut b, seed + 1);
    for at in 0..4 {
        oracle.delete(&mut a, &key(KEYS - 1 - at));
        oracle.put(&mut b, &key(100 + at), b"news of b");
        oracle.put(&mut a, &key(200 + at), b"news of a");
    }
    oracle.put(&mut b, &key(1), b"replaced at b");
    (reopened(a, seed + 5), b, oracle)
}

fn meet(a: &mut Node, b: &mut Node, seed: u64) {
    let done = run(a, b, &SyncConfig::default(), seed);
    assert!(matches!(done.outcomes[0], Outcome::Complete { .. }), "{:?}", done.outcomes);
}

fn living_at(node: &Node, oracle: &Oracle) -> BTreeSet<Dot> {
    node.held().difference(&oracle.dead).copied().collect()
}

/// All of a walk.
fn scrubbed(node: &Node) -> (ScrubProgress, Vec<Rot>) {
    let mut found = Vec::new();
    loop {
        let step = node.collection.scrub(ALL, node.now_ms).unwrap();
        found.extend(step.found);
        if step.ended {
            return (step.progress, found);
        }
    }
}

#[test]
fn no_removal_of_what_lives_follows_from_any_row_that_rotted() {
    let tables = [Table::Entries, Table::Dots, Table::Pages, Table::Log, Table::Values];
    let mut ended_well = 0;
    for table in tables {
        for (way, how) in WAYS.into_iter().enumerate() {
            for strategy in Strategy::ALL {
                let (template, ..) = apart(9);
                let count = rows(&template, table).len();
                for at in (way % 3..count).step_by(5) {
                    let (a, mut b, oracle) = apart(9);
                    let row = rows(&a, table)[at].clone();
                    rot(&a, table, &row, how);
                    let mut a = reopened(a, 3);
                    let before = living_at(&b, &oracle);
                    let config = SyncConfig { strategy, ..SyncConfig::default() };
                    let went = |outcome: &Outcome| matches!(outcome, Outcome::Complete { .. });
                    if a.collection.damage().is_some() {
                        continue;
                    }
                    for (first, seed) in [(true, 1), (false, 2)] {
                        let done = match first {
                            true => run(&mut a, &mut b, &config, seed),
                            false => run(&mut b, &mut a, &config, seed),
                        };
                        ended_well += u32::from(done.outcomes.iter().all(went));
                    }
                    let after = b.held();
                    let lost: Vec<_> = before.difference(&after).collect();
                    assert!(lost.is_empty(), "{table:?} {how:?} {strategy:?} row {at}: {lost:?}");
                    assert!(b.collection.check().unwrap().is_sound());
                }
            }
        }
    }
    assert!(ended_well > 100, "most rot is in no session's way: {ended_well}");
}

#[test]
fn what_follows_from_verified_entries_is_written_again_and_nothing_seen_changes() {
    let tables = [
        (Table::Pages, RotKind::Page),
        (Table::Dots, RotKind::Dot),
        (Table::Context, RotKind::Head),
        (Table::Log, RotKind::Log),
    ];
    for (table, kind) in tables {
        for how in WAYS {
            // found while it is open: at opening some of it would be damage
            let (a, ..) = apart(4);
            let (state, row) = (a.collection.state_hash().unwrap(), rows(&a, table)[1].clone());
            rot(&a, table, &row, how);
            let (progress, found) = scrubbed(&a);
            // that a row of an aid is gone is no fault
            let aid = table == Table::Log && matches!(how, Rots::Gone | Rots::Moved);
            assert_eq!(found.iter().any(|rot| rot.kind == kind), !aid, "{table:?} {how:?}");
            assert!(found.iter().all(|rot| rot.mended), "{table:?} {how:?}: {found:?}");
            assert_eq!(progress.found, progress.mended);
            assert_eq!(a.collection.state_hash().unwrap(), state);
            assert!(a.collection.check().unwrap().is_sound(), "{table:?} {how:?}");
            let (_, again) = scrubbed(&a);
            assert!(again.is_empty(), "{again:?}");
            let a = reopened(a, 8);
            assert_eq!(a.collection.damage(), None);
            assert_eq!(a.collection.state_hash().unwrap(), state);
            assert!(a.collection.check().unwrap().is_sound());
        }
    }
    let (a, ..) = apart(4);
    let head = rows(&a, Table::Heads).into_iter().find(|row| row.key.len() == 5).unwrap();
    write(&a, Table::Heads, &head.key, Some(b"rot"));
    assert!(scrubbed(&a).1.iter().all(|rot| rot.kind == RotKind::Head && rot.mended));
    assert_eq!(rows(&a, Table::Heads)[0], head);
}

#[test]
fn page_rows_that_rotted_are_written_again_at_opening_from_entries_with_the_root() {
    for how in WAYS {
        let (a, ..) = apart(6);
        let state = a.collection.state_hash().unwrap();
        for row in rows(&a, Table::Pages) {
            rot(&a, Table::Pages, &row, how);
        }
        let a = reopened(a, 8);
        assert_eq!(a.collection.damage(), None, "{how:?}");
        assert_eq!(a.collection.state_hash().unwrap(), state);
        assert!(a.collection.check().unwrap().is_sound());
    }
    // nor does an entry that rotted elsewhere matter; in the same page nobody could say what was
    for (page, damaged) in [(0, true), (3, false)] {
        let (a, ..) = apart(6);
        let state = a.collection.state_hash().unwrap();
        let page = rows(&a, Table::Pages)[page].clone();
        let entry = rows(&a, Table::Entries)[0].clone();
        rot(&a, Table::Pages, &page, Rots::Flipped(3));
        rot(&a, Table::Entries, &entry, Rots::Flipped(3));
        let a = reopened(a, 8);
        assert_eq!(a.collection.damage().is_some(), damaged);
        if !damaged {
            assert_eq!(a.collection.state_hash().unwrap(), state);
            let named: Vec<_> = scrubbed(&a).1.into_iter().map(|rot| rot.key).collect();
            assert_eq!(named, [Some(hash_of(&entry))]);
        }
    }
}

fn hash_of(row: &Row) -> KeyHash {
    KeyHash(row.key[4..].try_into().unwrap())
}

/// What a peer would give for the entries that rotted here.
fn given(from: &Node, wanted: &[KeyHash]) -> Vec<(Key, Record)> {
    let entry = |hash| from.collection.entry(hash).unwrap();
    wanted.iter().filter_map(entry).map(|entry| (entry.key, entry.record)).collect()
}

#[test]
fn an_entry_that_rotted_is_named_the_others_are_read_and_a_peer_gives_it_back() {
    let (template, ..) = apart(5);
    let size = rows(&template, Table::Entries)[2].value.len();
    let ways = (0..size).map(Rots::Flipped).chain([Rots::Gone, Rots::Emptied]);
    for (at, how) in ways.enumerate() {
        let (mut a, mut b, oracle) = apart(5);
        meet(&mut a, &mut b, 9);
        if at % 2 == 0 {
            a = reopened(a, 7);
        }
        let all: Vec<_> = a.visible().into_keys().collect();
        let state = a.collection.state_hash().unwrap();
        // one that is resident in half of the cases
        let row = rows(&a, Table::Entries)[2].clone();
        rot(&a, Table::Entries, &row, how);
        let (_, found) = scrubbed(&a);
        let named: Vec<_> = found.iter().filter(|rot| !rot.mended).collect();
        assert!(named.iter().any(|rot| rot.key == Some(hash_of(&row))), "{how:?}: {found:?}");
        assert!(!a.collection.check().unwrap().is_sound());
        if at % 3 == 0 {
            a = reopened(a, 8);
        }
        let mut unreadable = 0;
        for key in &all {
            match a.collection.read(key) {
                Ok(reading) => assert!(reading.is_some(), "{how:?} {key:?}"),
                Err(ReplicaError::Rotten { key: named, .. }) => {
                    assert_eq!((named, a.collection.key_hash(key)), (hash_of(&row), named));
                    unreadable += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(unreadable, 1, "{how:?}");
        let rotten = a.collection.rotten_entries(10).unwrap();
        assert_eq!(rotten, [hash_of(&row)], "{how:?}");
        // another entry in its place, or another record of the same, is not what rotted
        let mut other = given(&b, &rotten);
        let (_, stranger) = given(&b, &[hash_of(&rows(&b, Table::Entries)[5])]).remove(0);
        other[0].1 = stranger;
        assert_eq!(a.collection.install_entries(&other).unwrap(), 0);
        assert_eq!(a.collection.install_entries(&given(&b, &rotten)).unwrap(), 1, "{how:?}");
        assert!(scrubbed(&a).1.iter().all(|rot| rot.mended), "{how:?}");
        assert!(a.collection.check().unwrap().is_sound(), "{how:?}");
        assert_eq!(a.collection.rotten_entries(10).unwrap(), []);
        assert_eq!(a.collection.state_hash().unwrap(), state);
        let a = reopened(a, 11);
        oracle.check_converged(&[&a, &b]);
    }
}

#[test]
fn an_entry_whose_row_has_the_wrong_key_is_put_back_without_anybody() {
    for reopens in [false, true] {
        let (mut a, ..) = apart(5);
        let state = a.collection.state_hash().unwrap();
        for at in [2, 7] {
            let row = rows(&a, Table::Entries)[at].clone();
            rot(&a, Table::Entries, &row, Rots::Moved);
        }
        if reopens {
            a = reopened(a, 7);
        }
        let (_, found) = scrubbed(&a);
        assert!(found.len() >= 4 && found.iter().all(|rot| rot.mended), "{found:?}");
        assert!(a.collection.check().unwrap().is_sound(), "{:?}", a.collection.check());
        assert_eq!(a.collection.state_hash().unwrap(), state);
    }
}

#[test]
fn an_old_row_in_place_of_an_entry_is_found_by_the_page_and_given_back() {
    let (mut a, mut b, mut oracle) = apart(5);
    let old = rows(&a, Table::Entries);
    for at in 0..KEYS / 2 {
        oracle.put(&mut a, &key(at), b"a later one");
    }
    meet(&mut a, &mut b, 3);
    let state = a.collection.state_hash().unwrap();
    let a = reopened(a, 7);
    let now = rows(&a, Table::Entries);
    let old = old
        .into_iter()
        .find(|old| now.iter().any(|now| now.key == old.key && now.value != old.value));
    let old = old.unwrap();
    write(&a, Table::Entries, &old.key, Some(&old.value));
    let (_, found) = scrubbed(&a);
    assert!(found.iter().any(|rot| rot.key == Some(hash_of(&old)) && !rot.mended), "{found:?}");
    let rotten = a.collection.rotten_entries(100).unwrap();
    assert!(rotten.contains(&hash_of(&old)));
    assert_eq!(a.collection.install_entries(&given(&b, &rotten)).unwrap(), 1);
    assert!(a.collection.check().unwrap().is_sound());
    assert_eq!(a.collection.state_hash().unwrap(), state);
    assert_eq!(a.collection.rotten_entries(100).unwrap(), []);
    oracle.check_converged(&[&a, &b]);
}

#[test]
fn what_is_written_while_a_scrub_goes_on_is_no_rot() {
    for seed in 0..6 {
        let (mut a, _, mut oracle) = apart(seed);
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut slices = 0;
        for _ in 0..4 {
            loop {
                let step = a.collection.scrub(rng.random_range(1..900), a.now_ms).unwrap();
                assert!(step.found.is_empty(), "{:?}", step.found);
                slices += 1;
                if step.ended {
                    break;
                }
                for _ in 0..rng.random_range(0..4) {
                    let at = key(rng.random_range(0..3 * KEYS));
                    match rng.random_range(0..3) {
                        0 => oracle.delete(&mut a, &at),
                        _ => oracle.put(&mut a, &at, format!("{slices}").as_bytes()),
                    }
                }
            }
        }
        assert!(slices > 20, "{slices}");
        assert!(a.collection.check().unwrap().is_sound());
    }
}

#[test]
fn a_scrub_goes_on_where_it_was_when_the_store_is_opened_anew() {
    let (mut a, ..) = apart(2);
    let (mut entries, mut openings) = (0, 0);
    loop {
        let step = a.collection.scrub(300, a.now_ms).unwrap();
        assert!(step.progress.entries >= entries, "it does not begin anew");
        entries = step.progress.entries;
        assert_eq!(step.progress.number, 1);
        if step.ended {
            break;
        }
        a.collection.keep_scrub().unwrap();
        a = reopened(a, 20 + openings);
        openings += 1;
        assert_eq!(a.collection.scrub_report().unwrap().running.unwrap().entries, entries);
    }
    assert!(openings > 5);
    assert_eq!(entries, a.collection.totals().unwrap().entries);
    let report = a.collection.scrub_report().unwrap();
    assert_eq!((report.running, report.last.unwrap().entries), (None, entries));
    assert_eq!(report.last_ended_ms, Some(a.now_ms));
    assert_eq!(a.collection.scrub(1, a.now_ms).unwrap().progress.number, 2);
}

#[test]
fn after_a_record_is_lost_for_good_the_rest_stays_and_peers_give_back_what_they_have() {
    let (mut a, mut b, mut oracle) = apart(5);
    meet(&mut a, &mut b, 9);
    oracle.put(&mut b, &key(2), b"nobody has the old one any more");
    let row = rows(&a, Table::Entries)
        .into_iter()
        .find(|row| hash_of(row) == a.collection.key_hash(&key(2)))
        .unwrap();
    let a = reopened(a, 7);
    rot(&a, Table::Entries, &row, Rots::Flipped(9));
    let rotten = vec![hash_of(&row)];
    assert_eq!(a.collection.install_entries(&given(&b, &rotten)).unwrap(), 0);
    let mut nodes = [a, b];
    let recovered = nodes[0].collection.recover().unwrap();
    assert_eq!(recovered.lost, 1);
    let [a, b] = &mut nodes;
    oracle.put(a, &key(7), b"goes on");
    meet(a, b, 4);
    oracle.check_converged(&[a, b]);
    assert!(a.collection.key_hash(&key(2)) == rotten[0]);
}
