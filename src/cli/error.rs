//! What can go wrong at the command line, and with which code it ends.
//!
//! ```
//! use selfsame::cli::{Exit, error::CliError};
//!
//! assert_eq!(CliError::NoFolder.exit(), Exit::Failed);
//! ```

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::Exit;
use crate::merkle::{BundleError, DigestError};
use crate::net::{CloseCode, LinkError, NetError};
use crate::node::client::ClientError;
use crate::node::home::HomeError;
use crate::node::pairing::{InvitationError, PairingError};
use crate::node::peers::PeersError;
use crate::replica::{ReplicaError, ViewError};
use crate::types::{CollectionName, TypeError};

/// A verb could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// It is not known where the node's data is.
    #[error("no data folder: name it with --data DIR or SELFSAME_DATA")]
    NoFolder,
    /// The data folder cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The replica failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// A snapshot could not be read.
    #[error(transparent)]
    View(#[from] ViewError),
    /// A key, name or the like that is none.
    #[error(transparent)]
    Word(#[from] TypeError),
    /// A key or prefix that is not the hex that it should be.
    #[error("{text:?} is not hex: with --hex, write two hex digits for each byte")]
    Hex {
        /// What was written.
        text: String,
    },
    /// A file or folder cannot be used.
    #[error("cannot {what} {path}: {source}", path = .path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Standard input cannot be read.
    #[error("cannot read standard input: {0}")]
    Input(io::Error),
    /// Nobody takes what is printed.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    /// The value is too large.
    #[error("the value is larger than the {0} bytes that max_value_bytes in config.toml allows")]
    ValueSize(u64),
    /// The bytes of a value are lost here.
    #[error(
        "the bytes of this value are lost or damaged here: the next `selfsame sync` with a peer \
        that has them fetches them again"
    )]
    ValueLost,
    /// The path to export to is in use.
    #[error("{path} {what}: choose another path, or repeat with --force to write over files of \
        the same names", path = .path.display())]
    Occupied {
        /// The path.
        path: PathBuf,
        /// In what way.
        what: &'static str,
    },
    /// Keys that cannot be file names.
    #[error(
        "{count} keys cannot be paths below a folder, so nothing was written: export to a \
        path that ends in .jsonl instead"
    )]
    UnsafeKeys {
        /// How many.
        count: u64,
    },
    /// The path is the data folder or lies within it.
    #[error("{} is this node's data folder or lies within it: choose another path", .0.display())]
    WithinData(PathBuf),
    /// Neither a folder nor a file.
    #[error("{} is neither a folder nor a file: give a folder, or a file of JSON lines",
        .0.display())]
    NeitherFileNorFolder(PathBuf),
    /// The collection is sound, and recovering it would lose something.
    #[error(
        "collection {0} is sound: recovering it would only make it forget which deletions it \
        has seen; nothing was done (--force does it all the same)"
    )]
    NothingToRecover(CollectionName),
    /// A peer could not be spoken with.
    #[error(transparent)]
    Client(ClientError),
    /// An address cannot be listened on, or a connection failed.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A peer cannot be named, or the book of peers not be used.
    #[error(transparent)]
    Peers(#[from] PeersError),
    /// No address can be given to a peer that is invited.
    #[error(
        "it is not known where peers reach this node: say so with --address HOST:PORT (the port \
        of `selfsame listen` is {0})"
    )]
    OwnAddress(u16),
    /// Text that is no invitation.
    #[error(transparent)]
    Invitation(#[from] InvitationError),
    /// Two nodes could not be paired.
    #[error(transparent)]
    Pairing(#[from] PairingError),
    /// A proof does not hold.
    #[error("not proved: {0}")]
    Bundle(#[from] BundleError),
    /// The digest of this node does not hold.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// The file to verify is too large.
    #[error("{} is larger than any proof bundle: it is none", .0.display())]
    NoBundle(PathBuf),
    /// The operating system has no thread, signal or the like left.
    #[error("the system gave no {what}: {source}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The demo could not go on.
    #[error(transparent)]
    Demo(#[from] super::demo::DemoError),
    /// Ctrl-C.
    #[error("stopped: what was done is kept")]
    Interrupted,
}

impl From<ClientError> for CliError {
    /// A stream that failed says why the connection failed.
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Frame(error) | ClientError::Link(LinkError::Frame(error)) => {
                Self::Net(error.into())
            }
            other => Self::Client(other),
        }
    }
}

impl CliError {
    /// A file or folder cannot be used.
    pub(super) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::File { what, path, source }
    }

    /// The code that the process ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Client(error) => of_client(error),
            Self::Net(error) => of_net(error),
            Self::Bundle(_) => Exit::Unproved,
            Self::Pairing(error) => of_pairing(error),
            Self::Interrupted => Exit::Interrupted,
            _ => Exit::Failed,
        }
    }

    /// What a person can do about it, where the error itself cannot know.
    fn advice(&self) -> Option<String> {
        match self {
            Self::Replica(ReplicaError::Damaged { collection, .. })
            | Self::View(ViewError::Damaged { collection, .. })
            | Self::Replica(ReplicaError::View(_, ViewError::Damaged { collection, .. })) => {
                Some(format!("run `selfsame recover {collection}`"))
            }
            Self::Replica(ReplicaError::PerhapsDamaged(name)) => {
                Some(format!("run `selfsame recover {name}`, or see `selfsame collection ls`"))
            }
            Self::Replica(ReplicaError::UnknownCollection(name)) => Some(format!(
                "`selfsame collection create {name}`, or see `selfsame collection ls`"
            )),
            _ => None,
        }
    }

    /// Says it on standard error: the error, causes that it does not name itself, what to do.
    pub(super) fn tell(&self) {
        if matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe) {
            return;
        }
        let mut told = format!("error: {self}");
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let text = error.to_string();
            if !told.contains(&text) {
                told.push_str(&format!("\n  caused by: {text}"));
            }
            cause = error.source();
        }
        if let Some(advice) = self.advice() {
            told.push_str(&format!("\n  what to do: {advice}"));
        }
        // nobody is left to tell if that fails
        let _ = writeln!(io::stderr(), "{told}");
    }
}

fn of_pairing(error: &PairingError) -> Exit {
    match error {
        PairingError::Refused | PairingError::Busy | PairingError::NotNoted => Exit::Refused,
        PairingError::Unproved => Exit::Unproved,
        PairingError::Lost(_) => Exit::Unreachable,
        PairingError::Net(error) => of_net(error),
        _ => Exit::Failed,
    }
}

fn of_client(error: &ClientError) -> Exit {
    match error {
        ClientError::Net(error) => of_net(error),
        ClientError::Link(LinkError::Net(error)) => of_net(error),
        ClientError::Link(LinkError::Version { .. })
        | ClientError::UnknownCollection(_)
        | ClientError::PeerFailed => Exit::Refused,
        ClientError::Link(_) | ClientError::Silent(_) => Exit::Unreachable,
        ClientError::BadDigest | ClientError::Wire(_) => Exit::Unproved,
        _ => Exit::Failed,
    }
}

fn of_net(error: &NetError) -> Exit {
    match error {
        NetError::Refused { .. }
        | NetError::WrongKey { .. }
        | NetError::Busy(_)
        | NetError::OtherProtocol(_)
        | NetError::ClosedByPeer { code: CloseCode::NotAdmitted | CloseCode::Busy, .. } => {
            Exit::Refused
        }
        NetError::Unreachable { .. }
        | NetError::Resolve { .. }
        | NetError::AddressFamily { .. }
        | NetError::Handshake { .. }
        | NetError::ClosedByPeer { .. }
        | NetError::IdleTimeout(_)
        | NetError::PeerRestarted(_)
        | NetError::Violated { .. }
        | NetError::Broken { .. }
        | NetError::StreamReset(_)
        | NetError::StreamStopped(_)
        | NetError::Frame(_) => Exit::Unreachable,
        _ => Exit::Failed,
    }
}
