//! How a node that was started anew tells its peers so, who still think that they talk to the
//! process before: with stateless resets (RFC 9000, section 10.3).
//!
//! A reset proves that its sender has the key of the connection's ids. With a key drawn at each
//! start nobody could prove it for an earlier process, and a peer whose question was taken, but
//! not answered, would wait for all of its patience. So the key comes from the identity, and from
//! the port: two sockets of one node never answer for each other.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};
use subtle::ConstantTimeEq as _;

use super::identity::Identity;

const RESETS: &str = "selfsame v1 stateless resets";
const ID_BYTES: usize = 8;

/// Settings of an endpoint on this port that can end the connections of those before it.
pub(super) fn endpoint_config(identity: &Identity, port: u16) -> EndpointConfig {
    let key = Key(identity.secret_for(RESETS, &port.to_le_bytes()));
    let mut config = EndpointConfig::new(Arc::new(key));
    config.cid_generator(|| Box::new(Ids));
    config
}

struct Key([u8; 32]);

impl Key {
    fn mac(&self, data: &[u8]) -> [u8; 32] {
        blake3::keyed_hash(&self.0, data).into()
    }
}

impl HmacKey for Key {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        for (to, from) in signature_out.iter_mut().zip(self.mac(data)) {
            *to = from;
        }
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        if bool::from(self.mac(data).ct_eq(signature)) { Ok(()) } else { Err(CryptoError) }
    }
}

/// Random ones: those of an earlier process look like any, and are not passed over.
struct Ids;

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::random::<[u8; ID_BYTES]>())
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
