//! Histories of two copies of one node, which write with one writer, and a peer that meets both.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt, SeedableRng};
use selfsame::dots::Writer;
use selfsame::replica::{Replica, ReplicaOptions};
use selfsame::session::{Mode, Outcome, Strategy, SyncConfig};
use selfsame::store::MemoryStore;
use selfsame::types::Key;

use super::common::{Node, Run, key, run};

/// Numbers that the opening of a collection draws: its writer, and the id of its log.
const DRAWN: usize = 2;

/// A copy that draws what the others draw up to the copy, and numbers of its own after it.
fn copy(seed: u64, own: u64) -> Node {
    let of_all = Node::new(seed);
    let mut numbers = [seed, own].map(|seed| SmallRng::seed_from_u64(!seed));
    let mut drawn = 0;
    let random = Box::new(move || {
        drawn += 1;
        numbers[usize::from(drawn > DRAWN)].random()
    });
    let options = ReplicaOptions::default();
    let replica = Replica::open(MemoryStore::default(), options, random).unwrap();
    let collection = replica.create_collection(of_all.collection.spec().clone()).unwrap();
    Node { replica, collection, ..of_all }
}

/// Two copies of one node, with one identity and one memory, at the same moment.
pub fn copies(seed: u64, shared: usize) -> [Node; 2] {
    let copies = [copy(seed, 1 << 40), copy(seed, 1 << 41)];
    for node in &copies {
        for at in 0..shared {
            let (key, value) = (key(format!("shared {at}")), vec![at as u8; 10]);
            node.collection.put(&key, value, node.now_ms).unwrap();
        }
    }
    assert_eq!(present(&copies[0]), present(&copies[1]));
    copies
}

pub fn present(node: &Node) -> Option<Writer> {
    node.collection.present_writer().unwrap().map(|present| present.writer)
}

/// Values that were copied aside at a node.
pub fn aside(node: &Node) -> Vec<Vec<u8>> {
    let kept = node.collection.clones().unwrap();
    let aside = kept.iter().filter_map(|kept| {
        Some(node.collection.aside(kept.number?, None, usize::MAX).unwrap().into_iter())
    });
    aside.flatten().filter_map(|entry| entry.value).collect()
}

/// All values that can be read at a node: held, or copied aside.
pub fn readable(node: &Node) -> BTreeSet<Vec<u8>> {
    let held = node.visible().into_values().flatten();
    held.chain(aside(node)).collect()
}

/// What a history came to.
#[derive(Debug, Default)]
pub struct Lived {
    /// Sessions that found a clone.
    pub found: u64,
    pub sessions: u64,
}

/// One history. Every put has a key and a value of its own, and only the copy that put it deletes
/// it: so all else must be readable at any time, and nothing may vanish from a copy before it was
/// found that there are two, and copied aside.
pub fn live(seed: u64) -> Result<Lived, String> {
    let mut dice = SmallRng::seed_from_u64(seed);
    let [one, other] = copies(1_000 + seed, dice.random_range(1..4));
    let mut nodes = [one, other, Node::new(5_000 + seed)];
    // by node: keys that it put and has not deleted, with their values
    let mut own: [BTreeMap<Key, Vec<u8>>; 3] = Default::default();
    let mut lived = Lived::default();
    for step in 0..dice.random_range(10..60) {
        let at = dice.random_range(0..3);
        match dice.random_range(0..5) {
            0 | 1 => {
                let (key, value) = (key(format!("{at} {step}")), format!("value {at} {step}"));
                let node = &mut nodes[at];
                node.now_ms += 1;
                node.collection.put(&key, value.clone().into_bytes(), node.now_ms).unwrap();
                own[at].insert(key, value.into_bytes());
            }
            2 => {
                let keys: Vec<Key> = own[at].keys().cloned().collect();
                let Some(key) = keys.choose(&mut dice) else { continue };
                nodes[at].now_ms += 1;
                nodes[at].collection.delete(key, nodes[at].now_ms).unwrap();
                own[at].remove(key);
            }
            _ => {
                let copy = dice.random_range(0..2);
                lived.found += u64::from(meet(&mut nodes, copy, &own, &mut dice)?);
                lived.sessions += 1;
            }
        }
        let values =
            own.iter().enumerate().flat_map(|(at, own)| own.values().map(move |one| (at, one)));
        for (at, value) in values {
            if !nodes.iter().any(|node| readable(node).contains(value)) {
                let value = String::from_utf8_lossy(value);
                return Err(format!("step {step}: {value:?} of {at} can be read nowhere"));
            }
        }
    }
    Ok(lived)
}

/// A copy meets the peer; whether a clone was found.
fn meet(
    nodes: &mut [Node; 3],
    copy: usize,
    own: &[BTreeMap<Key, Vec<u8>>; 3],
    dice: &mut SmallRng,
) -> Result<bool, String> {
    let strategy = *Strategy::ALL.choose(dice).unwrap();
    let mode = *[Mode::Both, Mode::Both, Mode::Both, Mode::Pull].choose(dice).unwrap();
    let config = SyncConfig { mode, strategy, ..SyncConfig::default() };
    let [one, other, peer] = nodes;
    let copy_node = if copy == 0 { one } else { other };
    let held = copy_node.visible();
    let (seed, from_peer) = (dice.random(), dice.random_bool(0.5));
    let run = if from_peer && mode == Mode::Both {
        run(peer, copy_node, &config, seed)
    } else {
        run(copy_node, peer, &config, seed)
    };
    let after = copy_node.visible();
    let mut lost =
        own[copy].keys().filter(|key| held.contains_key(key) && !after.contains_key(key));
    let aside = [aside(copy_node), aside(peer)].concat();
    if let Some(key) = lost.find(|key| !aside.contains(&own[copy][*key])) {
        return Err(format!("{key} of copy {copy} vanished before a clone was found"));
    }
    Ok(is_clone(&run))
}

pub fn is_clone(run: &Run) -> bool {
    use selfsame::session::{AbortCode, Failure};
    run.outcomes.iter().any(|outcome| {
        matches!(
            outcome,
            Outcome::Failed(
                Failure::Ours(AbortCode::Clone | AbortCode::Copied)
                    | Failure::Peer(AbortCode::Clone | AbortCode::Copied)
            )
        )
    })
}
