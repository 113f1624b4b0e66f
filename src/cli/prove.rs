//! `selfsame prove`

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::arguments::{self, KeyArgument};
use super::error::CliError;
use super::folder::write_whole;
use super::output::{Output, note, print, print_json};
use super::{Context, Exit};
use crate::merkle::Bundle;
use crate::types::CollectionName;

/// Writes a proof that a key is in a collection with what versions, or that it is not
///
/// The file holds all that `selfsame verify` needs besides the root and the key. Whoever holds
/// the root from a source they trust needs to trust nobody else. Printed: what is proved, and
/// the root that the proof belongs to; the next write gives another root.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame prove players player:17 -o player17.proof
  selfsame verify player17.proof --root ROOT --key player:17")]
pub(super) struct Prove {
    /// The collection
    #[arg(value_parser = arguments::collection)]
    collection: CollectionName,
    #[command(flatten)]
    key: KeyArgument,
    /// Where to write the proof; - is standard output
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Prints JSON: {"result": "present" or "absent", "root", "bytes"}
    #[arg(long)]
    json: bool,
}

impl Prove {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let key = self.key.key()?;
        context.with(|control| {
            let bytes = control.wait(control.node.proof(&self.collection, &key))?;
            let bundle = Bundle::parse(&bytes)?;
            let result = if bundle.record().is_some() { "present" } else { "absent" };
            let root = bundle.envelope().root();
            if self.output == Path::new("-") {
                let mut output = Output::new();
                output.bytes(&bytes)?;
                output.finish()?;
                note(format_args!("{key} is {result} in {} with root {root}", self.collection));
                return Ok(Exit::Done);
            }
            write_whole(&self.output, &bytes)?;
            if self.json {
                let root = root.to_string();
                print_json(&json!({"result": result, "root": root, "bytes": bytes.len()}))?;
            } else {
                print(format_args!(
                    "{key} is {result} in {}: {} bytes of proof for root\n{root}",
                    self.collection,
                    bytes.len()
                ))?;
            }
            Ok(Exit::Done)
        })
    }
}
