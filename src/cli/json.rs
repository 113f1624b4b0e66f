//! The JSON that verbs print; digests and dump lines are stable interfaces.

use serde::Serialize;
use serde_json::{Value, json};

use crate::clock::Stamp;
use crate::entry::Sibling;
use crate::merkle::Digest;
use crate::replica::Entry;
use crate::types::{Key, Policy};

/// A key: as text where it is text, else in hex.
#[derive(Serialize)]
pub(super) struct KeyJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_hex: Option<String>,
}

impl From<&Key> for KeyJson {
    fn from(key: &Key) -> Self {
        match std::str::from_utf8(key.as_bytes()) {
            Ok(text) => Self { key: Some(text.to_owned()), key_hex: None },
            Err(_) => Self { key: None, key_hex: Some(hex::encode(key.as_bytes())) },
        }
    }
}

/// A sibling as a dump has it.
#[derive(Serialize)]
pub(super) struct SiblingJson {
    writer: String,
    counter: u64,
    stamp: String,
    size: u64,
    value_hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
}

impl SiblingJson {
    pub(super) fn new(sibling: &Sibling, value: Option<&[u8]>) -> Self {
        Self {
            writer: format!("{:016x}", sibling.dot.writer().get()),
            counter: sibling.dot.counter(),
            stamp: sibling.stamp.to_string(),
            size: sibling.size,
            value_hash: sibling.value_hash.to_string(),
            value_hex: value.map(hex::encode),
        }
    }
}

impl From<&Sibling> for SiblingJson {
    fn from(sibling: &Sibling) -> Self {
        Self::new(sibling, None)
    }
}

/// One line of a dump.
#[derive(Serialize)]
pub(super) struct DumpLine {
    pub(super) key_hex: String,
    pub(super) siblings: Vec<SiblingJson>,
}

impl From<&Entry> for DumpLine {
    fn from(entry: &Entry) -> Self {
        let siblings = entry.record.siblings().iter().map(SiblingJson::from).collect();
        Self { key_hex: hex::encode(entry.key.as_bytes()), siblings }
    }
}

/// A digest.
#[derive(Serialize)]
pub(super) struct DigestJson {
    collection: String,
    hash_algorithm: String,
    policy: Value,
    root: String,
    tree_hash: String,
    entries: u64,
    siblings: u64,
    bytes: u64,
    latest_stamp: String,
    clock: String,
    buckets: Vec<String>,
}

impl DigestJson {
    pub(super) fn new(digest: &Digest, clock: Stamp) -> Self {
        let envelope = digest.envelope();
        let totals = envelope.totals();
        Self {
            collection: envelope.name().to_string(),
            hash_algorithm: envelope.algorithm().to_string(),
            policy: policy(envelope.policy()),
            root: envelope.root().to_string(),
            tree_hash: envelope.tree_hash().to_string(),
            entries: totals.entries,
            siblings: totals.siblings,
            bytes: totals.bytes,
            latest_stamp: totals.latest.to_string(),
            clock: clock.to_string(),
            buckets: digest.buckets().iter().map(ToString::to_string).collect(),
        }
    }
}

/// A policy.
pub(super) fn policy(policy: &Policy) -> Value {
    match policy {
        Policy::Custom { resolver, version } => {
            json!({"resolver": resolver.as_str(), "version": version})
        }
        named => json!(named.to_string()),
    }
}
