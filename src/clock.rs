//! The hybrid logical clock (Kulkarni et al., OPODIS 2014) whose stamps order reads.
//!
//! A stamp is a `u64`: 48 bits of milliseconds since 1970, then 16 bits of a counter. Stamps
//! never decide what is removed; they only choose among siblings when a policy asks for one.
//! Time is an argument: the clock itself reads none.
//!
//! ```
//! use selfsame::clock::{HybridClock, Stamp};
//!
//! let mut clock = HybridClock::default();
//! let first = clock.tick(1_000);
//! assert!(clock.tick(900) > first); // never backwards, whatever the wall clock does
//! assert!(clock.observe(Stamp::new(100_000_000, 0), 1_000, 60_000).is_err());
//! ```

use std::fmt;

use crate::types::NodeId;

const COUNTER_BITS: u32 = 16;

/// A hybrid logical stamp: 48-bit milliseconds, 16-bit counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "session", derive(serde::Serialize, serde::Deserialize))]
pub struct Stamp(pub u64);

impl Stamp {
    /// From milliseconds (the low 48 bits) and counter.
    #[must_use]
    pub const fn new(millis: u64, counter: u16) -> Self {
        Self((millis << COUNTER_BITS) | counter as u64)
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    /// Counter within the millisecond.
    #[must_use]
    pub const fn counter(self) -> u16 {
        self.0 as u16
    }

    /// Whether the stamp is more than `max_drift_ms` ahead of `now_ms`.
    #[must_use]
    pub const fn beyond_drift(self, now_ms: u64, max_drift_ms: u64) -> bool {
        self.millis() > now_ms.saturating_add(max_drift_ms)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A stamp from further in the future than the clock's bound allows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "stamp {stamp} is {ahead_ms} ms ahead of this node's clock: check the clocks of both machines"
)]
pub struct Drift {
    /// The stamp.
    pub stamp: Stamp,
    /// How far ahead it is.
    pub ahead_ms: u64,
}

/// Most peers that are named in a sentence.
const NAMED: usize = 3;

/// This node's clock is ahead of most peers'.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClockAhead {
    /// How far, in milliseconds: at least half of those peers find it so far ahead, or further.
    pub ahead_ms: u64,
    /// The peers that find it further ahead than the drift bound, by how far.
    pub peers: Vec<NodeId>,
    /// Of so many that were heard from lately.
    pub heard: usize,
}

impl fmt::Display for ClockAhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ahead_ms, peers, heard } = self;
        let (seconds, millis) = (ahead_ms / 1_000, ahead_ms % 1_000);
        write!(
            f,
            "this node's clock is {seconds}.{millis:03} s ahead of {} of the {heard} peers heard \
             from lately (",
            peers.len()
        )?;
        for (at, peer) in peers.iter().take(NAMED).enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            write!(f, "{comma}{peer}")?;
        }
        let more = if peers.len() > NAMED { ", ..." } else { "" };
        write!(
            f,
            "{more}), which would refuse what is written now, so nothing was: set the clock right \
             (timedatectl, chrony), and write again; reading, deleting and sessions go on"
        )
    }
}

impl std::error::Error for ClockAhead {}

/// The clock of a node: strictly increasing, never behind what it has seen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct HybridClock {
    seen: Stamp,
}

impl HybridClock {
    /// A clock that has seen `stamp`.
    #[must_use]
    pub const fn resume(stamp: Stamp) -> Self {
        Self { seen: stamp }
    }

    /// The stamp of a local event at wall time `now_ms`: max(now, seen + 1).
    pub fn tick(&mut self, now_ms: u64) -> Stamp {
        self.seen = self.peek(now_ms);
        self.seen
    }

    /// The same, where a stamp that this clock has seen is further ahead than `max_drift_ms` only
    /// because the wall clock was ahead then: it counts no more. Everybody else would refuse what
    /// follows it.
    pub fn tick_within(&mut self, now_ms: u64, max_drift_ms: u64) -> Stamp {
        if self.seen.beyond_drift(now_ms, max_drift_ms) {
            self.seen = Stamp(0);
        }
        self.tick(now_ms)
    }

    /// What [`tick`](Self::tick) would give, without advancing.
    #[must_use]
    pub fn peek(&self, now_ms: u64) -> Stamp {
        Stamp::new(now_ms, 0).max(Stamp(self.seen.0.saturating_add(1)))
    }

    /// The greatest stamp seen or given.
    #[must_use]
    pub const fn seen(&self) -> Stamp {
        self.seen
    }

    /// Takes note of a stamp from elsewhere.
    ///
    /// # Errors
    /// A stamp more than `max_drift_ms` ahead is refused and leaves the clock as it is.
    pub fn observe(&mut self, stamp: Stamp, now_ms: u64, max_drift_ms: u64) -> Result<(), Drift> {
        if stamp.beyond_drift(now_ms, max_drift_ms) {
            let ahead_ms = stamp.millis() - now_ms;
            return Err(Drift { stamp, ahead_ms });
        }
        self.seen = self.seen.max(stamp);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_beyond_the_drift_bound_never_moves_the_clock() {
        let mut clock = HybridClock::default();
        clock.observe(Stamp::new(61_000, 3), 1_000, 60_000).expect("exactly at the bound");
        assert_eq!(clock.peek(1_000), Stamp::new(61_000, 4));
        clock.observe(Stamp::new(61_001, 0), 1_000, 60_000).expect_err("one beyond");
        assert_eq!(clock.seen(), Stamp::new(61_000, 3));
    }

    #[test]
    fn a_wall_clock_that_is_set_right_is_followed() {
        let mut clock = HybridClock::default();
        clock.tick(10_000_000);
        assert_eq!(clock.tick_within(9_950_000, 60_000), Stamp::new(10_000_000, 1));
        assert_eq!(clock.tick_within(1_000, 60_000), Stamp::new(1_000, 0));
    }

    #[test]
    fn the_counter_carries_into_the_milliseconds() {
        let mut clock = HybridClock::resume(Stamp::new(5, u16::MAX));
        assert_eq!(clock.tick(5), Stamp::new(6, 0));
        assert_eq!(HybridClock::resume(Stamp(u64::MAX)).peek(0), Stamp(u64::MAX));
    }
}
