//! Applying what a peer sent to the live state (rule D7).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::dots::Dot;
use crate::entry::Sibling;
use crate::hash::{KeyHash, ValueHash};
use crate::mutants::{Mutant, breaks};
use crate::store::{Durability, Store};
use crate::types::{Key, NodeId};

use super::ReplicaError;
use super::collection::Collection;
use super::draft::Draft;
use super::evidence::{ClaimedPut, SameDot};
use super::known::Known;
use super::reports::incidents;
use super::snapshot::Snapshot;
use super::view::{ApplyOutcome, IncomingSibling, KeyUpdate, RefusalReason, Refused};

/// What is to be done about the items of one key.
#[derive(Default)]
struct Verdict {
    outcome: ApplyOutcome,
    /// Siblings to add.
    add: Vec<Accepted>,
    /// Siblings that lost against a held one with the same dot, and those.
    lost: Vec<(Sibling, (KeyHash, Sibling))>,
}

/// A sibling to add, and the one held under the same dot that makes way.
struct Accepted {
    incoming: IncomingSibling,
    loser: Option<(KeyHash, Sibling)>,
}

impl<S: Store> Collection<S> {
    /// Applies what was said of some keys to the live state, all in one commit: whatever was
    /// said, only unseen siblings are added and only named dots removed (rule D7). Outcomes
    /// stand in the order of the updates.
    ///
    /// No sync is waited for: nothing is promised to anyone before the join, which syncs all that
    /// was applied before it. A crash before that takes back unseen what was applied, and the next
    /// session brings it again.
    ///
    /// `epoch` is that of the snapshot on which the session works.
    ///
    /// # Errors
    /// The collection was recovered since that snapshot, the store failed, or what is held is
    /// damaged; nothing was applied.
    pub fn apply(
        &self,
        updates: Vec<KeyUpdate>,
        epoch: u64,
        now_ms: u64,
    ) -> Result<Vec<ApplyOutcome>, ReplicaError> {
        self.apply_all((None, None), updates, epoch, now_ms)
    }

    /// The same, said by this peer in a session that works on this snapshot: what is kept as
    /// evidence names the peer, and what the session has read is not read again.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn apply_of(
        &self,
        peer: NodeId,
        view: &Snapshot<S>,
        updates: Vec<KeyUpdate>,
        now_ms: u64,
    ) -> Result<Vec<ApplyOutcome>, ReplicaError> {
        let known = Some(Arc::clone(&view.known));
        self.apply_all((Some(peer), known), updates, view.head.epoch, now_ms)
    }

    fn apply_all(
        &self,
        (peer, known): (Option<NodeId>, Option<Arc<Known>>),
        updates: Vec<KeyUpdate>,
        epoch: u64,
        now_ms: u64,
    ) -> Result<Vec<ApplyOutcome>, ReplicaError> {
        let durability = match self.node.durability {
            Durability::Always => Durability::Periodic,
            other => other,
        };
        self.change_as(durability, now_ms, |draft, _| {
            self.check_epoch(draft.epoch(), epoch)?;
            known.into_iter().for_each(|known| draft.know(known));
            updates
                .into_iter()
                .map(|update| self.apply_one(draft, update, (peer, now_ms)))
                .collect()
        })
    }

    pub(super) fn check_epoch(&self, live: u64, asked: u64) -> Result<(), ReplicaError> {
        if live == asked {
            Ok(())
        } else {
            Err(ReplicaError::OtherEpoch(self.spec.name.to_string()))
        }
    }

    fn apply_one(
        &self,
        draft: &mut Draft<'_, S>,
        update: KeyUpdate,
        (peer, now_ms): (Option<NodeId>, u64),
    ) -> Result<ApplyOutcome, ReplicaError> {
        let KeyUpdate { key, key_hash, add, remove } = update;
        let before = draft.siblings(&key_hash)?.to_vec();
        let deleted =
            if before.is_empty() && !add.is_empty() { draft.deleted_at(&key_hash)? } else { None };
        let mut verdict = self.judge(draft, &key_hash, add, now_ms)?;
        if !verdict.outcome.missing_values.is_empty() {
            return Ok(verdict.outcome);
        }
        let remove: BTreeSet<Dot> = remove.into_iter().collect();
        self.judge_count(draft, &key_hash, &remove, &mut verdict)?;
        let Verdict { mut outcome, add, lost } = verdict;
        if outcome.refused.is_empty() {
            for dot in remove {
                // where it is said to be; the index is asked only for those that stand elsewhere
                if draft.remove(&key_hash, dot)? {
                    outcome.removed += 1;
                } else if let Some(holder) = draft.holder(dot)? {
                    outcome.removed += u64::from(draft.remove(&holder, dot)?);
                }
            }
        }
        let key = key.filter(|key| self.key_hash(key) == key_hash);
        for (sibling, (holder, held)) in lost {
            let lost = ClaimedPut { key_hash, key: key.clone(), sibling };
            let kept = ClaimedPut { key_hash: holder, key: draft.key(&holder), sibling: held };
            draft.keep_evidence(SameDot {
                found_ms: now_ms,
                peer,
                lost,
                kept: Some(kept),
                lost_here: false,
            });
        }
        if let Some(key) = &key {
            outcome.added = self.add_all(draft, key, &key_hash, add, (peer, now_ms))?;
        }
        if outcome.added + outcome.removed > 0
            && let Some(key) = key.or_else(|| draft.key(&key_hash))
        {
            let incidents = incidents(&before, draft.siblings(&key_hash)?, deleted);
            outcome.incidents = incidents.into_iter().map(|one| (key.clone(), one)).collect();
        }
        Ok(outcome)
    }

    /// Adds siblings that were accepted; how many.
    fn add_all(
        &self,
        draft: &mut Draft<'_, S>,
        key: &Key,
        key_hash: &KeyHash,
        add: Vec<Accepted>,
        (peer, now_ms): (Option<NodeId>, u64),
    ) -> Result<u64, ReplicaError> {
        let mut added = 0;
        for Accepted { incoming, loser } in add {
            let sibling = incoming.sibling;
            if let Some((holder, held)) = loser {
                draft.remove(&holder, held.dot)?;
                let lost = ClaimedPut { key_hash: holder, key: draft.key(&holder), sibling: held };
                let kept = ClaimedPut { key_hash: *key_hash, key: Some(key.clone()), sibling };
                draft.keep_evidence(SameDot {
                    found_ms: now_ms,
                    peer,
                    lost,
                    kept: Some(kept),
                    lost_here: true,
                });
            }
            // refused above if it is beyond the drift that the clock allows
            let drift = self.node.limits.max_clock_drift_ms;
            let _ = self.node.clock().observe(sibling.stamp, now_ms, drift);
            draft.add(key, key_hash, sibling, incoming.value)?;
            added += 1;
        }
        Ok(added)
    }

    /// Which siblings are to be added, refused, or asked for again with their value.
    fn judge(
        &self,
        draft: &mut Draft<'_, S>,
        key_hash: &KeyHash,
        add: Vec<IncomingSibling>,
        now_ms: u64,
    ) -> Result<Verdict, ReplicaError> {
        let mut verdict = Verdict::default();
        // a value that several siblings share is sent once
        let given: BTreeMap<ValueHash, Arc<[u8]>> = add
            .iter()
            .filter_map(|item| Some((item.sibling.value_hash, Arc::clone(item.value.as_ref()?))))
            .collect();
        let mut taken = BTreeSet::new();
        for mut incoming in add {
            let sibling = incoming.sibling;
            let dot = sibling.dot;
            let loser = match draft.holder(dot)? {
                Some(holder) => {
                    let held = held_sibling(draft, &holder, dot)?;
                    if holder == *key_hash && held == Some(sibling) {
                        continue;
                    }
                    held.map(|held| (holder, held))
                }
                None if draft.was_seen(dot) && !breaks(Mutant::ApplyBlindly) => continue,
                None => None,
            };
            if !taken.insert(dot) {
                continue;
            }
            if let Some((holder, held)) = &loser
                && (holder, held.to_bytes()) > (key_hash, sibling.to_bytes())
            {
                verdict.lost.push((sibling, (*holder, *held)));
                verdict.refuse(dot, RefusalReason::SameDot);
                continue;
            }
            incoming.value = given.get(&sibling.value_hash).cloned();
            let size = match &incoming.value {
                Some(value) => Some(value.len() as u64),
                None => draft.value_size(key_hash, &sibling.value_hash)?,
            };
            let limits = &self.node.limits;
            if sibling.stamp.beyond_drift(now_ms, limits.max_clock_drift_ms) {
                verdict.refuse(dot, RefusalReason::Drift);
            } else if sibling.size > limits.max_value_bytes {
                verdict.refuse(dot, RefusalReason::ValueSize);
            } else {
                match size {
                    None => verdict.outcome.missing_values.push(dot),
                    Some(size) if size != sibling.size => {
                        verdict.refuse(dot, RefusalReason::Unavailable);
                    }
                    Some(_) => verdict.add.push(Accepted { incoming, loser }),
                }
            }
        }
        Ok(verdict)
    }

    /// Refuses what would make an entry of too many siblings.
    fn judge_count(
        &self,
        draft: &mut Draft<'_, S>,
        key_hash: &KeyHash,
        remove: &BTreeSet<Dot>,
        verdict: &mut Verdict,
    ) -> Result<(), ReplicaError> {
        let removes = verdict.outcome.refused.is_empty();
        let goes = |sibling: &Sibling| {
            let loses = |accepted: &Accepted| accepted.loser == Some((*key_hash, *sibling));
            (removes && remove.contains(&sibling.dot)) || verdict.add.iter().any(loses)
        };
        let stay = draft.siblings(key_hash)?.iter().filter(|sibling| !goes(sibling)).count();
        if !verdict.add.is_empty()
            && stay + verdict.add.len() > self.node.limits.max_siblings.max(1)
        {
            for accepted in std::mem::take(&mut verdict.add) {
                verdict.refuse(accepted.incoming.sibling.dot, RefusalReason::Siblings);
            }
        }
        Ok(())
    }
}

impl Verdict {
    fn refuse(&mut self, dot: Dot, reason: RefusalReason) {
        self.outcome.refused.push(Refused { dot, reason });
    }
}

fn held_sibling<S: Store>(
    draft: &mut Draft<'_, S>,
    holder: &KeyHash,
    dot: Dot,
) -> Result<Option<Sibling>, ReplicaError> {
    Ok(draft.siblings(holder)?.iter().find(|sibling| sibling.dot == dot).copied())
}
