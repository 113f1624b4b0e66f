//! Forests: bytes, rounds and time to find which of many collections differ.
//!
//! `cargo bench --bench forest`. Bytes are those of the frames, with four of length each, both ways;
//! collections have names of ten bytes. Beside it a list of all of them, as it travels when the
//! ends know different things of each other.

use std::time::Instant;

use selfsame::hash::{ForestRoot, HashAlgorithm, StateHash};
use selfsame::node::forest::WireState;
use selfsame::node::forest::ranges::{Ground, Ranges, Walk};
use selfsame::node::query::{Answer, Query, WireForest};
use selfsame::session::message::{Bytes, WirePolicy, WireSpec};
use selfsame::session::wire;

/// Bytes of the length of a frame.
const HEADER: usize = 4;

fn state(number: usize, version: u8) -> StateHash {
    StateHash(blake3::hash(&[&number.to_le_bytes()[..], &[version]].concat()).into())
}

fn frame(message: &impl serde::Serialize) -> usize {
    wire::encode(message).expect("it fits a frame").len() + HEADER
}

fn main() {
    println!("| N | k | bytes | rounds | CPU of the ranges, both ends | a list |");
    println!("|---|---|---|---|---|---|");
    for count in [16, 100, 1_000, 10_000] {
        for unequal in [0, 1, 10, 100].into_iter().filter(|some| *some < count).chain([count]) {
            row(count, unequal);
        }
    }
}

fn row(count: usize, unequal: usize) {
    let ours: Vec<StateHash> = (0..count).map(|number| state(number, 0)).collect();
    let mut theirs = ours.clone();
    // as hashes of names would have them: anywhere
    let mut places: Vec<usize> = (0..count).collect();
    places.sort_unstable_by_key(|number| state(*number, 9));
    places[..unequal].iter().for_each(|at| theirs[*at] = state(*at, 1));

    let begun = Instant::now();
    let root = ForestRoot([7; 32]);
    let mut bytes = frame(&Query::Forest { root, offers: None });
    let mut rounds = 1;
    if unequal == 0 {
        bytes += frame(&Answer::Same);
    } else {
        let (mut ground, mut walk) = (Ground::new(theirs.clone()), Walk::new(&ours));
        let top = ground.answer(&Ranges { level: 0, numbers: vec![0] }).expect("there is one");
        walk.answer(&top).expect("it is as long as it should be");
        let collections = u32::try_from(count).expect("few");
        bytes +=
            frame(&Answer::Forest(WireForest { root, collections, offers: None, top: Bytes(top) }));
        while let Some(asked) = walk.question() {
            let told = ground.answer(&asked).expect("there are these ranges");
            walk.answer(&told).expect("it is as long as it should be");
            bytes += frame(&Query::Ranges(asked)) + frame(&Answer::Ranges(Bytes(told)));
            rounds += 1;
        }
        assert_eq!(walk.into_unequal().len(), unequal);
    }
    let took = begun.elapsed();
    let spec = |number: usize| WireSpec {
        name: format!("name{number:06}"),
        algorithm: HashAlgorithm::Blake3,
        policy: WirePolicy::Lww,
    };
    let states: Vec<WireState> =
        (0..count).map(|at| WireState { spec: spec(at), state: theirs[at] }).collect();
    let list: usize = states
        .chunks(2_048)
        .map(|some| frame(&Answer::States { states: some.to_vec(), more: true }))
        .sum();
    println!("| {count} | {unequal} | {bytes} | {rounds} | {took:.1?} | {list} |");
}
