//! What can be wrong with the data folder: each is named, with what to do.

use std::process::Command;

use selfsame::store::{
    Batch, Durability, EmbeddedOptions, EmbeddedStore, Read, Span, Store, Table,
};

use super::node::{BINARY, Ran, TestNode, write};

both_ways!(
    a_damaged_collection_is_named_and_recovered,
    a_damaged_row_in_the_list_of_collections_stops_only_its_own,
    a_value_whose_bytes_are_lost_is_never_shown_as_another,
);

#[test]
fn a_config_that_is_wrong_is_named_with_its_line() {
    let node = TestNode::with_collection(&[]);
    let config = node.data().join("config.toml");
    write(&config, "# settings\n[sync]\nbatch_size = 100\n");
    let failed = node.run(["ls", "c"]).ended(2).said("config.toml, line 3: unknown field");
    assert!(failed.stderr.contains("max_batch_size"), "{}", failed.stderr);
    write(&config, "listen = 7447\n");
    node.run(["ls", "c"]).ended(2).said("config.toml, line 1: ");
    write(&config, "[limits]\n\nmax_siblings = \"many\"\n");
    node.run(["ls", "c"]).ended(2).said("config.toml, line 3: invalid type");
    write(&config, [0xff, 0xfe]);
    node.run(["ls", "c"]).ended(2).said("cannot read").said("UTF-8");
    std::fs::remove_file(&config).unwrap();
    node.run(["ls", "c"]).ended(2).said("selfsame init");
    let id = node.id();
    node.run(["init"]).ended(0);
    assert_eq!(node.id(), id);
    node.run(["ls", "c"]).ended(0);
}

#[cfg(unix)]
#[test]
fn an_identity_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let node = TestNode::new();
    let identity = node.data().join("identity");
    std::fs::set_permissions(&identity, std::fs::Permissions::from_mode(0o644)).unwrap();
    node.run(["id"]).ended(2).said("chmod 600");
    std::fs::set_permissions(&identity, std::fs::Permissions::from_mode(0o600)).unwrap();
    write(&identity, "not hex\n");
    node.run(["id"]).ended(2).said("not an identity file");
}

#[test]
fn who_holds_the_store_is_named() {
    let node = TestNode::with_collection(&[]);
    let process = std::process::id().to_string();
    node.with_home(|_| {
        let failed = node.run(["put", "c", "k", "v"]).ended(2).said("in use by another process");
        assert!(failed.stderr.contains(&process), "{}", failed.stderr);
        node.run(["id"]).ended(0);
    });
    node.run(["put", "c", "k", "v"]).ended(0);
}

#[cfg(unix)]
#[test]
fn verbs_work_beside_a_node_that_serves_and_the_socket_is_its_owners() {
    use std::os::unix::fs::PermissionsExt as _;
    let node = TestNode::with_collection(&[]);
    let listening = node.listen(&[]);
    let socket = node.data().join("control.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    node.run(["put", "c", "k", "v"]).ended(0);
    assert_eq!(node.run(["get", "c", "k"]).ended(0).text(), "v");
    node.run(["listen", "--addr", "127.0.0.1:0"]).ended(2).said(&listening.process().to_string());
    assert_eq!(listening.interrupt(), 0);
    assert!(!socket.exists());
    assert_eq!(node.run(["get", "c", "k"]).ended(0).text(), "v");
}

#[cfg(unix)]
#[test]
fn a_socket_that_a_killed_process_left_is_in_nobodys_way() {
    let node = TestNode::with_collection(&[]);
    drop(node.listen(&[]));
    assert!(node.data().join("control.sock").exists(), "it was killed");
    node.run(["put", "c", "k", "v"]).ended(0);
    let listening = node.listen(&[]);
    assert_eq!(node.run(["get", "c", "k"]).ended(0).text(), "v");
    assert_eq!(listening.interrupt(), 0);
    node.run(["init"]).ended(2).said("already");
}

#[test]
fn a_store_of_another_format_is_left_alone() {
    let node = TestNode::with_collection(&[]);
    let marker = node.data().join("store/FORMAT");
    let ours = std::fs::read_to_string(&marker).unwrap();
    write(&marker, "selfsame store 99\nwritten by selfsame 7.0.0\n");
    node.run(["ls", "c"]).ended(2).said("format 99").said("7.0.0").said("update selfsame");
    write(&marker, "another store\n");
    node.run(["ls", "c"]).ended(2).said("another store").said("version");
    write(&marker, &ours);
    node.run(["ls", "c"]).ended(0);
}

#[test]
fn a_store_that_cannot_be_read_is_named() {
    let node = TestNode::with_collection(&[]);
    let mut folders = vec![node.data().join("store/db")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                write(&path, "garbage");
            }
        }
    }
    let failed = node.run(["ls", "c"]).ended(2);
    assert!(
        failed.stderr.contains("damaged") && failed.stderr.contains("backup"),
        "{}",
        failed.stderr
    );
}

/// Changes rows behind the node's back.
fn tamper(node: &TestNode, table: Table, change: impl Fn(&mut Batch, &[u8], &[u8])) {
    node.closed(|| {
        let folder = node.data().join("store");
        let store = EmbeddedStore::open(folder, EmbeddedOptions::default()).unwrap();
        let rows = store.scan(Span::of(table, &[]), 10).unwrap();
        assert!(!rows.is_empty());
        let mut batch = Batch::default();
        change(&mut batch, &rows[0].key, &rows[0].value);
        store.commit(batch, Durability::Always).unwrap();
        store.close().unwrap();
    });
}

fn a_damaged_collection_is_named_and_recovered() {
    let node = TestNode::with_collection(&[]);
    node.run(["collection", "create", "other"]).ended(0);
    for at in 0..20 {
        node.run(["put", "c", &format!("key {at}"), "value"]).ended(0);
    }
    let root = node.root();
    node.run(["recover", "c"]).ended(2).said("is sound");
    tamper(&node, Table::Context, |batch, key, _| batch.remove(Table::Context, key));
    for verb in ["ls", "dump", "digest"] {
        node.run([verb, "c"]).ended(2).said("damaged").said("selfsame recover c");
    }
    node.run(["put", "c", "k", "v"]).ended(2).said("selfsame recover c");
    node.run(["put", "other", "k", "v"]).ended(0);
    let listed = node.run(["collection", "ls", "--json"]).ended(0).lines();
    assert!(listed[0]["damage"].as_str().unwrap().contains("context"));
    let check = node.run(["recover", "c", "--check", "--json"]).ended(1).json();
    assert_eq!(check["sound"], false);
    let recovered = node.run(["recover", "c", "--json"]).ended(0).json();
    assert_eq!((&recovered["entries"], &recovered["lost"]), (&20.into(), &0.into()));
    assert_eq!(node.root(), root);
    node.run(["recover", "c", "--check"]).ended(0);
    node.run(["put", "c", "k", "v"]).ended(0);
    node.run(["recover", "c", "--force"]).ended(0);
}

fn a_value_whose_bytes_are_lost_is_never_shown_as_another() {
    let node = TestNode::with_collection(&[]);
    node.run(["put", "c", "key", "value"]).ended(0);
    tamper(&node, Table::Values, |batch, key, _| batch.put(Table::Values, key, b"wrong"));
    let failed = node.run(["get", "c", "key"]).ended(2).said("lost or damaged");
    assert!(failed.stdout.is_empty());
    node.run(["export", "c", "out"]).ended(3).said("not exported: key");
    let check = node.run(["recover", "c", "--check", "--json"]).ended(1).json();
    assert_eq!(check["missing_values"].as_array().unwrap().len(), 1);
    node.run(["recover", "c"]).ended(1);
    node.run(["put", "c", "key", "value"]).ended(0);
    node.run(["recover", "c", "--check"]).ended(0);
}

/// A limit on the size of files stands for a disk that is full.
#[cfg(target_os = "linux")]
#[test]
fn a_write_that_the_disk_refuses_takes_nothing_back() {
    let node = TestNode::with_collection(&[]);
    node.run(["put", "c", "before", "kept"]).ended(0);
    let mut noise = vec![0u8; 6 << 20];
    rand::Rng::fill_bytes(&mut rand::rng(), &mut noise);
    for at in 0..6 {
        write(&node.path(&format!("site/{at}")), &noise[at << 20..][..1 << 20]);
    }
    let limited = format!("trap '' XFSZ; ulimit -f 2000; exec {BINARY} import c site --json");
    let mut command = Command::new("sh");
    command.args(["-c", &limited]).env("SELFSAME_DATA", node.data());
    let failed: Ran = command.current_dir(node.folder.path()).output().unwrap().into();
    failed.ended(2).said("error: the disk");
    assert_eq!(node.run(["get", "c", "before"]).ended(0).text(), "kept");
    let done = node.run(["import", "c", "site", "--json"]).ended(0).json();
    assert_eq!(done["written"].as_u64().unwrap() + done["unchanged"].as_u64().unwrap(), 6);
    node.run(["recover", "c", "--check"]).ended(0);
}

fn a_damaged_row_in_the_list_of_collections_stops_only_its_own() {
    let node = TestNode::with_collection(&[]);
    node.run(["collection", "create", "other", "--policy", "siblings"]).ended(0);
    node.run(["put", "c", "k", "v"]).ended(0);
    let root = node.root();
    let damage = |key: &[u8]| {
        node.closed(|| {
            let folder = node.data().join("store");
            let store = EmbeddedStore::open(&folder, EmbeddedOptions::default()).unwrap();
            let mut batch = Batch::default();
            batch.remove(Table::Collections, b"c");
            batch.put(Table::Collections, key, b"rot");
            store.commit(batch, Durability::Always).unwrap();
            store.close().unwrap();
        });
    };
    damage(b"c");
    node.run(["put", "other", "k", "v"]).ended(0);
    let listed = node.run(["collection", "ls"]).ended(0).said("selfsame recover c");
    assert!(listed.text().contains("other") && listed.text().contains("damaged: "));
    let lines = node.run(["collection", "ls", "--json"]).ended(0).lines();
    assert_eq!((lines.len(), &lines[1]["collection"]), (2, &"c".into()));
    assert!(lines[1]["damage"].is_string());
    for verb in [&["get", "c", "k"][..], &["put", "c", "k", "w"], &["digest", "c"]] {
        node.run(verb).ended(2).said("damaged").said("run `selfsame recover c`");
    }
    node.run(["recover", "c", "--check"]).ended(1);
    node.run(["recover", "c"]).ended(0).said("written again");
    assert_eq!((node.root(), node.run(["get", "c", "k"]).ended(0).text()), (root.clone(), "v"));

    damage(b"\xff");
    assert!(node.run(["collection", "ls"]).ended(0).text().contains("(no name)"));
    node.run(["get", "c", "k"]).ended(2).said("run `selfsame recover c`");
    node.run(["recover", "d"]).ended(2).said("cannot be found again");
    node.run(["recover", "c"]).ended(0);
    assert_eq!(node.root(), root);
    assert_eq!(node.run(["collection", "ls", "--json"]).ended(0).lines().len(), 2);
}
