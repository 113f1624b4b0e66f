//! What the sessions of a node did since its start, by kind: what metrics are made of.
//!
//! ```
//! use selfsame::node::status::SessionEnd;
//! use selfsame::node::tally::{DURATION_BOUNDS_MS, SessionTally};
//!
//! let mut tally = SessionTally::default();
//! tally.count_end(&SessionEnd { outcome: "complete".into(), elapsed_ms: 7, ..SessionEnd::default() });
//! assert_eq!((tally.ended["complete"], tally.durations.count()), (1, 1));
//! assert_eq!(tally.durations.sum_ms(), 7);
//! let below: Vec<_> = tally.durations.buckets().take(2).collect();
//! assert_eq!(below, [(Some(DURATION_BOUNDS_MS[0]), 0), (Some(DURATION_BOUNDS_MS[1]), 1)]);
//! ```

use std::collections::BTreeMap;

use super::status::SessionEnd;
use crate::replica::{RefusalReason, ReportCounts};
use crate::session::Outcome;

/// Upper bounds of the classes in which durations are counted, in milliseconds; one class more
/// has no bound.
pub const DURATION_BOUNDS_MS: [u64; 11] =
    [5, 20, 100, 250, 1_000, 5_000, 15_000, 60_000, 300_000, 900_000, 1_800_000];

/// Sums over the sessions that have ended. Its size depends on how many peers had some, not on how
/// many there were.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SessionTally {
    /// How many ended in which way, by the words of [`SessionEnd::outcome`].
    pub ended: BTreeMap<String, u64>,
    /// Keys changed here.
    pub changed_here: u64,
    /// Keys changed at the peers.
    pub changed_there: u64,
    /// Items refused, by reason, and whether this node refused them.
    pub refused: BTreeMap<(RefusalReason, bool), u64>,
    /// What a person may want to look at, of what changed here.
    pub reports: ReportCounts,
    /// How long they took.
    pub durations: Durations,
    /// How many each peer has spoilt, by its id. As many peers as have had sessions here: no more
    /// than were ever admitted.
    pub faults: BTreeMap<String, u64>,
}

impl SessionTally {
    /// Counts a session that has ended.
    pub fn count_end(&mut self, end: &SessionEnd) {
        *self.ended.entry(end.outcome.clone()).or_default() += 1;
        self.changed_here = self.changed_here.saturating_add(end.changed_here);
        self.changed_there = self.changed_there.saturating_add(end.changed_there);
        self.reports += end.reports;
        self.durations.count_one(end.elapsed_ms);
        if end.blame.as_deref() == Some("peer") {
            *self.faults.entry(end.peer.clone()).or_default() += 1;
        }
    }

    /// Counts what a session refused.
    pub fn count_refused(&mut self, outcome: &Outcome) {
        let (Outcome::Incomplete { refused }
        | Outcome::Pulled { refused }
        | Outcome::Pushed { refused }) = outcome
        else {
            return;
        };
        for item in refused {
            *self.refused.entry((item.reason, item.by_us)).or_default() += 1;
        }
    }
}

/// Durations, counted in classes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Durations {
    classes: [u64; DURATION_BOUNDS_MS.len() + 1],
    sum_ms: u64,
}

impl Durations {
    fn count_one(&mut self, elapsed_ms: u64) {
        let class = DURATION_BOUNDS_MS.partition_point(|bound| *bound < elapsed_ms);
        self.classes[class] += 1;
        self.sum_ms = self.sum_ms.saturating_add(elapsed_ms);
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.classes.iter().sum()
    }

    /// All of them together, in milliseconds.
    #[must_use]
    pub const fn sum_ms(&self) -> u64 {
        self.sum_ms
    }

    /// For each bound how many were not longer; the last has none and counts all.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = DURATION_BOUNDS_MS.into_iter().map(Some).chain([None]);
        bounds.zip(self.classes).scan(0, |sum, (bound, count)| {
            *sum += count;
            Some((bound, *sum))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_holds_what_is_not_longer_than_its_bound() {
        let mut durations = Durations::default();
        for elapsed_ms in [0, 5, 6, 1_800_000, 1_800_001, u64::MAX] {
            durations.count_one(elapsed_ms);
        }
        let buckets: Vec<_> = durations.buckets().collect();
        assert_eq!((buckets[0], buckets[1]), ((Some(5), 2), (Some(20), 3)));
        assert_eq!(buckets[10..], [(Some(1_800_000), 4), (None, 6)]);
        assert_eq!((durations.count(), durations.sum_ms()), (6, u64::MAX));
    }
}
