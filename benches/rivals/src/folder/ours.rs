//! selfsame as people run it: the release binary, a node in a folder, QUIC on loopback.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

use super::relay::Relay;
use super::{Step, finished};
use crate::error::RivalsError;

const WHO: &str = "selfsame";
const COLLECTION: &str = "folder";

/// The release binary.
pub(super) struct Selfsame(PathBuf);

impl Selfsame {
    /// The one that is named, else the one beside this program, else that of the project.
    pub(super) fn find(named: Option<&Path>) -> Result<Self, RivalsError> {
        let own = std::env::current_exe().map_err(RivalsError::io("finding this program"))?;
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/release/selfsame");
        let places = match named {
            Some(named) => vec![named.to_path_buf()],
            None => vec![own.with_file_name("selfsame"), project],
        };
        let found = places.iter().find(|place| place.is_file()).cloned();
        found.map(Self).ok_or_else(|| RivalsError::NoBinary(places[0].clone()))
    }

    /// A new node with an empty collection.
    pub(super) fn node(&self, data: &Path) -> Result<Node, RivalsError> {
        let node = Node { binary: self.0.clone(), data: data.to_path_buf() };
        finished(node.command().arg("init"))?;
        finished(node.command().args(["collection", "create", COLLECTION]))?;
        Ok(node)
    }
}

/// A node in a folder.
pub(super) struct Node {
    binary: PathBuf,
    data: PathBuf,
}

impl Node {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.env("SELFSAME_DATA", &self.data);
        command
    }

    fn id(&self) -> Result<String, RivalsError> {
        let output = finished(self.command().arg("id"))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// The collection becomes what the folder holds.
    pub(super) fn import(&self, folder: &Path) -> Result<(), RivalsError> {
        let mut command = self.command();
        command.args(["import", COLLECTION]).arg(folder).arg("--delete");
        finished(&mut command).map(drop)
    }

    /// A new folder with what the collection holds.
    pub(super) fn export(&self, folder: &Path) -> Result<(), RivalsError> {
        let mut command = self.command();
        command.args(["export", COLLECTION]).arg(folder);
        finished(&mut command).map(drop)
    }

    fn root(&self) -> Result<Value, RivalsError> {
        let output = finished(self.command().args(["digest", COLLECTION, "--json"]))?;
        let digest: Value = parsed(&output.stdout)?;
        Ok(digest["root"].clone())
    }

    fn listen(&self, peer: &Self) -> Result<Listening, RivalsError> {
        let mut command = self.command();
        command.args(["listen", "--addr", "127.0.0.1:0", "--json", "--allow", &peer.id()?]);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(RivalsError::io("starting selfsame listen"))?;
        let events = child.stdout.take();
        let mut listening = Listening { child, events: events.map(BufReader::new), peer: None };
        let mut line = String::new();
        if let Some(events) = &mut listening.events {
            events.read_line(&mut line).map_err(RivalsError::io("reading selfsame listen"))?;
        }
        let first: Value = parsed(line.as_bytes())?;
        listening.peer = first["id"]
            .as_str()
            .zip(first["address"].as_str())
            .map(|(id, address)| (id.to_owned(), address.to_owned()));
        Ok(listening)
    }
}

/// A node that serves, until it is told to end.
struct Listening {
    child: Child,
    // kept open: it would end when nobody reads its events
    events: Option<BufReader<ChildStdout>>,
    peer: Option<(String, String)>,
}

impl Listening {
    fn end(mut self) -> Result<(), RivalsError> {
        let id = self.child.id().to_string();
        finished(Command::new("kill").args(["-INT", &id]))?;
        self.child.wait().map(drop).map_err(RivalsError::io("waiting for selfsame listen"))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parsed(bytes: &[u8]) -> Result<Value, RivalsError> {
    serde_json::from_slice(bytes).map_err(|error| RivalsError::wrong(WHO, error))
}

/// Synchronises two nodes, both started and ended for it. Their roots are equal afterwards.
pub(super) fn synchronise(giver: &Node, taker: &Node, udp: bool) -> Result<Step, RivalsError> {
    let ((report, udp), mut step) = Step::of(|| {
        let listening = giver.listen(taker)?;
        let Some((id, address)) = listening.peer.clone() else {
            return Err(RivalsError::wrong(WHO, "listen does not say where"));
        };
        let relay = if udp { Some(Relay::to(&address)?) } else { None };
        let address = relay.as_ref().map_or(address, |relay| relay.address().to_string());
        let peer = format!("{id}@{address}");
        let mut command = taker.command();
        command.args(["sync", COLLECTION, "--json", "--allow-removals", "--peer", &peer]);
        let output = finished(&mut command)?;
        listening.end()?;
        Ok((parsed(&output.stdout)?, relay.map(Relay::end)))
    })?;
    if giver.root()? != taker.root()? || report["outcome"] != "complete" {
        return Err(RivalsError::wrong(WHO, "the roots differ after the synchronisation"));
    }
    let bytes = report["bytes_sent"].as_u64().zip(report["bytes_received"].as_u64());
    step.bytes = bytes.map(|(sent, received)| sent + received);
    step.udp = udp;
    Ok(step)
}
