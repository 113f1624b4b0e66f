#![allow(clippy::unwrap_used, clippy::panic)]
use super::super::forest::Unequal;
use super::*;
use proptest::prelude::*;

const A: NodeId = NodeId([1; 32]);
const B: NodeId = NodeId([2; 32]);

fn name(text: &str) -> CollectionName {
    CollectionName::new(text).unwrap()
}

fn state(byte: u8) -> StateHash {
    StateHash([byte; 32])
}

fn settings() -> ScheduleSettings {
    ScheduleSettings { interval_ms: 10_000, ..ScheduleSettings::default() }
}

/// Lets time pass until something is to be done, and says when that is.
fn next(schedule: &mut Schedule) -> (u64, Vec<Action>) {
    let at = schedule.next_wake().expect("something is to be done");
    let actions = schedule.poll(at);
    assert!(!actions.is_empty(), "woken at {at} for nothing");
    (at, actions)
}

fn same(names: &[&str]) -> Compared {
    let equal = names.iter().map(|text| (name(text), state(9))).collect();
    Compared { equal, unequal: Vec::new() }
}

fn unequal(text: &str, ours: u8, theirs: u8) -> Compared {
    let one = Unequal { name: name(text), ours: state(ours), theirs: state(theirs) };
    Compared { equal: Vec::new(), unequal: vec![one] }
}

fn note(peer: NodeId, ended: Ended) -> SessionNote {
    let outcome = format!("{ended:?}");
    let cause = (ended == Ended::Failed).then(|| "it broke".to_owned());
    SessionNote {
        peer,
        collection: name("c"),
        asked_for: true,
        ended,
        braked: None,
        outcome,
        cause,
    }
}

/// A schedule with one peer that is connected and equal at some time.
fn connected() -> (Schedule, u64) {
    let mut schedule = Schedule::new(settings(), 1);
    schedule.set_peers(0, &[(A, true)]);
    let (at, actions) = next(&mut schedule);
    assert_eq!(actions, [Action::Dial(A)]);
    schedule.dialled(at, A, None);
    schedule.connected(at, A);
    let (at, actions) = next(&mut schedule);
    assert_eq!(actions, [Action::Compare(A)]);
    schedule.compared(at, A, &same(&["c"]));
    (schedule, at)
}

#[test]
fn equal_collections_cost_one_question_a_round_and_no_session() {
    let (mut schedule, mut last) = connected();
    for _ in 0..100 {
        let (at, actions) = next(&mut schedule);
        assert_eq!(actions, [Action::Compare(A)]);
        assert!((8_000..=12_000).contains(&(at - last)), "{}", at - last);
        schedule.compared(at, A, &same(&["c"]));
        last = at;
    }
    let equal: Vec<_> = schedule.pairs().map(|(_, _, pair, _)| pair.equal).collect();
    assert!(matches!(equal[..], [Some((since, _))] if since < 1_000), "{equal:?}");
}

#[test]
fn a_peer_that_asks_first_is_not_asked_before_the_next_round() {
    let (mut schedule, at) = connected();
    let asked = at + 7_900;
    schedule.found_same(asked, A, &[(name("c"), state(9))]);
    assert!(schedule.next_wake().unwrap() >= asked + 8_000);
}

#[test]
fn what_is_unequal_gets_a_session_and_is_equal_then() {
    let (mut schedule, _) = connected();
    let (at, _) = next(&mut schedule);
    schedule.compared(at, A, &unequal("c", 1, 2));
    assert_eq!(schedule.pairs().next().unwrap().2.equal, None);
    assert_eq!(schedule.poll(at), [Action::Session(A, name("c"))]);
    assert_eq!(schedule.poll(at + 1), [], "one at a time");
    schedule.ended(at + 5, note(A, Ended::Equal(Some(state(3)))));
    assert_eq!(schedule.pairs().next().unwrap().2.equal, Some((at + 5, Some(state(3)))));
    assert!(matches!(next(&mut schedule).1[..], [Action::Compare(_)]));
}

#[test]
fn a_burst_of_writes_brings_one_session_soon() {
    let (mut schedule, at) = connected();
    for more in 0..10 {
        schedule.changed(at + 100 * more, &name("c"), state(20 + more as u8));
        assert_eq!(schedule.poll(at + 100 * more), []);
    }
    let (fired, actions) = next(&mut schedule);
    assert_eq!(actions, [Action::Session(A, name("c"))]);
    assert_eq!(fired, at + 900 + 500, "once they rest");
    schedule.ended(fired + 50, note(A, Ended::Equal(Some(state(29)))));
    // the session's own join is a change, too, and brings nothing
    schedule.changed(fired + 60, &name("c"), state(29));
    let _ = schedule.poll(fired + 60 + 500);
    assert!(schedule.next_wake().unwrap() > at + 7_000, "only the next round is left");
}

#[test]
fn writes_that_never_rest_bring_a_session_all_the_same() {
    let (mut schedule, at) = connected();
    let mut sessions = 0;
    for more in 0..200 {
        let now = at + 20 * more;
        schedule.changed(now, &name("c"), state((more % 200) as u8));
        for action in schedule.poll(now) {
            if matches!(action, Action::Session(..)) {
                sessions += 1;
                schedule.ended(now + 1, note(A, Ended::Equal(None)));
            }
        }
    }
    assert_eq!(sessions, 1, "in four seconds of writes");
}

#[test]
fn writes_during_a_session_bring_another_one() {
    let (mut schedule, at) = connected();
    schedule.changed(at, &name("c"), state(1));
    let (at, actions) = next(&mut schedule);
    assert_eq!(actions, [Action::Session(A, name("c"))]);
    schedule.changed(at + 1, &name("c"), state(2));
    assert_eq!(schedule.poll(at + 600), [], "not beside the one that runs");
    schedule.ended(at + 700, note(A, Ended::Equal(None)));
    assert_eq!(schedule.poll(at + 700), [Action::Session(A, name("c"))]);
}

#[test]
fn failures_wait_longer_and_longer_up_to_a_cap() {
    let mut schedule = Schedule::new(settings(), 3);
    schedule.set_peers(0, &[(A, true)]);
    let (mut at, _) = next(&mut schedule);
    let mut waits = Vec::new();
    for _ in 0..12 {
        schedule.dialled(at, A, Some("nobody is there".to_owned()));
        let (later, actions) = next(&mut schedule);
        assert_eq!(actions, [Action::Dial(A)]);
        waits.push(later - at);
        at = later;
    }
    for (failures, wait) in waits.iter().enumerate() {
        let expected = (1_000u64 << failures).min(300_000);
        assert!((expected * 4 / 5..=expected * 6 / 5).contains(wait), "{failures}: {wait}");
    }
    schedule.connected(at, A);
    assert_eq!(schedule.peers().next().unwrap().1.error, None);
}

#[test]
fn a_failed_session_waits_and_writes_do_not_bring_it_forward() {
    let (mut schedule, at) = connected();
    schedule.changed(at, &name("c"), state(1));
    let (at, _) = next(&mut schedule);
    schedule.ended(at, note(A, Ended::Failed));
    assert_eq!(schedule.pairs().next().unwrap().2.failure.as_deref(), Some("it broke"));
    schedule.changed(at + 1, &name("c"), state(2));
    assert_eq!(schedule.poll(at + 501), []);
    let (later, actions) = next(&mut schedule);
    assert_eq!(actions, [Action::Session(A, name("c"))]);
    assert!((800..=1_200).contains(&(later - at)), "{}", later - at);
}

#[test]
fn a_busy_peer_is_tried_when_it_says() {
    let (mut schedule, at) = connected();
    schedule.changed(at, &name("c"), state(1));
    let (at, _) = next(&mut schedule);
    schedule.ended(at, note(A, Ended::Busy(3_000)));
    let (later, actions) = next(&mut schedule);
    assert_eq!(actions, [Action::Session(A, name("c"))]);
    assert!((3_000..=3_600).contains(&(later - at)), "{}", later - at);
    schedule.ended(later, note(A, Ended::NotNeeded));
    assert!(matches!(next(&mut schedule).1[..], [Action::Compare(_)]));
}

#[test]
fn what_grants_keep_apart_is_left_alone_until_it_changes() {
    let (mut schedule, _) = connected();
    let (at, _) = next(&mut schedule);
    schedule.compared(at, A, &unequal("c", 1, 2));
    assert_eq!(schedule.poll(at).len(), 1);
    schedule.ended(at + 1, note(A, Ended::AsFarAsMay { changed: 0 }));
    let (at, actions) = next(&mut schedule);
    assert_eq!(actions, [Action::Compare(A)]);
    schedule.compared(at, A, &unequal("c", 1, 2));
    assert_eq!(schedule.poll(at), []);
    let (at, _) = next(&mut schedule);
    schedule.compared(at, A, &unequal("c", 1, 3));
    assert_eq!(schedule.poll(at), [Action::Session(A, name("c"))]);
}

#[test]
fn the_stalest_goes_first_and_no_more_than_may() {
    let limits = ScheduleSettings { max_sessions: 1, ..settings() };
    let mut schedule = Schedule::new(limits, 1);
    schedule.set_peers(0, &[(A, true), (B, true)]);
    for peer in [A, B] {
        schedule.connected(0, peer);
    }
    assert_eq!(schedule.poll(300).len(), 2);
    schedule.compared(300, A, &same(&["c"]));
    schedule.compared(300, B, &unequal("c", 1, 2));
    schedule.changed(300, &name("c"), state(3));
    assert_eq!(schedule.poll(900), [Action::Session(B, name("c"))], "never equal goes first");
    assert_eq!(schedule.poll(901), []);
    schedule.ended(950, note(B, Ended::Equal(None)));
    assert_eq!(schedule.poll(950), [Action::Session(A, name("c"))]);
}

#[test]
fn peers_come_and_go_with_the_book() {
    let (mut schedule, at) = connected();
    schedule.set_peers(at, &[(B, true)]);
    schedule.disconnected(at + 1, A);
    assert_eq!(schedule.peers().map(|(id, _)| *id).collect::<Vec<_>>(), [B]);
    assert_eq!(schedule.pairs().count(), 0);
    assert_eq!(next(&mut schedule).1, [Action::Dial(B)]);
    // one without an address is waited for
    schedule.set_peers(at + 500, &[(A, false)]);
    schedule.dialled(at + 500, B, Some(String::new()));
    assert_eq!(schedule.next_wake(), None);
    schedule.connected(at + 600, A);
    assert_eq!(next(&mut schedule).1, [Action::Compare(A)]);
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Change(u8),
    Drop(u8),
    Connect(u8),
    Answer(u8, u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..30_000u64).prop_map(Step::Wait),
        any::<u8>().prop_map(Step::Change),
        (1..4u8).prop_map(Step::Drop),
        (1..4u8).prop_map(Step::Connect),
        (any::<u8>(), any::<u8>()).prop_map(|(which, how)| Step::Answer(which, how)),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    /// Whatever happens in whatever order: never more sessions than may be, one of a pair at a
    /// time, no action twice at once, and a peer that can be turned to is always due, dialled,
    /// asked, or waiting for its time.
    #[test]
    fn it_never_overdoes_and_never_stalls(steps in steps(), seed in any::<u64>()) {
        let settings = ScheduleSettings { max_sessions: 2, ..settings() };
        let mut schedule = Schedule::new(settings, seed);
        let ids = [1, 2, 3].map(|byte| NodeId([byte; 32]));
        schedule.set_peers(0, &ids.map(|id| (id, true)));
        let (mut now, mut open) = (0, Vec::<Action>::new());
        for step in steps {
            match step {
                Step::Wait(more) => now += more,
                Step::Change(to) => schedule.changed(now, &name("c"), state(to)),
                Step::Drop(peer) => schedule.disconnected(now, NodeId([peer; 32])),
                Step::Connect(peer) => schedule.connected(now, NodeId([peer; 32])),
                Step::Answer(which, how) if !open.is_empty() => {
                    let action = open.swap_remove(usize::from(which) % open.len());
                    answer(&mut schedule, now, action, how);
                }
                Step::Answer(..) => {}
            }
            for action in schedule.poll(now) {
                prop_assert!(!open.contains(&action), "{action:?} twice");
                open.push(action);
            }
            let sessions = open.iter().filter(|one| matches!(one, Action::Session(..))).count();
            prop_assert!(sessions <= 2);
        }
        for action in open {
            answer(&mut schedule, now, action, 0);
        }
        for (id, peer) in schedule.peers() {
            prop_assert!(peer.due.is_some(), "{id} is forgotten");
        }
        prop_assert!(schedule.next_wake().is_some());
    }
}

fn answer(schedule: &mut Schedule, now: u64, action: Action, how: u8) {
    match action {
        Action::Dial(peer) if how.is_multiple_of(2) => {
            schedule.dialled(now, peer, None);
            schedule.connected(now, peer);
        }
        Action::Dial(peer) => schedule.dialled(now, peer, Some("no".to_owned())),
        Action::Compare(peer) if how.is_multiple_of(3) => {
            schedule.compared(now, peer, &same(&["c"]))
        }
        Action::Compare(peer) if how % 3 == 1 => {
            schedule.compared(now, peer, &unequal("c", how, how / 2));
        }
        Action::Compare(peer) => schedule.compare_failed(now, peer, "no".to_owned()),
        Action::Session(peer, _) => {
            let ended = match how % 6 {
                0 => Ended::Equal(Some(state(how))),
                1 => Ended::AsFarAsMay { changed: u64::from(how / 128) },
                2 => Ended::Partial,
                3 => Ended::NotNeeded,
                4 => Ended::Busy(u64::from(how) * 10),
                _ => Ended::Failed,
            };
            schedule.ended(now, note(peer, ended));
        }
    }
}
