//! GF(2^44) as polynomials over GF(2) modulo x^44 + x^5 + 1, which is irreducible.

/// Bits of an element.
pub(super) const BITS: u32 = 44;
/// The bits that an element may have.
pub(super) const MASK: u64 = (1 << BITS) - 1;

/// How elements are multiplied. All give the same.
pub(super) trait Arithmetic {
    /// The product of two polynomials of 44 bits, of 87 bits.
    fn carry_less(a: u64, b: u64) -> (u64, u64);
    /// The square of a polynomial, of 87 bits.
    fn spread(a: u64) -> (u64, u64);

    /// The product of two elements.
    #[inline(always)]
    fn multiply(a: u64, b: u64) -> u64 {
        reduce(Self::carry_less(a, b))
    }

    /// The square of an element.
    #[inline(always)]
    fn square(a: u64) -> u64 {
        reduce(Self::spread(a))
    }

    /// The inverse of an element other than 0, as its power 2^44 - 2 (Itoh and Tsujii 1988).
    #[inline(always)]
    fn invert(a: u64) -> u64 {
        // of each: a to the power 2^k - 1
        let again = |power: u64, times: u32| (0..times).fold(power, |p, _| Self::square(p));
        let two = Self::multiply(again(a, 1), a);
        let four = Self::multiply(again(two, 2), two);
        let eight = Self::multiply(again(four, 4), four);
        let sixteen = Self::multiply(again(eight, 8), eight);
        let all = Self::multiply(again(sixteen, 16), sixteen);
        let all = Self::multiply(again(all, 8), eight);
        let all = Self::multiply(again(all, 2), two);
        Self::square(Self::multiply(again(all, 1), a))
    }
}

/// Low and high half of a product, modulo the polynomial of the field.
#[inline(always)]
const fn reduce((low, high): (u64, u64)) -> u64 {
    let above = (low >> BITS) | (high << (64 - BITS));
    let once = (low & MASK) ^ above ^ (above << 5);
    let over = once >> BITS;
    (once & MASK) ^ over ^ (over << 5)
}

/// With nothing but integer instructions, in a time that does not depend on the operands.
pub(super) struct Portable;

impl Arithmetic for Portable {
    /// Integer products of operands in which three of four bits are 0: a column sums up eleven
    /// bits at most, so no carry reaches the next one that counts.
    #[inline(always)]
    fn carry_less(a: u64, b: u64) -> (u64, u64) {
        const COLUMNS: u128 = 0x1111_1111_1111_1111_1111_1111_1111_1111;
        let part = |of: u64, at: usize| u128::from(of & (0x1111_1111_1111_1111 << at));
        let mut product = 0;
        for column in 0..4 {
            let mut sum = 0;
            for at in 0..4 {
                sum ^= part(a, at) * part(b, (column + 4 - at) % 4);
            }
            product ^= sum & (COLUMNS << column);
        }
        (product as u64, (product >> 64) as u64)
    }

    #[inline(always)]
    fn spread(a: u64) -> (u64, u64) {
        let half = |bits: u64| {
            let mut bits = bits & 0xffff_ffff;
            bits = (bits | (bits << 16)) & 0x0000_ffff_0000_ffff;
            bits = (bits | (bits << 8)) & 0x00ff_00ff_00ff_00ff;
            bits = (bits | (bits << 4)) & 0x0f0f_0f0f_0f0f_0f0f;
            bits = (bits | (bits << 2)) & 0x3333_3333_3333_3333;
            (bits | (bits << 1)) & 0x5555_5555_5555_5555
        };
        (half(a), half(a >> 32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bit by bit.
    fn product(a: u64, b: u64) -> u64 {
        let mut product = (0..BITS)
            .filter(|bit| b >> bit & 1 == 1)
            .fold(0u128, |sum, bit| sum ^ (u128::from(a) << bit));
        for bit in (BITS..2 * BITS).rev() {
            if product >> bit & 1 == 1 {
                product ^= ((1u128 << BITS) | 0b10_0001) << (bit - BITS);
            }
        }
        product as u64
    }

    proptest! {
        #[test]
        fn the_field_has_the_products_of_polynomials(a in 0..=MASK, b in 0..=MASK, c in 0..=MASK) {
            prop_assert_eq!(Portable::multiply(a, b), product(a, b));
            prop_assert_eq!(Portable::square(a), product(a, a));
            prop_assert_eq!(
                Portable::multiply(a, b ^ c), Portable::multiply(a, b) ^ Portable::multiply(a, c)
            );
        }

        #[test]
        fn every_element_but_zero_has_an_inverse(a in 1..=MASK) {
            prop_assert_eq!(product(a, Portable::invert(a)), 1);
        }
    }

    #[test]
    fn the_edges_of_the_field_hold() {
        for a in [0, 1, 2, MASK, 1 << 43, (1 << 43) | 1] {
            for b in [0, 1, 2, MASK, 1 << 43, 0x0555_5555_5555, 0x0aaa_aaaa_aaaa] {
                assert_eq!(Portable::multiply(a, b), product(a, b), "{a:x} {b:x}");
            }
        }
    }
}
