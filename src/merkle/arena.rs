//! Slots in chunks behind `Arc`: a clone shares every chunk, and a change copies the chunk it
//! touches.
//!
//! Growing one vector would move everything every now and then; chunks stay where they are.

use std::iter;
use std::sync::Arc;

/// Bytes of a full chunk. Small enough that the thirty or so chunks that a put touches after a
/// snapshot are copied in microseconds, large enough that a directory entry (16 B) costs nothing.
const CHUNK_BYTES: usize = 8 << 10;
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
    /// Slots of a full chunk, a power of two.
    pub(super) const CHUNK: usize = 1 << (CHUNK_BYTES / size_of::<T>()).ilog2();

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

    /// Bytes of the slots in use.
    pub(super) const fn used_bytes(&self) -> usize {
        self.used as usize * size_of::<T>()
    }

    /// Bytes of the slots that are or were in use.
    pub(super) const fn filled_bytes(&self) -> usize {
        self.filled as usize * size_of::<T>()
    }

    #[inline]
    pub(super) fn slot(&self, index: u32) -> &T {
        let (chunk, slot) = Self::place(index);
        &self.chunks[chunk][slot]
    }

    #[inline]
    pub(super) fn slot_mut(&mut self, index: u32) -> &mut T {
        let (chunk, slot) = Self::place(index);
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

    /// Slots that were ever used: the index of what is appended next.
    pub(super) const fn filled(&self) -> u32 {
        self.filled
    }

    /// Appends values to slots that were never used: each is written once, where it stays.
    pub(super) fn append(&mut self, count: usize, mut value: impl FnMut(usize) -> T) {
        let (chunk, first) = Self::place(self.filled);
        let mut done = 0;
        if first > 0 {
            if chunk == 0 && self.chunks[0].len() < Self::CHUNK {
                self.resize_first((first + count).next_power_of_two().min(Self::CHUNK));
            }
            let vacant = &mut Arc::make_mut(&mut self.chunks[chunk])[first..];
            done = vacant.len().min(count);
            for (at, slot) in vacant.iter_mut().take(count).enumerate() {
                *slot = value(at);
            }
        }
        for start in (done..count).step_by(Self::CHUNK) {
            let present = (count - start).min(Self::CHUNK);
            let size = match self.chunks.is_empty() {
                true => present.next_power_of_two().max(FIRST_CHUNK),
                false => Self::CHUNK,
            };
            let slot = |at| if at < present { value(start + at) } else { T::vacant(NONE) };
            self.chunks.push((0..size).map(slot).collect());
        }
        self.filled += count as u32;
        self.used += count as u32;
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
        let (chunk, slot) = Self::place(self.filled);
        let present = self.chunks.get(chunk).map_or(0, |slots| slots.len());
        if slot < present {
            return;
        }
        if chunk == 0 {
            return self.resize_first((present * 2).max(FIRST_CHUNK));
        }
        self.chunks.push(iter::repeat_n(T::vacant(NONE), Self::CHUNK).collect());
    }

    fn resize_first(&mut self, size: usize) {
        let old = self.chunks.first().map_or(&[][..], |slots| &slots[..]);
        let slots = old.iter().copied().chain(iter::repeat(T::vacant(NONE)));
        let slots = slots.take(size.max(old.len())).collect();
        self.chunks.clear();
        self.chunks.push(slots);
    }

    const fn place(index: u32) -> (usize, usize) {
        (index as usize / Self::CHUNK, index as usize % Self::CHUNK)
    }
}

#[cfg(test)]
mod tests {
    use super::{Arena, Slot};

    #[derive(Clone, Copy, PartialEq, Debug)]
    struct Number(u32);

    const CHUNK: u32 = Arena::<Number>::CHUNK as u32;

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
        let all = 3 * CHUNK + 6;
        for number in 0..all {
            assert_eq!(arena.insert(Number(number)), number);
        }
        let bytes = arena.bytes();
        for index in (0..all).step_by(3) {
            arena.remove(index);
        }
        while arena.used() < all {
            arena.insert(Number(u32::MAX));
        }
        assert_eq!(arena.bytes(), bytes);
        let kept = (0..all).filter(|&index| *arena.slot(index) == Number(index)).count();
        assert_eq!(kept, (all - all.div_ceil(3)) as usize);
    }

    #[test]
    fn appended_or_inserted_it_is_the_same() {
        for count in [0, 1, 3, 4, 5, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let (mut appended, mut inserted) = (Arena::new(), Arena::new());
            for part in [0..count / 3, count / 3..count] {
                let first = part.start;
                appended.append(part.len(), |at| Number(first + at as u32));
            }
            for number in 0..count {
                inserted.insert(Number(number));
            }
            for number in count..count + 10 {
                assert_eq!(appended.insert(Number(number)), number);
                inserted.insert(Number(number));
            }
            assert_eq!(appended.used(), inserted.used());
            assert_eq!(appended.chunks.len(), inserted.chunks.len());
            assert!((0..count + 10).all(|index| *appended.slot(index) == Number(index)));
        }
    }

    #[test]
    fn a_clone_keeps_what_the_original_overwrites() {
        let mut arena = Arena::new();
        for number in 0..2 * CHUNK {
            arena.insert(Number(number));
        }
        let frozen = arena.clone();
        for index in 0..2 * CHUNK {
            arena.slot_mut(index).0 = u32::MAX;
        }
        assert!((0..2 * CHUNK).all(|index| *frozen.slot(index) == Number(index)));
    }

    #[test]
    fn an_emptied_arena_gives_its_memory_back() {
        let mut arena = Arena::new();
        for number in 0..2 * CHUNK {
            arena.insert(Number(number));
        }
        for index in 0..2 * CHUNK {
            arena.remove(index);
        }
        assert_eq!(arena.bytes(), 0);
    }
}
