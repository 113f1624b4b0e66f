//! A patch between two values that are both at hand.
//!
//! For large values with a base this finds what zstd would, several times faster, and says it in
//! fewer bytes: the base's blocks are indexed, the target is passed over once, and each match is
//! grown byte by byte to both sides.
//!
//! ```
//! use selfsame::delta::{Operation, diff_local};
//!
//! let base: Vec<u8> = (0..5_000u32).map(|n| (n * n >> 7) as u8).collect();
//! let mut target = base.clone();
//! target.splice(2_000..2_001, *b"new");
//! assert_eq!(
//!     diff_local(&base, &target).operations(),
//!     [
//!         Operation::Copy { base_offset: 0, length: 2_000 },
//!         Operation::Insert { length: 3 },
//!         Operation::Copy { base_offset: 2_001, length: 2_999 },
//!     ],
//! );
//! ```

use super::diff::Index;
use super::rolling::Rolling;
use super::signature::SignatureKey;
use super::{Operation, Patch};

const MIN_BLOCK: usize = 32;
const MAX_BLOCK: usize = 16 << 10;
/// Most blocks of a base that are indexed, as a power of two: 16 bytes each.
const BLOCKS_LOG: u32 = 18;
const WIDTH: u8 = 56;
const STRIDE: usize = 64;

/// What of `target` is in `base`.
///
/// One pass over each, constant work per byte: about 20 bytes of memory for every 32 of the base,
/// up to some 5 MiB.
#[must_use]
pub fn diff_local(base: &[u8], target: &[u8]) -> Patch {
    let block = (base.len() >> BLOCKS_LOG).next_power_of_two().clamp(MIN_BLOCK, MAX_BLOCK);
    // Matches are compared byte by byte, so the key need not be secret.
    let rolling = Rolling::new(&SignatureKey([0; 32]), block);
    let id = |state| rolling.id(state, WIDTH);
    let index = Index::new(base.chunks_exact(block).map(|bytes| id(rolling.start(bytes))), WIDTH);
    let start = |at: usize| target.get(at..at + block).map(|window| rolling.start(window));

    let mut patch = Patch::default();
    let (mut unmatched_from, mut at) = (0, 0);
    let mut state = start(at);
    while let Some(current) = state {
        let found = index.find(id(current)).map(|found| found as usize * block);
        let found = found.filter(|from| base[*from..].starts_with(&target[at..at + block]));
        if let Some(from) = found {
            let back = common_suffix(&base[..from], &target[unmatched_from..at]);
            let forth = common_prefix(&base[from + block..], &target[at + block..]);
            patch.push(Operation::Insert { length: (at - back - unmatched_from) as u64 });
            let length = (back + block + forth) as u64;
            patch.push(Operation::Copy { base_offset: (from - back) as u64, length });
            at += block + forth;
            unmatched_from = at;
            state = start(at);
        } else {
            let pair = target.get(at).zip(target.get(at + block));
            state = pair.map(|(out, into)| rolling.roll(current, *out, *into));
            at += 1;
        }
    }
    patch.push(Operation::Insert { length: (target.len() - unmatched_from) as u64 });
    patch
}

fn common_prefix(left: &[u8], right: &[u8]) -> usize {
    let strides = left.chunks_exact(STRIDE).zip(right.chunks_exact(STRIDE));
    let whole = STRIDE * strides.take_while(|(left, right)| left == right).count();
    let rest = left[whole..].iter().zip(&right[whole..]);
    whole + rest.take_while(|(left, right)| left == right).count()
}

fn common_suffix(left: &[u8], right: &[u8]) -> usize {
    let pairs = left.iter().rev().zip(right.iter().rev());
    pairs.take_while(|(left, right)| left == right).count()
}
