//! The certificates that a node has kept.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;

use super::Host;
use super::body::{answer, blocking, json};
use super::error::ApiError;
use super::router::{Asked, Named};
use super::types::{
    Accepted, AgreementText, CertificateAnswer, CertificateList, CertificateQuery, CertificateText,
    DistrustText, EvidenceList, EvidenceText, PeerRequest, SeenLogText,
};
use crate::merkle::{CertificateBundle, HeadStatement};
use crate::net::parse_node_id;
use crate::node::Node;
use crate::node::choice::PeerChoice;
use crate::replica::{Collection, KeptCertificate};
use crate::store::EmbeddedStore;
use crate::types::NodeId;

/// Certificates in one answer, and at most.
const LISTED: u64 = 100;
const MOST_LISTED: u64 = 1_000;

type Kept = Collection<EmbeddedStore>;

/// The node that is meant: one of the book, or any by its whole id.
pub(super) fn meant(host: &Host, choice: &PeerChoice) -> Result<NodeId, ApiError> {
    match choice {
        PeerChoice::At(address) => Ok(address.id()),
        PeerChoice::Known(text) => {
            let book = host.node().access.book();
            match (book.find(text), parse_node_id(text)) {
                (Ok(entry), _) => Ok(entry.id),
                // it may have been in the book once
                (Err(_), Ok(id)) => Ok(id),
                (Err(error), Err(_)) => Err(ApiError::Request(error.to_string())),
            }
        }
    }
}

pub(super) async fn list(
    State(host): State<Arc<Host>>,
    Named(collection): Named,
    Asked(asked): Asked<CertificateQuery>,
) -> Result<Response, ApiError> {
    if asked.number.is_some() {
        return Err(ApiError::Request("a list has no number: give peer, before or limit".into()));
    }
    let list = blocking(move || {
        let peer = asked.peer()?.map(|choice| meant(&host, &choice)).transpose()?;
        let limit = asked.limit.unwrap_or(LISTED).min(MOST_LISTED) as usize;
        let kept = collection.certificates(peer.as_ref(), asked.before, limit)?;
        Ok(CertificateList { certificates: kept.iter().map(CertificateText::from).collect() })
    })
    .await?;
    answer(&list)
}

pub(super) async fn one(
    State(host): State<Arc<Host>>,
    Named(collection): Named,
    Asked(asked): Asked<CertificateQuery>,
) -> Result<Response, ApiError> {
    if asked.before.is_some() || asked.limit.is_some() {
        return Err(ApiError::Request("give number or peer, not before or limit".into()));
    }
    let found = blocking(move || {
        let kept = find(&host, &collection, &asked)?;
        let bundle = bundled(&host.node(), &collection, &kept)?;
        let certificate = CertificateText::from(&kept);
        Ok(CertificateAnswer { certificate, bundle: hex::encode(bundle.to_bytes()) })
    })
    .await?;
    answer(&found)
}

fn find(
    host: &Host,
    collection: &Kept,
    asked: &CertificateQuery,
) -> Result<KeptCertificate, ApiError> {
    let peer = asked.peer()?.map(|choice| meant(host, &choice)).transpose()?;
    let found = match (asked.number, peer) {
        (Some(number), peer) => collection.certificate(number)?.filter(|kept| {
            peer.is_none_or(|peer| kept.certificate.message().nodes().contains(&peer))
        }),
        (None, Some(peer)) => collection.last_certificate(&peer)?,
        (None, None) => collection.certificates(None, None, 1)?.pop(),
    };
    found.ok_or_else(|| ApiError::NoCertificate(collection.name().clone()))
}

/// The certificate with its envelope and, if that can still be proved, its place in this node's
/// log, under a head that is signed now.
fn bundled(
    node: &Node<EmbeddedStore>,
    collection: &Kept,
    kept: &KeptCertificate,
) -> Result<CertificateBundle, ApiError> {
    let fallen = |_| ApiError::Fallen;
    let mut bundle = CertificateBundle::new(kept.certificate.clone());
    if let Some(envelope) = &kept.envelope {
        bundle = bundle.with_envelope(envelope.clone()).map_err(fallen)?;
    }
    let Some((fields, proof)) = collection.certificate_inclusion(kept.number)? else {
        return Ok(bundle);
    };
    let sign = |message: &[u8]| node.identity.sign(message);
    let head = HeadStatement::sign(fields, node.id(), &sign).map_err(|_| ApiError::Fallen)?;
    // a log that rotted proves nothing, and the certificate needs it not
    Ok(bundle.clone().with_place(head, proof).unwrap_or(bundle))
}

/// What was last certified with each peer, of all collections.
pub(super) fn agreements(host: &Host) -> Result<Vec<AgreementText>, ApiError> {
    let node = host.node();
    let book = node.access.book();
    let mut agreements = Vec::new();
    for collection in node.replica.collections() {
        let now = collection.state_hash().ok();
        for (peer, kept) in collection.last_certificates()? {
            let message = kept.certificate.message();
            let certified = collection.spec().algorithm.state(message.root(), message.context());
            let name = book.entry(&peer).and_then(|entry| entry.name.as_ref());
            agreements.push(AgreementText {
                collection: collection.name().to_string(),
                peer: peer.to_string(),
                name: name.map(ToString::to_string),
                equal: now == Some(certified),
                since_ms: kept.kept_ms,
                number: kept.number,
                root: message.root().to_string(),
            });
        }
    }
    Ok(agreements)
}

pub(super) async fn evidence(
    State(host): State<Arc<Host>>,
    Named(collection): Named,
) -> Result<Response, ApiError> {
    let list = blocking(move || {
        let mut logs = Vec::new();
        for seen in collection.seen_logs(None)? {
            logs.push(SeenLogText::from(&seen));
        }
        let evidence = collection.contradictions(None)?;
        Ok(EvidenceList {
            evidence: evidence.iter().map(EvidenceText::from).collect(),
            distrusted: distrusted_of(&host, &collection)?,
            logs,
        })
    })
    .await?;
    answer(&list)
}

pub(super) async fn accept(
    State(host): State<Arc<Host>>,
    Named(collection): Named,
    body: Body,
) -> Result<Response, ApiError> {
    let PeerRequest { peer } = json(body, host.limits().body_pause).await?;
    let accepted = blocking(move || {
        let peer = meant(&host, &peer.parse()?)?;
        Ok(Accepted { accepted: collection.trust_again(&peer)? })
    })
    .await?;
    answer(&accepted)
}

/// With whom there are no sessions, over any collection.
pub(super) fn distrusted(host: &Host) -> Result<Vec<DistrustText>, ApiError> {
    let mut all = Vec::new();
    for collection in host.node().replica.collections() {
        all.extend(distrusted_of(host, &collection)?);
    }
    Ok(all)
}

fn distrusted_of(host: &Host, collection: &Kept) -> Result<Vec<DistrustText>, ApiError> {
    let book = host.node().access.book();
    let all = collection.distrusted()?.into_iter().map(|(peer, since_ms)| DistrustText {
        collection: collection.name().to_string(),
        peer: peer.to_string(),
        name: book.entry(&peer).and_then(|it| it.name.as_ref()).map(ToString::to_string),
        since_ms,
    });
    Ok(all.collect())
}
