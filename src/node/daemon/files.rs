//! The files behind a daemon's settings, read again while it runs.

use std::path::{Path, PathBuf};

use super::Daemon;
use crate::node::config::Config;
use crate::node::home::{Home, HomeError};
use crate::node::peers::PeerFiles;
use crate::store::Store;
use crate::types::NodeId;

/// Where a daemon's settings and peers are written: the config and the peer book of its data
/// folder.
#[derive(Clone, Debug)]
pub struct ConfigFiles {
    folder: PathBuf,
    started_with: Config,
    allowed: Vec<NodeId>,
}

/// What came of reading them again.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reloaded {
    /// Peers in the book now.
    pub peers: usize,
    /// Settings that have changed since the daemon was started, and that only a start anew takes
    /// over.
    pub needs_restart: Vec<&'static str>,
}

impl ConfigFiles {
    /// Those of a data folder. What the daemon was started with, and the nodes that may connect
    /// beside those that the config names.
    #[must_use]
    pub fn new(folder: &Path, started_with: &Config, allowed: Vec<NodeId>) -> Self {
        Self { folder: folder.into(), started_with: started_with.clone(), allowed }
    }

    /// Reads them again, and lets the daemon go by them.
    ///
    /// # Errors
    /// One of them cannot be used, and says where and why; then nothing is changed.
    pub fn reload<S: Store>(&self, daemon: &Daemon<S>) -> Result<Reloaded, HomeError> {
        let config = Home::config_of(&self.folder)?;
        let book = PeerFiles::new(&self.folder).book()?;
        let peers = book.peers.len();
        daemon.reload(&config, book, self.allowed.iter().copied());
        Ok(Reloaded { peers, needs_restart: self.started_with.needs_restart(&config) })
    }
}
