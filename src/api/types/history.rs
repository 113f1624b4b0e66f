//! What a key was, as it travels.

use serde::{Deserialize, Serialize};

use super::{KeyText, SiblingText};
use crate::replica::{Past, Reach, Replaced};
use crate::types::Key;

/// What a key is and was.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HistoryText {
    /// The key.
    #[serde(flatten)]
    pub key: KeyText,
    /// The versions held now, the latest first.
    pub held: Vec<SiblingText>,
    /// Values that were replaced or deleted, the latest first.
    pub replaced: Vec<ReplacedText>,
    /// Whether more was replaced than is listed.
    pub more: bool,
    /// How far back the list can reach.
    pub reach: ReachText,
    /// What was replaced before this was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
}

impl HistoryText {
    /// Of a key.
    #[must_use]
    pub fn new(key: &Key, past: &Past) -> Self {
        let (reach, since_ms) = match past.reach {
            Reach::All => (ReachText::All, None),
            Reach::Since(at_ms) => (ReachText::Since, Some(at_ms)),
            Reach::Nothing => (ReachText::Nothing, None),
        };
        Self {
            key: KeyText::from(key),
            held: past.held.iter().map(SiblingText::from).collect(),
            replaced: past.replaced.iter().map(ReplacedText::from).collect(),
            more: past.more,
            reach,
            since_ms,
        }
    }
}

/// How far back a history reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReachText {
    /// Nothing was dropped yet.
    All,
    /// Older than a time was dropped.
    Since,
    /// All was dropped, or nothing is kept.
    Nothing,
}

/// A value that was replaced or deleted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplacedText {
    /// When, in milliseconds since 1970, by this node's clock.
    pub replaced_ms: u64,
    /// Whether nothing was held under the key after that.
    pub deleted: bool,
    /// Bytes of the value.
    pub size: u64,
    /// Its hash.
    pub value_hash: String,
    /// Whether its bytes can still be read.
    pub kept: bool,
}

impl From<&Replaced> for ReplacedText {
    fn from(replaced: &Replaced) -> Self {
        Self {
            replaced_ms: replaced.at_ms,
            deleted: replaced.deleted,
            size: replaced.size,
            value_hash: replaced.value_hash.to_string(),
            kept: replaced.kept,
        }
    }
}
