//! `selfsame peer rm`

use clap::Args;

use crate::cli::error::CliError;
use crate::cli::output::{note, print};
use crate::cli::{Context, Exit};
use crate::node::home::Home;
use crate::node::peers::PeerFiles;

/// Removes a peer: its connections end, and it is refused from then on
///
/// What it has synchronised stays. A running `selfsame listen` closes its connections within a
/// second.
#[derive(Args)]
#[command(after_help = "Example:
  selfsame peer rm berlin")]
pub(in crate::cli) struct Remove {
    /// The peer: its name, its id, or the first digits of its id
    #[arg(value_name = "PEER")]
    peer: String,
}

impl Remove {
    pub(in crate::cli) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let folder = context.folder()?;
        Home::identity_of(&folder)?;
        let removed = PeerFiles::new(&folder).edit(|edit| {
            let entry = edit.book().find(&self.peer)?.clone();
            edit.remove(&entry.id);
            Ok(entry)
        })?;
        print(format_args!("removed {removed}"))?;
        // a config that cannot be read allows nobody
        if Home::config_of(&folder).is_ok_and(|config| config.allow.contains(&removed.id)) {
            note(format_args!(
                "but allow in config.toml lists {}: it may still connect, and read and write \
                 everything; take it out there too",
                removed.id
            ));
        }
        Ok(Exit::Done)
    }
}
