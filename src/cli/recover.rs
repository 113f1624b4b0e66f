//! `selfsame recover`

use clap::Args;
use serde_json::json;

use super::error::CliError;
use super::output::{counted, note, print, print_json, size};
use super::{Context, Exit, arguments};
use crate::api::types::{Check, Kept, MissingValue, Recovery};
use crate::types::CollectionName;

/// Checks a collection against its hashes, and recovers it if it is damaged
///
/// Everything is read and hashed. Indexes that rotted while the entries are sound are written
/// again, and that is all. If an entry itself rotted, first try `selfsame sync` with a peer, which
/// takes it back as it was. Else the entries that can still be read stay, and the tree is built
/// anew from them. What cannot be rebuilt is the
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
    /// "missing_values"}, after a recovery {"entries", "lost"}, with "mended" if none was needed
    #[arg(long)]
    json: bool,
}

impl Recover {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        context.with(|control| {
            if self.check {
                return self.tell(&control.wait(control.node.check(&self.collection))?);
            }
            let recovery = control.wait(control.node.recover(&self.collection, self.force))?;
            if recovery.row_written {
                note("its row in the list of collections was damaged and is written again");
            }
            let Some(Kept { entries, lost }) = recovery.recovered else {
                if recovery.mended > 0 {
                    return self.tell_mended(&recovery);
                }
                return self.tell(&recovery.check);
            };
            for problem in &recovery.check.problems {
                note(format_args!("damaged: {problem}"));
            }
            if self.json {
                print_json(&json!({"entries": entries, "lost": lost}))?;
            } else {
                print(format_args!(
                    "recovered {}: {} kept, {lost} lost; synchronise with a peer to get back what \
                     is missing",
                    self.collection,
                    counted(entries, "entry", "entries"),
                ))?;
            }
            Ok(Exit::Done)
        })
    }

    fn tell_mended(&self, recovery: &Recovery) -> Result<Exit, CliError> {
        let (check, mended) = (&recovery.check, recovery.mended);
        if self.json {
            print_json(&json!({"entries": check.entries, "lost": 0, "mended": mended}))?;
        } else {
            print(format_args!(
                "mended {}: {} written again from the entries, which are sound; nothing is lost",
                self.collection,
                counted(mended, "row", "rows"),
            ))?;
        }
        Ok(if check.missing_values.is_empty() { Exit::Done } else { Exit::Differs })
    }

    fn tell(&self, check: &Check) -> Result<Exit, CliError> {
        if self.json {
            print_json(&json!(check))?;
        } else if check.sound {
            print(format_args!(
                "{} is sound: {}, {}",
                self.collection,
                counted(check.entries, "entry", "entries"),
                size(check.bytes)
            ))?;
        } else {
            for problem in &check.problems {
                print(format_args!("damaged: {problem}"))?;
            }
            for MissingValue { kh, value_hash } in &check.missing_values {
                print(format_args!("bytes lost: value {value_hash} of the key with hash {kh}"))?;
            }
        }
        Ok(if check.sound { Exit::Done } else { Exit::Differs })
    }
}
