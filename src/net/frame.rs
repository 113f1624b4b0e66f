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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 300;

    fn wire(frames: &[Vec<u8>]) -> Vec<u8> {
        let framed = |frame: &Vec<u8>| {
            [u32::try_from(frame.len()).unwrap().to_le_bytes().as_slice(), frame].concat()
        };
        frames.iter().flat_map(framed).collect()
    }

    fn frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
        vec(vec(any::<u8>(), 0..=MAX), 0..8)
    }

    /// Runs an asynchronous test in one thread.
    fn run<F: Future>(test: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(
            async {
                tokio::time::timeout(Duration::from_secs(30), test).await.expect("the test hangs")
            },
        )
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_frames(frames in frames(), cuts in vec(1..700_usize, 1..40)) {
            let bytes = wire(&frames);
            let mut decoder = FrameDecoder::new(MAX);
            let (mut rest, mut found) = (bytes.as_slice(), Vec::new());
            for cut in cuts.iter().cycle() {
                let (piece, later) = rest.split_at((*cut).min(rest.len()));
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    found.push(frame);
                }
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(found, frames);
            decoder.finish().unwrap();
        }

        #[test]
        fn a_cut_is_told_from_an_end(frames in frames(), at in any::<prop::sample::Index>()) {
            let bytes = wire(&frames);
            prop_assume!(!bytes.is_empty());
            let at = at.index(bytes.len());
            let mut decoder = FrameDecoder::new(MAX);
            decoder.push(&bytes[..at]);
            let mut whole = 0;
            while let Some(frame) = decoder.next_frame().unwrap() {
                prop_assert_eq!(&frame, &frames[whole]);
                whole += 1;
            }
            let (before, next) = (wire(&frames[..whole]).len(), wire(&frames[whole..=whole]).len());
            match decoder.finish() {
                Ok(()) => prop_assert_eq!(at, before),
                Err(FrameError::Cut { missing }) if at - before < FRAME_HEADER_BYTES => {
                    prop_assert_eq!(missing, FRAME_HEADER_BYTES - (at - before));
                }
                Err(FrameError::Cut { missing }) => prop_assert_eq!(missing, before + next - at),
                Err(other) => prop_assert!(false, "{}", other),
            }
        }

        #[test]
        fn any_bytes_are_taken_without_harm(pieces in vec(vec(any::<u8>(), 0..40), 0..20)) {
            let mut decoder = FrameDecoder::new(MAX);
            let (mut pushed, mut taken) = (0, 0);
            for piece in &pieces {
                decoder.push(piece);
                pushed += piece.len();
                loop {
                    match decoder.next_frame() {
                        Ok(Some(frame)) => {
                            prop_assert!(frame.len() <= MAX);
                            taken += FRAME_HEADER_BYTES + frame.len();
                        }
                        Ok(None) => break,
                        Err(_) => {
                            prop_assert!(decoder.next_frame().is_err(), "an error stays");
                            prop_assert!(decoder.finish().is_err());
                            return Ok(());
                        }
                    }
                }
            }
            prop_assert_eq!(decoder.buffer.len() - decoder.start, pushed - taken);
        }

        #[test]
        fn what_is_written_is_read(frames in frames(), room in 1..600_usize) {
            run(async {
                let (near, far) = tokio::io::duplex(room);
                let sent = frames.clone();
                let writing = async move {
                    let mut writer = FrameWriter::new(near, MAX);
                    for frame in &sent {
                        writer.write_frame(frame).await.unwrap();
                    }
                    let bytes = writer.bytes_written();
                    writer.finish().await.unwrap();
                    bytes
                };
                let reading = async {
                    let mut reader = FrameReader::new(far, MAX);
                    let mut found = Vec::new();
                    while let Some(frame) = reader.next_frame().await.unwrap() {
                        found.push(frame);
                    }
                    (found, reader.bytes_read())
                };
                let (written, (found, read)) = tokio::join!(writing, reading);
                assert_eq!(found, frames);
                assert_eq!((written, read), (read, wire(&found).len() as u64));
            });
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_bytes_come() {
        for length in [MAX as u32 + 1, u32::MAX] {
            let mut decoder = FrameDecoder::new(MAX);
            decoder.push(&length.to_le_bytes());
            let error = decoder.next_frame().unwrap_err();
            let FrameError::TooLarge { length: announced, max: MAX } = error else {
                panic!("{error}");
            };
            assert_eq!(announced, u64::from(length));
        }
        let mut decoder = FrameDecoder::new(MAX);
        decoder.push(&wire(&[vec![7; MAX]]));
        assert_eq!(decoder.next_frame().unwrap().unwrap().len(), MAX);
    }

    #[test]
    fn a_lying_length_costs_no_memory() {
        run(async {
            let (mut near, far) = tokio::io::duplex(64);
            near.write_all(&(1_u32 << 20).to_le_bytes()).await.unwrap();
            near.write_all(b"and then little").await.unwrap();
            drop(near);
            let mut reader = FrameReader::new(far, 1 << 20);
            let error = reader.next_frame().await.unwrap_err();
            assert!(matches!(error, FrameError::Cut { missing } if missing == (1 << 20) - 15));
            assert!(reader.decoder.buffer.capacity() <= 2 * FIRST_READ_BYTES);
        });
    }

    #[test]
    fn room_for_a_large_frame_is_given_back() {
        run(async {
            let (near, far) = tokio::io::duplex(1 << 16);
            let mut writer = FrameWriter::new(near, 1 << 20);
            let mut reader = FrameReader::new(far, 1 << 20);
            let large = vec![1; 1 << 20];
            let (written, read) = tokio::join!(writer.write_frame(&large), reader.next_frame());
            written.unwrap();
            assert_eq!(read.unwrap().unwrap(), large);
            writer.write_frame(b"small").await.unwrap();
            reader.next_frame().await.unwrap();
            assert!(reader.decoder.buffer.capacity() <= 2 * READ_BYTES);
            assert!(writer.scratch.capacity() <= 2 * JOINED_BYTES);
        });
    }

    #[test]
    fn a_frame_over_the_limit_is_not_written() {
        run(async {
            let (near, far) = tokio::io::duplex(1 << 12);
            let mut writer = FrameWriter::new(near, MAX);
            assert!(writer.write_frame(&[0; MAX + 1]).await.is_err());
            writer.write_frame(b"fits").await.unwrap();
            writer.finish().await.unwrap();
            let mut reader = FrameReader::new(far, MAX);
            assert_eq!(reader.next_frame().await.unwrap().unwrap(), b"fits");
            assert_eq!(reader.next_frame().await.unwrap(), None);
        });
    }

    #[test]
    fn cancelled_reads_lose_nothing() {
        run(async {
            let (mut near, far) = tokio::io::duplex(64);
            let mut reader = FrameReader::new(far, MAX);
            let frames = [b"one".to_vec(), Vec::new(), b"three".to_vec()];
            let mut found = Vec::new();
            for byte in wire(&frames) {
                near.write_all(&[byte]).await.unwrap();
                while let Ok(frame) =
                    tokio::time::timeout(Duration::ZERO, reader.next_frame()).await
                {
                    found.push(frame.unwrap().unwrap());
                }
            }
            assert_eq!(found, frames);
        });
    }

    #[test]
    fn raw_bytes_may_follow_a_header_frame() {
        run(async {
            let (near, far) = tokio::io::duplex(1 << 12);
            let mut writer = FrameWriter::new(near, MAX);
            writer.write_frame(b"header").await.unwrap();
            writer.into_inner().write_all(b"raw bytes").await.unwrap();
            let mut reader = FrameReader::new(far, MAX);
            assert_eq!(reader.next_frame().await.unwrap().unwrap(), b"header");
            let (mut stream, mut ahead) = reader.into_parts();
            stream.read_to_end(&mut ahead).await.unwrap();
            assert_eq!(ahead, b"raw bytes");
        });
    }
}
