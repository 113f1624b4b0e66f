//! A proof with all that it travels with: who holds a root and a key needs nothing else.
//!
//! ```
//! use selfsame::entry::Totals;
//! use selfsame::hash::HashAlgorithm;
//! use selfsame::merkle::{Answer, Bundle, Envelope, Proof};
//! use selfsame::types::{CollectionName, CollectionSpec, Key, Policy};
//!
//! let algorithm = HashAlgorithm::Blake3;
//! let spec = CollectionSpec { name: CollectionName::new("players")?, algorithm, policy: Policy::Lww };
//! let nothing = Envelope::new(spec, algorithm.empty(), Totals::default())?;
//! let root = nothing.root();
//!
//! let bundle = Bundle::new(nothing, None, Proof::parse(&[2, 0, 0, 0])?);
//! let received = Bundle::parse(&bundle.to_bytes())?;
//! assert_eq!(received.verify(&root, &Key::new("player:17")?)?, Answer::Absent);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use super::digest::same;
use super::proof::MAX_PROOF_BYTES;
use super::{Claim, Envelope, EnvelopeError, MAX_ENVELOPE_BYTES, Proof, ProofError, Sealed, Shape};
use crate::codec::{CodecError, Reader, Writing};
use crate::entry::{Record, RecordError, SIBLING_BYTES};
use crate::hash::Root;
use crate::types::Key;

const BUNDLE_VERSION: u8 = 1;

/// Longest bundle in bytes: a record of 65,535 siblings with the longest envelope and proof.
pub const MAX_BUNDLE_BYTES: usize =
    7 + MAX_ENVELOPE_BYTES + 3 + u16::MAX as usize * SIBLING_BYTES + MAX_PROOF_BYTES;

/// A bundle that is none, or does not prove anything about this root and key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// Cut short or left over.
    #[error("bundle: {0}")]
    Codec(#[from] CodecError),
    /// Not version 1.
    #[error("bundle: version {0} is unknown, a newer selfsame may have written it")]
    Version(u8),
    /// No envelope.
    #[error("bundle: {0}")]
    Envelope(#[from] EnvelopeError),
    /// No record.
    #[error("bundle: {0}")]
    Record(#[from] RecordError),
    /// No proof, or one that does not hold.
    #[error("bundle: {0}")]
    Proof(#[from] ProofError),
    /// Its envelope has another root.
    #[error("bundle: it belongs to root {0}, not to this one: ask for a fresh bundle or root")]
    Root(Root),
}

/// What a bundle proves of a key.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Answer {
    /// The key is there, with these siblings.
    Present(Record),
    /// The key is not there.
    Absent,
}

/// Envelope, record and proof of one key: well-formed, which says nothing yet of what it proves.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Bundle {
    envelope: Envelope,
    record: Option<Record>,
    proof: Proof,
}

impl Bundle {
    /// From its parts; whether they belong together is for the verifier to say.
    #[must_use]
    pub const fn new(envelope: Envelope, record: Option<Record>, proof: Proof) -> Self {
        Self { envelope, record, proof }
    }

    /// Proves what a tree says of a key. `envelope` is the tree's, `record` what is held under
    /// the key, if anything.
    ///
    /// # Errors
    /// A page on the way is not in memory.
    pub fn prove<S: Shape>(
        shape: &S,
        envelope: Envelope,
        key: &Key,
        record: Option<Record>,
    ) -> Result<Self, Sealed> {
        let proof = Proof::prove(shape, &envelope.algorithm().key_hash(key))?;
        Ok(Self { envelope, record, proof })
    }

    /// What the bundle proves of the key in the collection with this root.
    ///
    /// # Errors
    /// Nothing at all; the error says why.
    pub fn verify(&self, root: &Root, key: &Key) -> Result<Answer, BundleError> {
        let hashed = self.envelope.root();
        if !same(&hashed.0, &root.0) {
            return Err(BundleError::Root(hashed));
        }
        let algorithm = self.envelope.algorithm();
        let claim = Claim {
            key: algorithm.key_hash(key),
            record: self.record.as_ref().map(|record| record.digest(algorithm)),
        };
        self.proof.verify(algorithm, &self.envelope.tree_hash(), &claim)?;
        Ok(self.record.clone().map_or(Answer::Absent, Answer::Present))
    }

    /// Reads the bytes strictly: what is accepted encodes to the same bytes.
    ///
    /// # Errors
    /// Bytes that are no bundle, whatever it should prove.
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            BUNDLE_VERSION => {}
            version => return Err(BundleError::Version(version)),
        }
        let len = usize::from(reader.u16()?);
        let envelope = Envelope::parse(reader.bytes(len)?)?;
        let len = reader.u32()? as usize;
        let record = match reader.bytes(len)? {
            [] => None,
            record => Some(Record::parse(record)?),
        };
        let proof = Proof::parse(reader.bytes(reader.remaining())?)?;
        Ok(Self { envelope, record, proof })
    }

    /// The bytes of the bundle, at most [`MAX_BUNDLE_BYTES`].
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let envelope = self.envelope.to_bytes();
        let record = self.record.as_ref().map(Record::to_bytes).unwrap_or_default();
        let proof = self.proof.to_bytes();
        let mut bytes = Vec::with_capacity(7 + envelope.len() + record.len() + proof.len());
        bytes.put_u8(BUNDLE_VERSION);
        bytes.put_u16(envelope.len() as u16);
        bytes.put_bytes(&envelope);
        bytes.put_u32(record.len() as u32);
        bytes.put_bytes(&record);
        bytes.put_bytes(&proof);
        bytes
    }

    /// The envelope that it brings.
    #[must_use]
    pub const fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The record that it brings, if it should prove presence.
    #[must_use]
    pub const fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// The proof that it brings.
    #[must_use]
    pub const fn proof(&self) -> &Proof {
        &self.proof
    }
}
