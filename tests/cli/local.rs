//! Verbs that need no peer.

use selfsame::node::Node;
use selfsame::store::EmbeddedStore;
use selfsame::types::{CollectionName, Key};

use super::node::{Ran, TestNode, write};

both_ways!(
    a_node_is_made_once,
    collections_have_settings_that_stay,
    what_is_put_is_got_byte_for_byte,
    keys_and_values_beyond_their_limits_are_refused,
    concurrent_versions_are_read_as_the_policy_says,
    proofs_hold_offline_for_their_root_and_key_alone,
    a_reader_that_goes_away_is_no_crash,
);

fn a_node_is_made_once() {
    let node = TestNode::new();
    let again = node.run(["init"]).ended(2).said("already");
    assert!(again.stderr.contains(&node.id()));
    let named = node.run(["id", "--json"]).ended(0).json();
    assert_eq!(named["id"], node.id());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(node.data().join("identity")), 0o600);
        assert_eq!(mode(node.data()), 0o700);
    }
    let config = std::fs::read_to_string(node.data().join("config.toml")).unwrap();
    assert_eq!(config, selfsame::node::config::Config::DEFAULT_TEXT);
    write(&node.path("full/notes.txt"), "mine");
    node.run(["init", "--data", "full"]).ended(2).said("holds other things").said("notes.txt");
    node.run(["ls", "c", "--data", "empty"]).ended(2).said("selfsame init");
}

#[test]
fn the_usual_place_is_used_when_none_is_named() {
    let node = TestNode::new();
    let run = |variables: &[(&str, &str)], verb: &str| -> Ran {
        let mut command = node.command([verb]);
        for name in ["SELFSAME_DATA", "XDG_DATA_HOME", "HOME"] {
            command.env_remove(name);
        }
        command.envs(variables.iter().copied()).output().unwrap().into()
    };
    run(&[], "id").ended(2).said("--data DIR or SELFSAME_DATA");
    let base = node.folder.path().to_str().unwrap();
    run(&[("HOME", base)], "init").ended(0);
    assert!(node.path(".local/share/selfsame/identity").exists());
    run(&[("XDG_DATA_HOME", base), ("HOME", "/nowhere")], "init").ended(0);
    assert!(node.path("selfsame/identity").exists());
}

fn collections_have_settings_that_stay() {
    let node = TestNode::new();
    node.run(["collection", "ls"]).ended(0).said("collection create");
    node.run(["collection", "create", "c", "--policy", "siblings", "--hash", "sha256"]).ended(0);
    let made = node.run(["collection", "create", "lists", "--json"]).ended(0).json();
    assert_eq!(
        (made["policy"].as_str(), made["hash_algorithm"].as_str()),
        (Some("lww"), Some("blake3"))
    );
    node.run(["collection", "create", "lists"]).ended(0);
    node.run(["collection", "create", "c"]).ended(2).said("sha256 and siblings");
    node.run(["collection", "create", "d", "--policy", "newest"]).ended(2).said("lww or siblings");
    node.run(["collection", "create", "d", "--hash", "md5"]).ended(2).said("blake3 or sha256");
    node.run(["collection", "create", ""]).ended(2).said("1 to 255 bytes");
    let listed = node.run(["collection", "ls", "--json"]).ended(0).lines();
    assert_eq!(listed.len(), 2);
    assert_eq!((&listed[0]["collection"], &listed[0]["entries"]), (&"c".into(), &0.into()));
    assert!(node.run(["collection", "ls"]).ended(0).text().contains("siblings  sha256"));
}

fn what_is_put_is_got_byte_for_byte() {
    let node = TestNode::with_collection(&[]);
    node.run(["put", "c", "text", "héllo"]).ended(0);
    assert_eq!(node.run(["get", "c", "text"]).ended(0).stdout, "héllo".as_bytes());
    let bytes = [0, 255, b'\n', 0];
    node.run_with(&bytes, &["put", "c", "bytes"]).ended(0);
    node.run_with(b"", &["put", "c", "nothing", "-"]).ended(0);
    assert_eq!(node.run(["get", "c", "bytes"]).ended(0).stdout, bytes);
    assert_eq!(node.run(["get", "c", "nothing"]).ended(0).stdout, b"");
    node.run(["put", "c", "--hex", "00ff", "of a key that is no text"]).ended(0);
    node.run(["put", "c", "negative", "-1"]).ended(0);
    node.run(["put", "c", "option", "--", "--json"]).ended(0);
    assert_eq!(node.run(["get", "c", "option"]).ended(0).text(), "--json");
    let got = node.run(["get", "c", "--hex", "00ff", "--json"]).ended(0).json();
    assert_eq!(got["key_hex"], "00ff");
    assert_eq!(got["versions"][0]["value"], "of a key that is no text");
    let got = node.run(["get", "c", "bytes", "--json"]).ended(0).json();
    assert_eq!(got["versions"][0]["value_hex"], "00ff0a00");
    let put = node.run(["put", "c", "text", "again", "--json"]).ended(0).json();
    assert_eq!((&put["size"], &put["root"]), (&5.into(), &node.root().into()));
    assert_eq!(put["value_hash"], blake3::hash(b"again").to_hex().as_str());

    let keys = node.run(["ls", "c", "--json"]).ended(0).lines();
    assert_eq!(keys.len(), 6);
    let listed = node.run(["ls", "c", "--prefix", "n"]).ended(0);
    let mut listed: Vec<_> = listed.text().lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, ["negative", "nothing"]);
    assert_eq!(node.run(["ls", "c", "--prefix", "00", "--hex"]).ended(0).text(), "\\x00\\xff\n");
    assert!(node.run(["ls", "c", "--long"]).ended(0).text().contains("  text\n"));

    node.run(["rm", "c", "text"]).ended(0);
    node.run(["rm", "c", "text"]).ended(1).said("no such key");
    let gone = node.run(["get", "c", "text"]).ended(1).said("no such key");
    assert!(gone.stdout.is_empty());
    let removed = node.run(["rm", "c", "bytes", "--json"]).ended(0).json();
    assert_eq!((&removed["removed"], &removed["root"]), (&1.into(), &node.root().into()));
}

fn keys_and_values_beyond_their_limits_are_refused() {
    let node = TestNode::with_collection(&[]);
    let before = node.root();
    node.run(["put", "c", "", "value"]).ended(2).said("1 to 1,024 bytes");
    node.run(["put", "c", &"k".repeat(1_025), "value"])
        .ended(2)
        .said("1,025 bytes".replace(',', "").as_str());
    node.run(["put", "c", "--hex", "0g", "value"]).ended(2).said("two hex digits");
    node.configure("[limits]\nmax_value_bytes = 10\n");
    node.run_with(&[1; 11], &["put", "c", "k"]).ended(2).said("max_value_bytes");
    node.run(["put", "c", "k", "eleven byte"]).ended(2).said("max_value_bytes");
    assert_eq!(node.root(), before);
    node.run_with(&[1; 10], &["put", "c", &"k".repeat(1_024)]).ended(0);
    node.run(["put", "nothing", "k", "v"]).ended(2).said("selfsame collection create nothing");
}

/// Leaves two concurrent versions of `key`, the later one second.
fn put_concurrently(node: &TestNode) {
    node.with_home(|home| {
        let collection = home.replica.collection(&CollectionName::new("c").unwrap()).unwrap();
        let (key, now) = (Key::new("key").unwrap(), Node::<EmbeddedStore>::now_ms());
        collection.put(&key, &b"early"[..], now).unwrap();
        collection.put_over(&key, &b"late"[..], &[], now + 1).unwrap();
    });
}

fn concurrent_versions_are_read_as_the_policy_says() {
    let node = TestNode::with_collection(&[]);
    put_concurrently(&node);
    let got = node.run(["get", "c", "key"]).ended(0).said("concurrent versions");
    assert_eq!(got.text(), "late");
    let got = node.run(["get", "c", "key", "--json"]).ended(0).json();
    assert_eq!((&got["conflict"], got["versions"].as_array().unwrap().len()), (&true.into(), 1));
    node.run(["export", "c", "out"]).ended(0).said("only the latest");
    assert_eq!(std::fs::read(node.path("out/key")).unwrap(), b"late");

    let node = TestNode::with_collection(&["--policy", "siblings"]);
    put_concurrently(&node);
    let got = node.run(["get", "c", "key"]).ended(1).said("--json").said("2 concurrent versions");
    assert!(got.stdout.is_empty());
    let got = node.run(["get", "c", "key", "--json"]).ended(0).json();
    assert_eq!(
        (&got["versions"][0]["value"], &got["versions"][1]["value"]),
        (&"late".into(), &"early".into())
    );
    node.run(["export", "c", "out.jsonl"]).ended(3).said("only the latest");
    node.run(["put", "c", "key", "both"]).ended(0);
    assert_eq!(node.run(["get", "c", "key"]).ended(0).text(), "both");
}

fn proofs_hold_offline_for_their_root_and_key_alone() {
    for hash in ["blake3", "sha256"] {
        let node = TestNode::with_collection(&["--hash", hash]);
        for at in 0..30 {
            node.run_with(&[at; 9], &["put", "c", &format!("key {at}")]).ended(0);
        }
        let root = node.root();
        let proved = node.run(["prove", "c", "key 7", "-o", "seven", "--json"]).ended(0).json();
        assert_eq!((&proved["result"], &proved["root"]), (&"present".into(), &root.clone().into()));
        node.run(["prove", "c", "key x", "-o", "none"]).ended(0);
        let to_output = node.run(["prove", "c", "key 7", "-o", "-"]).ended(0);
        assert_eq!(to_output.stdout, std::fs::read(node.path("seven")).unwrap());
        std::fs::remove_dir_all(node.data()).unwrap();
        write(&node.path("value"), [7; 9]);
        write(&node.path("other"), [7; 8]);
        let verify = |file: &str, root: &str, key: &str, more: &[&str]| {
            node.run([&["verify", file, "--root", root, "--key", key], more].concat())
        };
        let shown = verify("seven", &root, "key 7", &["--json"]).ended(0).json();
        assert_eq!((&shown["result"], &shown["collection"]), (&"present".into(), &"c".into()));
        verify("seven", &root, "key 7", &["--value", "value"]).ended(0);
        verify("seven", &root, "key 7", &["--value", "other"]).ended(6).said("not proved");
        verify("seven", &root, "key 8", &[]).ended(6).said("not proved");
        verify("seven", &"0".repeat(64), "key 7", &[]).ended(6).said("fresh bundle or root");
        verify("none", &root, "key x", &[]).ended(1);
        assert_eq!(verify("none", &root, "key x", &["--json"]).ended(1).json()["result"], "absent");
        verify("none", &root, "key 7", &[]).ended(6);
        verify("value", &root, "key 7", &[]).ended(6);
        verify("missing", &root, "key 7", &[]).ended(2).said("cannot read missing");
        verify("seven", "12", "key 7", &[]).ended(2).said("64 hex digits");
        let mut bytes = std::fs::read(node.path("seven")).unwrap();
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            if at % 37 == 0 {
                write(&node.path("flipped"), &bytes);
                verify("flipped", &root, "key 7", &[]).ended(6);
            }
            bytes[at] ^= 1;
        }
    }
}

fn a_reader_that_goes_away_is_no_crash() {
    let node = TestNode::with_collection(&[]);
    let lines: String =
        (0..3_000).map(|at| format!("{{\"key\":\"{at:0>60}\",\"value\":\"\"}}\n")).collect();
    node.run_with(lines.as_bytes(), &["import", "c", "-"]).ended(0);
    let mut child = node
        .command(["dump", "c"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), ended.stderr), (Some(2), Vec::new()));
}
