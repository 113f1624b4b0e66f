//! `selfsame serve`

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::control::Offered;
use super::error::CliError;
use super::interrupt::Interrupt;
use super::listen::{admitted, node_id};
use super::log::Log;
use super::output::{counted, print};
use super::service::Service;
use super::{Context, Exit};
use crate::api::Host;
use crate::net::Endpoint;
use crate::node::daemon::{ConfigFiles, Daemon, DaemonSettings};
use crate::node::home::Home;
use crate::store::EmbeddedStore;
use crate::types::NodeId;

/// What other crates say is of use only to those who ask for it.
const USUAL_LOG: &str = "warn,selfsame=info";
/// A loop that has not turned for so long hangs.
const HANGS: Duration = Duration::from_secs(5);
/// How long tasks may take to let go of the store once the daemon has stopped.
const LETTING_GO: Duration = Duration::from_secs(5);

/// Keeps this node the same as its peers until it is stopped
///
/// Accepts the peers of this node (`selfsame peer ls`), dials those that have an address, keeps
/// the connections, and reconciles every collection that both ends have: each interval_s of
/// config.toml, and within two seconds of a write. Each peer may do what it was granted.
///
/// Says on standard error what happens, a line for each session; SELFSAME_LOG chooses how much
/// (error, warn, info, debug), --log-json makes each line a JSON object. SIGHUP reads config.toml and peers.toml again: if one of them
/// is wrong, its file, line and reason are logged and the old settings hold on. SIGTERM and
/// Ctrl-C end it cleanly: running sessions are told, and what they had applied is kept; a second
/// Ctrl-C ends it at once. Under systemd it can run as Type=notify, with a watchdog.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame serve
  selfsame serve --addr 192.0.2.7:7447 --allow ID
  SELFSAME_LOG=debug selfsame serve
  selfsame serve --log-json 2> node.log")]
pub(super) struct Serve {
    /// Where to listen (UDP) [default: listen in config.toml]; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    addr: Option<SocketAddr>,
    /// A node that may connect and do everything, beside the peers; may be repeated
    #[arg(long, value_name = "ID", value_parser = node_id)]
    allow: Vec<NodeId>,
    #[command(flatten)]
    log: Log,
}

impl Serve {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        self.log.around(USUAL_LOG, || self.in_folder(context))
    }

    fn in_folder(&self, context: &Context) -> Result<Exit, CliError> {
        let interrupt = Interrupt::install()?;
        context.open(|home| {
            for id in &self.allow {
                home.access.allow(*id);
            }
            let runtime = runtime()?;
            let served = runtime.block_on(self.serve(home, &interrupt));
            // tasks of connections hold the store until they are gone
            runtime.shutdown_timeout(LETTING_GO);
            served?;
            self.log.stopped();
            Ok(Exit::Done)
        })
    }

    async fn serve(&self, home: &Home, interrupt: &Interrupt) -> Result<(), CliError> {
        let address = self.addr.unwrap_or(home.config.listen);
        let admission = Arc::new(home.access.clone());
        let identity = Arc::clone(&home.identity);
        let endpoint = Endpoint::bind(identity, address, admission, home.config.net())?;
        let address = endpoint.local_address();
        let mut hangups = Hangups::install()?;
        let settings = DaemonSettings::from(&home.config);
        let daemon = Daemon::start(home.node(), endpoint, settings);
        let files = ConfigFiles::new(&home.folder, &home.config, self.allow.clone());
        self.announce(home.identity.node_id(), address, admitted(&home.access))?;
        let host = Host::new(home).of_daemon(daemon.clone(), files.clone());
        let control = Offered::to_others(&home.folder, host, interrupt.receiver()).await;
        let service = Service::from_environment();
        service.say("READY=1");
        let watched = service.watchdog().map(|within| within / 2);
        let mut pulse = tokio::time::interval(watched.unwrap_or(Duration::from_secs(3_600)));
        let mut stop = interrupt.receiver();
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                () = hangups.next() => {
                    service.say("RELOADING=1");
                    reload(&files, &daemon);
                    service.say("READY=1");
                }
                // a loop that hangs must not look alive
                _ = pulse.tick(), if watched.is_some() => {
                    if daemon.is_turning(HANGS) {
                        service.say("WATCHDOG=1");
                    }
                }
            }
        }
        service.say("STOPPING=1");
        tracing::info!("stopping");
        if !daemon.stop().await {
            tracing::warn!(
                "some sessions did not end within shutdown_s; what they applied is kept"
            );
        }
        control.ended().await;
        Ok(())
    }
}

impl Serve {
    fn announce(&self, id: NodeId, address: SocketAddr, allowed: u64) -> Result<(), CliError> {
        self.log.allowed(allowed);
        if self.log.is_json() {
            tracing::info!(%id, %address, allowed, "serving");
            return Ok(());
        }
        print(format_args!(
            "serving on {address}, {} allowed\npeers reach this node as {id}@HOST:{}",
            counted(allowed, "node", "nodes"),
            address.port()
        ))
    }
}

fn reload(files: &ConfigFiles, daemon: &Daemon<EmbeddedStore>) {
    match tokio::task::block_in_place(|| files.reload(daemon)) {
        Ok(done) => {
            tracing::info!(peers = done.peers, "config.toml and peers.toml were read again");
            if !done.needs_restart.is_empty() {
                let settings = done.needs_restart.join(", ");
                tracing::warn!(settings, "these hold only once it is started anew");
            }
        }
        Err(error) => tracing::error!(%error, "not reloaded: the old settings hold on"),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| CliError::System { what: "runtime", source })
}

/// Asks to read the settings again.
#[cfg(unix)]
struct Hangups(tokio::signal::unix::Signal);

#[cfg(unix)]
impl Hangups {
    fn install() -> Result<Self, CliError> {
        use tokio::signal::unix::{SignalKind, signal};
        let failed = |source| CliError::System { what: "signal handler", source };
        signal(SignalKind::hangup()).map(Self).map_err(failed)
    }

    async fn next(&mut self) {
        // it never ends
        let _ = self.0.recv().await;
    }
}

#[cfg(not(unix))]
struct Hangups;

#[cfg(not(unix))]
impl Hangups {
    fn install() -> Result<Self, CliError> {
        Ok(Self)
    }

    async fn next(&mut self) {
        std::future::pending().await
    }
}
