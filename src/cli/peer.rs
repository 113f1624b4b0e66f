//! What the verbs that turn to a peer share.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use clap::Args;
use indicatif::ProgressBar;
use tokio::runtime::Runtime;

use super::error::CliError;
use super::interrupt::Interrupt;
use super::output::size;
use crate::net::{AllowList, CloseCode, Endpoint, Identity, Link, NetError};
use crate::node::choice::PeerChoice;
use crate::node::config::Config;
use crate::node::home::Home;
use crate::node::{Node, Watch};
use crate::session::{Mode, Session};
use crate::store::EmbeddedStore;
use crate::types::CollectionName;

/// The peer to turn to.
#[derive(Args)]
pub(super) struct PeerArgument {
    /// The peer: its node id (`selfsame id` there) with the host and port where it listens, or
    /// the name or the first digits of the id of one that `selfsame peer ls` lists
    #[arg(long, value_name = "ID@HOST:PORT | NAME", value_parser = PeerChoice::from_str)]
    pub(super) peer: PeerChoice,
}

/// A runtime for connections.
pub(super) fn runtime() -> Result<Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| CliError::System { what: "runtime", source })
}

/// Dials a peer, greets it, does the work and says goodbye. A session that the peer may not have
/// part in is not worth dialling for.
pub(super) fn with_peer<R>(
    home: &Home,
    peer: &PeerChoice,
    session: Option<(&CollectionName, Mode)>,
    interrupt: &Interrupt,
    work: impl AsyncFnOnce(&Node<EmbeddedStore>, &Link) -> Result<R, CliError>,
) -> Result<R, CliError> {
    let runtime = runtime()?;
    let (node, addresses) = home.node().turn_to(peer)?;
    if let (Some((collection, mode)), Some(address)) = (session, addresses.first()) {
        node.check_grant(&address.id(), collection, mode)?;
    }
    runtime.block_on(async {
        let endpoint = caller(&home.identity, &home.config)?;
        let deadline = home.config.dial_deadline();
        let connected = async { Ok(node.connect_first(&endpoint, &addresses, deadline).await?) };
        let done = match interrupt.or(connected).await {
            Ok(link) => work(&node, &link).await,
            Err(error) => Err(error),
        };
        endpoint.close(CloseCode::Done, "").await;
        done
    })
}

/// A socket to call from, that nobody may call.
pub(super) fn caller(identity: &Arc<Identity>, config: &Config) -> Result<Endpoint, NetError> {
    let bind = |address: SocketAddr| {
        let nobody = Arc::new(AllowList::default());
        Endpoint::bind(Arc::clone(identity), address, nobody, config.net())
    };
    bind((Ipv6Addr::UNSPECIFIED, 0).into()).or_else(|_| bind((Ipv4Addr::UNSPECIFIED, 0).into()))
}

/// Shows on a terminal what a session has moved.
pub(super) struct Spinner(ProgressBar);

impl Spinner {
    pub(super) fn new() -> Self {
        let seen = super::progress::Progress::is_seen();
        Self(if seen { ProgressBar::new_spinner() } else { ProgressBar::hidden() })
    }
}

impl Watch for Spinner {
    fn progress(&self, session: &Session) {
        if self.0.is_hidden() {
            return;
        }
        let (sent, received) = session.stats().bytes();
        self.0.set_message(format!("{} sent, {} received", size(sent), size(received)));
        self.0.tick();
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
