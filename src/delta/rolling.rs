//! A keyed fingerprint of a window that slides in constant time.
//!
//! Karp and Rabin (1987): the window as a polynomial over the field of 2^61 - 1, evaluated at a
//! point that is derived from the session's key. Two different windows of B bytes collide with
//! probability B / 2^61 whatever their content, so that no second, strong hash has to be computed
//! where the weak one matches: the work per position is the same for all data.

use super::signature::SignatureKey;

const PRIME: u64 = (1 << 61) - 1;
/// Bytes of a new window that are taken in by one reduction.
const STRIDE: usize = 8;

/// Fingerprints of windows of one length under one key.
pub(super) struct Rolling {
    point: u64,
    spread: u64,
    block: usize,
    /// What a byte that leaves takes away, as its negative.
    leaving: Box<[u64; 256]>,
    /// What the bytes of a stride are multiplied by, and what came before them.
    powers: [u64; STRIDE],
    stride: u64,
}

impl Rolling {
    pub(super) fn new(key: &SignatureKey, block: usize) -> Self {
        let (point, spread) = key.rolling_secrets();
        let point = point % (PRIME - 3) + 2;
        let power = power(point, block);
        let mut leaving = Box::new([0; 256]);
        for (byte, entry) in (1..=256).zip(leaving.iter_mut()) {
            *entry = PRIME - multiply_add(power, byte, 0);
        }
        let mut powers = [1; STRIDE];
        for index in (1..STRIDE).rev() {
            powers[index - 1] = multiply_add(powers[index], point, 0);
        }
        let stride = multiply_add(powers[0], point, 0);
        Self { point, spread: spread | 1, block, leaving, powers, stride }
    }

    /// Length of the windows.
    pub(super) const fn block(&self) -> usize {
        self.block
    }

    /// State of a window.
    pub(super) fn start(&self, window: &[u8]) -> u64 {
        let (strides, rest) = window.as_chunks::<STRIDE>();
        let state = strides.iter().fold(0, |state: u64, bytes| {
            let taken = bytes
                .iter()
                .zip(&self.powers)
                .map(|(byte, power)| (u128::from(*byte) + 1) * u128::from(*power));
            reduce(u128::from(state) * u128::from(self.stride) + taken.sum::<u128>())
        });
        rest.iter().fold(state, |state, byte| multiply_add(state, self.point, u64::from(*byte) + 1))
    }

    /// State of the window one further.
    pub(super) fn roll(&self, state: u64, leaving: u8, entering: u8) -> u64 {
        let change = u64::from(entering) + 1 + self.leaving[usize::from(leaving)];
        multiply_add(state, self.point, change)
    }

    /// Id of `width` bits of the window with this state.
    pub(super) const fn id(&self, state: u64, width: u8) -> u64 {
        state.wrapping_mul(self.spread) >> (64 - width as u32)
    }
}

/// a * b + c in the field; `a`, `b` below the prime.
fn multiply_add(a: u64, b: u64, c: u64) -> u64 {
    reduce(u128::from(a) * u128::from(b) + u128::from(c))
}

/// A number below 2^123, in the field.
fn reduce(number: u128) -> u64 {
    let folded = (number as u64 & PRIME) + (number >> 61) as u64;
    let folded = (folded & PRIME) + (folded >> 61);
    if folded >= PRIME { folded - PRIME } else { folded }
}

fn power(base: u64, mut exponent: usize) -> u64 {
    let (mut result, mut square) = (1, base);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = multiply_add(result, square, 0);
        }
        square = multiply_add(square, square, 0);
        exponent >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_window_that_slid_has_the_state_of_a_new_one(
            data in prop::collection::vec(any::<u8>(), 80..300), block in 1usize..80, key: [u8; 32],
        ) {
            let rolling = Rolling::new(&SignatureKey(key), block);
            let mut state = rolling.start(&data[..block]);
            for start in 1..=data.len() - block {
                state = rolling.roll(state, data[start - 1], data[start + block - 1]);
                prop_assert_eq!(state, rolling.start(&data[start..start + block]));
            }
        }
    }

    #[test]
    fn ids_of_different_windows_rarely_meet() {
        let rolling = Rolling::new(&SignatureKey([3; 32]), 64);
        let mut ids: Vec<u64> = (0..20_000u64)
            .map(|seed| {
                let mut window = [0; 64];
                window[..8].copy_from_slice(&seed.to_le_bytes());
                rolling.id(rolling.start(&window), 40)
            })
            .collect();
        ids.sort_unstable();
        ids.dedup();
        assert!(ids.len() >= 19_999, "{}", ids.len());
    }
}
