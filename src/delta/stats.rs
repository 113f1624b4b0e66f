//! What compression and deltas saved: plain counters that add up.
//!
//! ```
//! use selfsame::delta::{CompressionStats, encode_whole};
//!
//! let mut stats = CompressionStats::default();
//! stats.count(&encode_whole(&[7; 1_000]), 1_000);
//! stats.count_by_hash(500);
//! assert_eq!((stats.values_whole, stats.values_by_hash), (1, 1));
//! assert!(stats.saved() > 1_400);
//! ```

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use super::{Encoded, Encoding};

/// Counters over the values that a session, or a node, moved.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct CompressionStats {
    /// Values that travelled whole, raw or compressed.
    pub values_whole: u64,
    /// Of these, the ones that did not compress.
    pub values_raw: u64,
    /// Values that travelled against a base that the sender had.
    pub values_prefixed: u64,
    /// Values that travelled as a patch made from the receiver's signature.
    pub values_patched: u64,
    /// Values that did not travel, since the receiver had them.
    pub values_by_hash: u64,
    /// Bytes of all these values.
    pub bytes_before: u64,
    /// Bytes that travelled for them.
    pub bytes_after: u64,
    /// Bytes of signatures that made patches possible.
    pub signature_bytes: u64,
}

impl CompressionStats {
    /// Counts one value of `size` bytes that travelled as `encoded`.
    pub fn count(&mut self, encoded: &Encoded, size: u64) {
        let counter = match encoded.encoding {
            Encoding::Raw => {
                add(&mut self.values_raw, 1);
                &mut self.values_whole
            }
            Encoding::Zstd => &mut self.values_whole,
            Encoding::Prefixed { .. } => &mut self.values_prefixed,
            Encoding::Patch { .. } => &mut self.values_patched,
        };
        add(counter, 1);
        add(&mut self.bytes_before, size);
        add(&mut self.bytes_after, encoded.wire_len() as u64);
    }

    /// Counts one value of `size` bytes that the receiver had already.
    pub fn count_by_hash(&mut self, size: u64) {
        add(&mut self.values_by_hash, 1);
        add(&mut self.bytes_before, size);
    }

    /// Counts a signature of `bytes` bytes.
    pub fn count_signature(&mut self, bytes: u64) {
        add(&mut self.signature_bytes, bytes);
    }

    /// Values that travelled as a delta of either kind.
    #[must_use]
    pub const fn values_delta(&self) -> u64 {
        self.values_prefixed.saturating_add(self.values_patched)
    }

    /// Bytes that did not have to travel.
    #[must_use]
    pub const fn saved(&self) -> u64 {
        self.bytes_before.saturating_sub(self.bytes_after.saturating_add(self.signature_bytes))
    }
}

fn add(counter: &mut u64, amount: u64) {
    *counter = counter.saturating_add(amount);
}

impl AddAssign for CompressionStats {
    fn add_assign(&mut self, other: Self) {
        add(&mut self.values_whole, other.values_whole);
        add(&mut self.values_raw, other.values_raw);
        add(&mut self.values_prefixed, other.values_prefixed);
        add(&mut self.values_patched, other.values_patched);
        add(&mut self.values_by_hash, other.values_by_hash);
        add(&mut self.bytes_before, other.bytes_before);
        add(&mut self.bytes_after, other.bytes_after);
        add(&mut self.signature_bytes, other.signature_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::encode_whole;

    #[test]
    fn parts_add_up_to_what_was_counted_at_once() {
        let values: [&[u8]; 3] = [&[1; 900], b"short", &[2; 70]];
        let (mut all, mut sum) = (CompressionStats::default(), CompressionStats::default());
        for value in values {
            let mut part = CompressionStats::default();
            for stats in [&mut all, &mut part] {
                stats.count(&encode_whole(value), value.len() as u64);
                stats.count_by_hash(10);
                stats.count_signature(3);
            }
            sum += part;
        }
        assert_eq!(sum, all);
        assert_eq!((all.values_whole, all.values_raw, all.values_by_hash), (3, 1, 3));
        assert_eq!((all.bytes_before, all.signature_bytes), (900 + 5 + 70 + 30, 9));
        sum += CompressionStats { bytes_after: u64::MAX, ..CompressionStats::default() };
        assert_eq!(sum.saved(), 0);
    }
}
