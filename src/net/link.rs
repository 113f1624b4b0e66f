//! A greeted connection: who the peer is, what it offers, and streams for sessions and queries.
//!
//! Every stream that is opened begins with one byte that says what it is. A session has one
//! bidirectional stream for control; values travel on one more stream each way, named by the
//! session's id, so that they never block control.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::codes::{CloseCode, StreamCode};
use super::connection::Connection;
use super::error::NetError;
use super::frame::{FrameError, FrameReader, FrameWriter};
use super::stream::{RecvStream, SendStream};
use crate::hash::SessionId;
use crate::session::message::{Greeting, WireSpec};
use crate::session::wire::{self, MAX_FRAME_BYTES};
use crate::types::NodeId;

/// The protocol version that this library speaks.
pub const PROTOCOL_VERSION: u16 = 1;

const TAG_BYTES: usize = 8;

/// What a bidirectional stream is for: its first byte.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StreamKind {
    /// The greeting, once per connection.
    Greeting,
    /// A session's control stream.
    Session,
    /// A question and its answer.
    Query,
}

impl StreamKind {
    const fn to_wire(self) -> u8 {
        match self {
            Self::Greeting => 0,
            Self::Session => 1,
            Self::Query => 2,
        }
    }

    const fn from_wire(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Greeting),
            1 => Some(Self::Session),
            2 => Some(Self::Query),
            _ => None,
        }
    }
}

/// A connection could not be greeted, or a stream not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The connection failed.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A frame could not be read or written.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer speaks other versions of the protocol.
    #[error(
        "the peer speaks protocol versions {min} to {max}, this node {PROTOCOL_VERSION}: update \
         the older one"
    )]
    Version {
        /// Its lowest.
        min: u16,
        /// Its highest.
        max: u16,
    },
    /// The peer said something else than a greeting.
    #[error("the peer did not greet: {0}")]
    NotAGreeting(String),
    /// The peer took too long.
    #[error("the peer did not greet within {0:?}: it may be overloaded, try again")]
    Silent(Duration),
}

/// Streams of values that wait for their session, by the first bytes of its id.
#[derive(Debug, Default)]
struct Desk(Mutex<HashMap<[u8; TAG_BYTES], oneshot::Sender<RecvStream>>>);

impl Desk {
    fn expect(&self, tag: [u8; TAG_BYTES]) -> oneshot::Receiver<RecvStream> {
        let (sender, receiver) = oneshot::channel();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(tag, sender);
        receiver
    }

    fn take(&self, tag: [u8; TAG_BYTES]) -> Option<oneshot::Sender<RecvStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&tag)
    }
}

/// A greeted connection.
#[derive(Debug)]
pub struct Link {
    connection: Connection,
    theirs: Greeting,
    /// What each end knows that the other offers, as told last.
    told: Mutex<Told>,
    desk: Arc<Desk>,
    usher: AbortHandle,
}

/// The collections that the ends of a connection have told each other they offer.
#[derive(Clone, Debug)]
struct Told {
    /// None when it is not known what the peer took note of.
    ours: Option<Arc<Vec<WireSpec>>>,
    theirs: Arc<Vec<WireSpec>>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.usher.abort();
    }
}

impl Link {
    /// Exchanges greetings: the dialler speaks first.
    ///
    /// # Errors
    /// The connection ends, the peer is silent, or no version is spoken by both.
    pub async fn greet(
        connection: Connection,
        ours: &Greeting,
        patience: Duration,
    ) -> Result<Self, LinkError> {
        let theirs = timeout(patience, exchange(&connection, ours))
            .await
            .map_err(|_| LinkError::Silent(patience))??;
        if theirs.version_min > PROTOCOL_VERSION || theirs.version_max < PROTOCOL_VERSION {
            connection.close(CloseCode::Incompatible, "no common protocol version");
            let (min, max) = (theirs.version_min, theirs.version_max);
            return Err(LinkError::Version { min, max });
        }
        let desk = Arc::new(Desk::default());
        let usher = tokio::spawn(usher(connection.clone(), Arc::clone(&desk))).abort_handle();
        let told = Mutex::new(Told {
            ours: Some(Arc::new(ours.collections.clone())),
            theirs: Arc::new(theirs.collections.clone()),
        });
        Ok(Self { connection, theirs, told, desk, usher })
    }

    /// The peer's id, as the handshake proved it.
    #[must_use]
    pub fn peer(&self) -> NodeId {
        self.connection.peer()
    }

    /// What the peer said of itself.
    #[must_use]
    pub const fn peer_greeting(&self) -> &Greeting {
        &self.theirs
    }

    /// The collections that the peer offers, by what it said last.
    #[must_use]
    pub fn peer_offers(&self) -> Arc<Vec<WireSpec>> {
        Arc::clone(&self.told().theirs)
    }

    /// Takes note of what the peer says that it offers now.
    pub fn peer_offers_now(&self, offers: Vec<WireSpec>) {
        self.told().theirs = Arc::new(offers);
    }

    /// The collections that the peer was last told this end offers; none when they are to be told
    /// anew.
    #[must_use]
    pub fn told_offers(&self) -> Option<Arc<Vec<WireSpec>>> {
        self.told().ours.clone()
    }

    /// Takes note of what the peer is told that this end offers.
    pub fn tell_offers(&self, offers: Vec<WireSpec>) {
        self.told().ours = Some(Arc::new(offers));
    }

    /// Lets the next question tell the peer anew what this end offers: it seems to know something
    /// else.
    pub fn tell_offers_anew(&self) {
        self.told().ours = None;
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection below.
    #[must_use]
    pub const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Opens a stream. The peer hears of it with the first bytes that are written.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn open(&self, kind: StreamKind) -> Result<(SendStream, RecvStream), LinkError> {
        let (mut send, receive) = self.connection.open_bi().await?;
        send.begin_with(&[kind.to_wire()]);
        Ok((send, receive))
    }

    /// The next stream that the peer opens.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn accept(&self) -> Result<(SendStream, RecvStream), LinkError> {
        Ok(self.connection.accept_bi().await?)
    }

    /// What an accepted stream is for.
    ///
    /// # Errors
    /// The stream ends first, or begins with a byte that says nothing.
    pub async fn kind_of(receive: &mut RecvStream) -> Result<StreamKind, LinkError> {
        let byte = receive.read_u8().await.map_err(NetError::from)?;
        let kind = StreamKind::from_wire(byte);
        if kind.is_none() {
            receive.stop(StreamCode::Protocol);
        }
        kind.ok_or_else(|| LinkError::NotAGreeting(format!("unknown stream kind {byte}")))
    }

    /// Opens the stream on which this end's values of a session travel.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn open_bulk(&self, session: &SessionId) -> Result<SendStream, LinkError> {
        let mut send = self.connection.open_uni().await?;
        send.write_all(&tag_of(session)).await.map_err(NetError::from)?;
        send.prefer(-1);
        Ok(send)
    }

    /// The stream on which the peer's values of a session will travel, once it opens it.
    #[must_use]
    pub fn expect_bulk(&self, session: &SessionId) -> oneshot::Receiver<RecvStream> {
        self.desk.expect(tag_of(session))
    }

    /// Expects no values of a session any more.
    pub fn forget_bulk(&self, session: &SessionId) {
        drop(self.desk.take(tag_of(session)));
    }

    /// A secret of the session on this control stream that both ends share and nobody else knows.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn session_secret(&self, control: &SendStream) -> Result<[u8; 32], LinkError> {
        let number = control.number().to_le_bytes();
        Ok(self.connection.exporter("selfsame v1 session", &number)?)
    }
}

fn tag_of(session: &SessionId) -> [u8; TAG_BYTES] {
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&session.0[..TAG_BYTES]);
    tag
}

async fn exchange(connection: &Connection, ours: &Greeting) -> Result<Greeting, LinkError> {
    let frame = wire::encode(ours).map_err(|error| LinkError::NotAGreeting(error.to_string()))?;
    let (send, receive) = if connection.is_dialled() {
        let (mut send, receive) = connection.open_bi().await?;
        send.begin_with(&[StreamKind::Greeting.to_wire()]);
        (send, receive)
    } else {
        let (send, mut receive) = connection.accept_bi().await?;
        if Link::kind_of(&mut receive).await? != StreamKind::Greeting {
            return Err(LinkError::NotAGreeting("another stream came first".to_owned()));
        }
        (send, receive)
    };
    let mut writer = FrameWriter::new(send, MAX_FRAME_BYTES);
    writer.write_frame(&frame).await?;
    let mut reader = FrameReader::new(receive, MAX_FRAME_BYTES);
    let theirs = reader.next_frame().await?;
    let theirs = theirs.ok_or_else(|| LinkError::NotAGreeting("it said nothing".to_owned()))?;
    writer.finish().await?;
    wire::decode(&theirs).map_err(|error| LinkError::NotAGreeting(error.to_string()))
}

/// Leads streams of values to the sessions that expect them.
async fn usher(connection: Connection, desk: Arc<Desk>) {
    while let Ok(mut stream) = connection.accept_uni().await {
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            let mut tag = [0; TAG_BYTES];
            if stream.read_exact(&mut tag).await.is_err() {
                return;
            }
            match desk.take(tag) {
                Some(session) => drop(session.send(stream)),
                None => stream.stop(StreamCode::NoSession),
            }
        });
    }
}
