//! What is kept of dots that stood for two puts (rule D7): which put stays, and which does not.

use crate::codec::{CodecError, Reader, Writing as _};
use crate::entry::{Record, SIBLING_BYTES, Sibling};
use crate::hash::KeyHash;
use crate::store::{Batch, Durability, Read as _, Span, Store, Table};
use crate::types::{Key, NodeId};

use super::ReplicaError;
use super::collection::Collection;
use super::pages::ReadError;
use super::rows::{checked, start_row, with_check};

/// Most dots with two puts that a collection keeps: about 300 bytes each on disk. The oldest are
/// written over.
pub const MAX_SAME_DOT: u64 = 1_024;

/// A put that claims a dot.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ClaimedPut {
    /// Hash of its key.
    pub key_hash: KeyHash,
    /// The key, as far as it is known.
    pub key: Option<Key>,
    /// What was put.
    pub sibling: Sibling,
}

/// A dot that stood for two puts: of both the greater (key hash, then bytes) stays at every node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SameDot {
    /// When it was found, by this node's wall clock; 0: by a version that did not keep it.
    pub found_ms: u64,
    /// The peer in whose session.
    pub peer: Option<NodeId>,
    /// The put that made way.
    pub lost: ClaimedPut,
    /// The one that stays; none if it was found by a version that did not keep it.
    pub kept: Option<ClaimedPut>,
    /// Whether the one that made way was held here; else it came from the peer.
    pub lost_here: bool,
}

impl ClaimedPut {
    fn put(&self, row: &mut Vec<u8>) {
        let key = self.key.as_ref().map(Key::as_bytes).unwrap_or_default();
        row.put_bytes(&self.key_hash.0);
        row.put_bytes(&self.sibling.to_bytes());
        row.put_u16(key.len() as u16);
        row.put_bytes(key);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let key_hash = KeyHash(reader.array()?);
        let sibling = read_sibling(reader.bytes(SIBLING_BYTES)?)?;
        let len = reader.u16()?;
        let key = Key::new(reader.bytes(usize::from(len))?).ok();
        Ok(Self { key_hash, key, sibling })
    }
}

/// The bytes of a sibling, as a record has them.
pub(super) fn read_sibling(bytes: &[u8]) -> Result<Sibling, CodecError> {
    let record = [&[1, 1, 0][..], bytes].concat();
    let broken = CodecError::Invalid("the sibling does not parse");
    let record = Record::parse(&record).map_err(|_| broken)?;
    record.siblings().first().copied().ok_or(CodecError::Truncated)
}

impl SameDot {
    /// What a row of the first form has: key hash and sibling of the put that made way.
    const OLD_BYTES: usize = 32 + SIBLING_BYTES;

    pub(super) fn to_row(&self) -> Vec<u8> {
        let mut row = start_row();
        row.put_u64(self.found_ms);
        row.put_bytes(&self.peer.unwrap_or(NodeId([0; 32])).0);
        row.put_u8(u8::from(self.lost_here));
        self.lost.put(&mut row);
        if let Some(kept) = &self.kept {
            kept.put(&mut row);
        }
        with_check(row)
    }

    pub(super) fn parse(row: &[u8]) -> Result<Self, CodecError> {
        if row.len() == Self::OLD_BYTES {
            let mut reader = Reader::new(row);
            let key_hash = KeyHash(reader.array()?);
            let sibling = read_sibling(reader.bytes(SIBLING_BYTES)?)?;
            let lost = ClaimedPut { key_hash, key: None, sibling };
            return Ok(Self { found_ms: 0, peer: None, lost, kept: None, lost_here: true });
        }
        let mut reader = Reader::new(checked(row)?);
        let found_ms = reader.u64()?;
        let peer = Some(NodeId(reader.array()?)).filter(|peer| peer.0 != [0; 32]);
        let lost_here = reader.u8()? != 0;
        let lost = ClaimedPut::read(&mut reader)?;
        let kept = if reader.remaining() > 0 { Some(ClaimedPut::read(&mut reader)?) } else { None };
        reader.finish()?;
        Ok(Self { found_ms, peer, lost, kept, lost_here })
    }
}

impl<S: Store> Collection<S> {
    /// Dots that stood for two puts, the latest found first, at most `limit`: what a clone or a
    /// lying writer left.
    ///
    /// # Errors
    /// The store failed, or a row is damaged.
    pub fn evidence(&self, limit: usize) -> Result<Vec<SameDot>, ReplicaError> {
        let prefix = self.id.same_dots();
        let rows = self.store.scan(Span::of(Table::Evidence, &prefix), usize::MAX)?;
        let parsed = rows.iter().map(|row| {
            SameDot::parse(&row.value)
                .map_err(|error| ReadError::row("evidence", &error).of(self.name()))
        });
        let mut found: Vec<SameDot> = parsed.collect::<Result<_, _>>()?;
        found.sort_by_key(|one| std::cmp::Reverse(one.found_ms));
        found.truncate(limit);
        Ok(found)
    }

    /// Forgets them; how many there were.
    ///
    /// # Errors
    /// The store failed; nothing was forgotten.
    pub fn forget_evidence(&self) -> Result<u64, ReplicaError> {
        let prefix = self.id.same_dots();
        let rows = self.store.scan_keys(Span::of(Table::Evidence, &prefix), usize::MAX)?;
        let mut batch = Batch::default();
        for key in &rows {
            batch.remove(Table::Evidence, key);
        }
        if !batch.is_empty() {
            self.store.commit(batch, Durability::Always)?;
        }
        Ok(rows.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::clock::Stamp;
    use crate::dots::Dot;
    use crate::hash::HashAlgorithm;

    fn put(key: &str, value: &[u8]) -> ClaimedPut {
        let key = Key::new(key.as_bytes().to_vec()).unwrap();
        let sibling = Sibling {
            dot: Dot::new(7, 3).unwrap(),
            stamp: Stamp::new(5, 0),
            size: value.len() as u64,
            value_hash: HashAlgorithm::Blake3.value_hash(value),
        };
        ClaimedPut { key_hash: HashAlgorithm::Blake3.key_hash(&key), key: Some(key), sibling }
    }

    #[test]
    fn what_is_read_back_is_what_was_written_and_rows_of_the_first_form_are_read_too() {
        let (lost, kept) = (put("ada", b"one"), put("bob", b"other"));
        let peer = Some(NodeId([9; 32]));
        let one =
            SameDot { found_ms: 5, peer, lost: lost.clone(), kept: Some(kept), lost_here: true };
        let row = one.to_row();
        assert_eq!(SameDot::parse(&row), Ok(one));
        // rows of the first form have no check: what is as long as one may be read as one
        for at in (0..row.len()).filter(|at| *at != SameDot::OLD_BYTES) {
            assert!(SameDot::parse(&row[..at]).is_err(), "cut at {at}");
        }
        let old = [&lost.key_hash.0[..], &lost.sibling.to_bytes()].concat();
        let read = SameDot::parse(&old).unwrap();
        assert_eq!((read.lost.sibling, read.kept), (lost.sibling, None));
    }
}
