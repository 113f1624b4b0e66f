//! Passes datagrams on between one client and a server, and counts their bytes.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::RivalsError;

/// How long a thread waits before it looks whether it is to end.
const PATIENCE: Duration = Duration::from_millis(50);

/// A relay that runs until it is ended.
pub(super) struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    bytes: AtomicU64,
    client: Mutex<Option<SocketAddr>>,
}

impl Relay {
    /// A relay to this server.
    pub(super) fn to(server: &str) -> Result<Self, RivalsError> {
        let sockets = (|| {
            let front = UdpSocket::bind("127.0.0.1:0")?;
            let back = UdpSocket::bind("127.0.0.1:0")?;
            back.connect(server)?;
            front.set_read_timeout(Some(PATIENCE))?;
            back.set_read_timeout(Some(PATIENCE))?;
            let address = front.local_addr()?;
            Ok((address, front.try_clone()?, back.try_clone()?, front, back))
        })();
        let (address, front, back, front_too, back_too) =
            sockets.map_err(RivalsError::io("opening a relay"))?;
        let shared = Arc::new(Shared::default());
        let (there, here) = (Arc::clone(&shared), Arc::clone(&shared));
        let to_server = std::thread::spawn(move || {
            there.pass(&front, |datagram, from| {
                *there.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(from);
                let _ = back.send(datagram);
            });
        });
        let to_client = std::thread::spawn(move || {
            here.pass(&back_too, |datagram, _| {
                let client = *here.client.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(client) = client {
                    let _ = front_too.send_to(datagram, client);
                }
            });
        });
        Ok(Self { address, shared, threads: vec![to_server, to_client] })
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it: bytes of UDP payload both ways.
    pub(super) fn end(mut self) -> u64 {
        self.stop();
        self.shared.bytes.load(Ordering::Relaxed)
    }

    fn stop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn pass(&self, from: &UdpSocket, mut on: impl FnMut(&[u8], SocketAddr)) {
        let mut datagram = vec![0; 65_536];
        while !self.over.load(Ordering::Relaxed) {
            match from.recv_from(&mut datagram) {
                Ok((length, sender)) => {
                    self.bytes.fetch_add(length as u64, Ordering::Relaxed);
                    on(&datagram[..length], sender);
                }
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_pass_and_are_counted_both_ways() -> std::io::Result<()> {
        let server = UdpSocket::bind("127.0.0.1:0")?;
        server.set_read_timeout(Some(Duration::from_secs(5)))?;
        let client = UdpSocket::bind("127.0.0.1:0")?;
        client.set_read_timeout(Some(Duration::from_secs(5)))?;
        let relay = Relay::to(&server.local_addr()?.to_string())
            .map_err(|error| std::io::Error::other(error.to_string()))?;
        client.send_to(b"question", relay.address())?;
        let mut buffer = [0; 16];
        let (length, from) = server.recv_from(&mut buffer)?;
        assert_eq!(&buffer[..length], b"question");
        server.send_to(b"yes", from)?;
        assert_eq!(client.recv_from(&mut buffer)?.0, 3);
        assert_eq!(relay.end(), 11);
        Ok(())
    }
}
