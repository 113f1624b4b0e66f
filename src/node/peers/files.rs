//! The files: read with a limit, replaced as a whole, changed by one process at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::edit::PeerEdit;
use super::{PeerBook, PeersError};

/// Longest file that is read: some thousands of peers.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// The name of the peer book in a data folder.
pub(in crate::node) const PEERS: &str = "peers.toml";
/// The name of the open invitations there.
pub(in crate::node) const INVITES: &str = "invites.toml";
/// Held while one of the two is changed.
pub(in crate::node) const LOCK: &str = "peers.lock";
/// How the names begin under which the two are written before they get their own.
pub(in crate::node) const PASSING: &str = ".peers-";

/// By which a changed file is told from the same one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::node) struct Mark {
    modified: SystemTime,
    length: u64,
}

/// The peer book and the open invitations of a data folder.
///
/// Needs no open store: it may be used beside a process that has the folder open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerFiles {
    folder: PathBuf,
}

impl PeerFiles {
    /// Those of a data folder.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.into() }
    }

    /// Where the peer book is.
    #[must_use]
    pub fn peers_path(&self) -> PathBuf {
        self.folder.join(PEERS)
    }

    /// Where the open invitations are.
    #[must_use]
    pub fn invites_path(&self) -> PathBuf {
        self.folder.join(INVITES)
    }

    /// Reads the peer book.
    ///
    /// # Errors
    /// As [`PeerBook::load`].
    pub fn book(&self) -> Result<PeerBook, PeersError> {
        PeerBook::load(&self.peers_path())
    }

    /// Changes the peer book: what is written is read back first, so that it is never left
    /// broken, and replaces the file as a whole, synced. Nothing is written if nothing changed
    /// or the change fails.
    ///
    /// # Errors
    /// The book cannot be read or written, or the change cannot be made.
    pub fn edit<R>(
        &self,
        change: impl FnOnce(&mut PeerEdit) -> Result<R, PeersError>,
    ) -> Result<R, PeersError> {
        let _lock = self.lock()?;
        let path = self.peers_path();
        let before = read(&path)?.unwrap_or_default();
        let mut edit = PeerEdit::new(&before, &path)?;
        let done = change(&mut edit)?;
        let after = edit.finish(&path)?;
        if after != before {
            replace(&path, after.as_bytes())?;
        }
        Ok(done)
    }

    /// By which a changed peer book is told from the same one, without reading it: none while
    /// there is no file.
    pub(in crate::node) fn mark(&self) -> Option<Mark> {
        let metadata = fs::metadata(self.peers_path()).ok()?;
        Some(Mark { modified: metadata.modified().ok()?, length: metadata.len() })
    }

    /// Removes what a process left that was killed while it wrote one of the files.
    pub(in crate::node) fn sweep(&self) -> Result<(), PeersError> {
        let failed = |source| PeersError::File { what: "clear", path: self.folder.clone(), source };
        if passing(&self.folder).map_err(failed)?.is_empty() {
            return Ok(());
        }
        let _lock = self.lock()?;
        // what is there now, nobody writes any more
        passing(&self.folder).map_err(failed)?.iter().try_for_each(|path| remove(path))
    }

    /// Keeps other processes from changing the files until it is dropped.
    pub(in crate::node) fn lock(&self) -> Result<File, PeersError> {
        let path = self.folder.join(LOCK);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let opened = options.open(&path).and_then(|file| file.lock().map(|()| file));
        opened.map_err(|source| PeersError::File { what: "lock", path, source })
    }
}

fn passing(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(PASSING.as_bytes()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// The text of a file, if it is there.
pub(in crate::node) fn read(path: &Path) -> Result<Option<String>, PeersError> {
    let failed = |source| PeersError::File { what: "read", path: path.into(), source };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    check_permissions(&file, path)?;
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(failed(io::Error::other("it is larger than any such file: over 4 MiB")));
    }
    Ok(Some(text))
}

/// Puts a file of mode 0600 in the place of another, synced, all of it or nothing.
pub(in crate::node) fn replace(path: &Path, bytes: &[u8]) -> Result<(), PeersError> {
    write(path, bytes).map_err(|source| PeersError::File {
        what: "write",
        path: path.into(),
        source,
    })
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = folder_of(path);
    // of mode 0600 from the first moment
    let mut file = tempfile::Builder::new().prefix(PASSING).tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|refused| refused.error)?;
    sync_folder(folder)
}

/// Removes a file, synced; one that is not there is removed.
pub(in crate::node) fn remove(path: &Path) -> Result<(), PeersError> {
    let removed = match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.and_then(|()| sync_folder(folder_of(path))),
    };
    removed.map_err(|source| PeersError::File { what: "remove", path: path.into(), source })
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A name is durable only when its folder is.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(unix)]
fn check_permissions(file: &File, path: &Path) -> Result<(), PeersError> {
    use std::os::unix::fs::PermissionsExt as _;

    let failed = |source| PeersError::File { what: "read", path: path.into(), source };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(io::Error::other("it is no file")));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o022 == 0 {
        Ok(())
    } else {
        Err(PeersError::Permissions { path: path.into(), mode })
    }
}

#[cfg(not(unix))]
fn check_permissions(_file: &File, _path: &Path) -> Result<(), PeersError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_or_stays() {
        let folder = tempfile::tempdir().unwrap();
        let files = PeerFiles::new(folder.path());
        let path = files.peers_path();
        assert_eq!(files.book().unwrap(), PeerBook::default());
        assert_eq!(read(&path).unwrap(), None);
        replace(&path, b"# nobody\n").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("# nobody\n"));
        let failed: Result<(), _> = files.edit(|_| Err(PeersError::Unknown("x".into())));
        assert!(failed.is_err());
        files.edit(|_| Ok(())).unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("# nobody\n"));
        replace(&path, &vec![b'#'; (MAX_FILE_BYTES + 1) as usize]).unwrap();
        assert!(files.book().unwrap_err().to_string().contains("4 MiB"));
        remove(&path).unwrap();
        remove(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(files.book().is_err());
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 2, "the lock and the folder: nothing is left over");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let files = PeerFiles::new(folder.path());
        files.edit(|_| Ok(())).unwrap();
        replace(&files.peers_path(), b"").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&files.peers_path()), 0o600);
        assert_eq!(mode(&folder.path().join(LOCK)), 0o600);
        for mode in [0o620, 0o602, 0o666] {
            fs::set_permissions(files.peers_path(), PermissionsExt::from_mode(mode)).unwrap();
            let refused = files.book().unwrap_err();
            assert!(refused.to_string().contains("chmod 600"), "{refused}");
        }
        fs::set_permissions(files.peers_path(), PermissionsExt::from_mode(0o644)).unwrap();
        assert!(files.book().is_ok());
    }
}
