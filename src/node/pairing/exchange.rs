//! The exchange: one frame each way on a connection that is for nothing else.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use tokio::task::block_in_place;
use tokio::time::timeout;

use super::{Invitation, Invites, PairingError};
use crate::net::{
    CloseCode, Connection, DialOptions, Endpoint, FrameReader, FrameWriter, NetError, PeerAddress,
    RecvStream, SendStream, check_node_id, verify_signature,
};
use crate::node::access::Access;
use crate::node::peers::{Edited, Grants, PeerEntry, PeerFiles, PeerName, PeersError};
use crate::session::message::Bytes;
use crate::session::wire;
use crate::types::NodeId;

/// Longest frame of either end.
const MAX_FRAME_BYTES: usize = 8 << 10;
/// Most addresses that a joiner may name.
const MAX_ADDRESSES: usize = 16;
/// How long the inviter waits for the request, and for the answer to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// The joiner's request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Request {
    /// Public half of the key that the invitation's secret makes.
    key: [u8; 32],
    /// Signature by that key over [`statement`].
    signature: Bytes,
    /// Where the joiner listens; may be empty.
    addresses: Vec<String>,
}

/// The inviter's answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Reply {
    /// The joiner is in the inviter's book; with the code that only the inviter can compute.
    Welcome([u8; 32]),
    /// Not with this invitation, whatever is wrong with it.
    Refused,
    /// The invitation is burnt, and the inviter could not write its book.
    NotNoted,
}

/// What both ends prove to each other: made for this connection and these two nodes, so that it
/// is worth nothing anywhere else.
fn statement(
    label: &str,
    connection: &Connection,
    inviter: &NodeId,
    joiner: &NodeId,
) -> Result<Vec<u8>, NetError> {
    let channel = connection.exporter("selfsame v1 pair", b"")?;
    Ok([label.as_bytes(), &channel, &inviter.0, &joiner.0].concat())
}

const REQUEST: &str = "selfsame v1 pair request";
const ANSWER: &str = "selfsame v1 pair answer";

/// A node that was paired with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Paired {
    /// As it is in the book now.
    pub peer: PeerEntry,
    /// Whether it was there before.
    pub edited: Edited,
}

/// Answers a node that came to pair: if it proves to have an open invitation, that invitation is
/// burnt, then the node is noted in the book with the grants of the invitation, then it is told.
///
/// # Errors
/// Why it was not paired with; it was told only that it was not.
pub async fn receive(
    access: &Access,
    own: NodeId,
    connection: Connection,
    now_unix_s: u64,
) -> Result<Paired, PairingError> {
    let (send, request) =
        timeout(PATIENCE, read_request(&connection)).await.map_err(|_| PairingError::Slow)??;
    let judged = judge(access, own, &connection, &request, now_unix_s);
    let reply = match &judged {
        Ok((_, code)) => Reply::Welcome(*code),
        Err(PairingError::NotNoted) => Reply::NotNoted,
        Err(_) => Reply::Refused,
    };
    // whether it hears of it or not changes nothing here
    let _ = timeout(PATIENCE, say(send, &reply)).await;
    judged.map(|(paired, _)| paired)
}

async fn read_request(connection: &Connection) -> Result<(SendStream, Request), PairingError> {
    let (send, receive) = connection.accept_bi().await?;
    Ok((send, listen(receive).await?))
}

fn judge(
    access: &Access,
    own: NodeId,
    connection: &Connection,
    request: &Request,
    now_unix_s: u64,
) -> Result<(Paired, [u8; 32]), PairingError> {
    let joiner = connection.peer();
    let files = access.files().ok_or(PairingError::Refused)?;
    let proved = statement(REQUEST, connection, &own, &joiner)?;
    let signature = <&[u8; 64]>::try_from(request.signature.0.as_slice());
    let signed = check_node_id(request.key).ok().zip(signature.ok());
    let signed = signed.is_some_and(|(key, sign)| verify_signature(&key, &proved, sign));
    if !signed || request.addresses.len() > MAX_ADDRESSES {
        return Err(PairingError::Refused);
    }
    let addresses = request.addresses.iter().map(|place| place.parse().ok());
    let addresses = addresses.collect::<Option<Vec<_>>>().ok_or(PairingError::Refused)?;
    let burnt = block_in_place(|| Invites::new(files).burn(&request.key, now_unix_s));
    let invite = burnt?.ok_or(PairingError::Refused)?;
    let code = answer_code(invite.answer_key(), connection, &own, &joiner)?;
    let peer = PeerEntry {
        id: joiner,
        name: invite.name.clone(),
        addresses,
        grants: invite.grants.clone(),
    };
    let noted = block_in_place(|| note(files, peer));
    let paired = noted.map_err(|error| {
        tracing::error!(%error, "a node proved an invitation, and could not be noted");
        PairingError::NotNoted
    })?;
    if let Err(error) = access.reload() {
        tracing::error!(%error, "the peer book cannot be read");
    }
    Ok((paired, code))
}

fn note(files: &PeerFiles, peer: PeerEntry) -> Result<Paired, PeersError> {
    let id = peer.id;
    files.edit(|edit| {
        let edited = edit.admit(peer)?;
        let peer = edit.book().entry(&id).cloned();
        let peer = peer.ok_or_else(|| PeersError::Unknown(id.to_string()))?;
        Ok(Paired { peer, edited })
    })
}

fn answer_code(
    key: &[u8; 32],
    connection: &Connection,
    inviter: &NodeId,
    joiner: &NodeId,
) -> Result<[u8; 32], NetError> {
    let statement = statement(ANSWER, connection, inviter, joiner)?;
    Ok(*blake3::keyed_hash(key, &statement).as_bytes())
}

/// How the joiner wants to know the inviter.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Terms {
    /// How the inviter is called here.
    pub name: Option<PeerName>,
    /// Where this node listens, told to the inviter.
    pub addresses: Vec<crate::net::HostPort>,
    /// What the inviter may do here.
    pub grants: Grants,
}

/// What came of an invitation at the joiner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Joined {
    /// The inviter as it is in the book now.
    pub peer: PeerEntry,
    /// Whether it was there before.
    pub edited: Edited,
    /// Where it was reached.
    pub reached: PeerAddress,
}

/// Uses an invitation: dials who made it, proves to have it, and once the answer proves that it
/// was the inviter who took it, notes the inviter in the book.
///
/// # Errors
/// It was not accepted, or it is not known whether it was: then it is not noted, and may do
/// nothing here.
pub async fn join(
    files: &PeerFiles,
    endpoint: &Endpoint,
    invitation: &Invitation,
    terms: Terms,
    options: impl Into<DialOptions>,
) -> Result<Joined, PairingError> {
    let inviter = invitation.inviter();
    if inviter == endpoint.node_id() {
        return Err(PeersError::OwnId(inviter).into());
    }
    // what cannot be noted afterwards is better known before the invitation is used
    check(&files.book()?, inviter, terms.name.as_ref())?;
    let (connection, reached) = dial(endpoint, invitation, options.into()).await?;
    let proved = ask(endpoint, &connection, invitation, &terms).await;
    connection.close(CloseCode::Done, "");
    proved?;
    let mut addresses = invitation.addresses().to_vec();
    // the one that works goes first
    addresses.sort_by_key(|place| place != reached.place());
    let peer = PeerEntry { id: inviter, name: terms.name, addresses, grants: terms.grants };
    let Paired { peer, edited } = block_in_place(|| note(files, peer))?;
    Ok(Joined { peer, edited, reached })
}

fn check(
    book: &crate::node::peers::PeerBook,
    inviter: NodeId,
    name: Option<&PeerName>,
) -> Result<(), PeersError> {
    match name.and_then(|name| book.named(name).map(|owner| (name, owner.id))) {
        Some((name, owner)) if owner != inviter => {
            Err(PeersError::NameTaken { name: name.clone(), owner })
        }
        _ => Ok(()),
    }
}

async fn dial(
    endpoint: &Endpoint,
    invitation: &Invitation,
    options: DialOptions,
) -> Result<(Connection, PeerAddress), PairingError> {
    let mut failure = PairingError::NoAddress;
    for place in invitation.addresses() {
        let peer = PeerAddress::new(invitation.inviter(), place.clone());
        match endpoint.dial_pairing(&peer, options.clone()).await {
            Ok(connection) => return Ok((connection, peer)),
            Err(error) => failure = refused(error),
        }
    }
    Err(failure)
}

async fn ask(
    endpoint: &Endpoint,
    connection: &Connection,
    invitation: &Invitation,
    terms: &Terms,
) -> Result<(), PairingError> {
    let (inviter, own) = (invitation.inviter(), endpoint.node_id());
    let key = invitation.secret().key();
    let proved = statement(REQUEST, connection, &inviter, &own)?;
    let request = Request {
        key: key.node_id().0,
        signature: Bytes(key.sign(&proved).to_bytes().to_vec()),
        addresses: terms.addresses.iter().map(ToString::to_string).collect(),
    };
    let (send, receive) = connection.open_bi().await.map_err(refused)?;
    let exchange = async {
        say(send, &request).await?;
        listen::<Reply>(receive).await
    };
    let reply = match timeout(PATIENCE, exchange).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(PairingError::Net(error))) => return Err(lost(error)),
        Ok(Err(other)) => return Err(PairingError::Lost(other.to_string())),
        Err(_) => return Err(PairingError::Lost("no answer in time".into())),
    };
    match reply {
        Reply::Welcome(code) => {
            let answer_key = invitation.secret().answer_key();
            let expected = answer_code(&answer_key, connection, &inviter, &own)?;
            if bool::from(expected.ct_eq(&code)) { Ok(()) } else { Err(PairingError::Unproved) }
        }
        Reply::Refused => Err(PairingError::Refused),
        Reply::NotNoted => Err(PairingError::NotNoted),
    }
}

/// Who does not pair just now refuses the handshake, which shows when something is waited for.
fn refused(error: NetError) -> PairingError {
    match error {
        NetError::Refused { .. } | NetError::OtherProtocol(_) => PairingError::Refused,
        NetError::ClosedByPeer { code: CloseCode::Busy, .. } => PairingError::Busy,
        other => PairingError::Net(other),
    }
}

fn lost(error: NetError) -> PairingError {
    match refused(error) {
        PairingError::Net(error) => PairingError::Lost(error.to_string()),
        known => known,
    }
}

/// One frame, and the end of the stream.
async fn say<T: Serialize>(send: SendStream, message: &T) -> Result<(), PairingError> {
    let frame =
        wire::encode(message).map_err(|error| PairingError::NoRequest(error.to_string()))?;
    let mut writer = FrameWriter::new(send, MAX_FRAME_BYTES);
    writer.write_frame(&frame).await?;
    // whoever waits for the answer, or for the end of the connection, knows that it arrived
    writer.finish().await?;
    Ok(())
}

async fn listen<T: serde::de::DeserializeOwned>(receive: RecvStream) -> Result<T, PairingError> {
    let mut reader = FrameReader::new(receive, MAX_FRAME_BYTES);
    let frame = reader.next_frame().await?;
    let frame = frame.ok_or_else(|| PairingError::NoRequest("it said nothing".into()))?;
    wire::decode(&frame).map_err(|error| PairingError::NoRequest(error.to_string()))
}
