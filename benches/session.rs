//! Whole sessions between two cores in memory: bytes and messages (printed once, deterministic)
//! and the time of both sides together. `SELFSAME_BENCH_ENTRIES` sets the size of the collection.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Node, Run, key, run};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use selfsame::session::{Outcome, Strategy, SyncConfig};

/// Two nodes that hold the same `entries` states of about 100 bytes and have met.
fn twins(entries: u32) -> (Node, Node) {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    let states = (0..entries).map(|at| (key(format!("key {at}")), vec![at as u8; 100].into()));
    a.collection.import(states, a.now_ms).unwrap();
    // a large collection takes several sessions
    while run(&mut a, &mut b, &SyncConfig::default(), 1).outcomes[0] == Outcome::Partial {}
    assert_eq!(a.root(), b.root());
    (a, b)
}

fn complete(run: &Run) {
    assert!(run.outcomes.iter().all(|outcome| matches!(outcome, Outcome::Complete { .. })));
}

fn print_bytes(entries: u32) {
    let (mut a, mut b) = twins(entries);
    println!("{entries} entries, values of 100 bytes; bytes both ways, frames, phases (bytes):");
    for differing in [0u32, 1, 10, 100, 1_000] {
        for strategy in Strategy::ALL {
            let name = format!("{strategy:?}").to_lowercase();
            for at in 0..differing {
                let at = key(format!("key {}", at * (entries / differing)));
                a.now_ms += 1;
                a.collection.put(&at, a.now_ms.to_le_bytes().repeat(12), a.now_ms).unwrap();
            }
            let config = SyncConfig { strategy, ..SyncConfig::default() };
            let run = run(&mut b, &mut a, &config, u64::from(differing));
            complete(&run);
            let (sent, received) = run.stats[0].bytes();
            let phases: Vec<_> = run.stats[0]
                .phases
                .iter()
                .map(|(phase, stats)| {
                    format!("{phase} {}", stats.bytes_sent + stats.bytes_received)
                })
                .collect();
            let frames = run.frames;
            println!(
                "  d = {differing:>5} {name:>7}: {:>8} B, {frames:>3} frames: {}",
                sent + received,
                phases.join(", ")
            );
        }
    }
}

fn sessions(c: &mut Criterion) {
    let entries = std::env::var("SELFSAME_BENCH_ENTRIES").ok().and_then(|text| text.parse().ok());
    let entries = entries.unwrap_or(20_000);
    print_bytes(entries);
    let mut group = c.benchmark_group("session");
    group.sample_size(10);
    let (mut a, mut b) = twins(entries);
    group.bench_function("equal", |bencher| {
        bencher.iter(|| complete(&run(&mut a, &mut b, &SyncConfig::default(), 3)));
    });
    let mut turn = 0u64;
    group.throughput(Throughput::Elements(1));
    group.bench_function("one change announced", |bencher| {
        bencher.iter(|| {
            turn += 1;
            a.now_ms += 1;
            a.collection.put(&key("key 7"), turn.to_le_bytes(), a.now_ms).unwrap();
            complete(&run(&mut a, &mut b, &SyncConfig::default(), turn));
        });
    });
    group.throughput(Throughput::Elements(2_000));
    group.bench_function("first contact, 2,000 entries", |bencher| {
        bencher.iter_batched(
            || {
                let (a, b) = (Node::new(5), Node::new(6));
                let states = (0..2_000u32).map(|at| (key(at), vec![at as u8; 1_000].into()));
                a.collection.import(states, a.now_ms).unwrap();
                (a, b)
            },
            |(mut a, mut b)| complete(&run(&mut a, &mut b, &SyncConfig::default(), 9)),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, sessions);
criterion_main!(benches);
