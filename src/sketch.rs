//! Sketches: small summaries that steer a session towards what differs.
//!
//! They steer only. Whatever a sketch claims, by chance or by malice, roots decide.
//!
//! ```
//! use selfsame::hash::TreeHash;
//! use selfsame::sketch::Estimator;
//!
//! let (mut ours, theirs) = (Estimator::default(), Estimator::default());
//! ours.add(&TreeHash([9; 32]));
//! assert_eq!(ours.difference(&theirs), 1);
//! ```

pub mod bloom;
pub mod estimator;
pub mod iblt;
pub mod pinsketch;

pub use bloom::{BloomError, BloomFilter, FilterSeed, WireFilter};
pub use estimator::{Estimator, EstimatorError, FoldedEstimator};
pub use iblt::{IbltError, IbltKey, Symbols};
pub use pinsketch::{PinSketch, PinSketchError, ShortId};
