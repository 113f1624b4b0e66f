//! `selfsame digest`

use std::str::FromStr as _;

use clap::Args;
use serde_json::json;

use super::error::CliError;
use super::interrupt::Interrupt;
use super::output::{count, date_time, print, print_json, size};
use super::{Context, Exit, arguments};
use crate::api::types::{DigestComparison, DigestText, PeerRequest};
use crate::clock::Stamp;
use crate::hash::HashAlgorithm;
use crate::node::choice::PeerChoice;
use crate::types::CollectionName;

/// Prints the digest of a collection, or compares it with a peer's
///
/// The digest is the root with the fields that it binds, and the hashes of the 256 buckets of
/// the tree. Equal roots: equal content. With --peer it ends with 0 if the roots are equal, with
/// 1 if not; what exactly differs is for `selfsame diff` to say.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame digest players
  selfsame digest players --json | jq -r .root
  selfsame digest players --peer ID@192.0.2.7:7447")]
pub(super) struct ShowDigest {
    /// The collection
    #[arg(value_parser = arguments::collection)]
    collection: CollectionName,
    /// Compares with this peer: its node id with the host and port where it listens, or the name
    /// or the first digits of the id of one that `selfsame peer ls` lists
    #[arg(long, value_name = "ID@HOST:PORT | NAME", value_parser = PeerChoice::from_str)]
    peer: Option<PeerChoice>,
    /// Prints the digest as JSON, a stable format; with --peer {"equal", "here", "peer",
    /// "differing_buckets"}
    #[arg(long)]
    json: bool,
}

impl ShowDigest {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let interrupt = Interrupt::install()?;
        context.with(|control| {
            let Some(peer) = &self.peer else {
                let digest = control.wait(control.node.digest(&self.collection))?;
                if self.json {
                    print_json(&digest)?;
                } else {
                    print(described(&digest))?;
                }
                return Ok(Exit::Done);
            };
            let request = PeerRequest { peer: peer.to_string() };
            let asked = control.node.compare(&self.collection, &request);
            self.tell(&control.wait_or_stop(&interrupt, asked)?)
        })
    }

    fn tell(&self, comparison: &DigestComparison) -> Result<Exit, CliError> {
        let DigestComparison { equal, here, peer: there, differing_buckets } = comparison;
        if self.json {
            print_json(&json!(comparison))?;
        } else if *equal {
            print(format_args!("equal: {} entries, root {}", count(here.entries), here.root))?;
        } else if !here.same_settings(there) {
            print(format_args!(
                "the collections have other settings: {} and {} here, {} and {} there",
                here.policy, here.hash_algorithm, there.policy, there.hash_algorithm
            ))?;
        } else {
            print(format_args!(
                "they differ in {} of 256 buckets\n  here:  {} entries, root {}\n  there: {} \
                 entries, root {}",
                differing_buckets.len(),
                count(here.entries),
                here.root,
                count(there.entries),
                there.root
            ))?;
        }
        Ok(if *equal { Exit::Done } else { Exit::Differs })
    }
}

fn described(digest: &DigestText) -> String {
    let empty = digest.hash_algorithm.parse::<HashAlgorithm>().unwrap_or_default().empty();
    let empty = empty.to_string();
    let filled = digest.buckets.iter().filter(|bucket| **bucket != empty).count();
    let millis = |stamp: &str| Stamp(stamp.parse().unwrap_or_default()).millis();
    let latest = match millis(&digest.latest_stamp) {
        0 => "never".into(),
        latest => date_time(latest),
    };
    format!(
        "collection  {}\npolicy      {}\nhash        {}\nroot        {}\ntree hash   {}\n\
         entries     {}\nversions    {}\nsize        {}\nlatest      {latest}\nclock       {}\n\
         buckets     {filled} of 256 in use",
        digest.collection,
        digest.policy,
        digest.hash_algorithm,
        digest.root,
        digest.tree_hash,
        count(digest.entries),
        count(digest.siblings),
        size(digest.bytes),
        date_time(millis(&digest.clock)),
    )
}
