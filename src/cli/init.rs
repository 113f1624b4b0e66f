//! `selfsame init`

use clap::Args;
use serde_json::json;

use super::error::CliError;
use super::output::{print, print_json};
use super::{Context, Exit};
use crate::node::home::Home;

/// Makes a node: a new identity, settings and an empty store
///
/// The data folder must be empty or not there yet. What is in it already from an attempt that
/// was cut short is kept and completed. The identity (mode 0600) is the node: whoever has a copy
/// of it can speak for this node, so keep it out of shared backups.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame init
  selfsame init --data /var/lib/selfsame")]
pub(super) struct Init {
    /// Prints JSON: {"id", "folder"}
    #[arg(long)]
    json: bool,
}

impl Init {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let folder = context.folder()?;
        let id = Home::init(&folder)?;
        if self.json {
            print_json(&json!({"id": id.to_string(), "folder": folder.display().to_string()}))?;
        } else {
            print(format_args!(
                "made a node in {}\nits id is {id}\nnext: selfsame collection create NAME",
                folder.display()
            ))?;
        }
        Ok(Exit::Done)
    }
}
