//! `selfsame diff`

use clap::Args;
use serde::Serialize;

use super::error::CliError;
use super::interrupt::Interrupt;
use super::json::{KeyJson, SiblingJson};
use super::output::{Output, note};
use super::peer::{PeerArgument, Spinner, with_peer};
use super::report::{self, Report};
use super::{Context, Exit, arguments};
use crate::entry::Record;
use crate::session::{Difference, Mode, Outcome};
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

#[derive(Serialize)]
struct LineJson {
    #[serde(flatten)]
    key: KeyJson,
    difference: &'static str,
    here: Vec<SiblingJson>,
    there: Vec<SiblingJson>,
    merged: Vec<SiblingJson>,
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
        context.with(|home| {
            let collection = home.replica.collection(&self.collection)?;
            let mut config = home.config.sync();
            config.mode = Mode::Compare;
            let session = Some((&self.collection, config.mode));
            let done =
                with_peer(home, &self.peer.peer, session, &interrupt, async |node, link| {
                    let (stop, spinner) = (interrupt.receiver(), Spinner::new());
                    Ok(node.synchronise(link, &collection, &config, stop, &spinner).await?)
                })?;
            let report = Report::from(&done);
            let exit = report::exit(&report.outcome);
            let Outcome::Compared { differences, truncated } = &report.outcome else {
                note(format_args!("error: {}", report.text()));
                return Ok(exit);
            };
            let mut output = Output::new();
            for difference in differences {
                self.print(&mut output, difference)?;
            }
            if *truncated && self.json {
                output.json(&TruncatedJson { truncated: true, at_least: differences.len() })?;
            }
            output.finish()?;
            if *truncated {
                note(
                    "these are not all: raise max_session_entries in config.toml at both ends to \
                     see all",
                );
            }
            if !self.json {
                note(report.text());
            }
            Ok(exit)
        })
    }

    fn print(&self, output: &mut Output, difference: &Difference) -> Result<(), CliError> {
        let (name, sentence) = kind(difference);
        if !self.json {
            return output.line(format_args!("{sentence:<32} {}", difference.key));
        }
        output.json(&LineJson {
            key: KeyJson::from(&difference.key),
            difference: name,
            here: versions(difference.here.as_ref()),
            there: versions(difference.there.as_ref()),
            merged: versions(difference.merged.as_ref()),
        })
    }
}

fn versions(record: Option<&Record>) -> Vec<SiblingJson> {
    record.map_or_else(Vec::new, |record| record.siblings().iter().map(SiblingJson::from).collect())
}

/// What differs, in a word for programs and a few for people.
fn kind(difference: &Difference) -> (&'static str, &'static str) {
    let Difference { here, there, merged, .. } = difference;
    match (here, there, merged) {
        (Some(_), None, None) => ("removed_there", "removed there, still here"),
        (None, Some(_), None) => ("removed_here", "removed here, still there"),
        (Some(_), None, Some(_)) => ("only_here", "only here"),
        (None, Some(_), Some(_)) => ("only_there", "only there"),
        (Some(here), Some(_), Some(merged)) if here == merged => ("newer_here", "newer here"),
        (Some(_), Some(there), Some(merged)) if there == merged => ("newer_there", "newer there"),
        (Some(_), Some(_), Some(_)) => ("changed_at_both", "changed at both"),
        (Some(_), Some(_), None) => ("removed_at_both", "each removed the other's version"),
        (None, None, _) => ("gone", "gone at both"),
    }
}
