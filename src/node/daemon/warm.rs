//! Makes the sketches of collections in the background, so that sessions find them made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::sleep;

use super::Shared;
use crate::replica::Warming;
use crate::store::Store;
use crate::types::CollectionName;

/// Time between two looks at which collection has none.
const LOOK: Duration = Duration::from_secs(1);
/// How long a collection that could not be read is left alone.
const AGAIN: Duration = Duration::from_secs(600);

impl<S: Store> Shared<S> {
    /// Makes sketches where they are worth keeping and not made, half of the time, until the
    /// daemon is to stop.
    pub(super) async fn warm_forever(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut failed: BTreeMap<CollectionName, Instant> = BTreeMap::new();
        loop {
            for collection in self.current.node().replica.collections() {
                let name = collection.name();
                failed.retain(|_, when| when.elapsed() < AGAIN);
                while !*stop.borrow() && !failed.contains_key(name) {
                    let begun = Instant::now();
                    match block_in_place(|| collection.warm_sketches()) {
                        Ok(Warming::Rests) => break,
                        Ok(Warming::Goes) => {}
                        Err(error) => {
                            tracing::debug!(collection = %name, %error, "no sketches made");
                            failed.insert(name.clone(), Instant::now());
                        }
                    }
                    tokio::select! {
                        () = sleep(begun.elapsed()) => {}
                        _ = stop.wait_for(|stop| *stop) => return,
                    }
                }
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }
}
