//! Every queue, loop, length and lifetime has its limit here.
//!
//! ```
//! use selfsame::limits::Limits;
//!
//! let limits = Limits { max_value_bytes: 1 << 20, ..Limits::default() };
//! assert_eq!(limits.max_frame_bytes, 1 << 20);
//! ```

/// Named limits of a node; what each can cost is said with it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Limits {
    /// Largest value, in bytes: one of these per value in transfer is in memory at each end.
    pub max_value_bytes: u64,
    /// Most siblings of one entry: 64 bytes each in every record.
    pub max_siblings: usize,
    /// How far ahead of this node's clock a stamp may be, in milliseconds.
    pub max_clock_drift_ms: u64,
    /// Most writers in a context that is received: 16 bytes each on the wire, about 48 in memory.
    pub max_writers: usize,
    /// Most exceptions in a context that is received, and most that a join past a refused item
    /// may add.
    pub max_exceptions: u64,
    /// Largest frame, in bytes: one of these per stream is in memory.
    pub max_frame_bytes: usize,
    /// Most keys whose state one session learns from its peer: about 1 kB each. Beyond, the
    /// session applies what it has without joining, and a fresh one goes on.
    pub max_session_entries: usize,
    /// Most bytes of values that one session moves each way. Beyond, the session applies what it
    /// has without joining, and a fresh one goes on: a store may keep what is written while a
    /// snapshot is open in memory, so this bounds what a session can cost there.
    pub max_session_bytes: u64,
    /// Most bytes of values that wait to be applied in one session.
    pub max_pending_bytes: usize,
    /// Most bytes that one session may hold in memory, by its own account: what it learned and
    /// waits to say, pages of the tree and snapshot that are there for it alone, sketches, values
    /// on their way, what is just being applied. From three quarters on, or as soon as three of the
    /// largest values would have no room, it learns of no more keys and ends as far as it is, so
    /// that a fresh one goes on; one that the peer drives beyond all the same is ended. Four of
    /// the largest values at least, or they may not fit.
    ///
    /// A collection of more than some three million entries takes 5 bytes for each beyond: its tree
    /// without leaves, of which a session that changes much has its own.
    pub max_session_memory_bytes: u64,
    /// Most leaves listed for one prefix before the comparison descends further.
    pub max_listed_leaves: usize,
    /// Largest bloom filter, in bytes.
    pub max_filter_bytes: usize,
    /// Most coded symbols of one exchange: 9 bytes each on the wire and, with what they name, at
    /// most 48 in memory at the end that reads them.
    pub max_iblt_symbols: usize,
    /// Most operations in a patch.
    pub max_patch_operations: usize,
    /// Most turns that a session may take before it is given up as not converging.
    pub max_session_turns: u32,
    /// Slowest that a session may move while it waits for its peer, in bytes a second both ways:
    /// below it, it ends after eight times the patience for one answer. 0: as slowly as it likes.
    pub min_bytes_per_s: u64,
    /// Most keys that a session may remove without being asked, in absolute number...
    pub max_removals: u64,
    /// ...and in percent of the entries: both must be exceeded for the brake to act.
    pub max_removals_percent: u64,
    /// Most pages of trees that stay in memory, for all collections together: about 7 KB each,
    /// and 10 KB at most. A commit may load more while it goes on.
    pub max_loaded_pages: usize,
    /// Most bytes of sketches that are kept, for all collections together: 90 kB for one, 1.1 MB
    /// from 262,144 entries on. Those of which none are kept are read at every session that has
    /// to find out what differs. 0: none are kept.
    pub max_sketch_bytes: usize,
    /// The first so many coded symbols are kept with the sketches of a collection: 16 bytes of
    /// memory each. 0: a session that uses coded symbols reads all entries.
    pub kept_symbols: usize,
    /// Of a collection of fewer entries no sketches are kept.
    pub sketches_from_entries: u64,
    /// How long replaced values are kept, in milliseconds.
    pub history_age_ms: u64,
    /// Most bytes of replaced values, in percent of the live bytes.
    pub history_percent: u64,
    /// Most rows that the change log keeps: about 100 bytes each on disk, and 230 for each commit.
    pub removal_log_entries: u64,
    /// Most rows that the certificate log of a collection keeps: about 600 bytes each on disk.
    /// The last certificate with each peer is kept beyond.
    pub certificate_log_entries: u64,
    /// Most puts of a writer that are copied aside when somebody else was found to use it too, the
    /// latest ones...
    pub max_aside_entries: u64,
    /// ...and most bytes of their values; of those beyond only the hash is kept. As much is in
    /// memory while they are copied.
    pub max_aside_bytes: u64,
    /// A peer is told signed heads of this node's logs no more often than this, in milliseconds:
    /// about 230 bytes each time. It is asked for proofs a tenth as often.
    pub heads_told_every_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_value_bytes: 16 << 20,
            max_siblings: 128,
            max_clock_drift_ms: 60_000,
            max_writers: 65_536,
            max_exceptions: 65_536,
            max_frame_bytes: 1 << 20,
            max_session_entries: 65_536,
            max_session_bytes: 64 << 20,
            max_pending_bytes: 32 << 20,
            max_session_memory_bytes: 64 << 20,
            max_listed_leaves: 1_024,
            max_filter_bytes: 16 << 20,
            max_iblt_symbols: 1 << 19,
            max_patch_operations: 1 << 20,
            max_session_turns: 512,
            min_bytes_per_s: 1 << 10,
            max_removals: 1_000,
            max_removals_percent: 10,
            max_loaded_pages: 65_536,
            max_sketch_bytes: 64 << 20,
            kept_symbols: 0,
            sketches_from_entries: 4_096,
            history_age_ms: 7 * 24 * 3_600_000,
            history_percent: 10,
            removal_log_entries: 1_000_000,
            certificate_log_entries: 10_000,
            max_aside_entries: 65_536,
            max_aside_bytes: 32 << 20,
            heads_told_every_ms: 60_000,
        }
    }
}
