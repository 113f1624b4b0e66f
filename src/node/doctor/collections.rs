//! What each collection has that needs a person.

use super::{Facts, NodeFacts, Report};
use crate::node::facts::CollectionFacts;
use crate::node::figures::{count, counted, size, span};
use crate::replica::{Collection, ReplicaError};
use crate::store::Store;

/// From this part of a limit on it is said that it comes near.
const NEAR_PART: u64 = 10;
/// So many intervals without a scrub are too many.
const SCRUB_INTERVALS: u64 = 2;
/// Where scrubs are off, one by hand is due after so long: four weeks.
const SCRUB_BY_HAND_MS: u64 = 28 * 86_400_000;
/// Entries with several versions that are looked at for conflicts.
const MOST_LOOKED_AT: usize = 10_000;

/// What is known of a collection, with what takes a look into it.
#[derive(Clone, Debug)]
pub struct CollectionDetail {
    /// What needs none.
    pub facts: CollectionFacts,
    /// Its keys in conflict.
    pub conflicts: Conflicting,
}

/// Keys in conflict.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Conflicting {
    /// How many were found.
    pub keys: u64,
    /// Whether there may be more.
    pub more: bool,
}

impl CollectionDetail {
    /// Of a collection. Where entries have several versions, up to 10,000 of those are read.
    #[must_use]
    pub fn of<S: Store>(collection: &Collection<S>) -> Self {
        let facts = CollectionFacts::of(collection);
        let conflicts = if facts.extra_versions() > 0 { conflicting(collection) } else { Ok(None) };
        // what cannot be read is lost, which is said of it
        let conflicts = conflicts.ok().flatten().unwrap_or_default();
        Self { facts, conflicts }
    }
}

fn conflicting<S: Store>(collection: &Collection<S>) -> Result<Option<Conflicting>, ReplicaError> {
    let found = collection.snapshot()?.conflicts_after(None, MOST_LOOKED_AT);
    let found = found.map_err(|error| ReplicaError::View(collection.name().to_string(), error))?;
    Ok(Some(Conflicting { keys: found.entries.len() as u64, more: found.next.is_some() }))
}

pub(super) fn examine(report: &mut Report, facts: &Facts, node: &NodeFacts) {
    check_store(report, node);
    check_damage(report, node);
    check_lost(report, node);
    check_scrubs(report, facts, node);
    check_contexts(report, node);
    check_resolvers(report, node);
    check_conflicts(report, node);
    check_stamps(report, facts, node);
    check_histories(report, facts, node);
    check_clones(report, facts, node);
    check_same_dot(report, node);
}

/// A name as a shell takes it.
pub(super) fn quoted(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/@".contains(&byte);
    if name.bytes().all(plain) && !name.starts_with('-') {
        return name.to_owned();
    }
    format!("'{}'", name.replace('\'', "'\\''"))
}

/// Those that can be used, with their names.
fn sound(node: &NodeFacts) -> impl Iterator<Item = (&CollectionDetail, &str)> {
    let sound = node.collections.iter().filter(|one| one.facts.damage.is_none());
    sound.map(|one| (one, one.facts.name.as_str()))
}

fn check_store(report: &mut Report, node: &NodeFacts) {
    let mut check = report.check("store");
    if let Some(why) = &node.store_failure {
        check.wrong(
            None,
            format!("it takes no writes any more: {why}"),
            "see to the disk (`df -h`, `dmesg`), then start the node anew: what was acknowledged \
             is kept",
        );
    }
    check.well("it takes writes");
}

fn check_damage(report: &mut Report, node: &NodeFacts) {
    let mut check = report.check("damage");
    for one in &node.collections {
        let (Some(damage), name) = (&one.facts.damage, one.facts.name.as_str()) else { continue };
        check.wrong(
            Some(name),
            format!("it cannot be used: {damage}"),
            format!("`selfsame recover {}`, then `selfsame sync` with a peer", quoted(name)),
        );
    }
    for (name, damage) in &node.damaged_rows {
        let what_to_do = match name {
            Some(name) => format!("`selfsame recover {}`", quoted(name)),
            None => "`selfsame recover NAME` with the name of the collection that is missing in \
                     `selfsame collection ls`"
                .to_owned(),
        };
        let fact = format!("a row of the list of collections cannot be read: {damage}");
        check.wrong(name.as_deref(), fact, what_to_do);
    }
    check.well(match node.collections.len() as u64 {
        0 => "there are no collections yet".to_owned(),
        1 => format!("the collection can be used: {}", sum(node)),
        more => format!("all {} collections can be used: {}", count(more), sum(node)),
    });
}

fn check_lost(report: &mut Report, node: &NodeFacts) {
    let mut check = report.check("lost");
    for (one, name) in sound(node) {
        let (entries, values) = (one.facts.scrub.rotten_entries, one.facts.scrub.lost_values);
        if entries + values > 0 {
            let parts = [
                (entries, counted(entries, "entry", "entries")),
                (values, counted(values, "value", "values")),
            ];
            let parts: Vec<String> =
                parts.into_iter().filter(|(number, _)| *number > 0).map(|(_, text)| text).collect();
            check.wrong(
                Some(name),
                format!("{} rotted on disk", parts.join(" and ")),
                format!(
                    "`selfsame sync {} --peer PEER` takes them back from a peer that has them; \
                     look at the disk, too: `smartctl -a`",
                    quoted(name)
                ),
            );
        }
    }
    check.well("nothing is known to have rotted");
}

fn check_scrubs(report: &mut Report, facts: &Facts, node: &NodeFacts) {
    let mut check = report.check("scrub");
    let interval = node.scrub_interval_ms;
    let longest = match interval {
        0 => SCRUB_BY_HAND_MS,
        interval => interval.saturating_mul(SCRUB_INTERVALS),
    };
    let runs_for = node.daemon.as_ref().map_or(0, |daemon| daemon.uptime_ms);
    for (one, name) in sound(node) {
        let (scrub, what_to_do) = (&one.facts.scrub, format!("`selfsame scrub {}`", quoted(name)));
        let since = scrub.last_ended_ms.map(|ended| facts.now_ms.saturating_sub(ended));
        match since {
            Some(since) if since > longest && scrub.running.is_none() => check.look(
                Some(name),
                format!("all of it was last read again {} ago", span(since)),
                &what_to_do,
            ),
            None if runs_for > longest && scrub.running.is_none() => check.look(
                Some(name),
                format!("it was never read again, in {}", span(runs_for)),
                &what_to_do,
            ),
            _ => {}
        }
        if let Some(last) = scrub.last.filter(|last| last.found > 0) {
            check.look(
                Some(name),
                format!(
                    "the last scrub found {} that did not fit together, and mended {}",
                    count(last.found),
                    count(last.mended)
                ),
                format!("look at the disk (`smartctl -a`), then {what_to_do} once more"),
            );
        }
    }
    let unread = sound(node).filter(|(one, _)| one.facts.scrub.last_ended_ms.is_none()).count();
    check.well(match unread as u64 {
        0 => "all that was read again was as it was written".to_owned(),
        1 => "one collection was not read again yet".to_owned(),
        more => format!("{} collections were not read again yet", count(more)),
    });
}

fn check_contexts(report: &mut Report, node: &NodeFacts) {
    let mut check = report.check("context");
    let (writers, exceptions) = (node.limits.max_writers as u64, node.limits.max_exceptions);
    for (one, name) in sound(node) {
        let facts = &one.facts;
        if facts.writers >= writers / NEAR_PART {
            let fact = format!(
                "its context lists {} writers, of at most {}",
                count(facts.writers),
                count(writers)
            );
            let what_to_do = "a writer is added by each opening of a store that writes after an \
                              unclean end: let `selfsame serve` run instead of short commands, \
                              end it with SIGTERM, and raise max_writers on all nodes; what is \
                              there goes only with a new collection, filled by `selfsame export` \
                              and `selfsame import`";
            if facts.writers >= writers {
                check.wrong(Some(name), format!("{fact}: peers refuse it"), what_to_do);
            } else {
                check.look(Some(name), fact, what_to_do);
            }
        }
        if facts.exceptions >= exceptions / NEAR_PART {
            let fact = format!(
                "its context has {} exceptions, of at most {}",
                count(facts.exceptions),
                count(exceptions)
            );
            let what_to_do = format!(
                "let a session with each peer that writes it end complete: `selfsame sync {} \
                 --peer PEER --json` lists what one of both refuses",
                quoted(name)
            );
            if facts.exceptions >= exceptions {
                check.wrong(Some(name), format!("{fact}: sessions fail"), what_to_do);
            } else {
                check.look(Some(name), fact, what_to_do);
            }
        }
    }
    check.well("writers and exceptions are far from their limits");
}

fn check_resolvers(report: &mut Report, node: &NodeFacts) {
    let mut check = report.check("resolver");
    for (one, name) in sound(node) {
        if let Some(fault) = &one.facts.resolver_fault {
            check.wrong(
                Some(name),
                fault,
                "use a program that has the resolver, of just this version; versions are kept \
                 and exchanged all the same",
            );
        }
    }
    check.well("the policy of each collection is known here");
}

fn check_conflicts(report: &mut Report, node: &NodeFacts) {
    let mut check = report.check("conflicts");
    for (one, name) in sound(node) {
        let Conflicting { keys, more } = one.conflicts;
        if keys > 0 {
            let or_more = if more { " or more" } else { "" };
            check.look(
                Some(name),
                format!("{}{or_more} in conflict", counted(keys, "key is", "keys are")),
                format!(
                    "`selfsame conflicts {} --preview` lists them, `selfsame resolve` ends one",
                    quoted(name)
                ),
            );
        }
    }
    check.well("no key is in conflict");
}

fn check_stamps(report: &mut Report, facts: &Facts, node: &NodeFacts) {
    let mut check = report.check("stamps");
    let drift = node.limits.max_clock_drift_ms;
    for (one, name) in sound(node) {
        let ahead = one.facts.latest_ms.map_or(0, |latest| latest.saturating_sub(facts.now_ms));
        if ahead > drift {
            check.wrong(
                Some(name),
                format!(
                    "it has entries of {} from now: peers refuse them, and they hide what is \
                     written later",
                    span(ahead)
                ),
                format!(
                    "set the clock (`timedatectl`), then `selfsame doctor --restamp {}` puts them \
                     again",
                    quoted(name)
                ),
            );
        }
    }
    check.well("no entry is of the future");
}

fn check_histories(report: &mut Report, facts: &Facts, node: &NodeFacts) {
    let mut check = report.check("histories");
    for (one, name) in sound(node) {
        for (peer, since_ms) in &one.facts.distrusted {
            let peer = peer.to_string();
            let peer = node.called(&peer);
            let since = span(facts.now_ms.saturating_sub(*since_ms));
            check.wrong(
                Some(&format!("{name} at {peer}")),
                format!(
                    "the peer has signed two histories of one log, and there were no sessions \
                     with it for {since}"
                ),
                format!(
                    "`selfsame certificate evidence {name}` shows both; if a copied machine is \
                     the cause, end one of the two, then `selfsame certificate accept {name} {}`",
                    quoted(peer),
                    name = quoted(name),
                ),
            );
        }
    }
    check.well("no peer has contradicted itself");
}

fn check_clones(report: &mut Report, facts: &Facts, node: &NodeFacts) {
    let mut check = report.check("clones");
    for (one, name) in sound(node) {
        for clone in &one.facts.clones {
            let peer = clone.peer.to_string();
            let peer = node.called(&peer);
            let ago = span(facts.now_ms.saturating_sub(clone.found_ms));
            let aside = counted(clone.aside, "write", "writes");
            let fact = match clone.found.ours {
                true => format!(
                    "another copy of this node writes too, as a session with {peer} showed {ago} \
                     ago; {aside} of this one copied aside"
                ),
                false => format!(
                    "two copies of {peer} write, as a session with it showed {ago} ago; {aside} \
                     of it that are held here copied aside"
                ),
            };
            let (quoted, number) = (quoted(name), clone.number.unwrap_or_default());
            let what_to_do = format!(
                "end one of the two copies and start the other anew; put again what is missing \
                 of `selfsame clones {quoted} --show {number}`, then `selfsame clones {quoted} \
                 --forget {number}`"
            );
            check.wrong(Some(name), fact, what_to_do);
        }
    }
    check.well("no node is known to run twice");
}

fn check_same_dot(report: &mut Report, node: &NodeFacts) {
    let mut check = report.check("same dot");
    for (one, name) in sound(node).filter(|(one, _)| one.facts.same_dot > 0) {
        check.look(
            Some(name),
            format!(
                "{} stood for two writes, of which the greater stays everywhere",
                counted(one.facts.same_dot, "dot", "dots")
            ),
            format!(
                "`selfsame clones {name}` lists both; put again what is missing, then `selfsame \
                 clones {name} --forget-writes`",
                name = quoted(name)
            ),
        );
    }
    check.well("no dot stood for two writes");
}

/// The size of all of it, for whoever wants one line.
pub(super) fn sum(node: &NodeFacts) -> String {
    let entries: u64 = node.collections.iter().map(|one| one.facts.entries).sum();
    let bytes: u64 = node.collections.iter().map(|one| one.facts.bytes).sum();
    format!("{}, {}", counted(entries, "entry", "entries"), size(bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Verdict, healthy, said};
    use super::*;
    use crate::limits::Limits;
    use crate::types::{CollectionName, NodeId};

    fn with(facts: &mut Facts, change: impl FnOnce(&mut CollectionDetail)) {
        let name = CollectionName::new("c").unwrap();
        let mut detail = CollectionDetail {
            facts: CollectionFacts::unknown(name),
            conflicts: Conflicting::default(),
        };
        change(&mut detail);
        facts.node.as_mut().unwrap().collections = vec![detail];
    }

    /// The verdict of a check over a collection that was changed so.
    fn verdict(check: &str, change: impl FnOnce(&mut CollectionDetail)) -> Verdict {
        let (_folder, mut facts) = healthy();
        with(&mut facts, change);
        let found = said(&facts, check);
        assert!(found.len() == 1, "{found:?}");
        let of_it = found[0].verdict == Verdict::Ok || found[0].about.as_deref() == Some("c");
        assert!(of_it, "{found:?}");
        found[0].verdict
    }

    #[test]
    fn each_check_sees_its_own_symptom() {
        let names = ["damage", "lost", "scrub", "context", "resolver", "conflicts", "stamps"];
        for check in names {
            assert_eq!(verdict(check, |_| {}), Verdict::Ok, "{check}");
        }
        assert_eq!(verdict("damage", |c| c.facts.damage = Some("rot".into())), Verdict::Wrong);
        assert_eq!(verdict("lost", |c| c.facts.scrub.lost_values = 1), Verdict::Wrong);
        assert_eq!(verdict("lost", |c| c.facts.scrub.rotten_entries = 1), Verdict::Wrong);
        let fault = |c: &mut CollectionDetail| c.facts.resolver_fault = Some("none".into());
        assert_eq!(verdict("resolver", fault), Verdict::Wrong);
        assert_eq!(verdict("conflicts", |c| c.conflicts.keys = 1), Verdict::Look);
    }

    #[test]
    fn limits_of_the_context_are_announced_at_a_tenth() {
        for (writers, expected) in
            [(6_552, Verdict::Ok), (6_553, Verdict::Look), (65_536, Verdict::Wrong)]
        {
            assert_eq!(verdict("context", |c| c.facts.writers = writers), expected, "{writers}");
            assert_eq!(verdict("context", |c| c.facts.exceptions = writers), expected);
        }
    }

    #[test]
    fn a_stamp_is_of_the_future_beyond_the_drift() {
        let (_folder, facts) = healthy();
        let (now, drift) = (facts.now_ms, Limits::default().max_clock_drift_ms);
        let of = |latest| verdict("stamps", |c| c.facts.latest_ms = Some(latest));
        assert_eq!(of(now + drift), Verdict::Ok);
        assert_eq!(of(now + drift + 1), Verdict::Wrong);
    }

    #[test]
    fn a_scrub_is_missed_after_two_intervals_or_by_hand_after_four_weeks() {
        let (_folder, mut facts) = healthy();
        let mut of = |interval, ago| {
            facts.node.as_mut().unwrap().scrub_interval_ms = interval;
            let ended = facts.now_ms - ago;
            with(&mut facts, |c| c.facts.scrub.last_ended_ms = Some(ended));
            said(&facts, "scrub")[0].verdict
        };
        assert_eq!(of(1_000, 2_000), Verdict::Ok);
        assert_eq!(of(1_000, 2_001), Verdict::Look);
        assert_eq!(of(0, SCRUB_BY_HAND_MS), Verdict::Ok);
        assert_eq!(of(0, SCRUB_BY_HAND_MS + 1), Verdict::Look);
    }

    #[test]
    fn a_peer_with_two_histories_is_named_with_the_collection() {
        let (_folder, mut facts) = healthy();
        with(&mut facts, |c| c.facts.distrusted = vec![(NodeId([0xab; 32]), 5)]);
        let found = said(&facts, "histories").remove(0);
        assert_eq!(
            (found.verdict, found.about.as_deref()),
            (Verdict::Wrong, Some("c at abababab"))
        );
    }

    #[test]
    fn a_store_that_takes_no_writes_is_wrong() {
        let (_folder, mut facts) = healthy();
        facts.node.as_mut().unwrap().store_failure = Some("the disk is full".into());
        let found = said(&facts, "store").remove(0);
        assert!(found.verdict == Verdict::Wrong && found.fact.contains("the disk is full"));
    }

    #[test]
    fn names_are_quoted_where_a_shell_would_take_them_apart() {
        for (name, text) in [
            ("players", "players"),
            ("a b", "'a b'"),
            ("-f", "'-f'"),
            ("a'b", "'a'\\''b'"),
            ("ä", "'ä'"),
        ] {
            assert_eq!(quoted(name), text);
        }
    }
}
