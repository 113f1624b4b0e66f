//! Joining what a peer has seen, at the end of a verified session (rule D8).

use std::ops::Bound;

use crate::clock::Stamp;
use crate::codec::{CodecError, Reader, Writing as _};
use crate::dots::{Causality, Dot, DotRun, DotSet};
use crate::entry::Totals;
use crate::hash::{KeyHash, TreeHash};
use crate::store::{Durability, Read, Span, Store, Table};

use super::ReplicaError;
use super::collection::Collection;
use super::commit::Seen;
use super::draft::{Draft, Held, stored_holder};
use super::pages::ReadError;
use super::rows::{CollectionId, dot_of_key};
use super::view::{JoinRecord, JoinRequest};

/// Rows of the dot index read at once.
const CHUNK: usize = 1_024;
/// Dots that are asked for one by one: a range scan costs what twenty of them do, and more for
/// each level of the store.
const FEW: u64 = 16;

impl<S: Store> Collection<S> {
    /// Joins the peer's context: removes the dots of its exceptions that are held here, takes the
    /// greater counter of each writer and the exceptions of both, as far as nothing was refused.
    /// One commit, synced together with all that was applied before it. How many siblings went.
    ///
    /// Dots that the session refused are left alone, even if the peer has seen them dead: their
    /// key was left alone too.
    ///
    /// # Errors
    /// The collection was recovered since the session's snapshot, the store failed, or what is
    /// held is damaged; nothing was joined.
    pub fn join(&self, request: &JoinRequest, now_ms: u64) -> Result<u64, ReplicaError> {
        let announced = self.store.announce();
        let (removed, number) = {
            let mut state = self.lock();
            let live = state.live(&self.spec.name)?;
            self.check_epoch(live.head.epoch, request.epoch)?;
            let mut draft = Draft::new(self.ground(live));
            let mut removed = 0;
            for (dot, key) in self.held_exceptions(request)? {
                removed += u64::from(draft.remove(&key, dot)?);
            }
            let drafted = draft.finish()?;
            let before = Causality::clone(&live.causality);
            let mut after = before.clone();
            let from = (&*self.store, self.id, &self.spec.name);
            let held = Held::new(from, &live.tree, &drafted.dots, live.writer.present());
            for &dot in drafted.dots.keys() {
                after.mark_dead(dot, |dot| held.contains(dot));
            }
            let JoinRequest { peer, refused, .. } = request;
            if refused.is_empty() {
                after.join(peer, |dot| held.contains(dot));
            } else {
                let most = self.node.limits.max_exceptions;
                after.join_with_refusals(peer, refused, most, |dot| held.contains(dot));
            }
            held.finish()?;
            if !drafted.is_empty() || before != after {
                let writer = live.writer.present();
                self.commit(live, drafted, &Seen { before, after }, writer, now_ms)?;
            }
            (removed, live.number)
        };
        drop(announced);
        self.store.settle(number, Durability::Always)?;
        Ok(removed)
    }

    /// Dots held here that the peer has seen dead above its context. Walks over what is held, not
    /// over what the peer lists.
    fn held_exceptions(&self, request: &JoinRequest) -> Result<Vec<(Dot, KeyHash)>, ReplicaError> {
        let mut found = Vec::new();
        for run in request.peer.exceptions().runs() {
            let mut left = Some(run);
            while let Some(run) = left {
                let held = held_in(&*self.store, self.id, run, CHUNK)
                    .map_err(|error| error.of(self.name()))?;
                let last = held.last().filter(|_| held.len() == CHUNK);
                left = last.and_then(|(dot, _)| run.after(dot.counter()));
                found.extend(held.into_iter().filter(|(dot, _)| !request.refused.contains(*dot)));
            }
        }
        Ok(found)
    }
}

/// The dots of a run that are held, at most `limit`.
pub(super) fn held_in(
    store: &impl Read,
    id: CollectionId,
    run: DotRun,
    limit: usize,
) -> Result<Vec<(Dot, KeyHash)>, ReadError> {
    let [first, last] = [run.first, run.last].map(|at| Dot::of(run.writer, at));
    let (Some(first), Some(last)) = (first, last) else { return Ok(Vec::new()) };
    if last.counter() - first.counter() < FEW.min(limit as u64) {
        return held_of_few(store, id, first, last);
    }
    let (first, last) = (id.dot(first), id.dot(last));
    let prefix = id.writer_dots(run.writer);
    let rows = store.scan(
        Span::of(Table::Dots, &prefix).start_at(Bound::Included(&first)).through(&last),
        limit,
    )?;
    rows.iter().map(|row| parse_dot_row(&row.key, &row.value)).collect()
}

/// The same, one by one.
fn held_of_few(
    store: &impl Read,
    id: CollectionId,
    first: Dot,
    last: Dot,
) -> Result<Vec<(Dot, KeyHash)>, ReadError> {
    let mut found = Vec::new();
    let mut next = Some(first);
    while let Some(dot) = next {
        found.extend(stored_holder(store, id, dot)?.map(|key| (dot, key)));
        next = dot.next().filter(|next| *next <= last);
    }
    Ok(found)
}

/// A row of the dot index.
pub(super) fn parse_dot_row(key: &[u8], value: &[u8]) -> Result<(Dot, KeyHash), ReadError> {
    let dot = dot_of_key(key).map_err(|error| ReadError::row("the key of a dot", &error))?;
    let key = <[u8; 32]>::try_from(value)
        .map_err(|_| ReadError::damaged(format!("the index row of dot {dot}")))?;
    Ok((dot, KeyHash(key)))
}

/// Tree hash and totals, after the context.
const JOINED_STATE_BYTES: usize = 32 + 4 * 8;

/// The row that remembers a join.
pub(super) fn write_join(epoch: u64, record: &JoinRecord) -> Result<Vec<u8>, ReplicaError> {
    let mut row = Vec::new();
    row.put_u64(epoch);
    row.put_u64(record.log_position);
    row.put_bytes(&record.merged.to_bytes()?);
    row.put_bytes(&record.tree.0);
    let Totals { entries, siblings, bytes, latest } = record.totals;
    [entries, siblings, bytes, latest.0].into_iter().for_each(|total| row.put_u64(total));
    Ok(row)
}

/// What is remembered of a join; none when the collection was recovered since.
pub(super) fn read_join(epoch: u64, row: &[u8]) -> Result<Option<JoinRecord>, CodecError> {
    let mut reader = Reader::new(row);
    let (written_in, log_position) = (reader.u64()?, reader.u64()?);
    if written_in != epoch {
        return Ok(None);
    }
    let context = reader.remaining().saturating_sub(JOINED_STATE_BYTES);
    let merged = Causality::parse(reader.bytes(context)?)
        .map_err(|_| CodecError::Invalid("the context of a join does not parse"))?;
    let tree = TreeHash(reader.array()?);
    let (entries, siblings) = (reader.u64()?, reader.u64()?);
    let (bytes, latest) = (reader.u64()?, Stamp(reader.u64()?));
    let totals = Totals { entries, siblings, bytes, latest };
    Ok(Some(JoinRecord { log_position, merged, tree, totals }))
}

/// All dots that are held, as runs.
pub(super) fn all_held(store: &impl Read, id: CollectionId) -> Result<DotSet, ReadError> {
    let mut held = DotSet::default();
    let mut last: Option<Box<[u8]>> = None;
    loop {
        let start = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let keys = store.scan_keys(Span::of(Table::Dots, &id.prefix()).start_at(start), CHUNK)?;
        for key in &keys {
            held.insert(
                dot_of_key(key).map_err(|error| ReadError::row("the key of a dot", &error))?,
            );
        }
        match keys.into_iter().next_back() {
            Some(key) => last = Some(key),
            None => return Ok(held),
        }
    }
}
