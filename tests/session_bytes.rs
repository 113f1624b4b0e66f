//! What sessions cost in bytes and messages: the same everywhere, with a little slack.
#![cfg(feature = "session")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::Arc;

use common::{Around, Node, Run, key, run, run_around};
use selfsame::hash::HashAlgorithm;
use selfsame::limits::Limits;
use selfsame::replica::{CollectionView, IncomingSibling, JoinRequest, KeyUpdate, Warming};
use selfsame::session::message::{Message, TurnMessage};
use selfsame::session::{Lane, Outcome, Profile, Strategy, SyncConfig, wire};

/// The length before each frame.
const HEADER: usize = 4;

/// Two that hold the same entries and have met.
fn twins(entries: u32) -> (Node, Node) {
    twins_with(entries, Default::default())
}

fn twins_with(entries: u32, [of_a, of_b]: [Limits; 2]) -> (Node, Node) {
    let mut a = Node::with(1, HashAlgorithm::Blake3, of_a);
    let mut b = Node::with(2, HashAlgorithm::Blake3, of_b);
    let value: Arc<[u8]> = vec![7; 32].into();
    let states = (0..entries).map(|at| (key(format!("key {at}")), Arc::clone(&value)));
    a.collection.import(states, a.now_ms).unwrap();
    let view = a.collection.snapshot().unwrap();
    let entries = view.entries_after(None, usize::MAX, |_| true).unwrap();
    let updates = entries.into_iter().map(|entry| KeyUpdate {
        key_hash: a.collection.key_hash(&entry.key),
        add: entry
            .record
            .siblings()
            .iter()
            .map(|&sibling| IncomingSibling { sibling, value: Some(Arc::clone(&value)) })
            .collect(),
        key: Some(entry.key),
        remove: Vec::new(),
    });
    let epoch = b.collection.snapshot().unwrap().epoch();
    b.collection.apply(updates.collect(), epoch, b.now_ms).unwrap();
    let peer = view.causality().clone();
    b.collection.join(&JoinRequest { epoch, peer, refused: Default::default() }, b.now_ms).unwrap();
    put(&mut a, "met");
    complete(&run(&mut a, &mut b, &SyncConfig::default(), 1));
    (a, b)
}

fn put(node: &mut Node, name: &str) {
    node.now_ms += 1;
    node.collection.put(&key(name), vec![8; 32], node.now_ms).unwrap();
}

fn complete(run: &Run) {
    for outcome in &run.outcomes {
        assert!(matches!(outcome, Outcome::Complete { .. }), "{outcome:?}");
    }
}

/// Bytes of messages, lengths of frames included, and frames: of all, and up to when both know
/// which leaves differ, without contexts.
#[derive(Debug, Default)]
struct Cost {
    bytes: usize,
    frames: usize,
    find_bytes: usize,
    find_frames: usize,
}

/// A session in which nothing but descent finds what differs.
fn descend(a: &mut Node, b: &mut Node, seed: u64) -> Cost {
    let config = SyncConfig { strategy: Strategy::Merkle, ..SyncConfig::default() };
    let mut cost = Cost::default();
    let mut found = false;
    let mut tamper = |_, lane, frame: &mut Vec<u8>| {
        cost.bytes += frame.len() + HEADER;
        cost.frames += 1;
        if lane == Lane::Bulk {
            return;
        }
        let messages: Vec<Message> = wire::decode_all(frame).unwrap();
        let opening = messages.iter().find_map(|message| match message {
            Message::HelloReply(selfsame::session::message::HelloReply::Differs {
                opening,
                ..
            }) => Some(opening.as_ref()),
            Message::Turn(TurnMessage::Opening(opening)) => Some(opening),
            _ => None,
        });
        let contexts = opening.map_or(0, |opening| {
            let marks = [&opening.writer, &opening.heard].map(|mark| wire::encode(mark).unwrap());
            let lists =
                [wire::encode(&opening.causality).unwrap(), wire::encode(&opening.above).unwrap()];
            marks.iter().chain(&lists).map(Vec::len).sum()
        });
        let tells =
            |message: &Message| matches!(message, Message::Turn(TurnMessage::States { .. }));
        found |= messages.iter().any(tells);
        if !found {
            cost.find_bytes += frame.len() + HEADER - contexts;
            cost.find_frames += 1;
        }
    };
    let around = Around { cut_after: None, before_step: &mut |_, _| {}, tamper: &mut tamper };
    complete(&run_around(a, b, &config, seed, around));
    cost
}

#[test]
fn equal_collections_cost_two_messages_of_forty_bytes_together() {
    let (mut a, mut b) = twins(300);
    for seed in 0..5 {
        let equal = run(&mut b, &mut a, &SyncConfig::default(), seed);
        complete(&equal);
        assert_eq!(equal.frames, 2);
        let (sent, received) = equal.stats[0].bytes();
        let payload = sent as usize + received as usize - 2 * HEADER;
        assert!(payload <= 40, "{payload}");
    }
}

#[test]
fn equal_collections_cost_eight_bytes_more_where_contexts_are_not_used() {
    let (mut a, mut b) = twins(5_000);
    for kept in [false, true] {
        while kept
            && [&a, &b].iter().any(|n| n.collection.warm_sketches().unwrap() == Warming::Goes)
        {
        }
        let config = SyncConfig { strategy: Strategy::Sketch, ..SyncConfig::default() };
        let equal = run(&mut b, &mut a, &config, 1);
        complete(&equal);
        let (sent, received) = equal.stats[0].bytes();
        let payload = sent as usize + received as usize - 2 * HEADER;
        assert!(payload <= if kept { 48 } else { 40 }, "{payload}");
        assert_eq!(equal.frames, 2);
    }
}

#[test]
fn a_change_that_contexts_explain_costs_its_record_and_little_more() {
    let (mut a, mut b) = twins(300);
    for seed in 0..5 {
        put(&mut a, &format!("key {seed}"));
        let one = run(&mut b, &mut a, &SyncConfig::default(), seed);
        complete(&one);
        let (sent, received) = one.stats[0].bytes();
        assert!(sent + received <= 610, "{sent} + {received}");
        assert!(one.frames <= 8, "{}", one.frames);
    }
}

#[test]
fn many_changes_cost_their_records_and_little_more() {
    let (mut a, mut b) = twins(3_000);
    // each is a key of 7 or 8 bytes, a value of 32, a dot, a stamp, and a version that is gone
    for seed in 0..3 {
        for at in 0..1_000 {
            put(&mut a, &format!("key {}", at * 3 % 2_999));
        }
        let many = run(&mut b, &mut a, &SyncConfig::default(), seed);
        complete(&many);
        let (sent, received) = many.stats[0].bytes();
        assert!(sent + received <= 1_000 * 62, "{sent} + {received}");
    }
}

#[test]
fn a_descent_costs_half_a_round_trip_for_each_level() {
    let (mut a, mut b) = twins(10_000);
    // hello, reply, and a level each: 4 bits of 10,000 leaves, until 32 are left
    for seed in 0..8 {
        put(&mut a, &format!("key {}", seed * 1_000));
        let cost = descend(&mut b, &mut a, seed);
        assert!(cost.find_frames <= 12, "{cost:?}");
        assert!(cost.find_bytes <= 410, "{cost:?}");
    }
}

#[test]
fn a_descent_to_many_shares_its_levels() {
    let (mut a, mut b) = twins(10_000);
    for (differing, most) in [(10, 1_465), (100, 6_865), (1_000, 22_365)] {
        for at in 0..differing {
            put(if at % 2 == 0 { &mut a } else { &mut b }, &format!("key {}", at * 9));
        }
        let cost = descend(&mut b, &mut a, differing);
        assert!(cost.find_bytes <= most, "{differing}: {cost:?}");
        assert!(cost.find_frames <= 12, "{differing}: {cost:?}");
    }
}

#[test]
fn what_one_side_lacks_is_found_by_a_bit_and_not_by_a_key() {
    let (mut a, mut b) = twins(10_000);
    for at in 0..100 {
        put(&mut a, &format!("new {at}"));
    }
    let config = SyncConfig { strategy: Strategy::Merkle, ..SyncConfig::default() };
    let mut asked = 0;
    let mut tamper = |_, lane, frame: &mut Vec<u8>| {
        if lane == Lane::Control {
            for message in wire::decode_all::<Message>(frame).unwrap() {
                if let Message::Turn(TurnMessage::States { ask, .. }) = message {
                    asked += ask.len();
                }
            }
        }
    };
    let around = Around { cut_after: None, before_step: &mut |_, _| {}, tamper: &mut tamper };
    complete(&run_around(&mut b, &mut a, &config, 3, around));
    assert_eq!(a.root(), b.root());
    assert_eq!(asked, 0);
}

/// Each side changes half of so many keys.
fn differ(a: &mut Node, b: &mut Node, differing: u64, seed: u64) {
    for at in 0..differing {
        let at_b = at % 2 == 1;
        put(
            if at_b { &mut *b } else { &mut *a },
            &format!("key {}", (at * 17 + seed * 401) % 20_000),
        );
    }
}

/// Bytes and frames of what finds the differences by sketches, names among it, and the descent to
/// what they missed.
fn sketch(a: &mut Node, b: &mut Node, strategy: Strategy, seed: u64) -> Cost {
    let config = SyncConfig { strategy, ..SyncConfig::default() };
    let mut cost = Cost::default();
    let mut tamper = |_, lane, frame: &mut Vec<u8>| {
        let messages: Vec<Message> = match lane {
            Lane::Control => wire::decode_all(frame).unwrap(),
            Lane::Bulk => Vec::new(),
        };
        let finds = |message: &&Message| {
            use TurnMessage as Turn;
            let tells = matches!(
                message,
                Message::Turn(Turn::Opening(_) | Turn::States { .. } | Turn::Removed(_))
            );
            !tells && matches!(message, Message::Turn(_))
        };
        let found: usize =
            messages.iter().filter(finds).map(|one| wire::encode(one).unwrap().len()).sum();
        cost.find_frames += usize::from(found > 0);
        cost.find_bytes += found;
    };
    let around = Around { cut_after: None, before_step: &mut |_, _| {}, tamper: &mut tamper };
    complete(&run_around(b, a, &config, seed, around));
    assert_eq!(a.root(), b.root());
    cost
}

#[test]
fn sketches_and_symbols_name_what_differs_in_few_bytes_and_frames() {
    let (mut a, mut b) = twins(20_000);
    // of each key that differs both sides hold a leaf, so twice as many differ; a sketch that
    // missed a bucket has a descent after it
    for (strategy, most) in [
        (Strategy::Sketch, [(1, 110), (10, 380), (100, 2_200), (1_000, 20_500)]),
        (Strategy::Iblt, [(1, 190), (10, 1_000), (100, 4_600), (1_000, 39_000)]),
    ] {
        for (differing, bytes) in most {
            for seed in 0..8 {
                differ(&mut a, &mut b, differing, seed);
                let cost = sketch(&mut a, &mut b, strategy, seed);
                assert!(cost.find_bytes <= bytes, "{strategy:?} {differing}: {cost:?}");
                assert!(cost.find_frames <= 12, "{strategy:?} {differing}: {cost:?}");
            }
        }
    }
}

#[test]
fn a_sketch_shows_more_than_a_session_has_room_for() {
    let few = || Limits { max_session_entries: 400, ..Limits::default() };
    let (mut a, mut b) = twins_with(20_000, [few(), few()]);
    let config = SyncConfig { strategy: Strategy::Sketch, ..SyncConfig::default() };
    // 1,200 leaves, of which both hold one for each key
    differ(&mut a, &mut b, 600, 3);
    let (mut descents, mut bytes, mut sessions) = (0, 0, 0);
    while a.root() != b.root() {
        let mut tamper = |_, lane, frame: &mut Vec<u8>| {
            let messages: Vec<Message> = match lane {
                Lane::Control => wire::decode_all(frame).unwrap(),
                Lane::Bulk => Vec::new(),
            };
            for message in &messages {
                use TurnMessage as Turn;
                match message {
                    Message::Turn(Turn::Opening(_) | Turn::States { .. }) => continue,
                    Message::Turn(Turn::Steer { .. }) => descents += 1,
                    Message::Turn(_) => {}
                    _ => continue,
                }
                bytes += wire::encode(message).unwrap().len();
            }
        };
        let around = Around { cut_after: None, before_step: &mut |_, _| {}, tamper: &mut tamper };
        let one = run_around(&mut b, &mut a, &config, sessions, around);
        for outcome in &one.outcomes {
            let ended = matches!(outcome, Outcome::Partial | Outcome::Complete { .. });
            assert!(ended, "{outcome:?}");
        }
        sessions += 1;
    }
    assert!((2..=4).contains(&sessions), "{sessions} sessions");
    assert_eq!(descents, 0);
    assert!(bytes < 1_200 * 17, "{bytes} bytes");
}

#[test]
fn symbols_that_are_kept_are_not_made_and_mean_the_same() {
    let mut made_bytes = [0; 3];
    for kept in [[0, 0], [512, 512], [512, 0], [0, 512], [128, 512]] {
        let limits = kept.map(|kept_symbols| Limits { kept_symbols, ..Limits::default() });
        let (mut a, mut b) = twins_with(4_200, limits);
        for node in [&a, &b] {
            while node.collection.warm_sketches().unwrap() == Warming::Goes {}
        }
        for (at_made, differing) in [1, 20, 300].into_iter().enumerate() {
            for at in 0..differing {
                put(if at % 2 == 0 { &mut a } else { &mut b }, &format!("key {}", at * 19));
            }
            let config = SyncConfig { strategy: Strategy::Iblt, ..SyncConfig::default() };
            let one = run(&mut b, &mut a, &config, differing);
            complete(&one);
            assert_eq!(a.root(), b.root(), "{kept:?} {differing}");
            if kept == [0, 0] {
                made_bytes[at_made] = one.memory_bytes;
            } else if kept == [512, 512] && differing == 1 {
                // a stream of all entries takes 84,000 bytes: more than what the session holds in
                // the end, of which most are copies of parts of the tree
                let most = made_bytes[at_made] - 15_000;
                assert!(
                    one.memory_bytes < most,
                    "{differing}: {} {made_bytes:?}",
                    one.memory_bytes
                );
            }
        }
    }
}

/// One that holds what another has seen deleted, and cannot name from its log of removals.
fn removals_beyond_the_log(removed: usize) -> (Node, Node) {
    let (mut a, mut b, mut c) = (Node::new(1), Node::new(2), Node::new(3));
    let value: Arc<[u8]> = vec![7; 32].into();
    let states = (0..2_000).map(|at| (key(at), Arc::clone(&value)));
    a.collection.import(states, a.now_ms).unwrap();
    let config = SyncConfig::default();
    complete(&run(&mut a, &mut b, &config, 1));
    complete(&run(&mut a, &mut c, &config, 2));
    for at in 0..removed {
        a.now_ms += 1;
        a.collection.delete(&key(at * 7), a.now_ms).unwrap();
    }
    complete(&run(&mut a, &mut c, &config, 3));
    // its log goes with the damage, and the first one tells it again what is dead
    c.collection.recover().unwrap();
    complete(&run(&mut c, &mut a, &config, 4));
    (b, c)
}

#[test]
fn each_profile_finds_the_same_in_its_own_way() {
    let mut costs = Vec::new();
    for (profile, way) in [
        (Profile::Bytes, "a sketch of"),
        (Profile::Latency, "coded symbols"),
        (Profile::Cpu, "descent"),
    ] {
        let (mut b, mut c) = removals_beyond_the_log(60);
        let config = SyncConfig { profile, ..SyncConfig::default() };
        let met = run(&mut b, &mut c, &config, 5);
        complete(&met);
        assert_eq!(b.root(), c.root());
        assert_eq!(b.collection.totals().unwrap().entries, 1_940);
        let chosen =
            met.stats.iter().flat_map(|stats| &stats.plan).any(|step| step.reason.contains(way));
        assert!(chosen, "{profile:?}: {:?}", met.stats[0].plan);
        let (sent, received) = met.stats[0].bytes();
        costs.push((sent + received, met.stats[0].turns));
    }
    let [bytes, latency, cpu] = costs[..] else { panic!("{costs:?}") };
    assert!(bytes.0 < latency.0 && bytes.0 < cpu.0, "{costs:?}");
    assert!(latency.1 <= bytes.1 && latency.1 < cpu.1, "{costs:?}");
}
