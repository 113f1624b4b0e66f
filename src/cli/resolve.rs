//! `selfsame resolve`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::arguments::{self, KeyArgument};
use super::error::CliError;
use super::output::{note, print_json};
use super::put::{from_file, from_input};
use super::{Context, Exit};
use crate::api::types::ReadToken;
use crate::types::CollectionName;

/// Ends a conflict: one version is kept, or another value takes the place of all
///
/// Which versions were looked at is said with --read, as `selfsame conflicts` and `selfsame get
/// --json` print it. If others are held by now, nothing is done and the command ends with 1: look
/// again. Otherwise a new version replaces just those, here and, with the next session, at every
/// peer; one that is written elsewhere meanwhile stays beside it. Without --take, --value, --file
/// or --delete the value is read from standard input.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame resolve players player:17 --read 5d0c9b6a2f4e1c7788aa90b1c2d3e4f5 --take latest
  selfsame resolve players player:17 --read 5d0c9b6a2f4e1c7788aa90b1c2d3e4f5 --take 1f09ddf9
  selfsame resolve players player:17 --read 5d0c9b6a2f4e1c7788aa90b1c2d3e4f5 --file merged.json
  selfsame resolve players player:17 --read 5d0c9b6a2f4e1c7788aa90b1c2d3e4f5 --delete")]
pub(super) struct Resolve {
    /// The collection
    #[arg(value_parser = arguments::collection)]
    collection: CollectionName,
    #[command(flatten)]
    key: KeyArgument,
    /// Which versions were looked at: 32 hex digits
    #[arg(long, value_name = "TOKEN", required = true)]
    read: String,
    /// Keeps one of them: latest, WRITER:COUNTER, or the first digits of its value hash
    #[arg(long, value_name = "VERSION", group = "what")]
    take: Option<String>,
    /// Writes this value
    #[arg(long, value_name = "VALUE", group = "what", allow_hyphen_values = true)]
    value: Option<String>,
    /// Writes the content of a file
    #[arg(long, value_name = "FILE", group = "what")]
    file: Option<PathBuf>,
    /// Removes the key
    #[arg(long, group = "what")]
    delete: bool,
    /// Prints JSON: the version written, {"writer", "counter", "stamp", "size", "value_hash",
    /// "root"}, or how many versions were "removed", and the "root" after it
    #[arg(long)]
    json: bool,
}

impl Resolve {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let key = self.key.key()?;
        let read = ReadToken::parse(&self.read)?;
        context.with(|control| {
            let (node, collection) = (&control.node, &self.collection);
            let done = if self.delete {
                let done = control.wait(node.delete_read(collection, &key, &read))?;
                note(format_args!("{key}: removed"));
                json!(done)
            } else if let Some(take) = &self.take {
                json!(control.wait(node.take(collection, &key, &read, take))?)
            } else {
                // before anything is read
                control.wait(node.collection(collection))?;
                let limit = control.wait(node.node())?.max_value_bytes;
                let value = match (&self.value, &self.file) {
                    (Some(text), _) => text.clone().into_bytes(),
                    (None, Some(path)) => from_file(path, limit)?,
                    (None, None) => from_input(limit)?,
                };
                json!(control.wait(node.put_over(collection, &key, &read, value))?)
            };
            if self.json {
                print_json(&done)?;
            }
            Ok(Exit::Done)
        })
    }
}
