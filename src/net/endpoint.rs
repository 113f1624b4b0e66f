//! One UDP socket that dials and accepts connections.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use quinn::{ClientConfig, ConnectionError, Incoming, ServerConfig, TokioRuntime};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::address::PeerAddress;
use super::admission::Admission;
use super::codes::CloseCode;
use super::connection::{Connection, clip};
use super::error::{Ends, NetError};
use super::identity::Identity;
use super::limits::{DialOptions, NetLimits};
use super::restart::endpoint_config;
use super::tls::{self, Agreed, Purpose};
use crate::types::NodeId;

/// Connections that wait for [`Endpoint::accept`]; beyond, handshakes wait to hand theirs over.
const READY_CONNECTIONS: usize = 64;

/// The same, for [`Endpoint::accept_pairing`].
const READY_PAIRINGS: usize = 8;

/// Bytes buffered for one caller that has not been looked at: a handshake's first flight fits.
const INCOMING_BYTES: u64 = 32 << 10;

/// How long [`Endpoint::close`] waits until peers have been told.
const FAREWELL: Duration = Duration::from_secs(1);

/// How many callers were let in and turned away since the start.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct AcceptStats {
    /// Handshakes that ended with a connection.
    pub accepted: u64,
    /// Handshakes that failed: unknown node, other protocol, silence.
    pub failed: u64,
    /// Callers that were turned away because a limit was reached.
    pub turned_away: u64,
    /// Callers that were asked to prove their address first.
    pub retried: u64,
}

/// A UDP socket with this node's identity, which dials peers and accepts those it admits.
///
/// Clones are handles to the same endpoint. When the last one is dropped nobody is accepted any
/// more; connections that are open stay so.
#[derive(Clone, Debug)]
pub struct Endpoint {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    quinn: quinn::Endpoint,
    identity: Arc<Identity>,
    limits: NetLimits,
    local: SocketAddr,
    gate: Arc<Gate>,
    ready: tokio::sync::Mutex<mpsc::Receiver<Connection>>,
    pairing: tokio::sync::Mutex<mpsc::Receiver<Connection>>,
    acceptor: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

impl Endpoint {
    /// Binds a socket and begins to accept the nodes that `admission` admits.
    ///
    /// Port 0 takes a free one. `[::]` also serves IPv4 where the system allows it.
    ///
    /// # Errors
    /// The address is taken or does not work, or there is no tokio runtime.
    pub fn bind(
        identity: Arc<Identity>,
        address: SocketAddr,
        admission: Arc<dyn Admission>,
        limits: NetLimits,
    ) -> Result<Self, NetError> {
        tokio::runtime::Handle::try_current().map_err(|_| NetError::NoRuntime)?;
        let accepting = Arc::new(tls::Accepting::new(&identity, admission));
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => NetError::AddressInUse(address),
            _ => NetError::Bind { address, source },
        };
        let socket = bind_socket(address, limits.socket_buffer_bytes).map_err(failed)?;
        let server = ServerSide::new(Arc::clone(&accepting), &limits)?;
        let port = socket.local_addr().map_err(failed)?.port();
        let quinn = quinn::Endpoint::new(
            endpoint_config(&identity, port),
            Some(server.config.clone()),
            socket,
            Arc::new(TokioRuntime),
        )
        .map_err(failed)?;
        let local = quinn.local_addr().map_err(failed)?;
        let (sender, ready) = mpsc::channel(READY_CONNECTIONS);
        let (pair_sender, pairing) = mpsc::channel(READY_PAIRINGS);
        let gate = Arc::new(Gate::default());
        let acceptor = Acceptor {
            quinn: quinn.clone(),
            own: identity.node_id(),
            limits: limits.clone(),
            server,
            gate: Arc::clone(&gate),
            ready: Ready { ordinary: sender, pairing: pair_sender },
        };
        let acceptor = tokio::spawn(acceptor.run()).abort_handle();
        let ready = tokio::sync::Mutex::new(ready);
        let pairing = tokio::sync::Mutex::new(pairing);
        let inner = Inner { quinn, identity, limits, local, gate, ready, pairing, acceptor };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// This node's id.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.inner.identity.node_id()
    }

    /// The address of the socket.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.inner.local
    }

    /// The next connection whose handshake is complete and whose peer is admitted.
    ///
    /// Handshakes go on at the same time, whether somebody waits here or not: a slow caller
    /// holds up nobody.
    ///
    /// # Errors
    /// The endpoint was closed.
    pub async fn accept(&self) -> Result<Connection, NetError> {
        self.inner.ready.lock().await.recv().await.ok_or(NetError::ClosedHere)
    }

    /// The next connection of a node that came to pair: it owns its id, and nothing else is
    /// known of it. See [`Admission::pairs`].
    ///
    /// # Errors
    /// The endpoint was closed.
    pub async fn accept_pairing(&self) -> Result<Connection, NetError> {
        self.inner.pairing.lock().await.recv().await.ok_or(NetError::ClosedHere)
    }

    /// Dials a peer, which must prove to own the id it is dialled by.
    ///
    /// All addresses of a host name are tried, in turn, within the one deadline. The connection
    /// is unconfirmed at first; see [`Connection`].
    ///
    /// # Errors
    /// Nobody answered in time, somebody else did, or the handshake failed.
    pub async fn dial(
        &self,
        peer: &PeerAddress,
        options: impl Into<DialOptions>,
    ) -> Result<Connection, NetError> {
        self.dial_for(peer, options.into(), tls::ALPN).await
    }

    /// Dials a node to pair with it; it must prove to own the id it is dialled by.
    ///
    /// # Errors
    /// As [`Endpoint::dial`]; [`NetError::Refused`] once something is waited for, if the node
    /// does not pair just now.
    pub async fn dial_pairing(
        &self,
        peer: &PeerAddress,
        options: impl Into<DialOptions>,
    ) -> Result<Connection, NetError> {
        self.dial_for(peer, options.into(), tls::PAIR_ALPN).await
    }

    async fn dial_for(
        &self,
        peer: &PeerAddress,
        options: DialOptions,
        protocol: &[u8],
    ) -> Result<Connection, NetError> {
        if peer.id() == self.node_id() {
            return Err(NetError::OwnId(peer.id()));
        }
        let deadline = Instant::now() + options.deadline.min(Duration::from_secs(1 << 30));
        let silent = || NetError::Unreachable { peer: peer.clone(), waited: options.deadline };
        let addresses = match timeout_at(deadline, self.resolve(peer)).await {
            Ok(addresses) => addresses?,
            Err(_) => return Err(silent()),
        };
        let mut failure = None;
        for (tried, address) in addresses.iter().enumerate() {
            let share = deadline.saturating_duration_since(Instant::now())
                / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            match timeout(share, self.dial_one(peer, *address, &options, protocol)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(NetError::IdleTimeout(_))) | Err(_) => {}
                // An answer says more than the silence of another address.
                Ok(Err(error)) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(silent))
    }

    /// Callers let in and turned away so far.
    #[must_use]
    pub fn accept_stats(&self) -> AcceptStats {
        self.inner.gate.stats()
    }

    /// How many connections are open or being opened, in both directions.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.inner.quinn.open_connections()
    }

    /// Closes all connections and accepts no more; waits, for a second at most, until the peers
    /// have been told.
    pub async fn close(&self, code: CloseCode, reason: &str) {
        self.inner.quinn.close(code.var_int(), clip(reason).as_bytes());
        // Peers that do not hear it find out by their idle timeout.
        let _ = timeout(FAREWELL, self.inner.quinn.wait_idle()).await;
    }

    /// The addresses of the peer's host that this socket can reach.
    async fn resolve(&self, peer: &PeerAddress) -> Result<Vec<SocketAddr>, NetError> {
        let mut addresses: Vec<SocketAddr> = match peer.socket_address() {
            Some(address) => vec![address],
            None => tokio::net::lookup_host((peer.host(), peer.port()))
                .await
                .map_err(|source| NetError::Resolve { peer: peer.clone(), source })?
                .collect(),
        };
        let local = self.inner.local;
        addresses.retain(|address| local.is_ipv6() || address.is_ipv4());
        if addresses.is_empty() {
            return Err(NetError::AddressFamily { peer: peer.clone(), local });
        }
        Ok(addresses)
    }

    async fn dial_one(
        &self,
        peer: &PeerAddress,
        address: SocketAddr,
        options: &DialOptions,
        protocol: &[u8],
    ) -> Result<Connection, NetError> {
        let Inner { quinn, identity, limits, .. } = &*self.inner;
        let found = Arc::new(OnceLock::new());
        let tls = tls::client_config(identity, peer.id(), Arc::clone(&found), protocol)?;
        let mut config = ClientConfig::new(Arc::new(tls));
        config.transport_config(Arc::new(limits.transport(address.ip(), Some(options))));
        let ends = Ends { own: identity.node_id(), peer: peer.id(), address, dialled: true };
        let connecting =
            quinn.connect_with(config, address, tls::SERVER_NAME).map_err(|error| match error {
                quinn::ConnectError::EndpointStopping => NetError::ClosedHere,
                other => NetError::Handshake { address, reason: other.to_string() },
            })?;
        match (connecting.await, found.get()) {
            (Ok(connection), _) => Ok(Connection::new(connection, ends)),
            (Err(_), Some(found)) if *found != peer.id() => {
                Err(NetError::WrongKey { address, expected: peer.id(), found: *found })
            }
            (Err(error), _) => Err(ends.handshake_error(error)),
        }
    }
}

/// A socket with large buffers, as far as the system grants them.
fn bind_socket(address: SocketAddr, buffer_bytes: usize) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // Some systems cannot serve both families by one socket; then it serves IPv6.
        let _ = socket.set_only_v6(false);
    }
    // Smaller buffers cost speed, nothing else.
    let _ = socket.set_recv_buffer_size(buffer_bytes);
    let _ = socket.set_send_buffer_size(buffer_bytes);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// QUIC's settings for accepting.
#[derive(Clone)]
struct ServerSide {
    tls: Arc<tls::Accepting>,
    config: ServerConfig,
    /// For callers on this machine.
    near: ServerConfig,
}

impl ServerSide {
    fn new(tls: Arc<tls::Accepting>, limits: &NetLimits) -> Result<Self, NetError> {
        let mut config = ServerConfig::with_crypto(Arc::new(tls.for_one()?.0));
        config
            .max_incoming(limits.max_pending_handshakes)
            .incoming_buffer_size(INCOMING_BYTES)
            .incoming_buffer_size_total(limits.pending_buffer_bytes);
        config.transport = Arc::new(limits.transport(Ipv6Addr::UNSPECIFIED.into(), None));
        let mut near = config.clone();
        near.transport = Arc::new(limits.transport(Ipv6Addr::LOCALHOST.into(), None));
        Ok(Self { tls, config, near })
    }

    /// For one caller.
    fn for_one(&self, near: bool) -> Result<(Arc<ServerConfig>, Purpose), NetError> {
        let mut config = if near { self.near.clone() } else { self.config.clone() };
        let (tls, purpose) = self.tls.for_one()?;
        config.crypto = Arc::new(tls);
        Ok((Arc::new(config), purpose))
    }
}

/// Takes callers from the socket and leads each through its handshake.
struct Acceptor {
    quinn: quinn::Endpoint,
    own: NodeId,
    limits: NetLimits,
    server: ServerSide,
    gate: Arc<Gate>,
    ready: Ready,
}

/// Where connections go whose handshake is complete.
#[derive(Clone)]
struct Ready {
    ordinary: mpsc::Sender<Connection>,
    pairing: mpsc::Sender<Connection>,
}

impl Acceptor {
    async fn run(self) {
        while let Some(incoming) = self.quinn.accept().await {
            self.receive(incoming);
        }
    }

    fn receive(&self, incoming: Incoming) {
        let address = incoming.remote_address();
        let full = self.quinn.open_connections() >= self.limits.max_connections;
        let Some(place) = (if full { None } else { self.gate.enter(address.ip(), &self.limits) })
        else {
            self.gate.turned_away.fetch_add(1, Ordering::Relaxed);
            return incoming.refuse();
        };
        if self.gate.pending() > self.limits.retry_above && !incoming.remote_address_validated() {
            self.gate.retried.fetch_add(1, Ordering::Relaxed);
            // An unvalidated caller may always be asked, so this cannot fail.
            let _ = incoming.retry();
            return;
        }
        let Ok((config, purpose)) = self.server.for_one(address.ip().to_canonical().is_loopback())
        else {
            return incoming.refuse();
        };
        let connecting = incoming.accept_with(config);
        let (own, ready) = (self.own, self.ready.clone());
        let within = self.limits.handshake_timeout;
        let gate = Arc::clone(&self.gate);
        tokio::spawn(async move {
            // Holds the place until the connection is handed over.
            let _place = place;
            match timeout(within, finish_handshake(connecting, &purpose, own, address)).await {
                Ok(Ok((connection, agreed))) => {
                    gate.accepted.fetch_add(1, Ordering::Relaxed);
                    let ready = match agreed {
                        Agreed::Ordinary => &ready.ordinary,
                        Agreed::Pairing => &ready.pairing,
                    };
                    hand_over(connection, ready, within).await;
                }
                Ok(Err(error)) => {
                    gate.failed.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(%address, %error, "handshake failed");
                }
                Err(_) => {
                    gate.failed.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(%address, "handshake took too long");
                }
            }
        });
    }
}

/// Gives a connection to whoever accepts, or closes it if nobody does.
async fn hand_over(connection: Connection, ready: &mpsc::Sender<Connection>, within: Duration) {
    match timeout(within, ready.reserve()).await {
        Ok(Ok(place)) => place.send(connection),
        Ok(Err(_)) => connection.close(CloseCode::ShuttingDown, ""),
        Err(_) => connection.close(CloseCode::Busy, ""),
    }
}

async fn finish_handshake(
    connecting: Result<quinn::Connecting, ConnectionError>,
    purpose: &Purpose,
    own: NodeId,
    address: SocketAddr,
) -> Result<(Connection, Agreed), NetError> {
    // Until the handshake is done the caller has no id.
    let ends = Ends { own, peer: NodeId([0; 32]), address, dialled: false };
    let failed = |error| ends.handshake_error(error);
    let connection = connecting.map_err(failed)?.await.map_err(failed)?;
    let refused = |reason: &str| NetError::Handshake { address, reason: reason.into() };
    let peer = tls::peer_id(&connection).ok_or_else(|| refused("the caller presented no key"))?;
    match purpose.agreed(&connection) {
        Some(agreed) => Ok((Connection::new(connection, Ends { peer, ..ends }), agreed)),
        None => {
            connection.close(CloseCode::Protocol.var_int(), b"");
            Err(refused("the caller came for something else than it was let in for"))
        }
    }
}

/// Counts the handshakes under way, in total and for each address.
#[derive(Debug, Default)]
struct Gate {
    inside: Mutex<HashMap<IpAddr, usize>>,
    accepted: AtomicU64,
    failed: AtomicU64,
    turned_away: AtomicU64,
    retried: AtomicU64,
}

/// The place of one handshake; given back when dropped.
struct Place {
    gate: Arc<Gate>,
    address: IpAddr,
}

impl Gate {
    fn enter(self: &Arc<Self>, address: IpAddr, limits: &NetLimits) -> Option<Place> {
        let address = neighbourhood(address);
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let here = inside.get(&address).copied().unwrap_or(0);
        let all: usize = inside.values().sum();
        if here >= limits.max_pending_per_address || all >= limits.max_pending_handshakes {
            return None;
        }
        inside.insert(address, here + 1);
        Some(Place { gate: Arc::clone(self), address })
    }

    fn pending(&self) -> usize {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    fn stats(&self) -> AcceptStats {
        AcceptStats {
            accepted: self.accepted.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            turned_away: self.turned_away.load(Ordering::Relaxed),
            retried: self.retried.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.gate.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(here) = inside.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                inside.remove(&self.address);
            }
        }
    }
}

/// What one caller can be taken to own: an IPv4 address, or an IPv6 /64.
pub(crate) fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            Ipv6Addr::from_bits(bits & !u128::from(u64::MAX)).into()
        }
        address => address,
    }
}
