//! `selfsame ls`

use clap::Args;
use serde::Serialize;

use super::error::CliError;
use super::output::{Output, date_time, size};
use super::{Context, Exit, arguments};
use crate::api::CallError;
use crate::api::types::{EntryLine, KeyText, SiblingText};
use crate::replica::Entry;
use crate::types::CollectionName;

/// Lists keys, in the order of their hashes
///
/// Pipe it through sort for the order of the keys. Bytes that are no printable text are escaped;
/// --json gives them exactly.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame ls players
  selfsame ls players --prefix player: --long | sort
  selfsame ls players --json")]
pub(super) struct Ls {
    /// The collection
    #[arg(value_parser = arguments::collection)]
    collection: CollectionName,
    /// Only keys that begin with this
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    prefix: String,
    /// The prefix is written in hex
    #[arg(long)]
    hex: bool,
    /// Before each key: size and time of the latest version, and how many versions are held
    #[arg(long, short)]
    long: bool,
    /// Prints JSON, a line for each key: {"key" or "key_hex", "conflict", "siblings":
    /// [{"writer", "counter", "stamp", "size", "value_hash"}]}
    #[arg(long, conflicts_with = "long")]
    json: bool,
}

#[derive(Serialize)]
struct LineJson {
    #[serde(flatten)]
    key: KeyText,
    conflict: bool,
    siblings: Vec<SiblingText>,
}

impl Ls {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let prefix = arguments::bytes(&self.prefix, self.hex)?;
        context.with(|control| {
            let mut lines = control.wait(control.node.entries(&self.collection, &prefix, false))?;
            let mut output = Output::new();
            while let Some(line) = control.wait(lines.next_line())? {
                self.print(&mut output, &parsed(&line)?)?;
            }
            output.finish()?;
            Ok(Exit::Done)
        })
    }

    fn print(&self, output: &mut Output, entry: &Entry) -> Result<(), CliError> {
        let record = &entry.record;
        if self.json {
            return output.json(&LineJson {
                key: KeyText::from(&entry.key),
                conflict: record.is_conflict(),
                siblings: record.siblings().iter().map(SiblingText::from).collect(),
            });
        }
        if !self.long {
            return output.line(&entry.key);
        }
        let latest = record.latest();
        output.line(format_args!(
            "{:>12}  {}  {:>3}  {}",
            size(latest.size),
            date_time(latest.stamp.millis()),
            record.siblings().len(),
            entry.key
        ))
    }
}

/// The entry of a line.
pub(super) fn parsed(line: &[u8]) -> Result<Entry, CallError> {
    let line: EntryLine =
        serde_json::from_slice(line).map_err(|error| CallError::Answer(error.to_string()))?;
    line.entry().ok_or_else(|| CallError::Answer("a line is no entry".into()))
}
