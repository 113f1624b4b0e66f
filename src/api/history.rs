//! What keys were: replaced and deleted values, as long as they are kept.

use axum::body::Body;
use axum::response::Response;
use serde::Deserialize;

use super::body::{answer, blocking};
use super::entries::of_value;
use super::error::ApiError;
use super::router::{Asked, Named};
use super::types::{HistoryText, KeyQuery};
use crate::hash::ValueHash;
use crate::replica::Collection;
use crate::store::EmbeddedStore;
use crate::types::Key;

/// Most replaced values that are listed.
const MAX_LISTED: usize = 4_096;
/// Listed when nothing else is asked.
const LISTED: usize = 100;
/// Fewest digits that name a version.
const FEWEST_DIGITS: usize = 4;

/// Of which key, and how much.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    key: Option<String>,
    key_hex: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn history(
    Named(collection): Named,
    Asked(asked): Asked<HistoryQuery>,
) -> Result<Response, ApiError> {
    let key = KeyQuery::new(asked.key, asked.key_hex).key()?;
    let limit = asked.limit.unwrap_or(LISTED).min(MAX_LISTED);
    let history =
        blocking(move || Ok(HistoryText::new(&key, &collection.past(&key, limit)?))).await?;
    answer(&history)
}

/// The value of a key that has this hash, held now or kept in the history.
pub(super) async fn old_value(
    collection: std::sync::Arc<Collection<EmbeddedStore>>,
    key: Key,
    hash: String,
) -> Result<Response, ApiError> {
    let value = blocking(move || {
        let hash = version_of(&collection, &key, &hash)?;
        let value = collection.value(&collection.key_hash(&key), &hash)?;
        value.ok_or(ApiError::ValueLost)
    });
    Ok(of_value(Body::from(axum::body::Bytes::from_owner(value.await?)), false))
}

/// The one value of the key whose hash begins with these digits.
fn version_of(
    collection: &Collection<EmbeddedStore>,
    key: &Key,
    digits: &str,
) -> Result<ValueHash, ApiError> {
    let past = collection.past(key, MAX_LISTED)?;
    let held = past.held.iter().map(|sibling| sibling.value_hash);
    let hashes = held.chain(past.replaced.iter().map(|replaced| replaced.value_hash));
    named(hashes, key, digits)
}

/// The one of these hashes that begins with these digits.
pub(super) fn named(
    hashes: impl Iterator<Item = ValueHash>,
    key: &Key,
    digits: &str,
) -> Result<ValueHash, ApiError> {
    let (key, digits) = (key.clone(), digits.to_ascii_lowercase());
    if digits.len() < FEWEST_DIGITS || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        let digits = digits.chars().take(80).collect();
        return Err(ApiError::NoVersionName { digits });
    }
    let mut found: Vec<ValueHash> =
        hashes.filter(|hash| hash.to_string().starts_with(&digits)).collect();
    found.sort_unstable();
    found.dedup();
    match found.as_slice() {
        [] => Err(ApiError::NoSuchVersion { key, digits }),
        [hash] => Ok(*hash),
        several => Err(ApiError::AmbiguousVersion { digits, found: several.len() as u64 }),
    }
}
