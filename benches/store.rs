//! Puts into the store on disk, beside what the disk itself can do: a loop of writes of the same
//! size with a sync each. Prints puts a second and ratios, each the best of three runs, and the CPU
//! time of all threads for a put, over all runs.
//!
//! `cargo bench --bench store`, or `cargo bench --bench store -- periodic` for some of it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use selfsame::replica::{Collection, Replica, ReplicaOptions};
use selfsame::store::{Durability, EmbeddedOptions, EmbeddedStore, MemoryStore, Store};
use selfsame::types::{CollectionName, CollectionSpec, Key, Policy};

const VALUE_BYTES: usize = 740;
/// About what the journal takes for one put of that size.
const ROW_BYTES: usize = 1_400;
const RUNS: usize = 3;
const SPAN: Duration = Duration::from_millis(1_500);

/// Key and value lengths of the rows of one put: head, peaks, entry, value, dot, page, context, log.
const ROWS: [(usize, usize); 8] =
    [(6, 132), (7, 32), (37, 77), (69, VALUE_BYTES), (21, 32), (39, 66), (14, 8), (13, 77)];

/// Puts made so far.
static PUTS: AtomicU64 = AtomicU64::new(0);

fn collection<S: Store>(store: S, durability: Durability) -> Arc<Collection<S>> {
    let options = ReplicaOptions { durability, ..ReplicaOptions::default() };
    let random = Box::new(rand::random::<u64>);
    let replica = Replica::open(store, options, random).unwrap();
    let name = CollectionName::new("bench").unwrap();
    let spec = CollectionSpec { name, algorithm: Default::default(), policy: Policy::Lww };
    replica.create_collection(spec).unwrap()
}

fn embedded(folder: &Path) -> EmbeddedStore {
    EmbeddedStore::open(folder, EmbeddedOptions::default()).unwrap()
}

fn best(run: impl Fn() -> f64) -> f64 {
    (0..RUNS).map(|_| run()).fold(0.0, f64::max)
}

/// CPU time of all threads so far, where the system tells.
fn cpu() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // what follows the name, which may hold anything; the clock of these figures has 100 ticks
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks = |at: usize| rest.split_whitespace().nth(at)?.parse::<u64>().ok();
    Some(Duration::from_millis(10 * (ticks(11)? + ticks(12)?)))
}

/// Events a second.
fn rate(mut event: impl FnMut(u64)) -> f64 {
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < SPAN {
        event(count);
        count += 1;
    }
    count as f64 / begun.elapsed().as_secs_f64()
}

fn syncs_of_the_disk() -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let mut file = File::create(folder.path().join("file")).unwrap();
    file.set_len(64 << 20).unwrap();
    file.sync_all().unwrap();
    rate(|_| {
        file.write_all(&[7; ROW_BYTES]).unwrap();
        file.sync_data().unwrap();
    })
}

fn put<S: Store>(collection: &Collection<S>, number: u64) {
    let key = Key::new(number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).unwrap();
    let mut value = [0; VALUE_BYTES];
    value[..8].copy_from_slice(&number.to_le_bytes());
    collection.put(&key, value, number).unwrap();
    PUTS.fetch_add(1, Ordering::Relaxed);
}

fn single(durability: Durability) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let collection = collection(embedded(folder.path()), durability);
    rate(|number| put(&collection, number))
}

/// What the library below does with the rows of one put, and nothing else: rows that a put writes
/// again and again (head, peaks, context) keep their keys here, too.
fn bare(sync: Option<PersistMode>) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::builder(folder.path()).worker_threads(2).open().unwrap();
    let rows = database.keyspace("rows", KeyspaceCreateOptions::default).unwrap();
    rate(|number| {
        let mut batch = database.batch();
        for (table, (key_bytes, value_bytes)) in ROWS.into_iter().enumerate() {
            let mut key = vec![table as u8; key_bytes];
            if key_bytes >= 13 && table != 6 {
                let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                key[4..12].copy_from_slice(&spread.to_be_bytes());
            }
            batch.insert(&rows, key, vec![number as u8; value_bytes]);
        }
        batch.commit().unwrap();
        if let Some(mode) = sync {
            database.persist(mode).unwrap();
        }
        PUTS.fetch_add(1, Ordering::Relaxed);
    })
}

fn in_memory() -> f64 {
    let collection = collection(MemoryStore::default(), Durability::Never);
    rate(|number| put(&collection, number))
}

fn grouped(writers: usize) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let collection = collection(embedded(folder.path()), Durability::Always);
    let next = AtomicU64::new(0);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..writers {
            scope.spawn(|| {
                while begun.elapsed() < SPAN {
                    put(&collection, next.fetch_add(1, Ordering::Relaxed));
                }
            });
        }
    });
    next.into_inner() as f64 / begun.elapsed().as_secs_f64()
}

fn imported() -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let collection = collection(embedded(folder.path()), Durability::Periodic);
    let batch = 1_000;
    batch as f64
        * rate(|round| {
            let entries = (0..batch).map(|number| {
                let key = Key::new((round * batch + number).to_be_bytes()).unwrap();
                (key, Arc::from([number as u8; VALUE_BYTES].as_slice()))
            });
            collection.import(entries, round).unwrap();
            PUTS.fetch_add(batch, Ordering::Relaxed);
        })
}

fn main() {
    // cargo passes `--bench`; any other word picks the figures whose names contain it
    let picked = std::env::args().skip(1).find(|word| !word.starts_with("--"));
    let disk = best(syncs_of_the_disk);
    println!("disk: {disk:.0} writes of {ROW_BYTES} B with a sync each, a second");
    let figures: [(&str, &dyn Fn() -> f64); 7] = [
        ("one writer, always", &|| single(Durability::Always)),
        ("256 writers, always", &|| grouped(256)),
        ("one writer, periodic", &|| single(Durability::Periodic)),
        ("import by 1,000, periodic", &imported),
        ("one writer, in memory", &in_memory),
        ("one writer, always, the library below alone", &|| bare(Some(PersistMode::SyncData))),
        ("one writer, never, the library below alone", &|| bare(None)),
    ];
    for (name, figure) in figures {
        if picked.as_ref().is_none_or(|word| name.contains(word.as_str())) {
            let (begun, puts) = (cpu(), PUTS.load(Ordering::Relaxed));
            let rate = best(figure);
            let puts = PUTS.load(Ordering::Relaxed) - puts;
            let cost = cpu().zip(begun).map_or(f64::NAN, |(end, begun)| {
                (end - begun).as_secs_f64() * 1e6 / puts.max(1) as f64
            });
            let share = rate / disk;
            println!("{name}: {rate:.0} puts/s, {share:.2} of the disk, {cost:.1} us CPU a put");
        }
    }
}
