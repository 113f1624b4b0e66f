//! `selfsame import`

use std::collections::HashSet;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use walkdir::WalkDir;

use super::control::Control;
use super::error::CliError;
use super::interrupt::Interrupt;
use super::jsonl::{self, Taken};
use super::output::{count, counted, note, print, print_json};
use super::progress::Progress;
use super::{Context, Exit, arguments, folder};
use crate::api::frames::{FRAME_HEAD_BYTES, Frame, FramesError, write_entry};
use crate::api::types::Imported;
use crate::api::{ApiError, BATCH_BYTES, BATCH_ENTRIES, CallError};
use crate::hash::{HashAlgorithm, KeyHash};
use crate::types::{CollectionName, Key};

/// Files or lines that are named; more are only counted.
const NAMED: u64 = 100;

/// Imports a folder, or a file of JSON lines
///
/// Of a folder each file becomes an entry: its path below the folder, with /, is the key, its
/// content the value. Modes, times, empty folders and links are left out, links and special
/// files with a note; so is this node's own data folder. Of a file each line is an entry:
/// {"key" or "key_hex", "value" or "value_hex"}; - is standard input.
///
/// What is there already with the same value is left as it is: importing twice writes nothing.
/// Entries are written in batches; after Ctrl-C or an error the batches that were written stay,
/// and importing again goes on from there. What cannot be imported is named, the rest goes on,
/// and the command ends with 3.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame import site ./public
  selfsame import site ./public --delete
  selfsame import players players.jsonl
  generate | selfsame import players -")]
pub(super) struct Import {
    /// The collection
    #[arg(value_parser = arguments::collection)]
    collection: CollectionName,
    /// A folder, a file of JSON lines, or - for standard input
    path: PathBuf,
    /// Removes keys that the source does not have; only if all of it could be imported
    #[arg(long)]
    delete: bool,
    /// Lets --delete remove more than half of the entries
    #[arg(long, requires = "delete")]
    yes: bool,
    /// Prints JSON: {"written", "unchanged", "removed", "refused", "skipped", "root"}
    #[arg(long)]
    json: bool,
}

impl Import {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let interrupt = Interrupt::install()?;
        let data = context.folder()?;
        context.with(|control| {
            // before anything is read
            control.wait(control.node.collection(&self.collection))?;
            let mut importer = Importer {
                control,
                collection: &self.collection,
                limit: control.wait(control.node.node())?.max_value_bytes,
                interrupt,
                progress: Progress::new(self.expected_bytes()),
                batch: Vec::new(),
                batched: 0,
                imported: Imported { written: 0, unchanged: 0 },
                removed: 0,
                refused: 0,
                skipped: 0,
                seen: self.delete.then(HashSet::new),
            };
            let read = self.read(&data, &mut importer);
            let read = read.and_then(|()| importer.flush());
            let exit = match read {
                Ok(()) if importer.refused > 0 => {
                    if self.delete {
                        note("nothing was removed, since not all of the source could be imported");
                    }
                    Ok(Exit::Partial)
                }
                Ok(()) if self.delete => importer.remove_the_rest(self.yes),
                Ok(()) => Ok(Exit::Done),
                Err(error) => Err(error),
            };
            self.tell(importer, exit)
        })
    }

    /// Known only where it is seen and costs little.
    fn expected_bytes(&self) -> Option<u64> {
        if !Progress::is_seen() {
            return None;
        }
        let about = std::fs::metadata(&self.path).ok()?;
        if about.is_file() {
            return Some(about.len());
        }
        let files = WalkDir::new(&self.path).into_iter().flatten();
        Some(
            files
                .filter_map(|file| file.metadata().ok())
                .filter(|of| of.is_file())
                .fold(0, |sum: u64, of| sum.saturating_add(of.len())),
        )
    }

    fn read(&self, data: &Path, importer: &mut Importer<'_>) -> Result<(), CliError> {
        if self.path == Path::new("-") {
            return importer.lines(io::stdin().lock()).map_err(|error| match error {
                CliError::File { source, .. } => CliError::Input(source),
                other => other,
            });
        }
        folder::outside(&self.path, data)?;
        let about = std::fs::metadata(&self.path).map_err(CliError::file("read", &self.path))?;
        if about.is_dir() {
            importer.folder(&self.path, data)
        } else if about.is_file() {
            let file = File::open(&self.path).map_err(CliError::file("read", &self.path))?;
            importer.lines(BufReader::with_capacity(256 << 10, file)).map_err(|error| match error {
                CliError::File { what, source, .. } => {
                    CliError::File { what, path: self.path.clone(), source }
                }
                other => other,
            })
        } else {
            Err(CliError::NeitherFileNorFolder(self.path.clone()))
        }
    }

    fn tell(&self, importer: Importer<'_>, exit: Result<Exit, CliError>) -> Result<Exit, CliError> {
        let Importer { control, imported, removed, refused, skipped, progress, .. } = importer;
        drop(progress);
        let Imported { written, unchanged } = imported;
        let exit = match exit {
            Err(CliError::Interrupted) => {
                note("stopped: what was imported is kept; the same command goes on from there");
                Exit::Interrupted
            }
            Err(error) => {
                if written + removed > 0 {
                    let kept = counted(written, "entry", "entries");
                    note(format_args!(
                        "{kept} written before the error and {removed} removed: kept"
                    ));
                }
                return Err(error);
            }
            Ok(exit) => exit,
        };
        if self.json {
            let root = control.wait(control.node.collection(&self.collection))?.root;
            print_json(&json!({
                "written": written, "unchanged": unchanged, "removed": removed,
                "refused": refused, "skipped": skipped, "root": root,
            }))?;
            return Ok(exit);
        }
        let mut text = format!("{} written, {} unchanged", count(written), count(unchanged));
        for (number, what) in
            [(removed, "removed"), (skipped, "skipped"), (refused, "could not be imported")]
        {
            if number > 0 {
                text.push_str(&format!(", {} {what}", count(number)));
            }
        }
        print(text)?;
        Ok(exit)
    }
}

struct Importer<'a> {
    control: &'a Control,
    collection: &'a CollectionName,
    limit: u64,
    interrupt: Interrupt,
    progress: Progress,
    /// Frames of entries that are read and not written.
    batch: Vec<u8>,
    batched: usize,
    imported: Imported,
    removed: u64,
    refused: u64,
    skipped: u64,
    /// What the source has, when the rest is to be removed.
    seen: Option<HashSet<KeyHash>>,
}

impl Importer<'_> {
    /// Every file below a folder.
    fn folder(&mut self, root: &Path, data: &Path) -> Result<(), CliError> {
        let data = data.canonicalize().ok();
        let mut walk = WalkDir::new(root).into_iter();
        while let Some(found) = walk.next() {
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    let path = error.path().unwrap_or(root).to_path_buf();
                    self.refuse(path.display(), of_walk(&error));
                    continue;
                }
            };
            let kind = found.file_type();
            if kind.is_dir() {
                if data.is_some() && found.path().canonicalize().ok() == data {
                    self.skip(found.path(), "it is this node's data folder");
                    walk.skip_current_dir();
                }
            } else if kind.is_file() {
                self.file(root, found.path())?;
            } else if kind.is_symlink() {
                self.skip(found.path(), "it is a link");
            } else {
                self.skip(found.path(), "it is neither a file nor a folder");
            }
        }
        Ok(())
    }

    fn file(&mut self, root: &Path, path: &Path) -> Result<(), CliError> {
        let key = match folder::key_of(root, path) {
            Ok(key) => key,
            Err(why) => {
                self.refuse(path.display(), why);
                return self.check_interrupt();
            }
        };
        let (limit, before) = (self.limit, self.batch.len());
        match write_entry(&mut self.batch, &key, |batch| read_file(path, limit, batch)) {
            Ok(true) => {
                let size = self.batch.len() - before - FRAME_HEAD_BYTES - key.as_bytes().len();
                return self.entry(&key, size as u64);
            }
            Ok(false) => {
                let why = format_args!("it is larger than {limit} bytes (max_value_bytes)");
                self.refuse(path.display(), why);
            }
            Err(error) => self.refuse(path.display(), error),
        }
        self.check_interrupt()
    }

    /// Every line of an input.
    fn lines(&mut self, mut input: impl BufRead) -> Result<(), CliError> {
        // each byte of text can take six characters, as \u0000 does
        let limit = (self.limit + 2 * crate::types::MAX_KEY_BYTES as u64) * 6 + 256;
        let mut line = Vec::new();
        for number in 1_u64.. {
            let taken = jsonl::take_line(&mut input, limit, &mut line);
            match taken.map_err(CliError::file("read", Path::new("-")))? {
                Taken::End => break,
                Taken::TooLong => {
                    self.refuse(
                        format_args!("line {number}"),
                        "it is longer than any entry may be",
                    );
                }
                Taken::Line if line.trim_ascii().is_empty() => {}
                Taken::Line => match jsonl::parse(&line) {
                    Ok((_, value)) if value.len() as u64 > self.limit => {
                        let error = ApiError::ValueSize(self.limit);
                        self.refuse(format_args!("line {number}"), error);
                    }
                    Ok((key, value)) => {
                        let size = value.len() as u64;
                        Frame::Entry { key: key.clone(), value: value.into() }
                            .write(&mut self.batch)
                            .map_err(CallError::from)?;
                        self.entry(&key, size)?;
                    }
                    Err(why) => self.refuse(format_args!("line {number}"), why),
                },
            }
            self.check_interrupt()?;
        }
        Ok(())
    }

    /// Counts an entry that is in the batch now.
    fn entry(&mut self, key: &Key, size: u64) -> Result<(), CliError> {
        if let Some(seen) = &mut self.seen {
            seen.insert(short(key));
        }
        self.progress.entry(size);
        self.batched += 1;
        if self.batched >= BATCH_ENTRIES || self.batch.len() >= BATCH_BYTES {
            self.flush()?;
        }
        self.check_interrupt()
    }

    fn flush(&mut self) -> Result<(), CliError> {
        if self.batched == 0 {
            return Ok(());
        }
        self.batched = 0;
        let batch = std::mem::take(&mut self.batch);
        let done = self.control.wait(self.control.node.import(self.collection, batch))?;
        self.imported.written += done.written;
        self.imported.unchanged += done.unchanged;
        Ok(())
    }

    /// Writes what was read, and ends, if somebody asks to stop.
    fn check_interrupt(&mut self) -> Result<(), CliError> {
        if self.interrupt.requested() {
            self.flush()?;
            return Err(CliError::Interrupted);
        }
        Ok(())
    }

    /// Removes the entries that the source does not have.
    fn remove_the_rest(&mut self, yes: bool) -> Result<Exit, CliError> {
        let Some(seen) = self.seen.take() else { return Ok(Exit::Done) };
        let (control, collection) = (self.control, self.collection);
        let mut rest = Vec::new();
        let mut entries = 0_usize;
        let mut lines = control.wait(control.node.entries(collection, b"", false))?;
        while let Some(line) = control.wait(lines.next_line())? {
            let key = super::ls::parsed(&line)?.key;
            entries += 1;
            if !seen.contains(&short(&key)) {
                rest.push(key);
            }
        }
        if rest.len() > entries / 2 && !yes {
            note(format_args!(
                "{} of {} would be removed, more than half: nothing was removed; repeat with \
                 --yes if that is meant",
                count(rest.len() as u64),
                counted(entries as u64, "entry", "entries")
            ));
            return Ok(Exit::Brake);
        }
        for keys in rest.chunks(BATCH_ENTRIES) {
            if self.interrupt.requested() {
                return Err(CliError::Interrupted);
            }
            let mut batch = Vec::new();
            for key in keys {
                write_entry::<CallError>(&mut batch, key, |_| Ok(true))?;
            }
            control.wait(control.node.remove(collection, batch))?;
            self.removed += keys.len() as u64;
        }
        Ok(Exit::Done)
    }

    fn refuse(&mut self, what: impl Display, why: impl Display) {
        self.refused += 1;
        self.name(self.refused, format!("not imported: {what}: {why}"));
    }

    fn skip(&mut self, path: &Path, why: &str) {
        self.skipped += 1;
        self.name(self.skipped, format!("skipped: {}: {why}", path.display()));
    }

    fn name(&self, number: u64, text: String) {
        if number <= NAMED {
            self.progress.note(&text);
        } else if number == NAMED + 1 {
            self.progress.note("...and more, which are only counted");
        }
    }
}

/// Adds what a file holds, unless that is more than the limit.
fn read_file(path: &Path, limit: u64, batch: &mut Vec<u8>) -> Result<bool, ReadError> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    if size > limit {
        return Ok(false);
    }
    batch.reserve(usize::try_from(size).unwrap_or_default());
    // it may grow meanwhile
    let read = file.take(limit + 1).read_to_end(batch)?;
    Ok(read as u64 <= limit)
}

/// Why a file is not imported.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    File(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FramesError),
}

/// What stands for a key in the memory of what was seen.
fn short(key: &Key) -> KeyHash {
    HashAlgorithm::Blake3.key_hash(key)
}

fn of_walk(error: &walkdir::Error) -> String {
    error.io_error().map_or_else(|| error.to_string(), ToString::to_string)
}
