//! The planner: which method looks for what announcement did not explain.
//!
//! A pure function of what both sides stated, so that its choice can be shown and tested.
//!
//! ```
//! use selfsame::session::plan::{Question, Way, decide};
//! use selfsame::session::{Profile, Strategy};
//! use selfsame::sketch::Precision;
//!
//! let question = Question {
//!     strategy: Strategy::Auto,
//!     profile: Profile::Auto,
//!     entries: 20_000,
//!     most_entries: 20_000,
//!     kept: true,
//!     estimate: Some(50),
//!     precision: Precision::Full,
//!     filter_rate: 0.1,
//!     most_differences: 65_536,
//!     most_symbols: 524_288,
//!     kept_symbols: 0,
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

use super::config::{Profile, Strategy};
use super::phase::Phase;
use super::stats::PlanStep;
use crate::sketch::iblt::{SYMBOL_BYTES, symbols_for};
use crate::sketch::{DifferingId, Layout, Precision};

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

/// A sketch may show so many times the differences that a session has room for: what it has no
/// room for is shown again in the next one.
pub(super) const SKETCHED_TIMES: u64 = 4;
/// Fewer entries than this are compared by descent at once.
const SMALL: u64 = 64;
/// So many entries are not read for an estimate where work is to be saved.
const MANY_READ: u64 = 4_096;
/// Share of the entries from which a filter beats a descent, as a fraction.
const BLOOM_SHARE: (u64, u64) = (1, 10);

/// Work of each side in microseconds, as benchmarks have it where some pages are in memory and
/// some are read first (docs/benchmarks.md): for a node of a descent, for a dot in a filter, for an
/// entry of which a sketch or symbols are made, for one that either names, for a look at where one
/// that is named may stand, and for an entry that is told.
const NODE_US: f64 = 20.0;
const DOT_US: f64 = 0.5;
const SKETCHED_US: f64 = 1.2;
const CODED_US: f64 = 1.5;
const READ_US: f64 = 1.4;
const PEELED_US: f64 = 0.7;
const LOOK_US: f64 = 5.0;
const TOLD_US: f64 = 14.0;

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
/// costs a message, and a look at each of them at both ends unless sketches are kept.
#[must_use]
pub const fn worth_estimating(
    strategy: Strategy,
    profile: Profile,
    most_entries: u64,
    kept: bool,
) -> bool {
    match (strategy, profile) {
        (Strategy::Auto, Profile::Cpu) => {
            most_entries >= SMALL && (kept || most_entries < MANY_READ)
        }
        (Strategy::Auto, _) => most_entries >= SMALL,
        (Strategy::Sketch | Strategy::Iblt, _) => true,
        (Strategy::Bloom | Strategy::Merkle, _) => false,
    }
}

/// What a way is expected to cost until both know what differs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Cost {
    /// Bytes, both ways.
    pub bytes: u64,
    /// Messages, both ways, ends of turns not counted.
    pub messages: u64,
    /// Work of each side, about, in microseconds: on another machine another figure, but in the
    /// same proportion.
    pub work_us: u64,
}

impl Cost {
    /// As one figure, in bytes: how many a message, and a millisecond of work, are worth.
    const fn price(self, profile: Profile) -> u64 {
        let (message, millisecond) = match profile {
            Profile::Auto => (256, 250),
            Profile::Bytes => (0, 0),
            Profile::Latency => (65_536, 1_000),
            Profile::Cpu => (256, 1_000_000),
        };
        let messages = self.messages.saturating_mul(message);
        let work = self.work_us.saturating_mul(millisecond) / 1_000;
        self.bytes.saturating_add(messages).saturating_add(work)
    }

    pub(super) const fn and(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            messages: self.messages.saturating_add(other.messages),
            work_us: self.work_us.saturating_add(other.work_us),
        }
    }
}

/// What a steering descent to `estimate` leaves among `entries` is expected to cost, without what is
/// told of them then: on each level the ids of 16 children for each node above a leaf that differs,
/// then lists.
#[must_use]
pub fn descent_cost(estimate: u64, entries: u64) -> Cost {
    const ID_BYTES: f64 = 4.0;
    let differing = estimate.min(entries.saturating_mul(2)) as f64;
    let (mut bytes, mut messages, mut opened) = (0.0, 2, 0.0);
    let (mut nodes, mut under) = (1.0_f64, entries as f64);
    while under > if nodes < 16.0 { 32.0 } else { 16.0 } {
        // of so many nodes, those under which one differs
        let open = nodes * (1.0 - (-differing / nodes).exp());
        bytes += open * (16.0 * ID_BYTES + 4.0);
        opened += open;
        messages += 1;
        (nodes, under) = (nodes * 16.0, under / 16.0);
    }
    let open = nodes * (1.0 - (-differing / nodes).exp());
    bytes += open * (under.max(1.0) * (ID_BYTES + 0.125) + 1.0);
    Cost { bytes: bytes as u64, messages, work_us: ((opened + open) * NODE_US) as u64 }
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

/// What announcing so many entries, of one sibling each, and removals is expected to cost, with
/// keys of a dozen bytes and so many bytes of value, or of what names it, on average.
#[must_use]
pub fn announcement_cost(entries: u64, removals: u64, value_bytes: u64) -> Cost {
    let each = value_bytes.saturating_add(30);
    Cost {
        bytes: entries.saturating_mul(each).saturating_add(removals.saturating_mul(3)),
        messages: 1,
        work_us: (entries as f64 * TOLD_US) as u64,
    }
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
    /// What is to be saved.
    pub profile: Profile,
    /// Entries of the side that chooses.
    pub entries: u64,
    /// Entries of the larger side.
    pub most_entries: u64,
    /// Whether sketches are kept, so that nothing is read to make one.
    pub kept: bool,
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
    /// So many need no look at the entries: they are kept, here and, it is hoped, there.
    pub kept_symbols: usize,
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
const FILTER_MESSAGES: u64 = 4;
/// Messages of a sketch or symbols that are enough: it, what this side tells with the names, and the
/// answer.
const SKETCH_MESSAGES: u64 = 3;
/// Messages of a refill, and the share of buckets that need none, where there are several.
const REFILL_MESSAGES: f64 = 2.0;
const ENOUGH_AT_ONCE: f64 = 0.8;
/// Bytes that it costs to tell a leaf that differs: a state has two sides in half of the cases.
const TOLD_BYTES: u64 = 60;

/// Bytes of the names of `count` among `entries`: their gaps, Rice-coded.
fn names_bytes(count: u64, entries: u64) -> u64 {
    let gap = (entries.max(2) as f64).log2() + 7.0 - (count.max(1) as f64).log2();
    (count as f64 * (gap + 1.5) / 8.0) as u64
}

/// What two filters over `items` dots with this rate are expected to cost.
#[must_use]
pub fn filter_cost(items: u64, fpr: f64) -> Cost {
    let work_us = (items as f64 * DOT_US) as u64;
    Cost { bytes: filter_bytes(items, fpr), messages: FILTER_MESSAGES, work_us }
}

/// What telling so many leaves that differ is expected to cost, however they were found.
pub(super) fn told_cost(leaves: u64) -> Cost {
    let work_us = (leaves as f64 * TOLD_US) as u64;
    Cost { bytes: leaves.saturating_mul(TOLD_BYTES), messages: 0, work_us }
}

/// Work of looking for one that a sketch names: at all places that its id leaves open, once by
/// whoever reads the sketch, and again by the other for half of them.
fn looks_us(layout: Layout) -> f64 {
    let places = 1 << DifferingId::open_bits(layout);
    1.5 * LOOK_US * f64::from(places)
}

/// What a sketch of this layout is expected to cost, and its names.
#[must_use]
pub fn sketch_cost(layout: Layout, estimate: u64, most_entries: u64, kept: bool) -> Cost {
    let buckets = layout.buckets();
    let (refill, refilled) = if buckets == 1 {
        (0, 0)
    } else {
        let needed = 1.0 - ENOUGH_AT_ONCE.powf(buckets as f64);
        ((REFILL_MESSAGES * needed).round() as u64, layout.bytes() as u64 / 10)
    };
    let made = if kept { 0.0 } else { SKETCHED_US * most_entries as f64 };
    Cost {
        bytes: (layout.bytes() as u64 + refilled)
            .saturating_add(names_bytes(estimate / 2, most_entries)),
        messages: SKETCH_MESSAGES + refill,
        work_us: (estimate as f64 * (READ_US + looks_us(layout)) + made) as u64,
    }
}

/// What so many coded symbols are expected to cost, and their names.
#[must_use]
pub fn symbols_cost(count: usize, estimate: u64, most_entries: u64, kept: bool) -> Cost {
    let coded = if kept { 0.0 } else { CODED_US * most_entries as f64 };
    Cost {
        bytes: (count as u64)
            .saturating_mul(SYMBOL_BYTES as u64)
            .saturating_add(names_bytes(estimate / 2, most_entries)),
        messages: SKETCH_MESSAGES,
        work_us: (estimate as f64 * (PEELED_US + looks_us(Layout::SHORT)) + coded) as u64,
    }
}

/// Chooses how what differs is found. With strategy auto: filters if a tenth of the entries differ,
/// since they ask for what seems to be removed by its dots, where other ways tell whole states; else
/// the way that is expected to cost the least, as the profile counts it. A forced way that cannot be
/// gone gives way to descent.
#[must_use]
pub fn decide(question: &Question) -> Choice {
    let &Question { strategy, profile, entries, most_entries, precision, .. } = question;
    let many = question.estimate.is_none();
    let estimate = question.estimate.unwrap_or(MANY);
    let fits = !many && estimate <= question.most_differences;
    // of more a sketch still shows as many as there is room for, and in fewer bytes than a descent
    let is_readable = !many && estimate <= question.most_differences.saturating_mul(SKETCHED_TIMES);
    let filter = || {
        let is_worth = strategy == Strategy::Auto && worth_filtering(estimate, entries);
        let hidden = (estimate as f64 * question.filter_rate) as u64;
        let cost = filter_cost(entries, question.filter_rate);
        is_worth.then(|| (Way::Filter, cost.and(descent_cost(hidden, entries))))
    };
    let sketch = || {
        let asked = matches!(strategy, Strategy::Auto | Strategy::Sketch);
        let layout =
            Layout::plan(estimate, precision, most_entries).filter(|_| asked && is_readable)?;
        Some((Way::Sketch(layout), sketch_cost(layout, estimate, most_entries, question.kept)))
    };
    let symbols = || {
        let asked = matches!(strategy, Strategy::Auto | Strategy::Iblt);
        // a second batch costs a round trip: it is to be rarer where those are to be saved
        let (share, of) = match (precision, profile) {
            (Precision::Folded, Profile::Latency) => (2, 1),
            (Precision::Folded, _) => (3, 2),
            (Precision::Full, Profile::Latency) => (5, 4),
            (Precision::Full, _) => (9, 8),
        };
        let count = symbols_for((estimate.saturating_mul(share) / of).saturating_add(1));
        let fits = asked && fits && count <= question.most_symbols;
        let kept = count <= question.kept_symbols;
        fits.then(|| (Way::Symbols(count), symbols_cost(count, estimate, most_entries, kept)))
    };
    let steer = (Way::Steer, descent_cost(estimate, most_entries));
    let price = |(_, cost): &(Way, Cost)| (cost.price(profile), cost.messages);
    let found = [sketch(), symbols()].into_iter().flatten();
    let (way, cost) = match (filter(), strategy, profile) {
        (Some(filter), _, profile) if profile != Profile::Latency => filter,
        (filter, Strategy::Auto, _) => {
            found.chain(filter).chain([steer]).min_by_key(price).unwrap_or(steer)
        }
        _ => found.min_by_key(price).unwrap_or(steer),
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
    let why = match (strategy, profile) {
        (Strategy::Auto, Profile::Auto) => "",
        (Strategy::Auto, Profile::Bytes) => " (to save bytes)",
        (Strategy::Auto, Profile::Latency) => " (to save round trips)",
        (Strategy::Auto, Profile::Cpu) => " (to save work)",
        _ => " (the strategy is forced)",
    };
    let told = told_cost(estimate.min(question.most_differences));
    let reason = format!("{about} {estimate} of {entries} entries differ: {what}{why}");
    Choice { way, step: PlanStep { phase, reason, predicted: cost.and(told) } }
}

#[cfg(test)]
mod tests;
