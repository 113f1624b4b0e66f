//! Rules of the engine that can be broken, one at a time, so that tests show that they would
//! notice. Only with the feature `dangerous-mutants`; without it nothing of this is compiled in.
//!
//! ```
//! # #[cfg(feature = "dangerous-mutants")] {
//! use selfsame::mutants::{Mutant, choose};
//!
//! choose(Some(Mutant::ApplyBlindly)); // from now on this thread brings back what was deleted
//! choose(None);
//! # }
//! ```

/// A rule that is broken.
#[cfg_attr(not(feature = "dangerous-mutants"), allow(unreachable_pub))]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Mutant {
    /// A dot that is removed above the context does not become an exception (rule D4).
    ForgetExceptions,
    /// What the peer does not hold of a key is removed, whether the peer has seen it or not
    /// (rule D6).
    RemoveUnseen,
    /// What the peer's leaves do not list is removed (rule D6).
    RemoveByLeaf,
    /// What the peer's filter lacks is removed (rule D6).
    RemoveByFilter,
    /// Nobody looks whether a writer has two users.
    IgnoreClones,
    /// What arrives is added although it was seen dead meanwhile (rule D7).
    ApplyBlindly,
}

#[cfg(feature = "dangerous-mutants")]
mod chosen {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static CHOSEN: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Breaks this rule, and no other, for whatever this thread does from now on.
    pub fn choose(mutant: Option<Mutant>) {
        CHOSEN.set(mutant);
    }

    pub(crate) fn breaks(mutant: Mutant) -> bool {
        CHOSEN.get() == Some(mutant)
    }
}

#[cfg(feature = "dangerous-mutants")]
pub(crate) use chosen::breaks;
#[cfg(feature = "dangerous-mutants")]
pub use chosen::choose;

/// No rule is ever broken.
#[cfg(not(feature = "dangerous-mutants"))]
pub(crate) const fn breaks(_: Mutant) -> bool {
    false
}
