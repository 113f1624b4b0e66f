//! The two hash algorithms of a collection and every hash that is not a proof.
//!
//! A collection uses BLAKE3 or SHA-256 throughout. Each purpose has its own domain: BLAKE3 keeps
//! them apart with derived keys, SHA-256 with a first byte that differs. Plain value hashes are
//! the exception, so that `b3sum` and `sha256sum` agree with what is shown.
//!
//! ```
//! use selfsame::hash::HashAlgorithm;
//!
//! let hash = HashAlgorithm::Sha256.value_hash(b"");
//! assert!(hash.to_string().starts_with("e3b0c442"));
//! ```

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use blake3::hazmat::{ContextKey, HasherExt, hash_derive_key_context};
use sha2::{Digest as _, Sha256};

use crate::types::Key;

mod lanes;

pub(crate) use lanes::BlockKey;
#[cfg(feature = "tree")]
pub(crate) use lanes::{Block, LANES};

/// Length in bytes of every hash here.
pub const HASH_LEN: usize = 32;

/// Text that is not 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 hex digits (32 bytes), found {0:?}")]
pub struct InvalidHashText(String);

macro_rules! hash_type {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "session", derive(serde::Serialize, serde::Deserialize))]
        pub struct $name(pub [u8; HASH_LEN]);

        impl $name {
            /// The hash as bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; HASH_LEN] {
                &self.0
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({}..)", stringify!($name), hex::encode(&self.0[..4]))
            }
        }

        impl FromStr for $name {
            type Err = InvalidHashText;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut bytes = [0; HASH_LEN];
                hex::decode_to_slice(text, &mut bytes)
                    .map_err(|_| InvalidHashText(text.chars().take(80).collect()))?;
                Ok(Self(bytes))
            }
        }
    )*};
}

hash_type! {
    /// Hash of a key: where its leaf stands in the tree.
    KeyHash;
    /// Plain hash of a value's bytes.
    ValueHash;
    /// Hash of the canonical record bytes of an entry.
    RecordDigest;
    /// Hash of a leaf, of an inner node or of the empty tree.
    TreeHash;
    /// Hash of a collection's envelope: what two replicas compare and proofs are checked against.
    Root;
    /// Hash of a canonical context with its exceptions.
    ContextHash;
    /// Hash of root and context hash together: equal state hashes leave nothing to do.
    StateHash;
    /// Hash over the collections that two peers share.
    ForestRoot;
    /// Hash of a node of the Merkle log.
    LogHash;
    /// Hash of a log's identity, size and root: what is stored, compared and signed.
    LogHead;
    /// Identity of one session, from both nonces.
    SessionId;
}

impl KeyHash {
    /// Bit `index` (0 is the most significant bit of the first byte).
    #[must_use]
    #[inline]
    pub const fn bit(&self, index: u8) -> bool {
        self.0[(index / 8) as usize] & (0x80 >> (index % 8)) != 0
    }

    /// The bucket (0-255) in which the key stands: its first byte.
    #[must_use]
    pub const fn bucket(&self) -> u8 {
        self.0[0]
    }

    /// Index of the first bit in which the two differ, none when they are equal.
    #[must_use]
    #[inline]
    pub fn first_difference(&self, other: &Self) -> Option<u8> {
        let (ours, theirs) = (self.0.as_chunks::<8>().0, other.0.as_chunks::<8>().0);
        ours.iter().zip(theirs).enumerate().find_map(|(word, (a, b))| {
            let differing = u64::from_be_bytes(*a) ^ u64::from_be_bytes(*b);
            (differing != 0).then(|| (word * 64) as u8 + differing.leading_zeros() as u8)
        })
    }
}

/// Hash algorithm of a collection, bound in its root.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "session", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "session", serde(rename_all = "lowercase"))]
pub enum HashAlgorithm {
    /// BLAKE3, id 1.
    #[default]
    Blake3,
    /// SHA-256, id 2.
    Sha256,
}

/// A hash algorithm that this version does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown hash algorithm {0}: use blake3 or sha256")]
pub struct UnknownAlgorithm(pub String);

impl FromStr for HashAlgorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "blake3" => Ok(Self::Blake3),
            "sha256" => Ok(Self::Sha256),
            other => Err(UnknownAlgorithm(other.chars().take(40).collect())),
        }
    }
}

impl fmt::Display for HashAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Blake3 => "blake3",
            Self::Sha256 => "sha256",
        })
    }
}

struct Derived(LazyLock<ContextKey>);

impl Derived {
    const fn new(make: fn() -> ContextKey) -> Self {
        Self(LazyLock::new(make))
    }

    fn hash(&self, parts: &[&[u8]]) -> [u8; HASH_LEN] {
        let mut hasher = blake3::Hasher::new_from_context_key(&self.0);
        for part in parts {
            hasher.update(part);
        }
        hasher.finalize().into()
    }
}

macro_rules! derived {
    ($($name:ident = $context:literal;)*) => {
        $(static $name: Derived = Derived::new(|| hash_derive_key_context($context));)*
    };
}

derived! {
    KEY = "selfsame v1 key";
    RECORD = "selfsame v1 record";
    ROOT = "selfsame v1 root";
    CONTEXT = "selfsame v1 context";
    STATE = "selfsame v1 state";
    FOREST = "selfsame v1 forest";
    FOREST_RANGE = "selfsame v1 forest range";
    SESSION = "selfsame v1 session";
    LOG_HEAD = "selfsame v1 log head";
    LOG_LEAF = "selfsame log v1 leaf";
    LEAF = "selfsame merkle v1 leaf";
    INNER = "selfsame merkle v1 inner";
    EMPTY = "selfsame merkle v1 empty";
    LOG_INNER = "selfsame log v1 inner";
    LOG_EMPTY = "selfsame log v1 empty";
}

static LEAF_KEY: LazyLock<[u8; HASH_LEN]> = LazyLock::new(|| LEAF.hash(&[]));
static INNER_KEYS: LazyLock<[[u8; HASH_LEN]; 256]> =
    LazyLock::new(|| std::array::from_fn(|bit| INNER.hash(&[&[bit as u8]])));
static LOG_INNER_KEY: LazyLock<[u8; HASH_LEN]> = LazyLock::new(|| LOG_INNER.hash(&[]));
static EMPTY_BLAKE3: LazyLock<TreeHash> = LazyLock::new(|| TreeHash(EMPTY.hash(&[])));
static EMPTY_SHA256: LazyLock<TreeHash> = LazyLock::new(|| TreeHash(sha256(&[&[0x04]])));

fn sha256(parts: &[&[u8]]) -> [u8; HASH_LEN] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

fn keyed(key: &[u8; HASH_LEN], left: &[u8; HASH_LEN], right: &[u8; HASH_LEN]) -> [u8; HASH_LEN] {
    let mut preimage = [0; 2 * HASH_LEN];
    preimage[..HASH_LEN].copy_from_slice(left);
    preimage[HASH_LEN..].copy_from_slice(right);
    BlockKey::new(key).hash(&preimage)
}

impl HashAlgorithm {
    /// Every algorithm, in the order of their ids.
    pub const ALL: [Self; 2] = [Self::Blake3, Self::Sha256];

    /// The id in envelopes and on the wire.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Self::Blake3 => 1,
            Self::Sha256 => 2,
        }
    }

    /// The algorithm with this id.
    #[must_use]
    pub const fn from_id(id: u8) -> Option<Self> {
        match id {
            1 => Some(Self::Blake3),
            2 => Some(Self::Sha256),
            _ => None,
        }
    }

    /// Key hash: where a key stands in the tree.
    #[must_use]
    pub fn key_hash(self, key: &Key) -> KeyHash {
        KeyHash(self.domain(&KEY, 0x03, &[key.as_bytes()]))
    }

    /// Plain hash of a value: `b3sum` or `sha256sum` of its bytes.
    #[must_use]
    pub fn value_hash(self, value: &[u8]) -> ValueHash {
        ValueHash(match self {
            Self::Blake3 => blake3::hash(value).into(),
            Self::Sha256 => sha256(&[value]),
        })
    }

    /// Digest of canonical record bytes.
    #[must_use]
    pub fn record_digest(self, record: &[u8]) -> RecordDigest {
        RecordDigest(self.domain(&RECORD, 0x02, &[record]))
    }

    /// Hash of a leaf: one BLAKE3 compression.
    #[must_use]
    pub fn leaf(self, key: &KeyHash, record: &RecordDigest) -> TreeHash {
        TreeHash(match self {
            Self::Blake3 => keyed(&LEAF_KEY, &key.0, &record.0),
            Self::Sha256 => sha256(&[&[0x00], &key.0, &record.0]),
        })
    }

    /// Hash of the inner node that splits at bit index `bit`: one BLAKE3 compression.
    #[must_use]
    pub fn inner(self, bit: u8, left: &TreeHash, right: &TreeHash) -> TreeHash {
        TreeHash(match self {
            Self::Blake3 => keyed(&INNER_KEYS[bit as usize], &left.0, &right.0),
            Self::Sha256 => sha256(&[&[0x01, bit], &left.0, &right.0]),
        })
    }

    /// Key with which BLAKE3 hashes leaves (64-byte preimages), for batch hashing.
    #[must_use]
    pub fn blake3_leaf_key() -> &'static [u8; HASH_LEN] {
        &LEAF_KEY
    }

    /// Key with which BLAKE3 hashes inner nodes that split at `bit`, for batch hashing.
    #[must_use]
    pub fn blake3_inner_key(bit: u8) -> &'static [u8; HASH_LEN] {
        &INNER_KEYS[bit as usize]
    }

    /// The key for a leaf (`bit` is none) or an inner node, as blocks are hashed with it.
    #[cfg(feature = "tree")]
    pub(crate) fn blake3_block_key(bit: Option<u8>) -> BlockKey {
        BlockKey::new(bit.map_or_else(Self::blake3_leaf_key, Self::blake3_inner_key))
    }

    /// Hash of a leaf (`bit` is none) or of an inner node, from the two hashes one after the other.
    #[cfg(feature = "tree")]
    pub(crate) fn of_block(self, bit: Option<u8>, block: &Block) -> TreeHash {
        TreeHash(match (self, bit) {
            (Self::Blake3, _) => Self::blake3_block_key(bit).hash(block),
            (Self::Sha256, Some(bit)) => sha256(&[&[0x01, bit], block]),
            (Self::Sha256, None) => sha256(&[&[0x00], block]),
        })
    }

    /// Tree hash of no leaves at all.
    #[must_use]
    pub fn empty(self) -> TreeHash {
        match self {
            Self::Blake3 => *EMPTY_BLAKE3,
            Self::Sha256 => *EMPTY_SHA256,
        }
    }

    /// Root of the collection whose envelope has these bytes.
    #[must_use]
    pub fn root(self, envelope: &[u8]) -> Root {
        Root(self.domain(&ROOT, 0x05, &[envelope]))
    }

    /// Hash of canonical context bytes.
    #[must_use]
    pub fn context(self, context: &[u8]) -> ContextHash {
        ContextHash(self.domain(&CONTEXT, 0x07, &[context]))
    }

    /// State hash: root and context hash together.
    #[must_use]
    pub fn state(self, root: &Root, context: &ContextHash) -> StateHash {
        StateHash(self.domain(&STATE, 0x08, &[&root.0, &context.0]))
    }

    /// Log head from its bytes.
    #[must_use]
    pub fn log_head(self, head: &[u8]) -> LogHead {
        LogHead(self.domain(&LOG_HEAD, 0x06, &[head]))
    }

    /// Leaf of the Merkle log (SHA-256: RFC 9162).
    #[must_use]
    pub fn log_leaf(self, item: &[u8]) -> LogHash {
        LogHash(self.domain(&LOG_LEAF, 0x00, &[item]))
    }

    /// Inner node of the Merkle log (SHA-256: RFC 9162).
    #[must_use]
    pub fn log_inner(self, left: &LogHash, right: &LogHash) -> LogHash {
        LogHash(match self {
            Self::Blake3 => keyed(&LOG_INNER_KEY, &left.0, &right.0),
            Self::Sha256 => sha256(&[&[0x01], &left.0, &right.0]),
        })
    }

    /// Root of the empty Merkle log.
    #[must_use]
    pub fn log_empty(self) -> LogHash {
        LogHash(match self {
            Self::Blake3 => LOG_EMPTY.hash(&[]),
            Self::Sha256 => sha256(&[]),
        })
    }

    fn domain(self, derived: &Derived, prefix: u8, parts: &[&[u8]]) -> [u8; HASH_LEN] {
        match self {
            Self::Blake3 => derived.hash(parts),
            Self::Sha256 => {
                let mut hasher = Sha256::new();
                hasher.update([prefix]);
                for part in parts {
                    hasher.update(part);
                }
                hasher.finalize().into()
            }
        }
    }
}

/// Forest root over named 32-byte hashes, whose bytes are given in canonical form; always BLAKE3.
#[must_use]
pub fn forest_root(bytes: &[u8]) -> ForestRoot {
    ForestRoot(FOREST.hash(&[bytes]))
}

/// Eight bytes of a hash over the states of some collections that stand side by side: they lead the
/// way to what differs, and prove nothing.
#[must_use]
pub fn forest_range(states: &[StateHash]) -> [u8; 8] {
    let states: Vec<&[u8]> = states.iter().map(|state| &state.0[..]).collect();
    let mut short = [0; 8];
    short.copy_from_slice(&FOREST_RANGE.hash(&states)[..8]);
    short
}

/// Session id from the nonces of initiator and responder; always BLAKE3.
#[must_use]
pub fn session_id(initiator: &[u8; 32], responder: &[u8; 32]) -> SessionId {
    SessionId(SESSION.hash(&[initiator, responder]))
}
