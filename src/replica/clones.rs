//! Writers that have two users: a machine that was copied, or resumed from an image, while its
//! node ran. What was found is kept, and the puts of such a writer that are held here are copied
//! aside before anything can remove them: those of this node, or those that came from the other
//! copy before.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::codec::{CodecError, Reader, Writing as _};
use crate::dots::{Dot, Writer};
use crate::entry::{SIBLING_BYTES, Sibling};
use crate::hash::KeyHash;
use crate::store::{Batch, Durability, Read as _, Span, Store, Table};
use crate::types::{Key, NodeId};

use super::ReplicaError;
use super::collection::{Collection, Live};
use super::evidence::read_sibling;
use super::join::parse_dot_row;
use super::marks::WriterMark;
use super::pages::ReadError;
use super::rows::{checked, key_tail, start_row, with_check};

/// Most clones that a collection keeps with what was copied aside, and most found with one peer:
/// beyond, they are counted and told, until kept ones are forgotten.
pub const MAX_CLONES: usize = 64;
const MAX_CLONES_OF_A_PEER: usize = 8;
/// One peer's word makes this node draw so many fresh writers in a day at most.
const MOST_FRESH_WRITERS: usize = 16;
const DAY_MS: u64 = 24 * 3_600_000;
/// Peers whose words are remembered for that.
const ACCUSERS: usize = 1_024;
/// Rows read at once.
const CHUNK: usize = 512;

/// What shows that a writer has two users.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum CloneSign {
    /// The peer told less of its writer than before, or other puts at the same counter.
    Mark,
    /// The peer came back to a writer that it had left, or that was found to have two users.
    WentBack,
    /// The peer repeated a mark that this node never told.
    Echo,
    /// The peer has seen puts of this node's writer that this node has not done.
    Context,
    /// A dot of this node's writer stands for another put at the peer.
    SameDot,
    /// The peer says so.
    Told,
}

impl CloneSign {
    const ALL: [Self; 6] =
        [Self::Mark, Self::WentBack, Self::Echo, Self::Context, Self::SameDot, Self::Told];

    /// A word for programs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Mark => "mark",
            Self::WentBack => "went_back",
            Self::Echo => "echo",
            Self::Context => "context",
            Self::SameDot => "same_dot",
            Self::Told => "told",
        }
    }
}

/// A writer that was found to have two users.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CloneFound {
    /// Whether it is this node's; else the peer's.
    pub ours: bool,
    /// What shows it.
    pub sign: CloneSign,
    /// What was told, repeated or seen of it.
    pub mark: WriterMark,
}

/// What became of one.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct KeptClone {
    /// Its number in this collection; none if there was no room to keep it.
    pub number: Option<u64>,
    /// When it was found, by this node's wall clock.
    pub found_ms: u64,
    /// The peer in whose session.
    pub peer: NodeId,
    /// What was found.
    pub found: CloneFound,
    /// Puts of the writer that were copied aside.
    pub aside: u64,
    /// Bytes of values copied with them.
    pub aside_bytes: u64,
    /// Puts with a counter up to this were not looked at; 0: all were.
    pub not_before: u64,
    /// Puts that were looked at and could not be copied: their entries rotted.
    pub left_out: u64,
}

/// A put that was copied aside.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct AsideEntry {
    /// Its key.
    pub key: Key,
    /// What was put.
    pub sibling: Sibling,
    /// Its value, unless there was no room for it.
    pub value: Option<Vec<u8>>,
}

impl KeptClone {
    fn to_row(&self) -> Vec<u8> {
        let mut row = start_row();
        row.put_u64(self.found_ms);
        row.put_bytes(&self.peer.0);
        row.put_u8(u8::from(self.found.ours));
        row.put_u8(self.found.sign as u8);
        row.put_u64(self.found.mark.writer.get());
        row.put_u64(self.found.mark.counter);
        row.put_bytes(&self.found.mark.puts);
        for number in [self.aside, self.aside_bytes, self.not_before, self.left_out] {
            row.put_u64(number);
        }
        with_check(row)
    }

    fn parse(number: u64, row: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(checked(row)?);
        let (found_ms, peer) = (reader.u64()?, NodeId(reader.array()?));
        let (ours, sign) = (reader.u8()? != 0, usize::from(reader.u8()?));
        let sign = CloneSign::ALL.get(sign).ok_or(CodecError::Invalid("an unknown sign"))?;
        let writer = Writer::new(reader.u64()?).ok_or(CodecError::Invalid("a writer is zero"))?;
        let mark = WriterMark { writer, counter: reader.u64()?, puts: reader.array()? };
        let found = CloneFound { ours, sign: *sign, mark };
        let (aside, aside_bytes) = (reader.u64()?, reader.u64()?);
        let (not_before, left_out) = (reader.u64()?, reader.u64()?);
        reader.finish()?;
        let number = Some(number);
        Ok(Self { number, found_ms, peer, found, aside, aside_bytes, not_before, left_out })
    }
}

impl AsideEntry {
    fn to_row(&self) -> Vec<u8> {
        let mut row = start_row();
        row.put_u16(self.key.as_bytes().len() as u16);
        row.put_bytes(self.key.as_bytes());
        row.put_bytes(&self.sibling.to_bytes());
        row.put_u8(u8::from(self.value.is_some()));
        row.put_bytes(self.value.as_deref().unwrap_or_default());
        with_check(row)
    }

    fn parse(row: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(checked(row)?);
        let len = reader.u16()?;
        let key = Key::new(reader.bytes(usize::from(len))?)
            .map_err(|_| CodecError::Invalid("a key has no or too many bytes"))?;
        let sibling = read_sibling(reader.bytes(SIBLING_BYTES)?)?;
        let has_value = reader.u8()? != 0;
        let value = reader.bytes(reader.remaining())?;
        Ok(Self { key, sibling, value: has_value.then(|| value.to_vec()) })
    }
}

/// When each peer's word made this node draw a fresh writer.
#[derive(Debug, Default)]
pub(super) struct Accusations(BTreeMap<NodeId, Vec<u64>>);

impl Accusations {
    /// Whether this peer's word may count once more today; takes note of it.
    fn heed(&mut self, peer: &NodeId, now_ms: u64) -> bool {
        if !self.0.contains_key(peer) && self.0.len() >= ACCUSERS {
            self.0.retain(|_, times| times.iter().any(|at| now_ms.abs_diff(*at) < DAY_MS));
            if self.0.len() >= ACCUSERS {
                return false;
            }
        }
        let times = self.0.entry(*peer).or_default();
        times.retain(|at| now_ms.abs_diff(*at) < DAY_MS);
        let heeded = times.len() < MOST_FRESH_WRITERS;
        if heeded {
            times.push(now_ms);
        }
        heeded
    }
}

/// The number of the next clone, if there is room for one with this peer.
fn room_for_clone(all: &[KeptClone], peer: &NodeId) -> Option<u64> {
    let of_peer = all.iter().filter(|one| one.peer == *peer).count();
    let last = all.last().and_then(|last| last.number).unwrap_or(0);
    (all.len() < MAX_CLONES && of_peer < MAX_CLONES_OF_A_PEER).then_some(last + 1)
}

/// Puts that are being copied aside.
#[derive(Default)]
struct Copied {
    entries: u64,
    bytes: u64,
    not_before: u64,
    left_out: u64,
}

impl<S: Store> Collection<S> {
    /// Takes note of a writer that has two users, as a session with this peer found. If it is
    /// this node's present writer, it is let go at once, so that the next put draws a fresh one.
    /// In one commit, synced, the puts of it that are held here are copied aside, the latest
    /// [`max_aside_entries`](crate::limits::Limits::max_aside_entries) and
    /// [`max_aside_bytes`](crate::limits::Limits::max_aside_bytes) of them.
    ///
    /// What a writer of a peer has put is copied once: the next time it is in the same place.
    ///
    /// None if there is nothing to note: the writer was let go before, or this peer has said so
    /// too often today for its word to count.
    ///
    /// # Errors
    /// The store failed, or what is held is damaged. The writer is let go all the same.
    pub fn note_clone(
        &self,
        peer: &NodeId,
        found: CloneFound,
        now_ms: u64,
    ) -> Result<Option<KeptClone>, ReplicaError> {
        let mut kept = KeptClone {
            number: None,
            found_ms: now_ms,
            peer: *peer,
            found,
            aside: 0,
            aside_bytes: 0,
            not_before: 0,
            left_out: 0,
        };
        let mut batch = Batch::default();
        let number = {
            let mut told = self.told();
            let mut state = self.lock();
            let live = state.live(&self.spec.name)?;
            let present = live.writer.present();
            let last = present.filter(|present| present.writer == found.mark.writer);
            let let_go = found.ours && last.is_none();
            if let_go || !told.accusations.heed(peer, now_ms) {
                return Ok(None);
            }
            if found.ours {
                live.writer.set(None);
            }
            let all = self.clones()?;
            let Some(place) = room_for_clone(&all, peer) else { return Ok(Some(kept)) };
            kept.number = Some(place);
            let writer = found.mark.writer;
            let same = |one: &KeptClone| one.found.mark.writer == writer && !one.found.ours;
            if found.ours || !all.iter().any(same) {
                let seen = live.causality.counter(writer);
                let counter = last.map_or(seen, |last| last.counter.max(seen));
                let copied = self.copy_aside(live, place, (writer, counter), &mut batch)?;
                (kept.aside, kept.aside_bytes) = (copied.entries, copied.bytes);
                (kept.not_before, kept.left_out) = (copied.not_before, copied.left_out);
            }
            batch.put(Table::Evidence, &self.id.clone(place), &kept.to_row());
            live.number = self.store.apply(batch)?;
            live.number
        };
        self.store.settle(number, Durability::Always)?;
        Ok(Some(kept))
    }

    /// The latest puts of a writer that are held, with their values as far as there is room.
    fn copy_aside(
        &self,
        live: &mut Live,
        place: u64,
        (writer, counter): (Writer, u64),
        batch: &mut Batch,
    ) -> Result<Copied, ReplicaError> {
        let limits = &self.node.limits;
        let mut copied = Copied {
            not_before: counter.saturating_sub(limits.max_aside_entries),
            ..Copied::default()
        };
        let mut last = Dot::of(writer, copied.not_before).map(|dot| self.id.dot(dot));
        loop {
            let start = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let prefix = self.id.writer_dots(writer);
            let rows = self.store.scan(Span::of(Table::Dots, &prefix).start_at(start), CHUNK)?;
            let Some(row) = rows.last() else { return Ok(copied) };
            last = Some(row.key.to_vec());
            for row in &rows {
                let parsed = parse_dot_row(&row.key, &row.value);
                let (dot, key_hash) = parsed.map_err(|error| error.of(self.name()))?;
                let Some(entry) = self.aside_entry(live, dot, &key_hash, copied.bytes)? else {
                    copied.left_out += 1;
                    continue;
                };
                copied.entries += 1;
                copied.bytes += entry.value.as_ref().map_or(0, |value| value.len() as u64);
                batch.put(Table::Evidence, &self.id.aside_entry(place, dot), &entry.to_row());
            }
        }
    }

    fn aside_entry(
        &self,
        live: &mut Live,
        dot: Dot,
        key_hash: &KeyHash,
        copied: u64,
    ) -> Result<Option<AsideEntry>, ReplicaError> {
        let entry = match self.entry_to_read(live, key_hash) {
            Err(ReplicaError::Rotten { .. }) => None,
            other => other?,
        };
        let Some(entry) = entry else { return Ok(None) };
        let Some(&sibling) = entry.record.sibling(dot) else { return Ok(None) };
        let fits = copied.saturating_add(sibling.size) <= self.node.limits.max_aside_bytes;
        let value = if fits { self.stored_value(key_hash, &sibling.value_hash)? } else { None };
        Ok(Some(AsideEntry { key: entry.key, sibling, value: value.map(|value| value.to_vec()) }))
    }

    /// The clones that are kept, in the order in which they were found.
    ///
    /// # Errors
    /// The store failed.
    pub fn clones(&self) -> Result<Vec<KeptClone>, ReplicaError> {
        let prefix = self.id.clones();
        let rows = self.store.scan(Span::of(Table::Evidence, &prefix), usize::MAX)?;
        let kept = rows.iter().filter_map(|row| {
            let number = u64::from_be_bytes(key_tail(&row.key).ok()?);
            // what rotted hides no other
            KeptClone::parse(number, &row.value).ok()
        });
        Ok(kept.collect())
    }

    /// What was copied aside with a clone, in the order of the dots, after the one given.
    ///
    /// A value for which there was no room is read where it still is: of an entry that is held,
    /// or in the history.
    ///
    /// # Errors
    /// The store failed, or a row is damaged.
    pub fn aside(
        &self,
        number: u64,
        after: Option<Dot>,
        limit: usize,
    ) -> Result<Vec<AsideEntry>, ReplicaError> {
        let (prefix, after) =
            (self.id.aside(number), after.map(|dot| self.id.aside_entry(number, dot)));
        let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.store.scan(Span::of(Table::Evidence, &prefix).start_at(start), limit)?;
        let mut entries = Vec::with_capacity(rows.len());
        for row in rows {
            let parsed = AsideEntry::parse(&row.value);
            let mut entry =
                parsed.map_err(|error| ReadError::row("an entry aside", &error).of(self.name()))?;
            if entry.value.is_none() {
                let (key, hash) = (self.key_hash(&entry.key), entry.sibling.value_hash);
                entry.value = self.stored_value(&key, &hash)?.map(|value| value.to_vec());
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// Forgets a clone and what was copied aside with it; whether there was one.
    ///
    /// # Errors
    /// The store failed; what is left can be forgotten by asking again.
    pub fn forget_clone(&self, number: u64) -> Result<bool, ReplicaError> {
        let known = self.store.get(Table::Evidence, &self.id.clone(number))?.is_some();
        let prefix = self.id.aside(number);
        loop {
            let keys = self.store.scan_keys(Span::of(Table::Evidence, &prefix), CHUNK)?;
            let mut batch = Batch::default();
            for key in &keys {
                batch.remove(Table::Evidence, key);
            }
            if keys.is_empty() {
                batch.remove(Table::Evidence, &self.id.clone(number));
                self.store.commit(batch, Durability::Always)?;
                return Ok(known);
            }
            self.store.apply(batch)?;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_peer_is_heeded_so_often_a_day() {
        let (peer, other) = (NodeId([1; 32]), NodeId([2; 32]));
        let mut accusations = Accusations::default();
        let heeded = (0..100).filter(|_| accusations.heed(&peer, 5)).count();
        assert_eq!(heeded, MOST_FRESH_WRITERS);
        assert!(accusations.heed(&other, 5));
        assert!(accusations.heed(&peer, 5 + DAY_MS));
    }

    #[test]
    fn rows_are_read_back_as_they_were_written() {
        for sign in CloneSign::ALL {
            let mark = WriterMark { writer: Writer::new(7).unwrap(), counter: 9, puts: [1; 8] };
            let found = CloneFound { ours: true, sign, mark };
            let kept = KeptClone {
                number: Some(3),
                found_ms: 5,
                peer: NodeId([9; 32]),
                found,
                aside: 2,
                aside_bytes: 10,
                not_before: 1,
                left_out: 4,
            };
            assert_eq!(KeptClone::parse(3, &kept.to_row()), Ok(kept));
        }
    }
}
