//! Bunches of one size, side by side in chunks behind `Arc`: a clone shares every chunk, and a
//! change copies the one that it touches.
//!
//! Nearly all memory of a tree is here, in 17,000 chunks for a million leaves. So chunks are listed
//! in groups, which are shared in turn: the first change after a clone counts up the owners of a
//! group's chunks, not of all.

use std::iter;
use std::sync::Arc;

use super::arena::Slot;
use super::bunch::Layout;
use super::slots::Line;

/// Most lines of a chunk (64 B each): large enough that the lists of chunks stay in a core's own
/// cache, small enough that a copy takes a microsecond.
const CHUNK_LINES: usize = 256;
/// Chunks of a group.
const GROUP: usize = 128;
const NONE: u32 = u32::MAX;

type Chunk = Arc<[Line]>;

/// Slots of one size; vacant ones are used again first.
#[derive(Clone)]
pub(super) struct Slab {
    groups: Vec<Arc<Vec<Chunk>>>,
    used: u32,
    // slots that were ever used; those behind are untouched
    filled: u32,
    vacant: u32,
    // lines of a slot, and slots of a chunk
    lines: u32,
    slots: u32,
}

impl Slab {
    pub(super) fn new(layout: Layout) -> Self {
        let slots = 1 << (CHUNK_LINES / layout.lines()).ilog2();
        let (groups, lines) = (Vec::new(), layout.lines() as u32);
        Self { groups, used: 0, filled: 0, vacant: NONE, lines, slots }
    }

    /// Slots in use.
    pub(super) const fn used(&self) -> u32 {
        self.used
    }

    /// Bytes of the slots in use.
    pub(super) const fn used_bytes(&self) -> usize {
        self.used as usize * self.slot_bytes()
    }

    /// Bytes of the slots that are or were in use.
    pub(super) const fn filled_bytes(&self) -> usize {
        self.filled as usize * self.slot_bytes()
    }

    const fn slot_bytes(&self) -> usize {
        self.lines as usize * size_of::<Line>()
    }

    /// Bytes of all chunks and of their lists.
    pub(super) fn bytes(&self) -> usize {
        let chunks = self.groups.iter().flat_map(|group| group.iter());
        let lists: usize = self.groups.iter().map(|group| group.capacity()).sum();
        chunks.map(|chunk| size_of_val::<[Line]>(chunk)).sum::<usize>()
            + lists * size_of::<Chunk>()
            + self.groups.capacity() * size_of::<Arc<Vec<Chunk>>>()
    }

    /// Whether a clone has chunks of this one, so far as that can be seen of whole groups.
    pub(super) fn is_shared(&self) -> bool {
        self.groups.iter().any(|group| Arc::strong_count(group) > 1)
    }

    #[inline]
    pub(super) fn slot(&self, slot: u32) -> &[Line] {
        let (chunk, start) = self.place(slot);
        &self.chunk(chunk)[start..start + self.lines as usize]
    }

    #[inline]
    pub(super) fn slot_mut(&mut self, slot: u32) -> &mut [Line] {
        let ((chunk, start), lines) = (self.place(slot), self.lines as usize);
        &mut Arc::make_mut(self.chunk_mut(chunk))[start..start + lines]
    }

    /// How many share the chunk of a slot: what is looked at before it is changed.
    #[inline]
    pub(super) fn sharers(&self, slot: u32) -> usize {
        Arc::strong_count(self.chunk(self.place(slot).0))
    }

    /// A slot with anything in it.
    pub(super) fn insert(&mut self) -> u32 {
        self.used += 1;
        if self.vacant != NONE {
            let slot = self.vacant;
            self.vacant = self.slot(slot)[0].next_vacant();
            return slot;
        }
        self.make_room();
        self.filled += 1;
        self.filled - 1
    }

    /// Gives a slot back.
    pub(super) fn remove(&mut self, slot: u32) {
        self.used -= 1;
        if self.used == 0 {
            (self.groups, self.filled, self.vacant) = (Vec::new(), 0, NONE);
        } else {
            let next = self.vacant;
            self.slot_mut(slot)[0] = Line::vacant(next);
            self.vacant = slot;
        }
    }

    fn make_room(&mut self) {
        let (chunk, start) = self.place(self.filled);
        let group = self.groups.get(chunk / GROUP);
        match group.and_then(|group| group.get(chunk % GROUP)) {
            Some(lines) if start < lines.len() => {}
            // the first chunk grows by doubling, so that a tree of a few leaves stays small
            Some(lines) => {
                let size = 2 * lines.len();
                let grown = lines.iter().copied().chain(iter::repeat(Line::EMPTY)).take(size);
                *self.chunk_mut(chunk) = grown.collect();
            }
            None => {
                let slots = if chunk == 0 { 1 } else { self.slots };
                let size = (slots * self.lines) as usize;
                let lines = iter::repeat_n(Line::EMPTY, size).collect();
                if chunk.is_multiple_of(GROUP) {
                    self.groups.push(Arc::default());
                }
                Arc::make_mut(&mut self.groups[chunk / GROUP]).push(lines);
            }
        }
    }

    #[inline]
    const fn place(&self, slot: u32) -> (usize, usize) {
        let shift = self.slots.trailing_zeros();
        ((slot >> shift) as usize, ((slot & (self.slots - 1)) * self.lines) as usize)
    }

    #[inline]
    fn chunk(&self, chunk: usize) -> &Chunk {
        &self.groups[chunk / GROUP][chunk % GROUP]
    }

    #[inline]
    fn chunk_mut(&mut self, chunk: usize) -> &mut Chunk {
        &mut Arc::make_mut(&mut self.groups[chunk / GROUP])[chunk % GROUP]
    }
}

#[cfg(test)]
mod tests {
    use super::super::bunch::CLASSES;
    use super::*;

    fn has(slab: &Slab, slot: u32, number: u32) -> bool {
        slab.slot(slot).iter().all(|line| line.next_vacant() == number)
    }

    fn set(slab: &mut Slab, slot: u32, number: u32) {
        slab.slot_mut(slot).fill(Line::vacant(number));
    }

    /// More than a group of chunks.
    fn filled(class: usize) -> (Slab, u32) {
        let mut slab = Slab::new(Layout::of_class(class));
        let count = slab.slots * (GROUP as u32 + 2) + 1;
        for number in 0..count {
            let slot = slab.insert();
            assert_eq!(slot, number);
            set(&mut slab, slot, number);
        }
        (slab, count)
    }

    #[test]
    fn every_size_has_slots_of_its_own_and_uses_them_again() {
        for class in 0..CLASSES {
            let (mut slab, count) = filled(class);
            assert!((0..count).all(|slot| has(&slab, slot, slot)));
            let bytes = slab.bytes();
            assert!(bytes >= slab.filled_bytes());
            (0..count).step_by(3).for_each(|slot| slab.remove(slot));
            assert!(slab.used_bytes() < slab.filled_bytes());
            while slab.used() < count {
                let slot = slab.insert();
                assert!(slot.is_multiple_of(3) && slot < count);
            }
            assert_eq!((slab.bytes(), slab.used_bytes()), (bytes, slab.filled_bytes()));
            let mut kept = (0..count).filter(|slot| !slot.is_multiple_of(3));
            assert!(kept.all(|slot| has(&slab, slot, slot)));
            (0..count).for_each(|slot| slab.remove(slot));
            assert_eq!(slab.bytes(), 0);
        }
    }

    #[test]
    fn a_clone_keeps_what_the_original_overwrites_and_a_change_copies_one_group() {
        let (mut slab, count) = filled(7);
        assert!(!slab.is_shared());
        let frozen = slab.clone();
        set(&mut slab, 0, u32::MAX);
        let shared = |slab: &Slab| slab.groups.iter().map(Arc::strong_count).collect::<Vec<_>>();
        assert_eq!(shared(&slab), [1, 2]);
        assert!(slab.is_shared());
        (0..count).for_each(|slot| set(&mut slab, slot, u32::MAX));
        assert!((0..count).all(|slot| has(&frozen, slot, slot)));
        assert_eq!(shared(&slab), [1, 1]);
    }
}
