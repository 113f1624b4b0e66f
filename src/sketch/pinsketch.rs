//! The symmetric difference of two sets, from as many field elements as it has members.
//!
//! PinSketch (Dodis, Ostrovsky, Reyzin and Smith 2004, section 6; the variant over odd power sums
//! as in BIP 330): a sketch of capacity c holds the sums of the first c odd powers of its ids,
//! which are elements of GF(2^m). Sketches of two sets, added, are the sketch of what only one of
//! them holds, and name it exactly if it has c members at most. What the sets share costs nothing.
//!
//! Adding an id costs c products in the field. Decoding d of them costs O(c²) and O(m d²), and is
//! bounded besides: what a peer can make this node spend follows from what it asked for.

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod clmul;
mod field;
mod kernel;

use super::ids::{BucketId, IdWidth};
pub(super) use kernel::Work;

/// Up to this capacity the last syndrome is only a check: a polynomial of a low degree often
/// has all its roots in the field by chance, one of degree d in one of d! cases.
pub(super) const CHECKED_CAPACITY: usize = 12;

/// How many ids so many syndromes name at most: as many as they are, one less where the last one
/// is a check.
pub(super) const fn most_named(capacity: usize) -> usize {
    if capacity > 0 && capacity <= CHECKED_CAPACITY { capacity - 1 } else { capacity }
}

/// Products that decoding so many ids from as many syndromes takes when they are not chosen.
///
/// Fitted to counts of random ids, which a test compares with it.
pub(super) fn planned_work(width: IdWidth, capacity: usize) -> u64 {
    let (bits, ids) = (u64::from(width.bits()), capacity as u64);
    let levels = 2 + 2 * u64::from(ids.max(1).ilog2());
    let find = 4 * ids * ids;
    let conjugate = ids * ids + bits * ids * (ids / 2 + 2);
    let split = levels * bits * ids + 3 * ids * ids * levels / 2;
    find + conjugate + split + 64
}

/// Adds odd powers of each id to the syndromes, of which the first one is number `first` of the
/// sketch; an id that is there is taken away. Several at once cost less each.
pub(super) fn toggle(width: IdWidth, syndromes: &mut [u64], first: u32, ids: &[u64]) {
    match width {
        IdWidth::Narrow => toggle_in::<29, 2>(syndromes, first, ids),
        IdWidth::Wide => toggle_in::<39, 4>(syndromes, first, ids),
    }
}

fn toggle_in<const BITS: u32, const TAP: u32>(syndromes: &mut [u64], first: u32, ids: &[u64]) {
    #[cfg(target_arch = "x86_64")]
    if clmul::toggle::<BITS, TAP>(syndromes, first, ids) {
        return;
    }
    kernel::toggle::<field::Portable<BITS, TAP>>(syndromes, first, ids);
}

/// The ids, ascending; none if there are more than [`most_named`], or more work than allowed.
/// That more than those look like few happens in one of `capacity!` cases without a check, in one
/// of 2^m with one.
pub(super) fn decode(width: IdWidth, syndromes: &[u64], work: &mut Work) -> Option<Vec<BucketId>> {
    let ids = match width {
        IdWidth::Narrow => decode_in::<29, 2>(syndromes, work),
        IdWidth::Wide => decode_in::<39, 4>(syndromes, work),
    }?;
    Some(ids.into_iter().map(|id| BucketId::truncated(width, id)).collect())
}

fn decode_in<const BITS: u32, const TAP: u32>(
    syndromes: &[u64],
    work: &mut Work,
) -> Option<Vec<u64>> {
    let most = most_named(syndromes.len());
    #[cfg(target_arch = "x86_64")]
    if let Some(decoded) = clmul::decode::<BITS, TAP>(syndromes, most, work) {
        return decoded;
    }
    kernel::decode::<field::Portable<BITS, TAP>>(syndromes, most, work)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    const FREE: Work = Work { done: 0, most: u64::MAX };

    fn sketch(width: IdWidth, capacity: usize, ids: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut syndromes = vec![0; capacity];
        let ids: Vec<u64> = ids.into_iter().collect();
        toggle(width, &mut syndromes, 0, &ids);
        syndromes
    }

    fn named(width: IdWidth, syndromes: &[u64]) -> Option<Vec<u64>> {
        let ids = decode(width, syndromes, &mut FREE.clone())?;
        Some(ids.into_iter().map(BucketId::get).collect())
    }

    fn width() -> impl Strategy<Value = IdWidth> {
        prop_oneof![Just(IdWidth::Narrow), Just(IdWidth::Wide)]
    }

    fn set(most: usize) -> impl Strategy<Value = BTreeSet<u64>> {
        // many small ones too: neighbours, powers, edges
        let most_bits = IdWidth::Narrow.bits();
        let id = prop_oneof![
            1..1_u64 << most_bits,
            1..200u64,
            (0..most_bits).prop_map(|bit| 1_u64 << bit)
        ];
        prop::collection::btree_set(id, 0..=most)
    }

    proptest! {
        #[test]
        fn what_only_one_of_two_sets_holds_is_named(
            ours in set(60), theirs in set(60), shared in set(60), capacity in 1usize..80,
            width in width(),
        ) {
            let mut merged = sketch(width, capacity, ours.union(&shared).copied());
            let other = sketch(width, capacity, theirs.union(&shared).copied());
            merged.iter_mut().zip(other).for_each(|(ours, theirs)| *ours ^= theirs);
            let ours: BTreeSet<u64> = ours.union(&shared).copied().collect();
            let theirs: BTreeSet<u64> = theirs.union(&shared).copied().collect();
            let differing: Vec<u64> = ours.symmetric_difference(&theirs).copied().collect();
            let found = named(width, &merged);
            if differing.len() <= most_named(capacity) {
                prop_assert_eq!(found, Some(differing));
            } else if capacity <= CHECKED_CAPACITY && capacity > 1 {
                prop_assert_eq!(found, None);
            }
        }

        #[test]
        fn any_syndromes_are_named_exactly_or_not_at_all(
            syndromes in prop::collection::vec(any::<u64>(), 1..40), few in any::<bool>(),
            width in width(),
        ) {
            let mask = (1 << width.bits()) - 1;
            let mut given: Vec<u64> = syndromes.into_iter().map(|one| one & mask).collect();
            if few {
                // many of a structure that random ones never have
                let last = given.len() - 1;
                given[..last].fill(0);
            }
            let mut work = FREE;
            if let Some(ids) = decode(width, &given, &mut work) {
                prop_assert!(ids.len() <= most_named(given.len()));
                let again = sketch(width, given.len(), ids.iter().map(|id| id.get()));
                prop_assert_eq!(&again, &given);
            }
            // with less work it is not read at all
            let mut less = Work { done: 0, most: work.done.saturating_sub(1) };
            if work.done > 0 {
                prop_assert_eq!(decode(width, &given, &mut less), None);
            }
        }

        #[test]
        fn later_syndromes_go_on_where_earlier_ones_end(
            ids in set(20), first in 0usize..70, width in width(),
        ) {
            let whole = sketch(width, 75, ids.iter().copied());
            let ids: Vec<u64> = ids.into_iter().collect();
            let mut later = vec![0; 75 - first];
            toggle(width, &mut later, first as u32, &ids);
            prop_assert_eq!(&later, &whole[first..]);
        }

        #[test]
        fn a_sketch_knows_no_order_and_no_grouping(
            ids in set(50), at in 0usize..50, width in width(),
        ) {
            let all: Vec<u64> = ids.iter().copied().collect();
            let (early, late) = all.split_at(at.min(all.len()));
            let mut parts = sketch(width, 9, late.iter().rev().copied());
            for id in early {
                toggle(width, &mut parts, 0, &[*id]);
            }
            prop_assert_eq!(parts, sketch(width, 9, ids));
        }

        #[test]
        #[cfg(target_arch = "x86_64")]
        fn the_processor_and_portable_code_agree(
            ids in set(70), noise in 1u64..1 << 39, capacity in 0usize..70, first in 0u32..9,
        ) {
            let ids: Vec<u64> = ids.into_iter().collect();
            let mut portable = vec![0; capacity];
            kernel::toggle::<field::Portable<39, 4>>(&mut portable, first, &ids);
            let mut here = vec![0; capacity];
            prop_assume!(clmul::toggle::<39, 4>(&mut here, first, &ids));
            prop_assert_eq!(&here, &portable);
            for noise in [0, noise] {
                if let Some(first) = here.first_mut() {
                    *first ^= noise;
                }
                let (mut work, mut same) = (FREE, FREE);
                let decoded =
                    kernel::decode::<field::Portable<39, 4>>(&here, capacity, &mut work);
                let other = clmul::decode::<39, 4>(&here, capacity, &mut same);
                prop_assert_eq!(other, Some(decoded));
                prop_assert_eq!(work, same);
            }
        }
    }

    #[test]
    fn sketches_of_nothing_name_nothing() {
        for capacity in [0, 1, 2, 30] {
            assert_eq!(named(IdWidth::Wide, &vec![0; capacity]), Some(vec![]));
        }
    }

    #[test]
    fn ids_that_were_not_chosen_take_the_work_that_was_planned() {
        const SEEDS: u64 = 40;
        for width in [IdWidth::Narrow, IdWidth::Wide] {
            for capacity in [2, 3, 6, 12, 13, 20, 33, 48, 64] {
                let (mut done, mut most) = (0, 0);
                for seed in 0..SEEDS {
                    let mut bytes = vec![0; 8 * capacity];
                    let input = [seed, capacity as u64].map(u64::to_le_bytes).concat();
                    blake3::Hasher::new().update(&input).finalize_xof().fill(&mut bytes);
                    let ids = bytes.as_chunks().0.iter().take(most_named(capacity));
                    let ids = ids.map(|id| u64::from_le_bytes(*id) >> (64 - width.bits()));
                    let mut work = FREE;
                    decode(width, &sketch(width, capacity, ids), &mut work).unwrap();
                    (done, most) = (done + work.done, most.max(work.done));
                }
                let planned = planned_work(width, capacity);
                let mean = done / SEEDS;
                assert!(most <= planned, "{width:?} {capacity}: {most} of {planned}");
                assert!(capacity < 12 || mean > planned / 2, "{capacity}: {mean} of {planned}");
            }
        }
    }
}
