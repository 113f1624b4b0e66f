//! Proofs: what is true can be proved, what is not cannot, and no changed bit goes unseen.

#![cfg(feature = "tree")]
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "support/model_tree.rs"]
mod model_tree;

use std::collections::{BTreeMap, BTreeSet};

use model_tree::ModelTree;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::Index;
use selfsame::clock::Stamp;
use selfsame::dots::Dot;
use selfsame::entry::{Record, Sibling, Totals};
use selfsame::hash::{
    ContextHash, HashAlgorithm, KeyHash, LogHash, RecordDigest, Root, TreeHash, ValueHash,
    session_id,
};
use selfsame::merkle::{
    Answer, Bundle, Certificate, CertificateMessage, Claim, ConsistencyProof, Digest, Envelope,
    InclusionProof, LogHeadFields, MerkleLog, MultiProof, NodeKey, Prefix, Proof, Sealed, Shape,
    SubtreeProof, View, buckets_of,
};
use selfsame::types::{CollectionName, CollectionSpec, Key, Policy};

fn any_algorithm() -> impl Strategy<Value = HashAlgorithm> {
    prop_oneof![Just(HashAlgorithm::Blake3), Just(HashAlgorithm::Sha256)]
}

/// Keys spread as hashes are, or ground to agree in nearly all bits, or a mixture.
fn any_key() -> impl Strategy<Value = KeyHash> {
    prop_oneof![
        any::<[u8; 32]>().prop_map(KeyHash),
        (0..4_usize, any::<u8>()).prop_map(|(at, byte)| {
            let mut key = [0xa5; 32];
            key[[0, 1, 15, 31][at]] = byte;
            KeyHash(key)
        }),
        vec(any::<Index>(), 0..3).prop_map(|bits| {
            let mut key = [0; 32];
            bits.iter().map(|bit| bit.index(256)).for_each(|bit| key[bit / 8] ^= 0x80 >> (bit % 8));
            KeyHash(key)
        }),
    ]
}

fn any_leaves() -> impl Strategy<Value = BTreeMap<KeyHash, RecordDigest>> {
    btree_map(any_key(), any::<[u8; 32]>().prop_map(RecordDigest), 0..24)
}

fn claim(leaves: &BTreeMap<KeyHash, RecordDigest>, key: KeyHash) -> Claim {
    Claim { key, record: leaves.get(&key).copied() }
}

/// Every change of one bit, or a sample of them when there are many.
fn flips(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let step = (bytes.len() * 8).div_ceil(300).max(1) | 1;
    (0..bytes.len() * 8).step_by(step).map(|bit| {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped
    })
}

proptest! {
    #[test]
    fn a_proof_shows_what_is_true_and_nothing_else(
        algorithm in any_algorithm(),
        leaves in any_leaves(),
        absent in any_key(),
        other in any::<[u8; 32]>(),
    ) {
        let tree = ModelTree::new(algorithm, &leaves);
        let tree_hash = tree.tree_hash();
        for key in leaves.keys().take(4).copied().chain([absent]) {
            let claim = claim(&leaves, key);
            let proof = Proof::prove(&tree, &key).unwrap();
            prop_assert_eq!(proof.verify(algorithm, &tree_hash, &claim), Ok(()));
            prop_assert_eq!(&Proof::parse(&proof.to_bytes()).unwrap(), &proof);

            let wrong = match claim.record {
                Some(_) => [Claim::absent(key), Claim::present(key, RecordDigest(other))],
                None => {
                    let zero = RecordDigest([0; 32]);
                    [Claim::present(key, zero), Claim::present(key, RecordDigest(other))]
                }
            };
            for wrong in wrong {
                prop_assert!(proof.verify(algorithm, &tree_hash, &wrong).is_err());
            }
            for flipped in flips(&proof.to_bytes()) {
                let proof = Proof::parse(&flipped);
                let verdict = proof.and_then(|it| it.verify(algorithm, &tree_hash, &claim));
                prop_assert!(verdict.is_err());
            }
        }
    }

    #[test]
    fn a_multiproof_shows_what_is_true_and_nothing_else(
        algorithm in any_algorithm(),
        leaves in any_leaves(),
        asked in vec(any_key(), 1..6),
        known in vec(any::<Index>(), 0..6),
        turned in any::<Index>(),
    ) {
        let tree = ModelTree::new(algorithm, &leaves);
        let tree_hash = tree.tree_hash();
        let keys: Vec<_> = leaves.keys().copied().collect();
        let known = known.iter().filter(|_| !keys.is_empty()).map(|at| *at.get(&keys));
        let asked: BTreeSet<_> = asked.into_iter().chain(known).collect();
        let (claims, proof) = MultiProof::prove(&tree, asked.iter().copied()).unwrap();
        prop_assert_eq!(&claims, &asked.iter().map(|key| claim(&leaves, *key)).collect::<Vec<_>>());
        prop_assert_eq!(proof.verify(algorithm, &tree_hash, &claims), Ok(()));
        prop_assert_eq!(&MultiProof::parse(&proof.to_bytes()).unwrap(), &proof);

        let mut wrong = claims.clone();
        let at = turned.index(wrong.len());
        wrong[at].record = match wrong[at].record {
            Some(_) => None,
            None => Some(RecordDigest([7; 32])),
        };
        prop_assert!(proof.verify(algorithm, &tree_hash, &wrong).is_err());
        for flipped in flips(&proof.to_bytes()) {
            let proof = MultiProof::parse(&flipped);
            let verdict = proof.and_then(|it| it.verify(algorithm, &tree_hash, &claims));
            prop_assert!(verdict.is_err());
        }
    }

    #[test]
    fn a_subtree_proof_shows_all_entries_and_no_others(
        algorithm in any_algorithm(),
        leaves in any_leaves(),
        near in any_key(),
        bits in 0..=256_u16,
        left_out in any::<Index>(),
    ) {
        let tree = ModelTree::new(algorithm, &leaves);
        let tree_hash = tree.tree_hash();
        let near = leaves.keys().next().copied().unwrap_or(near);
        let prefix = Prefix::of(&near, bits);
        let entries: Vec<_> = leaves
            .iter()
            .map(|(key, record)| (*key, *record))
            .filter(|(key, _)| prefix.contains(key))
            .collect();
        let proof = SubtreeProof::prove(&tree, &prefix).unwrap();
        prop_assert_eq!(proof.verify(algorithm, &tree_hash, &prefix, &entries), Ok(()));
        prop_assert_eq!(&SubtreeProof::parse(&proof.to_bytes()).unwrap(), &proof);

        let mut wrong = entries.clone();
        if wrong.is_empty() {
            wrong.push((prefix.first_key(), RecordDigest([7; 32])));
        } else {
            wrong.remove(left_out.index(wrong.len()));
        }
        prop_assert!(proof.verify(algorithm, &tree_hash, &prefix, &wrong).is_err());
        for flipped in flips(&proof.to_bytes()) {
            let verdict = SubtreeProof::parse(&flipped)
                .and_then(|it| it.verify(algorithm, &tree_hash, &prefix, &entries));
            prop_assert!(verdict.is_err());
        }
    }

    /// A page that is not in memory is named; what it is not needed for can be proved.
    #[test]
    fn a_sealed_page_is_asked_for_only_when_it_is_needed(
        leaves in any_leaves(),
        near in any_key(),
        bits in 0..=256_u16,
        asked in any_key(),
    ) {
        let algorithm = HashAlgorithm::Blake3;
        let near = leaves.keys().next_back().copied().unwrap_or(near);
        let sealed = Prefix::of(&near, bits);
        let whole = ModelTree::new(algorithm, &leaves);
        let proof = Proof::prove(&whole, &asked).unwrap();
        let buckets = buckets_of(&whole).unwrap();
        let claims = MultiProof::prove(&whole, [asked]).unwrap();
        let tree = ModelTree::new(algorithm, &leaves).sealed_at(sealed);
        match Proof::prove(&tree, &asked) {
            Ok(same) => {
                prop_assert_eq!(same, proof);
                prop_assert_eq!(MultiProof::prove(&tree, [asked]).unwrap(), claims);
            }
            Err(Sealed(page)) => {
                prop_assert!(sealed.is_prefix_of(&page));
                prop_assert!(MultiProof::prove(&tree, [asked]).is_err());
            }
        }
        match buckets_of(&tree) {
            Ok(same) => prop_assert_eq!(same, buckets),
            Err(Sealed(page)) => prop_assert!(page.len() < 8 && sealed.len() < 8),
        }
    }

    #[test]
    fn a_digest_has_the_buckets_of_its_tree(
        algorithm in any_algorithm(),
        leaves in any_leaves(),
        at in any::<u8>(),
    ) {
        let tree = ModelTree::new(algorithm, &leaves);
        let entries = leaves.len() as u64;
        let totals = Totals { entries, siblings: entries, ..Totals::default() };
        let envelope = Envelope::new(spec(algorithm), tree.tree_hash(), totals).unwrap();
        let (root, mut buckets) = (envelope.root(), buckets_of(&tree).unwrap());
        for (bucket, hash) in buckets.iter().enumerate() {
            let own = leaves.iter().filter(|(key, _)| usize::from(key.bucket()) == bucket);
            let own = own.map(|(key, record)| (*key, *record)).collect();
            prop_assert_eq!(*hash, ModelTree::new(algorithm, &own).tree_hash());
        }
        Digest::check(&root, envelope.clone(), buckets.clone(), Stamp(0)).unwrap();
        let other = Root([1; 32]);
        prop_assert!(Digest::check(&other, envelope.clone(), buckets.clone(), Stamp(0)).is_err());
        buckets[usize::from(at)] = TreeHash([1; 32]);
        prop_assert!(Digest::new(envelope, buckets, Stamp(0)).is_err());
    }

    #[test]
    fn a_bundle_answers_from_root_and_key_alone(
        algorithm in any_algorithm(),
        texts in btree_map("[a-d]{1,3}", any::<u32>(), 0..12),
        asked in "[a-d]{1,3}",
    ) {
        let records: BTreeMap<_, _> = texts
            .iter()
            .map(|(text, number)| (algorithm.key_hash(&key(text)), record(algorithm, *number)))
            .collect();
        let leaves = records.iter().map(|(key, record)| (*key, record.digest(algorithm)));
        let tree = ModelTree::new(algorithm, &leaves.collect());
        let totals = records.values().map(Record::totals).fold(Totals::default(), Totals::plus);
        let envelope = Envelope::new(spec(algorithm), tree.tree_hash(), totals).unwrap();
        let root = envelope.root();
        let held = records.get(&algorithm.key_hash(&key(&asked))).cloned();
        let bundle = Bundle::prove(&tree, envelope, &key(&asked), held.clone()).unwrap();
        let answer = bundle.verify(&root, &key(&asked)).unwrap();
        prop_assert_eq!(answer, held.map_or(Answer::Absent, Answer::Present));
        prop_assert_eq!(&Bundle::parse(&bundle.to_bytes()).unwrap(), &bundle);
        for flipped in flips(&bundle.to_bytes()) {
            let verdict = Bundle::parse(&flipped).and_then(|it| it.verify(&root, &key(&asked)));
            prop_assert!(verdict.is_err());
        }
    }

    #[test]
    fn a_log_proves_its_items_and_its_growth(
        algorithm in any_algorithm(),
        size in 1..70_u64,
        index in any::<Index>(),
        first in any::<Index>(),
    ) {
        let mut log = MerkleLog::new(algorithm);
        let (mut leaves, mut roots) = (Vec::new(), vec![log.root()]);
        for item in 0..size {
            leaves.push(log.append(&item.to_le_bytes()));
            roots.push(log.root());
        }
        prop_assert_eq!(log.root(), rfc_root(algorithm, &leaves));
        let (size_at, root) = (log.size(), log.root());
        let index = index.index(leaves.len());
        let proof = InclusionProof::of_leaves(algorithm, &leaves, index as u64).unwrap();
        prop_assert_eq!(proof.verify(algorithm, size_at, &root, &leaves[index]), Ok(()));
        prop_assert!(proof.verify(algorithm, size_at, &root, &LogHash([0; 32])).is_err());
        for flipped in flips(&proof.to_bytes()) {
            let verdict = InclusionProof::parse(&flipped)
                .and_then(|it| it.verify(algorithm, size_at, &root, &leaves[index]));
            prop_assert!(verdict.is_err());
        }

        let first = first.index(leaves.len() + 1);
        let old = (first as u64, &roots[first]);
        let proof = ConsistencyProof::of_leaves(algorithm, &leaves, first as u64).unwrap();
        prop_assert_eq!(proof.verify(algorithm, old, (size_at, &root)), Ok(()));
        let wrong = LogHash([0; 32]);
        prop_assert!(proof.verify(algorithm, (old.0, &wrong), (size_at, &root)).is_err());
        if first > 0 {
            prop_assert!(proof.verify(algorithm, old, (size_at, &wrong)).is_err());
        }
        for flipped in flips(&proof.to_bytes()) {
            let verdict = ConsistencyProof::parse(&flipped)
                .and_then(|it| it.verify(algorithm, old, (size_at, &root)));
            prop_assert!(verdict.is_err());
        }
    }

    #[test]
    fn no_bytes_make_a_parser_or_verifier_panic(
        bytes in prop_oneof![
            vec(any::<u8>(), 0..400),
            // likely beginnings, so that more than the first byte is looked at
            (0..4_u8, 0..40_u16, 0..34_u8, vec(any::<u8>(), 0..400)).prop_map(
                |(kind, hashes, bitmap, rest)| {
                    let hashes = hashes.to_le_bytes();
                    [&[kind, hashes[0], hashes[1], bitmap][..], &rest].concat()
                },
            ),
        ],
        asked in any_key(),
    ) {
        let (algorithm, tree_hash) = (HashAlgorithm::Sha256, TreeHash([0; 32]));
        let claims = [Claim::absent(asked)];
        if let Ok(proof) = Proof::parse(&bytes) {
            prop_assert_eq!(proof.to_bytes(), bytes.clone());
            prop_assert!(proof.verify(algorithm, &tree_hash, &claims[0]).is_err());
            let proof = SubtreeProof::parse(&bytes).unwrap();
            let prefix = Prefix::of(&asked, 9);
            prop_assert!(proof.verify(algorithm, &tree_hash, &prefix, &[]).is_err());
        }
        if let Ok(proof) = MultiProof::parse(&bytes) {
            prop_assert_eq!(proof.to_bytes(), bytes.clone());
            prop_assert!(proof.verify(algorithm, &tree_hash, &claims).is_err());
        }
        if let Ok(proof) = InclusionProof::parse(&bytes) {
            prop_assert_eq!(proof.to_bytes(), bytes.clone());
            let root = LogHash([0; 32]);
            prop_assert!(proof.verify(algorithm, proof.size(), &root, &root).is_err());
        }
        if let Ok(proof) = ConsistencyProof::parse(&bytes) {
            prop_assert_eq!(proof.to_bytes(), bytes.clone());
            let root = LogHash([0; 32]);
            let sizes = ((proof.first(), &root), (proof.second(), &root));
            let _ = proof.verify(algorithm, sizes.0, sizes.1);
        }
        let _ = (Envelope::parse(&bytes), Bundle::parse(&bytes), LogHeadFields::parse(&bytes));
        prop_assert!(Certificate::parse(&bytes).is_err());
    }
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn spec(algorithm: HashAlgorithm) -> CollectionSpec {
    let resolver = CollectionName::new("greatest").unwrap();
    let policy = Policy::Custom { resolver, version: 3 };
    CollectionSpec { name: CollectionName::new("players").unwrap(), algorithm, policy }
}

fn record(algorithm: HashAlgorithm, number: u32) -> Record {
    let value = number.to_le_bytes();
    let sibling = |counter| Sibling {
        dot: Dot::new(1 + u64::from(number), counter).unwrap(),
        stamp: Stamp(u64::from(number)),
        size: value.len() as u64,
        value_hash: ValueHash(algorithm.value_hash(&value).0),
    };
    Record::new((1..=1 + u64::from(number % 3)).map(sibling).collect()).unwrap()
}

/// MTH of RFC 9162, word for word.
fn rfc_root(algorithm: HashAlgorithm, leaves: &[LogHash]) -> LogHash {
    match leaves {
        [] => algorithm.log_empty(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            algorithm.log_inner(&rfc_root(algorithm, left), &rfc_root(algorithm, right))
        }
    }
}

#[test]
fn a_certificate_with_any_bit_changed_is_none() {
    let keys = [NodeKey::from_seed(&[1; 32]), NodeKey::from_seed(&[2; 32])];
    let message = CertificateMessage::new(
        CollectionName::new("größe").unwrap(),
        Root([3; 32]),
        ContextHash([4; 32]),
        [keys[0].node_id(), keys[1].node_id()],
        session_id(&[5; 32], &[6; 32]),
        Stamp(7),
    )
    .unwrap();
    let signed = [1, 0].map(|at| (keys[at].node_id(), message.sign(&keys[at])));
    let certificate = message.clone().certify(signed).unwrap();
    let bytes = certificate.to_bytes();
    assert_eq!(Certificate::parse(&bytes), Ok(certificate));
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        Certificate::parse(&flipped).expect_err("a changed certificate");
    }
    let stranger = NodeKey::from_seed(&[9; 32]);
    let by_stranger = [signed[0], (stranger.node_id(), message.sign(&stranger))];
    message.clone().certify(by_stranger).expect_err("one of the two did not sign");
    message.certify([signed[0], signed[0]]).expect_err("one node signed twice");
}

/// Nothing in a tree of 256 levels may overflow: neither counts, nor bitmaps, nor the stack.
#[test]
fn the_deepest_tree_there_can_be_is_proved() {
    let algorithm = HashAlgorithm::Blake3;
    let record = RecordDigest([1; 32]);
    let mut leaves = BTreeMap::from([(KeyHash([0; 32]), record)]);
    for bit in 0..256 {
        let mut key = [0; 32];
        key[bit / 8] = 0x80 >> (bit % 8);
        leaves.insert(KeyHash(key), record);
    }
    let tree = ModelTree::new(algorithm, &leaves);
    for &key in leaves.keys() {
        let proof = Proof::prove(&tree, &key).unwrap();
        assert!(proof.to_bytes().len() <= selfsame::merkle::MAX_PROOF_BYTES);
        let proof = Proof::parse(&proof.to_bytes()).unwrap();
        proof.verify(algorithm, &tree.tree_hash(), &Claim::present(key, record)).unwrap();
    }
    let (claims, proof) = MultiProof::prove(&tree, leaves.keys().copied()).unwrap();
    proof.verify(algorithm, &tree.tree_hash(), &claims).unwrap();
    let View::Inner { bit: 0, .. } = tree.view(tree.top().unwrap()).unwrap() else {
        panic!("the top splits at bit 0");
    };
}
