//! `selfsame config check | reload`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::error::CliError;
use super::output::{counted, print, print_json};
use super::{Context, Exit};
use crate::node::config::Config;
use crate::node::home::HomeError;
use crate::node::peers::{PeerBook, PeerFiles};

/// Checks the settings of this node, and lets its daemon take them over
#[derive(Args)]
pub(super) struct Settings {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Check(Check),
    Reload(Reload),
}

/// Checks config.toml and peers.toml
///
/// What is wrong is said with file, line and reason, and the command ends with 2. Nothing is
/// opened and nothing changes, so it works beside a running node.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame config check
  selfsame config check ./new/config.toml
  selfsame config check ./new/peers.toml")]
struct Check {
    /// A file instead of those of the data folder; one that is called peers.toml is checked as a
    /// peer book, any other as a config
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Lets the running daemon read config.toml and peers.toml again
///
/// As SIGHUP does. If one of them is wrong, file, line and reason are said, the old settings hold
/// on, and the command ends with 2. Settings that only a start anew takes over are named.
#[derive(Args)]
#[command(after_help = "Example:
  selfsame config reload")]
struct Reload {
    /// Prints JSON: {"peers", "needs_restart"}
    #[arg(long)]
    json: bool,
}

impl Settings {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        match self.what {
            What::Check(check) => check.run(context),
            What::Reload(reload) => reload.run(context),
        }
    }
}

impl Check {
    fn run(self, context: &Context) -> Result<Exit, CliError> {
        let folder;
        let checked = match &self.file {
            Some(file) if file.file_name().is_some_and(|name| name == "peers.toml") => {
                vec![(file.clone(), check_book(file))]
            }
            Some(file) => vec![(file.clone(), check_config(file))],
            None => {
                folder = context.folder()?;
                let (config, files) = (folder.join("config.toml"), PeerFiles::new(&folder));
                let book = files.book().map(|_| ()).map_err(CliError::from);
                vec![(config.clone(), check_config(&config)), (files.peers_path(), book)]
            }
        };
        let mut exit = Exit::Done;
        for (file, checked) in checked {
            match checked {
                Ok(()) => print(format_args!("{}: nothing is wrong", file.display()))?,
                Err(error) => {
                    error.tell();
                    exit = error.exit();
                }
            }
        }
        Ok(exit)
    }
}

fn check_config(file: &Path) -> Result<(), CliError> {
    Config::load(file).map(drop).map_err(|error| HomeError::from(error).into())
}

fn check_book(file: &Path) -> Result<(), CliError> {
    Ok(PeerBook::load(file).map(drop)?)
}

impl Reload {
    fn run(self, context: &Context) -> Result<Exit, CliError> {
        context.with(|control| {
            let done = control.wait(control.node.reload())?;
            if self.json {
                print_json(&done)?;
                return Ok(Exit::Done);
            }
            print(format_args!(
                "the settings hold from now on, {} in the book",
                counted(done.peers, "peer", "peers")
            ))?;
            if !done.needs_restart.is_empty() {
                let settings = done.needs_restart.join(", ");
                super::output::note(format_args!(
                    "these hold only after `selfsame serve` is started anew: {settings}"
                ));
            }
            Ok(Exit::Done)
        })
    }
}
