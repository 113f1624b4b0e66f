//! The string that one person gives to another.

use std::fmt;
use std::str::FromStr;

use rand::TryRng as _;
use zeroize::Zeroizing;

use super::base32;
use crate::merkle::NodeKey;
use crate::net::{HostPort, IdentityError, check_node_id};
use crate::types::NodeId;

/// What every invitation begins with, before its version.
const PREFIX: &str = "selfsame-invite-";
/// The version that this library writes and reads.
const VERSION: &str = "1";
const SECRET_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 8;
/// Most addresses in one invitation.
const MAX_ADDRESSES: usize = 16;
/// Longest text of an invitation, far above any that is made.
const MAX_TEXT_BYTES: usize = 16 << 10;

/// Text that is no invitation, or an invitation that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvitationError {
    /// It is something else.
    #[error(
        "this is no invitation: one begins with selfsame-invite-1: and is printed by \
        `selfsame peer invite`"
    )]
    NotOne,
    /// It is of another version.
    #[error(
        "this invitation is of version {0}, and this node knows version 1: update it, or have \
        the invitation made by a node of the same version"
    )]
    OtherVersion(String),
    /// A part is missing or changed.
    #[error(
        "the invitation is cut or mistyped: copy all of it, from selfsame-invite-1: to its end"
    )]
    Damaged,
    /// It names more addresses than it may.
    #[error("an invitation names 16 addresses at most")]
    TooManyAddresses,
}

/// The one-time secret of an invitation: 128 random bits, wiped from memory, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<[u8; SECRET_BYTES]>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// Draws one from the operating system's randomness.
    ///
    /// # Errors
    /// The operating system gave none.
    pub fn generate() -> Result<Self, IdentityError> {
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        rand::rngs::SysRng
            .try_fill_bytes(secret.as_mut())
            .map_err(|error| IdentityError::Randomness(error.to_string()))?;
        Ok(Self(secret))
    }

    /// A given one.
    #[must_use]
    pub fn from_bytes(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key with which the joiner proves that it has the secret; its public half says nothing
    /// of it.
    pub(super) fn key(&self) -> NodeKey {
        let seed = blake3::derive_key("selfsame v1 pair: key of the joiner", self.0.as_ref());
        NodeKey::from_seed(&Zeroizing::new(seed))
    }

    /// The key of the inviter's answer.
    pub(super) fn answer_key(&self) -> Zeroizing<[u8; 32]> {
        let key = blake3::derive_key("selfsame v1 pair: answer of the inviter", self.0.as_ref());
        Zeroizing::new(key)
    }
}

/// An invitation: who invites, where it listens, a secret, and until when it holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invitation {
    inviter: NodeId,
    addresses: Vec<HostPort>,
    secret: Secret,
    expires_unix_s: u64,
}

impl Invitation {
    /// Puts one together.
    ///
    /// # Errors
    /// More than 16 addresses.
    pub fn new(
        inviter: NodeId,
        addresses: Vec<HostPort>,
        secret: Secret,
        expires_unix_s: u64,
    ) -> Result<Self, InvitationError> {
        if addresses.len() > MAX_ADDRESSES {
            return Err(InvitationError::TooManyAddresses);
        }
        Ok(Self { inviter, addresses, secret, expires_unix_s })
    }

    /// Who invites.
    #[must_use]
    pub const fn inviter(&self) -> NodeId {
        self.inviter
    }

    /// Where it listens, to be tried in this order.
    #[must_use]
    pub fn addresses(&self) -> &[HostPort] {
        &self.addresses
    }

    /// Its secret.
    #[must_use]
    pub const fn secret(&self) -> &Secret {
        &self.secret
    }

    /// When it expires, by the inviter's clock, in seconds since 1970.
    #[must_use]
    pub const fn expires_unix_s(&self) -> u64 {
        self.expires_unix_s
    }

    /// The text, which whoever reads it can use.
    #[must_use]
    pub fn reveal(&self) -> String {
        let mut bytes = Zeroizing::new(Vec::with_capacity(256));
        bytes.extend(self.inviter.0);
        bytes.extend(self.secret.0.as_ref());
        bytes.extend(self.expires_unix_s.to_be_bytes());
        for place in &self.addresses {
            let text = place.to_string();
            // a place is far shorter than 64 KiB
            let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
            bytes.extend(length.to_be_bytes());
            bytes.extend(text.as_bytes().iter().take(usize::from(length)));
        }
        let checksum = checksum(&bytes);
        bytes.extend(checksum);
        format!("{PREFIX}{VERSION}:{}", base32::encode(&bytes))
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::derive_key("selfsame v1 pair: checksum", bytes);
    let mut checksum = [0; CHECKSUM_BYTES];
    checksum.copy_from_slice(&hash[..CHECKSUM_BYTES]);
    checksum
}

impl FromStr for Invitation {
    type Err = InvitationError;

    /// Reads the text; spaces and line ends, as copying adds them, do not matter.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(InvitationError::NotOne);
        }
        let joined: Zeroizing<String> =
            Zeroizing::new(text.chars().filter(|c| !c.is_whitespace()).collect());
        let versioned = joined.strip_prefix(PREFIX).ok_or(InvitationError::NotOne)?;
        let (version, coded) = versioned.split_once(':').ok_or(InvitationError::Damaged)?;
        if version != VERSION {
            let number = !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit());
            let shown = version.chars().take(20).collect();
            let other = InvitationError::OtherVersion(shown);
            return Err(if number { other } else { InvitationError::Damaged });
        }
        let bytes = base32::decode(coded).map(Zeroizing::new).ok_or(InvitationError::Damaged)?;
        let (body, sum) =
            bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(InvitationError::Damaged)?;
        if checksum(body) != *sum {
            return Err(InvitationError::Damaged);
        }
        parse(body).ok_or(InvitationError::Damaged)
    }
}

fn parse(body: &[u8]) -> Option<Invitation> {
    let (inviter, rest) = body.split_first_chunk::<32>()?;
    let (secret, rest) = rest.split_first_chunk::<SECRET_BYTES>()?;
    let (expires, mut rest) = rest.split_first_chunk::<8>()?;
    let mut addresses = Vec::new();
    while let Some((length, more)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length));
        let place = more.get(..length)?;
        addresses.push(std::str::from_utf8(place).ok()?.parse().ok()?);
        rest = &more[length..];
    }
    let inviter = rest.is_empty().then(|| check_node_id(*inviter).ok())??;
    let expires = u64::from_be_bytes(*expires);
    Invitation::new(inviter, addresses, Secret::from_bytes(*secret), expires).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::net::Identity;
    use proptest::prelude::*;

    fn invitation(addresses: &[&str]) -> Invitation {
        let inviter = Identity::from_secret(&[1; 32]).node_id();
        let addresses = addresses.iter().map(|place| place.parse().unwrap()).collect();
        Invitation::new(inviter, addresses, Secret::from_bytes([7; 16]), 1_900_000_000).unwrap()
    }

    #[test]
    fn what_is_revealed_is_read_back() {
        for places in [&[][..], &["192.0.2.7:7447"], &["[2001:db8::7]:1", "node-a.example:7447"]] {
            let made = invitation(places);
            let text = made.reveal();
            assert_eq!(text.parse::<Invitation>().unwrap(), made);
            let wrapped = format!(" {}\n  {}\r\n", &text[..60], &text[60..]);
            assert_eq!(wrapped.parse::<Invitation>().unwrap(), made);
        }
        assert!(invitation(&["192.0.2.7:7447"]).reveal().len() < 160);
    }

    #[test]
    fn a_cut_or_mistyped_string_is_named() {
        let text = invitation(&["192.0.2.7:7447"]).reveal();
        for length in PREFIX.len()..text.len() {
            let error = text[..length].parse::<Invitation>().unwrap_err();
            assert_eq!(error, InvitationError::Damaged, "{length}");
        }
        for at in PREFIX.len() + 2..text.len() {
            let mut typed = text.clone().into_bytes();
            typed[at] = if typed[at] == b'a' { b'b' } else { b'a' };
            let typed = String::from_utf8(typed).unwrap();
            assert_eq!(typed.parse::<Invitation>().unwrap_err(), InvitationError::Damaged, "{at}");
        }
        assert_eq!("".parse::<Invitation>().unwrap_err(), InvitationError::NotOne);
        let newer = text.replace("-1:", "-2:").parse::<Invitation>().unwrap_err();
        assert_eq!(newer, InvitationError::OtherVersion("2".into()));
    }

    #[test]
    fn the_secret_is_not_shown_and_not_in_its_keys() {
        let made = invitation(&[]);
        assert!(!format!("{made:?}").contains("7, 7"));
        assert_ne!(made.secret().key().node_id().0[..16], [7; 16]);
        assert_ne!(made.secret().answer_key()[..], made.secret().key().node_id().0);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,80}", coded in "[a-z2-7]{0,200}") {
            prop_assert!(text.parse::<Invitation>().is_err());
            let coded = format!("{PREFIX}1:{coded}");
            prop_assert!(coded.parse::<Invitation>().is_err());
        }

        #[test]
        fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&body);
        }
    }
}
