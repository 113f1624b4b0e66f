//! Proofs of single keys, of many keys, of subtrees.

use selfsame::codec::CodecError;
use selfsame::hash::{HashAlgorithm, TreeHash};
use selfsame::merkle::{
    MultiProof, MultiProofError, Prefix, Proof, ProofError, ProofKind, Shape, SubtreeError,
    SubtreeProof,
};
use serde_json::Value;

use crate::json::{
    algorithm, bytes, cases, claim, claims, key, list, number, pairs, text, tree_hash,
};
use crate::model_tree::ModelTree;

pub(crate) const SECTIONS: &[&str] =
    &["multiproofs", "subtree_proofs", "dishonest_trees", "dishonest_multiproofs"];

/// Proofs must come out byte for byte, and hold.
pub(crate) fn check_proofs(tree: &ModelTree, proofs: &[Value]) {
    for case in proofs {
        let claim = claim(case);
        if case["key_hex"].is_string() {
            assert_eq!(tree.algorithm().key_hash(&key(case)), claim.key);
        }
        let proof = Proof::prove(tree, &claim.key).unwrap();
        assert_eq!(hex::encode(proof.to_bytes()), text(case, "proof"));
        assert_eq!(Proof::parse(&bytes(case, "proof")).unwrap(), proof);
        assert_eq!(kind_number(proof.kind()), number(case, "kind"));
        proof.verify(tree.algorithm(), &tree.tree_hash(), &claim).unwrap();

        // a single proof is a subtree proof with a prefix of 256 bits
        let proof = SubtreeProof::parse(&bytes(case, "proof")).unwrap();
        let entries: Vec<_> = claim.record.map(|record| (claim.key, record)).into_iter().collect();
        let prefix = Prefix::of(&claim.key, 256);
        proof.verify(tree.algorithm(), &tree.tree_hash(), &prefix, &entries).unwrap();
        assert_eq!(SubtreeProof::prove(tree, &prefix).unwrap(), proof);
    }
}

/// Each must be refused, and for its first fault.
pub(crate) fn check_proofs_refused(
    algorithm: HashAlgorithm,
    tree_hash: &TreeHash,
    refused: &[Value],
) {
    for case in refused {
        let proof = Proof::parse(&bytes(case, "proof"));
        let error = proof.and_then(|proof| proof.verify(algorithm, tree_hash, &claim(case)));
        let error = error.expect_err(text(case, "what"));
        assert_eq!(reason(&error), text(case, "reason"), "{}", text(case, "what"));
    }
}

fn kind_number(kind: ProofKind) -> u64 {
    match kind {
        ProofKind::Present => 0,
        ProofKind::OtherLeaf => 1,
        ProofKind::EmptyTree => 2,
    }
}

fn codec_reason(error: &CodecError) -> &'static str {
    match error {
        CodecError::Truncated => "truncated",
        CodecError::Trailing(_) => "trailing_bytes",
        other => panic!("{other}"),
    }
}

fn reason(error: &ProofError) -> &'static str {
    match error {
        ProofError::Codec(error) => codec_reason(error),
        ProofError::UnknownKind(_) => "unknown_kind",
        ProofError::BitmapTooLong(_) => "bitmap_too_long",
        ProofError::BitmapNotMinimal => "bitmap_not_minimal",
        ProofError::PathLength { .. } => "popcount_mismatch",
        ProofError::EmptyTreeWithPath => "empty_tree_with_path",
        ProofError::WrongKind => "wrong_kind",
        ProofError::SameKey => "same_key",
        ProofError::OffPath => "off_path",
        ProofError::TreeHashMismatch => "tree_hash_mismatch",
        other => panic!("{other}"),
    }
}

fn multi_reason(error: &MultiProofError) -> &'static str {
    match error {
        MultiProofError::Codec(error) => codec_reason(error),
        MultiProofError::EmptyTree(error) => reason(error),
        MultiProofError::ClaimsOrder => "claims_order",
        MultiProofError::ShapeTooShort => "shape_too_short",
        MultiProofError::ShapeTooLong(_) | MultiProofError::Padding => "shape_too_long",
        MultiProofError::DepthOrder { .. } => "depth_order",
        MultiProofError::WrongKind => "wrong_kind",
        MultiProofError::SameKey => "same_key",
        MultiProofError::OffPath => "off_path",
        MultiProofError::TreeHashMismatch => "tree_hash_mismatch",
        other => panic!("{other}"),
    }
}

fn subtree_reason(error: &SubtreeError) -> &'static str {
    match error {
        SubtreeError::Proof(error) => reason(error),
        SubtreeError::EntriesOrder => "entries_order",
        SubtreeError::OutsidePrefix(_) => "outside_prefix",
        SubtreeError::PathBelowPrefix(_) => "path_below_prefix",
        other => panic!("{other}"),
    }
}

/// The tree of the case that another section names.
fn tree_named(case: &Value) -> ModelTree {
    let wanted = text(case, "case");
    let collection = cases("collections").iter().find(|case| text(case, "name") == wanted);
    let leaves = match collection {
        Some(collection) => list(collection, "entries")
            .iter()
            .map(claim)
            .map(|claim| (claim.key, claim.record.unwrap()))
            .collect(),
        None => {
            let case = cases("pairs").iter().find(|case| text(case, "name") == wanted).unwrap();
            pairs(list(case, "leaves")).into_iter().collect()
        }
    };
    let tree = ModelTree::new(algorithm(case), &leaves);
    assert_eq!(tree.tree_hash(), tree_hash(case));
    tree
}

#[test]
fn multiproofs() {
    for case in cases("multiproofs") {
        let tree = tree_named(case);
        let (honest, algorithm) = (claims(list(case, "claims")), algorithm(case));
        let keys = honest.iter().rev().map(|claim| claim.key);
        let (found, proof) = MultiProof::prove(&tree, keys).unwrap();
        assert_eq!(found, honest);
        assert_eq!(proof.to_bytes(), bytes(case, "proof"), "{}", text(case, "case"));
        assert_eq!(MultiProof::parse(&bytes(case, "proof")).unwrap(), proof);
        proof.verify(algorithm, &tree_hash(case), &honest).unwrap();

        for refused in list(case, "refused") {
            let claims = refused["claims"].as_array().map_or(honest.clone(), |list| claims(list));
            let from = if refused["proof"].is_string() { refused } else { case };
            let error = MultiProof::parse(&bytes(from, "proof"))
                .and_then(|proof| proof.verify(algorithm, &tree_hash(case), &claims))
                .expect_err(text(refused, "what"));
            assert_eq!(multi_reason(&error), text(refused, "reason"), "{refused}");
        }
    }
}

#[test]
fn subtree_proofs() {
    for case in cases("subtree_proofs") {
        let (tree, algorithm) = (tree_named(case), algorithm(case));
        let bits = number(case, "prefix_bits").try_into().unwrap();
        let prefix = Prefix::new(&bytes(case, "prefix"), bits).unwrap();
        let honest = pairs(list(case, "entries"));
        let proof = SubtreeProof::prove(&tree, &prefix).unwrap();
        assert_eq!(proof.to_bytes(), bytes(case, "proof"), "{}", text(case, "case"));
        assert_eq!(kind_number(proof.kind()), number(case, "kind"));
        let verify = |bytes: &[u8], entries: &[_]| {
            SubtreeProof::parse(bytes)?.verify(algorithm, &tree_hash(case), &prefix, entries)
        };
        verify(&bytes(case, "proof"), &honest).unwrap();
        for other in list(case, "also_valid") {
            verify(&hex::decode(other.as_str().unwrap()).unwrap(), &honest).unwrap();
        }
        for refused in list(case, "refused") {
            let entries = refused["entries"].as_array().map_or(honest.clone(), |list| pairs(list));
            let from = if refused["proof"].is_string() { refused } else { case };
            let error = verify(&bytes(from, "proof"), &entries).expect_err(text(refused, "what"));
            assert_eq!(subtree_reason(&error), text(refused, "reason"), "{refused}");
        }
    }
}

#[test]
fn dishonest_trees() {
    for case in cases("dishonest_trees") {
        check_proofs_refused(algorithm(case), &tree_hash(case), std::slice::from_ref(case));
    }
}

#[test]
fn dishonest_multiproofs() {
    for case in cases("dishonest_multiproofs") {
        let error = MultiProof::parse(&bytes(case, "proof"))
            .and_then(|proof| {
                proof.verify(algorithm(case), &tree_hash(case), &claims(list(case, "claims")))
            })
            .expect_err(text(case, "what"));
        // a proof of no node at all is refused before it is held against no claims
        if !list(case, "claims").is_empty() {
            assert_eq!(multi_reason(&error), text(case, "reason"));
        }
    }
}
