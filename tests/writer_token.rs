//! A writer is resumed after a clean close (rule D1's exception), and never by a copy: no dot is
//! ever written twice.
#![cfg(feature = "session")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use selfsame::dots::Dot;
use selfsame::entry::Sibling;
use selfsame::hash::HashAlgorithm;
use selfsame::replica::{Collection, Replica};
use selfsame::store::{
    Batch, Capabilities, CommitNumber, Durability, MemorySnapshot, MemoryStore, Read, Row, Span,
    Store, StoreError, Table,
};
use support::{key, options, random, spec};

const NOW: u64 = 1_000_000;

/// A store whose rows can be copied and put back, while its token stays where it is.
#[derive(Default)]
struct Keeping {
    rows: MemoryStore,
    token: Arc<Mutex<Option<Vec<u8>>>>,
}

impl Keeping {
    /// The rows as they are now: a backup. It knows where the token is.
    fn copy(&self) -> Self {
        let mut batch = Batch::default();
        for table in Table::ALL {
            for row in self.rows.scan(Span::of(table, &[]), usize::MAX).unwrap() {
                batch.put_shared(table, &row.key, row.value);
            }
        }
        let rows = MemoryStore::default();
        rows.apply(batch).unwrap();
        Self { rows, token: Arc::clone(&self.token) }
    }

    fn left(&self) -> Option<Vec<u8>> {
        self.token.lock().unwrap().clone()
    }
}

impl Read for Keeping {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Arc<[u8]>>, StoreError> {
        self.rows.get(table, key)
    }

    fn scan(&self, span: Span<'_>, limit: usize) -> Result<Vec<Row>, StoreError> {
        self.rows.scan(span, limit)
    }
}

impl Store for Keeping {
    type Snapshot = MemorySnapshot;

    fn snapshot(&self) -> Result<MemorySnapshot, StoreError> {
        self.rows.snapshot()
    }

    fn apply(&self, batch: Batch) -> Result<CommitNumber, StoreError> {
        self.rows.apply(batch)
    }

    fn settle(&self, number: CommitNumber, durability: Durability) -> Result<(), StoreError> {
        self.rows.settle(number, durability)
    }

    fn capabilities(&self) -> Capabilities {
        self.rows.capabilities()
    }

    fn take_token(&self) -> Option<Vec<u8>> {
        self.token.lock().unwrap().take()
    }

    fn leave_token(&self, token: &[u8]) {
        *self.token.lock().unwrap() = Some(token.to_vec());
    }
}

struct Opened<S: Store> {
    replica: Replica<S>,
    collection: Arc<Collection<S>>,
}

fn open<S: Store>(store: S, seed: u64) -> Opened<S> {
    let replica = Replica::open(store, options(4), random(seed)).unwrap();
    let collection = replica.create_collection(spec(HashAlgorithm::Blake3)).unwrap();
    Opened { replica, collection }
}

impl<S: Store> Opened<S> {
    fn put(&self, number: u8, value: u8) -> Sibling {
        self.collection.put(&key(number), [value], NOW).unwrap()
    }

    fn dot(&self, number: u8) -> Dot {
        self.put(number, number).dot
    }

    fn writers(&self) -> usize {
        self.collection.causality().unwrap().writers()
    }
}

type Shared = Arc<Keeping>;

#[test]
fn short_commands_go_on_with_one_writer() {
    let store = Shared::default();
    let mut last = None;
    for number in 1..=10u64 {
        let opened = open(Arc::clone(&store), number);
        let dot = opened.dot(number as u8);
        assert_eq!(dot.counter(), number);
        assert!(last.is_none_or(|last: Dot| last.next() == Some(dot)));
        last = Some(dot);
        assert_eq!(opened.writers(), 1);
        opened.replica.close().unwrap();
        // a command that only reads passes it on
        let reader = open(Arc::clone(&store), 100 + number);
        assert_eq!(reader.collection.present_writer().unwrap().unwrap().counter, number);
        reader.replica.close().unwrap();
    }
    let opened = open(store, 200);
    assert!(opened.collection.check().unwrap().is_sound());
}

#[test]
fn without_a_clean_close_a_fresh_writer_is_drawn() {
    let store = Shared::default();
    let first = open(Arc::clone(&store), 1).dot(1);
    let opened = open(Arc::clone(&store), 2);
    let second = opened.dot(1);
    assert_ne!(first.writer(), second.writer());
    opened.replica.close().unwrap();
    // taken, and not left again
    let third = open(Arc::clone(&store), 3).dot(1);
    assert_eq!(third.writer(), second.writer());
    let fourth = open(store, 4).dot(1);
    assert_ne!(fourth.writer(), third.writer());
}

#[test]
fn a_token_used_twice_resumes_once() {
    let store = Shared::default();
    let opened = open(Arc::clone(&store), 1);
    let first = opened.dot(1);
    opened.replica.close().unwrap();
    let token = store.left().unwrap();
    let second = open(Arc::clone(&store), 2).dot(1);
    assert_eq!(first.next(), Some(second));
    store.leave_token(&token);
    let third = open(store, 3).dot(1);
    assert_ne!(third.writer(), first.writer());
}

#[test]
fn a_replica_that_goes_on_after_its_close_draws_a_fresh_writer() {
    let store = Shared::default();
    let opened = open(Arc::clone(&store), 1);
    let first = opened.dot(1);
    opened.replica.close().unwrap();
    let second = opened.dot(2);
    assert_ne!(first.writer(), second.writer());
    let third = open(store, 2).dot(3);
    assert!(third.writer() != first.writer() && third.writer() != second.writer());
}

#[test]
fn a_store_put_back_to_an_earlier_moment_draws_a_fresh_writer() {
    let store = Shared::default();
    let opened = open(Arc::clone(&store), 1);
    let first = opened.dot(1);
    opened.replica.close().unwrap();
    let (earlier, early_token) = (store.copy(), store.left().unwrap());
    let opened = open(Arc::clone(&store), 2);
    assert_eq!(opened.dot(2).writer(), first.writer());
    opened.replica.close().unwrap();
    // the token is of a later moment than the store
    let restored = open(earlier, 3).dot(3);
    assert_ne!(restored.writer(), first.writer());
    // the token is of an earlier moment than the store
    store.leave_token(&early_token);
    assert_ne!(open(store, 4).dot(3).writer(), first.writer());
}

#[test]
fn a_delete_or_a_recovery_in_between_ends_the_writer() {
    let closed = || {
        let store = Shared::default();
        let opened = open(Arc::clone(&store), 1);
        let dot = opened.dot(1);
        opened.replica.close().unwrap();
        (store.left().unwrap(), store, dot)
    };
    let (token, store, dot) = closed();
    open(Arc::clone(&store), 2).collection.delete(&key(1), NOW).unwrap();
    store.leave_token(&token);
    assert_ne!(open(store, 3).dot(2).writer(), dot.writer());
    let (token, store, dot) = closed();
    open(Arc::clone(&store), 2).collection.recover().unwrap();
    store.leave_token(&token);
    assert_ne!(open(store, 3).dot(2).writer(), dot.writer());
}

#[test]
fn nonsense_in_place_of_a_token_is_no_token() {
    for token in [&b""[..], &[0; 8], &[1; 92], &[255; 1_000]] {
        let store = Shared::default();
        store.leave_token(token);
        assert_eq!(open(Arc::clone(&store), 1).dot(1).counter(), 1);
        assert_eq!(store.left(), None);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    CloseAndOpen,
    CrashAndOpen,
    Backup,
    Restore,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..6u8, any::<u8>()).prop_map(|(number, value)| Step::Put(number, value)),
        1 => (0..6u8).prop_map(Step::Delete),
        3 => Just(Step::CloseAndOpen),
        1 => Just(Step::CrashAndOpen),
        1 => Just(Step::Backup),
        1 => Just(Step::Restore),
    ]
}

proptest! {
    #[test]
    fn no_dot_is_ever_written_twice(steps in prop::collection::vec(step(), 1..60)) {
        let mut store = Shared::default();
        let mut backup = Shared::new(store.copy());
        let mut opened = open(Arc::clone(&store), 0);
        let mut written: BTreeMap<Dot, (u8, Sibling)> = BTreeMap::new();
        for (at, step) in steps.into_iter().enumerate() {
            let seed = at as u64 + 1;
            match step {
                Step::Put(number, value) => {
                    let put = opened.put(number, value);
                    let before = written.insert(put.dot, (number, put));
                    prop_assert_eq!(before, None);
                }
                Step::Delete(number) => {
                    opened.collection.delete(&key(number), NOW).unwrap();
                }
                Step::CloseAndOpen => {
                    opened.replica.close().unwrap();
                    opened = open(Arc::clone(&store), seed);
                }
                Step::CrashAndOpen => opened = open(Arc::clone(&store), seed),
                Step::Backup => backup = Shared::new(store.copy()),
                Step::Restore => {
                    opened.replica.close().unwrap();
                    store = Shared::new(backup.copy());
                    opened = open(Arc::clone(&store), seed);
                }
            }
        }
        prop_assert!(opened.collection.check().unwrap().is_sound());
    }
}

#[cfg(all(feature = "node", target_os = "linux"))]
mod embedded {
    use std::io::{BufRead, BufReader};
    use std::path::Path;
    use std::process::{Command, Stdio};

    use selfsame::store::{EmbeddedOptions, EmbeddedStore};

    use super::*;

    const FOLDER: &str = "SELFSAME_TOKEN_TEST_FOLDER";

    fn open(folder: &Path) -> Opened<EmbeddedStore> {
        let store = EmbeddedStore::open(folder, EmbeddedOptions::default()).unwrap();
        let replica = Replica::open(store, options(4), Box::new(rand::random::<u64>)).unwrap();
        let collection = replica.create_collection(spec(HashAlgorithm::Blake3)).unwrap();
        Opened { replica, collection }
    }

    /// Opens, puts once, closes.
    fn command(folder: &Path, number: u8) -> Dot {
        let opened = open(folder);
        let dot = opened.dot(number);
        opened.replica.close().unwrap();
        dot
    }

    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &to);
            } else {
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
    }

    /// Whether this system has a place for tokens at all: none is promised where there is not.
    fn has_a_place(first: Dot, second: Dot) -> bool {
        let resumed = first.writer() == second.writer();
        let memory = std::fs::metadata("/dev/shm").is_ok() && !Path::new("/.dockerenv").exists();
        assert!(resumed || !memory, "{first} was not gone on with, but {second} begun");
        resumed
    }

    #[test]
    fn a_copied_or_restored_folder_draws_a_fresh_writer() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        let first = command(&at("store"), 1);
        let second = command(&at("store"), 2);
        if !has_a_place(first, second) {
            return;
        }
        copy(&at("store"), &at("copy"));
        let copied = command(&at("copy"), 3);
        assert_ne!(copied.writer(), first.writer());
        assert_eq!(command(&at("copy"), 3).writer(), copied.writer());
        assert_eq!(Some(command(&at("store"), 3)), second.next());
        // put back in place: the marker is the same, the collection stands earlier
        copy(&at("store"), &at("backup"));
        let third = command(&at("store"), 4);
        assert_eq!(third.writer(), first.writer());
        std::fs::remove_dir_all(at("store").join("db")).unwrap();
        copy(&at("backup").join("db"), &at("store").join("db"));
        let restored = command(&at("store"), 4);
        assert_ne!(restored.writer(), first.writer());
        // put back as a whole
        std::fs::remove_dir_all(at("store")).unwrap();
        copy(&at("backup"), &at("store"));
        assert_ne!(command(&at("store"), 4).writer(), first.writer());
        // moved, it is the same store
        let moved = command(&at("store"), 5);
        std::fs::rename(at("store"), at("moved")).unwrap();
        assert_eq!(Some(command(&at("moved"), 5)), moved.next());
    }

    /// The process that is killed.
    #[test]
    fn puts_and_waits() {
        let Ok(folder) = std::env::var(FOLDER) else { return };
        let opened = open(Path::new(&folder));
        println!("put {}", opened.dot(1).writer().get());
        std::thread::sleep(std::time::Duration::from_secs(60));
    }

    #[test]
    fn a_process_that_was_killed_leaves_no_writer() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (command(folder.path(), 1), command(folder.path(), 2));
        if !has_a_place(first, second) {
            return;
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "embedded::puts_and_waits", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let put = output.lines().map_while(Result::ok).find_map(|line| {
            line.split("put ").nth(1).and_then(|writer| writer.trim().parse::<u64>().ok())
        });
        assert_eq!(put, Some(first.writer().get()));
        child.kill().unwrap();
        child.wait().unwrap();
        let after = open(folder.path());
        assert_eq!(after.collection.present_writer().unwrap(), None);
        let dot = after.dot(1);
        assert!(dot.counter() == 1 && dot.writer() != first.writer());
        assert_eq!(after.writers(), 2);
    }
}
