//! `selfsame get`

use clap::Args;

use super::arguments::{self, KeyArgument};
use super::error::CliError;
use super::output::{Output, note, print_json};
use super::{Context, Exit};
use crate::types::CollectionName;

/// Prints the value of a key, byte for byte
///
/// By policy lww that is the latest version; if concurrent ones are held beside it, that is said
/// on standard error. By policy siblings a single version is printed; if there are several,
/// nothing is printed and the command ends with 1: --json shows them all. No such key: 1.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame get players player:17
  selfsame get images logo.png > logo.png
  selfsame get drafts plan --json")]
pub(super) struct Get {
    /// The collection
    #[arg(value_parser = arguments::collection)]
    collection: CollectionName,
    #[command(flatten)]
    key: KeyArgument,
    /// Prints JSON: {"key" or "key_hex", "conflict", "versions": [{"writer",
    /// "counter", "stamp", "size", "value_hash", "value" or "value_hex"}]}, the latest
    /// first
    #[arg(long)]
    json: bool,
}

impl Get {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let key = self.key.key()?;
        context.with(|control| {
            if self.json {
                print_json(&control.wait(control.node.read(&self.collection, &key))?)?;
                return Ok(Exit::Done);
            }
            let value = control.wait(control.node.value(&self.collection, &key))?;
            if value.conflict {
                note(format_args!(
                    "{key}: concurrent versions are held; this is the latest, and the next put \
                     replaces all"
                ));
            }
            let mut output = Output::new();
            output.bytes(&value.bytes)?;
            output.finish()?;
            Ok(Exit::Done)
        })
    }
}
