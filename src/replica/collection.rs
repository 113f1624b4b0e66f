//! One collection: its live state behind one lock, and what can be asked of it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::{ClockAhead, HybridClock, Stamp};
use crate::dots::{Causality, Writer};
use crate::entry::Totals;
use crate::hash::{ContextHash, KeyHash, LogHead, Root, StateHash, ValueHash};
use crate::limits::Limits;
use crate::merkle::{Digest, Envelope, PagedTree};
use crate::resolve::Resolvers;
use crate::store::{CommitNumber, Durability, Read, Store, Table};
use crate::types::{CollectionName, CollectionSpec, Key, NodeId};

use super::certificates::CertificateLog;
use super::common::CommonStates;
use super::group::Group;
use super::known::Known;
use super::loaded::LoadedPages;
use super::log::OpenLog;
use super::lost::Losses;
use super::marks::OwnWriter;
use super::pages::{self, ReadError, with_pages};
use super::reading::Resolution;
use super::rows::{CollectionId, Head};
use super::scrub::Scrubbing;
use super::sketching::KeptSketches;
use super::snapshot::{Beside, Snapshot};
use super::view::{CollectionView, Entry, JoinRecord};
use super::witness::Told;
use super::{Random, ReplicaError, ReplicaOptions};

/// What the collections of a replica share.
pub(super) struct Node {
    pub(super) limits: Limits,
    pub(super) durability: Durability,
    pub(super) resolvers: Resolvers,
    /// Pages of all collections in memory.
    pub(super) loaded_pages: Arc<AtomicUsize>,
    /// Bytes set aside for sketches of all collections.
    pub(super) sketch_bytes: Arc<AtomicUsize>,
    clock: Mutex<HybridClock>,
    /// Why no puts are taken, while the clock is known to be wrong.
    clock_ahead: Mutex<Option<ClockAhead>>,
    puts_refused: AtomicU64,
    random: Mutex<Random>,
}

impl Node {
    pub(super) fn new(options: ReplicaOptions, random: Random) -> Self {
        let ReplicaOptions { limits, durability, resolvers, .. } = options;
        let clock = Mutex::new(HybridClock::resume(Stamp(0)));
        let (loaded_pages, sketch_bytes) = Default::default();
        Self {
            limits,
            durability,
            resolvers,
            loaded_pages,
            sketch_bytes,
            clock,
            clock_ahead: Mutex::new(None),
            puts_refused: AtomicU64::new(0),
            random: Mutex::new(random),
        }
    }

    pub(super) fn clock(&self) -> MutexGuard<'_, HybridClock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn resume_clock(&self, seen: Stamp) {
        let mut clock = self.clock();
        *clock = HybridClock::resume(clock.seen().max(seen));
    }

    pub(super) fn clock_ahead(&self) -> MutexGuard<'_, Option<ClockAhead>> {
        self.clock_ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stamp of a local put.
    ///
    /// # Errors
    /// Most peers find this node's clock ahead: nothing may be written.
    pub(super) fn stamp(&self, now_ms: u64) -> Result<Stamp, ReplicaError> {
        if let Some(ahead) = &*self.clock_ahead() {
            self.puts_refused.fetch_add(1, Ordering::Relaxed);
            return Err(ReplicaError::ClockAhead(Box::new(ahead.clone())));
        }
        Ok(self.clock().tick_within(now_ms, self.limits.max_clock_drift_ms))
    }

    pub(super) fn puts_refused(&self) -> u64 {
        self.puts_refused.load(Ordering::Relaxed)
    }

    /// A random number that is not zero.
    pub(super) fn random_nonzero(&self) -> u64 {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match random() {
                0 => {}
                number => return number,
            }
        }
    }
}

/// The writer of this opening.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PresentWriter {
    /// Its id.
    pub writer: Writer,
    /// Counter of its last put.
    pub counter: u64,
    /// Running hash of its puts: two who claim one writer and one counter and differ in this
    /// are a clone and its origin.
    pub puts: [u8; 32],
}

/// The live state.
pub(super) struct Live {
    pub(super) tree: PagedTree,
    pub(super) loaded: LoadedPages,
    /// Of this very tree.
    pub(super) sketches: KeptSketches,
    pub(super) causality: Arc<Causality>,
    pub(super) writer: OwnWriter,
    pub(super) head: Head,
    pub(super) log: Option<OpenLog>,
    /// The last batch that changed this collection.
    pub(super) number: CommitNumber,
    pub(super) context_hash: Option<ContextHash>,
    pub(super) common: CommonStates,
    /// Why nothing of this holds any more, if the store failed and could not be read after it.
    pub(super) stale: Option<String>,
}

impl Live {
    /// Whether it holds nothing and has never seen anything.
    pub(super) fn is_untouched(&self) -> bool {
        self.stale.is_none()
            && self.tree.is_empty()
            && self.causality.writers() == 0
            && self.causality.exceptions().is_empty()
    }
}

/// Live, or what is damaged, or no more.
pub(super) enum State {
    Live(Box<Live>),
    /// A backup was restored in its place.
    Replaced,
    Damaged {
        what: String,
        /// Epoch as far as it is known.
        epoch: u64,
    },
}

impl State {
    pub(super) fn live(&mut self, name: &CollectionName) -> Result<&mut Live, ReplicaError> {
        let damage = self.damage();
        match (self, damage) {
            (Self::Live(live), None) => Ok(live),
            (Self::Replaced, _) => Err(ReplicaError::Replaced(name.to_string())),
            (_, damage) => Err(ReplicaError::Damaged {
                collection: name.to_string(),
                what: damage.unwrap_or_default(),
            }),
        }
    }

    /// What is damaged.
    fn damage(&self) -> Option<String> {
        match self {
            Self::Live(live) => live.stale.clone(),
            Self::Replaced => Some("a backup was restored in its place".into()),
            Self::Damaged { what, .. } => Some(what.clone()),
        }
    }
}

/// A collection of a replica: entries under one tree, one context, one policy.
///
/// Every change is one commit of the store, and shows here only when the store has taken it. An
/// answer is given when the change is as durable as the replica was asked to make it; if the disk
/// fails in between, the change may show and yet be lost in a crash, and the error says so.
pub struct Collection<S: Store> {
    pub(super) id: CollectionId,
    pub(super) spec: CollectionSpec,
    pub(super) store: Arc<S>,
    pub(super) node: Arc<Node>,
    pub(super) state: Mutex<State>,
    /// Counts what changed content or context since the replica was opened.
    pub(super) changes: AtomicU64,
    pub(super) losses: Arc<Losses<S>>,
    pub(super) scrub: Scrubbing,
    pub(super) group: Group,
    pub(super) certificates: Mutex<Option<CertificateLog>>,
    pub(super) told: Mutex<Told>,
    pub(super) resolution: Resolution,
    /// Number of the next report, once one was written.
    pub(super) next_report: Mutex<Option<u64>>,
    /// Whether a backup was restored in its place.
    pub(super) replaced: AtomicBool,
}

impl<S: Store> Collection<S> {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // a poisoned lock: what is live changes only in the last, infallible steps of a commit
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn with_live<R>(
        &self,
        ask: impl FnOnce(&mut Live) -> Result<R, ReplicaError>,
    ) -> Result<R, ReplicaError> {
        let mut state = self.lock();
        let live = state.live(&self.spec.name)?;
        let answer = ask(live);
        live.loaded.bound(&mut live.tree, self.node.limits.max_loaded_pages);
        answer
    }

    /// Name, algorithm and policy.
    pub const fn spec(&self) -> &CollectionSpec {
        &self.spec
    }

    /// Its name.
    pub const fn name(&self) -> &CollectionName {
        &self.spec.name
    }

    /// Hash of a key here.
    pub fn key_hash(&self, key: &Key) -> KeyHash {
        self.spec.algorithm.key_hash(key)
    }

    /// Counts the changes of content or context since the replica was opened, whoever made them:
    /// whoever waits for one asks now and then, which takes no lock.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    pub(super) fn count_change(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// What is damaged, if the collection cannot be used before it is recovered.
    pub fn damage(&self) -> Option<String> {
        self.lock().damage()
    }

    pub(super) fn envelope_of(&self, tree: &PagedTree) -> Result<Envelope, ReplicaError> {
        Envelope::new(self.spec.clone(), tree.tree_hash(), tree.totals()).map_err(|error| {
            ReadError::damaged(format!("the tree has impossible totals: {error}"))
                .of(&self.spec.name)
        })
    }

    /// One atomic moment: entries, tree, context and exceptions (rule D5). Copies nothing; later
    /// changes leave it alone.
    ///
    /// # Errors
    /// The store failed, or the collection is damaged.
    pub fn snapshot(&self) -> Result<Snapshot<S>, ReplicaError> {
        self.with_live(|live| {
            Ok(Snapshot::new(
                self.id,
                self.envelope_of(&live.tree)?,
                Arc::clone(&live.causality),
                live.tree.clone(),
                live.head.clone(),
                self.store.snapshot()?,
                Beside {
                    losses: Arc::clone(&self.losses),
                    writer: live.writer.clone(),
                    sketches: live.sketches.whole().cloned(),
                    common: live.common.clone(),
                    known: Arc::new(Known::new(self.node.limits.max_session_memory_bytes)),
                },
            ))
        })
    }

    /// The root of what is held now.
    ///
    /// # Errors
    /// The collection is damaged.
    pub fn root(&self) -> Result<Root, ReplicaError> {
        self.with_live(|live| Ok(live.head.root))
    }

    /// Entries, siblings, bytes and latest stamp.
    ///
    /// # Errors
    /// The collection is damaged.
    pub fn totals(&self) -> Result<Totals, ReplicaError> {
        self.with_live(|live| Ok(live.tree.totals()))
    }

    /// Root and context in one hash: equal state hashes leave nothing to do.
    ///
    /// # Errors
    /// The collection is damaged, or has more exceptions than a context can list.
    pub fn state_hash(&self) -> Result<StateHash, ReplicaError> {
        self.with_live(|live| {
            let context = match live.context_hash {
                Some(hash) => hash,
                None => live.causality.hash(self.spec.algorithm)?,
            };
            live.context_hash = Some(context);
            Ok(self.spec.algorithm.state(&live.head.root, &context))
        })
    }

    /// Root fields, clock and the hashes of the 256 buckets.
    ///
    /// # Errors
    /// The store failed, or the collection is damaged.
    pub fn digest(&self) -> Result<Digest, ReplicaError> {
        let clock = self.node.clock().seen();
        self.with_live(|live| {
            let name = &self.spec.name;
            let buckets = with_pages(&*self.store, self.id, name, &mut live.tree, |tree| {
                tree.bucket_hashes()
            })?;
            Digest::new(self.envelope_of(&live.tree)?, Box::new(buckets), clock)
                .map_err(|error| ReadError::damaged(error.to_string()).of(name))
        })
    }

    /// The entry under a key.
    ///
    /// # Errors
    /// The store failed, or the entry is damaged.
    pub fn get(&self, key: &Key) -> Result<Option<Entry>, ReplicaError> {
        self.with_live(|live| self.entry_to_read(live, &self.key_hash(key)))
    }

    /// The entry with this key hash.
    ///
    /// # Errors
    /// The store failed, or the entry is damaged.
    pub fn entry(&self, key_hash: &KeyHash) -> Result<Option<Entry>, ReplicaError> {
        self.with_live(|live| self.entry_of(live, key_hash))
    }

    pub(super) fn entry_of(
        &self,
        live: &mut Live,
        key_hash: &KeyHash,
    ) -> Result<Option<Entry>, ReplicaError> {
        let (name, algorithm) = (&self.spec.name, self.spec.algorithm);
        let tree = &mut live.tree;
        let leaf = with_pages(&*self.store, self.id, name, tree, |tree| tree.get(key_hash));
        let entry = leaf.and_then(|leaf| {
            pages::read_checked(&*self.store, self.id, algorithm, key_hash, leaf.as_ref())
                .map_err(|error| error.of(name))
        });
        entry.inspect_err(|error| self.note_rot(error))
    }

    /// What was read of an entry that cannot be verified is written down, to be fetched again.
    pub(super) fn note_rot(&self, error: &ReplicaError) {
        if let ReplicaError::Rotten { key, .. } = error {
            self.losses.note_record(key);
        }
    }

    /// The entry as a reader wants it: where a neighbour in its page rotted, so that the page
    /// cannot be verified, its own row has to do, which has a checksum. Nothing that a peer is
    /// told, and nothing that is changed, goes by this.
    pub(super) fn entry_to_read(
        &self,
        live: &mut Live,
        key_hash: &KeyHash,
    ) -> Result<Option<Entry>, ReplicaError> {
        let rotten = match self.entry_of(live, key_hash) {
            Err(ReplicaError::Rotten { key, .. }) if key != *key_hash => key,
            other => return other,
        };
        let name = &self.spec.name;
        let Some(prefix) = live.tree.page_of(key_hash) else {
            return Err(ReadError::Rotten(rotten).of(name));
        };
        let mut page = pages::Page::read(&*self.store, self.id, &live.tree, &prefix)?;
        for key in &page.rotten {
            self.losses.note_record(key);
        }
        let whole = live.tree.totals_under(&prefix).map(|totals| totals.entries);
        let all_known = whole == Ok((page.sound.len() + page.rotten.len()) as u64);
        match page.sound.remove(key_hash) {
            Some(entry) => Ok(Some(entry)),
            None if all_known && !page.rotten.contains(key_hash) => Ok(None),
            None => Err(ReadError::Rotten(*key_hash).of(name)),
        }
    }

    /// The value with this hash, held for this key now or in its history. A value whose bytes do
    /// not match reads as absent.
    ///
    /// # Errors
    /// The store failed.
    pub fn value(
        &self,
        key_hash: &KeyHash,
        hash: &ValueHash,
    ) -> Result<Option<Arc<[u8]>>, ReplicaError> {
        let value = self.stored_value(key_hash, hash)?;
        if value.is_none() && self.size_named(key_hash, hash)?.is_some() {
            self.losses.note(key_hash, hash);
        }
        Ok(value)
    }

    pub(super) fn stored_value(
        &self,
        key_hash: &KeyHash,
        hash: &ValueHash,
    ) -> Result<Option<Arc<[u8]>>, ReplicaError> {
        let row = self.store.get(Table::Values, &self.id.value(key_hash, hash))?;
        Ok(row.filter(|value| self.spec.algorithm.value_hash(value) == *hash))
    }

    /// Entries in the order of their key hashes, after the one given, whose keys begin with
    /// `prefix`; at most `limit`. Keys are not stored in their own order: a narrow prefix walks
    /// over all entries.
    ///
    /// # Errors
    /// The store failed, or an entry is damaged.
    pub fn list(
        &self,
        prefix: &[u8],
        after: Option<&KeyHash>,
        limit: usize,
    ) -> Result<Vec<Entry>, ReplicaError> {
        self.snapshot()?
            .entries_after(after, limit, |entry| entry.key.as_bytes().starts_with(prefix))
            .map_err(|error| ReplicaError::View(self.spec.name.to_string(), error))
    }

    /// Values of a key that were replaced or deleted and can still be read: when, and which; the
    /// latest first.
    ///
    /// # Errors
    /// The store failed.
    pub fn history(&self, key: &Key, limit: usize) -> Result<Vec<(u64, ValueHash)>, ReplicaError> {
        let snapshot = self.snapshot()?;
        snapshot
            .history(&self.key_hash(key), limit)
            .map_err(|error| ReplicaError::View(self.spec.name.to_string(), error))
    }

    /// What this opening has seen of its own puts; none before the first.
    ///
    /// # Errors
    /// The collection is damaged.
    pub fn present_writer(&self) -> Result<Option<PresentWriter>, ReplicaError> {
        self.with_live(|live| Ok(live.writer.present()))
    }

    /// Context and exceptions as they are now.
    ///
    /// # Errors
    /// The collection is damaged.
    pub fn causality(&self) -> Result<Arc<Causality>, ReplicaError> {
        self.with_live(|live| Ok(Arc::clone(&live.causality)))
    }

    /// Bytes of the replaced values that are kept.
    ///
    /// # Errors
    /// The collection is damaged.
    pub fn history_bytes(&self) -> Result<u64, ReplicaError> {
        self.with_live(|live| Ok(live.head.history_bytes))
    }

    /// Head of this opening's change log, with its size; none before the first change.
    ///
    /// # Errors
    /// The collection is damaged.
    pub fn log_head(&self) -> Result<Option<(u64, LogHead)>, ReplicaError> {
        self.with_live(|live| {
            let fields = live.log.as_ref().map(OpenLog::head_fields);
            Ok(fields.map(|fields| (fields.size(), fields.head())))
        })
    }

    /// Remembers the last session that both this node and the peer joined.
    ///
    /// # Errors
    /// The store failed, or the collection is damaged.
    pub fn remember_join(&self, peer: &NodeId, record: &JoinRecord) -> Result<(), ReplicaError> {
        self.with_live(|live| {
            let row = super::join::write_join(live.head.epoch, record)?;
            let mut batch = crate::store::Batch::default();
            batch.put(Table::Joins, &self.id.join(peer), &row);
            live.number = self.store.apply(batch)?;
            if let Ok(context) = record.merged.hash(self.spec.algorithm) {
                live.common.remember(context, record);
            }
            Ok(())
        })
    }

    /// What is remembered of the last joined session with this peer.
    ///
    /// # Errors
    /// The store failed, or the collection is damaged.
    pub fn join_record(&self, peer: &NodeId) -> Result<Option<JoinRecord>, ReplicaError> {
        self.snapshot()?
            .join_record(peer)
            .map_err(|error| ReplicaError::View(self.spec.name.to_string(), error))
    }
}
