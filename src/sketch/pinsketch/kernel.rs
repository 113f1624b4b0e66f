//! What a sketch is made of and how it is read, over any arithmetic of a field.
//!
//! Everything is `inline(always)`, so that it is compiled once for each arithmetic, with the
//! instructions which that one may use. Sums of products are reduced once, and quotients are
//! avoided: an inverse costs as much as forty products, one after the other.

use super::field::Arithmetic;

/// How many powers are computed side by side: each waits for the one before it, so one alone
/// would leave the multiplier idle.
const ABREAST: usize = 8;

/// Adds odd powers of each id to the syndromes, of which the first one is that of the power
/// 2 `first` + 1; an id that is there already is taken away.
#[inline(always)]
pub(super) fn toggle<A: Arithmetic>(syndromes: &mut [u64], first: u32, ids: &[u64]) {
    let (chunks, rest) = ids.as_chunks::<ABREAST>();
    for chunk in chunks {
        toggle_abreast::<A>(syndromes, first, *chunk);
    }
    for id in rest {
        toggle_one::<A>(syndromes, first, *id);
    }
}

#[inline(always)]
fn toggle_abreast<A: Arithmetic>(syndromes: &mut [u64], first: u32, ids: [u64; ABREAST]) {
    let squares = ids.map(|id| A::square(id));
    let mut powers = ids.map(|id| odd_power::<A>(id, first));
    for syndrome in syndromes {
        let mut sum = 0;
        for (power, square) in powers.iter_mut().zip(&squares) {
            sum ^= *power;
            *power = A::multiply(*power, *square);
        }
        *syndrome ^= sum;
    }
}

#[inline(always)]
fn toggle_one<A: Arithmetic>(syndromes: &mut [u64], first: u32, id: u64) {
    let mut powers = [odd_power::<A>(id, first); ABREAST];
    let mut step = A::square(id);
    let mut known = 1;
    while known < ABREAST {
        for at in 0..known {
            powers[known + at] = A::multiply(powers[at], step);
        }
        (step, known) = (A::square(step), 2 * known);
    }
    for chunk in syndromes.chunks_mut(ABREAST) {
        for (syndrome, power) in chunk.iter_mut().zip(&mut powers) {
            *syndrome ^= *power;
            *power = A::multiply(*power, step);
        }
    }
}

/// The id to the power 2 `number` + 1.
#[inline(always)]
fn odd_power<A: Arithmetic>(id: u64, number: u32) -> u64 {
    let (mut power, mut square) = (id, id);
    for bit in 0..u32::BITS - number.leading_zeros() {
        square = A::square(square);
        if number >> bit & 1 == 1 {
            power = A::multiply(power, square);
        }
    }
    power
}

/// Products that a decoding took, and how many it may take.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(in crate::sketch) struct Work {
    /// Taken so far.
    pub(in crate::sketch) done: u64,
    /// Beyond this nothing more is begun.
    pub(in crate::sketch) most: u64,
}

impl Work {
    /// Takes so many; none if there was too much already.
    #[inline(always)]
    fn take(&mut self, products: usize) -> Option<()> {
        self.done = self.done.saturating_add(products as u64);
        (self.done <= self.most).then_some(())
    }
}

/// The ids whose odd powers sum up to the syndromes, if there are no more than `most` of them
/// and the work that it takes is allowed.
#[inline(always)]
pub(super) fn decode<A: Arithmetic>(
    syndromes: &[u64],
    most: usize,
    work: &mut Work,
) -> Option<Vec<u64>> {
    if syndromes.iter().all(|syndrome| *syndrome == 0) {
        return Some(Vec::new());
    }
    let mut polynomial = locator::<A>(syndromes, most, work)?;
    polynomial.reverse();
    make_monic::<A>(&mut polynomial);
    let mut ids = roots::<A>(polynomial, work)?;
    // what they give must be what was given: syndromes beyond their number are a check
    work.take(ids.len() * syndromes.len())?;
    let mut check = vec![0; syndromes.len()];
    toggle::<A>(&mut check, 0, &ids);
    ids.sort_unstable();
    (check == syndromes).then_some(ids)
}

/// A polynomial that has the inverses of the ids as roots, by Berlekamp and Massey (Massey 1969),
/// without divisions. In characteristic two every second discrepancy is 0.
#[inline(always)]
fn locator<A: Arithmetic>(odd: &[u64], most: usize, work: &mut Work) -> Option<Vec<u64>> {
    let len = 2 * odd.len();
    // in reverse, so that the latest sums begin a slice: the sum of the powers at + 1
    let mut sums = vec![0; len];
    for at in 0..len {
        sums[len - 1 - at] =
            if at % 2 == 0 { odd[at / 2] } else { A::square(sums[len - 1 - at / 2]) };
    }
    let (mut locator, mut before, mut next) = (vec![1], vec![1], Vec::new());
    let (mut size, mut gap, mut last) = (0, 1, 1);
    for at in (0..len).step_by(2) {
        let discrepancy = inner::<A>(&locator, &sums[len - 1 - at..]);
        work.take(locator.len())?;
        if discrepancy != 0 {
            let both = locator.len().max(before.len() + gap);
            next.clear();
            next.extend((0..both).map(|at| {
                let own = A::carry_less(last, locator.get(at).copied().unwrap_or(0));
                let shifted = at.checked_sub(gap).and_then(|at| before.get(at));
                A::reduce(shifted.map_or(own, |of| A::add(own, A::carry_less(discrepancy, *of))))
            }));
            work.take(2 * both)?;
            std::mem::swap(&mut locator, &mut next);
            if 2 * size <= at {
                std::mem::swap(&mut before, &mut next);
                (size, last, gap) = (at + 1 - size, discrepancy, 0);
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

/// The sum of the products of pairs.
#[inline(always)]
fn inner<A: Arithmetic>(a: &[u64], b: &[u64]) -> u64 {
    let products = a.iter().zip(b).map(|(a, b)| A::carry_less(*a, *b));
    A::reduce(products.fold(A::nothing(), |sum, product| A::add(sum, product)))
}

#[inline(always)]
fn make_monic<A: Arithmetic>(polynomial: &mut [u64]) {
    if let Some(lead) = polynomial.last().filter(|lead| **lead != 1) {
        let inverse = A::invert(*lead);
        for coefficient in polynomial {
            *coefficient = A::multiply(*coefficient, inverse);
        }
    }
}

/// All roots of a polynomial without the root 0, lowest coefficient first, highest 1, if it has as
/// many different ones in the field as its degree says.
///
/// By traces (Berlekamp 1970): the trace of b x is 0 for about half of all x, and differs for any
/// two x with one of m independent b.
#[inline(always)]
fn roots<A: Arithmetic>(polynomial: Vec<u64>, work: &mut Work) -> Option<Vec<u64>> {
    let degree = polynomial.len() - 1;
    if degree < 2 {
        return Some(polynomial[..degree].to_vec());
    }
    let mut roots = Vec::with_capacity(degree);
    let conjugates = conjugates::<A>(&polynomial, work)?;
    let (mut factors, mut split) = (vec![polynomial], Vec::new());
    for bit in 0..A::BITS {
        factors.retain(|factor| {
            let is_solved = factor.len() <= 3;
            if is_solved {
                solve::<A>(factor, &mut roots);
            }
            !is_solved
        });
        if factors.is_empty() {
            return Some(roots);
        }
        work.take(degree * A::BITS as usize)?;
        let trace = trace::<A>(&conjugates, 1 << bit);
        for factor in factors.drain(..) {
            match common_divisor::<A>(&factor, &trace, work)? {
                Some(part) => {
                    work.take((factor.len() - part.len() + 1) * part.len())?;
                    split.push(quotient::<A>(factor, &part));
                    split.push(part);
                }
                None => split.push(factor),
            }
        }
        std::mem::swap(&mut factors, &mut split);
    }
    factors.iter().all(|factor| solve::<A>(factor, &mut roots)).then_some(roots)
}

/// The roots of a polynomial of degree 1 or 2, known to have as many.
#[inline(always)]
fn solve<A: Arithmetic>(factor: &[u64], roots: &mut Vec<u64>) -> bool {
    match factor {
        [root, _] => roots.push(*root),
        // with x = b y it becomes y² + y = c / b²
        [c, b, _] if *b != 0 => {
            let scaled = A::multiply(*c, A::square(A::invert(*b)));
            let root = A::multiply(*b, A::half_trace(scaled));
            roots.extend([root, root ^ b]);
        }
        _ => return false,
    }
    true
}

/// For each coefficient: that of x to the powers 2^0 to 2^(m-1) modulo the polynomial. None if
/// 2^m does not lead back to x: then not all its roots are in the field, or some are the same.
#[inline(always)]
fn conjugates<A: Arithmetic>(polynomial: &[u64], work: &mut Work) -> Option<Vec<u64>> {
    let degree = polynomial.len() - 1;
    let bits = A::BITS as usize;
    // x^(2j) for each j whose square is beyond the degree: a row for each coefficient
    let first = degree.div_ceil(2);
    let width = degree - first;
    work.take(degree * degree + bits * degree * (width + 1))?;
    let mut high = vec![0; degree * width];
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
            for (row, coefficient) in power.iter().enumerate() {
                high[row * width + exponent / 2 - first] = *coefficient;
            }
        }
    }
    let mut all = vec![0; degree * bits];
    let mut squares = vec![0; degree];
    let mut next = vec![0; degree];
    next[1] = 1;
    for number in 0..bits {
        for (coefficient, square) in next.iter().zip(&mut squares) {
            *square = A::square(*coefficient);
        }
        for (row, coefficient) in next.iter_mut().enumerate() {
            all[row * bits + number] = *coefficient;
            let of_power = &high[row * width..(row + 1) * width];
            *coefficient = inner::<A>(&squares[first..], of_power);
            if row % 2 == 0 {
                *coefficient ^= squares[row / 2];
            }
        }
    }
    let is_x =
        next.iter().enumerate().all(|(row, coefficient)| *coefficient == u64::from(row == 1));
    is_x.then_some(all)
}

/// The trace of `scale` x modulo the polynomial, from the conjugates of x.
#[inline(always)]
fn trace<A: Arithmetic>(conjugates: &[u64], scale: u64) -> Vec<u64> {
    let mut scales = [0; 64];
    let mut last = scale;
    for scale in &mut scales[..A::BITS as usize] {
        (*scale, last) = (last, A::square(last));
    }
    conjugates.chunks_exact(A::BITS as usize).map(|row| inner::<A>(row, &scales)).collect()
}

/// The greatest common divisor, with highest coefficient 1, of a polynomial with highest
/// coefficient 1 and another one; inner none if it is 1 or the first itself.
#[inline(always)]
fn common_divisor<A: Arithmetic>(
    monic: &[u64],
    other: &[u64],
    work: &mut Work,
) -> Option<Option<Vec<u64>>> {
    let mut small = other.to_vec();
    work.take(other.len().saturating_sub(monic.len() - 1) * monic.len())?;
    remain::<A>(&mut small, monic);
    if small.len() < 2 {
        return Some(None);
    }
    let mut great = monic.to_vec();
    loop {
        // what is left of the greater one, times a power of the lesser one's lead
        let lead = small[small.len() - 1];
        while great.len() >= small.len() {
            work.take(great.len() + small.len())?;
            let Some(top) = great.pop() else { break };
            let shift = great.len() + 1 - small.len();
            let (below, reached) = great.split_at_mut(shift);
            for coefficient in below {
                *coefficient = A::multiply(lead, *coefficient);
            }
            for (coefficient, of_small) in reached.iter_mut().zip(&small) {
                let own = A::carry_less(lead, *coefficient);
                *coefficient = A::reduce(A::add(own, A::carry_less(top, *of_small)));
            }
            while great.last() == Some(&0) {
                great.pop();
            }
        }
        match great.len() {
            0 => break,
            1 => return Some(None),
            _ => std::mem::swap(&mut great, &mut small),
        }
    }
    make_monic::<A>(&mut small);
    Some(Some(small))
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
fn quotient<A: Arithmetic>(mut left: Vec<u64>, factor: &[u64]) -> Vec<u64> {
    let degree = factor.len() - 1;
    for at in (degree..left.len()).rev() {
        let top = left[at];
        for (coefficient, of_factor) in left[at - degree..at].iter_mut().zip(factor) {
            *coefficient ^= A::multiply(top, *of_factor);
        }
    }
    left.split_off(degree)
}
