//! The merge of what two snapshots hold of one key: pure, and the same at both ends.

use crate::dots::{Causality, Dot};
use crate::entry::{Record, Sibling};

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
        .filter(|&dot| their_seen.knows(dot) && theirs.is_none_or(|theirs| !theirs.holds(dot)))
        .collect()
}
