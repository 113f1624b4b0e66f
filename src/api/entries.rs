//! Collections and their entries: reads, writes, proofs, recovery.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::json;

use super::body::{Ended, LINES, answer, blocking, json, of_media, whole, written};
use super::error::ApiError;
use super::host::described;
use super::router::{Asked, Name, Named};
use super::types::{
    Check, Created, DigestText, EntryLine, Kept, KeyQuery, KeyText, MergedText, NewCollection,
    ReadToken, ReadingText, RecoverRequest, Recovery, Removed, SiblingText, VersionText, Written,
    from_hex,
};
use super::{Host, conflicts, history};
use crate::entry::Sibling;
use crate::node::Node;
use crate::replica::{CheckReport, Collection, CollectionView as _, Entry, ReplicaError, Snapshot};
use crate::store::EmbeddedStore;
use crate::types::{CollectionName, Key};

/// Entries read at once.
const CHUNK: usize = 512;
/// The media type of bytes that mean nothing to the node.
const BYTES: &str = "application/octet-stream";
/// The header that says that concurrent versions are held beside the value.
pub(super) const CONFLICT: &str = "selfsame-conflict";

type Answer = Result<Response, ApiError>;

pub(super) async fn collections(State(host): State<Arc<Host>>) -> Answer {
    let collections = blocking(move || host.collections()).await?;
    answer(&collections)
}

pub(super) async fn collection(Named(collection): Named) -> Answer {
    let info = blocking(move || described(&collection)).await?;
    answer(&info)
}

pub(super) async fn create(State(host): State<Arc<Host>>, Name(name): Name, body: Body) -> Answer {
    let asked: NewCollection = json(body, host.limits().body_pause).await?;
    let spec = asked.spec(name)?;
    let created = blocking(move || {
        let existed = host.collection(&spec.name).is_ok();
        let collection = host.node().replica.create_collection(spec)?;
        Ok(Created { collection: described(&collection)?, existed })
    })
    .await?;
    let status = if created.existed { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, answer(&created)?).into_response())
}

pub(super) async fn read(Named(collection): Named, Asked(key): Asked<KeyQuery>) -> Answer {
    let reading = blocking(move || {
        let key = key.key()?;
        let reading = collection.read(&key)?.ok_or_else(|| no_such(&key, &collection))?;
        let versions = reading.versions.iter().map(VersionText::from).collect();
        let read = ReadToken::of(reading.dots);
        let merged = reading.merged.as_ref().map(MergedText::new);
        let (key, conflict) = (KeyText::from(&key), reading.conflict);
        Ok(ReadingText { key, conflict, read, versions, merged })
    })
    .await?;
    answer(&reading)
}

/// Of which key, and which of its values.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ValueQuery {
    key: Option<String>,
    key_hex: Option<String>,
    /// First digits of the hash of one that may be old.
    hash: Option<String>,
}

pub(super) async fn value(Named(collection): Named, Asked(asked): Asked<ValueQuery>) -> Answer {
    let key = KeyQuery::new(asked.key, asked.key_hex).key()?;
    if let Some(hash) = asked.hash {
        return history::old_value(collection, key, hash).await;
    }
    let (value, conflict) = blocking(move || {
        let reading = collection.read(&key)?.ok_or_else(|| no_such(&key, &collection))?;
        let versions = reading.versions.len() as u64;
        match reading.merged {
            Some(Ok(value)) => return Ok((value, reading.conflict)),
            Some(Err(why)) => return Err(ApiError::NotMerged { key, versions, why }),
            None => {}
        }
        let [version] = reading.versions.as_slice() else {
            return Err(ApiError::SeveralVersions { key, versions });
        };
        let value = version.value.clone().ok_or(ApiError::ValueLost)?;
        Ok((value, reading.conflict))
    })
    .await?;
    Ok(of_value(Body::from(Bytes::from_owner(value)), conflict))
}

/// A value, and whether concurrent versions are held beside it.
pub(super) fn of_value(value: Body, conflict: bool) -> Response {
    let mut response = of_media(BYTES, value);
    let conflict = HeaderValue::from_static(if conflict { "true" } else { "false" });
    response.headers_mut().insert(CONFLICT, conflict);
    response
}

pub(super) async fn put(
    State(host): State<Arc<Host>>,
    Named(collection): Named,
    Asked(asked): Asked<ChangeQuery>,
    body: Body,
) -> Answer {
    let (key, read) = asked.parts()?;
    let limit = host.node().replica.limits().max_value_bytes;
    let _place = host.large.acquire().await.map_err(|_| ApiError::Fallen)?;
    let value = match axum::body::HttpBody::size_hint(&body).exact() {
        Some(size) if size > limit => return Err(ReplicaError::ValueSize { size, limit }.into()),
        _ => whole(body, limit, host.limits().body_pause).await.map_err(|error| match error {
            ApiError::BodySize(_) => ApiError::ValueSize(limit),
            other => other,
        })?,
    };
    host.node().judge_clock();
    let (sibling, root) = blocking(move || {
        let sibling = match read {
            None => collection.put(&key, &*value, now_ms())?,
            Some(read) => {
                let (_, dots) = conflicts::as_read(&collection, &key, &read)?;
                collection.put_exactly(&key, &*value, &dots, now_ms())?
            }
        };
        Ok((sibling, collection.root()?))
    })
    .await?;
    answer(&written_text(&sibling, &root))
}

pub(super) fn written_text(sibling: &Sibling, root: &crate::hash::Root) -> Written {
    Written { sibling: SiblingText::from(sibling), root: root.to_string() }
}

pub(super) async fn delete(Named(collection): Named, Asked(asked): Asked<ChangeQuery>) -> Answer {
    let (key, read) = asked.parts()?;
    let removed = blocking(move || {
        let removed = match read {
            None => collection.delete(&key, now_ms())?,
            Some(read) => {
                let (_, dots) = conflicts::as_read(&collection, &key, &read)?;
                collection.delete_exactly(&key, &dots, now_ms())?
            }
        };
        Ok(Removed { removed, root: collection.root()?.to_string() })
    })
    .await?;
    answer(&removed)
}

/// Which key is changed, and as what it was read: else it is left alone.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeQuery {
    key: Option<String>,
    key_hex: Option<String>,
    read: Option<String>,
}

impl ChangeQuery {
    fn parts(self) -> Result<(Key, Option<ReadToken>), ApiError> {
        let read = self.read.as_deref().map(ReadToken::parse).transpose()?;
        Ok((KeyQuery::new(self.key, self.key_hex).key()?, read))
    }
}

/// Which entries, and how much of them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listing {
    prefix: Option<String>,
    prefix_hex: Option<String>,
    #[serde(default)]
    values: bool,
}

pub(super) async fn list(Named(collection): Named, Asked(asked): Asked<Listing>) -> Answer {
    let prefix = prefix_of(asked.prefix, asked.prefix_hex)?;
    let snapshot = blocking(move || Ok(collection.snapshot()?)).await?;
    let work = move |writer: &mut super::body::Writer| {
        each_entry(&snapshot, |entry| {
            if !entry.key.as_bytes().starts_with(&prefix) {
                return Ok(());
            }
            let mut line = EntryLine::from(entry);
            if asked.values {
                line.siblings = with_values(&snapshot, entry)?;
            }
            Ok(writer.line(&line)?)
        })
    };
    Ok(written(LINES, work, |writer, problem| {
        let _ = writer.line(&json!({ "problem": problem }));
    }))
}

/// What keys are to begin with.
pub(super) fn prefix_of(text: Option<String>, hex: Option<String>) -> Result<Vec<u8>, ApiError> {
    match (text, hex) {
        (Some(_), Some(_)) => Err(ApiError::Request("give either prefix or prefix_hex".into())),
        (Some(text), None) => Ok(text.into_bytes()),
        (None, Some(text)) => from_hex(&text, "prefix_hex"),
        (None, None) => Ok(Vec::new()),
    }
}

fn with_values(
    snapshot: &Snapshot<EmbeddedStore>,
    entry: &Entry,
) -> Result<Vec<SiblingText>, ApiError> {
    let key_hash = snapshot.spec().algorithm.key_hash(&entry.key);
    let siblings = entry.record.siblings().iter().map(|sibling| {
        let value = snapshot.value(&key_hash, &sibling.value_hash)?;
        Ok(SiblingText::new(sibling, Some(&value.ok_or(ApiError::ValueLost)?)))
    });
    siblings.collect()
}

pub(super) async fn digest(State(host): State<Arc<Host>>, Named(collection): Named) -> Answer {
    let digest = blocking(move || digest_here(&host, &collection)).await?;
    answer(&digest)
}

pub(super) fn digest_here(
    host: &Host,
    collection: &Collection<EmbeddedStore>,
) -> Result<DigestText, ApiError> {
    let digest = collection.digest()?;
    Ok(DigestText::new(&digest, host.node().clock()))
}

pub(super) async fn check(State(host): State<Arc<Host>>, Name(name): Name) -> Answer {
    let report = blocking(move || match host.collection(&name) {
        // its row in the list of collections
        Err(ApiError::Replica(ReplicaError::Damaged { what, .. })) => Ok(damaged(what)),
        found => checked(&*found?),
    })
    .await?;
    answer(&Check::from(&report))
}

pub(super) async fn recover(State(host): State<Arc<Host>>, Name(name): Name, body: Body) -> Answer {
    let RecoverRequest { force } = json(body, host.limits().body_pause).await?;
    answer(&blocking(move || recovered(&host, &name, force)).await?)
}

fn recovered(host: &Host, name: &CollectionName, force: bool) -> Result<Recovery, ApiError> {
    let (collection, row_written) = match host.collection(name) {
        Err(ApiError::Replica(ReplicaError::Damaged { .. } | ReplicaError::PerhapsDamaged(_))) => {
            (host.node().replica.recover_row(name)?, true)
        }
        found => (found?, false),
    };
    let mut report = checked(&collection)?;
    let check = Check::from(&report);
    let done =
        |mended, recovered| Ok(Recovery { check: check.clone(), row_written, mended, recovered });
    if report.is_sound() && row_written {
        return done(0, Some(Kept { entries: report.entries, lost: 0 }));
    }
    let mut mended = 0;
    if !report.problems.is_empty() && !force && collection.damage().is_none() {
        // what follows from what verifies needs no recovery, which forgets what was seen
        mended = collection.mend_all(now_ms())?;
        report = checked(&collection)?;
    }
    if report.problems.is_empty() && !force {
        if mended > 0 || !report.missing_values.is_empty() {
            return done(mended, None);
        }
        return Err(ApiError::NothingToRecover(name.clone()));
    }
    done(mended, Some(Kept::from(collection.recover()?)))
}

fn damaged(what: String) -> CheckReport {
    CheckReport { problems: vec![what], ..CheckReport::default() }
}

/// What a check finds; damage that was seen at opening is a problem like the others.
fn checked(collection: &Collection<EmbeddedStore>) -> Result<CheckReport, ApiError> {
    match collection.check() {
        Err(ReplicaError::Damaged { what, .. }) => Ok(damaged(what)),
        other => Ok(other?),
    }
}

/// Visits all entries of a snapshot, in the order of their key hashes.
pub(super) fn each_entry(
    snapshot: &Snapshot<EmbeddedStore>,
    mut visit: impl FnMut(&Entry) -> Result<(), Ended>,
) -> Result<(), Ended> {
    let algorithm = snapshot.spec().algorithm;
    let mut last = None;
    loop {
        let entries = snapshot.entries_after(last.as_ref(), CHUNK, |_| true)?;
        let Some(entry) = entries.last() else { return Ok(()) };
        last = Some(algorithm.key_hash(&entry.key));
        for entry in &entries {
            visit(entry)?;
        }
    }
}

pub(super) fn now_ms() -> u64 {
    Node::<EmbeddedStore>::now_ms()
}

pub(super) fn no_such(key: &Key, collection: &Collection<EmbeddedStore>) -> ApiError {
    let collection = collection.spec().name.clone();
    ApiError::NoSuchKey { key: key.clone(), collection }
}
