//! Test vectors of files of proof (`vectors/files.json`): what this version writes, byte for byte,
//! what it proves, and what must be refused.

#![cfg(feature = "tree")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use selfsame::clock::Stamp;
use selfsame::dots::Dot;
use selfsame::entry::{Record, Sibling, Totals};
use selfsame::hash::{HashAlgorithm, Root};
use selfsame::merkle::log::first_item;
use selfsame::merkle::{
    Answer, Bundle, ChangeBundle, ChangeItem, CommitEnd, Envelope, HeadStatement, Leaf, LogId,
    LogIdentity, LogKind, LogSegment, ManyBundle, MerkleLog, MultiProof, NodeKey, Prefix,
    PrefixBundle, ProofFile, ProvedChange, SubtreeProof, Tree,
};
use selfsame::types::{CollectionName, CollectionSpec, Key, NodeId, Policy};
use serde_json::{Value, json};

/// Of the node whose log it is: for tests only.
const SEED: [u8; 32] = [1; 32];

type Entries = Vec<(Key, Record)>;

fn key(number: u8) -> Key {
    Key::new(format!("player:{number}")).unwrap()
}

fn record(algorithm: HashAlgorithm, number: u8, counter: u64) -> Record {
    let value = [number; 3];
    let sibling = Sibling {
        dot: Dot::new(0x0123_4567_89ab_cdef, counter).unwrap(),
        stamp: Stamp::new(1_700_000_000_000, u16::from(number)),
        size: 3,
        value_hash: algorithm.value_hash(&value),
    };
    Record::new(vec![sibling]).unwrap()
}

fn entries(algorithm: HashAlgorithm) -> Entries {
    (0..12).map(|number| (key(number), record(algorithm, number, 1 + u64::from(number)))).collect()
}

fn tree(algorithm: HashAlgorithm, entries: &Entries) -> (Tree, Envelope) {
    let (mut tree, mut totals) = (Tree::new(algorithm), Totals::default());
    for (key, record) in entries {
        totals = totals.plus(record.totals());
        let (key, digest) = (algorithm.key_hash(key), record.digest(algorithm));
        tree.put(Leaf { key, record: digest, totals: record.totals() });
    }
    let name = CollectionName::new("players").unwrap();
    let spec = CollectionSpec { name, algorithm, policy: Policy::Lww };
    let envelope = Envelope::new(spec, tree.tree_hash(), totals).unwrap();
    (tree, envelope)
}

/// A commit that writes player 3 anew, adds player 12 and removes player 7.
fn commit(algorithm: HashAlgorithm) -> ChangeBundle {
    let before = entries(algorithm);
    let mut after = before.clone();
    after[3].1 = record(algorithm, 33, 13);
    after.push((key(12), record(algorithm, 12, 14)));
    after.remove(7);
    let held = |entries: &Entries, number: u8| {
        entries.iter().find(|(found, _)| *found == key(number)).map(|(_, record)| record.clone())
    };
    let changes: Vec<_> = [3, 12, 7]
        .into_iter()
        .map(|number| ProvedChange {
            key: algorithm.key_hash(&key(number)),
            before: held(&before, number).map(|record| record.digest(algorithm)),
            after: held(&after, number).map(|record| record.digest(algorithm)),
            record: held(&after, number),
        })
        .collect();
    let (tree_before, envelope_before) = tree(algorithm, &before);
    let envelopes = [envelope_before, tree(algorithm, &after).1];
    let roots = envelopes.each_ref().map(Envelope::root);
    let mut log = MerkleLog::new(algorithm);
    let mut leaves = vec![log.append(&first_item(None))];
    leaves.extend((0..4).map(|number| {
        let item = ChangeItem { key: algorithm.key_hash(&key(number)), record: None, end: None };
        log.append(&item.to_bytes())
    }));
    for (change, number) in changes.iter().zip(1..) {
        let end = (number == 3).then_some(CommitEnd { changes: 3, roots });
        let item = ChangeItem { key: change.key, record: change.after, end };
        leaves.push(log.append(&item.to_bytes()));
    }
    let place = LogSegment::new(MerkleLog::new(algorithm), leaves).range(5, 3).unwrap();
    let name = envelopes[0].name().clone();
    let identity = LogIdentity { algorithm, kind: LogKind::Changes, id: LogId(9), name };
    let node = NodeKey::from_seed(&SEED);
    let sign = |message: &[u8]| node.sign(message).to_bytes();
    let head = HeadStatement::sign(identity.at(&log), node.node_id(), &sign).unwrap();
    let keys = changes.iter().map(|change| change.key);
    let (_, proof) = MultiProof::prove(&tree_before, keys).unwrap();
    ChangeBundle::new(envelopes, changes, proof, head, place).unwrap()
}

fn of_entry((key, record): (&Key, Option<&Record>)) -> Value {
    json!({
        "key_hex": hex::encode(key.as_bytes()),
        "record": record.map(|record| hex::encode(record.to_bytes())),
    })
}

/// What the file says now, from the sources above.
fn vectors() -> Value {
    let mut files = Vec::new();
    for algorithm in HashAlgorithm::ALL {
        let hash = if algorithm == HashAlgorithm::Blake3 { "blake3" } else { "sha256" };
        let entries = entries(algorithm);
        let (tree, envelope) = tree(algorithm, &entries);
        let root = envelope.root().to_string();
        for number in [7, 99] {
            let held = entries.get(usize::from(number)).map(|(_, record)| record.clone());
            let file = Bundle::prove(&tree, envelope.clone(), &key(number), held.clone()).unwrap();
            files.push(json!({
                "kind": 1, "hash": hash, "root": root, "file": hex::encode(file.to_bytes()),
                "entries": [of_entry((&key(number), held.as_ref()))],
            }));
        }
        let asked = [0, 3, 7, 11, 98, 99].map(|number| {
            (key(number), entries.get(usize::from(number)).map(|(_, record)| record.clone()))
        });
        let hashes = asked.each_ref().map(|(key, _)| algorithm.key_hash(key));
        let (_, proof) = MultiProof::prove(&tree, hashes).unwrap();
        let file = ManyBundle::new(envelope.clone(), asked.to_vec(), proof).unwrap();
        let told = file.entries().iter().map(|(key, record)| of_entry((key, record.as_ref())));
        files.push(json!({
            "kind": 2, "hash": hash, "root": root, "file": hex::encode(file.to_bytes()),
            "entries": told.collect::<Vec<_>>(),
        }));
        for prefix in ["/0", "80/1", "5a80/9"] {
            let prefix: Prefix = prefix.parse().unwrap();
            let under = entries.iter().filter(|(key, _)| prefix.contains(&algorithm.key_hash(key)));
            let proof = SubtreeProof::prove(&tree, &prefix).unwrap();
            let under = under.cloned().collect();
            let file = PrefixBundle::new(envelope.clone(), prefix, under, proof).unwrap();
            let told = file.entries().iter().map(|(key, record)| of_entry((key, Some(record))));
            files.push(json!({
                "kind": 3, "hash": hash, "root": root, "file": hex::encode(file.to_bytes()),
                "prefix_bits": prefix.len(), "prefix": hex::encode(prefix.as_bytes()),
                "entries": told.collect::<Vec<_>>(),
            }));
        }
        let file = commit(algorithm);
        let [before, after] = file.roots();
        let digest = |it: Option<selfsame::hash::RecordDigest>| it.map(|it| it.to_string());
        let changes = file.changes().iter().map(|change| {
            json!({
                "kh": change.key.to_string(), "before": digest(change.before),
                "after": digest(change.after),
            })
        });
        let bytes = file.to_bytes();
        files.push(json!({
            "kind": 4, "hash": hash, "node_id": file.head().node().to_string(),
            "root": before.to_string(), "root_after": after.to_string(),
            "changes": changes.collect::<Vec<_>>(), "index": file.place().first(),
            "file": hex::encode(&bytes),
        }));
    }
    let note = "Written by tests/vectors_files.rs; docs/protocol.md, \"Files of proof\", says what \
                the bytes are. root is what the verifier holds (of kind 4 the root before); record \
                null: absent. To be refused: each file with any byte changed, cut short, or with a \
                byte more.";
    json!({ "note": note, "files": files })
}

fn committed() -> Value {
    serde_json::from_str(include_str!("vectors/files.json")).unwrap()
}

#[test]
fn the_vectors_are_what_this_version_writes() {
    let now = vectors();
    if std::env::var_os("UPDATE_VECTORS").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/files.json");
        std::fs::write(path, format!("{now:#}\n")).unwrap();
        return;
    }
    assert!(now == committed(), "a file of proof is written otherwise than it was published");
}

/// Verifies as one who has nothing but the vectors.
fn verdict(case: &Value, bytes: &[u8]) -> Result<(), String> {
    let text = |field: &str| case[field].as_str().unwrap();
    let root: Root = text("root").parse().unwrap();
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let expected: Vec<(Key, Option<Vec<u8>>)> = case["entries"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| {
            let key = Key::new(hex::decode(entry["key_hex"].as_str().unwrap()).unwrap()).unwrap();
            (key, entry["record"].as_str().map(|record| hex::decode(record).unwrap()))
        })
        .collect();
    let proved = match ProofFile::parse(bytes).map_err(|error| said(&error))? {
        ProofFile::One(file) => {
            let (key, _) = &expected[0];
            let answer = file.verify(&root, key).map_err(|error| said(&error))?;
            vec![(key.clone(), answer)]
        }
        ProofFile::Many(file) => file.verify(&root).map_err(|error| said(&error))?,
        ProofFile::Prefix(file) => {
            let entries = file.verify(&root).map_err(|error| said(&error))?;
            if hex::encode(file.prefix().as_bytes()) != text("prefix") {
                return Err("another prefix".into());
            }
            entries.iter().map(|(key, it)| (key.clone(), Answer::Present(it.clone()))).collect()
        }
        ProofFile::Change(file) => {
            let mut node = [0; 32];
            hex::decode_to_slice(text("node_id"), &mut node).unwrap();
            file.verify(&NodeId(node)).map_err(|error| said(&error))?;
            file.check_before(&root).map_err(|error| said(&error))?;
            file.check_after(&text("root_after").parse().unwrap()).map_err(|it| said(&it))?;
            assert_eq!(file.changes().len(), case["changes"].as_array().unwrap().len());
            assert_eq!(file.place().first(), case["index"].as_u64().unwrap());
            Vec::new()
        }
    };
    let proved: Vec<_> = proved
        .into_iter()
        .map(|(key, answer)| match answer {
            Answer::Present(record) => (key, Some(record.to_bytes())),
            Answer::Absent => (key, None),
        })
        .collect();
    if proved == expected { Ok(()) } else { Err("it proves something else".into()) }
}

#[test]
fn what_is_published_verifies_and_nothing_that_was_changed_does() {
    let vectors = committed();
    let cases = vectors["files"].as_array().unwrap();
    assert_eq!(cases.len(), 14);
    for case in cases {
        let bytes = hex::decode(case["file"].as_str().unwrap()).unwrap();
        assert_eq!(u64::from(bytes[0]), case["kind"].as_u64().unwrap());
        assert_eq!(verdict(case, &bytes), Ok(()));
        verdict(case, &[&bytes[..], &[0]].concat()).unwrap_err();
        for at in 0..bytes.len() {
            if at % 7 == 0 {
                verdict(case, &bytes[..at]).unwrap_err();
            }
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            verdict(case, &changed).unwrap_err();
        }
    }
}
