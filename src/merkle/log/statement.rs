//! What a node has said of its logs, and what shows that it said two things that cannot both be.
//!
//! A node that tells its peers different histories must sign different heads of one log: then
//! either two of them have one size, which proves it to anyone, or one of them did not grow out of
//! the other, and the node cannot prove that it did (Crosby and Wallach, "Efficient Data
//! Structures for Tamper-Evident Logging", 2009; RFC 9162, section 8.3).
//!
//! ```
//! use selfsame::hash::HashAlgorithm;
//! use selfsame::merkle::log::{Contradiction, HeadStatement, LogId, LogIdentity, LogKind};
//! use selfsame::merkle::{MerkleLog, NodeKey};
//! use selfsame::types::CollectionName;
//!
//! let identity = LogIdentity {
//!     algorithm: HashAlgorithm::Blake3,
//!     kind: LogKind::Certificates,
//!     id: LogId(5),
//!     name: CollectionName::new("players")?,
//! };
//! let liar = NodeKey::from_seed(&[7; 32]);
//! let told = |item: &[u8]| {
//!     let mut log = MerkleLog::new(HashAlgorithm::Blake3);
//!     log.append(item);
//!     HeadStatement::sign(identity.at(&log), liar.node_id(), &|message| {
//!         liar.sign(message).to_bytes()
//!     })
//! };
//! let (to_one, to_another) = (told(b"this")?, told(b"that")?);
//! let proof = Contradiction::of_two_roots(&to_one, &to_another)?;
//! assert_eq!(Contradiction::parse(&proof.to_bytes())?.node(), liar.node_id());
//! assert!(Contradiction::of_two_roots(&to_one, &to_one).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use super::{ConsistencyProof, LogHeadError, LogHeadFields, LogProofError, SignedLogHead};
use crate::codec::{CodecError, Reader, Writing};
use crate::merkle::Signature;
use crate::merkle::signature::SIGNATURE_BYTES;
use crate::types::{MAX_NAME_BYTES, NodeId};

const CONTRADICTION_VERSION: u8 = 1;
const TWO_ROOTS: u8 = 1;
const NOT_GROWN: u8 = 2;
// version, algorithm, kind, id, length, name, size, root
const MAX_HEAD_FIELDS: usize = 3 + 8 + 2 + MAX_NAME_BYTES + 8 + 32;
// kind, two sizes, number, as many hashes as a byte counts
const MAX_LOG_PROOF: usize = 1 + 16 + 1 + 255 * 32;

/// Longest statement in bytes.
pub const MAX_STATEMENT_BYTES: usize = 32 + SIGNATURE_BYTES + MAX_HEAD_FIELDS;
/// Longest contradiction in bytes.
pub const MAX_CONTRADICTION_BYTES: usize = 2 + 2 * (2 + MAX_STATEMENT_BYTES) + MAX_LOG_PROOF;

/// Statements that do not contradict each other, or bytes that are none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContradictionError {
    /// Cut short or left over.
    #[error("evidence: {0}")]
    Codec(#[from] CodecError),
    /// Not version 1.
    #[error("evidence: version {0} is unknown, a newer selfsame may have written it")]
    Version(u8),
    /// Another kind of contradiction.
    #[error("evidence: kind {0} is unknown, a newer selfsame may have written it")]
    Kind(u8),
    /// A statement is none.
    #[error("evidence: {0}")]
    Head(#[from] LogHeadError),
    /// The proof is none.
    #[error("evidence: {0}")]
    Proof(#[from] LogProofError),
    /// Two nodes, or two logs.
    #[error("evidence: the two heads are not of one log of one node: they contradict nothing")]
    OtherLog,
    /// They go together, or are not in order.
    #[error("evidence: the two heads do not contradict each other: they prove nothing")]
    Consistent,
}

/// What a node has said of one of its logs, in the form in which it is kept and passed on: the
/// signature holds, and the log is not empty.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HeadStatement {
    node: NodeId,
    fields: LogHeadFields,
    signature: SignedLogHead,
}

impl HeadStatement {
    /// Checks what a node signed.
    ///
    /// # Errors
    /// The log is empty, or the signature does not hold.
    pub fn new(
        node: NodeId,
        fields: LogHeadFields,
        signature: SignedLogHead,
    ) -> Result<Self, LogHeadError> {
        if fields.size() == 0 {
            return Err(LogHeadError::Unsignable);
        }
        signature.verify(&node, &fields.head())?;
        Ok(Self { node, fields, signature })
    }

    /// Signs a head over items that are synced, by whoever has the key of the node.
    ///
    /// # Errors
    /// The log is empty, or the signature is not that of the node.
    pub fn sign(
        fields: LogHeadFields,
        node: NodeId,
        sign: &dyn Fn(&[u8]) -> [u8; SIGNATURE_BYTES],
    ) -> Result<Self, LogHeadError> {
        let signature = SignedLogHead::sign_with(&fields, sign)?;
        Self::new(node, fields, signature)
    }

    /// Reads the bytes strictly and checks the signature.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogHeadError> {
        let mut reader = Reader::new(bytes);
        let node = NodeId(reader.array()?);
        let signature = SignedLogHead::new(Signature::from_bytes(reader.array()?));
        let fields = LogHeadFields::parse(reader.bytes(reader.remaining())?)?;
        Self::new(node, fields, signature)
    }

    /// The bytes, at most [`MAX_STATEMENT_BYTES`]: node id, signature, head fields.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.node.0.to_vec();
        bytes.put_bytes(&self.signature.signature().to_bytes());
        bytes.put_bytes(&self.fields.to_bytes());
        bytes
    }

    /// Who said it.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// What it said.
    #[must_use]
    pub const fn fields(&self) -> &LogHeadFields {
        &self.fields
    }

    /// Its signature.
    #[must_use]
    pub const fn signature(&self) -> &SignedLogHead {
        &self.signature
    }

    fn is_of_the_log_of(&self, other: &Self) -> bool {
        self.node == other.node && self.fields.log() == other.fields.log()
    }
}

/// Two statements of one node that do not go together.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Contradiction {
    first: HeadStatement,
    second: HeadStatement,
    /// What the node said shows that the second grew out of the first, and does not; none if both
    /// have one size.
    proof: Option<ConsistencyProof>,
}

impl Contradiction {
    /// Two roots for one size of one log.
    ///
    /// # Errors
    /// They are of different nodes, logs or sizes, or the same.
    pub fn of_two_roots(
        one: &HeadStatement,
        other: &HeadStatement,
    ) -> Result<Self, ContradictionError> {
        let (first, second) =
            if one.fields.root() <= other.fields.root() { (one, other) } else { (other, one) };
        Self { first: first.clone(), second: second.clone(), proof: None }.checked()
    }

    /// A head that is said to have grown out of an earlier one, with what the node gave as proof.
    ///
    /// # Errors
    /// They are of different nodes or logs, the second is not longer, or the proof holds.
    pub fn of_failed_proof(
        earlier: &HeadStatement,
        later: &HeadStatement,
        proof: ConsistencyProof,
    ) -> Result<Self, ContradictionError> {
        Self { first: earlier.clone(), second: later.clone(), proof: Some(proof) }.checked()
    }

    fn checked(self) -> Result<Self, ContradictionError> {
        if !self.first.is_of_the_log_of(&self.second) {
            return Err(ContradictionError::OtherLog);
        }
        let (first, second) = (&self.first.fields, &self.second.fields);
        let contradicts = match &self.proof {
            None => first.size() == second.size() && first.root() < second.root(),
            Some(proof) => {
                first.size() < second.size() && first.check_grown_into(second, proof).is_err()
            }
        };
        if contradicts { Ok(self) } else { Err(ContradictionError::Consistent) }
    }

    /// Reads the bytes strictly, and checks signatures and contradiction.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(bytes: &[u8]) -> Result<Self, ContradictionError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            CONTRADICTION_VERSION => {}
            version => return Err(ContradictionError::Version(version)),
        }
        let kind = reader.u8()?;
        let mut statement = || {
            let length = reader.u16()?;
            Ok::<_, ContradictionError>(HeadStatement::parse(reader.bytes(length.into())?)?)
        };
        let (first, second) = (statement()?, statement()?);
        let proof = match kind {
            TWO_ROOTS => None,
            NOT_GROWN => Some(ConsistencyProof::parse(reader.bytes(reader.remaining())?)?),
            kind => return Err(ContradictionError::Kind(kind)),
        };
        reader.finish()?;
        Self { first, second, proof }.checked()
    }

    /// The bytes, at most [`MAX_CONTRADICTION_BYTES`].
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let kind = if self.proof.is_some() { NOT_GROWN } else { TWO_ROOTS };
        let mut bytes = vec![CONTRADICTION_VERSION, kind];
        for statement in [&self.first, &self.second] {
            let statement = statement.to_bytes();
            bytes.put_u16(statement.len() as u16);
            bytes.put_bytes(&statement);
        }
        if let Some(proof) = &self.proof {
            bytes.put_bytes(&proof.to_bytes());
        }
        bytes
    }

    /// Who contradicts itself.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.first.node
    }

    /// Both statements: of one size, the lesser root first; else the earlier first.
    #[must_use]
    pub const fn statements(&self) -> [&HeadStatement; 2] {
        [&self.first, &self.second]
    }

    /// Whether the two statements alone prove it to anyone who has the node's id. Else it is also
    /// the word of whoever asked for the proof that this is what the node answered.
    #[must_use]
    pub const fn proves_itself(&self) -> bool {
        self.proof.is_none()
    }
}
