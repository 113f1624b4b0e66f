//! `selfsame serve` as a process: signals, logs, the service manager, and two that keep equal.
#![cfg(all(feature = "node", unix))]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.run(&["init"]);
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_selfsame"));
        command.arg("--data").arg(self.path()).args(arguments);
        command.env_remove("SELFSAME_LOG").env_remove("NOTIFY_SOCKET");
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a verb that must succeed; what it printed.
    fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn serve(&self, arguments: &[&str]) -> Serving {
        let mut command = self.command(&["serve", "--addr", "127.0.0.1:0"]);
        Serving::start(command.args(arguments))
    }

    fn config(&self, text: &str) {
        std::fs::write(self.file("config.toml"), text).unwrap();
    }
}

/// A running `selfsame serve`.
struct Serving {
    child: Child,
    log: Arc<Mutex<String>>,
    port: u16,
}

impl Serving {
    /// One that says on standard output where it serves.
    fn start(command: &mut Command) -> Self {
        let mut serving = Self::spawn(command.stdout(Stdio::piped()));
        let mut lines = BufReader::new(serving.child.stdout.take().unwrap()).lines();
        let first = lines.next().expect("it says where it serves").unwrap();
        serving.port = first.split([':', ',']).nth(1).unwrap().parse().unwrap();
        serving
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(String::new()));
        let written = Arc::clone(&log);
        std::thread::spawn(move || {
            let mut line = String::new();
            while errors.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                written.lock().unwrap().push_str(&std::mem::take(&mut line));
            }
        });
        Self { child, log, port: 0 }
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    fn logs(&self, words: &str) -> String {
        let started = Instant::now();
        loop {
            let log = self.log.lock().unwrap().clone();
            if let Some(line) = log.lines().find(|line| line.contains(words)) {
                return line.to_owned();
            }
            assert!(started.elapsed() < LIMIT, "{words:?} is not logged:\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it with a signal; its exit code.
    fn end(mut self, signal: &str) -> Option<i32> {
        self.signal(signal);
        self.wait()
    }

    fn wait(&mut self) -> Option<i32> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(started.elapsed() < LIMIT, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // one that a failed test left behind
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_broken_config_keeps_the_old_one_and_sigterm_ends_it_cleanly() {
    let node = Folder::new();
    let serving = node.serve(&[]);
    node.config("[sync]\ninterval_s = \"often\"\n");
    serving.signal("-HUP");
    let line = serving.logs("not reloaded");
    assert!(line.contains("config.toml, line 2: ") && line.contains("ERROR"), "{line}");
    node.config("[sync]\ninterval_s = 5\n[limits]\nmax_siblings = 4\n");
    std::fs::write(node.file("peers.toml"), "[[peer]]\nid = 7\n").unwrap();
    serving.signal("-HUP");
    serving.logs("peers.toml, line 2: ");
    std::fs::write(node.file("peers.toml"), "").unwrap();
    serving.signal("-HUP");
    serving.logs("were read again");
    let line = serving.logs("started anew");
    assert!(line.contains("[limits]"), "{line}");
    let before = Instant::now();
    assert_eq!(serving.end("-TERM"), Some(0));
    assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
    // and the folder is free
    node.run(&["collection", "ls"]);
}

#[test]
fn what_keeps_it_from_serving_is_said_with_exit_code_2() {
    let node = Folder::new();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = node.output(&["serve", "--addr", &address]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(&address) && text.contains("is in use"), "{text}");
    node.config("listen = 7\n");
    let output = node.output(&["serve"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("config.toml, line 1: "));
}

#[test]
fn a_choice_of_log_that_is_none_is_not_passed_over() {
    let node = Folder::new();
    let output = node.command(&["serve"]).env("SELFSAME_LOG", "selfsame=loud").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("SELFSAME_LOG") && said.contains("warn,selfsame=debug"), "{said}");
}

#[test]
fn the_service_manager_is_told_how_it_is() {
    let node = Folder::new();
    let path = node.file("notify");
    // beside the data, where nothing else may lie
    let outside = tempfile::tempdir().unwrap();
    let path = outside.path().join(path.file_name().unwrap());
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(LIMIT)).unwrap();
    let heard = || {
        let mut words = [0; 64];
        let length = manager.recv(&mut words).unwrap();
        String::from_utf8_lossy(&words[..length]).into_owned()
    };
    let mut command = node.command(&["serve", "--addr", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    let serving = Serving::start(&mut command);
    assert_eq!(heard(), "READY=1");
    let started = Instant::now();
    for _ in 0..4 {
        assert_eq!(heard(), "WATCHDOG=1");
    }
    assert!(started.elapsed() < Duration::from_secs(5));
    serving.signal("-HUP");
    let mut words = heard();
    while words == "WATCHDOG=1" {
        words = heard();
    }
    assert_eq!(words, "RELOADING=1");
    assert_eq!(heard(), "READY=1");
    serving.signal("-TERM");
    let mut words = heard();
    while words == "WATCHDOG=1" {
        words = heard();
    }
    assert_eq!(words, "STOPPING=1");
    let mut serving = serving;
    assert_eq!(serving.wait(), Some(0));
}

#[test]
fn two_that_know_each_other_keep_equal_without_being_asked() {
    let (a, b) = (Folder::new(), Folder::new());
    let (id_a, id_b) = (a.run(&["id"]), b.run(&["id"]));
    for node in [&a, &b] {
        node.run(&["collection", "create", "players"]);
        node.config("[sync]\ninterval_s = 1\n");
    }
    a.run(&["put", "players", "ada", "level 3"]);
    b.run(&["put", "players", "bob", "level 1"]);
    b.run(&["peer", "add", &id_a]);
    let at_b = b.serve(&[]);
    a.run(&["peer", "add", &format!("{id_b}@127.0.0.1:{}", at_b.port)]);
    let at_a = a.serve(&[]);
    for serving in [&at_a, &at_b] {
        let line = serving.logs("outcome=\"complete\"");
        assert!(line.contains("collection=\"players\"") && line.contains("peer="), "{line}");
        serving.logs("connected");
    }
    assert_eq!(at_a.end("-INT"), Some(0));
    assert_eq!(at_b.end("-TERM"), Some(0));
    for node in [&a, &b] {
        assert_eq!(node.run(&["get", "players", "ada"]), "level 3");
        assert_eq!(node.run(&["get", "players", "bob"]), "level 1");
    }
    let digest = |node: &Folder| node.run(&["digest", "players", "--json"]);
    let root = |text: String| {
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value["root"].to_string()
    };
    assert_eq!(root(digest(&a)), root(digest(&b)));
}

#[test]
fn a_peer_that_only_dials_is_turned_to_by_name_while_it_is_connected() {
    let (hub, spoke) = (Folder::new(), Folder::new());
    let (id, of_spoke) = (hub.run(&["id"]), spoke.run(&["id"]));
    for node in [&hub, &spoke] {
        node.run(&["collection", "create", "players"]);
    }
    hub.run(&["peer", "add", &of_spoke, "--name", "spoke"]);
    let output = hub.output(&["digest", "players", "--peer", "spoke"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("no address of spoke is known"));
    let at_hub = hub.serve(&[]);
    spoke.run(&["peer", "add", &format!("{id}@127.0.0.1:{}", at_hub.port)]);
    // writes of it are not brought along by themselves
    let at_spoke = spoke.serve(&[]);
    at_hub.logs("connected");
    let port = at_hub.logs("connected").split("address=127.0.0.1:").nth(1).unwrap().to_owned();
    assert!(port.starts_with(&at_spoke.port.to_string()), "the spoke dials from where it serves");
    spoke.run(&["put", "players", "ada", "level 3"]);
    let started = Instant::now();
    while hub.output(&["digest", "players", "--peer", "spoke"]).status.code() != Some(0) {
        assert!(started.elapsed() < LIMIT, "never equal");
    }
    hub.run(&["sync", "players", "--peer", "spoke"]);
    hub.run(&["diff", "players", "--peer", &of_spoke[..8]]);
    assert_eq!(hub.run(&["get", "players", "ada"]), "level 3");
    let log = at_hub.log.lock().unwrap().clone();
    assert_eq!(log.matches(" connected").count(), 1, "no connection but that one: {log}");
    assert_eq!(at_spoke.end("-TERM"), Some(0));
    at_hub.logs("disconnected");
    let output = hub.output(&["sync", "players", "--peer", "spoke"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("no address of spoke is known"));
    assert_eq!(at_hub.end("-TERM"), Some(0));
}

#[test]
fn a_peer_that_was_killed_and_came_back_is_turned_to_at_once() {
    let (a, b) = (Folder::new(), Folder::new());
    let (id_a, id_b) = (a.run(&["id"]), b.run(&["id"]));
    for node in [&a, &b] {
        node.run(&["collection", "create", "players"]);
    }
    b.run(&["peer", "add", &id_a]);
    let mut at_b = b.serve(&[]);
    a.run(&["peer", "add", &format!("{id_b}@127.0.0.1:{}", at_b.port), "--name", "b"]);
    let at_a = a.serve(&[]);
    at_a.logs("connected");
    at_b.child.kill().unwrap();
    at_b.child.wait().unwrap();
    // it takes its time until the other knows that the connection is dead
    let again =
        Serving::start(b.command(&["serve"]).args(["--addr", &format!("127.0.0.1:{}", at_b.port)]));
    a.run(&["sync", "players", "--peer", "b"]);
    assert_eq!(again.end("-TERM"), Some(0));
    assert_eq!(at_a.end("-TERM"), Some(0));
}

#[test]
fn how_long_a_command_dials_beside_it_is_read_again() {
    let node = Folder::new();
    node.run(&["collection", "create", "players"]);
    let serving = node.serve(&[]);
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let other = Folder::new().run(&["id"]);
    let peer = format!("{other}@{}", silent.local_addr().unwrap());
    for (text, words) in [("321", "within 321ms"), ("123", "within 123ms")] {
        node.config(&format!("[deadlines]\ndial_ms = {text}\n"));
        assert_eq!(node.run(&["config", "reload", "--json"]), r#"{"peers":0,"needs_restart":[]}"#);
        for verb in ["sync", "diff", "digest"] {
            let output = node.output(&[verb, "players", "--peer", &peer]);
            assert_eq!(output.status.code(), Some(4), "{output:?}");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.contains(words), "{said}");
        }
    }
    assert_eq!(serving.end("-TERM"), Some(0));
}

/// The lines of a log for programs, all of them JSON.
fn lines(log: &str) -> Vec<serde_json::Value> {
    let line = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line:?}"));
    log.lines().map(line).collect()
}

#[test]
fn a_log_for_programs_is_json_and_nothing_else() {
    let (node, other) = (Folder::new(), Folder::new());
    for node in [&node, &other] {
        node.run(&["collection", "create", "players"]);
        node.run(&["put", "players", "ada", node.path().to_str().unwrap()]);
    }
    let id = other.run(&["id"]);
    node.run(&["peer", "add", &id]);
    let mut command = node.command(&["serve", "--addr", "127.0.0.1:0", "--log-json"]);
    let mut serving = Serving::spawn(command.stdout(Stdio::piped()));
    let first = serving.logs("\"serving\"");
    let first: serde_json::Value = serde_json::from_str(&first).unwrap();
    assert_eq!((&first["level"], &first["allowed"]), (&"INFO".into(), &1.into()));
    assert!(first["timestamp"].as_str().unwrap().ends_with('Z'));
    let place = format!("{}@{}", node.run(&["id"]), first["address"].as_str().unwrap());
    assert!(place.starts_with(first["id"].as_str().unwrap()));
    other.run(&["sync", "players", "--peer", &place]);
    serving.logs("\"disconnected\"");
    serving.signal("-TERM");
    assert_eq!(serving.wait(), Some(0));
    let mut printed = String::new();
    serving.child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    assert_eq!(printed, "");
    serving.logs("\"stopped\"");
    let told = lines(&serving.log.lock().unwrap());
    let messages: Vec<_> = told.iter().map(|line| line["message"].as_str().unwrap()).collect();
    let expected = ["serving", "connected", "session", "disconnected", "stopping", "stopped"];
    assert_eq!(messages, expected);
    let session = &told[2];
    assert_eq!((&session["peer"], &session["collection"]), (&id.into(), &"players".into()));
    assert_eq!((&session["outcome"], &session["opened_here"]), (&"complete".into(), &false.into()));
    for count in ["session", "changed_here", "bytes_sent", "bytes_received", "elapsed_ms"] {
        assert!(session[count].is_u64(), "{count}: {session}");
    }
    assert!(session["cause"].is_null() && told[1]["peer"] == session["peer"]);
}

#[test]
fn the_error_in_which_it_ends_is_a_line_of_json_too() {
    let node = Folder::new();
    node.config("listen = 7\n");
    for verb in ["serve", "listen"] {
        let output = node.output(&[verb, "--log-json"]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(output.stdout.is_empty());
        let told = lines(std::str::from_utf8(&output.stderr).unwrap());
        assert_eq!((told.len(), &told[0]["level"]), (1, &"ERROR".into()));
        assert_eq!(told[0]["exit"], 2);
        assert!(told[0]["error"].as_str().unwrap().contains("config.toml, line 1: "));
    }
    node.config("listen = \"127.0.0.1:0\"\n");
    let mut command = node.command(&["listen", "--log-json"]);
    let mut listening = Serving::spawn(command.stdout(Stdio::piped()));
    assert!(listening.logs("nobody may connect yet").contains("\"WARN\""));
    let mut out = BufReader::new(listening.child.stdout.take().unwrap());
    let mut first = String::new();
    out.read_line(&mut first).unwrap();
    assert_eq!(lines(&first)[0]["event"], "listening");
    listening.signal("-TERM");
    assert_eq!(listening.wait(), Some(0));
    assert_eq!(lines(&listening.log.lock().unwrap()).len(), 1);
}

/// Passes datagrams on between whoever sends to it and a port, until so many have passed: then
/// each end is as good as dead to the other. Its address, and what hears of that moment.
fn line_that_breaks(port: u16, after: usize) -> (SocketAddr, Receiver<()>) {
    let here = UdpSocket::bind("127.0.0.1:0").unwrap();
    let there = UdpSocket::bind("127.0.0.1:0").unwrap();
    there.connect(("127.0.0.1", port)).unwrap();
    let address = here.local_addr().unwrap();
    let (broken, told) = std::sync::mpsc::channel();
    let caller = Arc::new(Mutex::new(address));
    let passed = Arc::new(AtomicUsize::new(0));
    for onward in [true, false] {
        let (here, there) = (here.try_clone().unwrap(), there.try_clone().unwrap());
        let (caller, passed, broken) = (Arc::clone(&caller), Arc::clone(&passed), broken.clone());
        std::thread::spawn(move || {
            let mut datagram = [0; 65_536];
            // the sockets stay open beyond the end: nobody is told that nothing gets through
            while passed.fetch_add(1, Ordering::Relaxed) < after {
                if onward {
                    let (length, from) = here.recv_from(&mut datagram).unwrap();
                    *caller.lock().unwrap() = from;
                    let _ = there.send(&datagram[..length]);
                } else {
                    let length = there.recv(&mut datagram).unwrap();
                    let _ = here.send_to(&datagram[..length], *caller.lock().unwrap());
                }
            }
            let _ = broken.send(());
            std::thread::sleep(LIMIT * 3);
        });
    }
    (address, told)
}

#[test]
fn a_peer_that_is_dead_does_not_hold_up_who_is_to_stop() {
    let (node, other) = (Folder::new(), Folder::new());
    for node in [&node, &other] {
        node.run(&["collection", "create", "players"]);
    }
    let values = tempfile::tempdir().unwrap();
    for name in ["ada", "bob", "eve"] {
        let mut noise = vec![0; 2_000_000];
        rand::Rng::fill_bytes(&mut rand::rng(), &mut noise);
        std::fs::write(values.path().join(name), noise).unwrap();
    }
    node.run(&["import", "players", values.path().to_str().unwrap()]);
    let (id, caller) = (node.run(&["id"]), other.run(&["id"]));
    for verb in ["serve", "listen"] {
        let mut command = node.command(&[verb, "--addr", "127.0.0.1:0", "--allow", &caller]);
        let serving = Serving::start(&mut command);
        let (address, broken) = line_that_breaks(serving.port, 400);
        let peer = format!("{id}@{address}");
        let mut command = other.command(&["sync", "players", "--peer", &peer]);
        let mut calling = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        broken.recv_timeout(LIMIT).unwrap();
        let sessions = node.run(&["sessions", "--json"]);
        assert!(!sessions.contains("\"running\":[]"), "{sessions}");
        let before = Instant::now();
        assert_eq!(serving.end("-INT"), Some(0));
        assert!(before.elapsed() < Duration::from_secs(4), "{verb}: {:?}", before.elapsed());
        calling.kill().unwrap();
        calling.wait().unwrap();
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let node = Folder::new();
    let mut serving = node.serve(&[]);
    serving.signal("-TERM");
    serving.signal("-TERM");
    // cleanly if that was quicker than the second signal
    assert!(matches!(serving.wait(), Some(0 | 130)));
    let mut rest = String::new();
    let _ = serving.child.stdout.take().map(|mut out| out.read_to_string(&mut rest));
}
