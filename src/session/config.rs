//! What a session is asked to do.

use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

/// Which way entries move, seen from the initiator.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub enum Mode {
    /// Both ends become the merged state.
    #[default]
    Both,
    /// The initiator takes from the responder and gives nothing.
    Pull,
    /// The initiator gives to the responder and takes nothing.
    Push,
    /// Differences are itemised; no value moves and nothing changes.
    Compare,
}

/// How differences are found.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub enum Strategy {
    /// The planner chooses: announcement from contexts first, then bloom exchange, sketches or
    /// Merkle descent by the estimated difference.
    #[default]
    Auto,
    /// Bloom exchange with the configured size and rate, then Merkle descent for what its false
    /// positives hid. Contexts are not used to find anything.
    Bloom,
    /// Merkle descent alone. Contexts are not used to find anything.
    Merkle,
    /// A bucketed `PinSketch`, then Merkle descent for what it missed. Contexts are not used to find
    /// anything.
    Sketch,
    /// Coded symbols of a rateless IBLT, then Merkle descent for what they missed. Contexts are not
    /// used to find anything.
    Iblt,
}

impl Strategy {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Auto, Self::Bloom, Self::Sketch, Self::Iblt, Self::Merkle];
}

/// What a session is to save where it has a choice of how differences are found.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Bytes first, but not at any price.
    #[default]
    Auto,
    /// Bytes: for links that are slow or paid for by volume.
    Bytes,
    /// Round trips: for links that are fast and long.
    Latency,
    /// Work of both ends: for small machines.
    Cpu,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Bytes, Self::Latency, Self::Cpu];
}

/// Settings of a session, chosen by the initiator for itself; each side obeys its own limits.
///
/// Two are equal if each of their settings is, the rate bit by bit.
#[derive(Clone, Debug)]
pub struct SyncConfig {
    /// Which way entries move.
    pub mode: Mode,
    /// How differences are found.
    pub strategy: Strategy,
    /// What strategy auto saves.
    pub profile: Profile,
    /// Most keys or values in one message.
    pub max_batch_size: usize,
    /// Items for which the filter of a forced bloom strategy is sized, at least.
    pub bloom_filter_items: usize,
    /// False-positive rate of the filter of a forced bloom strategy.
    pub bloom_filter_fpr: f64,
    /// Depth in bits at which the Merkle descent lists leaves instead of descending.
    pub max_merkle_depth: u16,
    /// Whether values may travel as differences against what the receiver holds.
    pub enable_binary_diff: bool,
    /// Whether a session may remove more keys than the brake allows.
    pub allow_removals: bool,
}

// by hand for the rate alone: a float has no equality to hash by, its bits have
impl SyncConfig {
    fn terms(&self) -> impl Eq + Hash {
        let Self {
            mode,
            strategy,
            profile,
            max_batch_size,
            bloom_filter_items,
            bloom_filter_fpr,
            max_merkle_depth,
            enable_binary_diff,
            allow_removals,
        } = *self;
        let filter = (bloom_filter_items, bloom_filter_fpr.to_bits());
        let rest = (max_merkle_depth, enable_binary_diff, allow_removals);
        ((mode, strategy, profile), max_batch_size, filter, rest)
    }
}

impl PartialEq for SyncConfig {
    fn eq(&self, other: &Self) -> bool {
        self.terms() == other.terms()
    }
}

impl Eq for SyncConfig {}

impl Hash for SyncConfig {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.terms().hash(state);
    }
}

impl Default for SyncConfig {
    fn default() -> Self {
        Self {
            mode: Mode::Both,
            strategy: Strategy::Auto,
            profile: Profile::Auto,
            max_batch_size: 100,
            bloom_filter_items: 10_000,
            bloom_filter_fpr: 0.001,
            max_merkle_depth: 20,
            enable_binary_diff: true,
            allow_removals: false,
        }
    }
}
