//! A node: a replica on its disk, and beside it what the oracle knows of both.

use std::collections::BTreeSet;
use std::sync::Arc;

use selfsame::backup::{BackupLimits, BackupReader, Chain};
use selfsame::hash::ValueHash;
use selfsame::limits::Limits;
use selfsame::merkle::NodeKey;
use selfsame::replica::{Collection, Replica, ReplicaOptions, RestoreOptions, Snapshot};
use selfsame::store::Durability;
use selfsame::types::NodeId;

use super::dice::Dice;
use super::disk::{Disk, Tables};
use super::oracle::{Model, spec, text};

pub type Things = Collection<Arc<Disk>>;

/// Where a node stands: what it holds and has seen, and what is rotten of it.
#[derive(Clone, Default, Debug)]
pub struct Stand {
    pub model: Model,
    /// Keys whose entries cannot be read.
    pub rotten: BTreeSet<u8>,
    /// Whether anything is damaged that only a recovery heals.
    pub damaged: bool,
}

/// A copy of a store at one moment.
#[derive(Clone)]
pub struct Backup {
    pub of: usize,
    pub tables: Tables,
    pub token: Option<Vec<u8>>,
    pub stand: Stand,
    pub lost: BTreeSet<(u8, ValueHash)>,
    /// The same as `selfsame backup` makes it, if the node was open and whole.
    pub stream: Option<Vec<u8>>,
}

/// A change that was answered with an error and may have reached the disk.
#[derive(Clone)]
pub enum Ghost {
    /// What stands if it did.
    Model(Model),
    /// A put: its dot is not known.
    Put { key: u8, value: Vec<u8>, over: Option<Vec<selfsame::dots::Dot>> },
}

pub struct Node {
    pub at: usize,
    pub signing: NodeKey,
    pub disk: Arc<Disk>,
    pub open: Option<Opened>,
    /// Openings so far: what an earlier one had in hand is gone.
    pub openings: u64,
    pub stand: Stand,
    /// Where it stood after each batch since the last sync, oldest first.
    past: Vec<(u64, Stand)>,
    pub ghost: Option<(u64, Ghost)>,
    /// Values whose bytes rotted here at some time.
    pub lost: BTreeSet<(u8, ValueHash)>,
    pub limits: Limits,
    pub durability: Durability,
    page_leaves: u16,
    /// How far its clock is ahead.
    pub skew_ms: i64,
    pub online: bool,
    /// A snapshot of some steps ago, for a mutant that mixes moments.
    pub stale: Option<Snapshot<Arc<Disk>>>,
}

/// What is gone with the process.
pub struct Opened {
    pub replica: Replica<Arc<Disk>>,
    pub collection: Arc<Things>,
}

impl Node {
    pub fn new(at: usize, limits: Limits, durability: Durability, page_leaves: u16) -> Self {
        let disk = Arc::new(Disk::default());
        let signing = NodeKey::from_seed(&[at as u8 + 1; 32]);
        Self {
            at,
            signing,
            disk,
            open: None,
            openings: 0,
            stand: Stand::default(),
            past: Vec::new(),
            ghost: None,
            lost: BTreeSet::new(),
            limits,
            durability,
            page_leaves,
            skew_ms: 0,
            online: true,
            stale: None,
        }
    }

    pub fn id(&self) -> NodeId {
        self.signing.node_id()
    }

    pub fn name(&self) -> char {
        name(self.at)
    }

    pub fn model(&self) -> &Model {
        &self.stand.model
    }

    /// The collection, if a process runs and can use it.
    pub fn usable(&self) -> Option<Arc<Things>> {
        let opened = self.open.as_ref()?;
        opened.collection.damage().is_none().then(|| Arc::clone(&opened.collection))
    }

    pub fn start(&mut self, random: Dice) -> Result<(), String> {
        let options = ReplicaOptions {
            limits: self.limits.clone(),
            durability: self.durability,
            page_leaves: self.page_leaves,
            ..ReplicaOptions::default()
        };
        let replica = Replica::open(Arc::clone(&self.disk), options, random.random());
        let replica = replica.map_err(text)?;
        let existing = replica.collection(&spec().name);
        let collection = match existing {
            Ok(collection) => collection,
            Err(_) if self.openings == 0 => replica.create_collection(spec()).map_err(text)?,
            Err(error) => return Err(text(error)),
        };
        self.openings += 1;
        if let Some(damage) = collection.damage()
            && !self.stand.damaged
        {
            return Err(format!("{} is damaged and nothing rotted: {damage}", self.name()));
        }
        self.open = Some(Opened { replica, collection });
        if self.past.is_empty() {
            self.forget_past();
        }
        Ok(())
    }

    /// The process is gone, with all that it had in memory.
    pub fn stop(&mut self) -> Option<Opened> {
        self.stale = None;
        self.open.take()
    }

    /// Remembers where the node stands after what was written last.
    pub fn remember(&mut self) {
        let (shown, stand) = (self.disk.shown(), self.stand.clone());
        self.remember_at(shown, stand);
        if self.disk.is_synced() {
            self.forget_past();
        }
    }

    /// What there is now is all that there is.
    pub fn forget_past(&mut self) {
        self.past = vec![(0, self.stand.clone())];
    }

    pub fn remember_at(&mut self, number: u64, stand: Stand) {
        self.past.retain(|(at, _)| *at < number);
        self.past.push((number, stand));
    }

    /// Where the node stood after this batch.
    pub fn stand_at(&self, number: u64) -> Stand {
        let known = self.past.iter().rev().find(|(at, _)| *at <= number);
        known.map_or_else(|| self.stand.clone(), |(_, stand)| stand.clone())
    }

    /// A backup as users make it; none if the node is not open, or not whole.
    pub fn stream(&self, now_ms: u64) -> Result<Option<Vec<u8>>, String> {
        let whole = self.stand.rotten.is_empty() && !self.stand.damaged && self.lost.is_empty();
        let Some(things) = self.usable().filter(|_| whole) else { return Ok(None) };
        let snapshot = things.snapshot().map_err(text)?;
        let (head, keys) = snapshot.backup_head(self.id(), now_ms, None).map_err(text)?;
        let (bytes, _) = snapshot.back_up(&head, keys.as_deref(), Vec::new()).map_err(text)?;
        Ok(Some(bytes))
    }

    /// Restores such a backup while the process goes on.
    pub fn restore(&mut self, stream: &[u8], now_ms: u64) -> Result<(), String> {
        let Some(open) = &mut self.open else { return Err("it is not open".into()) };
        let reader = BackupReader::open(stream, BackupLimits::default()).map_err(text)?;
        let mut chain = Chain::of(vec![reader]).map_err(text)?;
        let options = RestoreOptions { replace: true, now_ms, name: None };
        open.replica.restore(&mut chain, &options).map_err(text)?;
        open.collection = open.replica.collection(&spec().name).map_err(text)?;
        Ok(())
    }

    pub fn now_ms(&self, world_ms: u64) -> u64 {
        world_ms.saturating_add_signed(self.skew_ms)
    }
}

pub fn name(at: usize) -> char {
    char::from(b'A' + at as u8)
}
