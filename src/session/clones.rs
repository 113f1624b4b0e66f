//! Whether a writer has two users: what the peer tells of its own, repeats of this side's, and
//! has seen of it, held against what is known. Before anything is removed.

use super::machine::{Flow, Session};
use super::outcome::{AbortCode, Failure};
use crate::dots::{Dot, Writer};
use crate::mutants::{Mutant, breaks};
use crate::replica::{CloneFound, CloneSign, CollectionView, HeardMark, PresentWriter, WriterMark};

use super::knowledge::PeerSeen;

/// What this side knows of writers, and has found.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Marks {
    /// What was known of the peer's writer before the peer could tell it.
    pub(super) known: Option<HeardMark>,
    /// What the peer has told, until it is polled.
    heard: Option<WriterMark>,
    /// Writers with two users, until they are polled.
    found: Vec<CloneFound>,
    /// The last that was found by a dot.
    by_dot: Option<Writer>,
    /// Whether the peer began before it could judge what this side tells of its writer, and has
    /// said nothing since from which follows that it did: until then nothing is applied.
    pub(super) unjudged: bool,
}

/// What is to be remembered of a peer's writer.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HeardNow {
    /// What it told.
    pub mark: WriterMark,
    /// What was known when the session began.
    pub since: Option<HeardMark>,
}

impl Session {
    /// What this side tells of its own writer, and what it repeats of the peer's. A comparison
    /// changes nothing, so that one looks at what differs with a clone too.
    pub(super) fn marks_to_tell(
        &self,
        view: &dyn CollectionView,
    ) -> (Option<WriterMark>, Option<WriterMark>) {
        if self.flow == Flow::Compare {
            return (None, None);
        }
        let told = view.own_writer().and_then(crate::replica::OwnWriter::tell);
        (told, self.marks.known.as_ref().map(|known| known.last))
    }

    /// Judges what the peer's opening says of writers: what it tells of its own, and what it
    /// repeats of this side's.
    pub(super) fn judge_marks(
        &mut self,
        (told, echoed): (Option<WriterMark>, Option<WriterMark>),
        peer: &PeerSeen,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        if self.flow == Flow::Compare || breaks(Mutant::IgnoreClones) {
            return Ok(());
        }
        self.marks.heard = told;
        let found = &mut self.marks.found;
        if let (Some(mark), Some(known)) = (told, &self.marks.known) {
            let sign = known.contradicted_by(&mark);
            found.extend(sign.map(|sign| CloneFound { ours: false, sign, mark }));
        }
        if let Some(own) = view.own_writer() {
            let ours = |sign| move |mark| CloneFound { ours: true, sign, mark };
            let present = own.present();
            let shared =
                told.filter(|mark| present.is_some_and(|present| present.writer == mark.writer));
            let echo = echoed.filter(|echo| own.disowns(echo)).map(ours(CloneSign::Echo));
            // one proof of a thing is enough
            let proof = shared.map(ours(CloneSign::Mark)).or(echo);
            found.extend(proof.or_else(|| overtaken(present?, peer)));
        }
        match self.marks.found.first() {
            None => Ok(()),
            Some(found) if found.ours => Err(Failure::Ours(AbortCode::Clone)),
            Some(_) => Err(Failure::Ours(AbortCode::Copied)),
        }
    }

    /// The peer has ended the session because it found that this node has a copy. What shows it
    /// may be known to the peer alone.
    pub(super) fn note_told(&mut self, code: AbortCode, view: &dyn CollectionView) {
        let own = view.own_writer().and_then(crate::replica::OwnWriter::present);
        if let (AbortCode::Copied, Some(present)) = (code, own)
            && self.flow != Flow::Compare
            && !breaks(Mutant::IgnoreClones)
        {
            let found = CloneFound { ours: true, sign: CloneSign::Told, mark: present.into() };
            self.marks.found.push(found);
        }
    }

    /// A dot of this side's writer stands for another put at the peer.
    pub(super) fn note_own_twin(&mut self, dot: Dot, view: &dyn CollectionView) {
        let present = view.own_writer().and_then(crate::replica::OwnWriter::present);
        let Some(present) = present.filter(|present| present.writer == dot.writer()) else {
            return;
        };
        if self.marks.by_dot != Some(present.writer) {
            self.marks.by_dot = Some(present.writer);
            let mark = WriterMark { counter: dot.counter(), ..present.into() };
            let found = CloneFound { ours: true, sign: CloneSign::SameDot, mark };
            self.marks.found.push(found);
        }
    }

    /// Writers that were found to have two users: whoever drives the session lets go of its own
    /// ([`note_clone`](crate::replica::Collection::note_clone)), before anything else is done, if
    /// the peer may write; by the word of one that may only read nothing changes.
    pub fn poll_clones(&mut self) -> Vec<CloneFound> {
        std::mem::take(&mut self.marks.found)
    }

    /// What is to be remembered of the peer's writer, if the peer may write
    /// ([`hear_mark`](crate::replica::Collection::hear_mark)).
    pub fn poll_heard(&mut self) -> Option<HeardNow> {
        let mark = self.marks.heard.take()?;
        Some(HeardNow { mark, since: self.marks.known.clone() })
    }
}

/// Whether the peer has seen more of a writer than it has written.
fn overtaken(present: PresentWriter, peer: &PeerSeen) -> Option<CloneFound> {
    let seen = peer.causality.counter(present.writer);
    let last_of = |set: &crate::dots::DotSet| set.runs_of(present.writer).map(|run| run.last).max();
    let dead = last_of(peer.causality.exceptions()).unwrap_or(0);
    let held = peer.above.as_ref().and_then(last_of).unwrap_or(0);
    let counter = seen.max(dead).max(held);
    let mark = WriterMark { counter, ..present.into() };
    (counter > present.counter).then_some(CloneFound { ours: true, sign: CloneSign::Context, mark })
}
