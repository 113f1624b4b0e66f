//! The real session core and the real replica, explored: every order in which two nodes write,
//! meet, lose each other, die and are restored, within bounds.
#![cfg(feature = "session")]
#![allow(unreachable_pub, clippy::unwrap_used, clippy::panic)]

#[path = "model/flight.rs"]
mod flight;
#[path = "simulation/harness.rs"]
mod harness;
#[path = "model/kept.rs"]
mod kept;
#[path = "model/node.rs"]
mod node;
#[path = "model/rules.rs"]
mod rules;
#[path = "model/system.rs"]
mod system;

use std::fmt::Debug;
use std::hash::Hash;

use harness::mutant::Mutant;
use selfsame::session::{Session, Strategy};
use stateright::{Checker, HasDiscoveries, Model};
use system::{Bounds, System};

const NOTHING: Bounds = Bounds {
    keys: 2,
    puts: 0,
    deletes: 0,
    sessions: 1,
    flights: 1,
    cuts: 0,
    crashes: 0,
    restores: 0,
    recoveries: 0,
    strategies: &[Strategy::Auto],
};

/// Two puts and a deletion at any node, a session, a crash at any moment, a restore of any earlier
/// moment.
const WHOLE: Bounds = Bounds { puts: 2, deletes: 1, crashes: 1, restores: 1, ..NOTHING };

/// All states of the core are told apart by what they are.
const fn explorable<T: Clone + Eq + Hash + Debug>() {}
const _: () = explorable::<Session>();

/// Explores everything within the bounds; the path to a state in which something does not hold, if
/// there is one, and what must happen somewhere and does not.
fn explore(
    bounds: Bounds,
    mutant: Option<Mutant>,
    threads: usize,
) -> (Option<String>, Vec<&'static str>) {
    let checker = System::new(bounds.clone(), mutant)
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .threads(threads)
        .spawn_bfs()
        .join();
    let system = checker.model();
    println!(
        "{} states, {} steps, {} deep; the engine was asked {:?}; {bounds:?}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        system.asked(),
    );
    let discoveries = checker.discoveries();
    let names = |properties: Vec<stateright::Property<System>>| {
        properties.into_iter().map(|property| property.name)
    };
    let fault = names(rules::always()).find_map(|name| {
        let path = discoveries.get(name)?;
        let state = path.last_state();
        let what = state.broken.as_ref().map(|(_, what)| what.clone());
        let what = what.or_else(|| system.settles(state).err()).unwrap_or_default();
        let steps: Vec<_> =
            path.clone().into_actions().iter().map(|action| format!("  {action:?}")).collect();
        Some(format!("not so: {name}: {what}\n{}", steps.join("\n")))
    });
    let missing = names(rules::sometimes()).filter(|name| !discoveries.contains_key(name));
    (fault, missing.collect())
}

#[test]
fn everything_holds_whatever_comes_between_a_crash_and_a_restore() {
    let (fault, missing) = explore(WHOLE, None, 1);
    assert_eq!(fault.unwrap_or_default(), "");
    assert!(missing.is_empty(), "the search is about too little: {missing:?}");
}

#[test]
fn everything_holds_wherever_the_connection_is_lost() {
    let bounds = Bounds { puts: 2, deletes: 1, cuts: 1, ..NOTHING };
    let (fault, _) = explore(bounds, None, 1);
    assert_eq!(fault.unwrap_or_default(), "");
}

#[test]
fn everything_holds_when_a_collection_is_recovered_in_a_session() {
    let bounds = Bounds { puts: 1, deletes: 1, sessions: 1, cuts: 1, recoveries: 1, ..NOTHING };
    let (fault, _) = explore(bounds, None, 1);
    assert_eq!(fault.unwrap_or_default(), "");
}

/// Bounds of `SELFSAME_MODEL`, such as `puts=3 sessions=2 cuts=1 threads=2`; what it does not name
/// is as above.
#[test]
#[ignore = "for whoever wants larger bounds: minutes to hours, and gigabytes"]
fn further() {
    let asked = std::env::var("SELFSAME_MODEL").unwrap_or_default();
    let (mut bounds, mut threads) = (WHOLE, 1);
    for word in asked.split_whitespace() {
        let (name, number) = word.split_once('=').unwrap_or((word, ""));
        let number: u8 = number.parse().unwrap_or_else(|_| panic!("{word}: not `name=number`"));
        match name {
            "keys" => bounds.keys = number,
            "puts" => bounds.puts = number,
            "deletes" => bounds.deletes = number,
            "sessions" => bounds.sessions = number,
            "flights" => bounds.flights = number,
            "cuts" => bounds.cuts = number,
            "crashes" => bounds.crashes = number,
            "restores" => bounds.restores = number,
            "recoveries" => bounds.recoveries = number,
            "strategies" => {
                bounds.strategies = match number {
                    1 => &[Strategy::Auto],
                    2 => &[Strategy::Auto, Strategy::Merkle],
                    _ => &Strategy::ALL,
                }
            }
            "threads" => threads = usize::from(number),
            _ => panic!("{name}: no bound is called that"),
        }
    }
    let (fault, missing) = explore(bounds, None, threads);
    println!("never: {missing:?}");
    assert_eq!(fault.unwrap_or_default(), "");
}

/// A rule that is broken is noticed within these bounds.
fn caught(mutant: Mutant, bounds: Bounds) {
    let (fault, _) = explore(bounds, Some(mutant), 1);
    let Some(fault) = fault else { panic!("{mutant:?}: not noticed") };
    println!("{mutant:?}: {fault}");
}

macro_rules! mutants {
    ($($name:ident: $mutant:expr, $bounds:expr;)*) => {$(
        #[test]
        fn $name() {
            caught($mutant, $bounds);
        }
    )*};
}

mutants! {
    broken_a_writer_is_used_again_after_a_restore: Mutant::ReuseWriter,
        Bounds { puts: 3, restores: 1, keys: 1, ..NOTHING };
    broken_a_writer_is_resumed_from_a_copied_token: Mutant::CopyToken,
        Bounds { puts: 3, restores: 1, keys: 1, ..NOTHING };
    broken_exceptions_are_not_sent: Mutant::HideExceptions,
        Bounds { puts: 2, deletes: 1, sessions: 2, cuts: 1, ..NOTHING };
    broken_entries_and_context_are_of_different_moments: Mutant::MixMoments,
        Bounds { puts: 2, restores: 1, ..NOTHING };
    broken_what_arrives_prunes_by_stamp: Mutant::PruneByStamp,
        Bounds { puts: 3, keys: 1, ..NOTHING };
    broken_a_session_that_was_cut_short_joins: Mutant::JoinPartial,
        Bounds { puts: 1, cuts: 1, ..NOTHING };
}

#[cfg(feature = "dangerous-mutants")]
mod inside {
    use selfsame::mutants::Mutant as Inside;

    use super::*;

    mutants! {
        broken_exceptions_are_forgotten: Mutant::Inside(Inside::ForgetExceptions),
            Bounds { puts: 2, deletes: 1, cuts: 1, ..NOTHING };
        broken_what_was_never_seen_is_removed: Mutant::Inside(Inside::RemoveUnseen),
            Bounds { puts: 2, ..NOTHING };
        broken_what_no_leaf_lists_is_removed: Mutant::Inside(Inside::RemoveByLeaf),
            Bounds { puts: 2, strategies: &[Strategy::Merkle], ..NOTHING };
        broken_what_a_filter_lacks_is_removed: Mutant::Inside(Inside::RemoveByFilter),
            Bounds { puts: 2, strategies: &[Strategy::Bloom], ..NOTHING };
        broken_what_was_seen_dead_meanwhile_is_added: Mutant::Inside(Inside::ApplyBlindly),
            Bounds { puts: 1, deletes: 1, sessions: 2, flights: 2, ..NOTHING };
    }
}
