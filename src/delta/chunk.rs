//! Content-defined chunks: boundaries that move with the content, so that an insert changes only
//! the chunks it touches.
//!
//! FastCDC (Xia et al., 2020) over the whole value; both ends cut alike when they agree on the
//! average length, which is a power of two.
//!
//! ```
//! use selfsame::delta::chunk::ChunkSize;
//!
//! let value: Vec<u8> = (0..200_000u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
//! let size = ChunkSize::for_value(value.len() as u64);
//! let chunks = size.cut(&value);
//! assert_eq!(chunks.iter().map(|chunk| chunk.len()).sum::<usize>(), value.len());
//! ```

use fastcdc::v2020::FastCDC;
use serde::{Deserialize, Serialize};

const MIN_LOG: u8 = 9;
const MAX_LOG: u8 = 17;
/// How many chunks a value is cut into, about.
const CHUNKS_LOG: u8 = 9;

/// Average length of chunks: a power of two from 512 B to 128 KiB.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct ChunkSize {
    log: u8,
}

impl ChunkSize {
    /// For about 512 chunks of a value of this length.
    #[must_use]
    pub fn for_value(length: u64) -> Self {
        let log = length.max(1).ilog2() as u8;
        Self { log: log.saturating_sub(CHUNKS_LOG).clamp(MIN_LOG, MAX_LOG) }
    }

    /// Average length in bytes.
    #[must_use]
    pub const fn average(self) -> usize {
        1 << self.log
    }

    /// Cuts a value; no chunk is empty, none is longer than four times the average.
    #[must_use]
    pub fn cut(self, value: &[u8]) -> Vec<&[u8]> {
        let average = self.average();
        let (least, most) = (average / 4, average * 4);
        FastCDC::new(value, least, average, most)
            .filter_map(|chunk| value.get(chunk.offset..chunk.offset + chunk.length))
            .collect()
    }
}

impl TryFrom<u8> for ChunkSize {
    type Error = &'static str;

    fn try_from(log: u8) -> Result<Self, Self::Error> {
        match log {
            MIN_LOG..=MAX_LOG => Ok(Self { log }),
            _ => Err("chunks average 2^9 to 2^17 bytes"),
        }
    }
}

impl From<ChunkSize> for u8 {
    fn from(size: ChunkSize) -> Self {
        size.log
    }
}
