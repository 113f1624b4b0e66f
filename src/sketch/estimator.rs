//! How many leaves differ between two collections, from a summary kept on every put.
//!
//! Tug of war (Alon, Matias, Szegedy 1996; one counter per item as in Charikar, Chen and
//! Farach-Colton 2002): each record adds +1 or -1 to one of 128 counters. What both sides hold
//! cancels out, and the sum of the squared differences of the counters is the number of leaves
//! that only one side holds, with a standard error of 12.5 %. An entry that both hold in different
//! versions counts twice.
//!
//! Record digests are hashes already: eight of their bits choose counter and sign. Whoever grinds
//! them can make the estimate wrong, which costs bytes, never correctness.
//!
//! ```
//! use selfsame::hash::RecordDigest;
//! use selfsame::sketch::Estimator;
//!
//! let mut ours = Estimator::default();
//! ours.add(&RecordDigest([3; 32]));
//! ours.add(&RecordDigest([200; 32]));
//! let mut theirs = ours.clone();
//! theirs.remove(&RecordDigest([3; 32]));
//! assert_eq!(ours.difference(&theirs), 1);
//! assert_eq!(Estimator::from_bytes(&ours.to_bytes())?, ours);
//! # Ok::<(), selfsame::sketch::EstimatorError>(())
//! ```

use serde::{Deserialize, Serialize};

use crate::codec::{CodecError, Reader};
use crate::delta::varint;
use crate::hash::RecordDigest;

const COUNTERS: usize = 128;
/// A wrapped counter that differs by more may have gone round, and the estimate says "many".
const WRAPPED_TRUSTED: u8 = 120;
const FOLDED_COUNTERS: usize = 16;
/// Beyond this a folded counter may have gone round, and the estimate says "many".
const FOLDED_TRUSTED: u64 = 64;

/// Bytes that are no estimator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EstimatorError {
    /// Not 128 integers.
    #[error("the estimator is refused ({0}): the session goes on without it")]
    Codec(#[from] CodecError),
    /// A counter that no collection leads to.
    #[error("an estimator's counter of {0} is refused: the session goes on without it")]
    Counter(i64),
}

/// 128 signed counters over the leaves of a collection: the same for the same set, in whatever
/// order it came to be.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct Estimator(Box<[i64; COUNTERS]>);

impl Default for Estimator {
    fn default() -> Self {
        Self(Box::new([0; COUNTERS]))
    }
}

impl Estimator {
    /// Counts a record that is now held.
    pub fn add(&mut self, record: &RecordDigest) {
        self.step(record, 1);
    }

    /// Takes back a record that is held no more.
    pub fn remove(&mut self, record: &RecordDigest) {
        self.step(record, -1);
    }

    /// Counts all that another has counted, which this one has not.
    pub fn merge(&mut self, other: &Self) {
        for (ours, theirs) in self.0.iter_mut().zip(other.0.iter()) {
            *ours = ours.saturating_add(*theirs);
        }
    }

    fn step(&mut self, record: &RecordDigest, amount: i64) {
        let [.., byte] = record.0;
        let counter = &mut self.0[usize::from(byte) % COUNTERS];
        let signed = if byte & 0x80 == 0 { amount } else { -amount };
        *counter = counter.saturating_add(signed);
    }

    /// Estimate of how many leaves only one of the two holds: 12.5 % off in one case of three,
    /// 25 % in one of twenty; 0 for equal sets.
    #[must_use]
    pub fn difference(&self, other: &Self) -> u64 {
        let squares = self.0.iter().zip(other.0.iter()).map(|(ours, theirs)| {
            let difference = u128::from(ours.abs_diff(*theirs));
            difference * difference
        });
        let sum = squares.fold(0, u128::saturating_add);
        u64::try_from(sum).unwrap_or(u64::MAX)
    }

    /// A byte of each counter: enough for all differences that a sketch can name.
    #[must_use]
    pub fn wrapped(&self) -> WrappedEstimator {
        WrappedEstimator(Box::new(self.0.map(|counter| counter as u8)))
    }

    /// Eight bytes that are enough for small differences.
    #[must_use]
    pub fn folded(&self) -> FoldedEstimator {
        let mut nibbles = [0; FOLDED_COUNTERS];
        for (nibble, counters) in nibbles.iter_mut().zip(self.0.as_chunks::<8>().0) {
            let sum = counters.iter().fold(0, |sum: i64, counter| sum.wrapping_add(*counter));
            *nibble = sum as u8 & 0x0f;
        }
        let mut bytes = [0; FOLDED_COUNTERS / 2];
        for (byte, [low, high]) in bytes.iter_mut().zip(nibbles.as_chunks().0) {
            *byte = low | high << 4;
        }
        FoldedEstimator(bytes)
    }

    /// Wire bytes: 128 signed varints, one or two bytes each up to a million entries.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(2 * COUNTERS);
        for counter in self.0.iter() {
            varint::put_signed(&mut bytes, *counter);
        }
        bytes
    }

    /// Reads wire bytes.
    ///
    /// # Errors
    /// Anything but exactly 128 counters of 32 bits.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EstimatorError> {
        let mut reader = Reader::new(bytes);
        let mut counters = Box::new([0; COUNTERS]);
        for counter in counters.iter_mut() {
            *counter = checked(varint::read_signed(&mut reader)?)?;
        }
        reader.finish()?;
        Ok(Self(counters))
    }
}

fn checked(counter: i64) -> Result<i64, EstimatorError> {
    i32::try_from(counter).map(i64::from).map_err(|_| EstimatorError::Counter(counter))
}

/// The bytes of an estimator, as serde sees them.
#[derive(Serialize, Deserialize)]
struct Wire(#[serde(with = "crate::delta::bytes")] Vec<u8>);

impl From<Estimator> for Wire {
    fn from(estimator: Estimator) -> Self {
        Self(estimator.to_bytes())
    }
}

impl TryFrom<Wire> for Estimator {
    type Error = EstimatorError;

    fn try_from(wire: Wire) -> Result<Self, Self::Error> {
        Self::from_bytes(&wire.0)
    }
}

/// An [`Estimator`] folded into 16 counters of four bits: for the hello.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct FoldedEstimator(pub [u8; FOLDED_COUNTERS / 2]);

impl FoldedEstimator {
    /// Estimate of how many leaves only one of the two holds, 35 % off in one case of three; none
    /// when they are so many that four bits do not tell.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<u64> {
        let pairs = self.0.iter().zip(&other.0);
        let squares = pairs.flat_map(|(ours, theirs)| {
            [ours.wrapping_sub(*theirs) & 0x0f, (ours >> 4).wrapping_sub(theirs >> 4) & 0x0f]
                .map(|nibble| u64::from(nibble.min(16 - nibble)).pow(2))
        });
        Some(squares.sum()).filter(|sum| *sum <= FOLDED_TRUSTED)
    }
}

/// An [`Estimator`] of which each counter lost all but its lowest byte: 128 bytes, whatever the
/// collections hold.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct WrappedEstimator(pub Box<[u8; COUNTERS]>);

impl WrappedEstimator {
    /// Estimate of how many leaves only one of the two holds, as near as that of the whole
    /// counters; none when they are so many (beyond about 150,000) that a byte does not tell.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<u64> {
        let pairs = self.0.iter().zip(other.0.iter());
        let mut differences =
            pairs.map(|(ours, theirs)| ours.wrapping_sub(*theirs).cast_signed().unsigned_abs());
        differences.try_fold(0, |sum, difference| {
            (difference <= WRAPPED_TRUSTED).then_some(sum + u64::from(difference).pow(2))
        })
    }
}

impl Serialize for WrappedEstimator {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let (halves, _) = self.0.as_chunks::<32>();
        <[[u8; 32]; COUNTERS / 32]>::try_from(halves).unwrap_or_default().serialize(to)
    }
}

impl<'de> Deserialize<'de> for WrappedEstimator {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let quarters = <[[u8; 32]; COUNTERS / 32]>::deserialize(from)?;
        let mut counters = Box::new([0; COUNTERS]);
        counters.copy_from_slice(quarters.as_flattened());
        Ok(Self(counters))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn record(seed: u64, item: u64) -> RecordDigest {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..].copy_from_slice(&item.to_le_bytes());
        RecordDigest(blake3::hash(&bytes).into())
    }

    /// Share of 1,000 seeds whose estimate of `differing` is off by more than `tolerated`.
    fn misses(
        differing: u64,
        estimate: impl Fn(&Estimator, &Estimator) -> f64,
        tolerated: f64,
    ) -> u32 {
        let mut misses = 0;
        for seed in 0..1_000 {
            let (mut ours, mut theirs) = (Estimator::default(), Estimator::default());
            for item in 0..differing {
                let side = if item % 2 == 0 { &mut ours } else { &mut theirs };
                side.add(&record(seed, item));
            }
            let error = estimate(&ours, &theirs) / differing as f64 - 1.0;
            misses += u32::from(error.abs() > tolerated);
        }
        misses
    }

    /// Mean estimate and its standard error, both in units of `differing`, over 1,000 seeds, and
    /// how many of them say "many".
    fn figures(
        differing: u64,
        estimate: impl Fn(&Estimator, &Estimator) -> Option<u64>,
    ) -> (f64, f64, u32) {
        let (mut sum, mut squares, mut many) = (0.0, 0.0, 0);
        for seed in 0..1_000 {
            let (mut ours, mut theirs) = (Estimator::default(), Estimator::default());
            for item in 0..differing {
                let side = if item % 2 == 0 { &mut ours } else { &mut theirs };
                side.add(&record(seed, item));
            }
            match estimate(&ours, &theirs) {
                Some(estimate) => {
                    let estimate = estimate as f64 / differing as f64;
                    sum += estimate;
                    squares += (estimate - 1.0).powi(2);
                }
                None => many += 1,
            }
        }
        let known = f64::from(1_000 - many);
        (sum / known, (squares / known).sqrt(), many)
    }

    #[test]
    fn the_error_is_an_eighth_and_that_of_eight_bytes_a_third_up_to_thirty() {
        for differing in [30, 300] {
            let full = figures(differing, |ours, theirs| Some(ours.difference(theirs)));
            let wrapped =
                figures(differing, |ours, theirs| ours.wrapped().difference(&theirs.wrapped()));
            assert_eq!(full, wrapped);
            let (mean, error, _) = full;
            assert!((0.99..1.01).contains(&mean), "{differing}: {mean}");
            assert!((0.115..0.135).contains(&error), "{differing}: {error}");
        }
        for differing in [10, 20, 30] {
            let (mean, error, many) =
                figures(differing, |ours, theirs| ours.folded().difference(&theirs.folded()));
            assert!((0.96..1.03).contains(&mean), "{differing}: {mean}");
            assert!((0.30..0.37).contains(&error), "{differing}: {error}");
            assert!(many < 15, "{differing}: {many}");
        }
    }

    #[test]
    fn a_byte_of_each_counter_says_many_before_it_goes_round() {
        let of = |counter: i64| {
            let mut bytes = Vec::new();
            (0..COUNTERS).for_each(|_| varint::put_signed(&mut bytes, counter));
            Estimator::from_bytes(&bytes).unwrap().wrapped()
        };
        let none = Estimator::default().wrapped();
        assert_eq!(of(120).difference(&none), Some(128 * 120 * 120));
        assert_eq!(of(1_120).difference(&of(1_000)), Some(128 * 120 * 120));
        assert_eq!(none.difference(&of(-120)), Some(128 * 120 * 120));
        assert_eq!(of(121).difference(&none), None);
        let config = bincode::config::standard();
        let bytes = bincode::serde::encode_to_vec(of(77), config).unwrap();
        assert_eq!(bytes, [77; COUNTERS]);
        let (again, _): (WrappedEstimator, usize) =
            bincode::serde::decode_from_slice(&bytes, config).unwrap();
        assert_eq!(again, of(77));
    }

    #[test]
    fn two_estimates_of_three_are_within_an_eighth() {
        let full = |ours: &Estimator, theirs: &Estimator| ours.difference(theirs) as f64;
        for differing in [100, 1_000] {
            let beyond_one_sigma = misses(differing, full, 0.125);
            assert!((250..400).contains(&beyond_one_sigma), "{beyond_one_sigma}");
            let beyond_three_sigma = misses(differing, full, 0.375);
            assert!(beyond_three_sigma < 20, "{beyond_three_sigma}");
        }
    }

    #[test]
    fn eight_bytes_size_small_differences_and_admit_large_ones() {
        let folded = |ours: &Estimator, theirs: &Estimator| {
            ours.folded().difference(&theirs.folded()).map_or(f64::INFINITY, |d| d as f64)
        };
        let beyond_two_sigma = misses(20, folded, 0.70);
        assert!(beyond_two_sigma < 80, "{beyond_two_sigma}");
        let unknown = |ours: &Estimator, theirs: &Estimator| {
            let known = ours.folded().difference(&theirs.folded());
            known.map_or(1_000.0, |_| 0.0)
        };
        let believed = misses(1_000, unknown, 0.5);
        assert!(believed < 5, "{believed}");
    }

    proptest! {
        #[test]
        fn what_both_hold_cancels_out(
            common in prop::collection::vec(any::<u64>(), 0..50), seed: u64, bytes: [u8; 8],
        ) {
            let (mut ours, mut theirs) = (Estimator::default(), Estimator::default());
            for item in &common {
                ours.add(&record(seed, *item));
            }
            for item in common.iter().rev() {
                theirs.add(&record(seed, *item));
            }
            prop_assert_eq!(ours.difference(&theirs), 0);
            prop_assert_eq!(ours.folded().difference(&theirs.folded()), Some(0));
            prop_assert_eq!(Estimator::from_bytes(&ours.to_bytes()).unwrap(), ours.clone());
            let _ = ours.folded().difference(&FoldedEstimator(bytes));
            for item in &common {
                theirs.remove(&record(seed, *item));
            }
            prop_assert_eq!(theirs, Estimator::default());
        }

        #[test]
        fn any_bytes_are_refused_or_read_back(
            bytes in prop::collection::vec(any::<u8>(), 100..300),
        ) {
            if let Ok(estimator) = Estimator::from_bytes(&bytes) {
                prop_assert_eq!(estimator.to_bytes(), bytes);
            }
        }
    }

    #[test]
    fn it_travels_in_under_two_bytes_a_counter() {
        let config = bincode::config::standard();
        let mut estimator = Estimator::default();
        (0..200_000).for_each(|item| estimator.add(&record(1, item)));
        let bytes = bincode::serde::encode_to_vec(&estimator, config).unwrap();
        assert!(bytes.len() < 2 * COUNTERS);
        let (again, _): (Estimator, usize) =
            bincode::serde::decode_from_slice(&bytes, config).unwrap();
        assert_eq!(again, estimator);
    }

    #[test]
    fn hostile_counters_do_not_overflow() {
        let of = |counter: i64, count: usize| {
            let mut bytes = Vec::new();
            (0..count).for_each(|_| varint::put_signed(&mut bytes, counter));
            Estimator::from_bytes(&bytes)
        };
        let least = of(i64::from(i32::MIN), COUNTERS).unwrap();
        let most = of(i64::from(i32::MAX), COUNTERS).unwrap();
        assert_eq!(least.difference(&most), u64::MAX);
        let _ = least.folded().difference(&most.folded());
        assert!(of(0, 127).is_err() && of(0, 129).is_err());
        assert!(of(i64::MIN, COUNTERS).is_err() && of(1 << 31, COUNTERS).is_err());
        assert!(Estimator::from_bytes(&[]).is_err());
        assert!(Estimator::from_bytes(&[0; 129]).is_err());
        assert!(Estimator::from_bytes(&[0xff; 1_280]).is_err());
    }
}
