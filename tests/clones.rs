//! Two copies of one node that both write (a copied folder, a machine resumed from an image) are
//! found before anything is removed, and nothing is lost.
#![cfg(feature = "session")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;
#[path = "clones/history.rs"]
mod history;

use common::{Node, key, run};
use history::{copies, is_clone, live, present, readable};
use selfsame::limits::Limits;
use selfsame::replica::CloneSign;
use selfsame::session::{AbortCode, Failure, Mode, Outcome, SyncConfig};

const CLONE: Outcome = Outcome::Failed(Failure::Ours(AbortCode::Clone));
const COPIED: Outcome = Outcome::Failed(Failure::Ours(AbortCode::Copied));

fn put(node: &mut Node, name: &str) {
    node.now_ms += 1;
    node.collection.put(&key(name), name.as_bytes().to_vec(), node.now_ms).unwrap();
}

fn meet(one: &mut Node, other: &mut Node) -> common::Run {
    run(one, other, &SyncConfig::default(), 1)
}

#[test]
fn two_copies_that_both_write_are_found_before_anything_is_removed() {
    for from_peer in [false, true] {
        let [mut one, mut other] = copies(7, 2);
        let mut peer = Node::new(8);
        for name in ["one 1", "one 2", "one 3"] {
            put(&mut one, name);
        }
        one.collection.delete(&key("one 1"), one.now_ms).unwrap();
        assert!(matches!(meet(&mut one, &mut peer).outcomes[0], Outcome::Complete { .. }));
        // the peer has seen dead what stands for a put of the other copy
        put(&mut other, "other 1");
        let (writer, before) = (present(&other), other.visible());
        let at_peer = peer.visible();
        let found = match from_peer {
            true => meet(&mut peer, &mut other),
            false => meet(&mut other, &mut peer),
        };
        let ends = if from_peer { [COPIED, CLONE] } else { [CLONE, COPIED] };
        assert_eq!(found.outcomes, ends, "both have found it by themselves");
        assert_eq!((other.visible(), peer.visible()), (before, at_peer), "nothing moved");
        assert_eq!(present(&other), None, "the writer was let go");
        let [kept] = &other.collection.clones().unwrap()[..] else { panic!("one clone is kept") };
        assert!(kept.found.ours && kept.peer == peer.id());
        assert_eq!((kept.aside, kept.left_out, kept.not_before), (3, 0, 0));
        let [noted] = &peer.collection.clones().unwrap()[..] else { panic!("one clone is kept") };
        assert!(!noted.found.ours && noted.peer == other.id(), "it names the node");
        assert_eq!((noted.found.mark.writer, noted.aside), (writer.unwrap(), 4));
        // then it goes on, and what the rules remove can be read aside
        let healed = meet(&mut other, &mut peer);
        assert!(matches!(healed.outcomes[0], Outcome::Complete { .. }), "{:?}", healed.outcomes);
        put(&mut other, "other 2");
        assert_ne!(present(&other), writer, "with a fresh writer");
        assert!(!is_clone(&meet(&mut other, &mut peer)));
        let all = [readable(&other), readable(&peer)];
        for value in ["one 2", "one 3", "other 1", "other 2"] {
            assert!(all.iter().any(|all| all.contains(value.as_bytes())), "{value}");
        }
        assert!(other.collection.check().unwrap().is_sound());
    }
}

#[test]
fn a_resumed_image_is_found_although_it_has_written_nothing_since() {
    for writes in 0..3 {
        let [mut one, mut image] = copies(7, 2);
        let mut peer = Node::new(8);
        put(&mut one, "one 1");
        put(&mut one, "one 2");
        one.collection.delete(&key("shared 0"), one.now_ms).unwrap();
        assert!(matches!(meet(&mut one, &mut peer).outcomes[0], Outcome::Complete { .. }));
        for at in 0..writes {
            put(&mut image, &format!("image {at}"));
        }
        assert_eq!(meet(&mut image, &mut peer).outcomes, [CLONE, COPIED], "{writes} writes");
        assert_eq!(image.visible().len(), 2 + writes);
        assert_eq!(image.collection.clones().unwrap()[0].aside, 2 + writes as u64);
    }
}

#[test]
fn copies_that_draw_writers_of_their_own_are_found_when_one_comes_back() {
    let mut one = Node::new(7);
    let mut other = Node { key: Node::new(7).key, ..Node::new(9) };
    let mut peer = Node::new(8);
    put(&mut one, "one");
    put(&mut other, "other");
    assert!(!is_clone(&meet(&mut one, &mut peer)));
    assert!(!is_clone(&meet(&mut other, &mut peer)), "it may have been restored");
    put(&mut one, "one again");
    let found = meet(&mut one, &mut peer);
    let told = Outcome::Failed(Failure::Peer(AbortCode::Copied));
    assert_eq!(found.outcomes, [told, COPIED]);
    let kept = peer.collection.clones().unwrap();
    assert_eq!((kept.len(), kept[0].found.sign), (1, CloneSign::WentBack));
    // only the peer can see it, so its word must do
    let [told] = &one.collection.clones().unwrap()[..] else { panic!("it was told") };
    assert_eq!((told.found.sign, told.aside, present(&one)), (CloneSign::Told, 2, None));
    assert!(!is_clone(&meet(&mut one, &mut peer)));
    assert_eq!(peer.visible().len(), 3);
}

#[test]
fn a_copy_with_another_identity_is_found_when_the_two_meet() {
    let [mut one, other] = copies(7, 1);
    let mut other = Node { key: Node::new(8).key, ..other };
    put(&mut one, "one");
    put(&mut other, "other");
    assert_eq!(meet(&mut one, &mut other).outcomes, [CLONE, CLONE]);
    assert!([&one, &other].iter().all(|node| present(node).is_none()));
    assert!(!is_clone(&meet(&mut one, &mut other)));
}

#[test]
fn what_a_third_node_brought_of_a_copy_is_noticed() {
    let [mut one, mut other] = copies(7, 1);
    let (mut peer, mut third) = (Node::new(8), Node::new(9));
    for name in ["other 1", "other 2"] {
        put(&mut other, name);
    }
    meet(&mut other, &mut third);
    meet(&mut third, &mut peer);
    put(&mut one, "one 1");
    assert_eq!(
        meet(&mut one, &mut peer).outcomes[0],
        CLONE,
        "the peer has seen more than it wrote"
    );
    assert_eq!(one.collection.clones().unwrap()[0].found.sign, CloneSign::Context);
    assert!(readable(&one).contains(&b"one 1"[..]));
}

#[test]
fn a_comparison_looks_at_what_differs_with_a_clone() {
    let [mut one, mut other] = copies(7, 1);
    let mut peer = Node::new(8);
    put(&mut one, "one");
    meet(&mut one, &mut peer);
    put(&mut other, "other");
    let config = SyncConfig { mode: Mode::Compare, ..SyncConfig::default() };
    let compared = run(&mut other, &mut peer, &config, 1);
    assert!(matches!(compared.outcomes[0], Outcome::Compared { .. }), "{:?}", compared.outcomes);
    assert!(present(&other).is_some());
}

#[test]
fn what_is_copied_aside_is_bounded_and_says_what_is_not_there() {
    let limits = Limits { max_aside_entries: 10, max_aside_bytes: 3_000, ..Limits::default() };
    let node = Node::with(7, Default::default(), limits);
    for at in 0..40 {
        node.collection.put(&key(at), vec![at; 1_000], node.now_ms).unwrap();
    }
    let present = node.collection.present_writer().unwrap().unwrap();
    let found =
        selfsame::replica::CloneFound { ours: true, sign: CloneSign::Echo, mark: present.into() };
    let kept = node.collection.note_clone(&Node::new(8).id(), found, 5).unwrap().unwrap();
    assert_eq!((kept.aside, kept.aside_bytes, kept.not_before), (10, 3_000, 30));
    let number = kept.number.unwrap();
    let first = node.collection.aside(number, None, 4).unwrap();
    let rest = node.collection.aside(number, Some(first[3].sibling.dot), 100).unwrap();
    assert_eq!((first.len(), rest.len()), (4, 6));
    // those without room are read where they still are
    assert!(first.iter().chain(&rest).all(|entry| entry.value.is_some()));
    node.collection.delete(&key(39), node.now_ms).unwrap();
    assert!(node.collection.forget_clone(number).unwrap());
    assert!(!node.collection.forget_clone(number).unwrap());
    assert_eq!(node.collection.aside(number, None, 100).unwrap(), []);
    assert_eq!(node.collection.clones().unwrap(), []);
    // once is enough: the writer is gone
    assert_eq!(node.collection.note_clone(&Node::new(8).id(), found, 5).unwrap(), None);
}

#[test]
fn in_any_history_of_two_copies_nothing_is_lost() {
    let count = std::env::var("SELFSAME_SEEDS").ok().and_then(|count| count.parse().ok());
    let (mut found, mut sessions) = (0, 0);
    for seed in 0..count.unwrap_or(150) {
        let lived = live(seed).unwrap_or_else(|what| panic!("history {seed}: {what}"));
        found += lived.found;
        sessions += lived.sessions;
    }
    println!("{found} of {sessions} sessions found a clone");
    assert!(found > 0);
}
