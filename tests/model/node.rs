//! A node of the model: the rows of its disk, and the real replica over them for each thing that
//! it does.
//!
//! Between two of its deeds a node is closed, so that all of it is rows and the token of a clean
//! close; with that token the next opening goes on as the same writer (rule D1). A process that
//! dies leaves none.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use selfsame::replica::{
    ApplyOutcome, CollectionView, JoinRecord, JoinRequest, KeyUpdate, Replica, ReplicaError,
    ReplicaOptions,
};
use selfsame::store::Durability;
use selfsame::types::NodeId;

use crate::harness::dice::Dice;
use crate::harness::disk::{Disk, Image, Tables};
use crate::harness::mutant::{self, Mutant};
use crate::harness::node::Things;
use crate::harness::oracle::{Model, ensure, key, spec, text};
use crate::harness::world::number_of;

/// The clock of every node: only the logical part of stamps moves.
pub const NOW_MS: u64 = 1_000_000;

/// Values of the odd key are too large to ride along: they are asked for, and travel on the lane
/// of values.
const LARGE_BYTES: usize = 300;

/// A node between two things that it does.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Node {
    at: usize,
    pub disk: Image,
    /// Random numbers drawn so far. Neither a crash nor a restore takes one back.
    draws: u64,
    /// What it holds and has seen, as a replica that never forgets.
    pub model: Model,
    /// What it was before each batch that a loss of power may take.
    past: Vec<Model>,
}

/// What a node is asked to do.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Work {
    Put { key: u8, tag: u8 },
    Delete { key: u8 },
    Apply { update: KeyUpdate, epoch: u64 },
    Join { request: JoinRequest, after: Model },
    Remember { peer: NodeId, record: JoinRecord },
    Recover,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Answer {
    Put(selfsame::entry::Sibling),
    Deleted,
    Applied(ApplyOutcome),
    Joined,
    Remembered,
    Recovered,
    /// The collection was recovered since the session began.
    Stale(String),
}

/// A snapshot for a session, and what the node was.
pub struct View {
    tables: Tables,
    pub model: Model,
    pub snapshot: Box<dyn CollectionView + Send + Sync>,
}

// all that a session can ask of a snapshot is read from these rows
impl PartialEq for View {
    fn eq(&self, other: &Self) -> bool {
        self.tables == other.tables
    }
}

impl Eq for View {}

impl Hash for View {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.tables.hash(state);
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("View").field(&self.model).finish()
    }
}

fn value(key: u8, tag: u8) -> Vec<u8> {
    if key % 2 == 1 { vec![tag; LARGE_BYTES] } else { vec![tag] }
}

impl Node {
    /// A node with the collection and nothing in it. The first answers for what is synced, the
    /// other for what a loss of power may take.
    pub fn new(at: usize) -> Result<Self, String> {
        let disk = Image::of(Tables::default());
        let node = Self { at, disk, draws: 0, model: Model::default(), past: Vec::new() };
        let (node, ()) = node.open(|_, _| Ok(((), Model::default())))?;
        Ok(node)
    }

    const fn durability(&self) -> Durability {
        if self.at == 0 { Durability::Always } else { Durability::Never }
    }

    /// Opens the store, does something, closes it; what it is then must be what `work` says.
    fn open<R>(
        &self,
        work: impl FnOnce(&Things, &Disk) -> Result<(R, Model), String>,
    ) -> Result<(Self, R), String> {
        let disk = Arc::new(Disk::new(&self.disk));
        let draws = Arc::new(AtomicU64::new(self.draws));
        let (counter, at) = (Arc::clone(&draws), self.at as u64);
        let random = move || {
            let number = counter.fetch_add(1, Ordering::Relaxed);
            Dice::new(at << 32 | number).roll()
        };
        let options = ReplicaOptions {
            durability: self.durability(),
            page_leaves: 1,
            ..ReplicaOptions::default()
        };
        let replica = Replica::open(Arc::clone(&disk), options, Box::new(random)).map_err(text)?;
        let things = replica.create_collection(spec()).map_err(text)?;
        let (answer, model) = work(&things, &disk)?;
        model.check(&things, &Default::default())?;
        let image = disk.image();
        // what is not synced stays so: the token alone is kept of the close
        replica.close().map_err(text)?;
        let image = image.with_token(disk.token());
        let mut past = self.past.clone();
        if image.has_more_synced_than(&self.disk) {
            past = vec![model.clone(); image.unsynced()];
        }
        past.resize(image.unsynced(), self.model.clone());
        let draws = draws.load(Ordering::Relaxed);
        Ok((Self { at: self.at, disk: image, draws, model, past }, answer))
    }

    /// The process dies, and with it all but so many of the batches that were not synced.
    pub fn crashed(&self, kept: usize) -> Self {
        let model = self.past.get(kept).unwrap_or(&self.model).clone();
        self.reborn(self.disk.crashed(kept), model)
    }

    /// The rows of a backup of this node take the place of those that are here.
    pub fn restored(&self, backup: &Self, mutant: Option<Mutant>) -> Self {
        let mut rows = backup.disk.tables().clone();
        if mutant == Some(Mutant::MixMoments) {
            mutant::mix_moments(&mut rows, self.disk.tables());
        }
        let token = backup.disk.token().filter(|_| mutant == Some(Mutant::CopyToken));
        let disk = Image::of(rows).with_token(token.map(<[u8]>::to_vec));
        self.reborn(disk, backup.model.clone())
    }

    fn reborn(&self, disk: Image, model: Model) -> Self {
        Self { at: self.at, disk, draws: self.draws, model, past: Vec::new() }
    }

    /// A snapshot for a session.
    pub fn view(&self, mutant: Option<Mutant>) -> Result<View, String> {
        let (_, snapshot) =
            self.open(|things, _| Ok((things.snapshot().map_err(text)?, self.model.clone())))?;
        Ok(View {
            tables: self.disk.tables().clone(),
            model: self.model.clone(),
            snapshot: match mutant {
                Some(Mutant::HideExceptions) => mutant::without_exceptions(snapshot),
                _ => Box::new(snapshot),
            },
        })
    }

    /// As it is after it was opened again, if what is on its disk is what it should be.
    pub fn opened(&self) -> Result<Self, String> {
        let (node, ()) = self.open(|_, _| Ok(((), self.model.clone())))?;
        Ok(node)
    }

    /// A mutant joins what the peer has seen, without a session that came to its end.
    pub fn join_all(&self, peer: &dyn CollectionView) -> Result<Self, String> {
        let (node, ()) = self.open(|things, _| {
            let epoch = things.snapshot().map_err(text)?.epoch();
            let peer = peer.causality().clone();
            things
                .join(&JoinRequest { epoch, peer, refused: Default::default() }, NOW_MS)
                .map_err(text)?;
            Ok(((), self.model.clone()))
        })?;
        Ok(node)
    }

    /// Does it, and is then what the rules say.
    pub fn work(&self, work: &Work, mutant: Option<Mutant>) -> Result<(Self, Answer), String> {
        let (node, answer) = self.worked(work, mutant)?;
        let draws = if mutant == Some(Mutant::ReuseWriter) { 0 } else { node.draws };
        Ok((Self { draws, ..node }, answer))
    }

    fn worked(&self, work: &Work, mutant: Option<Mutant>) -> Result<(Self, Answer), String> {
        self.open(|things, disk| {
            let mut model = self.model.clone();
            let answer = match work {
                Work::Put { key: number, tag } => {
                    let put = things.put(&key(*number), value(*number, *tag), NOW_MS);
                    let sibling = put.map_err(text)?;
                    for dot in model.dots(*number) {
                        model.remove(dot);
                    }
                    model.add(*number, sibling);
                    Answer::Put(sibling)
                }
                Work::Delete { key: number } => {
                    things.delete(&key(*number), NOW_MS).map_err(text)?;
                    for dot in model.dots(*number) {
                        model.remove(dot);
                    }
                    Answer::Deleted
                }
                Work::Apply { update, epoch } => {
                    let given = mutant::pruned(mutant, vec![update.clone()], &model);
                    match things.apply(given, *epoch, NOW_MS) {
                        Err(ReplicaError::OtherEpoch(what)) => Answer::Stale(what),
                        applied => {
                            let outcome = applied.map_err(text)?.pop().unwrap_or_default();
                            ensure(outcome.missing_values.is_empty(), || {
                                format!("values that were given are missing: {outcome:?}")
                            })?;
                            let number = number_of(&update.key_hash)?;
                            let limits = selfsame::limits::Limits::default();
                            let expected = model.apply(number, update, NOW_MS, &limits);
                            expected.check(&outcome)?;
                            Answer::Applied(outcome)
                        }
                    }
                }
                Work::Join { request, after } => match things.join(request, NOW_MS) {
                    Err(ReplicaError::OtherEpoch(what)) => Answer::Stale(what),
                    joined => {
                        joined.map_err(text)?;
                        ensure(disk.is_synced(), || "joined, and it is not synced".into())?;
                        model = after.clone();
                        Answer::Joined
                    }
                },
                Work::Remember { peer, record } => {
                    things.remember_join(peer, record).map_err(text)?;
                    Answer::Remembered
                }
                Work::Recover => {
                    things.recover().map_err(text)?;
                    model.seen = model.held().map(|(dot, ..)| dot).collect();
                    Answer::Recovered
                }
            };
            let own = matches!(work, Work::Put { .. } | Work::Delete { .. });
            let promised = own && self.durability() == Durability::Always;
            ensure(!promised || disk.is_synced(), || "answered for what is not synced".into())?;
            Ok((answer, model))
        })
    }
}
