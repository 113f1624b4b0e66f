//! A resolver under watch: one that gives two results for the same versions is used no more.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Candidate, ResolveError, Resolver, Violation};
use crate::types::Key;

/// The first so many merges are all tried in other orders...
const ALWAYS: u64 = 64;
/// ...and of those after them one in so many.
const ONE_IN: u64 = 16;

/// A resolver as one collection uses it.
///
/// The first 64 merges since the collection was opened, and one in 16 after them, are done three
/// times: with the versions in one order, the other way round, and as at first once more. If the
/// results differ, that is an error which is counted, and from then on every merge is that error:
/// readers are shown all versions instead of one that other nodes may not see. Panics of a
/// resolver are errors too.
pub struct Guard {
    resolver: Arc<dyn Resolver>,
    merges: AtomicU64,
    mismatches: AtomicU64,
    broken: AtomicBool,
}

impl Guard {
    /// Watches a resolver.
    #[must_use]
    pub fn new(resolver: Arc<dyn Resolver>) -> Self {
        Self {
            resolver,
            merges: AtomicU64::new(0),
            mismatches: AtomicU64::new(0),
            broken: AtomicBool::new(false),
        }
    }

    /// How often it gave two results for the same versions.
    #[must_use]
    pub fn mismatches(&self) -> u64 {
        self.mismatches.load(Ordering::Relaxed)
    }

    /// What is shown of these versions; at most `limit` bytes.
    ///
    /// # Errors
    /// They cannot be merged, or the resolver is not what it must be.
    pub fn merge(
        &self,
        key: &Key,
        versions: &[Candidate<'_>],
        limit: u64,
    ) -> Result<Vec<u8>, ResolveError> {
        if self.broken.load(Ordering::Acquire) {
            return Err(ResolveError::NotDeterministic(self.name()));
        }
        let mut versions = versions.to_vec();
        versions.sort_unstable_by_key(|version| (version.stamp, version.dot));
        let merged = self.run(key, &versions);
        let number = self.merges.fetch_add(1, Ordering::Relaxed);
        if number < ALWAYS || number.is_multiple_of(ONE_IN) {
            self.compare(key, versions, &merged)?;
        }
        let merged = merged?;
        let size = merged.len() as u64;
        if size > limit { Err(ResolveError::TooLarge { size, limit }) } else { Ok(merged) }
    }

    /// Whether the versions can stand beside each other.
    ///
    /// # Errors
    /// A sentence about what they break.
    pub fn check(&self, key: &Key, versions: &[Candidate<'_>]) -> Result<(), Violation> {
        let checked = catch_unwind(AssertUnwindSafe(|| self.resolver.check(key, versions)));
        checked.unwrap_or_else(|_| Err(Violation(ResolveError::Panicked(self.name()).to_string())))
    }

    fn name(&self) -> String {
        format!("{}@{}", self.resolver.name(), self.resolver.version())
    }

    fn run(&self, key: &Key, versions: &[Candidate<'_>]) -> Result<Vec<u8>, ResolveError> {
        let merged = catch_unwind(AssertUnwindSafe(|| self.resolver.merge(key, versions)));
        merged.unwrap_or_else(|_| Err(ResolveError::Panicked(self.name())))
    }

    /// Sentences of errors may differ; that there is one may not.
    fn compare(
        &self,
        key: &Key,
        mut versions: Vec<Candidate<'_>>,
        merged: &Result<Vec<u8>, ResolveError>,
    ) -> Result<(), ResolveError> {
        for _ in 0..2 {
            versions.reverse();
            if self.run(key, &versions).ok() != merged.as_ref().ok().cloned() {
                self.mismatches.fetch_add(1, Ordering::Relaxed);
                self.broken.store(true, Ordering::Release);
                return Err(ResolveError::NotDeterministic(self.name()));
            }
        }
        Ok(())
    }
}
