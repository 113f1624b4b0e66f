//! Slots in chunks behind `Arc`: a clone shares every chunk, and a change copies the chunk it
//! touches.
//!
//! Growing one vector would move everything every now and then; chunks stay where they are.

use std::iter;
use std::sync::Arc;

/// Slots of a full chunk. Small enough that the twenty or so chunks that a put touches after a
/// snapshot are copied in microseconds, large enough that a directory entry (16 B) costs nothing.
pub(super) const CHUNK: usize = 128;
const FIRST_CHUNK: usize = 4;
const NONE: u32 = u32::MAX;

/// What can stand in an arena: it can remember the next vacant slot while it is vacant itself.
pub(super) trait Slot: Copy {
    /// A slot with nothing in it.
    fn vacant(next: u32) -> Self;

    /// The next vacant slot, if this is a vacant one.
    fn next_vacant(&self) -> u32;
}

/// Slots by index; vacant ones are used again first.
#[derive(Clone)]
pub(super) struct Arena<T> {
    chunks: Vec<Arc<[T]>>,
    used: u32,
    // slots that were ever used; those behind are untouched
    filled: u32,
    vacant: u32,
}

impl<T: Slot> Arena<T> {
    pub(super) const fn new() -> Self {
        Self { chunks: Vec::new(), used: 0, filled: 0, vacant: NONE }
    }

    /// Slots in use.
    pub(super) const fn used(&self) -> u32 {
        self.used
    }

    /// Bytes of all chunks and their directory.
    pub(super) fn bytes(&self) -> usize {
        let slots: usize = self.chunks.iter().map(|chunk| size_of_val::<[T]>(chunk)).sum();
        slots + self.chunks.capacity() * size_of::<Arc<[T]>>()
    }

    pub(super) fn slot(&self, index: u32) -> &T {
        let (chunk, slot) = place(index);
        &self.chunks[chunk][slot]
    }

    pub(super) fn slot_mut(&mut self, index: u32) -> &mut T {
        let (chunk, slot) = place(index);
        &mut Arc::make_mut(&mut self.chunks[chunk])[slot]
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        let index = if self.vacant == NONE {
            self.make_room();
            self.filled += 1;
            self.filled - 1
        } else {
            let index = self.vacant;
            self.vacant = self.slot(index).next_vacant();
            index
        };
        *self.slot_mut(index) = value;
        self.used += 1;
        index
    }

    pub(super) fn remove(&mut self, index: u32) {
        self.used -= 1;
        if self.used == 0 {
            *self = Self::new();
        } else {
            *self.slot_mut(index) = T::vacant(self.vacant);
            self.vacant = index;
        }
    }

    // the first chunk grows by doubling, so that a tree of a few leaves stays small
    fn make_room(&mut self) {
        let (chunk, slot) = place(self.filled);
        let present = self.chunks.get(chunk).map_or(0, |slots| slots.len());
        if slot < present {
            return;
        }
        let size = if chunk > 0 { CHUNK } else { (present * 2).max(FIRST_CHUNK) };
        let old = self.chunks.get(chunk).map_or(&[][..], |slots| &slots[..]);
        let slots =
            old.iter().copied().chain(iter::repeat(T::vacant(NONE))).take(size).collect::<Arc<_>>();
        self.chunks.truncate(chunk);
        self.chunks.push(slots);
    }
}

const fn place(index: u32) -> (usize, usize) {
    (index as usize / CHUNK, index as usize % CHUNK)
}

#[cfg(test)]
mod tests {
    use super::{Arena, CHUNK, Slot};

    #[derive(Clone, Copy, PartialEq, Debug)]
    struct Number(u32);

    impl Slot for Number {
        fn vacant(next: u32) -> Self {
            Self(next)
        }

        fn next_vacant(&self) -> u32 {
            self.0
        }
    }

    #[test]
    fn vacant_slots_are_used_again() {
        let mut arena = Arena::new();
        let all = 3 * CHUNK as u32 + 5;
        for number in 0..all {
            assert_eq!(arena.insert(Number(number)), number);
        }
        let bytes = arena.bytes();
        for index in (0..all).step_by(3) {
            arena.remove(index);
        }
        while arena.used() < all {
            arena.insert(Number(7));
        }
        assert_eq!(arena.bytes(), bytes);
        assert_eq!((0..all).filter(|&index| *arena.slot(index) == Number(index)).count(), 259);
    }

    #[test]
    fn a_clone_keeps_what_the_original_overwrites() {
        let mut arena = Arena::new();
        for number in 0..300 {
            arena.insert(Number(number));
        }
        let frozen = arena.clone();
        for index in 0..300 {
            arena.slot_mut(index).0 = 1_000;
        }
        assert!((0..300).all(|index| *frozen.slot(index) == Number(index)));
    }

    #[test]
    fn an_emptied_arena_gives_its_memory_back() {
        let mut arena = Arena::new();
        for number in 0..300 {
            arena.insert(Number(number));
        }
        for index in 0..300 {
            arena.remove(index);
        }
        assert_eq!(arena.bytes(), 0);
    }
}
