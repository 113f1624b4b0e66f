//! `selfsame diff`

use clap::Args;
use serde::Serialize;

use super::error::CliError;
use super::interrupt::Interrupt;
use super::output::{Output, note};
use super::peer::{PeerArgument, followed};
use super::{Context, Exit, arguments, report};
use crate::api::types::{DifferenceText, PeerRequest};
use crate::types::CollectionName;

/// Shows how a collection differs from a peer's, key by key
///
/// Nothing changes at either end, and no value moves. A session would make each key at both ends
/// what is said of it. Ends with 0 if nothing differs, with 1 if something does. Of very many
/// differences, as many are shown as max_session_entries at both ends allow, and it is said that
/// these are not all.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame diff players --peer ID@192.0.2.7:7447
  selfsame diff players --peer ID@192.0.2.7:7447 --json")]
pub(super) struct Diff {
    /// The collection
    #[arg(value_parser = arguments::collection)]
    collection: CollectionName,
    #[command(flatten)]
    peer: PeerArgument,
    /// Prints JSON, a line for each key: {"key" or "key_hex", "difference", "here",
    /// "there", "merged"}, the last three as lists of versions; last {"truncated": true,
    /// "at_least"} if there are more than these
    #[arg(long)]
    json: bool,
}

/// Ends a list that is not all.
#[derive(Serialize)]
struct TruncatedJson {
    truncated: bool,
    at_least: usize,
}

impl Diff {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let interrupt = Interrupt::install()?;
        let request = PeerRequest { peer: self.peer.peer.to_string() };
        context.with(|control| {
            let begin = control.node.diff(&self.collection, &request);
            let (differences, report) = followed(control, &interrupt, begin)?;
            let exit = Exit::of_code(report.exit);
            if !matches!(exit, Exit::Done | Exit::Differs) {
                note(format_args!("error: {}", report::text(&report)));
                return Ok(exit);
            }
            let mut output = Output::new();
            for difference in &differences {
                self.print(&mut output, difference)?;
            }
            if report.truncated && self.json {
                let at_least = differences.len();
                output.json(&TruncatedJson { truncated: true, at_least })?;
            }
            output.finish()?;
            if report.truncated {
                note(
                    "these are not all: raise max_session_entries in config.toml at both ends to \
                     see all",
                );
            }
            if !self.json {
                note(report::text(&report));
            }
            Ok(exit)
        })
    }

    fn print(&self, output: &mut Output, line: &DifferenceText) -> Result<(), CliError> {
        if self.json {
            return output.json(line);
        }
        let key = line.key.key().map(|key| key.to_string()).unwrap_or_default();
        output.line(format_args!("{:<32} {key}", in_words(&line.difference)))
    }
}

/// What differs, for people.
fn in_words(difference: &str) -> &str {
    match difference {
        "removed_there" => "removed there, still here",
        "removed_here" => "removed here, still there",
        "only_here" => "only here",
        "only_there" => "only there",
        "newer_here" => "newer here",
        "newer_there" => "newer there",
        "changed_at_both" => "changed at both",
        "removed_at_both" => "each removed the other's version",
        "gone" => "gone at both",
        other => other,
    }
}
