//! Deltas: whatever arrives, the result is the value that was offered or none.

use arbitrary::Unstructured;
use selfsame::delta::{
    BaseId, BlockSignature, Encoded, Encoding, Expected, IdMargin, Signature, SignatureKey, decode,
    diff, diff_blocks, encode_patch, encode_prefixed, encode_whole, match_chunks,
};
use selfsame::hash::HashAlgorithm;
use selfsame::limits::Limits;
use selfsame::session::wire;

const ALGORITHM: HashAlgorithm = HashAlgorithm::Blake3;
/// Keys the ids of blocks.
pub const KEY: SignatureKey = SignatureKey([7; 32]);

/// What a peer may send, and to whom.
#[derive(Debug)]
struct Delivery {
    /// Which value was offered.
    target: u8,
    /// Which base is held.
    base: u8,
    encoding: u8,
    max_value_bytes: u16,
    max_operations: u16,
    bytes: Vec<u8>,
}

impl Delivery {
    /// The fields in their order; everything that is left are the bytes.
    fn read(input: &[u8]) -> arbitrary::Result<Self> {
        let mut input = Unstructured::new(input);
        Ok(Self {
            target: input.arbitrary()?,
            base: input.arbitrary()?,
            encoding: input.arbitrary()?,
            max_value_bytes: input.arbitrary()?,
            max_operations: input.arbitrary()?,
            bytes: input.take_rest().to_vec(),
        })
    }
}

/// A value of up to some kilobytes; those of near numbers are alike.
#[must_use]
pub fn value(number: u8) -> Vec<u8> {
    let size = [0, 1, 70, 900, 1_500, 4_000, 9_000, 40_000][usize::from(number) % 8];
    let shift = usize::from(number / 8);
    let mut bytes: Vec<u8> = (0..size).map(|at| (at * at / 91 + at / 7) as u8).collect();
    if !bytes.is_empty() {
        let at = shift * 97 % bytes.len();
        bytes[at] ^= number;
        bytes.rotate_left(at / 3);
    }
    bytes
}

/// The input is a delivery, structured; its bytes are read as an encoding and as a signature.
pub fn check(input: &[u8]) {
    let Ok(delivery) = Delivery::read(input) else { return };
    let (target, base) = (value(delivery.target), value(delivery.base));
    let limits = Limits {
        max_value_bytes: u64::from(delivery.max_value_bytes),
        max_patch_operations: usize::from(delivery.max_operations),
        ..Limits::default()
    };
    arrives(&delivery, &target, &base, &limits);
    if let Ok(signature) = wire::decode::<Signature>(&delivery.bytes) {
        signed(&signature, &target, &base, &limits);
    }
    if let Ok(signature) = wire::decode::<BlockSignature>(&delivery.bytes)
        && let Signature::Chunks(chunks) = chunks_of(&base, &target)
        && let Ok(matched) = match_chunks(&target, &chunks, &KEY, &limits)
        && let Ok(patch) = diff(&target, &matched, Some(&signature), &KEY, &limits)
    {
        assert_eq!(patch.target_len(), target.len() as u64);
    }
}

fn arrives(delivery: &Delivery, target: &[u8], base: &[u8], limits: &Limits) {
    let id = BaseId::of(&ALGORITHM.value_hash(base));
    let encoding = match delivery.encoding % 4 {
        0 => Encoding::Raw,
        1 => Encoding::Zstd,
        2 => Encoding::Prefixed { base: id },
        _ => Encoding::Patch { base: id },
    };
    let encoded = Encoded { encoding, bytes: delivery.bytes.clone() };
    let expected = Expected::of(target, ALGORITHM);
    let held = (delivery.encoding < 128).then_some(base);
    if let Ok(value) = decode(&encoded, held, &expected, ALGORITHM, limits) {
        assert_eq!(value, target);
        assert!(value.len() as u64 <= limits.max_value_bytes);
    }
}

/// A patch made from any signature describes the target; whether it decodes, the base tells.
fn signed(signature: &Signature, target: &[u8], base: &[u8], limits: &Limits) {
    let patch = match signature {
        Signature::Blocks(blocks) => diff_blocks(target, blocks, &KEY, limits),
        Signature::Chunks(chunks) => {
            match_chunks(target, chunks, &KEY, limits).and_then(|matched| {
                let _ = matched.gaps();
                diff(target, &matched, None, &KEY, limits)
            })
        }
    };
    let Ok(patch) = patch else { return };
    assert_eq!(patch.target_len(), target.len() as u64);
    let id = BaseId::of(&ALGORITHM.value_hash(base));
    if let Some(encoded) = encode_patch(&patch, id, target) {
        let expected = Expected::of(target, ALGORITHM);
        if let Ok(value) = decode(&encoded, Some(base), &expected, ALGORITHM, limits) {
            assert_eq!(value, target);
        }
    }
}

fn chunks_of(base: &[u8], target: &[u8]) -> Signature {
    let target_len = target.len() as u64;
    Signature::Chunks(selfsame::delta::ChunkSignature::of(base, target_len, &KEY, IdMargin::First))
}

/// Inputs from real encodings.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (target, base) in [(3, 11), (4, 12), (5, 13), (6, 14), (7, 15)] {
        let (new, old) = (value(target), value(base));
        let id = BaseId::of(&ALGORITHM.value_hash(&old));
        let signature = Signature::of(&old, new.len() as u64, &KEY, IdMargin::First);
        let patch = match &signature {
            Some(Signature::Blocks(blocks)) => {
                diff_blocks(&new, blocks, &KEY, &Limits::default()).ok()
            }
            _ => None,
        };
        let encodings = [
            (0, Some(new.clone()).filter(|raw| raw.len() < 2_000)),
            (1, Some(encode_whole(&new).bytes)),
            (2, encode_prefixed(&old, id, &new).map(|encoded| encoded.bytes)),
            (3, patch.and_then(|patch| encode_patch(&patch, id, &new)).map(|it| it.bytes)),
            (0, signature.and_then(|signature| wire::encode(&signature).ok())),
        ];
        for (encoding, bytes) in encodings {
            let Some(bytes) = bytes.filter(|bytes| bytes.len() < 3_000) else { continue };
            let mut seed = vec![target, base, encoding, 0xff, 0xff, 0xff, 0xff];
            seed.extend(bytes);
            seeds.push(seed);
        }
    }
    seeds
}
