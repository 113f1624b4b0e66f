//! `selfsame ls`

use clap::Args;
use serde::Serialize;

use super::error::CliError;
use super::json::{KeyJson, SiblingJson};
use super::output::{Output, date_time, size};
use super::{Context, Exit, arguments};
use crate::replica::{Entry, Snapshot};
use crate::store::EmbeddedStore;
use crate::types::CollectionName;

/// Entries read at once.
const CHUNK: usize = 512;

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
    key: KeyJson,
    conflict: bool,
    siblings: Vec<SiblingJson>,
}

impl Ls {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let prefix = arguments::bytes(&self.prefix, self.hex)?;
        context.with(|home| {
            let snapshot = home.replica.collection(&self.collection)?.snapshot()?;
            let mut output = Output::new();
            each_entry(&snapshot, |entry| {
                if entry.key.as_bytes().starts_with(&prefix) {
                    self.print(&mut output, entry)?;
                }
                Ok(())
            })?;
            output.finish()?;
            Ok(Exit::Done)
        })
    }

    fn print(&self, output: &mut Output, entry: &Entry) -> Result<(), CliError> {
        let record = &entry.record;
        if self.json {
            return output.json(&LineJson {
                key: KeyJson::from(&entry.key),
                conflict: record.is_conflict(),
                siblings: record.siblings().iter().map(SiblingJson::from).collect(),
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

/// Visits all entries of a snapshot, in the order of their key hashes.
pub(super) fn each_entry(
    snapshot: &Snapshot<EmbeddedStore>,
    mut visit: impl FnMut(&Entry) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let algorithm = crate::replica::CollectionView::spec(snapshot).algorithm;
    let mut last = None;
    loop {
        let entries = snapshot.entries_after(last.as_ref(), CHUNK, |_| true)?;
        let Some(entry) = entries.last() else { return Ok(()) };
        last = Some(algorithm.key_hash(&entry.key));
        for entry in &entries {
            visit(entry)?;
        }
    }
}
