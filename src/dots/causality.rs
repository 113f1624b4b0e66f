//! Context and exceptions of a collection, kept canonical.

mod slice;

use std::collections::BTreeMap;

use super::{Dot, DotRun, DotSet, Writer};
use crate::codec::{CodecError, Reader, Writing};
use crate::hash::{ContextHash, HashAlgorithm};

/// Context bytes that are not canonical.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContextError {
    /// Cut short or left over.
    #[error("context: {0}")]
    Codec(#[from] CodecError),
    /// A writer or counter of zero.
    #[error("context: a writer or counter is zero")]
    Zero,
    /// Not strictly ascending.
    #[error("context: pairs or exceptions are not strictly ascending")]
    Order,
    /// An exception at or below its writer's counter.
    #[error("context: exception {0} is covered by the context")]
    Covered(Dot),
    /// An exception right above its writer's counter.
    #[error("context: exception {0} stands right above the context, which should cover it")]
    Adjacent(Dot),
    /// More exceptions than the format can count.
    #[error("context: {0} exceptions are more than a context can list")]
    TooMany(u64),
}

/// For each writer the least dot that a receiver refused, with all dots it did not take.
pub type RefusedDots = DotSet;

/// What a replica has seen of a collection: context (version vector) and exceptions.
///
/// Canonical at every commit: `context[writer]` is the greatest c such that all of
/// (writer, 1..=c) were seen; no exception is covered or stands right above its context. So the
/// pair is a pure function of what was seen, and equal states have equal hashes.
///
/// The dots that are held are not stored here; methods that may advance the context take a
/// closure that says whether a dot is held.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Causality {
    context: BTreeMap<Writer, u64>,
    exceptions: DotSet,
}

impl Causality {
    /// From pairs and exceptions in any form, made canonical with the dots held.
    pub fn new(
        context: impl IntoIterator<Item = (Writer, u64)>,
        exceptions: DotSet,
        held: impl Fn(Dot) -> bool,
    ) -> Self {
        let context = context.into_iter().filter(|&(_, counter)| counter > 0).collect();
        let mut causality = Self { context, exceptions };
        causality.canonicalise(held);
        causality
    }

    /// What the surviving entries alone say was seen, after the context was lost: each writer's
    /// unbroken run from 1. `held` are all dots held.
    #[must_use]
    pub fn of_survivors(held: &DotSet) -> Self {
        let context = held.runs().filter(|run| run.first == 1).map(|run| (run.writer, run.last));
        Self { context: context.collect(), exceptions: DotSet::default() }
    }

    /// The counter up to which everything of the writer was seen; 0 for an unknown writer.
    #[must_use]
    pub fn counter(&self, writer: Writer) -> u64 {
        self.context.get(&writer).copied().unwrap_or(0)
    }

    /// Whether the context covers the dot.
    #[must_use]
    pub fn covers(&self, dot: Dot) -> bool {
        dot.counter() <= self.counter(dot.writer())
    }

    /// Whether the dot is covered or an exception. A dot above the context that is held was seen
    /// too, but that is the entries' to say.
    #[must_use]
    pub fn knows(&self, dot: Dot) -> bool {
        self.covers(dot) || self.exceptions.contains(dot)
    }

    /// The context's pairs, ascending by writer.
    pub fn pairs(&self) -> impl ExactSizeIterator<Item = (Writer, u64)> {
        self.context.iter().map(|(&writer, &counter)| (writer, counter))
    }

    /// The dots seen and dead above the context.
    #[must_use]
    pub const fn exceptions(&self) -> &DotSet {
        &self.exceptions
    }

    /// Number of writers in the context.
    #[must_use]
    pub fn writers(&self) -> usize {
        self.context.len()
    }

    /// Takes note that `dot` is now held: the context advances if it stood right above.
    pub fn observe(&mut self, dot: Dot, held: impl Fn(Dot) -> bool) {
        self.exceptions.remove(dot);
        if dot.counter() == self.counter(dot.writer()).saturating_add(1) {
            self.context.insert(dot.writer(), dot.counter());
            self.advance(dot.writer(), &held);
        }
    }

    /// Takes note that `dot` was seen and is not held any more (rule D4).
    pub fn mark_dead(&mut self, dot: Dot, held: impl Fn(Dot) -> bool) {
        if !self.covers(dot) {
            self.exceptions.insert(dot);
            self.advance(dot.writer(), &held);
        }
    }

    /// Joins what another replica has seen: greatest counter of each writer, exceptions of both,
    /// canonical with the dots held *after* the merge. Commutative, associative, idempotent.
    pub fn join(&mut self, other: &Self, held: impl Fn(Dot) -> bool) {
        for (writer, counter) in other.pairs() {
            let mine = self.context.entry(writer).or_default();
            *mine = (*mine).max(counter);
        }
        self.exceptions.extend(&other.exceptions);
        self.canonicalise(held);
    }

    /// Joins like [`join`](Self::join), but not past what this side refused (rule D8).
    ///
    /// Each writer's context goes to one below its first refused dot. Dots of the other context
    /// above that, neither held nor refused, are dead: they become exceptions if that adds no
    /// more than `max_exceptions`; else the writer is not joined beyond the refused dot, and what
    /// stands above stays unseen.
    pub fn join_with_refusals(
        &mut self,
        other: &Self,
        refused: &RefusedDots,
        max_exceptions: u64,
        held: impl Fn(Dot) -> bool,
    ) {
        let mut limited = other.clone();
        for writer in refused.writers() {
            let first = refused.runs_of(writer).next().map_or(1, |run| run.first);
            let claimed = other.counter(writer);
            if claimed < first {
                continue;
            }
            match first - 1 {
                0 => limited.context.remove(&writer),
                below => limited.context.insert(writer, below),
            };
            let from = first.max(self.counter(writer).saturating_add(1));
            if let Some(dead) = dead_between(writer, from, claimed, refused, max_exceptions, &held)
            {
                limited.exceptions.extend(&dead);
            }
        }
        for dot in refused.runs().flat_map(|run| {
            // a refused dot is never an exception here, even if the other side has seen it dead
            let exceptions: Vec<_> = other.exceptions.runs_of(run.writer).collect();
            exceptions.into_iter().flat_map(move |dead| overlap(run, dead)).collect::<Vec<_>>()
        }) {
            limited.exceptions.remove(dot);
        }
        self.join(&limited, held);
    }

    /// Canonical bytes: pairs ascending by writer, then exceptions ascending by dot.
    ///
    /// # Errors
    /// More exceptions than a `u32` counts.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ContextError> {
        let exceptions = self.exceptions.count();
        let listed = u32::try_from(exceptions).map_err(|_| ContextError::TooMany(exceptions))?;
        let pairs = u32::try_from(self.context.len())
            .map_err(|_| ContextError::TooMany(self.context.len() as u64))?;
        let mut bytes = Vec::with_capacity(8 + 16 * (self.context.len() + listed as usize));
        bytes.put_u32(pairs);
        for (writer, counter) in self.pairs() {
            bytes.put_u64(writer.get());
            bytes.put_u64(counter);
        }
        bytes.put_u32(listed);
        for dot in self.exceptions.iter() {
            bytes.put_u64(dot.writer().get());
            bytes.put_u64(dot.counter());
        }
        Ok(bytes)
    }

    /// Reads canonical bytes strictly: what is accepted encodes to the same bytes.
    ///
    /// # Errors
    /// Anything that is not canonical; held dots cannot be seen here and are not judged.
    pub fn parse(bytes: &[u8]) -> Result<Self, ContextError> {
        let mut reader = Reader::new(bytes);
        let mut context = BTreeMap::new();
        let mut last = None;
        for _ in 0..reader.u32()? {
            let dot = read_dot(&mut reader)?;
            if last.is_some_and(|last| last >= dot.writer()) {
                return Err(ContextError::Order);
            }
            last = Some(dot.writer());
            context.insert(dot.writer(), dot.counter());
        }
        let mut causality = Self { context, exceptions: DotSet::default() };
        let mut last = None;
        for _ in 0..reader.u32()? {
            let dot = read_dot(&mut reader)?;
            if last.is_some_and(|last| last >= dot) {
                return Err(ContextError::Order);
            }
            last = Some(dot);
            causality.check_exception(dot)?;
            causality.exceptions.insert(dot);
        }
        reader.finish()?;
        Ok(causality)
    }

    /// From decoded parts, refused unless canonical.
    ///
    /// # Errors
    /// An exception that is covered or stands right above its context.
    pub fn from_parts(
        context: BTreeMap<Writer, u64>,
        exceptions: DotSet,
    ) -> Result<Self, ContextError> {
        if context.values().any(|&counter| counter == 0) {
            return Err(ContextError::Zero);
        }
        let causality = Self { context, exceptions };
        for run in causality.exceptions.runs() {
            if let Some(dot) = Dot::of(run.writer, run.first) {
                causality.check_exception(dot)?;
            }
        }
        Ok(causality)
    }

    /// Context hash.
    ///
    /// # Errors
    /// More exceptions than the canonical bytes can list.
    pub fn hash(&self, algorithm: HashAlgorithm) -> Result<ContextHash, ContextError> {
        Ok(algorithm.context(&self.to_bytes()?))
    }

    fn check_exception(&self, dot: Dot) -> Result<(), ContextError> {
        let counter = self.counter(dot.writer());
        if dot.counter() <= counter {
            return Err(ContextError::Covered(dot));
        }
        if dot.counter() == counter + 1 {
            return Err(ContextError::Adjacent(dot));
        }
        Ok(())
    }

    fn canonicalise(&mut self, held: impl Fn(Dot) -> bool) {
        let writers: Vec<_> =
            self.context.keys().copied().chain(self.exceptions.writers()).collect();
        for writer in writers {
            self.advance(writer, &held);
        }
    }

    /// Moves the writer's context over what stands right above it, held or dead.
    fn advance(&mut self, writer: Writer, held: &impl Fn(Dot) -> bool) {
        let mut counter = self.counter(writer);
        while let Some(next) = Dot::of(writer, counter.saturating_add(1)) {
            if next.counter() == counter {
                break; // the last counter there can be
            }
            if let Some(run) = self.exceptions.run_around(next) {
                counter = run.last;
            } else if held(next) {
                counter = next.counter();
            } else {
                break;
            }
        }
        if counter > 0 {
            self.context.insert(writer, counter);
            self.exceptions.remove_through(writer, counter);
        }
    }
}

/// The dead dots of a writer in `first..=last`: none at all if they are more than `max`.
fn dead_between(
    writer: Writer,
    first: u64,
    last: u64,
    refused: &DotSet,
    max: u64,
    held: &impl Fn(Dot) -> bool,
) -> Option<DotSet> {
    let mut dead = DotSet::default();
    let mut count = 0;
    for counter in first..=last {
        let dot = Dot::of(writer, counter)?;
        if !refused.contains(dot) && !held(dot) {
            count += 1;
            if count > max {
                return None;
            }
            dead.insert(dot);
        }
    }
    Some(dead)
}

fn overlap(a: DotRun, b: DotRun) -> impl Iterator<Item = Dot> {
    let run = DotRun { writer: a.writer, first: a.first.max(b.first), last: a.last.min(b.last) };
    (run.first..=run.last).filter_map(move |counter| Dot::of(run.writer, counter))
}

fn read_dot(reader: &mut Reader<'_>) -> Result<Dot, ContextError> {
    let (writer, counter) = (reader.u64()?, reader.u64()?);
    Dot::new(writer, counter).ok_or(ContextError::Zero)
}
