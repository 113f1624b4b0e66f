//! A collection proves its commits, whatever was changed since, over openings and recoveries.
#![cfg(feature = "session")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use selfsame::hash::{HashAlgorithm, Root};
use selfsame::merkle::{Answer, ChangeBundle, HeadStatement, NodeKey, Prefix, ProofFile};
use selfsame::replica::{
    Collection, CollectionView as _, CommitProof, ProveError, Replica, WantedChange,
};
use selfsame::store::{Batch, Durability, MemoryStore, Read as _, Span, Store as _, Table};
use selfsame::types::Key;
use support::{key, options, random, spec};

const NOW: u64 = 1_000_000;

type Shared = Arc<MemoryStore>;

fn open(store: &Shared, algorithm: HashAlgorithm, seed: u64) -> Arc<Collection<Shared>> {
    let replica = Replica::open(Arc::clone(store), options(4), random(seed)).unwrap();
    replica.create_collection(spec(algorithm)).unwrap()
}

fn shared(bytes: &[u8]) -> Arc<[u8]> {
    bytes.into()
}

fn signer() -> NodeKey {
    NodeKey::from_seed(&[7; 32])
}

/// Signs a commit, as a node does, writes it to bytes, reads it again and verifies it.
fn travelled(commit: CommitProof) -> ChangeBundle {
    let node = signer();
    let CommitProof { envelopes, changes, proof, head, place, .. } = commit;
    let sign = |message: &[u8]| node.sign(message).to_bytes();
    let head = HeadStatement::sign(head, node.node_id(), &sign).unwrap();
    let bundle = ChangeBundle::new(envelopes, changes, proof, head, place).unwrap();
    let bundle = ChangeBundle::parse(&bundle.to_bytes()).unwrap();
    bundle.verify(&node.node_id()).unwrap();
    bundle
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Import(BTreeMap<u8, u8>),
    Reopen,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..24_u8, any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        4 => (0..24_u8).prop_map(Step::Delete),
        2 => prop::collection::btree_map(0..24_u8, any::<u8>(), 1..6).prop_map(Step::Import),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_commit_of_a_history_can_be_proved_at_its_end(
        is_sha in any::<bool>(),
        steps in prop::collection::vec(any_step(), 1..40),
    ) {
        let algorithm = HashAlgorithm::ALL[usize::from(is_sha)];
        let store = Shared::default();
        let mut collection = open(&store, algorithm, 1);
        // roots before and after, by the position at which the commit ends
        let mut commits: BTreeMap<u64, [Root; 2]> = BTreeMap::new();
        for (step, now) in steps.into_iter().zip(NOW..) {
            let before = collection.root().unwrap();
            match step {
                Step::Put(number, value) => {
                    collection.put(&key(number), [value], now).unwrap();
                }
                Step::Delete(number) => {
                    collection.delete(&key(number), now).unwrap();
                }
                Step::Import(values) => {
                    let values = values.iter().map(|(number, value)| (key(*number), shared(&[*value])));
                    collection.import(values, now).unwrap();
                }
                Step::Reopen => {
                    drop(collection);
                    collection = open(&store, algorithm, now);
                }
            }
            let after = collection.root().unwrap();
            if before != after {
                let position = collection.snapshot().unwrap().log_position();
                commits.insert(position, [before, after]);
            }
        }
        for (position, roots) in &commits {
            let proved = collection.prove_change(WantedChange::At(*position)).unwrap();
            prop_assert_eq!(proved.position, *position);
            let bundle = travelled(proved);
            prop_assert_eq!(&bundle.roots(), roots);
            prop_assert!(!bundle.changes().is_empty());
        }
        let snapshot = collection.snapshot().unwrap();
        for number in 0..24 {
            let changed = snapshot.spec().algorithm.key_hash(&key(number));
            match collection.prove_change(WantedChange::OfKey(changed)) {
                Ok(commit) => {
                    let held = snapshot.entry(&changed).unwrap().map(|entry| entry.record);
                    let bundle = travelled(commit);
                    let change = bundle.changes().iter().find(|it| it.key == changed).unwrap();
                    prop_assert_eq!(&change.record, &held);
                }
                Err(error) => prop_assert!(matches!(error, ProveError::NoChange(_))),
            }
        }
    }

    #[test]
    fn a_snapshot_proves_many_keys_and_all_entries_under_a_prefix(
        held in prop::collection::btree_set(any::<u8>(), 0..80),
        asked in prop::collection::btree_set(any::<u8>(), 1..40),
        near in any::<u8>(),
        bits in 0..10_u16,
    ) {
        let algorithm = HashAlgorithm::Blake3;
        let collection = open(&Shared::default(), algorithm, 1);
        let entries = held.iter().map(|number| (key(*number), shared(&[*number])));
        collection.import(entries, NOW).unwrap();
        let snapshot = collection.snapshot().unwrap();
        let root = snapshot.envelope().root();
        // in any order, some of them twice
        let keys: Vec<Key> = asked.iter().chain(&asked).rev().map(|number| key(*number)).collect();
        let many = snapshot.prove_many(keys).unwrap();
        let ProofFile::Many(many) = ProofFile::parse(&many.to_bytes()).unwrap() else {
            panic!("another kind");
        };
        let answers: BTreeMap<_, _> = many.verify(&root).unwrap().into_iter().collect();
        prop_assert_eq!(answers.len(), asked.len());
        for number in &asked {
            let present = matches!(answers[&key(*number)], Answer::Present(_));
            prop_assert_eq!(present, held.contains(number));
        }
        let prefix = Prefix::of(&algorithm.key_hash(&key(near)), bits);
        let file = snapshot.prove_prefix(&prefix).unwrap();
        let under = file.verify(&root).unwrap();
        let expected = held.iter().filter(|it| prefix.contains(&algorithm.key_hash(&key(**it))));
        prop_assert_eq!(under.len(), expected.count());
    }
}

/// More than the log has between two checkpoints, so that a proof begins at one.
#[test]
fn a_commit_far_down_a_log_is_proved_from_a_checkpoint() {
    let (store, algorithm) = (Shared::default(), HashAlgorithm::Blake3);
    let collection = open(&store, algorithm, 1);
    for round in 0..30_u64 {
        let values = (0..200_u8).map(|number| (key(number), shared(&round.to_le_bytes())));
        collection.import(values, NOW + round).unwrap();
    }
    collection.put(&key(3), *b"single", NOW + 99).unwrap();
    let position = collection.snapshot().unwrap().log_position();
    for at in [2, 201, 202, 1_000, 1_201, 3_333, position - 1, position] {
        let commit = collection.prove_change(WantedChange::At(at)).unwrap();
        assert!(commit.position >= at);
        let bundle = travelled(commit);
        assert_eq!(bundle.changes().len(), if at == position { 1 } else { 200 });
    }
    // rows of the log before the checkpoint are not needed
    let mut batch = Batch::default();
    let rows = store.scan(Span::of(Table::Log, &[]), 5_000).unwrap();
    rows.iter().for_each(|row| batch.remove(Table::Log, &row.key));
    store.commit(batch, Durability::Always).unwrap();
    travelled(collection.prove_change(WantedChange::At(position)).unwrap());
    let error = collection.prove_change(WantedChange::At(3_333)).unwrap_err();
    assert!(matches!(error, ProveError::Lost), "{error}");
}

#[test]
fn what_cannot_be_proved_is_refused_with_the_reason() {
    let (store, algorithm) = (Shared::default(), HashAlgorithm::Sha256);
    let collection = open(&store, algorithm, 1);
    let of = |number| WantedChange::OfKey(algorithm.key_hash(&key(number)));
    let none = |wanted| {
        let error = collection.prove_change(wanted).unwrap_err();
        assert!(matches!(error, ProveError::NoChange(_)), "{error}");
    };
    none(of(1));
    none(WantedChange::At(0));
    none(WantedChange::At(1));
    collection.put(&key(1), *b"one", NOW).unwrap();
    collection.put(&key(2), *b"two", NOW).unwrap();
    // the first row of the log is none of a change
    none(WantedChange::At(1));
    none(WantedChange::At(4));
    none(of(3));
    travelled(collection.prove_change(of(1)).unwrap());
    let entries = collection.snapshot().unwrap();
    assert!(entries.prove_many(Vec::new()).is_err());

    // a rotten row since: nothing can be undone through it
    let rows = store.scan(Span::of(Table::Log, &[]), 9).unwrap();
    let mut batch = Batch::default();
    let mut rotten = rows[2].value.to_vec();
    rotten[20] ^= 1;
    batch.put(Table::Log, &rows[2].key, &rotten);
    store.commit(batch, Durability::Always).unwrap();
    let error = collection.prove_change(of(1)).unwrap_err();
    assert!(matches!(error, ProveError::Lost), "{error}");
}

/// Rows of format 2 say neither what was there before nor what their commit did.
#[test]
fn what_an_earlier_version_logged_is_not_proved_and_stops_nothing_later() {
    let (store, algorithm) = (Shared::default(), HashAlgorithm::Blake3);
    let collection = open(&store, algorithm, 1);
    collection.put(&key(1), *b"one", NOW).unwrap();
    let hash = algorithm.key_hash(&key(1));
    let entry = collection.snapshot().unwrap().entry(&hash).unwrap().unwrap();
    let digest = entry.record.digest(algorithm);
    let mut old = [&[2][..], &NOW.to_le_bytes(), &hash.0, &digest.0, &[0; 4]].concat();
    let check = blake3::hash(&old);
    old.extend_from_slice(&check.as_bytes()[..8]);
    let rows = store.scan(Span::of(Table::Log, &[]), 9).unwrap();
    let mut batch = Batch::default();
    batch.put(Table::Log, &rows[1].key, &old);
    store.commit(batch, Durability::Always).unwrap();

    // a later opening, as that of a later version
    drop(collection);
    let collection = open(&store, algorithm, 2);
    collection.put(&key(2), *b"two", NOW + 1).unwrap();
    let error = collection.prove_change(WantedChange::OfKey(hash)).unwrap_err();
    assert!(matches!(error, ProveError::Earlier), "{error}");
    let of_new = WantedChange::OfKey(algorithm.key_hash(&key(2)));
    assert_eq!(travelled(collection.prove_change(of_new).unwrap()).changes().len(), 1);
}
