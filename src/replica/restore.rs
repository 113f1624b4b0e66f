//! Restoring a collection from a backup: built beside what is there, and put in its place in one
//! commit.
//!
//! The backup is written under a number that no collection has, checked while it is read, and
//! becomes the collection only when all of it holds. A crash at any moment leaves the old state or
//! the new one; rows of the other are removed later, by [`Replica::sweep`].
//!
//! A restored collection needs nothing special to meet its peers (rule D1): the next put draws a
//! fresh writer, entries, context and exceptions are those of one moment (D10), and what may be
//! dropped is dropped: removal log, replaced values, what was remembered of joins. Certificates,
//! what was seen of peers' logs, evidence and reports are not part of a backup; those of the
//! collection that is replaced stay, and its logs are gone on from as any opening does.

use std::collections::BTreeSet;
use std::io;
use std::ops::Bound;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use crate::backup::{BackupError, Chain, Event};
use crate::entry::Record;
use crate::hash::{KeyHash, LogHead, Root};
use crate::merkle::log::first_item;
use crate::merkle::{Change, Envelope, Leaf, LogKind, PagedTree};
use crate::store::{Batch, Durability, Read, Span, Store, StoreError, Table};
use crate::types::{CollectionName, CollectionSpec, Key, NodeId};

use super::ReplicaError;
use super::collection::{Collection, State};
use super::commit::rows_of;
use super::loaded::LoadedPages;
use super::log::OpenLog;
use super::open::{Replica, for_each_row, read_head};
use super::pages::{self, ReadError};
use super::rows::{
    CollectionId, Head, LogRow, context_sum, counter_row, dot_of_key, read_collection,
    write_collection, write_entry, write_page,
};

/// A batch is written when it has so many bytes of rows, or so many entries.
const BATCH_BYTES: usize = 4 << 20;
const BATCH_ENTRIES: usize = 4_096;
/// Rows removed or copied at once.
const CHUNK: usize = 4_096;
/// Pages of the tree in the making that stay in memory.
const LOADED_PAGES: usize = 1_024;
/// What the rows begin with that name numbers whose rows are no collection's.
const PASSING: &[u8] = b"passing";
/// No log is ever this long.
const MAX_POSITION: u64 = 1 << 62;

/// What is asked of a restore.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct RestoreOptions {
    /// The name that the collection has from then on; none: that in the backup.
    pub name: Option<CollectionName>,
    /// Whether a collection of this name that holds or has seen anything may be replaced.
    pub replace: bool,
    /// Wall time, in milliseconds since 1970.
    pub now_ms: u64,
}

/// What was restored.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Restored {
    /// The collection.
    pub name: CollectionName,
    /// Its root.
    pub root: Root,
    /// Entries that it has.
    pub entries: u64,
    /// Bytes of all its siblings.
    pub bytes: u64,
    /// Values whose bytes were lost when the backup was made: peers give them back.
    pub missing: u64,
    /// The node that made the backup.
    pub node: NodeId,
    /// When it was made, by that node's wall clock.
    pub taken_ms: u64,
    /// Whether there was a collection of this name, which is gone.
    pub replaced: bool,
}

/// A backup that was not restored: nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotRestored {
    /// The backup cannot be used.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The replica failed, or has a collection of this name with other settings.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// There is a collection of this name.
    #[error(
        "there is a collection {name} already, with {entries} entries: to lose it and have the \
         backup in its place say so with --replace, or give the backup another name with \
         --collection"
    )]
    Exists {
        /// Its name.
        name: CollectionName,
        /// Entries that it has.
        entries: u64,
    },
}

impl From<StoreError> for NotRestored {
    fn from(error: StoreError) -> Self {
        Self::Replica(error.into())
    }
}

impl<S: Store> Replica<S> {
    /// Restores a chain of backups as a collection: a new one, or in place of one that is there.
    ///
    /// Everything is checked before anything is replaced: blocks, links, values, the root of the
    /// entries, the context and its dots. Cut short at any moment, by a crash too, it leaves what
    /// was there or what was restored, whole. Handles on a collection that was replaced answer
    /// with an error from then on, and sessions that read it end without a join.
    ///
    /// Holds one value and some megabytes of rows and pages, besides what the [`Chain`] holds.
    ///
    /// # Errors
    /// The backup does not hold, names a resolver that is not known here, there is a collection
    /// that may not be replaced or has other settings, or the store failed; nothing was changed.
    pub fn restore<R: io::Read>(
        &self,
        chain: &mut Chain<R>,
        options: &RestoreOptions,
    ) -> Result<Restored, NotRestored> {
        let mut spec = chain.head().spec().clone();
        if let Some(name) = &options.name {
            spec.name = name.clone();
        }
        self.node.resolvers.of(&spec.policy).map_err(ReplicaError::from)?;
        self.check_place(&spec, options.replace)?;
        let id = self.reserve()?;
        let restored = self.restore_as(id, spec, chain, options);
        let over = match &restored {
            Ok((_, replaced)) => *replaced,
            Err(_) => Some(id),
        };
        if let Some(over) = over {
            // what cannot be removed now is removed when the replica is opened again
            let _ = wipe(&*self.store, over, usize::MAX);
        }
        self.restoring().remove(&id);
        restored.map(|(restored, _)| restored)
    }

    fn restoring(&self) -> MutexGuard<'_, BTreeSet<CollectionId>> {
        self.restoring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn restore_as<R: io::Read>(
        &self,
        id: CollectionId,
        spec: CollectionSpec,
        chain: &mut Chain<R>,
        options: &RestoreOptions,
    ) -> Result<(Restored, Option<CollectionId>), NotRestored> {
        let mut staging = Staging::new(&*self.store, id, &spec, self.page_leaves);
        let head = staging.fill(chain)?;
        let envelope = Envelope::new(spec.clone(), staging.tree.tree_hash(), staging.tree.totals())
            .map_err(|_| BackupError::Root)?;
        drop(staging);
        let totals = envelope.totals();
        // what is from too far ahead does not move this node's clock (rule D8)
        let drift = self.node.limits.max_clock_drift_ms;
        let _ = self.node.clock().observe(totals.latest, options.now_ms, drift);
        let head = Head { root: envelope.root(), clock: self.node.clock().seen(), ..head };
        let replaced = self.switch(id, &spec, head, options)?;
        let restored = Restored {
            name: spec.name,
            root: envelope.root(),
            entries: totals.entries,
            bytes: totals.bytes,
            missing: chain.missing(),
            node: chain.head().node,
            taken_ms: chain.head().taken_ms,
            replaced: replaced.was_there,
        };
        Ok((restored, replaced.number))
    }

    /// Whether a collection with these settings may come to its name.
    fn check_place(&self, spec: &CollectionSpec, replace: bool) -> Result<(), NotRestored> {
        match self.collection(&spec.name) {
            Ok(there) => {
                let same = there.spec() == spec;
                if !same {
                    return Err(ReplicaError::other_spec(there.spec(), spec).into());
                }
                if replace || there.is_untouched()? {
                    return Ok(());
                }
                let entries = there.totals()?.entries;
                Err(NotRestored::Exists { name: spec.name.clone(), entries })
            }
            Err(ReplicaError::UnknownCollection(_)) => Ok(()),
            // a row of the list that cannot be read may be its own
            Err(_) if replace => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A number for rows that are no collection yet: written down first, so that they are removed
    /// if nothing comes of it.
    fn reserve(&self) -> Result<CollectionId, NotRestored> {
        let _creating = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
        let id = self.fresh_id()?;
        let mut batch = Batch::default();
        batch.put(Table::Meta, &passing(id), &[]);
        self.store.commit(batch, Durability::Always)?;
        self.restoring().insert(id);
        Ok(id)
    }

    /// Puts what was built in the place of what is there, in one commit.
    fn switch(
        &self,
        id: CollectionId,
        spec: &CollectionSpec,
        head: Head,
        options: &RestoreOptions,
    ) -> Result<Switched, NotRestored> {
        let RestoreOptions { replace, now_ms, .. } = *options;
        let _creating = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
        // it may have come, or been written to, meanwhile
        self.check_place(spec, replace)?;
        let Ok(old) = self.collection(&spec.name) else {
            let over = self.rows_of_damaged(&spec.name)?;
            self.come_to_be(id, spec, head, over, now_ms)?;
            self.open_restored(id, spec, 0)?;
            let was_there = self.damaged_rows().iter().any(|row| row.is_of(&spec.name));
            self.forget_damaged(&spec.name);
            return Ok(Switched { number: over, was_there });
        };
        // whoever writes to it waits, and then finds that it was replaced
        let _told = old.told();
        let _certificates = old.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        let _reports = old.next_report.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = old.lock();
        let was_there = !matches!(&*state, State::Live(live) if live.is_untouched());
        if was_there && !replace {
            drop(state);
            self.check_place(spec, replace)?;
            return Err(NotRestored::Exists { name: spec.name.clone(), entries: 0 });
        }
        let head = old.carried_on(&state, head)?;
        copy_aside(&*self.store, old.id, id)?;
        self.come_to_be(id, spec, head, Some(old.id), now_ms)?;
        if let State::Live(live) = &*state {
            // sessions in flight must not tell of it once another one was drawn
            live.writer.set(None);
        }
        *state = State::Replaced;
        old.replaced.store(true, Ordering::Release);
        self.open_restored(id, spec, old.changes() + 1)?;
        Ok(Switched { number: Some(old.id), was_there })
    }

    /// The commit that makes rows a collection, and those of another number nobody's.
    fn come_to_be(
        &self,
        id: CollectionId,
        spec: &CollectionSpec,
        head: Head,
        over: Option<CollectionId>,
        now_ms: u64,
    ) -> Result<(), NotRestored> {
        let mut epoch = head.epoch;
        // no session or backup of before may take it for what it was
        while epoch == head.epoch {
            epoch = self.node.random_nonzero() >> 1;
        }
        let mut batch = Batch::default();
        let head = self.begin_log(id, spec, Head { epoch, ..head }, now_ms, &mut batch)?;
        batch.put(Table::Collections, spec.name.as_bytes(), &write_collection(id, spec));
        batch.put(Table::Heads, &id.head(), &head.to_row());
        batch.remove(Table::Meta, &passing(id));
        if let Some(over) = over {
            batch.put(Table::Meta, &passing(over), &[]);
        }
        self.store.commit(batch, Durability::Always)?;
        Ok(())
    }

    /// A change log of its own, behind the one that was there: what changes from here on is known
    /// by its position in it.
    fn begin_log(
        &self,
        id: CollectionId,
        spec: &CollectionSpec,
        head: Head,
        now_ms: u64,
        batch: &mut Batch,
    ) -> Result<Head, NotRestored> {
        let kind = LogKind::Changes;
        let previous = match OpenLog::previous_head(&*self.store, id, kind, spec, head.log()) {
            Err(ReadError::Store(error)) => return Err(error.into()),
            // one whose end is not known is not gone on from
            other => other.unwrap_or_default(),
        };
        let (log_id, position) = (self.node.random_nonzero(), head.position + 1);
        let previous = LogHead(first_item(previous));
        let row = LogRow::Opening { at_ms: now_ms, id: log_id, previous };
        let mut log = OpenLog::new(kind, spec, log_id);
        log.append(&row.item());
        log.write_peaks(&Vec::new(), id, batch);
        batch.put(Table::Log, &id.log(position), &row.to_row());
        let (log_first, log_floor, history_floor) = (position, position, position);
        Ok(Head { position, log_id, log_first, log_floor, history_floor, ..head })
    }

    fn open_restored(
        &self,
        id: CollectionId,
        spec: &CollectionSpec,
        changes: u64,
    ) -> Result<(), NotRestored> {
        let collection = Collection::load(&self.store, &self.node, id, spec.clone())?;
        collection.changes.store(changes, Ordering::Release);
        let mut open = self.collections.write().unwrap_or_else(PoisonError::into_inner);
        open.insert(spec.name.clone(), Arc::new(collection));
        Ok(())
    }

    /// The number of a collection whose row in the list is damaged, if it can only be one.
    fn rows_of_damaged(&self, name: &CollectionName) -> Result<Option<CollectionId>, NotRestored> {
        let damaged = self.damaged_rows();
        if damaged.len() != 1 || !damaged[0].is_of(name) {
            return Ok(None);
        }
        let orphans = self.orphans()?;
        Ok(if orphans.len() == 1 { orphans.first().copied() } else { None })
    }

    fn forget_damaged(&self, name: &CollectionName) {
        let mut rows = self.damaged.write().unwrap_or_else(PoisonError::into_inner);
        rows.retain(|row| !row.is_of(name));
    }

    /// Removes rows that a restore left which was cut short, or that it put something else in the
    /// place of; at most about `rows` of them. Whether any may be left. Opening does a little of
    /// it each time.
    ///
    /// # Errors
    /// The store failed.
    pub fn sweep(&self, rows: usize) -> Result<bool, ReplicaError> {
        let _creating = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
        let restoring = self.restoring().clone();
        Ok(sweep(&*self.store, &restoring, rows)?)
    }
}

struct Switched {
    /// The number of what was there, whose rows are nobody's now.
    number: Option<CollectionId>,
    /// Whether it held or had seen anything.
    was_there: bool,
}

impl<S: Store> Collection<S> {
    /// Whether it holds nothing and has never seen anything.
    fn is_untouched(&self) -> Result<bool, ReplicaError> {
        self.with_live(|live| Ok(live.is_untouched()))
    }

    /// The head of what takes this one's place: its logs and numbers go on.
    fn carried_on(&self, state: &State, head: Head) -> Result<Head, NotRestored> {
        let old = match state {
            State::Live(live) => Some(live.head.clone()),
            _ => match read_head(&*self.store, self.id) {
                Ok(old) => Some(old),
                Err(ReadError::Store(error)) => return Err(error.into()),
                Err(_) => None,
            },
        };
        let Some(old) = old else { return Ok(head) };
        Ok(Head {
            epoch: old.epoch,
            position: old.position.min(MAX_POSITION),
            log_id: old.log_id,
            log_first: old.log_first,
            evidence: old.evidence,
            ..head
        })
    }
}

/// A collection in the making.
struct Staging<'a, S> {
    store: &'a S,
    id: CollectionId,
    spec: &'a CollectionSpec,
    page_leaves: u16,
    tree: PagedTree,
    loaded: LoadedPages,
    batch: Batch,
    /// Bytes of values and records in it: adding up all of its rows each time would take longer
    /// than the restore.
    batch_bytes: usize,
    changes: Vec<Change>,
    siblings: u64,
}

impl<'a, S: Store> Staging<'a, S> {
    fn new(store: &'a S, id: CollectionId, spec: &'a CollectionSpec, page_leaves: u16) -> Self {
        Self {
            store,
            id,
            spec,
            page_leaves,
            tree: PagedTree::new(spec.algorithm, usize::from(page_leaves)),
            loaded: LoadedPages::new(Arc::default()),
            batch: Batch::default(),
            batch_bytes: 0,
            changes: Vec::new(),
            siblings: 0,
        }
    }

    /// Writes all rows but the head, which says where they are.
    fn fill<R: io::Read>(&mut self, chain: &mut Chain<R>) -> Result<Head, NotRestored> {
        let mut last = KeyHash([0; 32]);
        while let Some(event) = chain.next_event()? {
            match event {
                Event::Held { key_hash, key, record } => {
                    self.entry(&key_hash, &key, &record);
                    last = key_hash;
                }
                Event::Value { hash, value } => {
                    let row = self.id.value(&last, &hash);
                    match value {
                        Some(value) => {
                            self.batch_bytes += value.len();
                            self.batch.put_shared(Table::Values, &row, value);
                        }
                        None => self.batch.put(Table::Lost, &row, &[]),
                    }
                }
                Event::Gone(_) => {}
            }
            if self.batch_bytes >= BATCH_BYTES || self.changes.len() >= BATCH_ENTRIES {
                self.flush()?;
            }
        }
        self.flush()?;
        if self.tree.tree_hash() != chain.head().envelope.tree_hash() {
            return Err(BackupError::Root.into());
        }
        self.check_dots()?;
        let mut sum = 0_u128;
        for (key, counter) in rows_of(self.id, chain.causality()) {
            let row = counter_row(counter);
            sum = sum.wrapping_add(context_sum(&key, &row));
            self.batch.put_shared(Table::Context, &key, row);
            if self.batch.len() >= CHUNK {
                self.flush()?;
            }
        }
        self.flush()?;
        Ok(Head { context_sum: sum, ..Head::new(Root([0; 32]), self.page_leaves) })
    }

    fn entry(&mut self, key_hash: &KeyHash, key: &Key, record: &Record) {
        let row = write_entry(key, record);
        self.batch_bytes += row.len();
        self.batch.put(Table::Entries, &self.id.entry(key_hash), &row);
        for sibling in record.siblings() {
            self.batch.put(Table::Dots, &self.id.dot(sibling.dot), &key_hash.0);
            self.siblings += 1;
        }
        self.changes.push(Change::Put(Leaf {
            key: *key_hash,
            record: record.digest(self.spec.algorithm),
            totals: record.totals(),
        }));
    }

    /// Writes the rows, with the pages that they change: those need the rows of before.
    fn flush(&mut self) -> Result<(), NotRestored> {
        let changes = std::mem::take(&mut self.changes);
        pages::apply(self.store, self.id, &self.spec.name, &mut self.tree, &changes)?;
        let pages = self.tree.take_page_changes();
        for prefix in &pages.removed {
            self.batch.remove(Table::Pages, &self.id.page(prefix));
        }
        for row in &pages.written {
            self.batch.put(Table::Pages, &self.id.page(&row.prefix), &write_page(row));
        }
        self.store.apply(std::mem::take(&mut self.batch))?;
        self.batch_bytes = 0;
        self.loaded.bound(&mut self.tree, LOADED_PAGES);
        Ok(())
    }

    /// Each dot is held by one sibling alone: the index has as many as there are.
    fn check_dots(&self) -> Result<(), NotRestored> {
        let mut indexed = 0_u64;
        let mut last: Option<Box<[u8]>> = None;
        loop {
            let start = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let keys = self
                .store
                .scan_keys(Span::of(Table::Dots, &self.id.prefix()).start_at(start), CHUNK)?;
            indexed += keys.iter().filter_map(|key| dot_of_key(key).ok()).count() as u64;
            match keys.into_iter().next_back() {
                Some(key) => last = Some(key),
                None if indexed == self.siblings => return Ok(()),
                None => return Err(BackupError::SameDots(self.siblings - indexed).into()),
            }
        }
    }
}

fn passing(id: CollectionId) -> Vec<u8> {
    [PASSING, &id.prefix()].concat()
}

/// The numbers whose rows are no collection's, and are to be removed or yet to become one.
pub(super) fn passing_ids(store: &impl Read) -> Result<Vec<CollectionId>, StoreError> {
    let keys = store.scan_keys(Span::of(Table::Meta, PASSING), usize::MAX)?;
    let tail = |key: &[u8]| Some(u32::from_be_bytes(*key.strip_prefix(PASSING)?.first_chunk()?));
    Ok(keys.iter().filter_map(|key| tail(key)).map(CollectionId).collect())
}

/// Removes rows of numbers that are no collection's, but those under which a restore writes now.
/// Whether any may be left.
pub(super) fn sweep(
    store: &impl Store,
    restoring: &BTreeSet<CollectionId>,
    rows: usize,
) -> Result<bool, StoreError> {
    let mut left = rows;
    for id in passing_ids(store)? {
        if restoring.contains(&id) {
            continue;
        }
        let removed = if is_listed(store, id)? { 0 } else { wipe(store, id, left)? };
        left -= removed.min(left);
        if left == 0 {
            return Ok(true);
        }
        let mut batch = Batch::default();
        batch.remove(Table::Meta, &passing(id));
        store.commit(batch, Durability::Always)?;
    }
    Ok(false)
}

/// Whether a collection has this number after all.
fn is_listed(store: &impl Read, id: CollectionId) -> Result<bool, StoreError> {
    let rows = store.scan(Span::of(Table::Collections, &[]), usize::MAX)?;
    let number = |row: &crate::store::Row| Some(read_collection(&row.key, &row.value).ok()?.0);
    Ok(rows.iter().any(|row| number(row) == Some(id)))
}

/// The tables whose rows begin with the number of a collection.
pub(super) fn tables_of_collections() -> impl Iterator<Item = Table> {
    Table::ALL.into_iter().filter(|table| !matches!(table, Table::Meta | Table::Collections))
}

/// Removes rows of a number, at most about so many; how many. Synced, so that nothing waits for it
/// later.
fn wipe(store: &impl Store, id: CollectionId, most: usize) -> Result<usize, StoreError> {
    let mut removed = 0;
    for table in tables_of_collections() {
        let mut last: Option<Box<[u8]>> = None;
        while removed < most {
            // from the start again, a store would pass over all that was removed
            let start = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let keys = store.scan_keys(Span::of(table, &id.prefix()).start_at(start), CHUNK)?;
            let mut batch = Batch::default();
            keys.iter().for_each(|key| batch.remove(table, key));
            removed += keys.len();
            last = match keys.into_iter().next_back() {
                Some(key) => Some(key),
                None => break,
            };
            store.apply(batch)?;
        }
    }
    if removed > 0 {
        store.commit(Batch::default(), Durability::Always)?;
    }
    Ok(removed)
}

/// Copies what stands beside the entries of a collection and no backup holds: certificates, what
/// was seen of peers, evidence, reports, and where the logs are.
fn copy_aside(store: &impl Store, from: CollectionId, to: CollectionId) -> Result<(), NotRestored> {
    let mut batch = Batch::default();
    for table in
        [Table::Certificates, Table::Witness, Table::Evidence, Table::Reports, Table::Heads]
    {
        let copied = for_each_row(store, table, &from.prefix(), |row| {
            let rest = row.key.get(4..).unwrap_or_default();
            if table == Table::Heads && !is_of_logs(rest) {
                return Ok(());
            }
            batch.put_shared(table, &[&to.prefix(), rest].concat(), row.value);
            if batch.len() >= CHUNK {
                store.apply(std::mem::take(&mut batch))?;
            }
            Ok(())
        });
        // no row is parsed here, so none is damaged
        if let Err(ReadError::Store(error)) = copied {
            return Err(error.into());
        }
    }
    store.apply(batch)?;
    Ok(())
}

/// Whether a row of the heads is a peak of a log, or says where the certificate log is.
fn is_of_logs(rest: &[u8]) -> bool {
    matches!(rest, [1 | 2, _] | [3])
}
