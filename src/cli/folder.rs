//! Folders as collections: a file is an entry, its key the path below the folder with `/`.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Component, Path, PathBuf};

use tempfile::NamedTempFile;

use super::error::CliError;
pub(super) use crate::api::paths::path_of;
use crate::types::Key;

/// The key of a file below a folder.
pub(super) fn key_of(folder: &Path, file: &Path) -> Result<Key, String> {
    let below = file.strip_prefix(folder).map_err(|error| error.to_string())?;
    let mut key = String::new();
    for part in below.components() {
        let Component::Normal(part) = part else {
            return Err("its path has no plain parts".into());
        };
        let part = part.to_str().ok_or("its name is not UTF-8: rename it")?;
        if !key.is_empty() {
            key.push('/');
        }
        key.push_str(part);
    }
    Key::new(key).map_err(|error| format!("its path below the folder is no key: {error}"))
}

/// A file that has no name yet, in a folder; it gets one when it is complete.
pub(super) fn new_file(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".selfsame-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // less the umask
    builder.tempfile_in(folder)
}

/// Writes a file, which appears whole or not at all.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut file = new_file(folder).map_err(CliError::file("write", path))?;
    file.write_all(bytes).map_err(CliError::file("write", path))?;
    file.persist(path).map_err(|error| CliError::file("write", path)(error.error))?;
    Ok(())
}

/// Refuses a path that is the data folder or lies within it.
pub(super) fn outside(path: &Path, data: &Path) -> Result<(), CliError> {
    let Ok(data) = data.canonicalize() else { return Ok(()) };
    // what does not exist yet is judged by what it will lie in
    let mut existing = path.to_path_buf();
    let within = loop {
        match existing.canonicalize() {
            Ok(full) => break full.starts_with(&data),
            Err(_) if existing.pop() => {
                if existing.as_os_str().is_empty() {
                    existing.push(".");
                }
            }
            Err(_) => break false,
        }
    };
    if within { Err(CliError::WithinData(path.to_path_buf())) } else { Ok(()) }
}

/// Writes files below a folder; never through a link, never half a file.
pub(super) struct FolderWriter {
    folder: PathBuf,
    overwrite: bool,
    made: HashSet<PathBuf>,
}

impl FolderWriter {
    /// Into a folder that is made if it is not there.
    pub(super) fn new(folder: &Path, overwrite: bool) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.into(), overwrite, made: HashSet::new() })
    }

    pub(super) fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let parent = path.parent().unwrap_or(Path::new(""));
        let folder = self.make(parent)?;
        let mut file = new_file(&folder)?;
        file.write_all(bytes)?;
        let target = self.folder.join(path);
        let kept =
            if self.overwrite { file.persist(target) } else { file.persist_noclobber(target) };
        kept.map(drop).map_err(|error| error.error)
    }

    fn make(&mut self, below: &Path) -> io::Result<PathBuf> {
        let mut folder = self.folder.clone();
        for part in below.components() {
            folder.push(part);
            if self.made.contains(&folder) {
                continue;
            }
            match fs::create_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if !fs::symlink_metadata(&folder)?.is_dir() {
                        let what = format!("{} is in the way: it is no folder", folder.display());
                        return Err(io::Error::new(io::ErrorKind::NotADirectory, what));
                    }
                }
                other => other?,
            }
            self.made.insert(folder.clone());
        }
        Ok(folder)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::api::paths::UnsafeKey;
    use proptest::prelude::*;

    fn key(bytes: &[u8]) -> Key {
        Key::new(bytes).unwrap()
    }

    #[test]
    fn keys_that_would_leave_the_folder_are_no_paths() {
        for (bytes, why) in [
            (&b"/etc/passwd"[..], UnsafeKey::EmptyPart),
            (b"../up", UnsafeKey::Dots),
            (b"a/../../up", UnsafeKey::Dots),
            (b"a/./b", UnsafeKey::Dots),
            (b"a//b", UnsafeKey::EmptyPart),
            (b"a/", UnsafeKey::EmptyPart),
            (b"a\0b", UnsafeKey::Character),
            (b"\xff", UnsafeKey::NotText),
        ] {
            assert_eq!(path_of(&key(bytes)), Err(why));
        }
        assert_eq!(path_of(&key(b"a/..b/c d")).unwrap(), Path::new("a/..b/c d"));
    }

    proptest! {
        #[test]
        fn a_path_and_its_key_are_one_thing(parts in prop::collection::vec("[^/\0]{0,9}", 1..5)) {
            let text = parts.join("/");
            let Ok(key) = Key::new(text.clone()) else { return Ok(()) };
            if let Ok(path) = path_of(&key) {
                let folder = Path::new("/somewhere");
                prop_assert_eq!(key_of(folder, &folder.join(&path)).unwrap(), key);
            }
        }

        #[test]
        fn no_key_leads_outside(bytes in prop::collection::vec(
            prop_oneof![Just(b'/'), Just(b'.'), Just(b'a'), any::<u8>()], 1..24,
        )) {
            if let Ok(path) = path_of(&key(&bytes)) {
                let plain = |part| matches!(part, Component::Normal(_));
                prop_assert!(path.components().all(plain));
            }
        }
    }
}
