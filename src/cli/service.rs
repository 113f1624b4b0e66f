//! Says to the service manager how the node is doing, if one asks for it (systemd's
//! `Type=notify`): a few words on a Unix socket.

use std::time::Duration;

/// The service manager's socket, if there is one.
pub(super) struct Service {
    #[cfg(unix)]
    socket: Option<(std::os::unix::net::UnixDatagram, std::os::unix::net::SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Service {
    /// As the environment says.
    pub(super) fn from_environment() -> Self {
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let number = |name| set(name).and_then(|text| text.parse::<u64>().ok());
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| ours && *micros > 0);
        Self {
            #[cfg(unix)]
            socket: set("NOTIFY_SOCKET").and_then(|path| unix::connect(&path)),
            watchdog: watchdog.map(Duration::from_micros),
        }
    }

    /// Within which time it wants to hear that the node is alive.
    pub(super) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Says it; a manager that does not listen is no reason to stop.
    pub(super) fn say(&self, words: &str) {
        #[cfg(unix)]
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(words.as_bytes(), address)
        {
            tracing::warn!(%error, words, "the service manager cannot be told");
        }
        #[cfg(not(unix))]
        let _ = words;
    }
}

#[cfg(unix)]
mod unix {
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    pub(super) fn connect(path: &str) -> Option<(UnixDatagram, SocketAddr)> {
        let address = match path.strip_prefix('@') {
            Some(name) => abstract_name(name)?,
            None => SocketAddr::from_pathname(path).ok()?,
        };
        Some((UnixDatagram::unbound().ok()?, address))
    }

    #[cfg(target_os = "linux")]
    fn abstract_name(name: &str) -> Option<SocketAddr> {
        <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name).ok()
    }

    #[cfg(not(target_os = "linux"))]
    fn abstract_name(_name: &str) -> Option<SocketAddr> {
        None
    }
}
