//! `selfsame put`

use std::fs::File;
use std::io::{self, IsTerminal as _, Read};
use std::path::Path;

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

/// A value in a file.
pub(super) fn from_file(path: &Path, limit: u64) -> Result<Vec<u8>, CliError> {
    let file = File::open(path).map_err(CliError::file("open", path))?;
    let read = taken(file, limit);
    read.map_err(CliError::file("read", path))?.ok_or_else(|| ApiError::ValueSize(limit).into())
}

/// All of a value; none if it is longer than it may be.
fn taken(input: impl Read, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut value = Vec::new();
    input.take(limit.saturating_add(1)).read_to_end(&mut value)?;
    Ok(if value.len() as u64 > limit { None } else { Some(value) })
}

/// A value from standard input.
pub(super) fn from_input(limit: u64) -> Result<Vec<u8>, CliError> {
    let input = io::stdin();
    if input.is_terminal() {
        note("reading the value from the terminal: end it with Ctrl-D");
    }
    let read = taken(input.lock(), limit).map_err(CliError::Input)?;
    read.ok_or_else(|| ApiError::ValueSize(limit).into())
}
