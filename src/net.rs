//! Connections between nodes: QUIC, with both ends proving who they are.
//!
//! | file | what it holds |
//! |---|---|
//! | [`identity`] | the node's key pair, its file, node ids as text |
//! | [`address`] | `ID@HOST:PORT` |
//! | [`admission`] | whom a node lets in |
//! | `tls` | TLS 1.3 with raw Ed25519 keys |
//! | `limits` | what connections may cost, and QUIC's settings |
//! | `endpoint` | the socket: dial and accept |
//! | `connection`, `stream` | a connection and its streams |
//! | [`frame`] | frames on a stream |
//! | `link` | a greeted connection, and what its streams are for |
//! | `drive` | a session core between streams and a collection |
//! | `farewell` | how long a peer may take over last words |
//! | [`codes`] | the table of codes for closing |
//! | `error` | what can go wrong, whose fault it is, what to do |
//!
//! A node is its Ed25519 key. Both ends of a connection present their raw public key (RFC 7250)
//! in the handshake and sign it; the dialler pins the key it asked for, the acceptor asks its
//! [`Admission`] for each caller. Nothing is ever sent before the handshake is complete, and no
//! handshake is shortened by an earlier one.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use selfsame::net::*;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), NetError> {
//! let (alice, bob) = (Arc::new(Identity::generate()?), Arc::new(Identity::generate()?));
//! let admitted = AllowList::from_iter([alice.node_id()]);
//! let any_port = "127.0.0.1:0".parse().expect("an address");
//! let limits = NetLimits::default();
//!
//! let home = Endpoint::bind(bob, any_port, Arc::new(admitted), limits.clone())?;
//! let away = Endpoint::bind(alice, any_port, Arc::new(AllowList::default()), limits)?;
//! let peer = PeerAddress::new(home.node_id(), home.local_address());
//!
//! let server = async {
//!     let connection = home.accept().await?;
//!     let (send, receive) = connection.accept_bi().await?;
//!     let question = FrameReader::new(receive, 1 << 20).next_frame().await?;
//!     assert_eq!(question.as_deref(), Some(b"same?".as_slice()));
//!     let mut answer = FrameWriter::new(send, 1 << 20);
//!     answer.write_frame(b"same").await?;
//!     answer.finish().await?.delivered().await
//! };
//! let client = async {
//!     let connection = away.dial(&peer, Duration::from_secs(5)).await?;
//!     let (send, receive) = connection.open_bi().await?;
//!     let mut question = FrameWriter::new(send, 1 << 20);
//!     question.write_frame(b"same?").await?;
//!     question.finish().await?;
//!     let answer = FrameReader::new(receive, 1 << 20).next_frame().await?;
//!     assert!(connection.is_accepted());
//!     Ok(answer)
//! };
//! let (served, answer) = tokio::join!(server, client);
//! served?;
//! let answer: Result<_, NetError> = answer;
//! assert_eq!(answer?.as_deref(), Some(b"same".as_slice()));
//! # Ok(())
//! # }
//! ```

pub mod address;
pub mod admission;
pub mod codes;
mod connection;
mod drive;
mod endpoint;
mod error;
mod farewell;
pub mod frame;
pub mod identity;
mod limits;
mod link;
mod restart;
mod stream;
mod tls;

pub use address::{AddressError, HostPort, PeerAddress};
pub use admission::{Admission, AllowList};
pub use codes::{CloseCode, StreamCode};
pub use connection::{Connection, Traffic};
pub use drive::{SessionReport, World, drive};
pub(crate) use endpoint::neighbourhood;
pub use endpoint::{AcceptStats, Endpoint};
pub use error::{Fault, NetError};
pub(crate) use farewell::{farewell, hurried, stopped};
pub use frame::{FRAME_HEADER_BYTES, FrameDecoder, FrameError, FrameReader, FrameWriter};
pub use identity::{Identity, IdentityError, check_node_id, parse_node_id, verify_signature};
pub use limits::{DialOptions, NetLimits};
pub use link::{Link, LinkError, PROTOCOL_VERSION, StreamKind};
pub use stream::{RecvStream, SendStream};
pub use tls::{ALPN, PAIR_ALPN};
