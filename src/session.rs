//! The session: two peers find what differs between their snapshots of a collection, move only
//! that, and prove that they are equal.
//!
//! The core is sans-IO: it reads a borrowed snapshot, takes and gives frames, and its writes
//! leave as batches. A driver moves the frames over any transport that keeps their order in each
//! of two lanes.
//!
//! | phase | what happens |
//! |---|---|
//! | hello | state hashes; equal ones end the session. Else roots and contexts |
//! | announce | each side reads from its dot index what the other has never seen |
//! | bloom exchange | filters over the dots held, when much differs that contexts do not explain |
//! | Merkle comparison | subtree by subtree, exact |
//! | state request, state transfer | values: whole, as a delta, or by hash |
//! | verification | one root at both ends, then each joins what the other has seen |
//!
//! Turns alternate until both overlay trees have one hash; values flow at the same time.

pub mod config;
mod descent;
mod filter;
mod knowledge;
pub mod machine;
pub mod merge;
pub mod message;
pub mod outcome;
pub mod phase;
pub mod plan;
pub mod stats;
mod transfer;
mod turn;
mod verify;
pub mod wire;

pub use config::{Mode, Strategy, SyncConfig};
pub use machine::{Lane, Role, Session, Setup};
pub use outcome::{AbortCode, Difference, Failure, Fault, Outcome, RefusedItem, Tally};
pub use phase::Phase;
pub use stats::{CompressionStats, PhaseStats, PlanStep, SyncStats};
