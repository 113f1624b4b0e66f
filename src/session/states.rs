//! States of keys: what this side tells of its snapshot, and what it is told of the peer's.

use std::sync::Arc;

use super::knowledge::Theirs;
use super::machine::{Flow, Session};
use super::message::{Bytes, Content, KeyState, ToldSibling, TurnMessage, WriterList};
use super::outcome::Failure;
use super::phase::Phase;
use super::turn::{GATHERED_BYTES, TurnItem, protocol, raw};
use crate::dots::{Dot, Writer};
use crate::entry::{Record, Sibling};
use crate::hash::KeyHash;
use crate::replica::CollectionView;
use crate::types::Key;

/// Values up to this size ride along with the state of their key.
const INLINE_BYTES: u64 = 256;

/// Bytes that stand for a larger one: its size and hash.
const NAMED_BYTES: u64 = 36;

impl Session {
    /// What a value takes in what is told of a sibling, on average.
    pub(super) fn told_value_bytes(&self) -> u64 {
        let totals = self.ours.envelope.totals();
        let average = totals.bytes.checked_div(totals.siblings).unwrap_or(0);
        if average <= INLINE_BYTES { average } else { NAMED_BYTES }
    }

    pub(super) fn gather_states(
        &mut self,
        phase: Phase,
        view: &dyn CollectionView,
    ) -> Result<TurnMessage, Failure> {
        let (mut held, mut absent, mut ask) = (Vec::new(), Vec::new(), Vec::new());
        let (mut writers, mut bytes) = (WriterList::default(), 0);
        while held.len() + absent.len() + ask.len() < self.setup.config.max_batch_size.max(1)
            && bytes < GATHERED_BYTES
        {
            match self.items.front() {
                Some(&TurnItem::Tell(key, found_by)) if found_by == phase => {
                    match self.state_of(&key, &mut writers, view)? {
                        Some(state) => {
                            bytes += state.key.0.len();
                            bytes += state.siblings.iter().map(told_bytes).sum::<usize>();
                            self.knowledge.entry(key, phase).said = true;
                            held.push(state);
                        }
                        None if self.flow == Flow::Both => {
                            // what the peer holds may be dead, and then has to be named (rule D6)
                            if self.knowledge.ask_instead(key, phase) {
                                self.stats.phase(phase).keys_found += 1;
                                ask.push(key);
                            }
                        }
                        None => absent.push(key),
                    }
                }
                Some(&TurnItem::Ask(key, found_by)) if found_by == phase => ask.push(key),
                _ => break,
            }
            self.items.pop_front();
            if self.told_bytes > self.setup.limits.max_session_bytes {
                // enough for one session: the rest is told by the next
                self.partial = true;
                self.items.retain(|item| !matches!(item, TurnItem::Tell(..) | TurnItem::Ask(..)));
            }
        }
        let writers = writers.into_writers();
        Ok(TurnMessage::States { found_by: phase, writers, held, absent, ask })
    }

    fn state_of(
        &mut self,
        key: &KeyHash,
        writers: &mut WriterList,
        view: &dyn CollectionView,
    ) -> Result<Option<KeyState>, Failure> {
        let Some(entry) = view.entry(key)? else { return Ok(None) };
        let peer = Arc::clone(self.peer_seen()?);
        let mut siblings = Vec::with_capacity(entry.record.siblings().len());
        for sibling in entry.record.siblings() {
            let is_news = !peer.has(sibling.dot) && self.flow != Flow::Compare;
            let mut value = None;
            if is_news {
                self.told_bytes = self.told_bytes.saturating_add(sibling.size);
                self.effort.largest_value = self.effort.largest_value.max(sibling.size);
                if sibling.size <= INLINE_BYTES {
                    value = view.value(key, &sibling.value_hash)?;
                }
            }
            match &value {
                Some(value) => self.stats.sent.count(&raw(value.to_vec()), sibling.size),
                None => self.outgoing.told.push(sibling.dot),
            }
            siblings.push(writers.tell(sibling, value.map(|value| Bytes(value.to_vec()))));
        }
        Ok(Some(KeyState { key: Bytes(entry.key.as_bytes().to_vec()), siblings }))
    }

    pub(super) fn peer_holds(
        &mut self,
        state: KeyState,
        writers: &[Writer],
        found_by: Phase,
        view: &dyn CollectionView,
        now_ms: u64,
    ) -> Result<(), Failure> {
        if self.flow == Flow::Give {
            return Err(protocol());
        }
        let key = Key::new(state.key.0).map_err(|_| protocol())?;
        let algorithm = self.ours.spec.algorithm;
        let told = state.siblings.iter().map(|told| told.resolve(writers, algorithm));
        let siblings: Vec<Sibling> = told.collect::<Option<_>>().ok_or_else(protocol)?;
        let record = Record::new(siblings.clone()).map_err(|_| protocol())?;
        if record.siblings() != siblings {
            return Err(protocol());
        }
        let key_hash = self.ours.spec.algorithm.key_hash(&key);
        let rides_along = |told: &ToldSibling| matches!(told.content, Content::Value(_));
        let asked = state.siblings.iter().zip(&siblings).filter(|(told, _)| !rides_along(told));
        let alone: Vec<Dot> = asked.map(|(_, sibling)| sibling.dot).collect();
        let first = self.incoming.count_told(alone.len());
        if !self.room_for(&key_hash) || !self.room_for_bytes(&key, &record) {
            return Ok(());
        }
        let touched = self.note_twins(&key_hash, &record, view)?;
        self.count_found(&key_hash, found_by);
        self.knowledge.learn_dots(key_hash, &record);
        self.incoming.number(first, &alone);
        let known = self.knowledge.entry(key_hash, found_by);
        if known.theirs != Theirs::Unknown {
            return Err(protocol());
        }
        known.key = Some(key);
        known.theirs = Theirs::Holds(record);
        for (told, sibling) in state.siblings.into_iter().zip(&siblings) {
            if let Content::Value(value) = told.content {
                if sibling.size > INLINE_BYTES || !self.takes() {
                    return Err(protocol());
                }
                let encoded = raw(value.0);
                self.stats.received.count(&encoded, sibling.size);
                self.incoming.rides_along(sibling.dot, encoded.bytes);
            }
        }
        self.learned(key_hash, found_by, view, now_ms)?;
        self.incoming.forget_inline();
        for own in touched {
            self.knowledge.refresh(&own);
            // what is held here under the dot is news to the peer
            self.tell(own, found_by);
        }
        Ok(())
    }

    /// A dot that is held here and stands for another put there: the greater of the two stays
    /// (rule D7). Else each side would take its own for seen and dead at the other, and both would
    /// go.
    fn note_twins(
        &mut self,
        key: &KeyHash,
        record: &Record,
        view: &dyn CollectionView,
    ) -> Result<Vec<KeyHash>, Failure> {
        let mut touched = Vec::new();
        if self.flow == Flow::Compare {
            return Ok(touched);
        }
        for &sibling in record.siblings() {
            let own = self.own_sibling(sibling.dot, view)?;
            if let Some(own) = own.filter(|own| *own != (*key, sibling)) {
                self.knowledge.note_twin(own, (*key, sibling));
                self.note_own_twin(sibling.dot, view);
                self.incoming.spare(sibling.dot);
                self.stats.same_dot = self.knowledge.twins().count();
                touched.push(own.0);
            }
        }
        Ok(touched)
    }

    pub(super) fn peer_lacks(
        &mut self,
        key: KeyHash,
        found_by: Phase,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        if matches!(self.flow, Flow::Give | Flow::Both) {
            return Err(protocol());
        }
        if !self.room_for(&key) {
            return Ok(());
        }
        self.count_found(&key, found_by);
        let known = self.knowledge.entry(key, found_by);
        if known.theirs != Theirs::Unknown {
            return Err(protocol());
        }
        known.theirs = Theirs::Nothing;
        self.learned(key, found_by, view, 0)
    }
}

/// What a sibling takes in a message, about.
fn told_bytes(told: &ToldSibling) -> usize {
    match &told.content {
        Content::Named { .. } => 64,
        Content::Value(value) => 32 + value.0.len(),
    }
}
