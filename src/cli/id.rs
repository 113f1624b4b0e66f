//! `selfsame id`

use clap::Args;
use serde_json::json;

use super::error::CliError;
use super::output::{print, print_json};
use super::{Context, Exit};
use crate::node::home::Home;

/// Prints this node's id, which peers allow and dial
///
/// The id is the node's public key, 64 hex digits. It works while another process, such as
/// `selfsame listen`, has the node open.
#[derive(Args)]
#[command(after_help = "Example:
  selfsame sync players --peer \"$(selfsame --data ../other id)@127.0.0.1:7447\"")]
pub(super) struct Id {
    /// Prints JSON: {"id"}
    #[arg(long)]
    json: bool,
}

impl Id {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let id = Home::identity_of(&context.folder()?)?.node_id();
        if self.json {
            print_json(&json!({"id": id.to_string()}))?;
        } else {
            print(id)?;
        }
        Ok(Exit::Done)
    }
}
