//! How long a session waits for its peer.

use std::time::Duration;

use crate::session::AbortCode;

/// How many times the patience a session may wait in all while next to nothing moves.
const PATIENCES: u32 = 8;
/// So often a peer may say in a row that it is at work, before anything else comes.
const MOST_BEATS: u32 = 1_024;

/// Counts the time that was waited against the bytes that were moved.
///
/// A whole frame ends a silence, and so does an empty one, by which a peer says that it is at work;
/// the bytes of half a frame do not. And each frame buys time, at `min_bytes_per_s`, up to what a
/// session begins with: so that small frames now and then, or the speed of another hour, hold no
/// session for ever. An empty frame buys none.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    patience: Duration,
    silent: Duration,
    credit: Duration,
    most: Duration,
    min_bytes_per_s: u64,
    beats: u32,
}

impl Pace {
    pub(super) fn new(patience: Duration, min_bytes_per_s: u64) -> Self {
        let most = patience.saturating_mul(PATIENCES);
        Self { patience, silent: Duration::ZERO, credit: most, most, min_bytes_per_s, beats: 0 }
    }

    /// How long may be waited from now on.
    pub(super) fn left(&self) -> Duration {
        self.patience.saturating_sub(self.silent).min(self.credit)
    }

    /// So long was waited.
    pub(super) fn waited(&mut self, time: Duration) {
        self.silent = self.silent.saturating_add(time);
        if self.min_bytes_per_s > 0 {
            self.credit = self.credit.saturating_sub(time);
        }
    }

    /// A frame of so many bytes came or went.
    pub(super) fn moved(&mut self, bytes: usize) {
        (self.silent, self.beats) = (Duration::ZERO, 0);
        let micros = (bytes as u64).saturating_mul(1_000_000);
        let bought = micros.checked_div(self.min_bytes_per_s).unwrap_or_default();
        let credit = self.credit.saturating_add(Duration::from_micros(bought));
        self.credit = credit.min(self.most);
    }

    /// The peer said that it is at work.
    pub(super) fn beat(&mut self) {
        self.silent = Duration::ZERO;
        self.beats += 1;
    }

    /// Why the session is to end; none while there is time.
    pub(super) fn verdict(&self) -> Option<AbortCode> {
        if self.silent >= self.patience {
            Some(AbortCode::Deadline)
        } else if self.credit.is_zero() || self.beats > MOST_BEATS {
            Some(AbortCode::TooSlow)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn silence_ends_a_session_and_a_frame_ends_the_silence() {
        let mut pace = Pace::new(10 * SECOND, 1_000);
        pace.waited(9 * SECOND);
        assert_eq!((pace.left(), pace.verdict()), (SECOND, None));
        pace.moved(1);
        assert_eq!(pace.left(), 10 * SECOND);
        pace.waited(10 * SECOND);
        assert_eq!((pace.left(), pace.verdict()), (Duration::ZERO, Some(AbortCode::Deadline)));
    }

    #[test]
    fn small_frames_buy_little_and_speed_of_old_no_more_than_there_was_at_first() {
        let mut pace = Pace::new(10 * SECOND, 1_000);
        pace.moved(usize::MAX);
        let mut total = Duration::ZERO;
        loop {
            let time = pace.left().min(5 * SECOND);
            pace.waited(time);
            total += time;
            if let Some(code) = pace.verdict() {
                assert_eq!(code, AbortCode::TooSlow);
                break;
            }
            pace.moved(100);
        }
        assert!(total > 80 * SECOND && total < 84 * SECOND, "{total:?}");
    }

    #[test]
    fn work_at_the_other_end_is_no_silence_and_yet_holds_no_session_for_ever() {
        let mut pace = Pace::new(10 * SECOND, 1_000);
        let mut total = Duration::ZERO;
        while pace.verdict().is_none() {
            pace.waited(2 * SECOND);
            pace.beat();
            total += 2 * SECOND;
        }
        assert_eq!((total, pace.verdict()), (80 * SECOND, Some(AbortCode::TooSlow)));
        let mut flooded = Pace::new(10 * SECOND, 0);
        for _ in 0..MOST_BEATS {
            flooded.beat();
            assert_eq!(flooded.verdict(), None);
        }
        flooded.beat();
        assert_eq!(flooded.verdict(), Some(AbortCode::TooSlow));
        flooded.moved(1);
        assert_eq!(flooded.verdict(), None);
    }

    #[test]
    fn enough_bytes_keep_a_session_for_ever_and_so_does_no_minimum() {
        for (least, bytes) in [(1_000, 5_000), (0, 1)] {
            let mut pace = Pace::new(10 * SECOND, least);
            for _ in 0..1_000 {
                pace.waited(5 * SECOND);
                assert_eq!(pace.verdict(), None);
                pace.moved(bytes);
            }
        }
    }
}
