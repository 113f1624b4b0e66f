//! What a node has counted of what a person should look at: brakes, clones, clocks.
//!
//! ```
//! use selfsame::node::counts::TrustCounts;
//!
//! let counts = TrustCounts { brake_stops: 1, ..TrustCounts::default() };
//! assert!(serde_json::to_string(&counts)?.starts_with(r#"{"brake_stops":1,"#));
//! # Ok::<(), serde_json::Error>(())
//! ```

use serde::{Deserialize, Serialize};

use crate::net::SessionReport;
use crate::session::{AbortCode, Failure, Outcome};

/// Sums since the start of the process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TrustCounts {
    /// Sessions that this node's brake stopped before too many keys vanished here.
    pub brake_stops: u64,
    /// Writers, of this node or a peer, that were found to have two users.
    pub clones_found: u64,
    /// Dots that stood for two puts (rule D7).
    pub same_dot: u64,
    /// Siblings of peers that were refused because their stamps are too far ahead.
    pub drift_items_refused: u64,
    /// Local puts that were refused because most peers find this node's clock ahead.
    pub drift_puts_refused: u64,
}

impl TrustCounts {
    /// Adds what a session came upon.
    pub(super) fn add(&mut self, report: &SessionReport) {
        let braked = matches!(report.outcome, Outcome::Failed(Failure::Ours(AbortCode::Brake(_))));
        self.brake_stops += u64::from(braked);
        self.clones_found += report.clones.len() as u64;
        self.same_dot += report.stats.same_dot;
        self.drift_items_refused += report.stats.refused_drift;
    }
}
