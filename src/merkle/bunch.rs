//! A bunch: a subtree of few leaves in lines that stand one after the other, so that a walk needs
//! one place in memory for the last levels of a tree instead of one for each.
//!
//! - one line that says which node is whose child: of every inner node, in pre-order, the bit at
//!   which it splits and the number of inner nodes on its left side; then the number of leaves,
//!   and the depth
//! - a line for every leaf, ascending, of key hash and record digest
//! - a line for every inner node, in pre-order, of the hashes of its two children
//! - notes of the leaves' totals, four to a line
//!
//! The left child of an inner node is then the next one, and there are no links.

use std::ops::Range;

use super::slots::Line;
use super::tree::Leaf;
use crate::clock::Stamp;
use crate::hash::{HashAlgorithm, KeyHash, RecordDigest, TreeHash};

/// Most leaves of a bunch: what there is to say of 31 inner nodes fits into one line.
pub(super) const MOST: usize = 32;
/// Sizes of bunches: for 2, 4, 6 .. 32 leaves.
pub(super) const CLASSES: usize = MOST / 2;

// where in the first line what stands: bits from the start on
const LEFTS: usize = MOST - 1;
const LEN: usize = 2 * LEFTS;
const DEPTH: usize = LEN + 1;

/// How bunches of a size are laid out.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    capacity: usize,
}

impl Layout {
    pub(super) const fn of_class(class: usize) -> Self {
        Self { capacity: 2 * (class + 1) }
    }

    /// The size for so many leaves, at least one.
    pub(super) const fn class_for(leaves: usize) -> usize {
        (leaves - 1) / 2
    }

    /// Lines of a bunch.
    pub(super) const fn lines(self) -> usize {
        2 * self.capacity + self.capacity.div_ceil(Note::IN_LINE)
    }

    #[inline]
    pub(super) const fn leaf(self, at: usize) -> usize {
        1 + at
    }

    #[inline]
    pub(super) const fn inner(self, at: usize) -> usize {
        1 + self.capacity + at
    }

    #[inline]
    const fn note(self, at: usize) -> usize {
        2 * self.capacity + at / Note::IN_LINE
    }
}

/// Totals of a leaf in 16 bytes: siblings in the upper 16 bits, bytes in the lower 48. What does
/// not fit stands apart, and its index in the lower bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) packed: u64,
    pub(super) latest: Stamp,
}

impl Note {
    const IN_LINE: usize = 4;

    fn from_bytes(bytes: &[u8; 16]) -> Self {
        let (words, _) = bytes.as_chunks::<8>();
        let [packed, latest] = [0, 1].map(|at: usize| u64::from_le_bytes(words[at]));
        Self { packed, latest: Stamp(latest) }
    }

    fn write(self, bytes: &mut [u8; 16]) {
        let (words, _) = bytes.as_chunks_mut::<8>();
        words[0] = self.packed.to_le_bytes();
        words[1] = self.latest.0.to_le_bytes();
    }
}

/// A side of an inner node: where its hash stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Side {
    pub(super) of: u8,
    pub(super) right: bool,
}

/// A subtree of a bunch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Span {
    /// The topmost inner node, if there is one, and how many there are.
    node: u8,
    inners: u8,
    first_leaf: u8,
    /// None of all of the bunch.
    side: Option<Side>,
}

impl Span {
    /// Whatever there is.
    pub(super) const ALL: Self = Self { node: 0, inners: u8::MAX, first_leaf: 0, side: None };

    pub(super) const fn is_all(&self) -> bool {
        self.side.is_none()
    }
}

/// What stands at the top of a span.
pub(super) enum Top {
    Leaf(usize),
    Inner { node: usize, sides: [Span; 2] },
}

/// The inner nodes of a bunch above a leaf, and on which side of each it stands.
#[derive(Clone, Copy)]
pub(super) struct Descent {
    sides: [Side; MOST],
    len: usize,
    pub(super) leaf: usize,
}

impl Descent {
    /// The first so many steps.
    fn above(&self, len: usize) -> Self {
        Self { len, ..*self }
    }

    fn push(&mut self, side: Side) {
        self.sides[self.len] = side;
        self.len += 1;
    }

    #[inline]
    pub(super) fn upwards(&self) -> impl Iterator<Item = Side> {
        self.sides[..self.len].iter().rev().copied()
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }
}

/// A bunch to read.
#[derive(Clone, Copy)]
pub(super) struct Bunch<'a> {
    lines: &'a [Line],
    layout: Layout,
}

impl<'a> Bunch<'a> {
    pub(super) const fn new(lines: &'a [Line], layout: Layout) -> Self {
        Self { lines, layout }
    }

    /// Number of leaves, at least one.
    #[inline]
    pub(super) fn len(self) -> usize {
        usize::from(self.lines[0].0[LEN])
    }

    /// The bit at which an inner node splits.
    #[inline]
    pub(super) fn bit(self, node: usize) -> u8 {
        self.lines[0].0[node]
    }

    /// Inner nodes on the left side of one.
    #[inline]
    fn lefts(self, node: usize) -> usize {
        usize::from(self.lines[0].0[LEFTS + node])
    }

    #[inline]
    pub(super) fn leaf_line(self, at: usize) -> &'a Line {
        &self.lines[self.layout.leaf(at)]
    }

    #[inline]
    pub(super) fn inner_line(self, node: usize) -> &'a Line {
        &self.lines[self.layout.inner(node)]
    }

    #[inline]
    pub(super) fn key(self, at: usize) -> KeyHash {
        KeyHash(*self.leaf_line(at).half(false))
    }

    #[inline]
    pub(super) fn record(self, at: usize) -> RecordDigest {
        RecordDigest(*self.leaf_line(at).half(true))
    }

    #[inline]
    pub(super) fn note(self, at: usize) -> Note {
        let (notes, _) = self.lines[self.layout.note(at)].0.as_chunks();
        Note::from_bytes(&notes[at % Note::IN_LINE])
    }

    /// The way to the leaf nearest to a key: its own, if it is there.
    #[inline]
    pub(super) fn descend(self, key: &KeyHash) -> Descent {
        let mut descent = Descent { sides: [Side::default(); MOST], len: 0, leaf: 0 };
        let (mut node, mut inners) = (0, self.len() - 1);
        while inners > 0 {
            let right = key.bit(self.bit(node));
            descent.push(Side { of: node as u8, right });
            let lefts = self.lefts(node);
            node += 1;
            if right {
                node += lefts;
                descent.leaf += lefts + 1;
                inners -= lefts + 1;
            } else {
                inners = lefts;
            }
        }
        descent
    }

    /// The leaf at the end of that way.
    #[inline]
    pub(super) fn nearest(self, key: &KeyHash) -> usize {
        self.descend(key).leaf
    }

    #[inline]
    fn inners(self, span: Span) -> usize {
        if span.is_all() { self.len() - 1 } else { usize::from(span.inners) }
    }

    /// The leaves of a span.
    pub(super) fn leaves(self, span: Span) -> Range<usize> {
        let first = usize::from(span.first_leaf);
        first..first + self.inners(span) + 1
    }

    /// What stands at the top of a span.
    pub(super) fn top(self, span: Span) -> Top {
        let inners = self.inners(span);
        if inners == 0 {
            return Top::Leaf(usize::from(span.first_leaf));
        }
        let (node, lefts) = (span.node, self.lines[0].0[LEFTS + usize::from(span.node)]);
        let left = Span {
            node: node + 1,
            inners: lefts,
            first_leaf: span.first_leaf,
            side: Some(Side { of: node, right: false }),
        };
        let right = Span {
            node: node + 1 + lefts,
            inners: inners as u8 - 1 - lefts,
            first_leaf: span.first_leaf + lefts + 1,
            side: Some(Side { of: node, right: true }),
        };
        Top::Inner { node: usize::from(node), sides: [left, right] }
    }

    /// Most inner nodes between the top of a span and a leaf.
    pub(super) fn depth(self, span: Span) -> u16 {
        if span.is_all() {
            return u16::from(self.lines[0].0[DEPTH]);
        }
        match self.top(span) {
            Top::Leaf(_) => 0,
            Top::Inner { sides: [left, right], .. } => self.depth(left).max(self.depth(right)) + 1,
        }
    }

    /// The hash of a span; none of all, whose hash stands elsewhere.
    pub(super) fn hash(self, span: Span) -> Option<TreeHash> {
        span.side.map(|side| self.hash_at(side))
    }

    #[inline]
    pub(super) fn hash_at(self, side: Side) -> TreeHash {
        TreeHash(*self.inner_line(usize::from(side.of)).half(side.right))
    }

    /// The leaves under the first `len` bits of a key; none if there are none.
    pub(super) fn under(self, key: &KeyHash, len: u16) -> Option<Span> {
        let mut span = Span::ALL;
        while let Top::Inner { node, sides: [left, right] } = self.top(span)
            && u16::from(self.bit(node)) < len
        {
            span = if key.bit(self.bit(node)) { right } else { left };
        }
        let sample = self.key(usize::from(span.first_leaf));
        let parts = key.first_difference(&sample);
        parts.is_none_or(|bit| u16::from(bit) >= len).then_some(span)
    }

    /// The bit at which the node above a span splits.
    pub(super) fn bit_above(self, span: Span) -> Option<u8> {
        span.side.map(|side| self.bit(usize::from(side.of)))
    }
}

/// What a bunch is to become when a leaf comes, or goes.
pub(super) struct Shift {
    /// The leaf, and its place.
    pub(super) leaf: usize,
    /// The inner node that comes or goes with it, in pre-order.
    pub(super) node: usize,
    /// The first line of the bunch as it is to be.
    first: Line,
    /// The way to where a hash is new, and what stands beside it then.
    pub(super) descent: Descent,
    pub(super) beside: Option<Side>,
}

impl Bunch<'_> {
    /// For a new leaf that parts from the nearest one, at the end of a way, at a bit.
    pub(super) fn with(self, within: &Descent, bit: u8, right: bool) -> Shift {
        let steps = within.sides[..within.len].iter();
        let above = steps.take_while(|side| self.bit(usize::from(side.of)) < bit).count();
        let mut span = Span::ALL;
        for side in &within.sides[..above] {
            if let Top::Inner { sides, .. } = self.top(span) {
                span = sides[usize::from(side.right)];
            }
        }
        let (inners, node) = (self.inners(span), usize::from(span.node));
        let leaf = usize::from(span.first_leaf) + if right { inners + 1 } else { 0 };
        let mut first = self.lines[0];
        let nodes = self.len() - 1;
        for side in within.sides[..above].iter().filter(|side| !side.right) {
            first.0[LEFTS + usize::from(side.of)] += 1;
        }
        first.0.copy_within(node..nodes, node + 1);
        first.0.copy_within(LEFTS + node..LEFTS + nodes, LEFTS + node + 1);
        first.0[node] = bit;
        first.0[LEFTS + node] = if right { inners as u8 } else { 0 };
        first.0[LEN] += 1;
        first.0[DEPTH] = first.0[DEPTH].max((above + 1) as u8 + self.depth(span) as u8);
        let mut descent = within.above(above);
        descent.push(Side { of: node as u8, right });
        descent.leaf = leaf;
        Shift { leaf, node, first, descent, beside: span.side }
    }

    /// Without the leaf at the end of a way, which is not the only one.
    pub(super) fn without(self, within: &Descent) -> Shift {
        let above = within.len - 1;
        let Side { of, right } = within.sides[above];
        let (node, leaf) = (usize::from(of), within.leaf);
        let mut first = self.lines[0];
        let nodes = self.len() - 1;
        for side in within.sides[..above].iter().filter(|side| !side.right) {
            first.0[LEFTS + usize::from(side.of)] -= 1;
        }
        first.0.copy_within(node + 1..nodes, node);
        first.0.copy_within(LEFTS + node + 1..LEFTS + nodes, LEFTS + node);
        first.0[LEN] -= 1;
        let lines = [first];
        let shorter = Bunch { lines: &lines, layout: self.layout };
        let depth = match shorter.top(Span::ALL) {
            Top::Leaf(_) => 0,
            Top::Inner { sides: [left, right], .. } => {
                shorter.depth(left).max(shorter.depth(right)) + 1
            }
        };
        first.0[DEPTH] = depth as u8;
        let beside = Some(Side { of, right: !right });
        Shift { leaf, node, first, descent: within.above(above), beside }
    }
}

/// Writes what a bunch becomes: all lines but those of a leaf that comes, and of its node.
pub(super) fn shift(
    (lines, layout): (&mut [Line], Layout),
    from: Bunch<'_>,
    change: &Shift,
    comes: bool,
) {
    let (gap, cut) = if comes { (1, 0) } else { (0, 1) };
    let moved = |at: usize, border: usize| if at < border { at } else { at + gap - cut };
    for at in (0..from.len()).filter(|at| comes || *at != change.leaf) {
        let to = moved(at, change.leaf);
        lines[layout.leaf(to)] = *from.leaf_line(at);
        set_note(lines, layout, to, from.note(at));
    }
    for at in (0..from.len() - 1).filter(|at| comes || *at != change.node) {
        lines[layout.inner(moved(at, change.node))] = *from.inner_line(at);
    }
    lines[0] = change.first;
}

/// Leaves that were in another bunch before, the hashes of which are known.
#[derive(Clone, Copy)]
pub(super) struct Kept<'a> {
    from: Bunch<'a>,
    /// That of all of it.
    hash: TreeHash,
    /// Where each leaf stood, if it is as it was.
    places: &'a [Option<u8>],
    family: &'a Family,
}

/// Where a node stands in its bunch: on a side of another, or, if there is none, at the top.
#[derive(Clone, Copy)]
struct Stand(Option<Side>);

/// Where all leaves and inner nodes of a bunch stand.
pub(super) struct Family {
    leaves: [Stand; MOST],
    inners: [Stand; MOST],
}

impl Family {
    pub(super) fn of(bunch: Bunch<'_>) -> Self {
        let mut family = Self { leaves: [Stand(None); MOST], inners: [Stand(None); MOST] };
        let mut waiting = [Span::ALL; MOST];
        let mut count = 1;
        while count > 0 {
            count -= 1;
            let span = waiting[count];
            match bunch.top(span) {
                Top::Leaf(at) => family.leaves[at] = Stand(span.side),
                Top::Inner { node, sides: [left, right] } => {
                    family.inners[node] = Stand(span.side);
                    (waiting[count], waiting[count + 1]) = (right, left);
                    count += 2;
                }
            }
        }
        family
    }
}

impl<'a> Kept<'a> {
    pub(super) const fn new(
        from: Bunch<'a>,
        hash: TreeHash,
        places: &'a [Option<u8>],
        family: &'a Family,
    ) -> Self {
        Self { from, hash, places, family }
    }

    /// For leaves of which the first so many stand apart from the others.
    pub(super) const fn split_at(self, middle: usize) -> (Self, Self) {
        let (zeros, ones) = self.places.split_at(middle);
        (Self { places: zeros, ..self }, Self { places: ones, ..self })
    }

    /// Where a leaf stood, if it is as it was.
    fn leaf(&self, at: usize) -> Option<Stand> {
        self.places[at].map(|place| self.family.leaves[usize::from(place)])
    }

    /// Where the node stood both sides of which these were; none if there was no such node.
    fn join(&self, left: Option<Stand>, right: Option<Stand>) -> Option<Stand> {
        let (left, right) = (left?.0?, right?.0?);
        let are_siblings = left.of == right.of && right.right && !left.right;
        are_siblings.then(|| self.family.inners[usize::from(left.of)])
    }

    fn hash(&self, stood: Stand) -> TreeHash {
        stood.0.map_or(self.hash, |side| self.from.hash_at(side))
    }
}

/// A node whose hash is due: where its preimage stands, the bit at which it splits (none of a
/// leaf), and the node and side where the hash goes. Lines of the bunch.
pub(super) struct Due {
    pub(super) line: usize,
    pub(super) bit: Option<u8>,
    pub(super) above: usize,
    pub(super) right: bool,
}

/// The top of a bunch that was laid; its hash, if it is known.
pub(super) struct Laid {
    pub(super) line: usize,
    pub(super) bit: Option<u8>,
    pub(super) depth: u16,
    pub(super) hash: Option<TreeHash>,
}

/// A subtree all of whose leaves passed by.
#[derive(Clone, Copy, Default)]
struct Whole {
    line: usize,
    bit: Option<u8>,
    depth: u8,
    /// Where it stood before, if it did.
    stood: Option<Stand>,
}

/// A node that waits for its left side.
#[derive(Clone, Copy, Default)]
struct Open {
    /// The leaf on its left.
    leaf: usize,
    bit: u8,
    right: Whole,
}

/// Writes a bunch of leaves that strictly ascend, 1 to [`MOST`], into lines of its own. Hashes
/// that are not known are due, children before parents.
///
/// Leaves pass by from the last to the first, and nodes that are not yet whole wait on a stack,
/// the deepest on top (the Cartesian tree of the bits in which each leaf differs from the next).
/// Those that wait below a node when it comes are the ones that it stands left of: they come
/// before it in pre-order, and so do all nodes left of its first leaf.
pub(super) fn lay(
    lines: &mut [Line],
    layout: Layout,
    leaves: &[Leaf],
    kept: Option<Kept<'_>>,
    mut note: impl FnMut(&Leaf) -> Note,
    mut due: impl FnMut(Due),
) -> Laid {
    let mut first = Line::EMPTY;
    let mut open = [Open::default(); MOST];
    let mut opened = 0;
    let mut top = Whole::default();
    for (at, leaf) in leaves.iter().enumerate().rev() {
        lines[layout.leaf(at)].set(&leaf.key.0, &leaf.record.0);
        set_note(lines, layout, at, note(leaf));
        let before = at.checked_sub(1).map(|before| &leaves[before]);
        let bit = before.and_then(|before| before.key.first_difference(&leaf.key));
        let stood = kept.and_then(|kept| kept.leaf(at));
        top = Whole { line: layout.leaf(at), bit: None, depth: 0, stood };
        while opened > 0 && bit.is_none_or(|bit| open[opened - 1].bit > bit) {
            opened -= 1;
            let Open { leaf, bit, right } = open[opened];
            let node = at + opened;
            first.0[node] = bit;
            first.0[LEFTS + node] = (leaf - at) as u8;
            let above = layout.inner(node);
            for (side, right) in [(top, false), (right, true)] {
                match kept.zip(side.stood) {
                    Some((kept, stood)) => lines[above].set_half(right, &kept.hash(stood).0),
                    None => due(Due { line: side.line, bit: side.bit, above, right }),
                }
            }
            let stood = kept.and_then(|kept| kept.join(top.stood, right.stood));
            let depth = top.depth.max(right.depth) + 1;
            top = Whole { line: above, bit: Some(bit), depth, stood };
        }
        if let (Some(bit), Some(leaf)) = (bit, at.checked_sub(1)) {
            open[opened] = Open { leaf, bit, right: top };
            opened += 1;
        }
    }
    first.0[LEN] = leaves.len() as u8;
    first.0[DEPTH] = top.depth;
    lines[0] = first;
    let hash = kept.zip(top.stood).map(|(kept, stood)| kept.hash(stood));
    Laid { line: top.line, bit: top.bit, depth: u16::from(top.depth), hash }
}

/// Sets the note of a leaf.
pub(super) fn set_note(lines: &mut [Line], layout: Layout, at: usize, note: Note) {
    let (notes, _) = lines[layout.note(at)].0.as_chunks_mut();
    note.write(&mut notes[at % Note::IN_LINE]);
}

/// Writes two bunches as one under a node that splits at a bit; all hashes are known.
pub(super) fn fuse(
    lines: &mut [Line],
    layout: Layout,
    bit: u8,
    sides: [Bunch<'_>; 2],
    hashes: &[TreeHash; 2],
) {
    let mut first = Line::EMPTY;
    first.0[0] = bit;
    first.0[LEFTS] = sides[0].len() as u8 - 1;
    lines[layout.inner(0)] = Line::new(&hashes[0].0, &hashes[1].0);
    let (mut leaf, mut node) = (0, 1);
    for side in sides {
        for own in 0..side.len() {
            lines[layout.leaf(leaf)] = *side.leaf_line(own);
            set_note(lines, layout, leaf, side.note(own));
            leaf += 1;
        }
        for own in 0..side.len() - 1 {
            first.0[node] = side.bit(own);
            first.0[LEFTS + node] = side.lefts(own) as u8;
            lines[layout.inner(node)] = *side.inner_line(own);
            node += 1;
        }
    }
    first.0[LEN] = leaf as u8;
    let [left, right] = sides.map(|side| side.depth(Span::ALL) as u8);
    first.0[DEPTH] = left.max(right) + 1;
    lines[0] = first;
}

/// Sets record and note of a leaf.
pub(super) fn set(
    lines: &mut [Line],
    layout: Layout,
    at: usize,
    record: &RecordDigest,
    note: Note,
) {
    lines[layout.leaf(at)].set_half(true, &record.0);
    set_note(lines, layout, at, note);
}

/// Hashes every node above a place where something of this hash stands; the hash of the topmost.
pub(super) fn rehash(
    lines: &mut [Line],
    layout: Layout,
    descent: &Descent,
    mut hash: TreeHash,
    algorithm: HashAlgorithm,
) -> TreeHash {
    for Side { of, right } in descent.upwards() {
        let bit = lines[0].0[usize::from(of)];
        let line = &mut lines[layout.inner(usize::from(of))];
        line.set_half(right, &hash.0);
        hash = algorithm.of_block(Some(bit), &line.0);
    }
    hash
}
