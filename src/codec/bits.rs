//! Numbers of a few bits each, packed without gaps: most significant bit first.
//!
//! A reader takes nothing that is not there, and at [`BitReader::finish`] refuses whole bytes left
//! over and padding that is not zero: so what is accepted has one form. Besides numbers of a given
//! width there are two codes for numbers of any size, for those that are nearly always small:
//! Elias gamma (Elias, 1975) and Golomb-Rice (Golomb, 1966; Rice, 1971).
//!
//! ```
//! use selfsame::codec::bits::{BitReader, BitWriter};
//!
//! let mut bits = BitWriter::default();
//! bits.put(5, 3);
//! bits.put_gamma(9);
//! bits.put_rice(300, 7);
//! let bytes = bits.finish();
//! assert_eq!(bytes.len(), 3);
//! let mut reader = BitReader::new(&bytes);
//! assert_eq!((reader.read(3)?, reader.gamma()?, reader.rice(7)?), (5, 9, 300));
//! reader.finish()?;
//! # Ok::<(), selfsame::codec::CodecError>(())
//! ```

use super::CodecError;

/// Packs bits into bytes.
#[derive(Clone, Debug, Default)]
pub struct BitWriter {
    bytes: Vec<u8>,
    /// Bits of the last byte that are free.
    free: u8,
}

impl BitWriter {
    /// The `width` lowest bits of a number, at most 64.
    pub fn put(&mut self, value: u64, width: u8) {
        let mut left = width.min(64);
        while left > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let take = left.min(self.free);
            let part = (value >> (left - take)) as u8 & (0xff >> (8 - take));
            if let Some(last) = self.bytes.last_mut() {
                *last |= part << (self.free - take);
            }
            self.free -= take;
            left -= take;
        }
    }

    /// One bit.
    pub fn put_bit(&mut self, bit: bool) {
        self.put(u64::from(bit), 1);
    }

    /// A number of at least 1 (0 is taken for 1) in 2 log2 + 1 bits.
    pub fn put_gamma(&mut self, value: u64) {
        let value = value.max(1);
        let log = value.ilog2() as u8;
        self.put(0, log);
        self.put(value, log + 1);
    }

    /// A number in `low` bits for its lowest ones, and one bit for each time that 2^low goes into
    /// it, and one: short for numbers of about 2^low.
    pub fn put_rice(&mut self, value: u64, low: u8) {
        let low = low.min(63);
        let mut ones = value >> low;
        while ones > 0 {
            let some = ones.min(64);
            self.put(u64::MAX, some as u8);
            ones -= some;
        }
        self.put(0, 1);
        self.put(value, low);
    }

    /// Number of bits so far.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len() * 8 - self.free as usize
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes, the last one filled up with zeros.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// A cursor over packed bits.
#[derive(Clone, Debug)]
pub struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    /// Starts at the first bit.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bits are left.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.bytes.len() * 8 - self.at
    }

    /// A number of `width` bits, at most 64.
    ///
    /// # Errors
    /// Fewer bits than that are left.
    pub fn read(&mut self, width: u8) -> Result<u64, CodecError> {
        let mut left = width.min(64);
        if usize::from(left) > self.remaining() {
            return Err(CodecError::Truncated);
        }
        let mut value = 0;
        while left > 0 {
            let byte = self.bytes.get(self.at / 8).copied().unwrap_or_default();
            let free = 8 - (self.at % 8) as u8;
            let take = left.min(free);
            let part = (byte >> (free - take)) & (0xff >> (8 - take));
            value = value << take | u64::from(part);
            self.at += usize::from(take);
            left -= take;
        }
        Ok(value)
    }

    /// One bit.
    ///
    /// # Errors
    /// None is left.
    pub fn bit(&mut self) -> Result<bool, CodecError> {
        Ok(self.read(1)? == 1)
    }

    /// A number that was put by [`BitWriter::put_gamma`].
    ///
    /// # Errors
    /// The bits end before it does, or it has over 64.
    pub fn gamma(&mut self) -> Result<u64, CodecError> {
        let mut log = 0;
        while !self.bit()? {
            log += 1;
            if log > 63 {
                return Err(CodecError::Invalid("a number is over 64 bits"));
            }
        }
        Ok(1 << log | self.read(log)?)
    }

    /// A number that was put by [`BitWriter::put_rice`] with as many low bits.
    ///
    /// # Errors
    /// The bits end before it does, or it has over 64.
    pub fn rice(&mut self, low: u8) -> Result<u64, CodecError> {
        let low = low.min(63);
        let mut ones = 0u64;
        while self.bit()? {
            ones += 1;
        }
        if ones > u64::MAX >> low {
            return Err(CodecError::Invalid("a number is over 64 bits"));
        }
        Ok(ones << low | self.read(low)?)
    }

    /// Checks that nothing is left but padding.
    ///
    /// # Errors
    /// A byte or more is left, or padding that is not zero.
    pub fn finish(mut self) -> Result<(), CodecError> {
        let left = self.remaining();
        if left >= 8 {
            return Err(CodecError::Trailing(left / 8));
        }
        match self.read(left as u8)? {
            0 => Ok(()),
            _ => Err(CodecError::Invalid("padding is not zero")),
        }
    }
}

/// Low bits with which a Rice code of numbers of this mean is shortest, about.
#[must_use]
pub const fn rice_low(mean: u64) -> u8 {
    // log2(mean ln 2), rounded
    match mean.saturating_mul(71) / 100 {
        0 => 0,
        some => some.ilog2() as u8,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Number {
        Plain(u64, u8),
        Gamma(u64),
        Rice(u64, u8),
    }

    fn number() -> impl Strategy<Value = Number> {
        prop_oneof![
            (any::<u64>(), 0u8..=64).prop_map(|(value, width)| {
                let mask = if width == 0 { 0 } else { u64::MAX >> (64 - width) };
                Number::Plain(value & mask, width)
            }),
            (1u64..).prop_map(Number::Gamma),
            (0u64..1 << 20, 8u8..20).prop_map(|(value, low)| Number::Rice(value, low)),
        ]
    }

    proptest! {
        #[test]
        fn numbers_come_back(numbers in prop::collection::vec(number(), 0..40)) {
            let mut writer = BitWriter::default();
            for number in &numbers {
                match *number {
                    Number::Plain(value, width) => writer.put(value, width),
                    Number::Gamma(value) => writer.put_gamma(value),
                    Number::Rice(value, low) => writer.put_rice(value, low),
                }
            }
            let bits = writer.len();
            let bytes = writer.finish();
            prop_assert_eq!(bytes.len(), bits.div_ceil(8));
            let mut reader = BitReader::new(&bytes);
            for number in &numbers {
                match *number {
                    Number::Plain(value, width) => prop_assert_eq!(reader.read(width).unwrap(), value),
                    Number::Gamma(value) => prop_assert_eq!(reader.gamma().unwrap(), value),
                    Number::Rice(value, low) => prop_assert_eq!(reader.rice(low).unwrap(), value),
                }
            }
            prop_assert!(reader.finish().is_ok());
        }

        #[test]
        fn what_is_accepted_has_one_form(
            bytes in prop::collection::vec(any::<u8>(), 0..24),
            low in 0u8..70,
            gamma: bool,
        ) {
            let mut reader = BitReader::new(&bytes);
            let mut writer = BitWriter::default();
            let read = if gamma { reader.gamma() } else { reader.rice(low) };
            if let Ok(value) = read {
                if gamma { writer.put_gamma(value) } else { writer.put_rice(value, low) }
                prop_assert_eq!(writer.len(), bytes.len() * 8 - reader.remaining());
                let again = writer.finish();
                let whole = again.len().saturating_sub(1);
                prop_assert_eq!(&again[..whole], &bytes[..whole]);
            }
        }
    }

    #[test]
    fn what_is_left_over_is_refused() {
        assert!(BitReader::new(&[]).finish().is_ok());
        assert!(BitReader::new(&[0]).finish().is_err());
        let mut reader = BitReader::new(&[0b1010_0000]);
        assert_eq!(reader.read(3).unwrap(), 5);
        assert!(reader.finish().is_ok());
        let mut reader = BitReader::new(&[0b1010_0001]);
        assert_eq!(reader.read(3).unwrap(), 5);
        assert!(reader.finish().is_err(), "padding");
    }

    #[test]
    fn numbers_without_end_are_refused_by_what_is_there() {
        assert_eq!(BitReader::new(&[0xff; 3]).rice(0), Err(CodecError::Truncated));
        assert!(BitReader::new(&[0; 32]).gamma().is_err());
        assert!(BitReader::new(&[0xff, 0xff, 0]).rice(63).is_err(), "16 times 2^63");
        assert_eq!(BitReader::new(&[1]).read(9), Err(CodecError::Truncated));
    }

    #[test]
    fn rice_codes_of_gaps_are_near_their_entropy() {
        // gaps of 1,000 ids among 2^20: log2(2^20 / 1,000) + 1.44 bits each at least
        let mut state = 1u64;
        let mut ids: Vec<u64> = (0..1_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                state >> 44
            })
            .collect();
        ids.sort_unstable();
        let mut writer = BitWriter::default();
        let low = rice_low((1 << 20) / 1_000);
        ids.iter().fold(0, |last, &id| {
            writer.put_rice(id - last, low);
            id
        });
        assert!(writer.len() < 11_800, "{}", writer.len());
    }
}
