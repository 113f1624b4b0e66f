//! `selfsame put`

use std::io::{IsTerminal as _, Read as _};

use clap::Args;
use serde_json::json;

use super::arguments::{self, KeyArgument};
use super::error::CliError;
use super::output::{note, print_json};
use super::{Context, Exit};
use crate::api::ApiError;
use crate::types::CollectionName;

/// Writes a value in place of all versions of a key held here
///
/// Without a value, or with - as value, it is read from standard input, byte for byte. The write
/// is synced to disk before the command ends (see durability in config.toml).
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame put players player:17 '{\"level\":3}'
  selfsame put images logo.png < logo.png
  selfsame put players --hex 00ff10 value
  selfsame put players key -- --a-value-that-looks-like-an-option")]
pub(super) struct Put {
    /// The collection
    #[arg(value_parser = arguments::collection)]
    collection: CollectionName,
    #[command(flatten)]
    key: KeyArgument,
    /// The value; - or nothing: from standard input
    #[arg(allow_negative_numbers = true)]
    value: Option<String>,
    /// Prints JSON: the version written, {"writer", "counter", "stamp", "size",
    /// "value_hash"}, and the "root" after it
    #[arg(long)]
    json: bool,
}

impl Put {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let key = self.key.key()?;
        context.with(|control| {
            let value = match self.value {
                Some(text) if text != "-" => text.into_bytes(),
                _ => {
                    // before anything is read
                    control.wait(control.node.collection(&self.collection))?;
                    from_input(control.wait(control.node.node())?.max_value_bytes)?
                }
            };
            let written = control.wait(control.node.put(&self.collection, &key, value))?;
            if self.json {
                print_json(&json!(written))?;
            }
            Ok(Exit::Done)
        })
    }
}

fn from_input(limit: u64) -> Result<Vec<u8>, CliError> {
    let input = std::io::stdin();
    if input.is_terminal() {
        note("reading the value from the terminal: end it with Ctrl-D");
    }
    let mut value = Vec::new();
    input.lock().take(limit + 1).read_to_end(&mut value).map_err(CliError::Input)?;
    if value.len() as u64 > limit {
        return Err(ApiError::ValueSize(limit).into());
    }
    Ok(value)
}
