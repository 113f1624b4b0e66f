//! Backups and restores: streams of the format of [`crate::backup`].

use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Response;
use http_body_util::BodyExt as _;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Host;
use super::body::{Ended, Gone, Writer, answer, blocking, written};
use super::entries::now_ms;
use super::error::ApiError;
use super::frames::{ENTRIES, Frame};
use super::router::{Asked, Name, Named};
use super::types::{RestoredText, from_hex};
use crate::backup::{BLOCK_BYTES, BackupError, BackupHead, BackupLimits, BackupReader, Chain};
use crate::replica::{NotBackedUp, NotRestored, RestoreOptions};

/// Parts of a body that wait to be read.
const PARTS_WAITING: usize = 2;

impl From<NotBackedUp> for ApiError {
    fn from(error: NotBackedUp) -> Self {
        match error {
            NotBackedUp::View(error) => Self::View(error),
            NotBackedUp::Backup(error) => Self::Backup(error),
        }
    }
}

impl From<NotRestored> for ApiError {
    fn from(error: NotRestored) -> Self {
        match error {
            NotRestored::Backup(error) => Self::Backup(error),
            NotRestored::Replica(error) => Self::Replica(error),
            exists @ NotRestored::Exists { .. } => Self::Exists(exists.to_string()),
        }
    }
}

/// Since when.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BackupQuery {
    /// The head of the backup to go on from, in hex.
    base: Option<String>,
}

pub(super) async fn backup(
    State(host): State<Arc<Host>>,
    Named(collection): Named,
    Asked(asked): Asked<BackupQuery>,
) -> Result<Response, ApiError> {
    let base = asked.base.map(|base| from_hex(&base, "base")).transpose()?;
    let base = base.map(|base| BackupHead::parse(&base)).transpose()?;
    let node = host.node().id();
    let (snapshot, head, keys) = blocking(move || {
        let snapshot = collection.snapshot()?;
        let (head, keys) = snapshot.backup_head(node, now_ms(), base.as_ref())?;
        Ok((snapshot, head, keys))
    })
    .await?;
    let work = move |writer: &mut Writer| {
        let parts = BufWriter::with_capacity(BLOCK_BYTES, Parts(writer));
        let made = snapshot.back_up(&head, keys.as_deref(), parts).map(drop);
        // the only output that fails is one that nobody reads any more
        let gone = |error: &NotBackedUp| {
            matches!(error, NotBackedUp::Backup(BackupError::Io(error))
                if error.kind() == ErrorKind::BrokenPipe)
        };
        match made {
            Ok(()) => {}
            Err(error) if gone(&error) => return Err(Ended::Gone),
            Err(error) => return Err(error.into()),
        }
        Ok(Frame::End.write(&mut writer.bytes)?)
    };
    Ok(written(ENTRIES, work, |writer, problem| {
        let _ = Frame::Problem(problem).write(&mut writer.bytes);
    }))
}

/// Bytes of a backup, sent in frames.
struct Parts<'a>(&'a mut Writer);

impl Write for Parts<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |Gone| io::Error::from(ErrorKind::BrokenPipe);
        let frame = Frame::Part { bytes: Bytes::copy_from_slice(bytes) };
        let rest = frame.write_head(&mut self.0.bytes).map_err(io::Error::other)?;
        self.0.value(rest).map_err(gone)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How it is to be restored.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RestoreQuery {
    /// Whether a collection of this name may be replaced.
    #[serde(default)]
    replace: bool,
}

pub(super) async fn restore(
    State(host): State<Arc<Host>>,
    Name(name): Name,
    Asked(asked): Asked<RestoreQuery>,
    body: Body,
) -> Result<Response, ApiError> {
    let replica = Arc::clone(&host.node().replica);
    let (parts, waiting) = mpsc::channel(PARTS_WAITING);
    let work = blocking(move || {
        let max_value_bytes = replica.limits().max_value_bytes;
        let limits = BackupLimits { max_value_bytes, ..BackupLimits::default() };
        let input = Received { waiting, part: Bytes::new() };
        let mut chain = Chain::of(vec![BackupReader::open(input, limits)?])?;
        let RestoreQuery { replace } = asked;
        let options = RestoreOptions { name: Some(name), replace, now_ms: now_ms() };
        Ok(RestoredText::from(&replica.restore(&mut chain, &options)?))
    });
    let (restored, ()) = tokio::join!(work, feed(body, parts, host.limits().body_pause));
    answer(&restored?)
}

/// Hands the body on, part by part. When nobody takes it any more, because it was refused, the
/// rest is read all the same: else whoever sends it would not hear why.
async fn feed(mut body: Body, parts: mpsc::Sender<io::Result<Bytes>>, pause: Duration) {
    loop {
        let part = match timeout(pause, body.frame()).await {
            Err(_) => Err(io::Error::from(ErrorKind::TimedOut)),
            Ok(None) => return,
            Ok(Some(Err(error))) => Err(io::Error::other(error)),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(bytes) => Ok(bytes),
                Err(_) => continue,
            },
        };
        let ended = part.is_err();
        let _ = parts.send(part).await;
        if ended {
            return;
        }
    }
}

/// A body, read by work that blocks.
struct Received {
    waiting: mpsc::Receiver<io::Result<Bytes>>,
    part: Bytes,
}

impl Read for Received {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            match self.waiting.blocking_recv() {
                Some(part) => self.part = part?,
                None => return Ok(0),
            }
        }
        let now = self.part.split_to(self.part.len().min(into.len()));
        into[..now.len()].copy_from_slice(&now);
        Ok(now.len())
    }
}
