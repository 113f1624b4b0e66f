//! Restores, as they travel.

use serde::{Deserialize, Serialize};

use crate::replica::Restored;

/// What was restored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RestoredText {
    /// The collection.
    pub collection: String,
    /// Its root.
    pub root: String,
    /// Entries that it has.
    pub entries: u64,
    /// Bytes of all versions.
    pub bytes: u64,
    /// Values whose bytes were lost when the backup was made: peers give them back.
    pub missing_values: u64,
    /// The node that made the backup.
    pub node: String,
    /// When it was made, by that node's clock, in milliseconds since 1970.
    pub taken_ms: u64,
    /// Whether there was a collection of this name, which is gone.
    pub replaced: bool,
}

impl From<&Restored> for RestoredText {
    fn from(restored: &Restored) -> Self {
        Self {
            collection: restored.name.to_string(),
            root: restored.root.to_string(),
            entries: restored.entries,
            bytes: restored.bytes,
            missing_values: restored.missing,
            node: restored.node.to_string(),
            taken_ms: restored.taken_ms,
            replaced: restored.replaced,
        }
    }
}
