//! `selfsame certificate accept`

use clap::Args;

use crate::api::types::PeerRequest;
use crate::cli::error::CliError;
use crate::cli::output::{note, print};
use crate::cli::{Context, Exit, arguments};
use crate::types::CollectionName;

/// Takes sessions up again with a peer that has contradicted itself
///
/// For when it is known why: a machine that was copied or resumed while its node ran, or a store
/// that was restored under it. Evidence stays; the logs of the peer are heard of as if for the
/// first time, and the next contradiction is found as this one was.
#[derive(Args)]
#[command(after_help = "Example:
  selfsame certificate accept players berlin")]
pub(in crate::cli) struct Accept {
    /// The collection
    #[arg(value_parser = arguments::collection)]
    collection: CollectionName,
    /// The peer: its name, its id or the first digits of it
    peer: String,
}

impl Accept {
    pub(in crate::cli) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let request = PeerRequest { peer: self.peer.clone() };
        context.with(|control| {
            let accepted = control.wait(control.node.accept(&self.collection, &request))?;
            if accepted.accepted {
                print(format_args!("there may be sessions with {} again", self.peer))?;
            } else {
                note(format_args!("nothing stood against sessions with {}", self.peer));
            }
            Ok(Exit::Done)
        })
    }
}
