//! Clones that were found, what was copied aside of them, and putting again what was written
//! while the clock was ahead.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::json;

use super::Host;
use super::body::{Gone, LINES, Sink, Writer, answer, blocking, json, of_media, written};
use super::entries::now_ms;
use super::error::{ApiError, Problem};
use super::host::Running;
use super::router::Named;
use super::types::{
    AsideText, CloneText, ClonesText, Forgotten, RestampLine, RestampRequest, RestampedText,
    SameDotText,
};
use crate::replica::{Collection, MAX_SAME_DOT};
use crate::store::EmbeddedStore;

/// Entries read at once.
const CHUNK: usize = 64;
/// Progress is told no more often than people can read it.
const BETWEEN: Duration = Duration::from_millis(100);

type Answer = Result<Response, ApiError>;

/// All that is kept of a collection.
pub(super) fn kept(collection: &Collection<EmbeddedStore>) -> Result<ClonesText, ApiError> {
    let clones = collection.clones()?;
    let same_dot = collection.evidence(MAX_SAME_DOT as usize)?;
    Ok(ClonesText {
        clones: clones.iter().filter_map(CloneText::new).collect(),
        same_dot: same_dot.iter().map(SameDotText::from).collect(),
    })
}

pub(super) async fn list(Named(collection): Named) -> Answer {
    answer(&blocking(move || kept(&collection)).await?)
}

/// The number of a clone, after the name of a collection.
async fn known(
    collection: Arc<Collection<EmbeddedStore>>,
    number: u64,
) -> Result<Arc<Collection<EmbeddedStore>>, ApiError> {
    blocking(move || {
        let all = collection.clones()?;
        if all.iter().any(|kept| kept.number == Some(number)) {
            return Ok(collection);
        }
        Err(ApiError::NoClone { number, collection: collection.name().clone() })
    })
    .await
}

pub(super) async fn aside(
    Named(collection): Named,
    Path((_, number)): Path<(String, u64)>,
) -> Answer {
    let collection = known(collection, number).await?;
    let work = move |writer: &mut Writer| {
        let mut after = None;
        loop {
            let entries = collection.aside(number, after, CHUNK)?;
            for entry in &entries {
                writer.line(&AsideText::from(entry))?;
            }
            after = entries.last().map(|entry| entry.sibling.dot);
            if after.is_none() {
                return Ok(());
            }
            writer.still_read()?;
        }
    };
    Ok(written(LINES, work, |writer, problem| {
        let _ = writer.line(&json!({ "problem": problem }));
    }))
}

pub(super) async fn forget(
    Named(collection): Named,
    Path((_, number)): Path<(String, u64)>,
) -> Answer {
    let collection = known(collection, number).await?;
    let forgotten = blocking(move || Ok(u64::from(collection.forget_clone(number)?))).await?;
    answer(&Forgotten { forgotten })
}

pub(super) async fn forget_same_dot(Named(collection): Named) -> Answer {
    let forgotten = blocking(move || Ok(collection.forget_evidence()?)).await?;
    answer(&Forgotten { forgotten })
}

pub(super) async fn restamp(
    State(host): State<Arc<Host>>,
    Named(collection): Named,
    body: Body,
) -> Answer {
    let request: RestampRequest = json(body, host.limits().body_pause).await?;
    // to look at it is no harm
    if let Some(ahead) = host.node().judge_clock().filter(|_| !request.dry_run) {
        return Err(crate::replica::ReplicaError::ClockAhead(Box::new(ahead)).into());
    }
    let entries = collection.totals()?.entries;
    let (sink, body) = Sink::new();
    let running = host.begin();
    tokio::spawn(async move {
        if restamp_all(&collection, request, entries, &running, &sink).await.is_ok() {
            sink.end().await;
        }
    });
    Ok(of_media(LINES, body))
}

/// Step after step, to the end or until somebody asks to stop.
async fn restamp_all(
    collection: &Arc<Collection<EmbeddedStore>>,
    request: RestampRequest,
    entries: u64,
    running: &Running,
    sink: &Sink,
) -> Result<(), Gone> {
    sink.line(&RestampLine::Run(running.number)).await?;
    let mut done = RestampedText::new(collection.name(), entries);
    let (mut after, mut told) = (None, None::<Instant>);
    loop {
        let at = Arc::clone(collection);
        let step = blocking(move || {
            let RestampRequest { any, dry_run } = request;
            let after = after.as_ref();
            let step = match dry_run {
                true => at.count_future(any, after, now_ms()),
                false => at.restamp(any, after, now_ms()),
            };
            Ok(step?)
        })
        .await;
        let step = match step {
            Ok(step) => step,
            Err(error) => {
                return sink.line(&RestampLine::Problem(Problem::from(&error))).await;
            }
        };
        done.count(&step);
        after = step.next;
        if after.is_none() || *running.stopped.borrow() {
            return sink.line(&RestampLine::Report(done)).await;
        }
        if told.is_none_or(|told| told.elapsed() >= BETWEEN) {
            told = Some(Instant::now());
            sink.try_line(&RestampLine::Progress(done.clone()));
        }
        if sink.is_closed() {
            return Err(Gone);
        }
    }
}
