//! The node's data folder.
//!
//! | file | what it holds |
//! |---|---|
//! | `identity` | the node's key pair, mode 0600; whoever has it is this node |
//! | `config.toml` | its settings |
//! | `peers.toml` | whom it knows, and what each may do |
//! | `invites.toml` | its open invitations |
//! | `peers.lock` | held by whoever changes one of these two |
//! | `store/` | its collections |
//! | `control.sock` | where a process that has it open answers others |
//! | `in-use` | the process that has the store open, while there is one |
//!
//! ```
//! use selfsame::node::home::Home;
//!
//! let folder = tempfile::tempdir()?;
//! let id = Home::init(folder.path())?;
//! let home = Home::open(folder.path())?;
//! assert_eq!(home.identity.node_id(), id);
//! home.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::TryRng as _;

use super::Node;
use super::access::Access;
use super::config::{Config, ConfigError};
use super::manager::SessionManager;
use super::peers::{self, INVITES, LOCK, PEERS, PeerFiles, PeersError};
use crate::net::{Identity, IdentityError};
use crate::replica::{Replica, ReplicaError, ReplicaOptions};
use crate::store::{EmbeddedOptions, EmbeddedStore, StoreError};
use crate::types::NodeId;

const IDENTITY: &str = "identity";
const CONFIG: &str = "config.toml";
const STORE: &str = "store";
const IN_USE: &str = "in-use";
/// The socket where a process that has the node open answers others, and where it is made.
pub(crate) const CONTROL: &str = "control.sock";
pub(crate) const CONTROL_NEW: &str = "control.new";
/// How names begin under which these files are written at first.
const PASSING_CONFIG: &str = ".config-";
const PASSING: [&str; 2] = [PASSING_CONFIG, Identity::PASSING];

/// A data folder that cannot be made or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// There is no node.
    #[error("there is no node in {folder}: make one with `selfsame init`, or name another folder \
        with --data DIR or SELFSAME_DATA", folder = .0.display())]
    Missing(PathBuf),
    /// There is a node already.
    #[error("there is a node in {folder} already, with id {id}: nothing was changed",
        folder = .folder.display())]
    Exists {
        /// The folder.
        folder: PathBuf,
        /// The id of its node.
        id: NodeId,
    },
    /// The folder holds something else.
    #[error("{folder} holds other things than a node ({found}): choose an empty folder",
        folder = .folder.display(), found = .found.display())]
    NotEmpty {
        /// The folder.
        folder: PathBuf,
        /// One of the things.
        found: PathBuf,
    },
    /// The store is in use.
    #[error("the data folder {folder} is in use by {process}: end that one first (Ctrl-C ends \
        `selfsame listen` cleanly)", folder = .folder.display(), process = named(*.process))]
    Held {
        /// The folder.
        folder: PathBuf,
        /// The process, if it is known.
        process: Option<u32>,
    },
    /// The file system failed.
    #[error("cannot access {path}: {source}", path = .path.display())]
    File {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The identity cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The settings cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The peer book cannot be used.
    #[error(transparent)]
    Peers(#[from] PeersError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(StoreError),
    /// The collections cannot be opened.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The operating system has no randomness to give.
    #[error("the operating system gave no random bytes: {0}")]
    Randomness(String),
}

fn named(id: Option<u32>) -> String {
    id.map_or_else(|| "another process".into(), |id| format!("another process ({id})"))
}

/// An open data folder: a node that is ready. One process has it at a time.
pub struct Home {
    /// The folder.
    pub folder: PathBuf,
    /// Who the node is.
    pub identity: Arc<Identity>,
    /// Its settings.
    pub config: Config,
    /// Who may do what at it: its peer book, and the nodes that the settings allow.
    pub access: Access,
    /// Its collections.
    pub replica: Arc<Replica<EmbeddedStore>>,
    /// Its sessions with all peers, whatever part of the process runs them.
    pub sessions: SessionManager,
    // goes before the store does, so that it never names a process that comes later
    notice: Notice,
    store: EmbeddedStore,
}

impl Home {
    /// Makes a node: identity, config and an empty store, in a folder that is empty or not
    /// there. What an earlier attempt left is kept and completed.
    ///
    /// # Errors
    /// There is a node already, the folder holds other things, or the disk failed.
    pub fn init(folder: &Path) -> Result<NodeId, HomeError> {
        make_folder(folder)?;
        check_contents(folder)?;
        let (identity, config) = (folder.join(IDENTITY), folder.join(CONFIG));
        if identity.exists() && config.exists() && folder.join(STORE).exists() {
            let id = Identity::open(&identity)?.node_id();
            return Err(HomeError::Exists { folder: folder.into(), id });
        }
        // first of all: whoever has the store has the folder
        let store = EmbeddedStore::open(folder.join(STORE), EmbeddedOptions::default())
            .map_err(|error| of_store(folder, error))?;
        sweep(folder)?;
        let id = Identity::open_or_create(&identity)?.node_id();
        if !config.exists() {
            write_new(&config, Config::DEFAULT_TEXT.as_bytes())?;
        }
        store.close().map_err(|error| of_store(folder, error))?;
        Ok(id)
    }

    /// The identity alone, which needs no store: works while another process has it open.
    ///
    /// # Errors
    /// There is no node, or the file cannot be used.
    pub fn identity_of(folder: &Path) -> Result<Identity, HomeError> {
        match Identity::open(&folder.join(IDENTITY)) {
            Err(IdentityError::Missing(_)) => Err(HomeError::Missing(folder.into())),
            other => Ok(other?),
        }
    }

    /// The settings alone.
    ///
    /// # Errors
    /// There is no such file, or it is no config.
    pub fn config_of(folder: &Path) -> Result<Config, HomeError> {
        Ok(Config::load(&folder.join(CONFIG))?)
    }

    /// Where the identity of the node of a folder is.
    #[must_use]
    pub fn identity_file(folder: &Path) -> PathBuf {
        folder.join(IDENTITY)
    }

    /// Where its store is.
    #[must_use]
    pub fn store_of(folder: &Path) -> PathBuf {
        folder.join(STORE)
    }

    /// Opens the node.
    ///
    /// # Errors
    /// There is none, another process has it open, or a part of it cannot be used.
    pub fn open(folder: &Path) -> Result<Self, HomeError> {
        let identity = Arc::new(Self::identity_of(folder)?);
        let config = Self::config_of(folder)?;
        let access = Access::open(folder, config.allow.iter().copied())?;
        // the first draw says whether there is randomness at all
        system_random().map_err(HomeError::Randomness)?;
        let store = EmbeddedStore::open(folder.join(STORE), EmbeddedOptions::default())
            .map_err(|error| of_store(folder, error))?;
        let notice = Notice::put_up(folder);
        sweep(folder)?;
        let options = ReplicaOptions {
            limits: config.limits(),
            durability: config.durability(),
            ..ReplicaOptions::default()
        };
        let replica = Arc::new(Replica::open(store.clone(), options, Box::new(random))?);
        let sessions = SessionManager::new(config.sessions());
        let folder = folder.into();
        Ok(Self { folder, identity, config, access, replica, sessions, notice, store })
    }

    /// The node, to speak with others.
    #[must_use]
    pub fn node(&self) -> Node<EmbeddedStore> {
        Node {
            replica: Arc::clone(&self.replica),
            identity: Arc::clone(&self.identity),
            config: self.config.sync(),
            patience: self.config.patience(),
            access: self.access.clone(),
            sessions: self.sessions.clone(),
        }
    }

    /// Syncs everything and leaves the folder so that the next opening is quick. The folder is
    /// free once the last handle on the replica is gone.
    ///
    /// # Errors
    /// The disk failed.
    pub fn close(self) -> Result<(), HomeError> {
        let Self { folder, replica, notice, store, .. } = self;
        replica.close()?;
        drop((replica, notice));
        store.close().map_err(|error| of_store(&folder, error))
    }
}

fn of_store(folder: &Path, error: StoreError) -> HomeError {
    match error {
        StoreError::Held { .. } => {
            HomeError::Held { folder: folder.into(), process: Notice::read(folder) }
        }
        other => HomeError::Store(other),
    }
}

fn system_random() -> Result<u64, String> {
    rand::rngs::SysRng.try_next_u64().map_err(|error| error.to_string())
}

fn random() -> u64 {
    system_random().expect("the system gave random bytes when the node was opened")
}

fn make_folder(folder: &Path) -> Result<(), HomeError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|source| HomeError::File { path: folder.into(), source })
}

fn check_contents(folder: &Path) -> Result<(), HomeError> {
    let failed = |source| HomeError::File { path: folder.into(), source };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let ours = [IDENTITY, CONFIG, STORE, IN_USE, CONTROL, CONTROL_NEW, PEERS, INVITES, LOCK];
        let passes = is_passing(&name, &PASSING) || is_passing(&name, &[peers::PASSING]);
        if !passes && !ours.iter().any(|ours| name == *ours) {
            return Err(HomeError::NotEmpty { folder: folder.into(), found: name.into() });
        }
    }
    Ok(())
}

/// Whether it is the name of a file that a file of ours is written under before it gets its own.
fn is_passing(name: &OsStr, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes()))
}

/// Removes what a process left that was killed: half a file, a socket. Whoever calls this has the
/// store open, and offers no socket yet.
fn sweep(folder: &Path) -> Result<(), HomeError> {
    let failed = |source| HomeError::File { path: folder.into(), source };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if is_passing(&entry.file_name(), &PASSING) {
            fs::remove_file(entry.path()).map_err(failed)?;
        } else if entry.file_name() == CONTROL_NEW {
            fs::remove_dir_all(entry.path()).map_err(failed)?;
        } else if entry.file_name() == CONTROL && is_socket(&entry).map_err(failed)? {
            // whoever answered there had the store
            fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    Ok(PeerFiles::new(folder).sweep()?)
}

#[cfg(unix)]
fn is_socket(entry: &fs::DirEntry) -> io::Result<bool> {
    Ok(std::os::unix::fs::FileTypeExt::is_socket(&entry.file_type()?))
}

#[cfg(not(unix))]
fn is_socket(_: &fs::DirEntry) -> io::Result<bool> {
    Ok(false)
}

/// Writes a file that is not there yet, whole or not at all.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), HomeError> {
    let write = || -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        builder.prefix(PASSING_CONFIG);
        // as any other file of the user: it holds no secret
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist_noclobber(path).map_err(|refused| refused.error)?;
        if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
    };
    write().map_err(|source| HomeError::File { path: path.into(), source })
}

/// The file that names the process which has the store open. Only a help to people: the lock is
/// the store's.
struct Notice(PathBuf);

impl Notice {
    fn put_up(folder: &Path) -> Self {
        let path = folder.join(IN_USE);
        // a disk too full for it is no reason not to read
        let _ = fs::write(&path, format!("{}\n", std::process::id()));
        Self(path)
    }

    fn read(folder: &Path) -> Option<u32> {
        fs::read_to_string(folder.join(IN_USE)).ok()?.trim().parse().ok()
    }
}

impl Drop for Notice {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_node_is_made_once_and_completed_when_that_was_cut_short() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Home::open(folder.path()), Err(HomeError::Missing(_))));
        let id = Home::init(folder.path()).unwrap();
        assert!(matches!(Home::init(folder.path()), Err(HomeError::Exists { id: same, .. })
            if same == id));
        fs::remove_file(folder.path().join(CONFIG)).unwrap();
        assert!(Home::open(folder.path()).is_err());
        assert_eq!(Home::init(folder.path()).unwrap(), id);
        Home::open(folder.path()).unwrap().close().unwrap();
        assert!(!folder.path().join(IN_USE).exists());
    }

    #[test]
    fn what_was_being_written_when_a_process_died_is_no_obstacle_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let left = [".identity-x1Y2z3", ".config-x1Y2z3", ".peers-x1Y2z3"]
            .map(|name| folder.path().join(name));
        let killed = || left.iter().for_each(|path| fs::write(path, "half").unwrap());
        killed();
        Home::init(folder.path()).unwrap();
        assert!(!left.iter().any(|path| path.exists()));
        killed();
        #[cfg(unix)]
        drop(std::os::unix::net::UnixListener::bind(folder.path().join(CONTROL)).unwrap());
        fs::create_dir(folder.path().join(CONTROL_NEW)).unwrap();
        Home::open(folder.path()).unwrap().close().unwrap();
        assert!(!left.iter().any(|path| path.exists()));
        assert!(!folder.path().join(CONTROL).exists() && !folder.path().join(CONTROL_NEW).exists());
    }

    #[test]
    fn who_has_the_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        Home::init(folder.path()).unwrap();
        let _home = Home::open(folder.path()).unwrap();
        let Err(held) = Home::open(folder.path()) else { panic!("opened twice") };
        assert!(held.to_string().contains(&std::process::id().to_string()), "{held}");
    }
}
