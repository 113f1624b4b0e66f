//! Delta transfer: a value travels as what differs from one that the receiver already holds.
//!
//! Two situations, kept apart:
//!
//! - The sender still has the receiver's base: [`encode_with_base`] compresses the value with the
//!   base as reference prefix, or, when it is large, sends what it copies and inserts; a changed
//!   field of a small state costs some 30 bytes.
//! - It has not: the receiver describes its base in a [`Signature`], the sender finds the parts
//!   that it shares ([`match_chunks`], [`diff()`]) and sends a [`Patch`] of copies and inserts
//!   ([`encode_patch`]). Values up to 64 KiB take one round; larger ones two, content-defined
//!   chunks first, then rolling blocks inside the gaps only.
//!
//! Whatever travels, [`decode`] trusts none of it: the length is that of the offer, the output is
//! counted while it is made, and the result is returned only if its hash is the one offered.
//!
//! ```
//! use selfsame::delta::{self, BaseId, Expected};
//! use selfsame::hash::HashAlgorithm;
//! use selfsame::limits::Limits;
//!
//! let algorithm = HashAlgorithm::Blake3;
//! let base = br#"{"player":"ada","level":41,"room":"library","gold":1200}"#.repeat(8);
//! let target = [&base[..], b"{\"level\":42}"].concat();
//!
//! let id = BaseId::of(&algorithm.value_hash(&base));
//! let encoded = delta::encode_with_base(&base, id, &target).expect("smaller than whole");
//! assert!(encoded.wire_len() < 40);
//!
//! let expected = Expected::of(&target, algorithm);
//! let decoded = delta::decode(&encoded, Some(&base), &expected, algorithm, &Limits::default())?;
//! assert_eq!(decoded, target);
//! # Ok::<(), delta::DeltaError>(())
//! ```

pub(crate) mod bytes;
pub mod chunk;
pub mod compress;
pub mod diff;
pub mod encode;
pub mod local;
pub mod patch;
mod rolling;
pub mod signature;
pub mod stats;
pub(crate) mod varint;

pub use diff::{ChunkMatch, diff, diff_blocks, match_chunks};
pub use encode::{
    BASE_ID_BYTES, BaseId, Encoded, Encoding, Expected, decode, encode_patch, encode_prefixed,
    encode_whole, encode_with_base, smallest,
};
pub use local::diff_local;
pub use patch::{Operation, Patch};
pub use signature::{
    BlockSignature, ChunkSignature, GapRequest, GapRun, IdMargin, Signature, SignatureKey,
};
pub use stats::CompressionStats;

/// Why a delta, or the signature it rests on, was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeltaError {
    /// The offer is larger than this node takes.
    #[error(
        "a value of {size} bytes is over the limit of {limit}: raise max_value_bytes to take it"
    )]
    TooLarge {
        /// Bytes of the value, as offered.
        size: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// What arrived is longer than the value itself: no honest sender chooses that.
    #[error("an encoding of {encoded} bytes for a value of {size} is refused: ask for it whole")]
    Inflated {
        /// Bytes that arrived.
        encoded: usize,
        /// Bytes of the value, as offered.
        size: u64,
    },
    /// A delta came, and the base was not handed in.
    #[error("the delta needs its base {0}: read it from the store, or ask for the value whole")]
    MissingBase(BaseId),
    /// The base handed in is not the one that the delta was made against.
    #[error("the delta was made against base {0}, another was given: ask for the value whole")]
    WrongBase(BaseId),
    /// The bytes do not decompress to the length that was offered.
    #[error("the compressed bytes are damaged or not of the offered length: ask again, whole")]
    Compressed,
    /// The operations of a patch are not well formed.
    #[error("the patch is refused ({0}): ask for the value whole")]
    Patch(&'static str),
    /// More operations than a patch may have.
    #[error("a patch of more than {0} operations is refused: ask for the value whole")]
    TooManyOperations(usize),
    /// Everything decoded, but not to the value that was offered.
    #[error("the decoded value has another hash than the one offered: ask for it whole")]
    HashMismatch,
    /// A signature or a request for gaps that cannot be of the base that it names.
    #[error("the signature is refused ({0}): send the value whole")]
    Signature(&'static str),
}
