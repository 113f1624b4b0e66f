//! Which of many states differ, by ever smaller ranges of them.
//!
//! Both ends hold a list of states: of the collections that both offer, ascending by name. A range
//! of more than eight is cut into sixteen parts (fewer, if it has fewer), each told by eight bytes
//! of a hash; one of up to eight is told state by state. Whoever asks goes on with the parts whose
//! hashes are not its own, all of a level at once: with k of N unequal about k log16(N / k) times
//! 128 bytes, in one round for each level.
//!
//! Short hashes only lead the way. That everything else is equal is said by nobody here: whoever
//! asked puts the states that it was told in place of its own, and compares the forest root of all
//! with the one that the other end stated.
//!
//! ```
//! use selfsame::hash::StateHash;
//! use selfsame::node::forest::ranges::{Ground, Walk};
//!
//! let ours: Vec<StateHash> = (0..100).map(|at| StateHash([at; 32])).collect();
//! let mut theirs = ours.clone();
//! theirs[42] = StateHash([200; 32]);
//! let mut ground = Ground::new(theirs);
//! let mut walk = Walk::new(&ours);
//! while let Some(question) = walk.question() {
//!     walk.answer(&ground.answer(&question)?)?;
//! }
//! assert_eq!(walk.into_unequal(), [(42, StateHash([200; 32]))]);
//! # Ok::<(), selfsame::node::forest::ranges::ForestFault>(())
//! ```

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::hash::{HASH_LEN, StateHash, forest_range};

/// Ranges of at most so many states are told state by state.
const LISTED: usize = 8;
/// Parts of a longer one: four bits of its number.
const PARTS: usize = 16;
const PART_BITS: u8 = 4;
/// Levels whose ranges have a number of 64 bits: far more than there can be states for.
const MOST_LEVELS: u8 = 15;
/// Bytes of a hash that leads the way.
const SHORT: usize = 8;
/// Ranges in one question: their answer takes at most half a frame.
const RANGES_PER_QUESTION: usize = 2_048;
/// How often all states may be hashed for one comparison. An honest one needs every level at
/// most once, and eight levels tell two thousand million apart.
const PASSES: u64 = 8;

/// A comparison of forests that is not gone on with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForestFault {
    /// The answer is not about what was asked.
    #[error(
        "the peer answered {got} bytes where the ranges asked for take {wanted}: it may be another \
        version"
    )]
    Length {
        /// How many came.
        got: usize,
        /// How many are right.
        wanted: usize,
    },
    /// Ranges that there are not, out of order, or too many.
    #[error("the peer asked for ranges that there are not: it may be another version")]
    Ranges,
    /// Asks again and again.
    #[error("the peer asked for more ranges than any comparison needs: it is answered no more")]
    Effort,
    /// Over the limit.
    #[error("the peer offers more than {limit} collections: it is not compared with")]
    Offers {
        /// How many are allowed.
        limit: usize,
    },
}

/// Ranges of one level, by their numbers: that of part p of range r is 16 r + p.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Ranges {
    /// The level; 0 has the one range of all.
    pub level: u8,
    /// Which, strictly ascending: at most 2,048.
    pub numbers: Vec<u64>,
}

/// Range `number` of a level of so many states, if there is one.
fn range_at(states: usize, level: u8, number: u64) -> Option<Range<usize>> {
    if level > MOST_LEVELS || number >> (PART_BITS * level) != 0 {
        return None;
    }
    (0..level).rev().try_fold(0..states, |range, below| {
        let part = (number >> (PART_BITS * below)) as usize % PARTS;
        (range.len() > LISTED).then(|| part_of(&range, part)).flatten()
    })
}

/// A part of a range, none of which is empty.
fn part_of(range: &Range<usize>, part: usize) -> Option<Range<usize>> {
    let parts = range.len().min(PARTS);
    let edge = |part| range.start + range.len() * part / parts;
    (part < parts).then(|| edge(part)..edge(part + 1))
}

fn parts_of(range: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
    (0..PARTS).map_while(|part| part_of(range, part))
}

const fn told_bytes(range: &Range<usize>) -> usize {
    let len = range.end - range.start;
    if len <= LISTED {
        HASH_LEN * len
    } else if len < PARTS {
        SHORT * len
    } else {
        SHORT * PARTS
    }
}

/// The asking end of a comparison.
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    ours: &'a [StateHash],
    level: u8,
    /// Ranges of this level that are still to be asked for, ascending.
    open: Vec<u64>,
    /// Those of the next one.
    deeper: Vec<u64>,
    unequal: Vec<(usize, StateHash)>,
}

impl<'a> Walk<'a> {
    /// Begins at the range of all.
    #[must_use]
    pub fn new(ours: &'a [StateHash]) -> Self {
        Self { ours, level: 0, open: vec![0], deeper: Vec::new(), unequal: Vec::new() }
    }

    /// What to ask next; none at the end.
    #[must_use]
    pub fn question(&self) -> Option<Ranges> {
        let numbers: Vec<u64> = self.open.iter().copied().take(RANGES_PER_QUESTION).collect();
        (!numbers.is_empty()).then_some(Ranges { level: self.level, numbers })
    }

    /// Takes the answer to the last question.
    ///
    /// # Errors
    /// It has another length than what was asked for; the walk is as it was.
    pub fn answer(&mut self, told: &[u8]) -> Result<(), ForestFault> {
        let asked = self.open.len().min(RANGES_PER_QUESTION);
        let ranges = self.open[..asked]
            .iter()
            .filter_map(|number| Some((*number, range_at(self.ours.len(), self.level, *number)?)));
        let ranges: Vec<(u64, Range<usize>)> = ranges.collect();
        let wanted = ranges.iter().map(|(_, range)| told_bytes(range)).sum();
        if told.len() != wanted {
            return Err(ForestFault::Length { got: told.len(), wanted });
        }
        let mut left = told;
        for (number, range) in ranges {
            let (told, rest) = left.split_at(told_bytes(&range));
            left = rest;
            if range.len() <= LISTED {
                let (states, _) = told.as_chunks::<HASH_LEN>();
                let both = range.zip(states).map(|(at, state)| (at, StateHash(*state)));
                self.unequal.extend(both.filter(|(at, theirs)| self.ours[*at] != *theirs));
            } else {
                let (hashes, _) = told.as_chunks::<SHORT>();
                let parts = parts_of(&range).zip(hashes).enumerate();
                let unequal = parts
                    .filter(|(_, (part, hash))| forest_range(&self.ours[part.clone()]) != **hash);
                self.deeper.extend(unequal.map(|(part, _)| number << PART_BITS | part as u64));
            }
        }
        self.open.drain(..asked);
        if self.open.is_empty() {
            self.level += 1;
            std::mem::swap(&mut self.open, &mut self.deeper);
        }
        Ok(())
    }

    /// The places whose states were told to be others, ascending, with those.
    #[must_use]
    pub fn into_unequal(self) -> Vec<(usize, StateHash)> {
        let mut unequal = self.unequal;
        unequal.sort_unstable_by_key(|(at, _)| *at);
        unequal
    }
}

/// The answering end of a comparison: 32 bytes of memory a state while it lasts.
#[derive(Clone, Debug)]
pub struct Ground {
    states: Vec<StateHash>,
    /// How many states may still be hashed or told.
    effort: u64,
}

impl Ground {
    /// States as they were when the comparison began.
    #[must_use]
    pub fn new(states: Vec<StateHash>) -> Self {
        let effort = PASSES * states.len() as u64;
        Self { states, effort }
    }

    /// What is to be told of these ranges, one after the other.
    ///
    /// # Errors
    /// There is no such range, they are not ascending or too many; or all that was asked so far
    /// comes to more than all states eight times.
    pub fn answer(&mut self, asked: &Ranges) -> Result<Vec<u8>, ForestFault> {
        let Ranges { level, numbers } = asked;
        let ascend = numbers.is_sorted_by(|one, next| one < next);
        if !ascend || numbers.is_empty() || numbers.len() > RANGES_PER_QUESTION {
            return Err(ForestFault::Ranges);
        }
        let ranges = numbers.iter().map(|number| range_at(self.states.len(), *level, *number));
        let ranges: Vec<_> = ranges.collect::<Option<_>>().ok_or(ForestFault::Ranges)?;
        let effort = ranges.iter().map(|range| range.len() as u64).sum();
        self.effort = self.effort.checked_sub(effort).ok_or(ForestFault::Effort)?;
        let mut told = Vec::with_capacity(ranges.iter().map(told_bytes).sum());
        for range in ranges {
            if range.len() <= LISTED {
                told.extend(self.states[range].iter().flat_map(|state| state.0));
            } else {
                told.extend(parts_of(&range).flat_map(|part| forest_range(&self.states[part])));
            }
        }
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    fn state(number: usize, version: u8) -> StateHash {
        let mut state = [version; HASH_LEN];
        state[..8].copy_from_slice(&number.to_le_bytes());
        StateHash(state)
    }

    fn states(count: usize) -> Vec<StateHash> {
        (0..count).map(|number| state(number, 0)).collect()
    }

    /// Bytes of all answers and how many there were.
    fn compare(
        ours: &[StateHash],
        theirs: &[StateHash],
    ) -> (Vec<(usize, StateHash)>, usize, usize) {
        let (mut ground, mut walk) = (Ground::new(theirs.to_vec()), Walk::new(ours));
        let (mut bytes, mut answers) = (0, 0);
        while let Some(question) = walk.question() {
            let told = ground.answer(&question).unwrap();
            walk.answer(&told).unwrap();
            (bytes, answers) = (bytes + told.len(), answers + 1);
        }
        (walk.into_unequal(), bytes, answers)
    }

    proptest! {
        #[test]
        fn just_what_differs_is_found(
            count in 0usize..3_000, places in prop::collection::vec(any::<usize>(), 0..40),
        ) {
            let ours = states(count);
            let mut theirs = ours.clone();
            let places: BTreeSet<usize> =
                places.into_iter().filter(|_| count > 0).map(|at| at % count.max(1)).collect();
            places.iter().for_each(|at| theirs[*at] = state(*at, 1));
            let (unequal, bytes, answers) = compare(&ours, &theirs);
            let naive: Vec<_> = (0..count).filter(|at| ours[*at] != theirs[*at]).collect();
            prop_assert_eq!(unequal.iter().map(|(at, _)| *at).collect::<Vec<_>>(), naive);
            prop_assert!(unequal.iter().all(|(at, state)| theirs[*at] == *state));
            prop_assert!(answers <= 4, "{} answers", answers);
            // the first answer is the hashes of parts, or all of a short list
            let first = (PARTS * SHORT).max(LISTED * HASH_LEN);
            let most = first + places.len() * (2 * PARTS * SHORT + LISTED * HASH_LEN);
            prop_assert!(bytes <= most, "{} bytes", bytes);
        }

        #[test]
        fn no_answer_of_another_length_is_taken(
            count in 1usize..200, told in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let ours = states(count);
            let mut walk = Walk::new(&ours);
            let wanted = told_bytes(&(0..count));
            let answered = walk.answer(&told);
            let right = told.len() == wanted;
            prop_assert_eq!(answered.is_ok(), right);
            if !right {
                let length = ForestFault::Length { got: told.len(), wanted };
                prop_assert_eq!(answered, Err(length));
                prop_assert_eq!(walk.question(), Walk::new(&ours).question());
            }
        }

        #[test]
        fn any_question_is_answered_within_its_effort_or_refused(
            count in 0usize..500, questions in prop::collection::vec(
                (0u8..20, prop::collection::vec(0u64..300, 0..20)), 0..40),
        ) {
            let mut ground = Ground::new(states(count));
            let mut told = 0;
            for (level, mut numbers) in questions {
                numbers.sort_unstable();
                told += ground.answer(&Ranges { level, numbers }).map_or(0, |told| told.len());
            }
            prop_assert!(told <= PASSES as usize * HASH_LEN * count);
        }
    }

    #[test]
    fn one_of_four_thousand_takes_a_few_hundred_bytes() {
        let ours = states(4_096);
        for place in [0, 1, 2_047, 4_095] {
            let mut theirs = ours.clone();
            theirs[place] = state(place, 1);
            let (unequal, bytes, answers) = compare(&ours, &theirs);
            assert_eq!(unequal, [(place, state(place, 1))]);
            assert!(bytes <= 3 * 128 + 32 && answers <= 4, "{bytes} bytes, {answers} answers");
        }
    }

    #[test]
    fn all_unequal_costs_little_more_than_a_list() {
        let (ours, theirs) = (states(5_000), vec![state(1, 1); 5_000]);
        let (unequal, bytes, _) = compare(&ours, &theirs);
        assert_eq!(unequal.len(), 5_000);
        assert!(bytes < 5_000 * HASH_LEN * 5 / 4, "{bytes}");
    }

    #[test]
    fn questions_without_an_end_are_answered_no_more() {
        let mut ground = Ground::new(states(100));
        let all = Ranges { level: 0, numbers: vec![0] };
        for _ in 0..PASSES {
            assert_eq!(ground.answer(&all).unwrap().len(), PARTS * SHORT);
        }
        assert_eq!(ground.answer(&all), Err(ForestFault::Effort));
    }

    #[test]
    fn ranges_that_there_are_not_are_refused() {
        let mut ground = Ground::new(states(100));
        let many = (0..=RANGES_PER_QUESTION as u64).collect();
        for (level, numbers) in [
            (0, vec![1]),
            (0, vec![0, 0]),
            (1, vec![]),
            (1, vec![3, 2]),
            (1, vec![16]),
            (2, vec![0]),
            (16, vec![0]),
            (u8::MAX, vec![0]),
            (15, vec![u64::MAX]),
            (3, many),
        ] {
            let asked = Ranges { level, numbers };
            assert_eq!(ground.answer(&asked), Err(ForestFault::Ranges), "{asked:?}");
        }
        assert!(ground.answer(&Ranges { level: 1, numbers: vec![0, 15] }).is_ok());
    }
}
