//! Sketches: what adding an id costs for each capacity, and what decoding does.
//!
//! `cargo bench --no-default-features --features session --bench sketch`. Figures of encoding are
//! per id.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
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

criterion_group!(benches, pinsketch);
criterion_main!(benches);
