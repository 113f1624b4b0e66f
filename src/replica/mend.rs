//! Mending what rotted, as far as no causality is in it.
//!
//! Rows that are a pure function of verified entries are written again from them: page rows and
//! the index of dots. Rows whose truth is in memory (head, context) are written again from there.
//! An entry is taken back from a peer only if with it its page hashes to what it did: then it is
//! the very entry that rotted, and nothing was seen or forgotten by that. What cannot be mended
//! so is lost, and rule D10 applies ([`Collection::recover`]).

use std::collections::{BTreeMap, BTreeSet};

use crate::entry::{Record, Totals};
use crate::hash::{KeyHash, RecordDigest};
use crate::merkle::{Envelope, Leaf, PagedTree, Prefix, Sealed};
use crate::store::{Batch, Durability, Read as _, Store, StoreError, Table};
use crate::types::{CollectionSpec, Key};

use super::ReplicaError;
use super::collection::{Collection, Live};
use super::commit::{Seen, rows_of};
use super::draft::{Drafted, Held};
use super::open::{for_each_row, read_head};
use super::pages::{self, Page, ReadError};
use super::rows::{
    CollectionId, LogRow, counter_row, read_entry, read_page, write_entry, write_page,
};
use super::scrub::walk::{Found, Moment, page_of_row};

/// Writes the page rows of a collection again, if they then have the root of its head: of each
/// page those of its entries, or if one of these rotted the row that is there. Whether they have.
pub(super) fn rebuild_pages<S: Store>(
    store: &S,
    id: CollectionId,
    spec: &CollectionSpec,
) -> Result<bool, StoreError> {
    let tree = match rebuilt(store, id, spec) {
        Ok(Some(tree)) => tree,
        Err(ReadError::Store(error)) => return Err(error),
        Ok(None) | Err(_) => return Ok(false),
    };
    let mut right: BTreeMap<Vec<u8>, Vec<u8>> =
        tree.rows().map(|row| (id.page(&row.prefix), write_page(&row))).collect();
    let mut batch = Batch::default();
    let read = for_each_row(store, Table::Pages, &id.prefix(), |row| {
        match right.get(&row.key[..]) {
            Some(value) if **value == *row.value => drop(right.remove(&row.key[..])),
            Some(_) => {}
            None => batch.remove(Table::Pages, &row.key),
        }
        Ok(())
    });
    if let Err(ReadError::Store(error)) = read {
        return Err(error);
    }
    for (key, row) in &right {
        batch.put(Table::Pages, key, row);
    }
    if batch.is_empty() {
        // the page rows are right: it is something else that is damaged
        return Ok(false);
    }
    let number = store.apply(batch)?;
    store.settle(number, Durability::Always)?;
    Ok(true)
}

/// The tree with all pages as they should be; none if nobody can say.
fn rebuilt<S: Store>(
    store: &S,
    id: CollectionId,
    spec: &CollectionSpec,
) -> Result<Option<PagedTree>, ReadError> {
    let head = read_head(store, id)?;
    if head.recovering {
        return Ok(None);
    }
    let mut leaves: Vec<Leaf> = Vec::new();
    let mut rotten = BTreeSet::new();
    for_each_row(store, Table::Entries, &id.prefix(), |row| {
        let key = pages::entry_key(&row.key)?;
        let entry = read_entry(&row.value).ok();
        let entry = entry.filter(|entry| spec.algorithm.key_hash(&entry.key) == key);
        leaves.push(entry.map_or_else(
            || {
                rotten.insert(key);
                // where pages begin and end is decided by the keys alone
                let totals = Totals { entries: 1, siblings: 1, ..Totals::default() };
                Leaf { key, record: RecordDigest([0; 32]), totals }
            },
            |entry| pages::leaf_of(spec.algorithm, key, &entry),
        ));
        Ok(())
    })?;
    let page_leaves = usize::from(head.page_leaves);
    let built = PagedTree::build(spec.algorithm, page_leaves, leaves)
        .map_err(|error| ReadError::damaged(error.to_string()))?;
    let mut rows = Vec::new();
    for row in built.rows() {
        let (first, last) = (row.prefix.first_key(), row.prefix.last_key());
        let stored = match rotten.range(first..=last).next() {
            Some(_) => store.get(Table::Pages, &id.page(&row.prefix))?,
            None => None,
        };
        let stored = stored.and_then(|value| read_page(&id.page(&row.prefix), &value).ok());
        rows.push(stored.unwrap_or(row));
    }
    let tree = PagedTree::from_rows(spec.algorithm, page_leaves, rows)
        .map_err(|error| ReadError::damaged(error.to_string()))?;
    let envelope = Envelope::new(spec.clone(), tree.tree_hash(), tree.totals());
    let has_root = envelope.is_ok_and(|envelope| envelope.root() == head.root);
    Ok(has_root.then_some(tree))
}

impl<S: Store> Collection<S> {
    /// Mends what a slice found and what nobody else is needed for; looks again first, since
    /// writers have gone on. Which of it is mended, in the same order. What needs a peer is
    /// written down.
    pub(super) fn mend(&self, found: &[Found]) -> Result<Vec<bool>, ReplicaError> {
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let moved = self.moved(found)?;
        if !moved.is_empty() {
            self.install_entries(&moved)?;
        }
        let (mended, number) = self.with_live(|live| {
            let mut mended = vec![false; found.len()];
            // whether a dot is held where the index says is asked once the index lacks none
            for last in [false, true] {
                let mut batch = Batch::default();
                for (mended, found) in mended.iter_mut().zip(found) {
                    if matches!(found, Found::StrayDot(_)) == last {
                        *mended = self.mend_one(live, found, &mut batch)?;
                    }
                }
                if !batch.is_empty() {
                    live.number = self.store.apply(batch)?;
                }
            }
            // the index is whole again: now a context can advance over what it held all the time
            for found in found {
                if let Found::Uncovered(dot) | Found::MissingDot(dot, _) = found {
                    self.cover(live, *dot)?;
                }
            }
            Ok((mended, live.number))
        })?;
        self.store.settle(number, self.node.durability)?;
        Ok(mended)
    }

    /// Entries whose rows stand under a key that is not theirs: if it is the key of the row that
    /// rotted, they are whole.
    fn moved(&self, found: &[Found]) -> Result<Vec<(Key, Record)>, ReplicaError> {
        let mut moved = Vec::new();
        for found in found {
            let Found::Stray(key) = found else { continue };
            let row = self.store.get(Table::Entries, &self.id.entry(key))?;
            let entry = row.and_then(|row| read_entry(&row).ok());
            moved.extend(entry.map(|entry| (entry.key, entry.record)));
        }
        Ok(moved)
    }

    fn mend_one(
        &self,
        live: &mut Live,
        found: &Found,
        batch: &mut Batch,
    ) -> Result<bool, ReplicaError> {
        match found {
            Found::Root | Found::Excepted(_) => return Ok(false),
            // checked at opening, and followed from commit to commit since
            Found::Head => batch.put(Table::Heads, &self.id.head(), &live.head.to_row()),
            Found::Context => return self.mend_context(live, batch),
            Found::Uncovered(_) => {}
            Found::Record(key) => {
                let there = self.held(live, key)?.is_some();
                if !there {
                    self.losses.note_record(key);
                }
                return Ok(there);
            }
            Found::Value(key, hash) => {
                self.losses.note(key, hash);
                return Ok(false);
            }
            Found::Stray(key) => match self.held(live, key)? {
                Some(None) => batch.remove(Table::Entries, &self.id.entry(key)),
                Some(Some(_)) => {}
                None => return self.drop_stray(live, key, batch),
            },
            Found::Page(prefix) => match live.tree.row(prefix) {
                // the tree hashes up to the root, so its rows are right whatever the disk says
                Some(row) => batch.put(Table::Pages, &self.id.page(prefix), &write_page(&row)),
                None => batch.remove(Table::Pages, &self.id.page(prefix)),
            },
            Found::StrayPage(row) => {
                if page_of_row(&live.tree, row).is_none() {
                    batch.remove(Table::Pages, row);
                }
            }
            Found::MissingDot(dot, key) => match self.held(live, key)? {
                Some(Some(record)) if record.holds(*dot) => {
                    batch.put(Table::Dots, &self.id.dot(*dot), &key.0);
                }
                Some(_) => {}
                None => return Ok(false),
            },
            Found::StrayDot(row) => return self.mend_stray_dot(live, row, batch),
            // an aid: without the row it says less, and nothing wrong
            Found::Log(row) => {
                let value = self.store.get(Table::Log, row)?;
                let rotten = value.is_some_and(|value| LogRow::parse(&value).is_err());
                if rotten || row.len() != self.id.log(0).len() {
                    batch.remove(Table::Log, row);
                }
            }
        }
        Ok(true)
    }

    /// What is held under a key, verified; none if its page does not verify.
    fn held(&self, live: &mut Live, key: &KeyHash) -> Result<Option<Option<Record>>, ReplicaError> {
        match self.entry_of(live, key) {
            Ok(entry) => Ok(Some(entry.map(|entry| entry.record))),
            Err(ReplicaError::Rotten { .. } | ReplicaError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A row too many keeps its page from being loaded, and may go if the others are the page.
    fn drop_stray(
        &self,
        live: &Live,
        key: &KeyHash,
        batch: &mut Batch,
    ) -> Result<bool, ReplicaError> {
        let Some(prefix) = live.tree.page_of(key) else { return Ok(false) };
        let page = Page::read(&*self.store, self.id, &live.tree, &prefix)?;
        let stray = page.stray.contains(key);
        if stray {
            batch.remove(Table::Entries, &self.id.entry(key));
        }
        Ok(stray)
    }

    fn mend_context(&self, live: &Live, batch: &mut Batch) -> Result<bool, ReplicaError> {
        let mut rows = rows_of(self.id, &live.causality);
        for_each_row(&*self.store, Table::Context, &self.id.prefix(), |row| {
            let right = rows.get(&row.key[..]).map(|counter| counter_row(*counter));
            match right {
                Some(right) if right == row.value => drop(rows.remove(&row.key[..])),
                Some(_) => {}
                None => batch.remove(Table::Context, &row.key),
            }
            Ok(())
        })
        .map_err(|error| error.of(self.name()))?;
        for (key, counter) in rows {
            batch.put_shared(Table::Context, &key, counter_row(counter));
        }
        Ok(true)
    }

    fn mend_stray_dot(
        &self,
        live: &Live,
        row: &[u8],
        batch: &mut Batch,
    ) -> Result<bool, ReplicaError> {
        let Some(value) = self.store.get(Table::Dots, row)? else { return Ok(true) };
        let moment = Moment {
            rows: &*self.store,
            id: self.id,
            spec: &self.spec,
            tree: live.tree.clone(),
            causality: &live.causality,
            head: &live.head,
        };
        if moment.is_stray(&mut live.tree.clone(), row, &value)? {
            batch.remove(Table::Dots, row);
        }
        Ok(true)
    }

    /// Advances the context over a dot that is held right above it. That changes nothing of what
    /// was seen: while the index lacked the dot, the context could not be canonical.
    fn cover(&self, live: &mut Live, dot: crate::dots::Dot) -> Result<(), ReplicaError> {
        let before = live.causality.slice([dot.writer()]);
        if before.counter(dot.writer()).checked_add(1) != Some(dot.counter()) {
            return Ok(());
        }
        let none = BTreeMap::new();
        let from = (&*self.store, self.id, &self.spec.name);
        let held = Held::new(from, &live.tree, &none, None);
        let mut after = before.clone();
        if held.contains(dot) {
            after.observe(dot, |dot| held.contains(dot));
        }
        held.finish()?;
        if after != before {
            let writer = live.writer.present();
            let now_ms = self.node.clock().seen().millis();
            self.commit(live, Drafted::default(), &Seen { before, after }, writer, now_ms)?;
        }
        Ok(())
    }

    /// Takes entries back that rotted here, as a peer has them: those with which their page, or
    /// their leaf, hashes to what it did. The others are not what rotted, and left alone. How
    /// many were taken.
    ///
    /// No causality in that: the tree, the context and the root stay as they are.
    ///
    /// # Errors
    /// The store failed, or the collection is damaged.
    pub fn install_entries(&self, entries: &[(Key, Record)]) -> Result<u64, ReplicaError> {
        let given: BTreeMap<KeyHash, (&Key, &Record)> =
            entries.iter().map(|(key, record)| (self.key_hash(key), (key, record))).collect();
        let (installed, number) = self.with_live(|live| {
            let mut batch = Batch::default();
            let mut installed = BTreeSet::new();
            for &key in given.keys() {
                if installed.contains(&key) || self.held(live, &key)?.is_some() {
                    continue;
                }
                let taken = match live.tree.get(&key) {
                    Ok(leaf) => {
                        let (_, record) = given[&key];
                        let digest = record.digest(self.spec.algorithm);
                        let right = leaf.is_some_and(|leaf| leaf.record == digest);
                        if right { vec![key] } else { Vec::new() }
                    }
                    Err(Sealed(prefix)) => self.refill(live, &prefix, &given)?,
                };
                for key in taken {
                    let (full, record) = given[&key];
                    batch.put(Table::Entries, &self.id.entry(&key), &write_entry(full, record));
                    for sibling in record.siblings() {
                        batch.put(Table::Dots, &self.id.dot(sibling.dot), &key.0);
                    }
                    batch.remove(Table::Lost, &self.id.entry(&key));
                    installed.insert(key);
                }
            }
            if !batch.is_empty() {
                live.number = self.store.apply(batch)?;
            }
            for key in &installed {
                self.losses.forget(key, None);
                let (_, record) = given[key];
                for sibling in record.versions() {
                    if self.stored_value(key, &sibling.value_hash)?.is_none() {
                        self.losses.note(key, &sibling.value_hash);
                    }
                }
            }
            Ok((installed.len() as u64, live.number))
        })?;
        if installed > 0 {
            self.store.settle(number, self.node.durability)?;
        }
        Ok(installed)
    }

    /// Loads a page that rotted, with what was given in place of what rotted. The keys that were
    /// taken from what was given; none if the page does not verify with them either.
    fn refill(
        &self,
        live: &mut Live,
        prefix: &Prefix,
        given: &BTreeMap<KeyHash, (&Key, &Record)>,
    ) -> Result<Vec<KeyHash>, ReplicaError> {
        let algorithm = self.spec.algorithm;
        let page = Page::read(&*self.store, self.id, &live.tree, prefix)?;
        let new = |key: &KeyHash| {
            let (_, record) = given.get(key)?;
            let old = page.sound.get(key).is_some_and(|entry| entry.record == **record);
            (!old).then_some((*key, *record))
        };
        let candidates: Vec<(KeyHash, &Record)> = page.rotten.iter().filter_map(new).collect();
        let leaves = |taken: &[(KeyHash, &Record)]| {
            let mut leaves: BTreeMap<KeyHash, Leaf> = page
                .sound
                .iter()
                .map(|(key, entry)| (*key, pages::leaf_of(algorithm, *key, entry)))
                .collect();
            for &(key, record) in taken {
                let record_digest = record.digest(algorithm);
                leaves.insert(key, Leaf { key, record: record_digest, totals: record.totals() });
            }
            leaves.into_values().collect::<Vec<_>>()
        };
        // all that is missing, or one that looked sound and was not
        let mut tries: Vec<&[(KeyHash, &Record)]> = vec![&candidates];
        if candidates.len() > 1 {
            tries.extend(candidates.chunks(1));
        }
        for taken in tries {
            if !taken.is_empty() && live.tree.unseal(prefix, leaves(taken)).is_ok() {
                return Ok(taken.iter().map(|(key, _)| *key).collect());
            }
        }
        Ok(Vec::new())
    }
}
