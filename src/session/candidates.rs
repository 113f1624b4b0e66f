//! Candidates: dots held here that the peer has seen and seems not to hold, and the answer to
//! them.

use std::collections::BTreeMap;

use super::machine::{Flow, Session};
use super::message::{Bytes, CANDIDATE_KEY_BYTES, TurnMessage, WireDots};
use super::outcome::Failure;
use super::turn::{RUN_BYTES, RUNS_PER_MESSAGE, TurnItem, protocol};
use crate::dots::{Dot, DotSet};
use crate::hash::KeyHash;
use crate::merkle::Prefix;
use crate::replica::CollectionView;

/// What looking for one candidate counts as, in steps: most of it is reading a page.
const CANDIDATE_STEPS: u64 = 8;

impl Session {
    /// Asks which of these dots the peer has seen dead, and says under which keys they are held.
    pub(super) fn ask_removed(&mut self, held: &BTreeMap<Dot, KeyHash>) {
        let held: Vec<_> = held.iter().collect();
        for part in held.chunks(RUNS_PER_MESSAGE) {
            let dots: DotSet = part.iter().map(|(dot, _)| **dot).collect();
            let mut keys = Vec::with_capacity(part.len() * CANDIDATE_KEY_BYTES);
            for (_, key) in part {
                keys.extend_from_slice(&key.0[..CANDIDATE_KEY_BYTES]);
            }
            let bytes = RUN_BYTES * dots.run_count() + keys.len();
            let dots = WireDots::from(&dots);
            let message = TurnMessage::Candidates { dots, keys: Bytes(keys) };
            self.queue(TurnItem::Message(Box::new(message)), bytes);
        }
    }

    /// The peer asks which of its dots are dead. That the index of dots lacks one is no answer:
    /// a row of it may have rotted. A dot is named only if the page where it would stand verifies
    /// and no entry there holds it (rule D10).
    pub(super) fn candidates(
        &mut self,
        dots: &DotSet,
        keys: &[u8],
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        let (keys, rest) = keys.as_chunks::<CANDIDATE_KEY_BYTES>();
        if self.flow == Flow::Take || !rest.is_empty() || dots.count() != keys.len() as u64 {
            return Err(protocol());
        }
        let mut dead = DotSet::default();
        for (dot, key) in dots.iter().zip(keys) {
            self.charge(CANDIDATE_STEPS)?;
            if !view.causality().knows(dot) {
                continue;
            }
            let prefix =
                Prefix::new(key, 8 * CANDIDATE_KEY_BYTES as u16).map_err(|_| protocol())?;
            let leaves = view.page(&prefix)?;
            let held = match leaves[..] {
                [] => false,
                [leaf] => view.entry(&leaf.key)?.is_some_and(|entry| entry.record.holds(dot)),
                // two keys that share 64 bits were ground to: what is not looked at is not named
                _ => true,
            };
            if !held {
                dead.insert(dot);
            }
        }
        self.name_removed(&dead);
        Ok(())
    }
}
