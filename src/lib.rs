//! selfsame keeps replicas the same: an anti-entropy reconciliation engine.

#[cfg(feature = "node")]
pub mod api;
#[cfg(feature = "session")]
pub mod backup;
#[cfg(feature = "node")]
pub mod cli;
pub mod clock;
pub mod codec;
#[cfg(feature = "session")]
pub mod delta;
pub mod dots;
pub mod entry;
pub mod hash;
pub mod limits;
#[cfg(feature = "tree")]
pub mod merkle;
#[cfg(feature = "dangerous-mutants")]
pub mod mutants;
#[cfg(all(feature = "session", not(feature = "dangerous-mutants")))]
mod mutants;
#[cfg(feature = "node")]
pub mod net;
#[cfg(feature = "node")]
pub mod node;
#[cfg(feature = "session")]
pub mod replica;
#[cfg(feature = "session")]
pub mod resolve;
#[cfg(feature = "session")]
pub mod session;
#[cfg(feature = "session")]
pub mod sketch;
#[cfg(feature = "session")]
pub mod store;
pub mod types;
