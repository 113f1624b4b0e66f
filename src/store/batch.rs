//! Changes that become visible together.

use std::sync::Arc;

use super::Table;

/// Rows to write and to remove, all or none. The last word on a row counts.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Batch {
    rows: Vec<(RowName, Option<Arc<[u8]>>)>,
}

/// Where a row stands.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RowName {
    /// Its table.
    pub table: Table,
    /// Its key.
    pub key: Box<[u8]>,
}

impl Batch {
    /// Writes a row.
    pub fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.put_shared(table, key, value.into());
    }

    /// Writes a row whose value is shared, not copied.
    pub fn put_shared(&mut self, table: Table, key: &[u8], value: Arc<[u8]>) {
        self.rows.push((RowName { table, key: key.into() }, Some(value)));
    }

    /// Removes a row; nothing happens if there is none.
    pub fn remove(&mut self, table: Table, key: &[u8]) {
        self.rows.push((RowName { table, key: key.into() }, None));
    }

    /// Number of writes and removals.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no row is touched.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.iter().map(|(_, key, value)| key.len() + value.map_or(0, |value| value.len())).sum()
    }

    /// The rows in the order in which they were said; no value: removed.
    pub fn iter(&self) -> impl Iterator<Item = (Table, &[u8], Option<&Arc<[u8]>>)> {
        self.rows.iter().map(|(name, value)| (name.table, &*name.key, value.as_ref()))
    }

    /// The rows by value, in the order in which they were said.
    pub fn into_rows(self) -> impl Iterator<Item = (RowName, Option<Arc<[u8]>>)> {
        self.rows.into_iter()
    }
}
