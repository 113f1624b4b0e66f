//! Drives a session core over a connection: frames between its lanes and the streams, batches
//! between it and the collection.

mod lane;
mod pace;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::block_in_place;

use self::lane::{End, Incoming, LaneIo, Outgoing};
use self::pace::Pace;
use super::farewell::{farewell, stopped};
use super::frame::FrameReader;
use super::link::{Link, LinkError};
use super::stream::{RecvStream, SendStream};
use crate::clock::Stamp;
use crate::entry::Totals;
use crate::hash::{SessionId, StateHash};
use crate::merkle::{Contradiction, HeadStatement};
use crate::replica::{
    ApplyOutcome, Collection, KeptClone, Report, ReportCounts, Snapshot, ViewError, Witnessed,
};
use crate::session::{AbortCode, Agreement, Failure, HeardNow, Lane, Outcome, Session, SyncStats};
use crate::store::Store;

/// While nothing comes, it is asked this often whether the session may go on.
const LOOK: Duration = Duration::from_secs(1);
/// How long the peer's last words may take when a stream breaks.
const GRACE: Duration = Duration::from_secs(1);

/// Most reports that are told with a session; all are counted.
const MAX_REPORTED: usize = 100;

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
    /// The peer's clock, if it had to say what its snapshot is.
    pub peer_clock: Option<Stamp>,
    /// What became of the certificate, if there is one.
    pub kept: Option<Result<u64, String>>,
    /// What the peer's signed heads contradict, of all that it has signed before.
    pub contradictions: Vec<Contradiction>,
    /// Writers that were found to have two users.
    pub clones: Vec<KeptClone>,
    /// What a person may want to look at, of what changed here: the first so many, as the figures
    /// count all.
    pub reports: Vec<Report>,
    /// How long it took.
    pub elapsed: Duration,
}

impl SessionReport {
    /// Why, if the peer had no place for this session just then.
    #[must_use]
    pub const fn turned_away(&self) -> Option<AbortCode> {
        match &self.outcome {
            Outcome::Failed(Failure::Peer(
                code @ (AbortCode::Busy { .. } | AbortCode::Duplicate),
            )) => Some(*code),
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
    /// Whether the peer may write: else nothing changes here by what it says.
    pub may_write: bool,
    /// Wall clock in milliseconds.
    pub now_ms: &'a (dyn Fn() -> u64 + Send + Sync),
    /// Signs with the key of this node's id.
    pub sign: &'a (dyn Fn(&[u8]) -> [u8; 64] + Send + Sync),
    /// Longest wait for a frame in either direction; work at this side does not count, nor does
    /// work of which the peer says that it goes on.
    pub patience: Duration,
    /// Becomes true when the session is to stop.
    pub stop: watch::Receiver<bool>,
    /// Asked before every step, and before anything is applied or joined: whether the session
    /// may go on, or what the peer is to be told.
    pub permit: &'a (dyn Fn() -> Result<(), AbortCode> + Send + Sync),
    /// Called now and then with the session as it is.
    pub progress: &'a (dyn Fn(&Session) + Send + Sync),
}

/// Runs a session to its end. Whatever happens, there is an outcome; and whoever drops the call
/// ends it at once, with nothing left that runs on.
pub async fn drive<S: Store>(
    session: Session,
    send: SendStream,
    receive: FrameReader<RecvStream>,
    world: World<'_, S>,
) -> SessionReport {
    let started = Instant::now();
    let pace = Pace::new(world.patience, session.limits().min_bytes_per_s);
    let (bulk, bulk_frames) = LaneIo::bulk();
    let at_work = Arc::<AtomicBool>::default();
    let mut driver = Driver {
        session,
        control: LaneIo::control(send, receive, Arc::clone(&at_work), world.patience),
        bulk,
        bulk_frames: Some(bulk_frames),
        opening: None,
        expected: None,
        next_control: None,
        next_bulk: None,
        pace,
        lost: None,
        stop: world.stop.clone(),
        kept: None,
        contradictions: Vec::new(),
        clones: Vec::new(),
        reports: Vec::new(),
    };
    loop {
        at_work.store(true, Ordering::Relaxed);
        driver.prepare(&world);
        if driver.session.outcome().is_some() {
            break;
        }
        at_work.store(false, Ordering::Relaxed);
        let event = driver.wait().await;
        at_work.store(true, Ordering::Relaxed);
        driver.see_to(event, &world);
        (world.progress)(&driver.session);
    }
    let (kept, contradictions) = (driver.kept.take(), std::mem::take(&mut driver.contradictions));
    let reports = std::mem::take(&mut driver.reports);
    let clones = std::mem::take(&mut driver.clones);
    let session = driver.farewell(world.view).await;
    let outcome = session.outcome().cloned().unwrap_or(Outcome::Interrupted);
    SessionReport {
        outcome,
        stats: session.stats().clone(),
        totals: session.merged_totals(),
        state: session.agreed_state(),
        peer_clock: session.peer_clock(),
        kept,
        contradictions,
        clones,
        reports,
        elapsed: started.elapsed(),
    }
}

type Opening<'a> = Pin<Box<dyn Future<Output = Result<SendStream, LinkError>> + Send + 'a>>;

/// A session with its streams.
struct Driver<'a> {
    session: Session,
    control: LaneIo,
    bulk: LaneIo,
    /// For the reader of the peer's values, until there is one.
    bulk_frames: Option<mpsc::Sender<Incoming>>,
    /// The stream for this side's values, while it is being opened.
    opening: Option<Opening<'a>>,
    expected: Option<Expected<'a>>,
    next_control: Option<Vec<u8>>,
    next_bulk: Option<Vec<u8>>,
    pace: Pace,
    /// Since when a stream is known to be broken.
    lost: Option<Instant>,
    stop: watch::Receiver<bool>,
    kept: Option<Result<u64, String>>,
    contradictions: Vec<Contradiction>,
    clones: Vec<KeptClone>,
    reports: Vec<Report>,
}

/// What a session waits for.
enum Event {
    /// A frame of so many bytes was passed on; none: its stream is broken.
    Sent(Option<usize>),
    /// The stream for this side's values is there; none: it cannot be opened.
    Opened(Option<SendStream>),
    Came(Lane, Option<Incoming>),
    /// The stream of the peer's values has begun.
    Arrived(RecvStream),
    Late,
    Stopped,
}

impl<'a> Driver<'a> {
    /// Lets the core work, and sees to the streams of values.
    fn prepare<S: Store>(&mut self, world: &World<'a, S>) {
        if let (None, Some(id)) = (&self.expected, self.session.id()) {
            self.expected = Some(Expected::new(world.link, id));
        }
        self.hold_against(world);
        self.see_to_clones(world);
        let frames = (&mut self.next_control, &mut self.next_bulk);
        work(&mut self.session, world, frames, &mut self.reports);
        self.keep(world);
        let unopened = self.bulk.outgoing.is_none() && self.opening.is_none();
        if self.next_bulk.is_some() && unopened && self.lost.is_none() {
            let (link, id) = (world.link, self.session.id());
            self.opening = id.map(|id| Box::pin(async move { link.open_bulk(&id).await }) as _);
        }
    }

    /// Holds what the peer has signed of its logs against what it signed before.
    fn hold_against<S: Store>(&mut self, world: &World<'a, S>) {
        for statement in self.session.poll_heads() {
            let mut witnessed = Ok(Witnessed::Consistent);
            timed(&mut self.session, |_| {
                witnessed = world.collection.witness(&statement, (world.now_ms)());
            });
            match witnessed {
                Ok(Witnessed::Consistent) => {}
                Ok(Witnessed::Contradicts(contradiction, _)) => {
                    self.contradictions.push(*contradiction);
                    self.session.abort(AbortCode::Contradiction);
                }
                Err(error) => self.session.store_failed(&error.to_string()),
            }
        }
    }

    /// Lets go of a writer that somebody else uses too, and copies its puts aside, before
    /// anything is applied.
    fn see_to_clones<S: Store>(&mut self, world: &World<'a, S>) {
        let found = self.session.poll_clones();
        for found in found.into_iter().filter(|_| world.may_write) {
            let (peer, now_ms) = (world.link.peer(), (world.now_ms)());
            let mut noted = Ok(None);
            timed(&mut self.session, |_| {
                noted = world.collection.note_clone(&peer, found, now_ms);
            });
            match noted {
                Ok(kept) => self.clones.extend(kept),
                Err(error) => self.session.store_failed(&error.to_string()),
            }
        }
    }

    /// Keeps what both ends have signed, before anything else: whoever drops this call after it
    /// has the certificate.
    fn keep<S: Store>(&mut self, world: &World<'a, S>) {
        let Some(Agreement { certificate, envelope }) = self.session.poll_agreement() else {
            return;
        };
        timed(&mut self.session, |_| {
            let (peer, now_ms) = (world.link.peer(), (world.now_ms)());
            let kept =
                world.collection.keep_certificate(&peer, &certificate, Some(&envelope), now_ms);
            self.kept = Some(kept.map_err(|error| error.to_string()));
        });
    }

    /// Waits for whatever comes first.
    async fn wait(&mut self) -> Event {
        let (since, whole) = (Instant::now(), self.lost.is_none());
        let left = self.pace.left().min(LOOK);
        let deadline = self.lost.map_or(since + left, |lost| lost + GRACE);
        let event = tokio::select! {
            sent = pass_on(self.control.outgoing.as_ref(), &mut self.next_control, false),
                if whole => Event::Sent(sent),
            sent = pass_on(self.bulk.outgoing.as_ref(), &mut self.next_bulk, false),
                if whole && self.bulk.outgoing.is_some() => Event::Sent(sent),
            opened = opened(&mut self.opening) => Event::Opened(opened.ok()),
            frame = self.control.incoming.recv() => Event::Came(Lane::Control, frame),
            frame = self.bulk.incoming.recv(), if self.bulk.reader.is_some() => {
                Event::Came(Lane::Bulk, frame)
            }
            stream = arrival(&mut self.expected) => Event::Arrived(stream),
            () = tokio::time::sleep_until(deadline.into()) => Event::Late,
            () = stopped(&mut self.stop) => Event::Stopped,
        };
        self.pace.waited(since.elapsed());
        event
    }

    fn see_to<S: Store>(&mut self, event: Event, world: &World<'a, S>) {
        match event {
            Event::Sent(Some(bytes)) => self.pace.moved(bytes),
            Event::Opened(Some(stream)) => self.bulk.send_on(stream),
            // why it broke may be among the frames that are still here
            Event::Sent(None) | Event::Opened(None) => self.lost = Some(Instant::now()),
            Event::Came(lane, frame) => self.take(lane, frame, world),
            Event::Arrived(stream) => {
                if let Some(frames) = self.bulk_frames.take() {
                    self.bulk.receive_from(stream, frames);
                }
            }
            Event::Late => self.late(world),
            Event::Stopped => self.session.abort(AbortCode::Cancelled),
        }
    }

    fn take<S: Store>(&mut self, lane: Lane, frame: Option<Incoming>, world: &World<'a, S>) {
        match (lane, frame) {
            (Lane::Control, Some(Ok(frame))) if frame.is_empty() => {
                self.pace.beat();
                if let Some(code) = self.pace.verdict() {
                    self.session.abort(code);
                }
            }
            (_, Some(Ok(frame))) => {
                self.pace.moved(frame.len());
                timed(&mut self.session, |session| {
                    session.handle(lane, &frame, world.view, (world.now_ms)());
                });
            }
            (Lane::Control, _) => self.gone(world),
            (Lane::Bulk, ended) => {
                self.bulk.reader = None;
                if matches!(ended, Some(Err(End::Broken))) {
                    self.lost = Some(Instant::now());
                }
            }
        }
    }

    /// The connection is gone: who is stopping may well have closed it.
    fn gone<S: Store>(&mut self, world: &World<'a, S>) {
        if *world.stop.borrow() {
            self.session.abort(AbortCode::Cancelled);
        } else {
            self.session.disconnected();
        }
    }

    /// The time is up, unless a frame came while this side was at work.
    fn late<S: Store>(&mut self, world: &World<'a, S>) {
        if let Ok(frame) = self.control.incoming.try_recv() {
            self.take(Lane::Control, Some(frame), world);
        } else if self.lost.is_some() {
            self.gone(world);
        } else if let Some(code) = self.pace.verdict() {
            self.session.abort(code);
        }
    }

    /// Says what is left to say once there is an outcome: why, or the last signature; and waits,
    /// not for long, until the peer has it.
    async fn farewell<S: Store>(self, view: &Snapshot<S>) -> Session {
        let Self { mut session, control, bulk, next_control, stop, .. } = self;
        // values are of no use any more once a session has failed
        let bulk = match session.outcome() {
            Some(Outcome::Interrupted) => return session,
            _ if session.is_answered() => {
                // the acknowledgement of the end may come late
                tokio::spawn(farewell(stop, control.finish()));
                return session;
            }
            Some(Outcome::Failed(_)) => None,
            _ => Some(bulk),
        };
        let last_words = async {
            let mut poll = || session.poll_transmit(Lane::Control, view);
            let mut next = next_control.or_else(&mut poll);
            while next.is_some() {
                let following = poll();
                let outgoing = control.outgoing.as_ref();
                if pass_on(outgoing, &mut next, following.is_none()).await.is_none() {
                    break;
                }
                next = following;
            }
            tokio::join!(control.finish(), async {
                if let Some(bulk) = bulk {
                    bulk.finish().await;
                }
            });
        };
        // a peer that reads no more must not keep the frames here
        let _ = farewell(stop, last_words).await;
        session
    }
}

/// Passes the next frame on to the task that writes, once there is one and room for it; its
/// bytes, or none if that task has ended.
async fn pass_on(
    outgoing: Option<&mpsc::Sender<Outgoing>>,
    next: &mut Option<Vec<u8>>,
    is_last: bool,
) -> Option<usize> {
    if next.is_none() {
        return std::future::pending().await;
    }
    let permit = outgoing?.reserve().await.ok()?;
    let frame = next.take()?;
    let bytes = frame.len();
    permit.send(Outgoing { frame, is_last });
    Some(bytes)
}

async fn opened(opening: &mut Option<Opening<'_>>) -> Result<SendStream, LinkError> {
    let Some(future) = opening else { return std::future::pending().await };
    let opened = future.await;
    *opening = None;
    opened
}

async fn arrival(expected: &mut Option<Expected<'_>>) -> RecvStream {
    match expected {
        Some(expected) => expected.arrival().await,
        None => std::future::pending().await,
    }
}

/// The peer's stream of values, while it may still come.
struct Expected<'a> {
    link: &'a Link,
    id: SessionId,
    receiver: Option<oneshot::Receiver<RecvStream>>,
}

impl<'a> Expected<'a> {
    fn new(link: &'a Link, id: SessionId) -> Self {
        Self { link, id, receiver: Some(link.expect_bulk(&id)) }
    }

    async fn arrival(&mut self) -> RecvStream {
        if let Some(receiver) = &mut self.receiver {
            let arrived = receiver.await;
            // a receiver that has answered must not be asked again
            self.receiver = None;
            if let Ok(stream) = arrived {
                return stream;
            }
        }
        std::future::pending().await
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.link.forget_bulk(&self.id);
    }
}

/// Lets the core work until it waits for the network.
fn work<S: Store>(
    session: &mut Session,
    world: &World<'_, S>,
    (next_control, next_bulk): (&mut Option<Vec<u8>>, &mut Option<Vec<u8>>),
    reports: &mut Vec<Report>,
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
            let peer = world.link.peer();
            match world.collection.apply_of(peer, world.view, updates, now_ms) {
                Ok(outcomes) => {
                    report(session, world, &outcomes, now_ms, reports);
                    session.applied(&outcomes, world.view);
                }
                Err(error) => session.store_failed(&error.to_string()),
            }
        }
        if permitted(session)
            && let Some(request) = session.poll_join()
        {
            let joined = world.collection.join(&request, (world.now_ms)());
            let joined = joined.map(|_| ()).map_err(|error| ViewError::Store(error.to_string()));
            if joined.is_ok() && session.will_sign() {
                session.tell_heads(&heads_to_tell(session, world));
            }
            session.joined(joined, world.sign);
        }
        if let Some(HeardNow { mark, since }) = session.poll_heard()
            && world.may_write
        {
            // an aid only: without it a clone is found later
            let _ = world.collection.hear_mark(&world.link.peer(), mark, since.as_ref());
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

/// Signed heads of this node's logs, if the peer is to be told. Only an aid to whoever watches
/// this node: a session does without.
fn heads_to_tell<S: Store>(session: &Session, world: &World<'_, S>) -> Vec<HeadStatement> {
    let heads = world.collection.heads_to_tell(&world.link.peer(), (world.now_ms)());
    let heads = heads.unwrap_or_default().into_iter();
    heads.filter_map(|fields| HeadStatement::sign(fields, session.me(), world.sign).ok()).collect()
}

/// Keeps reports of what was applied. They are an aid: without them nothing else is wrong.
fn report<S: Store>(
    session: &mut Session,
    world: &World<'_, S>,
    outcomes: &[ApplyOutcome],
    now_ms: u64,
    reports: &mut Vec<Report>,
) {
    let incidents = outcomes.iter().flat_map(|outcome| outcome.incidents.iter().cloned());
    let Some(id) = session.id() else { return };
    let noted = world.collection.note_incidents(world.link.peer(), id, incidents, now_ms);
    let noted = noted.unwrap_or_default();
    let mut counts = ReportCounts::default();
    noted.iter().for_each(|report| counts.count(&report.incident));
    session.count_reports(counts);
    let room = MAX_REPORTED.saturating_sub(reports.len());
    reports.extend(noted.into_iter().take(room));
}

fn timed(session: &mut Session, work: impl FnOnce(&mut Session)) {
    let started = Instant::now();
    block_in_place(|| work(session));
    session.count_busy(started.elapsed().as_micros() as u64);
}
