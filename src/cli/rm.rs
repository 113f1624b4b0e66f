//! `selfsame rm`

use clap::Args;
use serde_json::json;

use super::arguments::{self, KeyArgument};
use super::error::CliError;
use super::output::{note, print_json};
use super::{Context, Exit};
use crate::types::CollectionName;

/// Removes a key: all versions of it that are held here
///
/// Peers that still hold those versions remove them when they synchronise. A version written
/// elsewhere that this node has not seen survives. No such key: 1.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame rm players player:17
  selfsame rm players --hex 00ff10")]
pub(super) struct Rm {
    /// The collection
    #[arg(value_parser = arguments::collection)]
    collection: CollectionName,
    #[command(flatten)]
    key: KeyArgument,
    /// Prints JSON: how many versions were "removed", and the "root" after it
    #[arg(long)]
    json: bool,
}

impl Rm {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let key = self.key.key()?;
        context.with(|control| {
            let done = control.wait(control.node.delete(&self.collection, &key))?;
            if self.json {
                print_json(&json!(done))?;
            }
            if done.removed == 0 {
                note(format_args!("{key}: no such key in {}", self.collection));
                return Ok(Exit::Differs);
            }
            Ok(Exit::Done)
        })
    }
}
