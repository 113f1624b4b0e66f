//! A node's data folder, and the binary run on it: to its end, or until it is killed.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::SmallRng;
use selfsame::store::{
    Batch, Durability, EmbeddedOptions, EmbeddedStore, Read as _, Span, Store as _, Table,
};
use serde_json::Value;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_selfsame");
/// Nothing that is run here takes a tenth of it; what takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Journals, and tables that wait for their compaction; the entries of the test are far fewer.
const MOST_DISK_BYTES: u64 = 512 << 20;

/// How a process ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Exit code; none if it was killed.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    #[track_caller]
    pub(crate) fn ended(self, code: i32) -> Self {
        assert_eq!(self.code(), Some(code), "{self:?}");
        self
    }

    /// Lines that were printed whole.
    pub(crate) fn lines(&self) -> impl Iterator<Item = Value> {
        let whole = self.stdout.rfind('\n').map_or(0, |end| end + 1);
        self.stdout[..whole].lines().map(|line| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        })
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        self.lines().next().unwrap_or_else(|| panic!("nothing was printed: {self:?}"))
    }
}

/// A process that runs.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    printed: String,
    stdout: Option<JoinHandle<()>>,
    stderr: Option<JoinHandle<String>>,
    begun: Instant,
}

impl Running {
    fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let begun = Instant::now();
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let stdout = std::thread::spawn(move || {
            let mut line = Vec::new();
            while output.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = String::from_utf8(std::mem::take(&mut line)).unwrap();
                if sender.send(text).is_err() {
                    return;
                }
            }
        });
        let mut errors = child.stderr.take().unwrap();
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = errors.read_to_string(&mut text);
            text
        });
        let (stdout, stderr) = (Some(stdout), Some(stderr));
        Self { child, lines, printed: String::new(), stdout, stderr, begun }
    }

    pub(crate) fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("standard input is piped")
    }

    /// The next line of standard output.
    pub(crate) fn line(&mut self) -> String {
        let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
            let _ = self.child.kill();
            panic!("it printed no line: {:?}", self.stderr.take().map(JoinHandle::join));
        };
        self.printed.push_str(&line);
        line
    }

    /// Sleeps until so long after the start.
    pub(crate) fn wait_until(&self, after: Duration) {
        std::thread::sleep(after.saturating_sub(self.begun.elapsed()));
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// As Ctrl-C or a service manager does: `INT` or `TERM`. It may have ended by itself.
    pub(crate) fn signal(&mut self, name: &str) {
        if self.is_running() {
            let id = self.child.id().to_string();
            Command::new("kill")
                .args([format!("-{name}"), id])
                .stderr(Stdio::null())
                .status()
                .unwrap();
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) -> Ran {
        self.child.kill().unwrap();
        self.end()
    }

    /// Waits for its end, which must come.
    pub(crate) fn end(mut self) -> Ran {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > PATIENCE {
                self.child.kill().unwrap();
                self.child.wait().unwrap();
                panic!("it hangs: {:?}, {}", self.stderr.take().unwrap().join(), self.printed);
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        self.stdout.take().unwrap().join().unwrap();
        self.printed.extend(self.lines.try_iter());
        let stderr = self.stderr.take().unwrap().join().unwrap();
        assert!(!stderr.contains("panicked"), "{stderr}");
        Ran { status, stdout: std::mem::take(&mut self.printed), stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a binary runs.
#[derive(Clone)]
pub(crate) struct Starter {
    folder: PathBuf,
    data: PathBuf,
    runtime: PathBuf,
}

/// A name of the data folder. Once it is gone, who comes by it can only go on with a process that
/// it has reached, and not open the folder itself.
pub(crate) struct Door(PathBuf);

impl Door {
    pub(crate) fn shut(&self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.shut();
    }
}

impl Starter {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.env("SELFSAME_DATA", &self.data);
        command.env("XDG_RUNTIME_DIR", &self.runtime);
        command.current_dir(&self.folder).args(arguments).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Running::start(self.command(arguments)).end()
    }
}

/// A data folder, and a folder for what a clean close leaves in memory.
pub(crate) struct Place {
    folder: TempDir,
    runtime: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let memory = if memory.is_dir() { memory.into() } else { std::env::temp_dir() };
        Self {
            folder: tempfile::tempdir().unwrap(),
            runtime: tempfile::tempdir_in(memory).unwrap(),
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A path beside the data folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Changes lines of the settings.
    pub(crate) fn configure(&self, change: impl Fn(&str) -> String) {
        let path = self.data().join("config.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let text: String = text.lines().map(|line| change(line) + "\n").collect();
        std::fs::write(&path, text).unwrap();
    }

    /// One bit of a row flips, of a node that is closed: of an entry, or of what follows from
    /// entries.
    pub(crate) fn rot(&self, rng: &mut SmallRng) {
        let store = EmbeddedStore::open(self.data().join("store"), EmbeddedOptions::default());
        let store = store.unwrap();
        // an entry and the row of its page at once would be damage that has to be recovered
        let either = if rng.random() { Table::Entries } else { Table::Pages };
        let tables = [either, Table::Values, Table::Dots];
        for table in tables {
            let rows = store.scan(Span::of(table, &[]), usize::MAX).unwrap();
            if rows.is_empty() || rng.random_range(0..3) == 0 {
                continue;
            }
            let row = &rows[rng.random_range(0..rows.len())];
            let mut value = row.value.to_vec();
            if value.is_empty() {
                continue;
            }
            let at = rng.random_range(0..value.len());
            value[at] ^= 1 << rng.random_range(0..8);
            let mut batch = Batch::default();
            batch.put(table, &row.key, &value);
            store.commit(batch, Durability::Always).unwrap();
        }
        store.close().unwrap();
    }

    fn starter(&self) -> Starter {
        let (folder, data) = (self.folder.path().into(), self.data());
        Starter { folder, data, runtime: self.runtime.path().into() }
    }

    /// Runs the binary beside a process that has the data folder open, from another thread, until
    /// the [`Door`] is shut.
    pub(crate) fn starter_beside(&self) -> (Starter, Door) {
        let door = Door(self.path("door"));
        std::os::unix::fs::symlink(self.data(), &door.0).unwrap();
        (Starter { data: door.0.clone(), ..self.starter() }, door)
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.starter().run(arguments)
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        Running::start(self.starter().command(arguments))
    }

    /// With its standard input open.
    pub(crate) fn start_fed(&self, arguments: &[&str]) -> Running {
        let mut command = self.starter().command(arguments);
        command.stdin(Stdio::piped());
        Running::start(command)
    }

    /// After a command that ended by itself nothing is left of those that were killed.
    pub(crate) fn assert_nothing_is_left(&self) {
        let known = ["config.toml", "identity", "store", "store/FORMAT", "store/LOCK", "store/db"];
        let mut found = BTreeSet::new();
        let mut bytes = 0;
        walk(&self.data(), &mut |path, size| {
            bytes += size;
            let name = path.strip_prefix(self.data()).unwrap().to_str().unwrap().to_owned();
            match name.strip_prefix("store/db/") {
                Some(inner) => assert!(is_of_the_database(inner), "{name} was left"),
                // those of a node that has peers
                None if name == "peers.toml" || name == "peers.lock" => {}
                None => drop(found.insert(name)),
            }
        });
        assert_eq!(found, known.map(str::to_owned).into(), "in the data folder");
        assert!(bytes < MOST_DISK_BYTES, "the data folder has grown to {bytes} bytes");
    }
}

fn walk(folder: &Path, visit: &mut impl FnMut(&Path, u64)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let about = entry.metadata().unwrap();
        visit(&entry.path(), if about.is_file() { about.len() } else { 0 });
        if about.is_dir() {
            walk(&entry.path(), visit);
        }
    }
}

/// Journals, and for each keyspace its tables and one version of the list of them.
fn is_of_the_database(path: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match path.split('/').collect::<Vec<_>>()[..] {
        ["lock" | "version" | "keyspaces"] => true,
        [file] => file.strip_suffix(".jnl").is_some_and(is_number),
        ["keyspaces", keyspace] => is_number(keyspace),
        ["keyspaces", _, "current" | "tables"] => true,
        ["keyspaces", _, version] => version.strip_prefix('v').is_some_and(is_number),
        ["keyspaces", _, "tables", table] => is_number(table),
        _ => false,
    }
}
