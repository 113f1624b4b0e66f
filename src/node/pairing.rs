//! Two nodes get to know each other by an invitation: one string, for one use, for a time.
//!
//! The inviter keeps no secret of it: only the public half of a key that the string's secret
//! makes, in `invites.toml`. The joiner dials the inviter, whose id the string names, and signs
//! with the other half what only this connection between these two nodes has. The inviter burns
//! the invitation, notes the joiner in its book, and answers with a code that only who made the
//! invitation can compute; then the joiner notes the inviter.
//!
//! Whatever is wrong with an invitation (unknown, used, expired), the answer is the same.
//!
//! ```
//! use selfsame::net::Identity;
//! use selfsame::node::pairing::{Invitation, Secret};
//!
//! let inviter = Identity::from_secret(&[1; 32]).node_id();
//! let addresses = vec!["192.0.2.7:7447".parse()?];
//! let invitation = Invitation::new(inviter, addresses, Secret::generate()?, 1_900_000_000)?;
//! let text = invitation.reveal();
//! let read: Invitation = text.parse()?;
//! assert_eq!(read.inviter(), inviter);
//! let cut = text[..text.len() - 1].parse::<Invitation>().unwrap_err();
//! assert!(cut.to_string().contains("cut"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod base32;
mod door;
mod exchange;
mod invitation;
mod invites;
mod tries;

pub use door::Door;
pub use exchange::{Joined, Paired, Terms, join, receive};
pub use invitation::{Invitation, InvitationError, Secret};
pub use invites::{InviteId, Invites, OpenInvite};
pub use tries::Tries;

use crate::net::{FrameError, NetError};

use super::peers::PeersError;

/// Two nodes could not be paired.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PairingError {
    /// The inviter does not take it.
    #[error(
        "the invitation was not accepted: it is used, expired, taken back or not of that node; \
         ask for a new one (`selfsame peer invite` there)"
    )]
    Refused,
    /// Too many tries.
    #[error("that node takes no more invitations just now: wait a minute, then try again")]
    Busy,
    /// The inviter could not write its book; the invitation is burnt.
    #[error(
        "the other node could not note this one: look at its log, then ask for a new \
        invitation"
    )]
    NotNoted,
    /// The connection was lost after the invitation was shown.
    #[error(
        "the connection was lost before the answer came, and the invitation may be used up: \
        ask for a new invitation ({0})"
    )]
    Lost(String),
    /// The answer is not that of who made the invitation.
    #[error(
        "the answer does not prove that the other node made this invitation: do not go on; \
        ask for a new one"
    )]
    Unproved,
    /// The invitation names no address, and none was given.
    #[error("the invitation names no address to dial: ask for one made with --address")]
    NoAddress,
    /// As many invitations as may be open.
    #[error(
        "{0} invitations are open already: let some be used or expire, or take some back with \
        `selfsame peer uninvite`"
    )]
    TooMany(usize),
    /// No open invitation is named so.
    #[error(
        "no open invitation has an id that begins with {0:?} (4 digits or more): it is used, \
        expired or taken back already, or not of this node; `selfsame peer invites` lists those \
        that are open"
    )]
    NoInvite(String),
    /// More than one open invitation is named so.
    #[error(
        "more than one open invitation has an id that begins with {0:?}: write more of its \
        digits; `selfsame peer invites` lists them"
    )]
    SeveralInvites(String),
    /// Nobody could be reached.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A book or the invitations cannot be read or written.
    #[error(transparent)]
    Peers(#[from] PeersError),
    /// The caller said something that is no request to pair.
    #[error("it did not ask to pair: {0}")]
    NoRequest(String),
    /// The caller took too long.
    #[error("it was too slow")]
    Slow,
}

impl From<FrameError> for PairingError {
    fn from(error: FrameError) -> Self {
        Self::Net(error.into())
    }
}
