//! Sketches: what adding an entry costs for each capacity, and what decoding does; of an IBLT, what
//! a stream costs an id, and reading it a difference; and how many symbols it takes.
//!
//! `cargo bench --no-default-features --features session --bench sketch`. Figures are for each
//! entry.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use selfsame::hash::{KeyHash, RecordDigest};
use selfsame::limits::Limits;
use selfsame::sketch::iblt::{self, Encoder, IbltKey, symbols_for};
use selfsame::sketch::{BucketSketch, Decoder, Depth, IdWidth, Layout, Shape, ShortId, Sketches};

type Item = (KeyHash, RecordDigest);

/// Entries as hashes give them, in the order of their keys.
fn items(count: u64, seed: u64) -> Vec<Item> {
    let hash = |number: u64| {
        let mut bytes = [[0; 32]; 2];
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(&number.to_le_bytes());
        hasher.finalize_xof().fill(bytes.as_flattened_mut());
        (KeyHash(bytes[0]), RecordDigest(bytes[1]))
    };
    let mut items: Vec<Item> = (0..count).map(hash).collect();
    items.sort_unstable();
    items
}

fn ids(count: u64, seed: u64) -> Vec<ShortId> {
    items(count, seed).iter().map(|(key, record)| ShortId::of(key, record)).collect()
}

fn layout(width: IdWidth, log2: u8, capacity: u8) -> Layout {
    Layout::new(width, log2, capacity).expect("a layout that there is")
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("sketch/encode");
    group.sample_size(20);
    let ten_thousand = items(10_000, 1);
    group.throughput(Throughput::Elements(ten_thousand.len() as u64));
    for (width, log2, capacity) in [
        (IdWidth::Narrow, 0, 36),
        (IdWidth::Wide, 0, 2),
        (IdWidth::Wide, 0, 36),
        (IdWidth::Wide, 8, 36),
        (IdWidth::Wide, 0, 64),
    ] {
        let portion = layout(width, log2, capacity).all();
        let name = format!("{width:?}, 2^{log2} buckets of {capacity}");
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| {
                BucketSketch::of_items(portion.clone(), black_box(&ten_thousand).iter().copied())
            });
        });
    }
    group.finish();
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("sketch/decode");
    group.sample_size(20);
    for (log2, capacity, held) in
        [(0, 2, 1), (0, 18, 10), (0, 36, 30), (0, 64, 55), (2, 30, 100), (5, 36, 1_000)]
    {
        group.throughput(Throughput::Elements(held));
        let layout = layout(IdWidth::Wide, log2, capacity);
        let theirs = BucketSketch::of_items(layout.all(), items(held, 2));
        let ours = BucketSketch::of_items(layout.all(), []);
        let name = format!("{held} of 2^{log2} buckets of {capacity}");
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| Decoder::new(black_box(&ours).clone(), &theirs));
        });
    }
    // more than it can name
    group.throughput(Throughput::Elements(1));
    let layout = layout(IdWidth::Wide, 0, 36);
    let theirs = BucketSketch::of_items(layout.all(), items(50, 3));
    let ours = BucketSketch::of_items(layout.all(), []);
    group.bench_function("refuse 50 of 36", |b| {
        b.iter(|| Decoder::new(black_box(&ours).clone(), &theirs));
    });
    group.finish();
}

/// What keeping sketches costs a put, and reading them a session.
fn kept(c: &mut Criterion) {
    let mut group = c.benchmark_group("sketch/kept");
    group.sample_size(20);
    let items = items(10_000, 1);
    for (depth, symbols) in [(Depth::Coarse, 0), (Depth::Fine, 0), (Depth::Fine, 4_096)] {
        group.throughput(Throughput::Elements(items.len() as u64));
        let mut sketches = Sketches::new(Shape::new(depth, symbols));
        let put = |sketches: &mut Sketches| {
            items.iter().for_each(|(key, record)| sketches.add(black_box(key), record));
        };
        let name = format!("{depth:?}, {symbols} symbols");
        group.bench_function(BenchmarkId::new("add", name), |b| {
            b.iter(|| put(&mut sketches));
        });
    }
    let (key, record) = items[0];
    let mut sketches = Sketches::new(Depth::Fine.into());
    group.throughput(Throughput::Elements(1));
    group.bench_function("a copy, and the first add after it", |b| {
        b.iter(|| {
            let frozen = sketches.clone();
            sketches.add(&key, &record);
            frozen
        });
    });
    for (log2, capacity) in [(0, 2), (0, 18), (2, 30), (5, 36), (9, 24), (12, 29)] {
        let portion = layout(IdWidth::Wide, log2, capacity).all();
        let name = format!("2^{log2} buckets of {capacity}");
        group.bench_function(BenchmarkId::new("read", name), |b| {
            b.iter(|| sketches.read(black_box(&portion)));
        });
    }
    group.finish();
}

/// How many symbols name so many differences: mean, and enough in 19 of 20 cases.
fn symbols_needed(differing: u64) -> (f64, usize) {
    let seeds = (200_000 / differing).clamp(3, 400);
    let limits = Limits::default();
    let needed = |seed: u64| {
        let mut secret = [0; 32];
        secret[..8].copy_from_slice(&seed.to_le_bytes());
        let key = IbltKey::derive(&secret);
        let ids = ids(differing, seed);
        let (ours, theirs) = ids.split_at(differing as usize / 2);
        let of = |ids: &[ShortId]| Encoder::new(&key, ids.iter().copied(), &limits);
        let mut theirs = of(theirs);
        let mut decoder = iblt::Decoder::new(of(ours), &limits);
        let mut batch = || theirs.next_symbols(1 + theirs.symbols() / 1_000);
        while decoder.push(&batch()) == Ok(false) {}
        decoder.symbols()
    };
    let mut needed: Vec<usize> = (0..seeds).map(needed).collect();
    needed.sort_unstable();
    let mean = needed.iter().sum::<usize>() as f64 / seeds as f64;
    (mean, needed[(needed.len() - 1) * 19 / 20])
}

fn coded_symbols(c: &mut Criterion) {
    for differing in [1, 2, 5, 10, 100, 1_000, 10_000, 100_000] {
        let (mean, enough) = symbols_needed(differing);
        let each = mean / differing as f64;
        println!("iblt: {differing} differ: {each:.2} symbols each, {enough} are mostly enough");
    }
    let mut group = c.benchmark_group("iblt");
    group.sample_size(10);
    let limits = Limits::default();
    let key = IbltKey::derive(&[4; 32]);
    for (held, symbols) in [(100_000, 0), (100_000, 150), (100_000, 1_500), (1_000_000, 1_500)] {
        let ids = ids(held, 1);
        group.throughput(Throughput::Elements(held));
        let name = format!("{symbols} symbols of {held} ids");
        group.bench_function(BenchmarkId::new("encode", name), |b| {
            b.iter(|| Encoder::new(&key, ids.iter().copied(), &limits).next_symbols(symbols));
        });
    }
    for differing in [10, 100, 1_000, 10_000, 100_000] {
        let (ours, theirs) = (ids(differing / 2, 2), ids(differing / 2, 3));
        let of = |ids: &[ShortId]| Encoder::new(&key, ids.iter().copied(), &limits);
        let symbols = of(&theirs).next_symbols(symbols_for(differing));
        group.throughput(Throughput::Elements(differing));
        group.bench_function(BenchmarkId::new("decode", differing), |b| {
            let fresh = || iblt::Decoder::new(of(&ours), &limits);
            b.iter_batched(fresh, |mut decoder| decoder.push(&symbols), BatchSize::LargeInput);
        });
    }
    group.finish();
}

criterion_group!(benches, encode, decode, kept, coded_symbols);
criterion_main!(benches);
