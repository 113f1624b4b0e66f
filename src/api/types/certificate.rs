//! Certificates and evidence, as they travel.

use serde::{Deserialize, Serialize};

use crate::api::error::ApiError;
use crate::merkle::{Certificate, CertificateBundle, Contradiction, HeadStatement, LogKind};
use crate::node::choice::PeerChoice;
use crate::replica::{KeptCertificate, KeptEvidence, SeenLog};

/// A certificate: what two nodes signed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CertificateText {
    /// Its number at the node that kept it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// When that node kept it, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_ms: Option<u64>,
    /// Name of the collection.
    pub collection: String,
    /// Ids of the two nodes, the lesser first.
    pub nodes: [String; 2],
    /// The root that both held.
    pub root: String,
    /// Hash of the context that both held.
    pub context: String,
    /// Id of the session.
    pub session: String,
    /// The greater of the two clocks at the beginning of the session.
    pub stamp: String,
    /// Entries under the root, if its envelope is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
    /// Bytes of their values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

impl From<&Certificate> for CertificateText {
    fn from(certificate: &Certificate) -> Self {
        let message = certificate.message();
        Self {
            number: None,
            kept_ms: None,
            collection: message.collection().to_string(),
            nodes: message.nodes().map(|node| node.to_string()),
            root: message.root().to_string(),
            context: message.context().to_string(),
            session: message.session().to_string(),
            stamp: message.stamp().to_string(),
            entries: None,
            bytes: None,
        }
    }
}

impl From<&KeptCertificate> for CertificateText {
    fn from(kept: &KeptCertificate) -> Self {
        let totals = kept.envelope.as_ref().map(|envelope| envelope.totals());
        Self {
            number: Some(kept.number),
            kept_ms: Some(kept.kept_ms),
            entries: totals.map(|totals| totals.entries),
            bytes: totals.map(|totals| totals.bytes),
            ..Self::from(&kept.certificate)
        }
    }
}

impl From<&CertificateBundle> for CertificateText {
    fn from(bundle: &CertificateBundle) -> Self {
        let totals = bundle.envelope().map(|envelope| envelope.totals());
        Self {
            entries: totals.map(|totals| totals.entries),
            bytes: totals.map(|totals| totals.bytes),
            ..Self::from(bundle.certificate())
        }
    }
}

/// Certificates of a collection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CertificateList {
    /// The latest first.
    pub certificates: Vec<CertificateText>,
}

/// A certificate with all that may travel with it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CertificateAnswer {
    /// What it says.
    #[serde(flatten)]
    pub certificate: CertificateText,
    /// The bundle in hex: certificate, envelope, and place in this node's signed log as far as
    /// they are known.
    pub bundle: String,
}

/// Which certificates: query of a request.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CertificateQuery {
    /// Those with this peer: its name, its id or the beginning of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The one with this number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// Those with lesser numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// At most so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

impl CertificateQuery {
    pub(in crate::api) fn peer(&self) -> Result<Option<PeerChoice>, ApiError> {
        Ok(self.peer.as_ref().map(|peer| peer.parse()).transpose()?)
    }
}

/// What this node and a peer have last certified of a collection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AgreementText {
    /// Name of the collection.
    pub collection: String,
    /// Id of the peer.
    pub peer: String,
    /// How people call it.
    pub name: Option<String>,
    /// Whether this node still holds just what was certified.
    pub equal: bool,
    /// When it was certified: `equal` says whether the two have been equal since, or were then.
    pub since_ms: u64,
    /// Number of the certificate.
    pub number: u64,
    /// The root certified.
    pub root: String,
}

/// What a peer has contradicted itself with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EvidenceText {
    /// Its number at the node that kept it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// When that node found it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_ms: Option<u64>,
    /// Id of the peer.
    pub peer: String,
    /// Name of the collection.
    pub collection: String,
    /// Of which kind the log is: `change` or `certificate`.
    pub kind: String,
    /// Id of the log.
    pub log: String,
    /// The sizes that the two heads state.
    pub sizes: [u64; 2],
    /// Whether the two signatures alone prove it to others.
    pub proves_itself: bool,
    /// All of it in hex: two signed heads, and what was given as proof.
    pub bytes: String,
}

impl From<&Contradiction> for EvidenceText {
    fn from(contradiction: &Contradiction) -> Self {
        let [first, second] = contradiction.statements().map(HeadStatement::fields);
        Self {
            number: None,
            found_ms: None,
            peer: contradiction.node().to_string(),
            collection: first.log().name.to_string(),
            kind: kind_text(first.log().kind),
            log: first.log().id.to_string(),
            sizes: [first.size(), second.size()],
            proves_itself: contradiction.proves_itself(),
            bytes: hex::encode(contradiction.to_bytes()),
        }
    }
}

impl From<&KeptEvidence> for EvidenceText {
    fn from(kept: &KeptEvidence) -> Self {
        let (number, found_ms) = (Some(kept.number), Some(kept.found_ms));
        Self { number, found_ms, ..Self::from(&kept.contradiction) }
    }
}

fn kind_text(kind: LogKind) -> String {
    match kind {
        LogKind::Changes => "change",
        LogKind::Certificates => "certificate",
    }
    .to_owned()
}

/// A peer with which there are no sessions over a collection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DistrustText {
    /// Name of the collection.
    pub collection: String,
    /// Id of the peer.
    pub peer: String,
    /// How people call it.
    pub name: Option<String>,
    /// Since when.
    pub since_ms: u64,
}

/// A log of a peer, as far as it was heard of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SeenLogText {
    /// Id of the peer.
    pub peer: String,
    /// Of which kind the log is: `change` or `certificate`.
    pub kind: String,
    /// Id of the log.
    pub log: String,
    /// Size up to which it is proved that it only grew.
    pub proved: u64,
    /// Size of the last head.
    pub last: u64,
    /// When that was heard.
    pub seen_ms: u64,
    /// Whether the peer could not prove the rest when it was last asked.
    pub unproved: bool,
}

impl From<&SeenLog> for SeenLogText {
    fn from(seen: &SeenLog) -> Self {
        let fields = seen.last.fields();
        Self {
            peer: seen.last.node().to_string(),
            kind: kind_text(fields.log().kind),
            log: fields.log().id.to_string(),
            proved: seen.proved.fields().size(),
            last: fields.size(),
            seen_ms: seen.seen_ms,
            unproved: seen.unproved,
        }
    }
}

/// What is known of the logs of peers of a collection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EvidenceList {
    /// What contradicts itself.
    pub evidence: Vec<EvidenceText>,
    /// With whom there are no sessions.
    pub distrusted: Vec<DistrustText>,
    /// The logs heard of.
    pub logs: Vec<SeenLogText>,
}

/// The answer to an acceptance.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Accepted {
    /// Whether there were no sessions with the peer before.
    pub accepted: bool,
}
