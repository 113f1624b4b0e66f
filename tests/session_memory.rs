//! What a session holds in memory stays below its ceiling, by its own account, and what does not
//! fit goes on in the next one.
#![cfg(feature = "session")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{Node, key, run};
use selfsame::hash::HashAlgorithm;
use selfsame::limits::Limits;
use selfsame::session::{Outcome, Strategy, SyncConfig};

const CEILING: u64 = 1 << 20;

fn limited(seed: u64) -> Node {
    let limits = Limits { max_session_memory_bytes: CEILING, ..Limits::default() };
    Node::with(seed, HashAlgorithm::Blake3, limits)
}

fn put(node: &mut Node, name: String, value: Vec<u8>) {
    node.now_ms += 1;
    node.collection.put(&key(name), value, node.now_ms).unwrap();
}

/// Sessions until both are the same; how many it took, and the most that one held.
fn reconcile(a: &mut Node, b: &mut Node, strategy: Strategy) -> (usize, u64) {
    let config = SyncConfig { strategy, ..SyncConfig::default() };
    let mut most = 0;
    for round in 1..200 {
        let done = run(a, b, &config, round as u64);
        most = most.max(done.memory_bytes);
        match &done.outcomes {
            [Outcome::Complete { .. }, Outcome::Complete { .. }] => {
                assert_eq!(a.root(), b.root());
                return (round, most);
            }
            [Outcome::Partial, Outcome::Partial] => {}
            others => panic!("{others:?}"),
        }
    }
    panic!("they never became the same");
}

#[test]
fn many_differences_take_many_sessions_that_each_stay_small() {
    for strategy in Strategy::ALL {
        let (mut a, mut b) = (limited(1), limited(2));
        for at in 0..3_000 {
            put(&mut a, format!("of a {at}"), vec![at as u8; 400]);
            put(&mut b, format!("of b {at}"), vec![at as u8; 40]);
        }
        let (rounds, most) = reconcile(&mut a, &mut b, strategy);
        assert!(rounds > 2, "{strategy:?}: {rounds}");
        assert!(most <= CEILING, "{strategy:?}: {most}");
    }
}

#[test]
fn an_ordinary_session_counts_what_it_learns() {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    for at in 0..500 {
        put(&mut a, format!("of a {at}"), vec![1; 300]);
    }
    let (rounds, most) = reconcile(&mut a, &mut b, Strategy::Auto);
    assert_eq!(rounds, 1);
    // half a thousand keys with their values, and no more than a few times that
    assert!((200_000..4_000_000).contains(&most), "{most}");
}
