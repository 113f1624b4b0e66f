//! Certificates with the real binary: kept over restarts, written, verified without a node.

use std::path::Path;

use selfsame::hash::HashAlgorithm;
use selfsame::merkle::{HeadStatement, LogId, LogIdentity, LogKind, MerkleLog};
use selfsame::types::CollectionName;

use super::node::{TestNode, write};

both_ways!(
    a_certificate_is_kept_shown_and_verified_offline,
    files_that_are_no_certificate_are_told_from_those_that_do_not_hold,
);

/// Two nodes that have signed; the second one is reached as the tests say.
fn signed() -> (TestNode, TestNode) {
    let (a, b) = (TestNode::with_collection(&[]), TestNode::with_collection(&[]));
    a.run(["put", "c", "k", "value"]).ended(0);
    let listening = a.listen(&[&b]);
    let done = b.run(["sync", "c", "--peer", &listening.peer, "--json"]).ended(0).json();
    assert_eq!(done["certificate_number"], 2, "the first row of its log is none");
    assert_eq!(listening.interrupt(), 0);
    (a, b)
}

fn a_certificate_is_kept_shown_and_verified_offline() {
    let (a, b) = signed();
    for (node, peer) in [(&a, &b), (&b, &a)] {
        let listed = node.run(["certificate", "ls", "c", "--json"]).ended(0).lines();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0]["root"], node.root());
        assert_eq!(listed[0]["entries"], 1);
        let status = node.run(["status", "--json"]).ended(0).json();
        let agreement = &status["agreements"][0];
        assert_eq!((&agreement["equal"], &agreement["peer"]), (&true.into(), &peer.id().into()));
        assert_eq!(agreement["since_ms"], listed[0]["kept_ms"]);
        let said = node.run(["status"]).ended(0);
        let expected = format!("c: equal to {} since ", &peer.id()[..8]);
        assert!(said.text().contains(&expected), "{}", said.text());
    }
    assert!(b.run(["certificate", "ls", "c"]).ended(0).text().contains(&a.id()[..8]));
    let shown = b.run(["certificate", "show", "c", "--peer", &a.id(), "--output", "c.cert"]);
    assert!(shown.ended(0).text().contains("item 1 of 2 in the certificate log"));
    b.run(["certificate", "show", "c", "-o", "bare.cert", "--bare"]).ended(0);
    let of_file = b.run(["certificate", "show", "--file", "c.cert", "--json"]).ended(0).json();
    assert_eq!((&of_file["root"], &of_file["entries"]), (&b.root().into(), &1.into()));
    let piped = b.run(["certificate", "show", "c", "--bare", "--output", "-"]).ended(0).stdout;
    assert_eq!(piped, std::fs::read(b.path("bare.cert")).unwrap());

    // whoever verifies has no node
    let elsewhere = TestNode::bare();
    for name in ["c.cert", "bare.cert"] {
        std::fs::copy(b.path(name), elsewhere.path(name)).unwrap();
        let (one, other, root) = (a.id(), b.id(), b.root());
        let verify = ["certificate", "verify", name, "--node", &one, "--node", &other];
        elsewhere.run(verify).ended(0);
        let said = elsewhere.run([&verify[..], &["--root", &root, "--json"]].concat()).ended(0);
        assert_eq!(said.json()["result"], "valid");
        elsewhere.run([&verify[..], &["--root", &"0".repeat(64)]].concat()).ended(6);
        let wrong = ["certificate", "verify", name, "--node", &one, "--node", &elsewhere_id()];
        elsewhere.run(wrong).ended(6).said("not valid: it is between");
    }
    assert!(!elsewhere.data().exists());

    // it says so until something changes here
    b.run(["put", "c", "k", "other"]).ended(0);
    let status = b.run(["status", "--json"]).ended(0).json();
    assert_eq!(status["agreements"][0]["equal"], false);
    assert!(b.run(["status"]).ended(0).text().contains("and has changed here since"));
    b.run(["certificate", "show", "c", "--number", "99"]).ended(1).said("no such certificate of c");
    b.run(["certificate", "show", "c", "--peer", "nobody"]).ended(2);
}

/// The id of a node that has no part in it.
fn elsewhere_id() -> String {
    "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394".into()
}

fn files_that_are_no_certificate_are_told_from_those_that_do_not_hold() {
    let (a, b) = signed();
    b.run(["certificate", "show", "c", "--output", "c.cert"]).ended(0);
    let honest = std::fs::read(b.path("c.cert")).unwrap();
    let (one, other) = (a.id(), b.id());
    let verify = |bytes: &[u8]| {
        write(&b.path("it.cert"), bytes);
        b.run(["certificate", "verify", "it.cert", "--node", &one, "--node", &other])
    };
    verify(&honest).ended(0);
    verify(&honest[..honest.len() - 1]).ended(2).said("malformed: ");
    verify(&[&honest[..], b"\n"].concat()).ended(2).said("malformed: ");
    verify(b"").ended(2).said("malformed: ");
    verify(&vec![1; 1 << 20]).ended(2).said("more than any certificate has");
    let root = hex::decode(b.root()).unwrap();
    let at = honest.windows(32).position(|window| window == root).unwrap();
    let mut flipped = honest.clone();
    flipped[at] ^= 1;
    verify(&flipped).ended(6).said("did not sign it");
    b.run(["certificate", "verify", "it.cert", "--node", &one]).ended(2).said("--node twice");
    b.run(["certificate", "verify", "no.cert", "--node", &one, "--node", &other])
        .ended(2)
        .said("cannot read no.cert");
}

/// What a backup has of a data folder that nobody has open.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_restored_copy_and_a_killed_process_accuse_nobody() {
    let (a, b) = (TestNode::with_collection(&[]), TestNode::with_collection(&[]));
    let mut number = 0;
    let mut meet = |node: &TestNode, killed: bool| {
        for _ in 0..2 {
            number += 1;
            let key = number.to_string();
            node.run(["put", "c", &key, "value"]).ended(0);
            b.run(["put", "c", &format!("of b {key}"), "value"]).ended(0);
            let listening = b.listen(&[&a]);
            let sync = || {
                let ran = node.run(["sync", "c", "--peer", &listening.peer]);
                if ran.code != 0 {
                    // the original goes on after its copy was met: said once, and then it works
                    ran.ended(2).said("two copies of the node");
                    node.run(["sync", "c", "--peer", &listening.peer]).ended(0);
                }
            };
            sync();
            node.run(["put", "c", &key, "and more"]).ended(0);
            sync();
            // dropped, it is killed
            if !killed {
                assert_eq!(listening.interrupt(), 0);
            }
        }
    };
    meet(&a, false);
    let backup = a.path("backup");
    copy(&a.data(), &backup);
    meet(&a, true);
    // the old copy beside the original, each opened on its own: a clone
    let clone = TestNode::bare();
    copy(&backup, &clone.data());
    meet(&clone, false);
    meet(&a, false);
    meet(&clone, true);
    // and in place of the original: a backup that was restored
    std::fs::remove_dir_all(a.data()).unwrap();
    copy(&backup, &a.data());
    meet(&a, false);
    meet(&clone, false);
    for node in [&a, &b, &clone] {
        node.run(["certificate", "evidence", "c"]).ended(1).said("no peer has contradicted itself");
        let heard = node.run(["certificate", "evidence", "c", "--json"]).ended(1).json();
        assert!(!heard["logs"].as_array().unwrap().is_empty(), "they did tell their heads");
        assert!(heard["distrusted"].as_array().unwrap().is_empty());
    }
    b.run(["certificate", "accept", "c", &a.id()]).ended(0).said("nothing stood against");
}

/// Heads that a node signed of one size of one log, as a machine does that was copied while it
/// ran.
fn two_heads(node: &TestNode) -> [HeadStatement; 2] {
    node.with_home(|home| {
        ["this", "that"].map(|item| {
            let mut log = MerkleLog::new(HashAlgorithm::Blake3);
            log.append(item.as_bytes());
            let (algorithm, kind, id) = (log.algorithm(), LogKind::Changes, LogId(7));
            let name = CollectionName::new("c").unwrap();
            let fields = LogIdentity { algorithm, kind, id, name }.at(&log);
            let sign = |message: &[u8]| home.identity.sign(message);
            HeadStatement::sign(fields, home.identity.node_id(), &sign).unwrap()
        })
    })
}

#[test]
fn a_peer_that_contradicted_itself_is_named_and_kept_away_until_it_is_accepted() {
    let (a, b) = (TestNode::with_collection(&[]), TestNode::with_collection(&[]));
    let heads = two_heads(&a);
    b.with_home(|home| {
        let collection = home.replica.collection(&CollectionName::new("c").unwrap()).unwrap();
        heads.iter().for_each(|head| drop(collection.witness(head, 1_000).unwrap()));
    });
    let said = b.run(["status"]).ended(0);
    assert!(said.text().contains("has signed contradictory heads of one log"), "{}", said.text());
    let status = b.run(["status", "--json"]).ended(0).json();
    assert_eq!(status["distrusted"][0]["peer"], a.id());
    let said = b.run(["doctor", "--quiet"]).ended(1);
    assert!(said.text().contains("two histories of one log"), "{}", said.text());
    let figures = super::metrics::metrics(&b);
    let distrusted = "selfsame_collection_distrusted_peers";
    assert_eq!(super::metrics::value(&figures, distrusted, &[("collection", "c")]), 1.0);
    let said = b.run(["certificate", "evidence", "c"]).ended(0);
    assert!(said.text().contains("the two signatures alone prove it"), "{}", said.text());

    // whoever dials
    let listening = a.listen(&[&b]);
    b.run(["sync", "c", "--peer", &listening.peer]).ended(5).said("certificate accept c");
    assert_eq!(listening.interrupt(), 0);
    let listening = b.listen(&[&a]);
    a.run(["sync", "c", "--peer", &listening.peer]).ended(5).said("contradictory heads");

    // others can see for themselves, without a node
    b.run(["certificate", "evidence", "c", "--number", "1", "--output", "a.evidence"]).ended(0);
    b.run(["certificate", "evidence", "c", "--number", "2"]).ended(1);
    let elsewhere = TestNode::bare();
    std::fs::copy(b.path("a.evidence"), elsewhere.path("a.evidence")).unwrap();
    let file = ["certificate", "evidence", "--file", "a.evidence", "--json"];
    let shown = elsewhere.run(file).ended(0).json();
    assert_eq!((&shown["peer"], &shown["proves_itself"]), (&a.id().into(), &true.into()));
    let mut forged = std::fs::read(b.path("a.evidence")).unwrap();
    *forged.last_mut().unwrap() ^= 1;
    write(&elsewhere.path("a.evidence"), forged);
    elsewhere.run(file).ended(6).said("not proved: evidence");

    b.run(["certificate", "accept", "c", &a.id()]).ended(0);
    a.run(["sync", "c", "--peer", &listening.peer]).ended(0);
    assert_eq!(listening.interrupt(), 0);
    assert!(b.run(["status", "--json"]).json()["distrusted"].as_array().unwrap().is_empty());
    b.run(["certificate", "evidence", "c"]).ended(0);
}
