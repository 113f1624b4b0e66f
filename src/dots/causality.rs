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
    /// From pairs and exceptions in any form, made canonical with all the dots held. Of several
    /// pairs of a writer the greatest counts.
    #[must_use]
    pub fn new(
        pairs: impl IntoIterator<Item = (Writer, u64)>,
        exceptions: DotSet,
        held: &DotSet,
    ) -> Self {
        let mut causality = Self { context: BTreeMap::new(), exceptions };
        for (writer, counter) in pairs {
            causality.raise(writer, counter);
        }
        // a writer may be known by what is held alone
        for writer in held.writers() {
            causality.advance(writer, &|dot| held.contains(dot));
        }
        causality.canonicalise(|dot| held.contains(dot));
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
            self.raise(writer, counter);
        }
        self.exceptions.extend(&other.exceptions);
        self.canonicalise(held);
    }

    /// Joins like [`join`](Self::join), but not past what this side refused (rule D8).
    ///
    /// Each writer's context goes to one below its first refused dot. Dots above that which the
    /// other side has seen, neither held nor refused here, are dead and become exceptions. At most
    /// `max_exceptions` are added, to the writers with the fewest counters in question first: a
    /// writer for which they do not suffice is not joined beyond its refused dot, and what stands
    /// above stays unseen.
    ///
    /// Takes as many steps as dots are held, and runs refused or excepted, above the first refused
    /// ones, and `max_exceptions`: whatever counters the other side claims.
    pub fn join_with_refusals(
        &mut self,
        other: &Self,
        refused: &DotSet,
        max_exceptions: u64,
        held: impl Fn(Dot) -> bool,
    ) {
        let first_of = |writer| Some((writer, refused.runs_of(writer).next()?.first));
        let firsts: BTreeMap<Writer, u64> = refused.writers().filter_map(first_of).collect();
        let mut limited = Self::default();
        for (writer, claimed) in other.pairs() {
            let below = firsts.get(&writer).map_or(u64::MAX, |first| first - 1);
            limited.raise(writer, claimed.min(below));
        }
        for run in other.exceptions.runs() {
            let below = firsts.get(&run.writer).map_or(u64::MAX, |first| first - 1);
            if let Some(run) = DotRun::new(run.writer, run.first, run.last.min(below)) {
                limited.exceptions.insert_run(run);
            }
        }

        let mut firsts: Vec<_> = firsts.into_iter().collect();
        firsts.sort_by_key(|&(writer, first)| other.counter(writer).saturating_sub(first));
        let mut left = max_exceptions;
        for (writer, first) in firsts {
            let from = (writer, first);
            let dead = self.dead_beyond(from, other, refused, left, &held);
            // what did not suffice is spent too: it was walked over
            let added = dead.len() as u64;
            if added <= left {
                limited.exceptions.extend(&dead.into_iter().collect());
            }
            left = left.saturating_sub(added);
        }
        self.join(&limited, held);
    }

    /// The writer's dots from a counter on that the other side has seen and that are new to this
    /// one, neither held nor refused: all of them, or more than `most`.
    fn dead_beyond(
        &self,
        (writer, first): (Writer, u64),
        other: &Self,
        refused: &DotSet,
        most: u64,
        held: &impl Fn(Dot) -> bool,
    ) -> Vec<Dot> {
        let (mut dead, mut next) = (Vec::new(), Some(first));
        while let Some(dot) = next.and_then(|from| other.next_known(writer, from)) {
            let last = self.whole_run(dot, refused).unwrap_or_else(|| {
                if !held(dot) {
                    dead.push(dot);
                }
                dot.counter()
            });
            if dead.len() as u64 > most {
                break;
            }
            next = last.checked_add(1);
        }
        dead
    }

    /// The writer's next dot from `counter` on that is covered or an exception.
    fn next_known(&self, writer: Writer, counter: u64) -> Option<Dot> {
        if counter <= self.counter(writer) {
            return Dot::of(writer, counter);
        }
        Dot::of(writer, self.exceptions.next_from(writer, counter)?)
    }

    /// Where the dots end, from this one on, that are known here already or refused.
    fn whole_run(&self, dot: Dot, refused: &DotSet) -> Option<u64> {
        if self.covers(dot) {
            return Some(self.counter(dot.writer()));
        }
        let run = refused.run_around(dot).or_else(|| self.exceptions.run_around(dot))?;
        Some(run.last)
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

    fn raise(&mut self, writer: Writer, counter: u64) {
        if counter > 0 {
            let mine = self.context.entry(writer).or_default();
            *mine = (*mine).max(counter);
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

fn read_dot(reader: &mut Reader<'_>) -> Result<Dot, ContextError> {
    let (writer, counter) = (reader.u64()?, reader.u64()?);
    Dot::new(writer, counter).ok_or(ContextError::Zero)
}
