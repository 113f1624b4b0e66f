//! How a synchronisation went, in words and figures.

use std::time::Duration;

use super::Exit;
use super::types::{PhaseText, PlanText, RefusedText, Report, ReportText};
use crate::hash::Root;
use crate::node::client::Synchronised;
use crate::node::figures::counted;
use crate::session::{
    AbortCode, Failure, Outcome, Phase, PhaseStats, PlanStep, RefusedItem, SyncStats,
};

/// Sums over all sessions of a synchronisation; the root is that of this node in the end.
pub(super) fn report(done: &Synchronised, root: Option<Root>) -> Report {
    let outcome = &done.last().outcome;
    let (word, mut detail) = words(outcome);
    let kept = done.last().kept.as_ref();
    if let Some(Err(error)) = kept {
        detail.push_str(&format!("; the certificate could not be kept: {error}"));
    }
    let mut stats = SyncStats::default();
    done.reports.iter().for_each(|one| stats += one.stats.clone());
    let elapsed: Duration = done.reports.iter().map(|one| one.elapsed).sum();
    let (bytes_sent, bytes_received) = stats.bytes();
    Report {
        outcome: word.to_owned(),
        detail,
        entries: done.last().totals.entries,
        sessions: done.reports.len() as u64,
        here: stats.here,
        there: stats.there,
        bytes_sent,
        bytes_received,
        round_trips: done.reports.iter().map(|one| one.stats.round_trips()).sum(),
        memory_bytes: stats.memory_bytes,
        elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        values_sent: stats.sent,
        values_received: stats.received,
        phases: stats.phases.iter().map(|(phase, one)| phase_text(*phase, one)).collect(),
        plan: stats.plan.iter().map(plan_text).collect(),
        repaired: done.repaired,
        same_dot: stats.same_dot,
        reports: stats.reports,
        reported: reported(done),
        refused: refused(outcome).iter().map(refused_text).collect(),
        certificate: certificate(outcome),
        certificate_number: kept.and_then(|kept| kept.as_ref().ok()).copied(),
        root: root.map(|root| root.to_string()),
        truncated: matches!(outcome, Outcome::Compared { truncated: true, .. }),
        exit: exit(outcome).code(),
    }
}

/// Most reports that are told; all are counted, and a collection keeps more of them.
const MAX_REPORTED: usize = 100;

fn reported(done: &Synchronised) -> Vec<ReportText> {
    let reports = done.reports.iter().flat_map(|one| &one.reports);
    reports.take(MAX_REPORTED).map(ReportText::from).collect()
}

fn plan_text(step: &PlanStep) -> PlanText {
    PlanText {
        phase: step.phase.name().to_owned(),
        reason: step.reason.clone(),
        predicted_bytes: step.predicted.bytes,
        predicted_messages: step.predicted.messages,
        predicted_busy_us: step.predicted.work_us,
    }
}

fn certificate(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Complete { certificate: Some(certificate) } => {
            Some(hex::encode(certificate.to_bytes()))
        }
        _ => None,
    }
}

fn refused(outcome: &Outcome) -> &[RefusedItem] {
    match outcome {
        Outcome::Incomplete { refused }
        | Outcome::Pulled { refused }
        | Outcome::Pushed { refused } => refused,
        _ => &[],
    }
}

fn refused_text(item: &RefusedItem) -> RefusedText {
    RefusedText {
        dot: item.dot.to_string(),
        reason: format!("{:?}", item.reason),
        by_us: item.by_us,
    }
}

fn phase_text(phase: Phase, stats: &PhaseStats) -> PhaseText {
    PhaseText {
        phase: phase.name().to_owned(),
        bytes_sent: stats.bytes_sent,
        bytes_received: stats.bytes_received,
        messages_sent: stats.messages_sent,
        messages_received: stats.messages_received,
        keys_found: stats.keys_found,
        busy_us: stats.busy_us,
    }
}

/// The code with which an outcome ends the process.
fn exit(outcome: &Outcome) -> Exit {
    match outcome {
        Outcome::Complete { .. } => Exit::Done,
        Outcome::Compared { differences, truncated: false } if differences.is_empty() => Exit::Done,
        Outcome::Compared { .. } => Exit::Differs,
        Outcome::Pulled { refused } | Outcome::Pushed { refused } if refused.is_empty() => {
            Exit::Done
        }
        Outcome::Incomplete { .. }
        | Outcome::Pulled { .. }
        | Outcome::Pushed { .. }
        | Outcome::Partial => Exit::Partial,
        Outcome::Interrupted => Exit::Unreachable,
        Outcome::Failed(failure) => of_failure(failure),
    }
}

fn of_failure(failure: &Failure) -> Exit {
    let code = match failure {
        Failure::Ours(AbortCode::Cancelled) => return Exit::Interrupted,
        Failure::Peer(code) | Failure::Ours(code) => code,
        Failure::Lie { .. } => return Exit::Unproved,
        _ => return Exit::Failed,
    };
    match code {
        AbortCode::UnknownCollection
        | AbortCode::AlgorithmMismatch
        | AbortCode::PolicyMismatch
        | AbortCode::Version
        | AbortCode::ReadOnly
        | AbortCode::Busy { .. }
        | AbortCode::Duplicate => Exit::Refused,
        AbortCode::Contradiction if matches!(failure, Failure::Peer(_)) => Exit::Refused,
        AbortCode::Protocol
        | AbortCode::Lie
        | AbortCode::RootMismatch
        | AbortCode::Contradiction => Exit::Unproved,
        AbortCode::Brake(_) => Exit::Brake,
        AbortCode::Cancelled | AbortCode::Deadline | AbortCode::TooSlow | AbortCode::Reset => {
            Exit::Unreachable
        }
        _ => Exit::Failed,
    }
}

/// An outcome in a word and a sentence.
pub(crate) fn words(outcome: &Outcome) -> (&'static str, String) {
    match outcome {
        Outcome::Complete { certificate: Some(_) } => {
            ("complete", "both hold the same now, and both have signed that".into())
        }
        Outcome::Complete { certificate: None } => {
            ("complete", "both hold the same; there was nothing to do".into())
        }
        Outcome::Incomplete { refused } => {
            ("incomplete", format!("the same, but for {}", refusals(refused)))
        }
        Outcome::Pulled { refused } if refused.is_empty() => {
            ("pulled", "this node now holds all that the peer holds".into())
        }
        Outcome::Pulled { refused } => (
            "pulled",
            format!("this node now holds what the peer holds, but for {}", refusals(refused)),
        ),
        Outcome::Pushed { refused } if refused.is_empty() => {
            ("pushed", "the peer now holds all that this node holds".into())
        }
        Outcome::Pushed { refused } => (
            "pushed",
            format!("the peer now holds what this node holds, but for {}", refusals(refused)),
        ),
        Outcome::Compared { differences, truncated: false } if differences.is_empty() => {
            ("compared", "no differences".into())
        }
        Outcome::Compared { differences, truncated } => {
            let number = counted(differences.len() as u64, "difference", "differences");
            ("compared", if *truncated { format!("at least {number}") } else { number })
        }
        Outcome::Partial => {
            ("partial", "what was found was applied, but more differs: run it again".into())
        }
        Outcome::Interrupted => (
            "interrupted",
            "the connection was lost: what was applied is kept; run it again".into(),
        ),
        Outcome::Failed(Failure::Ours(AbortCode::UnknownCollection | AbortCode::ReadOnly)) => (
            "failed",
            "the session was ended: what the peer may do here was taken back meanwhile \
             (see `selfsame peer ls`)"
                .into(),
        ),
        Outcome::Failed(Failure::Ours(AbortCode::Cancelled)) => {
            ("stopped", "stopped: what was applied is kept; run it again".into())
        }
        Outcome::Failed(failure) => ("failed", failure.to_string()),
    }
}

fn refusals(refused: &[RefusedItem]) -> String {
    counted(refused.len() as u64, "refused item", "refused items")
}
