//! Killed at any moment, a store loses nothing that it acknowledged.
#![cfg(feature = "node")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use selfsame::hash::HashAlgorithm;
use selfsame::replica::{Collection, Replica, ReplicaOptions};
use selfsame::store::{Durability, EmbeddedOptions, EmbeddedStore};
use selfsame::types::Key;
use support::{options, random, spec};

const FOLDER: &str = "SELFSAME_CRASH_TEST_FOLDER";
const ROUND: &str = "SELFSAME_CRASH_TEST_ROUND";
const ROUNDS: u64 = 6;
const WRITERS: u64 = 2;
const KEYS: u64 = 20;

/// The death of the process takes back nothing that was acknowledged, in any mode.
fn durability(round: u64) -> Durability {
    [Durability::Always, Durability::Periodic, Durability::Never][round as usize % 3]
}

fn open(folder: &Path, seed: u64) -> Arc<Collection<EmbeddedStore>> {
    let store = EmbeddedStore::open(folder, EmbeddedOptions::default()).unwrap();
    let options = ReplicaOptions { durability: durability(seed), ..options(8) };
    let replica = Replica::open(store, options, random(seed)).unwrap();
    replica.create_collection(spec(HashAlgorithm::Blake3)).unwrap()
}

fn key(writer: u64, number: u64) -> Key {
    Key::new(format!("{writer}/{}", number % KEYS)).unwrap()
}

/// The process that is killed: writes, and says what was acknowledged. Every seventh write is a
/// delete.
#[test]
fn writes_until_killed() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
    let collection = open(Path::new(&folder), round);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let collection = &collection;
            scope.spawn(move || {
                for number in round * 1_000_000.. {
                    let key = key(writer, number);
                    if number.is_multiple_of(7) {
                        collection.delete(&key, number).unwrap();
                    } else {
                        let value = format!("{number:>600}");
                        collection.put(&key, value.as_bytes(), number).unwrap();
                    }
                    writeln!(std::io::stdout(), "done {writer} {number}").unwrap();
                }
            });
        }
    });
}

fn child(folder: &Path, round: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writes_until_killed", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    // of each key the last write that was acknowledged
    let mut acknowledged: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for round in 1..=ROUNDS {
        let mut child = child(folder.path(), round);
        let output = BufReader::new(child.stdout.take().unwrap());
        let pid = child.id();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300 + u64::from(pid) % 400));
            child.kill().unwrap();
            child.wait().unwrap();
        });
        for line in output.lines().map_while(Result::ok) {
            let words: Vec<&str> = line.split(' ').collect();
            let at = words.iter().position(|word| *word == "done");
            let Some([writer, number]) = at.and_then(|at| words.get(at + 1..at + 3)) else {
                continue;
            };
            let (writer, number) = (writer.parse().unwrap(), number.parse::<u64>().unwrap());
            acknowledged.insert((writer, number % KEYS), number);
        }
        killer.join().unwrap();
        let collection = open(folder.path(), 1_000 + round);
        assert!(acknowledged.len() > KEYS as usize, "the writers never got going");
        for (&(writer, place), &number) in &acknowledged {
            let reading = collection.read(&key(writer, place)).unwrap();
            // the next write of this key may have been taken and not been acknowledged any more
            let next = (number + KEYS).max(round * 1_000_000 + place);
            let found = reading.map(|reading| {
                let value = reading.versions[0].value.clone().unwrap();
                String::from_utf8_lossy(&value).trim().parse::<u64>().unwrap()
            });
            let possible = |number: u64| (!number.is_multiple_of(7)).then_some(number);
            assert!(
                found == possible(number) || found == possible(next),
                "round {round}: {found:?} after {number} was acknowledged"
            );
        }
        let report = collection.check().unwrap();
        assert!(report.is_sound(), "{report:?}");
    }
}
