//! Backups as files: how they are named, and how they come to be.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::backup::BackupHead;
use crate::cli::error::CliError;
use crate::types::CollectionName;

/// What the name of a backup ends with.
pub(super) const EXTENSION: &str = "backup";
const FULL: &str = "full";
const PART: &str = "part";
/// Whoever writes to a series holds it.
const LOCK: &str = ".lock";
const PASSING: &str = ".selfsame-";
/// Longest name of a collection as the name of a folder; a hash stands for the rest.
const MAX_FOLDER_NAME: usize = 160;

/// A backup that has no name yet; it gets one when it is complete and synced.
pub(super) struct NewBackup {
    file: NamedTempFile,
    path: PathBuf,
}

impl NewBackup {
    pub(super) fn begin(folder: &Path, path: &Path) -> Result<Self, CliError> {
        let mut builder = tempfile::Builder::new();
        // as private as the data folder: it holds all that is in there
        let file = builder.prefix(PASSING).tempfile_in(folder);
        let file = file.map_err(CliError::file("write", path))?;
        Ok(Self { file, path: path.into() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn finish(self) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        let folder = self.file.path().parent().map(Path::to_path_buf).unwrap_or_default();
        self.file.persist_noclobber(&self.path).map_err(|refused| refused.error)?;
        if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
    }
}

impl Write for NewBackup {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// One of a series.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Numbered {
    number: u32,
    full: bool,
    path: PathBuf,
}

/// The backups of one collection in one folder, by number.
pub(in crate::cli) struct Series {
    folder: PathBuf,
    backups: Vec<Numbered>,
    // held while this is there
    _lock: Option<File>,
}

impl Series {
    /// That of a collection, to write the next one; made if it is not there.
    pub(super) fn to_write(folder: &Path, name: &CollectionName) -> Result<Self, CliError> {
        let folder = folder.join(folder_name(name));
        let failed = || CliError::file("write to", &folder);
        fs::create_dir_all(&folder).map_err(failed())?;
        let lock = File::create(folder.join(LOCK)).map_err(failed())?;
        if lock.try_lock().is_err() {
            return Err(CliError::SeriesInUse(folder));
        }
        // whoever held the lock before is gone, and has left half a backup
        for entry in fs::read_dir(&folder).map_err(failed())?.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(PASSING.as_bytes()) {
                let _ = fs::remove_file(entry.path());
            }
        }
        let backups = numbered(&folder).map_err(failed())?;
        Ok(Self { folder, backups, _lock: Some(lock) })
    }

    /// That in a folder; none if there is no backup in it.
    fn in_folder(folder: &Path) -> io::Result<Option<Self>> {
        let backups = numbered(folder)?;
        let series = Self { folder: folder.into(), backups, _lock: None };
        Ok((!series.backups.is_empty()).then_some(series))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn last(&self) -> Option<&Path> {
        self.backups.last().map(|last| &*last.path)
    }

    /// Path of the next one.
    pub(super) fn next(&self, full: bool) -> PathBuf {
        let number = self.backups.last().map_or(0, |last| last.number).saturating_add(1);
        let kind = if full { FULL } else { PART };
        self.folder.join(format!("{number:06}-{kind}.{EXTENSION}"))
    }

    /// Its chains, the oldest first: each a full one and the parts that follow it. Parts before
    /// the first full one are a chain that lacks its beginning.
    pub(in crate::cli) fn chains(&self) -> Vec<Vec<PathBuf>> {
        let mut chains: Vec<Vec<PathBuf>> = Vec::new();
        for Numbered { full, path, .. } in &self.backups {
            match chains.last_mut() {
                Some(chain) if !full => chain.push(path.clone()),
                _ => chains.push(vec![path.clone()]),
            }
        }
        chains
    }
}

fn numbered(folder: &Path) -> io::Result<Vec<Numbered>> {
    let mut backups = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let parts = name.and_then(|name| name.strip_suffix(".backup")?.split_once('-'));
        let Some((number, kind)) = parts else { continue };
        let plain = number.len() >= 6 && number.bytes().all(|digit| digit.is_ascii_digit());
        if let (Ok(number), true, FULL | PART) = (number.parse(), plain, kind) {
            backups.push(Numbered { number, full: kind == FULL, path });
        }
    }
    backups.sort();
    Ok(backups)
}

/// A collection's name as that of a folder: letters, digits, - and _ stand for themselves.
fn folder_name(name: &CollectionName) -> String {
    let mut text = String::new();
    for &byte in name.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    if text.len() > MAX_FOLDER_NAME {
        text.truncate(MAX_FOLDER_NAME);
        let hash = blake3::hash(name.as_bytes()).to_hex();
        text.push_str(&format!("~{}", &hash[..16]));
    }
    text
}

/// The series in a folder: its own, or those of the folders in it.
pub(in crate::cli) fn series_in(folder: &Path) -> Result<Vec<Series>, CliError> {
    let failed = || CliError::file("read", folder);
    if let Some(series) = Series::in_folder(folder).map_err(failed())? {
        return Ok(vec![series]);
    }
    let entries = fs::read_dir(folder).map_err(failed())?;
    let mut folders: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    let mut found = Vec::new();
    for folder in folders {
        found.extend(Series::in_folder(&folder).map_err(CliError::file("read", &folder))?);
    }
    if found.is_empty() { Err(CliError::NoBackups(folder.into())) } else { Ok(found) }
}

/// What is meant by these paths: files are one chain, a folder holds series.
pub(in crate::cli) enum Meant {
    /// Files of one chain, in their order.
    Chain(Vec<PathBuf>),
    /// The series in a folder.
    Series(Vec<Series>),
}

impl Meant {
    pub(in crate::cli) fn by(paths: &[PathBuf]) -> Result<Self, CliError> {
        match paths {
            [one] if one.is_dir() => Ok(Self::Series(series_in(one)?)),
            several => match several.iter().find(|path| path.is_dir()) {
                Some(folder) => Err(CliError::FolderAmongFiles(folder.clone())),
                None => Ok(Self::Chain(several.to_vec())),
            },
        }
    }
}

/// The head of a backup.
pub(super) fn open_head(path: &Path) -> Result<BackupHead, CliError> {
    Ok(super::open(path)?.head().clone())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_collection_has_a_folder_of_its_own_whatever_its_name() {
        let name = |text: &str| folder_name(&CollectionName::new(text).unwrap());
        assert_eq!(name("players"), "players");
        assert_eq!(name("../x y"), "%2E%2E%2Fx%20y");
        assert_eq!(name("."), "%2E");
        let (long, other) = ("ü".repeat(120), "ü".repeat(119) + "x");
        assert!(name(&long).len() < 255 && name(&long) != name(&other));
    }

    #[test]
    fn numbers_go_on_and_a_full_one_begins_a_chain() {
        let folder = tempfile::tempdir().unwrap();
        let things = CollectionName::new("things").unwrap();
        let mut expected = Vec::new();
        for full in [true, false, true, false, false] {
            let series = Series::to_write(folder.path(), &things).unwrap();
            assert!(matches!(
                Series::to_write(folder.path(), &things),
                Err(CliError::SeriesInUse(_))
            ));
            fs::write(series.next(full), "backup").unwrap();
            expected.push(series.next(full));
        }
        let own = folder.path().join("things");
        fs::write(own.join("7-full.backup"), "not ours").unwrap();
        fs::write(own.join(".selfsame-x"), "half").unwrap();
        let series = Series::to_write(folder.path(), &things).unwrap();
        assert!(!own.join(".selfsame-x").exists());
        assert_eq!(series.chains(), [&expected[..2], &expected[2..]]);
        assert!(series.next(true).ends_with("000006-full.backup"));
        assert_eq!(series_in(folder.path()).unwrap().len(), 1);
        assert_eq!(series_in(&own).unwrap()[0].chains(), series.chains());
        fs::create_dir(folder.path().join("empty")).unwrap();
        assert!(series_in(&folder.path().join("empty")).is_err());
    }
}
