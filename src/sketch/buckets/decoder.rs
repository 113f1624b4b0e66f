//! Two sketches added and read: what only one side holds, and whose it is.

use std::collections::BTreeSet;

use super::super::ids::{BucketId, DifferingId, bucket_prefix};
use super::super::pinsketch::{self, Work};
use super::layout::{Layout, MAX_CAPACITY, Portion};
use super::{BucketSketch, SketchError};
use crate::merkle::{Leaf, Prefix};

/// How much more work than planned a portion may take before the rest of it counts as failed.
const WORK_SLACK: u64 = 2;
/// Variance of the differences in a bucket, for one expected: 1 if all were of keys that one side
/// lacks, 2 if all were of keys in two versions.
const VARIANCE: f64 = 1.75;
/// Error of the estimate that sized a single bucket, which its failure does not tell more of.
const ALONE_ERROR: f64 = 0.35;
/// Share of the refilled buckets that may fail again.
const FAILS_AGAIN: f64 = 0.005;

/// What two sketches of the same buckets say together.
///
/// However the peer's bytes were made: reading a portion takes twice the planned work at most,
/// and what is named has just the syndromes that were sent.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Decoder {
    layout: Layout,
    buckets: Vec<Bucket>,
    /// How many have failed so far.
    failed: usize,
    is_refilled: bool,
    work: u64,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Bucket {
    Named(Vec<BucketId>),
    /// The syndromes added, not read.
    Failed(Vec<u64>),
}

impl Decoder {
    /// Reads what only one of both holds, bucket by bucket.
    ///
    /// # Errors
    /// They are not sketches of the same buckets and syndromes, or not first ones.
    pub fn new(ours: BucketSketch, theirs: &BucketSketch) -> Result<Self, SketchError> {
        let layout = ours.portion.layout();
        if ours.portion != theirs.portion || ours.portion != layout.all() {
            return Err(SketchError::Mismatch);
        }
        let added = |slot| added(ours.bucket(slot), theirs.bucket(slot));
        let buckets = (0..layout.buckets()).map(|slot| Bucket::Failed(added(slot))).collect();
        let mut decoder = Self { layout, buckets, failed: 0, is_refilled: false, work: 0 };
        decoder.read(layout.buckets(), layout.capacity());
        Ok(decoder)
    }

    /// Reads what was not read so far, from so many syndromes each.
    fn read(&mut self, buckets: usize, capacity: usize) {
        let width = self.layout.width();
        let planned = pinsketch::planned_work(width, capacity);
        let mut work = Work { done: 0, most: WORK_SLACK * planned * buckets as u64 };
        self.failed = 0;
        for (number, bucket) in self.buckets.iter_mut().enumerate() {
            let Bucket::Failed(syndromes) = &*bucket else { continue };
            let named = pinsketch::decode(width, syndromes, &mut work);
            let log2 = self.layout.buckets_log2();
            let named = named.filter(|ids| ids.iter().all(|id| id.is_of(width, log2, number)));
            match named {
                Some(ids) => *bucket = Bucket::Named(ids),
                None => self.failed += 1,
            }
        }
        self.work += work.done;
    }

    /// The layout of the sketches.
    #[must_use]
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// Whether every bucket was read.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.failed == 0
    }

    /// Products in the field that reading took so far.
    #[must_use]
    pub const fn work(&self) -> u64 {
        self.work
    }

    /// What to ask the other side for, so that nearly all buckets that failed can be read: their
    /// next syndromes, as many as the share that failed lets expect. None if none failed, if there
    /// was a refill already, or if so much more differs than was planned that it would not help:
    /// compare the trees under what [`finish`](Self::finish) says failed.
    #[must_use]
    pub fn refill(&self) -> Option<Portion> {
        if self.failed == 0 || self.is_refilled {
            return None;
        }
        let (buckets, capacity) = (self.layout.buckets() as f64, self.layout.capacity() as f64);
        let share = (self.failed as f64 / buckets).clamp(0.5 / buckets, 1.0 - 0.5 / buckets);
        let spread = (VARIANCE * capacity).sqrt();
        let mean = normal_quantile(share).mul_add(-spread, capacity).max(1.0);
        let unsure = if self.layout.buckets() == 1 { ALONE_ERROR * mean } else { 0.0 };
        let variance = (VARIANCE * mean).mul_add(1.0 + 1.6 / buckets, unsure * unsure);
        if mean - variance.sqrt() > MAX_CAPACITY as f64 {
            return None;
        }
        let end = normal_quantile(FAILS_AGAIN * share).mul_add(variance.sqrt(), mean);
        let end = (end.ceil() as usize).max(self.layout.capacity() + 1).min(MAX_CAPACITY);
        let is_more = end > self.layout.capacity();
        is_more.then(|| Portion::after(self.layout, end as u8, self.failed_buckets().collect()))
    }

    fn failed_buckets(&self) -> impl Iterator<Item = u16> {
        let numbered = self.buckets.iter().zip(0..);
        numbered.filter_map(|(bucket, number)| match bucket {
            Bucket::Failed(_) => Some(number),
            Bucket::Named(_) => None,
        })
    }

    /// Reads on with a refill.
    ///
    /// # Errors
    /// They are not both the portion that [`refill`](Self::refill) asked for; nothing was read.
    pub fn extend(&mut self, ours: BucketSketch, theirs: &BucketSketch) -> Result<(), SketchError> {
        let asked = self.refill().ok_or(SketchError::Refill)?;
        if ours.portion != asked || theirs.portion != asked {
            return Err(SketchError::Mismatch);
        }
        for slot in 0..asked.len() {
            if let Bucket::Failed(syndromes) = &mut self.buckets[asked.number(slot)] {
                syndromes.extend(added(ours.bucket(slot), theirs.bucket(slot)));
            }
        }
        self.is_refilled = true;
        self.read(asked.len(), asked.end());
        Ok(())
    }

    /// What only one of both holds.
    #[must_use]
    pub fn finish(self) -> Decoded {
        let (width, log2) = (self.layout.width(), self.layout.buckets_log2());
        let failed = self.failed_buckets();
        let failed = failed.map(|number| bucket_prefix(log2, usize::from(number))).collect();
        let mut ids = Vec::new();
        for (bucket, number) in self.buckets.into_iter().zip(0..) {
            if let Bucket::Named(named) = bucket {
                let named = named.into_iter();
                ids.extend(named.map(|id| DifferingId { width, log2, bucket: number, id }));
            }
        }
        Decoded { layout: self.layout, ids, failed }
    }
}

fn added(ours: &[u64], theirs: &[u64]) -> Vec<u64> {
    ours.iter().zip(theirs).map(|(ours, theirs)| ours ^ theirs).collect()
}

/// Beyond which a normal variable lies with this probability, in standard deviations (Abramowitz
/// and Stegun 1964, 26.2.23): within 0.0005.
fn normal_quantile(beyond: f64) -> f64 {
    if beyond > 0.5 {
        return -normal_quantile(1.0 - beyond);
    }
    let t = (-2.0 * beyond.ln()).sqrt();
    let above = 0.010_328_f64.mul_add(t, 0.802_853).mul_add(t, 2.515_517);
    let below = 0.001_308_f64.mul_add(t, 0.189_269).mul_add(t, 1.432_788).mul_add(t, 1.0);
    t - above / below
}

/// What only one of two sides holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decoded {
    /// The layout of the sketches.
    pub layout: Layout,
    /// Entries, by bucket and id: the versions of a key stand side by side.
    pub ids: Vec<DifferingId>,
    /// Subtrees of which nothing is known, ascending: their buckets held more than was sent.
    pub failed: Vec<Prefix>,
}

/// Whose each of the [`Decoded`] ids is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attributed {
    /// Own leaves that the peer does not hold, ascending.
    pub ours: Vec<Leaf>,
    /// What only the peer holds.
    pub theirs: Vec<DifferingId>,
    /// How many of the peer's seem to be other versions of keys among one's own.
    pub updated: usize,
}

impl Decoded {
    /// Whose each id is, by a look at the own leaves: `leaves` gives those under a prefix, of
    /// which there are few. O(1) such looks for each id, 16 with a single bucket.
    ///
    /// # Errors
    /// `leaves` fails.
    pub fn attribute<E>(
        &self,
        mut leaves: impl FnMut(&Prefix) -> Result<Vec<Leaf>, E>,
    ) -> Result<Attributed, E> {
        let (mut ours, mut theirs, mut own_ids) = (Vec::new(), Vec::new(), Vec::new());
        for id in &self.ids {
            let before = ours.len();
            for prefix in id.prefixes() {
                let under = leaves(&prefix)?;
                ours.extend(under.into_iter().filter(|leaf| id.matches(&leaf.key, &leaf.record)));
            }
            if ours.len() > before { own_ids.push(id) } else { theirs.push(*id) }
        }
        ours.sort_unstable_by_key(|leaf| leaf.key);
        let own_keys: BTreeSet<_> = own_ids.into_iter().map(DifferingId::key_part).collect();
        let updated = theirs.iter().filter(|id| own_keys.contains(&id.key_part())).count();
        Ok(Attributed { ours, theirs, updated })
    }
}
