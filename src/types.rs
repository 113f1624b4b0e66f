//! Names and identities: keys, collection names, policies, node ids.
//!
//! Each is checked once, when it is made; whoever holds one need not check again.
//!
//! ```
//! use selfsame::types::Key;
//!
//! let key = Key::new(b"player:17".to_vec())?;
//! assert_eq!(key.to_string(), "player:17");
//! assert!(Key::new(Vec::new()).is_err());
//! # Ok::<(), selfsame::types::TypeError>(())
//! ```

use std::fmt;

/// Longest key in bytes.
pub const MAX_KEY_BYTES: usize = 1024;
/// Longest collection or resolver name in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// A word that cannot be what it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TypeError {
    /// The key is empty.
    #[error("the key is empty: a key has 1 to 1,024 bytes")]
    EmptyKey,
    /// The key is too long.
    #[error("the key has {0} bytes: a key has 1 to 1,024 bytes")]
    LongKey(usize),
    /// The name is empty or too long.
    #[error("the name has {0} bytes: a name has 1 to 255 bytes of UTF-8")]
    NameLength(usize),
    /// The name is not UTF-8.
    #[error("the name is not UTF-8")]
    NameNotUtf8,
    /// The policy is not one of ours.
    #[error("unknown policy {0}: use lww or siblings, or a resolver and its version such as max@1")]
    UnknownPolicy(String),
}

/// A key: 1 to 1,024 arbitrary bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Box<[u8]>);

impl Key {
    /// Checks the length.
    ///
    /// # Errors
    /// An empty key, or one of more than 1,024 bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, TypeError> {
        let bytes = bytes.into();
        match bytes.len() {
            0 => Err(TypeError::EmptyKey),
            1..=MAX_KEY_BYTES => Ok(Self(bytes.into())),
            long => Err(TypeError::LongKey(long)),
        }
    }

    /// The key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Key {
    /// The key as text; bytes that are not printable text are shown escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) if !text.chars().any(char::is_control) => f.write_str(text),
            _ => write!(f, "{}", self.0.escape_ascii()),
        }
    }
}

impl fmt::Debug for Key {
    /// Keys are users' data: logs show a short hash only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = blake3::hash(&self.0);
        write!(f, "Key(#{})", &hash.to_hex()[..8])
    }
}

/// A name of 1 to 255 bytes of UTF-8: of a collection or of a resolver.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CollectionName(Box<str>);

impl CollectionName {
    /// Checks the length.
    ///
    /// # Errors
    /// An empty name, or one of more than 255 bytes.
    pub fn new(name: impl Into<String>) -> Result<Self, TypeError> {
        let name = name.into();
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(TypeError::NameLength(name.len()));
        }
        Ok(Self(name.into()))
    }

    /// Checks length and encoding.
    ///
    /// # Errors
    /// Bytes that are not UTF-8, none, or more than 255.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TypeError> {
        if bytes.is_empty() || bytes.len() > MAX_NAME_BYTES {
            return Err(TypeError::NameLength(bytes.len()));
        }
        let name = std::str::from_utf8(bytes).map_err(|_| TypeError::NameNotUtf8)?;
        Ok(Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as bytes; names are ordered by these, as unsigned bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Display for CollectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// How concurrent siblings of a key are read; bound in the root.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Policy {
    /// Reads show the sibling with the greatest (stamp, dot). Id 1.
    #[default]
    Lww,
    /// Reads show all siblings. Id 2.
    Siblings,
    /// A named, versioned resolver merges them. Id 3.
    Custom {
        /// Name of the resolver.
        resolver: CollectionName,
        /// Its version.
        version: u32,
    },
}

impl Policy {
    /// The id in envelopes and on the wire.
    #[must_use]
    pub const fn id(&self) -> u8 {
        match self {
            Self::Lww => 1,
            Self::Siblings => 2,
            Self::Custom { .. } => 3,
        }
    }
}

impl std::str::FromStr for Policy {
    type Err = TypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "lww" => Ok(Self::Lww),
            "siblings" => Ok(Self::Siblings),
            other => custom(other)
                .ok_or_else(|| TypeError::UnknownPolicy(other.chars().take(40).collect())),
        }
    }
}

/// A policy from the name and version of its resolver.
fn custom(text: &str) -> Option<Policy> {
    let (name, version) = text.rsplit_once('@')?;
    let digits = version.bytes().all(|digit| digit.is_ascii_digit());
    let version = version.parse().ok().filter(|_| digits)?;
    Some(Policy::Custom { resolver: CollectionName::new(name).ok()?, version })
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lww => f.pad("lww"),
            Self::Siblings => f.pad("siblings"),
            Self::Custom { resolver, version } => f.pad(&format!("{resolver}@{version}")),
        }
    }
}

/// A node's id: its Ed25519 public key. Whether the bytes are a usable key is checked where one
/// enters (a config, a handshake).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "session", derive(serde::Serialize, serde::Deserialize))]
pub struct NodeId(pub [u8; 32]);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({}..)", hex::encode(&self.0[..4]))
    }
}

/// What decides how a collection behaves: name, hash algorithm, policy.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct CollectionSpec {
    /// Its name.
    pub name: CollectionName,
    /// Its hash algorithm.
    pub algorithm: crate::hash::HashAlgorithm,
    /// Its policy.
    pub policy: Policy,
}
