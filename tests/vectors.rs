//! The published test vectors (`vectors/tree.json`), byte for byte: every section, every case,
//! what must be accepted and what must be refused.

#![cfg(feature = "tree")]
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "vectors/certificates.rs"]
mod certificates;
#[path = "vectors/json.rs"]
mod json;
#[path = "vectors/logs.rs"]
mod logs;
#[path = "support/model_tree.rs"]
mod model_tree;
#[path = "vectors/proofs.rs"]
mod proofs;
#[path = "vectors/trees.rs"]
mod trees;
#[path = "vectors/words.rs"]
mod words;

use std::collections::BTreeSet;

use json::VECTORS;

#[test]
fn every_section_has_a_test() {
    let tested: BTreeSet<&str> = [
        certificates::SECTIONS,
        logs::SECTIONS,
        proofs::SECTIONS,
        trees::SECTIONS,
        words::SECTIONS,
        &["format", "hash_ids", "policy_ids"],
    ]
    .concat()
    .into_iter()
    .collect();
    let published: BTreeSet<&str> =
        VECTORS.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(tested, published);
}
