//! zstd, bounded: frames without their magic number, decoded into exactly the length expected.
//!
//! A frame is one zstd frame (RFC 8878) less its first four bytes, which are always the same and
//! are put back before decoding; so a skippable or foreign frame cannot even be written down.
//! Decoding is one shot into a buffer of the exact length: no window is ever allocated, whatever
//! the frame asks for, and a frame that would produce more or less is refused.
//!
//! ```
//! use selfsame::delta::compress::{compress, decompress};
//!
//! let base = b"the quick brown fox jumps over the lazy dog".repeat(9);
//! let target = [&base[..], b"!"].concat();
//! let frame = compress(&target, Some(&base)).expect("memory for a context");
//! assert!(frame.len() < 30);
//! assert_eq!(decompress(&frame, Some(&base), target.len()), Some(target));
//! ```

use zstd::zstd_safe::{
    CCtx, CParameter, DCtx, compress_bound, find_frame_compressed_size, get_frame_content_size,
};

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Up to here level 3 serves, above it level 9.
const SMALL_BYTES: usize = 64 << 10;
const SMALL_LEVEL: i32 = 3;
const PREFIXED_LEVEL: i32 = 9;
/// The hash table of level 9 has as many places: of a longer prefix it forgets the beginning,
/// whatever the window. 8 MiB of noise with 64 edits took 4.3 MB without long-distance matching
/// and 1.8 KB with it; below, doing without finds shorter encodings.
const INDEXED_BYTES: usize = 2 << 20;

/// Compresses `source`, with `prefix` as reference if there is one. None when there is no memory
/// for it.
///
/// Level 3; with a prefix and above 64 KiB level 9, from 2 MiB with long-distance matching. The
/// window reaches back over all of the prefix.
#[must_use]
pub fn compress(source: &[u8], prefix: Option<&[u8]>) -> Option<Vec<u8>> {
    let mut context = CCtx::try_create()?;
    context.set_parameter(CParameter::ContentSizeFlag(false)).ok()?;
    context.set_parameter(CParameter::ChecksumFlag(false)).ok()?;
    context.set_parameter(CParameter::DictIdFlag(false)).ok()?;
    match prefix {
        None => {
            context.set_parameter(CParameter::CompressionLevel(SMALL_LEVEL)).ok()?;
        }
        Some(prefix) => {
            let span = source.len().saturating_add(prefix.len());
            let level = if span <= 2 * SMALL_BYTES { SMALL_LEVEL } else { PREFIXED_LEVEL };
            context.set_parameter(CParameter::CompressionLevel(level)).ok()?;
            let far = prefix.len() > INDEXED_BYTES;
            context.set_parameter(CParameter::EnableLongDistanceMatching(far)).ok()?;
            context.set_parameter(CParameter::WindowLog(window_log(span))).ok()?;
            context.ref_prefix(prefix).ok()?;
        }
    }
    let mut frame = Vec::with_capacity(compress_bound(source.len()));
    context.compress2(&mut frame, source).ok()?;
    if !frame.starts_with(&MAGIC) {
        return None;
    }
    frame.drain(..MAGIC.len());
    frame.shrink_to_fit();
    Some(frame)
}

fn window_log(span: usize) -> u32 {
    span.max(1).next_power_of_two().trailing_zeros().clamp(10, 30)
}

/// Decompresses what [`compress`] made, with the same prefix. None unless it is one whole frame of
/// exactly `length` bytes, with nothing after it.
///
/// Allocates `length` bytes and one decoder (about 160 KiB), nothing on the word of the frame.
#[must_use]
pub fn decompress(frame: &[u8], prefix: Option<&[u8]>, length: usize) -> Option<Vec<u8>> {
    let frame = [&MAGIC, frame].concat();
    if find_frame_compressed_size(&frame).ok()? != frame.len() {
        return None;
    }
    let stated = get_frame_content_size(&frame).ok()?;
    if stated.is_some_and(|stated| stated != length as u64) {
        return None;
    }
    let mut context = DCtx::try_create()?;
    if let Some(prefix) = prefix {
        context.ref_prefix(prefix).ok()?;
    }
    let mut output = vec![0; length];
    let written = context.decompress(output.as_mut_slice(), &frame).ok()?;
    (written == length).then_some(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bomb_is_not_unpacked_beyond_what_was_offered() {
        let bomb = compress(&vec![0; 8 << 20], None).expect("memory");
        assert!(bomb.len() < 2_000);
        assert_eq!(decompress(&bomb, None, 1_000), None);
        assert_eq!(decompress(&bomb, None, 0), None);
        assert_eq!(decompress(&bomb, None, (8 << 20) + 1), None);
    }

    #[test]
    fn cut_short_or_continued_frames_are_refused() {
        let value = b"some words and some words again, some words".repeat(20);
        let frame = compress(&value, None).expect("memory");
        assert_eq!(decompress(&frame, None, value.len()).as_ref(), Some(&value));
        assert_eq!(decompress(&frame[..frame.len() - 1], None, value.len()), None);
        assert_eq!(decompress(&[&frame[..], &[0]].concat(), None, value.len()), None);
        let twice = [&frame[..], &MAGIC, &frame[..]].concat();
        assert_eq!(decompress(&twice, None, 2 * value.len()), None);
    }

    proptest! {
        #[test]
        fn frames_come_back(
            value in prop::collection::vec(0u8..4, 0..3_000),
            prefix in prop::option::of(prop::collection::vec(0u8..4, 0..3_000)),
        ) {
            let frame = compress(&value, prefix.as_deref()).expect("memory");
            prop_assert_eq!(decompress(&frame, prefix.as_deref(), value.len()), Some(value));
        }

        #[test]
        fn any_bytes_are_refused_or_exact(
            bytes in prop::collection::vec(any::<u8>(), 0..200), length in 0usize..500,
        ) {
            if let Some(output) = decompress(&bytes, Some(b"a prefix"), length) {
                prop_assert_eq!(output.len(), length);
            }
        }
    }
}
