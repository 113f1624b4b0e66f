//! A connection between two nodes that know each other's id.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::ConnectionError;
use tokio::sync::watch;

use super::codes::CloseCode;
use super::error::{Ends, NetError};
use super::stream::{RecvStream, SendStream};
use crate::types::NodeId;

/// Longest reason that is sent with a code, in bytes: it must fit one packet.
const MAX_REASON_BYTES: usize = 512;

/// What the handles and streams of one connection share.
#[derive(Debug)]
pub(super) struct Link {
    quinn: quinn::Connection,
    ends: Ends,
    /// Whether the peer is known to have admitted this node.
    accepted: watch::Sender<bool>,
}

impl Link {
    pub(super) fn error(&self, error: ConnectionError) -> NetError {
        self.ends.error(error)
    }

    /// Something that only an admitted node gets has arrived.
    pub(super) fn heard(&self) {
        self.accepted.send_if_modified(|accepted| !std::mem::replace(accepted, true));
    }
}

/// Bytes and packets of a connection so far, as UDP payload: acknowledgements and lost packets
/// included, the headers of UDP and IP (28 or 48 bytes a packet) not.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Traffic {
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Packets sent.
    pub packets_sent: u64,
    /// Packets received.
    pub packets_received: u64,
    /// Bytes sent that are taken for lost.
    pub bytes_lost: u64,
}

/// A connection: both ends have proved their ids, and all of it is encrypted.
///
/// Clones are handles to the same connection; it closes with [`CloseCode::Done`] when the last
/// of them and the last stream are dropped.
///
/// **Dialled connections begin unconfirmed.** The dialler finishes its part of the handshake
/// before the peer has looked at its key: only the first bytes that the peer sends on a stream
/// prove that it admits this node. Until then [`Connection::is_accepted`] is false, and a
/// refusal arrives as [`NetError::Refused`] from whatever is waited for.
#[derive(Clone, Debug)]
pub struct Connection {
    link: Arc<Link>,
}

impl Connection {
    pub(super) fn new(quinn: quinn::Connection, ends: Ends) -> Self {
        let accepted = watch::Sender::new(!ends.dialled);
        Self { link: Arc::new(Link { quinn, ends, accepted }) }
    }

    /// The id that the peer proved to own.
    #[must_use]
    pub fn peer(&self) -> NodeId {
        self.link.ends.peer
    }

    /// The peer's address now; it can change while connected.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        let address = self.link.quinn.remote_address();
        SocketAddr::new(address.ip().to_canonical(), address.port())
    }

    /// Whether this end dialled.
    #[must_use]
    pub fn is_dialled(&self) -> bool {
        self.link.ends.dialled
    }

    /// Whether the peer is known to have admitted this node: always on an accepted connection,
    /// on a dialled one once something from the peer has been read.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        *self.link.accepted.borrow()
    }

    /// Waits until the peer is known to have admitted this node, which takes somebody who reads
    /// a stream meanwhile.
    ///
    /// # Errors
    /// The peer refused this node, or the connection ended otherwise.
    pub async fn accepted(&self) -> Result<(), NetError> {
        let mut accepted = self.link.accepted.subscribe();
        tokio::select! {
            biased;
            Ok(_) = accepted.wait_for(|accepted| *accepted) => Ok(()),
            error = self.link.quinn.closed() => Err(self.link.error(error)),
        }
    }

    /// Opens a stream in both directions, as each session needs for control; waits while the
    /// peer allows no more. The peer notices it when the first bytes are sent.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn open_bi(&self) -> Result<(SendStream, RecvStream), NetError> {
        let opened = self.link.quinn.open_bi().await;
        self.pair(opened)
    }

    /// The next stream in both directions that the peer opened.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn accept_bi(&self) -> Result<(SendStream, RecvStream), NetError> {
        let opened = self.link.quinn.accept_bi().await;
        self.pair(opened)
    }

    /// Opens a stream for bulk from here to the peer; waits while the peer allows no more.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn open_uni(&self) -> Result<SendStream, NetError> {
        match self.link.quinn.open_uni().await {
            Ok(stream) => Ok(SendStream::new(stream, Arc::clone(&self.link))),
            Err(error) => Err(self.link.error(error)),
        }
    }

    /// The next bulk stream that the peer opened.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn accept_uni(&self) -> Result<RecvStream, NetError> {
        match self.link.quinn.accept_uni().await {
            Ok(stream) => Ok(RecvStream::new(stream, Arc::clone(&self.link))),
            Err(error) => Err(self.link.error(error)),
        }
    }

    /// Closes the connection at once, for all handles; what has not been delivered is lost (see
    /// [`SendStream::delivered`]). A long reason is cut.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.link.quinn.close(code.var_int(), clip(reason).as_bytes());
    }

    /// Waits for the end of the connection and says why it ended.
    pub async fn closed(&self) -> NetError {
        let error = self.link.quinn.closed().await;
        self.link.error(error)
    }

    /// Why the connection ended, if it has.
    #[must_use]
    pub fn close_reason(&self) -> Option<NetError> {
        self.link.quinn.close_reason().map(|error| self.link.error(error))
    }

    /// The present estimate of the round-trip time.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.link.quinn.rtt()
    }

    /// The largest UDP payload that the path is taken to carry: to begin with next time.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        self.link.quinn.stats().path.current_mtu
    }

    /// Bytes and packets so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let stats = self.link.quinn.stats();
        Traffic {
            bytes_sent: stats.udp_tx.bytes,
            bytes_received: stats.udp_rx.bytes,
            packets_sent: stats.udp_tx.datagrams,
            packets_received: stats.udp_rx.datagrams,
            bytes_lost: stats.path.lost_bytes,
        }
    }

    /// Key material that only the two ends of this connection can compute (RFC 8446, 7.5): the
    /// same at both, another for each label, each context and each connection.
    ///
    /// # Errors
    /// TLS cannot export, which after a handshake it always can.
    pub fn exporter(&self, label: &str, context: &[u8]) -> Result<[u8; 32], NetError> {
        let mut material = [0; 32];
        self.link
            .quinn
            .export_keying_material(&mut material, label.as_bytes(), context)
            .map_err(|error| NetError::Tls(format!("{error:?}")))?;
        Ok(material)
    }

    fn pair(
        &self,
        opened: Result<(quinn::SendStream, quinn::RecvStream), ConnectionError>,
    ) -> Result<(SendStream, RecvStream), NetError> {
        let (send, receive) = opened.map_err(|error| self.link.error(error))?;
        let send = SendStream::new(send, Arc::clone(&self.link));
        Ok((send, RecvStream::new(receive, Arc::clone(&self.link))))
    }
}

/// As much of a reason as is sent, cut between characters.
pub(super) fn clip(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(MAX_REASON_BYTES)]
}
