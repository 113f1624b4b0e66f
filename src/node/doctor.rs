//! Goes through everything at a node that may need a person.
//!
//! [`Facts`] are gathered once, by whoever has the node open or, as far as files go, by anybody;
//! the checks are functions of them. Each check says that all is well, or names what is not, in a
//! sentence with the fact and one with what to do.
//!
//! ```
//! use selfsame::node::doctor::{Facts, FolderFacts, MachineFacts, Opening, Verdict, examine};
//! use selfsame::node::home::Home;
//!
//! let folder = tempfile::tempdir()?;
//! let why = Home::open(folder.path()).err().expect("there is no node");
//! let facts = Facts {
//!     now_ms: 1_795_200_000_000,
//!     opening: Opening::shut(&why),
//!     folder: FolderFacts::of(folder.path()),
//!     machine: MachineFacts::of_this_process(),
//!     node: None,
//! };
//! let diagnosis = examine(&facts);
//! assert_eq!(diagnosis.verdict, Verdict::Wrong);
//! let advice = diagnosis.findings[0].what_to_do.as_deref().expect("it helps");
//! assert!(advice.contains("selfsame init"), "{advice}");
//! # Ok::<(), std::io::Error>(())
//! ```

mod collections;
mod folder;
mod machine;
mod peers;

use serde::{Deserialize, Serialize};

pub use self::collections::{CollectionDetail, Conflicting};
pub use self::folder::{FolderFacts, IdentityFact, InviteFact};
pub use self::machine::MachineFacts;
use super::home::HomeError;
use super::status::Status;
use crate::clock::ClockAhead;
use crate::limits::Limits;
use crate::store::StoreError;

/// Findings of one check that are told one by one; of more only the number.
pub const MOST_TOLD: usize = 20;

/// What a check came to.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It cannot be told as things are.
    Unknown,
    /// All is well.
    #[default]
    Ok,
    /// It works, and somebody should have a look.
    Look,
    /// Something does not work, or soon will not.
    Wrong,
}

/// What a check says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// The check, in a word.
    pub check: String,
    /// How it stands.
    pub verdict: Verdict,
    /// The collection, the peer or the pair of both that it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// The fact, as a sentence.
    pub fact: String,
    /// What to do, as a sentence; none where all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what_to_do: Option<String>,
}

/// What was found at a node.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The worst of all.
    pub verdict: Verdict,
    /// Whether the node can be opened: else only files were looked at.
    pub opens: bool,
    /// What each check says, in their order: at least one finding each.
    pub findings: Vec<Finding>,
}

/// What is known, at one moment.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The wall clock, in milliseconds since 1970.
    pub now_ms: u64,
    /// Whether the node is open.
    pub opening: Opening,
    /// Its data folder.
    pub folder: FolderFacts,
    /// What the process that has it open may use.
    pub machine: MachineFacts,
    /// What is known of it, if it is open.
    pub node: Option<NodeFacts>,
}

/// Whether a node is open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Opening {
    /// In this process; whether it is one that stays.
    Open {
        /// The process.
        process: u32,
        /// Whether it serves others, and for how long it has done so, in milliseconds.
        daemon_ms: Option<u64>,
    },
    /// It cannot be opened.
    Shut {
        /// Why.
        why: String,
        /// What to do.
        what_to_do: String,
    },
}

impl Opening {
    /// It cannot be opened, for this reason.
    #[must_use]
    pub fn shut(error: &HomeError) -> Self {
        let what_to_do = match error {
            HomeError::Missing(_) => {
                "make a node with `selfsame init`, or name its folder with --data DIR".into()
            }
            HomeError::Held { process: Some(process), .. } => format!(
                "look what process {process} is (`ps -fp {process}`): if it is selfsame and \
                 answers nothing, end it with `kill {process}`"
            ),
            HomeError::Held { process: None, .. } => {
                "find the process with `fuser -v` on store/LOCK in the folder, and end it".into()
            }
            HomeError::Identity(_) | HomeError::Config(_) | HomeError::Peers(_) => {
                "mend the file as said below, then run `selfsame doctor` again".into()
            }
            HomeError::Store(StoreError::Full) => "make some tens of MiB of room".into(),
            HomeError::Store(StoreError::Newer { .. }) => {
                "update selfsame to the version that wrote the store, or a later one".into()
            }
            HomeError::Store(StoreError::Forbidden { .. } | StoreError::ReadOnly { .. })
            | HomeError::File { .. } => {
                "run it as the user that owns the folder, on a file system that can be written"
                    .into()
            }
            _ => "see \"A collection is damaged\" in docs/operations.md: restore a backup, or let \
                  peers fill a new node"
                .into(),
        };
        Self::Shut { why: error.to_string(), what_to_do }
    }
}

/// What is known of an open node.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    /// Its limits.
    pub limits: Limits,
    /// Time between two scrubs of a collection, in milliseconds; 0: none.
    pub scrub_interval_ms: u64,
    /// Time between two sessions with a peer, in milliseconds.
    pub interval_ms: u64,
    /// Most memory that sessions may take, in bytes.
    pub sessions_memory_bytes: u64,
    /// Settings that were changed since, and hold only once it is started anew.
    pub restart: Vec<&'static str>,
    /// Whether others were changed since, and are not taken over yet.
    pub reload: bool,
    /// Why the store takes no writes any more, if that is so.
    pub store_failure: Option<String>,
    /// Rows of the list of collections that cannot be read: whose, if that is known, and why.
    pub damaged_rows: Vec<(Option<String>, String)>,
    /// Its collections, by name.
    pub collections: Vec<CollectionDetail>,
    /// Whether most peers find its clock ahead, so that it refuses to write.
    pub clock_ahead: Option<ClockAhead>,
    /// What its daemon knows, if one runs.
    pub daemon: Option<Status>,
}

/// Goes through all of it.
#[must_use]
pub fn examine(facts: &Facts) -> Diagnosis {
    let mut report = Report::default();
    opening(&mut report, facts);
    folder::examine(&mut report, facts);
    machine::examine(&mut report, facts);
    if let Some(node) = &facts.node {
        collections::examine(&mut report, facts, node);
        peers::examine(&mut report, facts, node);
    }
    let verdict = report.0.iter().map(|finding| finding.verdict).max().unwrap_or_default();
    Diagnosis { verdict, opens: facts.node.is_some(), findings: report.0 }
}

fn opening(report: &mut Report, facts: &Facts) {
    let mut check = report.check("node");
    match &facts.opening {
        Opening::Shut { why, what_to_do } => check.wrong(None, why, what_to_do),
        Opening::Open { process, daemon_ms: Some(since) } => {
            let since = super::figures::span(*since);
            check.well(format!("a daemon serves it for {since} (process {process})"));
        }
        Opening::Open { process, daemon_ms: None } => check.well(format!(
            "it opens (process {process}); no daemon serves it, so nothing is known of how it \
             stands with its peers"
        )),
    }
}

/// What the checks say.
#[derive(Debug, Default)]
struct Report(Vec<Finding>);

impl Report {
    /// Begins a check, which must say that all is well if it finds nothing.
    fn check(&mut self, name: &'static str) -> Check<'_> {
        Check { report: self, name, found: 0, more: 0, worst: Verdict::Ok }
    }
}

/// A check while it is being made.
struct Check<'a> {
    report: &'a mut Report,
    name: &'static str,
    found: usize,
    more: usize,
    worst: Verdict,
}

impl Check<'_> {
    fn look(&mut self, about: Option<&str>, fact: impl Into<String>, what_to_do: impl AsRef<str>) {
        self.add(Verdict::Look, about, fact.into(), what_to_do.as_ref());
    }

    fn wrong(&mut self, about: Option<&str>, fact: impl Into<String>, what_to_do: impl AsRef<str>) {
        self.add(Verdict::Wrong, about, fact.into(), what_to_do.as_ref());
    }

    fn add(&mut self, verdict: Verdict, about: Option<&str>, fact: String, what_to_do: &str) {
        self.found += 1;
        self.worst = self.worst.max(verdict);
        if self.found > MOST_TOLD {
            self.more += 1;
            return;
        }
        let (about, what_to_do) = (about.map(str::to_owned), Some(what_to_do.to_owned()));
        let check = self.name.to_owned();
        self.report.0.push(Finding { check, verdict, about, fact, what_to_do });
    }

    /// Says that all is well, unless something was found.
    fn well(&mut self, fact: impl Into<String>) {
        self.otherwise(Verdict::Ok, fact);
    }

    /// Says that it cannot be told as things are.
    fn unknown(&mut self, fact: impl Into<String>) {
        self.otherwise(Verdict::Unknown, fact);
    }

    fn otherwise(&mut self, verdict: Verdict, fact: impl Into<String>) {
        if self.found == 0 {
            self.found = 1;
            let check = self.name.to_owned();
            let (about, what_to_do) = (None, None);
            self.report.0.push(Finding { check, verdict, about, fact: fact.into(), what_to_do });
        }
    }
}

impl Drop for Check<'_> {
    fn drop(&mut self) {
        if self.more > 0 {
            self.report.0.push(Finding {
                check: self.name.to_owned(),
                verdict: self.worst,
                about: None,
                fact: format!(
                    "there are {} more of these",
                    super::figures::count(self.more as u64)
                ),
                what_to_do: Some("mend those that are named, then look again".to_owned()),
            });
        }
    }
}

/// Facts of a node at which all is well, for tests that change one.
#[cfg(test)]
fn healthy() -> (tempfile::TempDir, Facts) {
    let folder = tempfile::tempdir().expect("a folder");
    crate::node::home::Home::init(folder.path()).expect("a node");
    let node = NodeFacts {
        limits: Limits::default(),
        scrub_interval_ms: 604_800_000,
        interval_ms: 30_000,
        sessions_memory_bytes: 1 << 20,
        restart: Vec::new(),
        reload: false,
        store_failure: None,
        damaged_rows: Vec::new(),
        collections: Vec::new(),
        clock_ahead: None,
        daemon: None,
    };
    let facts = Facts {
        now_ms: 1_795_200_000_000,
        opening: Opening::Open { process: 7, daemon_ms: None },
        folder: FolderFacts {
            free_bytes: Some(1 << 40),
            free_files: Some(1 << 20),
            ..FolderFacts::of(folder.path())
        },
        machine: MachineFacts { open_files: Some(65_536), memory_bytes: Some(1 << 36) },
        node: Some(node),
    };
    (folder, facts)
}

/// What a check says of facts.
#[cfg(test)]
fn said(facts: &Facts, check: &str) -> Vec<Finding> {
    let findings = examine(facts).findings.into_iter();
    findings.filter(|finding| finding.check == check).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn where_all_is_well_every_check_says_so_once() {
        let (_folder, facts) = healthy();
        let diagnosis = examine(&facts);
        assert_eq!((diagnosis.verdict, diagnosis.opens), (Verdict::Ok, true), "{diagnosis:#?}");
        let mut checks: Vec<_> = diagnosis.findings.iter().map(|it| it.check.as_str()).collect();
        assert!(checks.len() > 15, "{checks:?}");
        checks.sort_unstable();
        let number = checks.len();
        checks.dedup();
        assert_eq!(checks.len(), number);
        assert!(diagnosis.findings.iter().all(|it| it.what_to_do.is_none()));
    }

    #[test]
    fn who_has_the_node_is_named_with_what_to_do() {
        let (_folder, facts) = healthy();
        let shut = |error: HomeError| {
            let opening = Opening::shut(&error);
            let finding = said(&Facts { opening, ..facts.clone() }, "node").remove(0);
            assert_eq!(finding.verdict, Verdict::Wrong);
            finding.what_to_do.unwrap()
        };
        let folder = PathBuf::from("/n");
        let held = HomeError::Held { folder: folder.clone(), process: Some(4711) };
        assert!(shut(held).contains("kill 4711"));
        assert!(shut(HomeError::Missing(folder.clone())).contains("selfsame init"));
        let newer = StoreError::Newer { folder, found: 9, written_by: "9.9".into(), known: 2 };
        assert!(shut(HomeError::Store(newer)).contains("update"));
    }

    #[test]
    fn what_is_found_often_is_counted() {
        let mut report = Report::default();
        let mut check = report.check("c");
        for at in 0..MOST_TOLD + 5 {
            check.look(Some("x"), format!("{at}"), "do");
        }
        check.well("nothing");
        drop(check);
        assert_eq!(report.0.len(), MOST_TOLD + 1);
        assert_eq!(report.0[MOST_TOLD].fact, "there are 5 more of these");
    }
}
