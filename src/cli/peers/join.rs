//! `selfsame peer join`

use std::io::Read as _;
use std::sync::Arc;

use clap::Args;

use super::GrantArguments;
use crate::api::host::caller;
use crate::cli::control::runtime;
use crate::cli::error::CliError;
use crate::cli::interrupt::Interrupt;
use crate::cli::output::print;
use crate::cli::{Context, Exit};
use crate::net::{CloseCode, HostPort};
use crate::node::home::Home;
use crate::node::pairing::{Invitation, Terms, join};
use crate::node::peers::{Edited, PeerFiles, PeerName};

/// Longest text that is read from standard input.
const MAX_INPUT_BYTES: u64 = 64 << 10;

/// Pairs with the node that made an invitation: afterwards each knows the other
///
/// The invitation says who that node is and where it listens; it must be running `selfsame
/// listen`. Both ends prove themselves, and the string is of no use afterwards. Without --grant,
/// that node may read and write every collection of this node; if it is a peer already, what it
/// may do stays as it is.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame peer join selfsame-invite-1:...
  selfsame peer join selfsame-invite-1:... --name oslo --grant players=read
  selfsame peer join - < invitation.txt")]
pub(in crate::cli) struct Join {
    /// The string that `selfsame peer invite` printed there; - reads it from standard input
    #[arg(value_name = "STRING")]
    invitation: String,
    /// How that node will be called here
    #[arg(long)]
    name: Option<PeerName>,
    /// Where this node listens, told to that node, so that it can dial too; may be repeated
    #[arg(long = "address", value_name = "HOST:PORT")]
    addresses: Vec<HostPort>,
    #[command(flatten)]
    grants: GrantArguments,
}

impl Join {
    pub(in crate::cli) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let interrupt = Interrupt::install()?;
        let folder = context.folder()?;
        let identity = Arc::new(Home::identity_of(&folder)?);
        let config = Home::config_of(&folder)?;
        let files = PeerFiles::new(&folder);
        let invitation: Invitation = self.text()?.parse()?;
        let known = files.book()?.entry(&invitation.inviter()).map(|peer| peer.grants.clone());
        let grants = self.grants.said().or(known).unwrap_or_else(|| self.grants.grants());
        let terms = Terms { name: self.name, addresses: self.addresses, grants };
        let joined = runtime()?.block_on(async {
            let endpoint = caller(&identity, &config)?;
            let deadline = config.dial_deadline();
            let joining =
                async { Ok(join(&files, &endpoint, &invitation, terms, deadline).await?) };
            let joined = interrupt.or(joining).await;
            endpoint.close(CloseCode::Done, "").await;
            joined
        })?;
        let peer = &joined.peer;
        print(format_args!(
            "{} {peer}, reached at {}: it may do here: {}\nnext: selfsame sync COLLECTION --peer {}",
            match joined.edited {
                Edited::Added => "paired with",
                Edited::Changed => "paired anew with",
            },
            joined.reached.place(),
            peer.grants,
            peer.name
                .as_ref()
                .map_or_else(|| peer.id.to_string()[..8].to_owned(), ToString::to_string),
        ))?;
        Ok(Exit::Done)
    }

    fn text(&self) -> Result<String, CliError> {
        if self.invitation != "-" {
            return Ok(self.invitation.clone());
        }
        let mut text = String::new();
        let input = std::io::stdin().lock().take(MAX_INPUT_BYTES).read_to_string(&mut text);
        input.map_err(CliError::Input)?;
        Ok(text)
    }
}
