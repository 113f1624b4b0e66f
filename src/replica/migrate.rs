//! Rows of older formats, brought to the present one where they stand.
//!
//! A step may be cut short and done again: what it has done already it leaves alone.

use std::ops::Bound;

use crate::store::{Batch, Durability, Span, Store, StoreError, Table};

use super::rows::{before_check, parse_entry, with_check};

/// Rows written at once.
const CHUNK: usize = 4_096;

/// From format 1 to 2: the rows of entries and of the change log end with a checksum, which tells
/// the row that rotted from its neighbours.
///
/// A row of format 1 that does not parse stays as it is: it is found as rot like any other. One
/// that rotted and parses all the same gets a checksum, and the hash of its page still tells.
///
/// # Errors
/// The store failed; what was done so far is kept.
pub(crate) fn add_checks<S: Store>(store: &S) -> Result<(), StoreError> {
    for table in [Table::Entries, Table::Log] {
        let mut last: Option<Box<[u8]>> = None;
        loop {
            let start = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let rows = store.scan(Span::of(table, &[]).start_at(start), CHUNK)?;
            let Some(row) = rows.last() else { break };
            last = Some(row.key.clone());
            let mut batch = Batch::default();
            for row in &rows {
                let done = before_check(&row.value).is_ok();
                let sound = table != Table::Entries || parse_entry(&row.value).is_ok();
                if sound && !done {
                    batch.put(table, &row.key, &with_check(row.value.to_vec()));
                }
            }
            if !batch.is_empty() {
                store.apply(batch)?;
            }
        }
    }
    let number = store.apply(Batch::default())?;
    store.settle(number, Durability::Always)
}

/// From format 2 to 3: rows of the change log say what was held before, and the last one of a
/// commit what the commit did to the root. Rows that are there cannot say it, and are read as they
/// are; it is for versions that know only format 2 to leave the new ones alone.
///
/// # Errors
/// None.
pub(crate) const fn keep_log_rows<S: Store>(_: &S) -> Result<(), StoreError> {
    Ok(())
}
