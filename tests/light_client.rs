//! The light client of the examples against the real binary: what it is told over the socket of
//! `selfsame serve` holds, and what is changed on the way does not.
#![cfg(all(feature = "node", unix))]
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../examples/remote_light_client/client.rs"]
mod client;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use client::LightClient;
use selfsame::hash::Root;
use selfsame::merkle::Answer;
use selfsame::types::{Key, NodeId};
use tempfile::TempDir;

/// A process that ends with the test.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Node {
    folder: TempDir,
    _served: Served,
}

fn selfsame(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_selfsame"));
    command.arg("--data").arg(folder).args(arguments).stdin(Stdio::null());
    command
}

fn ran(folder: &Path, arguments: &[&str]) -> String {
    let output = selfsame(folder, arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

impl Node {
    fn serving() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        ran(data, &["init"]);
        // any port: nothing but the socket is asked
        std::fs::write(data.join("config.toml"), "listen = \"127.0.0.1:0\"\n").unwrap();
        ran(data, &["collection", "create", "players"]);
        for number in 0..40 {
            ran(data, &["put", "players", &format!("player:{number}"), &format!("level {number}")]);
        }
        let mut child = selfsame(data, &["serve"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // both ends are read to their ends, so that the process is never held up
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        thread::spawn(move || BufReader::new(err).lines().for_each(drop));
        thread::spawn(move || BufReader::new(out).lines().for_each(drop));
        let served = Served(child);
        for _ in 0..600 {
            if UnixStream::connect(data.join("control.sock")).is_ok() {
                return Self { folder, _served: served };
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("the node does not answer on its socket");
    }

    fn client(&self) -> LightClient {
        let digest = ran(self.folder.path(), &["digest", "players", "--json"]);
        let digest: serde_json::Value = serde_json::from_str(&digest).unwrap();
        LightClient {
            socket: self.folder.path().join("control.sock"),
            collection: "players".into(),
            root: digest["root"].as_str().unwrap().parse().unwrap(),
        }
    }

    fn id(&self) -> NodeId {
        let mut id = [0; 32];
        let text = ran(self.folder.path(), &["id"]);
        hex::decode_to_slice(text.trim(), &mut id).unwrap();
        NodeId(id)
    }
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

/// Passes one connection on, with one byte of the answer's body changed.
fn changing(node: &Path, socket: &Path, byte: usize) -> thread::JoinHandle<()> {
    let (node, listener) = (node.to_path_buf(), UnixListener::bind(socket).unwrap());
    thread::spawn(move || {
        let (mut asker, _) = listener.accept().unwrap();
        let mut to_node = UnixStream::connect(node).unwrap();
        let mut request = vec![0; 64 << 10];
        let read = asker.read(&mut request).unwrap();
        to_node.write_all(&request[..read]).unwrap();
        let mut answer = Vec::new();
        to_node.read_to_end(&mut answer).unwrap();
        let body = answer.windows(4).position(|it| it == b"\r\n\r\n").unwrap() + 4;
        let at = body + byte % (answer.len() - body);
        answer[at] ^= 0x10;
        asker.write_all(&answer).unwrap();
    })
}

#[test]
fn a_light_client_checks_all_that_a_daemon_tells_it() {
    let node = Node::serving();
    let mut client = node.client();
    assert_eq!(client.get(&key("player:7")).unwrap().unwrap(), b"level 7");
    assert_eq!(client.get(&key("nobody")).unwrap(), None);
    let asked = [key("player:1"), key("nobody"), key("player:39")];
    let answers = client.get_many(&asked).unwrap();
    let present = answers.iter().filter(|(_, answer)| matches!(answer, Answer::Present(_)));
    assert_eq!((answers.len(), present.count()), (3, 2));
    assert_eq!(client.all_beginning("player:3").unwrap().len(), 11);
    assert_eq!(client.all_beginning("x").unwrap(), []);

    ran(node.folder.path(), &["put", "players", "player:7", "level 8"]);
    let (before, id) = (client.root, node.id());
    client.get(&key("player:7")).unwrap_err();
    assert_eq!(client.follow(&id, &key("player:7")).unwrap(), 1);
    assert_eq!(client.root, node.client().root);
    assert_eq!(client.get(&key("player:7")).unwrap().unwrap(), b"level 8");
    // the same commit does not begin where the client is now, and no other node made it
    client.follow(&id, &key("player:7")).unwrap_err();
    client.root = before;
    client.follow(&NodeId([1; 32]), &key("player:7")).unwrap_err();
    assert_eq!(client.root, before, "a refusal leaves the client where it was");

    client.root = Root([0; 32]);
    client.get(&key("player:7")).unwrap_err();
    client.all_beginning("player").unwrap_err();
}

#[test]
fn a_light_client_takes_nothing_that_was_changed_on_the_way() {
    let node = Node::serving();
    let honest = node.client();
    let id = node.id();
    ran(node.folder.path(), &["put", "players", "player:40", "level 40"]);
    let mut client = node.client();
    for at in 0..24 {
        let byte = at * 97;
        let socket = node.folder.path().join(format!("between-{at}"));
        let between = changing(&honest.socket, &socket, byte);
        client.socket = socket;
        let root = client.root;
        match at % 4 {
            0 => drop(client.get(&key("player:7")).unwrap_err()),
            1 => drop(client.get_many(&[key("player:7"), key("x")]).unwrap_err()),
            2 => drop(client.all_beginning("player").unwrap_err()),
            _ => {
                client.root = honest.root;
                client.follow(&id, &key("player:40")).unwrap_err();
            }
        }
        client.root = root;
        between.join().unwrap();
    }
}
