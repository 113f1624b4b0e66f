//! The account that a session keeps of its memory, held against an allocator that counts.
//!
//! Whatever a session allocates while it is called is its own, but frames and batches that it
//! hands on: so whoever lets something grow with the differences and does not count it fails here.
//! What zstd allocates for itself is not seen.
#![cfg(feature = "session")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use common::{Node, key, reopened};
use peak_alloc::PeakAlloc;
use selfsame::hash::HashAlgorithm;
use selfsame::limits::Limits;
use selfsame::replica::{CollectionView, KeyUpdate, Snapshot};
use selfsame::session::{Lane, Mode, Outcome, Session, Strategy, SyncConfig};
use selfsame::store::MemoryStore;
use selfsame::types::NodeId;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// The allocator counts for all threads: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// What both ends know of their connection.
const SECRET: [u8; 32] = [7; 32];
const LANES: [Lane; 2] = [Lane::Control, Lane::Bulk];
/// What a session may hold that its account does not know.
const SLACK_BYTES: i64 = 256 << 10;

/// One end, and what it holds by the allocator's count.
struct End {
    peer: NodeId,
    session: Session,
    view: Snapshot<MemoryStore>,
    inbox: [VecDeque<Vec<u8>>; 2],
    held: i64,
    /// The most that it held, during calls too.
    most: i64,
    /// The most by its own account.
    accounted: i64,
    what: String,
}

/// What a call leaves allocated, and the most that it took meanwhile.
fn count<T>(call: impl FnOnce() -> T) -> (T, i64, i64) {
    let before = HEAP.current_usage() as i64;
    HEAP.reset_peak_usage();
    let answer = call();
    (answer, HEAP.current_usage() as i64 - before, HEAP.peak_usage() as i64 - before)
}

/// What goes to the collection with a batch.
fn bytes_of(updates: &[KeyUpdate]) -> i64 {
    let of_key = |update: &KeyUpdate| {
        let values = update.add.iter().filter_map(|add| add.value.as_ref());
        update.key.as_ref().map_or(0, |key| key.as_bytes().len())
            + size_of_val(&update.add[..])
            + size_of_val(&update.remove[..])
            + values.map(|value| value.len() + 16).sum::<usize>()
    };
    (size_of_val(updates) + updates.iter().map(of_key).sum::<usize>()) as i64
}

impl End {
    fn new(
        peer: NodeId,
        begin: impl FnOnce() -> (Session, Snapshot<MemoryStore>),
        what: String,
    ) -> Self {
        let ((session, view), held, most) = count(begin);
        let inbox = Default::default();
        Self { peer, session, view, inbox, held, most, accounted: 0, what }
    }

    fn call<T>(&mut self, call: impl FnOnce(&mut Session, &Snapshot<MemoryStore>) -> T) -> T {
        let Self { session, view, .. } = self;
        let (answer, left, most) = count(|| call(session, view));
        self.most = self.most.max(self.held + most);
        self.held += left;
        answer
    }

    fn check(&mut self) {
        let accounted = self.session.memory_bytes() as i64;
        self.accounted = self.accounted.max(accounted);
        assert!(
            self.held <= accounted * 5 / 4 + SLACK_BYTES,
            "{}: it holds {} and knows of {accounted} only, in {} with {:?}",
            self.what,
            self.held,
            self.session.phase(),
            self.session.outcome(),
        );
    }
}

/// How a session went: outcomes, and of both ends the most that the allocator counted and the most
/// of the account.
struct Held {
    outcomes: [Outcome; 2],
    most: [i64; 2],
    accounted: [i64; 2],
}

fn run(nodes: &mut [Node; 2], config: &SyncConfig, what: &str) -> Held {
    let ids = [nodes[0].id(), nodes[1].id()];
    let setup = nodes[0].setup(ids[1], config.clone(), SECRET);
    let mut first = End::new(
        ids[1],
        || {
            let view = nodes[0].collection.snapshot().unwrap();
            (Session::initiate(setup, &view), view)
        },
        format!("{what}, initiator"),
    );
    let hello = first.call(|session, view| session.poll_transmit(Lane::Control, view)).unwrap();
    first.held -= hello.capacity() as i64;
    let setup = nodes[1].setup(ids[0], config.clone(), SECRET);
    let second = End::new(
        ids[0],
        || {
            let view = nodes[1].collection.snapshot().unwrap();
            let hello = Session::read_hello(&hello).unwrap();
            (Session::respond(&hello, setup, &view), view)
        },
        format!("{what}, responder"),
    );
    let mut ends = [first, second];
    let mut idle = 0;
    for at in (0..2).cycle() {
        let moved = step(&mut ends, at, nodes);
        idle = if moved { 0 } else { idle + 1 };
        if idle == 4 {
            break;
        }
    }
    Held {
        outcomes: [0, 1].map(|at: usize| ends[at].session.outcome().expect("an end").clone()),
        most: [0, 1].map(|at: usize| ends[at].most),
        accounted: [0, 1].map(|at: usize| ends[at].accounted),
    }
}

/// Lets an end do whatever it can, frame by frame.
fn step(ends: &mut [End; 2], at: usize, nodes: &mut [Node; 2]) -> bool {
    let mut moved = false;
    for (number, lane) in LANES.into_iter().enumerate() {
        let end = &mut ends[at];
        if let Some(frame) = end.inbox[number].pop_front() {
            let now_ms = nodes[at].now_ms;
            end.call(|session, view| session.handle(lane, &frame, view, now_ms));
            end.check();
            moved = true;
        }
        moved |= apply(end, &mut nodes[at]);
        if let Some(frame) = end.call(|session, view| session.poll_transmit(lane, view)) {
            end.held -= frame.capacity() as i64;
            end.check();
            ends[1 - at].inbox[number].push_back(frame);
            moved = true;
        }
    }
    moved
}

fn apply(end: &mut End, node: &mut Node) -> bool {
    let mut moved = false;
    while let Some(updates) = end.call(|session, _| session.poll_apply(true)) {
        end.held -= bytes_of(&updates);
        let outcomes = node.collection.apply(updates, end.view.epoch(), node.now_ms).unwrap();
        end.call(|session, view| session.applied(&outcomes, view));
        end.check();
        moved = true;
    }
    if let Some(request) = end.call(|session, _| session.poll_join()) {
        node.collection.join(&request, node.now_ms).unwrap();
        let key = &node.key;
        end.call(|session, _| session.joined(Ok(()), &|message| key.sign(message).to_bytes()));
        moved = true;
    }
    if let Some(record) = end.call(|session, _| session.poll_remember()) {
        node.collection.remember_join(&end.peer, &record).unwrap();
        moved = true;
    }
    moved
}

/// Two nodes that hold the same, and of which each has changed so many keys since.
fn nodes(limits: &Limits, same: usize, changed: usize, bytes: usize) -> [Node; 2] {
    let value = |seed: usize, bytes: usize| -> Arc<[u8]> {
        let mut value = vec![0; bytes];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut value);
        value.into()
    };
    let mut made = [1, 2].map(|seed| Node::with(seed, HashAlgorithm::Blake3, limits.clone()));
    let entries = (0..same).map(|at| (key(format!("both {at}")), value(at, 40)));
    made[0].collection.import(entries, 1_000).unwrap();
    if same > 0 {
        let [a, b] = &mut made;
        let done = common::run(a, b, &SyncConfig::default(), 1);
        assert!(matches!(done.outcomes, [Outcome::Complete { .. }, Outcome::Complete { .. }]));
    }
    for (at, node) in made.iter_mut().enumerate() {
        node.now_ms += 1_000;
        let name = |number: usize| match number % 4 {
            0 => key(format!("both {}", (number * 2 + at) % same.max(1))),
            _ => key(format!("of {at} {number}")),
        };
        let puts = (0..changed).map(|number| (name(number), value(number + 7_000_000 + at, bytes)));
        node.collection.import(puts, node.now_ms).unwrap();
        for number in 0..changed.min(same) / 4 {
            node.now_ms += 1;
            let gone = key(format!("both {}", same - 1 - 2 * number - at));
            node.collection.delete(&gone, node.now_ms).unwrap();
        }
    }
    // nothing is in memory, as after a start
    let [a, b] = made;
    [reopened(a, 5), reopened(b, 6)]
}

fn alone() -> impl Drop {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_session_knows_of_all_that_it_holds() {
    let _alone = alone();
    for strategy in Strategy::ALL {
        for mode in [Mode::Both, Mode::Pull, Mode::Push, Mode::Compare] {
            let what = format!("{strategy:?}, {mode:?}");
            let mut nodes = nodes(&Limits::default(), 3_000, 800, 100);
            let config =
                SyncConfig { strategy, mode, allow_removals: true, ..SyncConfig::default() };
            let held = run(&mut nodes, &config, &what);
            println!("{what}: {:?} held, {:?} accounted", held.most, held.accounted);
            for outcome in &held.outcomes {
                assert!(!matches!(outcome, Outcome::Failed(_)), "{what}: {outcome:?}");
            }
            for (most, accounted) in held.most.into_iter().zip(held.accounted) {
                assert!(
                    accounted <= 4 * most + SLACK_BYTES,
                    "{what}: {most} held, {accounted} said"
                );
            }
        }
    }
}

#[test]
fn the_largest_values_travel_both_ways_within_the_ceiling() {
    let _alone = alone();
    const LARGEST: usize = 1 << 20;
    let most = 4 * LARGEST as u64;
    let limits = Limits {
        max_value_bytes: LARGEST as u64,
        max_session_memory_bytes: most,
        ..Limits::default()
    };
    let noise = |seed: &str, bytes: usize| {
        let mut value = vec![0; bytes];
        blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut value);
        value
    };
    let mut nodes = [1, 2].map(|seed| Node::with(seed, HashAlgorithm::Blake3, limits.clone()));
    let put = |nodes: &mut [Node; 2], at: usize, name: &str, value: Vec<u8>| {
        nodes[at].now_ms += 1;
        nodes[at].collection.put(&key(name), value, nodes[at].now_ms).unwrap();
    };
    for round in 0..2 {
        for at in 0..2 {
            for number in 0..4 {
                // whole at first; then as differences, in part of one half and then of all
                let name = format!("of {at} {number}");
                let mut value = noise(&name, LARGEST);
                let changed = round * (number + 1) * LARGEST / 4;
                let other = noise(&format!("{name} {round}"), LARGEST);
                value[..changed].copy_from_slice(&other[..changed]);
                value[LARGEST / 2] ^= round as u8;
                put(&mut nodes, at, &name, value);
            }
        }
        for session in 0.. {
            assert!(session < 20, "they never became the same");
            let held = run(&mut nodes, &SyncConfig::default(), &format!("round {round}"));
            println!("round {round}: {:?} held, {:?} accounted", held.most, held.accounted);
            for held in held.most {
                assert!(held <= most as i64 + SLACK_BYTES, "{held} bytes at once");
            }
            match held.outcomes {
                [Outcome::Complete { .. }, Outcome::Complete { .. }] => break,
                [Outcome::Partial, Outcome::Partial] => {}
                others => panic!("{others:?}"),
            }
        }
        assert_eq!(nodes[0].root(), nodes[1].root());
    }
}
