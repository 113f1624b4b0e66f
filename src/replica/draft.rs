//! A change in the making: entries and dots as they will be, over those that are.
//!
//! Nothing here touches what is live but pages, which are loaded where the change needs them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::dots::{Causality, Dot, Writer};
use crate::entry::{Record, Sibling};
use crate::hash::{HashAlgorithm, KeyHash, RecordDigest, ValueHash};
use crate::merkle::{Change, Leaf, PagedTree};
use crate::store::{Batch, Read, Span, Table};
use crate::types::{CollectionName, Key};

use super::collection::PresentWriter;
use super::evidence::SameDot;
use super::known::Known;
use super::rows::{CollectionId, HistoryRow, LogRow, write_entry};
use super::view::Entry;
use super::{ReplicaError, pages};

/// Replaced values of a key that are looked at to find when it was deleted.
const PAST: usize = 64;

/// What a draft reads from: the live state of one collection.
pub(super) struct Ground<'a, S> {
    pub(super) id: CollectionId,
    pub(super) name: &'a CollectionName,
    pub(super) algorithm: HashAlgorithm,
    pub(super) epoch: u64,
    /// Bytes of replaced values.
    pub(super) history_bytes: u64,
    pub(super) store: &'a S,
    pub(super) causality: &'a Causality,
    pub(super) tree: &'a mut PagedTree,
    /// What a snapshot has read, if the change comes from one.
    pub(super) known: Option<Arc<Known>>,
}

/// A key as it was and as it will be.
struct Touched {
    key: Option<Key>,
    before: Option<Record>,
    siblings: Vec<Sibling>,
}

impl Drafted {
    /// The present writer, unless the draft holds a dot of it that it did not write: then a
    /// clone uses it too, and the next put draws a fresh one.
    pub(super) fn still_own(&self, writer: Option<PresentWriter>) -> Option<PresentWriter> {
        writer.filter(|present| {
            let next = Dot::of(present.writer, present.counter.saturating_add(1));
            let last = Dot::of(present.writer, u64::MAX);
            next.zip(last).is_some_and(|(next, last)| {
                next > last || self.dots.range(next..=last).next().is_none()
            })
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.dots.is_empty() && self.evidence.is_empty()
    }
}

pub(super) struct Draft<'a, S> {
    ground: Ground<'a, S>,
    touched: BTreeMap<KeyHash, Touched>,
    // the index of dots as it will be, where it changes
    dots: BTreeMap<Dot, Option<KeyHash>>,
    values: BTreeMap<(KeyHash, ValueHash), Arc<[u8]>>,
    evidence: Vec<SameDot>,
}

/// What became of one key.
pub(super) struct KeyChange {
    pub(super) key_hash: KeyHash,
    pub(super) before: Option<RecordDigest>,
    pub(super) after: Option<Record>,
    pub(super) leaf: Change,
    pub(super) removed: Vec<Dot>,
    pub(super) replaced: Vec<(ValueHash, u64)>,
}

/// A draft that is done.
#[derive(Default)]
pub(super) struct Drafted {
    pub(super) batch: Batch,
    pub(super) keys: Vec<KeyChange>,
    /// Dots whose holder changes.
    pub(super) dots: BTreeMap<Dot, Option<KeyHash>>,
    pub(super) evidence: Vec<SameDot>,
}

impl<'a, S: Read> Draft<'a, S> {
    pub(super) const fn new(ground: Ground<'a, S>) -> Self {
        Self {
            ground,
            touched: BTreeMap::new(),
            dots: BTreeMap::new(),
            values: BTreeMap::new(),
            evidence: Vec::new(),
        }
    }

    /// Lets the draft use what a snapshot has read, as far as it is still what is live.
    pub(super) fn know(&mut self, known: Arc<Known>) {
        self.ground.known = Some(known);
    }

    /// Counts recoveries.
    pub(super) const fn epoch(&self) -> u64 {
        self.ground.epoch
    }

    /// Whether anything was ever seen of a writer, as far as this replica remembers.
    pub(super) fn knows_writer(&self, writer: Writer) -> Result<bool, ReplicaError> {
        let Ground { id, store, causality, .. } = &self.ground;
        Ok(causality.counter(writer) > 0
            || causality.exceptions().runs_of(writer).next().is_some()
            || self.dots.keys().any(|dot| dot.writer() == writer)
            || !store.scan_keys(Span::of(Table::Dots, &id.writer_dots(writer)), 1)?.is_empty())
    }

    /// The siblings of a key as they stand in this draft.
    pub(super) fn siblings(&mut self, key_hash: &KeyHash) -> Result<&[Sibling], ReplicaError> {
        self.load(key_hash)?;
        Ok(self.touched.get(key_hash).map_or(&[], |touched| &touched.siblings))
    }

    /// A key that this draft has touched, if anything is or was held under it.
    pub(super) fn key(&self, key_hash: &KeyHash) -> Option<Key> {
        self.touched.get(key_hash)?.key.clone()
    }

    /// When the key was deleted, if that was the last that became of it and the history still
    /// has what it was: a range scan over its replaced values.
    pub(super) fn deleted_at(&self, key_hash: &KeyHash) -> Result<Option<u64>, ReplicaError> {
        let Ground { id, store, history_bytes, .. } = &self.ground;
        if *history_bytes == 0 {
            return Ok(None);
        }
        let rows = store.scan(Span::of(Table::History, &id.entry(key_hash)), PAST)?;
        // an aid: what rotted is not there
        let past = rows.iter().filter_map(|row| HistoryRow::parse(&row.value).ok());
        let Some(last) = past.max_by_key(|row| row.position) else { return Ok(None) };
        let row = store.get(Table::Log, &id.log(last.position))?;
        Ok(match row.and_then(|row| LogRow::parse(&row).ok()) {
            Some(LogRow::Change { record: None, at_ms, .. }) => Some(at_ms),
            _ => None,
        })
    }

    /// The key under which a dot is held.
    pub(super) fn holder(&self, dot: Dot) -> Result<Option<KeyHash>, ReplicaError> {
        match self.dots.get(&dot) {
            Some(&holder) => Ok(holder),
            None => stored_holder(self.ground.store, self.ground.id, dot)
                .map_err(|error| error.of(self.ground.name)),
        }
    }

    /// Whether a dot that has no [`holder`](Self::holder) was seen all the same: covered, an
    /// exception, or removed in this draft.
    pub(super) fn was_seen(&self, dot: Dot) -> bool {
        self.ground.causality.knows(dot) || self.dots.contains_key(&dot)
    }

    /// Whether a dot of the present writer is taken, as far as memory knows: a dot of it that
    /// somebody else wrote ends the writer when it is applied, so no index need be asked.
    pub(super) fn is_taken(&self, own: Dot) -> bool {
        self.ground.causality.knows(own) || self.dots.contains_key(&own)
    }

    /// Size of a value that is, or will be, held for this key.
    pub(super) fn value_size(
        &self,
        key_hash: &KeyHash,
        hash: &ValueHash,
    ) -> Result<Option<u64>, ReplicaError> {
        if let Some(value) = self.values.get(&(*key_hash, *hash)) {
            return Ok(Some(value.len() as u64));
        }
        Ok(self.ground.store.size_of(Table::Values, &self.ground.id.value(key_hash, hash))?)
    }

    /// Takes a dot out of the entries (rule D4); says whether it was held under this key.
    pub(super) fn remove(&mut self, key_hash: &KeyHash, dot: Dot) -> Result<bool, ReplicaError> {
        self.load(key_hash)?;
        let Some(touched) = self.touched.get_mut(key_hash) else { return Ok(false) };
        let Some(at) = touched.siblings.iter().position(|sibling| sibling.dot == dot) else {
            return Ok(false);
        };
        touched.siblings.swap_remove(at);
        self.dots.insert(dot, None);
        Ok(true)
    }

    /// Adds a sibling; its value must be held for this key if none is given.
    pub(super) fn add(
        &mut self,
        key: &Key,
        key_hash: &KeyHash,
        sibling: Sibling,
        value: Option<Arc<[u8]>>,
    ) -> Result<(), ReplicaError> {
        self.load(key_hash)?;
        if let Some(touched) = self.touched.get_mut(key_hash) {
            touched.key.get_or_insert_with(|| key.clone());
            touched.siblings.push(sibling);
        }
        self.dots.insert(sibling.dot, Some(*key_hash));
        if let Some(value) = value {
            self.values.insert((*key_hash, sibling.value_hash), value);
        }
        Ok(())
    }

    /// Keeps a sibling that lost against another with the same dot.
    pub(super) fn keep_evidence(&mut self, evidence: SameDot) {
        self.evidence.push(evidence);
    }

    fn load(&mut self, key_hash: &KeyHash) -> Result<(), ReplicaError> {
        if self.touched.contains_key(key_hash) {
            return Ok(());
        }
        let Ground { id, name, algorithm, store, tree, known, .. } = &mut self.ground;
        let leaf = pages::with_known_pages(*store, (*id, name), known.as_deref(), tree, |tree| {
            tree.get(key_hash)
        })?;
        let is_leaf =
            |entry: &Entry| leaf.is_some_and(|leaf| leaf.record == entry.record.digest(*algorithm));
        let entry = match known.as_ref().and_then(|known| known.entry(key_hash)).filter(is_leaf) {
            Some(entry) => Some(entry),
            None => pages::read_checked(*store, *id, *algorithm, key_hash, leaf.as_ref())
                .map_err(|error| error.of(name))?,
        };
        let touched = match entry {
            Some(entry) => Touched {
                key: Some(entry.key),
                siblings: entry.record.siblings().to_vec(),
                before: Some(entry.record),
            },
            None => Touched { key: None, before: None, siblings: Vec::new() },
        };
        self.touched.insert(*key_hash, touched);
        Ok(())
    }

    /// The rows of entries, values and dots; what is as it was is left out.
    pub(super) fn finish(self) -> Result<Drafted, ReplicaError> {
        let Self { ground, touched, dots, values, evidence } = self;
        let mut batch = Batch::default();
        let mut keys = Vec::with_capacity(touched.len());
        for (key_hash, touched) in touched {
            let change = touched.into_change(&ground, key_hash, &dots, &values, &mut batch)?;
            keys.extend(change);
        }
        for (dot, holder) in &dots {
            match holder {
                Some(key) => batch.put(Table::Dots, &ground.id.dot(*dot), &key.0),
                None => batch.remove(Table::Dots, &ground.id.dot(*dot)),
            }
        }
        Ok(Drafted { batch, keys, dots, evidence })
    }
}

impl Touched {
    fn into_change<S>(
        self,
        ground: &Ground<'_, S>,
        key_hash: KeyHash,
        dots: &BTreeMap<Dot, Option<KeyHash>>,
        values: &BTreeMap<(KeyHash, ValueHash), Arc<[u8]>>,
        batch: &mut Batch,
    ) -> Result<Option<KeyChange>, ReplicaError> {
        let Self { key, before, siblings } = self;
        let after = match siblings.len() {
            0 => None,
            found => Some(
                Record::new(siblings)
                    .map_err(|_| ReplicaError::Siblings { found, limit: 65_535 })?,
            ),
        };
        if after == before {
            return Ok(None);
        }
        let live: BTreeSet<ValueHash> = hashes(after.as_ref()).collect();
        match (&after, &key) {
            (Some(record), Some(key)) => {
                let row = write_entry(key, record);
                batch.put(Table::Entries, &ground.id.entry(&key_hash), &row);
            }
            _ => batch.remove(Table::Entries, &ground.id.entry(&key_hash)),
        }
        for hash in &live {
            if let Some(value) = values.get(&(key_hash, *hash)) {
                let row = ground.id.value(&key_hash, hash);
                batch.put_shared(Table::Values, &row, Arc::clone(value));
            }
        }
        let old = before.as_ref().map_or(&[][..], Record::siblings);
        let removed = old.iter().map(|sibling| sibling.dot);
        let removed = removed.filter(|dot| dots.get(dot) == Some(&None)).collect();
        let replaced: BTreeMap<ValueHash, u64> = old
            .iter()
            .filter(|sibling| !live.contains(&sibling.value_hash))
            .map(|sibling| (sibling.value_hash, sibling.size))
            .collect();
        let leaf = change(ground.algorithm, key_hash, after.as_ref());
        let replaced = replaced.into_iter().collect();
        let before = before.as_ref().map(|record| record.digest(ground.algorithm));
        Ok(Some(KeyChange { key_hash, before, after, leaf, removed, replaced }))
    }
}

fn hashes(record: Option<&Record>) -> impl Iterator<Item = ValueHash> {
    record.map_or(&[][..], Record::siblings).iter().map(|sibling| sibling.value_hash)
}

fn change(algorithm: HashAlgorithm, key: KeyHash, record: Option<&Record>) -> Change {
    record.map_or(Change::Remove(key), |record| {
        Change::Put(Leaf { key, record: record.digest(algorithm), totals: record.totals() })
    })
}

/// The key under which the store holds a dot.
pub(super) fn stored_holder(
    store: &impl Read,
    id: CollectionId,
    dot: Dot,
) -> Result<Option<KeyHash>, pages::ReadError> {
    let Some(row) = store.get(Table::Dots, &id.dot(dot))? else { return Ok(None) };
    let key = <[u8; 32]>::try_from(&*row)
        .map_err(|_| pages::ReadError::damaged(format!("the index row of dot {dot}")))?;
    Ok(Some(KeyHash(key)))
}

/// Which dots will be held, for a context that advances over them.
///
/// A context that advances over a dot says that it was seen, and later that it is dead: so the
/// index is not believed alone. A dot that it has counts as held only if the entry that it names
/// verifies against the tree and holds it (rule D10). A failure cannot pass through the context:
/// it is kept, and must be asked for afterwards.
pub(super) struct Held<'a, S> {
    store: &'a S,
    id: CollectionId,
    name: &'a CollectionName,
    dots: &'a BTreeMap<Dot, Option<KeyHash>>,
    /// The present writer: above its counter nothing is stored.
    own: Option<PresentWriter>,
    /// The tree of what is stored, in which pages are loaded.
    tree: RefCell<PagedTree>,
    failure: RefCell<Option<ReplicaError>>,
}

impl<'a, S: Read> Held<'a, S> {
    pub(super) fn new(
        (store, id, name): (&'a S, CollectionId, &'a CollectionName),
        tree: &PagedTree,
        dots: &'a BTreeMap<Dot, Option<KeyHash>>,
        own: Option<PresentWriter>,
    ) -> Self {
        let tree = RefCell::new(tree.clone());
        Self { store, id, name, dots, own, tree, failure: RefCell::new(None) }
    }

    pub(super) fn contains(&self, dot: Dot) -> bool {
        if let Some(holder) = self.dots.get(&dot) {
            return holder.is_some();
        }
        let above = |own: PresentWriter| own.writer == dot.writer() && own.counter < dot.counter();
        if self.own.is_some_and(above) {
            return false;
        }
        self.is_stored(dot).unwrap_or_else(|error| {
            self.failure.replace(Some(error));
            false
        })
    }

    fn is_stored(&self, dot: Dot) -> Result<bool, ReplicaError> {
        let holder = match stored_holder(self.store, self.id, dot) {
            Ok(Some(holder)) => holder,
            // a row that says nothing says no dot
            Ok(None) | Err(pages::ReadError::Damaged(_)) => return Ok(false),
            Err(error) => return Err(error.of(self.name)),
        };
        let mut tree = self.tree.borrow_mut();
        let algorithm = tree.algorithm();
        let leaf =
            pages::with_pages(self.store, self.id, self.name, &mut tree, |tree| tree.get(&holder))?;
        let entry = pages::read_checked(self.store, self.id, algorithm, &holder, leaf.as_ref())
            .map_err(|error| error.of(self.name))?;
        Ok(entry.is_some_and(|entry| entry.record.holds(dot)))
    }

    pub(super) fn finish(self) -> Result<(), ReplicaError> {
        self.failure.into_inner().map_or(Ok(()), Err)
    }
}
