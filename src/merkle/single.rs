//! One leaf that comes or goes: nearly always the shape of one bunch changes and nothing else, and
//! the nodes above it are hashed one after the other.

use super::bunch;
use super::edit::{Touched, depth_with_child};
use super::replace::page_at;
use super::shape::Prefix;
use super::slots::{Delta, NodeId, TreeNode, totals_of};
use super::tree::Leaf;
use super::trie::{Trie, Way};
use crate::hash::TreeHash;

/// Puts a new leaf into the bunch at the end of a way, from the nearest leaf of which it parts at
/// a bit. The number of inner nodes hashed; none, and nothing is changed, if more than that bunch
/// changes its shape.
pub(super) fn insert(
    trie: &mut Trie,
    touched: &mut Touched,
    way: &Way,
    bit: u8,
    leaf: &Leaf,
) -> Option<usize> {
    let (id, within) = way.within.as_ref()?;
    let beside = way.upwards().next().is_some_and(|(index, _)| trie.inners.split(index).bit > bit);
    let len = trie.bunches.bunch(*id).len();
    if beside || len >= trie.bunch_leaves() || !stays_page(trie, way, 1) {
        return None;
    }
    let whole = trie.hash(TreeNode::whole(NodeId::bunch(*id), way.upwards().next()));
    let depth = trie.depth(NodeId::bunch(*id));
    let (new, descent) = trie.bunches.insert(*id, within, bit, leaf, &whole);
    let layout = new.layout();
    let lines = trie.bunches.lines_mut(new);
    let own = trie.algorithm.of_block(None, &lines[layout.leaf(descent.leaf)].0);
    let hash = bunch::rehash(lines, layout, &descent, own, trie.algorithm);
    let delta = Delta::between(None, Some(&totals_of(leaf)));
    touch(trie, touched, way, leaf);
    rise(trie, way, NodeId::bunch(new), depth, &delta, hash);
    Some(descent.len() + way.len())
}

/// Removes a leaf, as [`insert`] puts one in.
pub(super) fn remove(
    trie: &mut Trie,
    touched: &mut Touched,
    way: &Way,
    leaf: &Leaf,
) -> Option<usize> {
    let (id, within) = way.within.as_ref()?;
    let above = way.upwards().next();
    let fuses =
        |(index, _)| trie.inners.amounts(index).entries() as usize <= trie.bunch_leaves() + 1;
    if within.len() == 0 || above.is_some_and(fuses) || !stays_page(trie, way, -1) {
        return None;
    }
    let depth = trie.depth(NodeId::bunch(*id));
    let (new, descent, beside) = trie.bunches.take(*id, within);
    let layout = new.layout();
    let lines = trie.bunches.lines_mut(new);
    let hash = bunch::rehash(lines, layout, &descent, beside, trie.algorithm);
    let delta = Delta::between(Some(&leaf.totals), None);
    touch(trie, touched, way, leaf);
    rise(trie, way, NodeId::bunch(new), depth, &delta, hash);
    Some(descent.len() + way.len())
}

/// Whether the page around the end of a way is as large a subtree as before when it has a leaf
/// more or less.
fn stays_page(trie: &Trie, way: &Way, change: i64) -> bool {
    let most = i64::from(trie.page_leaves);
    most == 0
        || way.upwards().all(|(index, _)| {
            let entries = i64::from(trie.inners.amounts(index).entries());
            (entries <= most) == (entries + change <= most)
        })
}

fn touch(trie: &Trie, touched: &mut Touched, way: &Way, leaf: &Leaf) {
    if let Some(at) = page_at(trie, way) {
        touched.entry(Prefix::of(&leaf.key, at)).or_insert(true);
    }
}

/// Sets what changes above a bunch: `id` stands at the end of the way now, with this hash, where
/// something of another depth stood.
fn rise(
    trie: &mut Trie,
    way: &Way,
    mut id: NodeId,
    mut old_depth: u16,
    delta: &Delta,
    mut hash: TreeHash,
) {
    for (index, right) in way.upwards() {
        let split = *trie.inners.split(index);
        if split.child(right) != id {
            trie.inners.set_child(index, right, id);
        }
        // depths of siblings are far from the processor, and seldom wanted
        let new = trie.depth(id);
        if new != old_depth {
            let known = depth_with_child(split.depth, old_depth, new);
            let depth = known.unwrap_or_else(|| trie.depth(split.child(!right)).max(new) + 1);
            trie.inners.set_depth(index, depth);
        }
        old_depth = split.depth;
        trie.change_totals(index, delta);
        let line = trie.inners.line_mut(index);
        line.set_half(right, &hash.0);
        hash = trie.algorithm.of_block(Some(split.bit), &line.0);
        id = NodeId::inner(index);
    }
    (trie.top, trie.top_hash) = (Some(id), hash);
}
