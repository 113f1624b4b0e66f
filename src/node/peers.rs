//! Whom a node knows, and what each may do here: `peers.toml` in its data folder.
//!
//! Every entry is checked when the file is read; what is wrong is named with its line. The
//! `selfsame peer` verbs edit the file and keep what people wrote beside it.
//!
//! ```
//! use std::path::Path;
//! use selfsame::net::Identity;
//! use selfsame::node::peers::{Grant, PeerBook};
//! use selfsame::types::CollectionName;
//!
//! let id = Identity::from_secret(&[1; 32]).node_id();
//! let text = format!(
//!     "[[peer]]\nid = \"{id}\"\nname = \"berlin\"\naddresses = [\"192.0.2.7:7447\"]\n\
//!      [peer.grants]\n\"*\" = \"write\"\nplayers = \"read\"\n"
//! );
//! let book = PeerBook::parse(&text, Path::new("peers.toml"))?;
//! let berlin = book.find("berlin")?;
//! assert_eq!(berlin.id, id);
//! assert_eq!(berlin.grants.of(&CollectionName::new("players")?), Grant::Read);
//! assert_eq!(berlin.grants.of(&CollectionName::new("scores")?), Grant::Write);
//! let wrong = PeerBook::parse("[[peer]]\nid = 7\n", Path::new("peers.toml")).unwrap_err();
//! assert!(wrong.to_string().starts_with("peers.toml, line 2: "));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod book;
mod edit;
mod files;
mod parse;

pub use book::{Grant, GrantRule, Grants, PeerBook, PeerEntry, PeerName};
pub use edit::{Edited, PeerEdit};
pub use files::PeerFiles;
pub(in crate::node) use files::{INVITES, LOCK, Mark, PASSING, PEERS, read, remove, replace};
pub(in crate::node) use parse::{Checked, GrantsText, Word, invalid};

use std::io;
use std::path::PathBuf;

use crate::types::NodeId;

/// Most peers that a message lists.
const SHOWN: usize = 5;

/// A peer book that cannot be used, or a change of it that cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeersError {
    /// The file cannot be read or written.
    #[error("cannot {what} {path}: {source}", path = .path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may write the file, and so give themselves grants.
    #[error("{path} can be changed by others (mode {mode:03o}): look whether it is as you left \
        it, then run `chmod 600 {path}`", path = .path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is no peer book.
    #[error("{path}, line {line}: {reason}", path = .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line of the fault, from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// Nobody of that name or id is in the book.
    #[error("no peer {0:?} is known: `selfsame peer ls` lists them, `selfsame peer add` adds one")]
    Unknown(String),
    /// More than one id begins so.
    #[error("{text:?} is the beginning of more than one id: {}{}", listed(.ids),
        if .ids.len() > SHOWN { ", ..." } else { "" })]
    Ambiguous {
        /// What was written.
        text: String,
        /// The ids that begin so.
        ids: Vec<NodeId>,
    },
    /// The peer is in the book already.
    #[error(
        "{0} is a peer already: `selfsame peer grant` changes what it may do, `selfsame peer \
        rm` removes it"
    )]
    Known(NodeId),
    /// The name is another peer's.
    #[error("the name {name} is that of {owner}: choose another")]
    NameTaken {
        /// The name.
        name: PeerName,
        /// Who has it.
        owner: NodeId,
    },
    /// A node needs no peer that it is itself.
    #[error("{0} is this node's own id: give the id of the other node")]
    OwnId(NodeId),
    /// Text that is no name of a peer.
    #[error(
        "{0:?} is no name for a peer: use 1 to 63 letters, digits, -, _ and dots, of which \
        the first is a letter or digit"
    )]
    Name(String),
    /// Text that is no grant.
    #[error("{0:?} is no grant: use \"none\", \"read\" or \"write\"")]
    Grant(String),
    /// Text that is no rule.
    #[error(
        "{0:?} is no grant for a collection: write COLLECTION=none, COLLECTION=read or \
        COLLECTION=write; * stands for all collections that are not named"
    )]
    Rule(String),
}

fn listed(ids: &[NodeId]) -> String {
    let shown = ids.iter().take(SHOWN).map(ToString::to_string);
    shown.collect::<Vec<_>>().join(", ")
}
