//! What was seen, held against explicit sets of dots; canonical bytes, held against their parsers.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use selfsame::clock::Stamp;
use selfsame::dots::{Causality, Dot, DotRun, DotSet, Writer};
use selfsame::entry::{Record, Sibling};
use selfsame::hash::ValueHash;

type Numbers = BTreeSet<(u64, u64)>;

fn dot((writer, counter): (u64, u64)) -> Dot {
    Dot::new(writer, counter).unwrap()
}

fn numbers(dot: Dot) -> (u64, u64) {
    (dot.writer().get(), dot.counter())
}

fn set_of(dots: &Numbers) -> DotSet {
    dots.iter().copied().map(dot).collect()
}

/// Few writers and low counters, so that dots touch, overlap and fill gaps.
fn any_dot() -> impl Strategy<Value = (u64, u64)> {
    (1..4_u64, 1..12_u64)
}

/// A replica as the specification has it: the dots it has seen, and those of them that it holds.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
struct Model {
    seen: Numbers,
    held: Numbers,
}

impl Model {
    /// Context and exceptions are a pure function of what was seen.
    fn causality(&self) -> Causality {
        let covered = |&(writer, counter): &(u64, u64)| {
            (1..=counter).all(|below| self.seen.contains(&(writer, below)))
        };
        let context = self.seen.iter().filter(|dot| covered(dot));
        let context = context.map(|&(writer, counter)| (Writer::new(writer).unwrap(), counter));
        let context = context.collect(); // the last of each writer stays: the greatest
        let dead = self.seen.iter().filter(|dot| !covered(dot) && !self.held.contains(dot));
        Causality::from_parts(context, dead.copied().map(dot).collect()).unwrap()
    }

    fn holds(&self) -> impl Fn(Dot) -> bool {
        |dot| self.held.contains(&numbers(dot))
    }

    /// What both hold, and what one holds and the other has not seen.
    fn merge(&self, other: &Self) -> Self {
        let stays = |dot: &&(u64, u64)| {
            let both = self.held.contains(dot) && other.held.contains(dot);
            both || !self.seen.contains(dot) || !other.seen.contains(dot)
        };
        Self {
            seen: self.seen.union(&other.seen).copied().collect(),
            held: self.held.union(&other.held).filter(stays).copied().collect(),
        }
    }
}

/// A replica that has seen some dots, and holds some of those.
fn replica() -> impl Strategy<Value = Model> {
    (btree_set(any_dot(), 0..24), btree_set(any_dot(), 0..24))
        .prop_map(|(dead, held)| Model { seen: dead.union(&held).copied().collect(), held })
}

/// Both ways to the same: joined causalities, and the causality of the merged replica.
fn joined(a: &Model, b: &Model) -> (Causality, Model) {
    let merged = a.merge(b);
    let mut causality = a.causality();
    causality.join(&b.causality(), merged.holds());
    (causality, merged)
}

proptest! {
    #[test]
    fn a_join_is_the_union_of_what_was_seen(a in replica(), b in replica()) {
        let (causality, merged) = joined(&a, &b);
        prop_assert_eq!(causality, merged.causality());
    }

    #[test]
    fn joins_commute_associate_and_repeat(a in replica(), b in replica(), c in replica()) {
        prop_assert_eq!(joined(&a, &b), joined(&b, &a));
        let (ab, bc) = (a.merge(&b), b.merge(&c));
        prop_assert_eq!(joined(&ab, &c), joined(&a, &bc));
        prop_assert_eq!(joined(&ab, &b), (ab.causality(), ab.clone()));
        prop_assert_eq!(joined(&a, &a), (a.causality(), a));
    }

    /// Puts, arrivals and removals one by one, canonical after every step.
    #[test]
    fn every_step_leaves_the_context_canonical(
        start in replica(),
        steps in vec((any_dot(), any::<bool>()), 0..40),
    ) {
        let (mut model, mut causality) = (start.clone(), start.causality());
        for (named, arrives) in steps {
            if arrives && !model.seen.contains(&named) {
                model.seen.insert(named);
                model.held.insert(named);
                causality.observe(dot(named), model.holds());
            } else if !arrives {
                // removed, whether held or never seen here
                model.seen.insert(named);
                model.held.remove(&named);
                causality.mark_dead(dot(named), model.holds());
            }
            prop_assert_eq!(&causality, &model.causality());
            for counter in 1..14 {
                let asked = (named.0, counter);
                let seen = causality.knows(dot(asked)) || model.held.contains(&asked);
                prop_assert_eq!(seen, model.seen.contains(&asked));
            }
        }
    }

    #[test]
    fn any_form_of_what_was_seen_has_one_canonical_form(
        model in replica(),
        lag in vec(0..4_u64, 3),
    ) {
        // a context that lags behind, with the dead dots it lacks as exceptions
        let canonical = model.causality();
        let pairs: Vec<_> = canonical
            .pairs()
            .map(|(writer, counter)| {
                (writer, counter.saturating_sub(lag[writer.get() as usize - 1]))
            })
            .collect();
        let dead = model.seen.difference(&model.held).copied().collect();
        prop_assert_eq!(
            Causality::new(pairs, set_of(&dead), &set_of(&model.held)),
            canonical
        );
    }

    #[test]
    fn survivors_alone_say_what_an_unbroken_run_of_them_says(held in btree_set(any_dot(), 0..24)) {
        let survivors = Model { seen: held.clone(), held };
        let causality = Causality::of_survivors(&set_of(&survivors.held));
        prop_assert_eq!(causality, survivors.causality());
    }

    /// A join past refused dots learns nothing false, and everything it has room for.
    #[test]
    fn a_join_with_refusals_stops_below_what_was_refused(
        mine in replica(),
        theirs in replica(),
        refuse in btree_set(any_dot(), 0..6),
        max_exceptions in 0..20_u64,
    ) {
        // only what the other side holds and this side has not seen can be refused
        let refused: Numbers = refuse
            .into_iter()
            .filter(|dot| theirs.held.contains(dot) && !mine.seen.contains(dot))
            .collect();
        let mut merged = mine.merge(&theirs);
        merged.held.retain(|dot| !refused.contains(dot));

        let mut causality = mine.causality();
        for &removed in mine.held.difference(&merged.held) {
            causality.mark_dead(dot(removed), merged.holds());
        }
        let refused_set = set_of(&refused);
        causality.join_with_refusals(
            &theirs.causality(),
            &refused_set,
            max_exceptions,
            merged.holds(),
        );
        let seen = |numbers: &(u64, u64)| {
            causality.knows(dot(*numbers)) || merged.held.contains(numbers)
        };

        let first = |writer| refused.range((writer, 0)..=(writer, u64::MAX)).next();
        let is_beyond = |&(writer, counter): &(u64, u64)| {
            first(writer).is_some_and(|&(_, first)| counter > first)
        };
        let mut beyond = std::collections::BTreeMap::<u64, (u64, u64)>::new();
        for dot in (1..4).flat_map(|writer| (1..14).map(move |counter| (writer, counter))) {
            if refused.contains(&dot) {
                prop_assert!(!seen(&dot), "refused {dot:?} counts as seen");
            } else if mine.seen.contains(&dot) || merged.held.contains(&dot) {
                prop_assert!(seen(&dot), "{dot:?} was forgotten");
            } else if !theirs.seen.contains(&dot) {
                prop_assert!(!seen(&dot), "nobody has seen {dot:?}");
            } else if !is_beyond(&dot) {
                prop_assert!(seen(&dot), "{dot:?} below what was refused was not joined");
            } else {
                let (learned, missed) = beyond.entry(dot.0).or_default();
                if seen(&dot) { *learned += 1 } else { *missed += 1 }
            }
        }
        let learned: u64 = beyond.values().map(|(learned, _)| learned).sum();
        let all: u64 = beyond.values().map(|(learned, missed)| learned + missed).sum();
        prop_assert!(learned <= max_exceptions);
        prop_assert!(learned == all || all > max_exceptions);
        prop_assert!(beyond.values().all(|&(learned, missed)| learned == 0 || missed == 0));

        // canonical: the same as anew from its own parts
        let again = Causality::new(
            causality.pairs(),
            causality.exceptions().clone(),
            &set_of(&merged.held),
        );
        prop_assert_eq!(&again, &causality);
        if refused.is_empty() {
            prop_assert_eq!(causality, merged.causality());
        }
    }

    #[test]
    fn a_dot_set_is_a_set(
        steps in vec((0..6_u8, any_dot(), 0..6_u64), 0..40),
        other in btree_set(any_dot(), 0..12),
    ) {
        let (mut set, mut model) = (DotSet::default(), Numbers::new());
        for (operation, at, more) in steps {
            let (writer, counter) = at;
            match operation {
                0 | 1 => prop_assert_eq!(set.insert(dot(at)), model.insert(at)),
                2 => prop_assert_eq!(set.remove(dot(at)), model.remove(&at)),
                3 => {
                    let writer = Writer::new(writer).unwrap();
                    set.insert_run(DotRun::new(writer, counter, counter + more).unwrap());
                    model.extend((counter..=counter + more).map(|counter| (at.0, counter)));
                }
                4 => {
                    set.remove_through(Writer::new(writer).unwrap(), counter);
                    model.retain(|dot| dot.0 != writer || dot.1 > counter);
                }
                _ => {
                    set.extend(&set_of(&other));
                    model.extend(&other);
                }
            }
            check_set(&set, &model, at)?;
        }
    }

    #[test]
    fn contexts_come_back_from_their_bytes(model in replica()) {
        let causality = model.causality();
        let bytes = causality.to_bytes().unwrap();
        prop_assert_eq!(Causality::parse(&bytes).unwrap(), causality);
    }

    #[test]
    fn records_come_back_from_their_bytes(record in any_record()) {
        prop_assert_eq!(Record::parse(&record.to_bytes()).unwrap(), record);
    }

    /// Whatever is accepted is the canonical form of what it says.
    #[test]
    fn accepted_bytes_are_canonical(
        bytes in prop_oneof![
            vec(any::<u8>(), 0..200),
            (any_record(), changes()).prop_map(|(record, changes)| {
                changed(record.to_bytes(), &changes)
            }),
            (replica(), changes()).prop_map(|(model, changes)| {
                changed(model.causality().to_bytes().unwrap(), &changes)
            }),
        ]
    ) {
        if let Ok(record) = Record::parse(&bytes) {
            prop_assert_eq!(record.to_bytes(), bytes.clone());
        }
        if let Ok(causality) = Causality::parse(&bytes) {
            prop_assert_eq!(causality.to_bytes().unwrap(), bytes);
        }
    }
}

fn check_set(set: &DotSet, model: &Numbers, at: (u64, u64)) -> Result<(), TestCaseError> {
    prop_assert_eq!(set.iter().map(numbers).collect::<Vec<_>>(), Vec::from_iter(model.clone()));
    prop_assert_eq!(set.count(), model.len() as u64);
    prop_assert_eq!(set.is_empty(), model.is_empty());
    prop_assert_eq!(set.contains(dot(at)), model.contains(&at));
    let writer = Writer::new(at.0).unwrap();
    let next = model.range(at..=(at.0, u64::MAX)).next().map(|dot| dot.1);
    prop_assert_eq!(set.next_from(writer, at.1), next);
    // as few runs as there can be: equal sets are equal values
    prop_assert_eq!(set, &set_of(model));
    let runs: Vec<_> = set.runs().collect();
    for pair in runs.windows(2) {
        prop_assert!(pair[0].writer < pair[1].writer || pair[0].last + 1 < pair[1].first);
    }
    prop_assert_eq!(runs.len(), set.run_count());
    Ok(())
}

fn any_record() -> impl Strategy<Value = Record> {
    let sibling = (any_dot(), any::<u64>(), any::<u64>(), any::<[u8; 32]>());
    vec(sibling, 1..5).prop_map(|mut siblings| {
        siblings.sort_unstable_by_key(|sibling| sibling.0);
        siblings.dedup_by_key(|sibling| sibling.0);
        let siblings = siblings.into_iter().map(|(named, stamp, size, value_hash)| Sibling {
            dot: dot(named),
            stamp: Stamp(stamp),
            size,
            value_hash: ValueHash(value_hash),
        });
        Record::new(siblings.collect()).unwrap()
    })
}

fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    vec((any::<prop::sample::Index>(), 0..4_u8), 1..4)
}

fn changed(mut bytes: Vec<u8>, changes: &[(prop::sample::Index, u8)]) -> Vec<u8> {
    for (at, to) in changes {
        let at = at.index(bytes.len());
        bytes[at] = *to;
    }
    bytes
}

#[test]
fn a_peer_that_claims_the_greatest_counter_does_not_hang_a_join_with_refusals() {
    let (honest, hostile) = (Writer::new(1).unwrap(), Writer::new(2).unwrap());
    let pairs = [(honest, 5), (hostile, u64::MAX)].into_iter().collect();
    let theirs = Causality::from_parts(pairs, DotSet::default()).unwrap();
    let refused: DotSet = [dot((1, 2)), dot((2, 7))].into_iter().collect();
    let mut mine = Causality::default();
    mine.join_with_refusals(&theirs, &refused, 100, |_| false);
    assert_eq!(mine.pairs().collect::<Vec<_>>(), [(honest, 1), (hostile, 6)]);
    assert_eq!(
        mine.exceptions().runs().collect::<Vec<_>>(),
        DotRun::new(honest, 3, 5).into_iter().collect::<Vec<_>>()
    );
}

#[test]
fn many_refused_writers_with_great_claims_cost_no_more_than_one() {
    let writers = 20_000;
    let pairs = (1..=writers).map(|id| (Writer::new(id).unwrap(), u64::MAX)).collect();
    let theirs = Causality::from_parts(pairs, DotSet::default()).unwrap();
    let refused: DotSet = (1..=writers).map(|id| dot((id, 1))).collect();
    let asked = std::cell::Cell::new(0_u64);
    let mut mine = Causality::default();
    mine.join_with_refusals(&theirs, &refused, 65_536, |_| {
        asked.set(asked.get() + 1);
        false
    });
    assert_eq!(mine, Causality::default());
    assert!(asked.get() < 65_536 + 4 * writers, "{} look-ups", asked.get());
}

#[test]
fn the_last_counter_there_can_be_is_covered_and_walked_once() {
    let last = dot((1, u64::MAX));
    let mut causality = Causality::from_parts(
        [(last.writer(), u64::MAX - 1)].into_iter().collect(),
        DotSet::default(),
    )
    .unwrap();
    causality.observe(last, |dot| dot == last);
    assert_eq!(causality.counter(last.writer()), u64::MAX);
    causality.mark_dead(last, |_| false);
    assert!(causality.exceptions().is_empty());
    let refused = [dot((1, 3))].into_iter().collect();
    let mut mine = Causality::default();
    mine.join_with_refusals(&causality, &refused, 100, |dot| (4..2_000).contains(&dot.counter()));
    assert_eq!(mine.counter(last.writer()), 2);
}
