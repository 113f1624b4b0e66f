//! What the verbs that turn to a peer share.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use clap::Args;
use indicatif::ProgressBar;
use tokio::runtime::Runtime;

use super::error::CliError;
use super::interrupt::Interrupt;
use super::output::size;
use crate::net::{AllowList, CloseCode, Endpoint, Link, NetError, PeerAddress};
use crate::node::home::Home;
use crate::node::{Node, Watch};
use crate::session::Session;
use crate::store::EmbeddedStore;

/// The peer to turn to.
#[derive(Args)]
pub(super) struct PeerArgument {
    /// The peer: its node id (`selfsame id` there), and the host and port where it listens
    #[arg(long, value_name = "ID@HOST:PORT")]
    pub(super) peer: PeerAddress,
}

/// A runtime for connections.
pub(super) fn runtime() -> Result<Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| CliError::System { what: "runtime", source })
}

/// Dials a peer, greets it, does the work and says goodbye.
pub(super) fn with_peer<R>(
    home: &Home,
    peer: &PeerAddress,
    interrupt: &Interrupt,
    work: impl AsyncFnOnce(&Node<EmbeddedStore>, &Link) -> Result<R, CliError>,
) -> Result<R, CliError> {
    let runtime = runtime()?;
    let node = home.node().vouching_for(peer.id());
    runtime.block_on(async {
        let endpoint = caller(home)?;
        let connected =
            async { Ok(node.connect(&endpoint, peer, home.config.dial_deadline()).await?) };
        let done = match interrupt.or(connected).await {
            Ok(link) => work(&node, &link).await,
            Err(error) => Err(error),
        };
        endpoint.close(CloseCode::Done, "").await;
        done
    })
}

/// A socket to call from, that nobody may call.
fn caller(home: &Home) -> Result<Endpoint, NetError> {
    let bind = |address: SocketAddr| {
        let nobody = Arc::new(AllowList::default());
        Endpoint::bind(Arc::clone(&home.identity), address, nobody, home.config.net())
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
