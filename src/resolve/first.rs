//! `first@1`: who came first stays, and whoever came too late is told.
//!
//! ```
//! use selfsame::resolve::{Resolver, first::First};
//!
//! assert_eq!((First.name(), First.version()), ("first", 1));
//! ```

use super::{Candidate, ResolveError, Resolver, Violation, by_time};
use crate::types::Key;

/// Shows the earliest version, by (stamp, dot): for keys that may be taken once, such as the
/// names of users. Two nodes that part can both take one; when they meet, the earlier claim is
/// shown at both, and the check reports the violation. Clocks of writers decide which is earlier.
#[derive(Clone, Copy, Debug, Default)]
pub struct First;

impl Resolver for First {
    fn name(&self) -> &str {
        "first"
    }

    fn version(&self) -> u32 {
        1
    }

    fn merge(&self, _: &Key, versions: &[Candidate<'_>]) -> Result<Vec<u8>, ResolveError> {
        Ok(by_time(versions).first().map(|first| first.value).unwrap_or_default().to_vec())
    }

    fn check(&self, _: &Key, versions: &[Candidate<'_>]) -> Result<(), Violation> {
        if versions.len() < 2 {
            return Ok(());
        }
        let claims = versions.len();
        Err(Violation(format!(
            "{claims} writers claimed the key with different values: the first stays"
        )))
    }
}
