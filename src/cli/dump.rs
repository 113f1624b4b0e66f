//! `selfsame dump`

use clap::Args;

use super::error::CliError;
use super::json::{DumpLine, SiblingJson};
use super::ls::each_entry;
use super::output::Output;
use super::{Context, Exit, arguments};
use crate::replica::CollectionView as _;
use crate::types::CollectionName;

/// Prints every entry as JSON lines: enough to compute the root elsewhere
///
/// One line for each entry: {"key_hex", "siblings": [{"writer", "counter", "stamp", "size",
/// "value_hash"}]}. The format is stable: fields are added at most. All lines are of one moment.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame dump players --json > players.jsonl
  selfsame dump players --json --values")]
pub(super) struct Dump {
    /// The collection
    #[arg(value_parser = arguments::collection)]
    collection: CollectionName,
    /// JSON lines, which is the only format there is
    #[arg(long)]
    json: bool,
    /// Adds the values: "value_hex" in each sibling
    #[arg(long)]
    values: bool,
}

impl Dump {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let Self { collection, json: _, values } = self;
        context.with(|home| {
            let snapshot = home.replica.collection(&collection)?.snapshot()?;
            let algorithm = snapshot.spec().algorithm;
            let mut output = Output::new();
            each_entry(&snapshot, |entry| {
                let mut line = DumpLine::from(entry);
                if values {
                    let key_hash = algorithm.key_hash(&entry.key);
                    let siblings = entry.record.siblings().iter().map(|sibling| {
                        let value = snapshot.value(&key_hash, &sibling.value_hash)?;
                        let value = value.ok_or(CliError::ValueLost)?;
                        Ok(SiblingJson::new(sibling, Some(&value)))
                    });
                    line.siblings = siblings.collect::<Result<_, CliError>>()?;
                }
                output.json(&line)
            })?;
            output.finish()?;
            Ok(Exit::Done)
        })
    }
}
