//! `selfsame backup verify`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::files::Meant;
use super::open;
use crate::backup::{Chain, Event};
use crate::cli::Exit;
use crate::cli::error::CliError;
use crate::cli::interrupt::Interrupt;
use crate::cli::output::{Output, counted, date_time, note, print, size};
use crate::cli::progress::Progress;

/// Reads backups to their end and checks all that they say, offline
///
/// Needs no node and no data folder. Of files, which are one chain in their order (a full backup,
/// then the parts that follow it), every byte is held against its hash, every value against its
/// entry, and the root of all entries, the hash of what was seen and the links of the chain are
/// computed again. Of a folder, all chains in it. Ends with 6 if one does not hold.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame backup verify players.backup later.backup
  selfsame backup verify /backups/node1 --json")]
pub(super) struct Verify {
    /// Files of one chain in their order, or a folder
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Prints JSON, a line for each chain: {"paths", "sound", "collection", "entries", "bytes",
    /// "missing_values", "root", "state", "node", "taken_ms"}, or with "sound": false "problem"
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) fn run(self) -> Result<Exit, CliError> {
        let interrupt = Interrupt::install()?;
        let chains = match Meant::by(&self.paths)? {
            Meant::Chain(chain) => vec![chain],
            Meant::Series(series) => series.iter().flat_map(|series| series.chains()).collect(),
        };
        let mut exit = Exit::Done;
        for paths in &chains {
            match self.one(paths, &interrupt) {
                Ok(()) => {}
                Err(error @ CliError::Interrupted) => return Err(error),
                Err(error) if chains.len() == 1 && !self.json => return Err(error),
                Err(error) => {
                    exit = match error.exit() {
                        Exit::Unproved => Exit::Unproved,
                        _ if exit == Exit::Done => Exit::Failed,
                        _ => exit,
                    };
                    self.tell_unsound(paths, &error)?;
                }
            }
        }
        Ok(exit)
    }

    fn one(&self, paths: &[PathBuf], interrupt: &Interrupt) -> Result<(), CliError> {
        let last = paths.last().cloned().unwrap_or_default();
        let readers = paths.iter().map(|path| open(path)).collect::<Result<_, _>>()?;
        let mut chain = Chain::of(readers).map_err(CliError::backup(&last))?;
        let mut progress = Progress::new(Some(chain.head().envelope.totals().bytes));
        while let Some(event) = chain.next_event().map_err(CliError::backup(&last))? {
            if interrupt.requested() {
                return Err(CliError::Interrupted);
            }
            if let Event::Value { value: Some(value), .. } = event {
                progress.entry(value.len() as u64);
            }
        }
        drop(progress);
        let head = chain.head();
        let (totals, name) = (head.envelope.totals(), head.envelope.name());
        if self.json {
            let mut output = Output::new();
            output.json(&json!({
                "paths": shown(paths), "sound": true, "collection": name.as_str(),
                "entries": totals.entries, "bytes": totals.bytes,
                "missing_values": chain.missing(), "root": head.envelope.root().to_string(),
                "state": head.state().to_string(), "node": head.node.to_string(),
                "taken_ms": head.taken_ms,
            }))?;
            return output.finish();
        }
        if chain.missing() > 0 {
            let missing = counted(chain.missing(), "value", "values");
            note(format_args!("{name}: {missing} were lost when the backup was made"));
        }
        print(format_args!(
            "sound: {name} of {}: {} ({}) in {}, up to {}",
            date_time(head.taken_ms),
            counted(totals.entries, "entry", "entries"),
            size(totals.bytes),
            counted(paths.len() as u64, "file", "files"),
            last.display(),
        ))
    }

    fn tell_unsound(&self, paths: &[PathBuf], error: &CliError) -> Result<(), CliError> {
        if self.json {
            let mut output = Output::new();
            let problem = error.to_string();
            output.json(&json!({"paths": shown(paths), "sound": false, "problem": problem}))?;
            return output.finish();
        }
        note(error.told());
        Ok(())
    }
}

fn shown(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| path.display().to_string()).collect()
}
