//! The group committer: one sync for all writers that wait for one.
//!
//! There is no thread between a writer and the sync: whoever finds that no sync is running runs it,
//! for all that was applied by then; the others wait for its end. Before it starts, the one that syncs
//! gives writers that are already on their way as long as the last sync took to get aboard, so
//! that many writers share few syncs, and a single one never waits for anybody.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Announced, CommitNumber, StoreError};

/// Longest time that a sync waits for writers on their way.
const MAX_GATHERING: Duration = Duration::from_millis(5);

/// Orders batches and shares syncs among those who wait for them.
pub(super) struct Committer {
    state: Mutex<State>,
    synced: Condvar,
    on_their_way: Arc<AtomicUsize>,
}

struct State {
    applied: CommitNumber,
    /// None until the first sync: an earlier process may have left what was never synced, so even
    /// who waits for nothing newer waits for one.
    synced: Option<CommitNumber>,
    syncing: bool,
    last_sync: Duration,
    failed: Option<StoreError>,
}

impl Default for Committer {
    fn default() -> Self {
        let state = State {
            applied: CommitNumber(0),
            synced: None,
            syncing: false,
            last_sync: Duration::ZERO,
            failed: None,
        };
        Self { state: Mutex::new(state), synced: Condvar::new(), on_their_way: Arc::default() }
    }
}

impl Committer {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn announce(&self) -> Announced {
        Announced::counted(&self.on_their_way)
    }

    /// Applies a batch unless an earlier failure forbids it; a failure forbids all later ones,
    /// for nobody knows what of it reached the disk.
    pub(super) fn apply(
        &self,
        apply: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<CommitNumber, StoreError> {
        self.refusal()?;
        match apply() {
            Ok(()) => {
                let mut state = self.lock();
                state.applied.0 += 1;
                Ok(state.applied)
            }
            Err(error) => {
                self.lock().failed.get_or_insert(error.clone());
                Err(error)
            }
        }
    }

    /// The error that an earlier failure left.
    pub(super) fn refusal(&self) -> Result<(), StoreError> {
        match &self.lock().failed {
            Some(error) => Err(refusing(error)),
            None => Ok(()),
        }
    }

    /// The earlier failure itself, for a batch that was applied before it and may be lost by it.
    pub(super) fn failure(&self) -> Result<(), StoreError> {
        self.lock().failed.clone().map_or(Ok(()), Err)
    }

    /// A write failed: nothing is taken any more.
    pub(super) fn fail(&self, error: &StoreError) {
        self.lock().failed.get_or_insert(error.clone());
    }

    /// The last batch applied.
    pub(super) fn applied(&self) -> CommitNumber {
        self.lock().applied
    }

    /// Waits until the batch and all before it are synced.
    pub(super) fn settle(
        &self,
        number: CommitNumber,
        sync: impl Fn() -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut state = self.lock();
        loop {
            if state.synced >= Some(number) {
                return Ok(());
            }
            if let Some(error) = &state.failed {
                // what failed is why this batch may be lost
                return Err(error.clone());
            }
            if state.syncing {
                state = self.synced.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.syncing = true;
            let patience = state.last_sync.min(MAX_GATHERING);
            drop(state);
            self.gather(patience);
            let target = self.lock().applied;
            let begun = Instant::now();
            let result = sync();
            state = self.lock();
            state.syncing = false;
            state.last_sync = begun.elapsed();
            match result {
                Ok(()) => state.synced = state.synced.max(Some(target)),
                Err(error) => {
                    state.failed.get_or_insert(error);
                }
            }
            self.synced.notify_all();
        }
    }

    /// Gives writers that are on their way the time to apply their batches.
    fn gather(&self, patience: Duration) {
        let begun = Instant::now();
        while self.on_their_way.load(Ordering::Relaxed) > 0 && begun.elapsed() < patience {
            std::thread::yield_now();
        }
    }
}

/// What is said to later writers; a full disk says itself what to do.
fn refusing(error: &StoreError) -> StoreError {
    match error {
        StoreError::Full => StoreError::Full,
        other => StoreError::Refusing(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn writers_share_syncs_and_none_is_answered_before_its_own() {
        let committer = Committer::default();
        let (applied, synced, syncs) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let announced = committer.announce();
                        let number = committer
                            .apply(|| {
                                applied.fetch_add(1, Ordering::SeqCst);
                                Ok(())
                            })
                            .expect("no failure");
                        drop(announced);
                        let sync = || {
                            let seen = applied.load(Ordering::SeqCst);
                            std::thread::sleep(Duration::from_millis(1));
                            synced.fetch_max(seen, Ordering::SeqCst);
                            syncs.fetch_add(1, Ordering::SeqCst);
                            Ok(())
                        };
                        committer.settle(number, sync).expect("no failure");
                        assert!(synced.load(Ordering::SeqCst) >= number.0);
                    }
                });
            }
        });
        assert!(syncs.load(Ordering::SeqCst) < 320, "no two writers ever shared a sync");
    }

    #[test]
    fn what_an_earlier_process_left_is_synced_before_anybody_builds_on_it() {
        let committer = Committer::default();
        let syncs = AtomicU64::new(0);
        let sync = || {
            syncs.fetch_add(1, Ordering::SeqCst);
            Ok(())
        };
        for _ in 0..3 {
            committer.settle(CommitNumber::default(), sync).expect("no failure");
        }
        assert_eq!(syncs.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn after_a_failed_sync_nothing_is_taken() {
        let committer = Committer::default();
        let number = committer.apply(|| Ok(())).expect("no failure");
        let failing = || Err(StoreError::Io("gone".into()));
        assert!(matches!(committer.settle(number, failing), Err(StoreError::Io(_))));
        assert!(matches!(committer.apply(|| Ok(())), Err(StoreError::Refusing(_))));
    }
}
