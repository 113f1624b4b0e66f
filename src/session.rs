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
//! | sketch exchange | what differs is named in about the fewest bytes there can be |
//! | Merkle comparison | subtree by subtree, exact |
//! | state request, state transfer | values: whole, as a delta, or by hash |
//! | verification | one root at both ends, then each joins what the other has seen |
//!
//! Turns alternate until both overlay trees have one hash; values flow at the same time.
//!
//! What a driver does, here with two replicas that are already equal:
//!
//! ```
//! use selfsame::clock::Stamp;
//! use selfsame::limits::Limits;
//! use selfsame::merkle::NodeKey;
//! use selfsame::replica::{Replica, ReplicaOptions};
//! use selfsame::session::{Lane, Outcome, Session, Setup, SyncConfig};
//! use selfsame::store::MemoryStore;
//! use selfsame::types::{CollectionName, CollectionSpec, Policy};
//!
//! let (a, b) = (NodeKey::from_seed(&[1; 32]), NodeKey::from_seed(&[2; 32]));
//! let spec = CollectionSpec {
//!     name: CollectionName::new("players")?,
//!     algorithm: Default::default(),
//!     policy: Policy::Lww,
//! };
//! let open = || -> Result<_, Box<dyn std::error::Error>> {
//!     let random = Box::new(|| 4); // the system's, in earnest
//!     let replica = Replica::open(MemoryStore::default(), ReplicaOptions::default(), random)?;
//!     Ok(replica.create_collection(spec.clone())?)
//! };
//! let (at_a, at_b) = (open()?.snapshot()?, open()?.snapshot()?);
//! let setup = |me: &NodeKey, peer: &NodeKey| Setup {
//!     me: me.node_id(),
//!     peer: peer.node_id(),
//!     config: SyncConfig::default(),
//!     limits: Limits::default(),
//!     secret: [0; 32], // of the connection and its stream, in earnest
//!     clock: Stamp::new(1_700_000_000_000, 0),
//! };
//!
//! let mut session_a = Session::initiate(setup(&a, &b), &at_a);
//! let hello = session_a.poll_transmit(Lane::Control, &at_a).expect("says hello first");
//! let mut session_b = Session::respond(&Session::read_hello(&hello)?, setup(&b, &a), &at_b);
//! let reply = session_b.poll_transmit(Lane::Control, &at_b).expect("answers");
//! session_a.handle(Lane::Control, &reply, &at_a, 1_700_000_000_000);
//! for session in [session_a, session_b] {
//!     assert_eq!(session.outcome(), Some(&Outcome::Complete { certificate: None }));
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
// the code of the embedding guide is tested with the rest
#![cfg_attr(doctest, doc = include_str!("../docs/library.md"))]

mod candidates;
mod clones;
mod config;
mod descent;
mod estimating;
mod filter;
mod follow;
mod give;
mod knowledge;
mod machine;
mod memory;
pub mod merge;
pub mod message;
mod opening;
mod outcome;
mod overlay;
mod phase;
pub mod plan;
mod short;
mod sketching;
mod states;
mod stats;
mod steer;
mod symbols;
mod transfer;
mod turn;
mod twins;
mod verify;
pub mod wire;

pub use clones::HeardNow;
pub use config::{Mode, Profile, Strategy, SyncConfig};
pub use machine::{Lane, Role, Session, Setup};
pub use outcome::{AbortCode, Difference, Failure, Fault, LimitName, Outcome, RefusedItem, Tally};
pub use phase::Phase;
pub use stats::{CompressionStats, PhaseStats, PlanStep, SyncStats};
pub use verify::Agreement;
