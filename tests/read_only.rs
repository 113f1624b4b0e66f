//! A data folder that cannot be written: on a file system that is really read-only, and one that
//! belongs to somebody else. Where the system lets nobody make the one or be the other, the test
//! says so.
#![cfg(all(feature = "node", target_os = "linux"))]
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

#[path = "support/mounts.rs"]
mod mounts;
#[path = "cli/node.rs"]
mod node;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use node::{BINARY, Ran, TestNode};

/// Verbs that open the store, with what they would do.
const VERBS: [&[&str]; 5] = [
    &["serve", "--addr", "127.0.0.1:0"],
    &["listen", "--addr", "127.0.0.1:0"],
    &["put", "c", "k", "other"],
    &["get", "c", "k"],
    &["digest", "c"],
];
/// Verbs that read files beside it.
const OTHERS: [&[&str]; 4] = [&["id"], &["peer", "ls"], &["peer", "invites"], &["config", "check"]];

fn node_in(folder: &Path) -> TestNode {
    let node = TestNode::bare_in(folder);
    node.run(["init"]).ended(0);
    node.run(["collection", "create", "c"]).ended(0);
    node.run(["put", "c", "k", "v"]).ended(0);
    node
}

/// Everything below a folder: names, modes and bytes.
fn all(folder: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let (path, about) = entry.map(|one| (one.path(), one.metadata().unwrap())).unwrap();
            let bytes = if about.is_dir() {
                folders.push(path.clone());
                Vec::new()
            } else {
                std::fs::read(&path).unwrap()
            };
            found.insert(path, (about.permissions().mode(), bytes));
        }
    }
    found
}

/// What became of a command that ought to end at once.
fn ended(mut command: Command) -> Ran {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > Duration::from_secs(30) {
            let _ = child.kill();
            panic!("it runs on: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap().into()
}

/// No verb opens the store, each says why in the same words, and nothing is changed.
fn refused(node: &TestNode, words: &[&str], run: impl Fn(&[&str]) -> Command) {
    let before = all(&node.data());
    for verb in VERBS {
        let mut ran = ended(run(verb)).ended(2);
        for words in words {
            ran = ran.said(words);
        }
        assert!(ran.stdout.is_empty(), "{verb:?}: {}", ran.text());
        assert_eq!(ran.stderr.lines().count(), 1, "{verb:?}: {}", ran.stderr);
    }
    for verb in OTHERS {
        ended(run(verb)).ended(0);
    }
    let told = ended(run(&["doctor"])).ended(2);
    for words in ["wrong  folder", "this user may not read and write it"] {
        assert!(told.text().contains(words), "{words}: {}", told.text());
    }
    assert!(all(&node.data()) == before, "something was changed");
}

#[test]
fn a_read_only_file_system_is_named_and_nothing_is_changed() {
    let test = "a_read_only_file_system_is_named_and_nothing_is_changed";
    let Some(disk) = mounts::own_disk(test, 64) else { return };
    let mounted = |how: &str| {
        let mut command = Command::new("mount");
        command.args(["-o", &format!("remount,{how}")]).arg(&disk);
        assert!(command.status().unwrap().success(), "{how}");
    };
    let node = node_in(&disk);
    let store = node.data().join("store");
    let words = [&*store.to_string_lossy(), "read-only", "mount the file system for writing"];
    mounted("ro");
    assert!(std::fs::write(disk.join("probe"), "").is_err());
    refused(&node, &words, |verb| node.command(verb));
    let invited = ended(node.command(["peer", "invite", "--address", "192.0.2.7:7447"])).ended(2);
    assert!(invited.said("Read-only").stdout.is_empty(), "it would be of no use");
    mounted("rw");
    assert_eq!(node.run(["get", "c", "k"]).ended(0).text(), "v");
    node.run(["put", "c", "k", "other"]).ended(0);
    node.run(["recover", "c", "--check"]).ended(0);
}

#[test]
fn a_folder_that_this_user_may_not_write_is_named_and_nothing_is_changed() {
    let test = "a_folder_that_this_user_may_not_write_is_named_and_nothing_is_changed";
    let node = node_in(&std::env::temp_dir());
    let (store, probe) = (node.data().join("store"), node.data().join("store/probe"));
    let folders = [store.clone(), store.join("LOCK"), node.data()];
    let before = folders.each_ref().map(|path| std::fs::metadata(path).unwrap().permissions());
    let set = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set(&folders[1], 0o400);
    set(&folders[0], 0o500);
    set(&folders[2], 0o500);
    // to root nothing is forbidden, save where it is nobody
    let ways: [&[&str]; 2] = [&[], &["unshare", "-U"]];
    let way = ways.into_iter().find(|way| {
        let mut touch = [way, &["touch"][..]].concat().into_iter();
        let mut command = Command::new(touch.next().unwrap());
        command.args(touch).arg(&probe).stderr(Stdio::piped());
        let touched = command.output();
        let _ = std::fs::remove_file(&probe);
        touched.is_ok_and(|ran| String::from_utf8_lossy(&ran.stderr).contains("touch:"))
    });
    if let Some(way) = way {
        refused(&node, &[&*store.to_string_lossy(), "this user may not"], |verb| {
            let mut words = [way, &[BINARY][..], verb].concat().into_iter();
            let mut command = Command::new(words.next().unwrap());
            command.env("SELFSAME_DATA", node.data()).args(words);
            command
        });
    }
    for (path, permissions) in folders.iter().zip(before) {
        std::fs::set_permissions(path, permissions).unwrap();
    }
    if way.is_none() {
        mounts::skipped(test, "this user may write everywhere, and be nobody else");
        return;
    }
    assert_eq!(node.run(["get", "c", "k"]).ended(0).text(), "v");
}
