//! Whoever is at a state that the other was at before is strictly behind: it is recognised by the
//! tag of its state, and told at once what changed since.
#![cfg(feature = "session")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{Node, Oracle, Run, key, reopened, run};
use selfsame::replica::Snapshot;
use selfsame::session::message::{
    Following, FreeMessage, HelloReply, Message, TreeSaid, TreeTag, TurnEnd, TurnMessage, Wants,
};
use selfsame::session::{
    AbortCode, Failure, Lane, Mode, Outcome, Phase, Session, Strategy, SyncConfig, wire,
};
use selfsame::store::{Batch, Durability, MemoryStore, Read as _, Span, Store as _, Table};

fn complete(run: &Run) {
    for outcome in &run.outcomes {
        assert!(matches!(outcome, Outcome::Complete { .. }), "{:?}", run.outcomes);
    }
}

/// Two that were the same, and then one of them went on.
fn behind(changes: u32) -> (Node, Node, Oracle) {
    let (mut a, mut b, mut oracle) = (Node::new(1), Node::new(2), Oracle::default());
    for at in 0..1_000 {
        oracle.put(&mut a, &key(at), b"a state");
    }
    complete(&run(&mut a, &mut b, &SyncConfig::default(), 1));
    for at in 0..changes {
        oracle.put(&mut a, &key(2 * at), &[b'x'; 40]);
    }
    oracle.delete(&mut a, &key(1));
    oracle.put(&mut a, &key("great"), &[b'y'; 4_000]);
    (a, b, oracle)
}

/// Drops what is remembered of sessions: an aid.
fn forget_joins(node: &Node) {
    let store = node.replica.store();
    let mut batch = Batch::default();
    for row in store.scan(Span::of(Table::Joins, &[]), usize::MAX).unwrap() {
        batch.remove(Table::Joins, &row.key);
    }
    store.commit(batch, Durability::Always).unwrap();
}

/// Whether the responder recognised the initiator's state.
fn was_led(run: &Run) -> bool {
    let says = |end: usize, why| run.stats[end].plan.iter().any(|s| s.reason.contains(why));
    let led = [says(0, "at this state before"), says(1, "behind")];
    assert_eq!(led[0], led[1], "both know");
    led[0]
}

#[test]
fn whoever_is_at_a_former_state_of_the_other_is_led_at_once() {
    for changes in [0, 5, 600] {
        for mode in [Mode::Both, Mode::Pull] {
            let (mut a, mut b, oracle) = behind(changes);
            let config = SyncConfig { mode, ..SyncConfig::default() };
            let led = run(&mut b, &mut a, &config, 2);
            assert!(was_led(&led), "{:?}", led.stats[1].plan);
            assert!(matches!(led.outcomes[0], Outcome::Complete { .. } | Outcome::Pulled { .. }));
            assert_eq!(led.stats[0].turns, 2, "one turn each");
            assert!(!led.stats[0].phases.contains_key(&Phase::SketchExchange));
            oracle.check_converged(&[&a, &b]);
            // without what is remembered it takes a turn more
            let (a, mut b, oracle) = behind(changes);
            let mut a = reopened(a, 7);
            forget_joins(&a);
            let unled = run(&mut b, &mut a, &config, 2);
            assert!(!was_led(&unled) && unled.stats[0].turns > 2);
            oracle.check_converged(&[&a, &b]);
            // and the other way round: who is ahead opens, and nobody is led
            let (mut a, mut b, oracle) = behind(changes);
            let other = run(&mut a, &mut b, &SyncConfig::default(), 2);
            complete(&other);
            assert!(!was_led(&other));
            oracle.check_converged(&[&a, &b]);
        }
    }
}

#[test]
fn a_state_had_in_common_with_another_is_recognised_too() {
    let (mut a, mut b, mut oracle) = behind(5);
    let mut c = Node::new(3);
    let config = SyncConfig { mode: Mode::Pull, ..SyncConfig::default() };
    let first = run(&mut c, &mut b, &config, 3);
    assert!(matches!(first.outcomes[0], Outcome::Pulled { .. }));
    assert_eq!(c.collection.state_hash().unwrap(), b.collection.state_hash().unwrap());
    // it never met this one
    let led = run(&mut c, &mut a, &SyncConfig::default(), 4);
    complete(&led);
    assert!(was_led(&led));
    oracle.put(&mut b, &key("of b"), b"new");
    complete(&run(&mut b, &mut a, &SyncConfig::default(), 5));
    oracle.check_converged(&[&a, &b]);
}

#[test]
fn whoever_has_written_since_is_not_led() {
    let (mut a, mut b, mut oracle) = behind(5);
    oracle.put(&mut b, &key("of b"), b"new");
    let both = run(&mut b, &mut a, &SyncConfig::default(), 2);
    complete(&both);
    assert!(!was_led(&both));
    oracle.check_converged(&[&a, &b]);
    // nor after the context was lost: then nothing is known of what was seen
    oracle.put(&mut a, &key("later"), b"new");
    let mut nodes = [a, b];
    oracle.recover(0, &nodes);
    let [a, b] = &mut nodes;
    let recovered = run(b, a, &SyncConfig::default(), 3);
    complete(&recovered);
    assert!(!was_led(&recovered));
    oracle.check_converged(&[a, b]);
}

#[test]
fn a_state_in_common_is_remembered_over_an_opening() {
    let (a, mut b, oracle) = behind(5);
    let mut a = reopened(a, 7);
    let led = run(&mut b, &mut a, &SyncConfig::default(), 2);
    complete(&led);
    assert!(was_led(&led));
    oracle.check_converged(&[&a, &b]);
}

// what a peer may make of it

/// One end of a session that is driven by hand.
struct End {
    session: Session,
    view: Snapshot<MemoryStore>,
    now_ms: u64,
}

impl End {
    fn initiator(node: &Node, peer: &Node, config: SyncConfig) -> Self {
        let view = node.collection.snapshot().unwrap();
        let setup = node.setup(peer.id(), config, [1; 32]);
        let session = Session::initiate(setup, &view);
        Self { session, view, now_ms: node.now_ms }
    }

    fn responder(node: &Node, peer: &Node, hello: &[u8]) -> Self {
        let view = node.collection.snapshot().unwrap();
        let setup = node.setup(peer.id(), SyncConfig::default(), [1; 32]);
        let session = Session::respond(&Session::read_hello(hello).unwrap(), setup, &view);
        Self { session, view, now_ms: node.now_ms }
    }

    fn say(&mut self) -> Vec<u8> {
        self.session.poll_transmit(Lane::Control, &self.view).unwrap()
    }

    fn hear(&mut self, frame: &[u8]) {
        self.session.handle(Lane::Control, frame, &self.view, self.now_ms);
    }

    fn hear_message(&mut self, message: &Message) {
        self.hear(&wire::encode(message).unwrap());
    }

    #[track_caller]
    fn ended_by(&self, code: AbortCode) {
        assert_eq!(self.session.outcome(), Some(&Outcome::Failed(Failure::Ours(code))));
    }
}

#[test]
fn nothing_is_applied_before_the_leader_has_judged_the_marks() {
    let (a, b, _) = behind(5);
    let mut follower = End::initiator(&b, &a, SyncConfig::default());
    let mut leader = End::responder(&a, &b, &follower.say());
    follower.hear(&leader.say());
    assert!(follower.session.poll_apply(true).is_none(), "it has what rode along, and waits");
    leader.hear(&follower.say());
    // whoever leads has nothing to ask for, and is ready at once
    follower.hear(&leader.say());
    // five that were changed, and one that was deleted
    assert_eq!(follower.session.poll_apply(true).unwrap().len(), 6);
}

#[test]
fn whoever_is_led_says_its_marks_first_and_once() {
    let (a, b, _) = behind(5);
    let following = Following { writer: None, heard: None };
    let following = Message::Turn(TurnMessage::Following(following));
    let end = TurnEnd { tree: TreeSaid::Same, settled: true, partial: false };
    let wrong = [
        Message::TurnEnd(end),
        Message::Turn(TurnMessage::Nodes(Vec::new())),
        Message::Free(FreeMessage::Request(Wants::pack(Vec::new()))),
        Message::Free(FreeMessage::Joined { signature: None }),
        Message::HelloReply(HelloReply::Same),
    ];
    let hello = End::initiator(&b, &a, SyncConfig::default()).say();
    for message in wrong {
        let mut leader = End::responder(&a, &b, &hello);
        leader.hear_message(&message);
        leader.ended_by(AbortCode::Protocol);
    }
    let mut leader = End::responder(&a, &b, &hello);
    leader.hear_message(&following);
    assert_eq!(leader.session.outcome(), None);
    leader.hear_message(&following);
    leader.ended_by(AbortCode::Protocol);
    // who is not led has an opening
    let mut other = End::responder(&b, &a, &End::initiator(&a, &b, SyncConfig::default()).say());
    other.hear_message(&following);
    other.ended_by(AbortCode::Protocol);
}

#[test]
fn who_claims_to_be_ahead_must_have_the_state_that_it_stated_and_be_asked() {
    let (a, b, _) = behind(5);
    let both = SyncConfig::default();
    let mut leader = End::responder(&a, &b, &End::initiator(&b, &a, both.clone()).say());
    let reply = wire::decode_first::<Message>(&leader.say()).unwrap().0;
    let Message::HelloReply(HelloReply::Ahead { state, opening }) = reply.clone() else {
        panic!("{reply:?}")
    };
    let mut lied = opening.clone();
    lied.tree = TreeTag::of(&[1; 32], &selfsame::hash::TreeHash([8; 32]));
    let mut follower = End::initiator(&b, &a, both.clone());
    follower.say();
    follower.hear_message(&Message::HelloReply(HelloReply::Ahead { state, opening: lied }));
    follower.ended_by(AbortCode::Lie);
    for config in [
        SyncConfig { mode: Mode::Push, ..both.clone() },
        SyncConfig { mode: Mode::Compare, ..both.clone() },
        SyncConfig { strategy: Strategy::Merkle, ..both },
    ] {
        let mut follower = End::initiator(&b, &a, config);
        follower.say();
        follower.hear_message(&reply);
        follower.ended_by(AbortCode::Protocol);
    }
}

#[test]
fn a_copy_at_a_former_state_is_found_out_and_takes_nothing() {
    let (mut original, mut copy, mut a) = (Node::new(2), Node::new(2), Node::new(1));
    for node in [&mut original, &mut copy] {
        node.collection.put(&key(1), b"before".to_vec(), node.now_ms).unwrap();
    }
    let common = original.collection.state_hash().unwrap();
    complete(&run(&mut original, &mut a, &SyncConfig::default(), 1));
    assert_eq!(copy.collection.state_hash().unwrap(), common);
    assert_eq!(a.collection.state_hash().unwrap(), common);
    original.collection.put(&key(2), b"after".to_vec(), original.now_ms).unwrap();
    complete(&run(&mut original, &mut a, &SyncConfig::default(), 2));
    let found = run(&mut copy, &mut a, &SyncConfig::default(), 3);
    assert!(was_led(&found));
    assert_eq!(found.outcomes[0], Outcome::Failed(Failure::Ours(AbortCode::Clone)));
    assert_eq!(copy.collection.state_hash().unwrap(), common);
}
