//! Keys in conflict, as they travel.

use serde::{Deserialize, Serialize};

use super::{KeyText, SiblingText};
use crate::api::error::ApiError;
use crate::dots::Dot;

/// Characters of a preview.
const PREVIEW_CHARS: usize = 60;

/// Which versions of a key were read: whoever names it changes these and no others.
///
/// A hash of 16 bytes over their dots, 32 hex digits.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReadToken(String);

impl ReadToken {
    /// That of these dots, in any order.
    #[must_use]
    pub fn of(dots: impl IntoIterator<Item = Dot>) -> Self {
        let mut dots: Vec<Dot> = dots.into_iter().collect();
        dots.sort_unstable();
        let mut hasher = blake3::Hasher::new_derive_key("selfsame v1 read token");
        for dot in dots {
            hasher.update(&dot.writer().get().to_le_bytes());
            hasher.update(&dot.counter().to_le_bytes());
        }
        Self(hex::encode(&hasher.finalize().as_bytes()[..16]))
    }

    /// From what a client gives back.
    ///
    /// # Errors
    /// It is no 32 hex digits.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let sound = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        if sound { Ok(Self(text.to_ascii_lowercase())) } else { Err(ApiError::NoReadToken) }
    }

    /// Its digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A key in conflict: a line of the answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConflictText {
    /// The key.
    #[serde(flatten)]
    pub key: KeyText,
    /// Where a later listing goes on behind this key.
    pub cursor: String,
    /// Which versions these are: to be named when they are resolved.
    pub read: ReadToken,
    /// All versions held, the latest first.
    pub siblings: Vec<ConflictSibling>,
    /// What the collection's resolver makes of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged: Option<MergedText>,
}

/// A version in conflict.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConflictSibling {
    /// The version.
    #[serde(flatten)]
    pub sibling: SiblingText,
    /// When it was written, by its writer's clock, in milliseconds since 1970.
    pub written_ms: u64,
    /// Whether the policy shows it.
    pub shown: bool,
    /// Whether this node wrote it, since it was opened. Of older ones nothing is known: a writer
    /// is a random number.
    pub written_here: bool,
    /// The peer whose session brought it, if that is still in the reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub came_from: Option<String>,
    /// The beginning of the value, if it is printable text and was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<String>,
}

/// What a resolver makes of several versions: a value, or why it makes none.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct MergedText {
    /// Bytes of the merged value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The merged value, if it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The merged value in hex, if it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_hex: Option<String>,
    /// Why nothing is merged; then all versions are shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl MergedText {
    /// Of what a reading says.
    pub fn new<V, E>(merged: &Result<V, E>) -> Self
    where
        V: AsRef<[u8]>,
        E: ToString,
    {
        let bytes = match merged {
            Ok(value) => value.as_ref(),
            Err(error) => return Self { error: Some(error.to_string()), ..Self::default() },
        };
        let size = Some(bytes.len() as u64);
        match std::str::from_utf8(bytes) {
            Ok(text) => Self { size, value: Some(text.to_owned()), ..Self::default() },
            Err(_) => Self { size, value_hex: Some(hex::encode(bytes)), ..Self::default() },
        }
    }
}

/// The beginning of a value, if it is printable text.
#[must_use]
pub fn preview(value: &[u8]) -> Option<String> {
    let text = match std::str::from_utf8(value.get(..4 * PREVIEW_CHARS).unwrap_or(value)) {
        Ok(text) => text,
        // a character may be cut at the end of what is looked at
        Err(error) if error.error_len().is_none() && value.len() > 4 * PREVIEW_CHARS => {
            std::str::from_utf8(&value[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    if text.chars().any(char::is_control) {
        return None;
    }
    let mut short: String = text.chars().take(PREVIEW_CHARS).collect();
    if short.len() < value.len() {
        short.push('…');
    }
    Some(short)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_preview_is_printable_and_short() {
        assert_eq!(preview(b"level 3").as_deref(), Some("level 3"));
        assert_eq!(preview(b"two\nlines"), None);
        assert_eq!(preview(b"\xff\xfe"), None);
        let long = "ä".repeat(300);
        assert_eq!(preview(long.as_bytes()).unwrap().chars().count(), PREVIEW_CHARS + 1);
        let cut = format!("a{}", "€".repeat(300));
        assert_eq!(preview(cut.as_bytes()).unwrap().chars().count(), PREVIEW_CHARS + 1);
    }

    #[test]
    fn a_token_is_of_a_set_of_dots() {
        let dots = [1, 2, 3].map(|counter| Dot::new(7, counter).unwrap());
        let token = ReadToken::of(dots);
        assert_eq!(ReadToken::of([dots[2], dots[0], dots[1]]), token);
        assert_ne!(ReadToken::of([dots[0], dots[1]]), token);
        assert_eq!(ReadToken::parse(&token.as_str().to_uppercase()).unwrap(), token);
        assert!(ReadToken::parse("12").is_err() && ReadToken::parse(&"g".repeat(32)).is_err());
    }
}
