//! Trees against an oracle that follows the definition: no leaves, EMPTY; one, its hash; else a
//! split at the first bit in which the least and the greatest key differ.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use selfsame::clock::Stamp;
use selfsame::entry::Totals;
use selfsame::hash::{HashAlgorithm, KeyHash, RecordDigest, TreeHash};
use selfsame::merkle::{
    Change, Claim, Leaf, PageMismatch, PageRow, PagedTree, Prefix, Proof, RowsError, Sealed, Tree,
};

type Leaves = BTreeMap<KeyHash, Leaf>;

// ---- the oracle

fn split(leaves: &[Leaf]) -> Option<(u8, &[Leaf], &[Leaf])> {
    let bit = leaves.first()?.key.first_difference(&leaves.last()?.key)?;
    let middle = leaves.iter().position(|leaf| leaf.key.bit(bit)).unwrap();
    Some((bit, &leaves[..middle], &leaves[middle..]))
}

fn oracle_hash(algorithm: HashAlgorithm, leaves: &[Leaf]) -> TreeHash {
    match (split(leaves), leaves) {
        (Some((bit, left, right)), _) => {
            algorithm.inner(bit, &oracle_hash(algorithm, left), &oracle_hash(algorithm, right))
        }
        (None, [leaf]) => algorithm.leaf(&leaf.key, &leaf.record),
        (None, _) => algorithm.empty(),
    }
}

fn oracle_depth(leaves: &[Leaf]) -> u16 {
    split(leaves).map_or(0, |(_, left, right)| 1 + oracle_depth(left).max(oracle_depth(right)))
}

fn oracle_totals(leaves: &[Leaf]) -> Totals {
    leaves.iter().fold(Totals::default(), |totals, leaf| totals.plus(leaf.totals))
}

fn oracle_rows(algorithm: HashAlgorithm, size: usize, leaves: &[Leaf], at: u16) -> Vec<PageRow> {
    match split(leaves) {
        Some((bit, left, right)) if leaves.len() > size => {
            let at = u16::from(bit) + 1;
            let mut rows = oracle_rows(algorithm, size, left, at);
            rows.extend(oracle_rows(algorithm, size, right, at));
            rows
        }
        _ if leaves.is_empty() => Vec::new(),
        _ => vec![PageRow {
            prefix: Prefix::of(&leaves[0].key, at),
            hash: oracle_hash(algorithm, leaves),
            totals: oracle_totals(leaves),
            depth: oracle_depth(leaves),
        }],
    }
}

fn under(leaves: &Leaves, prefix: &Prefix) -> Vec<Leaf> {
    leaves.values().filter(|leaf| prefix.contains(&leaf.key)).copied().collect()
}

// ---- keys and changes

fn flipped(mut key: [u8; 32], bit: u8) -> [u8; 32] {
    key[usize::from(bit / 8)] ^= 0x80 >> (bit % 8);
    key
}

/// Few enough that the same one comes up again, in shapes that hurt.
fn keys() -> impl Strategy<Value = Vec<KeyHash>> {
    let base = any::<[u8; 32]>();
    let anywhere = vec(any::<[u8; 32]>(), 1..40);
    // more than a subtree has whose totals are not kept
    let many = vec(any::<[u8; 32]>(), 60..120);
    let one_bucket = vec(any::<[u8; 32]>(), 1..40).prop_map(|mut keys| {
        keys.iter_mut().for_each(|key| key[0] = 0x5a);
        keys
    });
    let shared_240 = (base, vec(any::<[u8; 2]>(), 1..40)).prop_map(|(base, ends)| {
        let with = |end: &[u8; 2]| [&base[..30], &end[..]].concat().try_into().unwrap();
        ends.iter().map(with).collect()
    });
    let dense = vec(any::<[u8; 2]>(), 1..40).prop_map(|starts| {
        starts.iter().map(|[a, b]| flipped([0; 32], 8 * (a % 4) + b % 4)).collect()
    });
    let borders = base.prop_map(|base| {
        let bits = [0, 7, 8, 254, 255];
        let once = bits.map(|bit| flipped(base, bit));
        let twice = once.map(|key| flipped(key, 255));
        [&[base][..], &once, &twice].concat()
    });
    let comb = (base, any::<u8>(), 1..=255_u8).prop_map(|(base, first, step)| {
        let bits = (0..=255_u8).filter(move |bit| bit % step == first % step);
        bits.map(|bit| flipped(base, bit)).chain([base]).collect()
    });
    prop_oneof![
        4 => anywhere, 2 => many, 2 => one_bucket, 3 => shared_240, 2 => dense, 2 => borders, 1 => comb
    ]
    .prop_map(|keys: Vec<[u8; 32]>| keys.into_iter().map(KeyHash).collect())
}

fn leaf(key: KeyHash, version: u8) -> Leaf {
    let number = u64::from(version);
    // some that do not fit into the few bits that most need, and sums that overflow
    let (siblings, bytes) = match version {
        3 => (70_000, 1 << 48),
        4 => (0xffff, (1 << 48) - 1),
        5 => (2, u64::MAX / 3),
        _ => (1 + number % 3, number * 1_000),
    };
    let totals = Totals { entries: 1, siblings, bytes, latest: Stamp(number * 7 % 50) };
    Leaf { key, record: RecordDigest([version; 32]), totals }
}

#[derive(Clone, Debug)]
enum Step {
    Put(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Batch(Vec<(prop::sample::Index, Option<u8>)>),
    // all keys at once
    Fill(u8),
    // all leaves one by one
    Drain,
    Snapshot,
    Reopen,
    Seal(prop::sample::Index),
    Read(prop::sample::Index, u16, u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = any::<prop::sample::Index>;
    let step = prop_oneof![
        8 => (index(), 0..6_u8).prop_map(|(key, version)| Step::Put(key, version)),
        6 => index().prop_map(Step::Remove),
        4 => vec((index(), prop::option::of(0..6_u8)), 0..30).prop_map(Step::Batch),
        1 => (0..6_u8).prop_map(Step::Fill),
        1 => Just(Step::Drain),
        2 => Just(Step::Snapshot),
        3 => Just(Step::Reopen),
        4 => index().prop_map(Step::Seal),
        4 => (index(), 0..=256_u16, 0..10_u8).prop_map(|(key, at, fan)| Step::Read(key, at, fan)),
    ];
    vec(step, 1..40)
}

/// The changes of a step; single ones are put or removed alone.
fn changes(step: &Step, keys: &[KeyHash], leaves: &Leaves) -> Vec<Change> {
    let put = |key: KeyHash, version| Change::Put(leaf(key, version));
    match step {
        Step::Put(key, version) => vec![put(*key.get(keys), *version)],
        Step::Remove(key) => vec![Change::Remove(*key.get(keys))],
        Step::Batch(items) => items
            .iter()
            .map(|(key, version)| {
                let key = *key.get(keys);
                version.map_or(Change::Remove(key), |version| put(key, version))
            })
            .collect(),
        Step::Fill(version) => keys.iter().map(|key| put(*key, *version)).collect(),
        Step::Drain => leaves.keys().map(|key| Change::Remove(*key)).collect(),
        _ => Vec::new(),
    }
}

fn apply_to_oracle(leaves: &mut Leaves, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Put(leaf) => leaves.insert(leaf.key, *leaf),
            Change::Remove(key) => leaves.remove(key),
        };
    }
}

// ---- the tree in memory

fn check_tree(tree: &Tree, leaves: &Leaves) {
    let all: Vec<Leaf> = leaves.values().copied().collect();
    assert_eq!(tree.tree_hash(), oracle_hash(tree.algorithm(), &all));
    assert_eq!(tree.totals(), oracle_totals(&all));
    assert_eq!(tree.depth(), oracle_depth(&all));
    assert_eq!((tree.len(), tree.is_empty()), (all.len(), all.is_empty()));
    assert!(tree.leaves().eq(all));
}

fn check_prefix(tree: &Tree, leaves: &Leaves, prefix: &Prefix, fan: u8) {
    let below = under(leaves, prefix);
    assert_eq!(tree.hash_under(prefix), oracle_hash(tree.algorithm(), &below));
    assert_eq!(tree.totals_under(prefix), oracle_totals(&below));
    assert_eq!(tree.depth_under(prefix), oracle_depth(&below));
    assert!(tree.leaves_under(prefix).eq(below));
    let mut prefixes = vec![*prefix];
    for _ in 0..fan.min(u8::try_from(256 - prefix.len()).unwrap_or(u8::MAX)) {
        let children = |prefix: &Prefix| [prefix.child(false), prefix.child(true)];
        prefixes = prefixes.iter().flat_map(children).flatten().collect();
    }
    let expected: Vec<TreeHash> = prefixes
        .iter()
        .map(|prefix| oracle_hash(tree.algorithm(), &under(leaves, prefix)))
        .collect();
    assert_eq!(tree.hashes_under(prefix, fan), expected);
}

proptest! {
    #[test]
    fn a_tree_is_the_oracles_after_every_step(
        sha in any::<bool>(),
        keys in keys(),
        steps in steps(),
    ) {
        let algorithm = HashAlgorithm::ALL[usize::from(sha)];
        let mut tree = Tree::new(algorithm);
        let mut leaves = Leaves::new();
        let mut frozen = Vec::new();
        for step in &steps {
            let changes = changes(step, &keys, &leaves);
            match (step, &changes[..]) {
                (Step::Put(..), [Change::Put(leaf)]) => {
                    prop_assert_eq!(tree.put(*leaf), leaves.get(&leaf.key).copied());
                }
                (Step::Remove(_), [Change::Remove(key)]) => {
                    prop_assert_eq!(tree.remove(key), leaves.get(key).copied());
                }
                (Step::Drain, _) => {
                    for change in &changes {
                        prop_assert_eq!(tree.remove(change.key()), leaves.remove(change.key()));
                        check_tree(&tree, &leaves);
                    }
                }
                (Step::Snapshot, _) => frozen.push((tree.snapshot(), leaves.clone())),
                (Step::Read(key, at, fan), _) => {
                    let key = key.get(&keys);
                    prop_assert_eq!(tree.get(key), leaves.get(key).copied());
                    check_prefix(&tree, &leaves, &Prefix::of(key, *at), *fan);
                }
                _ => {
                    let before = leaves.clone();
                    apply_to_oracle(&mut leaves, &changes);
                    let applied = tree.apply(&changes);
                    let changed =
                        keys.iter().filter(|key| before.get(key) != leaves.get(key));
                    let mut changed: Vec<_> = changed.collect();
                    changed.sort();
                    changed.dedup();
                    prop_assert_eq!(applied.leaves, changed.len());
                }
            }
            apply_to_oracle(&mut leaves, &changes);
            check_tree(&tree, &leaves);
        }
        for (tree, leaves) in frozen {
            check_tree(&tree, &leaves);
        }
        let shuffled = leaves.values().rev().copied();
        prop_assert_eq!(Tree::build(algorithm, shuffled), tree);
    }

    #[test]
    fn buckets_are_the_trees_of_one_byte_prefixes(keys in keys()) {
        let leaves: Leaves = keys.iter().map(|key| (*key, leaf(*key, key.0[31]))).collect();
        let tree = Tree::build(HashAlgorithm::Blake3, leaves.values().copied());
        let (hashes, totals) = (tree.bucket_hashes(), tree.bucket_totals());
        for bucket in 0..=255_u8 {
            let below = under(&leaves, &Prefix::new(&[bucket], 8).unwrap());
            let bucket = usize::from(bucket);
            prop_assert_eq!(hashes[bucket], oracle_hash(tree.algorithm(), &below));
            prop_assert_eq!(totals[bucket], oracle_totals(&below));
        }
    }

    #[test]
    fn a_batch_hashes_every_touched_inner_node_once(
        keys in vec(any::<[u8; 32]>(), 2..120),
        picked in vec(any::<prop::sample::Index>(), 1..30),
    ) {
        let leaves: Vec<Leaf> = keys.iter().map(|key| leaf(KeyHash(*key), 1)).collect();
        let mut tree = Tree::build(HashAlgorithm::Blake3, leaves.clone());
        let changes: Vec<Change> = picked
            .iter()
            .map(|index| Change::Put(leaf(index.get(&leaves).key, 2)))
            .collect();
        let mut sorted: Vec<Leaf> = tree.leaves().collect();
        sorted.dedup();
        let is_picked = |leaf: &Leaf| changes.iter().any(|change| *change.key() == leaf.key);
        let expected = touched(&sorted, &is_picked);
        prop_assert_eq!(tree.apply(&changes).inner_hashes, expected);
    }
}

/// So many that hashing goes level by level, and in several goes.
#[test]
fn a_tree_of_many_leaves_is_the_oracles() {
    for algorithm in HashAlgorithm::ALL {
        let many = |version: u8| {
            let key = |number: u32| KeyHash(algorithm.value_hash(&number.to_le_bytes()).0);
            (0..9_000).map(move |number| leaf(key(number), version))
        };
        let mut leaves: Leaves = many(1).map(|leaf| (leaf.key, leaf)).collect();
        let mut tree = Tree::build(algorithm, many(1));
        check_tree(&tree, &leaves);
        let changes: Vec<Change> = many(2)
            .enumerate()
            .filter(|(number, _)| number % 3 > 0)
            .map(|(number, leaf)| match number % 3 {
                1 => Change::Put(leaf),
                _ => Change::Remove(leaf.key),
            })
            .collect();
        apply_to_oracle(&mut leaves, &changes);
        assert_eq!(tree.apply(&changes).leaves, 6_000);
        check_tree(&tree, &leaves);
    }
}

/// A key that parts from all leaves of a sealed page is not in the tree, and one of them is what
/// shows that.
#[test]
fn a_proof_of_absence_asks_for_the_page_that_it_needs() {
    let leaves = spread(0..500, 1);
    let whole = PagedTree::build(HashAlgorithm::Blake3, 8, leaves.clone()).unwrap();
    let sealed = PagedTree::from_rows(HashAlgorithm::Blake3, 8, whole.rows()).unwrap();
    for absent in spread(500..900, 1) {
        let mut tree = sealed.clone();
        let Err(Sealed(page)) = Proof::prove(&tree, &absent.key) else {
            panic!("no page is in memory");
        };
        let below = leaves.iter().filter(|leaf| page.contains(&leaf.key));
        tree.unseal(&page, below.copied().collect()).unwrap();
        let proof = Proof::prove(&tree, &absent.key).unwrap();
        assert_eq!(proof, Proof::prove(&whole, &absent.key).unwrap());
        let claim = Claim::absent(absent.key);
        proof.verify(HashAlgorithm::Blake3, &whole.tree_hash(), &claim).unwrap();
    }
}

/// Whatever the order: all at once, with early ones that ascend, or one by one, up and down again.
#[test]
fn one_by_one_or_all_at_once_it_is_one_tree() {
    let leaves = spread(0..3_000, 1);
    let mut ascending = leaves.clone();
    ascending.sort_by_key(|leaf| leaf.key);
    let whole = Tree::build(HashAlgorithm::Blake3, ascending.iter().copied());
    check_tree(&whole, &ascending.iter().map(|leaf| (leaf.key, *leaf)).collect());
    let late = ascending.iter().skip(1_000).chain(&ascending[..1_500]).copied();
    assert_eq!(Tree::build(HashAlgorithm::Blake3, late), whole);
    for page_leaves in [0, 3, 32, 64, 100] {
        let mut single = Tree::new(HashAlgorithm::Blake3);
        let mut paged = PagedTree::new(HashAlgorithm::Blake3, page_leaves);
        for leaf in &leaves {
            assert_eq!((single.put(*leaf), paged.put(*leaf).unwrap()), (None, None));
        }
        assert_eq!((&single, paged.tree_hash()), (&whole, whole.tree_hash()));
        assert_eq!((single.depth(), paged.depth()), (whole.depth(), whole.depth()));
        let rows: Vec<PageRow> = paged.rows().collect();
        assert_eq!(rows, oracle_rows(HashAlgorithm::Blake3, paged.page_leaves(), &ascending, 0));
        let mut stored: BTreeMap<Prefix, PageRow> = BTreeMap::new();
        for row in paged.take_page_changes().written {
            stored.insert(row.prefix, row);
        }
        for leaf in leaves.iter().rev().take(2_990) {
            assert_eq!(single.remove(&leaf.key), Some(*leaf));
            assert_eq!(paged.remove(&leaf.key).unwrap(), Some(*leaf));
        }
        let rest = Tree::build(HashAlgorithm::Blake3, leaves[..10].iter().copied());
        assert_eq!((&single, paged.tree_hash()), (&rest, rest.tree_hash()));
        assert_eq!((single.depth(), paged.depth()), (rest.depth(), rest.depth()));
        let changes = paged.take_page_changes();
        changes.removed.iter().for_each(|prefix| assert!(stored.remove(prefix).is_some()));
        stored.extend(changes.written.iter().map(|row| (row.prefix, *row)));
        assert!(paged.rows().eq(stored.into_values()));
    }
}

fn spread(numbers: std::ops::Range<u32>, version: u8) -> Vec<Leaf> {
    let key = |number: u32| KeyHash(HashAlgorithm::Blake3.value_hash(&number.to_le_bytes()).0);
    numbers.map(|number| leaf(key(number), version)).collect()
}

#[test]
fn a_leaf_costs_less_than_165_bytes_and_a_sealed_page_next_to_nothing() {
    let leaves = spread(0..20_000, 1);
    let tree = Tree::build(HashAlgorithm::Blake3, leaves.clone());
    assert!(tree.memory_bytes() < 165 * leaves.len());
    let mut paged = PagedTree::build(HashAlgorithm::Blake3, 64, leaves.clone()).unwrap();
    assert!(paged.memory_bytes() < 165 * leaves.len());
    let pages: Vec<Prefix> = paged.rows().map(|row| row.prefix).collect();
    for page in &pages {
        assert!(paged.seal(page));
    }
    assert_eq!(paged.tree_hash(), tree.tree_hash());
    let reopened = PagedTree::from_rows(HashAlgorithm::Blake3, 64, paged.rows()).unwrap();
    assert!(reopened.memory_bytes() < 10 * leaves.len());
}

/// Hashes are what a tree cannot do without; more of them than these are a fault.
#[test]
fn hashes_of_a_build_of_changes_alone_and_of_a_batch_are_as_few_as_they_can_be() {
    let mut tree = Tree::new(HashAlgorithm::Blake3);
    let put = |leaf: &Leaf| Change::Put(*leaf);
    let all: Vec<Change> = spread(0..50_000, 1).iter().map(put).collect();
    assert_eq!(tree.apply(&all).inner_hashes, 49_999, "one between each leaf and the next");
    assert_eq!(tree.apply(&all).inner_hashes, 0, "nothing changed");

    let batch: Vec<Change> = spread(10_000..12_000, 2).iter().map(put).collect();
    let alone: usize = {
        let mut tree = tree.snapshot();
        batch.iter().map(|change| tree.apply([*change]).inner_hashes).sum()
    };
    // log2 of 50,000 is 15.6, and leaves at random stand a third of a level deeper
    assert!((2_000 * 15..2_000 * 17).contains(&alone), "{alone}");
    let together = tree.snapshot().apply(&batch).inner_hashes;
    // some 2,000 at the top, and below them log2 of 25 levels for each
    assert!((2_000 * 5..2_000 * 7).contains(&together), "{together}");

    let new: Vec<Change> = spread(50_000..52_000, 2).iter().map(put).collect();
    let added = tree.apply(&new).inner_hashes;
    assert!((2_000 * 5..2_000 * 8).contains(&added), "{added}");
    let gone: Vec<Change> = new.iter().map(|change| Change::Remove(*change.key())).collect();
    let removed = tree.apply(&gone).inner_hashes;
    assert!((2_000 * 4..2_000 * 7).contains(&removed), "{removed}");
    assert_eq!(tree, Tree::build(HashAlgorithm::Blake3, spread(0..50_000, 1)));
}

/// Inner nodes above the picked leaves.
fn touched(leaves: &[Leaf], picked: &impl Fn(&Leaf) -> bool) -> usize {
    match split(leaves) {
        Some((_, left, right)) if leaves.iter().any(picked) => {
            1 + touched(left, picked) + touched(right, picked)
        }
        _ => 0,
    }
}

// ---- the paged tree

/// A store as the tree needs one: rows, and leaves by prefix.
struct Stored {
    rows: BTreeMap<Prefix, PageRow>,
    leaves: Leaves,
}

impl Stored {
    fn write(&mut self, tree: &mut PagedTree) {
        let changes = tree.take_page_changes();
        for prefix in changes.removed {
            assert!(self.rows.remove(&prefix).is_some(), "only what was stored is removed");
        }
        for row in changes.written {
            self.rows.insert(row.prefix, row);
        }
        assert_eq!(tree.take_page_changes(), Default::default());
    }

    fn open(&self, algorithm: HashAlgorithm, page_leaves: usize) -> PagedTree {
        PagedTree::from_rows(algorithm, page_leaves, self.rows.values().copied()).unwrap()
    }

    /// Does something for which pages are loaded as they are asked for.
    fn with_pages<T>(
        &self,
        tree: &mut PagedTree,
        mut act: impl FnMut(&mut PagedTree) -> Result<T, Sealed>,
    ) -> T {
        loop {
            let before = (tree.clone(), tree.sealed_pages());
            match act(tree) {
                Ok(done) => return done,
                Err(Sealed(page)) => {
                    assert_eq!((&before.0, before.1), (&*tree, tree.sealed_pages()));
                    let leaves = under(&self.leaves, &page);
                    // a page, or a part of one that grew when its neighbours went
                    assert!(tree.rows().any(|row| row.prefix.is_prefix_of(&page)));
                    tree.unseal(&page, leaves).unwrap();
                    assert_eq!(before.0, *tree);
                }
            }
        }
    }
}

fn check_paged(tree: &mut PagedTree, stored: &mut Stored) {
    let all: Vec<Leaf> = stored.leaves.values().copied().collect();
    let rows = oracle_rows(tree.algorithm(), tree.page_leaves(), &all, 0);
    assert_eq!(tree.tree_hash(), oracle_hash(tree.algorithm(), &all));
    assert_eq!(tree.totals(), oracle_totals(&all));
    assert_eq!(tree.depth(), oracle_depth(&all));
    assert_eq!((tree.len(), tree.is_empty()), (all.len(), all.is_empty()));
    assert!(tree.rows().eq(rows.iter().copied()));
}

fn read_paged(tree: &mut PagedTree, stored: &Stored, key: &KeyHash, prefix: &Prefix, fan: u8) {
    let leaves = &stored.leaves;
    let whole = Tree::build(tree.algorithm(), leaves.values().copied());
    assert_eq!(stored.with_pages(tree, |tree| tree.get(key)), leaves.get(key).copied());
    let hash = stored.with_pages(tree, |tree| tree.hash_under(prefix));
    assert_eq!(hash, whole.hash_under(prefix));
    let totals = stored.with_pages(tree, |tree| tree.totals_under(prefix));
    assert_eq!(totals, whole.totals_under(prefix));
    let depth = stored.with_pages(tree, |tree| tree.depth_under(prefix));
    assert_eq!(depth, whole.depth_under(prefix));
    let hashes = stored.with_pages(tree, |tree| tree.hashes_under(prefix, fan));
    assert_eq!(hashes, whole.hashes_under(prefix, fan));
    let below: Vec<Leaf> =
        stored.with_pages(tree, |tree| tree.leaves_under(prefix).collect::<Result<_, _>>());
    assert_eq!(below, under(leaves, prefix));
    let page = tree.rows().map(|row| row.prefix).find(|page| page.contains(key));
    assert_eq!(tree.page_of(key), page);
}

proptest! {
    #[test]
    fn a_paged_tree_is_the_oracles_and_so_are_its_rows(
        sha in any::<bool>(),
        page_leaves in prop_oneof![4 => 1..=8_usize, 1 => Just(64)],
        keys in keys(),
        steps in steps(),
    ) {
        let algorithm = HashAlgorithm::ALL[usize::from(sha)];
        let mut tree = PagedTree::new(algorithm, page_leaves);
        let mut stored = Stored { rows: BTreeMap::new(), leaves: Leaves::new() };
        let mut frozen = Vec::new();
        for (number, step) in steps.iter().enumerate() {
            let changes = changes(step, &keys, &stored.leaves);
            match step {
                Step::Put(..) | Step::Remove(_) | Step::Drain => {
                    for change in changes {
                        let old = stored.with_pages(&mut tree, |tree| match &change {
                            Change::Put(leaf) => tree.put(*leaf),
                            Change::Remove(key) => tree.remove(key),
                        });
                        prop_assert_eq!(old, stored.leaves.get(change.key()).copied());
                        apply_to_oracle(&mut stored.leaves, &[change]);
                        check_paged(&mut tree, &mut stored);
                    }
                }
                Step::Batch(_) | Step::Fill(_) => {
                    let needed = tree.sealed_for(changes.iter().map(Change::key));
                    for page in needed {
                        tree.unseal(&page, under(&stored.leaves, &page)).unwrap();
                    }
                    tree.apply(&changes).unwrap();
                    apply_to_oracle(&mut stored.leaves, &changes);
                }
                Step::Snapshot => frozen.push((
                    tree.snapshot(),
                    Stored { rows: BTreeMap::new(), leaves: stored.leaves.clone() },
                )),
                Step::Reopen => {
                    stored.write(&mut tree);
                    tree = stored.open(algorithm, page_leaves);
                    prop_assert_eq!(tree.sealed_pages(), stored.rows.len());
                }
                Step::Seal(index) => {
                    let rows: Vec<PageRow> = tree.rows().collect();
                    if !rows.is_empty() {
                        tree.seal(&index.get(&rows).prefix);
                        prop_assert!(!tree.seal(&index.get(&rows).prefix));
                    }
                }
                Step::Read(key, at, fan) => {
                    let key = *key.get(&keys);
                    read_paged(&mut tree, &stored, &key, &Prefix::of(&key, *at), *fan);
                }
            }
            check_paged(&mut tree, &mut stored);
            if number % 3 == 0 {
                stored.write(&mut tree);
                let all: Vec<Leaf> = stored.leaves.values().copied().collect();
                let rows = oracle_rows(algorithm, page_leaves, &all, 0);
                prop_assert!(stored.rows.values().eq(&rows));
            }
        }
        for (mut tree, mut stored) in frozen {
            check_paged(&mut tree, &mut stored);
            let key = keys[0];
            read_paged(&mut tree, &stored, &key, &Prefix::of(&key, 3), 4);
        }
    }

    #[test]
    fn rows_that_are_not_all_rows_of_a_tree_are_refused(
        keys in keys(),
        page_leaves in 1..=8_usize,
        dropped in any::<prop::sample::Index>(),
        other in 1..=8_usize,
    ) {
        let leaves = keys.iter().map(|key| leaf(*key, 1));
        let tree = PagedTree::build(HashAlgorithm::Blake3, page_leaves, leaves).unwrap();
        let rows: Vec<PageRow> = tree.rows().collect();
        let open = |rows: &[PageRow], page_leaves| {
            PagedTree::from_rows(HashAlgorithm::Blake3, page_leaves, rows.iter().copied())
        };
        prop_assert_eq!(open(&rows, page_leaves).unwrap(), tree.clone());

        let mut short = rows.clone();
        let dropped = short.remove(dropped.index(rows.len()));
        if let Ok(opened) = open(&short, page_leaves) {
            // the rest may be a tree, but it is another
            prop_assert_ne!(opened.tree_hash(), tree.tree_hash());
        }
        let mut twice = rows.clone();
        twice.push(dropped);
        prop_assert!(open(&twice, page_leaves).is_err());
        let mut within = rows.clone();
        let at = within.iter().position(|row| row.prefix == dropped.prefix).unwrap();
        if let Some(prefix) = dropped.prefix.child(true) {
            within.insert(at + 1, PageRow { prefix, ..dropped });
            prop_assert!(open(&within, page_leaves).is_err());
        }
        if let Ok(opened) = open(&rows, other) {
            prop_assert!(opened.rows().eq(rows.iter().copied()));
        }
        let mut reversed = rows.clone();
        reversed.reverse();
        prop_assert!(rows.len() < 2 || open(&reversed, page_leaves).is_err());
    }

    #[test]
    fn leaves_that_are_not_the_pages_are_refused_and_change_nothing(
        keys in keys(),
        page_leaves in 1..=8_usize,
        page in any::<prop::sample::Index>(),
        index in any::<prop::sample::Index>(),
    ) {
        let leaves: Leaves = keys.iter().map(|key| (*key, leaf(*key, 1))).collect();
        let all = leaves.values().copied();
        let written = PagedTree::build(HashAlgorithm::Blake3, page_leaves, all).unwrap();
        let rows: Vec<PageRow> = written.rows().collect();
        let mut tree =
            PagedTree::from_rows(HashAlgorithm::Blake3, page_leaves, written.rows()).unwrap();
        let page = page.get(&rows).prefix;
        let right = under(&leaves, &page);
        let mut wrong = vec![Vec::new(), right[1..].to_vec()];
        let at = index.index(right.len());
        for change in [
            |leaf: &mut Leaf| leaf.record.0[0] ^= 1,
            |leaf: &mut Leaf| leaf.key.0[31] ^= 1,
            |leaf: &mut Leaf| leaf.totals.bytes += 1,
            |leaf: &mut Leaf| leaf.totals.latest.0 += 1,
        ] {
            let mut leaves = right.clone();
            change(&mut leaves[at]);
            wrong.push(leaves);
        }
        wrong.push([&right[..], &right[at..=at]].concat());
        for wrong in wrong {
            prop_assert!(tree.unseal(&page, wrong).is_err());
            prop_assert_eq!(tree.sealed_pages(), rows.len());
            prop_assert!(tree.rows().eq(rows.iter().copied()));
        }
        tree.unseal(&page, right.clone()).unwrap();
        prop_assert_eq!(
            tree.unseal(&page, right),
            Err(PageMismatch::NotSealed(page))
        );
    }
}

#[test]
fn a_page_size_out_of_range_is_refused() {
    for page_leaves in [0, 4_097, usize::MAX] {
        let open = PagedTree::from_rows(HashAlgorithm::Blake3, page_leaves, []);
        assert_eq!(open.err(), Some(RowsError::PageLeaves(page_leaves)));
    }
}

/// A snapshot, and a store that has not taken the change yet, still have what went: under a
/// shorter name they would show more leaves than the page has.
#[test]
fn a_page_whose_neighbour_went_is_still_asked_for_by_its_own_name() {
    let algorithm = HashAlgorithm::Blake3;
    let leaves: Vec<Leaf> = [0x00, 0x80, 0xff].map(|byte| leaf(KeyHash([byte; 32]), 1)).into();
    let rows: Vec<PageRow> =
        PagedTree::build(algorithm, 1, leaves.clone()).unwrap().rows().collect();
    for (gone, left) in [(0, 1), (1, 2), (2, 1), (2, 0)] {
        let mut tree = PagedTree::from_rows(algorithm, 1, rows.clone()).unwrap();
        let Err(Sealed(page)) = tree.get(&leaves[gone].key) else { panic!("nothing is loaded") };
        tree.unseal(&page, vec![leaves[gone]]).unwrap();
        tree.remove(&leaves[gone].key).unwrap();
        let Err(Sealed(page)) = tree.get(&leaves[left].key) else { panic!("it is not loaded") };
        let stored: Vec<Leaf> =
            leaves.iter().filter(|leaf| page.contains(&leaf.key)).copied().collect();
        assert_eq!(stored, [leaves[left]], "{page}");
        tree.unseal(&page, stored).unwrap();
        assert_eq!(tree.get(&leaves[left].key), Ok(Some(leaves[left])));
        let rest: Vec<Leaf> =
            leaves.iter().filter(|leaf| leaf.key != leaves[gone].key).copied().collect();
        let built = PagedTree::build(algorithm, 1, rest).unwrap();
        assert!(tree.rows().eq(built.rows()));
    }
}
