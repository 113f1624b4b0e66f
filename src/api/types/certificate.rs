//! Certificates and evidence, as they travel.

use serde::{Deserialize, Serialize};

use crate::api::error::ApiError;
use crate::merkle::{Certificate, CertificateBundle};
use crate::node::choice::PeerChoice;
use crate::replica::KeptCertificate;

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
