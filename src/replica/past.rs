//! What a key was: the versions held now, and the values that were replaced or deleted and whose
//! bytes can still be read.

use crate::entry::Sibling;
use crate::hash::{KeyHash, ValueHash};
use crate::limits::Limits;
use crate::store::{Read, Span, Store, Table};
use crate::types::Key;

use super::ReplicaError;
use super::collection::Collection;
use super::history;
use super::pages::ReadError;
use super::rows::{HistoryRow, LogRow, key_tail};
use super::snapshot::Snapshot;
use super::view::{CollectionView as _, ViewError};

/// History rows of one key that are looked at to find the newest.
const HISTORY_SCAN: usize = 4_096;

/// A value that no sibling of its key has any more.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Replaced {
    /// When it was replaced here the last time, by this node's clock in milliseconds: its own
    /// put or delete, or a session that brought one.
    pub at_ms: u64,
    /// Hash of the value.
    pub value_hash: ValueHash,
    /// Bytes of the value.
    pub size: u64,
    /// Whether nothing was held under the key after that change: it was a delete.
    pub deleted: bool,
    /// Whether its bytes can still be read.
    pub kept: bool,
}

/// How far back the history of a collection reaches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reach {
    /// Nothing was dropped yet.
    All,
    /// What was replaced before this time, in milliseconds, was dropped.
    Since(u64),
    /// All that was replaced so far was dropped, or nothing is kept by the limits.
    Nothing,
}

/// What a key is and was.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Past {
    /// The siblings held now, the latest first.
    pub held: Vec<Sibling>,
    /// What was replaced, the latest first; each value once.
    pub replaced: Vec<Replaced>,
    /// Whether more was replaced than is listed.
    pub more: bool,
    /// How far back the list can reach.
    pub reach: Reach,
}

impl<S: Store> Collection<S> {
    /// What a key is and was; at most `limit` replaced values. Costs a range scan over the
    /// replaced values of the key, of at most 4,096 rows.
    ///
    /// # Errors
    /// The store failed, or the entry is damaged.
    pub fn past(&self, key: &Key, limit: usize) -> Result<Past, ReplicaError> {
        let past = self.snapshot()?.past(&self.key_hash(key), limit);
        let mut past =
            past.map_err(|error| ReplicaError::View(self.spec.name.to_string(), error))?;
        if !history::is_kept(&self.node.limits) {
            past.reach = Reach::Nothing;
        }
        Ok(past)
    }

    /// Limits under which it works.
    pub fn limits(&self) -> &Limits {
        &self.node.limits
    }
}

impl<S: Store> Snapshot<S> {
    /// Values of a key that were replaced and can still be read: when, and which; the latest
    /// first.
    ///
    /// # Errors
    /// The store failed.
    pub fn history(&self, key: &KeyHash, limit: usize) -> Result<Vec<(u64, ValueHash)>, ViewError> {
        let (mut rows, _) = self.history_rows(key)?;
        rows.truncate(limit);
        Ok(rows.into_iter().map(|(hash, row)| (row.at_ms, hash)).collect())
    }

    /// What a key is and was.
    ///
    /// # Errors
    /// The store failed, or the entry is damaged.
    pub fn past(&self, key: &KeyHash, limit: usize) -> Result<Past, ViewError> {
        let mut held: Vec<Sibling> =
            self.entry(key)?.map(|entry| entry.record.siblings().to_vec()).unwrap_or_default();
        held.sort_unstable_by_key(|sibling| std::cmp::Reverse((sibling.stamp, sibling.dot)));
        let (rows, cut) = self.history_rows(key)?;
        // one that is held again is no past
        let is_held = |hash: &ValueHash| held.iter().any(|sibling| sibling.value_hash == *hash);
        let mut rows = rows.into_iter().filter(|(hash, _)| !is_held(hash));
        let replaced = rows.by_ref().take(limit).map(|(value_hash, row)| {
            let HistoryRow { position, at_ms, size } = row;
            let deleted = matches!(
                self.log_row(position)?,
                Some(LogRow::Change { record: None, key: changed, .. }) if changed == *key
            );
            let kept = self.has_value(key, &value_hash)?;
            Ok(Replaced { at_ms, value_hash, size, deleted, kept })
        });
        let replaced = replaced.collect::<Result<_, ViewError>>()?;
        let more = cut || rows.next().is_some();
        Ok(Past { replaced, more, reach: self.history_reach()?, held })
    }

    /// The history rows of a key, the latest first, and whether there are more than were read.
    fn history_rows(
        &self,
        key: &KeyHash,
    ) -> Result<(Vec<(ValueHash, HistoryRow)>, bool), ViewError> {
        let rows = self.scan(Span::of(Table::History, &self.id.entry(key)), HISTORY_SCAN)?;
        let cut = rows.len() == HISTORY_SCAN;
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            let hash = ValueHash(self.parsed(key_tail(&row.key), "the key of a history row")?);
            // an aid: what rotted is not there any more
            if let Ok(history) = HistoryRow::parse(&row.value) {
                found.push((hash, history));
            }
        }
        found.sort_unstable_by_key(|(_, row)| std::cmp::Reverse(row.position));
        Ok((found, cut))
    }

    fn history_reach(&self) -> Result<Reach, ViewError> {
        let floor = self.head.history_floor;
        if floor <= 1 {
            return Ok(Reach::All);
        }
        Ok(self.log_row(floor)?.map_or(Reach::Nothing, |row| Reach::Since(row.at_ms())))
    }

    /// A row of the log; none if it was dropped or rotted.
    pub(super) fn log_row(&self, position: u64) -> Result<Option<LogRow>, ViewError> {
        let row = self.rows.get(Table::Log, &self.id.log(position));
        let row = self.checked(row.map_err(ReadError::from))?;
        Ok(row.and_then(|row| LogRow::parse(&row).ok()))
    }
}
