//! Putting again what was written while this node's clock was ahead, with stamps of now.

use std::collections::BTreeSet;

use crate::dots::Writer;
use crate::entry::Sibling;
use crate::hash::KeyHash;
use crate::store::{Batch, Read as _, Span, Store, Table};
use crate::types::Key;

use super::ReplicaError;
use super::collection::{Collection, PresentWriter};
use super::rows::{CollectionId, key_tail};

/// Entries that are looked at in one step, and written in one commit at most.
const AT_ONCE: usize = 1_024;

/// A step of a restamp.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct RestampStep {
    /// Entries looked at.
    pub looked_at: u64,
    /// Siblings that were put again.
    pub restamped: u64,
    /// Siblings of other nodes with stamps too far ahead, that were left as they are.
    pub others: u64,
    /// Where the next step goes on; none after the last.
    pub next: Option<KeyHash>,
}

/// What of some entries is of the future.
struct Future {
    step: RestampStep,
    /// By key, the siblings that are to be put again.
    keys: Vec<(Key, Vec<Sibling>)>,
}

impl CollectionId {
    fn own_writers(self) -> Vec<u8> {
        [&self.prefix()[..], &[4]].concat()
    }
}

/// Writes down that a writer is this node's: in the commit of its first put.
pub(super) fn write_own_writer(id: CollectionId, writer: Writer, batch: &mut Batch) {
    let row = [&id.own_writers()[..], &writer.get().to_be_bytes()].concat();
    batch.put(Table::Witness, &row, &[]);
}

impl<S: Store> Collection<S> {
    /// The writers that this store has drawn, as far as it was written down: since format 2.
    ///
    /// # Errors
    /// The store failed.
    pub fn own_writers(&self) -> Result<BTreeSet<Writer>, ReplicaError> {
        let prefix = self.id.own_writers();
        let rows = self.store.scan_keys(Span::of(Table::Witness, &prefix), usize::MAX)?;
        let writers = rows.iter().filter_map(|row| {
            let number = u64::from_be_bytes(key_tail(row).ok()?);
            Writer::new(number)
        });
        let mut writers: BTreeSet<Writer> = writers.collect();
        writers.extend(self.present_writer()?.map(|present| present.writer));
        Ok(writers)
    }

    /// Puts siblings again whose stamps lie further ahead of `now_ms` than the drift bound: the
    /// same value under the same key, with a new dot and a stamp of now, in place of just that
    /// sibling. Those of this node's writers, or with `any` all. One step: some entries from
    /// `after` on in the order of their key hashes, in one commit.
    ///
    /// # Errors
    /// The store failed, an entry is damaged, or most peers find this node's clock ahead still.
    /// Nothing of this step was written.
    pub fn restamp(
        &self,
        any: bool,
        after: Option<&KeyHash>,
        now_ms: u64,
    ) -> Result<RestampStep, ReplicaError> {
        let Future { mut step, keys } = self.future(any, after, now_ms)?;
        if keys.is_empty() {
            return Ok(step);
        }
        step.restamped = self.change(now_ms, |draft, writer: &mut Option<PresentWriter>| {
            let mut restamped = 0;
            for (key, siblings) in &keys {
                let key_hash = self.key_hash(key);
                for sibling in siblings {
                    // a write that came meanwhile has replaced it
                    if draft.remove(&key_hash, sibling.dot)? {
                        let of = (sibling.size, sibling.value_hash);
                        self.draft_sibling(draft, writer, (key, &key_hash), of, None, now_ms)?;
                        restamped += 1;
                    }
                }
            }
            Ok(restamped)
        })?;
        Ok(step)
    }

    /// What a step of [`restamp`](Self::restamp) would do. Nothing is changed.
    ///
    /// # Errors
    /// The store failed, or an entry is damaged.
    pub fn count_future(
        &self,
        any: bool,
        after: Option<&KeyHash>,
        now_ms: u64,
    ) -> Result<RestampStep, ReplicaError> {
        let Future { mut step, keys } = self.future(any, after, now_ms)?;
        step.restamped = keys.iter().map(|(_, siblings)| siblings.len() as u64).sum();
        Ok(step)
    }

    /// What is of the future among some entries from `after` on.
    fn future(
        &self,
        any: bool,
        after: Option<&KeyHash>,
        now_ms: u64,
    ) -> Result<Future, ReplicaError> {
        let own = self.own_writers()?;
        let entries = self.list(&[], after, AT_ONCE)?;
        let mut step = RestampStep { looked_at: entries.len() as u64, ..RestampStep::default() };
        if entries.len() == AT_ONCE {
            step.next = entries.last().map(|entry| self.key_hash(&entry.key));
        }
        let drift = self.node.limits.max_clock_drift_ms;
        let future = |sibling: &Sibling| sibling.stamp.beyond_drift(now_ms, drift);
        let mut keys = Vec::new();
        for entry in entries {
            let siblings = entry.record.siblings().iter().filter(|sibling| future(sibling));
            let (mine, others): (Vec<_>, Vec<_>) =
                siblings.partition(|sibling| any || own.contains(&sibling.dot.writer()));
            step.others += others.len() as u64;
            if !mine.is_empty() {
                keys.push((entry.key, mine.into_iter().copied().collect::<Vec<_>>()));
            }
        }
        Ok(Future { step, keys })
    }
}
