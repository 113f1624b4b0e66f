//! A replica: collections of entries over a store, with the rules of puts, deletes, applies and
//! joins.
//!
//! Absence alone never means deletion, and yet nothing is kept of what was deleted. A put
//! removes the siblings that its node holds and gets a fresh dot; a delete removes them and
//! leaves nothing but the context, which says that they were seen. What was seen and is not held
//! is dead, so a peer that still has it can be told, and nobody brings it back.
//!
//! Time and randomness are arguments: a replica reads no clock and has no generator of its own.
//!
//! ```
//! use selfsame::replica::{Replica, ReplicaOptions};
//! use selfsame::store::MemoryStore;
//! use selfsame::types::{CollectionName, CollectionSpec, Key, Policy};
//!
//! let mut number = 1;
//! let random = Box::new(move || { number += 1; number }); // the system's, in earnest
//! let replica = Replica::open(MemoryStore::default(), ReplicaOptions::default(), random)?;
//! let players = replica.create_collection(CollectionSpec {
//!     name: CollectionName::new("players")?,
//!     algorithm: Default::default(),
//!     policy: Policy::Lww,
//! })?;
//! let key = Key::new(b"player:17".to_vec())?;
//! players.put(&key, *b"level 3", 1_000)?;
//! players.put(&key, *b"level 4", 1_001)?;
//! let reading = players.read(&key)?.expect("it was put");
//! assert_eq!(reading.versions[0].value.as_deref(), Some(&b"level 4"[..]));
//! players.delete(&key, 1_002)?;
//! assert!(players.get(&key)?.is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod apply;
mod backup;
mod certificates;
mod clones;
mod collection;
mod commit;
mod common;
mod conflicts;
mod draft;
mod evidence;
mod group;
mod history;
mod join;
mod known;
mod list;
mod loaded;
mod log;
mod lost;
mod marks;
mod mend;
#[cfg(feature = "node")]
pub(crate) mod migrate;
mod open;
mod pages;
mod past;
mod prove;
mod put;
mod reading;
mod recovery;
mod reports;
mod restamp;
mod restore;
mod rows;
mod scrub;
mod sketching;
mod snapshot;
mod token;
mod view;
mod witness;

pub use backup::NotBackedUp;
pub use certificates::KeptCertificate;
pub use clones::{AsideEntry, CloneFound, CloneSign, KeptClone, MAX_CLONES};
pub use collection::{Collection, PresentWriter};
pub use conflicts::Conflicts;
pub use evidence::{ClaimedPut, MAX_SAME_DOT, SameDot};
pub use list::DamagedRow;
pub use lost::LostValue;
pub use marks::{HeardMark, OwnWriter, WriterMark};
pub use open::{Random, Replica, ReplicaOptions};
pub use past::{Past, Reach, Replaced};
pub use prove::{CommitProof, ProveError, WantedChange};
pub use put::Imported;
pub use reading::{Reading, Version};
pub use recovery::{CheckReport, Recovered};
pub use reports::{Incident, MAX_REPORTS, Report, ReportCounts};
pub use restamp::RestampStep;
pub use restore::{NotRestored, RestoreOptions, Restored};
pub use scrub::{Rot, RotKind, ScrubProgress, ScrubReport, ScrubStep};
pub use sketching::Warming;
pub use snapshot::Snapshot;
pub use view::{
    ApplyOutcome, CollectionView, Entry, IncomingSibling, JoinRecord, JoinRequest, KeyUpdate,
    RefusalReason, Refused, RemovalLog, ViewError,
};
pub use witness::{KeptEvidence, SeenLog, Witnessed};

use crate::clock::ClockAhead;
use crate::dots::ContextError;
use crate::hash::KeyHash;
use crate::resolve::UnknownResolver;
use crate::store::StoreError;
use crate::types::CollectionSpec;

/// A replica could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicaError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is on disk does not verify (rule D10).
    #[error(
        "collection {collection} is damaged ({what}): recover it; what survives stays, and peers \
         give back the rest"
    )]
    Damaged {
        /// Name of the collection.
        collection: String,
        /// What did not verify.
        what: String,
    },
    /// One entry rotted: it cannot be read, and keys beside it in its page not be written, until a
    /// peer gives it back (rule D10). All else goes on.
    #[error("{}", view::rotten(collection, key))]
    Rotten {
        /// Name of the collection.
        collection: String,
        /// Hash of its key.
        key: KeyHash,
    },
    /// A snapshot could not be read.
    #[error("collection {0}: {1}")]
    View(String, ViewError),
    /// The value is larger than a value may be.
    #[error("a value of {size} bytes is more than the {limit} that max_value_bytes allows")]
    ValueSize {
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The entry would have too many siblings.
    #[error(
        "the entry would have {found} concurrent siblings, more than the {limit} that \
         max_siblings allows: put once more, naming the versions that were read"
    )]
    Siblings {
        /// How many it would have.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// The policy names a resolver that this node does not know.
    #[error(transparent)]
    UnknownResolver(#[from] UnknownResolver),
    /// Most peers find this node's clock ahead.
    #[error(transparent)]
    ClockAhead(Box<ClockAhead>),
    /// The siblings are no longer those that were read.
    #[error(
        "the versions of this key have changed since they were read, so nothing was done: read \
         them again"
    )]
    Changed,
    /// There is no collection of this name.
    #[error("there is no collection {0}: create it first")]
    UnknownCollection(String),
    /// There is none that can be read, and a row of the list of collections has no name.
    #[error(
        "there is no collection {0} that can be read, but the list of collections has a damaged \
         row without a name: if it was this one's, recover it"
    )]
    PerhapsDamaged(String),
    /// The row is damaged, and no rows of a collection have a root that goes with the name.
    #[error(
        "collection {0} cannot be found again: its row in the list of collections is damaged, and \
         nothing that is left has a root of that name. Restore a backup, or make a new node and \
         take the collection from a peer; the other collections can be used as before"
    )]
    LostRow(String),
    /// The collection exists and behaves otherwise.
    #[error(
        "collection {name} exists with {found}, not with {asked}: choose another name, or the \
         same settings"
    )]
    OtherSpec {
        /// Its name.
        name: String,
        /// What it has.
        found: String,
        /// What was asked for.
        asked: String,
    },
    /// The session read the collection before it was recovered (rule D10).
    #[error("collection {0} was recovered since this session began: start the session again")]
    OtherEpoch(String),
    /// A backup was restored in place of the collection since this handle on it was taken.
    #[error("collection {0} was restored from a backup meanwhile: ask again")]
    Replaced(String),
    /// The context has more exceptions than can be listed.
    #[error(transparent)]
    Context(#[from] ContextError),
}

impl ReplicaError {
    fn other_spec(found: &CollectionSpec, asked: &CollectionSpec) -> Self {
        let behaviour = |spec: &CollectionSpec| format!("{} and {}", spec.algorithm, spec.policy);
        Self::OtherSpec {
            name: asked.name.to_string(),
            found: behaviour(found),
            asked: behaviour(asked),
        }
    }
}
