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
use crate::api::error::{causes, of_net};
use crate::api::{ApiError, CallError, Problem};
use crate::backup::BackupError;
use crate::merkle::{
    BundleError, CertificateBundleError, ChangeBundleError, ContradictionError, EnvelopeError,
};
use crate::net::NetError;
use crate::node::home::HomeError;
use crate::node::pairing::{InvitationError, PairingError};
use crate::node::peers::PeersError;
use crate::types::TypeError;

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
    /// The node could not do it: in this process or in the one that has the node open.
    #[error(transparent)]
    Problem(Box<Problem>),
    /// The process that has the node open could not be asked.
    #[error(transparent)]
    Call(CallError),
    /// A key, name or the like that is none.
    #[error(transparent)]
    Word(#[from] TypeError),
    /// The variable that chooses what is logged says nothing of the kind.
    #[error(
        "SELFSAME_LOG={chosen:?} says nothing of a log ({what}): set it to error, warn, info, \
         debug or trace, or by parts, as in warn,selfsame=debug"
    )]
    Log {
        /// What it is.
        chosen: String,
        /// What is wrong with it.
        what: String,
    },
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
    /// The path to export to is in use.
    #[error("{path} {what}: choose another path, or repeat with --force to write over files of \
        the same names", path = .path.display())]
    Occupied {
        /// The path.
        path: PathBuf,
        /// In what way.
        what: &'static str,
    },
    /// The path is the data folder or lies within it.
    #[error("{} is this node's data folder or lies within it: choose another path", .0.display())]
    WithinData(PathBuf),
    /// Neither a folder nor a file.
    #[error("{} is neither a folder nor a file: give a folder, or a file of JSON lines",
        .0.display())]
    NeitherFileNorFolder(PathBuf),
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
    /// A proof of a change does not hold.
    #[error("not proved: {0}")]
    Change(ChangeBundleError),
    /// A proof says nothing of a key.
    #[error("not proved: the file says nothing of {0}: ask for a proof of that key")]
    NotAsked(crate::types::Key),
    /// An argument that this kind of proof needs, or has no use for.
    #[error("{0}")]
    Argument(&'static str),
    /// A line of a file of keys.
    #[error("line {line} of {}: {why}", .path.display())]
    KeyLine {
        /// The file; - is standard input.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// A certificate is none, or does not hold.
    #[error("{what}: {0}", what = if .0.is_well_formed() { "not valid" } else { "malformed" })]
    Certificate(#[from] CertificateBundleError),
    /// A file holds no evidence.
    #[error("not proved: {0}")]
    Evidence(#[from] ContradictionError),
    /// A file is no envelope.
    #[error("malformed: {0}")]
    Envelope(EnvelopeError),
    /// A certificate is between two nodes.
    #[error("a certificate is between two nodes: give --node twice, not {0} times")]
    TwoNodes(usize),
    /// The file to verify is too large.
    #[error("{} is larger than any proof bundle: it is none", .0.display())]
    NoBundle(PathBuf),
    /// A backup cannot be used.
    #[error("{path}: {source}", path = .path.display())]
    Backup {
        /// The file, or the last one of a chain.
        path: PathBuf,
        /// Why.
        source: BackupError,
    },
    /// A file is in the way of a backup.
    #[error("{} exists: a backup is never written over another file: choose another path",
        .0.display())]
    BackupExists(PathBuf),
    /// Only a folder has a last backup.
    #[error(
        "--incremental goes on behind the last backup in a folder: give --to a folder, or say \
        behind which file with --since"
    )]
    NoSeries,
    /// In a folder it is known where to go on.
    #[error(
        "--since goes with a file or standard output: in a folder, --incremental goes on \
        behind the last backup there"
    )]
    SinceInFolder,
    /// One file is one collection.
    #[error("a file or standard output takes one collection, not {0}: name it, or give a folder")]
    OneBackup(usize),
    /// One name is one collection.
    #[error(
        "--collection is the name of one collection, and this folder holds {0}: give the \
        folder or the files of one"
    )]
    OneName(usize),
    /// The folder of a collection holds backups of another.
    #[error("{} holds backups of another collection: choose another folder", .0.display())]
    OthersSeries(PathBuf),
    /// Somebody else writes there.
    #[error("another backup is being written to {}: wait until it has ended", .0.display())]
    SeriesInUse(PathBuf),
    /// A folder without backups.
    #[error("{} holds no backups that `selfsame backup` wrote", .0.display())]
    NoBackups(PathBuf),
    /// A folder where files are meant.
    #[error("{} is a folder: give either one folder, or the files of one chain in their order",
        .0.display())]
    FolderAmongFiles(PathBuf),
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

impl From<ChangeBundleError> for CliError {
    fn from(error: ChangeBundleError) -> Self {
        match error {
            ChangeBundleError::Bundle(error) => Self::Bundle(error),
            other => Self::Change(other),
        }
    }
}

impl From<ApiError> for CliError {
    fn from(error: ApiError) -> Self {
        Self::Problem(Box::new(Problem::from(&error)))
    }
}

impl From<NetError> for CliError {
    fn from(error: NetError) -> Self {
        ApiError::from(error).into()
    }
}

impl From<CallError> for CliError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Problem(problem) => Self::Problem(problem),
            other => Self::Call(other),
        }
    }
}

impl CliError {
    /// A file or folder cannot be used.
    pub(super) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::File { what, path, source }
    }

    /// A backup cannot be used.
    pub(super) fn backup(path: &Path) -> impl FnOnce(BackupError) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Backup { path, source }
    }

    /// The code that the process ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Problem(problem) => Exit::of_code(problem.exit),
            Self::Bundle(_) | Self::Change(_) | Self::NotAsked(_) | Self::Evidence(_) => {
                Exit::Unproved
            }
            Self::Certificate(error) if error.is_well_formed() => Exit::Unproved,
            Self::Backup { source, .. } if source.is_unsound() => Exit::Unproved,
            Self::Pairing(error) => of_pairing(error),
            Self::Interrupted => Exit::Interrupted,
            _ => Exit::Failed,
        }
    }

    /// Says it on standard error: the error, causes that it does not name itself, what to do.
    pub(super) fn tell(&self) {
        if matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe) {
            return;
        }
        // nobody is left to tell if that fails
        let _ = writeln!(io::stderr(), "{}", self.told());
    }

    /// As it is said: what is meant, causes that the error does not name itself, what to do.
    pub(super) fn told(&self) -> String {
        match self {
            // an answer rather than an error
            Self::Problem(problem) if self.exit() == Exit::Differs => problem.to_string(),
            Self::Problem(problem) => {
                let named = problem.named.iter().map(|line| format!("{line}\n"));
                named.chain([problem.told()]).collect()
            }
            other => {
                let causes = causes(other).into_iter();
                let causes = causes.map(|cause| format!("\n  caused by: {cause}"));
                [format!("error: {other}")].into_iter().chain(causes).collect()
            }
        }
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
