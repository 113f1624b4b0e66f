//! What a node says of itself: alone, beside a process that serves, and of a daemon.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::node::{TestNode, interrupt, write};

both_ways!(a_node_says_what_it_holds, settings_are_checked_whoever_runs);

fn a_node_says_what_it_holds() {
    let node = TestNode::with_collection(&[]);
    node.run(["put", "c", "k", "value"]).ended(0);
    let said = node.run(["status"]).ended(0);
    for what in [node.id().as_str(), "no daemon runs", "c           lww"] {
        assert!(said.text().contains(what), "{what}: {}", said.text());
    }
    let status = node.run(["status", "--json"]).ended(0).json();
    assert_eq!((&status["id"], &status["daemon"]), (&node.id().into(), &Value::Null));
    assert_eq!(status["collections"][0]["root"], node.root());
    assert_eq!(status["collections"][0]["bytes"], 5);
    node.run(["config", "reload"]).ended(2).said("selfsame serve");
}

fn settings_are_checked_whoever_runs() {
    let node = TestNode::with_collection(&[]);
    let checked = node.run(["config", "check"]).ended(0);
    assert_eq!(checked.text().lines().count(), 2);
    write(&node.data().join("config.toml"), "[sync]\n\nbatch = 1\n");
    write(&node.data().join("peers.toml"), "[[peer]]\nid = 7\n");
    let said = node.run(["config", "check"]).ended(2);
    let said = said.said("config.toml, line 3: unknown field `batch`").said("peers.toml, line 2: ");
    assert!(said.stdout.is_empty());
    write(&node.path("new/config.toml"), "listen = \"127.0.0.1:0\"\n");
    write(&node.path("new/peers.toml"), "");
    node.run(["config", "check", "new/config.toml"]).ended(0);
    node.run(["config", "check", "new/peers.toml"]).ended(0);
    node.run(["config", "check", "new/missing.toml"]).ended(2).said("cannot read new/missing.toml");
}

#[test]
fn sessions_are_told_by_the_process_that_has_them() {
    let (a, b) = (TestNode::with_collection(&[]), TestNode::with_collection(&[]));
    a.run(["sessions"]).ended(2).said("no daemon runs");
    let listening = a.listen(&[&b]);
    a.run(["sessions"]).ended(0).said("no sessions yet");
    let mut command = a.command(["sessions", "--watch", "--json"]);
    let mut watching = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let (said, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || lines.map(Result::unwrap).try_for_each(|line| said.send(line)));
    // once the watcher is there
    let first = loop {
        b.run(["put", "c", "k", &format!("{:?}", Instant::now())]).ended(0);
        b.run(["sync", "c", "--peer", &listening.peer]).ended(0);
        if let Ok(line) = heard.recv_timeout(Duration::from_millis(50)) {
            break line;
        }
    };
    let event: Value = serde_json::from_str(&first).unwrap();
    assert_eq!((&event["event"], &event["collection"]), (&"started".into(), &"c".into()));
    assert_eq!((&event["peer"], &event["opened_here"]), (&b.id().into(), &false.into()));
    let sessions = a.run(["sessions", "--json"]).ended(0).json();
    assert_eq!(sessions["recent"][0]["outcome"], "complete");
    assert!(a.run(["sessions"]).ended(0).text().contains("the peer"));
    // a watcher holds up nobody who wants to end
    let began = Instant::now();
    assert_eq!(listening.interrupt(), 0);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert!(heard.iter().all(|line| line.starts_with('{')));
    assert_eq!(watching.wait().unwrap().code(), Some(0));
}

#[test]
fn ctrl_c_ends_watching_as_it_is_meant_to_end() {
    let node = TestNode::with_collection(&[]);
    let _listening = node.listen(&[]);
    let mut watching = node.command(["sessions", "--watch"]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    interrupt(&watching);
    assert_eq!(watching.wait().unwrap().code(), Some(0));
}

/// A daemon, ended when it is dropped.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) place: String,
}

impl Daemon {
    pub(crate) fn start(node: &TestNode) -> Self {
        let mut command = node.command(["serve", "--addr", "127.0.0.1:0"]);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().expect("it says where it serves").unwrap();
        let place = first.split([' ', ',']).nth(2).unwrap().to_owned();
        // the socket is there soon after
        let began = Instant::now();
        while !node.data().join("control.sock").exists() {
            assert!(began.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { child, place }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        interrupt(&self.child);
        let _ = self.child.wait();
    }
}

#[cfg(unix)]
#[test]
fn a_daemon_says_how_it_stands_with_its_peers() {
    let (a, b) = (TestNode::with_collection(&[]), TestNode::with_collection(&[]));
    for node in [&a, &b] {
        node.configure("[sync]\ninterval_s = 1\n");
    }
    let of_a = Daemon::start(&a);
    let invited = a.run(["peer", "invite", "--address", &of_a.place, "--name", "bert"]).ended(0);
    b.run(["peer", "join", invited.text().trim(), "--name", "anna"]).ended(0);
    let of_b = Daemon::start(&b);
    a.run(["put", "c", "k", "v"]).ended(0);
    let began = Instant::now();
    let status = loop {
        let status = b.run(["status", "--json"]).ended(0).json();
        let pair = &status["daemon"]["pairs"][0];
        if pair["equal_since_ms"].is_u64() && status["collections"][0]["entries"] == 1 {
            break status;
        }
        assert!(began.elapsed() < Duration::from_secs(15), "{status}");
        std::thread::sleep(Duration::from_millis(50));
    };
    let daemon = &status["daemon"];
    assert_eq!(daemon["pid"], of_b.child.id());
    let peer = &daemon["peers"][0];
    assert_eq!((&peer["id"], &peer["name"]), (&a.id().into(), &"anna".into()));
    assert!(peer["connected_since_ms"].is_u64(), "{peer}");
    let said = b.run(["status"]).ended(0);
    for what in ["listening   127.0.0.1:", "anna", "EQUAL FOR", "complete, "] {
        assert!(said.text().contains(what), "{what}: {}", said.text());
    }
    let sessions = b.run(["sessions", "--json"]).ended(0).json();
    assert!(!sessions["recent"].as_array().unwrap().is_empty());
    // verbs that turn to a peer work beside it
    b.run(["put", "c", "other", "w"]).ended(0);
    b.run(["sync", "c", "--peer", "anna"]).ended(0);
    assert_eq!(a.run(["get", "c", "other"]).ended(0).text(), "w");
    b.run(["diff", "c", "--peer", "anna"]).ended(0);

    let config = b.data().join("config.toml");
    write(&config, "[sync]\ninterval_s = 2\n");
    b.run(["config", "reload"]).ended(0);
    write(&config, "[sync]\ninterval_s = 2\n[limits]\nmax_value_bytes = 10\n");
    let reloaded = b.run(["config", "reload", "--json"]).ended(0).json();
    assert!(!reloaded["needs_restart"].as_array().unwrap().is_empty(), "{reloaded}");
    write(&config, "[sync]\ninterval_s = \"often\"\n");
    b.run(["config", "reload"]).ended(2).said("config.toml, line 2: ");
    b.run(["status"]).ended(0);
}
