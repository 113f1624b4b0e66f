#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use super::super::ids::IdWidth;
use super::super::{Estimator, pinsketch};
use super::*;
use crate::entry::Totals;
use crate::merkle::{Leaf, Prefix};
use proptest::prelude::*;

type Item = (KeyHash, RecordDigest);

/// The version of a key: two of one number share the key.
fn item(seed: u64, number: u64, version: u64) -> Item {
    let hash = |of: [u64; 3]| *blake3::hash(&of.map(u64::to_le_bytes).concat()).as_bytes();
    (KeyHash(hash([seed, number, 0])), RecordDigest(hash([seed, number, version])))
}

fn leaf((key, record): Item) -> Leaf {
    Leaf { key, record, totals: Totals { entries: 1, siblings: 1, ..Totals::default() } }
}

fn under(items: &BTreeSet<Item>, prefix: &Prefix) -> Result<Vec<Leaf>, ()> {
    let (first, last) = (prefix.first_key(), prefix.last_key());
    let range = (first, RecordDigest([0; 32]))..=(last, RecordDigest([0xff; 32]));
    Ok(items.range(range).copied().map(leaf).collect())
}

/// Bytes both ways, and what was found.
struct Run {
    sketch: usize,
    refill: usize,
    names: usize,
    decoder: Decoder,
}

fn wire_len<T: Serialize>(of: &T) -> usize {
    bincode::serde::encode_to_vec(of, bincode::config::standard()).unwrap().len()
}

fn through_wire(sketch: &BucketSketch) -> BucketSketch {
    let config = bincode::config::standard();
    let bytes = bincode::serde::encode_to_vec(sketch.to_wire(), config).unwrap();
    let (wire, _) = bincode::serde::decode_from_slice::<WireSketch, _>(&bytes, config).unwrap();
    BucketSketch::from_wire(wire).unwrap()
}

/// All that is said until one side knows, for what each holds alone.
fn run(layout: Layout, entries: u64, ours: &BTreeSet<Item>, theirs: &BTreeSet<Item>) -> Run {
    let of = |portion: &Portion, items: &BTreeSet<Item>| {
        BucketSketch::of_items(portion.clone(), items.iter().copied())
    };
    let sent = of(&layout.all(), theirs);
    let sketch = wire_len(&sent.to_wire());
    let mut decoder = Decoder::new(of(&layout.all(), ours), &through_wire(&sent)).unwrap();
    let mut refill = 0;
    if let Some(asked) = decoder.refill() {
        let wire = asked.to_wire();
        let portion = layout.refill(&wire).unwrap();
        assert_eq!(portion, asked);
        let answer = of(&portion, theirs).to_bytes();
        assert_eq!(answer.len(), asked.bytes());
        refill = wire_len(&wire) + answer.len() + 2;
        let theirs = BucketSketch::from_bytes(asked, &answer).unwrap();
        decoder.extend(of(&portion, ours), &theirs).unwrap();
        assert_eq!(decoder.refill(), None);
    }
    let known = decoder.clone().finish();
    let attributed = known.attribute(|prefix| under(ours, prefix)).unwrap();
    let names = Names::new(layout, entries, &attributed.theirs);
    let wire = names.to_wire();
    assert_eq!(Names::from_wire(&wire, layout, entries), Ok(names));
    Run { sketch, refill, names: wire_len(&wire), decoder }
}

fn check(layout: Layout, ours: &BTreeSet<Item>, theirs: &BTreeSet<Item>) {
    let run = run(layout, 1_000, ours, theirs);
    let decoded = run.decoder.finish();
    let differing: Vec<&Item> = ours.symmetric_difference(theirs).collect();
    // what is not in a bucket that failed is named exactly, and nothing else is
    let failed =
        |key: &KeyHash| decoded.failed.iter().filter(|prefix| prefix.contains(key)).count() == 1;
    let named: Vec<&&Item> = differing.iter().filter(|(key, _)| !failed(key)).collect();
    assert_eq!(named.len(), decoded.ids.len());
    for (key, record) in named {
        assert_eq!(decoded.ids.iter().filter(|id| id.matches(key, record)).count(), 1);
    }
    let attributed = decoded.attribute(|prefix| under(ours, prefix)).unwrap();
    let expected: Vec<Leaf> = ours.difference(theirs).copied().map(leaf).collect();
    let expected: Vec<Leaf> = expected.into_iter().filter(|leaf| !failed(&leaf.key)).collect();
    assert_eq!(attributed.ours, expected);
    let keys: BTreeSet<KeyHash> = expected.iter().map(|leaf| leaf.key).collect();
    let of_theirs: Vec<Leaf> = theirs.difference(ours).copied().map(leaf).collect();
    let of_theirs: Vec<Leaf> = of_theirs.into_iter().filter(|leaf| !failed(&leaf.key)).collect();
    let updated = of_theirs.iter().filter(|leaf| keys.contains(&leaf.key)).count();
    assert!(attributed.updated >= updated, "{} {updated}", attributed.updated);
    let names = Names::new(layout, 1_000, &attributed.theirs);
    let named = names.resolve(|prefix| under(theirs, prefix)).unwrap();
    assert!(of_theirs.iter().all(|leaf| named.contains(leaf)));
    assert!(named.len() <= of_theirs.len() + 1 + of_theirs.len() / 8, "few others are named");
    if differing.len() <= pinsketch::most_named(layout.capacity()) {
        assert_eq!(decoded.failed, []);
    }
}

fn width() -> impl Strategy<Value = IdWidth> {
    prop_oneof![Just(IdWidth::Narrow), Just(IdWidth::Wide)]
}

fn items(seed: u64, most: usize) -> impl Strategy<Value = BTreeSet<Item>> {
    let version = (0..300_u64, 1..4_u64).prop_map(move |(number, version)| (number, version));
    prop::collection::btree_map(0..300_u64, version, 0..=most).prop_map(move |items| {
        items.into_iter().map(|(number, (_, version))| item(seed, number, version)).collect()
    })
}

proptest! {
    #[test]
    fn what_only_one_side_holds_is_named_or_its_bucket_said_to_have_failed(
        ours in items(1, 120), theirs in items(1, 120), width in width(), log2 in 0u8..=8,
        capacity in 1u8..=64,
    ) {
        check(Layout::new(width, log2, capacity).unwrap(), &ours, &theirs);
    }

    #[test]
    fn all_of_nothing_is_named(ours in items(2, 90), width in width(), log2 in 0u8..=4) {
        check(Layout::new(width, log2, 64).unwrap(), &ours, &BTreeSet::new());
        check(Layout::new(width, log2, 64).unwrap(), &BTreeSet::new(), &ours);
        check(Layout::new(width, log2, 2).unwrap(), &ours, &ours);
    }

    #[test]
    fn whatever_bytes_come_names_have_the_syndromes_that_were_sent_and_cost_what_was_planned(
        bytes in prop::collection::vec(any::<u8>(), 0..1_500), width in width(), log2 in 0u8..=4,
        capacity in 1u8..=64, zeroed in any::<bool>(), flipped: usize,
    ) {
        let layout = Layout::new(width, log2, capacity).unwrap();
        let mut bits = vec![0; layout.bytes()];
        if !zeroed {
            bits.iter_mut().zip(&bytes).for_each(|(bit, byte)| *bit = *byte);
        } else if let Some(byte) = bytes.first() {
            let at = flipped % bits.len();
            bits[at] = *byte;
        }
        let Ok(theirs) = BucketSketch::from_wire(WireSketch { layout, bits: bits.clone() }) else {
            return Ok(());
        };
        prop_assert_eq!(theirs.to_bytes(), bits);
        let ours = BucketSketch::of_items(layout.all(), []);
        let decoder = Decoder::new(ours.clone(), &theirs).unwrap();
        let pass = pinsketch::planned_work(width, 64);
        prop_assert!(decoder.work() <= 2 * layout.work() + pass, "{}", decoder.work());
        let decoded = decoder.finish();
        for id in &decoded.ids {
            for prefix in id.prefixes() {
                let own = crate::sketch::ids::bucket_prefix(log2, usize::from(id.bucket));
                prop_assert!(own.is_prefix_of(&prefix));
            }
        }
    }

    #[test]
    fn any_bytes_of_names_are_refused_or_come_back(
        gaps in prop::collection::vec(any::<u8>(), 0..60), count in 0u32..200, width in width(),
        log2 in 0u8..=12, entries: u64,
    ) {
        let layout = Layout::new(width, log2, 5).unwrap();
        let wire = WireNames { count, gaps };
        if let Ok(names) = Names::from_wire(&wire, layout, entries) {
            prop_assert_eq!(names.to_wire(), wire);
            prop_assert_eq!(names.resolve(|_| Ok::<_, ()>(Vec::new())), Ok(Vec::new()));
        }
    }

    #[test]
    fn any_refill_is_refused_or_comes_back(
        capacity: u8, failed in prop::collection::vec(any::<u8>(), 0..4), log2 in 0u8..=5,
    ) {
        let layout = Layout::new(IdWidth::Wide, log2, 9).unwrap();
        let wire = WireRefill { capacity, failed };
        if let Ok(portion) = layout.refill(&wire) {
            prop_assert!(!portion.is_empty() && portion.len() <= layout.buckets());
            prop_assert_eq!(portion.to_wire(), wire);
            let prefixes = portion.prefixes();
            prop_assert!(prefixes.iter().all(|prefix| portion.wants(&prefix.last_key())));
        }
    }
}

#[test]
fn layouts_travel_in_two_bytes_and_are_checked() {
    let config = bincode::config::standard();
    for width in [IdWidth::Narrow, IdWidth::Wide] {
        let layout = Layout::new(width, 12, 64).unwrap();
        let bytes = bincode::serde::encode_to_vec(layout, config).unwrap();
        assert_eq!(bytes.len(), 2);
        let (again, _): (Layout, _) = bincode::serde::decode_from_slice(&bytes, config).unwrap();
        assert_eq!(again, layout);
    }
    for bytes in [[13, 1], [0, 0], [0, 65], [0x80 | 13, 9], [0x7f, 1]] {
        assert!(bincode::serde::decode_from_slice::<Layout, _>(&bytes, config).is_err());
    }
    let sketch =
        WireSketch { layout: Layout::new(IdWidth::Wide, 1, 3).unwrap(), bits: vec![0; 29] };
    assert!(BucketSketch::from_wire(sketch.clone()).is_err(), "one byte short");
    let mut padded = WireSketch { bits: vec![0; 30], ..sketch };
    assert!(BucketSketch::from_wire(padded.clone()).is_ok());
    padded.bits[29] = 1;
    assert!(BucketSketch::from_wire(padded).is_err(), "bits that are none");
}

#[test]
fn sketches_of_other_portions_are_not_added() {
    let [three, four] = [3, 4].map(|capacity| Layout::new(IdWidth::Wide, 2, capacity).unwrap());
    let of = |portion: Portion| BucketSketch::of_items(portion, []);
    let mismatch = Some(SketchError::Mismatch);
    assert_eq!(Decoder::new(of(three.all()), &of(four.all())).err(), mismatch);
    let refill = three.refill(&WireRefill { capacity: 5, failed: vec![3] }).unwrap();
    assert_eq!(Decoder::new(of(refill.clone()), &of(refill.clone())).err(), mismatch);
    let mut done = Decoder::new(of(three.all()), &of(three.all())).unwrap();
    assert!(done.is_done() && done.refill().is_none());
    let refused = done.extend(of(refill.clone()), &of(refill));
    assert_eq!(refused, Err(SketchError::Refill));
}

/// Ids of which many traces are the same take as many steps to tell apart as there are.
#[test]
fn chosen_ids_cost_no_more_than_twice_what_was_planned() {
    let layout = Layout::new(IdWidth::Wide, 0, 64).unwrap();
    // multiples of each other by elements of a small subspace
    let families: [Vec<u64>; 3] = [
        (1..65).collect(),
        (0..39).map(|bit| 1 << bit).collect(),
        (0..64).map(|number| number << 33 | 1 << 32).collect(),
    ];
    for ids in families {
        let mut syndromes = vec![0; 64];
        pinsketch::toggle(IdWidth::Wide, &mut syndromes, 0, &ids);
        let theirs = BucketSketch::from_syndromes(layout.all(), syndromes);
        let decoder = Decoder::new(BucketSketch::of_items(layout.all(), []), &theirs).unwrap();
        let step = pinsketch::planned_work(IdWidth::Wide, 64) / 4;
        assert!(decoder.work() <= 2 * layout.work() + step, "{} {}", decoder.work(), layout.work());
    }
}

/// Bytes for each difference, on average over some seeds, with a million entries on each side.
#[test]
fn differences_are_named_in_few_bytes() {
    const ENTRIES: u64 = 1_000_000;
    // differing, in two versions, seeds, most bytes for each
    let cells: [(u64, bool, u64, f64); 10] = [
        (1, false, 40, 15.5),
        (1, true, 40, 15.5),
        (10, false, 40, 13.0),
        (10, true, 40, 13.0),
        (100, false, 20, 9.3),
        (100, true, 20, 9.3),
        (1_000, false, 8, 8.0),
        (1_000, true, 8, 8.0),
        (10_000, false, 1, 7.9),
        (100_000, true, 1, 7.3),
    ];
    let mut dear = Vec::new();
    for (differing, in_two, seeds, most) in cells {
        let (mut total, mut parts, mut failed, mut refills) = (0, [0; 3], 0, 0);
        for seed in 0..seeds {
            let (mut ours, mut theirs) = (BTreeSet::new(), BTreeSet::new());
            for number in 0..differing {
                let of_ours = number % 2 == 0;
                let number = if in_two { number / 2 } else { number };
                let side = if of_ours { &mut ours } else { &mut theirs };
                side.insert(item(seed, number, 1 + u64::from(of_ours)));
            }
            let [mut ea, mut eb] = [Estimator::default(), Estimator::default()];
            ours.iter().for_each(|(_, record)| ea.add(record));
            theirs.iter().for_each(|(_, record)| eb.add(record));
            let (estimate, precision) = match ea.folded().difference(&eb.folded()) {
                Some(estimate) => (estimate, Precision::Folded),
                None => {
                    total += 128;
                    (ea.wrapped().difference(&eb.wrapped()).unwrap(), Precision::Full)
                }
            };
            let Some(layout) = Layout::plan(estimate, precision, ENTRIES) else {
                failed += 1;
                continue;
            };
            let run = run(layout, ENTRIES, &ours, &theirs);
            parts[0] += run.sketch;
            parts[1] += run.refill;
            parts[2] += run.names;
            refills += usize::from(run.refill > 0);
            total += run.sketch + run.refill + run.names;
            failed += run.decoder.finish().failed.len();
        }
        let each = total as f64 / (seeds * differing) as f64;
        let [sketch, refill, names] = parts.map(|part| part as f64 / (seeds * differing) as f64);
        println!(
            "d {differing:>6} {}: {each:.2} B each: sketch {sketch:.2}, refill {refill:.2} \
                 ({refills} of {seeds}), names {names:.2}; {failed} buckets failed",
            if in_two { "in two versions" } else { "of one side    " }
        );
        dear.extend((each > most).then_some((differing, in_two, each, most)));
    }
    assert_eq!(dear, []);
}

#[test]
fn there_is_a_layout_for_the_most_differences_and_for_no_more() {
    let most = Layout::MOST_DIFFERENCES;
    let layout = Layout::plan(most, Precision::Full, 1 << 24).unwrap();
    assert_eq!(layout.buckets_log2(), MAX_BUCKETS_LOG2);
    assert!(layout.capacity() <= MAX_CAPACITY);
    assert!(layout.capacity() * layout.buckets() > most as usize);
    assert_eq!(Layout::plan(most + 1, Precision::Full, 1 << 24), None);
    assert_eq!(Layout::plan(u64::MAX, Precision::Folded, 1 << 24), None);
}
