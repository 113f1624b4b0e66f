//! The Merkle tree: a path-compressed binary trie over hashed keys, its proofs and its roots.
//!
//! Same content, same root: whatever the order of writes.

mod arena;
mod batch;
pub mod bundle;
pub mod certificate;
pub mod digest;
mod edit;
pub mod envelope;
pub mod forest;
pub mod log;
pub mod multiproof;
pub mod paged;
mod path;
pub mod proof;
mod rows;
pub mod shape;
pub mod signature;
mod slots;
pub mod subtree;
pub mod tree;
mod trie;

pub use bundle::{Answer, Bundle, BundleError, MAX_BUNDLE_BYTES};
pub use certificate::{Certificate, CertificateError, CertificateMessage, MAX_CERTIFICATE_BYTES};
pub use digest::{BUCKETS, Digest, DigestError, buckets_of, fold_buckets};
pub use envelope::{Envelope, EnvelopeError, MAX_ENVELOPE_BYTES};
pub use forest::{ForestError, forest_root};
pub use log::{
    ConsistencyProof, InclusionProof, LogError, LogHeadError, LogHeadFields, LogId, LogIdentity,
    LogKind, LogProofError, MerkleLog, Perfect, SignedLogHead,
};
pub use multiproof::{MultiProof, MultiProofError, MultiProveError};
pub use paged::{DEFAULT_PAGE_LEAVES, MAX_PAGE_LEAVES, PagedLeaves, PagedTree};
pub use proof::{Claim, MAX_PROOF_BYTES, Proof, ProofError, ProofKind};
pub use rows::{PageChanges, PageMismatch, PageRow, Rows, RowsError};
pub use shape::{Prefix, PrefixError, Sealed, Shape, View};
pub use signature::{NodeKey, Signature, SignatureError, check_node_id};
pub use slots::TreeNode;
pub use subtree::{SubtreeError, SubtreeProof};
pub use tree::{Applied, Change, Leaf, Leaves, Tree};
