//! `selfsame backup`

pub(super) mod files;
mod ls;
mod verify;

use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::control::Control;
use super::error::CliError;
use super::folder::outside;
use super::interrupt::Interrupt;
use super::output::{Output, counted, note, print, size};
use super::progress::Progress;
use super::{Context, Exit, arguments};
use crate::backup::{BackupHead, BackupLimits, BackupReader, BackupSummary, read_summary};
use crate::types::CollectionName;
use files::{EXTENSION, NewBackup, Series, open_head};

/// Backs up collections, each at one moment, while the node goes on working
///
/// To a path that ends in .backup goes one collection, to - (standard output) too. Any other path
/// is a folder, in which each collection has one of its own, with backups numbered from 000001-full
/// on: with --incremental a backup holds only what changed since the last one there, and is of use
/// only together with those before it, back to the full one. Where the change log does not reach
/// back so far, a full one is made instead, and that is said. A backup appears whole or not at all,
/// and nothing is ever written over.
///
/// A backup holds entries, values and what the node has seen, deletions too. It does not hold the
/// node's identity, config.toml and peers.toml, which are files of the data folder, nor replaced
/// values, certificates and reports. What cannot be backed up is named, the rest goes on, and the
/// command ends with 3. To name a collection that is called like a command here, write -- before it.
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:
  selfsame backup --to /backups/node1
  selfsame backup --to /backups/node1 --incremental
  selfsame backup players --to players.backup
  selfsame backup players --to later.backup --since players.backup
  selfsame backup players --to - | ssh elsewhere 'cat > players.backup'"
)]
pub(super) struct Backup {
    #[command(subcommand)]
    other: Option<Other>,
    #[command(flatten)]
    make: Make,
}

#[derive(Subcommand)]
enum Other {
    Verify(verify::Verify),
    Ls(ls::Ls),
}

#[derive(Args)]
struct Make {
    /// The collections [default: all]
    #[arg(value_name = "COLLECTION", value_parser = arguments::collection)]
    collections: Vec<CollectionName>,
    /// A folder, a path that ends in .backup, or - for standard output
    #[arg(long, value_name = "PATH", required = true)]
    to: Option<PathBuf>,
    /// Holds only what changed since the last backup in the folder
    #[arg(long)]
    incremental: bool,
    /// Holds only what changed since this backup, which is the last of its chain
    #[arg(long, value_name = "FILE", conflicts_with = "incremental")]
    since: Option<PathBuf>,
    /// Prints JSON, a line for each collection: {"collection", "path", "full", "held", "gone",
    /// "values", "missing_values", "bytes", "root", "state", "taken_ms"}
    #[arg(long)]
    json: bool,
}

/// Where it goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Output,
    File,
    Folder,
}

impl Backup {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        match self.other {
            Some(Other::Verify(verb)) => verb.run(),
            Some(Other::Ls(verb)) => verb.run(),
            None => self.make.run(context),
        }
    }
}

impl Make {
    fn run(self, context: &Context) -> Result<Exit, CliError> {
        let interrupt = Interrupt::install()?;
        let data = context.folder()?;
        let path = self.to.clone().unwrap_or_default();
        let target = target(&path);
        if target != Target::Output {
            outside(&path, &data)?;
        }
        if target != Target::Folder && self.incremental {
            return Err(CliError::NoSeries);
        }
        if target == Target::Folder && self.since.is_some() {
            return Err(CliError::SinceInFolder);
        }
        if target == Target::File && std::fs::symlink_metadata(&path).is_ok() {
            return Err(CliError::BackupExists(path));
        }
        let since = self.since.as_deref().map(whole_head).transpose()?;
        context.with(|control| {
            let names = self.names(control, target)?;
            let making = Making { control, interrupt: &interrupt, json: self.json };
            let (mut done, mut partial, mut failed) = (0, false, None);
            for name in &names {
                let made = match target {
                    Target::Output => making.to_output(name, since.as_ref()).map(|()| None),
                    Target::File => making.to_file(name, &path, since.as_ref()).map(Some),
                    Target::Folder => making.to_folder(name, &path, self.incremental).map(Some),
                };
                match made {
                    Ok(made) => {
                        done += 1;
                        if let Some(made) = made {
                            partial |= made.summary.counts.missing > 0;
                            self.tell(&made)?;
                        }
                    }
                    Err(CliError::Interrupted) => {
                        note("stopped: the backups that were made are kept, half a one is not");
                        return Ok(Exit::Interrupted);
                    }
                    // one that is damaged does not keep the others from being backed up
                    Err(error @ CliError::Problem(_)) if names.len() > 1 => {
                        note(format_args!("not backed up: {name}: {}", error.told()));
                        failed = Some(error);
                    }
                    Err(error) => return Err(error),
                }
            }
            match failed {
                Some(error) if done == 0 => Err(error),
                None if !partial => Ok(Exit::Done),
                _ => Ok(Exit::Partial),
            }
        })
    }

    fn names(&self, control: &Control, target: Target) -> Result<Vec<CollectionName>, CliError> {
        let mut names = self.collections.clone();
        if names.is_empty() {
            let all = control.wait(control.node.collections())?;
            for row in &all.damaged_rows {
                let name = row.collection.as_deref().unwrap_or("one without a name");
                note(format_args!("not backed up: {name}: {}", row.damage));
            }
            let named = all.collections.into_iter().map(|one| CollectionName::new(one.collection));
            names = named.collect::<Result<_, _>>()?;
            if names.is_empty() {
                note("no collections yet: selfsame collection create NAME");
            }
        }
        if target != Target::Folder && names.len() > 1 {
            return Err(CliError::OneBackup(names.len()));
        }
        Ok(names)
    }

    fn tell(&self, made: &Made) -> Result<(), CliError> {
        let Made { path, head, summary, bytes } = made;
        let counts = summary.counts;
        if counts.missing > 0 {
            note(format_args!(
                "{}: the bytes of {} are lost here and in this backup: `selfsame sync` with a \
                 peer takes them back",
                head.envelope.name(),
                counted(counts.missing, "value", "values"),
            ));
        }
        if self.json {
            let mut output = Output::new();
            output.json(&json!({
                "collection": head.envelope.name().as_str(), "path": path.display().to_string(),
                "full": head.base.is_none(), "held": counts.held, "gone": counts.gone,
                "values": counts.values, "missing_values": counts.missing, "bytes": bytes,
                "root": head.envelope.root().to_string(), "state": head.state().to_string(),
                "taken_ms": head.taken_ms,
            }))?;
            return output.finish();
        }
        let what = match head.base {
            None => counted(counts.held, "entry", "entries"),
            Some(_) => format!(
                "{} changed, {} gone",
                counted(counts.held, "key", "keys"),
                super::output::count(counts.gone)
            ),
        };
        print(format_args!(
            "{}: {what} in {} ({})",
            head.envelope.name(),
            path.display(),
            size(*bytes)
        ))
    }
}

fn target(path: &Path) -> Target {
    if path == Path::new("-") {
        Target::Output
    } else if path.extension().is_some_and(|extension| extension == EXTENSION) {
        Target::File
    } else {
        Target::Folder
    }
}

/// The head of a backup that has an end.
fn whole_head(path: &Path) -> Result<BackupHead, CliError> {
    let head = open_head(path)?;
    summary_of(path)?;
    Ok(head)
}

fn summary_of(path: &Path) -> Result<BackupSummary, CliError> {
    let file = File::open(path).map_err(CliError::file("read", path))?;
    read_summary(file).map_err(CliError::backup(path))
}

/// A backup that was made.
struct Made {
    path: PathBuf,
    head: BackupHead,
    summary: BackupSummary,
    bytes: u64,
}

struct Making<'a> {
    control: &'a Control,
    interrupt: &'a Interrupt,
    json: bool,
}

impl Making<'_> {
    fn to_output(&self, name: &CollectionName, base: Option<&BackupHead>) -> Result<(), CliError> {
        let mut output = Output::new();
        self.each_part(name, base, |part| output.bytes(part))?;
        output.finish()
    }

    fn to_file(
        &self,
        name: &CollectionName,
        path: &Path,
        base: Option<&BackupHead>,
    ) -> Result<Made, CliError> {
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let file = NewBackup::begin(folder.unwrap_or(Path::new(".")), path)?;
        self.write(name, base, file)
    }

    fn to_folder(
        &self,
        name: &CollectionName,
        path: &Path,
        incremental: bool,
    ) -> Result<Made, CliError> {
        let series = Series::to_write(path, name)?;
        let base = match series.last().filter(|_| incremental) {
            Some(last) => Some(whole_head(last)?),
            None => None,
        };
        if base.as_ref().is_some_and(|base| base.envelope.name() != name) {
            return Err(CliError::OthersSeries(series.folder().into()));
        }
        if let Some(base) = &base {
            let file = NewBackup::begin(series.folder(), &series.next(false))?;
            match self.write(name, Some(base), file) {
                Err(CliError::Problem(problem)) if problem.code == "not_since" => {
                    if !self.json {
                        note(format_args!("{}", problem.message));
                    }
                }
                other => return other,
            }
        }
        let file = NewBackup::begin(series.folder(), &series.next(true))?;
        self.write(name, None, file)
    }

    fn write(
        &self,
        name: &CollectionName,
        base: Option<&BackupHead>,
        file: NewBackup,
    ) -> Result<Made, CliError> {
        let path = file.path().to_path_buf();
        let failed = || CliError::file("write", &path);
        let mut writer = BufWriter::with_capacity(256 << 10, file);
        let mut bytes = 0;
        self.each_part(name, base, |part| {
            bytes += part.len() as u64;
            writer.write_all(part).map_err(failed())
        })?;
        let file = writer.into_inner().map_err(|error| failed()(error.into_error()))?;
        file.finish().map_err(failed())?;
        Ok(Made { head: open_head(&path)?, summary: summary_of(&path)?, path, bytes })
    }

    fn each_part(
        &self,
        name: &CollectionName,
        base: Option<&BackupHead>,
        mut write: impl FnMut(&[u8]) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let asked = self.control.node.backup(name, base);
        let mut stream = self.control.wait_or_stop(self.interrupt, asked)?;
        let mut progress = Progress::new(None);
        loop {
            match self.control.wait_or_stop(self.interrupt, stream.next_part())? {
                Some(part) => {
                    progress.bytes(part.len() as u64);
                    write(&part)?;
                }
                None => return Ok(()),
            }
        }
    }
}

/// Opens a backup to be read.
pub(super) fn open(path: &Path) -> Result<BackupReader<BufReader<File>>, CliError> {
    let file = File::open(path).map_err(CliError::file("read", path))?;
    let file = BufReader::with_capacity(256 << 10, file);
    BackupReader::open(file, BackupLimits::default()).map_err(CliError::backup(path))
}
