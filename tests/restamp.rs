//! What was written while a clock was ahead is put again, and taken by others at once.
#![cfg(feature = "session")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{Node, key, run};
use selfsame::hash::HashAlgorithm;
use selfsame::limits::Limits;
use selfsame::session::{Outcome, SyncConfig};

const HOUR_MS: u64 = 3_600_000;

fn all(node: &Node, any: bool) -> (u64, u64) {
    let (mut after, mut restamped, mut others) = (None, 0, 0);
    loop {
        let step = node.collection.restamp(any, after.as_ref(), node.now_ms).unwrap();
        restamped += step.restamped;
        others += step.others;
        match step.next {
            Some(next) => after = Some(next),
            None => return (restamped, others),
        }
    }
}

#[test]
fn a_peer_takes_at_once_what_was_put_again() {
    let (mut ahead, mut peer) = (Node::new(1), Node::new(2));
    ahead.collection.put(&key("fine"), b"fine".to_vec(), ahead.now_ms).unwrap();
    for at in 0..2_500 {
        ahead.collection.put(&key(at), vec![at as u8; 9], ahead.now_ms + HOUR_MS).unwrap();
    }
    let refused = run(&mut ahead, &mut peer, &SyncConfig::default(), 1);
    assert!(matches!(refused.outcomes[1], Outcome::Incomplete { .. }));
    assert_eq!(refused.stats[1].refused_drift, 2_500);
    assert_eq!(peer.visible().len(), 1);
    let before = ahead.visible();
    assert_eq!(all(&ahead, false), (2_500, 0));
    assert_eq!(ahead.visible(), before, "the same values");
    let taken = run(&mut ahead, &mut peer, &SyncConfig::default(), 1);
    assert!(matches!(taken.outcomes[0], Outcome::Complete { .. }), "{:?}", taken.outcomes);
    assert_eq!(peer.visible(), before);
    assert_eq!(all(&ahead, true), (0, 0));
    // and what is put from now on has stamps of now
    let put = ahead.collection.put(&key("next"), b"x".to_vec(), ahead.now_ms).unwrap();
    assert!(put.stamp.millis() <= ahead.now_ms);
    assert!(ahead.collection.check().unwrap().is_sound());
}

#[test]
fn versions_of_others_are_left_unless_they_are_asked_for_and_siblings_stay() {
    let tolerant = Limits { max_clock_drift_ms: 10 * HOUR_MS, ..Limits::default() };
    let mut node = Node::with(1, HashAlgorithm::Blake3, Limits::default());
    let mut other = Node::with(2, HashAlgorithm::Blake3, tolerant);
    let mine = node.collection.put(&key("k"), b"mine".to_vec(), node.now_ms).unwrap();
    other.collection.put(&key("k"), b"theirs".to_vec(), other.now_ms + HOUR_MS).unwrap();
    // taken while this node's clock was ahead as well
    node.now_ms += HOUR_MS;
    run(&mut node, &mut other, &SyncConfig::default(), 1);
    node.now_ms -= HOUR_MS;
    assert_eq!(node.dots(&key("k")).len(), 2);
    assert_eq!(all(&node, false), (0, 1));
    assert_eq!(all(&node, true), (1, 0));
    let entry = node.collection.get(&key("k")).unwrap().unwrap();
    assert_eq!(entry.record.siblings().len(), 2, "the version beside it stays");
    assert!(entry.record.holds(mine.dot));
    assert_eq!(node.visible()[&key("k")].len(), 2);
    assert!(entry.record.siblings().iter().all(|s| s.stamp.millis() <= node.now_ms));
    let settled = run(&mut node, &mut other, &SyncConfig::default(), 1);
    assert!(matches!(settled.outcomes[0], Outcome::Complete { .. }), "{:?}", settled.outcomes);
    assert_eq!(other.visible(), node.visible());
}
