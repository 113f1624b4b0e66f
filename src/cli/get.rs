//! `selfsame get`

use clap::Args;
use serde::Serialize;

use super::arguments::{self, KeyArgument};
use super::error::CliError;
use super::json::{KeyJson, SiblingJson};
use super::output::{Output, counted, note, print_json};
use super::{Context, Exit};
use crate::replica::{Reading, Version};
use crate::types::{CollectionName, Key};

/// Prints the value of a key, byte for byte
///
/// By policy lww that is the latest version; if concurrent ones are held beside it, that is said
/// on standard error. By policy siblings a single version is printed; if there are several,
/// nothing is printed and the command ends with 1: --json shows them all. No such key: 1.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame get players player:17
  selfsame get images logo.png > logo.png
  selfsame get drafts plan --json")]
pub(super) struct Get {
    /// The collection
    #[arg(value_parser = arguments::collection)]
    collection: CollectionName,
    #[command(flatten)]
    key: KeyArgument,
    /// Prints JSON: {"key" or "key_hex", "conflict", "versions": [{"writer",
    /// "counter", "stamp", "size", "value_hash", "value" or "value_hex"}]}, the latest
    /// first
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct ReadingJson {
    #[serde(flatten)]
    key: KeyJson,
    conflict: bool,
    versions: Vec<VersionJson>,
}

#[derive(Serialize)]
struct VersionJson {
    #[serde(flatten)]
    sibling: SiblingJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
}

impl Get {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let key = self.key.key()?;
        context.with(|home| {
            let Some(reading) = home.replica.collection(&self.collection)?.read(&key)? else {
                note(format_args!("{key}: no such key in {}", self.collection));
                return Ok(Exit::Differs);
            };
            if self.json {
                print_json(&described(&key, &reading))?;
                return Ok(Exit::Done);
            }
            print_value(&key, &reading)
        })
    }
}

fn print_value(key: &Key, reading: &Reading) -> Result<Exit, CliError> {
    let versions = reading.versions.len() as u64;
    let [version] = reading.versions.as_slice() else {
        note(format_args!(
            "{key}: {} are held, and the policy shows all: see them with --json; the next put \
             replaces them",
            counted(versions, "concurrent version", "concurrent versions")
        ));
        return Ok(Exit::Differs);
    };
    let value = version.value.as_ref().ok_or(CliError::ValueLost)?;
    if reading.conflict {
        note(format_args!(
            "{key}: concurrent versions are held; this is the latest, and the next put replaces all"
        ));
    }
    let mut output = Output::new();
    output.bytes(value)?;
    output.finish()?;
    Ok(Exit::Done)
}

fn described(key: &Key, reading: &Reading) -> ReadingJson {
    let versions = reading.versions.iter().map(version_json).collect();
    ReadingJson { key: KeyJson::from(key), conflict: reading.conflict, versions }
}

fn version_json(version: &Version) -> VersionJson {
    let bytes = version.value.as_deref();
    let text = bytes.and_then(|bytes| std::str::from_utf8(bytes).ok());
    let hex = if text.is_some() { None } else { bytes };
    VersionJson { sibling: SiblingJson::new(&version.sibling, hex), value: text.map(str::to_owned) }
}
