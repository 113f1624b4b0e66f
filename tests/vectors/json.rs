//! Reading of the vectors' JSON.

use std::sync::LazyLock;

use selfsame::clock::Stamp;
use selfsame::dots::{Causality, Dot, DotSet, Writer};
use selfsame::entry::{Record, Sibling, Totals};
use selfsame::hash::{HashAlgorithm, KeyHash, RecordDigest, TreeHash, ValueHash};
use selfsame::merkle::Claim;
use selfsame::types::{CollectionName, Key, Policy};
use serde_json::Value;

pub(crate) static VECTORS: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("tree.json")).unwrap());

/// The cases of a section: never none, lest a misspelt name pass.
pub(crate) fn cases(section: &str) -> &'static [Value] {
    let cases = VECTORS[section].as_array().unwrap();
    assert!(!cases.is_empty(), "section {section} is empty");
    cases
}

pub(crate) fn list<'a>(case: &'a Value, field: &str) -> &'a [Value] {
    case[field].as_array().unwrap_or_else(|| panic!("{field} of {case}"))
}

pub(crate) fn text<'a>(case: &'a Value, field: &str) -> &'a str {
    case[field].as_str().unwrap_or_else(|| panic!("{field} of {case}"))
}

pub(crate) fn number(case: &Value, field: &str) -> u64 {
    match &case[field] {
        Value::String(text) => text.parse().unwrap(),
        value => value.as_u64().unwrap_or_else(|| panic!("{field} of {case}")),
    }
}

pub(crate) fn bytes(case: &Value, field: &str) -> Vec<u8> {
    hex::decode(text(case, field)).unwrap()
}

pub(crate) fn array(case: &Value, field: &str) -> [u8; 32] {
    bytes(case, field).try_into().unwrap()
}

pub(crate) fn algorithm(case: &Value) -> HashAlgorithm {
    text(case, "hash").parse().unwrap()
}

pub(crate) fn name(case: &Value) -> CollectionName {
    CollectionName::new(text(case, "collection")).unwrap()
}

pub(crate) fn policy(case: &Value) -> Policy {
    match number(case, "policy_id") {
        1 => Policy::Lww,
        2 => Policy::Siblings,
        3 => Policy::Custom {
            resolver: CollectionName::new(text(&case["resolver"], "name")).unwrap(),
            version: number(&case["resolver"], "version").try_into().unwrap(),
        },
        other => panic!("policy {other}"),
    }
}

pub(crate) fn totals(totals: &Value) -> Totals {
    Totals {
        entries: number(totals, "entries"),
        siblings: number(totals, "siblings"),
        bytes: number(totals, "bytes"),
        latest: Stamp(number(totals, "latest_stamp")),
    }
}

pub(crate) fn tree_hash(case: &Value) -> TreeHash {
    TreeHash(array(case, "tree_hash"))
}

pub(crate) fn hash_at(pair: &Value, at: usize) -> Option<[u8; 32]> {
    Some(hex::decode(pair[at].as_str()?).unwrap().try_into().unwrap())
}

/// Pairs of key hash and record digest.
pub(crate) fn pairs(list: &[Value]) -> Vec<(KeyHash, RecordDigest)> {
    let pair = |pair| (KeyHash(hash_at(pair, 0).unwrap()), RecordDigest(hash_at(pair, 1).unwrap()));
    list.iter().map(pair).collect()
}

/// Pairs of key hash and record digest or null.
pub(crate) fn claims(list: &[Value]) -> Vec<Claim> {
    let claim = |pair| Claim {
        key: KeyHash(hash_at(pair, 0).unwrap()),
        record: hash_at(pair, 1).map(RecordDigest),
    };
    list.iter().map(claim).collect()
}

/// The claim of a single proof: `kh`, and `rd` or null.
pub(crate) fn claim(case: &Value) -> Claim {
    let record = case["rd"].as_str().map(|_| RecordDigest(array(case, "rd")));
    Claim { key: KeyHash(array(case, "kh")), record }
}

pub(crate) fn key(case: &Value) -> Key {
    Key::new(bytes(case, "key_hex")).unwrap()
}

fn writer(text: &str) -> u64 {
    assert_eq!(text.len(), 16);
    u64::from_str_radix(text, 16).unwrap()
}

fn dot(pair: &Value) -> Dot {
    Dot::new(writer(pair[0].as_str().unwrap()), pair[1].as_u64().unwrap()).unwrap()
}

pub(crate) fn dots(case: &Value, field: &str) -> DotSet {
    list(case, field).iter().map(dot).collect()
}

pub(crate) fn context(case: &Value) -> Vec<(Writer, u64)> {
    list(case, "context").iter().map(dot).map(|dot| (dot.writer(), dot.counter())).collect()
}

/// Context and exceptions of a case, with the dots held.
pub(crate) fn causality(case: &Value, held: &DotSet) -> Causality {
    Causality::new(context(case), dots(case, "exceptions"), held)
}

/// The record of an entry in the shape of the dump, checked against all that it says of itself.
pub(crate) fn record(algorithm: HashAlgorithm, entry: &Value) -> Record {
    let sibling = |sibling: &Value| {
        let value_hash = ValueHash(array(sibling, "value_hash"));
        if sibling["value_hex"].is_string() {
            let value = bytes(sibling, "value_hex");
            assert_eq!(algorithm.value_hash(&value), value_hash);
            assert_eq!(value.len() as u64, number(sibling, "size"));
        }
        Sibling {
            dot: Dot::new(writer(text(sibling, "writer")), number(sibling, "counter")).unwrap(),
            stamp: Stamp(number(sibling, "stamp")),
            size: number(sibling, "size"),
            value_hash,
        }
    };
    let record = Record::new(list(entry, "siblings").iter().map(sibling).collect()).unwrap();
    let (key, digest) = (algorithm.key_hash(&key(entry)), record.digest(algorithm));
    assert_eq!(key.0, array(entry, "kh"));
    assert_eq!(digest.0, array(entry, "rd"));
    if entry["record"].is_string() {
        assert_eq!(record.to_bytes(), bytes(entry, "record"));
        assert_eq!(Record::parse(&record.to_bytes()).unwrap(), record);
    }
    if entry["leaf"].is_string() {
        assert_eq!(algorithm.leaf(&key, &digest).0, array(entry, "leaf"));
    }
    record
}
