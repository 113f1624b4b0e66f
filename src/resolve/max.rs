//! `max@1`: the greatest value.
//!
//! ```
//! use selfsame::resolve::max::compare;
//! use std::cmp::Ordering;
//!
//! assert_eq!(compare(b"10", b"9"), Ordering::Greater);
//! assert_eq!(compare(b"-10", b"-9.5"), Ordering::Less);
//! assert_eq!(compare(b"9", b"nine"), Ordering::Greater);
//! ```

use std::cmp::Ordering;

use super::{Candidate, ResolveError, Resolver};
use crate::types::Key;

/// Shows the greatest value: high scores, versions, latest times.
///
/// A value that is a decimal number in text is compared by number: an optional `-`, digits
/// without needless leading zeros, and optionally a point and digits; of any length, without
/// rounding. Numbers that are equal (`1`, `1.0`) are compared by their bytes. Any other value is
/// less than every number, and such are compared by their bytes, as unsigned ones. That is a
/// total order, so grouping makes no difference.
#[derive(Clone, Copy, Debug, Default)]
pub struct Max;

impl Resolver for Max {
    fn name(&self) -> &str {
        "max"
    }

    fn version(&self) -> u32 {
        1
    }

    fn merge(&self, _: &Key, versions: &[Candidate<'_>]) -> Result<Vec<u8>, ResolveError> {
        let values = versions.iter().map(|version| version.value);
        Ok(values.max_by(|a, b| compare(a, b)).unwrap_or_default().to_vec())
    }
}

/// The order of values.
#[must_use]
pub fn compare(a: &[u8], b: &[u8]) -> Ordering {
    match (Decimal::parse(a), Decimal::parse(b)) {
        (Some(x), Some(y)) => x.cmp(&y).then_with(|| a.cmp(b)),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => a.cmp(b),
    }
}

/// A decimal number in its digits.
struct Decimal<'a> {
    negative: bool,
    whole: &'a [u8],
    /// Without zeros at its end.
    part: &'a [u8],
}

impl<'a> Decimal<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        let (minus, digits) = match text {
            [b'-', rest @ ..] => (true, rest),
            _ => (false, text),
        };
        let point = digits.iter().position(|&byte| byte == b'.');
        let (whole, part) = match point {
            Some(at) => (&digits[..at], &digits[at + 1..]),
            None => (digits, &[][..]),
        };
        let sound = match whole {
            [] => false,
            [b'0', _, ..] => false,
            _ => point.is_none() || !part.is_empty(),
        };
        if !sound || !whole.iter().chain(part).all(u8::is_ascii_digit) {
            return None;
        }
        let end = part.iter().rposition(|&digit| digit != b'0').map_or(0, |at| at + 1);
        let part = &part[..end];
        let negative = minus && !(whole == b"0" && part.is_empty());
        Some(Self { negative, whole, part })
    }

    /// Without its sign: what orders numbers that have none.
    const fn size(&self) -> (usize, &'a [u8], &'a [u8]) {
        (self.whole.len(), self.whole, self.part)
    }

    fn cmp(&self, other: &Self) -> Ordering {
        match (self.negative, other.negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => self.size().cmp(&other.size()),
            (true, true) => other.size().cmp(&self.size()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_as_numbers_and_stand_above_all_else() {
        let ascending: [&[u8]; 14] = [
            b"", b"-", b".5", b"007", b"1.", b"1e9", b"zzz", b"\xff", b"-10", b"-9.50", b"-0.1",
            b"0", b"9", b"10.01",
        ];
        for (at, low) in ascending.iter().enumerate() {
            for high in &ascending[at + 1..] {
                assert_eq!(compare(low, high), Ordering::Less, "{low:?} {high:?}");
                assert_eq!(compare(high, low), Ordering::Greater, "{low:?} {high:?}");
            }
            assert_eq!(compare(low, low), Ordering::Equal);
        }
        assert_eq!(compare(b"1.0", b"1"), Ordering::Greater, "equal numbers, by their bytes");
        assert_eq!(compare(b"-0", b"0"), Ordering::Less);
        assert_eq!(compare(b"18446744073709551616", b"18446744073709551615"), Ordering::Greater);
    }
}
