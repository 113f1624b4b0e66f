//! All metrics: what each is called and what it says. docs/operations.md has them in a table.

use prometheus_client::metrics::MetricType;

/// How samples are put together that have no label of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Merge {
    Sum,
    Least,
    Greatest,
}

/// What a metric measures in, which is part of its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Measure {
    Number,
    Bytes,
    Seconds,
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    /// Its name, without unit and `_total`.
    pub(super) stem: &'static str,
    pub(super) kind: MetricType,
    pub(super) measure: Measure,
    pub(super) labels: &'static [&'static str],
    pub(super) merge: Merge,
    pub(super) help: &'static str,
}

impl Family {
    /// Its name, as that of its samples; of a histogram, what theirs begin with.
    pub(super) fn name(&self) -> String {
        let unit = match self.measure {
            Measure::Number => "",
            Measure::Bytes => "_bytes",
            Measure::Seconds => "_seconds",
        };
        let total = if self.is_counter() { "_total" } else { "" };
        format!("{}{unit}{total}", self.stem)
    }

    pub(super) const fn is_counter(&self) -> bool {
        matches!(self.kind, MetricType::Counter)
    }
}

macro_rules! families {
    ($($name:ident: $kind:ident $stem:literal $measure:ident [$($label:literal),*] $merge:ident
        $help:literal;)*) => {
        $(pub(super) const $name: Family = Family {
            stem: concat!("selfsame_", $stem),
            kind: MetricType::$kind,
            measure: Measure::$measure,
            labels: &[$($label),*],
            merge: Merge::$merge,
            help: $help,
        };)*

        /// All of them, in the order of the text.
        pub(super) const ALL: &[Family] = &[$($name),*];
    };
}

families! {
    BUILD: Gauge "build_info" Number ["version", "node"] Sum
        "Always 1; the version of the program and the node's short id";
    UPTIME: Gauge "uptime" Seconds [] Sum
        "How long the daemon has been running";
    STORE_FAILED: Gauge "store_failed" Number [] Sum
        "1 if the store takes no writes any more until the node is started anew";
    DAMAGED_ROWS: Gauge "damaged_rows" Number [] Sum
        "Rows of the list of collections that cannot be read";
    LIMIT_WRITERS: Gauge "limit_writers" Number [] Sum
        "Most writers in the context of a collection";
    LIMIT_EXCEPTIONS: Gauge "limit_exceptions" Number [] Sum
        "Most exceptions in the context of a collection";

    OPENED: Counter "sessions_opened" Number ["by"] Sum
        "Sessions begun, by who opened them: here or peer";
    ENDED: Counter "sessions_ended" Number ["outcome"] Sum
        "Sessions ended, by how: complete, incomplete, pulled, pushed, compared, partial, \
         interrupted, stopped, busy, duplicate or failed";
    CUT: Counter "sessions_cut" Number ["limit"] Sum
        "Sessions ended here at a limit: too_slow or too_large";
    TURNED_AWAY: Counter "sessions_turned_away" Number [] Sum
        "Sessions of peers that did not begin because this node was busy";
    RUNNING: Gauge "sessions_running" Number [] Sum
        "Sessions that run now";
    MEMORY: Gauge "sessions_memory" Bytes [] Sum
        "Memory that running sessions hold, by their own account";
    SENT: Counter "sessions_sent" Bytes [] Sum
        "Bytes sent in sessions that have ended";
    RECEIVED: Counter "sessions_received" Bytes [] Sum
        "Bytes received in sessions that have ended";
    CHANGED: Counter "sessions_changed_keys" Number ["at"] Sum
        "Keys that sessions changed, by where: here or peer";
    REFUSED: Counter "sessions_refused_items" Number ["reason", "by"] Sum
        "Versions that sessions left out, by why (drift, value_size, siblings, same_dot, \
         unavailable) and by who refused them: here or peer";
    REPORTS: Counter "sessions_reports" Number ["report"] Sum
        "What sessions did that a person may want to look at: concurrent_update, \
         deleted_remotely or constraint_violation";
    DURATION: Histogram "session_duration" Seconds [] Sum
        "How long sessions took";

    BRAKE_STOPS: Counter "brake_stops" Number [] Sum
        "Sessions that this node's brake stopped before too many keys vanished here";
    CLONES_FOUND: Counter "clones_found" Number [] Sum
        "Writers, of this node or a peer, that were found to have two users";
    SAME_DOT_FOUND: Counter "same_dot_found" Number [] Sum
        "Dots that were found to stand for two puts";
    DRIFT_ITEMS: Counter "drift_refused_items" Number [] Sum
        "Versions of peers that were refused because their stamps are too far ahead";
    DRIFT_PUTS: Counter "drift_refused_puts" Number [] Sum
        "Puts here that were refused because most peers find this node's clock ahead";
    CLOCK_AHEAD: Gauge "clock_ahead" Seconds [] Sum
        "How far this node's clock is ahead of most peers'; 0 if it is not beyond the bound";

    PEERS: Gauge "peers" Number [] Sum
        "Peers that are in the book or connected";
    PEERS_CONNECTED: Gauge "peers_connected" Number [] Sum
        "Peers that are connected";
    PEER_CONNECTED: Gauge "peer_connected" Number ["peer"] Sum
        "1 if the peer is connected";
    PEER_FAILURES: Counter "peer_failures" Number ["peer"] Sum
        "Attempts to connect to the peer or to ask it that failed";
    PEER_FAULTS: Counter "peer_faults" Number ["peer"] Sum
        "Sessions that the peer has spoilt: by a lie, a breach of the protocol or work without end";
    PEER_ANSWER: Gauge "peer_last_answer_timestamp" Seconds ["peer"] Least
        "When the peer last answered whether all is equal, since 1970";
    PEER_CLOCK: Gauge "peer_clock_ahead" Seconds ["peer"] Greatest
        "How far the clock of a connected peer is ahead of this node's";
    PAIR_EQUAL: Gauge "pair_equal" Number ["peer", "collection"] Sum
        "1 while this node and the peer are known to hold the same";
    PAIR_LAST_EQUAL: Gauge "pair_last_equal_timestamp" Seconds ["peer", "collection"] Least
        "When this node and the peer were last known to hold the same, since 1970; now while \
         they do, 0 if never since the daemon was started";
    PAIR_FAILURES: Counter "pair_failures" Number ["peer", "collection"] Sum
        "Sessions with the peer that failed";
    PAIR_BRAKED: Gauge "pair_braked_keys" Number ["peer", "collection"] Sum
        "Keys that the last session would have removed when the brake stopped it; 0 if it did \
         not";

    ENTRIES: Gauge "collection_entries" Number ["collection"] Sum
        "Keys held";
    EXTRA_VERSIONS: Gauge "collection_extra_versions" Number ["collection"] Sum
        "Concurrent versions beyond the first of their keys";
    VALUE_BYTES: Gauge "collection_value" Bytes ["collection"] Sum
        "Bytes of all values";
    HISTORY_BYTES: Gauge "collection_history" Bytes ["collection"] Sum
        "Bytes of replaced values that are kept";
    SKETCH_BYTES: Gauge "collection_sketch" Bytes ["collection"] Sum
        "Memory set aside for sketches of the entries";
    SKETCHES: Gauge "collection_sketches_made" Number ["collection"] Sum
        "1 if sketches are made and kept, so that no session reads all entries; small collections \
         need none";
    WRITERS: Gauge "collection_writers" Number ["collection"] Greatest
        "Writers in the context; the limit is selfsame_limit_writers";
    EXCEPTIONS: Gauge "collection_exceptions" Number ["collection"] Greatest
        "Exceptions of the context; the limit is selfsame_limit_exceptions";
    LAST_CHANGE: Gauge "collection_latest_change_timestamp" Seconds ["collection"] Greatest
        "The latest stamp of all versions, since 1970";
    DAMAGED: Gauge "collection_damaged" Number ["collection"] Sum
        "1 if the collection cannot be used until it is recovered";
    ROTTEN: Gauge "collection_rotten_entries" Number ["collection"] Sum
        "Entries that are rotten now: a peer has to give them back";
    LOST: Gauge "collection_lost_values" Number ["collection"] Sum
        "Values whose bytes are lost now: a peer has to give them back";
    SCRUB_END: Gauge "collection_scrub_end_timestamp" Seconds ["collection"] Least
        "When the last scrub ended, since 1970; 0 if none did";
    SCRUB_FOUND: Gauge "collection_scrub_found" Number ["collection"] Sum
        "What the last scrub found";
    SCRUB_MENDED: Gauge "collection_scrub_mended" Number ["collection"] Sum
        "What the last scrub mended of it";
    DISTRUSTED: Gauge "collection_distrusted_peers" Number ["collection"] Sum
        "Peers that have contradicted themselves: no sessions with them until accepted";
    CLONES: Gauge "collection_clones" Number ["collection"] Sum
        "Writers found to have two users that nobody has seen to yet";
    SAME_DOT: Gauge "collection_same_dot" Number ["collection"] Sum
        "Dots that stood for two puts, as many as are kept";
}
