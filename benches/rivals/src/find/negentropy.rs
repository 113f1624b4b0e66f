//! negentropy between the same two sets: it finds ids, and nothing else.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::time::Duration;

use negentropy::{Id, Negentropy, NegentropyStorageVector};

use super::Cost;
use super::account::FRAME_HEADER;
use super::world::Item;
use crate::error::RivalsError;
use crate::measure::timed;

/// How items are ordered and how large a message may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Settings {
    /// Largest message in bytes; 0: no limit.
    pub(super) frame: u64,
    /// Items carry the time at which they were written, as in Nostr; else they are ordered by id.
    pub(super) by_time: bool,
}

fn wrong(error: impl Display) -> RivalsError {
    RivalsError::wrong("negentropy", error)
}

fn storage(items: &[Item], by_time: bool) -> Result<NegentropyStorageVector, RivalsError> {
    let mut storage = NegentropyStorageVector::with_capacity(items.len());
    for item in items {
        let time = if by_time { item.millis } else { 0 };
        storage.insert(time, Id::from_byte_array(item.id)).map_err(wrong)?;
    }
    storage.seal().map_err(wrong)?;
    Ok(storage)
}

/// What finding the differences costs; the ids found are checked against those that differ.
pub(super) fn find(
    settings: Settings,
    items: [&[Item]; 2],
    differing: &[Vec<[u8; 32]>; 2],
) -> Result<Cost, RivalsError> {
    let mut cost = Cost { sessions: 1, ..Cost::default() };
    let (stored, time) = timed(|| storage(items[0], settings.by_time));
    let first = stored?;
    let (stored, other) = timed(|| storage(items[1], settings.by_time));
    let second = stored?;
    cost.prepare = time + other;
    let mut a = Negentropy::borrowed(&first, settings.frame).map_err(wrong)?;
    let mut b = Negentropy::borrowed(&second, settings.frame).map_err(wrong)?;
    let (mut have, mut need) = (Vec::new(), Vec::new());
    let (message, time) = timed(|| a.initiate());
    let mut next = Some(message.map_err(wrong)?);
    let mut cpu = [time, Duration::ZERO];
    while let Some(query) = next {
        count(&mut cost, &query);
        let (reply, time) = timed(|| b.reconcile(&query));
        cpu[1] += time;
        let reply = reply.map_err(wrong)?;
        count(&mut cost, &reply);
        let (query, time) = timed(|| a.reconcile_with_ids(&reply, &mut have, &mut need));
        cpu[0] += time;
        next = query.map_err(wrong)?;
    }
    (cost.cpu, cost.find_cpu) = (cpu, cpu);
    for (found, expected) in [(have, &differing[0]), (need, &differing[1])] {
        // an id can come twice when a message was cut short
        let found: BTreeSet<[u8; 32]> = found.into_iter().map(|id| id.to_bytes()).collect();
        if found != expected.iter().copied().collect() {
            return Err(wrong("the ids found are not those that differ"));
        }
    }
    Ok(cost)
}

fn count(cost: &mut Cost, message: &[u8]) {
    cost.bytes.find += message.len() as u64 + FRAME_HEADER;
    cost.messages += 1;
    cost.find_messages += 1;
    cost.find_turns += 1;
}
