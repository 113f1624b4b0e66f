//! `selfsame certificate evidence`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::super::folder::write_whole;
use super::super::output::{Output, count, date_time, note, print};
use crate::api::types::{EvidenceList, EvidenceText};
use crate::cli::error::CliError;
use crate::cli::{Context, Exit, arguments};
use crate::merkle::Contradiction;
use crate::types::CollectionName;

/// Shows what peers have contradicted themselves with, and what is known of their logs
///
/// Every node signs heads of its change log and certificate log, and tells them its peers. Two
/// heads that cannot both be true prove that it told different histories: that is kept, and there
/// are no sessions with it over the collection until `selfsame certificate accept`. Ends with 0
/// if there is evidence or --file holds some, 1 if there is none.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame certificate evidence players
  selfsame certificate evidence players --number 1 --output berlin.evidence
  selfsame certificate evidence --file berlin.evidence --json")]
pub(in crate::cli) struct Evidence {
    /// The collection
    #[arg(value_parser = arguments::collection, required_unless_present = "file")]
    collection: Option<CollectionName>,
    /// Only what has this number
    #[arg(long)]
    number: Option<u64>,
    /// Writes it to this file: both signed heads, which prove it to others
    #[arg(long, short, value_name = "FILE", requires = "number")]
    output: Option<PathBuf>,
    /// Checks and shows what is in this file instead; needs no node
    #[arg(long, conflicts_with_all = ["collection", "number"])]
    file: Option<PathBuf>,
    /// Prints JSON: {"evidence", "distrusted", "logs"}; with --file the evidence alone
    #[arg(long)]
    json: bool,
}

impl Evidence {
    pub(in crate::cli) fn run(self, context: &Context) -> Result<Exit, CliError> {
        if let Some(file) = &self.file {
            let text = EvidenceText::from(&Contradiction::parse(&super::read(file)?)?);
            if self.json {
                let mut output = Output::new();
                output.json(&json!(text))?;
                output.finish()?;
            } else {
                print(described(&text))?;
            }
            return Ok(Exit::Done);
        }
        let Some(collection) = &self.collection else { return Ok(Exit::Failed) };
        context.with(|control| {
            let mut list = control.wait(control.node.evidence(collection))?;
            if let Some(number) = self.number {
                list.evidence.retain(|one| one.number == Some(number));
            }
            if let (Some(path), Some(one)) = (&self.output, list.evidence.first()) {
                write_whole(path, &hex::decode(&one.bytes).unwrap_or_default())?;
                note(format_args!("written to {}", path.display()));
            }
            self.tell(&list)?;
            Ok(if list.evidence.is_empty() { Exit::Differs } else { Exit::Done })
        })
    }

    fn tell(&self, list: &EvidenceList) -> Result<(), CliError> {
        if self.json {
            let mut output = Output::new();
            output.json(&json!(list))?;
            return output.finish();
        }
        let mut output = Output::new();
        for one in &list.evidence {
            output.line(described(one))?;
        }
        for one in &list.distrusted {
            let since = date_time(one.since_ms);
            output.line(format_args!("no sessions with {} since {since}", one.peer))?;
        }
        output.finish()?;
        if list.evidence.is_empty() {
            note("no peer has contradicted itself, as far as this node has heard");
        }
        Ok(())
    }
}

fn described(one: &EvidenceText) -> String {
    let mut text = String::new();
    if let Some(number) = one.number {
        text.push_str(&format!("{number}: "));
    }
    let [first, second] = &one.sizes;
    let what = if one.proves_itself {
        format!("two roots for {} items: the two signatures alone prove it", count(*first))
    } else {
        format!(
            "{} items are not the beginning of {}: what it gave as proof does not hold",
            count(*first),
            count(*second)
        )
    };
    let found = one.found_ms.map(|at| format!(" (found {})", date_time(at))).unwrap_or_default();
    text.push_str(&format!(
        "{} signed contradictory heads of its {} log {} of {}{found}\n   {what}",
        one.peer, one.kind, one.log, one.collection
    ));
    text
}
