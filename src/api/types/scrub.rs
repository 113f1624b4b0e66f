//! Scrubs, as they travel.

use serde::{Deserialize, Serialize};

use crate::api::error::Problem;
use crate::replica::{Rot, ScrubProgress, ScrubReport};
use crate::types::CollectionName;

/// How a collection is to be scrubbed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScrubRequest {
    /// Most bytes read in a second; none: as fast as may be.
    pub bytes_per_s: Option<u64>,
}

/// What is known of the scrubs of a collection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ScrubState {
    /// The one that is not over.
    pub running: Option<ScrubText>,
    /// When the last one ended, in milliseconds since 1970.
    pub last_ended_ms: Option<u64>,
    /// What the last one found.
    pub last_found: u64,
    /// What of it was mended on the spot.
    pub last_mended: u64,
    /// Entries that are rotten now: a peer has to give them back.
    pub rotten_entries: u64,
    /// Values whose bytes are lost now: a peer has to give them back.
    pub lost_values: u64,
}

impl ScrubState {
    /// Of a collection with so many entries, and bytes of values.
    #[must_use]
    pub fn new(report: &ScrubReport, entries: u64, bytes: u64) -> Self {
        let last = report.last.unwrap_or_default();
        Self {
            running: report.running.map(|running| ScrubText::new(&running, entries, bytes)),
            last_ended_ms: report.last_ended_ms,
            last_found: last.found,
            last_mended: last.mended,
            rotten_entries: report.rotten_entries,
            lost_values: report.lost_values,
        }
    }
}

/// How far a scrub is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ScrubText {
    /// When it began, in milliseconds since 1970.
    pub begun_ms: u64,
    /// Entries read.
    pub entries: u64,
    /// Entries there are.
    pub of_entries: u64,
    /// Bytes of values read.
    pub bytes: u64,
    /// Bytes of values there are.
    pub of_bytes: u64,
    /// What was found.
    pub found: u64,
    /// What of it was mended on the spot.
    pub mended: u64,
}

impl ScrubText {
    /// Of so many entries, and bytes of values.
    #[must_use]
    pub const fn new(progress: &ScrubProgress, of_entries: u64, of_bytes: u64) -> Self {
        let ScrubProgress { begun_ms, entries, bytes, found, mended, .. } = *progress;
        Self { begun_ms, entries, of_entries, bytes, of_bytes, found, mended }
    }
}

/// Something that does not fit together on disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RotText {
    /// `head`, `entry`, `value`, `page`, `dot` or `log`.
    pub kind: String,
    /// Hash of the key that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kh: Option<String>,
    /// Hash of the value, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_hash: Option<String>,
    /// What is wrong.
    pub what: String,
    /// Whether it is mended.
    pub mended: bool,
}

impl From<&Rot> for RotText {
    fn from(rot: &Rot) -> Self {
        Self {
            kind: rot.kind.word().to_owned(),
            kh: rot.key.map(|key| key.to_string()),
            value_hash: rot.value.map(|hash| hash.to_string()),
            what: rot.what.clone(),
            mended: rot.mended,
        }
    }
}

/// What a scrub did.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ScrubbedText {
    /// The collection.
    pub collection: String,
    /// Whether all was read; else the next one goes on.
    pub complete: bool,
    /// Entries read, since the scrub began.
    pub entries: u64,
    /// Bytes of values read.
    pub bytes: u64,
    /// What was found while somebody listened here.
    pub found: u64,
    /// What of it was mended on the spot.
    pub mended: u64,
    /// What was found and a peer cannot help with: a recovery has to.
    pub to_recover: u64,
    /// Entries that are rotten now: a peer has to give them back.
    pub rotten_entries: u64,
    /// Values whose bytes are lost now: a peer has to give them back.
    pub lost_values: u64,
}

impl ScrubbedText {
    pub(in crate::api) fn new(collection: &CollectionName) -> Self {
        Self { collection: collection.to_string(), ..Self::default() }
    }

    pub(in crate::api) fn count(&mut self, progress: &ScrubProgress, found: &[Rot]) {
        (self.entries, self.bytes) = (progress.entries, progress.bytes);
        for rot in found {
            self.found += 1;
            self.mended += u64::from(rot.mended);
            self.to_recover += u64::from(!rot.mended && rot.is_structure());
        }
    }

    /// Whether nothing is left that is damaged.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.to_recover == 0 && self.rotten_entries == 0 && self.lost_values == 0
    }
}

/// A line of a scrub.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScrubLine {
    /// Its number, by which it can be stopped; the first line.
    Run(u64),
    /// How far it is; said a few times a second at most.
    Progress(ScrubText),
    /// Something was found.
    Rot(RotText),
    /// What it did; the last line.
    Report(ScrubbedText),
    /// It could not go on; the last line.
    Problem(Problem),
}
