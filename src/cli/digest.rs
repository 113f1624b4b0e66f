//! `selfsame digest`

use std::str::FromStr as _;

use clap::Args;
use serde_json::json;

use super::error::CliError;
use super::interrupt::Interrupt;
use super::json::DigestJson;
use super::output::{count, date_time, print, print_json, size};
use super::peer::with_peer;
use super::{Context, Exit, arguments};
use crate::clock::Stamp;
use crate::merkle::Digest;
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
        context.with(|home| {
            let digest = home.replica.collection(&self.collection)?.digest()?;
            let clock = home.node().clock();
            let Some(peer) = &self.peer else {
                if self.json {
                    print_json(&DigestJson::new(&digest, clock))?;
                } else {
                    print(described(&digest, clock))?;
                }
                return Ok(Exit::Done);
            };
            let theirs = with_peer(home, peer, None, &interrupt, async |node, link| {
                let asked = async { Ok(node.remote_digest(link, &self.collection).await?) };
                interrupt.or(asked).await
            })?;
            self.compare(&digest, clock, &theirs)
        })
    }

    fn compare(&self, ours: &Digest, clock: Stamp, theirs: &Digest) -> Result<Exit, CliError> {
        let (here, there) = (ours.envelope(), theirs.envelope());
        let equal = here.root() == there.root();
        let pairs = ours.buckets().iter().zip(theirs.buckets()).enumerate();
        let differing: Vec<usize> =
            pairs.filter(|(_, (ours, theirs))| ours != theirs).map(|(at, _)| at).collect();
        if self.json {
            print_json(&json!({
                "equal": equal,
                "here": DigestJson::new(ours, clock),
                "peer": DigestJson::new(theirs, theirs.clock()),
                "differing_buckets": differing,
            }))?;
        } else if equal {
            print(format_args!(
                "equal: {} entries, root {}",
                count(here.totals().entries),
                here.root()
            ))?;
        } else if here.spec() != there.spec() {
            print(format_args!(
                "the collections have other settings: {} and {} here, {} and {} there",
                here.policy(),
                here.algorithm(),
                there.policy(),
                there.algorithm()
            ))?;
        } else {
            print(format_args!(
                "they differ in {} of 256 buckets\n  here:  {} entries, root {}\n  there: {} \
                 entries, root {}",
                differing.len(),
                count(here.totals().entries),
                here.root(),
                count(there.totals().entries),
                there.root()
            ))?;
        }
        Ok(if equal { Exit::Done } else { Exit::Differs })
    }
}

fn described(digest: &Digest, clock: Stamp) -> String {
    let envelope = digest.envelope();
    let totals = envelope.totals();
    let empty = envelope.algorithm().empty();
    let filled = digest.buckets().iter().filter(|bucket| **bucket != empty).count();
    let latest = match totals.latest {
        Stamp(0) => "never".into(),
        stamp => date_time(stamp.millis()),
    };
    format!(
        "collection  {}\npolicy      {}\nhash        {}\nroot        {}\ntree hash   {}\n\
         entries     {}\nversions    {}\nsize        {}\nlatest      {latest}\nclock       {}\n\
         buckets     {filled} of 256 in use",
        envelope.name(),
        envelope.policy(),
        envelope.algorithm(),
        envelope.root(),
        envelope.tree_hash(),
        count(totals.entries),
        count(totals.siblings),
        size(totals.bytes),
        date_time(clock.millis()),
    )
}
