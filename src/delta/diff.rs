//! Finding what a target shares with a base that only a signature describes.
//!
//! The sender's side of a patch: chunks first ([`match_chunks`]), then blocks inside the gaps
//! ([`diff`]); or blocks of the whole base at once ([`diff_blocks`]). The work is that of one pass
//! over the target, whatever the data and whatever the signature.
//!
//! ```
//! use selfsame::delta::{self, IdMargin, Signature, SignatureKey};
//! use selfsame::limits::Limits;
//!
//! let (key, limits) = (SignatureKey([7; 32]), Limits::default());
//! let base: Vec<u8> = (0..16_384u32).map(|n| (n * n >> 7) as u8).collect();
//! let mut target = base.clone();
//! target.splice(5_000..5_010, *b"something else");
//!
//! let signature = Signature::of(&base, target.len() as u64, &key, IdMargin::First);
//! let Some(Signature::Blocks(blocks)) = signature else { unreachable!("up to 64 KiB") };
//! let patch = delta::diff_blocks(&target, &blocks, &key, &limits)?;
//! assert!(patch.inserted() < 600);
//! # Ok::<(), delta::DeltaError>(())
//! ```

use std::ops::Range;

use super::rolling::Rolling;
use super::signature::{BlockSignature, ChunkSignature, GapRequest, GapRun, SignatureKey};
use super::{DeltaError, Operation, Patch};
use crate::limits::Limits;

/// So few missing bytes are sent sooner than blocks are asked for.
const WORTH_A_ROUND: u64 = 256;

/// Ids with their indices, for look-ups in constant time on the way past.
pub(super) struct Index {
    sorted: Vec<(u64, u32)>,
    filter: Vec<u64>,
    shift: u32,
}

impl Index {
    /// Equal ids keep the first place only: that bounds the candidates of a position to one.
    pub(super) fn new(ids: impl Iterator<Item = u64>, width: u8) -> Self {
        let mut sorted: Vec<(u64, u32)> = ids.zip(0..).collect();
        sorted.sort_unstable();
        sorted.dedup_by_key(|(id, _)| *id);
        let bits = (sorted.len().max(1).ilog2() + 5).min(u32::from(width));
        let shift = u32::from(width) - bits;
        let mut filter = vec![0; (1usize << bits).div_ceil(64)];
        for (id, _) in &sorted {
            let slot = id >> shift;
            if let Some(word) = filter.get_mut((slot / 64) as usize) {
                *word |= 1 << (slot % 64);
            }
        }
        Self { sorted, filter, shift }
    }

    pub(super) fn find(&self, id: u64) -> Option<u32> {
        let slot = id >> self.shift;
        let word = self.filter.get((slot / 64) as usize)?;
        if word & (1 << (slot % 64)) == 0 {
            return None;
        }
        let at = self.sorted.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.sorted.get(at).map(|(_, index)| *index)
    }
}

/// A part of the target: a chunk that the base has too, or one that it has not.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Piece {
    Shared { chunk: u32, length: u64 },
    Missing { length: u64 },
}

/// What the first round of two found.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ChunkMatch {
    base_len: u64,
    /// Lengths of the base's chunks, as far as the target has them.
    lengths: Vec<Option<u64>>,
    pieces: Vec<Piece>,
}

/// Matches the chunks of a target with those of a base.
///
/// # Errors
/// A signature that does not add up, or of a base over the limits.
pub fn match_chunks(
    target: &[u8],
    signature: &ChunkSignature,
    key: &SignatureKey,
    limits: &Limits,
) -> Result<ChunkMatch, DeltaError> {
    let ids = signature.ids(limits)?;
    let index = Index::new(ids.iter().copied(), signature.width());
    let mut lengths = vec![None; ids.len()];
    let mut pieces = Vec::new();
    let mut next = None;
    for chunk in signature.size().cut(target) {
        let id = key.chunk_id(chunk, signature.width());
        let length = chunk.len() as u64;
        let follows = next.filter(|next| ids.get(*next as usize) == Some(&id));
        let found = follows.or_else(|| index.find(id));
        next = found.and_then(|found| found.checked_add(1));
        pieces.push(match found {
            Some(chunk) => {
                if let Some(known) = lengths.get_mut(chunk as usize) {
                    *known = Some(length);
                }
                Piece::Shared { chunk, length }
            }
            None => Piece::Missing { length },
        });
    }
    // Equal chunks have equal lengths: one that was found tells of all.
    for (at, id) in ids.iter().enumerate() {
        if lengths[at].is_none() {
            let known = index.find(*id).and_then(|first| lengths.get(first as usize).copied());
            lengths[at] = known.flatten();
        }
    }
    Ok(ChunkMatch { base_len: signature.base_len(), lengths, pieces })
}

impl ChunkMatch {
    /// The gaps to ask blocks of; none when a second round would gain nothing.
    #[must_use]
    pub fn gaps(&self) -> Option<GapRequest> {
        let runs = self.runs();
        let missing = self.missing();
        let worth_it = match runs.len() {
            0 => false,
            // The length of one gap follows from the others; those of several must be asked.
            1 => missing >= WORTH_A_ROUND,
            _ => true,
        };
        worth_it.then_some(GapRequest { runs, missing })
    }

    /// Bytes of the target that no chunk of the base has.
    #[must_use]
    pub fn missing(&self) -> u64 {
        let missing = self.pieces.iter().map(|piece| match piece {
            Piece::Shared { .. } => 0,
            Piece::Missing { length } => *length,
        });
        missing.sum()
    }

    fn runs(&self) -> Vec<GapRun> {
        let mut runs: Vec<GapRun> = Vec::new();
        for (index, length) in (0u32..).zip(&self.lengths) {
            match (length, runs.last_mut()) {
                (Some(_), _) => {}
                (None, Some(run)) if run.first + run.count == index => run.count += 1,
                (None, _) => runs.push(GapRun { first: index, count: 1 }),
            }
        }
        runs
    }

    /// Where each chunk and each gap starts in the base, given the lengths of the gaps.
    fn places(&self, run_lengths: &[u64]) -> Result<(Vec<u64>, Vec<u64>), DeltaError> {
        let refused = DeltaError::Signature("its lengths do not add up to that of its base");
        let (mut chunks, mut gaps) = (Vec::with_capacity(self.lengths.len()), Vec::new());
        let mut position = 0u64;
        let mut remaining = run_lengths.iter();
        for (index, length) in self.lengths.iter().enumerate() {
            chunks.push(position);
            let continues = index > 0 && self.lengths[index - 1].is_none();
            let step = match length {
                Some(length) => *length,
                None if continues => 0,
                None => {
                    gaps.push(position);
                    *remaining.next().ok_or_else(|| refused.clone())?
                }
            };
            position = position.checked_add(step).ok_or_else(|| refused.clone())?;
        }
        if position != self.base_len || remaining.next().is_some() {
            return Err(refused);
        }
        Ok((chunks, gaps))
    }

    /// The length of the only gap, when there is no more than one.
    fn implied_runs(&self) -> Result<Vec<u64>, DeltaError> {
        let known = self.lengths.iter().flatten();
        let known = known.fold(0u64, |sum, length| sum.saturating_add(*length));
        match (self.runs().len(), self.base_len.checked_sub(known)) {
            (0, _) => Ok(Vec::new()),
            (1, Some(rest)) => Ok(vec![rest]),
            _ => Err(DeltaError::Signature("the blocks of its gaps are missing")),
        }
    }
}

/// The patch that two rounds lead to: shared chunks copied, the gaps searched for shared blocks.
///
/// `gaps` is what the receiver answered to [`ChunkMatch::gaps`], none if that asked nothing.
///
/// # Errors
/// A signature that does not add up.
pub fn diff(
    target: &[u8],
    chunks: &ChunkMatch,
    gaps: Option<&BlockSignature>,
    key: &SignatureKey,
    limits: &Limits,
) -> Result<Patch, DeltaError> {
    let run_lengths = match gaps {
        Some(gaps) => gaps.run_lengths().to_vec(),
        None => chunks.implied_runs()?,
    };
    let (places, starts) = chunks.places(&run_lengths)?;
    let search = gaps.map(|gaps| Search::new(gaps, &starts, key, limits)).transpose()?;
    let mut patch = Patch::default();
    let mut missing = 0..0;
    for piece in &chunks.pieces {
        match *piece {
            Piece::Missing { length } => missing.end += length as usize,
            Piece::Shared { chunk, length } => {
                search_region(search.as_ref(), target, missing.clone(), &mut patch);
                let base_offset = places.get(chunk as usize).copied().unwrap_or_default();
                patch.push(Operation::Copy { base_offset, length });
                let end = missing.end + length as usize;
                missing = end..end;
            }
        }
    }
    search_region(search.as_ref(), target, missing, &mut patch);
    Ok(patch)
}

/// The patch that one round leads to.
///
/// # Errors
/// A signature that does not add up, or of a base over the limits.
pub fn diff_blocks(
    target: &[u8],
    signature: &BlockSignature,
    key: &SignatureKey,
    limits: &Limits,
) -> Result<Patch, DeltaError> {
    if signature.run_lengths().len() != 1 {
        return Err(DeltaError::Signature("one round has one run"));
    }
    let search = Search::new(signature, &[0], key, limits)?;
    let mut patch = Patch::default();
    search_region(Some(&search), target, 0..target.len(), &mut patch);
    Ok(patch)
}

fn search_region(search: Option<&Search>, target: &[u8], region: Range<usize>, patch: &mut Patch) {
    match (search, target.get(region.clone())) {
        (Some(search), Some(region)) => search.find_copies(region, patch),
        _ => patch.push(Operation::Insert { length: region.len() as u64 }),
    }
}

/// A search for the blocks of a signature.
struct Search {
    rolling: Rolling,
    width: u8,
    index: Index,
    ids: Vec<u64>,
    /// Where the blocks start in the base.
    offsets: Vec<u64>,
}

impl Search {
    fn new(
        signature: &BlockSignature,
        starts: &[u64],
        key: &SignatureKey,
        limits: &Limits,
    ) -> Result<Self, DeltaError> {
        let width = signature.width();
        let blocks = signature.blocks(limits)?;
        let ids: Vec<u64> = blocks.iter().map(|(id, ..)| *id).collect();
        let offset = |(_, run, start): &(u64, u32, u64)| {
            Some(starts.get(*run as usize)?.saturating_add(*start))
        };
        let offsets = blocks.iter().map(offset).collect::<Option<Vec<u64>>>();
        let offsets = offsets.ok_or(DeltaError::Signature("it has more runs than asked for"))?;
        let rolling = Rolling::new(key, signature.block() as usize);
        Ok(Self { rolling, width, index: Index::new(ids.iter().copied(), width), ids, offsets })
    }

    /// Goes once over a region of the target, in constant work per byte.
    fn find_copies(&self, region: &[u8], patch: &mut Patch) {
        let block = self.rolling.block();
        let (mut unmatched_from, mut at) = (0, 0);
        let mut state = region.get(..block).map(|window| self.rolling.start(window));
        while let Some(current) = state {
            let id = self.rolling.id(current, self.width);
            if let Some(first) = self.index.find(id) {
                patch.push(Operation::Insert { length: (at - unmatched_from) as u64 });
                at += self.copy_run(&region[at..], first, patch);
                unmatched_from = at;
                state = region.get(at..at + block).map(|window| self.rolling.start(window));
            } else {
                let pair = region.get(at).zip(region.get(at + block));
                state = pair.map(|(out, into)| self.rolling.roll(current, *out, *into));
                at += 1;
            }
        }
        patch.push(Operation::Insert { length: (region.len() - unmatched_from) as u64 });
    }

    /// Copies the block `first`, with which `region` starts, and all that follow in base and
    /// region alike. Returns how many bytes that are.
    fn copy_run(&self, region: &[u8], first: u32, patch: &mut Patch) -> usize {
        let block = self.rolling.block();
        let (mut index, mut length) = (first as usize, block);
        let Some(&base_offset) = self.offsets.get(index) else { return block };
        while let Some((&offset, &id)) = self.offsets.get(index + 1).zip(self.ids.get(index + 1)) {
            // The last block of a run overlaps the one before: it goes on by less than a block.
            let step = offset.saturating_sub(self.offsets[index]) as usize;
            let start = length - block + step;
            let window = region.get(start..start + block).filter(|_| step <= block && step > 0);
            let goes_on = window.is_some_and(|window| {
                self.rolling.id(self.rolling.start(window), self.width) == id
            });
            if !goes_on {
                break;
            }
            (index, length) = (index + 1, length + step);
        }
        patch.push(Operation::Copy { base_offset, length: length as u64 });
        length
    }
}
