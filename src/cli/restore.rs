//! `selfsame restore`

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::backup::files::Meant;
use super::control::Control;
use super::error::CliError;
use super::interrupt::Interrupt;
use super::output::{Output, counted, date_time, note, print, size};
use super::progress::Progress;
use super::{Context, Exit, arguments};
use crate::api::ApiError;
use crate::api::types::{CollectionInfo, PolicyName, RestoredText};
use crate::backup::{BackupError, BackupHead, BackupLimits, BackupReader, Chain, Event};
use crate::replica::{NotRestored, ReplicaError};
use crate::types::CollectionName;

/// Restores collections from backups
///
/// Of files, which are one chain in their order (a full backup, then the parts that follow it), the
/// collection at the moment of the last one; - is a full backup from standard input. Of a folder
/// that `selfsame backup` wrote, every collection in it at the moment of its last backup: name fewer
/// files for an older one. All of a backup is checked before anything is replaced, and the
/// collection is replaced in one step: after Ctrl-C, an error or a crash it is as it was, or
/// restored.
///
/// A collection that holds or has seen anything is replaced only with --replace. What only this
/// node had and the backup lacks is lost then. The next session with any peer brings back what
/// others have, and nothing comes back that others have deleted: restored nodes need nothing
/// special, and any node's backup may be restored at any other.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame restore /backups/node1
  selfsame restore players.backup later.backup --replace
  selfsame restore players.backup --collection players-as-it-was
  selfsame restore players.backup --dry-run")]
pub(super) struct Restore {
    /// Files of one chain in their order, a folder, or - for standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The name that the collection gets [default: the one in the backup]
    #[arg(long, value_name = "NAME", value_parser = arguments::collection)]
    collection: Option<CollectionName>,
    /// Replaces a collection of this name, whatever it holds
    #[arg(long)]
    replace: bool,
    /// Checks the backup and says what would be done, and changes nothing
    #[arg(long)]
    dry_run: bool,
    /// Prints JSON, a line for each collection: {"collection", "entries", "bytes",
    /// "missing_values", "root", "node", "taken_ms", "replaced"}, with --dry-run and "would_replace"
    /// instead of "replaced"
    #[arg(long)]
    json: bool,
}

type Input = Box<dyn Read + Send>;

impl Restore {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let interrupt = Interrupt::install()?;
        let chains = self.chains()?;
        context.with(|control| {
            let several = chains.len() > 1;
            let (mut done, mut failed) = (0, None);
            for paths in chains {
                match self.one(control, &interrupt, &paths) {
                    Ok(()) => done += 1,
                    Err(CliError::Interrupted) => {
                        note(
                            "stopped: what was restored stays, and the collection at which it \
                             stopped is as it was, or restored",
                        );
                        return Ok(Exit::Interrupted);
                    }
                    Err(error) if several => {
                        note(error.told());
                        failed = Some(error);
                    }
                    Err(error) => return Err(error),
                }
            }
            match failed {
                None => Ok(Exit::Done),
                Some(_) if done > 0 => Ok(Exit::Partial),
                Some(error) => Ok(error.exit()),
            }
        })
    }

    /// The files of each collection.
    fn chains(&self) -> Result<Vec<Vec<PathBuf>>, CliError> {
        let series = match Meant::by(&self.paths)? {
            Meant::Chain(chain) => return Ok(vec![chain]),
            Meant::Series(series) => series,
        };
        if self.collection.is_some() && series.len() > 1 {
            return Err(CliError::OneName(series.len()));
        }
        Ok(series.iter().filter_map(|series| series.chains().pop()).collect())
    }

    fn one(
        &self,
        control: &Control,
        interrupt: &Interrupt,
        paths: &[PathBuf],
    ) -> Result<(), CliError> {
        let last = paths.last().cloned().unwrap_or_default();
        let readers = paths.iter().map(|path| opened(path)).collect::<Result<_, _>>()?;
        let mut chain = Chain::of(readers).map_err(CliError::backup(&last))?;
        let head = chain.head().clone();
        let name = self.collection.as_ref().unwrap_or(head.envelope.name()).clone();
        let there = self.there(control, &name, &head)?;
        let progress = Progress::new(Some(head.envelope.totals().bytes));
        if self.dry_run {
            self.read(&mut chain, progress, interrupt).map_err(CliError::backup(&last))?;
            if interrupt.requested() {
                return Err(CliError::Interrupted);
            }
            return self.tell_dry(&name, &head, chain.missing(), there.as_ref());
        }
        let mut progress = progress;
        let restored = control.node.restore(&name, self.replace, move |output| {
            let merged = chain.merge(output, |event| {
                if let Event::Value { value: Some(value), .. } = event {
                    progress.entry(value.len() as u64);
                }
            });
            merged.map(drop)
        });
        let restored = control.wait_or_stop(interrupt, restored)?;
        self.tell(&restored)
    }

    fn read(
        &self,
        chain: &mut Chain<Input>,
        mut progress: Progress,
        interrupt: &Interrupt,
    ) -> Result<(), BackupError> {
        while let Some(event) = chain.next_event()? {
            if let Event::Value { value: Some(value), .. } = event {
                progress.entry(value.len() as u64);
            }
            if interrupt.requested() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The collection that has the name now, if it may be replaced.
    fn there(
        &self,
        control: &Control,
        name: &CollectionName,
        head: &BackupHead,
    ) -> Result<Option<CollectionInfo>, CliError> {
        let all = control.wait(control.node.collections())?;
        let mut all = all.collections.into_iter();
        let Some(there) = all.find(|one| one.collection == name.as_str()) else { return Ok(None) };
        let spec = head.spec();
        let same = there.hash_algorithm == spec.algorithm.to_string()
            && there.policy == PolicyName::from(&spec.policy);
        let entries = there.entries.unwrap_or(0);
        let refused = if !same {
            NotRestored::Replica(ReplicaError::OtherSpec {
                name: name.to_string(),
                found: format!("{} and {}", there.hash_algorithm, there.policy),
                asked: format!("{} and {}", spec.algorithm, spec.policy),
            })
        } else if entries > 0 && !self.replace {
            NotRestored::Exists { name: name.clone(), entries }
        } else {
            return Ok(Some(there));
        };
        // said here, before much is read
        Err(ApiError::from(refused).into())
    }

    fn tell_dry(
        &self,
        name: &CollectionName,
        head: &BackupHead,
        missing: u64,
        there: Option<&CollectionInfo>,
    ) -> Result<(), CliError> {
        let totals = head.envelope.totals();
        let held = there.map(|there| there.entries.unwrap_or(0));
        if self.json {
            let mut output = Output::new();
            output.json(&json!({
                "collection": name.as_str(), "entries": totals.entries, "bytes": totals.bytes,
                "missing_values": missing, "root": head.envelope.root().to_string(),
                "node": head.node.to_string(), "taken_ms": head.taken_ms,
                "would_replace": held,
            }))?;
            return output.finish();
        }
        let over = match there {
            None => "as a new collection".to_owned(),
            Some(there) if there.root == Some(head.envelope.root().to_string()) => {
                "in place of the very same entries".to_owned()
            }
            Some(_) => {
                format!("in place of {}", counted(held.unwrap_or(0), "entry", "entries"))
            }
        };
        print(format_args!(
            "sound: would restore {name} as of {} with {} ({}), {over}",
            date_time(head.taken_ms),
            counted(totals.entries, "entry", "entries"),
            size(totals.bytes),
        ))
    }

    fn tell(&self, restored: &RestoredText) -> Result<(), CliError> {
        if self.json {
            let mut output = Output::new();
            output.json(restored)?;
            return output.finish();
        }
        let RestoredText { collection, entries, bytes, missing_values, taken_ms, .. } = restored;
        if *missing_values > 0 {
            note(format_args!(
                "{collection}: the bytes of {} were lost when the backup was made: `selfsame sync` \
                 with a peer that has them takes them back",
                counted(*missing_values, "value", "values"),
            ));
        }
        print(format_args!(
            "restored {collection} as of {}: {} ({}){}",
            date_time(*taken_ms),
            counted(*entries, "entry", "entries"),
            size(*bytes),
            if restored.replaced { ", in place of what was there" } else { "" },
        ))
    }
}

/// A backup to be read: a file, or standard input.
fn opened(path: &Path) -> Result<BackupReader<Input>, CliError> {
    let input: Input = if path == Path::new("-") {
        Box::new(BufReader::with_capacity(256 << 10, io::stdin()))
    } else {
        let file = File::open(path).map_err(CliError::file("read", path))?;
        Box::new(BufReader::with_capacity(256 << 10, file))
    };
    BackupReader::open(input, BackupLimits::default()).map_err(CliError::backup(path))
}
