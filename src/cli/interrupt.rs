//! Ctrl-C: the first one asks the verb to end where nothing is lost, a second one ends it at
//! once (which loses nothing that was acknowledged either).

use std::io;
use std::sync::mpsc;

use tokio::sync::watch;

use super::Exit;
use super::error::CliError;

/// Whether somebody asked to stop.
#[derive(Clone)]
pub(super) struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Takes over Ctrl-C and the signal to terminate, from now to the end of the process.
    pub(super) fn install() -> Result<Self, CliError> {
        let failed = |what| move |source| CliError::System { what, source };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed("runtime"))?;
        let (stop, stopped) = watch::channel(false);
        let (ready, installed) = mpsc::channel();
        let listen = move || {
            runtime.block_on(async move {
                let mut signals = match Signals::new() {
                    Ok(signals) => signals,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                let _ = ready.send(Ok(()));
                signals.next().await;
                // nobody may be waiting: then the verb is about to end anyway
                let _ = stop.send(true);
                signals.next().await;
                std::process::exit(i32::from(Exit::Interrupted.code()));
            });
        };
        let thread = std::thread::Builder::new().name("selfsame-signals".into());
        thread.spawn(listen).map_err(failed("thread"))?;
        match installed.recv() {
            Ok(Ok(())) => Ok(Self(stopped)),
            Ok(Err(error)) => Err(failed("signal handler")(error)),
            Err(_) => Err(failed("signal handler")(io::Error::other("its thread ended"))),
        }
    }

    pub(super) fn requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Becomes true when somebody asks to stop.
    pub(super) fn receiver(&self) -> watch::Receiver<bool> {
        self.0.clone()
    }

    /// The work, unless somebody asks to stop first.
    pub(super) async fn or<T>(
        &self,
        work: impl Future<Output = Result<T, CliError>>,
    ) -> Result<T, CliError> {
        let mut stopped = self.receiver();
        tokio::select! {
            done = work => done,
            _ = stopped.wait_for(|stop| *stop) => Err(CliError::Interrupted),
        }
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
