//! `selfsame peer add`

use clap::Args;

use super::GrantArguments;
use crate::cli::error::CliError;
use crate::cli::output::print;
use crate::cli::{Context, Exit};
use crate::net::{AddressError, HostPort, PeerAddress, parse_node_id};
use crate::node::home::Home;
use crate::node::peers::{PeerEntry, PeerFiles, PeerName, PeersError};
use crate::types::NodeId;

/// Adds a peer whose id is known, with what it may do here
///
/// Without --grant it may read and write every collection of this node. The other node has to add
/// this one too; `selfsame peer invite` and `selfsame peer join` do both at once.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame peer add ID@192.0.2.7:7447 --name berlin
  selfsame peer add ID --name reader --grant players=read
  selfsame peer add ID --address node-b.example:7447 --grant '*=read' --grant scores=write")]
pub(in crate::cli) struct Add {
    /// The peer's node id (`selfsame id` there), with or without an address
    #[arg(value_name = "ID[@HOST:PORT]", value_parser = Whom::parse)]
    whom: Whom,
    /// How to call it: a name of its own, to be used in place of its id
    #[arg(long)]
    name: Option<PeerName>,
    /// Where it listens; tried in this order; may be repeated. Without any, it dials
    #[arg(long = "address", value_name = "HOST:PORT")]
    addresses: Vec<HostPort>,
    #[command(flatten)]
    grants: GrantArguments,
}

#[derive(Clone, Debug)]
struct Whom {
    id: NodeId,
    place: Option<HostPort>,
}

impl Whom {
    fn parse(text: &str) -> Result<Self, AddressError> {
        if text.contains('@') {
            let address: PeerAddress = text.parse()?;
            Ok(Self { id: address.id(), place: Some(address.place().clone()) })
        } else {
            Ok(Self { id: parse_node_id(text)?, place: None })
        }
    }
}

impl Add {
    pub(in crate::cli) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let folder = context.folder()?;
        let own = Home::identity_of(&folder)?.node_id();
        if self.whom.id == own {
            return Err(PeersError::OwnId(own).into());
        }
        let mut addresses: Vec<_> = self.whom.place.into_iter().collect();
        for place in self.addresses {
            if !addresses.contains(&place) {
                addresses.push(place);
            }
        }
        let grants = self.grants.grants();
        let entry = PeerEntry { id: self.whom.id, name: self.name, addresses, grants };
        PeerFiles::new(&folder).edit(|edit| edit.add(entry.clone()))?;
        print(format_args!(
            "added {entry}: it may do here: {}\nit must know this node too: selfsame peer add {own}",
            entry.grants
        ))?;
        Ok(Exit::Done)
    }
}
