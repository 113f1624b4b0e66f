//! The demo as a person runs it: the real binary, three nodes, every kind of work.
#![cfg(feature = "node")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::time::Duration;

use assert_cmd::Command;
use selfsame::hash::Root;
use selfsame::node::home::Home;
use selfsame::types::CollectionName;
use serde_json::Value;

const NODES: [&str; 3] = ["oslo", "lima", "nara"];

fn demo() -> Command {
    let mut command = Command::cargo_bin("selfsame").unwrap();
    command.arg("demo").timeout(Duration::from_secs(300));
    command
}

fn root_of(folder: &Path) -> Root {
    let home = Home::open(folder).unwrap();
    let states = home.replica.collection(&CollectionName::new("states").unwrap()).unwrap();
    assert!(states.check().unwrap().is_sound());
    let root = states.root().unwrap();
    drop(states);
    home.close().unwrap();
    root
}

#[test]
fn it_shows_each_kind_of_work_and_leaves_equal_stores() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let run = demo().args(["--entries", "1500", "--keep"]).arg(&kept).assert().success();
    let told = String::from_utf8(run.get_output().stdout.clone()).unwrap();
    for work in ["announcement alone", "bloom exchange", "sketch exchange", "delta"] {
        let line = told.lines().find(|line| line.trim_start().starts_with(work)).unwrap();
        assert!(line.bytes().any(|byte| byte.is_ascii_digit()), "{line}");
    }
    assert!(!told.contains("NOT"), "{told}");
    assert!(told.lines().all(|line| line.chars().count() <= 80 || line.contains("--data")));
    assert!(told.contains("both signatures hold"));
    let roots = NODES.map(|name| root_of(&kept.join(name)));
    assert!(roots.iter().all(|root| *root == roots[0]));
    assert!(told.contains(&roots[0].to_string()[..16]));

    let again = demo().args(["--entries", "10", "--keep"]).arg(&kept).assert().code(2);
    let told = String::from_utf8(again.get_output().stderr.clone()).unwrap();
    assert!(told.contains("is not empty"), "{told}");
}

#[test]
fn programs_read_a_line_of_json_for_each_session() {
    let run = demo().args(["--entries", "400", "--seed", "9", "--json"]).assert().success();
    let told = String::from_utf8(run.get_output().stdout.clone()).unwrap();
    let lines: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, sessions) = lines.split_last().unwrap();
    assert_eq!(last["equal"], true);
    assert_eq!(last["as_promised"], true);
    assert_eq!(last["roots"].as_array().unwrap().len(), 3);
    assert!(sessions.iter().all(|session| session["complete"] == true));
    let found = |phase: &str| {
        sessions
            .iter()
            .filter_map(|session| session["phases"][phase]["keys_found"].as_array())
            .flatten()
            .filter_map(Value::as_u64)
            .sum::<u64>()
    };
    assert!(found("announce") > 400 && found("bloom") > 0 && found("sketch") > 0, "{told}");
}

#[test]
fn a_small_folder_of_ones_own_is_read_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("files");
    std::fs::create_dir_all(files.join("deep/er")).unwrap();
    for (name, content) in
        [("a.txt", "first"), ("deep/b.bin", "\0\u{1}"), ("deep/er/empty", ""), ("n", "7\n")]
    {
        std::fs::write(files.join(name), content).unwrap();
    }
    let kept = folder.path().join("kept");
    demo().arg("--dir").arg(&files).arg("--keep").arg(&kept).assert().success();
    let roots = NODES.map(|name| root_of(&kept.join(name)));
    assert!(roots.iter().all(|root| *root == roots[0]));
    assert_eq!(std::fs::read(files.join("a.txt")).unwrap(), b"first");
    assert_eq!(walkdir::WalkDir::new(&files).into_iter().count(), 7);

    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    demo().arg("--dir").arg(&empty).assert().code(2);
}

#[cfg(unix)]
#[test]
fn stopped_by_ctrl_c_it_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_selfsame"))
        .args(["demo", "--entries", "100000"])
        .env("TMPDIR", folder.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let filled = || std::fs::read_dir(folder.path()).unwrap().next().is_some();
    while !filled() {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(500));
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!filled(), "the stores are gone");
}
