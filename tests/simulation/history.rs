//! One history from one seed, and many of them at once.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::mutant::Mutant;
use super::trace::Trace;
use super::world::World;

/// A history that went well.
pub struct Told {
    pub hash: u64,
    pub lines: Vec<String>,
    pub outcomes: BTreeMap<&'static str, u64>,
}

/// One that did not.
pub struct Fault {
    pub seed: u64,
    pub what: String,
    pub lines: Vec<String>,
}

impl Fault {
    /// What to do about it.
    pub fn report(&self) -> String {
        format!(
            "{}\n  what was done before: SELFSAME_SEED={} cargo test --test simulation replay -- \
             --nocapture",
            self.what, self.seed
        )
    }
}

/// Lives through the history of a seed.
pub fn live(seed: u64, mutant: Option<Mutant>, keep: bool) -> Result<Told, Fault> {
    #[cfg(feature = "dangerous-mutants")]
    selfsame::mutants::choose(match mutant {
        Some(Mutant::Inside(rule)) => Some(rule),
        _ => None,
    });
    let mut lived_in: Option<World> = None;
    let lived = catch_unwind(AssertUnwindSafe(|| {
        let world = lived_in.insert(World::begin(seed, mutant, keep)?);
        (0..world.profile.steps).try_for_each(|_| world.step())?;
        world.settle()?;
        Ok(std::mem::take(&mut world.outcomes))
    }));
    let trace = lived_in.map_or_else(Trace::default, |world| world.trace);
    let hash = trace.hash();
    let lines = trace.into_lines();
    match lived {
        Ok(Ok(outcomes)) => Ok(Told { hash, lines, outcomes }),
        Ok(Err(what)) => Err(Fault { seed, what, lines }),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().cloned();
            let said = said.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Err(Fault { seed, what: format!("panic: {said:?}"), lines })
        }
    }
}

/// Histories of `count` seeds from `first` on, on all cores, until one goes wrong: then that with
/// the least seed of those that did, and how many were begun.
pub fn live_all(
    first: u64,
    count: u64,
    mutant: Option<Mutant>,
) -> (u64, BTreeMap<&'static str, u64>, Option<Fault>) {
    let (next, stop) = (AtomicU64::new(first), AtomicBool::new(false));
    let found: Mutex<Option<Fault>> = Mutex::new(None);
    let outcomes: Mutex<BTreeMap<&'static str, u64>> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    match live(seed, mutant, false) {
                        Ok(told) => {
                            let mut outcomes = outcomes.lock().expect("not poisoned");
                            for (word, times) in told.outcomes {
                                *outcomes.entry(word).or_default() += times;
                            }
                        }
                        Err(fault) => {
                            stop.store(true, Ordering::Relaxed);
                            let mut found = found.lock().expect("not poisoned");
                            if found.as_ref().is_none_or(|known| known.seed > fault.seed) {
                                *found = Some(fault);
                            }
                        }
                    }
                }
            });
        }
    });
    let begun = next.into_inner().min(first + count) - first;
    (begun, outcomes.into_inner().expect("not poisoned"), found.into_inner().expect("not poisoned"))
}
