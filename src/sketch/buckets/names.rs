//! Names of entries that the other side holds: as short as they can be told apart there.

use serde::{Deserialize, Serialize};

use super::super::ids::DifferingId;
use super::{Layout, SketchError};
use crate::codec::bits::{BitReader, BitWriter, rice_low};
use crate::merkle::{Leaf, Prefix};

/// Bits of a name beyond those that tell so many entries apart: it fits another entry in one of
/// 128 cases, which costs telling of that one too.
const SPARE_BITS: u32 = 7;

/// What travels of names.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct WireNames {
    /// How many.
    pub count: u32,
    /// Their differences, Rice-coded.
    #[serde(with = "crate::delta::bytes")]
    pub gaps: Vec<u8>,
}

/// Entries that are named by the first bits of bucket and id: as many bits as tell the entries of
/// the larger collection apart, and seven more.
///
/// On the wire they stand in ascending order, each as its distance from the one before less one
/// (from the start for the first), Rice-coded (Rice 1979): 1.5 bits for each beyond what that
/// many of so many possible ones must take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Names {
    layout: Layout,
    /// Bits that each one lacks.
    cut: u32,
    /// Bits that each one has.
    bits: u32,
    names: Vec<u64>,
}

impl Names {
    /// Names these entries of a peer, of whose and the own collection the larger one has
    /// `most_entries`.
    #[must_use]
    pub fn new(layout: Layout, most_entries: u64, ids: &[DifferingId]) -> Self {
        let (cut, bits) = cut_of(layout, most_entries);
        let mut names: Vec<u64> = ids.iter().map(|id| id.code() >> cut).collect();
        names.sort_unstable();
        names.dedup();
        Self { layout, cut, bits, names }
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether nothing is named.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// What is sent.
    #[must_use]
    pub fn to_wire(&self) -> WireNames {
        let low = low_bits(self.bits, self.names.len() as u64);
        let mut writer = BitWriter::default();
        let mut next = 0;
        for name in &self.names {
            writer.put_rice(name - next, low);
            next = name + 1;
        }
        WireNames { count: self.names.len() as u32, gaps: writer.finish() }
    }

    /// Reads names that answer a sketch of this layout. Allocates what the bytes can hold.
    ///
    /// # Errors
    /// They are not the one form of so many names.
    pub fn from_wire(
        wire: &WireNames,
        layout: Layout,
        most_entries: u64,
    ) -> Result<Self, SketchError> {
        let (cut, bits) = cut_of(layout, most_entries);
        let low = low_bits(bits, u64::from(wire.count));
        let count = u64::from(wire.count);
        if count >> bits > 1 || count * u64::from(low + 1) > 8 * wire.gaps.len() as u64 {
            return Err(SketchError::Names("there are fewer than it says"));
        }
        let mut reader = BitReader::new(&wire.gaps);
        let mut names = Vec::with_capacity(wire.count as usize);
        let mut next = 0_u64;
        for _ in 0..wire.count {
            let gap = reader.rice(low).map_err(|_| SketchError::Names("a name has no end"))?;
            let name = next.checked_add(gap).filter(|name| name >> bits == 0);
            let name = name.ok_or(SketchError::Names("a name is out of range"))?;
            names.push(name);
            next = name + 1;
        }
        reader.finish().map_err(|_| SketchError::Names("bytes follow the last name"))?;
        Ok(Self { layout, cut, bits, names })
    }

    /// The own leaves that are named, ascending; `leaves` gives those under a prefix, of which
    /// there are few. O(1) such looks for each name, 16 with a single bucket.
    ///
    /// # Errors
    /// `leaves` fails.
    pub fn resolve<E>(
        &self,
        mut leaves: impl FnMut(&Prefix) -> Result<Vec<Leaf>, E>,
    ) -> Result<Vec<Leaf>, E> {
        let mut named = Vec::with_capacity(self.names.len());
        for name in &self.names {
            let id = DifferingId::of_code(self.layout, name << self.cut);
            for prefix in id.prefixes() {
                let fits = |leaf: &Leaf| {
                    let own = DifferingId::of(self.layout, &leaf.key, &leaf.record);
                    own.code() >> self.cut == *name
                };
                named.extend(leaves(&prefix)?.into_iter().filter(fits));
            }
        }
        named.sort_unstable_by_key(|leaf| leaf.key);
        Ok(named)
    }
}

/// How many bits of a whole code are cut off a name, and how many are left.
fn cut_of(layout: Layout, most_entries: u64) -> (u32, u32) {
    let whole = DifferingId::code_bits(layout);
    let entries = u64::BITS - (most_entries.max(2) - 1).leading_zeros();
    let bits = (entries + SPARE_BITS).clamp(layout.width().key_bits(), whole);
    (whole - bits, bits)
}

/// Bits of a gap that are written as they are.
const fn low_bits(bits: u32, count: u64) -> u8 {
    rice_low((1 << bits) / if count == 0 { 1 } else { count })
}
