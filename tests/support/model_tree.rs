//! A tree built anew from a sorted map: the slow and obvious thing to hold the real one against.

use std::collections::BTreeMap;

use selfsame::hash::{HashAlgorithm, KeyHash, RecordDigest, TreeHash};
use selfsame::merkle::{Prefix, Sealed, Shape, View};

struct Node {
    hash: TreeHash,
    view: View<usize>,
    /// The bits that all leaves below have in common.
    prefix: Prefix,
}

/// A tree in memory, parts of which can be sealed.
pub(crate) struct ModelTree {
    algorithm: HashAlgorithm,
    nodes: Vec<Node>,
    sealed: Option<Prefix>,
}

impl ModelTree {
    /// The tree of these leaves.
    pub(crate) fn new(algorithm: HashAlgorithm, leaves: &BTreeMap<KeyHash, RecordDigest>) -> Self {
        let mut tree = Self { algorithm, nodes: Vec::new(), sealed: None };
        let leaves: Vec<_> = leaves.iter().map(|(key, record)| (*key, *record)).collect();
        if !leaves.is_empty() {
            tree.build(&leaves);
        }
        tree
    }

    /// Seals every node whose leaves all stand under the prefix.
    #[allow(dead_code)]
    pub(crate) fn sealed_at(mut self, prefix: Prefix) -> Self {
        self.sealed = Some(prefix);
        self
    }

    // children stand before their parent, the top last
    fn build(&mut self, leaves: &[(KeyHash, RecordDigest)]) -> usize {
        let (first, record) = leaves[0];
        let node = match first.first_difference(&leaves[leaves.len() - 1].0) {
            None => Node {
                hash: self.algorithm.leaf(&first, &record),
                view: View::Leaf { key: first, record },
                prefix: Prefix::of(&first, 256),
            },
            Some(bit) => {
                let middle = leaves.partition_point(|(key, _)| !key.bit(bit));
                let (left, right) = leaves.split_at(middle);
                let (left, right) = (self.build(left), self.build(right));
                let (left_hash, right_hash) = (&self.nodes[left].hash, &self.nodes[right].hash);
                Node {
                    hash: self.algorithm.inner(bit, left_hash, right_hash),
                    view: View::Inner { bit, left, right },
                    prefix: Prefix::of(&first, u16::from(bit)),
                }
            }
        };
        self.nodes.push(node);
        self.nodes.len() - 1
    }
}

impl Shape for ModelTree {
    type Node = usize;

    fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    fn top(&self) -> Option<usize> {
        self.nodes.len().checked_sub(1)
    }

    fn hash(&self, node: usize) -> TreeHash {
        self.nodes[node].hash
    }

    fn view(&self, node: usize) -> Result<View<usize>, Sealed> {
        let Node { view, prefix, .. } = &self.nodes[node];
        match &self.sealed {
            Some(sealed) if sealed.is_prefix_of(prefix) => Err(Sealed(*prefix)),
            _ => Ok(*view),
        }
    }
}
