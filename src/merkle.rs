//! The Merkle tree: a path-compressed binary trie over hashed keys, its proofs and its roots.
//!
//! Same content, same root: whatever the order of writes.

pub mod envelope;
pub mod shape;

pub use envelope::{Envelope, EnvelopeError, MAX_ENVELOPE_BYTES};
pub use shape::{Prefix, PrefixError, Sealed, Shape, View};
