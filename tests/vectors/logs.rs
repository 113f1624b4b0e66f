//! Merkle logs and their heads.

use selfsame::hash::{HashAlgorithm, LogHash, LogHead};
use selfsame::merkle::log::first_item;
use selfsame::merkle::{
    ConsistencyProof, InclusionProof, LogHeadFields, LogId, LogIdentity, LogKind, MerkleLog,
    Perfect,
};
use selfsame::types::CollectionName;
use serde_json::Value;

use crate::json::{algorithm, array, bytes, cases, list, number, text};

pub(crate) const SECTIONS: &[&str] = &["logs"];

fn items(case: &Value) -> Vec<Vec<u8>> {
    let items = list(case, "items").iter();
    items.map(|item| hex::decode(item.as_str().unwrap()).unwrap()).collect()
}

fn log_hashes(case: &Value, field: &str) -> Vec<LogHash> {
    list(case, field).iter().map(|hash| hash.as_str().unwrap().parse().unwrap()).collect()
}

/// Every head over the first `size` items must come out byte for byte.
pub(crate) fn check_heads(algorithm: HashAlgorithm, items: &[Vec<u8>], heads: &[Value]) {
    for case in heads {
        let size = usize::try_from(number(case, "size")).unwrap();
        let mut log = MerkleLog::new(algorithm);
        for item in &items[..size] {
            log.append(item);
        }
        let identity = LogIdentity {
            algorithm,
            kind: LogKind::from_id(number(case, "kind").try_into().unwrap()).unwrap(),
            id: LogId(u64::from_str_radix(text(case, "id"), 16).unwrap()),
            name: CollectionName::new(text(case, "name")).unwrap(),
        };
        let fields = identity.at(&log);
        assert_eq!(fields.root().0, array(case, "log_root"));
        assert_eq!(fields.to_bytes(), bytes(case, "bytes"));
        assert_eq!(fields.head().0, array(case, "head"));
        assert_eq!(LogHeadFields::parse(&bytes(case, "bytes")).unwrap(), fields);
    }
}

#[test]
fn logs() {
    for case in cases("logs") {
        let (algorithm, items) = (algorithm(case), items(case));
        let (leaves, roots) = (log_hashes(case, "leaves"), log_hashes(case, "roots"));
        let mut log = MerkleLog::new(algorithm);
        assert_eq!(log.root(), roots[0]);
        for (at, item) in items.iter().enumerate() {
            // as after a restart, with nothing but what is stored
            log = MerkleLog::resume(algorithm, log.size(), log.peaks().to_vec()).unwrap();
            assert_eq!(log.append(item), leaves[at]);
            assert_eq!(log.root(), roots[at + 1]);
        }
        assert_eq!(items[0], first_item(None));
        check_heads(algorithm, &items, list(case, "heads"));
        let next = self::items(&case["next"]);
        assert_eq!(next[0], first_item(Some(LogHead(array(&list(case, "heads")[1], "head")))));
        check_heads(algorithm, &next, list(&case["next"], "heads"));

        check_inclusion(algorithm, &leaves, &roots, case);
        check_consistency(algorithm, &leaves, &roots, case);
        for refused in list(case, "encoded_refused") {
            let encoded = bytes(refused, "encoded");
            InclusionProof::parse(&encoded).expect_err(text(refused, "what"));
            ConsistencyProof::parse(&encoded).expect_err(text(refused, "what"));
        }
    }
}

fn encode(kind: u8, first: u64, second: u64, hashes: &[LogHash]) -> Vec<u8> {
    let mut bytes = [&[kind][..], &first.to_le_bytes(), &second.to_le_bytes()].concat();
    bytes.push(hashes.len().try_into().unwrap());
    hashes.iter().for_each(|hash| bytes.extend_from_slice(hash.as_bytes()));
    bytes
}

fn check_inclusion(algorithm: HashAlgorithm, leaves: &[LogHash], roots: &[LogHash], case: &Value) {
    for case in list(case, "inclusion") {
        let (size, index) = (number(case, "size"), number(case, "index"));
        let seen = &leaves[..size as usize];
        let proof = InclusionProof::of_leaves(algorithm, seen, index).unwrap();
        assert_eq!(proof.hashes(), log_hashes(case, "hashes"));
        assert_eq!(proof.to_bytes(), bytes(case, "encoded"));
        assert_eq!(InclusionProof::parse(&proof.to_bytes()).unwrap(), proof);
        proof.verify(algorithm, size, &roots[seen.len()], &leaves[index as usize]).unwrap();
        let node =
            |node: Perfect| node.hash(algorithm, |at| leaves.get(at as usize).ok_or(at).copied());
        assert_eq!(InclusionProof::prove(algorithm, size, index, node), Ok(Some(proof)));
    }
    for case in list(case, "inclusion_refused") {
        let (size, index) = (number(case, "size"), number(case, "index"));
        let proof = encode(1, index, size, &log_hashes(case, "hashes"));
        let (root, leaf) = (LogHash(array(case, "root")), LogHash(array(case, "leaf")));
        InclusionProof::parse(&proof)
            .unwrap()
            .verify(algorithm, size, &root, &leaf)
            .expect_err(text(case, "what"));
    }
}

fn check_consistency(
    algorithm: HashAlgorithm,
    leaves: &[LogHash],
    roots: &[LogHash],
    case: &Value,
) {
    for case in list(case, "consistency") {
        let (first, second) = (number(case, "first"), number(case, "second"));
        let (old, new) = (first as usize, second as usize);
        let proof = ConsistencyProof::of_leaves(algorithm, &leaves[..new], first).unwrap();
        assert_eq!(proof.hashes(), log_hashes(case, "hashes"));
        assert_eq!(proof.to_bytes(), bytes(case, "encoded"));
        assert_eq!(ConsistencyProof::parse(&proof.to_bytes()).unwrap(), proof);
        proof.verify(algorithm, (first, &roots[old]), (second, &roots[new])).unwrap();
    }
    for case in list(case, "consistency_refused") {
        let (first, second) = (number(case, "first"), number(case, "second"));
        let proof = encode(2, first, second, &log_hashes(case, "hashes"));
        let roots = (LogHash(array(case, "first_root")), LogHash(array(case, "second_root")));
        ConsistencyProof::parse(&proof)
            .unwrap()
            .verify(algorithm, (first, &roots.0), (second, &roots.1))
            .expect_err(text(case, "what"));
    }
}
