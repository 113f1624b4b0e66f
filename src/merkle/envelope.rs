//! The envelope of a collection: the fields that its root binds.
//!
//! Name, hash algorithm, policy, tree hash and totals: everything that decides how a collection
//! behaves is hashed, so that two replicas with one root hold and read the same.
//!
//! ```
//! use selfsame::entry::Totals;
//! use selfsame::hash::HashAlgorithm;
//! use selfsame::merkle::Envelope;
//! use selfsame::types::{CollectionName, CollectionSpec, Policy};
//!
//! let spec = CollectionSpec {
//!     name: CollectionName::new("players")?,
//!     algorithm: HashAlgorithm::Blake3,
//!     policy: Policy::Lww,
//! };
//! let nothing = Envelope::new(spec, HashAlgorithm::Blake3.empty(), Totals::default())?;
//! assert_eq!(Envelope::parse(&nothing.to_bytes())?, nothing);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::clock::Stamp;
use crate::codec::{CodecError, Reader, Writing};
use crate::entry::Totals;
use crate::hash::{HashAlgorithm, Root, TreeHash};
use crate::types::{CollectionName, CollectionSpec, MAX_NAME_BYTES, Policy, TypeError};

const ENVELOPE_VERSION: u8 = 1;
// tree hash and totals
const FIXED_TAIL: usize = 32 + 4 * 8;

/// Longest envelope in bytes: longest name, custom policy with the longest resolver name.
pub const MAX_ENVELOPE_BYTES: usize = 4 + MAX_NAME_BYTES + 1 + 2 + MAX_NAME_BYTES + 4 + FIXED_TAIL;

/// Fields or bytes that make no envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Cut short or left over.
    #[error("envelope: {0}")]
    Codec(#[from] CodecError),
    /// Not version 1.
    #[error("envelope: version {0} is unknown, a newer selfsame may have written it")]
    Version(u8),
    /// An algorithm id that this version does not know.
    #[error("envelope: hash algorithm id {0} is unknown, a newer selfsame may have written it")]
    Algorithm(u8),
    /// A policy id that this version does not know.
    #[error("envelope: policy id {0} is unknown, a newer selfsame may have written it")]
    Policy(u8),
    /// The collection's or resolver's name is none.
    #[error("envelope: {0}")]
    Name(TypeError),
    /// No entries over a tree that is not empty, or entries over an empty tree.
    #[error("envelope: {entries} entries do not go with this tree hash: do not trust the sender")]
    Entries {
        /// The entries claimed.
        entries: u64,
    },
    /// Totals that cannot belong together.
    #[error(
        "envelope: {entries} entries cannot have {siblings} siblings, {bytes} bytes and stamp \
         {latest}: do not trust the sender"
    )]
    Totals {
        /// Entries claimed.
        entries: u64,
        /// Siblings claimed.
        siblings: u64,
        /// Bytes claimed.
        bytes: u64,
        /// Latest stamp claimed.
        latest: Stamp,
    },
}

/// What the root of a collection binds: how it behaves, its tree and its totals.
///
/// Its totals go together and with the tree hash: no entries exactly when the tree is empty, at
/// least as many siblings as entries, nothing at all without entries.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Envelope {
    spec: CollectionSpec,
    tree_hash: TreeHash,
    totals: Totals,
}

impl Envelope {
    /// Checks that totals and tree hash go together.
    ///
    /// # Errors
    /// Figures that no collection has.
    pub fn new(
        spec: CollectionSpec,
        tree_hash: TreeHash,
        totals: Totals,
    ) -> Result<Self, EnvelopeError> {
        if (totals.entries == 0) != (tree_hash == spec.algorithm.empty()) {
            return Err(EnvelopeError::Entries { entries: totals.entries });
        }
        if !totals.are_consistent() {
            let Totals { entries, siblings, bytes, latest } = totals;
            return Err(EnvelopeError::Totals { entries, siblings, bytes, latest });
        }
        Ok(Self { spec, tree_hash, totals })
    }

    /// That of a collection with nothing in it.
    #[must_use]
    pub fn empty(spec: CollectionSpec) -> Self {
        Self { tree_hash: spec.algorithm.empty(), totals: Totals::default(), spec }
    }

    /// Reads the bytes strictly: what is accepted encodes to the same bytes.
    ///
    /// # Errors
    /// Anything else, and figures that no collection has.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            ENVELOPE_VERSION => {}
            version => return Err(EnvelopeError::Version(version)),
        }
        let id = reader.u8()?;
        let algorithm = HashAlgorithm::from_id(id).ok_or(EnvelopeError::Algorithm(id))?;
        let name = read_name(&mut reader)?;
        let policy = match reader.u8()? {
            1 => Policy::Lww,
            2 => Policy::Siblings,
            3 => Policy::Custom { resolver: read_name(&mut reader)?, version: reader.u32()? },
            id => return Err(EnvelopeError::Policy(id)),
        };
        let tree_hash = TreeHash(reader.array()?);
        let totals = Totals {
            entries: reader.u64()?,
            siblings: reader.u64()?,
            bytes: reader.u64()?,
            latest: Stamp(reader.u64()?),
        };
        reader.finish()?;
        Self::new(CollectionSpec { name, algorithm, policy }, tree_hash, totals)
    }

    /// The bytes that the root hashes, at most [`MAX_ENVELOPE_BYTES`].
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let name = self.spec.name.as_bytes();
        let mut bytes = Vec::with_capacity(5 + name.len() + FIXED_TAIL);
        bytes.put_u8(ENVELOPE_VERSION);
        bytes.put_u8(self.spec.algorithm.id());
        put_name(&mut bytes, &self.spec.name);
        bytes.put_u8(self.spec.policy.id());
        if let Policy::Custom { resolver, version } = &self.spec.policy {
            put_name(&mut bytes, resolver);
            bytes.put_u32(*version);
        }
        bytes.put_bytes(&self.tree_hash.0);
        bytes.put_u64(self.totals.entries);
        bytes.put_u64(self.totals.siblings);
        bytes.put_u64(self.totals.bytes);
        bytes.put_u64(self.totals.latest.0);
        bytes
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> Root {
        self.spec.algorithm.root(&self.to_bytes())
    }

    /// Name, algorithm and policy.
    #[must_use]
    pub const fn spec(&self) -> &CollectionSpec {
        &self.spec
    }

    /// The collection's hash algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> HashAlgorithm {
        self.spec.algorithm
    }

    /// The collection's name.
    #[must_use]
    pub const fn name(&self) -> &CollectionName {
        &self.spec.name
    }

    /// How concurrent siblings are read.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.spec.policy
    }

    /// Hash of the whole tree.
    #[must_use]
    pub const fn tree_hash(&self) -> TreeHash {
        self.tree_hash
    }

    /// Entries, siblings, bytes and latest stamp.
    #[must_use]
    pub const fn totals(&self) -> Totals {
        self.totals
    }

    /// Whether there is no entry.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.totals.entries == 0
    }
}

/// Bytes in which no name stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NameError {
    #[error("{0}")]
    Codec(#[from] CodecError),
    #[error("{0}")]
    Name(#[from] TypeError),
}

impl From<NameError> for EnvelopeError {
    fn from(error: NameError) -> Self {
        match error {
            NameError::Codec(error) => Self::Codec(error),
            NameError::Name(error) => Self::Name(error),
        }
    }
}

/// Appends u16 length and name.
pub(super) fn put_name(bytes: &mut Vec<u8>, name: &CollectionName) {
    bytes.put_u16(name.as_bytes().len() as u16);
    bytes.put_bytes(name.as_bytes());
}

/// Reads u16 length and name; a length beyond 255 is refused before anything else is looked at.
pub(super) fn read_name(reader: &mut Reader<'_>) -> Result<CollectionName, NameError> {
    let len = usize::from(reader.u16()?);
    if len == 0 || len > MAX_NAME_BYTES {
        return Err(TypeError::NameLength(len).into());
    }
    Ok(CollectionName::from_bytes(reader.bytes(len)?)?)
}
