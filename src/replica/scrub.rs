//! Scrubbing: reading all that is stored again, slice by slice, to find rot before it is needed.
//!
//! Writers go on between slices and during them. Where the walk stands is kept in the store, so
//! that it goes on after a restart. What can be mended here is mended at once; values and entries
//! that rotted are written down, and fetched again from a peer.

pub(super) mod walk;

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::codec::{CodecError, Reader, Writing as _};
use crate::hash::{KeyHash, ValueHash};
use crate::store::{Batch, Read, Store, StoreError, Table};

use super::ReplicaError;
use super::collection::Collection;
use super::rows::{ROW_VERSION, checked, with_check};
use walk::{Found, Moment, Position, Stage};

/// Bytes read between two times that the position is written down.
const KEPT_EVERY: u64 = 16 << 20;
/// Bytes of a slice where nobody is to be spared.
const AT_ONCE: u64 = 64 << 20;
/// Lost values and entries that a report counts.
const COUNTED: usize = 10_000;

/// What rotted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum RotKind {
    /// The head of the collection, its root or its context.
    Head,
    /// An entry.
    Entry,
    /// The bytes of a value.
    Value,
    /// A page row.
    Page,
    /// A row of the index of dots.
    Dot,
    /// A row of the change log.
    Log,
}

impl RotKind {
    /// It in a word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Entry => "entry",
            Self::Value => "value",
            Self::Page => "page",
            Self::Dot => "dot",
            Self::Log => "log",
        }
    }
}

/// Something that does not fit together on disk.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Rot {
    /// What it is.
    pub kind: RotKind,
    /// Hash of the key that it is about, if it is about one.
    pub key: Option<KeyHash>,
    /// The value, if it is one.
    pub value: Option<ValueHash>,
    /// What is wrong, as a sentence.
    pub what: String,
    /// Whether it is mended. Else a peer has to help.
    pub mended: bool,
}

impl Rot {
    /// Whether it is about how things fit together, so that no peer can give it back.
    #[must_use]
    pub const fn is_structure(&self) -> bool {
        !matches!(self.kind, RotKind::Value) && !(matches!(self.kind, RotKind::Entry))
    }

    fn new(found: &Found, mended: bool) -> Self {
        let (kind, key, value) = match found {
            Found::Root | Found::Head | Found::Context => (RotKind::Head, None, None),
            Found::Excepted(_) | Found::Uncovered(_) => (RotKind::Head, None, None),
            Found::Record(key) | Found::Stray(key) => (RotKind::Entry, Some(*key), None),
            Found::Value(key, hash) => (RotKind::Value, Some(*key), Some(*hash)),
            Found::Page(_) | Found::StrayPage(_) => (RotKind::Page, None, None),
            Found::MissingDot(_, key) => (RotKind::Dot, Some(*key), None),
            Found::StrayDot(_) => (RotKind::Dot, None, None),
            Found::Log(_) => (RotKind::Log, None, None),
        };
        Self { kind, key, value, what: found.sentence(), mended }
    }
}

/// How far a scrub has come.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ScrubProgress {
    /// Counts the scrubs of the collection; 0: none was ever begun.
    pub number: u64,
    /// When it began, in milliseconds since 1970.
    pub begun_ms: u64,
    /// Entries read.
    pub entries: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// What was found.
    pub found: u64,
    /// What of it is mended.
    pub mended: u64,
}

/// What is known of the scrubs of a collection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ScrubReport {
    /// The one that is not over, if there is one.
    pub running: Option<ScrubProgress>,
    /// The last one that came to its end.
    pub last: Option<ScrubProgress>,
    /// When that was, in milliseconds since 1970.
    pub last_ended_ms: Option<u64>,
    /// Entries that are known to be rotten now.
    pub rotten_entries: u64,
    /// Values whose bytes are known to be lost now.
    pub lost_values: u64,
}

/// What one slice did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ScrubStep {
    /// How far it is now.
    pub progress: ScrubProgress,
    /// Bytes that the slice read.
    pub bytes: u64,
    /// What it found.
    pub found: Vec<Rot>,
    /// Whether all was read.
    pub ended: bool,
}

/// The walk of a collection, and what came of the one before.
#[derive(Default)]
pub(super) struct Scrubbing {
    walk: Mutex<Walk>,
    told: Mutex<Option<Told>>,
}

#[derive(Clone, Default)]
struct Walk {
    loaded: bool,
    position: Position,
    told: Told,
    unkept: u64,
}

/// What others may know while a slice is being read.
#[derive(Clone, Copy, Default)]
struct Told {
    running: Option<ScrubProgress>,
    last: Option<(ScrubProgress, u64)>,
}

impl Scrubbing {
    fn walk(&self) -> MutexGuard<'_, Walk> {
        self.walk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, told: Told) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
    }

    fn told(&self) -> Option<Told> {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Store> Collection<S> {
    /// Reads on where the last slice ended, about `budget` bytes; begins anew once all was read.
    /// Takes the collection's lock for a moment at its begin, and to mend something.
    ///
    /// Of several callers each reads another slice of one walk.
    ///
    /// # Errors
    /// The store failed, or the collection is damaged as a whole; the walk stays where it is.
    pub fn scrub(&self, budget: u64, now_ms: u64) -> Result<ScrubStep, ReplicaError> {
        let mut walk = self.scrub.walk();
        self.load_walk(&mut walk)?;
        let mut progress = walk.told.running.unwrap_or_else(|| ScrubProgress {
            number: walk.told.last.map_or(0, |(last, _)| last.number) + 1,
            begun_ms: now_ms,
            ..ScrubProgress::default()
        });
        let mut position = walk.position.clone();
        let slice = self.read_slice(&mut position, budget)?;
        let mended = self.mend(&slice.found)?;
        let found: Vec<Rot> = slice
            .found
            .iter()
            .zip(&mended)
            .map(|(found, &mended)| Rot::new(found, mended))
            .collect();
        progress.entries += slice.figures.entries;
        progress.bytes += slice.figures.value_bytes;
        progress.found += found.len() as u64;
        progress.mended += mended.iter().filter(|mended| **mended).count() as u64;
        let ended = position.stage == Stage::Done;
        let new_stage = position.stage != walk.position.stage;
        walk.position = if ended { Position::default() } else { position };
        walk.told.running = (!ended).then_some(progress);
        if ended {
            walk.told.last = Some((progress, now_ms));
        }
        walk.unkept += slice.figures.bytes;
        if new_stage || !found.is_empty() || walk.unkept >= KEPT_EVERY {
            self.keep_walk(&mut walk)?;
        }
        self.scrub.tell(walk.told);
        Ok(ScrubStep { progress, bytes: slice.figures.bytes, found, ended })
    }

    /// Scrubs all of it at once, from the begin. How much was mended.
    ///
    /// # Errors
    /// The store failed, or the collection is damaged as a whole.
    pub fn mend_all(&self, now_ms: u64) -> Result<u64, ReplicaError> {
        {
            let mut walk = self.scrub.walk();
            self.load_walk(&mut walk)?;
            walk.position = Position::default();
        }
        let mut mended = 0;
        loop {
            let step = self.scrub(AT_ONCE, now_ms)?;
            mended += step.found.iter().filter(|rot| rot.mended).count() as u64;
            if step.ended {
                return Ok(mended);
            }
        }
    }

    /// Writes down where the walk stands, for the next opening: for whoever stops in the middle.
    ///
    /// # Errors
    /// The store failed.
    pub fn keep_scrub(&self) -> Result<(), ReplicaError> {
        let mut walk = self.scrub.walk();
        if walk.loaded && walk.unkept > 0 {
            self.keep_walk(&mut walk)?;
        }
        Ok(())
    }

    /// What is known of its scrubs, and of what is rotten now.
    ///
    /// # Errors
    /// The store failed, or the collection is damaged as a whole.
    pub fn scrub_report(&self) -> Result<ScrubReport, ReplicaError> {
        let told = match self.scrub.told() {
            Some(told) => told,
            None => {
                let mut walk = self.scrub.walk();
                self.load_walk(&mut walk)?;
                self.scrub.tell(walk.told);
                walk.told
            }
        };
        Ok(ScrubReport {
            running: told.running,
            last: told.last.map(|(last, _)| last),
            last_ended_ms: told.last.map(|(_, ended_ms)| ended_ms),
            rotten_entries: self.rotten_entries(COUNTED)?.len() as u64,
            lost_values: self.lost_values(COUNTED)?.len() as u64,
        })
    }

    fn read_slice(
        &self,
        position: &mut Position,
        budget: u64,
    ) -> Result<walk::Slice, ReplicaError> {
        let (rows, tree, causality, head) = self.with_live(|live| {
            let rows = self.store.snapshot()?;
            Ok((rows, live.tree.clone(), live.causality.clone(), live.head.clone()))
        })?;
        let (spec, id) = (&self.spec, self.id);
        let moment = Moment { rows: &rows, id, spec, tree, causality: &causality, head: &head };
        Ok(moment.slice(position, budget)?)
    }

    /// Writes down what a walk found that a peer has to help with.
    pub(super) fn note_found(&self, found: &Found) {
        match found {
            Found::Record(key) => self.losses.note_record(key),
            Found::Value(key, hash) => self.losses.note(key, hash),
            _ => {}
        }
    }

    fn load_walk(&self, walk: &mut Walk) -> Result<(), StoreError> {
        if !walk.loaded {
            let row = self.store.get(Table::Heads, &self.id.scrub())?;
            // an aid: one that rotted is begun anew
            if let Some((position, told)) = row.and_then(|row| parse(&row).ok()) {
                (walk.position, walk.told) = (position, told);
            }
            walk.loaded = true;
        }
        Ok(())
    }

    fn keep_walk(&self, walk: &mut Walk) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        batch.put(Table::Heads, &self.id.scrub(), &to_row(&walk.position, &walk.told));
        self.store.apply(batch)?;
        walk.unkept = 0;
        Ok(())
    }
}

fn to_row(position: &Position, told: &Told) -> Vec<u8> {
    let mut row = vec![ROW_VERSION, position.stage as u8];
    let put = |row: &mut Vec<u8>, progress: &ScrubProgress| {
        let ScrubProgress { number, begun_ms, entries, bytes, found, mended } = *progress;
        for number in [number, begun_ms, entries, bytes, found, mended] {
            row.put_u64(number);
        }
    };
    row.put_u8(u8::from(told.running.is_some()));
    put(&mut row, &told.running.unwrap_or_default());
    let (last, ended_ms) = told.last.unwrap_or_default();
    row.put_u8(u8::from(told.last.is_some()));
    put(&mut row, &last);
    row.put_u64(ended_ms);
    row.put_bytes(position.after.as_deref().unwrap_or_default());
    with_check(row)
}

fn parse(row: &[u8]) -> Result<(Position, Told), CodecError> {
    let mut reader = Reader::new(checked(row)?);
    let stage = Stage::from_id(reader.u8()?).ok_or(CodecError::Invalid("no such stage"))?;
    let read = |reader: &mut Reader<'_>| -> Result<ScrubProgress, CodecError> {
        Ok(ScrubProgress {
            number: reader.u64()?,
            begun_ms: reader.u64()?,
            entries: reader.u64()?,
            bytes: reader.u64()?,
            found: reader.u64()?,
            mended: reader.u64()?,
        })
    };
    let is_running = reader.u8()? != 0;
    let running = read(&mut reader)?;
    let has_last = reader.u8()? != 0;
    let last = read(&mut reader)?;
    let ended_ms = reader.u64()?;
    let after = reader.bytes(reader.remaining())?;
    let after = (!after.is_empty()).then(|| after.into());
    let told =
        Told { running: is_running.then_some(running), last: has_last.then_some((last, ended_ms)) };
    Ok((Position { stage, after }, told))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn where_a_walk_stands_is_read_as_it_was_written() {
        let progress = ScrubProgress { number: 3, begun_ms: 4, entries: 5, ..Default::default() };
        for (running, last) in [(None, None), (Some(progress), Some((progress, 9)))] {
            let position =
                Position { stage: Stage::Dots, after: running.map(|_| b"key".as_slice().into()) };
            let row = to_row(&position, &Told { running, last });
            let (read, told) = parse(&row).unwrap();
            assert_eq!((read, told.running, told.last), (position, running, last));
            for at in 0..row.len() {
                let mut rotten = row.clone();
                rotten[at] ^= 1;
                assert!(parse(&rotten).is_err(), "{at}");
            }
        }
    }
}
