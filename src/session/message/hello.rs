//! Hellos: which collection, and whether anything differs at all.
//!
//! Equal collections are the common case, so a hello names everything by tags: short, and keyed
//! where somebody could gain by making two things look alike.

use serde::{Deserialize, Serialize};

use super::{Estimate, Opening};
use crate::hash::{ContextHash, HashAlgorithm, TreeHash};
use crate::merkle::Envelope;
use crate::session::config::{Mode, Profile, Strategy};
use crate::sketch::FoldedEstimator;
use crate::types::{CollectionName, CollectionSpec, Policy};

/// A collection as a hello names it: the ends have told each other names in the greeting.
///
/// Two collections with one tag are harmless: state hashes bind name, algorithm and policy, so
/// they are never taken for equal, and an opening of the one is none of the other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct CollectionTag {
    name: [u8; 6],
    algorithm: HashAlgorithm,
    policy: [u8; 2],
}

/// Why a tag does not stand for a collection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TagMismatch {
    /// It names another one.
    Name,
    /// The hash algorithm is another.
    Algorithm,
    /// The policy is another.
    Policy,
}

impl CollectionTag {
    /// The tag of a collection.
    #[must_use]
    pub fn of(spec: &CollectionSpec) -> Self {
        let policy = match &spec.policy {
            Policy::Lww => [0, 1],
            Policy::Siblings => [0, 2],
            Policy::Custom { resolver, version } => {
                let mut hasher = blake3::Hasher::new_derive_key("selfsame v1 policy tag");
                hasher.update(&version.to_le_bytes()).update(resolver.as_str().as_bytes());
                let [first, second] = first_of(&hasher);
                [first | 0x80, second]
            }
        };
        Self { name: name_tag(&spec.name), algorithm: spec.algorithm, policy }
    }

    /// Whether it stands for a collection of this name.
    #[must_use]
    pub fn names(&self, name: &CollectionName) -> bool {
        self.name == name_tag(name)
    }

    /// Holds it against a collection.
    ///
    /// # Errors
    /// Name, algorithm or policy is another: the first of them that is.
    pub fn check(&self, spec: &CollectionSpec) -> Result<(), TagMismatch> {
        let own = Self::of(spec);
        if self.name != own.name {
            return Err(TagMismatch::Name);
        }
        if self.algorithm != own.algorithm {
            return Err(TagMismatch::Algorithm);
        }
        if self.policy != own.policy { Err(TagMismatch::Policy) } else { Ok(()) }
    }
}

fn name_tag(name: &CollectionName) -> [u8; 6] {
    let mut hasher = blake3::Hasher::new_derive_key("selfsame v1 collection tag");
    hasher.update(name.as_str().as_bytes());
    first_of(&hasher)
}

fn first_of<const N: usize>(hasher: &blake3::Hasher) -> [u8; N] {
    let mut first = [0; N];
    hasher.finalize_xof().fill(&mut first);
    first
}

/// A tree hash as it travels while a session looks for what differs: 16 bytes, keyed by the
/// session.
///
/// Whoever writes to a collection cannot look for two trees with one tag beforehand, since the
/// secret of a session is known to its two ends alone; and an end that wants to say "equal" needs
/// no tag for that. Verification has whole hashes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct TreeTag([u8; 16]);

impl TreeTag {
    /// The tag of a tree in a session with this secret.
    #[must_use]
    pub fn of(secret: &[u8; 32], tree: &TreeHash) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("selfsame v1 tree tag");
        hasher.update(secret).update(&tree.0);
        Self(first_of(&hasher))
    }
}

/// A state as it travels, with what the collection is, its tree and its context: 16 bytes, keyed by
/// the session as a [`TreeTag`] is.
///
/// Whether there is anything to do is decided on it, and what an opening says is held against it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct StateTag([u8; 16]);

impl StateTag {
    /// The tag of a state in a session with this secret.
    #[must_use]
    pub fn of(
        secret: &[u8; 32],
        spec: &CollectionSpec,
        tree: &TreeTag,
        context: &ContextHash,
    ) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("selfsame v1 state tag");
        let nothing = Envelope::empty(spec.clone()).root();
        hasher.update(secret).update(&nothing.0).update(&tree.0).update(&context.0);
        Self(first_of(&hasher))
    }
}

/// A context hash as it travels: the first 6 bytes. What is built on it is held against the
/// state's tag.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct BaseTag([u8; 6]);

impl BaseTag {
    /// The tag of a context.
    #[must_use]
    pub fn of(context: &ContextHash) -> Self {
        let mut first = [0; 6];
        first.copy_from_slice(&context.0[..6]);
        Self(first)
    }
}

/// First message of a session, from the initiator.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Which collection.
    pub collection: CollectionTag,
    /// Which way.
    pub mode: Mode,
    /// How.
    pub strategy: Strategy,
    /// What strategy auto saves, at both ends.
    pub profile: Profile,
    /// State of the snapshot.
    pub state: StateTag,
    /// The merged context of the last session that the initiator joined with this peer.
    pub base: Option<BaseTag>,
    /// What an estimate of the difference needs, when it is at hand and contexts do not explain it.
    pub estimator: Option<FoldedEstimator>,
}

/// The responder's answer to a hello.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum HelloReply {
    /// Equal states: nothing at all is left to do.
    Same,
    /// Different: here is what this side's snapshot is.
    Differs {
        /// State of the responder's snapshot.
        state: StateTag,
        /// How many differ, in answer to an estimator in the hello, when that is at hand here too.
        estimate: Option<Estimate>,
        /// Its opening.
        opening: Box<Opening>,
        /// Whether the base named in the hello is known here too, and used.
        base_known: bool,
    },
    /// The state in the hello is a former one of this side, which has seen all that is there: here
    /// is what its snapshot is, and its first turn follows at once.
    Ahead {
        /// State of the responder's snapshot.
        state: StateTag,
        /// Its opening; a difference of contexts is one against the initiator's.
        opening: Box<Opening>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, policy: Policy) -> CollectionSpec {
        let name = CollectionName::new(name).expect("a name");
        CollectionSpec { name, algorithm: HashAlgorithm::Blake3, policy }
    }

    #[test]
    fn a_tag_tells_what_does_not_match() {
        let resolver = CollectionName::new("max").expect("a name");
        let custom = |version| Policy::Custom { resolver: resolver.clone(), version };
        let tag = CollectionTag::of(&spec("players", custom(1)));
        assert_eq!(tag.check(&spec("players", custom(1))), Ok(()));
        assert_eq!(tag.check(&spec("player", custom(1))), Err(TagMismatch::Name));
        for other in [custom(2), Policy::Lww, Policy::Siblings] {
            assert_eq!(tag.check(&spec("players", other)), Err(TagMismatch::Policy));
        }
        let other =
            CollectionSpec { algorithm: HashAlgorithm::Sha256, ..spec("players", Policy::Lww) };
        assert_eq!(tag.check(&other), Err(TagMismatch::Algorithm));
    }

    #[test]
    fn a_state_has_another_tag_in_another_session() {
        let tag = |secret, name, tree, context| {
            let secret = [secret; 32];
            let tree = TreeTag::of(&secret, &TreeHash([tree; 32]));
            let spec = spec(name, Policy::Lww);
            StateTag::of(&secret, &spec, &tree, &ContextHash([context; 32]))
        };
        assert_eq!(tag(1, "a", 7, 7), tag(1, "a", 7, 7));
        for other in [tag(2, "a", 7, 7), tag(1, "b", 7, 7), tag(1, "a", 8, 7), tag(1, "a", 7, 8)] {
            assert_ne!(tag(1, "a", 7, 7), other);
        }
        let tree = TreeHash([7; 32]);
        assert_ne!(TreeTag::of(&[1; 32], &tree), TreeTag::of(&[2; 32], &tree));
    }
}
