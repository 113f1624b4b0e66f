//! `selfsame peer grant`

use clap::Args;

use crate::cli::error::CliError;
use crate::cli::output::print;
use crate::cli::{Context, Exit};
use crate::node::home::Home;
use crate::node::peers::{GrantRule, PeerFiles, PeersError};

/// Changes what a peer may do here with a collection
///
/// none: for the peer the collection does not exist. read: it may compare, and take entries.
/// write: it may also give entries, which are applied here. Sessions that need more than what is
/// left end at once.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame peer grant berlin players=read
  selfsame peer grant berlin '*=none' scores=write")]
pub(in crate::cli) struct Give {
    /// The peer: its name, its id, or the first digits of its id
    #[arg(value_name = "PEER")]
    peer: String,
    /// The collection and what is granted: none, read or write; * stands for all collections
    /// that are not named
    #[arg(value_name = "COLLECTION=GRANT", required = true)]
    rules: Vec<GrantRule>,
}

impl Give {
    pub(in crate::cli) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let folder = context.folder()?;
        Home::identity_of(&folder)?;
        let changed = PeerFiles::new(&folder).edit(|edit| {
            let id = edit.book().find(&self.peer)?.id;
            edit.grant(&id, self.rules.iter().cloned())?;
            let entry = edit.book().entry(&id).cloned();
            entry.ok_or_else(|| PeersError::Unknown(self.peer.clone()))
        })?;
        print(format_args!("{changed} may do here: {}", changed.grants))?;
        Ok(Exit::Done)
    }
}
