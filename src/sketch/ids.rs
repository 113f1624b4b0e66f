//! Short ids: what entries are called while it is found out which of them differ.

use super::buckets::Layout;
use crate::hash::{KeyHash, RecordDigest};
use crate::merkle::Prefix;

/// First bits of a key hash that are in no id: only buckets tell them.
const SKIPPED_BITS: u32 = 4;
/// Entries from which on ids are wide.
pub const WIDE_FROM_ENTRIES: u64 = 4_096;

/// How many bits an id has: those of an element of the field in which sketches are made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum IdWidth {
    /// 29 bits, for collections below [`WIDE_FROM_ENTRIES`].
    Narrow,
    /// 39 bits, for all others.
    Wide,
}

impl IdWidth {
    /// The width when the larger of two collections has so many entries.
    #[must_use]
    pub const fn of_entries(most: u64) -> Self {
        if most < WIDE_FROM_ENTRIES { Self::Narrow } else { Self::Wide }
    }

    /// Bits of an id.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Narrow => 29,
            Self::Wide => 39,
        }
    }

    /// How many first bits of a key hash an id and its bucket may tell: enough that few keys of
    /// such a collection share them.
    #[must_use]
    pub const fn key_bits(self) -> u32 {
        match self {
            Self::Narrow => 12,
            Self::Wide => 20,
        }
    }

    /// Bits of an id that are of the record digest.
    const fn record_bits(self) -> u32 {
        self.bits() - (self.key_bits() - SKIPPED_BITS)
    }
}

/// Bits of a [`ShortId`].
pub const ID_BITS: u32 = 44;

/// What an entry is called where there are no buckets: the first 20 bits of its key hash, then 24
/// of its record digest. Never 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShortId(u64);

impl ShortId {
    const KEY_BITS: u32 = 20;
    const MASK: u64 = (1 << ID_BITS) - 1;

    /// The id of an entry.
    #[must_use]
    pub fn of(key: &KeyHash, record: &RecordDigest) -> Self {
        let of_key = first_bits(&key.0) >> (64 - Self::KEY_BITS);
        let of_record = first_bits(&record.0) >> (64 - ID_BITS + Self::KEY_BITS);
        Self::truncated(of_key << (ID_BITS - Self::KEY_BITS) | of_record)
    }

    /// An id of these bits; none if they are 0 or more than 44.
    #[must_use]
    pub const fn new(bits: u64) -> Option<Self> {
        if bits == 0 || bits > Self::MASK { None } else { Some(Self(bits)) }
    }

    /// The id of the lowest 44 bits; 1 if they are 0.
    #[must_use]
    pub const fn truncated(bits: u64) -> Self {
        let bits = bits & Self::MASK;
        Self(if bits == 0 { 1 } else { bits })
    }

    /// Its bits.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Where in the tree its leaf stands, or would stand: a subtree of about one leaf.
    #[must_use]
    pub fn prefix(self) -> Prefix {
        prefix(self.0 << (64 - ID_BITS), Self::KEY_BITS)
    }
}

/// What an entry is called within its bucket: some bits of its key hash, then the first ones of
/// its record digest. Never 0, since 0 is nothing to a sketch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct BucketId(u64);

impl BucketId {
    /// The id of an entry.
    pub(super) fn of(width: IdWidth, key: &KeyHash, record: &RecordDigest) -> Self {
        let of_key = (first_bits(&key.0) << SKIPPED_BITS) >> (64 + SKIPPED_BITS - width.key_bits());
        let of_record = first_bits(&record.0) >> (64 - width.record_bits());
        Self::truncated(width, of_key << width.record_bits() | of_record)
    }

    /// The id of the lowest bits; 1 if they are 0.
    pub(super) const fn truncated(width: IdWidth, bits: u64) -> Self {
        let bits = bits & ((1 << width.bits()) - 1);
        Self(if bits == 0 { 1 } else { bits })
    }

    /// Its bits.
    pub(super) const fn get(self) -> u64 {
        self.0
    }

    /// Whether an entry of this bucket can have it: the bits that both tell are the same.
    pub(super) const fn is_of(self, width: IdWidth, log2: u8, bucket: usize) -> bool {
        let shared = shared_bits(log2);
        let of_bucket = bucket as u64 & ((1 << shared) - 1);
        // the one that would be 0 is 1 in its last bit alone
        self.0 >> (width.bits() - shared) == of_bucket
    }
}

/// Bits that both bucket and id tell.
const fn shared_bits(log2: u8) -> u32 {
    (log2 as u32).saturating_sub(SKIPPED_BITS)
}

/// Bits of the key hash, before those that the id tells, that a bucket does not tell.
const fn open_bits(log2: u8) -> u32 {
    SKIPPED_BITS.saturating_sub(log2 as u32)
}

fn first_bits(hash: &[u8; 32]) -> u64 {
    hash.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// The bucket of a key among 2^`log2`: the first bits of its hash.
pub(super) fn bucket_of(log2: u8, key: &KeyHash) -> usize {
    // one bit first, so that the other shift is never 64
    (first_bits(&key.0) >> 1 >> (63 - log2)) as usize
}

/// The subtree of all keys in a bucket.
pub(super) fn bucket_prefix(log2: u8, bucket: usize) -> Prefix {
    let bits = (bucket as u64) << 1 << (63 - log2);
    prefix(bits, u32::from(log2))
}

fn prefix(first: u64, bits: u32) -> Prefix {
    let mut hash = KeyHash([0; 32]);
    hash.0[..8].copy_from_slice(&first.to_be_bytes());
    Prefix::of(&hash, bits as u16)
}

/// An entry that only one of two sides holds, by what a sketch tells of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DifferingId {
    pub(super) width: IdWidth,
    /// Of how many first bits of the key hash the bucket tells.
    pub(super) log2: u8,
    pub(super) bucket: u16,
    pub(super) id: BucketId,
}

impl DifferingId {
    /// Where in the tree its leaf stands, or would stand: one subtree of about one leaf, several
    /// such if there are fewer than 16 buckets.
    pub fn prefixes(&self) -> impl Iterator<Item = Prefix> + use<> {
        let missing = open_bits(self.log2);
        let (bucket, log2) = (u64::from(self.bucket), u32::from(self.log2));
        let key_bits = self.width.key_bits();
        // bits of the key hash that only the id tells
        let of_id = self.id.0 >> self.width.record_bits();
        let known = log2 + missing;
        let low = of_id & ((1 << (key_bits - known)) - 1);
        (0..1_u64 << missing).map(move |high| {
            let bits = ((bucket << missing | high) << (key_bits - known)) | low;
            prefix(bits << (64 - key_bits), key_bits)
        })
    }

    /// How many bits of a key hash an id leaves open: its leaf may stand at 2 to the power of them
    /// places.
    #[must_use]
    pub const fn open_bits(layout: Layout) -> u32 {
        open_bits(layout.buckets_log2())
    }

    /// Whether this is what it tells of.
    #[must_use]
    pub fn matches(&self, key: &KeyHash, record: &RecordDigest) -> bool {
        bucket_of(self.log2, key) == usize::from(self.bucket)
            && BucketId::of(self.width, key, record) == self.id
    }

    /// Whether the two may be versions of one key.
    #[must_use]
    pub fn may_share_key(&self, other: &Self) -> bool {
        self.key_part() == other.key_part()
    }

    /// That of a [`ShortId`], as among [so many buckets](Layout::SHORT) that they tell nearly all of
    /// it: so it can be attributed and named. The last bit of the id is left out.
    #[must_use]
    pub const fn of_short(id: ShortId) -> Self {
        Self::of_code(Layout::SHORT, id.get() >> 1)
    }

    /// What it tells of the key hash.
    pub(super) const fn key_part(&self) -> (u16, u64) {
        (self.bucket, self.id.0 >> self.width.record_bits())
    }

    /// That of an entry, in a sketch of this layout.
    pub(super) fn of(layout: Layout, key: &KeyHash, record: &RecordDigest) -> Self {
        let (width, log2) = (layout.width(), layout.buckets_log2());
        let bucket = bucket_of(log2, key) as u16;
        Self { width, log2, bucket, id: BucketId::of(width, key, record) }
    }

    /// Bucket and id in a row; the bits that both tell stand once.
    pub(super) const fn code(&self) -> u64 {
        let bits = self.width.bits() - shared_bits(self.log2);
        (self.bucket as u64) << bits | (self.id.0 & ((1 << bits) - 1))
    }

    /// How many bits a code has.
    pub(super) const fn code_bits(layout: Layout) -> u32 {
        let log2 = layout.buckets_log2();
        log2 as u32 + layout.width().bits() - shared_bits(log2)
    }

    /// What has this code.
    pub(super) const fn of_code(layout: Layout, code: u64) -> Self {
        let (width, log2) = (layout.width(), layout.buckets_log2());
        let shared = shared_bits(log2);
        let bits = width.bits() - shared;
        let bucket = code >> bits;
        let id = (bucket & ((1 << shared) - 1)) << bits | (code & ((1 << bits) - 1));
        // not as an id that is never 0: of one that was cut short only the first bits count
        Self { width, log2, bucket: bucket as u16, id: BucketId(id) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_id_leads_to_where_its_leaf_stands(
            key: [u8; 32], record: [u8; 32], other: [u8; 32], log2 in 0u8..=12, wide: bool,
        ) {
            let width = if wide { IdWidth::Wide } else { IdWidth::Narrow };
            let (key, record, other) = (KeyHash(key), RecordDigest(record), KeyHash(other));
            let bucket = bucket_of(log2, &key);
            let id = BucketId::of(width, &key, &record);
            let differing = DifferingId { width, log2, bucket: bucket as u16, id };
            prop_assert!(differing.matches(&key, &record));
            prop_assert!(bucket_prefix(log2, bucket).contains(&key));
            let prefixes: Vec<Prefix> = differing.prefixes().collect();
            prop_assert_eq!(prefixes.len(), 1 << 4_u8.saturating_sub(log2));
            prop_assert_eq!(prefixes.iter().filter(|prefix| prefix.contains(&key)).count(), 1);
            for prefix in &prefixes {
                prop_assert_eq!(u32::from(prefix.len()), width.key_bits());
                prop_assert!(bucket_prefix(log2, bucket).is_prefix_of(prefix));
            }
            // buckets side by side, in the order of keys
            prop_assert_eq!(bucket_of(log2, &other) < bucket,
                other < bucket_prefix(log2, bucket).first_key());
            prop_assert!(id.is_of(width, log2, bucket));
            let layout = Layout::new(width, log2, 1).unwrap();
            prop_assert_eq!(DifferingId::of(layout, &key, &record), differing);
            let (code, bits) = (differing.code(), DifferingId::code_bits(layout));
            prop_assert!(code >> bits == 0);
            prop_assert_eq!(code >> (bits - u32::from(log2)), bucket as u64);
            prop_assert_eq!(DifferingId::of_code(layout, code), differing);
        }
    }

    #[test]
    fn the_id_of_an_entry_is_what_the_specification_says() {
        let key = KeyHash(std::array::from_fn(|at| (0x12 + 0x22 * at) as u8));
        let record = RecordDigest(std::array::from_fn(|at| (0xff0 - 0x10 * at) as u8));
        // key hash 12 34 56 .., record digest f0 e0 d0 ..
        let wide = BucketId::of(IdWidth::Wide, &key, &record).get();
        assert_eq!(wide, 0x2345 << 23 | 0xf0_e0d0 >> 1);
        let narrow = BucketId::of(IdWidth::Narrow, &key, &record).get();
        assert_eq!(narrow, 0x23 << 21 | 0xf0_e0d0 >> 3);
        // the same, in longer
        assert_eq!(ShortId::of(&key, &record).get() >> 1 & ((1 << 39) - 1), wide);
        assert_eq!(ShortId::of(&key, &record).get(), 0x12345 << 24 | 0xf0_e0d0);
        assert!(ShortId::of(&key, &record).prefix().contains(&key));
        let nothing = BucketId::of(IdWidth::Wide, &KeyHash([0; 32]), &RecordDigest([0; 32]));
        assert_eq!(nothing.get(), 1);
    }
}
