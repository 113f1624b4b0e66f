//! Scrubs that somebody asks for: a line for what is found, as it is found.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;

use super::Host;
use super::body::{Gone, LINES, Sink, blocking, json, of_media};
use super::entries::now_ms;
use super::error::{ApiError, Problem};
use super::host::Running;
use super::router::Named;
use super::types::{RotText, ScrubLine, ScrubRequest, ScrubText, ScrubbedText};
use crate::node::scrub::ScrubSettings;
use crate::replica::{Collection, ScrubStep};
use crate::store::EmbeddedStore;

/// Progress is told no more often than people can read it.
const BETWEEN: Duration = Duration::from_millis(100);

pub(super) async fn scrub(
    State(host): State<Arc<Host>>,
    Named(collection): Named,
    body: Body,
) -> Result<Response, ApiError> {
    let ScrubRequest { bytes_per_s } = json(body, host.limits().body_pause).await?;
    if bytes_per_s == Some(0) {
        return Err(ApiError::Request("bytes_per_s is zero: leave it out for no limit".into()));
    }
    let totals = collection.totals()?;
    let (sink, body) = Sink::new();
    let running = host.begin();
    tokio::spawn(async move {
        let scrubbing = Scrubbing {
            collection,
            sink: &sink,
            running,
            pace: ScrubSettings {
                bytes_per_s: bytes_per_s.unwrap_or(u64::MAX),
                time_percent: 100,
                ..ScrubSettings::default()
            },
        };
        if scrubbing.run(totals.entries, totals.bytes).await.is_ok() {
            sink.end().await;
        }
    });
    Ok(of_media(LINES, body))
}

struct Scrubbing<'a> {
    collection: Arc<Collection<EmbeddedStore>>,
    sink: &'a Sink,
    running: Running,
    pace: ScrubSettings,
}

impl Scrubbing<'_> {
    async fn run(self, entries: u64, bytes: u64) -> Result<(), Gone> {
        self.sink.line(&ScrubLine::Run(self.running.number)).await?;
        let ended = tokio::select! {
            ended = self.walk(entries, bytes) => Some(ended),
            () = self.sink.closed() => None,
        };
        // whoever comes next goes on from here
        let collection = Arc::clone(&self.collection);
        let kept = blocking(move || Ok(collection.keep_scrub()?)).await;
        match ended {
            None => Err(Gone),
            Some(Err(Stopped::Gone)) => Err(Gone),
            Some(Err(Stopped::Error(error))) => {
                self.sink.line(&ScrubLine::Problem(Problem::from(&error))).await
            }
            Some(Ok(mut scrubbed)) => match kept.and_then(|()| self.left(&mut scrubbed)) {
                Ok(()) => self.sink.line(&ScrubLine::Report(scrubbed)).await,
                Err(error) => self.sink.line(&ScrubLine::Problem(Problem::from(&error))).await,
            },
        }
    }

    /// Slice after slice, to the end of the walk or until somebody asks to stop.
    async fn walk(&self, entries: u64, bytes: u64) -> Result<ScrubbedText, Stopped> {
        let mut stopped = self.running.stopped.clone();
        let mut scrubbed = ScrubbedText::new(self.collection.name());
        let (mut number, mut told) = (None, None::<Instant>);
        loop {
            let begun = Instant::now();
            let ScrubStep { progress, bytes: read, found, ended } = self.step().await?;
            // a daemon may have come to the end of the same walk meanwhile
            let over = *number.get_or_insert(progress.number) != progress.number;
            scrubbed.count(&progress, &found);
            for rot in &found {
                self.sink.line(&ScrubLine::Rot(RotText::from(rot))).await?;
            }
            if ended || over {
                scrubbed.complete = true;
                return Ok(scrubbed);
            }
            if told.is_none_or(|told| told.elapsed() >= BETWEEN) {
                told = Some(Instant::now());
                let progress = ScrubText::new(&progress, entries, bytes);
                self.sink.try_line(&ScrubLine::Progress(progress));
            }
            let pause = self.pace.pause(read, begun.elapsed());
            let asked = stopped.wait_for(|stop| *stop);
            if tokio::time::timeout(pause, asked).await.is_ok() || *self.running.stopped.borrow() {
                return Ok(scrubbed);
            }
        }
    }

    async fn step(&self) -> Result<ScrubStep, ApiError> {
        let (collection, slice) = (Arc::clone(&self.collection), self.pace.slice());
        blocking(move || Ok(collection.scrub(slice, now_ms())?)).await
    }

    fn left(&self, scrubbed: &mut ScrubbedText) -> Result<(), ApiError> {
        let report = tokio::task::block_in_place(|| self.collection.scrub_report())?;
        scrubbed.rotten_entries = report.rotten_entries;
        scrubbed.lost_values = report.lost_values;
        Ok(())
    }
}

/// Why a walk ends early.
enum Stopped {
    Gone,
    Error(ApiError),
}

impl From<Gone> for Stopped {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<ApiError> for Stopped {
    fn from(error: ApiError) -> Self {
        Self::Error(error)
    }
}
