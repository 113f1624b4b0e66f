//! Two nodes on loopback: who gets in, who is told what, and what arrives.
#![cfg(feature = "node")]
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "net/foreign.rs"]
mod foreign;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use selfsame::net::{
    Admission, AllowList, CloseCode, Connection, Endpoint, Fault, FrameReader, FrameWriter,
    Identity, NetError, NetLimits, PeerAddress, RecvStream, SendStream, StreamCode,
};
use selfsame::types::NodeId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const MAX_FRAME: usize = 1 << 20;
const DEADLINE: Duration = Duration::from_secs(20);

/// Runs a test on two threads, and fails it rather than let it hang.
fn run<F: Future>(test: F) -> F::Output {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let output = runtime.block_on(async { tokio::time::timeout(3 * DEADLINE, test).await });
    runtime.shutdown_background();
    output.expect("the test hangs")
}

fn identity(number: u8) -> Arc<Identity> {
    Arc::new(Identity::from_secret(&[number; 32]))
}

fn id(number: u8) -> NodeId {
    identity(number).node_id()
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn endpoint_with(number: u8, admits: impl Admission, limits: NetLimits) -> Endpoint {
    Endpoint::bind(identity(number), loopback(), Arc::new(admits), limits).unwrap()
}

fn endpoint(number: u8, admits: &[u8]) -> Endpoint {
    let list = AllowList::from_iter(admits.iter().map(|number| id(*number)));
    endpoint_with(number, list, NetLimits::default())
}

fn address(endpoint: &Endpoint) -> PeerAddress {
    PeerAddress::new(endpoint.node_id(), endpoint.local_address())
}

/// Both ends of a connection between two endpoints.
async fn connect(from: &Endpoint, to: &Endpoint) -> (Connection, Connection) {
    let address = address(to);
    let (dialled, accepted) = tokio::join!(from.dial(&address, DEADLINE), to.accept());
    (dialled.unwrap(), accepted.unwrap())
}

fn framed(
    (send, receive): (SendStream, RecvStream),
) -> (FrameWriter<SendStream>, FrameReader<RecvStream>) {
    (FrameWriter::new(send, MAX_FRAME), FrameReader::new(receive, MAX_FRAME))
}

/// Sends a frame on a stream of its own and waits for the answer, or for the end.
async fn ask(connection: &Connection, question: &[u8]) -> Result<Option<Vec<u8>>, NetError> {
    let (mut writer, mut reader) = framed(connection.open_bi().await?);
    writer.write_frame(question).await?;
    writer.finish().await?;
    Ok(reader.next_frame().await?)
}

/// Waits until something holds; the test's own time limit ends it.
async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Answers each question with its own bytes.
async fn echo(connection: Connection) -> NetError {
    loop {
        let mut streams = match connection.accept_bi().await {
            Ok(streams) => framed(streams),
            Err(error) => return error,
        };
        while let Ok(Some(frame)) = streams.1.next_frame().await {
            streams.0.write_frame(&frame).await.unwrap();
        }
        streams.0.finish().await.unwrap();
    }
}

#[test]
fn both_ends_learn_whom_they_talk_to() {
    run(async {
        let (alice, bob) = (endpoint(1, &[]), endpoint(2, &[1]));
        let (dialled, accepted) = connect(&alice, &bob).await;
        assert_eq!((dialled.peer(), accepted.peer()), (id(2), id(1)));
        assert!(dialled.is_dialled() && !accepted.is_dialled());
        assert!(accepted.is_accepted());

        assert!(!dialled.is_accepted(), "nothing has come from the peer yet");
        tokio::spawn(echo(accepted));
        assert_eq!(ask(&dialled, b"ping").await.unwrap().unwrap(), b"ping");
        dialled.accepted().await.unwrap();
        assert!(dialled.is_accepted());
        assert_eq!(bob.accept_stats().accepted, 1);
    });
}

#[test]
fn either_end_opens_streams() {
    run(async {
        let (alice, bob) = (endpoint(1, &[]), endpoint(2, &[1]));
        let (dialled, accepted) = connect(&alice, &bob).await;
        tokio::spawn(echo(dialled.clone()));
        assert_eq!(ask(&accepted, b"from the acceptor").await.unwrap().unwrap().len(), 17);
        assert!(dialled.is_accepted());
    });
}

/// Serves on a runtime of its own, which is to be shut down like a process that is killed.
fn serve_apart(address: SocketAddr) -> (tokio::runtime::Runtime, SocketAddr) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let entered = runtime.enter();
    let admits = AllowList::from_iter([id(1)]);
    let bound = Endpoint::bind(identity(2), address, Arc::new(admits), NetLimits::default());
    let served = bound.unwrap();
    let address = served.local_address();
    runtime.spawn(async move {
        while let Ok(connection) = served.accept().await {
            tokio::spawn(async move {
                // takes questions and never answers
                let mut taken = Vec::new();
                while let Ok(streams) = connection.accept_bi().await {
                    taken.push(streams);
                }
            });
        }
    });
    drop(entered);
    (runtime, address)
}

#[test]
fn a_peer_that_was_killed_and_started_anew_says_so() {
    run(async {
        let alice = endpoint(1, &[]);
        let (killed, address) =
            tokio::task::spawn_blocking(|| serve_apart(loopback())).await.unwrap();
        let bob = PeerAddress::new(id(2), address);
        let connection = alice.dial(&bob, DEADLINE).await.unwrap();
        killed.shutdown_background();
        let again = tokio::task::spawn_blocking(move || {
            loop {
                // the socket is free once the killed tasks are gone
                if std::net::UdpSocket::bind(address).is_ok() {
                    return serve_apart(address);
                }
            }
        });
        let (again, _) = again.await.unwrap();
        let asked = tokio::time::timeout(DEADLINE, ask(&connection, b"still there?")).await;
        again.shutdown_background();
        let error = asked.expect("it learns of it at once").unwrap_err();
        assert!(matches!(error, NetError::PeerRestarted(peer) if peer == id(2)), "{error}");
    });
}

/// What a refused dialler learns, from whichever call notices first.
async fn refusal(from: &Endpoint, to: &PeerAddress) -> NetError {
    match from.dial(to, DEADLINE).await {
        Err(error) => error,
        Ok(connection) => {
            let error = ask(&connection, b"let me in").await.unwrap_err();
            assert!(!connection.is_accepted());
            let waited = connection.accepted().await.unwrap_err();
            assert_eq!(error.to_string(), waited.to_string());
            error
        }
    }
}

#[test]
fn an_unknown_caller_is_refused_and_told_what_to_do() {
    run(async {
        let (mallory, bob) = (endpoint(3, &[]), endpoint(2, &[1]));
        let error = refusal(&mallory, &address(&bob)).await;
        assert!(matches!(error, NetError::Refused { peer, own } if peer == id(2) && own == id(3)));
        assert!(error.to_string().contains(&format!("add {}", id(3))), "{error}");
        assert_eq!(error.fault(), Fault::Network, "being unknown is nobody's misdeed");

        let (dialled, _) = connect(&endpoint(1, &[]), &bob).await;
        assert_eq!(dialled.peer(), id(2), "the next in the queue is served");
        until(|| bob.accept_stats().failed == 1).await;
        assert_eq!(bob.accept_stats().accepted, 1);
    });
}

#[test]
fn a_wrong_key_is_refused_by_the_dialler() {
    run(async {
        let (alice, bob) = (endpoint(1, &[]), endpoint(2, &[1]));
        let wrong = PeerAddress::new(id(9), bob.local_address());
        let error = alice.dial(&wrong, DEADLINE).await.unwrap_err();
        let NetError::WrongKey { address, expected, found } = error else { panic!("{error}") };
        assert_eq!((address, expected, found), (bob.local_address(), id(9), id(2)));
        assert_eq!(bob.accept_stats().accepted, 0);
    });
}

#[test]
fn a_node_does_not_talk_to_its_own_key() {
    run(async {
        let (one, twin) = (endpoint(1, &[1]), endpoint(1, &[1]));
        let error = one.dial(&address(&twin), DEADLINE).await.unwrap_err();
        assert!(matches!(error, NetError::OwnId(own) if own == id(1)), "{error}");
    });
}

#[test]
fn admission_is_asked_at_each_handshake() {
    run(async {
        let list = AllowList::default();
        let bob = endpoint_with(2, list.clone(), NetLimits::default());
        let alice = endpoint(1, &[]);
        assert!(matches!(refusal(&alice, &address(&bob)).await, NetError::Refused { .. }));
        list.allow(id(1));
        let (first, held) = connect(&alice, &bob).await;
        tokio::spawn(echo(held));
        list.revoke(&id(1));
        assert!(matches!(refusal(&alice, &address(&bob)).await, NetError::Refused { .. }));
        assert!(ask(&first, b"still here").await.unwrap().is_some());
    });
}

#[test]
fn admission_is_asked_only_about_owners() {
    run(async {
        let asked = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&asked);
        let bob = endpoint_with(
            2,
            move |_: &NodeId| count.fetch_add(1, Ordering::Relaxed) < u64::MAX,
            NetLimits::default(),
        );
        // Presents Alice's key, signs with another.
        let error = foreign::dial(&bob, foreign::Caller::Impostor).await.unwrap_err();
        assert!(error.to_string().contains("error 51"), "decrypt_error: {error}");
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        connect(&endpoint(1, &[]), &bob).await;
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn other_protocols_and_certificates_are_refused() {
    run(async {
        let bob = endpoint_with(2, |_: &NodeId| true, NetLimits::default());
        for (caller, alert) in [
            (foreign::Caller::OtherProtocol, "error 120"),
            (foreign::Caller::NoProtocol, "error 120"),
            (foreign::Caller::Certificate, "error 40"),
            (foreign::Caller::CertificateAsRawKey, "error 42"),
            (foreign::Caller::TwoKeys, "error 42"),
            (foreign::Caller::NoKey, "error"),
        ] {
            let error = foreign::dial(&bob, caller).await.unwrap_err().to_string();
            assert!(error.contains(alert), "{caller:?}: {error}");
        }
        foreign::dial(&bob, foreign::Caller::Honest).await.unwrap();
        until(|| bob.accept_stats().failed == 6).await;
        assert_eq!(bob.accept_stats().accepted, 1);
    });
}

#[test]
fn a_server_with_another_protocol_is_named() {
    run(async {
        let alice = endpoint(1, &[]);
        for caller in [foreign::Caller::OtherProtocol, foreign::Caller::Certificate] {
            let server = foreign::serve(caller);
            let peer = PeerAddress::new(id(5), server.local_addr().unwrap());
            let error = alice.dial(&peer, DEADLINE).await.unwrap_err();
            match caller {
                foreign::Caller::OtherProtocol => {
                    assert!(matches!(error, NetError::OtherProtocol(_)), "{error}");
                }
                _ => assert!(matches!(error, NetError::Handshake { .. }), "{error}"),
            }
        }
    });
}

#[test]
fn a_server_must_own_the_key_that_it_presents() {
    run(async {
        let server = foreign::serve(foreign::Caller::Impostor);
        let peer = PeerAddress::new(id(1), server.local_addr().unwrap());
        let error = endpoint(2, &[]).dial(&peer, DEADLINE).await.unwrap_err();
        assert!(matches!(error, NetError::Handshake { .. }), "{error}");
        assert!(error.to_string().contains("BadSignature"), "{error}");
    });
}

#[test]
fn silence_is_unreachable_and_nobodys_fault() {
    run(async {
        let silent = std::net::UdpSocket::bind(loopback()).unwrap();
        let peer = PeerAddress::new(id(2), silent.local_addr().unwrap());
        let error = endpoint(1, &[]).dial(&peer, Duration::from_millis(300)).await.unwrap_err();
        assert!(matches!(error, NetError::Unreachable { .. }), "{error}");
        assert_eq!(error.fault(), Fault::Network);
    });
}

#[test]
fn names_are_resolved_and_families_respected() {
    run(async {
        let (alice, bob) = (endpoint(1, &[]), endpoint(2, &[1]));
        let port = bob.local_address().port();
        let by_name = format!("{}@localhost:{port}", id(2)).parse().unwrap();
        let (dialled, accepted) = tokio::join!(alice.dial(&by_name, DEADLINE), bob.accept());
        assert_eq!((dialled.unwrap().peer(), accepted.unwrap().peer()), (id(2), id(1)));

        let other_family = format!("{}@[::1]:{port}", id(2)).parse().unwrap();
        let error = alice.dial(&other_family, DEADLINE).await.unwrap_err();
        assert!(matches!(error, NetError::AddressFamily { .. }), "{error}");
    });
}

#[test]
fn a_taken_address_is_named() {
    run(async {
        let alice = endpoint(1, &[]);
        let again = Endpoint::bind(
            identity(2),
            alice.local_address(),
            Arc::new(AllowList::default()),
            NetLimits::default(),
        );
        let error = again.unwrap_err();
        assert!(matches!(error, NetError::AddressInUse(at) if at == alice.local_address()));
    });
}

#[test]
fn without_a_runtime_there_is_an_error_and_no_panic() {
    let list = Arc::new(AllowList::default());
    let error = Endpoint::bind(identity(1), loopback(), list, NetLimits::default()).unwrap_err();
    assert!(matches!(error, NetError::NoRuntime));
}

#[test]
fn closing_tells_the_peer_why() {
    run(async {
        let (alice, bob) = (endpoint(1, &[]), endpoint(2, &[1]));
        let (dialled, accepted) = connect(&alice, &bob).await;
        dialled.close(CloseCode::Busy, &format!("in 5 s\u{1b}[2J {}", "é".repeat(400)));
        let error = accepted.closed().await;
        let NetError::ClosedByPeer { peer, code, reason } = &error else { panic!("{error}") };
        assert_eq!((*peer, *code), (id(1), CloseCode::Busy));
        assert!(reason.starts_with("in 5 s") && !reason.contains('\u{1b}'), "{reason}");
        assert!(reason.chars().count() <= 200);
        assert!(matches!(dialled.closed().await, NetError::ClosedHere));
        assert!(matches!(dialled.open_bi().await, Err(NetError::ClosedHere)));

        let (dialled, accepted) = connect(&alice, &bob).await;
        bob.close(CloseCode::ShuttingDown, "").await;
        let error = ask(&dialled, b"there?").await.unwrap_err();
        assert!(matches!(error, NetError::ClosedByPeer { code: CloseCode::ShuttingDown, .. }));
        assert!(matches!(accepted.close_reason(), Some(NetError::ClosedHere)));
        assert!(matches!(bob.accept().await, Err(NetError::ClosedHere)));
        assert!(matches!(bob.dial(&address(&alice), DEADLINE).await, Err(NetError::ClosedHere)));
    });
}

#[test]
fn a_dead_peer_is_noticed_after_the_idle_timeout() {
    let limits = NetLimits { idle_timeout: Duration::from_millis(700), ..NetLimits::default() };
    let doomed =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let bob = doomed.block_on(async { endpoint_with(2, |_: &NodeId| true, NetLimits::default()) });
    let served = bob.clone();
    let held = doomed.spawn(async move { served.accept().await.unwrap() });
    run(async move {
        let alice = endpoint_with(1, AllowList::default(), limits);
        let connection = alice.dial(&address(&bob), DEADLINE).await.unwrap();
        let accepted = held.await.unwrap();
        // Its tasks are gone at once, so that nothing is left to say goodbye.
        doomed.shutdown_background();
        let error = connection.closed().await;
        assert!(matches!(error, NetError::IdleTimeout(peer) if peer == id(2)), "{error}");
        assert_eq!(error.fault(), Fault::Network);
        drop((accepted, bob));
    });
}

#[test]
fn keep_alive_holds_an_idle_connection() {
    run(async {
        let limits = NetLimits {
            idle_timeout: Duration::from_millis(600),
            keep_alive: Some(Duration::from_millis(100)),
            ..NetLimits::default()
        };
        let bob = endpoint(2, &[1]);
        let alice = endpoint_with(1, AllowList::default(), limits);
        let (dialled, accepted) = connect(&alice, &bob).await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(dialled.close_reason().is_none() && accepted.close_reason().is_none());
    });
}

#[test]
fn a_stream_given_up_is_never_taken_for_whole() {
    run(async {
        let (alice, bob) = (endpoint(1, &[]), endpoint(2, &[1]));
        let (dialled, accepted) = connect(&alice, &bob).await;

        let mut dropped = FrameWriter::new(dialled.open_uni().await.unwrap(), MAX_FRAME);
        dropped.write_frame(b"half of the story").await.unwrap();
        let mut reader = FrameReader::new(accepted.accept_uni().await.unwrap(), MAX_FRAME);
        reader.next_frame().await.unwrap().unwrap();
        drop(dropped);
        let error = NetError::from(reader.next_frame().await.unwrap_err());
        assert!(matches!(error, NetError::StreamReset(StreamCode::Abandoned)), "{error}");

        let mut unwanted = dialled.open_uni().await.unwrap();
        unwanted.write_all(b"x").await.unwrap();
        accepted.accept_uni().await.unwrap().stop(StreamCode::Unneeded);
        let error = unwanted.delivered().await.unwrap_err();
        assert!(matches!(error, NetError::StreamStopped(StreamCode::Unneeded)), "{error}");
        let error = NetError::from(unwanted.write_all(b"y").await.unwrap_err());
        assert!(matches!(error, NetError::StreamStopped(StreamCode::Unneeded)), "{error}");
        assert!(dialled.close_reason().is_none(), "the connection goes on");
    });
}

#[test]
fn streams_wait_at_the_peers_limit() {
    run(async {
        let limits = NetLimits { max_unidirectional_streams: 2, ..NetLimits::default() };
        let bob = endpoint_with(2, |_: &NodeId| true, limits);
        let (dialled, accepted) = connect(&endpoint(1, &[]), &bob).await;
        let mut open = Vec::new();
        for _ in 0..2 {
            let mut stream = dialled.open_uni().await.unwrap();
            stream.write_all(b"x").await.unwrap();
            open.push(stream);
        }
        let third = dialled.open_uni();
        tokio::pin!(third);
        assert!(tokio::time::timeout(Duration::from_millis(200), &mut third).await.is_err());
        open.pop().unwrap().finish().unwrap();
        for _ in 0..2 {
            let mut stream = accepted.accept_uni().await.unwrap();
            let _ = tokio::time::timeout(Duration::from_millis(200), stream.read_u16()).await;
        }
        third.await.unwrap();
    });
}

#[test]
fn exporters_agree_and_differ_between_connections() {
    run(async {
        let (alice, bob) = (endpoint(1, &[]), endpoint(2, &[1]));
        let (dialled, accepted) = connect(&alice, &bob).await;
        let salt = dialled.exporter("selfsame salt", b"").unwrap();
        assert_eq!(salt, accepted.exporter("selfsame salt", b"").unwrap());
        assert_ne!(salt, dialled.exporter("selfsame filter", b"").unwrap());
        let (other, _held) = connect(&alice, &bob).await;
        assert_ne!(salt, other.exporter("selfsame salt", b"").unwrap());
    });
}

#[test]
fn a_flood_must_prove_its_address_and_the_honest_are_served() {
    run(async {
        let limits = NetLimits { retry_above: 2, ..NetLimits::default() };
        let bob = endpoint_with(2, |_: &NodeId| true, limits);
        let _flood = foreign::half_open(bob.local_address(), 40).await;
        until(|| bob.accept_stats().retried == 38).await;
        assert_eq!(bob.open_connections(), 2, "who proves nothing costs nothing");
        let (dialled, accepted) = connect(&endpoint(1, &[]), &bob).await;
        tokio::spawn(echo(accepted));
        assert!(ask(&dialled, b"served").await.unwrap().is_some());
        assert_eq!(bob.accept_stats().retried, 39);
    });
}

#[test]
fn half_open_handshakes_are_few_for_each_address_and_end() {
    run(async {
        let limits = NetLimits {
            max_pending_per_address: 8,
            handshake_timeout: Duration::from_secs(1),
            ..NetLimits::default()
        };
        let bob = endpoint_with(2, |_: &NodeId| true, limits);
        let alice = endpoint(1, &[]);
        let _flood = foreign::half_open(bob.local_address(), 40).await;
        until(|| bob.accept_stats().turned_away == 32).await;
        assert_eq!(bob.open_connections(), 8);
        let error = alice.dial(&address(&bob), DEADLINE).await.unwrap_err();
        assert!(matches!(error, NetError::Busy(_)), "{error}");
        until(|| bob.accept_stats().failed == 8).await;
        connect(&alice, &bob).await;
    });
}

#[test]
fn callers_beyond_the_limit_are_told_to_come_later() {
    run(async {
        let limits = NetLimits { max_connections: 1, ..NetLimits::default() };
        let bob = endpoint_with(2, |_: &NodeId| true, limits);
        let alice = endpoint(1, &[]);
        let (_dialled, _accepted) = connect(&alice, &bob).await;
        let error = alice.dial(&address(&bob), DEADLINE).await.unwrap_err();
        assert!(matches!(error, NetError::Busy(_)), "{error}");
        assert_eq!(bob.accept_stats().turned_away, 1);
    });
}

#[test]
fn connections_that_nobody_takes_are_closed_as_busy() {
    run(async {
        let limits =
            NetLimits { handshake_timeout: Duration::from_millis(500), ..NetLimits::default() };
        let bob = endpoint_with(2, |_: &NodeId| true, limits);
        let alice = endpoint(1, &[]);
        let mut queued = Vec::new();
        for _ in 0..64 {
            queued.push(alice.dial(&address(&bob), DEADLINE).await.unwrap());
        }
        until(|| bob.accept_stats().accepted == 64).await;
        let beyond = alice.dial(&address(&bob), DEADLINE).await.unwrap();
        let error = beyond.closed().await;
        assert!(matches!(error, NetError::ClosedByPeer { code: CloseCode::Busy, .. }), "{error}");
        // held: dropped, it would be closed
        let first = bob.accept().await.unwrap();
        assert_eq!(first.peer(), id(1), "those before it wait on");
        assert!(queued[0].close_reason().is_none());
    });
}

#[test]
fn many_bytes_arrive_whole() {
    const PIECE: usize = 1 << 20;
    const PIECES: usize = 64;
    run(async {
        let (alice, bob) = (endpoint(1, &[]), endpoint(2, &[1]));
        let (dialled, accepted) = connect(&alice, &bob).await;
        let sender = tokio::spawn(async move {
            let mut writer = FrameWriter::new(dialled.open_uni().await.unwrap(), PIECE);
            let mut piece = vec![0; PIECE];
            for number in 0..PIECES {
                piece[..8].copy_from_slice(&number.to_le_bytes());
                piece[PIECE - 8..].copy_from_slice(&number.to_le_bytes());
                writer.write_frame(&piece).await.unwrap();
            }
            let sent = writer.bytes_written();
            writer.finish().await.unwrap().delivered().await.unwrap();
            (dialled, sent)
        });
        let mut reader = FrameReader::new(accepted.accept_uni().await.unwrap(), PIECE);
        for number in 0..PIECES {
            let piece = reader.next_frame().await.unwrap().unwrap();
            assert_eq!(piece.len(), PIECE);
            assert_eq!(piece[..8], number.to_le_bytes());
            assert_eq!(piece[PIECE - 8..], number.to_le_bytes());
        }
        assert_eq!(reader.next_frame().await.unwrap(), None);
        let (dialled, sent) = sender.await.unwrap();
        assert_eq!(sent, reader.bytes_read());
        assert!(dialled.traffic().bytes_sent > sent);
    });
}

#[test]
fn a_handshake_and_an_exchange_stay_small() {
    run(async {
        let (alice, bob) = (endpoint(1, &[]), endpoint(2, &[1]));
        let (dialled, accepted) = connect(&alice, &bob).await;
        tokio::spawn(echo(accepted.clone()));
        let settle = || async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let traffic = dialled.traffic();
            (traffic.bytes_sent + traffic.bytes_received, traffic)
        };
        let (cold, detail) = settle().await;
        println!("cold handshake: {cold} bytes, {detail:?}");
        assert!(cold < 8_000, "{detail:?}");
        let mut streams = framed(dialled.open_bi().await.unwrap());
        let mut before = cold;
        for round in 0..4 {
            streams.0.write_frame(&[0; 47]).await.unwrap();
            streams.1.next_frame().await.unwrap().unwrap();
            let (now, detail) = settle().await;
            println!("round {round}: {} bytes, {detail:?}", now - before);
            assert!(now - before < 500, "{detail:?}");
            before = now;
        }
    });
}
