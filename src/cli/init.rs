//! `selfsame init`

use clap::Args;
use serde_json::json;

use super::error::CliError;
use super::output::{print, print_json};
use super::{Context, Exit};
use crate::node::home::{Home, HomeError};

/// Makes a node: a new identity, settings and an empty store
///
/// The data folder must be empty or not there yet. What is in it already from an attempt that
/// was cut short is kept and completed. The identity (mode 0600) is the node: whoever has a copy
/// of it can speak for this node, so keep it out of shared backups.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame init
  selfsame init --data /var/lib/selfsame
  selfsame init --if-missing            # in the start script of a service")]
pub(super) struct Init {
    /// Leaves a node that is there already as it is, and ends with 0
    #[arg(long)]
    if_missing: bool,
    /// Prints JSON: {"id", "folder"}
    #[arg(long)]
    json: bool,
}

impl Init {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let folder = context.folder()?;
        let (id, made) = match Home::init(&folder) {
            Err(HomeError::Exists { id, .. }) if self.if_missing => (id, false),
            made => (made?, true),
        };
        if self.json {
            print_json(&json!({"id": id.to_string(), "folder": folder.display().to_string()}))?;
        } else if !made {
            print(format_args!("there is a node in {} already\nits id is {id}", folder.display()))?;
        } else {
            print(format_args!(
                "made a node in {}\nits id is {id}\nnext: selfsame collection create NAME",
                folder.display()
            ))?;
        }
        Ok(Exit::Done)
    }
}
