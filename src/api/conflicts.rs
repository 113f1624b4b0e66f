//! Keys with concurrent versions that differ: which they are, and how one is resolved.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use super::Host;
use super::body::{Ended, LINES, Writer, answer, blocking, written};
use super::entries::{no_such, now_ms, prefix_of, written_text};
use super::error::ApiError;
use super::history::named;
use super::router::{Asked, Named};
use super::types::{
    ConflictSibling, ConflictText, KeyQuery, KeyText, MergedText, ReadToken, ReportList,
    ReportText, SiblingText, preview,
};
use crate::dots::{Dot, Writer as DotWriter};
use crate::entry::{Record, Sibling};
use crate::hash::KeyHash;
use crate::replica::{
    Collection, CollectionView as _, Entry, Incident, ReplicaError, Snapshot, Version,
};
use crate::store::EmbeddedStore;
use crate::types::{Key, NodeId, Policy};

/// Entries with several siblings that are looked at before it is asked whether anybody reads on.
const CHUNK: usize = 256;

/// Which conflicts, and how much of them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listing {
    prefix: Option<String>,
    prefix_hex: Option<String>,
    /// A line's cursor, behind which to go on.
    after: Option<String>,
    limit: Option<u64>,
    #[serde(default)]
    preview: bool,
}

/// Lists keys in conflict, all of one moment.
pub(super) async fn list(
    Named(collection): Named,
    Asked(asked): Asked<Listing>,
) -> Result<Response, ApiError> {
    let prefix = prefix_of(asked.prefix, asked.prefix_hex)?;
    let after = asked.after.map(|text| text.parse::<KeyHash>()).transpose();
    let after = after.map_err(|error| ApiError::Request(format!("after: {error}")))?;
    let (limit, previews) = (asked.limit.unwrap_or(u64::MAX), asked.preview);
    let told = blocking(move || {
        let snapshot = collection.snapshot()?;
        let own = collection.present_writer()?.map(|present| present.writer);
        let origins = origins(&collection)?;
        Ok(Told { collection, snapshot, own, origins, previews })
    })
    .await?;
    let work = move |writer: &mut Writer| {
        let (mut after, mut left) = (after, limit);
        loop {
            let found = told.snapshot.conflicts_after(after.as_ref(), CHUNK)?;
            let wanted = found.entries.iter().filter(|one| one.key.as_bytes().starts_with(&prefix));
            for entry in wanted {
                if left == 0 {
                    return Ok(());
                }
                left -= 1;
                writer.line(&told.line(entry)?)?;
            }
            after = found.next;
            if after.is_none() || left == 0 {
                return Ok(());
            }
            writer.still_read()?;
        }
    };
    Ok(written(LINES, work, |writer, problem| {
        let _ = writer.line(&json!({ "problem": problem }));
    }))
}

/// How many reports.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reporting {
    limit: Option<usize>,
}

/// What sessions did to this collection that a person may want to look at.
pub(super) async fn reports(
    Named(collection): Named,
    Asked(asked): Asked<Reporting>,
) -> Result<Response, ApiError> {
    let limit = asked.limit.unwrap_or(usize::MAX);
    let reports = blocking(move || Ok(collection.reports(limit)?)).await?;
    answer(&ReportList { reports: reports.iter().map(ReportText::from).collect() })
}

/// The peers that brought versions, as far as the reports still know.
fn origins(collection: &Collection<EmbeddedStore>) -> Result<BTreeMap<Dot, NodeId>, ReplicaError> {
    let mut origins = BTreeMap::new();
    for report in collection.reports(usize::MAX)? {
        if let Incident::ConcurrentUpdate { came, .. } = &report.incident {
            origins.extend(came.iter().map(|dot| (*dot, report.peer)));
        }
    }
    Ok(origins)
}

/// What is told of the keys in conflict.
struct Told {
    collection: Arc<Collection<EmbeddedStore>>,
    snapshot: Snapshot<EmbeddedStore>,
    /// This opening's writer.
    own: Option<DotWriter>,
    /// Who brought versions into conflict.
    origins: BTreeMap<Dot, NodeId>,
    previews: bool,
}

impl Told {
    fn line(&self, entry: &Entry) -> Result<ConflictText, Ended> {
        let Entry { key, record } = entry;
        let key_hash = self.snapshot.spec().algorithm.key_hash(key);
        let custom = matches!(self.snapshot.spec().policy, Policy::Custom { .. });
        let merged = if custom { self.merged(entry)? } else { None };
        let resolved = merged.as_ref().is_some_and(|merged| merged.error.is_none());
        let mut siblings: Vec<&Sibling> = record.siblings().iter().collect();
        siblings.sort_unstable_by_key(|one| std::cmp::Reverse((one.stamp, one.dot)));
        let siblings = siblings.into_iter().map(|sibling| {
            let shown = match self.snapshot.spec().policy {
                Policy::Lww => sibling == record.latest(),
                Policy::Siblings | Policy::Custom { .. } => !resolved,
            };
            self.sibling(&key_hash, sibling, shown)
        });
        Ok(ConflictText {
            key: KeyText::from(key),
            cursor: key_hash.to_string(),
            read: ReadToken::of(record.siblings().iter().map(|sibling| sibling.dot)),
            siblings: siblings.collect::<Result<_, Ended>>()?,
            merged,
        })
    }

    fn sibling(
        &self,
        key_hash: &KeyHash,
        sibling: &Sibling,
        shown: bool,
    ) -> Result<ConflictSibling, Ended> {
        let value =
            if self.previews { self.snapshot.value(key_hash, &sibling.value_hash)? } else { None };
        Ok(ConflictSibling {
            sibling: SiblingText::from(sibling),
            written_ms: sibling.stamp.millis(),
            shown,
            written_here: self.own == Some(sibling.dot.writer()),
            came_from: self.origins.get(&sibling.dot).map(ToString::to_string),
            preview: value.and_then(|value| preview(&value)),
        })
    }

    fn merged(&self, entry: &Entry) -> Result<Option<MergedText>, Ended> {
        if let Some(fault) = self.collection.resolver_fault() {
            return Ok(Some(MergedText { error: Some(fault), ..MergedText::default() }));
        }
        let versions = versions_at(&self.snapshot, entry)?;
        Ok(self.collection.merge(&entry.key, &versions).as_ref().map(MergedText::new))
    }
}

/// The versions of an entry that differ, with their values at the moment of a snapshot.
pub(super) fn versions_at(
    snapshot: &Snapshot<EmbeddedStore>,
    entry: &Entry,
) -> Result<Vec<Version>, ApiError> {
    let key_hash = snapshot.spec().algorithm.key_hash(&entry.key);
    let versions = entry.record.versions().into_iter().map(|&sibling| {
        Ok(Version { sibling, value: snapshot.value(&key_hash, &sibling.value_hash)? })
    });
    versions.collect()
}

/// Which key, as what was read, and which version is to stay.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Taking {
    key: Option<String>,
    key_hex: Option<String>,
    read: String,
    take: String,
}

/// Writes one of the versions that were read anew, in place of all of them.
///
/// It is a put, and no removal of the others: two nodes that each removed what the other keeps
/// would leave nothing of the key.
pub(super) async fn resolve(
    State(host): State<Arc<Host>>,
    Named(collection): Named,
    Asked(asked): Asked<Taking>,
) -> Result<Response, ApiError> {
    let key = KeyQuery::new(asked.key, asked.key_hex).key()?;
    let read = ReadToken::parse(&asked.read)?;
    let written = blocking(move || {
        let (record, dots) = as_read(&collection, &key, &read)?;
        let hash = taken(&record, &key, &asked.take)?.value_hash;
        let value = collection.value(&collection.key_hash(&key), &hash)?;
        let value = value.ok_or(ApiError::ValueLost)?;
        host.node().judge_clock();
        let sibling = collection.put_exactly(&key, value, &dots, now_ms())?;
        Ok(written_text(&sibling, &collection.root()?))
    });
    answer(&written.await?)
}

/// The record of a key with its dots, if it is still what was read.
pub(super) fn as_read(
    collection: &Collection<EmbeddedStore>,
    key: &Key,
    read: &ReadToken,
) -> Result<(Record, Vec<Dot>), ApiError> {
    let Some(entry) = collection.get(key)? else { return Err(no_such(key, collection)) };
    let dots: Vec<Dot> = entry.record.siblings().iter().map(|sibling| sibling.dot).collect();
    if ReadToken::of(dots.iter().copied()) == *read {
        Ok((entry.record, dots))
    } else {
        Err(ReplicaError::Changed.into())
    }
}

/// The version that is meant: `latest`, a dot, or the first digits of a value hash.
fn taken(record: &Record, key: &Key, text: &str) -> Result<Sibling, ApiError> {
    if text == "latest" {
        return Ok(*record.latest());
    }
    if let Some((writer, counter)) = text.split_once(':') {
        let dot = u64::from_str_radix(writer, 16).ok().zip(counter.parse().ok());
        let dot = dot.and_then(|(writer, counter)| Dot::new(writer, counter));
        let held = dot.and_then(|dot| record.sibling(dot)).copied();
        let digits = text.chars().take(80).collect();
        return held.ok_or_else(|| ApiError::NoSuchVersion { key: key.clone(), digits });
    }
    let hash = named(record.siblings().iter().map(|sibling| sibling.value_hash), key, text)?;
    let held = record.siblings().iter().find(|sibling| sibling.value_hash == hash);
    Ok(*held.unwrap_or_else(|| record.latest()))
}
