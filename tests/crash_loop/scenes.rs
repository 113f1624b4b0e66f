//! What is going on when the process is killed.

use std::io::{BufWriter, Write};
use std::ops::Range;
use std::process::ChildStdin;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use serde_json::json;

use super::World;
use super::oracle::{Operation, Stream};
use super::process::{Door, Place, Ran, Running};

/// A scene that can be drawn, by name.
pub(crate) type Scene = (&'static str, fn(&mut World));

/// Drawn like cards: each once, then all again.
pub(crate) const SCENES: [Scene; 20] = [
    ("put or rm", World::put_or_rm),
    ("import of lines", World::import_of_lines),
    ("import of lines", World::import_of_lines),
    ("import of large lines", World::import_of_large_lines),
    ("import of a folder", World::import_of_a_folder),
    ("session, listener dies", |world| world.session(Victim::Listener)),
    ("session, listener dies", |world| world.session(Victim::Listener)),
    ("session, caller dies", |world| world.session(Victim::Caller)),
    ("session, both die", |world| world.session(Victim::Both)),
    ("daemons, one dies", |world| world.daemons(false)),
    ("daemons, both die", |world| world.daemons(true)),
    ("scrub", |world| world.scrub(false)),
    ("scrub, of rot", |world| world.scrub(true)),
    ("scrub in a daemon", World::scrub_in_a_daemon),
    ("backup", World::back_up),
    ("restore", |world| world.restore(false)),
    ("restore beside a listener", |world| world.restore(true)),
    ("opening", World::opening),
    ("closing", World::closing),
    ("making", World::making),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Victim {
    Listener,
    Caller,
    Both,
}

/// Both nodes write these, but never while they speak.
const SHARED_KEYS: u32 = 20;
const OWN_KEYS: u32 = 60;
const LINE_KEYS: usize = 500;
const LARGE_KEYS: usize = 150;
const FILE_KEYS: usize = 200;
const BESIDE_KEYS: usize = 60;

const NAMES: [&str; 2] = ["a", "b"];

impl World {
    pub(crate) fn node(&mut self) -> usize {
        self.rng.random_range(0..2)
    }

    fn put_arguments(operation: &Operation) -> Vec<String> {
        let verb = if operation.is_delete() { "rm" } else { "put" };
        let mut words = vec![verb.to_owned(), "c".to_owned(), operation.key.clone()];
        if !operation.is_delete() {
            words.extend([operation.value(), "--json".to_owned()]);
        }
        words
    }

    fn start_operation(place: &Place, operation: &Operation) -> Running {
        let words = Self::put_arguments(operation);
        place.start(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// A put or a delete of a key that the other node may write too.
    fn draw_operation(&mut self, node: usize) -> Operation {
        let key = match self.rng.random_range(0..3) {
            0 => format!("shared/{}", self.rng.random_range(0..SHARED_KEYS)),
            _ => format!("{}/{}", NAMES[node], self.rng.random_range(0..OWN_KEYS)),
        };
        if self.rng.random_range(0..4) == 0 {
            return self.oracle.delete(&key);
        }
        let size = self.rng.random_range(1..2_000);
        self.oracle.put(node, &key, size)
    }

    /// A put or a delete that comes to its end.
    pub(crate) fn operate(&mut self, node: usize) {
        let operation = self.draw_operation(node);
        let ran = Self::start_operation(&self.places[node], &operation).end();
        // a delete of what is not there says so
        assert!(ran.code() == Some(0) || ran.code() == Some(1) && operation.is_delete(), "{ran:?}");
        self.oracle.acknowledged(node, &operation);
    }

    fn put_or_rm(&mut self) {
        let node = self.node();
        for _ in 0..self.rng.random_range(0..4) {
            self.operate(node);
        }
        let operation = self.draw_operation(node);
        let delay = self.delay("put", 20.0);
        let mut running = Self::start_operation(&self.places[node], &operation);
        running.wait_until(delay);
        let killed = self.killed("put", &mut running);
        let ran = running.kill();
        // what was printed was answered for
        let answered = !ran.stdout.is_empty() || !killed;
        self.oracle.begun(node, Stream::ordered(vec![operation], usize::from(answered)));
    }

    /// Killed while it reads, and while it mends; then while a peer gives back what rotted. Both
    /// nodes are the same when it begins, so the peer has all of it.
    fn scrub(&mut self, rots: bool) {
        let node = self.node();
        if rots {
            self.places[node].rot(&mut self.rng);
        }
        for _ in 0..2 {
            let delay = self.delay("scrub", 40.0);
            let running = self.places[node].start(&["scrub", "c"]);
            self.kill_after("scrub", running, delay);
        }
        self.scrub_all(node);
        let (listening, peer) = self.listen(1 - node);
        let delay = self.delay("repair", 30.0);
        let running = self.start_sync(node, &peer, "both");
        self.kill_after("repair", running, delay);
        self.start_sync(node, &peer, "both").end().ended(0);
        self.stop(listening, "INT");
        self.places[node].run(&["scrub", "c"]).ended(0);
    }

    /// Reads everything as it is now. The first scrub may be the rest of one that somebody began
    /// before the rot: a daemon of an earlier round that was killed in it.
    fn scrub_all(&self, node: usize) {
        for _ in 0..2 {
            let scrubbed = self.places[node].run(&["scrub", "c", "--json"]);
            assert!(matches!(scrubbed.code(), Some(0 | 1)), "{scrubbed:?}");
        }
    }

    /// A daemon that scrubs all the time is killed beside one that has what rotted, and the next
    /// one goes on until nothing is left.
    fn scrub_in_a_daemon(&mut self) {
        let node = self.node();
        self.places[node].rot(&mut self.rng);
        self.places[node].configure(|line| match line {
            "interval_s = 604800" => "interval_s = 1".into(),
            "time_percent = 10" => "time_percent = 100".into(),
            other => other.into(),
        });
        let delay = self.delay("scrubbing daemon", 300.0);
        let (mut serving, _) = self.serve(node, "127.0.0.1:0");
        serving.wait_until(delay);
        self.killed("scrubbing daemon", &mut serving);
        serving.kill();
        self.scrub_all(node);
        let (listening, peer) = self.listen(1 - node);
        self.start_sync(node, &peer, "both").end().ended(0);
        self.stop(listening, "INT");
        self.places[node].run(&["scrub", "c"]).ended(0);
    }

    fn draw_lines(&mut self, node: usize, most: usize, sizes: Range<usize>) -> Vec<Operation> {
        let (first, count) = (self.rng.random_range(0..LINE_KEYS), self.rng.random_range(0..most));
        (0..count)
            .map(|at| {
                let key = format!("{}/line/{}", NAMES[node], (first + at * 7) % LINE_KEYS);
                let size = self.rng.random_range(sizes.clone());
                self.oracle.put(node, &key, size)
            })
            .collect()
    }

    fn import_of_lines(&mut self) {
        let node = self.node();
        let operations = self.draw_lines(node, LINE_KEYS, 1..700);
        let pause_us = self.rng.random_range(0..10_000);
        self.import(node, "lines", 200.0, operations, pause_us);
    }

    /// Enough for tables to be written and merged meanwhile.
    fn import_of_large_lines(&mut self) {
        let node = self.node();
        let put = |at| {
            let size = self.rng.random_range(10_000..60_000);
            self.oracle.put(node, &format!("{}/large/{at}", NAMES[node]), size)
        };
        let operations = (0..LARGE_KEYS).map(put).collect();
        self.import(node, "large lines", 500.0, operations, 0);
    }

    /// Killed, or told to end first and killed then, or not killed in time.
    fn import(
        &mut self,
        node: usize,
        what: &'static str,
        typical_ms: f64,
        operations: Vec<Operation>,
        pause_us: u64,
    ) {
        let delay = self.delay(what, typical_ms);
        let told = self.rng.random_range(0..3) == 0;
        let grace = Duration::from_millis(self.rng.random_range(0..30));
        let mut running = self.places[node].start_fed(&["import", "c", "-", "--json"]);
        let feeder = feed(running.stdin(), &operations, pause_us);
        running.wait_until(delay);
        if told {
            running.signal("INT");
            std::thread::sleep(grace);
        }
        let killed = self.killed(what, &mut running);
        let ran = running.kill();
        let fed = feeder.join().unwrap();
        let acknowledged = written(&ran);
        if !killed {
            assert!(told || acknowledged == operations.len(), "{ran:?}");
        }
        let mut stream = Stream::ordered(operations, acknowledged);
        stream.cut = killed && !told && !fed;
        self.oracle.begun(node, stream);
    }

    fn import_of_a_folder(&mut self) {
        let node = self.node();
        let folder = self.places[node].path("site");
        let _ = std::fs::remove_dir_all(&folder);
        let count = self.rng.random_range(20..FILE_KEYS);
        let mut puts = Vec::new();
        for at in 0..count {
            let key = format!("{}/site/{}/{at}", NAMES[node], at % 13);
            let size = self.rng.random_range(1..5_000);
            let put = self.oracle.put(node, &key, size);
            let path = folder.join(&put.key);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, put.value()).unwrap();
            puts.push(put);
        }
        let wipe = self.rng.random_range(0..3) == 0;
        let delay = self.delay(if wipe { "wipe" } else { "folder" }, 300.0);
        let mut arguments = vec!["import", "c", "site", "--json"];
        let mut rest = Vec::new();
        if wipe {
            arguments.extend(["--delete", "--yes"]);
            let put = |key: &String| puts.iter().any(|put| put.key == *key);
            let keys = self.oracle.keys(node).filter(|key| !put(key));
            rest.extend(keys.map(|key| self.oracle.delete(key)));
        }
        let mut running = self.places[node].start(&arguments);
        running.wait_until(delay);
        let killed = self.killed(if wipe { "wipe" } else { "folder" }, &mut running);
        let ran = running.kill();
        let done = !ran.stdout.is_empty() || !killed;
        let mut puts = Stream::unordered(puts);
        let mut rest = Stream::unordered(rest);
        rest.last = true;
        for stream in [&mut puts, &mut rest] {
            stream.acknowledged = if done { stream.operations.len() } else { 0 };
        }
        self.oracle.begun(node, puts);
        self.oracle.begun(node, rest);
    }

    /// Differences at both nodes, so that there is something to speak of.
    fn drift(&mut self) {
        for node in 0..2 {
            let operations = self.draw_lines(node, LINE_KEYS, 1..1_500);
            let mut running = self.places[node].start_fed(&["import", "c", "-", "--json"]);
            let feeder = feed(running.stdin(), &operations, 0);
            let ran = running.end().ended(0);
            assert!(feeder.join().unwrap() && written(&ran) == operations.len(), "{ran:?}");
            for operation in &operations {
                self.oracle.acknowledged(node, operation);
            }
            for _ in 0..self.rng.random_range(0..3) {
                self.operate(node);
            }
        }
    }

    fn session(&mut self, victim: Victim) {
        self.drift();
        let listener = self.node();
        let caller = 1 - listener;
        let what = match victim {
            Victim::Listener => "listener",
            Victim::Caller => "caller",
            Victim::Both => "both",
        };
        let delay = self.delay(what, 400.0);
        let direction = ["both", "both", "both", "pull", "push"][self.rng.random_range(0..5)];
        let operations = self.draw_own(listener);
        let (mut listening, peer) = self.listen(listener);
        let beside = Beside::start(&self.places[listener], operations);
        let mut speaking = self.start_sync(caller, &peer, direction);
        self.oracle.session = true;
        speaking.wait_until(delay);
        let running = match victim {
            Victim::Listener => &mut listening,
            _ => &mut speaking,
        };
        // a listener runs for ever: what counts is whether the session does
        let listener_dies = victim != Victim::Caller;
        if victim == Victim::Listener {
            let in_time = speaking.is_running();
            self.count(what, in_time);
        } else {
            self.killed(what, running);
        }
        if listener_dies {
            self.oracle.cut(listener);
            beside.shut();
            listening.kill();
            self.finish(beside, listener);
            if victim == Victim::Both {
                speaking.kill();
                return;
            }
            return self.give_up(speaking);
        }
        speaking.kill();
        // who lost a caller serves it again at once
        let again = self.start_sync(caller, &peer, "both").end();
        assert_eq!(again.code(), Some(0), "{again:?}");
        // a session with a caller that is gone has a few seconds to end
        if self.rng.random_range(0..4) == 0 {
            beside.shut();
            self.stop(listening, "INT");
        } else {
            self.oracle.cut(listener);
            beside.shut();
            listening.kill();
        }
        self.finish(beside, listener);
    }

    /// Ends a call whose listener is gone: it would wait for it to come back.
    fn give_up(&mut self, mut speaking: Running) {
        std::thread::sleep(Duration::from_millis(20));
        speaking.signal("INT");
        // its last words have a few seconds to be heard
        let patient = self.rng.random_range(0..4) == 0;
        let ran = if patient { speaking.end() } else { speaking.kill() };
        assert!(matches!(ran.code(), Some(0 | 4 | 5 | 130)) || !patient, "{ran:?}");
    }

    /// Two daemons with writers beside both. Who was killed is started again, and then they become
    /// the same by themselves.
    fn daemons(&mut self, both_die: bool) {
        const EQUAL_WITHIN: Duration = Duration::from_secs(40);
        self.drift();
        let delay = self.delay("daemon", 500.0);
        let victim = self.node();
        let operations = [0, 1].map(|node| self.draw_own(node));
        let (first, address) = self.serve(0, "127.0.0.1:0");
        self.knows(1, &address);
        let (second, _) = self.serve(1, "127.0.0.1:0");
        self.oracle.session = true;
        let [ours, theirs] = operations;
        let beside = [Beside::start(&self.places[0], ours), Beside::start(&self.places[1], theirs)];
        second.wait_until(delay);
        let mut daemons = [Some(first), Some(second)];
        for node in 0..2 {
            if both_die || node == victim {
                self.count("daemon", true);
                self.oracle.cut(node);
                beside[node].shut();
                daemons[node].take().expect("it runs").kill();
            }
        }
        for (node, beside) in beside.into_iter().enumerate() {
            self.finish(beside, node);
        }
        let running: Vec<Running> = daemons
            .into_iter()
            .enumerate()
            .map(|(node, running)| {
                let address = if node == 0 { &address } else { "127.0.0.1:0" };
                running.unwrap_or_else(|| self.serve(node, address).0)
            })
            .collect();
        let begun = Instant::now();
        while self.root(0) != self.root(1) {
            assert!(begun.elapsed() < EQUAL_WITHIN, "the daemons do not become the same");
            std::thread::sleep(Duration::from_millis(20));
        }
        for running in running {
            self.stop(running, "TERM");
        }
        std::fs::remove_file(self.places[1].data().join("peers.toml")).unwrap();
    }

    /// Writes the peer book of a node: the other one is there.
    fn knows(&self, node: usize, address: &str) {
        let id = &self.ids[1 - node];
        let text = format!(
            "[[peer]]\nid = \"{id}\"\naddresses = [\"{address}\"]\n[peer.grants]\n\"*\" = \"write\"\n"
        );
        std::fs::write(self.places[node].data().join("peers.toml"), text).unwrap();
    }

    /// Puts of keys that only this node writes, each of another, for two writers.
    fn draw_own(&mut self, node: usize) -> [Vec<Operation>; 2] {
        ["one", "two"].map(|writer| {
            let put = |at| {
                let size = self.rng.random_range(1..500);
                self.oracle.put(node, &format!("{}/{writer}/{at}", NAMES[node]), size)
            };
            (0..BESIDE_KEYS).map(put).collect()
        })
    }

    /// Takes in what was written beside a listener.
    fn finish(&mut self, beside: Beside, node: usize) {
        for (mut operations, acknowledged) in beside.end() {
            self.beside += acknowledged;
            operations.truncate(acknowledged + 1);
            self.oracle.begun(node, Stream::ordered(operations, acknowledged));
        }
    }

    /// Killed within the first moments, a few times one after the other.
    fn opening(&mut self) {
        let node = self.node();
        for _ in 0..4 {
            let delay = self.delay("opening", 50.0);
            let operation = self.draw_operation(node);
            match self.rng.random_range(0..4) {
                0 => {
                    let running = Self::start_operation(&self.places[node], &operation);
                    let ran = self.kill_after("opening", running, delay);
                    // only the first reading could tell which of several were done
                    let answered = ran.status.success() || !ran.stdout.is_empty();
                    self.oracle.begun(node, Stream::ordered(vec![operation], answered.into()));
                    return;
                }
                choice => {
                    let listen = ["listen", "--addr", "127.0.0.1:0"];
                    let verb: &[&str] =
                        [&listen[..], &["digest", "c"], &["recover", "c", "--check"]][choice - 1];
                    let running = self.places[node].start(verb);
                    self.kill_after("opening", running, delay);
                }
            }
        }
    }

    /// Told to end, and killed while it does.
    fn closing(&mut self) {
        let node = self.node();
        let signal = ["INT", "TERM"][self.rng.random_range(0..2)];
        let with_session = self.rng.random();
        let operations = self.draw_own(node);
        let before = Duration::from_millis(self.rng.random_range(0..200));
        let delay = self.delay("closing", 4.0);
        if with_session {
            self.drift();
        }
        let (mut listening, peer) = self.listen(node);
        let beside = Beside::start(&self.places[node], operations);
        let speaking = with_session.then(|| {
            self.oracle.session = true;
            self.start_sync(1 - node, &peer, "both")
        });
        std::thread::sleep(before);
        beside.shut();
        listening.signal(signal);
        std::thread::sleep(delay);
        self.killed("closing", &mut listening);
        listening.kill();
        self.finish(beside, node);
        if let Some(speaking) = speaking {
            self.give_up(speaking);
        }
    }

    /// A node is made and killed meanwhile, until it is there.
    fn making(&mut self) {
        let place = Place::new();
        let steps: [&[&str]; 2] = [&["init"], &["collection", "create", "c"]];
        for step in steps {
            for _ in 0..4 {
                let delay = self.delay("making", 15.0);
                let running = place.start(step);
                let ran = self.kill_after("making", running, delay);
                if ran.code().is_some() {
                    let there = ran.stderr.contains("there is a node");
                    assert!(ran.status.success() || there, "{ran:?}");
                    break;
                }
            }
            let ran = place.run(step);
            let there = ran.stderr.contains("there is a node");
            assert!(ran.status.success() || there, "{ran:?}");
        }
        let peer = self.ids[0].clone();
        for _ in 0..3 {
            let delay = self.delay("peer add", 8.0);
            let running = place.start(&["peer", "add", &peer, "--grant", "c=read"]);
            let ran = self.kill_after("peer add", running, delay);
            if ran.code().is_some() {
                break;
            }
        }
        // it is in the book, or is not: the book is never broken
        place.run(&["peer", "ls"]).ended(0);
        place.run(&["put", "c", "key", "value"]).ended(0);
        assert_eq!(place.run(&["get", "c", "key"]).ended(0).stdout, "value");
        place.assert_nothing_is_left();
    }

    pub(crate) fn kill_after(
        &mut self,
        what: &'static str,
        mut running: Running,
        delay: Duration,
    ) -> Ran {
        running.wait_until(delay);
        self.killed(what, &mut running);
        running.kill()
    }
}

/// Two writers beside a process that has the store open: each puts one key after the other, as
/// long as its puts are taken.
struct Beside(Vec<JoinHandle<(Vec<Operation>, usize)>>, Door);

impl Beside {
    fn start(place: &Place, operations: [Vec<Operation>; 2]) -> Self {
        let (starter, door) = place.starter_beside();
        let writers = operations.map(|operations| {
            let starter = starter.clone();
            std::thread::spawn(move || {
                let taken = |operation: &Operation| {
                    let words = World::put_arguments(operation);
                    let words: Vec<_> = words.iter().map(String::as_str).collect();
                    starter.run(&words).code() == Some(0)
                };
                let acknowledged = operations.iter().take_while(|put| taken(put)).count();
                (operations, acknowledged)
            })
        });
        Self(writers.into(), door)
    }

    /// Whoever comes from now on reaches nobody. Before the process is killed: who found it dead
    /// would open the store in its place.
    fn shut(&self) {
        self.1.shut();
    }

    /// The operations, and how many were acknowledged; of the next nobody knows.
    fn end(self) -> Vec<(Vec<Operation>, usize)> {
        self.shut();
        self.0.into_iter().map(|writer| writer.join().unwrap()).collect()
    }
}

/// Writes lines to an import, some at a time. Whether all were taken.
fn feed(input: ChildStdin, operations: &[Operation], pause_us: u64) -> JoinHandle<bool> {
    let lines: Vec<String> = operations
        .iter()
        .map(|operation| format!("{}\n", json!({"key": operation.key, "value": operation.value()})))
        .collect();
    std::thread::spawn(move || {
        let mut input = BufWriter::new(input);
        for some in lines.chunks(50) {
            let fed = some.iter().try_for_each(|line| input.write_all(line.as_bytes()));
            if fed.and_then(|()| input.flush()).is_err() {
                return false;
            }
            std::thread::sleep(Duration::from_micros(pause_us));
        }
        true
    })
}

/// Entries that an import says it wrote.
fn written(ran: &Ran) -> usize {
    ran.lines().next().map_or(0, |line| line["written"].as_u64().unwrap() as usize)
}
