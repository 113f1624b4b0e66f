//! Sketches of a live collection: made slice by slice after it was opened, and from then on kept
//! by the commits that change its tree.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::hash::{KeyHash, RecordDigest};
use crate::limits::Limits;
use crate::merkle::{Change, Leaf, PagedTree, Prefix};
use crate::sketch::kept::GROUPS;
use crate::sketch::{Depth, Shape, SketchedGroup, Sketches};
use crate::store::{Read, Store};
use crate::types::CollectionName;

use super::ReplicaError;
use super::collection::Collection;
use super::draft::KeyChange;
use super::pages::with_pages;
use super::rows::CollectionId;

/// Entries from which on fine buckets are kept too.
const FINE_FROM_ENTRIES: u64 = 1 << 18;
/// What is kept stays until there are fewer entries than this part of what it is kept from.
const DROPPED_BELOW: u64 = 2;

/// What became of a [step](Collection::warm_sketches).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Warming {
    /// A slice was read: there are more.
    Goes,
    /// There is nothing to be done: they are kept, or the collection is too small, or there is no
    /// memory left for them.
    Rests,
}

/// The sketches of a live tree.
pub(super) struct KeptSketches {
    /// Those of the whole tree.
    whole: Option<Sketches>,
    making: Option<Making>,
    /// Bytes set aside for them...
    bytes: usize,
    /// ...and for those of all collections.
    all: Arc<AtomicUsize>,
}

/// Sketches in the making.
struct Making {
    /// Tells it from others.
    token: Arc<()>,
    sketches: Sketches,
    /// The groups below count every change since their entries were read, or are read now.
    begun: usize,
    /// Groups that are read and added.
    merged: usize,
}

/// A group that is to be read from a snapshot.
struct Slice {
    token: Arc<()>,
    group: u8,
    shape: Shape,
}

/// What a commit changes: a record comes, goes, or both.
pub(super) struct Toggle {
    key: KeyHash,
    before: Option<RecordDigest>,
    after: Option<RecordDigest>,
}

impl Toggle {
    fn apply(&self, sketches: &mut Sketches) {
        if let Some(before) = &self.before {
            sketches.remove(&self.key, before);
        }
        if let Some(after) = &self.after {
            sketches.add(&self.key, after);
        }
    }
}

impl KeptSketches {
    pub(super) const fn new(all: Arc<AtomicUsize>) -> Self {
        Self { whole: None, making: None, bytes: 0, all }
    }

    /// Those of just the live tree, once they are made.
    pub(super) const fn whole(&self) -> Option<&Sketches> {
        self.whole.as_ref()
    }

    /// Bytes set aside.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// What keys that a commit changes mean here.
    pub(super) fn toggles(&self, keys: &[KeyChange]) -> Vec<Toggle> {
        if self.whole.is_none() && self.making.is_none() {
            return Vec::new();
        }
        let toggle = |change: &KeyChange| Toggle {
            key: change.key_hash,
            before: change.before,
            after: match change.leaf {
                Change::Put(Leaf { record, .. }) => Some(record),
                Change::Remove(_) => None,
            },
        };
        keys.iter().map(toggle).collect()
    }

    /// Takes what the store has taken.
    pub(super) fn apply(&mut self, toggles: &[Toggle]) {
        if let Some(whole) = &mut self.whole {
            toggles.iter().for_each(|toggle| toggle.apply(whole));
        }
        if let Some(making) = &mut self.making {
            let begun = |toggle: &&Toggle| usize::from(toggle.key.bucket()) < making.begun;
            toggles.iter().filter(begun).for_each(|toggle| toggle.apply(&mut making.sketches));
        }
    }

    /// Forgets them all.
    pub(super) fn drop_all(&mut self) {
        (self.whole, self.making) = (None, None);
        self.account();
    }

    /// What is to be read next for a tree of so many entries.
    fn next(&mut self, entries: u64, limits: &Limits) -> Option<Slice> {
        let of = |depth| Shape::new(depth, limits.kept_symbols);
        let kept = self.whole.as_ref().map(Sketches::shape);
        let has = |depth| {
            kept.is_some_and(|kept| kept.depth >= depth && kept.symbols == of(depth).symbols)
        };
        let from = |has: bool, from: u64| if has { from / DROPPED_BELOW } else { from };
        let making = self.making.as_ref().map(|making| making.sketches.shape());
        let room = limits.max_sketch_bytes.saturating_sub(self.all.load(Ordering::Relaxed));
        let has_room = |depth| has(depth) || making == Some(of(depth)) || of(depth).bytes() <= room;
        let is_large = entries >= from(has(Depth::Fine), FINE_FROM_ENTRIES);
        let wanted = if is_large && has_room(Depth::Fine) {
            Depth::Fine
        } else if entries >= from(has(Depth::Coarse), limits.sketches_from_entries) {
            Depth::Coarse
        } else {
            self.drop_all();
            return None;
        };
        if let Some(whole) = self.whole.as_mut().filter(|_| has(wanted)) {
            if whole.shape().depth > wanted {
                *whole = whole.coarse();
            }
            self.making = None;
            self.account();
            return None;
        }
        let shape = of(wanted);
        if making != Some(shape) {
            self.making = None;
            self.account();
            if !has_room(wanted) {
                return None;
            }
            let sketches = Sketches::new(shape);
            self.making = Some(Making { token: Arc::default(), sketches, begun: 0, merged: 0 });
            self.account();
        }
        let making = self.making.as_mut().filter(|making| making.begun < GROUPS)?;
        let (group, token) = (making.begun as u8, Arc::clone(&making.token));
        making.begun += 1;
        Some(Slice { token, group, shape })
    }

    /// Takes a slice that was read; none gives it up, and the making with it.
    fn merge(&mut self, slice: &Slice, part: Option<&SketchedGroup>) {
        let same = |making: &Making| Arc::ptr_eq(&making.token, &slice.token);
        let Some(making) = self.making.as_mut().filter(|making| same(making)) else { return };
        let Some(part) = part else {
            self.making = None;
            return self.account();
        };
        making.sketches.merge(part);
        making.merged += 1;
        if making.merged == GROUPS {
            self.whole = self.making.take().map(|making| making.sketches);
            self.account();
        }
    }

    /// Sets aside what they take now.
    fn account(&mut self) {
        let making = self.making.as_ref().map(|making| &making.sketches);
        let kept = self.whole.iter().chain(making);
        let bytes = kept.map(Sketches::memory_bytes).sum();
        let before = std::mem::replace(&mut self.bytes, bytes);
        self.all.fetch_add(bytes, Ordering::Relaxed);
        self.all.fetch_sub(before, Ordering::Relaxed);
    }
}

impl Drop for KeptSketches {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl<S: Store> Collection<S> {
    /// Makes sketches of what is held, if they are worth keeping, a slice at a time: reads about
    /// one entry of 256 from a snapshot, while puts and sessions go on. Once they are made, every
    /// commit keeps them, and sessions find them in their [view](super::CollectionView::sketches).
    ///
    /// Whoever runs a replica calls this now and then: after opening, and when a collection has
    /// grown. It is cheap when there is nothing to be done.
    ///
    /// # Errors
    /// The store failed, or the collection is damaged: what was made so far is dropped.
    pub fn warm_sketches(&self) -> Result<Warming, ReplicaError> {
        let begun = self.with_live(|live| {
            let Some(slice) = live.sketches.next(live.tree.len() as u64, &self.node.limits) else {
                return Ok(None);
            };
            match self.store.snapshot() {
                Ok(rows) => Ok(Some((slice, live.tree.clone(), rows))),
                Err(error) => {
                    live.sketches.merge(&slice, None);
                    Err(error.into())
                }
            }
        })?;
        let Some((slice, mut tree, rows)) = begun else { return Ok(Warming::Rests) };
        let (name, id) = (&self.spec.name, self.id);
        let part = sketched(&rows, (id, name), &mut tree, slice.group, slice.shape);
        self.with_live(|live| {
            live.sketches.merge(&slice, part.as_ref().ok());
            Ok(())
        })?;
        part.inspect_err(|error| self.note_rot(error)).map(|_| Warming::Goes)
    }

    /// Bytes of memory set aside for sketches of this collection: 0 where none are kept.
    pub fn sketch_bytes(&self) -> usize {
        self.with_live(|live| Ok(live.sketches.bytes())).unwrap_or(0)
    }

    /// Whether sketches are kept that no session has to make anew.
    pub fn has_sketches(&self) -> bool {
        self.with_live(|live| Ok(live.sketches.whole().is_some())).unwrap_or(false)
    }

    /// Whether sketches are those of a tree. If not, they are dropped where they are still live.
    pub(super) fn check_sketches(
        &self,
        rows: &S::Snapshot,
        tree: &PagedTree,
        sketches: &Sketches,
    ) -> Result<bool, ReplicaError> {
        let shape = sketches.shape();
        let mut made = Sketches::new(shape);
        for group in 0..=u8::MAX {
            // a copy of its own, so that only one group at a time is in memory
            let (from, mut tree) = ((self.id, &self.spec.name), tree.clone());
            made.merge(&sketched(rows, from, &mut tree, group, shape)?);
        }
        let same = made == *sketches;
        if !same {
            self.with_live(|live| {
                live.sketches.drop_all();
                Ok(())
            })?;
        }
        Ok(same)
    }
}

fn sketched(
    rows: &impl Read,
    (id, name): (CollectionId, &CollectionName),
    tree: &mut PagedTree,
    group: u8,
    shape: Shape,
) -> Result<SketchedGroup, ReplicaError> {
    let prefix = Prefix::of(&KeyHash([group; 32]), 8);
    let leaves: Vec<Leaf> =
        with_pages(rows, id, name, tree, |tree| tree.leaves_under(&prefix).collect())?;
    let items = leaves.iter().map(|leaf| (leaf.key, leaf.record));
    Ok(SketchedGroup::of_items(group, shape, items))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(bytes: usize, others: usize, entries: u64) -> Option<Depth> {
        asked_with(0, bytes, others, entries)
    }

    fn asked_with(symbols: usize, bytes: usize, others: usize, entries: u64) -> Option<Depth> {
        let all = Arc::new(AtomicUsize::new(others));
        let limits = Limits { max_sketch_bytes: bytes, kept_symbols: symbols, ..Limits::default() };
        let mut kept = KeptSketches::new(Arc::clone(&all));
        let slice = kept.next(entries, &limits);
        assert_eq!(all.load(Ordering::Relaxed), others + kept.bytes());
        assert!(all.load(Ordering::Relaxed) <= bytes.max(others));
        // what is begun goes on
        let again = kept.next(entries, &limits).map(|slice| (slice.shape, slice.group));
        assert_eq!(again, slice.as_ref().map(|slice| (slice.shape, 1)));
        slice.map(|slice| slice.shape.depth)
    }

    #[test]
    fn what_there_is_no_memory_for_is_kept_coarser_or_not_at_all() {
        let (coarse, fine) = (Depth::Coarse.bytes(), Depth::Fine.bytes());
        let large = FINE_FROM_ENTRIES;
        let small = Limits::default().sketches_from_entries;
        assert_eq!(asked(fine, 0, large), Some(Depth::Fine));
        assert_eq!(asked(fine, 1, large), Some(Depth::Coarse));
        assert_eq!(asked(coarse, 0, large), Some(Depth::Coarse));
        assert_eq!(asked(coarse, 1, large), None);
        assert_eq!(asked(fine, 0, small), Some(Depth::Coarse));
        assert_eq!(asked(coarse - 1, 0, small), None);
        assert_eq!(asked(fine, 0, small - 1), None);
        assert_eq!(asked(0, 5, large), None);
        // symbols count
        let with = Shape::new(Depth::Coarse, 1_000).bytes();
        assert_eq!(with - coarse, 1_024 / 64 * (64 * 16 + 24));
        assert_eq!(asked_with(1_000, with, 0, large), Some(Depth::Coarse));
        assert_eq!(asked_with(1_000, with - 1, 0, large), None);
    }
}
