//! The kernel with the processor's carry-less multiplication (PCLMULQDQ). The one module of the
//! project with code that the compiler cannot check: instructions that not every processor has.

use core::arch::x86_64::{
    __m128i, _mm_clmulepi64_si128, _mm_cvtsi64_si128, _mm_cvtsi128_si64, _mm_setzero_si128,
    _mm_unpackhi_epi64, _mm_xor_si128,
};

use super::field::Arithmetic;
use super::kernel::{self, Work};

/// Products by PCLMULQDQ. Used by nobody but the functions below, which have looked for it.
struct CarryLess<const BITS: u32, const TAP: u32>;

impl<const BITS: u32, const TAP: u32> Arithmetic for CarryLess<BITS, TAP> {
    const BITS: u32 = BITS;
    const TAP: u32 = TAP;
    type Wide = __m128i;

    #[inline(always)]
    fn nothing() -> __m128i {
        // SAFETY: every processor of this architecture has SSE2; registers alone are touched.
        unsafe { _mm_setzero_si128() }
    }

    #[inline(always)]
    fn carry_less(a: u64, b: u64) -> __m128i {
        // SAFETY: whoever gets here came through a function of this module with the feature
        // `pclmulqdq`, which is called only after the processor was found to have it. The
        // instructions touch registers alone.
        unsafe {
            _mm_clmulepi64_si128(
                _mm_cvtsi64_si128(a.cast_signed()),
                _mm_cvtsi64_si128(b.cast_signed()),
                0,
            )
        }
    }

    #[inline(always)]
    fn spread(a: u64) -> __m128i {
        Self::carry_less(a, a)
    }

    #[inline(always)]
    fn add(a: __m128i, b: __m128i) -> __m128i {
        // SAFETY: every processor of this architecture has SSE2; registers alone are touched.
        unsafe { _mm_xor_si128(a, b) }
    }

    #[inline(always)]
    fn halves(wide: __m128i) -> (u64, u64) {
        // SAFETY: every processor of this architecture has SSE2; registers alone are touched.
        unsafe {
            let high = _mm_cvtsi128_si64(_mm_unpackhi_epi64(wide, wide));
            (_mm_cvtsi128_si64(wide).cast_unsigned(), high.cast_unsigned())
        }
    }
}

#[target_feature(enable = "pclmulqdq")]
fn toggle_here<const BITS: u32, const TAP: u32>(syndromes: &mut [u64], first: u32, ids: &[u64]) {
    kernel::toggle::<CarryLess<BITS, TAP>>(syndromes, first, ids);
}

#[target_feature(enable = "pclmulqdq")]
fn decode_here<const BITS: u32, const TAP: u32>(
    syndromes: &[u64],
    most: usize,
    work: &mut Work,
) -> Option<Vec<u64>> {
    kernel::decode::<CarryLess<BITS, TAP>>(syndromes, most, work)
}

/// Adds or takes away ids, if the processor can.
pub(super) fn toggle<const BITS: u32, const TAP: u32>(
    syndromes: &mut [u64],
    first: u32,
    ids: &[u64],
) -> bool {
    let can = std::arch::is_x86_feature_detected!("pclmulqdq");
    if can {
        // SAFETY: the processor has the feature that the function needs.
        unsafe { toggle_here::<BITS, TAP>(syndromes, first, ids) }
    }
    can
}

/// Decodes, if the processor can.
pub(super) fn decode<const BITS: u32, const TAP: u32>(
    syndromes: &[u64],
    most: usize,
    work: &mut Work,
) -> Option<Option<Vec<u64>>> {
    let can = std::arch::is_x86_feature_detected!("pclmulqdq");
    // SAFETY: the processor has the feature that the function needs.
    can.then(|| unsafe { decode_here::<BITS, TAP>(syndromes, most, work) })
}
