//! Rules of the engine, broken one at a time: each must be noticed.

use std::sync::Arc;

use selfsame::dots::{Causality, Dot, DotRun, DotSet, Writer};
use selfsame::hash::{KeyHash, ValueHash};
use selfsame::merkle::{Envelope, Leaf, PagedTree, Prefix};
use selfsame::replica::{
    CollectionView, Entry, HeardMark, JoinRecord, JoinRequest, KeyUpdate, OwnWriter, RemovalLog,
    Snapshot, ViewError,
};
use selfsame::store::{Read as _, Table};
use selfsame::types::{CollectionSpec, NodeId};

use super::disk::{Disk, Tables};
use super::node::Things;
use super::oracle::Model;

/// A rule that is broken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mutant {
    /// Every opening of a node draws the same writers.
    ReuseWriter,
    /// A backup holds what a clean close left.
    CopyToken,
    /// A session works on a snapshot, and sends the context of a later moment.
    LiveContext,
    /// Whatever has a lesser stamp goes when a sibling arrives.
    PruneByStamp,
    /// Entries are applied after the join, not before.
    JoinEarly,
    /// A session that was cut short joins.
    JoinPartial,
    /// The join does not stop at what was refused.
    JoinPastRefused,
    /// Exceptions are not sent.
    HideExceptions,
    /// Entries and context are restored from different moments.
    MixMoments,
    /// The context outlives the entries that were lost.
    KeepContext,
    /// A session in flight goes on after a recovery.
    JoinAfterReset,
    /// What is broken is inside the engine.
    #[cfg(feature = "dangerous-mutants")]
    Inside(selfsame::mutants::Mutant),
}

/// Updates as a node that decides by stamps would have them.
pub fn pruned(
    mutant: Option<Mutant>,
    mut updates: Vec<KeyUpdate>,
    model: &Model,
) -> Vec<KeyUpdate> {
    if mutant != Some(Mutant::PruneByStamp) {
        return updates;
    }
    for update in &mut updates {
        let Some(newest) = update.add.iter().map(|add| add.sibling.stamp).max() else { continue };
        let held = super::world::number_of(&update.key_hash).ok();
        let held = held.and_then(|number| model.entries.get(&number));
        let older = held.into_iter().flatten().filter(|(_, sibling)| sibling.stamp < newest);
        update.remove.extend(older.map(|(dot, _)| *dot));
    }
    updates
}

/// Entries of one moment under the context of another, and a head that vouches for both.
pub fn mix_moments(tables: &mut Tables, other: &Tables) {
    /// Where the sum over the context rows stands in a head, and how long its checksum is.
    const SUM: std::ops::Range<usize> = 36..52;
    const CHECK: usize = 8;
    let heads: Vec<_> = tables.rows(Table::Heads).map(|(key, _)| Arc::clone(key)).collect();
    let head = heads.into_iter().find(|key| key.len() == 5 && key[4] == 0);
    let Some(key) = head else { return };
    let both = (tables.get(Table::Heads, &key), other.get(Table::Heads, &key));
    let (Ok(Some(mine)), Ok(Some(theirs))) = both else { return };
    let mut row = mine.to_vec();
    row[SUM].copy_from_slice(&theirs[SUM]);
    let body = row.len() - CHECK;
    let check = blake3::hash(&row[..body]);
    row[body..].copy_from_slice(&check.as_bytes()[..CHECK]);
    tables.set(Table::Heads, &key, Some(row.into()));
    tables.replace(Table::Context, other);
}

/// A join as if nothing had been refused.
pub fn everything_of(peer: &Model, epoch: u64) -> JoinRequest {
    let (context, exceptions) = peer.canonical();
    let peer = Causality::new(context, exceptions.into_iter().collect(), &DotSet::default());
    JoinRequest { epoch, peer, refused: DotSet::default() }
}

/// Gives a recovered collection its old context back.
pub fn keep_context(things: &Things, before: &Model, now_ms: u64) {
    if let Ok(snapshot) = things.snapshot() {
        let _ = things.join(&everything_of(before, snapshot.epoch()), now_ms);
    }
}

pub fn without_exceptions(snapshot: Snapshot<Arc<Disk>>) -> Box<dyn CollectionView + Send + Sync> {
    let pairs: Vec<_> = snapshot.causality().pairs().collect();
    let causality = Causality::new(pairs, DotSet::default(), &DotSet::default());
    Box::new(Altered::new(snapshot, causality))
}

/// A snapshot that states another context than its own.
pub struct Altered {
    snapshot: Snapshot<Arc<Disk>>,
    causality: Causality,
}

impl Altered {
    pub const fn new(snapshot: Snapshot<Arc<Disk>>, causality: Causality) -> Self {
        Self { snapshot, causality }
    }
}

impl CollectionView for Altered {
    fn spec(&self) -> &CollectionSpec {
        self.snapshot.spec()
    }

    fn envelope(&self) -> &Envelope {
        self.snapshot.envelope()
    }

    fn causality(&self) -> &Causality {
        &self.causality
    }

    fn epoch(&self) -> u64 {
        self.snapshot.epoch()
    }

    fn log_position(&self) -> u64 {
        self.snapshot.log_position()
    }

    fn tree(&self) -> PagedTree {
        self.snapshot.tree()
    }

    fn page(&self, prefix: &Prefix) -> Result<Vec<Leaf>, ViewError> {
        self.snapshot.page(prefix)
    }

    fn entry(&self, key: &KeyHash) -> Result<Option<Entry>, ViewError> {
        self.snapshot.entry(key)
    }

    fn value(&self, key: &KeyHash, hash: &ValueHash) -> Result<Option<Arc<[u8]>>, ViewError> {
        self.snapshot.value(key, hash)
    }

    fn has_value(&self, key: &KeyHash, hash: &ValueHash) -> Result<bool, ViewError> {
        self.snapshot.has_value(key, hash)
    }

    fn value_hashes(&self, key: &KeyHash, limit: usize) -> Result<Vec<ValueHash>, ViewError> {
        self.snapshot.value_hashes(key, limit)
    }

    fn key_of(&self, dot: Dot) -> Result<Option<KeyHash>, ViewError> {
        self.snapshot.key_of(dot)
    }

    fn writers(&self) -> Result<Vec<Writer>, ViewError> {
        self.snapshot.writers()
    }

    fn dots_after(
        &self,
        writer: Writer,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(Dot, KeyHash)>, ViewError> {
        self.snapshot.dots_after(writer, after, limit)
    }

    fn dots_within(&self, run: DotRun, limit: usize) -> Result<Vec<(Dot, KeyHash)>, ViewError> {
        self.snapshot.dots_within(run, limit)
    }

    fn removals_after(&self, position: u64, limit: usize) -> Result<RemovalLog, ViewError> {
        self.snapshot.removals_after(position, limit)
    }

    fn own_writer(&self) -> Option<&OwnWriter> {
        self.snapshot.own_writer()
    }

    fn heard_mark(&self, peer: &NodeId) -> Result<Option<HeardMark>, ViewError> {
        self.snapshot.heard_mark(peer)
    }

    fn join_record(&self, peer: &NodeId) -> Result<Option<JoinRecord>, ViewError> {
        self.snapshot.join_record(peer)
    }
}
