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
/// nothing is printed and the command ends with 1: --json shows them all. By a resolver, such as
/// max@1, what it makes of them is printed; if it can make nothing of them, nothing, and the
/// command ends with 1. No such key: 1.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame get players player:17
  selfsame get images logo.png > logo.png
  selfsame get drafts plan --json
  selfsame get drafts plan --version 1f09ddf9")]
pub(super) struct Get {
    /// The collection
    #[arg(value_parser = arguments::collection)]
    collection: CollectionName,
    #[command(flatten)]
    key: KeyArgument,
    /// Prints the value with this hash: one of several versions, or an old one that is still kept
    /// (see selfsame history); its first digits are enough
    #[arg(long, value_name = "HASH", conflicts_with = "json")]
    version: Option<String>,
    /// Prints JSON: {"key" or "key_hex", "conflict", "read", "versions": [{"writer",
    /// "counter", "stamp", "size", "value_hash", "value" or "value_hex"}], "merged"}, the latest
    /// first; "read" names these versions for selfsame resolve
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
            if let Some(hash) = &self.version {
                let value = control.wait(control.node.version(&self.collection, &key, hash))?;
                let mut output = Output::new();
                output.bytes(&value)?;
                output.finish()?;
                return Ok(Exit::Done);
            }
            let value = control.wait(control.node.value(&self.collection, &key))?;
            if value.conflict {
                note(format_args!(
                    "{key}: concurrent versions are held; this is what the policy shows, and the \
                     next put replaces all"
                ));
            }
            let mut output = Output::new();
            output.bytes(&value.bytes)?;
            output.finish()?;
            Ok(Exit::Done)
        })
    }
}
