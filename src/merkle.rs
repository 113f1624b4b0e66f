//! The Merkle tree: a path-compressed binary trie over hashed keys, its proofs and its roots.
//!
//! Same content, same root: whatever the order of writes.

mod arena;
mod batch;
mod edit;
pub mod paged;
mod rows;
pub mod shape;
mod slots;
pub mod tree;
mod trie;

pub use paged::{DEFAULT_PAGE_LEAVES, MAX_PAGE_LEAVES, PagedLeaves, PagedTree};
pub use rows::{PageChanges, PageMismatch, PageRow, Rows, RowsError};
pub use shape::{Prefix, PrefixError, Sealed, Shape, View};
pub use slots::TreeNode;
pub use tree::{Applied, Change, Leaf, Leaves, Tree};
