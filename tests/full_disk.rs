//! A disk that is really full: a small file system of its own, in a namespace that any user may
//! make. Where that is not possible, each test says why and does nothing.
#![cfg(all(feature = "node", target_os = "linux"))]
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

#[path = "support/mounts.rs"]
mod mounts;
#[path = "cli/node.rs"]
mod node;

use std::path::{Path, PathBuf};

use node::TestNode;
use selfsame::node::home::Home;
use selfsame::replica::ReplicaError;
use selfsame::store::StoreError;
use selfsame::types::{CollectionName, Key};

/// What is said of a full disk.
const FULL: &str = "the disk is full";

/// A file system of 24 MiB.
fn small_disk(test: &str) -> Option<PathBuf> {
    mounts::own_disk(test, 24)
}

fn node_in(folder: &Path) -> TestNode {
    let node = TestNode::bare_in(folder);
    node.run(["init"]).ended(0);
    node.run(["collection", "create", "c"]).ended(0);
    node
}

/// A file that takes so many MiB of the disk, until it is removed.
fn filler(disk: &Path, mib: usize) -> PathBuf {
    let path = disk.join("filler");
    std::fs::write(&path, vec![0; mib << 20]).unwrap();
    path
}

fn value() -> Vec<u8> {
    let mut value = vec![0; 1_000_000];
    rand::RngExt::fill(&mut rand::rng(), &mut value[..]);
    value
}

fn keys(node: &TestNode) -> usize {
    node.run(["ls", "c"]).ended(0).text().lines().count()
}

#[test]
fn a_full_disk_refuses_writes_keeps_what_was_acknowledged_and_goes_on_when_there_is_room() {
    let test =
        "a_full_disk_refuses_writes_keeps_what_was_acknowledged_and_goes_on_when_there_is_room";
    let Some(disk) = small_disk(test) else { return };
    let node = node_in(&disk);
    let filler = filler(&disk, 8);
    let mut written = Vec::new();
    let refused = loop {
        let (key, value) = (format!("key {}", written.len()), value());
        let put = node.run_with(&value, &["put", "c", &key]);
        if put.code != 0 {
            break put;
        }
        written.push((key, value));
        assert!(written.len() < 24, "the disk never fills");
    };
    refused.ended(2).said(FULL).said("make room");
    assert!(written.len() > 2);
    let all_there = || {
        for (key, value) in &written {
            assert_eq!(node.run(["get", "c", key]).ended(0).stdout, *value, "{key}");
        }
        node.run(["recover", "c", "--check"]).ended(0);
    };
    all_there();
    assert_eq!(keys(&node), written.len());
    node.run(["digest", "c"]).ended(0);
    std::fs::remove_file(filler).unwrap();
    node.run_with(&value(), &["put", "c", "at last"]).ended(0);
    all_there();
    assert_eq!(keys(&node), written.len() + 1);
}

#[test]
fn a_process_whose_disk_is_full_reads_on_and_the_next_one_writes() {
    let test = "a_process_whose_disk_is_full_reads_on_and_the_next_one_writes";
    let Some(disk) = small_disk(test) else { return };
    let node = node_in(&disk);
    let filler = filler(&disk, 8);
    let name = CollectionName::new("c").unwrap();
    let key = |at: usize| Key::new(at.to_string().into_bytes()).unwrap();
    let mut written = Vec::new();
    {
        let home = Home::open(&node.data()).unwrap();
        let collection = home.replica.collection(&name).unwrap();
        let refused = loop {
            let value = value();
            match collection.put(&key(written.len()), value.clone(), 1_000) {
                Ok(_) => written.push(value),
                Err(error) => break error,
            }
            assert!(written.len() < 24, "the disk never fills");
        };
        assert!(matches!(refused, ReplicaError::Store(StoreError::Full)), "{refused}");
        for _ in 0..2 {
            for (at, value) in written.iter().enumerate() {
                let read = collection.read(&key(at)).unwrap().unwrap();
                assert_eq!(read.versions[0].value.as_deref(), Some(&value[..]));
            }
            assert!(collection.list(b"", None, 100).unwrap().len() >= written.len());
            assert!(collection.check().unwrap().is_sound());
            let again = collection.put(&key(100), *b"small", 1_000).unwrap_err();
            assert!(matches!(again, ReplicaError::Store(StoreError::Full)), "{again}");
        }
        // room alone is not enough: nobody knows what of the last write reached the disk
        std::fs::remove_file(filler).unwrap();
        collection.put(&key(100), *b"small", 1_000).unwrap_err();
        assert!(home.close().is_err());
    }
    let home = Home::open(&node.data()).unwrap();
    let collection = home.replica.collection(&name).unwrap();
    assert!(collection.check().unwrap().is_sound());
    for (at, value) in written.iter().enumerate() {
        let read = collection.read(&key(at)).unwrap().unwrap();
        assert_eq!(read.versions[0].value.as_deref(), Some(&value[..]));
    }
    collection.put(&key(100), *b"small", 1_000).unwrap();
    drop(collection);
    home.close().unwrap();
}

#[test]
fn a_sync_into_a_full_disk_fails_clearly_and_loses_nothing_at_either_end() {
    let test = "a_sync_into_a_full_disk_fails_clearly_and_loses_nothing_at_either_end";
    let Some(disk) = small_disk(test) else { return };
    let (rich, full) = (node_in(&std::env::temp_dir()), node_in(&disk));
    for at in 0..8 {
        rich.run_with(&value(), &["put", "c", &format!("key {at}")]).ended(0);
    }
    full.run(["put", "c", "own", "here"]).ended(0);
    let (root, filler) = (rich.root(), filler(&disk, 18));
    let listening = rich.listen(&[&full]);
    let peer = listening.peer.clone();
    let failed = full.run(["sync", "c", "--direction", "pull", "--peer", &peer]).ended(2);
    assert!(failed.stderr.contains(FULL) || failed.text().contains(FULL), "{}", failed.stderr);
    assert_eq!(full.run(["get", "c", "own"]).ended(0).text(), "here");
    full.run(["recover", "c", "--check"]).ended(0);
    // the peer is as it was, and serves
    full.run(["digest", "c", "--peer", &peer]).ended(1);
    drop(listening);
    assert_eq!(rich.root(), root);

    // the other way round: a node that serves, and a peer that brings too much
    let serving = full.listen(&[&rich]);
    let failed = rich.run(["sync", "c", "--direction", "push", "--peer", &serving.peer]).ended(2);
    let said = format!("{}{}", failed.text(), failed.stderr);
    assert!(said.contains("could not read or write its store"), "{said}");
    rich.run(["digest", "c", "--peer", &serving.peer]).ended(1);
    let told = full.run(["doctor", "--quiet"]).ended(1);
    assert!(told.text().contains("it takes no writes any more: "), "{}", told.text());
    assert!(told.text().contains("are free, the store takes"), "{}", told.text());
    let figures = full.run(["metrics"]).ended(0);
    assert!(figures.text().contains("\nselfsame_store_failed 1\n"), "{}", figures.text());
    drop(serving);
    assert_eq!(rich.root(), root);
    assert_eq!(full.run(["get", "c", "own"]).ended(0).text(), "here");

    std::fs::remove_file(filler).unwrap();
    let listening = rich.listen(&[&full]);
    full.run(["sync", "c", "--peer", &listening.peer]).ended(0);
    assert_eq!(keys(&full), 9);
}
