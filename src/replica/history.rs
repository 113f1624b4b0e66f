//! Replaced values, kept for a while: what a key was, and bases for deltas.
//!
//! A value stays in its table as long as a sibling or a history row names it. Both the log and
//! the history lose their oldest rows in the commit that exceeds a bound, a bounded number each
//! time.

use crate::hash::{KeyHash, ValueHash};
use crate::limits::Limits;
use crate::store::{Read, Table};

use super::commit::Writing;
use super::pages::ReadError;
use super::rows::{HistoryRow, LogRow, read_entry};

/// Replaced values of this many bytes are kept even in a small collection.
pub(super) const LEAST_HISTORY_BYTES: u64 = 1 << 20;
/// Rows of the log that a commit may walk over to prune, beside two for each that it adds.
const PRUNE_STEPS: u64 = 32;

/// What a history may hold.
pub(super) fn allowed_bytes(limits: &Limits, live_bytes: u64) -> u64 {
    if !is_kept(limits) {
        return 0;
    }
    (live_bytes / 100).saturating_mul(limits.history_percent).max(LEAST_HISTORY_BYTES)
}

/// Whether replaced values are kept at all.
pub(super) const fn is_kept(limits: &Limits) -> bool {
    limits.history_age_ms > 0 && limits.history_percent > 0
}

impl<S: Read> Writing<'_, S> {
    /// Values of a key that no sibling names any more.
    pub(super) fn replace_values(
        &mut self,
        key: &KeyHash,
        replaced: &[(ValueHash, u64)],
        position: u64,
    ) -> Result<(), ReadError> {
        for &(hash, size) in replaced {
            let row = self.id.value(key, &hash);
            if !is_kept(self.limits) || size > self.limits.max_value_bytes {
                self.batch.remove(Table::Values, &row);
                continue;
            }
            let known = self.history_row(&row)?;
            self.head.history_bytes = self
                .head
                .history_bytes
                .saturating_sub(known.map_or(0, |known| known.size))
                .saturating_add(size);
            let history = HistoryRow { position, at_ms: self.now_ms, size };
            self.batch.put(Table::History, &row, &history.to_row());
            self.history.insert(row, history);
        }
        Ok(())
    }

    fn history_row(&self, key: &[u8]) -> Result<Option<HistoryRow>, ReadError> {
        if let Some(row) = self.history.get(key) {
            return Ok(Some(*row));
        }
        // log and history are aids: a row that rotted is none, and must not stop a put
        let row = self.store.get(Table::History, key)?;
        Ok(row.and_then(|row| HistoryRow::parse(&row).ok()))
    }

    /// Drops what exceeds a bound: oldest first, a bounded number of rows.
    pub(super) fn prune(&mut self, live_bytes: u64, changes: u64) -> Result<(), ReadError> {
        let allowed = allowed_bytes(self.limits, live_bytes);
        let first_kept = self.head.position.saturating_sub(self.limits.removal_log_entries) + 1;
        let mut steps = PRUNE_STEPS.saturating_add(changes.saturating_mul(2));
        // what this commit adds is not in the store yet
        while steps > 0 && self.head.history_floor < self.first_new {
            steps -= 1;
            let position = self.head.history_floor;
            let Some(row) = self.log_row(position)? else {
                self.head.history_floor += 1;
                continue;
            };
            let old = row.at_ms().saturating_add(self.limits.history_age_ms) < self.now_ms;
            if !old && position >= first_kept && self.head.history_bytes <= allowed {
                break;
            }
            self.forget_replaced(position, &row)?;
            self.head.history_floor += 1;
        }
        while steps > 0 && self.head.log_floor < first_kept.min(self.head.history_floor) {
            steps -= 1;
            self.batch.remove(Table::Log, &self.id.log(self.head.log_floor));
            self.head.log_floor += 1;
        }
        Ok(())
    }

    fn log_row(&self, position: u64) -> Result<Option<LogRow>, ReadError> {
        let row = self.store.get(Table::Log, &self.id.log(position))?;
        Ok(row.and_then(|row| LogRow::parse(&row).ok()))
    }

    fn forget_replaced(&mut self, position: u64, row: &LogRow) -> Result<(), ReadError> {
        let LogRow::Change { key, replaced, .. } = row else { return Ok(()) };
        for hash in replaced {
            let row = self.id.value(key, hash);
            // replaced once more since: that is for a later position to forget
            let Some(known) = self.history_row(&row)?.filter(|known| known.position == position)
            else {
                continue;
            };
            self.batch.remove(Table::History, &row);
            self.head.history_bytes = self.head.history_bytes.saturating_sub(known.size);
            if !self.is_live(key, hash)? {
                self.batch.remove(Table::Values, &row);
            }
        }
        Ok(())
    }

    fn is_live(&self, key: &KeyHash, hash: &ValueHash) -> Result<bool, ReadError> {
        let named = |siblings: &[crate::entry::Sibling]| {
            siblings.iter().any(|sibling| sibling.value_hash == *hash)
        };
        if let Some(record) = self.records.get(key) {
            return Ok(record.as_ref().is_some_and(|record| named(record.siblings())));
        }
        let Some(row) = self.store.get(Table::Entries, &self.id.entry(key))? else {
            return Ok(false);
        };
        // of an entry that rotted nobody can say: what it may name stays
        Ok(read_entry(&row).map_or(true, |entry| named(entry.record.siblings())))
    }
}
