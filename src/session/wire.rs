//! The one place that knows the wire codec: bincode 2, standard configuration, with a limit.
//!
//! ```
//! use selfsame::session::AbortCode;
//! use selfsame::session::message::{FreeMessage, Message};
//! use selfsame::session::wire::{decode, encode};
//!
//! let message = Message::Free(FreeMessage::Abort(AbortCode::Busy { retry_after_ms: 500 }));
//! let mut frame = encode(&message)?;
//! assert_eq!(decode::<Message>(&frame)?, message);
//! frame.push(0);
//! assert!(decode::<Message>(&frame).is_err()); // nothing may follow
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
    if frame.len() > MAX_FRAME_BYTES {
        return Err(WireError::TooLarge(frame.len()));
    }
    let (message, used) = bincode::serde::decode_from_slice(frame, config())
        .map_err(|error| WireError::Malformed(error.to_string()))?;
    match frame.len() - used {
        0 => Ok(message),
        left => Err(WireError::Trailing(left)),
    }
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
