//! What a node tells of its present writer, so that two who use one writer are found out.
//!
//! In each session that moves anything, a side tells a [`WriterMark`]: writer, counter and a
//! running hash of its puts; and repeats the last mark that it heard of the peer. A writer has one
//! user, whose counter only grows. So of marks of one writer the later has no lesser counter, at
//! one counter there is one hash, and nobody comes back to a writer that it has left; and what is
//! repeated to a node is what that node has told. Anything else is a clone, or a liar.
//!
//! "Later" must be known, not guessed: frames of two sessions may overtake each other. A mark is
//! read from the live state when it is told, after the peer's hello or reply has come, so it is
//! later than all that the peer had heard when it said that.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::codec::{CodecError, Reader, Writing as _};
use crate::dots::Writer;
use crate::store::{Batch, Read as _, Store, Table};
use crate::types::NodeId;

use super::ReplicaError;
use super::clones::CloneSign;
use super::collection::{Collection, PresentWriter};
use super::rows::{checked, start_row, with_check};

/// Marks of the present writer that are remembered as told: about 64 bytes each. What was told
/// before them is not judged any more.
const MAX_TOLD: usize = 256;
/// Writers that a peer has left and that are remembered.
const MAX_LEFT: usize = 8;

/// What a node tells of its present writer: 8 bytes of the hash are enough, since whoever could
/// choose puts that collide could as well repeat the hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "session", derive(serde::Serialize, serde::Deserialize))]
pub struct WriterMark {
    /// The writer.
    pub writer: Writer,
    /// Counter of its last put.
    pub counter: u64,
    /// First bytes of the running hash of its puts.
    pub puts: [u8; 8],
}

impl From<PresentWriter> for WriterMark {
    fn from(present: PresentWriter) -> Self {
        let mut puts = [0; 8];
        puts.copy_from_slice(&present.puts[..8]);
        Self { writer: present.writer, counter: present.counter, puts }
    }
}

/// What was heard of a peer.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HeardMark {
    /// The last mark.
    pub last: WriterMark,
    /// Writers that the peer told of before it told of this one, and those that were found to
    /// have two users, the latest first: whoever still uses one is a clone.
    pub left: Vec<Writer>,
}

impl HeardMark {
    fn to_row(&self) -> Vec<u8> {
        let mut row = start_row();
        row.put_u64(self.last.writer.get());
        row.put_u64(self.last.counter);
        row.put_bytes(&self.last.puts);
        for writer in &self.left {
            row.put_u64(writer.get());
        }
        with_check(row)
    }

    pub(super) fn parse(row: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(checked(row)?);
        let zero = CodecError::Invalid("a writer is zero");
        let writer = Writer::new(reader.u64()?).ok_or(zero)?;
        let last = WriterMark { writer, counter: reader.u64()?, puts: reader.array()? };
        let mut left = Vec::new();
        while reader.remaining() > 0 && left.len() < MAX_LEFT {
            let zero = CodecError::Invalid("a writer is zero");
            left.push(Writer::new(reader.u64()?).ok_or(zero)?);
        }
        reader.finish()?;
        Ok(Self { last, left })
    }

    /// What shows that a mark, told after all this, is not of the one user of its writer.
    #[must_use]
    pub fn contradicted_by(&self, mark: &WriterMark) -> Option<CloneSign> {
        let Self { last, left } = self;
        if left.contains(&mark.writer) {
            return Some(CloneSign::WentBack);
        }
        let less = mark.counter < last.counter;
        let other = mark.counter == last.counter && mark.puts != last.puts;
        (last.writer == mark.writer && (less || other)).then_some(CloneSign::Mark)
    }

    /// What is known once a mark was heard that is later than all this.
    fn followed_by(self, mark: WriterMark) -> Self {
        let before = self.last.writer;
        let left = if before == mark.writer { self } else { self.without(before) }.left;
        Self { last: mark, left }
    }

    /// Nobody uses this writer any more.
    fn without(mut self, writer: Writer) -> Self {
        if !self.left.contains(&writer) {
            self.left.insert(0, writer);
            self.left.truncate(MAX_LEFT);
        }
        self
    }
}

/// The present writer of a collection, live, and what was told of it. Clones are handles to one.
#[derive(Clone, Debug, Default)]
pub struct OwnWriter(Arc<Mutex<Own>>);

#[derive(Debug, Default)]
struct Own {
    present: Option<PresentWriter>,
    /// Hashes told, by counter.
    told: BTreeMap<u64, [u8; 8]>,
    /// What was told of lesser counters is not known any more, or was told by an earlier opening.
    floor: u64,
    /// Left to the next opening: whatever is drawn after that is told to nobody.
    closed: bool,
}

impl OwnWriter {
    fn own(&self) -> MutexGuard<'_, Own> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present writer as it is now.
    #[must_use]
    pub fn present(&self) -> Option<PresentWriter> {
        self.own().present
    }

    /// What a peer is to be told now; remembered as told.
    #[must_use]
    pub fn tell(&self) -> Option<WriterMark> {
        let mut own = self.own();
        let mark = WriterMark::from(own.present.filter(|_| !own.closed)?);
        own.told.insert(mark.counter, mark.puts);
        if own.told.len() > MAX_TOLD
            && let Some((counter, _)) = own.told.pop_first()
        {
            own.floor = counter.saturating_add(1);
        }
        Some(mark)
    }

    /// Whether this is a mark of the present writer that this opening never told: somebody else
    /// uses that writer, or the peer lies.
    #[must_use]
    pub fn disowns(&self, mark: &WriterMark) -> bool {
        let own = self.own();
        own.present.is_some_and(|present| present.writer == mark.writer)
            && mark.counter >= own.floor
            && own.told.get(&mark.counter) != Some(&mark.puts)
    }

    /// Whether this is not the present writer.
    pub(super) fn is_another(&self, writer: Writer) -> bool {
        self.own().present.is_none_or(|present| present.writer != writer)
    }

    pub(super) fn set(&self, present: Option<PresentWriter>) {
        let mut own = self.own();
        let writer = |present: &PresentWriter| present.writer;
        if own.present.as_ref().map(writer) != present.as_ref().map(writer) {
            own.told.clear();
            own.floor = 0;
        }
        own.present = present;
    }

    /// Goes on with a writer that a clean close left: what was told of it before is not known.
    pub(super) fn resume(&self, present: PresentWriter) {
        let mut own = self.own();
        let mark = WriterMark::from(present);
        own.present = Some(present);
        own.told = BTreeMap::from([(mark.counter, mark.puts)]);
        own.floor = mark.counter;
    }

    pub(super) fn take(&self) -> Option<PresentWriter> {
        let present = self.present();
        self.set(None);
        present
    }

    /// Takes the present writer, to be left for the next opening.
    pub(super) fn close(&self) -> Option<PresentWriter> {
        self.own().closed = true;
        self.take()
    }
}

impl<S: Store> Collection<S> {
    /// Takes note of what a peer told of its writer, in a session that began when `since` was all
    /// that was known of it.
    ///
    /// An aid: nothing is synced, and what is lost of it only finds a clone later.
    ///
    /// # Errors
    /// The store failed.
    pub fn hear_mark(
        &self,
        peer: &NodeId,
        mark: WriterMark,
        since: Option<&HeardMark>,
    ) -> Result<(), ReplicaError> {
        let _one = self.told();
        let key = self.id.heard(peer);
        let row = self.store.get(Table::Witness, &key)?;
        let known = row.and_then(|row| HeardMark::parse(&row).ok());
        let same_writer = |known: &HeardMark| known.last.writer == mark.writer;
        let proof = since.and_then(|since| since.contradicted_by(&mark));
        let heard = match (known, proof) {
            (Some(known), Some(CloneSign::Mark)) => known.without(mark.writer),
            (_, Some(_)) => return Ok(()),
            // of two sessions at once nobody knows which mark is the later one
            (Some(known), _) if since != Some(&known) && !same_writer(&known) => return Ok(()),
            (Some(known), _) if same_writer(&known) && known.last.counter >= mark.counter => {
                return Ok(());
            }
            (Some(known), _) => known.followed_by(mark),
            (None, _) => HeardMark { last: mark, left: Vec::new() },
        };
        let mut batch = Batch::default();
        batch.put(Table::Witness, &key, &heard.to_row());
        self.store.apply(batch)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn present(writer: u64, counter: u64, puts: u8) -> PresentWriter {
        PresentWriter { writer: Writer::new(writer).unwrap(), counter, puts: [puts; 32] }
    }

    #[test]
    fn only_what_was_told_is_owned() {
        let own = OwnWriter::default();
        assert_eq!(own.tell(), None);
        own.set(Some(present(7, 3, 3)));
        let told = own.tell().unwrap();
        own.set(Some(present(7, 4, 4)));
        assert!(!own.disowns(&told));
        assert!(own.disowns(&present(7, 3, 9).into()), "another hash at a counter that was told");
        assert!(own.disowns(&present(7, 4, 4).into()), "a counter that was not told yet");
        assert!(!own.disowns(&present(8, 9, 9).into()), "another writer's");
        own.set(Some(present(9, 1, 1)));
        assert!(!own.disowns(&present(7, 99, 1).into()), "of a writer that was left");
    }

    #[test]
    fn what_an_earlier_opening_told_is_not_judged() {
        let own = OwnWriter::default();
        own.resume(present(7, 5, 5));
        assert!(!own.disowns(&present(7, 4, 9).into()));
        assert!(!own.disowns(&present(7, 5, 5).into()));
        assert!(own.disowns(&present(7, 5, 6).into()));
        assert!(own.disowns(&present(7, 6, 6).into()));
    }

    #[test]
    fn what_was_told_is_remembered_up_to_a_limit_and_judged_from_there_on() {
        let own = OwnWriter::default();
        for counter in 1..=MAX_TOLD as u64 + 10 {
            own.set(Some(present(7, counter, 1)));
            let _ = own.tell();
        }
        assert_eq!(own.own().told.len(), MAX_TOLD);
        assert!(!own.disowns(&present(7, 10, 9).into()));
        assert!(own.disowns(&present(7, 11, 9).into()));
    }

    #[test]
    fn writers_that_were_left_are_remembered_in_order_and_bounded() {
        let mut heard = HeardMark { last: present(1, 1, 0).into(), left: Vec::new() };
        for writer in 2..14 {
            heard = heard.followed_by(present(writer, 1, 0).into());
        }
        let left: Vec<u64> = heard.left.iter().map(|writer| writer.get()).collect();
        assert_eq!(left, [12, 11, 10, 9, 8, 7, 6, 5]);
        assert_eq!(HeardMark::parse(&heard.to_row()), Ok(heard));
    }

    #[test]
    fn only_what_one_writer_cannot_have_told_contradicts() {
        let known =
            HeardMark { last: present(7, 5, 5).into(), left: vec![Writer::new(6).unwrap()] };
        for fine in [present(7, 5, 5), present(7, 6, 1), present(8, 1, 1)] {
            assert_eq!(known.contradicted_by(&fine.into()), None, "{fine:?}");
        }
        let sign = |mark: PresentWriter| known.contradicted_by(&mark.into());
        assert_eq!(sign(present(7, 5, 6)), Some(CloneSign::Mark));
        assert_eq!(sign(present(7, 4, 4)), Some(CloneSign::Mark));
        assert_eq!(sign(present(6, 99, 1)), Some(CloneSign::WentBack));
        // once it was found to have two users, neither may go on with it
        let known = known.without(present(7, 5, 5).writer);
        assert_eq!(known.contradicted_by(&present(7, 6, 6).into()), Some(CloneSign::WentBack));
    }

    #[test]
    fn a_closed_one_tells_nothing_any_more() {
        let own = OwnWriter::default();
        own.set(Some(present(7, 3, 3)));
        assert!(own.close().is_some());
        own.set(Some(present(8, 1, 1)));
        assert_eq!(own.tell(), None);
    }
}
