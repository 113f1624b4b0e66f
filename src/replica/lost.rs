//! Values and entries that were found to be missing or damaged on disk: written down by whoever
//! reads them, and fetched again from whoever has them (rule D10). No causality in that: a value
//! must have its hash, an entry must make its page hash to what it did.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::hash::{KeyHash, ValueHash};
use crate::store::{Batch, Read, Span, Store, Table};

use super::ReplicaError;
use super::collection::Collection;
use super::rows::{CollectionId, LostRow, lost_row};

/// Losses of one opening that are remembered, so that none is written down twice.
const REMEMBERED: usize = 65_536;
/// Rows looked at together.
const CHUNK: usize = 1_024;

/// A value that a sibling here names and whose bytes cannot be read here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LostValue {
    /// Hash of its key.
    pub key: KeyHash,
    /// Its hash.
    pub hash: ValueHash,
    /// Its size.
    pub size: u64,
}

/// Writes down what is found lost, whoever reads.
pub(super) struct Losses<S: Store> {
    store: Arc<S>,
    id: CollectionId,
    noted: Mutex<BTreeSet<(KeyHash, Option<ValueHash>)>>,
    /// Counts what was written down, so that whoever waits for it need not look.
    count: AtomicU64,
}

/// What became of something that was written down as lost.
enum Standing<T> {
    /// It still is.
    Lost(T),
    /// It is there again, or nothing names it any more.
    Over,
    /// It is none of those that are asked for.
    Other,
}

impl<S: Store> Losses<S> {
    pub(super) fn new(store: Arc<S>, id: CollectionId) -> Self {
        Self { store, id, noted: Mutex::default(), count: AtomicU64::new(0) }
    }

    /// Takes note of a value. Only an aid: what cannot be written down is found again.
    pub(super) fn note(&self, key: &KeyHash, hash: &ValueHash) {
        self.write((*key, Some(*hash)), &self.id.value(key, hash));
    }

    /// Takes note of an entry that rotted.
    pub(super) fn note_record(&self, key: &KeyHash) {
        self.write((*key, None), &self.id.entry(key));
    }

    fn write(&self, lost: (KeyHash, Option<ValueHash>), row: &[u8]) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() < REMEMBERED && noted.insert(lost) {
            let mut batch = Batch::default();
            batch.put(Table::Lost, row, &[]);
            let _ = self.store.apply(batch);
            self.count.fetch_add(1, Ordering::Release);
        }
    }

    pub(super) fn forget(&self, key: &KeyHash, hash: Option<&ValueHash>) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.remove(&(*key, hash.copied()));
    }
}

impl<S: Store> Collection<S> {
    /// Values that siblings here name and whose bytes were found lost, by any read so far; at
    /// most `limit`. Those that nothing names any more are forgotten.
    ///
    /// # Errors
    /// The store failed, or the collection is damaged.
    pub fn lost_values(&self, limit: usize) -> Result<Vec<LostValue>, ReplicaError> {
        self.each_lost(limit, |row| match row {
            LostRow::Value(key, hash) => match self.still_lost((key, hash)) {
                // of an entry that rotted itself nobody knows what it names
                Err(ReplicaError::Rotten { .. }) => Ok(Standing::Other),
                lost => Ok(lost?.map_or(Standing::Over, Standing::Lost)),
            },
            LostRow::Record(_) => Ok(Standing::Other),
        })
    }

    /// Hashes of the keys of entries that were found rotten, by any read so far, and still are;
    /// at most `limit`.
    ///
    /// # Errors
    /// The store failed, or the collection is damaged.
    pub fn rotten_entries(&self, limit: usize) -> Result<Vec<KeyHash>, ReplicaError> {
        self.each_lost(limit, |row| {
            let LostRow::Record(key) = row else { return Ok(Standing::Other) };
            match self.with_live(|live| self.entry_of(live, &key)) {
                Ok(_) => {
                    self.losses.forget(&key, None);
                    Ok(Standing::Over)
                }
                Err(ReplicaError::Rotten { .. }) => Ok(Standing::Lost(key)),
                Err(error) => Err(error),
            }
        })
    }

    /// Counts values and entries that were found lost since the replica was opened: whoever is to
    /// have them fetched again asks now and then, which takes no lock.
    pub fn losses_noted(&self) -> u64 {
        self.losses.count.load(Ordering::Acquire)
    }

    fn each_lost<T>(
        &self,
        limit: usize,
        mut judge: impl FnMut(LostRow) -> Result<Standing<T>, ReplicaError>,
    ) -> Result<Vec<T>, ReplicaError> {
        let mut lost = Vec::new();
        let mut last: Option<Box<[u8]>> = None;
        while lost.len() < limit {
            let start = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let rows = self
                .store
                .scan_keys(Span::of(Table::Lost, &self.id.prefix()).start_at(start), CHUNK)?;
            let Some(end) = rows.last() else { break };
            last = Some(end.clone());
            let mut over = Batch::default();
            for row in &rows {
                let standing = match lost_row(row) {
                    Ok(found) => judge(found)?,
                    // an aid: a row that rotted names nothing
                    Err(_) => Standing::Over,
                };
                match standing {
                    Standing::Lost(found) if lost.len() < limit => lost.push(found),
                    Standing::Lost(_) | Standing::Other => {}
                    Standing::Over => over.remove(Table::Lost, row),
                }
            }
            if !over.is_empty() {
                self.store.apply(over)?;
            }
        }
        Ok(lost)
    }

    /// The size of a value, if a sibling of the key names it.
    pub(super) fn size_named(
        &self,
        key: &KeyHash,
        hash: &ValueHash,
    ) -> Result<Option<u64>, ReplicaError> {
        self.with_live(|live| {
            let entry = self.entry_of(live, key)?;
            let siblings = entry.iter().flat_map(|entry| entry.record.siblings());
            let mut named = siblings.filter(|sibling| sibling.value_hash == *hash);
            Ok(named.next().map(|sibling| sibling.size))
        })
    }

    fn still_lost(
        &self,
        (key, hash): (KeyHash, ValueHash),
    ) -> Result<Option<LostValue>, ReplicaError> {
        let named = self.size_named(&key, &hash)?;
        let Some(size) = named else {
            self.losses.forget(&key, Some(&hash));
            return Ok(None);
        };
        let here = self.stored_value(&key, &hash)?.is_some();
        Ok((!here).then_some(LostValue { key, hash, size }))
    }

    /// Installs the bytes of a value that a sibling here names and whose bytes are lost or
    /// damaged. No causality in that. Whether they were wanted.
    ///
    /// # Errors
    /// The store failed, or the entry is damaged.
    pub fn install_value(&self, key_hash: &KeyHash, value: &[u8]) -> Result<bool, ReplicaError> {
        let hash = self.spec.algorithm.value_hash(value);
        let number = {
            let mut state = self.lock();
            let live = state.live(&self.spec.name)?;
            let entry = self.entry_of(live, key_hash)?;
            let wanted =
                entry.is_some_and(|entry| {
                    entry.record.siblings().iter().any(|sibling| {
                        sibling.value_hash == hash && sibling.size == value.len() as u64
                    })
                });
            if !wanted || self.stored_value(key_hash, &hash)?.is_some() {
                return Ok(false);
            }
            let mut batch = Batch::default();
            batch.put(Table::Values, &self.id.value(key_hash, &hash), value);
            batch.remove(Table::Lost, &self.id.value(key_hash, &hash));
            live.number = self.store.apply(batch)?;
            live.number
        };
        self.losses.forget(key_hash, Some(&hash));
        self.store.settle(number, self.node.durability)?;
        Ok(true)
    }
}
