//! TLS 1.3 between nodes: both ends present a raw Ed25519 key (RFC 7250), and nothing else.
//!
//! The verifiers look at a key twice. First it must have the one encoding that an Ed25519 key
//! has (RFC 8410) and be sound, and when dialling be the key that was asked for. Then, and only
//! once its owner has signed the handshake, the acceptor asks whether it admits that node: who
//! is not the owner of a key learns nothing about it.
//!
//! A caller that offers the protocol of pairing, and not the ordinary one, is let in unknown
//! while there is something to pair with; what it can do then is to pair.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{self, cipher_suite, kx_group};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureAlgorithm,
    SignatureScheme,
};

use super::admission::Admission;
use super::error::NetError;
use super::identity::{Identity, check_node_id, verify_signature};
use crate::types::NodeId;

/// The protocol's name in the handshake (ALPN), with its version.
pub const ALPN: &[u8] = ALPN_TEXT.as_bytes();
pub(super) const ALPN_TEXT: &str = "selfsame/1";

/// The name of the protocol by which two nodes get to know each other.
pub const PAIR_ALPN: &[u8] = b"selfsame-pair/1";

/// The name that TLS wants to be given; it is neither sent nor checked.
pub(super) const SERVER_NAME: &str = "selfsame";

/// What precedes the 32 bytes of an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410).
const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// TLS for accepting, with the list that is asked at each handshake.
pub(super) struct Accepting {
    own: NodeId,
    key: Arc<CertifiedKey>,
    provider: Arc<CryptoProvider>,
    admission: Arc<dyn Admission>,
}

impl Accepting {
    pub(super) fn new(identity: &Arc<Identity>, admission: Arc<dyn Admission>) -> Self {
        let (own, key) = (identity.node_id(), raw_key(identity));
        Self { own, key, provider: provider(), admission }
    }

    /// For one caller: what it offers decides by which rule it is let in, so what is noted of
    /// that must be its own.
    pub(super) fn for_one(&self) -> Result<(QuicServerConfig, Purpose), NetError> {
        let pairing = Arc::new(AtomicBool::new(false));
        let purpose = Purpose(Arc::clone(&pairing));
        let verifier = Admitted {
            own: self.own,
            admission: Arc::clone(&self.admission),
            pairing: Arc::clone(&pairing),
        };
        let offered = Offered { key: Arc::clone(&self.key), pairing };
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(tls_error)?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(offered));
        // whoever offers both gets the first
        config.alpn_protocols = vec![ALPN.to_vec(), PAIR_ALPN.to_vec()];
        // Each handshake is a full one: a resumed one would skip the question who may connect.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        let config = QuicServerConfig::try_from(config);
        Ok((config.map_err(|error| NetError::Tls(error.to_string()))?, purpose))
    }
}

/// What one caller came for, by which it was let in.
pub(super) struct Purpose(Arc<AtomicBool>);

/// What was agreed on with a caller.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Agreed {
    Ordinary,
    Pairing,
}

impl Purpose {
    /// What was agreed on in a complete handshake; none if that is not what the caller was let
    /// in by.
    pub(super) fn agreed(&self, connection: &quinn::Connection) -> Option<Agreed> {
        let data = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
        match (data.protocol.as_deref(), self.0.load(Ordering::Relaxed)) {
            (Some(PAIR_ALPN), true) => Some(Agreed::Pairing),
            (Some(ALPN), false) => Some(Agreed::Ordinary),
            _ => None,
        }
    }
}

/// Presents this node's key, and notes whether the caller came to pair.
#[derive(Debug)]
struct Offered {
    key: Arc<CertifiedKey>,
    pairing: Arc<AtomicBool>,
}

impl ResolvesServerCert for Offered {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let offers = |ours| hello.alpn().is_some_and(|mut all| all.any(|theirs| theirs == ours));
        self.pairing.store(offers(PAIR_ALPN) && !offers(ALPN), Ordering::Relaxed);
        Some(Arc::clone(&self.key))
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }
}

/// TLS for dialling one peer; `found` is told whose key was presented.
pub(super) fn client_config(
    identity: &Arc<Identity>,
    expected: NodeId,
    found: Arc<OnceLock<NodeId>>,
    protocol: &[u8],
) -> Result<QuicClientConfig, NetError> {
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls_error)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { expected, found }))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(raw_key(
            identity,
        ))));
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    QuicClientConfig::try_from(config).map_err(|error| NetError::Tls(error.to_string()))
}

/// Whose key the other end of a finished handshake proved to own.
pub(super) fn peer_id(connection: &quinn::Connection) -> Option<NodeId> {
    let identity = connection.peer_identity()?;
    let keys = identity.downcast_ref::<Vec<CertificateDer<'static>>>()?;
    node_id_of(keys.first()?).ok()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![kx_group::X25519],
        ..ring::default_provider()
    })
}

fn raw_key(identity: &Arc<Identity>) -> Arc<CertifiedKey> {
    let key = HandshakeKey(Arc::clone(identity));
    Arc::new(CertifiedKey::new(vec![CertificateDer::from(key.spki())], Arc::new(key)))
}

fn tls_error(error: Error) -> NetError {
    NetError::Tls(error.to_string())
}

/// Signs handshakes with the node's key, so that the secret stays in one place.
#[derive(Clone, Debug)]
struct HandshakeKey(Arc<Identity>);

impl HandshakeKey {
    fn spki(&self) -> Vec<u8> {
        [SPKI_PREFIX.as_slice(), &self.0.node_id().0].concat()
    }
}

impl SigningKey for HandshakeKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ED25519).then(|| Box::new(self.clone()) as _)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(self.spki()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for HandshakeKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.0.sign(message).to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// The one key that a dialled peer must have.
#[derive(Debug)]
struct Pinned {
    expected: NodeId,
    found: Arc<OnceLock<NodeId>>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let id = only_key(end_entity, intermediates)?;
        // A second key in one handshake does not exist; the first stands.
        let _ = self.found.set(id);
        if id == self.expected { Ok(ServerCertVerified::assertion()) } else { Err(denied()) }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(denied())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signed_by(message, cert, dss)?;
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Whom the acceptor lets in.
struct Admitted {
    own: NodeId,
    admission: Arc<dyn Admission>,
    pairing: Arc<AtomicBool>,
}

impl fmt::Debug for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admitted").field("own", &self.own).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for Admitted {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        only_key(end_entity, intermediates)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(denied())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let peer = signed_by(message, cert, dss)?;
        if peer == self.own {
            tracing::warn!(%peer, "refused a node that has this node's own key");
        } else if self.pairing.load(Ordering::Relaxed) {
            if self.admission.pairs() {
                return Ok(HandshakeSignatureValid::assertion());
            }
            tracing::info!(%peer, "refused a node that came to pair: no invitation is open");
        } else if self.admission.admits(&peer) {
            return Ok(HandshakeSignatureValid::assertion());
        } else {
            tracing::info!(%peer, "refused a node that is not admitted: add its id to the peers");
        }
        Err(denied())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The key, if it comes alone, as a raw key does.
fn only_key(key: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<NodeId, Error> {
    if others.is_empty() { node_id_of(key) } else { Err(bad_encoding()) }
}

/// Checks the signature of the handshake against the key that was presented.
fn signed_by(
    message: &[u8],
    key: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
) -> Result<NodeId, Error> {
    let id = node_id_of(key)?;
    let sound = dss.scheme == SignatureScheme::ED25519
        && <&[u8; 64]>::try_from(dss.signature())
            .is_ok_and(|signature| verify_signature(&id, message, signature));
    if sound { Ok(id) } else { Err(Error::InvalidCertificate(CertificateError::BadSignature)) }
}

fn node_id_of(key: &[u8]) -> Result<NodeId, Error> {
    let bytes = key.strip_prefix(&SPKI_PREFIX).and_then(|key| <[u8; 32]>::try_from(key).ok());
    bytes.and_then(|bytes| check_node_id(bytes).ok()).ok_or_else(bad_encoding)
}

const fn bad_encoding() -> Error {
    Error::InvalidCertificate(CertificateError::BadEncoding)
}

/// Sent as the alert `access_denied`.
const fn denied() -> Error {
    Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn only_one_encoding_of_a_key_is_read() {
        let identity = Arc::new(Identity::from_secret(&[3; 32]));
        let spki = HandshakeKey(Arc::clone(&identity)).spki();
        assert_eq!(node_id_of(&spki).unwrap(), identity.node_id());
        for position in 0..SPKI_PREFIX.len() {
            let mut other = spki.clone();
            other[position] ^= 1;
            assert!(node_id_of(&other).is_err(), "byte {position}");
        }
        for length in 0..spki.len() {
            assert!(node_id_of(&spki[..length]).is_err(), "{length} bytes");
        }
        assert!(node_id_of(&[spki.as_slice(), &[0]].concat()).is_err());
        let mut weak = spki;
        weak[SPKI_PREFIX.len()..].fill(0);
        assert!(node_id_of(&weak).is_err());
    }
}
