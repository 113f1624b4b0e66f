//! What a daemon does against rot: it scrubs in the background, and has peers give back at once
//! what anybody found lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::sleep;

use super::Shared;
use crate::net::Link;
use crate::node::Node;
use crate::node::client::ClientError;
use crate::node::peers::Grant;
use crate::replica::{Collection, Rot};
use crate::store::Store;
use crate::types::{CollectionName, NodeId};

/// Time between two looks at which collection is to be scrubbed.
const LOOK: Duration = Duration::from_secs(1);
/// Rows removed at once of a restore that was cut short.
const SWEPT_ROWS: usize = 16_384;
/// Findings of one slice that are told one by one.
const TOLD: usize = 20;

impl<S: Store> Shared<S> {
    /// Scrubs one collection after the other when each is due, until the daemon is to stop.
    pub(super) async fn scrub_forever(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        // what a restore left that was cut short
        let replica = &self.current.node().replica;
        while !*stop.borrow() && matches!(block_in_place(|| replica.sweep(SWEPT_ROWS)), Ok(true)) {
            tokio::task::yield_now().await;
        }
        let mut jitters: BTreeMap<CollectionName, u64> = BTreeMap::new();
        loop {
            for collection in self.current.node().replica.collections() {
                let name = collection.name();
                let jitter = *jitters.entry(name.clone()).or_insert_with(rand::random);
                if self.is_due(&collection, jitter) {
                    self.scrub(&collection, &stop).await;
                    jitters.remove(name);
                }
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    fn is_due(&self, collection: &Collection<S>, jitter: u64) -> bool {
        let settings = self.settings().scrub;
        if settings.interval_ms == 0 {
            return false;
        }
        // a damaged one has to be recovered first
        let report = block_in_place(|| collection.scrub_report());
        let due = report.ok().and_then(|report| settings.due_ms(&report, self.started_ms, jitter));
        due.is_some_and(|due| due <= Node::<S>::now_ms())
    }

    async fn scrub(&self, collection: &Collection<S>, stop: &watch::Receiver<bool>) {
        let name = collection.name();
        tracing::debug!(collection = %name, "scrub begins");
        let mut stopped = stop.clone();
        loop {
            // whoever changes the settings is heeded within a slice
            let settings = self.settings().scrub;
            if settings.interval_ms == 0 || *stop.borrow() {
                // it goes on from here
                let _ = block_in_place(|| collection.keep_scrub());
                return;
            }
            let begun = Instant::now();
            let step = block_in_place(|| collection.scrub(settings.slice(), Node::<S>::now_ms()));
            let step = match step {
                Ok(step) => step,
                Err(error) => {
                    tracing::warn!(collection = %name, %error, "not scrubbed");
                    return;
                }
            };
            tell(name, &step.found);
            if step.ended {
                let (entries, found) = (step.progress.entries, step.progress.found);
                let mended = step.progress.mended;
                tracing::info!(collection = %name, entries, found, mended, "scrubbed");
                return;
            }
            tokio::select! {
                () = sleep(settings.pause(step.bytes, begun.elapsed())) => {}
                _ = stopped.wait_for(|stop| *stop) => {}
            }
        }
    }

    /// The collections of which something was found lost since the last look.
    pub(super) fn look_for_losses(
        &self,
        seen: &mut BTreeMap<CollectionName, u64>,
    ) -> Vec<CollectionName> {
        let mut lost = Vec::new();
        for collection in self.current.node().replica.collections() {
            let noted = collection.losses_noted();
            let last = seen.entry(collection.name().clone()).or_default();
            if std::mem::replace(last, noted) != noted {
                lost.push(collection.name().clone());
            }
        }
        lost
    }

    /// Asks all connected peers for what was lost here.
    pub(super) async fn mend_everywhere(self: Arc<Self>, name: CollectionName) {
        for kept in self.links.all() {
            if *self.stop.borrow() {
                return;
            }
            self.mend(&kept.link, &name).await;
        }
    }

    /// Fetches entries that rotted and values whose bytes were lost here: no session would, where
    /// nothing differs.
    pub(super) async fn mend(&self, link: &Link, name: &CollectionName) {
        let peer = link.peer();
        match self.fetch(link, name).await {
            Ok((0, 0)) => {}
            Ok((entries, values)) => {
                tracing::info!(collection = %name, %peer, entries, values, "given back by a peer");
            }
            Err(error) => {
                tracing::warn!(collection = %name, %peer, %error, "what is lost was not fetched");
            }
        }
    }

    async fn fetch(&self, link: &Link, name: &CollectionName) -> Result<(u64, u64), ClientError> {
        let node = self.current.node();
        let Ok(collection) = node.replica.collection(name) else { return Ok((0, 0)) };
        if node.access.grant(&link.peer(), name) < Grant::Write || collection.damage().is_some() {
            return Ok((0, 0));
        }
        let stop = self.stop.subscribe();
        let entries = node.fetch_rotten(link, &collection, stop.clone()).await?.installed;
        Ok((entries, node.fetch_lost(link, &collection, stop).await?))
    }

    /// Asks the other peers for entries that rotted, before a session with this one: what none
    /// has is lost for good.
    pub(super) async fn ask_others(&self, collection: &Arc<Collection<S>>, peer: &NodeId) {
        let rotten = || block_in_place(|| collection.rotten_entries(1));
        for kept in self.links.all() {
            if !rotten().is_ok_and(|rotten| !rotten.is_empty()) {
                return;
            }
            if kept.link.peer() != *peer {
                self.mend(&kept.link, collection.name()).await;
            }
        }
    }
}

fn tell(name: &CollectionName, found: &[Rot]) {
    for Rot { kind, key, what, mended, .. } in found.iter().take(TOLD) {
        let (kind, key) = (kind.word(), key.map(|key| key.to_string()));
        if *mended {
            tracing::warn!(collection = %name, kind, key, what, "rot found and mended");
        } else {
            tracing::error!(collection = %name, kind, key, what, "rot found: a peer has to help");
        }
    }
    if found.len() > TOLD {
        let more = found.len() - TOLD;
        tracing::error!(collection = %name, more, "more rot found");
    }
}
