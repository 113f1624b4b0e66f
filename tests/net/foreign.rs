//! Callers and servers that are not ours: rustls and quinn used directly.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, ResolvesClientCert, Resumption};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime, alg_id};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use selfsame::net::{ALPN, Endpoint};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Caller {
    Honest,
    OtherProtocol,
    NoProtocol,
    Certificate,
    CertificateAsRawKey,
    TwoKeys,
    NoKey,
    Impostor,
}

#[derive(Debug)]
struct Anybody {
    raw: bool,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
    fn requires_raw_public_keys(&self) -> bool {
        self.raw
    }
}

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
    fn requires_raw_public_keys(&self) -> bool {
        self.raw
    }
}

/// The key of number 1, or what the caller presents instead.
fn key(caller: Caller) -> CertifiedKey {
    let pkcs8 = |seed: u8| {
        let prefix = hex::decode("302e020100300506032b657004220420").unwrap();
        PrivatePkcs8KeyDer::from([prefix, vec![seed; 32]].concat())
    };
    let signer = if caller == Caller::Impostor { 7 } else { 1 };
    let signer = ring::sign::any_eddsa_type(&pkcs8(signer)).unwrap();
    let own = rustls::sign::public_key_to_spki(&alg_id::ED25519, super::id(1).0);
    let own = CertificateDer::from(own.to_vec());
    // The outer form of an X.509 certificate; nobody may come to read it.
    let certificate = CertificateDer::from([vec![0x30, 0x82, 0x01, 0x00], vec![5; 256]].concat());
    let chain = match caller {
        Caller::Certificate | Caller::CertificateAsRawKey => vec![certificate],
        Caller::TwoKeys => vec![own.clone(), own],
        _ => vec![own],
    };
    CertifiedKey::new(chain, signer)
}

fn protocols(caller: Caller) -> Vec<Vec<u8>> {
    match caller {
        Caller::OtherProtocol => vec![b"h3".to_vec(), b"selfsame/2".to_vec()],
        Caller::NoProtocol => Vec::new(),
        _ => vec![ALPN.to_vec()],
    }
}

fn client_config(caller: Caller) -> quinn::ClientConfig {
    let raw = caller != Caller::Certificate;
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody { raw }));
    let key = Arc::new(key(caller));
    let resolver: Arc<dyn ResolvesClientCert> = if raw {
        Arc::new(AlwaysResolvesClientRawPublicKeys::new(key))
    } else {
        Arc::new(SingleCertAndKey::from(key))
    };
    let mut config = match caller {
        Caller::NoKey => builder.with_no_client_auth(),
        _ => builder.with_client_cert_resolver(resolver),
    };
    config.alpn_protocols = protocols(caller);
    config.resumption = Resumption::disabled();
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()))
}

/// Dials and waits until the server has either sent something or closed the connection.
pub(super) async fn dial(to: &Endpoint, caller: Caller) -> Result<(), quinn::ConnectionError> {
    let endpoint = quinn::Endpoint::client(super::loopback()).unwrap();
    let connecting =
        endpoint.connect_with(client_config(caller), to.local_address(), "node").unwrap();
    let connection = connecting.await?;
    if caller != Caller::Honest {
        return Err(connection.closed().await);
    }
    let accepted = to.accept().await.unwrap();
    assert_eq!(accepted.peer(), super::id(1));
    let mut stream = accepted.open_uni().await.unwrap();
    stream.finish().unwrap();
    connection.accept_uni().await.map(|_| ())
}

/// A server that speaks another protocol, or has a certificate.
pub(super) fn serve(caller: Caller) -> quinn::Endpoint {
    let builder = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(Anybody { raw: caller != Caller::Certificate }));
    let key = Arc::new(key(caller));
    let mut config = if caller == Caller::Certificate {
        builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
    } else {
        builder.with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key)))
    };
    config.alpn_protocols = protocols(caller);
    let config = QuicServerConfig::try_from(config).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(config));
    let endpoint = quinn::Endpoint::server(config, super::loopback()).unwrap();
    let server = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = server.accept().await {
            drop(incoming.await);
        }
    });
    endpoint
}

/// Callers that send their first packet and never go on, all from one socket.
pub(super) async fn half_open(to: SocketAddr, callers: usize) -> tokio::net::UdpSocket {
    let client = quinn::Endpoint::client(super::loopback()).unwrap();
    let flood = tokio::net::UdpSocket::bind(super::loopback()).await.unwrap();
    let mut packet = vec![0; 2048];
    for _ in 0..callers {
        // A trap for each, which catches the first packet and none of those that follow.
        let trap = tokio::net::UdpSocket::bind(super::loopback()).await.unwrap();
        let caught = trap.local_addr().unwrap();
        let config = client_config(Caller::Honest);
        let _connecting = client.connect_with(config, caught, "node").unwrap();
        let length = trap.recv(&mut packet).await.unwrap();
        flood.send_to(&packet[..length], to).await.unwrap();
    }
    flood
}
