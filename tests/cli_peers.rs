//! The real binary: the peer book, grants and invitations.
#![cfg(feature = "node")]
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

#[path = "cli/node.rs"]
mod node;

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use node::{Listening, TestNode, write};

/// An invitation of a node that listens there.
fn invite(node: &TestNode, listening: &Listening, more: &[&str]) -> String {
    let place = listening.peer.split_once('@').unwrap().1;
    let ran = node.run([&["peer", "invite", "--address", place], more].concat()).ended(0);
    ran.text().trim().to_owned()
}

#[test]
fn two_nodes_are_paired_by_one_string_and_synchronise_by_name() {
    let (a, b) = (TestNode::with_collection(&[]), TestNode::with_collection(&[]));
    let mut listening = a.listen(&[]);
    let invitation = invite(&a, &listening, &["--name", "berlin", "--grant", "c=write"]);
    assert!(invitation.starts_with("selfsame-invite-1:") && !invitation.contains(' '));
    let joined = b.run(["peer", "join", &invitation, "--name", "oslo"]).ended(0);
    assert!(joined.text().starts_with("paired with oslo"), "{}", joined.text());
    let paired = listening.event("paired");
    assert_eq!((&paired["peer"], &paired["name"]), (&b.id().into(), &"berlin".into()));
    b.run(["put", "c", "k", "v"]).ended(0);
    let done = b.run(["sync", "c", "--peer", "oslo", "--json"]).ended(0).json();
    assert_eq!(done["outcome"], "complete");
    b.run(["diff", "c", "--peer", &a.id()[..8]]).ended(0);
    b.run(["digest", "c", "--peer", &a.id().to_uppercase()]).ended(0);
    // each lists the other, with what it may do
    let of_a = a.run(["peer", "ls", "--json"]).ended(0).json();
    assert_eq!((&of_a["id"], &of_a["name"]), (&b.id().into(), &"berlin".into()));
    assert_eq!(of_a["grants"], serde_json::json!({"*": "none", "c": "write"}));
    let of_b = b.run(["peer", "ls"]).ended(0);
    assert!(of_b.text().contains("oslo") && of_b.text().contains("*=write"), "{}", of_b.text());
    // of no use a second time
    let stranger = TestNode::new();
    let refused = stranger.run(["peer", "join", &invitation]).ended(5);
    assert!(refused.stderr.contains("ask for a new one"), "{}", refused.stderr);
    assert_eq!(stranger.run(["peer", "ls", "--json"]).ended(0).text(), "");
    stranger.run(["peer", "join", &invitation[..90]]).ended(2).said("cut or mistyped");
    stranger.run(["peer", "join", "hello"]).ended(2).said("no invitation");
    assert_eq!(listening.interrupt(), 0);
}

#[test]
fn an_invitation_made_before_anybody_listens_is_taken_later_and_expires() {
    let (a, b) = (TestNode::new(), TestNode::new());
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    write(&a.data().join("config.toml"), format!("listen = \"{port}\"\n"));
    let ran = a.run(["peer", "invite"]).ended(0).said(&port.to_string());
    let short = a.run(["peer", "invite", "--expires", "1s"]).ended(0);
    std::thread::sleep(Duration::from_millis(1_100));
    let mut command = a.command(["listen", "--json"]);
    let mut serving = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    let input = ran.stdout.clone();
    // it may take a moment until the port is open
    let until = Instant::now() + Duration::from_secs(20);
    let joined = loop {
        let joined = b.run_with(&input, &["peer", "join", "-"]);
        if joined.code == 0 || Instant::now() > until {
            break joined;
        }
    };
    let late = b.run(["peer", "join", short.text().trim()]);
    let _ = serving.kill();
    let _ = serving.wait();
    joined.ended(0);
    late.ended(5).said("expired");
    assert_eq!(a.run(["peer", "ls", "--json"]).ended(0).lines().len(), 1);
    for time in ["0s", "1y", "31d", ""] {
        a.run(["peer", "invite", "--expires", time]).ended(2).said("15m, 1h or 7d");
    }
}

fn what_is_open_is_listed_and_taken_back(a: &TestNode, b: &TestNode, invite: impl Fn() -> String) {
    let invitation = invite();
    let listed = a.run(["peer", "invites", "--json"]).ended(0);
    let (secret, one) = (invitation.split_once(':').unwrap().1, listed.json());
    assert!(!listed.text().contains(secret));
    assert_eq!((&one["name"], &one["grants"]["c"]), (&"berlin".into(), &"read".into()));
    let lives = one["expires_ms"].as_u64().unwrap() - one["made_ms"].as_u64().unwrap();
    assert_eq!(lives, 3_600_000);
    let id = one["id"].as_str().unwrap();
    let table = a.run(["peer", "invites"]).ended(0);
    for words in [id, "berlin", "c=read", " ago", "in "] {
        assert!(table.text().contains(words), "{words}: {}", table.text());
    }
    a.run(["peer", "uninvite", "0123456789abcdef"]).ended(2).said("selfsame peer invites");
    a.run(["peer", "uninvite", &id[..3]]).ended(2).said("4 digits or more");
    let taken = a.run(["peer", "uninvite", &id[..8]]).ended(0);
    assert_eq!(taken.text(), format!("taken back: invitation {id} for berlin\n"));
    assert_eq!(a.run(["peer", "invites", "--json"]).ended(0).text(), "");
    a.run(["peer", "invites"]).ended(0).said("no invitation is open");
    a.run(["peer", "uninvite", id]).ended(2).said("taken back already");
    // one that is made later is not touched, and is named when it is made
    let again = a.run(["peer", "invite", "--address", "192.0.2.7:7447"]).ended(0);
    let id = a.run(["peer", "invites", "--json"]).ended(0).json()["id"].clone();
    again.said(&format!("invitation {}, for one use", id.as_str().unwrap()));
    assert!(b.run(["peer", "join", &invitation]).code != 0);
    assert_eq!(a.run(["peer", "ls", "--json"]).ended(0).text(), "");
}

#[test]
fn an_invitation_is_listed_without_its_secret_and_taken_back() {
    let (a, b) = (TestNode::new(), TestNode::new());
    what_is_open_is_listed_and_taken_back(&a, &b, || {
        let invite = ["peer", "invite", "--address", "127.0.0.1:9", "--name", "berlin"];
        let ran = a.run([&invite[..], &["--grant", "c=read"]].concat()).ended(0);
        // nobody listens there: what joining says of it is the other test's
        b.configure("[deadlines]\ndial_ms = 300\n");
        ran.text().trim().to_owned()
    });
}

#[test]
fn an_invitation_that_was_taken_back_is_refused_by_a_node_that_runs() {
    let (a, b) = (TestNode::new(), TestNode::new());
    let mut listening = a.listen(&[]);
    let more = ["--name", "berlin", "--grant", "c=read"];
    what_is_open_is_listed_and_taken_back(&a, &b, || invite(&a, &listening, &more));
    assert_eq!(listening.event("not_paired")["peer"], b.id());
    let invitation = invite(&a, &listening, &more);
    b.run(["peer", "join", &invitation]).ended(0);
    assert_eq!(listening.interrupt(), 0);
}

#[test]
fn the_book_is_edited_by_hand_and_by_verbs() {
    let (a, b, c) = (TestNode::new(), TestNode::new(), TestNode::new());
    let path = a.data().join("peers.toml");
    let place = format!("{}@192.0.2.7:7447", b.id());
    let added = a.run(["peer", "add", &place, "--name", "berlin"]).ended(0);
    assert!(added.text().contains("it may do here: *=write"), "{}", added.text());
    assert!(added.text().contains(&a.id()), "what the other has to do: {}", added.text());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let text = std::fs::read_to_string(&path).unwrap();
    write(&path, text.replace("[[peer]]", "# in rack 3\n[[peer]]"));
    let add = ["peer", "add", &c.id(), "--grant", "players=read", "--address", "c.example:1"];
    a.run(add).ended(0);
    a.run(["peer", "grant", "berlin", "*=read", "scores=write"]).ended(0);
    let listed = a.run(["peer", "ls", "--json"]).ended(0).lines();
    assert_eq!(listed[0]["grants"], serde_json::json!({"*": "read", "scores": "write"}));
    assert_eq!(listed[0]["addresses"], serde_json::json!(["192.0.2.7:7447"]));
    assert_eq!(listed[1]["grants"], serde_json::json!({"*": "none", "players": "read"}));
    assert!(std::fs::read_to_string(&path).unwrap().contains("# in rack 3"));

    a.run(["peer", "add", &b.id()]).ended(2).said("is a peer already");
    a.run(["peer", "add", &a.id()]).ended(2).said("own id");
    let d = TestNode::new();
    a.run(["peer", "add", &d.id(), "--name", "berlin"]).ended(2).said("choose another");
    a.run(["peer", "add", &d.id(), "--name", "a b"]).ended(2).said("no name for a peer");
    a.run(["peer", "add", "12"]).ended(2).said("64 hex digits");
    a.run(["peer", "add", &format!("{}@x", d.id())]).ended(2).said("HOST:PORT");
    a.run(["peer", "invite", "--name", "berlin"]).ended(2).said("choose another");
    a.run(["peer", "grant", "berlin", "players"]).ended(2).said("COLLECTION=read");
    a.run(["peer", "grant", "berlin", "players=all"]).ended(2).said("COLLECTION=read");
    a.run(["peer", "grant", "nobody", "players=read"]).ended(2).said("selfsame peer ls");
    a.run(["peer", "rm", "berlin"]).ended(0);
    a.run(["peer", "rm", "berlin"]).ended(2).said("no peer \"berlin\" is known");
    assert_eq!(a.run(["peer", "ls", "--json"]).ended(0).lines().len(), 1);

    let good = std::fs::read_to_string(&path).unwrap();
    write(&path, format!("{good}c = \"all\"\n"));
    let line = format!("line {}: \"all\" is no grant", good.lines().count() + 1);
    for verb in [&["peer", "ls"][..], &["peer", "rm", "berlin"], &["collection", "ls"]] {
        let said = a.run(verb).ended(2).said(&line);
        assert!(said.stderr.contains("peers.toml"), "{}", said.stderr);
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{good}c = \"all\"\n"));
}

#[test]
fn who_may_only_read_is_not_dialled_to_be_taken_from() {
    let (a, b) = (TestNode::with_collection(&[]), TestNode::new());
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let place = silent.local_addr().unwrap().to_string();
    let add = ["peer", "add", &b.id(), "--name", "b", "--address", &place, "--grant", "c=read"];
    a.run(add).ended(0);
    for direction in ["both", "pull"] {
        let sync = ["sync", "c", "--peer", "b", "--direction", direction];
        a.run(sync).ended(2).said("selfsame peer grant b c=write");
    }
    a.run(["peer", "grant", "b", "c=none"]).ended(0);
    a.run(["diff", "c", "--peer", "b"]).ended(2).said("may not use c here");
    // the book also decides for a peer that is named with its address
    let named = format!("{}@{place}", b.id());
    a.run(["sync", "c", "--peer", &named]).ended(2).said("may not use c here");
    silent.set_nonblocking(true).unwrap();
    assert!(silent.recv(&mut [0; 2_000]).is_err(), "nothing was sent");
    let unknown = TestNode::new().id();
    a.run(["sync", "c", "--peer", "nobody"]).ended(2).said("no peer \"nobody\" is known");
    a.run(["peer", "add", &unknown, "--name", "dials"]).ended(0);
    a.run(["sync", "c", "--peer", "dials"]).ended(2).said("no address of dials is known");
}

#[test]
fn what_is_taken_back_holds_for_a_server_that_runs() {
    let (a, b) = (TestNode::with_collection(&[]), TestNode::with_collection(&[]));
    b.run(["put", "c", "k", "v"]).ended(0);
    a.run(["peer", "add", &b.id(), "--name", "b", "--grant", "c=read"]).ended(0);
    let mut listening = a.listen(&[]);
    let peer = listening.peer.clone();
    let sync = |direction: &str| b.run(["sync", "c", "--peer", &peer, "--direction", direction]);
    sync("both").ended(5).said("only read the collection");
    sync("push").ended(5).said("--direction pull");
    sync("pull").ended(0);
    b.run(["diff", "c", "--peer", &peer]).ended(1);
    a.run(["peer", "grant", "b", "c=none"]).ended(0);
    assert!(listening.event("peer_book")["error"].is_null());
    let forbidden = sync("pull").ended(5).said("no such collection there");
    let unknown = {
        b.run(["collection", "create", "d"]).ended(0);
        b.run(["sync", "d", "--peer", &peer, "--direction", "pull"]).ended(5)
    };
    let first = |stderr: &str| stderr.lines().next().unwrap_or_default().to_owned();
    assert_eq!(first(&forbidden.stderr), first(&unknown.stderr));
    b.run(["digest", "c", "--peer", &peer]).ended(5).said("has no collection c");
    a.run(["peer", "rm", "b"]).ended(0);
    assert!(listening.event("peer_book")["error"].is_null());
    sync("pull").ended(5).said("refused this node");
    write(&a.data().join("peers.toml"), "[[peer]]\n");
    let complaint = listening.event("peer_book");
    assert!(complaint["error"].as_str().unwrap().contains("line 1"), "{complaint}");
    assert_eq!(listening.interrupt(), 0);
}

#[test]
fn whom_the_config_allows_is_listed_too_and_removing_it_says_so() {
    let (a, b) = (TestNode::new(), TestNode::new());
    write(&a.data().join("config.toml"), format!("allow = [\"{}\"]\n", b.id()));
    let listed = a.run(["peer", "ls", "--json"]).ended(0).json();
    assert_eq!((&listed["from"], &listed["grants"]["*"]), (&"config.toml".into(), &"write".into()));
    a.run(["peer", "add", &b.id(), "--grant", "*=read"]).ended(0);
    let listed = a.run(["peer", "ls", "--json"]).ended(0).json();
    assert_eq!((&listed["from"], &listed["grants"]["*"]), (&"peers.toml".into(), &"read".into()));
    a.run(["peer", "rm", &b.id()[..6]]).ended(0).said("allow in config.toml");
}
