//! Node keys and strict Ed25519 signatures (RFC 8032, pure).
//!
//! A signature is judged alike by everyone: its scalar is below the order of the group, both its
//! points are canonical and none is of small order, and the equation holds without cofactor.
//! Chalkias, Garillot, Nikolaenko, "Taming the many EdDSAs" (SSR 2020), say why each matters.
//!
//! ```
//! use selfsame::merkle::{NodeKey, check_node_id};
//!
//! let key = NodeKey::from_seed(&[7; 32]);
//! check_node_id(&key.node_id())?;
//! let signature = key.sign(b"message");
//! signature.verify(&key.node_id(), b"message")?;
//! assert!(signature.verify(&key.node_id(), b"massage").is_err());
//! # Ok::<(), selfsame::merkle::SignatureError>(())
//! ```

use std::fmt;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};

use crate::types::NodeId;

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// A node id that is no usable key, or a signature that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// Not 64 bytes.
    #[error("a signature has 64 bytes, not {0}")]
    Length(usize),
    /// The scalar, the second half, is not below the order of the group.
    #[error("the second half of the signature is not reduced: do not trust its source")]
    Scalar,
    /// The node id's y coordinate is not reduced.
    #[error("node id {0} is not in canonical form: ask its owner for the right one")]
    KeyNotCanonical(NodeId),
    /// The node id is no point of the curve.
    #[error("node id {0} is no Ed25519 public key: check for a typing mistake")]
    KeyNotOnCurve(NodeId),
    /// Anyone can make signatures that hold under such a key.
    #[error("node id {0} is a point of small order: refuse this node")]
    KeySmallOrder(NodeId),
    /// Its first half is not canonical or of small order, or the equation does not hold.
    #[error("the signature does not hold: the message was changed or another node signed it")]
    DoesNotHold,
}

/// A node's secret key. Its memory is wiped when it is dropped, and it never shows itself.
#[derive(Clone)]
pub struct NodeKey(SigningKey);

impl NodeKey {
    /// From the 32 secret bytes of RFC 8032: they must come from a random generator fit for keys.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The secret bytes: for storing the key and for TLS. Wipe them after use.
    #[must_use]
    pub fn to_seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The node's id: the public key.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        NodeId(self.0.verifying_key().to_bytes())
    }

    /// Signs a message.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature::from_bytes(self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({:?})", self.node_id())
    }
}

/// The 64 bytes of a signature; whether it holds, [`verify`](Self::verify) says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "session", derive(serde::Serialize, serde::Deserialize))]
pub struct Signature {
    point: [u8; 32],
    scalar: [u8; 32],
}

impl Signature {
    /// From its bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; SIGNATURE_BYTES]) -> Self {
        let (mut point, mut scalar) = ([0; 32], [0; 32]);
        point.copy_from_slice(&bytes[..32]);
        scalar.copy_from_slice(&bytes[32..]);
        Self { point, scalar }
    }

    /// From bytes of any length.
    ///
    /// # Errors
    /// Not 64 of them.
    pub fn parse(bytes: &[u8]) -> Result<Self, SignatureError> {
        let bytes = bytes.try_into().map_err(|_| SignatureError::Length(bytes.len()))?;
        Ok(Self::from_bytes(bytes))
    }

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; SIGNATURE_BYTES] {
        let mut bytes = [0; SIGNATURE_BYTES];
        bytes[..32].copy_from_slice(&self.point);
        bytes[32..].copy_from_slice(&self.scalar);
        bytes
    }

    /// Checks strictly that the node signed the message.
    ///
    /// # Errors
    /// It did not, or its id is no usable key.
    pub fn verify(&self, node: &NodeId, message: &[u8]) -> Result<(), SignatureError> {
        if !is_below(&self.scalar, &GROUP_ORDER) {
            return Err(SignatureError::Scalar);
        }
        let key = usable_key(node)?;
        let signature = ed25519_dalek::Signature::from_bytes(&self.to_bytes());
        key.verify_strict(message, &signature).map_err(|_| SignatureError::DoesNotHold)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({}..)", hex::encode(&self.point[..4]))
    }
}

/// Checks that a node id is a key that one node alone can sign with: for every id that enters, in
/// a config or a hello.
///
/// # Errors
/// An id that is not canonical, not on the curve or of small order.
pub fn check_node_id(node: &NodeId) -> Result<(), SignatureError> {
    usable_key(node).map(|_| ())
}

// both little-endian: the order of the group, and the field's prime 2^255 - 19
const GROUP_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];
const FIELD_PRIME: [u8; 32] = {
    let mut prime = [0xff; 32];
    prime[0] = 0xed;
    prime[31] = 0x7f;
    prime
};

fn usable_key(node: &NodeId) -> Result<VerifyingKey, SignatureError> {
    // the library takes coordinates beyond the prime for what they are modulo it
    let mut y = node.0;
    y[31] &= 0x7f;
    if !is_below(&y, &FIELD_PRIME) {
        return Err(SignatureError::KeyNotCanonical(*node));
    }
    let key =
        VerifyingKey::from_bytes(&node.0).map_err(|_| SignatureError::KeyNotOnCurve(*node))?;
    if key.is_weak() { Err(SignatureError::KeySmallOrder(*node)) } else { Ok(key) }
}

/// Compares little-endian numbers; they are public, so time may tell.
fn is_below(number: &[u8; 32], bound: &[u8; 32]) -> bool {
    number.iter().rev().lt(bound.iter().rev())
}
