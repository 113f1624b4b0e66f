//! One commit of a node: what it changed, from which root to which, and where it stands in the
//! node's change log.

use super::{
    BundleError, MAX_PROVED_KEYS, ProofFileKind, check_length, put_envelope, read_envelope, start,
};
use crate::codec::{Reader, Writing};
use crate::entry::Record;
use crate::hash::{HASH_LEN, KeyHash, RecordDigest, Root};
use crate::merkle::digest::same;
use crate::merkle::log::{
    ChangeItem, CommitEnd, HeadStatement, LogKind, LogProofError, RangeProof,
};
use crate::merkle::{Claim, Envelope, LogHeadError, MultiProof, MultiProofError, Shape};
use crate::types::NodeId;

const HELD_BEFORE: u8 = 1;
const HELD_AFTER: u8 = 2;

/// Bytes that are no proof of a commit, or one that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeBundleError {
    /// No such bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A change with unknown flags.
    #[error("proof of a change: flags {0:#04x} are unknown, a newer selfsame may have written it")]
    Flags(u8),
    /// A record that is not the one of its digest.
    #[error("proof of a change: a record does not have the digest that its key was given")]
    Record,
    /// The envelopes differ in more than a commit can change.
    #[error("proof of a change: the two roots are of collections with other settings")]
    OtherCollection,
    /// No signed head.
    #[error("proof of a change: {0}")]
    Head(#[from] LogHeadError),
    /// Another node signed.
    #[error("it is from the log of node {0}, not of the one asked for")]
    OtherNode(NodeId),
    /// The log is no change log of the collection.
    #[error("proof of a change: the signed log is not the change log of this collection")]
    OtherLog,
    /// It does not stand in the log.
    #[error("proof of a change: {0}")]
    Log(#[from] LogProofError),
    /// The part of the tree does not hold.
    #[error("proof of a change: {0}")]
    Before(MultiProofError),
    /// These changes lead elsewhere.
    #[error(
        "proof of a change: these changes of the tree before do not give the tree after: \
         something else was changed"
    )]
    After,
    /// The totals do not follow.
    #[error("proof of a change: {found} entries after it, where these changes leave {expected}")]
    Entries {
        /// In the envelope of after.
        found: u64,
        /// What follows from that of before.
        expected: u64,
    },
    /// It begins at another root than asked for.
    #[error("it begins at root {0}, not at the one asked for")]
    OtherBefore(Root),
    /// It leads to another root than asked for.
    #[error("it leads to root {0}, not to the one asked for")]
    OtherAfter(Root),
}

/// What a commit did to one key.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ProvedChange {
    /// Hash of the key.
    pub key: KeyHash,
    /// Digest of its record before; none if nothing was held.
    pub before: Option<RecordDigest>,
    /// Digest of its record afterwards; none if nothing is held any more.
    pub after: Option<RecordDigest>,
    /// The record of afterwards, if it was still known.
    pub record: Option<Record>,
}

/// One commit of a node: well-formed, which says nothing yet of what it proves.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ChangeBundle {
    envelopes: [Envelope; 2],
    changes: Vec<ProvedChange>,
    // of all its keys, in the tree before
    proof: MultiProof,
    head: HeadStatement,
    place: RangeProof,
}

impl ChangeBundle {
    /// From its parts: envelopes before and after, the changes in the order of the log, a proof of
    /// their keys in the tree before, and their place in the log. Whether all belongs together is
    /// for the verifier to say.
    ///
    /// # Errors
    /// There are more than [`MAX_PROVED_KEYS`] changes, or more bytes than
    /// [`MAX_PROOF_FILE_BYTES`](super::MAX_PROOF_FILE_BYTES).
    pub fn new(
        envelopes: [Envelope; 2],
        changes: Vec<ProvedChange>,
        proof: MultiProof,
        head: HeadStatement,
        place: RangeProof,
    ) -> Result<Self, ChangeBundleError> {
        if changes.len() > MAX_PROVED_KEYS {
            let found = changes.len();
            return Err(BundleError::TooMany { found, most: MAX_PROVED_KEYS }.into());
        }
        let bundle = Self { envelopes, changes, proof, head, place };
        check_length(bundle.to_bytes().len())?;
        Ok(bundle)
    }

    /// Checks what it says, in this order:
    ///
    /// 1. both envelopes are of one collection, and each record has its digest;
    /// 2. the node signed a head of its change log of that collection, in which just these changes
    ///    stand one after the other, the last of them as the end of a commit from the one root to
    ///    the other;
    /// 3. in the tree of the root before, each key had what is said;
    /// 4. these changes of it, and no other, give the tree of the root after.
    ///
    /// The second is the node's word, which it cannot take back. The third and fourth hold
    /// whoever made the file, if the root before is one that the caller has reason to trust.
    ///
    /// # Errors
    /// Something does not hold; the error says what.
    pub fn verify(&self, node: &NodeId) -> Result<(), ChangeBundleError> {
        let [before, after] = &self.envelopes;
        if before.spec() != after.spec() {
            return Err(ChangeBundleError::OtherCollection);
        }
        let algorithm = before.algorithm();
        let fits = |change: &ProvedChange| {
            let Some(record) = &change.record else { return true };
            change.after == Some(record.digest(algorithm))
        };
        if !self.changes.iter().all(fits) {
            return Err(ChangeBundleError::Record);
        }
        self.check_place(node)?;
        self.check_transition()
    }

    fn check_place(&self, node: &NodeId) -> Result<(), ChangeBundleError> {
        if self.head.node() != *node {
            return Err(ChangeBundleError::OtherNode(self.head.node()));
        }
        let (fields, log) = (self.head.fields(), self.head.fields().log());
        let [before, _] = &self.envelopes;
        let is_its_log = log.kind == LogKind::Changes
            && log.name == *before.name()
            && log.algorithm == before.algorithm();
        if !is_its_log {
            return Err(ChangeBundleError::OtherLog);
        }
        let leaves: Vec<_> =
            self.items().map(|item| log.algorithm.log_leaf(&item.to_bytes())).collect();
        Ok(self.place.verify(log.algorithm, fields.size(), fields.root(), &leaves)?)
    }

    /// The items as the log must have them.
    fn items(&self) -> impl Iterator<Item = ChangeItem> {
        let roots = self.roots();
        let changes = self.changes.len() as u32;
        self.changes.iter().zip(1..).map(move |(change, number)| ChangeItem {
            key: change.key,
            record: change.after,
            end: (number == changes).then_some(CommitEnd { changes, roots }),
        })
    }

    fn check_transition(&self) -> Result<(), ChangeBundleError> {
        let [before, after] = &self.envelopes;
        let algorithm = before.algorithm();
        let mut claims: Vec<Claim> = self
            .changes
            .iter()
            .map(|change| Claim { key: change.key, record: change.before })
            .collect();
        claims.sort_unstable();
        let mut tree = self.proof.partial(algorithm, &claims).map_err(ChangeBundleError::Before)?;
        if !same(&tree.tree_hash().0, &before.tree_hash().0) {
            return Err(ChangeBundleError::Before(MultiProofError::TreeHashMismatch));
        }
        let changes = self.changes.iter().map(|change| (change.key, change.after));
        tree.apply(&changes.collect()).map_err(|_| ChangeBundleError::After)?;
        if !same(&tree.tree_hash().0, &after.tree_hash().0) {
            return Err(ChangeBundleError::After);
        }
        let count = |is_one: fn(&ProvedChange) -> bool| {
            self.changes.iter().filter(|change| is_one(change)).count() as u64
        };
        let added = count(|change| change.before.is_none() && change.after.is_some());
        let gone = count(|change| change.before.is_some() && change.after.is_none());
        let entries = before.totals().entries.saturating_add(added).saturating_sub(gone);
        match after.totals().entries {
            found if found == entries => Ok(()),
            found => Err(ChangeBundleError::Entries { found, expected: entries }),
        }
    }

    /// Checks that it begins at this root.
    ///
    /// # Errors
    /// It begins at another.
    pub fn check_before(&self, root: &Root) -> Result<(), ChangeBundleError> {
        match self.roots() {
            [found, _] if same(&found.0, &root.0) => Ok(()),
            [found, _] => Err(ChangeBundleError::OtherBefore(found)),
        }
    }

    /// Checks that it leads to this root.
    ///
    /// # Errors
    /// It leads to another.
    pub fn check_after(&self, root: &Root) -> Result<(), ChangeBundleError> {
        match self.roots() {
            [_, found] if same(&found.0, &root.0) => Ok(()),
            [_, found] => Err(ChangeBundleError::OtherAfter(found)),
        }
    }

    /// Reads the bytes strictly, and checks the signature of the head: what verifies encodes to
    /// the same bytes.
    ///
    /// # Errors
    /// Bytes that are no such bundle, whatever it should prove.
    pub fn parse(bytes: &[u8]) -> Result<Self, ChangeBundleError> {
        check_length(bytes.len())?;
        let mut reader = Reader::new(bytes);
        start(&mut reader, ProofFileKind::Change)?;
        let envelopes = [read_envelope(&mut reader)?, read_envelope(&mut reader)?];
        let count = reader.u32().map_err(BundleError::from)? as usize;
        if count > MAX_PROVED_KEYS {
            return Err(BundleError::TooMany { found: count, most: MAX_PROVED_KEYS }.into());
        }
        let changes = (0..count)
            .map(|_| read_change(&mut reader))
            .collect::<Result<_, ChangeBundleError>>()?;
        let mut parts = || -> Result<_, BundleError> {
            let length = reader.u32()? as usize;
            let proof = MultiProof::parse(reader.bytes(length)?)?;
            let length = reader.u16()?;
            let head = reader.bytes(length.into())?;
            Ok((proof, head, reader.bytes(reader.remaining())?))
        };
        let (proof, head, place) = parts()?;
        let (head, place) = (HeadStatement::parse(head)?, RangeProof::parse(place)?);
        Ok(Self { envelopes, changes, proof, head, place })
    }

    /// The bytes of the bundle, at most [`MAX_PROOF_FILE_BYTES`](super::MAX_PROOF_FILE_BYTES).
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![ProofFileKind::Change.id()];
        self.envelopes.iter().for_each(|envelope| put_envelope(&mut bytes, envelope));
        bytes.put_u32(self.changes.len() as u32);
        for change in &self.changes {
            put_change(&mut bytes, change);
        }
        let proof = self.proof.to_bytes();
        bytes.put_u32(proof.len() as u32);
        bytes.put_bytes(&proof);
        let head = self.head.to_bytes();
        bytes.put_u16(head.len() as u16);
        bytes.put_bytes(&head);
        bytes.put_bytes(&self.place.to_bytes());
        bytes
    }

    /// The collection's roots, before and after.
    #[must_use]
    pub fn roots(&self) -> [Root; 2] {
        self.envelopes.each_ref().map(Envelope::root)
    }

    /// The collection's envelopes, before and after.
    #[must_use]
    pub const fn envelopes(&self) -> &[Envelope; 2] {
        &self.envelopes
    }

    /// What the commit changed, in the order of the log.
    #[must_use]
    pub fn changes(&self) -> &[ProvedChange] {
        &self.changes
    }

    /// The signed head of the log.
    #[must_use]
    pub const fn head(&self) -> &HeadStatement {
        &self.head
    }

    /// The commit's place in the log.
    #[must_use]
    pub const fn place(&self) -> &RangeProof {
        &self.place
    }
}

fn put_change(bytes: &mut Vec<u8>, change: &ProvedChange) {
    bytes.put_bytes(&change.key.0);
    let before = if change.before.is_some() { HELD_BEFORE } else { 0 };
    let after = if change.after.is_some() { HELD_AFTER } else { 0 };
    bytes.put_u8(before | after);
    for digest in [&change.before, &change.after].into_iter().flatten() {
        bytes.put_bytes(&digest.0);
    }
    let record = change.record.as_ref().map(Record::to_bytes).unwrap_or_default();
    bytes.put_u32(record.len() as u32);
    bytes.put_bytes(&record);
}

fn read_change(reader: &mut Reader<'_>) -> Result<ProvedChange, ChangeBundleError> {
    let mut read = || -> Result<_, BundleError> { Ok((reader.array::<HASH_LEN>()?, reader.u8()?)) };
    let (key, flags) = read()?;
    if flags > HELD_BEFORE | HELD_AFTER {
        return Err(ChangeBundleError::Flags(flags));
    }
    let mut digest = |flag| -> Result<_, BundleError> {
        let is_there = flags & flag != 0;
        Ok(is_there.then(|| reader.array()).transpose()?.map(RecordDigest))
    };
    let (before, after) = (digest(HELD_BEFORE)?, digest(HELD_AFTER)?);
    let record = super::read_record(reader)?;
    Ok(ProvedChange { key: KeyHash(key), before, after, record })
}
