//! The control API: what it answers, and what it bears.
#![cfg(all(feature = "node", unix))]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use selfsame::api::frames::{Frame, write_entry};
use selfsame::api::serve::ServeError;
use selfsame::api::types::{NewCollection, PeerRequest, SyncLine, SyncRequest};
use selfsame::api::{ApiLimits, BATCH_ENTRIES, CallError, Client, ControlSocket, Host};
use selfsame::hash::HashAlgorithm;
use selfsame::net::{Endpoint, NetLimits, PeerAddress};
use selfsame::node::daemon::{ConfigFiles, Daemon, DaemonSettings};
use selfsame::node::home::Home;
use selfsame::node::manager::SessionKey;
use selfsame::node::server;
use selfsame::types::{CollectionName, CollectionSpec, Key, Policy};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A node whose process answers on its socket.
struct Served {
    folder: TempDir,
    home: Option<Home>,
    runtime: Option<Runtime>,
    serving: Option<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

impl Served {
    fn new() -> Self {
        Self::within(ApiLimits::default())
    }

    fn within(limits: ApiLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Home::init(folder.path()).unwrap();
        let home = Home::open(folder.path()).unwrap();
        let runtime = Runtime::new().unwrap();
        let (stop, stopped) = watch::channel(false);
        let host = Arc::new(Host::new(&home).with_limits(limits));
        let socket = runtime.block_on(ControlSocket::bind(folder.path())).unwrap();
        let serving = Some(runtime.spawn(socket.serve(host, stopped)));
        let served = Self { folder, home: Some(home), runtime: Some(runtime), serving, stop };
        served.wait(served.client().create(&name(), &NewCollection::default())).unwrap();
        served
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.as_ref().unwrap().block_on(work)
    }

    fn client(&self) -> Client {
        self.wait(Client::connect(self.folder.path())).unwrap()
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Status and body of a request that is written as it stands.
    fn say(&self, request: impl AsRef<[u8]>) -> (u16, Value) {
        let mut stream = self.connect();
        // who is refused early may not be listened to
        let _ = stream.write_all(request.as_ref());
        answer(&mut stream)
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let length = body.len();
        self.say(format!(
            "{method} /v1/{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-length: {length}\r\n\r\n{body}"
        ))
    }

    fn code(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let (status, problem) = self.ask(method, path, body);
        assert!(problem["message"].is_string() && problem["exit"].is_u64(), "{problem}");
        (status, problem["code"].as_str().unwrap().to_owned())
    }

    /// Stops serving; how long that took, and whether the store was free after it.
    fn stop(mut self) -> Duration {
        let began = Instant::now();
        self.stop.send_replace(true);
        let serving = self.serving.take().unwrap();
        self.wait(serving).unwrap();
        let took = began.elapsed();
        assert!(!self.path().exists());
        self.runtime.take().unwrap().shutdown_timeout(Duration::from_secs(5));
        self.home.take().unwrap().close().unwrap();
        Home::open(self.folder.path()).unwrap().close().unwrap();
        took
    }
}

fn answer(stream: &mut UnixStream) -> (u16, Value) {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

fn name() -> CollectionName {
    CollectionName::new("c").unwrap()
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

#[test]
fn scrapers_are_told_what_they_are_given() {
    let node = Served::new();
    let mut stream = node.connect();
    let request = "GET /v1/metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let media = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(head.lines().any(|line| line == media), "{head}");
    assert!(
        body.starts_with("# HELP selfsame_build_info ") && body.ends_with("\n# EOF\n"),
        "{body}"
    );
    let (status, json) = node.ask("GET", "metrics?format=json", "");
    assert_eq!((status, &json["metrics"][0]["name"]), (200, &"selfsame_build_info".into()));
    assert_eq!(node.code("GET", "metrics?format=xml", ""), (400, "request".into()));
    assert_eq!(node.code("GET", "metrics?all=true", ""), (400, "request".into()));
}

#[test]
fn what_is_not_understood_is_said_and_changes_nothing() {
    let node = Served::new();
    assert_eq!(node.ask("GET", "node", "").0, 200);
    for (method, path, body, status, code) in [
        ("GET", "nothing", "", 404, "no_endpoint"),
        ("DELETE", "node", "", 404, "no_endpoint"),
        ("GET", "collections/none/digest", "", 404, "no_such_collection"),
        ("GET", "collections/c/entry?key=none", "", 404, "no_such_key"),
        ("GET", "collections/c/entry", "", 400, "request"),
        ("GET", "collections/c/entry?key=a&key_hex=00", "", 400, "request"),
        ("GET", "collections/c/entry?kee=a", "", 400, "request"),
        ("GET", "collections/c/entry?key_hex=0g", "", 400, "request"),
        ("GET", "collections/c/entry?key=", "", 400, "no_such_word"),
        ("GET", "collections/%ff/digest", "", 400, "request"),
        ("GET", "collections/c/entries?prefix=a&prefix_hex=00", "", 400, "request"),
        ("GET", "collections/c/entries?values=perhaps", "", 400, "request"),
        ("PUT", "collections/d", "{\"policy\":", 400, "request"),
        ("PUT", "collections/d", "{\"polizy\":\"lww\"}", 400, "request"),
        ("PUT", "collections/d", "{\"policy\":\"newest\"}", 400, "no_such_word"),
        ("PUT", "collections/d", "{\"hash_algorithm\":\"md5\"}", 400, "request"),
        ("PUT", "collections/c", "{\"policy\":\"siblings\"}", 409, "other_settings"),
        ("POST", "collections/c/sync", "{}", 400, "request"),
        ("POST", "collections/c/sync", "{\"peer\":\"1.2.3.4:5\"}", 400, "address"),
        ("POST", "collections/c/sync", "{\"peer\":\"nobody\"}", 502, "peer"),
        ("POST", "collections/c/import", "garbage", 400, "request"),
        ("POST", "collections/c/recover", "", 409, "nothing_to_recover"),
        ("DELETE", "runs/7", "", 404, "no_run"),
        ("DELETE", "runs/x", "", 400, "request"),
    ] {
        let said = node.code(method, path, body);
        assert_eq!(said, (status, code.to_owned()), "{method} {path} {body}");
    }
    assert_eq!(node.say("nonsense\r\n\r\n").0, 400);
    let all = node.wait(node.client().collections()).unwrap();
    assert_eq!((all.collections.len(), all.collections[0].entries), (1, Some(0)));
    node.stop();
}

#[test]
fn names_and_keys_of_any_characters_arrive() {
    let node = Served::new();
    let client = node.client();
    for name in ["a/b", "..", "%2F", "ünï cödé?#", "\u{1}"] {
        let name = CollectionName::new(name).unwrap();
        assert!(!node.wait(client.create(&name, &NewCollection::default())).unwrap().existed);
        assert_eq!(node.wait(client.collection(&name)).unwrap().collection, name.to_string());
        for bytes in [&b"\0\xff"[..], b"?key=x&", &[7; 1_024]] {
            let key = Key::new(bytes).unwrap();
            node.wait(client.put(&name, &key, bytes.to_vec())).unwrap();
            assert_eq!(node.wait(client.value(&name, &key)).unwrap().bytes, bytes);
        }
    }
    node.stop();
}

#[test]
fn a_body_over_its_limit_is_refused_before_it_is_read() {
    let node = Served::new();
    for (path, length) in [
        ("PUT /v1/collections/d", 1_u64 << 20),
        ("PUT /v1/collections/c/entry?key=k", 1 << 40),
        ("POST /v1/collections/c/import", 1 << 60),
        ("POST /v1/collections/c/sync", 1 << 33),
    ] {
        let head = format!("{path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
        assert_eq!(node.say(head).0, 413, "{path}");
    }
    // nor is one that does not say how long it is
    let mut stream = node.connect();
    let head = "PUT /v1/collections/d HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(1 << 16));
    while stream.write_all(chunk.as_bytes()).is_ok() {}
    node.stop();
}

#[test]
fn more_entries_than_a_batch_holds_are_refused_whole() {
    let node = Served::new();
    let client = node.client();
    let batch = |entries: usize| {
        let mut bytes = Vec::new();
        for at in 0..entries {
            let value = at.to_string().into_bytes().into();
            Frame::Entry { key: key(&at.to_string()), value }.write(&mut bytes).unwrap();
        }
        bytes
    };
    let done = node.wait(client.import(&name(), batch(BATCH_ENTRIES))).unwrap();
    assert_eq!(done.written, BATCH_ENTRIES as u64);
    let refused = node.wait(client.import(&name(), batch(BATCH_ENTRIES + 1))).unwrap_err();
    assert!(refused.to_string().contains("1000 entries at most"), "{refused}");
    let mut cut = batch(2);
    cut.pop();
    node.wait(client.import(&name(), cut)).unwrap_err();
    let mut other = batch(1);
    Frame::End.write(&mut other).unwrap();
    node.wait(client.import(&name(), other)).unwrap_err();
    assert_eq!(node.wait(client.collection(&name())).unwrap().entries, Some(1_000));
    let mut keys = Vec::new();
    for at in 0..10 {
        let all = write_entry::<CallError>(&mut keys, &key(&at.to_string()), |_| Ok(true));
        assert!(all.unwrap());
    }
    assert_eq!(node.wait(client.remove(&name(), keys)).unwrap().removed, 10);
    assert_eq!(node.wait(client.collection(&name())).unwrap().entries, Some(990));
    node.stop();
}

fn quick() -> ApiLimits {
    let soon = Duration::from_millis(200);
    ApiLimits { max_connections: 64, head_deadline: soon, body_pause: soon, farewell: soon }
}

#[test]
fn who_does_not_go_on_is_cut_off() {
    let node = Served::within(quick());
    let mut silent = node.connect();
    silent.write_all(b"GET /v1/no").unwrap();
    let mut slow = node.connect();
    let head = "POST /v1/collections/c/import HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n";
    slow.write_all(head.as_bytes()).unwrap();
    slow.write_all(b"half of it").unwrap();
    assert_eq!(answer(&mut slow).1["code"], "slow_body");
    // closed, whatever it says before that
    silent.read_to_end(&mut Vec::new()).unwrap();
    node.stop();
}

#[test]
fn one_connection_too_many_is_told_so_and_the_others_are_served() {
    let node = Served::new();
    let mut held: Vec<_> = (0..64).map(|_| node.connect()).collect();
    for stream in &mut held {
        stream.write_all(b"GET /v1/node HTTP/1.1\r\n").unwrap();
    }
    // all 64 are accepted once one more is turned away
    let patience = Instant::now();
    let busy = loop {
        let said = node.ask("GET", "node", "");
        if said.0 != 200 || patience.elapsed() > Duration::from_secs(5) {
            break said;
        }
    };
    assert_eq!((busy.0, &busy.1["code"]), (503, &"busy".into()));
    let mut one = held.swap_remove(0);
    one.write_all(b"host: x\r\nconnection: close\r\n\r\n").unwrap();
    assert_eq!(answer(&mut one).0, 200);
    drop(held);
    while node.ask("GET", "node", "").0 != 200 {
        assert!(patience.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(node.stop() < Duration::from_secs(3));
}

#[test]
fn a_client_that_vanishes_leaves_nothing_behind() {
    let node = Served::new();
    let client = node.client();
    let large = vec![7; 1 << 20];
    for at in 0..40 {
        node.wait(client.put(&name(), &key(&at.to_string()), large.clone())).unwrap();
    }
    // in the middle of what it sends
    let mut stream = node.connect();
    let head = "POST /v1/collections/c/import HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&[0; 1_000]).unwrap();
    drop(stream);
    // and of what it is sent
    for path in ["export", "entries?values=true"] {
        let mut stream = node.connect();
        let head = format!("GET /v1/collections/c/{path} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream.read_exact(&mut [0; 100_000]).unwrap();
        drop(stream);
    }
    let all = node.wait(client.collection(&name())).unwrap();
    assert_eq!(all.entries, Some(40));
    assert!(node.stop() < Duration::from_secs(3), "a task waits for somebody who is gone");
}

#[test]
fn an_answer_that_is_cut_off_is_not_taken_for_a_whole_one() {
    let node = Served::within(quick());
    let client = node.client();
    for at in 0..40 {
        node.wait(client.put(&name(), &key(&at.to_string()), vec![7; 1 << 20])).unwrap();
    }
    let mut stream = node.wait(client.export(&name(), false)).unwrap();
    assert_eq!(stream.head().entries, 40);
    assert!(matches!(node.wait(stream.next_entry()).unwrap(), Some(Frame::Entry { .. })));
    let runtime = Runtime::new().unwrap();
    let stopping = std::thread::spawn(move || node.stop());
    let lost = runtime.block_on(async {
        // so that it is still on its way when the time is over
        tokio::time::sleep(Duration::from_secs(1)).await;
        loop {
            match stream.next_entry().await {
                Ok(Some(_)) => {}
                Ok(None) => return false,
                Err(error) => return matches!(error, CallError::Lost(_)),
            }
        }
    });
    assert!(lost);
    stopping.join().unwrap();
}

#[test]
fn the_socket_is_its_owners_and_goes_with_the_process() {
    let node = Served::new();
    assert_eq!(std::fs::metadata(node.path()).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!node.folder.path().join("control.new").exists());
    // one where somebody answers is never taken
    let taken = node.wait(ControlSocket::bind(node.folder.path())).unwrap_err();
    assert!(matches!(taken, ServeError::Taken(_)), "{taken}");
    assert_eq!(node.ask("GET", "node", "").0, 200);
    node.stop();
}

#[tokio::test]
async fn a_socket_that_is_left_is_replaced_and_other_things_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    drop(UnixListener::bind(&path).unwrap());
    std::fs::create_dir(folder.path().join("control.new")).unwrap();
    let socket = ControlSocket::bind(folder.path()).await.unwrap();
    assert_eq!(socket.path(), path);
    drop(socket);
    assert!(!path.exists());
    std::fs::write(&path, "notes").unwrap();
    let occupied = ControlSocket::bind(folder.path()).await.unwrap_err();
    assert!(matches!(occupied, ServeError::Occupied(_)), "{occupied}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "notes");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_with_a_long_path_has_a_socket_too() {
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().join("d".repeat(200)).join("e".repeat(200));
    Home::init(&folder).unwrap();
    let home = Home::open(&folder).unwrap();
    let (stop, stopped) = watch::channel(false);
    let socket = ControlSocket::bind(&folder).await.unwrap();
    let serving = tokio::spawn(socket.serve(Arc::new(Host::new(&home)), stopped));
    let client = Client::connect(&folder).await.unwrap();
    assert!(client.node().await.unwrap().max_value_bytes > 0);
    stop.send(true).unwrap();
    serving.await.unwrap();
    assert!(!folder.join("control.sock").exists());
}

#[test]
fn a_session_can_be_stopped_by_its_number_and_by_going_away() {
    let node = Served::new();
    let client = node.client();
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let other = selfsame::net::Identity::from_secret(&[1; 32]).node_id();
    let peer = format!("{other}@{}", silent.local_addr().unwrap());
    let request = SyncRequest {
        profile: None,
        peer: peer.clone(),
        direction: Default::default(),
        strategy: Default::default(),
        allow_removals: false,
    };
    let mut stream = node.wait(client.sync(&name(), &request)).unwrap();
    silent.recv(&mut [0; 2_000]).unwrap();
    node.wait(client.stop(stream.run())).unwrap();
    let ended = node.wait(stream.next_line());
    let Err(CallError::Problem(problem)) = ended else { panic!("{ended:?}") };
    assert_eq!((problem.code.as_str(), problem.exit), ("stopped", 130));
    let stopped = node.wait(client.stop(stream.run())).unwrap_err();
    assert!(stopped.to_string().contains("goes on under"), "{stopped}");

    let stream = node.wait(client.diff(&name(), &PeerRequest { peer })).unwrap();
    drop(stream);
    assert!(node.stop() < Duration::from_secs(3), "a session runs for nobody");
}

/// A node in a folder of its own, with a collection, and a socket that admits whom it knows.
fn node() -> (TempDir, Home, Endpoint) {
    let folder = tempfile::tempdir().unwrap();
    Home::init(folder.path()).unwrap();
    let home = Home::open(folder.path()).unwrap();
    for name in ["c", "d"] {
        home.replica.create_collection(spec(name)).unwrap();
    }
    let (identity, access) = (Arc::clone(&home.identity), Arc::new(home.access.clone()));
    let any_port = "127.0.0.1:0".parse().unwrap();
    let endpoint = Endpoint::bind(identity, any_port, access, NetLimits::default()).unwrap();
    (folder, home, endpoint)
}

fn spec(name: &str) -> CollectionSpec {
    let name = CollectionName::new(name).unwrap();
    CollectionSpec { name, algorithm: HashAlgorithm::Blake3, policy: Policy::Lww }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(20), "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_asked_for_takes_a_place_among_those_of_the_daemon() {
    let ((folder, home, endpoint), (_there, other, served)) = (node(), node());
    let (me, peer) = (home.identity.node_id(), other.identity.node_id());
    other.access.allow(me);
    let address = PeerAddress::new(peer, served.local_address());
    let stop = watch::Sender::new(false);
    let serving = server::serve(other.node().into(), served, stop.subscribe(), Arc::new(|_| {}));
    let serving = tokio::spawn(serving);

    let mut settings = DaemonSettings::from(&home.config);
    settings.sessions.max_concurrent = 1;
    let daemon = Daemon::start(home.node(), endpoint, settings);
    let files = ConfigFiles::new(folder.path(), &home.config, Vec::new());
    let client = Client::here(Host::new(&home).of_daemon(daemon.clone(), files).into());
    let taken = |collection: &str| {
        let collection = CollectionName::new(collection).unwrap();
        home.sessions.admit(SessionKey { me, peer, collection }, true).unwrap()
    };
    let request = SyncRequest {
        profile: None,
        peer: address.to_string(),
        direction: Default::default(),
        strategy: Default::default(),
        allow_removals: false,
    };
    let opened = || other.sessions.counters().opened_by_peers;

    // another session of the same pair, and then another one at all
    for (round, collection) in ["c", "d"].into_iter().enumerate() {
        let place = taken(collection);
        let mut stream = client.sync(&name(), &request).await.unwrap();
        match collection {
            "c" => until("it waits", || home.sessions.counters().duplicate > 0).await,
            _ => tokio::time::sleep(Duration::from_millis(500)).await,
        }
        assert_eq!(home.sessions.running().len(), 1, "only the one that was there");
        assert_eq!(opened(), round as u64);
        drop(place);
        let report = loop {
            match stream.next_line().await.unwrap() {
                Some(SyncLine::Report(report)) => break report,
                Some(_) => {}
                None => panic!("no report"),
            }
        };
        assert_eq!((report.outcome.as_str(), report.exit), ("complete", 0), "{report:?}");
        assert_eq!(opened(), round as u64 + 1);
    }
    drop(client);
    assert!(daemon.stop().await);
    stop.send_replace(true);
    serving.await.unwrap();
}
