//! Drives a session core over a connection: frames between its lanes and the streams, batches
//! between it and the collection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, block_in_place};

use super::frame::{FrameReader, FrameWriter};
use super::link::Link;
use super::stream::{RecvStream, SendStream};
use crate::entry::Totals;
use crate::hash::StateHash;
use crate::replica::{Collection, Snapshot, ViewError};
use crate::session::wire::MAX_FRAME_BYTES;
use crate::session::{AbortCode, Failure, Lane, Outcome, Session, SyncStats};
use crate::store::Store;

/// Frames that wait between a stream and the core.
const QUEUED_FRAMES: usize = 4;
/// How many times the patience a session may take whatever it moves...
const PATIENCES: u32 = 8;
/// ...and how slowly it may move the rest: bytes a second, both ways.
const SLOWEST_BYTES: u64 = 1 << 10;
/// How long the last frames may take to reach the peer.
const FAREWELL: Duration = Duration::from_secs(5);

/// How a session went.
#[derive(Clone, Debug)]
pub struct SessionReport {
    /// How it ended.
    pub outcome: Outcome,
    /// What it cost and did.
    pub stats: SyncStats,
    /// Totals of the tree that both held in the end, as far as this end knows.
    pub totals: Totals,
    /// The state that both held in the end, if they came to hold the same.
    pub state: Option<StateHash>,
    /// How long it took.
    pub elapsed: Duration,
}

impl SessionReport {
    /// How long to wait before the next try, if the peer was too busy for this one.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match &self.outcome {
            Outcome::Failed(Failure::Peer(AbortCode::Busy { retry_after_ms })) => {
                Some(Duration::from_millis(*retry_after_ms as u64))
            }
            _ => None,
        }
    }
}

/// What a session needs of the world around it.
pub struct World<'a, S: Store> {
    /// The greeted connection.
    pub link: &'a Link,
    /// The live collection.
    pub collection: &'a Arc<Collection<S>>,
    /// The snapshot on which the session works.
    pub view: &'a Snapshot<S>,
    /// Wall clock in milliseconds.
    pub now_ms: &'a (dyn Fn() -> u64 + Send + Sync),
    /// Signs with the key of this node's id.
    pub sign: &'a (dyn Fn(&[u8]) -> [u8; 64] + Send + Sync),
    /// Longest time without a frame in either direction.
    pub patience: Duration,
    /// Becomes true when the session is to stop.
    pub stop: watch::Receiver<bool>,
    /// Asked before every step, and before anything is applied or joined: whether the session
    /// may go on, or what the peer is to be told.
    pub permit: &'a (dyn Fn() -> Result<(), AbortCode> + Send + Sync),
    /// Called now and then with the session as it is.
    pub progress: &'a (dyn Fn(&Session) + Send + Sync),
}

/// A lane's two streams, each moved by a task of its own.
struct LaneIo {
    outgoing: Option<mpsc::Sender<Vec<u8>>>,
    writer: Option<JoinHandle<()>>,
    incoming: mpsc::Receiver<Result<Vec<u8>, ()>>,
    reader: Option<JoinHandle<()>>,
}

impl LaneIo {
    fn control(send: SendStream, reader: FrameReader<RecvStream>) -> Self {
        let (sender, incoming) = mpsc::channel(QUEUED_FRAMES);
        let reader = tokio::spawn(read(reader, sender));
        let (outgoing, writer) = write(send);
        Self { outgoing: Some(outgoing), writer: Some(writer), incoming, reader: Some(reader) }
    }

    fn bulk() -> (Self, mpsc::Sender<Result<Vec<u8>, ()>>) {
        let (sender, incoming) = mpsc::channel(QUEUED_FRAMES);
        (Self { outgoing: None, writer: None, incoming, reader: None }, sender)
    }

    /// Ends the outgoing stream and waits until the peer has it all.
    async fn finish(mut self) {
        drop(self.outgoing.take());
        if let Some(mut writer) = self.writer.take()
            && tokio::time::timeout(FAREWELL, &mut writer).await.is_err()
        {
            // a peer that reads no more must not keep the frames here
            writer.abort();
        }
        if let Some(reader) = self.reader.take() {
            reader.abort();
        }
    }
}

fn write(send: SendStream) -> (mpsc::Sender<Vec<u8>>, JoinHandle<()>) {
    let (outgoing, mut frames) = mpsc::channel::<Vec<u8>>(QUEUED_FRAMES);
    let task = tokio::spawn(async move {
        let mut writer = FrameWriter::new(send, MAX_FRAME_BYTES);
        while let Some(frame) = frames.recv().await {
            if writer.write_frame(&frame).await.is_err() {
                return;
            }
        }
        if let Ok(mut stream) = writer.finish().await {
            let _ = stream.delivered().await;
        }
    });
    (outgoing, task)
}

async fn read(mut reader: FrameReader<RecvStream>, frames: mpsc::Sender<Result<Vec<u8>, ()>>) {
    loop {
        let frame = match reader.next_frame().await {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) | Err(_) => Err(()),
        };
        let last = frame.is_err();
        if frames.send(frame).await.is_err() || last {
            return;
        }
    }
}

/// Runs a session to its end. Whatever happens, there is an outcome.
pub async fn drive<S: Store>(
    mut session: Session,
    send: SendStream,
    receive: FrameReader<RecvStream>,
    world: World<'_, S>,
) -> SessionReport {
    let started = Instant::now();
    let mut stop = world.stop.clone();
    let mut control = LaneIo::control(send, receive);
    let (mut bulk, bulk_frames) = LaneIo::bulk();
    let mut expected = Expected::NotYet;
    let mut bulk_frames = Some(bulk_frames);
    let mut next_control: Option<Vec<u8>> = None;
    let mut next_bulk: Option<Vec<u8>> = None;
    let mut last_frame = Instant::now();
    loop {
        if let (Expected::NotYet, Some(id)) = (&expected, session.id()) {
            expected = Expected::Waiting(world.link.expect_bulk(&id));
        }
        work(&mut session, &world, &mut next_control, &mut next_bulk);
        if next_bulk.is_some() && bulk.outgoing.is_none() {
            let opened = match session.id() {
                Some(id) => world.link.open_bulk(&id).await.ok(),
                None => None,
            };
            match opened {
                Some(stream) => {
                    let (outgoing, writer) = write(stream);
                    (bulk.outgoing, bulk.writer) = (Some(outgoing), Some(writer));
                }
                None => session.disconnected(),
            }
        }
        if session.outcome().is_some() {
            break;
        }
        // a peer that sends a frame now and then does not hold a session for ever
        let (sent, received) = session.stats().bytes();
        let slowest = Duration::from_secs((sent + received) / SLOWEST_BYTES);
        let latest = started + world.patience * PATIENCES + slowest;
        let deadline = (last_frame + world.patience).min(latest);
        tokio::select! {
            permit = reserve(control.outgoing.as_ref()), if next_control.is_some() => {
                match (permit, next_control.take()) {
                    (Some(permit), Some(frame)) => permit.send(frame),
                    _ => session.disconnected(),
                }
                last_frame = Instant::now();
            }
            permit = reserve(bulk.outgoing.as_ref()), if next_bulk.is_some() => {
                match (permit, next_bulk.take()) {
                    (Some(permit), Some(frame)) => permit.send(frame),
                    _ => session.disconnected(),
                }
                last_frame = Instant::now();
            }
            frame = control.incoming.recv() => {
                receive_frame(&mut session, Lane::Control, frame, &world);
                last_frame = Instant::now();
            }
            Some(frame) = bulk.incoming.recv(), if bulk.reader.is_some() => {
                if frame.is_ok() {
                    receive_frame(&mut session, Lane::Bulk, Some(frame), &world);
                }
                last_frame = Instant::now();
            }
            stream = expected.arrival() => {
                if let Some(frames) = bulk_frames.take() {
                    let reader = FrameReader::new(stream, MAX_FRAME_BYTES);
                    bulk.reader = Some(tokio::spawn(read(reader, frames)));
                }
            }
            () = tokio::time::sleep_until(deadline.into()) => session.abort(AbortCode::Deadline),
            Ok(_) = stop.wait_for(|stop| *stop) => {
                session.abort(AbortCode::Cancelled);
            }
        }
        (world.progress)(&session);
    }
    if let Some(id) = session.id() {
        world.link.forget_bulk(&id);
    }
    if session.outcome() != Some(&Outcome::Interrupted) {
        let last_words =
            say_last(&mut session, world.view, control.outgoing.as_ref(), next_control);
        let _ = tokio::time::timeout(FAREWELL, last_words).await;
    }
    control.finish().await;
    bulk.finish().await;
    let totals = session.merged_totals();
    let stats = session.stats().clone();
    let state = session.agreed_state();
    let outcome = session.outcome().cloned().unwrap_or(Outcome::Interrupted);
    SessionReport { outcome, stats, totals, state, elapsed: started.elapsed() }
}

/// Sends what is left of the control lane once there is an outcome: why, or the last signature.
async fn say_last<S: Store>(
    session: &mut Session,
    view: &Snapshot<S>,
    outgoing: Option<&mpsc::Sender<Vec<u8>>>,
    mut next: Option<Vec<u8>>,
) {
    while let Some(frame) = next.take().or_else(|| session.poll_transmit(Lane::Control, view)) {
        match reserve(outgoing).await {
            Some(permit) => permit.send(frame),
            None => return,
        }
    }
}

async fn reserve(outgoing: Option<&mpsc::Sender<Vec<u8>>>) -> Option<mpsc::Permit<'_, Vec<u8>>> {
    outgoing?.reserve().await.ok()
}

/// The peer's stream of values, if it is still to come.
enum Expected {
    NotYet,
    Waiting(oneshot::Receiver<RecvStream>),
    Over,
}

impl Expected {
    async fn arrival(&mut self) -> RecvStream {
        if let Self::Waiting(receiver) = self {
            let arrived = receiver.await;
            // a receiver that has answered must not be asked again
            *self = Self::Over;
            if let Ok(stream) = arrived {
                return stream;
            }
        }
        std::future::pending().await
    }
}

fn receive_frame<S: Store>(
    session: &mut Session,
    lane: Lane,
    frame: Option<Result<Vec<u8>, ()>>,
    world: &World<'_, S>,
) {
    match frame {
        Some(Ok(frame)) => timed(session, |session| {
            session.handle(lane, &frame, world.view, (world.now_ms)());
        }),
        _ => session.disconnected(),
    }
}

/// Lets the core work until it waits for the network.
fn work<S: Store>(
    session: &mut Session,
    world: &World<'_, S>,
    next_control: &mut Option<Vec<u8>>,
    next_bulk: &mut Option<Vec<u8>>,
) {
    let permitted = |session: &mut Session| match (world.permit)() {
        Ok(()) => true,
        Err(code) => {
            session.abort(code);
            false
        }
    };
    timed(session, |session| {
        while permitted(session)
            && let Some(updates) = session.poll_apply(true)
        {
            let now_ms = (world.now_ms)();
            match world.collection.apply(updates, world.view_epoch(), now_ms) {
                Ok(outcomes) => session.applied(&outcomes, world.view),
                Err(error) => session.store_failed(&error.to_string()),
            }
        }
        if permitted(session)
            && let Some(request) = session.poll_join()
        {
            let joined = world.collection.join(&request, (world.now_ms)());
            let joined = joined.map(|_| ()).map_err(|error| ViewError::Store(error.to_string()));
            session.joined(joined, world.sign);
        }
        if let Some(record) = session.poll_remember() {
            // an aid only: without it the next session costs more, nothing else
            let _ = world.collection.remember_join(&world.link.peer(), &record);
        }
        if next_control.is_none() {
            *next_control = session.poll_transmit(Lane::Control, world.view);
        }
        if next_bulk.is_none() {
            *next_bulk = session.poll_transmit(Lane::Bulk, world.view);
        }
    });
}

fn timed(session: &mut Session, work: impl FnOnce(&mut Session)) {
    let started = Instant::now();
    block_in_place(|| work(session));
    session.count_busy(started.elapsed().as_micros() as u64);
}

impl<S: Store> World<'_, S> {
    fn view_epoch(&self) -> u64 {
        crate::replica::CollectionView::epoch(self.view)
    }
}
