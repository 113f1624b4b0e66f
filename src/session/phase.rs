//! The phases of a session, in order.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::message::{FreeMessage, Message, TurnMessage};

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

/// The phase of a message, while the turns are about `current`.
pub(super) const fn phase_of(message: &Message, current: Phase) -> Phase {
    match message {
        Message::Hello(_) | Message::HelloReply(_) | Message::OpeningPart(_) => Phase::Hello,
        Message::Turn(message) => match message {
            TurnMessage::Opening(_) | TurnMessage::Following(_) => Phase::Hello,
            TurnMessage::States { found_by, .. } => *found_by,
            TurnMessage::Removed(_) => searched(current),
            TurnMessage::Candidates { .. } | TurnMessage::Filter { .. } => Phase::BloomExchange,
            TurnMessage::Descend(_)
            | TurnMessage::Nodes(_)
            | TurnMessage::Leaves(_)
            | TurnMessage::Steer { .. }
            | TurnMessage::Level(_)
            | TurnMessage::Unmatched(_) => Phase::MerkleComparison,
            TurnMessage::Estimate(_)
            | TurnMessage::Sketch(_)
            | TurnMessage::Refill(_)
            | TurnMessage::Refilled(_)
            | TurnMessage::Symbols { .. }
            | TurnMessage::MoreSymbols(_)
            | TurnMessage::Names(_) => Phase::SketchExchange,
        },
        Message::TurnEnd(_) => searched(current),
        Message::Free(message) => match message {
            FreeMessage::Request(_)
            | FreeMessage::NeedSignature(_)
            | FreeMessage::Signature { .. }
            | FreeMessage::NeedBlocks { .. }
            | FreeMessage::Blocks { .. } => Phase::StateRequest,
            FreeMessage::Refused(_) | FreeMessage::Unavailable(_) => Phase::StateTransfer,
            FreeMessage::Ready(_)
            | FreeMessage::Joined { .. }
            | FreeMessage::Heads(_)
            | FreeMessage::Abort(_) => Phase::Verification,
        },
    }
}

/// The phase that searches while the turns are about `current`.
pub(super) const fn searched(current: Phase) -> Phase {
    match current {
        Phase::BloomExchange | Phase::SketchExchange | Phase::MerkleComparison => current,
        _ => Phase::Announce,
    }
}
