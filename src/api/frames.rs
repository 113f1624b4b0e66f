//! Entries in a stream of bytes: what an import sends and an export answers, and a backup.
//!
//! A frame is one byte of kind, the length of the key (u16) and of the value (u32), both
//! little-endian, then key and value. Values travel as they are, so that a large one costs no
//! more than its bytes.
//!
//! ```
//! use selfsame::api::frames::{Frame, Frames};
//! use selfsame::types::Key;
//!
//! let frame = Frame::Entry { key: Key::new("ada")?, value: b"level 3".to_vec().into() };
//! let mut bytes = Vec::new();
//! frame.clone().write(&mut bytes)?;
//! let mut frames = Frames::new(1 << 20);
//! frames.push(bytes[..5].to_vec().into());
//! assert_eq!(frames.next_frame()?, None);
//! frames.push(bytes[5..].to_vec().into());
//! assert_eq!(frames.next_frame()?, Some(frame));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::VecDeque;

use axum::body::Bytes;
use serde::{Deserialize, Serialize};

use super::error::Problem;
use super::types::PolicyName;
use crate::types::{Key, TypeError};

/// The media type of a stream of frames.
pub const ENTRIES: &str = "application/vnd.selfsame.entries";
/// Bytes before key and value.
pub const FRAME_HEAD_BYTES: usize = 7;
/// Longest JSON in a frame.
const MAX_JSON_BYTES: usize = 64 << 10;

const ENTRY: u8 = 0;
const CONFLICT: u8 = 1;
const LOST: u8 = 2;
const PART: u8 = 3;
const HEAD: u8 = 16;
const END: u8 = 17;
const PROBLEM: u8 = 18;

/// Bytes that are no frame.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FramesError {
    /// A kind that does not exist.
    #[error("there are no frames of kind {0}: the other side is of another version")]
    Kind(u8),
    /// A value longer than may be.
    #[error("a value of {found} bytes is more than the {limit} that are allowed here")]
    Size {
        /// Its length.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// A key that is none.
    #[error("a frame holds no key: {0}")]
    Key(#[from] TypeError),
    /// JSON that is not understood.
    #[error("a frame holds JSON that is not understood: {0}")]
    Json(#[from] serde_json::Error),
    /// The stream ends within a frame, or before its last one.
    #[error("the stream of entries was cut off")]
    Cut,
}

/// What an export begins with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExportHead {
    /// Root of the moment that is exported.
    pub root: String,
    /// The collection's policy.
    pub policy: PolicyName,
    /// Keys held.
    pub entries: u64,
    /// Bytes of all versions.
    pub bytes: u64,
}

/// A part of a stream of entries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// What an export begins with. Kind 16, JSON in the value.
    Head(ExportHead),
    /// A key and its value. Kind 0.
    Entry {
        /// The key.
        key: Key,
        /// The value.
        value: Bytes,
    },
    /// A key with concurrent versions, and the latest of them. Kind 1.
    Conflict {
        /// The key.
        key: Key,
        /// The value of the latest version.
        value: Bytes,
    },
    /// A key whose value's bytes are lost. Kind 2.
    Lost {
        /// The key.
        key: Key,
    },
    /// Bytes of a backup. Kind 3, without a key.
    Part {
        /// The bytes.
        bytes: Bytes,
    },
    /// All of it was said. Kind 17.
    End,
    /// It could not be said. Kind 18, JSON in the value.
    Problem(Problem),
}

impl Frame {
    /// Adds the frame's bytes.
    ///
    /// # Errors
    /// A value of 4 GiB or more.
    pub fn write(self, bytes: &mut Vec<u8>) -> Result<(), FramesError> {
        let value = self.write_head(bytes)?;
        bytes.extend_from_slice(&value);
        Ok(())
    }

    /// Adds the frame's bytes but the value, which is what remains to be sent.
    pub(super) fn write_head(self, bytes: &mut Vec<u8>) -> Result<Bytes, FramesError> {
        let (kind, key, value) = match self {
            Self::Entry { key, value } => (ENTRY, Some(key), value),
            Self::Conflict { key, value } => (CONFLICT, Some(key), value),
            Self::Lost { key } => (LOST, Some(key), Bytes::new()),
            Self::Part { bytes } => (PART, None, bytes),
            Self::Head(head) => (HEAD, None, serde_json::to_vec(&head)?.into()),
            Self::End => (END, None, Bytes::new()),
            Self::Problem(problem) => (PROBLEM, None, serde_json::to_vec(&problem)?.into()),
        };
        let key = key.as_ref().map_or(&[][..], Key::as_bytes);
        bytes.extend_from_slice(&head_of(kind, key.len(), value.len())?);
        bytes.extend_from_slice(key);
        Ok(value)
    }
}

fn head_of(kind: u8, key: usize, value: usize) -> Result<[u8; FRAME_HEAD_BYTES], FramesError> {
    let too_long = |limit| move |_| FramesError::Size { found: value as u64, limit };
    let key = u16::try_from(key).map_err(too_long(u16::MAX.into()))?;
    let value = u32::try_from(value).map_err(too_long(u32::MAX.into()))?;
    let mut head = [kind; FRAME_HEAD_BYTES];
    head[1..3].copy_from_slice(&key.to_le_bytes());
    head[3..].copy_from_slice(&value.to_le_bytes());
    Ok(head)
}

/// Adds an entry whose value `read` writes straight to the end of `bytes`; it says whether it
/// did. If not, nothing is added.
///
/// # Errors
/// Whatever `read` says; a value of 4 GiB or more.
pub fn write_entry<E: From<FramesError>>(
    bytes: &mut Vec<u8>,
    key: &Key,
    read: impl FnOnce(&mut Vec<u8>) -> Result<bool, E>,
) -> Result<bool, E> {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; FRAME_HEAD_BYTES]);
    bytes.extend_from_slice(key.as_bytes());
    let value = bytes.len();
    let written = read(bytes).and_then(|written| {
        let head = head_of(ENTRY, key.as_bytes().len(), bytes.len() - value)?;
        bytes[start..start + FRAME_HEAD_BYTES].copy_from_slice(&head);
        Ok(written)
    });
    if !matches!(written, Ok(true)) {
        bytes.truncate(start);
    }
    written
}

/// Frames out of bytes as they come. A value that came in one piece is not copied.
#[derive(Debug)]
pub struct Frames {
    parts: VecDeque<Bytes>,
    length: usize,
    max_value_bytes: u64,
}

impl Frames {
    /// With values of at most so many bytes.
    #[must_use]
    pub const fn new(max_value_bytes: u64) -> Self {
        Self { parts: VecDeque::new(), length: 0, max_value_bytes }
    }

    /// Adds bytes that came.
    pub fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.length += bytes.len();
            self.parts.push_back(bytes);
        }
    }

    /// Whether everything that came was a whole frame.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The next frame, if all of it is here.
    ///
    /// # Errors
    /// It is none, or longer than may be.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FramesError> {
        if self.length < FRAME_HEAD_BYTES {
            return Ok(None);
        }
        let mut head = [0; FRAME_HEAD_BYTES];
        let bytes = self.parts.iter().flat_map(|part| part.iter());
        for (to, from) in head.iter_mut().zip(bytes) {
            *to = *from;
        }
        let [kind, k0, k1, v0, v1, v2, v3] = head;
        let key = usize::from(u16::from_le_bytes([k0, k1]));
        let value = u32::from_le_bytes([v0, v1, v2, v3]);
        let limit = if kind >= HEAD { MAX_JSON_BYTES as u64 } else { self.max_value_bytes };
        if u64::from(value) > limit {
            return Err(FramesError::Size { found: value.into(), limit });
        }
        let value = usize::try_from(value).map_err(|_| FramesError::Cut)?;
        if self.length < FRAME_HEAD_BYTES.saturating_add(key).saturating_add(value) {
            return Ok(None);
        }
        drop(self.take(FRAME_HEAD_BYTES));
        let (key, value) = (self.take(key), self.take(value));
        parsed(kind, &key, value).map(Some)
    }

    /// So many bytes, which are here.
    fn take(&mut self, length: usize) -> Bytes {
        self.length -= length;
        let mut taken = Vec::new();
        loop {
            let missing = length - taken.len();
            let Some(part) = self.parts.front_mut().filter(|_| missing > 0) else { break };
            let piece = part.split_to(part.len().min(missing));
            if part.is_empty() {
                self.parts.pop_front();
            }
            if piece.len() == length {
                return piece;
            }
            if taken.is_empty() {
                taken.reserve_exact(length);
            }
            taken.extend_from_slice(&piece);
        }
        taken.into()
    }
}

fn parsed(kind: u8, key: &[u8], value: Bytes) -> Result<Frame, FramesError> {
    Ok(match kind {
        ENTRY => Frame::Entry { key: Key::new(key)?, value },
        CONFLICT => Frame::Conflict { key: Key::new(key)?, value },
        LOST => Frame::Lost { key: Key::new(key)? },
        PART => Frame::Part { bytes: value },
        HEAD => Frame::Head(serde_json::from_slice(&value)?),
        END => Frame::End,
        PROBLEM => Frame::Problem(serde_json::from_slice(&value)?),
        other => return Err(FramesError::Kind(other)),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn frame() -> impl Strategy<Value = Frame> {
        let key = || prop::collection::vec(any::<u8>(), 1..40).prop_map(|k| Key::new(k).unwrap());
        let value = || prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
        prop_oneof![
            (key(), value()).prop_map(|(key, value)| Frame::Entry { key, value }),
            (key(), value()).prop_map(|(key, value)| Frame::Conflict { key, value }),
            key().prop_map(|key| Frame::Lost { key }),
            value().prop_map(|bytes| Frame::Part { bytes }),
            Just(Frame::End),
        ]
    }

    proptest! {
        #[test]
        fn frames_come_back_however_the_stream_is_cut(
            frames in prop::collection::vec(frame(), 0..8),
            pieces in prop::collection::vec(1_usize..50, 1..20),
        ) {
            let mut bytes = Vec::new();
            for frame in &frames {
                frame.clone().write(&mut bytes).unwrap();
            }
            let (mut reader, mut found, mut rest) = (Frames::new(200), Vec::new(), &bytes[..]);
            for piece in pieces.iter().cycle() {
                let (now, later) = rest.split_at(rest.len().min(*piece));
                reader.push(now.to_vec().into());
                while let Some(frame) = reader.next_frame().unwrap() {
                    found.push(frame);
                }
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert!(reader.is_empty());
            prop_assert_eq!(found, frames);
        }

        #[test]
        fn no_bytes_make_it_fall(bytes in any::<Vec<u8>>()) {
            let mut reader = Frames::new(1 << 30);
            reader.push(bytes.into());
            while let Ok(Some(_)) = reader.next_frame() {}
        }
    }

    #[test]
    fn a_length_that_lies_costs_nothing() {
        let mut reader = Frames::new(100);
        reader.push(vec![ENTRY, 1, 0, 0xff, 0xff, 0xff, 0xff].into());
        assert!(matches!(reader.next_frame(), Err(FramesError::Size { limit: 100, .. })));
        let mut reader = Frames::new(100);
        reader.push(vec![99, 0, 0, 0, 0, 0, 0].into());
        assert!(matches!(reader.next_frame(), Err(FramesError::Kind(99))));
    }

    #[test]
    fn an_entry_that_cannot_be_read_leaves_no_trace() {
        let (mut bytes, key) = (vec![7], Key::new("key").unwrap());
        let refused = write_entry::<FramesError>(&mut bytes, &key, |bytes| {
            bytes.extend_from_slice(b"half");
            Ok(false)
        });
        assert!(!refused.unwrap());
        assert_eq!(bytes, [7]);
        assert!(
            write_entry::<FramesError>(&mut bytes, &key, |bytes| {
                bytes.extend_from_slice(b"all");
                Ok(true)
            })
            .unwrap()
        );
        let mut reader = Frames::new(3);
        reader.push(bytes[1..].to_vec().into());
        let all = Frame::Entry { key, value: b"all"[..].into() };
        assert_eq!(reader.next_frame().unwrap(), Some(all));
    }
}
