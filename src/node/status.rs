//! What a running node says of itself: plain types, ready to travel as JSON.
//!
//! Times are milliseconds since 1970, ids are hex digits, as people write them.
//!
//! ```
//! use selfsame::node::status::{SessionEnd, SessionEvent};
//!
//! let end = SessionEnd { peer: "6f..".into(), outcome: "complete".into(), ..SessionEnd::default() };
//! let line = serde_json::to_string(&SessionEvent::Ended(end.clone()))?;
//! assert!(line.starts_with(r#"{"event":"ended","session":0,"peer":"6f..""#));
//! assert_eq!(serde_json::from_str::<SessionEvent>(&line)?, SessionEvent::Ended(end));
//! # Ok::<(), serde_json::Error>(())
//! ```

use serde::{Deserialize, Serialize};

use crate::replica::ReportCounts;
use crate::session::{AbortCode, Failure, Fault, Outcome};

/// A running node.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// Its id.
    pub id: String,
    /// Version of the program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// How long it has been running, in milliseconds.
    pub uptime_ms: u64,
    /// Where it waits for peers.
    pub listen: String,
    /// Its wall clock.
    pub clock_ms: u64,
    /// The peers that it knows or is connected with, by id.
    pub peers: Vec<PeerStatus>,
    /// Its collections, by name.
    pub collections: Vec<CollectionStatus>,
    /// What it knows of each peer and collection that it reconciles, by peer and name.
    pub pairs: Vec<PairStatus>,
    /// Sessions that run now.
    pub running: Vec<RunningSession>,
    /// Sums since the start.
    pub sessions: SessionCounters,
}

/// A peer.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its id.
    pub id: String,
    /// How people call it.
    pub name: Option<String>,
    /// Its address, while it is connected.
    pub address: Option<String>,
    /// Since when it is connected.
    pub connected_since_ms: Option<u64>,
    /// How far its clock is ahead of this node's, as it said when it connected.
    pub clock_ahead_ms: Option<i64>,
    /// Whether its clock is further away than max_clock_drift_ms: one refuses the writes of the
    /// other.
    pub clock_is_off: bool,
    /// When it last answered.
    pub last_answer_ms: Option<u64>,
    /// What last went wrong with it.
    pub last_error: Option<String>,
    /// When it is dialled or asked next.
    pub next_attempt_ms: Option<u64>,
    /// How many attempts to turn to it have failed since the start.
    #[serde(default)]
    pub failures: u64,
    /// How many sessions it has spoilt since the start: by a lie, a breach of the protocol or work
    /// without end. Never because of the network.
    #[serde(default)]
    pub faults: u64,
}

/// A collection.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CollectionStatus {
    /// Its name.
    pub name: String,
    /// Number of entries.
    pub entries: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Its root.
    pub root: String,
    /// Concurrent versions beyond the first of their keys.
    pub conflicts: u64,
    /// When an entry was last written, here or elsewhere; none while it is empty.
    pub last_change_ms: Option<u64>,
    /// What is damaged, if it cannot be used.
    pub damage: Option<String>,
}

/// A collection at a peer.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PairStatus {
    /// Id of the peer.
    pub peer: String,
    /// Name of the collection.
    pub collection: String,
    /// How the last session ended, in a word.
    pub last_outcome: Option<String>,
    /// When.
    pub last_ended_ms: Option<u64>,
    /// Since when both are known to hold the same: kept until one of them is seen to have
    /// changed.
    pub equal_since_ms: Option<u64>,
    /// When both were last known to hold the same; now, while they do.
    #[serde(default)]
    pub last_equal_ms: Option<u64>,
    /// Why the last attempt failed; none once one succeeded.
    pub last_failure: Option<String>,
    /// How many attempts have failed since the start.
    #[serde(default)]
    pub failures: u64,
    /// How many keys the last session would have removed when the brake of an end stopped it.
    #[serde(default)]
    pub braked_keys: Option<u64>,
    /// Which way entries may move, by the grants of both ends as far as they are known here.
    #[serde(default)]
    pub flow: PairFlow,
    /// When the next session is due, unless the peer is found equal before.
    pub next_session_ms: Option<u64>,
}

/// Which way entries of a collection may move between this node and a peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairFlow {
    /// Both ways.
    #[default]
    Both,
    /// Towards this node: the peer lets it only read.
    Pull,
    /// Towards the peer: this node lets it only read.
    Push,
    /// Neither way: each lets the other only read, or this node lets the peer do nothing.
    Neither,
}

/// A session that runs.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RunningSession {
    /// Its number since the start of the node.
    pub session: u64,
    /// Id of the peer.
    pub peer: String,
    /// Name of the collection.
    pub collection: String,
    /// Whether this node opened it.
    pub opened_here: bool,
    /// Since when it runs.
    pub started_ms: u64,
    /// Its phase.
    pub phase: String,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Keys that were found to differ.
    pub keys_found: u64,
    /// Bytes that it holds in memory.
    pub memory_bytes: u64,
}

/// A session that has ended.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SessionEnd {
    /// Its number since the start of the node.
    pub session: u64,
    /// Id of the peer.
    pub peer: String,
    /// Name of the collection.
    pub collection: String,
    /// Whether this node opened it.
    pub opened_here: bool,
    /// When it began.
    pub started_ms: u64,
    /// How long it took.
    pub elapsed_ms: u64,
    /// How it ended, in a word: `complete`, `incomplete`, `pulled`, `pushed`, `compared`,
    /// `partial`, `interrupted`, `stopped`, `busy`, `duplicate` or `failed`.
    pub outcome: String,
    /// Why, where that is not all.
    pub cause: Option<String>,
    /// Whose doing it was that it failed: `here` or `peer`; none if it did not fail, or if settings
    /// or the network are to blame.
    #[serde(default)]
    pub blame: Option<String>,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Keys changed here.
    pub changed_here: u64,
    /// Keys changed at the peer.
    pub changed_there: u64,
    /// Most bytes that it held in memory at once, by its own account.
    #[serde(default)]
    pub memory_bytes: u64,
    /// What a person may want to look at, of what changed here.
    #[serde(default)]
    pub reports: ReportCounts,
}

/// What happens to sessions, as it happens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum SessionEvent {
    /// One began.
    Started(RunningSession),
    /// One moved on; said a few times a second at most.
    Progress(RunningSession),
    /// One ended.
    Ended(SessionEnd),
}

/// Sums over all sessions since the start.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct SessionCounters {
    /// Opened by this node.
    pub opened_here: u64,
    /// Opened by peers.
    pub opened_by_peers: u64,
    /// Ended with both the same, refused items or not.
    pub complete: u64,
    /// Ended one-way, or as a comparison.
    pub one_way: u64,
    /// Ended at a limit, so that another one goes on.
    pub partial: u64,
    /// Ended with the connection.
    pub interrupted: u64,
    /// Failed.
    pub failed: u64,
    /// Ended here because they were too slow.
    pub too_slow: u64,
    /// Ended here because they held too much memory.
    pub too_large: u64,
    /// Not begun, or given up, because the peer was busy.
    pub peer_busy: u64,
    /// Turned away here because the node was busy.
    pub turned_away: u64,
    /// Not begun because one of the same pair was running.
    pub duplicate: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
}

/// Whose doing it was that a session failed, in a word: `here` or `peer`.
#[must_use]
pub fn blamed(outcome: &Outcome) -> Option<&'static str> {
    let Outcome::Failed(failure) = outcome else { return None };
    match failure.fault() {
        Fault::Ours => Some("here"),
        Fault::Theirs => Some("peer"),
        Fault::Nobody => None,
    }
}

/// An outcome in a word, and why where the word is not all.
#[must_use]
pub fn named(outcome: &Outcome) -> (&'static str, Option<String>) {
    let refused = |number: usize| match number {
        0 => None,
        1 => Some("1 item was refused".to_owned()),
        more => Some(format!("{more} items were refused")),
    };
    match outcome {
        Outcome::Complete { .. } => ("complete", None),
        Outcome::Incomplete { refused: items } => ("incomplete", refused(items.len())),
        Outcome::Pulled { refused: items } => ("pulled", refused(items.len())),
        Outcome::Pushed { refused: items } => ("pushed", refused(items.len())),
        Outcome::Compared { .. } => ("compared", None),
        Outcome::Partial => ("partial", None),
        Outcome::Interrupted => ("interrupted", Some("the connection was lost".to_owned())),
        Outcome::Failed(failure) => {
            let word = match failure {
                Failure::Ours(AbortCode::Cancelled) => "stopped",
                Failure::Peer(AbortCode::Busy { .. }) | Failure::Ours(AbortCode::Busy { .. }) => {
                    "busy"
                }
                Failure::Peer(AbortCode::Duplicate) => "duplicate",
                _ => "failed",
            };
            (word, Some(failure.to_string()))
        }
    }
}
