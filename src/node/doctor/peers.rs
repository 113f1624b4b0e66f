//! How the node stands with its peers: what only a daemon knows.

use super::collections::quoted;
use super::{Facts, NodeFacts, Report};
use crate::clock::ClockAhead;
use crate::node::figures::{count, counted, span};
use crate::node::status::{PairFlow, PairStatus, PeerStatus, Status};

/// A pair that was not equal for so many intervals is not on the way there.
const UNEQUAL_INTERVALS: u64 = 10;

impl NodeFacts {
    /// A peer as people call it: by its name, else by the first digits of its id.
    pub(super) fn called<'a>(&'a self, id: &'a str) -> &'a str {
        let peers = self.daemon.iter().flat_map(|daemon| &daemon.peers);
        let name = peers.filter(|peer| peer.id == id).find_map(|peer| peer.name.as_deref());
        name.unwrap_or_else(|| id.get(..8).unwrap_or(id))
    }
}

pub(super) fn examine(report: &mut Report, facts: &Facts, node: &NodeFacts) {
    check_peers(report, node);
    check_faults(report, node);
    check_clocks(report, node);
    check_grants(report, node);
    check_brakes(report, node);
    check_pairs(report, facts, node);
}

const NO_DAEMON: &str = "only a daemon knows: none runs";

fn check_peers(report: &mut Report, node: &NodeFacts) {
    let mut check = report.check("peers");
    let Some(daemon) = &node.daemon else { return check.unknown(NO_DAEMON) };
    for peer in daemon.peers.iter().filter(|peer| peer.connected_since_ms.is_none()) {
        let Some(error) = &peer.last_error else { continue };
        let since = match peer.last_answer_ms {
            Some(answered) => format!("for {}", span(daemon.clock_ms.saturating_sub(answered))),
            None => format!("since the daemon was started, {} ago", span(daemon.uptime_ms)),
        };
        let name = node.called(&peer.id);
        check.look(
            Some(name),
            format!("it was not reached {since}: {error}"),
            format!(
                "see \"A node cannot connect\" in docs/operations.md; if it is gone for good, \
                 `selfsame peer rm {}`",
                quoted(name)
            ),
        );
    }
    let connected = daemon.peers.iter().filter(|peer| peer.connected_since_ms.is_some());
    check.well(format!(
        "{} of {} connected, {}",
        connected.count(),
        counted(daemon.peers.len() as u64, "peer", "peers"),
        "and none fails to be reached"
    ));
}

fn check_faults(report: &mut Report, node: &NodeFacts) {
    let mut check = report.check("faults");
    let Some(daemon) = &node.daemon else { return check.unknown(NO_DAEMON) };
    for peer in daemon.peers.iter().filter(|peer| peer.faults > 0) {
        let name = node.called(&peer.id);
        check.look(
            Some(name),
            format!(
                "it has spoilt {} since the daemon was started: by a lie, a breach of the \
                 protocol or work without end",
                counted(peer.faults, "session", "sessions")
            ),
            format!(
                "look at its version and its log; if it is not what it says, `selfsame peer rm \
                 {}`; a start anew of the daemon begins to count at 0",
                quoted(name)
            ),
        );
    }
    check.well("no peer has spoilt a session");
}

fn check_clocks(report: &mut Report, node: &NodeFacts) {
    let mut check = report.check("clocks");
    let set =
        "set it, as with `timedatectl set-ntp true`, and look at `timedatectl timesync-status`";
    if let Some(ClockAhead { ahead_ms, peers, heard }) = &node.clock_ahead {
        check.wrong(
            None,
            format!(
                "this node's clock is {} ahead of that of {} of {heard} peers: it refuses to \
                 write until it is set",
                span(*ahead_ms),
                peers.len()
            ),
            format!("{set}; what was written meanwhile: `selfsame doctor --restamp COLLECTION`"),
        );
        return;
    }
    let Some(daemon) = &node.daemon else { return check.unknown(NO_DAEMON) };
    let drift = span(node.limits.max_clock_drift_ms);
    let heard: Vec<(&PeerStatus, i64)> =
        daemon.peers.iter().filter_map(|peer| Some((peer, peer.clock_ahead_ms?))).collect();
    let off = |sign: i64| {
        let of =
            heard.iter().filter(move |(peer, ahead)| peer.clock_is_off && ahead.signum() == sign);
        of.map(|(peer, ahead)| (node.called(&peer.id), ahead.unsigned_abs()))
    };
    let behind = off(1).count();
    // with two nodes nobody can say which is right
    if behind >= 2 && behind * 2 > heard.len() {
        let least = off(1).map(|(_, apart)| apart).min().unwrap_or_default();
        check.wrong(
            None,
            format!(
                "this node's clock is {} or more behind that of {behind} of {} connected peers, \
                 and more than {drift} is too much: it refuses what they write",
                span(least),
                heard.len()
            ),
            set,
        );
        return;
    }
    for (sign, how) in [(1, "ahead of"), (-1, "behind")] {
        for (name, apart) in off(sign) {
            check.look(
                Some(name),
                format!(
                    "its clock is {} {how} this node's, and more than {drift} is too much: one \
                     refuses writes of the other",
                    span(apart)
                ),
                format!("find out which of both is wrong, and {set}"),
            );
        }
    }
    check.well(match heard.len() {
        0 => "no peer is connected to compare with".to_owned(),
        peers => format!("it agrees with {}", counted(peers as u64, "peer", "peers")),
    });
}

fn check_grants(report: &mut Report, node: &NodeFacts) {
    let mut check = report.check("grants");
    let Some(daemon) = &node.daemon else { return check.unknown(NO_DAEMON) };
    let mut one_way = 0;
    for pair in &daemon.pairs {
        match pair.flow {
            PairFlow::Both => {}
            PairFlow::Pull | PairFlow::Push => one_way += 1,
            PairFlow::Neither => check.wrong(
                Some(&of_pair(node, pair)),
                "each of both may at most read from the other, so nothing moves",
                format!(
                    "`selfsame peer grant {} {}=write` here, or the like at the peer",
                    quoted(node.called(&pair.peer)),
                    quoted(&pair.collection)
                ),
            ),
        }
    }
    check.well(match one_way {
        0 => "entries move both ways in every pair".to_owned(),
        more => format!(
            "in {} of {} entries move one way only, by their grants",
            count(more),
            counted(daemon.pairs.len() as u64, "pair", "pairs")
        ),
    });
}

fn check_brakes(report: &mut Report, node: &NodeFacts) {
    let mut check = report.check("brake");
    let Some(daemon) = &node.daemon else { return check.unknown(NO_DAEMON) };
    for pair in &daemon.pairs {
        let Some(keys) = pair.braked_keys else { continue };
        let (name, peer) = (quoted(&pair.collection), quoted(node.called(&pair.peer)));
        check.wrong(
            Some(&of_pair(node, pair)),
            format!(
                "the brake stopped the last session, which would have removed {}",
                counted(keys, "key", "keys")
            ),
            format!(
                "`selfsame diff {name} --peer {peer}` shows them; if they are meant to go, \
                 `selfsame sync {name} --peer {peer} --allow-removals` on the node that loses them"
            ),
        );
    }
    check.well("no mass removal waits for a word");
}

fn check_pairs(report: &mut Report, facts: &Facts, node: &NodeFacts) {
    let mut check = report.check("equal");
    let Some(daemon) = &node.daemon else { return check.unknown(NO_DAEMON) };
    let longest = node.interval_ms.saturating_mul(UNEQUAL_INTERVALS);
    for pair in daemon.pairs.iter().filter(|pair| is_waiting(pair)) {
        let since = match pair.last_equal_ms {
            Some(then) => facts.now_ms.saturating_sub(then),
            None => daemon.uptime_ms,
        };
        if since > longest {
            let why = pair.last_failure.as_ref().map(|why| format!("; last: {why}"));
            let (name, peer) = (quoted(&pair.collection), quoted(node.called(&pair.peer)));
            check.look(
                Some(&of_pair(node, pair)),
                format!("both were not the same for {}{}", span(since), why.unwrap_or_default()),
                format!(
                    "`selfsame sync {name} --peer {peer}` says what comes in between; see \"Two \
                     nodes are never equal\" in docs/operations.md"
                ),
            );
        }
    }
    check.well(equal(daemon));
}

/// Pairs that are to become equal and have no other reason not to be.
fn is_waiting(pair: &PairStatus) -> bool {
    let both = pair.flow == PairFlow::Both && pair.braked_keys.is_none();
    both && pair.equal_since_ms.is_none()
}

fn equal(daemon: &Status) -> String {
    let equal = daemon.pairs.iter().filter(|pair| pair.equal_since_ms.is_some()).count();
    match daemon.pairs.len() as u64 {
        0 => "no collection is shared with a connected peer".to_owned(),
        pairs => format!("{equal} of {} equal now", counted(pairs, "pair", "pairs")),
    }
}

fn of_pair(node: &NodeFacts, pair: &PairStatus) -> String {
    format!("{} at {}", pair.collection, node.called(&pair.peer))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Finding, Verdict, healthy, said};
    use super::*;

    /// What a check says of a daemon.
    fn of(check: &str, daemon: Status) -> Vec<Finding> {
        let (_folder, mut facts) = healthy();
        let daemon = Status { uptime_ms: 3_600_000, clock_ms: facts.now_ms, ..daemon };
        facts.node.as_mut().unwrap().daemon = Some(daemon);
        said(&facts, check)
    }

    fn peer(at: u8, clock_ahead_ms: i64) -> PeerStatus {
        PeerStatus {
            id: format!("{at:02x}").repeat(32),
            connected_since_ms: Some(1),
            clock_ahead_ms: Some(clock_ahead_ms),
            clock_is_off: clock_ahead_ms.unsigned_abs() > 60_000,
            ..PeerStatus::default()
        }
    }

    fn clocks(ahead: &[i64]) -> Vec<Finding> {
        let peers = (0..).zip(ahead).map(|(at, ahead)| peer(at, *ahead)).collect();
        of("clocks", Status { peers, ..Status::default() })
    }

    #[test]
    fn who_is_wrong_about_the_time_is_told_by_most() {
        for agreeing in [&[][..], &[0], &[59_999, -59_999], &[0, 0, 0]] {
            assert_eq!(clocks(agreeing)[0].verdict, Verdict::Ok, "{agreeing:?}");
        }
        let one = clocks(&[0, 0, 70_000]);
        assert_eq!((one.len(), one[0].about.as_deref()), (1, Some("02020202")));
        assert!(one[0].fact.contains("1 min 10 s ahead of this node's"), "{one:?}");
        // of two nobody knows
        let [two] = &clocks(&[-70_000])[..] else { unreachable!() };
        assert!(two.verdict == Verdict::Look && two.fact.contains("behind this node's"));
        let most = clocks(&[70_000, 80_000]);
        assert!(most[0].fact.contains("1 min 10 s or more behind that of 2 of 2"), "{most:?}");
        assert_eq!(clocks(&[70_000, 70_000, 0, 0]).len(), 2, "half is not most");
        let (_folder, mut facts) = healthy();
        let peers = vec![crate::types::NodeId([1; 32]); 2];
        let node = facts.node.as_mut().unwrap();
        node.clock_ahead = Some(ClockAhead { ahead_ms: 80_000, peers, heard: 3 });
        let ahead = said(&facts, "clocks").remove(0);
        assert_eq!(ahead.verdict, Verdict::Wrong);
        assert!(ahead.fact.contains("1 min 20 s ahead of that of 2 of 3 peers"), "{ahead:?}");
    }

    #[test]
    fn peers_are_said_to_be_gone_only_after_a_try() {
        let gone = PeerStatus { connected_since_ms: None, ..peer(1, 0) };
        let untried = Status { peers: vec![gone.clone()], ..Status::default() };
        assert_eq!(of("peers", untried)[0].verdict, Verdict::Ok);
        let tried = PeerStatus { last_error: Some("no answer".into()), ..gone };
        let found = of("peers", Status { peers: vec![tried], ..Status::default() });
        assert!(found[0].fact.contains("since the daemon was started, 1 h 0 min ago: no answer"));
    }

    #[test]
    fn a_peer_that_spoils_sessions_is_named() {
        let peers = vec![peer(1, 0), PeerStatus { faults: 3, ..peer(2, 0) }];
        let found = of("faults", Status { peers, ..Status::default() });
        assert_eq!((found.len(), found[0].about.as_deref()), (1, Some("02020202")));
        assert!(found[0].fact.contains("3 sessions"), "{found:?}");
    }

    fn pairs(check: &str, pair: PairStatus) -> Finding {
        let peers = vec![PeerStatus { name: Some("berlin".into()), ..peer(1, 0) }];
        let pair = PairStatus { peer: "01".repeat(32), collection: "c".into(), ..pair };
        let status = Status { peers, pairs: vec![pair], ..Status::default() };
        of(check, status).remove(0)
    }

    #[test]
    fn a_pair_is_late_after_ten_intervals_unless_there_is_a_reason() {
        let now = healthy().1.now_ms;
        let last = |ago| PairStatus { last_equal_ms: Some(now - ago), ..PairStatus::default() };
        assert_eq!(pairs("equal", last(300_000)).verdict, Verdict::Ok);
        let late = pairs("equal", last(300_001));
        assert_eq!((late.verdict, late.about.as_deref()), (Verdict::Look, Some("c at berlin")));
        assert!(late.what_to_do.unwrap().contains("selfsame sync c --peer berlin"));
        let never = pairs("equal", PairStatus::default());
        assert!(never.fact.contains("not the same for 1 h 0 min"), "{never:?}");
        for excused in [
            PairStatus { flow: PairFlow::Pull, ..last(1 << 40) },
            PairStatus { braked_keys: Some(7), ..last(1 << 40) },
            PairStatus { equal_since_ms: Some(1), ..last(0) },
        ] {
            assert_eq!(pairs("equal", excused).verdict, Verdict::Ok);
        }
    }

    #[test]
    fn one_way_is_meant_and_no_way_is_not() {
        for (flow, verdict) in [
            (PairFlow::Both, Verdict::Ok),
            (PairFlow::Pull, Verdict::Ok),
            (PairFlow::Push, Verdict::Ok),
            (PairFlow::Neither, Verdict::Wrong),
        ] {
            let found = pairs("grants", PairStatus { flow, ..PairStatus::default() });
            assert_eq!(found.verdict, verdict, "{flow:?}");
        }
        let braked = PairStatus { braked_keys: Some(1_234), ..PairStatus::default() };
        assert!(pairs("brake", braked).fact.contains("1,234 keys"));
    }
}
