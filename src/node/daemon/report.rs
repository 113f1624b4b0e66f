//! What a daemon says of itself.

use std::collections::BTreeMap;

use super::Shared;
use crate::node::Node;
use crate::node::peers::Grant;
use crate::node::schedule::PeerNote;
use crate::node::status::{CollectionStatus, PairFlow, PairStatus, PeerStatus, Status};
use crate::replica::Collection;
use crate::store::Store;
use crate::types::{CollectionName, NodeId};

impl<S: Store> Shared<S> {
    pub(super) fn report(&self) -> Status {
        let node = self.current.node();
        Status {
            id: node.id().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_ms: self.now(),
            listen: self.endpoint.local_address().to_string(),
            clock_ms: Node::<S>::now_ms(),
            peers: self.peers(&node),
            collections: node.replica.collections().iter().map(|one| described(one)).collect(),
            pairs: self.pairs(&node),
            running: self.sessions.running(),
            sessions: self.sessions.counters(),
        }
    }

    /// A time of the plan as milliseconds since 1970.
    fn unix_ms(&self, at: u64) -> u64 {
        self.started_ms.saturating_add(at)
    }

    fn peers(&self, node: &Node<S>) -> Vec<PeerStatus> {
        let drift = node.replica.limits().max_clock_drift_ms;
        let book = node.access.book();
        let mut notes: BTreeMap<NodeId, PeerNote> =
            self.plan().peers().map(|(id, note)| (*id, note)).collect();
        for peer in &book.peers {
            notes.entry(peer.id).or_default();
        }
        notes.remove(&node.id());
        let faults = node.sessions.tally().faults;
        let status = |(id, note): (NodeId, PeerNote)| {
            let kept = self.links.preferred(&id);
            let kept = kept.as_ref();
            let ahead = kept.map(|kept| kept.clock_ahead_ms);
            let since = |since: std::time::Instant| {
                Node::<S>::now_ms().saturating_sub(since.elapsed().as_millis() as u64)
            };
            PeerStatus {
                id: id.to_string(),
                name: book.entry(&id).and_then(|peer| peer.name.as_ref()).map(|n| n.to_string()),
                address: kept.map(|kept| kept.link.connection().remote_address().to_string()),
                connected_since_ms: kept.map(|kept| since(kept.since)),
                clock_ahead_ms: ahead,
                clock_is_off: ahead.is_some_and(|ahead| ahead.unsigned_abs() > drift),
                last_answer_ms: note.answered.map(|at| self.unix_ms(at)),
                last_error: note.error,
                next_attempt_ms: note.due.map(|at| self.unix_ms(at)),
                failures: note.failed,
                faults: faults.get(&id.to_string()).copied().unwrap_or_default(),
            }
        };
        notes.into_iter().map(status).collect()
    }

    fn pairs(&self, node: &Node<S>) -> Vec<PairStatus> {
        let states: BTreeMap<_, _> = node
            .replica
            .collections()
            .iter()
            .map(|one| (one.name().clone(), one.state_hash().ok()))
            .collect();
        let now_ms = Node::<S>::now_ms();
        let flow = |peer: &NodeId, name: &CollectionName| {
            let only_read = self.is_read_only(&(*peer, name.clone()));
            match (node.access.grant(peer, name), only_read) {
                (Grant::Write, false) => PairFlow::Both,
                (Grant::Write, true) => PairFlow::Pull,
                (Grant::Read, false) => PairFlow::Push,
                (Grant::Read, true) | (Grant::None, _) => PairFlow::Neither,
            }
        };
        let plan = self.plan();
        plan.pairs()
            .map(|(peer, name, pair, next)| {
                // what was written since is not there yet
                let now = states.get(name).copied().flatten();
                let equal = pair.equal.filter(|(_, state)| state.is_none() || *state == now);
                PairStatus {
                    peer: peer.to_string(),
                    collection: name.to_string(),
                    last_outcome: pair.last.as_ref().map(|(outcome, _)| outcome.clone()),
                    last_ended_ms: pair.last.as_ref().map(|(_, at)| self.unix_ms(*at)),
                    equal_since_ms: equal.map(|(since, _)| self.unix_ms(since)),
                    last_equal_ms: match equal {
                        Some(_) => Some(now_ms),
                        None => pair.last_equal.map(|at| self.unix_ms(at)),
                    },
                    last_failure: pair.failure.clone(),
                    failures: pair.failed,
                    braked_keys: pair.braked,
                    flow: flow(peer, name),
                    next_session_ms: next.map(|at| self.unix_ms(at)),
                }
            })
            .collect()
    }
}

fn described<S: Store>(collection: &Collection<S>) -> CollectionStatus {
    let name = collection.name().to_string();
    let (totals, root) = match (collection.totals(), collection.root()) {
        (Ok(totals), Ok(root)) => (totals, root),
        (Err(error), _) | (_, Err(error)) => {
            let damage = Some(error.to_string());
            return CollectionStatus { name, damage, ..CollectionStatus::default() };
        }
    };
    CollectionStatus {
        name,
        entries: totals.entries,
        bytes: totals.bytes,
        root: root.to_string(),
        conflicts: totals.siblings.saturating_sub(totals.entries),
        last_change_ms: (totals.entries > 0).then(|| totals.latest.millis()),
        damage: None,
    }
}
