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

/// Leaves of pages that are kept: 6 MiB.
const MAX_LEAVES: usize = 65_536;
/// Bytes of entries that are kept, about.
const MAX_ENTRY_BYTES: usize = 2 << 20;
/// What an entry costs besides its bytes.
const ENTRY_BYTES: usize = 128;

/// Pages and entries of one snapshot, as far as they were read.
#[derive(Default)]
pub(super) struct Known {
    inner: Mutex<Inner>,
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
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The page with this prefix, if it was read lately.
    pub(super) fn page(&self, prefix: &Prefix) -> Option<KnownPage> {
        self.lock().pages.get(prefix).cloned()
    }

    /// Keeps a page; its hash was compared with that of the tree.
    pub(super) fn keep_page(&self, prefix: Prefix, page: KnownPage) {
        let weight = page.leaves.len();
        self.lock().pages.keep(prefix, page, weight, MAX_LEAVES);
    }

    /// The entry with this key hash, if it was read lately.
    pub(super) fn entry(&self, key: &KeyHash) -> Option<Entry> {
        self.lock().entries.get(key).cloned()
    }

    /// Keeps an entry; it was compared with its leaf.
    pub(super) fn keep_entry(&self, key: KeyHash, entry: Entry) {
        let siblings = entry.record.siblings().len() * SIBLING_BYTES;
        let weight = ENTRY_BYTES + entry.key.as_bytes().len() + siblings;
        self.lock().entries.keep(key, entry, weight, MAX_ENTRY_BYTES);
    }
}

/// What came last, up to a weight: two generations, of which the older goes when the younger has
/// half of the weight.
struct Recent<K, V> {
    young: BTreeMap<K, V>,
    old: BTreeMap<K, V>,
    /// Of the younger ones.
    weight: usize,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { young: BTreeMap::new(), old: BTreeMap::new(), weight: 0 }
    }
}

impl<K: Ord, V> Recent<K, V> {
    fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    fn keep(&mut self, key: K, value: V, weight: usize, most: usize) {
        if self.weight + weight > most / 2 {
            self.old = std::mem::take(&mut self.young);
            self.weight = 0;
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
