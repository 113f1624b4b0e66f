//! `selfsame verify`

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::error::CliError;
use super::output::{date_time, note, print, print_json, size};
use super::{Exit, arguments};
use crate::api::types::SiblingText;
use crate::entry::Record;
use crate::hash::{HashAlgorithm, Root};
use crate::merkle::{Answer, Bundle, MAX_BUNDLE_BYTES};
use crate::types::Key;

/// Verifies a proof, offline: what it proves of a key in the collection with a root
///
/// Needs no node, no data folder and no trust in whoever made the file. Ends with 0 if the key
/// is proved present (and the value, if one is given, is one of its versions), 1 if it is proved
/// absent, 6 if nothing is proved.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame verify player17.proof --root ROOT --key player:17
  selfsame verify player17.proof --root ROOT --key player:17 --value level.json")]
pub(super) struct Verify {
    /// The proof, as `selfsame prove` wrote it
    file: PathBuf,
    /// The root, from a source that you trust: 64 hex digits
    #[arg(long, value_name = "HEX")]
    root: Root,
    /// The key
    #[arg(long)]
    key: String,
    /// The key is written in hex
    #[arg(long)]
    hex: bool,
    /// A file that must be the value of one of the key's versions
    #[arg(long, value_name = "FILE")]
    value: Option<PathBuf>,
    /// Prints JSON: {"result": "present" or "absent", "collection", "siblings",
    /// "value_matches"}
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) fn run(self) -> Result<Exit, CliError> {
        let key = Key::new(arguments::bytes(&self.key, self.hex)?)?;
        let mut bytes = Vec::new();
        let failed = || CliError::file("read", &self.file);
        let file = File::open(&self.file).map_err(failed())?;
        file.take(MAX_BUNDLE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed())?;
        if bytes.len() > MAX_BUNDLE_BYTES {
            return Err(CliError::NoBundle(self.file));
        }
        let bundle = Bundle::parse(&bytes)?;
        let name = bundle.envelope().name();
        match bundle.verify(&self.root, &key)? {
            Answer::Absent => {
                if self.json {
                    print_json(&json!({"result": "absent", "collection": name.as_str()}))?;
                } else {
                    print(format_args!("proved: {key} is not in {name}"))?;
                }
                Ok(Exit::Differs)
            }
            Answer::Present(record) => {
                let matches = self.value_matches(bundle.envelope().algorithm(), &record)?;
                self.tell(&key, name.as_str(), &record, matches)?;
                Ok(if matches == Some(false) { Exit::Unproved } else { Exit::Done })
            }
        }
    }

    fn value_matches(
        &self,
        algorithm: HashAlgorithm,
        record: &Record,
    ) -> Result<Option<bool>, CliError> {
        let Some(path) = &self.value else { return Ok(None) };
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

    fn tell(
        &self,
        key: &Key,
        name: &str,
        record: &Record,
        matches: Option<bool>,
    ) -> Result<(), CliError> {
        if self.json {
            let siblings: Vec<_> = record.siblings().iter().map(SiblingText::from).collect();
            return print_json(&json!({
                "result": "present",
                "collection": name,
                "siblings": siblings,
                "value_matches": matches,
            }));
        }
        let mut text = format!("proved: {key} is in {name}");
        for sibling in record.versions() {
            text.push_str(&format!(
                "\n  value {}, {}, written {}",
                sibling.value_hash,
                size(sibling.size),
                date_time(sibling.stamp.millis())
            ));
        }
        print(text)?;
        match matches {
            Some(true) => note("the value given is one of these"),
            Some(false) => note("not proved: the value given is none of these"),
            None => {}
        }
        Ok(())
    }
}
