//! The shape of a tree as provers and comparisons walk it, and prefixes of key hashes.
//!
//! ```
//! use selfsame::hash::KeyHash;
//! use selfsame::merkle::Prefix;
//!
//! let prefix = Prefix::new(&[0b1010_0000], 3)?;
//! assert!(prefix.contains(&KeyHash([0b1011_1111; 32])));
//! assert!(!prefix.contains(&KeyHash([0; 32])));
//! assert_eq!("a0/3".parse(), Ok(prefix));
//! # Ok::<(), selfsame::merkle::PrefixError>(())
//! ```

use std::fmt;
use std::str::FromStr;

use bitvec::prelude::{BitSlice, Msb0};
use bitvec::view::BitView;

use super::path::Path;
use crate::hash::{HASH_LEN, HashAlgorithm, KeyHash, RecordDigest, TreeHash};

/// Bytes that are no prefix of a key hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrefixError {
    /// More bits than a key hash has.
    #[error("a prefix has 0 to 256 bits, not {0}")]
    Bits(u16),
    /// Not as many bytes as the bits fill.
    #[error("a prefix of {bits} bits has {expected} bytes, not {found}")]
    Length {
        /// Bits claimed.
        bits: u16,
        /// Bytes that they fill.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// A padding bit is set.
    #[error("the bits behind the prefix are not zero")]
    Padding,
    /// Text that is none.
    #[error(
        "{0:?} is no prefix of key hashes: write its first hex digits, as in 3f, or digits and \
         bits, as in 3f80/9; /0 is the whole tree"
    )]
    Text(String),
}

/// The first bits of key hashes: names a subtree. Bit 0 is the most significant of byte 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    // bits beyond `len` are zero, so that the derived order is the tree's pre-order
    bytes: [u8; HASH_LEN],
    len: u16,
}

impl Prefix {
    /// The prefix of no bits: the whole tree.
    pub const ALL: Self = Self { bytes: [0; HASH_LEN], len: 0 };

    /// A prefix of `bits` bits from whole bytes, zero-padded.
    ///
    /// # Errors
    /// More than 256 bits, a length that does not match, or padding that is not zero.
    pub fn new(bytes: &[u8], bits: u16) -> Result<Self, PrefixError> {
        if bits > 256 {
            return Err(PrefixError::Bits(bits));
        }
        let expected = usize::from(bits).div_ceil(8);
        if bytes.len() != expected {
            return Err(PrefixError::Length { bits, expected, found: bytes.len() });
        }
        let mut whole = [0; HASH_LEN];
        whole[..expected].copy_from_slice(bytes);
        let prefix = Self::of(&KeyHash(whole), bits);
        if prefix.bytes != whole {
            return Err(PrefixError::Padding);
        }
        Ok(prefix)
    }

    /// The first `bits` bits (at most 256) of a key hash.
    #[must_use]
    pub fn of(key: &KeyHash, bits: u16) -> Self {
        let len = bits.min(256);
        let mut bytes = key.0;
        bytes.view_bits_mut::<Msb0>()[usize::from(len)..].fill(false);
        Self { bytes, len }
    }

    /// Number of bits, 0 to 256.
    #[must_use]
    pub const fn len(&self) -> u16 {
        self.len
    }

    /// Whether this is the prefix of no bits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bits.
    #[must_use]
    pub fn bits(&self) -> &BitSlice<u8, Msb0> {
        &self.bytes.view_bits::<Msb0>()[..usize::from(self.len)]
    }

    /// The bits in whole bytes, zero-padded.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len).div_ceil(8)]
    }

    /// Whether the key hash begins with these bits.
    #[must_use]
    pub fn contains(&self, key: &KeyHash) -> bool {
        key.first_difference(&KeyHash(self.bytes)).is_none_or(|bit| u16::from(bit) >= self.len)
    }

    /// Whether every key hash under `other` is under this prefix too.
    #[must_use]
    pub fn is_prefix_of(&self, other: &Self) -> bool {
        self.len <= other.len && self.contains(&KeyHash(other.bytes))
    }

    /// This prefix and one bit more; none beyond 256 bits.
    #[must_use]
    pub fn child(&self, bit: bool) -> Option<Self> {
        if self.len >= 256 {
            return None;
        }
        let mut child = Self { bytes: self.bytes, len: self.len + 1 };
        child.bytes.view_bits_mut::<Msb0>().set(usize::from(self.len), bit);
        Some(child)
    }

    /// The least key hash under this prefix.
    #[must_use]
    pub const fn first_key(&self) -> KeyHash {
        KeyHash(self.bytes)
    }

    /// The greatest key hash under this prefix.
    #[must_use]
    pub fn last_key(&self) -> KeyHash {
        let mut bytes = self.bytes;
        bytes.view_bits_mut::<Msb0>()[usize::from(self.len)..].fill(true);
        KeyHash(bytes)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", hex::encode(self.as_bytes()), self.len)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    /// From `3f`, whose digits are four bits each, or `3f80/9`, whose bits behind the slash are
    /// counted.
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let none = || PrefixError::Text(text.chars().take(80).collect());
        let (digits, bits) = match text.split_once('/') {
            Some((digits, bits)) => (digits, bits.parse().map_err(|_| none())?),
            None if text.is_empty() => return Err(none()),
            None => (text, u16::try_from(text.len().saturating_mul(4)).map_err(|_| none())?),
        };
        let mut digits = digits.to_owned();
        if digits.len() % 2 == 1 {
            digits.push('0');
        }
        Self::new(&hex::decode(digits).map_err(|_| none())?, bits)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A page that is not in memory: only its hash and totals are. Load its leaves, unseal it, and
/// do the same again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("page {0} is not in memory")]
pub struct Sealed(pub Prefix);

/// What a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum View<N> {
    /// A leaf.
    Leaf {
        /// Key hash.
        key: KeyHash,
        /// Record digest.
        record: RecordDigest,
    },
    /// An inner node, both children of which are there.
    Inner {
        /// Bit index of the split, absolute in the key hash.
        bit: u8,
        /// Where the bit is 0.
        left: N,
        /// Where the bit is 1.
        right: N,
    },
}

/// The way from the top of a tree to a leaf, and the hashes beside it: what a proof consists of.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Trail {
    /// The leaf's.
    pub(super) key: KeyHash,
    pub(super) record: RecordDigest,
    pub(super) path: Path,
    /// Deepest first.
    pub(super) siblings: Vec<TreeHash>,
}

/// Read access to the nodes of a tree.
pub trait Shape {
    /// A node of this tree.
    type Node: Copy;

    /// The tree's hash algorithm.
    fn algorithm(&self) -> HashAlgorithm;

    /// The topmost node; none in an empty tree.
    fn top(&self) -> Option<Self::Node>;

    /// Hash of a node. Known also of a page that is not in memory.
    fn hash(&self, node: Self::Node) -> TreeHash;

    /// What the node is.
    ///
    /// # Errors
    /// The node is a page that is not in memory.
    fn view(&self, node: Self::Node) -> Result<View<Self::Node>, Sealed>;

    /// The way from the top to the leaf nearest to a key, and the hashes beside it; none in an
    /// empty tree. O(depth).
    ///
    /// # Errors
    /// A page on the way is not in memory.
    fn trail(&self, key: &KeyHash) -> Result<Option<Trail>, Sealed> {
        let Some(mut node) = self.top() else { return Ok(None) };
        let mut path = Path::default();
        let mut passed = Vec::with_capacity(32);
        loop {
            match self.view(node)? {
                View::Leaf { key, record } => {
                    let siblings = passed.iter().rev().map(|passed| self.hash(*passed)).collect();
                    return Ok(Some(Trail { key, record, path, siblings }));
                }
                View::Inner { bit, left, right } => {
                    let (next, beside) = if key.bit(bit) { (right, left) } else { (left, right) };
                    path.insert(bit);
                    passed.push(beside);
                    node = next;
                }
            }
        }
    }

    /// Tree hash of the whole.
    fn tree_hash(&self) -> TreeHash {
        self.top().map_or_else(|| self.algorithm().empty(), |top| self.hash(top))
    }
}
