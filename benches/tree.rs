//! The tree in memory: what a leaf costs to build, put, remove, apply in a batch, prove and get; a put
//! after a snapshot, which includes letting the snapshot go.
//!
//! `cargo bench --no-default-features --features tree --bench tree`; the number of leaves is
//! 100,000 unless `SELFSAME_BENCH_LEAVES` says otherwise. Figures are per leaf. Memory per leaf
//! and what a batch saves in hashes are printed first: both are the same on every machine. So is
//! what no tree can do without here: a BLAKE3 compression, alone and in lanes, and memory that the
//! process is given, each the least of many runs.

use blake3::IncrementCounter;
use blake3::platform::Platform;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use selfsame::clock::Stamp;
use selfsame::entry::Totals;
use selfsame::hash::{HashAlgorithm, KeyHash, RecordDigest};
use selfsame::merkle::{Change, Claim, DEFAULT_PAGE_LEAVES, Leaf, PagedTree, Proof, Tree};
use std::hint::black_box;
use std::time::Instant;

const BATCH: u64 = 10_000;
const SINGLES: u64 = 1_000;

fn leaf(number: u64, version: u64) -> Leaf {
    let hash = |number: u64| HashAlgorithm::Blake3.value_hash(&number.to_le_bytes()).0;
    Leaf {
        key: KeyHash(hash(number)),
        record: RecordDigest(hash(u64::MAX - version)),
        totals: Totals { entries: 1, siblings: 1, bytes: 100, latest: Stamp(version) },
    }
}

fn leaves() -> Vec<Leaf> {
    let count = std::env::var("SELFSAME_BENCH_LEAVES").ok().and_then(|text| text.parse().ok());
    let mut leaves: Vec<Leaf> = (0..count.unwrap_or(100_000)).map(|n| leaf(n, 1)).collect();
    leaves.sort_unstable();
    leaves
}

/// Leaves spread over the whole tree, all of them there already.
fn picked(leaves: &[Leaf], count: u64, version: u64) -> Vec<Leaf> {
    let len = leaves.len() as u64;
    (0..count).map(|number| leaf((number * 7_919 + version * 31) % len, version)).collect()
}

/// Nanoseconds for each of so many, the least of many runs.
fn least(runs: usize, count: usize, mut work: impl FnMut()) -> f64 {
    let times = (0..runs).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed().as_nanos() as f64 / count as f64
    });
    times.fold(f64::MAX, f64::min)
}

/// What the machine takes for what every tree of these leaves needs.
fn floors() {
    let platform = Platform::detect();
    let blocks: Vec<[u8; 64]> = (0..4_096_u64)
        .map(|number| [HashAlgorithm::Blake3.value_hash(&number.to_le_bytes()).0; 2])
        .map(|halves| std::array::from_fn(|at| halves.as_flattened()[at]))
        .collect();
    let hash = |blocks: &[&[u8; 64]]| {
        let mut hashes = [0; 16 * 32];
        let hashes = &mut hashes[..32 * blocks.len()];
        // the flags of a keyed hash of one block
        platform.hash_many(blocks, &[7; 8], 0, IncrementCounter::No, 1 << 4, 1, 2 | 8, hashes);
        black_box(hashes);
    };
    let lanes = |lanes: usize| {
        least(50, blocks.len(), || {
            for blocks in blocks.chunks(lanes) {
                hash(&blocks.iter().collect::<Vec<_>>());
            }
        })
    };
    let (alone, together) = (lanes(1), lanes(16));
    println!("a node's hash: {alone:.0} ns alone, {together:.1} ns among sixteen ({platform:?})");
    let fresh = least(5, 1 << 20, || {
        let chunks: Vec<Box<[u64]>> = (0..20_480).map(|at| vec![at; 1_024].into()).collect();
        black_box(&chunks);
    });
    println!("160 fresh bytes: {fresh:.0} ns");
}

fn tree(c: &mut Criterion) {
    floors();
    let leaves = leaves();
    let built = Tree::build(HashAlgorithm::Blake3, leaves.clone());
    let batch: Vec<Change> = picked(&leaves, BATCH, 2).into_iter().map(Change::Put).collect();
    let singles = picked(&leaves, SINGLES, 3);
    let one_by_one: usize = {
        let mut tree = built.snapshot();
        batch.iter().map(|change| tree.apply([*change]).inner_hashes).sum()
    };
    println!("{} leaves, depth {}", built.len(), built.depth());
    println!("{} B a leaf", built.memory_bytes() / built.len().max(1));
    let at_once = built.snapshot().apply(&batch).inner_hashes;
    println!("inner hashes of {BATCH} puts: {one_by_one} one by one, {at_once} in a batch");

    let mut group = c.benchmark_group("tree");
    group.sample_size(20);
    group.throughput(Throughput::Elements(leaves.len() as u64));
    group.bench_function("build", |b| {
        // dropped outside the time
        b.iter_with_large_drop(|| Tree::build(HashAlgorithm::Blake3, leaves.iter().copied()));
    });
    group.throughput(Throughput::Elements(SINGLES));
    group.bench_function("put", |b| {
        let mut tree = Tree::build(HashAlgorithm::Blake3, leaves.clone());
        let mut version = 10;
        b.iter(|| {
            version = u8::wrapping_add(version, 1);
            for leaf in &singles {
                tree.put(Leaf { record: RecordDigest([version; 32]), ..*leaf });
            }
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("put after a snapshot", |b| {
        let mut tree = Tree::build(HashAlgorithm::Blake3, leaves.clone());
        let mut version = 10;
        let mut next = singles.iter().cycle();
        b.iter(|| {
            version = u8::wrapping_add(version, 1);
            let frozen = tree.snapshot();
            let put = next.next().map(|leaf| Leaf { record: RecordDigest([version; 32]), ..*leaf });
            put.map(|leaf| tree.put(leaf));
            frozen
        });
    });
    group.throughput(Throughput::Elements(SINGLES));
    group.bench_function("put, paged", |b| {
        let rows = PagedTree::build(HashAlgorithm::Blake3, DEFAULT_PAGE_LEAVES, leaves.clone());
        let mut tree = rows.expect("the page size is allowed");
        let mut version = 10;
        b.iter(|| {
            version = u8::wrapping_add(version, 1);
            for leaf in &singles {
                let put = tree.put(Leaf { record: RecordDigest([version; 32]), ..*leaf });
                black_box(put.expect("all pages are in memory"));
            }
            tree.take_page_changes()
        });
    });
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("batch", |b| {
        let mut tree = Tree::build(HashAlgorithm::Blake3, leaves.clone());
        let mut version = 10;
        let next = || {
            version = u8::wrapping_add(version, 1);
            let put = |leaf| Change::Put(Leaf { record: RecordDigest([version; 32]), ..leaf });
            picked(&leaves, BATCH, 4).into_iter().map(put).collect::<Vec<_>>()
        };
        b.iter_batched(next, |changes| tree.apply(changes), BatchSize::LargeInput);
    });
    group.throughput(Throughput::Elements(SINGLES));
    group.bench_function("insert and remove", |b| {
        let mut tree = Tree::build(HashAlgorithm::Blake3, leaves.clone());
        let new: Vec<Leaf> =
            (0..SINGLES / 2).map(|number| leaf(u64::MAX / 2 + number, 0)).collect();
        b.iter(|| {
            for leaf in &new {
                tree.put(*leaf);
            }
            new.iter().filter(|leaf| tree.remove(&leaf.key).is_some()).count()
        });
    });
    let tree_hash = built.tree_hash();
    group.bench_function("prove", |b| {
        b.iter(|| singles.iter().filter_map(|leaf| Proof::prove(&built, &leaf.key).ok()).count());
    });
    group.bench_function("verify", |b| {
        let claim = |leaf: &Leaf| {
            let leaf = built.get(&leaf.key)?;
            let proof = Proof::prove(&built, &leaf.key).ok()?;
            Some((proof, Claim::present(leaf.key, leaf.record)))
        };
        let proofs: Vec<(Proof, Claim)> = singles.iter().filter_map(claim).collect();
        let holds = |(proof, claim): &&(Proof, Claim)| {
            proof.verify(HashAlgorithm::Blake3, &tree_hash, claim).is_ok()
        };
        b.iter(|| proofs.iter().filter(holds).count());
    });
    group.bench_function("get", |b| {
        b.iter(|| singles.iter().filter(|leaf| built.get(&leaf.key).is_some()).count());
    });
    group.finish();
}

criterion_group!(benches, tree);
criterion_main!(benches);
