//! How many buckets a sketch has, and how much of each is sent.

use serde::{Deserialize, Serialize};

use super::super::ids::{IdWidth, bucket_of, bucket_prefix};
use super::super::pinsketch;
use super::SketchError;
use crate::hash::KeyHash;
use crate::merkle::Prefix;

/// Most buckets, as a power of two.
pub const MAX_BUCKETS_LOG2: u8 = 12;
/// Most syndromes of a bucket.
pub const MAX_CAPACITY: usize = 64;
/// Differences in a single bucket at most, and in each of several at most, when there are as many
/// as expected.
const MOST_ALONE: f64 = 40.0;
const MOST_EACH: f64 = 34.0;

/// How near an estimate is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Precision {
    /// That of a [`FoldedEstimator`](crate::sketch::FoldedEstimator): 35 % off in one case of
    /// three.
    Folded,
    /// That of an [`Estimator`](crate::sketch::Estimator): 12.5 % off in one case of three.
    Full,
}

/// Buckets of a sketch and syndromes of each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "(u8, u8)", into = "(u8, u8)")]
pub struct Layout {
    width: IdWidth,
    log2: u8,
    capacity: u8,
}

impl Layout {
    /// The most differences that there is a layout for: what the most buckets of the most syndromes
    /// have room for, rounded down.
    pub const MOST_DIFFERENCES: u64 = 230_000;

    /// That in which the ids of [coded symbols](crate::sketch::iblt) are told and named: nothing is
    /// sent of it.
    pub const SHORT: Self = Self { width: IdWidth::Wide, log2: MAX_BUCKETS_LOG2, capacity: 1 };

    /// 2^`buckets_log2` buckets (up to 2^12) of `capacity` syndromes (1 to 64).
    ///
    /// # Errors
    /// One of them is out of range.
    pub fn new(width: IdWidth, buckets_log2: u8, capacity: u8) -> Result<Self, SketchError> {
        let fits =
            buckets_log2 <= MAX_BUCKETS_LOG2 && (1..=MAX_CAPACITY).contains(&usize::from(capacity));
        if !fits {
            return Err(SketchError::Layout { buckets_log2, capacity });
        }
        Ok(Self { width, log2: buckets_log2, capacity })
    }

    /// The layout that costs the fewest bytes when so many entries are estimated to differ and
    /// the larger collection has `most_entries`. None if they are more than
    /// [`MOST_DIFFERENCES`](Self::MOST_DIFFERENCES).
    ///
    /// A single bucket has room for 1.75 times the estimate when it is a rough one, and 1.1 times
    /// when it is a good one; of several each has room for 1.04 of what it should hold and 0.6 of
    /// its spread, and the fifth of them that holds more is sent on.
    #[must_use]
    pub fn plan(differing: u64, precision: Precision, most_entries: u64) -> Option<Self> {
        let width = IdWidth::of_entries(most_entries);
        if differing > Self::MOST_DIFFERENCES {
            return None;
        }
        let differing = differing.max(1) as f64;
        if differing <= MOST_ALONE {
            let (share, more) = match precision {
                Precision::Folded => (1.75, 0.25),
                Precision::Full => (1.1, 1.0),
            };
            let capacity = (share * differing + more).ceil().min(MAX_CAPACITY as f64);
            return Self::new(width, 0, capacity as u8).ok();
        }
        let buckets = (differing / MOST_EACH).log2().ceil();
        // if there are no more buckets, they are larger
        let buckets = buckets.clamp(1.0, f64::from(MAX_BUCKETS_LOG2));
        let each = differing / buckets.exp2();
        let capacity = (1.04 * each + 0.6 * each.sqrt()).ceil();
        Self::new(width, buckets as u8, capacity as u8).ok()
    }

    /// Width of its ids.
    #[must_use]
    pub const fn width(self) -> IdWidth {
        self.width
    }

    /// Number of buckets, as a power of two.
    #[must_use]
    pub const fn buckets_log2(self) -> u8 {
        self.log2
    }

    /// Number of buckets.
    #[must_use]
    pub const fn buckets(self) -> usize {
        1 << self.log2
    }

    /// Syndromes of each bucket.
    #[must_use]
    pub const fn capacity(self) -> usize {
        self.capacity as usize
    }

    /// Bytes of the first sketch.
    #[must_use]
    pub const fn bytes(self) -> usize {
        (self.buckets() * self.capacity() * self.width.bits() as usize).div_ceil(8)
    }

    /// Products in the field that reading it is expected to take at most; more than twice as many
    /// it never takes.
    #[must_use]
    pub fn work(self) -> u64 {
        self.buckets() as u64 * pinsketch::planned_work(self.width, self.capacity())
    }

    /// What is sent first: all buckets.
    #[must_use]
    pub const fn all(self) -> Portion {
        let Self { width, log2, capacity } = self;
        Portion { width, log2, buckets: None, first: 0, end: capacity }
    }

    /// What a refill asks for: some buckets beyond this layout's syndromes.
    ///
    /// # Errors
    /// It names no bucket or one that there is not, or no syndrome or too many.
    pub fn refill(self, wire: &WireRefill) -> Result<Portion, SketchError> {
        let Self { width, log2, capacity } = self;
        let end = wire.capacity;
        if end <= capacity
            || usize::from(end) > MAX_CAPACITY
            || wire.failed.len() != self.buckets().div_ceil(8)
        {
            return Err(SketchError::Refill);
        }
        let all = 0..(8 * wire.failed.len()) as u16;
        let is_failed =
            |bucket: &u16| wire.failed[usize::from(bucket / 8)] >> (bucket % 8) & 1 == 1;
        let buckets: Vec<u16> = all.filter(is_failed).collect();
        match buckets.last() {
            Some(last) if usize::from(*last) < self.buckets() => {
                Ok(Portion { width, log2, buckets: Some(buckets), first: capacity, end })
            }
            _ => Err(SketchError::Refill),
        }
    }
}

impl From<Layout> for (u8, u8) {
    fn from(layout: Layout) -> Self {
        let wide = u8::from(layout.width == IdWidth::Wide);
        (wide << 7 | layout.log2, layout.capacity)
    }
}

impl TryFrom<(u8, u8)> for Layout {
    type Error = SketchError;

    fn try_from((shape, capacity): (u8, u8)) -> Result<Self, SketchError> {
        let width = if shape >> 7 == 1 { IdWidth::Wide } else { IdWidth::Narrow };
        Self::new(width, shape & 0x7f, capacity)
    }
}

/// What travels of a refill.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct WireRefill {
    /// How many syndromes of each bucket there are then.
    pub capacity: u8,
    /// A bit for each bucket, those of the first byte's least significant bit first: which of
    /// them is sent on.
    #[serde(with = "crate::delta::bytes")]
    pub failed: Vec<u8>,
}

/// Which syndromes of which buckets.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Portion {
    width: IdWidth,
    log2: u8,
    /// Ascending; none for all.
    buckets: Option<Vec<u16>>,
    /// The first syndrome, and the one after the last.
    first: u8,
    end: u8,
}

impl Portion {
    /// The syndromes after those of a layout, up to `end`, of these buckets, ascending.
    pub(super) const fn after(layout: Layout, end: u8, buckets: Vec<u16>) -> Self {
        let Layout { width, log2, capacity } = layout;
        Self { width, log2, buckets: Some(buckets), first: capacity, end }
    }

    /// Width of its ids.
    #[must_use]
    pub const fn width(&self) -> IdWidth {
        self.width
    }

    /// Number of all buckets, as a power of two.
    pub(in crate::sketch) const fn log2(&self) -> u8 {
        self.log2
    }

    /// The layout that has this as its first portion.
    pub(super) const fn layout(&self) -> Layout {
        Layout { width: self.width, log2: self.log2, capacity: self.end }
    }

    /// Number of the first syndrome.
    pub(in crate::sketch) const fn first(&self) -> usize {
        self.first as usize
    }

    /// Number of the syndrome after the last.
    pub(in crate::sketch) const fn end(&self) -> usize {
        self.end as usize
    }

    /// Syndromes of each bucket.
    pub(in crate::sketch) const fn depth(&self) -> usize {
        self.end() - self.first()
    }

    /// How many buckets it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buckets.as_ref().map_or(1 << self.log2, Vec::len)
    }

    /// Whether it has no buckets: never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of the bucket at a place.
    pub(in crate::sketch) fn number(&self, slot: usize) -> usize {
        self.buckets.as_ref().map_or(slot, |buckets| usize::from(buckets[slot]))
    }

    /// The place of a bucket.
    pub(super) fn slot(&self, bucket: usize) -> Option<usize> {
        match &self.buckets {
            None => Some(bucket),
            Some(buckets) => buckets.binary_search(&(bucket as u16)).ok(),
        }
    }

    /// All syndromes of all its buckets.
    pub(super) fn syndromes(&self) -> usize {
        self.len() * self.depth()
    }

    /// Bytes of its syndromes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        (self.syndromes() * self.width.bits() as usize).div_ceil(8)
    }

    /// The subtrees of its buckets, ascending: what is to be read where no sketches are kept.
    #[must_use]
    pub fn prefixes(&self) -> Vec<Prefix> {
        (0..self.len()).map(|slot| bucket_prefix(self.log2, self.number(slot))).collect()
    }

    /// Whether the key is in one of its buckets.
    #[must_use]
    pub fn wants(&self, key: &KeyHash) -> bool {
        self.slot(bucket_of(self.log2, key)).is_some()
    }

    /// What is sent to ask for it.
    #[must_use]
    pub fn to_wire(&self) -> WireRefill {
        let mut failed = vec![0; (1_usize << self.log2).div_ceil(8)];
        for slot in 0..self.len() {
            let bucket = self.number(slot);
            failed[bucket / 8] |= 1 << (bucket % 8);
        }
        WireRefill { capacity: self.end, failed }
    }
}
