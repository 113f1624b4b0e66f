//! `selfsame clones`, with what a session would have found.

use selfsame::node::Node;
use selfsame::node::home::Home;
use selfsame::replica::{CloneFound, CloneSign};
use selfsame::store::EmbeddedStore;
use selfsame::types::{CollectionName, Key, NodeId};

use super::node::TestNode;

both_ways!(
    where_nothing_was_found_it_says_so,
    what_was_copied_aside_is_shown_until_it_is_forgotten
);

/// Two writes, of which it is then found that another copy of the node uses their writer.
fn found(node: &TestNode) {
    node.closed(|| {
        let home = Home::open(&node.data()).unwrap();
        let collection = home.replica.collection(&CollectionName::new("c").unwrap()).unwrap();
        let now = Node::<EmbeddedStore>::now_ms();
        for (key, value) in [(&b"ada"[..], &b"level 3"[..]), (b"\xff", b"\x00\x01")] {
            collection.put(&Key::new(key).unwrap(), value, now).unwrap();
        }
        let mark = collection.present_writer().unwrap().unwrap().into();
        let found = CloneFound { ours: true, sign: CloneSign::Echo, mark };
        collection.note_clone(&NodeId([7; 32]), found, now).unwrap();
        drop(collection);
        home.close().unwrap();
    });
}

fn where_nothing_was_found_it_says_so() {
    let node = TestNode::with_collection(&[]);
    node.run(["clones", "c"]).ended(0).said("no two copies");
    let kept = node.run(["clones", "c", "--json"]).ended(0).json();
    assert_eq!(kept, serde_json::json!({ "clones": [], "same_dot": [] }));
    node.run(["clones", "c", "--show", "1"]).ended(1).said("no clone of c has number 1");
    node.run(["clones", "c", "--forget", "1"]).ended(1).said("no clone of c has number 1");
    node.run(["clones", "nothing"]).ended(2).said("no collection");
    let none = node.run(["clones", "c", "--forget-writes", "--json"]).ended(0).json();
    assert_eq!(none["forgotten"], 0);
}

fn what_was_copied_aside_is_shown_until_it_is_forgotten() {
    let node = TestNode::with_collection(&[]);
    found(&node);
    let told = node.run(["clones", "c"]).ended(1);
    for part in ["1: another copy of this node", "2 writes were copied aside", "--show 1"] {
        assert!(told.text().contains(part), "{}", told.text());
    }
    let kept = node.run(["clones", "c", "--json"]).ended(1).json();
    let clone = &kept["clones"][0];
    assert_eq!((&clone["ours"], &clone["how"]), (&true.into(), &"echo".into()));
    assert_eq!((&clone["aside"], &clone["left_out"]), (&2.into(), &0.into()));
    assert_eq!(clone["peer"].as_str().unwrap(), "07".repeat(32));
    // the entries may go: what was copied stays
    node.run(["rm", "c", "ada"]).ended(0);
    let lines = node.run(["clones", "c", "--show", "1"]).ended(0).lines();
    assert_eq!(lines.len(), 2);
    let ada = lines.iter().find(|line| line["key"] == "ada").unwrap();
    assert_eq!(ada["value_hex"], hex::encode("level 3"));
    assert_eq!(ada["writer"], clone["writer"]);
    assert!(lines.iter().any(|line| line["key_hex"] == "ff" && line["value_hex"] == "0001"));
    assert_eq!(node.run(["clones", "c", "--forget", "1"]).ended(0).text(), "1 record forgotten\n");
    node.run(["clones", "c"]).ended(0);
    node.run(["clones", "c", "--show", "1"]).ended(1);
    // a fresh writer is drawn for the next write
    node.run(["put", "c", "ada", "level 4"]).ended(0);
    let entry = node.run(["dump", "c", "--json"]).ended(0).lines();
    assert!(entry.iter().any(|line| line["siblings"][0]["writer"] != clone["writer"]));
}
