//! SipHash (Aumasson and Bernstein 2012) of one integer.

/// SipHash-C-D of the eight little-endian bytes of `value`.
#[inline(always)]
pub(super) const fn siphash<const C: usize, const D: usize>(key: [u64; 2], value: u64) -> u64 {
    /// The length of what is hashed, where the last word has it.
    const LENGTH: u64 = 8 << 56;
    let mut state = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    state[3] ^= value;
    rounds::<C>(&mut state);
    state[0] ^= value;
    state[3] ^= LENGTH;
    rounds::<C>(&mut state);
    state[0] ^= LENGTH;
    state[2] ^= 0xff;
    rounds::<D>(&mut state);
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

#[inline(always)]
const fn rounds<const N: usize>(state: &mut [u64; 4]) {
    let mut round = 0;
    while round < N {
        let [mut a, mut b, mut c, mut d] = *state;
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        *state = [a, b, c, d];
        round += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::Hasher;

    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_the_siphash_of_the_standard_library(keys: [u64; 2], value: u64) {
            #[expect(deprecated, reason = "the one that takes keys")]
            let mut hasher = std::hash::SipHasher::new_with_keys(keys[0], keys[1]);
            hasher.write(&value.to_le_bytes());
            prop_assert_eq!(siphash::<2, 4>(keys, value), hasher.finish());
        }
    }

    #[test]
    fn the_published_vector_holds() {
        let keys = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        assert_eq!(siphash::<2, 4>(keys, 0x0706_0504_0302_0100), 0x93f5_f579_9a93_2462);
    }
}
