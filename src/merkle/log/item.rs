//! The items of a change log: what became of a key, and with the last one of a commit what the
//! whole commit did to the collection's root.
//!
//! ```
//! use selfsame::hash::{KeyHash, Root};
//! use selfsame::merkle::log::{ChangeItem, CommitEnd};
//!
//! let roots = [Root([1; 32]), Root([2; 32])];
//! let end = Some(CommitEnd { changes: 1, roots });
//! let removed = ChangeItem { key: KeyHash([3; 32]), record: None, end };
//! assert_eq!(removed.to_bytes().len(), 32 + 1 + 4 + 64);
//! ```

use crate::codec::Writing;
use crate::hash::{HASH_LEN, KeyHash, RecordDigest, Root};

const HELD: u8 = 1;
const END: u8 = 2;

/// What a commit did: stands in its last item.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CommitEnd {
    /// Number of its items, this one too: those right before it are its others.
    pub changes: u32,
    /// The collection's root before and after it.
    pub roots: [Root; 2],
}

/// An item of a change log that is not its first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ChangeItem {
    /// Hash of the key that was changed.
    pub key: KeyHash,
    /// Digest of its record afterwards; none when nothing is held any more.
    pub record: Option<RecordDigest>,
    /// What the whole commit did, if this is its last item. Logs of before this was kept have
    /// none.
    pub end: Option<CommitEnd>,
}

impl ChangeItem {
    /// The bytes that the log holds: key hash, flags, and what the flags say.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + 4 + 4 * HASH_LEN);
        bytes.put_bytes(&self.key.0);
        let held = if self.record.is_some() { HELD } else { 0 };
        let end = if self.end.is_some() { END } else { 0 };
        bytes.put_u8(held | end);
        if let Some(record) = &self.record {
            bytes.put_bytes(&record.0);
        }
        if let Some(CommitEnd { changes, roots: [before, after] }) = &self.end {
            bytes.put_u32(*changes);
            bytes.put_bytes(&before.0);
            bytes.put_bytes(&after.0);
        }
        bytes
    }
}
