//! The list of collections, when rows of it are damaged: the others open all the same, and what
//! is left of a collection shows whether a name and settings are its own, since its root binds
//! them.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::{Arc, PoisonError};

use crate::hash::HashAlgorithm;
use crate::merkle::Envelope;
use crate::resolve::Resolvers;
use crate::store::{Batch, Durability, Read, Row, Span, Store, StoreError, Table};
use crate::types::{CollectionName, CollectionSpec, Policy};

use super::ReplicaError;
use super::collection::Collection;
use super::open::{Replica, load_tree, read_head};
use super::pages::ReadError;
use super::restore::{passing_ids, tables_of_collections};
use super::rows::{CollectionId, read_collection, write_collection};

/// A row of the list of collections that does not say which collection it stands for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct DamagedRow {
    /// Name of the collection, if that can still be read.
    pub name: Option<CollectionName>,
    /// What is wrong.
    pub what: String,
    key: Box<[u8]>,
    /// Settings, if it is the name that cannot be read.
    left: Option<(CollectionId, CollectionSpec)>,
}

impl DamagedRow {
    pub(super) fn new(row: Row, what: impl std::fmt::Display) -> Self {
        let name = CollectionName::from_bytes(&row.key).ok();
        // any name will do to read the rest
        let left = match (&name, CollectionName::new("unknown")) {
            (None, Ok(any)) => read_collection(any.as_bytes(), &row.value).ok(),
            _ => None,
        };
        let what = format!("its row in the list of collections is damaged: {what}");
        Self { name, what, key: row.key, left }
    }

    pub(super) fn is_of(&self, name: &CollectionName) -> bool {
        self.name.as_ref() == Some(name)
    }
}

impl<S: Store> Replica<S> {
    /// Rows of the list of collections that cannot be read. All other collections are open.
    #[must_use]
    pub fn damaged_rows(&self) -> Vec<DamagedRow> {
        self.damaged.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why there is no collection of this name.
    pub(super) fn missing(&self, name: &CollectionName) -> ReplicaError {
        let damaged = self.damaged_rows();
        if let Some(row) = damaged.iter().find(|row| row.is_of(name)) {
            let what = row.what.clone();
            return ReplicaError::Damaged { collection: name.to_string(), what };
        }
        if damaged.iter().any(|row| row.name.is_none()) {
            return ReplicaError::PerhapsDamaged(name.to_string());
        }
        ReplicaError::UnknownCollection(name.to_string())
    }

    /// A number that no collection has, nor any rows that are left of one.
    pub(super) fn fresh_id(&self) -> Result<CollectionId, StoreError> {
        let known = self.collections().iter().map(|collection| collection.id.0).max();
        let left = ids_in_use(&*self.store)?.last().map(|id| id.0);
        let passing = passing_ids(&*self.store)?.iter().map(|id| id.0).max();
        Ok(CollectionId(known.max(left).max(passing).unwrap_or(0).saturating_add(1)))
    }

    /// Numbers under which there are rows that no collection has that could be read.
    pub(super) fn orphans(&self) -> Result<Vec<CollectionId>, StoreError> {
        let known: BTreeSet<_> = self.collections().iter().map(|one| one.id).collect();
        let passing: BTreeSet<_> = passing_ids(&*self.store)?.into_iter().collect();
        let in_use = ids_in_use(&*self.store)?.into_iter();
        Ok(in_use.filter(|id| !known.contains(id) && !passing.contains(id)).collect())
    }

    /// Writes the damaged row of a collection again, and opens the collection. Which rows are its
    /// own, how it hashes and how it reads is tried: its root says whether that is right. So this
    /// also finds the collection whose name was damaged, for whoever remembers it.
    ///
    /// # Errors
    /// No row is damaged that could be its own, nothing that is left has its root, or the store
    /// failed.
    pub fn recover_row(&self, name: &CollectionName) -> Result<Arc<Collection<S>>, ReplicaError> {
        let _creating = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
        let existing = self.collection(name);
        let damaged = self.damaged_rows();
        let mine: Vec<_> =
            damaged.iter().filter(|row| row.is_of(name) || row.name.is_none()).collect();
        if existing.is_ok() || mine.is_empty() {
            return existing;
        }
        let orphans = self.orphans()?;
        let mut found = None;
        for &id in &orphans {
            for spec in specs(name, &mine, &self.node.resolvers) {
                if has_root(&*self.store, id, &spec).map_err(|error| error.of(name))? {
                    found = Some((id, spec));
                }
            }
        }
        let Some((id, spec)) = found else { return Err(ReplicaError::LostRow(name.to_string())) };
        let all_found = orphans.len() == 1;
        let gone = |row: &DamagedRow| {
            let of_it = row.left.as_ref().is_some_and(|(number, _)| *number == id);
            row.is_of(name) || of_it || row.name.is_none() && all_found
        };
        let mut batch = Batch::default();
        for row in damaged.iter().filter(|row| gone(row)) {
            batch.remove(Table::Collections, &row.key);
        }
        batch.put(Table::Collections, name.as_bytes(), &write_collection(id, &spec));
        self.store.commit(batch, Durability::Always)?;
        let collection = Arc::new(Collection::load(&self.store, &self.node, id, spec)?);
        let open = Arc::clone(&collection);
        self.collections.write().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), open);
        let mut rows = self.damaged.write().unwrap_or_else(PoisonError::into_inner);
        rows.retain(|row| !gone(row));
        Ok(collection)
    }
}

/// How a collection of this name may hash and read.
fn specs(
    name: &CollectionName,
    damaged: &[&DamagedRow],
    resolvers: &Resolvers,
) -> Vec<CollectionSpec> {
    let spec = |algorithm, policy| CollectionSpec { name: name.clone(), algorithm, policy };
    let mut specs = Vec::new();
    for algorithm in [HashAlgorithm::Blake3, HashAlgorithm::Sha256] {
        let policies = [Policy::Lww, Policy::Siblings].into_iter().chain(resolvers.policies());
        specs.extend(policies.map(|policy| spec(algorithm, policy)));
    }
    let left = damaged.iter().filter_map(|row| row.left.as_ref());
    specs.extend(left.map(|(_, left)| spec(left.algorithm, left.policy.clone())));
    specs
}

/// Whether the pages under a number have the root that its head states, under this name and with
/// these settings.
fn has_root(store: &impl Read, id: CollectionId, spec: &CollectionSpec) -> Result<bool, ReadError> {
    let state = read_head(store, id).and_then(|head| {
        let tree = load_tree(store, id, spec, head.page_leaves)?;
        Ok((head, tree))
    });
    match state {
        Ok((head, tree)) => {
            let envelope = Envelope::new(spec.clone(), tree.tree_hash(), tree.totals());
            Ok(envelope.is_ok_and(|envelope| envelope.root() == head.root))
        }
        Err(ReadError::Damaged(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The numbers under which there are rows of any kind.
fn ids_in_use(store: &impl Read) -> Result<BTreeSet<CollectionId>, StoreError> {
    let mut ids = BTreeSet::new();
    for table in tables_of_collections() {
        let mut next = Some(0u32);
        while let Some(from) = next {
            let start = from.to_be_bytes();
            let keys =
                store.scan_keys(Span::of(table, &[]).start_at(Bound::Included(&start)), 1)?;
            let Some(id) = keys.first().and_then(|key| key.first_chunk()) else { break };
            let id = CollectionId(u32::from_be_bytes(*id));
            ids.insert(id);
            next = id.0.checked_add(1);
        }
    }
    Ok(ids)
}
