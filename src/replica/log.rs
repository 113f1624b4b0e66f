//! The logs of an opening, of changes and of certificates: what is appended to each, under one
//! Merkle log.
//!
//! Each opening of a store starts a new log, with the first item that it appends, whose own first
//! item is the head of the log before: so a crash or a restored backup never makes two logs of one
//! id.

use crate::hash::{HashAlgorithm, LogHash, LogHead};
use crate::merkle::MerkleLog;
use crate::merkle::log::{LogHeadFields, LogId, LogIdentity, LogKind};
use crate::store::{Batch, Read, Table};
use crate::types::{CollectionName, CollectionSpec};

use super::pages::ReadError;
use super::rows::{CollectionId, LogSoFar};

/// The log of the present opening.
#[derive(Clone, Debug)]
pub(super) struct OpenLog {
    identity: LogIdentity,
    merkle: MerkleLog,
}

/// Peaks by height: one for each bit set in the size.
type Peaks = Vec<(u8, LogHash)>;

impl OpenLog {
    pub(super) fn new(kind: LogKind, spec: &CollectionSpec, id: u64) -> Self {
        let merkle = MerkleLog::new(spec.algorithm);
        Self { identity: identity(kind, spec.algorithm, &spec.name, id), merkle }
    }

    pub(super) fn append(&mut self, item: &[u8]) {
        self.merkle.append(item);
    }

    pub(super) fn so_far(&self) -> LogSoFar {
        LogSoFar {
            id: self.identity.id.0,
            size: self.merkle.size(),
            peaks: self.merkle.peaks().to_vec(),
        }
    }

    pub(super) fn head_fields(&self) -> LogHeadFields {
        self.identity.at(&self.merkle)
    }

    pub(super) const fn merkle(&self) -> &MerkleLog {
        &self.merkle
    }

    pub(super) fn peaks(&self) -> Peaks {
        heights(self.merkle.size()).zip(self.merkle.peaks().iter().copied()).collect()
    }

    /// Writes the peaks that are not stored yet. A row at a height whose bit is not set in the
    /// size is left over, and nobody reads it.
    pub(super) fn write_peaks(&self, stored: &Peaks, id: CollectionId, batch: &mut Batch) {
        for peak in self.peaks() {
            if !stored.contains(&peak) {
                batch.put(Table::Heads, &id.peak(self.identity.kind, peak.0), &peak.1.0);
            }
        }
    }

    /// Head of the log that the store knows, which is that of an earlier opening: its id, 0 for
    /// none, and its size.
    pub(super) fn previous_head(
        store: &impl Read,
        id: CollectionId,
        kind: LogKind,
        spec: &CollectionSpec,
        (log_id, size): (u64, u64),
    ) -> Result<Option<LogHead>, ReadError> {
        if log_id == 0 {
            return Ok(None);
        }
        let mut peaks = Vec::new();
        for height in heights(size) {
            let row = store.get(Table::Heads, &id.peak(kind, height))?;
            let hash = row.and_then(|row| <[u8; 32]>::try_from(&*row).ok());
            peaks.push(LogHash(hash.ok_or_else(|| {
                ReadError::damaged(format!("peak {height} of the {} log is missing", name(kind)))
            })?));
        }
        let merkle = MerkleLog::resume(spec.algorithm, size, peaks)
            .map_err(|error| ReadError::damaged(error.to_string()))?;
        let identity = identity(kind, spec.algorithm, &spec.name, log_id);
        Ok(Some(identity.at(&merkle).head()))
    }
}

const fn name(kind: LogKind) -> &'static str {
    match kind {
        LogKind::Changes => "change",
        LogKind::Certificates => "certificate",
    }
}

pub(super) fn identity(
    kind: LogKind,
    algorithm: HashAlgorithm,
    name: &CollectionName,
    id: u64,
) -> LogIdentity {
    LogIdentity { algorithm, kind, id: LogId(id), name: name.clone() }
}

/// The bits set in a size, the greatest first.
fn heights(size: u64) -> impl Iterator<Item = u8> {
    (0..64u8).rev().filter(move |height| (size >> height) & 1 == 1)
}
