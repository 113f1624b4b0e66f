//! Convergence certificates: two nodes sign that a session left them with one state.
//!
//! A certificate binds the merged root and context, both nodes and the session. It is signed only
//! after the join is durable. Held against an envelope it says what the agreement was about;
//! without one it proves agreement on an opaque hash.
//!
//! ```
//! use selfsame::clock::Stamp;
//! use selfsame::hash::{ContextHash, Root, session_id};
//! use selfsame::merkle::{Certificate, CertificateMessage, NodeKey};
//! use selfsame::types::CollectionName;
//!
//! let (mine, theirs) = (NodeKey::from_seed(&[1; 32]), NodeKey::from_seed(&[2; 32]));
//! let message = CertificateMessage::new(
//!     CollectionName::new("players")?,
//!     Root([3; 32]),
//!     ContextHash([4; 32]),
//!     [mine.node_id(), theirs.node_id()],
//!     session_id(&[5; 32], &[6; 32]),
//!     Stamp::new(1_000, 0),
//! )?;
//! let (my_signature, their_signature) = (message.sign(&mine), message.sign(&theirs));
//! let certificate = message.certify([
//!     (mine.node_id(), my_signature),
//!     (theirs.node_id(), their_signature),
//! ])?;
//! assert_eq!(Certificate::parse(&certificate.to_bytes())?, certificate);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod bundle;

pub use bundle::{
    CertificateBundle, CertificateBundleError, LogPlace, MAX_CERTIFICATE_BUNDLE_BYTES,
};

use super::digest::same;
use super::envelope::{NameError, put_name, read_name};
use super::signature::SIGNATURE_BYTES;
use super::{Envelope, NodeKey, Signature, SignatureError};
use crate::clock::Stamp;
use crate::codec::{CodecError, Reader, Writing};
use crate::hash::{ContextHash, Root, SessionId};
use crate::types::{CollectionName, MAX_NAME_BYTES, NodeId, TypeError};

const TAG: &[u8; 23] = b"selfsame v1 certificate";
const CERTIFICATE_VERSION: u8 = 1;
// root, context, two node ids, session, stamp
const FIXED_TAIL: usize = 5 * 32 + 8;

/// Longest certificate in bytes.
pub const MAX_CERTIFICATE_BYTES: usize =
    TAG.len() + 3 + MAX_NAME_BYTES + FIXED_TAIL + 2 * SIGNATURE_BYTES;

/// Bytes or parts that make no certificate, or one about something else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Cut short or left over.
    #[error("certificate: {0}")]
    Codec(#[from] CodecError),
    /// It does not begin with its tag.
    #[error("certificate: these bytes are no certificate")]
    Tag,
    /// Not version 1.
    #[error("certificate: version {0} is unknown, a newer selfsame may have written it")]
    Version(u8),
    /// The collection's name is none.
    #[error("certificate: {0}")]
    Name(TypeError),
    /// The nodes are not two, or not in order.
    #[error("certificate: it takes two different nodes, the lesser id first")]
    NodeOrder,
    /// A signature of a node that the certificate is not about.
    #[error("certificate: node {0} is not one of its two nodes")]
    OtherNode(NodeId),
    /// A signature does not hold.
    #[error("certificate: node {node} did not sign it: {error}")]
    Signature {
        /// The node that should have signed.
        node: NodeId,
        /// What is wrong with its signature.
        error: SignatureError,
    },
    /// The envelope is of another collection or has another root.
    #[error("certificate: it is about collection {collection} with root {root}, not about this")]
    OtherEnvelope {
        /// Collection of the certificate.
        collection: CollectionName,
        /// Root of the certificate.
        root: Root,
    },
}

impl From<NameError> for CertificateError {
    fn from(error: NameError) -> Self {
        match error {
            NameError::Codec(error) => Self::Codec(error),
            NameError::Name(error) => Self::Name(error),
        }
    }
}

/// What both nodes sign.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct CertificateMessage {
    collection: CollectionName,
    root: Root,
    context: ContextHash,
    lesser: NodeId,
    greater: NodeId,
    session: SessionId,
    stamp: Stamp,
}

impl CertificateMessage {
    /// From what both nodes agreed on: merged root, hash of the merged context, both node ids in
    /// any order, the session, and the greater of both hello stamps.
    ///
    /// # Errors
    /// One node twice.
    pub fn new(
        collection: CollectionName,
        root: Root,
        context: ContextHash,
        mut nodes: [NodeId; 2],
        session: SessionId,
        stamp: Stamp,
    ) -> Result<Self, CertificateError> {
        nodes.sort_unstable();
        let [lesser, greater] = nodes;
        if lesser == greater {
            return Err(CertificateError::NodeOrder);
        }
        Ok(Self { collection, root, context, lesser, greater, session, stamp })
    }

    /// Reads the bytes strictly: what is accepted encodes to the same bytes.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(bytes: &[u8]) -> Result<Self, CertificateError> {
        let mut reader = Reader::new(bytes);
        let message = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(message)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, CertificateError> {
        if reader.array()? != *TAG {
            return Err(CertificateError::Tag);
        }
        match reader.u8()? {
            CERTIFICATE_VERSION => {}
            version => return Err(CertificateError::Version(version)),
        }
        let message = Self {
            collection: read_name(reader)?,
            root: Root(reader.array()?),
            context: ContextHash(reader.array()?),
            lesser: NodeId(reader.array()?),
            greater: NodeId(reader.array()?),
            session: SessionId(reader.array()?),
            stamp: Stamp(reader.u64()?),
        };
        if message.lesser >= message.greater {
            return Err(CertificateError::NodeOrder);
        }
        Ok(message)
    }

    /// The bytes that both nodes sign.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MAX_CERTIFICATE_BYTES);
        bytes.put_bytes(TAG);
        bytes.put_u8(CERTIFICATE_VERSION);
        put_name(&mut bytes, &self.collection);
        bytes.put_bytes(&self.root.0);
        bytes.put_bytes(&self.context.0);
        bytes.put_bytes(&self.lesser.0);
        bytes.put_bytes(&self.greater.0);
        bytes.put_bytes(&self.session.0);
        bytes.put_u64(self.stamp.0);
        bytes
    }

    /// Signs it: only after the join is durable.
    #[must_use]
    pub fn sign(&self, key: &NodeKey) -> Signature {
        key.sign(&self.to_bytes())
    }

    /// The certificate, from the signatures of both nodes in any order.
    ///
    /// # Errors
    /// Not both nodes signed, or a signature does not hold.
    pub fn certify(
        self,
        mut signed: [(NodeId, Signature); 2],
    ) -> Result<Certificate, CertificateError> {
        signed.sort_unstable_by_key(|(node, _)| *node);
        for ((node, _), expected) in signed.iter().zip([self.lesser, self.greater]) {
            if *node != expected {
                return Err(CertificateError::OtherNode(*node));
            }
        }
        Certificate::check(self, signed.map(|(_, signature)| signature))
    }

    /// The collection.
    #[must_use]
    pub const fn collection(&self) -> &CollectionName {
        &self.collection
    }

    /// The merged root.
    #[must_use]
    pub const fn root(&self) -> &Root {
        &self.root
    }

    /// Hash of the merged context.
    #[must_use]
    pub const fn context(&self) -> &ContextHash {
        &self.context
    }

    /// Both nodes, the lesser id first.
    #[must_use]
    pub const fn nodes(&self) -> [NodeId; 2] {
        [self.lesser, self.greater]
    }

    /// The session.
    #[must_use]
    pub const fn session(&self) -> &SessionId {
        &self.session
    }

    /// The greater of both hello stamps.
    #[must_use]
    pub const fn stamp(&self) -> Stamp {
        self.stamp
    }
}

/// A certificate: both its signatures hold.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Certificate {
    message: CertificateMessage,
    // of the lesser node, then of the greater
    signatures: [Signature; 2],
}

impl Certificate {
    /// Reads the bytes strictly and checks both signatures. Which nodes, root and session it
    /// should be about, the caller compares.
    ///
    /// # Errors
    /// Anything that is not a certificate, and signatures that do not hold.
    pub fn parse(bytes: &[u8]) -> Result<Self, CertificateError> {
        let mut reader = Reader::new(bytes);
        let message = CertificateMessage::read(&mut reader)?;
        let lesser = Signature::from_bytes(reader.array()?);
        let greater = Signature::from_bytes(reader.array()?);
        reader.finish()?;
        Self::check(message, [lesser, greater])
    }

    fn check(
        message: CertificateMessage,
        signatures: [Signature; 2],
    ) -> Result<Self, CertificateError> {
        let bytes = message.to_bytes();
        for (node, signature) in message.nodes().into_iter().zip(&signatures) {
            signature
                .verify(&node, &bytes)
                .map_err(|error| CertificateError::Signature { node, error })?;
        }
        Ok(Self { message, signatures })
    }

    /// The bytes, at most [`MAX_CERTIFICATE_BYTES`]: what is kept, sent, and appended to the
    /// certificate log.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.message.to_bytes();
        for signature in &self.signatures {
            bytes.put_bytes(&signature.to_bytes());
        }
        bytes
    }

    /// What both nodes signed.
    #[must_use]
    pub const fn message(&self) -> &CertificateMessage {
        &self.message
    }

    /// The signatures of the lesser and the greater node.
    #[must_use]
    pub const fn signatures(&self) -> &[Signature; 2] {
        &self.signatures
    }

    /// Checks that the agreement was about this envelope.
    ///
    /// # Errors
    /// It is of another collection or has another root.
    pub fn check_envelope(&self, envelope: &Envelope) -> Result<(), CertificateError> {
        let CertificateMessage { collection, root, .. } = &self.message;
        if envelope.name() != collection || !same(&envelope.root().0, &root.0) {
            let (collection, root) = (collection.clone(), *root);
            return Err(CertificateError::OtherEnvelope { collection, root });
        }
        Ok(())
    }
}
