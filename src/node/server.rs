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
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinSet, block_in_place};
use tokio::time::timeout;

use super::pairing::{Door, Paired, PairingError};
use super::peers::{Edited, Grant, PeerEntry, PeersError};
use super::query::{Answer, Query, WireDigest};
use super::{Node, Unwatched, Watch};
use crate::net::{
    CloseCode, Connection, Endpoint, FrameReader, FrameWriter, Link, LinkError, RecvStream,
    SendStream, SessionReport, StreamKind, World, drive,
};
use crate::replica::Collection;
use crate::session::wire::{self, MAX_FRAME_BYTES};
use crate::session::{AbortCode, Session};
use crate::store::Store;
use crate::types::{CollectionName, NodeId};

/// Sessions served at once; more are told that the node is busy.
const MAX_SESSIONS: usize = 64;
/// How long running sessions have to end once the server is to stop.
const FAREWELL: Duration = Duration::from_secs(5);

/// What happened at a server, for whoever wants to tell people.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A peer connected and was greeted. Clocks that are far apart will refuse each other's
    /// writes.
    Connected {
        /// Who.
        peer: NodeId,
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
    },
}

/// Hears of events.
pub type Listener = Arc<dyn Fn(Event) + Send + Sync>;

/// Serves sessions and questions until `stop` becomes true; then running sessions are ended, and
/// what they had applied stays.
pub async fn serve<S: Store>(
    node: Arc<Node<S>>,
    endpoint: Endpoint,
    mut stop: watch::Receiver<bool>,
    listener: Listener,
) {
    let places = Arc::new(Semaphore::new(MAX_SESSIONS));
    let mut connections = JoinSet::new();
    let stopping = stop.clone();
    let door = Arc::new(Door::default());
    let told = Arc::clone(&listener);
    let follow = node.access.follow(|read| told(Event::PeerBook { error: read.err() }));
    tokio::pin!(follow);
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = endpoint.accept() => match accepted {
                Ok(connection) => {
                    let server = Server {
                        node: Arc::clone(&node),
                        places: Arc::clone(&places),
                        listener: Arc::clone(&listener),
                        stop: stopping.clone(),
                    };
                    connections.spawn(server.connection(connection));
                }
                Err(_) => break,
            },
            Ok(connection) = endpoint.accept_pairing() => {
                let (node, door) = (Arc::clone(&node), Arc::clone(&door));
                connections.spawn(pair(node, door, Arc::clone(&listener), connection));
            }
            () = &mut follow => {}
            Some(_) = connections.join_next() => {}
        }
    }
    let _ = timeout(FAREWELL, async { while connections.join_next().await.is_some() {} }).await;
    endpoint.close(CloseCode::ShuttingDown, "the node is shutting down").await;
}

/// Meets a node that came to pair.
async fn pair<S: Store>(
    node: Arc<Node<S>>,
    door: Arc<Door>,
    listener: Listener,
    connection: Connection,
) {
    let (peer, address) = (connection.peer(), connection.remote_address());
    listener(match door.meet(&node.access, node.id(), connection).await {
        Ok(Paired { peer, edited }) => Event::Paired { peer: Box::new(peer), edited },
        Err(error) => Event::NotPaired { peer, address, error },
    });
}

struct Server<S: Store> {
    node: Arc<Node<S>>,
    places: Arc<Semaphore>,
    listener: Listener,
    stop: watch::Receiver<bool>,
}

impl<S: Store> Clone for Server<S> {
    fn clone(&self) -> Self {
        Self {
            node: Arc::clone(&self.node),
            places: Arc::clone(&self.places),
            listener: Arc::clone(&self.listener),
            stop: self.stop.clone(),
        }
    }
}

impl<S: Store> Server<S> {
    async fn connection(self, connection: Connection) {
        let mut stop = self.stop.clone();
        let peer = connection.peer();
        let greeting = self.node.greeting_for(&peer);
        let link = match Link::greet(connection, &greeting, self.node.patience).await {
            Ok(link) => Arc::new(link),
            Err(error) => return (self.listener)(Event::NotGreeted { peer, error }),
        };
        let theirs = link.peer_greeting().clock.millis();
        let clock_ahead_ms =
            theirs.cast_signed().wrapping_sub(greeting.clock.millis().cast_signed());
        (self.listener)(Event::Connected { peer, clock_ahead_ms });
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
                () = self.node.access.revoked(&peer) => {
                    link.connection().close(CloseCode::NotAdmitted, "");
                    break;
                }
            }
        }
        while streams.join_next().await.is_some() {}
        (self.listener)(Event::Disconnected { peer });
    }

    async fn stream(self, link: &Link, send: SendStream, mut receive: RecvStream) {
        let patience = self.node.patience;
        let Ok(Ok(kind)) = timeout(patience, Link::kind_of(&mut receive)).await else { return };
        let mut reader = FrameReader::new(receive, MAX_FRAME_BYTES);
        let Ok(Ok(Some(frame))) = timeout(patience, reader.next_frame()).await else { return };
        match kind {
            StreamKind::Session => self.session(link, send, reader, &frame).await,
            StreamKind::Query => self.query(&link.peer(), send, &frame).await,
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
        let peer = link.peer();
        let _place = match self.places.try_acquire() {
            Ok(place) => place,
            Err(_) => return self.refuse(peer, send, AbortCode::Busy).await,
        };
        let hello = match Session::read_hello(frame) {
            Ok(hello) => hello,
            Err(code) => return self.refuse(peer, send, code).await,
        };
        let named = CollectionName::new(hello.spec.name.clone());
        let Some((name, collection)) = named.ok().and_then(|name| self.seen_by(&peer, name)) else {
            return self.refuse(peer, send, AbortCode::UnknownCollection).await;
        };
        let access = self.node.access.clone();
        let permit = move || access.serves(&peer, &name, hello.mode);
        if let Err(code) = permit() {
            return self.refuse(peer, send, code).await;
        }
        let (Ok(view), Ok(channel)) = (collection.snapshot(), link.channel_secret()) else {
            return self.refuse(peer, send, AbortCode::Internal).await;
        };
        let setup = self.node.setup(peer, channel, self.node.config.clone());
        let session = block_in_place(|| Session::respond(&hello, setup, &view));
        let identity = Arc::clone(&self.node.identity);
        let world = World {
            link,
            collection: &collection,
            view: &view,
            now_ms: &Node::<S>::now_ms,
            sign: &move |message| identity.sign(message),
            patience: self.node.patience,
            stop: self.stop.clone(),
            permit: &permit,
            progress: &|session| Unwatched.progress(session),
        };
        let report = Box::new(drive(session, send, reader, world).await);
        let collection = collection.spec().name.clone();
        (self.listener)(Event::Session { peer, collection, report });
    }

    async fn refuse(&self, peer: NodeId, send: SendStream, code: AbortCode) {
        (self.listener)(Event::Refused { peer, code });
        say(send, &Session::refusal(code)).await;
    }

    async fn query(&self, peer: &NodeId, send: SendStream, frame: &[u8]) {
        let answer = match wire::decode::<Query>(frame) {
            Ok(Query::Digest { collection }) => self.digest(peer, collection),
            Err(_) => return,
        };
        if let Ok(frame) = wire::encode(&answer) {
            say(send, &frame).await;
        }
    }

    /// A collection, if it exists and the peer may see it: with the same work if either is not
    /// so.
    fn seen_by(
        &self,
        peer: &NodeId,
        name: CollectionName,
    ) -> Option<(CollectionName, Arc<Collection<S>>)> {
        let granted = self.node.access.grant(peer, &name) >= Grant::Read;
        let collection = self.node.replica.collection(&name).ok();
        collection.filter(|_| granted).map(|collection| (name, collection))
    }

    fn digest(&self, peer: &NodeId, name: String) -> Answer {
        let named = CollectionName::new(name).ok();
        let Some((_, collection)) = named.and_then(|name| self.seen_by(peer, name)) else {
            return Answer::Unknown;
        };
        match block_in_place(|| collection.digest()) {
            Ok(digest) => Answer::Digest(WireDigest::from(&digest)),
            Err(_) => Answer::Failed,
        }
    }
}

/// One frame, and the end of the stream.
async fn say(send: SendStream, frame: &[u8]) {
    let mut writer = FrameWriter::new(send, MAX_FRAME_BYTES);
    if writer.write_frame(frame).await.is_ok()
        && let Ok(mut stream) = writer.finish().await
    {
        let _ = timeout(FAREWELL, stream.delivered()).await;
    }
}
