//! What a session holds in memory, by its own account.
//!
//! An estimate from counters that are kept anyway, so that it may be asked at every step: sizes
//! of what was learned, of what waits to be said, of values and signatures on their way. What is
//! shared with the collection, such as pages that it has in memory, is not counted; pages that are
//! in memory for this session alone are.

use super::descent::Descent;
use super::give::Outgoing;
use super::knowledge::{KeyKnowledge, Knowledge};
use super::machine::{Flow, Session};
use super::outcome::{Difference, Failure, LimitName, Outcome};
use super::sketching::Exchange;
use super::steer::Steering;
use super::transfer::Incoming;
use super::turn::TurnItem;
use crate::dots::{Causality, Dot, DotSet};
use crate::hash::KeyHash;
use crate::merkle::Change;
use crate::replica::CollectionView;

/// What a session is before anything is learned: its queues, buffers of its streams.
const OWN_BYTES: usize = 64 << 10;
/// A message that waits.
const MESSAGE_BYTES: usize = 512;
/// A writer of a context, or a run of exceptions.
const CONTEXT_BYTES: usize = 48;
/// A value that is awaited, wanted and pending, besides its bytes.
const ITEM_BYTES: usize = 512;
/// A value that came along: the longest there is, and its place.
const INLINE_BYTES: usize = 320;

/// The part of its memory that a session leaves to values; and one that only compares to the list
/// in which it ends.
const VALUES_SHARE: u64 = 4;
const COMPARED_SHARE: u64 = 2;
/// How often the largest value may be in memory.
const VALUES_AT_ONCE: u64 = 3;

/// What a map of so many entries takes: its nodes are three quarters full.
pub(super) const fn map_bytes<K, V>(entries: usize) -> usize {
    entries * (size_of::<K>() + size_of::<V>()) / 3 * 4
}

pub(super) fn causality_bytes(causality: &Causality) -> usize {
    causality.writers() * CONTEXT_BYTES + dots_bytes(causality.exceptions())
}

pub(super) fn dots_bytes(dots: &DotSet) -> usize {
    dots.run_count() * CONTEXT_BYTES
}

impl Knowledge {
    fn memory_bytes(&self) -> usize {
        let [keys, dots, stale] = self.sizes();
        // groups that were changed are this session's own: all of them at most
        let sketches = self.kept_sketches().map_or(0, |(bytes, changed)| bytes.min(changed));
        map_bytes::<KeyHash, KeyKnowledge>(keys)
            + map_bytes::<Dot, KeyHash>(dots)
            + map_bytes::<KeyHash, Change>(stale)
            + self.tree_bytes()
            + sketches
    }
}

impl Incoming {
    fn memory_bytes(&self) -> usize {
        let (items, inline, named) = self.sizes();
        items * ITEM_BYTES + inline * INLINE_BYTES + map_bytes::<Dot, u64>(named)
    }
}

impl Outgoing {
    fn memory_bytes(&self) -> usize {
        let (bytes, items, times) = self.sizes();
        bytes + items * ITEM_BYTES + map_bytes::<Dot, u8>(times)
    }
}

/// What an outcome lists.
fn outcome_bytes(outcome: &Outcome) -> usize {
    let Outcome::Compared { differences, .. } = outcome else { return 0 };
    let records = |one: &Difference| {
        let records = [&one.here, &one.there, &one.merged].into_iter().flatten();
        records.map(|record| size_of_val(record.siblings())).sum::<usize>()
    };
    let listed = |one: &Difference| one.key.as_bytes().len() + records(one);
    size_of_val(&differences[..]) + differences.iter().map(listed).sum::<usize>()
}

impl Session {
    /// Dots, leaves and nodes that the peer has made this side look at, and other work counted as
    /// that: a session ends in `Limit` beyond 16 for each sibling that it holds and 64 for each
    /// difference that its limits allow.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.effort.steps
    }

    /// How much this session holds in memory, about, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.learned_bytes() + self.value_bytes()
    }

    /// Without the values that are on their way, of which the windows of transfer let in no more
    /// than there is room for.
    fn learned_bytes(&self) -> u64 {
        let effort = &self.effort;
        let queued = effort.queued_bytes + effort.sketch_bytes;
        let waiting = self.items.len() * size_of::<TurnItem>()
            + self.control.len() * MESSAGE_BYTES
            + self.verification.refusals() * MESSAGE_BYTES;
        let bytes = OWN_BYTES
            + effort.context_bytes
            + effort.learned_bytes
            + effort.view_bytes
            + self.knowledge.memory_bytes()
            + self.steering.as_ref().map_or(0, Steering::memory_bytes)
            + self.exchange.as_ref().map_or(0, Exchange::memory_bytes)
            + self.descent.as_ref().map_or(0, Descent::memory_bytes)
            + self.unsent.len()
            + queued
            + waiting
            + self.incoming.memory_bytes()
            + self.outgoing.memory_bytes()
            + self.outcome.as_ref().map_or(0, outcome_bytes);
        bytes as u64
    }

    fn value_bytes(&self) -> u64 {
        (self.incoming.value_bytes() + self.outgoing.value_bytes()) as u64
    }

    /// Whether no more keys should be learned of: there must be room for values, of which the
    /// largest is there twice while it comes in and once while it goes out.
    pub(super) fn is_crowded(&self) -> bool {
        let most = self.setup.limits.max_session_memory_bytes;
        let share = if self.flow == Flow::Compare { COMPARED_SHARE } else { VALUES_SHARE };
        let values = (most / share).max(self.effort.largest_value.saturating_mul(VALUES_AT_ONCE));
        self.learned_bytes() > most.saturating_sub(values)
    }

    /// Takes note of how much this session holds now.
    pub(super) fn note_memory(&mut self, view: &dyn CollectionView) {
        self.effort.view_bytes = view.memory_bytes();
        let held = self.memory_bytes();
        self.stats.memory_bytes = self.stats.memory_bytes.max(held);
    }

    /// Ends a session that holds more than it may.
    pub(super) fn check_memory(&mut self, view: &dyn CollectionView) -> Result<(), Failure> {
        self.note_memory(view);
        if self.learned_bytes() > self.setup.limits.max_session_memory_bytes {
            return Err(LimitName::SessionMemory.into());
        }
        Ok(())
    }
}
