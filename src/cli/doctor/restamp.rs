//! `selfsame doctor --restamp`

use serde_json::json;

use crate::api::types::{RestampLine, RestampRequest, RestampedText};
use crate::cli::control::Control;
use crate::cli::error::CliError;
use crate::cli::interrupt::Interrupt;
use crate::cli::output::{count, counted, note, print, print_json};
use crate::cli::progress::Progress;
use crate::cli::{Context, Exit};
use crate::types::CollectionName;

/// Puts what is of the future again, or says how much there is.
pub(super) struct Restamp<'a> {
    pub(super) collection: &'a CollectionName,
    pub(super) any: bool,
    pub(super) yes: bool,
    pub(super) json: bool,
}

impl Restamp<'_> {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, CliError> {
        let interrupt = Interrupt::install()?;
        context.with(|control| {
            let done = self.ask(control, &interrupt)?;
            if self.json {
                let mut text = json!(done);
                text["done"] = json!(self.yes);
                print_json(&text)?;
            } else {
                self.tell(&done)?;
            }
            Ok(match &done {
                done if !done.complete => Exit::Interrupted,
                done if !self.yes && done.restamped > 0 => Exit::Brake,
                _ => Exit::Done,
            })
        })
    }

    fn ask(&self, control: &Control, interrupt: &Interrupt) -> Result<RestampedText, CliError> {
        let request = RestampRequest { any: self.any, dry_run: !self.yes };
        let begin = control.node.restamp(self.collection, &request);
        let mut progress = None::<Progress>;
        control.follow(interrupt, begin, |line| match line {
            RestampLine::Progress(now) => {
                progress.get_or_insert_with(|| Progress::new(None)).is_at(now.entries, 0);
                None
            }
            RestampLine::Report(report) => Some(report),
            RestampLine::Run(_) | RestampLine::Problem(_) => None,
        })
    }

    fn tell(&self, done: &RestampedText) -> Result<(), CliError> {
        let RestampedText { collection, complete, entries, of_entries, restamped, others } = done;
        let versions = counted(*restamped, "version", "versions");
        let of = format!("of {}", counted(*entries, "entry", "entries"));
        if *others > 0 {
            note(format_args!(
                "{} of other nodes are of the future too and left to those: --any takes them as \
                 well",
                counted(*others, "version", "versions")
            ));
        }
        if !complete {
            return print(format_args!(
                "{collection}: stopped after {} of {}; {versions} put again, which stays so",
                count(*entries),
                counted(*of_entries, "entry", "entries")
            ));
        }
        match (restamped, self.yes) {
            (0, _) => print(format_args!("{collection}: nothing {of} is of the future")),
            (_, true) => print(format_args!("{collection}: {versions} {of} put again")),
            (_, false) => {
                note("nothing was changed: repeat with --yes to put them again");
                print(format_args!(
                    "{collection}: {versions} {of} would be put again, with the same values and \
                     stamps of now"
                ))
            }
        }
    }
}
