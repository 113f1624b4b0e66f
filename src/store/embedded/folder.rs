//! The folder of a store on disk: whose it is, and what an opening that was cut short left there.
//!
//! | name | what it holds |
//! |---|---|
//! | `LOCK` | locked by the process that has the store open |
//! | `FORMAT` | the marker of the [format](super::format) |
//! | `db/` | the database |
//! | `db.new/` | a database that is being made; nobody has written to it |

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, Instant};

use super::format::{self, Marker, PASSING_MARKER};
use super::{of_folder, of_opening};
use crate::store::StoreError;

const LOCK_FILE: &str = "LOCK";
const LOCK_PATIENCE: Duration = Duration::from_millis(200);
const NEW_DATABASE: &str = "db.new";
/// In the database, folders whose files are replaced as a whole, by one with a passing name.
const KEYSPACES: &str = "keyspaces";
const PASSING: &str = ".tmp";

pub(super) const FORMAT_FILE: &str = "FORMAT";
pub(super) const DATABASE: &str = "db";

/// Takes the folder for this process, until the file is dropped, and marks it if it is new. What
/// cannot be read is refused before anything is touched.
pub(super) fn claim(folder: &Path) -> Result<(File, Option<Marker>), StoreError> {
    format::read(folder)?;
    check(folder)?;
    let lock = lock(folder)?;
    match fs::remove_file(folder.join(PASSING_MARKER)) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(of_folder(folder, &error)),
        _ => {}
    }
    // somebody may have migrated it meanwhile
    let marker = format::read(folder)?;
    if marker.is_none() {
        format::mark_new(folder)?;
    }
    Ok((lock, marker))
}

/// Makes the database if there is none, whole or not at all: one that is half made could not be
/// opened. Whoever calls this has the folder.
pub(super) fn complete(
    folder: &Path,
    make: impl FnOnce(&Path) -> Result<(), fjall::Error>,
) -> Result<(), StoreError> {
    let (new, whole) = (folder.join(NEW_DATABASE), folder.join(DATABASE));
    let failed = |error| of_folder(folder, &error);
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(of_folder(folder, &error)),
        _ => {}
    }
    if whole.exists() {
        return sweep(&whole.join(KEYSPACES)).map_err(failed);
    }
    make(&new).map_err(|error| of_opening(folder, &error))?;
    fs::rename(&new, &whole).map_err(failed)?;
    sync(folder).map_err(failed)
}

/// Removes files of writes that were cut short; the database passes over them.
fn sweep(keyspaces: &Path) -> io::Result<()> {
    for keyspace in fs::read_dir(keyspaces).into_iter().flatten() {
        for file in fs::read_dir(keyspace?.path()).into_iter().flatten() {
            let file = file?;
            if file.file_name().as_encoded_bytes().starts_with(PASSING.as_bytes()) {
                fs::remove_file(file.path())?;
            }
        }
    }
    Ok(())
}

pub(super) fn sync(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Refuses a folder that holds other things, before anything is written there.
fn check(folder: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(folder).map_err(|error| of_folder(folder, &error))?;
    if folder.join(FORMAT_FILE).exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(|error| of_folder(folder, &error))? {
        let name = entry.map_err(|error| of_folder(folder, &error))?.file_name();
        if name != LOCK_FILE && name != PASSING_MARKER {
            return Err(StoreError::NotAStore { folder: folder.to_path_buf() });
        }
    }
    Ok(())
}

fn lock(folder: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join(LOCK_FILE))
        .map_err(|error| of_folder(folder, &error))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // whoever has just let go of it may have a child that still shares the lock
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(LOCK_PATIENCE / 20);
            }
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Held { folder: folder.to_path_buf() });
            }
            Err(TryLockError::Error(error)) => return Err(of_folder(folder, &error)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::store::{EmbeddedOptions, EmbeddedStore};

    use super::*;

    fn open(folder: &Path) {
        EmbeddedStore::open(folder, EmbeddedOptions::default()).unwrap().close().unwrap();
    }

    #[test]
    fn a_store_whose_making_was_cut_short_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let new = folder.path().join(NEW_DATABASE);
        fs::write(folder.path().join(LOCK_FILE), "").unwrap();
        fs::write(folder.path().join(FORMAT_FILE), "selfsame store 3").unwrap();
        fs::create_dir_all(new.join(KEYSPACES)).unwrap();
        fs::write(new.join("0.jnl"), "").unwrap();
        open(folder.path());
        assert!(!new.exists());
        open(folder.path());
    }

    #[test]
    fn what_a_write_that_was_cut_short_left_goes() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path());
        let left = folder.path().join(DATABASE).join(KEYSPACES).join("1/.tmpA1b2C3");
        fs::write(&left, "half").unwrap();
        open(folder.path());
        assert!(!left.exists());
    }
}
