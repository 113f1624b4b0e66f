//! Keys as paths below a folder, for exports.

use std::collections::HashSet;
use std::path::PathBuf;

use super::body::Ended;
use super::entries::each_entry;
use super::error::ApiError;
use crate::replica::{CollectionView as _, Snapshot};
use crate::store::EmbeddedStore;
use crate::types::Key;

/// Keys that are named; more are only counted.
const NAMED: u64 = 20;

/// Why a key is no path below a folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnsafeKey {
    #[error("it is not UTF-8")]
    NotText,
    #[error("it begins or ends with a slash, or has two in a row")]
    EmptyPart,
    #[error("it has a part that is . or ..")]
    Dots,
    #[error("it has a character that no file name has here")]
    Character,
    #[error("it would be a file, and a folder for other keys")]
    FileAndFolder,
}

/// The path of a key below a folder: never outside of it.
pub(crate) fn path_of(key: &Key) -> Result<PathBuf, UnsafeKey> {
    let text = std::str::from_utf8(key.as_bytes()).map_err(|_| UnsafeKey::NotText)?;
    let foreign = |c: char| c == '\0' || (cfg!(windows) && "\\:*?\"<>|".contains(c));
    if text.contains(foreign) {
        return Err(UnsafeKey::Character);
    }
    for part in text.split('/') {
        match part {
            "" => return Err(UnsafeKey::EmptyPart),
            "." | ".." => return Err(UnsafeKey::Dots),
            _ => {}
        }
    }
    Ok(PathBuf::from(text))
}

/// Whether all keys are paths, and no key is a folder for others.
pub(super) fn check(snapshot: &Snapshot<EmbeddedStore>) -> Result<(), ApiError> {
    let (mut count, mut named) = (0, Vec::new());
    let mut name = |key: &Key, why: &UnsafeKey| {
        count += 1;
        if count <= NAMED {
            named.push(format!("no path below a folder: {key}: {why}"));
        }
    };
    let mut folders: HashSet<PathBuf> = HashSet::new();
    let walked = each_entry(snapshot, |entry| {
        match path_of(&entry.key) {
            Ok(path) => {
                for folder in path.ancestors().skip(1) {
                    if folder.as_os_str().is_empty() || !folders.insert(folder.into()) {
                        break;
                    }
                }
            }
            Err(why) => name(&entry.key, &why),
        }
        Ok(())
    });
    match walked {
        Ok(()) | Err(Ended::Gone) => {}
        Err(Ended::Error(error)) => return Err(error),
    }
    for folder in &folders {
        let Ok(key) = Key::new(folder.as_os_str().as_encoded_bytes()) else { continue };
        let key_hash = snapshot.spec().algorithm.key_hash(&key);
        if snapshot.entry(&key_hash)?.is_some() {
            name(&key, &UnsafeKey::FileAndFolder);
        }
    }
    if count > 0 { Err(ApiError::UnsafeKeys { count, named }) } else { Ok(()) }
}
