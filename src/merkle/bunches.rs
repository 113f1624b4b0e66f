//! The bunches of a tree, in a [`Slab`] for each size, and the totals of leaves that do not fit into
//! them.

use super::arena::{Arena, Slot};
use super::bunch::{self, Bunch, CLASSES, Descent, Due, Kept, Layout, Note, Shift, Span};
use super::slab::Slab;
use super::slots::{Line, totals_of};
use super::tree::Leaf;
use crate::entry::Totals;
use crate::hash::{RecordDigest, TreeHash};

/// Names a bunch: its size in the bits below the highest, then its slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct BunchId(pub(super) u32);

impl BunchId {
    const SLOT_BITS: u32 = 31 - CLASSES.ilog2();

    const fn new(class: usize, slot: u32) -> Self {
        Self((class as u32) << Self::SLOT_BITS | slot)
    }

    #[inline]
    const fn class(self) -> usize {
        (self.0 >> Self::SLOT_BITS) as usize
    }

    #[inline]
    const fn slot(self) -> u32 {
        self.0 & ((1 << Self::SLOT_BITS) - 1)
    }

    #[inline]
    pub(super) const fn layout(self) -> Layout {
        Layout::of_class(self.class())
    }
}

/// A leaf of a bunch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Spot {
    pub(super) bunch: BunchId,
    pub(super) at: u8,
}

/// Totals of a leaf that do not fit into its note.
#[derive(Clone, Copy)]
struct Wide {
    siblings: u64,
    bytes: u64,
}

impl Slot for Wide {
    fn vacant(next: u32) -> Self {
        Self { siblings: u64::from(next), bytes: 0 }
    }

    fn next_vacant(&self) -> u32 {
        self.siblings as u32
    }
}

impl Note {
    const BYTES_BITS: u32 = 48;
    const IS_WIDE: u64 = 0xffff << Self::BYTES_BITS;

    fn pack(totals: &Totals) -> Option<Self> {
        let Totals { siblings, bytes, latest, .. } = *totals;
        let fits = siblings < Self::IS_WIDE >> Self::BYTES_BITS && bytes >> Self::BYTES_BITS == 0;
        fits.then_some(Self { packed: siblings << Self::BYTES_BITS | bytes, latest })
    }

    const fn wide(self) -> Option<u32> {
        if self.packed & Self::IS_WIDE == Self::IS_WIDE { Some(self.packed as u32) } else { None }
    }
}

fn note(wide: &mut Arena<Wide>, totals: &Totals) -> Note {
    Note::pack(totals).unwrap_or_else(|| {
        let Totals { siblings, bytes, latest, .. } = *totals;
        let index = wide.insert(Wide { siblings, bytes });
        Note { packed: Note::IS_WIDE | u64::from(index), latest }
    })
}

/// The bunches of a tree, and those totals of leaves that do not fit into them.
#[derive(Clone)]
pub(super) struct Bunches {
    slabs: [Slab; CLASSES],
    wide: Arena<Wide>,
}

impl Bunches {
    pub(super) fn new() -> Self {
        let slabs = std::array::from_fn(|class| Slab::new(Layout::of_class(class)));
        Self { slabs, wide: Arena::new() }
    }

    pub(super) fn bytes(&self) -> usize {
        self.slabs.iter().map(Slab::bytes).sum::<usize>() + self.wide.bytes()
    }

    /// Bytes of the slots that are in use.
    pub(super) fn used_bytes(&self) -> usize {
        self.slabs.iter().map(Slab::used_bytes).sum()
    }

    /// Bytes of the slots that are or were in use.
    pub(super) fn filled_bytes(&self) -> usize {
        self.slabs.iter().map(Slab::filled_bytes).sum()
    }

    /// Whether much of this is a clone's too.
    pub(super) fn are_shared(&self) -> bool {
        self.slabs.iter().any(Slab::is_shared)
    }

    #[inline]
    pub(super) fn lines(&self, id: BunchId) -> &[Line] {
        self.slabs[id.class()].slot(id.slot())
    }

    #[inline]
    pub(super) fn lines_mut(&mut self, id: BunchId) -> &mut [Line] {
        self.slabs[id.class()].slot_mut(id.slot())
    }

    #[inline]
    pub(super) fn bunch(&self, id: BunchId) -> Bunch<'_> {
        Bunch::new(self.lines(id), id.layout())
    }

    /// Has the memory fetch what is looked at before a bunch is changed.
    #[inline]
    pub(super) fn ask(&self, id: BunchId) {
        std::hint::black_box(self.slabs[id.class()].sharers(id.slot()));
    }

    /// A place for a bunch of so many leaves, with anything in it.
    pub(super) fn reserve(&mut self, leaves: usize) -> BunchId {
        let class = Layout::class_for(leaves);
        // 2^30 leaves have at most 2^30 bunches, and all sizes from this one on more slots
        let has_room = |class: &usize| self.slabs[*class].used() >> BunchId::SLOT_BITS == 0;
        let class = (class..CLASSES).find(has_room).expect("a tree holds at most 2^30 leaves");
        BunchId::new(class, self.slabs[class].insert())
    }

    /// Puts a bunch of another tree here.
    pub(super) fn copy(&mut self, from: &Self, id: BunchId) -> BunchId {
        let Self { slabs, wide } = self;
        let copy = BunchId::new(id.class(), slabs[id.class()].insert());
        let lines = slabs[copy.class()].slot_mut(copy.slot());
        lines.copy_from_slice(from.lines(id));
        if from.wide.used() > 0 {
            let bunch = from.bunch(id);
            for at in (0..bunch.len()).filter(|at| bunch.note(*at).wide().is_some()) {
                let note = note(wide, &from.totals_in(bunch, at));
                bunch::set_note(lines, id.layout(), at, note);
            }
        }
        copy
    }

    /// Gives the place of a bunch back.
    pub(super) fn remove(&mut self, id: BunchId) {
        self.forget_notes(id);
        self.slabs[id.class()].remove(id.slot());
    }

    fn forget_notes(&mut self, id: BunchId) {
        if self.wide.used() == 0 {
            return;
        }
        for at in 0..self.bunch(id).len() {
            if let Some(wide) = self.bunch(id).note(at).wide() {
                self.wide.remove(wide);
            }
        }
    }

    /// The note of a leaf that is to stand in a bunch.
    pub(super) fn note(&mut self, leaf: &Leaf) -> Note {
        note(&mut self.wide, &totals_of(leaf))
    }

    /// Writes leaves into a place that was reserved for them, as [`bunch::lay`] does; their hash,
    /// if it is known.
    pub(super) fn lay(
        &mut self,
        id: BunchId,
        leaves: &[Leaf],
        kept: Option<Kept<'_>>,
        due: impl FnMut(Due),
    ) -> Option<TreeHash> {
        let Self { slabs, wide } = self;
        let lines = slabs[id.class()].slot_mut(id.slot());
        let note = |leaf: &Leaf| note(wide, &totals_of(leaf));
        bunch::lay(lines, id.layout(), leaves, kept, note, due).hash
    }

    /// Puts a leaf into a bunch that has room for it, as [`Bunch::with`] says; `whole` is the hash
    /// of the bunch as it was. Where it stands now, and the way to the leaf.
    pub(super) fn insert(
        &mut self,
        id: BunchId,
        within: &Descent,
        bit: u8,
        leaf: &Leaf,
        whole: &TreeHash,
    ) -> (BunchId, Descent) {
        let right = leaf.key.bit(bit);
        let change = self.bunch(id).with(within, bit, right);
        let beside = change.beside.map_or(*whole, |side| self.bunch(id).hash_at(side));
        let note = self.note(leaf);
        let id = self.shift(id, &change, true);
        let (lines, layout) = (self.lines_mut(id), id.layout());
        lines[layout.leaf(change.leaf)].set(&leaf.key.0, &leaf.record.0);
        bunch::set(lines, layout, change.leaf, &leaf.record, note);
        lines[layout.inner(change.node)].set_half(!right, &beside.0);
        (id, change.descent)
    }

    /// Takes a leaf out of a bunch of several, as [`Bunch::without`] says. Where the bunch stands
    /// now, and the way to what stood beside the leaf, with its hash.
    pub(super) fn take(&mut self, id: BunchId, within: &Descent) -> (BunchId, Descent, TreeHash) {
        let bunch = self.bunch(id);
        let change = bunch.without(within);
        let beside = change.beside.map(|side| bunch.hash_at(side));
        if let Some(wide) = bunch.note(within.leaf).wide() {
            self.wide.remove(wide);
        }
        let id = self.shift(id, &change, false);
        (id, change.descent, beside.expect("a leaf that is not alone has something beside it"))
    }

    /// Writes a bunch anew with a leaf more or less, into a place of the right size.
    fn shift(&mut self, id: BunchId, change: &Shift, comes: bool) -> BunchId {
        let copy = self.lines(id).to_vec();
        let from = Bunch::new(&copy, id.layout());
        let len = if comes { from.len() + 1 } else { from.len() - 1 };
        self.slabs[id.class()].remove(id.slot());
        let id = self.reserve(len);
        bunch::shift((self.lines_mut(id), id.layout()), from, change, comes);
        id
    }

    /// Makes one of two bunches under a node that splits at a bit; their hashes are known.
    pub(super) fn fuse(&mut self, bit: u8, sides: [BunchId; 2], hashes: &[TreeHash; 2]) -> BunchId {
        let copies = sides.map(|id| self.lines(id).to_vec());
        let [left, right] = [0, 1].map(|at: usize| Bunch::new(&copies[at], sides[at].layout()));
        // the notes move as they are
        for id in sides {
            self.slabs[id.class()].remove(id.slot());
        }
        let id = self.reserve(left.len() + right.len());
        bunch::fuse(self.lines_mut(id), id.layout(), bit, [left, right], hashes);
        id
    }

    /// Gives a leaf another record and other totals.
    pub(super) fn replace(&mut self, spot: Spot, record: &RecordDigest, totals: &Totals) {
        let Spot { bunch: id, at } = spot;
        let bunch = self.bunch(id);
        let at = usize::from(at);
        let (same_record, old) = (bunch.record(at) == *record, bunch.note(at));
        let same_note = old.wide().is_none() && Note::pack(totals) == Some(old);
        if same_record && same_note {
            return;
        }
        let new = if same_note {
            old
        } else {
            if let Some(wide) = old.wide() {
                self.wide.remove(wide);
            }
            note(&mut self.wide, totals)
        };
        bunch::set(self.lines_mut(id), id.layout(), at, record, new);
    }

    #[inline]
    pub(super) fn totals(&self, spot: Spot) -> Totals {
        self.totals_in(self.bunch(spot.bunch), usize::from(spot.at))
    }

    fn totals_in(&self, bunch: Bunch<'_>, at: usize) -> Totals {
        let note = bunch.note(at);
        let (siblings, bytes) = match note.wide() {
            Some(wide) => {
                let Wide { siblings, bytes } = *self.wide.slot(wide);
                (siblings, bytes)
            }
            None => {
                let bytes = note.packed & ((1 << Note::BYTES_BITS) - 1);
                (note.packed >> Note::BYTES_BITS, bytes)
            }
        };
        Totals { entries: 1, siblings, bytes, latest: note.latest }
    }

    /// Totals of the leaves of a span.
    pub(super) fn sum(&self, id: BunchId, span: Span) -> Totals {
        let bunch = self.bunch(id);
        let leaves = bunch.leaves(span).map(|at| self.totals_in(bunch, at));
        leaves.fold(Totals::default(), Totals::plus)
    }

    #[inline]
    pub(super) fn leaf(&self, spot: Spot) -> Leaf {
        let (bunch, at) = (self.bunch(spot.bunch), usize::from(spot.at));
        Leaf { key: bunch.key(at), record: bunch.record(at), totals: self.totals_in(bunch, at) }
    }
}
