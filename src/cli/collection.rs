//! `selfsame collection create | ls`

use clap::{Args, Subcommand};
use serde_json::json;

use super::arguments;
use super::error::CliError;
use super::output::{self, Output, count, print, print_json};
use super::{Context, Exit};
use crate::api::types::{CollectionInfo, CollectionList, DamagedRow, NewCollection};
use crate::hash::HashAlgorithm;
use crate::types::{CollectionName, Policy};

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
  selfsame collection create drafts --policy siblings --hash sha256
  selfsame collection create tags --policy set-union@1")]
struct Create {
    /// Its name: 1 to 255 bytes of text
    #[arg(value_parser = arguments::collection)]
    name: CollectionName,
    /// How concurrent versions of a key are read: lww shows the latest, siblings shows all; max@1,
    /// set-union@1, json-merge@1 and first@1 merge them when they are read (see docs/library.md)
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
    /// "siblings", "bytes", "root", "damage", "resolver_fault"}
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
        context.with(|control| {
            let (policy, hash_algorithm) = (self.policy.to_string(), self.hash.to_string());
            let settings = NewCollection { policy, hash_algorithm };
            let created = control.wait(control.node.create(&self.name, &settings))?;
            let CollectionInfo { collection, hash_algorithm, policy, root, .. } =
                created.collection;
            if self.json {
                print_json(&json!({
                    "collection": collection,
                    "hash_algorithm": hash_algorithm,
                    "policy": policy,
                    "root": root,
                }))?;
            } else {
                let what = if created.existed { "exists already" } else { "created" };
                print(format_args!(
                    "collection {collection} {what}: policy {policy}, hash {hash_algorithm}"
                ))?;
            }
            Ok(Exit::Done)
        })
    }
}

impl Ls {
    fn run(self, context: &Context) -> Result<Exit, CliError> {
        context.with(|control| {
            let all = control.wait(control.node.collections())?;
            if self.json {
                let mut output = Output::new();
                for collection in &all.collections {
                    output.json(&json!(collection))?;
                }
                for row in &all.damaged_rows {
                    output.json(&json!(row))?;
                }
                output.finish()?;
            } else if all.collections.is_empty() && all.damaged_rows.is_empty() {
                output::note("no collections yet: selfsame collection create NAME");
            } else {
                print(listed(&all))?;
            }
            for one in &all.collections {
                if let Some(fault) = &one.resolver_fault {
                    output::note(format_args!("{}: {fault}", one.collection));
                }
            }
            for row in all.damaged_rows {
                let name = row.collection.unwrap_or_else(|| "NAME".into());
                output::note(format_args!("to get it back: selfsame recover {name}"));
            }
            Ok(Exit::Done)
        })
    }
}

pub(super) fn listed(all: &CollectionList) -> comfy_table::Table {
    let header = ["COLLECTION", "POLICY", "HASH", "ENTRIES", "SIZE", "ROOT"];
    let mut table = output::table(&header, &[3, 4]);
    for one in &all.collections {
        let mut row =
            vec![one.collection.clone(), one.policy.to_string(), one.hash_algorithm.clone()];
        if let Some(damage) = &one.damage {
            row.extend(["-".into(), "-".into(), format!("damaged: {damage}")]);
        } else {
            let (entries, bytes) = (one.entries.unwrap_or(0), one.bytes.unwrap_or(0));
            let root = one.root.iter().flat_map(|root| root.chars().take(16)).collect();
            row.extend([count(entries), output::size(bytes), root]);
        }
        table.add_row(row);
    }
    for DamagedRow { collection, damage } in &all.damaged_rows {
        let name = collection.as_deref().unwrap_or("(no name)");
        table.add_row([name, "-", "-", "-", "-", &format!("damaged: {damage}")]);
    }
    table
}
