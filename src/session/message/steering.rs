//! Messages of a steering descent: bits whose meaning follows from what was said before.

use serde::{Deserialize, Serialize};

use super::Bytes;

/// Ids of children and leaves: answers to nodes that the other side sent.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Level {
    /// How many of the other side's nodes are answered, in the order in which it sent them.
    pub answered: u32,
    /// Bits of an id here.
    pub width: u8,
    /// The answers, packed.
    pub bits: Bytes,
}

/// Of lists of leaves that the other side sent, in its order: which of them nothing here matches.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Unmatched {
    /// How many lists are answered.
    pub lists: u32,
    /// A bit for each leaf of each list, one where nothing matches, packed.
    pub bits: Bytes,
}
