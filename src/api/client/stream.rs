//! Answers that come bit by bit.

use std::marker::PhantomData;

use axum::body::{Body, Bytes};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::CallError;
use crate::api::error::Problem;
use crate::api::frames::{ExportHead, Frame, Frames, FramesError};

/// Longest value in a stream.
const MAX_VALUE_BYTES: u64 = 1 << 30;
/// What a line begins with that is a problem.
const PROBLEM: &[u8] = b"{\"problem\":";

/// The next part of a body.
async fn next_part(body: &mut Body) -> Result<Option<Bytes>, CallError> {
    loop {
        let Some(frame) = body.frame().await else { return Ok(None) };
        let frame = frame.map_err(|error| CallError::Lost(error.to_string()))?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
}

/// Lines of JSON.
pub struct Lines {
    body: Body,
    part: Bytes,
    begun: Vec<u8>,
}

#[derive(Deserialize)]
struct ProblemLine {
    problem: Problem,
}

impl Lines {
    pub(super) const fn new(body: Body) -> Self {
        Self { body, part: Bytes::new(), begun: Vec::new() }
    }

    /// The next line, without its end; none after the last.
    ///
    /// # Errors
    /// The node could not go on, or went away.
    pub async fn next_line(&mut self) -> Result<Option<Bytes>, CallError> {
        loop {
            if let Some(at) = self.part.iter().position(|&byte| byte == b'\n') {
                let mut line = self.part.split_to(at + 1);
                line.truncate(at);
                if !self.begun.is_empty() {
                    self.begun.extend_from_slice(&line);
                    line = std::mem::take(&mut self.begun).into();
                }
                return no_problem(line).map(Some);
            }
            // taken, so that whoever stops waiting here and comes again does not find it twice
            self.begun.extend_from_slice(&std::mem::take(&mut self.part));
            match next_part(&mut self.body).await? {
                Some(part) => self.part = part,
                None if self.begun.is_empty() => return Ok(None),
                None => return Err(CallError::Lost("within a line".into())),
            }
        }
    }
}

fn no_problem(line: Bytes) -> Result<Bytes, CallError> {
    if !line.starts_with(PROBLEM) {
        return Ok(line);
    }
    match serde_json::from_slice::<ProblemLine>(&line) {
        Ok(told) => Err(told.problem.into()),
        Err(error) => Err(CallError::Answer(error.to_string())),
    }
}

/// How work goes on at the node, a line for whatever happens; its report is the last.
pub struct RunStream<L> {
    lines: Lines,
    run: u64,
    line: PhantomData<fn() -> L>,
}

/// The first line of each.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Begun {
    Run(u64),
}

impl<L: DeserializeOwned> RunStream<L> {
    pub(super) async fn begin(body: Body) -> Result<Self, CallError> {
        let mut lines = Lines::new(body);
        let first = lines.next_line().await?;
        let first = first.and_then(|line| serde_json::from_slice(&line).ok());
        let Some(Begun::Run(run)) = first else {
            return Err(CallError::Answer("what was begun has no number".into()));
        };
        Ok(Self { lines, run, line: PhantomData })
    }

    /// Its number, by which it can be [stopped](super::Client::stop).
    #[must_use]
    pub const fn run(&self) -> u64 {
        self.run
    }

    /// What happened next. A problem is an error here.
    ///
    /// # Errors
    /// The work could not be done or could not go on, or the node went away.
    pub async fn next_line(&mut self) -> Result<Option<L>, CallError> {
        let Some(line) = self.lines.next_line().await? else { return Ok(None) };
        let line = serde_json::from_slice(&line);
        line.map(Some).map_err(|error| CallError::Answer(error.to_string()))
    }
}

/// The entries of an export.
pub struct ExportStream {
    body: Body,
    frames: Frames,
    head: ExportHead,
}

impl ExportStream {
    pub(super) async fn begin(mut body: Body) -> Result<Self, CallError> {
        let mut frames = Frames::new(MAX_VALUE_BYTES);
        match next_frame(&mut body, &mut frames).await? {
            Frame::Head(head) => Ok(Self { body, frames, head }),
            Frame::Problem(problem) => Err(problem.into()),
            _ => Err(CallError::Answer("an export has no head".into())),
        }
    }

    /// What is exported.
    #[must_use]
    pub const fn head(&self) -> &ExportHead {
        &self.head
    }

    /// The next entry: [`Frame::Entry`], [`Frame::Conflict`] or [`Frame::Lost`]; none after the
    /// last.
    ///
    /// # Errors
    /// The node could not go on, or went away.
    pub async fn next_entry(&mut self) -> Result<Option<Frame>, CallError> {
        match next_frame(&mut self.body, &mut self.frames).await? {
            Frame::End => Ok(None),
            Frame::Problem(problem) => Err(problem.into()),
            entry => Ok(Some(entry)),
        }
    }
}

/// The bytes of a backup.
pub struct BackupStream {
    body: Body,
    frames: Frames,
}

impl BackupStream {
    pub(super) const fn new(body: Body) -> Self {
        Self { body, frames: Frames::new(MAX_VALUE_BYTES) }
    }

    /// The next bytes; none after the last, and then all of them came.
    ///
    /// # Errors
    /// The node could not go on, or went away.
    pub async fn next_part(&mut self) -> Result<Option<Bytes>, CallError> {
        match next_frame(&mut self.body, &mut self.frames).await? {
            Frame::Part { bytes } => Ok(Some(bytes)),
            Frame::End => Ok(None),
            Frame::Problem(problem) => Err(problem.into()),
            _ => Err(CallError::Answer("a frame is no part of a backup".into())),
        }
    }
}

async fn next_frame(body: &mut Body, frames: &mut Frames) -> Result<Frame, CallError> {
    loop {
        if let Some(frame) = frames.next_frame()? {
            return Ok(frame);
        }
        match next_part(body).await? {
            Some(part) => frames.push(part),
            None => return Err(FramesError::Cut.into()),
        }
    }
}
