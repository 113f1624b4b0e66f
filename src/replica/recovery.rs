//! Checking a collection against itself, and recovering one that is damaged (rule D10).

use std::ops::Bound;

use crate::clock::Stamp;
use crate::dots::{Causality, DotSet};
use crate::entry::{Record, Sibling};
use crate::hash::{KeyHash, ValueHash};
use crate::merkle::{Envelope, Leaf, LogKind, PagedTree};
use crate::store::{Batch, CommitNumber, Durability, Read, Span, Store, Table};

use super::ReplicaError;
use super::collection::{Collection, State};
use super::commit::rows_of;
use super::join::all_held;
use super::log::OpenLog;
use super::open::{for_each_row, load_state, read_head};
use super::pages::{self, ReadError};
use super::rows::{
    CollectionId, Head, context_sum, counter_row, key_tail, read_entry, write_entry, write_page,
};
use super::scrub::walk::{Found, Moment, Position, Stage};

/// Rows written at once, and how many problems a report lists.
const CHUNK: usize = 4_096;
const LISTED: usize = 100;
/// Bytes that a check reads before it writes down what it found.
const CHECKED_AT_ONCE: u64 = 64 << 20;
const WRONG_SKETCHES: &str = "the sketches in memory are not those of the entries: they were \
     dropped and are made anew, and until then sessions read more";
/// No log is ever this long.
const MAX_POSITION: u64 = 1 << 62;

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CheckReport {
    /// Entries read and hashed.
    pub entries: u64,
    /// Bytes of values read and hashed.
    pub bytes: u64,
    /// What does not fit together, as sentences; the first hundred.
    pub problems: Vec<String>,
    /// Values whose bytes are missing or do not match, the first hundred: to be fetched from a
    /// peer and [installed](Collection::install_value). No causality is lost with them.
    pub missing_values: Vec<(KeyHash, ValueHash)>,
    /// Keys of entries that rotted or are missing, the first hundred; each is a problem too. To
    /// be fetched from a peer and [installed](Collection::install_entries).
    pub rotten_entries: Vec<KeyHash>,
}

impl CheckReport {
    /// Whether all is well.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty() && self.missing_values.is_empty()
    }

    fn add(&mut self, found: &Found) {
        match found {
            Found::Value(key, hash) if self.missing_values.len() < LISTED => {
                self.missing_values.push((*key, *hash));
            }
            Found::Value(..) => {}
            Found::Record(key) if self.rotten_entries.len() < LISTED => {
                self.rotten_entries.push(*key);
                self.problems.push(found.sentence());
            }
            _ if self.problems.len() < LISTED => self.problems.push(found.sentence()),
            _ => {}
        }
    }
}

/// What a recovery kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Recovered {
    /// Entries that survived.
    pub entries: u64,
    /// Entries whose rows could not be read.
    pub lost: u64,
    /// The new epoch.
    pub epoch: u64,
}

impl<S: Store> Collection<S> {
    /// Reads everything and says what does not fit together: values and records against their
    /// hashes, tree and page rows, index of dots and context against the entries. The walk of a
    /// [scrub](Collection::scrub), over one snapshot and at once, that mends nothing; O(entries).
    ///
    /// # Errors
    /// The store failed, or the collection is already known to be damaged.
    pub fn check(&self) -> Result<CheckReport, ReplicaError> {
        let (rows, tree, causality, head, sketches) = self.with_live(|live| {
            let rows = self.store.snapshot()?;
            let (causality, head) = (live.causality.clone(), live.head.clone());
            Ok((rows, live.tree.clone(), causality, head, live.sketches.whole().cloned()))
        })?;
        let (spec, id) = (&self.spec, self.id);
        let kept_tree = tree.clone();
        let moment = Moment { rows: &rows, id, spec, tree, causality: &causality, head: &head };
        let mut report = CheckReport::default();
        let mut position = Position::default();
        while position.stage != Stage::Done {
            let slice = moment.slice(&mut position, CHECKED_AT_ONCE)?;
            report.entries += slice.figures.entries;
            report.bytes += slice.figures.value_bytes;
            for found in &slice.found {
                self.note_found(found);
                report.add(found);
            }
        }
        // of entries that rotted nothing can be said
        if let (Some(sketches), true) = (sketches, report.problems.is_empty())
            && !self.check_sketches(&rows, &kept_tree, &sketches)?
        {
            report.problems.push(WRONG_SKETCHES.into());
        }
        Ok(report)
    }

    /// Recovers a collection whose tree, index or context does not verify (rule D10): surviving
    /// entries stay; what was seen becomes what they alone make canonical; the next put draws a
    /// fresh writer; sessions in flight can neither apply nor join any more; history, logs and
    /// what was remembered of joins are dropped. Peers give back the rest.
    ///
    /// Other callers wait meanwhile. Cut short, it is simply done again.
    ///
    /// # Errors
    /// The store failed.
    pub fn recover(&self) -> Result<Recovered, ReplicaError> {
        let mut state = self.lock();
        let (known, mut number) = match &*state {
            State::Live(live) => (live.head.epoch, live.number),
            State::Damaged { epoch, .. } => (*epoch, CommitNumber::default()),
            State::Replaced => return Err(ReplicaError::Replaced(self.spec.name.to_string())),
        };
        let epoch = known.saturating_add(1);
        if let State::Live(live) = &*state {
            // sessions in flight must not tell of it once another one was drawn
            live.writer.set(None);
        }
        *state = State::Damaged { what: "it is being recovered".into(), epoch };
        let recovered = self.rebuild(epoch, &mut number).map_err(|error| error.of(&self.spec.name));
        let loaded = load_state(&*self.store, &self.node, self.id, &self.spec);
        if let Ok(mut loaded) = loaded {
            if let State::Live(live) = &mut loaded {
                // what it wrote shows, even if the sync failed: nobody may take it for durable
                live.number = number;
            }
            *state = loaded;
            self.count_change();
        }
        recovered
    }

    /// Tells the number of its last batch before it waits for that to be durable.
    fn rebuild(&self, epoch: u64, number: &mut CommitNumber) -> Result<Recovered, ReadError> {
        let mut head = self.head_of_survivors(epoch)?;
        let mut batch = Batch::default();
        batch.put(Table::Heads, &self.id.head(), &head.to_row());
        self.store.apply(batch)?;
        for table in
            [Table::Dots, Table::Pages, Table::Context, Table::Log, Table::History, Table::Joins]
        {
            self.wipe(table)?;
        }
        let mut recovered = Recovered { epoch, ..Recovered::default() };
        let leaves = self.keep_entries(&mut head, &mut recovered)?;
        self.drop_orphans()?;
        let tree = PagedTree::build(self.spec.algorithm, usize::from(head.page_leaves), leaves)
            .map_err(|error| ReadError::damaged(error.to_string()))?;
        let mut rows = Rows { store: &*self.store, batch: Batch::default() };
        for page in tree.rows() {
            rows.put(Table::Pages, &self.id.page(&page.prefix), &write_page(&page))?;
        }
        let causality = Causality::of_survivors(&all_held(&*self.store, self.id)?);
        for (key, counter) in rows_of(self.id, &causality) {
            let row = counter_row(counter);
            head.context_sum = head.context_sum.wrapping_add(context_sum(&key, &row));
            rows.put(Table::Context, &key, &row)?;
        }
        let envelope = Envelope::new(self.spec.clone(), tree.tree_hash(), tree.totals())
            .map_err(|error| ReadError::damaged(error.to_string()))?;
        head.root = envelope.root();
        head.recovering = false;
        rows.batch.put(Table::Heads, &self.id.head(), &head.to_row());
        *number = self.store.apply(rows.batch)?;
        self.store.settle(*number, Durability::Always)?;
        Ok(recovered)
    }

    /// The head while entries are gathered: says that the rest cannot be used.
    fn head_of_survivors(&self, epoch: u64) -> Result<Head, ReadError> {
        let store = &*self.store;
        let old = match read_head(store, self.id) {
            Ok(head) => Some(head),
            Err(ReadError::Damaged(_)) => None,
            Err(error) => return Err(error),
        };
        // the head counts what is in the log; without it, the rows do, as far as keys can be right
        let mut last = 0;
        for_each_row(store, Table::Log, &self.id.prefix(), |row| {
            let position = u64::from_be_bytes(key_tail(&row.key).unwrap_or_default());
            last = if position < MAX_POSITION { last.max(position) } else { last };
            Ok(())
        })?;
        let position = old.as_ref().map_or(last, |head| head.position.min(MAX_POSITION));
        let (id, kind, spec) = (self.id, LogKind::Changes, &self.spec);
        let chained = old
            .as_ref()
            .filter(|head| OpenLog::previous_head(store, id, kind, spec, head.log()).is_ok());
        Ok(Head {
            page_leaves: old.as_ref().map_or(64, |head| head.page_leaves).clamp(1, 4_096),
            recovering: true,
            root: crate::hash::Root([0; 32]),
            context_sum: 0,
            epoch,
            clock: old.as_ref().map_or(Stamp(0), |head| head.clock),
            position,
            log_floor: position + 1,
            log_id: chained.map_or(0, |head| head.log_id),
            log_first: chained.map_or(0, |head| head.log_first),
            history_floor: position + 1,
            history_bytes: 0,
            evidence: old.as_ref().map_or(0, |head| head.evidence),
        })
    }

    fn wipe(&self, table: Table) -> Result<(), ReadError> {
        let mut last: Option<Box<[u8]>> = None;
        loop {
            // from the start again, a store would pass over all that was removed
            let start = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let keys =
                self.store.scan_keys(Span::of(table, &self.id.prefix()).start_at(start), CHUNK)?;
            let mut batch = Batch::default();
            for key in &keys {
                batch.remove(table, key);
            }
            last = match keys.into_iter().next_back() {
                Some(key) => Some(key),
                None => return Ok(()),
            };
            self.store.apply(batch)?;
        }
    }

    /// Indexes the entries that can be read, and removes the others.
    fn keep_entries(
        &self,
        head: &mut Head,
        recovered: &mut Recovered,
    ) -> Result<Vec<Leaf>, ReadError> {
        let algorithm = self.spec.algorithm;
        let mut leaves = Vec::new();
        let mut rows = Rows { store: &*self.store, batch: Batch::default() };
        let mut held = DotSet::default();
        for_each_row(&*self.store, Table::Entries, &self.id.prefix(), |row| {
            let key = pages::entry_key(&row.key)?;
            let entry =
                read_entry(&row.value).ok().filter(|entry| algorithm.key_hash(&entry.key) == key);
            // a dot held twice: the first one stays, and sessions settle it by rule D7
            let siblings: Vec<Sibling> = entry
                .iter()
                .flat_map(|entry| entry.record.siblings())
                .filter(|sibling| held.insert(sibling.dot))
                .copied()
                .collect();
            let (Some(entry), Ok(record)) = (entry, Record::new(siblings)) else {
                recovered.lost += 1;
                return rows.remove(Table::Entries, &row.key);
            };
            if record != entry.record {
                rows.put(Table::Entries, &row.key, &write_entry(&entry.key, &record))?;
            }
            for sibling in record.siblings() {
                head.clock = head.clock.max(sibling.stamp);
                rows.put(Table::Dots, &self.id.dot(sibling.dot), &key.0)?;
            }
            recovered.entries += 1;
            leaves.push(Leaf { key, record: record.digest(algorithm), totals: record.totals() });
            Ok(())
        })?;
        self.store.apply(rows.batch)?;
        Ok(leaves)
    }

    /// Removes values that no entry names: those of lost entries and of the history.
    fn drop_orphans(&self) -> Result<(), ReadError> {
        let mut rows = Rows { store: &*self.store, batch: Batch::default() };
        let mut last: Option<Box<[u8]>> = None;
        loop {
            let start = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let keys = self
                .store
                .scan_keys(Span::of(Table::Values, &self.id.prefix()).start_at(start), CHUNK)?;
            let Some(key) = keys.last() else { break };
            last = Some(key.clone());
            for key in &keys {
                let named =
                    key_tail::<64>(key).ok().map(|tail| named_by(&*self.store, self.id, &tail));
                if !named.transpose()?.unwrap_or(false) {
                    rows.remove(Table::Values, key)?;
                }
            }
        }
        self.store.apply(rows.batch)?;
        Ok(())
    }
}

/// Whether the entry at a key hash has a sibling with this value; both stand in `tail`.
fn named_by(store: &impl Read, id: CollectionId, tail: &[u8; 64]) -> Result<bool, ReadError> {
    let (mut key, mut hash) = ([0; 32], [0; 32]);
    key.copy_from_slice(&tail[..32]);
    hash.copy_from_slice(&tail[32..]);
    let Some(row) = store.get(Table::Entries, &id.entry(&KeyHash(key)))? else { return Ok(false) };
    Ok(read_entry(&row).is_ok_and(|entry| {
        entry.record.siblings().iter().any(|sibling| sibling.value_hash == ValueHash(hash))
    }))
}

/// Rows that are written some at a time.
struct Rows<'a, S> {
    store: &'a S,
    batch: Batch,
}

impl<S: Store> Rows<'_, S> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), ReadError> {
        self.batch.put(table, key, value);
        self.flush()
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), ReadError> {
        self.batch.remove(table, key);
        self.flush()
    }

    fn flush(&mut self) -> Result<(), ReadError> {
        if self.batch.len() >= CHUNK {
            self.store.apply(std::mem::take(&mut self.batch))?;
        }
        Ok(())
    }
}
