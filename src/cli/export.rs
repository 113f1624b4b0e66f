//! `selfsame export`

use std::collections::HashSet;
use std::fs;
use std::io::{BufWriter, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::error::CliError;
use super::folder::{self, FolderWriter, UnsafeKey};
use super::interrupt::Interrupt;
use super::ls::each_entry;
use super::output::{Output, counted, note, print, print_json, size};
use super::progress::Progress;
use super::{Context, Exit, arguments, jsonl};
use crate::replica::{CollectionView as _, Entry, Snapshot};
use crate::store::EmbeddedStore;
use crate::types::{CollectionName, Key, Policy};

/// Keys that are named; more are only counted.
const NAMED: u64 = 20;

/// Exports a collection to a folder, or to a file of JSON lines
///
/// The counterpart of import: what was imported comes back byte for byte, all of one moment. To
/// a folder each entry becomes a file; a path that ends in .jsonl gets JSON lines; - is standard
/// output, JSON lines too. A folder that is not empty, or a file that exists, needs --force.
///
/// Keys that cannot be paths below a folder (with .., absolute, with empty parts, not UTF-8, or
/// a file and a folder at once) are named, and nothing is written: JSON lines take any key. Of
/// concurrent versions the latest is written; by policy siblings that is not all there is, and
/// the command ends with 3.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame export site ./copy
  selfsame export players players.jsonl
  selfsame export players - | jq .key")]
pub(super) struct Export {
    /// The collection
    #[arg(value_parser = arguments::collection)]
    collection: CollectionName,
    /// A folder, a path that ends in .jsonl, or - for standard output
    path: PathBuf,
    /// Writes into a folder that is not empty, over files of the same names; removes nothing
    #[arg(long)]
    force: bool,
    /// Prints JSON: {"entries", "bytes", "conflicts", "refused", "root"}
    #[arg(long)]
    json: bool,
}

/// What was exported.
#[derive(Default)]
struct Exported {
    entries: u64,
    bytes: u64,
    conflicts: u64,
    refused: u64,
}

type View = Snapshot<EmbeddedStore>;

impl Export {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let interrupt = Interrupt::install()?;
        context.with(|home| {
            let snapshot = home.replica.collection(&self.collection)?.snapshot()?;
            let to_output = self.path == Path::new("-");
            if !to_output {
                folder::outside(&self.path, &home.folder)?;
            }
            let mut exporter = Exporter {
                snapshot: &snapshot,
                progress: Progress::new(Some(snapshot.envelope().totals().bytes)),
                interrupt,
                exported: Exported::default(),
            };
            let done = if to_output {
                let mut output = Output::new();
                exporter.each(|key, value| output.json(&jsonl::line(key, value)))?;
                output.finish()
            } else if self.path.extension().is_some_and(|extension| extension == "jsonl") {
                exporter.lines(&self.path, self.force)
            } else {
                exporter.folder(&self.path, self.force)
            };
            let Exporter { exported, progress, .. } = exporter;
            drop(progress);
            done?;
            self.tell(&snapshot, &exported, to_output)
        })
    }

    fn tell(
        &self,
        snapshot: &View,
        exported: &Exported,
        to_output: bool,
    ) -> Result<Exit, CliError> {
        let Exported { entries, bytes, conflicts, refused } = *exported;
        let root = snapshot.envelope().root();
        if conflicts > 0 {
            note(format_args!(
                "{} concurrent versions, of which only the latest was written",
                counted(conflicts, "key has", "keys have")
            ));
        }
        if !to_output && self.json {
            print_json(&json!({
                "entries": entries, "bytes": bytes, "conflicts": conflicts, "refused": refused,
                "root": root.to_string(),
            }))?;
        } else if !to_output {
            print(format_args!(
                "{} ({}) exported to {}",
                counted(entries, "entry", "entries"),
                size(bytes),
                self.path.display()
            ))?;
        }
        let lacks_versions = conflicts > 0 && *snapshot.envelope().policy() != Policy::Lww;
        Ok(if refused > 0 || lacks_versions { Exit::Partial } else { Exit::Done })
    }
}

struct Exporter<'a> {
    snapshot: &'a View,
    progress: Progress,
    interrupt: Interrupt,
    exported: Exported,
}

impl Exporter<'_> {
    /// Hands each key with its value to `write`.
    fn each(
        &mut self,
        mut write: impl FnMut(&Key, &[u8]) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let snapshot = self.snapshot;
        each_entry(snapshot, |entry| {
            if self.interrupt.requested() {
                return Err(CliError::Interrupted);
            }
            let Some(value) = latest(snapshot, entry)? else {
                self.refuse(&entry.key, &CliError::ValueLost);
                return Ok(());
            };
            match write(&entry.key, &value) {
                Err(CliError::File { source, .. }) if concerns_one_file(source.kind()) => {
                    self.refuse(&entry.key, &source);
                    return Ok(());
                }
                other => other?,
            }
            self.exported.conflicts += u64::from(entry.record.is_conflict());
            self.exported.entries += 1;
            self.exported.bytes += value.len() as u64;
            self.progress.entry(value.len() as u64);
            Ok(())
        })
    }

    fn refuse(&mut self, key: &Key, why: &dyn std::fmt::Display) {
        self.exported.refused += 1;
        if self.exported.refused <= NAMED {
            self.progress.note(&format!("not exported: {key}: {why}"));
        }
    }

    /// The file appears whole or not at all.
    fn lines(&mut self, path: &Path, force: bool) -> Result<(), CliError> {
        let failed = || CliError::file("write", path);
        if !force && fs::symlink_metadata(path).is_ok() {
            return Err(CliError::Occupied { path: path.into(), what: "exists" });
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let file = folder::new_file(parent.unwrap_or(Path::new("."))).map_err(failed())?;
        let mut writer = BufWriter::with_capacity(256 << 10, file);
        self.each(|key, value| {
            let written = serde_json::to_writer(&mut writer, &jsonl::line(key, value));
            let written = written.map_err(std::io::Error::from);
            // all of the lines are one file: what fails for one fails for all
            written.and_then(|()| writer.write_all(b"\n")).map_err(|error| {
                failed()(std::io::Error::new(ErrorKind::StorageFull, error.to_string()))
            })
        })?;
        let file = writer.into_inner().map_err(|error| failed()(error.into_error()))?;
        file.persist(path).map_err(|error| failed()(error.error))?;
        Ok(())
    }

    fn folder(&mut self, path: &Path, force: bool) -> Result<(), CliError> {
        match fs::read_dir(path) {
            Ok(mut found) => {
                if !force && found.next().is_some() {
                    let what = "is not empty";
                    return Err(CliError::Occupied { path: path.into(), what });
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(CliError::file("write to", path)(error)),
        }
        self.check_keys()?;
        let mut writer = FolderWriter::new(path, force).map_err(CliError::file("make", path))?;
        self.each(|key, value| {
            // checked above, so this is a file whose key is a path
            let below = folder::path_of(key).map_err(|_| CliError::UnsafeKeys { count: 1 })?;
            writer.write(&below, value).map_err(CliError::file("write", &path.join(&below)))
        })
    }

    /// Whether all keys are paths, and no key is a folder for others: before anything is written.
    fn check_keys(&self) -> Result<(), CliError> {
        let mut found = 0;
        let mut name = |key: &Key, why: &UnsafeKey| {
            found += 1;
            if found <= NAMED {
                self.progress.note(&format!("no path below a folder: {key}: {why}"));
            }
        };
        let mut folders: HashSet<PathBuf> = HashSet::new();
        each_entry(self.snapshot, |entry| {
            match folder::path_of(&entry.key) {
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
        })?;
        for folder in &folders {
            let Ok(key) = Key::new(folder.as_os_str().as_encoded_bytes()) else { continue };
            let key_hash = self.snapshot.spec().algorithm.key_hash(&key);
            if self.snapshot.entry(&key_hash)?.is_some() {
                name(&key, &UnsafeKey::FileAndFolder);
            }
        }
        if found > 0 { Err(CliError::UnsafeKeys { count: found }) } else { Ok(()) }
    }
}

fn latest(snapshot: &View, entry: &Entry) -> Result<Option<Arc<[u8]>>, CliError> {
    let key_hash = snapshot.spec().algorithm.key_hash(&entry.key);
    Ok(snapshot.value(&key_hash, &entry.record.latest().value_hash)?)
}

/// Whether the others may still be written.
const fn concerns_one_file(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::AlreadyExists
            | ErrorKind::InvalidFilename
            | ErrorKind::InvalidInput
            | ErrorKind::IsADirectory
            | ErrorKind::NotADirectory
            | ErrorKind::DirectoryNotEmpty
            | ErrorKind::PermissionDenied
    )
}
