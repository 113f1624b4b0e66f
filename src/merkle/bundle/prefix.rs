//! All entries of a collection under a prefix of key hashes, in one proof.

use super::{
    BundleError, ProofFileKind, check_length, put_entry, put_envelope, read_entry, read_envelope,
    start,
};
use crate::codec::{Reader, Writing};
use crate::entry::Record;
use crate::hash::{KeyHash, RecordDigest, Root};
use crate::merkle::digest::same;
use crate::merkle::subtree::check_entries;
use crate::merkle::{Envelope, Prefix, SubtreeProof};
use crate::types::Key;

/// All entries under a prefix of key hashes: well-formed, which says nothing yet of what it
/// proves. Entries are strictly ascending by key hash, each under the prefix.
///
/// Keys are hashed before they are put in the tree, so this is no prefix of keys: that a
/// collection holds no other key that begins with some text is shown by *all* of its entries, the
/// prefix of 0 bits ([`Prefix::ALL`]), or the bundles of prefixes that together are all.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PrefixBundle {
    envelope: Envelope,
    prefix: Prefix,
    entries: Vec<(Key, Record)>,
    proof: SubtreeProof,
}

impl PrefixBundle {
    /// From its parts; puts the entries in order. Whether all belongs together is for the
    /// verifier to say.
    ///
    /// # Errors
    /// An entry is there twice or not under the prefix, or there are more bytes than
    /// [`MAX_PROOF_FILE_BYTES`](super::MAX_PROOF_FILE_BYTES).
    pub fn new(
        envelope: Envelope,
        prefix: Prefix,
        mut entries: Vec<(Key, Record)>,
        proof: SubtreeProof,
    ) -> Result<Self, BundleError> {
        let algorithm = envelope.algorithm();
        entries.sort_by_cached_key(|(key, _)| algorithm.key_hash(key));
        let bundle = Self { envelope, prefix, entries, proof };
        check_entries(&bundle.prefix, &bundle.leaves())?;
        check_length(bundle.to_bytes().len())?;
        Ok(bundle)
    }

    fn leaves(&self) -> Vec<(KeyHash, RecordDigest)> {
        let algorithm = self.envelope.algorithm();
        let leaf =
            |(key, record): &(Key, Record)| (algorithm.key_hash(key), record.digest(algorithm));
        self.entries.iter().map(leaf).collect()
    }

    /// All entries under the prefix in the collection with this root.
    ///
    /// # Errors
    /// Nothing is proved; the error says why.
    pub fn verify(&self, root: &Root) -> Result<&[(Key, Record)], BundleError> {
        let hashed = self.envelope.root();
        if !same(&hashed.0, &root.0) {
            return Err(BundleError::Root(hashed));
        }
        let (algorithm, tree_hash) = (self.envelope.algorithm(), self.envelope.tree_hash());
        self.proof.verify(algorithm, &tree_hash, &self.prefix, &self.leaves())?;
        Ok(&self.entries)
    }

    /// Reads the bytes strictly: what is accepted encodes to the same bytes.
    ///
    /// # Errors
    /// Bytes that are no such bundle, whatever it should prove.
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        check_length(bytes.len())?;
        let mut reader = Reader::new(bytes);
        start(&mut reader, ProofFileKind::Prefix)?;
        let envelope = read_envelope(&mut reader)?;
        let bits = reader.u16()?;
        let prefix = Prefix::new(reader.bytes(usize::from(bits.min(256)).div_ceil(8))?, bits)?;
        let mut entries = Vec::new();
        for _ in 0..reader.u32()? {
            // each takes bytes: no count makes this longer than the file
            let (key, record) = read_entry(&mut reader)?;
            entries.push((key, record.ok_or(BundleError::NoRecord)?));
        }
        let proof = SubtreeProof::parse(reader.bytes(reader.remaining())?)?;
        let bundle = Self { envelope, prefix, entries, proof };
        check_entries(&bundle.prefix, &bundle.leaves())?;
        Ok(bundle)
    }

    /// The bytes of the bundle, at most [`MAX_PROOF_FILE_BYTES`](super::MAX_PROOF_FILE_BYTES).
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![ProofFileKind::Prefix.id()];
        put_envelope(&mut bytes, &self.envelope);
        bytes.put_u16(self.prefix.len());
        bytes.put_bytes(self.prefix.as_bytes());
        bytes.put_u32(self.entries.len() as u32);
        for (key, record) in &self.entries {
            put_entry(&mut bytes, key, Some(record));
        }
        bytes.put_bytes(&self.proof.to_bytes());
        bytes
    }

    /// The envelope that it brings.
    #[must_use]
    pub const fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The prefix whose entries it brings.
    #[must_use]
    pub const fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// The entries that it brings.
    #[must_use]
    pub fn entries(&self) -> &[(Key, Record)] {
        &self.entries
    }
}
