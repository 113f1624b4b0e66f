//! One atomic moment of a collection, as a session reads it (rule D5).

use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use crate::dots::{Causality, Dot, DotRun, DotSet, Writer};
use crate::hash::{ContextHash, KeyHash, StateHash, TreeHash, ValueHash};
use crate::merkle::{Envelope, Leaf, PagedTree, Prefix, Sealed};
use crate::sketch::Sketches;
use crate::store::{Read, Row, Span, Store, Table};
use crate::types::{CollectionSpec, NodeId};

use super::common::CommonStates;
use super::join::{held_in, parse_dot_row, read_join};
use super::known::Known;
use super::lost::Losses;
use super::marks::{HeardMark, OwnWriter};
use super::pages::{self, ReadError};
use super::rows::{CollectionId, Head, LogRow, read_entry};
use super::view::{CollectionView, Entry, JoinRecord, RemovalLog, ViewError};

/// Rows read at once where a walk has no end of its own.
const CHUNK: usize = 512;
/// Rows of the log that are read for each removed dot asked for: the others are of keys that
/// were new.
const ROWS_PER_DOT: usize = 4;

/// A collection at one moment: entries, tree, context and exceptions belong together, whatever
/// is written meanwhile.
pub struct Snapshot<S: Store> {
    pub(super) id: CollectionId,
    envelope: Envelope,
    causality: Arc<Causality>,
    tree: PagedTree,
    /// Pages and entries that were read and verified.
    pub(super) known: Arc<Known>,
    writers: OnceLock<Vec<Writer>>,
    pub(super) head: Head,
    pub(super) rows: S::Snapshot,
    losses: Arc<Losses<S>>,
    writer: OwnWriter,
    sketches: Option<Sketches>,
    common: CommonStates,
}

/// What a moment takes along of the live collection, besides what it holds.
pub(super) struct Beside<S: Store> {
    pub(super) losses: Arc<Losses<S>>,
    pub(super) writer: OwnWriter,
    pub(super) sketches: Option<Sketches>,
    pub(super) common: CommonStates,
    pub(super) known: Arc<Known>,
}

impl<S: Store> Snapshot<S> {
    pub(super) fn new(
        id: CollectionId,
        envelope: Envelope,
        causality: Arc<Causality>,
        tree: PagedTree,
        head: Head,
        rows: S::Snapshot,
        beside: Beside<S>,
    ) -> Self {
        let Beside { losses, writer, sketches, common, known } = beside;
        Self {
            id,
            envelope,
            causality,
            tree,
            known,
            writers: OnceLock::new(),
            head,
            rows,
            losses,
            writer,
            sketches,
            common,
        }
    }

    /// Hash of context and exceptions.
    ///
    /// # Errors
    /// More exceptions than a context can list.
    pub fn context_hash(&self) -> Result<ContextHash, crate::dots::ContextError> {
        self.causality.hash(self.envelope.algorithm())
    }

    /// Root and context in one hash.
    ///
    /// # Errors
    /// More exceptions than a context can list.
    pub fn state_hash(&self) -> Result<StateHash, crate::dots::ContextError> {
        let context = self.context_hash()?;
        Ok(self.envelope.algorithm().state(&self.envelope.root(), &context))
    }

    /// Entries in the order of their key hashes, after the one given, that are wanted; at most
    /// `limit`.
    ///
    /// # Errors
    /// The store failed, or an entry is damaged.
    pub fn entries_after(
        &self,
        after: Option<&KeyHash>,
        limit: usize,
        wanted: impl Fn(&Entry) -> bool,
    ) -> Result<Vec<Entry>, ViewError> {
        let mut found = Vec::new();
        let mut last = after.map(|key| self.id.entry(key));
        while found.len() < limit {
            let start = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let rows =
                self.scan(Span::of(Table::Entries, &self.id.prefix()).start_at(start), CHUNK)?;
            let Some(row) = rows.last() else { break };
            last = Some(row.key.to_vec());
            for row in &rows {
                let key = self.checked(pages::entry_key(&row.key))?;
                let entry = read_entry(&row.value).map_err(|_| ReadError::Rotten(key));
                let entry = self.checked(entry)?;
                self.check(&key, &entry)?;
                if wanted(&entry) {
                    found.push(entry);
                }
                if found.len() == limit {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Rows of the log above one position and up to another.
    pub(super) fn log_rows(&self, below: u64, above: u64) -> Result<Vec<Row>, ViewError> {
        let (after, last) = (self.id.log(below), self.id.log(above));
        let most = usize::try_from(above.saturating_sub(below)).unwrap_or(usize::MAX);
        let log = self.id.prefix();
        let span = Span::of(Table::Log, &log).start_at(Bound::Excluded(&after)).through(&last);
        self.scan(span, most)
    }

    pub(super) fn scan(&self, span: Span<'_>, limit: usize) -> Result<Vec<Row>, ViewError> {
        self.checked(self.rows.scan(span, limit).map_err(ReadError::from))
    }

    /// Whoever finds that an entry rotted writes it down.
    pub(super) fn checked<T>(&self, result: Result<T, ReadError>) -> Result<T, ViewError> {
        result.map_err(|error| {
            if let ReadError::Rotten(key) = &error {
                self.losses.note_record(key);
            }
            error.in_view(self.envelope.name())
        })
    }

    pub(super) fn parsed<T>(
        &self,
        result: Result<T, crate::codec::CodecError>,
        what: &str,
    ) -> Result<T, ViewError> {
        self.checked(result.map_err(|error| ReadError::row(what, &error)))
    }

    /// The leaf of a key; reads its page where it must.
    fn leaf(&self, key: &KeyHash) -> Result<Option<Leaf>, ViewError> {
        let prefix = match self.tree.get(key) {
            Ok(leaf) => return Ok(leaf),
            Err(Sealed(prefix)) => prefix,
        };
        let leaves = self.checked_page(&prefix, Some(key))?;
        let at = leaves.binary_search_by_key(key, |leaf| leaf.key);
        Ok(at.ok().map(|at| leaves[at]))
    }

    /// The leaves of a sealed page, ascending; they have the hash and the totals that the tree
    /// says. If it must be read, the entry that is wanted of it is known then.
    fn checked_page(
        &self,
        prefix: &Prefix,
        wanted: Option<&KeyHash>,
    ) -> Result<Arc<[Leaf]>, ViewError> {
        if let Some(page) = self.known.page(prefix) {
            return Ok(page.leaves);
        }
        let page = pages::read_checked_page(&self.rows, self.id, &self.tree, prefix, wanted);
        let (page, entry) = self.checked(page)?;
        let leaves = Arc::clone(&page.leaves);
        self.known.keep_page(*prefix, page);
        if let (Some(key), Some(entry)) = (wanted, entry) {
            self.known.keep_entry(*key, entry);
        }
        Ok(leaves)
    }

    /// Whether a sibling of the key has the value.
    fn names(&self, key: &KeyHash, hash: &ValueHash) -> Result<bool, ViewError> {
        let entry = CollectionView::entry(self, key)?;
        let mut siblings = entry.iter().flat_map(|entry| entry.record.siblings());
        Ok(siblings.any(|sibling| sibling.value_hash == *hash))
    }

    fn check(&self, key: &KeyHash, entry: &Entry) -> Result<(), ViewError> {
        let algorithm = self.envelope.algorithm();
        let leaf = self.leaf(key)?;
        let holds = algorithm.key_hash(&entry.key) == *key
            && leaf.is_some_and(|leaf| leaf.record == entry.record.digest(algorithm));
        if holds {
            return Ok(());
        }
        self.checked(Err(ReadError::Rotten(*key)))
    }
}

impl<S: Store> CollectionView for Snapshot<S> {
    fn spec(&self) -> &CollectionSpec {
        self.envelope.spec()
    }

    fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    fn causality(&self) -> &Causality {
        &self.causality
    }

    fn epoch(&self) -> u64 {
        self.head.epoch
    }

    fn log_position(&self) -> u64 {
        self.head.position
    }

    fn tree(&self) -> PagedTree {
        self.tree.clone()
    }

    fn memory_bytes(&self) -> usize {
        self.known.memory_bytes()
    }

    fn page(&self, prefix: &Prefix) -> Result<Vec<Leaf>, ViewError> {
        let mut leaves = Vec::new();
        for leaf in self.tree.leaves_under(prefix) {
            match leaf {
                Ok(leaf) => leaves.push(leaf),
                Err(Sealed(page)) => {
                    let page = self.checked_page(&page, None)?;
                    leaves.extend(page.iter().filter(|leaf| prefix.contains(&leaf.key)));
                }
            }
        }
        Ok(leaves)
    }

    fn unchecked_leaves(&self, prefix: &Prefix) -> Result<Vec<Leaf>, ViewError> {
        let algorithm = self.envelope.algorithm();
        self.checked(pages::unchecked_leaves(&self.rows, self.id, algorithm, prefix))
    }

    fn entry(&self, key: &KeyHash) -> Result<Option<Entry>, ViewError> {
        if let Some(entry) = self.known.entry(key) {
            return Ok(Some(entry));
        }
        let leaf = self.leaf(key)?;
        if let Some(entry) = self.known.entry(key) {
            return Ok(Some(entry)); // read with its page
        }
        let algorithm = self.envelope.algorithm();
        let entry = pages::read_checked(&self.rows, self.id, algorithm, key, leaf.as_ref());
        let entry = self.checked(entry)?;
        if let Some(entry) = &entry {
            self.known.keep_entry(*key, entry.clone());
        }
        Ok(entry)
    }

    fn value(&self, key: &KeyHash, hash: &ValueHash) -> Result<Option<Arc<[u8]>>, ViewError> {
        let row = self.rows.get(Table::Values, &self.id.value(key, hash));
        let row = self.checked(row.map_err(ReadError::from))?;
        let value = row.filter(|value| self.envelope.algorithm().value_hash(value) == *hash);
        if value.is_none() && self.names(key, hash)? {
            self.losses.note(key, hash);
        }
        Ok(value)
    }

    fn has_value(&self, key: &KeyHash, hash: &ValueHash) -> Result<bool, ViewError> {
        let size = self.rows.size_of(Table::Values, &self.id.value(key, hash));
        Ok(self.checked(size.map_err(ReadError::from))?.is_some())
    }

    fn value_hashes(&self, key: &KeyHash, limit: usize) -> Result<Vec<ValueHash>, ViewError> {
        let mut hashes = Vec::new();
        if let Some(entry) = self.entry(key)? {
            hashes.extend(entry.record.versions().iter().map(|sibling| sibling.value_hash));
        }
        for (_, hash) in self.history(key, limit)? {
            if !hashes.contains(&hash) {
                hashes.push(hash);
            }
        }
        hashes.truncate(limit);
        Ok(hashes)
    }

    fn key_of(&self, dot: Dot) -> Result<Option<KeyHash>, ViewError> {
        self.checked(super::draft::stored_holder(&self.rows, self.id, dot))
    }

    fn writers(&self) -> Result<Vec<Writer>, ViewError> {
        if let Some(writers) = self.writers.get() {
            return Ok(writers.clone());
        }
        let mut writers = Vec::new();
        let mut last: Option<Vec<u8>> = None;
        loop {
            let start = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let rows = self.scan(Span::of(Table::Dots, &self.id.prefix()).start_at(start), 1)?;
            let Some(row) = rows.first() else {
                return Ok(self.writers.get_or_init(|| writers).clone());
            };
            let (dot, _) = self.checked(parse_dot_row(&row.key, &row.value))?;
            writers.push(dot.writer());
            // the next row is of the next writer
            last = Dot::of(dot.writer(), u64::MAX).map(|greatest| self.id.dot(greatest));
        }
    }

    fn dots_after(
        &self,
        writer: Writer,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(Dot, KeyHash)>, ViewError> {
        let after = Dot::of(writer, after).map(|dot| self.id.dot(dot));
        let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let rows =
            self.scan(Span::of(Table::Dots, &self.id.writer_dots(writer)).start_at(start), limit)?;
        rows.iter().map(|row| self.checked(parse_dot_row(&row.key, &row.value))).collect()
    }

    fn dots_within(&self, run: DotRun, limit: usize) -> Result<Vec<(Dot, KeyHash)>, ViewError> {
        self.checked(held_in(&self.rows, self.id, run, limit))
    }

    fn removals_after(&self, position: u64, limit: usize) -> Result<RemovalLog, ViewError> {
        let mut dots = DotSet::default();
        let mut found = 0;
        let reaches =
            position.saturating_add(1) >= self.head.log_floor && position <= self.head.position;
        let floor = position.saturating_add(1).max(self.head.log_floor);
        // the latest first: they are what a peer is least likely to have heard of
        let (mut above, mut rows_left) = (self.head.position, limit.saturating_mul(ROWS_PER_DOT));
        while above >= floor {
            let rows = (above - floor + 1).min(CHUNK as u64).min(rows_left as u64);
            if rows == 0 {
                return Ok(RemovalLog { dots, complete: false });
            }
            rows_left -= rows as usize;
            let below = above - rows;
            for row in self.log_rows(below, above)?.iter().rev() {
                let removed = match LogRow::parse(&row.value) {
                    Ok(LogRow::Change { removed, .. }) => removed,
                    Ok(LogRow::Opening { .. }) => continue,
                    // the log is an aid: what it cannot say is found by comparison
                    Err(_) => return Ok(RemovalLog { dots, complete: false }),
                };
                for dot in removed {
                    if found == limit {
                        return Ok(RemovalLog { dots, complete: false });
                    }
                    found += 1;
                    dots.insert(dot);
                }
            }
            above = below;
        }
        Ok(RemovalLog { dots, complete: reaches })
    }

    fn own_writer(&self) -> Option<&OwnWriter> {
        Some(&self.writer)
    }

    fn sketches(&self) -> Option<&Sketches> {
        self.sketches.as_ref()
    }

    fn heard_mark(&self, peer: &NodeId) -> Result<Option<HeardMark>, ViewError> {
        let row = self.rows.get(Table::Witness, &self.id.heard(peer));
        let row = self.checked(row.map_err(ReadError::from))?;
        // one that rotted is forgotten: nobody is accused with it
        Ok(row.and_then(|row| HeardMark::parse(&row).ok()))
    }

    fn common_state(
        &self,
        peer: &NodeId,
        is: &dyn Fn(&TreeHash, &ContextHash) -> bool,
    ) -> Result<Option<Arc<JoinRecord>>, ViewError> {
        if let Some(found) = self.common.find(is) {
            return Ok(Some(found));
        }
        // of before this opening
        let record = self.join_record(peer)?;
        let known = record.filter(|record| {
            let context = record.merged.hash(self.spec().algorithm);
            context.is_ok_and(|context| is(&record.tree, &context))
        });
        Ok(known.map(Arc::new))
    }

    fn join_record(&self, peer: &NodeId) -> Result<Option<JoinRecord>, ViewError> {
        let row = self.rows.get(Table::Joins, &self.id.join(peer));
        let row = self.checked(row.map_err(ReadError::from))?;
        // an aid: one that rotted is no damage, the whole context is sent then
        Ok(row.and_then(|row| read_join(self.head.epoch, &row).ok().flatten()))
    }
}
