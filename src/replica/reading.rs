//! What a collection's policy shows of a key.

use std::sync::Arc;

use crate::dots::Dot;
use crate::entry::{Record, Sibling};
use crate::hash::KeyHash;
use crate::resolve::{Candidate, Guard, ResolveError, Resolvers, UnknownResolver, Violation};
use crate::store::Store;
use crate::types::{Key, Policy};

use super::ReplicaError;
use super::collection::Collection;

/// A value as a policy reads it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Version {
    /// Its sibling.
    pub sibling: Sibling,
    /// The value; none if its bytes are lost here, until they are fetched again.
    pub value: Option<Arc<[u8]>>,
}

/// What a read shows.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Reading {
    /// One version under policy `lww`; all that differ, the latest first, under any other.
    pub versions: Vec<Version>,
    /// Every dot held: a client names them in the put that replaces what it has read.
    pub dots: Vec<Dot>,
    /// Whether concurrent siblings with different values are held.
    pub conflict: bool,
    /// What the collection's resolver makes of several versions, or why it makes nothing: then
    /// all are shown. None where there is nothing to merge.
    pub merged: Option<Result<Arc<[u8]>, ResolveError>>,
}

/// How a collection's policy resolves.
pub(super) enum Resolution {
    /// It names no resolver.
    Plain,
    /// By this one.
    By(Guard),
    /// It names one that is not known here.
    Unknown(UnknownResolver),
}

impl Resolution {
    pub(super) fn of(policy: &Policy, resolvers: &Resolvers) -> Self {
        match resolvers.of(policy) {
            Ok(None) => Self::Plain,
            Ok(Some(resolver)) => Self::By(Guard::new(Arc::clone(resolver))),
            Err(unknown) => Self::Unknown(unknown),
        }
    }
}

impl<S: Store> Collection<S> {
    /// What the collection's policy shows of a key; none when nothing is held. A resolver works
    /// on what was read, and nothing is written.
    ///
    /// # Errors
    /// The store failed, the entry is damaged, or the policy names a resolver that this node does
    /// not know.
    pub fn read(&self, key: &Key) -> Result<Option<Reading>, ReplicaError> {
        if let Resolution::Unknown(unknown) = &self.resolution {
            return Err(unknown.clone().into());
        }
        let key_hash = self.key_hash(key);
        let read = self.with_live(|live| {
            let Some(entry) = self.entry_to_read(live, &key_hash)? else { return Ok(None) };
            let shown = match self.spec.policy {
                Policy::Lww => vec![entry.record.latest()],
                Policy::Siblings | Policy::Custom { .. } => entry.record.versions(),
            };
            let versions = self.with_values(&key_hash, shown)?;
            let dots = entry.record.siblings().iter().map(|sibling| sibling.dot).collect();
            let conflict = entry.record.is_conflict();
            Ok(Some(Reading { versions, dots, conflict, merged: None }))
        })?;
        Ok(read.map(|reading| {
            let merged = self.merge(key, &reading.versions);
            Reading { merged, ..reading }
        }))
    }

    /// All versions of a record that differ, the latest first, with their values as they are now.
    ///
    /// # Errors
    /// The store failed.
    pub fn versions(&self, key: &Key, record: &Record) -> Result<Vec<Version>, ReplicaError> {
        self.with_values(&self.key_hash(key), record.versions())
    }

    fn with_values(
        &self,
        key_hash: &KeyHash,
        siblings: Vec<&Sibling>,
    ) -> Result<Vec<Version>, ReplicaError> {
        let with_value = |&sibling: &Sibling| {
            let value = self.stored_value(key_hash, &sibling.value_hash)?;
            if value.is_none() {
                self.losses.note(key_hash, &sibling.value_hash);
            }
            Ok(Version { sibling, value })
        };
        siblings.into_iter().map(with_value).collect()
    }

    /// What the collection's resolver makes of versions that differ; none if there are not
    /// several, or no resolver.
    pub fn merge(
        &self,
        key: &Key,
        versions: &[Version],
    ) -> Option<Result<Arc<[u8]>, ResolveError>> {
        let Resolution::By(guard) = &self.resolution else { return None };
        if versions.len() < 2 {
            return None;
        }
        let Some(candidates) = candidates(versions) else {
            return Some(Err(ResolveError::ValueLost));
        };
        let merged = guard.merge(key, &candidates, self.node.limits.max_value_bytes);
        Some(merged.map(Arc::from))
    }

    /// Whether the collection's resolver lets versions stand beside each other.
    ///
    /// # Errors
    /// A sentence about what they break.
    pub fn check_versions(&self, key: &Key, versions: &[Version]) -> Result<(), Violation> {
        match (&self.resolution, candidates(versions)) {
            (Resolution::By(guard), Some(candidates)) if candidates.len() > 1 => {
                guard.check(key, &candidates)
            }
            _ => Ok(()),
        }
    }

    /// What is wrong with the collection's resolver: that this node does not know it, or that it
    /// gave two results for the same versions.
    pub fn resolver_fault(&self) -> Option<String> {
        match &self.resolution {
            Resolution::Unknown(unknown) => Some(unknown.to_string()),
            Resolution::By(guard) if guard.mismatches() > 0 => {
                Some(ResolveError::NotDeterministic(self.spec.policy.to_string()).to_string())
            }
            _ => None,
        }
    }
}

/// What a resolver is given; none if the bytes of a version are lost.
fn candidates(versions: &[Version]) -> Option<Vec<Candidate<'_>>> {
    versions.iter().map(Version::candidate).collect()
}

impl Version {
    fn candidate(&self) -> Option<Candidate<'_>> {
        let Self { sibling: Sibling { dot, stamp, .. }, value } = self;
        Some(Candidate { dot: *dot, stamp: *stamp, value: value.as_deref()? })
    }
}
