//! What a verb that stays says while it runs: lines of text for people, or of JSON for programs.

use std::env;
use std::io::IsTerminal as _;

use clap::Args;
use tracing_subscriber::EnvFilter;

use super::Exit;
use super::error::CliError;
use super::output::note;

/// The variable that chooses how much is said.
const CHOICE: &str = "SELFSAME_LOG";

/// How the log is written.
#[derive(Args)]
pub(super) struct Log {
    /// Writes all that it says as JSON, an object a line; the log, on standard error, as
    /// {"timestamp", "level", "message", ...}
    #[arg(long)]
    log_json: bool,
}

impl Log {
    pub(super) const fn is_json(&self) -> bool {
        self.log_json
    }

    /// Does the work with a log on standard error: of this much, unless somebody chose. In a log
    /// of programs the error in which the work ends is a line like the others.
    pub(super) fn around(
        &self,
        usual: &str,
        work: impl FnOnce() -> Result<Exit, CliError>,
    ) -> Result<Exit, CliError> {
        self.begin(usual)?;
        match work() {
            Err(error) if self.log_json => {
                let exit = error.exit();
                let told = error.told();
                let told = told.trim_start_matches("error: ");
                tracing::error!(error = told, exit = exit.code(), "ended by an error");
                Ok(exit)
            }
            done => done,
        }
    }

    fn begin(&self, usual: &str) -> Result<(), CliError> {
        let chosen = env::var(CHOICE).unwrap_or_else(|_| usual.to_owned());
        let filter = EnvFilter::try_new(&chosen)
            .map_err(|error| CliError::Log { chosen, what: error.to_string() })?;
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_target(false);
        // whoever embeds the command may have set up logs of its own
        let _ = if self.log_json {
            let lines = log.json().flatten_event(true);
            lines.with_current_span(false).with_span_list(false).try_init()
        } else {
            log.with_ansi(std::io::stderr().is_terminal()).try_init()
        };
        Ok(())
    }

    /// Says that nobody may connect, if that is so.
    pub(super) fn allowed(&self, nodes: u64) {
        match (nodes, self.log_json) {
            (0, true) => tracing::warn!("nobody may connect yet"),
            (0, false) => note(
                "nobody may connect yet: `selfsame peer invite` lets a node in, or `selfsame peer \
                 add`",
            ),
            _ => {}
        }
    }

    /// Says that all is done.
    pub(super) fn stopped(&self) {
        if self.log_json {
            tracing::info!("stopped");
        } else {
            note("stopped");
        }
    }
}
