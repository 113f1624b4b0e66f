//! Entries and pages read from a store, each checked against the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::codec::CodecError;
use crate::hash::{HashAlgorithm, KeyHash};
use crate::merkle::{Applied, Change, Leaf, PagedTree, Prefix, Sealed};
use crate::store::{Read, Row, Span, StoreError, Table};
use crate::types::CollectionName;

use super::ReplicaError;
use super::known::{Known, KnownPage};
use super::rows::{CollectionId, key_tail, lost_value, read_entry};
use super::view::{Entry, ViewError};

/// A page can have this many leaves and no more.
const MAX_PAGE_LEAVES: usize = 4_096;
/// Entries of a page among which a stray one is looked for.
const LOOKED_THROUGH: usize = 257;
/// Rows read at once for a page: most pages have fewer.
const ROWS_AT_ONCE: usize = 65;

/// A read that failed, before it is known which collection it was about.
pub(super) enum ReadError {
    Store(StoreError),
    Damaged(String),
    /// The entry at this key hash rotted: its neighbours and all else can be used.
    Rotten(KeyHash),
}

impl ReadError {
    pub(super) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged(what.into())
    }

    pub(super) fn row(what: &str, error: &CodecError) -> Self {
        Self::Damaged(format!("{what}: {error}"))
    }

    /// What is wrong, in words.
    pub(super) fn what(&self) -> String {
        match self {
            Self::Store(error) => error.to_string(),
            Self::Damaged(what) => what.clone(),
            Self::Rotten(key) => format!("the entry at {key} rotted"),
        }
    }

    pub(super) fn of(self, collection: &CollectionName) -> ReplicaError {
        match self {
            Self::Store(error) => ReplicaError::Store(error),
            Self::Damaged(what) => {
                ReplicaError::Damaged { collection: collection.to_string(), what }
            }
            Self::Rotten(key) => ReplicaError::Rotten { collection: collection.to_string(), key },
        }
    }

    pub(super) fn in_view(self, collection: &CollectionName) -> ViewError {
        match self {
            Self::Store(error) => ViewError::Store(error.to_string()),
            Self::Damaged(what) => ViewError::Damaged { collection: collection.to_string(), what },
            Self::Rotten(key) => ViewError::Rotten { collection: collection.to_string(), key },
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
    ask: impl FnMut(&mut PagedTree) -> Result<R, Sealed>,
) -> Result<R, ReplicaError> {
    with_known_pages(store, (id, name), None, tree, ask)
}

/// The same; pages that are known already, and are still those of the tree, are not read.
pub(super) fn with_known_pages<S: Read, R>(
    store: &S,
    (id, name): (CollectionId, &CollectionName),
    known: Option<&Known>,
    tree: &mut PagedTree,
    mut ask: impl FnMut(&mut PagedTree) -> Result<R, Sealed>,
) -> Result<R, ReplicaError> {
    loop {
        let Sealed(prefix) = match ask(tree) {
            Ok(answer) => return Ok(answer),
            Err(sealed) => sealed,
        };
        if !known.is_some_and(|known| unseal_known(known, tree, &prefix)) {
            load(store, id, name, tree, &prefix)?;
        }
    }
}

/// Takes a known page into the tree, if it is still that of the tree.
fn unseal_known(known: &Known, tree: &mut PagedTree, prefix: &Prefix) -> bool {
    known.page(prefix).is_some_and(|page| {
        tree.hash_under(prefix) == Ok(page.hash)
            && tree.unseal(prefix, page.leaves.to_vec()).is_ok()
    })
}

/// Applies changes, with the pages that they need: all loaded first, so that the changes are
/// looked up once and not once for each page.
pub(super) fn apply<S: Read>(
    store: &S,
    id: CollectionId,
    name: &CollectionName,
    tree: &mut PagedTree,
    changes: &[Change],
) -> Result<Applied, ReplicaError> {
    for prefix in tree.sealed_for(changes.iter().map(Change::key)) {
        load(store, id, name, tree, &prefix)?;
    }
    with_pages(store, id, name, tree, |tree| tree.apply(changes))
}

fn load<S: Read>(
    store: &S,
    id: CollectionId,
    name: &CollectionName,
    tree: &mut PagedTree,
    prefix: &Prefix,
) -> Result<(), ReplicaError> {
    let fits = match read_page_leaves(store, id, tree, prefix, |_, _| {}) {
        Ok(leaves) => tree.unseal(prefix, leaves).is_ok(),
        Err(ReadError::Store(error)) => return Err(error.into()),
        Err(_) => false,
    };
    if !fits {
        let leaves = sifted(store, id, tree, prefix).map_err(|error| error.of(name))?;
        tree.unseal(prefix, leaves)
            .map_err(|error| ReadError::damaged(format!("page {prefix}: {error}")).of(name))?;
    }
    Ok(())
}

/// The leaves of a page whose rows are not just its own: without rows that are none of it, if
/// what is left verifies; else the first of its entries that rotted.
pub(super) fn sifted<S: Read>(
    store: &S,
    id: CollectionId,
    tree: &PagedTree,
    prefix: &Prefix,
) -> Result<Vec<Leaf>, ReadError> {
    let page = Page::read(store, id, tree, prefix)?;
    let algorithm = tree.algorithm();
    match page.rotten.first() {
        None if page.verified => {
            Ok(page.sound.iter().map(|(key, entry)| leaf_of(algorithm, *key, entry)).collect())
        }
        None => Err(ReadError::damaged(format!("page {prefix} does not hash to its row"))),
        Some(&key) => Err(ReadError::Rotten(key)),
    }
}

/// A page as it is on disk, entry by entry.
#[derive(Default)]
pub(super) struct Page {
    /// Entries whose rows are sound by themselves.
    pub(super) sound: BTreeMap<KeyHash, Entry>,
    /// Keys of entries that rotted or are missing; all keys, if it cannot be told which.
    pub(super) rotten: BTreeSet<KeyHash>,
    /// Keys whose rows are sound and belong to no entry of the tree.
    pub(super) stray: BTreeSet<KeyHash>,
    /// Whether all entries together have the hash and totals of the page.
    pub(super) verified: bool,
    /// Bytes read.
    pub(super) bytes: u64,
}

impl Page {
    /// Reads a page of the tree and finds out what of it rotted.
    pub(super) fn read<S: Read>(
        store: &S,
        id: CollectionId,
        tree: &PagedTree,
        prefix: &Prefix,
    ) -> Result<Self, StoreError> {
        let algorithm = tree.algorithm();
        let mut page = Self::default();
        let mut next = Bound::Included(id.entry(&prefix.first_key()));
        'rows: while page.sound.len() + page.rotten.len() <= 2 * MAX_PAGE_LEAVES {
            let start = next.as_ref().map(Vec::as_slice);
            let rows =
                store.scan(Span::of(Table::Entries, &id.prefix()).start_at(start), ROWS_AT_ONCE)?;
            for row in &rows {
                let Ok(key) = entry_key(&row.key) else { continue };
                if !prefix.contains(&key) {
                    break 'rows;
                }
                page.bytes += (row.key.len() + row.value.len()) as u64;
                match read_entry(&row.value) {
                    Ok(entry) if algorithm.key_hash(&entry.key) == key => {
                        page.sound.insert(key, entry);
                    }
                    // whole, and of another key: it is this row's key that rotted
                    Ok(_) => drop(page.stray.insert(key)),
                    Err(_) => drop(page.rotten.insert(key)),
                }
            }
            match rows.last() {
                Some(last) if rows.len() == ROWS_AT_ONCE => {
                    next = Bound::Excluded(last.key.to_vec());
                }
                _ => break,
            }
        }
        page.judge(store, id, tree, prefix)?;
        Ok(page)
    }

    fn judge<S: Read>(
        &mut self,
        store: &S,
        id: CollectionId,
        tree: &PagedTree,
        prefix: &Prefix,
    ) -> Result<(), StoreError> {
        self.verified = self.rotten.is_empty() && self.is_page(tree, prefix, None);
        if self.verified {
            return Ok(());
        }
        let expected = tree.totals_under(prefix).map_or(0, |totals| totals.entries) as usize;
        let found = self.sound.len() + self.rotten.len();
        if self.rotten.is_empty() && found == expected + 1 && found <= LOOKED_THROUGH {
            let stray = self.sound.keys().find(|key| self.is_page(tree, prefix, Some(key)));
            if let Some(&stray) = stray {
                self.sound.remove(&stray);
                self.stray.insert(stray);
                self.verified = true;
                return Ok(());
            }
        }
        if found < expected {
            self.find_missing(store, id, prefix)?;
        }
        if self.rotten.is_empty() {
            // each looks sound and together they are not the page: any may be an old one
            self.rotten.extend(self.sound.keys());
        }
        Ok(())
    }

    /// Whether the entries, without one perhaps, are those of the page.
    fn is_page(&self, tree: &PagedTree, prefix: &Prefix, without: Option<&KeyHash>) -> bool {
        let algorithm = tree.algorithm();
        let sound = self.sound.iter().filter(|(key, _)| Some(*key) != without);
        let leaves = sound.map(|(&key, entry)| leaf_of(algorithm, key, entry));
        let built = PagedTree::build(algorithm, tree.page_leaves(), leaves);
        built.is_ok_and(|built| {
            Ok(built.tree_hash()) == tree.hash_under(prefix)
                && Ok(built.totals()) == tree.totals_under(prefix)
        })
    }

    /// Entries whose rows are gone are still named by the rows of their values.
    fn find_missing<S: Read>(
        &mut self,
        store: &S,
        id: CollectionId,
        prefix: &Prefix,
    ) -> Result<(), StoreError> {
        let mut next = Bound::Included(id.entry(&prefix.first_key()));
        for _ in 0..MAX_PAGE_LEAVES {
            let start = next.as_ref().map(Vec::as_slice);
            let rows = store
                .scan_keys(Span::of(Table::Values, &id.prefix()).start_at(start), ROWS_AT_ONCE)?;
            for row in &rows {
                let Ok((key, _)) = lost_value(row) else { continue };
                if !prefix.contains(&key) {
                    return Ok(());
                }
                let replaced = store.size_of(Table::History, row)?.is_some();
                if !replaced && !self.sound.contains_key(&key) {
                    self.rotten.insert(key);
                }
            }
            match rows.last() {
                Some(last) if rows.len() == ROWS_AT_ONCE => next = Bound::Excluded(last.to_vec()),
                _ => break,
            }
        }
        Ok(())
    }
}

/// The leaves of the entries under a prefix, as the store has them: all of them if they are as
/// many as the tree says, and in any case no more than one in addition. Each entry is shown.
fn read_page_leaves(
    store: &impl Read,
    id: CollectionId,
    tree: &PagedTree,
    prefix: &Prefix,
    mut each: impl FnMut(&KeyHash, Entry),
) -> Result<Vec<Leaf>, ReadError> {
    let expected = tree.totals_under(prefix).map_or(0, |totals| totals.entries);
    let limit = usize::try_from(expected).unwrap_or(usize::MAX).min(MAX_PAGE_LEAVES) + 1;
    let rows = entry_rows(store, id, prefix, limit)?;
    let mut leaves = Vec::with_capacity(rows.len());
    for row in rows {
        let key = entry_key(&row.key)?;
        let entry = read_entry(&row.value).map_err(|_| ReadError::Rotten(key))?;
        leaves.push(leaf_of(tree.algorithm(), key, &entry));
        each(&key, entry);
    }
    Ok(leaves)
}

/// The first rows of entries under a prefix.
fn entry_rows(
    store: &impl Read,
    id: CollectionId,
    prefix: &Prefix,
    limit: usize,
) -> Result<Vec<Row>, StoreError> {
    let (first, last) = (id.entry(&prefix.first_key()), id.entry(&prefix.last_key()));
    let all = id.prefix();
    let span = Span::of(Table::Entries, &all).start_at(Bound::Included(&first)).through(&last);
    store.scan(span, limit)
}

/// What the rows under a prefix say that its leaves are, as many as a page can have.
pub(super) fn unchecked_leaves(
    store: &impl Read,
    id: CollectionId,
    algorithm: HashAlgorithm,
    prefix: &Prefix,
) -> Result<Vec<Leaf>, ReadError> {
    let rows = entry_rows(store, id, prefix, MAX_PAGE_LEAVES)?;
    let leaf = |row: &Row| {
        let (key, entry) = (entry_key(&row.key).ok()?, read_entry(&row.value).ok()?);
        Some(leaf_of(algorithm, key, &entry))
    };
    Ok(rows.iter().filter_map(leaf).collect())
}

/// The leaves of a sealed page, which have the hash and the totals that the tree says: read, and
/// sifted if need be. With them the entry at a key, which verifies too, if it is there and was
/// read on the way.
pub(super) fn read_checked_page(
    store: &impl Read,
    id: CollectionId,
    tree: &PagedTree,
    prefix: &Prefix,
    wanted: Option<&KeyHash>,
) -> Result<(KnownPage, Option<Entry>), ReadError> {
    let algorithm = tree.algorithm();
    let mut found = None;
    let keep = |key: &KeyHash, entry: Entry| {
        if wanted == Some(key) && algorithm.key_hash(&entry.key) == *key {
            found = Some(entry);
        }
    };
    let stated = (tree.hash_under(prefix), tree.totals_under(prefix));
    let verify = |leaves: &[Leaf]| {
        let built = PagedTree::build(algorithm, tree.page_leaves(), leaves.to_vec()).ok()?;
        let (hash, totals) = (built.tree_hash(), built.totals());
        (stated == (Ok(hash), Ok(totals))).then_some(hash)
    };
    match read_page_leaves(store, id, tree, prefix, keep) {
        Ok(leaves) if leaves.len() <= MAX_PAGE_LEAVES => {
            if let Some(hash) = verify(&leaves) {
                return Ok((KnownPage { hash, leaves: leaves.into() }, found));
            }
        }
        Err(ReadError::Store(error)) => return Err(error.into()),
        _ => {}
    }
    let leaves = sifted(store, id, tree, prefix)?;
    match verify(&leaves) {
        Some(hash) => Ok((KnownPage { hash, leaves: leaves.into() }, None)),
        None => Err(ReadError::damaged(format!("page {prefix} does not hash to its row"))),
    }
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
    let row = row.ok_or(ReadError::Rotten(*key_hash))?;
    let entry = read_entry(&row).map_err(|_| ReadError::Rotten(*key_hash))?;
    if algorithm.key_hash(&entry.key) != *key_hash || entry.record.digest(algorithm) != leaf.record
    {
        return Err(ReadError::Rotten(*key_hash));
    }
    Ok(Some(entry))
}
