//! An initiator whose snapshot is a former state of the responder: it is strictly behind, so that
//! nothing has to be asked of it. It is told at once what changed since.
//!
//! What the initiator learns is applied only once the responder has judged the marks that come
//! with its short opening.

use std::sync::Arc;

use super::config::Strategy;
use super::knowledge::PeerSeen;
use super::machine::{Flow, Role, Session, Stage, Turn};
use super::message::{
    Following, Hello, HelloReply, Message, Opening, StateTag, TreeTag, TurnMessage,
};
use super::outcome::Failure;
use super::phase::Phase;
use super::plan;
use super::turn::protocol;
use crate::dots::DotSet;
use crate::replica::{CollectionView, JoinRecord};

impl Session {
    /// What is remembered of the state of an initiator that can be led from there.
    pub(super) fn former_state(
        &self,
        hello: &Hello,
        view: &dyn CollectionView,
    ) -> Result<Option<Arc<JoinRecord>>, Failure> {
        if !self.may_be_led() {
            return Ok(None);
        }
        let secret = &self.setup.secret;
        let is = |tree: &_, context: &_| {
            let tree = TreeTag::of(secret, tree);
            StateTag::of(secret, &self.ours.spec, &tree, context) == hello.state
        };
        Ok(view.common_state(&self.setup.peer, &is)?)
    }

    /// Whether the responder may begin to tell, if it has seen all that the initiator has.
    fn may_be_led(&self) -> bool {
        let responder_gives = match self.role {
            Role::Responder => matches!(self.flow, Flow::Both | Flow::Give),
            Role::Initiator => matches!(self.flow, Flow::Both | Flow::Take),
        };
        responder_gives && self.strategy == Strategy::Auto
    }

    /// Answers an initiator whose snapshot is a former state of this side: with its own opening,
    /// and the first turn.
    pub(super) fn lead(
        &mut self,
        former: &JoinRecord,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        self.theirs.base = Some(former.merged.clone());
        let (opening, parts) = self.opening(view)?.into_parts();
        let state = self.state_tag();
        let reply = HelloReply::Ahead { state, opening: Box::new(opening) };
        self.control.push_back(Message::HelloReply(reply));
        self.control.extend(parts.into_iter().map(Message::OpeningPart));
        // what it holds above its context is not remembered: at worst it is told again, or a
        // comparison finds what of it is dead by now
        let above = Some(DotSet::default());
        let snapshot = (self.tag_of(&former.tree), former.totals.entries);
        self.peer_has(snapshot, PeerSeen { causality: former.merged.clone(), above })?;
        self.theirs.since = Some(former.log_position);
        self.stage = Stage::AwaitFollowing;
        self.turn = Turn::Mine;
        self.opened = true;
        self.announce(view)
    }

    /// The responder knows this side's snapshot, and begins.
    pub(super) fn follow(
        &mut self,
        state: StateTag,
        opening: Opening,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        if !self.may_be_led() {
            return Err(protocol());
        }
        self.theirs.state = Some(state);
        self.theirs.base = Some(self.ours.causality.clone());
        self.marks.unjudged = true;
        let reason =
            "the peer was at this state before: it tells what it has seen since".to_owned();
        self.note_plan(Phase::Announce, reason, plan::announcement_cost(0, 0, 0));
        self.peer_opening(opening, view)
    }

    /// This side's opening, where the peer knows its snapshot.
    pub(super) fn following(&self, view: &dyn CollectionView) -> Message {
        let (writer, heard) = self.marks_to_tell(view);
        Message::Turn(TurnMessage::Following(Following { writer, heard }))
    }

    /// The opening of an initiator that is led.
    pub(super) fn peer_follows(
        &mut self,
        following: &Following,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        self.begin();
        let seen = Arc::clone(self.peer_seen()?);
        self.judge_marks((following.writer, following.heard), &seen, view)?;
        self.stage = Stage::Exchange;
        Ok(())
    }
}
