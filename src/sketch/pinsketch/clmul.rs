//! The kernel with the processor's carry-less multiplication (PCLMULQDQ). The one module of the
//! project with code that the compiler cannot check: instructions that not every processor has.

use core::arch::x86_64::{
    _mm_clmulepi64_si128, _mm_cvtsi64_si128, _mm_cvtsi128_si64, _mm_unpackhi_epi64,
};

use super::field::Arithmetic;
use super::kernel;

/// Products by PCLMULQDQ. Used by nobody but the functions below, which have looked for it.
struct CarryLess;

impl Arithmetic for CarryLess {
    #[inline(always)]
    fn carry_less(a: u64, b: u64) -> (u64, u64) {
        // SAFETY: whoever gets here came through a function of this module with the feature
        // `pclmulqdq`, which is called only after the processor was found to have it. The
        // instructions touch registers alone.
        unsafe {
            let product = _mm_clmulepi64_si128(
                _mm_cvtsi64_si128(a.cast_signed()),
                _mm_cvtsi64_si128(b.cast_signed()),
                0,
            );
            let high = _mm_cvtsi128_si64(_mm_unpackhi_epi64(product, product));
            (_mm_cvtsi128_si64(product).cast_unsigned(), high.cast_unsigned())
        }
    }

    #[inline(always)]
    fn spread(a: u64) -> (u64, u64) {
        Self::carry_less(a, a)
    }
}

#[target_feature(enable = "pclmulqdq")]
fn toggle_here(syndromes: &mut [u64], ids: &[u64]) {
    kernel::toggle::<CarryLess>(syndromes, ids);
}

#[target_feature(enable = "pclmulqdq")]
fn decode_here(syndromes: &[u64], most: usize) -> Option<Vec<u64>> {
    kernel::decode::<CarryLess>(syndromes, most)
}

/// Adds or takes away ids, if the processor can.
pub(super) fn toggle(syndromes: &mut [u64], ids: &[u64]) -> bool {
    let can = std::arch::is_x86_feature_detected!("pclmulqdq");
    if can {
        // SAFETY: the processor has the feature that the function needs.
        unsafe { toggle_here(syndromes, ids) }
    }
    can
}

/// Decodes, if the processor can.
pub(super) fn decode(syndromes: &[u64], most: usize) -> Option<Option<Vec<u64>>> {
    let can = std::arch::is_x86_feature_detected!("pclmulqdq");
    // SAFETY: the processor has the feature that the function needs.
    can.then(|| unsafe { decode_here(syndromes, most) })
}
