//! Where a peer is and who it must be: `ID@HOST:PORT`.
//!
//! ```
//! use selfsame::net::{Identity, PeerAddress};
//!
//! let id = Identity::from_secret(&[1; 32]).node_id();
//! let peer: PeerAddress = format!("{id}@node-a.example:7878").parse()?;
//! assert_eq!((peer.id(), peer.host(), peer.port()), (id, "node-a.example", 7878));
//! assert!("node-a.example:7878".parse::<PeerAddress>().is_err());
//! # Ok::<(), selfsame::net::AddressError>(())
//! ```

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::identity::{IdentityError, parse_node_id};
use crate::types::NodeId;

/// Longest host name (RFC 1035).
const MAX_HOST_BYTES: usize = 253;

/// Text that is no peer address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// There is no id before an `@`.
    #[error(
        "{0:?} is no peer address: expected ID@HOST:PORT, where ID is the peer's node id \
        (64 hex digits, printed by `selfsame id` on that node)"
    )]
    NoId(String),
    /// The part before the `@` is no node id.
    #[error("the part before the @ must be the peer's node id: {0}")]
    Id(#[from] IdentityError),
    /// The part after the `@` is no host and port.
    #[error(
        "{0:?} is no network address: expected HOST:PORT, for example 192.0.2.7:7878, \
        [2001:db8::7]:7878 or node-a.example:7878"
    )]
    HostPort(String),
}

/// A place where a node listens: `HOST:PORT`, UDP.
///
/// A host name is kept as it stands and resolved each time the place is dialled, so that a node
/// may move.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HostPort {
    host: Box<str>,
    port: u16,
}

impl HostPort {
    /// Its host: a name or an IP address (without brackets).
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its UDP port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The address, if the host is one; a name must be resolved.
    #[must_use]
    pub fn socket_address(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.host.parse::<IpAddr>().ok()?, self.port))
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string().into(), port: address.port() }
    }
}

impl FromStr for HostPort {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || AddressError::HostPort(text.chars().take(160).collect());
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        // Digits only: the integer parser would take a sign as well.
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|port| *port != 0 && digits).ok_or_else(wrong)?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) => inner.parse::<Ipv6Addr>().map_err(|_| wrong())?.to_string(),
            None if is_host_name(host) => host.to_owned(),
            None => return Err(wrong()),
        };
        Ok(Self { host: host.into(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A peer: the id it must prove, and the place where it listens.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerAddress {
    id: NodeId,
    place: HostPort,
}

impl PeerAddress {
    /// A peer at a known place.
    #[must_use]
    pub fn new(id: NodeId, place: impl Into<HostPort>) -> Self {
        Self { id, place: place.into() }
    }

    /// The id that the peer must prove.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        self.id
    }

    /// Where it listens.
    #[must_use]
    pub const fn place(&self) -> &HostPort {
        &self.place
    }

    /// Its host: a name or an IP address (without brackets).
    #[must_use]
    pub fn host(&self) -> &str {
        self.place.host()
    }

    /// Its UDP port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.place.port()
    }

    /// The address, if the host is one; a name must be resolved.
    #[must_use]
    pub fn socket_address(&self) -> Option<SocketAddr> {
        self.place.socket_address()
    }
}

impl FromStr for PeerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let shown = || text.chars().take(160).collect::<String>();
        let (id, place) = text.split_once('@').ok_or_else(|| AddressError::NoId(shown()))?;
        let id = parse_node_id(id)?;
        Ok(Self { id, place: place.parse()? })
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.place)
    }
}

/// Letters, digits, `-`, `_` and dots between non-empty labels; that covers IPv4 addresses too.
fn is_host_name(host: &str) -> bool {
    let sound = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    host.len() <= MAX_HOST_BYTES && host.strip_suffix('.').unwrap_or(host).split('.').all(sound)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::net::Identity;

    #[test]
    fn what_is_shown_is_read_back() {
        let id = Identity::from_secret(&[1; 32]).node_id();
        for place in ["127.0.0.1:1", "[::1]:7878", "[2001:db8::7]:65535", "a:80", "a-b.c_d.e.:9"] {
            let peer: PeerAddress = format!(" {id}@{place}\n").parse().unwrap();
            assert_eq!(peer.to_string(), format!("{id}@{place}"));
            assert_eq!(peer.to_string().parse::<PeerAddress>().unwrap(), peer);
        }
        let address = "[::1]:7".parse().unwrap();
        assert_eq!(PeerAddress::new(id, address).socket_address(), Some(address));
    }

    #[test]
    fn errors_say_what_is_expected() {
        let id = Identity::from_secret(&[1; 32]).node_id();
        for text in ["", "a:1", "192.0.2.1:1"] {
            let error = text.parse::<PeerAddress>().unwrap_err().to_string();
            assert!(error.contains("ID@HOST:PORT"), "{error}");
        }
        for place in [
            "", "a", ":1", "a:", "a:0", "a:65536", "a:+1", "::1:7", "[::1]", "[::g]:1", "a b:1",
            "a..b:1", "a/b:1", "a@b:1", "é:1",
        ] {
            let error = format!("{id}@{place}").parse::<PeerAddress>().unwrap_err();
            assert!(matches!(error, AddressError::HostPort(_)), "{place}: {error}");
            assert!(error.to_string().contains("HOST:PORT"));
        }
        let error = format!("{}@a:1", "0".repeat(64)).parse::<PeerAddress>().unwrap_err();
        assert!(matches!(error, AddressError::Id(_)), "{error}");
    }
}
