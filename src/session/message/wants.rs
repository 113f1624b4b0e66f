//! What values are wanted, packed.
//!
//! Both sides count the siblings that the one has told the other without their values, in the order
//! in which they were told: so a number names a sibling, and those of a request that asks for all of
//! them take a bit each. A dot would take ten bytes, and an id cut to log2 n + 7 bits three.

use serde::{Deserialize, Serialize};

use super::Bytes;
use crate::codec::CodecError;
use crate::codec::bits::{BitReader, BitWriter, rice_low};
use crate::delta::{BASE_ID_BYTES, BaseId, Signature};

/// Bits that say how many bases are named.
const COUNT_BITS: u8 = 3;
/// Bits that say with how many low bits numbers are coded.
const LOW_BITS: u8 = 5;

/// Which values the receiver holds of the key, best base first.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Bases {
    /// Those of the receiver's state of the key, which it has told.
    Told,
    /// These, at most [`Bases::MOST`].
    These(Vec<BaseId>),
}

impl Bases {
    /// Bases named for one value, at most.
    pub const MOST: usize = 4;
}

/// One wanted value.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Want {
    /// Number of the sibling among those told without their values.
    pub of: u32,
    /// Bases that a delta may be made against.
    pub bases: Bases,
    /// Signature of the first base, when the sender is not expected to have it.
    pub signature: Option<Signature>,
}

/// Wanted values as they travel.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Wants {
    bits: Bytes,
    signatures: Vec<Signature>,
}

impl Wants {
    /// Packs wants; of two for one sibling the first counts.
    #[must_use]
    pub fn pack(mut wants: Vec<Want>) -> Self {
        wants.sort_by_key(|want| want.of);
        wants.dedup_by_key(|want| want.of);
        let ends = [wants.first(), wants.last()];
        let [first, last] = ends.map(|want| want.map_or(0, |want| u64::from(want.of)));
        let gaps = (wants.len() as u64).saturating_sub(1);
        let between = last - first - gaps;
        let low = rice_low(between / gaps.max(1));
        let mut bits = BitWriter::default();
        bits.put_gamma(wants.len() as u64 + 1);
        bits.put_gamma(first + 1);
        bits.put(u64::from(low), LOW_BITS);
        let (mut next, mut signatures) = (first, Vec::new());
        for (at, want) in wants.into_iter().enumerate() {
            if at > 0 {
                bits.put_rice(u64::from(want.of) - next, low);
            }
            next = u64::from(want.of) + 1;
            bits.put_bit(want.bases == Bases::Told);
            if let Bases::These(bases) = &want.bases {
                let bases = &bases[..bases.len().min(Bases::MOST)];
                bits.put(bases.len() as u64, COUNT_BITS);
                let bytes = bases.iter().flat_map(|base| base.to_bytes());
                bytes.for_each(|byte| bits.put(u64::from(byte), 8));
            }
            bits.put_bit(want.signature.is_some());
            signatures.extend(want.signature);
        }
        Self { bits: Bytes(bits.finish()), signatures }
    }

    /// The wants, ascending by number, none twice.
    ///
    /// # Errors
    /// The bits are not such a list, or there are more or fewer signatures than they say.
    pub fn unpack(self) -> Result<Vec<Want>, CodecError> {
        let mut bits = BitReader::new(&self.bits.0);
        let count = bits.gamma()? - 1;
        let first = bits.gamma()? - 1;
        let low = bits.read(LOW_BITS)? as u8;
        let (mut next, mut wants) = (first, Vec::new());
        let mut signatures = self.signatures.into_iter();
        // each takes some bits at least: what is not there is not counted on
        for at in 0..count {
            let gap = if at > 0 { bits.rice(low)? } else { 0 };
            let of = next.checked_add(gap);
            let of = of.and_then(|of| u32::try_from(of).ok());
            let of = of.ok_or(CodecError::Invalid("a number is over 32 bits"))?;
            next = u64::from(of) + 1;
            let bases = if bits.bit()? { Bases::Told } else { read_bases(&mut bits)? };
            let signature = match bits.bit()? {
                true => Some(signatures.next().ok_or(CodecError::Truncated)?),
                false => None,
            };
            wants.push(Want { of, bases, signature });
        }
        bits.finish()?;
        match signatures.len() {
            0 => Ok(wants),
            left => Err(CodecError::Trailing(left)),
        }
    }
}

fn read_bases(bits: &mut BitReader<'_>) -> Result<Bases, CodecError> {
    let count = bits.read(COUNT_BITS)? as usize;
    if count > Bases::MOST {
        return Err(CodecError::Invalid("more bases than one value may have"));
    }
    let mut bases = Vec::new();
    for _ in 0..count {
        let mut bytes = [0; BASE_ID_BYTES];
        for byte in &mut bytes {
            *byte = bits.read(8)? as u8;
        }
        bases.push(BaseId::from_bytes(bytes));
    }
    Ok(Bases::These(bases))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::delta::{IdMargin, SignatureKey};
    use proptest::prelude::*;

    fn want() -> impl Strategy<Value = (u32, Bases, bool)> {
        let base = any::<[u8; BASE_ID_BYTES]>().prop_map(BaseId::from_bytes);
        let these = prop::collection::vec(base, 0..=Bases::MOST).prop_map(Bases::These);
        let number = prop_oneof![0u32..1_000, any::<u32>()];
        (number, prop_oneof![Just(Bases::Told), these], any::<bool>())
    }

    proptest! {
        #[test]
        fn wants_come_back_in_order_and_once(
            wants in prop::collection::vec(want(), 0..30)
        ) {
            let key = SignatureKey([1; 32]);
            let signature = Signature::of(&[7; 2_000], 2_000, &key, IdMargin::First).unwrap();
            let mut expected: Vec<Want> = wants
                .into_iter()
                .map(|(of, bases, signed)| {
                    Want { of, bases, signature: signed.then(|| signature.clone()) }
                })
                .collect();
            let packed = Wants::pack(expected.clone());
            expected.sort_by_key(|want| want.of);
            expected.dedup_by_key(|want| want.of);
            prop_assert_eq!(packed.unpack().unwrap(), expected);
        }

        #[test]
        fn any_bytes_are_wants_or_refused(bits in prop::collection::vec(any::<u8>(), 0..60)) {
            let wants = Wants { bits: Bytes(bits.clone()), signatures: Vec::new() };
            if let Ok(wants) = wants.unpack() {
                prop_assert!(wants.len() <= 8 * bits.len());
                prop_assert!(wants.windows(2).all(|pair| pair[0].of < pair[1].of));
            }
        }
    }

    #[test]
    fn a_hundred_in_a_row_take_three_bits_each() {
        let want = |of| Want { of, bases: Bases::Told, signature: None };
        let packed = Wants::pack((900..1_000).map(want).collect());
        assert_eq!(packed.bits.0.len(), 42);
        // every other one
        let packed = Wants::pack((0..200).step_by(2).map(want).collect());
        assert_eq!(packed.bits.0.len(), 53);
    }

    #[test]
    fn counts_without_end_are_refused_by_what_is_there() {
        let mut bits = BitWriter::default();
        bits.put_gamma(u64::MAX);
        let wants = Wants { bits: Bytes(bits.finish()), signatures: Vec::new() };
        assert!(wants.unpack().is_err());
        let mut bits = BitWriter::default();
        bits.put_gamma(2);
        bits.put_gamma(1);
        bits.put(0, LOW_BITS + 1 + COUNT_BITS);
        bits.put_bit(true);
        let wants = Wants { bits: Bytes(bits.finish()), signatures: Vec::new() };
        assert_eq!(wants.unpack(), Err(CodecError::Truncated), "a signature is missing");
    }
}
