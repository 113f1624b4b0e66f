//! Openings: in one message, or, with very many writers, exceptions or runs, in several.

use serde::{Deserialize, Serialize};

use super::{TreeTag, WireCausality, WireDots};
use crate::dots::{DotSet, Writer};
use crate::replica::WriterMark;

/// What one side's snapshot is: enough to work out what it has not seen.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Opening {
    /// Tree of the snapshot.
    pub tree: TreeTag,
    /// Its entries.
    pub entries: u64,
    /// Context and exceptions of the snapshot.
    pub causality: WireCausality,
    /// Dots held above the context, unless they are too many runs to list.
    pub above: Option<WireDots>,
    /// What this side tells of its present writer; none if it has not written since it was opened.
    pub writer: Option<WriterMark>,
    /// What it heard last of the peer's writer, repeated.
    pub heard: Option<WriterMark>,
    /// How many [`OpeningPart`]s follow. Then all lists here are empty: they come in the parts.
    pub parts: u32,
}

/// The opening of an initiator whose snapshot the responder knows.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Following {
    /// As in an [`Opening`].
    pub writer: Option<WriterMark>,
    /// As in an [`Opening`].
    pub heard: Option<WriterMark>,
}

/// A part of an opening's lists. Parts come in the order of the variants, and what is in them in
/// the order of the lists.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum OpeningPart {
    /// Pairs of the context, or those that changed.
    Pairs(Vec<(Writer, u64)>),
    /// Writers of the base that are gone.
    Gone(Vec<Writer>),
    /// Exceptions.
    Exceptions(WireDots),
    /// Dots held above the context.
    Above(WireDots),
}

impl Opening {
    /// Most items (pairs, writers, runs) of one message: 28 bytes each at most, so that they fit
    /// a frame.
    pub const ITEMS_PER_MESSAGE: usize = 32_768;

    fn items(&self) -> usize {
        let (lists, exceptions) = match &self.causality {
            WireCausality::Whole { pairs, exceptions } => (pairs.len(), exceptions),
            WireCausality::Difference { changed, gone, exceptions } => {
                (changed.len() + gone.len(), exceptions)
            }
        };
        lists + exceptions.run_count() + self.above.as_ref().map_or(0, WireDots::run_count)
    }

    /// As it is sent: alone if it fits one message, else without its lists, which follow.
    #[must_use]
    pub fn into_parts(mut self) -> (Self, Vec<OpeningPart>) {
        let mut parts = Vec::new();
        if self.items() <= Self::ITEMS_PER_MESSAGE {
            return (self, parts);
        }
        let exceptions = match &mut self.causality {
            WireCausality::Whole { pairs, exceptions } => {
                split(std::mem::take(pairs), OpeningPart::Pairs, &mut parts);
                exceptions
            }
            WireCausality::Difference { changed, gone, exceptions } => {
                split(std::mem::take(changed), OpeningPart::Pairs, &mut parts);
                split(std::mem::take(gone), OpeningPart::Gone, &mut parts);
                exceptions
            }
        };
        parts.extend(std::mem::take(exceptions).split().map(OpeningPart::Exceptions));
        let above = self.above.as_mut().map(std::mem::take).unwrap_or_default();
        parts.extend(above.split().map(OpeningPart::Above));
        self.parts = parts.len() as u32;
        (self, parts)
    }
}

fn split<T: Clone>(list: Vec<T>, part: fn(Vec<T>) -> OpeningPart, parts: &mut Vec<OpeningPart>) {
    parts.extend(list.chunks(Opening::ITEMS_PER_MESSAGE).map(|some| part(some.to_vec())));
}

impl WireDots {
    fn split(self) -> impl Iterator<Item = Self> {
        // it was made from a set
        let runs: Vec<_> = self.to_set().unwrap_or_default().runs().collect();
        let parts: Vec<_> = runs
            .chunks(Opening::ITEMS_PER_MESSAGE)
            .map(|some| {
                let mut set = DotSet::default();
                some.iter().for_each(|&run| set.insert_run(run));
                Self::from(&set)
            })
            .collect();
        parts.into_iter()
    }
}
