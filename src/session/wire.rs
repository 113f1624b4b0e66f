//! The one place that knows the wire codec: bincode 2, standard configuration, with a limit.
//!
//! ```
//! use selfsame::session::AbortCode;
//! use selfsame::session::message::{FreeMessage, Message};
//! use selfsame::session::wire::{decode, decode_all, encode};
//!
//! let message = Message::Free(FreeMessage::Abort(AbortCode::Busy { retry_after_ms: 500 }));
//! let mut frame = encode(&message)?;
//! assert_eq!(decode::<Message>(&frame)?, message);
//! frame.push(0);
//! assert!(decode::<Message>(&frame).is_err()); // nothing may follow
//!
//! // a frame of the control lane may hold several
//! let frame = [encode(&message)?, encode(&message)?].concat();
//! assert_eq!(decode_all::<Message>(&frame)?, [message.clone(), message]);
//! # Ok::<(), selfsame::session::wire::WireError>(())
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest frame that is ever encoded or decoded.
pub const MAX_FRAME_BYTES: usize = 1 << 20;

/// Bytes that are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// Not a message of this kind.
    #[error("not a message: {0}")]
    Malformed(String),
    /// A message and then something.
    #[error("{0} bytes follow the message")]
    Trailing(usize),
    /// Too large.
    #[error("a message of {0} bytes is larger than a frame")]
    TooLarge(usize),
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX_FRAME_BYTES>()
}

/// Decodes a message; allocation is bounded by the frame limit.
///
/// # Errors
/// Bytes that are no such message, or more than it.
pub fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, WireError> {
    let (message, used) = decode_first(frame)?;
    match frame.len() - used {
        0 => Ok(message),
        left => Err(WireError::Trailing(left)),
    }
}

/// Decodes the first of several messages, and says how many bytes it has.
///
/// # Errors
/// The bytes do not begin with such a message.
pub fn decode_first<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), WireError> {
    if bytes.len() > MAX_FRAME_BYTES {
        return Err(WireError::TooLarge(bytes.len()));
    }
    bincode::serde::decode_from_slice(bytes, config())
        .map_err(|error| WireError::Malformed(error.to_string()))
}

/// Decodes all messages of a frame: one at least.
///
/// # Errors
/// The bytes are not just such messages.
pub fn decode_all<T: DeserializeOwned>(frame: &[u8]) -> Result<Vec<T>, WireError> {
    let (first, mut used) = decode_first(frame)?;
    let mut messages = vec![first];
    while used < frame.len() {
        let (message, more) = decode_first(&frame[used..])?;
        if more == 0 {
            return Err(WireError::Trailing(frame.len() - used));
        }
        messages.push(message);
        used += more;
    }
    Ok(messages)
}

/// Encodes a message.
///
/// # Errors
/// It would be larger than a frame.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, WireError> {
    let bytes = bincode::serde::encode_to_vec(message, config())
        .map_err(|error| WireError::Malformed(error.to_string()))?;
    if bytes.len() > MAX_FRAME_BYTES {
        return Err(WireError::TooLarge(bytes.len()));
    }
    Ok(bytes)
}
