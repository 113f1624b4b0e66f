//! Sketches: what adding an id costs for each capacity, and what decoding does; of an IBLT, what a
//! stream costs an id, and reading it a difference; and how many symbols it takes.
//!
//! `cargo bench --no-default-features --features session --bench sketch`. Figures of encoding are
//! per id.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use selfsame::limits::Limits;
use selfsame::sketch::iblt::{Decoder, Encoder, IbltKey, symbols_for};
use selfsame::sketch::{PinSketch, ShortId};

/// Ids as hashes give them.
fn ids(count: u64, seed: u64) -> Vec<ShortId> {
    let hash = |number: u64| {
        let mut bytes = [0; 8];
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(&number.to_le_bytes());
        hasher.finalize_xof().fill(&mut bytes);
        ShortId::truncated(u64::from_le_bytes(bytes))
    };
    (0..count).map(hash).collect()
}

fn pinsketch(c: &mut Criterion) {
    let mut group = c.benchmark_group("pinsketch");
    group.sample_size(30);
    for (capacity, count) in [(32, 1), (64, 1), (32, 1_000), (64, 1_000)] {
        group.throughput(Throughput::Elements(count));
        let name = format!("{capacity} syndromes, {count} at once");
        let (mut sketch, ids) = (PinSketch::new(capacity), ids(count, 1));
        group.bench_function(BenchmarkId::new("encode", name), |b| {
            b.iter(|| sketch.toggle_all(black_box(&ids)));
        });
    }
    for (capacity, held) in [(8, 5), (36, 30), (64, 55), (128, 110)] {
        group.throughput(Throughput::Elements(held));
        let mut sketch = PinSketch::new(capacity);
        sketch.toggle_all(&ids(held, 2));
        group.bench_function(BenchmarkId::new("decode", format!("{held} of {capacity}")), |b| {
            b.iter(|| black_box(&sketch).decode());
        });
    }
    // more than it can name
    let mut sketch = PinSketch::new(36);
    sketch.toggle_all(&ids(50, 3));
    group.throughput(Throughput::Elements(1));
    group.bench_function("refuse 50 of 36", |b| b.iter(|| black_box(&sketch).decode()));
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
        let mut decoder = Decoder::new(of(ours), &limits);
        let mut batch = || theirs.next_symbols(1 + theirs.symbols() / 1_000);
        while decoder.push(&batch()) == Ok(false) {}
        decoder.symbols()
    };
    let mut needed: Vec<usize> = (0..seeds).map(needed).collect();
    needed.sort_unstable();
    let mean = needed.iter().sum::<usize>() as f64 / seeds as f64;
    (mean, needed[(needed.len() - 1) * 19 / 20])
}

fn iblt(c: &mut Criterion) {
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
            let fresh = || Decoder::new(of(&ours), &limits);
            b.iter_batched(fresh, |mut decoder| decoder.push(&symbols), BatchSize::LargeInput);
        });
    }
    group.finish();
}

criterion_group!(benches, pinsketch, iblt);
criterion_main!(benches);
