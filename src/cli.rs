//! The command line: `selfsame VERB ...`, a file per verb.
//!
//! A verb reads its arguments, opens the node's data folder where it needs it, and says what it
//! did: to people in sentences and tables, to programs with `--json`, to scripts with its
//! [`Exit`] code. What it prints for others goes to standard output, all else to standard error.
//!
//! ```
//! use selfsame::cli::command;
//!
//! let get = ["selfsame", "--data", "here", "get", "players", "player:17"];
//! assert!(command().try_get_matches_from(get).is_ok());
//! assert!(command().try_get_matches_from(["selfsame", "got"]).is_err());
//! ```

mod arguments;
mod backup;
mod certificate;
mod clones;
mod collection;
mod config;
mod conflicts;
mod control;
pub mod demo;
mod diff;
mod digest;
mod doctor;
mod dump;
pub mod error;
mod export;
mod folder;
mod get;
mod history;
mod id;
mod import;
mod init;
mod interrupt;
mod jsonl;
mod listen;
mod log;
mod ls;
mod metrics;
mod output;
mod peer;
mod peers;
mod progress;
mod prove;
mod put;
mod recover;
mod report;
mod resolve;
mod restore;
mod rm;
mod scrub;
mod serve;
mod service;
mod sessions;
mod status;
mod sync;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

pub use crate::api::Exit;
use crate::node::home::Home;
use control::Control;
use error::CliError;

/// Keeps replicas the same: finds what differs between two nodes, moves only that, proves the
/// result.
#[derive(Parser)]
#[command(name = "selfsame", version, after_help = EPILOGUE, max_term_width = 100)]
struct Cli {
    /// The node's data folder [default: $XDG_DATA_HOME/selfsame or ~/.local/share/selfsame]
    #[arg(long, env = "SELFSAME_DATA", value_name = "DIR", global = true, hide_env = true)]
    data: Option<PathBuf>,

    #[command(subcommand)]
    verb: Verb,
}

const EPILOGUE: &str = "\
The data folder can also be named by the variable SELFSAME_DATA.

Exit codes:
  0    done; equal; found; the proof holds
  1    differences; conflicts; no such key; versions changed since they were read; proved absent;
       something that wants a look (doctor)
  2    error: nothing was done, or the message says what was
  3    done in part: the items that were not are listed
  4    the peer cannot be reached, or the connection was lost
  5    the peer refused: not admitted, no such collection, other settings, busy
  6    not proved: a proof or a peer's hashes do not hold
  7    it would remove too much, or put much again: asks for --yes or --allow-removals
  130  stopped by Ctrl-C: what was done is kept

Examples:
  selfsame init
  selfsame collection create players
  selfsame put players player:17 '{\"level\":3}'
  selfsame sync players --peer ID@192.0.2.7:7447";

#[derive(Subcommand)]
enum Verb {
    Init(init::Init),
    Id(id::Id),
    Collection(collection::Collections),
    Put(put::Put),
    Get(get::Get),
    Rm(rm::Rm),
    Conflicts(conflicts::Conflicts),
    Resolve(resolve::Resolve),
    History(history::History),
    Ls(ls::Ls),
    Import(import::Import),
    Export(export::Export),
    Listen(listen::Listen),
    Serve(serve::Serve),
    Status(status::ShowStatus),
    Sessions(sessions::Sessions),
    Metrics(metrics::Metrics),
    Doctor(doctor::Doctor),
    Config(config::Settings),
    Peer(peers::Peers),
    Sync(sync::Sync),
    Diff(diff::Diff),
    Digest(digest::ShowDigest),
    Dump(dump::Dump),
    Prove(prove::Prove),
    Verify(verify::Verify),
    Certificate(certificate::Certificates),
    Clones(clones::Clones),
    Recover(recover::Recover),
    Scrub(scrub::Scrub),
    Backup(backup::Backup),
    Restore(restore::Restore),
    Demo(demo::Demo),
}

/// Where a verb works.
struct Context {
    data: Option<PathBuf>,
}

impl Context {
    fn folder(&self) -> Result<PathBuf, CliError> {
        if let Some(data) = &self.data {
            return Ok(data.clone());
        }
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        set("XDG_DATA_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| set("HOME").map(|home| Path::new(&home).join(".local/share")))
            .map(|base| base.join("selfsame"))
            .ok_or(CliError::NoFolder)
    }

    /// Works with the node, whoever has it open.
    fn with(
        &self,
        work: impl FnOnce(&Control) -> Result<Exit, CliError>,
    ) -> Result<Exit, CliError> {
        control::with(&self.folder()?, work)
    }

    /// Opens the node in this process, works with it, and closes it whatever came of that.
    fn open(&self, work: impl FnOnce(&Home) -> Result<Exit, CliError>) -> Result<Exit, CliError> {
        let home = Home::open(&self.folder()?)?;
        let worked = work(&home);
        let closed = home.close();
        let exit = worked?;
        closed?;
        Ok(exit)
    }
}

/// The command with all its verbs, as clap sees it: for documentation and completion.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { Exit::Failed } else { Exit::Done };
            // nobody is left to tell if that fails
            let _ = error.print();
            return code.into();
        }
    };
    let exit = cli.verb.run(&Context { data: cli.data }).unwrap_or_else(|error| {
        error.tell();
        error.exit()
    });
    exit.into()
}

impl Verb {
    fn run(self, context: &Context) -> Result<Exit, CliError> {
        match self {
            Self::Init(verb) => verb.run(context),
            Self::Id(verb) => verb.run(context),
            Self::Collection(verb) => verb.run(context),
            Self::Put(verb) => verb.run(context),
            Self::Get(verb) => verb.run(context),
            Self::Rm(verb) => verb.run(context),
            Self::Conflicts(verb) => verb.run(context),
            Self::Resolve(verb) => verb.run(context),
            Self::History(verb) => verb.run(context),
            Self::Ls(verb) => verb.run(context),
            Self::Import(verb) => verb.run(context),
            Self::Export(verb) => verb.run(context),
            Self::Listen(verb) => verb.run(context),
            Self::Serve(verb) => verb.run(context),
            Self::Status(verb) => verb.run(context),
            Self::Sessions(verb) => verb.run(context),
            Self::Metrics(verb) => verb.run(context),
            Self::Doctor(verb) => verb.run(context),
            Self::Config(verb) => verb.run(context),
            Self::Peer(verb) => verb.run(context),
            Self::Sync(verb) => verb.run(context),
            Self::Diff(verb) => verb.run(context),
            Self::Digest(verb) => verb.run(context),
            Self::Dump(verb) => verb.run(context),
            Self::Prove(verb) => verb.run(context),
            Self::Verify(verb) => verb.run(),
            Self::Certificate(verb) => verb.run(context),
            Self::Clones(verb) => verb.run(context),
            Self::Recover(verb) => verb.run(context),
            Self::Scrub(verb) => verb.run(context),
            Self::Backup(verb) => verb.run(context),
            Self::Restore(verb) => verb.run(context),
            Self::Demo(verb) => verb.run(),
        }
    }
}
