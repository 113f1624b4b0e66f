//! What a peer may do, at the hello and in the middle of a session, from both ends.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use selfsame::hash::{ContextHash, TreeHash};
use selfsame::net::{CloseCode, FrameReader, FrameWriter, NetError, StreamKind, World, drive};
use selfsame::node::client::ClientError;
use selfsame::node::query::Query;
use selfsame::node::server::Event;
use selfsame::node::{Node, Unwatched, Watch};
use selfsame::session::message::{CollectionTag, Hello, Message, StateTag, TreeTag};
use selfsame::session::wire::{self, MAX_FRAME_BYTES};
use selfsame::session::{
    AbortCode, Failure, Mode, Outcome, Profile, Session, Setup, Strategy, SyncConfig,
};
use selfsame::types::CollectionName;
use tokio::sync::watch;
use tokio::time::timeout;

use super::net::{LIMIT, Peer, Store, book, until};

const MODES: [Mode; 4] = [Mode::Pull, Mode::Push, Mode::Both, Mode::Compare];

/// What the opener of a session is told.
fn expected(grant: &str, mode: Mode) -> Option<AbortCode> {
    match (grant, mode) {
        ("none", _) => Some(AbortCode::UnknownCollection),
        ("read", Mode::Push | Mode::Both) => Some(AbortCode::ReadOnly),
        _ => None,
    }
}

fn refused(code: AbortCode) -> Outcome {
    Outcome::Failed(Failure::Peer(code))
}

/// Two nodes that differ, of which the first may do everything to the second.
fn pair() -> (Peer, Peer) {
    let (a, b) = (Peer::new(), Peer::new());
    a.fill("c", "a", 40);
    b.fill("c", "b", 40);
    a.grants(&b, "*=write");
    b.grants(&a, "*=write");
    (a, b)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_grant_allows_what_it_says_and_no_more() {
    for grant in ["none", "read", "write"] {
        for mode in MODES {
            let (a, b) = pair();
            b.grants(&a, &format!("*=write c={grant}"));
            let link = a.connect(&b).await.unwrap();
            let outcome = a.sync(&link, "c", mode, &Unwatched).await.unwrap();
            let code = expected(grant, mode);
            if let Some(code) = code {
                assert_eq!(outcome, refused(code), "{grant} {mode:?}");
            } else {
                assert!(!matches!(outcome, Outcome::Failed(_)), "{grant} {mode:?}: {outcome:?}");
            }
            let gives = code.is_none() && matches!(mode, Mode::Push | Mode::Both);
            assert_eq!(b.entries("c"), if gives { 80 } else { 40 }, "{grant} {mode:?}");
            let takes = code.is_none() && matches!(mode, Mode::Pull | Mode::Both);
            assert_eq!(a.entries("c"), if takes { 80 } else { 40 }, "{grant} {mode:?}");
        }
        let (a, b) = pair();
        b.grants(&a, &format!("*=write c={grant}"));
        let link = a.connect(&b).await.unwrap();
        let name = CollectionName::new("c").unwrap();
        let digest = a.node.remote_digest(&link, &name).await;
        match grant {
            "none" => assert!(matches!(digest, Err(ClientError::UnknownCollection(_)))),
            _ => assert_eq!(digest.unwrap().envelope().root(), b.collection("c").root().unwrap()),
        }
    }
}

/// Takes a grant back at a node once the session is under way at both ends.
struct TakesBack<'a>(Mutex<Option<(&'a Peer, &'a Peer, String)>>);

impl<'a> TakesBack<'a> {
    fn from(node: &'a Peer, peer: &'a Peer, rules: String) -> Self {
        Self(Mutex::new(Some((node, peer, rules))))
    }
}

impl Watch for TakesBack<'_> {
    fn progress(&self, session: &Session) {
        // an id needs the openings of both
        if session.id().is_some()
            && let Some((node, peer, rules)) = self.0.lock().unwrap().take()
        {
            node.grants(peer, &rules);
        }
    }
}

fn served(peer: &Peer) -> Vec<Outcome> {
    let events = peer.events.lock().unwrap();
    let outcome = |event: &Event| match event {
        Event::Session { report, .. } => Some(report.outcome.clone()),
        _ => None,
    };
    events.iter().filter_map(outcome).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_that_is_taken_back_ends_the_session() {
    for grant in ["none", "read"] {
        for mode in MODES {
            let (a, b) = pair();
            let link = a.connect(&b).await.unwrap();
            let taken_back = TakesBack::from(&b, &a, format!("*=write c={grant}"));
            let outcome = a.sync(&link, "c", mode, &taken_back).await.unwrap();
            let Some(code) = expected(grant, mode) else {
                assert!(!matches!(outcome, Outcome::Failed(_)), "{grant} {mode:?}: {outcome:?}");
                continue;
            };
            assert_eq!(outcome, refused(code), "{grant} {mode:?}");
            until(|| !served(&b).is_empty()).await;
            assert_eq!(served(&b), [Outcome::Failed(Failure::Ours(code))], "{grant} {mode:?}");
            assert_eq!(b.entries("c"), 40, "{grant} {mode:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_that_is_taken_back_by_who_opened_ends_the_session_too() {
    for (grant, mode, code) in [
        ("none", Mode::Both, AbortCode::UnknownCollection),
        ("none", Mode::Push, AbortCode::UnknownCollection),
        ("none", Mode::Compare, AbortCode::UnknownCollection),
        ("read", Mode::Both, AbortCode::ReadOnly),
        ("read", Mode::Pull, AbortCode::ReadOnly),
    ] {
        let (a, b) = pair();
        let link = a.connect(&b).await.unwrap();
        let taken_back = TakesBack::from(&a, &b, format!("*=write c={grant}"));
        let outcome = a.sync(&link, "c", mode, &taken_back).await.unwrap();
        assert_eq!(outcome, Outcome::Failed(Failure::Ours(code)), "{grant} {mode:?}");
        until(|| !served(&b).is_empty()).await;
        assert_eq!(served(&b), [refused(code)], "{grant} {mode:?}");
        assert_eq!(a.entries("c"), 40, "{grant} {mode:?}");
    }
}

/// Whenever the grant goes: what is held then is what is held after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_applied_once_a_grant_is_gone() {
    for taken in [0, 1, 20, 50] {
        let (a, b) = pair();
        b.fill_with_noise("c", 80, 60_000);
        let link = a.connect(&b).await.unwrap();
        let collection = a.collection("c");
        let view = collection.snapshot().unwrap();
        let (send, receive) = link.open(StreamKind::Session).await.unwrap();
        let setup = Setup {
            me: a.id(),
            peer: b.id(),
            config: SyncConfig { mode: Mode::Pull, ..a.node.config.clone() },
            limits: a.node.replica.limits().clone(),
            secret: link.session_secret(&send).unwrap(),
            clock: a.node.clock(),
        };
        let session = Session::initiate(setup, &view);
        let held = AtomicU64::new(0);
        let permit = || {
            let entries = a.entries("c");
            if entries < 40 + taken {
                return Ok(());
            }
            held.store(entries, Ordering::Relaxed);
            Err(AbortCode::UnknownCollection)
        };
        let (_stop, stop) = watch::channel(false);
        let world = World {
            link: &link,
            collection: &collection,
            view: &view,
            may_write: true,
            now_ms: &Node::<Store>::now_ms,
            sign: &|message| a.node.identity.sign(message),
            patience: Duration::from_secs(10),
            stop,
            permit: &permit,
            progress: &|_| {},
        };
        let reader = FrameReader::new(receive, MAX_FRAME_BYTES);
        let report = timeout(LIMIT, drive(session, send, reader, world)).await.unwrap();
        let code = AbortCode::UnknownCollection;
        assert_eq!(report.outcome, Outcome::Failed(Failure::Ours(code)), "{taken}");
        assert_eq!(a.entries("c"), held.into_inner(), "{taken}");
        assert!(a.entries("c") < 160, "it ended in the middle");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_and_forbidden_look_the_same_byte_for_byte() {
    let (a, b) = pair();
    b.grants(&a, "*=write c=none");
    let link = a.connect(&b).await.unwrap();
    let listed: Vec<_> = link.peer_greeting().collections.iter().map(|spec| &spec.name).collect();
    assert!(listed.is_empty(), "the greeting names what may be read only: {listed:?}");
    let answer = async |kind: StreamKind, frame: Vec<u8>| {
        let (send, receive) = link.open(kind).await.unwrap();
        let mut writer = FrameWriter::new(send, MAX_FRAME_BYTES);
        writer.write_frame(&frame).await.unwrap();
        let _open = writer;
        let mut reader = FrameReader::new(receive, MAX_FRAME_BYTES);
        let first = timeout(LIMIT, reader.next_frame()).await.unwrap().unwrap();
        let end = timeout(LIMIT, reader.next_frame()).await.unwrap().unwrap();
        (first, end)
    };
    let hello = |name: &str, mode: Mode| {
        let mut spec = a.collection("c").spec().clone();
        spec.name = CollectionName::new(name).unwrap();
        wire::encode(&Message::Hello(Hello {
            collection: CollectionTag::of(&spec),
            mode,
            strategy: Strategy::Auto,
            profile: Profile::Auto,
            state: {
                let tree = TreeTag::of(&[2; 32], &TreeHash([1; 32]));
                StateTag::of(&[2; 32], &spec, &tree, &ContextHash([1; 32]))
            },
            base: None,
            estimator: None,
        }))
        .unwrap()
    };
    for mode in MODES {
        let forbidden = answer(StreamKind::Session, hello("c", mode)).await;
        let unknown = answer(StreamKind::Session, hello("d", mode)).await;
        assert_eq!(forbidden, unknown);
        assert_eq!(forbidden.0, Some(Session::refusal(AbortCode::UnknownCollection)));
    }
    let digest = |name: &str| wire::encode(&Query::Digest { collection: name.into() }).unwrap();
    let forbidden = answer(StreamKind::Query, digest("c")).await;
    assert_eq!(forbidden, answer(StreamKind::Query, digest("d")).await);
    assert_eq!(forbidden, answer(StreamKind::Query, digest("")).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greeting_names_what_the_peer_may_read() {
    let (a, b) = pair();
    for name in ["read", "write", "none"] {
        b.collection(name);
    }
    b.grants(&a, "read=read write=write");
    let link = a.connect(&b).await.unwrap();
    let mut listed: Vec<_> =
        link.peer_greeting().collections.iter().map(|spec| spec.name.as_str()).collect();
    listed.sort_unstable();
    assert_eq!(listed, ["read", "write"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_removed_is_disconnected_and_not_let_in_again() {
    let (a, b) = pair();
    let link = a.connect(&b).await.unwrap();
    assert!(matches!(
        a.sync(&link, "c", Mode::Both, &Unwatched).await.unwrap(),
        Outcome::Complete { .. }
    ));
    b.node.access.set_book(Default::default());
    let closed = timeout(LIMIT, link.connection().closed()).await.unwrap();
    assert!(
        matches!(closed, NetError::ClosedByPeer { code: CloseCode::NotAdmitted, .. }),
        "{closed}"
    );
    let refused = a.connect(&b).await.unwrap_err();
    assert!(matches!(refused, ClientError::Link(_) | ClientError::Net(_)), "{refused}");
    until(|| b.events.lock().unwrap().iter().any(|e| matches!(e, Event::Disconnected { .. })))
        .await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_book_changed_by_another_process_holds_within_seconds() {
    let (a, b) = pair();
    let write = |text: String| {
        let path = b.files.peers_path();
        std::fs::write(path.with_extension("new"), text).unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
    };
    let entry = format!("[[peer]]\nid = \"{}\"\n[peer.grants]\n", a.id());
    write(format!("{entry}\"*\" = \"read\"\n"));
    let name = CollectionName::new("c").unwrap();
    let grant = || b.node.access.grant(&a.id(), &name).to_string();
    until(|| grant() == "read").await;
    write(format!("{entry}c = \"all\"\n"));
    let complaint = |event: &Event| match event {
        Event::PeerBook { error: Some(error) } => error.to_string().contains("line 4"),
        _ => false,
    };
    until(|| b.events.lock().unwrap().iter().any(complaint)).await;
    assert_eq!(grant(), "read", "what is wrong changes nothing");
    write(String::new());
    until(|| grant() == "none").await;
    assert_eq!(b.events.lock().unwrap().iter().filter(|event| complaint(event)).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_are_taken_only_from_whom_this_node_lets_write() {
    let (a, b) = pair();
    a.grants(&b, "c=read");
    let link = a.connect(&b).await.unwrap();
    for mode in [Mode::Both, Mode::Pull] {
        let error = a.sync(&link, "c", mode, &Unwatched).await.unwrap_err();
        assert!(matches!(error, ClientError::ReadsOnly { .. }), "{error}");
    }
    let pushed = a.sync(&link, "c", Mode::Push, &Unwatched).await.unwrap();
    assert!(matches!(pushed, Outcome::Pushed { .. }));
    assert_eq!((a.entries("c"), b.entries("c")), (40, 80));
    a.grants(&b, "c=none");
    let error = a.sync(&link, "c", Mode::Push, &Unwatched).await.unwrap_err();
    assert!(matches!(error, ClientError::NoGrant { .. }), "{error}");
    // a command that names a peer which nobody knows is its grant
    a.node.access.set_book(book(a.id(), ""));
    let told = a.node.vouching_for(b.id());
    let link = told.connect(&a.endpoint, &b.address(), LIMIT).await.unwrap();
    let (_stop, stop) = watch::channel(false);
    let done =
        told.synchronise(&link, &a.collection("c"), &told.config, stop, &Unwatched).await.unwrap();
    assert!(matches!(done.last().outcome, Outcome::Complete { .. }));
    assert_eq!(a.entries("c"), 80);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_are_tried_in_their_order() {
    let (a, b) = pair();
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let wrong = selfsame::net::PeerAddress::new(b.id(), silent.local_addr().unwrap());
    let addresses = [wrong.clone(), b.address()];
    let link = a.node.connect_first(&a.endpoint, &addresses, Duration::from_secs(2)).await;
    assert_eq!(link.unwrap().peer(), b.id());
    b.node.access.set_book(Default::default());
    let addresses = [b.address(), wrong];
    let error = a.node.connect_first(&a.endpoint, &addresses, Duration::from_secs(1)).await;
    let said = error.unwrap_err().to_string();
    assert!(said.contains("refused this node"), "an answer says more than silence: {said}");
    let error = a.node.connect_first(&a.endpoint, &[], Duration::from_secs(1)).await;
    assert!(matches!(error, Err(ClientError::NoAddress(_))));
}
