//! JSON as resolvers see it: strict, bounded, with one canonical form, and numbers in their own
//! digits, so that no reading or writing of a number can differ between two programs.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Candidate, ResolveError};

/// Most bytes of JSON in all versions of a key together: reading them takes about thirty times
/// that in memory at worst.
pub const MAX_JSON_BYTES: usize = 1 << 20;
/// Most objects and arrays within each other.
pub const MAX_JSON_DEPTH: usize = 64;

/// A JSON value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Json {
    /// `null`, `true`, `false`, or a number: as it was written.
    Plain(Box<str>),
    Text(String),
    Array(Vec<Self>),
    Object(BTreeMap<String, Self>),
}

impl Json {
    /// The canonical form.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        bytes
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Plain(text) => bytes.extend_from_slice(text.as_bytes()),
            Self::Text(text) => write_text(text, bytes),
            Self::Array(items) => {
                bytes.push(b'[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        bytes.push(b',');
                    }
                    item.write(bytes);
                }
                bytes.push(b']');
            }
            Self::Object(fields) => {
                bytes.push(b'{');
                for (at, (name, value)) in fields.iter().enumerate() {
                    if at > 0 {
                        bytes.push(b',');
                    }
                    write_text(name, bytes);
                    bytes.push(b':');
                    value.write(bytes);
                }
                bytes.push(b'}');
            }
        }
    }
}

fn write_text(text: &str, bytes: &mut Vec<u8>) {
    bytes.push(b'"');
    for c in text.chars() {
        match c {
            '"' => bytes.extend_from_slice(b"\\\""),
            '\\' => bytes.extend_from_slice(b"\\\\"),
            '\n' => bytes.extend_from_slice(b"\\n"),
            '\r' => bytes.extend_from_slice(b"\\r"),
            '\t' => bytes.extend_from_slice(b"\\t"),
            '\0'..='\x1f' => bytes.extend_from_slice(format!("\\u{:04x}", c as u32).as_bytes()),
            c => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes.push(b'"');
}

/// Refuses more than resolvers read.
pub(super) fn check_size(versions: &[Candidate<'_>]) -> Result<(), ResolveError> {
    let size: usize = versions.iter().map(|version| version.value.len()).sum();
    if size > MAX_JSON_BYTES {
        return Err(ResolveError::TooLarge { size: size as u64, limit: MAX_JSON_BYTES as u64 });
    }
    Ok(())
}

/// A version is not of the kind that is merged.
pub(super) fn not_a(kind: &str, version: &Candidate<'_>) -> ResolveError {
    ResolveError::NotMergeable(format!("version {} is no {kind}", version.dot))
}

/// Reads a value strictly.
pub(super) fn parse(bytes: &[u8]) -> Result<Json, ResolveError> {
    let raw: &RawValue = serde_json::from_slice(bytes).map_err(not_json)?;
    of_raw(raw.get(), MAX_JSON_DEPTH)
}

fn not_json(error: serde_json::Error) -> ResolveError {
    ResolveError::NotMergeable(format!("a version is no JSON ({error})"))
}

/// Each level reads its part of the text once more: O(depth * bytes).
fn of_raw(text: &str, depth: usize) -> Result<Json, ResolveError> {
    let below = || {
        depth.checked_sub(1).ok_or_else(|| {
            ResolveError::NotMergeable(format!("a version nests deeper than {MAX_JSON_DEPTH}"))
        })
    };
    let text = text.trim_matches([' ', '\t', '\r', '\n']);
    match text.as_bytes().first() {
        Some(b'{') => {
            let (below, pairs) = (below()?, serde_json::from_str::<Pairs<'_>>(text));
            let mut fields = BTreeMap::new();
            for (name, value) in pairs.map_err(not_json)?.0 {
                let value = of_raw(value.get(), below)?;
                if let Some(_twice) = fields.insert(name, value) {
                    let why = "a version names a field of an object twice".into();
                    return Err(ResolveError::NotMergeable(why));
                }
            }
            Ok(Json::Object(fields))
        }
        Some(b'[') => {
            let (below, items) = (below()?, serde_json::from_str::<Vec<&RawValue>>(text));
            let items = items.map_err(not_json)?;
            items
                .into_iter()
                .map(|item| of_raw(item.get(), below))
                .collect::<Result<_, _>>()
                .map(Json::Array)
        }
        Some(b'"') => serde_json::from_str(text).map(Json::Text).map_err(not_json),
        _ => Ok(Json::Plain(text.into())),
    }
}

/// The fields of an object, as they come.
struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Pairs<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry::<String, &'de RawValue>()? {
            pairs.push(pair);
        }
        Ok(Pairs(pairs))
    }
}
