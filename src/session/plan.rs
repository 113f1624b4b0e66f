//! The planner: which method looks for what announcement did not explain.
//!
//! A pure function of what both sides stated, so that its choice can be shown and tested.
//!
//! ```
//! use selfsame::session::plan::{Method, decide};
//!
//! let (method, step) = decide(50, 20_000, 0.1);
//! assert_eq!(method, Method::Steer);
//! assert!(step.reason.contains("50 of 20000"));
//! ```

use super::phase::Phase;
use super::stats::PlanStep;

/// A way to find differences.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Method {
    /// Filters over the dots held.
    Bloom,
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

/// Bytes that a descent to `estimate` differences among `entries` is expected to cost, both ways.
#[must_use]
pub fn descent_bytes(estimate: u64, entries: u64) -> u64 {
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
    let hidden_bits = 8.0 * descent_bytes(estimate, items).max(1) as f64;
    (3.3 * items as f64 / hidden_bits).clamp(LEAST_RATE, GREATEST_RATE)
}

/// The decision between filters and descent, with its reason.
#[must_use]
pub fn decide(estimate: u64, entries: u64, fpr: f64) -> (Method, PlanStep) {
    if worth_filtering(estimate, entries) {
        let reason =
            format!("about {estimate} of {entries} entries differ: a tenth or more, so filters");
        let predicted_bytes = filter_bytes(entries, fpr) + descent_bytes(estimate / 20, entries);
        (Method::Bloom, PlanStep { phase: Phase::BloomExchange, reason, predicted_bytes })
    } else {
        let reason = format!("about {estimate} of {entries} entries differ: descent");
        let predicted_bytes = descent_bytes(estimate, entries);
        (Method::Steer, PlanStep { phase: Phase::MerkleComparison, reason, predicted_bytes })
    }
}
