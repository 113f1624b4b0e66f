//! The difference of two sets, from a stream of symbols that is read until it is enough.
//!
//! Rateless IBLT (Yang, Gilad and Alizadeh: Practical Rateless Set Reconciliation, SIGCOMM 2024).
//! A coded symbol adds up the ids that are in it: the first one has all of them, the one of index i
//! each with probability 1 / (1 + i / 2). Whoever takes the own stream from the other one's is
//! left with what only one side holds; a symbol with one id left names it, and with it taken away
//! from all others the next ones show. About 1.35 symbols a difference are enough when these are
//! many, up to 1.75 when they are few; nobody has to know beforehand how many they are.
//!
//! Here a symbol is nine bytes: the exclusive or of the words of its ids, each of 44 bits of id and
//! 20 bits of its SipHash-1-3 with the key of the session, and how many there are, modulo 256. The
//! key makes it useless to choose ids beforehand that look alike. A sum of several ids passes for
//! one of them in one case of a million; that undoes itself, and an id that remains in error is
//! found out like any other fault of a sketch: they steer, roots decide.
//!
//! Ids begin with bits of the key hash, so that each leads to its leaf. [Bucket
//! sketches](super::buckets) take half the bytes, if it is known how many differ. 44 bits are
//! enough, since a stream is exact over ids that come twice: of two entries with one id, a difference in one is
//! named as that id, whatever the other is.
//!
//! ```
//! use selfsame::limits::Limits;
//! use selfsame::sketch::ShortId;
//! use selfsame::sketch::iblt::{Decoder, Encoder, IbltKey, Symbols, symbols_for};
//!
//! let ids = |numbers: std::ops::Range<u64>| numbers.filter_map(ShortId::new);
//! let (limits, key) = (Limits::default(), IbltKey::derive(&[7; 32]));
//! let mut theirs = Encoder::new(&key, ids(3..1_001), &limits);
//! let mut decoder = Decoder::new(Encoder::new(&key, ids(1..1_000), &limits), &limits);
//! let mut batch = symbols_for(3);
//! while !decoder.is_complete() {
//!     let bytes = theirs.next_symbols(batch).to_bytes();
//!     decoder.push(&Symbols::from_bytes(&bytes)?)?;
//!     batch = 2;
//! }
//! let numbers = |ids: Vec<ShortId>| ids.into_iter().map(ShortId::get).collect::<Vec<_>>();
//! let difference = decoder.difference();
//! assert_eq!(numbers(difference.ours), [1, 2]);
//! assert_eq!(numbers(difference.theirs), [1_000]);
//! # Ok::<(), selfsame::sketch::iblt::IbltError>(())
//! ```

mod decoder;
mod encoder;
mod kept;
mod mapping;
mod siphash;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use decoder::{Decoder, Difference};
pub use encoder::Encoder;
pub use kept::KeptSymbols;

use mapping::Word;

/// Bytes of a symbol on the wire.
pub const SYMBOL_BYTES: usize = 9;

/// How many symbols name so many differences in 19 of 20 cases: the first batch to ask for. On
/// average it takes 1.36 for each when there are thousands, 1.45 for a hundred, 1.7 for five.
#[must_use]
pub fn symbols_for(differences: u64) -> usize {
    let differences = differences as f64;
    (1.36 * differences + 2.4 * differences.sqrt() + 5.0) as usize
}

/// Symbols that are refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IbltError {
    /// None, or a part of one.
    #[error("{0} bytes are no coded symbols of 9 bytes each: the session goes on without them")]
    Length(usize),
    /// Over the limit.
    #[error(
        "more than {limit} coded symbols do not say what differs: raise max_iblt_symbols, or \
        compare trees"
    )]
    TooMany {
        /// How many are allowed.
        limit: usize,
    },
}

/// The key of the streams of one session: both ends derive it, and nobody else can.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IbltKey([u64; 2]);

impl IbltKey {
    /// The key of streams that are [kept](KeptSymbols), which everybody knows: whoever writes can
    /// choose ids that look alike under it, and gains a descent.
    pub const KEPT: Self = Self([0x0073_656c_6673_616d, 0x6500_6b65_7074_0000]);

    /// The first half of a secret of the session that is used for nothing else.
    #[must_use]
    pub fn derive(secret: &[u8; 32]) -> Self {
        let (words, _) = secret.as_chunks::<8>();
        Self([u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])])
    }
}

impl fmt::Debug for IbltKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IbltKey(..)")
    }
}

/// A coded symbol: the sum of the words of its ids, and their number modulo 256.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Symbol {
    word: u64,
    count: u8,
}

impl Symbol {
    const fn add(&mut self, word: Word, count: u8) {
        self.word ^= word.0;
        self.count = self.count.wrapping_add(count);
    }

    const fn take(&mut self, word: Word, count: u8) {
        self.word ^= word.0;
        self.count = self.count.wrapping_sub(count);
    }

    const fn less(self, other: Self) -> Self {
        Self { word: self.word ^ other.word, count: self.count.wrapping_sub(other.count) }
    }

    const fn is_nothing(self) -> bool {
        self.word == 0 && self.count == 0
    }

    /// Whether its number is that of one id of either side.
    const fn may_be_one(self) -> bool {
        matches!(self.count, 1 | u8::MAX)
    }
}

/// A batch of coded symbols, in the order of their stream.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct Symbols(Vec<Symbol>);

impl fmt::Debug for Symbols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Symbols({})", self.len())
    }
}

impl Symbols {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none: the stream has come to its limit.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nine bytes a symbol: the sum, little-endian, and the number.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SYMBOL_BYTES * self.len());
        for symbol in &self.0 {
            bytes.extend_from_slice(&symbol.word.to_le_bytes());
            bytes.push(symbol.count);
        }
        bytes
    }

    /// Reads a batch. Any bytes of the right length are symbols.
    ///
    /// # Errors
    /// There is none, or one is cut short.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IbltError> {
        let (symbols, []) = bytes.as_chunks::<SYMBOL_BYTES>() else {
            return Err(IbltError::Length(bytes.len()));
        };
        if symbols.is_empty() {
            return Err(IbltError::Length(0));
        }
        let symbol = |bytes: &[u8; SYMBOL_BYTES]| {
            let [sum @ .., count] = *bytes;
            Symbol { word: u64::from_le_bytes(sum), count }
        };
        Ok(Self(symbols.iter().map(symbol).collect()))
    }
}

/// The bytes of a batch, as serde sees them.
#[derive(Serialize, Deserialize)]
struct Wire(#[serde(with = "crate::delta::bytes")] Vec<u8>);

impl From<Symbols> for Wire {
    fn from(symbols: Symbols) -> Self {
        Self(symbols.to_bytes())
    }
}

impl TryFrom<Wire> for Symbols {
    type Error = IbltError;

    fn try_from(wire: Wire) -> Result<Self, Self::Error> {
        Self::from_bytes(&wire.0)
    }
}
