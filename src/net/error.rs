//! What can go wrong between two nodes, whose fault it is, and what to do.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use quinn::{ConnectionError, TransportErrorCode, VarInt};

use super::address::PeerAddress;
use super::codes::{CloseCode, StreamCode};
use super::frame::FrameError;
use super::identity::IdentityError;
use crate::types::NodeId;

/// TLS alert `access_denied`: the key is sound, but not the one that is wanted.
const ACCESS_DENIED: u64 = 0x100 | 49;
/// TLS alert `no_application_protocol`.
const NO_PROTOCOL: u64 = 0x100 | 120;
/// QUIC's codes for TLS alerts (RFC 9001, 4.8).
const CRYPTO_CODES: Range<u64> = 0x100..0x200;
/// QUIC's CONNECTION_REFUSED: no room for a new connection.
const CONNECTION_REFUSED: u64 = 2;

/// Longest text from a peer that is shown.
const MAX_REASON_CHARS: usize = 200;

/// Whose fault an error is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// This node or its configuration.
    Ours,
    /// The peer, after it has proved its id: this may count against it.
    Peer,
    /// The path between them, or whoever sits on it: nobody is to be blamed. What is told before
    /// a handshake is complete can be forged, and being busy is no fault.
    Network,
}

/// An endpoint, a connection or a stream that does not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// The address to listen on is taken.
    #[error(
        "{0} is in use: stop the other program (is a node running already?) or listen on \
        another port"
    )]
    AddressInUse(SocketAddr),
    /// The address to listen on does not work.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// There is no tokio runtime.
    #[error("an endpoint must be made within a tokio runtime")]
    NoRuntime,
    /// The peer's host name has no address.
    #[error("cannot find the address of {peer}: {source}")]
    Resolve {
        /// The peer.
        peer: PeerAddress,
        /// What the resolver said.
        source: io::Error,
    },
    /// None of the peer's addresses can be reached from this socket.
    #[error(
        "{peer} has no address that a node listening on {local} can dial: listen on [::]:PORT \
        for both IPv4 and IPv6"
    )]
    AddressFamily {
        /// The peer.
        peer: PeerAddress,
        /// Where this node listens.
        local: SocketAddr,
    },
    /// Nobody answered in time.
    #[error(
        "{peer} did not answer within {}: check that the node runs there and that \
        UDP reaches it", millis(*.waited)
    )]
    Unreachable {
        /// The peer.
        peer: PeerAddress,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Somebody else answered.
    #[error(
        "the node at {address} has id {found}, expected {expected}: correct the address or \
        the id, and do not go on if neither has changed"
    )]
    WrongKey {
        /// Where it was dialled.
        address: SocketAddr,
        /// The id that was asked for.
        expected: NodeId,
        /// The id that the node there presented.
        found: NodeId,
    },
    /// The peer is this node.
    #[error(
        "{0} is this node's own id: give the id of the other node, or, if two nodes share an \
        identity file, make a new one on one of them"
    )]
    OwnId(NodeId),
    /// The peer does not admit this node.
    #[error("{peer} refused this node: it is not on its list; add {own} to the peers of that node")]
    Refused {
        /// The peer.
        peer: NodeId,
        /// This node's id, which the peer does not admit.
        own: NodeId,
    },
    /// The peer takes no more connections now.
    #[error("{0} takes no more connections now: try again later")]
    Busy(SocketAddr),
    /// What answers speaks something else.
    #[error("{0} does not speak {alpn}: it is another service or another version",
        alpn = super::tls::ALPN_TEXT)]
    OtherProtocol(SocketAddr),
    /// The handshake failed otherwise.
    #[error("the handshake with {address} failed: {reason}")]
    Handshake {
        /// The other end.
        address: SocketAddr,
        /// What failed.
        reason: String,
    },
    /// The peer closed the connection.
    #[error("{peer} closed the connection: {code}{reason}", reason = suffix(.reason))]
    ClosedByPeer {
        /// The peer.
        peer: NodeId,
        /// Its code.
        code: CloseCode,
        /// Its words; may be empty. Printable, and short.
        reason: String,
    },
    /// This node closed the connection or the endpoint.
    #[error("this node has closed the connection")]
    ClosedHere,
    /// The peer fell silent.
    #[error("{0} fell silent: nothing came for the idle timeout")]
    IdleTimeout(NodeId),
    /// The peer no longer knows the connection.
    #[error("{0} has lost the connection: it was started anew")]
    PeerRestarted(NodeId),
    /// The peer broke the rules of QUIC.
    #[error("{peer} broke the rules of QUIC: {reason}")]
    Violated {
        /// The peer.
        peer: NodeId,
        /// What it did.
        reason: String,
    },
    /// The connection broke, by the peer's account or for want of means.
    #[error("the connection with {peer} broke: {reason}")]
    Broken {
        /// The peer.
        peer: NodeId,
        /// What happened.
        reason: String,
    },
    /// The peer gave up sending on a stream.
    #[error("the peer gave up a stream: {0}")]
    StreamReset(StreamCode),
    /// The peer gave up reading a stream.
    #[error("the peer stopped reading a stream: {0}")]
    StreamStopped(StreamCode),
    /// A stream is used after its end.
    #[error("the stream has ended already")]
    StreamEnded,
    /// A frame is over the limit or cut.
    #[error(transparent)]
    Frame(FrameError),
    /// A key cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

impl NetError {
    /// Whose fault it is.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::Violated { .. }
            | Self::Frame(FrameError::TooLarge { .. } | FrameError::Cut { .. }) => Fault::Peer,
            Self::Unreachable { .. }
            | Self::Resolve { .. }
            | Self::WrongKey { .. }
            | Self::Refused { .. }
            | Self::Busy(_)
            | Self::OtherProtocol(_)
            | Self::Handshake { .. }
            | Self::ClosedByPeer { .. }
            | Self::IdleTimeout(_)
            | Self::PeerRestarted(_)
            | Self::Broken { .. }
            | Self::StreamReset(_)
            | Self::StreamStopped(_)
            | Self::Frame(FrameError::Stream(_)) => Fault::Network,
            Self::AddressInUse(_)
            | Self::Bind { .. }
            | Self::NoRuntime
            | Self::AddressFamily { .. }
            | Self::OwnId(_)
            | Self::ClosedHere
            | Self::StreamEnded
            | Self::Identity(_)
            | Self::Tls(_) => Fault::Ours,
        }
    }

    /// As an error of a stream, from which [`NetError::from`] takes it out again.
    pub(super) fn into_io(self) -> io::Error {
        let kind = match &self {
            Self::StreamReset(_) | Self::ClosedByPeer { .. } | Self::PeerRestarted(_) => {
                io::ErrorKind::ConnectionReset
            }
            Self::StreamStopped(_) | Self::StreamEnded => io::ErrorKind::BrokenPipe,
            Self::IdleTimeout(_) => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::NotConnected,
        };
        io::Error::new(kind, self)
    }
}

impl From<FrameError> for NetError {
    /// A failed stream of a connection says why the connection failed.
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Stream(error) => error.into(),
            other => Self::Frame(other),
        }
    }
}

impl From<io::Error> for NetError {
    fn from(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(inner) => inner,
            Err(other) => Self::Frame(FrameError::Stream(other)),
        }
    }
}

/// The two ends of a connection, so that its errors can name them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) own: NodeId,
    pub(super) peer: NodeId,
    pub(super) address: SocketAddr,
    /// Whether this end dialled: only then can a denied key be ours.
    pub(super) dialled: bool,
}

impl Ends {
    /// An error of a connection whose handshake is complete.
    pub(super) fn error(&self, error: ConnectionError) -> NetError {
        let Self { own, peer, address, dialled } = *self;
        match error {
            ConnectionError::ConnectionClosed(close) => match close.error_code.into() {
                ACCESS_DENIED if dialled => NetError::Refused { peer, own },
                NO_PROTOCOL => NetError::OtherProtocol(address),
                CONNECTION_REFUSED => NetError::Busy(address),
                code => {
                    let reason = told(&close.reason, close.error_code);
                    if CRYPTO_CODES.contains(&code) {
                        NetError::Handshake { address, reason }
                    } else {
                        NetError::Broken { peer, reason }
                    }
                }
            },
            ConnectionError::TransportError(error) => {
                NetError::Violated { peer, reason: told(error.reason.as_bytes(), error.code) }
            }
            ConnectionError::ApplicationClosed(close) => NetError::ClosedByPeer {
                peer,
                code: CloseCode::from_wire(close.error_code.into_inner()),
                reason: printable(&close.reason),
            },
            ConnectionError::VersionMismatch => NetError::OtherProtocol(address),
            ConnectionError::Reset => NetError::PeerRestarted(peer),
            ConnectionError::TimedOut => NetError::IdleTimeout(peer),
            ConnectionError::LocallyClosed => NetError::ClosedHere,
            ConnectionError::CidsExhausted => {
                NetError::Broken { peer, reason: "no connection ids are left".into() }
            }
        }
    }

    /// An error within a handshake, where nobody has proved to be anybody yet.
    pub(super) fn handshake_error(&self, error: ConnectionError) -> NetError {
        let address = self.address;
        match error {
            ConnectionError::TransportError(error) if u64::from(error.code) == NO_PROTOCOL => {
                NetError::OtherProtocol(address)
            }
            other => match self.error(other) {
                NetError::Violated { reason, .. } | NetError::Broken { reason, .. } => {
                    NetError::Handshake { address, reason }
                }
                other => other,
            },
        }
    }
}

/// The words that came with a code, or else the code's own.
/// Whole milliseconds, for people: what is left of a deadline is a little less than it was.
fn millis(time: Duration) -> String {
    let millis = time.as_nanos().div_ceil(1_000_000);
    format!("{:?}", Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
}

fn told(reason: &[u8], code: TransportErrorCode) -> String {
    match printable(reason) {
        empty if empty.is_empty() => code.to_string(),
        reason => reason,
    }
}

/// Text from a peer, short and without anything that could move a terminal's cursor.
fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(4 * MAX_REASON_CHARS)])
        .chars()
        .filter(|character| !character.is_control())
        .take(MAX_REASON_CHARS)
        .collect()
}

fn suffix(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}

pub(super) fn stream_code(code: VarInt) -> StreamCode {
    StreamCode::from_wire(code.into_inner())
}
