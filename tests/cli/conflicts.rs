//! Conflicts: seen, understood, ended; and what keys were.

use serde_json::Value;

use selfsame::node::Node;
use selfsame::replica::Collection;
use selfsame::store::EmbeddedStore;
use selfsame::types::{CollectionName, Key};

use super::node::{TestNode, write};

both_ways!(
    a_key_was_what_its_history_says,
    history_says_what_was_dropped,
    only_keys_whose_versions_differ_are_in_conflict,
    conflicts_come_in_pages,
    a_conflict_is_resolved_as_it_was_read_or_not_at_all,
    a_resolver_shows_what_it_makes_of_the_versions,
    versions_that_cannot_be_merged_are_all_shown,
    a_resolver_that_is_not_known_is_refused,
    sessions_report_what_came_into_conflict,
    collections_with_other_resolvers_are_not_synchronised,
);

fn now() -> u64 {
    Node::<EmbeddedStore>::now_ms()
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

/// Does something to the collection `c` itself.
fn with_c<R>(node: &TestNode, work: impl Fn(&Collection<EmbeddedStore>) -> R) -> R {
    let c = CollectionName::new("c").unwrap();
    node.with_home(|home| work(&home.replica.collection(&c).unwrap()))
}

/// Leaves these versions of a key beside each other, each later than the one before it.
fn put_concurrently(node: &TestNode, name: &str, values: &[&str]) {
    with_c(node, |collection| {
        for (at, value) in values.iter().enumerate() {
            let at_ms = now() + at as u64;
            collection.put_over(&key(name), value.as_bytes(), &[], at_ms).unwrap();
        }
    });
}

fn conflicts(node: &TestNode, more: &[&str]) -> Vec<Value> {
    let ran = node.run([&["conflicts", "c", "--json"], more].concat());
    assert!(ran.code == 0 || ran.code == 1, "{}", ran.stderr);
    ran.lines()
}

/// The token of the versions of a key.
fn read_of(node: &TestNode, name: &str) -> String {
    let got = node.run(["get", "c", name, "--json"]).ended(0).json();
    got["read"].as_str().unwrap().to_owned()
}

fn a_key_was_what_its_history_says() {
    let node = TestNode::with_collection(&[]);
    node.run(["history", "c", "k"]).ended(1).said("nothing is known");
    for value in ["one", "two", "three", "two"] {
        node.run(["put", "c", "k", value]).ended(0);
    }
    node.run(["put", "c", "other", "one"]).ended(0);
    let history = node.run(["history", "c", "k", "--json"]).ended(0).json();
    let hash = |value: &str| Value::from(blake3::hash(value.as_bytes()).to_hex().to_string());
    assert_eq!(history["held"][0]["value_hash"], hash("two"));
    assert_eq!((&history["reach"], &history["more"]), (&"all".into(), &false.into()));
    let replaced = history["replaced"].as_array().unwrap();
    assert_eq!(replaced.len(), 2, "the value that is held again is no past");
    assert_eq!(replaced[0]["value_hash"], hash("three"));
    assert_eq!((&replaced[0]["kept"], &replaced[0]["deleted"]), (&true.into(), &false.into()));
    assert_eq!((&replaced[1]["value_hash"], &replaced[1]["size"]), (&hash("one"), &3.into()));

    node.run(["rm", "c", "k"]).ended(0);
    let ran = node.run(["history", "c", "k"]).ended(0);
    let lines: Vec<_> = ran.text().lines().collect();
    assert!(
        lines[1].contains("deleted") && lines[1].contains(&hash("two").as_str().unwrap()[..16])
    );
    assert!(lines[2].contains("replaced") && lines[2].contains("kept"));
    let one = node.run(["history", "c", "k", "--limit", "1", "--json"]).ended(0).json();
    assert_eq!((&one["more"], one["replaced"].as_array().unwrap().len()), (&true.into(), 1));

    let three = hash("three");
    let three = &three.as_str().unwrap()[..10];
    assert_eq!(node.run(["history", "c", "k", "--get", three]).ended(0).text(), "three");
    assert_eq!(node.run(["get", "c", "k", "--version", three]).ended(0).text(), "three");
    node.run(["get", "c", "k"]).ended(1);
    node.run(["get", "c", "k", "--version", "00000000"]).ended(1).said("selfsame history");
    node.run(["get", "c", "k", "--version", "3f"]).ended(2).said("first 4 hex digits");
    node.run(["get", "c", "k", "--version", "über"]).ended(2).said("first 4 hex digits");
}

fn history_says_what_was_dropped() {
    let node = TestNode::with_collection(&[]);
    node.run(["put", "c", "k", "old"]).ended(0);
    node.run(["put", "c", "k", "new"]).ended(0);
    with_c(&node, |collection| {
        // a month later what was replaced is dropped by the writes that come
        let later = now() + 30 * 86_400_000;
        for value in ["newer", "newest"] {
            collection.put(&key("k"), value.as_bytes(), later).unwrap();
        }
    });
    let history = node.run(["history", "c", "k", "--json"]).ended(0).json();
    assert_eq!(history["reach"], "since");
    assert!(history["since_ms"].as_u64().unwrap() > now() + 29 * 86_400_000);
    let old = blake3::hash(b"old").to_hex().to_string();
    node.run(["history", "c", "k"]).ended(0).said("no longer kept");
    node.run(["get", "c", "k", "--version", &old]).ended(1);
    node.configure("[limits]\nhistory_percent = 0\n");
    node.run(["put", "c", "k", "last"]).ended(0);
    let history = node.run(["history", "c", "k", "--json"]).ended(0).json();
    assert_eq!(history["reach"], "nothing");
}

fn only_keys_whose_versions_differ_are_in_conflict() {
    let node = TestNode::with_collection(&[]);
    node.run(["conflicts", "c"]).ended(0).said("no conflicts");
    for at in 0..300 {
        if at % 100 == 0 {
            node.run(["put", "c", &format!("single {at}"), "value"]).ended(0);
        }
    }
    put_concurrently(&node, "same", &["equal", "equal"]);
    node.run(["conflicts", "c"]).ended(0).said("no conflicts");
    put_concurrently(&node, "player:17", &["level 3", "level 4\nand more"]);
    put_concurrently(&node, "other", &["a", "b", "a"]);
    let listed = conflicts(&node, &[]);
    assert_eq!(listed.len(), 2);
    let player = conflicts(&node, &["--prefix", "player", "--preview"]);
    let [player] = player.as_slice() else { panic!("{player:?}") };
    assert_eq!(player["key"], "player:17");
    let [late, early] = player["siblings"].as_array().unwrap().as_slice() else { panic!() };
    assert_eq!((&late["shown"], &early["shown"]), (&true.into(), &false.into()));
    assert_eq!(early["preview"], "level 3");
    assert_eq!(late.get("preview"), None, "not printable");
    assert_eq!(late["size"], 16);
    assert!(late["written_ms"].as_u64() > early["written_ms"].as_u64());
    assert_eq!(player["read"], read_of(&node, "player:17").as_str());
    let shown = node.run(["conflicts", "c", "--prefix", "oth"]).ended(1).said("in conflict");
    assert!(shown.text().contains("3 versions"), "{}", shown.text());
    assert!(shown.text().contains("shown") && shown.text().contains("hidden"));
    node.run(["conflicts", "c", "--after", "nothing"]).ended(2).said("after");
    node.run(["conflicts", "d"]).ended(2).said("no collection d");
}

fn conflicts_come_in_pages() {
    let node = TestNode::with_collection(&["--policy", "siblings"]);
    with_c(&node, |collection| {
        for at in 0..700 {
            collection.put(&key(&format!("k{at}")), &b"one"[..], now()).unwrap();
            if at % 2 == 0 {
                collection.put_over(&key(&format!("k{at}")), &b"two"[..], &[], now()).unwrap();
            }
        }
    });
    let all = conflicts(&node, &[]);
    assert_eq!(all.len(), 350);
    let (mut paged, mut after) = (Vec::new(), String::new());
    loop {
        let mut more = vec!["--limit", "80"];
        if !after.is_empty() {
            more.extend(["--after", &after]);
        }
        let page = conflicts(&node, &more);
        let Some(last) = page.last() else { break };
        after = last["cursor"].as_str().unwrap().to_owned();
        paged.extend(page);
    }
    assert_eq!(paged, all);
    let cut = node.run(["conflicts", "c", "--limit", "3"]).ended(1).said("--after");
    assert_eq!(cut.text().lines().filter(|line| line.starts_with('k')).count(), 3);
    assert_eq!(conflicts(&node, &["--prefix", "k12"]).len(), 6, "k12 and k120 to k128");
}

fn a_conflict_is_resolved_as_it_was_read_or_not_at_all() {
    let node = TestNode::with_collection(&["--policy", "siblings"]);
    let again = || {
        node.run(["rm", "c", "k"]);
        put_concurrently(&node, "k", &["early", "late"]);
        read_of(&node, "k")
    };
    let resolve =
        |read: &str, how: &[&str]| node.run([&["resolve", "c", "k", "--read", read], how].concat());
    let read = again();
    let stale = node.root();
    put_concurrently(&node, "k", &["unseen"]);
    let before = node.root();
    assert_ne!(before, stale);
    let hash = blake3::hash(b"early").to_hex().to_string();
    for how in [&["--take", "latest"][..], &["--value", "x"], &["--delete"], &["--take", &hash]] {
        resolve(&read, how).ended(1).said("changed since they were read");
    }
    assert_eq!(node.root(), before);
    let read = read_of(&node, "k");
    assert_eq!(conflicts(&node, &[])[0]["read"], read.as_str());
    resolve(&read, &["--take", "00000000"]).ended(1).said("no value");
    resolve("12", &["--take", "latest"]).ended(2).said("selfsame conflicts");
    resolve(&read, &["--take", "latest", "--delete"]).ended(2);
    let taken = resolve(&read, &["--take", &hash[..8], "--json"]).ended(0).json();
    assert_eq!(taken["value_hash"], hash);
    assert_eq!(taken["root"], node.root());
    assert_eq!(node.run(["get", "c", "k"]).ended(0).text(), "early");
    node.run(["conflicts", "c"]).ended(0);
    let history = node.run(["history", "c", "k", "--json"]).ended(0).json();
    assert_eq!(history["replaced"].as_array().unwrap().len(), 2, "what was not taken is kept");

    let read = again();
    resolve(&read, &["--take", "latest"]).ended(0);
    assert_eq!(node.run(["get", "c", "k"]).ended(0).text(), "late");
    let read = again();
    let line = &conflicts(&node, &[])[0]["siblings"][1];
    let dot = format!("{}:{}", line["writer"].as_str().unwrap(), line["counter"]);
    resolve(&read, &["--take", &dot]).ended(0);
    assert_eq!(node.run(["get", "c", "k"]).ended(0).text(), "early");
    let read = again();
    resolve(&read, &["--value", "-both"]).ended(0);
    assert_eq!(node.run(["get", "c", "k"]).ended(0).text(), "-both");
    write(&node.path("merged"), "from a file");
    resolve(&again(), &["--file", "merged"]).ended(0);
    assert_eq!(node.run(["get", "c", "k"]).ended(0).text(), "from a file");
    resolve(&read_of(&node, "k"), &["--file", "nothing"]).ended(2).said("cannot open nothing");
    let read = again();
    node.run_with(b"from input", &["resolve", "c", "k", "--read", &read]).ended(0);
    assert_eq!(node.run(["get", "c", "k"]).ended(0).text(), "from input");
    let read = again();
    let removed = resolve(&read, &["--delete", "--json"]).ended(0).json();
    assert_eq!(removed["removed"], 2);
    resolve(&read, &["--delete"]).ended(1).said("no such key");
}

fn a_resolver_shows_what_it_makes_of_the_versions() {
    for (policy, values, shown) in [
        ("max@1", ["10", "9"], "10"),
        ("set-union@1", [r#"["b", "a"]"#, r#"["a",1.0]"#], r#"["a","b",1.0]"#),
        (
            "json-merge@1",
            [r#"{"a":1,"b":{"c":1}}"#, r#"{"b":{"d":2}}"#],
            r#"{"a":1,"b":{"c":1,"d":2}}"#,
        ),
        ("first@1", ["mine", "yours"], "mine"),
    ] {
        let node = TestNode::with_collection(&["--policy", policy]);
        put_concurrently(&node, "k", &values);
        let before = node.root();
        let got = node.run(["get", "c", "k"]).ended(0).said("concurrent versions");
        assert_eq!(got.text(), shown, "{policy}");
        let got = node.run(["get", "c", "k", "--json"]).ended(0).json();
        assert_eq!(got["merged"]["value"], shown);
        assert_eq!(got["versions"].as_array().unwrap().len(), 2);
        let listed = &conflicts(&node, &[])[0];
        assert_eq!(
            (&listed["merged"]["value"], &listed["siblings"][0]["shown"]),
            (&shown.into(), &false.into())
        );
        node.run(["export", "c", "out"]).ended(0);
        assert_eq!(std::fs::read(node.path("out/k")).unwrap(), shown.as_bytes());
        assert_eq!(node.root(), before, "reading writes nothing");
        node.run(["put", "c", "k", shown]).ended(0);
        node.run(["conflicts", "c"]).ended(0);
        let info = node.run(["collection", "ls", "--json"]).ended(0).lines();
        assert_eq!(
            format!(
                "{}@{}",
                info[0]["policy"]["resolver"].as_str().unwrap(),
                info[0]["policy"]["version"]
            ),
            policy
        );
    }
}

fn versions_that_cannot_be_merged_are_all_shown() {
    let node = TestNode::with_collection(&["--policy", "set-union@1"]);
    put_concurrently(&node, "k", &["[1]", "no array"]);
    node.run(["get", "c", "k"]).ended(1).said("cannot be merged");
    let got = node.run(["get", "c", "k", "--json"]).ended(0).json();
    assert_eq!(got["versions"].as_array().unwrap().len(), 2);
    assert!(got["merged"]["error"].as_str().unwrap().contains("no JSON"));
    assert!(node.run(["conflicts", "c"]).ended(1).text().contains("not merged"));
    node.run(["export", "c", "out.jsonl"]).ended(3).said("only the latest");
    put_concurrently(&node, "single", &["no array"]);
    assert_eq!(node.run(["get", "c", "single"]).ended(0).text(), "no array");
}

fn a_resolver_that_is_not_known_is_refused() {
    let node = TestNode::new();
    let create = |policy: &str| node.run(["collection", "create", "c", "--policy", policy]);
    create("newest@7").ended(2).said("does not know the resolver newest@7").said("max@1");
    create("max@2").ended(2).said("max@1");
    for bad in ["max@", "max@x", "@1", "max@+1", "max@99999999999", "mine"] {
        create(bad).ended(2).said("unknown policy");
    }
    create("max@1").ended(0);
    create("lww").ended(2).said("max@1");
    assert!(node.run(["collection", "ls"]).ended(0).text().contains("max@1"));
}

fn sessions_report_what_came_into_conflict() {
    let (a, b) = (
        TestNode::with_collection(&["--policy", "first@1"]),
        TestNode::with_collection(&["--policy", "first@1"]),
    );
    a.run(["put", "c", "name", "claimed at a"]).ended(0);
    b.run(["put", "c", "name", "claimed at b"]).ended(0);
    // deleted at b, while a version that b had not seen is written at a
    b.run(["put", "c", "gone", "as b saw it"]).ended(0);
    a.run(["put", "c", "gone", "written at a"]).ended(0);
    b.run(["rm", "c", "gone"]).ended(0);
    b.run(["conflicts", "c", "--reports"]).ended(0).said("no reports");

    let listening = a.listen(&[&b]);
    let done = b.run(["sync", "c", "--json", "--peer", &listening.peer]).ended(0).json();
    assert_eq!(listening.interrupt(), 0);
    assert_eq!(
        done["reports"],
        serde_json::json!({"concurrent_updates": 1, "deleted_remotely": 1, "violations": 1})
    );
    assert_eq!(done["reported"].as_array().unwrap().len(), 3);
    for (node, peer, number) in [(&b, &a, 3), (&a, &b, 2)] {
        let reports = node.run(["conflicts", "c", "--reports", "--json"]).ended(0).lines();
        assert_eq!(reports.len(), number, "{reports:?}");
        let kinds: Vec<_> = reports.iter().map(|one| one["report"].as_str().unwrap()).collect();
        assert!(kinds.contains(&"concurrent_update"));
        assert!(kinds.contains(&"unique_constraint_violation"));
        assert_eq!(kinds.contains(&"deleted_remotely"), number == 3);
        let id = peer.id();
        assert!(reports.iter().all(|one| one["peer"] == id.as_str()));
        assert_eq!(node.run(["get", "c", "name"]).ended(0).text(), "claimed at a");
        let conflict = &conflicts(node, &[])[0];
        let foreign: Vec<_> = conflict["siblings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|sibling| sibling["came_from"] == id.as_str())
            .collect();
        assert_eq!(foreign.len(), 1, "{conflict}");
        let text = node.run(["conflicts", "c", "--reports", "--limit", "1"]).ended(0);
        assert_eq!(text.text().lines().count(), 1);
    }
    let told = b.run(["conflicts", "c", "--reports"]).ended(0);
    assert!(told.text().contains("gone: deleted here") && told.text().contains("constraint"));
}

fn collections_with_other_resolvers_are_not_synchronised() {
    let a = TestNode::with_collection(&["--policy", "max@1"]);
    let b = TestNode::with_collection(&["--policy", "first@1"]);
    a.run(["put", "c", "k", "1"]).ended(0);
    let listening = a.listen(&[&b]);
    let refused = b.run(["sync", "c", "--peer", &listening.peer]).ended(5);
    assert!(refused.stderr.contains("another policy"), "{}", refused.stderr);
    assert_eq!(listening.interrupt(), 0);
    b.run(["get", "c", "k"]).ended(1);
}
