//! Making a backup of a snapshot: of all of it, or of what changed since an earlier one.

use std::io::Write;

use crate::backup::{
    BackupError, BackupHead, BackupSummary, BackupWriter, Base, LogPlace, SinceError,
};
use crate::hash::KeyHash;
use crate::store::Store;
use crate::types::NodeId;

use super::rows::{Head, LogRow, key_tail};
use super::snapshot::Snapshot;
use super::view::{CollectionView, Entry, ViewError};

/// Entries read at once.
const CHUNK: usize = 256;
/// Rows of the log read at once.
const LOG_CHUNK: u64 = 1_024;

/// A backup that could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotBackedUp {
    /// The snapshot could not be read.
    #[error(transparent)]
    View(#[from] ViewError),
    /// It could not be written, or nobody knows what changed since its base.
    #[error(transparent)]
    Backup(#[from] BackupError),
}

impl Head {
    const fn place(&self) -> LogPlace {
        LogPlace {
            epoch: self.epoch,
            log_id: self.log_id,
            log_first: self.log_first,
            position: self.position,
        }
    }
}

impl<S: Store> Snapshot<S> {
    /// The head of a backup of this moment, and the keys that it is about, if it is a part: those
    /// that changed since its base, ascending.
    ///
    /// Holds 32 bytes for each row of the change log since the base, of which there are as many
    /// as `removal_log_entries` allows.
    ///
    /// # Errors
    /// The change log does not reach back to the base, or is not the one that the base was made
    /// with.
    pub fn backup_head(
        &self,
        node: NodeId,
        taken_ms: u64,
        base: Option<&BackupHead>,
    ) -> Result<(BackupHead, Option<Vec<KeyHash>>), NotBackedUp> {
        let context = self.context_hash().map_err(BackupError::from)?;
        let mut head = BackupHead::full(node, taken_ms, self.envelope().clone(), context);
        head.log = self.head.place();
        let Some(base) = base else { return Ok((head, None)) };
        let keys = match self.changed_since(base)? {
            Ok(keys) => keys,
            Err(why) => {
                let collection = self.spec().name.clone();
                return Err(BackupError::NotSince { collection, why }.into());
            }
        };
        head.base = Some(Base { position: base.log.position, state: base.state() });
        Ok((head, Some(keys)))
    }

    /// Writes a backup of this moment: a full one, or of these keys, which are those of its
    /// [head](Self::backup_head). What is written meanwhile is not in it. Whoever wants it to end
    /// early lets the output fail.
    ///
    /// Holds some entries, a value and a block at a time.
    ///
    /// # Errors
    /// An entry is damaged: then there would be no root. A value whose bytes are lost is no error,
    /// but counted as missing.
    pub fn back_up<W: Write>(
        &self,
        head: &BackupHead,
        keys: Option<&[KeyHash]>,
        output: W,
    ) -> Result<(W, BackupSummary), NotBackedUp> {
        let mut writer = BackupWriter::begin(output, head, self.causality())?;
        match keys {
            None => {
                let mut last = None;
                loop {
                    let entries = self.entries_after(last.as_ref(), CHUNK, |_| true)?;
                    let Some(entry) = entries.last() else { break };
                    last = Some(self.spec().algorithm.key_hash(&entry.key));
                    for entry in &entries {
                        self.back_up_entry(entry, &mut writer)?;
                    }
                }
            }
            Some(keys) => {
                for key in keys {
                    match self.entry(key)? {
                        Some(entry) => self.back_up_entry(&entry, &mut writer)?,
                        None => writer.gone(key)?,
                    }
                }
            }
        }
        Ok(writer.finish()?)
    }

    fn back_up_entry<W: Write>(
        &self,
        entry: &Entry,
        writer: &mut BackupWriter<W>,
    ) -> Result<(), NotBackedUp> {
        let key_hash = self.spec().algorithm.key_hash(&entry.key);
        writer.held(&entry.key, &entry.record)?;
        let mut written = std::collections::BTreeSet::new();
        for sibling in entry.record.siblings() {
            if written.insert(sibling.value_hash) {
                let value = self.value(&key_hash, &sibling.value_hash)?;
                let value = value.filter(|value| value.len() as u64 == sibling.size);
                writer.value(value.as_deref())?;
            }
        }
        Ok(())
    }

    /// The keys that changed since a backup, ascending; or why nobody knows.
    fn changed_since(
        &self,
        base: &BackupHead,
    ) -> Result<Result<Vec<KeyHash>, SinceError>, ViewError> {
        if let Some(why) = self.is_not_since(base)? {
            return Ok(Err(why));
        }
        let mut keys = Vec::new();
        let mut position = base.log.position;
        while position < self.head.position {
            let last = self.head.position.min(position.saturating_add(LOG_CHUNK));
            for row in self.log_rows(position, last)? {
                position += 1;
                let at = key_tail(&row.key).map(u64::from_be_bytes);
                match LogRow::parse(&row.value) {
                    Ok(parsed) if at == Ok(position) => {
                        if let LogRow::Change { key, .. } = parsed {
                            keys.push(key);
                        }
                    }
                    _ => return Ok(Err(SinceError::Hole(position))),
                }
            }
            if position < last {
                return Ok(Err(SinceError::Hole(position + 1)));
            }
        }
        keys.sort_unstable();
        keys.dedup();
        Ok(Ok(keys))
    }

    /// Why the base is no earlier moment of this very store, or the log does not reach back to it.
    ///
    /// A position means a moment only within the log of one opening, whose id is random: a store
    /// that was set back goes on with another. So the opening of the base must be in the log, and
    /// no later one at or before its position.
    fn is_not_since(&self, base: &BackupHead) -> Result<Option<SinceError>, ViewError> {
        let (now, then) = (self.head.place(), base.log);
        if base.spec() != self.spec() {
            return Ok(Some(SinceError::Collection));
        }
        if now.epoch != then.epoch {
            return Ok(Some(SinceError::Epoch));
        }
        if then.position > now.position {
            return Ok(Some(SinceError::Log));
        }
        let (floor, position) = (self.head.log_floor, then.position);
        if position.saturating_add(1) < floor {
            return Ok(Some(SinceError::Pruned { floor, position }));
        }
        let same_log = (now.log_id, now.log_first) == (then.log_id, then.log_first);
        if same_log || then.log_id == 0 && position == 0 {
            return Ok(None);
        }
        if then.log_id == 0 || then.log_first == 0 || then.log_first > position {
            return Ok(Some(SinceError::Log));
        }
        if then.log_first < floor {
            return Ok(Some(SinceError::Pruned { floor, position: then.log_first }));
        }
        let mut at = then.log_first - 1;
        while at < position {
            let last = position.min(at.saturating_add(LOG_CHUNK));
            for row in self.log_rows(at, last)? {
                at += 1;
                let opening = match LogRow::parse(&row.value) {
                    Ok(LogRow::Opening { id, .. }) => Some(id),
                    Ok(LogRow::Change { .. }) => None,
                    Err(_) => return Ok(Some(SinceError::Hole(at))),
                };
                let expected = (at == then.log_first).then_some(then.log_id);
                if opening != expected {
                    return Ok(Some(SinceError::Log));
                }
            }
            if at < last {
                return Ok(Some(SinceError::Hole(at + 1)));
            }
        }
        Ok(None)
    }
}
