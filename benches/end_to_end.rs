//! Two nodes on disk as two processes over real QUIC on loopback: what a session costs from its
//! hello to the last certificate, values included.
//!
//! Both hold the same entries at first. Then, for each number of differences: half of them made at
//! either end (a third each new, changed, deleted), the daemons' sketches made, and one session,
//! some times over. Prints bytes on the wire (UDP payloads, acknowledgements included), frames,
//! round trips (the time of one more session with 100 ms between the two, divided by that), CPU
//! time and what the store read of files at either side; and of memory the most that a session held
//! by its own account, by how much the live allocations of the process grew at most and for good,
//! and what is resident. In the end an empty node takes everything.
//!
//! `cargo bench --bench end_to_end -- 1000000 100` (entries, bytes of a value), and after that, for
//! one row alone, a number of differences and of sessions.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use selfsame::net::{Endpoint, Identity, Link, NetLimits, PeerAddress};
use selfsame::node::access::Access;
use selfsame::node::manager::SessionManager;
use selfsame::node::{Node, Unwatched, server};
use selfsame::replica::{Collection, Replica, ReplicaOptions, Warming};
use selfsame::session::{Outcome, SyncConfig};
use selfsame::store::{EmbeddedOptions, EmbeddedStore};
use selfsame::types::{CollectionName, CollectionSpec, Key, Policy};
use tokio::sync::watch;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;
/// Sessions that ended before usage was counted anew.
static ENDED: AtomicU64 = AtomicU64::new(0);

const PATIENCE: Duration = Duration::from_secs(30);
const BATCH: u64 = 4_096;
/// Sessions for each number of differences, if nothing else is said.
const TIMES: u64 = 10;
/// There and back, when round trips are counted.
const FAR: Duration = Duration::from_millis(100);
const DIFFERENCES: [u64; 6] = [0, 1, 10, 100, 1_000, 10_000];
/// The row that is measured again in the end.
const WARM: u64 = 100;

type Disk = Collection<EmbeddedStore>;

fn open(folder: &Path) -> (Arc<Replica<EmbeddedStore>>, Arc<Disk>) {
    let store = EmbeddedStore::open(folder, EmbeddedOptions::default()).unwrap();
    let random = Box::new(rand::random::<u64>);
    let replica = Arc::new(Replica::open(store, ReplicaOptions::default(), random).unwrap());
    let name = CollectionName::new("bench").unwrap();
    let spec = CollectionSpec { name, algorithm: Default::default(), policy: Policy::Lww };
    let collection = replica.create_collection(spec).unwrap();
    (replica, collection)
}

fn key(number: u64) -> Key {
    Key::new(format!("player:{number:012}")).unwrap()
}

fn value(number: u64, bytes: usize) -> Arc<[u8]> {
    let mut value = vec![0; bytes];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut value);
    value.into()
}

fn import(folder: &Path, entries: u64, bytes: usize) {
    let (_replica, collection) = open(folder);
    for from in (0..entries).step_by(BATCH as usize) {
        let batch = (from..entries.min(from + BATCH)).map(|n| (key(n), value(n, bytes)));
        collection.import(batch, 1_000_000).unwrap();
    }
}

/// A third each new, changed, deleted.
fn change(collection: &Disk, seed: u64, count: u64, entries: u64, bytes: usize) {
    let now = Node::<EmbeddedStore>::now_ms();
    for number in 0..count {
        let salt = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number);
        let value = value(salt, bytes);
        let old = key(salt.wrapping_mul(0xd6e8_feb8_6659_fd93) % entries);
        match number % 3 {
            0 => drop(collection.put(&key(entries + salt % (1 << 39)), value, now).unwrap()),
            1 => drop(collection.put(&old, value, now).unwrap()),
            _ => drop(collection.delete(&old, now).unwrap()),
        }
    }
}

/// What the process has used so far.
struct Usage {
    cpu_us: u64,
    /// Bytes of files, and of what tells threads of each other.
    read: u64,
    resident_kib: u64,
    greatest_kib: u64,
    /// Bytes of live allocations, and the most that there were.
    heap: u64,
    greatest_heap: u64,
    /// Most bytes of a session, by its own account.
    accounted: u64,
}

fn field(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

impl Usage {
    fn now(node: &Node<EmbeddedStore>) -> Self {
        let ended = ENDED.load(Ordering::Relaxed);
        let recent = node.sessions.recent();
        let ends = recent.iter().filter(|end| end.session > ended);
        let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        let ran = threads.filter_map(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            stat.split_whitespace().next()?.parse::<u64>().ok()
        });
        Self {
            cpu_us: ran.sum::<u64>() / 1_000,
            read: field("/proc/self/io", "rchar:"),
            resident_kib: field("/proc/self/status", "VmRSS:"),
            greatest_kib: field("/proc/self/status", "VmHWM:"),
            heap: HEAP.current_usage() as u64,
            greatest_heap: HEAP.peak_usage() as u64,
            accounted: ends.map(|end| end.memory_bytes).max().unwrap_or(0),
        }
    }

    fn line(&self) -> String {
        let Self { cpu_us, read, resident_kib, greatest_kib, heap, greatest_heap, accounted } =
            self;
        format!("{cpu_us} {read} {resident_kib} {greatest_kib} {heap} {greatest_heap} {accounted}")
    }

    fn parse(line: &str) -> Self {
        let numbers = numbers(line);
        Self {
            cpu_us: numbers[0],
            read: numbers[1],
            resident_kib: numbers[2],
            greatest_kib: numbers[3],
            heap: numbers[4],
            greatest_heap: numbers[5],
            accounted: numbers[6],
        }
    }
}

fn numbers(line: &str) -> Vec<u64> {
    line.split_whitespace().map(|word| word.parse().unwrap()).collect()
}

/// By how much memory grew at most.
#[derive(Clone, Copy, Default)]
struct Grown {
    /// The account of a session.
    accounted: u64,
    /// Live allocations: at most, and in the end.
    heap: u64,
    kept: u64,
    resident_kib: u64,
}

impl Grown {
    fn most(&mut self, before: &Usage, after: &Usage) {
        self.accounted = self.accounted.max(after.accounted);
        self.heap = self.heap.max(after.greatest_heap.saturating_sub(before.heap));
        self.kept = self.kept.max(after.heap.saturating_sub(before.heap));
        let resident = after.greatest_kib.saturating_sub(before.resident_kib);
        self.resident_kib = self.resident_kib.max(resident);
    }
}

impl std::fmt::Display for Grown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [accounted, heap, kept, resident] =
            [self.accounted, self.heap, self.kept, self.resident_kib << 10]
                .map(|bytes| bytes as f64 / f64::from(1 << 20));
        write!(
            f,
            "{accounted:.1} MiB in a session by its account, live heap +{heap:.1} MiB ({kept:.1} \
             stay), resident +{resident:.1} MiB"
        )
    }
}

/// One node, told by lines what to do; it answers each with a line.
async fn node(folder: &Path, entries: u64, bytes: usize) {
    let (replica, collection) = open(folder);
    let node = Arc::new(Node {
        replica,
        identity: Arc::new(Identity::generate().unwrap()),
        config: SyncConfig::default(),
        patience: PATIENCE,
        access: Access::default(),
        sessions: SessionManager::default(),
    });
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let admission = Arc::new(node.access.clone());
    let limits = NetLimits::default();
    let identity = Arc::clone(&node.identity);
    let endpoint = Endpoint::bind(identity, address, admission, limits).unwrap();
    let (stop, stopped) = watch::channel(false);
    let serving = server::serve(
        Arc::clone(&node),
        endpoint.clone(),
        stopped,
        Arc::new(|_: server::Event| {}),
    );
    let server = tokio::spawn(serving);
    println!("{} {}", node.id(), endpoint.local_address().port());
    let mut link: Option<Link> = None;
    let (lines, mut commands) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let _ = lines.send(line);
        }
    });
    while let Some(line) = commands.recv().await {
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match words[..] {
            ["allow", id] => {
                let address: PeerAddress = format!("{id}@127.0.0.1:1").parse().unwrap();
                node.access.allow(address.id());
                String::new()
            }
            ["dial", id, port] => {
                let address = format!("{id}@127.0.0.1:{port}").parse().unwrap();
                link = Some(node.connect(&endpoint, &address, PATIENCE).await.unwrap());
                String::new()
            }
            ["change", seed, count] => {
                let (seed, count) = (seed.parse().unwrap(), count.parse().unwrap());
                change(&collection, seed, count, entries, bytes);
                while collection.warm_sketches().unwrap() == Warming::Goes {}
                String::new()
            }
            ["sync"] => session(&node, link.as_ref().unwrap(), &collection).await,
            // from here on the greatest memory is that of what follows
            ["usage", "anew"] => {
                std::fs::write("/proc/self/clear_refs", "5").unwrap();
                HEAP.reset_peak_usage();
                let last = node.sessions.recent().last().map_or(0, |end| end.session);
                ENDED.store(last, Ordering::Relaxed);
                Usage::now(&node).line()
            }
            ["usage"] => Usage::now(&node).line(),
            ["entries"] => collection.totals().unwrap().entries.to_string(),
            _ => panic!("{line}?"),
        };
        println!("{answer}");
    }
    stop.send(true).unwrap();
    server.await.unwrap();
}

/// Sessions until both hold the same: how many, bytes on the wire, frames, microseconds,
/// packets.
async fn session(node: &Node<EmbeddedStore>, link: &Link, collection: &Arc<Disk>) -> String {
    let (_stop, stopped) = watch::channel(false);
    let config = SyncConfig::default();
    let before = link.connection().traffic();
    let begun = Instant::now();
    let done = node.synchronise(link, collection, &config, stopped, &Unwatched).await.unwrap();
    let elapsed = begun.elapsed();
    assert!(matches!(done.last().outcome, Outcome::Complete { .. }), "{:?}", done.last());
    // the acknowledgement of the last frame
    tokio::time::sleep(Duration::from_millis(40)).await;
    let after = link.connection().traffic();
    let bytes = after.bytes_sent + after.bytes_received - before.bytes_sent - before.bytes_received;
    let packets =
        after.packets_sent + after.packets_received - before.packets_sent - before.packets_received;
    let figures = done.reports.iter().flat_map(|report| report.stats.phases.values());
    let frames: u64 = figures.map(|phase| phase.messages_sent + phase.messages_received).sum();
    format!("{} {bytes} {frames} {} {packets}", done.reports.len(), elapsed.as_micros())
}

/// A node in a process of its own.
struct Peer {
    child: Child,
    ask: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    id: String,
    port: u16,
}

impl Peer {
    fn start(words: [&str; 2], folder: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(words)
            .arg("node")
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let ask = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut peer = Self { child, ask, answers, id: String::new(), port: 0 };
        let line = peer.answer();
        let (id, port) = line.split_once(' ').unwrap();
        (peer.id, peer.port) = (id.to_owned(), port.parse().unwrap());
        peer
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the process of a node has ended");
        line.trim().to_owned()
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.ask.as_ref().unwrap(), "{line}").unwrap();
        self.answer()
    }

    fn usage(&mut self, anew: &str) -> Usage {
        Usage::parse(&self.ask(&format!("usage {anew}")))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.ask.take());
        let _ = self.child.wait();
    }
}

/// Passes datagrams on, as much later as it is told.
struct Relay {
    port: u16,
    delay_us: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Relay {
    fn start(to: u16) -> Self {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (front, back) = (bind(), bind());
        back.connect((Ipv4Addr::LOCALHOST, to)).unwrap();
        let port = front.local_addr().unwrap().port();
        let (delay_us, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let caller = Arc::new(AtomicU64::new(0));
        for inwards in [true, false] {
            let (from, to) = if inwards { (&front, &back) } else { (&back, &front) };
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            let (caller, delay, stop) =
                (Arc::clone(&caller), Arc::clone(&delay_us), Arc::clone(&stop));
            let (queue, queued) = mpsc::channel::<(Instant, Vec<u8>)>();
            let back_to = Arc::clone(&caller);
            std::thread::spawn(move || {
                for (due, datagram) in queued {
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    let _ = if inwards {
                        to.send(&datagram)
                    } else {
                        let port = back_to.load(Ordering::Relaxed) as u16;
                        to.send_to(&datagram, (Ipv4Addr::LOCALHOST, port))
                    };
                }
            });
            from.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            std::thread::spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while !stop.load(Ordering::Relaxed) {
                    let Ok((length, sender)) = from.recv_from(&mut buffer) else { continue };
                    if inwards {
                        caller.store(u64::from(sender.port()), Ordering::Relaxed);
                    }
                    let due = Instant::now() + Duration::from_micros(delay.load(Ordering::Relaxed));
                    let _ = queue.send((due, buffer[..length].to_vec()));
                }
            });
        }
        Self { port, delay_us, stop }
    }

    fn set(&self, there_and_back: Duration) {
        self.delay_us.store(there_and_back.as_micros() as u64 / 2, Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// One row: so many differences, some sessions.
fn measure(peers: &mut [Peer; 2], relay: &Relay, (differences, times): (u64, u64), seed: &mut u64) {
    let mut differ = |peers: &mut [Peer; 2]| {
        for (end, peer) in peers.iter_mut().enumerate() {
            *seed += 1;
            let share = if end == 0 { differences / 2 } else { differences.div_ceil(2) };
            peer.ask(&format!("change {seed} {share}"));
        }
    };
    let (mut wire, mut packets, mut frames, mut read) = (0, 0, 0, [0; 2]);
    let mut cpu = [Vec::new(), Vec::new()];
    let (mut grown, mut took) = ([Grown::default(); 2], Vec::new());
    for _ in 0..times {
        differ(peers);
        let before = [0, 1].map(|end: usize| peers[end].usage("anew"));
        let figures = numbers(&peers[0].ask("sync"));
        (wire, frames, packets) = (wire + figures[1], frames + figures[2], packets + figures[4]);
        took.push(figures[3]);
        for (end, before) in before.into_iter().enumerate() {
            let after = peers[end].usage("");
            cpu[end].push(after.cpu_us - before.cpu_us);
            read[end] += after.read - before.read;
            grown[end].most(&before, &after);
        }
    }
    differ(peers);
    relay.set(FAR);
    let far = numbers(&peers[0].ask("sync"))[3];
    relay.set(Duration::ZERO);
    // what was on its way
    std::thread::sleep(FAR);
    let median = |took: &mut Vec<u64>| {
        took.sort_unstable();
        took[took.len() / 2] as f64 / 1e3
    };
    let (took, cpu) = (median(&mut took), cpu.each_mut().map(median));
    println!(
        "d {differences:6}: {:9} B on the wire in {:.1} packets, {:5.1} frames, {:4.1} round trips, {:.2} ms; CPU \
         {:.2} and {:.2} ms; files read {} and {} B; {} at the one and {} at the other",
        wire / times,
        packets as f64 / times as f64,
        frames as f64 / times as f64,
        (far as f64 / 1e3 - took).max(0.0) / FAR.as_millis() as f64,
        took,
        cpu[0],
        cpu[1],
        read[0] / times,
        read[1] / times,
        grown[0],
        grown[1],
    );
}

/// An empty node takes everything.
fn take_all(words: [&str; 2], giver: &mut Peer, folder: &Path) {
    let mut taker = Peer::start(words, folder);
    giver.ask(&format!("allow {}", taker.id));
    taker.ask(&format!("allow {}", giver.id));
    taker.ask(&format!("dial {} {}", giver.id, giver.port));
    let before = [giver.usage("anew"), taker.usage("anew")];
    let figures = numbers(&taker.ask("sync"));
    let after = [giver.usage(""), taker.usage("")];
    let mut grown = [Grown::default(); 2];
    (0..2).for_each(|end| grown[end].most(&before[end], &after[end]));
    println!(
        "all of {}: {} sessions, {} B, {} frames, {:.1} s; {} at the giver, {} at the taker",
        taker.ask("entries"),
        figures[0],
        figures[1],
        figures[2],
        figures[3] as f64 / 1e6,
        grown[0],
        grown[1],
    );
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
    let (entries, bytes) = (number(0).unwrap_or(100_000), number(1).unwrap_or(100));
    let sizes = [&*entries.to_string(), &*bytes.to_string()];
    match (words.get(2).map(String::as_str), words.get(3).map(Path::new)) {
        (Some("import"), Some(folder)) => return import(folder, entries, bytes as usize),
        (Some("node"), Some(folder)) => {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            return runtime.block_on(node(folder, entries, bytes as usize));
        }
        _ => {}
    }
    let folder = tempfile::tempdir().unwrap();
    let folders = ["a", "b", "c"].map(|name| folder.path().join(name));
    let import = Command::new(std::env::current_exe().unwrap())
        .args(sizes)
        .arg("import")
        .arg(&folders[0])
        .status();
    assert!(import.unwrap().success());
    // at rest: each draws writers of its own at its first put
    copy(&folders[0], &folders[1]);
    let mut peers = [&folders[0], &folders[1]].map(|folder| Peer::start(sizes, folder));
    let relay = Relay::start(peers[1].port);
    let ids = [peers[0].id.clone(), peers[1].id.clone()];
    peers[0].ask(&format!("allow {}", ids[1]));
    peers[1].ask(&format!("allow {}", ids[0]));
    peers[0].ask(&format!("dial {} {}", ids[1], relay.port));
    println!("{entries} entries of {bytes} bytes, two processes");
    let mut seed = 0;
    // the first session of two that have not met
    measure_first(&mut peers);
    if let Some(differences) = number(2) {
        return measure(&mut peers, &relay, (differences, number(3).unwrap_or(TIMES)), &mut seed);
    }
    for differences in DIFFERENCES {
        if differences <= entries {
            measure(&mut peers, &relay, (differences, TIMES), &mut seed);
        }
    }
    if entries >= WARM {
        println!("once more, with most pages of the trees in memory by what came before");
        measure(&mut peers, &relay, (WARM, TIMES), &mut seed);
    }
    let [mut giver, _other] = peers;
    take_all(sizes, &mut giver, &folders[2]);
}

fn measure_first(peers: &mut [Peer; 2]) {
    peers[0].ask("change 0 1");
    peers[1].ask("change 0 0");
    let figures = numbers(&peers[0].ask("sync"));
    println!("first session, one differs: {} B, {} frames", figures[1], figures[2]);
}
