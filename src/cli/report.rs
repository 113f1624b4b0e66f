//! How a synchronisation went, for people and for programs.

use serde_json::{Value, json};

use super::output::{self, count, counted, size};
use crate::api::types::{PhaseText, Report};
use crate::replica::ReportCounts;

/// A few lines for people.
pub(super) fn text(report: &Report) -> String {
    let mut text = report.detail.clone();
    for (place, tally) in [("here", &report.here), ("there", &report.there)] {
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
    if report.repaired > 0 {
        let values = counted(report.repaired, "value", "values");
        text.push_str(&format!("\n  {values} whose bytes were lost here came again"));
    }
    text.push_str(&told(report.reports));
    if report.same_dot > 0 {
        let writes = counted(report.same_dot, "write", "writes");
        text.push_str(&format!(
            "\n  {writes} here had the number of another one there, as a copied or resumed machine \
             leaves them: of each two the same one stayed at both ends, the other is kept as evidence"
        ));
    }
    for item in report.refused.iter().take(20) {
        let by = if item.by_us { "this node" } else { "the peer" };
        text.push_str(&format!("\n  refused by {by}: {} ({})", item.dot, item.reason));
    }
    text.push_str(&format!(
        "\n  {} sent, {} received, {}, {:.3} s",
        size(report.bytes_sent),
        size(report.bytes_received),
        counted(report.round_trips, "round trip", "round trips"),
        report.elapsed_ms as f64 / 1_000.0
    ));
    text
}

/// What a person may want to look at.
fn told(reports: ReportCounts) -> String {
    if reports.total() == 0 {
        return String::new();
    }
    let kinds = [
        (reports.concurrent_updates, "key came", "keys came", "into conflict"),
        (reports.deleted_remotely, "write", "writes", "survived a delete that had not seen it"),
        (reports.violations, "violation", "violations", "of a rule of the resolver"),
    ];
    let kinds = kinds.into_iter().filter(|(number, ..)| *number > 0);
    let kinds: Vec<String> = kinds
        .map(|(number, one, more, what)| format!("{} {what}", counted(number, one, more)))
        .collect();
    format!("\n  {}: see `selfsame conflicts COLLECTION --reports`", kinds.join(", "))
}

fn millis(micros: u64) -> String {
    format!("{:.1} ms", micros as f64 / 1_000.0)
}

/// The plan against what it cost, as a database explains a query.
pub(super) fn explained(report: &Report) -> String {
    let header = ["PHASE", "SENT", "RECEIVED", "MESSAGES", "KEYS FOUND", "WORK"];
    let mut phases = output::table(&header, &[1, 2, 3, 4, 5]);
    for phase in &report.phases {
        phases.add_row([
            phase.phase.clone(),
            format!("{} B", count(phase.bytes_sent)),
            format!("{} B", count(phase.bytes_received)),
            format!("{} + {}", phase.messages_sent, phase.messages_received),
            count(phase.keys_found),
            millis(phase.busy_us),
        ]);
    }
    let memory = format!("in memory here at most: {}", size(report.memory_bytes));
    if report.plan.is_empty() {
        return format!("{phases}\n{memory}");
    }
    let header = ["PLAN", "BYTES", "ACTUAL", "MESSAGES", "ACTUAL", "WORK", "ACTUAL", "WHY"];
    let mut plan = output::table(&header, &[1, 2, 3, 4, 5, 6]);
    for step in &report.plan {
        let actual = report.phases.iter().find(|phase| phase.phase == step.phase);
        let of = |figure: fn(&PhaseText) -> u64| actual.map_or(0, figure);
        plan.add_row([
            step.phase.clone(),
            format!("{} B", count(step.predicted_bytes)),
            format!("{} B", count(of(|phase| phase.bytes_sent + phase.bytes_received))),
            count(step.predicted_messages),
            count(of(|phase| phase.messages_sent + phase.messages_received)),
            millis(step.predicted_busy_us),
            millis(of(|phase| phase.busy_us)),
            step.reason.clone(),
        ]);
    }
    format!("{plan}\n{phases}\n{memory}")
}

/// The report for programs.
pub(super) fn json(report: &Report) -> Value {
    let mut json = json!(report);
    if let Some(fields) = json.as_object_mut() {
        // that is what the command ends with
        fields.remove("exit");
    }
    json
}
