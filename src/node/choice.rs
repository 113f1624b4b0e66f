//! The peer that an operator means: by its address, or by what the peer book knows.
//!
//! ```
//! use selfsame::node::choice::PeerChoice;
//!
//! let known: PeerChoice = "berlin".parse()?;
//! assert_eq!(known, PeerChoice::Known("berlin".into()));
//! assert!("192.0.2.7:7447".parse::<PeerChoice>().is_err()); // whose address is it?
//! # Ok::<(), selfsame::net::AddressError>(())
//! ```

use std::fmt;
use std::str::FromStr;

use super::Node;
use super::client::ClientError;
use crate::net::{AddressError, PeerAddress};
use crate::store::Store;

/// A peer as somebody names it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum PeerChoice {
    /// By id and address; it need not be in the book.
    At(PeerAddress),
    /// By its name there, its id, or the beginning of its id.
    Known(String),
}

impl FromStr for PeerChoice {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // neither is in a name
        if text.contains(['@', ':']) {
            text.parse().map(Self::At)
        } else {
            Ok(Self::Known(text.to_owned()))
        }
    }
}

impl fmt::Display for PeerChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(address) => address.fmt(f),
            Self::Known(text) => f.pad(text),
        }
    }
}

impl<S: Store> Node<S> {
    /// Where to dial for a command in which an operator names a peer, in this order, and as
    /// which node to do it: one that is named with its address needs no entry in the book (see
    /// [`Node::vouching_for`]).
    ///
    /// # Errors
    /// The book knows no such peer, more than one, or no address of it.
    pub fn turn_to(&self, choice: &PeerChoice) -> Result<(Self, Vec<PeerAddress>), ClientError> {
        match choice {
            PeerChoice::At(address) => Ok((self.vouching_for(address.id()), vec![address.clone()])),
            PeerChoice::Known(text) => {
                let book = self.access.book();
                let entry = book.find(text)?;
                let addresses: Vec<_> = entry.dialled().collect();
                if addresses.is_empty() {
                    return Err(ClientError::NoAddress(entry.to_string()));
                }
                Ok((self.clone(), addresses))
            }
        }
    }
}
