//! Signatures, certificates, signed log heads.

use selfsame::clock::Stamp;
use selfsame::hash::{LogHead, Root, session_id};
use selfsame::merkle::{
    Certificate, CertificateMessage, NodeKey, Signature, SignedLogHead, check_node_id,
};
use selfsame::types::NodeId;
use serde_json::Value;

use crate::json::{algorithm, array, bytes, cases, list, name, number, text};
use crate::logs::check_heads;
use crate::words::{assert_says, join};

pub(crate) const SECTIONS: &[&str] = &[
    "certificate_keys",
    "certificates",
    "certificates_refused",
    "certificate_logs",
    "signatures",
    "signed_heads",
    "signed_heads_refused",
];

fn key_of(node: NodeId) -> NodeKey {
    let mut keys =
        cases("certificate_keys").iter().map(|case| NodeKey::from_seed(&array(case, "seed")));
    keys.find(|key| key.node_id() == node).unwrap()
}

#[test]
fn certificate_keys() {
    for case in cases("certificate_keys") {
        let key = NodeKey::from_seed(&array(case, "seed"));
        assert_eq!(key.node_id().0, array(case, "node_id"));
        assert_eq!(key.to_seed(), array(case, "seed"));
        check_node_id(&key.node_id()).unwrap();
        assert!(!format!("{key:?}").contains(text(case, "seed")));
    }
}

#[test]
fn certificates() {
    for case in cases("certificates") {
        let (initiator, responder) = (&case["initiator"], &case["responder"]);
        let (joined, _) = join(initiator, responder);
        assert_says(&joined, &case["joined"], text(case, "what"));
        let context = joined.hash(algorithm(case)).unwrap();
        assert_eq!(context.0, array(case, "context_hash"));
        let session = session_id(&array(initiator, "nonce"), &array(responder, "nonce"));
        assert_eq!(session.0, array(case, "session_id"));
        let stamp = Stamp(number(initiator, "stamp").max(number(responder, "stamp")));
        assert_eq!(stamp.0, number(case, "stamp"));

        let nodes = [initiator, responder].map(|side| NodeId(array(side, "node_id")));
        let root = Root(array(case, "root"));
        let message =
            CertificateMessage::new(name(case), root, context, nodes, session, stamp).unwrap();
        let expected = bytes(case, "certificate");
        let message_bytes = usize::try_from(number(case, "message_bytes")).unwrap();
        assert_eq!(message.to_bytes(), expected[..message_bytes]);
        assert_eq!(CertificateMessage::parse(&message.to_bytes()).unwrap(), message);
        let signed = nodes.map(|node| (node, message.sign(&key_of(node))));
        let certificate = message.certify(signed).unwrap();
        assert_eq!(certificate.to_bytes(), expected);
        assert_eq!(Certificate::parse(&expected).unwrap(), certificate);
    }
}

#[test]
fn certificates_refused() {
    let first = &cases("certificates")[0];
    let honest = bytes(first, "certificate");
    let (message, signatures) =
        honest.split_at(usize::try_from(number(first, "message_bytes")).unwrap());
    for case in cases("certificates_refused") {
        let part = |field: &str, honest: &[u8]| match &case[field] {
            Value::Null => honest.to_vec(),
            _ => bytes(case, field),
        };
        let forged = [part("message", message), part("signatures", signatures)].concat();
        Certificate::parse(&forged).expect_err(text(case, "what"));
    }
}

#[test]
fn certificate_logs() {
    for case in cases("certificate_logs") {
        let certificates = list(case, "certificates").iter().map(|number| {
            let at = usize::try_from(number.as_u64().unwrap()).unwrap();
            bytes(&cases("certificates")[at], "certificate")
        });
        let items: Vec<_> = [bytes(case, "first_item")].into_iter().chain(certificates).collect();
        check_heads(algorithm(case), &items, list(case, "heads"));
    }
}

fn verifies(node: [u8; 32], message: &[u8], signature: &[u8]) -> bool {
    Signature::parse(signature).is_ok_and(|it| it.verify(&NodeId(node), message).is_ok())
}

#[test]
fn signatures() {
    let mut verdicts = [0, 0];
    for case in cases("signatures") {
        let accepted = case["accepted"].as_bool().unwrap();
        let (key, signature) = (array(case, "key"), bytes(case, "signature"));
        let what = text(case, "what");
        assert_eq!(verifies(key, &bytes(case, "message"), &signature), accepted, "{what}");
        if matches!(case["reason"].as_str(), Some("key_small_order" | "key_not_canonical")) {
            check_node_id(&NodeId(key)).expect_err(what);
        }
        verdicts[usize::from(accepted)] += 1;
    }
    assert!(verdicts[0] > 0 && verdicts[1] > 0);
}

#[test]
fn signed_heads() {
    for case in cases("signed_heads") {
        let (node, head) = (NodeId(array(case, "node_id")), LogHead(array(case, "head")));
        let signature = Signature::parse(&bytes(case, "signature")).unwrap();
        SignedLogHead::new(signature).verify(&node, &head).unwrap();
        assert_eq!(key_of(node).sign(&bytes(case, "message")), signature);
    }
}

#[test]
fn signed_heads_refused() {
    for case in cases("signed_heads_refused") {
        let (node, head) = (NodeId(array(case, "node_id")), LogHead(array(case, "head")));
        if let Ok(signature) = Signature::parse(&bytes(case, "signature")) {
            SignedLogHead::new(signature).verify(&node, &head).expect_err(text(case, "what"));
        }
    }
}
