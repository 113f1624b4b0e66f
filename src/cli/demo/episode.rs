//! One meeting of two nodes: its sessions, and what both ends counted.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::DemoError;
use super::voice::{Voice, cell, count, counted, figures, size, time};
use crate::merkle::Certificate;
use crate::net::SessionReport;
use crate::session::{
    AbortCode, CompressionStats, Failure, Outcome, Phase, PhaseStats, PlanStep, SyncStats, Tally,
};

/// Phases that look for differences beyond what is announced.
const SEARCHES: [Phase; 3] = [Phase::BloomExchange, Phase::SketchExchange, Phase::MerkleComparison];

/// What two nodes did when they met.
pub(super) struct Episode {
    pub(super) number: usize,
    /// Who dialled, and who was dialled.
    pub(super) names: [&'static str; 2],
    pub(super) outcome: Outcome,
    pub(super) sessions: usize,
    /// What either end counted over all sessions.
    stats: [SyncStats; 2],
    pub(super) elapsed: Duration,
    /// Bytes of UDP both ways, with the handshake and all that QUIC adds.
    pub(super) datagrams: u64,
    /// Bytes of the values that the fuller side held: what a plain copy would move.
    pub(super) everything: u64,
}

impl Episode {
    pub(super) fn new(
        number: usize,
        names: [&'static str; 2],
        ends: [Vec<SessionReport>; 2],
    ) -> Option<Self> {
        let last = ends[0].last()?;
        let outcome = last.outcome.clone();
        let sessions = ends[0].len();
        let elapsed = ends[0].iter().map(|report| report.elapsed).sum();
        let stats = ends.map(|reports| total(reports.into_iter().map(|report| report.stats)));
        Some(Self { number, names, outcome, sessions, stats, elapsed, datagrams: 0, everything: 0 })
    }

    /// What was signed, if anything was.
    pub(super) fn certificate(&self) -> Option<&Certificate> {
        match &self.outcome {
            Outcome::Complete { certificate } => certificate.as_deref(),
            _ => None,
        }
    }

    pub(super) const fn is_complete(&self) -> bool {
        matches!(self.outcome, Outcome::Complete { .. })
    }

    /// Keys that would have vanished, if the brake stopped it.
    pub(super) fn braked(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Failed(
                Failure::Ours(AbortCode::Brake(keys)) | Failure::Peer(AbortCode::Brake(keys)),
            ) => Some(keys),
            _ => None,
        }
    }

    /// Keys of which the two ends first learned in this phase.
    pub(super) fn found(&self, phase: Phase) -> u64 {
        self.stats.iter().filter_map(|stats| stats.phases.get(&phase)).map(|p| p.keys_found).sum()
    }

    /// Bytes in both directions, as the dialling end counted them.
    pub(super) fn bytes(&self) -> u64 {
        let (sent, received) = self.stats[0].bytes();
        sent + received
    }

    fn bytes_of(&self, phase: Phase) -> u64 {
        let stats = self.stats[0].phases.get(&phase);
        stats.map_or(0, |phase| phase.bytes_sent + phase.bytes_received)
    }

    /// Whether something changed and nothing but announcements was needed to find it.
    pub(super) fn announcement_sufficed(&self) -> bool {
        self.is_complete()
            && self.found(Phase::Announce) > 0
            && SEARCHES.iter().all(|&phase| self.bytes_of(phase) == 0)
    }

    /// Values that came in at either end.
    pub(super) fn values(&self) -> CompressionStats {
        let mut values = self.stats[0].received;
        values += self.stats[1].received;
        values
    }

    /// What changed at the end that dialled, and at the other.
    pub(super) fn tallies(&self) -> [Tally; 2] {
        [self.stats[0].here, self.stats[1].here]
    }

    pub(super) fn round_trips(&self) -> u64 {
        self.stats[0].round_trips()
    }

    /// Tells people.
    pub(super) fn tell(&self, voice: &Voice) -> Result<(), DemoError> {
        voice.json(self)?;
        let [from, to] = self.names;
        let ended = match &self.outcome {
            Outcome::Complete { certificate: None } => {
                let text = format!(
                    "{from} and {to} hold the same, context and all: {}, {}.",
                    counted(self.round_trips(), "round trip", "round trips"),
                    size(self.bytes()),
                );
                voice.space()?;
                return voice.fact(&format!("session {}", self.number), &text);
            }
            Outcome::Complete { certificate: Some(_) } => "equal, and signed by both".to_owned(),
            Outcome::Failed(_) if self.braked().is_some() => "stopped by the brake".to_owned(),
            Outcome::Failed(failure) => format!("failed: {failure}"),
            other => format!("{other:?}"),
        };
        voice.space()?;
        voice.fact(&format!("session {}", self.number), &format!("{from} meets {to}: {ended}."))?;
        voice.space()?;
        self.tell_phases(voice)?;
        voice.space()?;
        self.tell_changes(voice)?;
        if let Some(step) = self.search_planned() {
            voice.fact("planner", &step.reason)?;
        }
        self.tell_cost(voice)
    }

    /// The decision on how to search that weighed most.
    fn search_planned(&self) -> Option<&PlanStep> {
        let steps = self.stats.iter().flat_map(|stats| &stats.plan);
        let searches = steps.filter(|step| SEARCHES.contains(&step.phase));
        searches.max_by_key(|step| step.predicted.bytes)
    }

    fn tell_phases(&self, voice: &Voice) -> Result<(), DemoError> {
        let [from, to] = self.names;
        let mut table = figures(&[
            "phase".into(),
            format!("news to {from}"),
            format!("news to {to}"),
            format!("{from} > {to}"),
            format!("{to} > {from}"),
        ]);
        let mut row = |name: &str, phase: PhaseStats, there: u64| {
            let keys = |found| if found == 0 { String::new() } else { count(found) };
            let cells = [
                name.to_owned(),
                keys(phase.keys_found),
                keys(there),
                size(phase.bytes_sent),
                size(phase.bytes_received),
            ];
            table.add_row(cells.into_iter().enumerate().map(|(at, text)| cell(at, text)));
        };
        let mut sum = (PhaseStats::default(), 0);
        for phase in Phase::ALL {
            let here = self.stats[0].phases.get(&phase).copied().unwrap_or_default();
            let there = self.stats[1].phases.get(&phase).map_or(0, |phase| phase.keys_found);
            if here.messages_sent + here.messages_received + here.keys_found + there == 0 {
                continue;
            }
            row(phase.name(), here, there);
            sum.0.keys_found += here.keys_found;
            sum.0.bytes_sent += here.bytes_sent;
            sum.0.bytes_received += here.bytes_received;
            sum.1 += there;
        }
        row("all", sum.0, sum.1);
        voice.table(&table)
    }

    fn tell_changes(&self, voice: &Voice) -> Result<(), DemoError> {
        for (name, tally) in self.names.iter().zip(self.tallies()) {
            if self.is_complete() {
                voice.fact(name, &changes(&tally))?;
            }
        }
        let values = self.values();
        let arrived = values.values_whole + values.values_delta() + values.values_by_hash;
        if arrived > 0 {
            voice.fact(
                "values",
                &format!(
                    "{} whole, {} as delta, {} by hash; {} in {}",
                    count(values.values_whole),
                    count(values.values_delta()),
                    count(values.values_by_hash),
                    size(values.bytes_before),
                    size(values.bytes_after + values.signature_bytes),
                ),
            )?;
        }
        Ok(())
    }

    fn tell_cost(&self, voice: &Voice) -> Result<(), DemoError> {
        let sessions = match self.sessions {
            1 => String::new(),
            many => format!(", {many} sessions"),
        };
        let text = format!(
            "{} in {}{sessions}, {} ({} of UDP): 1/{} of all {}",
            size(self.bytes()),
            counted(self.round_trips(), "round trip", "round trips"),
            time(self.elapsed),
            size(self.datagrams),
            self.ratio(),
            size(self.everything),
        );
        voice.fact("cost", &text)
    }

    fn ratio(&self) -> String {
        let ratio = self.saving();
        if ratio < 9.95 { format!("{ratio:.1}") } else { count(ratio as u64) }
    }

    /// How many times as much a plain copy would have moved.
    pub(super) fn saving(&self) -> f64 {
        self.everything as f64 / self.bytes().max(1) as f64
    }
}

fn changes(tally: &Tally) -> String {
    let parts = [
        (tally.added, "new"),
        (tally.updated, "updated"),
        (tally.removed, "removed"),
        (tally.conflicts, "of these in conflict"),
    ];
    let told: Vec<String> = parts
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| format!("{} {what}", count(*number)))
        .collect();
    if told.is_empty() { "nothing changed".to_owned() } else { told.join(", ") }
}

fn total(all: impl Iterator<Item = SyncStats>) -> SyncStats {
    let mut sum = SyncStats::default();
    all.for_each(|stats| sum += stats);
    sum
}

impl Serialize for Episode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut phases = Map::new();
        for phase in Phase::ALL {
            let [here, there] = [0, 1].map(|end| self.stats[end].phases.get(&phase).copied());
            let (Some(here), there) = (here, there.unwrap_or_default()) else { continue };
            phases.insert(
                phase.name().to_owned(),
                json!({
                    "bytes_sent": here.bytes_sent,
                    "bytes_received": here.bytes_received,
                    "messages_sent": here.messages_sent,
                    "messages_received": here.messages_received,
                    "keys_found": [here.keys_found, there.keys_found],
                    "busy_us": [here.busy_us, there.busy_us],
                }),
            );
        }
        let values = self.values();
        let plan: Vec<Value> = self
            .stats
            .iter()
            .flat_map(|stats| &stats.plan)
            .map(|step| {
                json!({
                    "phase": step.phase.name(),
                    "reason": step.reason,
                    "predicted_bytes": step.predicted.bytes,
                    "predicted_messages": step.predicted.messages,
                    "predicted_busy_us": step.predicted.work_us,
                })
            })
            .collect();
        json!({
            "session": self.number,
            "nodes": self.names,
            "complete": self.is_complete(),
            "certified": self.certificate().is_some(),
            "braked": self.braked(),
            "sessions": self.sessions,
            "round_trips": self.round_trips(),
            "elapsed_ms": self.elapsed.as_secs_f64() * 1_000.0,
            "bytes": self.bytes(),
            "udp_bytes": self.datagrams,
            "everything_bytes": self.everything,
            "phases": phases,
            "changed": self.tallies(),
            "values": {
                "whole": values.values_whole,
                "delta": values.values_delta(),
                "by_hash": values.values_by_hash,
                "bytes": values.bytes_before,
                "travelled": values.bytes_after + values.signature_bytes,
            },
            "plan": plan,
        })
        .serialize(serializer)
    }
}
