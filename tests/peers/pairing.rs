//! Invitations: used once, by one, for a time; and what happens if one of the two dies.

use std::sync::Arc;
use std::time::Duration;

use selfsame::net::{
    Admission as _, Endpoint, FrameReader, FrameWriter, Identity, Link, NetError, NetLimits,
};
use selfsame::node::pairing::{
    Invitation, Invites, Joined, OpenInvite, PairingError, Secret, Terms, join,
};
use selfsame::node::peers::{Edited, Grant, Grants, PeerEntry, PeerFiles};
use selfsame::node::server::Event;
use selfsame::node::{Node, Unwatched};
use selfsame::session::{Mode, Outcome};
use selfsame::types::{CollectionName, NodeId};
use tokio::time::timeout;

use super::net::{LIMIT, Peer, Store, until};

fn now_s() -> u64 {
    Node::<Store>::now_ms() / 1_000
}

/// An invitation of a node, open for a minute.
fn invite(peer: &Peer, grants: &str) -> Invitation {
    let secret = Secret::generate().unwrap();
    let place = vec![peer.endpoint.local_address().into()];
    let invitation = Invitation::new(peer.id(), place, secret, now_s() + 60).unwrap();
    open(peer, &invitation, grants);
    invitation
}

fn open(peer: &Peer, invitation: &Invitation, grants: &str) {
    let grants = grants.split_whitespace().map(|rule| rule.parse().unwrap()).collect();
    let open = OpenInvite::new(invitation, now_s(), Some("joiner".parse().unwrap()), grants);
    Invites::new(&peer.files).add(open, now_s()).unwrap();
}

fn terms(grants: &str) -> Terms {
    let grants = grants.split_whitespace().map(|rule| rule.parse().unwrap()).collect();
    let addresses = vec!["node-b.example:7447".parse().unwrap()];
    Terms { name: Some("inviter".parse().unwrap()), addresses, grants }
}

async fn join_as(peer: &Peer, invitation: &Invitation) -> Result<Joined, PairingError> {
    let joining =
        join(&peer.files, &peer.endpoint, invitation, terms("*=write"), Duration::from_secs(5));
    let joined = timeout(LIMIT, joining).await.unwrap();
    peer.node.access.reload().unwrap();
    joined
}

fn knows(peer: &Peer, other: NodeId) -> bool {
    peer.files.book().unwrap().entry(&other).is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invitation_makes_two_strangers_peers_with_what_was_granted() {
    let (a, b) = (Peer::new(), Peer::new());
    a.fill("c", "a", 3);
    b.fill("c", "b", 2);
    let invitation = invite(&a, "c=write");
    let text = invitation.reveal();
    let joined = join_as(&b, &text.parse().unwrap()).await.unwrap();
    assert_eq!((joined.edited, joined.peer.id), (Edited::Added, a.id()));
    assert_eq!(joined.peer.grants, Grants::all(Grant::Write));
    let noted = a.files.book().unwrap();
    let noted = noted.find("joiner").unwrap();
    assert_eq!((noted.id, noted.grants.to_string()), (b.id(), "*=none, c=write".into()));
    assert_eq!(noted.addresses[0].to_string(), "node-b.example:7447");
    // at once, without any restart
    let link = b.connect(&a).await.unwrap();
    let outcome = b.sync(&link, "c", Mode::Both, &Unwatched).await.unwrap();
    assert!(matches!(outcome, Outcome::Complete { .. }), "{outcome:?}");
    let other = CollectionName::new("d").unwrap();
    assert_eq!(a.node.access.grant(&b.id(), &other), Grant::None);
    assert!(!a.files.invites_path().exists());
    until(|| a.events.lock().unwrap().iter().any(|e| matches!(e, Event::Paired { .. }))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn used_wrong_and_expired_get_the_same_answer() {
    let (a, b, c) = (Peer::new(), Peer::new(), Peer::new());
    let _kept = invite(&a, "*=write");
    let used = invite(&a, "*=write");
    join_as(&b, &used).await.unwrap();
    let place = vec![a.endpoint.local_address().into()];
    let made = |secret, expires| Invitation::new(a.id(), place.clone(), secret, expires).unwrap();
    let wrong = made(Secret::generate().unwrap(), now_s() + 60);
    let expired = made(Secret::generate().unwrap(), now_s() + 1);
    open(&a, &expired, "*=write");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let mut said = Vec::new();
    for invitation in [used, wrong, expired] {
        let error = join_as(&c, &invitation).await.unwrap_err();
        assert!(matches!(error, PairingError::Refused), "{error}");
        said.push(error.to_string());
    }
    said.dedup();
    assert_eq!(said.len(), 1);
    assert!(said[0].contains("ask for a new one"));
    assert!(!knows(&a, c.id()) && !knows(&c, a.id()));
    assert_eq!(Invites::new(&a.files).open(now_s()).unwrap().len(), 1, "the other stays open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_who_come_at_once_with_one_invitation_are_one_pair() {
    let (a, b, c) = (Peer::new(), Peer::new(), Peer::new());
    let invitation = invite(&a, "*=write");
    let _kept = invite(&a, "*=write");
    let (first, second) = tokio::join!(join_as(&b, &invitation), join_as(&c, &invitation));
    assert_eq!(u8::from(first.is_ok()) + u8::from(second.is_ok()), 1);
    assert_eq!((knows(&a, b.id()), knows(&a, c.id())), (first.is_ok(), second.is_ok()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_guesses_is_turned_away_unheard_after_a_few_tries() {
    let (a, b) = (Peer::new(), Peer::new());
    let good = invite(&a, "*=write");
    let place = vec![a.endpoint.local_address().into()];
    for _ in 0..5 {
        let secret = Secret::generate().unwrap();
        let wrong = Invitation::new(a.id(), place.clone(), secret, now_s() + 60).unwrap();
        assert!(matches!(join_as(&b, &wrong).await, Err(PairingError::Refused)));
    }
    // and so is even the right one
    let error = join_as(&b, &good).await.unwrap_err();
    assert!(matches!(error, PairingError::Busy), "{error}");
    assert_eq!(Invites::new(&a.files).open(now_s()).unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_invitation_opens_nothing_else() {
    let (a, b) = (Peer::new(), Peer::new());
    let closed = b.endpoint.dial_pairing(&a.address(), LIMIT).await.unwrap();
    let error = closed.closed().await;
    assert!(matches!(error, NetError::Refused { .. }), "no invitation is open: {error}");
    let _invitation = invite(&a, "*=write");
    assert!(a.node.access.pairs() && !b.node.access.pairs());
    // the ordinary protocol still refuses strangers in the handshake
    let error = b.connect(&a).await.unwrap_err();
    assert!(error.to_string().contains("refused this node"), "{error}");
    // and that of pairing knows no greeting, session or query
    let connection = b.endpoint.dial_pairing(&a.address(), LIMIT).await.unwrap();
    let greeting = b.node.greeting_for(&a.id(), false);
    let greeted = Link::greet(connection, &greeting, Duration::from_secs(3)).await;
    assert!(greeted.is_err());
    assert!(!knows(&a, b.id()));
    until(|| a.events.lock().unwrap().iter().any(|e| matches!(e, Event::NotPaired { .. }))).await;
}

/// What the inviter does first with a request: it begins with the key of its invitation.
fn burn(peer: &Peer, request: &[u8]) -> OpenInvite {
    let key = request[..32].try_into().unwrap();
    Invites::new(&peer.files).burn(&key, now_s()).unwrap().unwrap()
}

/// Somebody with the inviter's identity, who answers as the test wants.
struct Impersonator {
    endpoint: Endpoint,
}

impl Impersonator {
    fn new(identity: &Arc<Identity>) -> Self {
        struct Anybody;
        impl selfsame::net::Admission for Anybody {
            fn admits(&self, _: &NodeId) -> bool {
                false
            }
            fn pairs(&self) -> bool {
                true
            }
        }
        let any_port = "127.0.0.1:0".parse().unwrap();
        let limits = NetLimits::default();
        let anybody = Arc::new(Anybody);
        let endpoint = Endpoint::bind(Arc::clone(identity), any_port, anybody, limits).unwrap();
        Self { endpoint }
    }

    fn invitation(&self, secret: Secret) -> Invitation {
        let place = vec![self.endpoint.local_address().into()];
        Invitation::new(self.endpoint.node_id(), place, secret, now_s() + 60).unwrap()
    }

    /// The next request, and the answer to it if there is one; then the connection ends.
    async fn answer(&self, answer: Option<&[u8]>) -> Vec<u8> {
        let connection = self.endpoint.accept_pairing().await.unwrap();
        let (send, receive) = connection.accept_bi().await.unwrap();
        let request = FrameReader::new(receive, 1 << 16).next_frame().await.unwrap().unwrap();
        if let Some(answer) = answer {
            let mut writer = FrameWriter::new(send, 1 << 16);
            writer.write_frame(answer).await.unwrap();
            writer.finish().await.unwrap().delivered().await.unwrap();
            connection.closed().await;
        }
        request
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inviter_that_dies_after_burning_leaves_nobody_granted_anything() {
    let (a, b) = (Peer::new(), Peer::new());
    let dying = Impersonator::new(&a.node.identity);
    let invitation = dying.invitation(Secret::generate().unwrap());
    open(&a, &invitation, "*=write");
    let (joined, ()) = tokio::join!(join_as(&b, &invitation), async {
        let request = dying.answer(None).await;
        burn(&a, &request);
    });
    let error = joined.unwrap_err();
    assert!(matches!(error, PairingError::Lost(_)), "{error}");
    assert!(error.to_string().contains("ask for a new invitation"), "{error}");
    assert!(!knows(&a, b.id()) && !knows(&b, a.id()));
    let place = vec![a.endpoint.local_address().into()];
    let secret = invitation.secret().clone();
    let again = Invitation::new(a.id(), place, secret, now_s() + 60).unwrap();
    assert!(matches!(join_as(&b, &again).await, Err(PairingError::Refused)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inviter_that_dies_before_it_answers_is_granted_nothing() {
    let (a, b) = (Peer::new(), Peer::new());
    b.fill("c", "b", 3);
    a.collection("c");
    let dying = Impersonator::new(&a.node.identity);
    let invitation = dying.invitation(Secret::generate().unwrap());
    open(&a, &invitation, "*=write");
    let (joined, ()) = tokio::join!(join_as(&b, &invitation), async {
        let request = dying.answer(None).await;
        let open = burn(&a, &request);
        let (name, grants) = (open.name, open.grants);
        let entry = PeerEntry { id: b.id(), name, addresses: Vec::new(), grants };
        a.files.edit(|edit| edit.admit(entry)).unwrap();
    });
    assert!(matches!(joined, Err(PairingError::Lost(_))));
    // half a pair: the one that asked is known, the one that did not answer is not
    a.node.access.reload().unwrap();
    assert!(knows(&a, b.id()) && !knows(&b, a.id()));
    let error = a.connect(&b).await.unwrap_err();
    assert!(error.to_string().contains("refused this node"), "{error}");
    // whole again by a new invitation
    join_as(&b, &invite(&a, "*=write")).await.unwrap();
    let link = a.connect(&b).await.unwrap();
    let outcome = a.sync(&link, "c", Mode::Both, &Unwatched).await.unwrap();
    assert!(matches!(outcome, Outcome::Complete { .. }), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_the_secret_proves_nothing() {
    let (a, b) = (Peer::new(), Peer::new());
    // it has the inviter's key, and yet did not make the invitation
    let false_inviter = Impersonator::new(&a.node.identity);
    let invitation = false_inviter.invitation(Secret::generate().unwrap());
    let welcome = [&[0][..], &[7; 32]].concat();
    let (joined, _) = tokio::join!(join_as(&b, &invitation), false_inviter.answer(Some(&welcome)));
    let error = joined.unwrap_err();
    assert!(matches!(error, PairingError::Unproved), "{error}");
    assert!(!knows(&b, a.id()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_worth_nothing_on_another_connection() {
    let (a, b, thief) = (Peer::new(), Peer::new(), Peer::new());
    let overhearing = Impersonator::new(&a.node.identity);
    let secret = Secret::generate().unwrap();
    let place = vec![a.endpoint.local_address().into()];
    let real = Invitation::new(a.id(), place, secret.clone(), now_s() + 60).unwrap();
    open(&a, &real, "*=write");
    let overheard = overhearing.invitation(secret);
    let (joined, request) = tokio::join!(join_as(&b, &overheard), overhearing.answer(None));
    assert!(joined.is_err());
    for replaying in [&thief, &b] {
        let connection = replaying.endpoint.dial_pairing(&a.address(), LIMIT).await.unwrap();
        let (send, receive) = connection.open_bi().await.unwrap();
        let mut writer = FrameWriter::new(send, 1 << 16);
        writer.write_frame(&request).await.unwrap();
        let _open = writer.finish().await.unwrap();
        let reply = FrameReader::new(receive, 1 << 16).next_frame().await.unwrap().unwrap();
        assert_eq!(reply, [1], "refused");
        connection.close(selfsame::net::CloseCode::Done, "");
    }
    assert!(!knows(&a, b.id()) && !knows(&a, thief.id()));
    join_as(&b, &real).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_request_are_refused_and_burn_nothing() {
    let (a, b) = (Peer::new(), Peer::new());
    let invitation = invite(&a, "*=write");
    for frame in [vec![], vec![0; 40], vec![0xff; 200], vec![7; 8 << 10]] {
        let connection = b.endpoint.dial_pairing(&a.address(), LIMIT).await.unwrap();
        let (send, receive) = connection.open_bi().await.unwrap();
        let mut writer = FrameWriter::new(send, 1 << 16);
        writer.write_frame(&frame).await.unwrap();
        let _open = writer.finish().await;
        let reply = FrameReader::new(receive, 1 << 16).next_frame().await;
        assert!(!matches!(reply, Ok(Some(reply)) if reply.first() == Some(&0)), "welcome");
        connection.close(selfsame::net::CloseCode::Done, "");
    }
    join_as(&b, &invitation).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invitation_leads_only_to_the_node_that_it_names() {
    let (a, b, other) = (Peer::new(), Peer::new(), Peer::new());
    let _open = invite(&other, "*=write");
    let place = vec![other.endpoint.local_address().into()];
    let secret = Secret::generate().unwrap();
    let astray = Invitation::new(a.id(), place, secret, now_s() + 60).unwrap();
    let error = join_as(&b, &astray).await.unwrap_err();
    assert!(matches!(error, PairingError::Net(NetError::WrongKey { .. })), "{error}");
    let own = invite(&b, "*=write");
    let error = join_as(&b, &own).await.unwrap_err();
    assert!(error.to_string().contains("own id"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_can_be_paired_anew_with_other_grants() {
    let (a, b) = (Peer::new(), Peer::new());
    join_as(&b, &invite(&a, "*=read")).await.unwrap();
    let again = join_as(&b, &invite(&a, "c=write")).await.unwrap();
    assert_eq!(again.edited, Edited::Changed);
    let book = a.files.book().unwrap();
    assert_eq!(book.peers.len(), 1);
    assert_eq!(book.find("joiner").unwrap().grants.to_string(), "*=none, c=write");
    assert_eq!(b.files.book().unwrap().peers.len(), 1);
}

#[test]
fn edits_at_the_same_time_are_all_kept() {
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let files = PeerFiles::new(folder.path());
            scope.spawn(move || {
                for at in 0..6 {
                    let id = Identity::from_secret(&[thread * 6 + at + 1; 32]).node_id();
                    let grants = Grants::all(Grant::Read);
                    let entry = PeerEntry { id, name: None, addresses: Vec::new(), grants };
                    files.edit(|edit| edit.add(entry)).unwrap();
                }
            });
        }
    });
    assert_eq!(PeerFiles::new(folder.path()).book().unwrap().peers.len(), 24);
}
