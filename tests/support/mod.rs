//! A model of a collection with explicit sets, and a session as naive as can be.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use selfsame::dots::{Causality, Dot, DotSet};
use selfsame::entry::Sibling;
use selfsame::hash::{HashAlgorithm, KeyHash};
use selfsame::limits::Limits;
use selfsame::replica::{
    Collection, CollectionView, Entry, IncomingSibling, JoinRequest, KeyUpdate, Random,
    ReplicaOptions, Snapshot,
};
use selfsame::store::Store;
use selfsame::types::{CollectionName, CollectionSpec, Key, Policy};

pub fn spec(algorithm: HashAlgorithm) -> CollectionSpec {
    let name = CollectionName::new("things").unwrap();
    CollectionSpec { name, algorithm, policy: Policy::Siblings }
}

/// Small numbers that never repeat within a process of this seed.
pub fn random(seed: u64) -> Random {
    let mut state = seed;
    Box::new(move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state ^ (state >> 29)
    })
}

pub fn options(page_leaves: u16) -> ReplicaOptions {
    // so few that pages leave memory all the time
    let limits = Limits { max_loaded_pages: 2, ..Limits::default() };
    ReplicaOptions { page_leaves, limits, ..ReplicaOptions::default() }
}

pub fn key(number: u8) -> Key {
    Key::new(vec![b'k', number]).unwrap()
}

/// What a replica holds and has seen, as sets that forget nothing.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Model {
    pub entries: BTreeMap<Key, BTreeMap<Dot, Sibling>>,
    pub seen: BTreeSet<Dot>,
}

impl Model {
    pub fn held(&self) -> BTreeMap<Dot, (Key, Sibling)> {
        self.entries
            .iter()
            .flat_map(|(key, siblings)| {
                siblings.iter().map(|(dot, sibling)| (*dot, (key.clone(), *sibling)))
            })
            .collect()
    }

    pub fn add(&mut self, key: &Key, sibling: Sibling) {
        self.entries.entry(key.clone()).or_default().insert(sibling.dot, sibling);
        self.seen.insert(sibling.dot);
    }

    pub fn remove(&mut self, dot: Dot) {
        for siblings in self.entries.values_mut() {
            siblings.remove(&dot);
        }
        self.entries.retain(|_, siblings| !siblings.is_empty());
    }

    pub fn remove_key(&mut self, key: &Key) {
        self.entries.remove(key);
    }

    /// Context and exceptions as the definition has them.
    pub fn canonical(&self) -> (BTreeMap<u64, u64>, BTreeSet<Dot>) {
        let mut context: BTreeMap<u64, u64> = BTreeMap::new();
        for dot in &self.seen {
            let counter = context.entry(dot.writer().get()).or_default();
            if dot.counter() == *counter + 1 {
                *counter += 1;
            }
        }
        context.retain(|_, counter| *counter > 0);
        let held = self.held();
        let above =
            |dot: &&Dot| dot.counter() > context.get(&dot.writer().get()).copied().unwrap_or(0);
        let exceptions = self.seen.iter().filter(above).filter(|dot| !held.contains_key(dot));
        (context.clone(), exceptions.copied().collect())
    }

    /// The collection is what the model says, and sound throughout.
    pub fn assert_is<S: Store>(&self, collection: &Collection<S>) {
        let snapshot = collection.snapshot().unwrap();
        let found: BTreeMap<Key, BTreeMap<Dot, Sibling>> = all_entries(&snapshot)
            .into_iter()
            .map(|entry| {
                let siblings = entry.record.siblings().iter().map(|s| (s.dot, *s)).collect();
                (entry.key, siblings)
            })
            .collect();
        assert_eq!(found, self.entries);
        let (context, exceptions) = self.canonical();
        let causality = snapshot.causality();
        let pairs: BTreeMap<u64, u64> =
            causality.pairs().map(|(writer, counter)| (writer.get(), counter)).collect();
        assert_eq!(pairs, context);
        assert_eq!(causality.exceptions().iter().collect::<BTreeSet<_>>(), exceptions);
        for (dot, (key, sibling)) in self.held() {
            let hash = collection.key_hash(&key);
            assert_eq!(snapshot.key_of(dot).unwrap(), Some(hash));
            let value = snapshot.value(&hash, &sibling.value_hash).unwrap().unwrap();
            assert_eq!(value.len() as u64, sibling.size);
        }
        let totals = snapshot.envelope().totals();
        assert_eq!(totals.entries, self.entries.len() as u64);
        assert_eq!(totals.siblings, self.held().len() as u64);
        let report = collection.check().unwrap();
        assert!(report.is_sound(), "{report:?}");
        assert_eq!(collection.root().unwrap(), snapshot.envelope().root());
    }
}

pub fn all_entries<S: Store>(snapshot: &Snapshot<S>) -> Vec<Entry> {
    snapshot.entries_after(None, usize::MAX, |_| true).unwrap()
}

/// What one side of a session reads: everything, at one moment.
#[derive(Clone)]
pub struct Side {
    pub epoch: u64,
    pub held: BTreeMap<Dot, (Key, Sibling)>,
    pub values: BTreeMap<Dot, Arc<[u8]>>,
    pub causality: Causality,
}

impl Side {
    pub fn of<S: Store>(collection: &Collection<S>) -> Self {
        let snapshot = collection.snapshot().unwrap();
        let (mut held, mut values) = (BTreeMap::new(), BTreeMap::new());
        for entry in all_entries(&snapshot) {
            let hash = collection.key_hash(&entry.key);
            for sibling in entry.record.siblings() {
                let value = snapshot.value(&hash, &sibling.value_hash).unwrap().unwrap();
                values.insert(sibling.dot, value);
                held.insert(sibling.dot, (entry.key.clone(), *sibling));
            }
        }
        let causality = snapshot.causality().clone();
        Self { epoch: snapshot.epoch(), held, values, causality }
    }

    pub fn seen(&self, dot: Dot) -> bool {
        self.causality.knows(dot) || self.held.contains_key(&dot)
    }

    /// What this side tells the other (rule D6): siblings it has not seen, and dots to remove.
    pub fn updates_for(&self, other: &Self, algorithm: HashAlgorithm) -> Vec<KeyUpdate> {
        let mut updates: BTreeMap<Key, KeyUpdate> = BTreeMap::new();
        let update = |key: &Key| KeyUpdate {
            key: Some(key.clone()),
            key_hash: algorithm.key_hash(key),
            add: Vec::new(),
            remove: Vec::new(),
        };
        for (dot, (key, sibling)) in &self.held {
            if !other.seen(*dot) {
                let value = Some(Arc::clone(&self.values[dot]));
                let item = IncomingSibling { sibling: *sibling, value };
                updates.entry(key.clone()).or_insert_with(|| update(key)).add.push(item);
            }
        }
        for (dot, (key, _)) in &other.held {
            if self.seen(*dot) && !self.held.contains_key(dot) {
                updates.entry(key.clone()).or_insert_with(|| update(key)).remove.push(*dot);
            }
        }
        updates.into_values().collect()
    }

    /// The dots of the merged snapshots (rule D8).
    pub fn merged(&self, other: &Self) -> BTreeSet<Dot> {
        let mine = self.held.keys().filter(|d| other.held.contains_key(d) || !other.seen(**d));
        let theirs = other.held.keys().filter(|d| self.held.contains_key(d) || !self.seen(**d));
        mine.chain(theirs).copied().collect()
    }

    pub fn join_request(&self, epoch: u64, refused: DotSet) -> JoinRequest {
        JoinRequest { epoch, peer: self.causality.clone(), refused }
    }
}

/// A whole session, nothing refused, both sides joined.
pub fn sync<S: Store, T: Store>(a: &Collection<S>, b: &Collection<T>, now_ms: u64) {
    let (left, right) = (Side::of(a), Side::of(b));
    let algorithm = a.spec().algorithm;
    for outcome in a.apply(right.updates_for(&left, algorithm), left.epoch, now_ms).unwrap() {
        assert!(outcome.refused.is_empty() && outcome.missing_values.is_empty());
    }
    for outcome in b.apply(left.updates_for(&right, algorithm), right.epoch, now_ms).unwrap() {
        assert!(outcome.refused.is_empty() && outcome.missing_values.is_empty());
    }
    a.join(&right.join_request(left.epoch, DotSet::default()), now_ms).unwrap();
    b.join(&left.join_request(right.epoch, DotSet::default()), now_ms).unwrap();
}

pub fn key_hash(key: &Key) -> KeyHash {
    HashAlgorithm::Blake3.key_hash(key)
}
