//! What the process may use of the machine, against what its settings let it need.

use super::{Facts, Report};
use crate::node::figures::{count, size};

/// Files that the store keeps open at most, whatever it holds.
const MOST_STORE_FILES: u64 = 900;
/// Files beside those of the store: sockets, connections to the control socket, the log.
const OTHER_FILES: u64 = 128;
/// Memory of a page of a tree.
const PAGE_BYTES: u64 = 9 << 10;
/// Memory of the store: its cache, tables that are being written, and what waits.
const STORE_BYTES: u64 = 96 << 20;
/// Memory of the rest of the process.
const PROCESS_BYTES: u64 = 64 << 20;

/// What a process may use. None: without a limit, or not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MachineFacts {
    /// Files that it may have open.
    pub open_files: Option<u64>,
    /// Memory that it may have, in bytes.
    pub memory_bytes: Option<u64>,
}

impl MachineFacts {
    /// Of this process: its own limits, those of its control group, and the machine's memory.
    #[must_use]
    pub fn of_this_process() -> Self {
        let (open_files, address_space) = limits();
        let memory = [address_space, machine_bytes(), group_bytes()];
        Self { open_files, memory_bytes: memory.into_iter().flatten().min() }
    }
}

#[cfg(unix)]
fn limits() -> (Option<u64>, Option<u64>) {
    use rustix::process::{Resource, getrlimit};
    (getrlimit(Resource::Nofile).current, getrlimit(Resource::As).current)
}

#[cfg(not(unix))]
const fn limits() -> (Option<u64>, Option<u64>) {
    (None, None)
}

/// Memory of the machine, where the kernel says it in this file.
fn machine_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1_024)
}

/// What the control group of a container or service may have.
fn group_bytes() -> Option<u64> {
    std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok()?.trim().parse().ok()
}

pub(super) fn examine(report: &mut Report, facts: &Facts) {
    check_files(report, facts);
    check_memory(report, facts);
}

fn check_files(report: &mut Report, facts: &Facts) {
    let mut check = report.check("open files");
    let needed = facts.folder.store_files.min(MOST_STORE_FILES) + OTHER_FILES;
    let Some(limit) = facts.machine.open_files else {
        check.well("the process may open as many files as it needs");
        return;
    };
    if limit < needed {
        check.look(
            None,
            format!(
                "the process may have {} files open, and may need {}",
                count(limit),
                count(needed)
            ),
            "raise it: `ulimit -n 4096` before the start, or LimitNOFILE=4096 in the unit",
        );
    }
    check.well(format!(
        "the process may have {} files open, and may need {}",
        count(limit),
        count(needed)
    ));
}

fn check_memory(report: &mut Report, facts: &Facts) {
    let mut check = report.check("memory");
    let (Some(node), Some(limit)) = (&facts.node, facts.machine.memory_bytes) else {
        check.well("nothing is known to limit it");
        return;
    };
    let entries: u64 = node.collections.iter().map(|one| one.facts.entries).sum();
    // pages hold some tens of entries: no more are loaded than there are
    let pages = (node.limits.max_loaded_pages as u64).min(entries / 16 + 1);
    let needed = node
        .sessions_memory_bytes
        .saturating_add(pages * PAGE_BYTES)
        .saturating_add(entries.saturating_mul(16))
        .saturating_add(STORE_BYTES + PROCESS_BYTES);
    let fact = format!(
        "sessions, pages and store may need {}, and the process may have {}",
        size(needed),
        size(limit)
    );
    if limit < needed {
        check.look(
            None,
            &fact,
            "lower max_memory_bytes or max_loaded_pages in config.toml, or give it more memory",
        );
    }
    check.well(fact);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Verdict, healthy, said};
    use super::*;

    #[test]
    fn limits_that_are_too_low_are_named() {
        let (_folder, mut facts) = healthy();
        facts.machine = MachineFacts { open_files: Some(100), memory_bytes: Some(100 << 20) };
        for (check, what) in [("open files", "LimitNOFILE"), ("memory", "max_memory_bytes")] {
            let found = said(&facts, check).remove(0);
            assert_eq!(found.verdict, Verdict::Look, "{found:?}");
            assert!(found.what_to_do.unwrap().contains(what));
        }
        facts.machine = MachineFacts::default();
        for check in ["open files", "memory"] {
            assert_eq!(said(&facts, check)[0].verdict, Verdict::Ok);
        }
        facts.machine.open_files = Some(200);
        assert_eq!(said(&facts, "open files")[0].verdict, Verdict::Ok);
        facts.folder.store_files = 5_000;
        let found = said(&facts, "open files").remove(0);
        assert!(found.fact.contains("may need 1,028"), "{found:?}");
    }
}
