//! Encodings: what travels for one value, made by the sender and undone by the receiver.
//!
//! ```
//! use selfsame::delta::{Encoding, Expected, decode, encode_whole};
//! use selfsame::hash::HashAlgorithm;
//! use selfsame::limits::Limits;
//!
//! let algorithm = HashAlgorithm::Sha256;
//! let encoded = encode_whole(&[7; 1_000]);
//! assert_eq!(encoded.encoding, Encoding::Zstd);
//! let expected = Expected::of(&[7; 1_000], algorithm);
//! let value = decode(&encoded, None, &expected, algorithm, &Limits::default())?;
//! assert_eq!(value, [7; 1_000]);
//! # Ok::<(), selfsame::delta::DeltaError>(())
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

use super::compress::{compress, decompress};
use super::local::diff_local;
use super::{DeltaError, Patch, bytes};
use crate::entry::Sibling;
use crate::hash::{HashAlgorithm, ValueHash};
use crate::limits::Limits;

/// Bytes of a [`BaseId`].
pub const BASE_ID_BYTES: usize = 3;
/// From here on a patch is tried before zstd with the base as prefix.
const PATCH_FROM: usize = 64 << 10;
/// A delta of so large a value, this many times smaller than it, is taken without trying more.
const SATISFYING: usize = 64;

/// Names a base among the values that the receiver listed for the key: the first three bytes of
/// its hash. Two of them may be named alike; the hash of the result tells.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BaseId([u8; BASE_ID_BYTES]);

impl BaseId {
    /// The name of the base with this hash.
    #[must_use]
    pub const fn of(hash: &ValueHash) -> Self {
        let [a, b, c, ..] = hash.0;
        Self([a, b, c])
    }

    /// The bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; BASE_ID_BYTES] {
        self.0
    }

    /// A name from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; BASE_ID_BYTES]) -> Self {
        Self(bytes)
    }

    /// Whether a base with this hash is named so.
    #[must_use]
    pub fn names(self, hash: &ValueHash) -> bool {
        hash.0.starts_with(&self.0)
    }
}

impl fmt::Display for BaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for BaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BaseId({self})")
    }
}

/// How the bytes of a value were made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Encoding {
    /// Whole, as it stands.
    Raw,
    /// Whole, compressed.
    Zstd,
    /// Compressed with a base of the receiver, which the sender has too, as prefix.
    Prefixed {
        /// The base.
        base: BaseId,
    },
    /// Copies from a base of the receiver, and inserts.
    Patch {
        /// The base.
        base: BaseId,
    },
}

impl Encoding {
    /// The base that decoding needs, if any.
    #[must_use]
    pub const fn base(self) -> Option<BaseId> {
        match self {
            Self::Raw | Self::Zstd => None,
            Self::Prefixed { base } | Self::Patch { base } => Some(base),
        }
    }
}

/// One value on its way.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Encoded {
    /// How the bytes were made.
    pub encoding: Encoding,
    /// The bytes.
    #[serde(with = "bytes")]
    pub bytes: Vec<u8>,
}

impl Encoded {
    /// Bytes on the wire: tag, base and bytes, without their length.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        1 + self.encoding.base().map_or(0, |_| BASE_ID_BYTES) + self.bytes.len()
    }
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoded({:?}, {} bytes)", self.encoding, self.bytes.len())
    }
}

/// What the offer said of a value: its length and its hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Expected {
    /// Bytes of the value.
    pub size: u64,
    /// Hash of the value.
    pub value_hash: ValueHash,
}

impl Expected {
    /// Of a value at hand.
    #[must_use]
    pub fn of(value: &[u8], algorithm: HashAlgorithm) -> Self {
        Self { size: value.len() as u64, value_hash: algorithm.value_hash(value) }
    }
}

impl From<&Sibling> for Expected {
    fn from(sibling: &Sibling) -> Self {
        Self { size: sibling.size, value_hash: sibling.value_hash }
    }
}

/// The value whole: compressed, or raw when that does not help.
#[must_use]
pub fn encode_whole(value: &[u8]) -> Encoded {
    match compress(value, None).filter(|frame| frame.len() < value.len()) {
        Some(bytes) => Encoded { encoding: Encoding::Zstd, bytes },
        None => Encoded { encoding: Encoding::Raw, bytes: value.to_vec() },
    }
}

/// The value against a base that both ends have; none when whole is as small.
#[must_use]
pub fn encode_prefixed(base: &[u8], base_id: BaseId, target: &[u8]) -> Option<Encoded> {
    prefixed(base, base_id, target).filter(|delta| gains(delta, target))
}

fn prefixed(base: &[u8], base_id: BaseId, target: &[u8]) -> Option<Encoded> {
    let bytes = compress(target, Some(base))?;
    Some(Encoded { encoding: Encoding::Prefixed { base: base_id }, bytes })
}

/// The value as a patch against the receiver's base; none when whole is as small.
///
/// The patch must be one that [`diff`](super::diff()) made for this target.
#[must_use]
pub fn encode_patch(patch: &Patch, base_id: BaseId, target: &[u8]) -> Option<Encoded> {
    let bytes = patch.to_bytes(target)?;
    let delta = Encoded { encoding: Encoding::Patch { base: base_id }, bytes };
    gains(&delta, target).then_some(delta)
}

fn gains(delta: &Encoded, target: &[u8]) -> bool {
    satisfies(delta, target)
        || delta.wire_len() < target.len() && delta.wire_len() < encode_whole(target).wire_len()
}

fn satisfies(delta: &Encoded, target: &[u8]) -> bool {
    target.len() >= PATCH_FROM && delta.wire_len() < target.len() / SATISFYING
}

/// The value against a base that both ends have, in the smaller of the two ways; none when whole
/// is as small. From 64 KiB on a delta that is 64 times smaller than the value ends the search.
#[must_use]
pub fn encode_with_base(base: &[u8], base_id: BaseId, target: &[u8]) -> Option<Encoded> {
    with_base(base, base_id, target).filter(|delta| gains(delta, target))
}

fn with_base(base: &[u8], base_id: BaseId, target: &[u8]) -> Option<Encoded> {
    if target.len() < PATCH_FROM {
        return prefixed(base, base_id, target);
    }
    let bytes = diff_local(base, target).to_bytes(target)?;
    let patch = Encoded { encoding: Encoding::Patch { base: base_id }, bytes };
    if satisfies(&patch, target) {
        return Some(patch);
    }
    let prefixed = prefixed(base, base_id, target);
    prefixed.into_iter().chain([patch]).min_by_key(Encoded::wire_len)
}

/// The smallest of whole and the value against each of these bases.
#[must_use]
pub fn smallest(bases: &[(BaseId, &[u8])], target: &[u8]) -> Encoded {
    let deltas = bases.iter().filter_map(|(id, base)| with_base(base, *id, target));
    let whole = encode_whole(target);
    deltas.fold(whole, |best, delta| if delta.wire_len() < best.wire_len() { delta } else { best })
}

/// Undoes an encoding. What is returned has the length and the hash that were offered.
///
/// Memory: the value, a decoder, and for patches at most 24 bytes per operation.
///
/// # Errors
/// Everything else: see [`DeltaError`]. Nothing is allocated before the offered size is found
/// within the limits.
pub fn decode(
    encoded: &Encoded,
    base: Option<&[u8]>,
    expected: &Expected,
    algorithm: HashAlgorithm,
    limits: &Limits,
) -> Result<Vec<u8>, DeltaError> {
    let too_large = DeltaError::TooLarge { size: expected.size, limit: limits.max_value_bytes };
    if expected.size > limits.max_value_bytes {
        return Err(too_large);
    }
    let size = usize::try_from(expected.size).map_err(|_| too_large)?;
    if encoded.bytes.len() > size {
        return Err(DeltaError::Inflated { encoded: encoded.bytes.len(), size: expected.size });
    }
    let value = match encoded.encoding {
        Encoding::Raw if encoded.bytes.len() != size => return Err(DeltaError::Compressed),
        Encoding::Raw => Ok(encoded.bytes.clone()),
        Encoding::Zstd => decompress(&encoded.bytes, None, size).ok_or(DeltaError::Compressed),
        Encoding::Prefixed { base: id } => {
            let base = base.ok_or(DeltaError::MissingBase(id))?;
            decompress(&encoded.bytes, Some(base), size).ok_or(DeltaError::Compressed)
        }
        Encoding::Patch { base: id } => {
            let base = base.ok_or(DeltaError::MissingBase(id))?;
            Patch::apply_bytes(&encoded.bytes, base, size, limits)
        }
    };
    let checked = value.and_then(|value| {
        let genuine = algorithm.value_hash(&value) == expected.value_hash;
        if genuine { Ok(value) } else { Err(DeltaError::HashMismatch) }
    });
    // The base is hashed only when something failed: the hash of the result vouches for it.
    checked.map_err(|error| match (encoded.encoding.base(), base) {
        (Some(id), Some(base)) if !id.names(&algorithm.value_hash(base)) => {
            DeltaError::WrongBase(id)
        }
        _ => error,
    })
}
