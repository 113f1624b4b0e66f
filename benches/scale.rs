//! A collection of many entries on disk: how fast they come in, what opening costs in time and
//! memory, what puts, gets, digests (each after a put), listings and a recovery cost then, and what
//! opening costs after the process was killed in the middle of 20,000 puts. Each phase is a process of its
//! own, so that the memory said is its own. Prints one line a phase; one run, so look at ratios.
//!
//! `cargo bench --bench scale -- 100000` (entries, of 100 bytes each unless a second number
//! says otherwise).
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use selfsame::replica::{Collection, Replica, ReplicaOptions};
use selfsame::store::{Durability, EmbeddedOptions, EmbeddedStore};
use selfsame::types::{CollectionName, CollectionSpec, Key, Policy};

const BATCH: u64 = 4_096;
const BATCH_BYTES: u64 = 16 << 20;
const SAMPLES: u64 = 5_000;
const PHASES: [&str; 9] =
    ["import", "open", "get", "put", "digest", "killed", "reopen", "list", "recover"];

fn open(folder: &Path) -> (EmbeddedStore, Arc<Collection<EmbeddedStore>>) {
    let store = EmbeddedStore::open(folder, EmbeddedOptions::default()).unwrap();
    let options = ReplicaOptions { durability: Durability::Periodic, ..ReplicaOptions::default() };
    let replica = Replica::open(store.clone(), options, Box::new(rand::random::<u64>)).unwrap();
    let name = CollectionName::new("bench").unwrap();
    let spec = CollectionSpec { name, algorithm: Default::default(), policy: Policy::Lww };
    (store, replica.create_collection(spec).unwrap())
}

fn key(number: u64) -> Key {
    Key::new(format!("player:{number:012}")).unwrap()
}

fn value(number: u64, bytes: u64) -> Arc<[u8]> {
    let mut value = vec![0; bytes as usize];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut value);
    value.into()
}

/// Resident memory now and at its greatest, in MiB.
fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? >> 10)
    };
    (field("VmRSS:").unwrap_or(0), field("VmHWM:").unwrap_or(0))
}

/// CPU time of this process, its threads included.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks =
        after.split_whitespace().skip(11).take(2).filter_map(|word| word.parse::<u64>().ok());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

fn import(folder: &Path, entries: u64, bytes: u64) {
    let (store, collection) = open(folder);
    let batch = (BATCH_BYTES / bytes.max(1)).clamp(1, BATCH);
    for from in (0..entries).step_by(batch as usize) {
        let batch = (from..entries.min(from + batch)).map(|n| (key(n), value(n, bytes)));
        collection.import(batch, 1_000_000).unwrap();
    }
    drop(collection);
    store.close().unwrap();
}

/// The number of an entry, anywhere.
fn anywhere(sample: u64, entries: u64) -> u64 {
    sample.wrapping_mul(0x9e37_79b9_7f4a_7c15) % entries
}

fn latencies(mut ask: impl FnMut(u64)) -> String {
    let mut took: Vec<Duration> = (0..SAMPLES)
        .map(|sample| {
            let begun = Instant::now();
            ask(sample);
            begun.elapsed()
        })
        .collect();
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    format!("median {:?}, 99 % {:?}, most {:?}", at(50), at(99), at(100))
}

fn phase(name: &str, folder: &Path, entries: u64, bytes: u64) {
    let begun = Instant::now();
    let more = match name {
        "import" => {
            import(folder, entries, bytes);
            format!("{:.0} entries/s", entries as f64 / begun.elapsed().as_secs_f64())
        }
        "open" | "reopen" => {
            let (_, collection) = open(folder);
            format!("{} entries", collection.totals().unwrap().entries)
        }
        "get" => {
            let (_, collection) = open(folder);
            let read = || {
                latencies(|sample| {
                    assert!(collection.read(&key(anywhere(sample, entries))).unwrap().is_some());
                })
            };
            let first = read();
            format!("{first}; the same again: {}", read())
        }
        "put" => {
            let (_, collection) = open(folder);
            latencies(|sample| {
                let value = value(sample + entries, bytes);
                collection.put(&key(anywhere(sample, entries)), value, 2_000_000).unwrap();
            })
        }
        "digest" => {
            let (_, collection) = open(folder);
            latencies(|sample| {
                let value = value(sample + 2 * entries, bytes);
                collection.put(&key(anywhere(sample, entries)), value, 2_000_000).unwrap();
                collection.digest().unwrap();
            })
        }
        "killed" => {
            let (_, collection) = open(folder);
            for sample in 0..4 * SAMPLES {
                let value = value(sample + 3 * entries, bytes);
                collection.put(&key(anywhere(sample, entries)), value, 2_000_000).unwrap();
            }
            println!("killed after {} puts", 4 * SAMPLES);
            // no clean end: what is in the journal only is read by the next opening
            std::process::abort();
        }
        "list" => {
            let (_, collection) = open(folder);
            let found = collection.list(b"player:00000000001", None, usize::MAX).unwrap();
            format!("{} found", found.len())
        }
        "recover" => {
            let (_, collection) = open(folder);
            format!("{} entries survived", collection.recover().unwrap().entries)
        }
        other => panic!("no phase {other}"),
    };
    let (took, cpu, (now, most)) = (begun.elapsed(), cpu(), memory());
    println!("{name:8} {took:>10.3?} wall, {cpu:?} CPU, {now} MiB, {most} at most: {more}");
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
    if let Some(folder) = words.get(3) {
        let (entries, bytes) = (number(0).unwrap(), number(1).unwrap());
        return phase(&words[2], Path::new(folder), entries, bytes);
    }
    let (entries, bytes) = (number(0).unwrap_or(100_000), number(1).unwrap_or(100));
    let folder = tempfile::tempdir().unwrap();
    println!("{entries} entries of {bytes} bytes");
    for phase in PHASES {
        let status = Command::new(std::env::current_exe().unwrap())
            .args([&entries.to_string(), &bytes.to_string(), phase])
            .arg(folder.path())
            .status()
            .unwrap();
        assert!(status.success() || phase == "killed", "{phase} failed");
    }
}
