//! The rows of a collection: their keys and values in a store's tables.
//!
//! Each key begins with the collection's id. What is read back is parsed strictly; what does not
//! parse is damage, never data.

use std::sync::Arc;

use crate::clock::Stamp;
use crate::codec::{CodecError, Reader, Writing};
use crate::dots::{Dot, DotRun, Writer};
use crate::entry::{Record, Totals};
use crate::hash::{HashAlgorithm, KeyHash, Root, TreeHash, ValueHash};
use crate::merkle::{LogKind, PageRow, Prefix};
use crate::types::{CollectionName, CollectionSpec, Key, NodeId, Policy};

use super::view::Entry;

mod log;

pub(super) use log::{Before, CommitRow, LogRow, LogSoFar};

pub(super) const ROW_VERSION: u8 = 1;
const CHECK_BYTES: usize = 8;
/// Sum over the rows of a context: rows are added and taken away one by one.
pub(super) type ContextSum = u128;

/// Number of a collection within its store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct CollectionId(pub(super) u32);

impl CollectionId {
    /// What all its keys begin with.
    pub(super) const fn prefix(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }

    fn key(self, parts: &[&[u8]]) -> Vec<u8> {
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        let mut key = Vec::with_capacity(4 + len);
        key.put_bytes(&self.prefix());
        for part in parts {
            key.put_bytes(part);
        }
        key
    }

    pub(super) fn head(self) -> Vec<u8> {
        self.key(&[&[0]])
    }

    /// Peaks of the change log stand at 1, of the certificate log at 2.
    pub(super) fn peak(self, kind: LogKind, height: u8) -> Vec<u8> {
        self.key(&[&[kind.id(), height]])
    }

    /// Where the certificate log is.
    pub(super) fn certificate_log(self) -> Vec<u8> {
        self.key(&[&[3]])
    }

    pub(super) fn certificates(self) -> Vec<u8> {
        self.key(&[&[0]])
    }

    pub(super) fn certificate(self, position: u64) -> Vec<u8> {
        self.key(&[&[0], &position.to_be_bytes()])
    }

    pub(super) fn last_certificates(self) -> Vec<u8> {
        self.key(&[&[1]])
    }

    pub(super) fn last_certificate(self, peer: &NodeId) -> Vec<u8> {
        self.key(&[&[1], &peer.0])
    }

    pub(super) fn entry(self, key: &KeyHash) -> Vec<u8> {
        self.key(&[&key.0])
    }

    pub(super) fn value(self, key: &KeyHash, hash: &ValueHash) -> Vec<u8> {
        self.key(&[&key.0, &hash.0])
    }

    pub(super) fn dot(self, dot: Dot) -> Vec<u8> {
        self.key(&[&dot.writer().get().to_be_bytes(), &dot.counter().to_be_bytes()])
    }

    pub(super) fn writer_dots(self, writer: Writer) -> Vec<u8> {
        self.key(&[&writer.get().to_be_bytes()])
    }

    /// Pages stand in the order of the tree: by first key hash, the shorter prefix first.
    pub(super) fn page(self, prefix: &Prefix) -> Vec<u8> {
        self.key(&[&prefix.first_key().0, &prefix.len().to_be_bytes()])
    }

    pub(super) fn context(self, writer: Writer) -> Vec<u8> {
        self.key(&[&[0], &writer.get().to_be_bytes()])
    }

    pub(super) fn exceptions(self, run: DotRun) -> Vec<u8> {
        self.key(&[&[1], &run.writer.get().to_be_bytes(), &run.first.to_be_bytes()])
    }

    pub(super) fn log(self, position: u64) -> Vec<u8> {
        self.key(&[&position.to_be_bytes()])
    }

    pub(super) fn join(self, peer: &NodeId) -> Vec<u8> {
        self.key(&[&peer.0])
    }

    /// Where a scrub keeps how far it is.
    pub(super) fn scrub(self) -> Vec<u8> {
        self.key(&[&[2]])
    }

    pub(super) fn report(self, number: u64) -> Vec<u8> {
        self.key(&[&number.to_be_bytes()])
    }

    /// What a peer told last of its writer: beside what it has signed.
    pub(super) fn heard(self, peer: &NodeId) -> Vec<u8> {
        self.key(&[&[3], &peer.0])
    }

    /// Numbers are small, so these rows begin with a zero byte.
    pub(super) fn evidence(self, number: u64) -> Vec<u8> {
        self.key(&[&number.to_be_bytes()])
    }

    pub(super) fn same_dots(self) -> Vec<u8> {
        self.key(&[&[0]])
    }

    pub(super) fn clones(self) -> Vec<u8> {
        self.key(&[&[1]])
    }

    pub(super) fn clone(self, number: u64) -> Vec<u8> {
        self.key(&[&[1], &number.to_be_bytes()])
    }

    pub(super) fn aside(self, number: u64) -> Vec<u8> {
        self.key(&[&[2], &number.to_be_bytes()])
    }

    pub(super) fn aside_entry(self, number: u64, dot: Dot) -> Vec<u8> {
        let (writer, counter) = (dot.writer().get().to_be_bytes(), dot.counter().to_be_bytes());
        self.key(&[&[2], &number.to_be_bytes(), &writer, &counter])
    }
}

/// What a row of the table of losses names: a value, or a whole entry.
pub(super) enum LostRow {
    Value(KeyHash, ValueHash),
    Record(KeyHash),
}

pub(super) fn lost_row(key: &[u8]) -> Result<LostRow, CodecError> {
    match key.len() {
        36 => Ok(LostRow::Record(KeyHash(key_tail(key)?))),
        _ => lost_value(key).map(|(key, hash)| LostRow::Value(key, hash)),
    }
}

/// Key and value of a row whose key names a value.
pub(super) fn lost_value(key: &[u8]) -> Result<(KeyHash, ValueHash), CodecError> {
    let (rest, hash) = key.split_last_chunk().ok_or(CodecError::Truncated)?;
    Ok((KeyHash(key_tail(rest)?), ValueHash(*hash)))
}

/// The last `N` bytes of a row's key.
pub(super) fn key_tail<const N: usize>(key: &[u8]) -> Result<[u8; N], CodecError> {
    key.last_chunk().copied().ok_or(CodecError::Truncated)
}

/// The dot at the end of a key of the dot index.
pub(super) fn dot_of_key(key: &[u8]) -> Result<Dot, CodecError> {
    let dot = u128::from_be_bytes(key_tail(key)?);
    Dot::new((dot >> 64) as u64, dot as u64).ok_or(CodecError::Invalid("a dot is zero"))
}

/// How a collection behaves, and the number it has here.
pub(super) fn write_collection(id: CollectionId, spec: &CollectionSpec) -> Vec<u8> {
    let mut row = Vec::new();
    row.put_u8(ROW_VERSION);
    row.put_u32(id.0);
    row.put_u8(spec.algorithm.id());
    row.put_u8(spec.policy.id());
    if let Policy::Custom { resolver, version } = &spec.policy {
        row.put_u32(*version);
        row.put_bytes(resolver.as_bytes());
    }
    with_check(row)
}

pub(super) fn read_collection(
    name: &[u8],
    row: &[u8],
) -> Result<(CollectionId, CollectionSpec), CodecError> {
    let mut reader = Reader::new(checked(row)?);
    let id = CollectionId(reader.u32()?);
    let algorithm =
        HashAlgorithm::from_id(reader.u8()?).ok_or(CodecError::Invalid("unknown algorithm"))?;
    let policy = match reader.u8()? {
        1 => Policy::Lww,
        2 => Policy::Siblings,
        3 => {
            let version = reader.u32()?;
            let name = reader.bytes(reader.remaining())?;
            Policy::Custom { resolver: collection_name(name)?, version }
        }
        _ => return Err(CodecError::Invalid("unknown policy")),
    };
    reader.finish()?;
    Ok((id, CollectionSpec { name: collection_name(name)?, algorithm, policy }))
}

fn collection_name(bytes: &[u8]) -> Result<CollectionName, CodecError> {
    CollectionName::from_bytes(bytes).map_err(|_| CodecError::Invalid("a name is not a name"))
}

/// What every change of a collection rewrites: root, checksum of the context, positions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Head {
    /// Most leaves of a page on disk.
    pub(super) page_leaves: u16,
    /// Whether a recovery has begun and not ended: then only entries can be used.
    pub(super) recovering: bool,
    /// Root of entries: must follow from the page rows.
    pub(super) root: Root,
    /// Sum over the context rows.
    pub(super) context_sum: ContextSum,
    /// Counts recoveries.
    pub(super) epoch: u64,
    /// Greatest stamp seen by this node's clock at the last change.
    pub(super) clock: Stamp,
    /// Position of the last change; 0: none yet.
    pub(super) position: u64,
    /// Position of the first change that is still in the log.
    pub(super) log_floor: u64,
    /// The opening's log: its id and the position of its first item; 0: none yet.
    pub(super) log_id: u64,
    pub(super) log_first: u64,
    /// Position of the first change whose replaced values may still be there.
    pub(super) history_floor: u64,
    /// Bytes of replaced values.
    pub(super) history_bytes: u64,
    /// Rows of evidence ever written.
    pub(super) evidence: u64,
}

impl Head {
    /// Of a collection of which nothing is known but its root: nothing seen, nothing logged.
    pub(super) const fn new(root: Root, page_leaves: u16) -> Self {
        Self {
            page_leaves,
            recovering: false,
            root,
            context_sum: 0,
            epoch: 0,
            clock: Stamp(0),
            position: 0,
            log_floor: 1,
            log_id: 0,
            log_first: 0,
            history_floor: 1,
            history_bytes: 0,
            evidence: 0,
        }
    }

    /// Id and size of the change log that was written last; id 0: none yet.
    pub(super) const fn log(&self) -> (u64, u64) {
        (self.log_id, self.position.saturating_sub(self.log_first).saturating_add(1))
    }

    pub(super) fn to_row(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(160);
        row.put_u8(ROW_VERSION);
        row.put_u16(self.page_leaves);
        row.put_u8(u8::from(self.recovering));
        row.put_bytes(&self.root.0);
        row.put_bytes(&self.context_sum.to_le_bytes());
        for number in [
            self.epoch,
            self.clock.0,
            self.position,
            self.log_floor,
            self.log_id,
            self.log_first,
            self.history_floor,
            self.history_bytes,
            self.evidence,
        ] {
            row.put_u64(number);
        }
        with_check(row)
    }

    pub(super) fn parse(row: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(checked(row)?);
        let head = Self {
            page_leaves: reader.u16()?,
            recovering: reader.u8()? != 0,
            root: Root(reader.array()?),
            context_sum: ContextSum::from_le_bytes(reader.array()?),
            epoch: reader.u64()?,
            clock: Stamp(reader.u64()?),
            position: reader.u64()?,
            log_floor: reader.u64()?,
            log_id: reader.u64()?,
            log_first: reader.u64()?,
            history_floor: reader.u64()?,
            history_bytes: reader.u64()?,
            evidence: reader.u64()?,
        };
        reader.finish()?;
        Ok(head)
    }
}

/// The beginning of a row that will have a checksum.
pub(super) fn start_row() -> Vec<u8> {
    vec![ROW_VERSION]
}

/// Appends a checksum: against rot, not against anyone.
pub(super) fn with_check(mut row: Vec<u8>) -> Vec<u8> {
    let hash = blake3::hash(&row);
    row.put_bytes(&hash.as_bytes()[..CHECK_BYTES]);
    row
}

/// What stands before the checksum, if that matches.
pub(super) fn before_check(row: &[u8]) -> Result<&[u8], CodecError> {
    let (body, check) = row.split_last_chunk::<CHECK_BYTES>().ok_or(CodecError::Truncated)?;
    if blake3::hash(body).as_bytes()[..CHECK_BYTES] != check[..] {
        return Err(CodecError::Invalid("the checksum does not match"));
    }
    Ok(body)
}

/// What stands between version and checksum.
pub(super) fn checked(row: &[u8]) -> Result<&[u8], CodecError> {
    match before_check(row)?.split_first() {
        Some((&ROW_VERSION, rest)) => Ok(rest),
        _ => Err(CodecError::Invalid("a row is of another version")),
    }
}

/// The row of an entry. Its checksum tells which entry of a page rotted, where the hash of the
/// page only tells that one did.
pub(super) fn write_entry(key: &Key, record: &Record) -> Vec<u8> {
    let record = record.to_bytes();
    let bytes = 2 + key.as_bytes().len() + record.len() + CHECK_BYTES;
    let mut row = Vec::with_capacity(bytes);
    row.put_u16(key.as_bytes().len() as u16);
    row.put_bytes(key.as_bytes());
    row.put_bytes(&record);
    with_check(row)
}

pub(super) fn read_entry(row: &[u8]) -> Result<Entry, CodecError> {
    parse_entry(before_check(row)?)
}

/// An entry without its checksum: all that a row of format 1 has.
pub(super) fn parse_entry(row: &[u8]) -> Result<Entry, CodecError> {
    let mut reader = Reader::new(row);
    let len = reader.u16()?;
    let key = Key::new(reader.bytes(usize::from(len))?)
        .map_err(|_| CodecError::Invalid("a key has no or too many bytes"))?;
    let record = Record::parse(reader.bytes(reader.remaining())?)
        .map_err(|_| CodecError::Invalid("record bytes do not parse"))?;
    Ok(Entry { key, record })
}

pub(super) fn write_page(row: &PageRow) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(66);
    bytes.put_bytes(&row.hash.0);
    bytes.put_u64(row.totals.entries);
    bytes.put_u64(row.totals.siblings);
    bytes.put_u64(row.totals.bytes);
    bytes.put_u64(row.totals.latest.0);
    bytes.put_u16(row.depth);
    bytes
}

pub(super) fn read_page(key: &[u8], row: &[u8]) -> Result<PageRow, CodecError> {
    let bits = u16::from_be_bytes(key_tail(key)?);
    let first: [u8; 34] = key_tail(key)?;
    let bytes = &first[..usize::from(bits.min(256)).div_ceil(8)];
    let prefix = Prefix::new(bytes, bits)
        .map_err(|_| CodecError::Invalid("the prefix of a page does not parse"))?;
    if prefix.first_key().0[..] != first[..32] {
        return Err(CodecError::Invalid("the prefix of a page does not parse"));
    }
    let mut reader = Reader::new(row);
    let hash = TreeHash(reader.array()?);
    let totals = Totals {
        entries: reader.u64()?,
        siblings: reader.u64()?,
        bytes: reader.u64()?,
        latest: Stamp(reader.u64()?),
    };
    let depth = reader.u16()?;
    reader.finish()?;
    Ok(PageRow { prefix, hash, totals, depth })
}

/// When a value was replaced, and its size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct HistoryRow {
    pub(super) position: u64,
    pub(super) at_ms: u64,
    pub(super) size: u64,
}

impl HistoryRow {
    pub(super) fn to_row(self) -> Vec<u8> {
        let mut row = Vec::with_capacity(24);
        row.put_u64(self.position);
        row.put_u64(self.at_ms);
        row.put_u64(self.size);
        row
    }

    pub(super) fn parse(row: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(row);
        let row = Self { position: reader.u64()?, at_ms: reader.u64()?, size: reader.u64()? };
        reader.finish()?;
        Ok(row)
    }
}

/// What a context row adds to the sum.
pub(super) fn context_sum(key: &[u8], value: &[u8]) -> ContextSum {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key);
    hasher.update(value);
    let hash = hasher.finalize();
    let first: [u8; 16] = hash.as_bytes()[..16].try_into().unwrap_or_default();
    ContextSum::from_le_bytes(first)
}

/// The value of a context row.
pub(super) fn counter_row(counter: u64) -> Arc<[u8]> {
    counter.to_le_bytes().as_slice().into()
}

pub(super) fn read_counter(row: &[u8]) -> Result<u64, CodecError> {
    let mut reader = Reader::new(row);
    let counter = reader.u64()?;
    reader.finish()?;
    Ok(counter)
}
