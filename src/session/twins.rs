//! Dots that stand for two puts: what a clone of a writer or a lying one left (rule D7).

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::dots::Dot;
use crate::entry::{Record, Sibling};
use crate::hash::KeyHash;

/// Of each such dot the greater put, by key hash, then bytes of the sibling: it stays, whichever
/// side had it, and both ends come to the same.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Twins(BTreeMap<Dot, Twin>);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Twin {
    winner: (KeyHash, Sibling),
    loser: KeyHash,
}

impl Twins {
    pub(super) fn note(&mut self, one: (KeyHash, Sibling), other: (KeyHash, Sibling)) {
        let rank = |(key, sibling): &(KeyHash, Sibling)| (*key, sibling.to_bytes());
        let (winner, loser) = if rank(&one) > rank(&other) { (one, other) } else { (other, one) };
        self.0.insert(winner.1.dot, Twin { winner, loser: loser.0 });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of such dots.
    pub(super) fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// Key of the put that stays.
    pub(super) fn winning_key(&self, dot: Dot) -> Option<KeyHash> {
        self.0.get(&dot).map(|twin| twin.winner.0)
    }

    /// Puts of this key that stay.
    pub(super) fn winners(&self, key: &KeyHash) -> impl Iterator<Item = Sibling> {
        let winners = self.0.values().map(|twin| twin.winner);
        winners.filter(move |(of, _)| of == key).map(|(_, sibling)| sibling)
    }

    /// Whether a put of this key is one of such a pair.
    pub(super) fn touch(&self, key: &KeyHash) -> bool {
        self.0.values().any(|twin| twin.winner.0 == *key || twin.loser == *key)
    }

    /// A record as it is once of each pair only the greater is left: as if both sides held that.
    pub(super) fn settle<'a>(
        &self,
        key: &KeyHash,
        record: Option<&'a Record>,
    ) -> Option<Cow<'a, Record>> {
        if self.is_empty() {
            return record.map(Cow::Borrowed);
        }
        let siblings = record.into_iter().flat_map(Record::siblings);
        let untouched = siblings.filter(|sibling| !self.0.contains_key(&sibling.dot)).copied();
        let mut settled: Vec<Sibling> = untouched.chain(self.winners(key)).collect();
        settled.sort_unstable_by_key(|sibling| sibling.dot);
        Record::new(settled).ok().map(Cow::Owned)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::clock::Stamp;
    use crate::hash::HashAlgorithm;

    fn sibling(counter: u64, value: &[u8]) -> Sibling {
        Sibling {
            dot: Dot::new(7, counter).unwrap(),
            stamp: Stamp::new(counter, 0),
            size: value.len() as u64,
            value_hash: HashAlgorithm::Blake3.value_hash(value),
        }
    }

    #[test]
    fn the_greater_stays_at_its_key_whichever_side_says_it_first() {
        let (low, high) = (KeyHash([1; 32]), KeyHash([2; 32]));
        let (at_low, at_high) = ((low, sibling(1, b"z")), (high, sibling(1, b"a")));
        for (one, other) in [(at_low, at_high), (at_high, at_low)] {
            let mut twins = Twins::default();
            twins.note(one, other);
            assert_eq!(twins.winning_key(one.1.dot), Some(high));
            assert_eq!(twins.count(), 1);
            assert!(twins.touch(&low) && twins.touch(&high));
            let held = Record::new(vec![at_low.1, sibling(2, b"more")]).unwrap();
            let left = twins.settle(&low, Some(&held)).unwrap();
            assert_eq!(left.siblings(), [sibling(2, b"more")]);
            let put = twins.settle(&high, None).unwrap();
            assert_eq!(put.siblings(), [at_high.1]);
        }
    }

    #[test]
    fn of_two_puts_of_one_key_the_greater_bytes_stay() {
        let key = KeyHash([3; 32]);
        let (one, other) = (sibling(1, b"one"), sibling(1, b"other"));
        let mut twins = Twins::default();
        twins.note((key, one), (key, other));
        let greater = if one.to_bytes() > other.to_bytes() { one } else { other };
        for held in [one, other] {
            let held = Record::new(vec![held]).unwrap();
            assert_eq!(twins.settle(&key, Some(&held)).unwrap().siblings(), [greater]);
        }
        assert!(twins.settle(&KeyHash([4; 32]), None).is_none());
    }
}
