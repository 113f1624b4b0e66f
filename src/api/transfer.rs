//! Imports and exports: many entries at once.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use super::body::{Ended, Writer, answer, blocking, whole, written};
use super::entries::{each_entry, now_ms};
use super::error::ApiError;
use super::frames::{ENTRIES, ExportHead, FRAME_HEAD_BYTES, Frame, Frames, FramesError};
use super::router::{Asked, Named};
use super::types::{Imported, PolicyName, Removed};
use super::{Host, paths};
use crate::replica::{Collection, CollectionView as _, Entry, ReplicaError, Snapshot};
use crate::store::{EmbeddedStore, Store};
use crate::types::{Key, MAX_KEY_BYTES, Policy};

/// A batch is one commit: this many bytes, or one entry.
pub const BATCH_BYTES: usize = 4 << 20;
/// This many entries.
pub const BATCH_ENTRIES: usize = 1_000;

/// Longest body of a batch.
fn batch_limit(max_value_bytes: u64) -> u64 {
    let heads = BATCH_ENTRIES * (FRAME_HEAD_BYTES + MAX_KEY_BYTES);
    max_value_bytes.saturating_add((BATCH_BYTES + heads) as u64)
}

impl From<FramesError> for ApiError {
    fn from(error: FramesError) -> Self {
        match error {
            FramesError::Key(error) => Self::Word(error),
            other => Self::Request(other.to_string()),
        }
    }
}

pub(super) async fn import(
    State(host): State<Arc<Host>>,
    Named(collection): Named,
    body: Body,
) -> Result<Response, ApiError> {
    let node = host.node();
    let limit = node.replica.limits().max_value_bytes;
    let place = host.large.acquire().await.map_err(|_| ApiError::Fallen)?;
    let body = whole(body, batch_limit(limit), host.limits().body_pause).await?;
    let work = move || {
        let batch = Batch::parse(body, limit)?;
        node.judge_clock();
        let done = collection.import(batch.0, now_ms())?;
        Ok(Imported { written: done.written, unchanged: done.unchanged })
    };
    let imported = blocking(work).await?;
    drop(place);
    answer(&imported)
}

/// The entries of one commit.
struct Batch(Vec<(Key, Arc<[u8]>)>);

impl Batch {
    fn parse(body: Bytes, max_value_bytes: u64) -> Result<Self, ApiError> {
        let (mut entries, mut frames) = (Vec::new(), Frames::new(max_value_bytes));
        frames.push(body);
        while !frames.is_empty() {
            let frame = frames.next_frame()?.ok_or(FramesError::Cut)?;
            let Frame::Entry { key, value } = frame else {
                return Err(ApiError::Request("a batch holds entries, and nothing else".into()));
            };
            if entries.len() == BATCH_ENTRIES {
                let most = format!("a batch holds {BATCH_ENTRIES} entries at most");
                return Err(ApiError::Request(most));
            }
            entries.push((key, (*value).into()));
        }
        Ok(Self(entries))
    }
}

/// Removes all keys of a batch, whose values are not looked at.
pub(super) async fn remove(
    State(host): State<Arc<Host>>,
    Named(collection): Named,
    body: Body,
) -> Result<Response, ApiError> {
    let place = host.large.acquire().await.map_err(|_| ApiError::Fallen)?;
    let body = whole(body, batch_limit(0), host.limits().body_pause).await?;
    let work = move || {
        let removed = removed(&collection, Batch::parse(body, 0)?)?;
        Ok(Removed { removed, root: collection.root()?.to_string() })
    };
    let removed = blocking(work).await?;
    drop(place);
    answer(&removed)
}

/// Removes the keys of a batch in one commit.
fn removed<S: Store>(collection: &Collection<S>, Batch(keys): Batch) -> Result<u64, ReplicaError> {
    collection.delete_all(keys.iter().map(|(key, _)| key), now_ms())
}

/// What an export is for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExportQuery {
    /// Whether all keys must be paths below a folder.
    #[serde(default)]
    paths: bool,
}

pub(super) async fn export(
    Named(collection): Named,
    Asked(asked): Asked<ExportQuery>,
) -> Result<Response, ApiError> {
    let snapshot = blocking(move || {
        let snapshot = collection.snapshot()?;
        if asked.paths {
            paths::check(&snapshot)?;
        }
        Ok((collection, snapshot))
    })
    .await?;
    Ok(written(
        ENTRIES,
        move |writer| exported(&snapshot.0, &snapshot.1, writer),
        |writer, problem| {
            let _ = Frame::Problem(problem).write(&mut writer.bytes);
        },
    ))
}

fn exported(
    collection: &Collection<EmbeddedStore>,
    snapshot: &Snapshot<EmbeddedStore>,
    writer: &mut Writer,
) -> Result<(), Ended> {
    let envelope = snapshot.envelope();
    let head = ExportHead {
        root: envelope.root().to_string(),
        policy: PolicyName::from(envelope.policy()),
        entries: envelope.totals().entries,
        bytes: envelope.totals().bytes,
    };
    Frame::Head(head).write(&mut writer.bytes)?;
    each_entry(snapshot, |entry| {
        let key = entry.key.clone();
        let key_hash = snapshot.spec().algorithm.key_hash(&key);
        let merged = merged(collection, snapshot, entry)?;
        let is_merged = merged.is_some();
        let value = match merged {
            Some(merged) => Some(merged),
            None => snapshot.value(&key_hash, &entry.record.latest().value_hash)?,
        };
        let frame = match value.map(Bytes::from_owner) {
            None => Frame::Lost { key },
            // what the policy shows: nothing is left out
            Some(value) if is_merged => Frame::Entry { key, value },
            Some(value) if entry.record.is_conflict() => Frame::Conflict { key, value },
            Some(value) => Frame::Entry { key, value },
        };
        let value = frame.write_head(&mut writer.bytes)?;
        Ok(writer.value(value)?)
    })?;
    Ok(Frame::End.write(&mut writer.bytes)?)
}

/// What the collection's resolver makes of an entry; none if that is nothing.
fn merged(
    collection: &Collection<EmbeddedStore>,
    snapshot: &Snapshot<EmbeddedStore>,
    entry: &Entry,
) -> Result<Option<Arc<[u8]>>, Ended> {
    let custom = matches!(snapshot.spec().policy, Policy::Custom { .. });
    if !custom || !entry.record.is_conflict() {
        return Ok(None);
    }
    let versions = super::conflicts::versions_at(snapshot, entry)?;
    Ok(collection.merge(&entry.key, &versions).and_then(Result::ok))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::replica::{Replica, ReplicaOptions};
    use crate::store::{Batch as Rows, Durability, MemoryStore};
    use crate::types::{CollectionName, CollectionSpec};

    #[test]
    fn a_batch_of_keys_is_removed_in_one_commit() {
        let options = ReplicaOptions::default();
        let replica =
            Replica::open(MemoryStore::default(), options, Box::new(rand::random)).unwrap();
        let name = CollectionName::new("c").unwrap();
        let spec = CollectionSpec { name, algorithm: Default::default(), policy: Policy::Lww };
        let collection = replica.create_collection(spec).unwrap();
        let entries: Vec<_> =
            (0..50).map(|at: u8| (Key::new(vec![at]).unwrap(), Arc::from(&b"value"[..]))).collect();
        collection.import(entries.clone(), 1_000).unwrap();
        let commits = || replica.store().commit(Rows::default(), Durability::Always).unwrap().0;
        let before = commits();
        assert_eq!(removed(&collection, Batch(entries)).unwrap(), 50);
        assert_eq!(commits() - before, 2, "one, and the one that asks");
        assert_eq!(collection.totals().unwrap().entries, 0);
    }
}
