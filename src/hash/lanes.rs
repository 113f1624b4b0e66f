//! BLAKE3 over preimages of exactly one block, one at a time or as many at once as the processor
//! has lanes.
//!
//! The keyed hash of 64 bytes is one compression. `blake3` compresses up to sixteen independent
//! blocks at once, but promises an interface for that to nobody; so this module alone knows it,
//! the version of the crate is held in `Cargo.toml`, and the test below compares with
//! `blake3::keyed_hash`.

use std::sync::LazyLock;

use blake3::platform::{Platform, le_bytes_from_words_32, words_from_le_bytes_32};

use super::HASH_LEN;

/// A preimage: two hashes one after the other.
pub(crate) type Block = [u8; 2 * HASH_LEN];

/// Most blocks that any processor hashes at once.
#[cfg(feature = "tree")]
pub(crate) const LANES: usize = 16;

// what a hash of one keyed block is made of, from the BLAKE3 paper, section 2.2
const CHUNK_START: u8 = 1;
const CHUNK_END: u8 = 1 << 1;
const ROOT: u8 = 1 << 3;
const KEYED_HASH: u8 = 1 << 4;

static PLATFORM: LazyLock<Platform> = LazyLock::new(Platform::detect);

/// A key of BLAKE3's keyed mode.
#[derive(Clone, Copy)]
pub(crate) struct BlockKey([u32; 8]);

impl BlockKey {
    pub(crate) fn new(key: &[u8; HASH_LEN]) -> Self {
        Self(words_from_le_bytes_32(key))
    }

    /// Keyed hash of one block.
    pub(crate) fn hash(&self, block: &Block) -> [u8; HASH_LEN] {
        let mut words = self.0;
        let flags = CHUNK_START | CHUNK_END | ROOT | KEYED_HASH;
        PLATFORM.compress_in_place(&mut words, block, block.len() as u8, 0, flags);
        le_bytes_from_words_32(&words)
    }

    /// Keyed hashes of blocks; of as many as there are of both.
    #[cfg(feature = "tree")]
    pub(crate) fn hash_many(&self, blocks: &[&Block], hashes: &mut [[u8; HASH_LEN]]) {
        let count = blocks.len().min(hashes.len());
        PLATFORM.hash_many(
            &blocks[..count],
            &self.0,
            0,
            blake3::IncrementCounter::No,
            KEYED_HASH,
            CHUNK_START,
            CHUNK_END | ROOT,
            hashes[..count].as_flattened_mut(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(number: u8) -> Block {
        std::array::from_fn(|at| (at as u8).wrapping_mul(7) ^ number.wrapping_mul(31))
    }

    #[test]
    fn one_block_hashes_as_the_crate_promises() {
        for number in 0..=255 {
            let key = [number ^ 0x5a; HASH_LEN];
            let expected: [u8; HASH_LEN] = blake3::keyed_hash(&key, &block(number)).into();
            assert_eq!(BlockKey::new(&key).hash(&block(number)), expected);
        }
    }

    #[cfg(feature = "tree")]
    #[test]
    fn any_number_of_blocks_at_once_hashes_as_the_crate_promises() {
        let blocks: Vec<Block> = (0..40).map(block).collect();
        let key: [u8; HASH_LEN] = std::array::from_fn(|at| at as u8);
        for count in 0..=blocks.len() {
            let given: Vec<&Block> = blocks[..count].iter().collect();
            let mut hashes = vec![[0; HASH_LEN]; count];
            BlockKey::new(&key).hash_many(&given, &mut hashes);
            for (block, hash) in given.into_iter().zip(hashes) {
                assert_eq!(hash, *blake3::keyed_hash(&key, block).as_bytes(), "{count}");
            }
        }
    }
}
