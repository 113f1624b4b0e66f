//! How often strangers may try.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::net::neighbourhood;

/// Failed tries from one address within the window; more are turned away unheard.
const MAX_EACH: u32 = 5;
/// Tries from all addresses within the window.
const MAX_ALL: u32 = 300;
/// How long a try counts.
const WINDOW: Duration = Duration::from_secs(60);

/// Counts the tries of each address (IPv6: of each /64) that failed or are under way.
///
/// Memory: one entry for each address that tried within a minute, 300 at most.
#[derive(Debug, Default)]
pub struct Tries {
    of: HashMap<IpAddr, Vec<Instant>>,
}

impl Tries {
    /// Counts a try; says whether it may be made.
    pub fn take(&mut self, address: IpAddr, now: Instant) -> bool {
        let counts = |at: &Instant| now.saturating_duration_since(*at) < WINDOW;
        self.of.retain(|_, tries| {
            tries.retain(counts);
            !tries.is_empty()
        });
        let all: usize = self.of.values().map(Vec::len).sum();
        let tries = self.of.entry(neighbourhood(address)).or_default();
        if all >= MAX_ALL as usize || tries.len() >= MAX_EACH as usize {
            return false;
        }
        tries.push(now);
        true
    }

    /// The last try from an address succeeded, and does not count.
    pub fn give_back(&mut self, address: IpAddr) {
        if let Some(tries) = self.of.get_mut(&neighbourhood(address)) {
            tries.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_tries_a_minute_from_each_address() {
        let mut tries = Tries::default();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let address = |last| IpAddr::from([192, 0, 2, last]);
        for second in 0..5 {
            assert!(tries.take(address(1), at(second)));
        }
        assert!(!tries.take(address(1), at(5)));
        assert!(tries.take(address(2), at(5)), "another address is not held up");
        tries.give_back(address(1));
        assert!(tries.take(address(1), at(6)));
        assert!(!tries.take(address(1), at(7)));
        assert!(tries.take(address(1), at(60)), "the first one counts no more");
        assert!(!tries.take(address(1), at(60)));
        let six = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
        let taken = (0..9).filter(|last| tries.take(six(*last), at(61))).count();
        assert_eq!(taken, 5, "a /64 is one caller");
    }

    #[test]
    fn many_addresses_cost_little() {
        let mut tries = Tries::default();
        let now = Instant::now();
        let taken = (0..2_000_u32)
            .filter(|number| tries.take(IpAddr::V4((0x0a00_0000 + number).into()), now))
            .count();
        assert_eq!(taken, 300);
        assert!(tries.of.len() <= 301);
    }
}
