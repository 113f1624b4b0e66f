//! What a session cost and did, by phase.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use super::outcome::Tally;
use super::phase::Phase;
use super::plan::Cost;
pub use crate::delta::CompressionStats;
use crate::replica::ReportCounts;

/// Figures of one phase.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct PhaseStats {
    /// Bytes of frames sent, lengths included.
    pub bytes_sent: u64,
    /// Bytes of frames received, lengths included.
    pub bytes_received: u64,
    /// Frames sent.
    pub messages_sent: u64,
    /// Frames received.
    pub messages_received: u64,
    /// Keys that differed and were first learned of in this phase.
    pub keys_found: u64,
    /// Wall time, in microseconds, spent in this side's own work.
    pub busy_us: u64,
}

/// Figures of a session, as this side saw it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct SyncStats {
    /// By phase.
    pub phases: BTreeMap<Phase, PhaseStats>,
    /// Turns ended by either side.
    pub turns: u64,
    /// Entries of the snapshot.
    pub entries: u64,
    /// Bytes of the snapshot's values.
    pub snapshot_bytes: u64,
    /// What changed here.
    pub here: Tally,
    /// What changed there, as the peer says.
    pub there: Tally,
    /// Values sent.
    pub sent: CompressionStats,
    /// Values received.
    pub received: CompressionStats,
    /// Dots held here that stood for another put there (a clone or a lying writer): of each pair
    /// the lesser put is kept as evidence where it was held.
    pub same_dot: u64,
    /// Siblings of the peer that were refused here for their stamp.
    pub refused_drift: u64,
    /// What a person may want to look at, of what changed here.
    pub reports: ReportCounts,
    /// Entries that the peer named by sketches and that are not held here: ids that met by chance,
    /// or lies.
    pub names_unknown: u64,
    /// Most bytes that the session held in memory at once, by its own account.
    pub memory_bytes: u64,
    /// What the planner decided, in order.
    pub plan: Vec<PlanStep>,
}

impl AddAssign for PhaseStats {
    fn add_assign(&mut self, other: Self) {
        let Self {
            bytes_sent,
            bytes_received,
            messages_sent,
            messages_received,
            keys_found,
            busy_us,
        } = other;
        self.bytes_sent += bytes_sent;
        self.bytes_received += bytes_received;
        self.messages_sent += messages_sent;
        self.messages_received += messages_received;
        self.keys_found += keys_found;
        self.busy_us += busy_us;
    }
}

impl AddAssign for SyncStats {
    /// The figures of a session that followed: what was counted adds up, what the snapshots held
    /// is what they held in the end, and of memory the most is kept.
    fn add_assign(&mut self, later: Self) {
        let Self {
            phases,
            turns,
            entries,
            snapshot_bytes,
            here,
            there,
            sent,
            received,
            same_dot,
            refused_drift,
            reports,
            names_unknown,
            memory_bytes,
            plan,
        } = later;
        for (phase, figures) in phases {
            *self.phase(phase) += figures;
        }
        self.turns += turns;
        (self.entries, self.snapshot_bytes) = (entries, snapshot_bytes);
        self.here += here;
        self.there += there;
        self.sent += sent;
        self.received += received;
        self.same_dot += same_dot;
        self.refused_drift += refused_drift;
        self.reports += reports;
        self.names_unknown += names_unknown;
        self.memory_bytes = self.memory_bytes.max(memory_bytes);
        self.plan.extend(plan);
    }
}

/// One decision of the planner.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PlanStep {
    /// The phase chosen.
    pub phase: Phase,
    /// Why, for a person.
    pub reason: String,
    /// What it was expected to cost.
    pub predicted: Cost,
}

impl SyncStats {
    /// Bytes sent and received.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        self.phases.values().fold((0, 0), |(sent, received), phase| {
            (sent + phase.bytes_sent, received + phase.bytes_received)
        })
    }

    /// Round trips: each turn is half of one, and so are hello and verification.
    #[must_use]
    pub fn round_trips(&self) -> u64 {
        let hello = self.phases.contains_key(&Phase::Hello);
        let verify = self.phases.get(&Phase::Verification).is_some_and(|p| p.messages_sent > 0);
        u64::from(hello) + self.turns.div_ceil(2) + u64::from(verify) * 2
    }

    pub(crate) fn phase(&mut self, phase: Phase) -> &mut PhaseStats {
        self.phases.entry(phase).or_default()
    }
}
