//! Sessions with peers, as they travel.

use serde::{Deserialize, Serialize};

use super::{DigestText, KeyText, ReportText, SiblingText};
use crate::api::error::Problem;
use crate::entry::Record;
use crate::replica::ReportCounts;
use crate::session::{CompressionStats, Difference, Tally};

/// Which peer to ask.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerRequest {
    /// `ID@HOST:PORT`, or the name or the first digits of the id of one in the peer book.
    pub peer: String,
}

/// Two digests of one collection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DigestComparison {
    /// Whether the roots are equal.
    pub equal: bool,
    /// This node's.
    pub here: DigestText,
    /// The peer's.
    pub peer: DigestText,
    /// Buckets whose hashes differ.
    pub differing_buckets: Vec<usize>,
}

impl DigestComparison {
    /// Of two digests.
    #[must_use]
    pub fn new(here: DigestText, peer: DigestText) -> Self {
        let pairs = here.buckets.iter().zip(&peer.buckets).enumerate();
        let differing_buckets =
            pairs.filter(|(_, (ours, theirs))| ours != theirs).map(|(at, _)| at).collect();
        Self { equal: here.root == peer.root, here, peer, differing_buckets }
    }
}

/// Which way entries move.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Both ends become the same.
    #[default]
    Both,
    /// This node takes.
    Pull,
    /// This node gives.
    Push,
}

/// How differences are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// The planner chooses.
    #[default]
    Auto,
    /// Bloom filters, then the Merkle tree.
    Bloom,
    /// A sketch of all entries, then the Merkle tree.
    Sketch,
    /// Coded symbols of all entries, then the Merkle tree.
    Iblt,
    /// The Merkle tree alone.
    Merkle,
}

/// What the planner saves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Saves {
    /// Bytes first, but not at any price.
    #[default]
    Auto,
    /// Bytes.
    Bytes,
    /// Round trips.
    Latency,
    /// Work of both ends.
    Cpu,
}

/// A synchronisation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncRequest {
    /// `ID@HOST:PORT`, or the name or the first digits of the id of one in the peer book.
    pub peer: String,
    /// Which way entries move.
    #[serde(default)]
    pub direction: Direction,
    /// How differences are found.
    #[serde(default)]
    pub strategy: How,
    /// What strategy auto saves; none: as the config of the node says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Saves>,
    /// Lets more keys vanish than the brake does.
    #[serde(default)]
    pub allow_removals: bool,
}

/// A line of the answer to a synchronisation or comparison: progress and differences while it
/// goes on, and in the end a report or a problem.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SyncLine {
    /// It began, under this number, by which it can be stopped.
    Run(u64),
    /// What has moved so far.
    Progress(Moved),
    /// A key that differs.
    Difference(DifferenceText),
    /// How it ended.
    Report(Box<Report>),
    /// It could not be done.
    Problem(Problem),
}

/// Bytes moved so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Moved {
    /// To the peer.
    pub bytes_sent: u64,
    /// From the peer.
    pub bytes_received: u64,
}

/// A key that differs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DifferenceText {
    /// The key.
    #[serde(flatten)]
    pub key: KeyText,
    /// What differs, in a word.
    pub difference: String,
    /// Versions held here.
    pub here: Vec<SiblingText>,
    /// Versions held there.
    pub there: Vec<SiblingText>,
    /// What both would hold after a session.
    pub merged: Vec<SiblingText>,
}

impl From<&Difference> for DifferenceText {
    fn from(difference: &Difference) -> Self {
        let Difference { key, here, there, merged } = difference;
        let texts = |record: &Option<Record>| -> Vec<SiblingText> {
            let siblings = record.iter().flat_map(Record::siblings);
            siblings.map(SiblingText::from).collect()
        };
        Self {
            key: KeyText::from(key),
            difference: kind(difference).to_owned(),
            here: texts(here),
            there: texts(there),
            merged: texts(merged),
        }
    }
}

fn kind(difference: &Difference) -> &'static str {
    let Difference { here, there, merged, .. } = difference;
    match (here, there, merged) {
        (Some(_), None, None) => "removed_there",
        (None, Some(_), None) => "removed_here",
        (Some(_), None, Some(_)) => "only_here",
        (None, Some(_), Some(_)) => "only_there",
        (Some(here), Some(_), Some(merged)) if here == merged => "newer_here",
        (Some(_), Some(there), Some(merged)) if there == merged => "newer_there",
        (Some(_), Some(_), Some(_)) => "changed_at_both",
        (Some(_), Some(_), None) => "removed_at_both",
        (None, None, _) => "gone",
    }
}

/// How a synchronisation ended: sums over all its sessions.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// In a word.
    pub outcome: String,
    /// In a sentence.
    pub detail: String,
    /// Entries in the end.
    pub entries: u64,
    /// Sessions it took.
    pub sessions: u64,
    /// What changed here.
    pub here: Tally,
    /// What changed there.
    pub there: Tally,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Round trips.
    pub round_trips: u64,
    /// Most bytes that a session held in memory at once, by its own account.
    #[serde(default)]
    pub memory_bytes: u64,
    /// How long it took.
    pub elapsed_ms: u64,
    /// Values sent.
    pub values_sent: CompressionStats,
    /// Values received.
    pub values_received: CompressionStats,
    /// What each phase cost.
    pub phases: Vec<PhaseText>,
    /// What the planner decided.
    pub plan: Vec<PlanText>,
    /// Values whose bytes were lost here and came from the peer.
    pub repaired: u64,
    /// Dots that stood for another put at the peer: of each pair the greater stayed.
    pub same_dot: u64,
    /// What a person may want to look at, of what changed here.
    #[serde(default)]
    pub reports: ReportCounts,
    /// The first hundred of it.
    #[serde(default)]
    pub reported: Vec<ReportText>,
    /// Items that were refused.
    pub refused: Vec<RefusedText>,
    /// The convergence certificate, in hex.
    pub certificate: Option<String>,
    /// Its number in this node's certificate log, if it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_number: Option<u64>,
    /// The root here in the end.
    pub root: Option<String>,
    /// Whether there are more differences than were named.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// The code with which a command ends.
    pub exit: u8,
}

/// What a phase cost.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PhaseText {
    /// Its name.
    pub phase: String,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Frames sent.
    pub messages_sent: u64,
    /// Frames received.
    pub messages_received: u64,
    /// Differing keys first learned of in it.
    pub keys_found: u64,
    /// Time in this side's own work.
    pub busy_us: u64,
}

/// A decision of the planner.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PlanText {
    /// The phase chosen.
    pub phase: String,
    /// Why.
    pub reason: String,
    /// What it was expected to cost.
    pub predicted_bytes: u64,
    /// In how many messages.
    #[serde(default)]
    pub predicted_messages: u64,
    /// With how much work of this side.
    #[serde(default)]
    pub predicted_busy_us: u64,
}

/// An item that was refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RefusedText {
    /// The put.
    pub dot: String,
    /// Why.
    pub reason: String,
    /// Whether it was this node.
    pub by_us: bool,
}
