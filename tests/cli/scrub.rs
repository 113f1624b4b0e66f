//! `selfsame scrub`, with rot put under closed nodes.

use selfsame::store::{
    Batch, Durability, EmbeddedOptions, EmbeddedStore, Read as _, Span, Store as _, Table,
};
use serde_json::Value;

use super::node::TestNode;

both_ways!(
    what_is_sound_is_said_to_be,
    what_rotted_is_named_mended_or_taken_back_by_a_session,
    indexes_that_rotted_need_no_recovery,
);

/// Flips a bit in the middle of a row, while nobody has the node open.
pub(crate) fn rot(node: &TestNode, table: Table, at: usize) {
    node.closed(|| {
        let folder = node.data().join("store");
        let store = EmbeddedStore::open(folder, EmbeddedOptions::default()).unwrap();
        let rows = store.scan(Span::of(table, &[]), usize::MAX).unwrap();
        let mut value = rows[at].value.to_vec();
        let middle = value.len() / 2;
        value[middle] ^= 1;
        let mut batch = Batch::default();
        batch.put(table, &rows[at].key, &value);
        store.commit(batch, Durability::Always).unwrap();
        store.close().unwrap();
    });
}

fn of_collection(node: &TestNode) -> Value {
    node.run(["status", "--json"]).ended(0).json()["collections"][0]["scrub"].clone()
}

fn what_is_sound_is_said_to_be() {
    let node = TestNode::with_collection(&[]);
    node.run(["collection", "create", "other"]).ended(0);
    for at in 0..20 {
        node.run(["put", "c", &format!("key {at}"), "value"]).ended(0);
    }
    assert_eq!(of_collection(&node)["last_ended_ms"], Value::Null);
    let said = node.run(["scrub"]).ended(0);
    assert_eq!(said.text().lines().count(), 2, "{}", said.text());
    assert!(said.text().contains("c: 20 entries") && said.text().contains("nothing rotted"));
    let lines = node.run(["scrub", "c", "--json", "--bytes-per-s", "100000"]).ended(0).lines();
    assert_eq!((&lines[0]["sound"], &lines[0]["complete"]), (&true.into(), &true.into()));
    assert_eq!((&lines[0]["entries"], &lines[0]["bytes"]), (&20.into(), &100.into()));
    assert_eq!(lines[0]["rot"].as_array().unwrap().len(), 0);
    let scrub = of_collection(&node);
    assert!(scrub["last_ended_ms"].as_u64().unwrap() > 1_600_000_000_000);
    assert_eq!((&scrub["last_found"], &scrub["running"]), (&0.into(), &Value::Null));
    assert!(node.run(["status"]).ended(0).text().contains("SCRUB OF"));
    node.run(["scrub", "nothing"]).ended(2).said("no collection");
    node.run(["scrub", "--bytes-per-s", "0"]).ended(2);
}

fn what_rotted_is_named_mended_or_taken_back_by_a_session() {
    let (node, peer) = (TestNode::with_collection(&[]), TestNode::with_collection(&[]));
    for at in 0..20 {
        node.run(["put", "c", &format!("key {at}"), "value"]).ended(0);
    }
    let listening = peer.listen(&[&node]);
    node.run(["sync", "c", "--peer", &listening.peer]).ended(0);
    let root = node.root();
    for (table, kind) in [(Table::Entries, "entry"), (Table::Values, "value")] {
        rot(&node, table, 3);
        let lines = node.run(["scrub", "c", "--json"]).ended(1).lines();
        let rot = &lines[0]["rot"][0];
        assert_eq!((&rot["kind"], &rot["mended"]), (&kind.into(), &false.into()), "{lines:?}");
        assert!(rot["kh"].is_string());
        assert_eq!(lines[0]["sound"], false);
        let scrub = of_collection(&node);
        let lost = (&scrub["rotten_entries"], &scrub["lost_values"]);
        assert_eq!(lost, (&u64::from(kind == "entry").into(), &u64::from(kind == "value").into()));
        let codes = (0..20).map(|at| node.run(["get", "c", &format!("key {at}")]).code);
        let unread = codes.filter(|code| *code != 0).count();
        assert_eq!(unread, 1, "only that key");
        node.run(["scrub", "c"]).ended(1).said("not mended");
        node.run(["recover", "c", "--check"]).ended(1);
        node.run(["sync", "c", "--peer", &listening.peer]).ended(0);
        node.run(["scrub", "c"]).ended(0);
        node.run(["recover", "c", "--check"]).ended(0);
        assert_eq!(node.root(), root);
    }
}

fn indexes_that_rotted_need_no_recovery() {
    let node = TestNode::with_collection(&[]);
    for at in 0..20 {
        node.run(["put", "c", &format!("key {at}"), "value"]).ended(0);
    }
    let root = node.root();
    rot(&node, Table::Dots, 3);
    node.run(["recover", "c", "--check"]).ended(1);
    let lines = node.run(["scrub", "c", "--json"]).ended(0).lines();
    assert!(lines[0]["mended"].as_u64() > Some(0) && lines[0]["sound"] == true, "{lines:?}");
    node.run(["recover", "c", "--check"]).ended(0);
    rot(&node, Table::Dots, 5);
    let mended = node.run(["recover", "c", "--json"]).ended(0).json();
    assert!(mended["mended"].as_u64() > Some(0) && mended["lost"] == 0, "{mended}");
    // page rows are written again at opening
    rot(&node, Table::Pages, 0);
    node.run(["recover", "c", "--check"]).ended(0);
    assert_eq!(node.root(), root);
}

#[test]
fn a_scrub_that_is_stopped_goes_on_with_the_next() {
    let node = TestNode::with_collection(&[]);
    let value = "v".repeat(4_000);
    for at in 0..40 {
        node.run(["put", "c", &format!("key {at}"), &value]).ended(0);
    }
    let mut slow = node.command(["scrub", "c", "--bytes-per-s", "20000"]);
    let slow = slow.stdout(std::process::Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    super::node::interrupt(&slow);
    let ended = slow.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130), "{ended:?}");
    assert!(String::from_utf8(ended.stdout).unwrap().contains("goes on from there"));
    let running = &of_collection(&node)["running"];
    let read = running["entries"].as_u64().unwrap();
    assert!(read > 0 && read < 40, "{running}");
    let lines = node.run(["scrub", "c", "--json"]).ended(0).lines();
    assert_eq!(lines[0]["entries"], 40, "what was read before counts");
}
