//! The two halves of a stream, with errors that name the cause.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use quinn::{ReadError, StoppedError, VarInt, WriteError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::codes::StreamCode;
use super::connection::Link;
use super::error::{NetError, stream_code};

/// The sending half of a stream.
///
/// A stream that is dropped before it is finished is reset: the peer never takes half of it for
/// the whole. The `io::Error`s it gives hold a [`NetError`], which `NetError::from` takes out.
#[derive(Debug)]
pub struct SendStream {
    stream: quinn::SendStream,
    link: Arc<Link>,
    ended: bool,
    /// Goes before the first bytes that are written.
    head: Vec<u8>,
}

impl SendStream {
    pub(super) const fn new(stream: quinn::SendStream, link: Arc<Link>) -> Self {
        Self { stream, link, ended: false, head: Vec::new() }
    }

    /// Lets these bytes go before the first that are written, in one packet with them.
    pub(super) fn begin_with(&mut self, head: &[u8]) {
        self.head.extend_from_slice(head);
    }

    /// Its number, which no other stream of the connection has; the same at both ends.
    #[must_use]
    pub fn number(&self) -> u64 {
        VarInt::from(self.stream.id()).into_inner()
    }

    /// Ends the stream cleanly: the peer reads everything, then the end.
    ///
    /// # Errors
    /// The stream was ended or given up already.
    pub fn finish(&mut self) -> Result<(), NetError> {
        self.ended = true;
        self.stream.finish().map_err(|_| NetError::StreamEnded)
    }

    /// Gives the stream up; what has not been sent never will be.
    pub fn reset(&mut self, code: StreamCode) {
        self.ended = true;
        // Nothing is left to give up on a stream that has ended.
        let _ = self.stream.reset(code.var_int());
    }

    /// Lets this stream send before (greater) or after (lesser) others of the connection; 0 at
    /// first.
    pub fn prefer(&self, priority: i32) {
        let _ = self.stream.set_priority(priority);
    }

    /// Waits until the peer has all that was sent on a finished stream.
    ///
    /// # Errors
    /// The peer gave the stream up, or the connection ended first.
    pub async fn delivered(&mut self) -> Result<(), NetError> {
        match self.stream.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(code)) => Err(NetError::StreamStopped(stream_code(code))),
            Err(StoppedError::ConnectionLost(error)) => Err(self.link.error(error)),
            Err(StoppedError::ZeroRttRejected) => Err(NetError::StreamEnded),
        }
    }

    fn error(&self, error: WriteError) -> io::Error {
        match error {
            WriteError::Stopped(code) => NetError::StreamStopped(stream_code(code)),
            WriteError::ConnectionLost(error) => self.link.error(error),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => NetError::StreamEnded,
        }
        .into_io()
    }
}

impl AsyncWrite for SendStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        while !self.head.is_empty() {
            let head = self.head.len();
            let joined = [&self.head, bytes].concat();
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &joined));
            let written = written.map_err(|error| self.error(error))?;
            self.head.drain(..written.min(head));
            if written > head {
                return Poll::Ready(Ok(written - head));
            }
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        Poll::Ready(written.map_err(|error| self.error(error)))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.finish().map_err(NetError::into_io))
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        if !self.ended {
            self.reset(StreamCode::Abandoned);
        }
    }
}

/// The receiving half of a stream.
///
/// Dropped before its end, it tells the peer to stop sending. The `io::Error`s it gives hold a
/// [`NetError`], which `NetError::from` takes out.
#[derive(Debug)]
pub struct RecvStream {
    stream: quinn::RecvStream,
    link: Arc<Link>,
    heard: bool,
}

impl RecvStream {
    pub(super) const fn new(stream: quinn::RecvStream, link: Arc<Link>) -> Self {
        Self { stream, link, heard: false }
    }

    /// Gives the stream up; what is still to come is dropped.
    pub fn stop(&mut self, code: StreamCode) {
        // Nothing is left to give up on a stream that has ended.
        let _ = self.stream.stop(code.var_int());
    }

    fn error(&self, error: ReadError) -> io::Error {
        match error {
            ReadError::Reset(code) => NetError::StreamReset(stream_code(code)),
            ReadError::ConnectionLost(error) => self.link.error(error),
            ReadError::ClosedStream
            | ReadError::IllegalOrderedRead
            | ReadError::ZeroRttRejected => NetError::StreamEnded,
        }
        .into_io()
    }
}

impl AsyncRead for RecvStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(self.stream.poll_read_buf(cx, buffer));
        if !self.heard && buffer.filled().len() > before {
            self.heard = true;
            self.link.heard();
        }
        Poll::Ready(read.map_err(|error| self.error(error)))
    }
}
