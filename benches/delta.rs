//! What a changed value costs on the wire, and what it takes to find out.
//!
//! `cargo bench --bench delta` prints the bytes first (they are the same on every machine), then
//! measures throughput. Values are records in JSON; the edits are changed fields, inserted,
//! deleted and moved records.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use selfsame::delta::{
    self, BaseId, BlockSignature, Expected, IdMargin, Patch, Signature, SignatureKey,
};
use selfsame::hash::HashAlgorithm;
use selfsame::limits::Limits;

const KEY: SignatureKey = SignatureKey([9; 32]);
const ALGORITHM: HashAlgorithm = HashAlgorithm::Blake3;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

fn record(random: &mut Random) -> Vec<u8> {
    const WORDS: [&str; 12] = [
        "harbour", "lantern", "copper", "meadow", "signal", "winter", "orchard", "granite",
        "thunder", "velvet", "compass", "ember",
    ];
    let words = [random.below(12), random.below(12), random.below(12)].map(|word| WORDS[word]);
    format!(
        "{{\"id\":\"{:016x}\",\"name\":\"{} {} {}\",\"level\":{},\"at\":[{},{}],\"seen\":{}}},\n",
        random.next(),
        words[0],
        words[1],
        words[2],
        random.below(100),
        random.below(4_096),
        random.below(4_096),
        1_760_000_000 + random.below(40_000_000),
    )
    .into_bytes()
}

/// A value of about `len` bytes and a later version of it, `edits` places apart.
fn pair(len: usize, edits: usize) -> (Vec<u8>, Vec<u8>) {
    let mut random = Random(len as u64);
    let mut records: Vec<Vec<u8>> = Vec::new();
    let mut total = 0;
    while total < len {
        let next = record(&mut random);
        total += next.len();
        records.push(next);
    }
    let base = records.concat();
    for edit in 0..edits {
        let at = random.below(records.len());
        match edit % 8 {
            5 => records.insert(at, record(&mut random)),
            6 => drop(records.remove(at)),
            7 => {
                let moved = records.remove(at);
                let to = random.below(records.len());
                records.insert(to, moved);
            }
            _ => {
                let field = records[at].len() - 9;
                let seen = format!("{:06}", random.below(1_000_000));
                records[at][field..field + 6].copy_from_slice(seen.as_bytes());
            }
        }
    }
    (base, records.concat())
}

fn noise_pair(len: usize) -> (Vec<u8>, Vec<u8>) {
    let mut random = Random(1);
    let base: Vec<u8> = (0..len / 8).flat_map(|_| random.next().to_le_bytes()).collect();
    let mut target = base.clone();
    for _ in 0..len >> 17 {
        let at = random.below(len - 100);
        target.splice(at..at + 20, random.next().to_le_bytes());
    }
    (base, target)
}

/// Both rounds; returns the patch and the bytes said to find it.
fn patch_for(base: &[u8], target: &[u8]) -> Option<(Patch, usize)> {
    let (limits, margin, len) = (Limits::default(), IdMargin::First, target.len() as u64);
    let signature = Signature::of(base, len, &KEY, margin)?;
    let said = signature.wire_len();
    Some(match signature {
        Signature::Blocks(blocks) => {
            (delta::diff_blocks(target, &blocks, &KEY, &limits).unwrap(), said)
        }
        Signature::Chunks(chunks) => {
            let found = delta::match_chunks(target, &chunks, &KEY, &limits).unwrap();
            let gaps = found.gaps();
            let blocks = gaps
                .as_ref()
                .map(|gaps| BlockSignature::of_gaps(base, len, gaps, &KEY, margin).unwrap());
            let asked = gaps.map_or(0, |gaps| 1 + 4 * gaps.runs.len());
            let answered = blocks.as_ref().map_or(0, BlockSignature::wire_len);
            let patch = delta::diff(target, &found, blocks.as_ref(), &KEY, &limits).unwrap();
            (patch, said + asked + answered)
        }
    })
}

fn pairs() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let named = |name, (base, target)| (name, base, target);
    vec![
        named("1 KiB, 1 edit", pair(1 << 10, 1)),
        named("16 KiB, 4 edits", pair(16 << 10, 4)),
        named("60 KiB, 8 edits", pair(60 << 10, 8)),
        named("1 MiB, 16 edits", pair(1 << 20, 16)),
        named("8 MiB, 64 edits", pair(8 << 20, 64)),
        named("8 MiB noise, 64 edits", noise_pair(8 << 20)),
    ]
}

fn print_bytes() {
    println!("bytes of one value   whole   with base   without: signatures + patch");
    for (name, base, target) in pairs() {
        let id = BaseId::of(&ALGORITHM.value_hash(&base));
        let whole = delta::encode_whole(&target).wire_len();
        let prefixed = delta::encode_with_base(&base, id, &target).unwrap();
        let patched = patch_for(&base, &target).map(|(patch, said)| {
            let encoded = delta::encode_patch(&patch, id, &target).unwrap();
            let expected = Expected::of(&target, ALGORITHM);
            let limits = Limits::default();
            let made = delta::decode(&encoded, Some(&base), &expected, ALGORITHM, &limits);
            assert!(made.unwrap() == target);
            format!("{said} + {}", encoded.wire_len())
        });
        let patched = patched.unwrap_or_else(|| "whole".to_owned());
        println!("{name:22} {whole:8} {:8}    {patched}", prefixed.wire_len());
    }
}

fn throughput(c: &mut Criterion) {
    print_bytes();
    let mut group = c.benchmark_group("delta");
    group.sample_size(10).measurement_time(std::time::Duration::from_secs(2));
    for (name, base, target) in pairs() {
        let id = BaseId::of(&ALGORITHM.value_hash(&base));
        let expected = Expected::of(&target, ALGORITHM);
        let limits = Limits::default();
        group.throughput(Throughput::Bytes(target.len() as u64));
        group.bench_function(BenchmarkId::new("encode with base", name), |b| {
            b.iter(|| delta::encode_with_base(black_box(&base), id, black_box(&target)));
        });
        let encoded = delta::encode_with_base(&base, id, &target).unwrap();
        group.bench_function(BenchmarkId::new("decode with base", name), |b| {
            b.iter(|| {
                delta::decode(black_box(&encoded), Some(&base), &expected, ALGORITHM, &limits)
            });
        });
        group.bench_function(BenchmarkId::new("signatures and diff", name), |b| {
            b.iter(|| patch_for(black_box(&base), black_box(&target)));
        });
    }
    group.finish();
}

criterion_group!(benches, throughput);
criterion_main!(benches);
