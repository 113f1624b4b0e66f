//! The phases of a session, in order.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A phase; each can end the session early.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Phase {
    /// State hashes, then roots and contexts.
    Hello,
    /// What the other side has never seen, read from the dot index, and logged removals.
    Announce,
    /// Filters over the dots held.
    BloomExchange,
    /// Sketches of the leaves.
    SketchExchange,
    /// Subtree by subtree.
    MerkleComparison,
    /// What is wanted, and how.
    StateRequest,
    /// Values.
    StateTransfer,
    /// Roots, joins, certificate.
    Verification,
}

impl Phase {
    /// All phases, in order.
    pub const ALL: [Self; 8] = [
        Self::Hello,
        Self::Announce,
        Self::BloomExchange,
        Self::SketchExchange,
        Self::MerkleComparison,
        Self::StateRequest,
        Self::StateTransfer,
        Self::Verification,
    ];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Announce => "announce",
            Self::BloomExchange => "bloom",
            Self::SketchExchange => "sketch",
            Self::MerkleComparison => "merkle",
            Self::StateRequest => "request",
            Self::StateTransfer => "transfer",
            Self::Verification => "verify",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
