//! A proof with all that it travels with: who holds a root and a key needs nothing else.
//!
//! The first byte says what a file of proof is about ([`ProofFile`]): one key ([`Bundle`]), many
//! keys ([`ManyBundle`]), all entries under a prefix of key hashes ([`PrefixBundle`]), or what one
//! commit changed ([`ChangeBundle`]).
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

mod change;
mod many;
mod prefix;

pub use change::{ChangeBundle, ChangeBundleError, ProvedChange};
pub use many::ManyBundle;
pub use prefix::PrefixBundle;

use super::digest::same;
use super::proof::MAX_PROOF_BYTES;
use super::{
    Claim, Envelope, EnvelopeError, MAX_ENVELOPE_BYTES, MultiProofError, PrefixError, Proof,
    ProofError, Sealed, Shape, SubtreeError,
};
use crate::codec::{CodecError, Reader, Writing};
use crate::entry::{Record, RecordError, SIBLING_BYTES};
use crate::hash::Root;
use crate::types::{Key, TypeError};

const BUNDLE_VERSION: u8 = 1;

/// Most keys of one bundle, or changes of one commit that is proved.
pub const MAX_PROVED_KEYS: usize = 65_536;
/// Longest file of proof in bytes, of whichever kind.
pub const MAX_PROOF_FILE_BYTES: usize = 32 << 20;

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
    /// No multiproof, or one that does not hold.
    #[error("bundle: {0}")]
    MultiProof(#[from] MultiProofError),
    /// No subtree proof, or one that does not hold.
    #[error("bundle: {0}")]
    Subtree(#[from] SubtreeError),
    /// No prefix.
    #[error("bundle: {0}")]
    Prefix(#[from] PrefixError),
    /// No key.
    #[error("bundle: {0}")]
    Key(#[from] TypeError),
    /// Another kind of bundle than the one asked for.
    #[error("bundle: it is of kind {found}, not of kind {expected}")]
    OtherKind {
        /// Its kind.
        found: u8,
        /// The one asked for.
        expected: u8,
    },
    /// More than one file holds.
    #[error("bundle: {found} keys are more than the {most} of one proof: prove them in several")]
    TooMany {
        /// Number of keys.
        found: usize,
        /// Most of them.
        most: usize,
    },
    /// More than one file holds.
    #[error(
        "bundle: {0} bytes are more than one proof may have, 32 MiB: prove fewer keys at once, or \
         a longer prefix"
    )]
    TooLong(usize),
    /// No keys, or not strictly ascending ones.
    #[error("bundle: its keys are not at least one, each once, ascending by key hash")]
    Order,
    /// An entry without a record among those that are there.
    #[error("bundle: an entry has no record")]
    NoRecord,
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
        let envelope = read_envelope(&mut reader)?;
        let record = read_record(&mut reader)?;
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

/// What a file of proof is about: its first byte.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ProofFileKind {
    /// One key. Kind 1.
    One,
    /// Many keys. Kind 2.
    Many,
    /// All entries under a prefix of key hashes. Kind 3.
    Prefix,
    /// What one commit changed. Kind 4.
    Change,
}

impl ProofFileKind {
    /// The first byte.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Self::One => BUNDLE_VERSION,
            Self::Many => 2,
            Self::Prefix => 3,
            Self::Change => 4,
        }
    }
}

/// A file of proof, of any kind.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one of it")]
pub enum ProofFile {
    /// Of one key, which is not in it.
    One(Bundle),
    /// Of many keys.
    Many(ManyBundle),
    /// Of all entries under a prefix of key hashes.
    Prefix(PrefixBundle),
    /// Of what one commit changed.
    Change(ChangeBundle),
}

impl ProofFile {
    /// Reads a file of whichever kind strictly.
    ///
    /// # Errors
    /// Bytes that are none of them, whatever it should prove.
    pub fn parse(bytes: &[u8]) -> Result<Self, ChangeBundleError> {
        check_length(bytes.len())?;
        let file = match bytes.first() {
            Some(2) => Self::Many(ManyBundle::parse(bytes)?),
            Some(3) => Self::Prefix(PrefixBundle::parse(bytes)?),
            Some(4) => Self::Change(ChangeBundle::parse(bytes)?),
            _ => Self::One(Bundle::parse(bytes)?),
        };
        Ok(file)
    }
}

fn check_length(bytes: usize) -> Result<(), BundleError> {
    if bytes > MAX_PROOF_FILE_BYTES { Err(BundleError::TooLong(bytes)) } else { Ok(()) }
}

fn start(reader: &mut Reader<'_>, kind: ProofFileKind) -> Result<(), BundleError> {
    match (reader.u8()?, kind.id()) {
        (found, expected) if found == expected => Ok(()),
        (found @ 1..=4, expected) => Err(BundleError::OtherKind { found, expected }),
        (found, _) => Err(BundleError::Version(found)),
    }
}

fn put_envelope(bytes: &mut Vec<u8>, envelope: &Envelope) {
    let envelope = envelope.to_bytes();
    bytes.put_u16(envelope.len() as u16);
    bytes.put_bytes(&envelope);
}

fn read_envelope(reader: &mut Reader<'_>) -> Result<Envelope, BundleError> {
    let len = usize::from(reader.u16()?);
    Ok(Envelope::parse(reader.bytes(len)?)?)
}

fn put_entry(bytes: &mut Vec<u8>, key: &Key, record: Option<&Record>) {
    bytes.put_u16(key.as_bytes().len() as u16);
    bytes.put_bytes(key.as_bytes());
    let record = record.map(Record::to_bytes).unwrap_or_default();
    bytes.put_u32(record.len() as u32);
    bytes.put_bytes(&record);
}

fn read_entry(reader: &mut Reader<'_>) -> Result<(Key, Option<Record>), BundleError> {
    let len = usize::from(reader.u16()?);
    let key = Key::new(reader.bytes(len)?)?;
    Ok((key, read_record(reader)?))
}

fn read_record(reader: &mut Reader<'_>) -> Result<Option<Record>, BundleError> {
    let len = reader.u32()? as usize;
    match reader.bytes(len)? {
        [] => Ok(None),
        record => Ok(Some(Record::parse(record)?)),
    }
}
