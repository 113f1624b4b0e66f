//! Bodies of requests, read within limits, and bodies of answers, sent as they come to be.

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::error::{ApiError, Problem};

/// Longest JSON that is asked.
const MAX_JSON_BYTES: u64 = 64 << 10;
/// Parts of an answer that wait for whoever reads it.
const PARTS_WAITING: usize = 2;
/// Small parts are sent together.
const PART_BYTES: usize = 256 << 10;

/// From this size on, bytes are sent as they are instead of being gathered.
const LARGE_BYTES: usize = 32 << 10;

/// The media type of JSON lines.
pub(super) const LINES: &str = "application/x-ndjson";

/// A body, all of it, if it is within the limit and does not pause for longer.
pub(super) async fn whole(mut body: Body, limit: u64, pause: Duration) -> Result<Bytes, ApiError> {
    let size = body.size_hint();
    if size.lower() > limit {
        return Err(ApiError::BodySize(limit));
    }
    let mut first = Bytes::new();
    let mut all = Vec::new();
    loop {
        let frame = timeout(pause, body.frame()).await.map_err(|_| ApiError::SlowBody)?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| ApiError::Request(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        if (first.len() + all.len() + data.len()) as u64 > limit {
            return Err(ApiError::BodySize(limit));
        }
        // most bodies are one part, which is not copied
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            if all.is_empty() {
                all.reserve_exact(usize::try_from(size.lower()).unwrap_or_default());
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.into() })
}

/// A body as JSON; an empty one stands for `{}`.
pub(super) async fn json<T: DeserializeOwned>(body: Body, pause: Duration) -> Result<T, ApiError> {
    let bytes = whole(body, MAX_JSON_BYTES, pause).await?;
    let text = if bytes.is_empty() { &b"{}"[..] } else { &bytes };
    serde_json::from_slice(text).map_err(|error| ApiError::Request(error.to_string()))
}

/// An answer in JSON.
pub(super) fn answer(value: &impl Serialize) -> Result<Response, ApiError> {
    let body = serde_json::to_vec(value).map_err(|_| ApiError::Fallen)?;
    Ok(of_media("application/json", Body::from(body)))
}

/// An answer of a media type.
pub(super) fn of_media(media: &'static str, body: Body) -> Response {
    let header = [(header::CONTENT_TYPE, HeaderValue::from_static(media))];
    (StatusCode::OK, header, body).into_response()
}

/// Work that blocks, such as all that reads or writes the store.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(ApiError::Fallen))
}

/// A part of an answer, or that all of it was sent.
enum Part {
    Bytes(Bytes),
    End,
}

/// Where an answer is written while it is being sent.
pub(super) struct Sink(mpsc::Sender<Part>);

/// Nobody reads the answer any more.
#[derive(Debug)]
pub(super) struct Gone;

impl Sink {
    /// A sink, and the body of what is written to it.
    pub(super) fn new() -> (Self, Body) {
        let (sender, receiver) = mpsc::channel(PARTS_WAITING);
        (Self(sender), Body::new(Parts { receiver, ended: false }))
    }

    /// Waits until nobody reads any more.
    pub(super) async fn closed(&self) {
        self.0.closed().await;
    }

    /// Whether nobody reads any more.
    pub(super) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// A line of JSON, once there is room.
    pub(super) async fn line(&self, value: &impl Serialize) -> Result<(), Gone> {
        self.0.send(Part::Bytes(line(value)?.into())).await.map_err(|_| Gone)
    }

    /// A line of JSON, if there is room now.
    pub(super) fn try_line(&self, value: &impl Serialize) {
        if let Ok(line) = line(value) {
            let _ = self.0.try_send(Part::Bytes(line.into()));
        }
    }

    /// All was said. An answer without its end is one that was cut off.
    pub(super) async fn end(self) {
        let _ = self.0.send(Part::End).await;
    }
}

fn line(value: &impl Serialize) -> Result<Vec<u8>, Gone> {
    let mut line = serde_json::to_vec(value).map_err(|_| Gone)?;
    line.push(b'\n');
    Ok(line)
}

/// Why an answer ends early.
pub(super) enum Ended {
    /// Nobody reads it.
    Gone,
    /// It could not be made.
    Error(ApiError),
}

impl From<Gone> for Ended {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl<E: Into<ApiError>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// An answer that is written by work that blocks.
pub(super) struct Writer {
    sink: Sink,
    /// What is not sent yet.
    pub(super) bytes: Vec<u8>,
}

impl Writer {
    /// Sends what there is, if it is much.
    pub(super) fn flush_much(&mut self) -> Result<(), Gone> {
        if self.bytes.len() >= PART_BYTES { self.flush() } else { Ok(()) }
    }

    /// Bytes, which are not copied where they are many.
    pub(super) fn value(&mut self, bytes: Bytes) -> Result<(), Gone> {
        if bytes.len() < LARGE_BYTES {
            self.bytes.extend_from_slice(&bytes);
            return self.flush_much();
        }
        self.flush()?;
        self.sink.0.blocking_send(Part::Bytes(bytes)).map_err(|_| Gone)
    }

    /// Ends long work whose answer nobody waits for any more.
    pub(super) fn still_read(&self) -> Result<(), Gone> {
        if self.sink.0.is_closed() { Err(Gone) } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Gone> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::replace(&mut self.bytes, Vec::with_capacity(PART_BYTES));
        self.sink.0.blocking_send(Part::Bytes(bytes.into())).map_err(|_| Gone)
    }

    /// A line of JSON.
    pub(super) fn line(&mut self, value: &impl Serialize) -> Result<(), Gone> {
        serde_json::to_writer(&mut self.bytes, value).map_err(|_| Gone)?;
        self.bytes.push(b'\n');
        self.flush_much()
    }
}

/// An answer that `work` writes; `tell` writes the problem in which it may end.
pub(super) fn written(
    media: &'static str,
    work: impl FnOnce(&mut Writer) -> Result<(), Ended> + Send + 'static,
    tell: impl FnOnce(&mut Writer, Problem) + Send + 'static,
) -> Response {
    let (sink, body) = Sink::new();
    tokio::task::spawn_blocking(move || {
        let mut writer = Writer { sink, bytes: Vec::new() };
        match work(&mut writer) {
            Ok(()) => {}
            Err(Ended::Gone) => return,
            Err(Ended::Error(error)) => tell(&mut writer, Problem::from(&error)),
        }
        if writer.flush().is_ok() {
            let _ = writer.sink.0.blocking_send(Part::End);
        }
    });
    of_media(media, body)
}

/// A body that work writes, and what that failed with, if it did.
pub(super) struct Piped<E> {
    pub(super) body: Body,
    pub(super) failed: Arc<Mutex<Option<E>>>,
}

/// A body that work writes which blocks; cut off if that fails.
pub(super) fn piped<E: Send + 'static>(
    work: impl FnOnce(&mut dyn Write) -> Result<(), E> + Send + 'static,
) -> Piped<E> {
    let (sink, body) = Sink::new();
    let failed = Arc::<Mutex<Option<E>>>::default();
    let told = Arc::clone(&failed);
    tokio::task::spawn_blocking(move || {
        let mut pipe = Pipe(Writer { sink, bytes: Vec::with_capacity(PART_BYTES) });
        let done = work(&mut pipe);
        let Pipe(mut writer) = pipe;
        match done {
            Ok(()) if writer.flush().is_ok() => {
                let _ = writer.sink.0.blocking_send(Part::End);
            }
            Ok(()) => {}
            // before the body ends
            Err(error) => *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(error),
        }
    });
    Piped { body, failed }
}

struct Pipe(Writer);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.bytes.extend_from_slice(bytes);
        self.0.flush_much().map_err(|Gone| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An answer was cut off.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut off")]
struct Cut;

struct Parts {
    receiver: mpsc::Receiver<Part>,
    ended: bool,
}

impl HttpBody for Parts {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.receiver.poll_recv(context).map(|part| match part {
            Some(Part::Bytes(bytes)) => Some(Ok(Frame::data(bytes))),
            Some(Part::End) => {
                self.ended = true;
                None
            }
            // whoever wrote it fell, or the node stops
            None => {
                self.ended = true;
                Some(Err(Cut))
            }
        })
    }
}
