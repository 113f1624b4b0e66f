//! `selfsame export`

use std::fs;
use std::io::{BufWriter, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::control::Control;
use super::error::CliError;
use super::folder::{self, FolderWriter};
use super::interrupt::Interrupt;
use super::output::{Output, counted, note, print, print_json, size};
use super::progress::Progress;
use super::{Context, Exit, arguments, jsonl};
use crate::api::client::ExportStream;
use crate::api::frames::{ExportHead, Frame};
use crate::api::types::PolicyName;
use crate::api::{ApiError, CallError};
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

/// Where it goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Output,
    Lines,
    Folder,
}

/// What was exported.
#[derive(Default)]
struct Exported {
    entries: u64,
    bytes: u64,
    conflicts: u64,
    refused: u64,
}

impl Export {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let interrupt = Interrupt::install()?;
        let data = context.folder()?;
        context.with(|control| {
            let target = self.target();
            match target {
                Target::Output => {}
                Target::Lines => {
                    folder::outside(&self.path, &data)?;
                    self.check_file()?;
                }
                Target::Folder => {
                    folder::outside(&self.path, &data)?;
                    self.check_folder()?;
                }
            }
            let paths = target == Target::Folder;
            let asked = control.node.export(&self.collection, paths);
            let stream = control.wait_or_stop(&interrupt, asked)?;
            let head = stream.head().clone();
            let mut exporter = Exporter {
                control,
                stream,
                progress: Progress::new(Some(head.bytes)),
                interrupt,
                exported: Exported::default(),
            };
            let done = match target {
                Target::Output => {
                    let mut output = Output::new();
                    exporter.each(|key, value| output.json(&jsonl::line(key, value)))?;
                    output.finish()
                }
                Target::Lines => exporter.lines(&self.path),
                Target::Folder => exporter.folder(&self.path, self.force),
            };
            let Exporter { exported, progress, .. } = exporter;
            drop(progress);
            done?;
            self.tell(&head, &exported, target)
        })
    }

    fn target(&self) -> Target {
        if self.path == Path::new("-") {
            Target::Output
        } else if self.path.extension().is_some_and(|extension| extension == "jsonl") {
            Target::Lines
        } else {
            Target::Folder
        }
    }

    fn check_file(&self) -> Result<(), CliError> {
        if !self.force && fs::symlink_metadata(&self.path).is_ok() {
            return Err(CliError::Occupied { path: self.path.clone(), what: "exists" });
        }
        Ok(())
    }

    fn check_folder(&self) -> Result<(), CliError> {
        let mut found = match fs::read_dir(&self.path) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(CliError::file("write to", &self.path)(error)),
        };
        if !self.force && found.next().is_some() {
            let what = "is not empty";
            return Err(CliError::Occupied { path: self.path.clone(), what });
        }
        Ok(())
    }

    fn tell(
        &self,
        head: &ExportHead,
        exported: &Exported,
        target: Target,
    ) -> Result<Exit, CliError> {
        let Exported { entries, bytes, conflicts, refused } = *exported;
        let to_output = target == Target::Output;
        if conflicts > 0 {
            note(format_args!(
                "{} concurrent versions, of which only the latest was written",
                counted(conflicts, "key has", "keys have")
            ));
        }
        if !to_output && self.json {
            print_json(&json!({
                "entries": entries, "bytes": bytes, "conflicts": conflicts, "refused": refused,
                "root": head.root,
            }))?;
        } else if !to_output {
            print(format_args!(
                "{} ({}) exported to {}",
                counted(entries, "entry", "entries"),
                size(bytes),
                self.path.display()
            ))?;
        }
        let lww = PolicyName::from(&Policy::Lww);
        let lacks_versions = conflicts > 0 && head.policy != lww;
        Ok(if refused > 0 || lacks_versions { Exit::Partial } else { Exit::Done })
    }
}

struct Exporter<'a> {
    control: &'a Control,
    stream: ExportStream,
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
        loop {
            if self.interrupt.requested() {
                return Err(CliError::Interrupted);
            }
            let next = self.control.wait_or_stop(&self.interrupt, self.stream.next_entry())?;
            let (key, value, conflict) = match next {
                None => return Ok(()),
                Some(Frame::Entry { key, value }) => (key, value, false),
                Some(Frame::Conflict { key, value }) => (key, value, true),
                Some(Frame::Lost { key }) => {
                    self.refuse(&key, &ApiError::ValueLost);
                    continue;
                }
                Some(_) => return Err(CallError::Answer("a frame is no entry".into()).into()),
            };
            match write(&key, &value) {
                Err(CliError::File { source, .. }) if concerns_one_file(source.kind()) => {
                    self.refuse(&key, &source);
                    continue;
                }
                other => other?,
            }
            self.exported.conflicts += u64::from(conflict);
            self.exported.entries += 1;
            self.exported.bytes += value.len() as u64;
            self.progress.entry(value.len() as u64);
        }
    }

    fn refuse(&mut self, key: &Key, why: &dyn std::fmt::Display) {
        self.exported.refused += 1;
        if self.exported.refused <= NAMED {
            self.progress.note(&format!("not exported: {key}: {why}"));
        }
    }

    /// The file appears whole or not at all.
    fn lines(&mut self, path: &Path) -> Result<(), CliError> {
        let failed = || CliError::file("write", path);
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
        let mut writer = FolderWriter::new(path, force).map_err(CliError::file("make", path))?;
        self.each(|key, value| {
            // the node has looked at all keys before the first one came
            let below = folder::path_of(key);
            let below = below.map_err(|error| CallError::Answer(format!("{key}: {error}")))?;
            writer.write(&below, value).map_err(CliError::file("write", &path.join(&below)))
        })
    }
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
