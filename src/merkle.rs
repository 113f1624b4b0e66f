//! The Merkle tree: a path-compressed binary trie over hashed keys, its proofs and its roots.
//!
//! Same content, same root: whatever the order of writes.
//!
//! - the tree: [`Tree`] in memory, [`PagedTree`] over pages that may be on disk
//! - what is stated: [`Envelope`] and its root, [`Digest`], forest roots
//! - what is proved: [`Proof`] of a key, [`MultiProof`] of many, [`SubtreeProof`] of all entries
//!   under a prefix, [`Bundle`] and its kin ([`ProofFile`]) that a verifier needs nothing else for
//! - logs and agreements: [`MerkleLog`] with its signed heads, [`Certificate`]
//!
//! ```
//! use selfsame::entry::Totals;
//! use selfsame::hash::HashAlgorithm;
//! use selfsame::merkle::{Claim, Leaf, Proof, Tree};
//! use selfsame::types::Key;
//!
//! let algorithm = HashAlgorithm::Blake3;
//! let key = algorithm.key_hash(&Key::new(b"player:17".to_vec())?);
//! let record = algorithm.record_digest(b"what is held under it");
//! let mut tree = Tree::new(algorithm);
//! tree.put(Leaf { key, record, totals: Totals { entries: 1, siblings: 1, ..Totals::default() } });
//!
//! let proof = Proof::prove(&tree, &key)?;
//! proof.verify(algorithm, &tree.tree_hash(), &Claim::present(key, record))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod arena;
mod batch;
mod build;
mod bunch;
mod bunches;
pub mod bundle;
pub mod certificate;
mod compact;
mod crowded;
pub mod digest;
mod edit;
pub mod envelope;
pub mod forest;
pub mod log;
pub mod multiproof;
pub mod paged;
mod partial;
mod path;
pub mod proof;
mod replace;
mod rows;
pub mod shape;
pub mod signature;
mod single;
mod slab;
mod slots;
pub mod streamed;
pub mod subtree;
pub mod tree;
mod trie;

pub use bundle::{
    Answer, Bundle, BundleError, ChangeBundle, ChangeBundleError, MAX_BUNDLE_BYTES,
    MAX_PROOF_FILE_BYTES, MAX_PROVED_KEYS, ManyBundle, PrefixBundle, ProofFile, ProofFileKind,
    ProvedChange,
};
pub use certificate::{
    Certificate, CertificateBundle, CertificateBundleError, CertificateError, CertificateMessage,
    MAX_CERTIFICATE_BUNDLE_BYTES, MAX_CERTIFICATE_BYTES,
};
pub use crowded::Crowded;
pub use digest::{BUCKETS, Digest, DigestError, buckets_of, fold_buckets};
pub use envelope::{Envelope, EnvelopeError, MAX_ENVELOPE_BYTES};
pub use forest::{ForestError, forest_root};
pub use log::{
    ChangeItem, CommitEnd, ConsistencyProof, Contradiction, ContradictionError, HeadStatement,
    InclusionProof, LogError, LogHeadError, LogHeadFields, LogId, LogIdentity, LogKind,
    LogProofError, LogSegment, MerkleLog, Perfect, RangeProof, SignedLogHead,
};
pub use multiproof::{MultiProof, MultiProofError, MultiProveError};
pub use paged::{DEFAULT_PAGE_LEAVES, MAX_PAGE_LEAVES, PagedLeaves, PagedTree};
pub use partial::{OtherTree, Partial};
pub use proof::{Claim, MAX_PROOF_BYTES, Proof, ProofError, ProofKind};
pub use rows::{PageChanges, PageMismatch, PageRow, Rows, RowsError};
pub use shape::{Prefix, PrefixError, Sealed, Shape, Trail, View};
pub use signature::{NodeKey, Signature, SignatureError, check_node_id};
pub use slots::TreeNode;
pub use streamed::StreamedTree;
pub use subtree::{SubtreeError, SubtreeProof};
pub use tree::{Applied, Change, Leaf, Leaves, Tree};
