//! Peeling: from the difference of two streams to the ids that are behind it.

use super::encoder::Encoder;
use super::mapping::{Mapping, Word};
use super::{IbltError, Symbol, Symbols};
use crate::limits::Limits;
use crate::sketch::ShortId;

/// How often one symbol may name an id: once, and once more if the first was in error and has been
/// taken back. Without an end to it, two symbols could name and deny an id for ever.
pub(super) const NAMES_PER_SYMBOL: u8 = 2;

/// What two sets do not share.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Difference {
    /// Ids that only this side holds, ascending.
    pub ours: Vec<ShortId>,
    /// Ids that only the other side holds, ascending.
    pub theirs: Vec<ShortId>,
}

/// An id that was peeled: it takes part in every symbol that is still to come.
#[derive(Clone, Copy, Debug)]
struct Peeled {
    word: Word,
    mapping: Mapping,
    /// 1 for an id of the other side, -1 (as a count) for one of this side.
    count: u8,
}

/// What is left of a symbol, and how often it has named an id.
#[derive(Clone, Copy, Debug)]
struct Cell {
    symbol: Symbol,
    names: u8,
}

/// Reads the other side's stream against the own one.
///
/// What it says is exact but for a chance of one in a million for each look at a symbol; an id
/// that came up so is taken back as soon as the true ones behind it are known, and all symbols
/// must come to nothing before it says that all is named. 16 bytes of memory a symbol, 32 an id
/// that it names. No bytes make a symbol name more than two ids, and naming one costs about
/// 4 ln(n / 2) looks at n symbols: three times that if the peer tried a thousand million ids
/// under the key that both know.
#[derive(Clone, Debug)]
pub struct Decoder {
    own: Encoder,
    cells: Vec<Cell>,
    /// How many cells are not yet nothing.
    left: usize,
    peeled: Vec<Peeled>,
    effort: u64,
    most: usize,
}

impl Decoder {
    /// Against a stream of which nothing was taken yet, and with its key.
    #[must_use]
    pub fn new(own: Encoder, limits: &Limits) -> Self {
        let most = limits.max_iblt_symbols;
        Self { own, cells: Vec::new(), left: 0, peeled: Vec::new(), effort: 0, most }
    }

    /// The own stream.
    #[must_use]
    pub const fn stream(&self) -> &Encoder {
        &self.own
    }

    /// Goes on with another stream of the same set and key, of which nothing was taken yet.
    pub fn go_on_with(&mut self, mut own: Encoder) {
        own.skip(self.symbols());
        self.own = own;
    }

    /// How many symbols came so far.
    #[must_use]
    pub const fn symbols(&self) -> usize {
        self.cells.len()
    }

    /// Whether all ids are named: never before the first symbol.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        !self.cells.is_empty() && self.left == 0
    }

    /// Cells that were looked at or changed so far.
    #[must_use]
    pub const fn effort(&self) -> u64 {
        self.effort
    }

    /// Takes the next batch of the other side's stream, and says whether all ids are named.
    ///
    /// # Errors
    /// More symbols than `max_iblt_symbols`, or than the own stream goes: none is taken then.
    pub fn push(&mut self, theirs: &Symbols) -> Result<bool, IbltError> {
        let first = self.cells.len();
        if theirs.len() > self.most.saturating_sub(first) {
            return Err(IbltError::TooMany { limit: self.most });
        }
        let ours = self.own.next_symbols(theirs.len());
        if ours.len() != theirs.len() {
            return Err(IbltError::TooMany { limit: self.own.symbols() });
        }
        let both = theirs.0.iter().zip(&ours.0);
        self.cells.extend(both.map(|(a, b)| Cell { symbol: a.less(*b), names: 0 }));
        let end = self.cells.len() as u32;
        for peeled in &mut self.peeled {
            while peeled.mapping.at < end {
                self.cells[peeled.mapping.at as usize].symbol.take(peeled.word, peeled.count);
                self.effort += 1;
                peeled.mapping.step();
            }
        }
        self.left += self.cells[first..].iter().filter(|one| !one.symbol.is_nothing()).count();
        self.peel(first);
        Ok(self.is_complete())
    }

    /// Takes away ids that stand alone in a symbol, until there is none.
    fn peel(&mut self, first: usize) {
        let end = self.cells.len() as u32;
        let mut waiting: Vec<u32> = (first as u32..end).collect();
        // the latest first: those that came with the batch have the fewest ids in them
        while let Some(at) = waiting.pop() {
            self.effort += 1;
            let Some(mut peeled) = self.alone_in(at) else { continue };
            self.cells[at as usize].names += 1;
            while peeled.mapping.at < end {
                let at = peeled.mapping.at;
                let symbol = &mut self.cells[at as usize].symbol;
                self.left += usize::from(symbol.is_nothing());
                symbol.take(peeled.word, peeled.count);
                self.left -= usize::from(symbol.is_nothing());
                if symbol.may_be_one() {
                    waiting.push(at);
                }
                self.effort += 1;
                peeled.mapping.step();
            }
            self.peeled.push(peeled);
        }
    }

    /// The id that a symbol consists of, from its first index on, if it is one that is there.
    fn alone_in(&mut self, at: u32) -> Option<Peeled> {
        let Cell { symbol, names } = self.cells[at as usize];
        if !symbol.may_be_one() || names == NAMES_PER_SYMBOL {
            return None;
        }
        let word = Word(symbol.word);
        let mapping = word.check(self.own.key())?;
        let mut here = mapping;
        while here.at < at {
            here.step();
            self.effort += 1;
        }
        (here.at == at).then_some(Peeled { word, mapping, count: symbol.count })
    }

    /// The ids that are named so far; those named in error may be among them until all are.
    #[must_use]
    pub fn difference(&self) -> Difference {
        let mut peeled: Vec<(Word, u8)> =
            self.peeled.iter().map(|one| (one.word, one.count)).collect();
        peeled.sort_unstable();
        let mut difference = Difference::default();
        for same in peeled.chunk_by(|one, next| one.0 == next.0) {
            let count = same.iter().fold(0, |sum: u8, (_, count)| sum.wrapping_add(*count));
            let side = match count.cast_signed() {
                0 => continue,
                1.. => &mut difference.theirs,
                _ => &mut difference.ours,
            };
            side.extend(same[0].0.id());
        }
        difference.ours.sort_unstable();
        difference.theirs.sort_unstable();
        difference
    }
}
