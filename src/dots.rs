//! Dots, sets of dots, contexts and their exceptions: what a replica has seen.
//!
//! Every put is named by a **dot**: (writer, counter). A replica's **context** says for each
//! writer up to which counter it has seen everything; **exceptions** are dots seen and dead above
//! that. What was seen and is not held is dead: so nothing has to be kept of what was deleted.
//!
//! Relatives: dotted version vectors (Preguiça et al. 2010), DottedDB (Gonçalves et al., SRDS
//! 2017), delta-CRDT contexts (Almeida, Shoker, Baquero 2018).
//!
//! ```
//! use selfsame::dots::{Causality, Dot};
//!
//! let first = Dot::new(7, 1).expect("not zero");
//! let third = Dot::new(7, 3).expect("not zero");
//! let mut seen = Causality::default();
//! seen.observe(first, |_| false);
//! assert!(seen.covers(first) && !seen.covers(third));
//! seen.mark_dead(third, |_| false); // above the context: an exception
//! assert!(seen.knows(third));
//! ```

mod causality;
mod set;

use std::fmt;
use std::num::NonZeroU64;

pub use causality::{Causality, ContextError};
pub use set::{DotRun, DotSet};

/// A writer: random, drawn anew at an opening of a store, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "session", derive(serde::Serialize, serde::Deserialize))]
pub struct Writer(NonZeroU64);

impl Writer {
    /// The writer with this number; zero is none.
    #[must_use]
    pub const fn new(id: u64) -> Option<Self> {
        match NonZeroU64::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The writer's number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The name of one put: (writer, counter), both at least 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "session", derive(serde::Serialize, serde::Deserialize))]
pub struct Dot {
    writer: Writer,
    counter: NonZeroU64,
}

impl Dot {
    /// From numbers; none when either is zero.
    #[must_use]
    pub const fn new(writer: u64, counter: u64) -> Option<Self> {
        match (Writer::new(writer), NonZeroU64::new(counter)) {
            (Some(writer), Some(counter)) => Some(Self { writer, counter }),
            _ => None,
        }
    }

    /// The dot of this writer; none when the counter is zero.
    #[must_use]
    pub const fn of(writer: Writer, counter: u64) -> Option<Self> {
        match NonZeroU64::new(counter) {
            Some(counter) => Some(Self { writer, counter }),
            None => None,
        }
    }

    /// Who wrote.
    #[must_use]
    pub const fn writer(self) -> Writer {
        self.writer
    }

    /// The how-manieth put of the writer, from 1.
    #[must_use]
    pub const fn counter(self) -> u64 {
        self.counter.get()
    }

    /// The writer's next dot; none after the last one there can be.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self.counter.checked_add(1) {
            Some(counter) => Some(Self { writer: self.writer, counter }),
            None => None,
        }
    }
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.writer, self.counter)
    }
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
