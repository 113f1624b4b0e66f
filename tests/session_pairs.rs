//! Whole sessions between two cores in memory: every order of events, writes and cuts in every
//! phase, against a replica that never forgets.
#![cfg(feature = "session")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::Arc;

use common::{Around, Node, Oracle, Run, key, run, run_around};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use selfsame::dots::{Causality, Dot, DotSet, Writer};
use selfsame::hash::HashAlgorithm;
use selfsame::limits::Limits;
use selfsame::replica::{
    CollectionView, IncomingSibling, JoinRequest, KeyUpdate, RefusalReason, Warming,
};
use selfsame::session::message::{FreeMessage, Message};
use selfsame::session::{
    AbortCode, Failure, Lane, Mode, Outcome, Phase, Profile, Session, Strategy, SyncConfig, wire,
};

fn seeds(default: u64) -> u64 {
    std::env::var("SELFSAME_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn complete(run: &Run) {
    for outcome in &run.outcomes {
        assert!(matches!(outcome, Outcome::Complete { .. }), "{outcome:?}");
    }
}

fn value(rng: &mut SmallRng) -> Vec<u8> {
    let size = match rng.random_range(0..10) {
        0 => 0,
        1..6 => rng.random_range(1..300),
        6..9 => rng.random_range(300..3_000),
        _ => rng.random_range(3_000..90_000),
    };
    let word = rng.random_range(0..20u8);
    (0..size).map(|at| word.wrapping_add((at / 97) as u8)).collect()
}

/// Some puts and deletes at a node, among `keys` keys.
fn drift(oracle: &mut Oracle, node: &mut Node, rng: &mut SmallRng, writes: usize, keys: u32) {
    for _ in 0..writes {
        let at = key(format!("key {}", rng.random_range(0..keys)));
        if rng.random_range(0..4) == 0 {
            oracle.delete(node, &at);
        } else {
            let value = value(rng);
            oracle.put(node, &at, &value);
        }
    }
}

#[test]
fn equal_states_cost_one_round_trip() {
    let (mut a, mut b, mut oracle) = (Node::new(1), Node::new(2), Oracle::default());
    oracle.put(&mut a, &key("one"), b"1");
    complete(&run(&mut a, &mut b, &SyncConfig::default(), 1));
    let again = run(&mut b, &mut a, &SyncConfig::default(), 2);
    complete(&again);
    assert_eq!(again.frames, 2);
    let (sent, received) = again.stats[0].bytes();
    assert!(sent + received < 200, "{sent} + {received}");
    oracle.check_converged(&[&a, &b]);
}

#[test]
fn an_empty_node_takes_everything_and_both_sign() {
    let (mut a, mut b, mut oracle) = (Node::new(1), Node::new(2), Oracle::default());
    let mut rng = SmallRng::seed_from_u64(3);
    drift(&mut oracle, &mut a, &mut rng, 500, 200);
    let run = run(&mut b, &mut a, &SyncConfig::default(), 7);
    complete(&run);
    oracle.check_converged(&[&a, &b]);
    let [Outcome::Complete { certificate: Some(of_b) }, Outcome::Complete { certificate: of_a }] =
        &run.outcomes
    else {
        panic!("both hold the certificate");
    };
    assert_eq!(Some(of_b), of_a.as_ref());
    assert_eq!(*of_b.message().root(), a.root());
}

#[test]
fn every_seed_converges_in_one_session() {
    for seed in 0..seeds(400) {
        let mut rng = SmallRng::seed_from_u64(seed);
        let algorithm = HashAlgorithm::ALL[rng.random_range(0..2)];
        let mut a = Node::with(2 * seed, algorithm, Limits::default());
        let mut b = Node::with(2 * seed + 1, algorithm, Limits::default());
        let mut oracle = Oracle::default();
        for round in 0..3 {
            let (writes, keys) = (rng.random_range(0..60), rng.random_range(1..60));
            drift(&mut oracle, &mut a, &mut rng, writes, keys);
            drift(&mut oracle, &mut b, &mut rng, writes, keys);
            let strategy = Strategy::ALL[rng.random_range(0..5)];
            let config = SyncConfig {
                strategy,
                max_batch_size: rng.random_range(1..50),
                max_merkle_depth: rng.random_range(0..40),
                bloom_filter_fpr: 0.2,
                ..SyncConfig::default()
            };
            complete(&run(&mut a, &mut b, &config, seed * 10 + round));
            oracle.check_converged(&[&a, &b]);
        }
    }
}

#[test]
fn three_nodes_with_relays_lost_contexts_and_no_resurrection() {
    for seed in 0..seeds(150) {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut nodes = [Node::new(3 * seed), Node::new(3 * seed + 1), Node::new(3 * seed + 2)];
        let mut oracle = Oracle::default();
        for step in 0..12 {
            for node in &mut nodes {
                drift(&mut oracle, node, &mut rng, 6, 25);
            }
            if rng.random_range(0..4) == 0 {
                oracle.recover(rng.random_range(0..3), &nodes);
            }
            let first = rng.random_range(0..3);
            let second = (first + rng.random_range(1..3)) % 3;
            let [a, b] = nodes.get_disjoint_mut([first, second]).unwrap();
            let strategy = Strategy::ALL[rng.random_range(0..5)];
            let config = SyncConfig { strategy, ..SyncConfig::default() };
            complete(&run(a, b, &config, seed * 100 + step));
            assert_eq!(a.root(), b.root());
        }
        for (first, second) in [(0, 1), (1, 2), (0, 2), (0, 1)] {
            let [a, b] = nodes.get_disjoint_mut([first, second]).unwrap();
            complete(&run(a, b, &SyncConfig::default(), seed));
        }
        oracle.check_converged(&[&nodes[0], &nodes[1], &nodes[2]]);
    }
}

/// No end may say that it is complete while the other says that it failed.
fn never_contradict(outcomes: &[Outcome; 2]) {
    let complete = |outcome: &Outcome| matches!(outcome, Outcome::Complete { .. });
    let failed = |outcome: &Outcome| matches!(outcome, Outcome::Failed(_));
    for (one, other) in [(0, 1), (1, 0)] {
        assert!(!(complete(&outcomes[one]) && failed(&outcomes[other])), "{outcomes:?}");
    }
}

#[test]
fn a_cut_at_any_frame_loses_nothing_and_the_next_session_completes() {
    for cut in 0..60 {
        for seed in 0..6 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let (mut a, mut b) = (Node::new(10 + seed), Node::new(20 + seed));
            let mut oracle = Oracle::default();
            drift(&mut oracle, &mut a, &mut rng, 40, 30);
            complete(&run(&mut a, &mut b, &SyncConfig::default(), 5));
            drift(&mut oracle, &mut a, &mut rng, 20, 30);
            drift(&mut oracle, &mut b, &mut rng, 20, 30);
            let config = SyncConfig {
                max_batch_size: 4,
                strategy: Strategy::ALL[seed as usize % 5],
                ..SyncConfig::default()
            };
            let around = Around {
                cut_after: Some(cut),
                before_step: &mut |_, _| {},
                tamper: &mut |_, _, _| {},
            };
            let cut = run_around(&mut a, &mut b, &config, seed, around);
            never_contradict(&cut.outcomes);
            oracle.check(&a);
            oracle.check(&b);
            complete(&run(&mut b, &mut a, &SyncConfig::default(), seed + 1));
            oracle.check_converged(&[&a, &b]);
        }
    }
}

/// Both ends join, and then one of them is stopped before it has the other's signature: it cannot
/// know that the other has its own, so it must not say that the session failed.
#[test]
fn an_end_that_is_stopped_after_its_join_does_not_say_that_the_session_failed() {
    for mode in [Mode::Both, Mode::Pull, Mode::Push] {
        for stopped in 0..2 {
            let (mut a, mut b, mut oracle) = (Node::new(1), Node::new(2), Oracle::default());
            oracle.put(&mut a, &key("of a"), b"1");
            oracle.put(&mut b, &key("of b"), b"2");
            let config = SyncConfig { mode, ..SyncConfig::default() };
            let outcomes = stop_when_joined(&a, &b, config, stopped);
            never_contradict(&outcomes);
            let ended = |end: &Outcome| !matches!(end, Outcome::Failed(_));
            assert!(outcomes.iter().all(ended), "{mode:?} {stopped}: {outcomes:?}");
        }
    }
}

/// A session in which one end is stopped when it has done its part. The other's last word does not
/// reach it.
fn stop_when_joined(a: &Node, b: &Node, config: SyncConfig, stopped: usize) -> [Outcome; 2] {
    let nodes = [a, b];
    let views = [0, 1].map(|at: usize| nodes[at].collection.snapshot().unwrap());
    let mut first = Session::initiate(a.setup(b.id(), config.clone(), [5; 32]), &views[0]);
    let hello = first.poll_transmit(Lane::Control, &views[0]).unwrap();
    let hello = Session::read_hello(&hello).unwrap();
    let second = Session::respond(&hello, b.setup(a.id(), config, [5; 32]), &views[1]);
    let mut ends = [first, second];
    for _ in 0..50 {
        for at in [1 - stopped, stopped] {
            while let Some(updates) = ends[at].poll_apply(true) {
                let epoch = views[at].epoch();
                let outcomes = nodes[at].collection.apply(updates, epoch, nodes[at].now_ms);
                ends[at].applied(&outcomes.unwrap(), &views[at]);
            }
            if let Some(request) = ends[at].poll_join() {
                nodes[at].collection.join(&request, nodes[at].now_ms).unwrap();
                ends[at].joined(Ok(()), &|message| nodes[at].key.sign(message).to_bytes());
            }
            for lane in [Lane::Control, Lane::Bulk] {
                while let Some(frame) = ends[at].poll_transmit(lane, &views[at]) {
                    // the last word of the other end is lost
                    let messages = wire::decode_all::<Message>(&frame).unwrap_or_default();
                    let last = matches!(messages[..], [Message::Free(FreeMessage::Joined { .. })]);
                    if lane == Lane::Bulk || !last || at == stopped {
                        ends[1 - at].handle(lane, &frame, &views[1 - at], nodes[1 - at].now_ms);
                    }
                }
            }
        }
    }
    ends[stopped].abort(AbortCode::Cancelled);
    ends.map(|end| end.outcome().cloned().unwrap())
}

#[test]
fn writes_in_every_phase_are_neither_lost_nor_undone() {
    for seed in 0..seeds(150) {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (mut a, mut b) = (Node::new(30 + seed), Node::new(60_000 + seed));
        let mut oracle = Oracle::default();
        drift(&mut oracle, &mut a, &mut rng, 30, 20);
        drift(&mut oracle, &mut b, &mut rng, 30, 20);
        let mut writing = SmallRng::seed_from_u64(seed);
        let shared = std::cell::RefCell::new(&mut oracle);
        let mut before_step = |_: usize, nodes: &mut [&mut Node; 2]| {
            if writing.random_range(0..8) == 0 {
                let at = writing.random_range(0..2);
                drift(&mut shared.borrow_mut(), nodes[at], &mut writing, 1, 20);
            }
        };
        let around =
            Around { cut_after: None, before_step: &mut before_step, tamper: &mut |_, _, _| {} };
        let config = SyncConfig { max_batch_size: 3, ..SyncConfig::default() };
        let run_of = run_around(&mut a, &mut b, &config, seed, around);
        complete(&run_of);
        complete(&run(&mut a, &mut b, &config, seed));
        oracle.check_converged(&[&a, &b]);
    }
}

#[test]
fn two_imports_of_the_same_data_are_no_conflict_and_move_no_values() {
    let (mut a, mut b, mut oracle) = (Node::new(1), Node::new(2), Oracle::default());
    for at in 0..300 {
        let value = vec![at as u8; 1_000 + at];
        oracle.put(&mut a, &key(at), &value);
        oracle.put(&mut b, &key(at), &value);
    }
    let run = run(&mut a, &mut b, &SyncConfig::default(), 1);
    complete(&run);
    oracle.check_converged(&[&a, &b]);
    for stats in &run.stats {
        assert_eq!(stats.received.values_by_hash, 300);
        assert_eq!(stats.phases.get(&Phase::StateTransfer).map_or(0, |p| p.bytes_received), 0);
        assert_eq!(stats.here.conflicts, 0);
        assert_eq!(stats.here.updated, 300);
    }
}

#[test]
fn a_changed_value_travels_as_a_delta_against_the_history_of_its_sender() {
    let (mut a, mut b, mut oracle) = (Node::new(1), Node::new(2), Oracle::default());
    let mut rng = SmallRng::seed_from_u64(9);
    let mut state: Vec<u8> = (0..40_000).map(|_| rng.random()).collect();
    oracle.put(&mut a, &key("state"), &state);
    complete(&run(&mut a, &mut b, &SyncConfig::default(), 1));
    state[20_000] ^= 1;
    oracle.put(&mut a, &key("state"), &state);
    let changed = run(&mut a, &mut b, &SyncConfig::default(), 2);
    complete(&changed);
    oracle.check_converged(&[&a, &b]);
    let received = &changed.stats[1].received;
    assert_eq!(received.values_prefixed, 1);
    assert!(received.bytes_after < 200, "{received:?}");
}

#[test]
fn a_base_that_the_sender_never_had_is_described_by_a_signature() {
    for size in [30_000, 300_000] {
        let (mut a, mut b, mut oracle) = (Node::new(1), Node::new(2), Oracle::default());
        let mut rng = SmallRng::seed_from_u64(9);
        let common: Vec<u8> = (0..size).map(|_| rng.random()).collect();
        let (mut of_a, mut of_b) = (common.clone(), common);
        of_a[100] ^= 1;
        of_b[size / 2] ^= 1;
        oracle.put(&mut a, &key("state"), &of_a);
        oracle.put(&mut b, &key("state"), &of_b);
        let run = run(&mut a, &mut b, &SyncConfig::default(), 2);
        complete(&run);
        oracle.check_converged(&[&a, &b]);
        for stats in &run.stats {
            assert_eq!(stats.received.values_patched, 1, "{:?}", stats.received);
            let moved = stats.received.bytes_after + stats.received.signature_bytes;
            assert!(moved < size as u64 / 8, "{moved} of {size}");
        }
    }
}

#[test]
fn pull_takes_and_gives_nothing_push_the_other_way_round() {
    for seed in 0..seeds(60) {
        for (mode, taker) in [(Mode::Pull, 0), (Mode::Push, 1)] {
            let mut rng = SmallRng::seed_from_u64(seed);
            let (mut a, mut b) = (Node::new(seed), Node::new(seed + 5_000));
            let mut oracle = Oracle::default();
            drift(&mut oracle, &mut a, &mut rng, 40, 30);
            complete(&run(&mut a, &mut b, &SyncConfig::default(), seed));
            drift(&mut oracle, &mut a, &mut rng, 20, 30);
            drift(&mut oracle, &mut b, &mut rng, 20, 30);
            let strategy = Strategy::ALL[rng.random_range(0..5)];
            let before = [a.root(), b.root()];
            let config = SyncConfig { mode, strategy, ..SyncConfig::default() };
            let run_of = run(&mut a, &mut b, &config, seed);
            assert!(
                matches!(&run_of.outcomes[taker], Outcome::Pulled { refused } if refused.is_empty())
            );
            assert!(
                matches!(&run_of.outcomes[1 - taker], Outcome::Pushed { refused } if refused.is_empty())
            );
            let after = [a.root(), b.root()];
            assert_eq!(before[1 - taker], after[1 - taker], "the giver changes nothing");
            let giver = if taker == 0 { &b } else { &a };
            let held = [&a, &b][taker].held();
            assert!(giver.held().iter().all(|dot| oracle.dead.contains(dot) || held.contains(dot)));
            complete(&run(&mut a, &mut b, &SyncConfig::default(), seed));
            oracle.check_converged(&[&a, &b]);
        }
    }
}

#[test]
fn compare_itemises_and_changes_nothing() {
    for strategy in Strategy::ALL {
        let (mut a, mut b, mut oracle) = (Node::new(1), Node::new(2), Oracle::default());
        for at in 0..200 {
            oracle.put(&mut a, &key(at), b"the same");
        }
        complete(&run(&mut a, &mut b, &SyncConfig::default(), 1));
        oracle.put(&mut a, &key("only here"), b"1");
        oracle.put(&mut b, &key("only there"), b"2");
        oracle.put(&mut a, &key(7), b"changed here");
        oracle.put(&mut a, &key(8), b"one");
        oracle.put(&mut b, &key(8), b"other");
        oracle.delete(&mut b, &key(9));
        let states = [a.collection.state_hash().unwrap(), b.collection.state_hash().unwrap()];
        let config = SyncConfig { mode: Mode::Compare, strategy, ..SyncConfig::default() };
        let run = run(&mut a, &mut b, &config, 3);
        for (outcome, other) in [(&run.outcomes[0], 1), (&run.outcomes[1], 0)] {
            let Outcome::Compared { differences, truncated: false } = outcome else {
                panic!("{outcome:?}")
            };
            let keys: Vec<_> = differences.iter().map(|d| d.key.to_string()).collect();
            assert_eq!(keys, ["7", "8", "9", "only here", "only there"], "{strategy:?} {other}");
            let eight = &differences[1];
            assert_eq!(eight.merged.as_ref().unwrap().siblings().len(), 2);
            assert!(differences[2].merged.is_none(), "nine is deleted");
        }
        let after = [a.collection.state_hash().unwrap(), b.collection.state_hash().unwrap()];
        assert_eq!(states, after);
        assert!(!run.stats[0].phases.contains_key(&Phase::StateTransfer));
    }
}

/// A node of whom `writers` have written, and which has seen every other of `dead` dots of one
/// more writer die.
fn node_of_many(seed: u64, writers: std::ops::Range<u64>, dead: u64) -> Node {
    let limits = Limits { max_writers: 1_000_000, ..Limits::default() };
    let mut node = Node::with(seed, HashAlgorithm::Blake3, limits);
    let pairs = writers.filter_map(|id| Some((Writer::new(id << 40)?, 1 + id)));
    let dead = (1..=dead).filter_map(|half| Dot::new(u64::MAX, 2 * half + seed % 2)).collect();
    let peer = Causality::new(pairs, dead, &DotSet::default());
    let epoch = node.collection.snapshot().unwrap().epoch();
    let request = JoinRequest { epoch, peer, refused: DotSet::default() };
    node.now_ms += 1;
    node.collection.join(&request, node.now_ms).unwrap();
    node
}

#[test]
fn contexts_that_fill_many_messages_are_exchanged_whole_and_then_as_differences() {
    let mut a = node_of_many(1, 1..200_001, 40_000);
    let mut b = node_of_many(2, 190_000..230_000, 0);
    let mut oracle = Oracle::default();
    oracle.put(&mut a, &key("of a"), b"1");
    oracle.put(&mut b, &key("of b"), b"2");
    let config = SyncConfig::default();
    let first = run(&mut a, &mut b, &config, 5);
    complete(&first);
    for node in [&a, &b] {
        let causality = node.collection.causality().unwrap();
        assert_eq!((causality.writers(), causality.exceptions().count()), (230_001, 40_000));
    }
    assert_eq!(a.collection.state_hash().unwrap(), b.collection.state_hash().unwrap());
    // every pair crosses once each way, in at most 20 bytes
    let (sent, received) = first.stats[0].bytes();
    assert!(sent + received < 20 * 240_000 + 28 * 40_000, "{sent} + {received}");
    oracle.put(&mut b, &key("of b"), b"3");
    let second = run(&mut b, &mut a, &config, 6);
    complete(&second);
    // the exceptions are sent whole each time
    let (sent, received) = second.stats[0].bytes();
    assert!(sent + received < 2 * 6 * 40_000, "{sent} + {received}");
    oracle.check_converged(&[&a, &b]);
}

#[test]
fn a_comparison_that_is_cut_short_says_so_whoever_has_the_lower_limit() {
    let few = Limits { max_session_entries: 50, ..Limits::default() };
    let both =
        [(few.clone(), Limits::default()), (Limits::default(), few.clone()), (few.clone(), few)];
    for (of_a, of_b) in both {
        for strategy in Strategy::ALL {
            let mut a = Node::with(1, HashAlgorithm::Blake3, of_a.clone());
            let mut b = Node::with(2, HashAlgorithm::Blake3, of_b.clone());
            let mut oracle = Oracle::default();
            for at in 0..300 {
                oracle.put(&mut a, &key(at), b"a");
                oracle.put(&mut b, &key(at + 150), b"b");
            }
            let config = SyncConfig { mode: Mode::Compare, strategy, ..SyncConfig::default() };
            let run = run(&mut a, &mut b, &config, 3);
            for (outcome, here, there) in [(&run.outcomes[0], &a, &b), (&run.outcomes[1], &b, &a)] {
                let Outcome::Compared { differences, truncated } = outcome else {
                    panic!("{outcome:?}")
                };
                assert!(*truncated && !differences.is_empty() && differences.len() < 450);
                for difference in differences {
                    let at = |node: &Node| {
                        node.collection.get(&difference.key).unwrap().map(|entry| entry.record)
                    };
                    assert_eq!((&difference.here, &difference.there), (&at(here), &at(there)));
                }
            }
        }
    }
}

/// Sessions until one is complete; how many. Looks at the second node after each.
fn until_complete(a: &mut Node, b: &mut Node, look: impl Fn(&Node)) -> u64 {
    for sessions in 1..30 {
        let run = run(a, b, &SyncConfig::default(), sessions);
        look(b);
        match &run.outcomes {
            [Outcome::Partial, Outcome::Partial] => {}
            [Outcome::Complete { .. }, Outcome::Complete { .. }] => return sessions,
            other => panic!("{other:?}"),
        }
    }
    panic!("no progress is made")
}

#[test]
fn more_differences_than_fit_one_session_take_several() {
    let limits = Limits { max_session_entries: 50, ..Limits::default() };
    let mut a = Node::with(1, HashAlgorithm::Blake3, limits.clone());
    let mut b = Node::with(2, HashAlgorithm::Blake3, limits);
    let mut oracle = Oracle::default();
    for at in 0..400 {
        oracle.put(&mut a, &key(at), format!("value {at}").as_bytes());
        oracle.put(&mut b, &key(1_000 + at), format!("value {at}").as_bytes());
    }
    assert!(until_complete(&mut a, &mut b, |_| {}) > 3);
    oracle.check_converged(&[&a, &b]);
}

#[test]
fn more_bytes_than_fit_one_session_take_several() {
    let limits = Limits { max_session_bytes: 40_000, ..Limits::default() };
    let mut a = Node::with(1, HashAlgorithm::Blake3, limits.clone());
    let mut b = Node::with(2, HashAlgorithm::Blake3, limits);
    let mut oracle = Oracle::default();
    for at in 0..60u8 {
        oracle.put(&mut a, &key(at), &[at; 5_000]);
        oracle.put(&mut b, &key(at), &[at + 100; 3_000]);
    }
    assert!(until_complete(&mut a, &mut b, |_| {}) > 5);
    oracle.check_converged(&[&a, &b]);
}

#[test]
fn a_refused_stamp_leaves_its_key_out_and_everything_else_joins() {
    let (mut a, mut b, mut oracle) = (Node::new(1), Node::new(2), Oracle::default());
    oracle.put(&mut a, &key("before"), b"x");
    a.now_ms += 10_000_000;
    oracle.put(&mut a, &key("future"), b"y");
    oracle.put(&mut a, &key("after"), b"z");
    oracle.put(&mut b, &key("of b"), b"w");
    let refused = run(&mut a, &mut b, &SyncConfig::default(), 1);
    for (at, outcome) in refused.outcomes.iter().enumerate() {
        let Outcome::Incomplete { refused } = outcome else { panic!("{outcome:?}") };
        assert_eq!(refused.len(), 2);
        assert!(refused.iter().all(|item| item.reason == RefusalReason::Drift));
        assert!(refused.iter().all(|item| item.by_us == (at == 1)));
    }
    assert!(b.collection.get(&key("future")).unwrap().is_none());
    assert!(b.collection.get(&key("before")).unwrap().is_some());
    b.now_ms = a.now_ms;
    complete(&run(&mut b, &mut a, &SyncConfig::default(), 2));
    oracle.check_converged(&[&a, &b]);
}

#[test]
fn the_brake_stops_a_mass_removal_before_it_happens() {
    let (mut a, mut b, mut oracle) = (Node::new(1), Node::new(2), Oracle::default());
    for at in 0..2_000 {
        oracle.put(&mut a, &key(at), b"x");
    }
    complete(&run(&mut a, &mut b, &SyncConfig::default(), 1));
    for at in 0..1_500 {
        oracle.delete(&mut a, &key(at));
    }
    let before = b.root();
    let stopped = run(&mut a, &mut b, &SyncConfig::default(), 2);
    assert_eq!(
        stopped.outcomes,
        [
            Outcome::Failed(Failure::Peer(AbortCode::Brake(1_500))),
            Outcome::Failed(Failure::Ours(AbortCode::Brake(1_500)))
        ]
    );
    assert_eq!(b.root(), before);
    let config = SyncConfig { allow_removals: true, ..SyncConfig::default() };
    complete(&run(&mut a, &mut b, &config, 3));
    oracle.check_converged(&[&a, &b]);
}

#[test]
fn what_a_partial_session_leaves_for_the_next_does_not_count_for_the_brake() {
    let limits = Limits { max_session_entries: 2_000, ..Limits::default() };
    let mut a = Node::with(1, HashAlgorithm::Blake3, limits.clone());
    let mut b = Node::with(2, HashAlgorithm::Blake3, limits);
    let mut oracle = Oracle::default();
    for at in 0..10_000 {
        oracle.put(&mut a, &key(at), b"x");
    }
    until_complete(&mut a, &mut b, |_| {});
    // all old dots are dead, and of what stands in their place there is room for a fifth
    for at in 0..10_000 {
        oracle.put(&mut a, &key(at), b"y");
    }
    until_complete(&mut a, &mut b, |b| {
        assert_eq!(b.collection.totals().unwrap().entries, 10_000, "nothing vanishes");
    });
    oracle.check_converged(&[&a, &b]);
}

#[test]
fn announcement_alone_is_enough_between_peers_that_met_before() {
    let (mut a, mut b, mut oracle) = (Node::new(1), Node::new(2), Oracle::default());
    for at in 0..3_000 {
        oracle.put(&mut a, &key(at), b"a state");
    }
    complete(&run(&mut a, &mut b, &SyncConfig::default(), 1));
    oracle.put(&mut a, &key(5), b"changed");
    oracle.delete(&mut b, &key(6));
    let run = run(&mut a, &mut b, &SyncConfig::default(), 2);
    complete(&run);
    oracle.check_converged(&[&a, &b]);
    let phases = &run.stats[0].phases;
    assert!(!phases.contains_key(&Phase::MerkleComparison), "{phases:#?}");
    assert!(!phases.contains_key(&Phase::BloomExchange));
    let (sent, received) = run.stats[0].bytes();
    assert!(sent + received < 1_000, "{sent} + {received}");
}

#[test]
fn flipped_bits_never_end_in_a_false_complete() {
    for seed in 0..seeds(300) {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (mut a, mut b) = (Node::new(seed), Node::new(seed + 9_000));
        let mut oracle = Oracle::default();
        drift(&mut oracle, &mut a, &mut rng, 30, 20);
        drift(&mut oracle, &mut b, &mut rng, 30, 20);
        let strategy = Strategy::ALL[rng.random_range(0..5)];
        let config = SyncConfig { strategy, ..SyncConfig::default() };
        let mut left = rng.random_range(1..12);
        let mut tamper = |_: usize, lane: Lane, frame: &mut Vec<u8>| {
            left -= 1;
            // not the last word: whoever gets that garbled cannot take back what it signed
            let messages = match lane {
                Lane::Control => wire::decode_all::<Message>(frame).unwrap_or_default(),
                Lane::Bulk => Vec::new(),
            };
            let last =
                |message: &Message| matches!(message, Message::Free(FreeMessage::Joined { .. }));
            if left == 0 && !messages.iter().any(last) {
                let at = rng.random_range(0..frame.len());
                frame[at] ^= 1 << rng.random_range(0..8);
            }
        };
        let around = Around { cut_after: None, before_step: &mut |_, _| {}, tamper: &mut tamper };
        let Ok(run) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            run_around(&mut a, &mut b, &config, seed, around)
        })) else {
            // the hello itself was no hello: the harness says so
            continue;
        };
        never_contradict(&run.outcomes);
        if run.outcomes.iter().all(|outcome| matches!(outcome, Outcome::Complete { .. })) {
            assert_eq!(a.root(), b.root());
        }
    }
}

#[test]
fn a_view_of_a_session_is_of_one_moment() {
    let (mut a, mut oracle) = (Node::new(1), Oracle::default());
    oracle.put(&mut a, &key("x"), b"1");
    let view = a.collection.snapshot().unwrap();
    oracle.put(&mut a, &key("x"), b"2");
    oracle.put(&mut a, &key("y"), b"3");
    assert_eq!(view.envelope().totals().entries, 1);
    let entry = view.entry(&a.collection.key_hash(&key("x"))).unwrap().unwrap();
    assert_eq!(entry.record.siblings()[0].dot.counter(), 1);
}

/// What remains of a key may go by another session, before what replaces the rest has come.
#[test]
fn a_key_does_not_vanish_while_what_replaces_it_is_on_its_way() {
    for moment in 0..120 {
        let [mut a, mut b, mut c] = [1, 2, 3].map(Node::new);
        let key = key("k");
        let first = b.collection.put(&key, [1], 1_000_001).unwrap();
        complete(&run(&mut b, &mut c, &SyncConfig::default(), 1));
        let second = b.collection.put(&key, [2], 1_000_002).unwrap();
        complete(&run(&mut b, &mut a, &SyncConfig::default(), 2));
        // it forgets that the first one was replaced
        a.collection.recover().unwrap();
        a.collection.put(&key, [3], 1_000_003).unwrap();
        let update = |add: Vec<IncomingSibling>, remove| KeyUpdate {
            key: Some(key.clone()),
            key_hash: HashAlgorithm::Blake3.key_hash(&key),
            add,
            remove,
        };
        let epoch = c.collection.snapshot().unwrap().epoch();
        let item = IncomingSibling { sibling: second, value: Some(Arc::from([2u8].as_slice())) };
        c.collection.apply(vec![update(vec![item], vec![])], epoch, 1_000_003).unwrap();
        assert_eq!(c.dots(&key), [first.dot, second.dot]);
        let mut before_step = |step: usize, nodes: &mut [&mut Node; 2]| {
            assert!(!nodes[1].dots(&key).is_empty(), "it vanished: {moment}, {step}");
            if step == moment {
                let gone = update(vec![], vec![first.dot]);
                nodes[1].collection.apply(vec![gone], epoch, 1_000_004).unwrap();
            }
        };
        let tamper = &mut |_, _, _: &mut Vec<u8>| {};
        let around = Around { cut_after: None, before_step: &mut before_step, tamper };
        complete(&run_around(&mut a, &mut c, &SyncConfig::default(), 7, around));
        complete(&run(&mut c, &mut a, &SyncConfig::default(), 8));
        assert_eq!((c.dots(&key), c.visible().len()), (a.dots(&key), 1));
    }
}

#[test]
fn whatever_the_strategy_any_two_sets_end_with_one_root() {
    for seed in 0..seeds(24) {
        let mut rng = SmallRng::seed_from_u64(7_000 + seed);
        let (shared, of_a, of_b) =
            (rng.random_range(0..400), rng.random_range(0..120), rng.random_range(0..120));
        let (kept, lost) = (rng.random_bool(0.5), rng.random_bool(0.3));
        for strategy in Strategy::ALL {
            let from = if kept { 1 } else { 100_000 };
            let limits = Limits { sketches_from_entries: from, ..Limits::default() };
            let mut a = Node::with(2 * seed + 1, HashAlgorithm::Blake3, limits.clone());
            let mut b = Node::with(2 * seed + 2, HashAlgorithm::Blake3, limits);
            let mut oracle = Oracle::default();
            for at in 0..shared {
                oracle.put(&mut a, &key(format!("shared {at}")), b"1");
            }
            complete(&run(&mut a, &mut b, &SyncConfig::default(), seed));
            for at in 0..of_a {
                oracle.put(&mut a, &key(format!("shared {}", at * 3)), b"2");
                oracle.put(&mut a, &key(format!("of a {at}")), b"3");
            }
            for at in 0..of_b {
                oracle.put(&mut b, &key(format!("shared {}", at * 2)), b"4");
            }
            let mut nodes = [a, b];
            if lost {
                // so that contexts do not explain what differs
                oracle.recover(1, &nodes);
            }
            nodes.iter().for_each(warm);
            let [a, b] = &mut nodes;
            let profile = Profile::ALL[rng.random_range(0..4)];
            let config = SyncConfig { strategy, profile, ..SyncConfig::default() };
            complete(&run(a, b, &config, seed));
            oracle.check_converged(&[a, b]);
        }
    }
}

/// Makes the sketches of a node, if it keeps them.
fn warm(node: &Node) {
    while node.collection.warm_sketches().unwrap() == Warming::Goes {}
}

#[test]
fn sketches_that_are_kept_find_what_those_made_for_a_session_find_and_say_so_earlier() {
    for (strategy, seed) in [(Strategy::Sketch, 1), (Strategy::Iblt, 2), (Strategy::Auto, 3)] {
        let mut costs = Vec::new();
        for kept in [false, true] {
            let limits = Limits { sketches_from_entries: 100, ..Limits::default() };
            let mut a = Node::with(1, HashAlgorithm::Blake3, limits.clone());
            let mut b = Node::with(2, HashAlgorithm::Blake3, limits);
            let mut oracle = Oracle::default();
            for at in 0..5_000 {
                oracle.put(&mut a, &key(at), b"1");
            }
            complete(&run(&mut a, &mut b, &SyncConfig::default(), seed));
            for node in [&a, &b] {
                if kept {
                    warm(node);
                }
                assert_eq!(node.collection.snapshot().unwrap().sketches().is_some(), kept);
            }
            for at in 0..60 {
                oracle.put(&mut a, &key(at * 7), b"2");
                oracle.put(&mut b, &key(at * 11), b"3");
            }
            let config = SyncConfig { strategy, ..SyncConfig::default() };
            let met = run(&mut a, &mut b, &config, seed);
            complete(&met);
            oracle.check_converged(&[&a, &b]);
            costs.push((met.stats[0].turns, met.stats[0].phases.len()));
        }
        // both estimators are in hello and answer: none is asked for in a turn, and then answered
        let earlier = if strategy == Strategy::Auto { 0 } else { 2 };
        assert_eq!(costs[0].0, costs[1].0 + earlier, "{strategy:?}: {costs:?}");
        assert_eq!(costs[0].1, costs[1].1, "{strategy:?}");
    }
}
