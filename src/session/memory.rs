//! What a session holds in memory, by its own account.
//!
//! An estimate from counters that are kept anyway, so that it may be asked at every step: sizes
//! of what was learned, of what waits to be said, of values and signatures on their way. What
//! many share, such as the pages of the snapshot, is not counted; pages unsealed here are.

use super::give::Outgoing;
use super::knowledge::{KeyKnowledge, Knowledge};
use super::machine::Session;
use super::outcome::{Failure, LimitName};
use super::sketching::Exchange;
use super::steer::Steering;
use super::transfer::Incoming;
use super::turn::TurnItem;
use crate::dots::{Causality, Dot, DotSet};
use crate::hash::KeyHash;

/// What a session is before anything is learned: its queues, buffers of its streams.
const OWN_BYTES: usize = 64 << 10;
/// A leaf in memory, with the inner node above it.
const LEAF_BYTES: usize = 160;
/// A message that waits.
const MESSAGE_BYTES: usize = 512;
/// A writer of a context, or a run of exceptions.
const CONTEXT_BYTES: usize = 48;
/// A value that is awaited, wanted and pending, besides its bytes.
const ITEM_BYTES: usize = 512;
/// A value that came along: the longest there is, and its place.
const INLINE_BYTES: usize = 320;

/// The share of its memory, in quarters, from which a session learns of no more keys.
const CROWDED_QUARTERS: u64 = 3;

/// What a map of so many entries takes: its nodes are three quarters full.
const fn map_bytes<K, V>(entries: usize) -> usize {
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
        let (keys, dots) = self.sizes();
        // groups that were changed are this session's own: all of them at most
        let sketches = self.kept_sketches().map_or(0, |(bytes, changed)| bytes.min(changed));
        let pages = self.unsealed_pages() * self.tree().page_leaves() * LEAF_BYTES;
        map_bytes::<KeyHash, KeyKnowledge>(keys)
            + map_bytes::<Dot, KeyHash>(dots)
            + pages
            + sketches
    }
}

impl Incoming {
    fn memory_bytes(&self) -> usize {
        let (values, items, inline) = self.sizes();
        values + items * ITEM_BYTES + inline * INLINE_BYTES
    }
}

impl Outgoing {
    fn memory_bytes(&self) -> usize {
        let (values, items, times) = self.sizes();
        values + items * ITEM_BYTES + map_bytes::<Dot, u8>(times)
    }
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
        let effort = &self.effort;
        let queued = effort.queued_bytes + effort.sketch_bytes;
        let waiting = self.items.len() * size_of::<TurnItem>()
            + self.control.len() * MESSAGE_BYTES
            + self.verification.refusals() * MESSAGE_BYTES;
        let bytes = OWN_BYTES
            + effort.context_bytes
            + effort.learned_bytes
            + self.knowledge.memory_bytes()
            + self.steering.as_ref().map_or(0, Steering::memory_bytes)
            + self.exchange.as_ref().map_or(0, Exchange::memory_bytes)
            + self.unsent.len()
            + queued
            + waiting
            + self.incoming.memory_bytes()
            + self.outgoing.memory_bytes();
        bytes as u64
    }

    /// Whether no more keys should be learned of.
    pub(super) fn is_crowded(&self) -> bool {
        self.memory_bytes() > self.setup.limits.max_session_memory_bytes / 4 * CROWDED_QUARTERS
    }

    /// Ends a session that holds more than it may.
    pub(super) fn check_memory(&self) -> Result<(), Failure> {
        if self.memory_bytes() > self.setup.limits.max_session_memory_bytes {
            return Err(LimitName::SessionMemory.into());
        }
        Ok(())
    }
}
