//! Messages of a sketch exchange.

use serde::{Deserialize, Serialize};

use crate::sketch::{FoldedEstimator, WrappedEstimator};

/// A summary of this side's leaves that says how many differ.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Estimate {
    /// In eight bytes, first: enough if few differ.
    Folded(FoldedEstimator),
    /// In 128 bytes, as the answer to a folded one that was not enough.
    Wrapped(WrappedEstimator),
}
