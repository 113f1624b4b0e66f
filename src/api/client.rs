//! Asks a node: the process that has it open, over its socket, or the router in this process.
//!
//! ```
//! use selfsame::api::{CallError, Client};
//! use selfsame::types::CollectionName;
//!
//! /// How many entries a collection of a running node has.
//! async fn entries(folder: &std::path::Path) -> Result<Option<u64>, CallError> {
//!     let Some(node) = Client::connect(folder).await else { return Ok(None) };
//!     let name = CollectionName::new("players").expect("a name");
//!     Ok(node.collection(&name).await?.entries)
//! }
//! ```

mod clones;
mod stream;
mod transport;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use stream::{BackupStream, ExportStream, Lines, RunStream};
use transport::Transport;

use super::body::{Piped, piped, whole};
use super::entries::CONFLICT;
use super::error::{ApiError, Problem};
use super::frames::{Frame, FramesError};
use super::proofs::POSITION;
use super::types::{
    Accepted, CertificateAnswer, CertificateList, CertificateQuery, Check, CollectionInfo,
    CollectionList, Created, DigestComparison, DigestText, EvidenceList, HistoryText, Imported,
    MetricList, NewCollection, NodeInfo, PeerRequest, ReadToken, ReadingText, RecoverRequest,
    Recovery, Reloaded, Removed, ReportList, RestoredText, ScrubLine, ScrubRequest, SessionList,
    StatusText, SyncLine, SyncRequest, Written,
};
use super::{Host, router};
use crate::backup::{BackupError, BackupHead};
use crate::merkle::{MAX_PROOF_FILE_BYTES, Prefix};
use crate::node::doctor::Diagnosis;
use crate::types::{CollectionName, Key};

/// Longest answer that is taken as a whole: a value, or one in hex.
const MAX_ANSWER_BYTES: u64 = 3 << 30;
/// Longest problem.
const MAX_PROBLEM_BYTES: u64 = 1 << 20;

/// A node could not be asked, or did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// It said why.
    #[error(transparent)]
    Problem(Box<Problem>),
    /// It went away.
    #[error(
        "the process that has the node open went away ({0}): what it had answered is done; \
        repeat the command for the rest"
    )]
    Lost(String),
    /// What it said is not understood.
    #[error(
        "the answer is not understood ({0}): if the command is of another version than the \
        node's process, restart that one"
    )]
    Answer(String),
}

impl From<Problem> for CallError {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

impl From<FramesError> for CallError {
    fn from(error: FramesError) -> Self {
        match error {
            FramesError::Cut => Self::Lost(error.to_string()),
            other => Self::Answer(other.to_string()),
        }
    }
}

/// A value as it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Value {
    /// Its bytes.
    pub bytes: Bytes,
    /// Whether concurrent versions are held beside it.
    pub conflict: bool,
}

/// Which conflicts are asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ConflictQuery {
    /// What keys begin with.
    pub prefix: Vec<u8>,
    /// The cursor of a line, behind which to go on.
    pub after: Option<String>,
    /// Most lines.
    pub limit: Option<u64>,
    /// Whether the beginnings of values are wanted.
    pub preview: bool,
}

/// Which change is to be proved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ChangeChoice {
    /// The last one of a key.
    LastOf(Key),
    /// The one that has this position in the change log of the collection.
    At(u64),
}

/// A commit that is proved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitFile {
    /// The file of proof.
    pub bytes: Bytes,
    /// Position of its last change in the change log of the collection.
    pub position: u64,
}

/// Whom to ask.
#[derive(Clone)]
pub struct Client {
    transport: Transport,
}

impl Client {
    /// The node that this process has open. The store is free only once all clones are gone.
    #[must_use]
    pub fn here(host: Arc<Host>) -> Self {
        Self { transport: Transport::Here(router(host)) }
    }

    /// The process that has the node of this data folder open, if it answers.
    pub async fn connect(folder: &Path) -> Option<Self> {
        Some(Self { transport: Transport::connect(folder).await? })
    }

    /// Whether another process is asked.
    #[must_use]
    pub const fn is_remote(&self) -> bool {
        !matches!(self.transport, Transport::Here(_))
    }

    /// What answers.
    ///
    /// # Errors
    /// It went away.
    pub async fn node(&self) -> Result<NodeInfo, CallError> {
        self.get("node").await
    }

    /// How the node is.
    ///
    /// # Errors
    /// It went away, or its store failed.
    pub async fn status(&self) -> Result<StatusText, CallError> {
        self.get("status").await
    }

    /// What may need a person at the node.
    ///
    /// # Errors
    /// It went away.
    pub async fn doctor(&self) -> Result<Diagnosis, CallError> {
        self.get("doctor").await
    }

    /// The figures of the node, as OpenMetrics text.
    ///
    /// # Errors
    /// It went away.
    pub async fn metrics_text(&self) -> Result<String, CallError> {
        let answer = self.ask(Method::GET, "metrics", Body::empty()).await?;
        let text = taken(answer, MAX_ANSWER_BYTES).await?;
        let text = String::from_utf8(text.into());
        text.map_err(|error| CallError::Answer(error.to_string()))
    }

    /// The figures of the node.
    ///
    /// # Errors
    /// It went away.
    pub async fn metrics(&self) -> Result<MetricList, CallError> {
        self.get("metrics?format=json").await
    }

    /// All collections.
    ///
    /// # Errors
    /// The node's store failed.
    pub async fn collections(&self) -> Result<CollectionList, CallError> {
        self.get("collections").await
    }

    /// A collection.
    ///
    /// # Errors
    /// There is none of this name.
    pub async fn collection(&self, name: &CollectionName) -> Result<CollectionInfo, CallError> {
        self.get(&path(name, "")).await
    }

    /// Creates a collection.
    ///
    /// # Errors
    /// There is one of this name with other settings.
    pub async fn create(
        &self,
        name: &CollectionName,
        settings: &NewCollection,
    ) -> Result<Created, CallError> {
        self.send(Method::PUT, &path(name, ""), to_json(settings)?).await
    }

    /// What a collection's policy shows of a key, with the values.
    ///
    /// # Errors
    /// Nothing is held under the key, or it is damaged.
    pub async fn read(&self, name: &CollectionName, key: &Key) -> Result<ReadingText, CallError> {
        self.get(&of_key(name, "/entry", key)).await
    }

    /// The value of a key.
    ///
    /// # Errors
    /// Nothing is held under the key, several versions are, or the bytes are lost.
    pub async fn value(&self, name: &CollectionName, key: &Key) -> Result<Value, CallError> {
        let response = self.ask(Method::GET, &of_key(name, "/value", key), Body::empty()).await?;
        let conflict = response.headers().get(CONFLICT).is_some_and(|value| value == "true");
        Ok(Value { bytes: taken(response, MAX_ANSWER_BYTES).await?, conflict })
    }

    /// A value of a key by the first digits of its hash: one that is held, or an old one that is
    /// still kept.
    ///
    /// # Errors
    /// There is none, several have such hashes, or the bytes are lost.
    pub async fn version(
        &self,
        name: &CollectionName,
        key: &Key,
        hash: &str,
    ) -> Result<Bytes, CallError> {
        let path = format!("{}&hash={}", of_key(name, "/value", key), encoded(hash.as_bytes()));
        taken(self.ask(Method::GET, &path, Body::empty()).await?, MAX_ANSWER_BYTES).await
    }

    /// What a key is and was; at most `limit` replaced values.
    ///
    /// # Errors
    /// The entry is damaged, or the store failed.
    pub async fn history(
        &self,
        name: &CollectionName,
        key: &Key,
        limit: usize,
    ) -> Result<HistoryText, CallError> {
        self.get(&format!("{}&limit={limit}", of_key(name, "/history", key))).await
    }

    /// Writes a value in place of all versions held.
    ///
    /// # Errors
    /// The value is too large, or the store failed.
    pub async fn put(
        &self,
        name: &CollectionName,
        key: &Key,
        value: Vec<u8>,
    ) -> Result<Written, CallError> {
        self.send(Method::PUT, &of_key(name, "/entry", key), value.into()).await
    }

    /// Writes a value in place of the versions that were read, if they are still those.
    ///
    /// # Errors
    /// Others are held by now, the value is too large, or the store failed; nothing was done.
    pub async fn put_over(
        &self,
        name: &CollectionName,
        key: &Key,
        read: &ReadToken,
        value: Vec<u8>,
    ) -> Result<Written, CallError> {
        let path = format!("{}&read={}", of_key(name, "/entry", key), read.as_str());
        self.send(Method::PUT, &path, value.into()).await
    }

    /// Removes the versions that were read, if they are still those.
    ///
    /// # Errors
    /// Others are held by now, or the store failed; nothing was done.
    pub async fn delete_read(
        &self,
        name: &CollectionName,
        key: &Key,
        read: &ReadToken,
    ) -> Result<Removed, CallError> {
        let path = format!("{}&read={}", of_key(name, "/entry", key), read.as_str());
        self.send(Method::DELETE, &path, Body::empty()).await
    }

    /// Writes one of the versions that were read in place of all, if they are still those:
    /// `latest`, a dot, or the first digits of its value hash.
    ///
    /// # Errors
    /// Others are held by now, none is meant, or its bytes are lost; nothing was done.
    pub async fn take(
        &self,
        name: &CollectionName,
        key: &Key,
        read: &ReadToken,
        take: &str,
    ) -> Result<Written, CallError> {
        let (path, take) = (of_key(name, "/resolve", key), encoded(take.as_bytes()));
        let path = format!("{path}&read={}&take={take}", read.as_str());
        self.send(Method::POST, &path, Body::empty()).await
    }

    /// Keys in conflict, a line each, all of one moment.
    ///
    /// # Errors
    /// The collection is damaged.
    pub async fn conflicts(
        &self,
        name: &CollectionName,
        asked: &ConflictQuery,
    ) -> Result<Lines, CallError> {
        let ConflictQuery { prefix, after, limit, preview } = asked;
        let (prefix, path) = (hex::encode(prefix), path(name, "/conflicts"));
        let mut path = format!("{path}?prefix_hex={prefix}&preview={preview}");
        if let Some(after) = after {
            path.push_str(&format!("&after={}", encoded(after.as_bytes())));
        }
        if let Some(limit) = limit {
            path.push_str(&format!("&limit={limit}"));
        }
        Ok(Lines::new(self.ask(Method::GET, &path, Body::empty()).await?.into_body()))
    }

    /// What sessions did to a collection that a person may want to look at, the latest first.
    ///
    /// # Errors
    /// The node's store failed.
    pub async fn reports(
        &self,
        name: &CollectionName,
        limit: Option<u64>,
    ) -> Result<ReportList, CallError> {
        let limit = limit.map(|limit| format!("?limit={limit}")).unwrap_or_default();
        self.get(&path(name, &format!("/reports{limit}"))).await
    }

    /// Removes all versions held of a key.
    ///
    /// # Errors
    /// The store failed.
    pub async fn delete(&self, name: &CollectionName, key: &Key) -> Result<Removed, CallError> {
        self.send(Method::DELETE, &of_key(name, "/entry", key), Body::empty()).await
    }

    /// Writes a batch of entries: a body of [frames](super::frames), at most
    /// [`BATCH_ENTRIES`](super::BATCH_ENTRIES) and, unless there is only one,
    /// [`BATCH_BYTES`](super::BATCH_BYTES). All of it is one commit.
    ///
    /// # Errors
    /// Nothing of it was written: a value is too large, or the store failed.
    pub async fn import(
        &self,
        name: &CollectionName,
        batch: Vec<u8>,
    ) -> Result<Imported, CallError> {
        self.send(Method::POST, &path(name, "/import"), batch.into()).await
    }

    /// Removes the keys of a batch, which has frames without values.
    ///
    /// # Errors
    /// Nothing of it was removed: the store failed.
    pub async fn remove(
        &self,
        name: &CollectionName,
        batch: Vec<u8>,
    ) -> Result<Removed, CallError> {
        self.send(Method::POST, &path(name, "/remove"), batch.into()).await
    }

    /// All entries of one moment, with the value of the latest version of each; with `paths` only
    /// if all keys are paths below a folder.
    ///
    /// # Errors
    /// The collection is damaged, or a key is no path.
    pub async fn export(
        &self,
        name: &CollectionName,
        paths: bool,
    ) -> Result<ExportStream, CallError> {
        let path = format!("{}?paths={paths}", path(name, "/export"));
        let response = self.ask(Method::GET, &path, Body::empty()).await?;
        ExportStream::begin(response.into_body()).await
    }

    /// A backup of a collection at one moment: a full one, or of what changed since another.
    ///
    /// # Errors
    /// The collection is damaged, or nobody knows what changed since then. What happens later is in
    /// the stream.
    pub async fn backup(
        &self,
        name: &CollectionName,
        base: Option<&BackupHead>,
    ) -> Result<BackupStream, CallError> {
        let base = base.map(|base| format!("?base={}", hex::encode(base.to_bytes())));
        let path = format!("{}{}", path(name, "/backup"), base.unwrap_or_default());
        let response = self.ask(Method::GET, &path, Body::empty()).await?;
        Ok(BackupStream::new(response.into_body()))
    }

    /// Restores a backup, which `write` writes, as the collection of this name. Whoever stops
    /// waiting stops it: then it was restored whole, or not at all.
    ///
    /// # Errors
    /// What `write` failed with, or why it was not restored: then nothing was changed.
    pub async fn restore<W>(
        &self,
        name: &CollectionName,
        replace: bool,
        write: W,
    ) -> Result<RestoredText, CallError>
    where
        W: FnOnce(&mut dyn std::io::Write) -> Result<(), BackupError> + Send + 'static,
    {
        let Piped { body, failed } = piped(write);
        let path = format!("{}?replace={replace}", path(name, "/restore"));
        let restored = self.send(Method::POST, &path, body).await;
        // what cut the body short says more than that it was cut
        let unread = |error: &BackupError| matches!(error, BackupError::Io(error) if error.kind() == ErrorKind::BrokenPipe);
        match failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) if restored.is_err() && !unread(&error) => {
                Err(Problem::from(&ApiError::Backup(error)).into())
            }
            _ => restored,
        }
    }

    /// The entries whose keys begin with `prefix`, a line each, all of one moment.
    ///
    /// # Errors
    /// The collection is damaged.
    pub async fn entries(
        &self,
        name: &CollectionName,
        prefix: &[u8],
        values: bool,
    ) -> Result<Lines, CallError> {
        let prefix = hex::encode(prefix);
        let path = format!("{}?prefix_hex={prefix}&values={values}", path(name, "/entries"));
        Ok(Lines::new(self.ask(Method::GET, &path, Body::empty()).await?.into_body()))
    }

    /// The digest of a collection.
    ///
    /// # Errors
    /// The collection is damaged.
    pub async fn digest(&self, name: &CollectionName) -> Result<DigestText, CallError> {
        self.get(&path(name, "/digest")).await
    }

    /// Compares the digest with a peer's.
    ///
    /// # Errors
    /// The peer cannot be asked, or has no such collection.
    pub async fn compare(
        &self,
        name: &CollectionName,
        peer: &PeerRequest,
    ) -> Result<DigestComparison, CallError> {
        self.send(Method::POST, &path(name, "/digest/compare"), to_json(peer)?).await
    }

    /// A proof bundle for a key.
    ///
    /// # Errors
    /// The collection is damaged.
    pub async fn proof(&self, name: &CollectionName, key: &Key) -> Result<Bytes, CallError> {
        let path = of_key(name, "/proof", key);
        taken(self.ask(Method::GET, &path, Body::empty()).await?, MAX_ANSWER_BYTES).await
    }

    /// A file of proof for many keys, at most [`MAX_PROVED_KEYS`](crate::merkle::MAX_PROVED_KEYS).
    ///
    /// # Errors
    /// They are none or too many, or the collection is damaged.
    pub async fn prove_many(
        &self,
        name: &CollectionName,
        keys: &[Key],
    ) -> Result<Bytes, CallError> {
        let mut body = Vec::new();
        for key in keys {
            let frame = Frame::Entry { key: key.clone(), value: Bytes::new() };
            frame.write(&mut body).map_err(CallError::from)?;
        }
        let response = self.ask(Method::POST, &path(name, "/proof/many"), body.into()).await?;
        taken(response, MAX_PROOF_FILE_BYTES as u64).await
    }

    /// A file of proof for all entries under a prefix of key hashes.
    ///
    /// # Errors
    /// They are too many for one proof, or the collection is damaged.
    pub async fn prove_prefix(
        &self,
        name: &CollectionName,
        prefix: &Prefix,
    ) -> Result<Bytes, CallError> {
        let prefix = encoded(prefix.to_string().as_bytes());
        let path = format!("{}?prefix={prefix}", path(name, "/proof/prefix"));
        taken(self.ask(Method::GET, &path, Body::empty()).await?, MAX_PROOF_FILE_BYTES as u64).await
    }

    /// A file of proof for a commit: the last one that changed a key, or with a position the one
    /// there.
    ///
    /// # Errors
    /// There is no such change, or it cannot be proved any more.
    pub async fn prove_change(
        &self,
        name: &CollectionName,
        change: &ChangeChoice,
    ) -> Result<CommitFile, CallError> {
        let path = match change {
            ChangeChoice::LastOf(key) => of_key(name, "/proof/change", key),
            ChangeChoice::At(position) => {
                format!("{}?position={position}", path(name, "/proof/change"))
            }
        };
        let response = self.ask(Method::GET, &path, Body::empty()).await?;
        let position =
            response.headers().get(POSITION).and_then(|it| it.to_str().ok()?.parse().ok());
        let missing = || CallError::Answer("it does not say where the commit ends".into());
        let position = position.ok_or_else(missing)?;
        Ok(CommitFile { bytes: taken(response, MAX_PROOF_FILE_BYTES as u64).await?, position })
    }

    /// The certificates of a collection that the node has kept, the latest first.
    ///
    /// # Errors
    /// The store failed, or there is no such peer.
    pub async fn certificates(
        &self,
        name: &CollectionName,
        asked: &CertificateQuery,
    ) -> Result<CertificateList, CallError> {
        self.get(&of_query(name, "/certificates", asked)).await
    }

    /// A certificate, by number, or the last one with a peer, or the last one.
    ///
    /// # Errors
    /// There is none.
    pub async fn certificate(
        &self,
        name: &CollectionName,
        asked: &CertificateQuery,
    ) -> Result<CertificateAnswer, CallError> {
        self.get(&of_query(name, "/certificate", asked)).await
    }

    /// What peers have contradicted themselves with, and what is known of their logs.
    ///
    /// # Errors
    /// The store failed.
    pub async fn evidence(&self, name: &CollectionName) -> Result<EvidenceList, CallError> {
        self.get(&path(name, "/evidence")).await
    }

    /// Takes sessions up again with a peer that has contradicted itself.
    ///
    /// # Errors
    /// There is no such peer, or the store failed.
    pub async fn accept(
        &self,
        name: &CollectionName,
        peer: &PeerRequest,
    ) -> Result<Accepted, CallError> {
        self.send(Method::POST, &path(name, "/evidence/accept"), to_json(peer)?).await
    }

    /// Checks a collection against its hashes.
    ///
    /// # Errors
    /// The store failed.
    pub async fn check(&self, name: &CollectionName) -> Result<Check, CallError> {
        self.get(&path(name, "/check")).await
    }

    /// Recovers a collection that is damaged; with `force` any.
    ///
    /// # Errors
    /// There is nothing to recover, or the store failed.
    pub async fn recover(&self, name: &CollectionName, force: bool) -> Result<Recovery, CallError> {
        let request = to_json(&RecoverRequest { force })?;
        self.send(Method::POST, &path(name, "/recover"), request).await
    }

    /// Scrubs a collection.
    ///
    /// # Errors
    /// There is no such collection here, or it is damaged as a whole. What happens later is in
    /// the stream.
    pub async fn scrub(
        &self,
        name: &CollectionName,
        request: &ScrubRequest,
    ) -> Result<RunStream<ScrubLine>, CallError> {
        let path = path(name, "/scrub");
        let response = self.ask(Method::POST, &path, to_json(request)?).await?;
        RunStream::begin(response.into_body()).await
    }

    /// Synchronises a collection with a peer.
    ///
    /// # Errors
    /// There is no such collection here. What happens later is in the stream.
    pub async fn sync(
        &self,
        name: &CollectionName,
        request: &SyncRequest,
    ) -> Result<RunStream<SyncLine>, CallError> {
        self.session(&path(name, "/sync"), request).await
    }

    /// Compares a collection with a peer's, key by key.
    ///
    /// # Errors
    /// There is no such collection here. What happens later is in the stream.
    pub async fn diff(
        &self,
        name: &CollectionName,
        peer: &PeerRequest,
    ) -> Result<RunStream<SyncLine>, CallError> {
        self.session(&path(name, "/diff"), peer).await
    }

    /// The sessions that run and the last that have ended.
    ///
    /// # Errors
    /// No process stays that could tell.
    pub async fn sessions(&self) -> Result<SessionList, CallError> {
        self.get("sessions").await
    }

    /// What happens to sessions from now on: lines, each a
    /// [`SessionEvent`](crate::node::status::SessionEvent) or `{"event":"missed","events"}`.
    ///
    /// # Errors
    /// No process stays that could tell.
    pub async fn watch(&self) -> Result<Lines, CallError> {
        Ok(Lines::new(self.ask(Method::GET, "sessions/watch", Body::empty()).await?.into_body()))
    }

    /// Lets the daemon read its settings and peer book again.
    ///
    /// # Errors
    /// They cannot be used, and the old ones hold on; or no daemon runs.
    pub async fn reload(&self) -> Result<Reloaded, CallError> {
        self.send(Method::POST, "config/reload", Body::empty()).await
    }

    async fn session(
        &self,
        path: &str,
        request: &impl Serialize,
    ) -> Result<RunStream<SyncLine>, CallError> {
        let response = self.ask(Method::POST, path, to_json(request)?).await?;
        RunStream::begin(response.into_body()).await
    }

    /// Asks a synchronisation or comparison to end; it tells how it ended in its own stream.
    ///
    /// # Errors
    /// There is no such run any more.
    pub async fn stop(&self, run: u64) -> Result<(), CallError> {
        let path = format!("runs/{run}");
        self.ask(Method::DELETE, &path, Body::empty()).await.map(drop)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        self.send(Method::GET, path, Body::empty()).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<T, CallError> {
        let bytes = taken(self.ask(method, path, body).await?, MAX_ANSWER_BYTES).await?;
        serde_json::from_slice(&bytes).map_err(|error| CallError::Answer(error.to_string()))
    }

    /// An answer that is no problem.
    async fn ask(&self, method: Method, path: &str, body: Body) -> Result<Response, CallError> {
        let request = axum::http::Request::builder()
            .method(method)
            .uri(format!("/v1/{path}"))
            .header(header::HOST, "selfsame")
            .body(body)
            .map_err(|error| CallError::Answer(error.to_string()))?;
        let response = self.transport.send(request).await?;
        if matches!(response.status(), StatusCode::OK | StatusCode::CREATED) {
            return Ok(response);
        }
        let status = response.status();
        let bytes = taken(response, MAX_PROBLEM_BYTES).await?;
        match serde_json::from_slice::<Problem>(&bytes) {
            Ok(problem) => Err(problem.into()),
            Err(_) => Err(CallError::Answer(status.to_string())),
        }
    }
}

async fn taken(response: Response, limit: u64) -> Result<Bytes, CallError> {
    // how long it may take is for whoever waits to say
    let taken = whole(response.into_body(), limit, Duration::MAX).await;
    taken.map_err(|error| CallError::Lost(error.to_string()))
}

fn to_json(value: &impl Serialize) -> Result<Body, CallError> {
    let json = serde_json::to_vec(value);
    json.map(Body::from).map_err(|error| CallError::Answer(error.to_string()))
}

fn of_key(name: &CollectionName, endpoint: &str, key: &Key) -> String {
    format!("{}?key_hex={}", path(name, endpoint), hex::encode(key.as_bytes()))
}

fn of_query(name: &CollectionName, endpoint: &str, asked: &CertificateQuery) -> String {
    let CertificateQuery { peer, number, before, limit } = asked;
    let numbers = [("number", number), ("before", before), ("limit", limit)];
    let numbers =
        numbers.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", (*value)?)));
    let peer = peer.iter().map(|peer| format!("peer={}", encoded(peer.as_bytes())));
    format!("{}?{}", path(name, endpoint), numbers.chain(peer).collect::<Vec<_>>().join("&"))
}

/// An endpoint of a collection, whose name may have any characters.
fn path(name: &CollectionName, endpoint: &str) -> String {
    format!("collections/{}{endpoint}", encoded(name.as_bytes()))
}

/// Bytes as they may stand in a path or query.
fn encoded(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}
