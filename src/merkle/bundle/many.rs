//! What a collection holds under many keys, in one proof.

use super::{
    Answer, BundleError, MAX_PROVED_KEYS, ProofFileKind, check_length, put_entry, put_envelope,
    read_entry, read_envelope, start,
};
use crate::codec::{Reader, Writing};
use crate::entry::Record;
use crate::hash::{KeyHash, Root};
use crate::merkle::digest::same;
use crate::merkle::{Claim, Envelope, MultiProof};
use crate::types::Key;

/// Keys, their records and one proof of all: well-formed, which says nothing yet of what it
/// proves. Keys are strictly ascending by key hash.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ManyBundle {
    envelope: Envelope,
    entries: Vec<(Key, Option<Record>)>,
    proof: MultiProof,
}

impl ManyBundle {
    /// From its parts; puts the keys in order. Whether all belongs together is for the verifier to
    /// say.
    ///
    /// # Errors
    /// No keys, one twice, more than [`MAX_PROVED_KEYS`], or more bytes than
    /// [`MAX_PROOF_FILE_BYTES`](super::MAX_PROOF_FILE_BYTES).
    pub fn new(
        envelope: Envelope,
        mut entries: Vec<(Key, Option<Record>)>,
        proof: MultiProof,
    ) -> Result<Self, BundleError> {
        let algorithm = envelope.algorithm();
        entries.sort_by_cached_key(|(key, _)| algorithm.key_hash(key));
        let bundle = Self { envelope, entries, proof };
        bundle.check()?;
        check_length(bundle.to_bytes().len())?;
        Ok(bundle)
    }

    fn check(&self) -> Result<(), BundleError> {
        if self.entries.len() > MAX_PROVED_KEYS {
            return Err(BundleError::TooMany { found: self.entries.len(), most: MAX_PROVED_KEYS });
        }
        let hashes = self.hashes();
        if hashes.is_empty() || hashes.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(BundleError::Order);
        }
        Ok(())
    }

    fn hashes(&self) -> Vec<KeyHash> {
        let algorithm = self.envelope.algorithm();
        self.entries.iter().map(|(key, _)| algorithm.key_hash(key)).collect()
    }

    /// What the bundle proves of each of its keys in the collection with this root.
    ///
    /// # Errors
    /// Nothing at all; the error says why.
    pub fn verify(&self, root: &Root) -> Result<Vec<(Key, Answer)>, BundleError> {
        let hashed = self.envelope.root();
        if !same(&hashed.0, &root.0) {
            return Err(BundleError::Root(hashed));
        }
        let algorithm = self.envelope.algorithm();
        let claims = self.hashes().into_iter().zip(&self.entries).map(|(key, (_, record))| Claim {
            key,
            record: record.as_ref().map(|record| record.digest(algorithm)),
        });
        let claims: Vec<Claim> = claims.collect();
        self.proof.verify(algorithm, &self.envelope.tree_hash(), &claims)?;
        let answers = self.entries.iter().map(|(key, record)| {
            (key.clone(), record.clone().map_or(Answer::Absent, Answer::Present))
        });
        Ok(answers.collect())
    }

    /// Reads the bytes strictly: what verifies encodes to the same bytes.
    ///
    /// # Errors
    /// Bytes that are no such bundle, whatever it should prove.
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        check_length(bytes.len())?;
        let mut reader = Reader::new(bytes);
        start(&mut reader, ProofFileKind::Many)?;
        let envelope = read_envelope(&mut reader)?;
        let count = reader.u32()? as usize;
        if count > MAX_PROVED_KEYS {
            return Err(BundleError::TooMany { found: count, most: MAX_PROVED_KEYS });
        }
        let entries =
            (0..count).map(|_| read_entry(&mut reader)).collect::<Result<_, BundleError>>()?;
        let proof = MultiProof::parse(reader.bytes(reader.remaining())?)?;
        let bundle = Self { envelope, entries, proof };
        bundle.check()?;
        Ok(bundle)
    }

    /// The bytes of the bundle, at most [`MAX_PROOF_FILE_BYTES`](super::MAX_PROOF_FILE_BYTES).
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![ProofFileKind::Many.id()];
        put_envelope(&mut bytes, &self.envelope);
        bytes.put_u32(self.entries.len() as u32);
        for (key, record) in &self.entries {
            put_entry(&mut bytes, key, record.as_ref());
        }
        bytes.put_bytes(&self.proof.to_bytes());
        bytes
    }

    /// The envelope that it brings.
    #[must_use]
    pub const fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// Its keys, each with the record that it should have.
    #[must_use]
    pub fn entries(&self) -> &[(Key, Option<Record>)] {
        &self.entries
    }
}
