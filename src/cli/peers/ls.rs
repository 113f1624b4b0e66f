//! `selfsame peer ls`

use clap::Args;
use serde_json::{Value, json};

use super::grants_json;
use crate::cli::error::CliError;
use crate::cli::output::{Output, note, print, table};
use crate::cli::{Context, Exit};
use crate::node::home::Home;
use crate::node::peers::{Grant, Grants, PeerEntry, PeerFiles};

/// Lists the peers: names, ids, addresses, and what each may do here
///
/// Nodes that config.toml allows and that have no entry of their own are listed last.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame peer ls
  selfsame peer ls --json | jq -r .id")]
pub(in crate::cli) struct List {
    /// Prints JSON, a line for each: {"id", "name", "addresses", "grants", "from"}
    #[arg(long)]
    json: bool,
}

impl List {
    pub(in crate::cli) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let folder = context.folder()?;
        Home::identity_of(&folder)?;
        let book = PeerFiles::new(&folder).book()?;
        let config = Home::config_of(&folder)?;
        let allowed = config.allow.iter().filter(|id| book.entry(id).is_none());
        let allowed = allowed.map(|id| PeerEntry {
            id: *id,
            name: None,
            addresses: Vec::new(),
            grants: Grants::all(Grant::Write),
        });
        let listed = book.peers.iter().cloned().map(|peer| (peer, "peers.toml"));
        let listed: Vec<_> = listed.chain(allowed.map(|peer| (peer, "config.toml"))).collect();
        if self.json {
            let mut output = Output::new();
            for (peer, from) in &listed {
                output.json(&described(peer, from))?;
            }
            output.finish()?;
        } else if listed.is_empty() {
            note(
                "no peers yet: `selfsame peer invite` here and `selfsame peer join` there, or \
                  `selfsame peer add`",
            );
        } else {
            let mut rows = table(&["NAME", "ID", "ADDRESSES", "MAY DO HERE"], &[]);
            for (peer, _) in &listed {
                let places: Vec<_> = peer.addresses.iter().map(ToString::to_string).collect();
                rows.add_row([
                    peer.name.as_ref().map_or("-", |name| name.as_str()),
                    &peer.id.to_string(),
                    &if places.is_empty() { "-".to_owned() } else { places.join(", ") },
                    &peer.grants.to_string(),
                ]);
            }
            print(rows)?;
        }
        Ok(Exit::Done)
    }
}

fn described(peer: &PeerEntry, from: &str) -> Value {
    json!({
        "id": peer.id.to_string(),
        "name": peer.name.as_ref().map(ToString::to_string),
        "addresses": peer.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "grants": grants_json(&peer.grants),
        "from": from,
    })
}
