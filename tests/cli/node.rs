//! A node in a folder of its own, and the binary run on it.

use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use selfsame::node::home::Home;
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_selfsame");

/// A run that has ended.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.text()).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The run, if it ended with this code.
    #[track_caller]
    pub(crate) fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {:?}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// The run, if standard error says this.
    #[track_caller]
    pub(crate) fn said(self, what: &str) -> Self {
        assert!(self.stderr.contains(what), "{what:?} is not in:\n{}", self.stderr);
        self
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("ended by itself"),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// How the verbs of a test reach the node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Each opens the store itself.
    Alone,
    /// Each asks a process that has it open.
    Beside,
}

thread_local! {
    static WAY: Cell<Way> = const { Cell::new(Way::Alone) };
}

impl Way {
    /// Runs a test whose nodes are reached in this way.
    pub(crate) fn run(self, test: fn()) {
        WAY.set(self);
        test();
    }
}

/// A node; `data` lies beside other things of the test.
pub(crate) struct TestNode {
    pub(crate) folder: TempDir,
    beside: RefCell<Option<Listening>>,
}

impl TestNode {
    pub(crate) fn new() -> Self {
        let node = Self::bare();
        node.run(["init"]).ended(0);
        node.start();
        node
    }

    /// A folder without a node.
    pub(crate) fn bare() -> Self {
        Self::bare_in(&std::env::temp_dir())
    }

    /// The same, in a folder.
    pub(crate) fn bare_in(folder: &Path) -> Self {
        Self { folder: tempfile::tempdir_in(folder).unwrap(), beside: RefCell::default() }
    }

    /// Has the node open in a process of its own, if that is the way.
    fn start(&self) {
        if WAY.get() == Way::Beside {
            *self.beside.borrow_mut() = Some(self.serve(&[]));
        }
    }

    fn stop(&self) {
        if let Some(running) = self.beside.take() {
            assert_eq!(running.interrupt(), 0);
        }
    }

    /// Does something to the data folder while nobody has the node open.
    pub(crate) fn closed<R>(&self, work: impl FnOnce() -> R) -> R {
        let was_running = self.beside.borrow().is_some();
        self.stop();
        let done = work();
        if was_running {
            self.start();
        }
        done
    }

    /// Writes the settings, which a running node reads when it starts.
    pub(crate) fn configure(&self, text: impl AsRef<[u8]>) {
        self.closed(|| write(&self.data().join("config.toml"), text));
    }

    /// With a collection `c`.
    pub(crate) fn with_collection(settings: &[&str]) -> Self {
        let node = Self::new();
        node.run([&["collection", "create", "c"], settings].concat()).ended(0);
        node
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A path beside the data folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn command<A: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut command = Command::new(BINARY);
        command.env_remove("COLUMNS").env("SELFSAME_DATA", self.data());
        command.current_dir(self.folder.path()).args(arguments);
        command
    }

    pub(crate) fn run<A: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Ran {
        self.command(arguments).stdin(Stdio::null()).output().unwrap().into()
    }

    pub(crate) fn run_with(&self, input: &[u8], arguments: &[&str]) -> Ran {
        assert_cmd::Command::from_std(self.command(arguments))
            .write_stdin(input)
            .output()
            .unwrap()
            .into()
    }

    /// The node, open in this process.
    pub(crate) fn with_home<R>(&self, work: impl FnOnce(&Home) -> R) -> R {
        self.closed(|| {
            let home = Home::open(&self.data()).unwrap();
            let done = work(&home);
            home.close().unwrap();
            done
        })
    }

    pub(crate) fn id(&self) -> String {
        self.run(["id"]).ended(0).text().trim().to_owned()
    }

    pub(crate) fn root(&self) -> String {
        self.run(["digest", "c", "--json"]).ended(0).json()["root"].as_str().unwrap().to_owned()
    }

    /// Serves on a free port, to these nodes, instead of the process that has it open.
    pub(crate) fn listen(&self, allowed: &[&Self]) -> Listening {
        self.stop();
        self.serve(allowed)
    }

    fn serve(&self, allowed: &[&Self]) -> Listening {
        let mut command = self.command(["listen", "--addr", "127.0.0.1:0", "--json"]);
        for node in allowed {
            command.args(["--allow", &node.id()]);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut events = BufReader::new(child.stdout.take().unwrap());
        let first = next_event(&mut events);
        assert_eq!(first["event"], "listening");
        let peer =
            format!("{}@{}", first["id"].as_str().unwrap(), first["address"].as_str().unwrap());
        Listening { child, events, peer }
    }
}

fn next_event(events: &mut impl BufRead) -> Value {
    let mut line = String::new();
    events.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

/// A node that serves.
pub(crate) struct Listening {
    child: Child,
    events: BufReader<ChildStdout>,
    /// `ID@ADDRESS:PORT`
    pub(crate) peer: String,
}

impl Listening {
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// The next event of this name.
    pub(crate) fn event(&mut self, name: &str) -> Value {
        loop {
            let event = next_event(&mut self.events);
            if event["event"] == name {
                return event;
            }
        }
    }

    /// Ends it as Ctrl-C does; the code with which it ended.
    pub(crate) fn interrupt(mut self) -> i32 {
        interrupt(&self.child);
        self.child.wait().unwrap().code().expect("ended by itself")
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn interrupt(child: &Child) {
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

pub(crate) fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}
