//! Backups and restores: there and back, in chains and folders, refused by name, interrupted.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use super::node::{TestNode, interrupt, write};

both_ways!(
    a_collection_comes_back_as_it_was,
    a_folder_holds_chains_and_restores_all_of_a_node,
    parts_follow_a_file_and_are_refused_where_they_do_not_fit,
    a_backup_that_does_not_hold_is_refused_and_nothing_changes,
    restored_to_an_older_moment_and_rejoined_nothing_is_lost_or_resurrected,
    paths_that_cannot_be_meant_are_refused,
    ctrl_c_leaves_no_half_backup_and_no_half_restore,
    a_large_value_and_a_wide_collection_come_back,
);

/// Everything that is held, in an order that does not change.
fn dump(node: &TestNode) -> Vec<String> {
    let mut lines: Vec<_> =
        node.run(["dump", "c", "--values"]).ended(0).text().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn fill(node: &TestNode, from: u32, to: u32) {
    let lines: String = (from..to)
        .map(|at| format!("{{\"key\":\"key {at}\",\"value\":\"value {at}\"}}\n"))
        .collect();
    node.run_with(lines.as_bytes(), &["import", "c", "-"]).ended(0);
}

fn a_collection_comes_back_as_it_was() {
    let node = TestNode::with_collection(&["--policy", "siblings", "--hash", "sha256"]);
    fill(&node, 0, 300);
    node.run(["rm", "c", "key 7"]).ended(0);
    let (before, root) = (dump(&node), node.root());
    let made = node.run(["backup", "c", "--to", "c.backup", "--json"]).ended(0).json();
    assert_eq!((&made["held"], &made["full"]), (&299.into(), &true.into()));
    assert_eq!(made["root"], root);
    assert_eq!(made["bytes"], fs::metadata(node.path("c.backup")).unwrap().len());
    node.run(["backup", "c", "--to", "c.backup"]).ended(2).said("never written over");
    let piped = node.run(["backup", "c", "--to", "-"]).ended(0).stdout;
    assert_eq!(&piped[..16], b"selfsame backup\x01");

    let verified = node.run(["backup", "verify", "c.backup", "--json"]).ended(0).json();
    assert_eq!((&verified["sound"], &verified["root"]), (&true.into(), &root.clone().into()));
    assert_eq!(verified["node"], node.id());
    let listed = node.run(["backup", "ls", "c.backup", "--json"]).ended(0).json();
    assert_eq!((&listed["policy"], &listed["entries"]), (&"siblings".into(), &299.into()));
    assert!(node.run(["backup", "ls", "c.backup"]).ended(0).text().contains("full"));

    fill(&node, 300, 310);
    node.run(["rm", "c", "key 8"]).ended(0);
    node.run(["restore", "c.backup"]).ended(2).said("--replace");
    let dry = node.run(["restore", "c.backup", "--replace", "--dry-run", "--json"]).ended(0).json();
    assert_eq!((&dry["would_replace"], &dry["entries"]), (&308.into(), &299.into()));
    assert_eq!(node.run(["ls", "c"]).ended(0).text().lines().count(), 308);
    let done = node.run(["restore", "c.backup", "--replace", "--json"]).ended(0).json();
    assert_eq!((&done["replaced"], &done["entries"]), (&true.into(), &299.into()));
    assert_eq!((&done["root"], dump(&node)), (&root.into(), before.clone()));
    node.run(["recover", "c", "--check"]).ended(0);
    node.run(["put", "c", "after", "restored"]).ended(0);

    // at another node, from standard input, under another name
    let other = TestNode::new();
    other.run_with(&piped, &["restore", "-"]).ended(0);
    assert_eq!(dump(&other), before);
    let beside = ["restore", "-", "--collection", "as it was"];
    other.run_with(&piped, &beside).ended(0);
    assert_eq!(other.run(["ls", "as it was"]).ended(0).text().lines().count(), 299);
    other.run(["recover", "as it was", "--check"]).ended(0);
}

fn a_folder_holds_chains_and_restores_all_of_a_node() {
    let node = TestNode::with_collection(&[]);
    node.run(["collection", "create", "other/one"]).ended(0);
    node.run(["put", "other/one", "key", "value"]).ended(0);
    fill(&node, 0, 100);
    node.run(["backup", "--to", "all", "--incremental"]).ended(0);
    let mut roots = vec![(node.root(), dump(&node))];
    for at in 0..3 {
        fill(&node, 100 + at, 105 + at);
        node.run(["rm", "c", &format!("key {at}")]).ended(0);
        let made = node.run(["backup", "c", "--to", "all", "--incremental", "--json"]).ended(0);
        assert_eq!((&made.json()["full"], &made.json()["gone"]), (&false.into(), &1.into()));
        roots.push((node.root(), dump(&node)));
    }
    let part = |number: u32, kind: &str| {
        node.path(&format!("all/c/{number:06}-{kind}.backup")).into_os_string()
    };
    let files: Vec<_> = [part(1, "full"), part(2, "part"), part(3, "part"), part(4, "part")].into();
    let verified = node.run(["backup", "verify", "all", "--json"]).ended(0).lines();
    assert_eq!(verified.len(), 2);
    assert_eq!(node.run(["backup", "ls", "all", "--json"]).ended(0).lines().len(), 5);
    for (count, (root, held)) in roots.iter().enumerate() {
        let restore = std::iter::once("restore".into()).chain(files[..=count].iter().cloned());
        let fresh = TestNode::new();
        fresh.run(restore).ended(0);
        assert_eq!((&fresh.root(), &dump(&fresh)), (root, held));
    }
    let fresh = TestNode::new();
    fresh.run(["restore".as_ref(), node.path("all").as_os_str()]).ended(0);
    assert_eq!(fresh.root(), roots[3].0);
    assert_eq!(fresh.run(["get", "other/one", "key"]).ended(0).text(), "value");
    // again: both are there by now, and one of them is named
    let again = fresh.run(["restore".as_ref(), node.path("all").as_os_str()]);
    again.ended(2).said("--replace");
    fresh.run(["restore".as_ref(), node.path("all").as_os_str(), "--replace".as_ref()]).ended(0);

    // the log does not reach back over a restore: a full one begins the next chain
    node.run(["restore".as_ref(), node.path("all/c").as_os_str(), "--replace".as_ref()]).ended(0);
    let made = node.run(["backup", "c", "--to", "all", "--incremental"]).ended(0);
    made.said("make a full one");
    assert!(node.path("all/c/000005-full.backup").exists());
    let verified = node.run(["backup", "verify", "all/c"]).ended(0);
    assert_eq!(verified.text().lines().count(), 2);
    // half a backup of a process that died is in nobody's way, and goes
    write(&node.path("all/c/.selfsame-x"), "half");
    node.run(["backup", "c", "--to", "all", "--incremental"]).ended(0);
    assert!(!node.path("all/c/.selfsame-x").exists());
}

fn parts_follow_a_file_and_are_refused_where_they_do_not_fit() {
    let node = TestNode::with_collection(&[]);
    fill(&node, 0, 50);
    node.run(["backup", "c", "--to", "1.backup"]).ended(0);
    for at in 2..4 {
        node.run(["put", "c", &format!("new {at}"), "value"]).ended(0);
        let (to, since) = (format!("{at}.backup"), format!("{}.backup", at - 1));
        let made = node.run(["backup", "c", "--to", &to, "--since", &since]).ended(0);
        assert!(made.text().contains("1 key changed, 0 gone"), "{}", made.text());
    }
    let verify = |files: &[&str]| node.run([&["backup", "verify"], files].concat());
    verify(&["1.backup", "2.backup", "3.backup"]).ended(0);
    verify(&["2.backup"]).ended(2).said("begins with a part");
    verify(&["1.backup", "3.backup"]).ended(2).said("one between them is missing");
    verify(&["1.backup", "1.backup"]).ended(2).said("has one, which is its first");
    let gap = node.run(["restore", "1.backup", "3.backup", "--replace"]);
    gap.ended(2).said("one between them is missing");

    let other = TestNode::with_collection(&["--policy", "siblings"]);
    let of = |name: &str| node.path(name).into_os_string();
    let since = other.run([
        "backup".into(),
        "c".into(),
        "--to".into(),
        "x.backup".into(),
        "--since".into(),
        of("1.backup"),
    ]);
    since.ended(2).said("make a full one");
    assert!(!other.path("x.backup").exists());
    let restored = other.run(["restore".into(), of("1.backup"), "--replace".into()]);
    restored.ended(2).said("siblings").said("choose another name");
    other.run(["backup", "c", "--to", "x.backup"]).ended(0);
    let mixed = other.run(["backup".into(), "verify".into(), of("1.backup"), "x.backup".into()]);
    mixed.ended(2).said("of collection c (");
}

fn a_backup_that_does_not_hold_is_refused_and_nothing_changes() {
    let node = TestNode::with_collection(&[]);
    fill(&node, 0, 200);
    node.run(["backup", "c", "--to", "c.backup"]).ended(0);
    node.run(["put", "c", "since then", "value"]).ended(0);
    let (whole, before) = (fs::read(node.path("c.backup")).unwrap(), dump(&node));
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let mut newer = whole.clone();
    newer[15] = 9;
    for (bytes, code, says) in [
        (&whole[..middle], 6, "cut short"),
        (&flipped, 6, "damaged between"),
        (&[&whole[..], b"x"].concat(), 6, "behind the end"),
        (&newer, 2, "of format 9"),
        (b"{\"key\":\"no\"}", 2, "no backup"),
        (b"", 6, "cut short after 0"),
    ] {
        write(&node.path("bad.backup"), bytes);
        node.run(["backup", "verify", "bad.backup"]).ended(code).said(says);
        node.run(["restore", "bad.backup", "--replace"]).ended(code).said(says);
        node.run(["restore", "bad.backup", "--dry-run", "--replace"]).ended(code).said(says);
        node.run_with(bytes, &["restore", "-", "--replace"]).ended(code).said(says);
        if says == "cut short" {
            let since = ["backup", "c", "--to", "x.backup", "--since", "bad.backup"];
            node.run(since).ended(6).said("cut short");
        }
    }
    assert_eq!(dump(&node), before);
    // one that is sound and holds more than this node takes
    node.configure("[limits]\nmax_value_bytes = 5\n");
    let small = node.run(["restore", "c.backup", "--replace"]);
    small.ended(2).said("max_value_bytes");
    assert_eq!(dump(&node), before);
    let json = node.run(["backup", "verify", "bad.backup", "--json"]).ended(6).json();
    assert_eq!(json["sound"], false);
}

fn restored_to_an_older_moment_and_rejoined_nothing_is_lost_or_resurrected() {
    let (a, b) = (TestNode::with_collection(&[]), TestNode::with_collection(&[]));
    fill(&a, 0, 100);
    let sync = || {
        let listening = b.listen(&[&a]);
        let done = a.run(["sync", "c", "--json", "--peer", &listening.peer]).ended(0).json();
        assert_eq!(done["outcome"], "complete", "{done}");
        assert_eq!(listening.interrupt(), 0);
    };
    sync();
    a.run(["backup", "c", "--to", "old.backup"]).ended(0);
    // known to both
    a.run(["rm", "c", "key 1"]).ended(0);
    a.run(["put", "c", "key 2", "newer"]).ended(0);
    b.closed(|| ());
    sync();
    b.run(["rm", "c", "key 3"]).ended(0);
    b.run(["put", "c", "of b", "value"]).ended(0);
    // known to a alone
    a.run(["put", "c", "of a alone", "gone with the backup"]).ended(0);
    a.run(["rm", "c", "key 4"]).ended(0);
    a.run(["restore", "old.backup", "--replace"]).ended(0);
    a.run(["put", "c", "after", "restored"]).ended(0);
    sync();
    assert_eq!(a.root(), b.root());
    for node in [&a, &b] {
        for (key, value) in
            [("key 2", "newer"), ("of b", "value"), ("after", "restored"), ("key 4", "value 4")]
        {
            assert_eq!(node.run(["get", "c", key]).ended(0).text(), value, "{key}");
        }
        for key in ["key 1", "key 3", "of a alone"] {
            node.run(["get", "c", key]).ended(1);
        }
        node.run(["recover", "c", "--check"]).ended(0);
    }
}

fn paths_that_cannot_be_meant_are_refused() {
    let node = TestNode::with_collection(&[]);
    node.run(["collection", "create", "d"]).ended(0);
    let run = |arguments: &[&str], says: &str| node.run(arguments).ended(2).said(says);
    run(&["backup"], "--to");
    run(&["backup", "--to", "x.backup"], "takes one collection, not 2");
    run(&["backup", "--to", "data/here"], "data folder");
    run(&["backup", "c", "--to", "x.backup", "--incremental"], "a folder");
    run(&["backup", "c", "--to", "x", "--since", "y.backup"], "--incremental");
    run(&["backup", "nobody", "--to", "x.backup"], "no collection");
    run(&["backup", "c", "--to", "no/such/x.backup"], "x.backup");
    run(&["restore", "nothing.backup"], "cannot read");
    fs::create_dir(node.path("empty")).unwrap();
    run(&["restore", "empty"], "holds no backups");
    run(&["backup", "verify", "empty"], "holds no backups");
    node.run(["backup", "--to", "all"]).ended(0);
    run(&["restore", "all", "--collection", "e"], "holds 2");
    run(&["restore", "all", "all/c/000001-full.backup"], "is a folder");
    assert!(!node.path("x.backup").exists());
    // a collection that is called like a command
    node.run(["collection", "create", "verify"]).ended(0);
    node.run(["backup", "--to", "verify.backup", "--", "verify"]).ended(0);
    node.run(["backup", "verify", "verify.backup"]).ended(0);
}

fn ctrl_c_leaves_no_half_backup_and_no_half_restore() {
    let node = TestNode::with_collection(&[]);
    fill(&node, 0, 2_000);
    node.run(["backup", "c", "--to", "c.backup"]).ended(0);
    let before = dump(&node);
    let whole = fs::read(node.path("c.backup")).unwrap();
    // it waits for the rest of standard input
    let mut command = node.command(["restore", "-", "--replace"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, &whole[..whole.len() - 40]).unwrap();
    std::io::Write::flush(&mut input).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    interrupt(&child);
    std::thread::sleep(std::time::Duration::from_millis(200));
    drop(input);
    let code = child.wait().unwrap().code();
    assert!(matches!(code, Some(130 | 6)), "{code:?}");
    assert_eq!(dump(&node), before);
    node.run(["recover", "c", "--check"]).ended(0);
    // it waits until somebody reads
    let mut command = node.command(["backup", "c", "--to", "-"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let code = child.wait().unwrap().code();
    assert!(matches!(code, Some(0 | 2)), "{code:?}");
    let left: Vec<PathBuf> = fs::read_dir(node.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

fn a_large_value_and_a_wide_collection_come_back() {
    let node = TestNode::with_collection(&[]);
    let noise: Vec<u8> = (0..5_000_000_u32).map(|at| (at.wrapping_mul(at) >> 9) as u8).collect();
    node.run_with(&noise, &["put", "c", "noise"]).ended(0);
    node.run_with(b"", &["put", "c", "empty"]).ended(0);
    fill(&node, 0, 20_000);
    node.run(["backup", "c", "--to", "c.backup"]).ended(0);
    let root = node.root();
    let fresh = TestNode::new();
    fresh.run(["restore".as_ref(), node.path("c.backup").as_os_str()]).ended(0);
    assert_eq!(fresh.root(), root);
    assert_eq!(fresh.run(["get", "c", "noise"]).ended(0).stdout, noise);
    fresh.run(["recover", "c", "--check"]).ended(0);
}
