//! A certificate with all that may travel with it: what its root stands for, and that one of its
//! nodes has it in its log.
//!
//! Verified offline, from the ids of the two nodes alone. The envelope says what the root is
//! about; the place in a node's signed log binds the node to never deny the certificate without
//! contradicting itself.
//!
//! ```
//! use selfsame::clock::Stamp;
//! use selfsame::hash::{ContextHash, Root, session_id};
//! use selfsame::merkle::certificate::CertificateBundle;
//! use selfsame::merkle::{CertificateMessage, NodeKey};
//! use selfsame::types::CollectionName;
//!
//! let keys = [NodeKey::from_seed(&[1; 32]), NodeKey::from_seed(&[2; 32])];
//! let nodes = keys.clone().map(|key| key.node_id());
//! let message = CertificateMessage::new(
//!     CollectionName::new("players")?,
//!     Root([3; 32]),
//!     ContextHash([4; 32]),
//!     nodes,
//!     session_id(&[5; 32], &[6; 32]),
//!     Stamp::new(1_000, 0),
//! )?;
//! let signed = keys.map(|key| (key.node_id(), message.sign(&key)));
//! let bundle = CertificateBundle::new(message.certify(signed)?);
//!
//! let read = CertificateBundle::parse(&bundle.to_bytes())?;
//! read.check_nodes(&nodes)?;
//! read.check_root(&Root([3; 32]))?;
//! assert!(read.check_root(&Root([9; 32])).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use super::{Certificate, CertificateError, MAX_CERTIFICATE_BYTES, TAG};
use crate::codec::{CodecError, Reader, Writing};
use crate::hash::Root;
use crate::merkle::digest::same;
use crate::merkle::log::statement::{HeadStatement, MAX_STATEMENT_BYTES};
use crate::merkle::log::{InclusionProof, LogHeadError, LogKind, LogProofError};
use crate::merkle::{Envelope, EnvelopeError, MAX_ENVELOPE_BYTES};
use crate::types::NodeId;

const BUNDLE_VERSION: u8 = 1;
// kind, index, size, number, as many hashes as a byte counts
const MAX_INCLUSION_BYTES: usize = 1 + 8 + 8 + 1 + 255 * 32;

/// Longest bundle in bytes.
pub const MAX_CERTIFICATE_BUNDLE_BYTES: usize = 1
    + 2
    + MAX_CERTIFICATE_BYTES
    + 2
    + MAX_ENVELOPE_BYTES
    + 2
    + MAX_STATEMENT_BYTES
    + MAX_INCLUSION_BYTES;

/// Bytes that are no certificate bundle, or one that does not show what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateBundleError {
    /// Cut short or left over.
    #[error("certificate file: {0}")]
    Codec(#[from] CodecError),
    /// Longer than any.
    #[error("certificate file: {0} bytes are more than any certificate has: it is none")]
    TooLong(usize),
    /// Not version 1.
    #[error("certificate file: version {0} is unknown, a newer selfsame may have written it")]
    Version(u8),
    /// The certificate is none, or was not signed by its nodes.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The envelope is none.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The signed head of the log is none.
    #[error(transparent)]
    Head(#[from] LogHeadError),
    /// The certificate is not in the log.
    #[error(transparent)]
    Log(#[from] LogProofError),
    /// The log is of another node, kind or collection.
    #[error("certificate file: the signed log is not the certificate log of one of its two nodes")]
    OtherLog,
    /// It is about other nodes than asked for.
    #[error("it is between {lesser} and {greater}, and not between the two nodes asked for")]
    OtherNodes {
        /// The lesser of its nodes.
        lesser: NodeId,
        /// The greater of its nodes.
        greater: NodeId,
    },
    /// It is about another root than asked for.
    #[error("it is about root {0}, not the one asked for: both held other content then")]
    OtherRoot(Root),
}

impl CertificateBundleError {
    /// Whether the bytes have the form of a certificate, and it is what they say that does not
    /// hold. Else they are cut short, changed in form, or something else altogether.
    #[must_use]
    pub const fn is_well_formed(&self) -> bool {
        match self {
            Self::OtherLog | Self::OtherNodes { .. } | Self::OtherRoot(_) => true,
            Self::Certificate(error) => matches!(
                error,
                CertificateError::Signature { .. } | CertificateError::OtherEnvelope { .. }
            ),
            Self::Head(error) => matches!(error, LogHeadError::Signature(_)),
            Self::Log(error) => {
                !matches!(error, LogProofError::Codec(_) | LogProofError::UnknownKind(_))
            }
            _ => false,
        }
    }
}

/// That a certificate is in the log of one of its nodes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct LogPlace {
    head: HeadStatement,
    proof: InclusionProof,
}

impl LogPlace {
    /// The signed head of the log.
    #[must_use]
    pub const fn head(&self) -> &HeadStatement {
        &self.head
    }

    /// The place in it.
    #[must_use]
    pub const fn proof(&self) -> &InclusionProof {
        &self.proof
    }
}

/// A certificate with what travels with it: all of it holds together.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct CertificateBundle {
    certificate: Certificate,
    envelope: Option<Envelope>,
    place: Option<LogPlace>,
}

impl CertificateBundle {
    /// A certificate alone.
    #[must_use]
    pub const fn new(certificate: Certificate) -> Self {
        Self { certificate, envelope: None, place: None }
    }

    /// With what its root stands for.
    ///
    /// # Errors
    /// The envelope has another root or name.
    pub fn with_envelope(self, envelope: Envelope) -> Result<Self, CertificateBundleError> {
        self.certificate.check_envelope(&envelope)?;
        Self { envelope: Some(envelope), ..self }.checked()
    }

    /// With its place in the log of one of its nodes.
    ///
    /// # Errors
    /// It is not in that log, or the log is another node's, or of another kind.
    pub fn with_place(
        self,
        head: HeadStatement,
        proof: InclusionProof,
    ) -> Result<Self, CertificateBundleError> {
        Self { place: Some(LogPlace { head, proof }), ..self }.checked()
    }

    fn checked(self) -> Result<Self, CertificateBundleError> {
        let message = self.certificate.message();
        if let Some(envelope) = &self.envelope {
            self.certificate.check_envelope(envelope)?;
        }
        if let Some(LogPlace { head, proof }) = &self.place {
            let (fields, log) = (head.fields(), head.fields().log());
            let fits = log.kind == LogKind::Certificates
                && log.name == *message.collection()
                && message.nodes().contains(&head.node())
                && self.envelope.as_ref().is_none_or(|it| it.algorithm() == log.algorithm);
            if !fits {
                return Err(CertificateBundleError::OtherLog);
            }
            let leaf = log.algorithm.log_leaf(&self.certificate.to_bytes());
            proof.verify(log.algorithm, fields.size(), fields.root(), &leaf)?;
        }
        Ok(self)
    }

    /// Reads the bytes strictly, of a bundle or of a certificate alone, and checks all signatures
    /// and that the parts belong together. Which nodes and root it should be about, the
    /// caller asks.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(bytes: &[u8]) -> Result<Self, CertificateBundleError> {
        if bytes.len() > MAX_CERTIFICATE_BUNDLE_BYTES {
            return Err(CertificateBundleError::TooLong(bytes.len()));
        }
        // no version number will ever be the first letter of the tag
        if bytes.first() == TAG.first() {
            return Ok(Self::new(Certificate::parse(bytes)?));
        }
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            BUNDLE_VERSION => {}
            version => return Err(CertificateBundleError::Version(version)),
        }
        let length = reader.u16()?;
        let certificate = reader.bytes(length.into())?;
        let length = reader.u16()?;
        let envelope = reader.bytes(length.into())?;
        let length = reader.u16()?;
        let head = reader.bytes(length.into())?;
        let proof = reader.bytes(reader.remaining())?;
        // form before content: a file that was cut is not one that lies
        let proof = match (head, proof) {
            ([], []) => None,
            ([], left) => return Err(CodecError::Trailing(left.len()).into()),
            (_, proof) => Some(InclusionProof::parse(proof)?),
        };
        let envelope = match envelope {
            [] => None,
            bytes => Some(Envelope::parse(bytes)?),
        };
        let certificate = Certificate::parse(certificate)?;
        let place = match proof {
            None => None,
            Some(proof) => Some(LogPlace { head: HeadStatement::parse(head)?, proof }),
        };
        Self { certificate, envelope, place }.checked()
    }

    /// The bytes, at most [`MAX_CERTIFICATE_BUNDLE_BYTES`].
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let certificate = self.certificate.to_bytes();
        let envelope = self.envelope.as_ref().map(Envelope::to_bytes).unwrap_or_default();
        let head = self.place.as_ref().map(|place| place.head.to_bytes()).unwrap_or_default();
        let mut bytes = vec![BUNDLE_VERSION];
        for part in [&certificate, &envelope, &head] {
            bytes.put_u16(part.len() as u16);
            bytes.put_bytes(part);
        }
        if let Some(place) = &self.place {
            bytes.put_bytes(&place.proof.to_bytes());
        }
        bytes
    }

    /// Checks that these two nodes signed it, whatever their order.
    ///
    /// # Errors
    /// It is between others.
    pub fn check_nodes(&self, nodes: &[NodeId; 2]) -> Result<(), CertificateBundleError> {
        let mut nodes = *nodes;
        nodes.sort_unstable();
        let [lesser, greater] = self.certificate.message().nodes();
        if nodes == [lesser, greater] {
            return Ok(());
        }
        Err(CertificateBundleError::OtherNodes { lesser, greater })
    }

    /// Checks that it is about this root.
    ///
    /// # Errors
    /// It is about another.
    pub fn check_root(&self, root: &Root) -> Result<(), CertificateBundleError> {
        let signed = self.certificate.message().root();
        if same(&signed.0, &root.0) {
            return Ok(());
        }
        Err(CertificateBundleError::OtherRoot(*signed))
    }

    /// The certificate.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// What its root stands for, if that is with it.
    #[must_use]
    pub const fn envelope(&self) -> Option<&Envelope> {
        self.envelope.as_ref()
    }

    /// Its place in the log of one of its nodes, if that is with it.
    #[must_use]
    pub const fn place(&self) -> Option<&LogPlace> {
        self.place.as_ref()
    }
}
