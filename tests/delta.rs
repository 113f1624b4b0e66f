//! Deltas lead to the target, from any base, and decoding trusts nobody.
#![cfg(feature = "session")]
#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;
use selfsame::delta::{
    self, BaseId, BlockSignature, DeltaError, Encoded, Encoding, Expected, IdMargin, Patch,
    Signature, SignatureKey,
};
use selfsame::hash::HashAlgorithm;
use selfsame::limits::Limits;

const ALGORITHM: HashAlgorithm = HashAlgorithm::Blake3;
const KEY: SignatureKey = SignatureKey([5; 32]);

fn base_id(base: &[u8]) -> BaseId {
    BaseId::of(&ALGORITHM.value_hash(base))
}

/// What the two ends say to each other when the sender has not the base.
fn patch_for(base: &[u8], target: &[u8]) -> Option<(Patch, usize)> {
    let (limits, margin) = (Limits::default(), IdMargin::Retry);
    let signature = Signature::of(base, target.len() as u64, &KEY, margin)?;
    let mut said = signature.wire_len();
    let patch = match signature {
        Signature::Blocks(blocks) => delta::diff_blocks(target, &blocks, &KEY, &limits).unwrap(),
        Signature::Chunks(chunks) => {
            let found = delta::match_chunks(target, &chunks, &KEY, &limits).unwrap();
            let blocks = found.gaps().map(|gaps| {
                let len = target.len() as u64;
                BlockSignature::of_gaps(base, len, &gaps, &KEY, margin).unwrap()
            });
            said += blocks.as_ref().map_or(0, BlockSignature::wire_len);
            delta::diff(target, &found, blocks.as_ref(), &KEY, &limits).unwrap()
        }
    };
    Some((patch, said))
}

fn decode(encoded: &Encoded, base: &[u8], target: &[u8]) -> Result<Vec<u8>, DeltaError> {
    let expected = Expected::of(target, ALGORITHM);
    delta::decode(encoded, Some(base), &expected, ALGORITHM, &Limits::default())
}

fn check_all_ways(base: &[u8], target: &[u8]) {
    let whole = delta::encode_whole(target);
    let satisfying = if target.len() < 64 << 10 { 0 } else { target.len() / 64 };
    let gain = whole.wire_len().max(satisfying);
    assert_eq!(decode(&whole, b"", target).unwrap(), target);
    if let Some(prefixed) = delta::encode_prefixed(base, base_id(base), target) {
        assert!(prefixed.wire_len() < gain);
        assert_eq!(decode(&prefixed, base, target).unwrap(), target);
    }
    if let Some(encoded) = delta::encode_with_base(base, base_id(base), target) {
        assert!(encoded.wire_len() < gain);
        assert_eq!(decode(&encoded, base, target).unwrap(), target);
    }
    let local = delta::diff_local(base, target).to_bytes(target).unwrap();
    let made = Patch::apply_bytes(&local, base, target.len(), &Limits::default()).unwrap();
    assert!(made == target, "the local patch makes another value");
    if let Some((patch, _)) = patch_for(base, target) {
        assert_eq!(patch.target_len(), target.len() as u64);
        let bytes = patch.to_bytes(target).unwrap();
        let made = Patch::apply_bytes(&bytes, base, target.len(), &Limits::default()).unwrap();
        assert!(made == target, "the patch makes another value");
        if let Some(encoded) = delta::encode_patch(&patch, base_id(base), target) {
            assert_eq!(decode(&encoded, base, target).unwrap(), target);
        }
    }
}

/// Random data of little or much entropy, or periodic.
fn data(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..most),
        prop::collection::vec(0u8..3, 0..most),
        (1usize..300, 0..most, any::<u8>()).prop_map(|(period, len, seed)| {
            (0..len).map(|at| ((at % period) as u8).wrapping_mul(seed)).collect()
        }),
    ]
}

#[derive(Debug, Clone)]
enum Edit {
    Replace(Vec<u8>),
    Insert(Vec<u8>),
    Delete(usize),
    Move(usize, usize),
    Repeat(usize),
}

fn edits() -> impl Strategy<Value = Vec<(usize, Edit)>> {
    let bytes = || prop::collection::vec(any::<u8>(), 1..40);
    let edit = prop_oneof![
        bytes().prop_map(Edit::Replace),
        bytes().prop_map(Edit::Insert),
        (1usize..5_000).prop_map(Edit::Delete),
        (1usize..5_000, any::<usize>()).prop_map(|(len, to)| Edit::Move(len, to)),
        (1usize..5_000).prop_map(Edit::Repeat),
    ];
    prop::collection::vec((any::<usize>(), edit), 0..6)
}

fn edited(base: &[u8], edits: &[(usize, Edit)]) -> Vec<u8> {
    let mut value = base.to_vec();
    for (at, edit) in edits {
        let at = at % (value.len() + 1);
        let until = |len: usize| (at + len).min(value.len());
        match edit {
            Edit::Replace(bytes) => drop(value.splice(at..until(bytes.len()), bytes.clone())),
            Edit::Insert(bytes) => drop(value.splice(at..at, bytes.clone())),
            Edit::Delete(len) => drop(value.drain(at..until(*len))),
            Edit::Move(len, to) => {
                let moved: Vec<u8> = value.drain(at..until(*len)).collect();
                let to = to % (value.len() + 1);
                value.splice(to..to, moved);
            }
            Edit::Repeat(len) => {
                let again = value[at..until(*len)].to_vec();
                value.splice(at..at, again);
            }
        }
    }
    value
}

proptest! {
    #[test]
    fn unrelated_values_arrive(base in data(4_000), target in data(4_000)) {
        check_all_ways(&base, &target);
    }

    #[test]
    fn related_values_of_one_round_arrive(base in data(40_000), edits in edits()) {
        check_all_ways(&base, &edited(&base, &edits));
    }

    #[test]
    fn related_values_of_two_rounds_arrive(
        seed: u64, unit in data(600), repeats in 1usize..40, edits in edits(),
    ) {
        let mut base = noise(seed, 66_000);
        for (at, _) in (0..repeats).zip(0..) {
            let at = (at * 7_919) % base.len();
            base.splice(at..at, unit.clone());
        }
        let target = edited(&base, &edits);
        check_all_ways(&base, &target);
        check_all_ways(&target, &base);
    }

    #[test]
    fn mutated_encodings_never_lead_to_another_value(
        base in data(3_000), edits in edits(), at: usize, to: u8, cut: usize,
    ) {
        let target = edited(&base, &edits);
        let encodings = [
            Some(delta::encode_whole(&target)),
            delta::encode_prefixed(&base, base_id(&base), &target),
            patch_for(&base, &target)
                .and_then(|(patch, _)| delta::encode_patch(&patch, base_id(&base), &target)),
        ];
        for mut encoded in encodings.into_iter().flatten() {
            if encoded.bytes.is_empty() {
                continue;
            }
            let at = at % encoded.bytes.len();
            encoded.bytes[at] = to;
            if let Ok(value) = decode(&encoded, &base, &target) {
                prop_assert_eq!(&value, &target);
            }
            encoded.bytes.truncate(cut % encoded.bytes.len());
            if let Ok(value) = decode(&encoded, &base, &target) {
                prop_assert_eq!(&value, &target);
            }
        }
    }

    #[test]
    fn any_bytes_as_patch_make_the_length_offered_or_nothing(
        bytes in prop::collection::vec(prop_oneof![0u8..5, any::<u8>()], 0..60),
        base in data(100), len in 0usize..300,
    ) {
        if let Ok(value) = Patch::apply_bytes(&bytes, &base, len, &Limits::default()) {
            prop_assert_eq!(value.len(), len);
        }
    }
}

/// Incompressible bytes (splitmix64).
fn noise(mut seed: u64, len: usize) -> Vec<u8> {
    let words = std::iter::repeat_with(|| {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).to_le_bytes()
    });
    words.flatten().take(len).collect()
}

fn patch_bytes(varints: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for &varint in varints {
        let mut rest = varint;
        while rest >= 0x80 {
            bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
    }
    bytes
}

#[test]
fn the_same_value_is_copied_whole() {
    for len in [1_024, 5_000, 65_536, 65_537, 300_001] {
        let value = noise(len as u64, len);
        let (patch, _) = patch_for(&value, &value).unwrap();
        assert_eq!(patch.inserted(), 0, "{len}");
        assert!(patch.to_bytes(&value).unwrap().len() < 12);
    }
}

#[test]
fn what_grew_at_its_ends_is_found_again() {
    for len in [3_000, 50_000, 200_000] {
        let base = noise(7, len);
        let target = [&b"a head"[..], &base, &b"and a tail"[..]].concat();
        let (patch, _) = patch_for(&base, &target).unwrap();
        let tolerated = if len > 65_536 { 1_500 } else { 16 };
        assert!(patch.inserted() <= tolerated, "{len}: {}", patch.inserted());
    }
}

#[test]
fn zeros_and_other_stalls_cost_one_pass() {
    for (base, target) in [
        (vec![0; 1 << 20], vec![0; (1 << 20) + 5_000]),
        (vec![0; 60_000], vec![0; 40_000]),
        (b"ab".repeat(300_000), b"ba".repeat(310_000)),
        (vec![0; 1 << 20], noise(3, 1 << 20)),
    ] {
        check_all_ways(&base, &target);
    }
}

#[test]
fn another_base_is_named_as_the_reason() {
    let base = noise(1, 5_000);
    let target = [&base[..], b"more"].concat();
    let (patch, _) = patch_for(&base, &target).unwrap();
    for encoded in [
        delta::encode_prefixed(&base, base_id(&base), &target).unwrap(),
        delta::encode_patch(&patch, base_id(&base), &target).unwrap(),
    ] {
        let wrong = noise(2, 5_000);
        assert_eq!(decode(&encoded, &wrong, &target), Err(DeltaError::WrongBase(base_id(&base))),);
        let expected = Expected::of(&target, ALGORITHM);
        assert_eq!(
            delta::decode(&encoded, None, &expected, ALGORITHM, &Limits::default()),
            Err(DeltaError::MissingBase(base_id(&base))),
        );
    }
}

#[test]
fn bombs_are_refused_before_they_are_unpacked() {
    let base = vec![0; 1_000];
    let limits = Limits { max_patch_operations: 3, ..Limits::default() };
    let refuse = |bytes: &[u8], len: usize| {
        Patch::apply_bytes(bytes, &base, len, &limits).expect_err("must be refused")
    };
    // (steps, then per step: insert, copy, distance doubled when it goes forward)
    refuse(&patch_bytes(&[1, 0, 1 << 40, 0]), 1_000);
    refuse(&patch_bytes(&[1, 1 << 40, 0]), 1_000);
    refuse(&patch_bytes(&[u64::MAX, 0, 1, 0]), 1_000);
    refuse(&patch_bytes(&[2, u64::MAX, 0, 2, 0]), 1);
    refuse(&patch_bytes(&[1, 0, 1, u64::MAX - 1]), 1);
    refuse(&patch_bytes(&[1, 0, 1, 1]), 1); // offset -1
    refuse(&patch_bytes(&[1, 0, 1, 2_000]), 1); // just beyond the end
    refuse(&patch_bytes(&[1, 0, 0]), 0); // an empty step
    refuse(&patch_bytes(&[1, 0, 1, 0, 7]), 1); // left over
    refuse(&patch_bytes(&[1, 3, 0, 0, 65, 65]), 3); // inserts too short
    let four = patch_bytes(&[4, 0, 9, 0, 0, 9, 2, 0, 9, 2, 0, 9, 2]);
    assert_eq!(refuse(&four, 36), DeltaError::TooManyOperations(3));
    assert_eq!(
        Patch::apply_bytes(&patch_bytes(&[1, 2, 3, 10, 0, 65, 66]), &base, 5, &limits).unwrap(),
        b"AB\0\0\0",
    );
}

#[test]
fn values_over_the_limit_and_inflated_ones_are_refused() {
    let target = vec![1; 2_000];
    let expected = Expected::of(&target, ALGORITHM);
    let limits = Limits { max_value_bytes: 1_999, ..Limits::default() };
    let encoded = delta::encode_whole(&target);
    assert_eq!(
        delta::decode(&encoded, None, &expected, ALGORITHM, &limits),
        Err(DeltaError::TooLarge { size: 2_000, limit: 1_999 }),
    );
    let inflated = Encoded { encoding: Encoding::Zstd, bytes: vec![0; 2_001] };
    assert_eq!(
        decode(&inflated, b"", &target),
        Err(DeltaError::Inflated { encoded: 2_001, size: 2_000 }),
    );
    let short = Encoded { encoding: Encoding::Raw, bytes: vec![1; 1_999] };
    assert_eq!(decode(&short, b"", &target), Err(DeltaError::Compressed));
    let other = Encoded { encoding: Encoding::Raw, bytes: vec![2; 2_000] };
    assert_eq!(decode(&other, b"", &target), Err(DeltaError::HashMismatch));
}

#[test]
fn a_small_state_with_a_changed_field_costs_under_80_bytes() {
    let state = |gold: u32, seen: &str| {
        let items: String = (0..24u32)
            .map(|n| format!(r#"{{"id":{},"n":{}}},"#, n * n * 7_919 % 65_537, n * 31 % 13))
            .collect();
        format!(
            r#"{{"player":"c0ffee-{}","gold":{gold},"seen":"{seen}","items":[{items}]}}"#,
            7 * 6
        )
    };
    let (base, target) =
        (state(1_200, "2026-11-20T10:00:00Z"), state(1_350, "2026-11-20T11:31:07Z"));
    let encoded =
        delta::encode_prefixed(base.as_bytes(), base_id(base.as_bytes()), target.as_bytes());
    assert!(encoded.unwrap().wire_len() <= 80);
}

#[test]
fn encodings_survive_the_wire_codec() {
    let config = bincode::config::standard().with_limit::<{ 1 << 20 }>();
    let base = noise(4, 70_000);
    let target = [&base[..30_000], b"inserted", &base[30_000..]].concat();
    let signature = Signature::of(&base, 70_008, &KEY, IdMargin::First).unwrap();
    let bytes = bincode::serde::encode_to_vec(&signature, config).unwrap();
    assert!(bytes.len() <= signature.wire_len());
    let (again, used): (Signature, usize) =
        bincode::serde::decode_from_slice(&bytes, config).unwrap();
    assert_eq!((again, used), (signature, bytes.len()));

    let encoded = delta::encode_prefixed(&base, base_id(&base), &target).unwrap();
    let bytes = bincode::serde::encode_to_vec(&encoded, config).unwrap();
    assert!(bytes.len() <= encoded.wire_len() + 3);
    let (again, _): (Encoded, usize) = bincode::serde::decode_from_slice(&bytes, config).unwrap();
    assert_eq!(again, encoded);
}
