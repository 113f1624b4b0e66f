//! The tables of a store.

/// A named, ordered table. What the rows hold is the replica's business.
///
/// Integers in keys are big-endian, so that rows stand in the order of their numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Table {
    /// Node: one row per fact.
    Meta = 1,
    /// Collection name -> id and what decides how it behaves.
    Collections = 2,
    /// Collection id -> root fields, checksums, positions: rewritten by every change.
    Heads = 3,
    /// Collection id, key hash -> key and record bytes.
    Entries = 4,
    /// Collection id, key hash, value hash -> value. Equal values of a key are stored once.
    Values = 5,
    /// Collection id, writer, counter -> key hash: every dot that is held.
    Dots = 6,
    /// Collection id, page prefix -> page row.
    Pages = 7,
    /// Collection id, writer (and first counter) -> counter: context, and exceptions as runs.
    Context = 8,
    /// Collection id, position -> one change: what became of a key, which dots it lost.
    Log = 9,
    /// Collection id, key hash, value hash -> when the value was replaced.
    History = 10,
    /// Collection id, node id -> what is remembered of the last joined session.
    Joins = 11,
    /// Collection id, number -> a sibling that lost against another under the same dot.
    Evidence = 12,
    /// Collection id, key hash, value hash -> nothing: values whose bytes were found lost. Without
    /// a value hash: entries that were found rotten.
    Lost = 13,
    /// Collection id, 0, position -> one certificate; 1, node id -> the last one with that node.
    Certificates = 14,
    /// Collection id, kind of fact, node id, ... -> signed log heads seen of peers, and what
    /// contradicts them.
    Witness = 15,
    /// Collection id, number -> what a session did that somebody may want to look at.
    Reports = 16,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 16] = [
        Self::Meta,
        Self::Collections,
        Self::Heads,
        Self::Entries,
        Self::Values,
        Self::Dots,
        Self::Pages,
        Self::Context,
        Self::Log,
        Self::History,
        Self::Joins,
        Self::Evidence,
        Self::Lost,
        Self::Certificates,
        Self::Witness,
        Self::Reports,
    ];

    /// Number on disk, never reused for another table.
    #[must_use]
    pub const fn id(self) -> u8 {
        self as u8
    }
}
