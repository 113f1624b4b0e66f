//! Openings: what each side says of its snapshot before the first turn.

use std::sync::Arc;

use super::config::Strategy;
use super::knowledge::PeerSeen;
use super::machine::{Flow, Role, Session, Stage, Turn};
use super::memory::{causality_bytes, dots_bytes};
use super::message::{
    Message, Opening, OpeningPart, StateTag, TreeTag, TurnMessage, WireCausality, WireDots,
};
use super::outcome::{AbortCode, Failure, LimitName};
use super::turn::{DOTS_AT_ONCE, protocol};
use crate::dots::{Dot, DotSet, Writer};
use crate::limits::Limits;
use crate::replica::CollectionView;

/// Most runs of dots above the context that are listed in an opening.
const MAX_RUNS_ABOVE: usize = 32_768;

/// An opening of which parts are to come.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Gathering {
    opening: Opening,
    left: u32,
    /// Kind of the last part.
    kind: u8,
}

impl Gathering {
    /// Begins to gather, unless more is announced than the limits let through.
    fn new(opening: Opening, limits: &Limits) -> Result<Self, Failure> {
        let messages = |items: usize| items.div_ceil(Opening::ITEMS_PER_MESSAGE);
        let exceptions = usize::try_from(limits.max_exceptions).unwrap_or(usize::MAX);
        let most = [limits.max_writers, limits.max_writers, exceptions, MAX_RUNS_ABOVE]
            .into_iter()
            .fold(0, |sum: usize, items| sum.saturating_add(messages(items)));
        if opening.parts as usize > most {
            return Err(LimitName::OpeningParts.into());
        }
        Ok(Self { left: opening.parts, opening, kind: 0 })
    }

    /// Takes in a part: the next in order, not empty, and within the limits together with what
    /// came before it.
    fn add(&mut self, part: OpeningPart, limits: &Limits) -> Result<(), Failure> {
        let kind = match &part {
            OpeningPart::Pairs(_) => 0,
            OpeningPart::Gone(_) => 1,
            OpeningPart::Exceptions(_) => 2,
            OpeningPart::Above(_) => 3,
        };
        if kind < self.kind {
            return Err(protocol());
        }
        (self.kind, self.left) = (kind, self.left - 1);
        let most_exceptions = usize::try_from(limits.max_exceptions).unwrap_or(usize::MAX);
        match (part, &mut self.opening.causality, &mut self.opening.above) {
            (
                OpeningPart::Pairs(more),
                WireCausality::Whole { pairs, .. }
                | WireCausality::Difference { changed: pairs, .. },
                _,
            ) => append(pairs, more, |pair| pair.0, limits.max_writers),
            (OpeningPart::Gone(more), WireCausality::Difference { gone, .. }, _) => {
                append(gone, more, |&writer| writer, limits.max_writers)
            }
            (
                OpeningPart::Exceptions(more),
                WireCausality::Whole { exceptions, .. }
                | WireCausality::Difference { exceptions, .. },
                _,
            ) => append_dots(exceptions, more, most_exceptions, LimitName::Exceptions),
            (OpeningPart::Above(more), _, Some(above)) => {
                append_dots(above, more, MAX_RUNS_ABOVE, LimitName::DotsAbove)
            }
            _ => Err(protocol()),
        }
    }
}

fn append<T>(
    list: &mut Vec<T>,
    more: Vec<T>,
    writer: fn(&T) -> Writer,
    most: usize,
) -> Result<(), Failure> {
    let first = more.first().map(writer).ok_or_else(protocol)?;
    if list.last().map(writer).is_some_and(|last| last >= first) {
        return Err(protocol());
    }
    if more.len() > most.saturating_sub(list.len()) {
        return Err(LimitName::Writers.into());
    }
    list.extend(more);
    Ok(())
}

fn append_dots(
    dots: &mut WireDots,
    more: WireDots,
    most: usize,
    limit: LimitName,
) -> Result<(), Failure> {
    let first = more.first().ok_or_else(protocol)?;
    if dots.last().is_some_and(|last| last >= first) {
        return Err(protocol());
    }
    if more.run_count() > most.saturating_sub(dots.run_count()) {
        return Err(limit.into());
    }
    dots.0.extend(more.0);
    Ok(())
}

impl WireDots {
    fn first(&self) -> Option<Dot> {
        let (writer, runs) = self.0.first()?;
        Dot::of(*writer, runs.first()?.0.checked_add(1)?)
    }

    /// The last dot, of sets in canonical form.
    fn last(&self) -> Option<Dot> {
        let (writer, runs) = self.0.last()?;
        let ends = runs.iter().try_fold(0u64, |end, &(gap, more)| {
            end.checked_add(gap)?.checked_add(1)?.checked_add(more)
        });
        Dot::of(*writer, ends?)
    }
}

impl Session {
    pub(super) fn opening(&self, view: &dyn CollectionView) -> Result<Opening, Failure> {
        let (writer, heard) = self.marks_to_tell(view);
        Ok(Opening {
            tree: self.tag_of(&self.ours.envelope.tree_hash()),
            entries: self.ours.envelope.totals().entries,
            causality: WireCausality::new(&self.ours.causality, self.theirs.base.as_ref()),
            above: Self::dots_above(view)?.as_ref().map(WireDots::from),
            writer,
            heard,
            parts: 0,
        })
    }

    /// Takes in the peer's opening, or the beginning of it.
    pub(super) fn peer_opening(
        &mut self,
        opening: Opening,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        self.begin();
        if opening.parts == 0 {
            return self.peer_opened(opening, view);
        }
        self.theirs.opening = Some(Gathering::new(opening, &self.setup.limits)?);
        self.stage = Stage::AwaitParts;
        Ok(())
    }

    /// Goes on with the peer's opening.
    pub(super) fn peer_opening_part(
        &mut self,
        part: OpeningPart,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        let gathering = self.theirs.opening.as_mut().ok_or_else(protocol)?;
        gathering.add(part, &self.setup.limits)?;
        if gathering.left > 0 {
            return Ok(());
        }
        let whole = self.theirs.opening.take().ok_or_else(protocol)?;
        self.peer_opened(whole.opening, view)
    }

    /// The peer's opening is whole: an initiator answers with its own, and begins.
    fn peer_opened(&mut self, opening: Opening, view: &dyn CollectionView) -> Result<(), Failure> {
        if self.role == Role::Responder {
            return self.peer_is(opening, view);
        }
        self.opened = true;
        if self.marks.unjudged {
            // the peer begins
            let following = self.following(view);
            self.control.push_back(following);
            return self.peer_is(opening, view);
        }
        let (ours, parts) = self.opening(view)?.into_parts();
        self.control.push_back(Message::Turn(TurnMessage::Opening(ours)));
        self.control.extend(parts.into_iter().map(Message::OpeningPart));
        self.turn = Turn::Mine;
        self.peer_is(opening, view)?;
        if self.strategy != Strategy::Auto {
            return self.start_detection(view);
        }
        if self.flow == Flow::Take {
            return Ok(());
        }
        self.announce(view)
    }

    /// Takes in what the peer's snapshot is: checked against its state hash, and against limits
    /// before anything is built from it.
    fn peer_is(&mut self, opening: Opening, view: &dyn CollectionView) -> Result<(), Failure> {
        if self.theirs.seen.is_some() {
            return Err(protocol());
        }
        let (writers, exceptions) = opening.causality.size();
        let limits = &self.setup.limits;
        if writers > limits.max_writers {
            return Err(LimitName::Writers.into());
        }
        if exceptions > limits.max_exceptions {
            return Err(LimitName::Exceptions.into());
        }
        let causality =
            opening.causality.resolve(self.theirs.base.as_ref()).ok_or_else(protocol)?;
        let above = match &opening.above {
            None => None,
            Some(above) if above.run_count() <= MAX_RUNS_ABOVE => {
                Some(above.to_set().ok_or_else(protocol)?)
            }
            Some(_) => return Err(LimitName::DotsAbove.into()),
        };
        let context = causality.hash(self.ours.spec.algorithm).map_err(|_| protocol())?;
        let state = StateTag::of(&self.setup.secret, &self.ours.spec, &opening.tree, &context);
        if Some(state) != self.theirs.state {
            return Err(Failure::Ours(AbortCode::Lie));
        }
        let dead = causality.exceptions().clone();
        let seen = self.peer_has((opening.tree, opening.entries), PeerSeen { causality, above })?;
        self.judge_marks((opening.writer, opening.heard), &seen, view)?;
        self.stage = Stage::Exchange;
        match self.flow {
            Flow::Give => Ok(()),
            Flow::Take => {
                self.forget_unseen(view)?;
                self.peer_removed(&dead, view)
            }
            Flow::Both | Flow::Compare => self.peer_removed(&dead, view),
        }
    }

    /// Takes note of the peer's snapshot, its tree and its entries, if there is room for it.
    pub(super) fn peer_has(
        &mut self,
        (tree, entries): (TreeTag, u64),
        seen: PeerSeen,
    ) -> Result<Arc<PeerSeen>, Failure> {
        self.theirs.entries = entries;
        (self.theirs.tree, self.theirs.snapshot) = (Some(tree), Some(tree));
        self.effort.context_bytes = causality_bytes(&seen.causality)
            + causality_bytes(&self.ours.causality)
            + self.theirs.base.as_ref().map_or(0, causality_bytes)
            + seen.above.as_ref().map_or(0, dots_bytes);
        if self.is_crowded() {
            // no session would have room to learn anything
            return Err(LimitName::SessionMemory.into());
        }
        let seen = Arc::new(seen);
        self.theirs.seen = Some(Arc::clone(&seen));
        Ok(seen)
    }

    /// The dots held above the own context, unless they are too many runs.
    pub(super) fn dots_above(view: &dyn CollectionView) -> Result<Option<DotSet>, Failure> {
        let mut above = DotSet::default();
        for writer in view.writers()? {
            let mut after = view.causality().counter(writer);
            loop {
                let dots = view.dots_after(writer, after, DOTS_AT_ONCE)?;
                let Some(&(last, _)) = dots.last() else { break };
                after = last.counter();
                for (dot, _) in &dots {
                    above.insert(*dot);
                }
                if above.run_count() > MAX_RUNS_ABOVE {
                    return Ok(None);
                }
                if dots.len() < DOTS_AT_ONCE {
                    break;
                }
            }
        }
        Ok(Some(above))
    }
}
