//! What the verbs that turn to a peer share.

use std::str::FromStr as _;

use clap::Args;
use indicatif::ProgressBar;

use super::control::Control;
use super::error::CliError;
use super::interrupt::Interrupt;
use super::output::size;
use crate::api::CallError;
use crate::api::client::RunStream;
use crate::api::types::{DifferenceText, Moved, Report, SyncLine};
use crate::node::choice::PeerChoice;

/// The peer to turn to.
#[derive(Args)]
pub(super) struct PeerArgument {
    /// The peer: its node id (`selfsame id` there) with the host and port where it listens, or
    /// the name or the first digits of the id of one that `selfsame peer ls` lists
    #[arg(long, value_name = "ID@HOST:PORT | NAME", value_parser = PeerChoice::from_str)]
    pub(super) peer: PeerChoice,
}

/// What happened in a session up to its report: differences, if it was a comparison. Somebody
/// who asks to stop is told how it ended.
pub(super) fn followed(
    control: &Control,
    interrupt: &Interrupt,
    begin: impl Future<Output = Result<RunStream<SyncLine>, CallError>>,
) -> Result<(Vec<DifferenceText>, Report), CliError> {
    let (spinner, mut differences) = (Spinner::new(), Vec::new());
    let report = control.follow(interrupt, begin, |line| match line {
        SyncLine::Progress(moved) => {
            spinner.show(moved);
            None
        }
        SyncLine::Difference(difference) => {
            differences.push(difference);
            None
        }
        SyncLine::Report(report) => Some(*report),
        _ => None,
    })?;
    Ok((differences, report))
}

/// Shows on a terminal what a session has moved.
struct Spinner(ProgressBar);

impl Spinner {
    fn new() -> Self {
        let seen = super::progress::Progress::is_seen();
        Self(if seen { ProgressBar::new_spinner() } else { ProgressBar::hidden() })
    }

    fn show(&self, Moved { bytes_sent, bytes_received }: Moved) {
        self.0.set_message(format!("{} sent, {} received", size(bytes_sent), size(bytes_received)));
        self.0.tick();
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
