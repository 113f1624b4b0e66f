//! What a node knows of its collections without reading their entries: what metrics and checks
//! are made of.
//!
//! ```
//! use selfsame::node::facts::CollectionFacts;
//! use selfsame::replica::{Replica, ReplicaOptions};
//! use selfsame::store::MemoryStore;
//! use selfsame::types::{CollectionName, CollectionSpec, Key, Policy};
//!
//! let options = ReplicaOptions::default();
//! let replica = Replica::open(MemoryStore::default(), options, Box::new(rand::random))?;
//! let players = replica.create_collection(CollectionSpec {
//!     name: CollectionName::new("players")?,
//!     algorithm: Default::default(),
//!     policy: Policy::Lww,
//! })?;
//! players.put(&Key::new("ada")?, *b"level 3", 1_000)?;
//! let facts = CollectionFacts::of(&players);
//! assert_eq!((facts.entries, facts.bytes, facts.writers), (1, 7, 1));
//! assert_eq!(facts.damage, None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::replica::{Collection, KeptClone, MAX_SAME_DOT, ReplicaError, ScrubReport};
use crate::store::Store;
use crate::types::{CollectionName, NodeId};

/// A collection. Of one that is damaged, only that.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CollectionFacts {
    /// Its name.
    pub name: CollectionName,
    /// Why it cannot be used, if that is so.
    pub damage: Option<String>,
    /// What is wrong with its resolver.
    pub resolver_fault: Option<String>,
    /// Keys held.
    pub entries: u64,
    /// Versions held.
    pub siblings: u64,
    /// Bytes of all values.
    pub bytes: u64,
    /// The latest stamp of all versions, in milliseconds since 1970; none while it is empty.
    pub latest_ms: Option<u64>,
    /// Bytes of replaced values that are kept.
    pub history_bytes: u64,
    /// Bytes of memory set aside for sketches.
    pub sketch_bytes: u64,
    /// Whether sketches are made, so that no session reads all entries.
    pub has_sketches: bool,
    /// Writers that the context lists.
    pub writers: u64,
    /// Exceptions of the context.
    pub exceptions: u64,
    /// What is known of its scrubs, and of what is lost now.
    pub scrub: ScrubReport,
    /// Peers that have contradicted themselves, and since when there are no sessions with them.
    pub distrusted: Vec<(NodeId, u64)>,
    /// Writers that were found to have two users, and that nobody has seen to yet.
    pub clones: Vec<KeptClone>,
    /// Dots that stood for two puts, as many as are kept.
    pub same_dot: u64,
}

impl CollectionFacts {
    /// Of a collection. Takes its lock a few times for a moment, and reads what is known to be
    /// lost and what is kept of clones once more;
    /// entries are not read.
    #[must_use]
    pub fn of<S: Store>(collection: &Collection<S>) -> Self {
        let name = collection.name().clone();
        Self::read(collection).unwrap_or_else(|error| {
            let damage = Some(collection.damage().unwrap_or_else(|| error.to_string()));
            Self { damage, ..Self::unknown(name) }
        })
    }

    /// Of one of which nothing is known.
    #[must_use]
    pub fn unknown(name: CollectionName) -> Self {
        Self {
            name,
            damage: None,
            resolver_fault: None,
            entries: 0,
            siblings: 0,
            bytes: 0,
            latest_ms: None,
            history_bytes: 0,
            sketch_bytes: 0,
            has_sketches: false,
            writers: 0,
            exceptions: 0,
            scrub: ScrubReport::default(),
            distrusted: Vec::new(),
            clones: Vec::new(),
            same_dot: 0,
        }
    }

    fn read<S: Store>(collection: &Collection<S>) -> Result<Self, ReplicaError> {
        let (totals, causality) = (collection.totals()?, collection.causality()?);
        Ok(Self {
            name: collection.name().clone(),
            damage: None,
            resolver_fault: collection.resolver_fault(),
            entries: totals.entries,
            siblings: totals.siblings,
            bytes: totals.bytes,
            latest_ms: (totals.entries > 0).then(|| totals.latest.millis()),
            history_bytes: collection.history_bytes()?,
            sketch_bytes: collection.sketch_bytes() as u64,
            has_sketches: collection.has_sketches(),
            writers: causality.writers() as u64,
            exceptions: causality.exceptions().count(),
            // a store that takes no writes any more has totals all the same
            scrub: collection.scrub_report().unwrap_or_default(),
            distrusted: collection.distrusted().unwrap_or_default(),
            clones: collection.clones().unwrap_or_default(),
            same_dot: collection.evidence(MAX_SAME_DOT as usize).map_or(0, |all| all.len() as u64),
        })
    }

    /// Versions beyond the first of their keys.
    #[must_use]
    pub const fn extra_versions(&self) -> u64 {
        self.siblings.saturating_sub(self.entries)
    }
}
