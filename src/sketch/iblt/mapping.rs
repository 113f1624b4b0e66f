//! Which symbols of the stream an id is in.

use super::IbltKey;
use super::siphash::siphash;
use crate::sketch::ShortId;
use crate::sketch::ids::ID_BITS;

/// Step and finish of SplitMix64 (Steele, Lea and Flood 2014).
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

const ID_MASK: u64 = (1 << ID_BITS) - 1;

/// An id as symbols add it up: 44 bits of it below 20 bits of its keyed hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Word(pub(super) u64);

impl Word {
    /// The word of an id, and where it begins.
    pub(super) const fn of(key: &IbltKey, id: ShortId) -> (Self, Mapping) {
        let hash = siphash::<1, 3>(key.0, id.get());
        (Self((hash & !ID_MASK) | id.get()), Mapping { state: hash, at: 0 })
    }

    /// The bits that are an id; none if they are 0.
    pub(super) const fn id(self) -> Option<ShortId> {
        ShortId::new(self.0 & ID_MASK)
    }

    /// Where its id begins, if it is the word of one.
    pub(super) fn check(self, key: &IbltKey) -> Option<Mapping> {
        let (word, mapping) = Self::of(key, self.id()?);
        (word == self).then_some(mapping)
    }
}

/// The ascending indices of the symbols that an id is in: the first one, then index i with
/// probability 1 / (1 + i / 2), each on its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mapping {
    pub(super) state: u64,
    /// The present index; the greatest number is beyond every stream.
    pub(super) at: u32,
}

impl Mapping {
    /// Goes to the next index.
    ///
    /// That none of i + 1 to i + g is in it has probability (i + 1) (i + 2) / ((i + g + 1)
    /// (i + g + 2)), very nearly the square of (i + 1.5) / (i + g + 1.5): so g follows from a
    /// uniform number by a square root.
    #[inline(always)]
    pub(super) fn step(&mut self) {
        self.state = self.state.wrapping_add(GAMMA);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        // 1 to 2^32 - 1, so that the gap is above 0
        let uniform = ((mixed >> 32) as u32).max(1);
        let gap = (f64::from(self.at) + 1.5) * (65_536.0 / f64::from(uniform).sqrt() - 1.0);
        self.at = self.at.saturating_add(gap.ceil() as u32);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn indices(number: u64, end: u32) -> Vec<u32> {
        let (_, mut mapping) = Word::of(&IbltKey([1, 2]), ShortId::new(number).unwrap());
        let mut indices = Vec::new();
        while mapping.at < end {
            indices.push(mapping.at);
            mapping.step();
        }
        indices
    }

    #[test]
    fn an_id_is_in_a_symbol_as_often_as_its_index_says() {
        const IDS: u64 = 40_000;
        let mut hits = [0_u32; 2_000];
        for number in 1..=IDS {
            let indices = indices(number, 2_000);
            assert_eq!(indices[0], 0);
            assert!(indices.is_sorted_by(|a, b| a < b));
            indices.iter().for_each(|at| hits[*at as usize] += 1);
        }
        let share = |range: std::ops::Range<usize>| {
            let expected: f64 = range.clone().map(|at| 1.0 / (1.0 + at as f64 / 2.0)).sum();
            hits[range].iter().sum::<u32>() as f64 / IDS as f64 / expected
        };
        for range in [1..2, 2..4, 4..16, 16..128, 128..2_000] {
            let share = share(range.clone());
            assert!((0.95..1.05).contains(&share), "{range:?}: {share}");
        }
    }

    #[test]
    fn the_mapping_is_the_one_that_is_published() {
        // docs/protocol.md gives these to whoever writes another implementation
        assert_eq!(indices(1, 10_000), PUBLISHED);
        let (word, _) = Word::of(&IbltKey([1, 2]), ShortId::new(1).unwrap());
        assert_eq!(word, Word(PUBLISHED_WORD));
    }

    const PUBLISHED: [u32; 12] = [0, 1, 5, 7, 250, 264, 299, 396, 1101, 2151, 2437, 7730];
    const PUBLISHED_WORD: u64 = 0x64eb_f000_0000_0001;

    #[test]
    fn a_mapping_ends_beyond_every_stream() {
        for number in 1..1_000 {
            let (_, mut mapping) = Word::of(&IbltKey([3, 4]), ShortId::new(number).unwrap());
            let mut steps = 0;
            while mapping.at < u32::MAX {
                let before = mapping.at;
                mapping.step();
                assert!(mapping.at > before);
                steps += 1;
            }
            assert!(steps < 200, "{steps}");
        }
    }
}
