//! `selfsame sync`

use clap::{Args, ValueEnum};

use super::error::CliError;
use super::interrupt::Interrupt;
use super::output::{note, print, print_json};
use super::peer::{PeerArgument, followed};
use super::{Context, Exit, arguments, report};
use crate::api::types::{self, Report, SyncRequest};
use crate::types::CollectionName;

/// Synchronises a collection with a peer: finds what differs, moves only that, proves the result
///
/// The peer must be listening, allow this node, and have the collection with the same policy and
/// hash. Ends with 0 only if both ends computed the same root. Ctrl-C ends it early: what was
/// applied is kept, and the next run goes on from there.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame sync players --peer ID@192.0.2.7:7447
  selfsame sync players --peer ID@[2001:db8::7]:7447 --direction pull
  selfsame sync players --peer ID@node-a.example:7447 --profile latency --explain")]
pub(super) struct Sync {
    /// The collection
    #[arg(value_parser = arguments::collection)]
    collection: CollectionName,
    #[command(flatten)]
    peer: PeerArgument,
    /// Which way entries move
    #[arg(long, value_enum, default_value_t = Direction::Both)]
    direction: Direction,
    /// How differences are found
    #[arg(long, value_enum, default_value_t = How::Auto)]
    strategy: How,
    /// What the planner saves, at both ends (see profile in config.toml, which is the default)
    #[arg(long, value_enum, conflicts_with = "strategy")]
    profile: Option<Saves>,
    /// Shows the plan, what it was expected to cost, what each phase did cost, and memory at most
    #[arg(long)]
    explain: bool,
    /// Prints JSON: outcome, detail, changes here and there, bytes, memory, phases, plan, refused
    /// items, certificate
    #[arg(long)]
    json: bool,
    /// Lets the session remove more keys than the brake allows (see max_removals in config.toml)
    #[arg(long)]
    allow_removals: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Direction {
    /// Both ends become the same
    Both,
    /// This node takes what the peer has, and gives nothing
    Pull,
    /// This node gives what it has, and takes nothing
    Push,
}

#[derive(Clone, Copy, ValueEnum)]
enum How {
    /// The planner chooses
    Auto,
    /// Bloom filters, then the Merkle tree
    Bloom,
    /// A sketch (`PinSketch`) of all entries, then the Merkle tree
    Sketch,
    /// Coded symbols (a rateless IBLT) of all entries, then the Merkle tree
    Iblt,
    /// The Merkle tree alone
    Merkle,
}

#[derive(Clone, Copy, ValueEnum)]
enum Saves {
    /// Bytes first, but not at any price
    Auto,
    /// Bytes: for links that are slow or paid for by volume
    Bytes,
    /// Round trips: for links that are fast and long
    Latency,
    /// Work of both ends: for small machines
    Cpu,
}

impl Sync {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let interrupt = Interrupt::install()?;
        let request = SyncRequest {
            peer: self.peer.peer.to_string(),
            direction: match self.direction {
                Direction::Both => types::Direction::Both,
                Direction::Pull => types::Direction::Pull,
                Direction::Push => types::Direction::Push,
            },
            strategy: match self.strategy {
                How::Auto => types::How::Auto,
                How::Bloom => types::How::Bloom,
                How::Sketch => types::How::Sketch,
                How::Iblt => types::How::Iblt,
                How::Merkle => types::How::Merkle,
            },
            profile: self.profile.map(|profile| match profile {
                Saves::Auto => types::Saves::Auto,
                Saves::Bytes => types::Saves::Bytes,
                Saves::Latency => types::Saves::Latency,
                Saves::Cpu => types::Saves::Cpu,
            }),
            allow_removals: self.allow_removals,
        };
        context.with(|control| {
            let begin = control.node.sync(&self.collection, &request);
            let (_, report) = followed(control, &interrupt, begin)?;
            let exit = Exit::of_code(report.exit);
            if self.json {
                print_json(&report::json(&report))?;
            } else {
                self.tell(&report, exit)?;
            }
            Ok(exit)
        })
    }

    fn tell(&self, report: &Report, exit: Exit) -> Result<(), CliError> {
        let failed = !matches!(exit, Exit::Done | Exit::Partial);
        if failed {
            note(format_args!("error: {}", report::text(report)));
        } else {
            print(report::text(report))?;
        }
        if self.explain {
            print(report::explained(report))?;
        }
        Ok(())
    }
}
