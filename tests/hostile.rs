//! One scripted attacker per threat: a peer that speaks real frames to a real session, and lies.
#![cfg(feature = "session")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;

use common::{Around, Node, key, run, run_around};
use proptest::prelude::*;
use selfsame::clock::Stamp;
use selfsame::codec::bits::BitWriter;
use selfsame::delta::{Encoded, Encoding, IdMargin, Signature, SignatureKey};
use selfsame::dots::{Causality, Dot, DotRun, DotSet, Writer};
use selfsame::entry::{Record, Sibling, Totals};
use selfsame::hash::{HashAlgorithm, KeyHash, RecordDigest, TreeHash};
use selfsame::limits::Limits;
use selfsame::merkle::log::{HeadStatement, LogId, LogIdentity, LogKind};
use selfsame::merkle::{Leaf, MerkleLog, PagedTree, Prefix};
use selfsame::replica::{
    CloneSign, CollectionView, IncomingSibling, KeyUpdate, RefusalReason, ViewError, Warming,
    WriterMark,
};
use selfsame::session::message::{
    Bases, Bulk, Bytes, CollectionTag, Estimate, FreeMessage, Hello, HelloReply, KeyState, Level,
    Message, NodeHashes, Opening, OpeningPart, Ready, StateTag, TreeSaid, TreeTag, TurnEnd,
    TurnMessage, Unmatched, ValueItem, Want, Wants, WireCausality, WireDots, WireHead, WirePrefix,
    WriterList,
};
use selfsame::session::{
    AbortCode, Failure, Fault, Lane, LimitName, Mode, Outcome, Phase, Profile, Session, Strategy,
    SyncConfig, Tally, wire,
};
use selfsame::sketch::bloom::WireFilter;
use selfsame::sketch::buckets::{Decoder as SketchDecoder, Layout};
use selfsame::sketch::{
    BucketSketch, Estimator, IdWidth, Names, ShortId, Symbols, WireNames, WireRefill, WireSketch,
};
use selfsame::store::MemoryStore;
use selfsame::types::{Key, NodeId};

type View = selfsame::replica::Snapshot<MemoryStore>;

const MALLORY: u64 = 0xbad;

/// What the attacker says of itself.
#[derive(Clone)]
struct Claim {
    mode: Mode,
    tree: TreeHash,
    entries: u64,
    causality: Causality,
    above: Option<DotSet>,
    /// What it tells of its writer, and repeats of the victim's.
    marks: [Option<WriterMark>; 2],
}

impl Claim {
    fn empty(mode: Mode) -> Self {
        Self {
            mode,
            tree: HashAlgorithm::Blake3.empty(),
            entries: 0,
            causality: Causality::default(),
            above: Some(DotSet::default()),
            marks: [None; 2],
        }
    }

    /// Has seen so many puts of the victim's writer, and holds none of them.
    fn all_seen_and_nothing_held(puts: u64, writer: Writer) -> Self {
        let causality = Causality::new([(writer, puts)], DotSet::default(), &DotSet::default());
        Self { causality, ..Self::empty(Mode::Both) }
    }

    /// Has seen all that the victim has, and holds one entry of its own.
    fn all_seen(mode: Mode, victim: &Node) -> Self {
        Self {
            tree: TreeHash([7; 32]),
            entries: 1,
            causality: (*victim.collection.causality().unwrap()).clone(),
            ..Self::empty(mode)
        }
    }

    fn opening(&self) -> Opening {
        Opening {
            tree: tag_of(&self.tree),
            entries: self.entries,
            causality: WireCausality::new(&self.causality, None),
            above: self.above.as_ref().map(WireDots::from),
            writer: self.marks[0],
            heard: self.marks[1],
            parts: 0,
        }
    }

    fn state(&self, victim: &Node) -> StateTag {
        let spec = victim.collection.spec();
        let context = self.causality.hash(spec.algorithm).unwrap();
        StateTag::of(&SECRET, spec, &tag_of(&self.tree), &context)
    }
}

/// A victim in the middle of a session that the attacker opened.
struct Victim {
    node: Node,
    view: View,
    session: Session,
    said: Vec<Message>,
    sent_bytes: usize,
    values: Vec<Bulk>,
}

fn mallory() -> NodeId {
    Node::new(MALLORY).id()
}

impl Victim {
    fn greeted(node: Node, hello: &Hello) -> Self {
        let view = node.collection.snapshot().unwrap();
        let setup = node.setup(mallory(), SyncConfig::default(), SECRET);
        let session = Session::respond(hello, setup, &view);
        Self { node, view, session, said: Vec::new(), sent_bytes: 0, values: Vec::new() }
    }

    /// The attacker has said hello and sent its opening.
    fn open(node: Node, claim: &Claim) -> Self {
        let hello = hello(&node, claim);
        let mut victim = Self::greeted(node, &hello);
        victim.turn(TurnMessage::Opening(claim.opening()));
        victim
    }

    fn hear(&mut self, message: &Message) {
        let frame = wire::encode(message).unwrap();
        self.session.handle(Lane::Control, &frame, &self.view, self.node.now_ms);
    }

    fn turn(&mut self, message: TurnMessage) {
        self.hear(&Message::Turn(message));
    }

    fn free(&mut self, message: FreeMessage) {
        self.hear(&Message::Free(message));
    }

    fn bulk(&mut self, bulk: &Bulk) {
        let frame = wire::encode(bulk).unwrap();
        self.session.handle(Lane::Bulk, &frame, &self.view, self.node.now_ms);
    }

    fn end_turn(&mut self, tree: TreeHash, settled: bool) {
        self.hear(&Message::TurnEnd(TurnEnd {
            tree: TreeSaid::Now(tag_of(&tree)),
            settled,
            partial: false,
        }));
    }

    fn states(&mut self, told: Vec<Told>) {
        let mut list = WriterList::default();
        let mut held = Vec::new();
        for (key, siblings, mut value) in told {
            let siblings = siblings.iter().map(|one| list.tell(one, value.take())).collect();
            held.push(KeyState { key, siblings });
        }
        let (writers, absent, ask) = (list.into_writers(), Vec::new(), Vec::new());
        self.turn(TurnMessage::States { found_by: Phase::Announce, writers, held, absent, ask });
    }

    /// Everything that the victim does until it waits for the peer.
    fn work(&mut self) {
        loop {
            let mut moved = false;
            while let Some(updates) = self.session.poll_apply(true) {
                let applied =
                    self.node.collection.apply(updates, self.view.epoch(), self.node.now_ms);
                self.session.applied(&applied.unwrap(), &self.view);
                moved = true;
            }
            if let Some(request) = self.session.poll_join() {
                let joined = self.node.collection.join(&request, self.node.now_ms);
                let joined = joined.map(|_| ()).map_err(|e| ViewError::Store(e.to_string()));
                let key = &self.node.key;
                self.session.joined(joined, &|message| key.sign(message).to_bytes());
                moved = true;
            }
            if let Some(frame) = self.session.poll_transmit(Lane::Control, &self.view) {
                self.sent_bytes += frame.len();
                self.said.extend(wire::decode_all::<Message>(&frame).unwrap());
                moved = true;
            }
            if let Some(frame) = self.session.poll_transmit(Lane::Bulk, &self.view) {
                self.sent_bytes += frame.len();
                self.values.push(wire::decode(&frame).unwrap());
                moved = true;
            }
            if !moved {
                return;
            }
        }
    }

    fn outcome(&self) -> Option<&Outcome> {
        self.session.outcome()
    }

    #[track_caller]
    fn ended_by(&self, code: AbortCode) {
        assert_eq!(self.outcome(), Some(&Outcome::Failed(Failure::Ours(code))));
    }

    fn tree(&self) -> TreeHash {
        self.view.envelope().tree_hash()
    }

    fn wants(&self) -> Vec<Want> {
        let said = self.said.iter().filter_map(|message| match message {
            Message::Free(FreeMessage::Request(wants)) => Some(wants.clone().unpack().unwrap()),
            _ => None,
        });
        said.flatten().collect()
    }
}

/// The secret of every session here.
const SECRET: [u8; 32] = [9; 32];

fn ready(tree: TreeHash) -> Ready {
    Ready {
        tree,
        clock: Stamp::new(1_000_000, 0),
        refusals_sent: 0,
        refusals_received: 0,
        tally: Tally::default(),
    }
}

fn tag_of(tree: &TreeHash) -> TreeTag {
    TreeTag::of(&SECRET, tree)
}

fn hello(victim: &Node, claim: &Claim) -> Hello {
    Hello {
        collection: CollectionTag::of(victim.collection.spec()),
        mode: claim.mode,
        strategy: Strategy::Auto,
        profile: Profile::Auto,
        state: claim.state(victim),
        base: None,
        estimator: None,
    }
}

fn node_with(keys: usize, limits: Limits) -> Node {
    let node = Node::with(1, HashAlgorithm::Blake3, limits);
    for at in 0..keys {
        node.collection.put(&key(at), b"a state".to_vec(), node.now_ms).unwrap();
    }
    node
}

fn sibling(counter: u64, value: &[u8]) -> Sibling {
    Sibling {
        dot: Dot::new(MALLORY, counter).unwrap(),
        stamp: Stamp::new(1_000_000, 0),
        size: value.len() as u64,
        value_hash: HashAlgorithm::Blake3.value_hash(value),
    }
}

/// A key, its siblings, and the value that rides along with the first of them.
type Told = (Bytes, Vec<Sibling>, Option<Bytes>);

fn state(name: impl ToString, siblings: Vec<Sibling>) -> Told {
    (Bytes(name.to_string().into_bytes()), siblings, None)
}

fn every_dot_of(writer: Writer) -> WireDots {
    let mut dots = DotSet::default();
    dots.insert_run(DotRun::new(writer, 1, u64::MAX).unwrap());
    WireDots::from(&dots)
}

fn top(prefix: WirePrefix, present: u16, hashes: Vec<u8>) -> NodeHashes {
    NodeHashes { prefix, present, hashes: Bytes(hashes) }
}

fn all() -> WirePrefix {
    WirePrefix { bits: 0, bytes: Bytes(Vec::new()) }
}

// what must never be lost, whoever refuses what

#[test]
fn what_a_peer_holds_of_a_refused_key_is_not_taken_for_seen_and_dead() {
    for strategy in Strategy::ALL {
        let (mut a, mut b) = (Node::new(1), Node::new(2));
        b.collection.put(&key("both"), b"of b".to_vec(), b.now_ms).unwrap();
        a.now_ms += 10_000_000; // its clock is far ahead: b refuses what it writes
        a.collection.put(&key("both"), b"of a".to_vec(), a.now_ms).unwrap();
        let config = SyncConfig { strategy, ..SyncConfig::default() };
        let refused = run(&mut a, &mut b, &config, 1);
        assert!(matches!(refused.outcomes[0], Outcome::Incomplete { .. }), "{refused:?}");
        b.now_ms = a.now_ms;
        let again = run(&mut a, &mut b, &config, 2);
        assert!(matches!(again.outcomes[0], Outcome::Complete { .. }));
        for node in [&a, &b] {
            assert_eq!(node.dots(&key("both")).len(), 2, "{strategy:?}: no write is lost");
        }
    }
}

#[test]
fn a_key_left_out_loses_nothing_at_the_join() {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    a.collection.put(&key("first"), b"1".to_vec(), a.now_ms).unwrap();
    let held = a.collection.put(&key("second"), b"2".to_vec(), a.now_ms).unwrap();
    // b has seen the second put without the first, and overwrites it with a refused stamp
    let update = KeyUpdate {
        key: Some(key("second")),
        key_hash: a.collection.key_hash(&key("second")),
        add: vec![IncomingSibling { sibling: held, value: Some(b"2".to_vec().into()) }],
        remove: Vec::new(),
    };
    let epoch = b.collection.snapshot().unwrap().epoch();
    b.collection.apply(vec![update], epoch, b.now_ms).unwrap();
    b.now_ms += 10_000_000;
    b.collection.put(&key("second"), b"later".to_vec(), b.now_ms).unwrap();
    assert!(b.collection.causality().unwrap().exceptions().contains(held.dot));

    let refused = run(&mut a, &mut b, &SyncConfig::default(), 1);
    assert!(matches!(refused.outcomes[0], Outcome::Incomplete { .. }));
    assert_eq!(a.dots(&key("second")), [held.dot], "its key was left out, so it stays");
    assert!(a.collection.check().unwrap().is_sound());
    a.now_ms = b.now_ms;
    let again = run(&mut a, &mut b, &SyncConfig::default(), 2);
    assert!(matches!(again.outcomes[0], Outcome::Complete { .. }));
    assert_eq!(a.dots(&key("second")), b.dots(&key("second")));
    assert_ne!(a.dots(&key("second")), [held.dot]);
}

/// Two nodes that draw the same writer, as a machine and its copy do.
fn clones() -> [Node; 2] {
    let (original, mut copy) = (Node::new(1), Node::new(1));
    copy.key = Node::new(2).key;
    [original, copy]
}

/// The first session of two that write with one writer moves nothing, and both let go of it.
fn found_out(a: &mut Node, b: &mut Node, config: &SyncConfig) {
    let before = [a.visible(), b.visible()];
    let run = run(a, b, config, 9);
    let clone = Outcome::Failed(Failure::Ours(AbortCode::Clone));
    assert!(run.outcomes.contains(&clone), "{:?}", run.outcomes);
    assert_eq!([a.visible(), b.visible()], before);
}

#[test]
fn of_two_puts_under_one_dot_the_greater_stays_at_both_ends() {
    for (of_a, of_b) in [("one", "other"), ("same", "same"), ("other", "one")] {
        for strategy in Strategy::ALL {
            let [mut a, mut b] = clones();
            for node in [&mut a, &mut b] {
                // what was before the copy was made
                node.collection.put(&key("shared"), b"before".to_vec(), node.now_ms).unwrap();
            }
            let first = a.collection.put(&key(of_a), vec![1; 400], a.now_ms).unwrap();
            let second = b.collection.put(&key(of_b), vec![2; 400], b.now_ms).unwrap();
            assert_eq!(first.dot, second.dot);
            let config = SyncConfig { strategy, ..SyncConfig::default() };
            found_out(&mut a, &mut b, &config);
            let healed = run(&mut a, &mut b, &config, 1);
            for outcome in &healed.outcomes {
                assert!(matches!(outcome, Outcome::Complete { .. }), "{strategy:?}: {outcome:?}");
            }
            assert!(healed.stats.iter().any(|stats| stats.same_dot == 1));
            assert_eq!(a.root(), b.root());
            let rank = |node: &Node, at: &str, put: &Sibling| {
                (node.collection.key_hash(&key(at)), put.to_bytes())
            };
            let a_wins = rank(&a, of_a, &first) > rank(&b, of_b, &second);
            let (winner, loser) = if a_wins { (of_a, &b) } else { (of_b, &a) };
            for node in [&a, &b] {
                assert_eq!(node.dots(&key(winner)), [first.dot], "{strategy:?} {of_a} {of_b}");
                assert!(node.collection.check().unwrap().is_sound());
            }
            assert_eq!(loser.collection.evidence(10).unwrap().len(), 1, "the lesser is kept");
            let kept = loser.collection.history(&key(if a_wins { of_b } else { of_a }), 10);
            assert_eq!(kept.unwrap().len(), 1, "and its value can be read");
        }
    }
}

#[test]
fn of_two_puts_under_one_dot_none_is_lost_by_one_way_sessions() {
    for (of_a, of_b) in [("one", "other"), ("same", "same"), ("other", "one")] {
        for mode in [Mode::Pull, Mode::Push] {
            let [mut a, mut b] = clones();
            let first = a.collection.put(&key(of_a), b"of a".to_vec(), a.now_ms).unwrap();
            b.collection.put(&key(of_b), b"of b".to_vec(), b.now_ms).unwrap();
            let config = SyncConfig { mode, ..SyncConfig::default() };
            found_out(&mut a, &mut b, &SyncConfig::default());
            let one_way = run(&mut a, &mut b, &config, 1);
            for outcome in &one_way.outcomes {
                let done = matches!(outcome, Outcome::Pulled { .. } | Outcome::Pushed { .. });
                assert!(done, "{mode:?}: {outcome:?}");
            }
            let both = run(&mut a, &mut b, &SyncConfig::default(), 2);
            assert!(matches!(both.outcomes[0], Outcome::Complete { .. }), "{:?}", both.outcomes);
            assert_eq!(a.root(), b.root());
            let held = [of_a, of_b].map(|at| a.dots(&key(at)));
            assert!(held.contains(&vec![first.dot]), "{mode:?} {of_a} {of_b}: {held:?}");
        }
    }
}

#[test]
fn the_greater_of_two_puts_under_one_dot_that_is_refused_removes_nothing() {
    let [mut a, mut b] = clones();
    a.now_ms += 10_000_000;
    let (mut of_a, mut of_b) = ("one", "other");
    if a.collection.key_hash(&key(of_a)) < a.collection.key_hash(&key(of_b)) {
        (of_a, of_b) = (of_b, of_a);
    }
    let first = a.collection.put(&key(of_a), b"of a".to_vec(), a.now_ms).unwrap();
    let second = b.collection.put(&key(of_b), b"of b".to_vec(), b.now_ms).unwrap();
    found_out(&mut a, &mut b, &SyncConfig::default());
    let stopped = run(&mut a, &mut b, &SyncConfig::default(), 1);
    let clone = Outcome::Failed(Failure::Ours(AbortCode::Clone));
    assert!(stopped.outcomes.contains(&clone), "{:?}", stopped.outcomes);
    assert_eq!(a.dots(&key(of_a)), [first.dot]);
    assert_eq!(b.dots(&key(of_b)), [second.dot]);
}

#[test]
fn who_lies_about_writers_costs_a_few_fresh_ones_and_nothing_else() {
    let mut node = node_with(5, Limits::default());
    let mut fresh = 0;
    for round in 0..40u64 {
        node.now_ms += 1;
        node.collection.put(&key(format!("round {round}")), vec![1; 9], node.now_ms).unwrap();
        let present = node.collection.present_writer().unwrap().unwrap();
        let mut claim = Claim::empty(Mode::Both);
        let further = present.counter + 100;
        match round % 3 {
            0 => claim.marks[1] = Some(WriterMark { counter: further, ..present.into() }),
            1 => claim.marks[0] = Some(present.into()),
            _ => {
                let pairs = [(present.writer, further)];
                claim.causality = Causality::new(pairs, DotSet::default(), &DotSet::default());
            }
        }
        let mut victim = Victim::open(node, &claim);
        victim.ended_by(AbortCode::Clone);
        let found = victim.session.poll_clones();
        let expected = [CloneSign::Echo, CloneSign::Mark, CloneSign::Context];
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].ours, found[0].sign), (true, expected[round as usize % 3]));
        let noted = victim.node.collection.note_clone(&mallory(), found[0], victim.node.now_ms);
        fresh += usize::from(noted.unwrap().is_some());
        node = victim.node;
    }
    assert_eq!(fresh, 16, "one peer's word counts so often a day");
    assert_eq!(node.collection.causality().unwrap().writers(), 17);
    assert_eq!(node.collection.clones().unwrap().len(), 8, "and is kept so often");
    assert_eq!(node.visible().len(), 45, "nothing was removed");
    // a day later it is heard again
    node.now_ms += 24 * 3_600_000;
    let present = node.collection.present_writer().unwrap().unwrap();
    let mut claim = Claim::empty(Mode::Both);
    claim.marks[0] = Some(present.into());
    let mut victim = Victim::open(node, &claim);
    let found = victim.session.poll_clones()[0];
    let noted = victim.node.collection.note_clone(&mallory(), found, victim.node.now_ms);
    assert!(noted.unwrap().is_some_and(|kept| kept.number.is_none()));
}

#[test]
fn who_tells_marks_that_contradict_each_other_names_only_itself() {
    let mut node = node_with(5, Limits::default());
    let mark = |writer, counter| WriterMark {
        writer: Writer::new(writer).unwrap(),
        counter,
        puts: [1; 8],
    };
    let told =
        [(7, 5, false), (7, 5, false), (7, 4, true), (7, 6, true), (8, 1, false), (7, 9, true)];
    for (at, (writer, counter, contradicts)) in told.into_iter().enumerate() {
        let mut claim = Claim::empty(Mode::Both);
        claim.marks[0] = Some(mark(writer, counter));
        let mut victim = Victim::open(node, &claim);
        let found = victim.session.poll_clones();
        assert_eq!(found.len(), usize::from(contradicts), "{at}");
        assert!(found.iter().all(|found| !found.ours));
        let heard = victim.session.poll_heard().unwrap();
        let collection = &victim.node.collection;
        collection.hear_mark(&mallory(), heard.mark, heard.since.as_ref()).unwrap();
        for found in found {
            collection.note_clone(&mallory(), found, victim.node.now_ms).unwrap();
        }
        node = victim.node;
    }
    assert!(node.collection.present_writer().unwrap().is_some());
    assert_eq!(node.collection.clones().unwrap().len(), 3);
}

// mass deletion by a hostile context

#[test]
fn the_brake_is_not_passed_by_promising_values_that_never_come() {
    let victim = node_with(3_000, Limits::default());
    let mut claim = Claim::all_seen(Mode::Both, &victim);
    let promised = sibling(1, &[1; 5_000]);
    claim.causality.observe(promised.dot, |_| false);
    let mut victim = Victim::open(victim, &claim);
    let mut held = Vec::new();
    for at in 0..3_000 {
        let mut siblings = vec![sibling(at + 1, &[1; 5_000])];
        let own = victim.node.collection.get(&key(at)).unwrap().unwrap();
        siblings.extend(own.record.siblings());
        siblings.sort_by_key(|sibling| sibling.dot);
        held.push(state(at, siblings));
    }
    for chunk in held.chunks(500) {
        victim.states(chunk.to_vec());
    }
    let writer = victim.view.writers().unwrap()[0];
    let mut dots = DotSet::default();
    dots.insert_run(DotRun::new(writer, 1, 3_000).unwrap());
    victim.turn(TurnMessage::Removed(WireDots::from(&dots)));
    let mut refused = 0;
    loop {
        victim.work();
        let promised: Vec<u32> = victim.wants()[refused..].iter().map(|want| want.of).collect();
        if promised.is_empty() {
            break;
        }
        refused += promised.len();
        victim.free(FreeMessage::Unavailable(promised));
    }
    assert_eq!((refused, victim.outcome()), (3_000, None));
    assert_eq!(victim.node.collection.totals().unwrap().entries, 3_000);
}

#[test]
fn a_removal_must_be_in_the_context_that_its_sender_stated() {
    let mut victim = Victim::open(node_with(10, Limits::default()), &Claim::empty(Mode::Both));
    let writer = victim.view.writers().unwrap()[0];
    let dots: DotSet = Dot::of(writer, 3).into_iter().collect();
    victim.turn(TurnMessage::Removed(WireDots::from(&dots)));
    victim.ended_by(AbortCode::Protocol);
    victim.work();
    assert_eq!(victim.node.collection.totals().unwrap().entries, 10);
}

#[test]
fn a_hostile_context_stops_at_the_brake() {
    let node = node_with(2_000, Limits::default());
    let writer = node.collection.snapshot().unwrap().writers().unwrap()[0];
    // no more than was written: else it is found to lie before it can name anything
    let claim = Claim::all_seen_and_nothing_held(2_000, writer);
    let mut victim = Victim::open(node, &claim);
    victim.turn(TurnMessage::Removed(every_dot_of(writer)));
    let empty = HashAlgorithm::Blake3.empty();
    victim.end_turn(empty, true);
    victim.work();
    if victim.outcome().is_none() {
        victim.end_turn(empty, true);
        victim.work();
    }
    victim.ended_by(AbortCode::Brake(2_000));
    assert_eq!(victim.node.collection.totals().unwrap().entries, 2_000);
}

#[test]
fn removals_by_and_by_add_up_for_the_brake() {
    let node = node_with(4_000, Limits::default());
    let writer = node.collection.snapshot().unwrap().writers().unwrap()[0];
    let mut victim = Victim::open(node, &Claim::all_seen_and_nothing_held(4_000, writer));
    let empty = HashAlgorithm::Blake3.empty();
    let mut some = |from: u64| {
        let mut dots = DotSet::default();
        dots.insert_run(DotRun::new(writer, from, from + 799).unwrap());
        victim.turn(TurnMessage::Removed(WireDots::from(&dots)));
        victim.hear(&Message::TurnEnd(TurnEnd {
            tree: TreeSaid::Now(tag_of(&empty)),
            settled: true,
            partial: true,
        }));
        victim.work();
        (victim.outcome().cloned(), victim.node.collection.totals().unwrap().entries)
    };
    // what the brake lets through for once
    assert_eq!(some(1), (None, 3_200));
    let stopped = Outcome::Failed(Failure::Ours(AbortCode::Brake(1_600)));
    assert_eq!(some(801), (Some(stopped), 3_200));
}

// work and memory

#[test]
fn naming_everything_again_and_again_is_work_that_ends() {
    let limits = Limits { max_session_entries: 500, ..Limits::default() };
    let node = node_with(400, limits);
    let claim = Claim::all_seen(Mode::Both, &node);
    let mut victim = Victim::open(node, &claim);
    let removed = every_dot_of(victim.view.writers().unwrap()[0]);
    for _ in 0..1_000 {
        victim.turn(TurnMessage::Removed(removed.clone()));
    }
    victim.ended_by(AbortCode::Limit(LimitName::Work));
}

#[test]
fn candidates_without_end_are_answered_by_runs_and_not_for_ever() {
    let limits = Limits { max_session_entries: 500, ..Limits::default() };
    let mut node = node_with(400, limits);
    for at in (0..400).step_by(2) {
        node.collection.delete(&key(at), node.now_ms).unwrap();
    }
    node.now_ms += 1;
    let mut victim = Victim::open(node, &Claim::empty(Mode::Both));
    let writer = victim.view.writers().unwrap()[0];
    let mut dots = DotSet::default();
    dots.insert_run(DotRun::new(writer, 1, 400).unwrap());
    let keys = Bytes(vec![7; 400 * 8]);
    let candidates = TurnMessage::Candidates { dots: WireDots::from(&dots), keys };
    victim.turn(candidates.clone());
    assert_eq!(victim.outcome(), None, "what an honest peer may ask");
    for _ in 0..1_000 {
        victim.turn(candidates.clone());
    }
    victim.ended_by(AbortCode::Limit(LimitName::Work));
}

#[test]
fn candidates_come_each_with_its_key_or_not_at_all() {
    for keys in [0, 8, 15, 24] {
        let node = node_with(40, Limits::default());
        let mut victim = Victim::open(node, &Claim::empty(Mode::Both));
        let writer = victim.view.writers().unwrap()[0];
        let mut dots = DotSet::default();
        dots.insert_run(DotRun::new(writer, 1, 2).unwrap());
        let dots = WireDots::from(&dots);
        victim.turn(TurnMessage::Candidates { dots, keys: Bytes(vec![7; keys]) });
        victim.ended_by(AbortCode::Protocol);
    }
    let node = node_with(40, Limits::default());
    let mut victim = Victim::open(node, &Claim::empty(Mode::Both));
    let all = every_dot_of(victim.view.writers().unwrap()[0]);
    victim.turn(TurnMessage::Candidates { dots: all, keys: Bytes(vec![7; 8]) });
    victim.ended_by(AbortCode::Protocol);
}

/// What an attacker says of a subtree, packed: a node with all children, every id the same.
fn node_part(bits: &mut BitWriter, id: u64, width: u8) {
    bits.put(2, 2);
    bits.put_bit(true);
    (0..16).for_each(|_| bits.put(id, width));
}

fn level(answered: u32, width: u8, bits: BitWriter) -> Level {
    Level { answered, width, bits: Bytes(bits.finish()) }
}

fn steer(top: Level) -> TurnMessage {
    TurnMessage::Steer { attempt: 0, top }
}

fn steer_with_node() -> TurnMessage {
    let mut bits = BitWriter::default();
    node_part(&mut bits, 1, 28);
    steer(level(0, 28, bits))
}

#[test]
fn a_descent_that_repeats_itself_fills_no_memory() {
    let limits =
        Limits { max_session_entries: 2_000, max_pending_bytes: 256 << 10, ..Limits::default() };
    let node = node_with(1_500, limits);
    let claim = Claim::all_seen(Mode::Both, &node);
    let mut victim = Victim::open(node, &claim);
    for _ in 0..10_000 {
        victim.turn(steer_with_node());
    }
    victim.ended_by(AbortCode::Limit(LimitName::Work));
    victim.work();
    assert!(victim.sent_bytes < 1 << 20, "{} bytes were queued", victim.sent_bytes);
}

#[test]
fn a_descent_into_everything_is_answered_as_far_as_there_is_room() {
    let limits = Limits { max_pending_bytes: 20_000, ..Limits::default() };
    let node = node_with(5_000, limits);
    let claim = Claim::all_seen(Mode::Both, &node);
    let mut victim = Victim::open(node, &claim);
    victim.turn(steer_with_node());
    victim.end_turn(TreeHash([3; 32]), false);
    for depth in 0..3 {
        victim.work();
        let answers = victim.said.iter().rev().find_map(|message| match message {
            Message::Turn(TurnMessage::Level(level)) => Some(level.answered),
            _ => None,
        });
        let nodes = answers.unwrap_or(0) * 16;
        let mut bits = BitWriter::default();
        for _ in 0..nodes.min(4_000) {
            (0..16).for_each(|_| bits.put_bit(true));
            (0..16).for_each(|_| node_part(&mut bits, 1, 28));
        }
        // as many nodes as there are open, or a breach: nothing in between
        victim.turn(TurnMessage::Level(level(nodes.min(4_000), 28, bits)));
        if victim.outcome().is_some() {
            assert!(depth > 0);
            break;
        }
        victim.end_turn(TreeHash([3; 32]), false);
    }
    assert!(victim.sent_bytes < 200_000, "{} bytes were queued", victim.sent_bytes);
}

#[test]
fn levels_that_answer_nothing_that_was_asked_are_a_breach() {
    let open = || {
        let node = node_with(200, Limits::default());
        let claim = Claim::all_seen(Mode::Both, &node);
        Victim::open(node, &claim)
    };
    let breaches = [
        // before there is a descent
        TurnMessage::Level(level(0, 28, BitWriter::default())),
        TurnMessage::Unmatched(Unmatched { lists: 0, bits: Bytes(Vec::new()) }),
    ];
    for message in breaches {
        let mut victim = open();
        victim.turn(message);
        victim.ended_by(AbortCode::Protocol);
    }
    // answers to more nodes and lists than were sent
    let more = [
        TurnMessage::Level(level(1, 28, BitWriter::default())),
        TurnMessage::Unmatched(Unmatched { lists: 1, bits: Bytes(vec![0]) }),
    ];
    for message in more {
        let mut victim = open();
        victim.turn(steer_with_node());
        assert_eq!(victim.outcome(), None, "what an honest peer may say");
        victim.turn(message);
        victim.ended_by(AbortCode::Protocol);
    }
}

#[test]
fn hostile_levels_are_refused_before_anything_is_built_of_them() {
    let part = |kind: u64| {
        let mut bits = BitWriter::default();
        bits.put(kind, 2);
        bits
    };
    let mut endless = part(3);
    endless.put_gamma(u64::MAX);
    let mut cut_short = part(2);
    cut_short.put_bit(true);
    cut_short.put(7, 28);
    let mut left_over = part(0);
    left_over.put(0, 30);
    let mut padded = part(0);
    padded.put(1, 6);
    let mut no_width = part(3);
    no_width.put_gamma(1 << 40);
    let tops = [
        level(0, 28, endless),
        level(0, 28, cut_short),
        level(0, 28, left_over),
        level(0, 28, padded),
        level(0, 0, no_width),
        level(0, 57, part(0)),
        level(0, u8::MAX, part(0)),
        level(1, 28, part(0)),
        level(0, 28, BitWriter::default()),
    ];
    for top in tops {
        let node = node_with(20, Limits::default());
        let claim = Claim::all_seen(Mode::Both, &node);
        let mut victim = Victim::open(node, &claim);
        victim.turn(steer(top));
        victim.ended_by(AbortCode::Protocol);
    }
}

/// A claim of as many entries as the sketches in these tests are made for, and few of them known.
fn claim_of(victim: &Node, entries: u64) -> Claim {
    Claim { entries, ..Claim::all_seen(Mode::Both, victim) }
}

/// A victim whose turn it is to look for what differs, and that has sent its estimator.
fn asked(keys: usize, limits: Limits, entries: u64) -> Victim {
    asked_by(Strategy::Auto, keys, limits, entries)
}

fn asked_by(strategy: Strategy, keys: usize, limits: Limits, entries: u64) -> Victim {
    let node = node_with(keys, limits);
    let claim = claim_of(&node, entries);
    let hello = Hello { strategy, ..hello(&node, &claim) };
    let mut victim = Victim::greeted(node, &hello);
    victim.turn(TurnMessage::Opening(claim.opening()));
    victim.end_turn(claim.tree, false);
    victim.work();
    let estimated = |message: &Message| {
        matches!(message, Message::Turn(TurnMessage::Estimate(Estimate::Folded(_))))
    };
    assert!(victim.said.iter().any(estimated), "{:?}", victim.said);
    victim.said.clear();
    victim
}

/// Whether the victim has begun a descent: what it does when sketches have not helped.
fn descends(victim: &Victim) -> bool {
    let steers = |message: &Message| matches!(message, Message::Turn(TurnMessage::Steer { .. }));
    victim.outcome().is_none() && victim.said.iter().any(steers)
}

fn sketch_of(layout: Layout, byte: u8) -> WireSketch {
    let mut bits = vec![byte; layout.bytes()];
    if let Some(last) = bits.last_mut() {
        *last = 0;
    }
    WireSketch { layout, bits }
}

fn wide(log2: u8, capacity: u8) -> Layout {
    Layout::new(IdWidth::Wide, log2, capacity).unwrap()
}

fn narrow(log2: u8, capacity: u8) -> Layout {
    Layout::new(IdWidth::Narrow, log2, capacity).unwrap()
}

#[test]
fn an_estimator_is_answered_once() {
    let node = node_with(200, Limits::default());
    let claim = Claim::all_seen(Mode::Both, &node);
    let mut victim = Victim::open(node, &claim);
    let estimate = || TurnMessage::Estimate(Estimate::Folded(Estimator::default().folded()));
    victim.turn(estimate());
    assert_eq!(victim.outcome(), None);
    victim.turn(estimate());
    victim.ended_by(AbortCode::Protocol);
}

#[test]
fn messages_of_a_sketch_exchange_come_in_its_order_or_not_at_all() {
    let layout = narrow(0, 2);
    let messages = || {
        let refill = WireRefill { capacity: 5, failed: vec![1] };
        let names = WireNames { count: 0, gaps: Vec::new() };
        [
            TurnMessage::Estimate(Estimate::Wrapped(Estimator::default().wrapped())),
            TurnMessage::Sketch(sketch_of(layout, 0)),
            TurnMessage::Refill(refill),
            TurnMessage::Refilled(Bytes(vec![0; 8])),
            TurnMessage::Symbols { kept: false, symbols: Symbols::from_bytes(&[0; 9]).unwrap() },
            TurnMessage::MoreSymbols(1),
            TurnMessage::Names(names),
        ]
    };
    for message in messages() {
        let node = node_with(200, Limits::default());
        let claim = Claim::all_seen(Mode::Both, &node);
        let mut victim = Victim::open(node, &claim);
        victim.turn(message.clone());
        assert_eq!(victim.outcome(), Some(&Outcome::Failed(Failure::Ours(AbortCode::Protocol))));
        // only the first two and symbols answer an estimator
        let mut victim = asked(200, Limits::default(), 300);
        victim.turn(message.clone());
        let fits = matches!(
            message,
            TurnMessage::Estimate(_) | TurnMessage::Sketch(_) | TurnMessage::Symbols { .. }
        );
        assert_eq!(victim.outcome().is_none(), fits, "{message:?}: {:?}", victim.outcome());
        // more symbols may well have been asked for
        if fits && !matches!(message, TurnMessage::Symbols { .. }) {
            victim.turn(message);
            victim.ended_by(AbortCode::Protocol);
        }
    }
}

#[test]
fn a_sketch_that_is_none_is_refused_before_use() {
    let short = WireSketch { layout: narrow(0, 20), bits: vec![0; 3] };
    let of_other_ids = sketch_of(wide(0, 20), 0);
    for sketch in [short, of_other_ids] {
        let mut victim = asked(200, Limits::default(), 300);
        victim.turn(TurnMessage::Sketch(sketch));
        victim.ended_by(AbortCode::Protocol);
    }
}

#[test]
fn a_sketch_beyond_what_a_session_holds_is_not_read() {
    let limits = Limits { max_session_entries: 100, ..Limits::default() };
    let mut victim = asked(200, limits, 5_000);
    victim.turn(TurnMessage::Sketch(sketch_of(wide(12, 40), 0x5a)));
    victim.end_turn(TreeHash([7; 32]), false);
    victim.work();
    assert!(descends(&victim), "{:?} {:?}", victim.outcome(), victim.said);
}

#[test]
fn a_sketch_that_never_decodes_is_asked_for_once_more_and_then_left() {
    let mut victim = asked(200, Limits::default(), 300);
    let layout = narrow(0, 40);
    victim.turn(TurnMessage::Sketch(sketch_of(layout, 0x5a)));
    victim.end_turn(TreeHash([7; 32]), false);
    victim.work();
    let refill = victim.said.iter().find_map(|message| match message {
        Message::Turn(TurnMessage::Refill(refill)) => Some(refill.clone()),
        _ => None,
    });
    if let Some(refill) = refill {
        let mut bits = vec![0x33; layout.refill(&refill).unwrap().bytes()];
        *bits.last_mut().unwrap() = 0;
        victim.turn(TurnMessage::Refilled(Bytes(bits.clone())));
        victim.end_turn(TreeHash([7; 32]), false);
        victim.work();
        assert!(descends(&victim), "{:?} {:?}", victim.outcome(), victim.said);
        victim.turn(TurnMessage::Refilled(Bytes(bits)));
        victim.ended_by(AbortCode::Protocol);
    } else {
        assert!(descends(&victim), "{:?} {:?}", victim.outcome(), victim.said);
    }
}

#[test]
fn symbols_that_never_decode_come_to_an_end() {
    let mut victim = asked(200, Limits::default(), 300);
    let (mut asks, mut bytes) = (0, vec![0x77; 9 * 20]);
    loop {
        victim.said.clear();
        bytes.rotate_left(1);
        let symbols = Symbols::from_bytes(&bytes).unwrap();
        victim.turn(TurnMessage::Symbols { kept: false, symbols });
        victim.end_turn(TreeHash([7; 32]), false);
        victim.work();
        let more = victim
            .said
            .iter()
            .any(|message| matches!(message, Message::Turn(TurnMessage::MoreSymbols(_))));
        if !more {
            break;
        }
        asks += 1;
    }
    assert!((1..=8).contains(&asks), "{asks}");
    assert_eq!(victim.outcome(), None);
}

#[test]
fn a_stream_of_symbols_stays_under_its_key() {
    // whether this side keeps symbols or not
    for kept_symbols in [0, 64] {
        let limits = Limits { kept_symbols, ..Limits::default() };
        for first in [false, true] {
            let mut victim = asked(200, limits.clone(), 300);
            let symbols = Symbols::from_bytes(&[0x77; 9 * 20]).unwrap();
            victim.turn(TurnMessage::Symbols { kept: first, symbols: symbols.clone() });
            victim.end_turn(TreeHash([7; 32]), false);
            victim.work();
            let asks =
                |message: &Message| matches!(message, Message::Turn(TurnMessage::MoreSymbols(_)));
            assert!(victim.said.iter().any(asks), "{:?} {:?}", victim.outcome(), victim.said);
            victim.turn(TurnMessage::Symbols { kept: !first, symbols });
            victim.ended_by(AbortCode::Protocol);
        }
    }
}

#[test]
fn a_claim_of_a_thousand_million_differences_leads_to_a_descent() {
    // nobody vouches for how many entries an opening says that there are
    for (strategy, claimed) in [
        (Strategy::Sketch, 1_000_000_000),
        (Strategy::Iblt, 1_000_000_000),
        (Strategy::Auto, 1_000_000_000),
        (Strategy::Auto, u64::MAX),
        (Strategy::Sketch, u64::MAX),
        (Strategy::Iblt, 0),
    ] {
        let node = node_with(200, Limits::default());
        let claim = claim_of(&node, claimed);
        let hello = Hello { strategy, ..hello(&node, &claim) };
        let mut victim = Victim::greeted(node, &hello);
        victim.turn(TurnMessage::Opening(claim.opening()));
        let mut estimator = Estimator::default();
        (0..=255).for_each(|byte| {
            let record = RecordDigest([byte; 32]);
            (0..u32::from(byte) * 7).for_each(|_| estimator.add(&record));
        });
        victim.turn(TurnMessage::Estimate(Estimate::Folded(estimator.folded())));
        victim.end_turn(claim.tree, false);
        victim.work();
        // too many for eight bytes: it answers with its own, and the attacker would choose
        assert!(victim.outcome().is_none());
        let mut victim = asked_by(strategy, 200, Limits::default(), claimed);
        victim.turn(TurnMessage::Estimate(Estimate::Wrapped(estimator.wrapped())));
        victim.end_turn(claim.tree, false);
        victim.work();
        let filters =
            |message: &Message| matches!(message, Message::Turn(TurnMessage::Filter { .. }));
        let filters = strategy == Strategy::Auto && victim.said.iter().any(filters);
        assert!(filters || descends(&victim), "{:?} {:?}", victim.outcome(), victim.said);
        assert!(victim.sent_bytes < 100_000);
    }
}

#[test]
fn names_of_what_is_not_held_are_counted_and_nothing_else() {
    let node = node_with(200, Limits::default());
    let claim = claim_of(&node, 300);
    let mut victim = Victim::open(node, &claim);
    let own = victim.view.tree();
    let estimate = Estimate::Folded(estimator_of(&victim, 1).folded());
    victim.turn(TurnMessage::Estimate(estimate));
    victim.end_turn(claim.tree, false);
    victim.work();
    let layout = sketch_said(&victim);
    let mut decoy = own.clone();
    let made_up = Leaf {
        key: KeyHash([0xee; 32]),
        record: RecordDigest([9; 32]),
        totals: Totals { entries: 1, siblings: 1, bytes: 1, latest: Stamp(1) },
    };
    decoy.put(made_up).unwrap();
    let items = |tree: &PagedTree| {
        let leaves = tree.leaves_under(&Prefix::ALL).map(|leaf| leaf.unwrap());
        leaves.map(|leaf| (leaf.key, leaf.record)).collect::<Vec<_>>()
    };
    let ours = BucketSketch::of_items(layout.all(), items(&own));
    let theirs = BucketSketch::of_items(layout.all(), items(&decoy));
    let decoded = SketchDecoder::new(ours, &theirs).unwrap().finish();
    let names = Names::new(layout, 300, &decoded.ids);
    victim.turn(TurnMessage::Names(names.to_wire()));
    assert_eq!(victim.outcome(), None);
    assert_eq!(victim.session.stats().names_unknown, 1);
}

/// Two that have met, and what each is about to put.
fn about_to_put(names: &[Key; 2], values: Option<[u64; 2]>) -> [(Node, KeyHash, Sibling); 2] {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    for at in 0..100 {
        a.collection.put(&key(at), b"a state".to_vec(), a.now_ms).unwrap();
    }
    let met = run(&mut a, &mut b, &SyncConfig::default(), 1);
    assert!(matches!(met.outcomes[0], Outcome::Complete { .. }));
    let mut at = 0;
    [a, b].map(|node| {
        let name = &names[at];
        let value = values.map_or(0, |values| values[at]).to_le_bytes();
        at += 1;
        let sibling = node.collection.put(name, value.to_vec(), node.now_ms).unwrap();
        let hash = node.collection.key_hash(name);
        (node, hash, sibling)
    })
}

/// Two keys, and a value for each, of which the entries have one id in sketches of this strategy.
fn ground(id: impl Fn(&KeyHash, &RecordDigest) -> u64, record_bits: u32) -> ([Key; 2], [u64; 2]) {
    let algorithm = HashAlgorithm::Blake3;
    let of_keys = |prefix: &str| {
        let names = (0..8_192).map(|at| key(format!("{prefix} {at}")));
        let bits =
            |name: &Key| id(&algorithm.key_hash(name), &RecordDigest([1; 32])) >> record_bits;
        names.map(|name| (bits(&name), name)).collect::<BTreeMap<_, _>>()
    };
    let (of_a, of_b) = (of_keys("of a"), of_keys("of b"));
    let names = of_a.iter().find_map(|(bits, a)| of_b.get(bits).map(|b| [a.clone(), b.clone()]));
    let names = names.expect("2^26 pairs of 20 bits at most");
    let ids = |(_, key, put): &(Node, KeyHash, Sibling)| {
        let id_of = |at: u64| {
            let sibling = Sibling { value_hash: algorithm.value_hash(&at.to_le_bytes()), ..*put };
            (id(key, &Record::new(vec![sibling]).unwrap().digest(algorithm)), at)
        };
        (0..1 << 15).map(id_of).collect::<BTreeMap<_, _>>()
    };
    let probes = about_to_put(&names, None);
    let [at_a, at_b] = [ids(&probes[0]), ids(&probes[1])];
    let pair = at_a.iter().find_map(|(id, of_a)| at_b.get(id).map(|of_b| [*of_a, *of_b]));
    (names, pair.expect("2^30 pairs of 24 bits at most"))
}

/// The id of an entry of a small collection: 8 bits of the key hash and 21 of the record digest.
fn narrow_id(key: &KeyHash, record: &RecordDigest) -> u64 {
    let of_record = u32::from_be_bytes(*record.0.first_chunk().unwrap()) >> 11;
    u64::from(u32::from(key.0[0] & 0x0f) << 25 | u32::from(key.0[1] >> 4) << 21 | of_record)
}

#[test]
fn entries_ground_to_look_alike_are_found_by_the_descent() {
    let algorithm = HashAlgorithm::Blake3;
    let short_id = |key: &KeyHash, record: &RecordDigest| ShortId::of(key, record).get();
    for (strategy, (names, values)) in
        [(Strategy::Sketch, ground(narrow_id, 21)), (Strategy::Iblt, ground(short_id, 24))]
    {
        for forced in Strategy::ALL {
            let [(mut a, key_a, put_a), (mut b, key_b, put_b)] = about_to_put(&names, Some(values));
            let [ours, theirs] = [(key_a, put_a), (key_b, put_b)].map(|(key, put)| {
                let record = Record::new(vec![put]).unwrap().digest(algorithm);
                let sketch = BucketSketch::of_items(narrow(0, 4).all(), [(key, record)]);
                (sketch.to_bytes(), ShortId::of(&key, &record))
            });
            match strategy {
                Strategy::Sketch => assert_eq!(ours.0, theirs.0, "they cancel out"),
                _ => assert_eq!(ours.1, theirs.1, "they cancel out"),
            }
            let config = SyncConfig { strategy: forced, ..SyncConfig::default() };
            let run = run(&mut a, &mut b, &config, 2);
            let complete = |one: &Outcome| matches!(one, Outcome::Complete { .. });
            assert!(run.outcomes.iter().all(complete), "{run:?}");
            assert_eq!(a.root(), b.root());
            let phases = &run.stats[0].phases;
            if forced == strategy {
                assert!(phases.contains_key(&Phase::SketchExchange));
                assert!(phases.contains_key(&Phase::MerkleComparison));
            }
        }
    }
}

#[test]
fn an_estimate_that_nobody_asked_for_is_a_breach() {
    let (of_victim, other) = (node_with(200, Limits::default()), node_with(100, Limits::default()));
    for estimate in [
        Estimate::Folded(Estimator::default().folded()),
        Estimate::Wrapped(Estimator::default().wrapped()),
    ] {
        let view = of_victim.collection.snapshot().unwrap();
        let setup = of_victim.setup(mallory(), SyncConfig::default(), SECRET);
        let mut session = Session::initiate(setup, &view);
        session.poll_transmit(Lane::Control, &view).unwrap();
        let claim = Claim::all_seen(Mode::Both, &other);
        let reply = Message::HelloReply(HelloReply::Differs {
            state: claim.state(&other),
            estimate: Some(estimate),
            opening: Box::new(claim.opening()),
            base_known: false,
        });
        session.handle(Lane::Control, &wire::encode(&reply).unwrap(), &view, of_victim.now_ms);
        let breach = Outcome::Failed(Failure::Ours(AbortCode::Protocol));
        assert_eq!(session.outcome(), Some(&breach));
    }
}

#[test]
fn estimators_that_lie_cost_bytes_and_hide_nothing() {
    let lies: [fn(&mut Estimator); 3] = [
        |_| {},
        |estimator| (0..30).for_each(|at| estimator.add(&RecordDigest([at * 8; 32]))),
        |estimator| {
            let all = (0..=255).flat_map(|at| [RecordDigest([at; 32]); 90]);
            all.enumerate().for_each(|(at, record)| {
                (0..=at % 7).for_each(|_| estimator.add(&record));
            });
        },
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        let mut estimator = Estimator::default();
        lie(&mut estimator);
        for strategy in [Strategy::Sketch, Strategy::Iblt] {
            let limits = Limits { sketches_from_entries: 1, ..Limits::default() };
            let [mut a, mut b] = [1, 2].map(|seed| {
                let node = Node::with(seed, HashAlgorithm::Blake3, limits.clone());
                (0..300).for_each(|at| {
                    let at = at + 40 * seed;
                    node.collection.put(&key(at), b"a state".to_vec(), node.now_ms).unwrap();
                });
                while node.collection.warm_sketches().unwrap() == Warming::Goes {}
                node
            });
            let mut bytes = 0;
            let mut tamper = |_: usize, lane: Lane, frame: &mut Vec<u8>| {
                bytes += frame.len();
                if lane == Lane::Bulk {
                    return;
                }
                let mut messages: Vec<Message> = wire::decode_all(frame).unwrap();
                for message in &mut messages {
                    match message {
                        Message::Hello(hello) => hello.estimator = Some(estimator.folded()),
                        Message::HelloReply(HelloReply::Differs { estimate, .. }) => {
                            *estimate = Some(Estimate::Wrapped(estimator.wrapped()));
                        }
                        _ => {}
                    }
                }
                *frame = messages.iter().flat_map(|one| wire::encode(one).unwrap()).collect();
            };
            let config = SyncConfig { strategy, ..SyncConfig::default() };
            let around =
                Around { cut_after: None, before_step: &mut |_, _| {}, tamper: &mut tamper };
            let met = run_around(&mut a, &mut b, &config, number as u64, around);
            let complete = |one: &Outcome| matches!(one, Outcome::Complete { .. });
            assert!(met.outcomes.iter().all(complete), "{number} {strategy:?} {:?}", met.outcomes);
            assert_eq!(a.root(), b.root());
            // what differs is 80 entries, told by either side, and what is sent is at most
            // a sketch of all that both hold
            assert!(bytes < 120_000, "{number} {strategy:?}: {bytes}");
        }
    }
}

#[test]
fn more_names_than_a_sketch_can_tell_are_a_breach() {
    for over in [0, 1] {
        let node = node_with(200, Limits::default());
        let claim = claim_of(&node, 300);
        let mut victim = Victim::open(node, &claim);
        let estimate = Estimate::Folded(estimator_of(&victim, 3).folded());
        victim.turn(TurnMessage::Estimate(estimate));
        victim.end_turn(claim.tree, false);
        victim.work();
        let layout = sketch_said(&victim);
        let count = layout.buckets() * layout.capacity() + over;
        let decoy = (0..300u16).map(|at| {
            let mut key = [0; 32];
            key[..2].copy_from_slice(&(at * 211).to_be_bytes());
            Leaf {
                key: KeyHash(key),
                record: RecordDigest([at as u8; 32]),
                totals: Totals { entries: 1, siblings: 1, bytes: 1, latest: Stamp(1) },
            }
        });
        let wide_layout = Layout::new(layout.width(), 0, 64).unwrap();
        let ids = decoy.take(count).map(|leaf| {
            let alone = [(leaf.key, leaf.record)];
            let ours = BucketSketch::of_items(wide_layout.all(), []);
            let theirs = BucketSketch::of_items(wide_layout.all(), alone);
            SketchDecoder::new(ours, &theirs).unwrap().finish().ids[0]
        });
        let ids: Vec<_> = ids.collect();
        let names = Names::new(layout, 300, &ids).to_wire();
        assert_eq!(names.count as usize, count);
        victim.turn(TurnMessage::Names(names));
        match over {
            0 => assert_eq!(victim.outcome(), None),
            _ => victim.ended_by(AbortCode::Protocol),
        }
    }
}

#[test]
fn sketches_that_mean_nothing_cost_work_that_is_counted() {
    const KEYS: u64 = 5_000;
    let wide_symbols = |count: usize| {
        let bytes: Vec<u8> = (0..9 * count).map(|at| (at * 31 % 251) as u8).collect();
        TurnMessage::Symbols { kept: false, symbols: Symbols::from_bytes(&bytes).unwrap() }
    };
    let full = |log2, capacity| TurnMessage::Sketch(sketch_of(wide(log2, capacity), 0x5a));
    // products in the field are counted by 256, reading all entries twice is as many steps
    let products = |log2, capacity| 2 * wide(log2, capacity).work() / 256;
    for (message, most) in [
        // beyond twice what a session holds: not read
        (full(12, 40), 0),
        // read, for twice the planned work at most
        (full(0, 64), 2 * KEYS + products(0, 64)),
        (full(3, 40), 2 * KEYS + products(3, 40)),
        // each batch is held against all entries, and peeled
        (wide_symbols(1), 3 * KEYS),
        (wide_symbols(20_000), 3 * KEYS + 20_000),
    ] {
        let limits = Limits { max_session_entries: 1_000, ..Limits::default() };
        let mut victim = asked(KEYS as usize, limits, KEYS);
        let (before, shown) = (victim.session.steps(), format!("{message:?}"));
        victim.turn(message);
        let steps = victim.session.steps() - before;
        assert!(steps <= most, "{steps} steps, at most {most}: {}", &shown[..40]);
        assert!(matches!(victim.outcome(), None | Some(Outcome::Failed(_))));
    }
}

/// The estimator of what the victim holds and of so many entries more.
fn estimator_of(victim: &Victim, more: u8) -> Estimator {
    let mut estimator = Estimator::default();
    for leaf in victim.view.tree().leaves_under(&Prefix::ALL) {
        estimator.add(&leaf.unwrap().record);
    }
    (0..more).for_each(|at| estimator.add(&RecordDigest([at * 8 + 1; 32])));
    estimator
}

/// The layout of the sketch that the victim has sent.
fn sketch_said(victim: &Victim) -> Layout {
    let layout = victim.said.iter().find_map(|message| match message {
        Message::Turn(TurnMessage::Sketch(sketch)) => Some(sketch.layout),
        _ => None,
    });
    layout.expect("a sketch")
}

#[test]
fn filters_come_once() {
    let node = node_with(200, Limits::default());
    let claim = Claim::all_seen(Mode::Both, &node);
    let filter = |second| {
        let filter = WireFilter { hashes: 1, bits: vec![0xff; 64] };
        TurnMessage::Filter { filter, items: 1, second }
    };
    let mut victim = Victim::open(node, &claim);
    victim.turn(filter(false));
    assert_eq!(victim.outcome(), None);
    victim.turn(filter(false));
    victim.ended_by(AbortCode::Protocol);
    let mut victim = Victim::open(node_with(200, Limits::default()), &claim);
    victim.turn(filter(true)); // an answer to what was never asked
    victim.ended_by(AbortCode::Protocol);
}

#[test]
fn hostile_filters_are_refused_before_use() {
    for (hashes, bits) in [(0, vec![1]), (33, vec![1]), (255, vec![0; 9]), (1, Vec::new())] {
        let node = node_with(20, Limits::default());
        let claim = Claim::all_seen(Mode::Both, &node);
        let mut victim = Victim::open(node, &claim);
        let filter = WireFilter { hashes, bits };
        victim.turn(TurnMessage::Filter { filter, items: u64::MAX, second: false });
        victim.ended_by(AbortCode::Protocol);
    }
}

#[test]
fn invented_leaves_teach_nothing_and_are_asked_for_by_nobody() {
    let limits = Limits { max_session_entries: 100, ..Limits::default() };
    let node = node_with(10, limits);
    let claim = Claim::all_seen(Mode::Push, &node);
    let mut victim = Victim::open(node, &claim);
    for round in 0..10 {
        let mut bits = BitWriter::default();
        bits.put(3, 2);
        bits.put_gamma(300);
        (0..300).for_each(|at| bits.put(round * 300 + at, 33));
        victim.turn(steer(level(0, 33, bits)));
    }
    victim.end_turn(TreeHash([9; 32]), false);
    victim.work();
    let (mut asked, mut unmatched) = (0, 0);
    for message in &victim.said {
        match message {
            Message::Turn(TurnMessage::States { ask, .. }) => asked += ask.len(),
            Message::Turn(TurnMessage::Unmatched(said)) => unmatched += said.bits.0.len(),
            _ => {}
        }
    }
    assert_eq!(asked, 10, "its own leaves, which are not in the list, once");
    assert_eq!(unmatched, 38, "a bit for each leaf of the last list");
}

#[test]
fn only_small_values_ride_along() {
    let node = node_with(1, Limits::default());
    let claim = Claim::all_seen(Mode::Both, &node);
    let mut victim = Victim::open(node, &claim);
    let mut large = state("large", vec![sibling(1, &[1; 5_000])]);
    large.2 = Some(Bytes(vec![1; 5_000]));
    victim.states(vec![large]);
    victim.ended_by(AbortCode::Protocol);
}

#[test]
fn values_whose_siblings_never_come_are_not_hoarded() {
    let limits = Limits { max_pending_bytes: 100_000, ..Limits::default() };
    let node = node_with(1, limits);
    let claim = Claim::all_seen(Mode::Both, &node);
    let mut victim = Victim::open(node, &claim);
    let value = |at: u64| vec![at as u8; 10_000];
    let keys: Vec<_> = (0..100)
        .map(|at| {
            let pair = [2 * at + 1, 2 * at + 2].map(|at| sibling(at, &value(at)));
            state(format!("pair {at}"), pair.to_vec())
        })
        .collect();
    victim.states(keys);
    let mut answered = 0;
    loop {
        victim.work();
        let wants = victim.wants();
        if wants.len() == answered {
            break;
        }
        for want in &wants[answered..] {
            let counter = u64::from(want.of) + 1;
            if counter % 2 == 1 {
                let encoded = Encoded { encoding: Encoding::Raw, bytes: value(counter) };
                victim.bulk(&Bulk::Values(vec![ValueItem { of: want.of, encoded }]));
            }
        }
        answered = wants.len();
    }
    assert_eq!(victim.outcome(), None);
    assert!(answered <= 12, "{answered} values of 10,000 bytes were asked for at once");
}

#[test]
fn a_key_whose_siblings_are_over_the_window_still_comes() {
    let limits = Limits { max_pending_bytes: 15_000, ..Limits::default() };
    let node = node_with(1, limits);
    let claim = Claim::all_seen(Mode::Both, &node);
    let mut victim = Victim::open(node, &claim);
    let value = |at: u64| vec![at as u8; 10_000];
    let siblings = |from: u64| (from..from + 3).map(|at| sibling(at, &value(at))).collect();
    victim.states(vec![state("one", siblings(1)), state("two", siblings(4))]);
    let mut answered = 0;
    loop {
        victim.work();
        let wants = victim.wants();
        if wants.len() == answered {
            break;
        }
        for (at, want) in wants.iter().enumerate().skip(answered) {
            let mut bytes = value(u64::from(want.of) + 1);
            if at == 0 {
                bytes[0] ^= 1; // the first comes damaged, and is asked for again
            }
            let encoded = Encoded { encoding: Encoding::Raw, bytes };
            victim.bulk(&Bulk::Values(vec![ValueItem { of: want.of, encoded }]));
        }
        answered = wants.len();
    }
    for name in ["one", "two"] {
        assert_eq!(victim.node.dots(&key(name)).len(), 3);
    }
}

#[test]
fn signatures_are_made_once_and_only_for_what_was_asked() {
    let node = node_with(0, Limits::default());
    let base: Vec<u8> = (0..20_000u32).map(|at| ((at * at) >> 5) as u8).collect();
    node.collection.put(&key("state"), base, node.now_ms).unwrap();
    let claim = Claim::all_seen(Mode::Both, &node);
    let mut victim = Victim::open(node, &claim);
    let offered = sibling(1, &[3; 20_000]);
    victim.states(vec![state("state", vec![offered])]);
    victim.work();
    assert_eq!(victim.wants().len(), 1);
    victim.free(FreeMessage::NeedSignature(0));
    assert_eq!(victim.outcome(), None);
    victim.free(FreeMessage::NeedSignature(0));
    victim.ended_by(AbortCode::Protocol);
}

#[test]
fn signatures_are_not_hoarded() {
    let limits = Limits { max_pending_bytes: 100_000, ..Limits::default() };
    let mut victim = telling(300, limits);
    let base: Vec<u8> = (0..60_000u32).map(|at| ((at * at) >> 5) as u8).collect();
    let signature = Signature::of(&base, 60_000, &SignatureKey([1; 32]), IdMargin::First).unwrap();
    assert!(signature.wire_len() > 500);
    for of in 0..300 {
        let bases = Bases::These(Vec::new());
        let want = Want { of, bases, signature: Some(signature.clone()) };
        victim.free(FreeMessage::Request(Wants::pack(vec![want])));
    }
    victim.ended_by(AbortCode::Limit(LimitName::PendingSignatures));
}

#[test]
fn one_value_is_not_asked_for_without_end() {
    let mut victim = telling(3, Limits::default());
    for times in 0..5 {
        assert_eq!(victim.outcome(), None, "{times}");
        victim.free(FreeMessage::Request(Wants::pack(vec![want(0)])));
    }
    victim.ended_by(AbortCode::Protocol);
}

#[test]
fn only_what_was_told_may_be_asked_for_and_only_what_was_asked_for_may_come() {
    // three values are told, too large to ride along
    let mut victim = telling(3, Limits::default());
    victim.free(FreeMessage::Request(Wants::pack((0..3).map(want).collect())));
    assert_eq!(victim.outcome(), None);
    victim.free(FreeMessage::Request(Wants::pack(vec![want(3)])));
    victim.ended_by(AbortCode::Protocol);
    // values that rode along are not asked for
    let mut victim = Victim::open(node_with(3, Limits::default()), &Claim::empty(Mode::Both));
    victim.end_turn(HashAlgorithm::Blake3.empty(), false);
    victim.work();
    victim.free(FreeMessage::Request(Wants::pack(vec![want(0)])));
    victim.ended_by(AbortCode::Protocol);
    let encoded = || Encoded { encoding: Encoding::Raw, bytes: vec![1; 400] };
    for of in [0, 1, u32::MAX] {
        let node = node_with(1, Limits::default());
        let claim = Claim::all_seen(Mode::Both, &node);
        let mut victim = Victim::open(node, &claim);
        victim.states(vec![state("one", vec![sibling(1, &[1; 400])])]);
        victim.bulk(&Bulk::Values(vec![ValueItem { of, encoded: encoded() }]));
        victim.ended_by(AbortCode::Protocol);
    }
}

fn want(of: u32) -> Want {
    Want { of, bases: Bases::These(Vec::new()), signature: None }
}

/// A victim that has told what it holds: so many values, too large to ride along.
fn telling(keys: usize, limits: Limits) -> Victim {
    let node = node_with(0, limits);
    for at in 0..keys {
        node.collection.put(&key(at), vec![at as u8; 400], node.now_ms).unwrap();
    }
    let mut victim = Victim::open(node, &Claim::empty(Mode::Both));
    victim.end_turn(HashAlgorithm::Blake3.empty(), false);
    victim.work();
    victim
}

#[test]
fn keys_of_many_bytes_are_learned_up_to_a_limit_of_bytes() {
    let limits = Limits { max_session_entries: 100, ..Limits::default() };
    let node = node_with(1, limits);
    let claim = Claim::all_seen(Mode::Both, &node);
    let mut victim = Victim::open(node, &claim);
    let mut told = 0;
    for at in 0..50u64 {
        // 120 siblings of 64 bytes under each key
        let siblings = (1..=120).map(|n| sibling(at * 1_000 + n, b"")).collect();
        victim.states(vec![state(format!("crowded {at}"), siblings)]);
        told += 1;
    }
    assert_eq!(told, 50);
    victim.end_turn(TreeHash([1; 32]), false);
    victim.work();
    let Some(Message::TurnEnd(end)) = victim.said.last() else { panic!("no end of turn") };
    assert!(end.partial, "what is over the limit is left for another session");
}

#[test]
fn turns_without_end_end() {
    let limits = Limits { max_session_turns: 20, ..Limits::default() };
    let node = node_with(5, limits);
    let claim = Claim::all_seen(Mode::Both, &node);
    let mut victim = Victim::open(node, &claim);
    for _ in 0..40 {
        victim.states(Vec::new());
        victim.end_turn(TreeHash([1; 32]), false);
        victim.work();
    }
    assert!(matches!(victim.outcome(), Some(Outcome::Failed(_))));
}

// lies

#[test]
fn an_opening_must_hash_to_the_state_of_the_hello() {
    let node = node_with(5, Limits::default());
    let claim = Claim::all_seen(Mode::Both, &node);
    let mut victim = Victim::greeted(node, &hello(&node_with(5, Limits::default()), &claim));
    let mut other = claim.opening();
    other.tree = tag_of(&TreeHash([8; 32]));
    victim.turn(TurnMessage::Opening(other));
    victim.ended_by(AbortCode::Lie);
}

#[test]
fn a_context_over_the_limits_is_refused_before_it_is_built() {
    let limits = Limits { max_writers: 10, max_exceptions: 10, ..Limits::default() };
    let writers = (1..=11).filter_map(|id| Some((Writer::new(id)?, 1)));
    let many = Causality::new(writers, DotSet::default(), &DotSet::default());
    let mut run = DotSet::default();
    run.insert_run(DotRun::new(Writer::new(3).unwrap(), 5, u64::MAX).unwrap());
    let endless = Causality::from_parts(std::collections::BTreeMap::new(), run).unwrap();
    for (causality, limit) in [(many, LimitName::Writers), (endless, LimitName::Exceptions)] {
        let node = node_with(1, limits.clone());
        let mut claim = Claim::empty(Mode::Both);
        let mut victim = Victim::greeted(node, &hello(&node_with(1, limits.clone()), &claim));
        claim.causality = causality;
        victim.turn(TurnMessage::Opening(claim.opening()));
        victim.ended_by(AbortCode::Limit(limit));
    }
}

/// What becomes of an opening that comes in these parts.
fn opened_in(limits: Limits, claim: &Claim, announced: u32, parts: Vec<OpeningPart>) -> Victim {
    let node = node_with(1, limits);
    let mut victim = Victim::greeted(node, &hello(&node_with(1, Limits::default()), claim));
    let causality = WireCausality::Whole { pairs: Vec::new(), exceptions: WireDots::default() };
    let above = Some(WireDots::default());
    let opening = Opening { causality, above, parts: announced, ..claim.opening() };
    victim.turn(TurnMessage::Opening(opening));
    for part in parts {
        victim.hear(&Message::OpeningPart(part));
    }
    victim
}

#[test]
fn an_opening_in_parts_is_bounded_ordered_and_without_repeats() {
    let pair = |id| (Writer::new(id).unwrap(), 1);
    let pairs = |ids: &[u64]| OpeningPart::Pairs(ids.iter().map(|&id| pair(id)).collect());
    let dots = |ids: &[u64]| {
        WireDots::from(&ids.iter().map(|&id| Dot::new(7, id).unwrap()).collect::<DotSet>())
    };
    let exceptions = |ids: &[u64]| OpeningPart::Exceptions(dots(ids));
    let above = |ids: &[u64]| OpeningPart::Above(dots(ids));
    let few = Limits { max_writers: 3, max_exceptions: 3, ..Limits::default() };
    let mut claim = Claim::empty(Mode::Both);
    let dead: DotSet = [5, 9].iter().map(|&id| Dot::new(7, id).unwrap()).collect();
    claim.causality = Causality::new((1..=3).map(pair), dead, &DotSet::default());

    // as it should be, in more parts than would be needed
    let parts = vec![pairs(&[1, 2]), pairs(&[3]), exceptions(&[5]), exceptions(&[9])];
    let victim = opened_in(few.clone(), &claim, 4, parts);
    assert_eq!(victim.outcome(), None);

    let bad = [
        (5, vec![], AbortCode::Limit(LimitName::OpeningParts)), // more parts than the limits can fill
        (u32::MAX, vec![], AbortCode::Limit(LimitName::OpeningParts)),
        (2, vec![pairs(&[1, 2]), pairs(&[3, 4])], AbortCode::Limit(LimitName::Writers)),
        (
            2,
            vec![exceptions(&[3, 5]), exceptions(&[7, 9])],
            AbortCode::Limit(LimitName::Exceptions),
        ),
        (2, vec![pairs(&[1, 2]), pairs(&[2, 3])], AbortCode::Protocol),
        (2, vec![pairs(&[2, 3]), pairs(&[1])], AbortCode::Protocol),
        (2, vec![pairs(&[1]), pairs(&[])], AbortCode::Protocol),
        (2, vec![exceptions(&[5]), exceptions(&[5, 9])], AbortCode::Protocol),
        (2, vec![exceptions(&[5]), pairs(&[1])], AbortCode::Protocol),
        (2, vec![above(&[5]), exceptions(&[5])], AbortCode::Protocol),
        (2, vec![above(&[5]), above(&[4])], AbortCode::Protocol),
        (1, vec![OpeningPart::Gone(vec![pair(1).0])], AbortCode::Protocol),
        // one more than announced, or one less and then a turn
        (
            3,
            vec![pairs(&[1, 2, 3]), exceptions(&[5]), exceptions(&[9]), above(&[9])],
            AbortCode::Protocol,
        ),
        // other pairs than those of the hello
        (2, vec![pairs(&[1, 2]), exceptions(&[5, 9])], AbortCode::Lie),
    ];
    for (announced, parts, code) in bad {
        let what = format!("{announced} parts: {parts:?}");
        let victim = opened_in(few.clone(), &claim, announced, parts);
        let failed = Some(&Outcome::Failed(Failure::Ours(code)));
        assert_eq!(victim.outcome(), failed, "{what}");
    }
    let mut victim = opened_in(few, &claim, 4, vec![pairs(&[1, 2, 3])]);
    victim.end_turn(claim.tree, false);
    victim.ended_by(AbortCode::Protocol);
}

#[test]
fn a_giver_must_have_the_tree_of_its_opening() {
    let node = node_with(5, Limits::default());
    // it has seen all, states some tree, and then claims to agree with what is held here
    let claim = Claim::all_seen(Mode::Push, &node);
    let mut victim = Victim::open(node, &claim);
    let tree = victim.tree();
    victim.end_turn(tree, true);
    victim.work();
    let ready = ready(tree);
    victim.free(FreeMessage::Ready(ready));
    victim.work();
    assert!(
        matches!(victim.outcome(), Some(Outcome::Failed(failure)) if failure.fault() == Fault::Theirs),
        "{:?}",
        victim.outcome()
    );
}

#[test]
fn a_forged_subtree_is_located() {
    let node = node_with(300, Limits::default());
    let claim = Claim::all_seen(Mode::Both, &node);
    let mut victim = Victim::open(node, &claim);
    let forged = top(all(), u16::MAX, vec![7; 16 * 32]);
    victim.turn(TurnMessage::Descend(forged));
    assert!(matches!(victim.outcome(), Some(Outcome::Failed(Failure::Lie { .. }))));
    assert!(victim.said.is_empty());
}

#[test]
fn a_root_that_is_only_claimed_never_ends_in_complete() {
    let node = node_with(5, Limits::default());
    let mut claim = Claim::all_seen(Mode::Both, &node);
    claim.entries = 9;
    let mut victim = Victim::open(node, &claim);
    let tree = victim.tree();
    victim.end_turn(tree, true);
    victim.work();
    let ready = ready(TreeHash([1; 32]));
    victim.free(FreeMessage::Ready(ready));
    victim.work();
    victim.ended_by(AbortCode::RootMismatch);
}

#[test]
fn a_certificate_that_the_peer_did_not_sign_is_none() {
    let node = node_with(5, Limits::default());
    let claim = Claim::all_seen(Mode::Both, &node);
    let mut victim = Victim::open(node, &claim);
    let tree = victim.tree();
    victim.end_turn(tree, true);
    victim.work();
    let ready = ready(tree);
    victim.free(FreeMessage::Ready(ready));
    victim.work();
    victim.free(FreeMessage::Joined { signature: Some(Bytes(vec![1; 64])) });
    assert!(
        matches!(victim.outcome(), Some(Outcome::Failed(failure)) if failure.fault() == Fault::Theirs),
        "{:?}",
        victim.outcome()
    );
}

#[test]
fn heads_of_logs_come_once_signed_and_in_their_place() {
    let head = |kind: LogKind, size: u64, by: u64| {
        let mut log = MerkleLog::new(HashAlgorithm::Blake3);
        for item in 0..size {
            log.append(&item.to_le_bytes());
        }
        let name = Node::new(1).collection.name().clone();
        let algorithm = HashAlgorithm::Blake3;
        let fields = LogIdentity { algorithm, kind, id: LogId(7), name }.at(&log);
        let key = Node::new(by).key;
        let sign = |message: &[u8]| key.sign(message).to_bytes();
        let statement = HeadStatement::sign(fields, key.node_id(), &sign);
        WireHead::new(&statement.unwrap())
    };
    let (changes, certificates) =
        (head(LogKind::Changes, 3, MALLORY), head(LogKind::Certificates, 2, MALLORY));
    let ready = |end: bool| {
        let node = node_with(5, Limits::default());
        let claim = Claim::all_seen(Mode::Both, &node);
        let mut victim = Victim::open(node, &claim);
        if end {
            let tree = victim.tree();
            victim.end_turn(tree, true);
            victim.work();
        }
        victim
    };
    let heads = |heads: &[WireHead]| FreeMessage::Heads(heads.to_vec());
    // what a session that signs may cost more, at most once a minute, each way
    let frame = wire::encode(&Message::Free(heads(&[changes.clone(), certificates.clone()])));
    assert_eq!(4 + frame.unwrap().len(), 219);
    let mut honest = ready(true);
    honest.free(heads(&[changes.clone(), certificates.clone()]));
    assert_eq!(honest.session.poll_heads().len(), 2);
    assert!(honest.session.poll_heads().is_empty() && honest.outcome().is_none());
    honest.free(heads(std::slice::from_ref(&changes)));
    honest.ended_by(AbortCode::Protocol);

    let of_nobody = WireHead { kind: 3, ..changes.clone() };
    let empty = WireHead { size: 0, ..changes.clone() };
    for (wrong, code) in [
        (vec![], AbortCode::Protocol),
        (vec![certificates.clone(), changes.clone()], AbortCode::Protocol),
        (vec![changes.clone(), changes.clone()], AbortCode::Protocol),
        (vec![of_nobody], AbortCode::Protocol),
        (vec![empty], AbortCode::Protocol),
        (vec![head(LogKind::Changes, 3, 5)], AbortCode::Lie),
        (vec![WireHead { size: 4, ..changes.clone() }], AbortCode::Lie),
        (vec![WireHead { root: [1; 32], ..changes.clone() }], AbortCode::Lie),
    ] {
        let mut victim = ready(true);
        victim.free(heads(&wrong));
        victim.ended_by(code);
        assert!(victim.session.poll_heads().is_empty());
    }
    let mut early = ready(false);
    early.free(heads(&[changes]));
    early.ended_by(AbortCode::Protocol);
}

#[test]
fn a_value_that_is_not_what_was_offered_is_asked_for_once_more_and_then_left_out() {
    let node = node_with(5, Limits::default());
    let claim = Claim::all_seen(Mode::Both, &node);
    let mut victim = Victim::open(node, &claim);
    let offered = sibling(1, &[1; 5_000]);
    victim.states(vec![state("new", vec![offered])]);
    for _ in 0..2 {
        victim.work();
        let encoded = Encoded { encoding: Encoding::Raw, bytes: vec![2; 5_000] };
        victim.bulk(&Bulk::Values(vec![ValueItem { of: 0, encoded }]));
    }
    victim.work();
    assert_eq!(victim.wants().len(), 2);
    let refused = victim.said.iter().any(|message| {
        matches!(message, Message::Free(FreeMessage::Refused(items))
            if items == &[(offered.dot, RefusalReason::Unavailable)])
    });
    assert!(refused && victim.outcome().is_none());
    assert!(victim.node.collection.get(&key("new")).unwrap().is_none());
}

#[test]
fn a_far_future_stamp_is_refused_whatever_the_mode() {
    for mode in [Mode::Both, Mode::Push] {
        let node = node_with(5, Limits::default());
        let claim = Claim::all_seen(mode, &node);
        let mut victim = Victim::open(node, &claim);
        let mut offered = sibling(1, b"x");
        offered.stamp = Stamp::new(1_000_000_000, 0);
        victim.states(vec![state("new", vec![offered])]);
        victim.work();
        let said = &victim.said;
        assert!(
            said.iter().any(|message| matches!(message, Message::Free(FreeMessage::Refused(items))
            if items == &[(offered.dot, RefusalReason::Drift)]))
        );
    }
}

#[test]
fn refusing_everything_costs_the_victim_no_more_than_a_session() {
    let limits = Limits { max_session_entries: 50, ..Limits::default() };
    let mut victim = Victim::open(node_with(500, limits), &Claim::empty(Mode::Both));
    let writer = victim.view.writers().unwrap()[0];
    let refused = (1..=500).map(|at| (Dot::of(writer, at).unwrap(), RefusalReason::Drift));
    victim.free(FreeMessage::Refused(refused.collect()));
    victim.end_turn(TreeHash([1; 32]), false);
    victim.work();
    let Some(Message::TurnEnd(end)) = victim.said.last() else { panic!("no end of turn") };
    assert!(end.partial, "beyond the limit nothing is joined");
}

#[test]
fn figures_that_a_peer_states_do_not_overflow() {
    let most = Tally { added: u64::MAX, updated: 1, removed: u64::MAX, conflicts: 0 };
    assert_eq!(most.changed(), u64::MAX);
}

// wrong phase

#[test]
fn what_does_not_belong_here_ends_the_session() {
    let ready = ready(TreeHash([1; 32]));
    let claim = Claim::empty(Mode::Both);
    let node = || node_with(3, Limits::default());
    let early = [
        Message::TurnEnd(TurnEnd {
            tree: TreeSaid::Now(tag_of(&TreeHash([1; 32]))),
            settled: true,
            partial: false,
        }),
        Message::Turn(TurnMessage::Nodes(Vec::new())),
        Message::Free(FreeMessage::Ready(ready)),
        Message::Free(FreeMessage::Request(Wants::pack(Vec::new()))),
        Message::HelloReply(HelloReply::Same),
        Message::Hello(hello(&node(), &claim)),
    ];
    for message in early {
        let mut victim = Victim::greeted(node(), &hello(&node(), &claim));
        victim.hear(&message);
        victim.ended_by(AbortCode::Protocol);
    }
    let dot = Dot::new(1, 1).unwrap();
    let late = [
        Message::Turn(TurnMessage::Opening(claim.opening())),
        Message::Turn(TurnMessage::Nodes(vec![top(all(), 0, Vec::new())])),
        Message::Free(FreeMessage::Joined { signature: None }),
        Message::Free(FreeMessage::Signature {
            of: 0,
            signature: Signature::of(&[1; 9_000], 9_000, &SignatureKey([1; 32]), IdMargin::First)
                .unwrap(),
        }),
        Message::Free(FreeMessage::Refused(vec![(dot, RefusalReason::Drift)])),
        Message::HelloReply(HelloReply::Same),
    ];
    for message in late {
        let mut victim = Victim::open(node(), &claim);
        victim.hear(&message);
        victim.ended_by(AbortCode::Protocol);
    }
    // who only gives takes nothing
    let mut victim = Victim::open(node(), &Claim::empty(Mode::Pull));
    victim.states(vec![state("x", vec![sibling(1, b"x")])]);
    victim.ended_by(AbortCode::Protocol);
    // who compares moves nothing
    let mut victim = Victim::open(node(), &Claim::empty(Mode::Compare));
    victim.free(FreeMessage::Request(Wants::pack(Vec::new())));
    victim.ended_by(AbortCode::Protocol);
}

#[test]
fn once_it_joins_only_the_end_may_follow() {
    let node = node_with(5, Limits::default());
    let claim = Claim::all_seen(Mode::Both, &node);
    let mut victim = Victim::open(node, &claim);
    let tree = victim.tree();
    victim.end_turn(tree, true);
    victim.work();
    let ready = ready(tree);
    victim.free(FreeMessage::Ready(ready));
    let dot = Dot::of(victim.view.writers().unwrap()[0], 1).unwrap();
    victim.free(FreeMessage::Refused(vec![(dot, RefusalReason::Drift)]));
    victim.ended_by(AbortCode::Protocol);
}

proptest! {
    #[test]
    fn any_frames_end_in_an_outcome_or_nothing(
        frames in prop::collection::vec(
            (any::<bool>(), prop::collection::vec(0u8..12, 0..60)), 1..12),
    ) {
        let mut victim = Victim::open(node_with(20, Limits::default()), &Claim::empty(Mode::Both));
        for (bulk, frame) in frames {
            let lane = if bulk { Lane::Bulk } else { Lane::Control };
            victim.session.handle(lane, &frame, &victim.view, victim.node.now_ms);
            victim.work();
        }
        prop_assert_eq!(victim.node.collection.totals().unwrap().entries, 20);
    }

    #[test]
    fn any_dots_are_a_set_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(dots) = wire::decode::<WireDots>(&bytes) {
            let _ = dots.to_set().map(|set| (set.count(), set.run_count()));
        }
    }
}

#[test]
fn keys_of_prefixes_that_are_none_are_refused() {
    for bits in [1, 3, 5, 256, 257, u16::MAX] {
        let node = node_with(50, Limits::default());
        let claim = Claim::all_seen(Mode::Both, &node);
        let mut victim = Victim::open(node, &claim);
        let prefix = WirePrefix { bits, bytes: Bytes(vec![0; usize::from(bits).div_ceil(8)]) };
        let first = top(prefix, 0, Vec::new());
        victim.turn(TurnMessage::Descend(first));
        victim.ended_by(AbortCode::Protocol);
    }
}
