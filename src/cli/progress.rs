//! How far a long verb has come: on a terminal only.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::output::count;

/// The figures change no more often than they can be read.
const BETWEEN: Duration = Duration::from_millis(100);

/// A line on standard error that says entries, bytes, their rates and the time left.
pub(super) struct Progress {
    bar: ProgressBar,
    started: Instant,
    told: Option<Instant>,
    entries: u64,
}

impl Progress {
    /// Whether anybody would see it.
    pub(super) fn is_seen() -> bool {
        std::io::stderr().is_terminal()
    }

    /// Begins; of how many bytes, if that is known.
    pub(super) fn new(bytes: Option<u64>) -> Self {
        let bar = if Self::is_seen() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let template = match bytes {
            Some(bytes) => {
                bar.set_length(bytes);
                "{bar:24} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}, {msg}, \
                 {eta} left"
            }
            None => "{spinner} {binary_bytes} {binary_bytes_per_sec}, {msg}",
        };
        bar.set_style(
            ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("=> "),
        );
        Self { bar, started: Instant::now(), told: None, entries: 0 }
    }

    /// One entry more.
    pub(super) fn entry(&mut self, bytes: u64) {
        self.entries += 1;
        self.bar.inc(bytes);
        if self.told.is_none_or(|told| told.elapsed() >= BETWEEN) {
            self.told = Some(Instant::now());
            let seconds = self.started.elapsed().as_secs_f64().max(0.001);
            let rate = self.entries as f64 / seconds;
            self.bar.set_message(format!("{} entries, {rate:.0}/s", count(self.entries)));
        }
    }

    /// So many bytes more.
    pub(super) fn bytes(&mut self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// So many entries and bytes in all.
    pub(super) fn is_at(&mut self, entries: u64, bytes: u64) {
        self.entries = entries;
        self.bar.set_position(bytes);
        self.bar.set_message(format!("{} entries", count(entries)));
    }

    /// Says something without tearing the line.
    pub(super) fn note(&self, text: &str) {
        if self.bar.is_hidden() {
            super::output::note(text);
        } else {
            self.bar.println(text);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
