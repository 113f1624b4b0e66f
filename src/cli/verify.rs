//! `selfsame verify`

mod told;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::error::CliError;
use super::output::{Output, print_json};
use super::{Exit, arguments};
use crate::entry::Record;
use crate::hash::{HashAlgorithm, KeyHash, Root};
use crate::merkle::{
    Answer, Bundle, ChangeBundle, Envelope, MAX_PROOF_FILE_BYTES, ManyBundle, PrefixBundle,
    ProofFile, ProvedChange,
};
use crate::types::{Key, NodeId};
use told::{Told, Verdict};

/// Verifies a file of proof, offline: what it proves of the collection with a root
///
/// Needs no node, no data folder and no trust in whoever made the file. Ends with 0 if all is
/// proved that was asked, with each key present (and the value, if one is given, one of its
/// versions), 1 if a key that was asked for is proved absent, 6 if something is not proved.
///
/// A file about one key needs --root and --key. One about many keys or about all entries under a
/// prefix of key hashes needs --root, and tells of all its keys, or of those named with --key. One
/// about a commit needs --node: it proves that this node has signed that it made this commit. With
/// --root, the root before it from a source that you trust, it proves whatever the node says that
/// these changes and no others lead from that root to the one that is told.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame verify player17.proof --root ROOT --key player:17
  selfsame verify player17.proof --root ROOT --key player:17 --value level.json
  selfsame verify wanted.proof --root ROOT
  selfsame verify all.proof --root ROOT --starts-with player:
  selfsame verify change.proof --node ID --root ROOT --root-after NEWROOT")]
pub(super) struct Verify {
    /// The proof, as `selfsame prove` wrote it
    file: PathBuf,
    /// The root, from a source that you trust: 64 hex digits. Of a commit, the root before it
    #[arg(long, value_name = "HEX")]
    root: Option<Root>,
    /// The key, or several
    #[arg(long)]
    key: Vec<String>,
    /// Keys are written in hex
    #[arg(long)]
    hex: bool,
    /// A file that must be the value of one of the key's versions
    #[arg(long, value_name = "FILE")]
    value: Option<PathBuf>,
    /// Of all entries, tells of those whose keys begin so
    #[arg(long, value_name = "TEXT", conflicts_with = "key")]
    starts_with: Option<String>,
    /// The node that made a commit: its id, as `selfsame id` shows it there
    #[arg(long, value_name = "ID", value_parser = crate::net::parse_node_id)]
    node: Option<NodeId>,
    /// The root that a commit must lead to
    #[arg(long, value_name = "HEX")]
    root_after: Option<Root>,
    /// Prints JSON. Of one key: {"result": "present" or "absent", "collection", "siblings",
    /// "value_matches"}; of others {"result": "proved", "collection", "root", "keys": [{"key",
    /// "result", "siblings"}]}, with "prefix" or, of a commit, "root_before", "node", "log",
    /// "index", and "changes" in place of "keys"
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) fn run(self) -> Result<Exit, CliError> {
        let asked = self.key.iter().map(|key| Ok(Key::new(arguments::bytes(key, self.hex)?)?));
        let asked: Vec<Key> = asked.collect::<Result<_, CliError>>()?;
        let file = ProofFile::parse(&read(&self.file)?)?;
        if self.value.is_some() && asked.len() != 1 {
            return Err(CliError::Argument("--value is the value of one key: name it with --key"));
        }
        if !matches!(file, ProofFile::Change(_))
            && (self.node.is_some() || self.root_after.is_some())
        {
            return Err(CliError::Argument(
                "the file proves no commit: --node and --root-after have no use here",
            ));
        }
        if !matches!(file, ProofFile::Prefix(_)) && self.starts_with.is_some() {
            return Err(CliError::Argument(
                "--starts-with chooses among all entries: the file does not prove those",
            ));
        }
        match file {
            ProofFile::One(bundle) => self.one(&bundle, &asked),
            ProofFile::Many(bundle) => self.many(&bundle, &asked),
            ProofFile::Prefix(bundle) => self.prefix(&bundle, &asked),
            ProofFile::Change(bundle) => self.change(&bundle, &asked),
        }
    }

    fn root(&self) -> Result<&Root, CliError> {
        let missing = "which root? Give --root HEX, from a source that you trust";
        self.root.as_ref().ok_or(CliError::Argument(missing))
    }

    fn one(&self, bundle: &Bundle, asked: &[Key]) -> Result<Exit, CliError> {
        let root = self.root()?;
        let [key] = asked else {
            return Err(CliError::Argument("the file is about one key: name it with --key"));
        };
        let verdict = match bundle.verify(root, key)? {
            Answer::Absent => Verdict::Absent,
            Answer::Present(record) => Verdict::Present(record),
        };
        let told = Told::new(key.clone(), verdict);
        let matches = self.value_matches(bundle.envelope().algorithm(), told.record())?;
        if self.json {
            let mut json = told.json();
            json["collection"] = bundle.envelope().name().as_str().into();
            json["value_matches"] = json!(matches);
            print_json(&json)?;
        } else {
            let mut output = Output::new();
            output.line(told.text(bundle.envelope().name()))?;
            output.finish()?;
        }
        Ok(self.exit(&[told], matches))
    }

    fn many(&self, bundle: &ManyBundle, asked: &[Key]) -> Result<Exit, CliError> {
        let answers = bundle.verify(self.root()?)?;
        let mut told = Vec::new();
        let verdict = |answer: &Answer| match answer {
            Answer::Absent => Verdict::Absent,
            Answer::Present(record) => Verdict::Present(record.clone()),
        };
        for key in asked {
            let found = answers.iter().find(|(found, _)| found == key);
            let (_, answer) = found.ok_or_else(|| CliError::NotAsked(key.clone()))?;
            told.push(Told::new(key.clone(), verdict(answer)));
        }
        if asked.is_empty() {
            told = answers.iter().map(|(key, it)| Told::new(key.clone(), verdict(it))).collect();
        }
        self.tell(bundle.envelope(), &told, None)
    }

    fn prefix(&self, bundle: &PrefixBundle, asked: &[Key]) -> Result<Exit, CliError> {
        let entries = bundle.verify(self.root()?)?;
        let (prefix, algorithm) = (bundle.prefix(), bundle.envelope().algorithm());
        let starts_with = arguments::bytes(self.starts_with.as_deref().unwrap_or(""), self.hex)?;
        if self.starts_with.is_some() && !prefix.is_empty() {
            return Err(CliError::Argument(
                "the file proves a part of the collection, chosen by key hashes: other keys that \
                 begin so may stand elsewhere. Only a proof of --prefix /0 shows all of them",
            ));
        }
        let mut told = Vec::new();
        for key in asked {
            let found = entries.iter().find(|(found, _)| found == key);
            let verdict = match found {
                Some((_, record)) => Verdict::Present(record.clone()),
                None if prefix.contains(&algorithm.key_hash(key)) => Verdict::Absent,
                None => return Err(CliError::NotAsked(key.clone())),
            };
            told.push(Told::new(key.clone(), verdict));
        }
        if asked.is_empty() {
            let chosen = entries.iter().filter(|(key, _)| key.as_bytes().starts_with(&starts_with));
            let chosen = chosen
                .map(|(key, record)| Told::new(key.clone(), Verdict::Present(record.clone())));
            told = chosen.collect();
        }
        let which = match (&self.starts_with, prefix.is_empty()) {
            _ if !asked.is_empty() => None,
            (Some(text), _) => Some(format!("all entries whose keys begin with {text}")),
            (None, true) => Some("all entries of the collection".to_owned()),
            (None, false) => Some(format!("all entries with key hashes that begin with {prefix}")),
        };
        self.tell(bundle.envelope(), &told, which.map(|which| (prefix.to_string(), which)))
    }

    fn tell(
        &self,
        envelope: &Envelope,
        told: &[Told],
        complete: Option<(String, String)>,
    ) -> Result<Exit, CliError> {
        let record = told.first().and_then(Told::record);
        let matches = self.value_matches(envelope.algorithm(), record)?;
        if self.json {
            let keys: Vec<_> = told.iter().map(Told::json).collect();
            let mut json = json!({
                "result": "proved",
                "collection": envelope.name().as_str(),
                "root": envelope.root().to_string(),
                "keys": keys,
                "value_matches": matches,
            });
            if let Some((prefix, _)) = &complete {
                json["prefix"] = prefix.as_str().into();
            }
            print_json(&json)?;
        } else {
            let mut output = Output::new();
            for told in told {
                output.line(told.text(envelope.name()))?;
            }
            if let Some((_, which)) = &complete {
                output.line(format!("proved: these are {which}, {} in all", told.len()))?;
            }
            output.finish()?;
        }
        // that there are no others was asked, and is proved
        Ok(if complete.is_some() { Exit::Done } else { self.exit(told, matches) })
    }

    fn change(&self, bundle: &ChangeBundle, asked: &[Key]) -> Result<Exit, CliError> {
        let node = self.node.as_ref().ok_or(CliError::Argument(
            "which node? The file proves a commit: give --node ID of the node that made it",
        ))?;
        bundle.verify(node)?;
        if let Some(root) = &self.root {
            bundle.check_before(root)?;
        }
        if let Some(root) = &self.root_after {
            bundle.check_after(root)?;
        }
        let [before, _] = bundle.envelopes();
        let algorithm = before.algorithm();
        let find = |key: &Key| -> Result<&ProvedChange, CliError> {
            let hash = algorithm.key_hash(key);
            let found = bundle.changes().iter().find(|change| change.key == hash);
            found.ok_or_else(|| CliError::NotAsked(key.clone()))
        };
        let changes: Vec<(Option<&Key>, &ProvedChange)> = match asked {
            [] => bundle.changes().iter().map(|change| (None, change)).collect(),
            asked => asked
                .iter()
                .map(|key| Ok((Some(key), find(key)?)))
                .collect::<Result<_, CliError>>()?,
        };
        let record = changes.first().and_then(|(_, change)| change.record.as_ref());
        let matches = self.value_matches(algorithm, record)?;
        told::commit(bundle, &changes, self.root.is_some(), matches, self.json)?;
        Ok(told::of_value(Exit::Done, matches))
    }

    fn exit(&self, told: &[Told], matches: Option<bool>) -> Exit {
        let absent = told.iter().any(|told| told.record().is_none());
        if absent { Exit::Differs } else { told::of_value(Exit::Done, matches) }
    }

    fn value_matches(
        &self,
        algorithm: HashAlgorithm,
        record: Option<&Record>,
    ) -> Result<Option<bool>, CliError> {
        let (Some(path), Some(record)) = (&self.value, record) else { return Ok(None) };
        let largest = record.siblings().iter().map(|sibling| sibling.size).max().unwrap_or(0);
        let mut value = Vec::new();
        let file = File::open(path).map_err(CliError::file("read", path))?;
        // one byte more than the largest version says enough
        let mut file = file.take(largest.saturating_add(1));
        file.read_to_end(&mut value).map_err(CliError::file("read", path))?;
        let hash = algorithm.value_hash(&value);
        let is_one = record
            .siblings()
            .iter()
            .any(|sibling| sibling.value_hash == hash && sibling.size == value.len() as u64);
        Ok(Some(is_one))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(CliError::file("read", path))?;
    let mut file = file.take(MAX_PROOF_FILE_BYTES as u64 + 1);
    file.read_to_end(&mut bytes).map_err(CliError::file("read", path))?;
    if bytes.len() > MAX_PROOF_FILE_BYTES {
        return Err(CliError::NoBundle(path.to_path_buf()));
    }
    Ok(bytes)
}

/// A key as text: that of the caller, or the hash alone.
fn named(key: Option<&Key>, hash: &KeyHash) -> String {
    key.map_or_else(|| format!("the key with hash {hash}"), ToString::to_string)
}
