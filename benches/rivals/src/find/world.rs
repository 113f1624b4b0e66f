//! Two replicas that hold the same entries, and drift apart.

use std::fmt::Display;
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use selfsame::hash::{HashAlgorithm, RecordDigest, Root};
use selfsame::limits::Limits;
use selfsame::merkle::NodeKey;
use selfsame::replica::{
    Collection, CollectionView as _, IncomingSibling, JoinRequest, KeyUpdate, Replica,
    ReplicaOptions, Warming,
};
use selfsame::store::MemoryStore;
use selfsame::types::{CollectionName, CollectionSpec, Key, NodeId, Policy};

use crate::error::RivalsError;

/// Entries written at a time.
const CHUNK: usize = 10_000;
const ALGORITHM: HashAlgorithm = HashAlgorithm::Blake3;

pub(super) fn wrong(error: impl Display) -> RivalsError {
    RivalsError::wrong("selfsame", error)
}

/// A key and its value.
type Entry = (Key, Arc<[u8]>);

/// One replica, with a store in memory and a clock of its own.
pub(super) struct Node {
    pub(super) key: NodeKey,
    pub(super) limits: Limits,
    pub(super) collection: Arc<Collection<MemoryStore>>,
    pub(super) now_ms: u64,
    _replica: Replica<MemoryStore>,
}

impl Node {
    fn new(seed: u64, kept_symbols: usize) -> Result<Self, RivalsError> {
        let mut rng = SmallRng::seed_from_u64(seed);
        let key = NodeKey::from_seed(&rng.random());
        let mut options = ReplicaOptions::default();
        options.limits.kept_symbols = kept_symbols;
        let limits = options.limits.clone();
        let random = Box::new(move || rng.random());
        let replica = Replica::open(MemoryStore::default(), options, random).map_err(wrong)?;
        let spec = CollectionSpec {
            name: CollectionName::new("players").map_err(wrong)?,
            algorithm: ALGORITHM,
            policy: Policy::Lww,
        };
        let collection = replica.create_collection(spec).map_err(wrong)?;
        Ok(Self { key, limits, collection, now_ms: 1_800_000_000_000, _replica: replica })
    }

    pub(super) fn id(&self) -> NodeId {
        self.key.node_id()
    }

    pub(super) fn root(&self) -> Result<Root, RivalsError> {
        self.collection.root().map_err(wrong)
    }

    fn put(&mut self, key: &Key, value: Vec<u8>) -> Result<(), RivalsError> {
        self.now_ms += 1;
        self.collection.put(key, value, self.now_ms).map(drop).map_err(wrong)
    }

    fn delete(&mut self, key: &Key) -> Result<(), RivalsError> {
        self.now_ms += 1;
        self.collection.delete(key, self.now_ms).map(drop).map_err(wrong)
    }

    /// What is held, as others see it: ids over key and value, ascending.
    pub(super) fn items(&self) -> Result<Vec<Item>, RivalsError> {
        let view = self.collection.snapshot().map_err(wrong)?;
        let mut items = Vec::new();
        let mut after = None;
        loop {
            let entries = view.entries_after(after.as_ref(), CHUNK, |_| true).map_err(wrong)?;
            let Some(last) = entries.last() else { break };
            after = Some(self.collection.key_hash(&last.key));
            for entry in entries {
                let key = self.collection.key_hash(&entry.key);
                let siblings = entry.record.siblings();
                let latest = siblings.iter().max_by_key(|sibling| sibling.stamp);
                items.extend(latest.map(|sibling| Item {
                    id: ALGORITHM.leaf(&key, &RecordDigest(sibling.value_hash.0)).0,
                    millis: sibling.stamp.millis(),
                }));
            }
        }
        items.sort_unstable_by_key(|item| item.id);
        Ok(items)
    }
}

/// What others see of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Item {
    /// Hash over key and value.
    pub(super) id: [u8; 32],
    /// When it was written.
    pub(super) millis: u64,
}

/// The ids that only one of the two has: of the first, of the second.
pub(super) fn differing(a: &[Item], b: &[Item]) -> [Vec<[u8; 32]>; 2] {
    let only = |these: &[Item], those: &[Item]| {
        let lacks = |item: &&Item| those.binary_search_by_key(&item.id, |i| i.id).is_err();
        these.iter().filter(lacks).map(|item| item.id).collect()
    };
    [only(a, b), only(b, a)]
}

fn key(number: u64) -> Result<Key, RivalsError> {
    Key::new(format!("player:{number:08}").into_bytes()).map_err(wrong)
}

/// Two replicas and what drives them apart.
pub(super) struct World {
    pub(super) nodes: [Node; 2],
    live: Vec<u64>,
    next: u64,
    value_bytes: usize,
    drifts: u64,
    rng: SmallRng,
}

impl World {
    /// Two that hold the same `n` entries: the second has taken them from the first. Both keep so
    /// many coded symbols.
    pub(super) fn shared(
        n: usize,
        value_bytes: usize,
        kept_symbols: usize,
    ) -> Result<Self, RivalsError> {
        let mut world = Self::empty(value_bytes, kept_symbols)?;
        while world.live.len() < n {
            let chunk = world.import_chunk(n)?;
            let [a, b] = &mut world.nodes;
            let mut updates = Vec::with_capacity(chunk.len());
            for (key, value) in chunk {
                let entry = a.collection.get(&key).map_err(wrong)?;
                let add = entry.iter().flat_map(|entry| entry.record.siblings());
                let add = add
                    .map(|&sibling| IncomingSibling { sibling, value: Some(Arc::clone(&value)) });
                let (key_hash, add) = (a.collection.key_hash(&key), add.collect());
                updates.push(KeyUpdate { key: Some(key), key_hash, add, remove: Vec::new() });
            }
            let epoch = b.collection.snapshot().map_err(wrong)?.epoch();
            b.collection.apply(updates, epoch, b.now_ms).map_err(wrong)?;
        }
        let [a, b] = &world.nodes;
        let peer = a.collection.causality().map_err(wrong)?.as_ref().clone();
        let epoch = b.collection.snapshot().map_err(wrong)?.epoch();
        let request = JoinRequest { epoch, peer, refused: Default::default() };
        b.collection.join(&request, b.now_ms).map_err(wrong)?;
        world.check_equal()?;
        Ok(world)
    }

    /// Two that have imported the same `n` entries, each on its own.
    pub(super) fn apart(n: usize, value_bytes: usize) -> Result<Self, RivalsError> {
        let mut world = Self::empty(value_bytes, 0)?;
        while world.live.len() < n {
            let chunk = world.import_chunk(n)?;
            let b = &mut world.nodes[1];
            b.collection.import(chunk, b.now_ms).map_err(wrong)?;
        }
        Ok(world)
    }

    fn empty(value_bytes: usize, kept_symbols: usize) -> Result<Self, RivalsError> {
        let nodes = [Node::new(1, kept_symbols)?, Node::new(2, kept_symbols)?];
        let rng = SmallRng::seed_from_u64(3);
        Ok(Self { nodes, live: Vec::new(), next: 0, value_bytes, drifts: 0, rng })
    }

    /// The first node imports the next entries; ten a millisecond.
    fn import_chunk(&mut self, n: usize) -> Result<Vec<Entry>, RivalsError> {
        let mut all = Vec::new();
        while all.len() < CHUNK && self.live.len() < n {
            let mut few = Vec::new();
            while few.len() < 10 && self.live.len() < n {
                let value: Arc<[u8]> = self.value().into();
                few.push((key(self.next)?, value));
                self.live.push(self.next);
                self.next += 1;
            }
            all.extend(few);
        }
        for node in &mut self.nodes {
            node.now_ms += CHUNK as u64 / 10;
        }
        let a = &self.nodes[0];
        a.collection.import(all.iter().cloned(), a.now_ms).map_err(wrong)?;
        Ok(all)
    }

    fn value(&mut self) -> Vec<u8> {
        (0..self.value_bytes).map(|_| self.rng.random()).collect()
    }

    /// `d` entries change, a third each: updated at one side, new at one side, deleted at one.
    /// How many ids differ by that: of an updated entry two, the old and the new.
    pub(super) fn drift(&mut self, d: usize, seed: u64) -> Result<u64, RivalsError> {
        // never the same choice twice in one world
        self.drifts += 1;
        self.rng = SmallRng::seed_from_u64(seed.wrapping_mul(1_000_003) ^ self.drifts);
        let now = self.nodes.iter().map(|node| node.now_ms).max().unwrap_or_default() + 1;
        self.nodes.iter_mut().for_each(|node| node.now_ms = now);
        let mut touched = Vec::new();
        let mut ids = 0;
        for at in 0..d {
            let side = usize::from(self.rng.random::<bool>());
            match at % 3 {
                0 if !self.live.is_empty() => {
                    let number = self.take_one();
                    touched.push(number);
                    let value = self.value();
                    self.nodes[side].put(&key(number)?, value)?;
                    ids += 1;
                }
                2 if !self.live.is_empty() => {
                    let number = self.take_one();
                    self.nodes[side].delete(&key(number)?)?;
                }
                _ => {
                    let value = self.value();
                    self.nodes[side].put(&key(self.next)?, value)?;
                    touched.push(self.next);
                    self.next += 1;
                }
            }
            ids += 1;
        }
        // each entry drifts once at most
        self.live.append(&mut touched);
        Ok(ids)
    }

    fn take_one(&mut self) -> u64 {
        let at = self.rng.random_range(0..self.live.len());
        self.live.swap_remove(at)
    }

    /// The second node loses its context, as after damage (rule D10).
    pub(super) fn lose_context(&mut self) -> Result<(), RivalsError> {
        self.nodes[1].collection.recover().map(drop).map_err(wrong)
    }

    /// Both keep sketches of what they hold, as a daemon makes them in the background.
    pub(super) fn warm(&self) -> Result<(), RivalsError> {
        for node in &self.nodes {
            while node.collection.warm_sketches().map_err(wrong)? == Warming::Goes {}
        }
        Ok(())
    }

    /// Both hold the same.
    pub(super) fn check_equal(&self) -> Result<(), RivalsError> {
        let [a, b] = &self.nodes;
        let states = [a, b].map(|node| node.collection.state_hash());
        let [Ok(ours), Ok(theirs)] = states else {
            return Err(wrong("a state cannot be read"));
        };
        if a.root()? != b.root()? || ours != theirs {
            return Err(wrong("the two replicas are not equal"));
        }
        Ok(())
    }
}
