//! Sketches of a collection that are kept up to date, so that no session reads all its entries.
//!
//! Of every bucket the syndromes: 64 of each of 1, 16 and 256 buckets, and of large collections 48
//! of each of 4,096. The id of an entry is the same in all of them, so its powers are computed once
//! for all, and other numbers of buckets are sums. If wanted, the first coded symbols as well.
//! Nothing in them is secret or of one peer.
//!
//! They stand for just the entries that were added and not removed: whoever keeps them adds and
//! removes what its tree does, in the same commit.
//!
//! ```
//! use selfsame::hash::{KeyHash, RecordDigest};
//! use selfsame::sketch::{BucketSketch, Depth, IdWidth, Layout, Sketches};
//!
//! let entries = (0..50).map(|byte| (KeyHash([byte; 32]), RecordDigest([byte; 32])));
//! let mut sketches = Sketches::new(Depth::Fine.into());
//! for (key, record) in entries.clone() {
//!     sketches.add(&key, &record);
//! }
//! let frozen = sketches.clone(); // shares all but what changes from now on
//! sketches.remove(&KeyHash([3; 32]), &RecordDigest([3; 32]));
//! let layout = Layout::new(IdWidth::Wide, 7, 20)?;
//! let sketch = frozen.read(&layout.all()).expect("there are as many syndromes");
//! assert_eq!(sketch, BucketSketch::of_items(layout.all(), entries));
//! assert_eq!((frozen.entries(), sketches.entries()), (50, 49));
//! # Ok::<(), selfsame::sketch::SketchError>(())
//! ```

use std::sync::Arc;

use super::buckets::{BucketSketch, MAX_CAPACITY, Portion};
use super::estimator::Estimator;
use super::iblt::KeptSymbols;
use super::ids::{BucketId, IdWidth, ShortId, bucket_of};
use super::pinsketch;
use crate::hash::{KeyHash, RecordDigest};

/// Groups, each of one coarse bucket and the fine ones in it.
pub const GROUPS: usize = 256;
const GROUPS_LOG2: u8 = 8;
/// Fine buckets of a group.
const FINE_IN_GROUP: usize = 16;
/// Syndromes of a fine bucket.
const FINE_CAPACITY: usize = 48;
/// Buckets of which each has sixteen groups.
const SIXTEENTHS: usize = 16;

/// Into how many buckets kept sketches go down.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Depth {
    /// 256 buckets: 90 kB, for up to about 8,000 differences.
    Coarse,
    /// 4,096 buckets as well: 1.1 MB.
    Fine,
}

impl Depth {
    /// Bytes of memory that sketches of this depth take.
    #[must_use]
    pub const fn bytes(self) -> usize {
        let fine = match self {
            Self::Coarse => 0,
            Self::Fine => FINE_IN_GROUP * size_of::<Packed<FINE_CAPACITY>>(),
        };
        let group = size_of::<Arc<Group>>() + size_of::<Group>() + 16 + fine;
        size_of::<Top>() + GROUPS * group + 128 * size_of::<i64>()
    }
}

/// What is kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Shape {
    /// Into how many buckets.
    pub depth: Depth,
    /// How many coded symbols: 0, or a multiple of 64.
    pub symbols: usize,
}

impl Shape {
    /// So many coded symbols, rounded up to 64.
    #[must_use]
    pub const fn new(depth: Depth, symbols: usize) -> Self {
        Self { depth, symbols: symbols.next_multiple_of(64) }
    }

    /// Bytes of memory that sketches of this shape take.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.depth.bytes() + KeptSymbols::bytes(self.symbols)
    }
}

impl From<Depth> for Shape {
    /// Without coded symbols.
    fn from(depth: Depth) -> Self {
        Self { depth, symbols: 0 }
    }
}

/// Syndromes of 39 bits in five bytes each.
#[derive(Clone, PartialEq, Eq)]
struct Packed<const N: usize> {
    low: [u32; N],
    high: [u8; N],
}

impl<const N: usize> Packed<N> {
    const NONE: Self = Self { low: [0; N], high: [0; N] };

    fn add(&mut self, powers: &[u64; MAX_CAPACITY]) {
        for (low, power) in self.low.iter_mut().zip(powers) {
            *low ^= *power as u32;
        }
        for (high, power) in self.high.iter_mut().zip(powers) {
            *high ^= (power >> u32::BITS) as u8;
        }
    }

    fn merge(&mut self, other: &Self) {
        self.low.iter_mut().zip(&other.low).for_each(|(ours, theirs)| *ours ^= theirs);
        self.high.iter_mut().zip(&other.high).for_each(|(ours, theirs)| *ours ^= theirs);
    }

    /// Adds its syndromes from `first` on to those.
    fn add_to(&self, sums: &mut [u64], first: usize) {
        let (low, high) = (&self.low[first..], &self.high[first..]);
        for ((sum, low), high) in sums.iter_mut().zip(low).zip(high) {
            *sum ^= u64::from(*high) << u32::BITS | u64::from(*low);
        }
    }
}

/// The whole collection, and its sixteenths.
#[derive(Clone, PartialEq, Eq)]
struct Top {
    all: Packed<MAX_CAPACITY>,
    sixteenths: [Packed<MAX_CAPACITY>; SIXTEENTHS],
}

#[derive(Clone, PartialEq, Eq)]
struct Group {
    coarse: Packed<MAX_CAPACITY>,
    /// None, or sixteen.
    fine: Box<[Packed<FINE_CAPACITY>]>,
}

impl Group {
    fn new(depth: Depth) -> Self {
        let fine = match depth {
            Depth::Coarse => 0,
            Depth::Fine => FINE_IN_GROUP,
        };
        Self { coarse: Packed::NONE, fine: vec![Packed::NONE; fine].into() }
    }

    fn add(&mut self, fine: usize, powers: &[u64; MAX_CAPACITY]) {
        self.coarse.add(powers);
        if let Some(fine) = self.fine.get_mut(fine) {
            fine.add(powers);
        }
    }
}

/// All syndromes of an entry.
fn powers_of(key: &KeyHash, record: &RecordDigest) -> [u64; MAX_CAPACITY] {
    let mut powers = [0; MAX_CAPACITY];
    let id = BucketId::of(IdWidth::Wide, key, record).get();
    pinsketch::toggle(IdWidth::Wide, &mut powers, 0, &[id]);
    powers
}

/// The fine bucket of a key within its group.
fn fine_of(key: &KeyHash) -> usize {
    bucket_of(GROUPS_LOG2 + 4, key) % FINE_IN_GROUP
}

/// Estimator and syndromes of a set of entries, in the order of nothing: equal for equal sets.
///
/// A clone shares everything with the original; of what changes in one of both, chunks of up to 6
/// kB are copied.
#[derive(Clone, PartialEq, Eq)]
pub struct Sketches {
    entries: u64,
    estimator: Arc<Estimator>,
    top: Arc<Top>,
    groups: Arc<Vec<Arc<Group>>>,
    symbols: Arc<KeptSymbols>,
    depth: Depth,
}

impl std::fmt::Debug for Sketches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sketches({} entries, {:?})", self.entries, self.shape())
    }
}

impl Sketches {
    /// Those of no entries.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        let Shape { depth, symbols } = shape;
        let none = Arc::new(Group::new(depth));
        let top = Top { all: Packed::NONE, sixteenths: [const { Packed::NONE }; SIXTEENTHS] };
        Self {
            entries: 0,
            estimator: Arc::default(),
            top: Arc::new(top),
            groups: Arc::new(vec![none; GROUPS]),
            symbols: Arc::new(KeptSymbols::new(symbols)),
            depth,
        }
    }

    /// How many entries they are of.
    #[must_use]
    pub const fn entries(&self) -> u64 {
        self.entries
    }

    /// How deep they go, and how many symbols there are.
    #[must_use]
    pub fn shape(&self) -> Shape {
        Shape { depth: self.depth, symbols: self.symbols.len() }
    }

    /// The first coded symbols of the entries: none, if none are kept.
    #[must_use]
    pub fn symbols(&self) -> &KeptSymbols {
        &self.symbols
    }

    /// Counters over the entries.
    #[must_use]
    pub fn estimator(&self) -> &Estimator {
        &self.estimator
    }

    /// Bytes of memory, if nothing is shared.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.shape().bytes()
    }

    /// Adds an entry that they were not of.
    pub fn add(&mut self, key: &KeyHash, record: &RecordDigest) {
        self.entries = self.entries.wrapping_add(1);
        Arc::make_mut(&mut self.estimator).add(record);
        if !self.symbols.is_empty() {
            Arc::make_mut(&mut self.symbols).add(ShortId::of(key, record));
        }
        self.toggle(key, record);
    }

    /// Takes away an entry that they were of.
    pub fn remove(&mut self, key: &KeyHash, record: &RecordDigest) {
        self.entries = self.entries.wrapping_sub(1);
        Arc::make_mut(&mut self.estimator).remove(record);
        if !self.symbols.is_empty() {
            Arc::make_mut(&mut self.symbols).remove(ShortId::of(key, record));
        }
        self.toggle(key, record);
    }

    fn toggle(&mut self, key: &KeyHash, record: &RecordDigest) {
        let powers = powers_of(key, record);
        let group = usize::from(key.bucket());
        let top = Arc::make_mut(&mut self.top);
        top.all.add(&powers);
        top.sixteenths[group / SIXTEENTHS].add(&powers);
        let groups = Arc::make_mut(&mut self.groups);
        Arc::make_mut(&mut groups[group]).add(fine_of(key), &powers);
    }

    /// Adds the entries of another group than those were in which it has.
    pub fn merge(&mut self, part: &SketchedGroup) {
        self.entries = self.entries.wrapping_add(part.entries);
        Arc::make_mut(&mut self.estimator).merge(&part.estimator);
        Arc::make_mut(&mut self.symbols).merge(&part.symbols);
        let top = Arc::make_mut(&mut self.top);
        let number = usize::from(part.number);
        top.all.merge(&part.group.coarse);
        top.sixteenths[number / SIXTEENTHS].merge(&part.group.coarse);
        let group = Arc::make_mut(&mut Arc::make_mut(&mut self.groups)[number]);
        group.coarse.merge(&part.group.coarse);
        for (ours, theirs) in group.fine.iter_mut().zip(&part.group.fine) {
            ours.merge(theirs);
        }
    }

    /// The same without fine buckets.
    #[must_use]
    pub fn coarse(&self) -> Self {
        let coarse = |group: &Arc<Group>| {
            Arc::new(Group { coarse: group.coarse.clone(), fine: Box::default() })
        };
        let groups = Arc::new(self.groups.iter().map(coarse).collect());
        Self { groups, depth: Depth::Coarse, ..self.clone() }
    }

    /// The syndromes of a portion; none if there are not as many buckets or syndromes, or its ids
    /// are narrow: then they are to be made from the entries. O(groups) at most, and the fine
    /// buckets where those are asked for.
    #[must_use]
    pub fn read(&self, portion: &Portion) -> Option<BucketSketch> {
        let log2 = portion.log2();
        let is_fine = log2 > GROUPS_LOG2;
        let too_deep = is_fine && (portion.end() > FINE_CAPACITY || self.depth == Depth::Coarse);
        if portion.width() != IdWidth::Wide || too_deep {
            return None;
        }
        let depth = portion.depth();
        let mut syndromes = vec![0; portion.len() * depth];
        for (slot, sums) in syndromes.chunks_exact_mut(depth).enumerate() {
            self.add_bucket(log2, portion.number(slot), sums, portion.first());
        }
        Some(BucketSketch::from_syndromes(portion.clone(), syndromes))
    }

    fn add_bucket(&self, log2: u8, bucket: usize, sums: &mut [u64], first: usize) {
        match log2 {
            0 => self.top.all.add_to(sums, first),
            1..=4 => {
                let each = SIXTEENTHS >> log2;
                let parts = &self.top.sixteenths[bucket * each..(bucket + 1) * each];
                parts.iter().for_each(|part| part.add_to(sums, first));
            }
            5..=GROUPS_LOG2 => {
                let each = GROUPS >> log2;
                let parts = &self.groups[bucket * each..(bucket + 1) * each];
                parts.iter().for_each(|part| part.coarse.add_to(sums, first));
            }
            _ => {
                let in_group = log2 - GROUPS_LOG2;
                let each = FINE_IN_GROUP >> in_group;
                let at = (bucket % (1 << in_group)) * each;
                let parts = &self.groups[bucket >> in_group].fine[at..at + each];
                parts.iter().for_each(|part| part.add_to(sums, first));
            }
        }
    }
}

/// What the entries of one group add to [`Sketches`].
pub struct SketchedGroup {
    number: u8,
    entries: u64,
    estimator: Estimator,
    symbols: KeptSymbols,
    group: Group,
}

impl SketchedGroup {
    /// Of entries whose key hashes all begin with this byte; others are passed over.
    #[must_use]
    pub fn of_items(
        number: u8,
        Shape { depth, symbols }: Shape,
        items: impl IntoIterator<Item = (KeyHash, RecordDigest)>,
    ) -> Self {
        let (estimator, symbols) = (Estimator::default(), KeptSymbols::new(symbols));
        let mut part = Self { number, entries: 0, estimator, symbols, group: Group::new(depth) };
        for (key, record) in items.into_iter().filter(|(key, _)| key.bucket() == number) {
            part.entries += 1;
            part.estimator.add(&record);
            if !part.symbols.is_empty() {
                part.symbols.add(ShortId::of(&key, &record));
            }
            part.group.add(fine_of(&key), &powers_of(&key, &record));
        }
        part
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;
    use crate::sketch::Layout;
    use proptest::prelude::*;

    fn item(number: u64) -> (KeyHash, RecordDigest) {
        let hash = |of: u64| *blake3::hash(&[number, of].map(u64::to_le_bytes).concat()).as_bytes();
        (KeyHash(hash(0)), RecordDigest(hash(1)))
    }

    fn of(shape: Shape, items: &BTreeSet<u64>) -> Sketches {
        let mut sketches = Sketches::new(shape);
        for (key, record) in items.iter().map(|number| item(*number)) {
            sketches.add(&key, &record);
        }
        sketches
    }

    proptest! {
        #[test]
        fn they_are_those_of_the_entries_whatever_came_and_went(
            steps in prop::collection::vec((0..60_u64, any::<bool>()), 0..120), log2 in 0u8..=12,
            first in 0u8..47, more in 1u8..17, frozen_at in 0usize..120, fine: bool,
            symbols in prop::sample::select(vec![0usize, 1, 128]),
        ) {
            let shape = Shape::new(if fine { Depth::Fine } else { Depth::Coarse }, symbols);
            let (mut held, mut sketches) = (BTreeSet::new(), Sketches::new(shape));
            let mut frozen = None;
            for (at, (number, adds)) in steps.into_iter().enumerate() {
                let (key, record) = item(number);
                if adds && held.insert(number) {
                    sketches.add(&key, &record);
                } else if !adds && held.remove(&number) {
                    sketches.remove(&key, &record);
                }
                if at == frozen_at {
                    frozen = Some((sketches.clone(), held.clone()));
                }
            }
            prop_assert_eq!(&sketches, &of(shape, &held));
            prop_assert_eq!(sketches.shape(), shape);
            if let Some((frozen, held)) = frozen {
                prop_assert_eq!(frozen, of(shape, &held), "a copy is left alone");
            }
            let mut merged = Sketches::new(shape);
            for number in 0..=u8::MAX {
                let items = held.iter().map(|number| item(*number));
                merged.merge(&SketchedGroup::of_items(number, shape, items));
            }
            prop_assert_eq!(&merged, &sketches);
            let coarse = Shape { depth: Depth::Coarse, ..shape };
            prop_assert_eq!(sketches.coarse(), of(coarse, &held));
            // any portion, first or later
            let layout = Layout::new(IdWidth::Wide, log2, first.max(1)).unwrap();
            let whole = layout.buckets();
            let failed = (0..whole.div_ceil(8)).map(|at| if whole < 8 { 1 } else { at as u8 | 1 });
            let wire = crate::sketch::WireRefill { capacity: first + more, failed: failed.collect() };
            for portion in [Some(layout.all()), layout.refill(&wire).ok()].into_iter().flatten() {
                let scanned = held.iter().map(|number| item(*number));
                let scanned = BucketSketch::of_items(portion.clone(), scanned);
                let deep = log2 > 8 && (!fine || portion.end() > FINE_CAPACITY);
                prop_assert_eq!(sketches.read(&portion), (!deep).then_some(scanned));
            }
        }
    }

    #[test]
    fn narrow_ids_are_not_kept() {
        let layout = Layout::new(IdWidth::Narrow, 0, 4).unwrap();
        assert_eq!(Sketches::new(Depth::Fine.into()).read(&layout.all()), None);
    }

    #[test]
    fn they_take_the_memory_that_is_said() {
        assert!(Depth::Coarse.bytes() < 100_000, "{}", Depth::Coarse.bytes());
        assert!(Depth::Fine.bytes() < 1_120_000, "{}", Depth::Fine.bytes());
    }
}
