//! How verdicts are told.

use serde_json::{Value, json};

use super::named;
use crate::api::types::{KeyText, SiblingText};
use crate::cli::Exit;
use crate::cli::error::CliError;
use crate::cli::output::{Output, date_time, note, print_json, size};
use crate::entry::Record;
use crate::merkle::{ChangeBundle, ProvedChange};
use crate::types::{CollectionName, Key};

/// What is proved of a key.
pub(super) enum Verdict {
    Present(Record),
    Absent,
}

/// A key and what is proved of it.
pub(super) struct Told {
    key: Key,
    verdict: Verdict,
}

impl Told {
    pub(super) const fn new(key: Key, verdict: Verdict) -> Self {
        Self { key, verdict }
    }

    pub(super) const fn record(&self) -> Option<&Record> {
        match &self.verdict {
            Verdict::Present(record) => Some(record),
            Verdict::Absent => None,
        }
    }

    pub(super) fn text(&self, collection: &CollectionName) -> String {
        let key = &self.key;
        match &self.verdict {
            Verdict::Absent => format!("proved: {key} is not in {collection}"),
            Verdict::Present(record) => {
                format!("proved: {key} is in {collection}{}", versions(record))
            }
        }
    }

    pub(super) fn json(&self) -> Value {
        let mut json = json!(KeyText::from(&self.key));
        match &self.verdict {
            Verdict::Absent => json["result"] = "absent".into(),
            Verdict::Present(record) => {
                json["result"] = "present".into();
                json["siblings"] = siblings(record);
            }
        }
        json
    }
}

/// A line for each version.
fn versions(record: &Record) -> String {
    let lines = record.versions().into_iter().map(|sibling| {
        format!(
            "\n  value {}, {}, written {}",
            sibling.value_hash,
            size(sibling.size),
            date_time(sibling.stamp.millis())
        )
    });
    lines.collect()
}

fn siblings(record: &Record) -> Value {
    record.siblings().iter().map(SiblingText::from).map(|it| json!(it)).collect()
}

/// The exit code once a value was compared, and what is said of it.
pub(super) fn of_value(exit: Exit, matches: Option<bool>) -> Exit {
    match matches {
        Some(true) => note("the value given is one of these"),
        Some(false) => {
            note("not proved: the value given is none of these");
            return Exit::Unproved;
        }
        None => {}
    }
    exit
}

/// What a commit is proved to have done.
pub(super) fn commit(
    bundle: &ChangeBundle,
    changes: &[(Option<&Key>, &ProvedChange)],
    is_pinned: bool,
    matches: Option<bool>,
    json: bool,
) -> Result<(), CliError> {
    let ([before, after], head) = (bundle.roots(), bundle.head());
    let [envelope, _] = bundle.envelopes();
    if json {
        let changes: Vec<_> = changes.iter().map(|(key, change)| of_change(*key, change)).collect();
        return print_json(&json!({
            "result": "proved",
            "collection": envelope.name().as_str(),
            "root_before": before.to_string(),
            "root": after.to_string(),
            "node": head.node().to_string(),
            "log": head.fields().log().id.to_string(),
            "index": bundle.place().first(),
            "changes": changes,
            "value_matches": matches,
        }));
    }
    let mut output = Output::new();
    for (key, change) in changes {
        let key = named(*key, &change.key);
        let what = match (&change.before, &change.after) {
            (None, Some(_)) => "added",
            (Some(_), Some(_)) => "changed",
            (Some(_), None) => "removed",
            (None, None) => "left alone",
        };
        let record = change.record.as_ref().map(versions).unwrap_or_default();
        output.line(format!("proved: {key} was {what}{record}"))?;
    }
    output.line(format!(
        "proved: node {} signed that it made this commit to {}, item {} of its log {}",
        head.node(),
        envelope.name(),
        bundle.place().first(),
        head.fields().log().id
    ))?;
    output.line(format!(
        "proved: {} led from root\n{before}\nto root\n{after}",
        match bundle.changes().len() {
            1 => "this change alone".to_owned(),
            changes => format!("these {changes} changes alone"),
        }
    ))?;
    output.finish()?;
    if !is_pinned {
        note("that the collection had the root before is the word of that node: see --root");
    }
    Ok(())
}

fn of_change(key: Option<&Key>, change: &ProvedChange) -> Value {
    let mut json = key.map_or_else(|| json!({}), |key| json!(KeyText::from(key)));
    json["key_hash"] = change.key.to_string().into();
    json["before"] = json!(change.before.map(|digest| digest.to_string()));
    json["after"] = json!(change.after.map(|digest| digest.to_string()));
    if let Some(record) = &change.record {
        json["siblings"] = siblings(record);
    }
    json
}
