//! A lane's two streams, each moved by a task of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::super::frame::{FrameReader, FrameWriter};
use super::super::stream::{RecvStream, SendStream};
use crate::session::wire::MAX_FRAME_BYTES;

/// Frames that wait between a stream and the core.
const QUEUED_FRAMES: usize = 4;
/// While a side works and has nothing to send, it says so this often.
const BEAT: Duration = Duration::from_secs(2);
/// What it says then, on the control stream.
const STILL_AT_WORK: &[u8] = &[];

/// How a stream ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// Between frames, as the peer wanted.
    Clean,
    /// It was given up, cut within a frame, or the connection was lost.
    Broken,
}

/// What goes to a stream.
pub(super) struct Outgoing {
    pub(super) frame: Vec<u8>,
    /// Whether the stream ends after it: then its end goes in one packet with it.
    pub(super) is_last: bool,
}

/// What comes from a stream: frames, then its end.
pub(super) type Incoming = Result<Vec<u8>, End>;

/// A task that ends with whoever started it.
pub(super) struct Task(JoinHandle<()>);

impl Task {
    fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The two streams of a lane.
pub(super) struct LaneIo {
    pub(super) outgoing: Option<mpsc::Sender<Outgoing>>,
    writer: Option<Task>,
    pub(super) incoming: mpsc::Receiver<Incoming>,
    pub(super) reader: Option<Task>,
}

impl LaneIo {
    /// The lane whose silence means something: while this side is `at_work` it beats.
    pub(super) fn control(
        send: SendStream,
        reader: FrameReader<RecvStream>,
        at_work: Arc<AtomicBool>,
        patience: Duration,
    ) -> Self {
        let (mut lane, frames) = Self::bulk();
        lane.reader = Some(Task::spawn(read(reader, frames)));
        let beat = BEAT.min(patience / 4);
        lane.writer = Some(Task::spawn(lane.outgoing_to(send, Some((at_work, beat)))));
        lane
    }

    /// A lane whose streams are still to come.
    pub(super) fn bulk() -> (Self, mpsc::Sender<Incoming>) {
        let (sender, incoming) = mpsc::channel(QUEUED_FRAMES);
        (Self { outgoing: None, writer: None, incoming, reader: None }, sender)
    }

    pub(super) fn send_on(&mut self, stream: SendStream) {
        self.writer = Some(Task::spawn(self.outgoing_to(stream, None)));
    }

    fn outgoing_to(
        &mut self,
        stream: SendStream,
        beat: Option<(Arc<AtomicBool>, Duration)>,
    ) -> impl Future<Output = ()> + use<> {
        let (outgoing, frames) = mpsc::channel(QUEUED_FRAMES);
        self.outgoing = Some(outgoing);
        write(stream, frames, beat)
    }

    pub(super) fn receive_from(&mut self, stream: RecvStream, frames: mpsc::Sender<Incoming>) {
        let reader = FrameReader::new(stream, MAX_FRAME_BYTES);
        self.reader = Some(Task::spawn(read(reader, frames)));
    }

    /// Ends the outgoing stream and waits until the peer has it all.
    pub(super) async fn finish(mut self) {
        drop(self.outgoing.take());
        if let Some(writer) = &mut self.writer {
            let _ = (&mut writer.0).await;
        }
    }
}

/// Frames in their order. Runs beside whoever works on them, and so can say meanwhile that the work
/// goes on.
async fn write(
    send: SendStream,
    mut frames: mpsc::Receiver<Outgoing>,
    beat: Option<(Arc<AtomicBool>, Duration)>,
) {
    let mut writer = FrameWriter::new(send, MAX_FRAME_BYTES);
    loop {
        let next = match &beat {
            Some((_, beat)) => timeout(*beat, frames.recv()).await,
            None => Ok(frames.recv().await),
        };
        let sent = match (&next, &beat) {
            (Ok(Some(next)), _) => writer.write_frame(&next.frame).await,
            (Ok(None), _) => break,
            (Err(_), Some((at_work, _))) if at_work.load(Ordering::Relaxed) => {
                writer.write_frame(STILL_AT_WORK).await
            }
            (Err(_), _) => Ok(()),
        };
        if sent.is_err() {
            return;
        }
        if matches!(next, Ok(Some(Outgoing { is_last: true, .. }))) {
            break;
        }
    }
    if let Ok(mut stream) = writer.finish().await {
        let _ = stream.delivered().await;
    }
}

async fn read(mut reader: FrameReader<RecvStream>, frames: mpsc::Sender<Incoming>) {
    loop {
        let frame = match reader.next_frame().await {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => Err(End::Clean),
            Err(_) => Err(End::Broken),
        };
        let last = frame.is_err();
        if frames.send(frame).await.is_err() || last {
            return;
        }
    }
}
