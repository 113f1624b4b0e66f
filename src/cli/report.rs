//! How a synchronisation went, for people and for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::Exit;
use super::output::{self, count, counted, size};
use crate::node::client::Synchronised;
use crate::session::{
    AbortCode, CompressionStats, Failure, Outcome, Phase, PhaseStats, PlanStep, RefusedItem, Tally,
};

/// Sums over all sessions of a synchronisation.
pub(super) struct Report {
    pub(super) outcome: Outcome,
    sessions: u64,
    entries: u64,
    here: Tally,
    there: Tally,
    sent: CompressionStats,
    received: CompressionStats,
    phases: BTreeMap<Phase, PhaseStats>,
    plan: Vec<PlanStep>,
    round_trips: u64,
    elapsed: Duration,
}

impl From<&Synchronised> for Report {
    fn from(done: &Synchronised) -> Self {
        let last = done.last();
        let mut report = Self {
            outcome: last.outcome.clone(),
            sessions: done.reports.len() as u64,
            entries: last.totals.entries,
            here: Tally::default(),
            there: Tally::default(),
            sent: CompressionStats::default(),
            received: CompressionStats::default(),
            phases: BTreeMap::new(),
            plan: Vec::new(),
            round_trips: 0,
            elapsed: Duration::ZERO,
        };
        for one in &done.reports {
            add_tally(&mut report.here, &one.stats.here);
            add_tally(&mut report.there, &one.stats.there);
            report.sent += one.stats.sent;
            report.received += one.stats.received;
            for (phase, stats) in &one.stats.phases {
                add_phase(report.phases.entry(*phase).or_default(), stats);
            }
            report.plan.extend(one.stats.plan.iter().cloned());
            report.round_trips += one.stats.round_trips();
            report.elapsed += one.elapsed;
        }
        report
    }
}

fn add_tally(sum: &mut Tally, one: &Tally) {
    sum.added += one.added;
    sum.updated += one.updated;
    sum.removed += one.removed;
    sum.conflicts += one.conflicts;
}

fn add_phase(sum: &mut PhaseStats, one: &PhaseStats) {
    sum.bytes_sent += one.bytes_sent;
    sum.bytes_received += one.bytes_received;
    sum.messages_sent += one.messages_sent;
    sum.messages_received += one.messages_received;
    sum.keys_found += one.keys_found;
    sum.busy_us += one.busy_us;
}

/// The code with which an outcome ends the process.
pub(super) fn exit(outcome: &Outcome) -> Exit {
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
        AbortCode::Protocol | AbortCode::Lie | AbortCode::RootMismatch => Exit::Unproved,
        AbortCode::Brake(_) => Exit::Brake,
        AbortCode::Cancelled | AbortCode::Deadline | AbortCode::TooSlow | AbortCode::Reset => {
            Exit::Unreachable
        }
        _ => Exit::Failed,
    }
}

/// An outcome in a word and a sentence.
pub(super) fn words(outcome: &Outcome) -> (&'static str, String) {
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

impl Report {
    pub(super) fn bytes(&self) -> (u64, u64) {
        self.phases.values().fold((0, 0), |(sent, received), phase| {
            (sent + phase.bytes_sent, received + phase.bytes_received)
        })
    }

    pub(super) fn refused(&self) -> &[RefusedItem] {
        match &self.outcome {
            Outcome::Incomplete { refused }
            | Outcome::Pulled { refused }
            | Outcome::Pushed { refused } => refused,
            _ => &[],
        }
    }

    /// A few lines for people.
    pub(super) fn text(&self) -> String {
        let (sent, received) = self.bytes();
        let (_, sentence) = words(&self.outcome);
        let mut text = sentence;
        for (place, tally) in [("here", &self.here), ("there", &self.there)] {
            if tally.changed() > 0 {
                text.push_str(&format!(
                    "\n  {place}: {} added, {} updated, {} removed",
                    count(tally.added),
                    count(tally.updated),
                    count(tally.removed)
                ));
                if tally.conflicts > 0 {
                    text.push_str(&format!(", {} in conflict", count(tally.conflicts)));
                }
            }
        }
        for item in self.refused().iter().take(20) {
            let by = if item.by_us { "this node" } else { "the peer" };
            text.push_str(&format!("\n  refused by {by}: {} ({:?})", item.dot, item.reason));
        }
        text.push_str(&format!(
            "\n  {} sent, {} received, {}, {:.3} s",
            size(sent),
            size(received),
            counted(self.round_trips, "round trip", "round trips"),
            self.elapsed.as_secs_f64()
        ));
        text
    }

    /// The plan against what it cost, as a database explains a query.
    pub(super) fn explained(&self) -> String {
        let header = ["PHASE", "SENT", "RECEIVED", "MESSAGES", "KEYS FOUND", "WORK"];
        let mut phases = output::table(&header, &[1, 2, 3, 4, 5]);
        for (phase, stats) in &self.phases {
            phases.add_row([
                phase.to_string(),
                format!("{} B", count(stats.bytes_sent)),
                format!("{} B", count(stats.bytes_received)),
                format!("{} + {}", stats.messages_sent, stats.messages_received),
                count(stats.keys_found),
                format!("{:.1} ms", stats.busy_us as f64 / 1_000.0),
            ]);
        }
        if self.plan.is_empty() {
            return format!("{phases}");
        }
        let mut plan = output::table(&["PLAN", "PREDICTED", "ACTUAL", "WHY"], &[1, 2]);
        for step in &self.plan {
            let actual = self.phases.get(&step.phase).copied().unwrap_or_default();
            plan.add_row([
                step.phase.to_string(),
                format!("{} B", count(step.predicted_bytes)),
                format!("{} B", count(actual.bytes_sent + actual.bytes_received)),
                step.reason.clone(),
            ]);
        }
        format!("{plan}\n{phases}")
    }

    pub(super) fn json(&self) -> Value {
        let (sent, received) = self.bytes();
        let (outcome, detail) = words(&self.outcome);
        let certificate = match &self.outcome {
            Outcome::Complete { certificate: Some(certificate) } => {
                Some(hex::encode(certificate.to_bytes()))
            }
            _ => None,
        };
        let refused = self.refused().iter().map(|item| {
            let reason = format!("{:?}", item.reason);
            json!({"dot": item.dot.to_string(), "reason": reason, "by_us": item.by_us})
        });
        let phases = self.phases.iter().map(|(phase, stats)| {
            json!({
                "phase": phase.name(),
                "bytes_sent": stats.bytes_sent,
                "bytes_received": stats.bytes_received,
                "messages_sent": stats.messages_sent,
                "messages_received": stats.messages_received,
                "keys_found": stats.keys_found,
                "busy_us": stats.busy_us,
            })
        });
        let plan = self.plan.iter().map(|step| {
            let (phase, bytes) = (step.phase.name(), step.predicted_bytes);
            json!({"phase": phase, "reason": step.reason, "predicted_bytes": bytes})
        });
        json!({
            "outcome": outcome,
            "detail": detail,
            "entries": self.entries,
            "sessions": self.sessions,
            "here": tally(&self.here),
            "there": tally(&self.there),
            "bytes_sent": sent,
            "bytes_received": received,
            "round_trips": self.round_trips,
            "elapsed_ms": u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX),
            "values_sent": self.sent,
            "values_received": self.received,
            "phases": phases.collect::<Vec<_>>(),
            "plan": plan.collect::<Vec<_>>(),
            "refused": refused.collect::<Vec<_>>(),
            "certificate": certificate,
        })
    }
}

fn tally(tally: &Tally) -> Value {
    json!({
        "added": tally.added,
        "updated": tally.updated,
        "removed": tally.removed,
        "conflicts": tally.conflicts,
    })
}
