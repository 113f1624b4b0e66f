//! Trees, envelopes, digests.

use std::collections::BTreeMap;

use selfsame::clock::Stamp;
use selfsame::entry::{Record, Totals};
use selfsame::hash::{HashAlgorithm, KeyHash, Root, TreeHash};
use selfsame::merkle::{
    Answer, Bundle, Claim, Digest, Envelope, Proof, Shape, buckets_of, fold_buckets,
};
use selfsame::types::{CollectionName, CollectionSpec, Key, Policy};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::json::{
    algorithm, array, bytes, cases, key, list, name, number, pairs, policy, record, text, totals,
    tree_hash,
};
use crate::model_tree::ModelTree;
use crate::proofs::{check_proofs, check_proofs_refused};

pub(crate) const SECTIONS: &[&str] = &[
    "roots",
    "envelopes_refused",
    "collections",
    "pairs",
    "sequences",
    "pair_sequences",
    "digests",
    "dishonest_bundles",
];

#[test]
fn roots() {
    for case in cases("roots") {
        let envelope = Envelope::new(spec(case), tree_hash(case), totals(&case["totals"])).unwrap();
        check_envelope(&envelope, case);
    }
}

#[test]
fn envelopes_refused() {
    for case in cases("envelopes_refused") {
        Envelope::parse(&bytes(case, "envelope")).expect_err(text(case, "what"));
    }
}

fn spec(case: &Value) -> CollectionSpec {
    CollectionSpec { name: name(case), algorithm: algorithm(case), policy: policy(case) }
}

fn check_envelope(envelope: &Envelope, case: &Value) {
    assert_eq!(envelope.to_bytes(), bytes(case, "envelope"));
    assert_eq!(envelope.root().0, array(case, "root"));
    assert_eq!(&Envelope::parse(&envelope.to_bytes()).unwrap(), envelope);
}

/// A collection as a map, its tree built anew on demand.
struct Collection {
    spec: CollectionSpec,
    records: BTreeMap<KeyHash, Record>,
}

impl Collection {
    fn new(case: &Value) -> Self {
        let mut collection = Self { spec: spec(case), records: BTreeMap::new() };
        if let Some(entries) = case["entries"].as_array() {
            entries.iter().for_each(|entry| collection.put(entry));
        }
        collection
    }

    fn put(&mut self, entry: &Value) {
        let algorithm = self.spec.algorithm;
        self.records.insert(algorithm.key_hash(&key(entry)), record(algorithm, entry));
    }

    fn tree(&self) -> ModelTree {
        let algorithm = self.spec.algorithm;
        let leaves = self.records.iter().map(|(key, record)| (*key, record.digest(algorithm)));
        ModelTree::new(algorithm, &leaves.collect())
    }

    fn envelope(&self) -> Envelope {
        let totals =
            self.records.values().map(Record::totals).fold(Totals::default(), Totals::plus);
        Envelope::new(self.spec.clone(), self.tree().tree_hash(), totals).unwrap()
    }
}

#[test]
fn collections() {
    for case in cases("collections") {
        let collection = Collection::new(case);
        let (tree, envelope) = (collection.tree(), collection.envelope());
        assert_eq!(envelope.tree_hash(), tree_hash(case), "{}", text(case, "name"));
        assert_eq!(envelope.totals(), totals(&case["totals"]));
        check_envelope(&envelope, case);
        check_buckets(&tree, case);
        check_proofs(&tree, list(case, "proofs"));
        check_proofs_refused(algorithm(case), &tree_hash(case), list(case, "proofs_refused"));
        for deleted in list(case, "deleted") {
            let key = Key::new(hex::decode(deleted.as_str().unwrap()).unwrap()).unwrap();
            assert!(!collection.records.contains_key(&algorithm(case).key_hash(&key)));
        }
        list(case, "bundles").iter().for_each(|bundle| check_bundle(&collection, bundle));
        for refused in list(case, "bundles_refused") {
            assert!(
                open(&Root(array(case, "root")), refused).is_none(),
                "{}: {}",
                text(case, "name"),
                text(refused, "what")
            );
        }
    }
}

fn check_buckets(tree: &ModelTree, case: &Value) {
    let buckets = buckets_of(tree).unwrap();
    assert_eq!(fold_buckets(tree.algorithm(), &buckets), tree_hash(case));
    for (bucket, hash) in case["buckets"].as_object().unwrap() {
        let at = usize::from_str_radix(bucket, 16).unwrap();
        assert_eq!(buckets[at].to_string(), hash.as_str().unwrap());
    }
    let mut hasher = Sha256::new();
    buckets.iter().for_each(|bucket| hasher.update(bucket));
    assert_eq!(hasher.finalize()[..], bytes(case, "buckets_sha256"));
}

fn check_bundle(collection: &Collection, case: &Value) {
    let record = collection.records.get(&collection.spec.algorithm.key_hash(&key(case))).cloned();
    let envelope = collection.envelope();
    let root = envelope.root();
    let bundle = Bundle::prove(&collection.tree(), envelope, &key(case), record.clone()).unwrap();
    assert_eq!(bundle.to_bytes(), bytes(case, "bundle"));
    assert_eq!(Bundle::parse(&bytes(case, "bundle")).unwrap(), bundle);

    let siblings = match open(&root, case).unwrap() {
        Answer::Present(found) => {
            assert_eq!((text(case, "result"), Some(&found)), ("present", record.as_ref()));
            found.siblings().len()
        }
        Answer::Absent => {
            assert_eq!((text(case, "result"), record), ("absent", None));
            0
        }
    };
    assert_eq!(siblings as u64, number(case, "siblings"));
}

/// What a verifier with a root and a key sees in a bundle.
fn open(root: &Root, case: &Value) -> Option<Answer> {
    let key = Key::new(bytes(case, "key_hex")).ok()?;
    Bundle::parse(&bytes(case, "bundle")).ok()?.verify(root, &key).ok()
}

#[test]
fn dishonest_bundles() {
    for case in cases("dishonest_bundles") {
        assert!(open(&Root(array(case, "root")), case).is_none(), "{}", text(case, "reason"));
    }
}

#[test]
fn pairs_of_hashes() {
    for case in cases("pairs") {
        let leaves = pairs(list(case, "leaves"));
        for (leaf, (key, record)) in list(case, "leaves").iter().zip(&leaves) {
            if let Some(hash) = leaf[2].as_str() {
                assert_eq!(algorithm(case).leaf(key, record).to_string(), hash);
            }
        }
        let tree = ModelTree::new(algorithm(case), &leaves.into_iter().collect());
        assert_eq!(tree.tree_hash(), tree_hash(case), "{}", text(case, "name"));
        check_buckets(&tree, case);
        check_proofs(&tree, list(case, "proofs"));
        check_proofs_refused(algorithm(case), &tree_hash(case), list(case, "proofs_refused"));
    }
}

#[test]
fn sequences() {
    for case in cases("sequences") {
        let mut collection = Collection::new(case);
        for step in list(case, "steps") {
            let removed = match text(step, "op") {
                "put" => {
                    collection.put(&step["entry"]);
                    None
                }
                "delete" => Some(algorithm(case).key_hash(&key(step))),
                other => panic!("step {other}"),
            };
            if let Some(removed) = removed {
                collection.records.remove(&removed).unwrap();
                let proof = Proof::prove(&collection.tree(), &removed).unwrap();
                assert_eq!(proof.to_bytes(), bytes(step, "absence"));
                let claim = Claim::absent(removed);
                proof.verify(algorithm(case), &tree_hash(step), &claim).unwrap();
            }
            let envelope = collection.envelope();
            assert_eq!(envelope.tree_hash(), tree_hash(step));
            assert_eq!(envelope.totals(), totals(&step["totals"]));
            assert_eq!(envelope.root().0, array(step, "root"));
        }
    }
}

#[test]
fn pair_sequences() {
    for case in cases("pair_sequences") {
        let mut leaves = BTreeMap::new();
        for step in list(case, "steps") {
            let key = KeyHash(array(step, "kh"));
            match text(step, "op") {
                "put" => leaves.insert(key, crate::json::claim(step).record.unwrap()),
                "remove" => leaves.remove(&key),
                other => panic!("step {other}"),
            };
            let tree = ModelTree::new(algorithm(case), &leaves);
            assert_eq!(tree.tree_hash(), tree_hash(step));
        }
    }
}

/// What a reader of a digest's JSON does, with the buckets that the vectors leave out.
fn read_digest(case: &Value) -> Option<Digest> {
    let algorithm: HashAlgorithm = text(case, "hash_algorithm").parse().unwrap();
    let policy = match &case["policy"] {
        Value::String(name) => name.parse().unwrap(),
        custom => Policy::Custom {
            resolver: CollectionName::new(text(custom, "resolver")).unwrap(),
            version: number(custom, "version").try_into().unwrap(),
        },
    };
    let mut buckets = Box::new([algorithm.empty(); 256]);
    for bucket in case["buckets"].as_object().unwrap().keys() {
        let at = usize::from_str_radix(bucket, 16).unwrap();
        buckets[at] = TreeHash(array(&case["buckets"], bucket));
    }
    let spec = CollectionSpec { name: name(case), algorithm, policy };
    let envelope = Envelope::new(spec, tree_hash(case), totals(case)).ok()?;
    Digest::check(&Root(array(case, "root")), envelope, buckets, Stamp(0)).ok()
}

#[test]
fn digests() {
    let mut verdicts = [0, 0];
    for case in cases("digests") {
        let accepted = case["accepted"].as_bool().unwrap();
        assert_eq!(read_digest(&case["digest"]).is_some(), accepted, "{}", text(case, "what"));
        verdicts[usize::from(accepted)] += 1;
    }
    assert!(verdicts[0] > 0 && verdicts[1] > 0);
}
