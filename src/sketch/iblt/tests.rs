#![allow(clippy::unwrap_used)]
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::decoder::NAMES_PER_SYMBOL;
use super::siphash::siphash;
use super::*;
use crate::limits::Limits;
use crate::sketch::ShortId;

const KEY: IbltKey = IbltKey([5, 6]);

/// Ids as hashes give them.
fn id(seed: u64, number: u64) -> ShortId {
    ShortId::truncated(siphash::<1, 3>([seed, 77], number))
}

fn encoder<'a>(ids: impl IntoIterator<Item = &'a u64>) -> Encoder {
    let ids = ids.into_iter().map(|number| ShortId::new(*number).unwrap());
    Encoder::new(&KEY, ids, &Limits::default())
}

fn numbers(ids: &[ShortId]) -> Vec<u64> {
    ids.iter().map(|id| id.get()).collect()
}

/// Reads until all is named, `batch` symbols at a time.
fn reconcile(theirs: &mut Encoder, ours: Encoder, batch: usize) -> Decoder {
    let mut decoder = Decoder::new(ours, &Limits::default());
    while !decoder.push(&theirs.next_symbols(batch)).unwrap() {}
    decoder
}

fn set(most: usize) -> impl Strategy<Value = BTreeSet<u64>> {
    // many small ones too: neighbours, powers, edges
    let most_id = (1u64 << 44) - 1;
    let id = prop_oneof![1..=most_id, 1..200u64, (0..44u32).prop_map(|bit| 1 << bit)];
    prop::collection::btree_set(id, 0..=most)
}

proptest! {
    #[test]
    fn what_only_one_of_two_sets_holds_is_named(
        ours in set(80), theirs in set(80), shared in set(80), batch in 1usize..40,
    ) {
        let ours: BTreeSet<u64> = ours.union(&shared).copied().collect();
        let theirs: BTreeSet<u64> = theirs.union(&shared).copied().collect();
        let decoder = reconcile(&mut encoder(&theirs), encoder(&ours), batch.max(4));
        let difference = decoder.difference();
        let only = |these: &BTreeSet<u64>, those| these.difference(those).copied().collect();
        let (only_ours, only_theirs): (Vec<u64>, Vec<u64>) =
            (only(&ours, &theirs), only(&theirs, &ours));
        prop_assert_eq!(numbers(&difference.ours), only_ours);
        prop_assert_eq!(numbers(&difference.theirs), only_theirs);
    }

    #[test]
    fn a_stream_knows_no_order_and_no_batches(ids in set(60), cuts in prop::collection::vec(0usize..9, 1..9)) {
        let whole = encoder(&ids).next_symbols(cuts.iter().sum());
        let mut backwards = encoder(ids.iter().rev());
        let parts: Vec<Symbol> = cuts.iter().flat_map(|cut| backwards.next_symbols(*cut).0).collect();
        prop_assert_eq!(whole, Symbols(parts));
        prop_assert_eq!(backwards.symbols(), cuts.iter().sum::<usize>());
    }

    #[test]
    fn any_bytes_are_refused_or_read_with_bounded_work(
        bytes in prop::collection::vec(any::<u8>(), 0..900), ids in set(30), one in any::<bool>(),
    ) {
        let mut bytes = bytes;
        if one {
            bytes.iter_mut().skip(8).step_by(SYMBOL_BYTES).for_each(|count| *count = 1);
        }
        let Ok(symbols) = Symbols::from_bytes(&bytes) else {
            prop_assert!(bytes.is_empty() || bytes.len() % SYMBOL_BYTES != 0);
            return Ok(());
        };
        prop_assert_eq!(symbols.to_bytes(), bytes);
        let mut decoder = Decoder::new(encoder(&ids), &Limits::default());
        let _ = decoder.push(&symbols);
        prop_assert!(within_bounds(&decoder));
    }
}

/// A look at each symbol when it comes; then for each name that it may give, a way through the
/// symbols to see whether the id belongs there, another to take it away, and a look at each symbol
/// that changed.
fn within_bounds(decoder: &Decoder) -> bool {
    let symbols = decoder.symbols() as f64;
    let way = 3.0 * (2.0 + 2.0 * symbols.max(2.0).ln());
    decoder.effort() as f64 <= symbols * (1.0 + 3.0 * f64::from(NAMES_PER_SYMBOL) * way)
}

/// Symbols that a set of `differing` ids takes, half of them at each side, for each of the seeds.
fn needed(differing: u64, seeds: u64) -> Vec<usize> {
    let mut needed: Vec<usize> = (0..seeds)
        .map(|seed| {
            let (key, limits) = (IbltKey([seed, differing]), Limits::default());
            let of = |numbers: std::ops::Range<u64>| {
                Encoder::new(&key, numbers.map(|number| id(seed, number)), &limits)
            };
            let half = differing / 2;
            let mut theirs = of(0..half);
            let mut decoder = Decoder::new(of(half..differing), &limits);
            while !decoder.is_complete() {
                decoder.push(&theirs.next_symbols(1 + decoder.symbols() / 500)).unwrap();
            }
            let difference = decoder.difference();
            let named = difference.ours.len() + difference.theirs.len();
            assert_eq!(named as u64, differing);
            assert!(decoder.effort() < 48 * decoder.symbols() as u64, "{}", decoder.effort());
            decoder.symbols()
        })
        .collect();
    needed.sort_unstable();
    needed
}

#[test]
fn a_difference_takes_about_a_third_more_symbols_than_ids() {
    // means of many more seeds: 1.73, 1.45, 1.37, 1.36
    for (differing, seeds, most) in
        [(5, 300, 1.9), (100, 60, 1.52), (1_000, 8, 1.41), (5_000, 2, 1.39)]
    {
        let needed = needed(differing, seeds);
        let mean = needed.iter().sum::<usize>() as f64 / seeds as f64 / differing as f64;
        assert!((1.3..most).contains(&mean), "{differing}: {mean}");
        let covered = needed.iter().filter(|one| **one <= symbols_for(differing)).count();
        assert!(covered as f64 > 0.9 * seeds as f64, "{differing}: {covered} of {seeds}");
    }
}

#[test]
fn nothing_one_all_and_one_side_alone_are_named() {
    let many: BTreeSet<u64> = (1..500).map(|number| number * 0x1234_5678).collect();
    let none = BTreeSet::new();
    for (ours, theirs) in [(&many, &many), (&none, &none), (&none, &many), (&many, &none)] {
        let decoder = reconcile(&mut encoder(theirs), encoder(ours), 4);
        let difference = decoder.difference();
        let only = |these: &BTreeSet<u64>, those| these.difference(those).copied().collect();
        let expected: (Vec<u64>, Vec<u64>) = (only(ours, theirs), only(theirs, ours));
        assert_eq!((numbers(&difference.ours), numbers(&difference.theirs)), expected);
        if ours == theirs {
            assert_eq!(decoder.symbols(), 4, "the first batch says so");
        }
    }
    let fresh = Decoder::new(encoder(&none), &Limits::default());
    assert!(!fresh.is_complete(), "nobody has said anything yet");
}

#[test]
fn a_sum_passes_for_one_id_in_one_case_of_a_million() {
    const SUMS: u64 = 1 << 21;
    let passes = |number: u64| {
        let sum = [0, 1, 2].map(|which| Word::of(&KEY, id(which, number)).0.0);
        Word(sum[0] ^ sum[1] ^ sum[2]).check(&KEY).is_some()
    };
    let passed = (0..SUMS).filter(|number| passes(*number)).count() as u64;
    // 2 are expected; a check of four bits fewer would let 32 pass
    assert!(passed <= 10, "{passed}");
}

#[test]
fn an_id_named_in_error_is_taken_back() {
    let word = |which: u64, number: u64| Word::of(&KEY, id(which, number)).0;
    let found = (0..u64::MAX).find_map(|number| {
        let sum = Word(word(1, 0).0 ^ word(2, 0).0 ^ word(3, number).0);
        sum.check(&KEY).is_some().then_some((number, sum))
    });
    let (number, sum) = found.unwrap();
    let limits = Limits::default();
    let mut theirs = Encoder::new(&KEY, [id(1, 0), id(2, 0)], &limits);
    let mut decoder = Decoder::new(Encoder::new(&KEY, [id(3, number)], &limits), &limits);
    decoder.push(&theirs.next_symbols(1)).unwrap();
    assert_eq!(decoder.difference().theirs, Vec::from_iter(sum.id()), "nothing speaks against it");
    while !decoder.push(&theirs.next_symbols(4)).unwrap() {}
    let difference = decoder.difference();
    assert_eq!(difference.ours, [id(3, number)]);
    assert_eq!(BTreeSet::from_iter(difference.theirs), BTreeSet::from([id(1, 0), id(2, 0)]));
}

#[test]
fn symbols_that_lead_round_in_circles_come_to_an_end() {
    let word = |number: u64| Word::of(&KEY, ShortId::new(number).unwrap()).0.0;
    // an id that stands alone in one symbol and, as the others say, in none of them: taken away
    // here, it comes up there, and so on
    let mut alone = vec![Symbol::default(); 64];
    alone[0] = Symbol { word: word(1), count: 1 };
    // and as many such ids as there are symbols
    let many = (1..=2_000).map(|number| Symbol { word: word(number), count: 1 }).collect();
    // and the same one in all of them
    let same = vec![Symbol { word: word(1), count: u8::MAX }; 2_000];
    for symbols in [alone, many, same] {
        let mut decoder = Decoder::new(encoder(&[]), &Limits::default());
        assert_eq!(decoder.push(&Symbols(symbols)), Ok(false));
        assert!(within_bounds(&decoder), "{} for {}", decoder.effort(), decoder.symbols());
        assert!(decoder.symbols() < decoder.effort() as usize, "something was tried");
    }
}

#[test]
fn counts_that_lie_name_nothing_and_cost_little() {
    let numbers: Vec<u64> = (1..300).map(|number| number * 0x0765_4321).collect();
    for lie in [|_| 0, |_| 1, |_| u8::MAX, |count: u8| count.wrapping_neg()] {
        let mut symbols = encoder(&numbers).next_symbols(600);
        symbols.0.iter_mut().for_each(|symbol| symbol.count = lie(symbol.count));
        let mut decoder = Decoder::new(encoder(&numbers[200..]), &Limits::default());
        let pushed = decoder.push(&symbols);
        assert_ne!(pushed, Ok(true));
        assert!(within_bounds(&decoder));
    }
}

#[test]
fn a_stream_ends_at_its_limit() {
    let limits = Limits { max_iblt_symbols: 10, ..Limits::default() };
    let numbers = |range: std::ops::Range<u64>| range.map(|number| id(1, number));
    let mut theirs = Encoder::new(&KEY, numbers(0..100), &limits);
    assert_eq!(theirs.next_symbols(7).len(), 7);
    assert_eq!(theirs.next_symbols(usize::MAX).len(), 3);
    assert!(theirs.next_symbols(1).is_empty());
    let mut endless = Encoder::new(&KEY, numbers(0..100), &Limits::default());
    let mut decoder = Decoder::new(Encoder::new(&KEY, [], &Limits::default()), &limits);
    assert_eq!(decoder.push(&endless.next_symbols(10)), Ok(false));
    assert_eq!(decoder.push(&endless.next_symbols(1)), Err(IbltError::TooMany { limit: 10 }));
    assert_eq!(decoder.symbols(), 10);
}

#[test]
fn symbols_travel_in_nine_bytes_each() {
    let config = bincode::config::standard();
    let symbols = encoder(&[3, 4, 5]).next_symbols(20);
    let bytes = bincode::serde::encode_to_vec(&symbols, config).unwrap();
    assert_eq!(bytes.len(), 1 + 20 * SYMBOL_BYTES);
    let (again, _): (Symbols, usize) = bincode::serde::decode_from_slice(&bytes, config).unwrap();
    assert_eq!(again, symbols);
    let refused: Result<(Symbols, usize), _> =
        bincode::serde::decode_from_slice(&[3, 1, 2, 3], config);
    assert!(refused.is_err());
    assert_eq!(Symbols::from_bytes(&[]), Err(IbltError::Length(0)));
}
