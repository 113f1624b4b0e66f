//! The forest root: one hash over the collections that two peers share.
//!
//! Sessions put state hashes in it: thousands of equal collections cost one comparison. Proofs
//! for third parties put roots in it. It is always BLAKE3, whatever the collections use.
//!
//! ```
//! use selfsame::merkle::forest_root;
//! use selfsame::types::CollectionName;
//!
//! let (players, items) = (CollectionName::new("players")?, CollectionName::new("items")?);
//! let one = forest_root([(&players, [1; 32]), (&items, [2; 32])])?;
//! let other = forest_root([(&items, [2; 32]), (&players, [1; 32])])?;
//! assert_eq!(one, other);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use super::envelope::put_name;
use crate::codec::Writing;
use crate::hash::{ForestRoot, HASH_LEN};
use crate::types::CollectionName;

/// Collections that have no forest root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForestError {
    /// A name stands twice.
    #[error("forest: collection {0} stands twice")]
    NameTwice(CollectionName),
    /// More than a `u32` counts.
    #[error("forest: {0} collections are more than a forest can hold")]
    TooMany(usize),
}

/// Forest root over named hashes: state hashes in a session, roots for third parties. The order
/// in which they are given does not matter; none at all have a forest root too.
///
/// # Errors
/// A name that stands twice, whatever the hashes; more collections than can be counted.
pub fn forest_root<'a>(
    collections: impl IntoIterator<Item = (&'a CollectionName, [u8; HASH_LEN])>,
) -> Result<ForestRoot, ForestError> {
    let mut sorted: Vec<_> = collections.into_iter().collect();
    sorted.sort_unstable();
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(ForestError::NameTwice(pair[0].0.clone()));
    }
    let count = u32::try_from(sorted.len()).map_err(|_| ForestError::TooMany(sorted.len()))?;
    let mut bytes = Vec::new();
    bytes.put_u32(count);
    for (name, hash) in sorted {
        put_name(&mut bytes, name);
        bytes.put_bytes(&hash);
    }
    Ok(crate::hash::forest_root(&bytes))
}
