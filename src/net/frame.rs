//! Frames: `u32` length, little-endian, then as many bytes of payload.
//!
//! [`FrameDecoder`] is the whole rule, without any input or output. A length is checked before
//! anything is kept for it, and memory grows with the bytes that really arrived: a length that
//! lies costs four bytes. [`FrameReader`] and [`FrameWriter`] carry frames over any
//! asynchronous stream.
//!
//! ```
//! use selfsame::net::FrameDecoder;
//!
//! let mut decoder = FrameDecoder::new(1 << 20);
//! decoder.push(&[2, 0, 0]);
//! assert_eq!(decoder.next_frame()?, None);
//! decoder.push(&[0, b'h', b'i', 0, 0]);
//! assert_eq!(decoder.next_frame()?, Some(b"hi".to_vec()));
//! assert!(decoder.finish().is_err()); // two bytes of the next header are there: it was cut
//! # Ok::<(), selfsame::net::FrameError>(())
//! ```

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Bytes before the payload.
pub const FRAME_HEADER_BYTES: usize = 4;

/// Most bytes that a reader asks for at once, and most room that it keeps while idle.
const READ_BYTES: usize = 64 << 10;

/// Room that a reader begins with.
const FIRST_READ_BYTES: usize = 4 << 10;

/// Payload that is sent in one piece with its header, so that they share a packet.
const JOINED_BYTES: usize = 16 << 10;

/// A frame that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The length exceeds the limit.
    #[error("a frame of {length} bytes is over the limit of {max}")]
    TooLarge {
        /// The length that was announced, or that was to be sent.
        length: u64,
        /// The limit.
        max: usize,
    },
    /// The stream ended within a frame.
    #[error("the stream ended within a frame: {missing} bytes are missing")]
    Cut {
        /// How many bytes of header or payload did not come.
        missing: usize,
    },
    /// The stream failed.
    #[error("the stream failed: {0}")]
    Stream(#[from] io::Error),
}

/// Takes bytes in pieces of any size and gives the frames in them.
///
/// Holds no more than was pushed and not yet taken out as frames.
#[derive(Clone, Debug)]
pub struct FrameDecoder {
    buffer: Vec<u8>,
    /// Where in the buffer the next frame begins.
    start: usize,
    max: usize,
}

impl FrameDecoder {
    /// Takes frames with a payload of up to `max_frame_bytes`.
    #[must_use]
    pub const fn new(max_frame_bytes: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, max: max_frame_bytes }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.compact();
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame's payload, once it is here; `None` while bytes are missing.
    ///
    /// # Errors
    /// The length exceeds the limit: the stream cannot be read further, and every later call
    /// says so again.
    pub fn next_frame(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let Some(length) = self.announced()? else { return Ok(None) };
        let from = self.start + FRAME_HEADER_BYTES;
        let Some(payload) = self.buffer.get(from..).and_then(|rest| rest.get(..length)) else {
            return Ok(None);
        };
        let payload = payload.to_vec();
        self.start = from + length;
        Ok(Some(payload))
    }

    /// Checks that the stream may end here: between frames.
    ///
    /// # Errors
    /// A frame was cut.
    pub fn finish(&self) -> Result<(), FrameError> {
        let held = self.buffer.len() - self.start;
        if held == 0 {
            return Ok(());
        }
        let whole = match self.announced()? {
            Some(length) => FRAME_HEADER_BYTES + length,
            None => FRAME_HEADER_BYTES,
        };
        Err(FrameError::Cut { missing: whole.saturating_sub(held) })
    }

    /// The checked length of the frame that begins here, once its header is complete.
    fn announced(&self) -> Result<Option<usize>, FrameError> {
        let Some(header) = self.buffer[self.start..].first_chunk::<FRAME_HEADER_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*header);
        match usize::try_from(length) {
            Ok(length) if length <= self.max => Ok(Some(length)),
            _ => Err(FrameError::TooLarge { length: length.into(), max: self.max }),
        }
    }

    /// Moves the rest to the front, and gives room back that only a large frame needed.
    fn compact(&mut self) {
        if self.start == 0 {
            return;
        }
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.buffer.shrink_to(READ_BYTES);
        } else {
            self.buffer.drain(..self.start);
        }
        self.start = 0;
    }
}

/// Reads frames from a stream.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    decoder: FrameDecoder,
    bytes: u64,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads frames with a payload of up to `max_frame_bytes`.
    pub const fn new(stream: R, max_frame_bytes: usize) -> Self {
        Self { stream, decoder: FrameDecoder::new(max_frame_bytes), bytes: 0 }
    }

    /// The next frame's payload; `None` when the stream has ended between frames.
    ///
    /// Cancelling the call loses nothing.
    ///
    /// # Errors
    /// A frame over the limit, a stream that ends within a frame, or one that fails.
    pub async fn next_frame(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(Some(frame));
            }
            self.decoder.compact();
            let buffer = &mut self.decoder.buffer;
            buffer.reserve(buffer.len().clamp(FIRST_READ_BYTES, READ_BYTES));
            let read = (&mut self.stream).take(READ_BYTES as u64).read_buf(buffer).await?;
            self.bytes += read as u64;
            if read == 0 {
                self.decoder.finish()?;
                return Ok(None);
            }
        }
    }

    /// Bytes read from the stream so far, headers included.
    #[must_use]
    pub const fn bytes_read(&self) -> u64 {
        self.bytes
    }

    /// The stream, for instance to give it up; bytes that were read ahead stay here.
    pub const fn stream_mut(&mut self) -> &mut R {
        &mut self.stream
    }

    /// The stream and the bytes that were read ahead of it: what follows a header frame as raw
    /// bytes begins with them.
    pub fn into_parts(mut self) -> (R, Vec<u8>) {
        self.decoder.compact();
        (self.stream, self.decoder.buffer)
    }
}

/// Writes frames to a stream.
#[derive(Debug)]
pub struct FrameWriter<W> {
    stream: W,
    max: usize,
    scratch: Vec<u8>,
    bytes: u64,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes frames with a payload of up to `max_frame_bytes`.
    pub const fn new(stream: W, max_frame_bytes: usize) -> Self {
        Self { stream, max: max_frame_bytes, scratch: Vec::new(), bytes: 0 }
    }

    /// Writes one frame, and waits until the stream has taken it.
    ///
    /// A call that is cancelled may leave half a frame: then the stream must be given up.
    ///
    /// # Errors
    /// A payload over the limit (nothing is written), or a stream that fails.
    pub async fn write_frame(&mut self, payload: &[u8]) -> Result<(), FrameError> {
        let length = match u32::try_from(payload.len()) {
            Ok(length) if payload.len() <= self.max => length,
            _ => {
                let length = payload.len() as u64;
                return Err(FrameError::TooLarge { length, max: self.max });
            }
        };
        let (first, rest) = payload.split_at(payload.len().min(JOINED_BYTES));
        self.scratch.clear();
        self.scratch.extend_from_slice(&length.to_le_bytes());
        self.scratch.extend_from_slice(first);
        self.stream.write_all(&self.scratch).await?;
        self.stream.write_all(rest).await?;
        self.bytes += (FRAME_HEADER_BYTES + payload.len()) as u64;
        Ok(())
    }

    /// Ends the stream cleanly and returns it.
    ///
    /// # Errors
    /// The stream fails.
    pub async fn finish(mut self) -> Result<W, FrameError> {
        self.stream.shutdown().await?;
        Ok(self.stream)
    }

    /// Bytes written to the stream so far, headers included.
    #[must_use]
    pub const fn bytes_written(&self) -> u64 {
        self.bytes
    }

    /// The stream, for instance to give it up or to write raw bytes after a header frame.
    pub const fn stream_mut(&mut self) -> &mut W {
        &mut self.stream
    }

    /// The stream, for raw bytes after a header frame.
    pub fn into_inner(self) -> W {
        self.stream
    }
}
