//! `selfsame scrub`

use clap::Args;
use serde_json::json;

use super::control::Control;
use super::error::CliError;
use super::interrupt::Interrupt;
use super::output::{Output, counted, note, print, size};
use super::progress::Progress;
use super::{Context, Exit, arguments};
use crate::api::types::{RotText, ScrubLine, ScrubRequest, ScrubbedText};
use crate::types::CollectionName;

/// Reads all that is stored again, to find what rotted on disk before it is needed
///
/// Entries, values, pages and indexes are held against their hashes and against each other, while
/// the node goes on working. What can be written again from what verifies is mended at once.
/// Entries and values that rotted are named and written down: the next session with a peer that
/// has them, or a running daemon at once, takes them back; until then all other keys can be read.
///
/// `selfsame serve` does this by itself now and then (see [scrub] in config.toml). Ctrl-C ends it
/// early; the next scrub, here or in the daemon, goes on from there. Ends with 1 if something is
/// left that a peer or a recovery has to bring back.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame scrub
  selfsame scrub players --bytes-per-s 10000000")]
pub(super) struct Scrub {
    /// The collections [default: all]
    #[arg(value_name = "COLLECTION", value_parser = arguments::collection)]
    collections: Vec<CollectionName>,
    /// Reads no faster than so many bytes per second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    bytes_per_s: Option<u64>,
    /// Prints JSON, a line for each collection: {"collection", "complete", "sound", "entries",
    /// "bytes", "found", "mended", "rotten_entries", "lost_values", "to_recover", "rot"}
    #[arg(long)]
    json: bool,
}

impl Scrub {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let interrupt = Interrupt::install()?;
        context.with(|control| {
            let mut exit = Exit::Done;
            for name in self.names(control)? {
                let (rot, scrubbed) = self.one(control, &interrupt, &name)?;
                self.tell(&rot, &scrubbed)?;
                if !scrubbed.complete {
                    return Ok(Exit::Interrupted);
                }
                if !scrubbed.is_sound() {
                    exit = Exit::Differs;
                }
            }
            Ok(exit)
        })
    }

    fn names(&self, control: &Control) -> Result<Vec<CollectionName>, CliError> {
        if !self.collections.is_empty() {
            return Ok(self.collections.clone());
        }
        let all = control.wait(control.node.collections())?.collections;
        if all.is_empty() {
            note("no collections yet: selfsame collection create NAME");
        }
        all.into_iter().map(|one| Ok(CollectionName::new(one.collection)?)).collect()
    }

    fn one(
        &self,
        control: &Control,
        interrupt: &Interrupt,
        name: &CollectionName,
    ) -> Result<(Vec<RotText>, ScrubbedText), CliError> {
        let request = ScrubRequest { bytes_per_s: self.bytes_per_s };
        let begin = control.node.scrub(name, &request);
        let (mut progress, mut rot) = (None::<Progress>, Vec::new());
        let report = control.follow(interrupt, begin, |line| match line {
            ScrubLine::Progress(now) => {
                progress
                    .get_or_insert_with(|| Progress::new(Some(now.of_bytes)))
                    .is_at(now.entries, now.bytes);
                None
            }
            ScrubLine::Rot(found) => {
                if !self.json {
                    let text = described(name, &found);
                    progress.as_ref().map_or_else(|| note(&text), |bar| bar.note(&text));
                }
                rot.push(found);
                None
            }
            ScrubLine::Report(report) => Some(report),
            ScrubLine::Run(_) | ScrubLine::Problem(_) => None,
        })?;
        Ok((rot, report))
    }

    fn tell(&self, rot: &[RotText], scrubbed: &ScrubbedText) -> Result<(), CliError> {
        if self.json {
            let mut line = json!(scrubbed);
            line["sound"] = json!(scrubbed.is_sound());
            line["rot"] = json!(rot);
            let mut output = Output::new();
            output.json(&line)?;
            return output.finish();
        }
        let ScrubbedText { collection, entries, bytes, found, mended, .. } = scrubbed;
        let read = format!("{}, {}", counted(*entries, "entry", "entries"), size(*bytes));
        if !scrubbed.complete {
            return print(format_args!(
                "{collection}: stopped after {read}; the next scrub goes on from there"
            ));
        }
        let mut text = match (found, mended) {
            (0, _) => format!("{collection}: {read} read, nothing rotted"),
            (found, mended) => format!("{collection}: {read} read, {found} found, {mended} mended"),
        };
        let (entries, values) = (scrubbed.rotten_entries, scrubbed.lost_values);
        if entries + values > 0 {
            text.push_str(&format!(
                "; {} and {} are lost here: `selfsame sync {collection}` with a peer takes them \
                 back",
                counted(entries, "entry", "entries"),
                counted(values, "value", "values"),
            ));
        }
        if scrubbed.to_recover > 0 {
            text.push_str(&format!("; run `selfsame recover {collection}`"));
        }
        print(text)
    }
}

fn described(name: &CollectionName, rot: &RotText) -> String {
    let fate = if rot.mended { "mended" } else { "not mended" };
    format!("{name}: {}: {} ({fate})", rot.kind, rot.what)
}
