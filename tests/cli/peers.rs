//! Verbs that turn to a peer.

use std::net::UdpSocket;
use std::process::Stdio;

use super::node::{TestNode, interrupt};

both_ways!(
    two_nodes_differ_synchronise_and_agree,
    more_differences_than_a_session_takes_are_not_passed_off_as_all,
    every_strategy_and_direction_does_what_it_says,
    the_brake_asks_before_much_is_removed,
    why_a_peer_cannot_be_used_is_said_and_has_a_code,
    ctrl_c_ends_waiting_for_a_peer,
    who_may_connect_is_in_the_config_too,
);

fn pair() -> (TestNode, TestNode) {
    let (a, b) = (TestNode::with_collection(&[]), TestNode::with_collection(&[]));
    for at in 0..50 {
        a.run_with(&[at; 100], &["put", "c", &format!("a {at}")]).ended(0);
        if at % 10 == 0 {
            b.run_with(&[at; 100], &["put", "c", &format!("b {at}")]).ended(0);
        }
    }
    (a, b)
}

fn two_nodes_differ_synchronise_and_agree() {
    let (a, b) = pair();
    let mut listening = a.listen(&[&b]);
    let peer = listening.peer.clone();
    let with_peer = |arguments: &[&str]| b.run([arguments, &["--peer", &peer]].concat());

    let compared = with_peer(&["digest", "c", "--json"]).ended(1).json();
    assert_eq!((&compared["equal"], &compared["peer"]["entries"]), (&false.into(), &50.into()));
    assert!(!compared["differing_buckets"].as_array().unwrap().is_empty());
    let before = b.root();
    let differing = with_peer(&["diff", "c", "--json"]).ended(1).lines();
    assert_eq!(differing.len(), 55);
    let only_here = differing.iter().filter(|line| line["difference"] == "only_here").count();
    assert_eq!(only_here, 5);
    assert_eq!(with_peer(&["diff", "c"]).ended(1).text().lines().count(), 55);
    assert_eq!(b.root(), before, "diff changes nothing");

    let done = with_peer(&["sync", "c", "--json"]).ended(0).json();
    assert_eq!(done["outcome"], "complete");
    assert_eq!((&done["here"]["added"], &done["there"]["added"]), (&50.into(), &5.into()));
    assert_eq!(done["root"], b.root());
    assert!(done["certificate"].is_string());
    let event = listening.event("session");
    assert_eq!(event["collection"], "c");

    with_peer(&["diff", "c"]).ended(0);
    assert!(with_peer(&["digest", "c"]).ended(0).text().starts_with("equal: 55 entries"));
    let again = with_peer(&["sync", "c", "--explain"]).ended(0);
    assert!(again.text().contains("nothing to do") && again.text().contains("PHASE"));
    with_peer(&["sync", "c", "--profile", "cpu", "--strategy", "iblt"]).ended(2);
    a.run(["put", "c", "one-more", "x"]).ended(0);
    let plan = with_peer(&["sync", "c", "--profile", "cpu", "--explain"]).ended(0);
    assert!(plan.text().contains("WORK"), "{}", plan.text());
    a.run(["put", "c", "one-more", "y"]).ended(0);
    let plan = with_peer(&["sync", "c", "--profile", "latency", "--json"]).ended(0).json();
    let step = &plan["plan"][0];
    assert!(step["predicted_messages"].is_u64() && step["predicted_busy_us"].is_u64(), "{step}");
    assert_eq!(listening.interrupt(), 0);
    assert_eq!(a.root(), b.root());
}

fn more_differences_than_a_session_takes_are_not_passed_off_as_all() {
    let (a, b) = pair();
    b.configure("[limits]\nmax_session_entries = 10\n");
    let listening = a.listen(&[&b]);
    let diff = b.run(["diff", "c", "--peer", &listening.peer]).ended(1).said("these are not all");
    let shown = diff.text().lines().count();
    assert!(shown < 55 && diff.stderr.contains(&format!("at least {shown} differences")));
    let cut = b.run(["diff", "c", "--json", "--peer", &listening.peer]).ended(1).lines();
    let (last, keys) = cut.split_last().unwrap();
    assert_eq!((&last["truncated"], &last["at_least"]), (&true.into(), &keys.len().into()));
    // the lower limit is the peer's
    let from_a = b.listen(&[&a]);
    drop(listening);
    a.run(["diff", "c", "--peer", &from_a.peer]).ended(1).said("these are not all");
    drop(from_a);
    let listening = a.listen(&[&b]);
    let done = b.run(["sync", "c", "--json", "--peer", &listening.peer]).ended(0).json();
    assert!(done["sessions"].as_u64() > Some(1));
    b.run(["diff", "c", "--peer", &listening.peer]).ended(0);
}

fn every_strategy_and_direction_does_what_it_says() {
    for strategy in ["auto", "bloom", "sketch", "iblt", "merkle"] {
        let (a, b) = pair();
        let listening = a.listen(&[&b]);
        let sync = |more: &[&str]| {
            let fixed = ["sync", "c", "--json", "--strategy", strategy, "--peer", &listening.peer];
            b.run([&fixed, more].concat()).ended(0).json()
        };
        let pulled = sync(&["--direction", "pull"]);
        assert_eq!((&pulled["outcome"], &pulled["here"]["added"]), (&"pulled".into(), &50.into()));
        assert_eq!(pulled["there"]["added"], 0);
        let pushed = sync(&["--direction", "push"]);
        assert_eq!((&pushed["outcome"], &pushed["there"]["added"]), (&"pushed".into(), &5.into()));
        b.run(["rm", "c", "a 7"]).ended(0);
        b.run(["put", "c", "a 8", "changed"]).ended(0);
        let diff = b.run(["diff", "c", "--json", "--peer", &listening.peer]).ended(1).lines();
        let mut kinds: Vec<_> =
            diff.iter().map(|line| line["difference"].as_str().unwrap()).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, ["newer_here", "removed_here"]);
        let both = sync(&[]);
        assert_eq!((&both["there"]["removed"], &both["there"]["updated"]), (&1.into(), &1.into()));
        assert_eq!(listening.interrupt(), 0);
        assert_eq!(a.root(), b.root());
        a.run(["get", "c", "a 7"]).ended(1);
    }
}

fn the_brake_asks_before_much_is_removed() {
    let (a, b) = pair();
    for node in [&a, &b] {
        node.configure("[limits]\nmax_removals = 3\nmax_removals_percent = 10\n");
    }
    let listening = a.listen(&[&b]);
    b.run(["sync", "c", "--peer", &listening.peer]).ended(0);
    listening.interrupt();
    for at in 0..40 {
        a.run(["rm", "c", &format!("a {at}")]).ended(0);
    }
    let listening = a.listen(&[&b]);
    let sync = ["sync", "c", "--peer", &listening.peer];
    b.run(sync).ended(7).said("--allow-removals");
    assert_eq!(b.run(["ls", "c"]).ended(0).text().lines().count(), 55);
    b.run([&sync[..], &["--allow-removals"]].concat()).ended(0);
    assert_eq!(b.run(["ls", "c"]).ended(0).text().lines().count(), 15);
}

fn why_a_peer_cannot_be_used_is_said_and_has_a_code() {
    let (a, b) = (TestNode::with_collection(&[]), TestNode::with_collection(&[]));
    b.run(["collection", "create", "only here"]).ended(0);
    a.run(["collection", "create", "other"]).ended(0);
    b.run(["collection", "create", "other", "--policy", "siblings"]).ended(0);
    let listening = a.listen(&[&b]);
    let peer = listening.peer.as_str();
    b.run(["sync", "only here", "--peer", peer]).ended(5).said("no such collection there");
    b.run(["digest", "only here", "--peer", peer]).ended(5).said("has no collection only here");
    b.run(["diff", "other", "--peer", peer]).ended(5).said("another policy");
    assert!(b.run(["digest", "other", "--peer", peer]).ended(1).text().contains("other settings"));
    b.run(["sync", "unknown", "--peer", peer]).ended(2).said("create it first");

    let stranger = TestNode::with_collection(&[]);
    let refused = stranger.run(["sync", "c", "--peer", peer]).ended(5).said("refused this node");
    assert!(refused.stderr.contains(&stranger.id()), "{}", refused.stderr);
    let wrong = format!("{}@{}", stranger.id(), peer.split_once('@').unwrap().1);
    b.run(["sync", "c", "--peer", &wrong]).ended(5).said("expected");
    b.run(["sync", "c", "--peer", "192.0.2.1:7447"]).ended(2).said("ID@HOST:PORT");
    let own = format!("{}@127.0.0.1:7447", b.id());
    b.run(["sync", "c", "--peer", &own]).ended(2).said("own id");

    b.configure("[deadlines]\ndial_ms = 300\n");
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let nobody = format!("{}@{}", a.id(), silent.local_addr().unwrap());
    b.run(["sync", "c", "--peer", &nobody]).ended(4).said("did not answer within");
    b.run(["diff", "c", "--peer", &nobody]).ended(4);
    b.run(["digest", "c", "--peer", &nobody]).ended(4);
}

fn ctrl_c_ends_waiting_for_a_peer() {
    let node = TestNode::with_collection(&[]);
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let peer = format!("{}@{}", TestNode::new().id(), silent.local_addr().unwrap());
    let child =
        node.command(["sync", "c", "--peer", &peer]).stderr(Stdio::piped()).spawn().unwrap();
    silent.recv(&mut [0; 2_000]).unwrap();
    interrupt(&child);
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130), "{}", String::from_utf8_lossy(&ended.stderr));
}

fn who_may_connect_is_in_the_config_too() {
    let (a, b) = (TestNode::with_collection(&[]), TestNode::with_collection(&[]));
    a.configure(format!("listen = \"127.0.0.1:0\"\nallow = [\"{}\"]\n", b.id()));
    let listening = a.listen(&[]);
    b.run(["sync", "c", "--peer", &listening.peer]).ended(0);
    let taken = listening.peer.split_once('@').unwrap().1;
    b.run(["listen", "--addr", taken]).ended(2).said("in use");
    b.run(["listen", "--allow", "12"]).ended(2).said("64 hex digits");
}
