//! The rows of the change log.

use super::{before_check, with_check};
use crate::clock::Stamp;
use crate::codec::{CodecError, Reader, Writing};
use crate::dots::Dot;
use crate::entry::Totals;
use crate::hash::{KeyHash, LogHash, LogHead, RecordDigest, Root, TreeHash, ValueHash};
use crate::merkle::{ChangeItem, CommitEnd};

const OPENING: u8 = 0;
// as they were written before commits were bound to roots
const REMOVED_ALONE: u8 = 1;
const HELD_ALONE: u8 = 2;
const CHANGE: u8 = 3;

const HELD: u8 = 1;
const HELD_BEFORE: u8 = 2;
const END: u8 = 4;
const CHECKPOINT: u8 = 8;

/// One row of the change log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::replica) enum LogRow {
    /// First row of an opening's log: the head of the log before.
    Opening {
        /// Wall time.
        at_ms: u64,
        /// Id of the new log.
        id: u64,
        /// Head of the previous log, zero for the first ever.
        previous: LogHead,
    },
    /// What became of a key.
    Change {
        /// Wall time.
        at_ms: u64,
        /// The key's hash.
        key: KeyHash,
        /// Its record afterwards; none when nothing is held any more.
        record: Option<RecordDigest>,
        /// Its record before.
        before: Before,
        /// Dots that were held and now are dead.
        removed: Vec<Dot>,
        /// Values that were read and now are history.
        replaced: Vec<ValueHash>,
        /// What the whole commit did, in its last row.
        end: Option<Box<CommitRow>>,
    },
}

/// What was held under a key before a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::replica) enum Before {
    /// The row does not say: it is of before rows said so.
    Unknown,
    /// This, or nothing.
    Held(Option<RecordDigest>),
}

/// What a commit did to the whole collection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::replica) struct CommitRow {
    /// What the item of the row says of it.
    pub(in crate::replica) end: CommitEnd,
    /// Tree hash and totals, before and after.
    pub(in crate::replica) states: [(TreeHash, Totals); 2],
    /// Now and then the log up to this row, so that what is behind it is proved from here.
    pub(in crate::replica) log: Option<LogSoFar>,
}

/// A log up to one of its rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::replica) struct LogSoFar {
    pub(in crate::replica) id: u64,
    pub(in crate::replica) size: u64,
    pub(in crate::replica) peaks: Vec<LogHash>,
}

impl LogRow {
    pub(in crate::replica) const fn at_ms(&self) -> u64 {
        match self {
            Self::Opening { at_ms, .. } | Self::Change { at_ms, .. } => *at_ms,
        }
    }

    /// The item that the Merkle log holds: the previous head, or what became of a key.
    pub(in crate::replica) fn item(&self) -> Vec<u8> {
        match self {
            Self::Opening { previous, .. } => previous.0.to_vec(),
            Self::Change { key, record, end, .. } => {
                let end = end.as_ref().map(|commit| commit.end);
                ChangeItem { key: *key, record: *record, end }.to_bytes()
            }
        }
    }

    pub(in crate::replica) fn to_row(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(128);
        match self {
            Self::Opening { at_ms, id, previous } => {
                row.put_u8(OPENING);
                row.put_u64(*at_ms);
                row.put_u64(*id);
                row.put_bytes(&previous.0);
            }
            Self::Change { at_ms, key, record, before, removed, replaced, end } => {
                let kind = match (before, record) {
                    (Before::Held(_), _) => CHANGE,
                    (Before::Unknown, None) => REMOVED_ALONE,
                    (Before::Unknown, Some(_)) => HELD_ALONE,
                };
                row.put_u8(kind);
                row.put_u64(*at_ms);
                row.put_bytes(&key.0);
                if let Before::Held(before) = before {
                    row.put_u8(flags(record.as_ref(), before.as_ref(), end.as_deref()));
                    row.put_bytes(before.as_ref().map_or(&[][..], |before| &before.0));
                }
                row.put_bytes(record.as_ref().map_or(&[][..], |record| &record.0));
                if let Some(end) = end {
                    end.put(&mut row);
                }
                row.put_u32(removed.len() as u32);
                for dot in removed {
                    row.put_u64(dot.writer().get());
                    row.put_u64(dot.counter());
                }
                for hash in replaced {
                    row.put_bytes(&hash.0);
                }
            }
        }
        with_check(row)
    }

    /// Removals are named by these rows, and nothing else vouches for them: so one whose checksum
    /// does not match is none.
    pub(in crate::replica) fn parse(row: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(before_check(row)?);
        let kind = reader.u8()?;
        let at_ms = reader.u64()?;
        if kind == OPENING {
            let opening =
                Self::Opening { at_ms, id: reader.u64()?, previous: LogHead(reader.array()?) };
            reader.finish()?;
            return Ok(opening);
        }
        let key = KeyHash(reader.array()?);
        let flags = match kind {
            REMOVED_ALONE => 0,
            HELD_ALONE => HELD,
            CHANGE => reader.u8()?,
            _ => return Err(CodecError::Invalid("a log row is of an unknown kind")),
        };
        let mut digest = |flag| -> Result<_, CodecError> {
            let is_there = flags & flag != 0;
            Ok(is_there.then(|| reader.array()).transpose()?.map(RecordDigest))
        };
        let before = digest(HELD_BEFORE)?;
        let record = digest(HELD)?;
        let before = if kind == CHANGE { Before::Held(before) } else { Before::Unknown };
        let end = match flags & END {
            0 => None,
            _ => Some(Box::new(CommitRow::read(&mut reader, flags & CHECKPOINT != 0)?)),
        };
        let count = reader.u32()?;
        let mut removed = Vec::new();
        for _ in 0..count {
            let dot = Dot::new(reader.u64()?, reader.u64()?);
            removed.push(dot.ok_or(CodecError::Invalid("a dot is zero"))?);
        }
        let mut replaced = Vec::new();
        while reader.remaining() > 0 {
            replaced.push(ValueHash(reader.array()?));
        }
        Ok(Self::Change { at_ms, key, record, before, removed, replaced, end })
    }
}

fn flags(
    record: Option<&RecordDigest>,
    before: Option<&RecordDigest>,
    end: Option<&CommitRow>,
) -> u8 {
    let flag = |is_set, flag| if is_set { flag } else { 0 };
    flag(record.is_some(), HELD)
        | flag(before.is_some(), HELD_BEFORE)
        | flag(end.is_some(), END)
        | flag(end.is_some_and(|end| end.log.is_some()), CHECKPOINT)
}

impl CommitRow {
    fn put(&self, row: &mut Vec<u8>) {
        row.put_u32(self.end.changes);
        self.end.roots.iter().for_each(|root| row.put_bytes(&root.0));
        for (tree, totals) in &self.states {
            row.put_bytes(&tree.0);
            row.put_u64(totals.entries);
            row.put_u64(totals.siblings);
            row.put_u64(totals.bytes);
            row.put_u64(totals.latest.0);
        }
        if let Some(LogSoFar { id, size, peaks }) = &self.log {
            row.put_u64(*id);
            row.put_u64(*size);
            peaks.iter().for_each(|peak| row.put_bytes(&peak.0));
        }
    }

    fn read(reader: &mut Reader<'_>, has_log: bool) -> Result<Self, CodecError> {
        let changes = reader.u32()?;
        let roots = [Root(reader.array()?), Root(reader.array()?)];
        let mut state = || -> Result<_, CodecError> {
            let tree = TreeHash(reader.array()?);
            let (entries, siblings) = (reader.u64()?, reader.u64()?);
            let (bytes, latest) = (reader.u64()?, Stamp(reader.u64()?));
            Ok((tree, Totals { entries, siblings, bytes, latest }))
        };
        let states = [state()?, state()?];
        let log = if has_log { Some(LogSoFar::read(reader)?) } else { None };
        Ok(Self { end: CommitEnd { changes, roots }, states, log })
    }
}

impl LogSoFar {
    fn read(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let (id, size) = (reader.u64()?, reader.u64()?);
        // one peak for each bit set in the size
        let peaks = (0..size.count_ones()).map(|_| Ok(LogHash(reader.array()?)));
        Ok(Self { id, size, peaks: peaks.collect::<Result<_, CodecError>>()? })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rows_of_all_times_are_read_as_they_were_written() {
        let dots = vec![Dot::new(1, 2).unwrap(), Dot::new(3, 4).unwrap()];
        let totals = Totals { entries: 1, siblings: 2, bytes: 3, latest: Stamp(4) };
        let end = CommitEnd { changes: 7, roots: [Root([8; 32]), Root([9; 32])] };
        let states = [(TreeHash([5; 32]), totals), (TreeHash([6; 32]), Totals::default())];
        let log = LogSoFar { id: 3, size: 5, peaks: vec![LogHash([1; 32]), LogHash([2; 32])] };
        let commit = |log| Some(Box::new(CommitRow { end, states, log }));
        let digests = [None, Some(RecordDigest([4; 32]))];
        let mut rows = vec![LogRow::Opening { at_ms: 5, id: 6, previous: LogHead([7; 32]) }];
        for record in digests {
            let befores = digests.map(Before::Held);
            for before in befores.into_iter().chain([Before::Unknown]) {
                let ends = match before {
                    Before::Unknown => vec![None],
                    Before::Held(_) => vec![None, commit(None), commit(Some(log.clone()))],
                };
                for end in ends {
                    rows.push(LogRow::Change {
                        at_ms: 1,
                        key: KeyHash([2; 32]),
                        record,
                        before,
                        removed: dots.clone(),
                        replaced: vec![ValueHash([3; 32])],
                        end,
                    });
                }
            }
        }
        assert_eq!(rows.len(), 15);
        for row in &rows {
            let bytes = row.to_row();
            assert_eq!(&LogRow::parse(&bytes).unwrap(), row);
            for cut in 0..bytes.len() {
                LogRow::parse(&bytes[..cut]).unwrap_err();
            }
        }
        // as format 2 has them: kind, time, key, digest, no dots
        let old = [&[2][..], &[0; 8], &[2; 32], &[4; 32], &[0; 4]].concat();
        let row = LogRow::parse(&with_check(old)).unwrap();
        assert_eq!(row.item(), [&[2; 32][..], &[1], &[4; 32]].concat());
    }
}
