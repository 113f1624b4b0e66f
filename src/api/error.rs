//! What can go wrong at the control API, and how it reaches whoever asked.
//!
//! An [`ApiError`] is what happened; a [`Problem`] is what of it travels: what to say, what to do
//! about it, and the code with which a command ends. A command says the same whether the error
//! happened in its own process or in another.
//!
//! ```
//! use selfsame::api::error::{ApiError, Problem};
//!
//! let problem = Problem::from(&ApiError::NoDaemon);
//! assert_eq!((problem.code.as_str(), problem.exit), ("no_daemon", 2));
//! let travelled: Problem = serde_json::from_str(&serde_json::to_string(&problem)?)?;
//! assert_eq!(travelled.told(), problem.told());
//! # Ok::<(), serde_json::Error>(())
//! ```

use std::fmt;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::Exit;
use crate::backup::BackupError;
use crate::merkle::DigestError;
use crate::net::{AddressError, CloseCode, LinkError, NetError};
use crate::node::client::ClientError;
use crate::replica::{ProveError, ReplicaError, ViewError};
use crate::resolve::ResolveError;
use crate::store::StoreError;
use crate::types::{CollectionName, Key, TypeError};

/// The media type of a [`Problem`].
pub const PROBLEM: &str = "application/problem+json";

/// The node could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// The replica failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// A snapshot could not be read.
    #[error(transparent)]
    View(#[from] ViewError),
    /// A key, name or the like that is none.
    #[error(transparent)]
    Word(#[from] TypeError),
    /// A peer's address that is none.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The value is too large.
    #[error("the value is larger than the {0} bytes that max_value_bytes in config.toml allows")]
    ValueSize(u64),
    /// The bytes of a value are lost here.
    #[error(
        "the bytes of this value are lost or damaged here: the next `selfsame sync` with a peer \
        that has them fetches them again"
    )]
    ValueLost,
    /// Nothing is held under a key.
    #[error("{key}: no such key in {collection}")]
    NoSuchKey {
        /// The key.
        key: Key,
        /// Where it was looked for.
        collection: CollectionName,
    },
    /// There is no such certificate.
    #[error(
        "no such certificate of {0} is kept: see `selfsame certificate ls {0}`; one comes with \
        each session that leaves both ends the same, other than before"
    )]
    NoCertificate(CollectionName),
    /// Nothing can be proved.
    #[error(transparent)]
    Prove(ProveError),
    /// No clone has this number.
    #[error("no clone of {collection} has number {number}: see `selfsame clones {collection}`")]
    NoClone {
        /// The number.
        number: u64,
        /// The collection.
        collection: CollectionName,
    },
    /// A key has several versions where one was asked for.
    #[error(
        "{key}: {versions} concurrent versions are held, and the policy shows all: see them with \
        --json; the next put replaces them"
    )]
    SeveralVersions {
        /// The key.
        key: Key,
        /// How many.
        versions: u64,
    },
    /// The resolver made nothing of several versions.
    #[error("{key}: {versions} concurrent versions are held; {why}")]
    NotMerged {
        /// The key.
        key: Key,
        /// How many.
        versions: u64,
        /// What the resolver said.
        why: ResolveError,
    },
    /// Text that stands for no versions that were read.
    #[error(
        "this is no token of versions that were read: take the 32 hex digits after `read` from \
        `selfsame conflicts` or `selfsame get --json`"
    )]
    NoReadToken,
    /// No value of a key has a hash that begins so.
    #[error(
        "{key}: no value with a hash that begins with {digits} is held or still kept: \
        `selfsame history` lists those that are"
    )]
    NoSuchVersion {
        /// The key.
        key: Key,
        /// The digits.
        digits: String,
    },
    /// Several values of a key have hashes that begin so.
    #[error("{found} values of this key have hashes that begin with {digits}: give more digits")]
    AmbiguousVersion {
        /// The digits.
        digits: String,
        /// How many.
        found: u64,
    },
    /// Text that names no version.
    #[error("{digits:?} names no version: give at least the first 4 hex digits of its value hash")]
    NoVersionName {
        /// What was given.
        digits: String,
    },
    /// Keys that cannot be file names.
    #[error(
        "{count} keys cannot be paths below a folder, so nothing was written: export to a path \
        that ends in .jsonl instead"
    )]
    UnsafeKeys {
        /// How many.
        count: u64,
        /// A line for each of the first.
        named: Vec<String>,
    },
    /// The collection is sound, and recovering it would lose something.
    #[error(
        "collection {0} is sound: recovering it would only make it forget which deletions it \
        has seen; nothing was done (--force does it all the same)"
    )]
    NothingToRecover(CollectionName),
    /// A backup that cannot be made or used.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// There is a collection where a backup is to be restored.
    #[error("{0}")]
    Exists(String),
    /// A peer could not be spoken with.
    #[error(transparent)]
    Client(ClientError),
    /// A connection failed.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The digest of this node does not hold.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// What was asked is not understood.
    #[error("the request is not understood: {0}")]
    Request(String),
    /// There is no such endpoint, or it knows no such method.
    #[error(
        "{0} is nothing that this node offers: if the command is of another version than the \
        node's process, restart that one"
    )]
    NoEndpoint(String),
    /// The body of a request is too large.
    #[error("the body of the request is larger than {0} bytes: send it in parts")]
    BodySize(u64),
    /// The body of a request does not come.
    #[error("the body of the request stopped coming: send it again")]
    SlowBody,
    /// Too many requests at once.
    #[error("the node has as many requests as it serves at once: try again")]
    Busy,
    /// No synchronisation or comparison of this number goes on.
    #[error("no synchronisation or comparison goes on under the number {0}")]
    NoRun(u64),
    /// What only the daemon knows.
    #[error("no daemon runs on this data folder: start one with `selfsame serve`")]
    NoDaemon,
    /// New settings that cannot be used.
    #[error("{0}")]
    Config(String),
    /// Somebody asked to stop.
    #[error("stopped: what was done is kept")]
    Stopped,
    /// A part of the node fell.
    #[error("the node could not go on with this request: look at its log")]
    Fallen,
}

impl From<ClientError> for ApiError {
    /// A stream that failed says why the connection failed.
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Frame(error) | ClientError::Link(LinkError::Frame(error)) => {
                Self::Net(error.into())
            }
            other => Self::Client(other),
        }
    }
}

impl From<ProveError> for ApiError {
    fn from(error: ProveError) -> Self {
        match error {
            ProveError::Replica(error) => Self::Replica(error),
            other => Self::Prove(other),
        }
    }
}

impl ApiError {
    /// The code with which a command ends.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Client(error) => of_client(error),
            Self::Net(error) => of_net(error),
            Self::NoSuchKey { .. }
            | Self::NoSuchVersion { .. }
            | Self::SeveralVersions { .. }
            | Self::NoCertificate(_)
            | Self::Prove(ProveError::NoChange(_))
            | Self::NoClone { .. }
            | Self::NotMerged { .. }
            | Self::Replica(ReplicaError::Changed) => Exit::Differs,
            Self::Backup(error) if error.is_unsound() => Exit::Unproved,
            Self::Stopped => Exit::Interrupted,
            _ => Exit::Failed,
        }
    }

    /// A word for programs, and the status of the answer.
    fn kind(&self) -> (&'static str, StatusCode) {
        match self {
            Self::Replica(error) => of_replica(error),
            Self::View(ViewError::Damaged { .. } | ViewError::Rotten { .. }) => {
                ("damaged", StatusCode::CONFLICT)
            }
            Self::View(_) => ("store", StatusCode::INTERNAL_SERVER_ERROR),
            Self::Word(_) => ("no_such_word", StatusCode::BAD_REQUEST),
            Self::Address(_) => ("address", StatusCode::BAD_REQUEST),
            Self::ValueSize(_) => ("value_size", StatusCode::PAYLOAD_TOO_LARGE),
            Self::ValueLost => ("value_lost", StatusCode::CONFLICT),
            Self::NoSuchKey { .. } => ("no_such_key", StatusCode::NOT_FOUND),
            Self::NoCertificate(_) => ("no_certificate", StatusCode::NOT_FOUND),
            Self::Prove(ProveError::NoChange(_)) => ("no_change", StatusCode::NOT_FOUND),
            Self::Prove(ProveError::Bundle(_)) => ("proof_size", StatusCode::PAYLOAD_TOO_LARGE),
            Self::Prove(_) => ("unprovable", StatusCode::CONFLICT),
            Self::NoClone { .. } => ("no_clone", StatusCode::NOT_FOUND),
            Self::SeveralVersions { .. } => ("several_versions", StatusCode::CONFLICT),
            Self::NotMerged { .. } => ("not_merged", StatusCode::CONFLICT),
            Self::NoReadToken => ("no_such_word", StatusCode::BAD_REQUEST),
            Self::NoSuchVersion { .. } => ("no_such_version", StatusCode::NOT_FOUND),
            Self::AmbiguousVersion { .. } => ("ambiguous_version", StatusCode::CONFLICT),
            Self::NoVersionName { .. } => ("no_such_word", StatusCode::BAD_REQUEST),
            Self::UnsafeKeys { .. } => ("unsafe_keys", StatusCode::CONFLICT),
            Self::NothingToRecover(_) => ("nothing_to_recover", StatusCode::CONFLICT),
            Self::Backup(BackupError::NotSince { .. }) => ("not_since", StatusCode::CONFLICT),
            Self::Backup(_) => ("backup", StatusCode::UNPROCESSABLE_ENTITY),
            Self::Exists(_) => ("exists", StatusCode::CONFLICT),
            Self::Client(_) | Self::Net(_) => ("peer", StatusCode::BAD_GATEWAY),
            Self::Digest(_) => ("digest", StatusCode::INTERNAL_SERVER_ERROR),
            Self::Request(_) => ("request", StatusCode::BAD_REQUEST),
            Self::NoEndpoint(_) => ("no_endpoint", StatusCode::NOT_FOUND),
            Self::BodySize(_) => ("body_size", StatusCode::PAYLOAD_TOO_LARGE),
            Self::SlowBody => ("slow_body", StatusCode::REQUEST_TIMEOUT),
            Self::Busy => ("busy", StatusCode::SERVICE_UNAVAILABLE),
            Self::NoRun(_) => ("no_run", StatusCode::NOT_FOUND),
            Self::NoDaemon => ("no_daemon", StatusCode::CONFLICT),
            Self::Config(_) => ("config", StatusCode::UNPROCESSABLE_ENTITY),
            Self::Stopped => ("stopped", StatusCode::CONFLICT),
            Self::Fallen => ("fallen", StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    /// What a person can do about it, where the error itself cannot know.
    fn advice(&self) -> Option<String> {
        match self {
            Self::Replica(ReplicaError::Damaged { collection, .. })
            | Self::View(ViewError::Damaged { collection, .. })
            | Self::Replica(ReplicaError::View(_, ViewError::Damaged { collection, .. })) => {
                Some(format!("run `selfsame recover {collection}`"))
            }
            Self::Replica(ReplicaError::Rotten { collection, .. })
            | Self::View(ViewError::Rotten { collection, .. })
            | Self::Replica(ReplicaError::View(_, ViewError::Rotten { collection, .. })) => {
                Some(format!(
                    "run `selfsame sync {collection}` with a peer, or if none has it `selfsame \
                     recover {collection}`, which gives it up"
                ))
            }
            Self::Replica(ReplicaError::Store(StoreError::Full)) => Some(
                "make room on the disk of the data folder, and run the command again; a node that \
                 serves is to be started anew then"
                    .into(),
            ),
            Self::Replica(ReplicaError::PerhapsDamaged(name)) => {
                Some(format!("run `selfsame recover {name}`, or see `selfsame collection ls`"))
            }
            Self::Replica(ReplicaError::UnknownCollection(name)) => Some(format!(
                "`selfsame collection create {name}`, or see `selfsame collection ls`"
            )),
            _ => None,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (_, status) = self.kind();
        let body = serde_json::to_vec(&Problem::from(&self)).unwrap_or_default();
        let media = [(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM))];
        (status, media, body).into_response()
    }
}

fn of_replica(error: &ReplicaError) -> (&'static str, StatusCode) {
    match error {
        ReplicaError::UnknownCollection(_) => ("no_such_collection", StatusCode::NOT_FOUND),
        ReplicaError::OtherSpec { .. } => ("other_settings", StatusCode::CONFLICT),
        ReplicaError::Changed => ("changed", StatusCode::CONFLICT),
        ReplicaError::ClockAhead(_) => ("clock_ahead", StatusCode::CONFLICT),
        ReplicaError::UnknownResolver(_) => ("unknown_resolver", StatusCode::UNPROCESSABLE_ENTITY),
        ReplicaError::ValueSize { .. } => ("value_size", StatusCode::PAYLOAD_TOO_LARGE),
        ReplicaError::Damaged { .. }
        | ReplicaError::Rotten { .. }
        | ReplicaError::PerhapsDamaged(_)
        | ReplicaError::View(_, ViewError::Damaged { .. } | ViewError::Rotten { .. }) => {
            ("damaged", StatusCode::CONFLICT)
        }
        _ => ("store", StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn of_client(error: &ClientError) -> Exit {
    match error {
        ClientError::Net(error) => of_net(error),
        ClientError::Link(LinkError::Net(error)) => of_net(error),
        ClientError::Link(LinkError::Version { .. })
        | ClientError::NoPlace(_)
        | ClientError::Contradicted { .. }
        | ClientError::UnknownCollection(_)
        | ClientError::PeerFailed => Exit::Refused,
        ClientError::Link(_) | ClientError::Silent(_) => Exit::Unreachable,
        ClientError::BadDigest | ClientError::Wire(_) => Exit::Unproved,
        _ => Exit::Failed,
    }
}

/// The code with which a command ends whose connection failed.
pub(crate) fn of_net(error: &NetError) -> Exit {
    match error {
        NetError::Refused { .. }
        | NetError::WrongKey { .. }
        | NetError::Busy(_)
        | NetError::OtherProtocol(_)
        | NetError::ClosedByPeer { code: CloseCode::NotAdmitted | CloseCode::Busy, .. } => {
            Exit::Refused
        }
        NetError::Unreachable { .. }
        | NetError::Resolve { .. }
        | NetError::AddressFamily { .. }
        | NetError::Handshake { .. }
        | NetError::ClosedByPeer { .. }
        | NetError::IdleTimeout(_)
        | NetError::PeerRestarted(_)
        | NetError::Violated { .. }
        | NetError::Broken { .. }
        | NetError::StreamReset(_)
        | NetError::StreamStopped(_)
        | NetError::Frame(_) => Exit::Unreachable,
        _ => Exit::Failed,
    }
}

/// An error as it travels.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// A word for programs.
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// Causes that the sentence does not name itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// What a person can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what_to_do: Option<String>,
    /// What it is about, item by item.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub named: Vec<String>,
    /// The code with which a command ends.
    pub exit: u8,
}

impl From<&ApiError> for Problem {
    fn from(error: &ApiError) -> Self {
        let named = match error {
            ApiError::UnsafeKeys { named, .. } => named.clone(),
            _ => Vec::new(),
        };
        Self {
            code: error.kind().0.to_owned(),
            message: error.to_string(),
            causes: causes(error),
            what_to_do: error.advice(),
            named,
            exit: error.exit().code(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Problem {
    /// All that is to be said: the error, causes, what to do.
    #[must_use]
    pub fn told(&self) -> String {
        let mut told = format!("error: {}", self.message);
        for cause in &self.causes {
            told.push_str(&format!("\n  caused by: {cause}"));
        }
        if let Some(advice) = &self.what_to_do {
            told.push_str(&format!("\n  what to do: {advice}"));
        }
        told
    }
}

/// The causes of an error that its text, and that of those before it, does not name.
pub(crate) fn causes(error: &dyn std::error::Error) -> Vec<String> {
    let mut told = error.to_string();
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !told.contains(&text) {
            told.push_str(&text);
            causes.push(text);
        }
        cause = error.source();
    }
    causes
}
