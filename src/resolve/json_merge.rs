//! `json-merge@1`: each field as the latest version has it.
//!
//! ```
//! use selfsame::resolve::{Resolver, json_merge::JsonMerge};
//!
//! assert_eq!((JsonMerge.name(), JsonMerge.version()), ("json-merge", 1));
//! ```

use std::collections::BTreeMap;

use super::json::{self, Json};
use super::{Candidate, ResolveError, Resolver, by_time};
use crate::types::Key;

/// Merges JSON objects field by field.
///
/// - A field that only some versions have is in the result: leaving a field out says nothing, and
///   deletes nothing.
/// - A field that several have as an object is merged in the same way, at any depth.
/// - If one version has an object there and another anything else, the object stays, as a put
///   survives a delete that has not seen it. Of several objects all are merged.
/// - Otherwise the latest version that has the field decides, by (stamp, dot). Arrays are taken
///   whole.
/// - `null` is a value like others: to empty a field, write `null`, which wins if it is the latest,
///   and stays in the result.
///
/// A version that is no JSON object, or names a field twice, makes the versions unmergeable. The
/// result is canonical: no blanks, names in the order of their bytes, numbers digit by digit as
/// they were written. A version has one time for all its fields: the latest one also decides those
/// that its writer had not meant to change.
#[derive(Clone, Copy, Debug, Default)]
pub struct JsonMerge;

impl Resolver for JsonMerge {
    fn name(&self) -> &str {
        "json-merge"
    }

    fn version(&self) -> u32 {
        1
    }

    fn merge(&self, _: &Key, versions: &[Candidate<'_>]) -> Result<Vec<u8>, ResolveError> {
        json::check_size(versions)?;
        let mut merged = BTreeMap::new();
        for version in by_time(versions) {
            let Json::Object(fields) = json::parse(version.value)? else {
                return Err(json::not_a("JSON object", version));
            };
            lay_over(&mut merged, fields);
        }
        Ok(Json::Object(merged).to_bytes())
    }
}

/// Lays the fields of a later version over those of earlier ones; as deep as objects nest, which
/// the parser bounds.
fn lay_over(earlier: &mut BTreeMap<String, Json>, later: BTreeMap<String, Json>) {
    for (name, value) in later {
        match (earlier.get_mut(&name), value) {
            (Some(Json::Object(below)), Json::Object(above)) => lay_over(below, above),
            (Some(Json::Object(_)), _) => {}
            (_, value) => {
                earlier.insert(name, value);
            }
        }
    }
}
