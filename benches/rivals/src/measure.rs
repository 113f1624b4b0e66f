//! CPU time, medians, memory of this process.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// CPU time that this thread has used.
pub(crate) fn cpu_now() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// What the work gave, and the CPU time that it took.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let before = cpu_now();
    let result = work();
    (result, cpu_now().saturating_sub(before))
}

/// The middle one; of an even number the lower of the two in the middle. Zero of none.
pub(crate) fn median<T: Copy + PartialOrd + Default>(values: impl IntoIterator<Item = T>) -> T {
    let mut values: Vec<T> = values.into_iter().collect();
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

/// Nanoseconds for each of so many.
pub(crate) fn ns_each(time: Duration, count: usize) -> f64 {
    time.as_nanos() as f64 / count.max(1) as f64
}

/// Bytes of memory that the system has given to this process, where it says so (Linux).
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// CPU time of child processes that have ended and were waited for, with theirs (Linux).
pub(crate) fn children_cpu() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // the name in parentheses may hold anything; fields 16 and 17 are cutime and cstime
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    // a tick is a hundredth of a second on every Linux that matters here
    Some(Duration::from_millis((ticks(13)? + ticks(14)?) * 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median([3, 1, 2]), 2);
        assert_eq!(median([4, 1, 3, 2]), 2);
        assert_eq!(median([0.5, 9.0, 0.25]), 0.5);
        assert_eq!(median::<u64>([]), 0);
    }

    #[test]
    fn cpu_time_passes_while_we_work_and_not_while_we_wait() {
        let (_, waiting) = timed(|| std::thread::sleep(Duration::from_millis(50)));
        let (sum, working) = timed(|| (0..20_000_000u64).fold(1, |a, b| a ^ (a << 1) ^ b));
        std::hint::black_box(sum);
        assert!(working > Duration::ZERO);
        assert!(waiting < Duration::from_millis(40));
    }
}
