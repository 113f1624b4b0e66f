//! What a failing disk does, done on purpose: rows of a closed store become zeros.

use std::ops::Bound;
use std::path::Path;

use super::DemoError;
use crate::store::{
    Batch, Durability, EmbeddedOptions, EmbeddedStore, Read as _, Row, Span, Store as _, Table,
};

/// What the key of an entry or a page begins with: collection and key hash.
const PLACE_BYTES: usize = 4 + 32;

/// Zeros over one page of the tree and all entries on it, and over a row of the context; how many
/// entries that were.
pub(super) fn lose_a_page(store: &Path) -> Result<u64, DemoError> {
    let store = EmbeddedStore::open(store, EmbeddedOptions::default())?;
    let pages = store.scan(Span::of(Table::Pages, &[]), usize::MAX)?;
    let at = pages.len() / 2;
    let mut batch = Batch::default();
    let mut lost = 0;
    if let Some(page) = pages.get(at) {
        blank(&mut batch, Table::Pages, page);
        let first = place(&page.key);
        let next = pages.get(at + 1).map(|page| place(&page.key));
        let entries = store
            .scan(Span::of(Table::Entries, &[]).start_at(Bound::Included(first)), usize::MAX)?
            .into_iter();
        for entry in entries.take_while(|entry| next.is_none_or(|next| place(&entry.key) < next)) {
            blank(&mut batch, Table::Entries, &entry);
            lost += 1;
        }
    }
    blank_context(&store, &mut batch)?;
    store.commit(batch, Durability::Always)?;
    store.close()?;
    Ok(lost)
}

/// Zeros over a row of the context.
pub(super) fn lose_the_context(store: &Path) -> Result<(), DemoError> {
    let store = EmbeddedStore::open(store, EmbeddedOptions::default())?;
    let mut batch = Batch::default();
    blank_context(&store, &mut batch)?;
    store.commit(batch, Durability::Always)?;
    store.close()?;
    Ok(())
}

fn blank_context(store: &EmbeddedStore, batch: &mut Batch) -> Result<(), DemoError> {
    for row in store.scan(Span::of(Table::Context, &[]), 1)? {
        blank(batch, Table::Context, &row);
    }
    Ok(())
}

fn blank(batch: &mut Batch, table: Table, row: &Row) {
    batch.put(table, &row.key, &vec![0; row.value.len()]);
}

fn place(key: &[u8]) -> &[u8] {
    key.get(..PLACE_BYTES).unwrap_or(key)
}
