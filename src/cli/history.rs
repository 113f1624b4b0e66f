//! `selfsame history`

use clap::Args;

use super::arguments::{self, KeyArgument};
use super::error::CliError;
use super::output::{self, Output, date_time, note, print, print_json, size};
use super::{Context, Exit};
use crate::api::types::{HistoryText, ReachText};
use crate::types::{CollectionName, Key};

/// Shows what a key was: the versions held, and the values that were replaced or deleted
///
/// Replaced values are kept for a time and up to a share of the collection's size (history_age_ms
/// and history_percent in config.toml); it is said when older ones were dropped. A value that was
/// replaced several times is listed once, at the last time. Times are those at which this node
/// came to know. A deleted key has its history as long as that is kept. Nothing known of the key:
/// 1.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame history players player:17
  selfsame history players player:17 --get 1f09ddf9 > before.json
  selfsame put players player:17 < before.json")]
pub(super) struct History {
    /// The collection
    #[arg(value_parser = arguments::collection)]
    collection: CollectionName,
    #[command(flatten)]
    key: KeyArgument,
    /// Most replaced values that are listed, up to 4,096
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Prints the value with this hash instead, byte for byte; its first digits are enough
    #[arg(long, value_name = "HASH", conflicts_with_all = ["json", "limit"])]
    get: Option<String>,
    /// Prints JSON: {"key" or "key_hex", "held": [{"writer", "counter", "stamp", "size",
    /// "value_hash"}], "replaced": [{"replaced_ms", "deleted", "size", "value_hash", "kept"}],
    /// "more", "reach": "all", "since" or "nothing", "since_ms"}
    #[arg(long)]
    json: bool,
}

impl History {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let key = self.key.key()?;
        context.with(|control| {
            if let Some(hash) = &self.get {
                let value = control.wait(control.node.version(&self.collection, &key, hash))?;
                let mut output = Output::new();
                output.bytes(&value)?;
                output.finish()?;
                return Ok(Exit::Done);
            }
            let history = control.node.history(&self.collection, &key, self.limit);
            let history = control.wait(history)?;
            let known = !history.held.is_empty() || !history.replaced.is_empty();
            if self.json {
                print_json(&history)?;
            } else if known {
                print(listed(&history))?;
            }
            if !self.json {
                self.tell(&history, &key, known);
            }
            Ok(if known { Exit::Done } else { Exit::Differs })
        })
    }

    fn tell(&self, history: &HistoryText, key: &Key, known: bool) {
        if !known {
            note(format_args!("{key}: nothing is known of this key in {}", self.collection));
        }
        if history.more {
            note("more was replaced: a greater --limit lists it");
        }
        match (history.reach, history.since_ms) {
            (ReachText::Since, Some(since)) => note(format_args!(
                "what was replaced before {} is no longer kept (history_age_ms, history_percent)",
                date_time(since)
            )),
            (ReachText::Nothing, _) => note(
                "no replaced values are kept now (history_age_ms, history_percent, or the \
                 collection was recovered)",
            ),
            _ => {}
        }
    }
}

fn listed(history: &HistoryText) -> comfy_table::Table {
    let mut table = output::table(&["WHAT", "TIME", "SIZE", "VALUE HASH", "BYTES"], &[2]);
    for held in history.held.iter().filter_map(|held| held.sibling()) {
        let written = date_time(held.stamp.millis());
        let hash = held.value_hash.to_string();
        table.add_row(["held, written", &written, &size(held.size), &hash[..16], "held"]);
    }
    for replaced in &history.replaced {
        let what = if replaced.deleted { "deleted" } else { "replaced" };
        let hash: String = replaced.value_hash.chars().take(16).collect();
        let bytes = if replaced.kept { "kept" } else { "lost" };
        let at = date_time(replaced.replaced_ms);
        table.add_row([what, &at, &size(replaced.size), &hash, bytes]);
    }
    table
}
