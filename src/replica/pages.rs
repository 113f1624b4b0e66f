//! Entries and pages read from a store, each checked against the tree.

use std::ops::Bound;

use crate::codec::CodecError;
use crate::hash::{HashAlgorithm, KeyHash};
use crate::merkle::{Leaf, PagedTree, Prefix, Sealed};
use crate::store::{Read, StoreError, Table};
use crate::types::CollectionName;

use super::ReplicaError;
use super::rows::{CollectionId, key_tail, read_entry};
use super::view::{Entry, ViewError};

/// A page can have this many leaves and no more.
const MAX_PAGE_LEAVES: usize = 4_096;
/// Rows read at once for a page: most pages have fewer.
const ROWS_AT_ONCE: usize = 65;

/// A read that failed, before it is known which collection it was about.
pub(super) enum ReadError {
    Store(StoreError),
    Damaged(String),
}

impl ReadError {
    pub(super) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged(what.into())
    }

    pub(super) fn row(what: &str, error: &CodecError) -> Self {
        Self::Damaged(format!("{what}: {error}"))
    }

    pub(super) fn of(self, collection: &CollectionName) -> ReplicaError {
        match self {
            Self::Store(error) => ReplicaError::Store(error),
            Self::Damaged(what) => {
                ReplicaError::Damaged { collection: collection.to_string(), what }
            }
        }
    }

    pub(super) fn in_view(self, collection: &CollectionName) -> ViewError {
        match self {
            Self::Store(error) => ViewError::Store(error.to_string()),
            Self::Damaged(what) => ViewError::Damaged { collection: collection.to_string(), what },
        }
    }
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Does something with the tree, loading the pages that it needs. Their content is checked
/// against their rows, so loading changes nothing.
pub(super) fn with_pages<S: Read, R>(
    store: &S,
    id: CollectionId,
    name: &CollectionName,
    tree: &mut PagedTree,
    mut ask: impl FnMut(&mut PagedTree) -> Result<R, Sealed>,
) -> Result<R, ReplicaError> {
    loop {
        let Sealed(prefix) = match ask(tree) {
            Ok(answer) => return Ok(answer),
            Err(sealed) => sealed,
        };
        let leaves = read_page_leaves(store, id, tree.algorithm(), &prefix)
            .map_err(|error| error.of(name))?;
        tree.unseal(&prefix, leaves)
            .map_err(|error| ReadError::damaged(format!("page {prefix}: {error}")).of(name))?;
    }
}

/// The leaves of the entries under a prefix, as the store has them.
///
/// Reads a usual page's worth of rows at a time: what stands behind the page is not wanted.
pub(super) fn read_page_leaves(
    store: &impl Read,
    id: CollectionId,
    algorithm: HashAlgorithm,
    prefix: &Prefix,
) -> Result<Vec<Leaf>, ReadError> {
    let mut next = Bound::Included(id.entry(&prefix.first_key()));
    let mut leaves = Vec::new();
    while leaves.len() <= MAX_PAGE_LEAVES {
        let start = next.as_ref().map(Vec::as_slice);
        let rows = store.scan(Table::Entries, &id.prefix(), start, ROWS_AT_ONCE)?;
        for row in &rows {
            let key = entry_key(&row.key)?;
            if !prefix.contains(&key) {
                return Ok(leaves);
            }
            let entry = read_entry(&row.value)
                .map_err(|error| ReadError::row(&format!("the entry at {key}"), &error))?;
            leaves.push(leaf_of(algorithm, key, &entry));
        }
        match rows.last() {
            Some(last) if rows.len() == ROWS_AT_ONCE => next = Bound::Excluded(last.key.to_vec()),
            _ => break,
        }
    }
    Ok(leaves)
}

/// The key hash in the key of an entry's row.
pub(super) fn entry_key(key: &[u8]) -> Result<KeyHash, ReadError> {
    key_tail(key).map(KeyHash).map_err(|error| ReadError::row("the key of an entry", &error))
}

pub(super) fn leaf_of(algorithm: HashAlgorithm, key: KeyHash, entry: &Entry) -> Leaf {
    Leaf { key, record: entry.record.digest(algorithm), totals: entry.record.totals() }
}

/// The entry at a key hash: what the tree says it is, or damage. What the tree has no leaf of is
/// not looked for.
pub(super) fn read_checked(
    store: &impl Read,
    id: CollectionId,
    algorithm: HashAlgorithm,
    key_hash: &KeyHash,
    leaf: Option<&Leaf>,
) -> Result<Option<Entry>, ReadError> {
    let Some(leaf) = leaf else { return Ok(None) };
    let row = store.get(Table::Entries, &id.entry(key_hash))?;
    let row =
        row.ok_or_else(|| ReadError::damaged(format!("the entry at {key_hash} is missing")))?;
    let entry = read_entry(&row)
        .map_err(|error| ReadError::row(&format!("the entry at {key_hash}"), &error))?;
    if algorithm.key_hash(&entry.key) != *key_hash || entry.record.digest(algorithm) != leaf.record
    {
        let what = format!("the entry at {key_hash} does not match its leaf");
        return Err(ReadError::damaged(what));
    }
    Ok(Some(entry))
}
