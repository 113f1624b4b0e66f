//! `selfsame backup ls`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::files::{Meant, open_head};
use super::summary_of;
use crate::cli::Exit;
use crate::cli::error::CliError;
use crate::cli::output::{Output, count, date_time, note, print, size, table};

/// Lists backups: of what, from when, how large
///
/// Reads the beginning and the end of each alone, so it needs no time and proves nothing: see
/// `selfsame backup verify`. STATE names what a backup is of, GOES ON FROM the state to which a
/// part belongs. What is no whole backup is named, and the command ends with 3.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame backup ls /backups/node1
  selfsame backup ls players.backup --json")]
pub(super) struct Ls {
    /// Files, or a folder
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Prints JSON, a line for each: {"path", "collection", "full", "taken_ms", "node", "held",
    /// "gone", "missing_values", "bytes", "entries", "root", "state", "base_state",
    /// "hash_algorithm", "policy"}
    #[arg(long)]
    json: bool,
}

impl Ls {
    pub(super) fn run(self) -> Result<Exit, CliError> {
        let paths = match Meant::by(&self.paths)? {
            Meant::Chain(paths) => paths,
            Meant::Series(series) => series.iter().flat_map(|one| one.chains()).flatten().collect(),
        };
        let header =
            ["FILE", "COLLECTION", "KIND", "TAKEN", "KEYS", "SIZE", "STATE", "GOES ON FROM"];
        let mut rows = table(&header, &[4, 5]);
        let (mut output, mut exit) = (Output::new(), Exit::Done);
        for path in &paths {
            let read = open_head(path).and_then(|head| Ok((head, summary_of(path)?)));
            let (head, summary) = match read {
                Ok(read) => read,
                Err(error) if paths.len() == 1 => return Err(error),
                Err(error) => {
                    note(error.told());
                    exit = Exit::Partial;
                    continue;
                }
            };
            let bytes = std::fs::metadata(path).map_err(CliError::file("read", path))?.len();
            let (counts, spec) = (summary.counts, head.spec());
            let base = head.base.map(|base| base.state.to_string());
            if self.json {
                output.json(&json!({
                    "path": path.display().to_string(), "collection": spec.name.as_str(),
                    "full": base.is_none(), "taken_ms": head.taken_ms,
                    "node": head.node.to_string(), "held": counts.held, "gone": counts.gone,
                    "missing_values": counts.missing, "bytes": bytes,
                    "entries": head.envelope.totals().entries,
                    "root": head.envelope.root().to_string(), "state": head.state().to_string(),
                    "base_state": base, "hash_algorithm": spec.algorithm.to_string(),
                    "policy": spec.policy.to_string(),
                }))?;
                continue;
            }
            let short = |state: &str| state.chars().take(12).collect::<String>();
            rows.add_row([
                path.display().to_string(),
                spec.name.to_string(),
                if base.is_some() { "part" } else { "full" }.into(),
                date_time(head.taken_ms),
                count(counts.held + counts.gone),
                size(bytes),
                short(&head.state().to_string()),
                base.map(|base| short(&base)).unwrap_or_default(),
            ]);
        }
        output.finish()?;
        if !self.json && rows.row_count() > 0 {
            print(rows)?;
        }
        Ok(exit)
    }
}
