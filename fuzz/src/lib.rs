//! What must hold for any bytes: one module for each fuzz target, with a `check` that panics when
//! something does not.
//!
//! `cargo run --example seeds` writes the corpus anew, from real records, proofs and sessions.

pub mod buckets;
#[path = "../../tests/common/mod.rs"]
mod common;
pub mod filter;
mod forge;
pub mod frame;
pub mod iblt;
pub mod patch;
pub mod proof;
pub mod record;
pub mod script;
pub mod session;
