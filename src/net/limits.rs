//! What connections may cost, and how QUIC is tuned.
//!
//! ```
//! use std::time::Duration;
//! use selfsame::net::NetLimits;
//!
//! let limits = NetLimits { idle_timeout: Duration::from_secs(5), ..NetLimits::default() };
//! assert_eq!(limits.max_pending_handshakes, 256);
//! ```

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

/// UDP payload on a loopback device: what fits an Ethernet packet with IPv6.
const LOOPBACK_MTU: u16 = 1452;

/// UDP payload that every path of QUIC takes (RFC 9000, 14).
const SMALLEST_MTU: u16 = 1200;

/// UDP payload that the far end reads at most.
const LARGEST_MTU: u16 = 1472;

/// Limits and settings of an endpoint; each says what it can cost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetLimits {
    /// After how long without a packet a connection is given up.
    pub idle_timeout: Duration,
    /// How often idle connections are kept alive; `None` lets them end. One packet each way.
    pub keep_alive: Option<Duration>,
    /// How long a handshake may take when accepting.
    pub handshake_timeout: Duration,
    /// Bytes that a peer may send on one stream before they are read: in memory, per stream.
    pub stream_window_bytes: u32,
    /// Bytes that a peer may send on all its streams before they are read: in memory, per
    /// connection. The cap that counts.
    pub connection_window_bytes: u32,
    /// Bytes sent and not yet acknowledged: in memory, per connection.
    pub send_window_bytes: u32,
    /// Streams in both directions that a peer may have open at once: two sessions' worth of
    /// control need one each.
    pub max_bidirectional_streams: u32,
    /// Bulk streams that a peer may have open at once.
    pub max_unidirectional_streams: u32,
    /// Handshakes that may be under way at once; more are refused. Each holds
    /// the state of one connection.
    pub max_pending_handshakes: usize,
    /// Handshakes under way above which a caller must first prove its address (QUIC retry).
    pub retry_above: usize,
    /// Handshakes that may be under way at once from one address (IPv6: one /64).
    pub max_pending_per_address: usize,
    /// Bytes buffered for all callers that have not been looked at.
    pub pending_buffer_bytes: u64,
    /// Connections that may be open at once; callers beyond are refused. 33-42 KiB each, idle.
    pub max_connections: usize,
    /// Send and receive buffer that is asked of the system for the socket; it may give less.
    pub socket_buffer_bytes: usize,
    /// UDP payload to begin with, 1200 to 1452; a path that takes less loses packets at first.
    /// Between addresses of one machine 1452 is taken.
    pub initial_mtu: u16,
    /// Whether to probe for larger packets: some 11 kB for each connection, which pays only
    /// where much is moved.
    pub mtu_discovery: bool,
}

impl Default for NetLimits {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(60),
            keep_alive: None,
            handshake_timeout: Duration::from_secs(10),
            stream_window_bytes: 8 << 20,
            connection_window_bytes: 16 << 20,
            send_window_bytes: 16 << 20,
            max_bidirectional_streams: 64,
            max_unidirectional_streams: 16,
            max_pending_handshakes: 256,
            retry_above: 32,
            max_pending_per_address: 64,
            pending_buffer_bytes: 8 << 20,
            max_connections: 4096,
            socket_buffer_bytes: 4 << 20,
            initial_mtu: 1200,
            mtu_discovery: false,
        }
    }
}

/// What one dialled connection is to be like.
///
/// A plain [`Duration`] is a deadline with everything else as in [`NetLimits`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DialOptions {
    /// How long name resolution and handshake may take together.
    pub deadline: Duration,
    /// Overrides [`NetLimits::keep_alive`] for a connection that is to be kept.
    pub keep_alive: Option<Duration>,
    /// Overrides [`NetLimits::initial_mtu`] with what the path took last time.
    pub initial_mtu: Option<u16>,
    /// Turns probing for larger packets on, for a connection that will move much.
    pub mtu_discovery: bool,
}

impl From<Duration> for DialOptions {
    fn from(deadline: Duration) -> Self {
        Self { deadline, keep_alive: None, initial_mtu: None, mtu_discovery: false }
    }
}

impl NetLimits {
    /// QUIC's settings for a connection with a peer at `remote`.
    ///
    /// Cubic, because BBR lost a quarter of its packets in measurements; segmentation offload
    /// on; no datagrams, since nothing here sends any.
    pub(super) fn transport(
        &self,
        remote: IpAddr,
        dialled: Option<&DialOptions>,
    ) -> TransportConfig {
        let keep_alive = dialled.and_then(|options| options.keep_alive).or(self.keep_alive);
        let mtu = dialled.and_then(|options| options.initial_mtu).unwrap_or_else(|| {
            let near = remote.to_canonical().is_loopback();
            if near { LOOPBACK_MTU.max(self.initial_mtu) } else { self.initial_mtu }
        });
        let discover = self.mtu_discovery || dialled.is_some_and(|options| options.mtu_discovery);
        let mut transport = TransportConfig::default();
        transport
            .max_idle_timeout(Some(idle_timeout(self.idle_timeout)))
            .keep_alive_interval(keep_alive)
            .stream_receive_window(self.stream_window_bytes.into())
            .receive_window(self.connection_window_bytes.into())
            .send_window(self.send_window_bytes.into())
            .max_concurrent_bidi_streams(self.max_bidirectional_streams.into())
            .max_concurrent_uni_streams(self.max_unidirectional_streams.into())
            .initial_mtu(mtu.clamp(SMALLEST_MTU, LARGEST_MTU))
            .mtu_discovery_config(discover.then(MtuDiscoveryConfig::default))
            .congestion_controller_factory(Arc::new(CubicConfig::default()))
            .enable_segmentation_offload(true)
            .datagram_receive_buffer_size(None);
        transport
    }
}

/// In QUIC's milliseconds; zero would mean never.
fn idle_timeout(after: Duration) -> IdleTimeout {
    let millis = u32::try_from(after.as_millis()).unwrap_or(u32::MAX).max(1);
    IdleTimeout::from(VarInt::from_u32(millis))
}
