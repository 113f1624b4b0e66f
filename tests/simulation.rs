//! Histories of nodes that crash, forget, are restored, part and meet, each from one seed: after
//! every step each node is what a replica that never forgets says, and in the end all are the same.
#![cfg(feature = "session")]

#[path = "simulation/harness.rs"]
mod harness;

use harness::history::{live, live_all};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// `SELFSAME_SEEDS` histories, from the one of `SELFSAME_SEED` on.
#[test]
fn every_history_ends_with_all_nodes_the_same_and_nothing_lost_or_brought_back() {
    let (first, count) = (number("SELFSAME_SEED").unwrap_or(0), number("SELFSAME_SEEDS"));
    let (begun, outcomes, fault) = live_all(first, count.unwrap_or(2_000), None);
    if let Some(fault) = fault {
        panic!("history {}: {}", fault.seed, fault.report());
    }
    println!("{begun} histories; ends of sessions: {outcomes:?}");
}

#[test]
fn one_seed_is_one_history() {
    for seed in [3, 17, 40] {
        let twice = [live(seed, None, false), live(seed, None, false)];
        let hashes = twice.map(|told| told.map(|told| told.hash).map_err(|fault| fault.what));
        assert_eq!(hashes[0], hashes[1]);
    }
}

/// Prints what happened in the history of `SELFSAME_SEED`.
#[test]
fn replay() {
    let Some(seed) = number("SELFSAME_SEED") else { return };
    let (lines, fault) = match live(seed, None, true) {
        Ok(told) => (told.lines, None),
        Err(fault) => (fault.lines.clone(), Some(fault)),
    };
    for (at, line) in lines.iter().enumerate() {
        println!("{at:5} {line}");
    }
    if let Some(fault) = fault {
        panic!("{}", fault.what);
    }
}

/// All that goes wrong in so many histories, not only the first.
#[test]
#[ignore = "for whoever looks for faults"]
fn survey() {
    let (first, count) = (number("SELFSAME_SEED").unwrap_or(0), number("SELFSAME_SEEDS"));
    let mut kinds = std::collections::BTreeMap::<String, (u64, u64, String)>::new();
    for seed in first..first + count.unwrap_or(1_000) {
        if let Err(fault) = live(seed, None, false) {
            let kind: String = fault.what.chars().filter(|c| !c.is_ascii_digit()).take(60).collect();
            kinds.entry(kind).or_insert((0, seed, fault.what)).0 += 1;
        }
    }
    for (times, seed, what) in kinds.values() {
        println!("{times:6} of seed {seed}: {what}");
    }
}
