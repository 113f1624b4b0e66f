//! Import and export: folders and JSON lines, there and back.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use super::node::{TestNode, interrupt, write};
use selfsame::replica::CollectionView as _;
use selfsame::types::CollectionName;

both_ways!(
    a_folder_comes_back_byte_for_byte,
    importing_again_writes_nothing,
    json_lines_come_back_with_any_key,
    broken_lines_are_named_and_the_rest_goes_on,
    #[cfg(unix)]
    what_cannot_be_imported_is_named_and_the_rest_goes_on,
    the_nodes_own_secrets_are_never_imported_nor_written_over,
    delete_removes_what_the_folder_no_longer_has_and_asks_before_much,
    keys_that_would_leave_the_folder_are_named_and_nothing_is_written,
    #[cfg(unix)]
    links_in_the_target_lead_nowhere,
    an_interrupted_import_keeps_what_it_wrote_and_goes_on_from_there,
);

/// Every file below a folder by its path.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}

fn make_site(folder: &Path) {
    write(&folder.join("index.html"), "<p>hello");
    write(&folder.join("empty"), "");
    write(&folder.join("a/b/c/deep.bin"), [0, 255, 10, 13, 0]);
    write(&folder.join("a/ünï—cödé 🦀"), "crab");
    write(&folder.join(" spaces "), "\r\n");
    write(&folder.join("..dots.."), "fine");
    write(&folder.join("large"), vec![7; 3_000_000]);
}

/// Position in the change log, and root.
fn state(node: &TestNode) -> (u64, String) {
    node.with_home(|home| {
        let collection = home.replica.collection(&CollectionName::new("c").unwrap()).unwrap();
        let root = collection.root().unwrap().to_string();
        (collection.snapshot().unwrap().log_position(), root)
    })
}

fn a_folder_comes_back_byte_for_byte() {
    let node = TestNode::with_collection(&[]);
    make_site(&node.path("site"));
    let done = node.run(["import", "c", "site", "--json"]).ended(0).json();
    assert_eq!((&done["written"], &done["unchanged"]), (&7.into(), &0.into()));
    assert_eq!(done["root"], node.root());
    node.run(["export", "c", "copy"]).ended(0);
    assert_eq!(files(&node.path("copy")), files(&node.path("site")));
    node.run(["export", "c", "copy"]).ended(2).said("--force");
    write(&node.path("copy/empty"), "no longer");
    write(&node.path("copy/extra"), "stays");
    node.run(["export", "c", "copy", "--force"]).ended(0);
    fs::remove_file(node.path("copy/extra")).unwrap();
    assert_eq!(files(&node.path("copy")), files(&node.path("site")));
}

fn importing_again_writes_nothing() {
    let node = TestNode::with_collection(&[]);
    make_site(&node.path("site"));
    node.run(["import", "c", "site"]).ended(0);
    let before = state(&node);
    let again = node.run(["import", "c", "site", "--json"]).ended(0).json();
    assert_eq!((&again["written"], &again["unchanged"]), (&0.into(), &7.into()));
    assert_eq!(state(&node), before);
    write(&node.path("site/index.html"), "<p>changed");
    let again = node.run(["import", "c", "site", "--json"]).ended(0).json();
    assert_eq!((&again["written"], &again["unchanged"]), (&1.into(), &6.into()));
}

fn json_lines_come_back_with_any_key() {
    let node = TestNode::with_collection(&[]);
    let lines = concat!(
        "{\"key\":\"text\",\"value\":\"a \\\"quoted\\\" line\\n\"}\n",
        "\n",
        "{\"key_hex\":\"00ff\",\"value_hex\":\"ff00\"}\n",
        "{\"key\":\"../up\",\"value\":\"\"}\n",
        "{\"value\":\"no newline at the end\",\"key\":\"/absolute\"}",
    );
    write(&node.path("in.jsonl"), lines);
    let done = node.run(["import", "c", "in.jsonl", "--json"]).ended(0).json();
    assert_eq!(done["written"], 4);
    assert_eq!(node.run(["get", "c", "--hex", "00ff"]).ended(0).stdout, [255, 0]);
    node.run(["export", "c", "out.jsonl"]).ended(0);
    node.run(["export", "c", "out.jsonl"]).ended(2).said("--force");
    let to_output = node.run(["export", "c", "-"]).ended(0);
    assert_eq!(to_output.stdout, fs::read(node.path("out.jsonl")).unwrap());
    let mut keys: Vec<_> = to_output.lines().iter().map(|line| line["key"].clone()).collect();
    keys.sort_unstable_by_key(ToString::to_string);
    assert_eq!(keys, ["../up".into(), "/absolute".into(), "text".into(), serde_json::Value::Null]);

    let other = TestNode::with_collection(&[]);
    other.run_with(&to_output.stdout, &["import", "c", "-"]).ended(0);
    assert_eq!(sorted(&other), sorted(&node));
}

fn sorted(node: &TestNode) -> Vec<String> {
    let lines = node.run(["export", "c", "-"]).ended(0);
    let mut lines: Vec<_> = lines.text().lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

fn broken_lines_are_named_and_the_rest_goes_on() {
    let node = TestNode::with_collection(&[]);
    node.configure("[limits]\nmax_value_bytes = 100\n");
    let long = "x".repeat(101);
    let huge = "x".repeat(100_000);
    let lines = [
        "{\"key\":\"first\",\"value\":\"1\"}",
        "{\"key\":\"broken\",",
        "{\"key\":\"\",\"value\":\"1\"}",
        &format!("{{\"key\":\"long\",\"value\":\"{long}\"}}"),
        &format!("{{\"key\":\"huge\",\"value\":\"{huge}\"}}"),
        "{\"key\":\"both\",\"value\":\"1\",\"value_hex\":\"00\"}",
        "[]",
        "{\"key\":\"last\",\"value\":\"1\"}",
    ];
    let input = lines.join("\n");
    let done = node.run_with(input.as_bytes(), &["import", "c", "-", "--json"]).ended(3);
    for said in ["line 2: column", "line 3: the key is empty", "line 4: the value is larger"] {
        assert!(done.stderr.contains(said), "{said}: {}", done.stderr);
    }
    let done = done.said("line 5: it is longer").said("line 6: it must have either").said("line 7");
    assert_eq!((&done.json()["written"], &done.json()["refused"]), (&2.into(), &6.into()));
    node.run(["get", "c", "first"]).ended(0);
    node.run(["get", "c", "last"]).ended(0);
}

#[cfg(unix)]
fn what_cannot_be_imported_is_named_and_the_rest_goes_on() {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;

    let node = TestNode::with_collection(&[]);
    node.configure("[limits]\nmax_value_bytes = 1000\n");
    let site = node.path("site");
    write(&site.join("good"), "good");
    write(&site.join("large"), [0; 1_001]);
    let name = std::ffi::OsStr::from_bytes(b"bad\xffname");
    write(&site.join(name), "x");
    let deep = ["d".repeat(250), "e".repeat(250), "f".repeat(250), "g".repeat(250), "h".repeat(60)];
    write(&site.join(deep.join("/")), "x");
    symlink("/etc", site.join("link")).unwrap();
    symlink("good", site.join("link to good")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(site.join("pipe")).status().unwrap();
    assert!(made.success());
    let done = node.run(["import", "c", "site", "--delete", "--json"]).ended(3);
    let done = done.said("larger than 1000 bytes").said("not UTF-8").said("1064 bytes");
    let done = done.said("link: it is a link").said("neither a file nor a folder");
    let done = done.said("nothing was removed");
    let summary = done.json();
    let counts = ["written", "refused", "skipped"].map(|name| summary[name].as_u64().unwrap());
    assert_eq!(counts, [1, 3, 3]);
    node.run(["import", "c", "missing"]).ended(2).said("cannot read missing");
    node.run(["import", "c", "site/pipe"]).ended(2).said("neither a folder nor a file");
}

fn the_nodes_own_secrets_are_never_imported_nor_written_over() {
    let node = TestNode::with_collection(&[]);
    write(&node.path("notes"), "notes");
    let done = node.run(["import", "c", ".", "--json"]).ended(0).said("data folder");
    assert_eq!(done.json()["written"], 1);
    node.run(["import", "c", "data"]).ended(2).said("data folder");
    node.run(["export", "c", "data/store/out"]).ended(2).said("data folder");
    node.run(["export", "c", "data", "--force"]).ended(2).said("data folder");
}

fn delete_removes_what_the_folder_no_longer_has_and_asks_before_much() {
    let node = TestNode::with_collection(&[]);
    for at in 0..10 {
        write(&node.path(&format!("site/{at}")), [at]);
    }
    node.run(["import", "c", "site", "--delete"]).ended(0);
    for at in 0..5 {
        fs::remove_file(node.path(&format!("site/{at}"))).unwrap();
    }
    node.run(["import", "c", "site"]).ended(0);
    assert_eq!(node.run(["ls", "c"]).text().lines().count(), 10);
    let done = node.run(["import", "c", "site", "--delete", "--json"]).ended(0).json();
    assert_eq!((&done["removed"], &done["unchanged"]), (&5.into(), &5.into()));
    fs::remove_dir_all(node.path("site")).unwrap();
    fs::create_dir(node.path("site")).unwrap();
    let done = node.run(["import", "c", "site", "--delete", "--json"]).ended(7).said("--yes");
    assert_eq!(done.json()["removed"], 0);
    assert_eq!(node.run(["ls", "c"]).text().lines().count(), 5);
    node.run(["import", "c", "site", "--delete", "--yes"]).ended(0);
    assert_eq!(node.run(["ls", "c"]).text(), "");
    node.run(["import", "c", "site", "--yes"]).ended(2);
}

fn keys_that_would_leave_the_folder_are_named_and_nothing_is_written() {
    for key in ["../up", "/tmp/absolute", "a//b", "a/../../b", "a/", "./a", "ok/.."] {
        let node = TestNode::with_collection(&[]);
        node.run(["put", "c", "harmless", "1"]).ended(0);
        node.run(["put", "c", key, "evil"]).ended(0);
        let refused = node.run(["export", "c", "in/out"]).ended(2).said(key).said(".jsonl");
        assert!(refused.stderr.contains("1 keys"), "{}", refused.stderr);
        assert!(!node.path("in").exists() && !node.path("up").exists());
        node.run(["export", "c", "out.jsonl"]).ended(0);
    }
    let node = TestNode::with_collection(&[]);
    node.run(["put", "c", "a/b/c", "1"]).ended(0);
    node.run(["put", "c", "a", "2"]).ended(0);
    node.run(["put", "c", "--hex", "ff00", "3"]).ended(0);
    node.run(["export", "c", "out"]).ended(2).said("a file, and a folder").said("not UTF-8");
    assert!(!node.path("out").exists());
}

#[cfg(unix)]
fn links_in_the_target_lead_nowhere() {
    let node = TestNode::with_collection(&[]);
    write(&node.path("outside/kept"), "kept");
    fs::create_dir(node.path("out")).unwrap();
    std::os::unix::fs::symlink(node.path("outside"), node.path("out/dir")).unwrap();
    std::os::unix::fs::symlink(node.path("outside/kept"), node.path("out/file")).unwrap();
    node.run(["put", "c", "dir/new", "x"]).ended(0);
    node.run(["put", "c", "file", "y"]).ended(0);
    node.run(["export", "c", "out", "--force"]).ended(3).said("dir/new").said("no folder");
    assert_eq!(files(&node.path("outside")), BTreeMap::from([("kept".into(), b"kept".to_vec())]));
    assert!(!fs::symlink_metadata(node.path("out/file")).unwrap().is_symlink());
    assert_eq!(fs::read(node.path("out/file")).unwrap(), b"y");
}

fn an_interrupted_import_keeps_what_it_wrote_and_goes_on_from_there() {
    let node = TestNode::with_collection(&[]);
    for at in 0..400 {
        write(&node.path(&format!("site/{at}")), vec![at as u8; 200_000]);
    }
    let mut child = node
        .command(["import", "c", "site"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // the first batch is what makes the journal grow
    let journal = node.data().join("store");
    while size_of(&journal) < 10 << 20 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    if child.try_wait().unwrap().is_none() {
        interrupt(&child);
    }
    let ended = child.wait_with_output().unwrap();
    // a fast machine may have been done before it was told to stop
    if ended.status.code() == Some(130) {
        let told = String::from_utf8(ended.stderr).unwrap();
        assert!(told.contains("what was imported is kept"), "{told}");
    } else {
        assert_eq!(ended.status.code(), Some(0));
    }
    let kept = node.run(["ls", "c"]).ended(0).text().lines().count() as u64;
    assert!(kept > 0);
    let done = node.run(["import", "c", "site", "--json"]).ended(0).json();
    let (written, unchanged) = (done["written"].as_u64(), done["unchanged"].as_u64());
    assert_eq!((written, unchanged), (Some(400 - kept), Some(kept)));
}

fn size_of(folder: &Path) -> u64 {
    let Ok(found) = fs::read_dir(folder) else { return 0 };
    found
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(about) if about.is_dir() => size_of(&entry.path()),
            Ok(about) => about.len(),
            Err(_) => 0,
        })
        .sum()
}
