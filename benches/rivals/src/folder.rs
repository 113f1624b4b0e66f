//! Folders: selfsame from folder to folder beside rsync, both as people run them.
//!
//! Both run as processes of their own on this machine: selfsame over QUIC on loopback, encrypted,
//! into a store that is synced to disk; rsync over a pipe, in clear, into files. What selfsame
//! needs to read a folder and to write one is listed apart.

mod files;
mod ours;
mod relay;
mod rsync;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::ProgressBar;

use self::files::{Folder, same};
use self::ours::Selfsame;
use self::rsync::Rsync;
use crate::error::RivalsError;
use crate::measure::children_cpu;
use crate::table::{Cell, Table};

/// Folders: selfsame over QUIC on loopback beside rsync, first copy and after drift
#[derive(Args)]
pub(crate) struct Arguments {
    /// Number of files
    #[arg(long, default_value_t = 5_000)]
    files: usize,
    /// Bytes in all, about
    #[arg(long, default_value_t = 256 << 20)]
    bytes: u64,
    /// Another seed makes other files and other changes
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The release binary [default: beside this program, else in the project's target/release]
    #[arg(long)]
    selfsame: Option<PathBuf>,
    /// rsync
    #[arg(long, default_value = "rsync")]
    rsync: PathBuf,
    /// Counts UDP payload too, through a relay: times are then not comparable
    #[arg(long)]
    udp: bool,
    /// Where the folders are made, and removed again [default: the system's temporary folder]
    #[arg(long)]
    work: Option<PathBuf>,
    /// Folder for folder.csv
    #[arg(long)]
    out: Option<PathBuf>,
}

/// What one step took.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    /// Bytes both ways, as the program counts them.
    bytes: Option<u64>,
    /// UDP payload both ways.
    udp: Option<u64>,
    wall: Duration,
    cpu: Option<Duration>,
}

impl Step {
    /// Runs something, and takes the time of the processes that it starts and waits for.
    fn of<T>(work: impl FnOnce() -> Result<T, RivalsError>) -> Result<(T, Self), RivalsError> {
        let (cpu, began) = (children_cpu(), Instant::now());
        let result = work()?;
        let wall = began.elapsed();
        let cpu = children_cpu().zip(cpu).map(|(after, before)| after.saturating_sub(before));
        Ok((result, Self { wall, cpu, ..Self::default() }))
    }
}

/// Runs a program to its end.
fn finished(command: &mut Command) -> Result<Output, RivalsError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(RivalsError::io(format!("starting {program}")))?;
    if output.status.success() {
        return Ok(output);
    }
    let status = output.status.to_string();
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(RivalsError::Program { program, status, said })
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), RivalsError> {
    let selfsame = Selfsame::find(arguments.selfsame.as_deref())?;
    let work = match &arguments.work {
        Some(folder) => tempfile::tempdir_in(folder),
        None => tempfile::tempdir(),
    };
    let work = work.map_err(RivalsError::io("making a temporary folder"))?;
    let bar = ProgressBar::new(6);
    bar.println("making files");
    let mut folder = Folder::make(&work.path().join("source"), arguments)?;
    let mut race = Race { table: table(arguments), work: work.path(), arguments, bar };
    race.table_title(&folder)?;

    let mut ours = race.ours_first(&selfsame, &folder)?;
    let rsyncs = race.rsyncs_first(&folder)?;
    folder.keep_copy(&work.path().join("before"))?;
    folder.drift()?;
    race.ours_again(&selfsame, &folder, &mut ours)?;
    race.rsyncs_again(&folder, &rsyncs)?;
    race.ours_strangers(&selfsame, &folder)?;
    race.rsync_strangers(&folder)?;
    race.bar.finish_and_clear();
    race.table.give(arguments.out.as_deref())
}

fn table(arguments: &Arguments) -> Table {
    let heads = ["step", "how", "bytes both ways", "UDP payload", "wall", "CPU"];
    let hidden: &[&str] = if arguments.udp { &[] } else { &["UDP payload"] };
    Table::new("folder", &heads).hiding(hidden)
}

/// The steps, one after the other.
struct Race<'a> {
    table: Table,
    work: &'a Path,
    arguments: &'a Arguments,
    bar: ProgressBar,
}

const FIRST: &str = "first copy";
const AGAIN: &str = "after drift";
const STRANGERS: &str = "two copies that never met";

impl Race<'_> {
    fn table_title(&self, folder: &Folder) -> Result<(), RivalsError> {
        let (files, bytes) = folder.totals()?;
        println!("{files} files, {bytes} bytes\n");
        Ok(())
    }

    fn push(&mut self, step: &'static str, how: &str, took: Step) {
        let bytes = |bytes: Option<u64>| bytes.map_or(Cell::none("-"), Cell::count);
        let time = |time: Duration| Cell::nanos(time.as_nanos() as f64);
        self.table.push(vec![
            Cell::text(step),
            Cell::text(how),
            bytes(took.bytes),
            bytes(took.udp),
            time(took.wall),
            took.cpu.map_or(Cell::none("-"), time),
        ]);
    }

    /// Both nodes: the one that has the folder, and an empty one.
    fn ours_first(
        &mut self,
        selfsame: &Selfsame,
        folder: &Folder,
    ) -> Result<[ours::Node; 2], RivalsError> {
        self.bar.inc(1);
        let giver = selfsame.node(&self.work.join("giver"))?;
        let taker = selfsame.node(&self.work.join("taker"))?;
        let ((), step) = Step::of(|| giver.import(folder.path()))?;
        self.push(FIRST, "selfsame import", step);
        self.sync_and_export(FIRST, &giver, &taker, folder)?;
        Ok([giver, taker])
    }

    fn ours_again(
        &mut self,
        _: &Selfsame,
        folder: &Folder,
        nodes: &mut [ours::Node; 2],
    ) -> Result<(), RivalsError> {
        self.bar.inc(1);
        let [giver, taker] = nodes;
        let ((), step) = Step::of(|| giver.import(folder.path()))?;
        self.push(AGAIN, "selfsame import", step);
        self.sync_and_export(AGAIN, giver, taker, folder)
    }

    /// The drifted folder and the one from before, each imported by a node on its own. Nothing is
    /// deleted then: neither has seen what the other has.
    fn ours_strangers(&mut self, selfsame: &Selfsame, folder: &Folder) -> Result<(), RivalsError> {
        self.bar.inc(1);
        let one = selfsame.node(&self.work.join("one"))?;
        let other = selfsame.node(&self.work.join("other"))?;
        one.import(folder.path())?;
        other.import(&self.work.join("before"))?;
        let step = ours::synchronise(&one, &other, self.arguments.udp)?;
        self.push(STRANGERS, "selfsame sync", step);
        Ok(())
    }

    fn sync_and_export(
        &mut self,
        step: &'static str,
        giver: &ours::Node,
        taker: &ours::Node,
        folder: &Folder,
    ) -> Result<(), RivalsError> {
        let took = ours::synchronise(giver, taker, self.arguments.udp)?;
        self.push(step, "selfsame sync", took);
        let exported = self.work.join(format!("exported {step}"));
        let ((), took) = Step::of(|| taker.export(&exported))?;
        self.push(step, "selfsame export", took);
        same("selfsame", folder.path(), &exported)
    }

    fn rsyncs_first(&mut self, folder: &Folder) -> Result<Vec<Rsync>, RivalsError> {
        self.bar.inc(1);
        let mut kept = Vec::new();
        for flags in rsync::FLAGS {
            let target = self.work.join(format!("rsync{flags}"));
            let Some(rsync) = Rsync::find(&self.arguments.rsync, self.work, flags, target)? else {
                self.push(FIRST, &format!("rsync {flags}: not installed"), Step::default());
                continue;
            };
            let step = rsync.copy(folder.path())?;
            self.push(FIRST, &rsync.label(), step);
            same("rsync", folder.path(), rsync.target())?;
            kept.push(rsync);
        }
        Ok(kept)
    }

    fn rsyncs_again(&mut self, folder: &Folder, rsyncs: &[Rsync]) -> Result<(), RivalsError> {
        self.bar.inc(1);
        for rsync in rsyncs {
            let step = rsync.copy(folder.path())?;
            self.push(AGAIN, &rsync.label(), step);
            same("rsync", folder.path(), rsync.target())?;
        }
        Ok(())
    }

    /// A copy whose times say nothing: rsync has to compare all files.
    fn rsync_strangers(&mut self, folder: &Folder) -> Result<(), RivalsError> {
        self.bar.inc(1);
        for flags in rsync::FLAGS {
            let target = self.work.join(format!("stranger{flags}"));
            files::copy(&self.work.join("before"), &target)?;
            let Some(rsync) = Rsync::find(&self.arguments.rsync, self.work, flags, target)? else {
                continue;
            };
            let step = rsync.copy(folder.path())?;
            self.push(STRANGERS, &rsync.label(), step);
            same("rsync", folder.path(), rsync.target())?;
        }
        Ok(())
    }
}
