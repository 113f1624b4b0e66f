//! Proofs for others: of many keys, of all entries under a prefix of key hashes, and of what a
//! commit changed.

use std::collections::BTreeMap;

use crate::hash::{KeyHash, RecordDigest};
use crate::merkle::log::{LogHeadFields, LogKind, LogSegment};
use crate::merkle::{
    Bundle, BundleError, ChangeItem, Envelope, MAX_PROOF_FILE_BYTES, MAX_PROVED_KEYS, ManyBundle,
    MerkleLog, MultiProof, MultiProveError, PagedTree, Partial, Prefix, PrefixBundle, Proof,
    ProvedChange, RangeProof, Sealed, Shape as _, SubtreeProof,
};
use crate::store::{Durability, Store};
use crate::types::{CollectionName, Key};

use super::ReplicaError;
use super::collection::Collection;
use super::commit::LOG_CHECKPOINT;
use super::log::identity;
use super::rows::{Before, CommitRow, LogRow};
use super::snapshot::Snapshot;
use super::view::{CollectionView, ViewError};

/// Keys whose pages are in memory at once while a proof is made: at 64 leaves a page, 2.5 MiB.
const KEYS_AT_ONCE: usize = 256;
/// Most rows of the change log that are read to prove one commit: those since it, which are
/// undone. About 300 bytes of memory each.
const MOST_UNDONE: u64 = 65_536;
/// Rows of the log read at once.
const ROWS: u64 = 1_024;
/// Least bytes of an entry in a proof, beside its key and siblings.
const ENTRY_BYTES: usize = 9;

/// Nothing can be proved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProveError {
    /// The collection could not be read.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// It would be too much for one proof.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The log has no such change.
    #[error(
        "there is no such change in the log of collection {0} as far as it was looked through, \
         65,536 changes back: `selfsame history` tells what a key was"
    )]
    NoChange(CollectionName),
    /// Too much has happened since.
    #[error(
        "{0} changes were logged since, more than the 65,536 that are undone for a proof: prove a \
         change soon after it was made"
    )]
    TooLongAgo(u64),
    /// The rows are of before commits were bound to roots.
    #[error(
        "the change was logged by an earlier version, or changes since were: only what this \
         version logged can be proved"
    )]
    Earlier,
    /// What would be needed is not there any more.
    #[error(
        "the change cannot be proved any more: rows of the log rotted or were dropped, or the \
         collection was recovered since"
    )]
    Lost,
}

/// Which commit is to be proved.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum WantedChange {
    /// The last one that changed a key.
    OfKey(KeyHash),
    /// The one that has this position in the change log.
    At(u64),
}

/// A commit, with all that proves it but the signature of the log's head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitProof {
    /// Position of its last row in the change log of the collection.
    pub position: u64,
    /// When it was made, by this node's clock in milliseconds.
    pub at_ms: u64,
    /// Envelopes before and after.
    pub envelopes: [Envelope; 2],
    /// What it changed.
    pub changes: Vec<ProvedChange>,
    /// Proof of its keys in the tree before.
    pub proof: MultiProof,
    /// The log right after it: to be signed.
    pub head: LogHeadFields,
    /// Its place in that log.
    pub place: RangeProof,
}

impl<S: Store> Snapshot<S> {
    /// Proves what is held under a key.
    ///
    /// # Errors
    /// The store failed, or the collection is damaged.
    pub fn prove(&self, key: &Key) -> Result<Bundle, ViewError> {
        let key_hash = self.spec().algorithm.key_hash(key);
        let record = self.entry(&key_hash)?.map(|entry| entry.record);
        let (mut tree, envelope) = (self.tree(), self.envelope());
        self.with_pages(&mut tree, |tree| {
            Bundle::prove(tree, envelope.clone(), key, record.clone())
        })
    }

    /// Proves what is held under many keys, in any order, each once. O(keys x depth) memory, and
    /// 256 pages.
    ///
    /// # Errors
    /// The store failed, the collection is damaged, or there are too many keys.
    pub fn prove_many(&self, mut keys: Vec<Key>) -> Result<ManyBundle, ProveError> {
        keys.sort_unstable();
        keys.dedup();
        if keys.len() > MAX_PROVED_KEYS {
            return Err(BundleError::TooMany { found: keys.len(), most: MAX_PROVED_KEYS }.into());
        }
        let algorithm = self.spec().algorithm;
        let mut bytes = 0;
        let mut entries = Vec::with_capacity(keys.len());
        for key in keys {
            let entry = self.entry(&algorithm.key_hash(&key)).map_err(|error| self.error(error))?;
            let record = entry.map(|entry| entry.record);
            bytes += key.as_bytes().len() + record.as_ref().map_or(0, |it| it.to_bytes().len());
            if bytes > MAX_PROOF_FILE_BYTES {
                return Err(BundleError::TooLong(bytes).into());
            }
            entries.push((key, record));
        }
        let hashes: Vec<_> = entries.iter().map(|(key, _)| algorithm.key_hash(key)).collect();
        let tree = self.part(&hashes)?;
        let (_, proof) = MultiProof::prove(&tree, hashes).map_err(|error| match error {
            MultiProveError::NoKeys => BundleError::Order.into(),
            MultiProveError::TooMany(found) => {
                BundleError::TooMany { found, most: MAX_PROVED_KEYS }.into()
            }
            MultiProveError::Sealed(_) => ProveError::Lost,
        })?;
        Ok(ManyBundle::new(self.envelope().clone(), entries, proof)?)
    }

    /// Proves all entries under a prefix of key hashes.
    ///
    /// # Errors
    /// The store failed, the collection is damaged, or they are more than one proof may have.
    pub fn prove_prefix(&self, prefix: &Prefix) -> Result<PrefixBundle, ProveError> {
        let algorithm = self.spec().algorithm;
        let (mut found, mut bytes) = (Vec::new(), 0);
        let mut last = before(&prefix.first_key());
        'all: loop {
            let entries = self
                .entries_after(last.as_ref(), KEYS_AT_ONCE, |_| true)
                .map_err(|error| self.error(error))?;
            let Some(entry) = entries.last() else { break };
            last = Some(algorithm.key_hash(&entry.key));
            for entry in entries {
                if !prefix.contains(&algorithm.key_hash(&entry.key)) {
                    break 'all;
                }
                let key_bytes = entry.key.as_bytes().len();
                bytes += ENTRY_BYTES + key_bytes + entry.record.siblings().len() * 64;
                if bytes > MAX_PROOF_FILE_BYTES {
                    return Err(BundleError::TooLong(bytes).into());
                }
                found.push((entry.key, entry.record));
            }
        }
        let mut tree = self.tree();
        let proof = self
            .with_pages(&mut tree, |tree| SubtreeProof::prove(tree, prefix))
            .map_err(|error| self.error(error))?;
        Ok(PrefixBundle::new(self.envelope().clone(), *prefix, found, proof)?)
    }

    /// The part of the tree that some keys reach.
    fn part(&self, keys: &[KeyHash]) -> Result<Partial, ProveError> {
        let algorithm = self.spec().algorithm;
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        keys.dedup();
        let mut whole: Option<Partial> = None;
        for keys in keys.chunks(KEYS_AT_ONCE) {
            let mut tree = self.tree();
            for key in keys {
                self.with_pages(&mut tree, |tree| Proof::prove(tree, key).map(drop))
                    .map_err(|error| self.error(error))?;
            }
            let part = MultiProof::prove(&tree, keys.iter().copied())
                .ok()
                .and_then(|(claims, proof)| proof.partial(algorithm, &claims).ok())
                .ok_or(ProveError::Lost)?;
            match &mut whole {
                Some(whole) => whole.join(&part).map_err(|_| ProveError::Lost)?,
                none => *none = Some(part),
            }
        }
        Ok(whole.unwrap_or_else(|| Partial::empty(algorithm)))
    }

    fn with_pages<R>(
        &self,
        tree: &mut PagedTree,
        mut ask: impl FnMut(&PagedTree) -> Result<R, Sealed>,
    ) -> Result<R, ViewError> {
        loop {
            let Sealed(prefix) = match ask(tree) {
                Ok(answer) => return Ok(answer),
                Err(sealed) => sealed,
            };
            let leaves = self.page(&prefix)?;
            tree.unseal(&prefix, leaves).map_err(|error| {
                let collection = self.spec().name.to_string();
                ViewError::Damaged { collection, what: format!("page {prefix}: {error}") }
            })?;
        }
    }

    fn error(&self, error: ViewError) -> ProveError {
        ReplicaError::View(self.spec().name.to_string(), error).into()
    }
}

impl<S: Store> Collection<S> {
    /// Proves a commit, of whichever opening: what it changed, from which root to which, and where
    /// it stands in the change log, all of it synced. What was changed since is undone in a part
    /// of the tree: reads as many rows as were logged since, 65,536 at most.
    ///
    /// # Errors
    /// The store failed, the collection is damaged, there is no such commit, or it cannot be proved
    /// any more.
    pub fn prove_change(&self, wanted: WantedChange) -> Result<CommitProof, ProveError> {
        let snapshot = self.snapshot()?;
        let synced = self.with_live(|live| Ok(live.number))?;
        self.store.settle(synced, Durability::Always).map_err(ReplicaError::from)?;
        let commit = Commit::find(&snapshot, wanted)?;
        let (head, place) = commit.place(&snapshot)?;
        let (changes, proof) = commit.tree_before(&snapshot)?;
        let envelope = |at: usize| -> Result<Envelope, ProveError> {
            let (tree_hash, totals) = commit.row.states[at];
            let envelope = Envelope::new(self.spec.clone(), tree_hash, totals).ok();
            envelope.filter(|it| it.root() == commit.row.end.roots[at]).ok_or(ProveError::Lost)
        };
        let (position, at_ms) = (commit.last, commit.at_ms);
        let envelopes = [envelope(0)?, envelope(1)?];
        Ok(CommitProof { position, at_ms, envelopes, changes, proof, head, place })
    }
}

/// A commit as the log has it.
struct Commit {
    /// Positions of its first and last row.
    first: u64,
    last: u64,
    at_ms: u64,
    row: CommitRow,
    /// Its items, and what was held under their keys before.
    changes: Vec<(ChangeItem, Option<RecordDigest>)>,
}

impl Commit {
    fn find<S: Store>(snapshot: &Snapshot<S>, wanted: WantedChange) -> Result<Self, ProveError> {
        let none = || ProveError::NoChange(snapshot.spec().name.clone());
        let position = match wanted {
            WantedChange::At(position) => position,
            WantedChange::OfKey(key) => last_of(snapshot, &key)?.ok_or_else(none)?,
        };
        let (floor, newest) = (snapshot.head.log_floor, snapshot.head.position);
        if position < floor || position > newest {
            return Err(none());
        }
        if newest - position > MOST_UNDONE {
            return Err(ProveError::TooLongAgo(newest - position));
        }
        // the end of its commit is at it or soon behind it
        let mut last = position;
        let (at_ms, row) = loop {
            match row_at(snapshot, last)? {
                LogRow::Opening { .. } if last == position => return Err(none()),
                LogRow::Opening { .. } => return Err(ProveError::Earlier),
                LogRow::Change { before: Before::Unknown, .. } => return Err(ProveError::Earlier),
                LogRow::Change { at_ms, end: Some(row), .. } => break (at_ms, *row),
                LogRow::Change { .. } if last == newest => return Err(ProveError::Lost),
                LogRow::Change { .. } => last += 1,
            }
        };
        let first = (last + 1).saturating_sub(u64::from(row.end.changes));
        if first > position || first < floor || row.end.changes as usize > MAX_PROVED_KEYS {
            return Err(ProveError::Lost);
        }
        let mut changes = Vec::new();
        for position in first..=last {
            let LogRow::Change { key, record, before: Before::Held(before), end, .. } =
                row_at(snapshot, position)?
            else {
                return Err(ProveError::Lost);
            };
            let end = end.map(|row| row.end);
            changes.push((ChangeItem { key, record, end }, before));
        }
        Ok(Self { first, last, at_ms, row, changes })
    }

    /// The log right after the commit, and where it stands there.
    fn place<S: Store>(
        &self,
        snapshot: &Snapshot<S>,
    ) -> Result<(LogHeadFields, RangeProof), ProveError> {
        let spec = snapshot.spec();
        let algorithm = spec.algorithm;
        let mut leaves = Vec::new();
        let mut position = self.first;
        let (id, begun) = loop {
            position -= 1;
            let steps = self.first - position;
            if position < snapshot.head.log_floor || steps > 2 * LOG_CHECKPOINT + MOST_UNDONE {
                return Err(ProveError::Lost);
            }
            let row = row_at(snapshot, position)?;
            let leaf = algorithm.log_leaf(&row.item());
            match row {
                LogRow::Opening { id, .. } => {
                    leaves.push(leaf);
                    break (id, MerkleLog::new(algorithm));
                }
                LogRow::Change { end: Some(end), .. } if end.log.is_some() => {
                    let log = end.log.and_then(|log| {
                        Some((log.id, MerkleLog::resume(algorithm, log.size, log.peaks).ok()?))
                    });
                    break log.ok_or(ProveError::Lost)?;
                }
                LogRow::Change { .. } => leaves.push(leaf),
            }
        };
        leaves.reverse();
        let items = self.changes.iter().map(|(item, _)| algorithm.log_leaf(&item.to_bytes()));
        leaves.extend(items);
        let segment = LogSegment::new(begun, leaves);
        let (size, count) = (segment.size(), self.changes.len() as u64);
        let place = segment.range(size - count, count);
        let log = segment.at(size);
        let (Some(place), Some(log)) = (place, log) else { return Err(ProveError::Lost) };
        let identity = identity(LogKind::Changes, algorithm, &spec.name, id);
        Ok((identity.at(&log), place))
    }

    /// What it changed, and a proof of that in the tree of before it: the present one, in which
    /// all changes since are undone.
    fn tree_before<S: Store>(
        &self,
        snapshot: &Snapshot<S>,
    ) -> Result<(Vec<ProvedChange>, MultiProof), ProveError> {
        let undone = self.undone(snapshot)?;
        let own: Vec<KeyHash> = self.changes.iter().map(|(item, _)| item.key).collect();
        let mut wanted: Vec<KeyHash> = undone.keys().copied().collect();
        // where a key was not held yet, its place is known only once its neighbours' are
        for _ in 0..4 {
            let mut tree = snapshot.part(&wanted)?;
            tree.apply(&undone).map_err(|_| ProveError::Lost)?;
            let missing = tree.missing(&own);
            if !missing.is_empty() {
                wanted.extend(missing);
                continue;
            }
            if tree.tree_hash() != self.row.states[0].0 {
                return Err(ProveError::Lost);
            }
            let (_, proof) =
                MultiProof::prove(&tree, own.iter().copied()).map_err(|_| ProveError::Lost)?;
            return Ok((self.proved(snapshot), proof));
        }
        Err(ProveError::Lost)
    }

    /// What was held before the commit under each key that it, or one since, has changed.
    fn undone<S: Store>(
        &self,
        snapshot: &Snapshot<S>,
    ) -> Result<BTreeMap<KeyHash, Option<RecordDigest>>, ProveError> {
        let newest = snapshot.head.position;
        if newest - self.first >= MOST_UNDONE + MAX_PROVED_KEYS as u64 {
            return Err(ProveError::TooLongAgo(newest - self.first));
        }
        let mut undone = BTreeMap::new();
        let mut below = self.first - 1;
        while below < newest {
            let above = newest.min(below + ROWS);
            let rows = snapshot.log_rows(below, above).map_err(|error| snapshot.error(error))?;
            if rows.len() as u64 != above - below {
                return Err(ProveError::Lost);
            }
            for row in rows {
                match LogRow::parse(&row.value) {
                    Ok(LogRow::Opening { .. }) => {}
                    Ok(LogRow::Change { before: Before::Unknown, .. }) => {
                        return Err(ProveError::Earlier);
                    }
                    // the first change of a key says what was there before
                    Ok(LogRow::Change { key, before: Before::Held(before), .. }) => {
                        undone.entry(key).or_insert(before);
                    }
                    Err(_) => return Err(ProveError::Lost),
                }
            }
            below = above;
        }
        Ok(undone)
    }

    /// The changes, with the records that are still held.
    fn proved<S: Store>(&self, snapshot: &Snapshot<S>) -> Vec<ProvedChange> {
        let algorithm = snapshot.spec().algorithm;
        let proved = self.changes.iter().map(|(item, before)| {
            // an aid: what cannot be read is left out
            let held = item.record.and_then(|_| snapshot.entry(&item.key).ok().flatten());
            let record = held.map(|entry| entry.record);
            let record = record.filter(|record| item.record == Some(record.digest(algorithm)));
            ProvedChange { key: item.key, before: *before, after: item.record, record }
        });
        proved.collect()
    }
}

/// Position of the last change of a key, among the latest rows.
fn last_of<S: Store>(snapshot: &Snapshot<S>, key: &KeyHash) -> Result<Option<u64>, ProveError> {
    let newest = snapshot.head.position;
    let floor = snapshot.head.log_floor.max(newest.saturating_sub(MOST_UNDONE));
    let mut above = newest;
    while above >= floor && above > 0 {
        let below = above.saturating_sub(ROWS).max(floor.saturating_sub(1));
        let rows = snapshot.log_rows(below, above).map_err(|error| snapshot.error(error))?;
        for row in rows.iter().rev() {
            if let Ok(LogRow::Change { key: changed, .. }) = LogRow::parse(&row.value)
                && changed == *key
            {
                let position = super::rows::key_tail(&row.key).map_err(|_| ProveError::Lost)?;
                return Ok(Some(u64::from_be_bytes(position)));
            }
        }
        above = below;
    }
    Ok(None)
}

fn row_at<S: Store>(snapshot: &Snapshot<S>, position: u64) -> Result<LogRow, ProveError> {
    let row = snapshot.log_row(position).map_err(|error| snapshot.error(error))?;
    row.ok_or(ProveError::Lost)
}

/// The greatest key hash below this one.
fn before(key: &KeyHash) -> Option<KeyHash> {
    let mut before = *key;
    for byte in before.0.iter_mut().rev() {
        let (less, borrow) = byte.overflowing_sub(1);
        *byte = less;
        if !borrow {
            return Some(before);
        }
    }
    None
}
