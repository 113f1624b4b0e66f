//! Bloom filters over dots: which of them the peer has not heard of, when they are many.
//!
//! No false negatives: a dot that is not in the peer's filter is not held there. Items are the 16
//! little-endian bytes of writer and counter. On the wire go the number of hashes and the bits;
//! the seed comes from the session's salts and never travels, so nobody can grind collisions
//! beforehand.
//!
//! ```
//! use selfsame::dots::Dot;
//! use selfsame::limits::Limits;
//! use selfsame::sketch::{BloomFilter, FilterSeed};
//!
//! let (limits, seed) = (Limits::default(), FilterSeed::derive(&[7; 32]));
//! let mut filter = BloomFilter::new(1_000, 0.03, &seed, &limits);
//! let dot = Dot::new(9, 1).expect("not zero");
//! filter.insert(dot);
//!
//! let received = BloomFilter::from_wire(filter.to_wire(), &seed, &limits)?;
//! assert!(received.contains(dot));
//! assert!(!received.contains(Dot::new(9, 2).expect("not zero")));
//! # Ok::<(), selfsame::sketch::BloomError>(())
//! ```

use std::fmt;
use std::hash::{Hash, Hasher};

use bitvec::order::Msb0;
use bitvec::slice::BitSlice;
use bloomfilter::Bloom;
use serde::{Deserialize, Serialize};

use crate::dots::Dot;
use crate::limits::Limits;

/// Most hashes of a filter that is received.
pub const MAX_HASHES: u8 = 32;
const MIN_RATE: f64 = 1e-6;
const MAX_RATE: f64 = 0.65;
/// Least rate that [`fpr_for`] asks for.
const MIN_PLANNED_RATE: f64 = 0.03;
/// Version, length of the bits, number of hashes, seed: what the crate puts before the bits.
const HEADER_BYTES: usize = 1 + 8 + 4 + 32;
const HEADER_VERSION: u8 = 1;

/// A filter that is refused before use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BloomError {
    /// No bits: nothing could be looked up in it.
    #[error("a bloom filter without bits is refused: the peer must send one or skip the phase")]
    Empty,
    /// None, or more than any honest filter has.
    #[error("a bloom filter of {0} hashes is refused: 1 to 32 are allowed")]
    Hashes(u8),
    /// Over the limit.
    #[error("a bloom filter of {bytes} bytes is over the limit of {limit}: raise max_filter_bytes")]
    TooLarge {
        /// Bytes of the filter.
        bytes: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The bits do not make a filter.
    #[error("the bloom filter is refused: {0}")]
    Malformed(&'static str),
}

/// Seed of the filters of one session; its two halves are never equal, since that would collapse
/// the filter's two hash functions into one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct FilterSeed([u8; 32]);

impl FilterSeed {
    /// From the session's salts. Salts with two equal halves are hashed first.
    #[must_use]
    pub fn derive(salts: &[u8; 32]) -> Self {
        let mut seed = *salts;
        while seed[..16] == seed[16..] {
            seed = blake3::derive_key("selfsame v1 filter seed", &seed);
        }
        Self(seed)
    }
}

impl fmt::Debug for FilterSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FilterSeed(..)")
    }
}

/// What travels of a filter.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WireFilter {
    /// Number of hashes, 1 to 32.
    pub hashes: u8,
    /// The bits.
    #[serde(with = "crate::delta::bytes")]
    pub bits: Vec<u8>,
}

impl fmt::Debug for WireFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WireFilter({} hashes, {} bytes)", self.hashes, self.bits.len())
    }
}

/// A dot as the filter hashes it: sixteen bytes, the same on every machine.
struct Item([u8; 16]);

impl Item {
    fn of(dot: Dot) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&dot.writer().get().to_le_bytes());
        bytes[8..].copy_from_slice(&dot.counter().to_le_bytes());
        Self(bytes)
    }
}

impl Hash for Item {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

/// The rate of false positives that costs the fewest bytes in all, when `differing` of `held` dots
/// are expected to be unknown to the peer: a larger filter against more sketch for what hides
/// behind false positives.
#[must_use]
pub fn fpr_for(held: u64, differing: u64) -> f64 {
    let (held, differing) = (held.max(1) as f64, differing.max(1) as f64);
    let rate = 3.3 * held / (differing * (held.log2() + differing.log2() + 12.0));
    rate.clamp(MIN_PLANNED_RATE, MAX_RATE)
}

/// A bloom filter over dots, never larger than the limits.
pub struct BloomFilter {
    bloom: Bloom<Item>,
}

impl fmt::Debug for BloomFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BloomFilter")
            .field("hashes", &self.bloom.number_of_hash_functions())
            .field("bytes", &self.bits().len())
            .finish()
    }
}

impl BloomFilter {
    /// An empty filter for so many dots at this rate of false positives.
    ///
    /// The rate is brought within 0.000001 to 0.65; if the filter would be over
    /// `max_filter_bytes` it gets that size and a higher rate.
    #[must_use]
    pub fn new(items: u64, rate: f64, seed: &FilterSeed, limits: &Limits) -> Self {
        let rate = if rate.is_nan() { MIN_PLANNED_RATE } else { rate.clamp(MIN_RATE, MAX_RATE) };
        let most = limits.max_filter_bytes.max(1);
        // At the highest rate nine dots take a byte: more than that many are not told apart.
        let items = usize::try_from(items).unwrap_or(usize::MAX).clamp(1, most.saturating_mul(9));
        let bytes = Bloom::<Item>::compute_bitmap_size(items, rate).clamp(1, most);
        let bloom = Bloom::new_with_seed(bytes, items, &seed.0);
        Self { bloom: bloom.expect("bytes and items are at least 1") }
    }

    /// Puts a dot in.
    pub fn insert(&mut self, dot: Dot) {
        self.bloom.set(&Item::of(dot));
    }

    /// Whether the dot was put in: never false if it was, true at the rate of false positives if
    /// it was not.
    #[must_use]
    pub fn contains(&self, dot: Dot) -> bool {
        self.bloom.check(&Item::of(dot))
    }

    /// What travels.
    #[must_use]
    pub fn to_wire(&self) -> WireFilter {
        WireFilter {
            hashes: self.bloom.number_of_hash_functions() as u8,
            bits: self.bits().to_vec(),
        }
    }

    /// A filter that was received; the seed is that of the session, not the peer's word.
    ///
    /// # Errors
    /// No bits, no or too many hashes, or over the limits; nothing is looked up before that.
    pub fn from_wire(
        wire: WireFilter,
        seed: &FilterSeed,
        limits: &Limits,
    ) -> Result<Self, BloomError> {
        let bytes = wire.bits.len();
        if bytes == 0 {
            return Err(BloomError::Empty);
        }
        if !(1..=MAX_HASHES).contains(&wire.hashes) {
            return Err(BloomError::Hashes(wire.hashes));
        }
        if bytes > limits.max_filter_bytes {
            return Err(BloomError::TooLarge { bytes, limit: limits.max_filter_bytes });
        }
        let mut filter = Vec::with_capacity(HEADER_BYTES + bytes);
        filter.push(HEADER_VERSION);
        filter.extend_from_slice(&(bytes as u64).to_le_bytes());
        filter.extend_from_slice(&u32::from(wire.hashes).to_le_bytes());
        filter.extend_from_slice(&seed.0);
        filter.extend_from_slice(&wire.bits);
        Bloom::from_bytes(filter).map(|bloom| Self { bloom }).map_err(BloomError::Malformed)
    }

    /// The rate of false positives that follows from the bits that are set: 1 for a filter that
    /// says nothing.
    #[must_use]
    pub fn false_positive_rate(&self) -> f64 {
        let bits = BitSlice::<u8, Msb0>::from_slice(self.bits());
        let density = bits.count_ones() as f64 / bits.len() as f64;
        density.powi(self.bloom.number_of_hash_functions() as i32)
    }

    fn bits(&self) -> &[u8] {
        self.bloom.as_slice().get(HEADER_BYTES..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn dot(writer: u64, counter: u64) -> Dot {
        Dot::new(writer.max(1), counter.max(1)).unwrap()
    }

    fn rate_of(filter: &BloomFilter) -> f64 {
        let strangers = 20_000;
        let hits = (1..=strangers).filter(|n| filter.contains(dot(77, *n))).count();
        hits as f64 / strangers as f64
    }

    fn filled(items: u64, rate: f64, seed: &FilterSeed) -> BloomFilter {
        let mut filter = BloomFilter::new(items, rate, seed, &Limits::default());
        for counter in 1..=items {
            filter.insert(dot(5, counter));
        }
        filter
    }

    proptest! {
        #[test]
        fn there_are_no_false_negatives(
            dots in prop::collection::vec((1u64.., 1u64..), 0..200),
            announced in 0u64..300, rate in -1.0f64..2.0, salts: [u8; 32],
        ) {
            let (limits, seed) = (Limits::default(), FilterSeed::derive(&salts));
            let mut filter = BloomFilter::new(announced, rate, &seed, &limits);
            for (writer, counter) in &dots {
                filter.insert(dot(*writer, *counter));
            }
            let wire = filter.to_wire();
            prop_assert!((1..=MAX_HASHES).contains(&wire.hashes));
            let received = BloomFilter::from_wire(wire, &seed, &limits).unwrap();
            for (writer, counter) in &dots {
                prop_assert!(filter.contains(dot(*writer, *counter)));
                prop_assert!(received.contains(dot(*writer, *counter)));
            }
            prop_assert_eq!(received.to_wire(), filter.to_wire());
        }

        #[test]
        fn any_filter_is_refused_or_usable(
            hashes: u8, bits in prop::collection::vec(any::<u8>(), 0..40), counter in 1u64..,
        ) {
            let seed = FilterSeed::derive(&[1; 32]);
            let limits = Limits { max_filter_bytes: 30, ..Limits::default() };
            let usable = (1..=32).contains(&hashes) && (1..=30).contains(&bits.len());
            let filter = BloomFilter::from_wire(WireFilter { hashes, bits }, &seed, &limits);
            prop_assert_eq!(filter.is_ok(), usable);
            if let Ok(filter) = filter {
                let _ = filter.contains(dot(3, counter));
                prop_assert!((0.0..=1.0).contains(&filter.false_positive_rate()));
            }
        }
    }

    #[test]
    fn strangers_pass_at_the_rate_asked_for() {
        for rate in [0.01, 0.03, 0.2, 0.5] {
            let seeds = (0..5u8).map(|seed| {
                FilterSeed::derive(&[[seed; 16], [9; 16]].concat()[..].try_into().unwrap())
            });
            let filters: Vec<BloomFilter> = seeds.map(|seed| filled(2_000, rate, &seed)).collect();
            let measured = filters.iter().map(rate_of).sum::<f64>() / filters.len() as f64;
            assert!((0.75..1.35).contains(&(measured / rate)), "{rate}: {measured}");
            let told = filters.iter().map(BloomFilter::false_positive_rate).sum::<f64>() / 5.0;
            assert!((0.8..1.25).contains(&(told / measured)), "{told} told, {measured} measured");
        }
    }

    #[test]
    fn salts_with_equal_halves_do_not_collapse_the_hashes() {
        let collapsed = filled(2_000, 0.001, &FilterSeed([4; 32]));
        let guarded = filled(2_000, 0.001, &FilterSeed::derive(&[4; 32]));
        assert!(rate_of(&guarded) < 0.003);
        assert!(rate_of(&collapsed) > 5.0 * rate_of(&guarded), "then the guard can go");
    }

    #[test]
    fn a_filter_is_never_larger_than_the_limit() {
        let limits = Limits { max_filter_bytes: 100, ..Limits::default() };
        let seed = FilterSeed::derive(&[1; 32]);
        for items in [0, 1, 5_000, u64::MAX] {
            for rate in [f64::NAN, f64::NEG_INFINITY, 0.0, 1e-9, 0.5, 1.0, f64::INFINITY] {
                let wire = BloomFilter::new(items, rate, &seed, &limits).to_wire();
                assert!((1..=100).contains(&wire.bits.len()));
                assert!((1..=MAX_HASHES).contains(&wire.hashes));
                assert!(BloomFilter::from_wire(wire, &seed, &limits).is_ok());
            }
        }
    }

    #[test]
    fn the_planned_rate_falls_as_more_differ() {
        assert_eq!(fpr_for(1_000_000, 1), MAX_RATE);
        assert!((fpr_for(0, 0) - 0.275).abs() < 1e-9);
        let rates = [50_000, 200_000, 500_000].map(|differing| fpr_for(1_000_000, differing));
        assert!(rates.is_sorted_by(|a, b| a >= b) && rates[2] >= MIN_PLANNED_RATE, "{rates:?}");
    }
}
