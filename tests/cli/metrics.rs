//! `selfsame metrics`: the text is OpenMetrics, and the figures are those of the node.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use selfsame::node::Node;
use selfsame::store::EmbeddedStore;
use selfsame::types::{CollectionName, Key};

use super::node::TestNode;
use super::openmetrics::{Metric, parsed};
use super::status::Daemon;

both_ways!(
    a_node_gives_its_figures_to_scrapers,
    names_of_collections_are_escaped,
    what_is_lost_or_damaged_shows_in_the_figures,
);

type Metrics = BTreeMap<String, Metric>;

pub(crate) fn metrics(node: &TestNode) -> Metrics {
    parsed(node.run(["metrics"]).ended(0).text())
}

/// The one sample of a metric with these labels.
#[track_caller]
pub(crate) fn value(metrics: &Metrics, name: &str, labels: &[(&str, &str)]) -> f64 {
    let wanted: BTreeMap<String, String> =
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let metric = metrics.get(name).unwrap_or_else(|| panic!("no {name}"));
    let found = metric.samples.iter().find(|(_, labels, _)| *labels == wanted);
    found.unwrap_or_else(|| panic!("{name} {labels:?}: {metric:?}")).2
}

const OF_C: &[(&str, &str)] = &[("collection", "c")];
const OF_PAIR: [(&str, &str); 2] = [("collection", "c"), ("peer", "anna")];
/// Daemons that turn to each other every second.
pub(crate) const OFTEN: &str = "[sync]\ninterval_s = 1\n";

fn a_node_gives_its_figures_to_scrapers() {
    let node = TestNode::with_collection(&[]);
    for (key, bytes) in [("a", "12345"), ("b", "123"), ("a", "1234567")] {
        node.run(["put", "c", key, bytes]).ended(0);
    }
    let now = metrics(&node);
    for (name, figure) in [
        ("selfsame_collection_entries", 2.0),
        ("selfsame_collection_extra_versions", 0.0),
        ("selfsame_collection_value_bytes", 10.0),
        ("selfsame_collection_history_bytes", 5.0),
        ("selfsame_collection_damaged", 0.0),
        ("selfsame_collection_scrub_end_timestamp_seconds", 0.0),
    ] {
        assert_eq!(value(&now, name, OF_C), figure, "{name}");
    }
    assert!(value(&now, "selfsame_collection_writers", OF_C) >= 1.0);
    assert_eq!(value(&now, "selfsame_limit_writers", &[]), 65_536.0);
    assert_eq!(value(&now, "selfsame_store_failed", &[]), 0.0);
    let (version, id) = (env!("CARGO_PKG_VERSION"), node.id());
    let build = [("version", version), ("node", &id[..8])];
    assert_eq!(value(&now, "selfsame_build_info", &build), 1.0);
    node.run(["scrub"]).ended(0);
    let now = metrics(&node);
    let ended = value(&now, "selfsame_collection_scrub_end_timestamp_seconds", OF_C);
    assert!(ended > 1_600_000_000.0, "{ended}");
    // the same as JSON
    let json = node.run(["metrics", "--json"]).ended(0).json();
    let all = json["metrics"].as_array().unwrap();
    let of = |name: &str| all.iter().find(|one| one["name"] == name).unwrap();
    let entries = of("selfsame_collection_entries");
    assert_eq!(
        entries["samples"][0],
        serde_json::json!({"labels": {"collection": "c"}, "value": 2})
    );
    assert_eq!(entries["type"], "gauge");
    let names = all.iter().map(|one| one["name"].as_str().unwrap().trim_end_matches("_total"));
    assert!(names.eq(parsed_names(&node)), "both have all metrics, in one order");
}

fn parsed_names(node: &TestNode) -> impl Iterator<Item = String> {
    let ran = node.run(["metrics"]).ended(0);
    let lines: Vec<String> = ran.text().lines().map(str::to_owned).collect();
    lines.into_iter().filter_map(|line| {
        let rest = line.strip_prefix("# TYPE ")?;
        Some(rest.split(' ').next()?.to_owned())
    })
}

fn names_of_collections_are_escaped() {
    let node = TestNode::with_collection(&[]);
    let odd = "a \"quoted\"\\ na\nme";
    node.run(["collection", "create", odd]).ended(0);
    node.run(["collection", "create", "other"]).ended(0);
    let now = metrics(&node);
    for name in [odd, "other", "c"] {
        let entries = value(&now, "selfsame_collection_entries", &[("collection", name)]);
        assert_eq!(entries, 0.0, "{name}");
    }
}

fn what_is_lost_or_damaged_shows_in_the_figures() {
    let node = TestNode::with_collection(&[]);
    for at in 0..20 {
        node.run(["put", "c", &format!("key {at}"), "value"]).ended(0);
    }
    super::scrub::rot(&node, selfsame::store::Table::Values, 3);
    node.run(["scrub", "c"]).ended(1);
    let now = metrics(&node);
    assert_eq!(value(&now, "selfsame_collection_lost_values", OF_C), 1.0);
    assert_eq!(value(&now, "selfsame_collection_scrub_found", OF_C), 1.0);
    assert_eq!(value(&now, "selfsame_collection_scrub_mended", OF_C), 0.0);
    super::scrub::rot(&node, selfsame::store::Table::Heads, 0);
    let now = metrics(&node);
    assert_eq!(value(&now, "selfsame_collection_damaged", OF_C), 1.0);
    assert!(now["selfsame_collection_entries"].samples.is_empty());
}

/// What a metric of a daemon says once it says so.
#[track_caller]
pub(crate) fn waited_for(
    node: &TestNode,
    name: &str,
    labels: &[(&str, &str)],
    wanted: impl Fn(f64) -> bool,
) -> f64 {
    let began = Instant::now();
    loop {
        let now = metrics(node);
        let wanted_labels: BTreeMap<String, String> =
            labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let found = now[name].samples.iter().find(|(_, labels, _)| *labels == wanted_labels);
        if let Some((_, _, value)) = found.filter(|(_, _, value)| wanted(*value)) {
            return *value;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{name} {labels:?}: {:?}", now[name]);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Two nodes that know each other, with daemons; the first is called `anna` by the second.
#[cfg(unix)]
pub(crate) fn pair(settings: [&str; 2]) -> ([TestNode; 2], [Daemon; 2]) {
    let (a, b) = (TestNode::with_collection(&[]), TestNode::with_collection(&[]));
    for (node, settings) in [&a, &b].into_iter().zip(settings) {
        node.configure(settings);
    }
    let of_a = Daemon::start(&a);
    let invited = a.run(["peer", "invite", "--address", &of_a.place, "--name", "bert"]).ended(0);
    b.run(["peer", "join", invited.text().trim(), "--name", "anna"]).ended(0);
    let of_b = Daemon::start(&b);
    ([a, b], [of_a, of_b])
}

#[cfg(unix)]
#[test]
fn a_daemon_counts_its_sessions_and_peers() {
    let ([a, b], _daemons) = pair([OFTEN; 2]);
    a.run(["put", "c", "k", "value"]).ended(0);
    waited_for(&b, "selfsame_collection_entries", OF_C, |entries| entries == 1.0);
    waited_for(&b, "selfsame_pair_equal", &OF_PAIR, |equal| equal == 1.0);
    let now = metrics(&b);
    assert!(value(&now, "selfsame_pair_last_equal_timestamp_seconds", &OF_PAIR) > 1.6e9);
    assert_eq!(value(&now, "selfsame_peer_connected", &[("peer", "anna")]), 1.0);
    assert_eq!(value(&now, "selfsame_peers", &[]), 1.0);
    assert_eq!(value(&now, "selfsame_peers_connected", &[]), 1.0);
    assert!(value(&now, "selfsame_uptime_seconds", &[]) > 0.0);
    assert!(value(&now, "selfsame_sessions_ended", &[("outcome", "complete")]) >= 1.0);
    assert!(value(&now, "selfsame_sessions_sent_bytes", &[]) > 100.0);
    assert!(value(&now, "selfsame_sessions_changed_keys", &[("at", "here")]) >= 1.0);
    let durations = &now["selfsame_session_duration_seconds"];
    let count = durations.samples.iter().find(|sample| sample.0 == "_count").unwrap().2;
    assert!(count >= 1.0, "{durations:?}");
    // no id in full, no key, no value
    let text = b.run(["metrics"]).ended(0);
    for secret in [a.id(), b.id(), "\"k\"".into(), "\"value\"".into()] {
        assert!(!text.text().contains(&secret), "{secret}: {}", text.text());
    }
}

#[cfg(unix)]
#[test]
fn what_sessions_refuse_is_counted_by_reason() {
    let small = "[sync]\ninterval_s = 1\n[limits]\nmax_value_bytes = 4\n";
    let ([a, b], _daemons) = pair([OFTEN, small]);
    a.run(["put", "c", "k", "value"]).ended(0);
    let refused = "selfsame_sessions_refused_items";
    for (node, by) in [(&b, "here"), (&a, "peer")] {
        let labels = [("by", by), ("reason", "value_size")];
        waited_for(node, refused, &labels, |items| items >= 1.0);
    }
    let ended = [("outcome", "incomplete")];
    waited_for(&b, "selfsame_sessions_ended", &ended, |ended| ended >= 1.0);
    waited_for(&b, "selfsame_pair_equal", &OF_PAIR, |equal| equal == 0.0);
}

#[cfg(unix)]
#[test]
fn a_session_that_the_brake_stopped_shows_until_it_is_let_through() {
    let braking = "[sync]\ninterval_s = 1\n[limits]\nmax_removals = 0\nmax_removals_percent = 0\n";
    let ([a, b], _daemons) = pair([OFTEN, braking]);
    a.run(["put", "c", "k", "value"]).ended(0);
    waited_for(&b, "selfsame_collection_entries", OF_C, |entries| entries == 1.0);
    a.run(["rm", "c", "k"]).ended(0);
    waited_for(&b, "selfsame_pair_braked_keys", &OF_PAIR, |keys| keys == 1.0);
    waited_for(&b, "selfsame_sessions_ended", &[("outcome", "failed")], |ended| ended >= 1.0);
    waited_for(&b, "selfsame_pair_failures", &OF_PAIR, |failures| failures >= 1.0);
    assert!(value(&metrics(&b), "selfsame_brake_stops", &[]) >= 1.0);
    assert_eq!(value(&metrics(&a), "selfsame_brake_stops", &[]), 0.0, "it was not its brake");
    let said = b.run(["status"]).ended(0);
    assert!(said.text().contains(" stopped by the brake: see `selfsame doctor`"));
    assert!(!a.run(["status"]).ended(0).text().contains("since the start: "));
    b.run(["sync", "c", "--peer", "anna", "--allow-removals"]).ended(0);
    waited_for(&b, "selfsame_pair_braked_keys", &OF_PAIR, |keys| keys == 0.0);
    assert_eq!(b.run(["get", "c", "k"]).code, 1);
}

#[cfg(unix)]
#[test]
fn what_comes_from_the_future_is_refused_and_counted() {
    let ([a, b], daemons) = pair([OFTEN; 2]);
    drop(daemons);
    a.with_home(|home| {
        let collection = home.replica.collection(&CollectionName::new("c").unwrap()).unwrap();
        let hours = Node::<EmbeddedStore>::now_ms() + 7_200_000;
        collection.put(&Key::new("k").unwrap(), *b"v", hours).unwrap();
    });
    let (of_a, address) = (Daemon::start(&a), b.data().join("peers.toml"));
    // it listens on another port now
    let book = std::fs::read_to_string(&address).unwrap();
    let old = book.split('"').find(|word| word.starts_with("127.0.0.1:")).unwrap();
    let permissions = std::fs::metadata(&address).unwrap().permissions();
    std::fs::write(&address, book.replace(old, &of_a.place)).unwrap();
    std::fs::set_permissions(&address, permissions).unwrap();
    let _of_b = Daemon::start(&b);
    waited_for(&b, "selfsame_drift_refused_items", &[], |items| items >= 1.0);
    let labels = [("by", "here"), ("reason", "drift")];
    waited_for(&b, "selfsame_sessions_refused_items", &labels, |items| items >= 1.0);
}
