//! `selfsame collection create | ls`

use clap::{Args, Subcommand};
use serde_json::json;

use super::arguments;
use super::error::CliError;
use super::output::{self, Output, count, print, print_json};
use super::{Context, Exit, json};
use crate::hash::HashAlgorithm;
use crate::replica::{Collection, DamagedRow};
use crate::store::EmbeddedStore;
use crate::types::{CollectionName, CollectionSpec, Policy};

/// Creates and lists collections
#[derive(Args)]
pub(super) struct Collections {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Create(Create),
    Ls(Ls),
}

/// Creates a collection
///
/// Name, policy and hash are bound in its root: peers synchronise it only if all three are the
/// same there. Creating one that exists with the same settings changes nothing.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame collection create players
  selfsame collection create drafts --policy siblings --hash sha256")]
struct Create {
    /// Its name: 1 to 255 bytes of text
    #[arg(value_parser = arguments::collection)]
    name: CollectionName,
    /// How concurrent versions of a key are read: lww shows the latest, siblings shows all
    #[arg(long, default_value = "lww")]
    policy: Policy,
    /// Its hash algorithm: blake3 or sha256
    #[arg(long, default_value = "blake3")]
    hash: HashAlgorithm,
    /// Prints JSON: {"collection", "hash_algorithm", "policy", "root"}
    #[arg(long)]
    json: bool,
}

/// Lists the collections of this node
#[derive(Args)]
#[command(after_help = "Example:
  selfsame collection ls --json")]
struct Ls {
    /// Prints JSON, a line for each: {"collection", "hash_algorithm", "policy", "entries",
    /// "siblings", "bytes", "root", "damage"}
    #[arg(long)]
    json: bool,
}

impl Collections {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        match self.what {
            What::Create(create) => create.run(context),
            What::Ls(ls) => ls.run(context),
        }
    }
}

impl Create {
    fn run(self, context: &Context) -> Result<Exit, CliError> {
        context.with(|home| {
            let spec =
                CollectionSpec { name: self.name, algorithm: self.hash, policy: self.policy };
            let existed = home.replica.collection(&spec.name).is_ok();
            let collection = home.replica.create_collection(spec)?;
            let spec = collection.spec();
            if self.json {
                print_json(&json!({
                    "collection": spec.name.as_str(),
                    "hash_algorithm": spec.algorithm.to_string(),
                    "policy": json::policy(&spec.policy),
                    "root": collection.root()?.to_string(),
                }))?;
            } else {
                let what = if existed { "exists already" } else { "created" };
                print(format_args!(
                    "collection {} {what}: policy {}, hash {}",
                    spec.name, spec.policy, spec.algorithm
                ))?;
            }
            Ok(Exit::Done)
        })
    }
}

impl Ls {
    fn run(self, context: &Context) -> Result<Exit, CliError> {
        context.with(|home| {
            let (collections, damaged) = (home.replica.collections(), home.replica.damaged_rows());
            if self.json {
                let mut output = Output::new();
                for collection in &collections {
                    output.json(&described(collection)?)?;
                }
                for row in &damaged {
                    let name = row.name.as_ref().map(CollectionName::as_str);
                    output.json(&json!({"collection": name, "damage": row.what}))?;
                }
                output.finish()?;
            } else if collections.is_empty() && damaged.is_empty() {
                output::note("no collections yet: selfsame collection create NAME");
            } else {
                print(listed(&collections, &damaged)?)?;
            }
            for row in damaged {
                let name = row.name.map_or_else(|| "NAME".into(), |name| name.to_string());
                output::note(format_args!("to get it back: selfsame recover {name}"));
            }
            Ok(Exit::Done)
        })
    }
}

fn described(collection: &Collection<EmbeddedStore>) -> Result<serde_json::Value, CliError> {
    let spec = collection.spec();
    let mut described = json!({
        "collection": spec.name.as_str(),
        "hash_algorithm": spec.algorithm.to_string(),
        "policy": json::policy(&spec.policy),
    });
    if let Some(damage) = collection.damage() {
        described["damage"] = damage.into();
    } else {
        let totals = collection.totals()?;
        described["entries"] = totals.entries.into();
        described["siblings"] = totals.siblings.into();
        described["bytes"] = totals.bytes.into();
        described["root"] = collection.root()?.to_string().into();
    }
    Ok(described)
}

fn listed(
    collections: &[std::sync::Arc<Collection<EmbeddedStore>>],
    damaged: &[DamagedRow],
) -> Result<comfy_table::Table, CliError> {
    let header = ["COLLECTION", "POLICY", "HASH", "ENTRIES", "SIZE", "ROOT"];
    let mut table = output::table(&header, &[3, 4]);
    for collection in collections {
        let spec = collection.spec();
        let mut row =
            vec![spec.name.to_string(), spec.policy.to_string(), spec.algorithm.to_string()];
        if let Some(damage) = collection.damage() {
            row.extend(["-".into(), "-".into(), format!("damaged: {damage}")]);
        } else {
            let (totals, root) = (collection.totals()?, collection.root()?.to_string());
            row.extend([count(totals.entries), output::size(totals.bytes), root[..16].into()]);
        }
        table.add_row(row);
    }
    for row in damaged {
        let name = row.name.as_ref().map_or_else(|| "(no name)".into(), ToString::to_string);
        let what = format!("damaged: {}", row.what);
        table.add_row([&name, "-", "-", "-", "-", &what]);
    }
    Ok(table)
}
