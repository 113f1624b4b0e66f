//! Resolvers: how a collection of a custom policy reads a key with concurrent versions.
//!
//! A resolver is named and versioned, and both are bound in the root of the collections that use
//! it: two nodes synchronise such a collection only if they have the same one. It merges when a
//! key is **read**, from the versions alone, so that every node which holds the same versions
//! shows the same value. Nothing is written by that: two nodes that each wrote what they merged
//! would make new concurrent versions of it. The next put that has seen the versions replaces
//! them.
//!
//! | built in | what it shows |
//! |---|---|
//! | [`max@1`](max::Max) | the greatest value, by number where it is one |
//! | [`set-union@1`](set_union::SetUnion) | a JSON array of all elements of all arrays |
//! | [`json-merge@1`](json_merge::JsonMerge) | an object, each field as the latest version has it |
//! | [`first@1`](first::First) | the earliest version, and a report that there was another |
//!
//! ```
//! use selfsame::clock::Stamp;
//! use selfsame::dots::Dot;
//! use selfsame::resolve::{Candidate, ResolveError, Resolver, Resolvers};
//! use selfsame::types::Key;
//!
//! /// Shows the longest value; of several the greatest.
//! struct Longest;
//!
//! impl Resolver for Longest {
//!     fn name(&self) -> &str { "longest" }
//!     fn version(&self) -> u32 { 1 }
//!     fn merge(&self, _: &Key, versions: &[Candidate<'_>]) -> Result<Vec<u8>, ResolveError> {
//!         let longest = versions.iter().map(|one| one.value).max_by_key(|it| (it.len(), *it));
//!         Ok(longest.unwrap_or_default().to_vec())
//!     }
//! }
//!
//! let known = Resolvers::built_in().with(Longest);
//! let longest = known.named("longest", 1).expect("it was just added");
//! let dot = |counter| Dot::new(7, counter).expect("not zero");
//! let versions = [
//!     Candidate { dot: dot(1), stamp: Stamp(5), value: b"short" },
//!     Candidate { dot: dot(2), stamp: Stamp(4), value: b"longer" },
//! ];
//! let key = Key::new("key")?;
//! assert_eq!(longest.merge(&key, &versions)?, b"longer");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod first;
mod guard;
mod json;
pub mod json_merge;
pub mod max;
pub mod set_union;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::clock::Stamp;
use crate::dots::Dot;
use crate::types::{CollectionName, Key, Policy};

pub use guard::Guard;
pub use json::{MAX_JSON_BYTES, MAX_JSON_DEPTH};

/// One of several concurrent versions of a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Candidate<'a> {
    /// The put that wrote it; of several with equal values the latest.
    pub dot: Dot,
    /// When, by the writer's clock.
    pub stamp: Stamp,
    /// Its value.
    pub value: &'a [u8],
}

/// Versions cannot be merged; all of them are shown then.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The resolver cannot merge these values; it says why.
    #[error("the versions cannot be merged: {0}")]
    NotMergeable(String),
    /// More bytes than the resolver takes, or than a value may have.
    #[error("the versions cannot be merged: {size} bytes are more than the {limit} allowed")]
    TooLarge {
        /// How many there are.
        size: u64,
        /// How many there may be.
        limit: u64,
    },
    /// The bytes of a version are lost here.
    #[error(
        "the versions cannot be merged here: the bytes of one are lost or damaged, and the next \
         session with a peer that has them fetches them again"
    )]
    ValueLost,
    /// The resolver gave two results for the same versions.
    #[error(
        "resolver {0} gave different results for the same versions, so that nodes would not \
         agree: all versions are shown until the node starts again; correct the resolver"
    )]
    NotDeterministic(String),
    /// The resolver panicked.
    #[error("resolver {0} panicked on these versions: correct the resolver")]
    Panicked(String),
}

/// What concurrent versions break, in a sentence: it is reported, and nothing is undone.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);

/// Merges concurrent versions of a key into what is shown.
///
/// It must be **pure**: it looks at its arguments and at nothing else, no clock, no file, no
/// random number, no address in memory, no map without an order. And the order in which versions
/// are given must not matter: sort them by `(stamp, dot)` where order is meant. A node gives them
/// in several orders now and then, compares, and stops using a resolver that gives two results.
///
/// It works on bytes that peers sent: it must bound its work, and must not panic. Whoever changes
/// what one gives for any versions gives it another version number.
pub trait Resolver: Send + Sync {
    /// Its name, 1 to 255 bytes.
    fn name(&self) -> &str;

    /// Its version.
    fn version(&self) -> u32;

    /// What is shown of these versions. There are at least two, and no two have equal values.
    ///
    /// # Errors
    /// They cannot be merged: a sentence says why, and all of them are shown.
    fn merge(&self, key: &Key, versions: &[Candidate<'_>]) -> Result<Vec<u8>, ResolveError>;

    /// Whether the versions can stand beside each other. It is asked when a session brings a
    /// version beside others; a violation is reported at this node, and changes nothing.
    ///
    /// # Errors
    /// A sentence about what they break.
    fn check(&self, key: &Key, versions: &[Candidate<'_>]) -> Result<(), Violation> {
        let _ = (key, versions);
        Ok(())
    }
}

/// A policy names a resolver that this program does not have.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[error(
    "this node does not know the resolver {resolver}@{version} (it knows {known}): use a program \
     that has this one, or a collection with another policy"
)]
pub struct UnknownResolver {
    /// Its name.
    pub resolver: CollectionName,
    /// Its version.
    pub version: u32,
    /// Those that are known.
    pub known: String,
}

/// The resolvers that a program has, by name and version.
#[derive(Clone)]
pub struct Resolvers(BTreeMap<(String, u32), Arc<dyn Resolver>>);

impl Resolvers {
    /// None at all.
    #[must_use]
    pub const fn none() -> Self {
        Self(BTreeMap::new())
    }

    /// Those that come with this library.
    #[must_use]
    pub fn built_in() -> Self {
        Self::none()
            .with(first::First)
            .with(json_merge::JsonMerge)
            .with(max::Max)
            .with(set_union::SetUnion)
    }

    /// With one more, in place of one of the same name and version.
    #[must_use]
    pub fn with(mut self, resolver: impl Resolver + 'static) -> Self {
        let id = (resolver.name().to_owned(), resolver.version());
        self.0.insert(id, Arc::new(resolver));
        self
    }

    /// The one of this name and version.
    #[must_use]
    pub fn named(&self, name: &str, version: u32) -> Option<&Arc<dyn Resolver>> {
        self.0.get(&(name.to_owned(), version))
    }

    /// The one that a policy names; none if it names none.
    ///
    /// # Errors
    /// It is not known here.
    pub fn of(&self, policy: &Policy) -> Result<Option<&Arc<dyn Resolver>>, UnknownResolver> {
        let Policy::Custom { resolver, version } = policy else { return Ok(None) };
        let known = self.named(resolver.as_str(), *version);
        known.map(Some).ok_or_else(|| UnknownResolver {
            resolver: resolver.clone(),
            version: *version,
            known: self.to_string(),
        })
    }

    /// The policies that these resolvers make.
    pub fn policies(&self) -> impl Iterator<Item = Policy> {
        self.0.keys().filter_map(|(name, version)| {
            let resolver = CollectionName::new(name.clone()).ok()?;
            Some(Policy::Custom { resolver, version: *version })
        })
    }
}

impl Default for Resolvers {
    fn default() -> Self {
        Self::built_in()
    }
}

impl fmt::Display for Resolvers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (at, (name, version)) in self.0.keys().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{name}@{version}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Resolvers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resolvers({self})")
    }
}

/// Equal names and versions: what they do is not looked at.
impl PartialEq for Resolvers {
    fn eq(&self, other: &Self) -> bool {
        self.0.keys().eq(other.0.keys())
    }
}

impl Eq for Resolvers {}

impl Hash for Resolvers {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.keys().for_each(|id| id.hash(state));
    }
}

/// The versions in the order in which they were written, by their writers' clocks.
fn by_time<'c, 'v>(versions: &'c [Candidate<'v>]) -> Vec<&'c Candidate<'v>> {
    let mut sorted: Vec<_> = versions.iter().collect();
    sorted.sort_unstable_by_key(|version| (version.stamp, version.dot));
    sorted
}
