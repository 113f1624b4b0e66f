//! The planner: which method looks for what announcement did not explain.
//!
//! A pure function of what both sides stated, so that its choice can be shown and tested.
//!
//! ```
//! use selfsame::session::Strategy;
//! use selfsame::session::plan::{Question, Way, decide};
//! use selfsame::sketch::Precision;
//!
//! let question = Question {
//!     strategy: Strategy::Auto,
//!     entries: 20_000,
//!     most_entries: 20_000,
//!     estimate: Some(50),
//!     precision: Precision::Full,
//!     filter_rate: 0.1,
//!     most_differences: 65_536,
//!     most_symbols: 524_288,
//! };
//! let choice = decide(&question);
//! assert!(matches!(choice.way, Way::Sketch(layout) if layout.buckets() == 2));
//! assert!(choice.step.reason.contains("50 of 20000"));
//!
//! // as many as a session may hold are left to a descent, which stops where it must
//! let entries = 2_000_000_000;
//! let many = Question { estimate: None, entries, most_entries: entries, ..question };
//! assert_eq!(decide(&many).way, Way::Steer);
//! ```

use super::config::Strategy;
use super::phase::Phase;
use super::stats::PlanStep;
use crate::sketch::iblt::{SYMBOL_BYTES, symbols_for};
use crate::sketch::{Layout, Precision};

/// A way to find differences.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Method {
    /// Filters over the dots held.
    Bloom,
    /// A bucketed `PinSketch` of the leaves.
    Sketch,
    /// Coded symbols of the leaves.
    Iblt,
    /// Merkle descent with hashes cut to 8 bytes.
    Steer,
    /// Merkle descent with full hashes, checked up to the stated root: the last resort.
    Full,
}

/// Fewer entries than this are compared by descent at once.
const SMALL: u64 = 64;
/// Share of the entries from which a filter beats a descent, as a fraction.
const BLOOM_SHARE: (u64, u64) = (1, 10);

/// Bounds of the planned rates of filters.
const LEAST_RATE: f64 = 0.001;
const GREATEST_RATE: f64 = 0.65;

/// Whether `estimate` differences among `entries` are better found by filters than by descent.
///
/// ```
/// use selfsame::session::plan::worth_filtering;
///
/// assert!(worth_filtering(3_000, 20_000));
/// assert!(!worth_filtering(50, 20_000));
/// ```
#[must_use]
pub const fn worth_filtering(estimate: u64, entries: u64) -> bool {
    entries >= SMALL
        && estimate.saturating_mul(BLOOM_SHARE.1) >= entries.saturating_mul(BLOOM_SHARE.0)
}

/// Whether it is asked at all how many entries differ, when the larger side has `most_entries`: it
/// costs a look at each of them at both ends, and a message.
#[must_use]
pub const fn worth_estimating(strategy: Strategy, most_entries: u64) -> bool {
    match strategy {
        Strategy::Auto => most_entries >= SMALL,
        Strategy::Sketch | Strategy::Iblt => true,
        Strategy::Bloom | Strategy::Merkle => false,
    }
}

/// Bytes and messages that a steering descent to `estimate` leaves among `entries` is expected to
/// cost, both ways, without what is told of them then: on each level the ids of 16 children for
/// each node above a leaf that differs, then lists.
#[must_use]
pub fn descent_cost(estimate: u64, entries: u64) -> (u64, u64) {
    const ID_BYTES: f64 = 4.0;
    let differing = estimate.min(entries.saturating_mul(2)) as f64;
    let (mut bytes, mut messages) = (0.0, 2);
    let (mut nodes, mut under) = (1.0_f64, entries as f64);
    while under > if nodes < 16.0 { 32.0 } else { 16.0 } {
        // of so many nodes, those under which one differs
        let open = nodes * (1.0 - (-differing / nodes).exp());
        bytes += open * (16.0 * ID_BYTES + 4.0);
        messages += 1;
        (nodes, under) = (nodes * 16.0, under / 16.0);
    }
    let open = nodes * (1.0 - (-differing / nodes).exp());
    bytes += open * (under.max(1.0) * (ID_BYTES + 0.125) + 1.0);
    (bytes as u64, messages)
}

/// Bytes of a difference that hides behind a false positive of a filter.
fn hidden_bytes(estimate: u64, entries: u64) -> u64 {
    if estimate == 0 {
        return 0;
    }
    // Levels shared by all paths are counted once: about log16 of the number of differences.
    let levels = (entries.max(2) as f64).log2() / 4.0;
    let shared = (estimate as f64).log2() / 4.0;
    let own = (levels - shared).max(1.0);
    let node = 16.0 * 8.0 + 8.0;
    (estimate as f64 * (own * node + 120.0) + estimate as f64 * node / 8.0) as u64
}

/// Bytes that announcing so many entries, of one sibling each, and removals is expected to cost.
#[must_use]
pub const fn announcement_bytes(entries: u64, removals: u64) -> u64 {
    entries.saturating_mul(85).saturating_add(removals.saturating_mul(3))
}

/// Bytes that two filters over `items` dots with this rate cost.
#[must_use]
pub fn filter_bytes(items: u64, fpr: f64) -> u64 {
    let bits = items as f64 * -fpr.max(1e-9).log2() / std::f64::consts::LN_2;
    (bits / 8.0 * 1.6) as u64
}

/// The rate of false positives that costs the fewest bytes in all, when `estimate` of `items` dots
/// are expected to be unknown to the peer and a descent finds what hides behind false positives.
///
/// One dot more that hides costs its share of the descent; half the rate costs 1.44 bits a dot, in
/// both filters together about twice that.
#[must_use]
pub fn filter_rate(items: u64, estimate: u64) -> f64 {
    let (items, estimate) = (items.max(1), estimate.max(1));
    let hidden_bits = 8.0 * hidden_bytes(estimate, items).max(1) as f64;
    (3.3 * items as f64 / hidden_bits).clamp(LEAST_RATE, GREATEST_RATE)
}

/// What the planner is asked.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Question {
    /// What is asked for.
    pub strategy: Strategy,
    /// Entries of the side that chooses.
    pub entries: u64,
    /// Entries of the larger side.
    pub most_entries: u64,
    /// How many leaves only one side holds, about; none if they are more than an estimator tells.
    pub estimate: Option<u64>,
    /// How near that is.
    pub precision: Precision,
    /// The rate of false positives that filters would have.
    pub filter_rate: f64,
    /// More differences than this no session holds.
    pub most_differences: u64,
    /// More symbols than this are not sent.
    pub most_symbols: usize,
}

/// A method, with what it begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Filters.
    Filter,
    /// A sketch of this layout.
    Sketch(Layout),
    /// So many coded symbols.
    Symbols(usize),
    /// Descent.
    Steer,
}

/// What the planner answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    /// What to do.
    pub way: Way,
    /// The decision, with its reason.
    pub step: PlanStep,
}

/// Fewer differences than this an estimator never takes for too many to tell.
const MANY: u64 = 100_000;
/// Messages of a filter exchange: two filters, and what each side tells.
pub const FILTER_MESSAGES: u64 = 4;
/// Messages of a sketch or symbols that are enough: it, what this side tells with the names, and the
/// answer.
const SKETCH_MESSAGES: u64 = 3;
/// Bytes that it costs to tell a leaf that differs: a state has two sides in half of the cases.
const TOLD_BYTES: u64 = 60;

/// Bytes of the names of `count` among `entries`: their gaps, Rice-coded.
fn names_bytes(count: u64, entries: u64) -> u64 {
    let gap = (entries.max(2) as f64).log2() + 7.0 - (count.max(1) as f64).log2();
    (count as f64 * (gap + 1.5) / 8.0) as u64
}

/// Chooses how what differs is found. With strategy auto: filters if a tenth of the entries differ,
/// since they ask for what seems to be removed by its dots, where other ways tell whole states; else
/// the way that is expected to cost the fewest bytes. A forced way that cannot be gone gives way to
/// descent.
#[must_use]
pub fn decide(question: &Question) -> Choice {
    let &Question { strategy, entries, most_entries, precision, .. } = question;
    let many = question.estimate.is_none();
    let estimate = question.estimate.unwrap_or(MANY);
    let names = names_bytes(estimate / 2, most_entries);
    let fits = !many && estimate <= question.most_differences;
    let filter = || {
        let is_worth = strategy == Strategy::Auto && worth_filtering(estimate, entries);
        let hidden = (estimate as f64 * question.filter_rate) as u64;
        let bytes = filter_bytes(entries, question.filter_rate) + descent_cost(hidden, entries).0;
        is_worth.then_some((Way::Filter, (bytes, FILTER_MESSAGES)))
    };
    let sketch = || {
        let asked = matches!(strategy, Strategy::Auto | Strategy::Sketch);
        let layout = Layout::plan(estimate, precision, most_entries).filter(|_| asked && fits)?;
        let bytes = layout.bytes() as u64 * 11 / 10 + names;
        Some((Way::Sketch(layout), (bytes, SKETCH_MESSAGES)))
    };
    let symbols = || {
        let asked = matches!(strategy, Strategy::Auto | Strategy::Iblt);
        let count = symbols_for(match precision {
            Precision::Folded => estimate.saturating_mul(3) / 2 + 1,
            Precision::Full => estimate.saturating_mul(9) / 8 + 1,
        });
        let bytes = (count * SYMBOL_BYTES) as u64 + names;
        let fits = asked && fits && count <= question.most_symbols;
        fits.then_some((Way::Symbols(count), (bytes, SKETCH_MESSAGES)))
    };
    let steer = (Way::Steer, descent_cost(estimate, most_entries));
    let named = [sketch(), symbols()].into_iter().flatten();
    let best = filter().or_else(|| named.min_by_key(|(_, (bytes, _))| *bytes));
    let (way, (bytes, messages)) = match best {
        Some(best) if best.0 == Way::Filter || strategy != Strategy::Auto => best,
        Some(best) if best.1.0 <= steer.1.0 => best,
        _ => steer,
    };
    let about = if many { "more than" } else { "about" };
    let (phase, what) = match way {
        Way::Filter => (Phase::BloomExchange, "filters".to_owned()),
        Way::Sketch(layout) => {
            let (buckets, capacity) = (layout.buckets(), layout.capacity());
            (Phase::SketchExchange, format!("a sketch of {buckets} x {capacity} syndromes"))
        }
        Way::Symbols(count) => (Phase::SketchExchange, format!("{count} coded symbols")),
        Way::Steer => (Phase::MerkleComparison, "descent".to_owned()),
    };
    let forced = if strategy == Strategy::Auto { "" } else { " (the strategy is forced)" };
    let told = estimate.min(question.most_differences).saturating_mul(TOLD_BYTES);
    let step = PlanStep {
        phase,
        reason: format!("{about} {estimate} of {entries} entries differ: {what}{forced}"),
        predicted_bytes: bytes.saturating_add(told),
        predicted_messages: messages,
    };
    Choice { way, step }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTO: Question = Question {
        strategy: Strategy::Auto,
        entries: 20_000,
        most_entries: 20_000,
        estimate: Some(100),
        precision: Precision::Full,
        filter_rate: 0.1,
        most_differences: 65_536,
        most_symbols: 1 << 19,
    };

    #[test]
    fn of_all_ways_the_one_with_the_fewest_bytes_is_gone() {
        for (estimate, entries) in [(1, 100), (1, 1_000_000), (60, 20_000), (1_000, 20_000)] {
            let question =
                Question { estimate: Some(estimate), entries, most_entries: entries, ..AUTO };
            let choice = decide(&question);
            assert!(matches!(choice.way, Way::Sketch(_)), "{estimate} of {entries}: {choice:?}");
            assert!(
                choice.step.predicted_bytes < descent_cost(estimate, entries).0 + 60 * estimate
            );
        }
        let tenth = Question { estimate: Some(2_000), ..AUTO };
        assert_eq!(decide(&tenth).way, Way::Filter);
    }

    #[test]
    fn what_no_session_holds_is_left_to_a_descent() {
        for strategy in [Strategy::Auto, Strategy::Sketch, Strategy::Iblt] {
            for estimate in [None, Some(65_537), Some(u64::MAX)] {
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
            estimate: Some(200_000),
            most_differences: 1_000_000,
            entries,
            most_entries: entries,
            ..AUTO
        };
        assert!(matches!(decide(&many).way, Way::Symbols(_)));
    }
}
