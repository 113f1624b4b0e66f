//! When a daemon scrubs its collections, and how fast.
//!
//! ```
//! use std::time::Duration;
//!
//! use selfsame::node::scrub::ScrubSettings;
//!
//! let slow = ScrubSettings { bytes_per_s: 1_000_000, time_percent: 50, ..Default::default() };
//! // two seconds for two megabytes, of which the half second that it took is the smaller part
//! assert_eq!(slow.pause(2_000_000, Duration::from_millis(500)), Duration::from_millis(1_500));
//! assert_eq!(slow.pause(10, Duration::from_secs(1)), Duration::from_secs(1));
//! ```

use std::time::Duration;

use crate::replica::ScrubReport;

/// Bytes that are read before there is a pause.
const SLICE_BYTES: u64 = 1 << 20;
/// A collection that was never scrubbed is, within this part of the interval.
const FIRST_WITHIN: u64 = 20;

/// How often all that is stored is read again, and at which rate.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ScrubSettings {
    /// Time from the end of one scrub to the begin of the next, in milliseconds, give or take a
    /// fifth; 0: none.
    pub interval_ms: u64,
    /// Most bytes read in a second.
    pub bytes_per_s: u64,
    /// Most of the time that reading may take, in percent.
    pub time_percent: u64,
}

impl Default for ScrubSettings {
    fn default() -> Self {
        Self { interval_ms: 7 * 86_400_000, bytes_per_s: 8 << 20, time_percent: 10 }
    }
}

impl ScrubSettings {
    /// Bytes to be read at once: little enough that the pauses are even.
    #[must_use]
    pub fn slice(&self) -> u64 {
        (self.bytes_per_s / 4).clamp(1, SLICE_BYTES)
    }

    /// How long to wait after so many bytes were read in such a time.
    #[must_use]
    pub fn pause(&self, bytes: u64, took: Duration) -> Duration {
        let percent = u32::try_from(self.time_percent.clamp(1, 100)).unwrap_or(100);
        let by_time = took * (100 - percent) / percent;
        let whole = Duration::from_secs_f64(bytes as f64 / self.bytes_per_s.max(1) as f64);
        by_time.max(whole.saturating_sub(took))
    }

    /// When the next scrub of a collection is due, in milliseconds since 1970: at once if one is
    /// not over. `jitter` is a random number of the collection, that stays until a scrub ends.
    #[must_use]
    pub fn due_ms(&self, report: &ScrubReport, started_ms: u64, jitter: u64) -> Option<u64> {
        if self.interval_ms == 0 {
            return None;
        }
        if report.running.is_some() {
            return Some(0);
        }
        let Some(ended_ms) = report.last_ended_ms else {
            // not all at once when a node is new
            return Some(started_ms + jitter % (self.interval_ms / FIRST_WITHIN).max(1));
        };
        let fifth = (self.interval_ms / 5).max(1);
        Some(ended_ms + self.interval_ms - fifth + jitter % (2 * fifth))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrub_is_due_about_an_interval_after_the_last_and_never_if_it_is_off() {
        let settings = ScrubSettings { interval_ms: 1_000, ..Default::default() };
        let mut report = ScrubReport::default();
        for jitter in 0..5_000 {
            let first = settings.due_ms(&report, 70, jitter);
            assert!(first.is_some_and(|due| (70..120).contains(&due)), "{first:?}");
        }
        report.last_ended_ms = Some(5_000);
        let dues: Vec<_> =
            (0..400).filter_map(|jitter| settings.due_ms(&report, 70, jitter)).collect();
        assert_eq!((dues.iter().min(), dues.iter().max()), (Some(&5_800), Some(&6_199)));
        report.running = Some(Default::default());
        assert_eq!(settings.due_ms(&report, 70, 1), Some(0), "it goes on at once");
        let off = ScrubSettings { interval_ms: 0, ..settings };
        assert_eq!(off.due_ms(&report, 70, 1), None);
    }

    #[test]
    fn a_slow_rate_means_small_slices() {
        let settings = ScrubSettings { bytes_per_s: 4_096, ..Default::default() };
        assert_eq!(settings.slice(), 1_024);
        assert_eq!(ScrubSettings::default().slice(), 1 << 20);
        let all = ScrubSettings { time_percent: 100, bytes_per_s: u64::MAX, ..settings };
        assert_eq!(all.pause(1 << 20, Duration::from_secs(3)), Duration::ZERO);
    }
}
