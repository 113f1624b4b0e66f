//! Proofs of many keys, of all entries under a prefix, and of what a commit changed.

use super::node::{TestNode, write};

both_ways!(
    many_keys_are_proved_in_one_file,
    all_entries_are_proved_and_chosen_from_by_their_beginning,
    a_commit_is_proved_from_root_to_root,
    a_proof_that_cannot_be_made_leaves_no_file,
);

fn filled(settings: &[&str]) -> TestNode {
    let node = TestNode::with_collection(settings);
    let line = |at| format!("{{\"key\":\"key {at}\",\"value\":\"value {at}\"}}\n");
    let lines: String = (0..300).map(line).collect();
    node.run_with(lines.as_bytes(), &["import", "c", "-"]).ended(0);
    node
}

fn many_keys_are_proved_in_one_file() {
    for hash in ["blake3", "sha256"] {
        let node = filled(&["--hash", hash]);
        let root = node.root();
        let prove = ["prove", "c", "key 7", "key x", "-o", "two", "--json"];
        let proved = node.run(prove).ended(0).json();
        assert_eq!((&proved["present"], &proved["absent"]), (&1.into(), &1.into()));
        assert_eq!(proved["root"], root);
        let lines: String = (0..200).map(|at| format!("key {}\r\n\n", at * 2)).collect();
        write(&node.path("wanted"), &lines);
        let said = node.run(["prove", "c", "--keys", "wanted", "-o", "many"]).ended(0);
        assert!(said.text().contains("200 keys of c: 150 present, 50 absent"), "{}", said.text());
        let same = node.run_with(lines.as_bytes(), &["prove", "c", "--keys", "-", "-o", "-"]);
        assert_eq!(same.ended(0).stdout, std::fs::read(node.path("many")).unwrap());
        let hex = node.run(["prove", "c", "--hex", "6b65792037", "00ff", "-o", "hex", "--json"]);
        assert_eq!(hex.ended(0).json()["present"], 1);
        std::fs::remove_dir_all(node.data()).unwrap();

        let verify = |file: &str, more: &[&str]| {
            node.run([&["verify", file, "--root", &root], more].concat())
        };
        let shown = verify("many", &["--json"]).ended(1).json();
        let keys = shown["keys"].as_array().unwrap();
        assert_eq!(keys.len(), 200);
        let present = keys.iter().filter(|key| key["result"] == "present").count();
        assert_eq!((present, &shown["root"]), (150, &root.clone().into()));
        verify("many", &["--key", "key 4", "--key", "key 8"]).ended(0);
        verify("many", &["--key", "key 4", "--key", "key 398"]).ended(1);
        write(&node.path("value"), "value 4");
        verify("many", &["--key", "key 4", "--value", "value"]).ended(0);
        verify("many", &["--key", "key 8", "--value", "value"]).ended(6).said("not proved");
        verify("many", &["--value", "value"]).ended(2).said("--key");
        verify("many", &["--key", "key 5"]).ended(6).said("says nothing of key 5");
        verify("many", &["--starts-with", "key"]).ended(2).said("all entries");
        verify("many", &["--node", &"0".repeat(64)]).ended(2);
        assert!(verify("two", &[]).ended(1).text().contains("proved: key x is not in c"));
        assert_eq!(verify("hex", &["--json"]).ended(1).json()["keys"].as_array().unwrap().len(), 2);
        node.run(["verify", "many"]).ended(2).said("--root");
        node.run(["verify", "many", "--root", &"0".repeat(64)])
            .ended(6)
            .said("fresh bundle or root");
        let mut bytes = std::fs::read(node.path("two")).unwrap();
        for at in (0..bytes.len()).step_by(41) {
            bytes[at] ^= 1;
            write(&node.path("flipped"), &bytes);
            verify("flipped", &["--key", "key 7", "--key", "key x"]).ended(6);
            bytes[at] ^= 1;
        }
    }
}

fn all_entries_are_proved_and_chosen_from_by_their_beginning() {
    let node = filled(&[]);
    let root = node.root();
    let all = node.run(["prove", "c", "--prefix", "/0", "-o", "all", "--json"]).ended(0).json();
    assert_eq!((&all["entries"], &all["prefix"]), (&300.into(), &"/0".into()));
    let mut entries = 0;
    for digit in "0123456789abcdef".chars() {
        let name = format!("part-{digit}");
        let prefix = digit.to_string();
        let part = node.run(["prove", "c", "--prefix", &prefix, "-o", &name, "--json"]);
        entries += part.ended(0).json()["entries"].as_u64().unwrap();
    }
    assert_eq!(entries, 300, "sixteen prefixes are all");
    for (prefix, what) in [("zz", "no prefix"), ("3f/257", "256"), ("ff/3", "not zero"), ("", "")] {
        node.run(["prove", "c", "--prefix", prefix, "-o", "no"]).ended(2).said(what);
    }
    node.run(["prove", "c", "key 1", "--prefix", "3f", "-o", "no"]).ended(2).said("--prefix");
    std::fs::remove_dir_all(node.data()).unwrap();

    let verify =
        |file: &str, more: &[&str]| node.run([&["verify", file, "--root", &root], more].concat());
    let shown = verify("all", &["--json", "--starts-with", "key 29"]).ended(0).json();
    assert_eq!(shown["keys"].as_array().unwrap().len(), 11);
    let said = verify("all", &[]).ended(0);
    assert!(said.text().ends_with("these are all entries of the collection, 300 in all\n"));
    verify("all", &["--starts-with", "nothing"]).ended(0);
    verify("all", &["--key", "key 3"]).ended(0);
    verify("all", &["--key", "key 300"]).ended(1);
    verify("part-3", &["--starts-with", "key"]).ended(2).said("--prefix /0");
    let of_key = |file: &str| verify(file, &["--key", "key 3"]).code;
    let verdicts: Vec<_> =
        "0123456789abcdef".chars().map(|digit| of_key(&format!("part-{digit}"))).collect();
    assert_eq!(verdicts.iter().filter(|code| **code == 0).count(), 1);
    assert_eq!(verdicts.iter().filter(|code| **code == 6).count(), 15);
    let bytes = std::fs::read(node.path("all")).unwrap();
    write(&node.path("cut"), &bytes[..bytes.len() - 1]);
    verify("cut", &[]).ended(6);
}

fn a_commit_is_proved_from_root_to_root() {
    let node = filled(&[]);
    let id = node.id();
    let before = node.root();
    node.run_with(b"another", &["put", "c", "key 7"]).ended(0);
    let after = node.root();
    node.run(["rm", "c", "key 8"]).ended(0);
    let removed = node.root();
    let proved =
        node.run(["prove", "c", "--change", "key 7", "-o", "put", "--json"]).ended(0).json();
    assert_eq!(
        (&proved["root_before"], &proved["root"]),
        (&before.clone().into(), &after.clone().into())
    );
    assert_eq!((&proved["changes"], &proved["node"]), (&1.into(), &id.clone().into()));
    let position = proved["position"].as_u64().unwrap();
    let at = position.to_string();
    let same = node.run(["prove", "c", "--change-at", &at, "-o", "same", "--json"]).ended(0).json();
    assert_eq!(same["root"], after);
    node.run(["prove", "c", "--change", "key 8", "-o", "removed"]).ended(0);
    let import = node.run(["prove", "c", "--change", "key 9", "-o", "import", "--json"]);
    let import = import.ended(0).json();
    assert_eq!((&import["changes"], &import["root"]), (&300.into(), &before.clone().into()));
    node.run(["prove", "c", "--change", "key x", "-o", "no"]).ended(1).said("no such change");
    node.run(["prove", "c", "--change-at", "999", "-o", "no"]).ended(1).said("no such change");
    assert!(!node.path("no").exists());
    std::fs::remove_dir_all(node.data()).unwrap();

    let verify =
        |file: &str, more: &[&str]| node.run([&["verify", file, "--node", &id], more].concat());
    let shown = verify("put", &["--root", &before, "--json", "--key", "key 7"]).ended(0).json();
    assert_eq!(
        (&shown["root"], &shown["root_before"]),
        (&after.clone().into(), &before.clone().into())
    );
    assert_eq!(shown["changes"][0]["key"], "key 7");
    let said = verify("put", &["--key", "key 7"]).ended(0).said("the word of that node");
    assert!(said.text().contains("proved: key 7 was changed"), "{}", said.text());
    assert!(said.text().contains("this change alone led from root"), "{}", said.text());
    verify("put", &["--root", &before, "--root-after", &after]).ended(0);
    verify("put", &["--root", &after]).ended(6).said("begins at root");
    verify("put", &["--root-after", &before]).ended(6).said("leads to root");
    verify("put", &["--key", "key 8"]).ended(6).said("says nothing");
    write(&node.path("value"), "another");
    verify("put", &["--key", "key 7", "--value", "value"]).ended(0);
    let said = verify("removed", &["--root", &after, "--root-after", &removed, "--key", "key 8"]);
    assert!(said.ended(0).text().contains("key 8 was removed"));
    verify("import", &["--key", "key 299", "--root-after", &before]).ended(0);
    node.run(["verify", "put"]).ended(2).said("--node");
    let stranger = TestNode::new().id();
    node.run(["verify", "put", "--node", &stranger]).ended(6).said("not of the one asked for");
    let mut bytes = std::fs::read(node.path("put")).unwrap();
    for at in (0..bytes.len()).step_by(53) {
        bytes[at] ^= 1;
        write(&node.path("flipped"), &bytes);
        verify("flipped", &[]).ended(6);
        bytes[at] ^= 1;
    }
}

fn a_proof_that_cannot_be_made_leaves_no_file() {
    let node = filled(&[]);
    write(&node.path("long"), "k".repeat(1_025));
    node.run(["prove", "c", "--keys", "long", "-o", "no"]).ended(2).said("line 1 of long");
    write(&node.path("none"), "\n\n");
    node.run(["prove", "c", "--keys", "none", "-o", "no"]).ended(2).said("none in the file");
    write(&node.path("digits"), "00\n0x\n");
    node.run(["prove", "c", "--hex", "--keys", "digits", "-o", "no"]).ended(2).said("line 2");
    let many: String = (0..65_537).map(|at| format!("{at}\n")).collect();
    write(&node.path("many"), many);
    node.run(["prove", "c", "--keys", "many", "-o", "no"]).ended(2).said("65536 keys at most");
    node.run(["prove", "c", "-o", "no"]).ended(2).said("KEY");
    node.run(["prove", "nothing", "k", "l", "-o", "no"]).ended(2).said("no collection nothing");
    assert!(!node.path("no").exists());
}
