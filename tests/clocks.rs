//! A node that most of its peers find ahead refuses local puts, and puts again what it wrote.
#![cfg(feature = "node")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use selfsame::api::types::{NewCollection, RestampLine, RestampRequest, RestampedText};
use selfsame::api::{CallError, Client, Host};
use selfsame::clock::Stamp;
use selfsame::net::{DialOptions, Endpoint, Identity, Link, NetLimits, PeerAddress};
use selfsame::node::daemon::{ConfigFiles, Daemon, DaemonSettings};
use selfsame::node::doctor::Verdict;
use selfsame::node::home::Home;
use selfsame::node::{Node, server};
use selfsame::session::message::Greeting;
use selfsame::store::EmbeddedStore;
use selfsame::types::{CollectionName, Key};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(30);
const HOUR_MS: i64 = 3_600_000;

fn now() -> u64 {
    Node::<EmbeddedStore>::now_ms()
}

fn name() -> CollectionName {
    CollectionName::new("c").unwrap()
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

/// A node that serves, and a client of its API.
struct Served {
    client: Client,
    home: Home,
    address: PeerAddress,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Served {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Home::init(folder.path()).unwrap();
        let home = Home::open(folder.path()).unwrap();
        let node = Arc::new(home.node());
        let bind = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let admits = Arc::new(node.access.clone());
        let identity = Arc::clone(&node.identity);
        let endpoint = Endpoint::bind(identity, bind, admits, NetLimits::default()).unwrap();
        let address = PeerAddress::new(node.id(), endpoint.local_address());
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(server::serve(node, endpoint, stopped, Arc::new(|_| {})));
        let client = Client::here(Arc::new(Host::new(&home).staying()));
        client.create(&name(), &NewCollection::default()).await.unwrap();
        Self { client, home, address, stop, server, _folder: folder }
    }

    /// A peer connects whose clock is so far ahead of this node's.
    async fn met_by(&self, peer: u8, ahead_ms: i64) -> (Endpoint, Link) {
        met(&self.home, &self.address, peer, ahead_ms, false).await
    }

    /// Waits until puts are refused, or taken.
    async fn until(&self, refused: bool) {
        for _ in 0..600 {
            if self.client.status().await.unwrap().clock_ahead.is_some() == refused {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("puts are not {}", if refused { "refused" } else { "taken" });
    }

    async fn end(self) {
        self.stop.send(true).unwrap();
        self.server.await.unwrap();
    }
}

/// A peer connects to a node, with a clock so far ahead of its; says whether it serves.
async fn met(
    home: &Home,
    address: &PeerAddress,
    peer: u8,
    ahead_ms: i64,
    serves: bool,
) -> (Endpoint, Link) {
    let identity = Arc::new(Identity::from_secret(&[peer; 32]));
    home.access.allow(identity.node_id());
    let bind = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let nobody = Arc::new(selfsame::net::AllowList::default());
    let endpoint = Endpoint::bind(identity, bind, nobody, NetLimits::default()).unwrap();
    let connection = endpoint.dial(address, DialOptions::from(LIMIT)).await.unwrap();
    let greeting = Greeting {
        version_min: 1,
        version_max: 1,
        max_value_bytes: 1 << 20,
        clock: Stamp::new(now().saturating_add_signed(ahead_ms), 0),
        serves,
        collections: Vec::new(),
    };
    let link = Link::greet(connection, &greeting, LIMIT).await.unwrap();
    (endpoint, link)
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, CallError>) {
    let Err(CallError::Problem(problem)) = answer else { panic!("{answer:?}") };
    assert_eq!((problem.code.as_str(), problem.exit), ("clock_ahead", 2));
    let told = problem.told();
    for part in ["ahead of 2 of the 3 peers", "nothing was", "set the clock right"] {
        assert!(told.contains(part), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_most_peers_find_ahead_refuses_puts_until_the_clocks_agree() {
    let node = Served::new().await;
    node.client.put(&name(), &key("before"), b"fine".to_vec()).await.unwrap();
    let _first = node.met_by(1, -HOUR_MS).await;
    let _fine = node.met_by(3, 100).await;
    node.until(false).await;
    let _second = node.met_by(2, -HOUR_MS - 5_000).await;
    node.until(true).await;
    let ahead = node.client.status().await.unwrap().clock_ahead.unwrap();
    assert_eq!((ahead.peers.len(), ahead.heard), (2, 3));
    assert!(ahead.ahead_ms.abs_diff(HOUR_MS as u64) < 60_000, "{ahead:?}");

    refused(node.client.put(&name(), &key("now"), b"x".to_vec()).await);
    let batch = [&[0, 3, 0, 1, 0, 0, 0][..], b"nowx"].concat();
    refused(node.client.import(&name(), batch).await);
    refused(node.client.restamp(&name(), &RestampRequest::default()).await.map(|_| ()));
    let counts = node.client.status().await.unwrap().trust;
    assert_eq!(counts.drift_puts_refused, 2, "{counts:?}");
    let figures = node.client.metrics_text().await.unwrap();
    assert!(figures.contains("\nselfsame_drift_refused_puts_total 2\n"), "{figures}");
    let ahead = figures.lines().find_map(|line| line.strip_prefix("selfsame_clock_ahead_seconds "));
    assert!(ahead.unwrap().parse::<f64>().unwrap() > 3_500.0, "{ahead:?}");
    let diagnosis = node.client.doctor().await.unwrap();
    let clocks = diagnosis.findings.iter().find(|finding| finding.check == "clocks").unwrap();
    assert_eq!(clocks.verdict, Verdict::Wrong);
    assert!(clocks.fact.contains("ahead of that of 2 of 3 peers"), "{clocks:?}");
    // reading and deleting go on
    let value = node.client.value(&name(), &key("before")).await.unwrap();
    assert_eq!(&*value.bytes, b"fine");
    assert_eq!(node.client.delete(&name(), &key("before")).await.unwrap().removed, 1);

    // one of the two was wrong itself, and is right now
    let _again = node.met_by(2, 0).await;
    node.until(false).await;
    node.client.put(&name(), &key("now"), b"x".to_vec()).await.unwrap();
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_ahead_of_time_is_put_again_with_stamps_of_now() {
    let node = Served::new().await;
    let collection = node.home.node().replica.collection(&name()).unwrap();
    let future = now() + HOUR_MS as u64;
    for at in 0..3_000 {
        let (key, value) = (key(&format!("{at}")), vec![at as u8; 20]);
        collection.put(&key, value, if at % 3 == 0 { future } else { now() }).unwrap();
    }
    let request = RestampRequest::default();
    let mut stream = node.client.restamp(&name(), &request).await.unwrap();
    let mut last = None;
    while let Some(line) = stream.next_line().await.unwrap() {
        last = Some(line);
    }
    let Some(RestampLine::Report(report)) = last else { panic!("{last:?}") };
    let expected = RestampedText {
        collection: "c".into(),
        complete: true,
        entries: 3_000,
        of_entries: 3_000,
        restamped: 1_000,
        others: 0,
    };
    assert_eq!(report, expected);
    let latest = collection.totals().unwrap().latest;
    assert!(latest.millis() <= now() + 1_000, "nothing of the future is left");
    assert_eq!(&*node.client.value(&name(), &key("0")).await.unwrap().bytes, &[0; 20]);
    let mut again = node.client.restamp(&name(), &request).await.unwrap();
    while let Some(line) = again.next_line().await.unwrap() {
        if let RestampLine::Report(report) = line {
            assert_eq!(report.restamped, 0);
        }
    }
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_whose_clock_is_apart_is_named_to_the_operator() {
    let folder = tempfile::tempdir().unwrap();
    Home::init(folder.path()).unwrap();
    let home = Home::open(folder.path()).unwrap();
    let node = home.node();
    let bind = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let admits = Arc::new(node.access.clone());
    let identity = Arc::clone(&node.identity);
    let endpoint = Endpoint::bind(identity, bind, admits, NetLimits::default()).unwrap();
    let address = PeerAddress::new(node.id(), endpoint.local_address());
    let daemon = Daemon::start(node, endpoint, DaemonSettings::default());
    let files = ConfigFiles::new(folder.path(), &home.config, Vec::new());
    let host = Host::new(&home).of_daemon(daemon.clone(), files);
    let client = Client::here(Arc::new(host));
    let clocks = async || {
        let findings = client.doctor().await.unwrap().findings.into_iter();
        findings.filter(|finding| finding.check == "clocks").collect::<Vec<_>>()
    };
    assert_eq!(clocks().await[0].verdict, Verdict::Ok);
    let _fine = met(&home, &address, 1, 0, true).await;
    let _apart = met(&home, &address, 2, HOUR_MS, true).await;
    let found = timeout(LIMIT, async {
        loop {
            let found = clocks().await;
            if found[0].verdict != Verdict::Ok {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let found = found.await.unwrap();
    let peer = Identity::from_secret(&[2; 32]).node_id().to_string();
    assert_eq!((found.len(), found[0].verdict), (1, Verdict::Look));
    assert_eq!(found[0].about.as_deref(), Some(&peer[..8]));
    assert!(found[0].fact.contains("ahead of this node's"), "{found:?}");
    let figures = client.metrics_text().await.unwrap();
    let figure = format!("selfsame_peer_clock_ahead_seconds{{peer=\"{}\"}} ", &peer[..8]);
    let ahead = figures.lines().find_map(|line| line.strip_prefix(&figure));
    assert!(ahead.unwrap().parse::<f64>().unwrap() > 3_500.0, "{figures}");
    // most find it behind
    let _third = met(&home, &address, 3, HOUR_MS, true).await;
    timeout(LIMIT, async {
        while clocks().await[0].verdict != Verdict::Wrong {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    daemon.stop().await;
}
