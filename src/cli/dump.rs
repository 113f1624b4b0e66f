//! `selfsame dump`

use clap::Args;

use super::error::CliError;
use super::output::Output;
use super::{Context, Exit, arguments};
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
        context.with(|control| {
            let mut lines = control.wait(control.node.entries(&collection, b"", values))?;
            let mut output = Output::new();
            while let Some(line) = control.wait(lines.next_line())? {
                output.bytes(&line)?;
                output.bytes(b"\n")?;
            }
            output.finish()?;
            Ok(Exit::Done)
        })
    }
}
