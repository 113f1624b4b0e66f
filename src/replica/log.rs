//! The change log of an opening: every change of a key, and a Merkle log over them.
//!
//! Each opening of a store starts a new log, at its first change, whose first item is the head of
//! the log before: so a crash or a restored backup never makes two logs of one id.

use crate::hash::{HashAlgorithm, LogHash, LogHead};
use crate::merkle::MerkleLog;
use crate::merkle::log::{LogHeadFields, LogId, LogIdentity, LogKind};
use crate::store::{Batch, Read, Table};
use crate::types::CollectionName;

use super::pages::ReadError;
use super::rows::{CollectionId, Head};

/// The log of the present opening.
#[derive(Clone, Debug)]
pub(super) struct OpenLog {
    identity: LogIdentity,
    merkle: MerkleLog,
}

/// Peaks by height: one for each bit set in the size.
type Peaks = Vec<(u8, LogHash)>;

impl OpenLog {
    pub(super) fn new(algorithm: HashAlgorithm, name: &CollectionName, id: u64) -> Self {
        let merkle = MerkleLog::new(algorithm);
        Self { identity: identity(algorithm, name, id), merkle }
    }

    pub(super) fn append(&mut self, item: &[u8]) {
        self.merkle.append(item);
    }

    pub(super) fn head_fields(&self) -> LogHeadFields {
        self.identity.at(&self.merkle)
    }

    pub(super) fn peaks(&self) -> Peaks {
        heights(self.merkle.size()).zip(self.merkle.peaks().iter().copied()).collect()
    }

    /// Writes the peaks that are not stored yet. A row at a height whose bit is not set in the
    /// size is left over, and nobody reads it.
    pub(super) fn write_peaks(&self, stored: &Peaks, id: CollectionId, batch: &mut Batch) {
        for peak in self.peaks() {
            if !stored.contains(&peak) {
                batch.put(Table::Heads, &id.peak(peak.0), &peak.1.0);
            }
        }
    }

    /// Head of the log that the store knows, which is that of an earlier opening.
    pub(super) fn previous_head(
        store: &impl Read,
        id: CollectionId,
        algorithm: HashAlgorithm,
        name: &CollectionName,
        head: &Head,
    ) -> Result<Option<LogHead>, ReadError> {
        if head.log_id == 0 {
            return Ok(None);
        }
        let size = head.position.saturating_sub(head.log_first).saturating_add(1);
        let mut peaks = Vec::new();
        for height in heights(size) {
            let row = store.get(Table::Heads, &id.peak(height))?;
            let hash = row.and_then(|row| <[u8; 32]>::try_from(&*row).ok());
            peaks.push(LogHash(hash.ok_or_else(|| {
                ReadError::damaged(format!("peak {height} of the change log is missing"))
            })?));
        }
        let merkle = MerkleLog::resume(algorithm, size, peaks)
            .map_err(|error| ReadError::damaged(error.to_string()))?;
        Ok(Some(identity(algorithm, name, head.log_id).at(&merkle).head()))
    }
}

fn identity(algorithm: HashAlgorithm, name: &CollectionName, id: u64) -> LogIdentity {
    LogIdentity { algorithm, kind: LogKind::Changes, id: LogId(id), name: name.clone() }
}

/// The bits set in a size, the greatest first.
fn heights(size: u64) -> impl Iterator<Item = u8> {
    (0..64u8).rev().filter(move |height| (size >> height) & 1 == 1)
}
