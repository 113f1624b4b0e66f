//! Reports of sessions, as they travel.

use serde::{Deserialize, Serialize};

use super::KeyText;
use crate::dots::Dot;
use crate::replica::{Incident, Report};

/// The reports of a collection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReportList {
    /// The latest first.
    pub reports: Vec<ReportText>,
}

/// What a session did that a person may want to look at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReportText {
    /// When, in milliseconds since 1970, by this node's clock.
    pub at_ms: u64,
    /// The peer.
    pub peer: String,
    /// The session.
    pub session: String,
    /// The key.
    #[serde(flatten)]
    pub key: KeyText,
    /// What happened.
    #[serde(flatten)]
    pub incident: IncidentText,
}

/// What happened to a key; versions are named WRITER:COUNTER.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
#[non_exhaustive]
pub enum IncidentText {
    /// Versions with different values stand beside each other.
    ConcurrentUpdate {
        /// Those that were held.
        held: Vec<String>,
        /// Those that came.
        came: Vec<String>,
    },
    /// A put survived a delete that had not seen it.
    DeletedRemotely {
        /// The versions that the peer named as removed; none if this node had deleted the key.
        removed: Vec<String>,
        /// Those that stay.
        survived: Vec<String>,
    },
    /// The versions break a rule of the collection's resolver.
    UniqueConstraintViolation {
        /// What it says.
        why: String,
    },
}

impl From<&Report> for ReportText {
    fn from(report: &Report) -> Self {
        let texts = |dots: &[Dot]| dots.iter().map(ToString::to_string).collect();
        let incident = match &report.incident {
            Incident::ConcurrentUpdate { held, came } => {
                IncidentText::ConcurrentUpdate { held: texts(held), came: texts(came) }
            }
            Incident::DeletedRemotely { removed, survived } => {
                IncidentText::DeletedRemotely { removed: texts(removed), survived: texts(survived) }
            }
            Incident::UniqueConstraintViolation { why } => {
                IncidentText::UniqueConstraintViolation { why: why.clone() }
            }
        };
        Self {
            at_ms: report.at_ms,
            peer: report.peer.to_string(),
            session: report.session.to_string(),
            key: KeyText::from(&report.key),
            incident,
        }
    }
}
