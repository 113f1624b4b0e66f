//! `selfsame doctor`

mod restamp;

use clap::Args;
use comfy_table::ContentArrangement;

use self::restamp::Restamp;
use super::control::Control;
use super::error::CliError;
use super::output::{self, count, print, print_json};
use super::{Context, Exit, arguments};
use crate::node::Node;
use crate::node::doctor::{
    Diagnosis, Facts, Finding, FolderFacts, MachineFacts, Opening, Verdict, examine,
};
use crate::store::EmbeddedStore;
use crate::types::CollectionName;

/// Goes through everything at this node that may need a person, and says what to do
///
/// Looks at the files of the data folder, the machine, each collection and, beside a running
/// `selfsame serve`, how the node stands with its peers. Each check says `ok`, `look` (it works,
/// and somebody should have a look) or `wrong` (something does not work, or soon will not), with
/// one sentence for the fact and one for what to do; `unknown` is what only a daemon knows. Works
/// beside a running node and without one, and if the node cannot be opened it says why and looks at
/// what can be looked at all the same. Nothing is changed. Entries are not read, except those with
/// several versions.
///
/// Ends with 0 if all is ok, with 1 if something is to be looked at or wrong, and with 2 if the
/// node cannot be opened.
///
/// With --restamp: reads the collection for versions whose stamps are further ahead than
/// max_clock_drift_ms, which were written while the clock was wrong, and says how many there are.
/// With --yes puts them again, with the same values and stamps of now: peers take them then, and
/// they no longer hide what is written later. Set the clock first; while most peers find it ahead
/// this is refused. Ctrl-C ends it, and what was put again stays so. Ends with 7 if it asks for
/// --yes.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame doctor
  selfsame doctor --quiet || mail -s 'selfsame wants a look' admin
  selfsame doctor --json | jq '.findings[] | select(.verdict != \"ok\")'
  selfsame doctor --restamp players
  selfsame doctor --restamp players --yes")]
pub(super) struct Doctor {
    /// Says only what is not ok; nothing if all is
    #[arg(long, short)]
    quiet: bool,
    /// Puts again what is of the future in this collection; without --yes only says how much it is
    #[arg(long, value_name = "COLLECTION", value_parser = arguments::collection,
        conflicts_with = "quiet")]
    restamp: Option<CollectionName>,
    /// What other nodes wrote, too: they may do the same with it
    #[arg(long, requires = "restamp")]
    any: bool,
    /// Does it
    #[arg(long, requires = "restamp")]
    yes: bool,
    /// Prints JSON: {"verdict", "opens", "findings": [{"check", "verdict", "about", "fact",
    /// "what_to_do"}]}; "opens" is false if the node cannot be opened. With --restamp:
    /// {"collection", "complete", "entries", "of_entries", "restamped", "others", "done"}
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        if let Some(collection) = &self.restamp {
            let Self { any, yes, json, .. } = self;
            return Restamp { collection, any, yes, json }.run(context);
        }
        let diagnose = |control: &Control| {
            let diagnosis = control.wait(control.node.doctor())?;
            self.tell(diagnosis)
        };
        let folder = context.folder()?;
        match context.with(diagnose) {
            Err(CliError::Home(error)) => self.tell(examine(&Facts {
                now_ms: Node::<EmbeddedStore>::now_ms(),
                opening: Opening::shut(&error),
                folder: FolderFacts::of(&folder),
                machine: MachineFacts::of_this_process(),
                node: None,
            })),
            told => told,
        }
    }

    fn tell(&self, mut diagnosis: Diagnosis) -> Result<Exit, CliError> {
        let exit = match diagnosis.verdict {
            _ if !diagnosis.opens => Exit::Failed,
            Verdict::Ok | Verdict::Unknown => Exit::Done,
            Verdict::Look | Verdict::Wrong => Exit::Differs,
        };
        if self.quiet {
            diagnosis.findings.retain(|finding| finding.verdict > Verdict::Ok);
        }
        if self.json {
            print_json(&diagnosis)?;
        } else if !diagnosis.findings.is_empty() {
            print(described(&diagnosis.findings))?;
        }
        Ok(exit)
    }
}

/// The worst first.
fn described(findings: &[Finding]) -> String {
    let mut findings: Vec<&Finding> = findings.iter().collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.verdict));
    let mut table = output::table(&["STATE", "CHECK", "WHAT"], &[]);
    // sentences are folded where a person reads them
    table.set_content_arrangement(ContentArrangement::Dynamic);
    for finding in &findings {
        let about = finding.about.as_ref().map(|about| format!("{about}: ")).unwrap_or_default();
        let mut what = format!("{about}{}", finding.fact);
        if let Some(what_to_do) = &finding.what_to_do {
            what.push_str(&format!("\n-> {what_to_do}"));
        }
        table.add_row([word(finding.verdict), &finding.check, &what]);
    }
    let number = |verdict| {
        let of_it = findings.iter().filter(|finding| finding.verdict == verdict);
        count(of_it.count() as u64)
    };
    let sums = [Verdict::Wrong, Verdict::Look, Verdict::Ok, Verdict::Unknown]
        .map(|verdict| format!("{} {}", number(verdict), word(verdict)));
    format!("{table}\n\n{}", sums.join(", "))
}

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Unknown => "unknown",
        Verdict::Ok => "ok",
        Verdict::Look => "look",
        Verdict::Wrong => "wrong",
    }
}
