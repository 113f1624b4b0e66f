//! Answers peers: every connection is greeted, every stream on it is a session or a question.
//!
//! ```
//! use std::sync::Arc;
//!
//! use selfsame::net::Endpoint;
//! use selfsame::node::Node;
//! use selfsame::node::server::{Event, serve};
//! use selfsame::store::Store;
//!
//! /// Serves until somebody presses Ctrl-C.
//! async fn listen<S: Store>(node: Arc<Node<S>>, endpoint: Endpoint) {
//!     let (stop, stopped) = tokio::sync::watch::channel(false);
//!     tokio::spawn(async move {
//!         let _ = tokio::signal::ctrl_c().await;
//!         let _ = stop.send(true);
//!     });
//!     let tell = |event| {
//!         if let Event::Session { peer, collection, report } = event {
//!             println!("{collection} with {peer}: {:?}", report.outcome);
//!         }
//!     };
//!     serve(node, endpoint, stopped, Arc::new(tell)).await;
//! }
//! ```

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::timeout;

use super::Node;
use super::client::ClientError;
use super::forest::Standing;
use super::forest::ranges::Ground;
use super::pairing::{Door, Paired, PairingError};
use super::peers::{Edited, Grant, PeerEntry, PeersError};
use super::query::{
    Answer, Query, VALUE_CHUNK, VALUES_PER_QUERY, ValueHeader, WireDigest, WireEntry, WireForest,
};
use crate::hash::{KeyHash, LogHash, StateHash, ValueHash};
use crate::merkle::{LogId, LogKind};
use crate::net::{
    CloseCode, Connection, Endpoint, FrameReader, FrameWriter, Link, LinkError, RecvStream,
    SendStream, SessionReport, StreamKind, World, drive, farewell, hurried, stopped,
};
use crate::replica::{Collection, ReplicaError};
use crate::session::message::{Bytes, CollectionTag};
use crate::session::wire::{self, MAX_FRAME_BYTES};
use crate::session::{AbortCode, Session};
use crate::store::Store;
use crate::types::{CollectionName, NodeId};

/// How long running sessions have to end once the server is to stop.
const FAREWELL: Duration = Duration::from_secs(5);

/// How many times the patience for one answer a comparison of forests may take.
const FOREST_PATIENCE: u32 = 8;

/// What happened at a server, for whoever wants to tell people.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A peer connected and was greeted. Clocks that are far apart will refuse each other's
    /// writes.
    Connected {
        /// Who.
        peer: NodeId,
        /// The connection.
        link: Arc<Link>,
        /// How far the peer's clock is ahead of this node's, in milliseconds.
        clock_ahead_ms: i64,
    },
    /// A connection could not be greeted.
    NotGreeted {
        /// Who.
        peer: NodeId,
        /// Why.
        error: LinkError,
    },
    /// A session ended.
    Session {
        /// With whom.
        peer: NodeId,
        /// Over which collection.
        collection: CollectionName,
        /// How.
        report: Box<SessionReport>,
    },
    /// A peer asked whether all shared collections are the same, and they are.
    Same {
        /// Who asked.
        peer: NodeId,
        /// The collections, with the state that both have.
        collections: Vec<(CollectionName, StateHash)>,
    },
    /// A session was turned away.
    Refused {
        /// Who asked.
        peer: NodeId,
        /// Why.
        code: AbortCode,
    },
    /// A node proved an open invitation, and is in the peer book now.
    Paired {
        /// As it is in the book.
        peer: Box<PeerEntry>,
        /// Whether it was there before.
        edited: Edited,
    },
    /// A node came to pair, and was not paired with.
    NotPaired {
        /// Who.
        peer: NodeId,
        /// From where.
        address: SocketAddr,
        /// Why.
        error: PairingError,
    },
    /// The peer book has changed, and holds from now on; or it cannot be used, and the one
    /// before holds on.
    PeerBook {
        /// What is wrong with it.
        error: Option<PeersError>,
    },
    /// A connection ended.
    Disconnected {
        /// Who.
        peer: NodeId,
        /// The connection.
        link: Arc<Link>,
    },
}

/// Hears of events.
pub type Listener = Arc<dyn Fn(Event) + Send + Sync>;

/// A node whose settings may be replaced while it is in use. Clones share it.
pub struct Current<S: Store>(Arc<RwLock<Arc<Node<S>>>>);

impl<S: Store> Clone for Current<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Store> From<Arc<Node<S>>> for Current<S> {
    fn from(node: Arc<Node<S>>) -> Self {
        Self(Arc::new(RwLock::new(node)))
    }
}

impl<S: Store> Current<S> {
    /// The node as it is now.
    #[must_use]
    pub fn node(&self) -> Arc<Node<S>> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts it in the place of the one before: what begins from now on goes by it.
    pub fn replace(&self, node: Node<S>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(node);
    }
}

/// Serves sessions and questions until `stop` becomes true; then running sessions are ended, and
/// what they had applied stays.
pub async fn serve<S: Store>(
    node: Arc<Node<S>>,
    endpoint: Endpoint,
    stop: watch::Receiver<bool>,
    listener: Listener,
) {
    accept_all(node.into(), &endpoint, stop, listener, FAREWELL).await;
    endpoint.close(CloseCode::ShuttingDown, "the node is shutting down").await;
}

/// Serves who connects until `stop` becomes true; running sessions then have so long to end.
pub(in crate::node) async fn accept_all<S: Store>(
    current: Current<S>,
    endpoint: &Endpoint,
    mut stop: watch::Receiver<bool>,
    listener: Listener,
    within: Duration,
) {
    let mut connections = JoinSet::new();
    let server = Server { current, listener: Arc::clone(&listener), stop: stop.clone() };
    let node = server.current.node();
    let door = Arc::new(Door::default());
    let follow = node.access.follow(|read| listener(Event::PeerBook { error: read.err() }));
    tokio::pin!(follow);
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = endpoint.accept() => match accepted {
                Ok(connection) => drop(connections.spawn(server.clone().connection(connection))),
                Err(_) => break,
            },
            Ok(connection) = endpoint.accept_pairing() => {
                connections.spawn(server.clone().pair(Arc::clone(&door), connection));
            }
            () = &mut follow => {}
            Some(_) = connections.join_next() => {}
        }
    }
    let _ = timeout(within, async { while connections.join_next().await.is_some() {} }).await;
}

/// Answers what peers open.
pub(in crate::node) struct Server<S: Store> {
    pub(in crate::node) current: Current<S>,
    pub(in crate::node) listener: Listener,
    pub(in crate::node) stop: watch::Receiver<bool>,
}

impl<S: Store> Clone for Server<S> {
    fn clone(&self) -> Self {
        Self {
            current: self.current.clone(),
            listener: Arc::clone(&self.listener),
            stop: self.stop.clone(),
        }
    }
}

impl<S: Store> Server<S> {
    /// Meets a node that came to pair.
    async fn pair(mut self, door: Arc<Door>, connection: Connection) {
        let (peer, address) = (connection.peer(), connection.remote_address());
        let node = self.current.node();
        let met = tokio::select! {
            met = door.meet(&node.access, node.id(), connection) => met,
            () = hurried(&mut self.stop) => return,
        };
        (self.listener)(match met {
            Ok(Paired { peer, edited }) => Event::Paired { peer: Box::new(peer), edited },
            Err(error) => Event::NotPaired { peer, address, error },
        });
    }

    async fn connection(mut self, connection: Connection) {
        let (peer, node) = (connection.peer(), self.current.node());
        let greeting = node.greeting_for(&peer, true);
        let greeted = tokio::select! {
            greeted = Link::greet(connection, &greeting, node.patience) => greeted,
            () = stopped(&mut self.stop) => return,
        };
        match greeted {
            Ok(link) => self.link(Arc::new(link)).await,
            Err(error) => (self.listener)(Event::NotGreeted { peer, error }),
        }
    }

    /// Answers what the peer opens on a link, until it ends, the node stops or the peer is no
    /// longer admitted.
    pub(in crate::node) async fn link(self, link: Arc<Link>) {
        let (mut stop, peer) = (self.stop.clone(), link.peer());
        let access = self.current.node().access.clone();
        let theirs = link.peer_greeting().clock.millis();
        let clock_ahead_ms = theirs.cast_signed().wrapping_sub(Node::<S>::now_ms().cast_signed());
        self.current.node().hear_clock(peer, link.peer_greeting().clock);
        let connected = Arc::clone(&link);
        (self.listener)(Event::Connected { peer, link: connected, clock_ahead_ms });
        let mut streams = JoinSet::new();
        loop {
            tokio::select! {
                accepted = link.accept() => match accepted {
                    Ok((send, receive)) => {
                        let (server, link) = (self.clone(), Arc::clone(&link));
                        streams.spawn(async move { server.stream(&link, send, receive).await });
                    }
                    Err(_) => break,
                },
                Some(_) = streams.join_next() => {}
                _ = stop.wait_for(|stop| *stop) => break,
                () = access.revoked(&peer) => {
                    link.connection().close(CloseCode::NotAdmitted, "");
                    break;
                }
            }
        }
        while streams.join_next().await.is_some() {}
        if *stop.borrow() {
            link.connection().close(CloseCode::ShuttingDown, "");
        }
        (self.listener)(Event::Disconnected { peer, link });
    }

    async fn stream(mut self, link: &Link, send: SendStream, mut receive: RecvStream) {
        let patience = self.current.node().patience;
        let opened = async {
            let kind = timeout(patience, Link::kind_of(&mut receive)).await.ok()?.ok()?;
            let mut reader = FrameReader::new(receive, MAX_FRAME_BYTES);
            let frame = timeout(patience, reader.next_frame()).await.ok()?.ok()??;
            Some((kind, reader, frame))
        };
        let opened = tokio::select! {
            opened = opened => opened,
            () = stopped(&mut self.stop) => return,
        };
        let Some((kind, reader, frame)) = opened else { return };
        match kind {
            StreamKind::Session => self.session(link, send, reader, &frame).await,
            StreamKind::Query => self.query(link, send, reader, &frame).await,
            StreamKind::Greeting => {}
        }
    }

    async fn session(
        self,
        link: &Link,
        send: SendStream,
        reader: FrameReader<RecvStream>,
        frame: &[u8],
    ) {
        let (peer, node) = (link.peer(), self.current.node());
        let hello = match Session::read_hello(frame) {
            Ok(hello) => hello,
            Err(code) => return self.refuse(peer, send, code).await,
        };
        let Some((name, collection)) = self.tagged(&peer, &hello.collection) else {
            return self.refuse(peer, send, AbortCode::UnknownCollection).await;
        };
        let granted = node.access.serves(&peer, &name, hello.mode);
        let place =
            granted.and_then(|()| node.sessions.admit(node.session_key(peer, &name), false));
        let place = match place {
            Ok(place) => place,
            Err(code) => return self.refuse(peer, send, code).await,
        };
        if !matches!(collection.distrusted_since(&peer), Ok(None)) {
            place.failed(&AbortCode::Contradiction.to_string());
            return self.refuse(peer, send, AbortCode::Contradiction).await;
        }
        let (Ok(view), Ok(secret)) = (collection.snapshot(), link.session_secret(&send)) else {
            place.failed("the collection could not be read");
            return self.refuse(peer, send, AbortCode::Internal).await;
        };
        let setup = node.setup(peer, secret, node.config.clone());
        let session = block_in_place(|| Session::respond(&hello, setup, &view));
        let world = World {
            link,
            collection: &collection,
            view: &view,
            may_write: node.access.grant(&peer, &name) >= Grant::Write,
            now_ms: &Node::<S>::now_ms,
            sign: &|message| node.identity.sign(message),
            patience: node.patience,
            stop: self.stop.clone(),
            permit: &|| {
                node.access.serves(&peer, &name, hello.mode)?;
                place.permit()
            },
            progress: &|session| place.progress(session),
        };
        let report = Box::new(drive(session, send, reader, world).await);
        if let Some(clock) = report.peer_clock {
            node.hear_clock(peer, clock);
        }
        place.ended(&report);
        (self.listener)(Event::Session { peer, collection: name, report });
        if link.peer_greeting().serves {
            node.check_growth(link, &collection, self.stop).await;
        }
    }

    async fn refuse(&self, peer: NodeId, send: SendStream, code: AbortCode) {
        (self.listener)(Event::Refused { peer, code });
        self.say(send, &[Session::refusal(code)]).await;
    }

    async fn query(
        &self,
        link: &Link,
        send: SendStream,
        reader: FrameReader<RecvStream>,
        frame: &[u8],
    ) {
        let answers = match wire::decode::<Query>(frame) {
            Ok(Query::Digest { collection }) => vec![self.digest(&link.peer(), collection)],
            Ok(Query::Forest { root, offers }) => {
                match block_in_place(|| self.current.node().answer_forest(link, root, offers)) {
                    Ok(Standing::Same(collections)) => {
                        (self.listener)(Event::Same { peer: link.peer(), collections });
                        vec![Answer::Same]
                    }
                    Ok(Standing::Differs(forest, ground)) => {
                        return self.ranges(*forest, ground, send, reader).await;
                    }
                    // it offers too much: nothing is compared
                    Err(_) => return,
                }
            }
            Ok(Query::States) => block_in_place(|| self.current.node().answer_states(link)),
            Ok(Query::Values { collection, wanted }) if wanted.len() <= VALUES_PER_QUERY => {
                match self.seen_by(&link.peer(), collection) {
                    Some((_, collection)) => {
                        // a peer that goes away, or a store that fails, ends the stream
                        let mut stop = self.stop.clone();
                        tokio::select! {
                            _ = give_values(&collection, &wanted, send) => {}
                            () = hurried(&mut stop) => {}
                        }
                        return;
                    }
                    None => vec![Answer::Unknown],
                }
            }
            Ok(Query::Growth { collection, kind, id, first, second }) => {
                vec![self.growth(&link.peer(), collection, (kind, id), (first, second))]
            }
            Ok(Query::Entries { collection, wanted }) if wanted.len() <= VALUES_PER_QUERY => {
                match self.seen_by(&link.peer(), collection) {
                    Some((_, collection)) => {
                        let _ = give_entries(&collection, &wanted, send).await;
                        return;
                    }
                    None => vec![Answer::Unknown],
                }
            }
            Ok(Query::Values { .. } | Query::Entries { .. } | Query::Ranges(_)) | Err(_) => return,
        };
        let frames: Result<Vec<_>, _> = answers.iter().map(wire::encode).collect();
        if let Ok(frames) = frames {
            self.say(send, &frames).await;
        }
    }

    /// Says what ranges of a forest are like, until the asker knows enough: as it stood at the first
    /// question, and no more than any comparison needs.
    async fn ranges(
        &self,
        forest: WireForest,
        mut ground: Ground,
        send: SendStream,
        mut reader: FrameReader<RecvStream>,
    ) {
        let (mut stop, patience) = (self.stop.clone(), self.current.node().patience);
        let told = async {
            let mut writer = FrameWriter::new(send, MAX_FRAME_BYTES);
            writer.write_frame(&wire::encode(&Answer::Forest(forest)).ok()?).await.ok()?;
            while let Some(frame) = timeout(patience, reader.next_frame()).await.ok()?.ok()? {
                let Ok(Query::Ranges(asked)) = wire::decode(&frame) else { return None };
                let told = block_in_place(|| ground.answer(&asked)).ok()?;
                writer.write_frame(&wire::encode(&Answer::Ranges(Bytes(told))).ok()?).await.ok()?;
            }
            writer.finish().await.ok()?.delivered().await.ok()
        };
        tokio::select! {
            _ = timeout(FOREST_PATIENCE * patience, told) => {}
            () = hurried(&mut stop) => {}
        }
    }

    /// Frames, and the end of the stream; a peer that does not read them is waited for no longer.
    async fn say(&self, send: SendStream, frames: &[Vec<u8>]) {
        let said = async {
            let mut writer = FrameWriter::new(send, MAX_FRAME_BYTES);
            for frame in frames {
                writer.write_frame(frame).await.ok()?;
            }
            writer.finish().await.ok()?.delivered().await.ok()
        };
        let _ = farewell(self.stop.clone(), said).await;
    }

    /// A collection, if it exists and the peer may see it: with the same work if either is not
    /// so.
    fn seen_by(&self, peer: &NodeId, name: String) -> Option<(CollectionName, Arc<Collection<S>>)> {
        let (name, node) = (CollectionName::new(name).ok()?, self.current.node());
        let granted = node.access.grant(peer, &name) >= Grant::Read;
        let collection = node.replica.collection(&name).ok();
        collection.filter(|_| granted).map(|collection| (name, collection))
    }

    /// The collection that a hello names, if it exists and the peer may see it.
    fn tagged(
        &self,
        peer: &NodeId,
        tag: &CollectionTag,
    ) -> Option<(CollectionName, Arc<Collection<S>>)> {
        let node = self.current.node();
        let mut collections = node.replica.collections();
        collections.retain(|one| tag.names(&one.spec().name));
        let granted =
            |one: &Arc<Collection<S>>| node.access.grant(peer, &one.spec().name) >= Grant::Read;
        let collection = collections.into_iter().find(granted)?;
        Some((collection.spec().name.clone(), collection))
    }

    fn growth(
        &self,
        peer: &NodeId,
        name: String,
        (kind, id): (u8, LogId),
        (first, second): ((u64, LogHash), (u64, LogHash)),
    ) -> Answer {
        let Some((_, collection)) = self.seen_by(peer, name) else {
            return Answer::Unknown;
        };
        let Some(kind) = LogKind::from_id(kind) else { return Answer::Growth(None) };
        let (first, second) = ((first.0, &first.1), (second.0, &second.1));
        match block_in_place(|| collection.prove_growth(kind, id, first, second)) {
            Ok(proof) => Answer::Growth(proof.map(|proof| Bytes(proof.to_bytes()))),
            Err(_) => Answer::Failed,
        }
    }

    fn digest(&self, peer: &NodeId, name: String) -> Answer {
        let Some((_, collection)) = self.seen_by(peer, name) else {
            return Answer::Unknown;
        };
        match block_in_place(|| collection.digest()) {
            Ok(digest) => Answer::Digest(WireDigest::from(&digest)),
            Err(_) => Answer::Failed,
        }
    }
}

/// Values that a peer has lost: of each a header, then its bytes.
async fn give_values<S: Store>(
    collection: &Collection<S>,
    wanted: &[(KeyHash, ValueHash)],
    send: SendStream,
) -> Result<(), ClientError> {
    let mut writer = FrameWriter::new(send, MAX_FRAME_BYTES);
    writer.write_frame(&wire::encode(&Answer::Values)?).await?;
    for (key, hash) in wanted {
        let value = block_in_place(|| collection.value(key, hash))?;
        let header = ValueHeader { size: value.as_ref().map(|value| value.len() as u64) };
        writer.write_frame(&wire::encode(&header)?).await?;
        for chunk in value.as_deref().unwrap_or_default().chunks(VALUE_CHUNK) {
            writer.write_frame(chunk).await?;
        }
    }
    let mut stream = writer.finish().await?;
    let _ = timeout(FAREWELL, stream.delivered()).await;
    Ok(())
}

/// Entries that rotted at a peer. One that cannot be read here either, or that fits no frame, is
/// none.
async fn give_entries<S: Store>(
    collection: &Collection<S>,
    wanted: &[KeyHash],
    send: SendStream,
) -> Result<(), ClientError> {
    let mut writer = FrameWriter::new(send, MAX_FRAME_BYTES);
    writer.write_frame(&wire::encode(&Answer::Entries)?).await?;
    for key in wanted {
        let entry = block_in_place(|| collection.entry(key));
        let entry = match entry {
            Err(ReplicaError::Rotten { .. }) => None,
            other => other?,
        };
        let mut frame = wire::encode(&WireEntry::new(entry.as_ref()))?;
        if frame.len() > MAX_FRAME_BYTES {
            frame = wire::encode(&WireEntry::new(None))?;
        }
        writer.write_frame(&frame).await?;
    }
    let mut stream = writer.finish().await?;
    let _ = timeout(FAREWELL, stream.delivered()).await;
    Ok(())
}
