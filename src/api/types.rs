//! What travels as JSON: questions and answers of the control API.
//!
//! Digests and the lines of entries are stable interfaces: fields are added at most. In what is
//! asked, an unknown field is an error.
//!
//! ```
//! use selfsame::api::types::{Direction, SyncRequest};
//!
//! let request: SyncRequest = serde_json::from_str(r#"{"peer":"berlin","direction":"pull"}"#)?;
//! assert_eq!(request.direction, Direction::Pull);
//! assert!(serde_json::from_str::<SyncRequest>(r#"{"peer":"berlin","way":"pull"}"#).is_err());
//! # Ok::<(), serde_json::Error>(())
//! ```

mod backup;
mod certificate;
mod clone;
mod conflict;
mod history;
mod incident;
mod metrics;
mod scrub;
mod session;

pub use backup::RestoredText;
pub use certificate::{
    Accepted, AgreementText, CertificateAnswer, CertificateList, CertificateQuery, CertificateText,
    DistrustText, EvidenceList, EvidenceText, SeenLogText,
};
pub use clone::{
    AsideText, ClockAheadText, CloneText, ClonesText, Forgotten, PutText, RestampLine,
    RestampRequest, RestampedText, SameDotText,
};
pub use conflict::{ConflictSibling, ConflictText, MergedText, ReadToken, preview};
pub use history::{HistoryText, ReachText, ReplacedText};
pub use incident::{IncidentText, ReportList, ReportText};
pub use metrics::{MetricFigure, MetricList, MetricNumber, MetricSample, MetricText};
pub use scrub::{RotText, ScrubLine, ScrubRequest, ScrubState, ScrubText, ScrubbedText};
pub use session::{
    DifferenceText, DigestComparison, Direction, How, Moved, PeerRequest, PhaseText, PlanText,
    RefusedText, Report, Saves, SyncLine, SyncRequest,
};

use serde::{Deserialize, Serialize};

use super::error::ApiError;
use crate::clock::Stamp;
use crate::dots::Dot;
use crate::entry::{Record, Sibling};
use crate::hash::{HashAlgorithm, ValueHash};
use crate::merkle::Digest;
use crate::node::counts::TrustCounts;
use crate::node::status::{RunningSession, SessionEnd, Status};
use crate::replica::{CheckReport, Entry, Recovered, Version};
use crate::types::{CollectionName, CollectionSpec, Key, Policy, TypeError};

/// What answers here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeInfo {
    /// The node's id.
    pub id: String,
    /// Version of the program.
    pub version: String,
    /// The process.
    pub process: u32,
    /// The node's hybrid clock.
    pub clock: String,
    /// Most bytes of a value.
    pub max_value_bytes: u64,
    /// Most differences that one session looks at.
    pub max_session_entries: u64,
}

/// How a node is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StatusText {
    /// What answers.
    #[serde(flatten)]
    pub node: NodeInfo,
    /// Its collections.
    #[serde(flatten)]
    pub collections: CollectionList,
    /// What it has last certified with each peer.
    #[serde(default)]
    pub agreements: Vec<AgreementText>,
    /// With whom it has no sessions over what, since they have contradicted themselves.
    #[serde(default)]
    pub distrusted: Vec<DistrustText>,
    /// Why local puts are refused: most peers find this node's clock ahead.
    #[serde(default)]
    pub clock_ahead: Option<ClockAheadText>,
    /// What was counted since the process began of what a person should look at.
    #[serde(default)]
    pub trust: TrustCounts,
    /// What its daemon knows; none if no daemon runs.
    pub daemon: Option<Status>,
}

/// Sessions of a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionList {
    /// Those that run.
    pub running: Vec<RunningSession>,
    /// The last that have ended, the latest last.
    pub recent: Vec<SessionEnd>,
}

/// What came of reading the settings again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reloaded {
    /// Peers in the book now.
    pub peers: u64,
    /// Settings that only a start anew takes over.
    pub needs_restart: Vec<String>,
}

/// All collections of a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CollectionList {
    /// Those that are known.
    pub collections: Vec<CollectionInfo>,
    /// Rows of the list of collections that cannot be read.
    pub damaged_rows: Vec<DamagedRow>,
}

/// A row of the list of collections that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DamagedRow {
    /// Whose it is, if that much is known.
    pub collection: Option<String>,
    /// What is wrong with it.
    pub damage: String,
}

/// A policy: its name, or its resolver and version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PolicyName {
    /// One of the built-in ones.
    Named(String),
    /// A custom one.
    Custom {
        /// Name of the resolver.
        resolver: String,
        /// Its version.
        version: u32,
    },
}

impl From<&Policy> for PolicyName {
    fn from(policy: &Policy) -> Self {
        match policy {
            Policy::Custom { resolver, version } => {
                Self::Custom { resolver: resolver.to_string(), version: *version }
            }
            named => Self::Named(named.to_string()),
        }
    }
}

impl TryFrom<&PolicyName> for Policy {
    type Error = TypeError;

    fn try_from(name: &PolicyName) -> Result<Self, TypeError> {
        match name {
            PolicyName::Named(name) => name.parse(),
            PolicyName::Custom { resolver, version } => {
                let resolver = CollectionName::new(resolver.clone())?;
                Ok(Self::Custom { resolver, version: *version })
            }
        }
    }
}

impl std::fmt::Display for PolicyName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Named(name) => f.pad(name),
            Self::Custom { resolver, version } => f.pad(&format!("{resolver}@{version}")),
        }
    }
}

/// Settings of a collection to be created.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NewCollection {
    /// How concurrent versions are read.
    pub policy: String,
    /// The hash algorithm.
    pub hash_algorithm: String,
}

impl Default for NewCollection {
    fn default() -> Self {
        let (policy, hash_algorithm) = (Policy::default(), HashAlgorithm::default());
        Self { policy: policy.to_string(), hash_algorithm: hash_algorithm.to_string() }
    }
}

impl NewCollection {
    pub(super) fn spec(&self, name: CollectionName) -> Result<CollectionSpec, ApiError> {
        let algorithm = self.hash_algorithm.parse::<HashAlgorithm>();
        let algorithm = algorithm.map_err(|error| ApiError::Request(error.to_string()))?;
        Ok(CollectionSpec { name, algorithm, policy: self.policy.parse()? })
    }
}

/// A collection; of one that is damaged, only its settings and the damage.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CollectionInfo {
    /// Its name.
    pub collection: String,
    /// Its hash algorithm.
    pub hash_algorithm: String,
    /// Its policy.
    pub policy: PolicyName,
    /// What does not fit together on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
    /// What is wrong with its resolver: this node does not know it, or it is not deterministic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver_fault: Option<String>,
    /// Keys held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
    /// Versions held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub siblings: Option<u64>,
    /// Bytes of all values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Its root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// What is known of its scrubs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scrub: Option<ScrubState>,
}

/// The answer to a creation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Created {
    /// The collection.
    #[serde(flatten)]
    pub collection: CollectionInfo,
    /// Whether it was there already, with the same settings.
    pub existed: bool,
}

/// A key: as text where it is text, else in hex.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyText {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_hex: Option<String>,
}

impl From<&Key> for KeyText {
    fn from(key: &Key) -> Self {
        match std::str::from_utf8(key.as_bytes()) {
            Ok(text) => Self { key: Some(text.to_owned()), key_hex: None },
            Err(_) => Self { key: None, key_hex: Some(hex::encode(key.as_bytes())) },
        }
    }
}

impl KeyText {
    /// The key; none if this is the text of none.
    #[must_use]
    pub fn key(&self) -> Option<Key> {
        let asked = KeyQuery { key: self.key.clone(), key_hex: self.key_hex.clone() };
        asked.key().ok()
    }
}

/// A key in a query: `key=player:17` or `key_hex=00ff`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyQuery {
    key: Option<String>,
    key_hex: Option<String>,
}

impl KeyQuery {
    /// A key as text, or in hex.
    #[must_use]
    pub const fn new(key: Option<String>, key_hex: Option<String>) -> Self {
        Self { key, key_hex }
    }

    /// The key.
    ///
    /// # Errors
    /// Neither or both are given, or it is no key.
    pub fn key(self) -> Result<Key, ApiError> {
        match (self.key, self.key_hex) {
            (Some(text), None) => Ok(Key::new(text)?),
            (None, Some(text)) => Ok(Key::new(from_hex(&text, "key_hex")?)?),
            _ => Err(ApiError::Request("it must have either key or key_hex".into())),
        }
    }
}

pub(super) fn from_hex(text: &str, name: &str) -> Result<Vec<u8>, ApiError> {
    hex::decode(text).map_err(|error| ApiError::Request(format!("{name} is not hex: {error}")))
}

/// A version of a value, without its bytes or with them in hex.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SiblingText {
    writer: String,
    counter: u64,
    stamp: String,
    size: u64,
    value_hash: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
}

impl SiblingText {
    /// A sibling, with the bytes of its value where they are given.
    #[must_use]
    pub fn new(sibling: &Sibling, value: Option<&[u8]>) -> Self {
        Self {
            writer: format!("{:016x}", sibling.dot.writer().get()),
            counter: sibling.dot.counter(),
            stamp: sibling.stamp.to_string(),
            size: sibling.size,
            value_hash: sibling.value_hash.to_string(),
            value_hex: value.map(hex::encode),
        }
    }

    /// The sibling; none if this is the text of none.
    #[must_use]
    pub fn sibling(&self) -> Option<Sibling> {
        let writer = u64::from_str_radix(&self.writer, 16).ok()?;
        Some(Sibling {
            dot: Dot::new(writer, self.counter)?,
            stamp: Stamp(self.stamp.parse().ok()?),
            size: self.size,
            value_hash: self.value_hash.parse::<ValueHash>().ok()?,
        })
    }
}

impl From<&Sibling> for SiblingText {
    fn from(sibling: &Sibling) -> Self {
        Self::new(sibling, None)
    }
}

/// An entry without its values, or with them in hex: a line of a dump.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EntryLine {
    /// The key, in hex.
    pub key_hex: String,
    /// Its versions.
    pub siblings: Vec<SiblingText>,
}

impl From<&Entry> for EntryLine {
    fn from(entry: &Entry) -> Self {
        let siblings = entry.record.siblings().iter().map(SiblingText::from).collect();
        Self { key_hex: hex::encode(entry.key.as_bytes()), siblings }
    }
}

impl EntryLine {
    /// The entry; none if this is the text of none.
    #[must_use]
    pub fn entry(&self) -> Option<Entry> {
        let siblings = self.siblings.iter().map(SiblingText::sibling).collect::<Option<_>>()?;
        let key = Key::new(hex::decode(&self.key_hex).ok()?).ok()?;
        Some(Entry { key, record: Record::new(siblings).ok()? })
    }
}

/// What a collection's policy shows of a key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReadingText {
    /// The key.
    #[serde(flatten)]
    pub key: KeyText,
    /// Whether concurrent versions with different values are held.
    pub conflict: bool,
    /// Which versions are held: to be named when what was read is to be replaced, and only that.
    pub read: ReadToken,
    /// The versions, the latest first.
    pub versions: Vec<VersionText>,
    /// What the collection's resolver makes of several versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged: Option<MergedText>,
}

/// A version with its value: as text where it is text, else in hex.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VersionText {
    /// The version.
    #[serde(flatten)]
    pub sibling: SiblingText,
    /// The value, if it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

impl From<&Version> for VersionText {
    fn from(version: &Version) -> Self {
        let bytes = version.value.as_deref();
        let text = bytes.and_then(|bytes| std::str::from_utf8(bytes).ok());
        let hex = if text.is_some() { None } else { bytes };
        let sibling = SiblingText::new(&version.sibling, hex);
        Self { sibling, value: text.map(str::to_owned) }
    }
}

/// The answer to a put.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Written {
    /// The version written.
    #[serde(flatten)]
    pub sibling: SiblingText,
    /// The root after it.
    pub root: String,
}

/// The answer to a delete.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Removed {
    /// Versions removed.
    pub removed: u64,
    /// The root after it.
    pub root: String,
}

/// The answer to a batch of entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Imported {
    /// Entries written.
    pub written: u64,
    /// Entries that already had just this value.
    pub unchanged: u64,
}

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Check {
    /// Whether all is well.
    pub sound: bool,
    /// Entries read and hashed.
    pub entries: u64,
    /// Bytes of values read and hashed.
    pub bytes: u64,
    /// What does not fit together.
    pub problems: Vec<String>,
    /// Values whose bytes are lost.
    pub missing_values: Vec<MissingValue>,
}

/// A value whose bytes are lost.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MissingValue {
    /// Hash of the key.
    pub kh: String,
    /// Hash of the value.
    pub value_hash: String,
}

impl From<&CheckReport> for Check {
    fn from(report: &CheckReport) -> Self {
        let missing = report.missing_values.iter().map(|(key, value)| MissingValue {
            kh: key.to_string(),
            value_hash: value.to_string(),
        });
        Self {
            sound: report.is_sound(),
            entries: report.entries,
            bytes: report.bytes,
            problems: report.problems.clone(),
            missing_values: missing.collect(),
        }
    }
}

/// How a collection is to be recovered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecoverRequest {
    /// Even if it is sound.
    pub force: bool,
}

/// The answer to a recovery.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Recovery {
    /// What was found before it.
    pub check: Check,
    /// Whether the collection's row in the list of collections was damaged, and is written again.
    #[serde(default)]
    pub row_written: bool,
    /// What was mended on the spot, without a recovery.
    #[serde(default)]
    pub mended: u64,
    /// What it kept; none if only values were lost, which it cannot bring back, or all could be
    /// mended.
    pub recovered: Option<Kept>,
}

/// What a recovery kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// Entries that survived.
    pub entries: u64,
    /// Entries whose rows could not be read.
    pub lost: u64,
}

impl From<Recovered> for Kept {
    fn from(recovered: Recovered) -> Self {
        Self { entries: recovered.entries, lost: recovered.lost }
    }
}

/// A digest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DigestText {
    /// Name of the collection.
    pub collection: String,
    /// Its hash algorithm.
    pub hash_algorithm: String,
    /// Its policy.
    pub policy: PolicyName,
    /// Its root, which binds all fields before the clock.
    pub root: String,
    /// Hash of the tree.
    pub tree_hash: String,
    /// Keys held.
    pub entries: u64,
    /// Versions held.
    pub siblings: u64,
    /// Bytes of all values.
    pub bytes: u64,
    /// The latest stamp of all versions.
    pub latest_stamp: String,
    /// The node's hybrid clock.
    pub clock: String,
    /// Hashes of the 256 buckets.
    pub buckets: Vec<String>,
}

impl DigestText {
    /// A digest as it was at this clock.
    #[must_use]
    pub fn new(digest: &Digest, clock: Stamp) -> Self {
        let envelope = digest.envelope();
        let totals = envelope.totals();
        Self {
            collection: envelope.name().to_string(),
            hash_algorithm: envelope.algorithm().to_string(),
            policy: PolicyName::from(envelope.policy()),
            root: envelope.root().to_string(),
            tree_hash: envelope.tree_hash().to_string(),
            entries: totals.entries,
            siblings: totals.siblings,
            bytes: totals.bytes,
            latest_stamp: totals.latest.to_string(),
            clock: clock.to_string(),
            buckets: digest.buckets().iter().map(ToString::to_string).collect(),
        }
    }

    /// Whether both are of collections with the same name, policy and hash.
    #[must_use]
    pub fn same_settings(&self, other: &Self) -> bool {
        (&self.collection, &self.hash_algorithm, &self.policy)
            == (&other.collection, &other.hash_algorithm, &other.policy)
    }
}
