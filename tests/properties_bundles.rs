//! Files of proof: many keys, all entries under a prefix, and what a commit changed. What is true
//! verifies, what is not does not, and no changed bit goes unseen.

#![cfg(feature = "tree")]
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "support/model_tree.rs"]
mod model_tree;

use std::collections::{BTreeMap, BTreeSet};

use model_tree::ModelTree;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::sample::Index;
use selfsame::clock::Stamp;
use selfsame::dots::Dot;
use selfsame::entry::{Record, Sibling, Totals};
use selfsame::hash::{HashAlgorithm, KeyHash, RecordDigest, Root};
use selfsame::merkle::log::{CommitEnd, LogSegment, first_item};
use selfsame::merkle::{
    Answer, Bundle, BundleError, ChangeBundle, ChangeBundleError, ChangeItem, Envelope,
    HeadStatement, LogId, LogIdentity, LogKind, ManyBundle, MerkleLog, MultiProof, NodeKey,
    Partial, Prefix, PrefixBundle, Proof, ProofFile, ProvedChange, Shape as _, SubtreeProof,
};
use selfsame::types::{CollectionName, CollectionSpec, Key, Policy};

type Records = BTreeMap<KeyHash, (Key, Record)>;

fn any_algorithm() -> impl Strategy<Value = HashAlgorithm> {
    prop_oneof![Just(HashAlgorithm::Blake3), Just(HashAlgorithm::Sha256)]
}

fn any_texts() -> impl Strategy<Value = BTreeMap<String, u32>> {
    btree_map("[a-c]{1,3}", any::<u32>(), 0..14)
}

/// Keys spread as hashes are, or ground to agree in nearly all bits.
fn any_hash() -> impl Strategy<Value = KeyHash> {
    prop_oneof![
        any::<[u8; 32]>().prop_map(KeyHash),
        (0..4_usize, 0..6_u8).prop_map(|(at, byte)| {
            let mut key = [0xa5; 32];
            key[[0, 1, 15, 31][at]] = byte;
            KeyHash(key)
        }),
    ]
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn record(algorithm: HashAlgorithm, number: u32) -> Record {
    let value = number.to_le_bytes();
    let sibling = |counter| Sibling {
        dot: Dot::new(1 + u64::from(number), counter).unwrap(),
        stamp: Stamp(u64::from(number)),
        size: value.len() as u64,
        value_hash: algorithm.value_hash(&value),
    };
    Record::new((1..=1 + u64::from(number % 3)).map(sibling).collect()).unwrap()
}

fn records(algorithm: HashAlgorithm, texts: &BTreeMap<String, u32>) -> Records {
    texts
        .iter()
        .map(|(text, number)| {
            (algorithm.key_hash(&key(text)), (key(text), record(algorithm, *number)))
        })
        .collect()
}

fn model(algorithm: HashAlgorithm, records: &Records) -> ModelTree {
    let leaves = records.iter().map(|(hash, (_, record))| (*hash, record.digest(algorithm)));
    ModelTree::new(algorithm, &leaves.collect())
}

fn envelope(algorithm: HashAlgorithm, records: &Records) -> Envelope {
    let name = CollectionName::new("players").unwrap();
    let spec = CollectionSpec { name, algorithm, policy: Policy::Lww };
    let totals = records.values().map(|(_, record)| record.totals());
    let totals = totals.fold(Totals::default(), Totals::plus);
    Envelope::new(spec, model(algorithm, records).tree_hash(), totals).unwrap()
}

/// Changes of one bit: a sample of them.
fn flips(bytes: &[u8], most: usize) -> impl Iterator<Item = Vec<u8>> {
    let step = (bytes.len() * 8).div_ceil(most).max(1) | 1;
    (0..bytes.len() * 8).step_by(step).map(|bit| {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped
    })
}

fn signer() -> NodeKey {
    NodeKey::from_seed(&[7; 32])
}

/// A commit from one set of records to another, as a node that has logged other items before it
/// proves it. What it says of the roots may be a lie.
fn commit(
    algorithm: HashAlgorithm,
    (before, after): (&Records, &Records),
    envelopes: [Envelope; 2],
    logged: u8,
) -> ChangeBundle {
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).copied().collect();
    let digest = |records: &Records, key: &KeyHash| -> Option<RecordDigest> {
        records.get(key).map(|(_, record)| record.digest(algorithm))
    };
    let changes: Vec<_> = keys
        .into_iter()
        .filter(|key| digest(before, key) != digest(after, key))
        .map(|key| ProvedChange {
            key,
            before: digest(before, &key),
            after: digest(after, &key),
            record: after.get(&key).map(|(_, record)| record.clone()),
        })
        .collect();
    let roots = envelopes.each_ref().map(Envelope::root);
    let count = changes.len() as u32;
    let mut log = MerkleLog::new(algorithm);
    let mut leaves = vec![log.append(&first_item(None))];
    leaves.extend((0..logged).map(|number| log.append(&[number; 65])));
    for (change, number) in changes.iter().zip(1..) {
        let end = (number == count).then_some(CommitEnd { changes: count, roots });
        let item = ChangeItem { key: change.key, record: change.after, end };
        leaves.push(log.append(&item.to_bytes()));
    }
    let segment = LogSegment::new(MerkleLog::new(algorithm), leaves);
    let place = segment.range(1 + u64::from(logged), u64::from(count)).unwrap();
    let identity = LogIdentity {
        algorithm,
        kind: LogKind::Changes,
        id: LogId(5),
        name: envelopes[0].name().clone(),
    };
    let node = signer();
    let sign = |message: &[u8]| node.sign(message).to_bytes();
    let head = HeadStatement::sign(identity.at(&log), node.node_id(), &sign).unwrap();
    let keys = changes.iter().map(|change| change.key);
    let (_, proof) = MultiProof::prove(&model(algorithm, before), keys).unwrap();
    ChangeBundle::new(envelopes, changes, proof, head, place).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn many_keys_are_proved_from_the_root_alone(
        algorithm in any_algorithm(),
        texts in any_texts(),
        asked in btree_set("[a-c]{1,3}", 1..9),
        turned in any::<Index>(),
    ) {
        let records = records(algorithm, &texts);
        let envelope = envelope(algorithm, &records);
        let root = envelope.root();
        let hashes: Vec<_> = asked.iter().map(|text| algorithm.key_hash(&key(text))).collect();
        let held = |hash: &KeyHash| records.get(hash).map(|(_, record)| record.clone());
        let entries: Vec<_> =
            asked.iter().zip(&hashes).map(|(text, hash)| (key(text), held(hash))).collect();
        let (_, proof) = MultiProof::prove(&model(algorithm, &records), hashes).unwrap();
        let bundle = ManyBundle::new(envelope.clone(), entries.clone(), proof.clone()).unwrap();
        let bytes = bundle.to_bytes();
        prop_assert_eq!(&ManyBundle::parse(&bytes).unwrap(), &bundle);
        prop_assert_eq!(ProofFile::parse(&bytes).unwrap(), ProofFile::Many(bundle.clone()));
        let answers: BTreeMap<_, _> = bundle.verify(&root).unwrap().into_iter().collect();
        for (key, record) in &entries {
            let truth = record.clone().map_or(Answer::Absent, Answer::Present);
            prop_assert_eq!(&answers[key], &truth);
        }
        prop_assert_eq!(answers.len(), entries.len());
        bundle.verify(&Root([0; 32])).unwrap_err();

        let mut wrong = entries;
        let at = turned.index(wrong.len());
        wrong[at].1 = match &wrong[at].1 {
            Some(_) => None,
            None => Some(record(algorithm, 1)),
        };
        let lie = ManyBundle::new(envelope.clone(), wrong.clone(), proof.clone()).unwrap();
        lie.verify(&root).unwrap_err();
        wrong.push(wrong[0].clone());
        let twice = ManyBundle::new(envelope, wrong, proof);
        prop_assert_eq!(twice, Err(BundleError::Order));
        for flipped in flips(&bytes, 300) {
            // another key that is absent too is proved as well: but nothing that is not so
            let verdict = ManyBundle::parse(&flipped).and_then(|it| it.verify(&root));
            let Ok(answers) = verdict else { continue };
            prop_assert!(answers.iter().any(|(key, _)| !asked.contains(&*key.to_string())));
            for (key, answer) in answers {
                let truth = held(&algorithm.key_hash(&key));
                prop_assert_eq!(answer, truth.map_or(Answer::Absent, Answer::Present));
            }
        }
        ManyBundle::parse(&[&bytes[..], &[0]].concat()).and_then(|it| it.verify(&root)).unwrap_err();
    }

    #[test]
    fn all_entries_under_a_prefix_are_proved_and_no_other_is_left_out(
        algorithm in any_algorithm(),
        texts in any_texts(),
        near in any::<Index>(),
        bits in 0..12_u16,
        left_out in any::<Index>(),
    ) {
        let records = records(algorithm, &texts);
        let envelope = envelope(algorithm, &records);
        let root = envelope.root();
        let near = records.keys().nth(near.index(records.len().max(1)));
        let prefix = Prefix::of(near.unwrap_or(&KeyHash([0x5a; 32])), bits);
        prop_assert_eq!(prefix.to_string().parse(), Ok(prefix));
        let under = records.iter().filter(|(hash, _)| prefix.contains(hash));
        let entries: Vec<_> = under.map(|(_, entry)| entry.clone()).collect();
        let proof = SubtreeProof::prove(&model(algorithm, &records), &prefix).unwrap();
        let bundle =
            PrefixBundle::new(envelope.clone(), prefix, entries.clone(), proof.clone()).unwrap();
        let bytes = bundle.to_bytes();
        prop_assert_eq!(&PrefixBundle::parse(&bytes).unwrap(), &bundle);
        prop_assert_eq!(ProofFile::parse(&bytes).unwrap(), ProofFile::Prefix(bundle.clone()));
        prop_assert_eq!(bundle.verify(&root).unwrap(), &entries[..]);
        if !entries.is_empty() {
            let mut fewer = entries;
            fewer.remove(left_out.index(fewer.len()));
            let lie = PrefixBundle::new(envelope, prefix, fewer, proof).unwrap();
            lie.verify(&root).unwrap_err();
        }
        for flipped in flips(&bytes, 300) {
            // under another prefix there may be none either: but none is left out
            let Ok(other) = PrefixBundle::parse(&flipped) else { continue };
            if other.verify(&root).is_ok() {
                prop_assert_ne!(other.prefix(), &prefix);
                let under = records.iter().filter(|(hash, _)| other.prefix().contains(hash));
                let under: Vec<_> = under.map(|(_, entry)| entry.clone()).collect();
                prop_assert_eq!(other.entries(), &under[..]);
            }
        }
        PrefixBundle::parse(&[&bytes[..], &[0]].concat()).unwrap_err();
    }

    #[test]
    fn a_commit_is_proved_with_all_that_it_changed(
        algorithm in any_algorithm(),
        texts in any_texts(),
        changed in btree_map("[a-c]{1,3}", prop::option::of(any::<u32>()), 1..8),
        logged in 0..20_u8,
        at in any::<Index>(),
    ) {
        let before = records(algorithm, &texts);
        let mut texts_after = texts;
        for (text, number) in changed {
            match number {
                Some(number) => drop(texts_after.insert(text, number)),
                None => drop(texts_after.remove(&text)),
            }
        }
        let after = records(algorithm, &texts_after);
        prop_assume!(before != after);
        let envelopes = [envelope(algorithm, &before), envelope(algorithm, &after)];
        let roots = envelopes.each_ref().map(Envelope::root);
        let bundle = commit(algorithm, (&before, &after), envelopes.clone(), logged);
        let node = signer().node_id();
        let bytes = bundle.to_bytes();
        prop_assert_eq!(&ChangeBundle::parse(&bytes).unwrap(), &bundle);
        prop_assert_eq!(ProofFile::parse(&bytes).unwrap(), ProofFile::Change(bundle.clone()));
        prop_assert_eq!(bundle.verify(&node), Ok(()));
        prop_assert_eq!(bundle.roots(), roots);
        bundle.check_before(&roots[0]).unwrap();
        bundle.check_after(&roots[1]).unwrap();
        bundle.check_before(&roots[1]).unwrap_err();
        bundle.check_after(&roots[0]).unwrap_err();
        let stranger = NodeKey::from_seed(&[8; 32]).node_id();
        prop_assert_eq!(bundle.verify(&stranger), Err(ChangeBundleError::OtherNode(node)));
        for flipped in flips(&bytes, 60) {
            let verdict = ChangeBundle::parse(&flipped).and_then(|it| it.verify(&node));
            prop_assert!(verdict.is_err());
        }

        // a node that signs what it likes cannot hide a change from whoever knows the root before
        let mut hidden = after.clone();
        let at = *after.keys().chain(before.keys()).nth(at.index(after.len() + before.len())).unwrap();
        if hidden.remove(&at).is_none() {
            hidden.insert(at, before[&at].clone());
        }
        prop_assume!(hidden != before);
        let lie = [envelopes[0].clone(), envelope(algorithm, &after)];
        let lie = commit(algorithm, (&before, &hidden), lie, logged);
        prop_assert_eq!(lie.verify(&node), Err(ChangeBundleError::After));
    }

    /// Whatever is put and removed in a part of a tree, it has the hash of the whole.
    #[test]
    fn a_part_of_a_tree_changes_as_the_whole_does(
        algorithm in any_algorithm(),
        leaves in btree_map(any_hash(), any::<[u8; 32]>().prop_map(RecordDigest), 0..24),
        changes in btree_map(any_hash(), prop::option::of(any::<[u8; 32]>()), 1..8),
        removed in vec(any::<Index>(), 0..6),
        split in any::<Index>(),
    ) {
        let tree = ModelTree::new(algorithm, &leaves);
        let mut changes: BTreeMap<_, _> =
            changes.into_iter().map(|(key, record)| (key, record.map(RecordDigest))).collect();
        for at in removed.iter().filter(|_| !leaves.is_empty()) {
            changes.insert(*leaves.keys().nth(at.index(leaves.len())).unwrap(), None);
        }
        let keys: Vec<_> = changes.keys().copied().collect();
        let part_of = |keys: &[KeyHash]| -> Partial {
            let (claims, proof) = MultiProof::prove(&tree, keys.iter().copied()).unwrap();
            proof.partial(algorithm, &claims).unwrap()
        };
        let mut part = part_of(&keys);
        prop_assert_eq!(part.tree_hash(), tree.tree_hash());

        // two halves make the same part
        let (one, other) = keys.split_at(split.index(keys.len()));
        if !one.is_empty() {
            let mut halves = part_of(one);
            halves.join(&part_of(other)).unwrap();
            prop_assert_eq!(halves.tree_hash(), tree.tree_hash());
            prop_assert!(halves.missing(&keys).is_empty());
            let same = MultiProof::prove(&halves, keys.iter().copied()).unwrap();
            prop_assert_eq!(same, MultiProof::prove(&tree, keys.iter().copied()).unwrap());
        }

        let mut after = leaves.clone();
        for (key, record) in &changes {
            match record {
                Some(record) => after.insert(*key, *record),
                None => after.remove(key),
            };
        }
        part.apply(&changes).unwrap();
        let whole = ModelTree::new(algorithm, &after);
        prop_assert_eq!(part.tree_hash(), whole.tree_hash());

        // what it lacks to prove the same keys now, it can say in the words of the tree before
        let missing = part.missing(&keys);
        let mut wider = part_of(&[&keys[..], &missing].concat());
        wider.apply(&changes).unwrap();
        prop_assert_eq!(wider.tree_hash(), whole.tree_hash());
        prop_assert!(wider.missing(&keys).is_empty());
        let proof = MultiProof::prove(&wider, keys.iter().copied()).unwrap();
        prop_assert_eq!(proof, MultiProof::prove(&whole, keys.iter().copied()).unwrap());
    }

    #[test]
    fn no_bytes_make_a_parser_panic(
        kind in 0..6_u8,
        bytes in vec(any::<u8>(), 0..300),
        at in any::<Index>(),
        put in any::<[u8; 4]>(),
    ) {
        let _ = ProofFile::parse(&[&[kind], &bytes[..]].concat());
        // a true one with any four bytes changed
        let algorithm = HashAlgorithm::Blake3;
        let before = records(algorithm, &BTreeMap::from([("a".into(), 1), ("b".into(), 2)]));
        let after = records(algorithm, &BTreeMap::from([("a".into(), 3), ("c".into(), 2)]));
        let envelopes = [envelope(algorithm, &before), envelope(algorithm, &after)];
        let mut bytes = commit(algorithm, (&before, &after), envelopes, 3).to_bytes();
        let at = at.index(bytes.len() - 4);
        let same = bytes[at..at + 4] == put;
        bytes[at..at + 4].copy_from_slice(&put);
        if let Ok(bundle) = ChangeBundle::parse(&bytes) {
            prop_assert_eq!(bundle.verify(&signer().node_id()).is_ok(), same);
        }
    }
}

/// A tree in which a leaf stands where it does not belong has a hash, and is nobody's: from a root
/// that is trusted nothing leads there.
#[test]
fn a_commit_does_not_put_a_leaf_where_it_does_not_belong() {
    let algorithm = HashAlgorithm::Blake3;
    let before = records(algorithm, &BTreeMap::from([("a".into(), 1), ("b".into(), 2)]));
    let mut after = before.clone();
    let hash = algorithm.key_hash(&key("c"));
    after.insert(hash, (key("c"), record(algorithm, 3)));
    let honest = envelope(algorithm, &after);
    let (old, leaf) = (
        model(algorithm, &before).tree_hash(),
        algorithm.leaf(&hash, &record(algorithm, 3).digest(algorithm)),
    );
    for bit in 0..=255 {
        for [left, right] in [[&old, &leaf], [&leaf, &old]] {
            let grafted = algorithm.inner(bit, left, right);
            if grafted == honest.tree_hash() {
                continue;
            }
            let lie = Envelope::new(honest.spec().clone(), grafted, honest.totals()).unwrap();
            let lie = commit(algorithm, (&before, &after), [envelope(algorithm, &before), lie], 0);
            assert_eq!(lie.verify(&signer().node_id()), Err(ChangeBundleError::After));
        }
    }
}

#[test]
fn a_file_of_one_kind_is_not_read_as_another() {
    let algorithm = HashAlgorithm::Blake3;
    let records = records(algorithm, &BTreeMap::from([("a".into(), 1)]));
    let envelope = envelope(algorithm, &records);
    let tree = model(algorithm, &records);
    let held = Some(record(algorithm, 1));
    let one = Bundle::prove(&tree, envelope.clone(), &key("a"), held.clone()).unwrap().to_bytes();
    let (_, proof) = MultiProof::prove(&tree, [algorithm.key_hash(&key("a"))]).unwrap();
    let many = ManyBundle::new(envelope.clone(), vec![(key("a"), held)], proof).unwrap();
    let proof = SubtreeProof::prove(&tree, &Prefix::ALL).unwrap();
    let entries = vec![(key("a"), record(algorithm, 1))];
    let all = PrefixBundle::new(envelope, Prefix::ALL, entries, proof).unwrap();
    let other = |found, expected| BundleError::OtherKind { found, expected };
    assert_eq!(Bundle::parse(&many.to_bytes()), Err(BundleError::Version(2)));
    assert_eq!(ManyBundle::parse(&one), Err(other(1, 2)));
    assert_eq!(PrefixBundle::parse(&many.to_bytes()), Err(other(2, 3)));
    assert_eq!(ChangeBundle::parse(&all.to_bytes()), Err(other(3, 4).into()));
    assert_eq!(ProofFile::parse(&[9]), Err(BundleError::Version(9).into()));
    assert!(matches!(ProofFile::parse(&one), Ok(ProofFile::One(_))));
    Proof::parse(&one).unwrap_err();
}
