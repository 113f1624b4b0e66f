//! Log heads: what is stored, compared and signed of a Merkle log.
//!
//! Every opening of a store starts a new log with a random id, whose first item is the head of the
//! log before it. So a crash or a restored backup never makes an honest node sign two heads for one
//! size of one log.
//!
//! ```
//! use selfsame::hash::HashAlgorithm;
//! use selfsame::merkle::log::{LogId, LogIdentity, LogKind, SignedLogHead, first_item};
//! use selfsame::merkle::{MerkleLog, NodeKey};
//! use selfsame::types::CollectionName;
//!
//! let mut log = MerkleLog::new(HashAlgorithm::Blake3);
//! log.append(&first_item(None));
//! let identity = LogIdentity {
//!     algorithm: log.algorithm(),
//!     kind: LogKind::Changes,
//!     id: LogId(0x0123_4567_89ab_cdef), // drawn at random in earnest
//!     name: CollectionName::new("players")?,
//! };
//! let fields = identity.at(&log);
//! let key = NodeKey::from_seed(&[7; 32]);
//! let signed = SignedLogHead::sign(&fields, &key)?;
//! signed.verify(&key.node_id(), &fields.head())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;

use super::{ConsistencyProof, LogProofError, MerkleLog};
use crate::codec::{CodecError, Reader, Writing};
use crate::hash::{HASH_LEN, HashAlgorithm, LogHash, LogHead};
use crate::merkle::envelope::{NameError, put_name, read_name};
use crate::merkle::signature::SIGNATURE_BYTES;
use crate::merkle::{NodeKey, Signature, SignatureError};
use crate::types::{CollectionName, NodeId, TypeError};

const HEAD_VERSION: u8 = 1;
const SIGNED_HEAD_TAG: &[u8] = b"selfsame v1 signed log head";

/// Bytes that are no log head, or heads that have nothing to do with each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogHeadError {
    /// Cut short or left over.
    #[error("log head: {0}")]
    Codec(#[from] CodecError),
    /// Not version 1.
    #[error("log head: version {0} is unknown, a newer selfsame may have written it")]
    Version(u8),
    /// An algorithm id that this version does not know.
    #[error("log head: hash algorithm id {0} is unknown, a newer selfsame may have written it")]
    Algorithm(u8),
    /// A kind that this version does not know.
    #[error("log head: kind {0} is unknown, a newer selfsame may have written it")]
    Kind(u8),
    /// The collection's name is none.
    #[error("log head: {0}")]
    Name(TypeError),
    /// The root of an empty log over items, or the other way round.
    #[error("log head: {0} items do not go with this root")]
    EmptyRoot(u64),
    /// The head of an empty log, which is never signed.
    #[error("log head: an empty log has no head to sign: append an item first")]
    Unsignable,
    /// Another log.
    #[error("log head: the two heads are of different logs and cannot be compared")]
    OtherLog,
    /// One size of one log has two roots.
    #[error("log head: two heads for {0} items of one log: the node rewrote it, keep both")]
    Equivocation(u64),
    /// The consistency proof does not hold.
    #[error("{0}")]
    Proof(#[from] LogProofError),
    /// The head is another one, or was not signed by this node.
    #[error("log head: {0}")]
    Signature(#[from] SignatureError),
}

impl From<NameError> for LogHeadError {
    fn from(error: NameError) -> Self {
        match error {
            NameError::Codec(error) => Self::Codec(error),
            NameError::Name(error) => Self::Name(error),
        }
    }
}

/// What a log records.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LogKind {
    /// Changes of a collection. Kind 1.
    Changes,
    /// Convergence certificates. Kind 2.
    Certificates,
}

impl LogKind {
    /// The number in log heads.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Self::Changes => 1,
            Self::Certificates => 2,
        }
    }

    /// The kind with this number.
    #[must_use]
    pub const fn from_id(id: u8) -> Option<Self> {
        match id {
            1 => Some(Self::Changes),
            2 => Some(Self::Certificates),
            _ => None,
        }
    }
}

/// Id of a log: random, drawn anew at every opening of a store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "session", derive(serde::Serialize, serde::Deserialize))]
pub struct LogId(pub u64);

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Which log it is: two logs that differ in any of these are different logs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LogIdentity {
    /// Its hash algorithm.
    pub algorithm: HashAlgorithm,
    /// What it records.
    pub kind: LogKind,
    /// Its id.
    pub id: LogId,
    /// The collection.
    pub name: CollectionName,
}

impl LogIdentity {
    /// The head's fields for the present state of the log.
    #[must_use]
    pub fn at(&self, log: &MerkleLog) -> LogHeadFields {
        LogHeadFields { log: self.clone(), size: log.size(), root: log.root() }
    }
}

/// The first item of a log: the head of the previous log of that kind and name, or 32 zero bytes
/// for the first ever.
#[must_use]
pub fn first_item(previous: Option<LogHead>) -> [u8; HASH_LEN] {
    previous.map_or([0; HASH_LEN], |head| head.0)
}

/// What a log head binds: which log, its size, its root.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct LogHeadFields {
    log: LogIdentity,
    size: u64,
    root: LogHash,
}

impl LogHeadFields {
    /// Checks that the root of an empty log stands over no items, and only there.
    ///
    /// # Errors
    /// It does not.
    pub fn new(log: LogIdentity, size: u64, root: LogHash) -> Result<Self, LogHeadError> {
        if (size == 0) != (root == log.algorithm.log_empty()) {
            return Err(LogHeadError::EmptyRoot(size));
        }
        Ok(Self { log, size, root })
    }

    /// Reads the bytes strictly: what is accepted encodes to the same bytes.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogHeadError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            HEAD_VERSION => {}
            version => return Err(LogHeadError::Version(version)),
        }
        let id = reader.u8()?;
        let algorithm = HashAlgorithm::from_id(id).ok_or(LogHeadError::Algorithm(id))?;
        let kind = reader.u8()?;
        let kind = LogKind::from_id(kind).ok_or(LogHeadError::Kind(kind))?;
        let id = LogId(reader.u64()?);
        let name = read_name(&mut reader)?;
        let (size, root) = (reader.u64()?, LogHash(reader.array()?));
        reader.finish()?;
        Self::new(LogIdentity { algorithm, kind, id, name }, size, root)
    }

    /// The bytes that the head hashes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(53 + self.log.name.as_bytes().len());
        bytes.put_u8(HEAD_VERSION);
        bytes.put_u8(self.log.algorithm.id());
        bytes.put_u8(self.log.kind.id());
        bytes.put_u64(self.log.id.0);
        put_name(&mut bytes, &self.log.name);
        bytes.put_u64(self.size);
        bytes.put_bytes(&self.root.0);
        bytes
    }

    /// The log head.
    #[must_use]
    pub fn head(&self) -> LogHead {
        self.log.algorithm.log_head(&self.to_bytes())
    }

    /// Which log it is.
    #[must_use]
    pub const fn log(&self) -> &LogIdentity {
        &self.log
    }

    /// Number of its items.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Root of its items.
    #[must_use]
    pub const fn root(&self) -> &LogHash {
        &self.root
    }

    /// Checks with a proof that this head is of the same log as a later one, and that nothing
    /// was changed in between.
    ///
    /// # Errors
    /// Heads of different logs, two heads for one size, or a proof that does not hold.
    pub fn check_grown_into(
        &self,
        later: &Self,
        proof: &ConsistencyProof,
    ) -> Result<(), LogHeadError> {
        if self.log != later.log {
            return Err(LogHeadError::OtherLog);
        }
        if self.size == later.size && self.root != later.root {
            return Err(LogHeadError::Equivocation(self.size));
        }
        let (earlier, later) = ((self.size, &self.root), (later.size, &later.root));
        Ok(proof.verify(self.log.algorithm, earlier, later)?)
    }
}

/// A node's signature of a log head. Only heads over items that are synced are signed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "session", derive(serde::Serialize, serde::Deserialize))]
pub struct SignedLogHead(Signature);

impl SignedLogHead {
    /// Signs a head over items that are synced.
    ///
    /// # Errors
    /// The log is empty.
    pub fn sign(fields: &LogHeadFields, key: &NodeKey) -> Result<Self, LogHeadError> {
        Self::sign_with(fields, &|message| key.sign(message).to_bytes())
    }

    /// The same, by whoever has the key.
    ///
    /// # Errors
    /// The log is empty.
    pub fn sign_with(
        fields: &LogHeadFields,
        sign: &dyn Fn(&[u8]) -> [u8; SIGNATURE_BYTES],
    ) -> Result<Self, LogHeadError> {
        if fields.size == 0 {
            return Err(LogHeadError::Unsignable);
        }
        Ok(Self(Signature::from_bytes(sign(&signed_message(&fields.head())))))
    }

    /// From a signature; whether it holds, [`verify`](Self::verify) says.
    #[must_use]
    pub const fn new(signature: Signature) -> Self {
        Self(signature)
    }

    /// The signature.
    #[must_use]
    pub const fn signature(&self) -> &Signature {
        &self.0
    }

    /// Checks that the node signed this head.
    ///
    /// # Errors
    /// It did not.
    pub fn verify(&self, node: &NodeId, head: &LogHead) -> Result<(), LogHeadError> {
        Ok(self.0.verify(node, &signed_message(head))?)
    }
}

fn signed_message(head: &LogHead) -> Vec<u8> {
    [SIGNED_HEAD_TAG, head.as_ref()].concat()
}
