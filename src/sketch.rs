//! Sketches: small summaries that steer a session towards what differs.
//!
//! They steer only. Whatever a sketch claims, by chance or by malice, roots decide.
//!
//! ```
//! use selfsame::hash::RecordDigest;
//! use selfsame::sketch::Estimator;
//!
//! let (mut ours, theirs) = (Estimator::default(), Estimator::default());
//! ours.add(&RecordDigest([9; 32]));
//! assert_eq!(ours.difference(&theirs), 1);
//! ```

pub mod bloom;
pub mod buckets;
pub mod estimator;
pub mod iblt;
mod ids;
pub mod kept;
mod pinsketch;

pub use bloom::{BloomError, BloomFilter, FilterSeed, WireFilter};
pub use buckets::{
    Attributed, BucketSketch, Decoded, Decoder, Layout, Names, Portion, Precision, SketchError,
    WireNames, WireRefill, WireSketch,
};
pub use estimator::{Estimator, EstimatorError, FoldedEstimator, WrappedEstimator};
pub use iblt::{IbltError, IbltKey, Symbols};
pub use ids::{DifferingId, ID_BITS, IdWidth, ShortId, WIDE_FROM_ENTRIES};
pub use kept::{Depth, Shape, SketchedGroup, Sketches};
