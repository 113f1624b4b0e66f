//! Grants and pairing between nodes over real QUIC on loopback.
#![cfg(feature = "node")]
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "peers/grants.rs"]
mod grants;
#[path = "peers/net.rs"]
mod net;
#[path = "peers/pairing.rs"]
mod pairing;
