//! A lane's two streams, each moved by a task of its own.

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::super::frame::{FrameReader, FrameWriter};
use super::super::stream::{RecvStream, SendStream};
use crate::session::wire::MAX_FRAME_BYTES;

/// Frames that wait between a stream and the core.
const QUEUED_FRAMES: usize = 4;

/// How a stream ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// Between frames, as the peer wanted.
    Clean,
    /// It was given up, cut within a frame, or the connection was lost.
    Broken,
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
    pub(super) outgoing: Option<mpsc::Sender<Vec<u8>>>,
    writer: Option<Task>,
    pub(super) incoming: mpsc::Receiver<Incoming>,
    pub(super) reader: Option<Task>,
}

impl LaneIo {
    pub(super) fn control(send: SendStream, reader: FrameReader<RecvStream>) -> Self {
        let (mut lane, frames) = Self::bulk();
        lane.reader = Some(Task::spawn(read(reader, frames)));
        lane.send_on(send);
        lane
    }

    /// A lane whose streams are still to come.
    pub(super) fn bulk() -> (Self, mpsc::Sender<Incoming>) {
        let (sender, incoming) = mpsc::channel(QUEUED_FRAMES);
        (Self { outgoing: None, writer: None, incoming, reader: None }, sender)
    }

    pub(super) fn send_on(&mut self, stream: SendStream) {
        let (outgoing, frames) = mpsc::channel(QUEUED_FRAMES);
        self.outgoing = Some(outgoing);
        self.writer = Some(Task::spawn(write(stream, frames)));
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

async fn write(send: SendStream, mut frames: mpsc::Receiver<Vec<u8>>) {
    let mut writer = FrameWriter::new(send, MAX_FRAME_BYTES);
    while let Some(frame) = frames.recv().await {
        if writer.write_frame(&frame).await.is_err() {
            return;
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
