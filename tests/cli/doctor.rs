//! `selfsame doctor`: each check by a situation that is really made.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use selfsame::clock::Stamp;
use selfsame::dots::Dot;
use selfsame::entry::Sibling;
use selfsame::node::Node;
use selfsame::replica::{
    Collection, CollectionView as _, IncomingSibling, KeyUpdate, Replica, ReplicaOptions,
};
use selfsame::resolve::{Candidate, ResolveError, Resolver, Resolvers};
use selfsame::store::{EmbeddedOptions, EmbeddedStore, Table};
use selfsame::types::{CollectionName, CollectionSpec, Key, Policy};
use serde_json::Value;

use super::metrics::{OFTEN, pair};
use super::node::{TestNode, write};
use super::scrub::rot;
use super::status::Daemon;

both_ways!(
    a_healthy_node_is_told_so,
    files_with_faults_are_named,
    an_identity_that_others_may_read_is_named,
    an_invitation_that_was_forgotten_is_named,
    a_store_of_another_format_is_named,
    settings_that_are_too_large_for_the_machine_are_named,
    what_rotted_is_named,
    a_damaged_collection_is_named_with_its_remedy,
    what_was_not_read_again_for_long_is_named,
    keys_in_conflict_are_counted,
    entries_of_the_future_are_named,
    contexts_near_their_limit_are_named,
    a_policy_that_nobody_knows_is_named,
    names_are_written_as_a_shell_takes_them,
    what_is_of_the_future_is_put_again_once_somebody_says_so,
    what_others_wrote_ahead_of_time_is_left_to_them_unless_it_is_asked_for,
);

/// What a check says, of a run with --json that ended with this code.
#[track_caller]
fn said(node: &TestNode, code: i32, check: &str) -> Vec<Value> {
    let diagnosis = node.run(["doctor", "--json"]).ended(code).json();
    of_check(&diagnosis, check)
}

/// What a check says now, whatever the others say.
fn lately(node: &TestNode, check: &str) -> Value {
    of_check(&node.run(["doctor", "--json"]).json(), check).remove(0)
}

fn of_check(diagnosis: &Value, check: &str) -> Vec<Value> {
    let findings = diagnosis["findings"].as_array().unwrap().iter();
    findings.filter(|finding| finding["check"] == check).cloned().collect()
}

/// The one finding of a check, which is of this verdict.
#[track_caller]
fn one(node: &TestNode, code: i32, check: &str, verdict: &str) -> Value {
    let mut found = said(node, code, check);
    assert_eq!((found.len(), found[0]["verdict"].as_str()), (1, Some(verdict)), "{found:#?}");
    let finding = found.remove(0);
    assert_eq!(finding["what_to_do"].is_string(), verdict != "ok", "{finding}");
    finding
}

#[track_caller]
fn has(finding: &Value, field: &str, words: &str) {
    let text = finding[field].as_str().unwrap_or_default();
    assert!(text.contains(words), "{words:?} is not in {field} of {finding:#}");
}

/// The code with which it ends for a fault that keeps the node from being opened: a process that
/// has it open goes on.
fn shut(node: &TestNode) -> i32 {
    if node.data().join("control.sock").exists() { 1 } else { 2 }
}

fn with_c<R>(node: &TestNode, work: impl Fn(&Collection<EmbeddedStore>) -> R) -> R {
    let c = CollectionName::new("c").unwrap();
    node.with_home(|home| work(&home.replica.collection(&c).unwrap()))
}

fn now() -> u64 {
    Node::<EmbeddedStore>::now_ms()
}

fn a_healthy_node_is_told_so() {
    let node = TestNode::with_collection(&[]);
    node.run(["put", "c", "k", "v"]).ended(0);
    node.run(["scrub"]).ended(0);
    let diagnosis = node.run(["doctor", "--json"]).ended(0).json();
    assert_eq!((&diagnosis["verdict"], &diagnosis["opens"]), (&"ok".into(), &true.into()));
    let findings = diagnosis["findings"].as_array().unwrap();
    assert!(findings.len() > 15, "{diagnosis:#}");
    let peers = ["peers", "faults", "clocks", "grants", "brake", "equal"];
    for one in findings {
        let untold = peers.contains(&one["check"].as_str().unwrap());
        assert_eq!(one["verdict"], if untold { "unknown" } else { "ok" }, "{one:#}");
    }
    has(&of_check(&diagnosis, "damage")[0], "fact", "1 entry, 1 B");
    let told = node.run(["doctor"]).ended(0);
    assert!(told.text().contains("STATE") && told.text().contains("0 wrong, 0 look, "));
    let quiet = node.run(["doctor", "--quiet"]).ended(0);
    assert!(quiet.stdout.is_empty() && quiet.stderr.is_empty());
}

fn files_with_faults_are_named() {
    let node = TestNode::with_collection(&[]);
    write(&node.data().join("config.toml"), "[sync]\n\nbatch = 1\n");
    let found = one(&node, shut(&node), "config", "wrong");
    has(&found, "fact", "config.toml, line 3: unknown field `batch`");
    has(&found, "what_to_do", "selfsame config check");
    let quiet = node.run(["doctor", "--quiet"]).ended(shut(&node));
    assert!(quiet.text().contains("line 3") && !quiet.text().contains("ok "), "{}", quiet.text());
    write(&node.data().join("config.toml"), "[sync]\nallow_removals = true\n");
    has(&one(&node, 1, "config", "look"), "fact", "no session is stopped by the brake");
    write(&node.data().join("config.toml"), "");

    write(&node.data().join("peers.toml"), "[[peer]]\nid = 7\n");
    has(&one(&node, shut(&node), "book", "wrong"), "fact", "peers.toml, line 2: ");
    std::fs::remove_file(node.data().join("peers.toml")).unwrap();
    write(&node.data().join("invites.toml"), "what\n");
    has(&one(&node, 1, "invitations", "wrong"), "fact", "invites.toml, line 1: ");
}

fn an_identity_that_others_may_read_is_named() {
    let node = TestNode::with_collection(&[]);
    let identity = node.data().join("identity");
    let mode = |mode| std::fs::set_permissions(&identity, PermissionsExt::from_mode(mode)).unwrap();
    mode(0o644);
    let found = one(&node, shut(&node), "identity", "wrong");
    has(&found, "fact", "(mode 644)");
    has(&found, "what_to_do", "chmod 600");
    mode(0o600);
    one(&node, 0, "identity", "ok");
    let kept = std::fs::read(&identity).unwrap();
    std::fs::remove_file(&identity).unwrap();
    has(&one(&node, shut(&node), "identity", "wrong"), "fact", "there is no ");
    write(&identity, "no key\n");
    mode(0o600);
    has(&one(&node, shut(&node), "identity", "wrong"), "fact", "is not an identity file");
    write(&identity, kept);
}

fn an_invitation_that_was_forgotten_is_named() {
    let node = TestNode::new();
    let invite = ["peer", "invite", "--address", "192.0.2.7:7447", "--expires", "30d"];
    node.run(invite).ended(0);
    has(&one(&node, 0, "invitations", "ok"), "fact", "1 is open");
    let path = node.data().join("invites.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let made = text.lines().find(|line| line.starts_with("made_unix_s")).unwrap();
    let long_ago = format!("made_unix_s = {}", now() / 1_000 - 3 * 86_400);
    let permissions = std::fs::metadata(&path).unwrap().permissions();
    std::fs::write(&path, text.replace(made, &long_ago)).unwrap();
    std::fs::set_permissions(&path, permissions).unwrap();
    let found = one(&node, 1, "invitations", "look");
    has(&found, "fact", "it is open for 3 d 0 h");
    // what is to be done ends it
    let what_to_do = found["what_to_do"].as_str().unwrap();
    let id = what_to_do.split('`').nth(1).unwrap().rsplit(' ').next().unwrap();
    node.run(["peer", "uninvite", id]).ended(0);
    one(&node, 0, "invitations", "ok");
}

fn a_store_of_another_format_is_named() {
    let node = TestNode::new();
    let marker = node.data().join("store/FORMAT");
    let kept = std::fs::read(&marker).unwrap();
    write(&marker, "selfsame store 99\nwritten by selfsame 9.8.7\n");
    let found = one(&node, shut(&node), "format", "wrong");
    has(&found, "fact", "is of format 99, written by selfsame 9.8.7");
    write(&marker, kept);
    one(&node, 0, "format", "ok");
}

fn settings_that_are_too_large_for_the_machine_are_named() {
    let node = TestNode::new();
    node.configure(format!("[limits]\nmax_memory_bytes = {}\n", 1_u64 << 50));
    let found = one(&node, 1, "memory", "look");
    has(&found, "fact", "sessions, pages and store may need 1.00 PiB");
}

fn what_rotted_is_named() {
    let node = TestNode::with_collection(&[]);
    for at in 0..20 {
        node.run(["put", "c", &format!("key {at}"), "value"]).ended(0);
    }
    rot(&node, Table::Values, 3);
    one(&node, 0, "lost", "ok");
    node.run(["scrub"]).ended(1);
    has(&one(&node, 1, "lost", "wrong"), "fact", "1 value rotted on disk");
    rot(&node, Table::Entries, 5);
    node.run(["scrub"]).ended(1);
    let found = one(&node, 1, "lost", "wrong");
    has(&found, "fact", "1 entry rotted on disk");
    has(&found, "what_to_do", "`selfsame sync c --peer PEER`");
    has(&one(&node, 1, "scrub", "look"), "what_to_do", "smartctl");
}

fn a_damaged_collection_is_named_with_its_remedy() {
    let node = TestNode::with_collection(&[]);
    node.run(["put", "c", "k", "v"]).ended(0);
    rot(&node, Table::Heads, 0);
    let found = one(&node, 1, "damage", "wrong");
    assert_eq!(found["about"], "c");
    has(&found, "what_to_do", "`selfsame recover c`");
    node.run(["recover", "c"]).ended(0);
    one(&node, 0, "damage", "ok");
    rot(&node, Table::Collections, 0);
    has(&one(&node, 1, "damage", "wrong"), "fact", "a row of the list of collections");
}

fn what_was_not_read_again_for_long_is_named() {
    let node = TestNode::with_collection(&[]);
    node.configure("[scrub]\ninterval_s = 1\n");
    node.run(["scrub"]).ended(0);
    let began = Instant::now();
    while lately(&node, "scrub")["verdict"] == "ok" {
        assert!(began.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(300));
    }
    let found = one(&node, 1, "scrub", "look");
    has(&found, "fact", "all of it was last read again ");
    has(&found, "what_to_do", "`selfsame scrub c`");
}

fn keys_in_conflict_are_counted() {
    let node = TestNode::with_collection(&[]);
    with_c(&node, |collection| {
        for (key, values) in [("a", ["1", "2"]), ("b", ["1", "2"]), ("same", ["1", "1"])] {
            for value in values {
                let key = Key::new(key).unwrap();
                collection.put_over(&key, value.as_bytes(), &[], now()).unwrap();
            }
        }
    });
    let found = one(&node, 1, "conflicts", "look");
    has(&found, "fact", "2 keys are in conflict");
    has(&found, "what_to_do", "selfsame conflicts c --preview");
    for key in ["a", "b"] {
        node.run(["put", "c", key, "3"]).ended(0);
    }
    one(&node, 0, "conflicts", "ok");
}

fn entries_of_the_future_are_named() {
    let node = TestNode::with_collection(&[]);
    with_c(&node, |collection| {
        collection.put(&Key::new("k").unwrap(), *b"v", now() + 3 * 3_600_000 + 30_000).unwrap();
    });
    let found = one(&node, 1, "stamps", "wrong");
    has(&found, "fact", "it has entries of 3 h 0 min from now");
    has(&found, "what_to_do", "selfsame doctor --restamp c");
}

fn contexts_near_their_limit_are_named() {
    let node = TestNode::with_collection(&[]);
    node.configure("[limits]\nmax_writers = 10\n");
    node.run(["put", "c", "k", "v"]).ended(0);
    has(&one(&node, 1, "context", "look"), "fact", "lists 1 writers, of at most 10");
    node.configure("[limits]\nmax_writers = 1\n");
    let found = one(&node, 1, "context", "wrong");
    has(&found, "fact", "peers refuse it");
    has(&found, "what_to_do", "raise max_writers");
}

/// A resolver that the binary does not have.
struct Nobody;

impl Resolver for Nobody {
    fn name(&self) -> &str {
        "nobody"
    }

    fn version(&self) -> u32 {
        7
    }

    fn merge(&self, _: &Key, _: &[Candidate<'_>]) -> Result<Vec<u8>, ResolveError> {
        Ok(Vec::new())
    }
}

fn a_policy_that_nobody_knows_is_named() {
    let node = TestNode::new();
    // made by a program that knows a resolver more
    node.closed(|| {
        let folder = node.data().join("store");
        let store = EmbeddedStore::open(folder, EmbeddedOptions::default()).unwrap();
        let resolvers = Resolvers::built_in().with(Nobody);
        let options = ReplicaOptions { resolvers, ..ReplicaOptions::default() };
        let replica = Replica::open(store, options, Box::new(rand::random)).unwrap();
        let resolver = CollectionName::new("nobody").unwrap();
        let policy = Policy::Custom { resolver, version: 7 };
        let name = CollectionName::new("c").unwrap();
        let spec = CollectionSpec { name, algorithm: Default::default(), policy };
        replica.create_collection(spec).unwrap();
        replica.close().unwrap();
    });
    let found = one(&node, 1, "resolver", "wrong");
    has(&found, "fact", "nobody");
}

fn names_are_written_as_a_shell_takes_them() {
    let node = TestNode::new();
    let name = "it's; rm -rf";
    node.run(["collection", "create", name]).ended(0);
    node.run(["put", name, "k", "v"]).ended(0);
    rot(&node, Table::Heads, 0);
    let found = one(&node, 1, "damage", "wrong");
    has(&found, "what_to_do", "`selfsame recover 'it'\\''s; rm -rf'`");
}

#[test]
fn where_there_is_no_node_the_first_word_is_how_to_make_one() {
    let node = TestNode::bare();
    let found = one(&node, 2, "node", "wrong");
    has(&found, "what_to_do", "selfsame init");
    let told = node.run(["doctor"]).ended(2);
    assert!(!told.text().contains("identity"), "there is nothing to look at: {}", told.text());
    write(&node.data().join("config.toml"), "");
    has(&one(&node, 2, "identity", "wrong"), "what_to_do", "restore the file from a backup");
}

#[test]
fn who_has_the_node_open_and_does_not_answer_is_named() {
    let node = TestNode::new();
    node.with_home(|_| {
        let found = one(&node, 2, "node", "wrong");
        has(&found, "fact", &format!("another process ({})", std::process::id()));
        has(&found, "what_to_do", &format!("kill {}", std::process::id()));
        one(&node, 2, "config", "ok");
    });
    one(&node, 0, "node", "ok");
}

#[test]
fn limits_of_the_process_that_are_too_low_are_named() {
    let node = TestNode::new();
    let script = "ulimit -n 100 && exec \"$0\" doctor --json";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script, super::node::BINARY]).env("SELFSAME_DATA", node.data());
    let ran: super::node::Ran = command.output().unwrap().into();
    let found = of_check(&ran.ended(1).json(), "open files");
    has(&found[0], "fact", "may have 100 files open");
    has(&found[0], "what_to_do", "LimitNOFILE");
}

/// What a check says once it says something of this verdict.
#[track_caller]
fn waited_for(node: &TestNode, check: &str, verdict: &str) -> Value {
    let began = Instant::now();
    loop {
        let diagnosis = node.run(["doctor", "--json"]).json();
        let found = of_check(&diagnosis, check);
        if let Some(found) = found.into_iter().find(|finding| finding["verdict"] == verdict) {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{check}: {diagnosis:#}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_daemon_knows_how_it_stands_with_its_peers() {
    let ([a, b], _daemons) = pair([OFTEN; 2]);
    a.run(["put", "c", "k", "v"]).ended(0);
    super::metrics::waited_for(&b, "selfsame_pair_equal", &OF_PAIR, |equal| equal == 1.0);
    let diagnosis = b.run(["doctor", "--json"]).ended(0).json();
    for (check, fact) in [
        ("node", "a daemon serves it for "),
        ("peers", "1 of 1 peer connected"),
        ("clocks", "it agrees with 1 peer"),
        ("grants", "both ways in every pair"),
        ("equal", "1 of 1 pair equal now"),
    ] {
        has(&of_check(&diagnosis, check)[0], "fact", fact);
    }
    // settings that were changed and do not hold yet
    let config = b.data().join("config.toml");
    write(&config, "[sync]\ninterval_s = 2\n[limits]\nmax_siblings = 3\n");
    let found = said(&b, 1, "config");
    has(&found[0], "fact", "[limits] hold only once the node is started anew");
    has(&found[1], "what_to_do", "`selfsame config reload`");
    b.run(["config", "reload"]).ended(0);
    assert_eq!(said(&b, 1, "config").len(), 1);
    write(&config, OFTEN);
    b.run(["config", "reload"]).ended(0);
    one(&b, 0, "config", "ok");
}

const OF_PAIR: [(&str, &str); 2] = [("collection", "c"), ("peer", "anna")];

#[test]
fn a_peer_that_is_never_reached_is_named() {
    let (node, gone) = (TestNode::new(), TestNode::new());
    node.configure("[deadlines]\ndial_ms = 300\n");
    node.run(["peer", "add", &format!("{}@127.0.0.1:9", gone.id()), "--name", "gone"]).ended(0);
    let _daemon = Daemon::start(&node);
    let found = waited_for(&node, "peers", "look");
    assert_eq!(found["about"], "gone");
    has(&found, "fact", "it was not reached since the daemon was started");
    has(&found, "what_to_do", "`selfsame peer rm gone`");
}

#[test]
fn a_mass_removal_that_waits_for_a_word_is_named() {
    let braking = "[limits]\nmax_removals = 0\nmax_removals_percent = 0\n";
    let ([a, b], _daemons) = pair([OFTEN, &format!("{OFTEN}{braking}")]);
    a.run(["put", "c", "k", "v"]).ended(0);
    super::metrics::waited_for(&b, "selfsame_pair_equal", &OF_PAIR, |equal| equal == 1.0);
    a.run(["rm", "c", "k"]).ended(0);
    let found = waited_for(&b, "brake", "wrong");
    assert_eq!(found["about"], "c at anna");
    has(&found, "fact", "would have removed 1 key");
    // what is to be done does it
    let what_to_do = found["what_to_do"].as_str().unwrap();
    let commands: Vec<&str> = what_to_do.split('`').skip(1).step_by(2).collect();
    assert!(commands[1].contains("--allow-removals"), "{commands:?}");
    let run = |command: &str| b.run(command.split(' ').skip(1));
    run(commands[0]).ended(1);
    run(commands[1]).ended(0);
    waited_for(&b, "brake", "ok");
    waited_for(&b, "equal", "ok");
}

#[test]
fn a_pair_that_does_not_become_equal_is_named_with_the_cause() {
    let small = format!("{OFTEN}[limits]\nmax_value_bytes = 4\n");
    let ([a, b], _daemons) = pair([OFTEN, &small]);
    a.run(["put", "c", "k", "value"]).ended(0);
    let found = waited_for(&b, "equal", "look");
    assert_eq!(found["about"], "c at anna");
    has(&found, "fact", "both were not the same for 1");
    has(&found, "fact", "1 item was refused");
    has(&found, "what_to_do", "`selfsame sync c --peer anna`");
}

#[test]
fn a_pair_in_which_nothing_can_move_is_named() {
    let ([a, b], _daemons) = pair([OFTEN; 2]);
    a.run(["put", "c", "k", "v"]).ended(0);
    super::metrics::waited_for(&b, "selfsame_pair_equal", &OF_PAIR, |equal| equal == 1.0);
    b.run(["peer", "grant", "anna", "*=read"]).ended(0);
    b.run(["put", "c", "other", "v"]).ended(0);
    let began = Instant::now();
    loop {
        let found = lately(&b, "grants");
        if found["fact"].as_str().unwrap().contains("in 1 of 1 pair entries move one way only") {
            assert_eq!(found["verdict"], "ok", "that may be meant");
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{found}");
        std::thread::sleep(Duration::from_millis(50));
    }
    a.run(["peer", "grant", "bert", "*=read"]).ended(0);
    // a daemon reads its book within a second
    let found = loop {
        b.run(["put", "c", "third", &format!("{:?}", Instant::now())]).ended(0);
        let found = lately(&b, "grants");
        if found["verdict"] == "wrong" {
            break found;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{found}");
        std::thread::sleep(Duration::from_millis(100));
    };
    has(&found, "what_to_do", "`selfsame peer grant anna c=write`");
}

#[test]
fn nothing_is_changed_by_looking() {
    fn all(folder: &Path, found: &mut Vec<(std::path::PathBuf, Vec<u8>)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                all(&path, found);
            } else {
                found.push((path.clone(), std::fs::read(&path).unwrap()));
            }
        }
        found.sort();
    }
    let node = TestNode::with_collection(&[]);
    std::fs::set_permissions(node.data().join("identity"), PermissionsExt::from_mode(0o644))
        .unwrap();
    let (mut before, mut after) = (Vec::new(), Vec::new());
    all(&node.data(), &mut before);
    node.run(["doctor"]).ended(2);
    all(&node.data(), &mut after);
    assert!(before == after, "a node that does not open is left as it is");
}

/// Leaves at a node a write of another one's writer that this one never did: what a copy of that
/// one would have done.
fn forge(node: &TestNode, writer: u64, counter: u64) {
    with_c(node, |collection| {
        let (key, value) = (Key::new("k").unwrap(), b"of the copy".to_vec());
        let sibling = Sibling {
            dot: Dot::new(writer, counter).unwrap(),
            stamp: Stamp::new(now(), 0),
            size: value.len() as u64,
            value_hash: collection.spec().algorithm.value_hash(&value),
        };
        let update = KeyUpdate {
            key_hash: collection.key_hash(&key),
            key: Some(key),
            add: vec![IncomingSibling { sibling, value: Some(value.into()) }],
            remove: Vec::new(),
        };
        let epoch = collection.snapshot().unwrap().epoch();
        collection.apply(vec![update], epoch, now()).unwrap();
    });
}

#[test]
fn copies_that_both_write_are_named_counted_and_seen_to() {
    let (a, b) = (TestNode::with_collection(&[]), TestNode::with_collection(&[]));
    for node in [&a, &b] {
        node.configure(OFTEN);
    }
    let of_a = Daemon::start(&a);
    a.run(["put", "c", "k", "mine"]).ended(0);
    let line = a.run(["dump", "c"]).ended(0).lines().remove(0);
    let put = &line["siblings"][0];
    let writer = u64::from_str_radix(put["writer"].as_str().unwrap(), 16).unwrap();
    forge(&b, writer, put["counter"].as_u64().unwrap());
    let invited = a.run(["peer", "invite", "--address", &of_a.place, "--name", "bert"]).ended(0);
    b.run(["peer", "join", invited.text().trim(), "--name", "anna"]).ended(0);
    let _of_b = Daemon::start(&b);
    super::metrics::waited_for(&a, "selfsame_clones_found", &[], |found| found >= 1.0);
    let found = waited_for(&a, "clones", "wrong");
    assert_eq!(found["about"], "c");
    has(&found, "fact", "another copy of this node writes too");
    has(&found, "fact", "1 write of this one copied aside");
    let figures = super::metrics::metrics(&a);
    let of_c = [("collection", "c")];
    assert_eq!(super::metrics::value(&figures, "selfsame_collection_clones", &of_c), 1.0);

    // it goes on with a fresh writer; where one dot stood for two writes, one stays
    let same_dot = "selfsame_same_dot_found";
    super::metrics::waited_for(&a, same_dot, &[], |dots| dots >= 1.0);
    super::metrics::waited_for(&b, "selfsame_pair_equal", &OF_PAIR, |equal| equal == 1.0);
    let node = if lately(&a, "same dot")["verdict"] == "look" { &a } else { &b };
    has(&waited_for(node, "same dot", "look"), "fact", "1 dot stood for two writes");
    // what is to be done ends it
    for node in [&a, &b] {
        loop {
            let diagnosis = node.run(["doctor", "--json"]).json();
            let findings =
                [of_check(&diagnosis, "clones"), of_check(&diagnosis, "same dot")].concat();
            let mut open = findings.iter().filter(|finding| finding["verdict"] != "ok");
            let Some(open) = open.next() else { break };
            let commands: Vec<&str> =
                open["what_to_do"].as_str().unwrap().split('`').skip(1).step_by(2).collect();
            for command in commands {
                let code = node.run(command.split(' ').skip(1)).code;
                assert!(code == 0 || code == 1, "{command}");
            }
        }
    }
    waited_for(&a, "clones", "ok");
}

fn what_is_of_the_future_is_put_again_once_somebody_says_so() {
    let node = TestNode::with_collection(&[]);
    with_c(&node, |collection| {
        for at in 0..30_u64 {
            let ahead = if at % 3 == 0 { 7_200_000 } else { 0 };
            let key = Key::new(format!("key {at}")).unwrap();
            collection.put(&key, at.to_string().into_bytes(), now() + ahead).unwrap();
        }
    });
    let restamp = ["doctor", "--restamp", "c"];
    let root = node.root();
    let asked = node.run(restamp).ended(7).said("repeat with --yes");
    assert!(asked.text().contains("10 versions of 30 entries would be put again"));
    let json = node.run([&restamp[..], &["--json"]].concat()).ended(7).json();
    assert_eq!((&json["restamped"], &json["done"]), (&10.into(), &false.into()));
    assert_eq!(node.root(), root, "nothing was changed");
    let done = node.run([&restamp[..], &["--yes", "--json"]].concat()).ended(0).json();
    assert_eq!((&done["restamped"], &done["complete"]), (&10.into(), &true.into()));
    assert_ne!(node.root(), root);
    for at in 0..30 {
        let value = node.run(["get", "c", &format!("key {at}")]).ended(0);
        assert_eq!(value.text(), at.to_string());
    }
    one(&node, 0, "stamps", "ok");
    let none = node.run([&restamp[..], &["--yes"]].concat()).ended(0);
    assert!(none.text().contains("nothing of 30 entries is of the future"), "{}", none.text());
    node.run(["doctor", "--restamp", "nothing"]).ended(2).said("no collection");
    node.run(["doctor", "--yes"]).ended(2);
}

fn what_others_wrote_ahead_of_time_is_left_to_them_unless_it_is_asked_for() {
    let node = TestNode::with_collection(&[]);
    node.configure("[limits]\nmax_clock_drift_ms = 10000000\n");
    forge(&node, 77, 1);
    with_c(&node, |collection| {
        let key = Key::new("other").unwrap();
        let sibling = Sibling {
            dot: Dot::new(77, 2).unwrap(),
            stamp: Stamp::new(now() + 7_200_000, 0),
            size: 1,
            value_hash: collection.spec().algorithm.value_hash(b"v"),
        };
        let update = KeyUpdate {
            key_hash: collection.key_hash(&key),
            key: Some(key),
            add: vec![IncomingSibling { sibling, value: Some(b"v".to_vec().into()) }],
            remove: Vec::new(),
        };
        let epoch = collection.snapshot().unwrap().epoch();
        collection.apply(vec![update], epoch, now()).unwrap();
    });
    node.configure("");
    let left = node.run(["doctor", "--restamp", "c"]).ended(0).said("--any takes them as well");
    assert!(left.text().contains("nothing of 2 entries"), "{}", left.text());
    node.run(["doctor", "--restamp", "c", "--any"]).ended(7);
    node.run(["doctor", "--restamp", "c", "--any", "--yes"]).ended(0);
    one(&node, 0, "stamps", "ok");
}
