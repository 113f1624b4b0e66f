//! `selfsame listen`

use std::net::SocketAddr;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use super::control::{Offered, runtime};
use super::error::CliError;
use super::interrupt::Interrupt;
use super::log::Log;
use super::output::{counted, print, print_json, size};
use super::{Context, Exit};
use crate::api::Host;
use crate::api::report::words;
use crate::net::{Endpoint, IdentityError, parse_node_id};
use crate::node::access::Access;
use crate::node::peers::Edited;
use crate::node::server::{Event, serve};
use crate::types::NodeId;

/// Clocks further apart than this are worth a word.
const NOTABLE_MS: u64 = 5_000;

/// Serves sessions to peers until Ctrl-C
///
/// Only the peers of this node may connect (`selfsame peer ls`), each for what it was granted,
/// and the nodes that config.toml or --allow lists, for everything. Open invitations are taken
/// here, and a change of the peer book holds within a second. Other commands work beside it.
/// What happens is told on standard output, what is wrong at this node on standard error.
/// Ctrl-C ends it cleanly: running sessions are told, and what they had applied is kept.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame listen --allow ID
  selfsame listen --addr 192.0.2.7:7447 --allow ID --allow OTHER_ID")]
pub(super) struct Listen {
    /// Where to listen (UDP) [default: listen in config.toml]; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    addr: Option<SocketAddr>,
    /// A node that may connect, beside those in config.toml; may be repeated
    #[arg(long, value_name = "ID", value_parser = node_id)]
    allow: Vec<NodeId>,
    /// Prints JSON, a line for each event; the first is {"event":"listening", "id",
    /// "address"}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    log: Log,
}

/// Sessions are told on standard output.
const USUAL_LOG: &str = "warn";

/// How many nodes may connect.
pub(super) fn admitted(access: &Access) -> u64 {
    let mut ids = access.allowed();
    ids.extend(access.book().peers.iter().map(|peer| peer.id));
    ids.len() as u64
}

pub(super) fn node_id(text: &str) -> Result<NodeId, IdentityError> {
    parse_node_id(text)
}

impl Listen {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        self.log.around(USUAL_LOG, || self.in_folder(context))
    }

    /// Whether events are told as JSON.
    const fn is_json(&self) -> bool {
        self.json || self.log.is_json()
    }

    fn in_folder(&self, context: &Context) -> Result<Exit, CliError> {
        let interrupt = Interrupt::install()?;
        context.open(|home| {
            for id in &self.allow {
                home.access.allow(*id);
            }
            let count = admitted(&home.access);
            let runtime = runtime()?;
            runtime.block_on(async {
                let address = self.addr.unwrap_or(home.config.listen);
                let identity = Arc::clone(&home.identity);
                let admission = Arc::new(home.access.clone());
                let endpoint = Endpoint::bind(identity, address, admission, home.config.net())?;
                let control = {
                    let host = Host::new(home).staying();
                    Offered::to_others(&home.folder, host, interrupt.receiver()).await
                };
                self.announce(home.identity.node_id(), endpoint.local_address(), count)?;
                let json = self.is_json();
                let listener = Arc::new(move |event: Event| tell(&event, json));
                serve(Arc::new(home.node()), endpoint, interrupt.receiver(), listener).await;
                control.ended().await;
                Ok::<(), CliError>(())
            })?;
            // tasks of connections hold the store until they are gone
            runtime.shutdown_timeout(std::time::Duration::from_secs(5));
            self.log.stopped();
            Ok(Exit::Done)
        })
    }

    fn announce(&self, id: NodeId, address: SocketAddr, allowed: u64) -> Result<(), CliError> {
        self.log.allowed(allowed);
        if self.is_json() {
            let address = address.to_string();
            return print_json(
                &json!({"event": "listening", "id": id.to_string(), "address": address}),
            );
        }
        print(format_args!(
            "listening on {address}, {} allowed\npeers reach this node as {id}@HOST:{}",
            counted(allowed, "node", "nodes"),
            address.port()
        ))
    }
}

/// A line for an event; if nobody reads them, serving goes on.
fn tell(event: &Event, json: bool) {
    let _ = match (json, described(event)) {
        (true, (value, _)) => print_json(&value),
        (false, (_, Some(text))) => print(text),
        (false, (_, None)) => Ok(()),
    };
}

fn described(event: &Event) -> (Value, Option<String>) {
    match event {
        Event::Connected { peer, clock_ahead_ms, .. } => {
            let json = json!({
                "event": "connected", "peer": peer.to_string(), "clock_ahead_ms": clock_ahead_ms,
            });
            let apart = clock_ahead_ms.unsigned_abs();
            let text = (apart > NOTABLE_MS)
                .then(|| format!("{}: its clock is {apart} ms apart: check both", short(peer)));
            (json, text)
        }
        Event::NotGreeted { peer, error } => {
            let json = json!({
                "event": "not_greeted", "peer": peer.to_string(), "error": error.to_string(),
            });
            (json, Some(format!("{}: {error}", short(peer))))
        }
        Event::Session { peer, collection, report } => {
            let (sent, received) = report.stats.bytes();
            let (outcome, sentence) = words(&report.outcome);
            let json = json!({
                "event": "session", "peer": peer.to_string(), "collection": collection.as_str(),
                "outcome": outcome, "detail": sentence,
                "changed_here": report.stats.here.changed(),
                "changed_there": report.stats.there.changed(),
                "reports": report.stats.reports,
                "bytes_sent": sent, "bytes_received": received,
            });
            let text = format!(
                "{}: {collection}: {sentence} ({} changed here, {} there; {} sent, {} received)",
                short(peer),
                report.stats.here.changed(),
                report.stats.there.changed(),
                size(sent),
                size(received)
            );
            (json, Some(text))
        }
        Event::Refused { peer, code } => {
            let json = json!({
                "event": "refused", "peer": peer.to_string(), "reason": code.to_string(),
            });
            (json, Some(format!("{}: turned away: {code}", short(peer))))
        }
        Event::Paired { peer, edited } => {
            let json = json!({
                "event": "paired", "peer": peer.id.to_string(), "grants": peer.grants.to_string(),
                "name": peer.name.as_ref().map(ToString::to_string),
                "new": *edited == Edited::Added,
            });
            (
                json,
                Some(format!("{}: paired: {} may do here: {}", short(&peer.id), peer, peer.grants)),
            )
        }
        Event::NotPaired { peer, address, error } => {
            let json = json!({
                "event": "not_paired", "peer": peer.to_string(), "address": address.to_string(),
                "error": error.to_string(),
            });
            (json, Some(format!("{} at {address}: not paired: {error}", short(peer))))
        }
        Event::PeerBook { error } => {
            let said = error.as_ref().map(ToString::to_string);
            let text = match &said {
                Some(said) => format!("the peer book cannot be used, the one before holds: {said}"),
                None => "the peer book has changed, and holds from now on".into(),
            };
            (json!({"event": "peer_book", "error": said}), Some(text))
        }
        Event::Same { peer, .. } => (json!({"event": "same", "peer": peer.to_string()}), None),
        Event::Disconnected { peer, .. } => {
            (json!({"event": "disconnected", "peer": peer.to_string()}), None)
        }
    }
}

fn short(peer: &NodeId) -> String {
    let mut text = peer.to_string();
    text.truncate(8);
    text
}
