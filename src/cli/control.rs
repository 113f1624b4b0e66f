//! The node that a verb works on: the process that has it open, or this one.

use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::Exit;
use super::error::CliError;
use super::interrupt::Interrupt;
#[cfg(unix)]
use crate::api::ControlSocket;
use crate::api::client::RunStream;
use crate::api::{CallError, Client, Host};
use crate::node::home::{Home, HomeError};

/// How long a process that has just opened the store is given to offer its socket.
const SOON: Duration = Duration::from_millis(250);
/// How long connections have to end.
const FAREWELL: Duration = Duration::from_secs(5);

/// A node that can be asked.
pub(super) struct Control {
    runtime: Runtime,
    /// The node.
    pub(super) node: Client,
}

/// Works with the node of a data folder: through the process that has it open, else by opening
/// it, and closing it whatever came of the work.
pub(super) fn with(
    folder: &Path,
    work: impl FnOnce(&Control) -> Result<Exit, CliError>,
) -> Result<Exit, CliError> {
    let runtime = runtime()?;
    if let Some(node) = runtime.block_on(Client::connect(folder)) {
        return work(&Control { runtime, node });
    }
    let home = match Home::open(folder) {
        Err(held @ HomeError::Held { .. }) => {
            std::thread::sleep(SOON);
            let node = runtime.block_on(Client::connect(folder)).ok_or(held)?;
            return work(&Control { runtime, node });
        }
        opened => opened?,
    };
    let control = Control { runtime, node: Client::here(Host::new(&home).into()) };
    let worked = work(&control);
    let Control { runtime, node } = control;
    drop(node);
    // tasks hold the store until they are gone
    runtime.shutdown_timeout(FAREWELL);
    let closed = home.close();
    let exit = worked?;
    closed?;
    Ok(exit)
}

/// A runtime for connections.
pub(super) fn runtime() -> Result<Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| CliError::System { what: "runtime", source })
}

impl Control {
    /// Waits for an answer.
    pub(super) fn wait<T>(
        &self,
        answer: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CliError> {
        Ok(self.runtime.block_on(answer)?)
    }

    /// Waits for an answer, unless somebody asks to stop first.
    pub(super) fn wait_or_stop<T>(
        &self,
        interrupt: &Interrupt,
        answer: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CliError> {
        self.runtime.block_on(interrupt.or(async { Ok(answer.await?) }))
    }

    /// Follows work at the node up to its report: `hear` is told each line, and gives what it came
    /// to once it is the last. Whoever asks to stop is told how it ended.
    pub(super) fn follow<L: DeserializeOwned, T>(
        &self,
        interrupt: &Interrupt,
        begin: impl Future<Output = Result<RunStream<L>, CallError>>,
        mut hear: impl FnMut(L) -> Option<T>,
    ) -> Result<T, CliError> {
        let mut stream = self.wait_or_stop(interrupt, begin)?;
        let (mut stopped, mut told) = (interrupt.receiver(), false);
        self.block_on(async {
            loop {
                let line = tokio::select! {
                    line = stream.next_line() => line?,
                    _ = stopped.wait_for(|stop| *stop), if !told => {
                        told = true;
                        // it may have ended just now
                        let _ = self.node.stop(stream.run()).await;
                        continue;
                    }
                };
                let Some(line) = line else {
                    return Err(CallError::Lost("before the report".into()).into());
                };
                if let Some(done) = hear(line) {
                    return Ok(done);
                }
            }
        })
    }

    /// Waits for other work.
    pub(super) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }
}

/// The socket where a process that stays answers other commands.
pub(super) struct Offered(Option<tokio::task::JoinHandle<()>>);

impl Offered {
    /// Answers them until `stop` becomes true. Without a socket, as where the file system has
    /// none, they cannot work beside this process, and all else goes on.
    #[cfg(unix)]
    pub(super) async fn to_others(folder: &Path, host: Host, stop: watch::Receiver<bool>) -> Self {
        match ControlSocket::bind(folder).await {
            Ok(socket) => Self(Some(tokio::spawn(socket.serve(host.into(), stop)))),
            Err(error) => {
                tracing::warn!(%error, "other commands cannot work beside this one");
                Self(None)
            }
        }
    }

    /// There are no such sockets here.
    #[cfg(not(unix))]
    pub(super) async fn to_others(_: &Path, _: Host, _: watch::Receiver<bool>) -> Self {
        Self(None)
    }

    /// Waits until the last one was answered.
    pub(super) async fn ended(self) {
        if let Some(task) = self.0 {
            // it ends by itself, or with its runtime
            let _ = task.await;
        }
    }
}
