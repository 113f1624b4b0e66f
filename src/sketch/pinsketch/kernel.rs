//! What a sketch is made of and how it is read, over any arithmetic of the field.
//!
//! Everything is `inline(always)`, so that it is compiled once for each arithmetic, with the
//! instructions which that one may use.

use super::field::{Arithmetic, BITS};

/// How many ids are added side by side: each power waits for the one before it, so one id alone
/// would leave the multiplier idle.
const ABREAST: usize = 8;

/// Adds the odd powers of each id to the syndromes; an id that is there already is taken away.
#[inline(always)]
pub(super) fn toggle<A: Arithmetic>(syndromes: &mut [u64], ids: &[u64]) {
    let (chunks, rest) = ids.as_chunks::<ABREAST>();
    for chunk in chunks {
        toggle_abreast::<A, ABREAST>(syndromes, *chunk);
    }
    for id in rest {
        toggle_abreast::<A, 1>(syndromes, [*id]);
    }
}

#[inline(always)]
fn toggle_abreast<A: Arithmetic, const N: usize>(syndromes: &mut [u64], ids: [u64; N]) {
    let squares = ids.map(|id| A::square(id));
    let mut powers = ids;
    for syndrome in syndromes {
        let mut sum = 0;
        for (power, square) in powers.iter_mut().zip(&squares) {
            sum ^= *power;
            *power = A::multiply(*power, *square);
        }
        *syndrome ^= sum;
    }
}

/// The ids whose odd powers sum up to the syndromes, if there are no more than `most`.
///
/// O(t²) products for t syndromes to find the polynomial with the ids as roots, O(44 t²) for the
/// roots, whatever the syndromes are.
#[inline(always)]
pub(super) fn decode<A: Arithmetic>(syndromes: &[u64], most: usize) -> Option<Vec<u64>> {
    let mut polynomial = locator::<A>(syndromes, most)?;
    polynomial.reverse();
    let mut ids = roots::<A>(&polynomial)?;
    // what they give must be what was given: syndromes beyond twice their number are a check
    let mut check = vec![0; syndromes.len()];
    toggle::<A>(&mut check, &ids);
    ids.sort_unstable();
    (check == syndromes).then_some(ids)
}

/// The polynomial that has the inverses of the ids as roots, by Berlekamp and Massey (Massey
/// 1969). In characteristic two every second discrepancy is 0.
#[inline(always)]
fn locator<A: Arithmetic>(odd: &[u64], most: usize) -> Option<Vec<u64>> {
    let len = 2 * odd.len();
    let mut sums = vec![0; len];
    for at in 0..len {
        // the sum of the powers at + 1
        sums[at] = if at % 2 == 0 { odd[at / 2] } else { A::square(sums[at / 2]) };
    }
    let (mut locator, mut before) = (vec![1], vec![1]);
    let (mut size, mut gap, mut last) = (0, 1, 1);
    for at in (0..len).step_by(2) {
        let mut discrepancy = sums[at];
        for (back, coefficient) in locator.iter().enumerate().skip(1) {
            discrepancy ^= A::multiply(*coefficient, sums[at - back]);
        }
        if discrepancy != 0 {
            let factor = A::multiply(discrepancy, A::invert(last));
            let old = (2 * size <= at).then(|| locator.clone());
            if locator.len() < before.len() + gap {
                locator.resize(before.len() + gap, 0);
            }
            for (shifted, coefficient) in locator[gap..].iter_mut().zip(&before) {
                *shifted ^= A::multiply(factor, *coefficient);
            }
            if let Some(old) = old {
                (size, before, last, gap) = (at + 1 - size, old, discrepancy, 0);
                if size > most {
                    return None;
                }
            }
        }
        gap += 2;
    }
    while locator.last() == Some(&0) {
        locator.pop();
    }
    (locator.len() == size + 1).then_some(locator)
}

/// All roots of a polynomial without the root 0, lowest coefficient first, highest 1, if it has as
/// many different ones in the field as its degree says.
///
/// By traces (Berlekamp 1970): the trace of b x is 0 for about half of all x, and differs for any
/// two x with one of 44 independent b.
#[inline(always)]
fn roots<A: Arithmetic>(polynomial: &[u64]) -> Option<Vec<u64>> {
    let degree = polynomial.len() - 1;
    if degree < 2 {
        return Some(polynomial[..degree].to_vec());
    }
    let conjugates = conjugates::<A>(polynomial)?;
    let mut roots = Vec::with_capacity(degree);
    let mut factors = vec![polynomial.to_vec()];
    for bit in 0..BITS {
        let trace = trace::<A>(&conjugates, degree, 1 << bit);
        let mut split = Vec::with_capacity(2 * factors.len());
        for factor in factors {
            let part = greatest_common_divisor::<A>(&factor, &trace);
            if part.len() > 1 && part.len() < factor.len() {
                split.push(quotient::<A>(&factor, &part));
                split.push(part);
            } else {
                split.push(factor);
            }
        }
        factors = split;
        factors.retain(|factor| {
            let is_linear = factor.len() == 2;
            if is_linear {
                roots.push(factor[0]);
            }
            !is_linear
        });
        if factors.is_empty() {
            return Some(roots);
        }
    }
    None
}

/// x to the powers 2^0 to 2^43 modulo the polynomial, one after the other; none if 2^44 does not
/// lead back to x: then not all its roots are in the field, or some are the same.
#[inline(always)]
fn conjugates<A: Arithmetic>(polynomial: &[u64]) -> Option<Vec<u64>> {
    let degree = polynomial.len() - 1;
    // x^(2j) for each j whose square is beyond the degree
    let first = degree.div_ceil(2);
    let mut high: Vec<u64> = Vec::with_capacity(degree * (degree - first));
    let mut power: Vec<u64> = polynomial[..degree].to_vec();
    for exponent in degree..=2 * (degree - 1) {
        if exponent > degree {
            let top = power[degree - 1];
            power.copy_within(..degree - 1, 1);
            power[0] = 0;
            for (coefficient, below) in power.iter_mut().zip(polynomial) {
                *coefficient ^= A::multiply(top, *below);
            }
        }
        if exponent % 2 == 0 {
            high.extend_from_slice(&power);
        }
    }
    let mut all = vec![0; degree * BITS as usize];
    all[1] = 1;
    let mut next = vec![0; degree];
    for number in 1..=BITS as usize {
        let last = &all[(number - 1) * degree..number * degree];
        next.fill(0);
        for (exponent, coefficient) in last[..first].iter().enumerate() {
            next[2 * exponent] = A::square(*coefficient);
        }
        for (coefficient, power) in last[first..].iter().zip(high.chunks_exact(degree)) {
            let square = A::square(*coefficient);
            for (sum, of_power) in next.iter_mut().zip(power) {
                *sum ^= A::multiply(square, *of_power);
            }
        }
        if number < BITS as usize {
            all[number * degree..(number + 1) * degree].copy_from_slice(&next);
        }
    }
    (next == all[..degree]).then_some(all)
}

/// The trace of `scale` x modulo the polynomial, from the conjugates of x.
#[inline(always)]
fn trace<A: Arithmetic>(conjugates: &[u64], degree: usize, scale: u64) -> Vec<u64> {
    let mut sum = vec![0; degree];
    let mut scale = scale;
    for conjugate in conjugates.chunks_exact(degree) {
        for (sum, coefficient) in sum.iter_mut().zip(conjugate) {
            *sum ^= A::multiply(scale, *coefficient);
        }
        scale = A::square(scale);
    }
    sum
}

/// With highest coefficient 1.
#[inline(always)]
fn greatest_common_divisor<A: Arithmetic>(monic: &[u64], other: &[u64]) -> Vec<u64> {
    let (mut great, mut small) = (monic.to_vec(), other.to_vec());
    remain::<A>(&mut small, &great);
    while !small.is_empty() {
        let lead = A::invert(small[small.len() - 1]);
        for coefficient in &mut small {
            *coefficient = A::multiply(*coefficient, lead);
        }
        remain::<A>(&mut great, &small);
        std::mem::swap(&mut great, &mut small);
    }
    great
}

/// What is left of a polynomial modulo one with highest coefficient 1, without leading zeros.
#[inline(always)]
fn remain<A: Arithmetic>(polynomial: &mut Vec<u64>, monic: &[u64]) {
    let degree = monic.len() - 1;
    while polynomial.len() > degree {
        let Some(top) = polynomial.pop() else { break };
        let below = polynomial.len() - degree;
        for (coefficient, of_monic) in polynomial[below..].iter_mut().zip(monic) {
            *coefficient ^= A::multiply(top, *of_monic);
        }
    }
    while polynomial.last() == Some(&0) {
        polynomial.pop();
    }
}

/// A polynomial over one of its factors, both with highest coefficient 1.
#[inline(always)]
fn quotient<A: Arithmetic>(polynomial: &[u64], factor: &[u64]) -> Vec<u64> {
    let degree = factor.len() - 1;
    let mut left = polynomial.to_vec();
    let mut quotient = vec![0; polynomial.len() - degree];
    for at in (0..quotient.len()).rev() {
        let top = left[at + degree];
        quotient[at] = top;
        for (coefficient, of_factor) in left[at..at + degree].iter_mut().zip(factor) {
            *coefficient ^= A::multiply(top, *of_factor);
        }
    }
    quotient
}
