//! The state machine of a session: no socket, no store handle, no clock, no randomness.
//!
//! Frames go in ([`Session::handle`]) and out ([`Session::poll_transmit`]) on two lanes, so that
//! values never block control. What is to be written leaves as batches
//! ([`Session::poll_apply`], [`Session::poll_join`]).

use std::collections::VecDeque;
use std::sync::Arc;

use super::clones::Marks;
use super::config::{Mode, Strategy, SyncConfig};
use super::descent::Descent;
use super::estimating::Told;
use super::give::Outgoing;
use super::knowledge::{Knowledge, Overlay, PeerSeen};
use super::message::{
    BaseTag, Bulk, CollectionTag, FreeMessage, Hello, HelloReply, Message, StateTag, TagMismatch,
    TreeTag, TurnMessage,
};
use super::opening::Gathering;
use super::outcome::{AbortCode, Failure, LimitName, Outcome};
use super::phase::{Phase, phase_of};
use super::plan::Method;
use super::sketching::Exchange;
use super::stats::SyncStats;
use super::steer::Steering;
use super::transfer::Incoming;
use super::turn::{TurnItem, protocol};
use super::verify::Verification;
use super::wire;
use crate::clock::Stamp;
use crate::dots::{Causality, DotSet};
use crate::hash::{ContextHash, SessionId, TreeHash, session_id};
use crate::limits::Limits;
use crate::merkle::Envelope;
use crate::replica::CollectionView;
use crate::types::{CollectionSpec, NodeId};

/// The length before every frame.
const FRAME_HEADER_BYTES: u64 = 4;
/// A frame of this size takes in no more messages.
const FRAME_BYTES: usize = 64 << 10;

/// Which end of the session this is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Said hello.
    Initiator,
    /// Was greeted.
    Responder,
}

/// The two streams of a session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Lane {
    /// Everything but values.
    Control,
    /// Values.
    Bulk,
}

/// What this end does with entries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Flow {
    Both,
    Take,
    Give,
    Compare,
}

/// Whose turn it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Turn {
    Mine,
    Theirs,
    /// Neither's: both hold one tree.
    Over,
}

/// How far the opening has come.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Stage {
    AwaitReply,
    AwaitOpening,
    /// The rest of the peer's opening is to come.
    AwaitParts,
    /// The peer's snapshot is known, and it is told already what it lacks; its short opening is to
    /// come.
    AwaitFollowing,
    Exchange,
}

/// What a session is given besides the snapshot.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Setup {
    /// This node.
    pub me: NodeId,
    /// The peer, as the connection proved it.
    pub peer: NodeId,
    /// What is asked for (the responder takes mode, strategy and profile from the hello).
    pub config: SyncConfig,
    /// This node's limits.
    pub limits: Limits,
    /// A secret of this one session that both ends share and nobody else knows (TLS exporter over
    /// the number of the control stream): it names the session, and keys tags, ids and filters.
    pub secret: [u8; 32],
    /// This node's clock.
    pub clock: Stamp,
}

/// What this side's snapshot is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Ours {
    pub(super) spec: CollectionSpec,
    pub(super) envelope: Envelope,
    pub(super) causality: Causality,
    pub(super) context: ContextHash,
    pub(super) epoch: u64,
    pub(super) log_position: u64,
}

/// What the peer said of its snapshot.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Peer {
    pub(super) clock: Option<Stamp>,
    pub(super) state: Option<StateTag>,
    pub(super) base: Option<Causality>,
    pub(super) seen: Option<Arc<PeerSeen>>,
    /// Tree of its snapshot.
    pub(super) snapshot: Option<TreeTag>,
    /// Entries of its snapshot.
    pub(super) entries: u64,
    /// Its opening, while parts of it are to come.
    pub(super) opening: Option<Gathering>,
    /// Tree at the end of its last turn.
    pub(super) tree: Option<TreeTag>,
    /// Position in this side's log since which removals are news to it, if it is led.
    pub(super) since: Option<u64>,
}

/// What the peer has made this side do, so that it ends somewhere.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Effort {
    /// Dots, leaves and nodes looked at.
    pub(super) steps: u64,
    /// Bytes of what waits to be said in this side's next turn.
    pub(super) queued_bytes: usize,
    /// Bytes of what was learned of keys.
    pub(super) learned_bytes: usize,
    /// Bytes of filters and sketches that wait to be said in this side's next turn.
    pub(super) sketch_bytes: usize,
    /// Bytes of both contexts and of what stands above them.
    pub(super) context_bytes: usize,
    /// Bytes of pages that the snapshot has loaded.
    pub(super) view_bytes: usize,
    /// The largest value that either side may want.
    pub(super) largest_value: u64,
    /// Whether the peer's first and second filter have come.
    pub(super) filters: [bool; 2],
    /// Dots that this side has named as removed.
    pub(super) named_removed: u64,
    /// Whether either side has begun a sketch exchange.
    pub(super) estimated: bool,
}

/// One session with one peer over one collection.
///
/// All that decides what it does next is in its hash and its equality, so that a model checker can
/// explore it; the snapshot on which it works is not part of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Session {
    pub(super) role: Role,
    pub(super) flow: Flow,
    pub(super) overlay: Overlay,
    pub(super) strategy: Strategy,
    pub(super) setup: Setup,
    pub(super) id: Option<SessionId>,
    pub(super) ours: Ours,
    pub(super) theirs: Peer,
    pub(super) stage: Stage,
    pub(super) turn: Turn,
    /// Whether this side has announced, or need not.
    pub(super) opened: bool,
    /// Whether both trees were seen to be one.
    pub(super) agreed: bool,
    /// Whether a limit of differences was reached: then nothing is joined.
    pub(super) partial: bool,
    /// Bytes of values that the peer was told of and may want.
    pub(super) told_bytes: u64,
    /// Counts what was learned, so that a method that finds nothing is noticed.
    pub(super) progress: u64,
    /// Detection methods used, with the progress before each.
    pub(super) methods: Vec<(Method, u64)>,
    pub(super) knowledge: Knowledge,
    /// What was said of how many differ.
    pub(super) told: Told,
    pub(super) exchange: Option<Exchange>,
    pub(super) steering: Option<Steering>,
    pub(super) descent: Option<Descent>,
    /// Tree that this side stated last.
    pub(super) said: TreeTag,
    pub(super) items: VecDeque<TurnItem>,
    /// Dots that are named as seen dead at the end of this side's turn.
    pub(super) removed: DotSet,
    pub(super) effort: Effort,
    pub(super) control: VecDeque<Message>,
    /// A message that had no room in the last frame, encoded.
    pub(super) unsent: Vec<u8>,
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
    pub(super) verification: Verification,
    pub(super) marks: Marks,
    pub(super) outcome: Option<Outcome>,
    pub(super) stats: SyncStats,
    pub(super) phase: Phase,
    /// What the turns are about just now; values flow beside them.
    pub(super) search: Phase,
}

impl Session {
    /// Opens a session on a snapshot.
    #[must_use]
    pub fn initiate(setup: Setup, view: &dyn CollectionView) -> Self {
        let (mode, strategy) = (setup.config.mode, setup.config.strategy);
        let mut session = Self::new(Role::Initiator, mode, strategy, setup, view);
        session.stage = Stage::AwaitReply;
        let begun = session.hello(view);
        if let Err(failure) = begun {
            session.fail(failure);
        }
        session
    }

    /// Answers a hello on a snapshot of the collection that it names.
    #[must_use]
    pub fn respond(hello: &Hello, mut setup: Setup, view: &dyn CollectionView) -> Self {
        setup.config.profile = hello.profile;
        let mut session = Self::new(Role::Responder, hello.mode, hello.strategy, setup, view);
        session.stage = Stage::AwaitOpening;
        session.turn = Turn::Theirs;
        session.stats.phase(Phase::Hello).messages_received += 1;
        if let Err(failure) = session.answer_hello(hello, view) {
            session.fail(failure);
        }
        session
    }

    /// Reads a hello: the first frame of a session's control stream.
    ///
    /// # Errors
    /// The frame is none.
    pub fn read_hello(frame: &[u8]) -> Result<Hello, AbortCode> {
        match wire::decode(frame) {
            Ok(Message::Hello(hello)) => Ok(hello),
            _ => Err(AbortCode::Protocol),
        }
    }

    /// The frame with which a hello is turned away before there is a session.
    #[must_use]
    pub fn refusal(code: AbortCode) -> Vec<u8> {
        wire::encode(&Message::Free(FreeMessage::Abort(code))).unwrap_or_default()
    }

    fn new(
        role: Role,
        mode: Mode,
        strategy: Strategy,
        setup: Setup,
        view: &dyn CollectionView,
    ) -> Self {
        let flow = match (mode, role) {
            (Mode::Both, _) => Flow::Both,
            (Mode::Compare, _) => Flow::Compare,
            (Mode::Pull, Role::Initiator) | (Mode::Push, Role::Responder) => Flow::Take,
            (Mode::Pull, Role::Responder) | (Mode::Push, Role::Initiator) => Flow::Give,
        };
        let overlay = match flow {
            Flow::Both | Flow::Compare => Overlay::Merged,
            Flow::Take => Overlay::Peer,
            Flow::Give => Overlay::Own,
        };
        let totals = view.envelope().totals();
        let stats = SyncStats {
            entries: totals.entries,
            snapshot_bytes: totals.bytes,
            ..SyncStats::default()
        };
        let ours = Ours {
            spec: view.spec().clone(),
            envelope: view.envelope().clone(),
            causality: view.causality().clone(),
            context: ContextHash([0; 32]),
            epoch: view.epoch(),
            log_position: view.log_position(),
        };
        let said = TreeTag::of(&setup.secret, &ours.envelope.tree_hash());
        let knowledge = Knowledge::new(overlay, view, setup.limits.max_session_memory_bytes);
        Self {
            role,
            flow,
            overlay,
            strategy,
            setup,
            id: None,
            ours,
            theirs: Peer::default(),
            stage: Stage::AwaitReply,
            turn: Turn::Theirs,
            opened: false,
            agreed: false,
            partial: false,
            told_bytes: 0,
            progress: 0,
            methods: Vec::new(),
            knowledge,
            told: Told::default(),
            exchange: None,
            steering: None,
            descent: None,
            said,
            items: VecDeque::new(),
            removed: DotSet::default(),
            effort: Effort::default(),
            control: VecDeque::new(),
            unsent: Vec::new(),
            incoming: Incoming::default(),
            outgoing: Outgoing::default(),
            verification: Verification::default(),
            marks: Marks::default(),
            outcome: None,
            stats,
            phase: Phase::Hello,
            search: Phase::Hello,
        }
    }

    /// The tag of the snapshot, from whose context it is made once.
    fn tag_snapshot(&mut self) -> Result<StateTag, Failure> {
        let context = self.ours.causality.hash(self.ours.spec.algorithm);
        self.ours.context = context.map_err(|_| LimitName::ContextHash)?;
        Ok(self.state_tag())
    }

    pub(super) fn state_tag(&self) -> StateTag {
        let tree = self.tag_of(&self.ours.envelope.tree_hash());
        StateTag::of(&self.setup.secret, &self.ours.spec, &tree, &self.ours.context)
    }

    pub(super) fn tag_of(&self, tree: &TreeHash) -> TreeTag {
        TreeTag::of(&self.setup.secret, tree)
    }

    /// The session has more to do than to say that both are the same.
    pub(super) fn begin(&mut self) {
        let mut nonces = [[0; 32]; 2];
        let mut hasher = blake3::Hasher::new_derive_key("selfsame v1 nonces");
        hasher.update(&self.setup.secret);
        hasher.finalize_xof().fill(nonces.as_flattened_mut());
        self.id = Some(session_id(&nonces[0], &nonces[1]));
    }

    fn hello(&mut self, view: &dyn CollectionView) -> Result<(), Failure> {
        let state = self.tag_snapshot()?;
        self.theirs.base = view.join_record(&self.setup.peer)?.map(|record| record.merged);
        self.marks.known = view.heard_mark(&self.setup.peer)?;
        let algorithm = self.ours.spec.algorithm;
        let base = self.theirs.base.as_ref().and_then(|base| base.hash(algorithm).ok());
        let estimator = self.estimator_for_hello();
        self.control.push_back(Message::Hello(Hello {
            collection: CollectionTag::of(&self.ours.spec),
            mode: self.setup.config.mode,
            strategy: self.setup.config.strategy,
            profile: self.setup.config.profile,
            state,
            base: base.as_ref().map(BaseTag::of),
            estimator,
        }));
        Ok(())
    }

    fn answer_hello(&mut self, hello: &Hello, view: &dyn CollectionView) -> Result<(), Failure> {
        hello.collection.check(&self.ours.spec).map_err(|mismatch| {
            Failure::Ours(match mismatch {
                TagMismatch::Name => AbortCode::UnknownCollection,
                TagMismatch::Algorithm => AbortCode::AlgorithmMismatch,
                TagMismatch::Policy => AbortCode::PolicyMismatch,
            })
        })?;
        let state = self.tag_snapshot()?;
        self.theirs.state = Some(hello.state);
        if state == hello.state {
            self.control.push_back(Message::HelloReply(HelloReply::Same));
            self.outcome = Some(self.nothing_to_do());
            return Ok(());
        }
        self.marks.known = view.heard_mark(&self.setup.peer)?;
        if let Some(former) = self.former_state(hello, view)? {
            return self.lead(&former, view);
        }
        let known = view.join_record(&self.setup.peer)?.map(|record| record.merged);
        let algorithm = self.ours.spec.algorithm;
        self.theirs.base = known.filter(|base| {
            let own = base.hash(algorithm).ok();
            hello.base.is_some() && own.as_ref().map(BaseTag::of) == hello.base
        });
        let estimate = self.estimator_for_reply(hello.estimator);
        let (opening, parts) = self.opening(view)?.into_parts();
        self.control.push_back(Message::HelloReply(HelloReply::Differs {
            state,
            estimate,
            opening: Box::new(opening),
            base_known: self.theirs.base.is_some(),
        }));
        self.control.extend(parts.into_iter().map(Message::OpeningPart));
        Ok(())
    }

    fn nothing_to_do(&self) -> Outcome {
        match self.flow {
            Flow::Both => Outcome::Complete { certificate: None },
            Flow::Take => Outcome::Pulled { refused: Vec::new() },
            Flow::Give => Outcome::Pushed { refused: Vec::new() },
            Flow::Compare => Outcome::Compared { differences: Vec::new(), truncated: false },
        }
    }

    fn hello_reply(&mut self, reply: HelloReply, view: &dyn CollectionView) -> Result<(), Failure> {
        let (state, estimate, opening, base_known) = match reply {
            HelloReply::Differs { state, estimate, opening, base_known } => {
                (state, estimate, opening, base_known)
            }
            HelloReply::Ahead { state, opening } => return self.follow(state, *opening, view),
            HelloReply::Same => {
                self.outcome = Some(self.nothing_to_do());
                return Ok(());
            }
        };
        self.theirs.state = Some(state);
        self.reply_estimates(estimate)?;
        if !base_known {
            self.theirs.base = None;
        }
        self.peer_opening(*opening, view)
    }

    pub(super) fn peer_seen(&self) -> Result<&Arc<PeerSeen>, Failure> {
        self.theirs.seen.as_ref().ok_or_else(protocol)
    }

    /// Counts what the peer makes this side look at. An honest session looks at everything a few
    /// times at most; a peer that asks again and again is stopped.
    pub(super) fn charge(&mut self, steps: u64) -> Result<(), Failure> {
        self.effort.steps = self.effort.steps.saturating_add(steps);
        let entries = self.ours.envelope.totals().siblings;
        let differences = self.setup.limits.max_session_entries as u64;
        let most = entries.saturating_mul(16).saturating_add(differences.saturating_mul(64));
        if self.effort.steps > most { Err(LimitName::Work.into()) } else { Ok(()) }
    }

    /// Takes in a frame. Whatever its bytes: afterwards the session goes on, or has an outcome.
    pub fn handle(&mut self, lane: Lane, frame: &[u8], view: &dyn CollectionView, now_ms: u64) {
        if self.outcome.is_some() {
            return;
        }
        if let Err(failure) = self.receive(lane, frame, view, now_ms) {
            self.fail(failure);
        }
    }

    fn receive(
        &mut self,
        lane: Lane,
        frame: &[u8],
        view: &dyn CollectionView,
        now_ms: u64,
    ) -> Result<(), Failure> {
        match lane {
            Lane::Control => {
                let mut header = FRAME_HEADER_BYTES;
                let mut rest = frame;
                loop {
                    let (message, used): (Message, usize) =
                        wire::decode_first(rest).map_err(|_| protocol())?;
                    let phase = self.phase_of(&message);
                    self.count(phase, used as u64 + header, false);
                    self.expect(&message)?;
                    self.control_message(message, view, now_ms)?;
                    (rest, header) = (&rest[used..], 0);
                    if rest.is_empty() {
                        break;
                    }
                    self.check_memory(view)?;
                    self.settle(view)?;
                    if self.outcome.is_some() {
                        return Ok(());
                    }
                }
            }
            Lane::Bulk => {
                let bulk: Bulk = wire::decode(frame).map_err(|_| protocol())?;
                self.count(Phase::StateTransfer, frame.len() as u64 + FRAME_HEADER_BYTES, false);
                if self.stage != Stage::Exchange {
                    return Err(protocol());
                }
                self.marks.unjudged = false;
                self.bulk_message(bulk, view)?;
            }
        }
        self.check_memory(view)?;
        self.settle(view)
    }

    /// The one place that says which message may come when.
    fn expect(&self, message: &Message) -> Result<(), Failure> {
        let expected = match message {
            Message::Hello(_) => false,
            Message::HelloReply(_) => self.stage == Stage::AwaitReply,
            Message::Turn(TurnMessage::Opening(_)) => self.stage == Stage::AwaitOpening,
            Message::Turn(TurnMessage::Following(_)) => self.stage == Stage::AwaitFollowing,
            Message::OpeningPart(_) => self.stage == Stage::AwaitParts,
            Message::Turn(_) | Message::TurnEnd(_) => {
                self.stage == Stage::Exchange
                    && self.turn != Turn::Mine
                    && self.verification.is_open()
            }
            Message::Free(FreeMessage::Abort(_)) => true,
            Message::Free(FreeMessage::Joined { .. } | FreeMessage::Heads(_)) => {
                self.moves_entries()
            }
            // what was verified changes no more
            Message::Free(_) => self.moves_entries() && self.verification.is_open(),
        };
        if expected { Ok(()) } else { Err(protocol()) }
    }

    fn moves_entries(&self) -> bool {
        self.stage == Stage::Exchange && self.flow != Flow::Compare
    }

    fn control_message(
        &mut self,
        message: Message,
        view: &dyn CollectionView,
        now_ms: u64,
    ) -> Result<(), Failure> {
        match message {
            Message::Hello(_) => Err(protocol()),
            Message::HelloReply(reply) => self.hello_reply(reply, view),
            Message::Turn(message) => self.turn_message(message, view, now_ms),
            Message::TurnEnd(end) => self.turn_over(&end, view),
            Message::OpeningPart(part) => self.peer_opening_part(part, view),
            Message::Free(message) => {
                // whoever says any of this has this side's opening
                self.marks.unjudged &= matches!(message, FreeMessage::Abort(_));
                self.free_message(message, view)
            }
        }
    }

    fn free_message(
        &mut self,
        message: FreeMessage,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        match message {
            FreeMessage::Abort(code) => {
                self.note_told(code, view);
                Err(Failure::Peer(code))
            }
            FreeMessage::Refused(items) => self.peer_refused(&items, view),
            FreeMessage::Ready(ready) => self.peer_ready(ready),
            FreeMessage::Joined { signature } => self.peer_joined(signature.map(|s| s.0)),
            FreeMessage::Heads(heads) => self.peer_heads(&heads),
            FreeMessage::Request(wants) => self.peer_wants(wants, view),
            FreeMessage::NeedSignature(of) => self.peer_needs_signature(of, view),
            FreeMessage::Signature { of, signature } => self.peer_signature(of, signature),
            FreeMessage::NeedBlocks { of, gaps } => self.peer_needs_blocks(of, &gaps, view),
            FreeMessage::Blocks { of, signature } => self.peer_blocks(of, signature),
            FreeMessage::Unavailable(numbers) => self.peer_cannot_send(&numbers, view),
        }
    }

    /// The next frame to send on a lane, if there is one by now.
    pub fn poll_transmit(&mut self, lane: Lane, view: &dyn CollectionView) -> Option<Vec<u8>> {
        let frame = match lane {
            Lane::Control => self.next_control(view),
            Lane::Bulk => self.next_bulk(view),
        };
        self.note_memory(view);
        match frame {
            Ok(frame) => frame,
            Err(failure) => {
                self.fail(failure);
                match lane {
                    Lane::Control => self.next_control(view).ok().flatten(),
                    Lane::Bulk => None,
                }
            }
        }
    }

    /// All that there is to say by now, as far as it goes into a frame.
    fn next_control(&mut self, view: &dyn CollectionView) -> Result<Option<Vec<u8>>, Failure> {
        let mut frame = std::mem::take(&mut self.unsent);
        while frame.len() < FRAME_BYTES {
            let message = match self.next_message(view) {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(failure) if frame.is_empty() => return Err(failure),
                Err(failure) => {
                    self.fail(failure);
                    break;
                }
            };
            let phase = self.phase_of(&message);
            let bytes = wire::encode(&message).map_err(|_| LimitName::FrameBytes)?;
            let alone = frame.is_empty() || frame.len() + bytes.len() > wire::MAX_FRAME_BYTES;
            let header = if alone { FRAME_HEADER_BYTES } else { 0 };
            self.count(phase, bytes.len() as u64 + header, true);
            if alone && !frame.is_empty() {
                self.unsent = bytes;
                break;
            }
            frame.extend(bytes);
        }
        Ok((!frame.is_empty()).then_some(frame))
    }

    fn next_message(&mut self, view: &dyn CollectionView) -> Result<Option<Message>, Failure> {
        let mut message = self.control.pop_front();
        if message.is_none() && self.outcome.is_none() {
            message = self.next_request().map(Message::Free);
        }
        let turns = matches!(self.stage, Stage::Exchange | Stage::AwaitFollowing);
        if message.is_none() && self.outcome.is_none() && turns {
            message = self.next_turn_message(view)?;
            if matches!(message, Some(Message::TurnEnd(_))) {
                self.settle(view)?;
            }
        }
        Ok(message)
    }

    fn next_bulk(&mut self, view: &dyn CollectionView) -> Result<Option<Vec<u8>>, Failure> {
        if self.outcome.is_some() || self.stage != Stage::Exchange {
            return Ok(None);
        }
        let Some(bulk) = self.next_values(view)? else { return Ok(None) };
        let frame = wire::encode(&bulk).map_err(|_| LimitName::FrameBytes)?;
        self.count(Phase::StateTransfer, frame.len() as u64 + FRAME_HEADER_BYTES, true);
        Ok(Some(frame))
    }

    /// The phase to which a message belongs; a turn's end belongs to what came before it.
    fn phase_of(&mut self, message: &Message) -> Phase {
        let phase = phase_of(message, self.search);
        if matches!(message, Message::Turn(_) | Message::TurnEnd(_)) {
            self.search = phase;
        }
        phase
    }

    fn count(&mut self, phase: Phase, bytes: u64, sent: bool) {
        self.phase = phase;
        let stats = self.stats.phase(phase);
        if sent {
            stats.bytes_sent += bytes;
            stats.messages_sent += 1;
        } else {
            stats.bytes_received += bytes;
            stats.messages_received += 1;
        }
    }

    /// Ends the session from outside: the user stopped it, a deadline passed. Once this side has
    /// done its part, the peer may end the session well by itself, and this side cannot know. A peer
    /// that has signed two histories is none whose word counts: that session failed in any case.
    pub fn abort(&mut self, code: AbortCode) {
        if self.has_done_its_part() && code != AbortCode::Contradiction {
            self.disconnected();
        } else if self.outcome.is_none() {
            self.fail(Failure::Ours(code));
        }
    }

    /// The store could not apply what the session learned; what was applied before stays.
    pub fn store_failed(&mut self, what: &str) {
        self.fail(Failure::View(what.to_owned()));
    }

    /// The connection is gone: this end cannot know how the session ended at the other.
    pub fn disconnected(&mut self) {
        if self.outcome.is_none() {
            self.outcome = Some(Outcome::Interrupted);
        }
    }

    pub(super) fn fail(&mut self, failure: Failure) {
        if self.outcome.is_some() {
            return;
        }
        let code = match &failure {
            Failure::Ours(code) => Some(*code),
            Failure::View(_) => Some(AbortCode::Internal),
            Failure::Lie { .. } => Some(AbortCode::Lie),
            Failure::Peer(_) => None,
        };
        if matches!(code, Some(AbortCode::Clone | AbortCode::Copied)) {
            // what this side has heard shows the peer which of its writers is meant
            let opens = |message: &Message| {
                matches!(
                    message,
                    Message::Turn(TurnMessage::Opening(_) | TurnMessage::Following(_))
                        | Message::OpeningPart(_)
                )
            };
            self.control.retain(opens);
        } else {
            self.control.clear();
        }
        self.items.clear();
        self.removed = DotSet::default();
        (self.exchange, self.steering, self.descent) = (None, None, None);
        if let Some(code) = code {
            self.control.push_back(Message::Free(FreeMessage::Abort(code)));
        }
        self.outcome = Some(Outcome::Failed(failure));
    }

    /// How the session ended; none while it runs. Frames may still be waiting to be sent.
    #[must_use]
    pub const fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// The figures so far.
    #[must_use]
    pub const fn stats(&self) -> &SyncStats {
        &self.stats
    }

    /// Adds wall time that this side's own work took, to the phase it was in.
    pub fn count_busy(&mut self, micros: u64) {
        let phase = self.phase;
        self.stats.phase(phase).busy_us += micros;
    }

    /// The phase of the last message.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// The session's id, once the peer's opening has come.
    #[must_use]
    pub const fn id(&self) -> Option<SessionId> {
        self.id
    }

    /// Whether anything waits to be sent on the control lane although the session is over.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.control.is_empty() && self.unsent.is_empty()
    }

    /// Whether the peer has had the last word, and awaits none: it has said that the states are
    /// the same.
    #[must_use]
    pub const fn is_answered(&self) -> bool {
        let well = !matches!(self.outcome, None | Some(Outcome::Failed(_) | Outcome::Interrupted));
        well && matches!(self.role, Role::Initiator) && self.theirs.state.is_none()
    }

    /// The peer's clock, once it has come to verification.
    #[must_use]
    pub const fn peer_clock(&self) -> Option<Stamp> {
        self.theirs.clock
    }

    /// What bounds this side of the session.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.setup.limits
    }

    /// This node.
    #[must_use]
    pub const fn me(&self) -> NodeId {
        self.setup.me
    }

    /// The collection's name, algorithm and policy.
    #[must_use]
    pub const fn spec(&self) -> &CollectionSpec {
        &self.ours.spec
    }
}
