//! The merge of what two snapshots hold of one key: pure, and the same at both ends.
//!
//! ```
//! use selfsame::clock::Stamp;
//! use selfsame::dots::{Causality, Dot};
//! use selfsame::entry::{Record, Sibling};
//! use selfsame::hash::HashAlgorithm;
//! use selfsame::session::merge::{dead, merged, news};
//!
//! let put = |counter| Sibling {
//!     dot: Dot::new(7, counter).expect("not zero"),
//!     stamp: Stamp::new(counter, 0),
//!     size: 0,
//!     value_hash: HashAlgorithm::Blake3.value_hash(b""),
//! };
//! let mut seen_here = Causality::default();
//! seen_here.observe(put(1).dot, |_| false);
//! let mut seen_there = seen_here.clone();
//! seen_there.observe(put(2).dot, |_| false);
//!
//! // the peer has replaced what is held here
//! let (here, there) = (Record::new(vec![put(1)])?, Record::new(vec![put(2)])?);
//! assert_eq!(news(Some(&here), &seen_here, Some(&there)), [put(2)]);
//! assert_eq!(dead(Some(&here), Some(&there), &seen_there), [put(1).dot]);
//! assert_eq!(merged(Some(&here), &seen_here, Some(&there), &seen_there), Some(there));
//! # Ok::<(), selfsame::entry::RecordError>(())
//! ```

use crate::dots::{Causality, Dot};
use crate::entry::{Record, Sibling};
use crate::mutants::{Mutant, breaks};

/// Whether a side that holds `record` of the key has seen the dot.
fn seen(record: Option<&Record>, causality: &Causality, dot: Dot) -> bool {
    causality.knows(dot) || record.is_some_and(|record| record.holds(dot))
}

/// Siblings of the merged snapshots (rule D8): those that both hold, and those that one holds and
/// the other has not seen.
#[must_use]
pub fn merged(
    mine: Option<&Record>,
    my_seen: &Causality,
    theirs: Option<&Record>,
    their_seen: &Causality,
) -> Option<Record> {
    let kept_of_mine = mine.into_iter().flat_map(Record::siblings).filter(|sibling| {
        theirs.is_some_and(|theirs| theirs.holds(sibling.dot))
            || !seen(theirs, their_seen, sibling.dot)
    });
    let news = news(mine, my_seen, theirs);
    Record::new(kept_of_mine.chain(&news).copied().collect()).ok()
}

/// Siblings of the peer's record that this side has not seen.
#[must_use]
pub fn news(mine: Option<&Record>, my_seen: &Causality, theirs: Option<&Record>) -> Vec<Sibling> {
    theirs
        .into_iter()
        .flat_map(Record::siblings)
        .filter(|sibling| !seen(mine, my_seen, sibling.dot))
        .copied()
        .collect()
}

/// Dots held here that the peer, whose record this is, has seen dead: it names them by listing
/// the others.
#[must_use]
pub fn dead(mine: Option<&Record>, theirs: Option<&Record>, their_seen: &Causality) -> Vec<Dot> {
    mine.into_iter()
        .flat_map(Record::siblings)
        .map(|sibling| sibling.dot)
        .filter(|&dot| their_seen.knows(dot) || breaks(Mutant::RemoveUnseen))
        .filter(|&dot| theirs.is_none_or(|theirs| !theirs.holds(dot)))
        .collect()
}
