//! `selfsame demo`: three nodes in one process that drift apart and become the same again.
//!
//! Nothing is acted: each node has an identity, a store on disk and a QUIC port of its own, and
//! each figure is what a session or a store counted.
//!
//! ```
//! use selfsame::cli::command;
//!
//! assert!(command().try_get_matches_from(["selfsame", "demo", "--entries", "500"]).is_ok());
//! ```

mod acts;
mod damage;
mod data;
mod episode;
mod machine;
mod verdict;
mod voice;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use self::acts::Story;
use self::data::Data;
use self::voice::Voice;
use super::Exit;
use super::error::CliError;
use super::interrupt::Interrupt;
use crate::merkle::{CertificateError, EnvelopeError};
use crate::net::NetError;
use crate::node::client::ClientError;
use crate::node::home::HomeError;
use crate::replica::{ReplicaError, ViewError};
use crate::store::StoreError;
use crate::types::TypeError;

/// Shows in half a minute what it does: three nodes drift apart and become the same again
///
/// Needs nothing: the nodes live in a temporary folder, meet over QUIC on loopback, and are gone
/// at the end. Ends with 0 if all three are equal and announcement, bloom exchange, sketch
/// exchange and delta each did visible work.
#[derive(Args)]
#[command(after_help = "\
Examples:
  selfsame demo
  selfsame demo --dir ~/notes
  selfsame demo --entries 100000 --keep /tmp/demo")]
pub(super) struct Demo {
    /// Take the files of this folder as entries; it is only read
    #[arg(long, value_name = "PATH", conflicts_with = "entries")]
    dir: Option<PathBuf>,
    /// How many entries to make up
    #[arg(long, value_name = "N", default_value_t = 20_000,
        value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    entries: u64,
    /// Another seed makes other entries and other changes
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Leave the three data folders in this one, which must be empty or not there
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// One JSON object for each session and one at the end
    #[arg(long)]
    json: bool,
}

/// The demo could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// A file or folder cannot be used.
    #[error("cannot use {path}: {source}", path = .path.display())]
    File {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is nothing in the folder.
    #[error("{} holds no files that could be entries: name another folder with --dir", .0.display())]
    NoFiles(PathBuf),
    /// The folder to keep the stores in is in use.
    #[error("{} is not empty: name an empty folder with --keep", .0.display())]
    Occupied(PathBuf),
    /// Nobody takes what is printed.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    /// A session ended otherwise than it must.
    #[error("the session of {} and {} ended as {outcome}: this is a fault worth reporting, with \
        the seed and the command", .names[0], .names[1])]
    Outcome {
        /// Whose.
        names: [&'static str; 2],
        /// How.
        outcome: String,
    },
    /// Damage on disk was not noticed.
    #[error(
        "{0} did not notice that its rows on disk were damaged: this is a fault worth \
        reporting"
    )]
    Unnoticed(&'static str),
    /// A node that serves did not say how a session went.
    #[error("{0} did not report its session in time: the machine may be overloaded, try again")]
    NoReport(&'static str),
    /// A node is asked for something while it is stopped.
    #[error("{0} is stopped: this is a fault of the demo")]
    Stopped(&'static str),
    /// A data folder cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// A store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A replica failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// A snapshot could not be read.
    #[error(transparent)]
    View(#[from] ViewError),
    /// A key or name that is none.
    #[error(transparent)]
    Word(#[from] TypeError),
    /// A port could not be opened.
    #[error(transparent)]
    Net(#[from] NetError),
    /// Two nodes could not meet.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A certificate does not hold.
    #[error("a certificate does not hold: {0}")]
    Certificate(#[from] CertificateError),
    /// A root cannot be computed.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
}

impl Demo {
    pub(super) fn run(self) -> Result<Exit, CliError> {
        let interrupt = Interrupt::install()?;
        let voice = Voice::new(self.json);
        let data = self.data(&voice)?;
        // outlives the runtime, so that nobody writes into it while it is removed
        let (folder, _temporary) = self.folder()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|source| CliError::System { what: "runtime", source })?;
        let started = Instant::now();
        let told = runtime.block_on(interrupt.or(async {
            let mut story = Story::new(&folder, data, voice)?;
            let held = story.tell().await?;
            Ok((story, held))
        }));
        runtime.shutdown_timeout(Duration::from_secs(5));
        let (story, held) = told?;
        story.voice.space()?;
        story.voice.say(&format!("All of it took {:.1} s.", started.elapsed().as_secs_f64()))?;
        if self.keep.is_some() {
            self.invite(&story, &folder)?;
        }
        Ok(if held { Exit::Done } else { Exit::Differs })
    }

    fn data(&self, voice: &Voice) -> Result<Data, DemoError> {
        let Some(dir) = &self.dir else { return Ok(Data::generated(self.entries, self.seed)) };
        let (data, left_out) = Data::folder(dir, self.seed)?;
        if left_out > 0 {
            voice.say(&format!(
                "{left_out} of the folder are left out: links, special files, names that are not \
                 UTF-8, files over 16 MiB."
            ))?;
        }
        Ok(data)
    }

    /// Where the nodes live; removed when the second part is dropped.
    fn folder(&self) -> Result<(PathBuf, Option<tempfile::TempDir>), DemoError> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| DemoError::File { path, source }
        };
        let Some(keep) = &self.keep else {
            let temporary = tempfile::Builder::new()
                .prefix("selfsame-demo-")
                .tempdir()
                .map_err(failed(&std::env::temp_dir()))?;
            return Ok((temporary.path().to_path_buf(), Some(temporary)));
        };
        std::fs::create_dir_all(keep).map_err(failed(keep))?;
        if std::fs::read_dir(keep).map_err(failed(keep))?.next().is_some() {
            return Err(DemoError::Occupied(keep.clone()));
        }
        Ok((keep.clone(), None))
    }

    fn invite(&self, story: &Story, folder: &Path) -> Result<(), DemoError> {
        let place = |name: &str| folder.join(name).display().to_string();
        let (oslo, lima) = (place("oslo"), place("lima"));
        let id = story.machines[0].id;
        story.voice.say("The nodes are kept. Try:")?;
        story.voice.space()?;
        story.voice.lines(&[
            format!("selfsame --data {oslo} digest states"),
            format!("selfsame --data {oslo} ls states | head"),
            format!("selfsame --data {oslo} listen --addr 127.0.0.1:7447 &"),
            format!("selfsame --data {lima} put states hello world"),
            format!("selfsame --data {lima} sync states --peer {id}@127.0.0.1:7447"),
        ])
    }
}
