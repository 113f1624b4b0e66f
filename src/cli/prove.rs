//! `selfsame prove`

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::control::Control;
use super::error::CliError;
use super::folder::write_whole;
use super::output::{Output, note, print, print_json};
use super::{Context, Exit, arguments};
use crate::api::{ChangeChoice, CommitFile};
use crate::merkle::{Bundle, ChangeBundle, MAX_PROVED_KEYS, ManyBundle, Prefix, PrefixBundle};
use crate::types::{CollectionName, Key, MAX_KEY_BYTES};

/// Writes a file of proof for others: what a collection holds under keys, or what a commit changed
///
/// The file holds all that `selfsame verify` needs besides the root: whoever holds the root from a
/// source they trust needs to trust nobody else. Printed: what is proved, and the root that the
/// proof belongs to; the next write gives another root. One file proves one of these:
///
/// - one KEY: that it is there with what versions, or that it is not
///
/// - several KEYs, or those in --keys FILE: the same of each, in one proof; 65,536 keys at most
///
/// - --prefix BITS: all entries under these first bits of key hashes, and that there is no other.
///   Keys are hashed before they stand in the tree, so this is no prefix of keys, and none of those
///   can be proved complete by itself. What can: the whole collection, --prefix /0, from which
///   `selfsame verify --starts-with` chooses; or, of a large one, the 256 files of 00 to ff.
///   32 MiB at most
///
/// - --change KEY, or --change-at POSITION: the commit that last changed the key, or that stands
///   there in this node's change log: the roots before and after, that just these keys were
///   changed, and that this node has signed it. While at most 65,536 changes were logged since
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame prove players player:17 -o player17.proof
  selfsame prove players --keys wanted.txt -o wanted.proof
  selfsame prove players --prefix /0 -o all.proof
  selfsame prove players --change player:17 -o change.proof
  selfsame verify player17.proof --root ROOT --key player:17")]
pub(super) struct Prove {
    /// The collection
    #[arg(value_parser = arguments::collection)]
    collection: CollectionName,
    /// The keys: 1 to 1,024 bytes of text each
    #[arg(value_name = "KEY", required_unless_present_any = ["keys", "prefix", "change", "change_at"])]
    key: Vec<String>,
    /// More keys, one a line; - is standard input
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// All entries under these first bits of key hashes: hex digits, as in 3f, or digits and
    /// bits, as in 3f80/9; /0 is the whole collection
    #[arg(long, value_name = "BITS", conflicts_with_all = ["key", "keys"])]
    prefix: Option<Prefix>,
    /// The commit that last changed this key
    #[arg(long, value_name = "KEY", conflicts_with_all = ["key", "keys", "prefix"])]
    change: Option<String>,
    /// The commit at this position of the change log
    #[arg(long, value_name = "POSITION", conflicts_with_all = ["key", "keys", "prefix", "change"])]
    change_at: Option<u64>,
    /// Keys are written in hex, for bytes that are no text
    #[arg(long)]
    hex: bool,
    /// Where to write the proof; - is standard output
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Prints JSON: {"result", "root", "bytes"}; of one key "result" is "present" or "absent", of
    /// others "proved", with {"keys", "present", "absent"}, {"prefix", "entries"} or {"position",
    /// "log", "index", "changes", "root_before", "node"}
    #[arg(long)]
    json: bool,
}

/// What was proved: to be told and printed.
struct Proved {
    bytes: axum::body::Bytes,
    text: String,
    json: Value,
    root: String,
}

impl Prove {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let keys = self.read_keys()?;
        context.with(|control| {
            let proved = self.proved(control, &keys)?;
            let Proved { bytes, text, mut json, root } = proved;
            if self.output == Path::new("-") {
                let mut output = Output::new();
                output.bytes(&bytes)?;
                output.finish()?;
                note(format_args!("{text} with root {root}"));
                return Ok(Exit::Done);
            }
            write_whole(&self.output, &bytes)?;
            if self.json {
                json["root"] = root.into();
                json["bytes"] = bytes.len().into();
                print_json(&json)?;
            } else {
                print(format_args!("{text}: {} bytes of proof for root\n{root}", bytes.len()))?;
            }
            Ok(Exit::Done)
        })
    }

    fn proved(&self, control: &Control, keys: &[Key]) -> Result<Proved, CliError> {
        let key = |text: &str| -> Result<Key, CliError> {
            Ok(Key::new(arguments::bytes(text, self.hex)?)?)
        };
        if let Some(prefix) = &self.prefix {
            return self.prefix(control, prefix);
        }
        match (&self.change, self.change_at, keys) {
            (Some(text), ..) => self.change(control, &ChangeChoice::LastOf(key(text)?)),
            (None, Some(position), _) => self.change(control, &ChangeChoice::At(position)),
            (None, None, [key]) if self.keys.is_none() => self.one(control, key),
            (None, None, keys) => self.many(control, keys),
        }
    }

    fn one(&self, control: &Control, key: &Key) -> Result<Proved, CliError> {
        let bytes = control.wait(control.node.proof(&self.collection, key))?;
        let bundle = Bundle::parse(&bytes)?;
        let result = if bundle.record().is_some() { "present" } else { "absent" };
        Ok(Proved {
            bytes,
            text: format!("{key} is {result} in {}", self.collection),
            json: json!({"result": result}),
            root: bundle.envelope().root().to_string(),
        })
    }

    fn many(&self, control: &Control, keys: &[Key]) -> Result<Proved, CliError> {
        let bytes = control.wait(control.node.prove_many(&self.collection, keys))?;
        let bundle = ManyBundle::parse(&bytes)?;
        let keys = bundle.entries().len();
        let present = bundle.entries().iter().filter(|(_, record)| record.is_some()).count();
        let absent = keys - present;
        Ok(Proved {
            bytes,
            text: format!("{keys} keys of {}: {present} present, {absent} absent", self.collection),
            json: json!({"result": "proved", "keys": keys, "present": present, "absent": absent}),
            root: bundle.envelope().root().to_string(),
        })
    }

    fn prefix(&self, control: &Control, prefix: &Prefix) -> Result<Proved, CliError> {
        let bytes = control.wait(control.node.prove_prefix(&self.collection, prefix))?;
        let bundle = PrefixBundle::parse(&bytes)?;
        let entries = bundle.entries().len();
        let under = if prefix.is_empty() {
            String::new()
        } else {
            format!(" with key hashes that begin with {prefix}")
        };
        Ok(Proved {
            bytes,
            text: format!("these are all {entries} entries{under} in {}", self.collection),
            json: json!({"result": "proved", "prefix": prefix.to_string(), "entries": entries}),
            root: bundle.envelope().root().to_string(),
        })
    }

    fn change(&self, control: &Control, change: &ChangeChoice) -> Result<Proved, CliError> {
        let asked = control.node.prove_change(&self.collection, change);
        let CommitFile { bytes, position } = control.wait(asked)?;
        let bundle = ChangeBundle::parse(&bytes)?;
        let (changes, [before, after]) = (bundle.changes().len(), bundle.roots());
        let (log, node) = (bundle.head().fields().log().id, bundle.head().node());
        Ok(Proved {
            bytes,
            text: format!(
                "the commit at {position} changed {changes} {} of {}, from root {before}",
                if changes == 1 { "key" } else { "keys" },
                self.collection
            ),
            json: json!({
                "result": "proved",
                "position": position,
                "log": log.to_string(),
                "index": bundle.place().first(),
                "changes": changes,
                "root_before": before.to_string(),
                "node": node.to_string(),
            }),
            root: after.to_string(),
        })
    }

    /// The keys of the command line, then those of the file.
    fn read_keys(&self) -> Result<Vec<Key>, CliError> {
        let mut keys = Vec::new();
        for text in &self.key {
            keys.push(Key::new(arguments::bytes(text, self.hex)?)?);
        }
        match &self.keys {
            None => Ok(keys),
            Some(path) if path == Path::new("-") => self.read_lines(io::stdin().lock(), path, keys),
            Some(path) => {
                let file = File::open(path).map_err(CliError::file("read", path))?;
                self.read_lines(BufReader::new(file), path, keys)
            }
        }
    }

    /// A key a line; empty lines are passed over.
    fn read_lines(
        &self,
        mut lines: impl BufRead,
        path: &Path,
        mut keys: Vec<Key>,
    ) -> Result<Vec<Key>, CliError> {
        // in hex, with a line end of two bytes, and one more to see that it is too long
        let longest = 2 * MAX_KEY_BYTES as u64 + 3;
        let mut text = Vec::new();
        for line in 1.. {
            text.clear();
            let read = lines.by_ref().take(longest).read_until(b'\n', &mut text);
            if read.map_err(CliError::file("read", path))? == 0 {
                break;
            }
            let wrong = |why: String| CliError::KeyLine { path: path.into(), line, why };
            let bytes = text.strip_suffix(b"\n").unwrap_or(&text);
            let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
            if bytes.is_empty() {
                continue;
            }
            let key = if self.hex {
                let text = String::from_utf8_lossy(bytes);
                arguments::bytes(&text, true).map_err(|error| wrong(error.to_string()))?
            } else {
                bytes.to_vec()
            };
            if keys.len() == MAX_PROVED_KEYS {
                return Err(wrong(format!("one proof is of {MAX_PROVED_KEYS} keys at most")));
            }
            keys.push(Key::new(key).map_err(|error| wrong(error.to_string()))?);
        }
        if keys.is_empty() {
            return Err(CliError::Argument("say which keys: there is none in the file"));
        }
        Ok(keys)
    }
}
