//! Numbers of any number of bits in bytes, without gaps, most significant bit first.

/// The numbers, `bits` (1 to 57) of each; zero bits fill the last byte.
pub(super) fn write_bits(numbers: &[u64], bits: u32) -> Vec<u8> {
    let mut writer = BitWriter::default();
    writer.bytes.reserve((numbers.len() * bits as usize).div_ceil(8));
    for number in numbers {
        writer.put(*number, bits);
    }
    writer.finish()
}

/// So many numbers of `bits` (1 to 57) bits; none if the bytes are more or fewer, or do not end in
/// zero bits.
pub(super) fn read_bits(bytes: &[u8], bits: u32, count: usize) -> Option<Vec<u64>> {
    if count.checked_mul(bits as usize)?.div_ceil(8) != bytes.len() {
        return None;
    }
    let mut reader = BitReader::new(bytes);
    let numbers = (0..count).map(|_| reader.take(bits)).collect::<Option<Vec<u64>>>()?;
    reader.finish().then_some(numbers)
}

/// Bits that are gathered into bytes.
#[derive(Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    /// Bits that fill no byte yet, fewer than eight, in the lowest places.
    held: u64,
    count: u32,
}

impl BitWriter {
    /// Writes the lowest `bits` bits, at most 57.
    pub(super) fn put(&mut self, number: u64, bits: u32) {
        self.held = self.held << bits | (number & ((1 << bits) - 1));
        self.count += bits;
        while self.count >= 8 {
            self.count -= 8;
            self.bytes.push((self.held >> self.count) as u8);
        }
        self.held &= (1 << self.count) - 1;
    }

    /// The bytes, the last one filled with zero bits.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.count > 0 {
            self.put(0, 8 - self.count);
        }
        self.bytes
    }
}

/// Bits taken out of bytes.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    held: u64,
    count: u32,
}

impl<'a> BitReader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, held: 0, count: 0 }
    }

    /// The next `bits` bits, at most 57; none if there are fewer.
    pub(super) fn take(&mut self, bits: u32) -> Option<u64> {
        while self.count < bits {
            let (first, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            self.held = self.held << 8 | u64::from(*first);
            self.count += 8;
        }
        self.count -= bits;
        let number = self.held >> self.count;
        self.held &= (1 << self.count) - 1;
        Some(number)
    }

    /// Whether nothing is left but fewer than eight zero bits.
    pub(super) const fn finish(self) -> bool {
        self.bytes.is_empty() && self.held == 0 && self.count < 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bits_come_back_in_one_form(
            numbers in prop::collection::vec(any::<u64>(), 0..40), bits in 1u32..=57,
            more: u8, at: usize,
        ) {
            let numbers: Vec<u64> = numbers.iter().map(|one| one & ((1 << bits) - 1)).collect();
            let bytes = write_bits(&numbers, bits);
            let count = numbers.len();
            prop_assert_eq!(bytes.len(), (count * bits as usize).div_ceil(8));
            prop_assert_eq!(read_bits(&bytes, bits, count), Some(numbers));
            let mut longer = bytes.clone();
            longer.push(more);
            prop_assert_eq!(read_bits(&longer, bits, count), None);
            prop_assert_eq!(read_bits(&bytes, bits, usize::MAX), None);
            if !bytes.is_empty() {
                prop_assert_eq!(read_bits(&bytes[1..], bits, count), None);
                let mut other = bytes.clone();
                let place = at % bytes.len();
                other[place] ^= more;
                if let Some(numbers) = read_bits(&other, bits, count) {
                    prop_assert_eq!(write_bits(&numbers, bits), other);
                }
            }
        }
    }

    #[test]
    fn the_first_bit_is_the_most_significant() {
        assert_eq!(write_bits(&[0b101, 0b010, 0b111], 3), [0b1010_1011, 0b1000_0000]);
    }
}
