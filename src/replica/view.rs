//! What a session reads from a collection, and what it asks to be changed.
//!
//! A session works on one atomic snapshot ([`CollectionView`]): entries, tree, context and
//! exceptions of one moment. What it learns leaves as [`KeyUpdate`]s, which are applied to the
//! *live* state, and at its end as one [`JoinRequest`].

use std::sync::Arc;

use crate::dots::{Causality, Dot, DotRun, DotSet, Writer};
use crate::entry::{Record, Sibling, Totals};
use crate::hash::{ContextHash, KeyHash, TreeHash, ValueHash};
use crate::merkle::{Envelope, Leaf, PagedTree, Prefix};
use crate::sketch::Sketches;
use crate::types::{CollectionSpec, Key, NodeId};

use super::marks::{HeardMark, OwnWriter};
use super::reports::Incident;

/// A snapshot could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// The store failed.
    #[error("the store could not be read: {0}")]
    Store(String),
    /// What is on disk does not verify: the collection needs recovery (rule D10).
    #[error("collection {collection} is damaged: {what}")]
    Damaged {
        /// Name of the collection.
        collection: String,
        /// What did not verify.
        what: String,
    },
    /// One entry rotted.
    #[error("{}", rotten(collection, key))]
    Rotten {
        /// Name of the collection.
        collection: String,
        /// Hash of its key.
        key: KeyHash,
    },
}

pub(super) fn rotten(collection: &str, key: &KeyHash) -> String {
    format!(
        "the entry with key hash {key} of collection {collection} rotted on disk, and its page of \
         keys takes no writes: the next session with a peer that has it as it was gives it back; \
         all else can be read"
    )
}

/// A key and what is held under it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// Its siblings.
    pub record: Record,
}

/// Dots removed here since a position, as far as the log reaches back.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct RemovalLog {
    /// Dots removed and not held, ascending as a set.
    pub dots: DotSet,
    /// Whether the log reached back to the position asked for: else it only helps, and what it
    /// lacks must be found by comparison.
    pub complete: bool,
}

/// What is remembered of the last session that both this node and a peer joined: an aid that may
/// be dropped at any time.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct JoinRecord {
    /// Position in this node's change log of the snapshot of that session: removals since then
    /// are news to the peer.
    pub log_position: u64,
    /// The merged context, known at both ends: base for sending context differences.
    pub merged: Causality,
    /// Hash of the merged tree.
    pub tree: TreeHash,
    /// Its totals.
    pub totals: Totals,
}

/// One atomic moment of a collection, as a session reads it (rule D5).
///
/// Every record read for a peer is checked against its leaf; what does not verify is
/// [`ViewError::Damaged`], never data.
pub trait CollectionView {
    /// Name, algorithm and policy.
    fn spec(&self) -> &CollectionSpec;

    /// Root fields of the snapshot.
    fn envelope(&self) -> &Envelope;

    /// Context and exceptions of the snapshot, never the live ones.
    fn causality(&self) -> &Causality;

    /// Counts recoveries (rule D10): what was read before one must not be joined after it.
    fn epoch(&self) -> u64;

    /// Position in the change log of the snapshot.
    fn log_position(&self) -> u64;

    /// The tree; cloning it is cheap. Pages may be sealed.
    fn tree(&self) -> PagedTree;

    /// Bytes of pages that are in memory for this moment alone.
    fn memory_bytes(&self) -> usize {
        0
    }

    /// The leaves of a page, to unseal it in a clone of the tree.
    ///
    /// # Errors
    /// The store failed or the page is damaged.
    fn page(&self, prefix: &Prefix) -> Result<Vec<Leaf>, ViewError>;

    /// The leaves under a prefix as the rows of their entries have them, held against nothing: a
    /// hint of where to look, which reads no page for it. Rows that rotted are left out.
    ///
    /// # Errors
    /// The store failed.
    fn unchecked_leaves(&self, prefix: &Prefix) -> Result<Vec<Leaf>, ViewError> {
        self.page(prefix)
    }

    /// The entry with this key hash.
    ///
    /// # Errors
    /// The store failed or the entry is damaged.
    fn entry(&self, key: &KeyHash) -> Result<Option<Entry>, ViewError>;

    /// The value with this hash held for this key: of a sibling, or in the history. Its hash has
    /// been checked; a value that does not match reads as absent.
    ///
    /// # Errors
    /// The store failed.
    fn value(&self, key: &KeyHash, hash: &ValueHash) -> Result<Option<Arc<[u8]>>, ViewError>;

    /// Whether [`value`](Self::value) would find it, without reading it whole.
    ///
    /// # Errors
    /// The store failed.
    fn has_value(&self, key: &KeyHash, hash: &ValueHash) -> Result<bool, ViewError>;

    /// Hashes of all values that this node can still read for this key: siblings, then history,
    /// newest first, at most `limit`.
    ///
    /// # Errors
    /// The store failed.
    fn value_hashes(&self, key: &KeyHash, limit: usize) -> Result<Vec<ValueHash>, ViewError>;

    /// The key hash under which a dot is held.
    ///
    /// # Errors
    /// The store failed.
    fn key_of(&self, dot: Dot) -> Result<Option<KeyHash>, ViewError>;

    /// Writers of which at least one dot is held, ascending.
    ///
    /// # Errors
    /// The store failed.
    fn writers(&self) -> Result<Vec<Writer>, ViewError>;

    /// The dots of a writer held with a counter above `after`, ascending, at most `limit`: a
    /// range scan of the dot index.
    ///
    /// # Errors
    /// The store failed.
    fn dots_after(
        &self,
        writer: Writer,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(Dot, KeyHash)>, ViewError>;

    /// The dots of a run that are held, ascending, at most `limit`. Of what stands behind the run
    /// nothing is read.
    ///
    /// # Errors
    /// The store failed.
    fn dots_within(&self, run: DotRun, limit: usize) -> Result<Vec<(Dot, KeyHash)>, ViewError>;

    /// Dots removed after a log position, the latest ones, at most `limit` of them; and no more
    /// rows of the log are read than four times that.
    ///
    /// # Errors
    /// The store failed.
    fn removals_after(&self, position: u64, limit: usize) -> Result<RemovalLog, ViewError>;

    /// The present writer, live: what a session tells of it, and what is repeated to it. None
    /// where nobody writes.
    fn own_writer(&self) -> Option<&OwnWriter> {
        None
    }

    /// Sketches of just the entries of this moment, for a session to copy and keep up with its
    /// overlay. None where they are not kept (small collections) or not made yet: then those of
    /// the buckets that differ are made from the entries.
    fn sketches(&self) -> Option<&Sketches> {
        None
    }

    /// What the peer told of its writer, as far as it was known at this moment.
    ///
    /// # Errors
    /// The store failed.
    fn heard_mark(&self, peer: &NodeId) -> Result<Option<HeardMark>, ViewError> {
        let _ = peer;
        Ok(None)
    }

    /// What is remembered of a session after which a peer, this one or another, was at such a
    /// state: one that this node had in common with it, and may have left since. Whoever is at it
    /// holds and has seen nothing that this node had not seen by this moment.
    ///
    /// # Errors
    /// The store failed.
    fn common_state(
        &self,
        peer: &NodeId,
        is: &dyn Fn(&TreeHash, &ContextHash) -> bool,
    ) -> Result<Option<Arc<JoinRecord>>, ViewError> {
        let _ = (peer, is);
        Ok(None)
    }

    /// What is remembered of the last joined session with this peer.
    ///
    /// # Errors
    /// The store failed.
    fn join_record(&self, peer: &NodeId) -> Result<Option<JoinRecord>, ViewError>;
}

/// A sibling that arrived, with its value.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct IncomingSibling {
    /// The sibling as the peer's record has it.
    pub sibling: Sibling,
    /// Its value, hash and size already checked; none when a value of this hash is held here for
    /// this key.
    pub value: Option<Arc<[u8]>>,
}

/// What a message says of one key: applied in one commit (rule D7).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct KeyUpdate {
    /// The key; none when it only removes (then the key hash says enough).
    pub key: Option<Key>,
    /// Its hash.
    pub key_hash: KeyHash,
    /// Siblings to add, unless they were seen by then.
    pub add: Vec<IncomingSibling>,
    /// Dots that the peer has seen dead: named, and already checked against what it has seen.
    pub remove: Vec<Dot>,
}

/// Why an item was refused (rule D8).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "session", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum RefusalReason {
    /// The stamp is too far ahead of this node's clock.
    Drift,
    /// The value is larger than this node takes.
    ValueSize,
    /// The entry would have too many siblings.
    Siblings,
    /// The dot is held here under another key or with other bytes, and those stay.
    SameDot,
    /// The value could not be had.
    Unavailable,
}

/// An item that was not taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Refused {
    /// The dot refused.
    pub dot: Dot,
    /// Why.
    pub reason: RefusalReason,
}

/// What became of one [`KeyUpdate`].
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct ApplyOutcome {
    /// Siblings that are now held and were not before.
    pub added: u64,
    /// Siblings that are no longer held.
    pub removed: u64,
    /// Items refused. When there is one, nothing of the key was removed.
    pub refused: Vec<Refused>,
    /// Dots whose value was said to be held here and is not: send them again with the value.
    /// When there is one, nothing of the key was applied.
    pub missing_values: Vec<Dot>,
    /// What a person may want to know of it, with the key.
    pub incidents: Vec<(Key, Incident)>,
}

/// What a session asks for at its end (rule D8): only when all it applied is durable and the
/// roots agree.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct JoinRequest {
    /// The epoch of the snapshot on which the session worked.
    pub epoch: u64,
    /// Context and exceptions of the peer's snapshot.
    pub peer: Causality,
    /// Dots that were refused or not taken because their key was refused.
    pub refused: DotSet,
}
