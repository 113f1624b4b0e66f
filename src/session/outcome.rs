//! How a session ends.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::dots::Dot;
use crate::entry::Record;
use crate::merkle::{Certificate, Prefix};
use crate::replica::{RefusalReason, ViewError};
use crate::types::Key;

/// What a session changed at one side, by kind.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Keys that were not here before.
    pub added: u64,
    /// Keys here before, with siblings added or replaced.
    pub updated: u64,
    /// Keys that vanished.
    pub removed: u64,
    /// Keys changed that now have concurrent siblings with different values.
    pub conflicts: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        let Self { added, updated, removed, conflicts } = other;
        self.added = self.added.saturating_add(added);
        self.updated = self.updated.saturating_add(updated);
        self.removed = self.removed.saturating_add(removed);
        self.conflicts = self.conflicts.saturating_add(conflicts);
    }
}

impl Tally {
    /// Keys changed.
    #[must_use]
    pub const fn changed(&self) -> u64 {
        self.added.saturating_add(self.updated).saturating_add(self.removed)
    }
}

/// How a session ended, seen from this end. The two ends never contradict each other.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// Both computed the same root and joined. No certificate when the states were equal from
    /// the start: then the last one still says so.
    Complete {
        /// The signed statement of both.
        certificate: Option<Box<Certificate>>,
    },
    /// Verified without the refused items. What was applied is durable; what the peer has seen is
    /// not joined, or only up to them.
    Incomplete {
        /// The items, and whether it was this side that refused.
        refused: Vec<RefusedItem>,
    },
    /// One-way: this side now holds what the peer held.
    Pulled {
        /// Items that this side refused.
        refused: Vec<RefusedItem>,
    },
    /// One-way: the peer now holds what this side held.
    Pushed {
        /// Items that the peer refused.
        refused: Vec<RefusedItem>,
    },
    /// Compared: nothing moved.
    Compared {
        /// What differs.
        differences: Vec<Difference>,
        /// Whether a limit of one of the two ended the search: at least these differ.
        truncated: bool,
    },
    /// At its limit of differences: applied, not joined; a fresh session goes on.
    Partial,
    /// The connection ended first: this end cannot know. What was applied stays.
    Interrupted,
    /// It cannot succeed as things are.
    Failed(Failure),
}

/// A refused item.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RefusedItem {
    /// The dot.
    pub dot: Dot,
    /// Why.
    pub reason: RefusalReason,
    /// Whether this side refused it.
    pub by_us: bool,
}

/// One key that differs, as compare mode itemises it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Difference {
    /// The key.
    pub key: Key,
    /// What is held here.
    pub here: Option<Record>,
    /// What the peer holds.
    pub there: Option<Record>,
    /// What both would hold after a session.
    pub merged: Option<Record>,
}

/// Whose doing a failure is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// This node's.
    Ours,
    /// The peer's.
    Theirs,
    /// Nobody's: settings that do not go together, or the network.
    Nobody,
}

/// Why a session failed.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The peer ended it.
    #[error("the peer ended the session: {0}")]
    Peer(AbortCode),
    /// This side ended it because of what the peer sent.
    #[error("the session was ended: {0}")]
    Ours(AbortCode),
    /// This side's store failed.
    #[error("{0}")]
    View(String),
    /// The peer's hashes do not hash up to what it stated.
    #[error("the peer's tree is not what it stated: the subtree {prefix} does not hash up to it")]
    Lie {
        /// Where.
        prefix: Prefix,
    },
}

impl Failure {
    /// Whose doing it is.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::Peer(code) => match code {
                AbortCode::Internal => Fault::Theirs,
                AbortCode::Protocol | AbortCode::Lie | AbortCode::Limit(LimitName::Work) => {
                    Fault::Ours
                }
                _ => Fault::Nobody,
            },
            Self::Ours(
                AbortCode::Protocol
                | AbortCode::Lie
                | AbortCode::Contradiction
                | AbortCode::Limit(LimitName::Work),
            )
            | Self::Lie { .. } => Fault::Theirs,
            Self::Ours(AbortCode::Internal) | Self::View(_) => Fault::Ours,
            Self::Ours(_) => Fault::Nobody,
        }
    }
}

impl From<LimitName> for Failure {
    fn from(limit: LimitName) -> Self {
        Self::Ours(AbortCode::Limit(limit))
    }
}

impl From<ViewError> for Failure {
    fn from(error: ViewError) -> Self {
        Self::View(error.to_string())
    }
}

/// The limit that ended a session, as said to the peer. Those that are settings may be lower here
/// than there, which is nobody's fault; the work of a session follows from what both hold.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum LimitName {
    /// `max_writers`.
    #[error(
        "a context names more writers than max_writers lets through: if so many programs really \
         wrote (one writer for each start of a node), raise it on the side that refused"
    )]
    Writers,
    /// `max_exceptions`.
    #[error(
        "a context has more exceptions than max_exceptions lets through: raise it on the side \
         that refused, if the other is to be trusted"
    )]
    Exceptions,
    /// Runs of dots above a context.
    #[error("an opening names more dots above its context than one may: ask for fewer at once")]
    DotsAbove,
    /// Messages of an opening: those that writers, exceptions and dots within their limits fill.
    #[error(
        "an opening announces more parts than max_writers and max_exceptions can fill: if the \
         other side is to be trusted, raise them on the side that refused"
    )]
    OpeningParts,
    /// A message does not fit into a frame.
    #[error("a message does not fit into one frame of 1 MiB")]
    FrameBytes,
    /// `max_session_memory_bytes`.
    #[error(
        "the session needs more memory than max_session_memory_bytes: raise it, or lower \
         max_session_entries"
    )]
    SessionMemory,
    /// `max_session_turns`.
    #[error("the two did not come to an end in max_session_turns turns")]
    SessionTurns,
    /// What a peer makes this node look at: 16 times what it holds, and 64 times
    /// `max_session_entries`.
    #[error("it made the other look at the same things again and again, without an end")]
    Work,
    /// Subtrees of a comparison in full of which the leaves are to come.
    #[error("a comparison in full left more subtrees open than four times max_session_entries")]
    OpenSubtrees,
    /// `max_listed_leaves`.
    #[error("more leaves than max_listed_leaves were asked for at once")]
    ListedLeaves,
    /// Bytes of signatures that wait: `max_pending_bytes`.
    #[error("more bytes of signatures wait than max_pending_bytes lets through")]
    PendingSignatures,
    /// A context that cannot be hashed: its lists have more than 2^32 items.
    #[error("a context has more than 4,294,967,295 writers or exceptions")]
    ContextHash,
}

/// Why a session is ended early, as said to the peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum AbortCode {
    /// No such collection, or no grant: the two look the same.
    #[error("no such collection there, or this node may not use it")]
    UnknownCollection,
    /// Another hash algorithm.
    #[error(
        "the collection has another hash algorithm there: create it anew on one side with the \
         algorithm of the other"
    )]
    AlgorithmMismatch,
    /// Another policy.
    #[error(
        "the collection has another policy there (or another version of its resolver): create it \
         anew on one side with the policy of the other"
    )]
    PolicyMismatch,
    /// No common protocol version.
    #[error("no protocol version in common: update the older side")]
    Version,
    /// A message that does not belong here, or bytes that are none.
    #[error("a message broke the protocol")]
    Protocol,
    /// Something did not hash to what was stated.
    #[error("what was sent does not hash to what was stated")]
    Lie,
    /// A limit was exceeded.
    #[error("{0}")]
    Limit(LimitName),
    /// Too many keys would vanish.
    #[error(
        "{0} keys would be removed, more than the brake lets through: look at `selfsame diff`, \
         and repeat with --allow-removals if that is meant"
    )]
    Brake(u64),
    /// The roots do not become equal.
    #[error("the roots did not become equal although nothing was left to exchange")]
    RootMismatch,
    /// The collection was recovered or restored meanwhile.
    #[error("the collection was recovered meanwhile: try again")]
    Reset,
    /// The node cannot read or write its store.
    #[error("the node could not read or write its store")]
    Internal,
    /// Somebody stopped it.
    #[error("stopped")]
    Cancelled,
    /// Already as many sessions as the node serves, or as much memory in use as it may have.
    #[error("the node is busy: try again in {retry_after_ms} ms")]
    Busy {
        /// How long to wait before the next try, in milliseconds.
        retry_after_ms: u32,
    },
    /// Nothing moved for too long.
    #[error("no progress for too long")]
    Deadline,
    /// A writer has two users; or one dot stands for two puts, and the greater was refused.
    #[error(
        "two copies have written as one node (a machine was copied, or resumed from an image, \
         while its node ran): end one of them, start the other anew, and see `selfsame clones` at \
         both nodes; a key that is refused meanwhile is to be put again"
    )]
    Clone,
    /// Next to nothing moved for too long.
    #[error("it went on, but slower than min_bytes_per_s allows")]
    TooSlow,
    /// The node that opened the session may only read.
    #[error("the peer lets this node only read the collection: use --direction pull")]
    ReadOnly,
    /// A session of the same two nodes over the collection runs already, or both opened one at
    /// once and the one of the lesser node id goes on.
    #[error("another session of the two nodes over the collection runs: nothing needs to be done")]
    Duplicate,
    /// The other node has signed two things of one log that cannot both be true.
    #[error(
        "one of the two nodes has signed contradictory heads of one log, and the other holds them \
         as proof: see `selfsame certificate evidence` there; `selfsame certificate accept` takes \
         sessions up again"
    )]
    Contradiction,
    /// The node that is told this has another copy, as far as the one that says it can see.
    #[error(
        "two copies of the node that is told so have written (a machine was copied, or resumed \
         from an image, while its node ran): end one of them, start the other anew, and see \
         `selfsame clones` at both nodes"
    )]
    Copied,
}
