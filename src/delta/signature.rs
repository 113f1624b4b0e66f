//! Signatures: what a receiver says of its base, so that a sender without it finds what is shared.
//!
//! Up to 64 KiB: ids of blocks of about 2 sqrt(n) bytes. Above: ids of content-defined chunks, and
//! once the sender knows which of them it has, ids of blocks in the gaps between.
//!
//! Ids are keyed per session and log2(comparisons) + 12 bits wide, bit-packed: one value in some
//! 4,096 then has a false match, which the value hash reveals; the retry has 16 bits more. They
//! steer only.
//!
//! ```
//! use selfsame::delta::{IdMargin, Signature, SignatureKey};
//!
//! let key = SignatureKey([7; 32]);
//! let base: Vec<u8> = (0..16_384u32).map(|n| (n * n >> 7) as u8).collect();
//! let signature = Signature::of(&base, 16_500, &key, IdMargin::First).expect("worth it");
//! assert!(signature.wire_len() < 300);
//! assert_eq!(Signature::of(&base[..900], 900, &key, IdMargin::First), None);
//! ```

use std::fmt;

use bitvec::field::BitField;
use bitvec::order::Msb0;
use bitvec::slice::BitSlice;
use bitvec::vec::BitVec;
use bitvec::view::BitView;
use serde::{Deserialize, Serialize};

use super::chunk::ChunkSize;
use super::rolling::Rolling;
use super::{DeltaError, bytes};
use crate::limits::Limits;

/// Values shorter than this travel whole.
pub const WHOLE_BELOW: u64 = 1 << 10;
/// Bases up to this length are described in one round.
pub const ONE_ROUND_UP_TO: u64 = 64 << 10;
const MIN_BLOCK: u64 = 64;
const MAX_BLOCK: u64 = 16 << 10;
/// How many square roots of their run blocks are long: ids cost less, inserts more, when longer.
const ROOTS_IN_BASE: u64 = 2;
const ROOTS_IN_GAPS: u64 = 3;
const MIN_WIDTH: u8 = 8;
const MAX_WIDTH: u8 = 56;

/// Key of the ids of one session, from its salts.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SignatureKey(pub [u8; 32]);

impl fmt::Debug for SignatureKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignatureKey(..)")
    }
}

impl SignatureKey {
    pub(super) fn rolling_secrets(&self) -> (u64, u64) {
        let [a, b, ..] =
            words(blake3::keyed_hash(&self.0, b"selfsame v1 delta rolling").as_bytes());
        (a, b)
    }

    pub(super) fn chunk_id(&self, chunk: &[u8], width: u8) -> u64 {
        let [word, ..] = words(blake3::keyed_hash(&self.0, chunk).as_bytes());
        word >> (64 - u32::from(width))
    }
}

fn words(hash: &[u8; 32]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(hash.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}

/// How many bits ids have beyond what the number of comparisons takes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum IdMargin {
    /// 12 bits.
    #[default]
    First,
    /// 28 bits, after a result with the wrong hash.
    Retry,
}

impl IdMargin {
    fn width(self, left: u64, right: u64) -> u8 {
        let bits = |count: u64| count.max(1).next_power_of_two().ilog2();
        let margin = match self {
            Self::First => 12,
            Self::Retry => 28,
        };
        ((bits(left) + bits(right) + margin) as u8).clamp(MIN_WIDTH, MAX_WIDTH)
    }
}

/// Ids of one width, packed without gaps.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
struct Ids {
    width: u8,
    #[serde(with = "bytes")]
    packed: Vec<u8>,
}

impl Ids {
    fn pack(width: u8, ids: impl Iterator<Item = u64>) -> Self {
        let mut packed = BitVec::<u8, Msb0>::new();
        for id in ids {
            let bits = id.view_bits::<Msb0>();
            packed.extend_from_bitslice(&bits[64 - usize::from(width)..]);
        }
        Self { width, packed: packed.into_vec() }
    }

    /// Exactly so many ids, if that is what the bytes hold.
    fn unpack(&self, count: u64) -> Result<Vec<u64>, DeltaError> {
        if !(MIN_WIDTH..=MAX_WIDTH).contains(&self.width) {
            return Err(DeltaError::Signature("its ids have an impossible width"));
        }
        let width = usize::from(self.width);
        let needed = count.checked_mul(u64::from(self.width)).map(|bits| bits.div_ceil(8));
        if needed != Some(self.packed.len() as u64) {
            return Err(DeltaError::Signature("it has another number of ids than it says"));
        }
        let bits = BitSlice::<u8, Msb0>::from_slice(&self.packed);
        Ok(bits.chunks_exact(width).take(count as usize).map(|id| id.load_be()).collect())
    }

    const fn wire_len(&self) -> usize {
        3 + self.packed.len()
    }
}

/// What a receiver says of its base in the first round.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Signature {
    /// One round: blocks of the whole base.
    Blocks(BlockSignature),
    /// First of two: chunks.
    Chunks(ChunkSignature),
}

impl Signature {
    /// Of a base, for a target whose length the offer told. None when whole is better: either is
    /// shorter than 1 KiB.
    #[must_use]
    pub fn of(base: &[u8], target_len: u64, key: &SignatureKey, margin: IdMargin) -> Option<Self> {
        let base_len = base.len() as u64;
        if base_len < WHOLE_BELOW || target_len < WHOLE_BELOW {
            return None;
        }
        Some(if base_len.max(target_len) <= ONE_ROUND_UP_TO {
            Self::Blocks(BlockSignature::of_runs(&[base], ROOTS_IN_BASE, target_len, key, margin))
        } else {
            Self::Chunks(ChunkSignature::of(base, target_len, key, margin))
        })
    }

    /// Bytes on the wire, about.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        match self {
            Self::Blocks(blocks) => blocks.wire_len(),
            Self::Chunks(chunks) => chunks.wire_len(),
        }
    }
}

/// Ids of the chunks of a base, in order.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct ChunkSignature {
    base_len: u64,
    size: ChunkSize,
    count: u32,
    ids: Ids,
}

impl ChunkSignature {
    /// Of a whole base.
    #[must_use]
    pub fn of(base: &[u8], target_len: u64, key: &SignatureKey, margin: IdMargin) -> Self {
        let size = chunk_size(base, target_len);
        let chunks = size.cut(base);
        let targets = (target_len / size.average() as u64).max(1);
        let width = margin.width(chunks.len() as u64, targets);
        let ids = Ids::pack(width, chunks.iter().map(|chunk| key.chunk_id(chunk, width)));
        Self { base_len: base.len() as u64, size, count: chunks.len() as u32, ids }
    }

    pub(super) const fn base_len(&self) -> u64 {
        self.base_len
    }

    pub(super) const fn size(&self) -> ChunkSize {
        self.size
    }

    pub(super) const fn width(&self) -> u8 {
        self.ids.width
    }

    pub(super) fn ids(&self, limits: &Limits) -> Result<Vec<u64>, DeltaError> {
        check_base_len(self.base_len, limits)?;
        self.ids.unpack(u64::from(self.count))
    }

    /// Bytes on the wire, about.
    #[must_use]
    pub const fn wire_len(&self) -> usize {
        9 + self.ids.wire_len()
    }
}

fn chunk_size(base: &[u8], target_len: u64) -> ChunkSize {
    ChunkSize::for_value((base.len() as u64).max(target_len))
}

fn check_base_len(base_len: u64, limits: &Limits) -> Result<(), DeltaError> {
    if base_len > limits.max_value_bytes {
        return Err(DeltaError::TooLarge { size: base_len, limit: limits.max_value_bytes });
    }
    Ok(())
}

/// A run of neighbouring chunks that the sender does not have.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct GapRun {
    /// Index of the first.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// The gaps of which a sender asks the blocks: ascending runs with something between them.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct GapRequest {
    /// The runs.
    pub runs: Vec<GapRun>,
    /// Bytes of the target in which their blocks will be looked for: tells how wide ids must be.
    pub missing: u64,
}

impl GapRequest {
    /// The same runs as slices of the base; refused unless they are ascending and within it.
    fn slices<'b>(&self, base: &'b [u8], chunks: &[&[u8]]) -> Result<Vec<&'b [u8]>, DeltaError> {
        let refused = DeltaError::Signature("the gaps asked for are not those of its chunks");
        let mut slices = Vec::new();
        let (mut index, mut position) = (0usize, 0usize);
        let mut advance = |to: usize| {
            let skipped: usize = chunks.get(index..to)?.iter().map(|chunk| chunk.len()).sum();
            (index, position) = (to, position + skipped);
            Some(position)
        };
        for run in &self.runs {
            let first = run.first as usize;
            let last = first.checked_add(run.count as usize).filter(|last| *last > first);
            let range = last.and_then(|last| Some(advance(first)?..advance(last)?));
            let slice = range.and_then(|range| base.get(range));
            slices.push(slice.ok_or_else(|| refused.clone())?);
        }
        Ok(slices)
    }
}

/// Ids of the blocks of one or more runs of a base, in order.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct BlockSignature {
    run_lengths: Vec<u64>,
    block: u32,
    ids: Ids,
}

impl BlockSignature {
    /// Blocks of `roots` times the square root of the mean run.
    fn of_runs(
        runs: &[&[u8]],
        roots: u64,
        searched: u64,
        key: &SignatureKey,
        margin: IdMargin,
    ) -> Self {
        let run_lengths: Vec<u64> = runs.iter().map(|run| run.len() as u64).collect();
        let total: u64 = run_lengths.iter().sum();
        let mean = total / (runs.len() as u64).max(1);
        let block = (roots * mean.isqrt()).clamp(MIN_BLOCK, MAX_BLOCK);
        let rolling = Rolling::new(key, block as usize);
        let count: u64 = run_lengths.iter().map(|length| block_count(*length, block)).sum();
        let width = margin.width(count, searched);
        let ids = runs.iter().flat_map(|run| {
            block_starts(run.len() as u64, block)
                .filter_map(|start| run.get(start as usize..(start + block) as usize))
                .map(|window| rolling.id(rolling.start(window), width))
        });
        let ids = Ids::pack(width, ids);
        Self { run_lengths, block: block as u32, ids }
    }

    /// The receiver's answer to a request for gaps: base, target length and margin are those of
    /// the chunk signature.
    ///
    /// # Errors
    /// The request names chunks that there are not.
    pub fn of_gaps(
        base: &[u8],
        target_len: u64,
        request: &GapRequest,
        key: &SignatureKey,
        margin: IdMargin,
    ) -> Result<Self, DeltaError> {
        let chunks = chunk_size(base, target_len).cut(base);
        let slices = request.slices(base, &chunks)?;
        Ok(Self::of_runs(&slices, ROOTS_IN_GAPS, request.missing.min(target_len), key, margin))
    }

    pub(super) fn run_lengths(&self) -> &[u64] {
        &self.run_lengths
    }

    pub(super) const fn block(&self) -> u32 {
        self.block
    }

    pub(super) const fn width(&self) -> u8 {
        self.ids.width
    }

    /// Ids with the place of their blocks: (run, offset in it).
    pub(super) fn blocks(&self, limits: &Limits) -> Result<Vec<(u64, u32, u64)>, DeltaError> {
        let block = u64::from(self.block);
        if !(MIN_BLOCK..=MAX_BLOCK).contains(&block) {
            return Err(DeltaError::Signature("its blocks have an impossible length"));
        }
        let total = self.run_lengths.iter().try_fold(0u64, |sum, length| sum.checked_add(*length));
        let total = total.ok_or(DeltaError::Signature("its length overflows"))?;
        check_base_len(total, limits)?;
        let count = self.run_lengths.iter().map(|length| block_count(*length, block)).sum();
        let ids = self.ids.unpack(count)?;
        let places = (0u32..)
            .zip(&self.run_lengths)
            .flat_map(|(run, length)| block_starts(*length, block).map(move |start| (run, start)));
        Ok(ids.into_iter().zip(places).map(|(id, (run, start))| (id, run, start)).collect())
    }

    /// Bytes on the wire, about.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        4 + 3 * self.run_lengths.len() + self.ids.wire_len()
    }
}

/// Blocks of a run: side by side, and one more at the very end, which overlaps, if they leave a
/// rest. A run shorter than a block has none.
const fn block_count(length: u64, block: u64) -> u64 {
    if length < block { 0 } else { length.div_ceil(block) }
}

fn block_starts(length: u64, block: u64) -> impl Iterator<Item = u64> {
    (0..block_count(length, block)).map(move |index| (index * block).min(length - block))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const KEY: SignatureKey = SignatureKey([1; 32]);

    proptest! {
        #[test]
        fn ids_come_back_from_their_bits(
            width in MIN_WIDTH..=MAX_WIDTH, ids in prop::collection::vec(any::<u64>(), 0..50),
        ) {
            let ids: Vec<u64> = ids.into_iter().map(|id| id >> (64 - width)).collect();
            let packed = Ids::pack(width, ids.iter().copied());
            prop_assert_eq!(packed.packed.len(), (ids.len() * usize::from(width)).div_ceil(8));
            prop_assert_eq!(packed.unpack(ids.len() as u64).unwrap(), ids);
        }
    }

    #[test]
    fn signatures_that_do_not_add_up_are_refused() {
        let limits = Limits { max_value_bytes: 1 << 20, ..Limits::default() };
        let good = BlockSignature::of_runs(&[&[0; 5_000]], 2, 5_000, &KEY, IdMargin::First);
        assert!(good.blocks(&limits).is_ok());
        let bad = [
            BlockSignature { block: 0, ..good.clone() },
            BlockSignature { block: u32::MAX, ..good.clone() },
            BlockSignature { run_lengths: vec![u64::MAX, 2], ..good.clone() },
            BlockSignature { run_lengths: vec![2 << 20], ..good.clone() },
            BlockSignature { run_lengths: vec![5_000; 2], ..good.clone() },
            BlockSignature { ids: Ids { width: 0, packed: vec![0; 8] }, ..good.clone() },
            BlockSignature { ids: Ids { width: 200, packed: vec![0; 8] }, ..good.clone() },
            BlockSignature { ids: Ids { width: 32, packed: Vec::new() }, ..good },
        ];
        for signature in bad {
            assert!(signature.blocks(&limits).is_err(), "{signature:?}");
        }
    }

    #[test]
    fn gaps_out_of_order_or_out_of_the_base_are_refused() {
        let base: Vec<u8> = (0..100_000u32).map(|n| (n.wrapping_mul(n) >> 9) as u8).collect();
        let ask = |runs: &[(u32, u32)]| {
            let runs = runs.iter().map(|&(first, count)| GapRun { first, count }).collect();
            let request = GapRequest { runs, missing: 100_000 };
            BlockSignature::of_gaps(&base, 100_000, &request, &KEY, IdMargin::First)
        };
        let count = ChunkSignature::of(&base, 100_000, &KEY, IdMargin::First).count;
        assert_eq!(ask(&[(0, count)]).unwrap().run_lengths, [100_000]);
        assert!(ask(&[(0, 1), (3, 2)]).is_ok());
        for runs in [
            &[(0, count + 1)][..],
            &[(count, 1)],
            &[(3, 0)],
            &[(3, 2), (0, 1)],
            &[(3, 2), (4, 1)],
            &[(u32::MAX, u32::MAX)],
        ] {
            assert!(ask(runs).is_err(), "{runs:?}");
        }
    }
}
