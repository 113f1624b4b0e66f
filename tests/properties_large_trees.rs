//! Trees of thousands of leaves, changed by batches of thousands, against the tree hash of the
//! same leaves as they stream by.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use selfsame::clock::Stamp;
use selfsame::entry::Totals;
use selfsame::hash::{HashAlgorithm, KeyHash, RecordDigest};
use selfsame::merkle::{Change, Leaf, PagedTree, Prefix, Sealed, StreamedTree, Tree};

const ALGORITHM: HashAlgorithm = HashAlgorithm::Blake3;
/// Keys that there are: more than what is applied or hashed together.
const KEYS: u32 = 4_000;

type Leaves = BTreeMap<KeyHash, Leaf>;

/// What keys have in common.
#[derive(Clone, Copy, Debug)]
enum Keys {
    Anywhere,
    /// The first byte.
    OneBucket,
    /// The first 240 bits.
    AllButTwoBytes,
    /// All but the last four bits, sixteen keys each.
    AllButANibble,
}

fn key(keys: Keys, number: u32) -> KeyHash {
    let anywhere = |number: u32| ALGORITHM.value_hash(&number.to_le_bytes()).0;
    let mut key = anywhere(number);
    match keys {
        Keys::Anywhere => {}
        Keys::OneBucket => key[0] = 0x5a,
        Keys::AllButTwoBytes => {
            key = anywhere(0);
            // of 16 bits every number once, in no order
            let end = (number as u16).wrapping_mul(40_503);
            key[30..].copy_from_slice(&end.to_be_bytes());
        }
        Keys::AllButANibble => {
            key = anywhere(number / 16);
            key[31] = key[31] & 0xf0 | (number % 16) as u8;
        }
    }
    KeyHash(key)
}

fn leaf(key: KeyHash, version: u8) -> Leaf {
    let number = u64::from(version);
    // some that do not fit into the few bits that most need
    let siblings = if version.is_multiple_of(5) { 70_000 } else { 1 + number % 3 };
    let totals = Totals { entries: 1, siblings, bytes: 10 * number, latest: Stamp(number % 7) };
    Leaf { key, record: RecordDigest([version; 32]), totals }
}

/// Changes of keys from one on, each so many further than the one before: some come twice, some
/// of those that go were never there.
#[derive(Clone, Debug)]
struct Batch {
    first: u32,
    step: u32,
    count: usize,
    version: u8,
    // of sixteen so many are removed
    removed: u8,
}

impl Batch {
    fn changes(&self, keys: Keys) -> Vec<Change> {
        let numbers = (0..self.count as u32).map(|at| (self.first + at * self.step) % KEYS);
        let change = |(at, number): (usize, u32)| {
            let key = key(keys, number);
            // which ones: by a number that has nothing to do with where they stand
            let chance = number.wrapping_add(at as u32 / KEYS).wrapping_mul(0x9e37_79b1) >> 28;
            if chance < u32::from(self.removed) {
                Change::Remove(key)
            } else {
                Change::Put(leaf(key, self.version))
            }
        };
        numbers.enumerate().map(change).collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    AtOnce(Batch),
    OneByOne(Batch),
    Snapshot,
    /// A third of the pages, told by the bytes of their prefixes.
    Seal(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let batch = |most: usize| {
        let removed = prop_oneof![Just(0), Just(16), 1..16_u8];
        (0..KEYS, 1..40_u32, 1..most, any::<u8>(), removed).prop_map(
            |(first, step, count, version, removed)| Batch { first, step, count, version, removed },
        )
    };
    let step = prop_oneof![
        4 => batch(2 * KEYS as usize).prop_map(Step::AtOnce),
        2 => batch(200).prop_map(Step::OneByOne),
        2 => Just(Step::Snapshot),
        2 => (0..3_u8).prop_map(Step::Seal),
    ];
    (batch(2 * KEYS as usize), vec(step, 1..8))
        .prop_map(|(first, rest)| [vec![Step::AtOnce(first)], rest].concat())
}

fn check(tree: &Tree, paged: &PagedTree, leaves: &Leaves) {
    let mut streamed = StreamedTree::new(ALGORITHM);
    assert!(leaves.values().all(|leaf| streamed.push(leaf)));
    assert_eq!(tree.tree_hash(), streamed.tree_hash());
    assert_eq!(tree.totals(), streamed.totals());
    assert!(tree.leaves().eq(leaves.values().copied()));
    assert_eq!((paged.tree_hash(), paged.totals()), (tree.tree_hash(), tree.totals()));
    let built = PagedTree::build(ALGORITHM, paged.page_leaves(), tree.leaves()).unwrap();
    assert_eq!((tree.depth(), paged.depth()), (built.depth(), built.depth()));
    assert!(paged.rows().eq(built.rows()));
}

/// Does something for which pages are loaded as they are asked for.
fn with_pages<T>(
    tree: &mut PagedTree,
    leaves: &Leaves,
    mut act: impl FnMut(&mut PagedTree) -> Result<T, Sealed>,
) -> T {
    loop {
        match act(tree) {
            Ok(done) => return done,
            Err(Sealed(page)) => {
                let below = leaves.range(page.first_key()..=page.last_key());
                tree.unseal(&page, below.map(|(_, leaf)| *leaf).collect()).unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn large_batches_make_the_tree_that_streams_by(
        keys in prop_oneof![
            Just(Keys::Anywhere),
            Just(Keys::OneBucket),
            Just(Keys::AllButTwoBytes),
            Just(Keys::AllButANibble),
        ],
        page_leaves in prop::sample::select(vec![1_usize, 3, 31, 32, 33, 64, 200]),
        steps in steps(),
    ) {
        let mut tree = Tree::new(ALGORITHM);
        let mut paged = PagedTree::new(ALGORITHM, page_leaves);
        let mut leaves = Leaves::new();
        let mut frozen = Vec::new();
        for step in steps {
            match step {
                Step::AtOnce(batch) => {
                    let changes = batch.changes(keys);
                    for page in paged.sealed_for(changes.iter().map(Change::key)) {
                        let below = leaves.range(page.first_key()..=page.last_key());
                        paged.unseal(&page, below.map(|(_, leaf)| *leaf).collect()).unwrap();
                    }
                    paged.apply(&changes).unwrap();
                    tree.apply(&changes);
                    for change in &changes {
                        match change {
                            Change::Put(leaf) => leaves.insert(leaf.key, *leaf),
                            Change::Remove(key) => leaves.remove(key),
                        };
                    }
                }
                Step::OneByOne(batch) => {
                    for change in batch.changes(keys) {
                        let old = with_pages(&mut paged, &leaves, |paged| match &change {
                            Change::Put(leaf) => paged.put(*leaf),
                            Change::Remove(key) => paged.remove(key),
                        });
                        let (same, before) = match &change {
                            Change::Put(leaf) => (tree.put(*leaf), leaves.insert(leaf.key, *leaf)),
                            Change::Remove(key) => (tree.remove(key), leaves.remove(key)),
                        };
                        prop_assert_eq!((old, same), (before, before));
                    }
                }
                Step::Snapshot => {
                    frozen.push((tree.snapshot(), paged.snapshot(), leaves.clone()));
                }
                Step::Seal(third_sealed) => {
                    let pages: Vec<Prefix> = paged.rows().map(|row| row.prefix).collect();
                    let third = |page: &Prefix| page.as_bytes().iter().fold(0, |a, b| a ^ b) % 3;
                    for page in pages.iter().filter(|page| third(page) == third_sealed) {
                        paged.seal(page);
                    }
                }
            }
            check(&tree, &paged, &leaves);
        }
        for (tree, paged, leaves) in frozen {
            check(&tree, &paged, &leaves);
        }
    }
}

fn spread(count: u32) -> Vec<Leaf> {
    (0..count).map(|number| leaf(key(Keys::Anywhere, number), (number % 11) as u8)).collect()
}

/// What a tree of these leaves may take that had many more: some vacant slots, and chunks that are
/// not full.
fn most_bytes(leaves: &[Leaf]) -> usize {
    4 * Tree::build(ALGORITHM, leaves.iter().copied()).memory_bytes() + (512 << 10)
}

#[test]
fn a_tree_that_lost_most_of_its_leaves_gives_their_memory_back() {
    let leaves = spread(40_000);
    let (gone, left) = leaves.split_at(39_500);
    let gone: Vec<Change> = gone.iter().map(|leaf| Change::Remove(leaf.key)).collect();
    let full = Tree::build(ALGORITHM, leaves.iter().copied());
    assert!(full.memory_bytes() > 5 * most_bytes(left));
    let rest = Tree::build(ALGORITHM, left.iter().copied());
    for at_once in [1, 100, gone.len()] {
        let mut tree = Tree::build(ALGORITHM, leaves.iter().copied());
        gone.chunks(at_once).for_each(|gone| assert_eq!(tree.apply(gone).leaves, gone.len()));
        assert_eq!(tree, rest);
        assert!(tree.leaves().eq(rest.leaves()));
        assert!(tree.memory_bytes() < most_bytes(left), "{at_once}: {}", tree.memory_bytes());
        // and it is a tree like any other
        leaves.iter().for_each(|leaf| assert_eq!(tree.put(*leaf).is_some(), left.contains(leaf)));
        assert_eq!(tree, full);
        assert!(tree.leaves().eq(full.leaves()));
    }
}

#[test]
fn memory_that_a_snapshot_has_too_is_given_back_when_it_went() {
    let leaves = spread(40_000);
    let (gone, left) = leaves.split_at(39_500);
    let gone: Vec<Change> = gone.iter().map(|leaf| Change::Remove(leaf.key)).collect();
    let mut tree = Tree::build(ALGORITHM, leaves.iter().copied());
    let frozen = tree.snapshot();
    tree.apply(&gone);
    assert_eq!(frozen, Tree::build(ALGORITHM, leaves.iter().copied()));
    assert_eq!(frozen.leaves().count(), leaves.len());
    drop(frozen);
    tree.remove(&left[0].key);
    assert_eq!(tree, Tree::build(ALGORITHM, left[1..].iter().copied()));
    assert!(tree.memory_bytes() < most_bytes(left), "{}", tree.memory_bytes());
}

#[test]
fn sealed_pages_give_their_memory_back() {
    let leaves = spread(40_000);
    let mut tree = PagedTree::build(ALGORITHM, 64, leaves.iter().copied()).unwrap();
    let loaded = tree.memory_bytes();
    let rows: Vec<_> = tree.rows().collect();
    for (number, row) in rows.iter().enumerate() {
        // some stay
        if !number.is_multiple_of(100) {
            assert!(tree.seal(&row.prefix));
        }
    }
    assert!(tree.memory_bytes() < loaded / 8, "{} of {loaded}", tree.memory_bytes());
    assert!(tree.rows().eq(rows.iter().copied()));
    for (number, row) in rows.iter().enumerate() {
        let below = leaves.iter().filter(|leaf| row.prefix.contains(&leaf.key));
        let mut below: Vec<Leaf> = below.copied().collect();
        below.sort();
        if number.is_multiple_of(100) {
            let held: Vec<Leaf> = tree.leaves_under(&row.prefix).map(Result::unwrap).collect();
            assert_eq!(held, below);
        } else if number < 30 {
            tree.unseal(&row.prefix, below).unwrap();
        }
    }
    assert!(tree.rows().eq(rows));
}
