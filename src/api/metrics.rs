//! Metrics: the node's figures as OpenMetrics text, and the same as JSON.
//!
//! All is put together from what is in memory when it is asked for; nothing is registered
//! anywhere before. What has no label of its own, since there is too much of it, is put together
//! under `other`.

mod exposition;
mod families;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use self::exposition::Exposition;
use self::families as of;
use super::Host;
use super::body::{answer, blocking, of_media};
use super::error::ApiError;
use super::router::Asked;
use super::types::MetricFigure;
use crate::node::Node;
use crate::node::counts::TrustCounts;
use crate::node::facts::CollectionFacts;
use crate::node::manager::SessionManager;
use crate::node::status::{PairStatus, Status};
use crate::node::tally::Durations;
use crate::replica::RefusalReason;
use crate::store::{EmbeddedStore, Store as _};

/// Collections that have labels of their own: about 15 lines of text each. The first by name.
pub(super) const LABELLED_COLLECTIONS: usize = 100;
/// Peers that have: four lines each. The first by id.
pub(super) const LABELLED_PEERS: usize = 100;
/// Pairs of both that have: four lines each.
pub(super) const LABELLED_PAIRS: usize = 1_000;
/// The label of all others.
const OTHER: &str = "other";
/// The media type of the text.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// In which form metrics are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Form {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct MetricsQuery {
    format: Form,
}

pub(super) async fn metrics(
    State(host): State<Arc<Host>>,
    Asked(asked): Asked<MetricsQuery>,
) -> Result<Response, ApiError> {
    let all = blocking(move || Ok(gathered(&host))).await?;
    match asked.format {
        Form::Json => answer(&all.to_list()),
        Form::Text => {
            let text = all.into_text().map_err(|_| ApiError::Fallen)?;
            Ok(of_media(OPEN_METRICS, Body::from(text)))
        }
    }
}

fn gathered(host: &Host) -> Exposition {
    let node = host.node();
    let daemon = host.daemon().ok().map(|of| of.daemon.status());
    let mut all = Exposition::default();
    of_node(&mut all, &node);
    if let Ok(sessions) = host.sessions() {
        of_sessions(&mut all, sessions);
        of_trust(&mut all, &node);
    }
    let names: Vec<String> =
        node.replica.collections().iter().map(|one| one.name().to_string()).collect();
    let named: BTreeSet<&str> = first(names.iter().map(String::as_str), LABELLED_COLLECTIONS);
    for collection in node.replica.collections() {
        let facts = CollectionFacts::of(&collection);
        let name = facts.name.to_string();
        of_collection(&mut all, labelled(&named, &name), &facts);
    }
    if let Some(daemon) = &daemon {
        of_daemon(&mut all, daemon, &named);
    }
    all
}

/// The first of them. What is called as the others are is one of these.
fn first<'a>(names: impl Iterator<Item = &'a str>, most: usize) -> BTreeSet<&'a str> {
    names.filter(|name| *name != OTHER).take(most).collect()
}

fn labelled<'a>(named: &BTreeSet<&str>, name: &'a str) -> &'a str {
    if named.contains(name) { name } else { OTHER }
}

fn of_node(all: &mut Exposition, node: &Node<EmbeddedStore>) {
    let (id, limits) = (node.id().to_string(), node.replica.limits());
    all.put(&of::BUILD, &[env!("CARGO_PKG_VERSION"), short(&id)], 1);
    all.put(&of::STORE_FAILED, &[], node.replica.store().failure().is_some());
    all.put(&of::DAMAGED_ROWS, &[], node.replica.damaged_rows().len() as u64);
    all.put(&of::LIMIT_WRITERS, &[], limits.max_writers as u64);
    all.put(&of::LIMIT_EXCEPTIONS, &[], limits.max_exceptions);
}

fn of_sessions(all: &mut Exposition, sessions: &SessionManager) {
    let (sums, tally, running) = (sessions.counters(), sessions.tally(), sessions.running());
    all.put(&of::OPENED, &["here"], sums.opened_here);
    all.put(&of::OPENED, &["peer"], sums.opened_by_peers);
    // those that a rule may look for are there from the start
    for outcome in ["complete", "incomplete", "partial", "interrupted", "failed"] {
        all.put(&of::ENDED, &[outcome], 0);
    }
    for (outcome, ended) in &tally.ended {
        all.put(&of::ENDED, &[outcome], *ended);
    }
    all.put(&of::CUT, &["too_slow"], sums.too_slow);
    all.put(&of::CUT, &["too_large"], sums.too_large);
    all.put(&of::TURNED_AWAY, &[], sums.turned_away);
    all.put(&of::RUNNING, &[], running.len() as u64);
    all.put(&of::MEMORY, &[], running.iter().map(|one| one.memory_bytes).sum::<u64>());
    all.put(&of::SENT, &[], sums.bytes_sent);
    all.put(&of::RECEIVED, &[], sums.bytes_received);
    all.put(&of::CHANGED, &["here"], tally.changed_here);
    all.put(&of::CHANGED, &["peer"], tally.changed_there);
    for (&(reason, by_us), &items) in &tally.refused {
        let by = if by_us { "here" } else { "peer" };
        all.put(&of::REFUSED, &[reason_word(reason), by], items);
    }
    let reports = tally.reports;
    all.put(&of::REPORTS, &["concurrent_update"], reports.concurrent_updates);
    all.put(&of::REPORTS, &["deleted_remotely"], reports.deleted_remotely);
    all.put(&of::REPORTS, &["constraint_violation"], reports.violations);
    all.put_histogram(&of::DURATION, histogram(&tally.durations));
}

fn of_trust(all: &mut Exposition, node: &Node<EmbeddedStore>) {
    let TrustCounts {
        brake_stops,
        clones_found,
        same_dot,
        drift_items_refused,
        drift_puts_refused,
    } = node.counts();
    all.put(&of::BRAKE_STOPS, &[], brake_stops);
    all.put(&of::CLONES_FOUND, &[], clones_found);
    all.put(&of::SAME_DOT_FOUND, &[], same_dot);
    all.put(&of::DRIFT_ITEMS, &[], drift_items_refused);
    all.put(&of::DRIFT_PUTS, &[], drift_puts_refused);
    let ahead_ms = node.judge_clock().map_or(0, |ahead| ahead.ahead_ms);
    all.put(&of::CLOCK_AHEAD, &[], seconds(ahead_ms));
}

fn histogram(durations: &Durations) -> MetricFigure {
    let in_seconds = |(bound, count): (Option<u64>, u64)| (bound.map(seconds), count);
    MetricFigure::Histogram {
        sum: seconds(durations.sum_ms()),
        count: durations.count(),
        buckets: durations.buckets().map(in_seconds).collect(),
    }
}

const fn reason_word(reason: RefusalReason) -> &'static str {
    match reason {
        RefusalReason::Drift => "drift",
        RefusalReason::ValueSize => "value_size",
        RefusalReason::Siblings => "siblings",
        RefusalReason::SameDot => "same_dot",
        RefusalReason::Unavailable => "unavailable",
    }
}

fn of_collection(all: &mut Exposition, label: &str, facts: &CollectionFacts) {
    let label = &[label];
    all.put(&of::DAMAGED, label, facts.damage.is_some());
    if facts.damage.is_some() {
        return;
    }
    all.put(&of::ENTRIES, label, facts.entries);
    all.put(&of::EXTRA_VERSIONS, label, facts.extra_versions());
    all.put(&of::VALUE_BYTES, label, facts.bytes);
    all.put(&of::HISTORY_BYTES, label, facts.history_bytes);
    all.put(&of::SKETCH_BYTES, label, facts.sketch_bytes);
    all.put(&of::SKETCHES, label, facts.has_sketches);
    all.put(&of::WRITERS, label, facts.writers);
    all.put(&of::EXCEPTIONS, label, facts.exceptions);
    if let Some(latest_ms) = facts.latest_ms {
        all.put(&of::LAST_CHANGE, label, seconds(latest_ms));
    }
    let (scrub, last) = (&facts.scrub, facts.scrub.last.unwrap_or_default());
    all.put(&of::ROTTEN, label, scrub.rotten_entries);
    all.put(&of::LOST, label, scrub.lost_values);
    all.put(&of::SCRUB_END, label, seconds(scrub.last_ended_ms.unwrap_or_default()));
    all.put(&of::SCRUB_FOUND, label, last.found);
    all.put(&of::SCRUB_MENDED, label, last.mended);
    all.put(&of::DISTRUSTED, label, facts.distrusted.len() as u64);
    all.put(&of::CLONES, label, facts.clones.len() as u64);
    all.put(&of::SAME_DOT, label, facts.same_dot);
}

fn of_daemon(all: &mut Exposition, daemon: &Status, collections: &BTreeSet<&str>) {
    all.put(&of::UPTIME, &[], seconds(daemon.uptime_ms));
    all.put(&of::PEERS, &[], daemon.peers.len() as u64);
    let connected = daemon.peers.iter().filter(|peer| peer.connected_since_ms.is_some());
    all.put(&of::PEERS_CONNECTED, &[], connected.count() as u64);
    let names = names_of_peers(daemon);
    for peer in &daemon.peers {
        let label = &[name_of(&names, &peer.id)];
        all.put(&of::PEER_CONNECTED, label, peer.connected_since_ms.is_some());
        all.put(&of::PEER_FAILURES, label, peer.failures);
        all.put(&of::PEER_FAULTS, label, peer.faults);
        if let Some(answered_ms) = peer.last_answer_ms {
            all.put(&of::PEER_ANSWER, label, seconds(answered_ms));
        }
        if let Some(ahead_ms) = peer.clock_ahead_ms {
            all.put(&of::PEER_CLOCK, label, ahead_ms as f64 / 1_000.0);
        }
    }
    for (at, pair) in daemon.pairs.iter().enumerate() {
        let peer = name_of(&names, &pair.peer);
        let collection = labelled(collections, &pair.collection);
        let own = at < LABELLED_PAIRS;
        of_pair(all, if own { [peer, collection] } else { [OTHER, OTHER] }, pair);
    }
}

fn of_pair(all: &mut Exposition, labels: [&str; 2], pair: &PairStatus) {
    let last_equal_ms = pair.last_equal_ms.unwrap_or_default();
    all.put(&of::PAIR_EQUAL, &labels, pair.equal_since_ms.is_some());
    all.put(&of::PAIR_LAST_EQUAL, &labels, seconds(last_equal_ms));
    all.put(&of::PAIR_FAILURES, &labels, pair.failures);
    all.put(&of::PAIR_BRAKED, &labels, pair.braked_keys.unwrap_or_default());
}

/// How the labels call peers, by id: as people do, else by the first digits.
fn names_of_peers(daemon: &Status) -> BTreeMap<&str, &str> {
    let mut taken = BTreeSet::from([OTHER]);
    let mut names = BTreeMap::new();
    for peer in daemon.peers.iter().take(LABELLED_PEERS) {
        let name = peer.name.as_deref().unwrap_or_else(|| short(&peer.id));
        // whose name another one has is called by the whole id
        let name = if taken.contains(name) { peer.id.as_str() } else { name };
        taken.insert(name);
        names.insert(peer.id.as_str(), name);
    }
    names
}

fn name_of<'a>(names: &BTreeMap<&str, &'a str>, id: &str) -> &'a str {
    names.get(id).copied().unwrap_or(OTHER)
}

fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

fn seconds(millis: u64) -> f64 {
    millis as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::node::status::PeerStatus;

    fn figure(all: &Exposition, name: &str, label: &str) -> f64 {
        let list = all.to_list();
        let metric = list.metrics.iter().find(|metric| metric.name == name).unwrap();
        let mut of_label =
            metric.samples.iter().filter(|one| one.labels.values().all(|it| it == label));
        match &of_label.next().unwrap().figure {
            MetricFigure::Value(number) => number.real(),
            MetricFigure::Histogram { .. } => f64::NAN,
        }
    }

    #[test]
    fn labels_are_bounded_and_the_rest_is_summed_up() {
        let mut daemon = Status::default();
        for at in 0..LABELLED_PEERS + 7 {
            let peer = PeerStatus {
                id: format!("{at:064}"),
                name: Some(format!("peer {at}")),
                failures: 1,
                ..PeerStatus::default()
            };
            for collection in 0..11 {
                daemon.pairs.push(PairStatus {
                    peer: peer.id.clone(),
                    collection: format!("c{collection}"),
                    failures: 2,
                    ..PairStatus::default()
                });
            }
            daemon.peers.push(peer);
        }
        let names: Vec<String> = (0..11).map(|at| format!("c{at}")).collect();
        let named = first(names.iter().map(String::as_str), LABELLED_COLLECTIONS);
        let mut all = Exposition::default();
        of_daemon(&mut all, &daemon, &named);
        let pairs = daemon.pairs.len();
        let list = all.to_list();
        let samples = |name: &str| {
            list.metrics.iter().find(|metric| metric.name == name).unwrap().samples.len()
        };
        assert_eq!(samples("selfsame_peer_failures_total"), LABELLED_PEERS + 1);
        assert_eq!(samples("selfsame_pair_failures_total"), LABELLED_PAIRS + 1);
        assert_eq!(figure(&all, "selfsame_peer_failures_total", OTHER), 7.0);
        let others = 2.0 * (pairs - LABELLED_PAIRS) as f64;
        assert_eq!(figure(&all, "selfsame_pair_failures_total", OTHER), others);
    }

    #[test]
    fn what_is_called_other_is_among_the_others() {
        let names = ["a", OTHER, "b", "c"];
        let named = first(names.into_iter(), 2);
        assert_eq!(names.map(|name| labelled(&named, name)), ["a", OTHER, "b", OTHER]);
        let peer = |id: &str, name: Option<&str>| PeerStatus {
            id: id.repeat(64),
            name: name.map(str::to_owned),
            ..PeerStatus::default()
        };
        let peers = vec![peer("a", Some("bbbbbbbb")), peer("b", None), peer("c", Some(OTHER))];
        let daemon = Status { peers, ..Status::default() };
        let names = names_of_peers(&daemon);
        let called = ["a", "b", "c"].map(|id| name_of(&names, &id.repeat(64)).len());
        assert_eq!(called, [8, 64, 64], "nobody has the name of another");
    }
}
