//! Rows on their way to the database: applied, and so visible, but not written there yet.
//!
//! A batch that is applied only joins these. Whoever settles, takes a snapshot or finds too many of
//! them writes all of them as one batch of the database, in which a row that was changed by many
//! commits, like a head, stands once. So the writers of a group share more than the sync, and the
//! database takes nothing while a writer drafts. What a crash leaves is still a prefix of what was
//! applied: groups leave in order, each whole or not at all.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::store::batch::RowName;
use crate::store::{Batch, Span, StoreError};

/// Rows by name; no value: removed.
pub(super) type Rows = BTreeMap<RowName, Option<Arc<[u8]>>>;

/// What a row costs besides its bytes, about.
const ROW_BYTES: usize = 96;

#[derive(Default)]
pub(super) struct Pending {
    layers: RwLock<Layers>,
    // one group leaves at a time
    leaving: Mutex<()>,
}

/// What a row was changed to.
#[derive(Default)]
pub(super) struct Layers {
    recent: Rows,
    /// Rows that are just being written; the older of the two.
    leaving: Arc<Rows>,
    bytes: usize,
}

impl Layers {
    /// What became of a row, if anything did.
    pub(super) fn row(&self, name: &RowName) -> Option<&Option<Arc<[u8]>>> {
        self.recent.get(name).or_else(|| self.leaving.get(name))
    }

    /// What became of the rows that a scan would come upon.
    pub(super) fn range(&self, span: Span<'_>) -> Rows {
        let mut found: Rows = range(&self.leaving, span).collect();
        found.extend(range(&self.recent, span));
        found
    }

    /// What became of all rows that wait.
    pub(super) fn all(&self) -> Rows {
        let mut all = Rows::clone(&self.leaving);
        all.extend(self.recent.clone());
        all
    }
}

/// Those of the rows that a scan would come upon.
pub(super) fn range<'a>(
    rows: &'a Rows,
    span: Span<'a>,
) -> impl Iterator<Item = (RowName, Option<Arc<[u8]>>)> + use<'a> {
    let from = span.first().map(|key| RowName { table: span.table, key: key.into() });
    rows.range((from, Bound::Unbounded))
        .take_while(move |(name, _)| name.table == span.table && !span.ends_before(&name.key))
        .map(|(name, value)| (name.clone(), value.clone()))
}

impl Pending {
    fn write(&self) -> RwLockWriteGuard<'_, Layers> {
        self.layers.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rows as they are, while nothing joins or leaves them.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Layers> {
        self.layers.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a batch, all at once; bytes that wait now.
    pub(super) fn add(&self, batch: Batch) -> usize {
        let bytes = batch.bytes() + ROW_BYTES * batch.len();
        let mut layers = self.write();
        layers.recent.extend(batch.into_rows());
        layers.bytes += bytes;
        layers.bytes
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.read().bytes
    }

    /// Writes all rows that wait, with `write`. If that fails they stay visible, and nothing is
    /// written any more.
    pub(super) fn flush(
        &self,
        write: impl FnOnce(&Rows) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let _leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = {
            let mut layers = self.write();
            if !layers.leaving.is_empty() {
                return Err(StoreError::Refusing("a write of a group failed".into()));
            }
            if layers.recent.is_empty() {
                return Ok(());
            }
            layers.leaving = Arc::new(std::mem::take(&mut layers.recent));
            layers.bytes = 0;
            Arc::clone(&layers.leaving)
        };
        write(&rows)?;
        self.write().leaving = Arc::default();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::Table;

    fn name(key: &[u8]) -> RowName {
        RowName { table: Table::Meta, key: key.into() }
    }

    fn put(pending: &Pending, key: &[u8], value: &[u8]) {
        let mut batch = Batch::default();
        batch.put(Table::Meta, key, value);
        pending.add(batch);
    }

    fn found(pending: &Pending, key: &[u8]) -> Option<Vec<u8>> {
        pending.read().row(&name(key)).cloned().flatten().map(|value| value.to_vec())
    }

    #[test]
    fn a_row_written_again_while_its_group_leaves_shows_the_later_value() {
        let pending = Pending::default();
        put(&pending, b"a", b"1");
        put(&pending, b"b", b"1");
        pending
            .flush(|rows| {
                assert_eq!(rows.len(), 2);
                assert_eq!(found(&pending, b"a").unwrap(), b"1");
                put(&pending, b"a", b"2");
                let mut removal = Batch::default();
                removal.remove(Table::Meta, b"b");
                pending.add(removal);
                assert_eq!(found(&pending, b"a").unwrap(), b"2");
                assert_eq!(pending.read().row(&name(b"b")), Some(&None));
                let range = pending.read().range(Span {
                    table: Table::Meta,
                    prefix: b"",
                    start: Bound::Unbounded,
                    last: None,
                });
                assert_eq!(range.len(), 2);
                assert_eq!(range[&name(b"b")], None);
                Ok(())
            })
            .unwrap();
        assert_eq!(found(&pending, b"a").unwrap(), b"2");
        pending.flush(|_| Ok(())).unwrap();
        assert!(pending.read().row(&name(b"a")).is_none());
        pending.flush(|_| Err(StoreError::Full)).unwrap();
    }

    #[test]
    fn after_a_failed_write_rows_stay_visible_and_nothing_leaves() {
        let pending = Pending::default();
        put(&pending, b"a", b"1");
        assert!(matches!(pending.flush(|_| Err(StoreError::Full)), Err(StoreError::Full)));
        put(&pending, b"b", b"1");
        let again = pending.flush(|_| Ok(()));
        assert!(matches!(again, Err(StoreError::Refusing(_))));
        assert_eq!(found(&pending, b"a").unwrap(), b"1");
    }

    #[test]
    fn a_range_ends_with_its_prefix_and_its_table() {
        let pending = Pending::default();
        for key in [&b"a"[..], b"ab", b"ac", b"b"] {
            put(&pending, key, b"");
        }
        let mut other = Batch::default();
        other.put(Table::Collections, b"ab", b"");
        pending.add(other);
        let keys = |prefix: &[u8], start, last: Option<&[u8]>| -> Vec<_> {
            let range = pending.read().range(Span { table: Table::Meta, prefix, start, last });
            range.into_keys().map(|name| name.key.to_vec()).collect()
        };
        assert_eq!(keys(b"a", Bound::Unbounded, None), [&b"a"[..], b"ab", b"ac"]);
        assert_eq!(keys(b"a", Bound::Excluded(b"ab"), None), [&b"ac"[..]]);
        assert_eq!(keys(b"a", Bound::Included(b"b"), None), [&b""[..]; 0]);
        assert_eq!(keys(b"a", Bound::Unbounded, Some(b"ab")), [&b"a"[..], b"ab"]);
    }
}
