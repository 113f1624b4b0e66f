//! The published vectors for trees given as pairs of key hash and record digest.
#![allow(clippy::unwrap_used, clippy::panic)]

use selfsame::entry::Totals;
use selfsame::hash::{HashAlgorithm, KeyHash, RecordDigest, TreeHash};
use selfsame::merkle::{Change, Leaf, PagedTree, Sealed, Shape, Tree, View};
use serde_json::Value;
use sha2::{Digest, Sha256};

const PAGE_SIZES: [usize; 6] = [1, 2, 3, 8, 64, 4_096];

fn section(name: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("vectors/tree.json")).unwrap();
    all[name].as_array().unwrap().clone()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn algorithm(case: &Value) -> HashAlgorithm {
    text(&case["hash"]).parse().unwrap()
}

fn leaf(key: &Value, record: &Value) -> Leaf {
    let key: KeyHash = text(key).parse().unwrap();
    let record: RecordDigest = text(record).parse().unwrap();
    Leaf { key, record, totals: Totals { entries: 1, siblings: 1, ..Totals::default() } }
}

fn leaves(case: &Value) -> Vec<Leaf> {
    let leaves = case["leaves"].as_array().unwrap();
    leaves.iter().map(|pair| leaf(&pair[0], &pair[1])).collect()
}

fn hash(value: &Value) -> TreeHash {
    text(value).parse().unwrap()
}

#[test]
fn pairs_hash_as_published_whatever_the_way_they_came_in() {
    for case in section("pairs") {
        let (name, algorithm, leaves) = (&case["name"], algorithm(&case), leaves(&case));
        let expected = hash(&case["tree_hash"]);
        let built = Tree::build(algorithm, leaves.clone());
        assert_eq!(built.tree_hash(), expected, "{name}");

        let mut single = Tree::new(algorithm);
        for leaf in &leaves {
            assert_eq!(single.put(*leaf), None);
        }
        assert_eq!(single.tree_hash(), expected, "{name}");

        let mut batch = Tree::new(algorithm);
        let changes: Vec<Change> = leaves.iter().copied().map(Change::Put).collect();
        batch.apply(&changes);
        assert_eq!(batch.tree_hash(), expected, "{name}");

        for page_leaves in PAGE_SIZES {
            let paged = PagedTree::build(algorithm, page_leaves, leaves.clone()).unwrap();
            let reopened = PagedTree::from_rows(algorithm, page_leaves, paged.rows()).unwrap();
            assert_eq!(reopened.tree_hash(), expected, "{name}");
        }
    }
}

#[test]
fn buckets_and_leaf_hashes_of_pairs_are_as_published() {
    for case in section("pairs") {
        let (name, algorithm, leaves) = (&case["name"], algorithm(&case), leaves(&case));
        let tree = Tree::build(algorithm, leaves.clone());
        let buckets = tree.bucket_hashes();
        let mut all = Sha256::new();
        buckets.iter().for_each(|bucket| all.update(bucket.0));
        let all: [u8; 32] = all.finalize().into();
        assert_eq!(hex::encode(all), text(&case["buckets_sha256"]), "{name}");
        for (number, expected) in case["buckets"].as_object().unwrap() {
            let number = usize::from_str_radix(number, 16).unwrap();
            assert_eq!(buckets[number], hash(expected), "{name}");
        }
        for (pair, leaf) in case["leaves"].as_array().unwrap().iter().zip(&leaves) {
            if !pair[2].is_null() {
                assert_eq!(leaf_hash(&tree, &leaf.key), Some(hash(&pair[2])), "{name}");
            }
        }
    }
}

fn leaf_hash(tree: &Tree, wanted: &KeyHash) -> Option<TreeHash> {
    let mut node = tree.top()?;
    loop {
        match tree.view(node).unwrap() {
            View::Leaf { key, .. } => return (key == *wanted).then(|| tree.hash(node)),
            View::Inner { bit, left, right } => {
                node = if wanted.bit(bit) { right } else { left };
            }
        }
    }
}

#[test]
fn sequences_of_pairs_have_the_published_hash_after_every_step() {
    for case in section("pair_sequences") {
        let algorithm = algorithm(&case);
        let mut tree = Tree::new(algorithm);
        let mut paged: Vec<PagedTree> =
            PAGE_SIZES.iter().map(|size| PagedTree::new(algorithm, *size)).collect();
        for (number, step) in case["steps"].as_array().unwrap().iter().enumerate() {
            let change = match text(&step["op"]) {
                "put" => Change::Put(leaf(&step["kh"], &step["rd"])),
                "remove" => Change::Remove(text(&step["kh"]).parse().unwrap()),
                other => panic!("unknown op {other}"),
            };
            let before = tree.snapshot();
            tree.apply([change]);
            let expected = hash(&step["tree_hash"]);
            assert_eq!(tree.tree_hash(), expected, "{} step {number}", case["name"]);
            for paged in &mut paged {
                reopen(paged);
                while let Err(Sealed(page)) = paged.apply([change]) {
                    paged.unseal(&page, before.leaves_under(&page).collect()).unwrap();
                }
                assert_eq!(paged.tree_hash(), expected, "{} step {number}", case["name"]);
            }
        }
        assert!(tree.is_empty());
    }
}

fn reopen(paged: &mut PagedTree) {
    *paged = PagedTree::from_rows(paged.algorithm(), paged.page_leaves(), paged.rows()).unwrap();
}
