//! The file that hands a writer from a clean close to the next opening (rule D1's exception).
//!
//! A copy of a store must never find it, and a store that was put back to an earlier moment must
//! not find an earlier one. So it lies in memory, not beside the store: in the runtime folder of
//! the user or in `/dev/shm`, which no backup, no snapshot and no image of the store's disk
//! holds, and which end with the boot. It names the boot, the store's marker file and itself by
//! device, inode and the times that nobody can set, is deleted before it is used, and is private
//! to the user. Where the system cannot tell all that, there is no token.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

const MAGIC: &[u8] = b"selfsame token 1\n";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const MYSELF: &str = "/proc/self";
const RUNTIME_FOLDER: &str = "XDG_RUNTIME_DIR";
const SHARED_MEMORY: &str = "/dev/shm";
const EXTENSION: &str = "token";
const MAX_BYTES: u64 = 1 << 20;
const CHECK_BYTES: usize = 32;
/// Files of stores that are gone are not worth a search: beyond this many, all make way.
const MAX_FILES: usize = 1_024;

/// Where the token of one store lies, and what it must match.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct TokenFile {
    folder: PathBuf,
    path: PathBuf,
    /// Boot and store.
    origin: Vec<u8>,
}

impl TokenFile {
    /// Of the store with this marker file; none where a token could be copied or outlive the
    /// boot.
    pub(super) fn of(marker: &Path) -> Option<Self> {
        let store = fs::metadata(marker).ok()?;
        let user = fs::metadata(MYSELF).ok()?.uid();
        let boot = fs::read(BOOT_ID).ok().filter(|boot| boot.len() >= 36)?;
        // another file system than the store's, or its snapshots would hold the token
        let apart = |folder: &Path| {
            fs::metadata(folder).is_ok_and(|found| found.is_dir() && found.dev() != store.dev())
        };
        let of_user = std::env::var_os(RUNTIME_FOLDER).map(PathBuf::from);
        let folder = of_user
            .filter(|folder| folder.is_absolute() && apart(folder) && is_private(folder, user))
            .map(|folder| folder.join("selfsame"))
            .or_else(|| {
                let shared = Path::new(SHARED_MEMORY);
                apart(shared).then(|| shared.join(format!("selfsame-{user}")))
            })?;
        Self::within(folder, &store, &boot)
    }

    fn within(folder: PathBuf, store: &Metadata, boot: &[u8]) -> Option<Self> {
        let store = identity(store)?;
        let name = blake3::hash(&store).to_hex();
        let path = folder.join(&name.as_str()[..32]).with_extension(EXTENSION);
        Some(Self { folder, path, origin: [MAGIC, boot, &store].concat() })
    }

    /// What was left for this store, once: it is deleted before anything of it is returned.
    pub(super) fn take(&self) -> Option<Vec<u8>> {
        let user = fs::metadata(MYSELF).ok()?.uid();
        if !is_private(&self.folder, user) || !fs::symlink_metadata(&self.path).ok()?.is_file() {
            return None;
        }
        let file = File::open(&self.path);
        fs::remove_file(&self.path).ok()?;
        File::open(&self.folder).and_then(|folder| folder.sync_all()).ok()?;
        let file = file.ok()?;
        let itself = identity(&file.metadata().ok()?)?;
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
        let (body, check) = bytes.split_last_chunk::<CHECK_BYTES>()?;
        let payload = body.strip_prefix(&*self.origin)?.strip_prefix(&itself[..BORN_AT])?;
        (blake3::hash(body) == *check).then(|| payload.to_vec())
    }

    /// Leaves a token in place of any other.
    pub(super) fn leave(&self, payload: &[u8]) -> io::Result<()> {
        self.make_folder()?;
        remove(&self.path)?;
        let written = self.write(payload);
        if written.is_err() {
            remove(&self.path)?;
        }
        written
    }

    fn write(&self, payload: &[u8]) -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path)?;
        let itself = identity(&file.metadata()?).ok_or(ErrorKind::Unsupported)?;
        let mut bytes = [&self.origin, &itself[..BORN_AT], payload].concat();
        bytes.extend_from_slice(blake3::hash(&bytes).as_bytes());
        if bytes.len() as u64 > MAX_BYTES {
            return Err(ErrorKind::FileTooLarge.into());
        }
        file.write_all(&bytes)?;
        file.sync_all()?;
        File::open(&self.folder)?.sync_all()
    }

    fn make_folder(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if !is_private(&self.folder, fs::metadata(MYSELF)?.uid()) {
            return Err(ErrorKind::PermissionDenied.into());
        }
        let files: Vec<PathBuf> = fs::read_dir(&self.folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension() == Some(OsStr::new(EXTENSION)))
            .collect();
        if files.len() >= MAX_FILES {
            files.iter().try_for_each(|path| remove(path))?;
        }
        Ok(())
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether this is a folder, no link, of this user, that nobody else may enter.
fn is_private(folder: &Path, user: u32) -> bool {
    fs::symlink_metadata(folder)
        .is_ok_and(|found| found.is_dir() && found.uid() == user && found.mode() & 0o077 == 0)
}

/// In an identity, what holds from a file's creation on; what follows changes when it is written.
const BORN_AT: usize = 24;

/// Device, inode, time of birth, time of the last change, links. Neither time can be set: a file
/// that was copied, restored or linked has another identity.
fn identity(file: &Metadata) -> Option<[u8; 48]> {
    let born = file.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
    let numbers = [
        file.dev(),
        file.ino(),
        u64::try_from(born.as_nanos()).ok()?,
        file.ctime() as u64,
        file.ctime_nsec() as u64,
        file.nlink(),
    ];
    let mut bytes = [0; 48];
    for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    const BOOT: &[u8] = b"2a3c2b4e-0000-4000-8000-000000000001\n";

    struct Place {
        root: tempfile::TempDir,
        marker: PathBuf,
    }

    impl Place {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let marker = root.path().join("FORMAT");
            fs::write(&marker, "a store").unwrap();
            Self { root, marker }
        }

        fn token_of(&self, marker: &Path, boot: &[u8]) -> TokenFile {
            let folder = self.root.path().join("tokens");
            TokenFile::within(folder, &fs::metadata(marker).unwrap(), boot).unwrap()
        }

        fn token(&self) -> TokenFile {
            self.token_of(&self.marker, BOOT)
        }
    }

    #[test]
    fn a_token_is_taken_once() {
        let place = Place::new();
        let token = place.token();
        assert_eq!(token.take(), None);
        token.leave(b"first").unwrap();
        token.leave(b"second").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&token.folder), mode(&token.path)), (0o700, 0o600));
        assert_eq!(place.token().take().as_deref(), Some(&b"second"[..]));
        assert_eq!(place.token().take(), None);
    }

    #[test]
    fn another_boot_takes_nothing_and_leaves_nothing_behind() {
        let place = Place::new();
        place.token().leave(b"left").unwrap();
        let later = b"2a3c2b4e-0000-4000-8000-000000000002\n";
        assert_eq!(place.token_of(&place.marker, later).take(), None);
        assert_eq!(place.token().take(), None);
    }

    #[test]
    fn a_token_that_was_kept_aside_and_put_back_is_none() {
        let place = Place::new();
        let token = place.token();
        token.leave(b"left").unwrap();
        let copy = fs::read(&token.path).unwrap();
        assert!(token.take().is_some());
        fs::write(&token.path, &copy).unwrap();
        assert_eq!(token.take(), None);
        // nor when the file of a later token is written over
        token.leave(b"later").unwrap();
        fs::write(&token.path, &copy).unwrap();
        assert_eq!(token.take(), None);
        assert!(!token.path.exists());
    }

    #[test]
    fn a_copied_or_restored_store_has_no_token() {
        let place = Place::new();
        place.token().leave(b"left").unwrap();
        let copy = place.root.path().join("copy");
        fs::copy(&place.marker, &copy).unwrap();
        assert_eq!(place.token_of(&copy, BOOT).take(), None);
        // even if the file is given the name that the copy looks for
        fs::rename(place.token().path, place.token_of(&copy, BOOT).path).unwrap();
        assert_eq!(place.token_of(&copy, BOOT).take(), None);
        let linked = place.root.path().join("linked");
        place.token().leave(b"left").unwrap();
        fs::hard_link(&place.marker, &linked).unwrap();
        assert_eq!(place.token_of(&linked, BOOT).take(), None);
    }

    #[test]
    fn a_broken_token_is_none() {
        let place = Place::new();
        let token = place.token();
        for at in [0, 20, 60, 100, 125] {
            token.leave(b"left").unwrap();
            let mut file = OpenOptions::new().write(true).read(true).open(&token.path).unwrap();
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &[bytes[at] ^ 1], at as u64).unwrap();
            assert_eq!(token.take(), None, "byte {at} of {}", bytes.len());
        }
        fs::create_dir_all(&token.path).unwrap();
        assert_eq!(token.take(), None);
        assert!(token.leave(b"left").is_err());
    }

    #[test]
    fn a_folder_that_others_may_enter_is_not_used() {
        let place = Place::new();
        let token = place.token();
        token.leave(b"left").unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o750);
        fs::set_permissions(&token.folder, open).unwrap();
        assert_eq!(token.take(), None);
        assert!(token.leave(b"left").is_err());
    }

    #[test]
    fn tokens_of_stores_that_are_gone_make_way() {
        let place = Place::new();
        let token = place.token();
        token.leave(b"left").unwrap();
        for number in 0..MAX_FILES {
            fs::write(token.folder.join(format!("{number}.{EXTENSION}")), "old").unwrap();
        }
        token.leave(b"left").unwrap();
        assert_eq!(fs::read_dir(&token.folder).unwrap().count(), 1);
        assert!(token.take().is_some());
    }
}
