//! Whether this node's clock is right, as far as its peers' clocks show.
//!
//! Each peer that is greeted, or opens a session, says what its clock reads. From then on its
//! clock is reckoned by a clock that nobody sets, so that a wall clock that is set right here is
//! noticed at once, without hearing of the peer again.
//!
//! ```
//! use std::time::Instant;
//!
//! use selfsame::node::clocks::Clocks;
//! use selfsame::types::NodeId;
//!
//! let (clocks, at) = (Clocks::default(), Instant::now());
//! clocks.hear(NodeId([1; 32]), 1_000_000, at);
//! assert_eq!(clocks.verdict(2_000_000, at, 60_000), None, "one peer alone proves nothing");
//! clocks.hear(NodeId([2; 32]), 1_000_500, at);
//! let ahead = clocks.verdict(2_000_000, at, 60_000).expect("both find it ahead");
//! assert_eq!((ahead.ahead_ms, ahead.heard), (999_500, 2));
//! assert_eq!(clocks.verdict(1_030_000, at, 60_000), None, "it was set right");
//! ```

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::ClockAhead;
use crate::types::NodeId;

/// What a peer said of its clock counts for so long.
pub const CLOCKS_HEARD_FOR: Duration = Duration::from_secs(24 * 3_600);
/// Most peers whose clocks are remembered: about 100 bytes each. The oldest make way.
pub const MAX_CLOCKS: usize = 1_024;
/// Fewer peers than this refuse nothing, however many they are of those heard.
const LEAST_PEERS: usize = 2;

/// The clocks of the peers that were heard from lately.
#[derive(Debug, Default)]
pub struct Clocks(Mutex<BTreeMap<NodeId, Heard>>);

#[derive(Clone, Copy, Debug)]
struct Heard {
    theirs_ms: u64,
    at: Instant,
}

impl Clocks {
    fn heard(&self) -> MutexGuard<'_, BTreeMap<NodeId, Heard>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of what a peer's clock reads, in milliseconds since 1970.
    pub fn hear(&self, peer: NodeId, theirs_ms: u64, at: Instant) {
        let mut heard = self.heard();
        if heard.len() >= MAX_CLOCKS && !heard.contains_key(&peer) {
            let oldest = heard.iter().min_by_key(|(_, heard)| heard.at).map(|(peer, _)| *peer);
            oldest.map(|oldest| heard.remove(&oldest));
        }
        heard.insert(peer, Heard { theirs_ms, at });
    }

    /// How far this node's clock is ahead, if it reads `now_ms` and more than half of the peers
    /// heard from lately, two at least, find it more than `max_drift_ms` ahead of theirs.
    #[must_use]
    pub fn verdict(&self, now_ms: u64, at: Instant, max_drift_ms: u64) -> Option<ClockAhead> {
        let mut heard = self.heard();
        heard.retain(|_, heard| at.saturating_duration_since(heard.at) < CLOCKS_HEARD_FOR);
        let mut ahead: Vec<(u64, NodeId)> = heard
            .iter()
            .map(|(peer, heard)| {
                let since = at.saturating_duration_since(heard.at).as_millis();
                let since = u64::try_from(since).unwrap_or(u64::MAX);
                (now_ms.saturating_sub(heard.theirs_ms.saturating_add(since)), *peer)
            })
            .filter(|(ahead_ms, _)| *ahead_ms > max_drift_ms)
            .collect();
        if ahead.len() < LEAST_PEERS || ahead.len() * 2 <= heard.len() {
            return None;
        }
        ahead.sort_unstable();
        // what at least half of them find
        let ahead_ms = ahead[(ahead.len() - 1) / 2].0;
        let peers = ahead.into_iter().map(|(_, peer)| peer).collect();
        Some(ClockAhead { ahead_ms, peers, heard: heard.len() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DRIFT: u64 = 60_000;

    fn peer(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    #[test]
    fn more_than_half_must_find_it_ahead() {
        let (clocks, at) = (Clocks::default(), Instant::now());
        let now = 10_000_000;
        for behind in 1..=2 {
            clocks.hear(peer(behind), now - DRIFT - 1, at);
        }
        for fine in 3..=4 {
            clocks.hear(peer(fine), now - DRIFT, at);
        }
        assert_eq!(clocks.verdict(now, at, DRIFT), None, "two of four");
        clocks.hear(peer(3), now - 3 * DRIFT, at);
        let ahead = clocks.verdict(now, at, DRIFT).unwrap();
        assert_eq!((ahead.peers.len(), ahead.heard, ahead.ahead_ms), (3, 4, DRIFT + 1));
        // a clock that is behind is no reason: what it writes is refused nowhere
        assert_eq!(clocks.verdict(1_000, at, DRIFT), None);
    }

    #[test]
    fn their_clocks_go_on_and_are_forgotten_at_last() {
        let (clocks, at) = (Clocks::default(), Instant::now());
        let now = 1_000_000_000;
        clocks.hear(peer(1), now - 2 * DRIFT, at);
        clocks.hear(peer(2), now - 2 * DRIFT, at);
        let later = at + Duration::from_millis(DRIFT);
        assert!(clocks.verdict(now + DRIFT, later, DRIFT).is_some(), "both clocks went on");
        assert_eq!(clocks.verdict(now, later, DRIFT), None, "this one was set back");
        let much_later = at + CLOCKS_HEARD_FOR;
        assert_eq!(clocks.verdict(now * 2, much_later, DRIFT), None);
    }

    #[test]
    fn peers_without_number_are_not_remembered() {
        let (clocks, at) = (Clocks::default(), Instant::now());
        for number in 0..MAX_CLOCKS as u64 + 50 {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_le_bytes());
            clocks.hear(NodeId(id), 5, at + Duration::from_millis(number));
        }
        assert_eq!(clocks.heard().len(), MAX_CLOCKS);
    }
}
