//! `set-union@1`: all elements of all versions.
//!
//! ```
//! use selfsame::resolve::{Resolver, set_union::SetUnion};
//!
//! assert_eq!((SetUnion.name(), SetUnion.version()), ("set-union", 1));
//! ```

use std::collections::BTreeSet;

use super::json::{self, Json};
use super::{Candidate, ResolveError, Resolver};
use crate::types::Key;

/// Merges JSON arrays into one array of all their elements, each once.
///
/// Elements are equal if their canonical forms are: no blanks, names of objects in the order of
/// their bytes, strings escaped where JSON demands it and nowhere else, numbers digit by digit as
/// they were written (so `1` and `1.0` are two). They are sorted by the bytes of that form. A
/// version that is no JSON array makes the versions unmergeable. What one version has removed and
/// another still has is there again: a set whose elements go needs a key for each of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetUnion;

impl Resolver for SetUnion {
    fn name(&self) -> &str {
        "set-union"
    }

    fn version(&self) -> u32 {
        1
    }

    fn merge(&self, _: &Key, versions: &[Candidate<'_>]) -> Result<Vec<u8>, ResolveError> {
        json::check_size(versions)?;
        let mut elements = BTreeSet::new();
        for version in versions {
            let Json::Array(items) = json::parse(version.value)? else {
                return Err(json::not_a("JSON array", version));
            };
            elements.extend(items.iter().map(Json::to_bytes));
        }
        let mut merged = Vec::from(*b"[");
        for (at, element) in elements.iter().enumerate() {
            if at > 0 {
                merged.push(b',');
            }
            merged.extend_from_slice(element);
        }
        merged.push(b']');
        Ok(merged)
    }
}
