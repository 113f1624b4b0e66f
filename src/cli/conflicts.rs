//! `selfsame conflicts`

use clap::Args;

use super::control::Control;
use super::error::CliError;
use super::interrupt::Interrupt;
use super::output::{Output, count, counted, date_time, note, size};
use super::{Context, Exit, arguments};
use crate::api::types::{ConflictSibling, ConflictText, IncidentText, MergedText, ReportText};
use crate::api::{CallError, ConflictQuery};
use crate::types::CollectionName;

/// Lists keys with concurrent versions that differ, and which of them the policy shows
///
/// Two nodes wrote the key without having seen each other's write; both versions are kept until a
/// put that has seen them. Versions with equal values are no conflict. Keys come in the order of
/// their hashes, all of one moment. Where there are no conflicts nothing is read; else the pages
/// that have some (one page holds up to 64 keys). Who wrote a version is not known: a writer is a
/// random number, drawn anew when a node opens its store. No conflicts: 0, some: 1.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame conflicts players
  selfsame conflicts players --prefix player: --preview
  selfsame conflicts players --limit 100 --after CURSOR
  selfsame conflicts players --reports --limit 20
  selfsame conflicts players --json | jq -r '.key + \" \" + .read'")]
pub(super) struct Conflicts {
    /// The collection
    #[arg(value_parser = arguments::collection)]
    collection: CollectionName,
    /// Only keys that begin with this
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    prefix: String,
    /// The prefix is written in hex
    #[arg(long)]
    hex: bool,
    /// Most keys that are listed
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Goes on behind the key with this cursor, which a listing that was cut short names
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// Shows the beginning of each value that is printable text
    #[arg(long)]
    preview: bool,
    /// Lists what sessions reported instead, the latest first: keys that came into conflict,
    /// writes that survived a delete which had not seen them, rules of a resolver that were broken
    /// (the last 1,024 are kept)
    #[arg(long, conflicts_with_all = ["prefix", "hex", "after", "preview"])]
    reports: bool,
    /// Prints JSON, a line for each key: {"key" or "key_hex", "cursor", "read", "siblings":
    /// [{"writer", "counter", "stamp", "size", "value_hash", "written_ms", "shown",
    /// "written_here", "came_from", "preview"}], "merged": {"size", "value" or "value_hex", or
    /// "error"}}. With --reports a line for each: {"at_ms", "peer", "session", "key" or "key_hex",
    /// "report": "concurrent_update", "held", "came"; "deleted_remotely", "removed", "survived";
    /// or "unique_constraint_violation", "why"}
    #[arg(long)]
    json: bool,
}

impl Conflicts {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let prefix = arguments::bytes(&self.prefix, self.hex)?;
        let interrupt = Interrupt::install()?;
        context.with(|control| {
            if self.reports {
                return self.list_reports(control);
            }
            let query = ConflictQuery {
                prefix,
                after: self.after.clone(),
                // one more says whether there are more
                limit: self.limit.map(|limit| limit.saturating_add(1)),
                preview: self.preview,
            };
            self.list(control, &interrupt, &query)
        })
    }

    fn list(
        &self,
        control: &Control,
        interrupt: &Interrupt,
        query: &ConflictQuery,
    ) -> Result<Exit, CliError> {
        let lines = control.node.conflicts(&self.collection, query);
        let mut lines = control.wait_or_stop(interrupt, lines)?;
        let mut output = Output::new();
        let (mut listed, mut last) = (0, None);
        while let Some(line) = control.wait_or_stop(interrupt, lines.next_line())? {
            if Some(listed) == self.limit {
                output.finish()?;
                self.tell_more(last);
                return Ok(Exit::Differs);
            }
            let conflict = parsed(&line)?;
            if self.json {
                output.json(&conflict)?;
            } else {
                output.line(described(&conflict)?)?;
            }
            (listed, last) = (listed + 1, Some(conflict.cursor));
        }
        output.finish()?;
        if listed == 0 {
            note(format_args!("no conflicts in {}", self.collection));
            return Ok(Exit::Done);
        }
        let keys = if listed == 1 { "key is" } else { "keys are" };
        note(format_args!(
            "{} {keys} in conflict: `selfsame resolve` ends one, as does a put",
            count(listed)
        ));
        Ok(Exit::Differs)
    }

    fn list_reports(&self, control: &Control) -> Result<Exit, CliError> {
        let asked = control.node.reports(&self.collection, self.limit);
        let reports = control.wait(asked)?.reports;
        let mut output = Output::new();
        for report in &reports {
            if self.json {
                output.json(report)?;
            } else {
                output.line(told(report)?)?;
            }
        }
        output.finish()?;
        if reports.is_empty() {
            note(format_args!("no reports of {}", self.collection));
        }
        Ok(Exit::Done)
    }

    fn tell_more(&self, last: Option<String>) {
        match last {
            Some(cursor) => note(format_args!("there are more: --after {cursor} lists them")),
            None => note("there are conflicts"),
        }
    }
}

fn told(report: &ReportText) -> Result<String, CallError> {
    let key = report.key.key().ok_or_else(|| CallError::Answer("a report has no key".into()))?;
    let what = match &report.incident {
        IncidentText::ConcurrentUpdate { held, came } => {
            format!("concurrent update: {} came beside {}", dots(came), dots(held))
        }
        IncidentText::DeletedRemotely { removed, survived } if removed.is_empty() => {
            format!("deleted here, and {} survives, which had not seen that", dots(survived))
        }
        IncidentText::DeletedRemotely { removed, survived } => {
            format!("deleted remotely: {} went, {} survives", dots(removed), dots(survived))
        }
        IncidentText::UniqueConstraintViolation { why } => format!("constraint violated: {why}"),
    };
    let peer: String = report.peer.chars().take(8).collect();
    let session: String = report.session.chars().take(8).collect();
    let at = date_time(report.at_ms);
    Ok(format!("{at}  {key}: {what} (session {session} with {peer})"))
}

fn dots(dots: &[String]) -> String {
    if dots.is_empty() { "none".into() } else { dots.join(", ") }
}

fn parsed(line: &[u8]) -> Result<ConflictText, CallError> {
    serde_json::from_slice(line).map_err(|error| CallError::Answer(error.to_string()))
}

fn described(conflict: &ConflictText) -> Result<String, CallError> {
    let key = conflict.key.key().ok_or_else(|| CallError::Answer("a line has no key".into()))?;
    let number = counted(conflict.siblings.len() as u64, "version", "versions");
    let mut text = format!("{key}\n  {number}, --read {}", conflict.read.as_str());
    for sibling in &conflict.siblings {
        text.push_str(&version(sibling)?);
    }
    match &conflict.merged {
        Some(MergedText { error: Some(error), .. }) => {
            text.push_str(&format!("\n  not merged: {error}"));
        }
        Some(MergedText { size: Some(bytes), .. }) => {
            text.push_str(&format!("\n  shown: {} merged from these", size(*bytes)));
        }
        _ => {}
    }
    Ok(text)
}

fn version(of: &ConflictSibling) -> Result<String, CallError> {
    let sibling = of.sibling.sibling();
    let sibling = sibling.ok_or_else(|| CallError::Answer("a version is none".into()))?;
    let hash = sibling.value_hash.to_string();
    let mut text = format!(
        "\n  {:<6}  {}  {:>10}  {}  {}",
        if of.shown { "shown" } else { "hidden" },
        date_time(sibling.stamp.millis()),
        size(sibling.size),
        &hash[..16],
        sibling.dot
    );
    if of.written_here {
        text.push_str("  (written here)");
    }
    if let Some(peer) = &of.came_from {
        text.push_str(&format!("  (came from {})", peer.chars().take(8).collect::<String>()));
    }
    if let Some(preview) = &of.preview {
        text.push_str(&format!("\n          {preview}"));
    }
    Ok(text)
}
