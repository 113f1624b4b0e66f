//! `selfsame diff`

use clap::Args;

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
/// differences, as many are shown as max_session_entries at both ends allow.
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
    /// "there", "merged"}, the last three as lists of versions
    #[arg(long)]
    json: bool,
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
            output.finish()?;
            let limit = control.wait(control.node.node())?.max_session_entries;
            if differences.len() as u64 >= limit {
                note(format_args!(
                    "these are not all: max_session_entries in config.toml ends the search at \
                     {limit} keys, and so may the peer's"
                ));
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
