//! What was read for a snapshot and verified against its root, kept for as long as the snapshot
//! is: so that a session reads, parses and hashes what it works on once.
//!
//! Nothing is served that did not verify, and nothing goes stale: a snapshot never changes.
//! Whoever works on the live state holds what is found here against the live tree first, whose
//! hashes say whether it is still the same. Scrubs and reads for users go to the disk.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::entry::SIBLING_BYTES;
use crate::hash::{KeyHash, TreeHash};
use crate::merkle::{Leaf, Prefix};

use super::view::Entry;

/// Bytes that are kept, about: of leaves of pages, and this part of it of entries.
const MAX_BYTES: usize = 8 << 20;
const ENTRY_SHARE: usize = 4;
/// Of the memory of a session, what is kept takes no more than this part.
const SESSION_SHARE: u64 = 8;
/// What an entry costs besides its bytes.
const ENTRY_BYTES: usize = 128;

/// Pages and entries of one snapshot, as far as they were read.
pub(super) struct Known {
    inner: Mutex<Inner>,
    most_leaves: usize,
    most_entry_bytes: usize,
}

/// A page that hashed to what the tree says of it.
#[derive(Clone)]
pub(super) struct KnownPage {
    pub(super) hash: TreeHash,
    /// Ascending by key.
    pub(super) leaves: Arc<[Leaf]>,
}

#[derive(Default)]
struct Inner {
    pages: Recent<Prefix, KnownPage>,
    entries: Recent<KeyHash, Entry>,
}

impl Known {
    /// For a snapshot on which a session may work that may hold so many bytes.
    pub(super) fn new(session_memory_bytes: u64) -> Self {
        let share = usize::try_from(session_memory_bytes / SESSION_SHARE).unwrap_or(MAX_BYTES);
        let most = share.min(MAX_BYTES);
        let most_entry_bytes = most / ENTRY_SHARE;
        let most_leaves = (most - most_entry_bytes) / size_of::<Leaf>();
        Self { inner: Mutex::default(), most_leaves, most_entry_bytes }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that are kept, about.
    pub(super) fn memory_bytes(&self) -> usize {
        let inner = self.lock();
        inner.pages.weight() * size_of::<Leaf>() + inner.entries.weight()
    }

    /// The page with this prefix, if it was read lately.
    pub(super) fn page(&self, prefix: &Prefix) -> Option<KnownPage> {
        self.lock().pages.get(prefix).cloned()
    }

    /// Keeps a page; its hash was compared with that of the tree.
    pub(super) fn keep_page(&self, prefix: Prefix, page: KnownPage) {
        let weight = page.leaves.len();
        self.lock().pages.keep(prefix, page, weight, self.most_leaves);
    }

    /// The entry with this key hash, if it was read lately.
    pub(super) fn entry(&self, key: &KeyHash) -> Option<Entry> {
        self.lock().entries.get(key).cloned()
    }

    /// Keeps an entry; it was compared with its leaf.
    pub(super) fn keep_entry(&self, key: KeyHash, entry: Entry) {
        let siblings = entry.record.siblings().len() * SIBLING_BYTES;
        let weight = ENTRY_BYTES + entry.key.as_bytes().len() + siblings;
        self.lock().entries.keep(key, entry, weight, self.most_entry_bytes);
    }
}

/// What came last, up to a weight: two generations, of which the older goes when the younger has
/// half of the weight.
struct Recent<K, V> {
    young: BTreeMap<K, V>,
    old: BTreeMap<K, V>,
    /// Of the younger ones.
    weight: usize,
    old_weight: usize,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { young: BTreeMap::new(), old: BTreeMap::new(), weight: 0, old_weight: 0 }
    }
}

impl<K: Ord, V> Recent<K, V> {
    const fn weight(&self) -> usize {
        self.weight + self.old_weight
    }

    fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    fn keep(&mut self, key: K, value: V, weight: usize, most: usize) {
        if self.weight + weight > most / 2 {
            self.old = std::mem::take(&mut self.young);
            self.old_weight = std::mem::take(&mut self.weight);
        }
        // what is too large for half of it would be all that there is
        if weight <= most / 2 {
            self.weight += weight;
            self.young.insert(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_last_is_kept_up_to_a_weight() {
        let mut recent = Recent::default();
        for number in 0..1_000_u32 {
            recent.keep(number, number, 3, 100);
            assert_eq!(recent.get(&number), Some(&number));
            assert!((recent.young.len() + recent.old.len()) * 3 <= 100);
        }
        assert_eq!(recent.get(&0), None);
        assert!((985..1_000).all(|number| recent.get(&number).is_some()), "half of the weight");
        recent.keep(7, 7, 51, 100);
        assert_eq!(recent.get(&7), None, "larger than what may be kept");
    }
}
