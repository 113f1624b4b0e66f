//! `selfsame status`

use clap::Args;

use super::collection::listed;
use super::error::CliError;
use super::output::{self, count, counted, date_time, print, print_json, size, span};
use super::{Context, Exit};
use crate::api::types::{AgreementText, ClockAheadText, StatusText};
use crate::node::Node;
use crate::node::counts::TrustCounts;
use crate::node::status::{PairStatus, PeerStatus, Status};
use crate::store::EmbeddedStore;

/// Shows how this node is: its collections, and what its daemon knows of its peers
///
/// Of a node that runs (`selfsame serve`): each peer with its connection, clock and last error,
/// and for each collection and peer since when both are known to be equal, how the last session
/// ended and when the next one is due. Without a daemon: the collections. In both cases, from
/// the certificates kept: since when each collection is certified to be equal to that of a peer.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame status
  selfsame status --json | jq '.daemon.pairs[] | select(.equal_since_ms == null)'")]
pub(super) struct ShowStatus {
    /// Prints JSON: {"id", "version", "process", "clock", "collections", "damaged_rows",
    /// "agreements", "distrusted", "daemon"}, the last null if none runs
    #[arg(long)]
    json: bool,
}

impl ShowStatus {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        context.with(|control| {
            let status = control.wait(control.node.status())?;
            if self.json {
                print_json(&status)?;
            } else {
                print(described(&status))?;
            }
            Ok(Exit::Done)
        })
    }
}

fn described(status: &StatusText) -> String {
    let node = &status.node;
    let mut parts = vec![format!("node        {}\nversion     {}", node.id, node.version)];
    match &status.daemon {
        Some(daemon) => {
            parts[0].push_str(&format!("\n{}", running(daemon)));
            parts.extend(peers(daemon));
            parts.extend(collections(daemon));
            parts.extend(pairs(daemon));
        }
        None => {
            parts[0].push_str(
                "\nno daemon runs: `selfsame serve` keeps this node the same as its \
                peers",
            );
            if !status.collections.collections.is_empty() {
                parts.push(listed(&status.collections).to_string());
            }
        }
    }
    parts.extend(agreements(status));
    for one in &status.distrusted {
        let peer = one.name.as_ref().unwrap_or(&one.peer);
        parts.push(format!(
            "{collection}: {peer} has signed contradictory heads of one log, and there are no \
             sessions with it since {since}: see `selfsame certificate evidence {collection}`",
            collection = one.collection,
            since = date_time(one.since_ms),
        ));
    }
    parts.extend(status.clock_ahead.as_ref().map(clock_ahead));
    parts.extend(to_look_at(status.trust));
    parts.extend(scrubs(status));
    for row in &status.collections.damaged_rows {
        let name = row.collection.as_deref().unwrap_or("(no name)");
        parts.push(format!("damaged: {name}: {}", row.damage));
    }
    parts.join("\n\n")
}

/// That no puts are taken, and why.
fn clock_ahead(ahead: &ClockAheadText) -> String {
    format!(
        "local puts are refused: the clock is {} ahead of {} of the {} heard from lately; set it \
         right, and see `selfsame doctor`",
        span(ahead.ahead_ms),
        ahead.peers.len(),
        counted(ahead.heard, "peer", "peers")
    )
}

/// What was counted of what a person should look at, if anything was.
fn to_look_at(trust: TrustCounts) -> Option<String> {
    let TrustCounts {
        brake_stops,
        clones_found,
        same_dot,
        drift_items_refused,
        drift_puts_refused,
    } = trust;
    let counts = [
        (brake_stops, "session stopped by the brake", "sessions stopped by the brake"),
        (clones_found, "writer found to have two users", "writers found to have two users"),
        (same_dot, "dot with two puts", "dots with two puts"),
        (
            drift_items_refused,
            "version of a peer refused as too far ahead",
            "versions of peers refused as too far ahead",
        ),
        (drift_puts_refused, "local put refused for the clock", "local puts refused for the clock"),
    ];
    let told = counts.into_iter().filter(|(number, ..)| *number > 0);
    let told: Vec<_> = told.map(|(number, one, more)| counted(number, one, more)).collect();
    let told = told.join(", ");
    (!told.is_empty()).then(|| format!("since the start: {told}: see `selfsame doctor`"))
}

fn running(daemon: &Status) -> String {
    let sums = &daemon.sessions;
    let mut text = format!(
        "listening   {}\nprocess     {}, for {}\nsessions    {} complete, {} one-way, {} failed, \
         {} interrupted; {} sent, {} received",
        daemon.listen,
        daemon.pid,
        span(daemon.uptime_ms),
        count(sums.complete),
        count(sums.one_way),
        count(sums.failed),
        count(sums.interrupted),
        size(sums.bytes_sent),
        size(sums.bytes_received)
    );
    if !daemon.running.is_empty() {
        let number = daemon.running.len() as u64;
        text.push_str(&format!(
            "\nrunning     {}: see `selfsame sessions`",
            counted(number, "session", "sessions")
        ));
    }
    text
}

/// How the last scrubs went, and how far those are that are not over.
fn scrubs(status: &StatusText) -> Option<String> {
    let header =
        ["SCRUB OF", "LAST ENDED", "FOUND", "MENDED", "NOW", "LOST ENTRIES", "LOST VALUES"];
    let mut table = output::table(&header, &[2, 3, 5, 6]);
    let now_ms = Node::<EmbeddedStore>::now_ms();
    let mut any = false;
    for one in &status.collections.collections {
        let Some(scrub) = &one.scrub else { continue };
        any = true;
        let ended = scrub.last_ended_ms.map(|then| span(now_ms.saturating_sub(then)) + " ago");
        let running = scrub.running.map(|running| {
            let percent = 100 * running.entries / running.of_entries.max(1);
            format!("{} %", percent.min(100))
        });
        table.add_row([
            one.collection.clone(),
            ended.unwrap_or_else(|| "never".into()),
            count(scrub.last_found),
            count(scrub.last_mended),
            running.unwrap_or_else(|| "-".into()),
            count(scrub.rotten_entries),
            count(scrub.lost_values),
        ]);
    }
    any.then(|| table.to_string())
}

/// How a time before now reads; a dash for none.
fn since(daemon: &Status, then: Option<u64>) -> String {
    then.map_or_else(|| "-".into(), |then| span(daemon.clock_ms.saturating_sub(then)))
}

fn until(daemon: &Status, then: Option<u64>) -> String {
    match then {
        None => "-".into(),
        Some(then) if then <= daemon.clock_ms => "now".into(),
        Some(then) => format!("in {}", span(then - daemon.clock_ms)),
    }
}

fn named(daemon: &Status, id: &str) -> String {
    let peer = daemon.peers.iter().find(|peer| peer.id == id);
    let name = peer.and_then(|peer| peer.name.clone());
    name.unwrap_or_else(|| id.chars().take(8).collect())
}

fn peers(daemon: &Status) -> Option<String> {
    let header = ["PEER", "ADDRESS", "CONNECTED FOR", "CLOCK", "NEXT", "LAST ERROR"];
    let mut table = output::table(&header, &[]);
    for peer in &daemon.peers {
        table.add_row([
            named(daemon, &peer.id),
            peer.address.clone().unwrap_or_else(|| "-".into()),
            since(daemon, peer.connected_since_ms),
            clock(peer),
            until(daemon, peer.next_attempt_ms),
            peer.last_error.clone().unwrap_or_default(),
        ]);
    }
    (!daemon.peers.is_empty()).then(|| table.to_string())
}

fn clock(peer: &PeerStatus) -> String {
    let Some(ahead) = peer.clock_ahead_ms else { return "-".into() };
    let apart = ahead.unsigned_abs();
    let text = match ahead {
        _ if apart < 1_000 => "same".into(),
        1.. => format!("{} ahead", span(apart)),
        _ => format!("{} behind", span(apart)),
    };
    if peer.clock_is_off { format!("{text}: too far") } else { text }
}

fn collections(daemon: &Status) -> Option<String> {
    let header = ["COLLECTION", "ENTRIES", "SIZE", "CONFLICTS", "CHANGED", "ROOT"];
    let mut table = output::table(&header, &[1, 2, 3]);
    for one in &daemon.collections {
        let root = match &one.damage {
            Some(damage) => format!("damaged: {damage}"),
            None => one.root.chars().take(16).collect(),
        };
        let changed = one.last_change_ms.map(|_| since(daemon, one.last_change_ms));
        table.add_row([
            one.name.clone(),
            count(one.entries),
            size(one.bytes),
            count(one.conflicts),
            changed.map_or_else(|| "-".into(), |changed| format!("{changed} ago")),
            root,
        ]);
    }
    (!daemon.collections.is_empty()).then(|| table.to_string())
}

fn pairs(daemon: &Status) -> Option<String> {
    let header = ["COLLECTION", "PEER", "EQUAL FOR", "LAST SESSION", "NEXT", "LAST FAILURE"];
    let mut table = output::table(&header, &[]);
    for pair in &daemon.pairs {
        table.add_row([
            pair.collection.clone(),
            named(daemon, &pair.peer),
            since(daemon, pair.equal_since_ms),
            last_session(daemon, pair),
            until(daemon, pair.next_session_ms),
            pair.last_failure.clone().unwrap_or_default(),
        ]);
    }
    (!daemon.pairs.is_empty()).then(|| table.to_string())
}

/// What was certified, and whether it still holds here.
fn agreements(status: &StatusText) -> Option<String> {
    let line = |one: &AgreementText| {
        let peer = one.name.clone().unwrap_or_else(|| one.peer.chars().take(8).collect());
        let (collection, when, number) = (&one.collection, date_time(one.since_ms), one.number);
        if one.equal {
            format!("{collection}: equal to {peer} since {when} (certificate {number})")
        } else {
            format!(
                "{collection}: was equal to {peer} at {when} (certificate {number}), and has \
                 changed here since"
            )
        }
    };
    let lines: Vec<_> = status.agreements.iter().map(line).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn last_session(daemon: &Status, pair: &PairStatus) -> String {
    match &pair.last_outcome {
        Some(outcome) => format!("{outcome}, {} ago", since(daemon, pair.last_ended_ms)),
        None => "-".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_ahead_and_what_was_counted_are_told() {
        let peers = vec!["6f".into(), "70".into()];
        let said = clock_ahead(&ClockAheadText { ahead_ms: 3_600_000, peers, heard: 3 });
        assert!(said.contains("ahead of 2 of the 3 peers heard from lately"), "{said}");
        assert_eq!(to_look_at(TrustCounts::default()), None);
        let trust = TrustCounts { same_dot: 1, drift_puts_refused: 2, ..TrustCounts::default() };
        let said = to_look_at(trust).unwrap_or_default();
        let expected = "since the start: 1 dot with two puts, 2 local puts refused for the clock: ";
        assert!(said.starts_with(expected), "{said}");
    }
}
