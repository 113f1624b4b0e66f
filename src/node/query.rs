//! Questions outside sessions: one frame each way on a stream of their own.
//!
//! ```
//! use selfsame::node::query::WireDigest;
//! use selfsame::replica::{Replica, ReplicaOptions};
//! use selfsame::store::MemoryStore;
//! use selfsame::types::{CollectionName, CollectionSpec, Policy};
//!
//! let random = Box::new(|| 4); // the system's, in earnest
//! let replica = Replica::open(MemoryStore::default(), ReplicaOptions::default(), random)?;
//! let players = replica.create_collection(CollectionSpec {
//!     name: CollectionName::new("players")?,
//!     algorithm: Default::default(),
//!     policy: Policy::Lww,
//! })?;
//! // whoever receives a digest checks that its hashes belong together
//! let digest = players.digest()?;
//! assert_eq!(WireDigest::from(&digest).check(), Some(digest));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use serde::{Deserialize, Serialize};

use super::forest::WireState;
use super::forest::offers::Offers;
use super::forest::ranges::Ranges;
use crate::clock::Stamp;
use crate::entry::{Record, Totals};
use crate::hash::{
    ForestRoot, HASH_LEN, HashAlgorithm, KeyHash, LogHash, Root, TreeHash, ValueHash,
};
use crate::merkle::{BUCKETS, Digest, Envelope, LogId};
use crate::replica::Entry;
use crate::session::message::{Bytes, WireSpec};
use crate::types::{CollectionSpec, Key};

/// A question.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Query {
    /// The digest of a collection.
    Digest {
        /// Its name.
        collection: String,
    },
    /// Values whose bytes are lost at the asker, by the hashes of their keys and their own (rule
    /// D10): at most [`VALUES_PER_QUERY`].
    Values {
        /// Name of the collection.
        collection: String,
        /// Which.
        wanted: Vec<(KeyHash, ValueHash)>,
    },
    /// Whether all collections that both offer are the same. [`Query::Ranges`] may follow on the
    /// same stream.
    Forest {
        /// Forest root over their state hashes at the asker.
        root: ForestRoot,
        /// What the asker offers, if that is not what it said last on this connection.
        offers: Option<Offers>,
    },
    /// Proof that a log of the asked node has grown from one head that it signed into another.
    Growth {
        /// Name of the collection.
        collection: String,
        /// Kind of the log.
        kind: u8,
        /// Its id.
        id: LogId,
        /// Size and root of the earlier head.
        first: (u64, LogHash),
        /// Size and root of the later one.
        second: (u64, LogHash),
    },
    /// Entries that rotted at the asker, by the hashes of their keys (rule D10): at most
    /// [`VALUES_PER_QUERY`].
    Entries {
        /// Name of the collection.
        collection: String,
        /// Which.
        wanted: Vec<KeyHash>,
    },
    /// What ranges of the shared collections are like, after [`Answer::Forest`].
    Ranges(Ranges),
    /// All that the peer offers, with its states.
    States,
}

/// An answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The digest asked for.
    Digest(WireDigest),
    /// No such collection, or no grant: the two look the same.
    Unknown,
    /// The node could not read its store.
    Failed,
    /// The values asked for follow, in their order: of each a [`ValueHeader`], then its bytes in
    /// frames of at most [`VALUE_CHUNK`].
    Values,
    /// All shared collections are the same.
    Same,
    /// What this end offers, with its states. May take several frames.
    States {
        /// Some of them.
        states: Vec<WireState>,
        /// Whether another frame follows.
        more: bool,
    },
    /// The log has grown: a consistency proof; none if that cannot be proved any more.
    Growth(Option<Bytes>),
    /// The entries asked for follow, in their order: of each a [`WireEntry`] in a frame of its
    /// own.
    Entries,
    /// Not all shared collections are the same.
    Forest(WireForest),
    /// What was asked of ranges, one after the other.
    Ranges(Bytes),
}

/// The collections that both offer, as the answering end has them when it is asked. Further answers
/// on this stream are about the same moment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WireForest {
    /// Forest root over their state hashes.
    pub root: ForestRoot,
    /// How many there are.
    pub collections: u32,
    /// What this end offers, if that is not what it said last on this connection.
    pub offers: Option<Offers>,
    /// The answer to range 0 of level 0.
    pub top: Bytes,
}

/// An entry, if there is one; without values.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WireEntry(Option<(Bytes, Bytes)>);

impl WireEntry {
    /// Of an entry, or of none.
    #[must_use]
    pub fn new(entry: Option<&Entry>) -> Self {
        let bytes =
            |entry: &Entry| (Bytes(entry.key.as_bytes().to_vec()), Bytes(entry.record.to_bytes()));
        Self(entry.map(bytes))
    }

    /// The entry, if it is one, and of the key that was asked for.
    ///
    /// # Errors
    /// It is another, or none that could be.
    pub fn check(
        self,
        algorithm: HashAlgorithm,
        wanted: &KeyHash,
    ) -> Result<Option<(Key, Record)>, NotTheEntry> {
        let Some((key, record)) = self.0 else { return Ok(None) };
        let key = Key::new(key.0).map_err(|_| NotTheEntry)?;
        let record = Record::parse(&record.0).map_err(|_| NotTheEntry)?;
        if algorithm.key_hash(&key) == *wanted { Ok(Some((key, record))) } else { Err(NotTheEntry) }
    }
}

/// What a peer sent is not the entry asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[error("the peer sent an entry that is not the one asked for")]
pub struct NotTheEntry;

/// Values or entries in one question.
pub const VALUES_PER_QUERY: usize = 64;
/// Bytes of a value in one frame.
pub const VALUE_CHUNK: usize = 256 << 10;

/// Whether a value follows, and how many bytes it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ValueHeader {
    /// Its size; none when it is lost here too.
    pub size: Option<u64>,
}

/// A digest as it travels.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WireDigest {
    spec: WireSpec,
    root: Root,
    tree: TreeHash,
    totals: Totals,
    clock: Stamp,
    buckets: Bytes,
}

impl From<&Digest> for WireDigest {
    fn from(digest: &Digest) -> Self {
        let envelope = digest.envelope();
        Self {
            spec: WireSpec::from(envelope.spec()),
            root: envelope.root(),
            tree: envelope.tree_hash(),
            totals: envelope.totals(),
            clock: digest.clock(),
            buckets: Bytes(digest.buckets().iter().flat_map(|hash| hash.0).collect()),
        }
    }
}

impl WireDigest {
    /// The digest, if it holds: buckets fold to the tree hash, fields hash to the root.
    #[must_use]
    pub fn check(&self) -> Option<Digest> {
        let spec = CollectionSpec::try_from(&self.spec).ok()?;
        let envelope = Envelope::new(spec, self.tree, self.totals).ok()?;
        if self.buckets.0.len() != BUCKETS * HASH_LEN {
            return None;
        }
        let mut buckets = Box::new([TreeHash([0; HASH_LEN]); BUCKETS]);
        for (bucket, bytes) in buckets.iter_mut().zip(self.buckets.0.chunks_exact(HASH_LEN)) {
            bucket.0.copy_from_slice(bytes);
        }
        Digest::check(&self.root, envelope, buckets, self.clock).ok()
    }
}
