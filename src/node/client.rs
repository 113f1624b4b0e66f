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

use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::access::needed_for;
use super::forest::ranges::ForestFault;
use super::manager::accuse;
use super::peers::{Grant, PeersError};
use super::query::{Answer, NotTheEntry, Query, VALUES_PER_QUERY, ValueHeader, WireEntry};
use super::{Node, Watch};
use crate::entry::Record;
use crate::hash::KeyHash;
use crate::merkle::{ConsistencyProof, Digest};
use crate::net::{
    DialOptions, Endpoint, FrameError, FrameReader, FrameWriter, Link, LinkError, NetError,
    PeerAddress, RecvStream, SendStream, SessionReport, StreamKind, World, drive, stopped,
};
use crate::replica::{Collection, LostValue, ReplicaError, Witnessed};
use crate::session::wire::{self, MAX_FRAME_BYTES, WireError};
use crate::session::{AbortCode, Failure, Mode, Outcome, Session, SyncConfig};
use crate::store::Store;
use crate::types::{CollectionName, Key, NodeId};

/// Sessions in a row for one synchronisation of more differences than fit one.
const MAX_ROUNDS: usize = 100_000;
/// How often it is tried again when there was no room for a session.
const BUSY_TRIES: usize = 5;
/// The wait before the first time; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Longest wait for a peer that is busy, whatever it asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Rotten entries asked for at once: a few hundred bytes of memory each.
const MAX_ROTTEN: usize = 16_384;
/// Lost values asked for after one synchronisation.
const MAX_LOST: usize = 65_536;

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
    /// The peer is known, and where it is is not.
    #[error(
        "no address of {0} is known, and it is not connected with a `selfsame serve` that runs \
        here: name an address with --peer ID@HOST:PORT, or write it into peers.toml"
    )]
    NoAddress(String),
    /// No such peer is known.
    #[error(transparent)]
    Peers(#[from] PeersError),
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
    /// The peer has contradicted itself.
    #[error(
        "{peer} has signed contradictory heads of one log of {collection}, and this node has no \
        sessions with it over that: see `selfsame certificate evidence {collection}`; `selfsame \
        certificate accept {collection} {peer}` takes them up again"
    )]
    Contradicted {
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
    /// An entry of another key than the one that rotted.
    #[error(transparent)]
    OtherEntry(#[from] NotTheEntry),
    /// A value of another size than the one that was lost.
    #[error("the peer sent a value that is not the one asked for")]
    OtherValue,
    /// What the peer said of the collections that both offer is not what was asked.
    #[error(transparent)]
    Forest(#[from] ForestFault),
    /// The peer took too long.
    #[error("the peer did not answer within {0:?}")]
    Silent(Duration),
}

/// One synchronisation: the reports of its sessions, in order; the last says how it ended.
#[derive(Clone, Debug)]
pub struct Synchronised {
    /// At least one.
    pub reports: Vec<SessionReport>,
    /// Entries that had rotted here, and values whose bytes were lost: both came from the peer.
    pub repaired: u64,
    /// Whether an entry was lost for good, so that the collection was recovered (rule D10).
    pub recovered: bool,
}

/// What came of asking a peer for entries that rotted here.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Refetched {
    /// Those that the peer had as they were, and that are there again.
    pub installed: u64,
    /// Those that are rotten still.
    pub left: u64,
    /// Whether the peer could say: it has the collection, and this node may see it.
    pub answered: bool,
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
        let greeting = self.greeting_for(&peer.id(), serves);
        let link = Link::greet(connection, &greeting, self.patience).await?;
        self.hear_clock(link.peer(), link.peer_greeting().clock);
        Ok(link)
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
        let mut failure = ClientError::NoAddress("the peer".into());
        for (tried, address) in addresses.iter().enumerate() {
            let others = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            let deadline = until.saturating_duration_since(Instant::now()) / others;
            let options = DialOptions { deadline, ..options.clone() };
            match self.connect_as(endpoint, address, options, serves).await {
                Ok(link) => return Ok(link),
                // an answer says more than the silence of another address
                Err(ClientError::Net(NetError::Unreachable { .. } | NetError::Resolve { .. }))
                    if !matches!(failure, ClientError::NoAddress(_)) => {}
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Synchronises a collection with the peer of a link: as many sessions as its differences
    /// take. While the peer is busy it waits as long as the peer asks for, and while another
    /// session of the pair runs it waits for that one: a few times.
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
        let mut wait = FIRST_WAIT;
        for _ in 0..BUSY_TRIES {
            let done = self.synchronise_now(link, collection, config, stop.clone(), watch).await;
            let code = match &done {
                Ok(done) => done.last().turned_away(),
                Err(ClientError::NoPlace(code)) => Some(*code),
                Err(_) => None,
            };
            let least = match code {
                None => return done,
                Some(AbortCode::Busy { retry_after_ms }) => {
                    Duration::from_millis(retry_after_ms.into())
                }
                Some(_) => Duration::ZERO,
            };
            tokio::select! {
                () = tokio::time::sleep(wait.max(least).min(LONGEST_WAIT)) => {}
                _ = stop.wait_for(|stop| *stop) => return done,
            }
            wait *= 2;
        }
        self.synchronise_now(link, collection, config, stop, watch).await
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
        let takes = matches!(config.mode, Mode::Both | Mode::Pull);
        self.check_grant(&link.peer(), collection.name(), config.mode)?;
        let mut done = Synchronised { reports: Vec::new(), repaired: 0, recovered: false };
        if takes {
            self.mend_entries(link, collection, &stop, &mut done).await?;
        }
        let mut mended = false;
        for _ in 0..MAX_ROUNDS {
            let report = self.one_session(link, collection, config, stop.clone(), watch).await?;
            let unreadable = matches!(report.outcome, Outcome::Failed(Failure::View(_)));
            let mut again = matches!(report.outcome, Outcome::Partial);
            done.reports.push(report);
            // it came upon rot that nobody knew of
            if takes && unreadable && !std::mem::replace(&mut mended, true) {
                again = self.mend_entries(link, collection, &stop, &mut done).await?;
            }
            if !again {
                break;
            }
        }
        if takes && !matches!(done.last().outcome, Outcome::Failed(_)) {
            done.repaired += self.fetch_lost(link, collection, stop).await?;
        }
        Ok(done)
    }

    /// Gets rid of entries that rotted here, before a session or after one that came upon them:
    /// takes them from the peer, and if that has not got them as they were, recovers the
    /// collection (rule D10). Whether anything was to be done.
    async fn mend_entries(
        &self,
        link: &Link,
        collection: &Arc<Collection<S>>,
        stop: &watch::Receiver<bool>,
        done: &mut Synchronised,
    ) -> Result<bool, ClientError> {
        let fetched = self.fetch_rotten(link, collection, stop.clone()).await?;
        done.repaired += fetched.installed;
        if fetched.left > 0 && fetched.answered {
            let recovered = tokio::task::block_in_place(|| collection.recover())?;
            tracing::warn!(
                collection = %collection.name(), lost = recovered.lost, kept = recovered.entries,
                "entries rotted that no peer has as they were: recovered without them"
            );
            done.recovered = true;
        }
        Ok(fetched.installed > 0 || done.recovered)
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
        if tokio::task::block_in_place(|| collection.distrusted_since(&peer))?.is_some() {
            let book = self.access.book();
            let peer = book.entry(&peer).map_or_else(|| peer.to_string(), ToString::to_string);
            return Err(ClientError::Contradicted { peer, collection: name.clone() });
        }
        let place = self.sessions.admit(self.session_key(peer, name), true);
        let place = place.map_err(ClientError::NoPlace)?;
        let begun = async {
            // a peer may have let this node open as many streams as it ever will
            let opened = tokio::time::timeout(self.patience, link.open(StreamKind::Session)).await;
            let streams = opened.map_err(|_| ClientError::Silent(self.patience))??;
            let setup = self.setup(peer, link.session_secret(&streams.0)?, config.clone());
            let view = collection.snapshot()?;
            let session = tokio::task::block_in_place(|| Session::initiate(setup, &view));
            Ok::<_, ClientError>((view, session, streams))
        };
        let (view, session, (send, receive)) = match begun.await {
            Ok(begun) => begun,
            Err(error) => {
                place.failed(&error.to_string());
                return Err(error);
            }
        };
        let stopped = stop.clone();
        let world = World {
            link,
            collection,
            view: &view,
            may_write: self.access.grant(&peer, name) >= Grant::Write,
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
        if let Some(clock) = report.peer_clock {
            self.hear_clock(link.peer(), clock);
        }
        if !matches!(report.outcome, Outcome::Failed(_) | Outcome::Interrupted) {
            self.check_growth(link, collection, stopped).await;
        }
        Ok(report)
    }

    /// Asks the peer to prove that its logs, as it has signed them, have grown and not changed:
    /// those of which that is not known, and not asked lately. Who proves what does not hold has
    /// contradicted itself; a peer that is gone, or too slow, is asked another time.
    pub async fn check_growth(
        &self,
        link: &Link,
        collection: &Arc<Collection<S>>,
        mut stop: watch::Receiver<bool>,
    ) {
        tokio::select! {
            _ = tokio::time::timeout(self.patience, self.ask_growth(link, collection)) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    async fn ask_growth(
        &self,
        link: &Link,
        collection: &Arc<Collection<S>>,
    ) -> Result<(), ClientError> {
        let (peer, now_ms) = (link.peer(), Self::now_ms());
        let due = tokio::task::block_in_place(|| collection.logs_to_prove(&peer, now_ms))?;
        for seen in due {
            let (first, second) = (seen.proved.fields(), seen.last.fields());
            let query = Query::Growth {
                collection: collection.name().as_str().to_owned(),
                kind: second.log().kind.id(),
                id: second.log().id,
                first: (first.size(), *first.root()),
                second: (second.size(), *second.root()),
            };
            let mut answers = self.ask(link, &query).await?;
            let proof = match self.next(&mut answers).await? {
                // bytes that are no proof prove nothing
                Answer::Growth(Some(bytes)) => ConsistencyProof::parse(&bytes.0).ok(),
                _ => None,
            };
            let witness = || collection.witness_proof(&seen, proof, Self::now_ms());
            if let Witnessed::Contradicts(contradiction, _) = tokio::task::block_in_place(witness)?
            {
                accuse(&contradiction);
            }
        }
        Ok(())
    }

    /// Asks the peer for the entries that were found rotten here, and installs those that are
    /// just what rotted: then no causality is in it (rule D10).
    ///
    /// # Errors
    /// The link is lost, or this node's store failed; what was installed stays.
    pub async fn fetch_rotten(
        &self,
        link: &Link,
        collection: &Arc<Collection<S>>,
        stop: watch::Receiver<bool>,
    ) -> Result<Refetched, ClientError> {
        let rotten = || collection.rotten_entries(MAX_ROTTEN);
        let wanted = tokio::task::block_in_place(rotten)?;
        let (mut given, mut answered) = (Vec::new(), !wanted.is_empty());
        for some in wanted.chunks(VALUES_PER_QUERY) {
            if *stop.borrow() {
                answered = false;
                break;
            }
            match self.ask_entries(link, collection, some).await? {
                Some(entries) => given.extend(entries),
                None => answered = false,
            }
        }
        // all at once: of a page where several rotted, none can be verified alone
        let installed = tokio::task::block_in_place(|| collection.install_entries(&given))?;
        let left = tokio::task::block_in_place(rotten)?.len() as u64;
        Ok(Refetched { installed, left, answered })
    }

    /// Entries as the peer has them; none if it has no such collection.
    async fn ask_entries(
        &self,
        link: &Link,
        collection: &Collection<S>,
        wanted: &[KeyHash],
    ) -> Result<Option<Vec<(Key, Record)>>, ClientError> {
        let name = collection.name().as_str().to_owned();
        let query = Query::Entries { collection: name, wanted: wanted.to_vec() };
        let mut answers = self.ask(link, &query).await?;
        let Answer::Entries = self.next(&mut answers).await? else { return Ok(None) };
        let mut entries = Vec::new();
        for key in wanted {
            let entry: WireEntry = self.next(&mut answers).await?;
            entries.extend(entry.check(collection.spec().algorithm, key)?);
        }
        Ok(Some(entries))
    }

    /// Asks the peer for the values whose bytes were found lost here, and installs what it has
    /// (rule D10). How many were installed.
    ///
    /// # Errors
    /// The link is lost, or this node's store failed; what was installed stays.
    pub async fn fetch_lost(
        &self,
        link: &Link,
        collection: &Arc<Collection<S>>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<u64, ClientError> {
        let lost = tokio::task::block_in_place(|| collection.lost_values(MAX_LOST))?;
        let mut installed = 0;
        for some in lost.chunks(VALUES_PER_QUERY) {
            tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                fetched = self.fetch_values(link, collection, some) => installed += fetched?,
            }
        }
        Ok(installed)
    }

    async fn fetch_values(
        &self,
        link: &Link,
        collection: &Arc<Collection<S>>,
        lost: &[LostValue],
    ) -> Result<u64, ClientError> {
        let name = collection.name().as_str().to_owned();
        let wanted = lost.iter().map(|value| (value.key, value.hash)).collect();
        let mut answers = self.ask(link, &Query::Values { collection: name, wanted }).await?;
        match self.next(&mut answers).await? {
            Answer::Values => {}
            // it has no such collection, or did not say so: another peer may help
            _ => return Ok(0),
        }
        let mut installed = 0;
        for value in lost {
            let header: ValueHeader = self.next(&mut answers).await?;
            let Some(size) = header.size else { continue };
            if size != value.size {
                return Err(ClientError::OtherValue);
            }
            let mut bytes = Vec::new();
            while (bytes.len() as u64) < size {
                let frame = self.next_frame(&mut answers).await?;
                if frame.is_empty() || (bytes.len() + frame.len()) as u64 > size {
                    return Err(ClientError::OtherValue);
                }
                bytes.extend_from_slice(&frame);
            }
            let install = || collection.install_value(&value.key, &bytes);
            installed += u64::from(tokio::task::block_in_place(install)?);
        }
        Ok(installed)
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
        let mut answers = self.ask(link, &query).await?;
        match self.next(&mut answers).await? {
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

    /// Says a question; what is given back reads the answer.
    pub(in crate::node) async fn ask(
        &self,
        link: &Link,
        query: &Query,
    ) -> Result<FrameReader<RecvStream>, ClientError> {
        let asked = async {
            let (writer, reader) = self.converse(link, query).await?;
            let _stream = writer.finish().await?;
            Ok(reader)
        };
        let asked = tokio::time::timeout(self.patience, asked).await;
        asked.map_err(|_| ClientError::Silent(self.patience))?
    }

    /// Says a first question of several.
    pub(in crate::node) async fn converse(
        &self,
        link: &Link,
        query: &Query,
    ) -> Result<(FrameWriter<SendStream>, FrameReader<RecvStream>), ClientError> {
        let asked = async {
            let (send, receive) = link.open(StreamKind::Query).await?;
            let mut writer = FrameWriter::new(send, MAX_FRAME_BYTES);
            writer.write_frame(&wire::encode(query)?).await?;
            Ok((writer, FrameReader::new(receive, MAX_FRAME_BYTES)))
        };
        let asked = tokio::time::timeout(self.patience, asked).await;
        asked.map_err(|_| ClientError::Silent(self.patience))?
    }

    async fn next_frame(
        &self,
        answers: &mut FrameReader<RecvStream>,
    ) -> Result<Vec<u8>, ClientError> {
        let frame = tokio::time::timeout(self.patience, answers.next_frame()).await;
        frame.map_err(|_| ClientError::Silent(self.patience))??.ok_or(ClientError::NoAnswer)
    }

    pub(in crate::node) async fn next<T: DeserializeOwned>(
        &self,
        answers: &mut FrameReader<RecvStream>,
    ) -> Result<T, ClientError> {
        Ok(wire::decode(&self.next_frame(answers).await?)?)
    }
}
