//! GF(2^m) as polynomials over GF(2) modulo an irreducible x^m + x^t + 1.

/// How elements of one field are multiplied. All arithmetics of a field give the same.
pub(super) trait Arithmetic {
    /// m: bits of an element. Odd, so that quadratic equations have a closed solution.
    const BITS: u32;
    /// t: the middle power of the field's polynomial.
    const TAP: u32;
    /// The bits that an element may have.
    const MASK: u64 = (1 << Self::BITS) - 1;

    /// A product or a sum of products that is not reduced yet.
    type Wide: Copy;
    /// No products.
    fn nothing() -> Self::Wide;
    /// The product of two elements, as polynomials.
    fn carry_less(a: u64, b: u64) -> Self::Wide;
    /// The square of an element, as a polynomial.
    fn spread(a: u64) -> Self::Wide;
    /// The sum of two products.
    fn add(a: Self::Wide, b: Self::Wide) -> Self::Wide;
    /// Low and high half.
    fn halves(wide: Self::Wide) -> (u64, u64);

    /// Modulo the polynomial of the field.
    #[inline(always)]
    fn reduce(wide: Self::Wide) -> u64 {
        let (low, high) = Self::halves(wide);
        let above = (low >> Self::BITS) | (high << (64 - Self::BITS));
        let once = (low & Self::MASK) ^ above ^ (above << Self::TAP);
        let over = once >> Self::BITS;
        (once & Self::MASK) ^ over ^ (over << Self::TAP)
    }

    /// The product of two elements.
    #[inline(always)]
    fn multiply(a: u64, b: u64) -> u64 {
        Self::reduce(Self::carry_less(a, b))
    }

    /// The square of an element.
    #[inline(always)]
    fn square(a: u64) -> u64 {
        Self::reduce(Self::spread(a))
    }

    /// The inverse of an element other than 0, as its power 2^m - 2 (Itoh and Tsujii 1988).
    #[inline(always)]
    fn invert(a: u64) -> u64 {
        let last = Self::BITS - 1;
        // a to the power 2^have - 1
        let (mut power, mut have) = (a, 1);
        for bit in (0..last.ilog2()).rev() {
            let twice = (0..have).fold(power, |power, _| Self::square(power));
            (power, have) = (Self::multiply(twice, power), 2 * have);
            if last >> bit & 1 == 1 {
                (power, have) = (Self::multiply(Self::square(power), a), have + 1);
            }
        }
        Self::square(power)
    }

    /// y with y² + y = a, if there is one: the sum of every second conjugate of a. It is linear,
    /// so it is the sum of those of the bits of a.
    #[inline(always)]
    fn half_trace(a: u64) -> u64 {
        let table = const { half_traces(Self::BITS, Self::TAP) };
        let bits = 0..Self::BITS as usize;
        bits.fold(0, |sum, bit| sum ^ (table[bit] & (a >> bit & 1).wrapping_neg()))
    }
}

const fn half_traces(bits: u32, tap: u32) -> [u64; 64] {
    let mut table = [0; 64];
    let mut bit = 0;
    while bit < bits {
        let (mut conjugate, mut at) = (1 << bit, 0);
        while at < bits.div_ceil(2) {
            table[bit as usize] ^= conjugate;
            conjugate = square_slowly(square_slowly(conjugate, bits, tap), bits, tap);
            at += 1;
        }
        bit += 1;
    }
    table
}

const fn square_slowly(a: u64, bits: u32, tap: u32) -> u64 {
    let (mut square, mut bit) = (0_u128, 0);
    while bit < bits {
        square |= ((a >> bit & 1) as u128) << (2 * bit);
        bit += 1;
    }
    let mut over = 2 * bits - 1;
    while over >= bits {
        if square >> over & 1 == 1 {
            square ^= ((1 << bits) | (1 << tap) | 1) << (over - bits);
        }
        over -= 1;
    }
    square as u64
}

/// With nothing but integer instructions, in a time that does not depend on the operands.
pub(super) struct Portable<const BITS: u32, const TAP: u32>;

impl<const BITS: u32, const TAP: u32> Arithmetic for Portable<BITS, TAP> {
    const BITS: u32 = BITS;
    const TAP: u32 = TAP;
    type Wide = u128;

    #[inline(always)]
    fn nothing() -> u128 {
        0
    }

    /// Integer products of operands in which three of four bits are 0: a column sums up ten
    /// bits at most, so no carry reaches the next one that counts.
    #[inline(always)]
    fn carry_less(a: u64, b: u64) -> u128 {
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
        product
    }

    #[inline(always)]
    fn spread(a: u64) -> u128 {
        let half = |bits: u64| {
            let mut bits = bits & 0xffff_ffff;
            bits = (bits | (bits << 16)) & 0x0000_ffff_0000_ffff;
            bits = (bits | (bits << 8)) & 0x00ff_00ff_00ff_00ff;
            bits = (bits | (bits << 4)) & 0x0f0f_0f0f_0f0f_0f0f;
            bits = (bits | (bits << 2)) & 0x3333_3333_3333_3333;
            (bits | (bits << 1)) & 0x5555_5555_5555_5555
        };
        u128::from(half(a)) | u128::from(half(a >> 32)) << 64
    }

    #[inline(always)]
    fn add(a: u128, b: u128) -> u128 {
        a ^ b
    }

    #[inline(always)]
    fn halves(wide: u128) -> (u64, u64) {
        (wide as u64, (wide >> 64) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Narrow = Portable<29, 2>;
    type Wide = Portable<39, 4>;

    /// Bit by bit.
    fn product<A: Arithmetic>(a: u64, b: u64) -> u64 {
        let mut product = (0..A::BITS)
            .filter(|bit| b >> bit & 1 == 1)
            .fold(0u128, |sum, bit| sum ^ (u128::from(a) << bit));
        for bit in (A::BITS..2 * A::BITS).rev() {
            if product >> bit & 1 == 1 {
                product ^= ((1u128 << A::BITS) | (1 << A::TAP) | 1) << (bit - A::BITS);
            }
        }
        product as u64
    }

    fn products<A: Arithmetic>(a: u64, b: u64, c: u64) {
        let (a, b, c) = (a & A::MASK, b & A::MASK, c & A::MASK);
        assert_eq!(A::multiply(a, b), product::<A>(a, b), "{a:x} {b:x}");
        assert_eq!(A::square(a), product::<A>(a, a), "{a:x}");
        assert_eq!(A::multiply(a, b ^ c), A::multiply(a, b) ^ A::multiply(a, c));
        let sum = A::add(A::carry_less(a, b), A::carry_less(a, c));
        assert_eq!(A::reduce(A::add(sum, A::nothing())), A::multiply(a, b ^ c));
        if a != 0 {
            assert_eq!(product::<A>(a, A::invert(a)), 1, "{a:x}");
        }
        // of two y, one each for a and for all that is no y² + y
        let root = A::half_trace(A::square(a) ^ a);
        assert!(root == a || root == a ^ 1, "{a:x}");
    }

    proptest! {
        #[test]
        fn the_fields_have_the_products_of_polynomials(a: u64, b: u64, c: u64) {
            products::<Narrow>(a, b, c);
            products::<Wide>(a, b, c);
        }
    }

    #[test]
    fn the_edges_of_the_fields_hold() {
        for a in [0, 1, 2, u64::MAX, 1 << 28, 1 << 38, 0x5555_5555_5555_5555, (1 << 38) | 1] {
            for b in [0, 1, 2, u64::MAX, 1 << 28, 1 << 38, 0xaaaa_aaaa_aaaa_aaaa] {
                products::<Narrow>(a, b, 1);
                products::<Wide>(a, b, 1);
            }
        }
    }

    /// Rabin 1980: x is its own m-th conjugate, and of no lesser power that divides m.
    fn is_irreducible<A: Arithmetic>(prime_divisors: &[u32]) {
        let conjugate = |times: u32| (0..times).fold(2, |x, _| A::square(x));
        assert_eq!(conjugate(A::BITS), 2);
        for divisor in prime_divisors {
            let other = conjugate(A::BITS / divisor) ^ 2;
            assert_eq!(product::<A>(other, A::invert(other)), 1, "no common divisor");
        }
    }

    #[test]
    fn the_polynomials_are_irreducible() {
        is_irreducible::<Narrow>(&[29]);
        is_irreducible::<Wide>(&[3, 13]);
    }
}
