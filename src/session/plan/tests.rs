use proptest::sample::select;
use proptest::{prop_assert, proptest};

use super::*;

impl Profile {
    fn price_of(self, choice: &Choice, estimate: u64) -> u64 {
        // what is told is the same, however it was found
        let told = estimate.min(AUTO.most_differences).saturating_mul(TOLD_BYTES);
        let bytes = choice.step.predicted.bytes - told;
        Cost { bytes, ..choice.step.predicted }.price(self)
    }
}

const AUTO: Question = Question {
    strategy: Strategy::Auto,
    profile: Profile::Auto,
    entries: 20_000,
    most_entries: 20_000,
    kept: true,
    estimate: Some(100),
    precision: Precision::Full,
    filter_rate: 0.1,
    most_differences: 65_536,
    most_symbols: 1 << 19,
    kept_symbols: 0,
};

#[test]
fn of_all_ways_the_one_with_the_fewest_bytes_is_gone() {
    for (estimate, entries) in [(1, 100), (1, 1_000_000), (60, 20_000), (1_000, 20_000)] {
        let question =
            Question { estimate: Some(estimate), entries, most_entries: entries, ..AUTO };
        let choice = decide(&question);
        assert!(matches!(choice.way, Way::Sketch(_)), "{estimate} of {entries}: {choice:?}");
        let descent = descent_cost(estimate, entries).bytes + 60 * estimate;
        assert!(choice.step.predicted.bytes < descent);
    }
    let tenth = Question { estimate: Some(2_000), ..AUTO };
    assert_eq!(decide(&tenth).way, Way::Filter);
}

#[test]
fn each_profile_saves_what_it_is_for() {
    let ask = |profile, estimate| {
        let question = Question { profile, estimate: Some(estimate), ..AUTO };
        decide(&question).way
    };
    for estimate in [100, 1_000] {
        assert!(matches!(ask(Profile::Bytes, estimate), Way::Sketch(_)));
        // several buckets want a refill: symbols do not
        assert!(matches!(ask(Profile::Latency, estimate), Way::Symbols(_)));
    }
    assert!(matches!(ask(Profile::Latency, 10), Way::Sketch(_)));
    // one bucket leaves open where to look
    assert_eq!(ask(Profile::Cpu, 10), Way::Steer);
    assert!(matches!(ask(Profile::Cpu, 1_000), Way::Sketch(_)));
    assert_eq!(decide(&Question { profile: Profile::Cpu, kept: false, ..AUTO }).way, Way::Steer);
}

#[test]
fn where_work_is_saved_nothing_is_read_for_an_estimate() {
    let worth = |profile, entries, kept| worth_estimating(Strategy::Auto, profile, entries, kept);
    assert!(worth(Profile::Cpu, 1_000_000, true));
    assert!(!worth(Profile::Cpu, 1_000_000, false));
    assert!(worth(Profile::Cpu, 1_000, false));
    assert!(worth(Profile::Auto, 1_000_000, false));
    assert!(!worth(Profile::Auto, 63, true));
}

proptest! {
    #[test]
    fn no_other_way_would_save_more(
        entries in 1u64..3_000_000,
        share in 0u64..10_000,
        folded: bool,
        kept: bool,
    ) {
        let estimate = share * entries / 10_000;
        let of = |profile| decide(&Question {
            profile,
            estimate: Some(estimate),
            entries,
            most_entries: entries,
            kept,
            precision: if folded { Precision::Folded } else { Precision::Full },
            ..AUTO
        });
        let [auto, bytes, latency, cpu] = Profile::ALL.map(of);
        if [&auto, &bytes, &cpu].iter().all(|choice| choice.way != Way::Filter) {
            let cost = |choice: &Choice| choice.step.predicted;
            for other in [&auto, &latency, &cpu] {
                prop_assert!(cost(&bytes).bytes <= cost(other).bytes);
            }
            let work = |choice: &Choice| Profile::Cpu.price_of(choice, estimate);
            prop_assert!(work(&cpu) <= work(&auto) && work(&cpu) <= work(&bytes));
        }
        let fits = estimate <= AUTO.most_differences;
        let is_readable = estimate <= SKETCHED_TIMES * AUTO.most_differences;
        for choice in [auto, bytes, latency, cpu] {
            let within = match choice.way {
                Way::Sketch(layout) => is_readable && layout.bytes() < 2 << 20,
                Way::Symbols(count) => fits && count <= AUTO.most_symbols,
                Way::Filter => worth_filtering(estimate, entries),
                Way::Steer => true,
            };
            prop_assert!(within, "{:?}", choice);
            prop_assert!(choice.step.predicted.messages <= 32);
        }
    }

    #[test]
    fn whatever_is_asked_there_is_an_answer(
        entries: u64,
        most_entries: u64,
        estimate: Option<u64>,
        most_differences: u64,
        most_symbols: usize,
        kept_symbols: usize,
        kept: bool,
        strategy in select(&Strategy::ALL[..]),
        profile in select(&Profile::ALL[..]),
    ) {
        let question = Question {
            strategy,
            profile,
            entries,
            most_entries,
            kept,
            estimate,
            precision: Precision::Full,
            filter_rate: 0.1,
            most_differences,
            most_symbols,
            kept_symbols,
        };
        let choice = decide(&question);
        let forced = match choice.way {
            Way::Filter => strategy == Strategy::Auto,
            Way::Sketch(_) => matches!(strategy, Strategy::Auto | Strategy::Sketch),
            Way::Symbols(_) => matches!(strategy, Strategy::Auto | Strategy::Iblt),
            Way::Steer => true,
        };
        prop_assert!(forced, "{:?}", choice);
    }
}

#[test]
fn what_no_session_holds_is_left_to_a_descent() {
    for strategy in [Strategy::Auto, Strategy::Sketch, Strategy::Iblt] {
        for estimate in [None, Some(4 * 65_536 + 1), Some(u64::MAX)] {
            let entries = 1_000_000_000_000;
            let question = Question {
                strategy,
                estimate: estimate.map(|all| all.min(entries / 100)),
                entries,
                most_entries: entries,
                ..AUTO
            };
            assert_eq!(decide(&question).way, Way::Steer, "{strategy:?} {estimate:?}");
        }
    }
}

#[test]
fn symbols_that_are_kept_cost_no_look_at_all_entries() {
    let (entries, estimate) = (1_000_000, Some(1_000));
    let profile = Profile::Latency;
    let made = Question { entries, most_entries: entries, estimate, profile, ..AUTO };
    let kept = Question { kept_symbols: 4_096, ..made };
    // sketches of several buckets need a refill now and then, symbols do not
    assert!(!matches!(decide(&made).way, Way::Symbols(_)), "{:?}", decide(&made));
    assert!(matches!(decide(&kept).way, Way::Symbols(_)), "{:?}", decide(&kept));
    let few = Question { kept_symbols: 64, ..made };
    assert_eq!(decide(&few), decide(&made));
}

#[test]
fn a_forced_way_is_gone_where_it_can_be() {
    for estimate in [0, 1, 40, 1_000, 60_000] {
        let ask = |strategy| Question { strategy, estimate: Some(estimate), ..AUTO };
        assert!(matches!(decide(&ask(Strategy::Sketch)).way, Way::Sketch(_)));
        assert!(matches!(decide(&ask(Strategy::Iblt)).way, Way::Symbols(_)));
    }
    let few = Question { strategy: Strategy::Iblt, most_symbols: 10, ..AUTO };
    assert_eq!(decide(&few).way, Way::Steer);
}

#[test]
fn where_no_sketch_has_room_symbols_have() {
    let entries = 4_000_000;
    let many = Question {
        estimate: Some(300_000),
        most_differences: 1_000_000,
        entries,
        most_entries: entries,
        ..AUTO
    };
    assert!(matches!(decide(&many).way, Way::Symbols(_)));
}
