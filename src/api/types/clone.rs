//! Clones, dots that stood for two puts, clocks and restamps, as they travel.

use serde::{Deserialize, Serialize};

use super::{KeyText, SiblingText};
use crate::api::error::Problem;
use crate::clock::ClockAhead;
use crate::replica::{AsideEntry, ClaimedPut, KeptClone, RestampStep, SameDot};
use crate::types::CollectionName;

/// What is kept of clones, and of dots that stood for two puts.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ClonesText {
    /// Writers that were found to have two users, in the order in which they were found.
    pub clones: Vec<CloneText>,
    /// Dots that stood for two puts, the latest found first.
    pub same_dot: Vec<SameDotText>,
}

/// A writer that was found to have two users.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CloneText {
    /// Its number in this collection.
    pub number: u64,
    /// When it was found, in milliseconds since 1970.
    pub found_ms: u64,
    /// Id of the peer in whose session.
    pub peer: String,
    /// Whether the writer was this node's, which writes with a fresh one since; else the peer's.
    pub ours: bool,
    /// The writer.
    pub writer: String,
    /// A counter of it that shows it.
    pub counter: u64,
    /// What shows it: `mark`, `went_back`, `echo`, `context`, `same_dot` or `told`.
    pub how: String,
    /// Puts of that writer that were held here and were copied aside.
    pub aside: u64,
    /// Puts that could not be copied, because their entries rotted.
    pub left_out: u64,
    /// Puts with a counter up to this were not looked at; 0: all were.
    pub not_before: u64,
}

impl CloneText {
    /// Of one that is kept; none if there was no room for it.
    #[must_use]
    pub fn new(kept: &KeptClone) -> Option<Self> {
        Some(Self {
            number: kept.number?,
            found_ms: kept.found_ms,
            peer: kept.peer.to_string(),
            ours: kept.found.ours,
            writer: format!("{:016x}", kept.found.mark.writer.get()),
            counter: kept.found.mark.counter,
            how: kept.found.sign.word().to_owned(),
            aside: kept.aside,
            left_out: kept.left_out,
            not_before: kept.not_before,
        })
    }
}

/// A put that claims a dot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PutText {
    /// Its key, if that is known.
    #[serde(flatten)]
    pub key: Option<KeyText>,
    /// Hash of its key.
    pub kh: String,
    /// Size of its value in bytes.
    pub size: u64,
    /// Hash of its value.
    pub value_hash: String,
    /// Its stamp.
    pub stamp: String,
}

impl From<&ClaimedPut> for PutText {
    fn from(put: &ClaimedPut) -> Self {
        Self {
            key: put.key.as_ref().map(KeyText::from),
            kh: put.key_hash.to_string(),
            size: put.sibling.size,
            value_hash: put.sibling.value_hash.to_string(),
            stamp: put.sibling.stamp.to_string(),
        }
    }
}

/// A dot that stood for two puts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SameDotText {
    /// When it was found, in milliseconds since 1970; none if an older version found it.
    pub found_ms: Option<u64>,
    /// Id of the peer in whose session, if that is known.
    pub peer: Option<String>,
    /// Writer of the dot.
    pub writer: String,
    /// Counter of the dot.
    pub counter: u64,
    /// The put that stays; none if an older version found it.
    pub kept: Option<PutText>,
    /// The put that made way.
    pub lost: PutText,
    /// Whether that one was held here; then its value is in the history for a time.
    pub lost_here: bool,
}

impl From<&SameDot> for SameDotText {
    fn from(one: &SameDot) -> Self {
        let dot = one.lost.sibling.dot;
        Self {
            found_ms: Some(one.found_ms).filter(|found| *found > 0),
            peer: one.peer.map(|peer| peer.to_string()),
            writer: format!("{:016x}", dot.writer().get()),
            counter: dot.counter(),
            kept: one.kept.as_ref().map(PutText::from),
            lost: PutText::from(&one.lost),
            lost_here: one.lost_here,
        }
    }
}

/// A put that was copied aside.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AsideText {
    /// Its key.
    #[serde(flatten)]
    pub key: KeyText,
    /// What was put, with the bytes of its value if they can be read.
    #[serde(flatten)]
    pub sibling: SiblingText,
}

impl From<&AsideEntry> for AsideText {
    fn from(entry: &AsideEntry) -> Self {
        let sibling = SiblingText::new(&entry.sibling, entry.value.as_deref());
        Self { key: KeyText::from(&entry.key), sibling }
    }
}

/// How much was forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Forgotten {
    /// So many.
    pub forgotten: u64,
}

/// This node's clock is ahead of most peers'.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClockAheadText {
    /// How far, in milliseconds.
    pub ahead_ms: u64,
    /// Ids of the peers that find it so, those that find it least first.
    pub peers: Vec<String>,
    /// Of so many that were heard from lately.
    pub heard: u64,
}

impl From<&ClockAhead> for ClockAheadText {
    fn from(ahead: &ClockAhead) -> Self {
        Self {
            ahead_ms: ahead.ahead_ms,
            peers: ahead.peers.iter().map(ToString::to_string).collect(),
            heard: ahead.heard as u64,
        }
    }
}

/// What is to be put again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RestampRequest {
    /// Whether that of other nodes too.
    pub any: bool,
    /// Whether it is only counted.
    pub dry_run: bool,
}

/// How far a restamp is, or what it did.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RestampedText {
    /// The collection.
    pub collection: String,
    /// Whether all entries were looked at.
    pub complete: bool,
    /// Entries looked at.
    pub entries: u64,
    /// Entries there were.
    pub of_entries: u64,
    /// Versions that were put again, or would be.
    pub restamped: u64,
    /// Versions of other nodes with stamps too far ahead, left as they are.
    pub others: u64,
}

impl RestampedText {
    pub(in crate::api) fn new(collection: &CollectionName, of_entries: u64) -> Self {
        Self { collection: collection.to_string(), of_entries, ..Self::default() }
    }

    pub(in crate::api) const fn count(&mut self, step: &RestampStep) {
        self.entries += step.looked_at;
        self.restamped += step.restamped;
        self.others += step.others;
        self.complete = step.next.is_none();
    }
}

/// A line of a restamp.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestampLine {
    /// Its number, by which it can be stopped; the first line.
    Run(u64),
    /// How far it is; said a few times a second at most.
    Progress(RestampedText),
    /// What it did; the last line.
    Report(RestampedText),
    /// It could not go on; what was put again stays. The last line.
    Problem(Problem),
}
