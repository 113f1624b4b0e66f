//! The simulation notices each rule that is broken: so it can fail.
#![allow(clippy::panic)]

#[path = "simulation/harness.rs"]
mod harness;

#[path = "clones/history.rs"]
mod clones;
mod common;

use harness::history::live;
use harness::mutant::Mutant as Outside;
use selfsame::mutants::Mutant as Inside;

/// Lives through histories until one shows that the rule is broken.
fn caught(mutant: Outside, within: u64) {
    let fault = (0..within).find_map(|seed| live(seed, Some(mutant), false).err());
    let Some(fault) = fault else { panic!("{mutant:?}: not noticed in {within} histories") };
    println!("{mutant:?}: history {}: {}", fault.seed, fault.what);
}

/// Two copies of one node write, and nobody looks: something is lost.
#[test]
fn nobody_looks_whether_a_writer_has_two_users() {
    selfsame::mutants::choose(Some(Inside::IgnoreClones));
    let lost = (0..150).find_map(|seed| clones::live(seed).err().map(|what| (seed, what)));
    selfsame::mutants::choose(None);
    let Some((seed, what)) = lost else { panic!("not noticed in 150 histories") };
    println!("{:?}: history {seed}: {what}", Inside::IgnoreClones);
}

macro_rules! mutants {
    ($($name:ident: $mutant:expr, within $within:literal;)*) => {$(
        #[test]
        fn $name() {
            caught($mutant, $within);
        }
    )*};
}

// each within several times the histories that it took
mutants! {
    a_writer_is_used_again_after_a_restore: Outside::ReuseWriter, within 100;
    a_writer_is_resumed_from_a_copied_token: Outside::CopyToken, within 1_500;
    exceptions_are_forgotten: Outside::Inside(Inside::ForgetExceptions), within 100;
    the_live_context_is_sent: Outside::LiveContext, within 200;
    what_was_never_seen_is_removed: Outside::Inside(Inside::RemoveUnseen), within 50;
    what_no_leaf_lists_is_removed: Outside::Inside(Inside::RemoveByLeaf), within 50;
    what_a_filter_lacks_is_removed: Outside::Inside(Inside::RemoveByFilter), within 50;
    what_was_seen_dead_meanwhile_is_added: Outside::Inside(Inside::ApplyBlindly), within 50;
    what_arrives_prunes_by_stamp: Outside::PruneByStamp, within 50;
    the_join_comes_before_the_entries: Outside::JoinEarly, within 100;
    a_session_that_was_cut_short_joins: Outside::JoinPartial, within 150;
    the_join_goes_past_what_was_refused: Outside::JoinPastRefused, within 400;
    exceptions_are_not_sent: Outside::HideExceptions, within 100;
    entries_and_context_are_of_different_moments: Outside::MixMoments, within 100;
    the_context_outlives_damage: Outside::KeepContext, within 50;
    a_session_in_flight_joins_after_a_reset: Outside::JoinAfterReset, within 1_000;
}
