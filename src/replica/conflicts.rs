//! Keys with concurrent versions that differ.

use crate::hash::KeyHash;
use crate::merkle::Sealed;
use crate::store::Store;

use super::snapshot::Snapshot;
use super::view::{CollectionView as _, Entry, ViewError};

/// Some of the keys in conflict, in the order of their hashes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Conflicts {
    /// Entries with siblings of different values.
    pub entries: Vec<Entry>,
    /// The last key that was looked at: the search goes on after it; none if it has ended.
    pub next: Option<KeyHash>,
}

impl<S: Store> Snapshot<S> {
    /// Entries after a key whose siblings have different values; at most `most` entries with
    /// several siblings are looked at.
    ///
    /// Nothing is read where no entry has several siblings, which the totals of the tree say.
    /// Else each page with such entries is read: a collection where many keys have siblings of
    /// equal values, as after the same import at two nodes, costs a walk over those pages.
    ///
    /// # Errors
    /// The store failed, or an entry is damaged.
    pub fn conflicts_after(
        &self,
        after: Option<&KeyHash>,
        most: usize,
    ) -> Result<Conflicts, ViewError> {
        let (mut entries, mut looked_at, mut last) = (Vec::new(), 0, None);
        let tree = self.tree();
        for place in tree.crowded_after(after) {
            let leaves = match place {
                Ok(leaf) => vec![leaf],
                Err(Sealed(prefix)) => self.page(&prefix)?,
            };
            for leaf in leaves {
                let comes = after.is_none_or(|after| leaf.key > *after);
                if leaf.totals.siblings < 2 || !comes {
                    continue;
                }
                if looked_at == most {
                    return Ok(Conflicts { entries, next: last });
                }
                looked_at += 1;
                last = Some(leaf.key);
                entries.extend(self.entry(&leaf.key)?.filter(|entry| entry.record.is_conflict()));
            }
        }
        Ok(Conflicts { entries, next: None })
    }
}
