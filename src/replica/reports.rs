//! What sessions did that a person may want to look at: told with the session, and kept in a
//! bounded list.

use std::ops::AddAssign;
use std::sync::{Arc, PoisonError};

use crate::codec::{CodecError, Reader, Writing};
use crate::dots::Dot;
use crate::entry::{Record, Sibling};
use crate::hash::SessionId;
use crate::store::{Batch, Read as _, Span, Store, Table};
use crate::types::{Key, NodeId};

use super::ReplicaError;
use super::collection::Collection;
use super::pages::ReadError;
use super::rows::{ROW_VERSION, key_tail};

/// Most reports that a collection keeps; the oldest go first.
pub const MAX_REPORTS: u64 = 1_024;
/// Longest sentence of a resolver that is kept, in bytes.
const MAX_SENTENCE_BYTES: usize = 1_024;

/// A row with its number.
type Numbered = (u64, Arc<[u8]>);

/// What became of a key while what a peer said of it was applied.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Incident {
    /// Versions with different values stand beside each other, and some of them came just now.
    ConcurrentUpdate {
        /// Those that were held.
        held: Vec<Dot>,
        /// Those that came.
        came: Vec<Dot>,
    },
    /// A put survived a delete that had not seen it: a peer removed versions and sent none in
    /// their place, and others of the key stay; or a version came of a key that was deleted here
    /// later than it was written.
    DeletedRemotely {
        /// The versions that the peer named as removed; none if the delete was this node's own.
        removed: Vec<Dot>,
        /// Those that stay.
        survived: Vec<Dot>,
    },
    /// The collection's resolver says that the versions break a rule.
    UniqueConstraintViolation {
        /// What it says.
        why: String,
    },
}

/// An incident with what is known of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Report {
    /// When, by this node's clock in milliseconds.
    pub at_ms: u64,
    /// The peer of the session.
    pub peer: NodeId,
    /// The session.
    pub session: SessionId,
    /// The key.
    pub key: Key,
    /// What happened.
    pub incident: Incident,
}

/// How many reports of each kind.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, serde::Serialize, serde::Deserialize,
)]
pub struct ReportCounts {
    /// Keys that came into conflict, or further into it.
    pub concurrent_updates: u64,
    /// Puts that survived a delete.
    pub deleted_remotely: u64,
    /// Versions that break a rule of the collection's resolver.
    pub violations: u64,
}

impl ReportCounts {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.concurrent_updates
            .saturating_add(self.deleted_remotely)
            .saturating_add(self.violations)
    }

    /// Counts one.
    pub const fn count(&mut self, incident: &Incident) {
        match incident {
            Incident::ConcurrentUpdate { .. } => self.concurrent_updates += 1,
            Incident::DeletedRemotely { .. } => self.deleted_remotely += 1,
            Incident::UniqueConstraintViolation { .. } => self.violations += 1,
        }
    }
}

impl AddAssign for ReportCounts {
    fn add_assign(&mut self, other: Self) {
        let Self { concurrent_updates, deleted_remotely, violations } = other;
        self.concurrent_updates = self.concurrent_updates.saturating_add(concurrent_updates);
        self.deleted_remotely = self.deleted_remotely.saturating_add(deleted_remotely);
        self.violations = self.violations.saturating_add(violations);
    }
}

/// What applying an update did to the siblings of its key, as incidents. `deleted_ms` is when the
/// key was deleted here, if nothing was held and that is still known.
pub(super) fn incidents(
    before: &[Sibling],
    after: &[Sibling],
    deleted_ms: Option<u64>,
) -> Vec<Incident> {
    let among = |all: &[Sibling], dot: Dot| all.iter().any(|sibling| sibling.dot == dot);
    let dots = |all: &[Sibling], keep: &dyn Fn(&Sibling) -> bool| -> Vec<Dot> {
        let mut dots: Vec<Dot> =
            all.iter().filter(|sibling| keep(sibling)).map(|sibling| sibling.dot).collect();
        dots.sort_unstable();
        dots
    };
    let came = dots(after, &|sibling| !among(before, sibling.dot));
    let removed = dots(before, &|sibling| !among(after, sibling.dot));
    let stay = dots(after, &|sibling| among(before, sibling.dot));
    let mut incidents = Vec::new();
    if came.is_empty() {
        if !removed.is_empty() && !stay.is_empty() {
            incidents.push(Incident::DeletedRemotely { removed, survived: stay });
        }
        return incidents;
    }
    if let Some(deleted_ms) = deleted_ms {
        let older = dots(after, &|sibling| sibling.stamp.millis() <= deleted_ms);
        if !older.is_empty() {
            incidents.push(Incident::DeletedRemotely { removed: Vec::new(), survived: older });
        }
    }
    if Record::new(after.to_vec()).is_ok_and(|record| record.is_conflict()) {
        incidents.push(Incident::ConcurrentUpdate { held: stay, came });
    }
    incidents
}

impl<S: Store> Collection<S> {
    /// Keeps reports of a session, and asks the collection's resolver about the keys that came
    /// into conflict. What it says is reported too.
    ///
    /// An aid: nothing is synced, and the oldest reports go when there are more than
    /// [`MAX_REPORTS`].
    ///
    /// # Errors
    /// The store failed; what was applied stays.
    pub fn note_incidents(
        &self,
        peer: NodeId,
        session: SessionId,
        incidents: impl IntoIterator<Item = (Key, Incident)>,
        at_ms: u64,
    ) -> Result<Vec<Report>, ReplicaError> {
        let mut reports = Vec::new();
        for (key, incident) in incidents {
            let concurrent = matches!(incident, Incident::ConcurrentUpdate { .. });
            let violation = if concurrent { self.violation(&key)? } else { None };
            let all = [Some(incident), violation].into_iter().flatten();
            reports.extend(all.map(|incident| {
                let key = key.clone();
                Report { at_ms, peer, session, key, incident }
            }));
        }
        self.keep_reports(&reports)?;
        Ok(reports)
    }

    fn violation(&self, key: &Key) -> Result<Option<Incident>, ReplicaError> {
        let Some(entry) = self.get(key)? else { return Ok(None) };
        let versions = self.versions(key, &entry.record)?;
        Ok(self.check_versions(key, &versions).err().map(|violation| {
            let mut why = violation.0;
            why.truncate(why.floor_char_boundary(MAX_SENTENCE_BYTES));
            Incident::UniqueConstraintViolation { why }
        }))
    }

    fn keep_reports(&self, reports: &[Report]) -> Result<(), ReplicaError> {
        if reports.is_empty() {
            return Ok(());
        }
        let mut next = self.next_report.lock().unwrap_or_else(PoisonError::into_inner);
        let first = match *next {
            Some(first) => first,
            None => self.report_rows()?.last().map_or(0, |(number, _)| number.saturating_add(1)),
        };
        let after = first.saturating_add(reports.len() as u64);
        let floor = after.saturating_sub(MAX_REPORTS);
        let mut batch = Batch::default();
        for number in first.saturating_sub(MAX_REPORTS)..floor.min(first) {
            batch.remove(Table::Reports, &self.id.report(number));
        }
        for (number, report) in (first..).zip(reports).filter(|(number, _)| *number >= floor) {
            batch.put(Table::Reports, &self.id.report(number), &report.to_row());
        }
        self.store.apply(batch)?;
        *next = Some(after);
        Ok(())
    }

    /// The reports that are kept, the latest first, at most `limit`.
    ///
    /// # Errors
    /// The store failed.
    pub fn reports(&self, limit: usize) -> Result<Vec<Report>, ReplicaError> {
        let rows = self.report_rows()?;
        // an aid: what rotted is not there any more
        let reports = rows.iter().rev().filter_map(|(_, row)| Report::parse(row).ok());
        Ok(reports.take(limit).collect())
    }

    fn report_rows(&self) -> Result<Vec<Numbered>, ReplicaError> {
        let most = usize::try_from(MAX_REPORTS).unwrap_or(usize::MAX) * 2;
        let rows = self.store.scan(Span::of(Table::Reports, &self.id.prefix()), most)?;
        let numbered = rows.into_iter().map(|row| {
            let number = key_tail(&row.key).map(u64::from_be_bytes);
            let number = number.map_err(|error| ReadError::row("a report's key", &error));
            Ok((number.map_err(|error| error.of(&self.spec.name))?, row.value))
        });
        numbered.collect()
    }
}

impl Report {
    fn to_row(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(128);
        row.put_u8(ROW_VERSION);
        row.put_u64(self.at_ms);
        row.put_bytes(&self.peer.0);
        row.put_bytes(&self.session.0);
        row.put_u16(self.key.as_bytes().len() as u16);
        row.put_bytes(self.key.as_bytes());
        match &self.incident {
            Incident::ConcurrentUpdate { held, came } => {
                row.put_u8(1);
                put_dots(&mut row, held);
                put_dots(&mut row, came);
            }
            Incident::DeletedRemotely { removed, survived } => {
                row.put_u8(2);
                put_dots(&mut row, removed);
                put_dots(&mut row, survived);
            }
            Incident::UniqueConstraintViolation { why } => {
                row.put_u8(3);
                row.put_bytes(why.as_bytes());
            }
        }
        row
    }

    fn parse(row: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(row);
        if reader.u8()? != ROW_VERSION {
            return Err(CodecError::Invalid("a report is of another version"));
        }
        let at_ms = reader.u64()?;
        let (peer, session) = (NodeId(reader.array()?), SessionId(reader.array()?));
        let len = reader.u16()?;
        let key = Key::new(reader.bytes(usize::from(len))?)
            .map_err(|_| CodecError::Invalid("a report has no key"))?;
        let incident = match reader.u8()? {
            1 => Incident::ConcurrentUpdate {
                held: read_dots(&mut reader)?,
                came: read_dots(&mut reader)?,
            },
            2 => Incident::DeletedRemotely {
                removed: read_dots(&mut reader)?,
                survived: read_dots(&mut reader)?,
            },
            3 => {
                let why = std::str::from_utf8(reader.bytes(reader.remaining())?);
                let why = why.map_err(|_| CodecError::Invalid("a sentence is no text"))?;
                Incident::UniqueConstraintViolation { why: why.to_owned() }
            }
            _ => return Err(CodecError::Invalid("a report is of an unknown kind")),
        };
        reader.finish()?;
        Ok(Self { at_ms, peer, session, key, incident })
    }
}

/// As many as an entry has siblings: far fewer than can be counted.
fn put_dots(row: &mut Vec<u8>, dots: &[Dot]) {
    let dots = &dots[..dots.len().min(usize::from(u16::MAX))];
    row.put_u16(dots.len() as u16);
    for dot in dots {
        row.put_u64(dot.writer().get());
        row.put_u64(dot.counter());
    }
}

fn read_dots(reader: &mut Reader<'_>) -> Result<Vec<Dot>, CodecError> {
    let count = reader.u16()?;
    (0..count)
        .map(|_| {
            let dot = Dot::new(reader.u64()?, reader.u64()?);
            dot.ok_or(CodecError::Invalid("a dot is zero"))
        })
        .collect()
}
