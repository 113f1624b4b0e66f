//! `selfsame peer uninvite`

use clap::Args;

use super::now_unix_s;
use crate::cli::error::CliError;
use crate::cli::output::print;
use crate::cli::{Context, Exit};
use crate::node::home::Home;
use crate::node::pairing::Invites;
use crate::node::peers::PeerFiles;

/// Takes an invitation back: nobody can use it from then on
///
/// Beside a running node, too, it holds at once. Who has used it already is a peer, and is removed
/// with `selfsame peer rm`.
#[derive(Args)]
#[command(after_help = "Example:
  selfsame peer uninvite 3f09a1c2")]
pub(in crate::cli) struct Uninvite {
    /// The invitation: the first digits of its id, four or more (`selfsame peer invites`)
    #[arg(value_name = "ID")]
    id: String,
}

impl Uninvite {
    pub(in crate::cli) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let folder = context.folder()?;
        Home::identity_of(&folder)?;
        let files = PeerFiles::new(&folder);
        let taken = Invites::new(&files).withdraw(&self.id, now_unix_s())?;
        let of = taken.name.as_ref().map(|name| format!(" for {name}")).unwrap_or_default();
        print(format_args!("taken back: invitation {}{of}", taken.id()))?;
        Ok(Exit::Done)
    }
}
