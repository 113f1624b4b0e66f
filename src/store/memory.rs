//! A store in memory, for embedding and for tests.
//!
//! Multi-version: a row keeps older values as long as a snapshot can see them, so that taking a
//! snapshot copies nothing. Writers and readers hold one lock only for the rows they touch.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::batch::RowName;
use super::{
    Batch, Capabilities, CommitNumber, Durability, Read, Row, Span, Store, StoreError, Table,
};

/// A store in memory. Nothing outlives it.
#[derive(Debug, Default)]
pub struct MemoryStore {
    inner: Arc<RwLock<Inner>>,
}

/// A snapshot of a [`MemoryStore`].
#[derive(Debug)]
pub struct MemorySnapshot {
    inner: Arc<RwLock<Inner>>,
    at: u64,
}

#[derive(Debug, Default)]
struct Inner {
    tables: BTreeMap<Table, BTreeMap<Box<[u8]>, Versions>>,
    number: u64,
    // how many snapshots look at each number
    snapshots: BTreeMap<u64, usize>,
    // rows with a version that goes when no snapshot older than the number is left
    superseded: VecDeque<(u64, Table, Box<[u8]>)>,
}

/// Values of one row, oldest first, each from a batch number on; no value: removed.
type Versions = Vec<(u64, Option<Arc<[u8]>>)>;

fn read(inner: &RwLock<Inner>) -> RwLockReadGuard<'_, Inner> {
    inner.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(inner: &RwLock<Inner>) -> RwLockWriteGuard<'_, Inner> {
    inner.write().unwrap_or_else(PoisonError::into_inner)
}

fn visible(versions: &Versions, at: u64) -> Option<&Arc<[u8]>> {
    let seen = versions.partition_point(|(from, _)| *from <= at);
    versions.get(seen.checked_sub(1)?)?.1.as_ref()
}

impl Inner {
    fn get(&self, table: Table, key: &[u8], at: u64) -> Option<&Arc<[u8]>> {
        visible(self.tables.get(&table)?.get(key)?, at)
    }

    fn scan(&self, span: Span<'_>, limit: usize, at: u64) -> Vec<Row> {
        let Some(rows) = self.tables.get(&span.table) else { return Vec::new() };
        rows.range::<[u8], _>((span.first(), Bound::Unbounded))
            .take_while(|(key, _)| !span.ends_before(key))
            .filter_map(|(key, versions)| {
                visible(versions, at).map(|value| Row { key: key.clone(), value: value.clone() })
            })
            .take(limit)
            .collect()
    }

    fn apply(&mut self, batch: Batch) -> u64 {
        self.number += 1;
        let number = self.number;
        let last_words: BTreeMap<RowName, _> = batch.into_rows().collect();
        for (RowName { table, key }, value) in last_words {
            let rows = self.tables.entry(table).or_default();
            match rows.get_mut(&key) {
                None if value.is_none() => {}
                None => {
                    rows.insert(key, vec![(number, value)]);
                }
                Some(versions) => {
                    versions.push((number, value));
                    self.superseded.push_back((number, table, key));
                }
            }
        }
        self.collect();
        number
    }

    /// Drops versions that no snapshot can see any more.
    fn collect(&mut self) {
        let oldest = self.snapshots.keys().next().copied().unwrap_or(self.number);
        while self.superseded.front().is_some_and(|(number, ..)| *number <= oldest) {
            let Some((number, table, key)) = self.superseded.pop_front() else { break };
            let Some(rows) = self.tables.get_mut(&table) else { continue };
            let Some(versions) = rows.get_mut(&key) else { continue };
            let newer = versions.iter().position(|(from, _)| *from >= number).unwrap_or(0);
            versions.drain(..newer);
            if let [(_, None)] = versions.as_slice() {
                rows.remove(&key);
            }
        }
    }
}

impl Read for MemoryStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Arc<[u8]>>, StoreError> {
        Ok(read(&self.inner).get(table, key, u64::MAX).cloned())
    }

    fn scan(&self, span: Span<'_>, limit: usize) -> Result<Vec<Row>, StoreError> {
        Ok(read(&self.inner).scan(span, limit, u64::MAX))
    }
}

impl Store for MemoryStore {
    type Snapshot = MemorySnapshot;

    fn snapshot(&self) -> Result<MemorySnapshot, StoreError> {
        let mut inner = write(&self.inner);
        let at = inner.number;
        *inner.snapshots.entry(at).or_default() += 1;
        Ok(MemorySnapshot { inner: Arc::clone(&self.inner), at })
    }

    fn apply(&self, batch: Batch) -> Result<CommitNumber, StoreError> {
        Ok(CommitNumber(write(&self.inner).apply(batch)))
    }

    fn settle(&self, _: CommitNumber, _: Durability) -> Result<(), StoreError> {
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { persistent: false, sync_interval_ms: 0 }
    }
}

impl Clone for MemorySnapshot {
    fn clone(&self) -> Self {
        *write(&self.inner).snapshots.entry(self.at).or_default() += 1;
        Self { inner: Arc::clone(&self.inner), at: self.at }
    }
}

impl Drop for MemorySnapshot {
    fn drop(&mut self) {
        let mut inner = write(&self.inner);
        if let Some(count) = inner.snapshots.get_mut(&self.at) {
            *count -= 1;
            if *count == 0 {
                inner.snapshots.remove(&self.at);
            }
        }
        inner.collect();
    }
}

impl Read for MemorySnapshot {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Arc<[u8]>>, StoreError> {
        Ok(read(&self.inner).get(table, key, self.at).cloned())
    }

    fn scan(&self, span: Span<'_>, limit: usize) -> Result<Vec<Row>, StoreError> {
        Ok(read(&self.inner).scan(span, limit, self.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(key: &[u8], value: Option<&[u8]>) -> Batch {
        let mut batch = Batch::default();
        match value {
            Some(value) => batch.put(Table::Meta, key, value),
            None => batch.remove(Table::Meta, key),
        }
        batch
    }

    #[test]
    fn older_versions_go_with_the_last_snapshot_that_sees_them() {
        let store = MemoryStore::default();
        store.apply(batch(b"a", Some(b"1"))).expect("in memory");
        let first = store.snapshot().expect("in memory");
        for value in [&b"2"[..], b"3", b"4"] {
            store.apply(batch(b"a", Some(value))).expect("in memory");
        }
        store.apply(batch(b"a", None)).expect("in memory");
        let again = first.clone();
        drop(first);
        assert_eq!(again.get(Table::Meta, b"a").expect("in memory").as_deref(), Some(&b"1"[..]));
        assert_eq!(store.get(Table::Meta, b"a").expect("in memory"), None);
        drop(again);
        let inner = read(&store.inner);
        assert!(inner.tables[&Table::Meta].is_empty(), "{:?}", inner.tables);
        assert!(inner.superseded.is_empty() && inner.snapshots.is_empty());
    }
}
