//! `selfsame certificate ls`

use clap::Args;
use serde_json::json;

use crate::api::types::CertificateQuery;
use crate::cli::error::CliError;
use crate::cli::output::{Output, count, date_time, note, print, table};
use crate::cli::{Context, Exit, arguments};
use crate::types::CollectionName;

/// Lists the certificates of a collection that this node has kept, the latest first
///
/// Numbers count on over all starts of the node, with a gap at each. The oldest are dropped
/// beyond certificate_log_entries in config.toml; the last one with each peer is always kept.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame certificate ls players
  selfsame certificate ls players --peer berlin --limit 1 --json | jq -r .root")]
pub(in crate::cli) struct List {
    /// The collection
    #[arg(value_parser = arguments::collection)]
    collection: CollectionName,
    /// Only those with this peer: its name, its id or the first digits of it
    #[arg(long)]
    peer: Option<String>,
    /// Only those with numbers below this
    #[arg(long, value_name = "NUMBER")]
    before: Option<u64>,
    /// At most so many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    limit: u64,
    /// Prints JSON, a line for each: {"number", "kept_ms", "collection", "nodes", "root",
    /// "context", "session", "stamp", "entries", "bytes"}
    #[arg(long)]
    json: bool,
}

impl List {
    pub(in crate::cli) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let query = CertificateQuery {
            peer: self.peer,
            number: None,
            before: self.before,
            limit: Some(self.limit),
        };
        context.with(|control| {
            let me = control.wait(control.node.node())?.id;
            let listed = control.wait(control.node.certificates(&self.collection, &query))?;
            if self.json {
                let mut output = Output::new();
                for certificate in &listed.certificates {
                    output.json(&json!(certificate))?;
                }
                output.finish()?;
            } else if listed.certificates.is_empty() {
                note("no certificates: one comes with each session that changes something");
            } else {
                let mut rows = table(&["NUMBER", "KEPT", "WITH", "ENTRIES", "ROOT"], &[0, 3]);
                for one in &listed.certificates {
                    let peer = one.nodes.iter().find(|node| **node != me);
                    rows.add_row([
                        one.number.unwrap_or_default().to_string(),
                        date_time(one.kept_ms.unwrap_or_default()),
                        peer.into_iter().flat_map(|peer| peer.chars().take(8)).collect(),
                        one.entries.map_or_else(|| "-".into(), count),
                        one.root.chars().take(16).collect(),
                    ]);
                }
                print(rows)?;
            }
            Ok(Exit::Done)
        })
    }
}
