//! `selfsame sessions`

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;

use super::error::CliError;
use super::interrupt::Interrupt;
use super::output::{self, count, counted, note, print, print_json, size, span};
use super::{Context, Exit};
use crate::api::types::SessionList;
use crate::node::status::{RunningSession, SessionEnd, SessionEvent};

/// Shows the sessions of the running node: those that run, and the last that have ended
///
/// Asks the process that has the node open, `selfsame serve` or `selfsame listen`. With --watch
/// it says what happens to sessions from now on, until Ctrl-C or until that process ends.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame sessions
  selfsame sessions --watch --json | jq 'select(.event == \"ended\")'")]
pub(super) struct Sessions {
    /// Goes on to say what happens
    #[arg(long, short)]
    watch: bool,
    /// Prints JSON: {"running", "recent"}; with --watch a line for each event: {"event":
    /// "started", "progress", "ended" or "missed", ...}
    #[arg(long)]
    json: bool,
}

impl Sessions {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let interrupt = Interrupt::install()?;
        context.with(|control| {
            if self.watch {
                let mut lines = control.wait(control.node.watch())?;
                loop {
                    match control.wait_or_stop(&interrupt, lines.next_line()) {
                        Ok(Some(line)) => self.tell(&line)?,
                        // that is how it is meant to end
                        Ok(None) | Err(CliError::Interrupted) => return Ok(Exit::Done),
                        Err(error) => return Err(error),
                    }
                }
            }
            let sessions = control.wait(control.node.sessions())?;
            if self.json {
                print_json(&sessions)?;
            } else if sessions.running.is_empty() && sessions.recent.is_empty() {
                note("no sessions yet");
            } else {
                print(listed(&sessions))?;
            }
            Ok(Exit::Done)
        })
    }

    fn tell(&self, line: &[u8]) -> Result<(), CliError> {
        if self.json {
            return print(String::from_utf8_lossy(line));
        }
        match serde_json::from_slice::<SessionEvent>(line) {
            Ok(SessionEvent::Started(session)) => print(format_args!("{}: began", of(&session))),
            Ok(SessionEvent::Progress(session)) => print(format_args!(
                "{}: {}, {} sent, {} received, {} keys found",
                of(&session),
                session.phase,
                size(session.bytes_sent),
                size(session.bytes_received),
                count(session.keys_found)
            )),
            Ok(SessionEvent::Ended(end)) => print(ended(&end)),
            Err(_) => {
                note("some events came too fast to be told");
                Ok(())
            }
        }
    }
}

fn of(session: &RunningSession) -> String {
    let by = if session.opened_here { "with" } else { "opened by" };
    format!("{} {} {by} {}", session.session, session.collection, short(&session.peer))
}

fn ended(end: &SessionEnd) -> String {
    let by = if end.opened_here { "with" } else { "opened by" };
    let reports = match end.reports.total() {
        0 => String::new(),
        number => {
            format!(
                ", {} (`selfsame conflicts COLLECTION --reports`)",
                counted(number, "report", "reports")
            )
        }
    };
    let cause = end.cause.as_ref().map(|cause| format!(" ({cause})")).unwrap_or_default();
    format!(
        "{} {} {by} {}: {}{cause}, {} changed here, {} there{reports}, {} sent, {} received, {}",
        end.session,
        end.collection,
        short(&end.peer),
        end.outcome,
        count(end.changed_here),
        count(end.changed_there),
        size(end.bytes_sent),
        size(end.bytes_received),
        span(end.elapsed_ms)
    )
}

fn listed(sessions: &SessionList) -> comfy_table::Table {
    let header = [
        "SESSION",
        "COLLECTION",
        "PEER",
        "BY",
        "BEGAN",
        "STATE",
        "CHANGED HERE",
        "THERE",
        "SENT",
        "RECEIVED",
        "TOOK",
        "WHY",
    ];
    let mut table = output::table(&header, &[0, 6, 7, 8, 9, 10]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let ago = |then: u64| format!("{} ago", span(now.saturating_sub(then)));
    let by = |here| if here { "this node" } else { "the peer" };
    for end in &sessions.recent {
        table.add_row([
            end.session.to_string(),
            end.collection.clone(),
            short(&end.peer),
            by(end.opened_here).into(),
            ago(end.started_ms),
            end.outcome.clone(),
            count(end.changed_here),
            count(end.changed_there),
            size(end.bytes_sent),
            size(end.bytes_received),
            span(end.elapsed_ms),
            end.cause.clone().unwrap_or_default(),
        ]);
    }
    for session in &sessions.running {
        table.add_row([
            session.session.to_string(),
            session.collection.clone(),
            short(&session.peer),
            by(session.opened_here).into(),
            ago(session.started_ms),
            format!("runs: {}", session.phase),
            "-".into(),
            "-".into(),
            size(session.bytes_sent),
            size(session.bytes_received),
            span(now.saturating_sub(session.started_ms)),
            String::new(),
        ]);
    }
    table
}

fn short(peer: &str) -> String {
    peer.chars().take(8).collect()
}
