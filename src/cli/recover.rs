//! `selfsame recover`

use clap::Args;
use serde_json::json;

use super::error::CliError;
use super::output::{counted, note, print, print_json, size};
use super::{Context, Exit, arguments};
use crate::replica::{CheckReport, Collection, ReplicaError};
use crate::store::EmbeddedStore;
use crate::types::CollectionName;

/// Checks a collection against its hashes, and recovers it if it is damaged
///
/// Everything is read and hashed. If what is on disk does not fit together, the entries that
/// can still be read stay, and the tree is built anew from them. What cannot be rebuilt is the
/// memory of what this node has seen: it is cut down to what the surviving entries prove. So
/// nothing that survives is lost, and the next sessions with peers bring back what is missing;
/// but a deletion that no peer has heard of yet is forgotten, and such a key comes back.
///
/// If it is the collection's row in the list of collections that is damaged, that row alone is
/// written again: the root, which binds name and settings, shows that they are the right ones.
/// `selfsame collection ls` lists such rows; one that has lost its name belongs to the
/// collection that recovers when it is named here.
///
/// A collection that is sound is left alone. Values whose bytes are lost while their entries
/// are sound are listed: get them from a peer or a backup, and put them again.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame recover players --check
  selfsame recover players")]
pub(super) struct Recover {
    /// The collection
    #[arg(value_parser = arguments::collection)]
    collection: CollectionName,
    /// Only checks; ends with 1 if something is damaged
    #[arg(long)]
    check: bool,
    /// Recovers even a collection that is sound
    #[arg(long, conflicts_with = "check")]
    force: bool,
    /// Prints JSON: after a check {"sound", "entries", "bytes", "problems",
    /// "missing_values"}, after a recovery {"entries", "lost"}
    #[arg(long)]
    json: bool,
}

impl Recover {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        context.with(|home| {
            let found = home.replica.collection(&self.collection);
            let (collection, row_written) = match found {
                Err(ReplicaError::Damaged { what, .. }) if self.check => {
                    let problems = vec![what];
                    return self.tell(&CheckReport { problems, ..CheckReport::default() });
                }
                Err(ReplicaError::Damaged { .. } | ReplicaError::PerhapsDamaged(_))
                    if !self.check =>
                {
                    let collection = home.replica.recover_row(&self.collection)?;
                    note("its row in the list of collections was damaged and is written again");
                    (collection, true)
                }
                other => (other?, false),
            };
            let report = checked(&collection)?;
            if self.check {
                return self.tell(&report);
            }
            for problem in &report.problems {
                note(format_args!("damaged: {problem}"));
            }
            if report.is_sound() && row_written {
                return self.tell_recovered(report.entries, 0);
            }
            if report.problems.is_empty() && !self.force {
                if !report.missing_values.is_empty() {
                    return self.tell(&report);
                }
                return Err(CliError::NothingToRecover(self.collection.clone()));
            }
            let recovered = collection.recover()?;
            self.tell_recovered(recovered.entries, recovered.lost)
        })
    }

    fn tell_recovered(&self, entries: u64, lost: u64) -> Result<Exit, CliError> {
        if self.json {
            print_json(&json!({"entries": entries, "lost": lost}))?;
        } else {
            print(format_args!(
                "recovered {}: {} kept, {} lost; synchronise with a peer to get back what is \
                 missing",
                self.collection,
                counted(entries, "entry", "entries"),
                lost
            ))?;
        }
        Ok(Exit::Done)
    }

    fn tell(&self, report: &CheckReport) -> Result<Exit, CliError> {
        if self.json {
            let missing: Vec<_> = report
                .missing_values
                .iter()
                .map(|(key, value)| json!({"kh": key.to_string(), "value_hash": value.to_string()}))
                .collect();
            print_json(&json!({
                "sound": report.is_sound(),
                "entries": report.entries,
                "bytes": report.bytes,
                "problems": report.problems,
                "missing_values": missing,
            }))?;
        } else if report.is_sound() {
            print(format_args!(
                "{} is sound: {}, {}",
                self.collection,
                counted(report.entries, "entry", "entries"),
                size(report.bytes)
            ))?;
        } else {
            for problem in &report.problems {
                print(format_args!("damaged: {problem}"))?;
            }
            for (key, value) in &report.missing_values {
                print(format_args!("bytes lost: value {value} of the key with hash {key}"))?;
            }
        }
        Ok(if report.is_sound() { Exit::Done } else { Exit::Differs })
    }
}

/// What a check finds; damage that was seen at opening is a problem like the others.
fn checked(collection: &Collection<EmbeddedStore>) -> Result<CheckReport, CliError> {
    match collection.check() {
        Err(ReplicaError::Damaged { what, .. }) => {
            Ok(CheckReport { problems: vec![what], ..CheckReport::default() })
        }
        other => Ok(other?),
    }
}
