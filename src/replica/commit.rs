//! One change, one commit: entries, values, dots, pages, context, log, history and head leave in
//! one batch, and what is live changes only when the store has taken it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::dots::Causality;
use crate::entry::Record;
use crate::hash::{KeyHash, LogHead};
use crate::limits::Limits;
use crate::merkle::log::{LogKind, first_item};
use crate::merkle::{Change, CommitEnd, Envelope};
use crate::mutants::{Mutant, breaks};
use crate::store::{Batch, CommitNumber, Durability, Read, Store, Table};

use super::ReplicaError;
use super::collection::{Collection, Live, PresentWriter};
use super::draft::{Draft, Drafted, Ground, Held, KeyChange};
use super::evidence::MAX_SAME_DOT;
use super::loaded::LoadedPages;
use super::log::OpenLog;
use super::open::load_tree;
use super::pages::{ReadError, with_pages};
use super::restamp::write_own_writer;
use super::rows::{
    Before, CollectionId, CommitRow, ContextSum, Head, HistoryRow, LogRow, context_sum,
    counter_row, write_page,
};

/// Items of the log after which the end of a commit has the log up to it: no proof reads more of
/// it than that, and the commit itself.
pub(super) const LOG_CHECKPOINT: u64 = 1_024;

/// Rows of a commit in the making.
pub(super) struct Writing<'a, S> {
    pub(super) id: CollectionId,
    pub(super) store: &'a S,
    pub(super) limits: &'a Limits,
    pub(super) now_ms: u64,
    pub(super) head: Head,
    /// Position of the first log row that this commit adds.
    pub(super) first_new: u64,
    pub(super) batch: Batch,
    /// Records as this commit leaves them.
    pub(super) records: BTreeMap<KeyHash, Option<Record>>,
    /// History rows that this commit writes, by key.
    pub(super) history: BTreeMap<Vec<u8>, HistoryRow>,
}

/// What was seen of some writers, before and after.
pub(super) struct Seen {
    pub(super) before: Causality,
    pub(super) after: Causality,
}

impl<S: Store> Collection<S> {
    /// Drafts a change on the live state and commits it. Durable afterwards as the node's
    /// durability says.
    pub(super) fn change<R>(
        &self,
        now_ms: u64,
        draft: impl FnOnce(&mut Draft<'_, S>, &mut Option<PresentWriter>) -> Result<R, ReplicaError>,
    ) -> Result<R, ReplicaError> {
        self.change_as(self.node.durability, now_ms, draft)
    }

    /// Drafts a change on the live state and commits it as durably as is said.
    pub(super) fn change_as<R>(
        &self,
        durability: Durability,
        now_ms: u64,
        draft: impl FnOnce(&mut Draft<'_, S>, &mut Option<PresentWriter>) -> Result<R, ReplicaError>,
    ) -> Result<R, ReplicaError> {
        let (answer, number) = self.apply_change(now_ms, draft)?;
        self.store.settle(number, durability)?;
        Ok(answer)
    }

    /// Drafts a change on the live state and commits it; durable once its number is settled.
    pub(super) fn apply_change<R>(
        &self,
        now_ms: u64,
        draft: impl FnOnce(&mut Draft<'_, S>, &mut Option<PresentWriter>) -> Result<R, ReplicaError>,
    ) -> Result<(R, CommitNumber), ReplicaError> {
        let _announced = self.store.announce();
        let mut state = self.lock();
        let live = state.live(&self.spec.name)?;
        let mut writer = live.writer.present();
        let mut drafting = Draft::new(self.ground(live));
        let answer = draft(&mut drafting, &mut writer).inspect_err(|error| self.note_rot(error))?;
        let drafted = drafting.finish()?;
        if !drafted.is_empty() {
            writer = drafted.still_own(writer);
            let seen = self.see(live, &drafted, writer)?;
            self.commit(live, drafted, &seen, writer, now_ms)?;
        }
        Ok((answer, live.number))
    }

    pub(super) fn ground<'a>(&'a self, live: &'a mut Live) -> Ground<'a, S> {
        Ground {
            id: self.id,
            name: &self.spec.name,
            algorithm: self.spec.algorithm,
            epoch: live.head.epoch,
            history_bytes: live.head.history_bytes,
            store: &*self.store,
            causality: &live.causality,
            tree: &mut live.tree,
            known: None,
        }
    }

    /// The context after the dots of a draft came and went; canonical.
    fn see(
        &self,
        live: &Live,
        drafted: &Drafted,
        own: Option<PresentWriter>,
    ) -> Result<Seen, ReplicaError> {
        let before = live.causality.slice(drafted.dots.keys().map(|dot| dot.writer()));
        let mut after = before.clone();
        let from = (&*self.store, self.id, &self.spec.name);
        let held = Held::new(from, &live.tree, &drafted.dots, own);
        for (&dot, holder) in &drafted.dots {
            match holder {
                Some(_) => after.observe(dot, |dot| held.contains(dot)),
                None if breaks(Mutant::ForgetExceptions) => {}
                None => after.mark_dead(dot, |dot| held.contains(dot)),
            }
        }
        held.finish()?;
        Ok(Seen { before, after })
    }

    /// Writes a draft. When this fails, the live state is as it was.
    pub(super) fn commit(
        &self,
        live: &mut Live,
        drafted: Drafted,
        seen: &Seen,
        writer: Option<PresentWriter>,
        now_ms: u64,
    ) -> Result<(), ReplicaError> {
        let mut drafted = drafted;
        if let Some(drawn) = writer.filter(|drawn| live.writer.is_another(drawn.writer)) {
            write_own_writer(self.id, drawn.writer, &mut drafted.batch);
        }
        let changes: Vec<Change> = drafted.keys.iter().map(|key| key.leaf).collect();
        let toggles = live.sketches.toggles(&drafted.keys);
        let before = self.envelope_of(&live.tree)?;
        let name = &self.spec.name;
        with_pages(&*self.store, self.id, name, &mut live.tree, |tree| tree.apply(&changes))?;
        match self.write(live, drafted, seen, &before, now_ms) {
            Ok((number, head, log)) => {
                Arc::make_mut(&mut live.causality).put_back(&seen.after);
                live.head = head;
                live.log = log;
                live.writer.set(writer);
                live.number = number;
                live.context_hash = None;
                live.sketches.apply(&toggles);
                live.loaded.bound(&mut live.tree, self.node.limits.max_loaded_pages);
                self.count_change();
                Ok(())
            }
            Err(error) => {
                live.writer.set(None); // nobody can say whether the dot reached the disk
                self.restore_tree(live);
                Err(error)
            }
        }
    }

    /// Takes the tree of before a change that the store refused from its rows. The change cannot be
    /// undone in the tree itself: pages that it grew into would have to be loaded, and the store
    /// has them as they were before. O(pages).
    fn restore_tree(&self, live: &mut Live) {
        live.loaded = LoadedPages::new(Arc::clone(&self.node.loaded_pages));
        let restored = load_tree(&*self.store, self.id, &self.spec, live.head.page_leaves)
            .map_err(|error| error.of(&self.spec.name))
            .and_then(|tree| Ok((self.envelope_of(&tree)?.root(), tree)));
        match restored {
            Ok((root, tree)) if root == live.head.root => live.tree = tree,
            Ok(_) => live.stale = Some("the store shows a change that it has refused".into()),
            Err(error) => live.stale = Some(format!("after a refused change: {error}")),
        }
    }

    fn write(
        &self,
        live: &mut Live,
        drafted: Drafted,
        seen: &Seen,
        before: &Envelope,
        now_ms: u64,
    ) -> Result<(CommitNumber, Head, Option<OpenLog>), ReplicaError> {
        let damaged = |error: ReadError| error.of(&self.spec.name);
        let envelope = self.envelope_of(&live.tree)?;
        let root = envelope.root();
        let mut writing = Writing {
            id: self.id,
            store: &*self.store,
            limits: &self.node.limits,
            now_ms,
            head: live.head.clone(),
            first_new: live.head.position + 1,
            batch: drafted.batch,
            records: BTreeMap::new(),
            history: BTreeMap::new(),
        };
        writing.context(seen);
        let pages = live.tree.take_page_changes();
        for prefix in &pages.removed {
            writing.batch.remove(Table::Pages, &self.id.page(prefix));
        }
        for row in &pages.written {
            writing.batch.put(Table::Pages, &self.id.page(&row.prefix), &write_page(row));
        }
        for evidence in &drafted.evidence {
            let row = self.id.evidence(writing.head.evidence % MAX_SAME_DOT);
            writing.batch.put(Table::Evidence, &row, &evidence.to_row());
            writing.head.evidence += 1;
        }
        let mut log = live.log.clone();
        if !drafted.keys.is_empty() {
            let stored = log.as_ref().map(OpenLog::peaks).unwrap_or_default();
            let log = match &mut log {
                Some(log) => log,
                none => none.insert(self.open_log(&mut writing)?),
            };
            let changes = drafted.keys.len();
            let states = [before, &envelope].map(|it| (it.tree_hash(), it.totals()));
            let roots = [live.head.root, root];
            let end = CommitEnd { changes: changes as u32, roots };
            let mut end = Some(Box::new(CommitRow { end, states, log: None }));
            for (at, change) in drafted.keys.into_iter().enumerate() {
                let end = if at + 1 == changes { end.take() } else { None };
                writing.log(log, change, end).map_err(damaged)?;
            }
            log.write_peaks(&stored, self.id, &mut writing.batch);
            writing.prune(envelope.totals().bytes, changes as u64).map_err(damaged)?;
        }
        writing.head.root = root;
        writing.head.clock = self.node.clock().seen();
        let Writing { head, mut batch, .. } = writing;
        batch.put(Table::Heads, &self.id.head(), &head.to_row());
        Ok((self.store.apply(batch)?, head, log))
    }

    fn open_log(&self, writing: &mut Writing<'_, S>) -> Result<OpenLog, ReplicaError> {
        let before = writing.head.log();
        let previous =
            OpenLog::previous_head(&*self.store, self.id, LogKind::Changes, &self.spec, before)
                .map_err(|error| error.of(&self.spec.name))?;
        let id = self.node.random_nonzero();
        writing.head.position += 1;
        let position = writing.head.position;
        let previous = LogHead(first_item(previous));
        let row = LogRow::Opening { at_ms: writing.now_ms, id, previous };
        let mut log = OpenLog::new(LogKind::Changes, &self.spec, id);
        log.append(&row.item());
        writing.head.log_id = id;
        writing.head.log_first = position;
        writing.batch.put(Table::Log, &self.id.log(position), &row.to_row());
        Ok(log)
    }
}

impl<S: Read> Writing<'_, S> {
    /// The context rows that differ.
    pub(super) fn context(&mut self, seen: &Seen) {
        let id = self.id;
        let (before, after) = (seen.before.pairs(), seen.after.pairs());
        changed(before, after, |writer, was, is| self.context_row(&id.context(writer), was, is));
        let [before, after] = [&seen.before, &seen.after].map(|causality| {
            let runs = causality.exceptions().runs();
            runs.map(|run| ((run.writer, run.first), run))
        });
        changed(before, after, |_, was, is| {
            let Some(run) = was.or(is) else { return };
            self.context_row(&id.exceptions(run), was.map(|run| run.last), is.map(|run| run.last));
        });
    }

    fn context_row(&mut self, key: &[u8], was: Option<u64>, is: Option<u64>) {
        if let Some(was) = was {
            self.subtract(key, was);
        }
        match is {
            None => self.batch.remove(Table::Context, key),
            Some(is) => {
                let row = counter_row(is);
                let sum = context_sum(key, &row);
                self.head.context_sum = self.head.context_sum.wrapping_add(sum);
                self.batch.put_shared(Table::Context, key, row);
            }
        }
    }

    fn subtract(&mut self, key: &[u8], old: u64) {
        let sum: ContextSum = context_sum(key, &counter_row(old));
        self.head.context_sum = self.head.context_sum.wrapping_sub(sum);
    }

    fn log(
        &mut self,
        log: &mut OpenLog,
        change: KeyChange,
        end: Option<Box<CommitRow>>,
    ) -> Result<(), ReadError> {
        let KeyChange { key_hash: key, before, after, leaf, removed, replaced } = change;
        self.head.position += 1;
        let position = self.head.position;
        self.records.insert(key, after);
        self.replace_values(&key, &replaced, position)?;
        let record = match leaf {
            Change::Put(leaf) => Some(leaf.record),
            Change::Remove(_) => None,
        };
        let replaced = replaced.into_iter().map(|(hash, _)| hash).collect();
        let (at_ms, before) = (self.now_ms, Before::Held(before));
        let mut row = LogRow::Change { at_ms, key, record, before, removed, replaced, end };
        log.append(&row.item());
        if let LogRow::Change { end: Some(end), .. } = &mut row {
            // the size before this commit, and that after it
            let sizes = [log.merkle().size() - u64::from(end.end.changes), log.merkle().size()];
            let [before, after] = sizes.map(|size| size / LOG_CHECKPOINT);
            end.log = (before != after).then(|| log.so_far());
        }
        self.batch.put(Table::Log, &self.id.log(position), &row.to_row());
        Ok(())
    }
}

/// What is at a key in only one of two ascending sequences, or is another in both: shown as it was
/// and as it is.
fn changed<K: Ord + Copy, V: PartialEq + Copy>(
    before: impl IntoIterator<Item = (K, V)>,
    after: impl IntoIterator<Item = (K, V)>,
    mut show: impl FnMut(K, Option<V>, Option<V>),
) {
    let (mut before, mut after) = (before.into_iter().peekable(), after.into_iter().peekable());
    while let Some(key) =
        [before.peek(), after.peek()].into_iter().flatten().map(|(key, _)| *key).min()
    {
        let was = before.next_if(|(of, _)| *of == key).map(|(_, value)| value);
        let is = after.next_if(|(of, _)| *of == key).map(|(_, value)| value);
        if was != is {
            show(key, was, is);
        }
    }
}

/// The rows of a context: counters, and exceptions as runs.
pub(super) fn rows_of(id: CollectionId, causality: &Causality) -> BTreeMap<Vec<u8>, u64> {
    let counters = causality.pairs().map(|(writer, counter)| (id.context(writer), counter));
    let runs = causality.exceptions().runs().map(|run| (id.exceptions(run), run.last));
    counters.chain(runs).collect()
}
