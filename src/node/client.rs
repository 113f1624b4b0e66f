//! Turns to peers: dials, greets, runs sessions, asks questions.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use selfsame::net::{Endpoint, PeerAddress};
//! use selfsame::node::client::ClientError;
//! use selfsame::node::{Node, Unwatched};
//! use selfsame::replica::Collection;
//! use selfsame::session::{Mode, Outcome, SyncConfig};
//! use selfsame::store::Store;
//!
//! /// Takes what the peer has, and gives nothing.
//! async fn pull<S: Store>(
//!     node: &Node<S>,
//!     endpoint: &Endpoint,
//!     peer: &PeerAddress,
//!     collection: &Arc<Collection<S>>,
//! ) -> Result<Outcome, ClientError> {
//!     let link = node.connect(endpoint, peer, Duration::from_secs(10)).await?;
//!     let config = SyncConfig { mode: Mode::Pull, ..node.config.clone() };
//!     let (_stop, stopped) = tokio::sync::watch::channel(false);
//!     let done = node.synchronise(&link, collection, &config, stopped, &Unwatched).await?;
//!     Ok(done.last().outcome.clone())
//! }
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::access::needed_for;
use super::peers::Grant;
use super::query::{Answer, Query};
use super::{Node, Watch};
use crate::merkle::Digest;
use crate::net::{
    DialOptions, Endpoint, FrameError, FrameReader, FrameWriter, Link, LinkError, NetError,
    PeerAddress, RecvStream, SessionReport, StreamKind, World, drive,
};
use crate::replica::{Collection, ReplicaError};
use crate::session::wire::{self, MAX_FRAME_BYTES, WireError};
use crate::session::{AbortCode, Mode, Outcome, Session, SyncConfig};
use crate::store::Store;
use crate::types::{CollectionName, NodeId};

/// Sessions in a row for one synchronisation of more differences than fit one.
const MAX_ROUNDS: usize = 100_000;
/// How often a peer that is busy is tried again.
const BUSY_TRIES: usize = 5;
/// Longest wait for a peer that is busy, whatever it asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// A peer could not be synchronised with, or did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The connection could not be made or was lost.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The peer was not greeted.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A frame could not be read or written.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// This node's replica failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// What the peer said is no message.
    #[error("the peer's answer is not understood: {0}")]
    Wire(#[from] WireError),
    /// The peer has no such collection, or this node may not see it.
    #[error("the peer has no collection {0}, or this node may not use it")]
    UnknownCollection(CollectionName),
    /// There is no address to dial.
    #[error("no address of the peer is known: it dials this node")]
    NoAddress,
    /// The peer may only take, and it was to give.
    #[error(
        "{peer} may only read {collection} here, so nothing can be taken from it: use \
        --direction push, or let it write with `selfsame peer grant {peer} {collection}=write`"
    )]
    ReadsOnly {
        /// Its name, or its id.
        peer: String,
        /// The collection.
        collection: CollectionName,
    },
    /// The peer may do nothing.
    #[error(
        "{peer} may not use {collection} here: let it with `selfsame peer grant {peer} \
        {collection}=write` (or =read, if it is only to take)"
    )]
    NoGrant {
        /// Its name, or its id.
        peer: String,
        /// The collection.
        collection: CollectionName,
    },
    /// There is no room for a session here, or one of the same pair runs.
    #[error("no session can be opened just now: {0}")]
    NoPlace(AbortCode),
    /// The peer could not answer.
    #[error("the peer could not read its store: look at its log")]
    PeerFailed,
    /// The peer's digest does not hold.
    #[error("the peer's digest does not hold: its hashes do not belong together")]
    BadDigest,
    /// The peer ended the stream.
    #[error("the peer did not answer: it may be another version")]
    NoAnswer,
    /// The peer took too long.
    #[error("the peer did not answer within {0:?}")]
    Silent(Duration),
}

/// One synchronisation: the reports of its sessions, in order; the last says how it ended.
#[derive(Clone, Debug)]
pub struct Synchronised {
    /// At least one.
    pub reports: Vec<SessionReport>,
}

impl Synchronised {
    /// The last session's report.
    #[must_use]
    pub fn last(&self) -> &SessionReport {
        self.reports.last().expect("at least one session was run")
    }
}

impl<S: Store> Node<S> {
    /// Dials a peer and greets it.
    ///
    /// # Errors
    /// It cannot be reached within the deadline, is another node, or refuses this one.
    pub async fn connect(
        &self,
        endpoint: &Endpoint,
        peer: &PeerAddress,
        options: impl Into<DialOptions>,
    ) -> Result<Link, ClientError> {
        self.connect_as(endpoint, peer, options.into(), false).await
    }

    async fn connect_as(
        &self,
        endpoint: &Endpoint,
        peer: &PeerAddress,
        options: DialOptions,
        serves: bool,
    ) -> Result<Link, ClientError> {
        let connection = endpoint.dial(peer, options).await?;
        Ok(Link::greet(connection, &self.greeting_for(&peer.id(), serves), self.patience).await?)
    }

    /// Dials the addresses of one peer in order until one answers, and greets it. Each gets its
    /// share of the time that is left.
    ///
    /// # Errors
    /// As [`Node::connect`]: that of the address which said most about the peer.
    pub async fn connect_first(
        &self,
        endpoint: &Endpoint,
        addresses: &[PeerAddress],
        options: impl Into<DialOptions>,
    ) -> Result<Link, ClientError> {
        self.connect_first_as(endpoint, addresses, options.into(), false).await
    }

    pub(in crate::node) async fn connect_first_as(
        &self,
        endpoint: &Endpoint,
        addresses: &[PeerAddress],
        options: DialOptions,
        serves: bool,
    ) -> Result<Link, ClientError> {
        let until = Instant::now() + options.deadline;
        let mut failure = ClientError::NoAddress;
        for (tried, address) in addresses.iter().enumerate() {
            let others = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            let deadline = until.saturating_duration_since(Instant::now()) / others;
            let options = DialOptions { deadline, ..options.clone() };
            match self.connect_as(endpoint, address, options, serves).await {
                Ok(link) => return Ok(link),
                // an answer says more than the silence of another address
                Err(ClientError::Net(NetError::Unreachable { .. } | NetError::Resolve { .. }))
                    if !matches!(failure, ClientError::NoAddress) => {}
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Synchronises a collection with the peer of a link: as many sessions as its differences
    /// take. While the peer is busy, it waits as long as the peer asks for, a few times.
    ///
    /// # Errors
    /// The collection does not exist here, or the link is lost before a session began. How
    /// sessions end is in their reports.
    pub async fn synchronise(
        &self,
        link: &Link,
        collection: &Arc<Collection<S>>,
        config: &SyncConfig,
        mut stop: watch::Receiver<bool>,
        watch: &dyn Watch,
    ) -> Result<Synchronised, ClientError> {
        let mut tries = 0;
        loop {
            let done = self.synchronise_now(link, collection, config, stop.clone(), watch).await?;
            let wait = done.last().retry_after().filter(|_| tries < BUSY_TRIES);
            let Some(wait) = wait else { return Ok(done) };
            tries += 1;
            tokio::select! {
                () = tokio::time::sleep(wait.min(LONGEST_WAIT)) => {}
                _ = stop.wait_for(|stop| *stop) => return Ok(done),
            }
        }
    }

    /// The same, without waiting for a peer that is busy.
    ///
    /// # Errors
    /// As [`Node::synchronise`].
    pub async fn synchronise_now(
        &self,
        link: &Link,
        collection: &Arc<Collection<S>>,
        config: &SyncConfig,
        stop: watch::Receiver<bool>,
        watch: &dyn Watch,
    ) -> Result<Synchronised, ClientError> {
        let mut reports = Vec::new();
        for _ in 0..MAX_ROUNDS {
            let report = self.one_session(link, collection, config, stop.clone(), watch).await?;
            let again = matches!(report.outcome, Outcome::Partial);
            reports.push(report);
            if !again {
                break;
            }
        }
        Ok(Synchronised { reports })
    }

    /// Whether the peer may do here what a session that this node opens would let it do.
    ///
    /// # Errors
    /// It may not: then it is not worth dialling it.
    pub fn check_grant(
        &self,
        peer: &NodeId,
        collection: &CollectionName,
        mode: Mode,
    ) -> Result<(), ClientError> {
        let grant = self.access.grant(peer, collection);
        if grant >= needed_for(mode) {
            return Ok(());
        }
        let book = self.access.book();
        let peer = book.entry(peer).map_or_else(|| peer.to_string(), ToString::to_string);
        let collection = collection.clone();
        Err(match grant {
            Grant::Read => ClientError::ReadsOnly { peer, collection },
            _ => ClientError::NoGrant { peer, collection },
        })
    }

    async fn one_session(
        &self,
        link: &Link,
        collection: &Arc<Collection<S>>,
        config: &SyncConfig,
        stop: watch::Receiver<bool>,
        watch: &dyn Watch,
    ) -> Result<SessionReport, ClientError> {
        let (peer, name) = (link.peer(), &collection.spec().name);
        self.check_grant(&peer, name, config.mode)?;
        let place = self.sessions.admit(self.session_key(peer, name), true);
        let place = place.map_err(ClientError::NoPlace)?;
        let begun = async {
            let view = collection.snapshot()?;
            let setup = self.setup(peer, link.channel_secret()?, config.clone());
            let session = tokio::task::block_in_place(|| Session::initiate(setup, &view));
            Ok::<_, ClientError>((view, session, link.open(StreamKind::Session).await?))
        };
        let (view, session, (send, receive)) = match begun.await {
            Ok(begun) => begun,
            Err(error) => {
                place.failed(&error.to_string());
                return Err(error);
            }
        };
        let world = World {
            link,
            collection,
            view: &view,
            now_ms: &Self::now_ms,
            sign: &|message| self.identity.sign(message),
            patience: self.patience,
            stop,
            permit: &|| {
                self.access.opens(&peer, name, config.mode)?;
                place.permit()
            },
            progress: &|session| {
                place.progress(session);
                watch.progress(session);
            },
        };
        let report = drive(session, send, FrameReader::new(receive, MAX_FRAME_BYTES), world).await;
        place.ended(&report);
        Ok(report)
    }

    /// Asks the peer for the digest of a collection, and checks it.
    ///
    /// # Errors
    /// The link is lost, the peer has no such collection, or what it says does not hold.
    pub async fn remote_digest(
        &self,
        link: &Link,
        collection: &CollectionName,
    ) -> Result<Digest, ClientError> {
        let query = Query::Digest { collection: collection.as_str().to_owned() };
        let asked = tokio::time::timeout(self.patience, ask(link, &query)).await;
        match asked.map_err(|_| ClientError::Silent(self.patience))?? {
            Answer::Digest(digest) => {
                let digest = digest.check().ok_or(ClientError::BadDigest)?;
                let same = digest.envelope().name() == collection;
                same.then_some(digest).ok_or(ClientError::BadDigest)
            }
            Answer::Unknown => Err(ClientError::UnknownCollection(collection.clone())),
            Answer::Failed => Err(ClientError::PeerFailed),
            _ => Err(ClientError::NoAnswer),
        }
    }
}

async fn ask(link: &Link, query: &Query) -> Result<Answer, ClientError> {
    let mut reader = say_query(link, query).await?;
    let frame = reader.next_frame().await?;
    let frame = frame.ok_or(ClientError::NoAnswer)?;
    Ok(wire::decode(&frame)?)
}

/// Says a question; what is given back reads the answer.
pub(in crate::node) async fn say_query(
    link: &Link,
    query: &Query,
) -> Result<FrameReader<RecvStream>, ClientError> {
    let (send, receive) = link.open(StreamKind::Query).await?;
    let mut writer = FrameWriter::new(send, MAX_FRAME_BYTES);
    writer.write_frame(&wire::encode(query)?).await?;
    let _stream = writer.finish().await?;
    Ok(FrameReader::new(receive, MAX_FRAME_BYTES))
}
