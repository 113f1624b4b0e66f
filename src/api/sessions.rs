//! Sessions with a peer that somebody asks for here.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use serde_json::json;

use super::Host;
use super::body::{Gone, LINES, Sink, answer, blocking, json, of_media};
use super::entries::digest_here;
use super::error::{ApiError, Problem};
use super::host::Running;
use super::reach::Peer;
use super::report::report;
use super::router::{Named, Number};
use super::types::{
    DifferenceText, DigestComparison, DigestText, Direction, How, Moved, PeerRequest, Saves,
    SyncLine, SyncRequest,
};
use crate::net::{Link, stopped};
use crate::node::client::{ClientError, Synchronised};
use crate::node::{Node, Watch};
use crate::replica::Collection;
use crate::session::{AbortCode, Failure, Mode, Outcome, Profile, Session, Strategy, SyncConfig};
use crate::store::EmbeddedStore;

/// Progress is told no more often than people can read it, and a place is asked for as often.
const BETWEEN: Duration = Duration::from_millis(100);

pub(super) async fn sync(
    State(host): State<Arc<Host>>,
    Named(collection): Named,
    body: Body,
) -> Result<Response, ApiError> {
    let asked: SyncRequest = json(body, host.limits().body_pause).await?;
    let mut config = host.node().config.clone();
    config.mode = match asked.direction {
        Direction::Both => Mode::Both,
        Direction::Pull => Mode::Pull,
        Direction::Push => Mode::Push,
    };
    config.strategy = match asked.strategy {
        How::Auto => Strategy::Auto,
        How::Bloom => Strategy::Bloom,
        How::Sketch => Strategy::Sketch,
        How::Iblt => Strategy::Iblt,
        How::Merkle => Strategy::Merkle,
    };
    config.profile = match asked.profile {
        None => config.profile,
        Some(Saves::Auto) => Profile::Auto,
        Some(Saves::Bytes) => Profile::Bytes,
        Some(Saves::Latency) => Profile::Latency,
        Some(Saves::Cpu) => Profile::Cpu,
    };
    config.allow_removals |= asked.allow_removals;
    run(host, collection, &asked.peer, config)
}

pub(super) async fn diff(
    State(host): State<Arc<Host>>,
    Named(collection): Named,
    body: Body,
) -> Result<Response, ApiError> {
    let PeerRequest { peer } = json(body, host.limits().body_pause).await?;
    let mut config = host.node().config.clone();
    config.mode = Mode::Compare;
    run(host, collection, &peer, config)
}

pub(super) async fn compare(
    State(host): State<Arc<Host>>,
    Named(collection): Named,
    body: Body,
) -> Result<Response, ApiError> {
    let PeerRequest { peer } = json(body, host.limits().body_pause).await?;
    let peer = Peer::find(&host, &peer)?;
    let here = {
        let (host, collection) = (Arc::clone(&host), Arc::clone(&collection));
        blocking(move || digest_here(&host, &collection)).await?
    };
    let name = collection.spec().name.clone();
    let running = host.begin();
    let mut stop = running.stopped.clone();
    let asked = peer.with(&host, &running, &name, async |node, link| {
        tokio::select! {
            digest = node.remote_digest(link, &name) => Ok(digest?),
            () = stopped(&mut stop) => Err(ApiError::Stopped),
        }
    });
    let theirs = asked.await?;
    let there = DigestText::new(&theirs, theirs.clock());
    answer(&DigestComparison::new(here, there))
}

pub(super) async fn stop(
    State(host): State<Arc<Host>>,
    Number(number): Number,
) -> Result<Response, ApiError> {
    host.stop(number)?;
    answer(&json!({ "stopping": number }))
}

/// Runs sessions in a task of their own, which ends when nobody reads the answer any more. One
/// that the peer may not have part in is not worth dialling for.
fn run(
    host: Arc<Host>,
    collection: Arc<Collection<EmbeddedStore>>,
    peer: &str,
    config: SyncConfig,
) -> Result<Response, ApiError> {
    let peer = Peer::find(&host, peer)?;
    peer.node().check_grant(&peer.id, &collection.spec().name, config.mode)?;
    let (sink, body) = Sink::new();
    let running = host.begin();
    tokio::spawn(async move {
        if told(&host, &collection, &peer, &config, &running, &sink).await.is_ok() {
            sink.end().await;
        }
    });
    Ok(of_media(LINES, body))
}

async fn told(
    host: &Host,
    collection: &Arc<Collection<EmbeddedStore>>,
    peer: &Peer,
    config: &SyncConfig,
    running: &Running,
    sink: &Sink,
) -> Result<(), Gone> {
    sink.line(&SyncLine::Run(running.number)).await?;
    let work = peer.with(host, running, &collection.spec().name, async |node, link| {
        let watch = Told { sink, last: Mutex::new(None) };
        one_after_another(node, link, collection, config, running, &watch).await
    });
    tokio::pin!(work);
    let done = tokio::select! {
        done = &mut work => done,
        () = sink.closed() => {
            running.stop();
            let _ = work.await;
            return Err(Gone);
        }
    };
    let done = match done {
        Ok(done) => done,
        Err(error) => return sink.line(&SyncLine::Problem(Problem::from(&error))).await,
    };
    if let Outcome::Compared { differences, .. } = &done.last().outcome {
        for difference in differences {
            sink.line(&SyncLine::Difference(DifferenceText::from(difference))).await?;
        }
    }
    let report = report(&done, collection.root().ok());
    sink.line(&SyncLine::Report(Box::new(report))).await
}

/// Synchronises, once a session with the same peer over the same collection has ended that runs
/// already: that of a daemon, here or there.
async fn one_after_another(
    node: &Node<EmbeddedStore>,
    link: &Link,
    collection: &Arc<Collection<EmbeddedStore>>,
    config: &SyncConfig,
    running: &Running,
    watch: &Told<'_>,
) -> Result<Synchronised, ApiError> {
    let until = Instant::now() + node.patience;
    let mut stopped = running.stopped.clone();
    loop {
        let stop = running.stopped.clone();
        let done = node.synchronise(link, collection, config, stop, watch).await;
        let taken = match &done {
            Err(ClientError::NoPlace(_)) => true,
            Ok(done) => {
                matches!(done.last().outcome, Outcome::Failed(Failure::Peer(AbortCode::Duplicate)))
            }
            Err(_) => false,
        };
        if !taken || Instant::now() > until {
            return Ok(done?);
        }
        tokio::select! {
            () = tokio::time::sleep(BETWEEN) => {}
            _ = stopped.wait_for(|stop| *stop) => return Err(ApiError::Stopped),
        }
    }
}

/// Tells what has moved to whoever asked for the session.
struct Told<'a> {
    sink: &'a Sink,
    last: Mutex<Option<Instant>>,
}

impl Watch for Told<'_> {
    fn progress(&self, session: &Session) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| last.elapsed() < BETWEEN) {
            return;
        }
        *last = Some(Instant::now());
        let (bytes_sent, bytes_received) = session.stats().bytes();
        self.sink.try_line(&SyncLine::Progress(Moved { bytes_sent, bytes_received }));
    }
}
