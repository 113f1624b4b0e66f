//! The digest of a collection: its root fields and the hashes of its 256 buckets.
//!
//! Buckets are the subtrees of the one-byte prefixes. Folded over the first eight bits they give
//! the tree hash, so a digest shows where two replicas differ and cannot claim another root than
//! its own.
//!
//! ```
//! use selfsame::hash::{HashAlgorithm, KeyHash, RecordDigest};
//! use selfsame::merkle::fold_buckets;
//!
//! let algorithm = HashAlgorithm::Blake3;
//! let leaf = algorithm.leaf(&KeyHash([0x2a; 32]), &RecordDigest([0; 32]));
//! let mut buckets = [algorithm.empty(); 256];
//! buckets[0x2a] = leaf;
//! assert_eq!(fold_buckets(algorithm, &buckets), leaf);
//! ```

use subtle::ConstantTimeEq;

use super::{Envelope, Sealed, Shape, View};
use crate::clock::Stamp;
use crate::hash::{HashAlgorithm, KeyHash, Root, TreeHash};

/// Number of buckets: one for each first byte of a key hash.
pub const BUCKETS: usize = 256;

/// Parts of a digest that do not belong together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// The buckets are those of another tree.
    #[error("digest: the buckets fold to {folded}, not to the tree hash: do not trust its source")]
    Fold {
        /// What they fold to.
        folded: TreeHash,
    },
    /// The fields hash to another root.
    #[error("digest: the fields hash to {hashed}, not to the root: do not trust its source")]
    Root {
        /// What they hash to.
        hashed: Root,
    },
}

/// Root fields and bucket hashes of a collection at one moment.
///
/// The buckets fold to the tree hash. At which positions they stand is not proved: only leaves,
/// which contain the key hash, do that.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Digest {
    envelope: Envelope,
    buckets: Box<[TreeHash; BUCKETS]>,
    clock: Stamp,
}

impl Digest {
    /// From the parts as they are known here. `clock` is the node's logical clock; it is under
    /// no root.
    ///
    /// # Errors
    /// Buckets that do not fold to the envelope's tree hash.
    pub fn new(
        envelope: Envelope,
        buckets: Box<[TreeHash; BUCKETS]>,
        clock: Stamp,
    ) -> Result<Self, DigestError> {
        let folded = fold_buckets(envelope.algorithm(), &buckets);
        if !same(&folded.0, &envelope.tree_hash().0) {
            return Err(DigestError::Fold { folded });
        }
        Ok(Self { envelope, buckets, clock })
    }

    /// From parts that someone else states, with the root that they state.
    ///
    /// # Errors
    /// Buckets that do not fold to the envelope's tree hash; an envelope of another root.
    pub fn check(
        root: &Root,
        envelope: Envelope,
        buckets: Box<[TreeHash; BUCKETS]>,
        clock: Stamp,
    ) -> Result<Self, DigestError> {
        let digest = Self::new(envelope, buckets, clock)?;
        let hashed = digest.envelope.root();
        if !same(&hashed.0, &root.0) {
            return Err(DigestError::Root { hashed });
        }
        Ok(digest)
    }

    /// The root fields.
    #[must_use]
    pub const fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// Hashes of the 256 buckets; an empty one has the hash of the empty tree.
    #[must_use]
    pub const fn buckets(&self) -> &[TreeHash; BUCKETS] {
        &self.buckets
    }

    /// The node's logical clock when the digest was made.
    #[must_use]
    pub const fn clock(&self) -> Stamp {
        self.clock
    }
}

/// Folds bucket hashes over the first eight bits to the tree hash. 255 hashes at most.
#[must_use]
pub fn fold_buckets(algorithm: HashAlgorithm, buckets: &[TreeHash; BUCKETS]) -> TreeHash {
    let empty = algorithm.empty();
    let mut hashes = *buckets;
    let mut width = BUCKETS;
    for bit in (0..8).rev() {
        width /= 2;
        for at in 0..width {
            let (left, right) = (hashes[2 * at], hashes[2 * at + 1]);
            hashes[at] = match (left == empty, right == empty) {
                (false, false) => algorithm.inner(bit, &left, &right),
                (true, _) => right,
                (false, true) => left,
            };
        }
    }
    hashes[0]
}

/// The 256 bucket hashes of a tree.
///
/// # Errors
/// A page on the way to a bucket is not in memory.
pub fn buckets_of<S: Shape>(shape: &S) -> Result<Box<[TreeHash; BUCKETS]>, Sealed> {
    let mut buckets = Box::new([shape.algorithm().empty(); BUCKETS]);
    let mut pending: Vec<_> = shape.top().into_iter().collect();
    while let Some(node) = pending.pop() {
        match first_key_or_children(shape, node)? {
            Ok(key) => buckets[usize::from(key.bucket())] = shape.hash(node),
            Err(children) => pending.extend(children),
        }
    }
    Ok(buckets)
}

/// A key hash below a node that lies within one bucket, else its children.
fn first_key_or_children<S: Shape>(
    shape: &S,
    node: S::Node,
) -> Result<Result<KeyHash, [S::Node; 2]>, Sealed> {
    let mut below = node;
    loop {
        match shape.view(below) {
            Ok(View::Leaf { key, .. }) => return Ok(Ok(key)),
            Ok(View::Inner { bit, left, right }) if bit < 8 => return Ok(Err([left, right])),
            Ok(View::Inner { left, .. }) => below = left,
            // a sealed page that lies within one bucket says enough by its prefix
            Err(Sealed(prefix)) if prefix.len() >= 8 => return Ok(Ok(prefix.first_key())),
            Err(sealed) => return Err(sealed),
        }
    }
}

/// Whether two hashes are equal, in constant time.
pub(super) fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.ct_eq(b).into()
}
